//! The answers of `reject`: a TCP RST (RFC 9293 3.10.7.1), or ICMP unreachable (RFC 1812 4.3.2.7,
//! RFC 4443 2.4 and 3.1), sent in the destination's name, since a transparent box has no address.
//!
//! Nothing is answered that must not be: an RST, an ICMP error, a fragment, a packet to or from a
//! group or broadcast address.

use crate::conntrack::icmp::{self, Role};
use crate::policy::RejectWith;
use crate::wire::build::{self, Link, Segment};
use crate::wire::tcp::flags;
use crate::wire::{Addrs, Fragment, L3, L4, NO_VLAN, Parsed};

/// Bytes that an answer can have at most: an ICMPv6 error fills the minimum MTU (RFC 4443 2.4).
pub const MAX_ANSWER: usize = 14 + 4 + 1280;
/// What an ICMP error quotes at most, so that it stays within 576 bytes (RFC 1812 4.3.2.3).
const QUOTE_V4: usize = 576 - 20 - 8;
const QUOTE_V6: usize = 1280 - 40 - 8;
const TTL: u8 = 64;

/// Writes the answer to the rejected frame `data` into `out` ([`MAX_ANSWER`] bytes) and returns
/// its length; `None` if the packet must not be answered.
pub fn answer(with: RejectWith, data: &[u8], parsed: &Parsed, out: &mut [u8]) -> Option<usize> {
    if parsed.fragment == Fragment::Later || !answerable(data, parsed) {
        return None;
    }
    let link = Link {
        dst: data.get(6..12)?.try_into().ok()?,
        src: data.get(0..6)?.try_into().ok()?,
        vlan: (parsed.vlan != NO_VLAN).then_some(parsed.vlan),
    };
    let addrs = parsed.addrs.flip();
    if with == RejectWith::TcpReset {
        let segment = reset(parsed)?;
        return Some(build::emit(out, &link, &addrs, TTL, &segment, &[]));
    }
    let v6 = parsed.l3 == L3::Ipv6;
    let (v4, code6) = codes(with);
    let (ty, code) = if v6 { (1, code6) } else { (3, v4) };
    let datagram = data.get(usize::from(parsed.l3_offset)..data.len().min(parsed.end as usize))?;
    let most = if v6 { QUOTE_V6 } else { QUOTE_V4 };
    let quote = &datagram[..datagram.len().min(most)];
    let segment = Segment::Icmp { ty, code, rest: 0 };
    Some(build::emit(out, &link, &addrs, TTL, &segment, quote))
}

/// The code of "destination unreachable" in ICMP (RFC 792, RFC 1122 3.2.2.1, RFC 1812 5.2.7.1) and in
/// ICMPv6 (RFC 4443 3.1); where one of them has none, the nearest.
const fn codes(with: RejectWith) -> (u8, u8) {
    match with {
        RejectWith::NetUnreachable => (0, 0),
        RejectWith::HostUnreachable => (1, 3),
        RejectWith::ProtoUnreachable => (2, 4),
        RejectWith::IcmpPortUnreachable | RejectWith::TcpReset => (3, 4),
        RejectWith::NetProhibited => (9, 1),
        RejectWith::HostProhibited => (10, 1),
        RejectWith::AdminProhibited => (13, 1),
        RejectWith::PolicyFail => (13, 5),
        RejectWith::RejectRoute => (0, 6),
    }
}

/// The RST that answers a TCP segment: it takes the acknowledgement for its own number, or
/// acknowledges everything that came. No RST answers a RST.
fn reset(parsed: &Parsed) -> Option<Segment<'static>> {
    let L4::Tcp(tcp) = parsed.l4 else { return None };
    if tcp.flags & flags::RST != 0 {
        return None;
    }
    let len = parsed.end - u32::from(parsed.l4_offset) - u32::from(tcp.header_len);
    let phantom = u32::from(tcp.flags & flags::SYN != 0) + u32::from(tcp.flags & flags::FIN != 0);
    let (seq, ack, bits) = if tcp.flags & flags::ACK != 0 {
        (tcp.ack, 0, flags::RST)
    } else {
        (
            0,
            tcp.seq.wrapping_add(len).wrapping_add(phantom),
            flags::RST | flags::ACK,
        )
    };
    let (sport, dport) = (tcp.dport, tcp.sport);
    Some(Segment::Tcp {
        sport,
        dport,
        seq,
        ack,
        flags: bits,
        window: 0,
        options: &[],
    })
}

/// RFC 1122 3.2.2 and RFC 4443 2.4 (e): what never gets an error back.
fn answerable(data: &[u8], parsed: &Parsed) -> bool {
    let group_link = data.first().is_none_or(|byte| byte & 1 != 0);
    let groups = match parsed.addrs {
        Addrs::V4 { src, dst } => {
            let single = |a: u32| a != 0 && a >> 28 < 0xe; // neither group, reserved nor broadcast
            !single(src) || !single(dst)
        }
        Addrs::V6 { src, dst } => src == 0 || src >> 120 == 0xff || dst >> 120 == 0xff,
    };
    let error = matches!(parsed.l4, L4::Icmp { ty, .. }
        if icmp::role(parsed.proto, ty) == Role::Error);
    !group_link && !groups && !error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{build::frame, parse};

    const V4: Addrs = Addrs::V4 {
        src: 0x0a00_0001,
        dst: 0x0a00_0002,
    };
    const V6: Addrs = Addrs::V6 {
        src: 0xfd << 120 | 1,
        dst: 0xfd << 120 | 2,
    };

    fn reply(with: RejectWith, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut out = vec![0xaa; MAX_ANSWER];
        let len = answer(with, bytes, &parse(bytes, bytes.len()), &mut out)?;
        out.truncate(len);
        Some(out)
    }

    fn tcp(bits: u8) -> Segment<'static> {
        Segment::Tcp {
            sport: 4000,
            dport: 22,
            seq: 100,
            ack: 700,
            flags: bits,
            window: 9,
            options: &[],
        }
    }

    #[test]
    fn a_syn_is_reset_with_its_number_acknowledged() {
        for addrs in [V4, V6] {
            let bytes = frame(addrs, tcp(flags::SYN), b"");
            let answer = reply(RejectWith::TcpReset, &bytes).unwrap();
            let parsed = parse(&answer, answer.len());
            assert_eq!(parsed.addrs, addrs.flip());
            let L4::Tcp(header) = parsed.l4 else {
                panic!("{parsed:?}")
            };
            assert_eq!((header.sport, header.dport), (22, 4000));
            assert_eq!(
                (header.seq, header.ack, header.flags),
                (0, 101, flags::RST | flags::ACK)
            );
            assert_eq!((&answer[..6], &answer[6..12]), (&bytes[6..12], &bytes[..6]));
        }
    }

    #[test]
    fn a_segment_with_ack_is_reset_with_that_number() {
        let bytes = frame(V4, tcp(flags::ACK | flags::PSH), b"data");
        let answer = reply(RejectWith::TcpReset, &bytes).unwrap();
        let L4::Tcp(header) = parse(&answer, answer.len()).l4 else {
            panic!()
        };
        assert_eq!((header.seq, header.ack, header.flags), (700, 0, flags::RST));
    }

    #[test]
    fn unreachable_quotes_the_packet() {
        let codes = [
            (RejectWith::IcmpPortUnreachable, (3, 3), (1, 4)),
            (RejectWith::AdminProhibited, (3, 13), (1, 1)),
            (RejectWith::HostUnreachable, (3, 1), (1, 3)),
            (RejectWith::NetUnreachable, (3, 0), (1, 0)),
            (RejectWith::ProtoUnreachable, (3, 2), (1, 4)),
            (RejectWith::NetProhibited, (3, 9), (1, 1)),
            (RejectWith::HostProhibited, (3, 10), (1, 1)),
            (RejectWith::PolicyFail, (3, 13), (1, 5)),
            (RejectWith::RejectRoute, (3, 0), (1, 6)),
        ];
        for (with, v4, v6) in codes {
            for (addrs, want) in [(V4, v4), (V6, v6)] {
                let bytes = frame(addrs, Segment::Udp { sport: 5, dport: 6 }, &[7; 1400]);
                let answer = reply(with, &bytes).unwrap();
                let parsed = parse(&answer, answer.len());
                let L4::Icmp { ty, code, .. } = parsed.l4 else {
                    panic!("{parsed:?}")
                };
                assert_eq!((ty, code), want);
                let inner = crate::wire::inner(&answer, &parsed).unwrap();
                assert_eq!(inner.addrs, addrs);
                assert!(parsed.ip_len() <= if addrs == V4 { 576 } else { 1280 });
            }
        }
    }

    #[test]
    fn what_must_not_be_answered_is_not() {
        let udp = Segment::Udp { sport: 5, dport: 6 };
        let port = RejectWith::IcmpPortUnreachable;
        assert!(reply(RejectWith::TcpReset, &frame(V4, tcp(flags::RST), b"")).is_none());
        let error = Segment::Icmp {
            ty: 3,
            code: 3,
            rest: 0,
        };
        assert!(reply(port, &frame(V4, error, b"quoted")).is_none());
        for dst in [0xe000_0001, u32::MAX] {
            let addrs = Addrs::V4 {
                src: 0x0a00_0001,
                dst,
            };
            assert!(reply(port, &frame(addrs, udp, b"")).is_none());
        }
        let unspecified = Addrs::V6 { src: 0, dst: 1 };
        assert!(reply(port, &frame(unspecified, udp, b"")).is_none());
        let mut to_all = frame(V4, udp, b"");
        to_all[..6].fill(0xff);
        assert!(reply(port, &to_all).is_none());
    }
}
