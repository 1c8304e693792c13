//! SIP (RFC 3261): the media streams that an offer or answer (SDP, RFC 8866) announces, and the
//! calls that come in for somebody who registered.
//!
//! Over UDP a datagram is a message, over TCP the header Content-Length frames it, and it may come
//! in any pieces. Both feed one machine a line at a time: the start line (`message`), headers, of
//! which four matter, and the body (`sdp`). At the end of the headers it is known what the message
//! is for, and `dialogue` turns it into requests; a medium is asked for as soon as its section is
//! over. Behaviour is Linux's nf_conntrack_sip with its default parameters: media and incoming
//! calls are expected from the other end of the control flow only.
//!
//! Life-cycle: a datagram's message lives for one call, a stream's in the flow's memory, one a
//! direction. Concurrency: plain values of the worker that owns the flow.

mod dialogue;
mod message;
mod sdp;
mod uri;

#[cfg(test)]
mod tests;

use super::{Helper, Line, Lines, Memory, Next};
use crate::base::time::Span;
use crate::conntrack::helper::{Class, Context, Heard, Info};
use crate::wire::proto;
use dialogue::Dialogue;
use message::Message;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// The helper.
pub static SIP: Helper = Helper {
    info: Info {
        name: "sip",
        protos: &[proto::UDP, proto::TCP],
        ipv6: true,
        classes: &[
            class("signalling", 1),
            class("audio", 4),
            class("video", 4),
            class("image", 2),
        ],
    },
    datagram: Some(datagram),
    stream: Some(Lines {
        eager: true,
        read: line,
    }),
};

/// The class of incoming calls; those of media follow it.
const SIGNALLING: u8 = 0;
const AUDIO: u8 = 1;
const VIDEO: u8 = 2;
const IMAGE: u8 = 3;

/// How long a control flow lives after a message (Linux's `sip_timeout`).
const KEEP: Span = Span::secs(3600);

/// The shortest datagram that is looked at.
const SHORTEST: usize = b"SIP/2.0 200".len();

const fn class(name: &'static str, max: u8) -> Class {
    Class {
        name,
        max,
        timeout: Span::secs(180),
    }
}

/// What is remembered of a flow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Sip {
    /// The message in progress in each direction of a stream.
    messages: [Message; 2],
    dialogue: Dialogue,
}

/// Reads one datagram: a message.
fn datagram(context: &Context, memory: &mut Memory, payload: &[u8], heard: &mut Heard) {
    if payload.is_empty() {
        return;
    }
    heard.keep = Some(KEEP);
    if payload.len() < SHORTEST {
        return;
    }
    let dialogue = &mut memory.overlay::<Sip>().dialogue;
    let mut message = Message::new_zeroed();
    let mut lines = message::lines(payload);
    if !lines.next().is_some_and(|first| message.start(first)) {
        return;
    }
    // Linux looks for headers, and for the description, in the whole of a datagram.
    for text in lines.clone() {
        message.header(context, dialogue, text);
    }
    message.headers_end(context, dialogue, heard);
    for text in lines {
        message.body(context, text, heard);
    }
    message.end(context, dialogue, heard);
    heard.drop |= message.failed();
}

/// Reads one line of a stream.
fn line(context: &Context, memory: &mut Memory, line: &Line<'_>, heard: &mut Heard) -> Next {
    heard.keep = Some(KEEP);
    let Sip { messages, dialogue } = memory.overlay::<Sip>();
    messages[context.dir as usize & 1].line(context, dialogue, line, heard)
}
