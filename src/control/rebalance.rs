//! Who has how much of the traffic, and moving buckets of flows from busy workers to idle ones, while
//! packets pass.
//!
//! Life-cycle of a move ([`crate::dataplane::steer`] says why no flow's packets are overtaken):
//! [`Appliance::rebalance`] lets buckets leave; from then on new flows are the heir's.
//! `finish_moves`, which the control thread calls until nothing moves any more, looks
//! whether the old owner still has flows of them; once it has none, the bucket is turned over, NICs'
//! tables with it. A flow that lives for days holds its bucket where it is for days; its packets stay
//! where they were, and a move is never taken back.
//!
//! Concurrency: runs on helper threads, one at a time; workers never wait.

use super::appliance::Appliance;
use super::flows::{PATIENCE, WorkerError, ask};
use crate::conntrack::shard::Cursor;
use crate::dataplane::clock::Clock;
use crate::dataplane::command::Command;
use crate::dataplane::steer::{BUCKETS, Standing};
use crossbeam::channel::bounded;
use serde::{Deserialize, Serialize};
use std::thread::sleep;
use std::time::Duration;

/// How long packets are counted before a proposal.
const SAMPLE: Duration = Duration::from_secs(1);
/// What a NIC may take until packets go by a table that was changed, those on their way included.
const SETTLE: Duration = Duration::from_millis(2);
/// How often a worker's progress is looked at.
const LOOK: Duration = Duration::from_micros(50);
/// A move must lower the busiest worker's share by so much of the whole.
const WORTH: f64 = 0.005;

/// What a worker has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadRow {
    /// The worker.
    pub worker: usize,
    /// Buckets of flows that are its own.
    pub buckets: usize,
    /// Its part of the packets, from 0 to 1.
    pub share: f64,
    /// The same after the proposed moves, once old flows have ended.
    pub share_after: f64,
    /// Its busiest bucket.
    pub busiest: u8,
    /// That bucket's part of all packets.
    pub busiest_share: f64,
}

/// A bucket that moves, or would.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MoveRow {
    /// The bucket.
    pub bucket: u8,
    /// Whose it is.
    pub from: usize,
    /// Whose it will be.
    pub to: usize,
    /// Its part of the packets, from 0 to 1.
    pub share: f64,
}

/// What `ports rebalance` found and did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RebalanceReport {
    /// Seconds over which packets were counted.
    pub seconds: f64,
    /// How many they were.
    pub packets: u64,
    /// Each worker.
    pub workers: Vec<LoadRow>,
    /// What is proposed, or begun.
    pub moves: Vec<MoveRow>,
    /// Whether it was begun.
    pub begun: bool,
    /// Of the moves that were begun, how many are complete already.
    pub complete: usize,
    /// Buckets that are on their way, these and earlier ones.
    pub moving: Vec<MoveRow>,
    /// What no move can help.
    pub remarks: Vec<String>,
}

/// Packets by bucket.
type Load = [u64; BUCKETS];

/// Moves that make `load` more even, the buckets being `owners`'; those of which `fixed` says so stay.
/// The busiest worker gives to the least busy one as long as that helps.
fn propose(
    load: &Load,
    owners: &[usize; BUCKETS],
    fixed: impl Fn(usize) -> bool,
    workers: usize,
) -> Vec<(usize, usize)> {
    let total: u64 = load.iter().sum();
    let worth = (total as f64 * WORTH) as u64;
    let mut owners = *owners;
    let mut moves: Vec<(usize, usize)> = Vec::new();
    while moves.len() < BUCKETS {
        let of = |worker: usize| -> u64 {
            let buckets = (0..BUCKETS).filter(|bucket| owners[*bucket] == worker);
            buckets.map(|bucket| load[bucket]).sum()
        };
        let loads: Vec<u64> = (0..workers).map(of).collect();
        let by_load = |worker: &usize| loads[*worker];
        let Some(busiest) = (0..workers).max_by_key(by_load) else {
            break;
        };
        let Some(idlest) = (0..workers).min_by_key(by_load) else {
            break;
        };
        let gap = loads[busiest] - loads[idlest];
        // What is lighter than the gap makes the two more alike: best is half of it, and what is more
        // only makes the other one the busier.
        let may = |bucket: &usize| {
            owners[*bucket] == busiest
                && !fixed(*bucket)
                && load[*bucket] > 0
                && load[*bucket] < gap
                && !moves.iter().any(|(moved, _)| moved == bucket)
        };
        let fit = |bucket: &usize| (load[*bucket] > gap / 2, load[*bucket].abs_diff(gap / 2));
        let best = (0..BUCKETS).filter(may).min_by_key(fit);
        match best {
            Some(bucket) if load[bucket].min(gap - load[bucket]) > worth => {
                moves.push((bucket, idlest));
                owners[bucket] = idlest;
            }
            _ => break,
        }
    }
    moves
}

impl Appliance {
    /// Packets of each bucket so far.
    fn load(&self) -> Load {
        std::array::from_fn(|bucket| self.sum(|worker| &worker.buckets[bucket]))
    }

    /// Packets of each worker's own buckets so far, whoever received them, and its busiest bucket with
    /// its own.
    pub(super) fn owned(&self) -> Vec<(u64, usize, u8, u64)> {
        let (load, owners) = (self.load(), self.shared.steering.owners());
        let mut owned = vec![(0, 0, 0, 0); self.shared.workers.len()];
        for (bucket, (load, owner)) in load.into_iter().zip(owners).enumerate() {
            let (packets, buckets, busiest, most) = &mut owned[usize::from(owner)];
            *packets += load;
            *buckets += 1;
            if load > *most {
                (*busiest, *most) = (bucket as u8, load);
            }
        }
        owned
    }

    /// Buckets that are on their way.
    fn moving(&self, share: impl Fn(u8) -> f64) -> Vec<MoveRow> {
        let buckets = 0..BUCKETS as u8;
        let moves = buckets.filter_map(|bucket| {
            let place = self.shared.steering.place(bucket);
            let (from, to) = match place.standing() {
                Standing::Settled => return None,
                Standing::Leaving(heir) => (place.owner(), heir),
                Standing::Held(before) => (before, place.owner()),
            };
            let share = share(bucket);
            Some(MoveRow {
                bucket,
                from,
                to,
                share,
            })
        });
        moves.collect()
    }

    /// Whether any bucket is on its way.
    pub(super) fn anything_moves(&self) -> bool {
        !self.moving(|_| 0.0).is_empty()
    }

    /// Counts packets for a second, and says which buckets should be whose; begins to move them, unless
    /// it is a `dry_run`.
    pub fn rebalance(&self, dry_run: bool) -> Result<RebalanceReport, WorkerError> {
        let steering = &self.shared.steering;
        let clock: &Clock = &self.shared.clock;
        let (before, begun) = (self.load(), clock.now());
        sleep(SAMPLE);
        let seconds = (clock.now().nanos() - begun.nanos()) as f64 / 1e9;
        let mut load = self.load();
        for (load, before) in load.iter_mut().zip(before) {
            *load -= before;
        }
        // Whose it will be: a bucket that moves already counts there.
        let heir = |bucket: u8| match steering.place(bucket).standing() {
            Standing::Leaving(heir) => heir,
            _ => steering.place(bucket).owner(),
        };
        let owners: [usize; BUCKETS] = std::array::from_fn(|bucket| heir(bucket as u8));
        let fixed = |bucket: usize| !steering.place(bucket as u8).is_settled();
        let workers = self.shared.workers.len();
        let proposed = propose(&load, &owners, fixed, workers);
        let packets: u64 = load.iter().sum();
        let share = |count: u64| count as f64 / packets.max(1) as f64;
        let moves = proposed.iter().map(|(bucket, to)| MoveRow {
            bucket: *bucket as u8,
            from: owners[*bucket],
            to: *to,
            share: share(load[*bucket]),
        });
        let moves: Vec<MoveRow> = moves.collect();
        let mut after = owners;
        proposed
            .iter()
            .for_each(|(bucket, to)| after[*bucket] = *to);
        let rows = loads(&load, &steering.owners().map(usize::from), &after, workers);
        let remarks = remarks(&load, &rows);
        let mut complete = 0;
        if !dry_run && !moves.is_empty() {
            for row in &moves {
                if !steering.leave(row.bucket, row.to) {
                    continue; // somebody else was first
                }
                let MoveRow {
                    bucket, from, to, ..
                } = row;
                tracing::info!(bucket, from, to, "a bucket of flows leaves its worker");
            }
            self.finish_moves()?;
            let settled = |row: &&MoveRow| steering.place(row.bucket).is_of(row.to);
            complete = moves.iter().filter(settled).count();
        }
        Ok(RebalanceReport {
            seconds,
            packets,
            workers: rows,
            begun: !dry_run && !moves.is_empty(),
            moves,
            complete,
            moving: self.moving(|bucket| share(load[usize::from(bucket)])),
            remarks,
        })
    }

    /// Turns over the buckets whose flows have ended where they were; how many.
    pub(super) fn finish_moves(&self) -> Result<usize, WorkerError> {
        let Some(_alone) = self.moves.try_lock() else {
            return Ok(0);
        };
        let steering = &self.shared.steering;
        let mut done = 0;
        // One that somebody took too long over.
        for bucket in 0..BUCKETS as u8 {
            let place = steering.place(bucket);
            if let Standing::Held(from) = place.standing() {
                self.hand_on(bucket, from, place.owner())?;
                done += 1;
            }
        }
        for worker in 0..self.shared.workers.len() {
            let buckets = (0..BUCKETS as u8).filter(|bucket| {
                let place = steering.place(*bucket);
                place.owner() == worker && matches!(place.standing(), Standing::Leaving(_))
            });
            let leaving: Vec<u8> = buckets.collect();
            if leaving.is_empty() {
                continue;
            }
            let gone = self.without_flows(worker)?;
            for bucket in leaving {
                if gone[usize::from(bucket)]
                    && let Some((from, heir)) = steering.turn_over(bucket)
                {
                    self.hand_on(bucket, from, heir)?;
                    done += 1;
                }
            }
        }
        Ok(done)
    }

    /// Buckets of which `worker` has no flow, and, if they leave it, will not have any again: none was in
    /// its table, and no packet found one there while the table was looked through.
    fn without_flows(&self, worker: usize) -> Result<[bool; BUCKETS], WorkerError> {
        let mailbox = &self.commands[worker];
        let mut flows = [0u64; BUCKETS];
        let (mut first, mut cursor) = (None, Cursor::default());
        loop {
            let (reply, answer) = bounded(1);
            let command = Command::CountBuckets { cursor, reply };
            let counted = ask(worker, mailbox, command, &answer)?;
            for (sum, count) in flows.iter_mut().zip(counted.flows.iter()) {
                *sum += u64::from(*count);
            }
            let stayed = counted.stayed;
            let first = first.get_or_insert_with(|| stayed.clone());
            match counted.next {
                Some(next) => cursor = next,
                None => {
                    return Ok(std::array::from_fn(|bucket| {
                        flows[bucket] == 0 && first[bucket] == stayed[bucket]
                    }));
                }
            }
        }
    }

    /// Has a bucket that was turned over reach its heir.
    fn hand_on(&self, bucket: u8, from: usize, heir: usize) -> Result<(), WorkerError> {
        let steering = &self.shared.steering;
        // Whoever came round since sends nothing the old way any more, and the heir waits.
        let domain = self.shared.policy.domain();
        let epoch = domain.advance();
        self.wait(from, || domain.passed(epoch))?;
        // Not before: what a NIC brings to the heir must find it waiting.
        self.nics.spread(&steering.owners());
        sleep(SETTLE);
        let (reply, answer) = bounded(1);
        let command = Command::Depart {
            bucket,
            heir,
            reply,
        };
        ask(from, &self.commands[from], command, &answer)?;
        self.wait(heir, || steering.place(bucket).is_settled())?;
        tracing::info!(bucket, from, to = heir, "a bucket of flows has moved");
        Ok(())
    }

    fn wait(&self, worker: usize, done: impl Fn() -> bool) -> Result<(), WorkerError> {
        let clock = self.shared.clock;
        let begun = clock.now();
        while !done() {
            if self.shared.stopping() {
                return Err(WorkerError::Stopped(worker));
            }
            if clock.now().nanos() - begun.nanos() > PATIENCE.as_nanos() as u64 {
                return Err(WorkerError::Busy(worker));
            }
            sleep(LOOK);
        }
        Ok(())
    }
}

/// A row for each worker: what is its own now, and what would be `after`.
fn loads(
    load: &Load,
    owners: &[usize; BUCKETS],
    after: &[usize; BUCKETS],
    workers: usize,
) -> Vec<LoadRow> {
    let total = load.iter().sum::<u64>().max(1) as f64;
    let share = |owners: &[usize; BUCKETS], worker: usize| {
        let own = (0..BUCKETS).filter(|bucket| owners[*bucket] == worker);
        own.map(|bucket| load[bucket]).sum::<u64>() as f64 / total
    };
    let row = |worker: usize| {
        let own = || (0..BUCKETS).filter(|bucket| owners[*bucket] == worker);
        let busiest = own().max_by_key(|bucket| load[*bucket]).unwrap_or(0);
        LoadRow {
            worker,
            buckets: own().count(),
            share: share(owners, worker),
            share_after: share(after, worker),
            busiest: busiest as u8,
            busiest_share: own().map(|bucket| load[bucket]).max().unwrap_or(0) as f64 / total,
        }
    };
    (0..workers).map(row).collect()
}

/// What moves cannot help.
fn remarks(load: &Load, rows: &[LoadRow]) -> Vec<String> {
    let mut remarks = Vec::new();
    if load.iter().all(|load| *load == 0) {
        remarks.push("no packet came that belongs to a flow: there is nothing to go by".to_owned());
    }
    if rows.len() == 1 {
        remarks
            .push("there is one worker: it owns all flows, and buckets are not counted".to_owned());
    }
    let fair = 1.0 / rows.len().max(1) as f64;
    for row in rows
        .iter()
        .filter(|row| rows.len() > 1 && row.busiest_share > fair)
    {
        remarks.push(format!(
            "bucket {} alone has {:.0}% of all packets, more than a worker's part ({:.0}%): an elephant \
             flow, or flows of one bucket, which no map can divide",
            row.busiest,
            row.busiest_share * 100.0,
            fair * 100.0
        ));
    }
    remarks
}

#[cfg(test)]
mod tests;
