//! The window check on its own: its arithmetic, its bounds to the octet, laws for any state and
//! segment ([`any`]), conversations against a model that never wraps ([`conversations`]), and short
//! traces of what hosts do ([`traces`]).

mod any;
mod conversations;
mod model;
mod traces;

use super::*;
use any::Any;
use model::Said;
use proptest::prelude::*;

const ACK: u8 = flags::ACK;
const SYN: u8 = flags::SYN;
const RST: u8 = flags::RST;
const FIN: u8 = flags::FIN;
/// Where arithmetic that is only nearly modular breaks.
const WRAPS: [u32; 6] = [0, 1, 1 << 31, (1 << 31) - 1, u32::MAX, u32::MAX - 70_000];

proptest! {
    /// In any window smaller than half the space `before` is the order of the integers, wherever
    /// the window lies; so it is irreflexive, antisymmetric and transitive there.
    #[test]
    fn before_orders_half_the_space(base: u32, a in 0u32..1 << 31, b in 0u32..1 << 31) {
        let (x, y) = (base.wrapping_add(a), base.wrapping_add(b));
        prop_assert_eq!(before(x, y), a < b);
        prop_assert_eq!(after(x, y), a > b);
    }

    /// Linux writes the bounds as `after(x, limit - 1)` and `before(x, limit + 1)`: the same for
    /// every pair of numbers, those half the space apart included.
    #[test]
    fn the_bounds_are_those_of_linux(x: u32, near in 0u32..4, half: bool) {
        let y = x.wrapping_add(near).wrapping_sub(2).wrapping_add(u32::from(half) << 31);
        prop_assert_eq!(!before(x, y), after(x, y.wrapping_sub(1)));
        prop_assert_eq!(!after(x, y), before(x, y.wrapping_add(1)));
    }
}

/// Exactly half the space apart each number is before the other, as in Linux: such a segment fails
/// the bound that is asked first, whichever it is.
#[test]
fn half_the_space_apart_each_is_before_the_other() {
    for x in WRAPS {
        let far = x.wrapping_add(1 << 31);
        assert!(before(x, far) && before(far, x) && after(x, far) && after(far, x));
        let nearer = far.wrapping_sub(1);
        assert!(before(x, nearer) && !before(nearer, x));
        assert!(!before(x, x) && !after(x, x));
    }
}

/// Every bound's last value inside and the first outside, alone and together, wherever the two
/// sides' numbers wrap; with windows below and above the floor of the fourth.
#[test]
fn each_bound_to_the_octet() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Is {
        Old,
        Fine,
        Over,
        FarOver,
    }
    use Is::{FarOver, Fine, Old, Over};
    const ALLOWED: u32 = 1_000; // what the sender may still send
    const GIVEN: u32 = 3_000; // the receiver's largest window
    for (s, r, given_back) in wraps() {
        let mut base = [Seen::default(); 2];
        base[0] = Seen {
            end: s,
            max_end: s.wrapping_add(ALLOWED),
            max_window: given_back,
            ..Seen::default()
        };
        base[1] = Seen {
            end: r,
            max_end: r.wrapping_add(given_back),
            max_window: GIVEN,
            ..Seen::default()
        };
        let floor = given_back.max(66_000);
        let max_end = base[0].max_end;
        // Sequence number and length: bound 2 looks at the end, bound 1 at the start.
        let segments = [
            (s.wrapping_sub(GIVEN + 1), 0, Old),
            (s.wrapping_sub(GIVEN), 0, Fine),
            (s.wrapping_sub(GIVEN - 1), 0, Fine),
            (s.wrapping_sub(GIVEN + 11), 10, Old),
            (s.wrapping_sub(GIVEN + 10), 10, Fine),
            (s.wrapping_sub(GIVEN + 9), 10, Fine),
            (s, 0, Fine),
            (max_end.wrapping_sub(1), 0, Fine),
            (max_end, 0, Fine),
            (max_end, 1460, Fine),
            (max_end.wrapping_add(1), 0, Over),
            (max_end.wrapping_add(1), GIVEN - 3, Over),
            (max_end.wrapping_add(1), GIVEN - 2, Over),
            (max_end.wrapping_add(1), GIVEN - 1, FarOver),
            (max_end.wrapping_add(GIVEN - 2), 0, Over),
            (max_end.wrapping_add(GIVEN - 1), 0, Over),
            (max_end.wrapping_add(GIVEN), 0, FarOver),
        ];
        // Acknowledgement: bounds 3 and 4.
        let acks = [
            (r.wrapping_sub(floor + 1), Old),
            (r.wrapping_sub(floor), Fine),
            (r.wrapping_sub(floor - 1), Fine),
            (r.wrapping_sub(1), Fine),
            (r, Fine),
            (r.wrapping_add(1), Over),
        ];
        for (seq, len, seq_is) in segments {
            for (ack, ack_is) in acks {
                let want = match (seq_is, ack_is) {
                    (_, Over) | (FarOver, _) | (Over, Old) => Said::Outside,
                    (Over, _) | (Old, _) | (_, Old) => Said::Ignored,
                    _ => Said::Counted,
                };
                let case = Any {
                    seen: base,
                    state: TcpState::Established,
                    dir: Dir::Original,
                    bits: ACK,
                    seq,
                    len,
                    ack,
                    window: 0,
                    sacks: Vec::new(),
                };
                let (said, _) = case.judge(false);
                assert_eq!(
                    Said::from(said),
                    want,
                    "sender at {s}, receiver at {r}, seq {seq} len {len} {seq_is:?}, \
                     ack {ack} {ack_is:?}, windows up to {given_back}"
                );
            }
        }
    }
}

/// Where the two sides are, and the largest window of the first.
fn wraps() -> impl Iterator<Item = (u32, u32, u32)> {
    let pairs = WRAPS.into_iter().flat_map(|s| WRAPS.map(|r| (s, r)));
    pairs.flat_map(|(s, r)| [1, 65_999, 66_000, 66_001, 1 << 30].map(|w| (s, r, w)))
}
