//! Who owns what, and how a bucket's owner changes.

use super::*;
use crate::conntrack::tuple::Tuple;
use crate::conntrack::types::proto;
use crate::wire::Addrs;
use crate::wire::inner::Ports;
use proptest::prelude::*;

fn steering(workers: usize, entries: usize) -> Arc<Steering> {
    let key = SymmetricKey::new(0x6d5a);
    Steering::new(key, HashKey::from_seed(3), workers, entries)
}

/// Numbers as good as random.
fn mixed(n: u32) -> u64 {
    HashKey::from_seed(9).hash2(n.into(), 0)
}

#[test]
fn both_directions_have_one_owner_and_owners_share_evenly() {
    let steer = Steer::new(steering(3, BUCKETS));
    let mut share = [0u32; 3];
    for i in 0..30_000 {
        let addrs = Addrs::V4 {
            src: 0x0a00_0000 + i / 20,
            dst: 0x0a01_0001,
        };
        let ports = Ports::Ports {
            sport: mixed(i) as u16,
            dport: 443,
        };
        let there = Tuple {
            addrs,
            proto: proto::TCP,
            ports,
            zone: 0,
        };
        let back = there.reversed().unwrap();
        let owner = |tuple: &Tuple| steer.place(steer.bucket(&tuple.key().unwrap().0)).owner();
        assert_eq!(owner(&there), owner(&back));
        share[owner(&there)] += 1;
    }
    for count in share {
        assert!((9_500..10_500).contains(&count), "{share:?}");
    }
}

proptest! {
    /// The bucket of a key is what a NIC makes of either direction's packet.
    #[test]
    fn a_nic_and_the_key_agree(
        bits: u16, src: u128, dst: u128, sport: u16, dport: u16, v6: bool, number in 0..4usize, zone: u16,
    ) {
        let proto = [proto::TCP, proto::UDP, proto::SCTP, proto::UDPLITE][number];
        let addrs = match v6 {
            true => Addrs::V6 { src, dst },
            false => Addrs::V4 { src: src as u32, dst: dst as u32 },
        };
        let tuple = Tuple { addrs, proto, ports: Ports::Ports { sport, dport }, zone };
        let key = SymmetricKey::new(bits);
        let steering = Steering::new(key, HashKey::from_seed(3), 2, BUCKETS);
        let bucket_of = |tuple: &Tuple| steering.bucket_of(tuple.key().unwrap().0.folded());
        // Addresses and ports as they stand in the packet, word by word.
        let (src, dst) = match tuple.addrs {
            Addrs::V4 { src, dst } => (src.into(), dst.into()),
            Addrs::V6 { src, dst } => (src, dst),
        };
        let mut folded = 0;
        for part in 0..8 {
            folded ^= (src >> (16 * part)) as u16 ^ (dst >> (16 * part)) as u16;
        }
        if number < 2 {
            folded ^= sport ^ dport;
        }
        let nic = bucket(Toeplitz::new(key).hash(folded));
        prop_assert_eq!(bucket_of(&tuple), nic);
        prop_assert_eq!(bucket_of(&tuple.reversed().unwrap()), nic);
    }
}

#[test]
fn buckets_that_share_an_entry_have_one_owner() {
    for entries in [16, 64, 128, 512] {
        for workers in [1, 2, 3, 7, 128] {
            let owners = steering(workers, entries).owners();
            for (bucket, owner) in owners.iter().enumerate() {
                assert_eq!(*owner, owners[bucket % entries]);
                assert!(usize::from(*owner) < workers);
            }
            let used = owners.iter().collect::<std::collections::BTreeSet<_>>();
            assert_eq!(used.len(), workers.min(entries).min(BUCKETS));
        }
    }
}

#[test]
fn a_bucket_leaves_is_held_and_settles() {
    let steering = steering(128, BUCKETS);
    let place = |bucket| steering.place(bucket);
    assert!(place(127).is_of(127) && place(127).is_settled());
    assert_eq!(steering.turn_over(127), None, "it does not leave");
    assert!(!steering.leave(127, 127) && !steering.leave(127, 128));
    assert!(steering.leave(127, 5));
    assert!(!steering.leave(127, 6), "it moves already");
    assert!(!place(127).is_settled() && !place(127).is_of(127));
    assert_eq!(
        (place(127).owner(), place(127).standing()),
        (127, Standing::Leaving(5))
    );
    assert_eq!(steering.owners()[127], 127);
    assert_eq!(steering.turn_over(127), Some((127, 5)));
    assert_eq!(
        (place(127).owner(), place(127).standing()),
        (5, Standing::Held(127))
    );
    assert!(!place(127).is_of(5) && steering.turn_over(127).is_none());
    steering.settle(127);
    assert!(place(127).is_of(5));
    assert_eq!(place(127).standing(), Standing::Settled);
    // The others stayed where they were.
    let mut owners = steering.owners();
    assert_eq!(std::mem::replace(&mut owners[127], 127), 5);
    assert!(
        owners
            .iter()
            .enumerate()
            .all(|(bucket, owner)| bucket == usize::from(*owner))
    );
}
