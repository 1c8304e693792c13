//! Commands that ask the running appliance and print its answer.

use super::args::ReloadArgs;
use super::check::counted;
use super::output::{Output, Result};
use super::table::Side::{Left, Right};
use super::table::{Side, print};
use crate::control::snapshot::{HelperRow, RuleRow, Stats};
use crate::control::{Client, ReloadReport, Request};
use crate::dataplane::clock::unix_time;
use crate::policy::ReloadMode;
use std::collections::BTreeMap;
use std::path::Path;

/// `reload`.
pub(super) fn reload(args: &ReloadArgs, socket: &Path, out: &mut Output<'_>) -> Result {
    // The appliance has a working directory of its own.
    let path = args
        .policy
        .as_deref()
        .map(std::path::absolute)
        .transpose()?;
    let report: ReloadReport = Client::connect(socket)?.one(&Request::Reload {
        path,
        mode: args.flows.map(Into::into),
    })?;
    if out.is_json() {
        return out.json(&report);
    }
    if !report.warnings_text.is_empty() {
        writeln!(out.err, "{}", report.warnings_text.trim_end())?;
    }
    for difference in &report.restart_needed {
        writeln!(out.err, "takes effect only after a restart: {difference}")?;
    }
    let rules = counted(report.rules, "rule");
    let generation = report.generation;
    write!(out.out, "policy reloaded: {rules}, generation {generation}")?;
    match report.mode {
        ReloadMode::Keep => writeln!(out.out)?,
        ReloadMode::Rematch => writeln!(out.out, "; flows are judged at their next packets")?,
        ReloadMode::FlushAffected => {
            let flows = counted(report.flows_ended as usize, "flow");
            writeln!(out.out, "; {flows} ended")?;
        }
    }
    Ok(())
}

/// `stats`.
pub(super) fn stats(socket: &Path, out: &mut Output<'_>) -> Result {
    let stats: Stats = Client::connect(socket)?.one(&Request::Stats {})?;
    if out.is_json() {
        return out.json(&stats);
    }
    let reload = &stats.reload;
    let age = span((unix_time() - reload.last_success).max(0.0) as u64);
    let failed = if reload.successful {
        ""
    } else {
        "; the last reload failed"
    };
    let generation = stats.generation;
    writeln!(
        out.out,
        "shardwall {}, up {}",
        stats.version,
        span(stats.uptime)
    )?;
    writeln!(
        out.out,
        "policy generation {generation}, in force for {age}{failed}"
    )?;
    let (packets, ct) = (&stats.packets, &stats.conntrack);
    let share = 100.0 * ct.entries as f64 / f64::from(ct.limit.max(1));
    writeln!(
        out.out,
        "{} of {} flows ({share:.1}%), {} of {} expectations\n",
        ct.entries, ct.limit, ct.expectations, ct.expect_limit
    )?;
    let rows = [
        ("received", packets.received, "packets taken from ports"),
        ("forwarded", packets.forwarded, "packets handed to ports"),
        ("dropped", packets.dropped, "see `shardwall drops`"),
        ("punted", packets.punted, "packets given to the host"),
        ("held", packets.held, "fragments that wait for the rest"),
        ("generated", packets.generated, "answers of reject"),
        (
            "reassembled",
            packets.reassembled,
            "datagrams put together from fragments",
        ),
        (
            "reassembly_failed",
            packets.reassembly_failed,
            "datagrams that never became whole",
        ),
        ("found", ct.found, "lookups that found a flow"),
        ("new", ct.new, "packets that could start a flow"),
        ("invalid", ct.invalid, "packets judged INVALID"),
        ("insert", ct.insert, "flows entered into the table"),
        (
            "insert_failed",
            ct.insert_failed,
            "flows for which the index had no room",
        ),
        (
            "drop",
            ct.drop,
            "packets dropped because the table was full",
        ),
        (
            "early_drop",
            ct.early_drop,
            "flows that made room for others",
        ),
        ("delete", ct.delete, "flows that ended"),
        (
            "icmp_error",
            ct.icmp_error,
            "ICMP errors that quote no known flow",
        ),
        ("expect_new", ct.expect_new, "flows that a helper expected"),
        (
            "expect_create",
            ct.expect_create,
            "expectations that helpers made",
        ),
        ("expect_delete", ct.expect_delete, "expectations that ended"),
    ];
    let rows = rows.map(|(name, count, text)| [name.into(), count.to_string(), text.into()]);
    print(
        out.out,
        [("COUNTER", Left), ("COUNT", Right), ("MEANING", Left)],
        &rows,
    )?;
    helpers(&stats.helpers, out)
}

/// Those helpers that were attached to a flow, or expected one.
fn helpers(rows: &[HelperRow], out: &mut Output<'_>) -> Result {
    let used = rows.iter().filter(|row| row.flows + row.used > 0);
    let rows: Vec<_> = used.map(helper).collect();
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(out.out)?;
    let columns = [
        ("HELPER", Left),
        ("FLOWS", Right),
        ("PARSED", Right),
        ("EXPECTED", Right),
        ("USED", Right),
        ("EXPIRED", Right),
        ("WITHDRAWN", Right),
        ("REFUSED", Left),
    ];
    print(out.out, columns, &rows)?;
    Ok(())
}

fn helper(row: &HelperRow) -> [String; 8] {
    let refused = reasons(&row.refused);
    let counts = [
        row.flows,
        row.parsed,
        row.expected,
        row.used,
        row.expired,
        row.withdrawn,
    ];
    let [flows, parsed, expected, used, expired, withdrawn] = counts.map(|count| count.to_string());
    let name = row.helper.clone();
    [
        name, flows, parsed, expected, used, expired, withdrawn, refused,
    ]
}

/// Those reasons that were counted, in one cell.
pub(super) fn reasons(counts: &BTreeMap<String, u64>) -> String {
    let counted = counts.iter().filter(|(_, count)| **count > 0);
    let words: Vec<_> = counted
        .map(|(why, count)| format!("{why} {count}"))
        .collect();
    match words.is_empty() {
        true => "-".into(),
        false => words.join(", "),
    }
}

/// `rules`.
pub(super) fn rules(socket: &Path, out: &mut Output<'_>) -> Result {
    let rows: Vec<RuleRow> = Client::connect(socket)?.all(&Request::Rules {})?;
    let columns = [
        ("CHAIN", Left),
        ("RULE", Left),
        ("PACKETS", Right),
        ("BYTES", Right),
        ("ACTION", Left),
    ];
    show(out, rows, columns, |row| {
        [
            row.chain.clone(),
            row.rule.clone(),
            row.packets.to_string(),
            row.bytes.to_string(),
            row.action.clone(),
        ]
    })
}

pub(super) fn show<T: serde::Serialize, const N: usize>(
    out: &mut Output<'_>,
    rows: Vec<T>,
    columns: [(&str, Side); N],
    cells: impl Fn(&T) -> [String; N],
) -> Result {
    if out.is_json() {
        return out.json(&rows);
    }
    let rows: Vec<_> = rows.iter().map(cells).collect();
    print(out.out, columns, &rows)?;
    Ok(())
}

/// A length of time in its two largest units.
pub(super) fn span(seconds: u64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let first = units
        .iter()
        .position(|(unit, _)| seconds >= *unit)
        .unwrap_or(3);
    let mut rest = seconds;
    let words = units[first..].iter().take(2).map(|(unit, name)| {
        let count = rest / unit;
        rest %= unit;
        format!("{count}{name}")
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::span;

    #[test]
    fn a_length_of_time_has_two_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m 0s"),
            (3725, "1h 2m"),
            (90_000, "1d 1h"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }
}
