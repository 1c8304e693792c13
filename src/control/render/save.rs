//! A flow as the options that conntrack(8) would make it with (`-o save`).

use super::pen::Pen;
use super::{Show, state};
use crate::conntrack::record::{Detail, Endpoints, FlowRecord};
use crate::conntrack::types::proto;
use crate::control::protocol::proto_name;

/// How an address family's ICMP is called, and its options.
const ICMP: [&str; 3] = [" --icmp-type ", " --icmp-code ", " --icmp-id "];
const ICMPV6: [&str; 3] = [" --icmpv6-type ", " --icmpv6-code ", " --icmpv6-id "];

/// Writes `flow`, behind the command `verb`, without the newline.
pub(super) fn write(pen: &mut Pen<'_>, flow: &FlowRecord, verb: &str, show: Show) {
    pen.word(verb);
    if show != Show::End || flow.timeout > 0 {
        pen.word(" -t ").number(flow.timeout);
    }
    status(pen, flow);
    if flow.zone != 0 {
        pen.word(" -w ").number(flow.zone);
    }
    let (original, reply) = (&flow.original, &flow.reply);
    for (option, addr) in [
        (" -s ", original.src),
        (" -d ", original.dst),
        (" -r ", reply.src),
        (" -q ", reply.dst),
    ] {
        pen.word(option).addr(addr);
    }
    pen.word(" -p ");
    match proto_name(flow.proto) {
        Some(name) => pen.word(name),
        None => pen.number(flow.proto),
    };
    details(pen, flow.proto, original, reply);
    if let Some(state) = state(flow, show) {
        pen.word(" --state ").word(state);
        if let Some([original, reply]) = flow.sctp_vtags {
            // The program prints, and reads, the bytes of the header as a number of the machine.
            pen.word(" --orig-vtag ").number(original.to_be());
            pen.word(" --reply-vtag ").number(reply.to_be());
        }
    }
}

/// In the order of the kernel's bits.
fn status(pen: &mut Pen<'_>, flow: &FlowRecord) {
    let all = [
        (flow.expected, "EXPECTED"),
        (flow.seen_reply, "SEEN_REPLY"),
        (flow.assured, "ASSURED"),
    ];
    let mut separator = " -u ";
    for (_, word) in all.into_iter().filter(|(set, _)| *set) {
        pen.word(separator).word(word);
        separator = ",";
    }
    if separator != "," {
        pen.word(" -u UNSET");
    }
}

fn details(pen: &mut Pen<'_>, number: u8, original: &Endpoints, reply: &Endpoints) {
    match (original.detail, reply.detail) {
        (
            Detail::Ports { sport, dport },
            Detail::Ports {
                sport: from,
                dport: to,
            },
        ) => {
            pen.word(" --sport ").number(sport);
            pen.word(" --dport ").number(dport);
            pen.word(" --reply-port-src ").number(from);
            pen.word(" --reply-port-dst ").number(to);
        }
        (
            Detail::Gre { srckey, dstkey },
            Detail::Gre {
                srckey: from,
                dstkey: to,
            },
        ) => {
            pen.word(" --srckey ").number(srckey);
            pen.word(" --dstkey ").number(dstkey);
            pen.word(" --reply-key-src ").number(from);
            pen.word(" --reply-key-dst ").number(to);
        }
        (Detail::Icmp { ty, code, id }, _) => {
            let v6 = number == proto::ICMPV6;
            let [type_, code_, id_] = if v6 { ICMPV6 } else { ICMP };
            pen.word(type_).number(ty);
            pen.word(code_).number(code);
            pen.word(id_).number(id);
        }
        _ => {}
    }
}
