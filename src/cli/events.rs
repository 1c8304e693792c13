//! `conntrack -E` and `expect -E`: events as conntrack(8) 1.4.7 prints them, as they come, until interrupted.
//!
//! Concurrency: a thread waits for SIGINT and SIGTERM and shuts the connection down, which ends the
//! reading like a stop of the appliance does.

use super::conntrack::{XML, program};
use super::output::{Output, Result};
use crate::control::Client;
use crate::control::protocol::{Shown, Watch, Watched};
use crate::control::render::{Form, Printer, Style};
use serde_json::json;
use std::net::Shutdown;
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};

/// What is printed, and how.
pub(super) struct Events<'a> {
    /// What they are about.
    pub(super) noun: &'a str,
    /// What the element of an XML document is called.
    pub(super) element: &'a str,
    pub(super) watch: Watch,
    /// Which of those that the watch brings.
    pub(super) wanted: &'a dyn Fn(&Shown) -> bool,
    pub(super) style: Style,
    pub(super) json: bool,
}

/// Prints events.
pub(super) fn execute(events: Events<'_>, client: &mut Client, out: &mut Output<'_>) -> Result {
    let Events {
        noun,
        element,
        watch,
        wanted,
        style,
        json,
    } = events;
    let printer = Printer::new(style);
    let document = style.form == Form::Xml && !json;
    let mut line = Vec::new();
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
                    if document && shown == 1 {
                        writeln!(out.out, "{XML}<{element}>")?;
                    }
                    line.clear();
                    printer.event(&mut line, event);
                    out.out.write_all(&line)?;
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
    if document && shown > 0 {
        writeln!(out.out, "</{element}>")?;
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
