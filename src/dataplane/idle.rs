//! What a worker does while nothing comes: it polls on, lets others have the core, or sleeps.
//!
//! Sleeping is for boxes whose cores have other work, or whose owner pays for their power. A worker
//! that found nothing `PATIENCE` times in a row takes naps, short ones first; between two naps it
//! looks once, and the first frame that it finds wakes it for good. A frame that comes during a nap
//! waits for its end: that is the price, `LONG` and the time that the kernel takes to wake a thread;
//! a frame that is handed over may wait for a nap of either worker. A port must hold what comes
//! meanwhile, 1488 of the shortest frames in 100 us of 10 Gbit/s; a ring between workers holds 1024, and
//! what does not fit is a counted drop.
//!
//! Owned by one worker.

use std::num::NonZeroU64;
use std::time::Duration;

/// Loops in a row that must find nothing before the first nap: some 100 us, so that a gap between
/// two packets of a busy link is not slept through.
const PATIENCE: u32 = 1024;
/// A nap at first.
const SHORT: Duration = Duration::from_micros(50);
/// So many naps are short.
const SHORT_NAPS: u32 = 100;
/// A nap once nothing has come for 5 ms.
const LONG: Duration = Duration::from_micros(100);

/// What a worker does when a loop found nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    /// Polls on: it has a core of its own.
    Spin,
    /// Lets others have the core first: a box with fewer cores than workers and a control thread.
    Yield,
    /// Sleeps, for 50 to 100 us at a time, once nothing came for a while.
    Sleep,
}

/// One worker's idling.
#[derive(Debug)]
pub(super) struct Rest {
    idle: Idle,
    /// Loops in a row that found nothing.
    empty: u32,
}

impl Rest {
    /// For this thread.
    pub(super) fn new(idle: Idle) -> Self {
        if idle == Idle::Sleep {
            // Else the kernel may add 50 us to each nap, to wake several threads at once.
            let _ = rustix::thread::set_current_timer_slack(Some(NonZeroU64::MIN));
        }
        Self { idle, empty: 0 }
    }

    /// Rests after a loop that took `moved` frames, if that is called for; says whether it did.
    #[inline]
    pub(super) fn after(&mut self, moved: usize) -> bool {
        match self.idle {
            Idle::Spin => false,
            Idle::Yield if moved > 0 => false,
            Idle::Yield => {
                std::thread::yield_now();
                true
            }
            Idle::Sleep => {
                let nap = self.nap(moved);
                nap.inspect(|nap| std::thread::sleep(*nap)).is_some()
            }
        }
    }

    /// How long to sleep after a loop that took `moved` frames.
    fn nap(&mut self, moved: usize) -> Option<Duration> {
        if moved > 0 {
            self.empty = 0;
            return None;
        }
        self.empty = self.empty.saturating_add(1);
        match self.empty {
            ..PATIENCE => None,
            PATIENCE.. if self.empty < PATIENCE + SHORT_NAPS => Some(SHORT),
            _ => Some(LONG),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn naps_begin_after_a_while_grow_and_end_with_the_first_frame() {
        let mut rest = Rest::new(Idle::Sleep);
        for round in 0..2 {
            let naps: Vec<_> = (0..2000).map(|_| rest.nap(0)).collect();
            let (awake, rest_of) = naps.split_at(PATIENCE as usize - 1);
            assert!(awake.iter().all(Option::is_none), "{round}");
            let (short, long) = rest_of.split_at(SHORT_NAPS as usize);
            assert!(short.iter().all(|nap| *nap == Some(SHORT)), "{round}");
            assert!(long.iter().all(|nap| *nap == Some(LONG)), "{round}");
            assert_eq!(rest.nap(1), None, "{round}");
        }
        rest.empty = u32::MAX;
        assert_eq!(rest.nap(0), Some(LONG));
    }

    #[test]
    fn who_spins_never_rests_and_who_yields_does_when_nothing_came() {
        let mut rest = Rest::new(Idle::Spin);
        assert!((0..2 * PATIENCE).all(|_| !rest.after(0)));
        let mut rest = Rest::new(Idle::Yield);
        assert!(rest.after(0) && !rest.after(1));
    }
}
