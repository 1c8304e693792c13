//! The command line's grammar, from which help, the manual pages and the completions are made.

mod conntrack;
mod doctor;
mod manual;
mod top;
mod trace;

pub use conntrack::{ConntrackArgs, ExpectArgs, ExpectOutput, Family};
pub use doctor::DoctorArgs;
pub use manual::ManualArgs;
pub use top::TopArgs;
pub use trace::{CaptureArgs, TraceArgs, WhichArgs};

use crate::control::protocol::proto_number;
use crate::policy::ReloadMode;
use crate::policy::import::{Hook, Language};
use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// The version, and the commit that it was built from.
const BUILD: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("SHARDWALL_REVISION"),
    ")"
);

/// Where the appliance listens, unless its policy or the command line says another path.
pub const SOCKET: &str = "/run/shardwall/control.sock";

/// A stateful firewall appliance on DPDK poll-mode drivers.
#[derive(Debug, Parser)]
#[command(name = "shardwall", version = BUILD, max_term_width = 100)]
pub struct Args {
    /// How to print.
    #[arg(long, global = true, value_enum, default_value_t)]
    pub format: Format,
    /// Control socket of the running appliance.
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "SHARDWALL_SOCKET",
        default_value = SOCKET
    )]
    pub socket: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the appliance.
    Run(RunArgs),
    /// Say whether a policy is valid, and everything that is wrong with it.
    Check(CheckArgs),
    /// Print the policy language as a JSON Schema, by which editors complete and underline.
    Schema,
    /// Turn a rule set of nftables or iptables into a policy.
    Import(ImportArgs),
    /// Run a capture through a policy, without ports or root, and print what happens to each packet.
    Replay(ReplayArgs),
    /// Say which rule decides about a packet, and why: every rule that it comes by, and the match that
    /// fails in each.
    Explain(ExplainArgs),
    /// Show, count or end flows, with conntrack(8)'s options and output.
    Conntrack(Box<ConntrackArgs>),
    /// Show, count or end expectations, with the output of conntrack(8)'s table `expect`.
    Expect(ExpectArgs),
    /// Totals: packets, flows, the state of the policy.
    Stats,
    /// Dropped packets by reason: how many, how fast, and the last of each.
    Drops,
    /// Say what packets meet as they come: the tracker's judgement, every rule, the verdict, and why.
    Trace(TraceArgs),
    /// Capture packets as they come, for Wireshark, each with its verdict, drop reason and rule.
    Capture(CaptureArgs),
    /// The rules in force and what each has matched.
    Rules,
    /// Ports and their traffic.
    Ports(PortsArgs),
    /// Workers and their load.
    Workers,
    /// All of that live: rates, load, the busiest rules, hosts and flows, drops.
    Top(TopArgs),
    /// Put a policy in force: all of it, or none.
    Reload(ReloadArgs),
    /// Say what putting a policy in force would change: rules, and flows that it would not let begin.
    Diff(DiffArgs),
    /// Say whether this box is ready for the appliance (hugepages, IOMMU, drivers, cores, limits and more),
    /// and the command that mends what is not.
    Doctor(DoctorArgs),
    /// Two network namespaces with the firewall between them, and real traffic through it.
    Demo(DemoArgs),
    /// Write the manual pages and the shells' completions.
    #[command(hide = true)]
    Manual(ManualArgs),
}

/// Options of `run`.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// The policy.
    #[arg(short, long, value_name = "POLICY")]
    pub config: PathBuf,
}

/// Options of `ports`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct PortsArgs {
    /// Print what the ports' drivers count, by the drivers' names.
    #[arg(long)]
    pub xstats: bool,
    /// What to do instead.
    #[command(subcommand)]
    pub action: Option<PortsAction>,
}

/// What to do with ports.
#[derive(Clone, Debug, Subcommand)]
pub enum PortsAction {
    /// Count packets for a second, and deal the buckets of flows, and the NICs' tables, out anew, so that
    /// workers have as much to do. Flows stay with their workers until they end, in order; new ones go to
    /// the new owner.
    Rebalance(RebalanceArgs),
}

/// Options of `ports rebalance`.
#[derive(Clone, Debug, clap::Args)]
pub struct RebalanceArgs {
    /// Say what would move, and move nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Options of `check`.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckArgs {
    /// The policy.
    #[arg(value_name = "POLICY")]
    pub policy: PathBuf,
}

/// Options of `import`. The policy goes to standard output, what could not be taken to standard
/// error, line by line. Exit code 0 if everything was taken, 1 if something was left out, 2 if the
/// file cannot be read.
#[derive(Clone, Debug, clap::Args)]
pub struct ImportArgs {
    /// What the rule set is written in.
    #[arg(value_name = "LANGUAGE", value_enum)]
    pub language: RuleLanguage,
    /// The rule set; `-` for standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Which hook (built-in chain) becomes the chain `forward`: that of packets that pass through,
    /// or one of those that the host itself receives or sends.
    #[arg(long, value_enum, default_value_t, ignore_case = true)]
    pub hook: RuleHook,
}

/// Languages of rule sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RuleLanguage {
    /// What `nft list ruleset` prints and `nft -f` reads.
    Nft,
    /// What `iptables-save` and `ip6tables-save` print, one or several in a file.
    #[value(aliases = ["ip6tables-save", "iptables"])]
    IptablesSave,
}

impl From<RuleLanguage> for Language {
    fn from(language: RuleLanguage) -> Self {
        match language {
            RuleLanguage::Nft => Self::Nft,
            RuleLanguage::IptablesSave => Self::IptablesSave,
        }
    }
}

/// Hooks of rule sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RuleHook {
    /// What passes through.
    #[default]
    Forward,
    /// What the host receives.
    Input,
    /// What the host sends.
    Output,
}

impl From<RuleHook> for Hook {
    fn from(hook: RuleHook) -> Self {
        match hook {
            RuleHook::Forward => Self::Forward,
            RuleHook::Input => Self::Input,
            RuleHook::Output => Self::Output,
        }
    }
}

/// Options of `replay`.
#[derive(Clone, Debug, clap::Args)]
pub struct ReplayArgs {
    /// The policy.
    #[arg(short, long, value_name = "POLICY")]
    pub config: PathBuf,
    /// The port that the packets came in by, for a classic pcap file; pcapng files name it
    /// themselves, by interface.
    #[arg(long, value_name = "NAME")]
    pub port: Option<String>,
    /// The capture, pcapng or pcap.
    #[arg(value_name = "TRACE")]
    pub trace: PathBuf,
}

/// Options of `explain`.
#[derive(Clone, Debug, clap::Args)]
pub struct ExplainArgs {
    /// The policy.
    #[arg(short, long, value_name = "POLICY", required_unless_present = "live")]
    pub config: Option<PathBuf>,
    /// Ask the running appliance, by the policy in force and with its flows.
    #[arg(long, conflicts_with_all = ["config", "trace"])]
    pub live: bool,
    /// Explain a packet of this capture, pcapng or pcap, after all that come before it there.
    #[arg(
        long,
        value_name = "FILE",
        requires = "frame",
        conflicts_with = "words"
    )]
    pub trace: Option<PathBuf>,
    /// Which packet of the capture, counted from 1.
    #[arg(long, value_name = "N", requires = "trace", value_parser = clap::value_parser!(u64).range(1..))]
    pub frame: Option<u64>,
    /// The port that the packets came in by, for a classic pcap file.
    #[arg(long, value_name = "NAME", requires = "trace")]
    pub port: Option<String>,
    /// The packet, for example: iif=wan saddr=1.2.3.4 daddr=10.2.0.7 tcp dport=80 syn. Words are a
    /// protocol, TCP flags, `reply`, and iif= saddr= daddr= proto= sport= dport= type= flags= ct= dir=
    /// vlan= length= dscp= mark= helper= at=. What is not said is chosen, and told; the time is the
    /// present one unless at=08:00 or "at=2026-11-20 08:00" says another.
    #[arg(value_name = "WORDS")]
    pub words: Vec<String>,
}

/// Options of `diff`.
#[derive(Clone, Debug, clap::Args)]
pub struct DiffArgs {
    /// Compare with this policy instead of the running appliance's; flows are not asked about then.
    #[arg(short, long, value_name = "OLD")]
    pub config: Option<PathBuf>,
    /// The policy that would be put in force.
    #[arg(value_name = "NEW")]
    pub policy: PathBuf,
}

/// Options of `reload`.
#[derive(Clone, Debug, clap::Args)]
pub struct ReloadArgs {
    /// A policy to put in force until the next reload; without it, the file that the appliance
    /// was started with is read again.
    #[arg(value_name = "POLICY")]
    pub policy: Option<PathBuf>,
    /// What becomes of the flows in the table, whatever the policy's `reload` says.
    #[arg(long, value_name = "MODE", value_enum)]
    pub flows: Option<Flows>,
}

/// What a reload does to flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Flows {
    /// They live on; what their packets may is for the rules to say.
    Keep,
    /// Each is judged again at its next packet, as if it began then.
    Rematch,
    /// Those that would not be let begin any more end at once.
    FlushAffected,
}

impl From<Flows> for ReloadMode {
    fn from(flows: Flows) -> Self {
        match flows {
            Flows::Keep => Self::Keep,
            Flows::Rematch => Self::Rematch,
            Flows::FlushAffected => Self::FlushAffected,
        }
    }
}

/// Options of `demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// Leave it running.
    #[arg(long)]
    pub keep: bool,
}

fn protocol_number(word: &str) -> Result<u8, String> {
    proto_number(word).ok_or_else(|| {
        "neither a number up to 255 nor one of tcp, udp, icmp, icmpv6, sctp, dccp, gre, udplite"
            .into()
    })
}
