//! The same frames through a network namespace with Linux's connection tracking and through the appliance
//! in memory, and then the same questions to Debian's conntrack(8) and to ours: what they print must be
//! the same bytes, and so must the exit codes.
//!
//! What cannot be the same is told apart before it is compared, and nothing else: numbers of flows
//! (`-o id`) and dates are each side's own; seconds may differ by [`SLACK`]; of a flow that was expected we
//! say so, and by whom, where the program says nothing (`docs/netfilter.md` lists it); the
//! kernel counts those that hold a flow (`use=`), we do not; and the order of a table is each side's own.
//! Options that the program reads in ways that nobody can want are in [`DIFFERENT`] and [`SAFER`].
//!
//! Needs root, or is re-run inside user namespaces where the system allows that; and the packages that
//! `deploy/setup.sh test` installs.

use super::frames::frames;
use super::questions::{ASKED, DELETED, SAFER};
use super::refusals::{DIFFERENT, REFUSED, TAKEN, code};
use super::{Bed, run};
use crate::cli::lab::{Namespace, as_root_of_a_namespace, is_root, run as sh};
use crate::policy::PortId;
use regex::Regex;
use std::process::ExitCode;

/// How many seconds a timeout or an age may differ by: one side got its packets, and was asked, later.
const SLACK: u64 = 4;

/// Sends frames, each as `SIDE:HEX`, one after the other from one processor.
const FEEDER: &str = "
import os, socket, sys, time
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
ends = []
for leg in ('lan', 'wan'):
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    end.bind((leg, 0))
    ends.append(end)
for word in sys.argv[1:]:
    side, frame = word.split(':')
    ends[int(side)].send(bytes.fromhex(frame))
    time.sleep(0.002)
time.sleep(0.1)
";

/// The kernel's rules. A chain that looks at states has the namespace track at all.
const RULESET: &str = "table inet golden {
    ct helper boot { type \"tftp\" protocol udp; }
    chain early {
        type filter hook prerouting priority raw;
        ip saddr 10.7.0.0/16 ct zone set 7
    }
    chain attach {
        type filter hook prerouting priority -150;
        udp dport 69 ct helper set \"boot\"
    }
    chain forward {
        type filter hook forward priority filter;
        ct state invalid drop
        udp dport 1111 ct mark set 5
        tcp dport 1112 ct mark set 0x15
        accept
    }
}";

/// The same for us.
const RULES: &str = "bridge:
  - { ports: [lan, wan], zone: vlan }
helpers:
  - { helper: tftp, proto: udp, dport: 69 }
chains:
  forward:
    policy: accept
    rules:
      - { name: broken, ct: invalid, action: drop }
      - { name: five, proto: udp, dport: 1111, mark: 5, action: accept }
      - { name: more, proto: tcp, dport: 1112, mark: 0x15, action: accept }
";

/// What would end within the test, on both sides.
const TIMEOUTS: &str = "  timeouts:
    tcp: { close: 100, last_ack: 100 }
    udp: { unreplied: 100 }
    udplite: { unreplied: 100 }
    icmp: 100
    icmpv6: 100
    gre: { unreplied: 100 }
    sctp: { closed: 100, cookie_wait: 100 }
";
const LONGER: &[&str] = &[
    "tcp_timeout_close",
    "tcp_timeout_last_ack",
    "udp_timeout",
    "icmp_timeout",
    "icmpv6_timeout",
    "gre_timeout",
    "sctp_timeout_closed",
    "sctp_timeout_cookie_wait",
];

/// A router of nothing but Linux, and where its frames come from.
struct Kernel {
    router: Namespace,
    ends: Namespace,
}

impl Kernel {
    fn new(accounting: bool) -> Self {
        let tag = format!("gold{}-{}", std::process::id(), u8::from(accounting));
        let kernel = Self {
            router: Namespace::new(format!("{tag}-router")).unwrap(),
            ends: Namespace::new(format!("{tag}-ends")).unwrap(),
        };
        let (r, e) = (kernel.router.name(), kernel.ends.name());
        let on = u8::from(accounting);
        let longer = |name| format!(" net.netfilter.nf_conntrack_{name}=100");
        let longer: String = LONGER.iter().map(longer).collect();
        let script = format!(
            "set -e
            in_r() {{ ip netns exec {r} \"$@\"; }}
            in_r sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv6.conf.all.forwarding=1
            for n in 1 2; do
                leg=$([ $n = 1 ] && echo lan || echo wan)
                ip -n {r} link add $leg address 02:00:00:00:00:0$n type veth peer name $leg netns {e}
                for ns in {r} {e}; do
                    ip netns exec $ns ethtool -K $leg tx off rx off tso off gso off gro off >/dev/null
                done
                ip netns exec {e} sysctl -qw net.ipv6.conf.$leg.disable_ipv6=1
                ip -n {e} link set $leg arp off up
                in_r sysctl -qw net.ipv6.conf.$leg.accept_dad=0 net.ipv4.conf.$leg.rp_filter=0
                ip -n {r} link set $leg up
                ip -n {r} addr add 192.0.$n.1/24 dev $leg
                ip -n {r} neigh add 192.0.$n.2 lladdr 02:00:00:00:01:0$n nud permanent dev $leg
                ip -n {r} addr add fd0f:$n::1/64 dev $leg nodad
                ip -n {r} neigh add fd0f:$n::2 lladdr 02:00:00:00:01:0$n nud permanent dev $leg
                ip -n {r} route add 10.$n.0.0/16 via 192.0.$n.2 dev $leg
                ip -n {r} route add 10.7.$n.0/24 via 192.0.$n.2 dev $leg
                ip -n {r} route add fd0$n::/16 via fd0f:$n::2 dev $leg
            done
            in_r nft '{RULESET}'
            in_r sysctl -qw net.netfilter.nf_conntrack_checksum=0 net.netfilter.nf_conntrack_acct={on} \
                net.netfilter.nf_conntrack_timestamp={on}{longer}
            in_r conntrack -F 2>/dev/null"
        );
        sh(&["sh", "-c", &script]).unwrap();
        kernel
    }

    fn feed(&self, frames: &[(u8, Vec<u8>)]) {
        let hex = |bytes: &[u8]| {
            bytes
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        let words: Vec<String> = frames
            .iter()
            .map(|(side, frame)| match frame[12..14] {
                // Not every kernel knows VLANs.
                [0x81, 0] => format!("{side}:{}{}", hex(&frame[..12]), hex(&frame[16..])),
                _ => format!("{side}:{}", hex(frame)),
            })
            .collect();
        let mut command = vec!["python3", "-c", FEEDER];
        command.extend(words.iter().map(String::as_str));
        let fed = self.ends.output(&command).unwrap();
        assert!(
            fed.status.success(),
            "{}",
            String::from_utf8_lossy(&fed.stderr)
        );
    }

    /// What the program says: exit code, output, last word.
    fn ask(&self, line: &str) -> Said {
        let words: Vec<&str> = ["conntrack"].into_iter().chain(line.split(' ')).collect();
        let said = self.router.output(&words).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Said {
            code: said.status.code().map_or(139, |code| code as u8),
            out: text(&said.stdout),
            err: text(&said.stderr),
        }
    }
}

/// What one side answered.
struct Said {
    code: u8,
    out: String,
    err: String,
}

fn ours(line: &str, bed: &Bed) -> Said {
    let (code, out, err) = run(&format!("conntrack {line}"), bed.socket());
    let code = (0..=2).find(|number| code == ExitCode::from(*number));
    Said {
        code: code.expect("0, 1 or 2"),
        out,
        err,
    }
}

/// Tells apart what cannot be the same.
struct Glasses {
    ours: Regex,
    own: Regex,
    seconds: Regex,
}

/// Lines in order, and the seconds in each.
type Seen = Vec<(String, Vec<u64>)>;

impl Glasses {
    fn new() -> Self {
        let regex = |text| Regex::new(text).unwrap();
        Self {
            ours: regex(
                r"(?m) \[EXPECTED\]| master-src=\S+ master-dst=\S+( master-sport=\d+ master-dport=\d+)?",
            ),
            own: regex(
                r"(?m)(?P<a> use=)\d+|(?P<b> id=)\d+$|(?P<c>\[start=)[^\]]*|(?P<d><(id|use|start)>)\d+",
            ),
            seconds: regex(
                r"(?m)(?P<a>^(ipv\d +\d+ )?[a-z]\w* +\d+ )(?P<n>\d+)(?P<z> )|(?P<b> delta-time=|<timeout>|<deltatime>| -t |^-t )(?P<m>\d+)|(?P<c>^)(?P<o>\d+)(?P<y> proto=)",
            ),
        }
    }

    fn look(&self, text: &str) -> Seen {
        let text = self.ours.replace_all(text, "");
        let text = self.own.replace_all(&text, "$a$b$c$d#");
        let mut lines: Seen = text
            .lines()
            .map(|line| {
                let mut seconds = Vec::new();
                for found in self.seconds.captures_iter(line) {
                    let number = ["n", "m", "o"].iter().find_map(|name| found.name(name));
                    seconds.push(number.unwrap().as_str().parse().unwrap());
                }
                let line = self.seconds.replace_all(line, "$a$b$c#$z$y");
                (line.into_owned(), seconds)
            })
            .collect();
        lines.sort();
        lines
    }

    /// What differs, in words; nothing if nothing does.
    fn compare(&self, line: &str, kernel: &Said, ours: &Said) -> String {
        let mut text = String::new();
        let mut tell = |what: &str, theirs: &str, own: &str| {
            text += &format!("conntrack {line}: {what}\n  kernel: {theirs}\n  ours:   {own}\n");
        };
        if kernel.code != ours.code {
            let err = |said: &Said| format!("{}, {}", said.code, said.err.trim());
            tell("exit codes", &err(kernel), &err(ours));
        }
        // Errors may say it in other words.
        let last = |said: &Said| {
            let (_, rest) = said.err.split_once("): ").unwrap_or_default();
            let rest = rest.lines().next().unwrap_or_default();
            match rest.contains("have been") {
                true => rest.to_owned(),
                false => String::new(),
            }
        };
        if last(kernel) != last(ours) {
            tell("last words", &last(kernel), &last(ours));
        }
        let (theirs, own) = (self.look(&kernel.out), self.look(&ours.out));
        for (at, (line, seconds)) in own.iter().enumerate() {
            let Some((other, others)) = theirs.get(at) else {
                break;
            };
            let near = seconds.len() == others.len()
                && seconds
                    .iter()
                    .zip(others)
                    .all(|(a, b)| a.abs_diff(*b) <= SLACK);
            if line != other || !near {
                tell(
                    "lines",
                    &format!("{other} {others:?}"),
                    &format!("{line} {seconds:?}"),
                );
                break;
            }
        }
        if theirs.len() != own.len() {
            tell("number of lines", &kernel.out, &ours.out);
        }
        text
    }
}

#[test]
fn the_same_flows_are_shown_in_the_same_bytes_as_by_conntrack() {
    if !is_root() {
        let binary = std::env::current_exe().unwrap();
        let test = "cli::tests::golden::the_same_flows_are_shown_in_the_same_bytes_as_by_conntrack";
        let words = [&binary.to_string_lossy(), test, "--exact", "--nocapture"];
        let status = as_root_of_a_namespace(&words).unwrap();
        assert!(
            status.success(),
            "this test needs network namespaces; it failed inside `unshare -Urnm`, so run it as root"
        );
        return;
    }
    let glasses = Glasses::new();
    let mut differences = String::new();
    for accounting in [true, false] {
        let kernel = Kernel::new(accounting);
        let settings = format!(
            "conntrack:\n  checksum: false\n  accounting: {accounting}\n  timestamps: {accounting}\n{TIMEOUTS}"
        );
        let mut bed = Bed::under(1, &(settings + RULES));
        bed.start_control();
        let frames = frames();
        kernel.feed(&frames);
        for (side, frame) in &frames {
            bed.pass(PortId(*side), frame);
        }
        let mut compare = |lines: &[&str]| {
            for line in lines {
                differences += &glasses.compare(line, &kernel.ask(line), &ours(line, &bed));
            }
        };
        compare(ASKED);
        for (line, word) in SAFER {
            let said = ours(line, &bed);
            assert!(said.err.contains(word), "{line}: {}", said.err);
        }
        compare(DELETED);
        if accounting {
            differences += &codes(&kernel, &bed);
            differences += &stats(&kernel, &bed);
        }
    }
    assert!(differences.is_empty(), "{differences}");
}

/// Compares the exit codes of command lines that make no sense, or do to one side only.
fn codes(kernel: &Kernel, bed: &Bed) -> String {
    let mut text = String::new();
    let taken = TAKEN.iter().map(|line| (*line, 0));
    let same = REFUSED
        .iter()
        .copied()
        .chain(taken)
        .map(|(line, code)| (line, code, code));
    let different = DIFFERENT
        .iter()
        .map(|(line, theirs, ours, _)| (*line, *theirs, *ours));
    for (line, theirs, own) in same.chain(different) {
        let (kernel, ours) = (kernel.ask(line), code(line, bed.socket()));
        if (kernel.code, ours) != (theirs, own) {
            let err = kernel.err.trim();
            text += &format!(
                "conntrack {line}: exit codes {} ({err}) and {ours}, not {theirs} and {own}\n",
                kernel.code
            );
        }
    }
    text
}

/// Compares the counters' names and layout: what they count is each side's own.
fn stats(kernel: &Kernel, bed: &Bed) -> String {
    let names = |said: Said| {
        let first = said.out.lines().next().unwrap_or_default().to_owned();
        let digits = Regex::new(r"\d+").unwrap();
        digits.replace_all(&first, "#").into_owned()
    };
    let mut text = String::new();
    for line in ["-S", "-S conntrack", "-S expect", "--stats"] {
        let (theirs, own) = (names(kernel.ask(line)), names(ours(line, bed)));
        if theirs != own {
            text += &format!("conntrack {line}:\n  kernel: {theirs}\n  ours:   {own}\n");
        }
    }
    text
}

/// The glasses do not hide what they are not meant to.
#[test]
fn a_difference_is_seen() {
    let glasses = Glasses::new();
    let said = |out: &str| Said {
        code: 0,
        out: out.into(),
        err: String::new(),
    };
    let differs =
        |one: &str, other: &str| !glasses.compare("", &said(one), &said(other)).is_empty();
    let line =
        "udp      17 29 src=10.1.0.1 dst=10.2.0.1 sport=1 dport=2 mark=0 delta-time=3 use=1 id=7";
    assert!(!differs(line, line));
    for (from, to, seen) in [
        (" 29 ", " 30 ", false),
        (" 29 ", " 90 ", true),
        ("delta-time=3", "delta-time=30", true),
        ("use=1", "use=2", false),
        ("id=7", "id=8", false),
        ("sport=1", "sport=3", true),
        ("mark=0", "mark=1", true),
        ("udp      17", "udp 17", true),
        ("10.1.0.1", "10.1.0.2", true),
        (" mark", " [ASSURED] mark", true),
        (" mark", " [EXPECTED] mark", false),
    ] {
        assert_eq!(differs(line, &line.replace(from, to)), seen, "{from} {to}");
    }
    assert!(differs(line, &format!("{line}\n{line}")));
    let save = "-A -t 29 -u UNSET -s 10.1.0.1";
    assert!(differs(save, &save.replace("UNSET", "ASSURED")));
    assert!(!differs(save, &save.replace("29", "28")));
}
