//! The store's memory: datagrams in a keyed hash table and, by age, in a list for each family;
//! the fragments of a datagram in a list ordered by offset. Links are indices into two slices that
//! are allocated once; what is free hangs on lists of its own.

use super::{Fault, FragmentKey};
use crate::base::time::Ticks;
use crate::pipeline::DropReason;
use crate::wire::Addrs;
use crate::wire::fragment::Piece;

/// No datagram, or no fragment.
pub(super) const NONE: u32 = u32::MAX;

/// A datagram that waits for fragments.
#[derive(Clone, Debug)]
pub(super) struct Datagram {
    pub(super) key: FragmentKey,
    /// When its first fragment came.
    pub(super) since: Ticks,
    /// Where the bytes known of end: its length, once `last_seen`.
    pub(super) end: u32,
    /// Bytes of it that are held.
    pub(super) held: u32,
    /// Whether the fragment without more to follow is there.
    pub(super) last_seen: bool,
    /// Fragments that are held.
    pub(super) count: u8,
    /// Which congestion marks they have, a bit each.
    pub(super) ecn: u8,
    hash: u64,
    first: u32,
    last: u32,
    /// The next in its bucket, or of the free ones.
    chain: u32,
    older: u32,
    newer: u32,
}

#[derive(Debug)]
struct Fragment<B> {
    start: u32,
    end: u32,
    /// Whether it arrived right behind the one before it, as the furthest yet.
    continues: bool,
    frame_len: usize,
    frame: Option<B>,
    /// The next by offset, or of the free ones.
    next: u32,
}

/// Where a fragment goes in its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Behind this one.
    previous: u32,
    continues: bool,
}

impl Place {
    /// The first that comes.
    pub(super) const ALONE: Place = Place {
        previous: NONE,
        continues: false,
    };
}

/// The ends of a list by age.
#[derive(Clone, Copy, Debug)]
struct Ages {
    oldest: u32,
    newest: u32,
}

/// Datagrams and their fragments.
#[derive(Debug)]
pub(super) struct Store<B> {
    buckets: Box<[u32]>,
    datagrams: Box<[Datagram]>,
    fragments: Box<[Fragment<B>]>,
    free_datagram: u32,
    free_fragment: u32,
    /// IPv4 and IPv6: their timeouts differ.
    ages: [Ages; 2],
    held: u32,
    bytes: usize,
}

/// The link of slot `at` in a list of all slots.
fn link(at: u32, len: u32) -> u32 {
    if at + 1 < len { at + 1 } else { NONE }
}

impl<B> Store<B> {
    pub(super) fn new(datagrams: u32, fragments: u32) -> Self {
        let (datagrams, fragments) = (datagrams.max(1), fragments.max(1));
        let unused = Datagram {
            key: FragmentKey {
                addrs: Addrs::V4 { src: 0, dst: 0 },
                id: 0,
                vlan: 0,
                port: crate::policy::PortId(0),
                proto: 0,
            },
            since: Ticks(0),
            end: 0,
            held: 0,
            last_seen: false,
            count: 0,
            ecn: 0,
            hash: 0,
            first: NONE,
            last: NONE,
            chain: NONE,
            older: NONE,
            newer: NONE,
        };
        let unused = |at| Datagram {
            chain: link(at, datagrams),
            ..unused.clone()
        };
        let empty = |at| Fragment {
            start: 0,
            end: 0,
            continues: false,
            frame_len: 0,
            frame: None,
            next: link(at, fragments),
        };
        let none = Ages {
            oldest: NONE,
            newest: NONE,
        };
        Self {
            buckets: vec![NONE; (2 * datagrams as usize).next_power_of_two()].into(),
            datagrams: (0..datagrams).map(unused).collect(),
            fragments: (0..fragments).map(empty).collect(),
            free_datagram: 0,
            free_fragment: 0,
            ages: [none; 2],
            held: 0,
            bytes: 0,
        }
    }

    /// Fragments that are held.
    pub(super) fn fragments(&self) -> u32 {
        self.held
    }

    /// Bytes of their frames.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where its memory lies, and how much it is: never anywhere else, never more.
    #[cfg(test)]
    pub(super) fn memory(&self) -> [(usize, usize); 3] {
        let of = |place: *const u8, bytes| (place.addr(), bytes);
        [
            of(self.buckets.as_ptr().cast(), size_of_val(&*self.buckets)),
            of(
                self.datagrams.as_ptr().cast(),
                size_of_val(&*self.datagrams),
            ),
            of(
                self.fragments.as_ptr().cast(),
                size_of_val(&*self.fragments),
            ),
        ]
    }

    /// Whether there is no slot for a fragment, and if it starts a datagram, for that.
    pub(super) fn is_full(&self, starts: bool) -> bool {
        self.free_fragment == NONE || (starts && self.free_datagram == NONE)
    }

    pub(super) fn datagram(&self, at: u32) -> &Datagram {
        &self.datagrams[at as usize]
    }

    /// The oldest datagram of a family.
    pub(super) fn oldest(&self, v6: bool) -> u32 {
        self.ages[usize::from(v6)].oldest
    }

    fn bucket(&self, hash: u64) -> usize {
        hash as usize & (self.buckets.len() - 1)
    }

    /// The datagram with this key.
    pub(super) fn find(&self, hash: u64, key: &FragmentKey) -> u32 {
        let mut at = self.buckets[self.bucket(hash)];
        while at != NONE {
            let datagram = self.datagram(at);
            if datagram.hash == hash && datagram.key == *key {
                break;
            }
            at = datagram.chain;
        }
        at
    }

    /// Where in datagram `at` the fragment belongs. As `inet_frag_queue_insert` of Linux 6.18 sees
    /// it: fragments that arrived in order are one run, and what lies inside a run is a duplicate.
    pub(super) fn place(&self, at: u32, piece: &Piece) -> Result<Place, Fault> {
        const OVERLAP: Fault = Fault::Datagram(DropReason::FragmentOverlap);
        let (start, end) = (piece.start, piece.end());
        let datagram = self.datagram(at);
        let last = &self.fragments[datagram.last as usize];
        if last.end < end {
            return match start < last.end {
                true => Err(OVERLAP),
                false => Ok(Place {
                    previous: datagram.last,
                    continues: start == last.end,
                }),
            };
        }
        let (mut previous, mut run) = (NONE, datagram.first);
        while run != NONE {
            let run_start = self.fragments[run as usize].start;
            let mut tail = run;
            let mut next = self.fragments[tail as usize].next;
            while next != NONE && self.fragments[next as usize].continues {
                tail = next;
                next = self.fragments[tail as usize].next;
            }
            let run_end = self.fragments[tail as usize].end;
            if end <= run_start {
                break;
            }
            if start < run_end {
                return Err(match start >= run_start && end <= run_end {
                    true => Fault::Fragment(DropReason::FragmentDuplicate),
                    false => OVERLAP,
                });
            }
            (previous, run) = (tail, next);
        }
        Ok(Place {
            previous,
            continues: false,
        })
    }

    /// A new datagram, without fragments; there must be room for it.
    pub(super) fn open(&mut self, hash: u64, key: FragmentKey, now: Ticks) -> u32 {
        let at = self.free_datagram;
        let bucket = self.bucket(hash);
        let ages = &mut self.ages[usize::from(key.v6())];
        let older = std::mem::replace(&mut ages.newest, at);
        match older {
            NONE => ages.oldest = at,
            older => self.datagrams[older as usize].newer = at,
        }
        let slot = &mut self.datagrams[at as usize];
        self.free_datagram = slot.chain;
        *slot = Datagram {
            key,
            since: now,
            end: 0,
            held: 0,
            last_seen: false,
            count: 0,
            ecn: 0,
            hash,
            first: NONE,
            last: NONE,
            chain: self.buckets[bucket],
            older,
            newer: NONE,
        };
        self.buckets[bucket] = at;
        at
    }

    /// Adds a fragment to datagram `at`; there must be room for it.
    pub(super) fn insert(
        &mut self,
        at: u32,
        place: Place,
        piece: &Piece,
        frame_len: usize,
        frame: B,
    ) {
        let new = self.free_fragment;
        let datagram = &mut self.datagrams[at as usize];
        let next = match place.previous {
            NONE => std::mem::replace(&mut datagram.first, new),
            previous => std::mem::replace(&mut self.fragments[previous as usize].next, new),
        };
        if next == NONE {
            datagram.last = new;
        }
        datagram.end = datagram.end.max(piece.end());
        datagram.held += piece.len;
        datagram.last_seen |= !piece.more;
        datagram.count += 1;
        datagram.ecn |= 1 << piece.ecn;
        let slot = &mut self.fragments[new as usize];
        self.free_fragment = slot.next;
        *slot = Fragment {
            start: piece.start,
            end: piece.end(),
            continues: place.continues,
            frame_len,
            frame: Some(frame),
            next,
        };
        self.held += 1;
        self.bytes += frame_len;
    }

    /// Ends datagram `at`; `take` gets its frames in the order of their offsets.
    pub(super) fn close(&mut self, at: u32, mut take: impl FnMut(B)) {
        let mut fragment = self.datagrams[at as usize].first;
        while fragment != NONE {
            let slot = &mut self.fragments[fragment as usize];
            let next = std::mem::replace(&mut slot.next, self.free_fragment);
            self.free_fragment = fragment;
            self.held -= 1;
            self.bytes -= slot.frame_len;
            if let Some(frame) = slot.frame.take() {
                take(frame);
            }
            fragment = next;
        }
        self.unlink(at);
    }

    /// Takes a datagram without fragments out of its bucket and its age list.
    fn unlink(&mut self, at: u32) {
        let Datagram {
            hash,
            key,
            chain,
            older,
            newer,
            ..
        } = self.datagrams[at as usize];
        let bucket = self.bucket(hash);
        let mut before = self.buckets[bucket];
        if before == at {
            self.buckets[bucket] = chain;
        } else {
            while before != NONE {
                let slot = &mut self.datagrams[before as usize];
                if slot.chain == at {
                    slot.chain = chain;
                    break;
                }
                before = slot.chain;
            }
        }
        let ages = &mut self.ages[usize::from(key.v6())];
        match older {
            NONE => ages.oldest = newer,
            older => self.datagrams[older as usize].newer = newer,
        }
        match newer {
            NONE => ages.newest = older,
            newer => self.datagrams[newer as usize].older = older,
        }
        self.datagrams[at as usize].chain = self.free_datagram;
        self.free_datagram = at;
    }
}
