//! The short cut for plain acknowledgements against the whole of the tracker.

use super::*;
use proptest::prelude::*;

prop_compose! {
    /// What one side may have shown, near the sequence number `at`.
    fn side(at: u32)(
        end in 0..5_000u32,
        max_end in 0..70_000u32,
        max_window in prop_oneof![Just(0), 1..70_000u32],
        max_ack in 0..5_000u32,
        scale in 0..15u8,
        flags in 0..64u8,
    ) -> Seen {
        Seen {
            end: at.wrapping_add(end),
            max_end: at.wrapping_add(max_end),
            max_window,
            max_ack: at.wrapping_add(max_ack),
            scale,
            flags,
            verdict: 0,
        }
    }
}

const AT: u32 = u32::MAX - 3_000; // sequence numbers wrap in about half of the cases

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn plain_ack_is_packet_in_short(
        seen in (side(AT), side(AT)),
        state in prop_oneof![4 => Just(TcpState::Established), 1 => Just(TcpState::FinWait)],
        status in prop_oneof![4 => Just(status::SEEN_REPLY | status::ASSURED), 1 => 0..8u8],
        last in (any::<bool>(), 0..6u8, 0..5u8, 0..3u16),
        same: bool,
        dir: bool,
        bits in prop_oneof![4 => Just(flags::ACK), 1 => any::<u8>()],
        numbers in (0..6_000u32, 0..6_000u32, 0..1_500u32, 0..3u16),
        options in prop_oneof![
            2 => Just(vec![]),
            1 => Just(vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]),
            1 => Just(vec![1, 1, 5, 10, 0xff, 0xff, 0xff, 0, 0, 0, 0, 9]),
        ],
        liberal: bool,
    ) {
        let dir = if dir { Dir::Original } else { Dir::Reply };
        let config = Config { tcp_be_liberal: liberal, ..Config::default() };
        let segment = Segment {
            seq: AT.wrapping_add(numbers.0),
            ack: AT.wrapping_add(numbers.1),
            end: AT.wrapping_add(numbers.0).wrapping_add(numbers.2),
            window: numbers.3,
            flags: bits,
            options: &options,
        };
        let mut core = Core::new(true);
        core.seen = [seen.0, seen.1];
        core.tcp_state = state;
        core.status |= status;
        let mut memory = no_segment();
        (memory.dir, memory.class) = (u8::from(last.0), last.1);
        (memory.retransmits, memory.window) = (last.2, last.3);
        if same {
            (memory.seq, memory.ack, memory.end) = (segment.seq, segment.ack, segment.end);
        }
        let (mut short_core, mut short_memory) = (core, memory);
        let before = format!("{short_core:?} {short_memory:?}");
        let short = plain_ack(&mut short_core, &mut short_memory, dir, &segment, &config);
        let after = format!("{short_core:?} {short_memory:?}");
        match short {
            None => prop_assert_eq!(before, after, "nothing is touched"),
            Some(span) => {
                let now = Ticks(7);
                let long = packet(&mut core, &mut memory, dir, &segment, now, &config);
                prop_assert_eq!(long, Outcome::Refresh(span));
                prop_assert_eq!(format!("{core:?} {memory:?}"), after);
            }
        }
    }
}
