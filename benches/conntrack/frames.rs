//! Writes frames fast: a template in every buffer, and per packet only the fields that differ.

use shardwall::wire::Addrs;
use shardwall::wire::build::{self, Segment};
use shardwall::wire::tcp::flags;

/// Frames in one burst.
pub(crate) const BURST: usize = shardwall::dataplane::io::BURST;
/// Buffers that are used in turn.
const BUFFERS: usize = 1024;
/// Bytes of payload of a segment that has any.
pub(crate) const PAYLOAD: u32 = 10;

const IP: usize = 14;
const L4: usize = IP + 20;

/// What the flows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    TcpTimestamps,
    Udp,
}

impl Kind {
    pub(crate) fn is_tcp(self) -> bool {
        self != Kind::Udp
    }

    /// Bytes of the IP datagram without payload.
    fn headers(self) -> u32 {
        match self {
            Kind::Tcp => 40,
            Kind::TcpTimestamps => 52,
            Kind::Udp => 28,
        }
    }
}

/// What the generator keeps of a flow; the initiator comes first in each pair.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flow {
    pub(crate) addrs: [u32; 2],
    pub(crate) ports: [u16; 2],
    /// Next sequence number of each side.
    pub(crate) seq: [u32; 2],
    /// Sum over the words of the IP header that never change; the same in both directions.
    sum: u32,
}

/// Mixes a counter into 64 random-looking bits (splitmix64).
pub(crate) fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Flow {
    /// Flow number `n`; no two numbers below 2^40 share a tuple.
    pub(crate) fn number(n: u64, kind: Kind) -> Flow {
        let client = 0x0a00_0000 | (n & 0x00ff_ffff) as u32;
        let server = 0xc0a8_0000 | (mix(n) & 0xffff) as u32;
        let port = 1024 + (n >> 24) as u16;
        let proto = if kind.is_tcp() { 6 } else { 17 };
        let words = [
            0x4500,
            0x4000,
            0x4000 | proto,
            client >> 16,
            client & 0xffff,
        ];
        let sum = words.iter().sum::<u32>() + (server >> 16) + (server & 0xffff);
        Flow {
            addrs: [client, server],
            ports: [port, 443],
            seq: [mix(n) as u32, (mix(n) >> 32) as u32],
            sum,
        }
    }

    /// `count` flows.
    pub(crate) fn table(count: u32, kind: Kind) -> Vec<Flow> {
        (0..u64::from(count))
            .map(|n| Flow::number(n, kind))
            .collect()
    }

    /// The addresses as side `from` sends.
    fn sent_by(&self, from: usize) -> Addrs {
        Addrs::V4 {
            src: self.addrs[from],
            dst: self.addrs[1 - from],
        }
    }

    /// A frame of the handshake, or the first datagrams; `step` 0, 1 and for TCP 2.
    pub(crate) fn opening(&mut self, kind: Kind, step: usize) -> (usize, Vec<u8>) {
        let from = step % 2;
        let [sport, dport] = [self.ports[from], self.ports[1 - from]];
        if !kind.is_tcp() {
            return (
                from,
                build::frame(self.sent_by(from), Segment::Udp { sport, dport }, b""),
            );
        }
        // MSS, SACK permitted, NOP, window scale 7.
        const OFFER: &[u8] = &[2, 4, 5, 0xb4, 4, 2, 1, 1, 1, 3, 3, 7];
        let (bits, options) = [
            (flags::SYN, OFFER),
            (flags::SYN | flags::ACK, OFFER),
            (flags::ACK, &[]),
        ][step];
        let segment = Segment::Tcp {
            sport,
            dport,
            seq: self.seq[from],
            ack: if step == 0 { 0 } else { self.seq[1 - from] },
            flags: bits,
            window: 64_240,
            options,
        };
        let frame = build::frame(self.sent_by(from), segment, b"");
        if step < 2 {
            self.seq[from] = self.seq[from].wrapping_add(1);
        }
        (from, frame)
    }
}

/// Puts `items` into a random order that is the same every time.
pub(crate) fn shuffle<T>(items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, (mix(last as u64) % (last as u64 + 1)) as usize);
    }
}

/// One buffer, as long as headers need.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Buffer {
    bytes: [u8; 128],
    len: usize,
}

/// The recycled buffers.
#[derive(Debug)]
pub(crate) struct Buffers {
    ring: Vec<Buffer>,
    at: usize,
    /// Sum over the words of the TCP header that never change.
    sum: u64,
    kind: Kind,
}

impl Buffers {
    pub(crate) fn new(kind: Kind) -> Self {
        let addrs = Addrs::V4 { src: 0, dst: 0 };
        let [sport, dport] = [0, 0];
        // NOP, NOP, timestamps.
        const STAMPS: &[u8] = &[1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 7];
        let segment = match kind {
            Kind::Udp => Segment::Udp { sport, dport },
            _ => Segment::Tcp {
                sport,
                dport,
                seq: 0,
                ack: 0,
                flags: flags::ACK,
                window: 502,
                options: if kind == Kind::Tcp { &[] } else { STAMPS },
            },
        };
        let template = build::frame(addrs, segment, &[0; PAYLOAD as usize]);
        let mut bytes = [0; 128];
        bytes[..template.len()].copy_from_slice(&template);
        let buffer = Buffer { bytes, len: 0 };
        bytes[L4 + 16..L4 + 20].fill(0);
        let end = (IP + kind.headers() as usize).max(L4 + 12); // of UDP nothing
        let (words, _) = bytes[L4 + 12..end].as_chunks();
        let sum = words
            .iter()
            .map(|word| u64::from(u32::from_be_bytes(*word)));
        Self {
            ring: vec![buffer; BUFFERS],
            at: 0,
            sum: sum.sum(),
            kind,
        }
    }

    /// Where the next burst is written.
    pub(crate) fn turn(&mut self) {
        self.at = (self.at + BURST) % BUFFERS;
    }

    /// Frame `i` of the burst.
    #[inline(always)]
    pub(crate) fn frame(&self, i: usize) -> &[u8] {
        let buffer = &self.ring[(self.at + i) % BUFFERS];
        &buffer.bytes[..buffer.len.min(128)]
    }

    /// The frame that was written `ago` before frame `i` of the burst.
    #[inline(always)]
    pub(crate) fn earlier(&self, i: usize, ago: usize) -> &[u8] {
        let buffer = &self.ring[(self.at + BUFFERS + i - ago) % BUFFERS];
        &buffer.bytes[..buffer.len.min(128)]
    }

    /// Writes frame `i` of the burst: a packet of `flow` from side `from`, with payload or without.
    /// Whole words are written where the parser reads words, so that no load waits for two stores.
    #[inline(always)]
    pub(crate) fn write(&mut self, i: usize, flow: &mut Flow, from: usize, payload: bool) {
        let payload = PAYLOAD * u32::from(payload);
        let total = self.kind.headers() + payload;
        let buffer = &mut self.ring[(self.at + i) % BUFFERS];
        let bytes = &mut buffer.bytes;
        let mut put = |at: usize, word: u32| {
            bytes[at..at + 4].copy_from_slice(&word.to_be_bytes());
        };
        let sum = flow.sum + total;
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        let proto = if self.kind == Kind::Udp { 17 } else { 6 };
        let to = 1 - from;
        put(IP, 0x4500_0000 | total);
        put(IP + 8, 64 << 24 | proto << 16 | (!sum & 0xffff));
        put(IP + 12, flow.addrs[from]);
        put(IP + 16, flow.addrs[to]);
        put(
            L4,
            u32::from(flow.ports[from]) << 16 | u32::from(flow.ports[to]),
        );
        if self.kind == Kind::Udp {
            put(L4 + 4, (total - 20) << 16);
        } else {
            put(L4 + 4, flow.seq[from]);
            put(L4 + 8, flow.seq[to]);
            let words = [flow.addrs[0], flow.addrs[1], flow.seq[0], flow.seq[1]];
            let ports = u64::from(flow.ports[from]) << 16 | u64::from(flow.ports[to]);
            let mut sum = self.sum + ports + 6 + u64::from(total - 20);
            for word in words {
                sum += u64::from(word);
            }
            let sum = (sum & 0xffff_ffff) + (sum >> 32);
            let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
            let sum = (sum & 0xffff) + (sum >> 16);
            let sum = (sum & 0xffff) + (sum >> 16);
            put(L4 + 16, (!sum as u32) << 16);
            flow.seq[from] = flow.seq[from].wrapping_add(payload);
        }
        buffer.len = (IP + total as usize).max(60);
    }
}
