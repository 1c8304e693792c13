//! Random policies of what both languages have, each in the words of either.
//!
//! A rule of ours whose matches read otherwise in IPv4 than in IPv6 is two of nft's.

use super::traffic;
use crate::random::Random;
use std::fmt::Write;

/// A policy.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// Whether the chain `forward` ends in `accept`.
    accepts: bool,
    /// Before tracking.
    raw: Vec<Rule>,
    /// The first is `forward`; each jumps only to later ones.
    chains: Vec<Vec<Rule>>,
}

/// A rule.
#[derive(Clone, Debug)]
struct Rule {
    name: String,
    matches: Vec<Match>,
    mark: Option<Mark>,
    logs: bool,
    counts: bool,
    act: Act,
}

/// A match in our words, and in nft's for IPv4 and for IPv6, where it can match.
#[derive(Clone, Debug)]
struct Match {
    key: &'static str,
    ours: String,
    kernel: [Option<String>; 2],
}

/// What becomes of the flow's mark, in our words and in nft's; whether that reads the mark.
type Mark = (&'static str, &'static str, bool);

#[derive(Clone, Copy, Debug)]
enum Act {
    Accept,
    Drop,
    /// How, in our words and in nft's.
    Reject(&'static str, &'static str),
    /// A reset for TCP, and an ICMP error for the rest.
    RejectAuto,
    Return,
    Jump(usize),
    Goto(usize),
    Continue,
    Notrack,
}

/// A text of ours, and what nft calls the same.
type Pair = (&'static str, &'static str);

const MARKS: [Pair; 6] = [
    ("0", "0"),
    ("1", "1"),
    ("\"!0\"", "!= 0"),
    ("\"0x10/0xf0\"", "& 0xf0 == 0x10"),
    ("[1, 0x12]", "{ 1, 0x12 }"),
    ("\"!1/0xf\"", "& 0xf != 1"),
];
const SET_MARKS: [Mark; 5] = [
    ("0", "0", false),
    ("1", "1", false),
    ("2", "2", false),
    ("\"0x10/0xf0\"", "ct mark & 0xffffff0f | 0x10", true),
    ("\"2/0xf\"", "ct mark & 0xfffffff0 | 2", true),
];
const STATES: [Pair; 11] = [
    ("new", "new"),
    ("established", "established"),
    ("related", "related"),
    ("[new, established]", "new,established"),
    ("[established, related]", "established,related"),
    ("[new, established, related]", "new,established,related"),
    ("invalid", "invalid"),
    ("untracked", "untracked"),
    ("\"!invalid\"", "!= invalid"),
    ("\"!new\"", "!= new"),
    ("[new, untracked]", "{ new, untracked }"),
];
/// So many of them, the first, are of packets that have a flow.
const OF_FLOWS: usize = 6;
const STATUS: [Pair; 6] = [
    ("seen-reply", "seen-reply"),
    ("assured", "assured"),
    ("confirmed", "confirmed"),
    ("[expected, seen-reply]", "expected,seen-reply"),
    ("\"!seen-reply\"", "& seen-reply == 0"),
    ("\"!confirmed\"", "& confirmed == 0"),
];
/// Of flows only: without one, a packet has no zone to the kernel.
const ZONES: [Pair; 4] = [
    ("0", "0"),
    ("\"!0\"", "!= 0"),
    ("[0, 3]", "{ 0, 3 }"),
    ("3", "3"),
];
const SIDES: [Pair; 4] = [
    ("lan", "\"lan\""),
    ("wan", "\"wan\""),
    ("\"!lan\"", "!= \"lan\""),
    ("[lan, wan]", "{ \"lan\", \"wan\" }"),
];
const DSCPS: [Pair; 5] = [
    ("cs0", "cs0"),
    ("ef", "ef"),
    ("[ef, cs1]", "{ ef, cs1 }"),
    ("\"!cs0\"", "!= cs0"),
    ("[cs0, af11]", "{ cs0, af11 }"),
];
const LENGTHS: [Pair; 6] = [
    ("40", "40"),
    ("40-60", "40-60"),
    ("0-59", "0-59"),
    ("\"!40\"", "!= 40"),
    ("[40, 60, 100-1500]", "{ 40, 60, 100-1500 }"),
    ("\"!40-70\"", "!= 40-70"),
];
const FLAGS: [Pair; 7] = [
    ("syn", "& (fin | syn | rst | ack) == syn"),
    ("\"!syn\"", "& (fin | syn | rst | ack) != syn"),
    ("\"syn,ack/syn,ack\"", "& (syn | ack) == syn | ack"),
    ("\"psh/psh\"", "& psh == psh"),
    ("\"fin,rst/none\"", "& (fin | rst) == 0x0"),
    ("\"!ack/ack\"", "& ack != ack"),
    ("\"rst,fin/fin\"", "& (rst | fin) == fin"),
];
const PROTOS: [Pair; 8] = [
    ("tcp", "tcp"),
    ("tcp", "tcp"),
    ("udp", "udp"),
    ("sctp", "sctp"),
    ("[icmp, icmpv6]", "{ icmp, ipv6-icmp }"),
    ("[udp, gre, 89]", "{ udp, gre, 89 }"),
    ("\"!tcp\"", "!= tcp"),
    ("\"!udp\"", "!= udp"),
];
const WITH_PORTS: [Pair; 5] = [
    ("tcp", "tcp"),
    ("tcp", "tcp"),
    ("udp", "udp"),
    ("[tcp, udp]", "{ tcp, udp }"),
    ("[tcp, sctp]", "{ tcp, sctp }"),
];
const PORTS: [Pair; 10] = [
    ("80", "80"),
    ("22", "22"),
    ("[22, 53]", "{ 22, 53 }"),
    ("[22, 1000-1100, 8000-8080]", "{ 22, 1000-1100, 8000-8080 }"),
    ("1-1023", "1-1023"),
    ("\"!80\"", "!= 80"),
    ("$web", "@web"),
    ("\"!$web\"", "!= @web"),
    ("\"!$web\"", "!= @web"),
    ("40000-65535", "40000-65535"),
];
/// ICMP types of ours, and of nft for either version.
const ICMP: [(&str, [&str; 2]); 6] = [
    ("echo-request", ["type 8", "type 128"]),
    (
        "[echo-request, echo-reply]",
        ["type { 8, 0 }", "type { 128, 129 }"],
    ),
    ("\"!echo-request\"", ["type != 8", "type != 128"]),
    ("destination-unreachable", ["type 3", "type 1"]),
    (
        "destination-unreachable/1",
        ["type 3 icmp code 1", "type 1 icmpv6 code 1"],
    ),
    ("time-exceeded", ["type 11", "type 3"]),
];
/// How to reject, in our words and in nft's.
const REJECTS: [(&str, &str); 4] = [
    ("icmp-port-unreachable", "icmpx port-unreachable"),
    ("admin-prohibited", "icmpx admin-prohibited"),
    ("host-unreachable", "icmpx host-unreachable"),
    ("net-unreachable", "icmpx no-route"),
];
/// A reset, which is for TCP.
const RESET: (&str, &str) = ("tcp-reset", "tcp reset");

/// Where names of packets' rules begin in what the kernel says.
fn report(verdict: &str, place: &str) -> String {
    format!("log group 5 prefix \"v {verdict}:{place}\"")
}

/// What a policy is made with.
struct Maker<'r> {
    random: &'r mut Random,
    /// How often in a hundred a match reads the packet itself: then no verdict is remembered.
    varying: usize,
    /// Whether rules ask for marks and status, and set marks.
    asking: bool,
    rules: usize,
}

impl Policy {
    /// Any.
    pub(crate) fn random(random: &mut Random) -> Self {
        let varying = random.pick(&[0, 0, 4, 30]);
        let asking = random.chance(60);
        let mut maker = Maker {
            random,
            varying,
            asking,
            rules: 0,
        };
        maker.policy()
    }

    /// How many operations it has: a rule each, and the end of every list.
    pub(crate) fn size(&self) -> usize {
        let rules = self.chains.iter().map(|chain| chain.len() + 1);
        rules.sum::<usize>() + self.raw.len() + 2
    }

    /// Whether a rule asks for something of a flow that its last packet takes along.
    pub(crate) fn asks_of_flows(&self) -> bool {
        let asks = |one: &Match| matches!(one.key, "ct-mark" | "ct-status" | "ct-zone");
        let mut rules = self.chains.iter().flatten();
        rules.any(|rule| rule.matches.iter().any(asks))
    }

    /// The same with one rule less, for every rule.
    pub(crate) fn without_each(&self) -> Vec<Self> {
        let mut all = Vec::new();
        for at in 0..self.raw.len() {
            let mut less = self.clone();
            less.raw.remove(at);
            all.push(less);
        }
        for (chain, rules) in self.chains.iter().enumerate() {
            for at in 0..rules.len() {
                let mut less = self.clone();
                less.chains[chain].remove(at);
                all.push(less);
            }
        }
        all
    }

    /// In our words.
    pub(crate) fn ours(&self) -> String {
        let mut text = String::from(
            "version: 1
ports:
  lan: { device: net_null0 }
  wan: { device: net_null1 }
bridge: [[lan, wan]]
",
        );
        let [four, six] = sets().map(|set| set.join("\", \""));
        let _ = write!(
            text,
            "sets:
  hosts: [\"{four}\", \"{six}\"]
  four: [\"{four}\"]
  web: [80, 443, 8000-8080]
raw:"
        );
        let list = |text: &mut String, rules: &[Rule], indent| {
            *text += if rules.is_empty() { " []\n" } else { "\n" };
            for rule in rules {
                let _ = writeln!(text, "{indent}{}", rule.ours());
            }
        };
        list(&mut text, &self.raw, "  ");
        text += "chains:\n";
        for (at, rules) in self.chains.iter().enumerate() {
            let _ = writeln!(text, "  {}:", chain(at));
            if at == 0 {
                let _ = writeln!(text, "    policy: {}", end(self.accepts));
            }
            text += "    rules:";
            list(&mut text, rules, "      ");
        }
        text
    }

    /// In nft's. Every rule reports right before its verdict; a base chain cannot do that in its
    /// policy's place, so `forward` is a chain that it jumps to.
    pub(crate) fn kernel(&self) -> String {
        let [four, six] = sets().map(|set| set.join(", "));
        let mut text = format!(
            "flush ruleset
table inet oracle {{
    set four {{ type ipv4_addr; flags interval; auto-merge; elements = {{ {four} }} }}
    set six {{ type ipv6_addr; flags interval; auto-merge; elements = {{ {six} }} }}
    set web {{ type inet_service; flags interval; elements = {{ 80, 443, 8000-8080 }} }}
    chain raw {{
        type filter hook prerouting priority raw;
        ip daddr 198.18.0.1 log group 5 prefix \"fence\" drop
        iifname != {{ \"lan\", \"wan\" }} accept
"
        );
        for rule in &self.raw {
            rule.kernel(&mut text, "raw");
        }
        text += "    }
    chain look {
        type filter hook prerouting priority -150;
        iifname != { \"lan\", \"wan\" } accept
        ct state untracked log group 5 prefix \"s untracked -\" accept
        ct state invalid log group 5 prefix \"s invalid -\" accept
";
        for state in ["new", "established", "related"] {
            for dir in ["original", "reply"] {
                let _ = writeln!(
                    text,
                    "        ct state {state} ct direction {dir} log group 5 prefix \"s {state} {dir}\" accept"
                );
            }
        }
        let (end, place) = (end(self.accepts), "forward/policy");
        let _ = write!(
            text,
            "    }}
    chain base {{
        type filter hook forward priority filter;
        jump forward
        counter {} {end} comment \"{place}\"
    }}
",
            report(end, place)
        );
        for (at, rules) in self.chains.iter().enumerate() {
            let name = chain(at);
            let _ = writeln!(text, "    chain {name} {{");
            for rule in rules {
                rule.kernel(&mut text, &name);
            }
            text += "    }\n";
        }
        text + "}\n"
    }
}

fn end(accepts: bool) -> &'static str {
    if accepts { "accept" } else { "drop" }
}

fn chain(at: usize) -> String {
    match at {
        0 => "forward".into(),
        at => format!("c{at}"),
    }
}

/// Addresses of either family that have a name.
fn sets() -> [Vec<String>; 2] {
    [false, true].map(|v6| vec![host(0, 0, v6), network(1, 1, v6, 1)])
}

/// Address number `at` on a side.
fn host(at: usize, side: usize, v6: bool) -> String {
    traffic::host(at, side, v6).to_string()
}

/// The network of that with so many bits for hosts.
fn network(at: usize, side: usize, v6: bool, bits: u32) -> String {
    match traffic::host(at, side, v6) {
        std::net::IpAddr::V4(addr) => {
            let first = std::net::Ipv4Addr::from_bits(addr.to_bits() >> bits << bits);
            format!("{first}/{}", 32 - bits)
        }
        std::net::IpAddr::V6(addr) => {
            let first = std::net::Ipv6Addr::from_bits(addr.to_bits() >> bits << bits);
            format!("{first}/{}", 128 - bits)
        }
    }
}

impl Rule {
    fn ours(&self) -> String {
        let mut text = format!("- {{ name: {}", self.name);
        for one in &self.matches {
            let _ = write!(text, ", {}", one.ours);
        }
        if let Some((mark, ..)) = self.mark {
            let _ = write!(text, ", mark: {mark}");
        }
        if self.logs {
            text += ", log: true";
        }
        if self.counts {
            text += ", count: true";
        }
        let _ = match self.act {
            Act::Continue => Ok(()),
            Act::Jump(to) => write!(text, ", jump: {}", chain(to)),
            Act::Goto(to) => write!(text, ", goto: {}", chain(to)),
            Act::Reject(with, _) => write!(text, ", action: {{ reject: {with} }}"),
            Act::RejectAuto => write!(text, ", action: reject"),
            Act::Accept => write!(text, ", action: accept"),
            Act::Drop => write!(text, ", action: drop"),
            Act::Return => write!(text, ", action: return"),
            Act::Notrack => write!(text, ", action: notrack"),
        };
        text + " }"
    }

    fn kernel(&self, text: &mut String, chain: &str) {
        let both = self
            .matches
            .iter()
            .all(|one| one.kernel[0] == one.kernel[1]);
        for (at, family) in [(0, "ipv4"), (1, "ipv6")] {
            let words = self.matches.iter().map(|one| one.kernel[at].as_deref());
            let Some(words) = words.collect::<Option<Vec<&str>>>() else {
                continue;
            };
            let mut matches = words.join(" ");
            if both && at == 1 {
                return;
            } else if !both {
                matches = format!("meta nfproto {family} {matches}");
            }
            for line in self.lines(&format!("{chain}/{}", self.name)) {
                let _ = writeln!(text, "        {matches} {line}");
            }
        }
    }

    /// What follows the matches, in one rule or several.
    fn lines(&self, place: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let mut first = String::new();
        if let Some((_, mark, reads)) = self.mark {
            let set = format!("ct mark set {mark}");
            // What reads the mark ends a rule for packets that have none.
            if reads {
                lines.push(set);
            } else {
                first = set;
            }
        }
        first += " counter";
        if self.logs {
            // Nobody listens to this group.
            first += " log group 6";
        }
        let comment = format!("comment \"{place}\"");
        let verdict =
            |word: &str, said: &str| format!("{first} {} {word} {comment}", report(said, place));
        match self.act {
            Act::Accept if place.starts_with("raw/") => {
                lines.push(format!("{first} accept {comment}"));
            }
            Act::Accept => lines.push(verdict("accept", "accept")),
            Act::Drop => lines.push(verdict("drop", "drop")),
            Act::Reject(ours, with) => {
                lines.push(verdict(
                    &format!("reject with {with}"),
                    &format!("reject/{ours}"),
                ));
            }
            Act::RejectAuto => {
                for (proto, (ours, with)) in [("meta l4proto tcp ", RESET), ("", REJECTS[0])] {
                    let line = verdict(&format!("reject with {with}"), &format!("reject/{ours}"));
                    lines.push(format!("{proto}{line}"));
                }
            }
            Act::Return => lines.push(format!("{first} return {comment}")),
            Act::Jump(to) => lines.push(format!("{first} jump {} {comment}", chain(to))),
            Act::Goto(to) => lines.push(format!("{first} goto {} {comment}", chain(to))),
            Act::Continue => lines.push(format!("{first} {comment}")),
            Act::Notrack => lines.push(format!("{first} notrack accept {comment}")),
        }
        lines
    }
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
        let number = self.random.pick(&[1, 2, 2, 2, 3, 3, 4]);
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
        let (logs, counts) = (self.random.chance(8), self.random.chance(8));
        let goes_on = mark.is_some() || logs || counts;
        let act = match self.random.below(100) {
            _ if goes_on && self.random.chance(60) => Act::Continue,
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
                    Match::new("fragment", format!("fragment: {is}"), kernel)
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
            7 => self.pair("oif", "oifname", &SIDES),
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

impl Match {
    fn new(key: &'static str, ours: String, kernel: [Option<String>; 2]) -> Self {
        Self { key, ours, kernel }
    }

    fn both(key: &'static str, ours: String, kernel: String) -> Self {
        Self::new(key, ours, [Some(kernel.clone()), Some(kernel)])
    }

    /// Whether it is about transport headers: nft refuses two that exclude each other.
    fn is_of_headers(&self) -> bool {
        ["proto", "ports", "tcp-flags", "icmp-type"].contains(&self.key)
    }
}
