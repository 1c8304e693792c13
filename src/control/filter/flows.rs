//! Which flows are meant: all that conntrack(8) chooses flows by. Pure.
//!
//! A flow is meant if everything that is named is true of it. What cannot be true here matches nothing:
//! a status that no flow has (OFFLOAD), translated addresses ([`Filter::translated`]), a zone of one
//! direction alone.

use super::Net;
use crate::conntrack::record::{Detail, Endpoints, FlowRecord};
use crate::conntrack::tuple::Tuple;
use crate::conntrack::types::{SctpState, TcpState, proto};
use crate::control::protocol::Family;
use crate::wire::Addrs;
use crate::wire::inner::Ports;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Which flows are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// Of this family only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    /// Of this protocol only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proto: Option<u8>,
    /// What their original direction must be.
    #[serde(skip_serializing_if = "Ends::is_any")]
    pub original: Ends,
    /// What their reply direction must be.
    #[serde(skip_serializing_if = "Ends::is_any")]
    pub reply: Ends,
    /// Of TCP flows in this state only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_state: Option<TcpState>,
    /// Of SCTP flows in this state only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sctp_state: Option<SctpState>,
    /// With this mark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark>,
    /// Of this zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<u16>,
    /// Of this zone in one direction only. No flow is in any but 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub one_way_zone: Option<u16>,
    /// All of this is true of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<Status>,
    /// None of this is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub status_not: Vec<Status>,
    /// With this number, [`FlowRecord::id`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// With translated addresses or ports. No flow has any.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub translated: bool,
}

/// What one direction must be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ends {
    /// From these addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src: Option<Net>,
    /// To these addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst: Option<Net>,
    /// From this port, or of GRE with this source key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    /// To this port, or of GRE with this destination key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    /// Of this ICMP type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    /// Of this ICMP code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_code: Option<u8>,
    /// Of this ICMP identifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_id: Option<u16>,
}

/// Marks that are alike where a mask has ones. As in conntrack(8) no mark is meant by a value with bits
/// outside the mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// What they are there.
    pub value: u32,
    /// Bits that count.
    pub mask: u32,
}

/// What may be true of a flow (Linux: `IPS_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Both directions were seen.
    SeenReply,
    /// Kept under pressure.
    Assured,
    /// A helper expected it.
    Expected,
    /// Its timeout does not change. True of no flow here.
    FixedTimeout,
    /// Another path forwards it. True of no flow here.
    Offload,
    /// A NIC forwards it. True of no flow here.
    HwOffload,
}

impl Filter {
    /// Whether every flow is meant.
    pub fn is_any(&self) -> bool {
        *self == Self::default()
    }

    /// Whether `flow` is meant.
    pub fn matches(&self, flow: &FlowRecord) -> bool {
        let has = |status: &Status| match status {
            Status::SeenReply => flow.seen_reply,
            Status::Assured => flow.assured,
            Status::Expected => flow.expected,
            Status::FixedTimeout | Status::Offload | Status::HwOffload => false,
        };
        self.wants(flow.is_v6(), flow.proto)
            && self.original.matches(&flow.original)
            && self.reply.matches(&flow.reply)
            && fits(self.tcp_state, flow.tcp_state)
            && fits(self.sctp_state, flow.sctp_state)
            && self.mark.is_none_or(|it| flow.mark & it.mask == it.value)
            && self.zone.is_none_or(|zone| flow.zone == zone)
            && self.one_way_zone.is_none_or(|zone| zone == 0)
            && self.status.iter().all(has)
            && !self.status_not.iter().any(has)
            && self.id.is_none_or(|id| flow.id() == id)
            && !self.translated
    }

    /// Whether flows of this family and protocol may be meant.
    pub fn wants(&self, v6: bool, proto: u8) -> bool {
        let family = self
            .family
            .is_none_or(|family| v6 == (family == Family::Ipv6));
        family && self.proto.is_none_or(|wanted| proto == wanted)
    }

    /// Whether more is asked than [`Filter::wants`] tells.
    pub fn looks_closer(&self) -> bool {
        let (family, proto) = (self.family, self.proto);
        let coarse = Self {
            family,
            proto,
            ..Self::default()
        };
        *self != coarse
    }

    /// The tuple of the original direction, if all of it is named.
    pub fn tuple(&self) -> Option<Tuple> {
        let ends = &self.original;
        let number = self.proto?;
        let addrs = match (ends.src?.only()?, ends.dst?.only()?) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => Addrs::V4 {
                src: src.to_bits(),
                dst: dst.to_bits(),
            },
            (IpAddr::V6(src), IpAddr::V6(dst)) => Addrs::V6 {
                src: src.to_bits(),
                dst: dst.to_bits(),
            },
            _ => return None,
        };
        let ports = match number {
            proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP => Ports::Ports {
                sport: ends.sport?,
                dport: ends.dport?,
            },
            proto::ICMP | proto::ICMPV6 => Ports::Icmp {
                ty: ends.icmp_type?,
                code: ends.icmp_code?,
                id: ends.icmp_id.unwrap_or(0),
            },
            proto::GRE => Ports::Gre {
                srckey: ends.sport?,
                dstkey: ends.dport?,
            },
            _ => Ports::None,
        };
        Some(Tuple {
            addrs,
            proto: number,
            ports,
            zone: self.zone.unwrap_or(0),
        })
    }
}

impl Ends {
    fn is_any(&self) -> bool {
        *self == Self::default()
    }

    fn matches(&self, ends: &Endpoints) -> bool {
        let (first, second, icmp) = match ends.detail {
            Detail::Ports { sport, dport } => (Some(sport), Some(dport), None),
            Detail::Gre { srckey, dstkey } => (Some(srckey), Some(dstkey), None),
            Detail::Icmp { ty, code, id } => (None, None, Some((ty, code, id))),
            Detail::None {} => (None, None, None),
        };
        self.src.is_none_or(|net| net.contains(ends.src))
            && self.dst.is_none_or(|net| net.contains(ends.dst))
            && fits(self.sport, first)
            && fits(self.dport, second)
            && fits(self.icmp_type, icmp.map(|(ty, ..)| ty))
            && fits(self.icmp_code, icmp.map(|(_, code, _)| code))
            && fits(self.icmp_id, icmp.map(|(.., id)| id))
    }
}

/// Whether `found` is what is `wanted`, if anything is.
fn fits<T: PartialEq>(wanted: Option<T>, found: Option<T>) -> bool {
    wanted.is_none() || wanted == found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answered and assured TCP connection of zone 7 with mark 0x15.
    fn flow() -> FlowRecord {
        let ends = |src: &str, dst: &str, sport, dport| Endpoints {
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            detail: Detail::Ports { sport, dport },
        };
        FlowRecord {
            proto: proto::TCP,
            original: ends("10.0.0.1", "10.0.0.2", 1000, 80),
            reply: ends("10.0.0.2", "10.0.0.1", 80, 1000),
            timeout: 100,
            tcp_state: Some(TcpState::Established),
            sctp_state: None,
            sctp_vtags: None,
            seen_reply: true,
            assured: true,
            expected: false,
            helper: None,
            master: None,
            counters: None,
            start_ms: None,
            stop_ms: None,
            mark: 0x15,
            zone: 7,
            shard: 0,
        }
    }

    /// Filters as they travel, and whether they mean the flow above.
    #[test]
    fn what_is_named_must_be_true_of_the_flow() {
        for (text, meant) in [
            ("{}", true),
            (r#"{"family":"ipv4","proto":6}"#, true),
            (r#"{"family":"ipv6"}"#, false),
            (r#"{"proto":17}"#, false),
            (r#"{"original":{"src":"10.0.0.1"}}"#, true),
            (r#"{"original":{"src":"10.0.0.2"}}"#, false),
            (
                r#"{"original":{"dst":"10.0.0.0/30","sport":1000,"dport":80}}"#,
                true,
            ),
            (r#"{"original":{"sport":80}}"#, false),
            (r#"{"original":{"icmp_type":8}}"#, false),
            (
                r#"{"reply":{"src":"10.0.0.2","dst":"10.0.0.1","sport":80,"dport":1000}}"#,
                true,
            ),
            (r#"{"reply":{"src":"10.0.0.1"}}"#, false),
            (r#"{"tcp_state":"ESTABLISHED"}"#, true),
            (r#"{"tcp_state":"CLOSE"}"#, false),
            (r#"{"sctp_state":"ESTABLISHED"}"#, false),
            (r#"{"mark":{"value":21,"mask":4294967295}}"#, true),
            (r#"{"mark":{"value":5,"mask":15}}"#, true),
            (r#"{"mark":{"value":21,"mask":15}}"#, false),
            (r#"{"zone":7}"#, true),
            (r#"{"zone":0}"#, false),
            (r#"{"one_way_zone":0}"#, true),
            (r#"{"one_way_zone":7}"#, false),
            (r#"{"status":["assured","seen-reply"]}"#, true),
            (r#"{"status":["assured"],"status_not":["expected"]}"#, true),
            (r#"{"status":["expected"]}"#, false),
            (r#"{"status":["offload"]}"#, false),
            (r#"{"status_not":["seen-reply"]}"#, false),
            (r#"{"translated":true}"#, false),
        ] {
            let filter: Filter = serde_json::from_str(text).unwrap();
            assert_eq!(filter.matches(&flow()), meant, "{text}");
            assert_eq!(
                serde_json::to_string(&filter).unwrap(),
                text.replace("10.0.0.1\"", "10.0.0.1/32\"")
                    .replace("10.0.0.2\"", "10.0.0.2/32\"")
            );
        }
        for text in [
            r#"{"sport":80}"#,
            r#"{"original":{"port":80}}"#,
            r#"{"mark":5}"#,
        ] {
            assert!(serde_json::from_str::<Filter>(text).is_err(), "{text}");
        }
        let id = Some(flow().id());
        let (right, wrong) = (id, id.map(|id| id ^ 1));
        for (id, meant) in [(right, true), (wrong, false)] {
            let filter = Filter {
                id,
                ..Filter::default()
            };
            assert_eq!(filter.matches(&flow()), meant);
        }
    }

    #[test]
    fn a_tuple_is_whole_or_none() {
        let tuple = |text: &str| serde_json::from_str::<Filter>(text).unwrap().tuple();
        let ports = tuple(
            r#"{"proto":6,"original":{"src":"10.0.0.1","dst":"10.0.0.2","sport":1,"dport":2}}"#,
        );
        assert_eq!(ports.unwrap().ports, Ports::Ports { sport: 1, dport: 2 });
        let echo = tuple(
            r#"{"proto":58,"original":{"src":"fd00::1","dst":"fd00::2","icmp_type":128,"icmp_code":0}}"#,
        );
        assert_eq!(
            echo.unwrap().ports,
            Ports::Icmp {
                ty: 128,
                code: 0,
                id: 0
            }
        );
        assert!(tuple(r#"{"proto":89,"original":{"src":"10.0.0.1","dst":"10.0.0.2"}}"#).is_some());
        for text in [
            r#"{"original":{"src":"10.0.0.1","dst":"10.0.0.2"}}"#,
            r#"{"proto":6,"original":{"src":"10.0.0.1","dst":"10.0.0.2","sport":1}}"#,
            r#"{"proto":89,"original":{"src":"10.0.0.0/8","dst":"10.0.0.2"}}"#,
            r#"{"proto":89,"original":{"src":"10.0.0.1","dst":"fd00::1"}}"#,
            r#"{"proto":1,"original":{"src":"10.0.0.1","dst":"10.0.0.2","icmp_type":8}}"#,
        ] {
            assert_eq!(tuple(text), None, "{text}");
        }
    }
}
