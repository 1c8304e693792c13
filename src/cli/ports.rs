//! `ports`, `ports rebalance` and `workers`: who brings packets, who judges them, and how evenly.

use super::args::{PortsAction, PortsArgs, RebalanceArgs};
use super::check::counted;
use super::output::{Output, Result};
use super::remote::{reasons, show};
use super::table::Side::{Left, Right};
use super::table::print;
use crate::control::rebalance::{MoveRow, RebalanceReport};
use crate::control::snapshot::{PortRow, WorkerRow};
use crate::control::{Client, Request};
use std::path::Path;

/// `ports`.
pub(super) fn execute(args: &PortsArgs, socket: &Path, out: &mut Output<'_>) -> Result {
    match &args.action {
        Some(PortsAction::Rebalance(args)) => rebalance(args, socket, out),
        None => ports(args.xstats, socket, out),
    }
}

fn ports(xstats: bool, socket: &Path, out: &mut Output<'_>) -> Result {
    let rows: Vec<PortRow> = Client::connect(socket)?.all(&Request::Ports { xstats })?;
    if out.is_json() {
        return out.json(&rows);
    }
    if xstats {
        let counters = rows.iter().flat_map(|row| {
            let cells = |(name, count): (&String, &u64)| {
                [row.port.name.clone(), name.clone(), count.to_string()]
            };
            row.xstats.iter().map(cells)
        });
        let counters: Vec<_> = counters.collect();
        let columns = [("PORT", Left), ("COUNTER", Left), ("COUNT", Right)];
        print(out.out, columns, &counters)?;
        return Ok(());
    }
    let columns = [
        ("PORT", Left),
        ("DEVICE", Left),
        ("DRIVER", Left),
        ("MAC", Left),
        ("LINK", Left),
        ("QUEUES", Right),
        ("RX-PACKETS", Right),
        ("RX-BYTES", Right),
        ("TX-PACKETS", Right),
        ("TX-BYTES", Right),
        ("MISSED", Right),
        ("RX-ERRORS", Right),
        ("NO-BUFFER", Right),
        ("TX-ERRORS", Right),
    ];
    let word = |word: &str| if word.is_empty() { "-" } else { word }.to_owned();
    let cells = |row: &PortRow| {
        let (port, nic) = (&row.port, &row.nic);
        [
            port.name.clone(),
            port.device.clone(),
            word(&port.driver),
            word(&port.mac),
            word(&port.link),
            format!("{}/{}", port.rx_queues, port.tx_queues),
            row.rx_packets.to_string(),
            row.rx_bytes.to_string(),
            row.tx_packets.to_string(),
            row.tx_bytes.to_string(),
            nic.missed.to_string(),
            nic.rx_errors.to_string(),
            nic.no_buffer.to_string(),
            nic.tx_errors.to_string(),
        ]
    };
    print(
        out.out,
        columns,
        &rows.iter().map(cells).collect::<Vec<_>>(),
    )?;
    writeln!(out.out)?;
    let columns = [
        ("PORT", Left),
        ("MTU", Right),
        ("PROMISCUOUS", Left),
        ("LINK-CHANGES", Right),
        ("HASH-USED", Right),
        ("HASH-WRONG", Right),
        ("RSS", Left),
    ];
    let cells = |row: &PortRow| {
        let port = &row.port;
        let promiscuous = if port.promiscuous { "yes" } else { "no" };
        [
            port.name.clone(),
            port.mtu.to_string(),
            promiscuous.to_owned(),
            row.link_changes.to_string(),
            row.hash_used.to_string(),
            row.hash_wrong.to_string(),
            word(&port.rss),
        ]
    };
    print(
        out.out,
        columns,
        &rows.iter().map(cells).collect::<Vec<_>>(),
    )?;
    Ok(())
}

/// `workers`.
pub(super) fn workers(socket: &Path, out: &mut Output<'_>) -> Result {
    let rows: Vec<WorkerRow> = Client::connect(socket)?.all(&Request::Workers {})?;
    let columns = [
        ("WORKER", Right),
        ("FLOWS", Right),
        ("RECEIVED", Right),
        ("SHARE", Right),
        ("BUCKETS", Right),
        ("BUSIEST", Right),
        ("HANDED-OUT", Right),
        ("HANDED-IN", Right),
        ("LOST", Right),
        ("BUSY", Right),
        ("LOOPS", Right),
        ("LOOP-P99", Right),
        ("LONGEST", Right),
        ("LOG-LOST", Right),
        ("HANDED-BECAUSE", Left),
    ];
    let all: u64 = rows.iter().map(|row| row.owned).sum();
    // With one worker nothing is counted by bucket.
    let share = |part: u64, of: u64| match of {
        0 => "-".to_owned(),
        of => format!("{:.1}%", 100.0 * part as f64 / of as f64),
    };
    show(out, rows, columns, |row| {
        let whole = row.busy_seconds + row.idle_seconds;
        let busy = 100.0 * row.busy_seconds / whole.max(f64::MIN_POSITIVE);
        let busiest = match row.owned {
            0 => "-".to_owned(),
            owned => format!("{}: {}", row.busiest, share(row.busiest_packets, owned)),
        };
        [
            row.worker.to_string(),
            row.flows.to_string(),
            row.received.to_string(),
            share(row.owned, all),
            row.buckets.to_string(),
            busiest,
            row.handed_out.to_string(),
            row.handed_in.to_string(),
            row.handed_lost.to_string(),
            format!("{busy:.1}%"),
            row.loops.to_string(),
            format!("{:.1}us", row.loop_p99_seconds * 1e6),
            format!("{:.1}us", row.loop_longest_seconds * 1e6),
            row.log_lost.to_string(),
            reasons(&row.handed_why),
        ]
    })
}

/// `ports rebalance`.
fn rebalance(args: &RebalanceArgs, socket: &Path, out: &mut Output<'_>) -> Result {
    let dry_run = args.dry_run;
    let report: RebalanceReport = Client::connect(socket)?.one(&Request::Rebalance { dry_run })?;
    if out.is_json() {
        return out.json(&report);
    }
    let percent = |share: f64| format!("{:.1}%", share * 100.0);
    let (packets, seconds) = (report.packets, report.seconds);
    writeln!(out.out, "{packets} packets of flows in {seconds:.1} s\n")?;
    let columns = [
        ("WORKER", Right),
        ("BUCKETS", Right),
        ("SHARE", Right),
        ("THEN", Right),
        ("BUSIEST", Right),
    ];
    let rows = report.workers.iter().map(|row| {
        [
            row.worker.to_string(),
            row.buckets.to_string(),
            percent(row.share),
            percent(row.share_after),
            format!("{}: {}", row.busiest, percent(row.busiest_share)),
        ]
    });
    print(out.out, columns, &rows.collect::<Vec<_>>())?;
    for remark in &report.remarks {
        writeln!(out.out, "\n{remark}")?;
    }
    let buckets = counted(report.moves.len(), "bucket");
    let verb = match (report.moves.is_empty(), report.begun) {
        (true, _) => {
            writeln!(out.out, "\nnothing to move")?;
            ""
        }
        (_, false) => "would move",
        (_, true) => "begun to move",
    };
    if !report.moves.is_empty() {
        writeln!(
            out.out,
            "\n{buckets} {verb}; {} there already:",
            report.complete
        )?;
        moves(&report.moves, out)?;
    }
    let earlier = report
        .moving
        .iter()
        .filter(|row| !report.moves.contains(row));
    let earlier: Vec<_> = earlier.cloned().collect();
    if !earlier.is_empty() {
        writeln!(
            out.out,
            "\non their way since earlier, until their old flows end:"
        )?;
        moves(&earlier, out)?;
    }
    Ok(())
}

fn moves(rows: &[MoveRow], out: &mut Output<'_>) -> Result {
    let columns = [
        ("BUCKET", Right),
        ("FROM", Right),
        ("TO", Right),
        ("SHARE", Right),
    ];
    let cells = |row: &MoveRow| {
        [
            row.bucket.to_string(),
            row.from.to_string(),
            row.to.to_string(),
            format!("{:.1}%", row.share * 100.0),
        ]
    };
    print(
        out.out,
        columns,
        &rows.iter().map(cells).collect::<Vec<_>>(),
    )?;
    Ok(())
}
