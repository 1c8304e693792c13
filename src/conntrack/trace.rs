//! For tests: a tracker and a clock; frames go in, and what is said of them comes out in words.

use super::config::Config;
use super::shard::{Flow, Shard};
use crate::base::hash::HashKey;
use crate::base::time::{Span, Ticks};
use crate::wire::build::{Segment, frame};
use crate::wire::{Addrs, parse};
use std::sync::Arc;

/// From the client to the server.
pub(super) const V4: Addrs = Addrs::V4 {
    src: 0x0a01_0001,
    dst: 0x0a02_0001,
};
/// The same for IPv6.
pub(super) const V6: Addrs = Addrs::V6 {
    src: 0xfd01 << 112 | 1,
    dst: 0xfd02 << 112 | 1,
};

/// The addresses of a packet that goes `>` from the client or `<` from the server.
pub(super) fn towards(addrs: Addrs, way: char) -> Addrs {
    if way == '>' { addrs } else { addrs.flip() }
}

/// A tracker whose policy accepts everything.
pub(super) struct Trace {
    shard: Shard,
    pub(super) config: Config,
    now: Ticks,
}

impl Trace {
    pub(super) fn new() -> Self {
        let now = Ticks(1_000);
        Self {
            shard: Shard::new(0, 16, HashKey::from_seed(1), now, Arc::default()),
            config: Config::default(),
            now,
        }
    }

    pub(super) fn wait(&mut self, secs: u32) {
        self.now = self.now.plus(Span::secs(secs));
    }

    /// Why the last packet that was INVALID was that.
    pub(super) fn why(&self) -> Option<&'static str> {
        self.shard.why().map(|why| why.name())
    }

    /// A packet of protocol `proto`.
    pub(super) fn raw(&mut self, addrs: Addrs, proto: u8, bytes: &[u8]) -> String {
        self.frame(&frame(addrs, Segment::Raw(proto), bytes))
    }

    /// The packet's state, then its flow's (SCTP) state, timeout and ASSURED; `-` without a flow.
    pub(super) fn frame(&mut self, bytes: &[u8]) -> String {
        let parsed = parse(bytes, bytes.len());
        let mut prepared = self.shard.prepare(bytes, &parsed, 0);
        self.shard.prefetch(&mut prepared);
        let (now, config) = (self.now, &self.config);
        let tracked = (self.shard).track(bytes, &parsed, &prepared, false, now, config);
        if tracked.flow == Flow::Pending {
            self.shard.commit(now).unwrap();
        }
        let packet = tracked.state.name();
        let Some(flow) = self.shard.peek(&prepared, now) else {
            return format!("{packet} -");
        };
        let record = self.shard.record(flow, now);
        let state = record
            .sctp_state
            .map_or(String::new(), |state| format!("{} ", state.name()));
        let assured = if record.assured { " ASSURED" } else { "" };
        format!("{packet} {state}{}{assured}", record.timeout)
    }
}
