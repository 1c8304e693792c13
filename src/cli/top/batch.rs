//! `top` for programs: what each interval brought, as one JSON object a line, or as text.

use super::columns::{
    Column, DROPS, PORTS, RULES, STATES, Sort, TALKERS, TALKERS_BY_FLOWS, WORKERS, lines, sorted,
};
use super::state::{Rates, State, View};
use crate::cli::args::TopArgs;
use crate::cli::output::{Output, Result};
use crate::cli::remote::span;
use crate::dataplane::clock::Clock;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Rows of a list that may be long, in text.
const ROWS: usize = 10;
/// No line is cut.
const WIDTH: usize = 400;

/// Prints until the count is reached, or somebody ends it.
pub(super) fn execute(args: &TopArgs, socket: &Path, out: &mut Output<'_>) -> Result {
    // What is asked for now is asked for again an interval later.
    let census_secs = State::new(args.interval).census_secs();
    let clock = Clock::start();
    let mut old = super::ask(socket, census_secs)?;
    let mut due = Duration::from_nanos(clock.now().nanos());
    let mut left = args.count;
    while left != Some(0) {
        due += args.interval;
        let now = Duration::from_nanos(clock.now().nanos());
        std::thread::sleep(due.saturating_sub(now));
        let new = super::ask(socket, census_secs)?;
        // An appliance that was started anew begins with an interval of its own.
        if let Some(rates) = Rates::between(&old, &new) {
            print(&rates, out)?;
            out.out.flush()?;
            left = left.map(|left| left - 1);
        }
        old = new;
    }
    Ok(())
}

fn print(rates: &Rates, out: &mut Output<'_>) -> Result {
    if out.is_json() {
        serde_json::to_writer(&mut *out.out, rates)?;
        writeln!(out.out)?;
        return Ok(());
    }
    text(rates, out)?;
    Ok(())
}

/// One interval, for people who keep it in a file.
fn text(rates: &Rates, out: &mut Output<'_>) -> io::Result<()> {
    let (version, up) = (&rates.version, span(rates.uptime));
    let (generation, over) = (rates.generation, rates.seconds);
    writeln!(
        out.out,
        "shardwall {version}, up {up}, policy {generation}, over {over:.2} s"
    )?;
    for line in super::view::totals(rates) {
        writeln!(out.out, "{line}")?;
    }
    let sorts = State::new(Duration::ZERO).sorts;
    let by = |view: View| sorts[view as usize];
    table(out, PORTS, &rates.ports, by(View::Ports), usize::MAX)?;
    table(out, WORKERS, &rates.workers, by(View::Workers), usize::MAX)?;
    table(out, RULES, &rates.rules, by(View::Rules), ROWS)?;
    table(out, DROPS, &rates.drops, by(View::Drops), ROWS)?;
    if let Some(census) = &rates.census {
        let talkers = match census.has_rates() {
            true => TALKERS,
            false => TALKERS_BY_FLOWS,
        };
        writeln!(out.out, "\n{}", super::view::worth(View::Talkers, census))?;
        table(out, talkers, &census.talkers, by(View::Talkers), ROWS)?;
        table(out, STATES, &census.states, by(View::Flows), usize::MAX)?;
    }
    writeln!(out.out)
}

fn table<T>(
    out: &mut Output<'_>,
    columns: &[Column<T>],
    rows: &[T],
    sort: Sort,
    most: usize,
) -> io::Result<()> {
    let rows = sorted(columns, rows, sort);
    let shown = &rows[..rows.len().min(most)];
    writeln!(out.out)?;
    for line in lines(columns, shown, Sort::default(), "", WIDTH) {
        writeln!(out.out, "{line}")?;
    }
    Ok(())
}
