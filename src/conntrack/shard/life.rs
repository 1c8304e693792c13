//! How flows enter the shard and leave it: committed when policy accepts their first packet, ended by
//! their time, by a packet, by the control side, or because something else is worth more.

use super::*;
use crate::base::tally::Tally;
use crate::conntrack::limit::Worth;
use crate::conntrack::{entry::Entry, limit};

/// What the flows of `$shard` are tied to, while its tables are borrowed.
macro_rules! ties {
    ($shard:expr) => {
        Ties {
            ledger: &mut $shard.ledger,
            tally: $shard.purse.budget().tally(),
            kins: &mut $shard.kins,
            expecter: &mut $shard.expecter,
            helped: &mut $shard.helped,
            report: &$shard.report,
            counters: &$shard.counters,
        }
    };
}

impl Shard {
    /// Enters the flow that the last packet started into the table.
    ///
    /// # Errors
    /// If the box or this shard has no room, and no flow that is worth less.
    pub fn commit(&mut self, now: Ticks) -> Result<FlowRef, InsertError> {
        let Some(pending) = self.pending.take() else {
            return Err(InsertError::LongRun);
        };
        let added = match self.enter(&pending, now) {
            Err(InsertError::Full) if self.make_room(&pending) => self.enter(&pending, now),
            added => added,
        };
        match added {
            Ok(_) => self.counters.insert.add(1),
            Err(InsertError::LongRun) => self.counters.insert_failed.add(1),
            Err(InsertError::Full) => {
                self.purse.budget().raise_pressure();
                self.counters.drop.add(1);
            }
        }
        added
    }

    fn enter(&mut self, pending: &Pending, now: Ticks) -> Result<FlowRef, InsertError> {
        if !self.purse.take() {
            return Err(InsertError::Full);
        }
        let Pending {
            key,
            hash,
            core,
            last,
            mark,
            bytes,
            port,
            seed,
        } = pending;
        let v6 = matches!(key, AnyKey::V6(_));
        let added = match *key {
            AnyKey::V4(key) => self.v4.insert(key, *hash, core, last, now),
            AnyKey::V6(key) => self.v6.insert(key, *hash, core, last, now),
        };
        if added.is_err() {
            self.purse.put();
        }
        let flow = FlowRef { v6, entry: added? };
        family!(self, v6, table => {
            let Entry { core, rest, .. } = table.entry_mut(flow.entry);
            core.judged = self.epoch;
            rest.mark = *mark;
            rest.links.set_port(*port);
            if let Some(bytes) = *bytes {
                rest.account[0].add(u32::from(bytes));
            }
        });
        self.counters.tcp_states[core.tcp_state as usize].add(1);
        let status = core.status;
        if status & (status::HELPED | status::EXPECTED) != 0 {
            self.join(flow, seed);
        }
        if self.report.wants(Kind::New) {
            let about = self.kins.about(v6, flow.entry, status);
            family!(self, v6, table => {
                self.report.report(Kind::New, 0, table.entry(flow.entry), about);
            });
        }
        Ok(flow)
    }

    /// Ends one flow that is worth less than a new one, if there is any near the new one's place:
    /// in its own family first.
    #[cold]
    fn make_room(&mut self, pending: &Pending) -> bool {
        let v6 = matches!(pending.key, AnyKey::V6(_));
        // The other family's room is of no use to a table that has no entry left.
        let other = family!(self, v6, table => table.has_room()).then_some(!v6);
        for v6 in [Some(v6), other].into_iter().flatten() {
            let victim = family!(self, v6, table => limit::victim(table, pending.hash));
            if let Some(entry) = victim {
                self.end(FlowRef { v6, entry });
                self.counters.early_drop.add(1);
                return true;
            }
        }
        false
    }

    pub(super) fn end(&mut self, flow: FlowRef) {
        family!(self, flow.v6, table => {
            let ties = &mut ties!(self);
            ties.end(flow.v6, flow.entry, table.entry(flow.entry));
            table.remove(flow.entry);
        });
        self.purse.put();
        self.counters.delete.add(1);
    }

    /// Ends flows whose time is over, looking at about `budget` entries at most; and while the box
    /// is too full, flows that are worth little, looking at as many again.
    pub fn expire(&mut self, now: Ticks, budget: usize) {
        let ties = &mut ties!(self);
        let ended = self
            .v4
            .expire(now, budget, |at, entry| ties.end(false, at, entry))
            + self
                .v6
                .expire(now, budget, |at, entry| ties.end(true, at, entry));
        // They wait for minutes: a second more or less of memory is no matter, a burst's time is.
        self.sweep_expectations(now, budget.div_ceil(16));
        for _ in 0..ended {
            self.purse.put();
        }
        if ended > 0 {
            self.counters.delete.add(u64::from(ended));
        }
        if self.purse.budget().under_pressure() {
            self.collect(budget as u32);
        }
    }

    /// A piece of the sweep that frees what is worth little, while the pressure lasts.
    #[cold]
    fn collect(&mut self, budget: u32) {
        // A shard where no flow ends would keep what others need; and the pressure ends here if
        // that was all that it was about.
        self.purse.give_back();
        if !self.purse.budget().under_pressure() {
            return;
        }
        let mut cursor = self.swept;
        for _ in 0..budget {
            let (found, next) = self.step(cursor);
            if let Some(flow) = found
                && family!(self, flow.v6, table => Worth::of(table.entry(flow.entry))) < Worth::Kept
            {
                self.end(flow);
                self.counters.early_drop.add(1);
            }
            cursor = next.unwrap_or_default();
            if next.is_none() {
                break; // once around is enough for one call, whatever its budget
            }
        }
        self.swept = cursor;
    }
}

/// What else a flow is tied to.
struct Ties<'a> {
    ledger: &'a mut Ledger,
    tally: &'a Tally,
    kins: &'a mut Kins,
    expecter: &'a mut Expecter,
    helped: &'a mut u32,
    report: &'a Reporter,
    counters: &'a CtCounters,
}

impl Ties<'_> {
    /// Every flow that ends passes here, before its entry goes.
    #[inline]
    fn end<K: Key>(&mut self, v6: bool, at: u32, entry: &Entry<K>) {
        self.ledger
            .end(v6, at, entry.rest.links.counted, self.tally);
        self.counters.tcp_states[entry.core.tcp_state as usize].sub(1);
        let status = entry.core.status;
        if self.report.wants(Kind::Destroy) {
            let about = self.kins.about(v6, at, status);
            self.report.report(Kind::Destroy, 0, entry, about);
        }
        if status & (status::HELPED | status::EXPECTED) != 0 {
            *self.helped -= u32::from(status & status::HELPED != 0);
            self.part(v6, at);
        }
    }

    /// The flow's expectations end with it.
    #[cold]
    fn part(&mut self, v6: bool, at: u32) {
        if let Some(list) = self.kins.leave(v6, at) {
            let (report, counters) = (self.report, self.counters);
            self.expecter
                .close(list, |it, end| helped::ended(report, counters, it, end));
        }
    }
}
