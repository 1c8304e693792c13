//! What hosts say in protocols that have a helper.

use crate::dialogue::Announced;
use crate::frame::Place;
use crate::random::Random;
use crate::text;

/// A protocol, and what is remembered of a talk in it.
#[derive(Clone, Debug)]
pub(crate) enum Speech {
    Ftp,
    Irc,
    Tftp,
    Amanda,
    /// Over UDP or TCP.
    Sip {
        proto: u8,
        talk: SipTalk,
    },
}

/// A call, more or less.
#[derive(Clone, Debug, Default)]
pub(crate) struct SipTalk {
    /// How many requests there were.
    cseq: u32,
    /// Requests without an answer: who asked, method and number.
    open: Vec<(usize, &'static str, u32)>,
}

/// Something to say.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) side: usize,
    pub(crate) text: Vec<u8>,
    /// What it announces.
    pub(crate) flows: Vec<Announced>,
    /// It names another host.
    pub(crate) foreign: bool,
}

const TCP: u8 = 6;
const UDP: u8 = 17;

/// The protocols by their names in `walk.rs`, and the server's ports.
pub(crate) const SPEECHES: [(&str, &[u16]); 5] = [
    ("ftp", &[21, 21, 2121]),
    ("irc", &[6667]),
    ("tftp", &[69]),
    ("amanda", &[10080]),
    ("sip", &[5060]),
];

impl Speech {
    /// The one called `name`.
    pub(crate) fn new(random: &mut Random, name: &str) -> Option<Self> {
        Some(match name {
            "ftp" => Speech::Ftp,
            "irc" => Speech::Irc,
            "tftp" => Speech::Tftp,
            "amanda" => Speech::Amanda,
            "sip" => Speech::Sip {
                proto: random.pick(&[UDP, UDP, TCP]),
                talk: SipTalk::default(),
            },
            _ => return None,
        })
    }

    /// The control flow's transport protocol.
    pub(crate) fn proto(&self) -> u8 {
        match self {
            Speech::Ftp | Speech::Irc => TCP,
            Speech::Tftp | Speech::Amanda => UDP,
            Speech::Sip { proto, .. } => *proto,
        }
    }

    /// Whether every segment prolongs the flow, also one that was seen before.
    pub(crate) fn counts_packets(&self) -> bool {
        matches!(self, Speech::Sip { proto: TCP, .. })
    }

    /// How a talk begins.
    pub(crate) fn greeting(&self, random: &mut Random) -> Vec<(usize, Vec<u8>)> {
        let polite = random.chance(90);
        let lines: &[(usize, &str)] = match self {
            Speech::Ftp if polite => &[(1, "220 ready\r\n"), (0, "USER anonymous\r\n")],
            Speech::Irc if polite => &[(0, "NICK alice\r\n"), (1, ":b 001 alice :hello\r\n")],
            Speech::Amanda => &[(0, "Amanda 2.6 REQ HANDLE 0 SEQ 1\nSERVICE backup\n")],
            _ => &[],
        };
        let lines = lines
            .iter()
            .map(|(side, text)| (*side, text.as_bytes().to_vec()));
        lines.collect()
    }

    /// Something that announces nothing.
    pub(crate) fn neutral(&self, random: &mut Random, side: usize) -> Vec<u8> {
        let all: [&[&str]; 2] = match self {
            Speech::Ftp => [
                &["NOOP\r\n", "PASV\r\n", "LIST\r\n"],
                &["200 ok\r\n", "226 done\r\n"],
            ],
            Speech::Irc => [&["PING b\r\n", "PRIVMSG bob :hello\r\n"], &[":b PONG\r\n"]],
            Speech::Tftp => [&["\x00\x04\x00\x01"], &["\x00\x03\x00\x01data"]],
            Speech::Amanda => [&["Amanda 2.6 ACK\n"], &["Amanda 2.6 ACK\n", "x"]],
            Speech::Sip { .. } => [&["\r\n\r\n"], &["\r\n\r\n"]],
        };
        random.pick(all[side]).as_bytes().to_vec()
    }

    /// Something to say next, which mostly announces something.
    pub(crate) fn line(&mut self, random: &mut Random, v6: bool) -> Line {
        match self {
            Speech::Ftp => ftp(random, v6),
            Speech::Irc => irc(random),
            Speech::Tftp => tftp(random),
            Speech::Amanda => amanda(random),
            Speech::Sip { proto, talk } => talk.message(random, v6, *proto),
        }
    }

    /// Whether kernel and product are not known to take `text`, which was `was` before there were
    /// mistakes in it, differently.
    pub(crate) fn agreed(&self, was: &[u8], text: &[u8], v6: bool) -> bool {
        let [was, text] = [was, text].map(|text| text::render(text, &Place::anywhere(v6)));
        match self {
            Speech::Ftp => ftp_agreed(&text),
            Speech::Irc => numbers(&text)
                .all(|number| number < 1 << 16 || (100_000_000..1 << 32).contains(&number)),
            // The first five digits are a port to the kernel, whatever follows.
            Speech::Amanda => numbers(&text).all(|number| number < 1 << 16),
            Speech::Sip { proto, .. } => sip_agreed(&was, &text, *proto),
            Speech::Tftp => true,
        }
    }
}

/// A port to be announced.
fn port(random: &mut Random) -> u16 {
    match random.below(10) {
        0 => random.pick(&[1, 20, 80, 1_023, 1_024, 65_534, 65_535]),
        1..4 => 40_960 + random.below(4) as u16,
        _ => 1 + random.below(65_535) as u16,
    }
}

/// The host of `side`, or another one on that side, as it stands in texts.
fn host(v6: bool, side: usize, other: bool) -> String {
    let n = side + 1;
    match (v6, other) {
        (true, false) => format!("fd0{n}::{{hex}}"),
        (true, true) => format!("fd0{n}::1:{{hex}}"),
        (false, other) => format!("10.{}.{{hi}}.{{lo}}", n + 2 * usize::from(other)),
    }
}

/// Every run of digits in `text`, as a number.
fn numbers(text: &[u8]) -> impl Iterator<Item = u64> {
    let runs = text.split(|byte| !byte.is_ascii_digit());
    runs.filter(|run| !run.is_empty()).map(|run| {
        let digits = run.iter().take(18);
        digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
    })
}

fn ftp(random: &mut Random, v6: bool) -> Line {
    let (side, port) = (random.below(2), port(random));
    let foreign = random.chance(10);
    let (named, other) = match foreign {
        true => random.pick(&[(side, true), (1 - side, false)]),
        false => (side, false),
    };
    let addr = host(v6, named, other);
    let commas = format!("{},{},{}", addr.replace('.', ","), port >> 8, port & 255);
    let text = match (side, random.below(6)) {
        (0, 0..3) if !v6 => format!(
            "{} {commas}\r\n",
            random.pick(&["PORT", "PORT", "Port", "port"])
        ),
        (0, _) => {
            let d = random.pick(&["|", "|", "|", "!", "~", "x"]);
            let family = if v6 { 2 } else { 1 };
            let word = random.pick(&["EPRT", "EPRT", "eprt"]);
            format!("{word} {d}{family}{d}{addr}{d}{port}{d}\r\n")
        }
        (_, 0..2) if !v6 => format!("227 Entering Passive Mode ({commas}).\r\n"),
        (_, 2) if !v6 => format!(
            "227 {}{commas}\r\n",
            random.pick(&["", "=", "ok (", "a.b "])
        ),
        (_, 3) => format!("229 ok (!!!{port}!)\r\n"),
        _ => format!("229 Entering Extended Passive Mode (|||{port}|)\r\n"),
    };
    Line {
        side,
        text: text.into_bytes(),
        flows: vec![Announced {
            proto: TCP,
            side,
            port,
        }],
        foreign,
    }
}

/// No reply of several lines, which to us only its last one ends, no number above 255 in an address or the halves of a port, no port above 65535, and no number
/// without digits.
fn ftp_agreed(text: &[u8]) -> bool {
    if let [one, two, three, b'-', ..] = text
        && [one, two, three].into_iter().all(u8::is_ascii_digit)
    {
        return false;
    }
    let word = text.get(..4).unwrap_or_default().to_ascii_uppercase();
    let whole = |most: u64| numbers(text).all(|number| number <= most);
    let list = |separator: u8| {
        let start = text
            .iter()
            .skip(4)
            .position(|byte| byte.is_ascii_digit() || *byte == separator);
        let list = &text[start.map_or(text.len(), |start| start + 4)..];
        let is_list = |byte: &u8| byte.is_ascii_digit() || *byte == separator;
        let len = list
            .iter()
            .position(|byte| !is_list(byte))
            .unwrap_or(list.len());
        list[..len]
            .split(|byte| *byte == separator)
            .all(|number| !number.is_empty())
    };
    match word.as_slice() {
        b"PORT" | b"227 " => whole(255) && list(b','),
        b"EPRT" => {
            // Behind the family comes the address.
            let dotted = text.split(|byte| !byte.is_ascii_digit() && *byte != b'.');
            let dotted = dotted.filter(|part| part.contains(&b'.'));
            let fine = |part: &[u8]| {
                part.split(|byte| *byte == b'.')
                    .all(|number| !number.is_empty())
                    && numbers(part).all(|number| number < 256)
            };
            whole(65_535) && dotted.into_iter().all(fine)
        }
        _ => whole(65_535),
    }
}

fn irc(random: &mut Random) -> Line {
    let port = port(random);
    let side = usize::from(random.chance(5));
    let foreign = random.chance(10);
    let addr = match foreign {
        true => random.pick(&["client2", "server", "server2"]),
        false => "client",
    };
    let verb = random.pick(&[
        "SEND file",
        "SEND file",
        "CHAT chat",
        "MOVE f",
        "TSEND f",
        "SCHAT c",
        "RESUME f",
    ]);
    let start = random.pick(&[
        "PRIVMSG",
        "PRIVMSG",
        "PRIVMSG",
        "privmsg",
        "  PRIVMSG",
        "NOTICE",
    ]);
    let size = random.pick(&["", " 100", "  7 8"]);
    let text = format!("{start} bob :\x01DCC {verb} {{{addr}#}} {port}{size}\x01\r\n");
    Line {
        side,
        text: text.into_bytes(),
        flows: vec![Announced {
            proto: TCP,
            side: 0,
            port,
        }],
        foreign,
    }
}

fn tftp(random: &mut Random) -> Line {
    let opcode = random.pick(&['\x01', '\x01', '\x02', '\x05', '\x06']);
    let options = random.pick(&["", "blksize\x001024\x00"]);
    Line {
        side: usize::from(random.chance(10)),
        text: format!("\x00{opcode}file\x00octet\x00{options}").into_bytes(),
        flows: vec![Announced {
            proto: UDP,
            side: 0,
            port: 40_000,
        }],
        foreign: false,
    }
}

fn amanda(random: &mut Random) -> Line {
    let names = random.pick(&[
        &["DATA", "MESG", "INDEX"][..],
        &["DATA", "MESG", "INDEX", "STATE"],
        &["MESG", "DATA"],
        &["DATA", "MESG", "DATA"],
        &["SHADOW"],
    ]);
    let mut text = String::from("Amanda 2.6 REP HANDLE 0 SEQ 1\nCONNECT");
    let mut flows = Vec::new();
    for name in names {
        let port = port(random);
        text += &format!(" {name} {port}");
        flows.push(Announced {
            proto: TCP,
            side: 1,
            port,
        });
    }
    text += random.pick(&["\nOPTIONS ;\n", "\n", ""]);
    Line {
        side: usize::from(random.chance(92)),
        text: text.into_bytes(),
        flows,
        foreign: false,
    }
}

/// No medium at a port that is too low, and no address of media that cannot be read: the kernel stops
/// such messages, and we only do not follow them. And on a stream no message that is none, without
/// a length, a number, or the empty line as it was: the kernel takes every segment for one, and we
/// every line of nothing but line ends for the empty one.
fn sip_agreed(was: &[u8], text: &[u8], proto: u8) -> bool {
    let lines = |text: &[u8]| -> Vec<Vec<u8>> {
        let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec);
        let framing = |at, line: &[u8]| {
            at == 0
                || line.starts_with(b"CSeq")
                || line.starts_with(b"Content-Length")
                || line.iter().all(|byte| *byte == b'\r')
        };
        let lines = lines
            .enumerate()
            .filter(|(at, line)| line.starts_with(b"c=") || proto == TCP && framing(*at, line));
        lines.map(|(_, line)| line).collect()
    };
    let ports = text.split(|byte| *byte == b'\n').all(|line| {
        let medium = line.starts_with(b"m=");
        let port = numbers(line).next().unwrap_or_default();
        !medium || port == 0 || (1_024..1 << 16).contains(&port)
    });
    ports && lines(was) == lines(text)
}

impl SipTalk {
    /// A request, or the answer to one.
    fn message(&mut self, random: &mut Random, v6: bool, proto: u8) -> Line {
        let answer = !self.open.is_empty() && random.chance(60);
        let (side, start, method, cseq, says) = if answer {
            let at = random.below(self.open.len());
            let (asker, method, cseq) = self.open[at];
            let status = random.pick(&[
                "200 OK",
                "200 OK",
                "200 OK",
                "100 Trying",
                "183 Progress",
                "486 Busy",
                "302 Moved",
            ]);
            if !status.starts_with('1') {
                self.open.swap_remove(at);
            }
            (
                1 - asker,
                format!("SIP/2.0 {status}\r\n"),
                method,
                cseq,
                random.chance(80),
            )
        } else {
            let side = usize::from(random.chance(20));
            let method = random.pick(&[
                "INVITE", "INVITE", "INVITE", "REGISTER", "REGISTER", "BYE", "ACK", "OPTIONS",
                "UPDATE", "PRACK", "CANCEL",
            ]);
            self.cseq += 1;
            if method != "ACK" {
                self.open.push((side, method, self.cseq));
            }
            let to = host(v6, 1 - side, false);
            let to = if v6 { format!("[{to}]") } else { to };
            (
                side,
                format!("{method} sip:bob@{to} SIP/2.0\r\n"),
                method,
                self.cseq,
                random.chance(90),
            )
        };
        let asker = if answer { 1 - side } else { side };
        let via = host(v6, asker, false);
        let via = if v6 { format!("[{via}]") } else { via };
        let transport = if proto == TCP { "TCP" } else { "UDP" };
        let mut text = start;
        text += &format!("Via: SIP/2.0/{transport} {via}:5060;branch=z9hG4bK{cseq}\r\n");
        text +=
            "From: <sip:alice@example.com>;tag=1\r\nTo: <sip:bob@example.com>\r\nCall-ID: 1\r\n";
        text += &format!("CSeq: {cseq} {method}\r\n");
        let mut flows = Vec::new();
        let foreign = random.chance(10);
        if method == "REGISTER" {
            // At none where media are.
            let port = 5_070 + random.below(40) as u16;
            let at = host(v6, asker, foreign);
            let at = if v6 { format!("[{at}]") } else { at };
            let expires = random.pick(&[
                ";expires=60",
                ";expires=60",
                "",
                ";expires=0",
                ";transport=UDP",
                ";transport=tcp;expires=9",
            ]);
            text += &format!("Contact: <sip:alice@{at}:{port}>{expires}\r\n");
            text += random.pick(&["", "Expires: 100\r\n"]);
            flows.push(Announced {
                proto: UDP,
                side: asker,
                port,
            });
        }
        let mut body = String::new();
        if says && matches!(method, "INVITE" | "UPDATE" | "ACK" | "PRACK") {
            let ip = if v6 { 6 } else { 4 };
            let addr = host(v6, side, foreign);
            let above = random.chance(80);
            body = format!("v=0\r\no=a 1 1 IN IP{ip} {addr}\r\ns=-\r\n");
            let c = format!("c=IN IP{ip} {addr}\r\n");
            if above {
                body += &c;
            }
            body += "t=0 0\r\n";
            for media in random.pick(&[
                &["audio"][..],
                &["audio"],
                &["audio", "video"],
                &["audio", "audio"],
                &["image"],
                &["text"],
                &["video", "image", "audio"],
            ]) {
                let port = match random.below(10) {
                    0 => 0,
                    1..4 => port(random).max(1_024),
                    _ => port(random).max(1_024) & !1,
                };
                body += &format!("m={media} {port} RTP/AVP 0\r\n");
                if !above || random.chance(10) {
                    body += &c;
                }
                for port in [port & !1, port | 1] {
                    flows.push(Announced {
                        proto: UDP,
                        side,
                        port,
                    });
                }
            }
            text += "Content-Type: application/sdp\r\n";
        }
        text += "Content-Length: {length}\r\n\r\n";
        Line {
            side,
            text: (text + &body).into_bytes(),
            flows,
            foreign,
        }
    }
}
