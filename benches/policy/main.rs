//! Policies of many rules: how long they take to read and to compile, how much room the classifier
//! takes, and how long it takes to classify a packet that starts a flow, beside the plain reading of
//! rule after rule.
//!
//! Half of the packets are about a rule, half about nothing in particular. Both ways must come to the
//! same rule. Each packet is timed alone, in random order, what the clock takes taken off; of its
//! times in all rounds the median counts, and the figures are over packets: so the tables are as warm
//! as a few thousand different packets leave them. `mean` is a pass without clocks in it.
//!
//! `--peer` compares with nftables ([`peer`]).
//!
//! `cargo bench --bench policy` measures; without `--bench` (as `cargo test --benches` runs it), it
//! only checks that everything runs.
#![allow(clippy::print_stdout)] // a bench prints
#![allow(missing_docs)] // its modules are its own

mod classify;
mod peer;
mod report;
mod rules;

use clap::Parser;
use report::Table;
use std::process::ExitCode;

/// What goes wrong ends the run; there is nothing to recover.
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[derive(Debug, Parser)]
#[command(about = "Compiling policies of many rules, and classifying packets by them")]
struct Args {
    /// Rules; several runs, separated by commas
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1_000, 10_000, 100_000])]
    rules: Vec<usize>,
    /// Packets that are classified
    #[arg(long, default_value_t = 4096)]
    packets: usize,
    /// Interleaved rounds
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Against nftables, forwarding between two links (needs root)
    #[arg(long)]
    peer: bool,
    /// Only classify the packets, once, for those who count instructions
    #[arg(long)]
    once: bool,
    /// Leave the plain reading of more rules than this out
    #[arg(long, default_value_t = 100_000)]
    linear: usize,
    /// The core to run on; the last one if it is not said
    #[arg(long)]
    core: Option<usize>,
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

fn run(args: &Args) -> Outcome<Table> {
    if args.peer {
        return peer::run(args);
    }
    let mut table = classify::table(args);
    if args.once {
        for &rules in &args.rules {
            classify::once(args, rules)?;
        }
        return Ok(table);
    }
    for &rules in &args.rules {
        table.rows.push(classify::row(args, rules)?);
    }
    Ok(table)
}

fn main() -> ExitCode {
    let mut args = Args::parse();
    if std::env::args_os().len() == 1 {
        args.rules = vec![500];
        args.packets = 256;
        args.rounds = 1;
    }
    args.rounds = args.rounds.max(1);
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let core = match args.core {
        Some(wanted) => cores.iter().find(|core| core.id == wanted),
        None => cores.last(),
    };
    if let Some(core) = core {
        core_affinity::set_for_current(*core);
    }
    match run(&args) {
        Ok(table) if args.json => println!("{}", table.json()),
        Ok(table) => print!("{}", table.text()),
        Err(error) => {
            println!("policy: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
