//! What is measured.

use crate::frames::{BURST, Buffers, Flow, Kind, mix, shuffle};
use shardwall::base::hash::HashKey;
use shardwall::base::time::{Now, Span};
use shardwall::conntrack::config::Config;
use shardwall::conntrack::expect::{Expecter, Master};
use shardwall::conntrack::helper::{Class, Expect, HelperId, Info, Permissions};
use shardwall::conntrack::limit::Budget;
use shardwall::conntrack::shard::{CtCounters, Flow as Known, Shard, Tracked};
use shardwall::conntrack::tuple::Tuple;
use shardwall::conntrack::types::{CtState, Dir, proto};
use shardwall::dataplane::clock::Clock;
use shardwall::pipeline::{Counters, Disposition, Pipeline, Slot};
use shardwall::policy::{self, Compiled, PortId};
use shardwall::wire::inner::Ports;
use shardwall::wire::{self, Addrs, Checksum};
use std::hint::black_box;
use std::sync::Arc;

const SECRET: HashKey = HashKey::from_seed(7);
/// Virtual time between two bursts: 10 Mpps.
const BURST_NANOS: u64 = 3_200;
/// Entries whose timers the worker looks at in one loop.
pub(crate) const EXPIRE: usize = 64;
/// Where the classifications go.
const CLASSES: usize = 1024;

/// What one round took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) packets: usize,
    /// With the generator.
    pub(crate) whole: u64,
    /// The generator alone.
    pub(crate) generator: u64,
}

/// Something that is measured in rounds.
pub(crate) trait Case {
    /// Runs over `packets` packets; an error if one was not judged as expected.
    fn round(&mut self, packets: usize) -> Result<Sample, String>;

    /// Bytes that the tables have reserved, both families.
    fn bytes(&self) -> usize;
}

/// The stages of a packet, over whatever is measured.
pub(crate) trait Path {
    fn prepare(&self, slot: &mut Slot, from: usize, data: &[u8]);
    fn prefetch(&self, slot: &mut Slot);
    /// The judgement, and whether the packet passes.
    fn judge(&mut self, now: Now, from: usize, data: &[u8], slot: &Slot)
    -> (Option<Tracked>, bool);
    /// Enters the flow of the packet just judged, where the judgement did not.
    fn commit(&mut self, now: Now) -> bool;
    fn shard(&mut self) -> &mut Shard;
    /// Whether its packets have flows.
    fn tracks(&self) -> bool {
        true
    }
    /// Whether what was expected is expected still.
    fn expects(&self) -> bool {
        true
    }
    /// Bytes that its tables have reserved.
    fn reserved(&self) -> usize;
}

/// The place of one of several workers that share a box's limits.
#[derive(Debug)]
pub(crate) struct Seat {
    worker: usize,
    workers: usize,
    budget: Arc<Budget>,
    expecter: Expecter,
}

impl Seat {
    /// Those of all workers of a box, each of which keeps up to `limit` flows, and does not use all
    /// of the room that it has taken.
    pub(crate) fn all(workers: usize, limit: u32) -> Vec<Self> {
        let limit = limit + limit / 4 + 4096;
        let budget = Arc::new(Budget::new(limit * workers as u32, workers as u32));
        let ends = Pipeline::expecters(&budget, workers, Config::default().expect_max);
        let seat = |(worker, expecter)| Self {
            worker,
            workers,
            budget: budget.clone(),
            expecter,
        };
        ends.into_iter().enumerate().map(seat).collect()
    }
}

/// The tracker alone.
#[derive(Debug)]
pub(crate) struct ShardPath {
    shard: Shard,
    config: Config,
    /// What the port says of transport checksums.
    sums: Checksum,
    /// Another worker, whose flows expect others.
    expecter: Option<Expecter>,
}

static HELPERS: [&Info; 1] = [&HELPER];

/// Expectations of [`ShardPath::expecting`].
const EXPECTATIONS: u32 = 10_000;
/// Expectations of one control flow there.
const EACH: u32 = 200;

static HELPER: Info = Info {
    name: "bench",
    protos: &[proto::TCP],
    ipv6: false,
    classes: &[Class {
        name: "bench",
        max: EACH as u8,
        timeout: Span::secs(86_400),
    }],
};

impl ShardPath {
    pub(crate) fn new(limit: u32, sums: Checksum) -> Self {
        let counters = Arc::new(CtCounters::default());
        let now = Now::from_secs(1).ticks();
        let mut shard = Shard::new(0, limit, SECRET, now, counters);
        shard.populate();
        Self {
            shard,
            config: Config::default(),
            sums,
            expecter: None,
        }
    }

    /// The same, while another worker's control flows expect [`EXPECTATIONS`] flows, which never
    /// come.
    pub(crate) fn expecting(limit: u32, sums: Checksum) -> Result<Self, String> {
        let now = Now::from_secs(1).ticks();
        let budget = Arc::new(Budget::new(limit, 1));
        let ends = Shard::expecters(&budget, 2, 65_536, &HELPERS);
        let mut ends = ends.map_err(|error| error.to_string())?.into_iter();
        let (Some(own), Some(mut other)) = (ends.next(), ends.next()) else {
            return Err("two workers have two ends".into());
        };
        for number in 0..EXPECTATIONS {
            let (list, port) = (number / EACH, 1024 + (number % EACH) as u16);
            let addrs = Addrs::V4 {
                src: 0xc000_0200,
                dst: 0xc633_0000 + list,
            };
            let master = Master {
                tuple: Tuple {
                    addrs,
                    proto: proto::TCP,
                    ports: Ports::Ports { sport: 1, dport: 2 },
                    zone: 0,
                },
                helper: HelperId::new(0).ok_or("no first helper")?,
                permissions: Permissions::default(),
                mark: 0,
            };
            let wanted = Expect::once(proto::UDP, Some(addrs.src()), addrs.dst(), port);
            other
                .expect((&master, list), &wanted, now, |_, _| {})
                .map_err(|why| why.name().to_owned())?;
        }
        let counters = Arc::new(CtCounters::default());
        let mut shard = Shard::sharing(0, budget, own, SECRET, now, counters);
        shard.populate();
        match shard.expected() {
            EXPECTATIONS => Ok(Self {
                shard,
                config: Config::default(),
                sums,
                expecter: Some(other),
            }),
            live => Err(format!("{live} expectations")),
        }
    }

    /// That of one worker among others.
    pub(crate) fn sharing(seat: Seat, sums: Checksum) -> Self {
        let counters = Arc::new(CtCounters::default());
        let now = Now::from_secs(1).ticks();
        let id = seat.worker as u16;
        let mut shard = Shard::sharing(id, seat.budget, seat.expecter, SECRET, now, counters);
        shard.populate();
        Self {
            shard,
            config: Config::default(),
            sums,
            expecter: None,
        }
    }
}

impl Path for ShardPath {
    #[inline(always)]
    fn prepare(&self, slot: &mut Slot, _: usize, data: &[u8]) {
        let Slot { parsed, prepared } = slot;
        wire::parse_into(parsed, data, data.len());
        parsed.l4_sum = self.sums;
        self.shard.prepare_into(prepared, data, parsed, 0);
    }

    #[inline(always)]
    fn prefetch(&self, slot: &mut Slot) {
        self.shard.prefetch(&mut slot.prepared);
    }

    #[inline(always)]
    fn judge(&mut self, now: Now, _: usize, data: &[u8], slot: &Slot) -> (Option<Tracked>, bool) {
        let Slot { parsed, prepared } = slot;
        let (now, config) = (now.ticks(), &self.config);
        let tracked = self.shard.track(data, parsed, prepared, false, now, config);
        (Some(tracked), true)
    }

    fn commit(&mut self, now: Now) -> bool {
        self.shard.commit(now.ticks()).is_ok()
    }

    fn shard(&mut self) -> &mut Shard {
        &mut self.shard
    }

    fn expects(&self) -> bool {
        self.expecter.is_none() || self.shard.expected() == EXPECTATIONS
    }

    fn reserved(&self) -> usize {
        self.shard.bytes()
    }
}

/// Raw rules, tracker, policy and verdict; or without the tracker, by two raw rules.
#[derive(Debug)]
pub(crate) struct PipelinePath<const TRACKS: bool> {
    pipeline: Pipeline,
    policy: Compiled,
}

const NOTRACK: &str = r#"
version: 1
ports:
  lan: { device: net_null0 }
  wan: { device: net_null1 }
bridge: [[lan, wan]]
raw:
  - { name: web, proto: tcp, dport: 443, action: notrack }
  - { name: web-back, proto: tcp, sport: 443, action: notrack }
chains:
  forward:
    policy: drop
    rules:
      - { name: known, ct: [established, related], action: accept }
      - { name: broken, ct: invalid, action: drop }
      - { name: web, ct: untracked, proto: tcp, dport: 443, action: accept }
      - { name: web-back, ct: untracked, proto: tcp, sport: 443, action: accept }
"#;

const POLICY: &str = r#"
version: 1
ports:
  lan: { device: net_null0 }
  wan: { device: net_null1 }
bridge: [[lan, wan]]
raw:
  - { name: quake, proto: udp, dport: 27960, action: notrack }
chains:
  forward:
    policy: drop
    rules:
      - { name: known, ct: [established, related], action: accept }
      - { name: broken, ct: invalid, action: drop }
      - { name: outbound, iif: lan, ct: new, action: accept }
"#;

impl<const TRACKS: bool> PipelinePath<TRACKS> {
    pub(crate) fn new(limit: u32) -> Result<Self, String> {
        let counters = Arc::new(Counters::default());
        let pipeline = Pipeline::new(0, limit, SECRET, Now::from_secs(1), counters);
        Self::with(pipeline, 1)
    }

    /// That of one worker among others.
    pub(crate) fn sharing(seat: Seat) -> Result<Self, String> {
        let counters = Arc::new(Counters::default());
        let now = Now::from_secs(1);
        let Seat {
            worker,
            workers,
            budget,
            expecter,
        } = seat;
        let pipeline = Pipeline::sharing(worker, budget, expecter, SECRET, now, counters);
        Self::with(pipeline, workers)
    }

    fn with(mut pipeline: Pipeline, workers: usize) -> Result<Self, String> {
        let text = if TRACKS { POLICY } else { NOTRACK };
        let checked = policy::parse("bench", text).map_err(|errors| errors.to_string())?;
        pipeline.shard_mut().populate();
        Ok(Self {
            pipeline,
            policy: policy::compile(&checked.model, 1, workers),
        })
    }
}

impl<const TRACKS: bool> Path for PipelinePath<TRACKS> {
    #[inline(always)]
    fn prepare(&self, slot: &mut Slot, from: usize, data: &[u8]) {
        let iif = PortId(from as u8);
        self.pipeline
            .prepare(slot, &self.policy, iif, data, data.len());
        slot.parsed.l4_sum = Checksum::Good;
    }

    #[inline(always)]
    fn prefetch(&self, slot: &mut Slot) {
        self.pipeline.prefetch(slot);
    }

    #[inline(always)]
    fn judge(
        &mut self,
        now: Now,
        from: usize,
        data: &[u8],
        slot: &Slot,
    ) -> (Option<Tracked>, bool) {
        let iif = PortId(from as u8);
        let outcome = self.pipeline.decide(&self.policy, now, iif, data, slot);
        let passes = outcome.disposition == Disposition::Forward(PortId(1 - from as u8));
        (outcome.tracked, passes)
    }

    fn commit(&mut self, _: Now) -> bool {
        true
    }

    fn shard(&mut self) -> &mut Shard {
        self.pipeline.shard_mut()
    }

    fn tracks(&self) -> bool {
        TRACKS
    }

    fn reserved(&self) -> usize {
        self.pipeline.shard().bytes()
    }
}

/// How packets go through the stages.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stages {
    /// So many through one stage, then through the next, as the worker does with a burst.
    Blocks(usize),
    /// One by one, the second stage `near` packets behind the first and the third `far`, across
    /// bursts.
    Rolling { near: usize, far: usize },
}

/// Packets that may be on their way.
const RING: usize = 2 * BURST;

/// Packets of known flows, in both directions, in random order.
#[derive(Debug)]
pub(crate) struct Hits<P> {
    path: P,
    flows: Vec<Flow>,
    /// For the generator alone, whose packets the tracker must not miss.
    spare: Vec<Flow>,
    buffers: Buffers,
    stages: Stages,
    slots: [Slot; BURST],
    /// What is on its way through rolling stages, the side that sent it, and how many there were.
    ring: Box<[Slot; RING]>,
    sides: [usize; RING],
    rolled: usize,
    classes: Vec<Option<Tracked>>,
    next: usize,
    bursts: u64,
    now: u64,
    clock: Clock,
}

impl<P: Path> Hits<P> {
    /// A table with `count` flows that are established.
    pub(crate) fn new(mut path: P, kind: Kind, count: u32) -> Result<Self, String> {
        let mut flows = Flow::table(count, kind);
        let start = Now::from_secs(1);
        for flow in &mut flows {
            for step in 0..if kind.is_tcp() { 3 } else { 2 } {
                let (from, frame) = flow.opening(kind, step);
                let mut slot = Slot::default();
                path.prepare(&mut slot, from, &frame);
                let (tracked, passes) = path.judge(start, from, &frame, &slot);
                let new = step == 0;
                let state = match new {
                    _ if !path.tracks() => CtState::Untracked,
                    true => CtState::New,
                    false => CtState::Established,
                };
                let right = passes && tracked.is_some_and(|tracked| tracked.state == state);
                if !right || (new && !path.commit(start)) {
                    return Err(format!("the handshake failed: {tracked:?}"));
                }
            }
        }
        shuffle(&mut flows);
        Ok(Self {
            path,
            spare: flows.clone(),
            flows,
            buffers: Buffers::new(kind),
            stages: Stages::Blocks(BURST),
            slots: [Slot::default(); BURST],
            ring: Box::new([Slot::default(); RING]),
            sides: [0; RING],
            rolled: 0,
            classes: vec![None; CLASSES],
            next: 0,
            bursts: 0,
            now: Now::from_secs(4).nanos(), // UDP flows are streams by now
            clock: Clock::start(),
        })
    }

    /// The same, through other stages.
    pub(crate) fn by(self, stages: Stages) -> Self {
        Self { stages, ..self }
    }

    /// Runs over `packets` packets and returns how many were not judged as expected.
    #[inline(always)]
    fn pass<const TRACK: bool>(&mut self, packets: usize) -> usize {
        let mut wrong = 0;
        for _ in 0..packets / BURST {
            let random = mix(self.bursts);
            self.bursts += 1;
            self.buffers.turn();
            let flows = if TRACK {
                &mut self.flows
            } else {
                &mut self.spare
            };
            let mut next = self.next;
            for i in 0..BURST {
                let from = (random >> i & 1) as usize;
                let payload = random >> (32 + i) & 1 != 0;
                self.buffers.write(i, &mut flows[next], from, payload);
                next += 1;
                if next == flows.len() {
                    next = 0;
                }
            }
            self.next = next;
            if !TRACK {
                black_box(&self.buffers);
                continue;
            }
            self.now += BURST_NANOS;
            let now = Now::from_nanos(self.now);
            wrong += match self.stages {
                Stages::Blocks(len) => self.blocks(len, random, now),
                Stages::Rolling { near, far } => self.rolling(near, far, random, now),
            };
            black_box(&self.classes);
            self.path.shard().expire(now.ticks(), EXPIRE);
        }
        wrong
    }

    /// Takes the burst through the stages in blocks of `len`.
    #[inline(always)]
    fn blocks(&mut self, len: usize, random: u64, now: Now) -> usize {
        let side = |i: usize| (random >> i & 1) as usize;
        let mut wrong = 0;
        for start in (0..BURST).step_by(len) {
            let block = start..start + len;
            for (i, slot) in block.clone().zip(&mut self.slots[block.clone()]) {
                self.path.prepare(slot, side(i), self.buffers.frame(i));
            }
            for slot in &mut self.slots[block.clone()] {
                self.path.prefetch(slot);
            }
            for i in block {
                let slot = &self.slots[i];
                let frame = self.buffers.frame(i);
                let judged = self.path.judge(now, side(i), frame, slot);
                let at = self.bursts as usize * BURST + i;
                wrong += usize::from(!self.expected(at, side(i), judged));
            }
        }
        wrong
    }

    /// Takes every packet of the burst through its first stage, and with it the packet `near` before
    /// it through the second and the one `far` before it through the third, be they of this burst or
    /// of the one before.
    #[inline(always)]
    fn rolling(&mut self, near: usize, far: usize, random: u64, now: Now) -> usize {
        let mut wrong = 0;
        for i in 0..BURST {
            let at = self.rolled;
            self.rolled += 1;
            let side = (random >> i & 1) as usize;
            self.sides[at % RING] = side;
            let frame = self.buffers.earlier(i, 0);
            self.path.prepare(&mut self.ring[at % RING], side, frame);
            let second = at.wrapping_sub(near);
            self.path.prefetch(&mut self.ring[second % RING]);
            let Some(third) = at.checked_sub(far) else {
                continue;
            };
            let (slot, side) = (&self.ring[third % RING], self.sides[third % RING]);
            let frame = self.buffers.earlier(i, far);
            let judged = self.path.judge(now, side, frame, slot);
            wrong += usize::from(!self.expected(third, side, judged));
        }
        wrong
    }

    /// Writes a classification out, and says whether it is what it must be.
    #[inline(always)]
    fn expected(&mut self, at: usize, side: usize, judged: (Option<Tracked>, bool)) -> bool {
        let (tracked, passes) = judged;
        self.classes[at % CLASSES] = tracked;
        let dir = if side == 0 { Dir::Original } else { Dir::Reply };
        let right = tracked.is_some_and(|tracked| {
            if !self.path.tracks() {
                return tracked.state == CtState::Untracked;
            }
            (tracked.state == CtState::Established)
                & (tracked.dir == Some(dir))
                & (tracked.flow != Known::None)
        });
        right & passes
    }

    #[inline(never)]
    fn track(&mut self, packets: usize) -> usize {
        self.pass::<true>(packets)
    }

    #[inline(never)]
    fn generate(&mut self, packets: usize) -> usize {
        self.pass::<false>(packets)
    }
}

impl<P: Path> Case for Hits<P> {
    fn round(&mut self, packets: usize) -> Result<Sample, String> {
        let place = self.next;
        let start = self.clock.now().nanos();
        let wrong = self.track(packets);
        let middle = self.clock.now().nanos();
        let after = std::mem::replace(&mut self.next, place);
        let resume = self.clock.now().nanos();
        self.generate(packets);
        let end = self.clock.now().nanos();
        self.next = after;
        if wrong != 0 {
            return Err(format!(
                "{wrong} of {packets} packets were not judged as expected"
            ));
        }
        Ok(Sample {
            packets,
            whole: middle - start,
            generator: end - resume,
        })
    }

    fn bytes(&self) -> usize {
        self.path.reserved()
    }
}

/// A cycle through as many lines as there are flows, in random order.
#[derive(Debug)]
pub(crate) struct Chase {
    lines: Vec<Line>,
    clock: Clock,
}

#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Line(u32);

impl Chase {
    pub(crate) fn new(count: u32) -> Self {
        let mut order: Vec<u32> = (0..count).collect();
        shuffle(&mut order);
        let mut lines = vec![Line(0); count as usize];
        for (at, &line) in order.iter().enumerate() {
            lines[line as usize] = Line(order[(at + 1) % order.len()]);
        }
        Self {
            lines,
            clock: Clock::start(),
        }
    }
}

impl Case for Chase {
    fn round(&mut self, packets: usize) -> Result<Sample, String> {
        let start = self.clock.now().nanos();
        let mut at = 0;
        for _ in 0..packets {
            at = self.lines[at as usize].0;
        }
        black_box(at);
        let end = self.clock.now().nanos();
        Ok(Sample {
            packets,
            whole: end - start,
            generator: 0,
        })
    }

    fn bytes(&self) -> usize {
        0
    }
}
