//! What `shardwall drops` shows: of each reason the count, the rate of the last seconds, and the last
//! packet.
//!
//! Life-cycle: the control thread looks once a second, and whoever asks looks once more. Concurrency: any
//! number of threads may ask; the workers wait for none of it.

use super::appliance::Appliance;
use crate::base::time::Now;
use crate::dataplane::examples::Example;
use crate::pipeline::explain::describe;
use crate::pipeline::{By, DropReason};
use crate::policy::PortId;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Seconds that a rate is of.
const SECONDS: usize = 5;
/// Nanoseconds that must lie between two counts, so that they make a rate.
const LEAST: u64 = 200_000_000;

/// Packets dropped for one reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DropRow {
    /// The reason's name.
    pub reason: String,
    /// Packets.
    pub count: u64,
    /// Packets a second, over the last five seconds.
    pub per_second: f64,
    /// What the reason means.
    pub meaning: String,
    /// One of the last packets, at most a second older than the last one: a worker shows one a second.
    pub last: Option<LastDrop>,
}

/// A packet that was dropped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastDrop {
    /// When, in nanoseconds since 1970.
    pub time_ns: u64,
    /// The port that it came in by, or was to leave by.
    pub port: String,
    /// It was judged before, and lost on its way out.
    pub leaving: bool,
    /// The packet, in a few words.
    pub packet: String,
    /// The rule that decided, if one did.
    pub rule: Option<String>,
    /// Its state, if the tracker saw it.
    pub state: Option<String>,
    /// Why it is INVALID, if it is.
    pub invalid: Option<String>,
    /// The worker.
    pub worker: usize,
}

/// What is known beside the counts.
#[derive(Debug, Default)]
pub(super) struct Drops {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Counts by reason, and when they were read: the oldest first.
    looks: VecDeque<(u64, [u64; DropReason::COUNT])>,
    last: [Option<LastDrop>; DropReason::COUNT],
}

impl Appliance {
    /// Reads the counts for the rates of the next seconds, and takes what workers show. To be called once
    /// a second.
    pub(super) fn look_at_drops(&self, now: Now) {
        let counts = self.drop_counts();
        let mut state = self.drops.state.lock();
        state.looks.push_back((now.nanos(), counts));
        if state.looks.len() > SECONDS {
            state.looks.pop_front();
        }
        self.take_examples(&mut state);
    }

    fn drop_counts(&self) -> [u64; DropReason::COUNT] {
        std::array::from_fn(|at| self.sum(|worker| &worker.path.drops[at]))
    }

    fn take_examples(&self, state: &mut State) {
        for (last, reason) in state.last.iter_mut().zip(DropReason::ALL) {
            for (number, worker) in self.shared.workers.iter().enumerate() {
                if let Some(example) = worker.examples.take(*reason) {
                    let shown = self.shown(number, &example);
                    if last
                        .as_ref()
                        .is_none_or(|last| last.time_ns <= shown.time_ns)
                    {
                        *last = Some(shown);
                    }
                }
            }
        }
    }

    fn shown(&self, worker: usize, example: &Example) -> LastDrop {
        let PortId(port) = example.port;
        let port = self.ports.get(usize::from(port));
        let rule = self.shared.policy.with(|policy| {
            // The numbers of another policy's rules mean nothing here.
            let known = policy.generation() == example.generation || example.by == By::Nobody;
            let name = known.then(|| example.by.name(policy)).flatten();
            name.map(str::to_owned)
        });
        LastDrop {
            time_ns: self.shared.epoch.unix_nanos(example.at),
            port: port.map_or_else(String::new, |port| port.name.clone()),
            leaving: example.leaving,
            packet: describe(&example.packet),
            rule,
            state: example.state.map(|state| state.name().into()),
            invalid: example.why.map(|why| why.name().into()),
            worker,
        }
    }

    /// Drops by reason, all reasons, in their order.
    pub fn drops(&self) -> Vec<DropRow> {
        let (now, counts) = (self.shared.clock.now(), self.drop_counts());
        let mut state = self.drops.state.lock();
        self.take_examples(&mut state);
        let before = state.looks.front().copied();
        let reasons = DropReason::ALL.iter().zip(counts).zip(&state.last);
        reasons
            .map(|((reason, count), last)| DropRow {
                reason: reason.name().into(),
                count,
                per_second: before.map_or(0.0, |(then, counts)| {
                    rate(
                        count - counts[*reason as usize].min(count),
                        now.nanos().saturating_sub(then),
                    )
                }),
                meaning: reason.text().into(),
                last: last.clone(),
            })
            .collect()
    }
}

/// Packets a second, to one place behind the point.
fn rate(packets: u64, nanos: u64) -> f64 {
    if nanos < LEAST {
        return 0.0;
    }
    (packets as f64 * 1e10 / nanos as f64).round() / 10.0
}

#[cfg(test)]
mod tests;
