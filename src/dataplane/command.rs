//! What the control thread may ask of a worker, which alone may touch its shard. Each request is
//! a bounded piece of work, and a worker does at most one a loop; what goes over all flows it goes on
//! with by itself ([`super::walk`]).

use super::steer::BUCKETS;
use super::trace::Session;
use super::walk::{SCAN, Walk};
use crate::base::time::Now;
use crate::conntrack::helper::HelperId;
use crate::conntrack::record::{ExpectRecord, FlowRecord};
use crate::conntrack::shard::{Cursor, Flow};
use crate::conntrack::tuple::Tuple;
use crate::conntrack::types::Dir;
use crate::pipeline::Pipeline;
use crossbeam::channel::{Receiver, Sender, bounded};
use std::fmt;
use std::sync::Arc;

/// Requests that may wait for one worker.
const QUEUE: usize = 16;

/// A request, with where its answer goes. An answer that nobody waits for any more is dropped.
#[derive(Debug)]
pub enum Command {
    /// Go over all flows.
    Walk(Walk),
    /// The flow of one tuple, if it is here.
    Find {
        /// The tuple.
        tuple: Tuple,
        /// The answer.
        reply: Sender<Option<Found>>,
    },
    /// How many flows there are of each bucket, from a cursor on.
    CountBuckets {
        /// Where to go on.
        cursor: Cursor,
        /// The answer.
        reply: Sender<Counted>,
    },
    /// A bucket of which the worker has no flow left was turned over to another: tell that one once all
    /// packets from before have passed.
    Depart {
        /// The bucket.
        bucket: u8,
        /// The other worker.
        heir: usize,
        /// Comes once that is told.
        reply: Sender<()>,
    },
    /// Serve a trace, until it ends. [`Session::has_begun`] is the answer.
    Trace(Arc<Session>),
    /// The worker's expectations from a place on.
    Expectations {
        /// Where to go on.
        start: u32,
        /// Which ones.
        wanted: Wanted,
        /// Whether they are to end.
        end: bool,
        /// The answer; of those that were to end, those that did.
        reply: Sender<Expected>,
    },
}

/// A flow that was looked for.
#[derive(Debug)]
pub struct Found {
    /// The flow.
    pub record: FlowRecord,
    /// The direction of the tuple's packets in it.
    pub dir: Dir,
    /// The helper that expected it.
    pub expected_by: Option<HelperId>,
}

/// An answer about buckets.
#[derive(Debug)]
pub struct Counted {
    /// Flows in the piece that was looked at, by bucket.
    pub flows: Box<[u32; BUCKETS]>,
    /// Packets so far, by bucket, that found their flow here while the bucket leaves. A flow that does
    /// not begin, and of which no packet comes, is seen by whoever looks at the whole table.
    pub stayed: Box<[u32; BUCKETS]>,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}

/// An answer about expectations.
#[derive(Debug)]
pub struct Expected {
    /// Those that are wanted.
    pub rows: Vec<ExpectRecord>,
    /// Where to go on; `None` at the end.
    pub next: Option<u32>,
}

/// Says which expectations are meant.
#[derive(Clone)]
pub struct Wanted(pub Arc<dyn Fn(&ExpectRecord) -> bool + Send + Sync>);

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wanted(..)")
    }
}

/// A worker's mailbox.
pub fn mailbox() -> (Sender<Command>, Receiver<Command>) {
    bounded(QUEUE)
}

/// Does one piece of work on the flows of `pipeline`. Walks, traces, and what is about buckets, are the
/// worker's own to do.
#[cold]
pub fn execute(command: Command, pipeline: &mut Pipeline, now: Now) {
    let ticks = now.ticks();
    let shard = pipeline.shard_mut();
    match command {
        Command::Find { tuple, reply } => {
            let found = shard.locate(&tuple, ticks).map(|(flow, dir)| Found {
                record: shard.record(flow, ticks),
                dir,
                expected_by: shard.view(Flow::Known(flow)).and_then(|view| view.helper),
            });
            let _ = reply.try_send(found);
        }
        Command::Walk(_)
        | Command::CountBuckets { .. }
        | Command::Depart { .. }
        | Command::Trace(_) => {}
        Command::Expectations {
            start,
            wanted,
            end,
            reply,
        } => {
            let (found, next) = shard.expectations(start, SCAN, ticks);
            let rows: Vec<_> = found
                .into_iter()
                .filter(|(_, it)| (wanted.0)(it))
                .filter(|(id, _)| !end || shard.remove_expectation(*id))
                .map(|(_, it)| it)
                .collect();
            let _ = reply.try_send(Expected { rows, next });
        }
    }
}
