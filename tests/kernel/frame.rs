//! The bytes of a conversation's packets, and the names of their flows.

use crate::oracle::{HOSTS, LEGS};
use crate::scenario::{Body, Chunk, Ends, Scenario};
use crate::text;
use shardwall::wire::Addrs;
use shardwall::wire::build::{self, Link};
use shardwall::wire::checksum::{Sum, checksum};

const CLIENT_PORT: u16 = 40_000;

/// Labels that belong to no conversation: routers, and hosts that are not concerned.
const ROUTER: u32 = 1;
const STRANGER: u32 = 2;
/// The first label of a conversation.
pub(crate) const FIRST_LABEL: u32 = 256;
/// One more than the last.
pub(crate) const LABELS: u32 = SPREAD * SPREAD;
/// How many values either of a label's two bytes in an address has.
const SPREAD: u32 = 156;
/// The least of them. In texts each of them has three digits, so that all conversations say the same
/// number of bytes.
const LEAST: u32 = 100;

/// Offset of the IP header in a frame, and of what follows it.
const IP: usize = 14;
const BEHIND_IP: [usize; 2] = [IP + 20, IP + 40];
/// Offset of the IPv6 header's next-header field, and of IPv4's protocol.
const NEXT_HEADER: [usize; 2] = [IP + 9, IP + 6];
/// The protocol number of an IPv6 fragment header.
const FRAGMENT: u8 = 44;

/// Where a conversation takes place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Its number, in its addresses.
    pub(crate) label: u32,
    v6: bool,
    ends: Ends,
}

impl Place {
    /// The place of `scenario`, which nobody had before.
    pub(crate) fn new(label: u32, scenario: &Scenario) -> Self {
        let ends = Ends {
            ports: [CLIENT_PORT, scenario.port],
            other: [false; 2],
        };
        let v6 = scenario.v6;
        Self { label, v6, ends }
    }

    /// Somewhere.
    pub(crate) fn anywhere(v6: bool) -> Self {
        let ends = Ends {
            ports: [0; 2],
            other: [false; 2],
        };
        let label = FIRST_LABEL;
        Self { label, v6, ends }
    }

    /// The same conversation's place for a flow between `ends`.
    pub(crate) fn on(&self, ends: Option<Ends>) -> Self {
        let ends = ends.unwrap_or(self.ends);
        Self { ends, ..*self }
    }

    /// The host at `side`, or another one there.
    pub(crate) fn host(&self, label: u32, side: usize, other: bool) -> Addrs {
        let n = side as u32 + 1;
        let label = (LEAST + label / SPREAD) << 8 | (LEAST + label % SPREAD);
        if self.v6 {
            let other = u128::from(other) << 16;
            let src = (0xfd00 | u128::from(n)) << 112 | other | u128::from(label);
            Addrs::V6 { src, dst: 0 }
        } else {
            let n = n + 2 * u32::from(other);
            let src = 0x0a00_0000 | n << 16 | label;
            Addrs::V4 { src, dst: 0 }
        }
    }

    /// The label that an address with these last two bytes has.
    pub(crate) fn label_of(bytes: u32) -> Option<u32> {
        let (high, low) = ((bytes >> 8 & 0xff), bytes & 0xff);
        let (high, low) = (high.checked_sub(LEAST)?, low.checked_sub(LEAST)?);
        Some(high * SPREAD + low)
    }

    /// The addresses of a packet that `side` sends.
    pub(crate) fn addrs(&self, side: usize) -> Addrs {
        let host = |side: usize| self.host(self.label, side, self.ends.other[side]);
        between(host(side), host(1 - side))
    }

    /// The ports of a packet that `side` sends.
    pub(crate) fn ports(&self, side: usize) -> [u16; 2] {
        [self.ends.ports[side], self.ends.ports[1 - side]]
    }

    /// The identifier of queries.
    pub(crate) fn query_id(&self) -> u16 {
        self.label as u16
    }

    /// The frame of `body`, sent by `side`.
    pub(crate) fn frame(&self, side: usize, body: &Body) -> Vec<u8> {
        let v6 = self.v6;
        match *body {
            Body::Bent {
                cut,
                poke,
                ref body,
            } => bend(self.frame(side, body), v6, cut, poke),
            Body::Via {
                ref headers,
                ref body,
            } => extend(self.frame(side, body), v6, headers),
            Body::BadSum(ref body) => spoil(self.frame(side, body), v6),
            Body::Fragment {
                id,
                from,
                to,
                ref body,
            } => piece(self.frame(side, body), v6, id, from, to),
            Body::On { ends, ref body } => self.on(Some(ends)).frame(side, body),
            Body::Says { ref text, ref body } => {
                self.whole(side, body, Some(text::render(text, self)))
            }
            _ => self.whole(side, body, None),
        }
    }

    /// A frame of nothing but a segment and its payload: of TCP and UDP what is `said`, if anything.
    fn whole(&self, side: usize, body: &Body, said: Option<Vec<u8>>) -> Vec<u8> {
        let v6 = self.v6;
        let mut addrs = self.addrs(side);
        let [sport, dport] = self.ports(side);
        let mut ttl = 64;
        let filled = |len: u16| vec![b'x'; usize::from(len)];
        let (segment, payload) = match *body {
            Body::Tcp {
                flags,
                seq,
                ack,
                window,
                len,
                ref options,
            } => {
                let segment = build::Segment::Tcp {
                    sport,
                    dport,
                    seq,
                    ack,
                    flags,
                    window,
                    options,
                };
                (segment, said.unwrap_or(filled(len)))
            }
            Body::Udp { len } => {
                let segment = build::Segment::Udp { sport, dport };
                (segment, said.unwrap_or(filled(len)))
            }
            Body::Icmp { ty, code } => {
                let rest = self.label << 16 | 7;
                (build::Segment::Icmp { ty, code, rest }, Vec::new())
            }
            Body::Raw { proto, len } => (build::Segment::Raw(proto), filled(len)),
            Body::UdpLite { coverage, len } => {
                let bytes = udplite(&addrs, sport, dport, coverage, &filled(len));
                (build::Segment::Raw(136), bytes)
            }
            Body::Sctp { vtag, ref chunks } => {
                (build::Segment::Raw(132), sctp(sport, dport, vtag, chunks))
            }
            Body::Gre { version, key, len } => {
                (build::Segment::Raw(47), gre(version, key, &filled(len)))
            }
            Body::Error {
                ty,
                code,
                rest,
                astray,
                of,
                ref about,
            } => {
                let stranger = if astray { STRANGER } else { self.label };
                let stranger = self.host(stranger, 1 - side, false);
                addrs = between(self.host(ROUTER, side, false), stranger);
                let mut quote = self.frame(of, about).split_off(IP);
                // As much as routers quote (RFC 792, RFC 4443 2.4).
                quote.truncate(if v6 { 1_200 } else { 28 });
                (build::Segment::Icmp { ty, code, rest }, quote)
            }
            Body::Redirect { of, ref about } => {
                let router = Addrs::V6 {
                    src: 0xfe80 << 112 | 1,
                    dst: 0,
                };
                addrs = between(router, self.host(self.label, 1 - side, false));
                ttl = 255;
                let segment = build::Segment::Icmp {
                    ty: 137,
                    code: 0,
                    rest: 0,
                };
                (segment, self.redirected(of, about))
            }
            _ => unreachable!("has something around it"),
        };
        let link = Link {
            dst: LEGS[side],
            src: HOSTS[side],
            vlan: None,
        };
        let mut out = vec![0; build::frame_len(&link, &addrs, &segment, &payload)];
        build::emit(&mut out, &link, &addrs, ttl, &segment, &payload);
        out
    }

    /// What a redirect says: a better hop, the destination, and the packet in an option.
    fn redirected(&self, of: usize, about: &Body) -> Vec<u8> {
        let mut quote = self.frame(of, about).split_off(IP);
        quote.truncate(1_000);
        quote.resize(quote.len().next_multiple_of(8), 0);
        let Addrs::V6 { dst, .. } = self.addrs(of) else {
            unreachable!("an IPv6 message")
        };
        let mut bytes = Vec::new();
        bytes.extend((0xfe80u128 << 112 | 2).to_be_bytes());
        bytes.extend(dst.to_be_bytes());
        bytes.extend([4, (1 + quote.len() / 8) as u8, 0, 0, 0, 0, 0, 0]);
        bytes.extend(quote);
        bytes
    }
}

/// From one host to another.
fn between(from: Addrs, to: Addrs) -> Addrs {
    match (from, to) {
        (Addrs::V4 { src, .. }, Addrs::V4 { src: dst, .. }) => Addrs::V4 { src, dst },
        (Addrs::V6 { src, .. }, Addrs::V6 { src: dst, .. }) => Addrs::V6 { src, dst },
        _ => unreachable!("one conversation, one family"),
    }
}

fn udplite(addrs: &Addrs, sport: u16, dport: u16, coverage: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [sport, dport, coverage, 0] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(payload);
    let covered = match usize::from(coverage) {
        0 => bytes.len(),
        some => some.min(bytes.len()),
    };
    let sum = Sum::default().pseudo(addrs, 136, bytes.len() as u32);
    let sum = match sum.bytes(&bytes[..covered]).finish() {
        0 => 0xffff,
        sum => sum,
    };
    bytes[6..8].copy_from_slice(&sum.to_be_bytes());
    bytes
}

fn gre(version: u8, key: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = match version {
        1 => vec![0x20, 0x01, 0x88, 0x0b],
        _ => vec![0, version, 0x08, 0x00],
    };
    if version == 1 {
        bytes.extend((payload.len() as u16).to_be_bytes());
        bytes.extend(key.to_be_bytes());
    }
    bytes.extend(payload);
    bytes
}

/// An SCTP packet (RFC 9260 3).
fn sctp(sport: u16, dport: u16, vtag: u32, chunks: &[Chunk]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(sport.to_be_bytes());
    bytes.extend(dport.to_be_bytes());
    bytes.extend(vtag.to_be_bytes());
    bytes.extend([0; 4]);
    for chunk in chunks {
        let value = match chunk.ty {
            // Initiate tag, window, streams, first TSN.
            1 | 2 => [
                &chunk.value.to_be_bytes()[..],
                &[0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1],
            ]
            .concat(),
            _ => vec![0; chunk.value as usize],
        };
        bytes.extend([chunk.ty, chunk.flags]);
        bytes.extend((4 + value.len() as u16).to_be_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    let sum = crc32c(&bytes).to_le_bytes();
    bytes[8..12].copy_from_slice(&sum);
    bytes
}

/// CRC32c (RFC 9260 appendix A), bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    };
    !bytes.iter().fold(!0, step)
}

/// Shortens and changes a frame behind its IP header, whose lengths and checksum stay right.
fn bend(mut frame: Vec<u8>, v6: bool, cut: u16, poke: Option<(u16, u8)>) -> Vec<u8> {
    let start = BEHIND_IP[usize::from(v6)];
    frame.truncate(start.max(frame.len().saturating_sub(usize::from(cut))));
    if let Some((at, value)) = poke
        && let Some(byte) = frame.get_mut(start + usize::from(at))
    {
        *byte = value;
    }
    mend(&mut frame, v6);
    frame
}

/// Makes the transport checksum of a frame without anything between its headers wrong.
fn spoil(mut frame: Vec<u8>, v6: bool) -> Vec<u8> {
    let field = match frame[NEXT_HEADER[usize::from(v6)]] {
        6 => 16,
        17 | 136 => 6,
        1 | 58 => 2,
        132 => 8,
        _ => return frame,
    };
    // Not to zero, which is no checksum in UDP.
    if let Some(bytes) = frame.get_mut(BEHIND_IP[usize::from(v6)] + field..)
        && let [high, low, ..] = bytes
    {
        let was = u16::from_be_bytes([*high, *low]);
        let [a, b] = if was == 0x5a5a {
            0x1234
        } else {
            was ^ 0x5a5a_u16
        }
        .to_be_bytes();
        (*high, *low) = (a, b);
    }
    frame
}

/// Puts extension headers that say nothing (IPv6), or options that do nothing (IPv4), behind the IP
/// header.
fn extend(mut frame: Vec<u8>, v6: bool, headers: &[u8]) -> Vec<u8> {
    let start = BEHIND_IP[usize::from(v6)];
    let behind = frame.split_off(start);
    if v6 {
        let mut next = NEXT_HEADER[1];
        for kind in headers {
            let proto = std::mem::replace(&mut frame[next], *kind);
            next = frame.len();
            match *kind {
                // Authentication: a length in words, less two; index and sequence number.
                51 => frame.extend([proto, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]),
                // Routing: of a type that leaves nothing to do.
                43 => frame.extend([proto, 0, 4, 0, 0, 0, 0, 0]),
                // Options: padding.
                _ => frame.extend([proto, 0, 1, 4, 0, 0, 0, 0]),
            }
        }
    } else {
        frame.resize(start + headers.len() * 4, 1);
        frame[IP] += headers.len() as u8;
    }
    frame.extend(behind);
    mend(&mut frame, v6);
    frame
}

/// The bytes from `from` to `to` behind the IP header, as a fragment.
fn piece(mut frame: Vec<u8>, v6: bool, id: u16, from: u16, to: Option<u16>) -> Vec<u8> {
    let start = if v6 {
        BEHIND_IP[1]
    } else {
        IP + usize::from(frame[IP] & 0xf) * 4
    };
    let data = frame.split_off(start);
    let end = to.map_or(data.len(), usize::from).min(data.len());
    let begin = usize::from(from).min(end);
    let more = to.is_some();
    if v6 {
        let proto = std::mem::replace(&mut frame[NEXT_HEADER[1]], FRAGMENT);
        frame.extend([proto, 0]);
        frame.extend((from & !7 | u16::from(more)).to_be_bytes());
        frame.extend(u32::from(id).to_be_bytes());
    } else {
        frame[IP + 4..IP + 6].copy_from_slice(&id.to_be_bytes());
        let word = (u16::from(more) << 13) | (from / 8);
        frame[IP + 6..IP + 8].copy_from_slice(&word.to_be_bytes());
    }
    frame.extend(&data[begin..end]);
    mend(&mut frame, v6);
    frame
}

/// Corrects the IP header's length, and its checksum.
fn mend(frame: &mut [u8], v6: bool) {
    let from = if v6 { BEHIND_IP[1] } else { IP };
    let len = ((frame.len() - from) as u16).to_be_bytes();
    let field = if v6 { IP + 4 } else { IP + 2 };
    frame[field..field + 2].copy_from_slice(&len);
    if !v6 {
        let end = (IP + usize::from(frame[IP] & 0xf) * 4).min(frame.len());
        frame[IP + 10..IP + 12].fill(0);
        let sum = checksum(&frame[IP..end]).to_be_bytes();
        frame[IP + 10..IP + 12].copy_from_slice(&sum);
    }
}
