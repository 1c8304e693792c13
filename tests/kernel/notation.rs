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
//! `frag ID FROM TO` sends only those bytes of it, up to the end if `TO` is `-`. `on 40001-20` sends
//! it between these ports, the client's and the server's; behind a port, `*` stands for another host
//! on that side.
//!
//! What a packet says comes last, and may go on in the lines behind it (`text.rs`):
//!
//! ```text
//! > udp "OPTIONS sip:{server} SIP/2.0\r\n"
//!       "\r\n"
//! > PA = = "NOOP\r\n"              = is the number that comes next in what was said of this flow
//! > "NOOP\r\n"                     the same
//! ```

use crate::scenario::{Body, CHUNKS, Chunk, Ends, Scenario, Step};
use crate::text;
use shardwall::wire::tcp::flags;
use std::collections::HashMap;
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
        let mut numbers = Numbers::default();
        let mut steps = Vec::new();
        for line in lines(text) {
            let step = Step::read(line, &numbers).ok_or(line)?;
            numbers.count(&step, v6);
            steps.push(step);
        }
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

/// The parts of `text` that are a step each, which end with a line unless the next goes on with a
/// quotation, or with `;`.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\n', ';']);
        let mut chars = rest.char_indices();
        let (mut quoted, mut end) = (false, rest.len());
        while let Some((at, char)) = chars.next() {
            match char {
                '\\' if quoted => drop(chars.next()),
                '"' => quoted = !quoted,
                '\n' if rest[at..].trim_start().starts_with('"') => {}
                '\n' | ';' if !quoted => {
                    end = at;
                    break;
                }
                _ => {}
            }
        }
        let (line, behind) = rest.split_at(end);
        rest = behind;
        (!line.is_empty()).then_some(line)
    })
}

/// The words of a step; quotations are one, at its end.
fn words(line: &str) -> Vec<&str> {
    let (plain, quoted) = line.split_at(line.find('"').unwrap_or(line.len()));
    let quoted = Some(quoted.trim_end()).filter(|quoted| !quoted.is_empty());
    plain.split_whitespace().chain(quoted).collect()
}

/// The text of one or more quotations.
fn quotation(words: &[&str]) -> Option<Vec<u8>> {
    let mut rest = words.last()?.strip_prefix('"')?;
    let mut said = Vec::new();
    loop {
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next()? {
                (_, '\\') => drop(chars.next()),
                (at, '"') => break at,
                _ => {}
            }
        };
        said.extend(text::read(&rest[..end])?);
        match rest[end + 1..].trim_start() {
            "" => return Some(said),
            more => rest = more.strip_prefix('"')?,
        }
    }
}

/// The next sequence number of either side, in flows of TCP.
#[derive(Default)]
struct Numbers(HashMap<Option<Ends>, [u32; 2]>);

impl Numbers {
    fn of(&self, ends: Option<Ends>) -> [u32; 2] {
        self.0.get(&ends).copied().unwrap_or_default()
    }

    fn count(&mut self, step: &Step, v6: bool) {
        let Body::Tcp { seq, .. } = step.body.core() else {
            return;
        };
        let len = step.body.stream_len(v6);
        let numbers = self.0.entry(step.body.ends()).or_default();
        numbers[step.side] = seq.wrapping_add(len);
    }
}

/// Reads the packets of a flow.
#[derive(Clone, Copy)]
struct Reader<'a> {
    numbers: &'a Numbers,
    ends: Option<Ends>,
    side: usize,
}

impl Step {
    fn read(line: &str, numbers: &Numbers) -> Option<Self> {
        let mut words = words(line);
        let wait = match words.first()?.strip_prefix('+') {
            Some(secs) => {
                words.remove(0);
                Duration::from_secs_f64(secs.parse().ok()?)
            }
            None => Duration::ZERO,
        };
        let (side, body) = Reader::packet(numbers, &words)?;
        Some(Self { wait, side, body })
    }
}

/// Reads `40001-20*`.
fn read_ends(word: &str) -> Option<Ends> {
    let (client, server) = word.split_once('-')?;
    let port = |word: &str| word.trim_end_matches('*').parse().ok();
    Some(Ends {
        ports: [port(client)?, port(server)?],
        other: [client.ends_with('*'), server.ends_with('*')],
    })
}

impl<'a> Reader<'a> {
    fn packet(numbers: &'a Numbers, words: &[&str]) -> Option<(usize, Body)> {
        let (side, words) = words.split_first()?;
        let side = match *side {
            ">" => 0,
            "<" => 1,
            _ => return None,
        };
        let reader = Self {
            numbers,
            ends: None,
            side,
        };
        Some((side, reader.body(words)?))
    }

    fn body(self, words: &[&str]) -> Option<Body> {
        let boxed = |rest: &[&str]| self.body(rest).map(Box::new);
        let about = |rest: &[&str]| {
            Self::packet(self.numbers, rest).map(|(of, about)| (of, Box::new(about)))
        };
        let value = |name: &str| {
            words
                .iter()
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        };
        let len = || value("len").map_or(Some(0), |len| len.parse().ok());
        let number = |word: &str, of: usize| match word {
            "=" => Some(self.numbers.of(self.ends)[of]),
            number => number.parse().ok(),
        };
        let silent = match *words {
            [said] if said.starts_with('"') => self.body(&["PA", "=", "="])?,
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
            ["on", ends, ref rest @ ..] => {
                let ends = read_ends(ends)?;
                let reader = Self {
                    ends: Some(ends),
                    ..self
                };
                let body = Box::new(reader.body(rest)?);
                Body::On { ends, body }
            }
            ["astray", ref rest @ ..] => match self.body(rest)? {
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
                    seq: number(seq, self.side)?,
                    ack: number(ack, 1 - self.side)?,
                    window: value("win").map_or(Some(64_000), |window| window.parse().ok())?,
                    len: len()?,
                    options: read_options(more)?,
                }
            }
            _ => return None,
        };
        Some(match (quotation(words), silent) {
            (Some(text), silent @ (Body::Tcp { .. } | Body::Udp { .. })) => Body::Says {
                text,
                body: Box::new(silent),
            },
            (_, silent) => silent,
        })
    }
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
        if word.starts_with('"') {
            break;
        }
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
            Body::On { ends, body } => {
                let star = ends.other.map(|other| if other { "*" } else { "" });
                let [client, server] = ends.ports;
                write!(f, "on {client}{}-{server}{} {body}", star[0], star[1])
            }
            Body::Says { text, body } => write!(f, "{body} {}", text::write(text)),
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
            Body::Udp { len: 0 } => write!(f, "udp"),
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
