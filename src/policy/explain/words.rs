//! What a packet has, in the words of the policy, and what a policy's value was written as.

use std::fmt::Write;

use crate::conntrack::types::proto;
use crate::policy::calendar::DAY;
use crate::policy::compile::{Compiled, Pred};
use crate::policy::eval::Facts;
use crate::policy::model::flow_status;
use crate::policy::names::{self, protocol_name};
use crate::policy::yaml::{Kind, Node};
use crate::wire::parsed::{Fragment, L3, L4, NO_VLAN};

pub(super) const NO_FLOW: &str = "the packet belongs to no flow";

/// Longest value that is shown whole.
const LONG: usize = 80;

/// What the packet, which comes `unix` seconds after 1970, has where `pred` wants something else.
pub(super) fn found(policy: &Compiled, pred: &Pred, facts: &Facts<'_>, unix: u64) -> String {
    let packet = facts.packet;
    let port = |id: super::super::PortId| {
        let name = policy.port_names().get(usize::from(id.0));
        name.map_or_else(|| id.0.to_string(), Clone::clone)
    };
    let number = |key: &str, number: Option<u16>| match number {
        Some(number) => format!("{key} is {number}"),
        None => "the packet has no ports".into(),
    };
    let family = match packet.l3 {
        L3::Ipv4 => "family is ipv4",
        L3::Ipv6 => "family is ipv6",
        _ => "the packet is not IP",
    };
    match pred {
        Pred::State(_) => format!("ct is {}", facts.state.name()),
        Pred::Iif(_) => format!("iif is {}", port(facts.iif)),
        Pred::Oif(_) => format!("oif is {}", port(facts.oif)),
        Pred::Time(_) => {
            const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
            let second = policy.calendar.second_of_week(unix);
            let (day, second) = (second / DAY, second % DAY);
            let day = DAYS.get(day as usize).copied().unwrap_or_default();
            format!("time is {day} {:02}:{:02}", second / 3600, second / 60 % 60)
        }
        Pred::Dir(_) => match facts.dir {
            Some(dir) => format!("ct-direction is {}", dir.name()),
            None => NO_FLOW.into(),
        },
        Pred::Family(_) => family.into(),
        Pred::Status(_) => facts.flow.map_or(NO_FLOW.into(), |flow| {
            let status = flow.status();
            let words = [
                ("expected", flow_status::EXPECTED),
                ("seen-reply", flow_status::SEEN_REPLY),
                ("assured", flow_status::ASSURED),
                ("confirmed", flow_status::CONFIRMED),
            ];
            let has = words.iter().filter(|(_, bit)| status & bit != 0);
            let has: Vec<_> = has.map(|(word, _)| *word).collect();
            match has.is_empty() {
                true => "ct-status has none of these bits".into(),
                false => format!("ct-status is {}", has.join(", ")),
            }
        }),
        Pred::Helper(_) => facts.flow.map_or(NO_FLOW.into(), |flow| {
            let helper = flow
                .helper()
                .and_then(|id| crate::helpers::INFOS.get(id.index()));
            match helper {
                Some(info) => format!("ct-helper is {}", info.name),
                None => "no helper expected the flow".into(),
            }
        }),
        Pred::Mark(_) => facts.flow.map_or(NO_FLOW.into(), |flow| {
            format!("ct-mark is {:#x}", flow.mark())
        }),
        Pred::Proto(_) | Pred::Protos(_) => match (packet.l3, protocol_name(packet.proto)) {
            (L3::Ipv4 | L3::Ipv6, Some(name)) => format!("proto is {name}"),
            (L3::Ipv4 | L3::Ipv6, None) => format!("proto is {}", packet.proto),
            _ => family.into(),
        },
        Pred::Flags(_) => match packet.tcp_flags() {
            Some(flags) => format!("tcp-flags are {}", flag_names(flags)),
            None => "the packet is not TCP".into(),
        },
        Pred::Fragment(_) => match packet.fragment {
            Fragment::Whole => "the datagram came whole".into(),
            _ => "the datagram came in fragments".into(),
        },
        Pred::Dscp(_) => {
            let name = names::DSCP.iter().find(|(_, point)| *point == packet.dscp);
            match name {
                Some((name, _)) => format!("dscp is {name}"),
                None => format!("dscp is {}", packet.dscp),
            }
        }
        Pred::Dport(..) | Pred::Dports(_) => number("dport", packet.dport()),
        Pred::Sport(..) | Pred::Sports(_) => number("sport", packet.sport()),
        Pred::Length(_) => format!("length is {}", packet.ip_len()),
        Pred::Vlan(_) if packet.vlan == NO_VLAN => "the frame has no VLAN tag".into(),
        Pred::Vlan(_) => format!("vlan is {}", packet.vlan),
        Pred::Zone(_) => format!("ct-zone is {}", policy.zone(facts.iif, packet.vlan)),
        Pred::Icmp(_) => match packet.l4 {
            L4::Icmp { ty, code, .. } => {
                let table = match packet.proto {
                    proto::ICMPV6 => names::ICMPV6_TYPES,
                    _ => names::ICMP_TYPES,
                };
                let name = table.iter().find(|(_, number)| *number == ty);
                let name = name.map_or_else(|| ty.to_string(), |(name, _)| (*name).to_owned());
                let version = protocol_name(packet.proto).unwrap_or_default();
                format!("icmp-type is {name}/{code} of {version}")
            }
            _ => "the packet is not ICMP".into(),
        },
        Pred::Src4(..) | Pred::Src { .. } => match packet.l3 {
            L3::Ipv4 | L3::Ipv6 => format!("saddr is {}", packet.addrs.src()),
            _ => family.into(),
        },
        Pred::Dst4(..) | Pred::Dst { .. } => match packet.l3 {
            L3::Ipv4 | L3::Ipv6 => format!("daddr is {}", packet.addrs.dst()),
            _ => family.into(),
        },
    }
}

/// TCP flags by name.
pub fn flag_names(flags: u8) -> String {
    let set = names::TCP_FLAGS.iter().filter(|(_, bit)| flags & bit != 0);
    let set: Vec<_> = set.map(|(name, _)| *name).collect();
    match set.is_empty() {
        true => "none".into(),
        false => set.join(","),
    }
}

/// A value as it was written, on one line; what is long is cut.
pub(super) fn value(node: &Node) -> String {
    fn write(node: &Node, out: &mut String) {
        if out.len() > LONG {
            return;
        }
        match &node.kind {
            Kind::Null => {}
            Kind::Scalar(text) => out.push_str(text),
            Kind::List(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    out.push_str(if at > 0 { ", " } else { "" });
                    match &item.kind {
                        Kind::Scalar(text) if text.contains(',') => {
                            let _ = write!(out, "\"{text}\"");
                        }
                        _ => write(item, out),
                    }
                }
                out.push(']');
            }
            Kind::Map(entries) => {
                out.push_str("{ ");
                for (at, (key, value)) in entries.iter().enumerate() {
                    let comma = if at > 0 { ", " } else { "" };
                    let _ = write!(out, "{comma}{}: ", key.text);
                    write(value, out);
                }
                out.push_str(" }");
            }
        }
    }
    let mut out = String::new();
    write(node, &mut out);
    if out.chars().count() > LONG {
        out = out.chars().take(LONG).chain("…".chars()).collect();
    }
    out
}
