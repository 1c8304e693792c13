//! The two captures.

use crate::Outcome;
use crate::machine::Scratch;
use pcap_file::pcap::{PcapPacket, PcapWriter};
use shardwall::wire::Addrs;
use shardwall::wire::build::{Segment, frame};
use shardwall::wire::tcp::flags;
use std::borrow::Cow;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
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

/// The same flows from both sides.
#[derive(Debug)]
pub(crate) struct Captures {
    pub(crate) forward: PathBuf,
    pub(crate) reply: PathBuf,
    pub(crate) flows: u32,
}

/// Mixes a counter into random-looking bits (splitmix64).
fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Captures {
    pub(crate) fn write(scratch: &Scratch, flows: u32, proto: Proto) -> Outcome<Self> {
        let captures = Self {
            forward: scratch.file("forward.pcap"),
            reply: scratch.file("reply.pcap"),
            flows,
        };
        let mut order: Vec<u32> = (0..flows).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, (mix(last as u64) % (last as u64 + 1)) as usize);
        }
        one(&captures.forward, &order, proto, false)?;
        one(&captures.reply, &order, proto, true)?;
        Ok(captures)
    }
}

fn one(path: &Path, order: &[u32], proto: Proto, reply: bool) -> Outcome<()> {
    let mut writer = PcapWriter::new(BufWriter::new(File::create(path)?))?;
    for &n in order {
        let there = Addrs::V4 {
            src: 0x0a00_0000 | n & 0x00ff_ffff,
            dst: 0xc0a8_0000 | (mix(n.into()) & 0xffff) as u32,
        };
        let port = 1024 + (n >> 24) as u16;
        let (addrs, sport, dport, seq, ack) = if reply {
            (there.flip(), 443, port, 2_000, 1_000)
        } else {
            (there, port, 443, 1_000, 2_000)
        };
        let segment = match proto {
            Proto::Udp => Segment::Udp { sport, dport },
            Proto::Tcp => Segment::Tcp {
                sport,
                dport,
                seq,
                ack,
                flags: flags::ACK,
                window: 64_240,
                options: &[],
            },
        };
        let mut bytes = frame(addrs, segment, b"");
        bytes.resize(60, 0); // as Ethernet pads it
        let packet = PcapPacket {
            timestamp: Duration::ZERO,
            orig_len: bytes.len() as u32,
            data: Cow::Owned(bytes),
        };
        writer.write_packet(&packet)?;
    }
    Ok(())
}
