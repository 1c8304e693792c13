//! Several workers at once, each on a core of its own with a shard of its own; what they share is what
//! the workers of one box share: the budget of flows, the counts of flows, the expectations.
//!
//! A round is one worker alone, then all together. What they come to is the sum of their rates over the
//! rate of the one alone, round by round, and of that the median: the least times of workers that ran at
//! once need not be of the same moment.

use crate::cases::{Sample, Seat};
use crate::inserts::Inserts;
use crate::report::Machine;
use crate::{Args, build, packets};
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::Barrier;

/// What is measured if nothing is said.
const USUAL: [&str; 3] = ["tcp", "path-tcp", "insert"];

/// One case at one number of flows.
#[derive(Debug)]
struct Row {
    flows: u32,
    case: String,
    /// Nanoseconds a packet of the first worker alone, by round.
    alone: Vec<f64>,
    /// Of each worker while all run.
    together: Vec<Vec<f64>>,
}

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Table {
    workers: usize,
    rounds: usize,
    rows: Vec<Row>,
}

/// Nanoseconds a packet of a worker, round by round: alone, and with the others.
type Rounds = (Vec<f64>, Vec<f64>);

/// Nanoseconds a packet, writing it included: taking a disturbed generator off would flatter.
fn nanos(sample: Sample) -> f64 {
    sample.whole as f64 / sample.packets as f64
}

/// The figure of `all` that `share` of them are not above.
pub(crate) fn at(all: &[f64], share: f64) -> f64 {
    let mut all = all.to_vec();
    all.sort_by(f64::total_cmp);
    all[((all.len() - 1) as f64 * share) as usize]
}

impl Row {
    /// Nanoseconds of one alone, and of each while all run.
    fn nanos(&self, share: f64) -> (f64, f64) {
        let together = self.together.iter().map(|all| at(all, share));
        let together = together.sum::<f64>() / self.together.len() as f64;
        (at(&self.alone, share), together)
    }

    /// How many times the one alone all are: the figure that `share` of the rounds are not above.
    fn times(&self, share: f64) -> f64 {
        let round = |(round, alone): (usize, &f64)| -> f64 {
            self.together.iter().map(|all| alone / all[round]).sum()
        };
        let rounds: Vec<f64> = self.alone.iter().enumerate().map(round).collect();
        at(&rounds, share)
    }
}

/// All workers of one case.
fn contest(args: &Args, name: &str, flows: u32) -> Result<Row, String> {
    let limit = if name.contains("insert") {
        Inserts::<crate::ShardPath>::limit(flows)
    } else {
        flows
    };
    let seats = Seat::all(args.workers, limit);
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    if cores.len() < args.workers {
        return Err(format!("there are {} cores", cores.len()));
    }
    let cores = &cores[cores.len() - args.workers..];
    let (packets, barrier) = (packets(args, flows), Barrier::new(args.workers));
    let results: Vec<Result<Rounds, String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = seats
            .into_iter()
            .zip(cores)
            .enumerate()
            .map(|(worker, (seat, core))| {
                let barrier = &barrier;
                scope.spawn(move || {
                    core_affinity::set_for_current(*core);
                    // on its own core, so that its memory is near
                    let mut case = build(name, flows, Some(seat));
                    let mut round = || -> Result<f64, String> {
                        let case = case.as_mut().map_err(|error| error.clone())?;
                        Ok(nanos(case.round(packets)?))
                    };
                    let (mut alone, mut together) = (Vec::new(), Vec::new());
                    // nobody leaves the others waiting
                    let mut failed = round().err();
                    for _ in 0..args.rounds {
                        barrier.wait();
                        if worker == 0 && failed.is_none() {
                            match round() {
                                Ok(nanos) => alone.push(nanos),
                                Err(error) => failed = Some(error),
                            }
                        }
                        barrier.wait();
                        match round() {
                            Ok(nanos) => together.push(nanos),
                            Err(error) => failed = Some(error),
                        }
                    }
                    failed.map_or(Ok((alone, together)), Err)
                })
            })
            .collect();
        let ended = threads.into_iter().map(|thread| thread.join());
        ended
            .map(|result| result.unwrap_or_else(|_| Err("a worker failed".to_owned())))
            .collect()
    });
    let mut row = Row {
        flows,
        case: name.to_owned(),
        alone: Vec::new(),
        together: Vec::new(),
    };
    for result in results {
        let (alone, together) = result?;
        row.alone.extend(alone);
        row.together.push(together);
    }
    Ok(row)
}

pub(crate) fn run(args: &Args) -> Result<Table, String> {
    let wanted: Vec<&str> = if args.cases.is_empty() {
        USUAL.to_vec()
    } else {
        args.cases.iter().map(String::as_str).collect()
    };
    let mut rows = Vec::new();
    for &flows in &args.flows {
        for name in &wanted {
            rows.push(contest(args, name, flows)?);
        }
    }
    Ok(Table {
        workers: args.workers,
        rounds: args.rounds,
        rows,
    })
}

impl Table {
    pub(crate) fn text(&self) -> String {
        let machine = Machine::read();
        let mut out = String::new();
        let _ = writeln!(
            out,
            "{}, {} cores; one worker against {}, {} rounds\n\
             nanoseconds a packet of a worker, with the generator: least (median); times one: median (quartiles)\n\n\
             {:>10}{:>16}{:>18}{:>18}{:>24}",
            machine.cpu,
            machine.cores,
            self.workers,
            self.rounds,
            "flows each",
            "case",
            "alone",
            "together",
            "times one"
        );
        for row in &self.rows {
            let (least, middle) = (row.nanos(0.0), row.nanos(0.5));
            let _ = writeln!(
                out,
                "{:>10}{:>16}{:>18}{:>18}{:>24}",
                row.flows,
                row.case,
                format!("{:.1} ({:.1})", least.0, middle.0),
                format!("{:.1} ({:.1})", least.1, middle.1),
                format!(
                    "{:.2} ({:.2} to {:.2})",
                    row.times(0.5),
                    row.times(0.25),
                    row.times(0.75)
                ),
            );
        }
        out
    }

    pub(crate) fn json(&self) -> Value {
        let machine = Machine::read();
        let rows = self.rows.iter().map(|row| {
            let (least, middle) = (row.nanos(0.0), row.nanos(0.5));
            json!({
                "flows": row.flows,
                "case": row.case,
                "alone_ns": least.0,
                "alone_ns_median": middle.0,
                "together_ns": least.1,
                "together_ns_median": middle.1,
                "times_one": row.times(0.5),
                "times_one_quartiles": [row.times(0.25), row.times(0.75)],
            })
        });
        json!({
            "cpu": machine.cpu,
            "cores": machine.cores,
            "workers": self.workers,
            "rounds": self.rounds,
            "results": rows.collect::<Vec<_>>(),
        })
    }
}
