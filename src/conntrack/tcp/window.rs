//! The window check: is this segment one that the receiver could be waiting for?
//!
//! Van Rooij, "Real Stateful TCP Packet Filtering in IP Filter" (2001), as Linux applies it. A
//! segment must satisfy four bounds, with `s` what its sender has shown and `r` what its receiver
//! has:
//!
//! 1. `seq <= s.max_end`: the data is inside what the receiver has allowed;
//! 2. `end >= s.end - r.max_window`: it is not older than the receiver's window;
//! 3. `sack <= r.end`: it acknowledges nothing that was not sent;
//! 4. `sack >= r.end - max(s.max_window, 66000)`: it is no ancient acknowledgement.
//!
//! [`check`] is a function of the two directions and the segment; it updates the two directions
//! and nothing else. All arithmetic is modulo 2^32 (RFC 9293 3.4).

use super::options;
use super::table::Class;
use crate::conntrack::entry::{Seen, seen_flags};
use crate::conntrack::types::{Dir, TcpState};
use crate::conntrack::why::Why;
use crate::wire::tcp::flags;

/// A segment, as far as tracking looks at it.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number, whether or not ACK is set.
    pub ack: u32,
    /// Sequence number behind the payload, SYN and FIN counted.
    pub end: u32,
    /// Window as it stands in the header.
    pub window: u16,
    /// Flag bits.
    pub flags: u8,
    /// Option bytes.
    pub options: &'a [u8],
}

impl Segment<'_> {
    /// Whether all of `bits` are set.
    #[inline]
    pub fn has(&self, bits: u8) -> bool {
        self.flags & bits == bits
    }

    /// Its class.
    #[inline]
    pub fn class(&self) -> Class {
        Class::of(self.flags)
    }
}

/// What the check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// Inside: the state may move. `ack` is the acknowledgement that counts.
    Inside {
        /// The acknowledgement number, after the corrections for segments without one.
        ack: u32,
        /// The sequence number, after the correction for a RST that answers a SYN.
        seq: u32,
        /// Both directions were updated; `false` where the segment only started one of them, or
        /// was let in by a liberal check.
        counted: bool,
    },
    /// Outside in a way that honest hosts cause (old data, old acknowledgements, a window
    /// overshot): it passes, the state stays.
    Ignore,
    /// Outside.
    Outside(Why),
}

/// `a < b` in sequence space.
#[inline]
pub const fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// `a > b` in sequence space.
#[inline]
pub const fn after(a: u32, b: u32) -> bool {
    before(b, a)
}

/// Bound 4 is never tighter than this (the largest unscaled window and some).
const MIN_ACK_WINDOW: u32 = 66_000;

/// Starts what is known of a sender from its SYN (or SYN/ACK).
fn start(sender: &mut Seen, receiver: &mut Seen, segment: &Segment<'_>, dir: Dir) {
    sender.end = segment.end;
    sender.max_end = segment.end;
    sender.max_window = u32::from(segment.window).max(1);
    options::read_handshake(segment.options, sender);
    // Scaling needs the offer of both sides (RFC 7323 1.3).
    if dir == Dir::Reply && sender.flags & receiver.flags & seen_flags::WINDOW_SCALE == 0 {
        sender.scale = 0;
        receiver.scale = 0;
    }
}

/// Checks `segment`, sent in direction `dir` of a flow in `state`, and updates both directions.
/// `liberal` turns everything that is outside into accepted.
#[inline]
pub fn check(
    seen: &mut [Seen; 2],
    state: TcpState,
    dir: Dir,
    segment: &Segment<'_>,
    liberal: bool,
) -> Window {
    // By index, on copies: traffic goes both ways at random, and a branch on the direction would
    // be mispredicted every other packet.
    let (from, to) = (dir as usize & 1, dir.flip() as usize & 1);
    let (mut sender, mut receiver) = (seen[from], seen[to]);
    let found = judge(&mut sender, &mut receiver, state, dir, segment, liberal);
    seen[from] = sender;
    seen[to] = receiver;
    found
}

/// The check of a plain acknowledgement (ACK, neither SYN, FIN nor RST) in an established flow: if
/// it is inside every bound, both directions are updated as [`check`] does, and it returns `true`;
/// otherwise nothing is touched, and [`check`] must say what it is.
#[inline(always)]
pub fn slide_inside(seen: &mut [Seen; 2], dir: Dir, segment: &Segment<'_>) -> bool {
    let (from, to) = (dir as usize & 1, dir.flip() as usize & 1);
    let (mut sender, mut receiver) = (seen[from], seen[to]);
    let Segment { seq, ack, end, .. } = *segment;
    let may_carry_sack =
        receiver.flags & seen_flags::SACK_PERMITTED != 0 && !options::no_sack(segment.options);
    let outside = after(seq, sender.max_end)
        | after(ack, receiver.end)
        | before(end, sender.end.wrapping_sub(receiver.max_window))
        | before(
            ack,
            receiver
                .end
                .wrapping_sub(sender.max_window.max(MIN_ACK_WINDOW)),
        );
    let unknown = (sender.max_window == 0) | (receiver.max_window == 0);
    if may_carry_sack | outside | unknown {
        return false;
    }
    let window = u32::from(segment.window) << sender.scale;
    slide(&mut sender, &mut receiver, (ack, ack), end, window, true);
    seen[from] = sender;
    seen[to] = receiver;
    true
}

/// Updates both directions by a segment inside the window, which ends at `end`, acknowledges `ack`
/// (and `sack` at most) if `acks`, and allows `window` bytes. Selects instead of branches: whether
/// a segment carries data or acknowledges something new is as good as random.
#[inline(always)]
fn slide(
    sender: &mut Seen,
    receiver: &mut Seen,
    (ack, sack): (u32, u32),
    end: u32,
    window: u32,
    acks: bool,
) {
    sender.max_window = sender
        .max_window
        .max(window.wrapping_add(sack.wrapping_sub(ack)));
    let advances = after(end, sender.end);
    sender.end = if advances { end } else { sender.end };
    let first = sender.flags & seen_flags::MAX_ACK_SET == 0;
    let newer = acks & (first | after(ack, sender.max_ack));
    sender.max_ack = if newer { ack } else { sender.max_ack };
    sender.flags |= (u8::from(advances) * seen_flags::UNACKNOWLEDGED)
        | (u8::from(acks) * seen_flags::MAX_ACK_SET);
    if receiver.max_window != 0 && after(end, sender.max_end) {
        let beyond = end.wrapping_sub(sender.max_end);
        receiver.max_window = receiver.max_window.wrapping_add(beyond);
    }
    let allowed = sack.wrapping_add(window);
    let allows_more = !before(allowed, receiver.max_end);
    let allowed = allowed.wrapping_add(u32::from(window == 0));
    receiver.max_end = if allows_more {
        allowed
    } else {
        receiver.max_end
    };
    receiver.flags &= !(u8::from(ack == receiver.end) * seen_flags::UNACKNOWLEDGED);
}

#[inline(always)]
fn judge(
    sender: &mut Seen,
    receiver: &mut Seen,
    state: TcpState,
    dir: Dir,
    segment: &Segment<'_>,
    liberal: bool,
) -> Window {
    let Segment {
        mut seq,
        mut ack,
        mut end,
        ..
    } = *segment;
    let syn = segment.has(flags::SYN);
    let acks = segment.has(flags::ACK);
    let mut window = u32::from(segment.window);
    let mut sack = ack;
    if receiver.flags & seen_flags::SACK_PERMITTED != 0 {
        sack = options::highest_sack(segment.options, ack);
    }

    if sender.max_window == 0 {
        if syn {
            start(sender, receiver, segment, dir);
            if !acks {
                // Simultaneous open.
                return Window::Inside {
                    ack,
                    seq,
                    counted: false,
                };
            }
        } else {
            // Picked up mid-stream: believe the segment.
            sender.end = end;
            sender.max_window = (window << sender.scale).max(1);
            sender.max_end = end.wrapping_add(sender.max_window);
            if receiver.max_window == 0 {
                receiver.end = sack;
                receiver.max_end = sack;
            } else if sack == receiver.end.wrapping_add(1) {
                // The answer to a keep-alive whose byte was never sent.
                receiver.end = sack;
            }
        }
    } else if syn
        && after(end, sender.end)
        && matches!(state, TcpState::SynSent | TcpState::SynRecv)
    {
        // The connection attempt started over.
        start(sender, receiver, segment, dir);
        if dir == Dir::Reply && !acks {
            return Window::Inside {
                ack,
                seq,
                counted: false,
            };
        }
    }

    if !acks || (segment.has(flags::RST) && ack == 0) {
        // Nothing acknowledged, or a host that sets ACK in a RST without meaning it.
        ack = receiver.end;
        sack = receiver.end;
    }
    if segment.has(flags::RST) && seq == 0 && state == TcpState::SynSent {
        // A RST that answers a SYN has no sequence number to show.
        seq = sender.end;
        end = sender.end;
    }

    let liberal = liberal || sender.flags & seen_flags::LIBERAL != 0;
    let outside = |window: Window| match liberal {
        true => Window::Inside {
            ack,
            seq,
            counted: false,
        },
        false => window,
    };
    let ack_window = sender.max_window.max(MIN_ACK_WINDOW);
    let acks_unsent = after(sack, receiver.end);
    let acks_ancient = before(sack, receiver.end.wrapping_sub(ack_window));
    let too_old = before(end, sender.end.wrapping_sub(receiver.max_window));
    if after(seq, sender.max_end) {
        let overshot = end.wrapping_sub(sender.max_end).wrapping_add(1);
        let honest = receiver.max_window != 0
            && !too_old
            && !acks_ancient
            && !acks_unsent
            && overshot <= receiver.max_window;
        if honest {
            // It may reach the receiver; its acknowledgement must not look unsent then.
            sender.end = end;
            sender.flags |= seen_flags::UNACKNOWLEDGED;
            return outside(Window::Ignore);
        }
        return outside(Window::Outside(Why::TcpBeyond));
    }
    if acks_unsent {
        return outside(Window::Outside(Why::TcpUnsent));
    }
    if (receiver.max_window != 0 && too_old) || acks_ancient {
        return outside(Window::Ignore);
    }

    window <<= if syn { 0 } else { sender.scale };
    slide(sender, receiver, (ack, sack), end, window, acks);
    Window::Inside {
        ack,
        seq,
        counted: true,
    }
}

#[cfg(test)]
mod tests;
