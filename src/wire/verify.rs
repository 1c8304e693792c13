//! Is a packet's transport checksum right? Software looks where the port could not.
//!
//! What is summed is what Linux sums (6.12 `nf_conntrack_proto_*`): of TCP, UDP and ICMP all that
//! the IP header calls payload, even if a UDP length says less.

use super::checksum::Sum;
use super::parsed::{Checksum, L3, L4, Parsed};
use super::{proto, sctp, udp};
use zerocopy::FromBytes;

/// Whether the transport checksum of the whole datagram behind `parsed`, whose frame is `data`, is
/// right, or there is none to look at: a protocol without one, an IPv4 UDP packet without one (and
/// an IPv6 one, which is for its receiver to refuse), or a frame that continues in another buffer.
///
/// A port's word counts for TCP and UDP only: drivers say "good" of what they did not look at.
#[inline]
pub fn is_right(data: &[u8], parsed: &Parsed) -> bool {
    match (parsed.l4_sum, parsed.l4) {
        (Checksum::Good, L4::Tcp(_)) => true,
        (Checksum::Good, L4::Udp { .. }) if parsed.proto == proto::UDP => true,
        (_, L4::None | L4::Bad | L4::Gre { .. } | L4::Other) => true,
        (Checksum::Bad, L4::Tcp(_)) => false,
        _ => sums_up(data, parsed),
    }
}

/// The same by software, in what the port does not decide.
fn sums_up(data: &[u8], parsed: &Parsed) -> bool {
    let Some(body) = data.get(usize::from(parsed.l4_offset)..parsed.end as usize) else {
        return true;
    };
    let pseudo = || Sum::default().pseudo(&parsed.addrs, parsed.proto, body.len() as u32);
    let sum = match parsed.l4 {
        L4::Tcp(_) => pseudo().bytes(body),
        L4::Udp { .. } => {
            let Ok((header, _)) = udp::Header::ref_from_prefix(body) else {
                return true;
            };
            let covered = match (parsed.proto, usize::from(header.len.get())) {
                (proto::UDPLITE, some @ 1..) => &body[..some.min(body.len())],
                (proto::UDPLITE, 0) => body,
                _ if header.checksum.get() == 0 => return true,
                // Some NICs call packets without a checksum bad; of others they can be believed.
                _ if parsed.l4_sum == Checksum::Bad => return false,
                _ => body,
            };
            pseudo().bytes(covered)
        }
        L4::Icmp { .. } if parsed.l3 == L3::Ipv4 => Sum::default().bytes(body),
        L4::Icmp { .. } => pseudo().bytes(body),
        L4::Sctp { .. } => return sctp::is_right(body),
        _ => return true,
    };
    sum.finish() == 0
}

#[cfg(test)]
mod tests {
    use super::super::build::{Segment, frame};
    use super::super::{Addrs, parse};
    use super::*;

    const V4: Addrs = Addrs::V4 { src: 1, dst: 2 };
    const V6: Addrs = Addrs::V6 {
        src: 0xfd01 << 112 | 1,
        dst: 0xfd02 << 112 | 1,
    };
    const UDP: Segment<'static> = Segment::Udp {
        sport: 9,
        dport: 53,
    };
    const TCP: Segment<'static> = Segment::Tcp {
        sport: 9,
        dport: 80,
        seq: 1,
        ack: 2,
        flags: 16,
        window: 3,
        options: &[1, 1, 1, 1],
    };
    const PING: [Segment<'static>; 2] = [
        Segment::Icmp {
            ty: 8,
            code: 0,
            rest: 7,
        },
        Segment::Icmp {
            ty: 128,
            code: 0,
            rest: 7,
        },
    ];

    fn right(bytes: &[u8], port: Checksum) -> bool {
        let mut parsed = parse(bytes, bytes.len());
        parsed.l4_sum = port;
        is_right(bytes, &parsed)
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let sctp = sctp::packet(9, 80, 7, &sctp::encode(0, 3, b"payload"));
        for (addrs, ping) in [(V4, PING[0]), (V6, PING[1])] {
            for (segment, payload) in [
                (UDP, &b"payload"[..]),
                (TCP, b"payload!"),
                (ping, b"odd"),
                (Segment::Raw(proto::SCTP), &sctp),
            ] {
                let mut bytes = frame(addrs, segment, payload);
                let start = usize::from(parse(&bytes, bytes.len()).l4_offset);
                let end = bytes.len();
                bytes.resize(end + 9, 0xaa); // padding is no part of it
                assert!(right(&bytes, Checksum::Unknown), "{segment:?}");
                for at in start..end {
                    let mut bad = bytes.clone();
                    bad[at] ^= 0x10;
                    // A byte that makes the header unreadable makes the packet INVALID earlier.
                    let readable = parse(&bad, bad.len()).l4 != L4::Bad;
                    assert_eq!(
                        right(&bad, Checksum::Unknown),
                        !readable,
                        "byte {at} of {segment:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_port_is_believed_of_tcp_and_udp() {
        let sctp = sctp::packet(9, 80, 7, &sctp::encode(0, 3, b"payload"));
        for (segment, payload, believed) in [
            (TCP, &b"x"[..], true),
            (UDP, b"x", true),
            (PING[0], b"x", false),
            (Segment::Raw(proto::SCTP), &sctp, false),
        ] {
            let good = frame(V4, segment, payload);
            let mut bad = good.clone();
            *bad.last_mut().unwrap() ^= 1;
            assert_eq!(right(&bad, Checksum::Good), believed, "{segment:?}");
            assert_eq!(right(&good, Checksum::Bad), !believed, "{segment:?}");
        }
    }

    #[test]
    fn udp_may_do_without() {
        for addrs in [V4, V6] {
            let mut bytes = frame(addrs, UDP, b"x");
            let at = usize::from(parse(&bytes, bytes.len()).l4_offset) + 6;
            bytes[at..at + 2].fill(0);
            for port in [Checksum::Unknown, Checksum::Good, Checksum::Bad] {
                assert!(right(&bytes, port));
            }
        }
    }

    /// Linux sums what the IP header claims, and so it is the sum over that which must be right.
    #[test]
    fn udp_that_is_shorter_than_its_datagram() {
        let mut bytes = frame(V4, UDP, b"12345");
        bytes[14 + 20 + 5] = 8;
        assert!(!right(&bytes, Checksum::Unknown));
        bytes[14 + 20 + 6..][..2].fill(0);
        let body = &bytes[34..];
        let sum = Sum::default()
            .pseudo(&V4, 17, body.len() as u32)
            .bytes(body);
        bytes[14 + 20 + 6..][..2].copy_from_slice(&sum.finish().to_be_bytes());
        assert!(right(&bytes, Checksum::Unknown));
    }

    #[test]
    fn what_lies_in_another_buffer_is_not_judged() {
        let mut bytes = frame(V4, UDP, &[7; 100]);
        bytes[60] ^= 1;
        let parsed = parse(&bytes[..80], bytes.len());
        assert!(is_right(&bytes[..80], &parsed));
        assert!(!right(&bytes, Checksum::Unknown));
    }
}
