//! The notation of conversations, so that a difference that was found by chance can be kept as a
//! line of text:
//!
//! ```text
//! > S 1000 0 ws=7 sackok          a SYN from the client: flags, sequence and acknowledgement number
//! < SA 5000 1001 win=1000         the server's answer
//! +1.2 > A 1001 5001 len=20       1.2 seconds later
//! < error 3 1 0 about > A 1001 5001   an ICMP error, type 3, code 1, about the packet behind
//! ```
//!
//! Other kinds are `udp`, `udplite COVERAGE`, `icmp TYPE CODE`, `raw PROTOCOL`, `gre VERSION KEY`,
//! `redirect about …` and `sctp VTAG CHUNK…`, where a chunk is `name/flags:value` (see
//! [`Chunk::value`]). `astray` before an error sends it to a host that has nothing to do with it.
//! `cut N` before a packet takes its last bytes away, `poke OFFSET VALUE` changes a byte of its
//! transport header, with checksums as they were, and `badsum` spoils the checksum. `via 0-60` puts
//! it behind IPv6 extension headers of these kinds; in IPv4 behind as many words of options.
//! `frag ID FROM TO` sends only those bytes of it, up to the end if `TO` is `-`.

use crate::scenario::{Body, CHUNKS, Chunk, Scenario, Step};
use shardwall::wire::tcp::flags;
use std::fmt;
use std::time::Duration;

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

impl Scenario {
    /// Reads the notation; a line or `;` ends a step. The step that makes no sense, where one does
    /// not.
    pub(crate) fn read<'a>(
        name: &str,
        group: &str,
        v6: bool,
        port: u16,
        text: &'a str,
    ) -> Result<Self, &'a str> {
        let steps = text
            .split(['\n', ';'])
            .filter(|line| !line.trim().is_empty())
            .map(|line| Step::read(line).ok_or(line))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            name: name.into(),
            group: group.into(),
            v6,
            port,
            steps,
        })
    }

    /// The line that begins its chapter.
    pub(crate) fn title(&self) -> String {
        let family = if self.v6 { "v6" } else { "v4" };
        let mut title = format!("# {} (only {family}", self.name);
        if self.group != "default" {
            title += &format!(", in {}", self.group);
        }
        if self.port != 80 {
            title += &format!(", port {}", self.port);
        }
        title + ")"
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
    let boxed = |rest: &[&str]| read_body(rest).map(Box::new);
    let about = |rest: &[&str]| read_packet(rest).map(|(of, about)| (of, Box::new(about)));
    let value = |name: &str| {
        words
            .iter()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    let len = || value("len").map_or(Some(0), |len| len.parse().ok());
    Some(match *words {
        ["via", headers, ref rest @ ..] => {
            let headers = headers.split('-').filter(|kind| !kind.is_empty());
            Body::Via {
                headers: headers
                    .map(|kind| kind.parse().ok())
                    .collect::<Option<_>>()?,
                body: boxed(rest)?,
            }
        }
        ["cut", cut, ref rest @ ..] => Body::Bent {
            cut: cut.parse().ok()?,
            poke: None,
            body: boxed(rest)?,
        },
        ["poke", at, value, ref rest @ ..] => Body::Bent {
            cut: 0,
            poke: Some((at.parse().ok()?, value.parse().ok()?)),
            body: boxed(rest)?,
        },
        ["badsum", ref rest @ ..] => Body::BadSum(boxed(rest)?),
        ["frag", id, from, to, ref rest @ ..] => Body::Fragment {
            id: id.parse().ok()?,
            from: from.parse().ok()?,
            to: match to {
                "-" => None,
                to => Some(to.parse().ok()?),
            },
            body: boxed(rest)?,
        },
        ["astray", ref rest @ ..] => match read_body(rest)? {
            Body::Error {
                ty,
                code,
                rest,
                of,
                about,
                ..
            } => Body::Error {
                ty,
                code,
                rest,
                astray: true,
                of,
                about,
            },
            _ => return None,
        },
        ["error", ty, code, rest, "about", ref packet @ ..] => {
            let (of, about) = about(packet)?;
            Body::Error {
                ty: ty.parse().ok()?,
                code: code.parse().ok()?,
                rest: rest.parse().ok()?,
                astray: false,
                of,
                about,
            }
        }
        ["redirect", "about", ref packet @ ..] => {
            let (of, about) = about(packet)?;
            Body::Redirect { of, about }
        }
        ["udp", ..] => Body::Udp { len: len()? },
        ["udplite", coverage, ..] => Body::UdpLite {
            coverage: coverage.parse().ok()?,
            len: len()?,
        },
        ["icmp", ty, code] => Body::Icmp {
            ty: ty.parse().ok()?,
            code: code.parse().ok()?,
        },
        ["raw", number, ..] => Body::Raw {
            proto: number.parse().ok()?,
            len: len()?,
        },
        ["gre", version, key, ..] => Body::Gre {
            version: version.parse().ok()?,
            key: key.parse().ok()?,
            len: len()?,
        },
        ["sctp", vtag, ref chunks @ ..] => Body::Sctp {
            vtag: vtag.parse().ok()?,
            chunks: chunks
                .iter()
                .map(|word| read_chunk(word))
                .collect::<Option<_>>()?,
        },
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
                len: len()?,
                options: read_options(more)?,
            }
        }
        _ => return None,
    })
}

fn read_chunk(word: &str) -> Option<Chunk> {
    let (word, value) = word.split_once(':').unwrap_or((word, "0"));
    let (name, flags) = word.split_once('/').unwrap_or((word, "0"));
    let known = CHUNKS.iter().find(|(known, _)| *known == name);
    Some(Chunk {
        ty: known.map_or_else(|| name.parse().ok(), |(_, ty)| Some(*ty))?,
        flags: flags.parse().ok()?,
        value: value.parse().ok()?,
    })
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
        write!(f, "{} {}", [">", "<"][self.side], self.body)
    }
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sides = [">", "<"];
        match self {
            Body::Via { headers, body } => {
                let headers: Vec<String> = headers.iter().map(u8::to_string).collect();
                let headers = if headers.is_empty() {
                    "-".into()
                } else {
                    headers.join("-")
                };
                write!(f, "via {headers} {body}")
            }
            Body::Bent { cut, poke, body } => {
                if *cut > 0 {
                    write!(f, "cut {cut} ")?;
                }
                if let Some((at, value)) = poke {
                    write!(f, "poke {at} {value} ")?;
                }
                write!(f, "{body}")
            }
            Body::BadSum(body) => write!(f, "badsum {body}"),
            Body::Fragment { id, from, to, body } => {
                let to = to.map_or("-".into(), |to| to.to_string());
                write!(f, "frag {id} {from} {to} {body}")
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
                    let mut bytes = options.iter();
                    bytes.try_for_each(|byte| write!(f, "{byte:02x}"))?;
                }
                Ok(())
            }
            Body::Udp { len } => write!(f, "udp len={len}"),
            Body::UdpLite { coverage, len } => write!(f, "udplite {coverage} len={len}"),
            Body::Icmp { ty, code } => write!(f, "icmp {ty} {code}"),
            Body::Raw { proto, len } => write!(f, "raw {proto} len={len}"),
            Body::Gre { version, key, len } => write!(f, "gre {version} {key} len={len}"),
            Body::Sctp { vtag, chunks } => {
                write!(f, "sctp {vtag}")?;
                chunks.iter().try_for_each(|chunk| write!(f, " {chunk}"))
            }
            Body::Error {
                ty,
                code,
                rest,
                astray,
                of,
                about,
            } => {
                let astray = if *astray { "astray " } else { "" };
                let of = sides[*of];
                write!(f, "{astray}error {ty} {code} {rest} about {of} {about}")
            }
            Body::Redirect { of, about } => write!(f, "redirect about {} {about}", sides[*of]),
        }
    }
}

impl fmt::Display for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match CHUNKS.iter().find(|(_, ty)| *ty == self.ty) {
            Some((name, _)) => write!(f, "{name}")?,
            None => write!(f, "{}", self.ty)?,
        }
        if self.flags != 0 {
            write!(f, "/{}", self.flags)?;
        }
        if self.value != 0 {
            write!(f, ":{}", self.value)?;
        }
        Ok(())
    }
}
