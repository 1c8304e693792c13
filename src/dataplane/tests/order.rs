//! Order, with worker threads that run: packets numbered by flow and direction arrive at workers that
//! do not own their flows, and leave in the order of their numbers; what is missing was counted.
//!
//! What arrives at one queue in order is meant: a flow whose packets come by several queues has no
//! order that anybody could keep. Fragments make a detour over the worker that collects them; see
//! [`fragments_keep_their_order_among_themselves`] for what holds then.

use super::*;
use crate::conntrack::tuple::Tuple;
use crate::wire::fragment::Piece;
use std::collections::BTreeMap;
use std::thread;

const FLOWS: u32 = 48;
const NUMBERS: u32 = 300;
/// Packets of one flow that come one behind the other: neighbours show best who overtakes whom.
const TRAIN: usize = 3;

fn rules() -> String {
    POLICY.replace("max: 64", "max: 4096")
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Out,
    Back,
}

use Way::{Back, Out};

impl Way {
    /// Where it comes in.
    fn from(self) -> PortId {
        if self == Out { LAN } else { WAN }
    }

    /// Where it leaves.
    fn to(self) -> PortId {
        if self == Out { WAN } else { LAN }
    }
}

/// Packet `number` of `flow`, of which every other one is IPv6, with `more` bytes behind it.
fn numbered(flow: u32, way: Way, number: u32, more: usize) -> Vec<u8> {
    let addrs = match flow % 2 {
        0 => addrs(flow),
        _ => Addrs::V6 {
            src: 0xfd << 120 | u128::from(flow),
            dst: 0xfd << 120 | 1 << 64,
        },
    };
    let (near, far) = (4000 + flow as u16, 53);
    let (addrs, sport, dport) = match way {
        Out => (addrs, near, far),
        Back => (addrs.flip(), far, near),
    };
    let mut payload = [flow.to_be_bytes(), number.to_be_bytes()].concat();
    payload.resize(8 + more, 0);
    frame(addrs, Segment::Udp { sport, dport }, &payload)
}

/// The flow and the number of a packet that is whole.
fn read(frame: &[u8]) -> (u32, u32) {
    let parsed = parse(frame, frame.len());
    let payload = &frame[usize::from(parsed.l4_offset) + 8..];
    let word = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
    (word(0), word(4))
}

fn owner(flow: u32, workers: usize) -> usize {
    let frame = numbered(flow, Out, 0, 0);
    let tuple = Tuple::of(&parse(&frame, frame.len()), 0).unwrap();
    let key = tuple.key().map(|(key, _)| key);
    let steer = Steer::new(steering(workers));
    steer.place(steer.bucket(&key.unwrap())).owner()
}

/// A queue of a worker that does not own `flow`, another one for the replies where there is one.
fn wrong_queue(flow: u32, way: Way, workers: usize) -> usize {
    let step = (flow as usize + way as usize) % (workers - 1) + 1;
    (owner(flow, workers) + step) % workers
}

impl Rig {
    /// Frames that are done with.
    fn done(&self) -> u64 {
        self.sum(|w| w.path.forwarded.get() + w.path.dropped_total())
    }

    /// Runs the workers as threads while `feed` goes on, until nothing is under way any more.
    fn run_while(&mut self, feed: impl FnOnce(&Self)) {
        let threads: Vec<_> = self.workers.drain(..).collect();
        let threads: Vec<_> = threads
            .into_iter()
            .map(|worker| thread::spawn(move || drop(worker.run())))
            .collect();
        feed(self);
        self.shared.stop();
        for thread in threads {
            thread.join().unwrap();
        }
    }

    fn wait(&self, mut done: impl FnMut(&Self) -> bool) {
        let start = self.shared.clock.now().nanos();
        while !done(self) {
            let waited = self.shared.clock.now().nanos() - start;
            assert!(waited < 60_000_000_000, "nothing moves");
            thread::yield_now();
        }
    }

    /// Has every flow begin, at its owner, so that replies are known.
    fn begin(&self, workers: usize) {
        for flow in 0..FLOWS {
            self.arrive(LAN, owner(flow, workers), numbered(flow, Out, 0, 0));
        }
        self.wait(|rig| rig.done() == u64::from(FLOWS));
    }

    /// The numbers that left, in the order in which they did, by flow and direction.
    fn left(&self) -> BTreeMap<(u32, Way), Vec<u32>> {
        let mut left = BTreeMap::new();
        for way in [Out, Back] {
            for frame in self.sent(way.to()) {
                let (flow, number) = read(&frame);
                let numbers: &mut Vec<u32> = left.entry((flow, way)).or_default();
                numbers.push(number);
            }
        }
        left
    }
}

/// All arrive, in order, when no more is under way than a ring holds.
#[test]
fn every_packet_is_handed_over_and_none_overtakes_another() {
    for workers in [2, 3, 4] {
        let mut rig = Rig::under(workers, &rules());
        rig.run_while(|rig| {
            rig.begin(workers);
            let mut fed = u64::from(FLOWS);
            for first in (1..=NUMBERS).step_by(TRAIN) {
                for (flow, way) in (0..FLOWS).flat_map(|flow| [(flow, Out), (flow, Back)]) {
                    let queue = wrong_queue(flow, way, workers);
                    for number in first..first + TRAIN as u32 {
                        rig.arrive(way.from(), queue, numbered(flow, way, number, 0));
                        fed += 1;
                    }
                }
                let next = TRAIN as u64 * 2 * u64::from(FLOWS);
                rig.wait(|rig| fed - rig.done() <= RING as u64 - next);
            }
            rig.wait(|rig| rig.done() == fed);
        });
        let handed = u64::from(2 * FLOWS * NUMBERS);
        assert_eq!(rig.sum(|w| w.handed_out.get()), handed, "every single one");
        assert_eq!(rig.sum(|w| w.handed_in.get()), handed);
        assert_eq!(rig.sum(|w| w.path.dropped_total()), 0);
        let left = rig.left();
        assert_eq!(left.len(), 2 * FLOWS as usize);
        for ((flow, way), numbers) in left {
            let first = u32::from(way == Back);
            assert!(
                numbers.iter().copied().eq(first..=NUMBERS),
                "flow {flow}, {way:?}, {workers} workers: {numbers:?}"
            );
        }
    }
}

/// Everything is there at once: rings overflow. What is lost is counted, what is left is in order.
#[test]
fn what_a_full_ring_costs_is_counted_and_nothing_else_is_lost() {
    for workers in [2, 4] {
        let mut rig = Rig::under(workers, &rules());
        rig.run_while(|rig| {
            rig.begin(workers);
            for (port, way) in [(LAN, Out), (WAN, Back)] {
                let mut wire = rig.wires.wire(port).lock();
                for first in (1..=NUMBERS).step_by(TRAIN) {
                    for flow in 0..FLOWS {
                        let queue = &mut wire.arriving[wrong_queue(flow, way, workers)];
                        let train = first..first + TRAIN as u32;
                        queue.extend(train.map(|number| numbered(flow, way, number, 0)));
                    }
                }
            }
            rig.wait(|rig| rig.done() == u64::from(FLOWS + 2 * FLOWS * NUMBERS));
        });
        let lost = rig.drops(DropReason::HandoffFull);
        assert_eq!(rig.sum(|w| w.path.dropped_total()), lost);
        let mut arrived = 0;
        for ((flow, way), numbers) in rig.left() {
            arrived += numbers.len() as u64;
            assert!(
                numbers.is_sorted_by(|a, b| a < b),
                "flow {flow}, {way:?}, {workers} workers: {numbers:?}"
            );
        }
        assert_eq!(arrived + lost, u64::from(FLOWS + 2 * FLOWS * NUMBERS));
    }
}

/// Every third datagram comes in fragments. These keep the order of their datagrams among themselves,
/// and so do those that are whole; but one kind may overtake the other, as the fragments of two hosts
/// go by the worker that collects them and the rest goes straight to the owner.
#[test]
fn fragments_keep_their_order_among_themselves() {
    for workers in [2, 3, 4] {
        let mut rig = Rig::under(workers, &rules());
        rig.run_while(|rig| {
            rig.begin(workers);
            let mut fed = u64::from(FLOWS);
            for number in 1..=NUMBERS {
                for flow in 0..FLOWS {
                    let queue = wrong_queue(flow, Out, workers);
                    if number % 3 == 0 {
                        for part in cut(&numbered(flow, Out, number, 1200), number, 600) {
                            rig.arrive(LAN, queue, part);
                            fed += 1;
                        }
                    } else {
                        rig.arrive(LAN, queue, numbered(flow, Out, number, 0));
                        fed += 1;
                    }
                }
                rig.wait(|rig| fed - rig.done() <= RING as u64 - 3 * u64::from(FLOWS));
            }
            rig.wait(|rig| rig.done() == fed);
        });
        assert_eq!(rig.sum(|w| w.path.dropped_total()), 0);
        let mut whole = BTreeMap::<_, Vec<u32>>::new();
        let mut parts = BTreeMap::<_, Vec<u32>>::new();
        for frame in rig.sent(WAN) {
            let parsed = parse(&frame, frame.len());
            let src = parsed.addrs.src();
            if parsed.fragment.is_part() {
                let piece = Piece::of(&frame, &parsed).unwrap();
                parts.entry(src).or_default().push(piece.id);
            } else {
                whole.entry(src).or_default().push(read(&frame).1);
            }
        }
        assert_eq!((whole.len(), parts.len()), (FLOWS as usize, FLOWS as usize));
        for (src, numbers) in whole {
            let want = (0..=NUMBERS).filter(|number| *number == 0 || number % 3 != 0);
            assert!(numbers.iter().copied().eq(want), "{src}: {numbers:?}");
        }
        for (src, numbers) in parts {
            // all of a datagram together
            let want = (1..=NUMBERS).filter(|number| number % 3 == 0);
            let want = want.flat_map(|number| [number; 3]);
            assert!(numbers.iter().copied().eq(want), "{src}: {numbers:?}");
        }
    }
}
