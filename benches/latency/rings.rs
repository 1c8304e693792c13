//! The worker between two rings in memory.

use crate::{Lane, Outcome, Round, await_it, measure};
use crossbeam::queue::ArrayQueue;
use shardwall::base::hash::HashKey;
use shardwall::base::toeplitz::SymmetricKey;
use shardwall::dataplane::clock::Clock;
use shardwall::dataplane::idle::Idle;
use shardwall::dataplane::io::{Batch, Io};
use shardwall::dataplane::launch::{Placement, launch};
use shardwall::dataplane::steer::{BUCKETS, Steering};
use shardwall::policy::{self, PortId};
use shardwall::wire::Addrs;
use shardwall::wire::build::{Segment, frame};
use std::sync::Arc;

/// Flows whose packets take turns.
const FLOWS: usize = 1024;

const POLICY: &str = r#"
version: 1
ports:
  lan: { device: net_null0 }
  wan: { device: net_null1 }
bridge: [[lan, wan]]
chains:
  forward:
    policy: drop
    rules:
      - { name: known, ct: [established, related], action: accept }
      - { name: broken, ct: invalid, action: drop }
      - { name: outbound, iif: lan, ct: new, action: accept }
"#;

type Ring = Arc<ArrayQueue<Vec<u8>>>;

/// Two ports, each a ring of what arrives and one of what was sent.
#[derive(Debug, Clone)]
struct RingIo([(Ring, Ring); 2]);

impl RingIo {
    fn new() -> Self {
        let ring = || Arc::new(ArrayQueue::new(64));
        Self([(ring(), ring()), (ring(), ring())])
    }
}

impl Io for RingIo {
    type Buf = Vec<u8>;

    fn ports(&self) -> usize {
        self.0.len()
    }

    fn rx(&mut self, port: PortId, out: &mut Batch<Vec<u8>>) {
        let (arriving, _) = &self.0[usize::from(port.0)];
        while !out.is_full() {
            match arriving.pop() {
                Some(frame) => out.push(frame),
                None => break,
            }
        }
    }

    fn tx(&mut self, port: PortId, frames: &mut Batch<Vec<u8>>) {
        let (_, sent) = &self.0[usize::from(port.0)];
        while let Some(frame) = frames.first_mut() {
            if let Err(frame) = sent.push(std::mem::take(frame)) {
                frames[0] = frame;
                break;
            }
            frames.remove(0);
        }
    }

    fn alloc(&mut self, len: usize) -> Option<Vec<u8>> {
        Some(vec![0; len])
    }
}

struct Rings {
    io: RingIo,
    /// Of each flow, what either side sends.
    frames: Vec<[Vec<u8>; 2]>,
}

impl Lane for Rings {
    fn pass(&mut self, n: usize, clock: &Clock) -> Outcome<Option<u64>> {
        let (flow, from) = (n / 2 % FLOWS, n % 2);
        let wanted = &self.frames[flow][from];
        let ((arriving, _), (_, sent)) = (&self.io.0[from], &self.io.0[1 - from]);
        let frame = wanted.clone();
        let start = clock.now().nanos();
        arriving.push(frame).map_err(|_| "the ring is full")?;
        let end = await_it(clock, || {
            // Not one that was given up.
            Ok(sent.pop().is_some_and(|frame| frame == *wanted))
        })?;
        Ok(end.map(|end| end - start))
    }
}

pub(crate) fn run(packets: usize) -> Outcome<Round> {
    let checked = policy::parse("bench", POLICY)?;
    let io = RingIo::new();
    let frames = (0..FLOWS).map(|n| {
        let there = Addrs::V4 {
            src: 0x0a00_0000 + n as u32,
            dst: 0xc0a8_0001,
        };
        let one = |addrs, sport, dport| frame(addrs, Segment::Udp { sport, dport }, b"0123456789");
        [one(there, 1024, 443), one(there.flip(), 443, 1024)]
    });
    let mut rings = Rings {
        frames: frames.collect(),
        io: io.clone(),
    };
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let placement = Placement {
        cores: cores.last().map(|core| core.id).into_iter().collect(),
        idle: Idle::Spin,
    };
    let compiled = policy::compile(&checked.model, 1, 1);
    let steering = Steering::new(SymmetricKey::random(), HashKey::random(), 1, BUCKETS);
    let running = launch(compiled, vec![io], &placement, steering, || Box::new(()))?;
    let result = measure(&mut rings, packets);
    drop(running.stop());
    result
}
