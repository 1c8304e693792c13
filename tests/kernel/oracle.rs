//! The judge: a router of nothing but Linux, between two links that no stack answers on.
//!
//! Frames enter by the outer ends of two veth pairs; an nftables chain right behind nf_conntrack
//! reports state and direction of each, and ctnetlink the flow after it. The part that needs
//! packet and netlink sockets is `oracle.py`, fed over a pipe: about 0.2 ms a packet.

use crate::settings::Settings;
use crate::view::{FlowView, View};
use shardwall::base::time::Now;
use shardwall::cli::lab::{LabError, Namespace, run};
use shardwall::conntrack::types::{CtState, Dir, TcpState};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// MAC address of the router's leg on each side.
pub(crate) const LEGS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
/// MAC address of everybody behind a leg.
pub(crate) const HOSTS: [[u8; 6]; 2] = [[2, 0, 0, 0, 1, 1], [2, 0, 0, 0, 1, 2]];

const NAMES: [&str; 2] = ["lan", "wan"];
/// How the names of the namespaces begin.
pub(crate) const KIND: &str = "kt";

const SCRIPT: &str = include_str!("oracle.py");

/// One report per packet, from behind the tracker.
const RULES: &str = r#"
table inet oracle {
    chain look {
        type filter hook prerouting priority -150;
        ct state untracked log group 5 prefix "untracked -" accept
        ct state invalid log group 5 prefix "invalid -" accept
        ct state new ct direction original log group 5 prefix "new original" accept
        ct state new ct direction reply log group 5 prefix "new reply" accept
        ct state established ct direction original log group 5 prefix "established original" accept
        ct state established ct direction reply log group 5 prefix "established reply" accept
        ct state related ct direction original log group 5 prefix "related original" accept
        ct state related ct direction reply log group 5 prefix "related reply" accept
    }
}
"#;

/// What the kernel made of a frame.
#[derive(Debug)]
pub(crate) struct Answer {
    /// When it was sent.
    pub(crate) sent: Now,
    /// How long until the answer was complete.
    pub(crate) took: Duration,
    /// The judgement.
    pub(crate) view: View,
}

/// The router, and who feeds it.
#[derive(Debug)]
pub(crate) struct Oracle {
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    _router: Namespace,
    _ends: Namespace,
}

impl Oracle {
    /// Builds router number `at`.
    pub(crate) fn new(at: usize, settings: &Settings) -> Result<Self, LabError> {
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
        inside(&["nft", RULES])?;
        // Only now does the namespace track anything.
        let sysctls = settings.sysctls();
        let sysctls: Vec<&str> = sysctls.iter().map(String::as_str).collect();
        inside(&[&["sysctl", "-qw"], sysctls.as_slice()].concat())?;
        let words = ["netns", "exec", router.name(), "python3", "-c", SCRIPT];
        let mut process = Command::new("ip")
            .args(words)
            .arg(ends.name())
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
            _router: router,
            _ends: ends,
        })
    }

    /// Sends `frame` from `side` and says what became of the flow of conversation `label`.
    pub(crate) fn ask(&mut self, label: u32, side: usize, frame: &[u8]) -> Answer {
        let mut request = label.to_ne_bytes().to_vec();
        request.extend((side as u16).to_ne_bytes());
        request.extend((frame.len() as u16).to_ne_bytes());
        request.extend(frame);
        self.requests.write_all(&request).expect("the oracle lives");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the oracle lives");
        parse(&line).unwrap_or_else(|| panic!("the oracle said {line:?}"))
    }
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
    let net = n * 8;
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
        ip -n {r} route add 10.{n}.0.0/16 via 192.0.2.{} dev {leg}
        ip -n {r} route add fd0{n}::/16 via fd0f:{n}::2 dev {leg}",
        net + 1,
        net + 2,
        net + 2,
    );
    run(&["sh", "-c", &script]).map(drop)
}

/// Reads `sent took state dir -` or `sent took state dir status timeout tcp`.
fn parse(line: &str) -> Option<Answer> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [sent, took, state, dir, flow @ ..] = words.as_slice() else {
        return None;
    };
    let flow = match flow {
        ["-"] => None,
        [status, timeout, tcp] => {
            let status: u32 = status.parse().ok()?;
            Some(FlowView {
                tcp: TcpState::ALL[tcp.parse::<usize>().ok()?],
                timeout: timeout.parse().ok()?,
                seen_reply: status & 2 != 0,
                assured: status & 4 != 0,
            })
        }
        _ => return None,
    };
    let dirs = [Dir::Original, Dir::Reply];
    Some(Answer {
        sent: Now::from_nanos(sent.parse().ok()?),
        took: Duration::from_nanos(took.parse().ok()?),
        view: View {
            state: CtState::ALL
                .into_iter()
                .find(|known| known.name() == *state),
            dir: dirs.into_iter().find(|known| known.name() == *dir),
            flow,
        },
    })
}
