//! Conntrack alone, and the whole pure packet path, on one core: nanoseconds a packet.
//!
//! What counts as work: a frame is written from a shuffled table of flows into one of 1024 recycled
//! buffers; it is parsed, keyed and hashed; its bucket and its entry are prefetched, burst by burst
//! of 32 as the worker does it; the state machine, the window check, the deadline and a turn of the
//! timer wheels follow; the classification is written out. Every packet must hit and be judged as
//! expected, or the bench fails. Writing the frames is measured alone and subtracted.
//!
//! Every case runs once in each round, so that a busy machine hurts all of them alike; compare the
//! minimum, or the ratios of one run. `chase` is the yardstick of the memory: one dependent read of
//! a random line in an array of as many lines as there are flows.
//!
//! `--workers` measures what several cores come to together ([`scale`]), `--handoff` what it costs when each
//! packet goes from one to another ([`handoff`]).
//!
//! `cargo bench --bench conntrack -- --help` lists the options. Without `--bench` and without any
//! option (that is how `cargo test --benches` starts it) it only checks that everything runs.
#![allow(clippy::print_stdout)] // a bench prints
#![allow(missing_docs)] // its modules are its own

mod cases;
mod frames;
mod handoff;
mod inserts;
mod report;
mod scale;

use cases::{Case, Chase, Hits, PipelinePath, Seat, ShardPath, Stages};
use clap::Parser;
use frames::Kind;
use inserts::Inserts;
use report::{Report, Row};
use shardwall::wire::Checksum;
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(about = "Nanoseconds a packet of conntrack and of the pure packet path, on one core")]
struct Args {
    /// Flows in the table; several runs, separated by commas
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 100_000, 1_000_000])]
    flows: Vec<u32>,
    /// Interleaved rounds
    #[arg(long, default_value_t = 8)]
    rounds: usize,
    /// Packets of a case in one round; at least one of every flow where 0
    #[arg(long, default_value_t = 0)]
    packets: usize,
    /// Only these cases, separated by commas
    #[arg(long, value_delimiter = ',')]
    cases: Vec<String>,
    /// The core to run on; the last one if it is not said
    #[arg(long)]
    core: Option<usize>,
    /// So many workers at once, on the last cores, against one of them alone
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Whole workers, on the last two cores: what it costs when each packet is the other's
    #[arg(long)]
    handoff: bool,
    /// Few flows, one round: does it run?
    #[arg(long)]
    quick: bool,
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// Every case: its name, and what it is.
const CASES: [(&str, &str); 14] = [
    ("chase", "dependent read of a random line"),
    ("tcp", "conntrack, TCP without options"),
    ("tcp-burst8", "the same, in bursts of 8"),
    (
        "tcp-rolling",
        "the same, one by one, each stage 6 packets behind the one before, across bursts",
    ),
    (
        "tcp-ts",
        "conntrack, TCP with timestamps, as Linux sends it",
    ),
    (
        "tcp-sum",
        "conntrack, TCP without options, checksums in software",
    ),
    ("udp", "conntrack, UDP"),
    (
        "path-tcp",
        "the whole pure path with a policy, TCP without options",
    ),
    (
        "path-notrack",
        "as path-tcp, but two raw rules say that it is not tracked",
    ),
    ("path-udp", "the whole pure path with a policy, UDP"),
    (
        "insert",
        "a new UDP flow, and its end when its time is over",
    ),
    (
        "path-insert",
        "the same on the whole pure path with a policy",
    ),
    (
        "tcp-expecting",
        "as tcp, while helpers expect 10,000 flows that do not come",
    ),
    (
        "insert-expecting",
        "as insert, while helpers expect 10,000 flows that do not come",
    ),
];

/// The case `name`; for a worker among others where there is a seat.
fn build(name: &str, flows: u32, seat: Option<Seat>) -> Result<Box<dyn Case>, String> {
    let shard = |limit, sums, seat| match seat {
        Some(seat) => ShardPath::sharing(seat, sums),
        None => ShardPath::new(limit, sums),
    };
    let path = |limit, seat| match seat {
        Some(seat) => PipelinePath::<true>::sharing(seat),
        None => PipelinePath::<true>::new(limit),
    };
    let room = Inserts::<ShardPath>::limit(flows);
    let alone = seat.is_none();
    let hits = |kind, sums, seat| Hits::new(shard(flows, sums, seat), kind, flows);
    Ok(match name {
        "chase" if alone => Box::new(Chase::new(flows)),
        "tcp" => Box::new(hits(Kind::Tcp, Checksum::Good, seat)?),
        "tcp-burst8" => {
            let hits = hits(Kind::Tcp, Checksum::Good, seat)?;
            Box::new(hits.by(Stages::Blocks(8)))
        }
        "tcp-rolling" => {
            let hits = hits(Kind::Tcp, Checksum::Good, seat)?;
            Box::new(hits.by(Stages::Rolling { near: 6, far: 12 }))
        }
        "tcp-ts" => Box::new(hits(Kind::TcpTimestamps, Checksum::Good, seat)?),
        "tcp-sum" => Box::new(hits(Kind::Tcp, Checksum::Unknown, seat)?),
        "udp" => Box::new(hits(Kind::Udp, Checksum::Good, seat)?),
        "path-tcp" => Box::new(Hits::new(path(flows, seat)?, Kind::Tcp, flows)?),
        "path-udp" => Box::new(Hits::new(path(flows, seat)?, Kind::Udp, flows)?),
        "path-notrack" if alone => {
            let path = PipelinePath::<false>::new(flows)?;
            Box::new(Hits::new(path, Kind::Tcp, flows)?)
        }
        "insert" => Box::new(Inserts::new(flows, shard(room, Checksum::Good, seat))?),
        "path-insert" => Box::new(Inserts::new(flows, path(room, seat)?)?),
        "tcp-expecting" if alone => {
            let path = ShardPath::expecting(flows, Checksum::Good)?;
            Box::new(Hits::new(path, Kind::Tcp, flows)?)
        }
        "insert-expecting" if alone => {
            let path = ShardPath::expecting(room, Checksum::Good)?;
            Box::new(Inserts::new(flows, path)?)
        }
        other => {
            return Err(format!(
                "there is no case `{other}`, or none for several workers"
            ));
        }
    })
}

/// Packets of a case in one round.
fn packets(args: &Args, flows: u32) -> usize {
    let packets = match args.packets {
        0 if args.quick => 1 << 12,
        0 => (flows as usize).max(1 << 20),
        packets => packets,
    };
    packets.next_multiple_of(frames::BURST)
}

fn run(args: &Args) -> Result<Report, String> {
    let wanted: Vec<&str> = if args.cases.is_empty() {
        CASES.iter().map(|(name, _)| *name).collect()
    } else {
        args.cases.iter().map(String::as_str).collect()
    };
    let mut report = Report::new(args.rounds);
    for &flows in &args.flows {
        let packets = packets(args, flows);
        let mut cases = Vec::new();
        for name in &wanted {
            let before = report::resident();
            let case = build(name, flows, None)?;
            let row = Row::new(flows, name, report::resident().saturating_sub(before));
            cases.push((case, row));
        }
        for (case, _) in &mut cases {
            case.round(packets)?; // warms caches and branch predictors
        }
        for _ in 0..args.rounds {
            for (case, row) in &mut cases {
                row.add(case.round(packets)?);
            }
        }
        for (case, mut row) in cases {
            row.reserved = case.bytes();
            report.rows.push(row);
        }
    }
    Ok(report)
}

fn main() -> ExitCode {
    let mut args = Args::parse();
    if args.quick || std::env::args_os().len() == 1 {
        args.quick = true;
        args.flows = vec![1_000];
        args.rounds = 1;
    }
    args.rounds = args.rounds.max(1);
    if args.handoff {
        return print(
            handoff::run(&args).map(|table| (table.text(), table.json())),
            args.json,
        );
    }
    if args.workers > 1 {
        return print(
            scale::run(&args).map(|table| (table.text(), table.json())),
            args.json,
        );
    }
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let core = match args.core {
        Some(wanted) => cores.iter().find(|core| core.id == wanted),
        None => cores.last(),
    };
    if let Some(core) = core {
        core_affinity::set_for_current(*core);
    }
    print(
        run(&args).map(|report| (report.text(), report.json())),
        args.json,
    )
}

/// Prints what was measured, as text or as JSON.
fn print(measured: Result<(String, serde_json::Value), String>, as_json: bool) -> ExitCode {
    match measured {
        Ok((_, json)) if as_json => println!("{json}"),
        Ok((text, _)) => print!("{text}"),
        Err(error) => {
            println!("conntrack: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
