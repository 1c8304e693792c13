//! One direction of a control stream, cut into lines.
//!
//! Each line is given once and in order, however it was segmented. A line inside one segment is
//! read where it lies; of one that comes in pieces the beginning is kept in the *carry*, and so is
//! a segment that came too early (the *stash*), until the gap before it is filled. Both share a few
//! hundred bytes, the line from the front and the stash from the back. What does not fit is
//! counted: a line that is too long is cut, a segment that came too early ends the waiting, and
//! reading goes on at the first line that surely begins behind the gap.
//!
//! Only the place in the stream decides what is read: bytes before `next` are old, whatever they
//! say now. Whoever drops a segment restores the copy that it took before, so that the segment is
//! read when it comes again.
//!
//! Life-cycle: all zero is a stream of which nothing was seen. Concurrency: one worker's.

use super::{Line, Lines, Memory, Next};
use crate::conntrack::helper::{Context, Heard, Refusal};
use zerocopy::FromZeros;

/// How much is kept of a line in pieces and of a segment that came early, together.
pub const CARRY: usize = 256;

/// Farther than this from what comes next, before it or behind it, a segment is of another stream,
/// and reading begins anew: no window is larger (RFC 7323, section 2.3).
const ABSURD: u32 = 1 << 30;

/// One direction of a stream.
#[derive(Clone, Debug, FromZeros)]
#[repr(C)]
pub struct Stream {
    /// Sequence number of the first byte that was not read.
    next: u32,
    /// Length so far of the line in pieces.
    len: u32,
    /// What is left of a body.
    body: u32,
    /// Sequence number of the stash.
    early: u32,
    /// How much of the line in pieces is at the front of `carry`.
    kept: u16,
    /// How much of `carry`, at its back, is the stash.
    stashed: u16,
    /// A segment was seen.
    begun: bool,
    /// Not at a line: all is skipped up to the next line's end.
    skipping: bool,
    /// The line in pieces is longer than what is kept of it.
    cut: bool,
    /// Something is missing before the next line.
    gap: bool,
    carry: [u8; CARRY],
}

/// To whom lines are read.
struct Reader<'a> {
    lines: &'a Lines,
    context: &'a Context,
    memory: &'a mut Memory,
    heard: &'a mut Heard,
}

impl Stream {
    /// Whether what was read lies elsewhere than the connection of which the byte at `next` was not
    /// acknowledged yet. What a SYN carried may have been read already.
    pub fn is_elsewhere(&self, next: u32) -> bool {
        self.begun && self.next.wrapping_sub(next) > u32::from(u16::MAX)
    }

    /// Takes the segment `payload` that begins at `seq`.
    pub fn feed(
        &mut self,
        lines: &Lines,
        context: &Context,
        memory: &mut Memory,
        seq: u32,
        payload: &[u8],
        heard: &mut Heard,
    ) {
        if payload.is_empty() {
            return;
        }
        if !self.begun {
            (self.begun, self.skipping) = (true, !lines.eager);
            self.next = seq;
        }
        let offset = distance(self.next, seq);
        let old = if offset.unsigned_abs() > ABSURD {
            self.stashed = 0;
            self.jump(seq, heard);
            0
        } else if offset > 0 {
            if self.set_aside(seq, payload) {
                return;
            }
            self.jump(seq, heard);
            0
        } else {
            offset.unsigned_abs() as usize
        };
        let Some(new) = payload.get(old..).filter(|new| !new.is_empty()) else {
            return;
        };
        self.next = self.next.wrapping_add(new.len() as u32);
        // Taken out before it is read, so that the line in pieces has all the room.
        let mut buffer = [0; CARRY];
        let early = self.take_stash(&mut buffer);
        let mut reader = Reader {
            lines,
            context,
            memory,
            heard,
        };
        self.read(new, &mut reader);
        self.next = self.next.wrapping_add(early.len() as u32);
        self.read(early, &mut reader);
    }

    /// Gives up what is missing before `seq`.
    fn jump(&mut self, seq: u32, heard: &mut Heard) {
        heard.refuse(Refusal::Gap);
        (self.next, self.skipping, self.gap, self.body) = (seq, true, true, 0);
        self.end_line();
    }

    /// Keeps a segment that came early, alone or joined to what is kept already; `false` if there is
    /// no room, or a hole between the two.
    fn set_aside(&mut self, seq: u32, payload: &[u8]) -> bool {
        let stashed = usize::from(self.stashed);
        if stashed == 0 {
            self.early = seq;
        }
        let (begin, len) = (distance(self.early, seq) as i64, payload.len() as i64);
        // What it adds before the stash, and behind it.
        let before = (-begin).max(0) as usize;
        let behind = (begin + len - stashed as i64).max(0) as usize;
        if begin > stashed as i64 || begin + len < 0 {
            return false;
        }
        let all = before + stashed + behind;
        if all > CARRY - usize::from(self.kept) {
            return false;
        }
        let start = CARRY - all;
        self.carry.copy_within(CARRY - stashed.., start + before);
        self.carry[start..start + before].copy_from_slice(&payload[..before]);
        self.carry[CARRY - behind..].copy_from_slice(&payload[payload.len() - behind..]);
        self.early = self.early.wrapping_sub(before as u32);
        self.stashed = all as u16;
        true
    }

    /// Takes out what of the stash begins at `next`: nothing as long as there is a gap before it.
    fn take_stash<'b>(&mut self, buffer: &'b mut [u8; CARRY]) -> &'b [u8] {
        let stashed = usize::from(self.stashed);
        let Ok(old) = usize::try_from(distance(self.early, self.next)) else {
            return &[];
        };
        self.stashed = 0;
        let early = self.carry[CARRY - stashed..].get(old..).unwrap_or(&[]);
        buffer[..early.len()].copy_from_slice(early);
        &buffer[..early.len()]
    }

    /// Reads what comes next.
    fn read(&mut self, mut bytes: &[u8], reader: &mut Reader<'_>) {
        while !bytes.is_empty() {
            // A body is given in lines too, and ends where it ends.
            let limit = match self.body {
                0 => bytes.len(),
                body => bytes.len().min(body.saturating_sub(self.len) as usize),
            };
            let end = bytes[..limit].iter().position(|byte| *byte == b'\n');
            let (piece, rest) = bytes.split_at(end.map_or(limit, |at| at + 1));
            bytes = rest;
            let body_ends = self.body != 0 && self.len + piece.len() as u32 >= self.body;
            let whole = end.is_some() || body_ends;
            if self.skipping {
                self.skipping = !whole;
                continue;
            }
            if !whole {
                self.keep(piece, reader.heard);
                return;
            }
            let gap = std::mem::take(&mut self.gap);
            let line = if self.len == 0 {
                Line {
                    text: trim(piece),
                    len: piece.len(),
                    cut: false,
                    gap,
                }
            } else {
                self.keep(piece, reader.heard);
                let kept = &self.carry[..usize::from(self.kept)];
                Line {
                    text: if self.cut { kept } else { trim(kept) },
                    len: self.len as usize,
                    cut: self.cut,
                    gap,
                }
            };
            let next = (reader.lines.read)(reader.context, reader.memory, &line, reader.heard);
            self.end_line();
            self.body = match next {
                Next::Line => 0,
                Next::Body(len) => len,
            };
        }
    }

    /// Adds to the line in pieces.
    fn keep(&mut self, piece: &[u8], heard: &mut Heard) {
        let kept = usize::from(self.kept);
        let room = CARRY - usize::from(self.stashed) - kept;
        let fits = if self.cut { 0 } else { piece.len().min(room) };
        self.carry[kept..kept + fits].copy_from_slice(&piece[..fits]);
        self.kept += fits as u16;
        self.len = self.len.saturating_add(piece.len() as u32);
        if fits < piece.len() && !self.cut {
            self.cut = true;
            heard.refuse(Refusal::TooLong);
        }
    }

    /// Forgets the line in pieces.
    fn end_line(&mut self) {
        (self.len, self.kept, self.cut) = (0, 0, false);
    }
}

/// From one place of a stream to another, the shorter way around.
fn distance(from: u32, to: u32) -> i32 {
    to.wrapping_sub(from) as i32
}

/// Without the LF, or CR LF, at its end.
fn trim(line: &[u8]) -> &[u8] {
    let text = line.strip_suffix(b"\n");
    text.map_or(line, |text| text.strip_suffix(b"\r").unwrap_or(text))
}

#[cfg(test)]
mod tests;
