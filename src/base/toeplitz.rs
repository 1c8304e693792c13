//! The Toeplitz hash by which NICs spread packets over their queues (Microsoft, "RSS Hashing
//! Functions"; Krawczyk, CRYPTO '94), with a key that makes it the same for both directions of a flow.
//!
//! The hash is the exclusive or, over the bits of its input that are set, of the 32 bits of the key that
//! begin at that bit's place. With a key that repeats itself every 16 bits (Woo and Park, "Scalable TCP
//! session monitoring with symmetric receive-side scaling", 2012) a bit counts by its place in its word
//! of 16 bits only: words may change places, so that sources and destinations may; all words can be put
//! together by exclusive or before anything is looked up; and both halves of the hash are equal.
//!
//! What that costs: 16 bits are left of a flow, and the hash is linear in them. Who sends packets can
//! choose addresses and ports that fall together, without knowing the key: they choose one worker. They
//! do not choose a place in a flow table: that is [`super::hash`]'s, under a key of its own.

use super::hash::HashKey;

/// What every 16 bits of the key are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SymmetricKey(u16);

impl SymmetricKey {
    /// A key of `bits`, one of which is turned over where they are even in number: with an odd number
    /// two words that differ have hashes that differ (the circulant matrix of the key has an inverse
    /// over GF(2), because x^16 + 1 = (x + 1)^16).
    pub const fn new(bits: u16) -> Self {
        Self(bits ^ (bits.count_ones() as u16 & 1 ^ 1))
    }

    /// A key drawn from the operating system's randomness.
    pub fn random() -> Self {
        Self::new(HashKey::random().hash2(1, 2) as u16)
    }

    /// The key as a NIC takes it; 40 bytes for most, 52 for some.
    pub const fn bytes<const N: usize>(self) -> [u8; N] {
        let pair = self.0.to_be_bytes();
        let mut key = [0; N];
        let mut at = 0;
        while at < N {
            key[at] = pair[at % 2];
            at += 1;
        }
        key
    }
}

/// The hash under one key, by tables of the two bytes of a word.
#[derive(Clone, Debug)]
pub struct Toeplitz {
    high: [u16; 256],
    low: [u16; 256],
}

impl Toeplitz {
    /// The tables of `key`.
    pub const fn new(key: SymmetricKey) -> Self {
        const fn of(key: u16, word: u16) -> u16 {
            let (mut hash, mut bit) = (0, 0);
            while bit < 16 {
                if word & 0x8000 >> bit != 0 {
                    hash ^= key.rotate_left(bit);
                }
                bit += 1;
            }
            hash
        }
        let (mut high, mut low) = ([0; 256], [0; 256]);
        let mut byte = 0;
        while byte < 256 {
            high[byte] = of(key.0, (byte as u16) << 8);
            low[byte] = of(key.0, byte as u16);
            byte += 1;
        }
        Self { high, low }
    }

    /// Either half of the hash of an input whose words of 16 bits, put together by exclusive or, are
    /// `word`.
    #[inline(always)]
    pub const fn half(&self, word: u16) -> u16 {
        self.high[(word >> 8) as usize] ^ self.low[(word & 0xff) as usize]
    }

    /// The hash, as a NIC tells it.
    pub const fn hash(&self, word: u16) -> u32 {
        let half = self.half(word) as u32;
        half << 16 | half
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{IpAddr, SocketAddr};

    /// The hash as its definition has it, of any input under any key.
    fn plain(key: &[u8], input: &[u8]) -> u32 {
        let bit = |bytes: &[u8], at: usize| bytes[at / 8] >> (7 - at % 8) & 1 != 0;
        let window = |at: usize| (at..at + 32).fold(0, |w, at| w << 1 | u32::from(bit(key, at)));
        let set = (0..input.len() * 8).filter(|at| bit(input, *at));
        set.fold(0, |hash, at| hash ^ window(at))
    }

    /// What a NIC reads of a packet: addresses, and ports if it is asked for them.
    fn input(src: SocketAddr, dst: SocketAddr, ports: bool) -> Vec<u8> {
        let bytes = |addr: IpAddr| match addr {
            IpAddr::V4(addr) => addr.octets().to_vec(),
            IpAddr::V6(addr) => addr.octets().to_vec(),
        };
        let mut input = [bytes(src.ip()), bytes(dst.ip())].concat();
        if ports {
            input.extend(src.port().to_be_bytes());
            input.extend(dst.port().to_be_bytes());
        }
        input
    }

    fn folded(input: &[u8]) -> u16 {
        let words = input.chunks(2).map(|w| u16::from_be_bytes([w[0], w[1]]));
        words.fold(0, |folded, word| folded ^ word)
    }

    /// The key of Microsoft's "Verifying the RSS Hash Calculation".
    const VERIFICATION: [u8; 40] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f,
        0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
        0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];

    /// Its table: destination, source, the hash of the addresses, the hash of addresses and ports.
    const VECTORS: [(&str, &str, u32, u32); 8] = [
        (
            "161.142.100.80:1766",
            "66.9.149.187:2794",
            0x323e_8fc2,
            0x51cc_c178,
        ),
        (
            "65.69.140.83:4739",
            "199.92.111.2:14230",
            0xd718_262a,
            0xc626_b0ea,
        ),
        (
            "12.22.207.184:38024",
            "24.19.198.95:12898",
            0xd2d0_a5de,
            0x5c2b_394a,
        ),
        (
            "209.142.163.6:2217",
            "38.27.205.30:48228",
            0x8298_9176,
            0xafc7_327f,
        ),
        (
            "202.188.127.2:1303",
            "153.39.163.191:44251",
            0x5d18_09c5,
            0x10e8_28a2,
        ),
        (
            "[3ffe:2501:200:3::1]:1766",
            "[3ffe:2501:200:1fff::7]:2794",
            0x2cc1_8cd5,
            0x4020_7d3d,
        ),
        (
            "[ff02::1]:4739",
            "[3ffe:501:8::260:97ff:fe40:efab]:14230",
            0x0f0c_461c,
            0xdde5_1bbf,
        ),
        (
            "[fe80::200:f8ff:fe21:67cf]:38024",
            "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251",
            0x4b61_e985,
            0x02d1_feef,
        ),
    ];

    #[test]
    fn the_definition_gives_what_nics_are_verified_with() {
        for (dst, src, addrs, all) in VECTORS {
            let (dst, src) = (dst.parse().unwrap(), src.parse().unwrap());
            assert_eq!(
                plain(&VERIFICATION, &input(src, dst, false)),
                addrs,
                "{src}"
            );
            assert_eq!(plain(&VERIFICATION, &input(src, dst, true)), all, "{src}");
        }
    }

    #[test]
    fn the_tables_agree_with_the_definition_on_those() {
        let key = SymmetricKey::new(0x6d5a);
        let toeplitz = Toeplitz::new(key);
        for (dst, src, ..) in VECTORS {
            let (dst, src) = (dst.parse().unwrap(), src.parse().unwrap());
            for ports in [false, true] {
                let input = input(src, dst, ports);
                let hash = toeplitz.hash(folded(&input));
                assert_eq!(hash, plain(&key.bytes::<40>(), &input));
                assert_eq!(hash, plain(&key.bytes::<52>(), &input));
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_folded_first_hashes_alike(
            bits: u16,
            src: IpAddr,
            dst: u128,
            sport: u16,
            dport: u16,
            ports: bool,
        ) {
            let dst: IpAddr = match src {
                IpAddr::V4(_) => std::net::Ipv4Addr::from_bits(dst as u32).into(),
                IpAddr::V6(_) => std::net::Ipv6Addr::from_bits(dst).into(),
            };
            let (src, dst) = (SocketAddr::new(src, sport), SocketAddr::new(dst, dport));
            let key = SymmetricKey::new(bits);
            let (there, back) = (input(src, dst, ports), input(dst, src, ports));
            let hash = plain(&key.bytes::<40>(), &there);
            prop_assert_eq!(hash, plain(&key.bytes::<40>(), &back));
            prop_assert_eq!(hash, Toeplitz::new(key).hash(folded(&there)));
        }

        #[test]
        fn no_two_words_share_a_hash(bits: u16) {
            let toeplitz = Toeplitz::new(SymmetricKey::new(bits));
            let mut seen = vec![false; 1 << 16];
            for word in 0..=u16::MAX {
                let half = usize::from(toeplitz.half(word));
                prop_assert!(!std::mem::replace(&mut seen[half], true));
            }
        }
    }

    #[test]
    fn keys_are_drawn_anew() {
        let keys: Vec<_> = (0..16).map(|_| SymmetricKey::random()).collect();
        assert!(keys.iter().any(|key| *key != keys[0]), "{keys:?}");
        assert_eq!(
            SymmetricKey::new(0x6d5a).bytes::<5>(),
            [0x6d, 0x5a, 0x6d, 0x5a, 0x6d]
        );
    }
}
