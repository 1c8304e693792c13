//! RCU by quiescent states: readers never lock, wait or write to a shared line more than once a
//! burst; writers wait for the readers and free what was replaced.
//!
//! A [`Domain`] has a fixed number of reader slots, one for each worker. A reader is *online*
//! between [`Reader::quiescent`] calls and may hold references that [`Rcu::read`] gave it; each
//! call says "I hold nothing any more" by publishing the epoch that it has seen. A writer swaps
//! the pointer, advances the epoch, and waits until every online reader has published the new
//! epoch: from then on nobody can hold the old value, and the writer drops it on its own thread.
//! An offline reader holds nothing and is not waited for. Who must not wait, as a worker, begins an
//! epoch ([`Domain::advance`]), goes on, and asks later whether it has passed.
//!
//! Ordering: a reader publishes epoch `e` with release after its last use of old values, and the
//! writer's acquire of `e` orders those uses before the drop. A reader that loads epoch `e` with
//! acquire also sees every swap that came before `e` was stored. Coming online needs a full fence
//! on both sides, because there the reader's store must not pass its load of the pointer.
//!
//! `cargo test` with `--cfg shardwall_loom` checks the protocol in every interleaving.
#![allow(unsafe_code)]

#[cfg(not(shardwall_loom))]
use std::sync::atomic::{AtomicPtr, AtomicU64, fence};

#[cfg(shardwall_loom)]
use loom::sync::atomic::{AtomicPtr, AtomicU64, fence};

use crossbeam::utils::CachePadded;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::time::Duration;

const OFFLINE: u64 = u64::MAX;

/// The readers that writers wait for.
#[derive(Debug)]
pub struct Domain {
    epoch: AtomicU64,
    readers: Box<[CachePadded<AtomicU64>]>,
}

impl Domain {
    /// A domain and its readers, all offline.
    pub fn new(readers: usize) -> (Arc<Domain>, Vec<Reader>) {
        let slots = (0..readers)
            .map(|_| CachePadded::new(AtomicU64::new(OFFLINE)))
            .collect();
        let domain = Arc::new(Domain {
            epoch: AtomicU64::new(1),
            readers: slots,
        });
        let readers = (0..readers)
            .map(|slot| Reader {
                domain: domain.clone(),
                slot,
            })
            .collect();
        (domain, readers)
    }

    /// Begins a new epoch. What was unlinked before this call is held by nobody once the epoch
    /// [has passed](Self::passed).
    pub fn advance(&self) -> Epoch {
        let epoch = self.epoch.fetch_add(1, AcqRel) + 1;
        fence(SeqCst);
        Epoch(epoch)
    }

    /// Whether every reader has been quiescent, or offline, since `epoch` began. Waits for nobody.
    pub fn passed(&self, epoch: Epoch) -> bool {
        let seen = |reader: &CachePadded<AtomicU64>| reader.load(Acquire);
        let mut readers = self.readers.iter().map(seen);
        readers.all(|seen| seen == OFFLINE || seen >= epoch.0)
    }

    /// How many epochs each reader has still to see; `None` for one that is offline.
    pub fn behind(&self) -> impl Iterator<Item = Option<u64>> {
        let epoch = self.epoch.load(Relaxed);
        let seen = self.readers.iter().map(|reader| reader.load(Relaxed));
        seen.map(move |seen| (seen != OFFLINE).then(|| epoch.saturating_sub(seen)))
    }

    /// Waits until no reader can hold a value that was replaced before this call.
    fn synchronize(&self) {
        let epoch = self.advance();
        while !self.passed(epoch) {
            #[cfg(not(shardwall_loom))]
            std::thread::yield_now();
            #[cfg(shardwall_loom)]
            loom::thread::yield_now();
        }
    }
}

/// A moment in the life of a [`Domain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch(u64);

/// One reader's membership of a domain. Its owner moves it to the reading thread.
#[derive(Debug)]
pub struct Reader {
    domain: Arc<Domain>,
    slot: usize,
}

impl Reader {
    /// Says that no reference from [`Rcu::read`] is held any more (the borrow checker agrees) and
    /// takes the newest epoch. Comes online if it was offline.
    #[inline]
    pub fn quiescent(&mut self) {
        let slot = &self.domain.readers[self.slot];
        let coming_online = slot.load(Relaxed) == OFFLINE;
        slot.store(self.domain.epoch.load(Acquire), Release);
        if coming_online {
            fence(SeqCst);
        }
    }

    /// Whether it is online in `domain`, so that what it finds there stays until it is quiescent.
    #[inline]
    pub fn guards(&self, domain: &Arc<Domain>) -> bool {
        let online = self.domain.readers[self.slot].load(Relaxed) != OFFLINE;
        online && Arc::ptr_eq(domain, &self.domain)
    }

    /// Stops being waited for.
    pub fn offline(&mut self) {
        self.domain.readers[self.slot].store(OFFLINE, Release);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.offline();
    }
}

/// A value that is read by the readers of its domain and replaced as a whole.
#[derive(Debug)]
pub struct Rcu<T> {
    domain: Arc<Domain>,
    current: AtomicPtr<T>,
    /// Held by writers, and by those who look without being readers.
    writer: Mutex<()>,
}

impl<T: Send + Sync> Rcu<T> {
    /// `value`, for the readers of `domain`.
    pub fn new(domain: Arc<Domain>, value: T) -> Self {
        let current = AtomicPtr::new(Box::into_raw(Box::new(value)));
        Self {
            domain,
            current,
            writer: Mutex::new(()),
        }
    }

    /// Whom writers wait for.
    pub fn domain(&self) -> &Arc<Domain> {
        &self.domain
    }

    /// The current value, until `reader` is quiescent next.
    ///
    /// # Panics
    /// If `reader` belongs to another domain or is offline.
    #[inline]
    pub fn read<'r>(&'r self, reader: &'r Reader) -> &'r T {
        assert!(reader.guards(&self.domain), "not an online reader");
        // SAFETY: the pointer came from a Box and is dropped only after every online reader of
        // the domain was quiescent; `quiescent` and `offline` need `&mut Reader`, which the
        // returned borrow of `reader` keeps from being called.
        unsafe { &*self.current.load(Acquire) }
    }

    /// Looks at the current value from a thread that is no reader. Replacement waits meanwhile.
    pub fn with<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        let _writer = self.writer.lock();
        // SAFETY: only `replace` drops the value, and it holds the lock while it does.
        look(unsafe { &*self.current.load(Acquire) })
    }

    /// The same, for one who would rather go without than wait longer than `patience` for a replacement.
    pub fn with_within<R>(&self, patience: Duration, look: impl FnOnce(&T) -> R) -> Option<R> {
        let _writer = self.writer.try_lock_for(patience)?;
        // SAFETY: only `replace` drops the value, and it holds the lock while it does.
        Some(look(unsafe { &*self.current.load(Acquire) }))
    }

    /// Replaces the value, waits until no reader holds the old one, hands both to `settle`, and
    /// drops the old one.
    pub fn replace(&self, value: T, settle: impl FnOnce(&T, &T)) {
        let _writer = self.writer.lock();
        let new = Box::into_raw(Box::new(value));
        let old = self.current.swap(new, AcqRel);
        self.domain.synchronize();
        // SAFETY: `old` came from a Box, was unlinked above, and no reader holds it any more.
        let old = unsafe { Box::from_raw(old) };
        // SAFETY: `new` is the current value, and the lock keeps it from being replaced.
        settle(&old, unsafe { &*new });
    }
}

impl<T> Drop for Rcu<T> {
    fn drop(&mut self) {
        // SAFETY: nobody can borrow from `self` any more, and the pointer came from a Box.
        drop(unsafe { Box::from_raw(self.current.load(Acquire)) });
    }
}

#[cfg(all(test, not(shardwall_loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize};

    /// Counts drops, and knows whether it was dropped.
    struct Tracked(u64, Arc<AtomicUsize>);

    impl Drop for Tracked {
        fn drop(&mut self) {
            self.0 = u64::MAX;
            self.1.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn readers_see_whole_values_that_are_alive() {
        let drops = Arc::new(AtomicUsize::new(0));
        let (domain, readers) = Domain::new(2);
        let rcu = Rcu::new(domain, Tracked(0, drops.clone()));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for mut reader in readers {
                let (rcu, stop) = (&rcu, &stop);
                scope.spawn(move || {
                    let mut last = 0;
                    while !stop.load(Relaxed) {
                        reader.quiescent();
                        let value = rcu.read(&reader);
                        for _ in 0..50 {
                            assert_ne!(value.0, u64::MAX, "read after drop");
                        }
                        assert!(value.0 >= last, "went back in time");
                        last = value.0;
                    }
                });
            }
            for generation in 1..=200 {
                rcu.replace(Tracked(generation, drops.clone()), |old, new| {
                    assert_eq!(old.0 + 1, new.0);
                });
                assert_eq!(drops.load(SeqCst) as u64, generation, "the old one is gone");
            }
            stop.store(true, Relaxed);
        });
        drop(rcu);
        assert_eq!(drops.load(SeqCst), 201);
    }

    #[test]
    fn offline_readers_are_not_waited_for() {
        let (domain, mut readers) = Domain::new(2);
        let rcu = Rcu::new(domain, 1);
        rcu.replace(2, |_, _| {});
        readers[0].quiescent();
        assert_eq!(*rcu.read(&readers[0]), 2);
        readers[0].offline();
        rcu.replace(3, |_, _| {});
        readers.clear();
        rcu.replace(4, |_, _| {});
        assert_eq!(rcu.with(|value| *value), 4);
    }

    #[test]
    fn readers_are_behind_until_they_are_quiescent() {
        let (domain, mut readers) = Domain::new(2);
        let behind = || domain.behind().collect::<Vec<_>>();
        assert_eq!(behind(), [None, None]);
        readers.iter_mut().for_each(Reader::quiescent);
        assert_eq!(behind(), [Some(0), Some(0)]);
        domain.advance();
        domain.advance();
        readers[1].quiescent();
        assert_eq!(behind(), [Some(2), Some(0)]);
    }

    #[test]
    fn who_looks_does_not_wait_for_ever() {
        let rcu = Rcu::new(Domain::new(0).0, 1);
        let patience = Duration::from_millis(1);
        assert_eq!(rcu.with_within(patience, |value| *value), Some(1));
        let beside = |rcu: &Rcu<i32>| {
            let look = || rcu.with_within(patience, |value| *value);
            std::thread::scope(|scope| scope.spawn(look).join().unwrap())
        };
        assert_eq!(rcu.with(|_| beside(&rcu)), None);
    }

    #[test]
    #[should_panic(expected = "not an online reader")]
    fn an_offline_reader_cannot_read() {
        let (domain, readers) = Domain::new(1);
        let rcu = Rcu::new(domain, 1);
        rcu.read(&readers[0]);
    }
}

#[cfg(all(test, shardwall_loom))]
mod model {
    use super::*;
    use loom::sync::atomic::AtomicUsize;
    use loom::thread;

    /// A value whose life loom watches: reading it after its drop fails the model.
    struct Alive(loom::sync::Arc<AtomicUsize>, usize);

    impl Drop for Alive {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    fn scenario(online_before: bool) {
        loom::model(move || {
            let dropped = loom::sync::Arc::new(AtomicUsize::new(0));
            let (domain, mut readers) = Domain::new(1);
            let rcu = Arc::new(Rcu::new(domain, Alive(dropped.clone(), 0)));
            let mut reader = readers.remove(0);
            if online_before {
                reader.quiescent();
            }
            let (theirs, watched) = (rcu.clone(), dropped.clone());
            let thread = thread::spawn(move || {
                for _ in 0..2 {
                    reader.quiescent();
                    let value = theirs.read(&reader);
                    let generation = value.1;
                    assert!(
                        watched.load(SeqCst) <= generation,
                        "dropped while it is read"
                    );
                    assert!(theirs.read(&reader).1 >= generation, "went back in time");
                }
            });
            rcu.replace(Alive(dropped.clone(), 1), |_, _| {});
            thread.join().unwrap();
        });
    }

    #[test]
    fn replace_while_online() {
        scenario(true);
    }

    #[test]
    fn replace_while_coming_online() {
        scenario(false);
    }
}
