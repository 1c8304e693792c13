//! What an appliance must survive: the real binary on taps between two namespaces, killed, stopped under
//! load, with a full disk, without a port, through steps of the clock, and asked by strangers. Needs root, or
//! is re-run inside user namespaces where the system allows that.
#![cfg(feature = "dpdk")]

mod common;

use common::{json, stop};
use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;
use shardwall::cli::lab::{
    Lab, OUTSIDE, Process, Signal, as_root_of_a_namespace, is_root, output, pause, run, start,
};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_shardwall");

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
    assert!(
        status.success(),
        "it failed inside `unshare -Urnm`: run it as root"
    );
    None
}

/// Time that has passed, for what has a bound.
#[allow(clippy::disallowed_methods)] // these tests are about real time
fn now() -> Instant {
    Instant::now()
}

const RULES: &str = "
chains:
  forward:
    policy: drop
    rules:
      - { name: known, ct: [established, related], action: accept }
      - { name: ping, proto: icmp, ct: new, action: accept }
      - { name: bulk, iif: lan, proto: udp, ct: new, action: accept }
      - { name: web, iif: lan, proto: tcp, ct: new, action: accept }
";

fn made(kind: &str, more: &str) -> Lab {
    let lab = Lab::new(kind, Path::new(BINARY)).unwrap();
    let head = lab.head(1, "off", more);
    lab.write_policy(&(head + RULES)).unwrap();
    lab
}

fn lab(kind: &str) -> Lab {
    let mut lab = made(kind, "");
    lab.start().unwrap();
    lab
}

fn pings(lab: &Lab) -> bool {
    let words = ["ping", "-c", "1", "-W", "1", OUTSIDE.0];
    lab.lan.output(&words).unwrap().status.success()
}

fn log(lab: &Lab) -> String {
    fs::read_to_string(lab.log()).unwrap()
}

/// Waits until something is so.
fn until(what: &str, so: impl Fn() -> bool) {
    for _ in 0..500 {
        if so() {
            return;
        }
        pause(20);
    }
    panic!("never: {what}");
}

/// Names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// Hugepages of 2 MB that nobody has.
fn free_pages() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap();
    let number = info
        .lines()
        .find_map(|line| line.strip_prefix("HugePages_Free:"));
    number.map_or(0, |number| number.trim().parse().unwrap())
}

/// Hugepages for a test: as many as there were before are left when it goes.
struct Pages(Option<u64>);

impl Pages {
    const FILE: &str = "/proc/sys/vm/nr_hugepages";
    /// 512 MB: more than two taps take.
    const WANTED: u64 = 256;

    /// `None` where the box has none to give.
    fn borrow() -> Option<Self> {
        let missing = Self::WANTED.saturating_sub(free_pages());
        if missing == 0 {
            return Some(Self(None));
        }
        let text = fs::read_to_string(Self::FILE).ok()?;
        let before: u64 = text.trim().parse().ok()?;
        let pages = Self(Some(before));
        fs::write(Self::FILE, (before + missing).to_string()).ok()?;
        (free_pages() >= Self::WANTED).then_some(pages)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if let Some(before) = self.0 {
            let _ = fs::write(Self::FILE, before.to_string());
        }
    }
}

/// Three times; the best counts, since the machine is shared with the other tests.
#[test]
#[allow(clippy::print_stdout)] // the measured times
fn killed_it_forwards_again_within_a_second_of_its_start() {
    let Some(_turn) = enter("killed_it_forwards_again_within_a_second_of_its_start") else {
        return;
    };
    let pages = Pages::borrow();
    let kind = match pages {
        Some(_) => "required",
        None => "off",
    };
    println!("hugepages: {kind}");
    let free = free_pages();
    let mut lab = made("sa", &format!(", hugepages: {kind}"));
    lab.start().unwrap();
    assert!(pings(&lab));
    assert_eq!(free_pages() < free, pages.is_some());
    let files = names(&lab.dir);
    let mut times = Vec::new();
    for _ in 0..3 {
        lab.appliance().unwrap().signal(Signal::KILL);
        lab.appliance().unwrap().wait(5).unwrap();
        assert!(lab.socket().exists(), "kill -9 leaves the socket");
        until("it leaves no hugepage", || free_pages() == free);
        let begin = now();
        lab.start().unwrap();
        while !pings(&lab) {
            assert!(begin.elapsed() < Duration::from_secs(10), "{}", log(&lab));
        }
        times.push(begin.elapsed());
    }
    println!("forwarding again after {times:?}");
    assert!(
        times.iter().min() < Some(&Duration::from_secs(1)),
        "{times:?}"
    );
    assert_eq!(names(&lab.dir), files, "something is left behind");
    let cleaned = "removing the control socket of a run that ended without cleaning up";
    assert_eq!(log(&lab).matches(cleaned).count(), 3, "{}", log(&lab));
    stop(lab);
    assert_eq!(free_pages(), free);
}

#[test]
fn a_second_instance_is_told_who_the_first_is() {
    let Some(_turn) = enter("a_second_instance_is_told_who_the_first_is") else {
        return;
    };
    let mut lab = lab("sb");
    let policy = lab.policy().display().to_string();
    let second = output(&["timeout", "20", BINARY, "run", "-c", &policy]).unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1), "{said}");
    // setpriv(1) becomes what it starts.
    let pid = lab.appliance().unwrap().id();
    assert!(said.contains(&format!("running (process {pid})")), "{said}");
    assert!(said.contains(&lab.socket().display().to_string()), "{said}");
    assert!(pings(&lab), "the first one is unharmed");
    stop(lab);
}

/// A tiny file system; gone with its value.
struct Tiny(PathBuf);

impl Tiny {
    fn new(path: PathBuf) -> Self {
        fs::create_dir_all(&path).unwrap();
        let at = path.display().to_string();
        run(&["mount", "-t", "tmpfs", "-o", "size=16k", "tiny", &at]).unwrap();
        Self(path)
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = run(&["umount", "-l", &self.0.display().to_string()]);
    }
}

#[test]
fn a_full_disk_is_told_once_and_stops_nothing() {
    let Some(_turn) = enter("a_full_disk_is_told_once_and_stops_nothing") else {
        return;
    };
    let mut lab = Lab::new("sc", Path::new(BINARY)).unwrap();
    let tiny = Tiny::new(lab.dir.join("tiny"));
    let file = tiny.0.join("log");
    let more = format!(", log: {}", file.display());
    let rules = RULES.replace("name: bulk,", "name: bulk, log: { limit: 1000/second },");
    let rules = rules.replace("proto: udp, ct: new", "proto: udp");
    // Before `known`, so that every datagram makes a line.
    let (head, tail) = rules.split_once("      - { name: known").unwrap();
    let bulk = tail.lines().find(|line| line.contains("bulk")).unwrap();
    let rules = format!(
        "{head}{bulk}\n      - {{ name: known{}",
        tail.replace(bulk, "")
    );
    lab.write_policy(&(lab.head(1, "off", &more) + &rules))
        .unwrap();
    lab.start().unwrap();
    let flood = format!(
        "import socket, time\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         for n in range(2000):\n s.sendto(b'x', ('{}', 9))\n time.sleep(0.001)\n",
        OUTSIDE.0
    );
    lab.lan.output(&["python3", "-c", &flood]).unwrap();
    let told = "cannot write the log";
    until("the full disk is told", || log(&lab).contains(told));
    assert!(pings(&lab));
    let stats = json(&lab, &["stats"]);
    assert!(
        stats["packets"]["forwarded"].as_u64() > Some(1000),
        "{stats}"
    );
    pause(500);
    let said = log(&lab);
    assert_eq!(said.matches(told).count(), 1, "{said}");
    assert!(said.contains("No space left on device"), "{said}");
    // What is there is whole lines.
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
    }
    // Room again: it goes on, and says what is missing.
    run(&["truncate", "-s", "0", &file.display().to_string()]).unwrap();
    lab.lan.output(&["python3", "-c", &flood]).unwrap();
    until("the log goes on", || log(&lab).contains("goes on"));
    lab.appliance().unwrap().signal(Signal::TERM);
    assert!(lab.appliance().unwrap().wait(20).unwrap().success());
}

/// The tap that the port of `side` is, by its policy.
fn interface(lab: &Lab, side: &str) -> String {
    let policy = fs::read_to_string(lab.policy()).unwrap();
    let (_, rest) = policy
        .split_once(&format!("{side}: {{ device: \"net_tap"))
        .unwrap();
    let (_, rest) = rest.split_once("iface=").unwrap();
    rest.split('"').next().unwrap().to_owned()
}

fn link(lab: &Lab, port: usize) -> String {
    json(lab, &["ports"])[port]["link"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Two bridges; a port of one goes, and the other forwards on.
#[test]
fn a_port_that_vanishes_is_told_and_the_others_forward() {
    let Some(_turn) = enter("a_port_that_vanishes_is_told_and_the_others_forward") else {
        return;
    };
    let mut lab = Lab::new("sd", Path::new(BINARY)).unwrap();
    let id = std::process::id();
    let (cable, far) = (format!("sv{id}a"), format!("sv{id}b"));
    run(&[
        "ip", "link", "add", &cable, "type", "veth", "peer", "name", &far,
    ])
    .unwrap();
    for interface in [&cable, &far] {
        run(&["ip", "link", "set", interface, "up"]).unwrap();
    }
    let tap = format!("sv{id}t");
    let head = lab.head(1, "off", "");
    let (ports, bridge) = head.split_once("bridge:").unwrap();
    let head = format!(
        "{ports}  cable: {{ device: \"net_af_packet0,iface={cable}\" }}\n  \
         spare: {{ device: \"net_tap2,iface={tap}\" }}\nbridge:\n  - [cable, spare]{bridge}"
    );
    lab.write_policy(&(head + RULES)).unwrap();
    lab.start().unwrap();
    assert!(pings(&lab));
    run(&["ip", "link", "set", &tap, "up"]).unwrap();
    until("both are up", || {
        [2, 3]
            .iter()
            .all(|port| link(&lab, *port).starts_with("up"))
    });
    for (port, interface) in [(2, &cable), (3, &tap)] {
        run(&["ip", "link", "del", interface]).unwrap();
        until("it is down", || link(&lab, port) == "down");
        until("it is told", || {
            log(&lab).lines().any(|line| {
                line.contains("its interface was removed") && line.contains(&**interface)
            })
        });
        assert!(pings(&lab), "the other bridge forwards");
    }
    // The taps that went to namespaces are there still, and one that is renamed there.
    let lan = interface(&lab, "lan");
    let name = lab.lan.name();
    let renamed = format!("{lan}x");
    run(&["ip", "-n", name, "link", "set", &lan, "name", &renamed]).unwrap();
    pause(2500);
    for port in [0, 1] {
        assert!(!link(&lab, port).starts_with("down"), "{port}");
    }
    assert_eq!(
        log(&lab).matches("its interface was removed").count(),
        2,
        "{}",
        log(&lab)
    );
    // And one of those: it is gone from where nobody sees it.
    run(&["ip", "-n", name, "link", "del", &renamed]).unwrap();
    until("the third is told", || {
        log(&lab).matches("its interface was removed").count() == 3
    });
    lab.appliance().unwrap().signal(Signal::TERM);
    assert!(lab.appliance().unwrap().wait(20).unwrap().success());
}

#[test]
#[allow(clippy::print_stdout)] // the measured time
fn told_to_stop_under_load_it_drains_and_ends_well() {
    let Some(_turn) = enter("told_to_stop_under_load_it_drains_and_ends_well") else {
        return;
    };
    let mut lab = lab("se");
    let flood = format!(
        "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         n = 0\nwhile True:\n n += 1\n s.sendto(b'x' * 1000, ('{}', 1 + n % 60000))\n",
        OUTSIDE.0
    );
    let quiet = lab.dir.join("flood.log");
    let _flood = lab
        .lan
        .spawn(&["python3", "-c", &flood], &lab.dir, &quiet)
        .unwrap();
    let forwarded = |lab: &Lab| json(lab, &["stats"])["packets"]["forwarded"].as_u64();
    until("there is load", || forwarded(&lab) > Some(5000));
    let begin = now();
    lab.appliance().unwrap().signal(Signal::TERM);
    let status = lab.appliance().unwrap().wait(10).expect("it ends");
    let took = begin.elapsed();
    println!("ended {took:?} after SIGTERM");
    assert!(status.success(), "{}", log(&lab));
    assert!(took < Duration::from_secs(3), "{took:?}");
    // Exactly: received = forwarded + dropped + punted + held.
    assert!(
        !log(&lab).contains("the balance does not close"),
        "{}",
        log(&lab)
    );
    assert!(log(&lab).contains("stopped"), "{}", log(&lab));
    assert!(!lab.socket().exists());
}

/// Between a program and the kernel's clocks: adds the seconds that a file says to the wall clock, and to the
/// monotonic one.
const CLOCKS: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static void steps(long step[2]) {
    char text[64] = "", *rest = text;
    const char *path = getenv("CLOCK_STEPS");
    int file = path ? open(path, O_RDONLY) : -1;
    step[0] = step[1] = 0;
    if (file < 0) return;
    if (read(file, text, sizeof text - 1) > 0) {
        step[0] = strtol(rest, &rest, 10);
        step[1] = strtol(rest, &rest, 10);
    }
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    long step[2];
    if (syscall(SYS_clock_gettime, clock, now)) return -1;
    steps(step);
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) now->tv_sec += step[0];
    if (clock == CLOCK_MONOTONIC) now->tv_sec += step[1];
    return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &precise)) return -1;
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (now) *now = precise.tv_sec;
    return precise.tv_sec;
}
"#;

/// Steps of the wall clock, as this appliance alone sees it: the machine's is everybody's.
#[test]
fn steps_of_the_clock_expire_no_flow() {
    let Some(_turn) = enter("steps_of_the_clock_expire_no_flow") else {
        return;
    };
    let lab = made("sf", "");
    let text = fs::read_to_string(lab.policy()).unwrap();
    lab.write_policy(&(text + "conntrack: { timestamps: true }\n"))
        .unwrap();
    let path = |name: &str| lab.dir.join(name).display().to_string();
    fs::write(path("clocks.c"), CLOCKS).unwrap();
    let (source, library) = (path("clocks.c"), path("clocks.so"));
    run(&["cc", "-shared", "-fPIC", "-O1", "-o", &library, &source]).unwrap();
    // Renamed into place, so that nobody reads half a number.
    let set = |wall: i64, monotonic: i64| {
        fs::write(path("next"), format!("{wall} {monotonic}")).unwrap();
        fs::rename(path("next"), path("steps")).unwrap();
    };
    set(0, 0);
    let preload = format!("LD_PRELOAD={library}");
    let steps = format!("CLOCK_STEPS={}", path("steps"));
    let policy = lab.policy().display().to_string();
    let words = ["env", &preload, &steps, BINARY, "run", "-c", &policy];
    let mut appliance = start(&words, &lab.dir, &lab.log()).unwrap();
    until("it answers", || {
        lab.shardwall(&["stats"])
            .is_ok_and(|out| out.status.success())
    });
    // Packets by the kernel's ends, wherever these are: from one tap to the other.
    let (lan, wan) = (interface(&lab, "lan"), interface(&lab, "wan"));
    for (interface, namespace, address) in [
        (&lan, &lab.lan, "10.77.0.1/24"),
        (&wan, &lab.wan, "10.77.0.2/24"),
    ] {
        let name = namespace.name();
        run(&["ip", "link", "set", interface, "netns", name]).unwrap();
        run(&["ip", "-n", name, "link", "set", interface, "up"]).unwrap();
        run(&["ip", "-n", name, "addr", "add", address, "dev", interface]).unwrap();
    }
    let send = format!(
        "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         s.bind(('', 4000))\ns.sendto(b'x', ('{}', 4001))\n",
        OUTSIDE.0
    );
    assert!(pings(&lab));
    lab.lan.output(&["python3", "-c", &send]).unwrap();
    let flow = || {
        let flows = json(&lab, &["conntrack", "-L", "-p", "udp"]);
        let flows = flows.as_array().unwrap().clone();
        assert_eq!(flows.len(), 1, "the flow is gone: {flows:?}");
        flows[0].clone()
    };
    let began = |flow: &Value| flow["start_ms"].as_i64().unwrap();
    let left = |flow: &Value| flow["timeout"].as_i64().unwrap();
    let first = flow();
    let begin = now();
    const DAY: i64 = 86_400;
    for days in [30, -30, 3650, 0] {
        set(days * DAY, 0);
        // As soon as the step has come: dates follow it, so it did.
        until("the step is there", || {
            (began(&flow()) - began(&first) - days * DAY * 1000).abs() < DAY * 500
        });
        let now = flow();
        let gone = begin.elapsed().as_secs() as i64;
        let off = left(&first) - gone - left(&now);
        assert!((-2..=2).contains(&off), "{days}: {now} after {gone} s");
        assert!(pings(&lab), "{days} days");
    }
    let rest = left(&flow());
    assert!(rest > 3, "the test took too long to say anything");
    // That this would be seen: the clock that expiry does go by, a little ahead.
    set(0, rest + 1);
    until("the flow has ended", || {
        json(&lab, &["conntrack", "-L", "-p", "udp"]).as_array() == Some(&Vec::new())
    });
    assert!(pings(&lab), "it forwards all the same");
    appliance.signal(Signal::TERM);
    assert!(appliance.wait(20).unwrap().success());
}

/// Sends bytes, and reads what comes until the end, or for some seconds.
fn ask(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    // It may hang up before it has read all.
    let _ = stream.write_all(bytes);
    let mut answer = [0; 4096];
    let len = stream.read(&mut answer).unwrap_or(0);
    String::from_utf8_lossy(&answer[..len]).into_owned()
}

#[test]
fn strangers_and_endless_requests_are_refused() {
    let Some(_turn) = enter("strangers_and_endless_requests_are_refused") else {
        return;
    };
    let lab = lab("sg");
    let endless = vec![b'x'; 4 << 20];
    let answer = ask(&lab.socket(), &endless);
    assert!(answer.contains("longer than 65536 bytes"), "{answer}");
    let answer = ask(&lab.socket(), b"{\"cmd\":\"ping\",\"and\":1}\n");
    assert!(answer.contains("not a request"), "{answer}");
    // As many clients that say nothing as there is room for: the next is told, and they go in time.
    let idle: Vec<_> = (0..32)
        .map(|_| UnixStream::connect(lab.socket()).unwrap())
        .collect();
    until("there is no room", || {
        ask(&lab.socket(), b"{\"cmd\":\"ping\"}\n").contains("too many connections")
    });
    drop(idle);
    until("there is room again", || {
        ask(&lab.socket(), b"{\"cmd\":\"ping\"}\n").contains("done")
    });
    let id_map = fs::read_to_string("/proc/self/uid_map").unwrap();
    if id_map.split_whitespace().nth(2) != Some("1") {
        use std::os::unix::fs::PermissionsExt;
        let socket = lab.socket().display().to_string();
        // Somewhere that everybody may execute.
        let copy = lab.dir.join("shardwall");
        fs::copy(BINARY, &copy).unwrap();
        let copy = copy.display().to_string();
        let nobody = [
            "setpriv",
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
        ];
        let stranger = || {
            let words = [&nobody[..], &["--", &copy, "--socket", &socket, "stats"]].concat();
            let out = output(&words).unwrap();
            assert!(!out.status.success());
            String::from_utf8_lossy(&out.stderr).to_lowercase()
        };
        let said = stranger();
        assert!(
            said.contains("permission") || said.contains("may not"),
            "{said}"
        );
        // Permissions that somebody loosened change nothing.
        fs::set_permissions(lab.socket(), fs::Permissions::from_mode(0o666)).unwrap();
        let said = stranger();
        assert!(
            said.contains("root and the user that the appliance runs as"),
            "{said}"
        );
        assert!(log(&lab).contains("another user's request is refused"));
    }
    assert!(pings(&lab));
    stop(lab);
}

/// Stops one thread of a process, and lets it go on when its standard input ends.
const STALL: &str = "
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17
tid = int(sys.argv[1])
def ptrace(what):
    if libc.ptrace(ctypes.c_long(what), ctypes.c_long(tid), None, None) < 0:
        sys.exit('ptrace: %d' % ctypes.get_errno())
ptrace(SEIZE)
ptrace(INTERRUPT)
libc.waitpid(tid, None, 0x40000000)
print('stalled', flush=True)
import time
time.sleep(float(sys.argv[2]))
ptrace(DETACH)
";

/// The service manager's side of the protocol.
struct Manager(UnixDatagram);

impl Manager {
    /// Whether this is said within so many seconds.
    fn hears(&self, what: &str, secs: u64) -> bool {
        let begin = now();
        let mut datagram = [0; 4096];
        while begin.elapsed() < Duration::from_secs(secs) {
            self.0
                .set_read_timeout(Some(Duration::from_millis(200)))
                .unwrap();
            let Ok(len) = self.0.recv(&mut datagram) else {
                continue;
            };
            if String::from_utf8_lossy(&datagram[..len])
                .lines()
                .any(|line| line.starts_with(what))
            {
                return true;
            }
        }
        false
    }

    /// Throws away what was said so far.
    fn forget(&self) {
        self.0.set_nonblocking(true).unwrap();
        while self.0.recv(&mut [0; 4096]).is_ok() {}
        self.0.set_nonblocking(false).unwrap();
    }
}

#[test]
fn the_watchdog_is_fed_while_every_worker_comes_round_and_no_longer() {
    let Some(_turn) = enter("the_watchdog_is_fed_while_every_worker_comes_round_and_no_longer")
    else {
        return;
    };
    let lab = made("sh", "");
    let path = lab.dir.join("notify");
    let manager = Manager(UnixDatagram::bind(&path).unwrap());
    let (socket, policy) = (
        format!("NOTIFY_SOCKET={}", path.display()),
        lab.policy().display().to_string(),
    );
    let words = [
        "env",
        &socket,
        "WATCHDOG_USEC=3000000",
        BINARY,
        "run",
        "-c",
        &policy,
    ];
    let mut appliance: Process = start(&words, &lab.dir, &lab.log()).unwrap();
    assert!(manager.hears("READY=1", 20), "{}", log(&lab));
    assert!(manager.hears("WATCHDOG=1", 5));
    let tasks = format!("/proc/{}/task", appliance.id());
    // A thread gives itself its name, when it first runs.
    let worker = || {
        names(Path::new(&tasks)).into_iter().find(|tid| {
            let name = fs::read_to_string(format!("{tasks}/{tid}/comm"));
            name.is_ok_and(|name| name.trim() == "worker-0")
        })
    };
    until("a worker's thread is there", || worker().is_some());
    let worker = worker().unwrap();
    let out = lab.dir.join("stall.log");
    let words = ["python3", "-c", STALL, &worker, "12"];
    let mut stall = start(&words, &lab.dir, &out).unwrap();
    until("the worker stands still", || {
        fs::read_to_string(&out).is_ok_and(|text| text.contains("stalled"))
    });
    // Five looks, a second apart, until it counts as stuck.
    pause(7000);
    manager.forget();
    assert!(
        !manager.hears("WATCHDOG=1", 3),
        "it is fed though a worker is stuck"
    );
    // The control thread is well: it was the worker that mattered.
    assert!(lab.shardwall(&["stats"]).unwrap().status.success());
    assert!(
        stall.wait(20).unwrap().success(),
        "{}",
        fs::read_to_string(&out).unwrap()
    );
    assert!(manager.hears("WATCHDOG=1", 5), "the worker goes on");
    appliance.signal(Signal::HUP);
    assert!(manager.hears("RELOADING=1", 5));
    assert!(manager.hears("READY=1", 5));
    appliance.signal(Signal::TERM);
    assert!(manager.hears("STOPPING=1", 5));
    assert!(appliance.wait(20).unwrap().success());
}
