//! From a frame to its verdict.

mod again;

pub use again::Judged;

use super::assist::Talks;
use super::memory::{Kind, Memory, Way};
use super::{Counters, DropReason};
use crate::base::hash::HashKey;
use crate::base::time::{Now, Ticks};
use crate::conntrack::config::Config;
use crate::conntrack::expect::Expecter;
use crate::conntrack::icmp;
use crate::conntrack::limit::Budget;
use crate::conntrack::shard::{Flow, FlowRef, Prepared, Shard, Tracked};
use crate::conntrack::table::InsertError;
use crate::conntrack::types::{CtState, Dir, proto};
use crate::helpers;
use crate::policy::{
    Compiled, Counted, Decision, Facts, FlowFacts, PortId, ProfileId, RawVerdict, RejectWith,
    RuleId, Steps, Trail, Verdict,
};
use crate::wire::fragment::join;
use crate::wire::tcp::flags;
use crate::wire::{self, Fragment, L3, L4, NO_VLAN, Parsed};
use std::sync::Arc;

/// A packet between the first stage and the last. Filled in place and used again and again: it is
/// too large to be moved for nothing.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    /// Its headers.
    pub parsed: Parsed,
    /// Its flow's key and bucket.
    pub prepared: Prepared,
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            parsed: Parsed::NOTHING,
            prepared: Prepared::NOTHING,
        }
    }
}

/// What happens to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// It leaves by this port.
    Forward(PortId),
    /// It is dropped.
    Drop(DropReason),
    /// It is dropped, and its sender is told.
    Reject(RejectWith),
    /// It is a fragment, and waits for the rest of its datagram.
    Hold,
}

impl Disposition {
    /// The word for it.
    pub const fn verdict(self) -> &'static str {
        match self {
            Disposition::Forward(_) => "accept",
            Disposition::Drop(_) => "drop",
            Disposition::Reject(_) => "reject",
            Disposition::Hold => "hold",
        }
    }

    /// Why the packet goes no further, if it does not.
    pub const fn reason(self) -> Option<DropReason> {
        match self {
            Disposition::Drop(reason) => Some(reason),
            Disposition::Reject(_) => Some(DropReason::Rejected),
            Disposition::Forward(_) | Disposition::Hold => None,
        }
    }
}

/// Who decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Nobody: the packet never reached policy.
    Nobody,
    /// A rule, or the policy of a chain.
    Rule(RuleId),
    /// The bridge's list of EtherTypes.
    EtherTypes,
    /// Neighbour discovery passes a bridge unless a rule says otherwise.
    NeighbourDiscovery,
}

impl By {
    /// What it is called; a rule is one of `policy`.
    pub fn name(self, policy: &Compiled) -> Option<&str> {
        match self {
            By::Nobody => None,
            By::Rule(rule) => Some(policy.rule_name(rule)),
            By::EtherTypes => Some("bridge/ethertypes"),
            By::NeighbourDiscovery => Some("bridge/neighbour-discovery"),
        }
    }
}

/// Sees how a packet is judged. Nobody, `()`, sees those that nobody asked about: then nothing of it is
/// left in the packet path.
pub trait Witness {
    /// The raw rules were asked, and it is tracked or not.
    #[inline(always)]
    fn raw(&mut self, _notrack: bool) {}

    /// The tracker of `shard` has judged it.
    #[inline(always)]
    fn tracked(&mut self, _shard: &Shard, _tracked: Tracked) {}

    /// The rules were asked, or what its flow remembers of them: it has matched `steps`.
    #[inline(always)]
    fn ruled(&mut self, _steps: &Steps, _remembered: bool) {}
}

impl Witness for () {}

/// What was decided about a packet, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// What happens to it.
    pub disposition: Disposition,
    /// Who decided.
    pub by: By,
    /// What the tracker said; `None` for packets that it never saw.
    pub tracked: Option<Tracked>,
    /// The rule whose `log` applies.
    pub log: Option<RuleId>,
}

impl Outcome {
    const fn dropped(reason: DropReason) -> Self {
        Self::unjudged(Disposition::Drop(reason))
    }

    /// What happens to a packet that is lost for `reason`, before or after anybody was asked.
    pub const fn lost(reason: DropReason) -> Self {
        Self::dropped(reason)
    }

    /// What happens to a packet about which neither tracker nor policy was asked.
    pub const fn unjudged(disposition: Disposition) -> Self {
        Self {
            disposition,
            by: By::Nobody,
            tracked: None,
            log: None,
        }
    }
}

/// One worker's packet path, with the shard that it owns.
#[derive(Debug)]
pub struct Pipeline {
    worker: usize,
    shard: Shard,
    counters: Arc<Counters>,
    /// What the flow that the last packet starts was added to.
    counted: Counted,
    /// What helpers keep of the flows that they listen to.
    talks: Talks,
    /// What flows remember of verdicts.
    memory: Memory,
}

impl Pipeline {
    /// The path of worker number `worker` of a box that has no other, for at most `limit` flows.
    #[allow(clippy::expect_used)] // at start, where memory that is not there ends the start
    pub fn new(
        worker: usize,
        limit: u32,
        secret: HashKey,
        now: Now,
        counters: Arc<Counters>,
    ) -> Self {
        let budget = Arc::new(Budget::new(limit, 1));
        let ends = Self::expecters(&budget, 1, Config::default().expect_max);
        let expecter = ends.into_iter().next().expect("one end for one worker");
        Self::sharing(worker, budget, expecter, secret, now, counters)
    }

    /// The table of expectations of a box whose `workers` workers share `budget`, and each worker's
    /// end of it: at most `max` expectations.
    #[allow(clippy::expect_used)] // at start, where memory that is not there ends the start
    pub fn expecters(budget: &Budget, workers: usize, max: u32) -> Vec<Expecter> {
        Shard::expecters(budget, workers, max, &helpers::INFOS).expect("memory for expectations")
    }

    /// The path of worker number `worker`, which shares `budget`, and what `expecter` is an end of,
    /// with the others.
    pub fn sharing(
        worker: usize,
        budget: Arc<Budget>,
        expecter: Expecter,
        secret: HashKey,
        now: Now,
        counters: Arc<Counters>,
    ) -> Self {
        let ct = counters.ct.clone();
        let talks = Talks::new(budget.capacity());
        let id = worker as u16;
        let shard = Shard::sharing(id, budget, expecter, secret, now.ticks(), ct);
        Self {
            worker,
            shard,
            counters,
            counted: Counted::new(),
            talks,
            memory: Memory::new(),
        }
    }

    /// The flows.
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// The flows, to end some of them.
    pub fn shard_mut(&mut self) -> &mut Shard {
        &mut self.shard
    }

    /// The counters.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// First stage: parse, key, hash; the bucket is asked for. `data` is the first segment of a
    /// frame that came in by `iif`, and `frame_len` its whole length.
    #[inline]
    pub fn prepare(
        &self,
        slot: &mut Slot,
        policy: &Compiled,
        iif: PortId,
        data: &[u8],
        frame_len: usize,
    ) {
        let Slot { parsed, prepared } = slot;
        wire::parse_into(parsed, data, frame_len);
        let zone = policy.zone(iif, parsed.vlan);
        self.shard.prepare_into(prepared, data, parsed, zone);
    }

    /// The first stage of a datagram that came in fragments: puts `frames`, in the order of their
    /// offsets, together in `scratch` ([`MAX_JOINED`](crate::wire::fragment::MAX_JOINED) bytes)
    /// and returns the length of the whole frame. `None` if that is no datagram, or a fragment
    /// again.
    pub fn join<'a>(
        &self,
        slot: &mut Slot,
        policy: &Compiled,
        iif: PortId,
        scratch: &mut [u8],
        frames: impl Iterator<Item = &'a [u8]>,
    ) -> Option<usize> {
        let len = join(scratch, frames)?;
        self.prepare(slot, policy, iif, &scratch[..len], len);
        if slot.parsed.fragment.is_part() {
            return None;
        }
        slot.parsed.fragment = Fragment::Reassembled;
        Some(len)
    }

    /// Second stage: the flow's entry is asked for.
    #[inline]
    pub fn prefetch(&self, slot: &mut Slot) {
        self.shard.prefetch(&mut slot.prepared);
    }

    /// Third stage: the decision, in arrival order. Drops are counted here; what is forwarded is
    /// counted where it is sent, and a fragment where it is held.
    #[inline]
    pub fn decide(
        &mut self,
        policy: &Compiled,
        now: Now,
        iif: PortId,
        data: &[u8],
        slot: &Slot,
    ) -> Outcome {
        self.decide_before(policy, now, iif, data, slot, &mut ())
    }

    /// The same, before a witness.
    #[inline(always)]
    pub fn decide_before(
        &mut self,
        policy: &Compiled,
        now: Now,
        iif: PortId,
        data: &[u8],
        slot: &Slot,
        witness: &mut impl Witness,
    ) -> Outcome {
        let outcome = self.judge(policy, now, iif, data, slot, witness);
        if let Some(reason) = outcome.disposition.reason() {
            self.counters.dropped(reason);
        }
        outcome
    }

    /// Takes note of a policy that is new. Called once a loop, so that few are missed, and for each
    /// packet. What flows owe to one that was missed, the next one tells.
    #[inline]
    pub fn begin_policy(&mut self, policy: &Compiled) {
        if !self.memory.is_of(policy.serial()) {
            let shard = &mut self.shard;
            let renumber = |new: &dyn Fn(u16) -> u16| shard.renumber(new);
            self.memory
                .turn(policy.serial(), policy.rematched(), renumber);
            self.shard.set_epoch(self.memory.epoch());
        }
    }

    /// The third stage of a datagram that came in `fragments` frames, which is what a drop counts.
    /// `data` and `slot` are what [`join`](Self::join) made.
    pub fn decide_whole(
        &mut self,
        policy: &Compiled,
        now: Now,
        iif: PortId,
        data: &[u8],
        slot: &Slot,
        fragments: usize,
    ) -> Outcome {
        let outcome = self.decide(policy, now, iif, data, slot);
        self.drop_others(&outcome, fragments);
        outcome
    }

    /// Counts the other frames of a datagram that came in `fragments` and of which one is counted.
    pub(super) fn drop_others(&self, outcome: &Outcome, fragments: usize) {
        if let Some(reason) = outcome.disposition.reason() {
            let others = fragments.saturating_sub(1) as u64;
            self.counters.drops[reason as usize].add(others);
        }
    }

    #[inline]
    fn judge(
        &mut self,
        policy: &Compiled,
        now: Now,
        iif: PortId,
        data: &[u8],
        slot: &Slot,
        witness: &mut impl Witness,
    ) -> Outcome {
        let Slot { parsed, prepared } = slot;
        self.begin_policy(policy);
        let Some(oif) = policy.peer(iif) else {
            return Outcome::dropped(DropReason::NoPeer);
        };
        match parsed.l3 {
            L3::Ipv4 | L3::Ipv6 => {}
            L3::Other if policy.ethertype_allowed(iif, parsed.ethertype) => {
                return Outcome {
                    disposition: Disposition::Forward(oif),
                    by: By::EtherTypes,
                    tracked: None,
                    log: None,
                };
            }
            L3::Other => return Outcome::dropped(DropReason::EtherType),
            L3::BadFrame => return Outcome::dropped(DropReason::ShortFrame),
            L3::BadHeader => return Outcome::dropped(DropReason::IpHeader),
            L3::BadChecksum => return Outcome::dropped(DropReason::IpChecksum),
        }
        if parsed.fragment.is_part() {
            return Outcome::unjudged(Disposition::Hold);
        }
        let mut facts = Facts {
            packet: parsed,
            iif,
            oif,
            state: CtState::Untracked,
            dir: None,
            flow: None,
            now,
        };
        let notrack = policy.raw(self.worker, &facts) == RawVerdict::Notrack;
        witness.raw(notrack);
        let ticks = now.ticks();
        let config = policy.conntrack();
        let mut tracked = self
            .shard
            .track(data, parsed, prepared, notrack, ticks, config);
        witness.tracked(&self.shard, tracked);
        facts.state = tracked.state;
        facts.dir = tracked.dir;
        let mut recalled = None;
        if let Flow::Known(flow) = tracked.flow {
            let dir = tracked.dir.unwrap_or(Dir::Original);
            let (judged, verdict) = self.shard.remembered(flow, dir);
            if self.memory.is_due(judged)
                && let Some(outcome) = self.judge_again(policy, flow, parsed)
            {
                return outcome;
            }
            if verdict != 0 {
                recalled = self.recall(policy, &facts, judged, verdict, witness);
            }
        }
        let decision = match recalled {
            Some(decision) => decision,
            None => self.ask(policy, &facts, tracked, witness),
        };
        let mut by = By::Rule(decision.rule);
        let disposition = match decision.verdict {
            Verdict::Accept => Disposition::Forward(oif),
            Verdict::Drop
                if decision.rule == policy.forward_policy() && is_neighbour_discovery(parsed) =>
            {
                by = By::NeighbourDiscovery;
                Disposition::Forward(oif)
            }
            Verdict::Drop => Disposition::Drop(DropReason::Policy),
            Verdict::Reject(with) => Disposition::Reject(with),
        };
        let disposition = if self.shard.has_helped() {
            self.hear(tracked, data, parsed, ticks, disposition)
        } else {
            disposition
        };
        let disposition = match (disposition, tracked.flow) {
            (Disposition::Forward(_), Flow::Pending) => {
                // By value, so that the facts of usual packets can stay in registers.
                let timeouts = decision.timeouts;
                let (flow, disposition) = self.begin(policy, facts, timeouts, data, disposition);
                tracked.flow = flow;
                disposition
            }
            // A RST is not answered (RFC 9293 3.5.2), so nothing is closed.
            (Disposition::Reject(RejectWith::TcpReset), Flow::Known(flow)) if !matches!(parsed.l4, L4::Tcp(ref header) if header.flags & flags::RST != 0) =>
            {
                self.shard.close(flow, ticks, config);
                disposition
            }
            _ => disposition,
        };
        self.shard.tell_changes();
        if !self.counted.is_empty() {
            self.settle(tracked.flow.known());
        }
        Outcome {
            disposition,
            by,
            tracked: Some(tracked),
            log: decision.log,
        }
    }

    /// What the packet's flow, judged in the epoch `judged`, remembers of this direction's verdict,
    /// counted for every rule again.
    #[inline]
    fn recall(
        &self,
        policy: &Compiled,
        facts: &Facts<'_>,
        judged: u16,
        verdict: u16,
        witness: &mut impl Witness,
    ) -> Option<Decision> {
        let kind = kind(policy, facts, facts.dir?);
        let way = self.memory.recall(judged, verdict, kind)?;
        policy.count_again(self.worker, &way.steps, facts.packet.frame_len.into());
        witness.ruled(&way.steps, true);
        Some(way.decision)
    }

    /// How many packets were judged by what their flows remembered.
    #[cfg(test)]
    pub(super) fn spared(&self) -> u64 {
        self.memory.spared.get()
    }

    /// Runs the chains, and lets the flow remember what came of it.
    #[inline]
    fn ask(
        &mut self,
        policy: &Compiled,
        facts: &Facts<'_>,
        tracked: Tracked,
        witness: &mut impl Witness,
    ) -> Decision {
        let mut trail = Trail::default();
        let decision = if policy.asks_of_flows() {
            self.forward_with_flow(policy, facts, tracked.flow, &mut trail)
        } else {
            policy.forward_leaving(self.worker, facts, &mut trail)
        };
        witness.ruled(trail.matched(), false);
        if let (Flow::Known(flow), true) = (tracked.flow, trail.is_long()) {
            self.learn(policy, facts, flow, decision, &trail);
        }
        decision
    }

    /// Lets `flow` remember the way of its packet, if the next one will go it too. An ICMP error
    /// about a flow has its state only in common with it.
    #[inline(never)]
    fn learn(
        &mut self,
        policy: &Compiled,
        facts: &Facts<'_>,
        flow: FlowRef,
        decision: Decision,
        trail: &Trail,
    ) {
        let (Some(steps), Some(dir)) = (trail.steps(), facts.dir) else {
            return;
        };
        if !matches!(facts.state, CtState::New | CtState::Established) {
            return;
        }
        let way = Way {
            kind: kind(policy, facts, dir),
            decision,
            steps: steps.clone(),
        };
        let verdict = self.memory.learn(way);
        self.shard.judged(flow, self.memory.epoch());
        self.shard.remember(flow, dir, verdict);
    }

    /// Runs the chains of a policy that asks something of `flow`, or changes it.
    #[inline(never)]
    fn forward_with_flow(
        &mut self,
        policy: &Compiled,
        facts: &Facts<'_>,
        flow: Flow,
        trail: &mut Trail,
    ) -> Decision {
        let Some(view) = self.shard.view(flow) else {
            return policy.forward_leaving(self.worker, facts, trail);
        };
        let known = FlowFacts::new(view);
        let facts = Facts {
            flow: Some(&known),
            ..*facts
        };
        let decision = policy.forward_leaving(self.worker, &facts, trail);
        let mark = known.new_mark();
        self.counted = known.counted();
        if let Some(mark) = mark {
            self.shard.set_mark(flow, mark);
            trail.vary();
        }
        decision
    }

    /// Enters the flow that the packet starts, and lets the helper that policy names for it hear the
    /// packet. The flow, and what becomes of the packet.
    #[inline(never)]
    fn begin(
        &mut self,
        policy: &Compiled,
        facts: Facts<'_>,
        timeouts: Option<ProfileId>,
        data: &[u8],
        disposition: Disposition,
    ) -> (Flow, Disposition) {
        if policy.has_helpers()
            && let Some((helper, permissions)) = policy.helper(self.worker, &facts)
        {
            self.shard.attach(helper, permissions);
        }
        self.shard.came_by(facts.iif.0);
        let now = facts.now.ticks();
        if policy.has_timeouts() {
            let zone = policy.zone(facts.iif, facts.packet.vlan);
            let number = policy.timeouts(timeouts, zone);
            self.shard.set_timeouts(number, now, policy.conntrack());
        }
        let flow = match self.shard.commit(now) {
            Ok(flow) => flow,
            Err(InsertError::Full) => {
                return (Flow::Pending, Disposition::Drop(DropReason::TableFull));
            }
            Err(InsertError::LongRun) => {
                return (Flow::Pending, Disposition::Drop(DropReason::IndexFull));
            }
        };
        if !self.shard.is_helped(flow) {
            return (Flow::Known(flow), disposition);
        }
        let heard = self.assist(flow, Dir::Original, data, facts.packet, now, disposition);
        if heard == disposition {
            return (Flow::Known(flow), disposition);
        }
        // A flow does not begin with a packet that does not pass.
        self.shard.revoke(flow);
        (Flow::None, heard)
    }

    /// Lets the helper of a known flow hear the packet, if it has one and the packet may pass, and
    /// says what becomes of it.
    #[inline(never)]
    fn hear(
        &mut self,
        tracked: Tracked,
        data: &[u8],
        parsed: &Parsed,
        now: Ticks,
        disposition: Disposition,
    ) -> Disposition {
        match (disposition, tracked.flow, tracked.dir) {
            (Disposition::Forward(_), Flow::Known(flow), Some(dir))
                if self.shard.is_helped(flow) =>
            {
                self.assist(flow, dir, data, parsed, now, disposition)
            }
            _ => disposition,
        }
    }

    /// Lets the helper of `flow` hear a packet that goes `dir`, and says what becomes of it.
    #[cold]
    fn assist(
        &mut self,
        flow: FlowRef,
        dir: Dir,
        data: &[u8],
        parsed: &Parsed,
        now: Ticks,
        disposition: Disposition,
    ) -> Disposition {
        let shard = &mut self.shard;
        if self.talks.hear(shard, flow, dir, data, parsed, now) {
            disposition
        } else {
            Disposition::Drop(DropReason::Helper)
        }
    }

    /// Lets the counts hold the flow that the packet started, or takes them back if it did not come
    /// into the table.
    #[cold]
    fn settle(&mut self, flow: Option<FlowRef>) {
        match flow {
            Some(flow) => self.shard.count(flow, &self.counted),
            None => {
                let tally = self.shard.tally();
                self.counted.iter().for_each(|key| tally.remove(*key));
            }
        }
        self.counted.clear();
    }
}

/// For which packets of its flow the verdict on this one holds.
#[inline]
fn kind(policy: &Compiled, facts: &Facts<'_>, dir: Dir) -> Kind {
    let vlan = if policy.reads_vlans() {
        facts.packet.vlan
    } else {
        NO_VLAN
    };
    Kind {
        state: facts.state,
        dir,
        iif: facts.iif,
        vlan,
    }
}

/// Router and neighbour discovery that comes from the link itself (RFC 4861 7.1: hop limit 255).
#[inline]
pub(super) fn is_neighbour_discovery(parsed: &Parsed) -> bool {
    matches!(parsed.l4, L4::Icmp { ty, .. }
        if parsed.proto == proto::ICMPV6 && icmp::is_neighbour_discovery(ty))
        && parsed.ttl == 255
}
