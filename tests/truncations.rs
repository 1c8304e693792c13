//! Packets that end too early: every protocol, cut at every byte, through the packet path. A packet
//! that is cut is dropped by name, INVALID, or what is left of it is a whole packet; and nothing
//! panics.
//!
//! Three cuts: of the frame, so that the IP header promises more than there is; of the datagram, so
//! that the IP header's length fits what is left; and of the first buffer of a frame that goes on
//! in another one.

use shardwall::base::hash::HashKey;
use shardwall::base::time::Now;
use shardwall::conntrack::types::CtState;
use shardwall::pipeline::{Counters, Disposition, DropReason, Outcome, Pipeline, Slot};
use shardwall::policy::{self, Compiled, PortId};
use shardwall::wire::build::{Link, Segment, emit, frame_len};
use shardwall::wire::checksum::{Sum, checksum};
use shardwall::wire::{Addrs, L3, L4, Parsed, parse, proto, sctp};
use std::sync::Arc;

const V4: Addrs = Addrs::V4 {
    src: 0x0a01_0001,
    dst: 0x0a02_0001,
};
const V6: Addrs = Addrs::V6 {
    src: 0xfd01 << 112 | 1,
    dst: 0xfd02 << 112 | 1,
};

/// A packet that is whole.
struct Sample {
    name: String,
    frame: Vec<u8>,
    /// Bytes behind the IP header (extension headers and options included) without which there is
    /// no telling what the packet is: cut there, it is INVALID.
    needed: usize,
}

/// A bridge that accepts everything, its tracker empty.
fn bridge(checksum: bool) -> (Pipeline, Compiled) {
    let text = format!(
        "version: 1\nports: {{ a: {{ device: x }}, b: {{ device: y }} }}\nbridge: [[a, b]]\n\
         conntrack: {{ checksum: {checksum} }}\nchains: {{ forward: {{ policy: accept }} }}\n"
    );
    let model = policy::parse("test", &text).unwrap().model;
    let now = Now::default();
    let pipeline = Pipeline::new(
        0,
        64,
        HashKey::from_seed(1),
        now,
        Arc::<Counters>::default(),
    );
    (pipeline, policy::compile(&model, 1, 1))
}

/// `data` is the first buffer of a frame of `len` bytes.
fn judge(path: &mut (Pipeline, Compiled), data: &[u8], len: usize) -> (Outcome, Parsed) {
    let (pipeline, policy) = path;
    let mut slot = Slot::default();
    pipeline.prepare(&mut slot, policy, PortId(0), data, len);
    pipeline.prefetch(&mut slot);
    let outcome = pipeline.decide(policy, Now::default(), PortId(0), data, &slot);
    (outcome, slot.parsed)
}

fn state(outcome: &Outcome) -> Option<CtState> {
    outcome.tracked.map(|tracked| tracked.state)
}

fn link(vlan: Option<u16>) -> Link {
    Link {
        dst: [2, 0, 0, 0, 0, 2],
        src: [2, 0, 0, 0, 0, 1],
        vlan,
    }
}

fn frame(vlan: Option<u16>, addrs: Addrs, segment: Segment<'_>, payload: &[u8]) -> Vec<u8> {
    let link = link(vlan);
    let mut bytes = vec![0; frame_len(&link, &addrs, &segment, payload)];
    emit(&mut bytes, &link, &addrs, 255, &segment, payload);
    bytes
}

/// Offset of the IP header in a frame of ours.
fn ip_at(frame: &[u8]) -> usize {
    usize::from(parse(frame, frame.len()).l3_offset)
}

fn is_v6(frame: &[u8]) -> bool {
    frame[ip_at(frame)] >> 4 == 6
}

/// The fixed IP header's end.
fn behind_ip(frame: &[u8]) -> usize {
    ip_at(frame) + if is_v6(frame) { 40 } else { 20 }
}

/// Makes the IP header's length, and the IPv4 header's checksum, fit the frame.
fn mend(frame: &mut [u8]) {
    let at = ip_at(frame);
    if frame[at] >> 4 == 6 {
        let len = (frame.len() - at - 40) as u16;
        frame[at + 4..at + 6].copy_from_slice(&len.to_be_bytes());
        return;
    }
    let len = (frame.len() - at) as u16;
    frame[at + 2..at + 4].copy_from_slice(&len.to_be_bytes());
    let header = (usize::from(frame[at] & 15) * 4).min(frame.len() - at);
    frame[at + 10..at + 12].fill(0);
    let sum = checksum(&frame[at..at + header]);
    frame[at + 10..at + 12].copy_from_slice(&sum.to_be_bytes());
}

/// The frame with `headers` behind its fixed IP header: IPv4 options, or IPv6 extension headers of
/// which the first is of kind `first` and the last names the transport.
fn extend(mut frame: Vec<u8>, first: u8, headers: &[u8]) -> Vec<u8> {
    let at = ip_at(&frame);
    let behind = frame.split_off(behind_ip(&frame));
    frame.extend(headers);
    frame.extend(behind);
    if is_v6(&frame) {
        frame[at + 6] = first;
    } else {
        frame[at] += (headers.len() / 4) as u8;
    }
    mend(&mut frame);
    frame
}

fn udp_lite(addrs: Addrs) -> Vec<u8> {
    let mut bytes = b"\x03\xe8\x00\x35\x00\x08\x00\x00payload".to_vec();
    let sum = Sum::default()
        .pseudo(&addrs, proto::UDPLITE, bytes.len() as u32)
        .bytes(&bytes[..8]);
    bytes[6..8].copy_from_slice(&sum.finish().to_be_bytes());
    bytes
}

fn samples() -> Vec<Sample> {
    const UDP: Segment<'_> = Segment::Udp {
        sport: 9,
        dport: 53,
    };
    let init = [&0xaaaa_u32.to_be_bytes()[..], &[0; 12]].concat();
    let init = sctp::packet(9, 80, 0, &sctp::encode(sctp::chunk::INIT, 0, &init));
    let beats = [
        sctp::encode(sctp::chunk::HEARTBEAT, 0, b"info"),
        sctp::encode(sctp::chunk::HEARTBEAT, 0, b"more"),
    ];
    let beats = sctp::packet(9, 80, 7, &beats.concat());
    let call = [0x30, 1, 0x88, 0x0b, 0, 4, 0, 7, 0, 0, 0, 1, 1, 2, 3, 4];
    let mut all = Vec::new();
    for (addrs, family, echo) in [(V4, "IPv4", 8), (V6, "IPv6", 128)] {
        let mut add = |name: &str, needed: usize, frame: Vec<u8>| {
            let name = format!("{name} over {family}");
            all.push(Sample {
                name,
                frame,
                needed,
            });
        };
        let tcp = Segment::Tcp {
            sport: 9,
            dport: 80,
            seq: 1,
            ack: 0,
            flags: 2,
            window: 1000,
            options: &[2, 4, 5, 0xb4, 4, 2, 1, 3, 3, 7],
        };
        let ping = Segment::Icmp {
            ty: echo,
            code: 0,
            rest: 7 << 16 | 1,
        };
        add("TCP with options", 32, frame(None, addrs, tcp, b"data"));
        add("UDP", 8 + 4, frame(None, addrs, UDP, b"data"));
        add("tagged UDP", 8 + 4, frame(Some(5), addrs, UDP, b"data"));
        add("ping", 8, frame(None, addrs, ping, b"data"));
        add(
            "UDP-Lite",
            8,
            frame(None, addrs, Segment::Raw(proto::UDPLITE), &udp_lite(addrs)),
        );
        add(
            "SCTP INIT",
            12 + 20,
            frame(None, addrs, Segment::Raw(proto::SCTP), &init),
        );
        add(
            "SCTP HEARTBEATs",
            12 + 4,
            frame(None, addrs, Segment::Raw(proto::SCTP), &beats),
        );
        add(
            "GRE",
            0,
            frame(None, addrs, Segment::Raw(proto::GRE), &[0, 0, 8, 0, 1, 2]),
        );
        add(
            "PPTP",
            0,
            frame(None, addrs, Segment::Raw(proto::GRE), &call),
        );
        add(
            "OSPF",
            0,
            frame(None, addrs, Segment::Raw(proto::OSPF), b"anything"),
        );
    }
    let v4 = frame(None, V4, UDP, b"data");
    all.push(Sample {
        name: "IPv4 with options".into(),
        frame: extend(v4, 0, &[1, 1, 1, 1, 7, 7, 4, 0, 0, 0, 0, 0]),
        needed: 12 + 8 + 4,
    });
    for (name, first, header) in [
        ("hop-by-hop", 0, &[17, 0, 1, 4, 0, 0, 0, 0][..]),
        ("routing", 43, &[17, 0, 4, 0, 0, 0, 0, 0]),
        (
            "destination options",
            60,
            &[17, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
        ("authentication", 51, &[17, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]),
        (
            "all of them",
            0,
            &[
                43, 0, 1, 4, 0, 0, 0, 0, 60, 0, 4, 0, 0, 0, 0, 0, 51, 0, 1, 4, 0, 0, 0, 0, 17, 1,
                0, 0, 0, 0, 0, 1, 0, 0, 0, 1,
            ],
        ),
    ] {
        all.push(Sample {
            name: format!("IPv6 with {name}"),
            frame: extend(frame(None, V6, UDP, b"data"), first, header),
            needed: header.len() + 8 + 4,
        });
    }
    all
}

#[test]
fn a_whole_packet_starts_a_flow() {
    for Sample { name, frame, .. } in samples() {
        let (outcome, _) = judge(&mut bridge(true), &frame, frame.len());
        assert_eq!(state(&outcome), Some(CtState::New), "{name}");
    }
}

#[test]
fn a_cut_frame_has_a_reason() {
    for Sample { name, frame, .. } in samples() {
        for keep in 0..frame.len() {
            let (outcome, _) = judge(&mut bridge(true), &frame[..keep], keep);
            let want = if keep < ip_at(&frame) {
                DropReason::ShortFrame
            } else {
                DropReason::IpHeader
            };
            assert_eq!(
                outcome.disposition,
                Disposition::Drop(want),
                "{keep} bytes of {name}"
            );
        }
    }
}

#[test]
fn a_cut_datagram_is_invalid_or_what_is_left_is_whole() {
    for Sample {
        name,
        frame,
        needed,
    } in samples()
    {
        let start = behind_ip(&frame);
        for keep in start..frame.len() {
            let mut cut = frame[..keep].to_vec();
            mend(&mut cut);
            // With checksums, whatever had one is INVALID.
            let (outcome, parsed) = judge(&mut bridge(true), &cut, keep);
            let sums = !matches!(parsed.l4, L4::Gre { .. } | L4::Other | L4::Bad);
            if parsed.l3 == L3::BadHeader {
                // Inside the IPv4 options.
                let want = Disposition::Drop(DropReason::IpHeader);
                assert_eq!(outcome.disposition, want, "{keep} bytes of {name}");
                continue;
            }
            if sums {
                assert_eq!(
                    state(&outcome),
                    Some(CtState::Invalid),
                    "{keep} bytes of {name}"
                );
            }
            // Without, the length decides.
            let (outcome, _) = judge(&mut bridge(false), &cut, keep);
            let want = if keep - start < needed {
                CtState::Invalid
            } else {
                CtState::New
            };
            assert_eq!(
                state(&outcome),
                Some(want),
                "{keep} bytes of {name}, no checksums"
            );
        }
    }
}

#[test]
fn a_first_buffer_that_is_short_is_never_misread() {
    for Sample { name, frame, .. } in samples() {
        let whole = parse(&frame, frame.len());
        for keep in 0..frame.len() {
            let (outcome, parsed) = judge(&mut bridge(true), &frame[..keep], frame.len());
            match outcome.disposition {
                Disposition::Drop(reason) => assert!(
                    matches!(reason, DropReason::ShortFrame | DropReason::IpHeader),
                    "{keep} bytes of {name}: {reason:?}"
                ),
                _ if state(&outcome) == Some(CtState::Invalid) => {}
                // What could be read was read right.
                _ => assert_eq!(
                    (parsed.addrs, parsed.proto),
                    (whole.addrs, whole.proto),
                    "{keep} bytes of {name}"
                ),
            }
        }
    }
}

/// An error is RELATED as long as it quotes the ports, or what stands for them.
#[test]
fn a_cut_quote_is_invalid() {
    for Sample {
        name, frame: about, ..
    } in samples()
    {
        let v6 = is_v6(&about);
        let (addrs, ty) = if v6 { (V6, 1) } else { (V4, 3) };
        let quote = &about[ip_at(&about)..];
        let parsed = parse(&about, about.len());
        let ports = usize::from(parsed.l4_offset - parsed.l3_offset)
            + match parsed.l4 {
                L4::Icmp { .. } => 8,
                L4::Gre { call_id: 1.. } => 8,
                L4::Gre { .. } | L4::Other => 0,
                _ => 4,
            };
        for keep in 0..=quote.len() {
            let mut path = bridge(true);
            let (outcome, _) = judge(&mut path, &about, about.len());
            assert_eq!(state(&outcome), Some(CtState::New), "{name}");
            let unreachable = Segment::Icmp {
                ty,
                code: 1,
                rest: 0,
            };
            let error = frame(None, addrs.flip(), unreachable, &quote[..keep]);
            let (outcome, _) = judge(&mut path, &error, error.len());
            let want = if keep < ports {
                CtState::Invalid
            } else {
                CtState::Related
            };
            assert_eq!(state(&outcome), Some(want), "{keep} bytes of {name} quoted");
        }
    }
}
