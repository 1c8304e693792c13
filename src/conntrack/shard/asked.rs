//! What policy asks of a flow and does to it: status, mark, addresses, timeouts, counts. Only for policies that
//! do; the packet path of the others never comes here.

use super::{AnyKey, Core, Flow, FlowRef, Shard, Tuple};
use crate::base::tally::{Tally, TallyKey};
use crate::base::time::Ticks;
use crate::conntrack::config::Config;
use crate::conntrack::entry::Entry;
use crate::conntrack::event::{Before, Kind};
use crate::conntrack::helper::HelperId;
use crate::conntrack::tuple::Key;
use crate::conntrack::{entry::status, table::Table};
use crate::wire::Addrs;

/// What policy can ask of a packet's flow.
#[derive(Clone, Copy, Debug)]
pub struct FlowView<'a> {
    /// Bits of [`status`], after this packet.
    pub status: u8,
    /// The flow is in the table; not yet if this packet starts it.
    pub confirmed: bool,
    /// Its mark.
    pub mark: u32,
    /// Addresses of its original direction.
    pub original: Addrs,
    /// Its zone.
    pub zone: u16,
    /// The helper that expected it (nftables' `ct helper`).
    pub helper: Option<HelperId>,
    /// The box's counts of flows.
    pub tally: &'a Tally,
}

impl Shard {
    /// What policy can ask of `flow`, which the last packet is about; `None` without one.
    pub fn view(&self, flow: Flow) -> Option<FlowView<'_>> {
        fn known<K: Key>(table: &Table<K>, entry: u32) -> (Tuple, &Core, u32) {
            let Entry { key, core, rest } = table.entry(entry);
            (key.lo_tuple(), core, rest.mark)
        }
        let mut helper = None;
        let (lo, core, mark) = match flow {
            Flow::None => return None,
            Flow::Known(flow) => {
                let FlowRef { v6, entry } = flow;
                if self.core(flow).has(status::EXPECTED) {
                    helper = self.kins.expecter(v6, entry);
                }
                if v6 {
                    known(&self.v6, entry)
                } else {
                    known(&self.v4, entry)
                }
            }
            Flow::Pending => {
                let pending = self.pending.as_ref()?;
                helper = pending.seed.master.map(|(_, id)| id);
                let lo = match &pending.key {
                    AnyKey::V4(key) => key.lo_tuple(),
                    AnyKey::V6(key) => key.lo_tuple(),
                };
                (lo, &pending.core, pending.mark)
            }
        };
        let original = if core.has(status::ORIGINAL_IS_LO) {
            lo.addrs
        } else {
            lo.addrs.flip()
        };
        Some(FlowView {
            status: core.status,
            confirmed: flow != Flow::Pending,
            mark,
            original,
            zone: lo.zone,
            helper,
            tally: self.tally(),
        })
    }

    /// Sets the mark of `flow`, which the last packet is about.
    pub fn set_mark(&mut self, flow: Flow, mark: u32) {
        match flow {
            Flow::None => {}
            Flow::Known(flow) => family!(self, flow.v6, table => {
                let entry = table.entry_mut(flow.entry);
                if self.before.is_none() && self.report.wants(Kind::Update) {
                    self.before = Some((flow, Before::of(entry)));
                }
                entry.rest.mark = mark;
                entry.core.forget();
                if entry.core.has(status::HELPED) {
                    self.mark_expectations(flow, mark);
                }
            }),
            Flow::Pending => {
                if let Some(pending) = &mut self.pending {
                    pending.mark = mark;
                }
            }
        }
    }

    /// Lets the flow that the last packet started go by the timeouts with this number, its first
    /// packet included. For a flow that is in the table already it is too late, as in Linux.
    pub fn set_timeouts(&mut self, number: u8, now: Ticks, config: &Config) {
        if let Some(pending) = &mut self.pending
            && number != 0
        {
            let status = &mut pending.core.status;
            *status |= number.wrapping_mul(status::TIMEOUTS);
            let proto = match &pending.key {
                AnyKey::V4(key) => key.lo_tuple().proto,
                AnyKey::V6(key) => key.lo_tuple().proto,
            };
            let span = config.timeouts_of(*status).first(proto);
            pending.core.deadline = now.plus(span);
        }
    }

    /// Notes that `keys` of [`Shard::tally`] count `flow`, which was entered just now: they are given
    /// back when it ends.
    pub fn count(&mut self, flow: FlowRef, keys: &[TallyKey]) {
        let tally = self.purse.budget().tally();
        let counted = self.ledger.enter(flow.v6, flow.entry, keys, tally);
        family!(self, flow.v6, table => {
            table.entry_mut(flow.entry).rest.links.counted = counted;
        });
    }

    /// The box's counts of flows.
    pub fn tally(&self) -> &Tally {
        self.purse.budget().tally()
    }
}
