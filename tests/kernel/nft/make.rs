//! Makes random policies.

use super::policy::{Act, Match, Policy, Rule, host, network};
use super::traffic;
use super::words::*;
use crate::random::Random;

/// What a policy is made with.
struct Maker<'r> {
    random: &'r mut Random,
    /// How often in a hundred a match reads the packet itself: then no verdict is remembered.
    varying: usize,
    /// Whether rules ask for marks and status, and set marks.
    asking: bool,
    /// Whether rules ask where packets leave.
    leaving: bool,
    /// How often in a hundred a rule only counts what it matches.
    noting: usize,
    rules: usize,
}

/// Any policy; only with `leaving` it asks where packets leave.
pub(super) fn policy(random: &mut Random, leaving: bool) -> Policy {
    let varying = random.pick(&[0, 0, 4, 30]);
    let asking = random.chance(60);
    // A way of more rules than can be kept is not remembered.
    let noting = if random.chance(12) { 70 } else { 8 };
    let mut maker = Maker {
        random,
        varying,
        asking,
        leaving,
        noting,
        rules: 0,
    };
    maker.policy()
}

impl Maker<'_> {
    fn policy(&mut self) -> Policy {
        // More than 24 operations, mostly: fewer are read one after the other. Of more than 64 the
        // classifier has more than a word.
        let chains = 1 + self.random.below(6);
        let rules = match self.random.below(100) {
            0..30 => 1 + self.random.below(16),
            30..85 => 24 + self.random.below(40),
            _ => 64 + self.random.below(66),
        };
        let raw = if self.random.chance(40) {
            1 + self.random.below(3)
        } else {
            0
        };
        let mut policy = Policy {
            accepts: self.random.chance(60),
            raw: (0..raw).map(|_| self.raw_rule()).collect(),
            chains: vec![Vec::new(); chains],
        };
        for _ in 0..rules {
            // Half of them in `forward`, from where all others are reached.
            let at = if self.random.chance(50) {
                0
            } else {
                self.random.below(chains)
            };
            let rule = self.rule(at, chains);
            policy.chains[at].push(rule);
        }
        policy
    }

    fn name(&mut self) -> String {
        self.rules += 1;
        format!("r{}", self.rules)
    }

    fn raw_rule(&mut self) -> Rule {
        let mut matches = vec![self.ports()];
        if self.random.chance(50) {
            matches.push(self.address("daddr", "saddr"));
        }
        let act = if self.random.chance(75) {
            Act::Notrack
        } else {
            Act::Accept
        };
        Rule {
            name: self.name(),
            matches,
            mark: None,
            logs: false,
            counts: false,
            act,
        }
    }

    fn rule(&mut self, at: usize, chains: usize) -> Rule {
        let notes = self.random.chance(self.noting);
        let number = match notes {
            true => 1,
            false => self.random.pick(&[1, 2, 2, 2, 3, 3, 4]),
        };
        let mut matches: Vec<Match> = Vec::new();
        while matches.len() < number {
            let one = self.matching();
            let clashes = |other: &Match| {
                one.key == other.key || one.is_of_headers() && other.is_of_headers()
            };
            if !matches.iter().any(clashes) {
                matches.push(one);
            }
        }
        let states = matches.iter().find(|one| one.key == "ct");
        let with_flow = states.is_some_and(|one| {
            let known = STATES[..OF_FLOWS].iter();
            known
                .map(|(ours, _)| format!("ct: {ours}"))
                .any(|ours| ours == one.ours)
        });
        let mut ours = matches.iter().map(|one| one.ours.as_str());
        let tcp = ours.any(|ours| ours == "proto: tcp" || ours.starts_with("proto: tcp,"));
        if with_flow && self.random.chance(10) {
            matches.push(self.pair("ct-zone", "ct zone", &ZONES));
        }
        let reads_mark = matches.iter().any(|one| one.key == "ct-mark");
        let marks = self.asking && self.random.chance(20);
        let mark = marks.then(|| self.random.pick(&SET_MARKS));
        let mark = mark.filter(|(.., reads)| !(*reads && reads_mark));
        let (logs, counts) = (self.random.chance(8), notes || self.random.chance(4));
        let goes_on = mark.is_some() || logs || counts;
        let act = match self.random.below(100) {
            _ if notes || goes_on && self.random.chance(60) => Act::Continue,
            0..30 if at + 1 < chains => Act::Jump(at + 1 + self.random.below(chains - at - 1)),
            30..40 if at + 1 < chains => Act::Goto(at + 1 + self.random.below(chains - at - 1)),
            40..50 => Act::Return,
            // A reset for an INVALID packet is a packet of the flow to the kernel; it is none to us.
            50..56 if with_flow && tcp => Act::Reject(RESET.0, RESET.1),
            56..62 if with_flow => Act::RejectAuto,
            62..68 => {
                let (ours, kernel) = self.random.pick(&REJECTS);
                Act::Reject(ours, kernel)
            }
            68..80 => Act::Drop,
            _ => Act::Accept,
        };
        Rule {
            name: self.name(),
            matches,
            mark,
            logs,
            counts,
            act,
        }
    }

    fn pair(&mut self, ours: &'static str, kernel: &str, pairs: &[Pair]) -> Match {
        let (word, nft) = self.random.pick(pairs);
        Match::both(ours, format!("{ours}: {word}"), format!("{kernel} {nft}"))
    }

    fn matching(&mut self) -> Match {
        if self.random.chance(self.varying) {
            return match self.random.below(5) {
                0 => {
                    let mut flags = self.pair("tcp-flags", "tcp flags", &FLAGS);
                    if self.random.chance(50) {
                        flags.ours.insert_str(0, "proto: tcp, ");
                    }
                    flags
                }
                1 => self.pair("length", "meta length", &LENGTHS),
                2 => {
                    let (ours, [four, six]) = self.random.pick(&ICMP);
                    let kernel = [format!("icmp {four}"), format!("icmpv6 {six}")].map(Some);
                    Match::new("icmp-type", format!("icmp-type: {ours}"), kernel)
                }
                3 => {
                    let (ours, kernel) = self.random.pick(&DSCPS);
                    let kernel = ["ip", "ip6"].map(|ip| Some(format!("{ip} dscp {kernel}")));
                    Match::new("dscp", format!("dscp: {ours}"), kernel)
                }
                _ => {
                    let is = self.random.chance(30);
                    let (four, six) = if is {
                        ("!=", "exists")
                    } else {
                        ("==", "missing")
                    };
                    let four = format!("ip frag-off & 0x3fff {four} 0");
                    let kernel = [Some(four), Some(format!("exthdr frag {six}"))];
                    let ours = match self.random.below(3) {
                        0 => format!("fragment: {is}"),
                        1 => format!("fragment: [{is}]"),
                        _ => format!("fragment: \"!{}\"", !is),
                    };
                    Match::new("fragment", ours, kernel)
                }
            };
        }
        match self.random.below(22) {
            0..5 => self.pair("ct", "ct state", &STATES),
            5 => {
                let dir = self.random.pick(&["original", "reply"]);
                let kernel = format!("ct direction {dir}");
                Match::both("ct-direction", format!("ct-direction: {dir}"), kernel)
            }
            6 => self.pair("iif", "iifname", &SIDES),
            7 if self.leaving => self.pair("oif", "oifname", &SIDES),
            7 => self.pair("ct", "ct state", &STATES),
            8 => {
                let v6 = self.random.chance(50);
                let kernel = [!v6, v6].map(|is| is.then(String::new));
                let ours = format!("family: {}", if v6 { "ipv6" } else { "ipv4" });
                Match::new("family", ours, kernel)
            }
            9..13 => self.address("saddr", "daddr"),
            13..15 => self.pair("proto", "meta l4proto", &PROTOS),
            15..19 => self.ports(),
            _ if !self.asking => self.pair("ct", "ct state", &STATES),
            19..21 => self.pair("ct-mark", "ct mark", &MARKS),
            _ => self.pair("ct-status", "ct status", &STATUS),
        }
    }

    fn ports(&mut self) -> Match {
        let (proto, nft) = self.random.pick(&WITH_PORTS);
        let side = self.random.pick(&["sport", "dport", "dport"]);
        let (ports, list) = self.random.pick(&PORTS);
        let ours = format!("proto: {proto}, {side}: {ports}");
        Match::both(
            "ports",
            ours,
            format!("meta l4proto {nft} th {side} {list}"),
        )
    }

    /// Addresses of one family or of both: one, some, a network, a range, or a set with a name.
    fn address(&mut self, one: &'static str, other: &'static str) -> Match {
        let key = self.random.pick(&[one, other]);
        let not = self.random.chance(20);
        let sign = if not { "!= " } else { "" };
        let bang = if not { "!" } else { "" };
        let named = self.random.below(8);
        if named < 2 {
            let name = if named == 0 { "hosts" } else { "four" };
            let four = Some(format!("ip {key} {sign}@four"));
            let six = (named == 0).then(|| format!("ip6 {key} {sign}@six"));
            return Match::new(key, format!("{key}: \"{bang}${name}\""), [four, six]);
        }
        // Of a negation there can be one; of more, the set has a name.
        let mut families =
            self.random
                .pick(&[[true, false], [true, false], [false, true], [true; 2]]);
        let most = if not { 1 } else { 2 };
        families[1] &= !(not && families[0]);
        let mut all = Vec::new();
        let kernel = [false, true].map(|v6| {
            if !families[usize::from(v6)] {
                return None;
            }
            let some: Vec<String> = (0..1 + self.random.below(most))
                .map(|_| self.piece(v6))
                .collect();
            let ip = if v6 { "ip6" } else { "ip" };
            let words = format!("{ip} {key} {sign}{{ {} }}", some.join(", "));
            all.extend(some);
            Some(words)
        });
        let ours = match (not, &all[..]) {
            (false, _) => format!("{key}: [\"{}\"]", all.join("\", \"")),
            (true, _) => format!("{key}: \"!{}\"", all.join("")),
        };
        Match::new(key, ours, kernel)
    }

    fn piece(&mut self, v6: bool) -> String {
        let (at, side) = (self.random.below(traffic::HOSTS), self.random.below(2));
        match self.random.below(6) {
            0..3 => host(at, side, v6),
            3 => network(at, side, v6, 1),
            4 => network(at, side, v6, if v6 { 64 } else { 8 }),
            _ => {
                let (low, high) = (traffic::host(at, side, v6), traffic::host(at + 1, side, v6));
                format!("{}-{}", low.min(high), low.max(high))
            }
        }
    }
}
