//! `trace`: what packets meet as they come.
//!
//! Concurrency: as `conntrack -E`: SIGINT and SIGTERM end the connection, and with it the trace.

use super::args::TraceArgs;
use super::events::interrupt;
use super::explain;
use super::output::{Output, Result};
use crate::control::trace::{LeftOut, Told};
use crate::control::{Client, Request};
use serde_json::json;
use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;

/// Nanoseconds since 1970 as seconds.
pub(super) struct Time(pub(super) u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{:09}",
            self.0 / 1_000_000_000,
            self.0 % 1_000_000_000
        )
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            (self.not_sampled, "by sampling"),
            (self.over_rate, "over the rate (--rate)"),
            (self.queue_full, "that came faster than they were taken"),
        ];
        let some = all.iter().filter(|(count, _)| *count > 0);
        for (at, (count, why)) in some.enumerate() {
            let lead = if at == 0 { "" } else { ", " };
            write!(f, "{lead}{count} {why}")?;
        }
        Ok(())
    }
}

/// Gives what is told to `each`, with whether more has arrived already, until the trace is over or the
/// command is interrupted; what is left out is printed here, and at the end how many packets there were.
pub(super) fn follow(
    ask: Request,
    verb: &str,
    socket: &Path,
    out: &mut Output<'_>,
    mut each: impl FnMut(Told, bool, &mut Output<'_>) -> Result,
) -> Result {
    let mut client = Client::connect(socket)?;
    interrupt(client.interrupter()?)?;
    let (mut packets, mut left_out, mut failed) = (0u64, LeftOut::default(), None);
    let json = out.is_json();
    let mut one = |told: Told, more: bool| -> Result {
        match told {
            Told::LeftOut(now) => {
                left_out = now;
                if json {
                    writeln!(out.out, "{}", json!({ "left_out": now }))?;
                    out.out.flush()?;
                }
                return Ok(());
            }
            Told::Begun(_) if !json => {
                writeln!(out.err, "shardwall: {verb}; ^C ends it")?;
            }
            Told::Begun(_) => {}
            Told::Packet(_) | Told::Frame(_) => packets += 1,
        }
        each(told, more, out)
    };
    client.follow(&ask, |told, more| match one(told, more) {
        Ok(()) => ControlFlow::Continue(()),
        Err(failure) => {
            failed = Some(failure);
            ControlFlow::Break(())
        }
    })?;
    if let Some(failure) = failed {
        return Err(failure);
    }
    out.out.flush()?;
    if !json {
        let noun = if packets == 1 { "packet" } else { "packets" };
        write!(out.err, "shardwall: {packets} {noun}")?;
        if left_out != LeftOut::default() {
            write!(out.err, "; left out: {left_out}")?;
        }
        writeln!(out.err)?;
    }
    Ok(())
}

/// Prints what packets meet.
pub(super) fn execute(args: &TraceArgs, socket: &Path, out: &mut Output<'_>) -> Result {
    let ask = Request::Trace(args.ask());
    let json = out.is_json();
    let mut first = true;
    follow(ask, "tracing", socket, out, |told, more, out| {
        if let Told::Packet(it) = told {
            if json {
                writeln!(out.out, "{}", serde_json::to_string(&it)?)?;
            } else {
                let lead = if std::mem::take(&mut first) { "" } else { "\n" };
                let (time, worker, policy) = (Time(it.time_ns), it.worker, it.policy);
                writeln!(out.out, "{lead}[{time}] worker {worker}, policy {policy}")?;
                explain::print(out.out, &it.told, it.after.as_ref())?;
            }
        }
        if !more {
            out.out.flush()?;
        }
        Ok(())
    })
}
