//! `shardwall demo`: a firewall at work, in two minutes, on any Linux box.
//!
//! Two namespaces with the appliance between them on virtual devices, real programs as clients
//! and servers, and after each step what the appliance says about it. Every expectation is
//! checked: the demo fails when the firewall does not do what the text says.

use super::lab::{self, INSIDE, Lab, LabError, OUTSIDE, Process, free_port, pause};
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{ExitCode, Output};

/// What the demo could not do, or the firewall did not.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error("{0}")]
    Lab(#[from] LabError),
    #[error("expected {0}, but it did not happen")]
    Expected(&'static str),
    #[error("{0}")]
    Io(#[from] io::Error),
}

type Done = Result<(), DemoError>;

/// Bytes of the file that is downloaded while the policy is reloaded.
const FILE: usize = 30 << 20;

const RULES: &str = "\
chains:
  forward:
    policy: drop
    rules:
      - { name: known,    ct: [established, related], action: accept }
      - { name: broken,   ct: invalid, action: drop }
      - { name: ping,     iif: lan, proto: [icmp, icmpv6], ct: new, action: accept }
      - { name: web,      iif: lan, proto: tcp, dport: 80, ct: new, action: accept }
      - { name: time,     iif: lan, proto: udp, dport: 5353, ct: new, action: accept }
      - { name: old-web,  iif: lan, proto: tcp, dport: 8080, action: reject }
";

/// Runs the demo; with `keep` it stays up afterwards, until ^C.
#[allow(clippy::print_stderr)] // the command's answer
pub(super) fn execute(keep: bool) -> ExitCode {
    let shown = std::env::current_exe()
        .map_err(DemoError::from)
        .and_then(|binary| {
            if !lab::is_root() {
                return beside_root(&binary, keep);
            }
            show(&binary, keep, &mut io::stdout().lock())
        });
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shardwall demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The demo for those who are not root: in namespaces of their own.
fn beside_root(binary: &Path, keep: bool) -> Done {
    let binary = binary.to_string_lossy();
    let words = [&*binary, "demo", "--keep"];
    let status = lab::as_root_of_a_namespace(if keep { &words } else { &words[..2] })?;
    if status.success() {
        Ok(())
    } else {
        Err(LabError::NotRoot.into())
    }
}

/// Hugepages for the length of the demo, if the box gives some.
#[derive(Debug)]
struct Pages {
    before: String,
}

impl Pages {
    const FILE: &str = "/proc/sys/vm/nr_hugepages";
    /// 512 MB in pages of 2 MB: more than the demo's buffers need.
    const WANTED: u32 = 256;

    /// Asks for pages where none are reserved; what cannot be had is done without.
    fn borrow() -> Option<Self> {
        let before = fs::read_to_string(Self::FILE).ok()?.trim().to_owned();
        if before != "0" {
            return None;
        }
        fs::write(Self::FILE, Self::WANTED.to_string()).ok()?;
        Some(Self { before })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let _ = fs::write(Self::FILE, &self.before);
    }
}

/// The show, step by step.
struct Demo<'a> {
    lab: Lab,
    out: &'a mut dyn Write,
}

fn show(binary: &Path, keep: bool, out: &mut dyn Write) -> Done {
    // Given back last, when the appliance has gone.
    let _pages = Pages::borrow();
    let lab = Lab::new("demo", binary)?;
    let mut demo = Demo { lab, out };
    let metrics = format!("127.0.0.1:{}", free_port());
    let policy = demo.lab.head(1, &metrics, "") + RULES;
    demo.title("A transparent firewall between two networks")?;
    demo.say(&format!(
        "Two network namespaces share {}/24 and fd77::/64: `lan` ({}) inside, `wan` ({})\n\
         outside. Between them runs shardwall on two DPDK ports. Its policy:\n",
        "10.77.0.0", INSIDE.0, OUTSIDE.0
    ))?;
    demo.quote(&policy)?;
    demo.lab.write_policy(&policy)?;
    demo.lab.start()?;
    let log = fs::read_to_string(demo.lab.log())?;
    let memory = if log.contains("memory=\"hugepages\"") {
        "hugepages"
    } else {
        "ordinary pages"
    };
    demo.say(&format!(
        "\nIt runs, on {memory}. Metrics: http://{metrics}/metrics\n"
    ))?;

    let _servers = demo.servers()?;
    demo.inside_out()?;
    demo.table()?;
    demo.refused()?;
    demo.outside_in()?;
    demo.reload(&policy)?;
    demo.numbers()?;
    if keep {
        demo.stay(&metrics)?;
    }
    demo.end()
}

impl Demo<'_> {
    fn title(&mut self, text: &str) -> Done {
        Ok(writeln!(self.out, "\n== {text}\n")?)
    }

    fn say(&mut self, text: &str) -> Done {
        Ok(writeln!(self.out, "{text}")?)
    }

    fn quote(&mut self, text: &str) -> Done {
        for line in text.lines() {
            writeln!(self.out, "    {line}")?;
        }
        Ok(())
    }

    /// Shows a shardwall command and what it prints.
    fn shardwall(&mut self, words: &[&str]) -> Result<String, DemoError> {
        writeln!(self.out, "$ shardwall {}", words.join(" "))?;
        let output = self.lab.shardwall(words)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        self.quote(&text)?;
        if !output.status.success() {
            self.quote(&String::from_utf8_lossy(&output.stderr))?;
            return Err(DemoError::Expected("the command to work"));
        }
        Ok(text)
    }

    /// Shows a program run inside or outside, and what it prints.
    fn program(&mut self, inside: bool, words: &[&str]) -> Result<Output, DemoError> {
        let place = if inside { "lan" } else { "wan" };
        writeln!(self.out, "{place}$ {}", words.join(" "))?;
        let namespace = if inside { &self.lab.lan } else { &self.lab.wan };
        let output = namespace.output(words)?;
        let both = [output.stdout.as_slice(), &output.stderr].concat();
        self.quote(String::from_utf8_lossy(&both).trim_end())?;
        Ok(output)
    }

    fn expect(&self, so: bool, what: &'static str) -> Done {
        if so {
            Ok(())
        } else {
            Err(DemoError::Expected(what))
        }
    }

    /// Web servers on both sides, an echo service outside.
    fn servers(&mut self) -> Result<Vec<Process>, DemoError> {
        let files = self.lab.dir.join("www");
        fs::create_dir_all(&files)?;
        fs::write(files.join("index.html"), "hello from the other side\n")?;
        let noise: Vec<u8> = (0..FILE).map(|i| (i * 31 + (i >> 11)) as u8).collect();
        fs::write(files.join("file"), noise)?;
        let log = self.lab.dir.join("servers.log");
        let web = |port: &'static str| ["python3", "-m", "http.server", port, "--bind", "::"];
        let (lan, wan) = (&self.lab.lan, &self.lab.wan);
        let servers = vec![
            wan.spawn(&web("80"), &files, &log)?,
            wan.spawn(&web("8080"), &files, &log)?,
            lan.spawn(&web("80"), &files, &log)?,
            wan.spawn(
                &[
                    "socat",
                    "UDP4-RECVFROM:5353,fork",
                    "SYSTEM:read question; date",
                ],
                &files,
                &log,
            )?,
        ];
        for (namespace, port) in [(wan, 80), (wan, 8080), (lan, 80)] {
            self.lab.await_port(namespace, port)?;
        }
        Ok(servers)
    }

    fn inside_out(&mut self) -> Done {
        self.title("From inside: ping, the web, a UDP question, over IPv4 and IPv6")?;
        let ping = self.program(true, &["ping", "-c", "2", "-i", "0.2", OUTSIDE.0])?;
        self.expect(ping.status.success(), "an answer to ping")?;
        let url = format!("http://{}/", OUTSIDE.0);
        let web = self.program(true, &["curl", "-sS", "-m", "5", &url])?;
        self.expect(web.stdout.starts_with(b"hello"), "a web page")?;
        let url = format!("http://[{}]/", OUTSIDE.1);
        let web = self.program(true, &["curl", "-sS", "-m", "5", &url])?;
        self.expect(web.stdout.starts_with(b"hello"), "a web page over IPv6")?;
        let target = format!("UDP4:{}:5353", OUTSIDE.0);
        let question = format!("echo what time is it | socat -t 2 - {target}");
        let answer = self.program(true, &["bash", "-c", &question])?;
        self.expect(!answer.stdout.is_empty(), "an answer over UDP")
    }

    fn table(&mut self) -> Done {
        self.title("The flow table, as conntrack(8) prints it")?;
        let table = self.shardwall(&["conntrack", "-L"])?;
        for word in [
            "icmp",
            "tcp",
            "udp",
            "src=10.77.0.1",
            "src=fd77::1",
            "[ASSURED]",
        ] {
            self.expect(table.contains(word), "every flow in the table")?;
        }
        Ok(())
    }

    fn refused(&mut self) -> Done {
        self.title("What policy rejects is refused at once; what it drops gets no answer")?;
        let refused = format!("http://{}:8080/", OUTSIDE.0);
        let web = self.program(true, &["curl", "-sS", "-m", "5", &refused])?;
        self.expect(web.status.code() == Some(7), "a refused connection")?;
        let dropped = format!("http://{}:81/", OUTSIDE.0);
        let web = self.program(true, &["curl", "-sS", "-m", "1", &dropped])?;
        self.expect(web.status.code() == Some(28), "a connection that times out")
    }

    fn outside_in(&mut self) -> Done {
        self.title("From outside nobody gets in, although a server listens there")?;
        let url = format!("http://{}/", INSIDE.0);
        let web = self.program(false, &["curl", "-sS", "-m", "1", &url])?;
        self.expect(web.status.code() == Some(28), "a connection that times out")?;
        self.say("Why? The drops by reason, and the rules that decided:")?;
        let drops = self.shardwall(&["drops"])?;
        self.expect(
            drops.contains("policy") && drops.contains("rejected"),
            "counted drops",
        )?;
        self.shardwall(&["rules"]).map(drop)
    }

    fn reload(&mut self, policy: &str) -> Done {
        self.title("A policy reload while a download runs")?;
        let url = format!("http://{}/file", OUTSIDE.0);
        let copy = self.lab.dir.join("copy");
        let log = self.lab.dir.join("download.log");
        let to = copy.to_string_lossy().into_owned();
        let words = [
            "curl",
            "-sS",
            "-m",
            "60",
            "--limit-rate",
            "12M",
            "-o",
            &to,
            &url,
        ];
        writeln!(self.out, "lan$ {} &", words.join(" "))?;
        let mut download = self.lab.lan.spawn(&words, &self.lab.dir, &log)?;
        pause(700);
        self.say("Port 80 is no longer for new connections, port 8080 is:")?;
        let changed = policy
            .replace(
                "dport: 80, ct: new, action: accept",
                "dport: 80, action: reject",
            )
            .replace(
                "dport: 8080, action: reject",
                "dport: 8080, ct: new, action: accept",
            );
        self.lab.write_policy(&changed)?;
        self.expect(download.ended().is_none(), "a download that still runs")?;
        self.shardwall(&["reload"])?;
        let now_open = format!("http://{}:8080/", OUTSIDE.0);
        let web = self.program(true, &["curl", "-sS", "-m", "5", &now_open])?;
        self.expect(web.stdout.starts_with(b"hello"), "the new policy in force")?;
        let closed = format!("http://{}/", OUTSIDE.0);
        let web = self.program(true, &["curl", "-sS", "-m", "5", &closed])?;
        self.expect(web.status.code() == Some(7), "the new policy in force")?;
        self.expect(download.ended().is_none(), "a download that still runs")?;
        let done = download.wait(60).is_some_and(|status| status.success());
        self.expect(done, "a download that the reload did not break")?;
        let same = fs::read(&copy)? == fs::read(self.lab.dir.join("www/file"))?;
        self.expect(same, "every byte of the download")?;
        self.say(&format!(
            "The download went on: {FILE} bytes, every one as it was sent."
        ))?;
        self.say("\nA policy with a mistake is refused, and the running one stays:")?;
        self.lab
            .write_policy(&changed.replace("ct: invalid", "ct: invalit"))?;
        writeln!(self.out, "$ shardwall reload")?;
        let refused = self.lab.shardwall(&["reload"])?;
        self.quote(&String::from_utf8_lossy(&refused.stderr))?;
        self.expect(!refused.status.success(), "a refused policy")?;
        self.lab.write_policy(&changed).map_err(DemoError::from)
    }

    fn numbers(&mut self) -> Done {
        self.title("Counters")?;
        self.shardwall(&["stats"])?;
        self.shardwall(&["workers"]).map(drop)
    }

    /// Leaves everything up until ^C or SIGTERM.
    fn stay(&mut self, metrics: &str) -> Done {
        self.title("It stays up until ^C")?;
        let (lan, wan) = (self.lab.lan.name(), self.lab.wan.name());
        let socket = self.lab.socket();
        let text = format!(
            "    ip netns exec {lan} curl http://{}:8080/\n    \
             ip netns exec {wan} ping {}\n    \
             shardwall --socket {s} conntrack -L\n    \
             shardwall --socket {s} drops\n    \
             curl http://{metrics}/metrics",
            OUTSIDE.0,
            INSIDE.0,
            s = socket.display(),
        );
        self.say(&text)?;
        self.out.flush()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (mut interrupt, mut terminate) = (
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
            );
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            Ok::<_, io::Error>(())
        })?;
        Ok(())
    }

    fn end(&mut self) -> Done {
        let status = self.lab.stop();
        let log = fs::read_to_string(self.lab.log())?;
        let last = log
            .lines()
            .rfind(|line| line.contains("stopped"))
            .unwrap_or_default();
        self.say(&format!("\nThe appliance's last word: {last}"))?;
        self.expect(
            status.is_some_and(|status| status.success()),
            "a clean stop",
        )?;
        self.say("Received = forwarded + dropped. Everything is cleaned up.")
    }
}
