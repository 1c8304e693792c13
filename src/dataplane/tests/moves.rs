//! Buckets that move from worker to worker: each flow stays with one worker, its packets keep their
//! order, and none is lost, whoever is quick and whoever is slow.

use super::super::command::Counted;
use super::super::shared::Cause;
use super::super::steer::Standing;
use super::*;
use crate::conntrack::tuple::Tuple;
use crate::pipeline::defrag::FragmentKey;
use crate::wire::fragment::Piece;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Packet number `n` of flow number `flow`: a datagram out, which says both.
fn numbered(flow: u32, n: u32) -> Vec<u8> {
    let sport = 1000 + (flow * 7919 % 60_000) as u16;
    let payload = [flow.to_be_bytes(), n.to_be_bytes()].concat();
    frame(addrs(flow), Segment::Udp { sport, dport: 9 }, &payload)
}

fn number(frame: &[u8]) -> (u32, u32) {
    let word = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
    (word(42), word(46))
}

fn bucket_of(frame: &[u8]) -> u8 {
    let tuple = Tuple::of(&parse(frame, frame.len()), 0).unwrap();
    Steer::new(steering(2)).bucket(&tuple.key().unwrap().0)
}

/// The control side of a move, step by step, as far as workers have come.
enum Move {
    None,
    /// Flows are counted: what the first look at the table said, and whether any was seen.
    Counting {
        bucket: u8,
        first: Option<Counted>,
        seen: bool,
        answer: Receiver<Counted>,
    },
    /// Turned over; workers that have not come round since.
    Turned {
        bucket: u8,
        from: usize,
        heir: usize,
        late: Vec<usize>,
    },
    Departing {
        bucket: u8,
        told: Receiver<()>,
    },
}

struct Moves {
    rig: Rig,
    state: Move,
    /// The NIC's table.
    queues: [u8; BUCKETS],
    done: usize,
}

impl Moves {
    fn new(workers: usize) -> Self {
        let rig = Rig::new(workers);
        let queues = rig.shared.steering.owners();
        Self {
            rig,
            state: Move::None,
            queues,
            done: 0,
        }
    }

    fn workers(&self) -> usize {
        self.rig.workers.len()
    }

    /// A packet comes, by the queue that the NIC's table says; odd flows by a port without one.
    fn arrive(&mut self, flow: u32, n: u32) {
        let frame = numbered(flow, n);
        let queue = match flow % 2 {
            0 => usize::from(self.queues[usize::from(bucket_of(&frame))]),
            _ => flow as usize / 2 % self.workers(),
        };
        self.rig.arrive(LAN, queue, frame);
    }

    fn turn(&mut self, worker: usize) {
        let now = Now::from_nanos(self.rig.now);
        self.rig.workers[worker].turn(now);
        if let Move::Turned { late, .. } = &mut self.state {
            late.retain(|other| *other != worker);
        }
    }

    fn count(&self, owner: usize, cursor: crate::conntrack::shard::Cursor) -> Receiver<Counted> {
        let (reply, answer) = bounded(1);
        let command = Command::CountBuckets { cursor, reply };
        self.rig.commands[owner].send(command).unwrap();
        answer
    }

    /// The control side's next step, if it can be done.
    fn step(&mut self, bucket: u8, heir: usize) {
        let steering = self.rig.shared.steering.clone();
        match std::mem::replace(&mut self.state, Move::None) {
            Move::None => {
                let owner = steering.place(bucket).owner();
                if steering.leave(bucket, heir) {
                    self.state = Move::Counting {
                        bucket,
                        first: None,
                        seen: false,
                        answer: self.count(owner, Default::default()),
                    };
                }
            }
            Move::Counting {
                bucket,
                first,
                seen,
                answer,
            } => {
                let owner = steering.place(bucket).owner();
                let at = usize::from(bucket);
                self.state = match answer.try_recv() {
                    Err(_) => Move::Counting {
                        bucket,
                        first,
                        seen,
                        answer,
                    },
                    Ok(counted) => {
                        let seen = seen || counted.flows[at] > 0;
                        let stayed = counted.stayed[at];
                        let next = counted.next;
                        let first = first.unwrap_or(counted);
                        match next {
                            Some(cursor) => Move::Counting {
                                bucket,
                                first: Some(first),
                                seen,
                                answer: self.count(owner, cursor),
                            },
                            None if seen || first.stayed[at] != stayed => Move::Counting {
                                bucket,
                                first: None,
                                seen: false,
                                answer: self.count(owner, Default::default()),
                            },
                            None => {
                                let (from, heir) = steering.turn_over(bucket).unwrap();
                                let late = (0..self.workers()).collect();
                                Move::Turned {
                                    bucket,
                                    from,
                                    heir,
                                    late,
                                }
                            }
                        }
                    }
                };
            }
            Move::Turned {
                bucket,
                from,
                heir,
                late,
            } => {
                self.state = if late.is_empty() {
                    self.queues[usize::from(bucket)] = heir as u8;
                    let (reply, told) = bounded(1);
                    let command = Command::Depart {
                        bucket,
                        heir,
                        reply,
                    };
                    self.rig.commands[from].send(command).unwrap();
                    Move::Departing { bucket, told }
                } else {
                    Move::Turned {
                        bucket,
                        from,
                        heir,
                        late,
                    }
                };
            }
            Move::Departing { bucket, told } => {
                let settled = steering.place(bucket).standing() == Standing::Settled;
                if told.try_recv().is_ok() && settled {
                    self.done += 1;
                } else if !settled || self.done == usize::MAX {
                    // Told or not, the heir has not come round yet.
                    self.state = Move::Departing { bucket, told };
                } else {
                    self.done += 1;
                }
            }
        }
    }

    /// What left by WAN: each flow's numbers follow each other. How many of each flow.
    fn check(&self, seen: &mut BTreeMap<u32, u32>) {
        for frame in self.rig.sent(WAN) {
            let (flow, n) = number(&frame);
            let next = seen.entry(flow).or_default();
            assert_eq!(n, *next, "flow {flow}");
            *next += 1;
        }
    }
}

/// What a schedule does next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Arrive { flow: u32, count: u8 },
    Turn(usize),
    Move { bucket: usize, heir: usize },
    Wait,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0..12u32, 1..40u8).prop_map(|(flow, count)| Step::Arrive { flow, count }),
        8 => (0..3usize).prop_map(Step::Turn),
        8 => (0..12usize, 0..3usize).prop_map(|(bucket, heir)| Step::Move { bucket, heir }),
        1 => Just(Step::Wait),
    ];
    prop::collection::vec(step, 1..300)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn no_packet_is_lost_or_overtaken(steps in steps()) {
        let mut moves = Moves::new(3);
        let mut sent = BTreeMap::<u32, u32>::new();
        let mut seen = BTreeMap::new();
        // The buckets that these flows are in.
        let buckets: Vec<u8> = (0..12).map(|flow| bucket_of(&numbered(flow, 0))).collect();
        for step in steps {
            match step {
                Step::Arrive { flow, count } => for _ in 0..count {
                    let n = sent.entry(flow).or_default();
                    moves.arrive(flow, *n);
                    *n += 1;
                },
                Step::Turn(worker) => moves.turn(worker),
                Step::Move { bucket, heir } => moves.step(buckets[bucket], heir),
                Step::Wait => {
                    // Flows of which nothing came meanwhile end.
                    moves.rig.now += 31_000_000_000;
                }
            }
            moves.check(&mut seen);
        }
        // Whatever moves comes to its end once flows do.
        for _ in 0..2000 {
            (0..3).for_each(|worker| moves.turn(worker));
            if matches!(moves.state, Move::None) {
                break;
            }
            moves.rig.now += 1_000_000_000;
            moves.step(0, 0);
        }
        prop_assert!(matches!(moves.state, Move::None), "a move does not end");
        moves.rig.settle();
        moves.check(&mut seen);
        prop_assert_eq!(seen, sent);
        prop_assert_eq!(moves.rig.sum(|w| w.path.dropped_total()), 0);
        prop_assert_eq!(moves.rig.sum(|w| w.handed_out.get()), moves.rig.sum(|w| w.handed_in.get()));
        let (received, out) = moves.rig.balance();
        prop_assert_eq!(received, out);
    }
}

/// The first flow that a worker owns among `workers`, by a queue that is its owner's.
fn flow_of(worker: usize, workers: usize) -> u32 {
    let steering = steering(workers);
    let mut flows = (0..).step_by(2);
    let owned = |flow: &u32| steering.place(bucket_of(&numbered(*flow, 0))).is_of(worker);
    flows.find(owned).unwrap()
}

#[test]
fn old_flows_stay_and_new_ones_go() {
    let mut moves = Moves::new(2);
    let flow = flow_of(0, 2);
    let bucket = bucket_of(&numbered(flow, 0));
    let other = (2..).step_by(2);
    let mut other =
        other.filter(|other| bucket_of(&numbered(*other, 0)) == bucket && *other != flow);
    let other = other.next().unwrap();
    moves.arrive(flow, 0);
    moves.rig.settle();
    moves.step(bucket, 1);
    for n in 0..5 {
        moves.arrive(flow, n + 1);
        moves.arrive(other, n);
    }
    moves.rig.settle();
    let inserts = |rig: &Rig, w: usize| rig.shared.workers[w].path.ct.insert.get();
    assert_eq!((inserts(&moves.rig, 0), inserts(&moves.rig, 1)), (1, 1));
    let moved = |rig: &Rig| rig.shared.workers[0].handed[Cause::Moved as usize].get();
    assert_eq!(moved(&moves.rig), 5);
    // A flow is left: the bucket stays between the two.
    for _ in 0..20 {
        moves.step(bucket, 1);
        moves.rig.settle();
    }
    let standing = |rig: &Rig| rig.shared.steering.place(bucket).standing();
    assert_eq!(standing(&moves.rig), Standing::Leaving(1));
    assert_eq!(moves.queues[usize::from(bucket)], 0);
    // Its time is over; the other's is not.
    moves.rig.now += 20_000_000_000;
    moves.arrive(other, 5);
    moves.rig.settle();
    moves.rig.now += 11_000_000_000;
    for _ in 0..20 {
        moves.step(bucket, 1);
        (0..2).for_each(|worker| moves.turn(worker));
    }
    assert_eq!(standing(&moves.rig), Standing::Settled);
    assert!(moves.rig.shared.steering.place(bucket).is_of(1));
    assert!(matches!(moves.state, Move::None));
    // Whoever comes now comes to the right worker at once.
    let before = moves.rig.sum(|w| w.handed_out.get());
    moves.arrive(other, 6);
    moves.arrive(flow, 6);
    moves.rig.settle();
    assert_eq!(moves.rig.sum(|w| w.handed_out.get()), before);
    assert_eq!(inserts(&moves.rig, 1), 2);
    let mut seen = BTreeMap::new();
    moves.check(&mut seen);
    assert_eq!(seen, BTreeMap::from([(flow, 7), (other, 7)]));
}

#[test]
fn what_is_put_by_is_bounded_and_counted_and_survives_the_end() {
    let mut moves = Moves::new(2);
    let flow = flow_of(0, 2);
    let bucket = bucket_of(&numbered(flow, 0));
    let steering = moves.rig.shared.steering.clone();
    assert!(steering.leave(bucket, 1));
    assert_eq!(steering.turn_over(bucket), Some((0, 1)));
    moves.queues[usize::from(bucket)] = 1;
    for n in 0..1100 {
        moves.arrive(flow, n);
    }
    moves.rig.settle();
    assert!(moves.rig.sent(WAN).is_empty());
    assert_eq!(moves.rig.drops(DropReason::HandoffFull), 1100 - 1024);
    // Stopped here, what is put by is accounted for: the rig looks at it when it goes.
}

/// Has `from` let a bucket go that was turned over to `heir`.
fn depart<I: Io>(rig: &Rig<I>, from: usize, bucket: u8, heir: usize) -> Receiver<()> {
    let (reply, told) = bounded(1);
    let command = Command::Depart {
        bucket,
        heir,
        reply,
    };
    rig.commands[from].send(command).unwrap();
    told
}

#[test]
fn a_port_that_takes_nothing_does_not_hold_a_bucket_up_for_long() {
    let mut moves = Moves::new(2);
    let flow = flow_of(0, 2);
    let bucket = bucket_of(&numbered(flow, 0));
    let steering = moves.rig.shared.steering.clone();
    moves.rig.wires.wire(WAN).lock().room = 0;
    moves.arrive(flow, 0);
    moves.rig.settle();
    assert!(steering.leave(bucket, 1));
    steering.turn_over(bucket).unwrap();
    let told = depart(&moves.rig, 0, bucket, 1);
    let turns = |moves: &mut Moves| (0..8).for_each(|n| moves.turn(n % 2));
    turns(&mut moves);
    moves.rig.now += 4_000_000;
    turns(&mut moves);
    assert!(told.try_recv().is_err(), "it may take it yet");
    assert_eq!(moves.rig.drops(DropReason::TxFull), 0);
    moves.rig.now += 1_000_000;
    turns(&mut moves);
    assert!(told.try_recv().is_ok() && steering.place(bucket).is_of(1));
    assert_eq!(moves.rig.drops(DropReason::TxFull), 1);
}

#[test]
fn what_is_said_twice_lets_no_other_bucket_go() {
    let mut moves = Moves::new(2);
    let flow = flow_of(0, 2);
    let first = bucket_of(&numbered(flow, 0));
    let mut others = (flow + 2..)
        .step_by(2)
        .map(|other| (other, bucket_of(&numbered(other, 0))));
    let steering = moves.rig.shared.steering.clone();
    let fits = |(_, bucket): &(u32, u8)| *bucket != first && steering.place(*bucket).is_of(0);
    let (other, second) = others.find(fits).unwrap();
    let held = |bucket: u8| steering.place(bucket).standing() == Standing::Held(0);
    assert!(steering.leave(first, 1));
    steering.turn_over(first).unwrap();
    let _told = depart(&moves.rig, 0, first, 1);
    (0..8).for_each(|n| moves.turn(n % 2));
    assert!(steering.place(first).is_of(1));
    assert!(steering.leave(second, 1));
    steering.turn_over(second).unwrap();
    moves.queues[usize::from(second)] = 1;
    moves.arrive(other, 0);
    moves.turn(1);
    // The control thread had lost its patience, and asked again.
    let told = depart(&moves.rig, 0, first, 1);
    (0..8).for_each(|n| moves.turn(n % 2));
    assert!(told.try_recv().is_ok());
    assert!(held(second) && moves.rig.sent(WAN).is_empty());
    let _told = depart(&moves.rig, 0, second, 1);
    (0..8).for_each(|n| moves.turn(n % 2));
    assert!(!held(second));
    assert_eq!(moves.rig.sent(WAN).len(), 1);
}

/// A port whose bursts are short, though more is there.
struct Short(MemoryIo, usize);

impl Io for Short {
    type Buf = Vec<u8>;

    fn ports(&self) -> usize {
        self.0.ports()
    }

    fn rx(&mut self, port: PortId, out: &mut super::super::io::Batch<Vec<u8>>) {
        let mut wire = self.0.wire(port).lock();
        let arriving = &mut wire.arriving[self.1];
        let count = arriving.len().min(8);
        out.extend(arriving.drain(..count));
    }

    fn tx(&mut self, port: PortId, frames: &mut super::super::io::Batch<Vec<u8>>) {
        self.0.tx(port, frames);
    }

    fn alloc(&mut self, len: usize) -> Option<Vec<u8>> {
        self.0.alloc(len)
    }
}

#[test]
fn a_short_burst_does_not_mean_that_a_queue_is_empty() {
    let next = std::cell::Cell::new(0);
    let mut rig = Rig::with(2, POLICY, |ports| {
        Short(ports, next.replace(next.get() + 1))
    });
    let flow = flow_of(0, 2);
    let bucket = bucket_of(&numbered(flow, 0));
    let steering = rig.shared.steering.clone();
    assert!(steering.leave(bucket, 1));
    steering.turn_over(bucket).unwrap();
    (0..20).for_each(|n| rig.arrive(LAN, 0, numbered(flow, n)));
    (20..25).for_each(|n| rig.arrive(LAN, 1, numbered(flow, n)));
    let _told = depart(&rig, 0, bucket, 1);
    let now = Now::from_nanos(rig.now);
    for worker in [1, 0, 0, 1, 0, 1, 0, 0, 1, 1] {
        rig.workers[worker].turn(now);
    }
    let sent: Vec<u32> = rig.sent(WAN).iter().map(|frame| number(frame).1).collect();
    assert_eq!(sent, (0..25).collect::<Vec<_>>());
    assert!(steering.place(bucket).is_of(1));
}

#[test]
fn fragmented_datagrams_follow_their_bucket() {
    let mut moves = Moves::new(2);
    let whole = |flow: u32| {
        let segment = Segment::Udp {
            sport: 1000 + (flow * 7919 % 60_000) as u16,
            dport: 9,
        };
        frame(addrs(flow), segment, &[7; 3000])
    };
    // A flow of the first worker, whose datagrams the other one puts together.
    let collector = |flow: u32| {
        let part = cut(&whole(flow), 1, 1000).swap_remove(0);
        let parsed = parse(&part, part.len());
        let piece = Piece::of(&part, &parsed).unwrap();
        Steer::new(steering(2)).collector(&FragmentKey::of(&parsed, &piece, LAN))
    };
    let mut flows = (flow_of(0, 2)..).step_by(2);
    let fits = |flow: &u32| {
        let place = steering(2).place(bucket_of(&numbered(*flow, 0)));
        place.is_of(0) && collector(*flow) == 1
    };
    let flow = flows.find(fits).unwrap();
    let bucket = bucket_of(&numbered(flow, 0));
    let whole = whole(flow);
    let steering = moves.rig.shared.steering.clone();
    let arrive = |moves: &mut Moves, id: u16| {
        let parts = cut(&whole, id.into(), 1000);
        parts
            .iter()
            .for_each(|part| moves.rig.arrive(LAN, 0, part.clone()));
        moves.rig.settle();
        parts.len()
    };
    assert!(steering.leave(bucket, 1));
    // Nobody has the flow: it is the heir's.
    let mut parts = 0;
    for id in 1..5 {
        parts += arrive(&mut moves, id);
    }
    assert_eq!(moves.rig.sent(WAN).len(), parts);
    assert_eq!(moves.rig.shared.workers[1].path.ct.insert.get(), 1);
    // Put by, whole, until all from before has passed.
    steering.turn_over(bucket).unwrap();
    let mut held = 0;
    for id in 5..9 {
        held += arrive(&mut moves, id);
    }
    let left = held - moves.rig.sent(WAN).len();
    assert!(left > 0 && left.is_multiple_of(parts / 4), "{left}");
    let (reply, told) = bounded(1);
    let command = Command::Depart {
        bucket,
        heir: 1,
        reply,
    };
    moves.rig.commands[0].send(command).unwrap();
    for _ in 0..5 {
        (0..2).for_each(|worker| moves.turn(worker));
    }
    told.try_recv().unwrap();
    assert_eq!(moves.rig.sent(WAN).len(), left);
    assert!(steering.place(bucket).is_of(1));
    assert_eq!(moves.rig.sum(|w| w.path.ct.insert.get()), 1);
}
