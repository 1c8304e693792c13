//! Warns about helper lines for flows that raw rules keep from being tracked: where there is no
//! flow, a helper has nothing to listen to.
//!
//! Life-cycle: for one policy, once all of it is read. Concurrency: none.

use super::Checker;
use super::chains::RulePlaces;
use super::region::Region;
use crate::policy::model::{Action, Matches, Rule};
use crate::policy::ranges::U16Set;

/// Ports that clients take when nobody says otherwise: those of RFC 6335 6 and of Linux's
/// `ip_local_port_range`.
const CLIENTS: (u16, u16) = (32768, u16::MAX);

/// Pairs of a helper line and a raw rule that are compared; what is behind is not.
const PAIRS: usize = 1_000_000;

/// How much of a line's flows a raw rule takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    All,
    Some,
    Replies,
}

impl Checker<'_> {
    /// Warns about helper lines whose flows `raw` takes out of tracking.
    pub(super) fn helpers_see_their_flows(
        &mut self,
        helpers: &[(Rule, RulePlaces)],
        raw: &[(Rule, RulePlaces)],
    ) {
        if helpers.len().saturating_mul(raw.len()) > PAIRS {
            return;
        }
        for (line, places) in helpers {
            let Some((rule, taken)) = self.taken_by(line, raw) else {
                continue;
            };
            let (name, at) = (&rule.name, rule.line);
            let what = match taken {
                Taken::All => "all flows of this line are",
                Taken::Some => "some flows of this line are",
                Taken::Replies => "the replies to all flows of this line are",
            };
            let message = format!("{what} kept from tracking by raw rule `{name}` in line {at}");
            self.sink.warn(places.name, message).help(
                "a helper hears tracked flows only: put a raw rule with `action: accept` first",
            );
        }
    }

    /// The first raw rule that takes flows of `line`.
    fn taken_by<'r>(
        &self,
        line: &Rule,
        raw: &'r [(Rule, RulePlaces)],
    ) -> Option<(&'r Rule, Taken)> {
        let all = self.region(&line.matches);
        let likely = likely(&line.matches);
        let likely = self.region(&likely);
        let replies = replies(&line.matches);
        let replies = self.region(&replies);
        let mut accepts: Vec<Region<'_>> = Vec::new();
        let mut found = None;
        for (rule, _) in raw {
            let region = self.region(&rule.matches);
            let steady = rule.matches.limit.is_none() && rule.matches.time.is_none();
            if rule.action != Action::Notrack {
                accepts.extend(steady.then_some(region));
                continue;
            }
            // what was accepted before comes no further
            let spared = |of: &Region<'_>| accepts.iter().any(|accept| accept.holds(of));
            if all.is_empty() || spared(&region) {
                continue;
            }
            let touched = accepts.iter().any(|accept| accept.meets(&likely));
            let taken = match () {
                () if region.holds(&all) && !spared(&all) => match steady && !touched {
                    true => Taken::All,
                    false => Taken::Some,
                },
                () if any_client(line, rule) && region.meets(&likely) && !spared(&likely) => {
                    Taken::Some
                }
                () if steady && region.holds(&replies) && !spared(&replies) => Taken::Replies,
                () => continue,
            };
            if taken == Taken::All {
                return Some((rule, taken));
            }
            found = found.or(Some((rule, taken)));
        }
        found
    }
}

/// Whether `rule` takes flows of clients whichever port they have, where `line` does not say.
fn any_client(line: &Rule, rule: &Rule) -> bool {
    let (low, high) = CLIENTS;
    let all = |set: &U16Set| set.ranges().iter().any(|(a, b)| *a <= low && high <= *b);
    line.matches.sport.is_some() || rule.matches.sport.as_ref().is_none_or(all)
}

/// The flows that clients start, unless the line asks for others.
fn likely(m: &Matches) -> Matches {
    let sport = m.sport.clone();
    Matches {
        sport: sport.or_else(|| Some(U16Set::new([CLIENTS]))),
        ..m.clone()
    }
}

/// The packets that go the other way in flows that match.
fn replies(m: &Matches) -> Matches {
    Matches {
        iif: m.oif,
        oif: m.iif,
        saddr: m.daddr.clone(),
        daddr: m.saddr.clone(),
        sport: m.dport.clone(),
        dport: m.sport.clone(),
        // of the first packet only
        tcp_flags: None,
        length: None,
        fragment: None,
        dscp: None,
        ..m.clone()
    }
}
