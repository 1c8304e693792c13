//! New flows: created by their first packet, confirmed when that is accepted, ended by their time.

use crate::cases::{Case, EXPIRE, Path, Sample};
use crate::frames::{BURST, Buffers, Flow, Kind};
use shardwall::base::time::Now;
use shardwall::conntrack::config::Timeouts;
use shardwall::conntrack::types::CtState;
use shardwall::dataplane::clock::Clock;
use shardwall::pipeline::Slot;
use std::hint::black_box;

/// New flows at the rate at which old ones end, so that about `count` of them live.
#[derive(Debug)]
pub(crate) struct Inserts<P> {
    path: P,
    buffers: Buffers,
    slots: [Slot; BURST],
    fresh: u64,
    now: u64,
    burst_nanos: u64,
    clock: Clock,
}

impl<P: Path> Inserts<P> {
    /// Room for the flows of [`Inserts::new`].
    pub(crate) fn limit(count: u32) -> u32 {
        count + count / 4 + 4096
    }

    /// New flows beside about `count` others; `path` has room for [`Inserts::limit`].
    pub(crate) fn new(count: u32, path: P) -> Result<Self, String> {
        let life = u64::from(Timeouts::default().udp_unreplied.as_secs()) * 1_000_000_000;
        let mut inserts = Self {
            path,
            buffers: Buffers::new(Kind::Udp),
            slots: [Slot::default(); BURST],
            fresh: 0,
            now: Now::from_secs(1).nanos(),
            burst_nanos: life * BURST as u64 / u64::from(count),
            clock: Clock::start(),
        };
        // Until the first flows end.
        let fill = (count as usize + count as usize / 16).next_multiple_of(BURST);
        match inserts.fill(fill) {
            0 => Ok(inserts),
            wrong => Err(format!("{wrong} flows could not be added")),
        }
    }

    #[inline(always)]
    fn pass<const TRACK: bool>(&mut self, packets: usize) -> usize {
        let mut wrong = 0;
        for _ in 0..packets / BURST {
            self.buffers.turn();
            for i in 0..BURST {
                let mut flow = Flow::number(self.fresh, Kind::Udp);
                self.fresh += 1;
                self.buffers.write(i, &mut flow, 0, false);
            }
            if !TRACK {
                black_box(&self.buffers);
                continue;
            }
            self.now += self.burst_nanos;
            let now = Now::from_nanos(self.now);
            for (i, slot) in self.slots.iter_mut().enumerate() {
                self.path.prepare(slot, 0, self.buffers.frame(i));
            }
            for slot in &mut self.slots {
                self.path.prefetch(slot);
            }
            for (i, slot) in self.slots.iter().enumerate() {
                let (tracked, passes) = self.path.judge(now, 0, self.buffers.frame(i), slot);
                let new = tracked.is_some_and(|tracked| tracked.state == CtState::New);
                wrong += usize::from(!(self.path.commit(now) && new && passes));
            }
            self.path.shard().expire(now.ticks(), EXPIRE);
        }
        wrong
    }

    #[inline(never)]
    fn fill(&mut self, packets: usize) -> usize {
        self.pass::<true>(packets)
    }

    #[inline(never)]
    fn insert(&mut self, packets: usize) -> usize {
        self.pass::<true>(packets)
    }

    #[inline(never)]
    fn generate(&mut self, packets: usize) -> usize {
        self.pass::<false>(packets)
    }
}

impl<P: Path> Case for Inserts<P> {
    fn round(&mut self, packets: usize) -> Result<Sample, String> {
        let start = self.clock.now().nanos();
        let wrong = self.insert(packets);
        let middle = self.clock.now().nanos();
        let fresh = self.fresh;
        self.generate(packets);
        let end = self.clock.now().nanos();
        self.fresh = fresh;
        if wrong != 0 {
            return Err(format!("{wrong} of {packets} flows could not be added"));
        }
        if !self.path.expects() {
            return Err("some flow was expected".into());
        }
        Ok(Sample {
            packets,
            whole: middle - start,
            generator: end - middle,
        })
    }

    fn bytes(&self) -> usize {
        self.path.reserved()
    }
}
