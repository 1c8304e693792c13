//! `expect`: expectations as conntrack(8) 1.4.7 prints those of its table `expect`.

use super::args::{ExpectArgs, ExpectOutput};
use super::conntrack::{Rows, counted, program};
use super::events::{self, Events};
use super::output::{Failure, Output, Result};
use crate::conntrack::event::Kind;
use crate::conntrack::record::ExpectRecord;
use crate::control::filter::ExpectFilter;
use crate::control::protocol::{Filter, Shown, Watch};
use crate::control::render::{Form, Printer, Style};
use crate::control::snapshot::ConntrackRow;
use crate::control::{Client, Request};
use crate::dataplane::clock::unix_time;
use serde_json::json;
use std::ops::ControlFlow;
use std::path::Path;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    List,
    Get,
    Delete,
    Event,
    Flush,
    Count,
    Stats,
}

/// Does what the flags say.
pub(super) fn execute(args: &ExpectArgs, socket: &Path, out: &mut Output<'_>) -> Result {
    let mut client = Client::connect(socket)?;
    let has = |output| args.output.contains(&output);
    let style = Style {
        form: if has(ExpectOutput::Xml) {
            Form::Xml
        } else {
            Form::Line
        },
        timestamp: has(ExpectOutput::Timestamp),
        ..Style::default()
    };
    let json = has(ExpectOutput::Json);
    let all = [
        (args.dump, Action::List),
        (args.get, Action::Get),
        (args.delete, Action::Delete),
        (args.event, Action::Event),
        (args.flush, Action::Flush),
        (args.count, Action::Count),
    ];
    let action = all.into_iter().find(|(given, _)| *given);
    let action = action.map_or(Action::Stats, |(_, action)| action);
    act(action, args.filter(), (style, json), &mut client, out)
}

/// Does `action` with the expectations that `filter` means.
pub(super) fn act(
    action: Action,
    filter: ExpectFilter,
    (style, json): (Style, bool),
    client: &mut Client,
    out: &mut Output<'_>,
) -> Result {
    let json = json || out.is_json();
    let (request, done) = match action {
        Action::Count => {
            let count = client.count(&Request::ExpectCount {})?;
            return counted(count, json, out);
        }
        Action::Flush => {
            let count = client.count(&Request::ExpectFlush {})?;
            if json {
                return out.json(&json!({ "flushed": count }));
            }
            let program = program();
            writeln!(out.err, "{program}: expectation table has been emptied.")?;
            return Ok(());
        }
        Action::Stats => return stats(client, json, out),
        Action::Event => {
            let wanted = |shown: &Shown| match shown {
                Shown::Expectation(it) => filter.matches(it),
                Shown::Flow(_) => false,
            };
            let events = Events {
                noun: "expectation",
                element: "expect",
                watch: Watch {
                    kinds: vec![Kind::Expected, Kind::Unexpected],
                    filter: Filter {
                        family: filter.family,
                        proto: filter.proto,
                        ..Filter::default()
                    },
                },
                wanted: &wanted,
                style,
                json,
            };
            return events::execute(events, client, out);
        }
        Action::Delete => (Request::ExpectDelete(filter), "deleted"),
        Action::List | Action::Get => (Request::ExpectList(filter), "shown"),
    };
    let printer = Printer::new(style);
    let document = style.form == Form::Xml && !json && action != Action::Delete;
    let mut rows = Rows::new(json, document.then_some("expect"), out);
    client.rows(&request, |it: ExpectRecord| {
        let now = (unix_time() * 1e6) as u64;
        let printed = rows.add(&it, |line| printer.expectation(line, &it, now));
        match action {
            Action::Get => ControlFlow::Break(()),
            _ => printed,
        }
    })?;
    let count = rows.end(true)?;
    if !json {
        let program = program();
        writeln!(out.err, "{program}: {count} expectations have been {done}.")?;
    }
    match action {
        Action::Get | Action::Delete if count == 0 => Err(Failure::Told),
        _ => Ok(()),
    }
}

/// What helpers made, as `conntrack -S expect` prints it of each processor.
fn stats(client: &mut Client, json: bool, out: &mut Output<'_>) -> Result {
    let rows: Vec<ConntrackRow> = client.all(&Request::ConntrackStats {})?;
    if json {
        return out.json(&rows);
    }
    for row in rows {
        writeln!(
            out.out,
            "cpu={:<4}\texpect_new={} expect_create={} expect_delete={} ",
            row.worker, row.expect_new, row.expect_create, row.expect_delete
        )?;
    }
    Ok(())
}
