//! What workers and the control thread share, and nothing else: the policy, whose flows are
//! whose, counters with one writer each, the stop flag.

use super::clock::Clock;
use super::examples::Examples;
use super::halt::Halt;
use super::steer::{BUCKETS, Steering};
use crate::base::counter::{Counter, Traffic};
use crate::base::histogram::Histogram;
use crate::base::rcu::Rcu;
use crate::base::time::{Epoch, Now};
use crate::conntrack::event;
use crate::pipeline::Counters;
use crate::policy::{Compiled, MAX_PORTS};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// One worker's traffic on one port.
#[derive(Debug, Default)]
pub struct PortCounters {
    /// Taken from it.
    pub rx: Traffic,
    /// Given to it, what the firewall made itself included.
    pub tx: Traffic,
    /// Packets whose bucket was read from the hash that the port told.
    pub hash_used: Counter,
    /// Hashes that were told and wrong.
    pub hash_wrong: Counter,
}

/// Declares once why packets are handed over.
macro_rules! causes {
    ($($variant:ident $name:literal $text:literal)*) => {
        /// Why a packet came to a worker that does not own its flow.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Cause {
            $(#[doc = $text] $variant,)*
        }

        impl Cause {
            /// Every cause, in the order of their numbers.
            pub const ALL: &[Cause] = &[$(Cause::$variant),*];

            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The word for it.
            pub const fn name(self) -> &'static str {
                match self { $(Cause::$variant => $name),* }
            }

            /// What it means.
            pub const fn text(self) -> &'static str {
                match self { $(Cause::$variant => $text),* }
            }
        }
    };
}

causes! {
    NoRss "no-rss" "The port does not spread packets by the hash that owners go by."
    OtherHash "other-hash" "The NIC hashes this kind of packet otherwise, or its table has another worker's queue there."
    IcmpError "icmp-error" "An ICMP error about a flow, whose own addresses are others."
    Fragment "fragment" "A fragment, which has no ports: to the worker that collects the datagram, or all of it to the owner."
    Moved "moved" "Its bucket is on its way to another worker."
}

/// What one worker counts.
#[derive(Debug)]
pub struct WorkerCounters {
    /// The packet path.
    pub path: Arc<Counters>,
    /// By port.
    pub ports: Box<[PortCounters]>,
    /// Frames handed to other workers.
    pub handed_out: Counter,
    /// Frames taken from other workers.
    pub handed_in: Counter,
    /// Frames that were to be handed over, by [`Cause`]; those that found the ring full are among them.
    pub handed: [Counter; Cause::COUNT],
    /// Frames that waited in the rings to this worker when it last looked (a gauge).
    pub ring_waiting: Counter,
    /// The most that ever waited in one of these rings.
    pub ring_highest: Counter,
    /// Packets that this worker received of each bucket, if there are others.
    pub buckets: Box<[Counter; BUCKETS]>,
    /// Events of its flows, on their way to the control thread.
    pub events: Arc<event::Queue>,
    /// Of each drop reason the last packet.
    pub examples: Examples,
    /// Log lines that found the channel full.
    pub log_lost: Counter,
    /// Times of loops that did something: moved frames, or did what the control thread asked for.
    pub busy: Histogram,
    /// Nanoseconds of loops that found nothing, and of rests between them.
    pub idle_nanos: Counter,
    /// Loops.
    pub loops: Counter,
}

impl Default for WorkerCounters {
    fn default() -> Self {
        Self {
            path: Arc::default(),
            ports: (0..MAX_PORTS).map(|_| PortCounters::default()).collect(),
            handed_out: Counter::default(),
            handed_in: Counter::default(),
            handed: Default::default(),
            ring_waiting: Counter::default(),
            ring_highest: Counter::default(),
            buckets: Box::new(std::array::from_fn(|_| Counter::default())),
            events: Arc::default(),
            examples: Examples::default(),
            log_lost: Counter::default(),
            busy: Histogram::default(),
            idle_nanos: Counter::default(),
            loops: Counter::default(),
        }
    }
}

impl WorkerCounters {
    /// Counts a loop from `start` to `end`, in which something was done, if `busy`.
    #[inline]
    pub(super) fn looped(&self, busy: bool, start: Now, end: Now) {
        self.loops.add(1);
        if busy {
            self.busy.add(end.nanos().saturating_sub(start.nanos()));
        } else {
            self.rested(start, end);
        }
    }

    /// Counts time in which nothing was done.
    #[inline]
    pub(super) fn rested(&self, start: Now, end: Now) {
        let spent = end.nanos().saturating_sub(start.nanos());
        self.idle_nanos.add(spent);
    }
}

/// Shared by all threads of one appliance.
#[derive(Debug)]
pub struct Shared {
    /// The policy in force.
    pub policy: Rcu<Compiled>,
    /// Whose flows are whose.
    pub steering: Arc<Steering>,
    /// For each worker.
    pub workers: Vec<WorkerCounters>,
    /// The workers' clock.
    pub clock: Clock,
    /// Its epoch in wall-clock time, which the control thread keeps up to date, for the policies.
    pub epoch: Arc<Epoch>,
    /// Kinds of events that somebody watches, as bits; workers look once a loop.
    watched: AtomicU8,
    halt: Halt,
}

impl Shared {
    /// For workers under `policy` among whom `steering` divides the flows.
    pub fn new(policy: Rcu<Compiled>, steering: Arc<Steering>, clock: Clock) -> Self {
        let halt = Halt::new(steering.workers());
        let workers = 0..steering.workers();
        let workers = workers.map(|_| WorkerCounters::default()).collect();
        let epoch = policy.with(|policy| policy.epoch().clone());
        epoch.set(clock.epoch_nanos());
        Self {
            policy,
            steering,
            workers,
            clock,
            epoch,
            watched: AtomicU8::new(0),
            halt,
        }
    }

    /// Asks for events of `kinds` (bits of [`event::Kind`]) and no others.
    pub fn watch(&self, kinds: u8) {
        self.watched.store(kinds, Ordering::Relaxed);
    }

    /// Kinds of events that are asked for.
    #[inline]
    pub fn watched(&self) -> u8 {
        self.watched.load(Ordering::Relaxed)
    }

    /// Tells the workers to finish.
    pub fn stop(&self) {
        self.halt.stop();
    }

    /// Says that a worker hands nothing over any more.
    pub fn park(&self) {
        self.halt.park();
    }

    /// Whether no worker hands anything over any more, so that what the rings hold is all.
    pub fn all_parked(&self) -> bool {
        self.halt.all_parked()
    }

    /// Whether they were told.
    #[inline]
    pub fn stopping(&self) -> bool {
        self.halt.stopping()
    }
}
