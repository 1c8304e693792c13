//! Time is a value that is passed in: the worker reads its clock once a burst, `replay` takes it
//! from the capture, tests make it up. Nothing below `dataplane` asks a clock.
//!
//! [`Now`] is nanoseconds since an epoch of the caller's choosing. Flow entries keep [`Ticks`]:
//! milliseconds in a wrapping `u32`, so that a deadline costs four bytes; two ticks can be compared
//! while they are less than 24.8 days apart, and [`Span::MAX`] keeps every timeout below that.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Ticks in a second.
pub const TICKS_PER_SECOND: u32 = 1_000;
const TICK_NANOS: u64 = 1_000_000_000 / TICKS_PER_SECOND as u64;

/// A point in time, in nanoseconds since the caller's epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now(u64);

impl Now {
    /// `nanos` nanoseconds after the epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// `secs` whole seconds after the epoch.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs * 1_000_000_000)
    }

    /// Nanoseconds since the epoch.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// The tick that this point lies in.
    pub const fn ticks(self) -> Ticks {
        Ticks((self.0 / TICK_NANOS) as u32)
    }

    /// Which turn of the ticks that is, from 0 (49.7 days each; 34 years until the last one, where
    /// it stays).
    pub const fn turn(self) -> u8 {
        let turn = (self.0 / TICK_NANOS) >> 32;
        if turn < 254 { turn as u8 } else { 254 }
    }

    /// The point that began with `ticks` of turn `turn`.
    pub const fn of_turn(turn: u8, ticks: Ticks) -> Self {
        Self(((turn as u64) << 32 | ticks.0 as u64) * TICK_NANOS)
    }
}

/// The wall-clock time of the point that a [`Now`] counts from. Whoever has the wall clock keeps it
/// up to date; anybody may read it at any time.
#[derive(Debug, Default)]
pub struct Epoch(AtomicU64);

impl Epoch {
    /// It is `nanos` nanoseconds after 1970.
    pub fn set(&self, nanos: u64) {
        self.0.store(nanos, Relaxed);
    }

    /// Nanoseconds from 1970 to `now`.
    #[inline]
    pub fn unix_nanos(&self, now: Now) -> u64 {
        self.0.load(Relaxed).saturating_add(now.0)
    }
}

/// A point in time in milliseconds; wraps after 49.7 days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, zerocopy::FromZeros)]
#[repr(transparent)]
pub struct Ticks(pub u32);

impl Ticks {
    /// `true` if `self` is `other` or later.
    #[inline]
    pub const fn reached(self, other: Ticks) -> bool {
        (self.0.wrapping_sub(other.0) as i32) >= 0
    }

    /// How long from `self` to `later`; zero if `later` has passed.
    #[inline]
    pub const fn until(self, later: Ticks) -> Span {
        if self.reached(later) {
            Span(0)
        } else {
            Span(later.0.wrapping_sub(self.0))
        }
    }

    /// The point `span` after this one.
    #[inline]
    pub const fn plus(self, span: Span) -> Ticks {
        Ticks(self.0.wrapping_add(span.0))
    }
}

/// A length of time in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub u32);

impl Span {
    /// The longest timeout that can be set: 24 days.
    pub const MAX: Span = Span::secs(24 * 86_400);

    /// `secs` seconds; at most [`Span::MAX`] makes sense as a timeout.
    pub const fn secs(secs: u32) -> Span {
        Span(secs * TICKS_PER_SECOND)
    }

    /// Whole seconds, rounded down as conntrack(8) prints them.
    pub const fn as_secs(self) -> u32 {
        self.0 / TICKS_PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_compare_across_the_wrap() {
        let before = Ticks(u32::MAX - 10);
        let after = before.plus(Span(20));
        assert!(after.reached(before));
        assert!(!before.reached(after));
        assert_eq!(before.until(after), Span(20));
        assert_eq!(after.until(before), Span(0));
        assert!(before.reached(before));
    }

    #[test]
    fn the_longest_timeout_still_compares() {
        let now = Ticks(7);
        assert!(!now.reached(now.plus(Span::MAX)));
        assert_eq!(now.until(now.plus(Span::MAX)), Span::MAX);
    }

    #[test]
    fn a_turn_and_its_ticks_are_a_date() {
        for secs in [0, 3, 4_294_967, 4_294_968, 365 * 86_400, 34 * 365 * 86_400] {
            let now = Now::from_secs(secs);
            assert_eq!(Now::of_turn(now.turn(), now.ticks()), now);
        }
        assert_eq!(Now::from_secs(4_294_968).turn(), 1);
    }

    #[test]
    fn a_second_is_1000_ticks() {
        assert_eq!(Now::from_secs(3).ticks(), Ticks(3_000));
        assert_eq!(Now::from_nanos(999_999).ticks(), Ticks(0));
        assert_eq!(Span::secs(120).as_secs(), 120);
        assert_eq!(Span(Span::secs(120).0 - 1).as_secs(), 119);
    }
}
