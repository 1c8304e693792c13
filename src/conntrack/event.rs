//! Events: what happened to a flow, told to whoever watches.
//!
//! A worker puts events of a fixed size into a bounded queue of its own and never waits: where the
//! queue is full the event is counted as lost. The control side takes them out. While nobody watches
//! a packet pays one branch, on a byte that [`Reporter::begin`] sets once a loop.
//!
//! Which packets give an event is ctnetlink's (Linux 6.18): NEW when a flow enters the table, UPDATE
//! after a packet that changed the state of TCP or SCTP, was the first reply, made the flow ASSURED
//! or had it marked (one event for all of it), DESTROY when a flow ends, for whatever reason. Unlike there, the event of a
//! packet that policy then drops does not wait for the next packet that passes.

use super::entry::{Entry, status};
use super::expect::Expectation;
use super::kin::About;
use super::record::{FlowRecord, Snapshot};
use super::sctp;
use super::tuple::Key;
use super::types::proto;
use crate::base::counter::Counter;
use crate::base::time::Now;
use crossbeam::queue::ArrayQueue;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Events that may wait in one worker's queue.
pub const QUEUE: usize = 8192;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Kind {
    /// It entered the table.
    New = 1,
    /// It changed.
    Update = 2,
    /// It ended.
    Destroy = 4,
    /// A helper expects a flow.
    #[serde(rename = "expect-new")]
    Expected = 8,
    /// An expectation ended: fulfilled, expired or withdrawn.
    #[serde(rename = "expect-destroy")]
    Unexpected = 16,
}

impl Kind {
    /// All kinds about flows, as bits.
    pub const FLOWS: u8 = 7;
    /// All kinds about expectations, as bits.
    pub const EXPECTATIONS: u8 = 24;

    /// This kind as a bit.
    pub const fn bit(self) -> u8 {
        self as u8
    }
}

/// Bits of [`Event::changed`]. Those of the status are where [`status`] has them.
pub mod changed {
    use super::status;
    /// The state, of TCP or SCTP.
    pub const STATE: u8 = 1;
    /// The mark.
    pub const MARK: u8 = 0x80;
    /// The first reply came.
    pub const SEEN_REPLY: u8 = status::SEEN_REPLY;
    /// It is ASSURED now.
    pub const ASSURED: u8 = status::ASSURED;
}

/// One event.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// What happened.
    pub kind: Kind,
    /// What an update changed: bits of [`changed`].
    pub changed: u8,
    /// When.
    pub at: Now,
    /// The flow or expectation, as it was then.
    pub subject: Subject,
}

/// What an event is about.
#[derive(Clone, Copy, Debug)]
pub enum Subject {
    /// A flow.
    Flow(Snapshot),
    /// An expectation.
    Expectation(Expectation),
}

impl Event {
    /// The flow that it is about, as it is shown, if it is about one.
    pub fn flow(&self, epoch_ms: u64) -> Option<FlowRecord> {
        match &self.subject {
            Subject::Flow(flow) => Some(self.record(flow, epoch_ms)),
            Subject::Expectation(_) => None,
        }
    }

    /// `flow`, which it is about, as it is shown; `epoch_ms` as in [`FlowRecord::dated`].
    pub fn record(&self, flow: &Snapshot, epoch_ms: u64) -> FlowRecord {
        let mut record = flow.record();
        match self.kind {
            Kind::Expected | Kind::Unexpected => {}
            // As ctnetlink: counters and dates only at the end.
            Kind::New | Kind::Update => {
                record.counters = None;
                record.start_ms = None;
            }
            Kind::Destroy => {
                let stop = self.at.nanos() / 1_000_000;
                record.stop_ms = record.start_ms.map(|_| stop);
            }
        }
        record.dated(epoch_ms)
    }
}

/// A worker's events on their way to the control side.
#[derive(Debug)]
pub struct Queue {
    ring: ArrayQueue<Event>,
    /// Events that were made, lost ones included. One writer: the worker.
    pub made: Counter,
    /// Events that found the queue full.
    pub lost: Counter,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            ring: ArrayQueue::new(QUEUE),
            made: Counter::default(),
            lost: Counter::default(),
        }
    }
}

impl Queue {
    /// The oldest event.
    pub fn pop(&self) -> Option<Event> {
        self.ring.pop()
    }
}

/// A shard's end of the queue.
#[derive(Debug, Default)]
pub struct Reporter {
    /// Kinds that somebody watches, as bits.
    wanted: u8,
    /// The time of this loop.
    now: Now,
    shard: u16,
    queue: Option<Arc<Queue>>,
}

/// What a packet may change of a flow.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    /// Of TCP or SCTP, as a number.
    state: u8,
    status: u8,
    mark: u32,
}

impl Before {
    /// As `entry` is now.
    pub fn of<K: Key>(entry: &Entry<K>) -> Self {
        let Entry { key, core, rest } = entry;
        let state = match key.proto() {
            proto::SCTP => sctp::state(core) as u8,
            _ => core.tcp_state as u8,
        };
        Self {
            state,
            status: core.status,
            mark: rest.mark,
        }
    }
}

impl Reporter {
    /// For shard number `shard`.
    pub fn new(shard: u16, queue: Arc<Queue>) -> Self {
        Self {
            shard,
            queue: Some(queue),
            ..Self::default()
        }
    }

    /// Begins a loop at `now`, in which kinds `wanted` are reported.
    #[inline]
    pub fn begin(&mut self, now: Now, wanted: u8) {
        self.now = now;
        self.wanted = wanted;
    }

    /// The time of this loop.
    #[inline]
    pub fn now(&self) -> Now {
        self.now
    }

    /// Whether somebody watches for `kind`.
    #[inline]
    pub fn wants(&self, kind: Kind) -> bool {
        self.wanted & kind.bit() != 0
    }

    /// A packet of a known flow went by, before which the flow was `before`.
    #[cold]
    pub fn updated<K: Key>(&self, before: Before, entry: &Entry<K>, about: impl Fn() -> About) {
        let now = Before::of(entry);
        let state = u8::from(now.state != before.state) * changed::STATE;
        let mark = u8::from(now.mark != before.mark) * changed::MARK;
        let bits = (now.status ^ before.status) & (changed::SEEN_REPLY | changed::ASSURED);
        let changed = state | mark | bits;
        if changed != 0 {
            self.report(Kind::Update, changed, entry, about());
        }
    }

    /// Reports `kind` of the flow in `entry`; `about` is what it has beside it.
    #[cold]
    pub fn report<K: Key>(&self, kind: Kind, changed: u8, entry: &Entry<K>, about: About) {
        let flow = Snapshot::of(entry, self.now.ticks(), self.shard, about);
        self.send(kind, changed, Subject::Flow(flow));
    }

    /// Reports `kind` of an expectation.
    #[cold]
    pub fn report_expectation(&self, kind: Kind, it: &Expectation) {
        self.send(kind, 0, Subject::Expectation(*it));
    }

    fn send(&self, kind: Kind, changed: u8, subject: Subject) {
        let Some(queue) = &self.queue else { return };
        let event = Event {
            kind,
            changed,
            at: self.now,
            subject,
        };
        queue.made.add(1);
        if queue.ring.push(event).is_err() {
            queue.lost.add(1);
        }
    }
}
