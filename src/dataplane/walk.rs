//! Walks over all flows of a shard, for whoever lists, ends or judges them.
//!
//! A walk is done by the worker, which alone may touch its shard, in steps of at most `SCAN` entries,
//! one a loop, and goes on by itself: nobody has to ask for each step, so that a busy control side slows
//! no walk down. What it finds goes to the asker in pieces, each a buffer that the asker made and gives
//! back once it is read. A walk without an empty buffer waits; one whose asker is gone ends. So an asker
//! that reads slowly holds up nobody, and a worker that lists neither allocates nor waits.
//!
//! While packets come in, walks get a bounded share of the worker's time (`Work::share`); while none
//! do, all of it. A walk sees each flow that lives through it once; others may or may not be seen.

use super::clock::Clock;
use crate::base::time::Now;
use crate::conntrack::record::{FlowRecord, Snapshot};
use crate::conntrack::shard::Cursor;
use crate::pipeline::Pipeline;
use crate::policy::Compiled;
use arrayvec::ArrayVec;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Entries that one step looks at.
pub(super) const SCAN: u32 = 64;
/// Steps of which the rows fit in a piece.
const STEPS: u32 = 16;
/// Pieces that go round between a worker and its asker.
const PIECES: usize = 4;
/// Walks under way at once; further ones wait in the mailbox.
const WALKS: usize = 64;

/// Says which flows are meant.
#[derive(Clone)]
pub struct Chosen(pub Arc<dyn Fn(&FlowRecord) -> bool + Send + Sync>);

impl fmt::Debug for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chosen(..)")
    }
}

/// What is done with each flow.
#[derive(Clone, Debug)]
pub enum Work {
    /// Its record is a row.
    List,
    /// It ends, and counts.
    Flush,
    /// It ends if it is chosen, and is a row then, as it was.
    Remove {
        /// Which ones.
        chosen: Chosen,
    },
    /// It is judged anew.
    Judge {
        /// By this policy; the one in force, if none is given.
        policy: Option<Arc<Compiled>>,
        /// Whether a flow that it would not let begin ends, and counts; or else is a row.
        end: bool,
    },
}

impl Work {
    /// Of a worker with packets, one part in so many goes to this. To be told of flows is worth less than
    /// five packets in a hundred; what is to end is to end soon.
    fn share(&self) -> u64 {
        match self {
            Self::List | Self::Remove { .. } | Self::Judge { end: false, .. } => 25,
            Self::Flush | Self::Judge { end: true, .. } => 2,
        }
    }
}

/// What some steps of a walk found.
#[derive(Debug, Default)]
pub struct Piece {
    /// Flows.
    pub rows: Vec<Snapshot>,
    /// How many they were, shown or not.
    pub count: u32,
    /// How many there were of which one could not tell; 0 where there is no doubt.
    pub unsure: u32,
    /// Nothing follows.
    pub last: bool,
}

/// A walk, as the worker has it.
#[derive(Debug)]
pub struct Walk {
    work: Work,
    cursor: Cursor,
    /// What is being filled, and with how many steps.
    piece: Option<(Piece, u32)>,
    empty: Receiver<Piece>,
    full: Sender<Piece>,
}

/// A walk, as its asker has it.
#[derive(Debug)]
pub struct Pieces {
    full: Receiver<Piece>,
    empty: Sender<Piece>,
}

/// The two ends of a walk from the first flow on.
pub fn walk(work: Work) -> (Walk, Pieces) {
    let rows = match work {
        Work::List | Work::Remove { .. } | Work::Judge { end: false, .. } => {
            (STEPS * SCAN) as usize
        }
        Work::Flush | Work::Judge { end: true, .. } => 0,
    };
    let (empty, empties) = bounded(PIECES);
    for _ in 0..PIECES {
        let rows = Vec::with_capacity(rows);
        let piece = Piece {
            rows,
            ..Piece::default()
        };
        // There is room for all of them.
        let _ = empty.try_send(piece);
    }
    // One more: a piece that the worker fills while its asker holds none must find room.
    let (fulls, full) = bounded(PIECES);
    let walk = Walk {
        work,
        cursor: Cursor::default(),
        piece: None,
        empty: empties,
        full: fulls,
    };
    (walk, Pieces { full, empty })
}

impl Pieces {
    /// The next piece. [`RecvTimeoutError::Disconnected`] after the last one, or if the worker ended.
    pub fn next(&self, patience: Duration) -> Result<Piece, RecvTimeoutError> {
        self.full.recv_timeout(patience)
    }

    /// Gives a piece back that was read.
    pub fn give_back(&self, mut piece: Piece) {
        piece.rows.clear();
        let Piece { rows, .. } = piece;
        let _ = self.empty.try_send(Piece {
            rows,
            ..Piece::default()
        });
    }
}

/// What becomes of a walk after a step.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// It goes on.
    Went,
    /// It waits for its asker.
    Waits,
    /// It is over, or its asker is gone.
    Over,
}

impl Walk {
    /// Looks at the next entries.
    fn step(&mut self, pipeline: &mut Pipeline, policy: &Compiled, now: Now) -> Step {
        let (mut piece, steps) = match self.piece.take() {
            Some(filling) => filling,
            None => match self.empty.try_recv() {
                Ok(piece) => (piece, 0),
                Err(TryRecvError::Empty) => return Step::Waits,
                Err(TryRecvError::Disconnected) => return Step::Over,
            },
        };
        let next = self
            .work
            .step(&mut piece, self.cursor, pipeline, policy, now);
        if let Some(cursor) = next {
            self.cursor = cursor;
            if steps + 1 < STEPS {
                self.piece = Some((piece, steps + 1));
                return Step::Went;
            }
        }
        piece.last = next.is_none();
        let last = piece.last;
        // There is always room: no more pieces go round than the channel holds.
        match self.full.try_send(piece) {
            Ok(()) if !last => Step::Went,
            _ => Step::Over,
        }
    }
}

impl Work {
    /// Does it to the flows from `cursor` on; says where to go on.
    fn step(
        &self,
        piece: &mut Piece,
        cursor: Cursor,
        pipeline: &mut Pipeline,
        policy: &Compiled,
        now: Now,
    ) -> Option<Cursor> {
        let ticks = now.ticks();
        match self {
            Self::List => {
                let shard = pipeline.shard();
                let rows = &mut piece.rows;
                let next = shard.visit(cursor, SCAN, |flow| rows.push(shard.snapshot(flow, ticks)));
                piece.count = rows.len() as u32;
                next
            }
            Self::Flush => {
                let shard = pipeline.shard_mut();
                let (flows, next) = shard.scan(cursor, SCAN);
                shard.remove(&flows);
                piece.count += flows.len() as u32;
                next
            }
            Self::Remove { chosen } => {
                let shard = pipeline.shard_mut();
                let (flows, next) = shard.scan(cursor, SCAN);
                for flow in flows {
                    let it = shard.snapshot(flow, ticks);
                    if (chosen.0)(&it.record()) {
                        shard.remove(&[flow]);
                        piece.rows.push(it);
                        piece.count += 1;
                    }
                }
                next
            }
            Self::Judge { policy: other, end } => {
                let by = other.as_deref().unwrap_or(policy);
                let judged = pipeline.judge_flows(by, cursor, SCAN);
                piece.count += judged.ending.len() as u32;
                piece.unsure += judged.unsure;
                if *end {
                    pipeline.shard_mut().remove(&judged.ending);
                } else {
                    let flows = judged.ending.iter();
                    let shard = pipeline.shard();
                    piece
                        .rows
                        .extend(flows.map(|flow| shard.snapshot(*flow, ticks)));
                }
                judged.next
            }
        }
    }
}

/// A worker's walks.
#[derive(Debug, Default)]
pub struct Walks {
    /// Each gets its step when those before it had theirs.
    walks: ArrayVec<Walk, WALKS>,
    turn: usize,
    pace: Pace,
}

/// How much of its time a worker with packets spends on walks.
#[derive(Debug, Default)]
struct Pace {
    /// Before this it does not go on.
    resume: Now,
}

impl Pace {
    /// Whether it is time for a step.
    fn is_time(&self, busy: bool, now: Now) -> bool {
        !busy || now >= self.resume
    }

    /// A step lasted from `begin` to `end`; one part in `share` of all time is for such steps.
    fn spent(&mut self, begin: Now, end: Now, share: u64) {
        let spent = end.nanos().saturating_sub(begin.nanos());
        self.resume = Now::from_nanos(end.nanos() + spent * (share - 1));
    }
}

impl Walks {
    /// Whether there is no place for another.
    pub fn is_full(&self) -> bool {
        self.walks.is_full()
    }

    /// Begins a walk; needs a place.
    pub fn begin(&mut self, walk: Walk) {
        let _ = self.walks.try_push(walk);
    }

    /// Does a step of one of them, if it is time; whether anything is under way that does not wait for
    /// its asker. `now` is the loop's time; `busy` says that packets came in it.
    #[inline]
    pub fn go(
        &mut self,
        pipeline: &mut Pipeline,
        policy: &Compiled,
        now: Now,
        busy: bool,
        clock: &Clock,
    ) -> bool {
        !self.walks.is_empty() && self.go_on(pipeline, policy, now, busy, clock)
    }

    #[cold]
    fn go_on(
        &mut self,
        pipeline: &mut Pipeline,
        policy: &Compiled,
        now: Now,
        busy: bool,
        clock: &Clock,
    ) -> bool {
        let begin = clock.now();
        if !self.pace.is_time(busy, begin) {
            return true;
        }
        for _ in 0..self.walks.len() {
            self.turn %= self.walks.len().max(1);
            let Some(walk) = self.walks.get_mut(self.turn) else {
                return false;
            };
            let share = walk.work.share();
            let stepped = walk.step(pipeline, policy, now);
            if stepped == Step::Over {
                self.walks.remove(self.turn);
            } else {
                self.turn += 1;
            }
            if stepped != Step::Waits {
                self.pace.spent(begin, clock.now(), share);
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_with_packets_gives_a_step_its_share_of_time() {
        let at = Now::from_nanos;
        let mut pace = Pace::default();
        assert!(
            pace.is_time(true, at(0)),
            "the first step waits for nothing"
        );
        for (share, resume) in [(25, 1_000 + 25 * 200), (2, 1_000 + 2 * 200)] {
            pace.spent(at(1_000), at(1_200), share);
            assert!(!pace.is_time(true, at(resume - 1)));
            assert!(pace.is_time(true, at(resume)));
            assert!(pace.is_time(false, at(1_200)), "nothing else to do");
        }
        assert_eq!(Work::List.share(), 25);
        assert_eq!(Work::Flush.share(), 2);
    }
}
