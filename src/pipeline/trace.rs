//! Packets that somebody asked about: what each met on its way, kept as it was judged.
//!
//! A worker that is asked calls [`Pipeline::trace`] instead of [`Pipeline::decide`] for packets that a
//! [`Filter`] may mean. That is the same decision, before a [`Witness`]; what it saw is a [`Sighting`],
//! of a fixed size and without allocation. The words are found later, by another thread, from the
//! [`Traced`] copy: [`of_traced`](super::Explanation::of_traced).
//!
//! Life-cycle: a [`Traced`] is made by a worker, goes through a bounded queue, and is told. Concurrency:
//! plain values.

mod filter;
mod told;

pub use filter::Filter;

use super::run::{Disposition, Outcome, Pipeline, Slot, Witness};
use super::{By, DropReason};
use crate::base::time::Now;
use crate::conntrack::helper::HelperId;
use crate::conntrack::record::Snapshot;
use crate::conntrack::shard::{Shard, Tracked};
use crate::conntrack::types::CtState;
use crate::conntrack::why::Why;
use crate::policy::{Compiled, PortId, Steps};
use crate::wire::{Addrs, Parsed};

/// Bytes of a frame that are kept at most.
pub const SNAPLEN: usize = 2048;

/// What a packet met.
#[derive(Clone, Debug, Default)]
pub struct Sighting {
    /// Its flow before it came, if that was in the table.
    pub before: Option<Snapshot>,
    /// Its flow after it.
    pub after: Option<Snapshot>,
    /// Whether a raw rule kept it from being tracked; `None` for what did not come so far.
    pub notrack: Option<bool>,
    /// What the tracker said.
    pub tracked: Option<Tracked>,
    /// Why it is INVALID, if it is.
    pub why: Option<Why>,
    /// Its flow as the rules saw it.
    pub flow: Option<SeenFlow>,
    /// The rules that it matched, in order, as many as could be kept; `None` if none was asked.
    pub steps: Option<Steps>,
    /// These were not read for it, but remembered by its flow.
    pub remembered: bool,
}

/// What rules could ask of a flow: [`FlowView`](crate::conntrack::shard::FlowView), kept.
#[derive(Clone, Copy, Debug)]
pub struct SeenFlow {
    status: u8,
    confirmed: bool,
    mark: u32,
    original: Addrs,
    zone: u16,
    helper: Option<HelperId>,
}

impl Witness for Sighting {
    fn raw(&mut self, notrack: bool) {
        self.notrack = Some(notrack);
    }

    fn tracked(&mut self, shard: &Shard, tracked: Tracked) {
        self.tracked = Some(tracked);
        if tracked.state == CtState::Invalid {
            self.why = shard.why();
        }
        self.flow = shard.view(tracked.flow).map(|view| SeenFlow {
            status: view.status,
            confirmed: view.confirmed,
            mark: view.mark,
            original: view.original,
            zone: view.zone,
            helper: view.helper,
        });
    }

    fn ruled(&mut self, steps: &Steps, remembered: bool) {
        self.steps = Some(steps.clone());
        self.remembered = remembered;
    }
}

impl Pipeline {
    /// [`Pipeline::decide`], or [`Pipeline::decide_whole`] of a datagram that came in several frames,
    /// and what the packet met.
    #[cold]
    pub fn trace(
        &mut self,
        policy: &Compiled,
        now: Now,
        iif: PortId,
        data: &[u8],
        slot: &Slot,
        frames: usize,
    ) -> (Outcome, Sighting) {
        // A fragment has no flow yet.
        let whole = !slot.parsed.fragment.is_part();
        let flow = |pipeline: &Self| {
            let shard = pipeline.shard();
            let flow = shard.peek(&slot.prepared, now.ticks()).filter(|_| whole);
            flow.map(|flow| shard.snapshot(flow, now.ticks()))
        };
        let mut seen = Sighting {
            before: flow(self),
            ..Sighting::default()
        };
        let outcome = self.decide_before(policy, now, iif, data, slot, &mut seen);
        self.drop_others(&outcome, frames);
        seen.after = flow(self);
        (outcome, seen)
    }
}

/// A packet, and what it met.
#[derive(Clone, Debug)]
pub struct Traced {
    /// When: that of the worker's loop, which all packets of its bursts share.
    pub at: Now,
    /// Number of the policy that judged it.
    pub generation: u32,
    /// The worker.
    pub worker: u16,
    /// Where it came in; where it was to leave, if `leaving`.
    pub port: PortId,
    /// It was judged before, and lost on its way out.
    pub leaving: bool,
    /// Frames that it came in.
    pub frames: u16,
    /// Its headers.
    pub parsed: Parsed,
    /// What was decided.
    pub outcome: Outcome,
    /// What it met.
    pub seen: Sighting,
    /// How many of the bytes behind are its own.
    kept: u16,
    bytes: [u8; SNAPLEN],
}

impl Traced {
    /// Of a packet that was judged. At most `snaplen` bytes of `data` are kept.
    #[allow(clippy::too_many_arguments)] // what it is made of
    pub fn new(
        at: Now,
        generation: u32,
        worker: u16,
        (port, leaving): (PortId, bool),
        frames: usize,
        parsed: &Parsed,
        (outcome, seen): (Outcome, Sighting),
        data: &[u8],
        snaplen: usize,
    ) -> Self {
        let data = &data[..data.len().min(snaplen).min(SNAPLEN)];
        let mut traced = Self {
            at,
            generation,
            worker,
            port,
            leaving,
            frames: frames as u16,
            parsed: *parsed,
            outcome,
            seen,
            kept: data.len() as u16,
            bytes: [0; SNAPLEN],
        };
        traced.bytes[..data.len()].copy_from_slice(data);
        traced
    }

    /// The bytes that were kept.
    pub fn data(&self) -> &[u8] {
        &self.bytes[..usize::from(self.kept)]
    }

    /// The verdict with its reason and its rule, in one line: `drop: policy, rule forward/default`.
    /// `policy` is the one that judged it, if it is known still.
    pub fn comment(&self, policy: Option<&Compiled>) -> String {
        comment(&self.outcome, self.seen.why, policy)
    }
}

/// The verdict with its reason and its rule, in one line.
fn comment(outcome: &Outcome, why: Option<Why>, policy: Option<&Compiled>) -> String {
    let mut text = outcome.disposition.verdict().to_owned();
    let mut more = Vec::new();
    if let Disposition::Drop(reason) = outcome.disposition {
        more.push(reason.name().to_owned());
    }
    if let Disposition::Reject(with) = outcome.disposition {
        more.push(format!("{}, {}", DropReason::Rejected.name(), with.name()));
    }
    match policy.map(|policy| outcome.by.name(policy)) {
        Some(Some(name)) => more.push(format!("rule {name}")),
        None if outcome.by != By::Nobody => more.push("by a policy that is gone".into()),
        _ => {}
    }
    if let Some(tracked) = outcome.tracked {
        more.push(format!("ct {}", tracked.state.name()));
    }
    if let Some(why) = why {
        more.push(why.name().to_owned());
    }
    if !more.is_empty() {
        text += &format!(": {}", more.join(", "));
    }
    text
}

#[cfg(test)]
mod tests;
