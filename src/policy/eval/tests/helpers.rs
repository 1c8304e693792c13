//! Helper lines; and `ct-helper`, `ct-zone` and `ct-status: expected`.

use super::*;
use crate::conntrack::helper::HelperId;

const LINES: &str = "helpers:
  - { name: inner, helper: ftp, dport: 21, iif: lan, loose: true }
  - { helper: tftp, dport: 69, daddr: $servers, low-ports: true }
  - { helper: irc, dport: 21 }
  - { helper: sip, dport: [21, 69], limit: 1/day burst 1 }
chains: { forward: { policy: accept } }
";

#[test]
fn the_first_line_that_fits_attaches_its_helper() {
    let policy = policy(LINES);
    let attached = |packet: &Parsed, iif| {
        let facts = Facts {
            iif,
            ..facts(packet)
        };
        let found = policy.helper(1, &facts);
        found.map(|(id, permissions)| {
            let word = |is, word: &'static str| if is { word } else { "" };
            let Permissions { loose, low_ports } = permissions;
            let name = KNOWN[id.index()].name;
            format!("{name}{}{}", word(loose, "+loose"), word(low_ports, "+low"))
        })
    };
    let ftp = |base: Parsed| {
        let L4::Tcp(header) = tcp(SYN).l4 else {
            unreachable!()
        };
        let header = TcpHeader {
            dport: 21,
            ..header
        };
        Parsed {
            l4: L4::Tcp(header),
            ..base
        }
    };
    let v4 = ftp(tcp(SYN));
    let v6 = ftp(ip6(proto::TCP, v4.l4));
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(attached(&v4, LAN), some("ftp+loose"));
    assert_eq!(attached(&v6, LAN), some("ftp+loose"));
    assert_eq!(attached(&v4, WAN), some("irc"));
    // `irc` does not listen to IPv6, and the limit is for one
    assert_eq!(attached(&v6, WAN), some("sip"));
    assert_eq!(attached(&v6, WAN), None);
    assert_eq!(attached(&udp(1, 69), WAN), some("tftp+low"));
    assert_eq!(attached(&udp(1, 68), WAN), None);
    assert_eq!(attached(&udp(1, 21), LAN), None);
    assert_eq!(attached(&tcp(SYN), LAN), None);
    assert_eq!(
        counts(&policy),
        [
            count("helpers/inner", 2, 120),
            count("helpers/2", 1, 60),
            count("helpers/3", 1, 60),
            count("helpers/4", 1, 60),
        ]
    );
    let lines: Vec<_> = policy
        .rules()
        .filter(|rule| rule.chain == "helpers")
        .map(|rule| (rule.name, rule.action))
        .collect();
    assert_eq!(
        lines,
        [
            ("inner", "helper ftp, loose"),
            ("2", "helper tftp, low-ports"),
            ("3", "helper irc"),
            ("4", "helper sip"),
        ]
    );

    // lines and raw rules do not run into each other
    assert_eq!(policy.raw(0, &facts(&v4)), RawVerdict::Track);
    let decision = policy.forward(0, &facts(&v4));
    assert_eq!(policy.rule_name(decision.rule), "forward/policy");

    // a reload keeps what unchanged lines counted
    let new = self::policy(&LINES.replace("daddr: $servers", "daddr: $four"));
    new.carry_from(&policy);
    let counted: Vec<_> = new
        .rules()
        .filter(|rule| rule.chain == "helpers")
        .map(|rule| rule.packets)
        .collect();
    assert_eq!(counted, [2, 0, 1, 1]);
}

#[test]
fn without_lines_nothing_is_attached() {
    let policy = policy("raw: [{ action: notrack }]\nchains: { forward: {} }\n");
    assert!(!policy.has_helpers());
    assert_eq!(policy.helper(0, &facts(&tcp(SYN))), None);
    assert_eq!(counts(&policy), []);
}

#[test]
fn the_helper_of_the_flow() {
    let (packet, tally) = (udp(1, 2), tally());
    for (matches, nobody, ftp, sip) in [
        ("ct-helper: ftp", false, true, false),
        ("ct-helper: [sip, ftp]", false, true, true),
        ("ct-helper: tftp", false, false, false),
        ("ct-helper: \"!ftp\"", true, false, true),
    ] {
        for (helper, expected) in [(None, nobody), (Some(0), ftp), (Some(3), sip)] {
            let flow = FlowFacts::new(FlowView {
                helper: helper.and_then(HelperId::new),
                ..view(&tally, 0, true, 0)
            });
            let facts = Facts {
                flow: Some(&flow),
                ..facts(&packet)
            };
            assert_eq!(hit(matches, &facts), expected, "{matches} {helper:?}");
        }
        assert!(!hit(matches, &facts(&packet)), "{matches} without a flow");
    }
    let asks = |matches: &str| {
        let rule = format!("{{ {matches}, action: accept }}");
        policy(&format!("chains: {{ forward: {{ rules: [{rule}] }} }}\n")).asks_of_flows()
    };
    assert!(asks("ct-helper: ftp") && asks("ct-status: expected"));
    assert!(!asks("ct-zone: 1"));
}

#[test]
fn the_zone_of_the_packet() {
    let policy = build(
        "version: 1
ports: { a: { device: a }, b: { device: b }, c: { device: c }, d: { device: d } }
bridge: [{ ports: [a, b], zone: 7 }, { ports: [c, d], zone: vlan }]
raw: [{ ct-zone: 9, action: notrack }]
helpers: [{ helper: tftp, dport: 69, ct-zone: 7 }]
chains: { forward: { rules: [{ ct-zone: [7, 20-29], action: accept },
  { name: other, ct-zone: \"!0\", action: drop }] } }
",
    );
    assert!(!policy.asks_of_flows());
    for (port, vlan, raw, helper, rule) in [
        (0, NO_VLAN, RawVerdict::Track, true, "forward/1"),
        (1, 9, RawVerdict::Track, true, "forward/1"),
        (2, 9, RawVerdict::Notrack, false, "forward/other"),
        (3, 7, RawVerdict::Track, true, "forward/1"),
        (3, 25, RawVerdict::Track, false, "forward/1"),
        (3, NO_VLAN, RawVerdict::Track, false, "forward/policy"),
    ] {
        let packet = Parsed { vlan, ..udp(1, 69) };
        let facts = Facts {
            iif: PortId(port),
            ..facts(&packet)
        };
        assert_eq!(policy.raw(0, &facts), raw, "{port} {vlan}");
        assert_eq!(policy.helper(0, &facts).is_some(), helper, "{port} {vlan}");
        let decision = policy.forward(0, &facts);
        assert_eq!(policy.rule_name(decision.rule), rule, "{port} {vlan}");
    }
}
