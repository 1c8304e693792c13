//! What some work of the control side takes from forwarding: seconds with it, one piece after the
//! other, take turns with seconds without, under full load.

use crate::machine::{Process, busiest, interrupted, sleep};
use crate::{Outcome, Setup};
use serde_json::{Value, json};
use shardwall::control::snapshot::{Stats, WorkerRow};
use shardwall::control::{Client, Request};
use shardwall::dataplane::clock::Clock;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

/// What a stretch of time came to.
#[derive(Debug, Clone, Copy, Default)]
struct Stretch {
    packets: u64,
    seconds: f64,
    /// Processor time of the threads that poll.
    busy: f64,
    /// Loops of a worker longer than 100 us.
    slow: u64,
}

impl Stretch {
    fn by_clock(self) -> f64 {
        self.packets as f64 / 1e6 / self.seconds.max(1e-9)
    }

    fn by_cpu(self) -> f64 {
        self.packets as f64 / 1e6 / self.busy.max(1e-9)
    }
}

/// What the work did.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) what: String,
    flows: u32,
    /// Milliseconds that each piece took.
    took: Vec<f64>,
    /// Without the work, and with it.
    pairs: Vec<[Stretch; 2]>,
    /// The longest loop of a worker before the work and after it, and what 99 % of all its loops did not
    /// exceed; microseconds. Where the appliance does not tell, nothing.
    loops: Option<[f64; 3]>,
    notes: Vec<String>,
}

/// The longest loop of any worker since the start, and the 99th percentile, in microseconds.
fn loops(socket: &Path) -> Outcome<Option<(f64, f64)>> {
    let rows: Vec<Value> = Client::connect(socket)?.all(&Request::Workers {})?;
    let most = |key: &str| {
        let all = rows.iter().filter_map(|row| row[key].as_f64());
        all.reduce(f64::max).map(|seconds| seconds * 1e6)
    };
    let (longest, p99) = (most("loop_longest_seconds"), most("loop_p99_seconds"));
    Ok(longest.zip(p99))
}

/// Loops of all workers so far that took longer than 100 us.
fn slow(socket: &Path) -> Outcome<u64> {
    let rows: Vec<WorkerRow> = Client::connect(socket)?.all(&Request::Workers {})?;
    Ok(rows.iter().map(|row| row.slow_loops).sum())
}

/// The figure that `share` of all are not above.
fn at(mut all: Vec<f64>, share: f64) -> f64 {
    all.sort_by(f64::total_cmp);
    let last = all.len().saturating_sub(1);
    all.get((last as f64 * share) as usize)
        .copied()
        .unwrap_or(0.0)
}

/// Does `work` in every second stretch of [`Setup::seconds`], as often as there is time, until it says
/// that nothing is left to do.
pub(crate) fn alternate(
    setup: &Setup<'_>,
    process: &Process,
    socket: &Path,
    work: &mut dyn FnMut() -> Outcome<bool>,
) -> Outcome<Figures> {
    let clock = Clock::start();
    let seconds = |from: u64| (clock.now().nanos() - from) as f64 / 1e9;
    // A connection each time: one on which nothing is asked for minutes is closed.
    let received = || -> Outcome<u64> {
        let stats: Stats = Client::connect(socket)?.one(&Request::Stats {})?;
        Ok(stats.packets.received)
    };
    let mut figures = Figures {
        what: String::new(),
        flows: setup.captures.flows,
        took: Vec::new(),
        pairs: Vec::new(),
        loops: None,
        notes: Vec::new(),
    };
    let before_all = loops(socket)?;
    let mut left = true;
    while left {
        let mut pair = [Stretch::default(); 2];
        for (works, stretch) in pair.iter_mut().enumerate() {
            let (before, threads) = (received()?, process.threads());
            let slow_before = slow(socket)?;
            let from = clock.now().nanos();
            while seconds(from) < setup.seconds as f64 {
                if interrupted() {
                    return Err("interrupted".into());
                }
                if works == 0 {
                    sleep(Duration::from_millis(20))?;
                    continue;
                }
                let begin = clock.now().nanos();
                left = work()?;
                if !left {
                    break;
                }
                figures.took.push(seconds(begin) * 1e3);
            }
            stretch.seconds = seconds(from);
            stretch.busy = busiest(&threads, &process.threads(), setup.workers());
            stretch.packets = received()? - before;
            stretch.slow = slow(socket)? - slow_before;
        }
        // What was cut short by the end says little.
        if pair[1].seconds >= pair[0].seconds / 2.0 || figures.pairs.is_empty() {
            figures.pairs.push(pair);
        }
    }
    figures.loops = before_all
        .zip(loops(socket)?)
        .map(|((before, _), (after, p99))| [before, after, p99]);
    Ok(figures)
}

impl Figures {
    /// Remembers a line to print.
    pub(crate) fn note(&mut self, line: &str) {
        self.notes.push(line.to_owned());
    }

    fn rates(&self, at: usize, by: fn(Stretch) -> f64) -> Vec<f64> {
        self.pairs.iter().map(|pair| by(pair[at])).collect()
    }

    /// By how much of a hundred the rate with the work was lower, pair by pair.
    fn dips(&self, by: fn(Stretch) -> f64) -> Vec<f64> {
        let dip = |pair: &[Stretch; 2]| (1.0 - by(pair[1]) / by(pair[0])) * 100.0;
        self.pairs.iter().map(dip).collect()
    }

    /// Loops longer than 100 us a second.
    fn slow(&self, at: usize) -> f64 {
        let stretches = || self.pairs.iter().map(|pair| pair[at]);
        let count: u64 = stretches().map(|it| it.slow).sum();
        let seconds: f64 = stretches().map(|it| it.seconds).sum();
        count as f64 / seconds.max(1e-9)
    }

    pub(crate) fn text(&self) -> String {
        let took = |share| at(self.took.clone(), share);
        let rate = |which, by| at(self.rates(which, by), 0.5);
        let dip = |by| {
            let part = |share| at(self.dips(by), share);
            format!(
                "{:.1} % ({:.1} to {:.1})",
                part(0.5),
                part(0.25),
                part(0.75)
            )
        };
        let [clock, cpu] = [Stretch::by_clock, Stretch::by_cpu];
        let mut out = String::new();
        let _ = writeln!(
            out,
            "{}, {} flows\n\
             each took {:.0} ms (p50), {:.0} ms (p99), {:.0} ms (most)\n\
             mpps without and with, median: {:.2} and {:.2}; by cpu time {:.2} and {:.2}\n\
             dip, median of {} pairs (quartiles): {}; by cpu time {}",
            self.what,
            self.flows,
            took(0.5),
            took(0.99),
            took(1.0),
            rate(0, clock),
            rate(1, clock),
            rate(0, cpu),
            rate(1, cpu),
            self.pairs.len(),
            dip(clock),
            dip(cpu),
        );
        if let Some([before, after, p99]) = self.loops {
            let _ = writeln!(
                out,
                "longest loop of a worker before that: {before:.0} us, with it: {after:.0} us; p99 of all: {p99:.1} us"
            );
        }
        let [without, with] = [0, 1].map(|at| self.slow(at));
        let _ = writeln!(
            out,
            "loops of more than 100 us a second: without {without:.2}, with it {with:.2}"
        );
        for note in &self.notes {
            let _ = writeln!(out, "{note}");
        }
        out
    }

    pub(crate) fn json(&self) -> Value {
        let [clock, cpu] = [Stretch::by_clock, Stretch::by_cpu];
        json!({
            "what": self.what,
            "flows": self.flows,
            "times": self.took.len(),
            "took_ms": { "p50": at(self.took.clone(), 0.5), "p99": at(self.took.clone(), 0.99),
                         "most": at(self.took.clone(), 1.0) },
            "mpps_without": self.rates(0, clock),
            "mpps_with": self.rates(1, clock),
            "mpps_cpu_without": self.rates(0, cpu),
            "mpps_cpu_with": self.rates(1, cpu),
            "dip_percent": at(self.dips(clock), 0.5),
            "dip_percent_cpu": at(self.dips(cpu), 0.5),
            "loop_us": self.loops.map(|[before, after, p99]| {
                json!({ "longest_before": before, "longest": after, "p99": p99 })
            }),
            "slow_loops_a_second": [self.slow(0), self.slow(1)],
            "notes": self.notes,
        })
    }
}
