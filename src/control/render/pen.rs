//! Words, numbers and addresses as bytes: what a listing of millions of flows is written with, without
//! the machinery of `fmt`.

use std::net::{IpAddr, Ipv6Addr};

/// Appends to a buffer.
#[derive(Debug)]
pub(super) struct Pen<'a>(pub(super) &'a mut Vec<u8>);

impl Pen<'_> {
    /// A word as it is.
    #[inline]
    pub(super) fn word(&mut self, word: &str) -> &mut Self {
        self.0.extend_from_slice(word.as_bytes());
        self
    }

    /// A word, filled up to `width` with blanks.
    pub(super) fn padded(&mut self, word: &str, width: usize) -> &mut Self {
        self.word(word);
        let blanks = width.saturating_sub(word.len());
        self.0.extend(std::iter::repeat_n(b' ', blanks));
        self
    }

    /// A decimal number.
    #[inline]
    pub(super) fn number(&mut self, number: impl Into<u64>) -> &mut Self {
        let mut rest = number.into();
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.0.extend_from_slice(&digits[at..]);
        self
    }

    /// A hexadecimal number in small letters.
    pub(super) fn hex(&mut self, number: u16) -> &mut Self {
        let digits = (u16::BITS - number.leading_zeros()).div_ceil(4).max(1);
        for at in (0..digits).rev() {
            let digit = (number >> (4 * at)) as u8 & 15;
            self.0.push(match digit {
                0..10 => b'0' + digit,
                _ => b'a' + digit - 10,
            });
        }
        self
    }

    /// An address as inet_ntop(3) writes it: as Rust does, but for `::a.b.c.d`.
    #[inline]
    pub(super) fn addr(&mut self, addr: IpAddr) -> &mut Self {
        match addr {
            IpAddr::V4(addr) => self.octets(addr.octets()),
            IpAddr::V6(addr) => self.groups(addr),
        }
    }

    fn octets(&mut self, [a, b, c, d]: [u8; 4]) -> &mut Self {
        let dot = |pen: &mut Self| pen.0.push(b'.');
        self.number(a);
        for octet in [b, c, d] {
            dot(self);
            self.number(octet);
        }
        self
    }

    fn groups(&mut self, addr: Ipv6Addr) -> &mut Self {
        let [.., a, b, c, d] = addr.octets();
        match addr.segments() {
            [0, 0, 0, 0, 0, 0, high, _] if high != 0 => {
                return self.word("::").octets([a, b, c, d]);
            }
            [0, 0, 0, 0, 0, 0xffff, ..] => return self.word("::ffff:").octets([a, b, c, d]),
            _ => {}
        }
        let groups = addr.segments();
        // RFC 5952 4.2: the longest run of zeros, two at least; the first of equals.
        let run = |from: usize| groups[from..].iter().take_while(|it| **it == 0).count();
        let (start, len) = (0..groups.len()).fold((0, 1), |best: (usize, usize), from| {
            let len = run(from);
            if len > best.1 { (from, len) } else { best }
        });
        let list = |pen: &mut Self, groups: &[u16]| {
            for (at, group) in groups.iter().enumerate() {
                if at > 0 {
                    pen.0.push(b':');
                }
                pen.hex(*group);
            }
        };
        if len < 2 {
            list(self, &groups);
        } else {
            list(self, &groups[..start]);
            self.word("::");
            list(self, &groups[start + len..]);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl Fn(&mut Pen<'_>)) -> String {
        let mut out = Vec::new();
        write(&mut Pen(&mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn addresses_are_inet_ntops() {
        for (addr, text) in [
            ("0.0.0.0", "0.0.0.0"),
            ("255.10.9.100", "255.10.9.100"),
            ("::", "::"),
            ("::1", "::1"),
            ("::ffff", "::ffff"),
            ("::1:0", "::0.1.0.0"),
            ("::10.1.2.3", "::10.1.2.3"),
            ("::ffff:10.1.2.3", "::ffff:10.1.2.3"),
            ("::ffff:0:0", "::ffff:0.0.0.0"),
            ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
            ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
            ("1:0:0:2::3", "1:0:0:2::3"),
            ("fe80::", "fe80::"),
        ] {
            let addr = addr.parse().unwrap();
            let write = |pen: &mut Pen<'_>| {
                pen.addr(addr);
            };
            assert_eq!(written(write), text);
        }
    }

    proptest! {
        #[test]
        fn the_rest_is_written_as_rust_writes_it(bits: u128, zeros: u8, number: u64, short: u16) {
            let groups = Ipv6Addr::from_bits(bits).segments();
            let some = std::array::from_fn(|at| if zeros >> at & 1 == 0 { groups[at] } else { 0 });
            let addr = Ipv6Addr::from(some);
            prop_assume!(some[..6] != [0; 6]);
            prop_assert_eq!(written(|pen| { pen.addr(addr.into()); }), addr.to_string());
            prop_assert_eq!(written(|pen| { pen.number(number); }), number.to_string());
            prop_assert_eq!(written(|pen| { pen.hex(short); }), format!("{short:x}"));
        }
    }
}
