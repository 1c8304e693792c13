//! End to end: millions of packets a second through the real binary, against DPDK's testpmd and Open
//! vSwitch on the same virtual devices.
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
//! `--load` chooses packets that begin flows; then flows are counted instead of packets. Open vSwitch
//! ([`ovs`]) takes part where it is installed. `--workers 2` gives every port two queues and polls them
//! on two cores; one of these is the core of everything else where there are only two, and both
//! directions of a flow come by queues of the same number.
//!
//! `--reloads` measures reloads instead of contestants ([`reload`]), `--dumps` listings of the whole
//! flow table ([`dump`]).
//!
//! Needs root, `dpdk-testpmd` and memory in huge pages, which are set aside for the run and given
//! back. `cargo bench --bench rig -- --help` lists the options.
#![allow(clippy::print_stdout)] // a bench prints
#![allow(missing_docs)] // its modules are its own

mod capture;
mod contest;
mod dump;
mod machine;
mod ovs;
mod reload;
mod report;
#[allow(dead_code)] // the other bench classifies packets by them, too
#[path = "../policy/rules.rs"]
mod rules;
mod stretch;

use capture::{Captures, Load, Proto};
use clap::{Parser, ValueEnum};
use contest::{Rate, shardwall, testpmd};
use machine::{HugePages, Scratch, watch_signals};
use ovs::ovs;
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
    /// The core that polls, and the core of everything else; further ones poll, too
    #[arg(long, value_delimiter = ',', default_values_t = [1, 0])]
    cores: Vec<usize>,
    /// Threads that poll
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// What the packets do
    #[arg(long, value_enum, default_value_t = Load::Known)]
    load: Load,
    /// Who takes part, separated by commas; all, if it is not said
    #[arg(long, value_enum, value_delimiter = ',')]
    who: Vec<Who>,
    /// Instead of a contest: so many reloads between two policies under full load
    #[arg(long, default_value_t = 0)]
    reloads: usize,
    /// Instead of a contest: so many listings of all flows under full load
    #[arg(long, default_value_t = 0)]
    dumps: usize,
    /// Rules of the policy; those that are reloaded have 10,000
    #[arg(long)]
    rules: Option<usize>,
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

/// Those who forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Who {
    /// testpmd, which looks at nothing
    Io,
    /// testpmd, which touches the headers
    #[value(name = "5tswap")]
    Swap,
    /// The appliance
    Shardwall,
    /// Open vSwitch, which only forwards
    Ovs,
    /// Open vSwitch with connection tracking
    OvsCt,
}

impl Who {
    const fn name(self) -> &'static str {
        match self {
            Who::Io => "testpmd io",
            Who::Swap => "testpmd 5tswap",
            Who::Shardwall => "shardwall",
            Who::Ovs => "OVS",
            Who::OvsCt => "OVS ct()",
        }
    }

    /// What it comes to, or why it does not take part.
    fn run(self, setup: &Setup<'_>) -> Outcome<Rate> {
        let captures = setup.captures;
        // Who keeps no flows is as fast as packets are.
        let flows = |rate: Rate| match captures.load {
            Load::Known => rate,
            _ => rate.times(captures.openings()),
        };
        match self {
            Who::Io => testpmd(setup, "io").map(flows),
            Who::Swap => testpmd(setup, "5tswap").map(flows),
            Who::Shardwall => shardwall(setup),
            Who::Ovs => ovs(setup, false).map(flows),
            Who::OvsCt => ovs(setup, true),
        }
    }

    fn missing(self, captures: &Captures) -> Option<String> {
        match self {
            // It does not make room in a full table.
            Who::OvsCt if captures.load == Load::Full => {
                Some("Open vSwitch refuses what finds its table full".to_owned())
            }
            Who::Ovs | Who::OvsCt => ovs::missing(captures.flows),
            _ => None,
        }
    }
}

/// What every run needs to know.
#[derive(Debug)]
struct Setup<'a> {
    captures: &'a Captures,
    scratch: &'a Scratch,
    binary: PathBuf,
    rules: usize,
    polling: Vec<usize>,
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

/// 2 MB pages that `mbufs` and the rest need, and Open vSwitch, whose buffers are larger.
fn pages(mbufs: u32) -> u64 {
    (u64::from(mbufs) * 2_500 / (2 << 20) + 128).max(640)
}

/// The cores that poll, and that of everything else.
fn cores(args: &Args) -> Outcome<(Vec<usize>, usize)> {
    let &[first, control, ref more @ ..] = &args.cores[..] else {
        return Err("--cores wants two or more".into());
    };
    // The core of everything else comes last: it polls only if there is no other.
    let order = [&[first], more, &[control]].concat();
    if args.workers == 0 || args.workers > order.len() {
        return Err(format!("{} workers on {} cores", args.workers, order.len()).into());
    }
    Ok((order[..args.workers].to_vec(), control))
}

fn contest(args: &Args, scratch: &Scratch, report: &mut Report) -> Outcome<()> {
    let (polling, control) = cores(args)?;
    if args.load == Load::Reset && args.proto != Proto::Tcp {
        return Err("only TCP has resets: --proto tcp".into());
    }
    let most = args.flows.iter().copied().max().unwrap_or(0);
    let reserved = HugePages::reserve(pages(mbufs(most)));
    let _pages = match reserved {
        Ok(pages) => Some(pages),
        // seconds with the work and without are compared on whatever memory there is
        Err(_) if args.reloads > 0 || args.dumps > 0 => None,
        Err(error) => return Err(error),
    };
    for &flows in &args.flows {
        let captures = Captures::write(scratch, flows, args.proto, args.workers, args.load)?;
        let setup = Setup {
            captures: &captures,
            scratch,
            binary: args.binary.clone().unwrap_or_else(default_binary),
            rules: args.rules.unwrap_or(100),
            polling: polling.clone(),
            control,
            seconds: args.seconds,
            warm_up: args.warm_up,
        };
        if args.reloads > 0 {
            let rules = args.rules.unwrap_or(10_000);
            report
                .stretches
                .push(reload::run(&setup, rules, args.reloads)?);
            continue;
        }
        if args.dumps > 0 {
            report.stretches.push(dump::run(&setup, args.dumps)?);
            continue;
        }
        let mut part = if args.who.is_empty() {
            Who::value_variants().to_vec()
        } else {
            args.who.clone()
        };
        part.retain(|who| match who.missing(&captures) {
            Some(why) => {
                report.note(format!("{} at {flows} flows: {why}", who.name()));
                false
            }
            None => true,
        });
        for _ in 0..args.rounds.max(1) {
            let mut failed = Vec::new();
            for who in &part {
                match who.run(&setup) {
                    Ok(rate) => report.add(flows, who.name(), rate),
                    Err(error) if machine::interrupted() => return Err(error),
                    Err(error) => {
                        failed.push(*who);
                        report.note(format!("{} at {flows} flows: {error}", who.name()));
                    }
                }
            }
            part.retain(|who| !failed.contains(who));
        }
        // What we are about must have run.
        let ours = args.who.is_empty() || args.who.contains(&Who::Shardwall);
        if ours && !part.contains(&Who::Shardwall) {
            return Err("the appliance did not run".into());
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
