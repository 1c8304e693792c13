//! The Internet checksum (RFC 1071) and its pseudo-headers (RFC 9293 3.1, RFC 8200 8.1).

use super::parsed::Addrs;

/// A running one's-complement sum; it may be fed slices of even length in any order, and one of
/// odd length last.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds `bytes`, padded with a zero to even length.
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        let (words, tail) = bytes.as_chunks::<4>();
        for word in words {
            self.0 += u64::from(u32::from_be_bytes(*word));
        }
        match *tail {
            [a] => self.0 += u64::from(a) << 8,
            [a, b] => self.0 += u64::from(u16::from_be_bytes([a, b])),
            [a, b, c] => {
                self.0 += u64::from(u16::from_be_bytes([a, b])) + (u64::from(c) << 8);
            }
            _ => {}
        }
        self
    }

    /// Adds the pseudo-header of a transport segment of `len` bytes.
    pub fn pseudo(mut self, addrs: &Addrs, proto: u8, len: u32) -> Self {
        match *addrs {
            Addrs::V4 { src, dst } => self.0 += u64::from(src) + u64::from(dst),
            Addrs::V6 { src, dst } => {
                self = self.bytes(&src.to_be_bytes()).bytes(&dst.to_be_bytes());
            }
        }
        self.0 += u64::from(proto) + u64::from(len);
        self
    }

    /// The checksum: the complement of the folded sum. Over data that includes a right checksum
    /// it is zero.
    pub fn finish(self) -> u16 {
        let mut sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        !(sum as u16)
    }
}

/// The checksum of `bytes`.
pub fn checksum(bytes: &[u8]) -> u16 {
    Sum::default().bytes(bytes).finish()
}

/// Whether a header of 20 bytes, the checksum among them, sums up: the IPv4 header without
/// options, in a few instructions. The sum does not depend on byte order (RFC 1071 2 (B)).
#[inline]
pub fn is_right_20(header: &[u8; 20]) -> bool {
    let (words, _) = header.as_chunks::<4>();
    let sum: u64 = words
        .iter()
        .map(|word| u64::from(u32::from_ne_bytes(*word)))
        .sum();
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) + (sum >> 16) == 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071() {
        // 0001 f203 f4f5 f6f7 sums to ddf2.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&bytes), !0xddf2);
    }

    #[test]
    fn equals_the_plain_sum_for_every_length() {
        let bytes: Vec<u8> = (0..80u32).map(|i| (i * 37 + 200) as u8).collect();
        for len in 0..bytes.len() {
            let mut plain = 0u32;
            for pair in bytes[..len].chunks(2) {
                plain += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            }
            while plain > 0xffff {
                plain = (plain & 0xffff) + (plain >> 16);
            }
            assert_eq!(checksum(&bytes[..len]), !(plain as u16), "{len} bytes");
        }
    }

    #[test]
    fn twenty_bytes_are_right_when_their_checksum_is_zero() {
        for seed in 0..2000u32 {
            let mut header = [0u8; 20];
            for (i, byte) in header.iter_mut().enumerate() {
                *byte = (seed.wrapping_mul(2_654_435_761) >> (i % 24)) as u8;
            }
            header[10..12].fill(0);
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            assert!(is_right_20(&header));
            header[seed as usize % 20] ^= 1 << (seed % 8);
            assert!(!is_right_20(&header));
        }
    }

    #[test]
    fn all_ones_fold() {
        assert_eq!(checksum(&[0xff; 4096]), 0);
    }
}
