//! A histogram of times with one writer and any number of readers: a [`Counter`] for each bucket.
//!
//! Each bound is twice the one before, and one of them is 100 us, which no worker's loop should take.
//! Concurrency: that of the counters. A reader sees each at some recent value, so the sum may be of
//! a moment earlier or later than the counts.

use super::counter::Counter;

/// Buckets with a bound; one more has what is longer than the last.
pub const BOUNDS: usize = 16;
/// The first bound is a 128th of 100 us, 781.25 ns: so many nanoseconds over 4.
const FIRST: u64 = 100_000 * 4 / 128;

/// The histogram.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BOUNDS + 1],
    sum: Counter,
    longest: Counter,
}

impl Histogram {
    /// The bound of bucket `at` in nanoseconds; what is in the bucket is not longer.
    pub fn bound(at: usize) -> f64 {
        (FIRST << at) as f64 / 4.0
    }

    /// Counts a time of `nanos` nanoseconds. Only the owning thread may call this.
    #[inline]
    pub fn add(&self, nanos: u64) {
        let firsts = nanos.saturating_mul(4).saturating_sub(1) / FIRST;
        let at = (u64::BITS - firsts.leading_zeros()) as usize;
        self.buckets[at.min(BOUNDS)].add(1);
        self.sum.add(nanos);
        if nanos > self.longest.get() {
            self.longest.set(nanos);
        }
    }

    /// Nanoseconds of all times together, from any thread.
    pub fn sum(&self) -> u64 {
        self.sum.get()
    }

    /// What was counted so far, from any thread.
    pub fn get(&self) -> Times {
        Times {
            counts: std::array::from_fn(|at| self.buckets[at].get()),
            sum: self.sum.get(),
            longest: self.longest.get(),
        }
    }
}

/// What a [`Histogram`] counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// By bucket; the last is of what is longer than all bounds.
    pub counts: [u64; BOUNDS + 1],
    /// All times together in nanoseconds.
    pub sum: u64,
    /// The longest in nanoseconds.
    pub longest: u64,
}

impl Times {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How many were longer than 100 us.
    pub fn slow(&self) -> u64 {
        self.counts.iter().skip(8).sum()
    }

    /// Nanoseconds that `share` of them (0 to 1) did not exceed: a bucket's bound, or the longest.
    pub fn quantile(&self, share: f64) -> f64 {
        let wanted = (self.count() as f64 * share).ceil();
        let mut seen = 0;
        for (at, count) in self.counts.iter().take(BOUNDS).enumerate() {
            seen += count;
            if seen as f64 >= wanted {
                return Histogram::bound(at).min(self.longest as f64);
            }
        }
        self.longest as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_double_and_one_is_100_microseconds() {
        assert_eq!(Histogram::bound(0), 781.25);
        assert_eq!(Histogram::bound(7), 100_000.0);
        let histogram = Histogram::default();
        for nanos in [1, 100_000, 100_001, 1_000_000] {
            histogram.add(nanos);
        }
        assert_eq!(histogram.get().slow(), 2);
        assert_eq!(Histogram::bound(BOUNDS - 1), 25_600_000.0);
    }

    #[test]
    fn each_time_is_in_the_bucket_whose_bound_it_does_not_exceed() {
        let mut times = vec![0, 1, u64::MAX];
        for at in 0..BOUNDS {
            let bound = Histogram::bound(at) as u64;
            times.extend([bound, bound + 1]);
        }
        for nanos in times {
            let histogram = Histogram::default();
            histogram.add(nanos);
            let got = histogram.get();
            let fits = |at: &usize| nanos as f64 <= Histogram::bound(*at);
            let at = (0..BOUNDS).find(fits).unwrap_or(BOUNDS);
            let mut want = Times {
                sum: nanos,
                longest: nanos,
                ..Times::default()
            };
            want.counts[at] = 1;
            assert_eq!(got, want, "{nanos}");
        }
    }

    #[test]
    fn quantiles_are_bounds_and_never_more_than_the_longest() {
        assert_eq!(Times::default().quantile(0.99), 0.0);
        let histogram = Histogram::default();
        (0..99).for_each(|_| histogram.add(1000));
        assert_eq!(histogram.get().quantile(0.99), 1000.0);
        histogram.add(150_000);
        let times = histogram.get();
        assert_eq!((times.count(), times.sum), (100, 249_000));
        assert_eq!(times.quantile(0.99), 1562.5);
        assert_eq!(times.quantile(0.991), 150_000.0);
        histogram.add(u64::from(u32::MAX));
        assert_eq!(histogram.get().quantile(1.0), f64::from(u32::MAX));
    }
}
