//! Evaluates a [`Compiled`] policy for one packet: rule by rule, in order, with an explicit stack
//! of fixed size for jumps. Nothing here allocates, recurses, locks or panics; an index that leads
//! nowhere (a policy that did not come from the check) drops the packet.
//!
//! Concurrency: any number of workers at once; each writes only its own counters.

use super::PortId;
use super::compile::{Act, Compiled, NO_EXTRA, Op, Pred, RuleId};
use super::flow::FlowFacts;
use super::model::{Family, FlagsMatch, IcmpMatch, MAX_JUMPS, RejectWith};
use super::ranges::AddrSet;
use crate::base::time::Now;
use crate::conntrack::helper::{HelperId, Permissions};
use crate::conntrack::types::{CtState, Dir, proto};
use crate::wire::parsed::{Addrs, Fragment, L3, L4, NO_VLAN, Parsed};

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
}

impl Compiled {
    /// Runs the raw rules: the first that matches decides.
    #[inline]
    pub fn raw(&self, worker: usize, facts: &Facts<'_>) -> RawVerdict {
        let mut at = self.raw as usize;
        while let Some(op) = self.ops.get(at) {
            if op.act == Act::End {
                break;
            }
            if self.holds(op, facts) {
                self.count(worker, at, facts.packet.frame_len.into());
                return match op.act {
                    Act::Notrack => RawVerdict::Notrack,
                    _ => RawVerdict::Track,
                };
            }
            at += 1;
        }
        RawVerdict::Track
    }

    /// Runs the helper lines for a packet that starts a flow: the first that matches says which
    /// helper listens to it. A line matches only what its helper can listen to.
    #[inline]
    pub fn helper(&self, worker: usize, facts: &Facts<'_>) -> Option<(HelperId, Permissions)> {
        let mut at = self.helpers as usize;
        while let Some(op) = self.ops.get(at) {
            let Act::Helper(id, permissions) = op.act else {
                break;
            };
            if self.holds(op, facts) {
                self.count(worker, at, facts.packet.frame_len.into());
                return Some((id, permissions));
            }
            at += 1;
        }
        None
    }

    /// Runs the chains from `forward` on, and counts the packet for every rule that it matched.
    /// `facts.flow` then knows the flow's new mark, and what counts it.
    #[inline]
    pub fn forward(&self, worker: usize, facts: &Facts<'_>) -> Decision {
        let mut stack = [0u32; MAX_JUMPS];
        let mut depth = 0;
        let mut at = self.forward;
        let mut log = None;
        let decide = |verdict, at, log| Decision {
            verdict,
            rule: RuleId(at),
            log,
        };
        loop {
            let Some(op) = self.ops.get(at as usize) else {
                return decide(Verdict::Drop, self.forward_policy, log);
            };
            if !self.holds(op, facts) {
                at += 1;
                continue;
            }
            if op.act != Act::End {
                self.count(worker, at as usize, facts.packet.frame_len.into());
            }
            if op.logs {
                log = Some(RuleId(at));
            }
            if op.marks {
                self.mark(op, facts);
            }
            match op.act {
                Act::Accept => return decide(Verdict::Accept, at, log),
                Act::Drop => return decide(Verdict::Drop, at, log),
                Act::Reject(with) => return decide(Verdict::Reject(with), at, log),
                Act::RejectAuto => {
                    let with = match facts.packet.proto {
                        proto::TCP => RejectWith::TcpReset,
                        _ => RejectWith::IcmpPortUnreachable,
                    };
                    return decide(Verdict::Reject(with), at, log);
                }
                Act::Jump(target) => {
                    let Some(slot) = stack.get_mut(depth) else {
                        return decide(Verdict::Drop, self.forward_policy, log);
                    };
                    *slot = at + 1;
                    depth += 1;
                    at = target;
                }
                Act::Goto(target) => at = target,
                Act::Return | Act::End => {
                    // with nowhere to return to, `forward` itself ends
                    let back = depth.checked_sub(1).and_then(|top| stack.get(top));
                    at = back.copied().unwrap_or(self.forward_policy);
                    depth = depth.saturating_sub(1);
                }
                Act::Continue | Act::Notrack | Act::Helper(..) => at += 1,
            }
        }
    }

    /// Whether all matches of `op` hold. Limits come last: they count only what passed the rest.
    #[inline]
    fn holds(&self, op: &Op, facts: &Facts<'_>) -> bool {
        let first = op.preds as usize;
        let preds = self
            .preds
            .get(first..first + usize::from(op.count))
            .unwrap_or_default();
        preds.iter().all(|pred| self.test(pred, facts))
            && (op.extra == NO_EXTRA || self.limits_hold(op, facts))
    }

    fn limits_hold(&self, op: &Op, facts: &Facts<'_>) -> bool {
        let Some(extra) = self.extra(op) else {
            return false;
        };
        extra
            .limit
            .as_ref()
            .is_none_or(|bucket| bucket.take(facts.now))
            && extra
                .connlimit
                .is_none_or(|scope| facts.flow.is_some_and(|flow| scope.holds(flow)))
    }

    #[cold]
    fn mark(&self, op: &Op, facts: &Facts<'_>) {
        let mark = self.extra(op).and_then(|extra| extra.mark);
        if let (Some(mark), Some(flow)) = (mark, facts.flow) {
            flow.set_mark(mark);
        }
    }

    #[inline]
    fn test(&self, pred: &Pred, facts: &Facts<'_>) -> bool {
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
            Pred::Flags(want) => packet
                .tcp_flags()
                .is_some_and(|flags| flags_match(want, flags)),
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

/// An address implies its family: without IPv4 addresses in the set there is nothing to be in, or
/// not to be in.
#[inline]
fn v4_matches(set: &AddrSet, addr: u32, negated: bool) -> bool {
    set.has_v4() && set.contains_v4(addr) != negated
}

#[inline]
fn v6_matches(set: &AddrSet, addr: u128, negated: bool) -> bool {
    set.has_v6() && set.contains_v6(addr) != negated
}

#[inline]
fn flags_match(want: FlagsMatch, flags: u8) -> bool {
    (flags & want.mask == want.value) != want.negated
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
