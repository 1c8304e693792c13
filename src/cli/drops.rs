//! `drops`: how many packets were dropped and why, how fast, and the last of each reason.

use super::output::{Output, Result};
use super::table::Side::{Left, Right};
use super::table::print;
use crate::control::drops::{DropRow, LastDrop};
use crate::control::{Client, Request};
use crate::dataplane::clock::unix_time;
use std::path::Path;

/// Prints them.
pub(super) fn execute(socket: &Path, out: &mut Output<'_>) -> Result {
    let rows: Vec<DropRow> = Client::connect(socket)?.all(&Request::Drops {})?;
    if out.is_json() {
        return out.json(&rows);
    }
    let columns = [
        ("REASON", Left),
        ("COUNT", Right),
        ("PER SECOND", Right),
        ("MEANING", Left),
    ];
    let cells = rows.iter().map(|row| {
        [
            row.reason.clone(),
            row.count.to_string(),
            format!("{:.1}", row.per_second),
            row.meaning.clone(),
        ]
    });
    print(out.out, columns, &cells.collect::<Vec<_>>())?;
    let now = (unix_time() * 1e9) as u64;
    let lasts = rows.iter().filter_map(|row| {
        let last = row.last.as_ref()?;
        Some(shown(&row.reason, last, now))
    });
    let lasts: Vec<_> = lasts.collect();
    if lasts.is_empty() {
        return Ok(());
    }
    writeln!(out.out)?;
    let columns = [
        ("LAST OF", Left),
        ("AGO", Right),
        ("PORT", Left),
        ("PACKET", Left),
        ("STATE", Left),
        ("BY", Left),
    ];
    print(out.out, columns, &lasts)?;
    Ok(())
}

fn shown(reason: &str, last: &LastDrop, now: u64) -> [String; 6] {
    let ago = now.saturating_sub(last.time_ns) as f64 / 1e9;
    let way = if last.leaving { "to " } else { "" };
    let state = match (&last.state, &last.invalid) {
        (Some(state), Some(why)) => format!("{state} ({why})"),
        (Some(state), None) => state.clone(),
        (None, _) => "-".into(),
    };
    [
        reason.into(),
        format!("{ago:.1}s"),
        format!("{way}{}", last.port),
        last.packet.clone(),
        state,
        last.rule.clone().unwrap_or_else(|| "-".into()),
    ]
}
