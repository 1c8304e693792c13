//! Says in the log that a table is full, and what to do: the flow table, or that of expectations; how
//! much was refused or had to go early since it was last said, at most one line in [`EVERY`] for each.
//!
//! Concurrency: belongs to the control thread, which looks once a second.

use super::appliance::Appliance;
use crate::base::time::Now;
use crate::conntrack::helper::Refusal;
use std::fmt;
use std::time::Duration;

/// Time between two lines, at least.
pub(super) const EVERY: Duration = Duration::from_secs(10);

/// What was said last of each table.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    flows: Said<2>,
    expectations: Said<1>,
}

/// When something was said last, and the counts then.
#[derive(Debug)]
struct Said<const N: usize> {
    at: Option<Now>,
    counts: [u64; N],
}

impl<const N: usize> Default for Said<N> {
    fn default() -> Self {
        Self {
            at: None,
            counts: [0; N],
        }
    }
}

impl<const N: usize> Said<N> {
    /// What `counts` have grown by since it was last said, if it is to be said at `now`.
    fn judge(&mut self, now: Now, counts: [u64; N]) -> Option<[u64; N]> {
        let every = EVERY.as_nanos() as u64;
        let waits = self
            .at
            .is_some_and(|at| now.nanos().saturating_sub(at.nanos()) < every);
        if waits || counts == self.counts {
            return None;
        }
        let before = std::mem::replace(&mut self.counts, counts);
        self.at = Some(now);
        Some(std::array::from_fn(|at| counts[at] - before[at]))
    }
}

/// What is to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    Flows {
        /// Packets of new flows that were dropped.
        refused: u64,
        /// Flows that had to go before their time.
        early: u64,
        limit: u32,
    },
    Expectations {
        /// Packets of control flows that were dropped.
        refused: u64,
        limit: u32,
    },
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flows {
                refused,
                early,
                limit,
            } => write!(
                f,
                "the flow table is full: {refused} packets of new flows dropped and {early} flows \
                 ended early since this was last said; the limit is {limit} flows: raise \
                 conntrack.max in the policy and restart"
            ),
            Self::Expectations { refused, limit } => write!(
                f,
                "the table of expectations is full: {refused} packets that announce a flow dropped \
                 since this was last said; the limit is {limit} expectations: raise \
                 conntrack.expect_max in the policy and restart, or see with `shardwall expect -L` \
                 who expects so much"
            ),
        }
    }
}

impl Pressure {
    /// Looks at the appliance at `now`, and writes the lines that it is time for.
    pub(super) fn look(&mut self, appliance: &Appliance, now: Now) {
        let refused = appliance.sum(|worker| &worker.path.ct.drop);
        let early = appliance.sum(|worker| &worker.path.ct.early_drop);
        if let Some([refused, early]) = self.flows.judge(now, [refused, early]) {
            let limit = appliance.limit();
            let full = Full::Flows {
                refused,
                early,
                limit,
            };
            tracing::warn!(refused, early_drop = early, limit, "{full}");
        }
        let refused =
            appliance.sum_helpers(|helper| helper.refused[Refusal::TableFull as usize].get());
        if let Some([refused]) = self.expectations.judge(now, [refused]) {
            let limit = appliance.expect_limit();
            let full = Full::Expectations { refused, limit };
            tracing::warn!(refused, limit, "{full}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_one_line_in_ten_seconds_and_every_flow_is_told() {
        let mut said = Said::default();
        let mut at = |secs, refused, early| {
            let grown = said.judge(Now::from_secs(secs), [refused, early]);
            grown.map(|[refused, early]| (refused, early))
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
    fn the_lines_say_what_to_do() {
        let flows = Full::Flows {
            refused: 12,
            early: 3,
            limit: 500,
        };
        let expectations = Full::Expectations {
            refused: 7,
            limit: 64,
        };
        for (full, parts) in [
            (
                flows,
                [
                    "12 packets of new flows dropped",
                    "3 flows ended early",
                    "limit is 500",
                    "conntrack.max",
                ],
            ),
            (
                expectations,
                [
                    "7 packets that announce a flow dropped",
                    "limit is 64 expectations",
                    "conntrack.expect_max",
                    "shardwall expect -L",
                ],
            ),
        ] {
            let text = full.to_string();
            for part in parts {
                assert!(text.contains(part), "{text}");
            }
        }
    }
}
