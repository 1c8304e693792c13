//! Random policies and random packets for them, for properties that must hold for all: every match
//! and action of the language, with so few values each that rules overlap and packets match them.
//! A number makes the same policy and the same packets every time.
//!
//! Life-cycle: a [`Dice`] lives for one case. Concurrency: plain values.

use std::fmt::Write;

use super::check::MATCHES;
use super::check::keys::OF_FLOWS;
use super::flow::FlowFacts;
use super::{Compiled, Facts, MAX_CONNLIMITS, PortId, RawVerdict};
use crate::base::tally::Tally;
use crate::base::time::Now;
use crate::conntrack::entry::status;
use crate::conntrack::helper::HelperId;
use crate::conntrack::shard::FlowView;
use crate::conntrack::types::{CtState, Dir, proto};
use crate::helpers::INFOS;
use crate::wire::parsed::{Addrs, Checksum, Fragment, L3, L4, NO_VLAN, Parsed, TcpHeader};

/// A source of choices (Steele, Lea, Flood: SplitMix64).
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// Ports, in the order of their ids: two bridges.
pub(crate) const PORTS: [&str; 4] = ["lan", "wan", "dmz", "srv"];

const ADDRS: &[&str] = &[
    "10.0.0.1",
    "10.0.0.0/30",
    "10.0.0.2-10.2.0.7",
    "[10.0.0.1, 10.2.0.7]",
    "\"!10.0.0.2\"",
    "\"fd00::1\"",
    "\"fd00::/126\"",
    "[10.0.0.2, \"fd00::2\"]",
    "$hosts",
    "\"!$hosts\"",
    "$four",
    "\"!$four\"",
    "0.0.0.0/0",
];
const PORT_SETS: &[&str] = &[
    "22",
    "80",
    "53",
    "[22, 53]",
    "1-1023",
    "1024-65535",
    "$web",
    "\"!$web\"",
    "\"!22\"",
];
const WITH_PORTS: &[&str] = &["tcp", "udp", "[tcp, udp]", "sctp", "[udp, udplite]"];
const PROTOS: &[&str] = &[
    "tcp",
    "udp",
    "icmp",
    "icmpv6",
    "[icmp, icmpv6]",
    "gre",
    "89",
    "\"!tcp\"",
    "[tcp, udp, icmp]",
];
const ICMP: &[&str] = &[
    "echo-request",
    "echo-reply",
    "destination-unreachable",
    "[echo-request, time-exceeded]",
    "\"!echo-request\"",
    "destination-unreachable/4",
];
const FLAGS: &[&str] = &[
    "syn",
    "\"!syn\"",
    "\"syn,ack/syn,ack\"",
    "\"fin,rst/none\"",
    "\"syn,psh/syn\"",
    "\"!ecn,cwr/ecn,cwr\"",
    "[syn, \"rst/rst\"]",
    "[\"fin,ack/fin\", \"fin,ack/ack\", \"syn,psh/none\"]",
];
const STATES: &[&str] = &[
    "new",
    "established",
    "[established, related]",
    "related",
    "invalid",
    "\"!invalid\"",
    "untracked",
    "[new, untracked]",
];
const MARKS: &[&str] = &[
    "0",
    "1",
    "\"!0\"",
    "\"0x10/0xf0\"",
    "[1, 0x12]",
    "\"!1/0xf\"",
];
const SET_MARKS: &[&str] = &["1", "0", "\"0x10/0xf0\"", "\"2/0xf\""];
const STATUS: &[&str] = &[
    "seen-reply",
    "assured",
    "expected",
    "confirmed",
    "[expected, seen-reply]",
    "\"!seen-reply\"",
    "\"!confirmed\"",
];
const HELPERS: &[&str] = &["ftp", "sip", "[ftp, tftp]", "\"!ftp\""];
const LENGTHS: &[&str] = &["46", "40-60", "\"!46\"", "[40, 100-1500]"];
const DSCPS: &[&str] = &["cs0", "ef", "[ef, cs1]", "\"!ef\""];
const VLANS: &[&str] = &["10", "[0, 10]", "\"!10\"", "0-4094"];
const ZONES: &[&str] = &["0", "10", "[0, 3]", "\"!3\""];
const LIMITS: &[&str] = &[
    "1/second burst 2",
    "5/minute",
    "1000/second burst 100",
    "\"1/second burst 2 per source\"",
    "\"5/minute per destination/24,64\"",
    "2/second per zone",
];
/// [`Scene`]s are in the eighteenth minute of 1970, a Thursday.
const TIMES: &[&str] = &[
    "thu",
    "sat-sun",
    "\"00:17-00:18\"",
    "\"thu 00:00-00:17\"",
    "{ days: thu, from: 1970-01-01 }",
    "{ until: \"1970-01-01 00:17\" }",
];
const TIMEOUTS: &[&str] = &["1h", "default", "{ udp: { replied: 5s } }"];
const CONNLIMITS: &[&str] = &[
    "2",
    "over 2",
    "\"3 per source/24,64\"",
    "over 4 per destination",
    "6 per zone",
    "over 8 per rule",
];
const REJECTS: &[&str] = &[
    "reject",
    "{ reject: admin-prohibited }",
    "{ reject: host-unreachable }",
    "{ reject: net-unreachable }",
    "{ reject: icmp-port-unreachable }",
];

/// Which matches and actions a rule may have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    Raw,
    Helpers,
    Chains,
}

/// A policy of the whole language, as text.
#[derive(Debug)]
pub(crate) struct RandomPolicy<'d> {
    dice: &'d mut Dice,
    text: String,
    connlimits: usize,
    keyed_limits: usize,
    /// How many times as many rules there are as usual.
    scale: u64,
    /// Whether there are matches that change with time and with packets before: `limit` and
    /// `connlimit`.
    counting: bool,
}

/// A random policy; with `limit` and `connlimit` only if `counting`.
pub(crate) fn policy(dice: &mut Dice, counting: bool) -> String {
    long_policy(dice, counting, 1)
}

/// The same, with `scale` times as many rules.
pub(crate) fn long_policy(dice: &mut Dice, counting: bool, scale: u64) -> String {
    let mut policy = RandomPolicy {
        dice,
        text: String::new(),
        connlimits: 0,
        keyed_limits: 0,
        scale,
        counting,
    };
    policy.write();
    policy.text
}

impl RandomPolicy<'_> {
    fn put(&mut self, text: &str) {
        self.text.push_str(text);
    }

    fn write(&mut self) {
        self.put("version: 1\nports: {");
        for name in PORTS {
            let _ = write!(self.text, " {name}: {{ device: net_tap_{name} }},");
        }
        let zone = self.dice.pick(&["vlan", "3", "0"]);
        let _ = write!(
            self.text,
            " }}\nbridge: [[lan, wan], {{ ports: [dmz, srv], zone: {zone} }}]\n"
        );
        self.put("system: { time-zone: UTC }\n");
        self.put("sets:\n  hosts: [10.0.0.2, 10.2.0.0/16, \"fd00::2\"]\n");
        self.put("  four: [10.0.0.0/24]\n  web: [80, 443, 8000-8080]\n");
        for (title, section, most) in [("raw", Section::Raw, 3), ("helpers", Section::Helpers, 4)] {
            let rules = self.dice.below(most) * self.scale;
            let _ = writeln!(self.text, "{title}:{}", if rules == 0 { " []" } else { "" });
            (0..rules).for_each(|_| self.rule(section, 0, 0));
        }
        // a chain jumps only to later ones, so that there are no loops
        let chains = self.dice.below(5);
        self.put("chains:\n");
        for chain in 0..=chains {
            match chain {
                0 => {
                    let policy = self.dice.pick(&["accept", "drop"]);
                    let _ = write!(self.text, "  forward:\n    policy: {policy}\n    rules:");
                }
                _ => {
                    let _ = write!(self.text, "  c{chain}:\n    rules:");
                }
            }
            let rules = self.dice.below(7) * self.scale;
            self.put(if rules == 0 { " []\n" } else { "\n" });
            (0..rules).for_each(|_| self.rule(Section::Chains, chain, chains));
        }
    }

    /// A rule of chain number `chain` of `chains` and one.
    fn rule(&mut self, section: Section, chain: u64, chains: u64) {
        let at = self.text.len();
        self.put("      - { ");
        let tcp_only = match section {
            Section::Helpers => {
                let (helper, proto) = self.dice.pick(&[
                    ("ftp", "tcp"),
                    ("tftp", "udp"),
                    ("irc", "tcp"),
                    ("sip", "udp"),
                ]);
                let ports = self.dice.pick(PORT_SETS);
                let _ = write!(
                    self.text,
                    "helper: {helper}, proto: {proto}, dport: {ports}, "
                );
                // `irc` refuses addresses of IPv6
                if self.dice.one_in(2) {
                    let addrs = self.dice.pick(&["10.0.0.1", "$four", "\"!10.0.0.2\""]);
                    let _ = write!(self.text, "saddr: {addrs}, ");
                }
                false
            }
            Section::Raw | Section::Chains => self.matches(section),
        };
        if section == Section::Chains {
            self.action(chain, chains, tcp_only);
        } else if section == Section::Raw {
            let action = self.dice.pick(&["accept", "notrack"]);
            let _ = write!(self.text, "action: {action}");
        }
        let end = self.text.trim_end_matches([',', ' ']).len();
        self.text.truncate(end.max(at));
        self.put(" }\n");
    }

    fn action(&mut self, chain: u64, chains: u64, tcp_only: bool) {
        if self.dice.one_in(6) {
            let log = self.dice.pick(&["log: true, ", "log: { prefix: seen }, "]);
            self.put(log);
        }
        let mut goes_on = self.text.ends_with("log: true, ") || self.text.ends_with("seen }, ");
        if self.dice.one_in(6) {
            let mark = self.dice.pick(SET_MARKS);
            let _ = write!(self.text, "mark: {mark}, ");
            goes_on = true;
        }
        if self.dice.one_in(8) {
            let timeout = self.dice.pick(TIMEOUTS);
            let _ = write!(self.text, "timeout: {timeout}, ");
            goes_on = true;
        }
        if self.dice.one_in(8) {
            let count = self.dice.pick(&["true", "some", "others"]);
            let _ = write!(self.text, "count: {count}, ");
            goes_on = true;
        }
        if goes_on && self.dice.one_in(2) {
            return;
        }
        let roll = self.dice.below(12);
        if chain < chains && roll < 5 {
            let target = chain + 1 + self.dice.below(chains - chain);
            let word = if roll < 4 { "jump" } else { "goto" };
            let _ = write!(self.text, "{word}: c{target}");
            return;
        }
        let reject = self.dice.pick(REJECTS);
        let reject = if tcp_only && self.dice.one_in(3) {
            "{ reject: tcp-reset }"
        } else {
            reject
        };
        let action = self.dice.pick(&[
            "accept", "accept", "accept", "drop", "drop", reject, "return",
        ]);
        let _ = write!(self.text, "action: {action}");
    }

    /// Up to five matches. Whether the rule is for TCP only.
    fn matches(&mut self, section: Section) -> bool {
        let (mut tcp_only, mut proto) = (false, false);
        let number = self.dice.pick(&[0, 1, 1, 2, 2, 3, 3, 4, 5]);
        let mut left = MATCHES.to_vec();
        match section {
            // of them there are most
            Section::Chains => left.push("ct"),
            Section::Raw | Section::Helpers => {
                left.retain(|key| *key != "ct" && !OF_FLOWS.contains(key));
            }
        }
        for _ in 0..number {
            let key = self.dice.pick(&left);
            left.retain(|one| *one != key);
            let pool: &[&str] = match key {
                "iif" | "oif" => &["lan", "wan", "[lan, dmz]", "\"!lan\"", "srv"],
                "family" => &["ipv4", "ipv6"],
                "saddr" | "daddr" => ADDRS,
                "icmp-type" => ICMP,
                "tcp-flags" => FLAGS,
                "length" => LENGTHS,
                "fragment" => &["true", "false", "[true]", "\"!true\""],
                "dscp" => DSCPS,
                "vlan" => VLANS,
                "ct-zone" => ZONES,
                "ct" => STATES,
                "ct-direction" => &["original", "reply"],
                "ct-mark" => MARKS,
                "ct-status" => STATUS,
                "ct-helper" => HELPERS,
                "time" => TIMES,
                // a keyed one takes two megabytes
                "limit" if self.counting && self.keyed_limits < 8 => LIMITS,
                "connlimit" if self.counting && self.connlimits < MAX_CONNLIMITS => {
                    self.connlimits += 1;
                    CONNLIMITS
                }
                "proto" | "sport" | "dport" if !proto => {
                    proto = true;
                    let names = if key == "proto" { PROTOS } else { WITH_PORTS };
                    let names = self.dice.pick(names);
                    tcp_only = names == "tcp";
                    let _ = write!(self.text, "proto: {names}, ");
                    if key == "proto" {
                        continue;
                    }
                    PORT_SETS
                }
                _ => continue,
            };
            let value = self.dice.pick(pool);
            self.keyed_limits += usize::from(key == "limit" && value.contains(" per "));
            let _ = write!(self.text, "{key}: {value}, ");
        }
        tcp_only
    }
}

/// A packet, and what the tracker says of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene {
    pub(crate) packet: Parsed,
    pub(crate) iif: PortId,
    pub(crate) oif: PortId,
    pub(crate) state: CtState,
    pub(crate) dir: Option<Dir>,
    pub(crate) flow: Option<Known>,
    pub(crate) now: Now,
}

/// What the tracker knows of a packet's flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) status: u8,
    pub(crate) confirmed: bool,
    pub(crate) mark: u32,
    pub(crate) helper: Option<HelperId>,
    pub(crate) original: Addrs,
    pub(crate) zone: u16,
}

impl Scene {
    /// Any packet, in any state.
    pub(crate) fn any(dice: &mut Dice, policy: &Compiled) -> Self {
        let mut scene = Self::somewhere(dice);
        scene.state = dice.pick(&[
            CtState::New,
            CtState::New,
            CtState::Established,
            CtState::Established,
            CtState::Related,
            CtState::Invalid,
            CtState::Untracked,
        ]);
        if let L4::Tcp(header) = &mut scene.packet.l4 {
            header.flags = dice.pick(&[0x02, 0x12, 0x10, 0x18, 0x11, 0x04, 0xc2, 0x00, 0x29]);
        }
        if dice.one_in(16) {
            scene.packet.l4 = L4::None;
        }
        if matches!(scene.state, CtState::Invalid | CtState::Untracked) {
            return scene;
        }
        let dir = dice.pick(&[Dir::Original, Dir::Original, Dir::Reply]);
        scene.dir = Some(dir);
        let replied = scene.state == CtState::Established;
        let bits = [status::SEEN_REPLY, status::SEEN_REPLY | status::ASSURED];
        let replied = if replied { dice.pick(&bits) } else { 0 };
        scene.enter(dice, policy, replied);
        if let Some(flow) = &mut scene.flow {
            flow.confirmed = scene.state != CtState::New || dice.one_in(3);
            if dir == Dir::Reply {
                flow.original = flow.original.flip();
            }
        }
        scene
    }

    /// A packet that can start a flow.
    pub(crate) fn first(dice: &mut Dice, policy: &Compiled) -> Self {
        let mut scene = Self::somewhere(dice);
        if let L4::Icmp { ty, code, .. } = &mut scene.packet.l4 {
            *ty = if scene.packet.proto == proto::ICMP {
                8
            } else {
                128
            };
            *code = 0;
        }
        if let L4::Tcp(header) = &mut scene.packet.l4 {
            header.flags = 0x02 | dice.pick(&[0, 0, 0xc0, 0x08, 0x20]);
        }
        scene.state = CtState::New;
        scene.dir = Some(Dir::Original);
        scene.enter(dice, policy, 0);
        if scene.flow.is_some_and(|flow| flow.helper.is_some()) {
            scene.state = CtState::Related;
        }
        scene
    }

    /// The same packet as if raw rules kept it from being tracked, if they do.
    pub(crate) fn after_raw(self, policy: &Compiled) -> Self {
        let facts = self.facts(None);
        match policy.raw(0, &facts) {
            RawVerdict::Track => self,
            RawVerdict::Notrack => Self {
                state: CtState::Untracked,
                dir: None,
                flow: None,
                ..self
            },
        }
    }

    /// What rules know about it; `flow` is made by [`Scene::flow_facts`].
    pub(crate) fn facts<'a>(&'a self, flow: Option<&'a FlowFacts<'a>>) -> Facts<'a> {
        Facts {
            packet: &self.packet,
            iif: self.iif,
            oif: self.oif,
            state: self.state,
            dir: self.dir,
            flow,
            now: self.now,
        }
    }

    /// Its flow, as rules see it.
    pub(crate) fn flow_facts<'a>(&self, tally: &'a Tally) -> Option<FlowFacts<'a>> {
        self.flow.map(|flow| {
            FlowFacts::new(FlowView {
                status: flow.status,
                confirmed: flow.confirmed,
                mark: flow.mark,
                helper: flow.helper,
                original: flow.original,
                zone: flow.zone,
                tally,
            })
        })
    }

    /// Gives it a flow with `bits` of status.
    fn enter(&mut self, dice: &mut Dice, policy: &Compiled, bits: u8) {
        let helper = dice.one_in(4).then(|| {
            let at = dice.below(INFOS.len() as u64);
            HelperId::new(at as usize)
        });
        let helper = helper.flatten();
        self.flow = Some(Known {
            status: bits | helper.map_or(0, |_| status::EXPECTED),
            confirmed: false,
            mark: dice.pick(&[0, 0, 1, 0x12, 0xff]),
            helper,
            original: self.packet.addrs,
            zone: policy.zone(self.iif, self.packet.vlan),
        });
    }

    /// A packet between two ports that are bridged, untracked.
    fn somewhere(dice: &mut Dice) -> Self {
        let (iif, oif) = dice.pick(&[(0, 1), (0, 1), (1, 0), (2, 3), (3, 2)]);
        Self {
            packet: packet(dice),
            iif: PortId(iif),
            oif: PortId(oif),
            state: CtState::Untracked,
            dir: None,
            flow: None,
            now: Now::from_nanos(1_000_000_000_000 + dice.below(60_000) * 1_000_000),
        }
    }
}

/// A packet of values that the rules here ask for, or come near to.
fn packet(dice: &mut Dice) -> Parsed {
    let v6 = dice.one_in(3);
    let end = |dice: &mut Dice| dice.pick(&[1u32, 2, 2, 3, 9]);
    let (src, dst) = (end(dice), end(dice));
    let addrs = if v6 {
        let net = 0xfd00u128 << 112;
        Addrs::V6 {
            src: net | u128::from(src),
            dst: net | u128::from(dst),
        }
    } else {
        let net = dice.pick(&[0x0a00_0000u32, 0x0a02_0005]);
        Addrs::V4 {
            src: 0x0a00_0000 | src,
            dst: net + dst,
        }
    };
    let icmp = if v6 { proto::ICMPV6 } else { proto::ICMP };
    let number = dice.pick(&[
        proto::TCP,
        proto::TCP,
        proto::TCP,
        proto::UDP,
        proto::UDP,
        icmp,
        proto::SCTP,
        proto::UDPLITE,
        proto::GRE,
        89,
    ]);
    let port = |dice: &mut Dice| dice.pick(&[22u16, 53, 80, 443, 1024, 8005, 40_000]);
    let (sport, dport) = (port(dice), port(dice));
    let l4 = match number {
        proto::TCP => L4::Tcp(TcpHeader {
            sport,
            dport,
            seq: 1,
            ack: 0,
            window: 1000,
            flags: 0x02,
            header_len: 20,
        }),
        proto::UDP | proto::UDPLITE => L4::Udp { sport, dport },
        proto::SCTP => L4::Sctp {
            sport,
            dport,
            vtag: 0,
        },
        proto::GRE => L4::Gre { call_id: 0 },
        proto::ICMP | proto::ICMPV6 => {
            let types: &[u8] = if v6 {
                &[128, 129, 1, 3]
            } else {
                &[8, 0, 3, 11]
            };
            L4::Icmp {
                ty: dice.pick(types),
                code: dice.pick(&[0, 4]),
                id: 7,
            }
        }
        _ => L4::Other,
    };
    let len = dice.pick(&[40u32, 46, 60, 100, 1500]);
    Parsed {
        l3: if v6 { L3::Ipv6 } else { L3::Ipv4 },
        addrs,
        l4,
        ethertype: if v6 { 0x86dd } else { 0x0800 },
        vlan: dice.pick(&[NO_VLAN, NO_VLAN, 0, 10, 3]),
        l3_offset: 14,
        l4_offset: if v6 { 54 } else { 34 },
        end: 14 + len,
        proto: number,
        ttl: 64,
        dscp: dice.pick(&[0, 0, 46, 8]),
        fragment: dice.pick(&[Fragment::Whole, Fragment::Whole, Fragment::Reassembled]),
        l4_sum: Checksum::Unknown,
        frame_len: 14 + len,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash::HashKey;
    use crate::policy::{FORWARD, compile, parse};
    use std::collections::BTreeMap;

    /// A generator is only as good as what it reaches: every match and action, in rules that
    /// packets matched.
    #[test]
    fn packets_match_rules_of_every_kind() {
        let mut hits: BTreeMap<String, u64> = BTreeMap::new();
        for seed in 0..600 {
            let mut dice = Dice::new(seed);
            let text = policy(&mut dice, true);
            let checked = parse("random.yaml", &text).unwrap_or_else(|e| panic!("{e}\n{text}"));
            let compiled = compile(&checked.model, 1, 1);
            let tally = Tally::new(1000, HashKey::from_seed(seed)).unwrap();
            for _ in 0..100 {
                let scene = Scene::any(&mut dice, &compiled);
                compiled.raw(0, &scene.facts(None));
                let flow = scene.flow_facts(&tally);
                compiled.forward(0, &scene.facts(flow.as_ref()));
                compiled.helper(0, &scene.facts(None));
            }
            let lines: Vec<_> = text.lines().collect();
            let model = &checked.model;
            let chains = model.chains.iter().flat_map(|chain| &chain.rules);
            let chains = chains.map(|rule| rule.line);
            let rest = model.raw.iter().chain(&model.helpers).map(|rule| rule.line);
            let places = chains.chain(rest);
            let counted = compiled
                .rules()
                .filter(|rule| (rule.chain, rule.name) != (FORWARD, "policy"));
            for (rule, line) in counted.zip(places) {
                let written = lines[line as usize - 1];
                // `key: value` and `action: word` are both kinds
                let keys = written
                    .split(['{', ','])
                    .filter_map(|part| part.split_once(':'));
                for (key, value) in keys {
                    let (key, value) = (key.trim(), value.trim().trim_end_matches(" }"));
                    let kind = match key {
                        "action" => format!("action: {value}"),
                        _ => key.to_owned(),
                    };
                    *hits.entry(kind).or_default() += rule.packets;
                }
            }
        }
        let others = [
            "timeout",
            "count",
            "jump",
            "goto",
            "log",
            "mark",
            "helper",
            "reject",
            "action: accept",
            "action: drop",
            "action: return",
            "action: notrack",
            "action: reject",
        ];
        for kind in MATCHES.into_iter().chain(others) {
            let hits = hits.get(kind).copied().unwrap_or(0);
            assert!(hits >= 20, "{kind}: {hits}");
        }
    }
}
