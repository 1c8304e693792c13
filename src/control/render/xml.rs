//! Flows and expectations as conntrack(8)'s XML, which leaves out ICMP's type, code and identifier.
//! States of SCTP it calls by TCP's names of the same numbers; so does this.

use super::pen::Pen;
use super::{Printer, Show, age, mark, masks, state};
use crate::conntrack::record::{Counters, Detail, Endpoints, ExpectRecord, FlowRecord};
use crate::conntrack::types::{TcpState, proto};
use crate::control::protocol::proto_name;
use jiff::Zoned;
use std::net::IpAddr;

/// Writes `flow`, as an element that `open` opens, without a newline; `when` is the time of an event.
pub(super) fn flow(
    pen: &mut Pen<'_>,
    flow: &FlowRecord,
    by: &Printer,
    show: Show,
    (open, when): (&str, Option<&Zoned>),
) {
    pen.word(open);
    let counters = flow.counters.as_ref();
    direction(pen, flow, "original", counters);
    direction(pen, flow, "reply", counters);
    pen.word("<meta direction=\"independent\">");
    if let Some(name) = state(flow, show) {
        let tcps = |state| TcpState::ALL[state as usize % TcpState::COUNT].name();
        pen.word("<state>");
        pen.word(flow.sctp_state.map_or(name, tcps));
        pen.word("</state>");
    }
    if show != Show::End || flow.timeout > 0 {
        element(pen, "timeout", flow.timeout);
    }
    if let Some(mark) = mark(flow, show) {
        element(pen, "mark", mark);
    }
    if flow.zone != 0 {
        element(pen, "zone", flow.zone);
    }
    if let Some(uses) = show.uses() {
        element(pen, "use", uses);
    }
    element(pen, "id", flow.id());
    if flow.assured {
        pen.word("<assured/>");
    }
    if !flow.seen_reply {
        pen.word("<unreplied/>");
    }
    if by.style.ktimestamp && flow.start_ms.or(flow.stop_ms).is_some() {
        pen.word("<timestamp>");
        for (name, millis) in [("start", flow.start_ms), ("stop", flow.stop_ms)] {
            if let Some(millis) = millis {
                element(pen, name, millis * 1_000_000);
            }
        }
        pen.word("</timestamp>");
    }
    if let Some(age) = age(flow, show) {
        element(pen, "deltatime", age);
    }
    pen.word("</meta>");
    if let Some(time) = when {
        moment(pen, time);
    }
    if let Some(helper) = &flow.helper {
        pen.word("<helper>").word(helper).word("</helper>");
    }
    pen.word("</flow>");
}

/// Writes an expectation, as [`flow`] does a flow.
pub(super) fn expectation(
    pen: &mut Pen<'_>,
    it: &ExpectRecord,
    (open, when): (&str, Option<&Zoned>),
) {
    pen.word(open);
    let mask = masks(it);
    let tuples = [
        ("expected", &it.expected),
        ("mask", &mask),
        ("master", &it.master.ends),
    ];
    layer(pen, 3, it.expected.src, it.proto);
    for (name, ends) in tuples {
        tagged(pen, name, |pen| addresses(pen, ends));
    }
    pen.word("</layer3>");
    layer(pen, 4, it.expected.src, it.proto);
    for (name, ends) in tuples {
        tagged(pen, name, |pen| details(pen, it.proto, ends));
    }
    pen.word("</layer4><meta><helper-name>");
    pen.word(&it.helper).word("</helper-name>");
    element(pen, "timeout", it.timeout);
    element(pen, "class", it.class);
    if it.zone != 0 {
        element(pen, "zone", it.zone);
    }
    if let Some(time) = when {
        moment(pen, time);
    }
    for (set, word) in [(it.permanent, "<permanent/>"), (it.inactive, "<inactive/>")] {
        pen.word(if set { word } else { "" });
    }
    pen.word("</meta></flow>");
}

fn direction(pen: &mut Pen<'_>, flow: &FlowRecord, name: &str, counters: Option<&Counters>) {
    let original = name == "original";
    let ends = if original {
        &flow.original
    } else {
        &flow.reply
    };
    pen.word("<meta direction=\"").word(name).word("\">");
    layer(pen, 3, ends.src, flow.proto);
    addresses(pen, ends);
    pen.word("</layer3>");
    layer(pen, 4, ends.src, flow.proto);
    details(pen, flow.proto, ends);
    pen.word("</layer4>");
    if let Some(counters) = counters {
        let carried = if original {
            counters.original
        } else {
            counters.reply
        };
        pen.word("<counters>");
        element(pen, "packets", carried.packets);
        element(pen, "bytes", carried.bytes);
        pen.word("</counters>");
    }
    pen.word("</meta>");
}

/// Opens layer 3 or 4, which has a number and a name.
fn layer(pen: &mut Pen<'_>, layer: u8, addr: IpAddr, proto: u8) {
    let (number, name) = match (layer, addr) {
        (3, IpAddr::V4(_)) => (2, "ipv4"),
        (3, IpAddr::V6(_)) => (10, "ipv6"),
        _ => (proto, proto_name(proto).unwrap_or("unknown")),
    };
    pen.word("<layer").number(layer);
    pen.word(" protonum=\"").number(number);
    pen.word("\" protoname=\"").word(name).word("\">");
}

fn addresses(pen: &mut Pen<'_>, ends: &Endpoints) {
    pen.word("<src>").addr(ends.src).word("</src>");
    pen.word("<dst>").addr(ends.dst).word("</dst>");
}

fn details(pen: &mut Pen<'_>, number: u8, ends: &Endpoints) {
    match ends.detail {
        Detail::Ports { sport, dport } => {
            element(pen, "sport", sport);
            element(pen, "dport", dport);
        }
        Detail::Gre { srckey, dstkey } => {
            pen.word("<srckey>0x").hex(srckey).word("</srckey>");
            pen.word("<dstkey>0x").hex(dstkey).word("</dstkey>");
        }
        // As in lines.
        Detail::None {} if number == proto::DCCP => {
            element(pen, "sport", 0u8);
            element(pen, "dport", 0u8);
        }
        Detail::Icmp { .. } | Detail::None {} => {}
    }
}

/// The local time, with the day of the week counted from 1, Sunday.
fn moment(pen: &mut Pen<'_>, time: &Zoned) {
    let two = |pen: &mut Pen<'_>, name: &str, number: i8| {
        pen.word("<").word(name).word(">");
        pen.word(if number < 10 { "0" } else { "" });
        pen.number(number as u8).word("</").word(name).word(">");
    };
    pen.word("<when>");
    element(pen, "hour", time.hour() as u8);
    two(pen, "min", time.minute());
    two(pen, "sec", time.second());
    element(pen, "wday", time.weekday().to_sunday_one_offset() as u8);
    element(pen, "day", time.day() as u8);
    element(pen, "month", time.month() as u8);
    element(pen, "year", time.year() as u16);
    pen.word("</when>");
}

fn tagged(pen: &mut Pen<'_>, name: &str, inside: impl FnOnce(&mut Pen<'_>)) {
    pen.word("<").word(name).word(">");
    inside(pen);
    pen.word("</").word(name).word(">");
}

fn element(pen: &mut Pen<'_>, name: &str, number: impl Into<u64>) {
    tagged(pen, name, |pen| {
        pen.number(number);
    });
}
