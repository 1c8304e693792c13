//! `conntrack -E` and `expect -E`: events as conntrack(8) 1.4.7 prints them, as they come, until interrupted.
//!
//! Concurrency: a thread waits for SIGINT and SIGTERM and shuts the connection down, which ends the
//! reading like a stop of the appliance does.

use super::args::ConntrackOutput;
use super::conntrack::{FlowLine, Show, program};
use super::expect::ExpectLine;
use super::output::{Output, Result};
use crate::conntrack::event::Kind;
use crate::control::Client;
use crate::control::protocol::{Change, EventRecord, Shown, Watch, Watched};
use serde_json::json;
use std::fmt;
use std::net::Shutdown;
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};

/// An event as one line of `conntrack -E` or `conntrack -E expect`, without the newline.
#[derive(Clone, Copy, Debug)]
pub struct EventLine<'a> {
    /// The event.
    pub event: &'a EventRecord,
    /// With the address family in front (`-o extended`).
    pub extended: bool,
    /// With the time in front (`-o timestamp`).
    pub timestamp: bool,
}

impl fmt::Display for EventLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = self.event;
        if self.timestamp {
            let (secs, micros) = (event.time_us / 1_000_000, event.time_us % 1_000_000);
            write!(f, "[{secs}.{micros:06}]\t")?;
        }
        let (word, show) = match event.event {
            Kind::New | Kind::Expected => {
                let (state, mark) = (true, false);
                ("[NEW]", Show::Event { state, mark })
            }
            Kind::Update => {
                let changed = |what| event.changed.contains(&what);
                let (state, mark) = (changed(Change::State), changed(Change::Mark));
                ("[UPDATE]", Show::Event { state, mark })
            }
            Kind::Destroy | Kind::Unexpected => ("[DESTROY]", Show::End),
        };
        write!(f, "{word:>9} ")?;
        match &event.subject {
            Shown::Flow(flow) => {
                let line = FlowLine {
                    flow,
                    extended: self.extended,
                    show,
                };
                line.fmt(f)
            }
            Shown::Expectation(it) => ExpectLine(it).fmt(f),
        }
    }
}

/// What is printed, and how.
pub(super) struct Events<'a> {
    /// What they are about.
    pub(super) noun: &'a str,
    pub(super) watch: Watch,
    /// Which of those that the watch brings.
    pub(super) wanted: &'a dyn Fn(&Shown) -> bool,
    pub(super) output: &'a [ConntrackOutput],
    pub(super) json: bool,
}

/// Prints events.
pub(super) fn execute(events: Events<'_>, client: &mut Client, out: &mut Output<'_>) -> Result {
    let Events {
        noun,
        watch,
        wanted,
        output,
        json,
    } = events;
    let extended = output.contains(&ConntrackOutput::Extended);
    let timestamp = output.contains(&ConntrackOutput::Timestamp);
    interrupt(client.interrupter()?)?;
    let (mut shown, mut lost) = (0u64, 0u64);
    let mut failed = None;
    let mut print = |told: Watched, more: bool| -> Result {
        match &told {
            Watched::Event(event) if !wanted(&event.subject) => {}
            Watched::Event(event) => {
                shown += 1;
                if json {
                    writeln!(out.out, "{}", serde_json::to_string(event)?)?;
                } else {
                    let line = EventLine {
                        event,
                        extended,
                        timestamp,
                    };
                    writeln!(out.out, "{line}")?;
                }
            }
            Watched::Lost(count) => {
                if json {
                    writeln!(out.out, "{}", json!({ "lost": count }))?;
                } else if lost == 0 {
                    out.out.flush()?;
                    let text =
                        "WARNING: events are being lost: they come faster than they are read";
                    writeln!(out.err, "{text}")?;
                }
                lost += count;
            }
        }
        if !more {
            out.out.flush()?;
        }
        Ok(())
    };
    client.watch(watch, |told, more| match print(told, more) {
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
        let program = program();
        writeln!(out.err, "{program}: {shown} {noun} events have been shown.")?;
        if lost > 0 {
            writeln!(out.err, "{program}: {lost} {noun} events have been lost.")?;
        }
    }
    Ok(())
}

/// Ends `connection` at SIGINT or SIGTERM.
pub(super) fn interrupt(connection: UnixStream) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        )
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        let _ = connection.shutdown(Shutdown::Both);
    });
    Ok(())
}
