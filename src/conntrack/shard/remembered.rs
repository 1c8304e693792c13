//! What flows remember of policy: by which they were judged last, and the verdict of each direction,
//! both as numbers whose meaning the packet path above knows. The tracker only keeps them, and
//! forgets the verdicts where the flow itself changes.

use super::*;
use crate::conntrack::helper::HelperId;

impl Shard {
    /// From here on flows begin as judged by `epoch`.
    pub fn set_epoch(&mut self, epoch: u16) {
        self.epoch = epoch;
    }

    /// By what `flow` was judged last, and the verdict that it remembers for `dir`.
    #[inline]
    pub fn remembered(&self, flow: FlowRef, dir: Dir) -> (u16, u16) {
        let core = self.core(flow);
        (core.judged, core.seen[dir as usize & 1].verdict)
    }

    /// Notes that `flow` was judged by `epoch`; what it remembers of another is forgotten.
    pub fn judged(&mut self, flow: FlowRef, epoch: u16) {
        let core = self.core_mut(flow);
        if core.judged != epoch {
            core.judged = epoch;
            core.forget();
        }
    }

    /// Lets `flow` remember a verdict for `dir`.
    pub fn remember(&mut self, flow: FlowRef, dir: Dir, verdict: u16) {
        self.core_mut(flow).seen[dir as usize & 1].verdict = verdict;
    }

    /// Gives every flow the number that `new` makes of its own, and forgets all verdicts. Looks at
    /// every entry at once, so it must be rare.
    #[cold]
    pub fn renumber(&mut self, new: impl Fn(u16) -> u16) {
        let mut cursor = Some(Cursor::default());
        while let Some(at) = cursor {
            let (flows, next) = self.scan(at, 1024);
            for flow in flows {
                let core = self.core_mut(flow);
                core.judged = new(core.judged);
                core.forget();
            }
            cursor = next;
        }
    }

    /// The packet that starts a flow came in by `port`, below 64.
    #[inline]
    pub fn came_by(&mut self, port: u8) {
        if let Some(pending) = &mut self.pending {
            pending.port = port;
        }
    }

    /// What policy can be asked of `flow` without a packet of it.
    pub fn standing(&self, flow: FlowRef) -> Option<Standing> {
        let FlowRef { v6, entry } = flow;
        let (key, rest) = if v6 {
            let entry = self.v6.entry(entry);
            (AnyKey::V6(entry.key), &entry.rest)
        } else {
            let entry = self.v4.entry(entry);
            (AnyKey::V4(entry.key), &entry.rest)
        };
        let core = self.core(flow);
        let expected = core.has(status::EXPECTED);
        Some(Standing {
            original: key.tuple(core.has(status::ORIGINAL_IS_LO))?,
            port: rest.links.port(),
            expected_by: expected.then(|| self.kins.expecter(v6, entry)).flatten(),
            mark: rest.mark,
        })
    }

    fn core_mut(&mut self, flow: FlowRef) -> &mut Core {
        family!(self, flow.v6, table => &mut table.entry_mut(flow.entry).core)
    }
}

/// A flow without a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its original direction.
    pub original: Tuple,
    /// The port that its first packet came in by.
    pub port: u8,
    /// The helper that expected it.
    pub expected_by: Option<HelperId>,
    /// Its mark.
    pub mark: u32,
}
