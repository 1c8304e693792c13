//! The TCP options that tracking reads: window scale and SACK-permitted of the handshake
//! (RFC 7323, RFC 2018), SACK blocks after it.

use super::window::after;
use crate::conntrack::entry::{Seen, seen_flags};
use crate::wire::tcp::option;

/// The largest shift that RFC 7323 2.3 allows.
const MAX_SCALE: u8 = 14;

/// The options of a segment, as kind and body. Ends at the first that is malformed.
fn each(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        loop {
            match *bytes {
                [] | [option::END, ..] => return None,
                [option::NOP, ref rest @ ..] => bytes = rest,
                [kind, len, ..] if len >= 2 && usize::from(len) <= bytes.len() => {
                    let (this, rest) = bytes.split_at(usize::from(len));
                    bytes = rest;
                    return Some((kind, &this[2..]));
                }
                _ => return None,
            }
        }
    })
}

/// Takes scale and flags of `seen` from the options of a SYN or SYN/ACK; liberality stays, and a
/// segment without options changes nothing.
pub fn read_handshake(bytes: &[u8], seen: &mut Seen) {
    if bytes.is_empty() {
        return;
    }
    seen.scale = 0;
    seen.flags &= seen_flags::LIBERAL;
    for (kind, body) in each(bytes) {
        match (kind, body) {
            (option::SACK_PERMITTED, []) => seen.flags |= seen_flags::SACK_PERMITTED,
            (option::WINDOW_SCALE, [shift]) => {
                seen.scale = (*shift).min(MAX_SCALE);
                seen.flags |= seen_flags::WINDOW_SCALE;
            }
            _ => {}
        }
    }
}

/// Whether a segment obviously carries no SACK block: it has no options, or timestamps in the usual
/// arrangement (RFC 7323 appendix A).
#[inline(always)]
pub fn no_sack(bytes: &[u8]) -> bool {
    match bytes {
        [] => true,
        [option::NOP, option::NOP, option::TIMESTAMP, 10, ..] => bytes.len() == 12,
        _ => false,
    }
}

/// The highest right edge of any SACK block, or `ack` if that is higher.
#[inline]
pub fn highest_sack(bytes: &[u8], ack: u32) -> u32 {
    if bytes.is_empty() {
        return ack;
    }
    let mut highest = ack;
    for (kind, body) in each(bytes) {
        let (blocks, rest) = body.as_chunks::<8>();
        if kind != option::SACK || !rest.is_empty() || blocks.is_empty() {
            continue;
        }
        for [.., a, b, c, d] in blocks {
            let edge = u32::from_be_bytes([*a, *b, *c, *d]);
            if after(edge, highest) {
                highest = edge;
            }
        }
        break;
    }
    highest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes that often are options, whole or not.
    fn option_bytes() -> impl Strategy<Value = Vec<u8>> {
        let kind = prop::sample::select(vec![0u8, 1, 2, 3, 4, 5, 8, 30, 255]);
        let option = (kind, 0u8..40, prop::collection::vec(any::<u8>(), 0..36)).prop_map(
            |(kind, len, mut body)| {
                // The length that it says is its own more often than not.
                let len = if len < 8 { len } else { body.len() as u8 + 2 };
                body.splice(0..0, [kind, len]);
                body
            },
        );
        let options = prop::collection::vec(option, 0..6).prop_map(|options| options.concat());
        prop_oneof![options, prop::collection::vec(any::<u8>(), 0..300)]
    }

    proptest! {
        /// No bytes panic or loop; each option is inside the bytes, behind the one before it, as
        /// long as it says.
        #[test]
        fn any_bytes_end(bytes in option_bytes(), ack: u32) {
            let mut at = 0;
            for (kind, body) in each(&bytes) {
                while bytes[at] == option::NOP {
                    at += 1;
                }
                prop_assert!(kind != option::END && kind != option::NOP);
                prop_assert_eq!(&bytes[at..at + 2], &[kind, body.len() as u8 + 2]);
                prop_assert_eq!(&bytes[at + 2..at + 2 + body.len()], body);
                at += 2 + body.len();
            }
            let mut seen = Seen { flags: 0xff, scale: 77, ..Seen::default() };
            read_handshake(&bytes, &mut seen);
            prop_assert!(bytes.is_empty() || seen.scale <= MAX_SCALE);
            let of_options = seen_flags::WINDOW_SCALE | seen_flags::SACK_PERMITTED;
            prop_assert!(bytes.is_empty() || seen.flags & !of_options == seen_flags::LIBERAL);
            let highest = highest_sack(&bytes, ack);
            let edge = highest.to_be_bytes();
            prop_assert!(highest == ack || bytes.windows(4).any(|bytes| bytes == edge));
        }

        /// Options that are cut short are those that are whole.
        #[test]
        fn truncation_hides_only_the_end(bytes in option_bytes(), cut in 0usize..300) {
            let short: Vec<_> = each(&bytes[..cut.min(bytes.len())]).collect();
            let whole: Vec<_> = each(&bytes).take(short.len()).collect();
            prop_assert_eq!(short, whole);
        }
    }

    #[test]
    fn every_truncation_of_a_handshake() {
        let linux = [
            2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7,
        ];
        for len in 1..=linux.len() {
            let mut seen = Seen::default();
            read_handshake(&linux[..len], &mut seen);
            let sack = u8::from(len >= 6) * seen_flags::SACK_PERMITTED;
            let scale = u8::from(len == 20) * seen_flags::WINDOW_SCALE;
            assert_eq!(seen.flags, sack | scale, "{len} bytes");
            assert_eq!(seen.scale, if len == 20 { 7 } else { 0 });
        }
    }

    /// A length that does not cover kind and length ends the list, wherever it stands.
    #[test]
    fn lengths_of_0_and_1_end_the_list() {
        for len in [0, 1] {
            for kind in 2..=255 {
                let bytes = [4, 2, 1, kind, len, 3, 3, 7];
                assert_eq!(each(&bytes).count(), 1, "kind {kind}, length {len}");
            }
        }
    }

    #[test]
    fn reads_a_handshake() {
        let mut seen = Seen {
            flags: seen_flags::LIBERAL,
            ..Seen::default()
        };
        let linux = [
            2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7,
        ];
        read_handshake(&linux, &mut seen);
        assert_eq!(seen.scale, 7);
        let want = seen_flags::LIBERAL | seen_flags::SACK_PERMITTED | seen_flags::WINDOW_SCALE;
        assert_eq!(seen.flags, want);
        read_handshake(&[3, 3, 200], &mut seen);
        assert_eq!(
            (seen.scale, seen.flags),
            (14, seen_flags::LIBERAL | seen_flags::WINDOW_SCALE)
        );
    }

    #[test]
    fn malformed_options_end_the_list() {
        for bytes in [
            &[3, 0, 4, 2][..],
            &[3, 1, 4, 2],
            &[3, 9, 4, 2],
            &[3],
            &[0, 4, 2],
        ] {
            let mut seen = Seen::default();
            read_handshake(bytes, &mut seen);
            assert_eq!(seen.flags, 0, "{bytes:?}");
        }
    }

    #[test]
    fn the_highest_sack_edge_counts() {
        let two = [
            1, 1, 5, 18, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 20, 0, 0, 0, 30,
        ];
        assert_eq!(highest_sack(&two, 5), 30);
        assert_eq!(highest_sack(&two, 31), 31);
        assert_eq!(
            highest_sack(&[5, 10, 0, 0, 0, 1, 0, 0, 0, 9], u32::MAX - 5),
            9,
            "wraps"
        );
        assert_eq!(
            highest_sack(&[5, 9, 0, 0, 0, 1, 0, 0, 9], 1),
            1,
            "no whole block"
        );
        assert_eq!(highest_sack(&[], 1), 1);
    }
}
