//! What a policy would decide about a flow that is in the table, of which no packet is at hand: its
//! first packet is judged once more, as far as the table knows it.
//!
//! The flow says the addresses, ports, protocol and zone of that packet, where it came in, who
//! expected the flow, and its mark. That it started the flow says the state (new, or related if
//! expected), the direction, and the flags that make a SYN. The rest is unknown: length, code point,
//! fragments, flags that any SYN may have beside, the VLAN unless the zone is one, and whether a
//! `limit` or `connlimit` would have let it by. A rule fails if a match is known to fail, holds if all
//! are known to hold, and is otherwise followed both ways; what every way ends in is the answer.
//!
//! A flow that tracking picked up in the middle began with another packet than a SYN; it is judged
//! as if it had begun with one.
//!
//! Life-cycle: an answer holds for one [`Compiled`]. Concurrency: reads only; counts nothing, takes
//! no tokens, changes no marks, and allocates nothing: a worker may ask.

use arrayvec::ArrayVec;

use super::compile::{Act, Compiled, NO_EXTRA, Op, Pred, RuleId};
use super::eval::Facts;
use super::model::{MAX_JUMPS, MarkValue, Zone, flow_status};
use super::{MAX_PORTS, PortId};
use crate::base::time::Now;
use crate::conntrack::helper::HelperId;
use crate::conntrack::tuple::Tuple;
use crate::conntrack::types::{CtState, Dir, proto};
use crate::wire::inner::Ports;
use crate::wire::parsed::{Addrs, L3, L4, NO_VLAN, Parsed, TcpHeader};
use crate::wire::tcp::flags;

/// What is known of the packet that started a flow.
#[derive(Clone, Copy, Debug)]
pub struct Prospect {
    /// The flow's original direction.
    pub tuple: Tuple,
    /// Where the packet came in, by this policy's numbers. `None` is judged for every port at which
    /// it can have.
    pub iif: Option<PortId>,
    /// The helper that expected the flow.
    pub expected_by: Option<HelperId>,
    /// The flow's mark before any rule.
    pub mark: u32,
}

/// What becomes of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It would be accepted, whatever is unknown; by this rule, or another that accepts.
    Stays(RuleId),
    /// It would not be accepted, whatever is unknown.
    Ends(RuleId),
    /// That depends: on what this rule matches, or on where the packet came in.
    Unsure(RuleId),
}

/// Most rules that are followed both ways; the answer is [`Fate::Unsure`] beyond.
const MAX_FORKS: usize = 64;

/// Most rules that are tested for one flow, on all ways; the answer is [`Fate::Unsure`] beyond.
const MAX_TESTS: u32 = 1 << 18;

/// A way through the chains, and what it has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Path {
    at: u32,
    back: ArrayVec<u32, MAX_JUMPS>,
    /// The flow's mark; `None` if raw rules kept the packet from being tracked.
    mark: Option<u32>,
}

/// Ways that are still to be followed: two before tracking, and one more for each fork.
type Open = ArrayVec<Path, { MAX_FORKS + 2 }>;

/// The packet, and what of it is known beside its headers.
struct First<'a> {
    prospect: &'a Prospect,
    packet: &'a Parsed,
    iif: PortId,
    oif: PortId,
    /// The zone is the id of the VLAN tag, or 0 for want of one.
    zone_is_vlan: bool,
}

impl First<'_> {
    /// What rules know of it, if it is tracked or if it is not.
    fn facts(&self, tracked: bool) -> Facts<'_> {
        let (state, dir) = match (tracked, self.prospect.expected_by) {
            (false, _) => (CtState::Untracked, None),
            (true, None) => (CtState::New, Some(Dir::Original)),
            (true, Some(_)) => (CtState::Related, Some(Dir::Original)),
        };
        Facts {
            packet: self.packet,
            iif: self.iif,
            oif: self.oif,
            state,
            dir,
            flow: None,
            now: Now::from_nanos(0),
        }
    }
}

impl Compiled {
    /// What this policy would decide about the flow of `prospect`. Where an answer other than
    /// [`Fate::Unsure`] is given, every packet that can have started the flow there gets it.
    pub fn fate(&self, prospect: &Prospect) -> Fate {
        self.fate_and_cost(prospect).0
    }

    /// The same, and how many rules were tested to know it.
    pub fn fate_and_cost(&self, prospect: &Prospect) -> (Fate, u32) {
        let mut left = MAX_TESTS;
        let fate = self.fate_within(prospect, &mut left);
        (fate, MAX_TESTS - left)
    }

    fn fate_within(&self, prospect: &Prospect, left: &mut u32) -> Fate {
        let zone = prospect.tuple.zone;
        if let Some(iif) = prospect.iif {
            return match self.peer(iif) {
                None => Fate::Ends(self.forward_policy()),
                Some(oif) if self.has_zone(iif, zone) => {
                    self.fate_between(prospect, iif, oif, left)
                }
                // its packets would be another flow's
                Some(_) => Fate::Unsure(self.forward_policy()),
            };
        }
        let ports = (0..MAX_PORTS as u8).map(PortId);
        let mut fates = ports.filter_map(|iif| {
            let oif = self.peer(iif).filter(|_| self.has_zone(iif, zone))?;
            Some(self.fate_between(prospect, iif, oif, left))
        });
        let Some(first) = fates.next() else {
            return Fate::Unsure(self.forward_policy());
        };
        for fate in fates {
            match (first, fate) {
                (Fate::Stays(_), Fate::Stays(_)) | (Fate::Ends(_), Fate::Ends(_)) => {}
                (_, Fate::Unsure(rule) | Fate::Stays(rule) | Fate::Ends(rule)) => {
                    return Fate::Unsure(rule);
                }
            }
        }
        first
    }

    /// Whether a packet that comes in by `port` can be of `zone`.
    fn has_zone(&self, port: PortId, zone: u16) -> bool {
        match self.zones.get(usize::from(port.0)) {
            Some(Zone::Fixed(only)) => *only == zone,
            Some(Zone::Vlan) => true,
            None => false,
        }
    }

    fn fate_between(&self, prospect: &Prospect, iif: PortId, oif: PortId, left: &mut u32) -> Fate {
        let first = First {
            prospect,
            packet: &first_packet(&prospect.tuple),
            iif,
            oif,
            zone_is_vlan: self.zones.get(usize::from(iif.0)) == Some(&Zone::Vlan),
        };
        let (mut open, mut doubt) = self.before_tracking(&first);
        let mut forks: ArrayVec<Path, MAX_FORKS> = ArrayVec::new();
        let tracked = first.facts(true);
        let mut candidates = self
            .classifier
            .as_ref()
            // the VLAN is not known
            .filter(|it| !it.goes_by_vlan())
            .map(|it| it.candidates(&tracked, prospect.tuple.zone));
        let (mut stays, mut ends) = (None, None);
        'ways: while let Some(mut path) = open.pop() {
            let (accepted, rule) = loop {
                if let (Some(candidates), Some(_)) = (&mut candidates, path.mark) {
                    path.at = candidates.next(path.at).map_or(u32::MAX, |it| it.op);
                }
                let Some(op) = self.ops.get(path.at as usize) else {
                    break (false, self.forward_policy());
                };
                let rule = RuleId(path.at);
                let Some(fewer) = left.checked_sub(1) else {
                    return Fate::Unsure(doubt.unwrap_or(rule));
                };
                *left = fewer;
                match self.foresee(op, &first, path.mark) {
                    Some(true) => {}
                    Some(false) => {
                        path.at += 1;
                        continue;
                    }
                    // the same follows either way
                    None if op.act == Act::Continue && self.set_mark(op).is_none() => {
                        path.at += 1;
                        continue;
                    }
                    None => {
                        let doubt = *doubt.get_or_insert(rule);
                        // a way that has come here before has been followed on from here
                        if forks.contains(&path) {
                            continue 'ways;
                        }
                        if forks.try_push(path.clone()).is_err() {
                            return Fate::Unsure(doubt);
                        }
                        let at = path.at + 1;
                        open.push(Path { at, ..path.clone() });
                    }
                }
                if let (Some(value), Some(mark)) = (self.set_mark(op), path.mark.as_mut()) {
                    *mark = value.apply(*mark);
                }
                match op.act {
                    Act::Accept => break (true, rule),
                    Act::Drop | Act::Reject(_) | Act::RejectAuto => break (false, rule),
                    Act::Jump(target) => {
                        if path.back.try_push(path.at + 1).is_err() {
                            break (false, self.forward_policy());
                        }
                        path.at = target;
                    }
                    Act::Goto(target) => path.at = target,
                    Act::Return | Act::End => {
                        path.at = path.back.pop().unwrap_or(self.forward_policy);
                    }
                    Act::Continue | Act::Notrack | Act::Helper(..) => path.at += 1,
                }
            };
            let seen = if accepted { &mut stays } else { &mut ends };
            seen.get_or_insert(rule);
            if let (Some(_), Some(rule)) = (stays, ends) {
                return Fate::Unsure(doubt.unwrap_or(rule));
            }
        }
        match (stays, ends) {
            (Some(rule), None) => Fate::Stays(rule),
            (None, Some(rule)) => Fate::Ends(rule),
            _ => Fate::Unsure(doubt.unwrap_or(self.forward_policy())),
        }
    }

    fn set_mark(&self, op: &Op) -> Option<MarkValue> {
        self.extra(op)?.mark
    }

    /// The ways on from the raw rules, and the first of these that one cannot know about.
    fn before_tracking(&self, first: &First<'_>) -> (Open, Option<RuleId>) {
        let (mut ways, mut doubt) = ([false; 2], None);
        let mut at = self.raw;
        loop {
            let op = self.ops.get(at as usize).filter(|op| op.act != Act::End);
            let Some(op) = op else {
                ways[1] = true;
                break;
            };
            let held = self.foresee(op, first, None);
            if held != Some(false) {
                ways[usize::from(op.act != Act::Notrack)] = true;
            }
            match held {
                Some(true) => break,
                Some(false) => {}
                None => doubt = doubt.or(Some(RuleId(at))),
            }
            at += 1;
        }
        let marks = [None, Some(first.prospect.mark)];
        let taken = ways.into_iter().zip(marks).filter(|(taken, _)| *taken);
        let paths = taken.map(|(_, mark)| Path {
            at: self.forward,
            back: ArrayVec::new(),
            mark,
        });
        (paths.collect(), doubt)
    }

    /// Whether all matches of `op` hold; `None` if that depends on what is not known.
    fn foresee(&self, op: &Op, first: &First<'_>, mark: Option<u32>) -> Option<bool> {
        let start = op.preds as usize;
        let preds = self.preds.get(start..start + usize::from(op.count));
        let mut sure = true;
        for pred in preds.unwrap_or_default() {
            match self.foresee_match(pred, first, mark) {
                Some(true) => {}
                Some(false) => return Some(false),
                None => sure = false,
            }
        }
        if op.extra != NO_EXTRA {
            let extra = self.extra(op);
            let counts = extra.is_some_and(|extra| extra.connlimit.is_some());
            if extra.is_none() || counts && mark.is_none() {
                return Some(false);
            }
            sure &= !counts && extra.is_some_and(|extra| extra.limit.is_none());
        }
        sure.then_some(true)
    }

    fn foresee_match(&self, pred: &Pred, first: &First<'_>, mark: Option<u32>) -> Option<bool> {
        let Prospect {
            tuple, expected_by, ..
        } = first.prospect;
        let numbers = |set: u32| self.tables.numbers.get(set as usize);
        match *pred {
            Pred::Length(_) | Pred::Fragment(_) | Pred::Dscp(_) | Pred::Time(_) => None,
            Pred::Vlan(set) if first.zone_is_vlan => {
                let has = numbers(set).is_some_and(|set| set.contains(tuple.zone));
                // zone 0 is that of frames without a tag too
                (tuple.zone != 0 || !has).then_some(has)
            }
            Pred::Vlan(_) => None,
            Pred::Zone(set) => Some(numbers(set).is_some_and(|set| set.contains(tuple.zone))),
            Pred::Flags(set) if first.packet.proto == proto::TCP => {
                let set = self.tables.flags.get(set as usize)?;
                let mut held = SYNS.into_iter().map(|flags| set.contains(flags));
                let one = held.next();
                held.all(|other| Some(other) == one).then_some(one?)
            }
            Pred::Status(want) => {
                let status = expected_by.map_or(0, |_| flow_status::EXPECTED);
                Some(mark.is_some() && (status & want.mask != 0) != want.negated)
            }
            Pred::Helper(want) => Some(mark.is_some() && want.is(*expected_by)),
            Pred::Mark(set) => {
                let want = self.tables.marks.get(set as usize);
                let fits = |mark| {
                    want.is_some_and(|want| want.any.iter().any(|one| one.is(mark)) != want.negated)
                };
                Some(mark.is_some_and(fits))
            }
            _ => Some(self.test(pred, &first.facts(mark.is_some()))),
        }
    }
}

/// Flags that a SYN which starts a flow may have beside SYN: those above RST but ACK, any of them.
const SYNS: [u8; 16] = {
    let (mut all, mut at) = ([flags::SYN; 16], 0);
    while at < 16 {
        let (psh, others) = (at as u8 & 1, at as u8 >> 1);
        all[at] |= psh << 3 | others << 5;
        at += 1;
    }
    all
};

/// The packet that started a flow, as far as its tuple says it.
pub(super) fn first_packet(tuple: &Tuple) -> Parsed {
    let l4 = match (tuple.proto, tuple.ports) {
        (proto::TCP, Ports::Ports { sport, dport }) => L4::Tcp(TcpHeader {
            sport,
            dport,
            seq: 0,
            ack: 0,
            window: 0,
            flags: flags::SYN,
            header_len: 20,
        }),
        (proto::SCTP, Ports::Ports { sport, dport }) => L4::Sctp {
            sport,
            dport,
            vtag: 0,
        },
        (_, Ports::Ports { sport, dport }) => L4::Udp { sport, dport },
        (_, Ports::Icmp { ty, code, id }) => L4::Icmp { ty, code, id },
        (_, Ports::Gre { dstkey, .. }) => L4::Gre { call_id: dstkey },
        (_, Ports::None) => L4::Other,
    };
    let (l3, ethertype) = match tuple.addrs {
        Addrs::V4 { .. } => (L3::Ipv4, 0x0800),
        Addrs::V6 { .. } => (L3::Ipv6, 0x86dd),
    };
    Parsed {
        l3,
        addrs: tuple.addrs,
        l4,
        ethertype,
        vlan: NO_VLAN,
        proto: tuple.proto,
        ..Parsed::NOTHING
    }
}

#[cfg(test)]
mod tests;
