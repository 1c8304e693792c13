//! `shardwall replay`: a capture through the packet path, in virtual time. No port, no DPDK, no
//! root; the pipeline is the one that the workers run, and the capture's timestamps are its clock.
//!
//! One object (or line) a packet, in file order; the fields are the contract of the design. A
//! fragment is on `hold` until the last one of its datagram comes; that one's line is about the
//! whole datagram.

use super::args::Format;
use crate::base::hash::HashKey;
use crate::base::time::Now;
use crate::conntrack::limit::Budget;
use crate::conntrack::record::FlowRecord;
use crate::conntrack::types::CtState;
use crate::dataplane::capture::{Capture, Captured};
use crate::pipeline::defrag::{Added, Defrag, FragmentKey, Group, Limits};
use crate::pipeline::{Counters, Disposition, DropReason, Explanation, Outcome, Pipeline, Slot};
use crate::policy::{self, Compiled, Narrator, PortId};
use crate::wire::fragment::{MAX_JOINED, Piece};
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
    helper: Option<Cow<'static, str>>,
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
            helper: record.helper,
            expected: record.expected,
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
pub(super) enum ReplayError {
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
    #[error("the capture ends with packet {0}")]
    NoFrame(u64),
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
pub(super) fn replay(
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
    let mut run: Option<Run> = None;
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
        let run = run.get_or_insert_with(|| Run::new(&compiled, now, &counters));
        let line = run.step(&compiled, now, iif, captured, number);
        match format {
            Format::Json => {
                serde_json::to_writer(&mut *out, &line).map_err(io::Error::from)?;
                writeln!(out)?;
            }
            Format::Text => print_text(out, &line)?,
        }
    }
    Ok(summary(&counters, run.as_ref().map(|run| &run.pipeline)))
}

/// Explains packet number `frame` of the capture `trace`, after those before it went through the
/// policy `compiled`, which `narrator` tells.
pub(super) fn explain(
    narrator: &Narrator<'_>,
    compiled: &Compiled,
    port: Option<&str>,
    trace: &Path,
    frame: u64,
) -> Result<Explanation, ReplayError> {
    let default_port = port.map(|name| find_port(compiled, name)).transpose()?;
    let mut capture = Capture::open(trace)?;
    let counters = Arc::new(Counters::default());
    let (mut run, mut now, mut number) = (None, Now::default(), 0);
    while let Some(next) = capture.next_frame() {
        let captured = next?;
        number += 1;
        let iif = match (&captured.interface, default_port) {
            (Some(name), _) => find_port(compiled, name)?,
            (None, Some(port)) => port,
            (None, None) => return Err(ReplayError::PortNeeded(number)),
        };
        now = now.max(Now::from_nanos(captured.nanos));
        let run: &mut Run = run.get_or_insert_with(|| Run::new(compiled, now, &counters));
        if number == frame {
            return Ok(run.explain(narrator, compiled, now, iif, captured));
        }
        run.step(compiled, now, iif, captured, number);
    }
    Err(ReplayError::NoFrame(number))
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

/// The packet path.
struct Run {
    pipeline: Pipeline,
    defrag: Defrag<Vec<u8>>,
    /// Where a datagram is put together.
    joined: Vec<u8>,
}

impl Run {
    #[allow(clippy::expect_used)] // one is asked for
    fn new(policy: &Compiled, now: Now, counters: &Arc<Counters>) -> Self {
        let key = HashKey::from_seed(1);
        let config = policy.conntrack();
        let budget = Arc::new(Budget::new(config.max, 1));
        let ends = Pipeline::expecters(&budget, 1, config.expect_max);
        let expecter = ends.into_iter().next().expect("one end for one worker");
        Self {
            pipeline: Pipeline::sharing(0, budget, expecter, key, now, counters.clone()),
            defrag: Defrag::new(Limits::DEFAULT, key, counters.clone()),
            joined: vec![0; MAX_JOINED],
        }
    }

    /// Why one packet meets its verdict. Nothing can go through the pipeline after it.
    fn explain(
        &mut self,
        narrator: &Narrator<'_>,
        policy: &Compiled,
        now: Now,
        iif: PortId,
        captured: Captured,
    ) -> Explanation {
        let shard = self.pipeline.shard_mut();
        shard.begin(now, 0);
        shard.expire(now.ticks(), usize::MAX);
        self.defrag.expire(now.ticks(), usize::MAX);
        let Captured { data, len, .. } = captured;
        let mut slot = Slot::default();
        self.pipeline.prepare(&mut slot, policy, iif, &data, len);
        let mut whole = Slot::default();
        let joined = self.complete(policy, now, iif, &data, &slot, &mut whole);
        let joined = joined.map(|len| self.joined[..len].to_vec());
        let (data, slot) = match &joined {
            Some(datagram) => (datagram, &whole),
            None => (&data, &slot),
        };
        let pipeline = &mut self.pipeline;
        Explanation::of_slot(narrator, policy, pipeline, (data, iif, now), slot, None)
    }

    /// The datagram that the fragment `data` completes, if it does; its length in `joined`.
    fn complete(
        &mut self,
        policy: &Compiled,
        now: Now,
        iif: PortId,
        data: &[u8],
        slot: &Slot,
        whole: &mut Slot,
    ) -> Option<usize> {
        let parsed = &slot.parsed;
        let piece = Piece::of(data, parsed).filter(|_| parsed.fragment.is_part())?;
        let key = FragmentKey::of(parsed, &piece, iif);
        let (ticks, len, mut group) = (now.ticks(), data.len(), Group::new());
        let added = self
            .defrag
            .add(ticks, key, &piece, len, data.to_vec(), &mut group);
        if added != Added::Whole {
            return None;
        }
        let parts = group.iter().map(Vec::as_slice);
        self.pipeline
            .join(whole, policy, iif, &mut self.joined, parts)
    }

    /// One packet through the pipeline.
    fn step<'a>(
        &mut self,
        policy: &'a Compiled,
        now: Now,
        iif: PortId,
        captured: Captured,
        n: u64,
    ) -> Line<'a> {
        let shard = self.pipeline.shard_mut();
        shard.begin(now, 0);
        shard.expire(now.ticks(), usize::MAX);
        self.defrag.expire(now.ticks(), usize::MAX);
        self.pipeline.counters().received.add(1);
        let Captured {
            nanos, data, len, ..
        } = captured;
        let mut slot = Slot::default();
        self.pipeline.prepare(&mut slot, policy, iif, &data, len);
        self.pipeline.prefetch(&mut slot);
        let mut outcome = self.pipeline.decide(policy, now, iif, &data, &slot);
        let mut frames = 1;
        if outcome.disposition == Disposition::Hold {
            (outcome, slot, frames) = self.fragment(policy, now, iif, data, slot);
        }
        if let Disposition::Forward(_) = outcome.disposition {
            self.pipeline.counters().forwarded.add(frames);
        }
        let reason = outcome.disposition.reason().map(DropReason::name);
        let tracked = outcome
            .tracked
            .filter(|tracked| tracked.state != CtState::Untracked);
        let shard = self.pipeline.shard();
        let flow = tracked.and_then(|_| shard.peek(&slot.prepared, now.ticks()));
        Line {
            n,
            ts: nanos as f64 / 1e9,
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
            rule: outcome.by.name(policy),
            reason,
            ct: flow.map(|flow| shard.record(flow, now.ticks()).into()),
        }
    }

    /// Holds the fragment `data`. What is said of it, or of the datagram that it completes, with
    /// the packet that this is about and how many frames it came in.
    fn fragment(
        &mut self,
        policy: &Compiled,
        now: Now,
        iif: PortId,
        data: Vec<u8>,
        slot: Slot,
    ) -> (Outcome, Slot, u64) {
        let dropped = |reason, frames| {
            let outcome = Outcome::unjudged(Disposition::Drop(reason));
            (outcome, slot, frames)
        };
        let counters = self.pipeline.counters().clone();
        let Some(piece) = Piece::of(&data, &slot.parsed) else {
            counters.dropped(DropReason::FragmentBad);
            return dropped(DropReason::FragmentBad, 1);
        };
        let key = FragmentKey::of(&slot.parsed, &piece, iif);
        let (ticks, len) = (now.ticks(), data.len());
        let mut group = Group::new();
        match self.defrag.add(ticks, key, &piece, len, data, &mut group) {
            Added::Held => return (Outcome::unjudged(Disposition::Hold), slot, 1),
            Added::Refused(reason) => return dropped(reason, 1),
            Added::Whole => {}
        }
        let frames = group.len() as u64;
        let parts = group.iter().map(Vec::as_slice);
        let mut whole = Slot::default();
        let joined = self
            .pipeline
            .join(&mut whole, policy, iif, &mut self.joined, parts);
        let Some(len) = joined else {
            counters.drops[DropReason::FragmentBad as usize].add(frames);
            return dropped(DropReason::FragmentBad, frames);
        };
        let datagram = &self.joined[..len];
        let outcome = self
            .pipeline
            .decide_whole(policy, now, iif, datagram, &whole, group.len());
        (outcome, whole, frames)
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
        let expected = if ct.expected { " [EXPECTED]" } else { "" };
        write!(out, "{reply}{assured}{expected}")?;
        if let Some(helper) = &ct.helper {
            write!(out, " helper={helper}")?;
        }
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
    let held = counters.held.get();
    if held > 0 {
        text += &format!(", {held} held");
    }
    text + &format!(
        "; {} flows at the end",
        pipeline.map_or(0, |p| p.shard().len())
    )
}
