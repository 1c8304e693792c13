//! Flows that helpers listen to, and flows that they expect.
//!
//! A helper runs in the packet path above; here is what its requests do to the tracker, and what a
//! flow inherits that was expected.

use super::*;
use crate::conntrack::expect::{End, Master, NoteId};
use crate::conntrack::helper::{Context, Expect, HelperId, Permissions};
use crate::conntrack::record::ExpectRecord;
use std::net::IpAddr;

/// A control flow, for the helper that listens to it.
#[derive(Clone, Copy, Debug)]
pub struct Listening {
    /// The flow.
    pub flow: FlowRef,
    /// Its number among the flows of this shard that have a helper or a master.
    pub number: u32,
    /// The helper.
    pub helper: HelperId,
    /// What the helper may know.
    pub context: Context,
    /// A helper has not been asked about it before.
    pub fresh: bool,
}

/// What a flow begins with that fulfils `expectation`.
pub(super) fn seed_of(expectation: &Expectation) -> Seed {
    let helper = (expectation.helper, expectation.permissions);
    Seed {
        helper: expectation.inherit.then_some(helper),
        master: Some((expectation.master, expectation.helper)),
    }
}

/// Counts and reports the end of an expectation.
pub(super) fn ended(report: &Reporter, counters: &CtCounters, it: &Expectation, end: End) {
    if let Some(counters) = counters.helpers.get(it.helper.index()) {
        let counter = match end {
            End::Expired => &counters.expired,
            End::Withdrawn => &counters.withdrawn,
        };
        counter.add(1);
    }
    tell(report, Kind::Unexpected, it);
}

/// Reports `kind` of an expectation, if somebody watches.
fn tell(report: &Reporter, kind: Kind, it: &Expectation) {
    if report.wants(kind) {
        report.report_expectation(kind, it);
    }
}

impl Shard {
    /// The expectation that the packet of `prepared`, which starts a flow, fulfils.
    #[inline]
    pub(super) fn awaited(&mut self, prepared: &Prepared, now: Ticks) -> Option<Expectation> {
        let key = prepared.key()?;
        let expectation = self.expecter.claim(key, prepared.from_lo, now)?;
        self.used(&expectation);
        Some(expectation)
    }

    /// Counts and reports that an expectation was fulfilled.
    #[cold]
    fn used(&self, it: &Expectation) {
        if let Some(counters) = self.counters.helpers.get(it.helper.index()) {
            counters.used.add(1);
            if !it.permanent {
                counters.used_up.add(1);
            }
        }
        if !it.permanent {
            tell(&self.report, Kind::Unexpected, it);
        }
    }

    /// Lets `helper` listen to the flow that the last packet started, unless it inherited one.
    pub fn attach(&mut self, helper: HelperId, permissions: Permissions) {
        if let Some(pending) = &mut self.pending
            && pending.seed.helper.is_none()
        {
            pending.seed.helper = Some((helper, permissions));
            pending.core.status |= status::HELPED;
        }
    }

    /// A flow that has kin enters the table.
    #[cold]
    pub(super) fn join(&mut self, flow: FlowRef, seed: &Seed) {
        let Some(number) = self.kins.enter(flow.v6, flow.entry, seed) else {
            // No room to remember it: then there is nothing to tell of.
            family!(self, flow.v6, table => {
                let status = &mut table.entry_mut(flow.entry).core.status;
                *status &= !(status::HELPED | status::EXPECTED);
            });
            return;
        };
        self.expecter.open(number);
        if let Some((id, _)) = seed.helper {
            self.helped += 1;
            if let Some(counters) = self.counters.helpers.get(id.index()) {
                counters.attached.add(1);
            }
        }
    }

    /// What is counted of `helper`.
    pub fn helper_counters(&self, helper: HelperId) -> Option<&HelperCounters> {
        self.counters.helpers.get(helper.index())
    }

    /// Whether `flow`, of TCP, is in its handshake: that of a flow that begins, or begins anew.
    pub fn is_opening(&self, flow: FlowRef) -> bool {
        use TcpState::{SynRecv, SynSent, SynSent2};
        matches!(self.core(flow).tcp_state, SynSent | SynRecv | SynSent2)
    }

    /// Whether both sides of `flow` have spoken.
    pub fn has_seen_reply(&self, flow: FlowRef) -> bool {
        self.core(flow).has(status::SEEN_REPLY)
    }

    /// Whether a helper listens to any flow.
    #[inline]
    pub fn has_helped(&self) -> bool {
        self.helped != 0
    }

    /// Whether a helper listens to `flow`.
    pub fn is_helped(&self, flow: FlowRef) -> bool {
        self.core(flow).has(status::HELPED)
    }

    /// What a helper must know of the last packet, which goes `dir` in `flow`; `None` if none listens,
    /// or the packet passes without belonging to the flow.
    pub fn listening(&mut self, flow: FlowRef, dir: Dir) -> Option<Listening> {
        if self.ignored {
            return None;
        }
        let FlowRef { v6, entry } = flow;
        let number = self.kins.number(v6, entry)?;
        let (helper, permissions) = self.kins.helper(v6, entry)?;
        let context = Context {
            original: self.original(flow)?,
            dir,
            expected: self.core(flow).has(status::EXPECTED),
            permissions,
        };
        let fresh = self.kins.is_fresh(number);
        Some(Listening {
            flow,
            number,
            helper,
            context,
            fresh,
        })
    }

    /// The original direction of `flow`.
    fn original(&self, flow: FlowRef) -> Option<Tuple> {
        let from_lo = match flow.v6 {
            true => self.v6.entry(flow.entry).key.lo_tuple(),
            false => self.v4.entry(flow.entry).key.lo_tuple(),
        };
        match self.core(flow).has(status::ORIGINAL_IS_LO) {
            true => Some(from_lo),
            false => from_lo.reversed(),
        }
    }

    /// Expects what a helper asks for.
    ///
    /// # Errors
    /// If another flow expects it, or there is no room.
    pub fn expect(
        &mut self,
        listening: &Listening,
        wanted: &Expect,
        now: Ticks,
    ) -> Result<(), Refusal> {
        let FlowRef { v6, entry } = listening.flow;
        let mark = match v6 {
            true => self.v6.entry(entry).rest.mark,
            false => self.v4.entry(entry).rest.mark,
        };
        let master = Master {
            tuple: listening.context.original,
            helper: listening.helper,
            permissions: listening.context.permissions,
            mark,
        };
        let (report, counters) = (&self.report, &self.counters);
        let of = (&master, listening.number);
        let made = self
            .expecter
            .expect(of, wanted, now, |it, end| ended(report, counters, it, end))?;
        if let Some(made) = made {
            tell(report, Kind::Expected, &made);
            if let Some(counters) = counters.helpers.get(made.helper.index()) {
                counters.expected.add(1);
            }
        }
        Ok(())
    }

    /// Lets an expectation of the flow's count from now on; `false` if there is none such.
    pub fn confirm_expectation(
        &mut self,
        listening: &Listening,
        which: (u8, u8, IpAddr, u16),
        now: Ticks,
        timeout: Span,
    ) -> bool {
        self.expecter.confirm(listening.number, which, now, timeout)
    }

    /// Ends the flow's expectations of `classes` (bits).
    pub fn forget_expectations(&mut self, listening: &Listening, classes: u8) {
        let (report, counters) = (&self.report, &self.counters);
        self.expecter.forget(listening.number, classes, |it, end| {
            ended(report, counters, it, end);
        });
    }

    /// Ends the flow's newest expectation of `class`.
    pub fn forget_newest_expectation(&mut self, listening: &Listening, class: u8) {
        let (report, counters) = (&self.report, &self.counters);
        self.expecter
            .forget_newest(listening.number, class, |it, end| {
                ended(report, counters, it, end);
            });
    }

    /// Gives the flow's expectations its new mark.
    #[cold]
    pub(super) fn mark_expectations(&mut self, flow: FlowRef, mark: u32) {
        if let Some(list) = self.kins.number(flow.v6, flow.entry) {
            self.expecter.mark(list, mark);
        }
    }

    /// Lets the flow live for `span` from `now` on.
    pub fn keep(&mut self, flow: FlowRef, now: Ticks, span: Span) {
        family!(self, flow.v6, table => table.refresh(flow.entry, now, span));
    }

    /// Ends a flow whose packet, though the last one was about it, must not pass after all.
    pub fn revoke(&mut self, flow: FlowRef) {
        self.before = None;
        self.end(flow);
    }

    pub(super) fn sweep_expectations(&mut self, now: Ticks, budget: usize) {
        let (report, counters) = (&self.report, &self.counters);
        self.expecter.sweep(now, budget, |it, end| {
            ended(report, counters, it, end);
        });
    }

    /// How many flows are expected, by all workers' flows.
    pub fn expected(&self) -> u32 {
        self.expecter.shared().len()
    }

    /// This shard's expectations from `start` on, at most `scan` looked at; and where to go on.
    pub fn expectations(
        &self,
        start: u32,
        scan: u32,
        now: Ticks,
    ) -> (Vec<(NoteId, ExpectRecord)>, Option<u32>) {
        let (posted, next) = self.expecter.scan(start, scan, now);
        let record = |(id, it): (NoteId, Expectation)| {
            let info = self.expecter.info(it.helper);
            (id, ExpectRecord::new(&it, info, now))
        };
        (posted.map(record).collect(), next)
    }

    /// Ends an expectation that [`Shard::expectations`] listed; `false` if it was gone meanwhile.
    pub fn remove_expectation(&mut self, id: NoteId) -> bool {
        let (report, counters) = (&self.report, &self.counters);
        self.expecter.remove(id, |it, end| {
            ended(report, counters, it, end);
        })
    }
}
