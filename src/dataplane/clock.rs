//! The one clock of the packet path: CLOCK_MONOTONIC, which no step of the wall clock moves.

use crate::base::time::Now;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Reads the time; workers do it once a burst.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// A clock whose epoch is now. The first reading is one second, so that spans can be
    /// subtracted from it.
    #[allow(clippy::disallowed_methods)] // this is the one place
    pub fn start() -> Self {
        Self(Instant::now() - std::time::Duration::from_secs(1))
    }

    /// The time since the epoch.
    #[inline]
    pub fn now(&self) -> Now {
        Now::from_nanos(self.0.elapsed().as_nanos() as u64)
    }

    /// The epoch, in milliseconds since 1970: what makes a date of a reading. Taken when asked for,
    /// so that it follows the steps of the wall clock.
    pub fn epoch_ms(&self) -> u64 {
        self.epoch_nanos() / 1_000_000
    }

    /// The same in nanoseconds.
    pub fn epoch_nanos(&self) -> u64 {
        let unix = (unix_time() * 1e9) as u64;
        unix.saturating_sub(self.now().nanos())
    }
}

/// Seconds since 1970, for what people read.
#[allow(clippy::disallowed_methods)] // this is the one place
pub fn unix_time() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
