//! Conversations that cross the wrap in both directions, packet by packet against [`model`].

use super::any::{bits, direction};
use super::model::{self, Offer, Side, Told};
use super::*;
use crate::conntrack::config::Config;
use crate::conntrack::entry::Core;
use crate::conntrack::tcp::open;

/// Where in the conversation a number lies, before chance moves it.
#[derive(Clone, Copy, Debug)]
enum Anchor {
    End,
    MaxEnd,
    Oldest,
    Overshot,
    Zero,
}

#[derive(Clone, Debug)]
struct Move {
    dir: Dir,
    state: TcpState,
    bits: u8,
    seq: (Anchor, i64),
    ack: (bool, i64),
    sacks: Vec<i64>,
    len: i64,
    window: u16,
    offer: Option<Offer>,
    liberal: bool,
}

fn slip() -> impl Strategy<Value = i64> {
    prop_oneof![4 => -2i64..=2, 2 => -3_000i64..3_000, 1 => -(1i64 << 27)..1 << 27]
}

fn offer() -> impl Strategy<Value = Option<Offer>> {
    // Scales beyond 11 let distances grow past what 32 bits can tell apart.
    let scale = prop::option::of(0u8..12);
    prop::option::of((scale, any::<bool>()).prop_map(|(scale, sack)| Offer { scale, sack }))
}

fn a_move() -> impl Strategy<Value = Move> {
    let anchors = [
        Anchor::End,
        Anchor::End,
        Anchor::MaxEnd,
        Anchor::Oldest,
        Anchor::Overshot,
        Anchor::Zero,
    ];
    let seq = (prop::sample::select(anchors.to_vec()), slip());
    let states = [
        TcpState::Established,
        TcpState::SynSent,
        TcpState::SynRecv,
        TcpState::FinWait,
    ];
    let window = prop_oneof![Just(0u16), Just(1), 0u16..2_000, any::<u16>()];
    let len = prop_oneof![Just(0i64), 0i64..3, 0i64..65_000];
    let sacks = prop_oneof![3 => Just(vec![]), 1 => prop::collection::vec(prop_oneof![-5_000i64..3, Just(0)], 1..4)];
    (
        (direction(), prop::sample::select(states.to_vec()), bits()),
        (
            seq,
            (prop::bool::weighted(0.9), slip()),
            sacks,
            len,
            window,
            offer(),
        ),
        prop::bool::weighted(0.05),
    )
        .prop_map(
            |((dir, state, bits), (seq, ack, sacks, len, window, offer), liberal)| Move {
                dir,
                state,
                bits,
                seq,
                ack,
                sacks,
                len,
                window,
                offer,
                liberal,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whole conversations that cross the wrap in both directions, with segments around every
    /// bound: the verdict and the state are what the model has, modulo 2^32.
    #[test]
    fn conversations_agree_with_the_model(
        isn in prop::collection::vec(-150_000i64..100_000, 2),
        picked_up: bool,
        offers in [offer(), offer()],
        moves in prop::collection::vec(a_move(), 1..40),
    ) {
        // Absolute numbers start at 2^32, so that none is negative.
        let isn = [isn[0] + (1 << 32), isn[1] + (1 << 32)];
        let first = Told {
            bits: if picked_up { ACK } else { SYN },
            seq: isn[0],
            len: 0,
            ack: isn[1],
            window: 500,
            sacks: Vec::new(),
            offer: offers[0].filter(|_| !picked_up),
        };
        let mut sides: [Side; 2] = Default::default();
        if picked_up {
            let end = first.end();
            sides[0] = Side { end, max_end: end + 500, max_window: 500, ..Side::default() };
            for side in &mut sides {
                (side.sacks, side.liberal) = (true, true);
            }
        } else {
            sides[0].start(&first);
        }
        let mut core = Core::new(true);
        let options = first.options();
        prop_assert!(open(&mut core, &first.segment(&options), &Config::default()).is_ok());
        prop_assert!(sides[0].is(&core.seen[0]), "{sides:?} {:?}", core.seen);

        // The answer tells where the other side is.
        let answer = Told {
            bits: if picked_up { ACK } else { SYN | ACK },
            seq: isn[1],
            ack: sides[0].end,
            offer: offers[1].filter(|_| !picked_up),
            ..first
        };
        let mut tell = |sides: &mut [Side; 2], state, dir, told: &Told, liberal| {
            let options = told.options();
            let said = check(&mut core.seen, state, dir, &told.segment(&options), liberal);
            let want = model::judge(sides, state, dir, told, liberal);
            prop_assert_eq!(Said::from(said), want, "{:?} {:?}", told, sides);
            for (side, seen) in sides.iter().zip(&core.seen) {
                prop_assert!(side.is(seen), "after {told:?}: {side:?}, but {seen:?}");
            }
            Ok(())
        };
        tell(&mut sides, TcpState::SynSent, Dir::Reply, &answer, false)?;
        for step in moves {
            let (sender, receiver) = (&sides[step.dir as usize], &sides[step.dir.flip() as usize]);
            let syn_or_fin = i64::from(step.bits & SYN != 0) + i64::from(step.bits & FIN != 0);
            let (anchor, by) = step.seq;
            let seq = by + match anchor {
                Anchor::End => sender.end,
                Anchor::MaxEnd => sender.max_end,
                Anchor::Zero => 1 << 32,
                Anchor::Oldest => sender.end - receiver.max_window - step.len - syn_or_fin,
                Anchor::Overshot => sender.max_end + receiver.max_window - step.len - syn_or_fin,
            };
            let (newest, by) = step.ack;
            let ack = by + match newest {
                true => receiver.end,
                false => receiver.end - sender.max_window.max(66_000),
            };
            let syn = step.bits & SYN != 0;
            let told = Told {
                bits: step.bits,
                seq,
                len: step.len,
                ack,
                window: step.window,
                sacks: match syn {
                    true => Vec::new(),
                    false => step.sacks.iter().map(|by| (ack, receiver.end + by)).collect(),
                },
                offer: step.offer.filter(|_| syn),
            };
            tell(&mut sides, step.state, step.dir, &told, step.liberal)?;
        }
    }
}
