//! What the two ports replay.

use crate::Outcome;
use crate::machine::Scratch;
use pcap_file::pcap::{PcapPacket, PcapWriter};
use shardwall::wire::Addrs;
use shardwall::wire::build::{Segment, frame};
use shardwall::wire::tcp::flags;
use std::borrow::Cow;
use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::time::Duration;

/// What the flows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Proto {
    Tcp,
    Udp,
}

impl Proto {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Proto::Tcp => "tcp",
            Proto::Udp => "udp",
        }
    }
}

/// What the packets do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Load {
    /// Go on with flows, in both directions: forward tuples by one port, reply tuples by the other.
    Known,
    /// Begin flows and end them: each SYN is followed by the RST of the flow whose SYN came by that port
    /// half a capture before. So every SYN finds a table with half of all flows, and not its own.
    Reset,
    /// Only begin flows, in a table for an eighth of them: every packet finds it full, and what nobody
    /// answered makes room.
    Full,
}

/// Packets, as often as they are replayed.
#[derive(Debug)]
pub(crate) struct Captures {
    /// Of each port, one of each queue.
    pub(crate) files: [Vec<PathBuf>; 2],
    pub(crate) flows: u32,
    pub(crate) load: Load,
}

/// Mixes a counter into random-looking bits (splitmix64).
fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Numbers in an order that is random and the same every time.
fn shuffled(numbers: std::ops::Range<u32>) -> Vec<u32> {
    let mut order: Vec<u32> = numbers.collect();
    for last in (1..order.len()).rev() {
        order.swap(last, (mix(last as u64) % (last as u64 + 1)) as usize);
    }
    order
}

/// What a packet is to its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Forward,
    Reply,
    Opening,
    Reset,
}

impl Captures {
    /// `flows` packets for each port, in `queues` files a port. Both directions of a flow are in files
    /// with the same number.
    pub(crate) fn write(
        scratch: &Scratch,
        flows: u32,
        proto: Proto,
        queues: usize,
        load: Load,
    ) -> Outcome<Self> {
        let parts = |port: u32| -> Vec<(u32, Part)> {
            let own = port * flows..(port + 1) * flows;
            match load {
                Load::Known => {
                    let part = [Part::Forward, Part::Reply][port as usize];
                    let order = shuffled(0..flows);
                    order.into_iter().map(|n| (n, part)).collect()
                }
                Load::Full => {
                    let order = shuffled(own);
                    order.into_iter().map(|n| (n, Part::Opening)).collect()
                }
                Load::Reset => {
                    // half of the flows by each port, two packets each
                    let order = shuffled(own.start / 2..own.end / 2);
                    let (len, lag) = (order.len(), order.len() / 2);
                    let both = |at: usize| {
                        [
                            (order[at], Part::Opening),
                            (order[(at + len - lag) % len], Part::Reset),
                        ]
                    };
                    (0..len).flat_map(both).collect()
                }
            }
        };
        let mut files = [Vec::new(), Vec::new()];
        for (port, files) in files.iter_mut().enumerate() {
            let parts = parts(port as u32);
            for queue in 0..queues {
                let path = scratch.file(&format!("port{port}-{queue}.pcap"));
                let mut writer = PcapWriter::new(BufWriter::new(File::create(&path)?))?;
                for (n, part) in parts.iter().filter(|(n, _)| *n as usize % queues == queue) {
                    let bytes = packet(*n, *part, proto);
                    writer.write_packet(&PcapPacket {
                        timestamp: Duration::ZERO,
                        orig_len: bytes.len() as u32,
                        data: Cow::Owned(bytes),
                    })?;
                }
                files.push(path);
            }
        }
        Ok(Self { files, flows, load })
    }

    /// Flows that the table has room for.
    pub(crate) fn limit(&self) -> u32 {
        match self.load {
            Load::Full => self.flows / 4, // of twice as many
            _ => self.flows + self.flows / 4 + 1024,
        }
    }

    /// Packets that begin a flow, of all.
    pub(crate) fn openings(&self) -> f64 {
        match self.load {
            Load::Known => 0.0,
            Load::Reset => 0.5,
            Load::Full => 1.0,
        }
    }
}

/// The packet of flow number `n`.
fn packet(n: u32, part: Part, proto: Proto) -> Vec<u8> {
    let there = Addrs::V4 {
        src: 0x0a00_0000 | n & 0x00ff_ffff,
        dst: 0xc0a8_0000 | (mix(n.into()) & 0xffff) as u32,
    };
    let port = 1024 + (n >> 24) as u16;
    let (addrs, sport, dport) = match part {
        Part::Reply => (there.flip(), 443, port),
        _ => (there, port, 443),
    };
    let (seq, ack, flags) = match part {
        Part::Forward => (1_000, 2_000, flags::ACK),
        Part::Reply => (2_000, 1_000, flags::ACK),
        Part::Opening => (999, 0, flags::SYN),
        Part::Reset => (1_000, 0, flags::RST),
    };
    let segment = match proto {
        Proto::Udp => Segment::Udp { sport, dport },
        Proto::Tcp => Segment::Tcp {
            sport,
            dport,
            seq,
            ack,
            flags,
            window: 64_240,
            options: &[],
        },
    };
    let mut bytes = frame(addrs, segment, b"");
    bytes.resize(60, 0); // as Ethernet pads it
    bytes
}
