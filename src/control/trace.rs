//! Traces: what packets meet as they come, told in words (`shardwall trace`) or as frames
//! (`shardwall capture`).
//!
//! Life-cycle: [`Appliance::trace`] runs on a helper thread for as long as its client listens: it sends a
//! [`Session`] to the workers, takes copies of packets out of its queues, finds the words, and ends it.
//! The words come from a copy of the policy that the packets were judged by, made when the trace begins
//! and when a reload changes it, so that nobody waits for who explains. Concurrency: as many traces at a
//! time as a worker serves; each has queues of its own.

use super::appliance::{Appliance, ReloadError};
use super::flows::WorkerError;
use crate::base::time::Now;
use crate::conntrack::record::FlowRecord;
use crate::dataplane::command::Command;
use crate::dataplane::trace::{SESSIONS, Session, Wanted};
use crate::pipeline::Explanation;
use crate::pipeline::explain::describe;
use crate::pipeline::trace::{Filter, SNAPLEN, Traced};
use crate::policy::{self, Compiled, Narrator, Policy, PortId};
use crossbeam::channel::SendTimeoutError;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How often the workers' queues are emptied.
const PACE: Duration = Duration::from_millis(2);
/// How long workers may take to begin, and to let go.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often is told what was left out, while that changes.
const COUNTS: Duration = Duration::from_secs(1);
/// Packets a second and worker, if nobody says otherwise, and at most.
const RATE: u32 = 1000;
const MOST: u32 = 100_000;

/// Which packets are to be told, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ask {
    /// The words of a [`Filter`].
    pub words: Vec<String>,
    /// One of so many; 0 and 1 mean each.
    pub sample: u32,
    /// Packets a second and worker, at most; 0 means the default.
    pub rate: u32,
    /// End after so many; 0 means never.
    pub count: u64,
    /// End after so many seconds; 0 means never.
    pub seconds: u32,
    /// Tell the frames, not what they met.
    pub frames: bool,
    /// Bytes of each frame, at most; 0 means as many as can be kept.
    pub snaplen: u32,
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Told {
    /// Every worker has begun. The first thing that is told.
    Begun(Begun),
    /// What a packet met.
    Packet(Box<TracedPacket>),
    /// A packet.
    Frame(Frame),
    /// Packets that were meant and not told, all in all so far. Told again when that has changed.
    LeftOut(LeftOut),
}

/// A trace has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// How many workers look.
    pub workers: usize,
    /// The ports, in the policy's order.
    pub ports: Vec<String>,
}

/// A packet, and what it met.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TracedPacket {
    /// When, in nanoseconds since 1970: packets that a worker took in one loop have one time.
    pub time_ns: u64,
    /// The worker that judged it.
    pub worker: u16,
    /// Number of the policy that judged it.
    pub policy: u32,
    /// What it met: `flow` is its flow before it.
    #[serde(flatten)]
    pub told: Explanation,
    /// Its flow after it.
    pub after: Option<FlowRecord>,
    /// The word for why it is INVALID, if it is.
    pub invalid: Option<String>,
}

/// A packet with its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// When, in nanoseconds since 1970.
    pub time_ns: u64,
    /// The place of its port in [`Begun::ports`]: where it came in, or was to leave.
    pub port: u8,
    /// It was judged before, and lost on its way out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
    /// Bytes that it had.
    pub len: u32,
    /// The packet, in a few words.
    pub packet: String,
    /// Verdict, reason and rule, in one line.
    pub comment: String,
    /// Its first bytes, in hexadecimal.
    pub data: String,
}

/// Packets that were meant and not told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// By sampling.
    pub not_sampled: u64,
    /// Because they came faster than the rate.
    pub over_rate: u64,
    /// Because they were not taken out of a queue in time.
    pub queue_full: u64,
}

/// Why there is no trace.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The words are no filter.
    #[error("{}", .0.join("\n"))]
    Words(Vec<String>),
    /// Something is out of range.
    #[error("{0} is more than {1}")]
    TooMuch(&'static str, u32),
    /// There are enough.
    #[error("{SESSIONS} traces and captures run already: end one of them")]
    Enough,
    /// A worker does not begin.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// A reload does not come to its end.
    #[error("a reload does not come to its end")]
    Reload(#[from] ReloadError),
}

/// A copy of a policy, to tell what it did.
struct Book {
    policy: Policy,
    compiled: Compiled,
}

/// A trace that runs; ends with its owner.
struct Running<'a> {
    appliance: &'a Appliance,
    session: Arc<Session>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.session.end();
        // Its memory is given back here, not by a worker.
        let since = self.appliance.shared.clock.now();
        while Arc::strong_count(&self.session) > 1 && self.appliance.passed(since) < PATIENCE {
            if self.appliance.shared.stopping() {
                break;
            }
            std::thread::sleep(PACE);
        }
        self.appliance.traces.fetch_sub(1, Relaxed);
    }
}

impl Appliance {
    /// Tells of packets as they come what `ask` wants to know, until that is enough, or `tell` says break;
    /// returns how many were told. With nothing to tell it is given `None`, to see whether somebody
    /// listens still.
    ///
    /// # Errors
    /// If the trace cannot begin, or cannot be told any more.
    pub fn trace(
        &self,
        ask: &Ask,
        mut tell: impl FnMut(Option<Told>) -> ControlFlow<()>,
    ) -> Result<u64, TraceError> {
        for (what, value, most) in [
            ("the snap length", ask.snaplen, SNAPLEN as u32),
            ("the rate", ask.rate, MOST),
        ] {
            if value > most {
                return Err(TraceError::TooMuch(what, most));
            }
        }
        let mut book = self.book()?;
        let filter = Filter::read(&ask.words, &book.policy, &book.compiled);
        let wanted = Wanted {
            filter: filter.map_err(TraceError::Words)?,
            sample: ask.sample,
            rate: if ask.rate == 0 { RATE } else { ask.rate },
            snaplen: match ask.snaplen {
                0 => SNAPLEN,
                some => some as usize,
            },
        };
        let running = self.begin(wanted)?;
        let begun = Told::Begun(Begun {
            workers: self.shared.workers.len(),
            ports: book.compiled.port_names().to_vec(),
        });
        let mut telling = Telling {
            appliance: self,
            ask,
            session: &running.session,
            began: self.shared.clock.now(),
            told: 0,
            left_out: LeftOut::default(),
            counted: self.shared.clock.now(),
            waiting: Vec::new(),
        };
        if tell(Some(begun)).is_break() {
            return Ok(0);
        }
        while telling.by(&book, &mut tell).is_continue() {
            // A reload came: everybody is judged by its policy now.
            let next = self.book()?;
            telling.rest(&book, &next, &mut tell);
            book = next;
        }
        let _ = telling.tell_left_out(&mut tell);
        Ok(telling.told)
    }

    /// How many traces run.
    pub fn traces(&self) -> usize {
        self.traces.load(Relaxed)
    }

    /// The policy in force, copied.
    fn book(&self) -> Result<Book, TraceError> {
        Ok(self.with_policy(|policy, compiled| {
            let mut copy = policy::compile(policy, compiled.generation(), 1);
            // For the time, and for limits; timeouts are not asked for.
            let _ = copy.follow(compiled);
            Book {
                policy: policy.clone(),
                compiled: copy,
            }
        })?)
    }

    /// How long ago `since` is.
    fn passed(&self, since: Now) -> Duration {
        let now = self.shared.clock.now().nanos();
        Duration::from_nanos(now.saturating_sub(since.nanos()))
    }

    /// Has every worker begin.
    fn begin(&self, wanted: Wanted) -> Result<Running<'_>, TraceError> {
        let enter = |running| (running < SESSIONS).then_some(running + 1);
        if self.traces.fetch_update(Relaxed, Relaxed, enter).is_err() {
            return Err(TraceError::Enough);
        }
        let running = Running {
            appliance: self,
            session: Session::new(self.commands.len(), wanted),
        };
        for (worker, mailbox) in self.commands.iter().enumerate() {
            let command = Command::Trace(running.session.clone());
            let sent = mailbox.send_timeout(command, PATIENCE);
            sent.map_err(|error| match error {
                SendTimeoutError::Timeout(_) => WorkerError::Busy(worker),
                SendTimeoutError::Disconnected(_) => WorkerError::Stopped(worker),
            })?;
        }
        let since = self.shared.clock.now();
        while let Some(worker) = running.session.missing() {
            if self.passed(since) > PATIENCE || self.shared.stopping() {
                return Err(WorkerError::Busy(worker).into());
            }
            std::thread::sleep(PACE / 4);
        }
        Ok(running)
    }
}

/// A trace being told.
struct Telling<'a> {
    appliance: &'a Appliance,
    ask: &'a Ask,
    session: &'a Session,
    began: Now,
    told: u64,
    /// As it was told last, and when it was looked at.
    left_out: LeftOut,
    counted: Now,
    /// Packets that were taken and not told.
    waiting: Vec<Traced>,
}

impl Telling<'_> {
    /// Tells packets that the policy of `book` judged, until another one is in force: then it returns
    /// `Continue`, and those that wait may be of the other.
    fn by(
        &mut self,
        book: &Book,
        tell: &mut impl FnMut(Option<Told>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let narrator = Narrator::new(&book.compiled, &book.policy);
        let generation = book.compiled.generation();
        loop {
            self.take();
            if self.waiting.iter().any(|it| it.generation > generation)
                || self.waiting.is_empty() && self.appliance.generation() != generation
            {
                return ControlFlow::Continue(());
            }
            self.tell_waiting(Some(&narrator), book, tell)?;
            if self.appliance.passed(self.counted) >= COUNTS {
                self.tell_left_out(tell)?;
            }
            tell(None)?;
            let over = self.ask.seconds > 0
                && self.appliance.passed(self.began)
                    >= Duration::from_secs(self.ask.seconds.into());
            if over || self.appliance.shared.stopping() {
                return ControlFlow::Break(());
            }
            std::thread::sleep(PACE);
        }
    }

    /// Tells what is left of the packets that the policy of `old` judged. By now all workers go by that of
    /// `new`.
    fn rest(
        &mut self,
        old: &Book,
        new: &Book,
        tell: &mut impl FnMut(Option<Told>) -> ControlFlow<()>,
    ) {
        self.take();
        let since = new.compiled.generation();
        let newer = self.waiting.extract_if(.., |it| it.generation >= since);
        let newer: Vec<_> = newer.collect();
        let narrator = Narrator::new(&old.compiled, &old.policy);
        let _ = self.tell_waiting(Some(&narrator), old, tell);
        self.waiting = newer;
    }

    /// Takes what workers have put by, in the order of its time.
    fn take(&mut self) {
        self.session.take(&mut self.waiting);
        // Stable: what one worker says stays in its order.
        self.waiting.sort_by_key(|it| it.at);
    }

    fn tell_waiting(
        &mut self,
        narrator: Option<&Narrator<'_>>,
        book: &Book,
        tell: &mut impl FnMut(Option<Told>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        for it in std::mem::take(&mut self.waiting) {
            let known = it.generation == book.compiled.generation();
            let told = match self.ask.frames {
                true => Told::Frame(self.frame(book, known, &it)),
                false => {
                    let narrator = narrator.filter(|_| known);
                    Told::Packet(Box::new(self.packet(narrator, &book.compiled, &it)))
                }
            };
            tell(Some(told))?;
            self.told += 1;
            if self.told == self.ask.count {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn packet(
        &self,
        narrator: Option<&Narrator<'_>>,
        compiled: &Compiled,
        it: &Traced,
    ) -> TracedPacket {
        let epoch = self.appliance.shared.clock.epoch_ms();
        let mut told = Explanation::of_traced(narrator, compiled, it);
        told.flow = told.flow.map(|flow| flow.dated(epoch));
        TracedPacket {
            time_ns: self.appliance.shared.epoch.unix_nanos(it.at),
            worker: it.worker,
            policy: it.generation,
            told,
            after: it.seen.after.map(|flow| flow.record().dated(epoch)),
            invalid: it.seen.why.map(|why| why.name().into()),
        }
    }

    fn frame(&self, book: &Book, known: bool, it: &Traced) -> Frame {
        let PortId(port) = it.port;
        Frame {
            time_ns: self.appliance.shared.epoch.unix_nanos(it.at),
            port,
            leaving: it.leaving,
            len: it.parsed.frame_len,
            packet: describe(&it.parsed),
            comment: it.comment(known.then_some(&book.compiled)),
            data: hex(it.data()),
        }
    }

    /// Tells what was left out, if that is more than was told.
    fn tell_left_out(
        &mut self,
        tell: &mut impl FnMut(Option<Told>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.counted = self.appliance.shared.clock.now();
        let counts = self.session.counts();
        let left_out = LeftOut {
            not_sampled: counts.not_sampled,
            over_rate: counts.over_rate,
            queue_full: counts.queue_full,
        };
        if left_out == self.left_out {
            return ControlFlow::Continue(());
        }
        self.left_out = left_out;
        tell(Some(Told::LeftOut(left_out)))
    }
}

/// Bytes in hexadecimal.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

impl Frame {
    /// Its first bytes; `None` if that is not hexadecimal.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        let digits = self.data.as_bytes().chunks(2);
        let byte = |pair: &[u8]| {
            let text = std::str::from_utf8(pair).ok()?;
            u8::from_str_radix(text, 16).ok()
        };
        digits.map(byte).collect()
    }
}

#[cfg(test)]
mod tests;
