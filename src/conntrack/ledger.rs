//! Which counts of the box's [`Tally`] the flows of one shard are in, so that each is given back when
//! its flow ends, however that comes, and under whatever policy it began.
//!
//! An entry says how many counts hold it ([`super::entry::Links::counted`]); the keys are in lists
//! here, beside the entries, whose memory is touched only for flows that are counted. Owned and used
//! by one worker.

use crate::base::slab::Slab;
use crate::base::tally::{Tally, TallyKey};
use std::io;
use zerocopy::FromZeros;

/// Most counts that hold one flow.
pub const MAX_COUNTS: usize = 8;

/// One flow in one count.
#[derive(Clone, Copy, Debug, FromZeros)]
#[repr(C)]
struct Record {
    key: TallyKey,
    /// The next of the flow's list, or of the free list, as index + 1; 0 ends it.
    next: u32,
    reserved: u32,
}

/// The lists.
#[derive(Debug)]
pub struct Ledger {
    /// The first record of each entry of either family.
    heads: [Slab<u32>; 2],
    records: Slab<Record>,
    /// First free record, as index + 1; records from `fresh` on were never used.
    free: u32,
    fresh: u32,
}

impl Ledger {
    /// For tables of `capacity` entries, of which at most `capacity` are in use together.
    ///
    /// # Errors
    /// If the memory is not to be had.
    pub fn new(capacity: u32) -> io::Result<Self> {
        let capacity = capacity as usize;
        Ok(Self {
            heads: [Slab::new(capacity)?, Slab::new(capacity)?],
            records: Slab::new(capacity.saturating_mul(MAX_COUNTS).min(u32::MAX as usize))?,
            free: 0,
            fresh: 0,
        })
    }

    /// Notes that `keys` count `entry`, which no count holds yet; returns how many were noted. The
    /// rest, for which there is no room, is given back to `tally`.
    pub fn enter(&mut self, v6: bool, entry: u32, keys: &[TallyKey], tally: &Tally) -> u8 {
        let Some(head) = self.heads[usize::from(v6)].get_mut(entry as usize) else {
            keys.iter().for_each(|key| tally.remove(*key));
            return 0;
        };
        *head = 0;
        let mut noted = 0;
        for key in keys {
            let recycled = self.free != 0;
            let at = if recycled { self.free - 1 } else { self.fresh };
            let Some(record) = self.records.get_mut(at as usize) else {
                tally.remove(*key);
                continue;
            };
            if recycled {
                self.free = record.next;
            } else {
                self.fresh += 1;
            }
            (record.key, record.next) = (*key, *head);
            *head = at + 1;
            noted += 1;
        }
        noted
    }

    /// Gives the counts of an `entry` that ends back to `tally`; `counted` is how many it has.
    #[inline]
    pub fn end(&mut self, v6: bool, entry: u32, counted: u8, tally: &Tally) {
        if counted != 0 {
            self.give_back(v6, entry, tally);
        }
    }

    #[cold]
    fn give_back(&mut self, v6: bool, entry: u32, tally: &Tally) {
        let Some(head) = self.heads[usize::from(v6)].get_mut(entry as usize) else {
            return;
        };
        let mut next = std::mem::take(head);
        while let Some(at) = next.checked_sub(1)
            && let Some(record) = self.records.get_mut(at as usize)
        {
            tally.remove(record.key);
            next = std::mem::replace(&mut record.next, self.free);
            self.free = at + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash::HashKey;

    #[test]
    fn what_was_entered_is_given_back_and_records_are_used_again() {
        let tally = Tally::new(100, HashKey::from_seed(1)).unwrap();
        let mut ledger = Ledger::new(4).unwrap();
        let keys: Vec<_> = (0..8).map(|n| tally.key([n, 0, 0, 0, 0])).collect();
        for round in 0..50 {
            for entry in 0..4 {
                let v6 = (entry + round) % 2 == 0;
                let keys = &keys[..(entry + round) as usize % 9];
                keys.iter()
                    .for_each(|key| assert!(tally.add(*key).is_some()));
                assert_eq!(
                    usize::from(ledger.enter(v6, entry, keys, &tally)),
                    keys.len()
                );
            }
            for entry in 0..4 {
                let v6 = (entry + round) % 2 == 0;
                ledger.end(v6, entry, ((entry + round) % 9) as u8, &tally);
            }
            assert_eq!(tally.total(), 0, "round {round}");
        }
        assert!(ledger.fresh <= 32);
    }

    #[test]
    fn what_has_no_place_is_given_back_at_once() {
        let tally = Tally::new(100, HashKey::from_seed(1)).unwrap();
        let mut ledger = Ledger::new(1).unwrap();
        let keys = [tally.key([1; 5]); 9];
        keys.iter()
            .for_each(|key| assert!(tally.add(*key).is_some()));
        assert_eq!(ledger.enter(false, 0, &keys, &tally), 8);
        assert_eq!(tally.total(), 8);
        ledger.end(false, 0, 8, &tally);
        tally.add(keys[0]);
        assert_eq!(ledger.enter(true, 1, &keys[..1], &tally), 0);
        assert_eq!(tally.total(), 0);
    }
}
