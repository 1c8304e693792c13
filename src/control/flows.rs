//! Flows and expectations of all shards, asked for through the workers' mailboxes.
//!
//! A worker goes over its flows in small steps beside its packets, and gives what it finds in pieces
//! ([`crate::dataplane::walk`]), so a listing of any length never holds packets up. Nothing is locked meanwhile: flows that come and go
//! during a listing may or may not be in it. Concurrency: any number of threads may ask at once.

use super::appliance::Appliance;
use crate::conntrack::record::{ExpectRecord, FlowRecord};
use crate::conntrack::shard::HelperCounters;
use crate::conntrack::tuple::Tuple;
use crate::dataplane::command::{Command, Found, Wanted};
use crate::dataplane::walk::{self, Piece, Work};
use crate::policy::Compiled;
use crossbeam::channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, bounded};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

/// How long a worker may take for one piece. Workers loop within microseconds.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Why flows could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkerError {
    /// It ended.
    #[error("worker {0} has stopped")]
    Stopped(usize),
    /// It does not come round.
    #[error("worker {0} did not answer within {secs} seconds", secs = PATIENCE.as_secs())]
    Busy(usize),
}

/// How many flows a policy would not let begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// So many for sure.
    pub ending: u64,
    /// Of so many one cannot tell without their first packet.
    pub unsure: u64,
}

/// Has a worker do one piece of work, and waits for what it says.
pub(super) fn ask<T>(
    worker: usize,
    mailbox: &Sender<Command>,
    command: Command,
    answer: &Receiver<T>,
) -> Result<T, WorkerError> {
    tell(worker, mailbox, command)?;
    let answer = answer.recv_timeout(PATIENCE);
    answer.map_err(|error| unanswered(worker, error))
}

fn tell(worker: usize, mailbox: &Sender<Command>, command: Command) -> Result<(), WorkerError> {
    let sent = mailbox.send_timeout(command, PATIENCE);
    sent.map_err(|error| match error {
        SendTimeoutError::Timeout(_) => WorkerError::Busy(worker),
        SendTimeoutError::Disconnected(_) => WorkerError::Stopped(worker),
    })
}

fn unanswered(worker: usize, error: RecvTimeoutError) -> WorkerError {
    match error {
        RecvTimeoutError::Timeout => WorkerError::Busy(worker),
        RecvTimeoutError::Disconnected => WorkerError::Stopped(worker),
    }
}

impl Appliance {
    /// Gives every flow to `sink` until it says break. Addresses of one family come before the
    /// other's, worker by worker.
    pub fn list(
        &self,
        mut sink: impl FnMut(FlowRecord) -> ControlFlow<()>,
    ) -> Result<(), WorkerError> {
        let epoch = self.shared.clock.epoch_ms();
        self.walk(&Work::List, |piece| {
            let mut flows = piece.rows.iter();
            flows.try_for_each(|flow| sink(flow.record().dated(epoch)))
        })
    }

    /// Ends every flow; returns how many.
    pub fn flush(&self) -> Result<u64, WorkerError> {
        let mut ended = 0;
        self.walk(&Work::Flush, |piece| {
            ended += u64::from(piece.count);
            ControlFlow::Continue(())
        })?;
        Ok(ended)
    }

    /// Judges every flow by `policy`, or the one in force, and ends those that it would not let
    /// begin, or else gives them to `sink` until it says break.
    pub fn judge(
        &self,
        policy: Option<Arc<Compiled>>,
        end: bool,
        mut sink: impl FnMut(FlowRecord) -> ControlFlow<()>,
    ) -> Result<Judged, WorkerError> {
        let epoch = self.shared.clock.epoch_ms();
        let mut judged = Judged::default();
        self.walk(&Work::Judge { policy, end }, |piece| {
            judged.ending += u64::from(piece.count);
            judged.unsure += u64::from(piece.unsure);
            let mut flows = piece.rows.iter();
            flows.try_for_each(|flow| sink(flow.record().dated(epoch)))
        })?;
        Ok(judged)
    }

    /// How many flows there are.
    pub fn count(&self) -> u64 {
        // Deletions first: a flow that comes and goes in between must not count below zero.
        let ended = self.sum(|worker| &worker.path.ct.delete);
        let begun = self.sum(|worker| &worker.path.ct.insert);
        begun.saturating_sub(ended)
    }

    /// Gives every expectation that is `wanted` to `sink` until it says break, worker by worker.
    pub fn expectations(
        &self,
        wanted: impl Fn(&ExpectRecord) -> bool + Send + Sync + 'static,
        sink: impl FnMut(ExpectRecord) -> ControlFlow<()>,
    ) -> Result<(), WorkerError> {
        self.expected(wanted, false, sink)
    }

    /// Ends every expectation that is `wanted`, and gives it to `sink`, until that says break.
    pub fn end_expectations(
        &self,
        wanted: impl Fn(&ExpectRecord) -> bool + Send + Sync + 'static,
        sink: impl FnMut(ExpectRecord) -> ControlFlow<()>,
    ) -> Result<(), WorkerError> {
        self.expected(wanted, true, sink)
    }

    fn expected(
        &self,
        wanted: impl Fn(&ExpectRecord) -> bool + Send + Sync + 'static,
        end: bool,
        mut sink: impl FnMut(ExpectRecord) -> ControlFlow<()>,
    ) -> Result<(), WorkerError> {
        let wanted = Wanted(Arc::new(wanted));
        for (worker, mailbox) in self.commands.iter().enumerate() {
            let mut next = Some(0);
            while let Some(start) = next {
                // A channel for each request: if the worker ends with it, the channel says so.
                let (reply, answer) = bounded(1);
                let command = Command::Expectations {
                    start,
                    wanted: wanted.clone(),
                    end,
                    reply,
                };
                let expected = ask(worker, mailbox, command, &answer)?;
                next = expected.next;
                if expected.rows.into_iter().try_for_each(&mut sink).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// How many expectations there are.
    pub fn count_expectations(&self) -> u64 {
        // As with flows: what ended comes first.
        let ended = self.sum_helpers(HelperCounters::ended);
        let made = self.sum_helpers(|helper| helper.expected.get());
        made.saturating_sub(ended)
    }

    /// The flow of `tuple`, whoever owns it.
    pub(super) fn find(&self, tuple: Tuple) -> Result<Option<Found>, WorkerError> {
        for (worker, mailbox) in self.commands.iter().enumerate() {
            let (reply, answer) = bounded(1);
            let found = ask(worker, mailbox, Command::Find { tuple, reply }, &answer)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Has each worker go over its flows, one after the other, and gives what they find to `take` until
    /// it says break.
    pub(super) fn walk(
        &self,
        work: &Work,
        mut take: impl FnMut(&Piece) -> ControlFlow<()>,
    ) -> Result<(), WorkerError> {
        for (worker, mailbox) in self.commands.iter().enumerate() {
            let (walk, pieces) = walk::walk(work.clone());
            tell(worker, mailbox, Command::Walk(walk))?;
            let mut last = false;
            while !last {
                let piece = pieces.next(PATIENCE).map_err(|it| unanswered(worker, it))?;
                if take(&piece).is_break() {
                    return Ok(());
                }
                last = piece.last;
                pieces.give_back(piece);
            }
        }
        Ok(())
    }
}
