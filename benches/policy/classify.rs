//! Reading, compiling, and classifying.

use crate::report::{Sorted, Table};
use crate::rules::{Call, Rng, RuleSet, Style, v6};
use crate::{Args, Outcome};
use rustix::time::{ClockId, clock_gettime};
use shardwall::base::time::Now;
use shardwall::conntrack::types::{CtState, Dir};
use shardwall::dataplane::clock::Clock;
use shardwall::policy::{self, Compiled, Facts, PortId, RuleId};
use shardwall::wire::build::{Segment, frame};
use shardwall::wire::tcp::flags;
use shardwall::wire::{self, Addrs, Parsed};
use std::hint::black_box;

/// What a policy begins with.
pub(crate) const HEAD: &str = "version: 1\n\
    ports: { lan: { device: net_null0 }, wan: { device: net_null1 } }\n\
    bridge: [[lan, wan]]\n";

/// Times of one pass over all packets are worth little; a policy of 100,000 rules is read only so
/// often.
const COMPILES: usize = 5;

pub(crate) fn table(args: &Args) -> Table {
    Table::new(
        &format!(
            "{} packets, {} rounds; read and compile: processor time, least (median) of {COMPILES}, and memory at most; \
             a packet that starts a flow, in ns: classified, and read rule by rule",
            args.packets, args.rounds
        ),
        &[
            "rules",
            "entries",
            "text MB",
            "read ms",
            "read MB",
            "compile ms",
            "compile MB",
            "classifier MB",
            "mean",
            "p50",
            "p99",
            "linear mean",
            "linear p50",
            "linear p99",
        ],
    )
}

/// Most memory that `work` had in use beyond what there was, in MB, and what it gave.
fn peak<T>(work: impl FnOnce() -> T) -> (f64, T) {
    // the kernel then begins to watch anew
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let before = status("VmRSS:");
    let result = work();
    (
        status("VmHWM:").saturating_sub(before) as f64 / 1024.0,
        result,
    )
}

/// A figure of the kernel's about this process, in KiB.
fn status(key: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// The frame of the first packet of a flow.
pub(crate) fn first(call: &Call, sport: u16) -> Vec<u8> {
    let addrs = if call.v6 {
        Addrs::V6 {
            src: v6(call.src),
            dst: v6(call.dst),
        }
    } else {
        Addrs::V4 {
            src: call.src,
            dst: call.dst,
        }
    };
    let dport = call.dport;
    let segment = match call.proto {
        6 => Segment::Tcp {
            sport,
            dport,
            seq: 1,
            ack: 0,
            flags: flags::SYN,
            window: 64_240,
            options: &[],
        },
        17 => Segment::Udp { sport, dport },
        58 => Segment::Icmp {
            ty: 128,
            code: 0,
            rest: 1,
        },
        _ => Segment::Icmp {
            ty: 8,
            code: 0,
            rest: 1,
        },
    };
    frame(addrs, segment, b"")
}

struct Packets {
    parsed: Vec<(Parsed, PortId)>,
    /// The order of one round.
    order: Vec<u32>,
}

impl Packets {
    fn new(set: &RuleSet, count: usize) -> Self {
        let one = |n: u64| {
            let call = set.call(n, None);
            let frame = first(&call, 1024 + (n % 60_000) as u16);
            let mut parsed = Parsed::NOTHING;
            wire::parse_into(&mut parsed, &frame, frame.len());
            (parsed, PortId(call.iif as u8))
        };
        Self {
            parsed: (0..count as u64).map(one).collect(),
            order: (0..count as u32).collect(),
        }
    }

    fn shuffle(&mut self, rng: &mut Rng) {
        for last in (1..self.order.len()).rev() {
            self.order.swap(last, rng.below(last as u64 + 1) as usize);
        }
    }

    /// A packet as it has just been parsed: a copy at hand, in the nearest cache.
    fn packet(&self, at: u32) -> (Parsed, PortId) {
        black_box(self.parsed[at as usize])
    }

    fn facts((packet, iif): &(Parsed, PortId)) -> Facts<'_> {
        Facts {
            packet,
            iif: *iif,
            oif: PortId(1 - iif.0),
            state: CtState::New,
            dir: Some(Dir::Original),
            flow: None,
            now: Now::from_secs(1),
        }
    }
}

/// One way to classify.
struct Way {
    policy: Compiled,
    /// Every so many packets are looked at.
    step: usize,
    each: Vec<Vec<f64>>,
    means: Vec<f64>,
    rules: Vec<Option<RuleId>>,
}

impl Way {
    fn new(policy: Compiled, packets: &Packets, step: usize) -> Self {
        let count = packets.parsed.len();
        Self {
            policy,
            step,
            each: vec![Vec::new(); count],
            means: Vec::new(),
            rules: vec![None; count],
        }
    }

    fn round(&mut self, packets: &Packets, clock: &Clock) {
        let own = || packets.order.iter().step_by(self.step);
        let start = busy();
        self.sweep(packets);
        self.means.push((busy() - start) / own().count() as f64);
        for at in own() {
            let packet = packets.packet(*at);
            let facts = Packets::facts(&packet);
            let start = clock.now().nanos();
            let decision = black_box(self.policy.forward(0, black_box(&facts)));
            let end = clock.now().nanos();
            self.each[*at as usize].push((end - start) as f64);
            self.rules[*at as usize] = Some(decision.rule);
        }
    }

    /// Classifies all packets; a function of its own, so that its instructions can be counted.
    #[inline(never)]
    fn sweep(&self, packets: &Packets) {
        for at in packets.order.iter().step_by(self.step) {
            let packet = packets.packet(*at);
            black_box(self.policy.forward(0, &Packets::facts(&packet)));
        }
    }

    /// Mean, median and 99th percentile, in ns.
    fn cells(&self, clock: f64) -> [String; 3] {
        let each = self.each.iter().filter(|times| !times.is_empty());
        let each = Sorted::new(
            each.map(|times| Sorted::new(times.clone()).median())
                .collect(),
        );
        let net = |share| format!("{:.0}", (each.at(share) - clock).max(0.0));
        let mean = Sorted::new(self.means.clone()).median();
        [format!("{mean:.0}"), net(0.5), net(0.99)]
    }
}

/// Nanoseconds of processor time of this thread: what else runs on the core does not count.
pub(crate) fn busy() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// What two readings of the clock take.
fn overhead(clock: &Clock) -> f64 {
    let one = |_| {
        let start = black_box(clock).now().nanos();
        (black_box(clock).now().nanos() - start) as f64
    };
    Sorted::new((0..10_000).map(one).collect()).median()
}

/// Classifies every packet once, under a policy of `rules` rules, and looks at no clock: what counts
/// instructions may know none.
pub(crate) fn once(args: &Args, rules: usize) -> Outcome<()> {
    let set = RuleSet::new(rules, 1);
    let checked = policy::parse("bench", &set.policy(HEAD, &Style::USUAL))?;
    let packets = Packets::new(&set, args.packets);
    Way::new(policy::compile(&checked.model, 1, 1), &packets, 1).sweep(&packets);
    Ok(())
}

/// The figures of a policy of `rules` rules.
pub(crate) fn row(args: &Args, rules: usize) -> Outcome<Vec<String>> {
    let clock = Clock::start();
    let set = RuleSet::new(rules, 1);
    let text = set.policy(HEAD, &Style::USUAL);
    let timed = |work: &mut dyn FnMut()| {
        let start = busy();
        work();
        (busy() - start) / 1e6
    };
    let (read_peak, checked) = peak(|| policy::parse("bench", &text));
    let checked = checked?;
    let turns = COMPILES.min(args.rounds);
    let read = (0..turns).map(|_| timed(&mut || drop(black_box(policy::parse("bench", &text)))));
    let read = Sorted::new(read.collect());
    let (compile_peak, compiled) = peak(|| policy::compile(&checked.model, 1, 1));
    let compile =
        (0..turns).map(|_| timed(&mut || drop(black_box(policy::compile(&checked.model, 1, 1)))));
    let compile = Sorted::new(compile.collect());
    let bytes = compiled.classifier_bytes();
    let plain =
        (rules <= args.linear).then(|| policy::compile(&checked.model, 1, 1).without_classifier());

    let mut packets = Packets::new(&set, args.packets);
    let mut classified = Way::new(compiled, &packets, 1);
    let step = (rules / 10_000).max(1);
    let mut linear = plain.map(|plain| Way::new(plain, &packets, step));
    let mut rng = Rng(2);
    let mut clocks = Vec::new();
    for _ in 0..args.rounds {
        packets.shuffle(&mut rng);
        classified.round(&packets, &clock);
        if let Some(linear) = &mut linear {
            linear.round(&packets, &clock);
        }
        clocks.push(overhead(&clock));
    }
    let clock = Sorted::new(clocks).median();
    if let Some(linear) = &linear {
        let pairs = classified.rules.iter().zip(&linear.rules);
        let wrong = pairs.filter(|(one, other)| other.is_some() && one != other);
        if wrong.count() > 0 {
            return Err("classifier and plain reading come to different rules".into());
        }
    }
    let megabytes = |bytes: usize| format!("{:.1}", bytes as f64 / 1e6);
    let [mean, p50, p99] = classified.cells(clock);
    let [linear_mean, linear_p50, linear_p99] = match linear {
        Some(linear) => linear.cells(clock),
        None => ["-".to_owned(), "-".to_owned(), "-".to_owned()],
    };
    Ok(vec![
        set.len().to_string(),
        set.entries().to_string(),
        megabytes(text.len()),
        read.least_and_median(1),
        format!("{read_peak:.0}"),
        compile.least_and_median(1),
        format!("{compile_peak:.0}"),
        megabytes(bytes),
        mean,
        p50,
        p99,
        linear_mean,
        linear_p50,
        linear_p99,
    ])
}
