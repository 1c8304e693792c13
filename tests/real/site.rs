//! Where these tests happen: the appliance between two namespaces, and what runs in these.
//!
//! One at a time in this process, since two polling workers are enough for two cores. What a run
//! leaves behind that is killed, the next one removes.

use crate::common::{json, stop};
use parking_lot::{Mutex, MutexGuard};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use shardwall::cli::lab::{Lab, Namespace, Process, output, pause};
use shardwall::conntrack::record::{Detail, ExpectRecord, FlowRecord};
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

static TURN: Mutex<()> = Mutex::new(());

/// The appliance with two workers, under a policy that lets only control connections begin.
pub(crate) struct Site {
    pub(crate) lab: Lab,
    control: &'static str,
    _turn: MutexGuard<'static, ()>,
}

/// A flow that a helper expected, and the one that announced it.
#[derive(Debug)]
pub(crate) struct Related {
    pub(crate) flow: FlowRecord,
    pub(crate) master: FlowRecord,
}

/// What a program said, and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    /// Its exit code; `None` if a signal ended it.
    pub(crate) code: Option<i32>,
    /// Standard output and then standard error.
    pub(crate) text: String,
}

impl Site {
    /// Starts the appliance without helpers. `control` are the matches of the rule that lets control
    /// connections begin. `None` where the servers cannot run.
    pub(crate) fn new(kind: &str, control: &'static str) -> Option<Self> {
        let turn = TURN.lock();
        let other_user = ["setpriv", "--reuid", "65534", "--clear-groups", "true"];
        if !output(&other_user).is_ok_and(|out| out.status.success()) {
            // Past the test's captured output.
            let test = std::thread::current().name().unwrap_or(kind).to_owned();
            let word =
                format!("{test} is skipped: its servers change their user; run it as root\n");
            let _ = std::io::stderr().write_all(word.as_bytes());
            return None;
        }
        let lab = Lab::new(kind, Path::new(env!("CARGO_BIN_EXE_shardwall"))).unwrap();
        let mut site = Self {
            lab,
            control,
            _turn: turn,
        };
        site.write_policy(&[]);
        site.lab.start().unwrap();
        Some(site)
    }

    fn write_policy(&self, helpers: &[&str]) {
        let mut policy = self.lab.head(2, "127.0.0.1:0", "");
        for (n, line) in helpers.iter().enumerate() {
            policy += if n == 0 { "helpers:\n" } else { "" };
            policy += &format!("  - {line}\n");
        }
        policy += &format!(
            "chains:
  forward:
    policy: drop
    rules:
      - {{ name: known, ct: [established, related], action: accept }}
      - {{ name: control, iif: lan, {}, ct: new, action: accept }}
",
            self.control
        );
        self.lab.write_policy(&policy).unwrap();
    }

    /// Attaches helpers to flows from now on; those that there are end.
    pub(crate) fn attach(&self, helpers: &[&str]) {
        self.write_policy(helpers);
        self.command(&["reload"]);
        self.flush();
    }

    /// Ends all flows.
    pub(crate) fn flush(&self) {
        self.command(&["conntrack", "-F"]);
    }

    fn command(&self, words: &[&str]) -> String {
        let out = self.lab.shardwall(words).unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{said}");
        String::from_utf8(out.stdout).unwrap()
    }

    /// Starts a server in the outer namespace.
    pub(crate) fn serve(&self, words: &[&str]) -> Process {
        let log = self.lab.dir.join("server.log");
        self.lab.wan.spawn(words, &self.lab.dir, &log).unwrap()
    }

    /// Waits until the server listens on this UDP port.
    pub(crate) fn await_udp(&self, port: u16) {
        self.await_port("-Hlun", port);
    }

    /// Waits until the server listens on this TCP port, without connecting to it.
    pub(crate) fn await_tcp(&self, port: u16) {
        self.await_port("-Hltn", port);
    }

    fn await_port(&self, kind: &str, port: u16) {
        for _ in 0..250 {
            let port = format!("sport = :{port}");
            let listening = self.lab.wan.output(&["ss", kind, &port]).unwrap();
            if !listening.stdout.is_empty() {
                return;
            }
            pause(20);
        }
        panic!("nobody listens on port {port}: {}", self.server_log());
    }

    /// What the server wrote.
    pub(crate) fn server_log(&self) -> String {
        fs::read_to_string(self.lab.dir.join("server.log")).unwrap_or_default()
    }

    /// A path in the folder of this run.
    pub(crate) fn path(&self, name: &str) -> String {
        let path = self.lab.dir.join(name).display().to_string();
        path.trim_end_matches('/').to_owned()
    }

    /// Makes a folder that everybody may write to, and says where it is.
    pub(crate) fn open_folder(&self, name: &str) -> String {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        let chmod = output(&["chmod", "777", &path]).unwrap();
        assert!(chmod.status.success());
        path
    }

    /// The flows of both shards; those of TCP that are closed stay a while, in TIME_WAIT.
    pub(crate) fn flows(&self) -> Vec<FlowRecord> {
        serde_json::from_value(json(&self.lab, &["conntrack", "-L"])).unwrap()
    }

    /// The flows, told apart: control connections to `port`, with the helper and of their own
    /// accord, and what they announced, each with its control connection.
    pub(crate) fn families(&self, helper: &str, port: u16) -> (Vec<FlowRecord>, Vec<Related>) {
        let flows = self.flows();
        let (control, data): (Vec<_>, Vec<_>) =
            flows.into_iter().partition(|flow| ports(flow).1 == port);
        for flow in &control {
            assert_eq!(flow.helper.as_deref(), Some(helper), "{flow:?}");
            assert!(!flow.expected && flow.master.is_none(), "{flow:?}");
        }
        let related = data.into_iter().map(|flow| {
            assert!(flow.expected, "{flow:?}");
            let master = flow.master.unwrap_or_else(|| panic!("{flow:?}"));
            let mut masters = control
                .iter()
                .filter(|control| (control.proto, control.original) == (master.proto, master.ends));
            let master = masters
                .next()
                .unwrap_or_else(|| panic!("{flow:?}: {control:?}"));
            let master = master.clone();
            Related { flow, master }
        });
        let related: Vec<_> = related.collect();
        self.listing_agrees(helper, &control, &related);
        (control, related)
    }

    /// Holds the lines of `conntrack -L` to say the same.
    fn listing_agrees(&self, helper: &str, control: &[FlowRecord], related: &[Related]) {
        let listing = self.command(&["conntrack", "-L"]);
        let lines = |word: &str| listing.lines().filter(|line| line.contains(word)).count();
        let helped = lines(&format!(" helper={helper} "));
        assert_eq!(helped, control.len(), "{listing}");
        assert_eq!(lines(" [EXPECTED] "), related.len(), "{listing}");
    }

    /// What is expected and has not come.
    pub(crate) fn expectations(&self) -> Vec<ExpectRecord> {
        serde_json::from_value(json(&self.lab, &["expect", "-L"])).unwrap()
    }

    /// Ends the appliance, and holds it to its balance.
    pub(crate) fn close(self) {
        stop(self.lab);
    }
}

/// Source and destination port of a flow's original direction.
pub(crate) fn ports(flow: &FlowRecord) -> (u16, u16) {
    match flow.original.detail {
        Detail::Ports { sport, dport } => (sport, dport),
        _ => panic!("{flow:?}"),
    }
}

/// Runs a program in a namespace to its end.
pub(crate) fn ask(namespace: &Namespace, words: &[&str]) -> Said {
    let out = namespace.output(words).unwrap();
    let text = [out.stdout, out.stderr].concat();
    Said {
        code: out.status.code(),
        text: String::from_utf8_lossy(&text).into_owned(),
    }
}

/// Does something on a thread inside a namespace: its sockets stay there.
pub(crate) fn inside<T: Send>(namespace: &Namespace, work: impl FnOnce() -> T + Send) -> T {
    let file = File::open(Path::new("/run/netns").join(namespace.name())).unwrap();
    let enter = || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        work()
    };
    std::thread::scope(|scope| scope.spawn(enter).join().unwrap())
}

/// Bytes that no program mistakes for something, the same in every run.
pub(crate) fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(bytes).collect()
}
