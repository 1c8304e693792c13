//! Checks how chains hang together: jumps to nowhere, loops, depth, and what is never reached.
//!
//! Life-cycle and concurrency: as `check`.

use std::collections::{BTreeMap, BTreeSet};

use super::Checker;
use super::chains::ReadChain;
use super::shadow::ends;
use crate::policy::diagnostic::{Place, nearest};
use crate::policy::model::{Action, FORWARD, MAX_JUMPS};

/// A jump or goto to another chain, by index.
struct Edge {
    to: usize,
    /// 1 for a jump, which will be returned from; 0 for a goto.
    depth: usize,
    place: Place,
}

impl Checker<'_> {
    /// Reports jumps that lead nowhere, in circles, or too deep.
    pub(super) fn check_jumps(&mut self, chains: &[ReadChain]) {
        let (edges, starts) = self.edges(chains);
        let Some(order) = self.order(chains, &edges, &starts) else {
            return;
        };
        // longest way from `forward`, following the edges in topological order
        let mut depth: Vec<Option<usize>> = chains
            .iter()
            .map(|read| (read.chain.name == FORWARD).then_some(0))
            .collect();
        for from in order {
            for edge in &edges[starts[from]..starts[from + 1]] {
                let Some(reached) = depth[from].map(|d| d + edge.depth) else {
                    continue;
                };
                if reached == MAX_JUMPS + 1 && edge.depth == 1 {
                    self.sink
                        .error(edge.place, format!("jumps nest deeper than {MAX_JUMPS}"))
                        .help("use `goto` where nothing follows the jump");
                }
                depth[edge.to] = depth[edge.to].max(Some(reached));
            }
        }
    }

    /// The edges by the chain that they lead from, and where those of each chain begin; one more
    /// beginning is the end.
    fn edges(&mut self, chains: &[ReadChain]) -> (Vec<Edge>, Vec<usize>) {
        let names = chains.iter().enumerate();
        let indices: BTreeMap<&str, usize> = names
            .map(|(at, read)| (read.chain.name.as_str(), at))
            .collect();
        let (mut edges, mut starts) = (Vec::new(), Vec::new());
        for read in chains {
            starts.push(edges.len());
            for (rule, places) in read.chain.rules.iter().zip(&read.rules) {
                let (target, depth) = match &rule.action {
                    Action::Jump(target) => (target, 1),
                    Action::Goto(target) => (target, 0),
                    _ => continue,
                };
                let place = places.target;
                if target == FORWARD {
                    self.sink
                        .error(place, "`forward` cannot be jumped to")
                        .help("it is where a packet starts");
                    continue;
                }
                let Some(to) = indices.get(target.as_str()).copied() else {
                    let names = chains.iter().map(|read| read.chain.name.as_str());
                    let near = nearest(target, names.filter(|name| *name != FORWARD));
                    let help = near.map(|near| format!("did you mean `{near}`?"));
                    self.sink
                        .error(place, format!("unknown chain `{target}`"))
                        .help = help;
                    continue;
                };
                edges.push(Edge { to, depth, place });
            }
        }
        starts.push(edges.len());
        (edges, starts)
    }

    /// Chains in an order in which every edge leads onward; reports a loop, and yields `None`, if
    /// there is no such order.
    fn order(
        &mut self,
        chains: &[ReadChain],
        edges: &[Edge],
        starts: &[usize],
    ) -> Option<Vec<usize>> {
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            New,
            Open,
            Done,
        }
        let mut marks = vec![Mark::New; chains.len()];
        let mut order = Vec::new();
        let mut loops = false;
        for start in 0..chains.len() {
            if marks[start] != Mark::New {
                continue;
            }
            marks[start] = Mark::Open;
            // depth first, without recursion: the chain, and which of the edges comes next
            let mut path = vec![(start, starts[start])];
            while let Some((at, next)) = path.last_mut() {
                let at = *at;
                let Some(edge) = edges[..starts[at + 1]].get(*next) else {
                    marks[at] = Mark::Done;
                    order.push(at);
                    path.pop();
                    continue;
                };
                *next += 1;
                match marks[edge.to] {
                    Mark::New => {
                        marks[edge.to] = Mark::Open;
                        path.push((edge.to, starts[edge.to]));
                    }
                    Mark::Open => {
                        let ring = path.iter().map(|(at, _)| *at);
                        let ring = ring.skip_while(|at| *at != edge.to).chain([edge.to]);
                        let names: Vec<_> = ring.map(|at| chains[at].chain.name.as_str()).collect();
                        let message = format!("jumps form a loop: {}", names.join(" -> "));
                        self.sink.error(edge.place, message);
                        loops = true;
                    }
                    Mark::Done => {}
                }
            }
        }
        order.reverse();
        (!loops).then_some(order)
    }

    /// Warns about rules and chains that no packet reaches.
    pub(super) fn check_reach(&mut self, chains: &[ReadChain]) {
        // a rule with a mistake in its matches would seem to match everything
        let sound = !self.sink.has_errors();
        let rules = chains.iter().flat_map(|read| &read.chain.rules);
        let used: BTreeSet<&str> = rules
            .filter_map(|rule| match &rule.action {
                Action::Jump(target) | Action::Goto(target) => Some(target.as_str()),
                _ => None,
            })
            .collect();
        for read in chains {
            if !used.contains(read.chain.name.as_str()) && read.chain.name != FORWARD {
                let message = format!("chain `{}` is never jumped to", read.chain.name);
                self.sink.warn(read.place, message);
            }
            let rules = &read.chain.rules;
            let last = rules
                .iter()
                .position(|rule| rule.matches.is_empty() && ends(rule));
            if let Some(last) = last.filter(|_| sound)
                && let Some(places) = read.rules.get(last + 1)
            {
                self.never_reached(places.name, &rules[last]);
            }
        }
    }
}
