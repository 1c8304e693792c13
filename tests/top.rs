//! `shardwall top`, the real binary on a real terminal (a pseudo-terminal), against an appliance between
//! two namespaces. Needs root, or is re-run inside user namespaces where the system allows that.
#![cfg(feature = "dpdk")]

mod common;

use common::{json, stop};
use parking_lot::{Mutex, MutexGuard};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};
use serde_json::Value;
use shardwall::cli::lab::{Lab, OUTSIDE, Process, as_root_of_a_namespace, is_root, pause};
use shardwall::cli::top::Screen;
use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;

const BINARY: &str = env!("CARGO_BIN_EXE_shardwall");

/// One laboratory at a time: two polling workers are enough for two cores.
static TURN: Mutex<()> = Mutex::new(());

/// The right to make a laboratory; `None` if the test has been run, as root of a user namespace.
fn enter(test: &str) -> Option<MutexGuard<'static, ()>> {
    let turn = TURN.lock();
    if is_root() {
        return Some(turn);
    }
    let binary = std::env::current_exe().unwrap();
    let binary = binary.to_string_lossy();
    let status = as_root_of_a_namespace(&[&binary, test, "--exact", "--nocapture"]).unwrap();
    assert!(status.success(), "it failed inside `unshare -Urnm`");
    None
}

const RULES: &str = "
conntrack: { accounting: true }
chains:
  forward:
    policy: drop
    rules:
      - { name: known, ct: [established, related], action: accept }
      - { name: ping, proto: [icmp, icmpv6], ct: new, action: accept }
";

/// An appliance, and a host that pings another through it, and one that is refused.
fn lab(kind: &str) -> (Lab, Process) {
    let mut lab = Lab::new(kind, Path::new(BINARY)).unwrap();
    let head = lab.head(2, "127.0.0.1:0", "");
    lab.write_policy(&(head + RULES)).unwrap();
    lab.start().unwrap();
    let pings = lab.lan.spawn(
        &["ping", "-q", "-i", "0.02", OUTSIDE.0],
        &lab.dir,
        &lab.dir.join("ping.log"),
    );
    let pings = pings.unwrap();
    (lab, pings)
}

/// A terminal, with a program that runs on it.
struct Session {
    terminal: OwnedFd,
    keys: File,
    shown: Arc<Mutex<vt100::Parser>>,
    child: Child,
    /// The terminal's settings before the program ran.
    before: Termios,
    /// The program's side, so that the settings can be read at the end.
    side: OwnedFd,
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

impl Session {
    /// Runs `words` on a terminal of 24 lines of 80 characters.
    fn start(words: &[&str], environment: &[(&str, &str)]) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let terminal = openpt(flags).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let side = ioctl_tiocgptpeer(&terminal, flags).unwrap();
        tcsetwinsize(&terminal, size(24, 80)).unwrap();
        let before = tcgetattr(&side).unwrap();
        let end = || side.try_clone().unwrap();
        // As the terminal that controls it, so that ^C and changes of its size are signals.
        let child = Command::new("setsid")
            .arg("--ctty")
            .args(words)
            .env("TERM", "xterm-256color")
            .env("LC_ALL", "C.UTF-8")
            .env_remove("NO_COLOR")
            .envs(environment.iter().copied())
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let [rows, columns] = [24, 80].map(|it| NonZeroU16::new(it).unwrap());
        let shown = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        let mut output = File::from(terminal.try_clone().unwrap());
        let keys = File::from(terminal.try_clone().unwrap());
        let parser = shown.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                parser.lock().process(&bytes[..count]);
            }
        });
        Self {
            terminal,
            keys,
            shown,
            child,
            before,
            side,
        }
    }

    fn top(lab: &Lab, environment: &[(&str, &str)]) -> Self {
        let socket = lab.socket();
        let socket = socket.to_string_lossy();
        let words = [BINARY, "--socket", &socket, "top", "--interval", "0.2"];
        Self::start(&words, environment)
    }

    fn text(&self) -> String {
        self.shown.lock().screen().contents()
    }

    /// Waits until the screen is as it should be.
    fn wait(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        for _ in 0..1500 {
            let text = self.text();
            if is(&text) {
                return text;
            }
            pause(20);
        }
        panic!(
            "waited 30 s for {what}, and this is the screen:\n{}",
            self.text()
        );
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    fn resize(&self, rows: u16, columns: u16) {
        let (down, across) = (NonZeroU16::new(rows), NonZeroU16::new(columns));
        let mut parser = self.shown.lock();
        parser.set_size(down.unwrap(), across.unwrap());
        tcsetwinsize(&self.terminal, size(rows, columns)).unwrap();
    }

    /// Waits for the program's end, and holds the terminal to be as it was. Its exit code, and what stands on
    /// the screen.
    fn end(mut self) -> (Option<i32>, String) {
        let mut status = None;
        for _ in 0..500 {
            status = self.child.try_wait().unwrap();
            if status.is_some() {
                break;
            }
            pause(20);
        }
        let Some(status) = status else {
            let text = self.text();
            self.child.kill().unwrap();
            panic!("it does not end; this is the screen:\n{text}");
        };
        // What was written last has to come through.
        pause(200);
        let after = tcgetattr(&self.side).unwrap();
        let modes = |it: &Termios| {
            (
                it.input_modes,
                it.output_modes,
                it.control_modes,
                it.local_modes,
            )
        };
        assert_eq!(
            modes(&after),
            modes(&self.before),
            "the terminal's settings"
        );
        let parser = self.shown.lock();
        let screen = parser.screen();
        assert!(!screen.alternate_screen(), "the screen from before is back");
        assert!(!screen.hide_cursor(), "the cursor is back");
        (status.code(), screen.contents())
    }
}

#[test]
fn a_terminal_of_80_by_24_shows_it_all_and_is_given_back() {
    let Some(_turn) = enter("a_terminal_of_80_by_24_shows_it_all_and_is_given_back") else {
        return;
    };
    let (mut lab, _pings) = lab("ta");
    let mut top = Session::top(&lab, &[]);
    let words = [
        "overview, every 0.",
        "packets/s:",
        "flows: 1 of",
        "RX BIT/S",
        "lan ",
        "wan ",
        "LOOP P99",
        "forward/known",
        "10.77.0.1 ",
        "10.77.0.2 ",
        "icmp",
        "REPLIED",
        "7 flows",
    ];
    let all = |text: &str| words.iter().all(|word| text.contains(word));
    let text = top.wait("everything", all);
    assert_eq!(text.lines().count(), 24, "{text}");
    {
        let parser = top.shown.lock();
        assert!(parser.screen().alternate_screen() && parser.screen().hide_cursor());
    }
    // 50 pings a second and their answers, by each port; a busy machine may do less.
    let rate = |text: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with("lan ")).unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap_or(0.0)
    };
    let pings = |text: &str| all(text) && (20.0..90.0).contains(&rate(text));
    top.wait("some 50 packets a second", pings);

    // More room shows more.
    top.resize(40, 120);
    let wide = |text: &str| text.contains("MISSED/S") && text.contains("PACKETS/S DROPPED");
    let text = top.wait("more columns", wide);
    assert_eq!(text.lines().count(), 40, "{text}");
    top.resize(24, 80);
    top.press("4");
    top.wait("the rules", |text| {
        text.contains("rules, every") && text.contains("ACTION")
    });
    top.press("h");
    top.wait("the help", |text| {
        text.contains("let the screen stand still")
    });
    top.press("h ");
    top.wait("the pause", |text| text.contains("PAUSED"));
    top.press(" +1");
    top.wait("another interval", |text| {
        text.contains("overview, every 0.5s\n")
    });

    // The appliance goes away, and comes back.
    assert!(lab.stop().unwrap().success());
    let gone = |text: &str| text.contains("trying again; what is shown is old");
    top.wait("the news", gone);
    lab.start().unwrap();
    top.wait("rates again", |text| !text.contains('!') && pings(text));
    top.press("q");
    let (code, left) = top.end();
    assert_eq!((code, left.trim()), (Some(0), ""));

    // ^C ends it as well; and colours only where they are wanted.
    let colours = |session: &Session| {
        let parser = session.shown.lock();
        let cell = |row, column| parser.screen().cell(row, column).map(|it| it.fgcolor());
        let cells = (0..24).flat_map(|row| (0..80).map(move |column| (row, column)));
        let coloured = cells.filter(|(row, column)| {
            cell(*row, *column).is_some_and(|colour| colour != vt100::Color::Default)
        });
        coloured.count()
    };
    for (environment, expected) in [(&[("NO_COLOR", "1")][..], false), (&[], true)] {
        let mut top = Session::top(&lab, environment);
        top.wait("everything", all);
        let broken = lab.policy().with_extension("broken");
        std::fs::write(&broken, "version: 2").unwrap();
        let reload = lab
            .shardwall(&["reload", &broken.to_string_lossy()])
            .unwrap();
        assert!(!reload.status.success());
        top.wait("the alert", |text| {
            text.contains("! the last reload failed")
        });
        assert_eq!(colours(&top) > 0, expected);
        top.press("\x03");
        let (code, left) = top.end();
        assert_eq!((code, left.trim()), (Some(0), ""));
    }

    // A signal does too.
    let top = Session::top(&lab, &[]);
    top.wait("everything", all);
    let pid = top.child.id().to_string();
    assert!(Command::new("kill").arg(pid).status().unwrap().success());
    assert_eq!(top.end().0, Some(0));

    // Nobody to ask: said before the terminal is touched.
    assert!(lab.stop().unwrap().success());
    let (code, left) = Session::top(&lab, &[]).end();
    assert_eq!(code, Some(1));
    assert!(left.contains("shardwall is not running"), "{left}");
}

#[test]
fn a_panic_gives_the_terminal_back() {
    let this = std::env::current_exe().unwrap();
    let this = this.to_string_lossy();
    let words = [
        &this,
        "panics_on_a_screen",
        "--exact",
        "--ignored",
        "--nocapture",
    ];
    let (code, left) = Session::start(&words, &[("RUST_BACKTRACE", "0")]).end();
    assert_eq!(code, Some(101), "{left}");
    assert!(left.contains("on purpose"), "{left}");
}

#[test]
#[ignore = "run by a_panic_gives_the_terminal_back, on a terminal of its own"]
fn panics_on_a_screen() {
    let screen = Screen::take().unwrap();
    // What a release build does not do: nothing but the panic's hook may give the terminal back.
    std::mem::forget(screen);
    panic!("on purpose");
}

#[test]
fn programs_get_an_object_an_interval() {
    let Some(_turn) = enter("programs_get_an_object_an_interval") else {
        return;
    };
    let (lab, _pings) = lab("tb");
    let out = lab
        .shardwall(&["--format", "json", "top", "--interval", "0.5", "-n", "5"])
        .unwrap();
    assert!(out.status.success());
    let text = String::from_utf8(out.stdout).unwrap();
    let objects = text.lines().map(serde_json::from_str::<Value>);
    let objects: Vec<_> = objects.map(Result::unwrap).collect();
    assert_eq!(objects.len(), 5);
    for object in &objects {
        let seconds = object["seconds"].as_f64().unwrap();
        assert!((0.45..2.0).contains(&seconds), "{object}");
        assert_eq!(object["ports"][0]["port"], "lan");
        assert!(object["ports"][0]["rx_packets_per_s"].as_f64() > Some(10.0));
        assert_eq!(object["rules"][0]["rule"], "forward/known");
        assert_eq!(object["workers"].as_array().unwrap().len(), 2);
    }
    // Two seconds are enough to count one flow twice.
    let census = &objects[4]["census"];
    assert_eq!(
        (&census["flows"], &census["accounting"]),
        (&1.into(), &true.into())
    );
    assert_eq!(census["states"][0]["proto"], "icmp");
    let talkers = census["talkers"].as_array().unwrap();
    assert_eq!(talkers.len(), 2);
    for talker in talkers {
        // 84 bytes a ping, there and back.
        let bits = talker["tx_bits_per_s"].as_f64().unwrap();
        assert!((20.0 * 672.0..80.0 * 672.0).contains(&bits), "{talker}");
        let packets = talker["packets_per_s"].as_f64().unwrap();
        assert!(
            (bits / 672.0 * 2.0 - packets).abs() < packets / 10.0,
            "{talker}"
        );
    }
    let whole = json(&lab, &["stats"]);
    assert!(whole["packets"]["received"].as_u64() > Some(0));

    // As text, for there is no terminal.
    let out = lab.shardwall(&["top", "-i", "0.2", "-n", "2"]).unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success() && !text.contains('\x1b'), "{text}");
    let heads = text.lines().filter(|line| line.starts_with("shardwall "));
    assert_eq!(heads.count(), 2, "{text}");
    for word in ["PORT", "LOOP P99", "forward/known", "10.77.0.1", "icmp"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    let socket = lab.socket();
    drop(_pings);
    stop(lab);
    let out = Command::new(BINARY)
        .args(["--socket", &socket.to_string_lossy(), "top", "-n", "1"])
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(1));
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("shardwall is not running"), "{said}");
}
