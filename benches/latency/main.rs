//! Latency at low load: one packet at a time, with pauses, from one port to the other; microseconds one
//! way, both directions in turn.
//!
//! - `worker`: the worker itself, on two ports that are rings in memory: from the push into one ring to
//!   the pop from the other, over 1,024 flows. What the packet path and its loop take.
//! - `shardwall`: the real binary on two `net_tap` ports between two namespaces, from `send` in one
//!   to `recv` in the other: two walks through the kernel's UDP and its tap device included.
//! - `testpmd io`: the same with testpmd in its place: what the devices take.
//! - `kernel`: a namespace that routes between two links, with nftables and tracking.
//!
//! Contestants take turns within a round. The sender polls on one core, who forwards has the other.
//! The pauses are random, 50 to 250 microseconds, so that no packet meets another.
//!
//! Without `--bench` and without any option (as `cargo test --benches` runs it) it only checks that the
//! worker's case runs. The others need root and are left out where they cannot run.
#![allow(clippy::print_stdout)] // a bench prints
#![allow(missing_docs)] // its modules are its own

mod places;
mod rings;

use clap::{Parser, ValueEnum};
use serde_json::{Value, json};
use shardwall::dataplane::clock::Clock;
use std::fmt::Write;
use std::process::ExitCode;

/// What goes wrong ends the run; there is nothing to recover.
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Shortest pause between two packets, and how much longer it may be, in nanoseconds.
const PAUSE: (u64, u64) = (50_000, 200_000);
/// Who waits longer for a packet has lost it.
const LOST: u64 = 100_000_000;

#[derive(Debug, Parser)]
#[command(about = "Microseconds from port to port at low load")]
struct Args {
    /// Packets of each contestant in a round
    #[arg(long, default_value_t = 20_000)]
    packets: usize,
    /// Interleaved rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Who takes part, separated by commas; all that can, if it is not said
    #[arg(long, value_enum, value_delimiter = ',')]
    who: Vec<Who>,
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Who {
    /// The worker on rings in memory
    Worker,
    /// The binary on tap ports
    Shardwall,
    /// testpmd on tap ports
    Testpmd,
    /// The kernel
    Kernel,
}

impl Who {
    const fn name(self) -> &'static str {
        match self {
            Who::Worker => "worker, on rings",
            Who::Shardwall => "shardwall, on taps",
            Who::Testpmd => "testpmd io, on taps",
            Who::Kernel => "kernel, nftables",
        }
    }
}

/// Somewhere that a packet can be sent through.
trait Lane: Send {
    /// Sends packet number `n`, and waits for it: nanoseconds, or `None` if it does not come.
    fn pass(&mut self, n: usize, clock: &Clock) -> Outcome<Option<u64>>;
}

/// Waits until `got` is true; the time then, or `None` if it takes too long.
fn await_it(clock: &Clock, mut got: impl FnMut() -> Outcome<bool>) -> Outcome<Option<u64>> {
    let late = clock.now().nanos() + LOST;
    loop {
        if got()? {
            return Ok(Some(clock.now().nanos()));
        }
        if clock.now().nanos() > late {
            return Ok(None);
        }
        std::hint::spin_loop();
    }
}

/// What one contestant did in one round.
#[derive(Debug, Clone, Copy)]
struct Round {
    p50: f64,
    p99: f64,
    p999: f64,
    most: f64,
    lost: usize,
}

/// Sends `packets` through `lane`, from a thread on the first core.
fn measure(lane: &mut dyn Lane, packets: usize) -> Outcome<Round> {
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            // Who forwards has the last one.
            if let Some(core) = core_affinity::get_core_ids().unwrap_or_default().first() {
                core_affinity::set_for_current(*core);
            }
            send(lane, packets).map_err(|error| error.to_string())
        });
        let result = sender.join().map_err(|_| "the sender failed")?;
        Ok(result?)
    })
}

/// Those of the warm-up do not count.
fn send(lane: &mut dyn Lane, packets: usize) -> Outcome<Round> {
    let clock = Clock::start();
    let warm_up = packets / 10 + 16;
    let (mut times, mut lost, mut random) = (Vec::with_capacity(packets), 0, 1u64);
    for n in 0..warm_up + packets {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let until = clock.now().nanos() + PAUSE.0 + (random >> 33) % PAUSE.1;
        while clock.now().nanos() < until {
            std::hint::spin_loop();
        }
        match lane.pass(n, &clock)? {
            Some(nanos) if n >= warm_up => times.push(nanos as f64 / 1e3),
            None if n >= warm_up => lost += 1,
            _ => {}
        }
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| -> Outcome<f64> {
        let last = times.len().checked_sub(1).ok_or("every packet was lost")?;
        Ok(times[(last as f64 * share) as usize])
    };
    Ok(Round {
        p50: at(0.5)?,
        p99: at(0.99)?,
        p999: at(0.999)?,
        most: at(1.0)?,
        lost,
    })
}

fn run(who: Who, packets: usize) -> Outcome<Round> {
    match who {
        Who::Worker => rings::run(packets),
        Who::Shardwall => places::shardwall(packets),
        Who::Testpmd => places::testpmd(packets),
        Who::Kernel => places::kernel(packets),
    }
}

/// Why somebody cannot take part, if so.
fn missing(who: Who) -> Option<&'static str> {
    if who == Who::Worker {
        return None;
    }
    if !shardwall::cli::lab::is_root() {
        return Some("namespaces need root");
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |name: &str| std::env::split_paths(&path).any(|folder| folder.join(name).exists());
    match who {
        Who::Testpmd if !there("dpdk-testpmd") => Some("there is no dpdk-testpmd"),
        Who::Shardwall if places::binary().is_none() => Some("it was built without DPDK"),
        Who::Kernel if !there("nft") => Some("there is no nft"),
        _ => None,
    }
}

/// Everything that was measured.
#[derive(Debug, Default)]
struct Report {
    rows: Vec<(Who, Vec<Round>)>,
    skipped: Vec<String>,
}

/// Median, and the smallest and largest.
fn spread(rounds: &[Round], part: Part) -> (f64, f64, f64) {
    let mut all: Vec<f64> = rounds.iter().map(part).collect();
    all.sort_by(f64::total_cmp);
    (all[all.len() / 2], all[0], all[all.len() - 1])
}

/// A figure of a round.
type Part = fn(&Round) -> f64;

const PARTS: [(&str, Part); 4] = [
    ("p50", |round| round.p50),
    ("p99", |round| round.p99),
    ("p99.9", |round| round.p999),
    ("most", |round| round.most),
];

impl Report {
    fn text(&self, args: &Args) -> String {
        let mut out = format!(
            "one packet at a time, {} in each of {} rounds; microseconds one way: median of the \
             rounds (smallest to largest)\n\n{:>20}",
            args.packets, args.rounds, ""
        );
        for (name, _) in PARTS {
            let _ = write!(out, "{name:>28}");
        }
        out.push_str("    lost\n");
        for (who, rounds) in &self.rows {
            let _ = write!(out, "{:>20}", who.name());
            for (_, part) in PARTS {
                let (middle, low, high) = spread(rounds, part);
                let cell = format!("{middle:.1} ({low:.1}-{high:.1})");
                let _ = write!(out, "  {cell:>26}");
            }
            let lost: usize = rounds.iter().map(|round| round.lost).sum();
            let _ = writeln!(out, "{lost:>8}");
        }
        for line in &self.skipped {
            let _ = writeln!(out, "\nskipped: {line}");
        }
        out
    }

    fn json(&self, args: &Args) -> Value {
        let rows = self.rows.iter().map(|(who, rounds)| {
            let mut row = json!({
                "name": who.name(),
                "lost": rounds.iter().map(|round| round.lost).sum::<usize>(),
            });
            for (name, part) in PARTS {
                row[name] = rounds.iter().map(part).collect::<Vec<_>>().into();
            }
            row
        });
        json!({
            "packets": args.packets,
            "rounds": args.rounds,
            "unit": "us",
            "results": rows.collect::<Vec<_>>(),
            "skipped": self.skipped,
        })
    }
}

fn contest(args: &Args) -> Outcome<Report> {
    let wanted = if args.who.is_empty() {
        Who::value_variants().to_vec()
    } else {
        args.who.clone()
    };
    let mut report = Report::default();
    for who in wanted {
        match missing(who) {
            Some(why) => report.skipped.push(format!("{}: {why}", who.name())),
            None => report.rows.push((who, Vec::new())),
        }
    }
    for _ in 0..args.rounds {
        for (who, rounds) in &mut report.rows {
            match run(*who, args.packets) {
                Ok(round) => rounds.push(round),
                Err(error) => report.skipped.push(format!("{}: {error}", who.name())),
            }
        }
    }
    report.rows.retain(|(_, rounds)| !rounds.is_empty());
    if report.rows.is_empty() {
        return Err(report.skipped.join("; ").into());
    }
    Ok(report)
}

fn main() -> ExitCode {
    let mut args = Args::parse();
    if std::env::args_os().len() == 1 {
        args.packets = 100;
        args.rounds = 1;
        args.who = vec![Who::Worker];
    }
    args.rounds = args.rounds.max(1);
    match contest(&args) {
        Ok(report) if args.json => println!("{}", report.json(&args)),
        Ok(report) => print!("{}", report.text(&args)),
        Err(error) => {
            println!("latency: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
