//! Rule sets that look like those of firewalls: the same for the same number of rules, every time.
//!
//! A third of the rules are about one host and one port, the others about prefixes, ranges of ports,
//! and named sets of some dozens to thousands of addresses. Most of them are in chains, one for each
//! network, that `forward` jumps to. One rule set can be written as policy and as rules of nftables.

use std::fmt::{self, Display, Write};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Numbers that look random.
#[derive(Debug, Clone)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    /// A number below `end` (splitmix64: Steele, Lea, Flood, OOPSLA 2014).
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % end.max(1)
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// A prefix of IPv4 addresses, or the same behind `2001:db8::/32`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prefix {
    addr: u32,
    len: u32,
    v6: bool,
}

impl Prefix {
    fn new(addr: u32, len: u32, v6: bool) -> Self {
        let addr = addr & u32::MAX.checked_shl(32 - len).unwrap_or(0);
        Self { addr, len, v6 }
    }

    /// One of its addresses.
    fn any(self, rng: &mut Rng) -> u32 {
        let host = u32::MAX.checked_shr(self.len).unwrap_or(0);
        self.addr | rng.below(1 << 32) as u32 & host
    }
}

/// The IPv6 address that stands for an IPv4 address.
pub(crate) fn v6(addr: u32) -> u128 {
    0x2001_0db8_u128 << 96 | u128::from(addr) << 64 | u128::from(addr & 0xff)
}

impl Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.v6, self.len) {
            (false, 32) => write!(f, "{}", Ipv4Addr::from(self.addr)),
            (false, len) => write!(f, "{}/{len}", Ipv4Addr::from(self.addr)),
            (true, 32) => write!(f, "{}", Ipv6Addr::from(v6(self.addr))),
            (true, len) => {
                let net = v6(self.addr) >> 64 << 64;
                write!(f, "{}/{}", Ipv6Addr::from(net), 32 + len)
            }
        }
    }
}

/// What a rule asks of an address.
#[derive(Debug, Clone, Copy)]
enum Addrs {
    Any,
    In(Prefix),
    Set(usize),
}

/// What a rule asks of the destination port.
#[derive(Debug, Clone, Copy)]
enum Ports {
    Any,
    Range(u16, u16),
    Set(usize),
}

#[derive(Debug, Clone, Copy)]
enum Then {
    Accept,
    Drop,
    Return,
    Jump(usize),
}

#[derive(Debug, Clone)]
struct Rule {
    iif: Option<usize>,
    v6: bool,
    src: Addrs,
    dst: Addrs,
    proto: Option<u8>,
    ports: Ports,
    new: bool,
    then: Then,
}

/// What a packet says to be about a rule, or about nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) iif: usize,
    pub(crate) v6: bool,
    pub(crate) src: u32,
    pub(crate) dst: u32,
    pub(crate) proto: u8,
    pub(crate) dport: u16,
}

/// A rule set.
#[derive(Debug)]
pub(crate) struct RuleSet {
    seed: u64,
    addr_sets: Vec<Vec<Prefix>>,
    port_sets: Vec<Vec<(u16, u16)>>,
    /// Those of `forward` without its first two, and of the chains that it jumps to.
    chains: Vec<Vec<Rule>>,
    total: usize,
}

/// Lengths of prefixes: mostly those of sites and networks, as rules of firewalls have them.
const LENGTHS: [u32; 16] = [
    8, 12, 16, 16, 18, 20, 22, 23, 24, 24, 24, 24, 25, 26, 27, 28,
];

/// How a policy is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style<'a> {
    /// Rules before and behind those of `forward`.
    pub(crate) first: &'a [&'a str],
    pub(crate) last: &'a [&'a str],
    /// The policy of `forward`.
    pub(crate) end: &'a str,
    /// Every verdict is to accept.
    pub(crate) accepts: bool,
    /// What every rule with a verdict has beside it.
    pub(crate) count: &'a str,
}

impl Style<'_> {
    /// As most policies are.
    pub(crate) const USUAL: Style<'static> = Style {
        first: &[
            "{ name: known, ct: [established, related], action: accept }",
            "{ name: broken, ct: invalid, action: drop }",
        ],
        last: &[],
        end: "drop",
        accepts: false,
        count: "",
    };
}

/// Ports that services listen to.
const SERVICES: [u16; 16] = [
    22, 25, 53, 80, 123, 143, 161, 389, 443, 445, 587, 993, 1433, 3306, 5432, 8080,
];

impl RuleSet {
    /// One of `total` rules. Another `seed` gives another.
    pub(crate) fn new(total: usize, seed: u64) -> Self {
        let mut rng = Rng(seed ^ (total as u64) << 32);
        let nets = (total / 200).clamp(2, 64);
        let sets = (total / 100).clamp(8, 200);
        let addr_sets = (0..sets)
            .map(|_| {
                // from a dozen to thousands, as many small as large
                let len = (12u64 << rng.below(9)) + rng.below(64);
                let net = Prefix::new(rng.below(1 << 32) as u32, 4 + rng.below(12) as u32, false);
                (0..len).map(|_| entry(net, &mut rng)).collect()
            })
            .collect();
        let port_sets = (0..sets.min(40)).map(|_| {
            (0..2 + rng.below(12))
                .map(|_| ports(&mut rng))
                .collect::<Vec<_>>()
        });
        let mut made = Self {
            seed,
            port_sets: port_sets.collect(),
            addr_sets,
            chains: vec![Vec::new(); 1 + nets],
            total,
        };
        let own = total.saturating_sub(nets + 2);
        for _ in 0..own {
            let chain = match rng.below(10) {
                0..3 => 0,
                _ => 1 + rng.below(nets as u64) as usize,
            };
            let rule = made.rule(chain, &mut rng);
            made.chains[chain].push(rule);
        }
        for net in 1..=nets {
            let jump = Rule {
                iif: None,
                v6: false,
                src: Addrs::Any,
                dst: Addrs::In(network(net)),
                proto: None,
                ports: Ports::Any,
                new: false,
                then: Then::Jump(net),
            };
            let forward = &mut made.chains[0];
            let at = rng.below(forward.len() as u64 + 1) as usize;
            forward.insert(at, jump);
        }
        made
    }

    fn rule(&self, chain: usize, rng: &mut Rng) -> Rule {
        let set = |rng: &mut Rng| Addrs::Set(rng.below(self.addr_sets.len() as u64) as usize);
        // one in ten of `forward` is about IPv6
        let v6 = chain == 0 && rng.below(10) == 0;
        let inside = match chain {
            0 => Prefix::new(10 << 24, 8, v6),
            net => network(net),
        };
        let host = |net: Prefix, rng: &mut Rng| Addrs::In(Prefix::new(net.any(rng), 32, v6));
        let part = |net: Prefix, rng: &mut Rng| {
            let len = rng.one(&LENGTHS).max(net.len + 2);
            Addrs::In(Prefix::new(net.any(rng), len, v6))
        };
        let world = Prefix::new(0, 0, v6);
        let tcp = if rng.below(4) == 0 { 17 } else { 6 };
        let service = rng.one(&SERVICES);
        let ranges = rng.below(self.port_sets.len() as u64) as usize;
        let (src, dst, proto, ports) = match rng.below(12) {
            0..3 => (
                part(world, rng),
                host(inside, rng),
                Some(tcp),
                Ports::Range(service, service),
            ),
            3 => (
                host(world, rng),
                host(inside, rng),
                Some(tcp),
                Ports::Range(service, service),
            ),
            4..6 => (part(world, rng), part(inside, rng), None, Ports::Any),
            6 => (Addrs::Any, part(inside, rng), Some(tcp), Ports::Set(ranges)),
            7..9 => {
                let (low, high) = ports_of_range(rng);
                (
                    part(world, rng),
                    part(inside, rng),
                    Some(tcp),
                    Ports::Range(low, high),
                )
            }
            9 if !v6 => (set(rng), host(inside, rng), Some(tcp), Ports::Set(ranges)),
            10 if !v6 => (set(rng), part(inside, rng), None, Ports::Any),
            11 if !v6 => (
                part(world, rng),
                set(rng),
                Some(tcp),
                Ports::Range(service, service),
            ),
            _ => (
                part(world, rng),
                host(inside, rng),
                Some(1 + 57 * u8::from(v6)),
                Ports::Any,
            ),
        };
        Rule {
            iif: (rng.below(3) == 0).then(|| rng.below(2) as usize),
            v6,
            src,
            dst,
            proto,
            ports,
            new: rng.below(2) == 0,
            then: match rng.below(20) {
                0 if chain != 0 => Then::Return,
                0..13 => Then::Accept,
                _ => Then::Drop,
            },
        }
    }

    /// How many rules there are.
    pub(crate) fn len(&self) -> usize {
        2 + self.chains.iter().map(Vec::len).sum::<usize>()
    }

    /// How many entries all sets of addresses have.
    pub(crate) fn entries(&self) -> usize {
        self.addr_sets.iter().map(Vec::len).sum()
    }

    /// What a packet about some rule says; every second is about nothing in particular.
    pub(crate) fn call(&self, n: u64, only: Option<u8>) -> Call {
        let mut rng = Rng(self.seed.wrapping_add(n << 20));
        let mut call = Call {
            iif: rng.below(2) as usize,
            v6: false,
            src: rng.below(1 << 32) as u32,
            dst: rng.below(1 << 32) as u32,
            proto: only.unwrap_or(if rng.below(4) == 0 { 17 } else { 6 }),
            dport: rng.below(1 << 16) as u16,
        };
        if n.is_multiple_of(2) {
            return call;
        }
        let rule = loop {
            let chain = &self.chains[rng.below(self.chains.len() as u64) as usize];
            let Some(rule) = chain.get(rng.below(chain.len() as u64) as usize) else {
                continue;
            };
            let fits = |proto| only.is_none_or(|only| proto == only && !rule.v6);
            if rule.proto.is_none_or(fits) && (only.is_none() || !rule.v6) {
                break rule;
            }
        };
        call.v6 = rule.v6;
        call.iif = rule.iif.unwrap_or(call.iif);
        let addr = |of: Addrs, rng: &mut Rng, other: u32| match of {
            Addrs::Any => other,
            Addrs::In(prefix) => prefix.any(rng),
            Addrs::Set(set) => {
                let set = &self.addr_sets[set];
                set[rng.below(set.len() as u64) as usize].any(rng)
            }
        };
        call.src = addr(rule.src, &mut rng, call.src);
        call.dst = addr(rule.dst, &mut rng, call.dst);
        call.proto = rule.proto.unwrap_or(call.proto);
        let (low, high) = match rule.ports {
            Ports::Any => (0, u16::MAX),
            Ports::Range(low, high) => (low, high),
            Ports::Set(set) => {
                let set = &self.port_sets[set];
                set[rng.below(set.len() as u64) as usize]
            }
        };
        call.dport = low + rng.below(u64::from(high - low) + 1) as u16;
        call
    }

    /// The policy behind `head`, written in a `style`.
    pub(crate) fn policy(&self, head: &str, style: &Style<'_>) -> String {
        let mut out = format!("{head}{}chains:\n", self.sets());
        self.chains(&mut out, style);
        out
    }

    /// The section of sets.
    fn sets(&self) -> String {
        let mut out = String::from("sets:\n");
        for (at, set) in self.addr_sets.iter().enumerate() {
            let _ = writeln!(out, "  a{at}: [{}]", list(set.iter()));
        }
        for (at, set) in self.port_sets.iter().enumerate() {
            let _ = writeln!(out, "  p{at}: [{}]", list(set.iter().map(range)));
        }
        out
    }

    fn chains(&self, out: &mut String, style: &Style<'_>) {
        for (at, rules) in self.chains.iter().enumerate() {
            match at {
                0 => {
                    let _ = write!(out, "  forward:\n    policy: {}\n    rules:\n", style.end);
                    for rule in style.first {
                        let _ = writeln!(out, "      - {rule}");
                    }
                }
                net => {
                    let _ = write!(out, "  net{net}:\n    rules:\n");
                }
            }
            for (number, rule) in rules.iter().enumerate() {
                let _ = write!(out, "      - {{ name: r{number}");
                self.words(out, rule, style);
                out.push_str(" }\n");
            }
            if at == 0 {
                for rule in style.last {
                    let _ = writeln!(out, "      - {rule}");
                }
            }
        }
    }

    fn words(&self, out: &mut String, rule: &Rule, style: &Style<'_>) {
        let addr = |key: &str, of: Addrs| match of {
            Addrs::Any => String::new(),
            Addrs::In(prefix) if prefix.v6 => format!(", {key}: \"{prefix}\""),
            Addrs::In(prefix) => format!(", {key}: {prefix}"),
            Addrs::Set(set) => format!(", {key}: $a{set}"),
        };
        let iif = rule.iif.map(|iif| format!(", iif: {}", NAMES[iif]));
        let proto = rule
            .proto
            .map(|proto| format!(", proto: {}", name(proto, "icmpv6")));
        let ports = match rule.ports {
            Ports::Any => String::new(),
            Ports::Range(low, high) => format!(", dport: {}", range(&(low, high))),
            Ports::Set(set) => format!(", dport: $p{set}"),
        };
        let then = match rule.then {
            Then::Jump(net) => format!(", jump: net{net}"),
            Then::Return => ", action: return".to_owned(),
            Then::Drop if !style.accepts => format!(", action: drop{}", style.count),
            Then::Accept | Then::Drop => format!(", action: accept{}", style.count),
        };
        let _ = write!(
            out,
            "{}{}{}{}{ports}{}{then}",
            iif.unwrap_or_default(),
            addr("saddr", rule.src),
            addr("daddr", rule.dst),
            proto.unwrap_or_default(),
            if rule.new { ", ct: new" } else { "" },
        );
    }

    /// The same for nft, rule by rule; every verdict is to accept.
    pub(crate) fn nft(&self) -> String {
        let mut out = String::from("table inet bench {\n");
        let set = |out: &mut String, name: &str, kind: &str, list: &str| {
            let _ = writeln!(
                out,
                "  set {name} {{ type {kind}; flags interval; auto-merge; elements = {{ {list} }} }}"
            );
        };
        for (at, entries) in self.addr_sets.iter().enumerate() {
            set(
                &mut out,
                &format!("a{at}"),
                "ipv4_addr",
                &list(entries.iter()),
            );
        }
        for (at, entries) in self.port_sets.iter().enumerate() {
            set(
                &mut out,
                &format!("p{at}"),
                "inet_service",
                &list(entries.iter().map(range)),
            );
        }
        // a chain must be there before a jump to it
        for (at, rules) in self.chains.iter().enumerate().rev() {
            match at {
                0 => out.push_str(NFT_FORWARD),
                net => {
                    let _ = writeln!(out, "  chain net{net} {{");
                }
            }
            for rule in rules {
                self.nft_words(&mut out, rule);
            }
            out.push_str("  }\n");
        }
        out.push_str("}\n");
        out
    }

    fn nft_words(&self, out: &mut String, rule: &Rule) {
        let family = if rule.v6 { "ip6" } else { "ip" };
        out.push_str("   ");
        if let Some(iif) = rule.iif {
            let _ = write!(out, " iifname \"{}\"", NAMES[iif]);
        }
        for (key, of) in [("saddr", rule.src), ("daddr", rule.dst)] {
            let _ = match of {
                Addrs::Any => Ok(()),
                Addrs::In(prefix) => write!(out, " {family} {key} {prefix}"),
                Addrs::Set(set) => write!(out, " {family} {key} @a{set}"),
            };
        }
        let proto = rule.proto.map(|proto| name(proto, "ipv6-icmp"));
        let _ = match (rule.ports, proto) {
            (Ports::Range(low, high), Some(proto)) => {
                write!(out, " {proto} dport {}", range(&(low, high)))
            }
            (Ports::Set(set), Some(proto)) => write!(out, " {proto} dport @p{set}"),
            (_, Some(proto)) => write!(out, " meta l4proto {proto}"),
            (_, None) => Ok(()),
        };
        if rule.new {
            out.push_str(" ct state new");
        }
        let _ = match rule.then {
            Then::Jump(net) => writeln!(out, " counter jump net{net}"),
            Then::Return => writeln!(out, " counter return"),
            Then::Accept | Then::Drop => writeln!(out, " counter accept"),
        };
    }

    /// How many rules were asked for.
    pub(crate) fn wanted(&self) -> usize {
        self.total
    }
}

/// What the ports are called.
pub(crate) const NAMES: [&str; 2] = ["lan", "wan"];

/// What begins the forward chain of nft, and all of it without rules.
pub(crate) const NFT_FORWARD: &str = "  chain forward {
    type filter hook forward priority 0; policy accept;
    ct state established,related counter accept
    ct state invalid counter drop
";

/// The network that is judged in its own chain.
fn network(net: usize) -> Prefix {
    Prefix::new(10 << 24 | (net as u32) << 18, 14, false)
}

/// Most entries of sets are hosts.
fn entry(net: Prefix, rng: &mut Rng) -> Prefix {
    let len = match rng.below(4) {
        0 => 24 + rng.below(8) as u32,
        _ => 32,
    };
    Prefix::new(net.any(rng), len, false)
}

fn ports(rng: &mut Rng) -> (u16, u16) {
    match rng.below(3) {
        0 => ports_of_range(rng),
        _ => {
            let port = 1 + rng.below(20_000) as u16;
            (port, port)
        }
    }
}

fn ports_of_range(rng: &mut Rng) -> (u16, u16) {
    let low = rng.one(&[1024, 5000, 8000, 20_000, 49_152]) + rng.below(1000) as u16;
    (low, low + rng.below(10_000) as u16)
}

fn range((low, high): &(u16, u16)) -> String {
    if low == high {
        low.to_string()
    } else {
        format!("{low}-{high}")
    }
}

fn name(proto: u8, icmpv6: &'static str) -> &'static str {
    match proto {
        6 => "tcp",
        17 => "udp",
        58 => icmpv6,
        _ => "icmp",
    }
}

fn list<T: Display>(items: impl Iterator<Item = T>) -> String {
    let mut out = String::new();
    for item in items {
        if !out.is_empty() {
            out.push_str(", ");
        }
        let _ = write!(out, "{item}");
    }
    out
}
