//! The classifier against the plain reading: the same packets through the same policy, with and
//! without it, and the same way through the chains, verdict and counts wanted of both.

use super::*;
use crate::base::hash::HashKey;
use crate::base::tally::Tally;
use crate::base::time::Now;
use crate::conntrack::tuple::Tuple;
use crate::conntrack::types::{CtState, proto};
use crate::policy::random::{self, Dice, Scene};
use crate::policy::{Compiled, Prospect, Trail, compile, parse};
use crate::wire::parsed::{Checksum, Fragment, L4, Parsed, TcpHeader};
use std::fmt::Write;

/// What is drawn by lot.
struct Random(Dice);

impl Random {
    fn new(seed: u64) -> Self {
        Self(Dice::new(seed))
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0.below(end)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        self.0.pick(from)
    }

    /// An address out of few networks, so that rules and packets meet.
    fn v4(&mut self) -> u32 {
        let net = self.pick(&[0x0a00_0000, 0x0a01_0000, 0xc0a8_0000, 0x0808_0800]);
        net | (self.below(4) as u32) << 8 | self.below(16) as u32
    }

    fn v6(&mut self) -> u128 {
        let net = self.pick(&[0xfd00_u128 << 112, 0x2001_0db8 << 96]);
        net | u128::from(self.below(4)) << 64 | u128::from(self.below(16))
    }

    fn addr(&mut self) -> String {
        let v4 = |addr| std::net::Ipv4Addr::from_bits(addr).to_string();
        let v6 = |addr| std::net::Ipv6Addr::from_bits(addr).to_string();
        let (a, b) = (self.v4(), self.v6());
        match self.below(8) {
            0..3 => v4(a),
            3 => format!("{}/24", v4(a & !0xff)),
            4 => format!("{}/16", v4(a & !0xffff)),
            5 => format!("{}-{}", v4(a), v4(a.saturating_add(self.below(300) as u32))),
            6 => format!("\"{}\"", v6(b)),
            _ => format!("\"{}/64\"", v6(b >> 64 << 64)),
        }
    }

    fn addrs(&mut self) -> String {
        match self.below(6) {
            0 => "$hosts".into(),
            1 => "\"!$hosts\"".into(),
            2 => "\"!$mixed\"".into(),
            3 => format!("[{}, {}]", self.addr(), self.addr()),
            _ => self.addr(),
        }
    }

    fn port(&mut self) -> String {
        let port = self.below(20);
        match self.below(4) {
            0 => format!("{port}-{}", port + self.below(10)),
            1 => format!("[{port}, {}]", 30 + port),
            2 => "\"!$web\"".into(),
            _ => port.to_string(),
        }
    }

    fn rule(&mut self, chains: &[&str]) -> String {
        let mut rule = String::from("{ ");
        let mut add = |text: String| rule.push_str(&(text + ", "));
        if self.chance(20) {
            add(format!(
                "iif: {}",
                self.pick(&["lan", "wan", "[lan, dmz]", "\"!lan\""])
            ));
        }
        if self.chance(10) {
            add(format!("oif: {}", self.pick(&["lan", "wan", "dmz"])));
        }
        if self.chance(50) {
            add(format!("saddr: {}", self.addrs()));
        }
        if self.chance(50) {
            add(format!("daddr: {}", self.addrs()));
        }
        if self.chance(30) {
            let proto = self.pick(&["tcp", "udp", "[tcp, udp]"]);
            add(format!("proto: {proto}, dport: {}", self.port()));
            if self.chance(30) {
                add(format!("sport: {}", self.port()));
            }
        } else if self.chance(20) {
            add(format!(
                "proto: {}",
                self.pick(&["icmp", "89", "\"!tcp\"", "icmpv6"])
            ));
        }
        if self.chance(10) {
            add(format!("family: {}", self.pick(&["ipv4", "ipv6"])));
        }
        if self.chance(30) {
            let states = [
                "new",
                "[established, related]",
                "invalid",
                "\"!new\"",
                "untracked",
            ];
            add(format!("ct: {}", self.pick(&states)));
        }
        if self.chance(10) {
            add(format!(
                "ct-direction: {}",
                self.pick(&["original", "reply"])
            ));
        }
        if self.chance(8) {
            add(format!("vlan: {}", self.pick(&["7", "7-9", "\"!7\""])));
        }
        if self.chance(8) {
            add(format!(
                "length: {}",
                self.pick(&["60", "0-100", "\"!60\""])
            ));
        }
        if self.chance(5) {
            add(format!("ct-zone: {}", self.pick(&["0", "5", "\"!5\""])));
        }
        if self.chance(5) {
            add("limit: \"3/second burst 2\"".into());
        }
        let action = match self.below(10) {
            0..3 if !chains.is_empty() => {
                let verb = self.pick(&["jump", "goto"]);
                format!("{verb}: {}", self.pick(chains))
            }
            0..4 => "log: true".into(),
            4 => "action: return".into(),
            5 => "action: reject".into(),
            6..8 => "action: drop".into(),
            _ => "action: accept".into(),
        };
        rule + &action + " }"
    }

    fn policy(&mut self, rules: u64) -> String {
        let mut text = String::from(
            "version: 1\nports: { lan: { device: a }, wan: { device: b }, dmz: { device: c }, mgm: \
             { device: d } }\nbridge: [[lan, wan], { ports: [dmz, mgm], zone: 5 }]\nsets:\n  hosts: \
             [10.0.0.0-10.0.0.9, 192.168.1.4, 8.8.8.8]\n  mixed: [10.1.0.0/24, \"fd00::/65\"]\n  \
             web: [3, 9-12]\n",
        );
        text.push_str("raw:\n");
        for _ in 0..rules / 8 {
            let rule = format!("saddr: {}, daddr: {}", self.addrs(), self.addrs());
            let action = self.pick(&["notrack", "accept"]);
            let _ = writeln!(text, "  - {{ {rule}, action: {action} }}");
        }
        text.push_str("chains:\n  forward:\n    policy: accept\n    rules:\n");
        let below: [(&str, &[&str]); 3] = [
            ("one", &["two", "three"]),
            ("two", &["three"]),
            ("three", &[]),
        ];
        for _ in 0..rules {
            let _ = writeln!(text, "      - {}", self.rule(&["one", "two", "three"]));
        }
        for (chain, targets) in below {
            let _ = writeln!(text, "  {chain}:\n    rules:");
            for _ in 0..self.below(rules) + 1 {
                let _ = writeln!(text, "      - {}", self.rule(targets));
            }
        }
        text
    }

    fn packet(&mut self) -> Parsed {
        let v6 = self.chance(30);
        let addrs = match v6 {
            true => Addrs::V6 {
                src: self.v6(),
                dst: self.v6(),
            },
            false => Addrs::V4 {
                src: self.v4(),
                dst: self.v4(),
            },
        };
        let (sport, dport) = (self.below(40) as u16, self.below(40) as u16);
        let (number, l4) = match self.below(5) {
            0 | 1 => {
                let header = TcpHeader {
                    sport,
                    dport,
                    seq: 1,
                    ack: 0,
                    window: 1,
                    flags: 2,
                    header_len: 20,
                };
                (proto::TCP, L4::Tcp(header))
            }
            2 | 3 => (proto::UDP, L4::Udp { sport, dport }),
            _ => (
                self.pick(&[proto::ICMP, proto::OSPF, proto::ICMPV6]),
                L4::None,
            ),
        };
        Parsed {
            l3: if v6 { L3::Ipv6 } else { L3::Ipv4 },
            addrs,
            l4,
            ethertype: 0,
            vlan: self.pick(&[NO_VLAN, NO_VLAN, 7, 8]),
            l3_offset: 14,
            l4_offset: 34,
            end: self.pick(&[74, 400]),
            proto: number,
            ttl: 64,
            dscp: 0,
            fragment: Fragment::Whole,
            l4_sum: Checksum::Unknown,
            frame_len: 60 + self.below(1000) as u32,
        }
    }
}

fn facts<'a>(random: &mut Random, packet: &'a Parsed, now: Now) -> Facts<'a> {
    let iif = random.below(4) as u8;
    let state = random.pick(&CtState::ALL);
    let dir = match state {
        CtState::Invalid | CtState::Untracked => None,
        CtState::New => Some(Dir::Original),
        _ => Some(random.pick(&[Dir::Original, Dir::Reply])),
    };
    Facts {
        packet,
        iif: PortId(iif),
        oif: PortId(iif ^ 1),
        state,
        dir,
        flow: None,
        now,
    }
}

/// Plays `packets` packets; how many found their rule without the classifier.
fn same(classified: &Compiled, plain: &Compiled, packets: u64, random: &mut Random) {
    for n in 0..packets {
        let now = Now::from_nanos(1_000_000_000 + n * 50_000_000);
        let packet = random.packet();
        let facts = facts(random, &packet, now);
        let (mut one, mut other) = (Trail::default(), Trail::default());
        let decisions = [
            classified.forward_leaving(0, &facts, &mut one),
            plain.forward_leaving(0, &facts, &mut other),
        ];
        assert_eq!(decisions[0], decisions[1], "{facts:?}");
        assert_eq!(one.steps(), other.steps(), "{facts:?}");
        let raw = Facts {
            state: CtState::Untracked,
            dir: None,
            ..facts
        };
        assert_eq!(classified.raw(0, &raw), plain.raw(0, &raw), "{facts:?}");
    }
    let counts = |policy: &Compiled| -> Vec<_> {
        policy
            .rules()
            .map(|rule| (rule.id, rule.packets, rule.bytes))
            .collect()
    };
    assert_eq!(counts(classified), counts(plain));
}

fn both(text: &str) -> [Compiled; 2] {
    let model = parse("random.yaml", text)
        .unwrap_or_else(|errors| panic!("{errors}\n{text}"))
        .model;
    let classified = compile(&model, 1, 1);
    assert!(classified.classifier.is_some());
    [classified, compile(&model, 1, 1).without_classifier()]
}

/// `CLASSIFY_POLICIES=2000 cargo test --release --lib classify` asks for more than CI does.
#[test]
fn it_finds_what_the_plain_reading_finds() {
    let policies = std::env::var("CLASSIFY_POLICIES").ok();
    let policies = policies.map_or(200, |text| text.parse().unwrap());
    let seed = std::env::var("CLASSIFY_SEED").ok();
    let seed = seed.map_or(1, |text| text.parse().unwrap());
    for number in 0..policies {
        let mut random = Random::new(seed + number);
        let rules = 12 + random.below(120);
        let text = random.policy(rules);
        let [classified, plain] = both(&text);
        same(&classified, &plain, 2500, &mut random);
    }
}

/// Policies of the whole language, flows and helper lines included. The same of what flows would
/// come to, without their packets.
#[test]
fn it_finds_what_the_plain_reading_finds_in_the_whole_language() {
    let mut asked = 0;
    for seed in 0..60 {
        let mut dice = Dice::new(seed);
        let scale = 2 + dice.below(12);
        let text = random::long_policy(&mut dice, true, scale);
        let model = parse("random.yaml", &text)
            .unwrap_or_else(|errors| panic!("{errors}\n{text}"))
            .model;
        let classified = compile(&model, 1, 1);
        let plain = compile(&model, 1, 1).without_classifier();
        asked += usize::from(classified.classifier.is_some());
        let tallies = [(); 2].map(|()| Tally::new(1000, HashKey::from_seed(seed)).unwrap());
        for _ in 0..300 {
            let scene = match dice.one_in(4) {
                true => Scene::first(&mut dice, &classified),
                false => Scene::any(&mut dice, &classified),
            };
            let before = scene.facts(None);
            assert_eq!(classified.raw(0, &before), plain.raw(0, &before), "{text}");
            let flows = [0, 1].map(|at| scene.flow_facts(&tallies[at]));
            let mut trails = [Trail::default(), Trail::default()];
            let [one, other] = &mut trails;
            let decisions = [
                classified.forward_leaving(0, &scene.facts(flows[0].as_ref()), one),
                plain.forward_leaving(0, &scene.facts(flows[1].as_ref()), other),
            ];
            assert_eq!(decisions[0], decisions[1], "{scene:?}\n{text}");
            assert_eq!(one.steps(), other.steps(), "{scene:?}\n{text}");
            let marks = flows.each_ref().map(|flow| Some(flow.as_ref()?.new_mark()));
            assert_eq!(marks[0], marks[1], "{scene:?}\n{text}");
            let helpers = [&classified, &plain].map(|policy| {
                let found = policy.helper(0, &before);
                found.map(|(id, _)| id)
            });
            assert_eq!(helpers[0], helpers[1], "{scene:?}\n{text}");
            let (Some(flow), Some(tuple)) = (scene.flow, Tuple::of(&scene.packet, 0)) else {
                continue;
            };
            let prospect = Prospect {
                tuple: Tuple {
                    zone: flow.zone,
                    ..tuple
                },
                iif: (!dice.one_in(4)).then_some(scene.iif),
                expected_by: flow.helper,
                mark: flow.mark,
            };
            let fates = [classified.fate(&prospect), plain.fate(&prospect)];
            assert_eq!(fates[0], fates[1], "{prospect:?}\n{text}");
        }
        let counts = |policy: &Compiled| -> Vec<_> {
            policy
                .rules()
                .map(|it| (it.id, it.packets, it.bytes))
                .collect()
        };
        assert_eq!(counts(&classified), counts(&plain), "{text}");
    }
    assert!(asked > 40, "{asked}");
}

/// Rules that stand in words, summaries and top bits of their own, and what lies between.
#[test]
fn rules_far_apart_are_found() {
    let mut random = Random::new(7);
    let mut text = random.policy(12);
    let _ = writeln!(text, "  far:\n    rules:");
    for n in 0..9000u32 {
        let (high, low) = (n >> 8, n & 255);
        let _ = writeln!(
            text,
            "      - {{ daddr: 10.9.{high}.{low}, proto: udp, dport: 5, action: accept }}"
        );
    }
    let text = text.replacen(
        "    rules:\n",
        "    rules:\n      - { daddr: 10.9.0.0/16, jump: far }\n",
        1,
    );
    let [classified, plain] = both(&text);
    for n in (0..9300u32).step_by(11) {
        let addrs = Addrs::V4 {
            src: 0x0101_0101,
            dst: 0x0a09_0000 + n,
        };
        let l4 = L4::Udp { sport: 1, dport: 5 };
        let packet = Parsed {
            addrs,
            l4,
            l3: L3::Ipv4,
            proto: proto::UDP,
            ..random.packet()
        };
        let facts = Facts {
            iif: PortId(0),
            oif: PortId(1),
            ..facts(&mut random, &packet, Now::default())
        };
        assert_eq!(
            classified.forward(0, &facts),
            plain.forward(0, &facts),
            "{n}"
        );
    }
    same(&classified, &plain, 500, &mut random);
}

/// What there is no room for is tested rule by rule, and still found.
#[test]
fn ranges_that_cost_too_much_are_left_to_the_test() {
    let mut text = String::from(
        "version: 1\nports: { a: { device: x }, b: { device: y } }\nbridge: [[a, b]]\n",
    );
    text.push_str("chains:\n  forward:\n    rules:\n");
    // a thousand ranges of which nearly all overlap, and their ends all differ
    for n in 0..2500u32 {
        let (low, high) = (0x0a00_0000 + n, 0x0a10_0000 - n);
        let show = std::net::Ipv4Addr::from_bits;
        let (low, high) = (show(low), show(high));
        let _ = writeln!(
            text,
            "      - {{ saddr: {low}-{high}, proto: udp, dport: {n}, action: accept }}"
        );
    }
    let [classified, plain] = both(&text);
    let mut random = Random::new(1);
    for _ in 0..2000 {
        let src = 0x0a00_0000 + random.below(0x11_0000) as u32;
        let (addrs, dport) = (Addrs::V4 { src, dst: 1 }, random.below(2600) as u16);
        let l4 = L4::Udp { sport: 1, dport };
        let packet = Parsed {
            addrs,
            l4,
            l3: L3::Ipv4,
            proto: proto::UDP,
            ..random.packet()
        };
        let facts = Facts {
            iif: PortId(0),
            oif: PortId(1),
            ..facts(&mut random, &packet, Now::default())
        };
        assert_eq!(classified.forward(0, &facts), plain.forward(0, &facts));
    }
    assert!(
        classified.classifier_bytes() < 16 << 20,
        "{}",
        classified.classifier_bytes()
    );
}
