//! What the golden test sends: flows of every protocol and in many states.

use crate::wire::Addrs;
use crate::wire::build::{Link, Segment, emit, frame_len};
use crate::wire::tcp::flags::{ACK, FIN, RST, SYN};

/// The frames, and the side each comes from.
pub(super) fn frames() -> Vec<(u8, Vec<u8>)> {
    let mut all = Vec::new();
    let mut tcp = |sport, dport, v6, steps: &[(u8, u32, u32, u8)]| {
        for (side, seq, ack, flags) in steps {
            let (from, to) = if *side == 0 {
                (sport, dport)
            } else {
                (dport, sport)
            };
            let segment = Segment::Tcp {
                sport: from,
                dport: to,
                seq: *seq,
                ack: *ack,
                flags: *flags,
                window: 8192,
                options: &[],
            };
            all.push((*side, between(*side, v6, 1, 1, segment, b"")));
        }
    };
    let open = [
        (0, 99, 0, SYN),
        (1, 499, 100, SYN | ACK),
        (0, 100, 500, ACK),
    ];
    let close = [
        (0, 100, 500, FIN | ACK),
        (1, 500, 101, ACK),
        (1, 500, 101, FIN | ACK),
        (0, 101, 501, ACK),
    ];
    let with = |more: &[(u8, u32, u32, u8)]| [&open, more].concat();
    tcp(1001, 80, false, &open[..1]);
    tcp(1002, 80, false, &open[..2]);
    tcp(1003, 80, false, &open);
    tcp(1004, 80, false, &with(&close[..1]));
    tcp(1005, 80, false, &with(&close[..2]));
    tcp(1006, 80, false, &with(&close[..3]));
    tcp(1007, 80, false, &with(&close));
    tcp(1008, 80, false, &with(&[(1, 500, 100, RST | ACK)]));
    tcp(1009, 80, false, &[(0, 99, 0, SYN), (1, 499, 0, SYN)]);
    tcp(1010, 1112, false, &open);
    tcp(1020, 80, true, &open);
    tcp(1021, 80, true, &open[..1]);
    let mut one = |side, v6, (from, to), segment, payload: &[u8]| {
        all.push((side, between(side, v6, from, to, segment, payload)));
    };
    let udp = |sport, dport| Segment::Udp { sport, dport };
    one(0, false, (1, 1), udp(2000, 53), b"query");
    one(0, false, (1, 1), udp(2001, 53), b"query");
    one(1, false, (1, 1), udp(53, 2001), b"an answer");
    one(0, false, (2, 3), udp(2002, 1111), b"marked");
    one(0, true, (1, 1), udp(2003, 53), b"query");
    one(0, true, (0, 0), udp(2004, 53), b"query");
    let icmp = |ty, id: u32| Segment::Icmp {
        ty,
        code: 0,
        rest: id << 16 | 1,
    };
    one(0, false, (1, 1), icmp(8, 77), b"ping");
    one(0, false, (1, 1), icmp(8, 78), b"ping");
    one(1, false, (1, 1), icmp(0, 78), b"ping");
    one(0, false, (1, 1), icmp(13, 5), &[0; 12]);
    one(0, true, (1, 1), icmp(128, 79), b"ping");
    one(1, true, (1, 1), icmp(129, 79), b"ping");
    one(
        0,
        false,
        (1, 1),
        Segment::Raw(47),
        &[0, 0, 8, 0, 1, 2, 3, 4],
    );
    one(0, false, (1, 1), Segment::Raw(89), &[7; 20]);
    one(1, false, (1, 1), Segment::Raw(89), &[7; 20]);
    one(0, true, (1, 1), Segment::Raw(89), &[7; 20]);
    one(
        0,
        false,
        (1, 1),
        Segment::Raw(33),
        &[0, 80, 0, 81, 4, 0, 0, 0, 0, 0, 0, 0],
    );
    one(
        0,
        false,
        (1, 1),
        Segment::Raw(136),
        &[3, 232, 0, 53, 0, 8, 1, 1],
    );
    // SCTP: INIT, INIT ACK, COOKIE ECHO, COOKIE ACK; and another INIT.
    let sctp = |sport: u16, dport: u16, tag: u32, chunk: &[u8]| {
        let mut packet = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
        packet.extend(tag.to_be_bytes());
        packet.extend([0; 4]);
        packet.extend(chunk);
        packet
    };
    let init = |ty: u8, tag: u32| {
        let mut chunk = vec![ty, 0, 0, 20];
        chunk.extend(tag.to_be_bytes());
        chunk.extend([0, 0, 255, 255, 0, 1, 0, 1, 0, 0, 0, 1]);
        chunk
    };
    let raw = Segment::Raw(132);
    one(0, false, (1, 1), raw, &sctp(1000, 3000, 0, &init(1, 11)));
    one(1, false, (1, 1), raw, &sctp(3000, 1000, 11, &init(2, 22)));
    one(0, false, (1, 1), raw, &sctp(1000, 3000, 22, &[10, 0, 0, 4]));
    one(1, false, (1, 1), raw, &sctp(3000, 1000, 11, &[11, 0, 0, 4]));
    one(0, false, (1, 1), raw, &sctp(1001, 3000, 0, &init(1, 33)));
    one(1, false, (1, 1), raw, &sctp(3000, 1001, 33, &init(2, 44)));
    one(0, false, (1, 1), raw, &sctp(1002, 3000, 0, &init(1, 55)));
    // TFTP: one that is still waited for, of each family, and one that came.
    let read = b"\0\x01file\0octet\0";
    one(0, false, (4, 4), udp(5000, 69), read);
    one(0, true, (4, 4), udp(5001, 69), read);
    one(0, false, (5, 5), udp(5002, 69), read);
    one(1, false, (5, 5), udp(6000, 5002), b"data");
    // In a zone of their own: by their tag for us, by their addresses for the kernel.
    for (sport, dport) in [(4000, 53), (4001, 54)] {
        let addrs = Addrs::V4 {
            src: 0x0a07_0101,
            dst: 0x0a07_0201,
        };
        all.push((0, tagged(0, Some(7), addrs, udp(sport, dport), b"query")));
    }
    all
}

/// A frame from `side` between host `from` behind `lan` and `to` behind `wan`.
fn between(side: u8, v6: bool, from: u8, to: u8, segment: Segment<'_>, payload: &[u8]) -> Vec<u8> {
    let (from, to) = (u32::from(from), u32::from(to));
    let there = match v6 {
        false => Addrs::V4 {
            src: 0x0a01_0000 + from,
            dst: 0x0a02_0000 + to,
        },
        true => Addrs::V6 {
            src: 0xfd01 << 112 | u128::from(from),
            dst: 0xfd02 << 112 | u128::from(to),
        },
    };
    let addrs = if side == 0 { there } else { there.flip() };
    tagged(side, None, addrs, segment, payload)
}

fn tagged(
    side: u8,
    vlan: Option<u16>,
    addrs: Addrs,
    segment: Segment<'_>,
    payload: &[u8],
) -> Vec<u8> {
    let link = Link {
        dst: [2, 0, 0, 0, 0, 1 + side],
        src: [2, 0, 0, 0, 1, 1 + side],
        vlan,
    };
    let mut out = vec![0; frame_len(&link, &addrs, &segment, payload)];
    emit(&mut out, &link, &addrs, 64, &segment, payload);
    out
}
