//! The one-pass parse: a frame's headers, looked at once, into [`Parsed`].
//!
//! What a host's IP layer would refuse (wrong version, lengths that contradict the frame, a bad
//! IPv4 header checksum) ends in `L3`, and the pipeline drops it by name; what only the tracker
//! would refuse (a short transport header) ends in `L4::Bad`, and the packet is INVALID.

use super::checksum::{checksum, is_right_20};
use super::ethernet::{self, VlanTag, ethertype};
use super::parsed::{Addrs, Fragment, L3, L4, NO_VLAN, Parsed, TcpHeader};
use super::proto;
use super::{gre, icmp, ipv4, ipv6, plain, sctp, tcp, udp};
use zerocopy::FromBytes;

/// Parses the frame that starts with `data` (its first segment) and is `frame_len` bytes long.
#[inline]
pub fn parse(data: &[u8], frame_len: usize) -> Parsed {
    let mut parsed = Parsed::NOTHING;
    parse_into(&mut parsed, data, frame_len);
    parsed
}

/// [`parse`] in place: a result of this size is not moved for nothing.
#[inline(always)]
pub fn parse_into(parsed: &mut Parsed, data: &[u8], frame_len: usize) {
    if !plain::parse(parsed, data, frame_len) {
        *parsed = general(data, frame_len);
    }
}

/// Every kind of frame.
#[inline(never)]
fn general(data: &[u8], frame_len: usize) -> Parsed {
    let mut parsed = Parsed {
        frame_len: frame_len as u32,
        ..Parsed::NOTHING
    };
    let Ok((header, mut rest)) = ethernet::Header::ref_from_prefix(data) else {
        return parsed;
    };
    parsed.ethertype = header.ethertype.get();
    for _ in 0..ethernet::MAX_TAGS {
        if !matches!(parsed.ethertype, ethertype::VLAN | ethertype::QINQ) {
            break;
        }
        let Ok((tag, behind)) = VlanTag::ref_from_prefix(rest) else {
            return parsed;
        };
        if parsed.vlan == NO_VLAN {
            parsed.vlan = tag.tci.get() & 0x0fff;
        }
        parsed.ethertype = tag.ethertype.get();
        rest = behind;
    }
    let offset = data.len() - rest.len();
    parsed.l3_offset = offset as u16;
    // Bytes behind the link header, over all segments.
    let available = frame_len - offset;
    match parsed.ethertype {
        ethertype::IPV4 => ip4(&mut parsed, rest, available),
        ethertype::IPV6 => ip6(&mut parsed, rest, available),
        other => {
            parsed.l3 = L3::Other;
            if other < ethertype::SMALLEST {
                parsed.ethertype = ethertype::LLC;
            }
        }
    }
    parsed
}

#[inline]
fn ip4(parsed: &mut Parsed, bytes: &[u8], available: usize) {
    parsed.l3 = L3::BadHeader;
    let Ok((header, _)) = ipv4::Header::ref_from_prefix(bytes) else {
        return;
    };
    let header_len = header.header_len();
    let total = usize::from(header.total_len.get());
    let sound = header.version() == 4
        && header_len >= ipv4::HEADER_LEN
        && header_len <= bytes.len()
        && total >= header_len
        && total <= available;
    if !sound {
        return;
    }
    let sums_up = match bytes.first_chunk() {
        Some(plain) if header_len == ipv4::HEADER_LEN => is_right_20(plain),
        _ => checksum(&bytes[..header_len]) == 0,
    };
    if !sums_up {
        parsed.l3 = L3::BadChecksum;
        return;
    }
    parsed.l3 = L3::Ipv4;
    parsed.addrs = Addrs::V4 {
        src: header.src.get(),
        dst: header.dst.get(),
    };
    parsed.proto = header.proto;
    parsed.ttl = header.ttl;
    parsed.dscp = header.tos >> 2;
    parsed.l4_offset = parsed.l3_offset + header_len as u16;
    parsed.end = u32::from(parsed.l3_offset) + total as u32;
    let field = header.fragment.get();
    parsed.fragment = fragment(field & ipv4::OFFSET_MASK, field & ipv4::MORE_FRAGMENTS != 0);
    if parsed.fragment != Fragment::Later {
        // The segment may end before the datagram does (a chained buffer).
        let behind = &bytes[header_len..bytes.len().min(total)];
        parsed.l4 = match parsed.proto {
            proto::ICMPV6 => L4::Bad, // of the other family
            proto => transport(proto, behind, total - header_len, parsed.fragment),
        };
    }
}

#[inline]
fn ip6(parsed: &mut Parsed, bytes: &[u8], available: usize) {
    parsed.l3 = L3::BadHeader;
    let Ok((header, _)) = ipv6::Header::ref_from_prefix(bytes) else {
        return;
    };
    let version_class = header.version_class_flow.get() >> 20;
    let total = ipv6::HEADER_LEN + usize::from(header.payload_len.get());
    if version_class >> 8 != 6 || total > available {
        return;
    }
    parsed.l3 = L3::Ipv6;
    parsed.addrs = Addrs::V6 {
        src: header.src.get(),
        dst: header.dst.get(),
    };
    parsed.ttl = header.hop_limit;
    parsed.dscp = (version_class as u8) >> 2;
    parsed.end = u32::from(parsed.l3_offset) + total as u32;
    parsed.proto = header.next_header;
    parsed.l4_offset = parsed.l3_offset + ipv6::HEADER_LEN as u16;
    let datagram = &bytes[..bytes.len().min(total)];
    let Some(found) = ipv6::transport(datagram, header.next_header) else {
        parsed.l4 = L4::Bad;
        // A fragment stays one, also where it hides what it is a fragment of.
        if let Some(header) = ipv6::fragment(datagram, header.next_header) {
            parsed.fragment = fragment(header.start, header.more);
        }
        return;
    };
    parsed.proto = found.proto;
    parsed.l4_offset = parsed.l3_offset + found.offset as u16;
    if let Some((start, more)) = found.fragment {
        parsed.fragment = fragment(start, more);
    }
    if parsed.fragment != Fragment::Later {
        let behind = &datagram[found.offset..];
        parsed.l4 = match found.proto {
            proto::ICMP => L4::Bad, // of the other family
            proto => transport(proto, behind, total - found.offset, parsed.fragment),
        };
    }
}

/// What a fragment at `start` is; one that is the first and the last is whole (RFC 6946).
#[inline]
const fn fragment(start: u16, more: bool) -> Fragment {
    match (start, more) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    }
}

/// The transport header in `bytes`; `len` is what the datagram holds of it and its payload.
#[inline]
fn transport(proto: u8, bytes: &[u8], len: usize, fragment: Fragment) -> L4 {
    match proto {
        proto::TCP => match tcp::Header::ref_from_prefix(bytes) {
            Ok((header, _)) => {
                let header_len = usize::from(header.data_offset >> 4) * 4;
                if header_len < tcp::HEADER_LEN || header_len > len {
                    return L4::Bad;
                }
                L4::Tcp(TcpHeader {
                    sport: header.sport.get(),
                    dport: header.dport.get(),
                    seq: header.seq.get(),
                    ack: header.ack.get(),
                    window: header.window.get(),
                    flags: header.flags,
                    header_len: header_len as u8,
                })
            }
            Err(_) => L4::Bad,
        },
        proto::UDP | proto::UDPLITE => match udp::Header::ref_from_prefix(bytes) {
            Ok((header, _)) => {
                let claimed = usize::from(header.len.get());
                let covers_header = claimed >= udp::HEADER_LEN;
                let sound = match (proto, fragment) {
                    // The checksum is mandatory (RFC 3828 3.1).
                    (proto::UDPLITE, _) => {
                        (claimed == 0 || covers_header && claimed <= len)
                            && header.checksum.get() != 0
                    }
                    (_, Fragment::Whole) => covers_header && claimed <= len,
                    _ => covers_header,
                };
                if !sound {
                    return L4::Bad;
                }
                L4::Udp {
                    sport: header.sport.get(),
                    dport: header.dport.get(),
                }
            }
            Err(_) => L4::Bad,
        },
        proto::ICMP | proto::ICMPV6 => match icmp::Header::ref_from_prefix(bytes) {
            Ok((header, _)) => L4::Icmp {
                ty: header.ty,
                code: header.code,
                id: header.id.get(),
            },
            Err(_) => L4::Bad,
        },
        proto::SCTP => match sctp::Header::ref_from_prefix(bytes) {
            Ok((header, _)) => L4::Sctp {
                sport: header.sport.get(),
                dport: header.dport.get(),
                vtag: header.vtag.get(),
            },
            Err(_) => L4::Bad,
        },
        proto::GRE => match gre::call_id(bytes) {
            Some(call_id) => L4::Gre { call_id },
            None => L4::Bad,
        },
        _ => L4::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::build::{Link, Segment, emit, frame, frame_len};
    use super::super::tcp::flags;
    use super::*;

    const V4: Addrs = Addrs::V4 {
        src: 0x0a00_0001,
        dst: 0x0a00_0002,
    };
    const V6: Addrs = Addrs::V6 {
        src: 0xfd << 120 | 1,
        dst: 0xfd << 120 | 2,
    };
    const SYN: Segment<'static> = Segment::Tcp {
        sport: 40_000,
        dport: 443,
        seq: 7,
        ack: 9,
        flags: flags::SYN,
        window: 64_240,
        options: &[2, 4, 5, 0xb4, 1, 3, 3, 7],
    };

    fn whole(bytes: &[u8]) -> Parsed {
        parse(bytes, bytes.len())
    }

    proptest::proptest! {
        /// The straight path says what the general one says, of any frame that differs a little
        /// from a usual one.
        #[test]
        fn the_straight_path_is_a_short_cut(
            tcp: bool,
            payload in 0..40usize,
            changes in proptest::collection::vec((0..60usize, proptest::prelude::any::<u8>()), 0..3),
            mend: bool,
            cut in 0..200usize,
            more in 0..20usize,
        ) {
            let segment = if tcp { SYN } else { Segment::Udp { sport: 1, dport: 2 } };
            let mut bytes = frame(V4, segment, &vec![7; payload]);
            bytes.resize(bytes.len() + more, 0);
            for (at, value) in changes {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            if mend {
                bytes[24..26].fill(0);
                let sum = checksum(&bytes[14..34]).to_be_bytes();
                bytes[24..26].copy_from_slice(&sum);
            }
            let seen = &bytes[..cut.min(bytes.len())];
            for len in [seen.len(), bytes.len()] {
                proptest::prop_assert_eq!(parse(seen, len), general(seen, len));
            }
        }
    }

    #[test]
    fn agrees_with_etherparse() {
        let udp = Segment::Udp {
            sport: 53,
            dport: 5353,
        };
        let ping = Segment::Icmp {
            ty: 8,
            code: 0,
            rest: 0x0102_0003,
        };
        for addrs in [V4, V6] {
            for segment in [SYN, udp, ping, Segment::Raw(89)] {
                let bytes = frame(addrs, segment, b"payload");
                let parsed = whole(&bytes);
                let oracle = etherparse::SlicedPacket::from_ethernet(&bytes).unwrap();
                match (oracle.net.unwrap(), addrs) {
                    (etherparse::NetSlice::Ipv4(ip), Addrs::V4 { .. }) => {
                        assert_eq!(parsed.l3, L3::Ipv4);
                        assert_eq!(parsed.addrs.src(), ip.header().source_addr());
                        assert_eq!(parsed.addrs.dst(), ip.header().destination_addr());
                        assert_eq!(parsed.proto, ip.header().protocol().0);
                    }
                    (etherparse::NetSlice::Ipv6(ip), Addrs::V6 { .. }) => {
                        assert_eq!(parsed.l3, L3::Ipv6);
                        assert_eq!(parsed.addrs.src(), ip.header().source_addr());
                        assert_eq!(parsed.addrs.dst(), ip.header().destination_addr());
                    }
                    (net, _) => panic!("{net:?}"),
                }
                match (oracle.transport, parsed.l4) {
                    (Some(etherparse::TransportSlice::Tcp(theirs)), L4::Tcp(ours)) => {
                        assert_eq!(
                            (ours.sport, ours.dport, ours.seq, ours.ack, ours.window),
                            (
                                theirs.source_port(),
                                theirs.destination_port(),
                                theirs.sequence_number(),
                                theirs.acknowledgment_number(),
                                theirs.window_size(),
                            )
                        );
                        assert_eq!(usize::from(ours.header_len), theirs.header_len());
                        assert_eq!(ours.flags, flags::SYN);
                    }
                    (Some(etherparse::TransportSlice::Udp(theirs)), L4::Udp { sport, dport }) => {
                        assert_eq!(sport, theirs.source_port());
                        assert_eq!(dport, theirs.destination_port());
                    }
                    (
                        Some(_),
                        L4::Icmp {
                            ty: 8,
                            code: 0,
                            id: 0x0102,
                        },
                    ) => {}
                    (None, L4::Other) => assert_eq!(parsed.proto, 89),
                    other => panic!("{other:?}"),
                }
                assert_eq!(parsed.end as usize, bytes.len());
            }
        }
    }

    #[test]
    fn checksums_that_we_write_are_right() {
        for addrs in [V4, V6] {
            for segment in [SYN, Segment::Udp { sport: 1, dport: 2 }] {
                let bytes = frame(addrs, segment, b"odd");
                let parsed = whole(&bytes);
                let body = &bytes[usize::from(parsed.l4_offset)..];
                let sum = super::super::checksum::Sum::default()
                    .pseudo(&addrs, parsed.proto, body.len() as u32)
                    .bytes(body);
                assert_eq!(sum.finish(), 0);
            }
        }
    }

    #[test]
    fn vlan_tags_are_looked_through() {
        let link = Link {
            vlan: Some(3 << 13 | 42),
            ..Link::default()
        };
        let mut bytes = vec![0; frame_len(&link, &V4, &SYN, b"")];
        emit(&mut bytes, &link, &V4, 64, &SYN, b"");
        let parsed = whole(&bytes);
        assert_eq!(
            (parsed.vlan, parsed.ethertype, parsed.l3),
            (42, ethertype::IPV4, L3::Ipv4)
        );
        assert_eq!(parsed.dport(), Some(443));
        // a second, outer tag: the id is the outermost one's
        let mut double = bytes[..12].to_vec();
        double.extend_from_slice(&[0x88, 0xa8, 0, 7]);
        double.extend_from_slice(&bytes[12..]);
        let parsed = whole(&double);
        assert_eq!((parsed.vlan, parsed.dport()), (7, Some(443)));
    }

    #[test]
    fn ethernet_padding_is_not_payload() {
        let mut bytes = frame(V4, Segment::Udp { sport: 1, dport: 2 }, b"");
        let end = bytes.len();
        bytes.resize(60, 0);
        assert_eq!(whole(&bytes).end as usize, end);
        assert_eq!(whole(&bytes).ip_len(), 28);
    }

    #[test]
    fn every_truncation_has_a_name() {
        for addrs in [V4, V6] {
            for segment in [SYN, Segment::Udp { sport: 1, dport: 2 }] {
                let bytes = frame(addrs, segment, b"payload");
                for keep in 0..bytes.len() {
                    let parsed = whole(&bytes[..keep]);
                    let want = if keep < 14 {
                        L3::BadFrame
                    } else {
                        L3::BadHeader
                    };
                    assert_eq!(parsed.l3, want, "{keep} bytes of {addrs:?}");
                    assert_eq!(parsed.l4, L4::None);
                }
                // The frame is long enough, but the first segment is short: still no panic, and
                // never a transport header that is not there.
                for keep in 14..bytes.len() {
                    let parsed = parse(&bytes[..keep], bytes.len());
                    if keep < usize::from(whole(&bytes).l4_offset) + 8 {
                        assert!(matches!(parsed.l4, L4::None | L4::Bad), "{keep} {parsed:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn headers_that_contradict_themselves() {
        let good = frame(V4, SYN, b"x");
        let mutate = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            whole(&bytes)
        };
        assert_eq!(mutate(14, 0x65).l3, L3::BadHeader, "version 6 under 0x0800");
        assert_eq!(mutate(14, 0x44).l3, L3::BadHeader, "header of 16 bytes");
        assert_eq!(mutate(16, 0x40).l3, L3::BadHeader, "longer than the frame");
        assert_eq!(mutate(22, 63).l3, L3::BadChecksum, "TTL changed");
        assert_eq!(
            mutate(14 + 20 + 12, 0x40).l4,
            L4::Bad,
            "TCP header of 16 bytes"
        );
        assert_eq!(
            mutate(14 + 20 + 12, 0xf0).l4,
            L4::Bad,
            "TCP header longer than the packet"
        );
        let udp = frame(V6, Segment::Udp { sport: 1, dport: 2 }, b"abc");
        for (len, sound) in [(7, false), (8, true), (11, true), (12, false)] {
            let mut bytes = udp.clone();
            bytes[14 + 40 + 5] = len;
            assert_eq!(whole(&bytes).l4 != L4::Bad, sound, "UDP length {len}");
        }
    }

    #[test]
    fn fragments_have_ports_only_in_the_first() {
        let mut bytes = frame(V4, Segment::Udp { sport: 1, dport: 2 }, &[0; 64]);
        let mut set = |field: u16| {
            bytes[20..22].copy_from_slice(&field.to_be_bytes());
            bytes[24..26].fill(0);
            let sum = checksum(&bytes[14..34]);
            bytes[24..26].copy_from_slice(&sum.to_be_bytes());
            whole(&bytes)
        };
        assert_eq!(set(0).fragment, Fragment::Whole);
        let first = set(ipv4::MORE_FRAGMENTS);
        assert_eq!((first.fragment, first.dport()), (Fragment::First, Some(2)));
        let later = set(3);
        assert_eq!((later.fragment, later.l4), (Fragment::Later, L4::None));
    }

    #[test]
    fn icmp_of_the_other_family_is_bad() {
        assert_eq!(whole(&frame(V4, Segment::Raw(58), &[128; 16])).l4, L4::Bad);
        assert_eq!(whole(&frame(V6, Segment::Raw(1), &[8; 16])).l4, L4::Bad);
    }

    #[test]
    fn other_frames_keep_their_type() {
        let mut bytes = [0; 60];
        bytes[12..14].copy_from_slice(&0x88cc_u16.to_be_bytes());
        assert_eq!(
            (whole(&bytes).l3, whole(&bytes).ethertype),
            (L3::Other, ethertype::LLDP)
        );
        bytes[12..14].copy_from_slice(&38_u16.to_be_bytes());
        assert_eq!(whole(&bytes).ethertype, ethertype::LLC);
    }
}
