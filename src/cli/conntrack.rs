//! `conntrack`: conntrack(8) 1.4.7 for the flows of the appliance, with its options, its output and its
//! exit codes.
//!
//! The appliance chooses the flows and writes the lines; here they are only copied. What depends on who
//! asks (JSON, dates by the local time) comes as records and is written here.

mod asked;
mod words;

use super::args::{Args, ConntrackArgs};
use super::events::{self, Events};
use super::expect;
use super::output::{Failure, Output, Result};
use crate::conntrack::record::FlowRecord;
use crate::control::protocol::{Listing, Shown, Watch};
use crate::control::render::{Form, Printer, Show};
use crate::control::snapshot::{ConntrackRow, VERSION};
use crate::control::{Client, Request};
use crate::dataplane::clock::unix_time;
use asked::{Asked, Command, Table};
use clap::CommandFactory;
use serde::Serialize;
use serde_json::json;
use std::ops::ControlFlow;
use std::path::Path;

/// What begins a document of XML that is about flows or expectations.
pub(super) const XML: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n";

/// Why a command line is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The exit code.
    code: u8,
    text: String,
}

impl Refusal {
    /// It makes no sense.
    fn usage(text: impl Into<String>) -> Self {
        let (code, text) = (2, text.into());
        Self { code, text }
    }

    /// It makes sense, but for what it asks for.
    fn failure(text: impl Into<String>) -> Self {
        let (code, text) = (1, text.into());
        Self { code, text }
    }
}

impl From<Refusal> for Failure {
    fn from(Refusal { code, text }: Refusal) -> Self {
        let hint = "try `shardwall conntrack --help' for more information";
        match code {
            2 => Self::Refused(2, format!("{text}\n{hint}")),
            code => Self::Refused(code, text),
        }
    }
}

/// Does what the options say.
pub(super) fn execute(args: &ConntrackArgs, socket: &Path, out: &mut Output<'_>) -> Result {
    let Some(mut asked) = asked::read(args)? else {
        let mut command = Args::command();
        let help = command.find_subcommand_mut("conntrack");
        let help = help.map(|it| it.render_help().to_string());
        return Ok(write!(out.out, "{}", help.unwrap_or_default())?);
    };
    asked.json |= out.is_json();
    if asked.table == Table::Nothing {
        Rows::new(asked.json, None, out).end(true)?;
        return finish(asked.command, asked.json, 0, out);
    }
    let mut client = Client::connect(socket)?;
    if asked.table == Table::Expectations {
        return expectations(&asked, &mut client, out);
    }
    match asked.command {
        Command::List | Command::Get | Command::Delete => flows(asked, &mut client, out),
        Command::Event => {
            let events = Events {
                noun: "flow",
                element: "conntrack",
                watch: Watch {
                    kinds: asked.kinds,
                    filter: asked.filter,
                },
                wanted: &|shown| matches!(shown, Shown::Flow(_)),
                style: asked.style,
                json: asked.json,
            };
            events::execute(events, &mut client, out)
        }
        Command::Flush => flush(asked, &mut client, out),
        Command::Count => {
            let count = client.count(&Request::ConntrackCount {})?;
            counted(count, asked.json, out)
        }
        Command::Stats => stats(&mut client, asked.json, out),
    }
}

/// The table of expectations, by conntrack(8)'s options.
fn expectations(asked: &Asked, client: &mut Client, out: &mut Output<'_>) -> Result {
    let what = match asked.command {
        Command::List => expect::Action::List,
        Command::Get => expect::Action::Get,
        Command::Delete => expect::Action::Delete,
        Command::Event => expect::Action::Event,
        Command::Flush => expect::Action::Flush,
        Command::Count => expect::Action::Count,
        Command::Stats => expect::Action::Stats,
    };
    expect::act(
        what,
        asked.expectations(),
        (asked.style, asked.json),
        client,
        out,
    )
}

/// Lists flows, shows one, or ends some.
fn flows(asked: Asked, client: &mut Client, out: &mut Output<'_>) -> Result {
    let Asked {
        command,
        filter,
        mut style,
        json,
        ..
    } = asked;
    if command == Command::Delete {
        // There the program does not print them.
        (style.ktimestamp, style.timestamp) = (false, false);
    }
    let local = style.ktimestamp && style.form == Form::Line;
    let print = (!json && !local).then_some(style);
    let listing = Listing { filter, print };
    let now = unix_time() as u64;
    let (request, show) = match command {
        Command::Get => (Request::ConntrackGet(listing), Show::Got(now)),
        Command::Delete => (Request::ConntrackDelete(listing), Show::Deleted(now)),
        _ => (Request::ConntrackList(listing), Show::Listed(now)),
    };
    // A document; not of what was deleted, as the program has it.
    let document = style.form == Form::Xml && !json && command != Command::Delete;
    let mut rows = Rows::new(json, document.then_some("conntrack"), out);
    let count = match print {
        Some(_) => {
            let done = client.text(&request, |piece| rows.text(piece))?;
            done.map_or(0, |done| done.count)
        }
        None => {
            let printer = Printer::new(style);
            client.rows(&request, |flow: FlowRecord| {
                rows.add(&flow, |line| printer.flow(line, &flow, show))
            })?;
            rows.count
        }
    };
    // Nor is that of one flow closed.
    rows.end(command == Command::List)?;
    finish(command, json, count, out)
}

/// The last word, and whether it was in vain.
fn finish(command: Command, json: bool, count: u64, out: &mut Output<'_>) -> Result {
    if !json {
        let done = match command {
            Command::Delete => "deleted",
            _ => "shown",
        };
        let program = program();
        writeln!(out.err, "{program}: {count} flow entries have been {done}.")?;
    }
    match command {
        Command::Get | Command::Delete if count == 0 => Err(Failure::Told),
        _ => Ok(()),
    }
}

/// Ends all flows, or those of a family.
fn flush(asked: Asked, client: &mut Client, out: &mut Output<'_>) -> Result {
    let request = match asked.filter.family {
        None => Request::ConntrackFlush {},
        Some(_) => Request::ConntrackDelete(Listing {
            filter: asked.filter,
            print: Some(asked.style),
        }),
    };
    let done = client.text(&request, |_| ControlFlow::Continue(()))?;
    if asked.json {
        let count = done.map_or(0, |done| done.count);
        return out.json(&json!({ "flushed": count }));
    }
    let program = program();
    writeln!(
        out.err,
        "{program}: connection tracking table has been emptied."
    )?;
    Ok(())
}

/// Prints a number.
pub(super) fn counted(count: u64, json: bool, out: &mut Output<'_>) -> Result {
    if json {
        return out.json(&json!({ "count": count }));
    }
    writeln!(out.out, "{count}")?;
    Ok(())
}

/// Each worker's counters, where conntrack(8) prints each processor's. Nothing is ever searched
/// twice here, no insertion clashes with another, and no chain is too long.
fn stats(client: &mut Client, json: bool, out: &mut Output<'_>) -> Result {
    let rows: Vec<ConntrackRow> = client.all(&Request::ConntrackStats {})?;
    if json {
        return out.json(&rows);
    }
    for row in rows {
        writeln!(
            out.out,
            "cpu={:<4}\tfound={} invalid={} insert={} insert_failed={} drop={} early_drop={} error={} \
             search_restart=0 clash_resolve=0 chaintoolong=0 ",
            row.worker,
            row.found,
            row.invalid,
            row.insert,
            row.insert_failed,
            row.drop,
            row.early_drop,
            row.error,
        )?;
    }
    Ok(())
}

/// What stands where conntrack(8) names itself.
pub(super) fn program() -> String {
    format!("shardwall v{VERSION} (shardwall)")
}

/// Rows as they come, for the table may be large: lines, or the elements of a JSON array, or of an XML
/// document.
pub(super) struct Rows<'a, 'b> {
    out: &'a mut Output<'b>,
    json: bool,
    /// What the document's element is called, if it is one.
    element: Option<&'static str>,
    begun: bool,
    line: Vec<u8>,
    count: u64,
    failed: Option<Failure>,
}

impl<'a, 'b> Rows<'a, 'b> {
    pub(super) fn new(json: bool, element: Option<&'static str>, out: &'a mut Output<'b>) -> Self {
        Self {
            out,
            json,
            element,
            begun: false,
            line: Vec::new(),
            count: 0,
            failed: None,
        }
    }

    /// Prints `row`, of which `write` writes the line. Breaks once it cannot.
    pub(super) fn add(
        &mut self,
        row: &impl Serialize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> ControlFlow<()> {
        let printed = match self.json {
            true => self.json(row),
            false => {
                let mut line = std::mem::take(&mut self.line);
                line.clear();
                write(&mut line);
                let printed = self.print(&line);
                self.line = line;
                printed
            }
        };
        self.count += 1;
        self.on(printed)
    }

    /// Prints a piece of finished text, likewise.
    pub(super) fn text(&mut self, piece: &[u8]) -> ControlFlow<()> {
        let printed = self.print(piece);
        self.on(printed)
    }

    fn on(&mut self, printed: Result) -> ControlFlow<()> {
        match printed {
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => {
                self.failed = Some(failure);
                ControlFlow::Break(())
            }
        }
    }

    fn json(&mut self, row: &impl Serialize) -> Result {
        let start = if self.begun { "," } else { "[" };
        self.begun = true;
        write!(self.out.out, "{start}\n  ")?;
        serde_json::to_writer(&mut *self.out.out, row)?;
        Ok(())
    }

    fn print(&mut self, text: &[u8]) -> Result {
        if !self.begun
            && let Some(element) = self.element
        {
            writeln!(self.out.out, "{XML}<{element}>")?;
        }
        self.begun = true;
        Ok(self.out.out.write_all(text)?)
    }

    /// Ends the output, a document with its last tag if that is wanted; how many rows there were.
    pub(super) fn end(self, close: bool) -> Result<u64> {
        if let Some(failure) = self.failed {
            return Err(failure);
        }
        match (self.json, self.begun, self.element) {
            (true, true, _) => writeln!(self.out.out, "\n]")?,
            (true, false, _) => writeln!(self.out.out, "[]")?,
            (false, true, Some(element)) if close => writeln!(self.out.out, "</{element}>")?,
            _ => {}
        }
        // Rows and what is said of them meet on a terminal: rows first.
        self.out.out.flush()?;
        Ok(self.count)
    }
}
