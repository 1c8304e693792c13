//! Fates against what packets really meet: by hand, and of random policies and first packets.

use super::*;
use crate::base::hash::HashKey;
use crate::base::tally::Tally;
use crate::policy::random::{self, Dice, Scene};
use crate::policy::{Verdict, compile, parse};

fn build(text: &str) -> Compiled {
    let checked = parse("test.yaml", text).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    compile(&checked.model, 1, 1)
}

fn with_rules(rules: &str) -> Compiled {
    build(&format!(
        "version: 1
ports: {{ lan: {{ device: a }}, wan: {{ device: b }}, dmz: {{ device: c }} }}
bridge: [[lan, wan]]
{rules}"
    ))
}

fn udp(dport: u16) -> Prospect {
    Prospect {
        tuple: Tuple {
            addrs: Addrs::V4 { src: 1, dst: 2 },
            proto: proto::UDP,
            ports: Ports::Ports { sport: 9, dport },
            zone: 0,
        },
        iif: Some(PortId(0)),
        expected_by: None,
        mark: 0,
    }
}

/// The fate in words, and the rule.
fn told(policy: &Compiled, prospect: &Prospect) -> String {
    match policy.fate(prospect) {
        Fate::Stays(rule) => format!("stays {}", policy.rule_name(rule)),
        Fate::Ends(rule) => format!("ends {}", policy.rule_name(rule)),
        Fate::Unsure(rule) => format!("unsure {}", policy.rule_name(rule)),
    }
}

#[test]
fn what_is_known_decides() {
    let policy = with_rules(
        "chains:
  forward:
    rules:
      - { name: known, ct: established, action: drop }
      - { name: a, proto: udp, dport: 1, ct: new, ct-direction: original, action: accept }
      - { name: b, proto: udp, dport: 2, ct-status: \"!confirmed\", jump: c }
      - { name: d, proto: udp, dport: 3, ct-mark: 5, action: accept }
      - { name: e, proto: udp, dport: 4, mark: 7 }
      - { name: f, ct-mark: 7, action: { reject: admin-prohibited } }
      - { name: g, ct: related, ct-helper: ftp, ct-status: expected, action: accept }
  c:
    rules:
      - { name: back, ct-status: seen-reply, action: accept }
      - { name: in, iif: lan, oif: wan, ct-zone: 0, action: accept }
",
    );
    assert_eq!(told(&policy, &udp(1)), "stays forward/a");
    assert_eq!(told(&policy, &udp(2)), "stays c/in");
    assert_eq!(told(&policy, &udp(3)), "ends forward/policy");
    assert_eq!(
        told(&policy, &Prospect { mark: 5, ..udp(3) }),
        "stays forward/d"
    );
    assert_eq!(told(&policy, &udp(4)), "ends forward/f");
    let ftp = HelperId::new(0);
    let expected = Prospect {
        expected_by: ftp,
        ..udp(1)
    };
    let is_ftp = crate::helpers::INFOS[0].name == "ftp";
    assert!(is_ftp);
    assert_eq!(told(&policy, &expected), "stays forward/g");
    // a port in no bridge drops everything
    let nowhere = Prospect {
        iif: Some(PortId(2)),
        ..udp(1)
    };
    assert_eq!(told(&policy, &nowhere), "ends forward/policy");
    // by `wan` it is still accepted at a, and not at c/in
    let anywhere = |dport| Prospect {
        iif: None,
        ..udp(dport)
    };
    assert_eq!(told(&policy, &anywhere(1)), "stays forward/a");
    assert_eq!(told(&policy, &anywhere(2)), "unsure forward/policy");
    // no packet that comes in there is of that zone
    let mut other = udp(1);
    other.tuple.zone = 5;
    assert_eq!(told(&policy, &other), "unsure forward/policy");
}

#[test]
fn what_is_not_known_is_followed_both_ways() {
    let policy = with_rules(
        "raw: [{ name: big, proto: udp, dport: 9, length: 1000-65535, action: notrack }]
chains:
  forward:
    rules:
      - { name: note, limit: 1/second, log: true }
      - { name: few, proto: udp, dport: 1, limit: 5/second, action: accept }
      - { name: many, proto: udp, dport: 1, action: drop }
      - { name: fast, proto: udp, dport: 2, dscp: ef, action: accept }
      - { name: slow, proto: udp, dport: 2, action: accept }
      - { name: try, proto: udp, dport: 3, connlimit: over 5, action: reject }
      - { name: side, proto: udp, dport: [4, 9], length: 100, jump: c }
      - { name: rest, proto: udp, dport: 4, action: accept }
      - { name: raw, ct: untracked, action: accept }
      - { name: tag, proto: udp, dport: 6, length: 100, mark: 7 }
      - { name: tagged, ct-mark: 7, action: accept }
  c:
    rules:
      - { name: one, fragment: true, action: return }
      - { name: two, proto: udp, dport: 4, action: accept }
",
    );
    for (dport, expected) in [
        (1, "unsure forward/few"),
        (2, "stays forward/fast"),
        (3, "ends forward/try"),
        (4, "stays forward/rest"),
        (5, "ends forward/policy"),
        (6, "unsure forward/tag"),
        (9, "unsure raw/big"),
    ] {
        let found = told(&policy, &udp(dport));
        let class = |text: &str| text.split(' ').next().map(str::to_owned);
        if expected.starts_with("unsure") {
            assert_eq!(found, expected, "{dport}");
        } else {
            assert_eq!(class(&found), class(expected), "{dport}: {found}");
        }
    }
}

#[test]
fn more_ways_than_can_be_followed_are_unsure() {
    let rules = |number: usize| {
        let rule = |at| {
            format!(
                "      - {{ name: r{at}, length: 100-{}, action: drop }}\n",
                200 + at
            )
        };
        let rules: String = (0..number).map(rule).collect();
        with_rules(&format!("chains:\n  forward:\n    rules:\n{rules}"))
    };
    assert!(matches!(rules(MAX_FORKS).fate(&udp(1)), Fate::Ends(_)));
    let unsure = rules(MAX_FORKS + 1);
    assert_eq!(told(&unsure, &udp(1)), "unsure forward/r0");
}

#[test]
fn more_tests_than_one_flow_is_worth_are_unsure() {
    // sixty-four ways, on each of which every mark is asked for
    let rules = |marks: u32| {
        let bits = (0..6).map(|bit| (200 + bit, 1 << bit));
        let ways = bits.map(|(most, bit)| format!("length: 100-{most}, mark: \"{bit}/{bit}\""));
        let asked = (100..100 + marks).map(|mark| format!("ct-mark: {mark}, action: drop"));
        let rules: String = ways
            .chain(asked)
            .map(|rule| format!("      - {{ {rule} }}\n"))
            .collect();
        with_rules(&format!("chains:\n  forward:\n    rules:\n{rules}"))
    };
    let (fate, cost) = rules(1000).fate_and_cost(&udp(1));
    assert!(matches!(fate, Fate::Ends(_)), "{fate:?}");
    assert!((64_000..66_000).contains(&cost), "{cost}");
    let (fate, cost) = rules(9000).fate_and_cost(&udp(1));
    assert_eq!((fate, cost), (Fate::Unsure(RuleId(0)), MAX_TESTS));
}

#[test]
fn a_syn_has_syn_and_none_of_ack_rst_fin() {
    let policy = with_rules(
        "chains:
  forward:
    rules:
      - { name: stray, proto: tcp, tcp-flags: \"!syn\", action: drop }
      - { name: ecn, proto: tcp, dport: 7, tcp-flags: \"syn,ecn/syn,ecn\", action: drop }
      - { name: xmas, tcp-flags: \"fin,psh,urg/fin,psh,urg\", action: drop }
      - { name: odd, dport: 8, proto: tcp, tcp-flags: [\"syn,psh/syn,psh\", \"syn,urg/none\"], action: drop }
      - { name: both, dport: 9, proto: tcp, tcp-flags: [\"psh/psh\", \"ack,psh/none\"], action: drop }
      - { name: web, proto: tcp, action: accept }
",
    );
    let tcp = |dport| {
        let mut prospect = udp(dport);
        prospect.tuple.proto = proto::TCP;
        prospect
    };
    assert_eq!(told(&policy, &tcp(1)), "stays forward/web");
    assert_eq!(told(&policy, &tcp(7)), "unsure forward/ecn");
    assert_eq!(told(&policy, &tcp(8)), "unsure forward/odd");
    // whichever of them it has, one of the list holds
    assert_eq!(told(&policy, &tcp(9)), "ends forward/both");
}

/// Over random policies and packets: what the chains decide is never what fate rules out.
#[test]
fn no_packet_meets_what_fate_rules_out() {
    let (mut sure, mut unsure) = (0u32, 0u32);
    for seed in 0..400 {
        let mut dice = Dice::new(seed);
        let text = random::policy(&mut dice, true);
        let policy = build(&text);
        let tally = Tally::new(1000, HashKey::from_seed(seed)).unwrap();
        for _ in 0..250 {
            let started = Scene::first(&mut dice, &policy);
            let flow = started.flow.unwrap();
            let prospect = Prospect {
                tuple: Tuple::of(&started.packet, flow.zone).unwrap(),
                iif: (!dice.one_in(4)).then_some(started.iif),
                expected_by: flow.helper,
                mark: flow.mark,
            };
            let scene = started.after_raw(&policy);
            let flow = scene.flow_facts(&tally);
            let verdict = policy.forward(0, &scene.facts(flow.as_ref())).verdict;
            let fate = policy.fate(&prospect);
            let ruled_out = match fate {
                Fate::Stays(_) => verdict != Verdict::Accept,
                Fate::Ends(_) => verdict == Verdict::Accept,
                Fate::Unsure(_) => false,
            };
            assert!(
                !ruled_out,
                "seed {seed}: {fate:?}, {verdict:?}\n{scene:?}\n{text}"
            );
            match fate {
                Fate::Unsure(_) => unsure += 1,
                _ => sure += 1,
            }
        }
    }
    assert!(sure > 50_000, "{sure} sure, {unsure} unsure");
    assert!(unsure > 5_000, "{sure} sure, {unsure} unsure");
}
