//! `shardwall replay`: a capture through the packet path, in virtual time. No port, no DPDK, no
//! root; the pipeline is the one that the workers run, and the capture's timestamps are its clock.
//!
//! One object (or line) a packet, in file order; the fields are the contract of the design.

use super::args::Format;
use crate::base::hash::HashKey;
use crate::base::time::Now;
use crate::conntrack::record::FlowRecord;
use crate::conntrack::types::CtState;
use crate::dataplane::capture::{Capture, Captured};
use crate::pipeline::{By, Counters, Disposition, DropReason, Pipeline, Slot};
use crate::policy::{self, Compiled, PortId};
use serde::Serialize;
use std::borrow::Cow;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// Exit code for a file or policy that cannot be read.
const UNREADABLE: u8 = 2;

/// What is said of one packet.
#[derive(Debug, Serialize)]
struct Line<'a> {
    n: u64,
    ts: f64,
    port: &'a str,
    state: Option<&'static str>,
    dir: Option<&'static str>,
    verdict: &'static str,
    rule: Option<&'a str>,
    reason: Option<&'static str>,
    ct: Option<CtLine>,
}

/// The flow's entry after the packet.
#[derive(Debug, Serialize)]
struct CtLine {
    proto: Cow<'static, str>,
    tcp_state: Option<&'static str>,
    timeout: u32,
    assured: bool,
    seen_reply: bool,
    helper: Option<&'static str>,
    expected: bool,
}

impl From<FlowRecord> for CtLine {
    fn from(record: FlowRecord) -> Self {
        Self {
            proto: proto_name(record.proto),
            tcp_state: record.tcp_state.map(|state| state.name()),
            timeout: record.timeout,
            assured: record.assured,
            seen_reply: record.seen_reply,
            helper: None,
            expected: false,
        }
    }
}

/// A protocol's name, or its number.
fn proto_name(number: u8) -> Cow<'static, str> {
    match policy::protocol_name(number) {
        Some(name) => name.into(),
        None => number.to_string().into(),
    }
}

/// What went wrong, as a message.
#[derive(Debug, thiserror::Error)]
enum ReplayError {
    #[error("{0}")]
    Policy(#[from] policy::PolicyErrors),
    #[error("{0}")]
    Capture(#[from] crate::dataplane::capture::CaptureError),
    #[error("the policy has no port {name}; its ports are {known}")]
    NoPort { name: String, known: String },
    #[error(
        "packet {0} does not say where it arrived; name its port with --port (a classic pcap has \
         no interface names)"
    )]
    PortNeeded(u64),
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
}

/// Runs the capture `trace` through the policy at `config`. `port` names the port of packets
/// whose capture does not.
#[allow(clippy::print_stderr)] // the summary's place
pub(super) fn execute(config: &Path, port: Option<&str>, trace: &Path, format: Format) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    let done = replay(config, port, trace, format, &mut out).and_then(|summary| {
        out.flush()?;
        Ok(summary)
    });
    match done {
        Ok(summary) => {
            eprintln!("{summary}");
            ExitCode::SUCCESS
        }
        // Whoever reads our output has seen enough.
        Err(ReplayError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = out.flush();
            eprintln!("shardwall replay: {error}");
            ExitCode::from(UNREADABLE)
        }
    }
}

#[allow(clippy::print_stderr)] // warnings
fn replay(
    config: &Path,
    port: Option<&str>,
    trace: &Path,
    format: Format,
    out: &mut impl Write,
) -> Result<String, ReplayError> {
    let checked = policy::load(config)?;
    eprint!("{}", checked.render_warnings());
    let compiled = policy::compile(&checked.model, 1, 1);
    let default_port = port.map(|name| find_port(&compiled, name)).transpose()?;
    let mut capture = Capture::open(trace)?;
    let counters = Arc::new(Counters::default());
    let mut run: Option<Pipeline> = None;
    let mut now = Now::default();
    let mut number = 0;
    while let Some(next) = capture.next_frame() {
        let captured = next?;
        number += 1;
        let iif = match (&captured.interface, default_port) {
            (Some(name), _) => find_port(&compiled, name)?,
            (None, Some(port)) => port,
            (None, None) => return Err(ReplayError::PortNeeded(number)),
        };
        // Time does not run backwards, whatever the capture says.
        now = now.max(Now::from_nanos(captured.nanos));
        let limit = compiled.conntrack().max;
        let pipeline = run.get_or_insert_with(|| {
            Pipeline::new(0, limit, HashKey::from_seed(1), now, counters.clone())
        });
        let line = step(pipeline, &compiled, now, iif, &captured, number);
        match format {
            Format::Json => {
                serde_json::to_writer(&mut *out, &line).map_err(io::Error::from)?;
                writeln!(out)?;
            }
            Format::Text => print_text(out, &line)?,
        }
    }
    Ok(summary(&counters, run.as_ref()))
}

fn find_port(policy: &Compiled, name: &str) -> Result<PortId, ReplayError> {
    let names = policy.port_names();
    match names.iter().position(|known| known == name) {
        Some(at) => Ok(PortId(at as u8)),
        None => Err(ReplayError::NoPort {
            name: name.into(),
            known: names.join(", "),
        }),
    }
}

/// One packet through the pipeline.
fn step<'a>(
    pipeline: &mut Pipeline,
    policy: &'a Compiled,
    now: Now,
    iif: PortId,
    captured: &Captured,
    n: u64,
) -> Line<'a> {
    pipeline.shard_mut().expire(now.ticks(), usize::MAX);
    pipeline.counters().received.add(1);
    let mut slot = Slot::default();
    pipeline.prepare(&mut slot, policy, iif, &captured.data, captured.len);
    pipeline.prefetch(&mut slot);
    let outcome = pipeline.decide(policy, now, iif, &captured.data, &slot);
    let reason = match outcome.disposition {
        Disposition::Forward(_) => {
            pipeline.counters().forwarded.add(1);
            None
        }
        Disposition::Drop(reason) => Some(reason.name()),
        Disposition::Reject(_) => Some(DropReason::Rejected.name()),
    };
    let tracked = outcome
        .tracked
        .filter(|tracked| tracked.state != CtState::Untracked);
    let flow = tracked.and_then(|_| pipeline.shard().peek(&slot.prepared, now.ticks()));
    Line {
        n,
        ts: captured.nanos as f64 / 1e9,
        port: policy
            .port_names()
            .get(usize::from(iif.0))
            .map_or("", String::as_str),
        state: outcome.tracked.map(|tracked| tracked.state.name()),
        dir: outcome
            .tracked
            .and_then(|tracked| tracked.dir)
            .map(|dir| dir.name()),
        verdict: outcome.disposition.verdict(),
        rule: match outcome.by {
            By::Nobody => None,
            By::Rule(rule) => Some(policy.rule_name(rule)),
            By::EtherTypes => Some("bridge/ethertypes"),
            By::NeighbourDiscovery => Some("bridge/neighbour-discovery"),
        },
        reason,
        ct: flow.map(|flow| pipeline.shard().record(flow, now.ticks()).into()),
    }
}

fn print_text(out: &mut impl Write, line: &Line<'_>) -> io::Result<()> {
    let Line { n, ts, port, .. } = line;
    write!(
        out,
        "{n:>6} {ts:.6} {port:<8} {:<11} ",
        line.state.unwrap_or("-")
    )?;
    write!(out, "{:<8} {:<6} ", line.dir.unwrap_or("-"), line.verdict)?;
    write!(out, "{}", line.rule.unwrap_or("-"))?;
    if let Some(reason) = line.reason {
        write!(out, " ({reason})")?;
    }
    if let Some(ct) = &line.ct {
        write!(out, "  {} {}", ct.proto, ct.timeout)?;
        if let Some(state) = ct.tcp_state {
            write!(out, " {state}")?;
        }
        let reply = if ct.seen_reply { "" } else { " [UNREPLIED]" };
        let assured = if ct.assured { " [ASSURED]" } else { "" };
        write!(out, "{reply}{assured}")?;
    }
    writeln!(out)
}

/// The balance: what came in went out, or was dropped for a reason that has a name.
fn summary(counters: &Counters, pipeline: Option<&Pipeline>) -> String {
    let mut text = format!(
        "{} packets: {} accepted, {} dropped",
        counters.received.get(),
        counters.forwarded.get(),
        counters.dropped_total(),
    );
    let reasons: Vec<String> = DropReason::ALL
        .iter()
        .map(|reason| (reason.name(), counters.drops[*reason as usize].get()))
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if !reasons.is_empty() {
        text += &format!(" ({})", reasons.join(", "));
    }
    text + &format!(
        "; {} flows at the end",
        pipeline.map_or(0, |p| p.shard().len())
    )
}
