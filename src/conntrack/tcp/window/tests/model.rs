//! The four bounds once more, over absolute 64-bit numbers that never wrap: what the check must
//! say. It is written from their statement and shares no arithmetic with the code that it judges.

use super::super::*;

/// Bound 4's floor, as Linux has it (`nf_conntrack_proto_tcp.c`, `MAXACKWINCONST`).
const FLOOR: i64 = 66_000;
/// The largest shift (RFC 7323 2.3).
const SHIFT: u8 = 14;

/// A segment in absolute numbers; `syn` holds what a handshake offers, if it has options.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) bits: u8,
    pub(super) seq: i64,
    pub(super) len: i64,
    pub(super) ack: i64,
    pub(super) window: u16,
    /// SACK blocks, each a left and a right edge.
    pub(super) sacks: Vec<(i64, i64)>,
    /// Window scale of a SYN with options; `None` inside for one without it.
    pub(super) offer: Option<Offer>,
}

/// The options of a SYN.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer {
    pub(super) scale: Option<u8>,
    pub(super) sack: bool,
}

impl Offer {
    pub(super) fn bytes(self) -> Vec<u8> {
        let mut bytes = vec![2, 4, 5, 0xb4];
        if self.sack {
            bytes.extend([4, 2]);
        }
        if let Some(shift) = self.scale {
            bytes.extend([1, 3, 3, shift]);
        }
        bytes
    }
}

impl Told {
    fn has(&self, bit: u8) -> bool {
        self.bits & bit != 0
    }

    /// Behind its last octet, SYN and FIN counted.
    pub(super) fn end(&self) -> i64 {
        self.seq + self.len + i64::from(self.has(flags::SYN)) + i64::from(self.has(flags::FIN))
    }

    /// Its option bytes.
    pub(super) fn options(&self) -> Vec<u8> {
        let mut bytes = self.offer.map(Offer::bytes).unwrap_or_default();
        if !self.sacks.is_empty() {
            bytes.extend([1, 1, 5, 2 + 8 * self.sacks.len() as u8]);
            for (left, right) in &self.sacks {
                bytes.extend((*left as u32).to_be_bytes());
                bytes.extend((*right as u32).to_be_bytes());
            }
        }
        bytes
    }

    /// It as it stands on the wire; `options` are [`Told::options`].
    pub(super) fn segment<'a>(&self, options: &'a [u8]) -> Segment<'a> {
        Segment {
            seq: self.seq as u32,
            ack: self.ack as u32,
            end: self.end() as u32,
            window: self.window,
            flags: self.bits,
            options,
        }
    }
}

/// What is known of one direction.
#[derive(Clone, Debug, Default)]
pub(super) struct Side {
    pub(super) end: i64,
    pub(super) max_end: i64,
    pub(super) max_window: i64,
    pub(super) max_ack: Option<i64>,
    pub(super) scale: u8,
    pub(super) scales: bool,
    pub(super) sacks: bool,
    pub(super) liberal: bool,
    pub(super) unacknowledged: bool,
}

impl Side {
    /// Whether the code's view is this one, modulo 2^32.
    pub(super) fn is(&self, seen: &Seen) -> bool {
        let flag = |bit: u8| seen.flags & bit != 0;
        seen.end == self.end as u32
            && seen.max_end == self.max_end as u32
            && i64::from(seen.max_window) == self.max_window
            && flag(seen_flags::MAX_ACK_SET) == self.max_ack.is_some()
            && self.max_ack.is_none_or(|ack| seen.max_ack == ack as u32)
            && seen.scale == self.scale
            && flag(seen_flags::WINDOW_SCALE) == self.scales
            && flag(seen_flags::SACK_PERMITTED) == self.sacks
            && flag(seen_flags::LIBERAL) == self.liberal
            && flag(seen_flags::UNACKNOWLEDGED) == self.unacknowledged
    }

    /// A sender that starts with this SYN.
    pub(super) fn start(&mut self, told: &Told) {
        self.end = told.end();
        self.max_end = self.end;
        self.max_window = i64::from(told.window).max(1);
        if let Some(offer) = told.offer {
            self.scale = offer.scale.unwrap_or(0).min(SHIFT);
            self.scales = offer.scale.is_some();
            self.sacks = offer.sack;
            self.max_ack = None;
            self.unacknowledged = false;
        }
    }
}

/// The outcomes, without their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Counted,
    LetIn,
    Ignored,
    Outside,
}

impl From<Window> for Said {
    fn from(window: Window) -> Self {
        match window {
            Window::Inside { counted: true, .. } => Said::Counted,
            Window::Inside { counted: false, .. } => Said::LetIn,
            Window::Ignore => Said::Ignored,
            Window::Outside(_) => Said::Outside,
        }
    }
}

/// `a <= b`, where both are near enough for 32 bits to tell.
fn at_most(a: i64, b: i64) -> bool {
    assert!((a - b).abs() < 1 << 31, "{a} and {b} are too far apart");
    a <= b
}

/// Judges a segment and moves both sides; `liberal` is the setting.
pub(super) fn judge(
    sides: &mut [Side; 2],
    state: TcpState,
    dir: Dir,
    told: &Told,
    liberal: bool,
) -> Said {
    let [original, reply] = sides;
    let (sender, receiver) = match dir {
        Dir::Original => (original, reply),
        Dir::Reply => (reply, original),
    };
    let (syn, acks, rst) = (
        told.has(flags::SYN),
        told.has(flags::ACK),
        told.has(flags::RST),
    );
    let known = sender.max_window > 0;
    let handshaking = matches!(state, TcpState::SynSent | TcpState::SynRecv);
    let highest = |ack: i64, receiver: &Side| match receiver.sacks {
        true => told
            .sacks
            .iter()
            .fold(ack, |high, (_, right)| high.max(*right)),
        false => ack,
    };
    let (mut ack, mut sack) = (told.ack, highest(told.ack, receiver));
    if syn && (!known || handshaking && !at_most(told.end(), sender.end)) {
        sender.start(told);
        if dir == Dir::Reply && !(sender.scales && receiver.scales) {
            (sender.scale, receiver.scale) = (0, 0);
        }
        if !acks && (!known || dir == Dir::Reply) {
            return Said::LetIn;
        }
    } else if !known {
        sender.end = told.end();
        sender.max_window = (i64::from(told.window) << sender.scale).max(1);
        sender.max_end = sender.end + sender.max_window;
        if receiver.max_window == 0 {
            (receiver.end, receiver.max_end) = (sack, sack);
        } else if sack == receiver.end + 1 {
            receiver.end = sack;
        }
    }
    if !acks || rst && told.ack as u32 == 0 {
        (ack, sack) = (receiver.end, receiver.end);
    }
    let answers_syn = rst && told.seq as u32 == 0 && state == TcpState::SynSent;
    let (seq, end) = match answers_syn {
        true => (sender.end, sender.end),
        false => (told.seq, told.end()),
    };

    let allowed = at_most(seq, sender.max_end);
    let current = at_most(sender.end - receiver.max_window, end);
    let acks_sent = at_most(sack, receiver.end);
    let acks_new = at_most(receiver.end - sender.max_window.max(FLOOR), sack);
    let opened = receiver.max_window > 0;
    let refused = if !allowed {
        let reaches = opened && end - sender.max_end < receiver.max_window;
        if reaches && current && acks_sent && acks_new {
            sender.end = end;
            sender.unacknowledged = true;
            Some(Said::Ignored)
        } else {
            Some(Said::Outside)
        }
    } else if !acks_sent {
        Some(Said::Outside)
    } else if opened && !current || !acks_new {
        Some(Said::Ignored)
    } else {
        None
    };
    if let Some(said) = refused {
        return match liberal || sender.liberal {
            true => Said::LetIn,
            false => said,
        };
    }

    let scale = if syn { 0 } else { sender.scale };
    let window = i64::from(told.window) << scale;
    sender.max_window = sender.max_window.max(window + sack - ack);
    if end > sender.end {
        sender.end = end;
        sender.unacknowledged = true;
    }
    if acks {
        sender.max_ack = sender.max_ack.max(Some(ack));
    }
    if opened {
        receiver.max_window += (end - sender.max_end).max(0);
    }
    if sack + window >= receiver.max_end {
        receiver.max_end = sack + window.max(1);
    }
    if ack == receiver.end {
        receiver.unacknowledged = false;
    }
    Said::Counted
}
