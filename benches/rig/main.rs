//! End to end: millions of packets a second through the real binary, against DPDK's testpmd on the
//! same virtual devices.
//!
//! Two captures hold the same flows in the same shuffled order, forward tuples in one and reply
//! tuples in the other. Two `net_pcap` ports replay them for ever and free what is sent. One core
//! polls; all threads that do not poll share another. `io` (forwards, looks at nothing) and
//! `5tswap` (touches the headers) are the limits of the devices; the ratio to `5tswap` is the figure
//! that carries over to other machines. TCP is picked up mid-stream, since a replay has no
//! handshakes.
//!
//! Contestants take turns within a round and a run is short, so that a busy machine hurts all of
//! them alike. `mpps` is by the clock, `cpu` by the processor time of the polling thread, which
//! what else runs on the core disturbs less.
//!
//! `--reloads` measures reloads instead of contestants ([`reload`]).
//!
//! Needs root, `dpdk-testpmd` and memory in huge pages, which are set aside for the run and given
//! back. `cargo bench --bench rig -- --help` lists the options.
#![allow(clippy::print_stdout)] // a bench prints
#![allow(missing_docs)] // its modules are its own

mod capture;
mod contest;
mod machine;
mod reload;
mod report;
#[allow(dead_code)] // the other bench classifies packets by them, too
#[path = "../policy/rules.rs"]
mod rules;

use capture::{Captures, Proto};
use clap::Parser;
use contest::{Rate, shardwall, testpmd};
use machine::{HugePages, Scratch, watch_signals};
use report::Report;
use std::path::PathBuf;
use std::process::ExitCode;

/// What goes wrong ends the run; there is nothing to recover.
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[derive(Debug, Parser)]
#[command(about = "Millions of packets a second, end to end, against testpmd")]
struct Args {
    /// Flows; several runs, separated by commas
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 100_000])]
    flows: Vec<u32>,
    /// Protocol of the flows
    #[arg(long, value_enum, default_value_t = Proto::Udp)]
    proto: Proto,
    /// Interleaved rounds
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds that each is measured in a round
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Seconds before that
    #[arg(long, default_value_t = 2)]
    warm_up: u64,
    /// The core that polls, and the core of everything else
    #[arg(long, value_delimiter = ',', default_values_t = [1, 0])]
    cores: Vec<usize>,
    /// Instead of a contest: so many reloads between two policies under full load
    #[arg(long, default_value_t = 0)]
    reloads: usize,
    /// Rules of these policies
    #[arg(long, default_value_t = 10_000)]
    rules: usize,
    /// Only testpmd
    #[arg(long)]
    testpmd_only: bool,
    /// The binary; the one in the target folder if it is not said
    #[arg(long)]
    binary: Option<PathBuf>,
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// What every run needs to know.
#[derive(Debug)]
struct Setup<'a> {
    captures: &'a Captures,
    scratch: &'a Scratch,
    binary: PathBuf,
    polling: usize,
    control: usize,
    seconds: u64,
    warm_up: u64,
}

/// The binary of the profile that this bench was built with.
fn default_binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_shardwall"))
}

/// Packet buffers that hold both captures, and what is under way.
fn mbufs(flows: u32) -> u32 {
    (2 * flows).max(131_072) + 32_768
}

/// 2 MB pages that `mbufs` and the rest need.
fn pages(mbufs: u32) -> u64 {
    u64::from(mbufs) * 2_500 / (2 << 20) + 128
}

fn contest(args: &Args, scratch: &Scratch, report: &mut Report) -> Outcome<()> {
    let [polling, control] = args.cores[..] else {
        return Err("--cores wants two".into());
    };
    let most = args.flows.iter().copied().max().unwrap_or(0);
    let reserved = HugePages::reserve(pages(mbufs(most)));
    let _pages = match reserved {
        Ok(pages) => Some(pages),
        // seconds with reloads and without are compared on whatever memory there is
        Err(_) if args.reloads > 0 => None,
        Err(error) => return Err(error),
    };
    for &flows in &args.flows {
        let captures = Captures::write(scratch, flows, args.proto)?;
        let setup = Setup {
            captures: &captures,
            scratch,
            binary: args.binary.clone().unwrap_or_else(default_binary),
            polling,
            control,
            seconds: args.seconds,
            warm_up: args.warm_up,
        };
        if args.reloads > 0 {
            report.note(reload::run(&setup, args.rules, args.reloads)?);
            continue;
        }
        let mut firewall = !args.testpmd_only;
        for _ in 0..args.rounds.max(1) {
            for mode in ["io", "5tswap"] {
                let rate = testpmd(&setup, mode)?;
                report.add(flows, &format!("testpmd {mode}"), rate);
            }
            if !firewall {
                continue;
            }
            match shardwall(&setup) {
                Ok(rate) => report.add(flows, "shardwall", rate),
                Err(error) if machine::interrupted() => return Err(error),
                Err(error) => {
                    firewall = false;
                    report.note(format!("shardwall at {flows} flows: {error}"));
                }
            }
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let args = Args::parse();
    if std::env::args_os().len() == 1 {
        println!("rig: skipped, since neither `cargo bench` nor an option asks for it");
        return ExitCode::SUCCESS;
    }
    if let Some(missing) = machine::missing() {
        println!("rig: skipped: {missing}");
        return ExitCode::SUCCESS;
    }
    watch_signals();
    let mut report = Report::new(&args);
    let result = Scratch::new().and_then(|scratch| contest(&args, &scratch, &mut report));
    if args.json {
        println!("{}", report.json());
    } else if args.reloads > 0 {
        print!("{}", report.notes());
    } else {
        print!("{}", report.text());
    }
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("rig: {error}");
            ExitCode::FAILURE
        }
    }
}
