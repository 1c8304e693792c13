//! The narrated way against the way that packets go, of random policies; and what is told.

use super::*;
use crate::base::hash::HashKey;
use crate::base::tally::Tally;
use crate::policy::random::{self, Dice, Scene};
use crate::policy::{Checked, compile, parse};

fn read(text: &str) -> (Checked, Compiled) {
    let checked = parse("test.yaml", text).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    let compiled = compile(&checked.model, 1, 1);
    (checked, compiled)
}

/// A rule's counters after all, to see that nothing was counted.
fn counted(policy: &Compiled) -> u64 {
    policy.rules().map(|rule| rule.packets).sum()
}

#[test]
fn the_narrated_way_is_the_way_of_packets() {
    let mut told = 0;
    for seed in 0..300 {
        let mut dice = Dice::new(seed);
        let text = random::policy(&mut dice, true);
        let (checked, policy) = read(&text);
        let narrator = Narrator::new(&policy, &checked.model);
        let tally = Tally::new(1000, HashKey::from_seed(seed)).unwrap();
        for _ in 0..60 {
            let scene = Scene::any(&mut dice, &policy);
            let before = counted(&policy);
            let (_, raw) = narrator.raw(&scene.facts(None));
            let (_, helper) = narrator.helpers(&scene.facts(None));
            let copy = scene.flow_facts(&tally);
            let (steps, decision) = narrator.forward(&scene.facts(copy.as_ref()));
            assert_eq!(counted(&policy), before);
            assert!(copy.as_ref().is_none_or(|flow| flow.counted().is_empty()));
            // a rule that is come by twice may take the last token the first time
            let twice = steps.iter().enumerate().any(|(at, step)| {
                let same = |other: &Step| (&other.chain, &other.rule) == (&step.chain, &step.rule);
                steps[..at].iter().any(same)
            });
            let flow = scene.flow_facts(&tally);
            assert_eq!(raw, policy.raw(0, &scene.facts(None)));
            assert_eq!(helper, policy.helper(0, &scene.facts(None)));
            let real = policy.forward(0, &scene.facts(flow.as_ref()));
            if twice && text.contains("limit") {
                continue;
            }
            let mark = |flow: &Option<crate::policy::FlowFacts<'_>>| {
                flow.as_ref().and_then(|flow| flow.new_mark())
            };
            assert_eq!(decision, real, "seed {seed}\n{steps:#?}\n{text}");
            assert_eq!(mark(&copy), mark(&flow), "seed {seed}");
            let last = steps.last().unwrap();
            let name = format!("{}/{}", last.chain, last.rule);
            assert_eq!(name, policy.rule_name(real.rule), "seed {seed}\n{text}");
            for step in &steps {
                assert_eq!(step.matched, step.then.is_some());
                assert_eq!(step.matched, step.wanted.is_none());
                // what failed stands in the line of the rule
                let Some(wanted) = &step.wanted else { continue };
                let line = text.lines().nth(step.line as usize - 1).unwrap();
                let plain = |text: &str| text.replace('"', "");
                assert!(plain(line).contains(&plain(wanted)), "{wanted}: {line}");
            }
            told += 1;
        }
    }
    assert!(told > 12_000, "{told}");
}

#[test]
fn what_failed_is_told_as_it_is_written() {
    let text = "version: 1
ports: { lan: { device: a }, wan: { device: b } }
bridge: [[lan, wan]]
sets: { servers: [10.2.0.0/16], web: [80, 443] }
helpers:
  - { helper: ftp, dport: 21 }
raw:
  - { name: p2p, proto: udp, action: notrack }
chains:
  forward:
    rules:
      - { name: known, ct: [established, related], action: accept }
      - name: web
        comment: the farm
        iif: wan
        daddr: $servers
        proto: tcp
        dport: $web
        jump: inbound
      - { name: stray, tcp-flags: \"!syn\", action: drop }
      - { name: torn, tcp-flags: [ \"fin,ack/fin\",   rst/rst ], action: drop }
      - { name: rest, proto: tcp, action: reject }
  inbound:
    rules:
      - { name: slow, limit: 1/second burst 1, log: true }
      - { name: late, ct-mark: 7, action: accept }
";
    let (checked, policy) = read(text);
    let narrator = Narrator::new(&policy, &checked.model);
    let mut dice = Dice::new(1);
    let mut scene = loop {
        let scene = Scene::first(&mut dice, &policy);
        if scene.packet.tcp_flags().is_some() && scene.packet.l3 == crate::wire::L3::Ipv4 {
            break scene;
        }
    };
    scene.packet.addrs = crate::wire::Addrs::V4 {
        src: 0x0a00_0001,
        dst: 0x0a09_0001,
    };
    scene.iif = crate::policy::PortId(1);
    scene.state = crate::conntrack::types::CtState::New;
    let tell = |steps: &[Step]| -> Vec<String> {
        let tell = |step: &Step| {
            let Step {
                chain, rule, line, ..
            } = step;
            match (&step.then, &step.wanted, &step.found) {
                (Some(then), ..) => format!("{line} {chain}/{rule} {then}"),
                (_, Some(wanted), Some(found)) => {
                    format!("{line} {chain}/{rule}: {wanted} ({found})")
                }
                _ => "nothing".into(),
            }
        };
        steps.iter().map(tell).collect()
    };
    let (steps, _) = narrator.raw(&scene.facts(None));
    assert_eq!(tell(&steps), ["8 raw/p2p: proto: udp (proto is tcp)"]);
    let (steps, decision) = narrator.forward(&scene.facts(None));
    let expected = [
        "12 forward/known: ct: [established, related] (ct is new)",
        "13 forward/web: daddr: $servers (daddr is 10.9.0.1)",
        "20 forward/stray: tcp-flags: !syn (tcp-flags are syn)",
        "21 forward/torn: tcp-flags: [\"fin,ack/fin\", rst/rst] (tcp-flags are syn)",
        "22 forward/rest reject (tcp-reset)",
    ];
    let steps = tell(&steps);
    assert_eq!(steps.len(), expected.len());
    // a SYN may have other flags beside
    for (step, expected) in steps.iter().zip(expected) {
        assert!(step.starts_with(expected.trim_end_matches(')')), "{step}");
    }
    assert_eq!(decision.verdict, Verdict::Reject(RejectWith::TcpReset));
}
