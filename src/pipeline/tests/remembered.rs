//! Remembered verdicts against none: the same frames through two paths, of which one reads every
//! rule for every packet, and the same outcomes, marks and counts wanted of both.

use super::*;
use crate::policy::RuleInfo;
use crate::policy::random::Dice;
use std::fmt::Write;

/// What is drawn by lot.
struct Random(Dice);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0.below(end)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        self.0.pick(from)
    }

    fn rule(&mut self, chains: &[&str]) -> String {
        const MATCHES: [&str; 26] = [
            "saddr: 10.0.0.1",
            "saddr: \"!10.0.0.2\"",
            "daddr: 10.0.1.0/24",
            "daddr: [10.0.0.1, 10.0.1.2]",
            "proto: udp, dport: 1-2",
            "proto: tcp, sport: 1",
            "proto: [udp, tcp], dport: [2, 3]",
            "proto: icmp",
            "iif: lan",
            "oif: lan",
            "ct: established",
            "ct: new",
            "ct: [related, invalid]",
            "ct-direction: reply",
            "ct-direction: original",
            "ct-mark: 1",
            "ct-mark: \"!1\"",
            "family: ipv4",
            "ct-status: assured",
            "ct-status: \"!seen-reply\"",
            "length: 0-40",
            "proto: tcp, tcp-flags: \"!syn\"",
            "vlan: 7",
            "limit: \"1/second\"",
            "dscp: cs0, proto: udp",
            "connlimit: \"3 per source\"",
        ];
        let mut rule = String::from("{ ");
        // the last ones read the packet itself, or change with the flow
        let some = self.pick(&[17, 17, 17, MATCHES.len() as u64]);
        let first = self.below(some) as usize;
        let _ = write!(rule, "{}, ", MATCHES[first]);
        let second = MATCHES[self.below(some) as usize];
        let key = |text: &str| text.split(':').next().map(str::to_owned);
        if self.below(2) == 0
            && key(second) != key(MATCHES[first])
            && !(second.contains("proto") && MATCHES[first].contains("proto"))
        {
            let _ = write!(rule, "{second}, ");
        }
        let what = match self.below(12) {
            0..3 if !chains.is_empty() => format!("jump: {}", self.pick(chains)),
            3 if !chains.is_empty() => format!("goto: {}", self.pick(chains)),
            0..5 => "log: true".into(),
            5..7 => format!("mark: {}", self.below(3)),
            7 => "action: return".into(),
            8 => "action: drop".into(),
            9 => "action: reject".into(),
            _ => "action: accept".into(),
        };
        rule + &what + " }"
    }

    fn policy(&mut self) -> String {
        let mut text = String::from(
            "version: 1\nports: { lan: { device: a }, wan: { device: b } }\nbridge: [[lan, wan]]\n\
             chains:\n  forward:\n    policy: accept\n    rules:\n",
        );
        // at most eight counts of flows can be
        let mut counts = 0;
        let mut rules = |random: &mut Self, text: &mut String, many, chains: &[&str]| {
            for _ in 0..many {
                let mut rule = random.rule(chains);
                counts += usize::from(rule.contains("connlimit"));
                if counts > 8 && rule.contains("connlimit") {
                    rule = "{ proto: icmp, action: accept }".into();
                }
                let _ = writeln!(text, "      - {rule}");
            }
        };
        let many = 20 + self.below(30);
        // what is nobody's, so that the classifier is asked
        for n in 0..5 {
            let _ = writeln!(text, "      - {{ saddr: 172.16.0.{n}, action: drop }}");
        }
        rules(self, &mut text, many, &["one", "two"]);
        text.push_str("  one:\n    rules:\n");
        rules(self, &mut text, 8, &["two"]);
        text.push_str("  two:\n    rules:\n");
        rules(self, &mut text, 8, &[]);
        text
    }

    /// A frame of one of few flows, and where it comes in: mostly where it should.
    fn frame(&mut self) -> (PortId, Vec<u8>) {
        let (client, server) = (1 + self.below(2) as u32, 1 + self.below(2) as u32);
        let addrs = Addrs::V4 {
            src: 0x0a00_0000 | client,
            dst: 0x0a00_0100 | server,
        };
        let back = self.below(2) == 1;
        let (mut sport, mut dport) = (1 + self.below(2) as u16, 1 + self.below(3) as u16);
        let addrs = if back { addrs.flip() } else { addrs };
        if back {
            std::mem::swap(&mut sport, &mut dport);
        }
        let astray = self.below(20) == 0;
        let iif = if back != astray { WAN } else { LAN };
        let frame = match self.below(12) {
            0..5 => udp(addrs, sport, dport),
            5 => tagged(7, addrs, sport, dport),
            6 => tcp(addrs, sport, dport, SYN, 100, 0),
            7 => tcp(addrs, sport, dport, SYN | ACK, 100, 101),
            8..10 => tcp(addrs, sport, dport, ACK, 101, 101),
            10 => tcp(addrs, sport, dport, self.pick(&[RST, FIN | ACK]), 101, 101),
            // about what the other side sent
            _ => {
                let quoted = udp(addrs.flip(), dport, sport);
                let segment = Segment::Icmp {
                    ty: 3,
                    code: 3,
                    rest: 0,
                };
                frame(addrs, segment, &quoted[14..])
            }
        };
        (iif, frame)
    }
}

fn counts(policy: &Compiled) -> Vec<(String, u64, u64)> {
    let count = |rule: RuleInfo<'_>| (rule.name.to_owned(), rule.packets, rule.bytes);
    policy.rules().map(count).collect()
}

impl Path {
    /// The rule that decided about `frame`, and whether the flow remembered that.
    fn remembered(&mut self, iif: PortId, frame: &[u8]) -> (String, bool) {
        let before = self.pipeline.spared();
        let rule = self.rule(iif, frame).to_owned();
        (rule, self.pipeline.spared() > before)
    }
}

#[test]
fn what_flows_remember_changes_no_verdict_and_no_count() {
    let mut spared = 0;
    for seed in 0..60 {
        let mut random = Random(Dice::new(seed * 1_000_003));
        let mut text = random.policy();
        let (mut one, mut other) = (Path::new(&text), Path::new(&text));
        other.policy = policy(&text).without_classifier();
        for n in 0..1200 {
            if n % 400 == 399 {
                text = random.policy();
                one.reload(&text);
                other.reload(&text);
                let plain = std::mem::replace(&mut other.policy, policy(&text));
                other.policy = plain.without_classifier();
            }
            let (iif, frame) = random.frame();
            let (a, b) = (one.send(iif, &frame), other.send(iif, &frame));
            assert_eq!(a, b, "seed {seed}, packet {n}\n{text}");
            if n % 10 == 0 {
                one.now = Now::from_nanos(one.now.nanos() + 300_000_000);
                other.now = one.now;
            }
        }
        spared += one.pipeline.spared();
        assert_eq!(other.pipeline.spared(), 0);
        assert_eq!(counts(&one.policy), counts(&other.policy), "seed {seed}");
        assert_eq!(one.flows(), other.flows(), "seed {seed}");
    }
    // of 72,000; else this test would show nothing
    assert!(spared > 10_000, "{spared}");
}

/// Thirty rules that are nobody's, then `rules`.
fn long(rules: &str) -> String {
    let mut all = String::new();
    for n in 0..30 {
        let _ = writeln!(all, "      - {{ saddr: 172.16.0.{n}, action: drop }}");
    }
    super::rules(&(all + rules))
}

#[test]
fn a_reload_forgets() {
    let text = |name| {
        long(&format!(
            "      - {{ name: {name}, proto: udp, action: accept }}\n"
        ))
    };
    let mut path = Path::new(&text("it"));
    let (there, back) = (udp(TALK, 1, 2), udp(TALK.flip(), 2, 1));
    let said = |name: &str, known| (format!("forward/{name}"), known);
    // what starts a flow is not remembered, and what follows in another state is another thing
    assert_eq!(path.remembered(LAN, &there), said("it", false));
    assert_eq!(path.remembered(LAN, &there), said("it", false));
    assert_eq!(path.remembered(LAN, &there), said("it", true));
    assert_eq!(path.remembered(WAN, &back), said("it", false));
    assert_eq!(path.remembered(WAN, &back), said("it", true));
    assert_eq!(path.remembered(LAN, &there), said("it", false));
    assert_eq!(path.remembered(LAN, &there), said("it", true));
    // nor by another port
    assert_eq!(path.remembered(WAN, &there), said("it", false));
    path.reload(&text("other"));
    for (iif, frame) in [(LAN, &there), (WAN, &back)] {
        assert_eq!(path.remembered(iif, frame), said("other", false));
        assert_eq!(path.remembered(iif, frame), said("other", true));
    }
    let rule = path.policy.rules().find(|rule| rule.name == "other");
    assert_eq!(rule.map(|rule| rule.packets), Some(4));
}

#[test]
fn epochs_may_wrap() {
    let text = |name| {
        long(&format!(
            "      - {{ name: {name}, proto: udp, action: accept }}\n"
        ))
    };
    let mut path = Path::new(&text("it"));
    let there = udp(TALK, 1, 2);
    for known in [false, false, true] {
        assert_eq!(path.remembered(LAN, &there).1, known);
    }
    let policies = [policy(&text("it")), policy(&text("other"))];
    // to the very number that the flow carries
    for n in 0..0xffff {
        path.pipeline.begin_policy(&policies[n % 2]);
    }
    path.policy = policies.into_iter().nth(1).unwrap();
    assert_eq!(
        path.remembered(LAN, &there),
        ("forward/other".into(), false)
    );
    assert_eq!(path.remembered(LAN, &there), ("forward/other".into(), true));
}

#[test]
fn a_way_that_is_too_long_is_not_remembered() {
    let way = |steps| "      - { log: true }\n".repeat(steps) + "      - { action: accept }\n";
    for (steps, known) in [(11, true), (12, false)] {
        let mut path = Path::new(&long(&way(steps)));
        for _ in 0..2 {
            assert!(!path.remembered(LAN, &udp(TALK, 1, 2)).1);
        }
        assert_eq!(path.remembered(LAN, &udp(TALK, 1, 2)).1, known);
    }
}

#[test]
fn a_rematch_ends_flows_at_their_next_packets() {
    let text = |rules: &str| {
        super::rules(&format!(
            "      - {{ ct: established, action: accept }}\n{rules}"
        ))
    };
    let old = text("      - { proto: udp, dport: 2-9, action: accept }");
    let new = text(
        "      - { name: two, proto: udp, dport: 2, action: drop }
      - { name: three, proto: udp, dport: 3, limit: \"1/second\", action: drop }
      - { proto: udp, dport: 3-9, action: accept }",
    );
    let mut path = Path::new(&old);
    let begin = |path: &mut Path| {
        for port in 2..5 {
            assert!(
                path.passes(LAN, &udp(TALK, 1, port))
                    && path.passes(WAN, &udp(TALK.flip(), port, 1))
            );
        }
    };
    begin(&mut path);
    // kept, they are established, and a rule lets that pass
    path.reload(&new);
    begin(&mut path);
    assert_eq!(path.flows().len(), 3);

    path.policy = policy(&new).rematching();
    let (there, back) = (udp(TALK, 1, 2), udp(TALK.flip(), 2, 1));
    assert_eq!(path.flows().len(), 3);
    assert_eq!(path.rule(WAN, &back), "forward/two");
    assert_eq!(path.flows().len(), 2);
    let two = path.policy.rules().find(|rule| rule.name == "two");
    assert_eq!(two.map(|rule| rule.packets), Some(1));
    assert!(!path.passes(LAN, &there) && !path.passes(WAN, &udp(TALK.flip(), 2, 1)));
    // what hangs on more than the flow is not ended, and what is judged once is not judged twice
    for _ in 0..2 {
        assert!(path.passes(WAN, &udp(TALK.flip(), 3, 1)) && path.passes(LAN, &udp(TALK, 1, 4)));
    }
    assert_eq!(path.flows().len(), 2);

    // the debt outlives another reload, and what began since then owes nothing
    path.policy = policy(&old);
    begin(&mut path);
    path.policy = policy(&new).rematching();
    path.pipeline.begin_policy(&path.policy);
    path.reload(&new);
    assert_eq!(path.rule(LAN, &there), "forward/two");
    assert_eq!(path.flows().len(), 2);
}

/// A worker that is held up between two reloads sees only the second.
#[test]
fn a_rematch_that_a_worker_missed_is_made_up_for() {
    let mut path = Path::new(&super::rules("      - { proto: udp, action: accept }"));
    assert!(path.passes(LAN, &udp(TALK, 1, 2)));
    assert!(path.passes(LAN, &udp(TALK, 1, 3)));
    let next = |old: &Compiled, rules: &str| {
        let mut new = policy(&super::rules(rules));
        new.follow(old).unwrap();
        new
    };
    let two = "      - { name: two, ct: new, proto: udp, dport: 2, action: drop }
      - { proto: udp, action: accept }";
    let missed = next(&path.policy, two).rematching();
    path.policy = next(&missed, two);
    assert_eq!(path.rule(WAN, &udp(TALK.flip(), 2, 1)), "forward/two");
    assert!(path.passes(WAN, &udp(TALK.flip(), 3, 1)));
    assert_eq!(path.flows().len(), 1);
    // and once is enough
    let one = two.replace("dport: 2", "dport: 3");
    path.policy = next(&path.policy, &one);
    assert!(path.passes(WAN, &udp(TALK.flip(), 3, 1)));
}

/// An expected flow begins with the mark of its master, and may have another one by now.
#[test]
fn what_mark_an_expected_flow_began_with_is_not_known() {
    let text = |rules: &str| {
        let helped = "helpers: [{ helper: tftp, proto: udp, dport: 69 }]\nchains:";
        super::rules(rules).replace("chains:", helped)
    };
    let old = "      - { proto: udp, dport: 69, ct: new, mark: 7, action: accept }
      - { ct: related, mark: 0, action: accept }
      - { ct: established, action: accept }";
    for (new, stays) in [
        ("{ ct: related, ct-mark: 7, action: accept }", true),
        ("{ ct: related, iif: lan, action: accept }", false),
    ] {
        let mut path = Path::new(&text(old));
        let (sport, dport) = (2070, 69);
        let request = frame(TALK, Segment::Udp { sport, dport }, b"\0\x01file\0octet\0");
        assert!(path.passes(LAN, &request));
        assert!(path.passes(WAN, &udp(TALK.flip(), 50_000, 2070)));
        let mut marks: Vec<_> = path.flows().iter().map(|flow| flow.mark).collect();
        marks.sort_unstable();
        assert_eq!(marks, [0, 7]);
        let known = "      - { ct: established, action: accept }";
        path.policy = policy(&text(&format!("{known}\n      - {new}"))).rematching();
        assert_eq!(path.passes(LAN, &udp(TALK, 2070, 50_000)), stays, "{new}");
        assert_eq!(path.flows().len(), 1 + usize::from(stays));
    }
}

#[test]
fn many_flows_are_judged_at_once() {
    let old = super::rules("      - { proto: udp, action: accept }");
    let new = policy(&super::rules(
        "      - { iif: wan, action: drop }
      - { proto: udp, dport: 1-2, action: accept }
      - { length: 0-100, proto: udp, dport: 3, action: accept }",
    ));
    let mut path = Path::new(&old);
    for port in 1..6 {
        assert!(path.passes(LAN, &udp(TALK, 9, port)));
        assert!(path.passes(WAN, &udp(TALK.flip(), 9, port)));
    }
    let (mut ending, mut unsure, mut cursor) = (0, 0, Some(Cursor::default()));
    while let Some(at) = cursor {
        let judged = path.pipeline.judge_flows(&new, at, 3);
        (ending, unsure) = (ending + judged.ending.len(), unsure + judged.unsure);
        path.pipeline.shard_mut().remove(&judged.ending);
        cursor = judged.next;
    }
    // all that came in by wan, and two of the others
    assert_eq!((ending, unsure, path.flows().len()), (7, 1, 3));
}

/// The worker has packets to forward in between.
#[test]
fn flows_that_are_hard_to_judge_are_judged_in_smaller_pieces() {
    let mut path = Path::new(&super::rules("      - { proto: udp, action: accept }"));
    for port in 1..10 {
        assert!(path.passes(LAN, &udp(TALK, 9, port)));
    }
    // sixty-four ways, on each of which every mark is asked for
    let bits = (0..6).map(|bit| (200 + bit, 1 << bit));
    let ways = bits.map(|(most, bit)| format!("length: 100-{most}, mark: \"{bit}/{bit}\""));
    let asked = (100..1100).map(|mark| format!("ct-mark: {mark}, action: drop"));
    let rules: String = ways
        .chain(asked)
        .map(|rule| format!("      - {{ {rule} }}\n"))
        .collect();
    let new = policy(&super::rules(&rules));
    let (mut ending, mut pieces, mut cursor) = (0, 0, Some(Cursor::default()));
    while let Some(at) = cursor {
        let judged = path.pipeline.judge_flows(&new, at, 64);
        assert!(judged.ending.len() <= 2, "{}", judged.ending.len());
        (ending, pieces, cursor) = (ending + judged.ending.len(), pieces + 1, judged.next);
    }
    assert!(ending == 9 && pieces > 4, "{ending} in {pieces}");
}
