//! Conversations in words, made frames: `lan tcp 10.0.0.1:4000 > 10.0.0.2:80 syn`.
//!
//! A line is the port where a packet comes in, its protocol, its ends, and words about it: TCP's
//! flags, the kind of an ICMP message, `seq+N` (so far from where the sender is), `pieces` (it comes
//! in fragments), `about above` (an ICMP error quotes the packet of the line before), and at the end
//! a payload in quotes. Sequence numbers follow from what was said before. `3 times 50ms` before it
//! repeats it with the next source ports. Behind `|` stands what is expected: state, verdict, rule,
//! and what is known of the flow. `after 10s` and `at 2026-11-20 08:00` move the clock.
//!
//! Life-cycle: a table is read once. Concurrency: plain values.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use shardwall::wire::Addrs;
use shardwall::wire::build::{Link, Segment, emit, frame_len};
use shardwall::wire::fragment::cut;
use shardwall::wire::tcp::flags;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A frame, when and where it comes in, and what is expected of it.
pub(crate) struct Sent {
    pub(crate) time: Duration,
    pub(crate) port: String,
    pub(crate) frame: Vec<u8>,
    /// Its line.
    pub(crate) line: String,
    /// State, verdict, rule, and words about the flow.
    pub(crate) expected: Vec<String>,
}

/// Type and code of an ICMP message.
type Message = Option<(u8, u8)>;

/// Kinds of ICMP messages, for IPv4 and for IPv6.
const MESSAGES: [(&str, [Message; 2]); 8] = [
    ("echo-request", [Some((8, 0)), Some((128, 0))]),
    ("echo-reply", [Some((0, 0)), Some((129, 0))]),
    ("port-unreachable", [Some((3, 3)), Some((1, 4))]),
    ("too-long", [Some((3, 4)), Some((2, 0))]),
    ("time-exceeded", [Some((11, 0)), Some((3, 0))]),
    ("redirect", [Some((5, 1)), None]),
    ("neighbour-solicit", [None, Some((135, 0))]),
    ("listener-report", [None, Some((143, 0))]),
];

const FLAGS: [(&str, u8); 5] = [
    ("fin", flags::FIN),
    ("syn", flags::SYN),
    ("rst", flags::RST),
    ("psh", flags::PSH),
    ("ack", flags::ACK),
];

/// Between two packets, where nothing else is said.
const STEP: Duration = Duration::from_millis(1);
/// Bytes of an IP packet that an ICMP error quotes.
const QUOTED: usize = 64;
/// The link that an ICMP error complains about.
const MTU: u32 = 1400;

#[derive(Default)]
struct Talk {
    /// The next sequence number of each direction of each conversation.
    next: HashMap<(SocketAddr, SocketAddr), u32>,
    /// The frame before, for ICMP errors.
    above: Vec<u8>,
}

/// The packets of a table, in order.
pub(crate) fn read(table: &str) -> Vec<Sent> {
    let mut talk = Talk::default();
    let mut now = moment("2026-11-20 12:00");
    let mut sent = Vec::new();
    for line in table.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(span) = line.strip_prefix("after ") {
            now += length(span);
            continue;
        }
        if let Some(text) = line.strip_prefix("at ") {
            now = moment(text);
            continue;
        }
        let (packet, expected) = line.split_once(" | ").expect(line);
        let expected: Vec<_> = expected.split_whitespace().map(str::to_owned).collect();
        let (count, step, packet) = repeated(packet);
        for copy in 0..count {
            now += step;
            let (port, frames) = talk
                .packet(packet, copy)
                .unwrap_or_else(|| panic!("{line}"));
            let last = frames.len() - 1;
            for (at, frame) in frames.into_iter().enumerate() {
                let held = ["-", "hold", "-"].map(str::to_owned).to_vec();
                sent.push(Sent {
                    time: now,
                    port: port.to_owned(),
                    frame,
                    line: line.to_owned(),
                    expected: if at < last { held } else { expected.clone() },
                });
            }
        }
    }
    sent
}

/// Reads `3 times 50ms` before a packet.
fn repeated(text: &str) -> (u16, Duration, &str) {
    let words: Vec<_> = text.splitn(4, ' ').collect();
    match words[..] {
        [count, "times", step, rest] => (count.parse().expect(text), length(step), rest),
        _ => (1, STEP, text),
    }
}

fn length(text: &str) -> Duration {
    let digits = text.trim_end_matches(char::is_alphabetic);
    let number = digits.parse().expect(text);
    match &text[digits.len()..] {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number * 60),
        "h" => Duration::from_secs(number * 3600),
        _ => panic!("{text}"),
    }
}

/// A moment, in UTC.
fn moment(text: &str) -> Duration {
    let civil: DateTime = text.replace(' ', "T").parse().expect(text);
    let zoned = civil.to_zoned(TimeZone::UTC).expect(text);
    Duration::from_secs(zoned.timestamp().as_second() as u64)
}

impl Talk {
    /// The port where it comes in, and its frames: more than one of a packet in pieces.
    fn packet<'t>(&mut self, text: &'t str, copy: u16) -> Option<(&'t str, Vec<Vec<u8>>)> {
        let (head, payload) = match text.split_once(" \"") {
            Some((head, rest)) => (head, unescape(rest.trim_end().strip_suffix('"')?)),
            None => (text, Vec::new()),
        };
        let words: Vec<_> = head.split_whitespace().collect();
        let [port, proto, from, ">", to, ref about @ ..] = words[..] else {
            return None;
        };
        let frame = match proto {
            "tcp" => self.tcp(ends(from, to, copy)?, about, &payload)?,
            "udp" => {
                let (from, to) = ends(from, to, copy)?;
                let (sport, dport) = (from.port(), to.port());
                let segment = Segment::Udp { sport, dport };
                write(addrs(from.ip(), to.ip())?, 64, segment, &payload)
            }
            "icmp" => self.icmp(from.parse().ok()?, to.parse().ok()?, about)?,
            _ => return None,
        };
        self.above.clone_from(&frame);
        let pieces = about.contains(&"pieces");
        let frames = if pieces {
            cut(&frame, 7, 512)
        } else {
            vec![frame]
        };
        Some((port, frames))
    }

    fn tcp(
        &mut self,
        (from, to): (SocketAddr, SocketAddr),
        about: &[&str],
        payload: &[u8],
    ) -> Option<Vec<u8>> {
        let (mut bits, mut shift) = (0, 0);
        for word in about {
            match word.strip_prefix("seq+") {
                Some(number) => shift = number.parse().ok()?,
                None if *word == "none" => {}
                None => {
                    for flag in word.split(',') {
                        bits |= FLAGS.iter().find(|(name, _)| *name == flag)?.1;
                    }
                }
            }
        }
        let start = |end: &SocketAddr| u32::from(end.port()) * 1000;
        let seq = *self.next.get(&(from, to)).unwrap_or(&start(&from));
        let ack = *self.next.get(&(to, from)).unwrap_or(&start(&to));
        let segment = Segment::Tcp {
            sport: from.port(),
            dport: to.port(),
            seq: seq.wrapping_add(shift),
            ack: if bits & flags::ACK != 0 { ack } else { 0 },
            flags: bits,
            window: 65_535,
            options: &[],
        };
        if shift == 0 {
            let ends = u32::from(bits & flags::SYN != 0) + u32::from(bits & flags::FIN != 0);
            let said = payload.len() as u32 + ends;
            self.next.insert((from, to), seq.wrapping_add(said));
        }
        Some(write(addrs(from.ip(), to.ip())?, 64, segment, payload))
    }

    fn icmp(&mut self, from: IpAddr, to: IpAddr, about: &[&str]) -> Option<Vec<u8>> {
        let (kind, about) = about.split_first()?;
        let (_, kinds) = MESSAGES.iter().find(|(name, _)| name == kind)?;
        let (ty, code) = kinds[usize::from(from.is_ipv6())]?;
        let (rest, payload) = match about {
            ["about", "above"] => {
                let packet = &self.above[14..];
                (MTU, packet[..packet.len().min(QUOTED)].to_vec())
            }
            [] if kind.starts_with("echo") => (0x0001_0001, b"ping".to_vec()),
            [] => (0, vec![0; 16]),
            _ => return None,
        };
        // RFC 4861 7.1 and RFC 3810 5 ask for these
        let hops = match *kind {
            "neighbour-solicit" => 255,
            "listener-report" => 1,
            _ => 64,
        };
        let message = Segment::Icmp { ty, code, rest };
        Some(write(addrs(from, to)?, hops, message, &payload))
    }
}

/// The ends of a conversation; copies come from the next ports.
fn ends(from: &str, to: &str, copy: u16) -> Option<(SocketAddr, SocketAddr)> {
    let mut from: SocketAddr = from.parse().ok()?;
    from.set_port(from.port() + copy);
    Some((from, to.parse().ok()?))
}

fn addrs(from: IpAddr, to: IpAddr) -> Option<Addrs> {
    match (from, to) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => Some(Addrs::V4 {
            src: src.to_bits(),
            dst: dst.to_bits(),
        }),
        (IpAddr::V6(src), IpAddr::V6(dst)) => Some(Addrs::V6 {
            src: src.to_bits(),
            dst: dst.to_bits(),
        }),
        _ => None,
    }
}

fn write(addrs: Addrs, hops: u8, segment: Segment<'_>, payload: &[u8]) -> Vec<u8> {
    let link = Link {
        dst: [2, 0, 0, 0, 0, 2],
        src: [2, 0, 0, 0, 0, 1],
        vlan: None,
    };
    let mut out = vec![0; frame_len(&link, &addrs, &segment, payload)];
    emit(&mut out, &link, &addrs, hops, &segment, payload);
    out
}

/// A payload: `\r`, `\n`, `\0` to `\4` are these bytes, and `*100` at the end repeats it.
fn unescape(text: &str) -> Vec<u8> {
    let (text, times) = match text.rsplit_once('*') {
        Some((text, times)) => (text, times.parse().expect(text)),
        None => (text, 1),
    };
    let mut text = text.replace("\\r", "\r").replace("\\n", "\n");
    for (digit, byte) in ('0'..='4').zip('\0'..) {
        text = text.replace(&format!("\\{digit}"), &byte.to_string());
    }
    text.into_bytes().repeat(times)
}
