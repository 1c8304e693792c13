//! Evaluates a [`Compiled`] policy for one packet: the first rules one by one, then, if there are
//! many, those that the classifier says can match; in order, with an explicit stack of fixed size
//! for jumps. Nothing here allocates, recurses, locks or panics; an index that leads
//! nowhere (a policy that did not come from the check) drops the packet.
//!
//! Concurrency: any number of workers at once; each writes only its own counters.

use super::PortId;
use super::classify::Proven;
use super::compile::{Act, Compiled, NO_EXTRA, Op, Pred, RuleId};
use super::flow::FlowFacts;
use super::model::{Family, IcmpMatch, MAX_JUMPS, RejectWith};
use super::quick::Brief;
use super::ranges::AddrSet;
use super::timeouts::ProfileId;
use crate::base::time::Now;
use crate::conntrack::helper::{HelperId, Permissions};
use crate::conntrack::types::{CtState, Dir, proto};
use crate::wire::parsed::{Addrs, Fragment, L3, L4, NO_VLAN, Parsed};
use arrayvec::ArrayVec;

/// What rules know about a packet. Raw rules and helper lines read nothing of its flow.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Its headers.
    pub packet: &'a Parsed,
    /// Where it came in.
    pub iif: PortId,
    /// Where it will leave.
    pub oif: PortId,
    /// What it is to its flow.
    pub state: CtState,
    /// Its direction in the flow, if it has one.
    pub dir: Option<Dir>,
    /// Its flow, if it has one and [`Compiled::asks_of_flows`].
    pub flow: Option<&'a FlowFacts<'a>>,
    /// When.
    pub now: Now,
}

/// What becomes of a packet before tracking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawVerdict {
    /// It is tracked.
    Track,
    /// It is not, and its state is untracked.
    Notrack,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passes.
    Accept,
    /// It is thrown away.
    Drop,
    /// It is thrown away, and its sender is told so.
    Reject(RejectWith),
}

/// A verdict, and who gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What becomes of the packet.
    pub verdict: Verdict,
    /// The rule, or chain policy, that decided.
    pub rule: RuleId,
    /// The last rule on the way that wants the packet logged.
    pub log: Option<RuleId>,
    /// What the last rule on the way that says so gives a flow to go by, if the packet starts one.
    pub timeouts: Option<ProfileId>,
}

/// The way of a packet through the chains, as far as its flow's next packet could be spared it.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    steps: Steps,
    /// The classifier was asked.
    classified: bool,
    /// Something on the way read the packet itself, or there were more steps than can be kept.
    varies: bool,
}

/// Rules that one way matches, in order; as many as can be kept.
pub type Steps = ArrayVec<RuleId, 12>;

impl Trail {
    /// The rules that matched, in order, the one that decided included. `None` if another packet of
    /// the flow, in the same direction and state, may go another way.
    pub fn steps(&self) -> Option<&Steps> {
        (!self.varies).then_some(&self.steps)
    }

    /// The rules that matched, in order, as many as could be kept, whoever else may go that way.
    pub fn matched(&self) -> &Steps {
        &self.steps
    }

    /// Whether the way was so long that the classifier was asked.
    pub fn is_long(&self) -> bool {
        self.classified
    }

    /// Notes that the way hung on more than the flow.
    pub fn vary(&mut self) {
        self.varies = true;
    }

    #[inline]
    fn step(&mut self, at: u32) {
        if self.steps.try_push(RuleId(at)).is_err() {
            self.varies = true;
        }
    }
}

/// Where a packet is in the chains.
struct Walk {
    at: u32,
    depth: usize,
    stack: [u32; MAX_JUMPS],
    log: Option<RuleId>,
    timeouts: Option<ProfileId>,
}

impl Walk {
    fn decide(&self, verdict: Verdict, rule: u32) -> Decision {
        Decision {
            verdict,
            rule: RuleId(rule),
            log: self.log,
            timeouts: self.timeouts,
        }
    }
}

/// Rules that are read one after the other before a packet is classified: the first of a policy
/// decide about most.
const READ: usize = 2;

impl Compiled {
    /// Runs the raw rules: the first that matches decides.
    #[inline]
    pub fn raw(&self, worker: usize, facts: &Facts<'_>) -> RawVerdict {
        let Some((at, op)) = self.first(self.raw, facts) else {
            return RawVerdict::Track;
        };
        if op.act == Act::End {
            return RawVerdict::Track;
        }
        self.count(worker, at as usize, facts.packet.frame_len.into());
        match op.act {
            Act::Notrack => RawVerdict::Notrack,
            _ => RawVerdict::Track,
        }
    }

    /// Runs the helper lines for a packet that starts a flow: the first that matches says which
    /// helper listens to it. A line matches only what its helper can listen to.
    #[inline]
    pub fn helper(&self, worker: usize, facts: &Facts<'_>) -> Option<(HelperId, Permissions)> {
        let (at, op) = self.first(self.helpers, facts)?;
        let Act::Helper(id, permissions) = op.act else {
            return None;
        };
        self.count(worker, at as usize, facts.packet.frame_len.into());
        Some((id, permissions))
    }

    /// The first operation from `start` on whose matches hold: at the latest the end of its list.
    #[inline]
    fn first(&self, start: u32, facts: &Facts<'_>) -> Option<(u32, &Op)> {
        let mut trail = Trail::default();
        let mut at = start;
        while let Some(op) = self.ops.get(at as usize) {
            if op.act == Act::End || self.holds(op, facts, &mut trail) {
                return Some((at, op));
            }
            at += 1;
            if at == start + READ as u32
                && let Some(classifier) = &self.classifier
            {
                let zone = self.zone(facts.iif, facts.packet.vlan);
                let brief = Brief::new(facts);
                let mut candidates = classifier.candidates(facts, zone);
                while let Some(candidate) = candidates.next(at) {
                    let op = self.ops.get(candidate.op as usize)?;
                    if self.candidate_holds(op, candidate.proven, &brief, facts, &mut trail) {
                        return Some((candidate.op, op));
                    }
                    at = candidate.op + 1;
                }
                return None;
            }
        }
        None
    }

    /// Runs the chains from `forward` on, and counts the packet for every rule that it matched.
    /// `facts.flow` then knows the flow's new mark, and what counts it.
    #[inline]
    pub fn forward(&self, worker: usize, facts: &Facts<'_>) -> Decision {
        self.forward_leaving(worker, facts, &mut Trail::default())
    }

    /// Does that, and leaves a trail.
    #[inline]
    pub fn forward_leaving(&self, worker: usize, facts: &Facts<'_>, trail: &mut Trail) -> Decision {
        let mut walk = Walk {
            at: self.forward,
            depth: 0,
            stack: [0; MAX_JUMPS],
            log: None,
            timeouts: None,
        };
        let mut misses = 0;
        while let Some(op) = self.ops.get(walk.at as usize) {
            if self.holds(op, facts, trail) {
                if let Some(decision) = self.step(worker, facts, op, &mut walk, trail) {
                    return decision;
                }
                continue;
            }
            walk.at += 1;
            misses += 1;
            if misses == READ && self.classifier.is_some() {
                return self.classified(worker, facts, &mut walk, trail);
            }
        }
        walk.decide(Verdict::Drop, self.forward_policy)
    }

    /// The rest of the way, with a look only at what can match.
    #[inline(never)]
    fn classified(
        &self,
        worker: usize,
        facts: &Facts<'_>,
        walk: &mut Walk,
        trail: &mut Trail,
    ) -> Decision {
        trail.classified = true;
        let zone = self.zone(facts.iif, facts.packet.vlan);
        let Some(classifier) = &self.classifier else {
            return walk.decide(Verdict::Drop, self.forward_policy);
        };
        let brief = Brief::new(facts);
        let mut candidates = classifier.candidates(facts, zone);
        while let Some(candidate) = candidates.next(walk.at) {
            walk.at = candidate.op;
            let Some(op) = self.ops.get(candidate.op as usize) else {
                break;
            };
            if !self.candidate_holds(op, candidate.proven, &brief, facts, trail) {
                walk.at += 1;
            } else if let Some(decision) = self.step(worker, facts, op, walk, trail) {
                return decision;
            }
        }
        walk.decide(Verdict::Drop, self.forward_policy)
    }

    /// Does what `op`, whose matches hold, says: decides, or moves on.
    #[inline]
    fn step(
        &self,
        worker: usize,
        facts: &Facts<'_>,
        op: &Op,
        walk: &mut Walk,
        trail: &mut Trail,
    ) -> Option<Decision> {
        let at = walk.at;
        if op.act != Act::End {
            self.count(worker, at as usize, facts.packet.frame_len.into());
            trail.step(at);
        }
        if op.logs {
            walk.log = Some(RuleId(at));
        }
        if op.extra != NO_EXTRA {
            walk.timeouts = self.mark(op, facts).or(walk.timeouts);
        }
        match op.act {
            Act::Accept => return Some(walk.decide(Verdict::Accept, at)),
            Act::Drop => return Some(walk.decide(Verdict::Drop, at)),
            Act::Reject(with) => return Some(walk.decide(Verdict::Reject(with), at)),
            Act::RejectAuto => {
                let with = match facts.packet.proto {
                    proto::TCP => RejectWith::TcpReset,
                    _ => RejectWith::IcmpPortUnreachable,
                };
                return Some(walk.decide(Verdict::Reject(with), at));
            }
            Act::Jump(target) => {
                let Some(slot) = walk.stack.get_mut(walk.depth) else {
                    return Some(walk.decide(Verdict::Drop, self.forward_policy));
                };
                *slot = at + 1;
                walk.depth += 1;
                walk.at = target;
            }
            Act::Goto(target) => walk.at = target,
            Act::Return | Act::End => {
                // with nowhere to return to, `forward` itself ends
                let back = walk
                    .depth
                    .checked_sub(1)
                    .and_then(|top| walk.stack.get(top));
                walk.at = back.copied().unwrap_or(self.forward_policy);
                walk.depth = walk.depth.saturating_sub(1);
            }
            Act::Continue | Act::Notrack | Act::Helper(..) => walk.at += 1,
        }
        None
    }

    /// Counts a packet of `bytes` for the rules of a way that it was spared.
    #[inline]
    pub fn count_again(&self, worker: usize, steps: &[RuleId], bytes: u64) {
        for step in steps {
            self.count(worker, step.0 as usize, bytes);
        }
    }

    /// Whether a rule asks for VLANs: then what holds for a flow holds for one VLAN of it.
    #[inline]
    pub fn reads_vlans(&self) -> bool {
        self.reads_vlans
    }

    /// Whether all matches of `op` hold. Limits come last: they count only what passed the rest.
    #[inline(always)]
    fn holds(&self, op: &Op, facts: &Facts<'_>, trail: &mut Trail) -> bool {
        // what most packets are decided by
        let may = op.quick.may_match(facts.state.bit(), facts.packet.proto);
        let fixed = may && (op.by_state || self.each_holds(op, facts));
        fixed && (!op.varies || self.rest_holds(op, facts, trail))
    }

    /// The matches that are the same for all packets of a flow, one after the other.
    #[inline(never)]
    fn each_holds(&self, op: &Op, facts: &Facts<'_>) -> bool {
        let first = op.preds as usize;
        let preds = self.preds.get(first..first + usize::from(op.fixed));
        let mut preds = preds.unwrap_or_default().iter();
        preds.all(|pred| self.test(pred, facts))
    }

    /// The same of what the classifier found, which has `proven` a part.
    #[inline]
    fn candidate_holds(
        &self,
        op: &Op,
        proven: Proven,
        brief: &Brief,
        facts: &Facts<'_>,
        trail: &mut Trail,
    ) -> bool {
        self.fixed_hold(op, proven, brief, facts)
            && (!op.varies || self.rest_holds(op, facts, trail))
    }

    /// The matches that are the same for all packets of a flow, most of them at once.
    #[inline]
    fn fixed_hold(&self, op: &Op, proven: Proven, brief: &Brief, facts: &Facts<'_>) -> bool {
        op.quick.holds(brief) && (op.usual == op.fixed || self.unusual_hold(op, proven, facts))
    }

    /// Those of them that are not tested all at once.
    #[inline(never)]
    fn unusual_hold(&self, op: &Op, proven: Proven, facts: &Facts<'_>) -> bool {
        let first = op.preds as usize;
        let (usual, fixed) = (first + usize::from(op.usual), first + usize::from(op.fixed));
        let preds = self.preds.get(usual..fixed).unwrap_or_default();
        preds.iter().all(|pred| match (pred, proven) {
            (Pred::Src { .. }, Proven::Src) | (Pred::Dst { .. }, Proven::Dst) => true,
            (Pred::Dports(_), Proven::Dport) => true,
            _ => self.test(pred, facts),
        })
    }

    /// The matches that read the packet itself.
    #[inline(never)]
    fn rest_holds(&self, op: &Op, facts: &Facts<'_>, trail: &mut Trail) -> bool {
        trail.varies = true;
        let first = op.preds as usize;
        let (fixed, end) = (first + usize::from(op.fixed), first + usize::from(op.count));
        let preds = self.preds.get(fixed..end).unwrap_or_default();
        preds.iter().all(|pred| self.test(pred, facts)) && self.limits_hold(op, facts)
    }

    fn limits_hold(&self, op: &Op, facts: &Facts<'_>) -> bool {
        if op.extra == NO_EXTRA {
            return true;
        }
        let Some(extra) = self.extra(op) else {
            return false;
        };
        extra.limit.as_ref().is_none_or(|limit| {
            let zone = self.zone(facts.iif, facts.packet.vlan);
            limit.take(facts.packet.addrs, zone, facts.now)
        }) && extra
            .connlimit
            .is_none_or(|scope| facts.flow.is_some_and(|flow| scope.holds(flow)))
    }

    /// Marks the flow, if the rule says so, and returns its timeouts.
    #[cold]
    fn mark(&self, op: &Op, facts: &Facts<'_>) -> Option<ProfileId> {
        let extra = self.extra(op)?;
        if let (Some(mark), Some(flow)) = (extra.mark, facts.flow) {
            flow.set_mark(mark);
        }
        extra.timeouts
    }

    /// Whether one match holds.
    #[inline]
    pub(super) fn test(&self, pred: &Pred, facts: &Facts<'_>) -> bool {
        let packet = facts.packet;
        let tables = &self.tables;
        let number = |set: u32, value: u16| {
            tables
                .numbers
                .get(set as usize)
                .is_some_and(|set| set.contains(value))
        };
        let addrs = |set: u32| tables.addrs.get(set as usize);
        match *pred {
            Pred::State(mask) => mask & facts.state.bit() != 0,
            Pred::Iif(mask) => bit(mask, facts.iif.0),
            Pred::Oif(mask) => bit(mask, facts.oif.0),
            Pred::Dir(dir) => facts.dir == Some(dir),
            Pred::Family(Family::Ipv4) => packet.l3 == L3::Ipv4,
            Pred::Family(Family::Ipv6) => packet.l3 == L3::Ipv6,
            Pred::Status(want) => facts
                .flow
                .is_some_and(|flow| (flow.status() & want.mask != 0) != want.negated),
            Pred::Helper(want) => facts.flow.is_some_and(|flow| want.is(flow.helper())),
            Pred::Mark(set) => tables.marks.get(set as usize).is_some_and(|want| {
                let any = |mark| want.any.iter().any(|one| one.is(mark)) != want.negated;
                facts.flow.is_some_and(|flow| any(flow.mark()))
            }),
            Pred::Proto(number) => is_ip(packet) && packet.proto == number,
            Pred::Protos(set) => {
                let set = tables.protos.get(set as usize);
                is_ip(packet) && set.is_some_and(|set| set.contains(packet.proto))
            }
            Pred::Flags(set) => packet.tcp_flags().is_some_and(|flags| {
                let set = tables.flags.get(set as usize);
                set.is_some_and(|set| set.contains(flags))
            }),
            Pred::Fragment(wanted) => {
                is_ip(packet) && (packet.fragment != Fragment::Whole) == wanted
            }
            Pred::Dscp(mask) => is_ip(packet) && bit(mask, packet.dscp),
            Pred::Dport(low, high) => packet.dport().is_some_and(|p| low <= p && p <= high),
            Pred::Sport(low, high) => packet.sport().is_some_and(|p| low <= p && p <= high),
            Pred::Dports(set) => packet.dport().is_some_and(|port| number(set, port)),
            Pred::Sports(set) => packet.sport().is_some_and(|port| number(set, port)),
            Pred::Length(set) => is_ip(packet) && number(set, packet.ip_len()),
            Pred::Vlan(set) => packet.vlan != NO_VLAN && number(set, packet.vlan),
            Pred::Zone(set) => number(set, self.zone(facts.iif, packet.vlan)),
            Pred::Icmp(set) => tables
                .icmp
                .get(set as usize)
                .is_some_and(|want| icmp_matches(want, packet)),
            Pred::Time(at) => tables.times.get(at as usize).is_some_and(|want| {
                let unix = self.epoch.unix_nanos(facts.now) / 1_000_000_000;
                want.holds(unix, &self.calendar)
            }),
            Pred::Src4(low, high) => match packet.addrs {
                Addrs::V4 { src, .. } => packet.l3 == L3::Ipv4 && low <= src && src <= high,
                Addrs::V6 { .. } => false,
            },
            Pred::Dst4(low, high) => match packet.addrs {
                Addrs::V4 { dst, .. } => packet.l3 == L3::Ipv4 && low <= dst && dst <= high,
                Addrs::V6 { .. } => false,
            },
            Pred::Src { set, negated } => {
                addrs(set).is_some_and(|set| match (packet.l3, packet.addrs) {
                    (L3::Ipv4, Addrs::V4 { src, .. }) => v4_matches(set, src, negated),
                    (L3::Ipv6, Addrs::V6 { src, .. }) => v6_matches(set, src, negated),
                    _ => false,
                })
            }
            Pred::Dst { set, negated } => {
                addrs(set).is_some_and(|set| match (packet.l3, packet.addrs) {
                    (L3::Ipv4, Addrs::V4 { dst, .. }) => v4_matches(set, dst, negated),
                    (L3::Ipv6, Addrs::V6 { dst, .. }) => v6_matches(set, dst, negated),
                    _ => false,
                })
            }
        }
    }
}

#[inline]
fn is_ip(packet: &Parsed) -> bool {
    matches!(packet.l3, L3::Ipv4 | L3::Ipv6)
}

#[inline]
fn bit(mask: u64, at: u8) -> bool {
    at < 64 && mask >> at & 1 == 1
}

/// An address implies its family: in a set of IPv6 addresses there is nothing that one of IPv4 could
/// be in, or not be in. An empty set, whose file has no entry today, is of both families.
#[inline]
fn v4_matches(set: &AddrSet, addr: u32, negated: bool) -> bool {
    (set.has_v4() || !set.has_v6()) && set.contains_v4(addr) != negated
}

#[inline]
fn v6_matches(set: &AddrSet, addr: u128, negated: bool) -> bool {
    (set.has_v6() || !set.has_v4()) && set.contains_v6(addr) != negated
}

/// With a negation, only of the ICMP versions that the match names.
#[inline]
fn icmp_matches(want: &IcmpMatch, packet: &Parsed) -> bool {
    let L4::Icmp { ty, code, .. } = packet.l4 else {
        return false;
    };
    let v6 = packet.proto == proto::ICMPV6;
    let mut version = want.types.iter().filter(|one| one.v6 == v6).peekable();
    if version.peek().is_none() {
        return false;
    }
    let found = version.any(|one| one.ty == ty && one.code.is_none_or(|wanted| wanted == code));
    found != want.negated
}

#[cfg(test)]
mod tests;
