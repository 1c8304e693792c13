//! Policies of what both languages have, in the words of either.
//!
//! A rule of ours whose matches read otherwise in IPv4 than in IPv6 is two of nft's.

use super::traffic;
use super::words::{Mark, REJECTS, RESET};
use std::fmt::Write;

/// A policy.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// Whether the chain `forward` ends in `accept`.
    pub(super) accepts: bool,
    /// Before tracking.
    pub(super) raw: Vec<Rule>,
    /// The first is `forward`; each jumps only to later ones.
    pub(super) chains: Vec<Vec<Rule>>,
}

/// A rule.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) name: String,
    pub(super) matches: Vec<Match>,
    pub(super) mark: Option<Mark>,
    pub(super) logs: bool,
    pub(super) counts: bool,
    pub(super) act: Act,
}

/// A match in our words, and in nft's for IPv4 and for IPv6, where it can match.
#[derive(Clone, Debug)]
pub(super) struct Match {
    pub(super) key: &'static str,
    pub(super) ours: String,
    pub(super) kernel: [Option<String>; 2],
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
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

/// Where names of packets' rules begin in what the kernel says.
fn report(verdict: &str, place: &str) -> String {
    format!("log group 5 prefix \"v {verdict}:{place}\"")
}

impl Policy {
    /// How many operations it has: a rule each, and the end of every list.
    pub(crate) fn size(&self) -> usize {
        let rules = self.chains.iter().map(|chain| chain.len() + 1);
        rules.sum::<usize>() + self.raw.len() + 2
    }

    /// Whether a rule asks for something of a flow that its last packet takes along.
    pub(crate) fn asks_of_flows(&self) -> bool {
        let asks = |one: &Match| matches!(one.key, "ct-mark" | "ct-status");
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
pub(super) fn host(at: usize, side: usize, v6: bool) -> String {
    traffic::host(at, side, v6).to_string()
}

/// The network of that with so many bits for hosts.
pub(super) fn network(at: usize, side: usize, v6: bool, bits: u32) -> String {
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

impl Match {
    pub(super) fn new(key: &'static str, ours: String, kernel: [Option<String>; 2]) -> Self {
        Self { key, ours, kernel }
    }

    pub(super) fn both(key: &'static str, ours: String, kernel: String) -> Self {
        Self::new(key, ours, [Some(kernel.clone()), Some(kernel)])
    }

    /// Whether it is about transport headers: nft refuses two that exclude each other.
    pub(super) fn is_of_headers(&self) -> bool {
        ["proto", "ports", "tcp-flags", "icmp-type"].contains(&self.key)
    }
}
