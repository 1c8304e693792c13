//! What a [`Compiled`] policy answers beside verdicts: where frames go, what rules are called, what
//! they have counted, and how counts survive a reload.
//!
//! Concurrency: as [`super::compile()`] says.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::PortId;
use super::classify::Classifier;
use super::compile::{Compiled, Extra, Meta, Named, Op, RuleId};
use super::limit::Limiter;
use super::model::{Log, Zone};
use super::names::ETHERTYPE_LLC;
use super::timeouts::{NoNumber, ProfileId};
use crate::base::time::{Epoch, Now};
use crate::conntrack::config::Config;
use crate::wire::NO_VLAN;

/// A rule and what it has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleInfo<'a> {
    /// The rule.
    pub id: RuleId,
    /// Its chain; `raw` for the rules before tracking, `helpers` for helper lines.
    pub chain: &'a str,
    /// Its name in the chain; `policy` for the chain's policy.
    pub name: &'a str,
    /// What it does.
    pub action: &'a str,
    /// Packets that matched it.
    pub packets: u64,
    /// Bytes of these.
    pub bytes: u64,
}

/// A named counter and what it has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterInfo<'a> {
    /// Its name.
    pub name: &'a str,
    /// Packets that the rules with it matched.
    pub packets: u64,
    /// Bytes of these.
    pub bytes: u64,
}

impl Compiled {
    /// Which reload this policy came with.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// A number that no other policy of this process has; never 0.
    #[inline]
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// The same policy, by which flows are to be judged anew that an earlier one let begin.
    pub fn rematching(self) -> Self {
        Self {
            rematched: self.serial,
            ..self
        }
    }

    /// The serial number of the last policy by which flows were to be judged anew that an earlier
    /// one let begin: this one, or one before it; 0 if there was none.
    #[inline]
    pub fn rematched(&self) -> u64 {
        self.rematched
    }

    /// The same policy, read rule by rule: what the classifier is measured and tested against.
    pub fn without_classifier(self) -> Self {
        Self {
            classifier: None,
            ..self
        }
    }

    /// Bytes that the classifier occupies; 0 where few rules need none.
    pub fn classifier_bytes(&self) -> usize {
        self.classifier.as_ref().map_or(0, Classifier::bytes)
    }

    /// The tracker's settings.
    pub fn conntrack(&self) -> &Config {
        &self.conntrack
    }

    /// Names of the ports; the index is the [`PortId`].
    pub fn port_names(&self) -> &[String] {
        &self.port_names
    }

    /// Where a frame that came in by `port` leaves; `None` for a port in no bridge.
    #[inline]
    pub fn peer(&self, port: PortId) -> Option<PortId> {
        self.peers.get(usize::from(port.0)).copied().flatten()
    }

    /// The zone of a frame that came in by `port` with this VLAN id ([`NO_VLAN`] without a tag).
    #[inline]
    pub fn zone(&self, port: PortId, vlan: u16) -> u16 {
        match self.zones.get(usize::from(port.0)) {
            Some(Zone::Fixed(zone)) => *zone,
            Some(Zone::Vlan) if vlan != NO_VLAN => vlan,
            _ => 0,
        }
    }

    /// Whether rules ask anything of a packet's flow beside its state, or change it: only then need
    /// [`super::Facts::flow`] be there.
    #[inline]
    pub fn asks_of_flows(&self) -> bool {
        self.asks_of_flows
    }

    /// Whether rules ask for marks of flows.
    #[inline]
    pub fn reads_marks(&self) -> bool {
        !self.tables.marks.is_empty()
    }

    /// Whether there are helper lines: only then need [`Compiled::helper`] be asked.
    #[inline]
    pub fn has_helpers(&self) -> bool {
        self.has_helpers
    }

    /// Whether the bridge that `port` is in passes frames that are not IP with this EtherType. A
    /// value below 0x0600 is the length of an 802.3 LLC frame (`llc`, `stp`).
    #[inline]
    pub fn ethertype_allowed(&self, port: PortId, ethertype: u16) -> bool {
        let wanted = if ethertype < 0x0600 {
            ETHERTYPE_LLC
        } else {
            ethertype
        };
        let list = self
            .ethertypes
            .get(usize::from(port.0))
            .and_then(Option::as_ref);
        list.is_some_and(|list| list.binary_search(&wanted).is_ok())
    }

    /// The policy of `forward`, which decides where no rule does.
    #[inline]
    pub fn forward_policy(&self) -> RuleId {
        RuleId(self.forward_policy)
    }

    /// The rule's name with its chain, as in `forward/outbound`; empty for an id of another policy.
    pub fn rule_name(&self, id: RuleId) -> &str {
        self.meta(id).map_or("", |meta| &meta.full_name)
    }

    /// How the rule's packets are logged, if they are.
    pub fn log(&self, id: RuleId) -> Option<&Log> {
        self.meta(id)?.log.as_ref()
    }

    /// Every rule, chain policies included, with what all workers have counted, earlier policies
    /// included for rules that did not change: `forward` first, then user chains, `raw`, `helpers`.
    pub fn rules(&self) -> impl Iterator<Item = RuleInfo<'_>> {
        let carried = self.carried.lock().clone();
        self.rules
            .iter()
            .zip(carried)
            .enumerate()
            .filter_map(|(at, (meta, carried))| {
                let meta = meta.as_ref()?;
                let (packets, bytes) = self.total(at, carried);
                Some(RuleInfo {
                    id: RuleId(at as u32),
                    chain: meta.full_name.get(..meta.own - 1)?,
                    name: meta.full_name.get(meta.own..)?,
                    action: &meta.action,
                    packets,
                    bytes,
                })
            })
    }

    /// What makes wall-clock time of the times of packets, which `time` goes by. Until it is set,
    /// packets' times are since 1970.
    pub fn epoch(&self) -> &Arc<Epoch> {
        &self.epoch
    }

    /// Takes over what outlives `old`, before this policy is published: its [`Compiled::epoch`],
    /// since when flows are to be judged anew, and the buckets of the limits of unchanged rules, which
    /// both then take from; and flows that go by timeouts of `old` will go by the sets of the same
    /// name, or the same content, here.
    ///
    /// # Errors
    /// If that leaves too few numbers for new sets.
    pub fn follow(&mut self, old: &Compiled) -> Result<(), NoNumber> {
        self.timeouts.follow(&old.timeouts)?;
        self.conntrack = self.timeouts.config(&self.conntrack);
        self.epoch = Arc::clone(&old.epoch);
        self.rematched = self.rematched.max(old.rematched);
        let limited = self.unchanged(old, |at| old.limiter(at).is_some());
        let limited: Vec<_> = limited.collect();
        for (at, from) in limited {
            if let (Some(new), Some(past)) = (self.limiter_mut(at), old.limiter(from)) {
                new.clone_from(past);
            }
        }
        Ok(())
    }

    /// Whether any flows go by other timeouts than the default: only then need
    /// [`Compiled::timeouts`] be asked.
    #[inline]
    pub fn has_timeouts(&self) -> bool {
        self.timeouts.is_any()
    }

    /// The number in [`Config`] of the timeouts for a flow that begins in `zone`, to which rules
    /// gave `given`.
    pub fn timeouts(&self, given: Option<ProfileId>, zone: u16) -> u8 {
        self.timeouts.number(given, zone)
    }

    /// Rules that did not change (same chain, name and text): where they are here, and in `old`, of
    /// those that are `wanted` there.
    fn unchanged(
        &self,
        old: &Compiled,
        wanted: impl Fn(usize) -> bool,
    ) -> impl Iterator<Item = (usize, usize)> {
        let before = old.written().filter(|(_, at)| wanted(*at));
        let before: BTreeMap<(&str, u64), usize> = before.collect();
        let now = self.written();
        now.filter_map(move |(rule, at)| Some((at, *before.get(&rule)?)))
    }

    /// The name and text of every rule, and where it is.
    fn written(&self) -> impl Iterator<Item = ((&str, u64), usize)> {
        let rules = self.rules.iter().enumerate();
        let rules = rules.filter_map(|(at, meta)| Some((meta.as_ref()?, at)));
        rules.map(|(meta, at)| ((meta.full_name.as_str(), meta.hash), at))
    }

    /// Takes over what unchanged rules (same chain, name and text) had counted, and what named
    /// counters had. Call it once, when every worker has left `old`; what a worker counts there later
    /// is lost.
    pub fn carry_from(&self, old: &Compiled) {
        let before = old.carried.lock().clone();
        for counter in &self.named {
            let past = |past: &Named| past.name.as_str().cmp(&counter.name);
            if let Ok(at) = old.named.binary_search_by(past) {
                *counter.carried.lock() = old.fed(&old.named[at]);
            }
        }
        let mut carried = self.carried.lock();
        for (at, from) in self.unchanged(old, |_| true) {
            if let (Some(slot), Some(base)) = (carried.get_mut(at), before.get(from)) {
                *slot = old.total(from, *base);
            }
        }
    }

    /// The named counters, ascending by name, with what all workers have counted, earlier policies
    /// with a counter of that name included.
    pub fn counters(&self) -> impl Iterator<Item = CounterInfo<'_>> {
        self.named.iter().map(|counter| {
            let (packets, bytes) = self.fed(counter);
            CounterInfo {
                name: &counter.name,
                packets,
                bytes,
            }
        })
    }

    fn fed(&self, counter: &Named) -> (u64, u64) {
        let carried = *counter.carried.lock();
        let rules = counter.rules.iter();
        rules.fold(carried, |sum, at| self.total(*at as usize, sum))
    }

    /// What the rule has beside its predicates.
    #[inline]
    pub(super) fn extra(&self, op: &Op) -> Option<&Extra> {
        self.tables.extras.get(op.extra as usize)
    }

    /// Every rule whose `limit` has a bucket for each address, network or zone, with about how many of
    /// these are open, and how many can be.
    pub fn limits(&self, now: Now) -> impl Iterator<Item = (&str, u64, u64)> {
        let rules = self.rules.iter().enumerate();
        rules.filter_map(move |(at, meta)| {
            let (open, room) = self.limiter(at)?.open(now)?;
            Some((meta.as_ref()?.full_name.as_str(), open, room))
        })
    }

    fn limiter(&self, at: usize) -> Option<&Limiter> {
        self.extra(self.ops.get(at)?)?.limit.as_ref()
    }

    fn limiter_mut(&mut self, at: usize) -> Option<&mut Limiter> {
        let extra = self.ops.get(at)?.extra;
        self.tables.extras.get_mut(extra as usize)?.limit.as_mut()
    }

    /// Counts one packet of `bytes` for the operation `at`.
    #[inline]
    pub(super) fn count(&self, worker: usize, at: usize, bytes: u64) {
        let blocks = self.counters.get(worker);
        if let Some(block) = blocks.and_then(|blocks| blocks.get(at >> 3)) {
            block.0[at & 7].add(bytes);
        }
    }

    fn total(&self, at: usize, carried: (u64, u64)) -> (u64, u64) {
        self.counters
            .iter()
            .filter_map(|blocks| blocks.get(at >> 3))
            .fold(carried, |(packets, bytes), block| {
                let (p, b) = block.0[at & 7].get();
                (packets.wrapping_add(p), bytes.wrapping_add(b))
            })
    }

    fn meta(&self, id: RuleId) -> Option<&Meta> {
        self.rules.get(id.0 as usize)?.as_ref()
    }
}
