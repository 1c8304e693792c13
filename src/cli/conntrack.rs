//! `conntrack`: flows as conntrack(8) 1.4.7 prints them, byte for byte; and of a flow that a helper
//! expected, which it shows like any other, that it was, and which flow announced it.
//!
//! The golden lines in the tests are what the real program printed for flows of Linux 6.x.

use super::args::{ConntrackArgs, ConntrackOutput};
use super::events::{self, Events};
use super::output::{Failure, Output, Result};
use crate::conntrack::record::{Carried, Detail, Endpoints, FlowRecord};
use crate::conntrack::types::proto;
use crate::control::protocol::{Shown, proto_name};
use crate::control::snapshot::{ConntrackRow, VERSION};
use crate::control::{Client, Request};
use crate::dataplane::clock::unix_time;
use serde::Serialize;
use serde_json::json;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::ControlFlow;
use std::path::Path;

/// A flow as one line of `conntrack -L` or `-E`, without the newline.
#[derive(Clone, Copy, Debug)]
pub struct FlowLine<'a> {
    /// The flow.
    pub flow: &'a FlowRecord,
    /// With the address family in front (`-o extended`).
    pub extended: bool,
    /// What for.
    pub show: Show,
}

/// What conntrack(8) is told of a flow, and prints, depends on why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// In a listing, at a time in seconds since 1970.
    Listed(u64),
    /// In an event about a flow that lives; with what is new of it.
    Event {
        /// The state of TCP or SCTP.
        state: bool,
        /// The mark, which is shown even if it is 0 now.
        mark: bool,
    },
    /// At its end: the timeout only if time was left.
    End,
}

impl fmt::Display for FlowLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (flow, show) = (self.flow, self.show);
        if self.extended {
            let (name, number) = if flow.is_v6() {
                ("ipv6", 10)
            } else {
                ("ipv4", 2)
            };
            write!(f, "{name:<8} {number} ")?;
        }
        let name = proto_name(flow.proto).unwrap_or("unknown");
        write!(f, "{name:<8} {} ", flow.proto)?;
        if show != Show::End || flow.timeout > 0 {
            write!(f, "{} ", flow.timeout)?;
        }
        let tcp = flow.tcp_state.map(|state| state.name());
        let state = tcp.or(flow.sctp_state.map(|state| state.name()));
        if let Some(state) = state
            && !matches!(show, Show::Event { state: false, .. })
        {
            write!(f, "{state} ")?;
        }
        endpoints(f, flow.proto, &flow.original)?;
        if let Some(counters) = &flow.counters {
            carried(f, &counters.original)?;
        }
        if !flow.seen_reply {
            f.write_str(" [UNREPLIED]")?;
        }
        f.write_str(" ")?;
        endpoints(f, flow.proto, &flow.reply)?;
        if let Some(counters) = &flow.counters {
            carried(f, &counters.reply)?;
        }
        if flow.assured {
            f.write_str(" [ASSURED]")?;
        }
        if flow.expected {
            f.write_str(" [EXPECTED]")?;
        }
        let listed = matches!(show, Show::Listed(_));
        let marked = matches!(show, Show::Event { mark: true, .. });
        if listed || marked || flow.mark != 0 {
            write!(f, " mark={}", flow.mark)?;
        }
        if flow.zone != 0 {
            write!(f, " zone={}", flow.zone)?;
        }
        if let Some(age) = age(flow, show) {
            write!(f, " delta-time={age}")?;
        }
        if let Some(helper) = &flow.helper {
            write!(f, " helper={helper}")?;
        }
        if let Some(master) = &flow.master {
            master_of(f, &master.ends)?;
        }
        f.write_str(if listed { " use=1" } else { "" })
    }
}

/// Seconds from start to stop, or to now, counted as conntrack(8) does: each rounded down first.
fn age(flow: &FlowRecord, show: Show) -> Option<u64> {
    let stop = match (show, flow.stop_ms) {
        (_, Some(stop)) => stop / 1000,
        (Show::Listed(now), None) => now,
        _ => return None,
    };
    flow.start_ms.map(|start| stop.saturating_sub(start / 1000))
}

fn endpoints(f: &mut fmt::Formatter<'_>, number: u8, at: &Endpoints) -> fmt::Result {
    write!(f, "src={} dst={}", Address(at.src), Address(at.dst))?;
    match at.detail {
        Detail::Ports { sport, dport } => write!(f, " sport={sport} dport={dport}"),
        Detail::Icmp { ty, code, id } => write!(f, " type={ty} code={code} id={id}"),
        Detail::Gre { srckey, dstkey } => write!(f, " srckey={srckey:#x} dstkey={dstkey:#x}"),
        // Linux has no tracker for it any more, but the program prints what was its ports.
        Detail::None {} if number == proto::DCCP => f.write_str(" sport=0 dport=0"),
        Detail::None {} => Ok(()),
    }
}

/// The flow that announced another, in words that mean nothing else to those who read such lines.
fn master_of(f: &mut fmt::Formatter<'_>, ends: &Endpoints) -> fmt::Result {
    let (src, dst) = (Address(ends.src), Address(ends.dst));
    write!(f, " master-src={src} master-dst={dst}")?;
    match ends.detail {
        Detail::Ports { sport, dport } => {
            write!(f, " master-sport={sport} master-dport={dport}")
        }
        _ => Ok(()),
    }
}

fn carried(f: &mut fmt::Formatter<'_>, carried: &Carried) -> fmt::Result {
    let Carried { packets, bytes } = carried;
    write!(f, " packets={packets} bytes={bytes}")
}

/// An address as inet_ntop(3) writes it: as Rust does, but for `::a.b.c.d`.
pub(super) struct Address(pub(super) IpAddr);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V6(addr) if addr.to_bits() >> 32 == 0 && addr.to_bits() >> 16 != 0 => {
                write!(f, "::{}", Ipv4Addr::from_bits(addr.to_bits() as u32))
            }
            addr => addr.fmt(f),
        }
    }
}

/// Does what the flags say.
pub(super) fn execute(args: &ConntrackArgs, socket: &Path, out: &mut Output<'_>) -> Result {
    let mut client = Client::connect(socket)?;
    let json = out.is_json() || args.output.contains(&ConntrackOutput::Json);
    if args.count {
        let count = client.count(&Request::ConntrackCount {})?;
        if json {
            return out.json(&json!({ "count": count }));
        }
        writeln!(out.out, "{count}")?;
        return Ok(());
    }
    if args.flush {
        let count = client.count(&Request::ConntrackFlush {})?;
        if json {
            return out.json(&json!({ "flushed": count }));
        }
        writeln!(
            out.err,
            "{}: connection tracking table has been emptied.",
            program()
        )?;
        return Ok(());
    }
    if args.event {
        let events = Events {
            noun: "flow",
            watch: args.watch(),
            wanted: &|shown| matches!(shown, Shown::Flow(_)),
            output: &args.output,
            json,
        };
        return events::execute(events, &mut client, out);
    }
    if args.stats {
        return stats(&mut client, json, out);
    }
    let extended = args.output.contains(&ConntrackOutput::Extended);
    let show = Show::Listed(unix_time() as u64);
    let request = Request::ConntrackList(args.filter());
    let mut rows = Rows::new(json, out);
    client.rows(&request, |flow: FlowRecord| {
        let line = FlowLine {
            flow: &flow,
            extended,
            show,
        };
        rows.add(&flow, line)
    })?;
    let shown = rows.end()?;
    if !json {
        writeln!(
            out.err,
            "{}: {shown} flow entries have been shown.",
            program()
        )?;
    }
    Ok(())
}

/// Each worker's counters, where conntrack(8) prints each processor's. Nothing is ever searched
/// twice here, no insertion clashes with another, and no chain is too long. What stands last is what
/// older versions of the program printed of expectations.
fn stats(client: &mut Client, json: bool, out: &mut Output<'_>) -> Result {
    let rows: Vec<ConntrackRow> = client.all(&Request::ConntrackStats {})?;
    if json {
        return out.json(&rows);
    }
    for row in rows {
        writeln!(
            out.out,
            "cpu={:<4}\tfound={} invalid={} insert={} insert_failed={} drop={} early_drop={} error={} \
             search_restart=0 clash_resolve=0 chaintoolong=0 \
             expect_new={} expect_create={} expect_delete={} ",
            row.worker,
            row.found,
            row.invalid,
            row.insert,
            row.insert_failed,
            row.drop,
            row.early_drop,
            row.error,
            row.expect_new,
            row.expect_create,
            row.expect_delete
        )?;
    }
    Ok(())
}

/// What stands where conntrack(8) names itself.
pub(super) fn program() -> String {
    format!("shardwall v{VERSION} (shardwall)")
}

/// Rows as they come, for the table may be large: a line each, or the elements of a JSON array.
pub(super) struct Rows<'a, 'b> {
    out: &'a mut Output<'b>,
    json: bool,
    count: u64,
    failed: Option<Failure>,
}

impl<'a, 'b> Rows<'a, 'b> {
    pub(super) fn new(json: bool, out: &'a mut Output<'b>) -> Self {
        Self {
            out,
            json,
            count: 0,
            failed: None,
        }
    }

    /// Prints `row`, of which `line` is the line. Breaks once it cannot.
    pub(super) fn add(&mut self, row: &impl Serialize, line: impl fmt::Display) -> ControlFlow<()> {
        match self.print(row, line) {
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => {
                self.failed = Some(failure);
                ControlFlow::Break(())
            }
        }
    }

    fn print(&mut self, row: &impl Serialize, line: impl fmt::Display) -> Result {
        if self.json {
            let start = if self.count == 0 { "[" } else { "," };
            write!(self.out.out, "{start}\n  ")?;
            serde_json::to_writer(&mut *self.out.out, row)?;
        } else {
            writeln!(self.out.out, "{line}")?;
        }
        self.count += 1;
        Ok(())
    }

    /// How many there were.
    pub(super) fn end(self) -> Result<u64> {
        if let Some(failure) = self.failed {
            return Err(failure);
        }
        if self.json {
            let end = if self.count == 0 { "[]" } else { "\n]" };
            writeln!(self.out.out, "{end}")?;
        }
        // Rows and what is said of them meet on a terminal: rows first.
        self.out.out.flush()?;
        Ok(self.count)
    }
}
