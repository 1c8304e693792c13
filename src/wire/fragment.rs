//! Fragments of an IP datagram (RFC 791 3.2, RFC 8200 4.5): where the bytes of one belong, and how
//! all of them become one frame again.
//!
//! Pure functions over frames; holding fragments, and telling which belong together, is left to
//! the caller.

use super::checksum::checksum;
use super::parsed::{Fragment, L3, Parsed};
use super::{icmp, ipv4, ipv6, parse, proto, tcp, udp};
use std::ops::Range;
use zerocopy::byteorder::{BE, U16};
use zerocopy::{FromBytes, IntoBytes};

/// Bytes of the longest frame that [`join`] writes: link header, two tags, an IPv6 header and
/// 65535 bytes behind it.
pub const MAX_JOINED: usize = 14 + 2 * 4 + ipv6::HEADER_LEN + 65_535;

/// Where a fragment's bytes lie and where they belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// What the fragments of a datagram share.
    pub id: u32,
    /// Where its bytes belong in the datagram's payload.
    pub start: u32,
    /// How many they are.
    pub len: u32,
    /// Whether more follow.
    pub more: bool,
    /// Where they lie in the frame.
    pub body: usize,
    /// Bytes that the length field of the whole datagram counts besides: IPv4's header, IPv6's
    /// extension headers in front of the fragment header.
    pub before: u32,
    /// Its two bits of congestion notification (RFC 3168).
    pub ecn: u8,
}

impl Piece {
    /// Just behind its last byte.
    pub const fn end(&self) -> u32 {
        self.start + self.len
    }

    /// Reads the fragment `parsed`, which is [`Fragment::First`] or [`Fragment::Later`], in the
    /// frame `data`. `None` if the frame is not all there, or if it is the first of an IPv6
    /// datagram and does not hold all headers (RFC 8200 4.5, RFC 7112).
    pub fn of(data: &[u8], parsed: &Parsed) -> Option<Piece> {
        let start = usize::from(parsed.l3_offset);
        let datagram = data.get(start..parsed.end as usize)?;
        match parsed.l3 {
            L3::Ipv4 => {
                let (header, _) = ipv4::Header::ref_from_prefix(datagram).ok()?;
                let field = header.fragment.get();
                let before = header.header_len();
                Some(Piece {
                    id: u32::from(header.id.get()),
                    start: u32::from(field & ipv4::OFFSET_MASK) * 8,
                    len: datagram.len().checked_sub(before)? as u32,
                    more: field & ipv4::MORE_FRAGMENTS != 0,
                    body: start + before,
                    before: before as u32,
                    ecn: header.tos & 3,
                })
            }
            L3::Ipv6 => {
                let (header, _) = ipv6::Header::ref_from_prefix(datagram).ok()?;
                let found = ipv6::fragment(datagram, header.next_header)?;
                if found.start == 0 && !shows_transport(datagram, header.next_header) {
                    return None;
                }
                let body = found.offset + ipv6::FRAGMENT_LEN;
                Some(Piece {
                    id: found.id,
                    start: u32::from(found.start),
                    len: datagram.len().checked_sub(body)? as u32,
                    more: found.more,
                    body: start + body,
                    before: (found.offset - ipv6::HEADER_LEN) as u32,
                    ecn: (header.version_class_flow.get() >> 20) as u8 & 3,
                })
            }
            _ => None,
        }
    }
}

/// Whether the chain of headers in `datagram` reaches a transport header, and that is there: as
/// much as Linux asks for (`ipv6frag_thdr_truncated`).
fn shows_transport(datagram: &[u8], next_header: u8) -> bool {
    let Some(found) = ipv6::transport(datagram, next_header) else {
        return false;
    };
    let least = match found.proto {
        proto::TCP => tcp::HEADER_LEN,
        proto::UDP => udp::HEADER_LEN,
        proto::ICMPV6 => icmp::HEADER_LEN,
        _ => 1,
    };
    found.offset + least <= datagram.len()
}

/// Writes the datagram whose fragments are `frames`, in the order of their offsets, to the start
/// of `out` ([`MAX_JOINED`] bytes are always enough) as one frame, with the link and IP headers of
/// the first; returns its length. `None` if they do not follow each other from the first to the
/// last, or make more than a datagram can have.
pub fn join<'a>(out: &mut [u8], frames: impl Iterator<Item = &'a [u8]>) -> Option<usize> {
    // Where the payload begins in `out`, and how much of it is there.
    let (mut head, mut filled) = (None, 0);
    let mut done = false;
    for data in frames {
        let parsed = parse(data, data.len());
        if done || !parsed.fragment.is_part() {
            return None;
        }
        let piece = Piece::of(data, &parsed)?;
        if piece.start != filled {
            return None;
        }
        let at = match head {
            Some((_, at, _)) => at,
            None => {
                let at = copy_headers(out, data, &parsed, &piece)?;
                head = Some((parsed, at, piece.before));
                at
            }
        };
        let to = at + filled as usize;
        let body = &data[piece.body..parsed.end as usize];
        out.get_mut(to..to + body.len())?.copy_from_slice(body);
        filled = piece.end();
        done = !piece.more;
    }
    let (parsed, at, before) = head?;
    let total = u16::try_from(before + filled).ok()?;
    let header = out.get_mut(usize::from(parsed.l3_offset)..at)?;
    match parsed.l3 {
        L3::Ipv4 => {
            let (fixed, _) = ipv4::Header::mut_from_prefix(header).ok()?;
            fixed.total_len = total.into();
            fixed.fragment = 0.into();
            fixed.checksum = 0.into();
            let sum = checksum(header);
            let (fixed, _) = ipv4::Header::mut_from_prefix(header).ok()?;
            fixed.checksum = sum.into();
        }
        _ => {
            let (fixed, _) = ipv6::Header::mut_from_prefix(header).ok()?;
            fixed.payload_len = total.into();
        }
    }
    done.then_some(at + filled as usize)
}

/// Copies everything in front of the payload, IPv6's fragment header left out; returns the length.
fn copy_headers(out: &mut [u8], data: &[u8], parsed: &Parsed, piece: &Piece) -> Option<usize> {
    debug_assert_eq!(parsed.fragment, Fragment::First);
    match parsed.l3 {
        L3::Ipv6 => {
            let start = usize::from(parsed.l3_offset);
            let len = piece.body - ipv6::FRAGMENT_LEN;
            out.get_mut(..len)?.copy_from_slice(&data[..len]);
            let datagram = &data[start..];
            let (header, _) = ipv6::Header::ref_from_prefix(datagram).ok()?;
            let found = ipv6::fragment(datagram, header.next_header)?;
            out[start + found.named_at] = data[len];
            Some(len)
        }
        _ => {
            out.get_mut(..piece.body)?
                .copy_from_slice(&data[..piece.body]);
            Some(piece.body)
        }
    }
}

/// Cuts the datagram in `frame` into fragments of at most `most` bytes of payload (a multiple of
/// eight), with identification `id`: for tests, fuzzing and generators. The order is that of the
/// offsets.
pub fn cut(frame: &[u8], id: u32, most: usize) -> Vec<Vec<u8>> {
    let len = payload(frame).len();
    let most = (most & !7).max(8);
    (0..len)
        .step_by(most)
        .map(|start| part(frame, id, start..len.min(start + most), start + most < len))
        .collect()
}

/// What the fragments of the datagram in `frame` share among them: everything behind the IPv4
/// header, or the fixed IPv6 header.
fn payload(frame: &[u8]) -> Range<usize> {
    let parsed = parse(frame, frame.len());
    let body = match parsed.l3 {
        L3::Ipv6 => usize::from(parsed.l3_offset) + ipv6::HEADER_LEN,
        _ => usize::from(parsed.l4_offset),
    };
    body..parsed.end as usize
}

/// The fragment with the bytes `range` of the datagram in `frame`. `more` is what it says about
/// more to follow, whether there is more or not.
pub fn part(frame: &[u8], id: u32, range: Range<usize>, more: bool) -> Vec<u8> {
    let payload = payload(frame);
    let (body, bytes) = (payload.start, &frame[payload][range.clone()]);
    let parsed = parse(frame, frame.len());
    let at = usize::from(parsed.l3_offset);
    let mut out = frame[..body].to_vec();
    if parsed.l3 == L3::Ipv6 {
        let next = std::mem::replace(&mut out[at + 6], ipv6::ext::FRAGMENT);
        let payload = (ipv6::FRAGMENT_LEN + bytes.len()) as u16;
        out[at + 4..at + 6].copy_from_slice(&payload.to_be_bytes());
        let field = range.start as u16 | u16::from(more);
        out.extend_from_slice(&[next, 0]);
        out.extend_from_slice(U16::<BE>::from(field).as_bytes());
        out.extend_from_slice(&id.to_be_bytes());
    } else {
        let more = if more { ipv4::MORE_FRAGMENTS } else { 0 };
        let total = (body - at + bytes.len()) as u16;
        if let Ok((header, _)) = ipv4::Header::mut_from_prefix(&mut out[at..]) {
            header.total_len = total.into();
            header.id = (id as u16).into();
            header.fragment = ((range.start / 8) as u16 | more).into();
            header.checksum = 0.into();
        }
        let sum = checksum(&out[at..]);
        out[at + 10..at + 12].copy_from_slice(&sum.to_be_bytes());
    }
    out.extend_from_slice(bytes);
    out
}

#[cfg(test)]
mod tests {
    use super::super::build::{Link, Segment, emit, frame, frame_len};
    use super::*;
    use crate::wire::Addrs;

    const V4: Addrs = Addrs::V4 {
        src: 0x0a00_0001,
        dst: 0x0a00_0002,
    };
    const V6: Addrs = Addrs::V6 {
        src: 0xfd << 120 | 1,
        dst: 0xfd << 120 | 2,
    };
    const UDP: Segment<'static> = Segment::Udp { sport: 1, dport: 2 };

    fn joined(frames: &[Vec<u8>]) -> Option<Vec<u8>> {
        let mut out = vec![0xaa; MAX_JOINED];
        let len = join(&mut out, frames.iter().map(Vec::as_slice))?;
        out.truncate(len);
        Some(out)
    }

    /// What `join` must make of the fragments of `frame`.
    fn expected(frame: &[u8], id: u16) -> Vec<u8> {
        let parsed = parse(frame, frame.len());
        let mut want = frame.to_vec();
        if parsed.l3 == L3::Ipv4 {
            let at = usize::from(parsed.l3_offset);
            let end = usize::from(parsed.l4_offset);
            want[at + 4..at + 6].copy_from_slice(&id.to_be_bytes());
            want[at + 6..at + 8].fill(0);
            want[at + 10..at + 12].fill(0);
            let sum = checksum(&want[at..end]);
            want[at + 10..at + 12].copy_from_slice(&sum.to_be_bytes());
        }
        want
    }

    #[test]
    fn what_was_cut_is_joined_to_what_it_was() {
        let payload: Vec<u8> = (0..3000u32).map(|i| (i * 7) as u8).collect();
        for addrs in [V4, V6] {
            let whole = frame(addrs, UDP, &payload);
            for most in [8, 552, 1480, 2992] {
                let fragments = cut(&whole, 77, most);
                assert_eq!(fragments.len(), 3008_usize.div_ceil(most));
                assert_eq!(joined(&fragments).unwrap(), expected(&whole, 77));
            }
        }
    }

    #[test]
    fn the_longest_datagram_is_joined_and_nothing_longer() {
        for (addrs, most) in [(V4, 65_535 - 28), (V6, 65_535 - 8)] {
            let link = Link {
                vlan: Some(5),
                ..Link::default()
            };
            let payload = vec![7; most];
            let mut whole = vec![0; frame_len(&link, &addrs, &UDP, &payload)];
            emit(&mut whole, &link, &addrs, 64, &UDP, &payload);
            let mut fragments = cut(&whole, 1, 1480);
            let out = joined(&fragments).unwrap();
            assert_eq!(out, expected(&whole, 1));
            let parsed = parse(&out, out.len());
            assert_eq!(parsed.end as usize, out.len());
            assert_eq!(parsed.dport(), Some(2));
            // A last fragment that reaches eight bytes further: the first ones, at another place.
            let start = (fragments.len() - 1) * 1480;
            let end = payload.len() + 8;
            let mut last = part(&whole, 1, 0..end - start + 8, false);
            let at = usize::from(parsed.l3_offset);
            match addrs {
                Addrs::V4 { .. } => {
                    last[at + 6..at + 8].copy_from_slice(&(start as u16 / 8).to_be_bytes());
                    last[at + 10..at + 12].fill(0);
                    let sum = checksum(&last[at..at + 20]);
                    last[at + 10..at + 12].copy_from_slice(&sum.to_be_bytes());
                }
                Addrs::V6 { .. } => {
                    last[at + 42..at + 44].copy_from_slice(&(start as u16).to_be_bytes());
                }
            }
            assert_eq!(parse(&last, last.len()).fragment, Fragment::Later);
            *fragments.last_mut().unwrap() = last;
            assert_eq!(joined(&fragments), None);
        }
    }

    #[test]
    fn headers_in_front_of_the_fragment_header_stay() {
        // hop-by-hop options, then the fragment header
        let payload = [9; 40];
        let udp = &frame(V6, UDP, &payload)[54..];
        let make = |start: u16, more: bool, bytes: &[u8]| {
            let mut body = vec![44, 0, 1, 4, 0, 0, 0, 0, 17, 0];
            body.extend_from_slice(&(start | u16::from(more)).to_be_bytes());
            body.extend_from_slice(&[0, 0, 0, 7]);
            body.extend_from_slice(bytes);
            frame(V6, Segment::Raw(0), &body)
        };
        let fragments = [make(0, true, &udp[..24]), make(24, false, &udp[24..])];
        let want = [&[17, 0, 1, 4, 0, 0, 0, 0], udp].concat();
        assert_eq!(
            joined(&fragments).unwrap(),
            frame(V6, Segment::Raw(0), &want)
        );
    }

    #[test]
    fn what_does_not_follow_is_not_joined() {
        for addrs in [V4, V6] {
            let whole = frame(addrs, UDP, &[1; 64]);
            let fragments = cut(&whole, 1, 24);
            assert_eq!(fragments.len(), 3);
            let pick = |order: &[usize]| -> Vec<Vec<u8>> {
                order.iter().map(|at| fragments[*at].clone()).collect()
            };
            assert!(joined(&pick(&[0, 1, 2])).is_some());
            for order in [
                &[][..],
                &[0],
                &[0, 1],
                &[0, 2],
                &[1, 2],
                &[1, 0, 2],
                &[0, 0, 1, 2],
                &[0, 1, 2, 2],
            ] {
                assert_eq!(joined(&pick(order)), None, "{order:?}");
            }
            assert_eq!(joined(std::slice::from_ref(&whole)), None);
            // too little room
            let mut out = vec![0; whole.len() - 1];
            assert_eq!(join(&mut out, fragments.iter().map(Vec::as_slice)), None);
        }
    }

    #[test]
    fn an_ipv6_fragment_that_hides_its_headers_is_none() {
        let tcp = Segment::Tcp {
            sport: 1,
            dport: 2,
            seq: 3,
            ack: 4,
            flags: 2,
            window: 5,
            options: &[],
        };
        for (most, shows) in [(8, false), (16, false), (24, true)] {
            let first = &cut(&frame(V6, tcp, &[0; 80]), 1, most)[0];
            let parsed = parse(first, first.len());
            assert_eq!(parsed.fragment, Fragment::First);
            assert_eq!(Piece::of(first, &parsed).is_some(), shows, "{most}");
        }
        // destination options that go on in the next fragment: still a fragment, and refused
        let cut_short = frame(V6, Segment::Raw(44), &[60, 0, 0, 1, 0, 0, 0, 9, 17, 3]);
        let parsed = parse(&cut_short, cut_short.len());
        assert_eq!(parsed.fragment, Fragment::First);
        assert_eq!(Piece::of(&cut_short, &parsed), None);
        // IPv4 has no such rule; its tiny fragments are joined before anybody looks (RFC 1858)
        let first = &cut(&frame(V4, tcp, &[0; 80]), 1, 8)[0];
        assert!(Piece::of(first, &parse(first, first.len())).is_some());
    }

    #[test]
    fn a_frame_that_is_not_all_there_is_none() {
        for addrs in [V4, V6] {
            let first = &cut(&frame(addrs, UDP, &[0; 80]), 1, 40)[0];
            let parsed = parse(&first[..first.len() - 1], first.len());
            assert!(parsed.fragment.is_part());
            assert_eq!(Piece::of(&first[..first.len() - 1], &parsed), None);
        }
    }
}
