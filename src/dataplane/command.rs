//! What the control thread may ask of a worker, which alone may touch its shard. Each request is
//! a bounded piece of work, and a worker does at most one a loop, so that a listing of any length
//! never holds packets up.

use crate::base::time::Now;
use crate::conntrack::record::FlowRecord;
use crate::conntrack::shard::{Cursor, Shard};
use crossbeam::channel::{Receiver, Sender, bounded};

/// Entries that one request looks at.
const SCAN: u32 = 512;
/// Requests that may wait for one worker.
const QUEUE: usize = 16;

/// A request, with where its answer goes. An answer that nobody waits for any more is dropped.
#[derive(Debug)]
pub enum Command {
    /// The flows from a cursor on.
    List {
        /// Where to go on.
        cursor: Cursor,
        /// The answer.
        reply: Sender<Listed>,
    },
    /// The same, and end them.
    Flush {
        /// Where to go on.
        cursor: Cursor,
        /// The answer; its flows are empty, their number counts.
        reply: Sender<Listed>,
    },
}

/// An answer.
#[derive(Debug)]
pub struct Listed {
    /// What was found.
    pub flows: Vec<FlowRecord>,
    /// How many there were.
    pub count: u32,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}

/// A worker's mailbox.
pub fn mailbox() -> (Sender<Command>, Receiver<Command>) {
    bounded(QUEUE)
}

/// Does one piece of work on `shard`.
#[cold]
pub fn execute(command: Command, shard: &mut Shard, now: Now) {
    let ticks = now.ticks();
    match command {
        Command::List { cursor, reply } => {
            let (flows, next) = shard.scan(cursor, SCAN);
            let flows: Vec<_> = flows
                .into_iter()
                .map(|flow| shard.record(flow, ticks))
                .collect();
            let count = flows.len() as u32;
            let _ = reply.try_send(Listed { flows, count, next });
        }
        Command::Flush { cursor, reply } => {
            let (flows, next) = shard.scan(cursor, SCAN);
            shard.remove(&flows);
            let count = flows.len() as u32;
            let _ = reply.try_send(Listed {
                flows: Vec::new(),
                count,
                next,
            });
        }
    }
}
