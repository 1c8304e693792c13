//! What can be known of times. Both sides tell a timeout in whole seconds, rounded down; the
//! kernel counts in jiffies (4 ms at 250 Hz, 10 ms at 100), we in milliseconds, and when exactly the
//! kernel looked at its clock is known only to lie between sending a frame and having the answer.
//!
//! So a timeout of the kernel's must be one that ours can be within that uncertainty, which is exact
//! equality but for the few milliseconds around a whole second. (A timeout that was just renewed is
//! a whole second: the kernel tells one less whenever a jiffy ends before it is asked. That it does so
//! every time would be a difference: `Referee::always_less`.) And about a packet that comes
//! within the uncertainty of a moment at which something changes (a flow ends, a UDP flow becomes a
//! stream), nothing can be said: conversations wait such moments out ([`Moments::patience`]), and
//! where the machine was too slow for that, they are not compared from there on.

use crate::tuple::Tuple;
use crate::view::View;
use std::collections::{HashMap, HashSet};

/// A jiffy, at most, in milliseconds.
pub(crate) const JIFFY: u64 = 10;
/// How far from a doubtful moment packets are sent, in milliseconds.
const DOUBT: u64 = 60;
/// How old a UDP flow is that becomes a stream, in milliseconds.
const STREAM: u64 = 2_000;

/// When a flow may end, in milliseconds: every moment that explains all that was said of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deadlines(Vec<u64>);

impl Deadlines {
    /// At `now` there are `secs` seconds left, and the clock may be `slack` off.
    pub(crate) fn heard(&mut self, now: u64, secs: Option<u32>, slack: u64) {
        let Some(secs) = secs else {
            self.0.clear();
            return;
        };
        let (least, most) = (u64::from(secs) * 1_000, u64::from(secs) * 1_000 + 999);
        self.0.retain(|end| {
            let left = end.saturating_sub(now);
            (least.saturating_sub(slack)..=most + slack).contains(&left)
        });
        // Timeouts are whole seconds: either it was renewed just now, or the end stays.
        self.0.push(now + least);
        if slack > 0 {
            self.0.push(now + least + 1_000);
        }
        self.0.sort_unstable();
        self.0.dedup();
    }

    /// Whether `secs` may be left at a time from `from` to `to`.
    pub(crate) fn allow(&self, secs: u32, from: u64, to: u64) -> bool {
        let left = |end: &u64, now: u64| (end.saturating_sub(now) / 1_000) as u32;
        let mut ends = self.0.iter();
        ends.any(|end| (left(end, to)..=left(end, from)).contains(&secs))
    }

    /// One that lies from `from` to `to`.
    fn within(&self, from: u64, to: u64) -> Option<u64> {
        let mut ends = self.0.iter().copied();
        ends.find(|end| (from..=to).contains(end))
    }
}

/// The moments in a conversation that packets must keep away from, by one side's account.
#[derive(Clone, Debug, Default)]
pub(crate) struct Moments {
    ends: HashMap<Tuple, Deadlines>,
    /// When flows may have begun.
    starts: Vec<u64>,
    /// Flows whose end may have moved since it was heard of.
    moved: HashSet<Tuple>,
    /// There may be flows that nobody named.
    blurred: bool,
}

impl Moments {
    /// Notes what was said at `now` of a packet of `flow`; the clock may be `slack` off.
    pub(crate) fn heard(&mut self, flow: Tuple, now: u64, view: &View, slack: u64) {
        if matches!(view.state.as_str(), "new" | "related") {
            self.starts.push(now);
        }
        let secs = view.flow.map(|flow| flow.timeout);
        self.moved.remove(&flow);
        self.ends.entry(flow).or_default().heard(now, secs, slack);
    }

    /// Something happened of which nobody said what: to `flow`, or to one without a name.
    pub(crate) fn moved(&mut self, flow: Option<Tuple>) {
        self.blurred = true;
        self.moved.extend(flow);
    }

    /// Whether that happened to `flow`, and nothing was heard of it since.
    pub(crate) fn has_moved(&self, flow: Option<Tuple>) -> bool {
        flow.is_some_and(|flow| self.moved.contains(&flow))
    }

    /// Whether `secs` may be left of `flow` at a time from `from` to `to`.
    pub(crate) fn allow(&self, flow: Tuple, secs: u32, from: u64, to: u64) -> bool {
        let ends = self.ends.get(&flow);
        ends.is_some_and(|ends| ends.allow(secs, from, to))
    }

    /// Whether `flow` may be there for all that was said.
    pub(crate) fn knows(&self, flow: Tuple) -> bool {
        self.blurred || self.ends.contains_key(&flow)
    }

    /// Whether each flow is alive at `now`, where that is known in spite of `slack`.
    pub(crate) fn alive(&self, now: u64, slack: u64) -> impl Iterator<Item = (Tuple, bool)> {
        let ends = self.ends.iter();
        let heard = ends.filter(|(flow, _)| !self.moved.contains(flow));
        heard.filter_map(move |(flow, ends)| {
            let later = ends.0.iter().filter(|end| **end > now + slack).count();
            let earlier = ends.0.iter().filter(|end| **end + slack < now).count();
            let known = later == ends.0.len() || earlier == ends.0.len();
            known.then_some((*flow, later > 0))
        })
    }

    /// A doubtful moment for `flow` from `from` to `to`.
    pub(crate) fn within(&self, flow: Option<Tuple>, from: u64, to: u64) -> Option<u64> {
        let ends = flow.and_then(|flow| self.ends.get(&flow)?.within(from, to));
        let udp = flow.is_some_and(|flow| flow.proto == 17);
        let mut streams = self.starts.iter().filter(|_| udp).map(|at| at + STREAM);
        ends.or_else(|| streams.find(|moment| (from..=to).contains(moment)))
    }

    /// How many milliseconds to wait at `now` with the next packet of `flow`.
    pub(crate) fn patience(&self, flow: Option<Tuple>, now: u64) -> u64 {
        let moment = self.within(flow, now.saturating_sub(DOUBT), now + DOUBT);
        moment.map_or(0, |moment| moment + DOUBT + 1 - now)
    }
}
