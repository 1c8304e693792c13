//! What is proposed, and that a running appliance does it.

use super::*;
use crate::control::testbed::{Bed, wait};
use proptest::prelude::*;

fn most(load: &Load, owners: &[usize; BUCKETS], workers: usize) -> u64 {
    let of = |worker| (0..BUCKETS).filter(move |bucket| owners[*bucket] == worker);
    let loads = (0..workers).map(|worker| of(worker).map(|bucket| load[bucket]).sum());
    loads.max().unwrap()
}

proptest! {
    #[test]
    fn a_proposal_never_makes_it_worse(
        load in prop::collection::vec(prop_oneof![3 => 0..1000u64, 1 => 0..100_000u64], BUCKETS),
        workers in 1..9usize,
        seed: u64,
    ) {
        let load: Load = load.try_into().unwrap();
        let owners: [usize; BUCKETS] =
            std::array::from_fn(|bucket| (seed >> (bucket % 48)) as usize % workers);
        let fixed = |bucket: usize| bucket.is_multiple_of(7);
        let moves = propose(&load, &owners, fixed, workers);
        let mut after = owners;
        for (bucket, to) in &moves {
            prop_assert!(!fixed(*bucket) && after[*bucket] != *to && load[*bucket] > 0);
            after[*bucket] = *to;
        }
        prop_assert!(most(&load, &after, workers) <= most(&load, &owners, workers));
    }
}

#[test]
fn a_proposal_evens_out_and_leaves_elephants() {
    let owners: [usize; BUCKETS] = std::array::from_fn(|bucket| bucket % 2);
    // All flows happen to be the first worker's.
    let mut load: Load = std::array::from_fn(|bucket| if bucket % 2 == 0 { 10 } else { 0 });
    let moves = propose(&load, &owners, |_| false, 2);
    assert_eq!(moves.len(), 32);
    assert!(moves.iter().all(|(bucket, to)| bucket % 2 == 0 && *to == 1));
    // One of them is most of it: the others make room for it.
    load[6] = 1000;
    let moves = propose(&load, &owners, |_| false, 2);
    assert_eq!(moves.len(), 63);
    assert!(moves.iter().all(|(bucket, _)| *bucket != 6), "{moves:?}");
    let rows = loads(&load, &owners, &owners, 2);
    assert_eq!((rows[0].busiest, rows[0].buckets), (6, 64));
    assert!(remarks(&load, &rows)[0].contains("bucket 6 alone has 61%"));
    // What is even stays.
    let even = [10; BUCKETS];
    assert!(propose(&even, &owners, |_| false, 2).is_empty());
    assert!(propose(&[0; BUCKETS], &owners, |_| false, 2).is_empty());
}

#[test]
fn a_running_appliance_moves_buckets_while_packets_pass() {
    let bed = Bed::new(2);
    let steering = bed.appliance.shared().steering.clone();
    // Flows of one worker only, a packet now and then while they are counted.
    let hosts: Vec<u32> = (1..2000)
        .filter(|host| steering.place(bed.bucket(*host)).is_of(0))
        .take(12)
        .collect();
    std::thread::scope(|scope| {
        let feeding = scope.spawn(|| {
            for _ in 0..150 {
                hosts.iter().for_each(|host| bed.feed(*host));
                sleep(Duration::from_millis(10));
            }
        });
        sleep(Duration::from_millis(100));
        let proposed = bed.appliance.rebalance(true).unwrap();
        assert!(!proposed.begun && !proposed.moves.is_empty());
        assert!(proposed.workers[0].share > 0.99, "{proposed:?}");
        assert!(!bed.appliance.anything_moves());
        feeding.join().unwrap();
    });
    let fed = 150 * hosts.len() as u64;
    wait(|| bed.judged() == fed);
    std::thread::scope(|scope| {
        let feeding = scope.spawn(|| {
            for _ in 0..150 {
                hosts.iter().for_each(|host| bed.feed(*host));
                sleep(Duration::from_millis(10));
            }
        });
        let report = bed.appliance.rebalance(false).unwrap();
        assert!(
            report.begun && report.workers[1].share_after > 0.3,
            "{report:?}"
        );
        assert_eq!(report.complete, 0, "its flows live");
        assert_eq!(report.moving.len(), report.moves.len());
        feeding.join().unwrap();
    });
    wait(|| bed.judged() == 2 * fed);
    // All flows are where they were; once they end, the buckets go.
    let flows = |worker: usize| bed.appliance.workers()[worker].flows;
    assert_eq!((flows(0), flows(1)), (12, 0));
    assert_eq!(bed.appliance.finish_moves(), Ok(0));
    bed.appliance.flush().unwrap();
    let moves = bed.appliance.moving(|_| 0.0);
    assert_eq!(bed.appliance.finish_moves(), Ok(moves.len()));
    assert!(!bed.appliance.anything_moves());
    assert!(
        moves
            .iter()
            .all(|row| steering.place(row.bucket).is_of(row.to))
    );
    hosts.iter().for_each(|host| bed.send(*host));
    assert!(flows(1) > 2 && flows(0) + flows(1) == 12);
    assert_eq!(bed.appliance.stats().packets.dropped, 0);
}
