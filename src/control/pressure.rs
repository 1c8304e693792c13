//! Says in the log that the flow table is full, and what to do: how many flows were refused or had
//! to go early since it was last said, at most one line in [`EVERY`].
//!
//! Concurrency: belongs to the control thread, which looks once a second.

use super::appliance::Appliance;
use crate::base::time::Now;
use std::fmt;
use std::time::Duration;

/// Time between two lines, at least.
pub(super) const EVERY: Duration = Duration::from_secs(10);

/// What was said last.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    said: Option<Now>,
    refused: u64,
    early: u64,
}

/// What is to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full {
    /// Packets of new flows that were dropped.
    refused: u64,
    /// Flows that had to go before their time.
    early: u64,
    limit: u32,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the flow table is full: {} packets of new flows dropped and {} flows ended early since \
             this was last said; the limit is {} flows: raise conntrack.max in the policy and restart",
            self.refused, self.early, self.limit
        )
    }
}

impl Pressure {
    /// Looks at the appliance at `now`, and writes a line if it is time for one.
    pub(super) fn look(&mut self, appliance: &Appliance, now: Now) {
        let refused = appliance.sum(|worker| &worker.path.ct.drop);
        let early = appliance.sum(|worker| &worker.path.ct.early_drop);
        if let Some(full) = self.judge(now, refused, early, appliance.limit()) {
            tracing::warn!(
                refused = full.refused,
                early_drop = full.early,
                limit = full.limit,
                "{full}"
            );
        }
    }

    /// What is to be said at `now`, by when that many were `refused` and ended `early` in all.
    fn judge(&mut self, now: Now, refused: u64, early: u64, limit: u32) -> Option<Full> {
        let every = EVERY.as_nanos() as u64;
        let waits = self
            .said
            .is_some_and(|said| now.nanos().saturating_sub(said.nanos()) < every);
        if waits || (refused, early) == (self.refused, self.early) {
            return None;
        }
        let full = Full {
            refused: refused - self.refused,
            early: early - self.early,
            limit,
        };
        *self = Self {
            said: Some(now),
            refused,
            early,
        };
        Some(full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_one_line_in_ten_seconds_and_every_flow_is_told() {
        let mut pressure = Pressure::default();
        let mut at = |secs, refused, early| {
            let full = pressure.judge(Now::from_secs(secs), refused, early, 500);
            full.map(|full| (full.refused, full.early))
        };
        assert_eq!(at(1, 0, 0), None);
        assert_eq!(at(2, 3, 0), Some((3, 0)), "at once");
        assert_eq!(at(3, 50, 7), None);
        assert_eq!(at(11, 60, 8), None);
        assert_eq!(at(12, 60, 8), Some((57, 8)), "what came since");
        assert_eq!(at(40, 60, 8), None, "nothing new");
        assert_eq!(at(41, 60, 9), Some((0, 1)), "at once again");
        assert_eq!(at(42, 61, 9), None);
    }

    #[test]
    fn the_line_says_what_to_do() {
        let full = Pressure::default()
            .judge(Now::from_secs(1), 12, 3, 500)
            .unwrap();
        let text = full.to_string();
        for part in [
            "12 packets of new flows dropped",
            "3 flows ended early",
            "limit is 500",
            "conntrack.max",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
