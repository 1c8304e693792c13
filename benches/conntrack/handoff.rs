//! What it costs when every packet must be handed over: whole workers, with their rings, over ports that
//! have a frame for each that left. So as much is under way as the rings hold, and nothing is lost: with
//! more, a worker that is a little faster would spend its time on what no ring has room for.
//!
//! Two workers poll two ports each. In one stretch all frames that come to a worker are of its own flows, in
//! the next all are of the other's, so that each goes through a ring and is parsed twice; stretches take
//! turns. Frames are pointers, as those of DPDK are. What they point to is written once, so with few flows it
//! is in the caches of both cores, and with many it comes from the cache that they share, like what a NIC
//! wrote. What counts is what was forwarded, by the processor time of the workers.

use crate::frames::mix;
use crate::report::Machine;
use crate::{Args, scale};
use crossbeam::utils::CachePadded;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use shardwall::base::hash::HashKey;
use shardwall::base::rcu::{Domain, Rcu};
use shardwall::base::time::Now;
use shardwall::base::toeplitz::SymmetricKey;
use shardwall::conntrack::tuple::Tuple;
use shardwall::dataplane::clock::Clock;
use shardwall::dataplane::command;
use shardwall::dataplane::handoff::{RING, Rings};
use shardwall::dataplane::idle::Idle;
use shardwall::dataplane::io::{Batch, Frame, Io};
use shardwall::dataplane::shared::Shared;
use shardwall::dataplane::steer::{BUCKETS, Steer, Steering};
use shardwall::dataplane::worker::{Parts, Worker};
use shardwall::pipeline::defrag::{Defrag, Limits};
use shardwall::pipeline::{DropReason, Pipeline};
use shardwall::policy::{self, PortId};
use shardwall::wire::build::{Segment, frame};
use shardwall::wire::tcp::flags;
use shardwall::wire::{Addrs, Checksum, parse};
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

/// Workers, each of which hands over to the other.
const WORKERS: usize = 2;
const PORTS: usize = 2;
/// Frames of a worker that are under way; a ring has room for them.
const WINDOW: usize = RING / 2;
/// Nanoseconds of a stretch.
const STRETCH: u64 = 100_000_000;
const SECRET: HashKey = HashKey::from_seed(1);

const POLICY: &str = "
version: 1
ports: { lan: { device: net_null0 }, wan: { device: net_null1 } }
bridge: [[lan, wan]]
chains:
  forward:
    policy: drop
    rules:
      - { name: known, ct: [established, related], action: accept }
      - { name: broken, ct: invalid, action: drop }
      - { name: new, ct: new, action: accept }
";

/// Bytes of every frame.
const LEN: usize = 54;

/// A frame in a line of its own.
#[derive(Debug)]
#[repr(align(64))]
struct Line([u8; LEN]);

/// A pointer to one, and the worker that it came to.
#[derive(Clone, Copy, Debug)]
struct Pointer(&'static Line, usize);

/// For each worker, frames that may still come to it.
type Credits = [CachePadded<AtomicUsize>; WORKERS];

impl Frame for Pointer {
    fn data(&self) -> &[u8] {
        &self.0.0
    }

    /// Nothing here is written to.
    fn data_mut(&mut self) -> &mut [u8] {
        &mut []
    }

    fn frame_len(&self) -> usize {
        LEN
    }

    fn l4_sum(&self) -> Checksum {
        Checksum::Good
    }
}

/// Frames that come round.
#[derive(Debug, Default)]
struct Loop {
    frames: Vec<Pointer>,
    next: usize,
}

/// One worker's ports.
#[derive(Debug)]
struct Endless {
    /// For each port, of the worker's own flows, and of the other's.
    loops: [[Loop; 2]; PORTS],
    /// Which of both.
    foreign: Arc<AtomicBool>,
    worker: usize,
    credits: Arc<Credits>,
}

impl Io for Endless {
    type Buf = Pointer;

    fn ports(&self) -> usize {
        PORTS
    }

    fn rx(&mut self, port: PortId, out: &mut Batch<Pointer>) {
        let which = usize::from(self.foreign.load(Ordering::Relaxed));
        let Loop { frames, next } = &mut self.loops[usize::from(port.0)][which];
        let credit = &self.credits[self.worker];
        let count = credit.load(Ordering::Relaxed).min(out.remaining_capacity());
        for _ in 0..count {
            out.push(frames[*next]);
            *next = (*next + 1) % frames.len();
        }
        credit.fetch_sub(count, Ordering::Relaxed);
    }

    fn tx(&mut self, _: PortId, frames: &mut Batch<Pointer>) {
        let mut left = [0; WORKERS];
        for frame in frames.drain(..) {
            left[frame.1] += 1;
        }
        for (credit, left) in self.credits.iter().zip(left) {
            if left > 0 {
                credit.fetch_add(left, Ordering::Relaxed);
            }
        }
    }

    fn alloc(&mut self, _: usize) -> Option<Pointer> {
        None
    }
}

/// A packet of flow number `n` that comes in by `port`, and whose flow that is.
fn packet(n: u32, port: usize, steer: &Steer) -> Option<(Line, usize)> {
    let addrs = Addrs::V4 {
        src: 0x0a00_0000 | n,
        dst: 0xc0a8_0000 | (mix(n.into()) & 0xffff) as u32,
    };
    let (sport, dport) = (1024, 443);
    let (addrs, sport, dport) = match port {
        0 => (addrs, sport, dport),
        _ => (addrs.flip(), dport, sport),
    };
    let segment = Segment::Tcp {
        sport,
        dport,
        seq: 1000,
        ack: 1000,
        flags: flags::ACK,
        window: 64_240,
        options: &[],
    };
    let frame = frame(addrs, segment, b"");
    let key = Tuple::of(&parse(&frame, frame.len()), 0)?.key()?.0;
    let line = Line(frame.try_into().ok()?);
    Some((line, steer.place(steer.bucket(&key)).owner()))
}

/// What the workers did in a stretch.
#[derive(Clone, Copy, Debug, Default)]
struct Stretch {
    /// Packets of all a second of processor time of one.
    rate: f64,
    forwarded: u64,
    lost: u64,
    handed: u64,
}

/// Stretches without handing over, and with.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<(u32, Vec<[Stretch; 2]>)>,
}

fn busy() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

fn contest(args: &Args, flows: u32) -> Result<Vec<[Stretch; 2]>, String> {
    let text = format!("{POLICY}conntrack: {{ max: {} }}\n", flows * 2);
    let checked = policy::parse("bench", &text).map_err(|error| error.to_string())?;
    let compiled = policy::compile(&checked.model, 1, WORKERS);
    let (domain, readers) = Domain::new(WORKERS);
    let clock = Clock::start();
    let steering = Steering::new(SymmetricKey::random(), SECRET, WORKERS, BUCKETS);
    let steer = Steer::new(steering.clone());
    let shared = Arc::new(Shared::new(Rcu::new(domain, compiled), steering, clock));
    let foreign = Arc::new(AtomicBool::new(false));
    let mut loops: [[[Loop; 2]; PORTS]; WORKERS] = Default::default();
    let mut order: Vec<u32> = (0..flows).collect();
    order.sort_by_key(|n| mix(u64::from(*n) + 7));
    // To the end of the process.
    let leak = |lines: Vec<Line>| -> &'static [Line] { Vec::leak(lines) };
    for port in 0..PORTS {
        let mut owned: [Vec<Line>; WORKERS] = Default::default();
        for n in &order {
            let (line, owner) = packet(*n, port, &steer).ok_or("a frame without a key")?;
            owned[owner].push(line);
        }
        for (owner, lines) in owned.map(leak).into_iter().enumerate() {
            for (worker, loops) in loops.iter_mut().enumerate() {
                let which = usize::from(worker != owner);
                let frames = lines.iter().map(|line| Pointer(line, worker));
                loops[port][which].frames = frames.collect();
            }
        }
    }
    let window = || CachePadded::new(AtomicUsize::new(WINDOW));
    let credits: Arc<Credits> = Arc::new(std::array::from_fn(|_| window()));
    let (log, _events) = crossbeam::channel::bounded(1);
    let mut mailboxes = Vec::new();
    let workers = loops.into_iter().zip(Rings::mesh(WORKERS)).zip(readers);
    let workers: Vec<_> = workers
        .enumerate()
        .map(|(id, ((loops, rings), reader))| {
            let (mailbox, commands) = command::mailbox();
            mailboxes.push(mailbox);
            let counters = shared.workers[id].path.clone();
            Worker::new(Parts {
                id,
                io: Endless {
                    loops,
                    foreign: foreign.clone(),
                    worker: id,
                    credits: credits.clone(),
                },
                pipeline: Pipeline::new(id, flows, SECRET, Now::from_secs(1), counters.clone()),
                defrag: Defrag::new(Limits::DEFAULT, SECRET, counters),
                rings,
                commands,
                log: log.clone(),
                reader,
                shared: shared.clone(),
                idle: Idle::Spin,
            })
        })
        .collect();
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let cores = cores
        .get(cores.len().saturating_sub(WORKERS)..)
        .filter(|cores| cores.len() == WORKERS)
        .ok_or("there are too few cores")?;
    let barrier = Barrier::new(WORKERS);
    let sum = |of: &dyn Fn(&shardwall::dataplane::shared::WorkerCounters) -> u64| {
        shared.workers.iter().map(of).sum::<u64>()
    };
    let full = DropReason::HandoffFull as usize;
    let read = || {
        [
            sum(&|it| it.path.forwarded.get()),
            sum(&|it| it.path.drops[full].get()),
            sum(&|it| it.handed_in.get()),
        ]
    };
    // enough for each flow to begin, then rounds of both
    let warm_up = 2 + (flows / 100_000) as usize;
    let stretches: Vec<Vec<Stretch>> = std::thread::scope(|scope| {
        let threads: Vec<_> = workers
            .into_iter()
            .zip(cores)
            .enumerate()
            .map(|(id, (mut worker, core))| {
                let (barrier, shared, foreign, read) = (&barrier, &shared, &foreign, &read);
                scope.spawn(move || {
                    core_affinity::set_for_current(*core);
                    let mut stretches = Vec::new();
                    for at in 0..2 * (warm_up + args.rounds) {
                        if id == 0 {
                            foreign.store(at % 2 == 1, Ordering::Relaxed);
                        }
                        barrier.wait();
                        let (before, spent) = (read(), busy());
                        barrier.wait();
                        let mut now = shared.clock.now();
                        let end = now.nanos() + STRETCH;
                        while now.nanos() < end {
                            worker.turn(now);
                            now = shared.clock.now();
                        }
                        let spent = busy() - spent;
                        barrier.wait();
                        let [forwarded, lost, handed] =
                            std::array::from_fn(|at| read()[at] - before[at]);
                        stretches.push(Stretch {
                            rate: forwarded as f64 / spent * 1e9,
                            forwarded,
                            lost,
                            handed,
                        });
                    }
                    stretches
                })
            })
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(Result::unwrap_or_default).collect()
    });
    let [one, other] = &stretches[..] else {
        return Err("a worker failed".to_owned());
    };
    if one.len() != other.len() || one.is_empty() {
        return Err("a worker failed".to_owned());
    }
    let both = one.iter().zip(other).skip(2 * warm_up);
    // by the mean of their processor times
    let mut rates = both.map(|(one, other)| Stretch {
        rate: 2.0 / (1.0 / one.rate + 1.0 / other.rate),
        ..*one
    });
    let mut pairs = Vec::new();
    while let (Some(own), Some(foreign)) = (rates.next(), rates.next()) {
        let handed =
            own.handed <= own.forwarded / 100 && foreign.handed >= foreign.forwarded / 100 * 99;
        if !handed || own.lost + foreign.lost > 0 {
            return Err(format!("not what was meant: {own:?} {foreign:?}"));
        }
        pairs.push([own, foreign]);
    }
    Ok(pairs)
}

pub(crate) fn run(args: &Args) -> Result<Table, String> {
    let rows = args
        .flows
        .iter()
        .map(|flows| Ok((*flows, contest(args, *flows)?)));
    Ok(Table {
        rows: rows.collect::<Result<_, String>>()?,
    })
}

/// Millions of packets a second of both kinds, and their ratio (median, quartiles).
struct Figures {
    rates: [f64; 2],
    ratio: [f64; 3],
}

impl Figures {
    fn of(pairs: &[[Stretch; 2]]) -> Self {
        let rates = [0, 1].map(|which| {
            let all: Vec<f64> = pairs.iter().map(|pair| pair[which].rate / 1e6).collect();
            scale::at(&all, 0.5)
        });
        let ratios: Vec<f64> = pairs
            .iter()
            .map(|[own, foreign]| foreign.rate / own.rate)
            .collect();
        Self {
            rates,
            ratio: [0.5, 0.25, 0.75].map(|share| scale::at(&ratios, share)),
        }
    }
}

impl Table {
    pub(crate) fn text(&self) -> String {
        let machine = Machine::read();
        let mut out = String::new();
        let _ = writeln!(
            out,
            "{}, {} cores; {WORKERS} workers, every packet of a flow of the worker that gets it, or of the other's\n\
             millions of packets a second by processor time, both workers: median; ratio: median (quartiles)\n\n\
             {:>10}{:>12}{:>14}{:>24}",
            machine.cpu, machine.cores, "flows", "own", "handed over", "ratio"
        );
        for (flows, pairs) in &self.rows {
            let Figures { rates, ratio } = Figures::of(pairs);
            let _ = writeln!(
                out,
                "{flows:>10}{:>12.2}{:>14.2}{:>24}",
                rates[0],
                rates[1],
                format!("{:.2} ({:.2} to {:.2})", ratio[0], ratio[1], ratio[2]),
            );
        }
        out
    }

    pub(crate) fn json(&self) -> Value {
        let machine = Machine::read();
        let rows = self.rows.iter().map(|(flows, pairs)| {
            let Figures { rates, ratio } = Figures::of(pairs);
            json!({ "flows": flows, "own_mpps": rates[0], "handed_mpps": rates[1], "ratio": ratio[0],
                    "ratio_quartiles": [ratio[1], ratio[2]], "rounds": pairs.len() })
        });
        json!({ "cpu": machine.cpu, "cores": machine.cores, "workers": WORKERS, "results": rows.collect::<Vec<_>>() })
    }
}
