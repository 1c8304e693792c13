//! One message: its start line, the headers that matter, the framing of its body.

use super::dialogue::{self, Act, Dialogue, INVITE, Method};
use super::sdp::Sdp;
use super::uri::{Contacts, after, number, trimmed};
use crate::conntrack::helper::{Context, Heard, Refusal};
use crate::helpers::{Line, Next};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// How a response begins, and a request's first line ends.
const VERSION: &[u8] = b"SIP/2.0";

/// A message in progress.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct Message {
    /// Its number.
    pub(super) cseq: u32,
    /// What its header Expires says, in seconds.
    pub(super) expires: u32,
    /// What its header Content-Length says, in bytes.
    length: u32,
    /// How many bytes of its body are still to come.
    left: u32,
    pub(super) contacts: Contacts,
    sdp: Sdp,
    /// A response's status; 0 of a request.
    pub(super) code: u16,
    phase: Phase,
    method: Method,
    /// The header that a folded line continues.
    header: Header,
    /// Headers that had a value, as bits of `1 << Header`: the first one counts.
    seen: u8,
    /// Those whose value is a number.
    valid: u8,
    flags: u8,
    spare: [u8; 4],
}

/// It is a response.
const RESPONSE: u8 = 1;
/// Nobody can have meant it.
const FAILED: u8 = 2;

/// Where in a message, or a stream of them, the reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(transparent)]
struct Phase(u8);

impl Phase {
    /// Nothing was read yet.
    const FRESH: Self = Self(0);
    /// Between messages.
    const START: Self = Self(1);
    /// Among headers.
    const HEADERS: Self = Self(2);
    /// In the body.
    const BODY: Self = Self(3);
    /// This stream is not SIP.
    const DEAF: Self = Self(4);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(transparent)]
struct Header(u8);

impl Header {
    const OTHER: Self = Self(0);
    const CSEQ: Self = Self(1);
    const CONTACT: Self = Self(2);
    const EXPIRES: Self = Self(3);
    const LENGTH: Self = Self(4);
}

/// The headers that matter: name and compact form (RFC 3261, 7.3.3).
const HEADERS: [(&[u8], &[u8], Header); 4] = [
    (b"CSeq", b"CSeq", Header::CSEQ),
    (b"Contact", b"m", Header::CONTACT),
    (b"Expires", b"Expires", Header::EXPIRES),
    (b"Content-Length", b"l", Header::LENGTH),
];

/// The lines of a datagram, which end with CR, LF or both. The end of an empty line is taken for its
/// text if it is a single byte, so that the line behind it is not seen, as in Linux.
pub(super) fn lines(payload: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    let mut rest = payload;
    std::iter::from_fn(move || {
        let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let hidden = match *rest {
            [] => return None,
            [b'\r', b'\n', ..] => 0,
            [byte, ..] => usize::from(is_end(&byte)),
        };
        let more = rest[hidden..].iter().position(is_end);
        let (line, end) = rest.split_at(more.map_or(rest.len(), |len| hidden + len));
        rest = match end {
            [b'\r', b'\n', rest @ ..] | [_, rest @ ..] => rest,
            [] => end,
        };
        Some(line)
    })
}

/// Whether a line of a stream can begin a message.
fn begins(line: &Line<'_>) -> bool {
    let text = line.text;
    if after(text, VERSION).is_some_and(|rest| rest.starts_with(b" ")) {
        return true;
    }
    let word = text.iter().take_while(|byte| byte.is_ascii_alphabetic());
    let Some(uri) = text[word.count()..].strip_prefix(b" ") else {
        return false;
    };
    match line.cut {
        // Its end is not here, but a URI of SIP is.
        true => after(uri, b"sip:").or(after(uri, b"sips:")).is_some(),
        false => uri.ends_with(b" SIP/2.0"),
    }
}

impl Message {
    /// Takes its first line. Whether it is a message that matters.
    pub(super) fn start(&mut self, text: &[u8]) -> bool {
        *self = Self::new_zeroed();
        self.phase = Phase::HEADERS;
        if let Some(code) = after(text, VERSION).and_then(|rest| rest.strip_prefix(b" ")) {
            self.flags = RESPONSE;
            let code = number(code).map_or(0, |(code, _)| code);
            self.code = u16::try_from(code).unwrap_or(u16::MAX);
            return true;
        }
        self.method = dialogue::request(text);
        self.method != 0
    }

    /// Whether nobody can have meant it.
    pub(super) fn failed(&self) -> bool {
        self.flags & FAILED != 0 || self.sdp.failed()
    }

    /// What it asks for.
    pub(super) fn act(&self) -> Act {
        dialogue::act(self.method, self.is_response())
    }

    fn is_response(&self) -> bool {
        self.flags & RESPONSE != 0
    }

    /// Reads one line of a stream.
    pub(super) fn line(
        &mut self,
        context: &Context,
        dialogue: &mut Dialogue,
        line: &Line<'_>,
        heard: &mut Heard,
    ) -> Next {
        if line.gap && self.phase != Phase::FRESH && self.phase != Phase::DEAF {
            self.phase = Phase::START; // The rest of the message at hand is gone.
        }
        match self.phase {
            // Empty lines between messages keep a connection alive (RFC 5626, 3.5.1).
            Phase::FRESH | Phase::START if line.text.is_empty() => {}
            Phase::FRESH | Phase::START if begins(line) => {
                self.start(line.text);
            }
            // Nobody who speaks SIP begins like this: somebody may have been made to send it.
            Phase::FRESH => self.phase = Phase::DEAF,
            Phase::HEADERS if line.text.is_empty() => {
                if !self.has(Header::LENGTH) {
                    // Where it ends is not known. It is left alone, as the kernel leaves it.
                    heard.refuse(Refusal::Malformed);
                    self.phase = Phase::START;
                    return Next::Line;
                }
                self.headers_end(context, dialogue, heard);
                self.left = self.length;
                return self.rest(context, dialogue, heard);
            }
            Phase::HEADERS if line.cut => self.header = Header::OTHER,
            Phase::HEADERS => self.header(context, dialogue, line.text),
            Phase::BODY => {
                if !line.cut {
                    self.body(context, line.text, heard);
                }
                let len = u32::try_from(line.len).unwrap_or(u32::MAX);
                self.left = self.left.saturating_sub(len);
                return self.rest(context, dialogue, heard);
            }
            _ => {}
        }
        Next::Line
    }

    /// What comes next in a stream: the rest of the body, or another message.
    fn rest(&mut self, context: &Context, dialogue: &mut Dialogue, heard: &mut Heard) -> Next {
        match self.left {
            0 => {
                self.end(context, dialogue, heard);
                Next::Line
            }
            left => Next::Body(left),
        }
    }

    /// Reads one line among the headers.
    pub(super) fn header(&mut self, context: &Context, dialogue: &Dialogue, text: &[u8]) {
        if matches!(text[..], [b' ' | b'\t', ..]) {
            return self.value(context, dialogue, trimmed(text));
        }
        self.header_end(dialogue);
        let known = HEADERS.iter().find_map(|&(long, short, header)| {
            let compact = || {
                after(text, short).filter(|rest| !rest.first().is_some_and(u8::is_ascii_alphabetic))
            };
            Some((header, after(text, long).or_else(compact)?))
        });
        let Some((header, rest)) = known else {
            return;
        };
        self.header = header;
        match trimmed(rest).strip_prefix(b":") {
            Some(value) => self.value(context, dialogue, trimmed(value)),
            // A longer name, but nothing behind it is found by Linux.
            None => self.seen |= 1 << header.0,
        }
    }

    /// The header being read is complete.
    fn header_end(&mut self, dialogue: &Dialogue) {
        if self.header == Header::CONTACT {
            self.contacts.end(dialogue.wanted(self.is_response()));
        }
        self.header = Header::OTHER;
    }

    /// Reads the value, or a folded part of it, of the header at hand.
    fn value(&mut self, context: &Context, dialogue: &Dialogue, text: &[u8]) {
        let bit = 1 << self.header.0;
        if text.is_empty() || self.seen & bit != 0 {
            return;
        }
        if self.header == Header::CONTACT {
            let whose = match self.is_response() {
                true => context.receiver().0,
                false => context.sender().0,
            };
            let wanted = dialogue.wanted(self.is_response());
            return self.contacts.read(context, whose, wanted, text);
        }
        self.seen |= bit;
        let Some((amount, rest)) = number(text) else {
            return;
        };
        self.valid |= bit;
        match self.header {
            Header::CSEQ => {
                self.cseq = amount;
                // One blank, and which method a response is for.
                if let Some((_, name)) = rest.split_first().filter(|_| self.is_response()) {
                    self.method = dialogue::method(name);
                }
            }
            Header::EXPIRES => self.expires = amount,
            Header::LENGTH => self.length = amount,
            _ => {}
        }
    }

    /// Whether there is such a header, and a number in it.
    fn has(&self, header: Header) -> bool {
        self.valid & 1 << header.0 != 0
    }

    /// The headers are complete.
    pub(super) fn headers_end(
        &mut self,
        context: &Context,
        dialogue: &mut Dialogue,
        heard: &mut Heard,
    ) {
        self.header_end(dialogue);
        self.phase = Phase::BODY;
        let matters = self.is_response() || self.act() != Act::Nothing;
        if matters && !self.has(Header::CSEQ) || self.is_response() && self.code == 0 {
            heard.refuse(Refusal::Malformed);
            self.flags |= FAILED;
            return;
        }
        heard.parsed();
        match dialogue.hear(context, self, heard) {
            Ok(true) => self.sdp.begin(),
            Ok(false) => {}
            Err(()) => {
                heard.refuse(Refusal::Malformed);
                self.flags |= FAILED;
            }
        }
    }

    /// Reads one line of the body.
    pub(super) fn body(&mut self, context: &Context, text: &[u8], heard: &mut Heard) {
        self.sdp.read(context, text, heard);
    }

    /// The message is complete.
    pub(super) fn end(&mut self, context: &Context, dialogue: &mut Dialogue, heard: &mut Heard) {
        self.sdp.end(context, heard);
        if self.method == INVITE && !self.is_response() && !self.failed() {
            dialogue.invite = self.cseq;
        }
        self.phase = Phase::START;
    }
}
