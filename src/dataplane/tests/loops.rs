//! What one loop of a worker does at most, what is counted of it, and what it does with its time when
//! there is nothing to do.

use super::*;
use crate::base::histogram::Times;
use crate::dataplane::command::SCAN;
use std::thread;
use std::time::Duration;

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
                let (cursor, (reply, _)) = (Default::default(), bounded(1));
                rig.commands[0]
                    .send(Command::List { cursor, reply })
                    .unwrap();
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

/// A listing of a million flows is many loops, none of which looks at more than [`SCAN`] entries or
/// does more than one request; packets pass in between.
#[test]
fn a_loop_looks_at_few_entries_however_many_there_are() {
    const FLOWS: u32 = 1_000_000;
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
    let (mut cursor, mut listed, mut turns) = (Some(Default::default()), 0, 0);
    while let Some(at) = cursor {
        let (reply, answer) = bounded(1);
        let (other, second) = bounded(1);
        let list = |cursor, reply| Command::List { cursor, reply };
        rig.commands[0].send(list(at, reply)).unwrap();
        rig.commands[0].send(list(at, other)).unwrap();
        rig.arrive(WAN, 0, {
            let (sport, dport) = (9, 9);
            frame(addrs(turns).flip(), Segment::Udp { sport, dport }, b"")
        });
        assert_eq!(rig.workers[0].turn(now), 1);
        assert_eq!(rig.sent(LAN).len(), 1, "a reply passes in the same loop");
        let rows = answer.try_recv().unwrap();
        assert!(second.is_empty(), "one request a loop");
        rig.workers[0].turn(now);
        assert_eq!(second.try_recv().unwrap().rows.len(), rows.rows.len());
        assert!(rows.rows.len() <= SCAN as usize);
        listed += rows.rows.len() as u32;
        turns += 1;
        cursor = rows.next;
    }
    // every entry is a flow: the rows are what was looked at
    assert_eq!(listed, FLOWS);
    assert_eq!(turns, FLOWS.div_ceil(SCAN) + 1, "and the table of IPv6");
    let ended = |rig: &Rig| rig.sum(|w| w.path.ct.delete.get());
    let mut cursor = Some(Default::default());
    while let Some(at) = cursor {
        let before = ended(&rig);
        let (reply, answer) = bounded(1);
        let flush = Command::Flush { cursor: at, reply };
        rig.commands[0].send(flush).unwrap();
        rig.workers[0].turn(now);
        assert!(ended(&rig) - before <= u64::from(SCAN));
        cursor = answer.try_recv().unwrap().next;
    }
    assert_eq!(ended(&rig), u64::from(FLOWS));
    // A table of which most is empty: so many loops all the same.
    rig.arrive(LAN, 0, udp(1));
    rig.workers[0].turn(now);
    let (mut cursor, mut turns) = (Some(Default::default()), 0);
    while let Some(at) = cursor {
        let (reply, answer) = bounded(1);
        let list = Command::List { cursor: at, reply };
        rig.commands[0].send(list).unwrap();
        rig.workers[0].turn(now);
        turns += 1;
        cursor = answer.try_recv().unwrap().next;
    }
    assert_eq!(turns, FLOWS.div_ceil(SCAN) + 1);
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
