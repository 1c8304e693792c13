//! A packet in words (`iif=wan daddr=10.2.0.7 tcp dport=80 syn`), made a frame. What is not said is
//! chosen, and told; what cannot be understood is told all at once.
//!
//! Life-cycle: read for one question. Concurrency: plain values.

use std::net::IpAddr;

use super::vocabulary::{self, nearest, unknown};
use super::words::flag_names;
use crate::conntrack::entry::status;
use crate::conntrack::helper::HelperId;
use crate::conntrack::types::{CtState, Dir, proto};
use crate::policy::calendar::{Calendar, LocalTime};
use crate::policy::model::Policy;
use crate::policy::{PortId, protocol_name};
use crate::wire::build::{Link, Segment, emit, frame_len};
use crate::wire::checksum::checksum;
use crate::wire::parsed::Addrs;
use crate::wire::{sctp, tcp::flags};

/// Words with a value: `iif=wan`.
const KEYS: [&str; 16] = [
    "iif", "saddr", "daddr", "proto", "sport", "dport", "type", "flags", "ct", "dir", "vlan",
    "length", "dscp", "mark", "helper", "at",
];

/// A packet that was described in words.
#[derive(Clone, Debug)]
pub struct PacketInWords {
    /// The frame.
    pub frame: Vec<u8>,
    /// Where it comes in.
    pub iif: PortId,
    /// What is given of its flow; `None` leaves that to the tracker.
    pub given: Option<Given>,
    /// What was chosen for want of a word.
    pub assumed: Vec<String>,
    /// When it comes, if a word says so.
    at: Option<LocalTime>,
}

/// What a packet's flow is taken to be.
#[derive(Clone, Copy, Debug)]
pub struct Given {
    /// The packet's state.
    pub state: CtState,
    /// Its direction.
    pub dir: Dir,
    /// The flow's mark.
    pub mark: u32,
    /// The helper that expected the flow.
    pub helper: Option<HelperId>,
    /// Whether the flow is in the table already.
    pub known: bool,
    /// Whether it is ASSURED.
    pub assured: bool,
}

impl Given {
    /// Its bit of [`status`].
    pub fn assured_bit(&self) -> u8 {
        if self.assured { status::ASSURED } else { 0 }
    }
}

/// What words have said so far.
#[derive(Default)]
struct Said {
    iif: Option<PortId>,
    saddr: Option<IpAddr>,
    daddr: Option<IpAddr>,
    proto: Option<u8>,
    sport: Option<u16>,
    dport: Option<u16>,
    icmp: Option<String>,
    flags: Option<u8>,
    state: Option<CtState>,
    dir: Option<Dir>,
    vlan: Option<u16>,
    length: Option<u16>,
    dscp: Option<u8>,
    mark: Option<u32>,
    helper: Option<HelperId>,
    at: Option<LocalTime>,
    /// Keys that were given, to find those given twice.
    keys: Vec<&'static str>,
}

impl PacketInWords {
    /// The packet that `words` describe, for `policy`.
    ///
    /// # Errors
    /// Everything about the words that is wrong.
    pub fn read(words: &[String], policy: &Policy) -> Result<Self, Vec<String>> {
        let (mut said, mut errors) = (Said::default(), Vec::new());
        for word in words {
            if let Err(error) = said.word(word, policy) {
                errors.push(error);
            }
        }
        let mut assumed = Vec::new();
        let built = said.build(policy, &mut assumed, &mut errors);
        match built {
            Some((frame, iif)) if errors.is_empty() => Ok(Self {
                frame,
                iif,
                given: said.given(&mut assumed),
                assumed,
                at: said.at,
            }),
            _ => Err(errors),
        }
    }

    /// When the packet comes, in seconds since 1970: as its words say, in the local time of `policy`,
    /// or at `present`, which is told where a rule asks for it.
    pub fn when(&mut self, policy: &Policy, present: u64) -> u64 {
        let utc = Calendar::default();
        let calendar = policy.calendar.as_deref();
        match (self.at, calendar) {
            (Some(at), _) => at.unix(calendar.unwrap_or(&utc), present),
            (None, Some(calendar)) => {
                let shown = LocalTime::of(present, calendar);
                self.assumed.push(format!("at {shown}"));
                present
            }
            (None, None) => present,
        }
    }
}

impl Said {
    fn word(&mut self, word: &str, policy: &Policy) -> Result<(), String> {
        let (key, value) = match word.split_once('=') {
            Some((key, value)) => (key, value),
            None => match vocabulary::key_of(word) {
                Some(key) => (key, word),
                None => {
                    let known = vocabulary::bare_words().chain(KEYS);
                    let near = nearest(word, known).map(|near| match KEYS.contains(&near) {
                        true => format!("{near}=VALUE"),
                        false => near.to_owned(),
                    });
                    return Err(unknown("word", word, near));
                }
            },
        };
        let Some(key) = KEYS.iter().copied().find(|known| *known == key) else {
            let near = nearest(key, KEYS).map(|near| format!("{near}={value}"));
            let mut error = unknown("word", word, near);
            if !error.contains("did you mean") {
                error += &format!("; known are {}", KEYS.join("=, ") + "=");
            }
            return Err(error);
        };
        if self.keys.contains(&key) && key != "flags" {
            return Err(format!("`{word}`: `{key}` is given twice"));
        }
        self.keys.push(key);
        self.value(key, value, policy)
            .map_err(|error| format!("`{word}`: {error}"))
    }

    fn value(&mut self, key: &str, value: &str, policy: &Policy) -> Result<(), String> {
        let up_to = |max: u64| vocabulary::up_to(max, value);
        match key {
            "iif" => self.iif = Some(vocabulary::port(value, policy)?),
            "saddr" => self.saddr = Some(value.parse().map_err(|_| "not an address")?),
            "daddr" => self.daddr = Some(value.parse().map_err(|_| "not an address")?),
            "proto" => self.proto = Some(vocabulary::protocol(value)?),
            "sport" => self.sport = Some(up_to(65_535)? as u16),
            "dport" => self.dport = Some(up_to(65_535)? as u16),
            "type" => self.icmp = Some(value.to_owned()),
            "flags" => *self.flags.get_or_insert(0) |= vocabulary::flags(value)?,
            "ct" => self.state = Some(vocabulary::state(value)?),
            "dir" => self.dir = Some(vocabulary::dir(value)?),
            "vlan" => self.vlan = Some(up_to(4094)? as u16),
            "length" => self.length = Some(up_to(9_000)? as u16),
            "dscp" => self.dscp = Some(vocabulary::dscp(value)?),
            "mark" => self.mark = Some(up_to(u32::MAX.into())? as u32),
            "at" => {
                let at = LocalTime::read(value);
                self.at = Some(at.ok_or("not a time; write at=08:00 or at=\"2026-11-20 08:00\"")?);
            }
            _ => self.helper = Some(vocabulary::helper(value)?),
        }
        Ok(())
    }

    /// What is given of the flow, if anything is.
    fn given(&self, assumed: &mut Vec<String>) -> Option<Given> {
        let asked = self.state.is_some() || self.dir.is_some();
        if !asked && self.mark.is_none() && self.helper.is_none() {
            return None;
        }
        let state = self.state.unwrap_or_else(|| {
            let state = match (self.dir, self.helper) {
                (Some(Dir::Reply), _) => CtState::Established,
                (_, Some(_)) => CtState::Related,
                _ => CtState::New,
            };
            assumed.push(format!("ct {}", state.name()));
            state
        });
        Some(Given {
            state,
            dir: self.dir.unwrap_or(Dir::Original),
            mark: self.mark.unwrap_or(0),
            helper: self.helper,
            known: state == CtState::Established,
            assured: state == CtState::Established,
        })
    }

    /// The frame, and where it comes in.
    fn build(
        &mut self,
        policy: &Policy,
        assumed: &mut Vec<String>,
        errors: &mut Vec<String>,
    ) -> Option<(Vec<u8>, PortId)> {
        let iif = match self.iif {
            Some(iif) => iif,
            None => {
                let first = policy.bridges.first().map_or(PortId(0), |bridge| bridge.a);
                let name = policy.ports.get(usize::from(first.0))?.name.as_str();
                assumed.push(format!("iif {name}"));
                first
            }
        };
        let v6_proto = self.proto == Some(proto::ICMPV6);
        let v6 = [self.saddr, self.daddr].into_iter().flatten().next();
        let v6 = v6.map_or(v6_proto, |addr| addr.is_ipv6());
        let mut choose = |given: Option<IpAddr>, word: &str, v4: &str, six: &str| {
            given.or_else(|| {
                let text = if v6 { six } else { v4 };
                assumed.push(format!("{word} {text}"));
                text.parse().ok()
            })
        };
        // addresses for documentation (RFC 5737, RFC 3849)
        let saddr = choose(self.saddr, "saddr", "192.0.2.1", "2001:db8::1")?;
        let daddr = choose(self.daddr, "daddr", "198.51.100.1", "2001:db8::2")?;
        let addrs = match (saddr, daddr) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => Addrs::V4 {
                src: src.to_bits(),
                dst: dst.to_bits(),
            },
            (IpAddr::V6(src), IpAddr::V6(dst)) => Addrs::V6 {
                src: src.to_bits(),
                dst: dst.to_bits(),
            },
            _ => {
                errors.push(format!("{saddr} and {daddr} are of different families"));
                return None;
            }
        };
        let icmp = if v6 { proto::ICMPV6 } else { proto::ICMP };
        let proto = self.proto.unwrap_or_else(|| {
            let proto = if self.icmp.is_some() {
                icmp
            } else {
                proto::TCP
            };
            assumed.push(format!(
                "proto {}",
                protocol_name(proto).unwrap_or_default()
            ));
            proto
        });
        self.fits(proto, icmp, errors);
        let (mut message, mut body) = ((0, 0), Vec::new());
        if proto == icmp {
            message = self.message(v6, assumed, errors)?;
        }
        let with_ports = [proto::TCP, proto::UDP, proto::UDPLITE, proto::SCTP].contains(&proto);
        let (mut sport, mut dport) = (0, 0);
        if with_ports {
            let mut choose = |given: Option<u16>, word: &str, port: u16| {
                given.unwrap_or_else(|| {
                    assumed.push(format!("{word} {port}"));
                    port
                })
            };
            // the first of the ephemeral ports (RFC 6335)
            sport = choose(self.sport, "sport", 49_152);
            dport = choose(self.dport, "dport", 80);
        }
        if proto == proto::TCP && self.flags.is_none() {
            let settled = self.state == Some(CtState::Established) || self.dir == Some(Dir::Reply);
            let flags = if settled { flags::ACK } else { flags::SYN };
            assumed.push(format!("flags {}", flag_names(flags)));
            self.flags = Some(flags);
        }
        let flags = self.flags.unwrap_or(0);
        let segment = match proto {
            proto::TCP => Segment::Tcp {
                sport,
                dport,
                seq: 1,
                ack: u32::from(flags & flags::ACK != 0),
                flags,
                window: 65_535,
                options: &[],
            },
            proto::UDP => Segment::Udp { sport, dport },
            _ if proto == icmp => Segment::Icmp {
                ty: message.0,
                code: message.1,
                rest: 0x0001_0001,
            },
            _ => {
                body = match proto {
                    proto::SCTP => init(sport, dport),
                    proto::UDPLITE => lite(&addrs, sport, dport),
                    // a GRE header without options
                    proto::GRE => vec![0, 0, 0x08, 0],
                    _ => Vec::new(),
                };
                Segment::Raw(proto)
            }
        };
        let link = Link {
            dst: [2, 0, 0, 0, 0, 2],
            src: [2, 0, 0, 0, 0, 1],
            vlan: self.vlan,
        };
        let tag = if self.vlan.is_some() { 4 } else { 0 };
        let least = frame_len(&link, &addrs, &segment, &body) - 14 - tag;
        if let Some(length) = self.length.map(usize::from) {
            let fixed = proto == proto::SCTP || proto == proto::UDPLITE;
            if length < least || fixed && length != least {
                let word = if fixed { "exactly" } else { "at least" };
                errors.push(format!(
                    "`length={length}`: such a packet has {word} {least} bytes"
                ));
                return None;
            }
            body.resize(body.len() + length - least, 0);
        }
        let mut frame = vec![0; frame_len(&link, &addrs, &segment, &body)];
        emit(&mut frame, &link, &addrs, 64, &segment, &body);
        let ip = frame.get_mut(14 + tag..)?;
        match (self.dscp, v6) {
            (None, _) => {}
            (Some(dscp), false) => {
                ip[1] = dscp << 2;
                ip[10..12].fill(0);
                let sum = checksum(&ip[..20]);
                ip[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            // the traffic class lies over two bytes (RFC 8200)
            (Some(dscp), true) => {
                ip[0] |= dscp >> 2;
                ip[1] |= dscp << 6;
            }
        }
        Some((frame, iif))
    }

    /// Reports words that are for another protocol.
    fn fits(&self, proto: u8, icmp: u8, errors: &mut Vec<String>) {
        let name = protocol_name(proto).map_or_else(|| proto.to_string(), str::to_owned);
        let with_ports = [proto::TCP, proto::UDP, proto::UDPLITE, proto::SCTP].contains(&proto);
        let mut refuse = |given: bool, word: &str| {
            if given {
                errors.push(format!("`{word}` is not for {name}"));
            }
        };
        refuse(self.sport.is_some() && !with_ports, "sport");
        refuse(self.dport.is_some() && !with_ports, "dport");
        refuse(self.flags.is_some() && proto != proto::TCP, "flags");
        refuse(self.icmp.is_some() && proto != icmp, "type");
        let other = [proto::ICMP, proto::ICMPV6].contains(&proto) && proto != icmp;
        if other {
            errors.push(format!("{name} does not go between these addresses"));
        }
    }

    /// ICMP type and code.
    fn message(
        &self,
        v6: bool,
        assumed: &mut Vec<String>,
        errors: &mut Vec<String>,
    ) -> Option<(u8, u8)> {
        let text = self.icmp.as_deref().unwrap_or_else(|| {
            assumed.push("type echo-request".into());
            "echo-request"
        });
        match vocabulary::icmp(text, v6) {
            Ok((ty, code)) => Some((ty, code.unwrap_or(0))),
            Err(error) => {
                errors.push(error);
                None
            }
        }
    }
}

/// An SCTP packet with an INIT (RFC 9260 3.3.2).
fn init(sport: u16, dport: u16) -> Vec<u8> {
    use zerocopy::IntoBytes;
    let mut header = sctp::Header {
        sport: sport.into(),
        dport: dport.into(),
        vtag: 0.into(),
        checksum: 0.into(),
    };
    let chunk = sctp::ChunkHeader {
        ty: sctp::chunk::INIT,
        flags: 0,
        len: 20.into(),
    };
    let init = sctp::Init {
        tag: 1.into(),
        window: 65_535.into(),
        streams_out: 1.into(),
        streams_in: 1.into(),
        tsn: 1.into(),
    };
    let rest = [chunk.as_bytes(), init.as_bytes()].concat();
    let sum = crc32c::crc32c(&[header.as_bytes(), &rest].concat());
    header.checksum = sum.into();
    [header.as_bytes(), &rest].concat()
}

/// A UDP-Lite datagram of which the checksum covers all (RFC 3828).
fn lite(addrs: &Addrs, sport: u16, dport: u16) -> Vec<u8> {
    let mut header = [sport, dport, 8, 0].map(u16::to_be_bytes).concat();
    let sum = crate::wire::checksum::Sum::default();
    let sum = sum.pseudo(addrs, proto::UDPLITE, 8).bytes(&header).finish();
    let sum = if sum == 0 { 0xffff } else { sum };
    header[6..8].copy_from_slice(&sum.to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::parse;
    use crate::wire::{self, L3, L4};

    fn read(words: &str) -> Result<PacketInWords, Vec<String>> {
        let policy = "version: 1
ports: { lan: { device: a }, wan: { device: b } }
bridge: [[lan, wan]]
chains: { forward: {} }
";
        let words: Vec<_> = words
            .split(' ')
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect();
        PacketInWords::read(&words, &parse("test.yaml", policy).unwrap().model)
    }

    #[test]
    fn every_protocol_makes_a_right_frame() {
        for words in [
            "",
            "iif=wan saddr=1.2.3.4 daddr=10.2.0.7 tcp dport=80 syn",
            "udp dport=53 length=100 dscp=ef vlan=10",
            "udp saddr=fd00::1 daddr=fd00::2 dscp=ef",
            "icmp type=echo-request",
            "icmpv6 type=packet-too-big",
            "sctp dport=9",
            "udplite",
            "udplite daddr=fd00::2",
            "gre",
            "proto=89",
        ] {
            let packet = read(words).unwrap_or_else(|errors| panic!("{words}: {errors:?}"));
            let parsed = wire::parse(&packet.frame, packet.frame.len());
            assert!(
                matches!(parsed.l3, L3::Ipv4 | L3::Ipv6),
                "{words}: {parsed:?}"
            );
            assert!(
                !matches!(parsed.l4, L4::None | L4::Bad),
                "{words}: {parsed:?}"
            );
            assert!(wire::verify::is_right(&packet.frame, &parsed), "{words}");
            if words.contains("dscp") {
                assert_eq!(parsed.dscp, 46, "{words}");
            }
            if words.contains("length") {
                assert_eq!((parsed.ip_len(), parsed.vlan), (100, 10));
            }
        }
        let web = read("iif=wan saddr=1.2.3.4 daddr=10.2.0.7 tcp dport=80 syn").unwrap();
        assert_eq!(web.assumed, ["sport 49152"]);
        assert_eq!(web.iif, PortId(1));
        assert!(web.given.is_none());
        let back = read("tcp sport=80 dport=1 reply mark=7").unwrap();
        let given = back.given.unwrap();
        assert_eq!(
            (given.state, given.dir, given.mark),
            (CtState::Established, Dir::Reply, 7)
        );
        assert!(back.assumed.contains(&"flags ack".to_owned()));
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let errors =
            read("iif=wna sadr=1.2.3.4 daddr=10.2.0 tpc synn ct=establised vlan=9999").unwrap_err();
        assert_eq!(
            errors,
            [
                "`iif=wna`: unknown port `wna`; did you mean `wan`?; ports are lan, wan",
                "unknown word `sadr=1.2.3.4`; did you mean `saddr=1.2.3.4`?",
                "`daddr=10.2.0`: not an address",
                "unknown word `tpc`; did you mean `tcp`?",
                "unknown word `synn`; did you mean `syn`?",
                "`ct=establised`: unknown state `establised`; did you mean `established`?",
                "`vlan=9999`: not a number from 0 to 4094",
            ]
        );
        for (words, error) in [
            ("udp syn", "`flags` is not for udp"),
            ("icmp dport=1", "`dport` is not for icmp"),
            (
                "saddr=1.2.3.4 daddr=::1",
                "1.2.3.4 and ::1 are of different families",
            ),
            ("tcp tcp", "`tcp`: `proto` is given twice"),
            (
                "tcp length=10",
                "`length=10`: such a packet has at least 40 bytes",
            ),
            (
                "icmp type=echo-reqest",
                "unknown ICMP type `echo-reqest`; did you mean `echo-request`?",
            ),
            (
                "icmpv6 daddr=1.2.3.4",
                "icmpv6 does not go between these addresses",
            ),
        ] {
            assert_eq!(read(words).unwrap_err(), [error], "{words}");
        }
    }
}
