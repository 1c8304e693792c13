//! What rules that ask for interfaces and states only leave for those behind them: for each port
//! that packets come in by, the states of which some still come.
//!
//! Life-cycle: for one list of rules. Concurrency: none.

use super::region::{ALL_STATES, Region};
use super::shadow::Ordered;
use crate::conntrack::types::CtState;
use crate::policy::MAX_PORTS;
use crate::policy::model::{Action, ChainPolicy, Matches, Rule};

const STATES: usize = CtState::ALL.len();
const NEW: u8 = CtState::New.bit();

/// Who takes the packets of each port and state.
pub(super) struct Left {
    takers: [[Option<usize>; STATES]; MAX_PORTS],
    /// Ports that packets come in by.
    every: u64,
    /// Rules that drop or reject, and find nothing new any more because of another.
    late: Vec<Late>,
}

/// A rule that comes too late for new flows.
struct Late {
    rule: usize,
    /// The last of those that accept what it asks for.
    because: usize,
}

impl Left {
    pub(super) fn new(every: u64) -> Self {
        Self {
            takers: [[None; STATES]; MAX_PORTS],
            every,
            late: Vec::new(),
        }
    }

    /// The rules that take everything of `region` together; none if something is left.
    pub(super) fn takers(&self, region: &Region<'_>) -> Vec<usize> {
        self.of(region.iif, region.states).unwrap_or_default()
    }

    /// Who takes the packets of these ports and states, ascending; `None` if some are left.
    fn of(&self, iif: u64, states: u8) -> Option<Vec<usize>> {
        let mut all = Vec::new();
        for takers in ports(iif).map(|port| &self.takers[port]) {
            for (taker, state) in takers.iter().zip(CtState::ALL) {
                if states & state.bit() != 0 {
                    all.push((*taker)?);
                }
            }
        }
        all.sort_unstable();
        all.dedup();
        Some(all)
    }

    /// Lets packets go by the rule at `at`.
    pub(super) fn pass(&mut self, list: &Ordered<'_>, at: usize) {
        let (rule, region) = (list.rules[at], &list.regions[at]);
        if drops(rule) && region.states & NEW != 0 {
            let because = self.accepting(list, region.iif);
            self.late
                .extend(because.map(|because| Late { rule: at, because }));
        }
        let wide = Matches {
            iif: None,
            oif: None,
            ct: None,
            ..rule.matches.clone()
        };
        if !list.takes[at] || !wide.is_empty() {
            return;
        }
        for port in ports(region.iif) {
            for (taker, state) in self.takers[port].iter_mut().zip(CtState::ALL) {
                if region.states & state.bit() != 0 {
                    taker.get_or_insert(at);
                }
            }
        }
    }

    /// The last of the rules that let everything new begin that comes in by these ports.
    fn accepting(&self, list: &Ordered<'_>, iif: u64) -> Option<usize> {
        let takers = self.of(iif, NEW)?;
        let accepts = |at: &usize| list.rules[*at].action == Action::Accept;
        takers
            .last()
            .copied()
            .filter(|_| takers.iter().all(accepts))
    }

    /// Rules that accept everything new, with what decides about nothing new because of them.
    pub(super) fn too_wide(
        &self,
        list: &Ordered<'_>,
        policy: Option<ChainPolicy>,
    ) -> Vec<(usize, String)> {
        let dropping = policy == Some(ChainPolicy::Drop);
        let policy = dropping.then(|| self.accepting(list, self.every)).flatten();
        let mut because: Vec<_> = self.late.iter().map(|late| late.because).collect();
        because.extend(policy);
        because.sort_unstable();
        because.dedup();
        let say = |at: usize| {
            let mut decide = Vec::new();
            let mut late = self.late.iter().filter(|late| late.because == at);
            let first = late.next().map(|late| list.rules[late.rule]);
            if let Some(first) = first {
                let (name, line) = (&first.name, first.line);
                decide.push(match late.count() {
                    0 => format!("rule `{name}` in line {line}"),
                    more => format!("rule `{name}` in line {line}, {more} more like it"),
                });
            }
            if policy == Some(at) {
                decide.push("the policy `drop`".to_owned());
            }
            let all = self.of(self.every, ALL_STATES).is_some() && policy == Some(at);
            let nothing = if all { "nothing" } else { "nothing new" };
            let verb = if decide.len() > 1 || first.is_some_and(|_| decide[0].contains(" more ")) {
                "decide"
            } else {
                "decides"
            };
            let decide = decide.join(" and ");
            (
                at,
                format!(
                    "accepts everything new that comes this far: {decide} behind it {verb} about {nothing}"
                ),
            )
        };
        because.into_iter().map(say).collect()
    }
}

fn ports(mask: u64) -> impl Iterator<Item = usize> {
    (0..MAX_PORTS).filter(move |port| mask >> port & 1 == 1)
}

fn drops(rule: &Rule) -> bool {
    matches!(rule.action, Action::Drop | Action::Reject(_))
}
