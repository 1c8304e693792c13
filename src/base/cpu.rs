//! Two instructions that Rust has no safe word for: the prefetch, and comparing eight 16-bit
//! lanes at once. Measured: the comparison saves half of a bucket's tag search, the prefetches
//! are what makes a burst faster than its packets.
#![allow(unsafe_code)]

/// Asks for the cache line that holds the start of `item`. A hint: nothing is read or written as
/// far as the program can tell.
#[inline(always)]
pub fn prefetch<T>(item: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: prefetching has no architectural effect, and the address is a live reference's.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(item).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = item;
}

/// The lanes of `lanes` that equal `wanted`, as bits.
#[inline(always)]
pub fn equal_lanes(lanes: [u16; 8], wanted: u16) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{
            __m128i, _mm_cmpeq_epi16, _mm_movemask_epi8, _mm_packs_epi16, _mm_set1_epi16,
            _mm_setzero_si128,
        };
        let lanes: __m128i = zerocopy::transmute!(lanes);
        // SAFETY: SSE2 is part of x86-64, and the intrinsics touch nothing but registers.
        #[allow(clippy::multiple_unsafe_ops_per_block)]
        let bits = unsafe {
            let equal = _mm_cmpeq_epi16(lanes, _mm_set1_epi16(wanted.cast_signed()));
            _mm_movemask_epi8(_mm_packs_epi16(equal, _mm_setzero_si128()))
        };
        bits.cast_unsigned()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let each = lanes.iter().enumerate();
        each.fold(0, |bits, (lane, value)| {
            bits | u32::from(*value == wanted) << lane
        })
    }
}

#[cfg(test)]
mod tests {
    use super::equal_lanes;

    #[test]
    fn each_lane_has_its_bit() {
        for lane in 0..8 {
            let mut lanes = [7; 8];
            lanes[lane] = 0xffff;
            assert_eq!(equal_lanes(lanes, 0xffff), 1 << lane);
            assert_eq!(equal_lanes(lanes, 7), 0xff & !(1 << lane));
        }
        assert_eq!(equal_lanes([0; 8], 0), 0xff);
        assert_eq!(equal_lanes([0; 8], 0x8000), 0);
    }
}
