//! Flows end on time: a million of them in virtual time, and how much one call of
//! [`Shard::expire`] looks at. Only through the shard's own calls, whatever its tables are made of.

use super::*;
use crate::conntrack::wheel::RESOLUTION;

/// Random numbers (xorshift, Marsaglia 2003): the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u32) -> u32 {
        (((self.next() >> 32) * u64::from(limit)) >> 32) as u32
    }

    /// As likely between 1 and 2 as between 1000 and 2000.
    fn log(&mut self, from: f64, to: f64) -> u32 {
        let share = f64::from(self.below(1 << 20)) / f64::from(1 << 20);
        (from.ln() + share * (to / from).ln()).exp() as u32
    }
}

/// The frame of flow `id`: TCP that is picked up, UDP or another protocol, a sixteenth of it IPv6.
fn of(id: u32) -> Vec<u8> {
    let addrs = if id.is_multiple_of(16) {
        let src = 0xfd01 << 112 | u128::from(id);
        Addrs::V6 { src, dst: 1 }
    } else {
        let src = 0x0a00_0000 | id;
        Addrs::V4 {
            src,
            dst: 0x0b00_0001,
        }
    };
    let (sport, dport) = (1_024, 80);
    let segment = match id % 3 {
        0 => Segment::Tcp {
            sport,
            dport,
            seq: 1000,
            ack: 5000,
            flags: ACK,
            window: 1_000,
            options: &[],
        },
        1 => Segment::Udp { sport, dport },
        _ => Segment::Raw(253),
    };
    frame(addrs, segment, &[])
}

/// A bench whose flows live exactly as long as the packet at hand says.
fn bench(limit: u32) -> Bench {
    let config = Config {
        tcp_max_retrans: u8::MAX,
        ..Config::default()
    };
    let mut bench = Bench::with(config);
    bench.shard = Shard::new(
        0,
        limit,
        HashKey::from_seed(1),
        bench.now,
        bench.counters.clone(),
    );
    bench
}

impl Bench {
    /// A packet of flow `id`, which lives for `span` from now.
    fn live(&mut self, id: u32, span: Span) -> Tracked {
        let timeouts = &mut self.config.timeouts;
        timeouts.tcp[TcpState::Established as usize] = span;
        timeouts.tcp_unack = span;
        timeouts.tcp_retrans = span;
        timeouts.udp_unreplied = span;
        timeouts.generic = span;
        self.packet(&of(id))
    }

    fn pass(&mut self, span: Span) {
        self.now = self.now.plus(span);
    }
}

/// Deadlines of the model: how many flows end in each step of the clock.
struct Model {
    /// In ticks since the start.
    deadline: Vec<u64>,
    /// How many end in each step, rounded up.
    ends: Vec<u32>,
}

const STEP: u64 = RESOLUTION.0 as u64;

impl Model {
    fn set(&mut self, id: u32, deadline: u64) {
        let old = std::mem::replace(&mut self.deadline[id as usize], deadline);
        if old != 0 {
            self.ends[old.div_ceil(STEP) as usize] -= 1;
        }
        self.ends[deadline.div_ceil(STEP) as usize] += 1;
    }
}

/// A million flows, most of which live for seconds to hours and some for days, are extended or
/// shortened at any moment, 400,000 times together. In each step of the clock (which is the wheel's
/// resolution) one call with a small budget is all that expiry gets.
#[test]
fn a_million_flows_end_on_time() {
    const FLOWS: u32 = 1_000_000;
    const LONG: u32 = 10_000; // that live for days, the first ones
    const BORN: u32 = 256; // steps in which all of them start
    const BUDGET: usize = 3 * FLOWS as usize / BORN as usize;
    const DAY: u64 = 86_400_000;
    let mut bench = bench(FLOWS);
    let mut random = Random(0x5eed);
    let start = bench.now;
    let mut model = Model {
        deadline: vec![0; FLOWS as usize],
        ends: vec![0; (8 * DAY / STEP) as usize],
    };
    let span = |random: &mut Random, id: u32| match id < LONG {
        true => Span(random.log(3_600e3, 3.0 * DAY as f64)),
        false => Span(random.log(1e3, 7_200e3)),
    };
    let (mut born, mut over, mut refreshed) = (0, 0u32, 0);
    let mut step = 0;
    while over < FLOWS {
        step += 1;
        // What ended a whole step ago must be gone; what ends later must be there.
        let over_before = over;
        over += model.ends[step];
        let now = step as u64 * STEP;
        bench.now = start.plus(Span(now as u32));
        let len = bench.shard.len();
        bench.shard.expire(bench.now, BUDGET);
        assert!(len - bench.shard.len() <= 2 * BUDGET as u32);
        let there = born - bench.shard.len();
        assert!(there <= over, "step {step}: {there} ended, {over} were due");
        assert!(
            there >= over_before,
            "step {step}: {there} ended, {over_before} are late"
        );
        // The listing has every flow that lives, and none that was due a step ago.
        if step.is_power_of_two() || step % 100_000 == 0 {
            listed(&bench, &model, now);
        }
        // Then some packets, until the end of the third day.
        if now > 3 * DAY {
            continue;
        }
        for _ in 0..FLOWS.div_ceil(BORN).min(FLOWS - born) {
            let span = span(&mut random, born);
            bench.live(born, span);
            model.set(born, now + u64::from(span.0));
            born += 1;
        }
        let packets = if now < 1_000_000 {
            384
        } else {
            u32::from(step % 8 == 0)
        };
        for _ in 0..packets {
            let id = random.below(if now < 1_000_000 { born } else { LONG });
            let later = random.below(RESOLUTION.0);
            let at = now + u64::from(later);
            if model.deadline[id as usize] <= at {
                continue;
            }
            bench.now = start.plus(Span(at as u32));
            let span = span(&mut random, id);
            let said = bench.live(id, span);
            assert!(matches!(said.flow, Flow::Known(_)), "flow {id} is lost");
            model.set(id, at + u64::from(span.0));
            refreshed += 1;
        }
    }
    bench.pass(RESOLUTION);
    bench.shard.expire(bench.now, BUDGET);
    assert_eq!(bench.shard.len(), 0);
    assert_eq!(bench.counters.insert.get(), u64::from(FLOWS));
    assert_eq!(bench.counters.delete.get(), u64::from(FLOWS));
    assert!(refreshed > 400_000, "{refreshed} flows were refreshed");
}

/// Compares what the shard lists with the model, flow by flow.
fn listed(bench: &Bench, model: &Model, now: u64) {
    let mut found = vec![false; model.deadline.len()];
    let mut cursor = Some(Cursor::default());
    while let Some(at) = cursor {
        let (flows, next) = bench.shard.scan(at, 1 << 20);
        for flow in flows {
            let record = bench.shard.record(flow, bench.now);
            let id = match record.original.src {
                std::net::IpAddr::V4(src) => src.to_bits() & 0xff_ffff,
                std::net::IpAddr::V6(src) => src.to_bits() as u32,
            };
            let deadline = model.deadline[id as usize];
            assert!(deadline + STEP > now, "flow {id} outlived its time");
            assert_eq!(
                u64::from(record.timeout),
                deadline.saturating_sub(now) / 1_000
            );
            assert!(!std::mem::replace(&mut found[id as usize], true));
        }
        cursor = next;
    }
    for (id, deadline) in model.deadline.iter().enumerate() {
        assert!(found[id] || *deadline <= now, "flow {id} is lost");
    }
}

/// How many entries expiry looks at, by calls of `budget`, before the flows 2 and 8, which hang
/// around all others, are over: the number of looks that end them, divided by the budget.
fn calls(bench: &mut Bench, budget: usize) -> usize {
    let gone = |bench: &Bench, id| {
        let bytes = of(id);
        let prepared = bench.shard.prepare(&bytes, &parse(&bytes, bytes.len()), 0);
        bench.shard.peek(&prepared, start_of_time(bench)).is_none()
    };
    let mut calls = 0;
    while !(gone(bench, 2) && gone(bench, 8)) {
        calls += 1;
        let len = bench.shard.len();
        bench.shard.expire(bench.now, budget);
        assert!((len - bench.shard.len()) as usize <= budget);
    }
    calls
}

/// A moment at which every flow of the tests below still lived.
fn start_of_time(bench: &Bench) -> Ticks {
    Ticks(bench.now.0.wrapping_sub(60_000))
}

/// Flows of one wheel, in the order of the lists: 2 and 8 first and last, `others` between them.
/// All end 10 seconds from now.
fn crowd(others: u32) -> Bench {
    let mut bench = bench(others + 2);
    bench.live(2, Span::secs(10));
    for other in 0..others {
        bench.live(11 + 48 * other, Span::secs(10));
    }
    bench.live(8, Span::secs(10));
    bench
}

#[test]
fn one_call_looks_at_no_more_than_its_budget() {
    for budget in [1, 7, 100, 1_000] {
        let mut bench = crowd(998);
        bench.pass(Span::secs(11));
        assert_eq!(calls(&mut bench, budget), 1_000_usize.div_ceil(budget));
        assert_eq!(bench.shard.len(), 0);
    }
}

/// A packet that only extends its flow touches no wheel: the flow hangs where it hung, and is
/// looked at when that slot comes due. So expiry looks at all of them to end the two that were
/// not extended; had the packets moved them, it would look at two.
#[test]
fn extending_a_flow_leaves_its_timer() {
    let mut bench = crowd(98);
    bench.pass(Span::secs(5));
    for other in 0..98 {
        for span in [10, 20, 3_000] {
            bench.live(11 + 48 * other, Span::secs(span));
        }
    }
    bench.pass(Span::secs(6));
    assert_eq!(calls(&mut bench, 10), 10);
    assert_eq!(bench.shard.len(), 98);
}

/// One that shortens it moves it at once, and out of the way of the others.
#[test]
fn shortening_a_flow_moves_its_timer() {
    let mut bench = crowd(98);
    for other in 0..98 {
        bench.live(11 + 48 * other, Span::secs(3));
    }
    bench.pass(Span::secs(4));
    bench.shard.expire(bench.now, 98);
    assert_eq!(bench.shard.len(), 2);
    bench.pass(Span::secs(7));
    assert_eq!(calls(&mut bench, 1), 2);
}
