//! The TCP tracker: the transition table, the window check, and the rules that stand between.
//!
//! [`open`] judges the first packet of a flow, [`packet`] every one (the first included). Neither
//! knows the flow table: they take an entry's core and the memory of its last segment, and say
//! what is to become of the entry. The order of the tests is that of Linux 6.12, which RFC 9293,
//! RFC 5961 and RFC 1122 explain.
//!
//! What Linux keeps in `last_index` and its neighbours is [`LastSegment`]: which segment was the
//! last to be believed, or to be ignored with suspicion. It is what resynchronises the tracker
//! when the hosts know better.

pub mod options;
pub mod table;
pub mod window;

use super::config::Config;
use super::entry::{Core, LastSegment, Seen, seen_flags, status};
use super::types::{Dir, TcpState};
use super::why::Why;
use crate::base::time::{Span, Ticks};
use crate::wire::tcp::flags;
use crate::wire::{Parsed, TcpHeader};
use table::{Class, Next};
use window::{Segment, Window, before};
use zerocopy::FromZeros;

/// What becomes of a flow after a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Valid; the deadline stays.
    Keep,
    /// As [`Outcome::Keep`], and it is not known whether it belongs to the flow at all: no number
    /// of it was checked.
    Ignore,
    /// Valid; the flow lives that long from now.
    Refresh(Span),
    /// Valid, and the flow is over.
    Kill,
    /// Impossible in this flow. The deadline stays.
    Invalid(Why),
    /// Impossible, and a sign that the tracker is out of step: the flow lives that long at most.
    InvalidShorten(Why, Span),
    /// A new connection with this flow's tuple: forget the flow and look again.
    Reopen,
}

impl Outcome {
    /// Whether the packet is counted to its flow. As in Linux, what passes without being believed,
    /// or repeats a SYN, is not: that is where it does not refresh the flow.
    #[inline]
    pub const fn counts(self) -> bool {
        matches!(self, Outcome::Refresh(_) | Outcome::Kill)
    }
}

/// Flags of an ignored SYN, in [`LastSegment::flags`], beside those of [`seen_flags`].
mod suspicion {
    /// A SYN was ignored in LAST_ACK: a challenge ACK may follow.
    pub(super) const CHALLENGE_ACK: u8 = 0x40;
    /// SYNs crossed.
    pub(super) const SIMULTANEOUS_OPEN: u8 = 0x80;
}

/// The tracker's view of the segment behind `tcp`, whose header starts at `parsed.l4_offset`.
#[inline]
pub fn segment<'a>(data: &'a [u8], parsed: &Parsed, tcp: &TcpHeader) -> Segment<'a> {
    let start = usize::from(parsed.l4_offset);
    let header_len = usize::from(tcp.header_len);
    let payload = (parsed.end as usize).saturating_sub(start + header_len) as u32;
    let options = data.get(start + 20..start + header_len).unwrap_or(&[]);
    let phantom = u32::from(tcp.flags & flags::SYN != 0) + u32::from(tcp.flags & flags::FIN != 0);
    Segment {
        seq: tcp.seq,
        ack: tcp.ack,
        end: tcp.seq.wrapping_add(payload).wrapping_add(phantom),
        window: tcp.window,
        flags: tcp.flags,
        options,
    }
}

/// Prepares `core` for a flow that starts with `segment`.
///
/// # Errors
/// If none can: why the segment is INVALID.
pub fn open(core: &mut Core, segment: &Segment<'_>, config: &Config) -> Result<(), Why> {
    if !table::legal(segment.flags) {
        return Err(Why::TcpFlags);
    }
    let Next::State(state) = table::next(Dir::Original, segment.class(), TcpState::None) else {
        return Err(Why::TcpNotFirst);
    };
    let picked_up = state != TcpState::SynSent;
    if picked_up && !config.tcp_loose {
        return Err(Why::TcpNotLoose);
    }
    let [original, reply] = &mut core.seen;
    *original = Seen {
        end: segment.end,
        max_end: segment.end,
        max_window: u32::from(segment.window).max(1),
        ..Seen::default()
    };
    *reply = Seen::default();
    if picked_up {
        // The handshake was not seen: its scale is unknown, SACK is possible.
        original.max_end = segment.end.wrapping_add(original.max_window);
        original.flags = seen_flags::SACK_PERMITTED | seen_flags::LIBERAL;
        reply.flags = original.flags;
    } else {
        options::read_handshake(segment.options, original);
    }
    core.tcp_state = TcpState::None;
    Ok(())
}

/// A fresh memory, as [`open`] leaves it.
pub fn no_segment() -> LastSegment {
    let mut last = LastSegment::new_zeroed();
    last.class = Class::None as u8;
    last
}

/// What [`packet`] says of a plain acknowledgement inside the window of an established flow that is
/// ASSURED, with fewer questions: how long the flow lives from now. `None`, and nothing was touched,
/// if the segment or the flow is anything else.
#[inline(always)]
pub fn plain_ack(
    core: &mut Core,
    last: &mut LastSegment,
    dir: Dir,
    segment: &Segment<'_>,
    config: &Config,
) -> Option<Span> {
    let plain = segment.flags & !(flags::PSH | flags::ECE | flags::CWR) == flags::ACK
        && core.tcp_state == TcpState::Established
        && core.has(status::SEEN_REPLY | status::ASSURED);
    if !plain || !window::slide_inside(&mut core.seen, dir, segment) {
        return None;
    }
    count_retransmits(last, dir, segment, segment.seq, segment.ack);
    last.class = Class::Ack as u8;
    Some(timeout(core, last, TcpState::Established, config))
}

/// Judges a segment of direction `dir` and moves the flow. `now` is only compared with the
/// flow's deadline.
pub fn packet(
    core: &mut Core,
    last: &mut LastSegment,
    dir: Dir,
    segment: &Segment<'_>,
    now: Ticks,
    config: &Config,
) -> Outcome {
    if !table::legal(segment.flags) {
        return Outcome::Invalid(Why::TcpFlags);
    }
    let class = segment.class();
    let mut old = core.tcp_state;
    let mut check_window = true;
    let mut new = match table::next(dir, class, old) {
        Next::Invalid => return Outcome::Invalid(Why::TcpState),
        Next::State(TcpState::SynSent) if old as u8 >= TcpState::TimeWait as u8 => {
            return if may_reopen(core, last, dir) {
                Outcome::Reopen
            } else {
                ignore(core, last, dir, segment)
            };
        }
        Next::State(state) => state,
        Next::Ignore if answers_ignored_syn(last, dir, segment) => {
            // The hosts are in step and the tracker is not: believe the SYN that was ignored.
            resynchronise(core, last, dir);
            old = TcpState::SynSent;
            TcpState::SynRecv
        }
        Next::Ignore => return ignore(core, last, dir, segment),
    };
    match new {
        TcpState::TimeWait if is_challenge_ack(last, dir, class, old) => {
            // Not the acknowledgement of the last FIN (RFC 5961 4).
            last.flags &= !suspicion::CHALLENGE_ACK;
            return Outcome::Keep;
        }
        TcpState::SynSent2 => last.flags |= suspicion::SIMULTANEOUS_OPEN,
        TcpState::SynRecv
            if dir == Dir::Reply
                && class == Class::Ack
                && last.flags & suspicion::SIMULTANEOUS_OPEN != 0 =>
        {
            new = TcpState::Established;
        }
        TcpState::Close if class == Class::Rst => match reset(core, last, dir, segment, config) {
            Reset::Invalid => return Outcome::Invalid(Why::TcpOldReset),
            Reset::Judge { exact, window } => {
                check_window = window;
                new = if exact { new } else { old };
            }
        },
        _ => {}
    }
    if check_window {
        let liberal = config.tcp_be_liberal;
        match window::check(&mut core.seen, core.tcp_state, dir, segment, liberal) {
            Window::Ignore => return Outcome::Keep,
            Window::Outside(why) => return outside(core, last, dir, class, why, now, config),
            Window::Inside { ack, seq, counted } => {
                if counted && class == Class::Ack {
                    count_retransmits(last, dir, segment, seq, ack);
                }
            }
        }
    }
    last.class = class as u8;
    last.dir = dir as u8;
    advance(core, last, dir, class, old, new, config)
}

/// Whether a SYN may start a new connection in a flow that is in TIME_WAIT or CLOSE
/// (RFC 1122 4.2.2.13): someone began to close it, or its last word was this side's RST.
fn may_reopen(core: &Core, last: &LastSegment, dir: Dir) -> bool {
    let closing = core.seen[0].flags | core.seen[1].flags;
    let reset = last.dir == dir as u8 && last.class == Class::Rst as u8;
    closing & seen_flags::CLOSE_INITIATED != 0 || reset
}

/// A SYN/ACK that acknowledges the SYN which was ignored last.
fn answers_ignored_syn(last: &LastSegment, dir: Dir, segment: &Segment<'_>) -> bool {
    segment.class() == Class::SynAck
        && last.class == Class::Syn as u8
        && last.dir != dir as u8
        && segment.ack == last.end
}

/// Takes the remembered SYN for the start of the flow; `dir` is the direction of its answer.
fn resynchronise(core: &mut Core, last: &mut LastSegment, dir: Dir) {
    last.flags &= !suspicion::CHALLENGE_ACK;
    let syn_sender = &mut core.seen[dir.flip() as usize];
    syn_sender.end = last.end;
    syn_sender.max_end = last.end;
    syn_sender.max_window = u32::from(last.window).max(1);
    syn_sender.scale = last.scale;
    syn_sender.flags = last.flags;
    // What answers starts anew, but stays liberal if the flow was picked up.
    let answerer = &mut core.seen[dir as usize];
    *answerer = Seen {
        flags: answerer.flags & seen_flags::LIBERAL,
        ..Seen::default()
    };
}

/// Lets a segment pass without believing it, and remembers what it might mean.
#[cold]
fn ignore(core: &Core, last: &mut LastSegment, dir: Dir, segment: &Segment<'_>) -> Outcome {
    let class = segment.class();
    last.class = class as u8;
    last.dir = dir as u8;
    last.seq = segment.seq;
    last.end = segment.end;
    last.window = segment.window;
    if class == Class::Syn && dir == Dir::Original {
        let mut offered = Seen::default();
        options::read_handshake(segment.options, &mut offered);
        last.flags = offered.flags;
        last.scale = offered.scale;
        if core.tcp_state == TcpState::LastAck {
            last.flags |= suspicion::CHALLENGE_ACK;
        }
    }
    if core.tcp_state == TcpState::SynSent && class == Class::Ack && dir == Dir::Reply {
        // Perhaps a challenge ACK; a RST that answers it will name this number.
        last.ack = segment.ack;
    }
    Outcome::Ignore
}

/// An ACK in LAST_ACK that answers the other side's ignored SYN rather than the last FIN.
fn is_challenge_ack(last: &LastSegment, dir: Dir, class: Class, old: TcpState) -> bool {
    old == TcpState::LastAck
        && class == Class::Ack
        && last.dir != dir as u8
        && last.class == Class::Syn as u8
        && last.flags & suspicion::CHALLENGE_ACK != 0
}

/// Whether a state is one in which the flow is going or gone.
const fn is_closing(state: TcpState) -> bool {
    matches!(
        state,
        TcpState::FinWait
            | TcpState::CloseWait
            | TcpState::LastAck
            | TcpState::TimeWait
            | TcpState::Close
    )
}

/// What a RST is worth.
enum Reset {
    /// Somebody guesses sequence numbers.
    Invalid,
    /// It may be meant. Only an exact one closes the flow; some need no window check.
    Judge { exact: bool, window: bool },
}

/// RFC 5961 3: a RST closes a flow only with exactly the next sequence number.
#[cold]
fn reset(
    core: &Core,
    last: &LastSegment,
    dir: Dir,
    segment: &Segment<'_>,
    config: &Config,
) -> Reset {
    if is_closing(core.tcp_state) {
        // The tuple may be in use again already; what was remembered proves nothing.
        return Reset::Judge {
            exact: true,
            window: false,
        };
    }
    let established = core.tcp_state == TcpState::Established && core.has(status::ASSURED);
    let peer = &core.seen[dir.flip() as usize];
    let mut exact = true;
    // After an ignored SYN the peer's acknowledgement may be outdated.
    if peer.flags & seen_flags::MAX_ACK_SET != 0 && last.class != Class::Syn as u8 {
        if segment.seq == 0 && !established {
            return Reset::Judge {
                exact,
                window: true,
            };
        }
        if before(segment.seq, peer.max_ack) && !config.tcp_ignore_invalid_rst {
            return Reset::Invalid;
        }
        let follows_own_train =
            last.class == Class::Ack as u8 && last.dir == dir as u8 && segment.seq == last.end;
        if !established || segment.seq == peer.max_ack || follows_own_train {
            return Reset::Judge {
                exact,
                window: true,
            };
        }
        exact = false; // a challenge ACK may follow
    }
    // A RST does not answer a SYN of its own side; of an ACK the kernel does not ask whose it was.
    let answers_syn =
        core.has(status::SEEN_REPLY) && last.class == Class::Syn as u8 && last.dir != dir as u8;
    let last_was_ack = last.class == Class::Ack as u8;
    let answers_ignored = answers_syn || (!core.has(status::ASSURED) && last_was_ack);
    // A client that gets a challenge ACK for its SYN resets the old connection with the number
    // that this ACK asked for (RFC 9293 3.10.7.3), far from its SYN's. Here too the kernel does not
    // ask whose RST it is.
    let answers_challenge =
        core.tcp_state == TcpState::SynSent && last_was_ack && segment.seq == last.ack;
    Reset::Judge {
        exact,
        window: !(answers_ignored && segment.ack == last.end || answers_challenge),
    }
}

/// A segment outside the window. A FIN or RST of each side in turn means that the hosts are done
/// and the tracker missed it.
#[cold]
fn outside(
    core: &Core,
    last: &mut LastSegment,
    dir: Dir,
    class: Class,
    why: Why,
    now: Ticks,
    config: &Config,
) -> Outcome {
    if !core.has(status::ASSURED) || !matches!(class, Class::Rst | Class::Fin) {
        return Outcome::Invalid(why);
    }
    let other_ended =
        last.dir != dir as u8 && (last.class == Class::Fin as u8 || last.class == Class::Rst as u8);
    if !other_ended {
        last.class = class as u8;
        last.dir = dir as u8;
        return Outcome::Invalid(why);
    }
    let remaining = now.until(core.deadline);
    let shorter = config.timeouts_of(core.status).tcp_unack;
    if remaining >= Span::secs(120) && remaining > shorter {
        return Outcome::InvalidShorten(why, shorter);
    }
    Outcome::Invalid(why)
}

/// Counts how often the same ACK segment came in a row.
#[inline(always)]
fn count_retransmits(last: &mut LastSegment, dir: Dir, segment: &Segment<'_>, seq: u32, ack: u32) {
    let same = (last.dir == dir as u8)
        & (last.seq == seq)
        & (last.ack == ack)
        & (last.end == segment.end)
        & (last.window == segment.window);
    // What is the same may as well be written again: no branch.
    last.dir = dir as u8;
    last.seq = seq;
    last.ack = ack;
    last.end = segment.end;
    last.window = segment.window;
    last.retransmits = last.retransmits.wrapping_add(1) & 0u8.wrapping_sub(u8::from(same));
}

/// How long a flow in `state` lives after a segment that is no RST. Selects instead of branches:
/// data in flight or not is as good as random.
#[inline(always)]
fn timeout(core: &Core, last: &LastSegment, state: TcpState, config: &Config) -> Span {
    let timeouts = config.timeouts_of(core.status);
    let own = timeouts.tcp[state as usize];
    let (retrans, unack) = (own.min(timeouts.tcp_retrans), own.min(timeouts.tcp_unack));
    let repeats = last.retransmits >= config.tcp_max_retrans && own > retrans;
    let unacknowledged =
        (core.seen[0].flags | core.seen[1].flags) & seen_flags::UNACKNOWLEDGED != 0;
    // In this order: identical segments, data in flight, a closed window.
    let flying = unacknowledged & (own > unack);
    let shut = (last.window == 0) & !flying;
    let cut = if flying { unack } else { own };
    if repeats | shut { retrans } else { cut }
}

/// Moves the flow to `new` and chooses its timeout.
#[inline]
fn advance(
    core: &mut Core,
    last: &LastSegment,
    dir: Dir,
    class: Class,
    old: TcpState,
    new: TcpState,
    config: &Config,
) -> Outcome {
    core.tcp_state = new;
    if old != new && new == TcpState::FinWait {
        core.seen[dir as usize].flags |= seen_flags::CLOSE_INITIATED;
    }
    let timeouts = config.timeouts_of(core.status);
    let repeats = last.retransmits >= config.tcp_max_retrans
        && timeouts.tcp[new as usize] > timeouts.tcp_retrans;
    let mut timeout = match class {
        // One that did not close the flow (RFC 5961 3) may be meant all the same: unless the hosts
        // go on, the flow ends as soon as one that was closed.
        Class::Rst if !repeats => timeouts.tcp[TcpState::Close as usize],
        _ => timeout(core, last, new, config),
    };
    if !core.has(status::SEEN_REPLY) {
        if class == Class::Rst {
            return Outcome::Kill;
        }
        if class == Class::Syn && old == TcpState::SynSent {
            // A client that only repeats its SYN must not keep the flow alive.
            return Outcome::Keep;
        }
        if new == TcpState::Established {
            timeout = timeout.min(timeouts.tcp_unack);
        }
    } else if new == TcpState::Established
        && matches!(old, TcpState::SynRecv | TcpState::Established)
    {
        core.status |= status::ASSURED;
    }
    Outcome::Refresh(timeout)
}

#[cfg(test)]
mod tests;
