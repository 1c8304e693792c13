//! Conversations: what is sent, by whom, and after how long. They have a notation, so that a
//! difference that was found by chance can be kept as a line of text:
//!
//! ```text
//! > S 1000 0 ws=7 sackok          a SYN from the client: flags, sequence and acknowledgement number
//! < SA 5000 1001 win=1000         the server's answer
//! +1.2 > A 1001 5001 len=20       1.2 seconds later
//! < error 3 1 0 about > A 1001 5001   an ICMP error, type 3, code 1, about the packet behind
//! ```
//!
//! Other kinds are `udp`, `icmp TYPE CODE` and `raw PROTOCOL`; `astray` before an error sends it to
//! a host that has nothing to do with it. `cut N` before a packet takes its last bytes away, and
//! `poke OFFSET VALUE` changes a byte of its transport header; checksums stay as they were.
//! `via 0-60` puts it behind IPv6 extension headers of these kinds; in IPv4 behind as many words of
//! options.

use crate::oracle::{HOSTS, LEGS};
use shardwall::wire::Addrs;
use shardwall::wire::build::{self, Link};
use shardwall::wire::checksum::checksum;
use shardwall::wire::tcp::flags;
use std::fmt;
use std::time::Duration;

/// A conversation between a client (side 0) and a server (side 1).
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// What it is about.
    pub(crate) name: String,
    /// IPv6 or IPv4.
    pub(crate) v6: bool,
    /// Its packets.
    pub(crate) steps: Vec<Step>,
}

/// A packet of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// How long after the packet before it.
    pub(crate) wait: Duration,
    /// Who sends it.
    pub(crate) side: usize,
    /// What it is.
    pub(crate) body: Body,
}

/// A packet without its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Tcp {
        flags: u8,
        seq: u32,
        ack: u32,
        window: u16,
        len: u16,
        options: Vec<u8>,
    },
    Udp {
        len: u16,
    },
    Icmp {
        ty: u8,
        code: u8,
    },
    Raw {
        proto: u8,
        len: u16,
    },
    /// Another packet behind IPv6 extension headers of these kinds, or with as many words of IPv4
    /// options.
    Via {
        headers: Vec<u8>,
        body: Box<Body>,
    },
    /// Another packet with a mistake in it.
    Bent {
        /// How many bytes are missing at the end.
        cut: u16,
        /// Byte of the transport header (or what follows) that is changed, and its value.
        poke: Option<(u16, u8)>,
        body: Box<Body>,
    },
    Error {
        ty: u8,
        code: u8,
        /// The four bytes behind the checksum.
        rest: u32,
        astray: bool,
        /// Who sent the packet that it is about.
        of: usize,
        about: Box<Body>,
    },
}

const PORTS: [u16; 2] = [40_000, 80];
const LETTERS: [(char, u8); 8] = [
    ('F', flags::FIN),
    ('S', flags::SYN),
    ('R', flags::RST),
    ('P', flags::PSH),
    ('A', flags::ACK),
    ('U', flags::URG),
    ('E', flags::ECE),
    ('C', flags::CWR),
];

/// The host of conversation `label` at `side`.
fn host(label: u32, v6: bool, side: usize) -> Addrs {
    let n = side as u32 + 1;
    let src = 0x0a00_0000 | n << 16 | label & 0xffff;
    if v6 {
        let src = (0xfd00 | u128::from(n)) << 112 | u128::from(label);
        Addrs::V6 { src, dst: 0 }
    } else {
        Addrs::V4 { src, dst: 0 }
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

/// Labels that belong to no conversation: routers, and hosts that are not concerned.
const ROUTER: u32 = 1;
const STRANGER: u32 = 2;

/// The frame of `body`, sent by `side` in conversation `label`.
pub(crate) fn frame(label: u32, v6: bool, side: usize, body: &Body) -> Vec<u8> {
    let to = 1 - side;
    let mut addrs = between(host(label, v6, side), host(label, v6, to));
    let (sport, dport) = (PORTS[side], PORTS[to]);
    let mut payload = Vec::new();
    let segment = match *body {
        Body::Bent {
            cut,
            poke,
            ref body,
        } => return bend(frame(label, v6, side, body), v6, cut, poke),
        Body::Via {
            ref headers,
            ref body,
        } => return extend(frame(label, v6, side, body), v6, headers),
        Body::Tcp {
            flags,
            seq,
            ack,
            window,
            len,
            ref options,
        } => {
            payload.resize(usize::from(len), b'x');
            build::Segment::Tcp {
                sport,
                dport,
                seq,
                ack,
                flags,
                window,
                options,
            }
        }
        Body::Udp { len } => {
            payload.resize(usize::from(len), b'x');
            build::Segment::Udp { sport, dport }
        }
        Body::Icmp { ty, code } => build::Segment::Icmp {
            ty,
            code,
            rest: label << 16 | 7,
        },
        Body::Raw { proto, len } => {
            payload.resize(usize::from(len), b'x');
            build::Segment::Raw(proto)
        }
        Body::Error {
            ty,
            code,
            rest,
            astray,
            of,
            ref about,
        } => {
            let stranger = if astray { STRANGER } else { label };
            addrs = between(host(ROUTER, v6, side), host(stranger, v6, to));
            payload = frame(label, v6, of, about).split_off(IP);
            // As much as routers quote (RFC 792, RFC 4443 2.4).
            payload.truncate(if v6 { 1_200 } else { 28 });
            build::Segment::Icmp { ty, code, rest }
        }
    };
    let link = Link {
        dst: LEGS[side],
        src: HOSTS[side],
        vlan: None,
    };
    let mut out = vec![0; build::frame_len(&link, &addrs, &segment, &payload)];
    build::emit(&mut out, &link, &addrs, 64, &segment, &payload);
    out
}

/// Offset of the IP header in a frame, and of what follows it.
const IP: usize = 14;
const BEHIND_IP: [usize; 2] = [IP + 20, IP + 40];

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

/// Puts extension headers that say nothing (IPv6), or options that do nothing (IPv4), behind the IP
/// header.
fn extend(mut frame: Vec<u8>, v6: bool, headers: &[u8]) -> Vec<u8> {
    let start = BEHIND_IP[usize::from(v6)];
    let behind = frame.split_off(start);
    if v6 {
        let mut next = NEXT_HEADER;
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

/// Offset of the IPv6 header's next-header field.
const NEXT_HEADER: usize = IP + 6;

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

impl Scenario {
    /// Reads the notation; a line or `;` ends a step. `None` where it makes no sense.
    pub(crate) fn read(name: &str, v6: bool, text: &str) -> Option<Self> {
        let steps = text
            .split(['\n', ';'])
            .filter(|line| !line.trim().is_empty())
            .map(Step::read)
            .collect::<Option<_>>()?;
        Some(Self {
            name: name.into(),
            v6,
            steps,
        })
    }
}

impl Step {
    fn read(line: &str) -> Option<Self> {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        let wait = match words.first()?.strip_prefix('+') {
            Some(secs) => {
                words.remove(0);
                Duration::from_secs_f64(secs.parse().ok()?)
            }
            None => Duration::ZERO,
        };
        let (side, body) = read_packet(&words)?;
        Some(Self { wait, side, body })
    }
}

fn read_packet(words: &[&str]) -> Option<(usize, Body)> {
    let (side, words) = words.split_first()?;
    let side = match *side {
        ">" => 0,
        "<" => 1,
        _ => return None,
    };
    Some((side, read_body(words)?))
}

fn read_body(words: &[&str]) -> Option<Body> {
    match *words {
        ["via", headers, ref rest @ ..] => {
            let headers = headers.split('-').map(|kind| kind.parse().ok());
            return Some(Body::Via {
                headers: headers.collect::<Option<_>>()?,
                body: Box::new(read_body(rest)?),
            });
        }
        ["cut", cut, ref rest @ ..] => {
            return Some(Body::Bent {
                cut: cut.parse().ok()?,
                poke: None,
                body: Box::new(read_body(rest)?),
            });
        }
        ["poke", at, value, ref rest @ ..] => {
            return Some(Body::Bent {
                cut: 0,
                poke: Some((at.parse().ok()?, value.parse().ok()?)),
                body: Box::new(read_body(rest)?),
            });
        }
        _ => {}
    }
    let (astray, words) = match words.split_first()? {
        (&"astray", rest) => (true, rest),
        _ => (false, words),
    };
    let value = |name: &str| {
        words
            .iter()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    let len = value("len").map_or(Some(0), |len| len.parse().ok())?;
    let body = match *words {
        ["udp", ..] => Body::Udp { len },
        ["icmp", ty, code] => Body::Icmp {
            ty: ty.parse().ok()?,
            code: code.parse().ok()?,
        },
        ["raw", number, ..] => Body::Raw {
            proto: number.parse().ok()?,
            len,
        },
        ["error", ty, code, rest, "about", ref about @ ..] => {
            let (of, about) = read_packet(about)?;
            Body::Error {
                ty: ty.parse().ok()?,
                code: code.parse().ok()?,
                rest: rest.parse().ok()?,
                astray,
                of,
                about: Box::new(about),
            }
        }
        [letters, seq, ack, ref more @ ..] => {
            let flag = |c| LETTERS.iter().find(|(letter, _)| *letter == c);
            let mut flags = 0;
            for letter in letters.chars().filter(|c| *c != '.') {
                flags |= flag(letter)?.1;
            }
            Body::Tcp {
                flags,
                seq: seq.parse().ok()?,
                ack: ack.parse().ok()?,
                window: value("win").map_or(Some(64_000), |window| window.parse().ok())?,
                len,
                options: read_options(more)?,
            }
        }
        _ => return None,
    };
    Some(body)
}

fn read_options(words: &[&str]) -> Option<Vec<u8>> {
    let mut options = Vec::new();
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("ws", shift) => options.extend([1, 3, 3, shift.parse().ok()?]),
            ("sackok", _) => options.extend([1, 1, 4, 2]),
            ("sack", blocks) => {
                let mut edges = Vec::new();
                for edge in blocks.split(['-', ',']) {
                    edges.extend(edge.parse::<u32>().ok()?.to_be_bytes());
                }
                options.extend([1, 1, 5, 2 + edges.len() as u8]);
                options.extend(edges);
            }
            ("opt", bytes) => {
                for pair in bytes.as_bytes().chunks(2) {
                    let pair = std::str::from_utf8(pair).ok()?;
                    options.push(u8::from_str_radix(pair, 16).ok()?);
                }
            }
            ("len" | "win", _) => {}
            _ => return None,
        }
    }
    Some(options)
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.wait.is_zero() {
            write!(f, "+{} ", self.wait.as_secs_f64())?;
        }
        write_packet(f, self.side, &self.body)
    }
}

fn write_packet(f: &mut fmt::Formatter<'_>, side: usize, body: &Body) -> fmt::Result {
    write!(f, "{} ", [">", "<"][side])?;
    write_body(f, body)
}

fn write_body(f: &mut fmt::Formatter<'_>, body: &Body) -> fmt::Result {
    match body {
        Body::Via { headers, body } => {
            let headers: Vec<String> = headers.iter().map(u8::to_string).collect();
            write!(f, "via {} ", headers.join("-"))?;
            write_body(f, body)
        }
        Body::Bent { cut, poke, body } => {
            if *cut > 0 {
                write!(f, "cut {cut} ")?;
            }
            if let Some((at, value)) = poke {
                write!(f, "poke {at} {value} ")?;
            }
            write_body(f, body)
        }
        Body::Tcp {
            flags,
            seq,
            ack,
            window,
            len,
            options,
        } => {
            for (letter, bit) in LETTERS {
                if flags & bit != 0 {
                    write!(f, "{letter}")?;
                }
            }
            if *flags == 0 {
                write!(f, ".")?;
            }
            write!(f, " {seq} {ack}")?;
            if *len > 0 {
                write!(f, " len={len}")?;
            }
            if *window != 64_000 {
                write!(f, " win={window}")?;
            }
            if !options.is_empty() {
                write!(f, " opt=")?;
                options
                    .iter()
                    .try_for_each(|byte| write!(f, "{byte:02x}"))?;
            }
            Ok(())
        }
        Body::Udp { len } => write!(f, "udp len={len}"),
        Body::Icmp { ty, code } => write!(f, "icmp {ty} {code}"),
        Body::Raw { proto, len } => write!(f, "raw {proto} len={len}"),
        Body::Error {
            ty,
            code,
            rest,
            astray,
            of,
            about,
        } => {
            let astray = if *astray { "astray " } else { "" };
            write!(f, "{astray}error {ty} {code} {rest} about ")?;
            write_packet(f, *of, about)
        }
    }
}

/// Every scripted conversation, in both families.
pub(crate) fn scripted() -> Vec<Scenario> {
    chapters(include_str!("scripted.txt"))
}

/// Conversations that each begin with `# name`, in both families unless the name ends in
/// `(only v4)` or `(only v6)`.
pub(crate) fn chapters(text: &str) -> Vec<Scenario> {
    let mut all = Vec::new();
    for chapter in format!("\n{text}").split("\n# ").skip(1) {
        let (title, text) = chapter.split_once('\n').unwrap_or((chapter, ""));
        let (name, families) = match title.split_once(" (only ") {
            Some((name, "v4)")) => (name, &[false][..]),
            Some((name, "v6)")) => (name, &[true][..]),
            _ => (title, &[false, true][..]),
        };
        for v6 in families {
            let scenario = Scenario::read(name, *v6, text);
            all.push(scenario.unwrap_or_else(|| panic!("scripted.txt: {name} makes no sense")));
        }
    }
    all
}

/// Random numbers (splitmix64): the same for the same seed, for ever.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    fn wait(&mut self, percent: usize) -> Duration {
        if !self.chance(percent) {
            return Duration::ZERO;
        }
        // Sums that stay clear of the two seconds after which a UDP flow is a stream.
        Duration::from_millis(self.pick(&[450, 1200, 1200, 2600]))
    }
}

/// A random conversation of about `len` packets.
pub(crate) fn walk(random: &mut Random, number: usize, len: usize) -> Scenario {
    let v6 = random.chance(40);
    let mut steps = Vec::new();
    let kind = random.below(20);
    let name = match kind {
        0 => "udp",
        1 => "icmp",
        2 => "generic",
        _ => "tcp",
    };
    let mut talk = Talk::new(random);
    let len = len / 2 + random.below(len);
    let mut patience = Duration::from_secs(6);
    while steps.len() < len {
        let side = random.below(2);
        let (side, body) = match kind {
            0 => {
                let side = if random.chance(60) { 0 } else { side };
                let len = random.below(40) as u16;
                (side, Body::Udp { len })
            }
            1 => (side, query(random, v6)),
            2 => (
                side,
                Body::Raw {
                    proto: talk.proto,
                    len: 8,
                },
            ),
            _ => talk.segment(random),
        };
        let (side, body) = if random.chance(2) && kind != 2 {
            (side, random_bend(random, body))
        } else if random.chance(6) {
            error(random, v6, &steps, side).unwrap_or((side, body))
        } else {
            (side, body)
        };
        let body = if random.chance(5) {
            via(random, body)
        } else {
            body
        };
        let wait = random.wait(if kind == 0 { 30 } else { 9 }).min(patience);
        patience -= wait;
        steps.push(Step { wait, side, body });
    }
    Scenario {
        name: format!("walk {number}: {name}"),
        v6,
        steps,
    }
}

fn query(random: &mut Random, v6: bool) -> Body {
    let ty = match (v6, random.chance(85)) {
        (false, true) => random.pick(&[8, 0]),
        (true, true) => random.pick(&[128, 129]),
        (false, false) => random.pick(&[0, 1, 2, 6, 7, 9, 10, 13, 14, 15, 16, 17, 18, 19, 40, 255]),
        (true, false) => random.pick(&[
            0, 5, 100, 127, 130, 131, 132, 133, 134, 135, 136, 138, 139, 140, 141, 143, 144, 151,
            152, 153, 200, 255,
        ]),
    };
    let code = if random.chance(90) { 0 } else { 1 };
    Body::Icmp { ty, code }
}

/// An ICMP error about one of the steps.
fn error(random: &mut Random, v6: bool, steps: &[Step], side: usize) -> Option<(usize, Body)> {
    if steps.is_empty() {
        return None;
    }
    let about = &steps[random.below(steps.len())];
    if matches!(about.body, Body::Error { .. }) {
        return None;
    }
    let ty = match v6 {
        false => random.pick(&[3, 3, 4, 5, 11, 12]),
        true => random.pick(&[1, 1, 2, 3, 4]),
    };
    let side = if random.chance(80) {
        1 - about.side
    } else {
        side
    };
    let body = Body::Error {
        ty,
        code: random.below(4) as u8,
        rest: 0,
        astray: random.chance(15),
        of: if random.chance(85) {
            about.side
        } else {
            1 - about.side
        },
        about: Box::new(match random.below(10) {
            // Not inside extension headers; see the list of what is left out.
            0 if !matches!(about.body, Body::Via { .. }) => random_bend(random, about.body.clone()),
            1 => random.pick(&[
                Body::Udp { len: 9 },
                Body::Icmp { ty: 8, code: 0 },
                Body::Raw { proto: 89, len: 9 },
            ]),
            _ => about.body.clone(),
        }),
    };
    Some((side, body))
}

/// A packet behind extension headers.
fn via(random: &mut Random, body: Body) -> Body {
    let mut headers = Vec::new();
    if random.chance(30) {
        headers.push(0); // only ever the first
    }
    for _ in 0..random.below(3) {
        headers.push(random.pick(&[43, 51, 60]));
    }
    let body = Box::new(body);
    Body::Via { headers, body }
}

/// A packet cut short somewhere in its transport header.
fn random_bend(random: &mut Random, body: Body) -> Body {
    let len = frame(0, false, 0, &body).len() - BEHIND_IP[0];
    let left = random.below(20).min(len);
    Body::Bent {
        cut: (len - left) as u16,
        poke: None,
        body: Box::new(body),
    }
}

/// Two hosts that talk TCP, more or less.
#[derive(Debug)]
struct Talk {
    hosts: [Host; 2],
    /// How far the conversation got.
    phase: u8,
    /// Percentage of segments that no host would send.
    oddity: usize,
    sent: Vec<(usize, Body)>,
    /// Every number that was mentioned.
    numbers: Vec<u32>,
    proto: u8,
}

#[derive(Clone, Copy, Debug)]
struct Host {
    /// The next sequence number.
    next: u32,
    /// What it has received.
    received: u32,
    window: u16,
    scale: Option<u8>,
    sack: bool,
    finished: bool,
}

impl Talk {
    fn new(random: &mut Random) -> Self {
        let hosts = [0, 1].map(|_| Host {
            next: match random.below(4) {
                0 => u32::MAX - random.below(3000) as u32,
                1 => (1 << 31) - random.below(3000) as u32,
                _ => random.next() as u32,
            },
            received: 0,
            window: random.pick(&[0, 1, 500, 5_000, 64_000, 64_000, 65_535]),
            scale: random.pick(&[None, None, Some(0), Some(2), Some(7), Some(14), Some(15)]),
            sack: random.chance(60),
            finished: false,
        });
        Self {
            hosts,
            phase: random.pick(&[0, 0, 0, 0, 0, 0, 3, 3]),
            oddity: random.pick(&[0, 5, 15, 15, 30, 60]),
            sent: Vec::new(),
            numbers: vec![0],
            proto: random.pick(&[50, 89, 103, 253]),
        }
    }

    fn segment(&mut self, random: &mut Random) -> (usize, Body) {
        let repeat = random.chance(8).then(|| random.below(self.sent.len() + 1));
        if let Some(again) = repeat.and_then(|at| self.sent.get(at)) {
            return again.clone();
        }
        if random.chance(6)
            && let Some(last) = self.sent.last()
        {
            return last.clone();
        }
        let (side, body) = if random.chance(self.oddity) {
            self.odd(random)
        } else {
            self.sensible(random)
        };
        self.sent.push((side, body.clone()));
        (side, body)
    }

    /// What comes next in an honest conversation.
    fn sensible(&mut self, random: &mut Random) -> (usize, Body) {
        use flags::{ACK, FIN, PSH, RST, SYN};
        let (side, bits, len) = match self.phase {
            0 => (0, SYN, 0),
            1 if random.chance(8) => (1, SYN, 0),
            1 => (1, SYN | ACK, 0),
            2 => (0, ACK, 0),
            _ => {
                let side = random.below(2);
                let done = self.hosts.map(|host| host.finished);
                match random.below(100) {
                    0..12 if !done[side] => (side, FIN | ACK, 0),
                    0..4 if done == [true; 2] => {
                        // The same ports once more.
                        self.phase = 0;
                        self.hosts[0].finished = false;
                        self.hosts[1].finished = false;
                        self.hosts[0].next = self.hosts[0].next.wrapping_add(100_000);
                        (0, SYN, 0)
                    }
                    12..15 => (side, RST, 0),
                    15..17 => (side, RST | ACK, 0),
                    17..60 if !done[side] => (side, ACK | PSH, random.pick(&[1, 10, 100, 1400])),
                    _ => (side, ACK, 0),
                }
            }
        };
        if self.phase < 3 {
            self.phase += 1;
        }
        let Host { next, received, .. } = self.hosts[side];
        let ack = if bits & ACK != 0 { received } else { 0 };
        let lost = random.chance(5);
        self.send(random, side, bits, next, ack, len, !lost)
    }

    /// Anything.
    fn odd(&mut self, random: &mut Random) -> (usize, Body) {
        use flags::{ACK, FIN, PSH, RST, SYN, URG};
        let side = random.below(2);
        let bits = match random.below(10) {
            0..8 => random.pick(&[
                SYN,
                SYN,
                SYN | ACK,
                SYN | ACK,
                ACK,
                ACK,
                ACK | PSH,
                ACK | URG,
                FIN | ACK,
                RST,
                RST,
                RST | ACK,
                SYN | URG,
            ]),
            8 => random.next() as u8,
            _ => ACK,
        };
        let window = u32::from(self.hosts[1 - side].window);
        let deltas = [
            1,
            2,
            100,
            1400,
            window,
            window.wrapping_add(1),
            65_535,
            66_000,
            66_001,
            100_000,
            1 << 20,
            1 << 31,
        ];
        let host = self.hosts[side];
        let numbers = &self.numbers;
        let mut shift = |base: u32| match random.below(14) {
            0..5 => base,
            5..7 => base.wrapping_add(random.pick(&deltas)),
            7 => base.wrapping_sub(random.pick(&deltas)),
            8..12 => random.pick(numbers),
            12 => random.pick(numbers).wrapping_add(1),
            _ => random.next() as u32,
        };
        let (seq, ack) = (shift(host.next), shift(host.received));
        let len = random.pick(&[0, 0, 1, 100, 1400]);
        let heard = random.chance(50);
        self.send(random, side, bits, seq, ack, len, heard)
    }

    #[allow(clippy::too_many_arguments)]
    fn send(
        &mut self,
        random: &mut Random,
        side: usize,
        flags: u8,
        seq: u32,
        ack: u32,
        len: u16,
        heard: bool,
    ) -> (usize, Body) {
        let host = &mut self.hosts[side];
        if random.chance(5) {
            host.window = random.pick(&[0, 0, 1, 500, 5_000, 64_000]);
        }
        let mut options = Vec::new();
        if flags & flags::SYN != 0 {
            if host.sack {
                options.extend([4, 2, 1, 1]);
            }
            if let Some(scale) = host.scale {
                options.extend([1, 3, 3, scale]);
            }
        } else if host.sack && random.chance(10) {
            let left = ack.wrapping_add(random.pick(&[0, 10, 1400, 70_000]));
            let right = left.wrapping_add(random.pick(&[0, 1, 100, 70_000]));
            options.extend([1, 1, 5, 10]);
            options.extend(left.to_be_bytes());
            options.extend(right.to_be_bytes());
        }
        if random.chance(4) {
            options.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
        }
        let phantom = u32::from(flags & (flags::SYN | flags::FIN) != 0);
        let end = seq.wrapping_add(u32::from(len)).wrapping_add(phantom);
        if flags & flags::RST == 0 {
            host.next = end;
            host.finished |= flags & flags::FIN != 0;
        }
        let window = host.window;
        self.numbers.extend([seq, ack, end]);
        if heard && flags & flags::RST == 0 {
            self.hosts[1 - side].received = end;
        }
        let body = Body::Tcp {
            flags,
            seq,
            ack,
            window,
            len,
            options,
        };
        (side, body)
    }
}
