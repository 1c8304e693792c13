//! Helpers: what is read in the payload of a control flow, so that the flows that it announces are
//! expected.
//!
//! One file a protocol, and one line in [`ALL`]. A helper is a pure function from bytes to
//! [`Heard`]; it knows its flow by a [`Context`] and remembers what it must in a [`Memory`]. Those
//! on datagrams see a datagram at a time, those on streams a line at a time, each line once and in
//! order, however it was cut into segments (`stream`).
//!
//! Life-cycle: a [`Talk`] begins when a helper is attached to a flow and is forgotten with it.
//! Concurrency: it belongs to the worker that owns the flow.

pub mod amanda;
#[cfg(test)]
mod dialogue;
pub mod ftp;
pub mod irc;
pub mod sip;
pub mod stream;
pub mod tftp;

use crate::conntrack::helper::{Context, Heard, HelperId, Info, MAX_HELPERS};
use crate::conntrack::types::Dir;
use stream::Stream;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Every helper; the index is its [`HelperId`].
#[rustfmt::skip] // One a line.
pub static ALL: &[&Helper] = &[
    &ftp::FTP,
    &irc::IRC,
    &tftp::TFTP,
    &amanda::AMANDA,
    &sip::SIP,
];

/// What the tracker knows of [`ALL`].
pub static INFOS: [&Info; ALL.len()] = {
    assert!(ALL.len() <= MAX_HELPERS);
    let mut infos = [const { &NOBODY }; ALL.len()];
    let mut at = 0;
    while at < infos.len() {
        infos[at] = &ALL[at].info;
        at += 1;
    }
    infos
};

static NOBODY: Info = Info {
    name: "",
    protos: &[],
    ipv6: false,
    classes: &[],
};

/// A helper.
#[derive(Debug)]
pub struct Helper {
    /// What it is.
    pub info: Info,
    /// How it reads a datagram; `None` where it listens to streams only.
    pub datagram: Option<DatagramFn>,
    /// How it reads a stream; `None` where it listens to datagrams only.
    pub stream: Option<Lines>,
}

/// Reads one datagram.
pub type DatagramFn = fn(&Context, &mut Memory, &[u8], &mut Heard);

/// How a stream is read.
#[derive(Debug)]
pub struct Lines {
    /// The first byte seen of a stream begins a line. Otherwise only what follows a line's end does.
    pub eager: bool,
    /// Reads one line.
    pub read: LineFn,
}

/// Reads one line, and says what comes next.
pub type LineFn = fn(&Context, &mut Memory, &Line<'_>, &mut Heard) -> Next;

/// A line, or a piece of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its bytes without the LF, or CR LF, that ends it.
    pub text: &'a [u8],
    /// Its length with them.
    pub len: usize,
    /// Only the first part of it is in `text`: it is longer than what is kept of a line in pieces.
    pub cut: bool,
    /// Something before it is missing.
    pub gap: bool,
}

/// What comes after a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A line.
    Line,
    /// A body of so many bytes. It is given in lines too, the last of which ends with the body.
    Body(u32),
}

/// What a helper remembers of a flow, over both directions; all zero at first. Each helper overlays
/// a type of its own.
#[derive(Clone, Copy, Debug, FromZeros)]
#[repr(C, align(8))]
pub struct Memory([u8; Self::BYTES]);

impl Memory {
    /// How much that may be.
    pub const BYTES: usize = 192;

    /// The memory as a `T`, which must fit (checked when it is compiled).
    pub fn overlay<T: FromBytes + IntoBytes + KnownLayout + Immutable>(&mut self) -> &mut T {
        const {
            assert!(size_of::<T>() <= Self::BYTES && align_of::<T>() <= 8);
        }
        let bytes = &mut self.0[..size_of::<T>()];
        // Size and alignment were checked above, so this cannot fail.
        match T::mut_from_bytes(bytes) {
            Ok(value) => value,
            Err(_) => unreachable!("size and alignment are checked"),
        }
    }
}

/// What a helper keeps of one control flow.
#[derive(Clone, Debug, FromZeros)]
#[repr(C)]
pub struct Talk {
    /// Each direction of a stream.
    streams: [Stream; 2],
    memory: Memory,
}

/// A segment's place in its stream: the sequence number of its first byte of payload.
pub type Place = Option<u32>;

/// The helper called `id`.
pub fn helper(id: HelperId) -> Option<&'static Helper> {
    ALL.get(id.index()).copied()
}

impl Talk {
    /// A handshake begins in `dir`: what was heard before was another connection.
    pub fn restart(&mut self, dir: Dir) {
        match dir {
            Dir::Original => self.zero(),
            Dir::Reply => self.streams[Dir::Reply as usize].zero(),
        }
    }

    /// A SYN was answered, and its sender goes on at `next`. What was heard elsewhere was another
    /// connection, which the hosts have forgotten: so does the helper.
    pub fn answered(&mut self, next: u32) {
        if self.streams[Dir::Original as usize].is_elsewhere(next) {
            self.zero();
        }
    }

    /// Lets `helper` read `payload`, which goes `context.dir`; `place` is where it lies in a
    /// stream, `None` for a datagram.
    pub fn listen(
        &mut self,
        helper: &Helper,
        context: &Context,
        payload: &[u8],
        place: Place,
        heard: &mut Heard,
    ) {
        match (place, helper.datagram, &helper.stream) {
            (None, Some(read), _) => read(context, &mut self.memory, payload, heard),
            (Some(seq), _, Some(lines)) => {
                let stream = &mut self.streams[context.dir as usize & 1];
                stream.feed(lines, context, &mut self.memory, seq, payload, heard);
            }
            _ => {}
        }
    }
}
