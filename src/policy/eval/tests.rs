//! Packets made by hand, through policies of a few lines: every match, every action, the ways
//! through chains, and the counters behind them.

mod helpers;
mod times;

use proptest::prelude::*;

use super::*;
use crate::base::hash::HashKey;
use crate::base::tally::Tally;
use crate::conntrack::entry::status;
use crate::conntrack::shard::FlowView;
use crate::policy::check::parse_with;
use crate::policy::check::tests::KNOWN;
use crate::policy::model::RejectWith;
use crate::policy::{RuleInfo, compile, restart_needed};
use crate::wire::parsed::{Checksum, TcpHeader};

/// A 60-byte IPv4 packet, 10.0.0.1 to 10.0.0.2.
fn ip4(number: u8, l4: L4) -> Parsed {
    Parsed {
        l3: L3::Ipv4,
        addrs: Addrs::V4 {
            src: 0x0a00_0001,
            dst: 0x0a00_0002,
        },
        l4,
        ethertype: 0x0800,
        vlan: NO_VLAN,
        l3_offset: 14,
        l4_offset: 34,
        end: 60,
        proto: number,
        ttl: 64,
        dscp: 0,
        fragment: Fragment::Whole,
        l4_sum: Checksum::Unknown,
        frame_len: 60,
    }
}

/// The same over IPv6, fd00::1 to fd00::2.
fn ip6(number: u8, l4: L4) -> Parsed {
    let net = 0xfd00 << 112;
    let addrs = Addrs::V6 {
        src: net | 1,
        dst: net | 2,
    };
    Parsed {
        l3: L3::Ipv6,
        addrs,
        ethertype: 0x86dd,
        ..ip4(number, l4)
    }
}

fn tcp(flags: u8) -> Parsed {
    let header = TcpHeader {
        sport: 1025,
        dport: 22,
        seq: 1,
        ack: 0,
        window: 1000,
        flags,
        header_len: 20,
    };
    ip4(proto::TCP, L4::Tcp(header))
}

fn udp(sport: u16, dport: u16) -> Parsed {
    ip4(proto::UDP, L4::Udp { sport, dport })
}

fn icmp(ty: u8, code: u8) -> Parsed {
    ip4(proto::ICMP, L4::Icmp { ty, code, id: 0 })
}

fn icmp6(ty: u8, code: u8) -> Parsed {
    ip6(proto::ICMPV6, L4::Icmp { ty, code, id: 0 })
}

const LAN: PortId = PortId(0);
const WAN: PortId = PortId(1);

/// A new packet from lan to wan.
fn facts(packet: &Parsed) -> Facts<'_> {
    let dir = Some(Dir::Original);
    Facts {
        packet,
        iif: LAN,
        oif: WAN,
        state: CtState::New,
        dir,
        flow: None,
        now: Now::from_secs(1000),
    }
}

const HEAD: &str = "version: 1
ports: { lan: { device: net_tap0 }, wan: { device: net_tap1 }, dmz: { device: net_tap2 } }
bridge: [[lan, wan]]
sets:
  servers: [10.0.0.2, 10.2.0.0/16, \"fd00::2\"]
  four: [10.0.0.0/24]
  web: [80, 443, 8000-8080]
";

fn policy(rest: &str) -> Compiled {
    build(&format!("{HEAD}{rest}"))
}

fn build(text: &str) -> Compiled {
    let checked = parse_with("test.yaml", text, &KNOWN, &|_| Err(String::new()))
        .unwrap_or_else(|errors| panic!("{errors}"));
    compile(&checked.model, 1, 2)
}

/// Whether a rule with `matches` matches.
fn hit(matches: &str, facts: &Facts<'_>) -> bool {
    let rule = format!("{{ name: it, {matches}, action: accept }}");
    let policy = policy(&format!("chains: {{ forward: {{ rules: [{rule}] }} }}\n"));
    let decision = policy.forward(0, facts);
    let expected = if decision.verdict == Verdict::Accept {
        "forward/it"
    } else {
        "forward/policy"
    };
    assert_eq!(policy.rule_name(decision.rule), expected);
    decision.verdict == Verdict::Accept
}

/// Asserts which of `cases` a packet matches.
fn table(packet: &Parsed, cases: &[(&str, bool)]) {
    for (matches, expected) in cases {
        assert_eq!(
            hit(matches, &facts(packet)),
            *expected,
            "{matches} on {packet:?}"
        );
    }
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

#[test]
fn interfaces_and_families() {
    table(
        &udp(1, 2),
        &[
            ("iif: lan", true),
            ("iif: wan", false),
            ("iif: [wan, lan]", true),
            ("iif: [wan, dmz]", false),
            ("iif: \"!lan\"", false),
            ("iif: \"!wan\"", true),
            ("oif: wan", true),
            ("oif: lan", false),
            ("oif: \"!wan\"", false),
            ("iif: lan, oif: wan", true),
            ("iif: lan, oif: lan", false),
            ("family: ipv4", true),
            ("family: ipv6", false),
        ],
    );
    table(
        &ip6(proto::UDP, L4::None),
        &[("family: ipv6", true), ("family: ipv4", false)],
    );
    let other = Parsed {
        l3: L3::Other,
        proto: 0,
        ..udp(1, 2)
    };
    table(
        &other,
        &[
            ("family: ipv4", false),
            ("proto: 0", false),
            ("saddr: 10.0.0.1", false),
        ],
    );
}

#[test]
fn addresses() {
    table(
        &udp(1, 2),
        &[
            ("saddr: 10.0.0.1", true),
            ("saddr: 10.0.0.2", false),
            ("daddr: 10.0.0.2", true),
            ("daddr: 10.0.0.1", false),
            ("saddr: 10.0.0.0/8", true),
            ("saddr: 11.0.0.0/8", false),
            ("saddr: 10.0.0.0-10.0.0.1", true),
            ("saddr: 10.0.0.2-10.0.0.9", false),
            ("saddr: [10.0.0.9, 10.0.0.1]", true),
            ("saddr: [10.0.0.9, \"fd00::1\"]", false),
            ("saddr: \"!10.0.0.1\"", false),
            ("saddr: \"!10.0.0.2\"", true),
            ("daddr: $servers", true),
            ("saddr: $servers", false),
            ("saddr: [$servers, 10.0.0.1]", true),
            ("saddr: \"!$servers\"", true),
            ("daddr: \"!$servers\"", false),
            ("saddr: \"fd00::1\"", false),
            ("saddr: \"!fd00::1\"", false),
            ("saddr: 0.0.0.0/0", true),
            ("saddr: \"::/0\"", false),
        ],
    );
    table(
        &ip6(proto::UDP, L4::Udp { sport: 1, dport: 2 }),
        &[
            ("saddr: \"fd00::1\"", true),
            ("saddr: \"fd00::/16\"", true),
            ("saddr: \"fd00::2-fd00::9\"", false),
            ("daddr: $servers", true),
            ("saddr: $servers", false),
            ("saddr: \"!$servers\"", true),
            ("saddr: $four", false),
            // an address implies its family, negated or not
            ("saddr: \"!$four\"", false),
            ("saddr: 0.0.0.0/0", false),
            ("saddr: [10.0.0.0/8, \"fd00::1\"]", true),
        ],
    );
}

#[test]
fn protocols_and_ports() {
    table(
        &udp(1025, 443),
        &[
            ("proto: udp", true),
            ("proto: 17", true),
            ("proto: 0x11", true),
            ("proto: tcp", false),
            ("proto: [tcp, udp]", true),
            ("proto: \"!udp\"", false),
            ("proto: \"!tcp\"", true),
            ("proto: udp, dport: 443", true),
            ("proto: udp, dport: 80", false),
            ("proto: tcp, dport: 443", false),
            ("proto: udp, dport: 400-500", true),
            ("proto: udp, dport: [80, 443]", true),
            ("proto: udp, dport: $web", true),
            ("proto: udp, sport: $web", false),
            ("proto: udp, dport: \"!$web\"", false),
            ("proto: udp, sport: \"!$web\"", true),
            ("proto: udp, sport: 1024-65535", true),
            ("proto: udp, sport: 0-1024", false),
            ("proto: udp, dport: \"!443\"", false),
            ("proto: udp, dport: [$web, 53]", true),
        ],
    );
    let later = Parsed {
        l4: L4::None,
        fragment: Fragment::Later,
        ..udp(1025, 443)
    };
    table(
        &later,
        &[
            ("proto: udp", true),
            ("proto: udp, dport: 0-65535", false),
            ("proto: udp, dport: \"!443\"", false),
            ("fragment: true", true),
            ("fragment: false", false),
            ("fragment: [yes, true]", true),
            ("fragment: \"!true\"", false),
            ("fragment: \"!off\"", true),
        ],
    );
    table(
        &udp(1, 2),
        &[
            ("fragment: true", false),
            ("fragment: false", true),
            ("fragment: [no]", true),
            ("fragment: \"!true\"", true),
        ],
    );
    let first = Parsed {
        fragment: Fragment::First,
        ..udp(1025, 443)
    };
    table(
        &first,
        &[("fragment: true", true), ("proto: udp, dport: 443", true)],
    );
    let lite = Parsed {
        proto: proto::UDPLITE,
        ..udp(1, 2)
    };
    table(
        &lite,
        &[
            ("proto: udplite, dport: 2", true),
            ("proto: udp, dport: 2", false),
        ],
    );
}

/// Of which flags packets match.
fn hits_of(line: &str) -> [bool; 256] {
    let policy = policy(&format!(
        "chains:\n  forward:\n    rules:\n      - {{ {line}, action: accept }}\n"
    ));
    std::array::from_fn(|flags| {
        let packet = tcp(flags as u8);
        policy.forward(0, &facts(&packet)).verdict == Verdict::Accept
    })
}

#[test]
fn tcp_flags() {
    let syn = "tcp-flags: syn";
    let not = "tcp-flags: \"!syn\"";
    for (flags, is_syn) in [
        (SYN, true),
        (SYN | 8, true),
        (SYN | 64 | 128, true),
        (SYN | ACK, false),
        (SYN | RST, false),
        (SYN | FIN, false),
        (ACK, false),
        (0, false),
    ] {
        table(&tcp(flags), &[(syn, is_syn), (not, !is_syn)]);
    }
    table(
        &tcp(SYN | ACK),
        &[
            ("tcp-flags: \"syn,ack/syn,ack\"", true),
            ("tcp-flags: \"syn,ack/syn\"", false),
            ("tcp-flags: \"syn/syn\"", true),
            ("tcp-flags: \"fin,rst/none\"", true),
            ("tcp-flags: \"!syn,ack/syn,ack\"", false),
            ("tcp-flags: \"!fin/fin\"", true),
            ("tcp-flags: [syn, \"syn,ack/syn,ack\"]", true),
            ("tcp-flags: [syn, rst/rst, \"psh,urg/psh\"]", false),
            ("tcp-flags: [\"fin,rst/none\"]", true),
        ],
    );
    // by every combination: any of the list
    let list = hits_of("tcp-flags: [syn, \"rst,ack/rst\", \"fin,psh,urg/fin,urg\"]");
    let any = ["syn", "\"rst,ack/rst\"", "\"fin,psh,urg/fin,urg\""];
    let any = any.map(|one| hits_of(&format!("tcp-flags: {one}")));
    assert_eq!(list, std::array::from_fn(|at| any.iter().any(|of| of[at])));
    assert_eq!(list.iter().filter(|hit| **hit).count(), 16 + 64 + 32 - 8);
    table(&udp(1, 2), &[(syn, false), (not, false)]);
}

#[test]
fn states_and_directions() {
    let packet = udp(1, 2);
    for state in CtState::ALL {
        let facts = Facts {
            state,
            ..facts(&packet)
        };
        for other in CtState::ALL {
            let (same, name) = (state == other, other.name());
            assert_eq!(hit(&format!("ct: {name}"), &facts), same);
            assert_eq!(hit(&format!("ct: \"!{name}\""), &facts), !same);
        }
        let known = matches!(state, CtState::Established | CtState::Related);
        assert_eq!(hit("ct: [established, related]", &facts), known);
    }
    let reply = Facts {
        dir: Some(Dir::Reply),
        ..facts(&packet)
    };
    assert!(hit("ct-direction: reply", &reply));
    assert!(!hit("ct-direction: original", &reply));
    let none = Facts {
        dir: None,
        ..facts(&packet)
    };
    assert!(!hit("ct-direction: reply", &none));
    assert!(!hit("ct-direction: original", &none));
}

#[test]
fn icmp_types() {
    table(
        &icmp(8, 0),
        &[
            ("icmp-type: echo-request", true),
            ("icmp-type: echo-reply", false),
            ("icmp-type: [echo-reply, echo-request]", true),
            ("icmp-type: \"!echo-request\"", false),
            ("icmp-type: \"!echo-reply\"", true),
            ("proto: icmp, icmp-type: 8", true),
            ("proto: icmp, icmp-type: 8/0", true),
            ("proto: icmp, icmp-type: 8/1", false),
            ("proto: icmpv6, icmp-type: echo-request", false),
            ("proto: icmpv6, icmp-type: 8", false),
            ("icmp-type: nd-router-advert", false),
            ("icmp-type: \"!nd-router-advert\"", false),
        ],
    );
    table(
        &icmp(3, 4),
        &[("icmp-type: destination-unreachable/4", true)],
    );
    table(
        &icmp6(128, 0),
        &[
            ("icmp-type: echo-request", true),
            ("proto: icmp, icmp-type: echo-request", false),
            ("family: ipv6, icmp-type: 128", true),
            ("icmp-type: packet-too-big", false),
            ("icmp-type: \"!packet-too-big\"", true),
        ],
    );
    table(
        &udp(1, 2),
        &[
            ("icmp-type: echo-request", false),
            ("icmp-type: \"!echo-request\"", false),
        ],
    );
}

#[test]
fn lengths_code_points_and_vlans() {
    let packet = Parsed {
        dscp: 46,
        vlan: 10,
        ..udp(1, 2)
    };
    table(
        &packet,
        &[
            ("length: 46", true),
            ("length: 40-50", true),
            ("length: 47-65535", false),
            ("length: \"!46\"", false),
            ("dscp: ef", true),
            ("dscp: 46", true),
            ("dscp: [cs1, ef]", true),
            ("dscp: cs1", false),
            ("dscp: \"!ef\"", false),
            ("dscp: \"!cs1\"", true),
            ("vlan: 10", true),
            ("vlan: 11", false),
            ("vlan: [1, 5-20]", true),
            ("vlan: \"!10\"", false),
            ("vlan: \"!11\"", true),
        ],
    );
    table(
        &udp(1, 2),
        &[
            ("vlan: 0-4094", false),
            ("vlan: \"!10\"", false),
            ("dscp: be", true),
        ],
    );
}

/// The rule, the verdict and the log of one packet.
fn run(policy: &Compiled, packet: &Parsed) -> (Verdict, String, Option<String>) {
    let decision = policy.forward(0, &facts(packet));
    let name = |id| policy.rule_name(id).to_owned();
    (
        decision.verdict,
        name(decision.rule),
        decision.log.map(name),
    )
}

fn action(action: &str, packet: &Parsed) -> Verdict {
    let text = format!("chains: {{ forward: {{ rules: [{{ proto: [tcp, udp], {action} }}] }} }}\n");
    run(&policy(&text), packet).0
}

#[test]
fn actions() {
    let reject = |with| Verdict::Reject(with);
    assert_eq!(action("action: accept", &udp(1, 2)), Verdict::Accept);
    assert_eq!(action("action: drop", &udp(1, 2)), Verdict::Drop);
    assert_eq!(
        action("action: reject", &tcp(SYN)),
        reject(RejectWith::TcpReset)
    );
    assert_eq!(
        action("action: reject", &udp(1, 2)),
        reject(RejectWith::IcmpPortUnreachable)
    );
    for with in RejectWith::ALL
        .into_iter()
        .filter(|with| *with != RejectWith::TcpReset)
    {
        let text = format!("action: {{ reject: {} }}", with.name());
        assert_eq!(action(&text, &tcp(SYN)), reject(with));
    }
    let text = "chains: { forward: { rules: [{ proto: tcp, action: { reject: tcp-reset } }] } }\n";
    assert_eq!(
        run(&policy(text), &tcp(SYN)).0,
        reject(RejectWith::TcpReset)
    );
    assert_eq!(action("action: return", &udp(1, 2)), Verdict::Drop);
    assert_eq!(action("log: true", &udp(1, 2)), Verdict::Drop);
}

#[test]
fn the_policy_of_forward_decides_last() {
    let open = policy("chains: { forward: { policy: accept } }\n");
    assert_eq!(
        run(&open, &udp(1, 2)),
        (Verdict::Accept, "forward/policy".into(), None)
    );
    let closed = policy("chains: { forward: { rules: [] } }\n");
    assert_eq!(
        run(&closed, &udp(1, 2)),
        (Verdict::Drop, "forward/policy".into(), None)
    );
}

const WAYS: &str = "chains:
  tail:
    rules:
      - { name: t, proto: udp, dport: 4, action: accept }
  inner:
    rules:
      - { name: one, proto: udp, dport: 1, action: accept }
      - { name: two, proto: udp, dport: 2, action: return }
      - { name: three, proto: udp, dport: [3, 4], goto: tail }
      - { name: rest, proto: udp, dport: 5, log: true }
  outer:
    rules:
      - { name: call, jump: inner }
      - { name: after, action: drop }
  forward:
    policy: accept
    rules:
      - { name: back, proto: udp, sport: 9, action: return }
      - { name: note, proto: udp, sport: 8, log: { prefix: eight } }
      - { name: away, proto: udp, sport: 7, goto: inner }
      - { name: in, jump: outer }
      - { name: unreached, action: reject }
";

#[test]
fn jump_goto_and_return() {
    let policy = policy(WAYS);
    let accept = |rule: &str| (Verdict::Accept, rule.to_owned());
    let drop = |rule: &str| (Verdict::Drop, rule.to_owned());
    for (sport, dport, expected, log) in [
        (1, 1, accept("inner/one"), None),
        (1, 2, drop("outer/after"), None),
        // goto does not come back to `inner`, but to where `inner` was jumped from
        (1, 3, drop("outer/after"), None),
        (1, 4, accept("tail/t"), None),
        (1, 5, drop("outer/after"), Some("inner/rest")),
        (9, 1, accept("forward/policy"), None),
        (8, 1, accept("inner/one"), Some("forward/note")),
        (8, 5, drop("outer/after"), Some("inner/rest")),
        // after a goto from `forward`, the end of the chain is the end of `forward`
        (7, 6, accept("forward/policy"), None),
        (7, 2, accept("forward/policy"), None),
        (7, 1, accept("inner/one"), None),
    ] {
        let (verdict, rule, logged) = run(&policy, &udp(sport, dport));
        assert_eq!((verdict, rule), expected, "{sport} {dport}");
        assert_eq!(logged.as_deref(), log, "{sport} {dport}");
    }
    let note = policy.rules().find(|rule| rule.name == "note").unwrap();
    assert_eq!(prefix(&policy, note.id), Some("eight"));
    assert_eq!(prefix(&policy, RuleId(0)), None);
    assert_eq!((note.chain, note.action), ("forward", "log"));
}

#[test]
fn sixteen_jumps_deep() {
    let mut text = String::from("chains:\n  forward: { policy: accept, rules: [{ jump: c1 }] }\n");
    for at in 1..16 {
        text.push_str(&format!(
            "  c{at}: {{ rules: [{{ jump: c{} }}] }}\n",
            at + 1
        ));
    }
    let deep = policy(&format!(
        "{text}  c16: {{ rules: [{{ name: end, action: drop }}] }}\n"
    ));
    assert_eq!(run(&deep, &udp(1, 2)).1, "c16/end");
    let back = policy(&format!(
        "{text}  c16: {{ rules: [{{ action: return }}] }}\n"
    ));
    assert_eq!(
        run(&back, &udp(1, 2)),
        (Verdict::Accept, "forward/policy".into(), None)
    );
}

/// What every rule has counted, those that counted nothing left out.
fn counts(policy: &Compiled) -> Vec<(String, u64, u64)> {
    let named = |rule: RuleInfo<'_>| {
        (
            format!("{}/{}", rule.chain, rule.name),
            rule.packets,
            rule.bytes,
        )
    };
    policy
        .rules()
        .filter(|rule| rule.packets > 0)
        .map(named)
        .collect()
}

fn count(name: &str, packets: u64, bytes: u64) -> (String, u64, u64) {
    (name.to_owned(), packets, bytes)
}

#[test]
fn every_rule_that_matched_counts() {
    let policy = policy(WAYS);
    policy.forward(0, &facts(&udp(8, 5)));
    let large = Parsed {
        frame_len: 1514,
        ..udp(1, 1)
    };
    policy.forward(1, &facts(&large));
    policy.forward(1, &facts(&udp(9, 1)));
    // a worker that the policy was not compiled for counts nothing, and decides all the same
    assert_eq!(
        policy.forward(7, &facts(&udp(1, 1))).verdict,
        Verdict::Accept
    );
    let expected = [
        count("forward/back", 1, 60),
        count("forward/note", 1, 60),
        count("forward/in", 2, 1574),
        count("forward/policy", 1, 60),
        count("inner/one", 1, 1514),
        count("inner/rest", 1, 60),
        count("outer/call", 2, 1574),
        count("outer/after", 1, 60),
    ];
    let mut found = counts(&policy);
    found.sort();
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn raw_rules_decide_by_the_first_match() {
    let policy = policy(
        "raw:
  - { name: keep, saddr: 10.0.0.9, action: accept }
  - { name: p2p, proto: udp, dport: 33333, action: notrack }
  - { proto: udp, sport: 33333, iif: wan, action: notrack }
chains: { forward: { policy: accept } }
",
    );
    let raw = |packet: &Parsed| policy.raw(0, &facts(packet));
    assert_eq!(raw(&udp(1, 33333)), RawVerdict::Notrack);
    assert_eq!(raw(&udp(1, 2)), RawVerdict::Track);
    assert_eq!(raw(&udp(33333, 2)), RawVerdict::Track);
    let back = Parsed { ..udp(33333, 2) };
    assert_eq!(
        policy.raw(
            1,
            &Facts {
                iif: WAN,
                ..facts(&back)
            }
        ),
        RawVerdict::Notrack
    );
    let kept = Parsed {
        addrs: Addrs::V4 {
            src: 0x0a00_0009,
            dst: 1,
        },
        ..udp(1, 33333)
    };
    assert_eq!(raw(&kept), RawVerdict::Track);
    assert_eq!(
        counts(&policy),
        [
            count("raw/keep", 1, 60),
            count("raw/p2p", 1, 60),
            count("raw/3", 1, 60)
        ]
    );
}

#[test]
fn limits_come_last_and_are_shared() {
    let policy = policy(
        "chains:
  forward:
    rules: [{ name: few, limit: 2/second burst 3, proto: udp, action: accept }]
",
    );
    let (udp, tcp) = (udp(1, 2), tcp(SYN));
    let at = |packet, millis: u64| Facts {
        now: Now::from_nanos(1_000_000_000_000 + millis * 1_000_000),
        ..facts(packet)
    };
    let passes = |packet, millis, worker| {
        policy.forward(worker, &at(packet, millis)).verdict == Verdict::Accept
    };
    // what another match refuses takes no token
    assert!(!passes(&tcp, 0, 0));
    assert!(passes(&udp, 0, 0) && passes(&udp, 0, 1) && passes(&udp, 0, 0));
    assert!(!passes(&udp, 499, 0));
    assert!(passes(&udp, 500, 1));
    assert!(!passes(&udp, 500, 0));
    assert_eq!((0..9).filter(|_| passes(&udp, 60_000, 0)).count(), 3);
    let few = policy.rules().next().unwrap();
    assert_eq!((few.name, few.packets, few.bytes), ("few", 7, 420));
}

#[test]
fn named_counters_sum_over_rules_workers_and_reloads() {
    let text = "raw: [{ proto: udp, dport: 9, action: accept, count: both }]
chains:
  forward:
    rules:
      - { name: seen, proto: udp, dport: 1, count: web }
      - { name: too, proto: udp, dport: [1, 2], mark: 5, count: web }
      - { name: just, proto: udp, dport: 2, count: true }
      - { name: end, proto: udp, dport: 1, action: accept, count: both }
";
    let first = policy(text);
    let shown = |policy: &Compiled| -> Vec<String> {
        let all = policy.counters();
        all.map(|one| format!("{} {} {}", one.name, one.packets, one.bytes))
            .collect()
    };
    for (worker, dport) in [(0, 1), (1, 1), (1, 2)] {
        let packet = udp(1, dport);
        let decision = first.forward(worker, &facts(&packet));
        assert_eq!(decision.verdict == Verdict::Accept, dport == 1);
    }
    let packet = udp(1, 9);
    first.raw(0, &facts(&packet));
    assert_eq!(shown(&first), ["both 3 180", "web 5 300"]);
    let actions: Vec<_> = first.rules().map(|rule| rule.action.to_owned()).collect();
    let want = [
        "count web",
        "mark 0x5, count web",
        "count",
        "count both, accept",
        "drop",
    ];
    assert_eq!(actions[..5], want);
    // by name, whatever feeds it; an unchanged rule is not counted twice
    let second = policy(
        "chains:
  forward:
    rules:
      - { name: seen, proto: udp, dport: 1, count: web }
      - { name: other, proto: udp, dport: 1, count: fresh, action: accept }
",
    );
    second.carry_from(&first);
    assert_eq!(shown(&second), ["fresh 0 0", "web 5 300"]);
    second.forward(1, &facts(&udp(1, 1)));
    assert_eq!(shown(&second), ["fresh 1 60", "web 6 360"]);
    let third = policy(text);
    third.carry_from(&second);
    assert_eq!(shown(&third), ["both 0 0", "web 6 360"]);
}

fn prefix(policy: &Compiled, rule: RuleId) -> Option<&str> {
    policy.log(rule)?.prefix.as_deref()
}

#[test]
fn limits_by_address_have_a_bucket_for_each() {
    let text = "chains:
  forward:
    rules:
      - { name: each, limit: 1/minute burst 2 per source/24, proto: udp, dport: 1, action: accept }
      - { name: to, limit: 1/minute burst 1 per destination, proto: udp, dport: 2, action: accept }
      - { name: zone, limit: 1/minute burst 3 per zone, proto: udp, dport: 3, action: accept }
";
    let first = policy(text);
    let passes = |policy: &Compiled, src: u32, dst: u32, dport| {
        let addrs = Addrs::V4 { src, dst };
        let packet = Parsed {
            addrs,
            ..udp(1, dport)
        };
        policy.forward(0, &facts(&packet)).verdict == Verdict::Accept
    };
    let count = |policy: &Compiled, src, dst, dport| {
        (0..9).filter(|_| passes(policy, src, dst, dport)).count()
    };
    assert_eq!(count(&first, 0x0a00_0001, 1, 1), 2);
    assert_eq!(count(&first, 0x0a00_00ff, 2, 1), 0, "the same network");
    assert_eq!(count(&first, 0x0a00_0101, 1, 1), 2);
    assert_eq!(count(&first, 1, 7, 2), 1);
    assert_eq!(count(&first, 2, 7, 2), 0, "the same destination");
    assert_eq!(count(&first, 2, 8, 2), 1);
    assert_eq!(count(&first, 1, 2, 3), 3);
    assert_eq!(count(&first, 2, 3, 3), 0, "the same zone");
    // a reload that leaves a rule as it is leaves its levels
    let mut second = policy(&text.replace("burst 1 per", "burst 3 per"));
    second.follow(&first).unwrap();
    assert_eq!(count(&second, 0x0a00_0001, 1, 1), 0);
    assert_eq!(count(&second, 0x0a00_0201, 1, 1), 2);
    assert_eq!(count(&second, 1, 7, 2), 3, "another rule now");
    assert_eq!(count(&second, 3, 4, 3), 0);
}

/// While workers leave one policy for the next, each may judge a packet by either.
#[test]
fn a_limit_is_one_for_the_policy_before_and_after_a_reload() {
    let text = "chains:
  forward:
    rules:
      - { name: all, limit: 1/day burst 5, proto: udp, dport: 1, action: accept }
      - { name: each, limit: 1/day burst 5 per source, proto: udp, dport: 2, action: accept }
";
    let old = policy(text);
    let mut new = policy(&text.replace(
        "rules:\n",
        "rules:\n      - { name: more, dport: 9, proto: tcp, action: drop }\n",
    ));
    let passes = |policy: &Compiled, dport| {
        let packet = udp(1, dport);
        policy.forward(0, &facts(&packet)).verdict == Verdict::Accept
    };
    for dport in [1, 2] {
        assert!(passes(&old, dport));
    }
    new.follow(&old).unwrap();
    for dport in [1, 2] {
        let by = |n: usize| [&new, &old][n % 2];
        let passed = (0..12).filter(|n| passes(by(*n), dport)).count();
        assert_eq!(passed, 4, "{dport}");
    }
    new.carry_from(&old);
    assert!(!passes(&new, 1) && !passes(&new, 2));
}

/// A flow of the packets here, with what the tracker knows of it.
fn flow(tally: &Tally, bits: u8, confirmed: bool, mark: u32) -> FlowFacts<'_> {
    FlowFacts::new(view(tally, bits, confirmed, mark))
}

fn view(tally: &Tally, bits: u8, confirmed: bool, mark: u32) -> FlowView<'_> {
    FlowView {
        status: bits,
        confirmed,
        mark,
        helper: None,
        original: udp(1, 2).addrs,
        zone: 0,
        tally,
    }
}

fn tally() -> Tally {
    Tally::new(100, HashKey::from_seed(1)).unwrap()
}

#[test]
fn marks_and_status_of_flows() {
    let (packet, tally) = (udp(1, 2), tally());
    let cases = |bits, confirmed, mark, cases: &[(&str, bool)]| {
        for (matches, expected) in cases {
            let flow = flow(&tally, bits, confirmed, mark);
            let facts = Facts {
                flow: Some(&flow),
                ..facts(&packet)
            };
            assert_eq!(
                hit(matches, &facts),
                *expected,
                "{matches} {bits} {mark:#x}"
            );
        }
    };
    let marks = [
        ("ct-mark: 0x12", true),
        ("ct-mark: 18", true),
        ("ct-mark: 0x2", false),
        ("ct-mark: \"0x10/0xf0\"", true),
        ("ct-mark: \"0x20/0xf0\"", false),
        ("ct-mark: [1, 2, 0x12]", true),
        ("ct-mark: [1, \"2/0xf\"]", true),
        ("ct-mark: [1, 3]", false),
        ("ct-mark: \"!0x12\"", false),
        ("ct-mark: \"!1\"", true),
        ("ct-mark: \"!2/0xf\"", false),
    ];
    cases(0, true, 0x12, &marks);
    let words = ["seen-reply", "assured", "confirmed", "expected"];
    for (bits, confirmed, is) in [
        (status::HELPED, false, [false, false, false, false]),
        (0, true, [false, false, true, false]),
        (
            status::SEEN_REPLY | status::ORIGINAL_IS_LO,
            true,
            [true, false, true, false],
        ),
        (
            status::SEEN_REPLY | status::ASSURED,
            true,
            [true, true, true, false],
        ),
        (status::EXPECTED, false, [false, false, false, true]),
    ] {
        for (word, is) in words.into_iter().zip(is) {
            cases(bits, confirmed, 0, &[(&format!("ct-status: {word}"), is)]);
            cases(
                bits,
                confirmed,
                0,
                &[(&format!("ct-status: \"!{word}\""), !is)],
            );
        }
        let either = [("ct-status: [assured, seen-reply]", is[0] || is[1])];
        cases(bits, confirmed, 0, &either);
    }
    // who has no flow matches nothing of it, negated or not
    for matches in [
        "ct-mark: 0",
        "ct-mark: \"!5\"",
        "ct-status: \"!assured\"",
        "connlimit: 9",
        "connlimit: over 9",
    ] {
        assert!(!hit(matches, &facts(&packet)), "{matches}");
    }
}

#[test]
fn marks_are_set_on_the_way() {
    let policy = policy(
        "chains:
  forward:
    rules:
      - { name: first, mark: 0x11 }
      - { name: only-low, ct-mark: 0x11, mark: \"0x20/0xf0\", jump: more }
      - { name: no-dns, proto: udp, dport: 53, mark: 0x99, action: drop }
      - { name: seen, ct-mark: 0x23, log: true, mark: \"0/0xff\", action: accept }
  more: { rules: [{ mark: \"3/0xf\", action: return }] }
",
    );
    let tally = tally();
    let run = |packet: &Parsed, mark| {
        let flow = flow(&tally, 0, true, mark);
        let facts = Facts {
            flow: Some(&flow),
            ..facts(packet)
        };
        let decision = policy.forward(0, &facts);
        (policy.rule_name(decision.rule).to_owned(), flow.new_mark())
    };
    assert!(policy.asks_of_flows());
    assert_eq!(run(&udp(1, 2), 7), ("forward/seen".into(), Some(0)));
    assert_eq!(run(&udp(1, 2), 0), ("forward/seen".into(), None));
    // as in nftables, what a rule set stays set when another one drops
    assert_eq!(run(&udp(1, 53), 7), ("forward/no-dns".into(), Some(0x99)));
    // without a flow, nothing is set and nothing matches
    let decision = policy.forward(0, &facts(&udp(1, 2)));
    assert_eq!(policy.rule_name(decision.rule), "forward/policy");
    let actions: Vec<_> = policy.rules().map(|rule| rule.action.to_owned()).collect();
    assert_eq!(
        actions,
        [
            "mark 0x11",
            "mark 0x20/0xf0, jump more",
            "mark 0x99, drop",
            "mark 0x0/0xff, accept",
            "drop",
            "mark 0x3/0xf, return",
        ]
    );
}

#[test]
fn rules_say_what_timeouts_they_give() {
    let policy = policy(
        "conntrack: { profiles: { bulk: { icmp: 1h } } }
chains:
  forward:
    rules:
      - { timeout: bulk }
      - { timeout: 1h30m, mark: 1, jump: more }
      - { timeout: { icmp: 5 }, log: true }
      - { timeout: default, action: accept }
  more: { rules: [{ log: true }] }
",
    );
    let actions: Vec<_> = policy.rules().map(|rule| rule.action.to_owned()).collect();
    assert_eq!(
        actions,
        [
            "timeout bulk",
            "mark 0x1, timeout 1h30m, jump more",
            "timeout of its own, log",
            "timeout default, accept",
            "drop",
            "log",
        ]
    );
    let decision = policy.forward(0, &facts(&icmp(8, 0)));
    assert_eq!(decision.timeouts, Some(crate::policy::ProfileId(0)));
    assert!(size_of::<Decision>() <= 16);
}

#[test]
fn connlimits_count_what_came_to_them() {
    let policy = policy(
        "chains:
  forward:
    rules:
      - { name: few, proto: udp, dport: 2, connlimit: 2, jump: twice }
      - { name: many, proto: udp, connlimit: over 3 per rule, action: reject }
  twice:
    rules:
      - { name: slow, connlimit: 1 per zone, limit: 1/day burst 1, action: accept }
      - { name: back, action: return }
",
    );
    let tally = tally();
    let run = |packet: &Parsed, confirmed| {
        let flow = flow(&tally, 0, confirmed, 0);
        let facts = Facts {
            flow: Some(&flow),
            ..facts(packet)
        };
        let decision = policy.forward(0, &facts);
        (policy.rule_name(decision.rule).to_owned(), flow.counted())
    };
    let (web, other) = (udp(1, 2), udp(1, 3));
    // every limit that was come by counts; the rate comes first
    let (rule, first) = run(&web, false);
    assert_eq!((rule.as_str(), first.len()), ("twice/slow", 2));
    let (rule, second) = run(&web, false);
    assert_eq!((rule.as_str(), second.len()), ("forward/policy", 2));
    // over the limit of `few`, and counted all the same, as nftables does
    let (rule, third) = run(&web, false);
    assert_eq!((rule.as_str(), third.len()), ("forward/policy", 2));
    assert_eq!(tally.total(), 6);
    let (rule, fourth) = run(&other, false);
    assert_eq!((rule.as_str(), fourth.len()), ("forward/policy", 1));
    let (rule, fifth) = run(&other, false);
    assert_eq!((rule.as_str(), fifth.len()), ("forward/many", 1));
    // who goes back makes room
    fifth.iter().for_each(|key| tally.remove(*key));
    let (rule, sixth) = run(&other, false);
    assert_eq!(
        (rule.as_str(), sixth.len()),
        ("forward/many", 1),
        "web counts there as well"
    );
    sixth.iter().for_each(|key| tally.remove(*key));
    third.iter().for_each(|key| tally.remove(*key));
    // known flows are not counted again, and see the count
    for _ in 0..9 {
        let (rule, none) = run(&other, true);
        assert_eq!((rule.as_str(), none.len()), ("forward/policy", 0));
    }
    for key in first.iter().chain(&second).chain(&fourth) {
        tally.remove(*key);
    }
    assert_eq!(tally.total(), 0);
}

#[test]
fn a_connlimit_that_is_come_by_twice_counts_once() {
    let policy = policy(
        "chains:
  forward: { rules: [{ jump: a }, { jump: a }, { action: accept }] }
  a: { rules: [{ name: one, connlimit: 1, action: return }, { action: drop }] }
",
    );
    let (tally, packet) = (tally(), udp(1, 2));
    let flow = flow(&tally, 0, false, 0);
    let facts = Facts {
        flow: Some(&flow),
        ..facts(&packet)
    };
    assert_eq!(policy.forward(0, &facts).verdict, Verdict::Accept);
    assert_eq!((flow.counted().len(), tally.total()), (1, 1));
}

#[test]
fn where_nothing_can_be_counted_there_are_too_many() {
    let (tally, packet) = (Tally::new(1, HashKey::from_seed(1)).unwrap(), udp(1, 2));
    (0..16).for_each(|n| assert!(tally.add(tally.key([n; 5])).is_some()));
    for (matches, expected) in [("connlimit: 20", false), ("connlimit: over 20", true)] {
        let flow = flow(&tally, 0, false, 0);
        let facts = Facts {
            flow: Some(&flow),
            ..facts(&packet)
        };
        assert_eq!(hit(matches, &facts), expected);
        assert!(flow.counted().is_empty());
    }
}

#[test]
fn counts_survive_a_reload_that_leaves_the_rule_unchanged() {
    let head = "chains:
  forward:
    rules:
      - { name: same, proto: udp, dport: 1, action: accept }
";
    let first = policy(&format!(
        "{head}      - {{ name: other, proto: udp, dport: 2, action: accept }}
      - {{ name: slow, proto: udp, dport: 3, limit: 1/day burst 2, action: accept }}
"
    ));
    for (dport, times) in [(1, 5), (2, 3), (3, 2), (4, 1)] {
        for _ in 0..times {
            first.forward(1, &facts(&udp(1, dport)));
        }
    }
    // one rule is new, one is commented and moved, one has another action
    let mut second = policy(
        "chains:
  forward:
    rules:
      - { name: new, proto: udp, dport: 9, action: accept }
      - { name: slow, proto: udp, limit: 1/day burst 2, dport: 3, action: accept, comment: slow }
      - { name: other, proto: udp, dport: 2, action: drop }
      - name: same
        proto: udp
        dport: 1
        action: accept
",
    );
    second.follow(&first).unwrap();
    second.carry_from(&first);
    let carried = [count("forward/slow", 2, 120), count("forward/same", 5, 300)];
    let policy_count = count("forward/policy", 1, 60);
    assert_eq!(counts(&second), [&carried[..], &[policy_count]].concat());
    assert_eq!(second.forward(0, &facts(&udp(1, 3))).verdict, Verdict::Drop);
    second.forward(0, &facts(&udp(1, 1)));

    let third = policy(&format!("{head}      - {{ action: reject }}\n"));
    third.carry_from(&second);
    third.forward(0, &facts(&udp(1, 1)));
    assert_eq!(counts(&third)[0], count("forward/same", 7, 420));
}

#[test]
fn bridges_say_where_frames_go() {
    let policy = build(
        "version: 1
ports: { a: { device: d0 }, b: { device: d1 }, c: { device: d2 }, d: { device: d3 }, e: { device: d4 } }
bridge: [[a, c], { ports: [d, b], ethertypes: [lldp, arp, stp, 0x9000] }]
chains: { forward: { policy: accept } }
",
    );
    let peers: Vec<_> = (0..6)
        .map(|port| policy.peer(PortId(port)).map(|peer| peer.0))
        .collect();
    assert_eq!(peers, [Some(2), Some(3), Some(0), Some(1), None, None]);
    for (port, ethertype, allowed) in [
        (0, 0x0806, true),
        (0, 0x88cc, false),
        (2, 0x0806, true),
        (1, 0x88cc, true),
        (3, 0x9000, true),
        (3, 0x0026, true),
        (0, 0x0026, false),
        (4, 0x0806, false),
        (255, 0x0806, false),
    ] {
        assert_eq!(
            policy.ethertype_allowed(PortId(port), ethertype),
            allowed,
            "{port} {ethertype}"
        );
    }
    assert_eq!(policy.port_names(), ["a", "b", "c", "d", "e"]);
}

#[test]
fn bridges_say_which_zone_their_flows_are_in() {
    let policy = build(
        "version: 1
ports: { a: { device: d0 }, b: { device: d1 }, c: { device: d2 }, d: { device: d3 }, e: { device: d4 }, f: { device: d5 } }
bridge: [[a, b], { ports: [c, d], zone: 0xffff }, { ports: [e, f], zone: vlan }]
chains: { forward: { policy: accept } }
",
    );
    for (port, vlan, zone) in [
        (0, NO_VLAN, 0),
        (1, 42, 0),
        (2, NO_VLAN, 65535),
        (3, 42, 65535),
        (4, NO_VLAN, 0),
        (4, 42, 42),
        (5, 4094, 4094),
        (6, 42, 0),
        (255, 42, 0),
    ] {
        assert_eq!(policy.zone(PortId(port), vlan), zone, "{port} {vlan}");
    }
}

#[test]
fn the_sample_decides_as_its_comments_say() {
    let policy = build(include_str!("../../../tests/policies/sample.yaml"));
    let server = Addrs::V4 {
        src: 0x0800_0001,
        dst: 0x0a02_0007,
    };
    let header = TcpHeader {
        sport: 1025,
        dport: 443,
        seq: 1,
        ack: 0,
        window: 1,
        flags: SYN,
        header_len: 20,
    };
    let web = Parsed {
        addrs: server,
        l4: L4::Tcp(header),
        ..tcp(SYN)
    };
    let inward = Facts {
        iif: WAN,
        oif: LAN,
        ..facts(&web)
    };
    let name = |facts: &Facts<'_>| policy.rule_name(policy.forward(0, facts).rule).to_owned();
    assert_eq!(name(&inward), "inbound/web");
    assert_eq!(
        name(&Facts {
            state: CtState::Established,
            ..inward
        }),
        "forward/known"
    );
    assert_eq!(
        name(&Facts {
            state: CtState::Invalid,
            ..inward
        }),
        "forward/broken"
    );
    assert_eq!(name(&facts(&tcp(ACK))), "forward/not-syn");
    assert_eq!(name(&facts(&tcp(SYN))), "forward/outbound");
    let attempt = tcp(SYN);
    let ssh = Facts {
        iif: WAN,
        oif: LAN,
        ..facts(&attempt)
    };
    let decision = policy.forward(0, &ssh);
    assert_eq!(decision.verdict, Verdict::Reject(RejectWith::TcpReset));
    assert_eq!(prefix(&policy, decision.log.unwrap()), Some("ssh"));
    for _ in 0..9 {
        policy.forward(0, &ssh);
    }
    assert_eq!(name(&ssh), "forward/policy");
    assert_eq!(policy.peer(LAN), Some(WAN));
}

#[test]
fn what_needs_a_restart_is_said() {
    let sample = include_str!("../../../tests/policies/sample.yaml");
    let model = |text: &str| {
        parse_with("test.yaml", text, &KNOWN, &|_| Err(String::new()))
            .unwrap()
            .model
    };
    let old = model(sample);
    assert_eq!(
        restart_needed(
            &old,
            &model(&sample.replace("policy: drop", "policy: accept"))
        ),
        [""; 0]
    );
    let new = sample
        .replace("workers: 2", "cores: [2, 4]")
        .replace("queues: 4", "queues: 2")
        .replace("127.0.0.1:9477", "127.0.0.1:9478\n  status-page: on")
        .replace("max: 262144", "expect_max: 9");
    assert_eq!(
        restart_needed(&old, &model(&new)),
        [
            "ports.wan.queues: 4 became 2",
            "system.workers: 2 workers became cores 2, 4",
            "system.metrics: 127.0.0.1:9477 became 127.0.0.1:9478",
            "system.status-page: auto became on",
            "conntrack.expect_max: 65536 became 9",
        ]
    );
    let more = sample.replace("bridge:", "  dmz: { device: net_tap5 }\nbridge:");
    assert_eq!(
        restart_needed(&old, &model(&more)),
        ["ports: lan, wan became lan, wan, dmz"]
    );
}

#[test]
fn compiled_policies_are_shared_between_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    shared(&policy("chains: { forward: {} }\n"));
    assert_eq!((size_of::<Op>(), size_of::<Pred>()), (64, 16));
}

proptest! {
    #[test]
    fn sets_of_a_policy_mean_what_they_list(
        items in prop::collection::vec((any::<u32>(), 20u32..=32), 1..20),
        probe in any::<u32>(),
        near in any::<prop::sample::Index>(),
        step in 0u32..5000,
    ) {
        let items: Vec<_> = items.iter().map(|(a, len)| (a >> (32 - len) << (32 - len), *len)).collect();
        let listed: Vec<_> = items
            .iter()
            .map(|(addr, len)| format!("{}/{len}", std::net::Ipv4Addr::from_bits(*addr)))
            .collect();
        let text = format!(
            "version: 1\nports: {{ a: {{ device: x }} }}\nsets: {{ s: [{}] }}\nchains: {{ forward: \
             {{ rules: [{{ saddr: $s, action: accept }}, {{ saddr: \"!$s\", action: reject }}] }} }}\n",
            listed.join(", ")
        );
        let policy = build(&text);
        for src in [probe, near.get(&items).0.wrapping_add(step), near.get(&items).0.wrapping_sub(step)] {
            let packet = Parsed { addrs: Addrs::V4 { src, dst: 0 }, ..udp(1, 2) };
            let naive = items.iter().any(|(addr, len)| src >> (32 - len) == addr >> (32 - len));
            let verdict = policy.forward(0, &facts(&packet)).verdict;
            let expected = match naive {
                true => Verdict::Accept,
                false => Verdict::Reject(RejectWith::IcmpPortUnreachable),
            };
            prop_assert_eq!(verdict, expected);
        }
    }
}
