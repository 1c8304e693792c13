//! The keyed hash of flow keys: two rounds of a folded 64x64 multiplication over secrets drawn at
//! start (the mixing step that the wyhash family uses). Not cryptographic; without the secrets
//! nobody can aim packets at one bucket. It is never shared with what a NIC computes, so that
//! what RSS reveals says nothing about buckets.

/// The secrets of one table.
#[derive(Clone, Copy, Debug)]
pub struct HashKey([u64; 4]);

#[inline(always)]
const fn fold(a: u64, b: u64) -> u64 {
    let product = (a as u128).wrapping_mul(b as u128);
    (product as u64) ^ ((product >> 64) as u64)
}

impl HashKey {
    /// A key that follows from `seed`: for tests, benches and replay, where runs must repeat.
    pub const fn from_seed(seed: u64) -> Self {
        let mut words = [0; 4];
        let mut state = seed;
        let mut i = 0;
        while i < 4 {
            // splitmix64 (Steele, Lea, Flood 2014); odd words keep the multiplication a bijection
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            words[i] = (z ^ (z >> 31)) | 1;
            i += 1;
        }
        Self(words)
    }

    /// A key drawn from the operating system's randomness (through the standard library's hasher
    /// keys), new at every start.
    pub fn random() -> Self {
        use std::hash::{BuildHasher, RandomState};
        let state = RandomState::new();
        let mut key = Self::from_seed(state.hash_one(0u64));
        for (i, word) in key.0.iter_mut().enumerate() {
            *word ^= state.hash_one(i as u64 + 1) & !1;
        }
        key
    }

    /// Hash of two words.
    #[inline(always)]
    pub const fn hash2(&self, a: u64, b: u64) -> u64 {
        let x = fold(a ^ self.0[0], b ^ self.0[1]);
        fold(x ^ self.0[2], self.0[3])
    }

    /// Hash of five words (an IPv6 key).
    #[inline(always)]
    pub const fn hash5(&self, w: [u64; 5]) -> u64 {
        let x = fold(w[0] ^ self.0[0], w[1] ^ self.0[1]);
        let y = fold(w[2] ^ self.0[2], w[3] ^ self.0[3]);
        fold(x ^ w[4] ^ self.0[1], y ^ self.0[3])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_and_high_bits_spread() {
        let key = HashKey::from_seed(1);
        let mut low = [0u32; 256];
        let mut high = [0u32; 256];
        for i in 0..65_536u64 {
            let h = key.hash2(0x0a00_0001_0a00_0002, i << 16 | 6);
            low[(h & 255) as usize] += 1;
            high[(h >> 56) as usize] += 1;
        }
        for count in low.iter().chain(&high) {
            assert!((160..=360).contains(count), "256 expected, {count} found");
        }
    }

    #[test]
    fn another_key_gives_another_hash() {
        let (a, b) = (HashKey::from_seed(1), HashKey::from_seed(2));
        assert_ne!(a.hash2(1, 2), b.hash2(1, 2));
        assert_ne!(a.hash5([1, 2, 3, 4, 5]), b.hash5([1, 2, 3, 4, 5]));
        assert_ne!(HashKey::random().hash2(1, 2), HashKey::random().hash2(1, 2));
    }
}
