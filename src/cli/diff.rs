//! `diff`: what a reload would change, asked of the running appliance or of two files.

use super::args::DiffArgs;
use super::check::counted;
use super::output::{Failure, Output, Result};
use crate::control::render::{FlowLine, Show};
use crate::control::{Client, DiffReport, Request};
use crate::dataplane::clock::unix_time;
use crate::policy::{self, Became, Change, Checked, difference};
use serde_json::json;
use std::path::Path;

pub(super) fn diff(args: &DiffArgs, socket: &Path, out: &mut Output<'_>) -> Result {
    if let Some(old) = &args.config {
        return files(old, &args.policy, out);
    }
    // The appliance has a working directory of its own.
    let path = std::path::absolute(&args.policy)?;
    let report: DiffReport = Client::connect(socket)?.one(&Request::Diff { path })?;
    if out.is_json() {
        return out.json(&report);
    }
    if !report.warnings_text.is_empty() {
        writeln!(out.err, "{}", report.warnings_text.trim_end())?;
    }
    changes(&report.changes, out)?;
    let ending = counted(report.flows_ending as usize, "flow");
    let unsure = counted(report.flows_unsure as usize, "other");
    writeln!(
        out.out,
        "{ending} would not be let begin; of {unsure} that cannot be told"
    )?;
    let show = Show::Listed(unix_time() as u64);
    for flow in &report.flows {
        let line = FlowLine { flow, show };
        writeln!(out.out, "  {line}")?;
    }
    let more = report
        .flows_ending
        .saturating_sub(report.flows.len() as u64);
    if more > 0 {
        writeln!(out.out, "  and {more} more")?;
    }
    for difference in &report.restart_needed {
        writeln!(out.out, "takes effect only after a restart: {difference}")?;
    }
    Ok(())
}

/// Compares two files; there are no flows then.
fn files(old: &Path, new: &Path, out: &mut Output<'_>) -> Result {
    let (old, new) = (load(old, out)?, load(new, out)?);
    let found = difference(&old.model, &new.model);
    if out.is_json() {
        return out.json(&json!({ "changes": found }));
    }
    changes(&found, out)
}

fn load(path: &Path, out: &mut Output<'_>) -> Result<Checked> {
    match policy::load(path) {
        Ok(checked) => Ok(checked),
        Err(errors) => {
            let text = errors.to_string();
            writeln!(out.err, "{}", text.trim_end())?;
            Err(Failure::Told)
        }
    }
}

fn changes(changes: &[Change], out: &mut Output<'_>) -> Result {
    for Change {
        became,
        rule,
        before,
        after,
    } in changes
    {
        let (sign, word) = match became {
            Became::Added => ('+', "added"),
            Became::Removed => ('-', "removed"),
            Became::Changed => ('~', "changed"),
            Became::Moved => ('>', "moved"),
        };
        writeln!(out.out, "{sign} {rule} {word}")?;
        for (sign, written) in [('-', before), ('+', after)] {
            if let Some(written) = written {
                writeln!(out.out, "    {sign} {written}")?;
            }
        }
    }
    let count = counted(changes.len(), "rule");
    let differ = if changes.len() == 1 {
        "differs"
    } else {
        "differ"
    };
    writeln!(out.out, "{count} {differ}")?;
    Ok(())
}
