//! The flow of a tuple, for whoever asks about one without a packet. Not for the packet path.

use super::{FlowRef, Shard};
use crate::base::time::Ticks;
use crate::conntrack::entry::status;
use crate::conntrack::tuple::{AnyKey, Tuple};
use crate::conntrack::types::Dir;

impl Shard {
    /// The live flow that packets of `tuple` belong to, and their direction in it. Changes nothing.
    pub fn locate(&self, tuple: &Tuple, now: Ticks) -> Option<(FlowRef, Dir)> {
        let (key, from_lo) = tuple.key()?;
        let flow = match key {
            AnyKey::V4(key) => FlowRef {
                v6: false,
                entry: self.v4.find(&key, self.v4.hash(&key))?,
            },
            AnyKey::V6(key) => FlowRef {
                v6: true,
                entry: self.v6.find(&key, self.v6.hash(&key))?,
            },
        };
        let core = self.core(flow);
        let dir = match core.has(status::ORIGINAL_IS_LO) == from_lo {
            true => Dir::Original,
            false => Dir::Reply,
        };
        (!now.reached(core.deadline)).then_some((flow, dir))
    }
}
