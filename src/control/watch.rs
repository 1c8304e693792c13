//! Flow events on their way from the workers' queues to those who watch: connections of the API.
//!
//! Life-cycle: a [`Subscription`] lasts as long as its connection. While there is one, the control
//! thread empties the workers' queues every two milliseconds into the subscriptions' own. Concurrency:
//! nobody waits for a slow reader. Events that find its queue full are lost to it alone, counted, and
//! told; those that a worker's queue had no room for are lost to all, and told to all.

use super::protocol::{Change, EventRecord, Shown, Watch};
use crate::base::counter::Counter;
use crate::conntrack::event::{Event, Kind, QUEUE, Subject, changed};
use crate::conntrack::record::ExpectRecord;
use crate::dataplane::shared::Shared;
use crate::helpers;
use crate::wire::Addrs;
use crossbeam::channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::Notify;

/// Events that may wait for one reader.
pub(super) const BACKLOG: usize = 16_384;
/// How often the workers' queues are emptied.
const PACE: Duration = Duration::from_millis(2);

/// Who watches.
#[derive(Debug)]
pub struct Hub {
    shared: Arc<Shared>,
    state: Mutex<State>,
    begun: Notify,
    /// Events that found a reader's queue full.
    lost: AtomicU64,
    /// One more for each answer that is being sent.
    answers: Arc<()>,
}

#[derive(Debug, Default)]
struct State {
    watchers: Vec<Watcher>,
    batch: Vec<Event>,
    /// What the workers had lost at the last look.
    lost_before: u64,
    next: u64,
    closed: bool,
}

#[derive(Debug)]
struct Watcher {
    id: u64,
    kinds: u8,
    watch: Watch,
    queue: Sender<Event>,
    lost: Arc<AtomicU64>,
}

/// One reader's end.
#[derive(Debug)]
pub struct Subscription {
    id: u64,
    hub: Arc<Hub>,
    /// Its events. Closed when the appliance stops.
    pub events: Receiver<Event>,
    lost: Arc<AtomicU64>,
}

impl Subscription {
    /// Events lost to this reader since it last asked.
    pub fn take_lost(&self) -> u64 {
        self.lost.swap(0, Relaxed)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.hub.state.lock();
        state.watchers.retain(|watcher| watcher.id != self.id);
        self.hub.ask(&state);
    }
}

impl Hub {
    /// For the workers of `shared`.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            state: Mutex::default(),
            begun: Notify::new(),
            lost: AtomicU64::new(0),
            answers: Arc::default(),
        }
    }

    /// To be held while a watcher's answer is being sent, to its last line.
    pub(super) fn answering(&self) -> Arc<()> {
        self.answers.clone()
    }

    /// Waits until the answers that [`Hub::close`] ended were sent.
    pub(super) async fn farewell(&self) {
        while Arc::strong_count(&self.answers) > 1 {
            tokio::time::sleep(PACE).await;
        }
    }

    /// Begins to watch.
    pub fn subscribe(self: &Arc<Self>, watch: Watch) -> Subscription {
        let (queue, events) = bounded(BACKLOG);
        let lost = Arc::<AtomicU64>::default();
        let mut state = self.state.lock();
        // What is still under way is for those who watched before.
        self.distribute(&mut state);
        let id = state.next;
        state.next += 1;
        if !state.closed {
            state.watchers.push(Watcher {
                id,
                kinds: watch.bits(),
                watch,
                queue,
                lost: lost.clone(),
            });
        }
        self.ask(&state);
        drop(state);
        self.begun.notify_one();
        Subscription {
            id,
            hub: self.clone(),
            events,
            lost,
        }
    }

    /// Tells the workers what is wanted.
    fn ask(&self, state: &State) {
        let kinds = state.watchers.iter().fold(0, |all, one| all | one.kinds);
        self.shared.watch(kinds);
    }

    /// Hands out what the workers' queues hold.
    pub fn drain(&self) {
        self.distribute(&mut self.state.lock());
    }

    /// Does so until the task is dropped, and sleeps while nobody watches.
    pub(super) async fn run(&self) {
        loop {
            if self.watchers() == 0 {
                self.begun.notified().await;
            }
            tokio::time::sleep(PACE).await;
            self.drain();
        }
    }

    /// How many watch.
    pub fn watchers(&self) -> usize {
        self.state.lock().watchers.len()
    }

    /// Events that workers made, and those that were lost: in workers' queues, in readers'.
    pub fn counts(&self) -> (u64, u64, u64) {
        let sum = |of: fn(&crate::conntrack::event::Queue) -> &Counter| -> u64 {
            let workers = self.shared.workers.iter();
            workers.map(|worker| of(&worker.events).get()).sum()
        };
        (
            sum(|queue| &queue.made),
            sum(|queue| &queue.lost),
            self.lost.load(Relaxed),
        )
    }

    /// Ends all subscriptions: the appliance stops.
    pub fn close(&self) {
        let mut state = self.state.lock();
        self.distribute(&mut state);
        state.closed = true;
        state.watchers.clear();
        self.ask(&state);
    }

    fn distribute(&self, state: &mut State) {
        let State {
            watchers,
            batch,
            lost_before,
            ..
        } = state;
        for worker in &self.shared.workers {
            // No more than one queue full: a worker may make events as fast as they are taken.
            batch.extend(std::iter::from_fn(|| worker.events.pop()).take(QUEUE));
        }
        // Stable: what one worker says stays in its order.
        batch.sort_by_key(|event| event.at);
        let lost = self.counts().1;
        let by_workers = lost - std::mem::replace(lost_before, lost);
        for watcher in watchers {
            let mut lost = by_workers;
            for event in batch.iter().filter(|event| watcher.wants(event)) {
                if watcher.queue.try_send(*event).is_err() {
                    lost += 1;
                }
            }
            watcher.lost.fetch_add(lost, Relaxed);
            self.lost.fetch_add(lost - by_workers, Relaxed);
        }
        batch.clear();
    }
}

impl Watcher {
    fn wants(&self, event: &Event) -> bool {
        let (v6, proto) = match &event.subject {
            Subject::Flow(flow) => (flow.is_v6(), flow.proto()),
            Subject::Expectation(it) => (matches!(it.addrs, Addrs::V6 { .. }), it.proto),
        };
        let filter = &self.watch.filter;
        if self.kinds & event.kind.bit() == 0 || !filter.wants(v6, proto) {
            return false;
        }
        match &event.subject {
            Subject::Flow(flow) => !filter.looks_closer() || filter.matches(&flow.record()),
            Subject::Expectation(_) => true,
        }
    }
}

impl EventRecord {
    /// What is shown of `event`; `epoch_ms` as in [`crate::conntrack::record::FlowRecord::dated`].
    pub fn new(event: &Event, epoch_ms: u64) -> Self {
        let all = [
            (changed::STATE, Change::State),
            (changed::SEEN_REPLY, Change::SeenReply),
            (changed::ASSURED, Change::Assured),
            (changed::MARK, Change::Mark),
        ];
        let changed = all
            .into_iter()
            .filter(|(bit, _)| event.changed & bit != 0)
            .map(|(_, change)| change);
        Self {
            event: event.kind,
            time_us: epoch_ms * 1000 + event.at.nanos() / 1000,
            changed: changed.collect(),
            subject: match &event.subject {
                Subject::Flow(flow) => Shown::Flow(event.record(flow, epoch_ms)),
                Subject::Expectation(it) => {
                    let info = helpers::INFOS.get(it.helper.index()).copied();
                    Shown::Expectation(ExpectRecord::new(it, info, event.at.ticks()))
                }
            },
        }
    }
}

impl Watch {
    /// The kinds as bits.
    fn bits(&self) -> u8 {
        match self.kinds.as_slice() {
            [] => Kind::FLOWS,
            kinds => kinds.iter().fold(0, |all, kind| all | kind.bit()),
        }
    }
}
