//! Laws that hold for any state and any segment, sensible or not.

use super::*;

/// A window state and a segment out of any numbers.
#[derive(Clone, Debug)]
pub(super) struct Any {
    pub(super) seen: [Seen; 2],
    pub(super) state: TcpState,
    pub(super) dir: Dir,
    pub(super) bits: u8,
    pub(super) seq: u32,
    pub(super) len: u32,
    pub(super) ack: u32,
    pub(super) window: u16,
    /// Right edges of SACK blocks.
    pub(super) sacks: Vec<u32>,
}

impl Any {
    fn options(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if !self.sacks.is_empty() {
            bytes.extend([5, 2 + 8 * self.sacks.len() as u8]);
        }
        for edge in &self.sacks {
            bytes.extend([0; 4]);
            bytes.extend(edge.to_be_bytes());
        }
        bytes
    }

    /// What the check says of it, and what it leaves behind.
    pub(super) fn judge(&self, liberal: bool) -> (Window, [Seen; 2]) {
        let mut seen = self.seen;
        let options = self.options();
        let segment = Segment {
            seq: self.seq,
            ack: self.ack,
            end: self.seq.wrapping_add(self.len),
            window: self.window,
            flags: self.bits,
            options: &options,
        };
        let said = check(&mut seen, self.state, self.dir, &segment, liberal);
        (said, seen)
    }

    fn sender(&self) -> &Seen {
        &self.seen[self.dir as usize]
    }

    /// Whether it starts or restarts its sender rather than being measured by it.
    fn starts(&self) -> bool {
        let handshaking = matches!(self.state, TcpState::SynSent | TcpState::SynRecv);
        self.sender().max_window == 0 || self.bits & SYN != 0 && handshaking
    }

    /// The same with everything that counts this sender's octets moved by `by`, and everything
    /// that counts the other's by `other`.
    fn moved(mut self, by: u32, other: u32) -> Self {
        move_seen(&mut self.seen, self.dir, by, other);
        self.seq = self.seq.wrapping_add(by);
        self.ack = self.ack.wrapping_add(other);
        for edge in &mut self.sacks {
            *edge = edge.wrapping_add(other);
        }
        self
    }

    /// RFC 9293 3.10.7.3 gives the number 0 a meaning of its own in a RST.
    fn has_a_literal_zero(&self) -> bool {
        self.bits & RST != 0 && (self.seq == 0 || self.ack == 0)
    }
}

/// Moves a state: `by` for `dir`'s numbers, `other` for those of the other side.
fn move_seen(seen: &mut [Seen; 2], dir: Dir, by: u32, other: u32) {
    for (side, own, acked) in [(dir, by, other), (dir.flip(), other, by)] {
        let side = &mut seen[side as usize];
        side.end = side.end.wrapping_add(own);
        side.max_end = side.max_end.wrapping_add(own);
        side.max_ack = side.max_ack.wrapping_add(acked);
    }
}

/// Near a wrap or anywhere.
fn number() -> impl Strategy<Value = u32> {
    let near = (prop::sample::select(&WRAPS[..]), -3i32..3);
    prop_oneof![
        any::<u32>(),
        near.prop_map(|(base, by)| base.wrapping_add_signed(by))
    ]
}

fn seen() -> impl Strategy<Value = Seen> {
    let window = prop_oneof![Just(0u32), 1u32..70_000, 1u32..1 << 30];
    (
        number(),
        -200_000i32..200_000,
        window,
        number(),
        0u8..=14,
        0u8..64,
    )
        .prop_map(|(end, allowed, max_window, max_ack, scale, flags)| Seen {
            end,
            max_end: end.wrapping_add_signed(allowed),
            max_window,
            max_ack,
            scale,
            flags,
            verdict: 0,
        })
}

fn state() -> impl Strategy<Value = TcpState> {
    prop::sample::select(&TcpState::ALL[..])
}

pub(super) fn direction() -> impl Strategy<Value = Dir> {
    prop::sample::select(&[Dir::Original, Dir::Reply][..])
}

pub(super) fn bits() -> impl Strategy<Value = u8> {
    let usual = [SYN, SYN | ACK, ACK, ACK, ACK, FIN | ACK, RST, RST | ACK];
    prop_oneof![prop::sample::select(usual.to_vec()), 0u8..64]
}

/// Numbers that are far apart, or near what the state holds.
fn any_case() -> impl Strategy<Value = Any> {
    let segment = (
        bits(),
        number(),
        -100_000i32..100_000,
        any::<bool>(),
        0u32..3_000,
    );
    let answer = (number(), -100_000i32..100_000, any::<bool>(), any::<u16>());
    let sacks = prop::collection::vec((any::<bool>(), number(), -5_000i32..5_000), 0..4);
    (
        [seen(), seen()],
        state(),
        direction(),
        segment,
        answer,
        sacks,
    )
        .prop_map(
            |(
                seen,
                state,
                dir,
                (bits, seq, by, near, len),
                (ack, ack_by, ack_near, window),
                sacks,
            )| {
                let (sender, receiver) = (seen[dir as usize], seen[dir.flip() as usize]);
                let of = |near, base: u32, by, far| match near {
                    true => base.wrapping_add_signed(by),
                    false => far,
                };
                Any {
                    seen,
                    state,
                    dir,
                    bits,
                    seq: of(near, sender.end, by, seq),
                    len: len.max(u32::from(bits & (SYN | FIN) != 0)),
                    ack: of(ack_near, receiver.end, ack_by, ack),
                    window,
                    sacks: sacks
                        .into_iter()
                        .map(|(near, far, by)| of(near, receiver.end, by, far))
                        .collect(),
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4_000,
        max_global_rejects: 100_000, // cases that do not meet the premise do not count
        ..ProptestConfig::default()
    })]

    /// No number means anything by itself: moved by a constant in each direction, a segment is
    /// judged alike, and what it leaves is moved by the same constants.
    #[test]
    fn only_distances_count(case in any_case(), by in number(), other in number()) {
        let there = case.clone().moved(by, other);
        prop_assume!(!case.has_a_literal_zero() && !there.has_a_literal_zero());
        let (mut said, mut left) = case.judge(false);
        if let Window::Inside { ack, seq, .. } = &mut said {
            *ack = ack.wrapping_add(other);
            *seq = seq.wrapping_add(by);
        }
        move_seen(&mut left, case.dir, by, other);
        let (there_said, mut there_left) = there.judge(false);
        // A sender that started anew has no number that it acknowledged: 0 stays 0.
        for (here, there) in left.iter_mut().zip(&mut there_left) {
            if here.flags & seen_flags::MAX_ACK_SET == 0 {
                (here.max_ack, there.max_ack) = (0, 0);
            }
        }
        prop_assert_eq!((said, left), (there_said, there_left));
    }

    /// What is outside or ignored leaves both directions as they were, unless it started one
    /// (Linux too takes a sender's first segment for what it says before it is judged), or
    /// overshot.
    #[test]
    fn what_is_refused_changes_nothing(case in any_case()) {
        prop_assume!(!case.starts() && !case.has_a_literal_zero());
        let (said, left) = case.judge(false);
        match said {
            Window::Outside(_) => prop_assert_eq!(left, case.seen),
            Window::Ignore => {
                let mut want = case.seen;
                let sender = &mut want[case.dir as usize];
                if after(case.seq, sender.max_end) {
                    sender.end = case.seq.wrapping_add(case.len);
                    sender.flags |= seen_flags::UNACKNOWLEDGED;
                }
                prop_assert_eq!(left, want);
            }
            Window::Inside { .. } => {}
        }
    }

    /// The setting and the sender's own flag turn every refusal into an acceptance that counts
    /// nothing, and change nothing else. The receiver's flag is not asked.
    #[test]
    fn liberal_never_refuses(case in any_case(), by_flag: bool) {
        let (from, mut strict) = (case.dir as usize, case);
        strict.seen[from].flags &= !seen_flags::LIBERAL;
        let mut liberal = strict.clone();
        liberal.seen[from].flags |= u8::from(by_flag) * seen_flags::LIBERAL;
        let (said, mut left) = liberal.judge(!by_flag);
        let (strict_said, strict_left) = strict.judge(false);
        left[from].flags &= !seen_flags::LIBERAL;
        prop_assert_eq!(left, strict_left);
        if matches!(strict_said, Window::Inside { .. }) {
            prop_assert_eq!(said, strict_said);
        } else {
            prop_assert_eq!(Said::from(said), Said::LetIn);
        }
        // So a receiver's flag saves nothing.
        strict.seen[1 - from].flags ^= seen_flags::LIBERAL;
        prop_assert_eq!(strict.judge(false).0, strict_said);
    }

    /// A segment that counts moves nothing back: neither what was sent, nor what is allowed, nor
    /// what was acknowledged, nor the largest window.
    #[test]
    fn nothing_moves_back(case in any_case()) {
        // Half the space apart, each is behind the other.
        let back = |old: u32, new: u32| before(new, old) && !before(old, new);
        prop_assume!(!case.starts());
        let (said, left) = case.judge(false);
        prop_assume!(Said::from(said) == Said::Counted);
        for (old, new) in case.seen.iter().zip(&left) {
            prop_assert!(!back(old.end, new.end));
            prop_assert!(!back(old.max_end, new.max_end));
            prop_assert!(new.max_window >= old.max_window);
            if old.flags & seen_flags::MAX_ACK_SET != 0 {
                prop_assert!(!back(old.max_ack, new.max_ack));
                prop_assert!(new.flags & seen_flags::MAX_ACK_SET != 0);
            }
        }
    }
}
