//! A flow as one line of `conntrack -L`, `-G`, `-D` or `-E`; and of a flow that a helper expected,
//! which the program shows like any other, that it was, and which flow announced it.

use super::pen::Pen;
use super::{Printer, Show, age, date, mark, state};
use crate::conntrack::record::{Carried, Detail, Endpoints, FlowRecord};
use crate::conntrack::types::proto;
use crate::control::protocol::proto_name;

/// Writes `flow`, without the newline.
pub(super) fn write(pen: &mut Pen<'_>, flow: &FlowRecord, by: &Printer, show: Show) {
    if by.style.extended {
        pen.word(match flow.is_v6() {
            true => "ipv6     10 ",
            false => "ipv4     2 ",
        });
    }
    let name = proto_name(flow.proto).unwrap_or("unknown");
    pen.padded(name, 8).word(" ").number(flow.proto).word(" ");
    if show != Show::End || flow.timeout > 0 {
        pen.number(flow.timeout).word(" ");
    }
    if let Some(state) = state(flow, show) {
        pen.word(state).word(" ");
    }
    endpoints(pen, flow.proto, &flow.original);
    if let Some(counters) = &flow.counters {
        carried(pen, &counters.original);
    }
    pen.word(if flow.seen_reply {
        " "
    } else {
        " [UNREPLIED] "
    });
    endpoints(pen, flow.proto, &flow.reply);
    if let Some(counters) = &flow.counters {
        carried(pen, &counters.reply);
    }
    if flow.assured {
        pen.word(" [ASSURED]");
    }
    if flow.expected {
        pen.word(" [EXPECTED]");
    }
    if let Some(mark) = mark(flow, show) {
        pen.word(" mark=").number(mark);
    }
    if flow.zone != 0 {
        pen.word(" zone=").number(flow.zone);
    }
    if let Some(age) = age(flow, show) {
        pen.word(" delta-time=").number(age);
    }
    if let Some(zone) = &by.zone {
        for (word, millis) in [(" [start=", flow.start_ms), (" [stop=", flow.stop_ms)] {
            if let Some(millis) = millis {
                pen.word(word).word(&date(zone, millis)).word("]");
            }
        }
    }
    if let Some(helper) = &flow.helper {
        pen.word(" helper=").word(helper);
    }
    if let Some(master) = &flow.master {
        master_of(pen, &master.ends);
    }
    if let Some(uses) = show.uses() {
        pen.word(" use=").number(uses);
    }
    if by.style.id {
        pen.word(" id=").number(flow.id());
    }
}

fn endpoints(pen: &mut Pen<'_>, number: u8, at: &Endpoints) {
    pen.word("src=").addr(at.src).word(" dst=").addr(at.dst);
    match at.detail {
        Detail::Ports { sport, dport } => pen
            .word(" sport=")
            .number(sport)
            .word(" dport=")
            .number(dport),
        Detail::Icmp { ty, code, id } => pen
            .word(" type=")
            .number(ty)
            .word(" code=")
            .number(code)
            .word(" id=")
            .number(id),
        Detail::Gre { srckey, dstkey } => pen
            .word(" srckey=0x")
            .hex(srckey)
            .word(" dstkey=0x")
            .hex(dstkey),
        // Linux has no tracker for it any more, but the program prints what was its ports.
        Detail::None {} if number == proto::DCCP => pen.word(" sport=0 dport=0"),
        Detail::None {} => pen,
    };
}

/// The flow that announced another, in words that mean nothing else to those who read such lines.
fn master_of(pen: &mut Pen<'_>, ends: &Endpoints) {
    pen.word(" master-src=").addr(ends.src);
    pen.word(" master-dst=").addr(ends.dst);
    if let Detail::Ports { sport, dport } = ends.detail {
        pen.word(" master-sport=").number(sport);
        pen.word(" master-dport=").number(dport);
    }
}

fn carried(pen: &mut Pen<'_>, carried: &Carried) {
    let Carried { packets, bytes } = *carried;
    pen.word(" packets=").number(packets);
    pen.word(" bytes=").number(bytes);
}
