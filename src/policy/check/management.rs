//! `system: { management: … }`: flows that must stay possible, whatever else a policy says. Each
//! line is judged by flows that stand for it, with the ends of its addresses and ports, and a line
//! whose flows could not begin, or could not go on, is a warning that names the rule.
//!
//! A flow is judged as [`Compiled::fate`] does it: a warning is given only for what ends whatever
//! is not known. Packets of a flow that is established are judged by the chains.
//!
//! Life-cycle: lines are read with `system`, and judged when the whole policy is there.
//! Concurrency: none.

use std::net::SocketAddr;

use super::{Checker, Fields};
use crate::base::hash::HashKey;
use crate::base::tally::Tally;
use crate::base::time::Now;
use crate::conntrack::entry::status;
use crate::conntrack::shard::FlowView;
use crate::conntrack::tuple::Tuple;
use crate::conntrack::types::{CtState, Dir, proto};
use crate::policy::compile::{Compiled, RuleId, compile};
use crate::policy::diagnostic::Place;
use crate::policy::eval::{Facts, RawVerdict, Trail, Verdict};
use crate::policy::flow::FlowFacts;
use crate::policy::model::{AddrMatch, Family, Matches, Policy, Zone};
use crate::policy::names::protocol_name;
use crate::policy::prospect::{Fate, Prospect, first_packet};
use crate::policy::ranges::U16Set;
use crate::policy::yaml::Node;
use crate::policy::{MAX_PORTS, PortId};
use crate::wire::inner::Ports;
use crate::wire::parsed::{Addrs, L4, Parsed};
use crate::wire::tcp::flags;

/// Keys of a line.
pub(super) const MANAGEMENT_KEYS: [&str; 10] = [
    "name", "comment", "iif", "oif", "family", "saddr", "daddr", "proto", "sport", "dport",
];

/// Flows that stand for one line, at most.
const FLOWS: usize = 4096;
/// Ranges of one set whose ends are looked at.
const RANGES: usize = 64;
/// A port that clients take, where the line does not say.
const CLIENT: u16 = 50_000;
/// Somebody and somebody else, where the line does not say (RFC 5737 3, RFC 3849 2).
const ANYONE_V4: [u32; 2] = [0xc633_6401, 0xcb00_7101];
const ANYONE_V6: [u128; 2] = [0x2001_0db8 << 96 | 1, 0x2001_0db8 << 96 | 1 << 64 | 2];

/// Flows that must stay possible.
pub(super) struct Managed {
    matches: Matches,
    /// How messages call it.
    name: String,
    place: Place,
}

/// Why a flow is not possible.
struct Cut {
    rule: RuleId,
    what: &'static str,
}

impl Checker<'_> {
    /// Reads `management`.
    pub(super) fn management(&mut self, node: &Node) {
        for (at, item) in (1..).zip(self.list(node, "`management`").unwrap_or_default()) {
            let keys = &MANAGEMENT_KEYS;
            let Some(fields) = self.fields(item, "a management line", keys, &[]) else {
                continue;
            };
            let place = self.line_place(item, &fields);
            let name = fields.get("name");
            let name = name.and_then(|node| self.scalar(node, "`name`").map(str::to_owned));
            let matches = self.matches(&fields, None);
            if fields.key("proto").is_none() {
                self.sink
                    .error(place, "a management line needs a `proto`")
                    .help("say what must stay possible: `proto: tcp, dport: 22`");
            }
            self.management.push(Managed {
                matches,
                name: name.unwrap_or_else(|| at.to_string()),
                place,
            });
        }
    }

    fn line_place(&self, node: &Node, fields: &Fields<'_>) -> Place {
        let first = fields.entries.first();
        fields
            .get("name")
            .map(|name| name.place)
            .or(first.map(|(key, _)| key.place))
            .unwrap_or(node.place)
    }

    /// Warns about lines whose flows `policy` does not let by.
    pub(super) fn judge_management(&mut self, policy: &Policy) {
        if self.management.is_empty() || self.sink.has_errors() {
            return;
        }
        let judge = Judge {
            policy: compile(policy, 1, 1),
            tally: Tally::new(64, HashKey::from_seed(0)).ok(),
        };
        for line in std::mem::take(&mut self.management) {
            let cut = self
                .flows(&line.matches)
                .find_map(|(iif, tuple)| Some((judge.cut(iif, tuple)?, iif, tuple)));
            let Some((Cut { rule, what }, iif, tuple)) = cut else {
                continue;
            };
            let by = judge.policy.rule_name(rule);
            let written = policy.chains.iter().find_map(|chain| {
                let name = by.strip_prefix(chain.name.as_str())?.strip_prefix('/')?;
                chain.rules.iter().find(|rule| rule.name == name)
            });
            let by = match written {
                Some(rule) => format!("rule `{by}` in line {}", rule.line),
                None => "the policy of `forward`".to_owned(),
            };
            let (flow, port) = (words(&tuple), &policy.ports[usize::from(iif.0)].name);
            let message = format!(
                "this policy cuts off management `{}`: {by} {what}",
                line.name
            );
            self.sink
                .warn(line.place, message)
                .help(format!("for example {flow} that comes in by `{port}`"));
        }
    }

    /// Flows that stand for those that match `m`.
    fn flows<'m>(&self, m: &'m Matches) -> impl Iterator<Item = (PortId, Tuple)> + use<'m> {
        let region = self.region(m);
        let iifs = (0..MAX_PORTS as u8).filter(move |port| region.iif >> port & 1 == 1);
        let zones = self.zones;
        let addrs = addrs(m);
        let protos: Vec<u8> = m.proto.iter().flat_map(|set| set.iter()).take(8).collect();
        let (sports, dports) = (ports(m.sport.as_ref(), CLIENT), ports(m.dport.as_ref(), 22));
        let flows = iifs.flat_map(move |iif| {
            let zone = match zones[usize::from(iif)] {
                Some(Zone::Fixed(zone)) => zone,
                _ => 0,
            };
            let (protos, sports, dports) = (protos.clone(), sports.clone(), dports.clone());
            addrs.clone().into_iter().flat_map(move |addrs| {
                let (sports, dports) = (sports.clone(), dports.clone());
                protos.clone().into_iter().flat_map(move |number| {
                    let pairs = kinds(number, &addrs, &sports, &dports);
                    pairs.into_iter().map(move |ports| {
                        let tuple = Tuple {
                            addrs,
                            proto: number,
                            ports,
                            zone,
                        };
                        (PortId(iif), tuple)
                    })
                })
            })
        });
        flows.take(FLOWS)
    }
}

/// A policy, and what it takes to ask it.
struct Judge {
    policy: Compiled,
    tally: Option<Tally>,
}

impl Judge {
    /// Why the flow that would begin with `tuple` at `iif` cannot be.
    fn cut(&self, iif: PortId, tuple: Tuple) -> Option<Cut> {
        let prospect = Prospect {
            tuple,
            iif: Some(iif),
            expected_by: None,
            mark: 0,
        };
        match self.policy.fate(&prospect) {
            Fate::Ends(rule) => {
                let what = "does not let it begin";
                return Some(Cut { rule, what });
            }
            Fate::Unsure(_) => return None,
            Fate::Stays(_) => {}
        }
        let oif = self.policy.peer(iif)?;
        let there = first_packet(&tuple);
        let back = answer(&there);
        let raw = |packet: &Parsed, iif, oif| {
            let facts = facts(packet, iif, oif, CtState::Untracked, None, None);
            self.policy.raw(0, &facts)
        };
        let tracked = [raw(&there, iif, oif), raw(&back, oif, iif)];
        // what only one way is tracked for has no established state to be judged
        let tracked = match tracked {
            [RawVerdict::Track, RawVerdict::Track] => true,
            [RawVerdict::Notrack, RawVerdict::Notrack] => false,
            _ => return None,
        };
        let mark = self.mark(&there, iif, oif, tuple);
        let later = later(&there);
        let what = ["drops its replies", "drops what follows its first packet"];
        let ways = [
            (&back, oif, iif, Dir::Reply),
            (&later, iif, oif, Dir::Original),
        ];
        ways.into_iter()
            .zip(what)
            .find_map(|((packet, iif, oif, dir), what)| {
                let flow = self.flow(tuple, status::SEEN_REPLY | status::ASSURED, true, mark);
                let facts = match tracked {
                    true => facts(
                        packet,
                        iif,
                        oif,
                        CtState::Established,
                        Some(dir),
                        flow.as_ref(),
                    ),
                    false => facts(packet, iif, oif, CtState::Untracked, None, None),
                };
                let mut trail = Trail::default();
                let decision = self.policy.forward_leaving(0, &facts, &mut trail);
                // a way that hangs on the packet itself may be another for the next
                let sure = trail.steps().is_some();
                let rule = decision.rule;
                (sure && decision.verdict != Verdict::Accept).then_some(Cut { rule, what })
            })
    }

    /// The mark that the first packet leaves on its flow.
    fn mark(&self, packet: &Parsed, iif: PortId, oif: PortId, tuple: Tuple) -> u32 {
        let flow = self.flow(tuple, 0, false, 0);
        let dir = Some(Dir::Original);
        let facts = facts(packet, iif, oif, CtState::New, dir, flow.as_ref());
        self.policy.forward(0, &facts);
        flow.and_then(|flow| flow.new_mark()).unwrap_or(0)
    }

    fn flow(&self, tuple: Tuple, bits: u8, confirmed: bool, mark: u32) -> Option<FlowFacts<'_>> {
        let view = FlowView {
            status: bits,
            confirmed,
            mark,
            original: tuple.addrs,
            zone: tuple.zone,
            helper: None,
            tally: self.tally.as_ref()?,
        };
        Some(FlowFacts::new(view))
    }
}

fn facts<'a>(
    packet: &'a Parsed,
    iif: PortId,
    oif: PortId,
    state: CtState,
    dir: Option<Dir>,
    flow: Option<&'a FlowFacts<'a>>,
) -> Facts<'a> {
    Facts {
        packet,
        iif,
        oif,
        state,
        dir,
        flow,
        now: Now::from_nanos(0),
    }
}

/// A packet that answers the first.
fn answer(first: &Parsed) -> Parsed {
    let mut packet = later(first);
    packet.addrs = first.addrs.flip();
    match &mut packet.l4 {
        L4::Tcp(header) => std::mem::swap(&mut header.sport, &mut header.dport),
        L4::Udp { sport, dport } | L4::Sctp { sport, dport, .. } => std::mem::swap(sport, dport),
        L4::Icmp { ty, .. } => *ty = if first.proto == proto::ICMP { 0 } else { 129 },
        _ => {}
    }
    packet
}

/// A packet of the same direction, later in the flow.
fn later(first: &Parsed) -> Parsed {
    let mut packet = *first;
    if let L4::Tcp(header) = &mut packet.l4 {
        header.flags = flags::ACK;
    }
    packet
}

/// The first and the last of each range, or `other` where anything goes.
fn ends<T: Copy + PartialEq>(ranges: &[(T, T)]) -> Vec<T> {
    let ranges = ranges.iter().take(RANGES);
    let mut ends: Vec<_> = ranges.flat_map(|(low, high)| [*low, *high]).collect();
    ends.dedup();
    ends
}

fn ports(set: Option<&U16Set>, other: u16) -> Vec<u16> {
    set.map_or(vec![other], |set| ends(set.ranges()))
}

/// What distinguishes the flows of one protocol.
fn kinds(number: u8, addrs: &Addrs, sports: &[u16], dports: &[u16]) -> Vec<Ports> {
    let v4 = matches!(addrs, Addrs::V4 { .. });
    match number {
        proto::TCP | proto::UDP | proto::SCTP | proto::UDPLITE => {
            let pair = |sport: &u16| {
                let sport = *sport;
                let dports = dports.iter();
                dports.map(move |dport| Ports::Ports {
                    sport,
                    dport: *dport,
                })
            };
            sports.iter().flat_map(pair).collect()
        }
        // an echo request of the family that has this protocol
        proto::ICMP | proto::ICMPV6 if v4 == (number == proto::ICMP) => vec![Ports::Icmp {
            ty: if v4 { 8 } else { 128 },
            code: 0,
            id: 1,
        }],
        proto::ICMP | proto::ICMPV6 => Vec::new(),
        _ => vec![Ports::None],
    }
}

/// Pairs of addresses that stand for those that match.
fn addrs(m: &Matches) -> Vec<Addrs> {
    let wanted = |family| m.family.is_none_or(|only| only == family);
    let mut all = Vec::new();
    if wanted(Family::Ipv4)
        && let Some(src) = side(m.saddr.as_ref(), |m| m.set.v4(), ANYONE_V4[0])
        && let Some(dst) = side(m.daddr.as_ref(), |m| m.set.v4(), ANYONE_V4[1])
    {
        all.extend(src.iter().flat_map(|src| {
            let pair = |dst: &u32| Addrs::V4 {
                src: *src,
                dst: *dst,
            };
            dst.iter().map(pair)
        }));
    }
    if wanted(Family::Ipv6)
        && let Some(src) = side(m.saddr.as_ref(), |m| m.set.v6(), ANYONE_V6[0])
        && let Some(dst) = side(m.daddr.as_ref(), |m| m.set.v6(), ANYONE_V6[1])
    {
        all.extend(src.iter().flat_map(|src| {
            let pair = |dst: &u128| Addrs::V6 {
                src: *src,
                dst: *dst,
            };
            dst.iter().map(pair)
        }));
    }
    all
}

/// Addresses of one side and family: those that a match names, or `other` where there is none.
/// `None` if a match leaves none of this family.
fn side<'m, T: Copy + PartialEq + 'm>(
    m: Option<&'m AddrMatch>,
    ranges: impl Fn(&'m AddrMatch) -> &'m [(T, T)],
    other: T,
) -> Option<Vec<T>> {
    match m {
        None => Some(vec![other]),
        Some(m) if ranges(m).is_empty() => None,
        // everyone else
        Some(m) if m.negated => {
            let named = ends(ranges(m));
            (!named.contains(&other)).then(|| vec![other])
        }
        Some(m) => Some(ends(ranges(m))),
    }
}

/// As in `tcp 10.0.0.1:50000 > 10.0.0.2:22`.
fn words(tuple: &Tuple) -> String {
    let name = protocol_name(tuple.proto);
    let name = name.map_or_else(|| tuple.proto.to_string(), str::to_owned);
    let (src, dst) = (tuple.addrs.src(), tuple.addrs.dst());
    match tuple.ports {
        Ports::Ports { sport, dport } => {
            let (src, dst) = (SocketAddr::new(src, sport), SocketAddr::new(dst, dport));
            format!("{name} {src} > {dst}")
        }
        _ => format!("{name} {src} > {dst}"),
    }
}
