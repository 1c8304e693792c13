//! What one loop of a worker does at most, what is counted of it, and what it does with its time when
//! there is nothing to do.

use super::*;
use crate::base::histogram::Times;
use crate::conntrack::tuple::Tuple;
use crate::dataplane::command::Wanted;
use crate::dataplane::walk::{Pieces, SCAN};
use std::thread;

fn udp(client: u32) -> Vec<u8> {
    frame(addrs(client), Segment::Udp { sport: 9, dport: 9 }, b"")
}

impl Rig {
    fn times(&self, worker: usize) -> (Times, u64, u64) {
        let counters = &self.shared.workers[worker];
        let (idle, loops) = (counters.idle_nanos.get(), counters.loops.get());
        (counters.busy.get(), idle, loops)
    }
}

/// Each loop is counted once: in one bucket if it did something, or as idle time.
#[test]
fn loops_that_do_something_are_in_the_histogram_and_others_are_idle_time() {
    let mut rig = Rig::new(2);
    let mut busy = 0;
    for turn in 1..=60u64 {
        let (before, idle, _) = rig.times(0);
        let does = match turn % 3 {
            0 => {
                rig.arrive(LAN, 0, udp(turn as u32));
                true
            }
            1 => {
                let request = Command::Expectations {
                    start: 0,
                    wanted: Wanted(Arc::new(|_| true)),
                    end: false,
                    reply: bounded(1).0,
                };
                rig.commands[0].send(request).unwrap();
                true
            }
            _ => false,
        };
        let start = rig.shared.clock.now();
        rig.workers[0].turn(start);
        let took = rig.shared.clock.now().nanos() - start.nanos();
        let (after, idle_after, loops) = rig.times(0);
        assert_eq!(loops, turn);
        if !does {
            assert_eq!(after, before, "nothing was done");
            assert!(idle_after > idle && idle_after - idle <= took);
            continue;
        }
        busy += 1;
        assert_eq!(idle_after, idle);
        let spent = after.sum - before.sum;
        assert!((1..=took).contains(&spent), "{spent} of {took} ns");
        assert_eq!(after.longest, before.longest.max(spent));
        let fits = |at: &usize| spent as f64 <= crate::base::histogram::Histogram::bound(*at);
        let bucket = (0..16).find(fits).unwrap_or(16);
        let mut want = before.counts;
        want[bucket] += 1;
        assert_eq!(after.counts, want, "{spent} ns");
    }
    assert_eq!(rig.times(0).0.count(), busy);
    assert_eq!(rig.times(1), (Times::default(), 0, 0), "the other's own");
}

/// One end of a walk, and what it found so far.
struct Asker {
    pieces: Pieces,
    rows: u32,
    count: u32,
    over: bool,
}

impl Rig {
    fn walk(&self, work: Work) -> Asker {
        let (walk, pieces) = walk::walk(work);
        self.commands[0].send(Command::Walk(walk)).unwrap();
        Asker {
            pieces,
            rows: 0,
            count: 0,
            over: false,
        }
    }
}

impl Asker {
    /// Reads what there is; returns how many pieces that was.
    fn read(&mut self) -> usize {
        let mut read = 0;
        while let Ok(piece) = self.pieces.next(Duration::ZERO) {
            let rows = piece.rows.len() as u32;
            assert!(rows <= 16 * SCAN && piece.rows.capacity() <= 16 * SCAN as usize);
            assert!(!self.over, "nothing follows the last piece");
            self.rows += rows;
            self.count += piece.count;
            self.over = piece.last;
            self.pieces.give_back(piece);
            read += 1;
        }
        read
    }
}

/// A worker takes more in a loop than another hands over in one: where one is up to eight times as fast, its
/// ring does not fill.
#[test]
fn a_slower_worker_takes_what_a_faster_one_hands_over() {
    let mut rig = Rig::under(2, &POLICY.replace("max: 64", "max: 100000"));
    let steer = Steer::new(steering(2));
    let others = |client: &u32| {
        let frame = udp(*client);
        let key = Tuple::of(&parse(&frame, frame.len()), 0).and_then(|it| it.key());
        steer.place(steer.bucket(&key.unwrap().0)).owner() == 1
    };
    let (mut frames, now) = (0, Now::from_nanos(rig.now));
    let clients: Vec<u32> = (0..20_000).filter(others).take(4 * RING).collect();
    for client in clients {
        rig.arrive(LAN, 0, udp(client));
        rig.arrive(
            WAN,
            0,
            frame(
                addrs(client).flip(),
                Segment::Udp { sport: 9, dport: 9 },
                b"",
            ),
        );
        frames += 2;
    }
    loop {
        let fast: usize = (0..8).map(|_| rig.workers[0].turn(now)).sum();
        if fast + rig.workers[1].turn(now) == 0 {
            break;
        }
    }
    assert_eq!(rig.sum(|w| w.handed_out.get()), frames);
    assert_eq!(rig.drops(DropReason::HandoffFull), 0);
    assert_eq!(rig.sum(|w| w.handed_in.get()), frames);
}

/// A listing of a million flows is many loops, none of which looks at more than [`SCAN`] entries or goes
/// on with more than one walk; packets pass in the same loops.
#[test]
fn a_loop_looks_at_few_entries_however_many_there_are() {
    const FLOWS: u32 = 1_000_000;
    // of IPv4 and of IPv6
    const STEPS: u32 = FLOWS.div_ceil(SCAN) + 1;
    let mut rig = Rig::under(1, &POLICY.replace("max: 64", "max: 1000000"));
    let now = Now::from_nanos(rig.now);
    for first in (0..FLOWS).step_by(10_000) {
        for client in first..first + 10_000 {
            rig.arrive(LAN, 0, udp(client));
        }
        rig.settle();
        rig.sent(WAN);
    }
    assert_eq!(rig.sum(|w| w.path.ct.insert.get()), u64::from(FLOWS));
    let mut askers = [Work::List, Work::List].map(|work| rig.walk(work));
    let (mut turns, mut packets) = (0, 0);
    while askers.iter().any(|asker| !asker.over) {
        if turns % 16 == 15 {
            packets += 1;
            let (sport, dport) = (9, 9);
            let reply = Segment::Udp { sport, dport };
            rig.arrive(WAN, 0, frame(addrs(turns).flip(), reply, b""));
            assert_eq!(rig.workers[0].turn(now), 1);
            assert_eq!(rig.sent(LAN).len(), 1, "a reply passes in the same loop");
        } else {
            assert_eq!(rig.workers[0].turn(now), 0);
        }
        turns += 1;
        for asker in &mut askers {
            asker.read();
        }
        let [one, other] = &askers;
        assert!(
            one.rows.abs_diff(other.rows) <= 16 * SCAN,
            "they take turns"
        );
    }
    // every entry is a flow: the rows are what was looked at
    assert_eq!(askers.map(|asker| asker.rows), [FLOWS; 2]);
    // loops with packets may leave it for later
    let idle = turns - packets;
    assert!(idle <= 2 * STEPS && 2 * STEPS <= turns, "{turns} turns");
    let ended = |rig: &Rig| rig.sum(|w| w.path.ct.delete.get());
    let (mut flush, mut turns) = (rig.walk(Work::Flush), 0);
    while !flush.over {
        let before = ended(&rig);
        rig.workers[0].turn(now);
        assert!(ended(&rig) - before <= u64::from(SCAN));
        turns += 1;
        flush.read();
    }
    assert_eq!((flush.count, flush.rows, turns), (FLOWS, 0, STEPS));
    assert_eq!(ended(&rig), u64::from(FLOWS));
    // A table of which most is empty: so many loops all the same.
    rig.arrive(LAN, 0, udp(1));
    rig.workers[0].turn(now);
    let (mut list, mut turns) = (rig.walk(Work::List), 0);
    while !list.over {
        rig.workers[0].turn(now);
        turns += 1;
        list.read();
    }
    assert_eq!((list.rows, turns), (1, STEPS));
}

/// A walk whose asker reads nothing waits, and the worker has nothing to do; one whose asker is gone ends.
#[test]
fn a_walk_waits_for_its_asker_and_ends_without() {
    let mut rig = Rig::under(1, &POLICY.replace("max: 64", "max: 10000"));
    let now = Now::from_nanos(rig.now);
    for client in 0..10_000 {
        rig.arrive(LAN, 0, udp(client));
    }
    rig.settle();
    let idles = |rig: &mut Rig| {
        let before = rig.times(0);
        rig.workers[0].turn(now);
        let after = rig.times(0);
        after.0 == before.0 && after.1 > before.1
    };
    assert!(idles(&mut rig));
    let mut slow = rig.walk(Work::List);
    for step in 0..4 * 16 {
        assert!(!idles(&mut rig), "step {step}");
    }
    assert!(idles(&mut rig), "all pieces are full");
    // another one does not wait for it
    let mut other = rig.walk(Work::List);
    while !other.over {
        assert!(!idles(&mut rig));
        other.read();
    }
    assert_eq!(other.rows, 10_000);
    assert!(idles(&mut rig));
    assert_eq!(slow.read(), 4);
    while !slow.over {
        assert!(!idles(&mut rig));
        slow.read();
    }
    assert_eq!(slow.rows, 10_000);
    let gone = rig.walk(Work::List);
    assert!(!idles(&mut rig));
    drop(gone);
    let steps = (0..100).take_while(|_| !idles(&mut rig)).count();
    assert!(steps <= 16, "{steps} steps for nobody");
}

/// A worker that sleeps loops no more often than naps allow, and still takes what comes.
#[test]
fn a_worker_that_may_sleep_does_and_wakes() {
    let mut rig = Rig::new(1);
    let mut worker = rig.workers.remove(0);
    worker.set_idle(Idle::Sleep);
    let began = rig.shared.clock.now().nanos();
    let thread = thread::spawn(move || drop(worker.run()));
    let counters = &rig.shared.workers[0];
    let now = || rig.shared.clock.now().nanos();
    // past the loops that it stays awake for, and the short naps
    while counters.loops.get() < 1200 {
        thread::yield_now();
    }
    let (start, first) = (now(), counters.loops.get());
    thread::sleep(Duration::from_millis(50));
    let (loops, took) = (counters.loops.get() - first, now() - start);
    assert!(loops <= took / 100_000 + 1, "{loops} in {took} ns");
    for client in 1..=20 {
        rig.arrive(LAN, 0, udp(client));
        let sent = || rig.wires.wire(WAN).lock().sent.len();
        while sent() < client as usize {
            thread::yield_now();
        }
        if client % 4 == 0 {
            thread::sleep(Duration::from_millis(2));
        }
    }
    rig.shared.stop();
    let stopped = now();
    thread.join().unwrap();
    // naps are idle time, and every moment is one or the other
    let counted = counters.idle_nanos.get() + counters.busy.sum();
    let about = stopped - began;
    assert!(
        counted > about / 2 && counted <= now() - began,
        "{counted} of {about} ns"
    );
}
