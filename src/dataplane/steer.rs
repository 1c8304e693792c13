//! Which worker owns a packet's flow: a pure function of the packet's flow key, so both
//! directions, and ICMP errors about the flow, come to one worker. Keyed per boot with a secret
//! of its own; it shares nothing with the bucket hash. Fragments have no flow key yet: what the
//! fragments of a datagram share brings them to one worker, who finds the flow's owner once the
//! datagram is whole.

use crate::base::hash::HashKey;
use crate::conntrack::tuple::{AnyKey, Key};
use crate::pipeline::defrag::FragmentKey;

/// The assignment of flows to workers.
#[derive(Debug, Clone, Copy)]
pub struct Steer {
    secret: HashKey,
    workers: u64,
}

impl Steer {
    /// An assignment to `workers` workers.
    pub fn new(secret: HashKey, workers: usize) -> Self {
        Self {
            secret,
            workers: workers as u64,
        }
    }

    /// The owner of the flow with `key`; packets without a key stay with `receiver`.
    #[inline]
    pub fn owner(&self, key: Option<&AnyKey>, receiver: usize) -> usize {
        if self.workers == 1 {
            return receiver;
        }
        let hash = match key {
            Some(AnyKey::V4(key)) => key.hash(&self.secret),
            Some(AnyKey::V6(key)) => key.hash(&self.secret),
            None => return receiver,
        };
        self.pick(hash)
    }

    /// Who puts the datagram with this fragment together: one worker for all datagrams between two
    /// hosts, or those of one flow could overtake each other on their ways over several.
    pub fn collector(&self, key: &FragmentKey) -> usize {
        self.pick(key.path_hash(&self.secret))
    }

    #[inline]
    fn pick(&self, hash: u64) -> usize {
        // The upper half times the number of workers: even, without a division.
        (((hash >> 32) * self.workers) >> 32) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conntrack::tuple::Tuple;
    use crate::wire::Addrs;
    use crate::wire::inner::Ports;

    #[test]
    fn both_directions_have_one_owner_and_owners_share_evenly() {
        let steer = Steer::new(HashKey::from_seed(3), 3);
        let mut share = [0u32; 3];
        for i in 0..30_000u32 {
            let addrs = Addrs::V4 {
                src: 0x0a00_0000 + i,
                dst: 0x0a01_0001,
            };
            let ports = Ports::Ports {
                sport: (i % 60_000) as u16,
                dport: 443,
            };
            let there = Tuple {
                addrs,
                proto: 6,
                ports,
                zone: 0,
            };
            let back = there.reversed().unwrap();
            let owner = |tuple: &Tuple| steer.owner(tuple.key().map(|(key, _)| key).as_ref(), 0);
            assert_eq!(owner(&there), owner(&back));
            share[owner(&there)] += 1;
        }
        for count in share {
            assert!((9_500..10_500).contains(&count), "{share:?}");
        }
        assert_eq!(steer.owner(None, 2), 2);
    }
}
