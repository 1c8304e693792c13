//! Conversations: what is sent, by whom, and after how long. `notation.rs` has their text form,
//! `frame.rs` their bytes; `scripted.txt` and its like hold those that were written down, `walk.rs`
//! makes up the others.

use crate::text;
use shardwall::wire::tcp::flags;
use std::time::Duration;

/// A conversation between a client (side 0) and a server (side 1).
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// What it is about.
    pub(crate) name: String,
    /// Name of the group whose settings and rules it is played under.
    pub(crate) group: String,
    /// IPv6 or IPv4.
    pub(crate) v6: bool,
    /// The server's port: rules may name it.
    pub(crate) port: u16,
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
    /// RFC 3828; a coverage of 0 is all of it.
    UdpLite {
        coverage: u16,
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
    Sctp {
        vtag: u32,
        chunks: Vec<Chunk>,
    },
    /// Version 0 (RFC 2784), or version 1 with a call id (RFC 2637).
    Gre {
        version: u8,
        key: u16,
        len: u16,
    },
    /// Another packet, of a flow of its own.
    On {
        ends: Ends,
        body: Box<Body>,
    },
    /// Another packet with something to say (`text.rs`).
    Says {
        text: Vec<u8>,
        body: Box<Body>,
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
    /// Another packet with a wrong transport checksum.
    BadSum(Box<Body>),
    /// The bytes from `from` up to `to` behind another packet's IP header.
    Fragment {
        /// Identification of the datagram.
        id: u16,
        from: u16,
        /// `None` for the last piece.
        to: Option<u16>,
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
    /// ICMPv6 redirect (RFC 4861 4.5), from the link's own router.
    Redirect {
        /// Who sent the packet that it is about.
        of: usize,
        about: Box<Body>,
    },
}

/// Between whom a flow is; the first is the client's, or somebody's on its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ends {
    pub(crate) ports: [u16; 2],
    /// Not the host itself, but another one on that side.
    pub(crate) other: [bool; 2],
}

/// A chunk of an SCTP packet (RFC 9260 3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) ty: u8,
    pub(crate) flags: u8,
    /// The initiate tag of INIT and INIT ACK; of others, how many bytes of value they have.
    pub(crate) value: u32,
}

/// The names of chunk types, by number; gaps are not in use.
pub(crate) const CHUNKS: [(&str, u8); 14] = [
    ("data", 0),
    ("init", 1),
    ("init-ack", 2),
    ("sack", 3),
    ("heartbeat", 4),
    ("heartbeat-ack", 5),
    ("abort", 6),
    ("shutdown", 7),
    ("shutdown-ack", 8),
    ("error", 9),
    ("cookie-echo", 10),
    ("cookie-ack", 11),
    ("ecne", 12),
    ("shutdown-complete", 14),
];

impl Body {
    /// The packet without anything around it.
    pub(crate) fn core(&self) -> &Body {
        match self {
            Body::Via { body, .. }
            | Body::Fragment { body, .. }
            | Body::Bent { body, .. }
            | Body::On { body, .. }
            | Body::Says { body, .. }
            | Body::BadSum(body) => body.core(),
            _ => self,
        }
    }

    /// What it says.
    pub(crate) fn text(&self) -> Option<&[u8]> {
        match self {
            Body::Says { text, .. } => Some(text),
            Body::Via { body, .. }
            | Body::Fragment { body, .. }
            | Body::Bent { body, .. }
            | Body::On { body, .. }
            | Body::BadSum(body) => body.text(),
            _ => None,
        }
    }

    /// How many sequence numbers it takes.
    pub(crate) fn stream_len(&self, v6: bool) -> u32 {
        let Body::Tcp { flags, len, .. } = self.core() else {
            return 0;
        };
        let said = self.text().map(|said| text::len(said, v6));
        let phantom = u32::from(flags & (flags::SYN | flags::FIN) != 0);
        said.unwrap_or(u32::from(*len)) + phantom
    }

    /// Whether it begins or ends a stream.
    pub(crate) fn is_turn(&self) -> bool {
        let turns = flags::SYN | flags::FIN | flags::RST;
        matches!(self.core(), Body::Tcp { flags, .. } if flags & turns != 0)
    }

    /// Sequence and acknowledgement number, where it is a segment of the conversation's own flow.
    pub(crate) fn numbers(&mut self) -> Option<(&mut u32, &mut u32)> {
        match self {
            Body::Tcp { seq, ack, .. } => Some((seq, ack)),
            Body::Via { body, .. }
            | Body::Fragment { body, .. }
            | Body::Bent { body, .. }
            | Body::Says { body, .. }
            | Body::BadSum(body) => body.numbers(),
            _ => None,
        }
    }

    /// Between whom it goes, if not between the two of the conversation.
    pub(crate) fn ends(&self) -> Option<Ends> {
        match self {
            Body::On { ends, .. } => Some(*ends),
            Body::Via { body, .. }
            | Body::Fragment { body, .. }
            | Body::Bent { body, .. }
            | Body::Says { body, .. }
            | Body::BadSum(body) => body.ends(),
            _ => None,
        }
    }

    /// Whether there are options or extension headers before the transport header.
    pub(crate) fn has_extras(&self) -> bool {
        match self {
            Body::Via { headers, body } => !headers.is_empty() || body.has_extras(),
            Body::Fragment { body, .. }
            | Body::Bent { body, .. }
            | Body::On { body, .. }
            | Body::Says { body, .. }
            | Body::BadSum(body) => body.has_extras(),
            _ => false,
        }
    }

    /// Whether it may be INVALID for another reason than what was said before in its flow.
    pub(crate) fn may_be_broken(&self) -> bool {
        match self {
            Body::Via { body, .. }
            | Body::Fragment { body, .. }
            | Body::On { body, .. }
            | Body::Says { body, .. } => body.may_be_broken(),
            Body::BadSum(_) | Body::Bent { .. } => true,
            Body::Error { .. } | Body::Redirect { .. } => true,
            Body::UdpLite { .. } | Body::Sctp { .. } => true,
            _ => false,
        }
    }

    /// Whether bytes that name its flow, or the flow that it is about, may be missing or changed.
    pub(crate) fn is_bent(&self) -> bool {
        match self {
            Body::Via { body, .. }
            | Body::Fragment { body, .. }
            | Body::On { body, .. }
            | Body::Says { body, .. }
            | Body::BadSum(body) => body.is_bent(),
            Body::Bent { .. } => true,
            Body::Error { about, .. } | Body::Redirect { about, .. } => about.is_bent(),
            _ => false,
        }
    }
}

/// Every scripted conversation.
pub(crate) fn scripted() -> Vec<Scenario> {
    [
        include_str!("scripted.txt"),
        include_str!("scripted-rules.txt"),
        include_str!("scripted-icmp.txt"),
        include_str!("scripted-groups.txt"),
        include_str!("scripted-helpers.txt"),
    ]
    .into_iter()
    .flat_map(chapters)
    .collect()
}

/// Conversations that each begin with `# name`, in both families and in the group `default`, unless
/// the name ends in `(…)` with other wishes: `only v4`, `only v6`, `in GROUP`, `port N`,
/// `needs KIND` of `walk.rs`.
pub(crate) fn chapters(text: &str) -> Vec<Scenario> {
    let mut all = Vec::new();
    for chapter in format!("\n{text}").split("\n# ").skip(1) {
        let (title, text) = chapter.split_once('\n').unwrap_or((chapter, ""));
        let (name, wishes) = title.split_once(" (").unwrap_or((title, ")"));
        let (mut families, mut group, mut port) = (&[false, true][..], "default", 80);
        for wish in wishes.trim_end_matches(')').split(", ") {
            match wish.split_once(' ').unwrap_or((wish, "")) {
                ("only", "v4") => families = &[false],
                ("only", "v6") => families = &[true],
                ("in", name) => group = name,
                ("needs", kind) if crate::walk::plays(kind) => {}
                ("needs", _) => families = &[],
                ("port", number) => port = number.parse().expect("a port"),
                ("", "") => {}
                _ => panic!("{name}: nobody understands ({wish})"),
            }
        }
        for v6 in families {
            let scenario = Scenario::read(name, group, *v6, port, text);
            all.push(scenario.unwrap_or_else(|line| panic!("{name}: {line:?} makes no sense")));
        }
    }
    all
}
