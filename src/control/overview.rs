//! Everything that `top` shows, at one moment and in one answer: the counters that the other requests
//! give one by one, and the census of the flows.

use super::appliance::Appliance;
use super::census::Census;
use super::drops::DropRow;
use super::snapshot::{PortRow, RuleRow, Stats, WorkerRow};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Rules that are told of whether or not they have matched. A larger policy is mostly rules that have
/// not, and looks come every second.
pub const RULES: usize = 1000;

/// The appliance at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    /// When, in nanoseconds of the appliance's own clock.
    pub now_ns: u64,
    /// Totals.
    pub stats: Stats,
    /// Flows by class of protocol: `tcp`, `udp`, `other`.
    pub entries: BTreeMap<String, u64>,
    /// The ports, in the policy's order.
    pub ports: Vec<PortRow>,
    /// Drops by reason, all reasons.
    pub drops: Vec<DropRow>,
    /// The rules in force; if they are more than [`RULES`], those that have matched something.
    pub rules: Vec<RuleRow>,
    /// The workers.
    pub workers: Vec<WorkerRow>,
    /// Of each worker, its loops that did something by how long they took: the counts of a
    /// [`Histogram`](crate::base::histogram::Histogram).
    pub loops: Vec<Vec<u64>>,
    /// The flows as they were counted last, if that was wanted and is done.
    pub census: Option<Census>,
}

impl Appliance {
    /// All of it now, with a census if one is wanted for longer than nothing.
    pub fn overview(self: &Arc<Self>, census: Duration) -> Overview {
        let entries = ["tcp", "udp", "other"].into_iter().enumerate();
        let entries = entries.map(|(at, class)| {
            let count = self.sum(|worker| &worker.path.ct.entries[at]);
            (class.to_owned(), count)
        });
        let workers = self.shared.workers.iter();
        let mut rules = self.rules();
        if rules.len() > RULES {
            rules.retain(|rule| rule.packets > 0);
        }
        Overview {
            now_ns: self.shared.clock.now().nanos(),
            stats: self.stats(),
            entries: entries.collect(),
            ports: self.ports(),
            drops: self.drops(),
            rules,
            workers: self.workers(),
            loops: workers.map(|it| it.busy.get().counts.to_vec()).collect(),
            census: (!census.is_zero()).then(|| self.census(census)).flatten(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testbed::{Bed, RULES as POLICY, wait};
    use crate::control::{Client, Request};

    #[test]
    fn one_answer_has_it_all() {
        let mut bed = Bed::new(2);
        bed.start_control();
        (0..50).for_each(|host| bed.send(host));
        let socket = bed.socket();
        let ask = |census_secs| -> Overview {
            let request = Request::Overview { census_secs };
            Client::connect(&socket).unwrap().one(&request).unwrap()
        };
        let plain = ask(0);
        assert_eq!((plain.ports.len(), plain.workers.len()), (2, 2));
        assert_eq!(plain.stats.packets.received, 50);
        assert_eq!((plain.entries["udp"], plain.entries["tcp"]), (50, 0));
        for (worker, loops) in plain.workers.iter().zip(&plain.loops) {
            assert!(loops.iter().sum::<u64>() >= worker.busy_loops);
        }
        assert_eq!(plain.rules, bed.appliance.rules());
        assert_eq!(ask(0).census, None, "it was not wanted");
        wait(|| ask(5).census.is_some());
        let later = ask(5);
        assert_eq!(later.census.unwrap().flows, 50);
        assert!(later.now_ns > plain.now_ns);
    }

    #[test]
    fn of_many_rules_those_that_matched() {
        let more = |n| format!("      - {{ name: r{n}, proto: udp, dport: {n}, action: drop }}\n");
        let more: String = (2000..2000 + RULES).map(more).collect();
        let bed = Bed::under(1, &(POLICY.to_owned() + &more));
        assert_eq!(bed.appliance.overview(Duration::ZERO).rules, []);
        bed.send(1);
        let rules = bed.appliance.overview(Duration::ZERO).rules;
        let names: Vec<_> = rules.iter().map(|row| row.rule.as_str()).collect();
        assert_eq!(names, ["outbound"]);
    }
}
