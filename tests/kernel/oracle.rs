//! The judge: a router of nothing but Linux, between two links that no stack answers on.
//!
//! Frames enter by the outer ends of two veth pairs; an nftables chain right behind nf_conntrack
//! reports state and direction of each, others the verdict, and ctnetlink the flow after it. The
//! part that needs packet and netlink sockets is `oracle.py`, fed over a pipe: about 0.2 ms a packet.

use crate::group::{Group, ROOM};
use crate::timing::JIFFY;
use crate::tuple::Tuple;
use crate::view::{FlowView, View};
use shardwall::cli::lab::{LabError, Namespace, run};
use shardwall::conntrack::types::TcpState;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// MAC address of the router's leg on each side.
pub(crate) const LEGS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
/// MAC address of everybody behind a leg.
pub(crate) const HOSTS: [[u8; 6]; 2] = [[2, 0, 0, 0, 1, 1], [2, 0, 0, 0, 1, 2]];

/// The names of the legs.
pub(crate) const NAMES: [&str; 2] = ["lan", "wan"];
/// How the names of the namespaces begin.
pub(crate) const KIND: &str = "kt";

const SCRIPT: &str = include_str!("oracle.py");

/// How many flows the kernel keeps: nobody but the system may change that.
const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
/// A table that is too big to be filled for a test.
const TOO_BIG: u32 = 1 << 19;

/// What the kernel made of a frame.
#[derive(Debug)]
pub(crate) struct Answer {
    /// When it was sent, in nanoseconds of the system's own clock.
    pub(crate) sent: u64,
    /// How many nanoseconds until the answer was complete.
    pub(crate) took: u64,
    /// The judgement.
    pub(crate) view: View,
}

impl Answer {
    /// How far the kernel's clock may be from the time of sending, in milliseconds.
    pub(crate) fn slack(&self) -> u64 {
        self.took / 1_000_000 + 1 + JIFFY
    }
}

/// The router, and who feeds it.
#[derive(Debug)]
pub(crate) struct Oracle {
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    router: Namespace,
    _ends: Namespace,
}

impl Oracle {
    /// Builds router number `at`, which plays `group`.
    pub(crate) fn new(at: usize, group: &Group) -> Result<Self, LabError> {
        let mut oracle = Self::with(at, &group.ruleset(), &group.sysctls())?;
        if group.full {
            oracle.fill();
        }
        Ok(oracle)
    }

    /// Builds router number `at`, with these rules and settings.
    pub(crate) fn with(at: usize, ruleset: &str, sysctls: &[String]) -> Result<Self, LabError> {
        let tag = format!("{KIND}{}-{at}", std::process::id());
        let router = Namespace::new(format!("{tag}-router"))?;
        let ends = Namespace::new(format!("{tag}-ends"))?;
        for side in 0..2 {
            wire(&router, &ends, side)?;
        }
        let inside =
            |words: &[&str]| run(&[&["ip", "netns", "exec", router.name()], words].concat());
        inside(&[
            "sysctl",
            "-qw",
            "net.ipv4.ip_forward=1",
            "net.ipv4.conf.all.rp_filter=0",
            "net.ipv6.conf.all.forwarding=1",
        ])?;
        inside(&["nft", ruleset])?;
        // Only now does the namespace track anything.
        let sysctls: Vec<&str> = sysctls.iter().map(String::as_str).collect();
        inside(&[&["sysctl", "-qw"], sysctls.as_slice()].concat())?;
        let words = ["netns", "exec", router.name(), "python3", "-c", SCRIPT];
        let mut process = Command::new("ip")
            .args(words)
            .args([ends.name(), &at.to_string()])
            .args(NAMES)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|source| LabError::Program {
                program: "ip".into(),
                source,
            })?;
        let requests = process.stdin.take().expect("is piped");
        let mut answers = BufReader::new(process.stdout.take().expect("is piped"));
        let mut line = String::new();
        answers.read_line(&mut line).expect("is a pipe");
        assert_eq!(line.trim(), "ready", "the oracle did not start");
        Ok(Self {
            process,
            requests,
            answers,
            router,
            _ends: ends,
        })
    }

    /// Runs nft in the router; what it said.
    pub(crate) fn nft(&self, words: &[&str]) -> Result<String, LabError> {
        let inside = ["ip", "netns", "exec", self.router.name(), "nft"];
        let output = run(&[&inside, words].concat())?;
        Ok(String::from_utf8(output.stdout).expect("text"))
    }

    /// Forgets every flow.
    pub(crate) fn flush(&mut self) {
        self.request(4, 0, &[], &[]);
        assert_eq!(self.line(), "flushed");
    }

    /// Whether the table of the group `full` can be filled here.
    pub(crate) fn can_fill() -> bool {
        max().is_some_and(|max| (ROOM + 1..TOO_BIG).contains(&max))
    }

    /// Leaves room for [`ROOM`] flows.
    fn fill(&mut self) {
        let count = max().expect("a number") - ROOM;
        self.request(3, 0, &count.to_ne_bytes(), &[]);
        assert_eq!(self.line(), count.to_string(), "flows that were added");
    }

    /// Sends `frame` from `side` and says what became of `flow`, which it belongs to.
    pub(crate) fn ask(&mut self, side: usize, frame: &[u8], flow: Option<Tuple>) -> Answer {
        let (family, name) = flow.map_or((0, Vec::new()), |flow| flow.request());
        self.request(side as u16, family.into(), frame, &name);
        let line = self.line();
        parse(&line).unwrap_or_else(|| panic!("the oracle said {line:?}"))
    }

    /// Every flow in its table.
    pub(crate) fn table(&mut self) -> Vec<Tuple> {
        self.request(2, 0, &[], &[]);
        let count: usize = self.line().parse().expect("a number");
        let names = (0..count).map(|_| {
            let line = self.line();
            parse_tuple(&line).unwrap_or_else(|| panic!("the oracle said {line:?}"))
        });
        names.collect()
    }

    fn request(&mut self, what: u16, family: u16, frame: &[u8], name: &[u8]) {
        let mut request = Vec::new();
        for word in [what, family, frame.len() as u16, name.len() as u16] {
            request.extend(word.to_ne_bytes());
        }
        request.extend(frame);
        request.extend(name);
        self.requests.write_all(&request).expect("the oracle lives");
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the oracle lives");
        line.trim_end().to_owned()
    }
}

fn max() -> Option<u32> {
    fs::read_to_string(MAX).ok()?.trim().parse().ok()
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A leg of the router: a veth pair, and a way to everybody behind it.
fn wire(router: &Namespace, ends: &Namespace, side: usize) -> Result<(), LabError> {
    let (leg, n) = (NAMES[side], side + 1);
    let (r, e) = (router.name(), ends.name());
    let mac = |bytes: [u8; 6]| bytes.map(|byte| format!("{byte:02x}")).join(":");
    let (here, there) = (mac(LEGS[side]), mac(HOSTS[side]));
    let (net, other) = (n * 8, n + 2);
    // Offloads off: every frame gets to the router as it was sent. No addresses at the outer ends,
    // and no neighbours to look for: nothing but the scenario's packets goes by.
    let script = format!(
        "set -e
        ip -n {r} link add {leg} address {here} mtu 2000 type veth peer name {leg} mtu 2000 netns {e}
        for ns in {r} {e}; do
            ip netns exec $ns ethtool -K {leg} tx off rx off tso off gso off gro off >/dev/null
        done
        ip netns exec {e} sysctl -qw net.ipv6.conf.{leg}.disable_ipv6=1
        ip -n {e} link set {leg} arp off up
        ip netns exec {r} sysctl -qw net.ipv6.conf.{leg}.accept_dad=0 net.ipv4.conf.{leg}.rp_filter=0
        ip -n {r} link set {leg} up
        ip -n {r} addr add 192.0.2.{}/30 dev {leg}
        ip -n {r} addr add fd0f:{n}::1/64 dev {leg} nodad
        ip -n {r} neigh add 192.0.2.{} lladdr {there} nud permanent dev {leg}
        ip -n {r} neigh add fd0f:{n}::2 lladdr {there} nud permanent dev {leg}
        ip -n {r} neigh add fe80::1 lladdr {there} nud permanent dev {leg}
        ip -n {r} route add 10.{n}.0.0/16 via 192.0.2.{} dev {leg}
        ip -n {r} route add 10.{other}.0.0/16 via 192.0.2.{} dev {leg}
        ip -n {r} route add fd0{n}::/16 via fd0f:{n}::2 dev {leg}",
        net + 1,
        net + 2,
        net + 2,
        net + 2,
    );
    run(&["sh", "-c", &script]).map(drop)
}

/// Reads `sent took state dir verdict -` or `sent took state dir verdict status timeout tcp`.
fn parse(line: &str) -> Option<Answer> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [sent, took, state, dir, verdict, flow @ ..] = words.as_slice() else {
        return None;
    };
    let flow = match flow {
        ["-"] => None,
        [status, timeout, tcp] => {
            let status: u32 = status.parse().ok()?;
            Some(FlowView {
                tcp: *TcpState::ALL.get(tcp.parse::<usize>().ok()?)?,
                timeout: timeout.parse().ok()?,
                seen_reply: status & 2 != 0,
                assured: status & 4 != 0,
                expected: status & 1 != 0,
            })
        }
        _ => return None,
    };
    Some(Answer {
        sent: sent.parse().ok()?,
        took: took.parse().ok()?,
        view: View {
            verdict: (*verdict).into(),
            state: (*state).into(),
            dir: (*dir).into(),
            flow,
        },
    })
}

/// Reads `protocol source destination from to`.
fn parse_tuple(line: &str) -> Option<Tuple> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [proto, src, dst, from, to] = words.as_slice() else {
        return None;
    };
    Some(Tuple {
        proto: proto.parse().ok()?,
        src: src.parse().ok()?,
        dst: dst.parse().ok()?,
        from: from.parse().ok()?,
        to: to.parse().ok()?,
    })
}
