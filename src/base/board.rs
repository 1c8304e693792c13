//! A board: a hash table of short notes that everybody reads, each posted by one owner.
//!
//! Every owner has an arena of notes of its own. It *posts* one by writing its words and then
//! publishing its number in a bucket, and it alone *withdraws* it. Anybody may *take* a note: of
//! several takers, and the owner that withdraws, one wins (a compare-and-swap), and that one
//! unlinks it. The owner notices that a note is [gone](State::Gone) and uses it again after a grace
//! period of the readers' [`Domain`], so that nobody ever sees half of another note. Nobody locks or
//! waits; a reader writes nothing unless it takes.
//!
//! A bucket is a cache line: seven slots, each with 32 bits of the hash and the number of a note,
//! and a count of the notes that found this bucket full and are in one of the next. While that is
//! zero, a search ends here. One counter says how many notes there are, and at zero nothing else is
//! looked at.
//!
//! Life of a note: free, posted (live or asleep), taken (by who unlinks it), gone, in limbo until
//! the grace period is over, free. `cargo test` with `--cfg shardwall_loom` checks that posting,
//! taking and using again are safe in every interleaving.

#[cfg(not(shardwall_loom))]
use std::sync::atomic::{AtomicU32, AtomicU64};

#[cfg(shardwall_loom)]
use loom::sync::atomic::{AtomicU32, AtomicU64};

use super::rcu::{Domain, Epoch, Reader};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

#[cfg(not(shardwall_loom))]
const SLOTS: usize = 7;
#[cfg(shardwall_loom)]
const SLOTS: usize = 1;
/// Buckets that a note may be in, from that of its hash on.
#[cfg(not(shardwall_loom))]
const REACH: usize = 16;
#[cfg(shardwall_loom)]
const REACH: usize = 2;
/// Notes of an arena beyond the most that may be posted: those in limbo.
const LIMBO: u32 = 4096;

#[cfg(not(shardwall_loom))]
type Array<T> = super::slab::Slab<T>;
#[cfg(shardwall_loom)]
type Array<T> = Vec<T>;

#[cfg(not(shardwall_loom))]
fn array<T: zerocopy::FromZeros>(len: usize) -> io::Result<Array<T>> {
    Array::new(len)
}

#[cfg(shardwall_loom)]
fn array<T: Default>(len: usize) -> io::Result<Array<T>> {
    Ok((0..len).map(|_| T::default()).collect())
}

#[cfg_attr(not(shardwall_loom), derive(zerocopy::FromZeros))]
#[derive(Debug, Default)]
#[repr(C, align(64))]
struct Bucket {
    slots: [AtomicU64; SLOTS],
    /// Notes that belong here and are in a later bucket, or that passed here on their way.
    spilled: AtomicU64,
}

/// What a note is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// In nobody's hands.
    Free,
    /// Posted.
    Live,
    /// Posted, and passed over by those who look for notes to take.
    Asleep,
    /// Somebody has it and is unlinking it.
    Taken,
    /// Unlinked; its owner may have it back after a grace period.
    Gone,
}

impl State {
    const fn of(number: u32) -> Self {
        match number {
            1 => State::Live,
            2 => State::Asleep,
            3 => State::Taken,
            4 => State::Gone,
            _ => State::Free,
        }
    }
}

/// A note of `W` words.
#[cfg_attr(not(shardwall_loom), derive(zerocopy::FromZeros))]
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Note<const W: usize> {
    words: [AtomicU64; W],
    hash: AtomicU64,
    state: AtomicU32,
}

impl<const W: usize> Default for Note<W> {
    fn default() -> Self {
        Self {
            words: std::array::from_fn(|_| AtomicU64::new(0)),
            hash: AtomicU64::new(0),
            state: AtomicU32::new(0),
        }
    }
}

impl<const W: usize> Note<W> {
    /// Its words.
    pub fn words(&self) -> [u64; W] {
        std::array::from_fn(|at| self.words[at].load(Relaxed))
    }

    /// One of its words.
    #[inline]
    pub fn word(&self, at: usize) -> u64 {
        self.words[at].load(Relaxed)
    }

    /// What it is.
    pub fn state(&self) -> State {
        State::of(self.state.load(Acquire))
    }

    /// Makes it the caller's, to unlink; `false` if somebody else was faster.
    fn seize(&self, from: State) -> bool {
        let (from, to) = (from as u32, State::Taken as u32);
        self.state
            .compare_exchange(from, to, AcqRel, Relaxed)
            .is_ok()
    }
}

/// A note's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoteId(u32);

/// What a reader does with a note that it looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// It is not the one; look on.
    Pass,
    /// It is the one, and stays.
    Keep,
    /// It is the one, and is taken, if nobody was faster.
    Take,
}

/// The board.
#[derive(Debug)]
pub struct Board<const W: usize> {
    domain: Arc<Domain>,
    buckets: Array<Bucket>,
    notes: Array<Note<W>>,
    /// Notes of one arena.
    arena: u32,
    /// Most notes that may be posted.
    max: u32,
    /// Notes that are posted.
    posted: AtomicU32,
}

/// An owner's end: its arena's free notes.
#[derive(Debug)]
pub struct Poster {
    /// Its first note.
    base: u32,
    /// Notes of the arena that were ever used.
    fresh: u32,
    /// Lists through the arena, as index + 1.
    next: Array<u32>,
    free: u32,
    /// Notes that came back since the epoch below began, and those that wait for it to pass.
    back: u32,
    waiting: Option<(u32, Epoch)>,
    /// Notes that are not free.
    used: u32,
}

impl<const W: usize> Board<W> {
    /// A board for at most `max` notes of `owners` owners together, and its owners. The memory is
    /// reserved now and taken as it is first touched.
    ///
    /// # Errors
    /// If the memory is not to be had.
    pub fn new(domain: Arc<Domain>, owners: usize, max: u32) -> io::Result<(Self, Vec<Poster>)> {
        let arena = max.saturating_add(LIMBO.min(max));
        let buckets = (max as usize * 2).div_ceil(SLOTS).max(1) + REACH;
        let notes = (arena as usize).checked_mul(owners);
        let notes = notes.filter(|notes| u32::try_from(*notes).is_ok());
        let board = Self {
            domain,
            buckets: array(buckets)?,
            notes: array(notes.ok_or(io::ErrorKind::OutOfMemory)?)?,
            arena,
            max,
            posted: AtomicU32::new(0),
        };
        let poster = |owner| {
            Ok(Poster {
                base: owner as u32 * arena,
                fresh: 0,
                next: array(arena as usize)?,
                free: 0,
                back: 0,
                waiting: None,
                used: 0,
            })
        };
        let posters = (0..owners).map(poster).collect::<io::Result<_>>()?;
        Ok((board, posters))
    }

    /// Whether nothing is posted.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.posted.load(Relaxed) == 0
    }

    /// Notes that are posted.
    pub fn len(&self) -> u32 {
        self.posted.load(Relaxed)
    }

    /// A note.
    #[inline]
    pub fn note(&self, id: NoteId) -> &Note<W> {
        &self.notes[id.0 as usize]
    }

    #[inline]
    fn home(&self, hash: u64) -> usize {
        let homes = (self.buckets.len() - REACH) as u64;
        ((u64::from(hash as u32) * homes) >> 32) as usize
    }

    /// What a slot holds: the hash's other half, and the number of the note, not zero.
    #[inline]
    fn slot(hash: u64, id: NoteId) -> u64 {
        hash >> 32 << 32 | u64::from(id.0 + 1)
    }

    /// Whether there may be a note under `hash`: a look at one bucket, which notes with another hash
    /// can deceive.
    #[inline]
    pub fn may_have(&self, hash: u64) -> bool {
        let bucket = &self.buckets[self.home(hash)];
        let mut slots = bucket.slots.iter();
        slots.any(|slot| slot.load(Acquire) >> 32 == hash >> 32)
            || bucket.spilled.load(Acquire) != 0
    }

    /// The first note under `hash` that `look` does not pass over, for `reader`, who may look at it
    /// until it is quiescent. Sleeping notes are shown too: [`Note::state`] tells.
    #[inline]
    pub fn find<'r>(
        &'r self,
        reader: &'r Reader,
        hash: u64,
        mut look: impl FnMut(&Note<W>) -> Look,
    ) -> Option<(NoteId, &'r Note<W>)> {
        debug_assert!(reader.guards(&self.domain), "not an online reader");
        let home = self.home(hash);
        for at in home..home + REACH {
            let bucket = &self.buckets[at];
            for slot in &bucket.slots {
                let value = slot.load(Acquire);
                if value >> 32 != hash >> 32 || value as u32 == 0 {
                    continue;
                }
                let id = NoteId(value as u32 - 1);
                let note = self.note(id);
                match look(note) {
                    Look::Pass => {}
                    Look::Keep => return Some((id, note)),
                    Look::Take => {
                        if note.seize(State::Live) {
                            self.unlink(id, home, at, slot, value);
                            return Some((id, note));
                        }
                    }
                }
            }
            if bucket.spilled.load(Acquire) == 0 {
                break;
            }
        }
        None
    }

    /// Takes a note that the caller has seized out of the slot that it is in.
    fn unlink(&self, id: NoteId, home: usize, at: usize, slot: &AtomicU64, value: u64) {
        let cleared = slot.compare_exchange(value, 0, AcqRel, Relaxed);
        debug_assert!(cleared.is_ok(), "only who seized a note unlinks it");
        for passed in &self.buckets[home..at] {
            passed.spilled.fetch_sub(1, AcqRel);
        }
        self.posted.fetch_sub(1, AcqRel);
        // Now that no search can find it any more its owner may count epochs.
        let state = &self.note(id).state;
        state.store(State::Gone as u32, Release);
    }

    /// Posts a note with `words`, asleep or not; `None` if there is no room.
    pub fn post(
        &self,
        poster: &mut Poster,
        hash: u64,
        words: &[u64; W],
        asleep: bool,
    ) -> Option<NoteId> {
        if self.posted.fetch_add(1, AcqRel) >= self.max {
            self.posted.fetch_sub(1, AcqRel);
            return None;
        }
        let posted = poster.take(self.arena).and_then(|id| {
            let note = self.note(id);
            for (word, value) in note.words.iter().zip(words) {
                word.store(*value, Relaxed);
            }
            note.hash.store(hash, Relaxed);
            let state = if asleep { State::Asleep } else { State::Live };
            note.state.store(state as u32, Release);
            if self.link(hash, id) {
                return Some(id);
            }
            note.state.store(State::Free as u32, Relaxed);
            poster.put(id);
            None
        });
        if posted.is_none() {
            self.posted.fetch_sub(1, AcqRel);
        }
        posted
    }

    /// Publishes `id` in the first slot that is free.
    fn link(&self, hash: u64, id: NoteId) -> bool {
        let (home, value) = (self.home(hash), Self::slot(hash, id));
        for at in home..home + REACH {
            let bucket = &self.buckets[at];
            for slot in &bucket.slots {
                if slot.load(Relaxed) == 0
                    && slot.compare_exchange(0, value, Release, Relaxed).is_ok()
                {
                    return true;
                }
            }
            // Before the note is anywhere behind this bucket.
            bucket.spilled.fetch_add(1, AcqRel);
        }
        for passed in &self.buckets[home..home + REACH] {
            passed.spilled.fetch_sub(1, AcqRel);
        }
        false
    }

    /// Takes back a note of the caller's own; `false` if somebody has taken it.
    pub fn withdraw(&self, poster: &Poster, id: NoteId) -> bool {
        debug_assert!(poster.owns(id, self.arena), "not a note of the caller's");
        let note = self.note(id);
        if !note.seize(State::Live) && !note.seize(State::Asleep) {
            return false;
        }
        let hash = note.hash.load(Relaxed);
        let (home, value) = (self.home(hash), Self::slot(hash, id));
        for at in home..home + REACH {
            let holds = |slot: &&AtomicU64| slot.load(Relaxed) == value;
            if let Some(slot) = self.buckets[at].slots.iter().find(holds) {
                self.unlink(id, home, at, slot, value);
                return true;
            }
        }
        debug_assert!(false, "a posted note is in a slot");
        false
    }

    /// Wakes a note of the caller's own that is asleep.
    pub fn wake(&self, poster: &Poster, id: NoteId) {
        debug_assert!(poster.owns(id, self.arena), "not a note of the caller's");
        let (from, to) = (State::Asleep as u32, State::Live as u32);
        let state = &self.note(id).state;
        let _ = state.compare_exchange(from, to, AcqRel, Relaxed);
    }

    /// Changes one word of a note of the caller's own; readers see the old one or the new one.
    pub fn set_word(&self, poster: &Poster, id: NoteId, at: usize, value: u64) {
        debug_assert!(poster.owns(id, self.arena), "not a note of the caller's");
        self.note(id).words[at].store(value, Relaxed);
    }

    /// Gives a note that is [gone](State::Gone) back to its arena, to be used again after a grace
    /// period.
    pub fn give_back(&self, poster: &mut Poster, id: NoteId) {
        let note = self.note(id);
        debug_assert!(note.state() == State::Gone, "only what is gone comes back");
        note.state.store(State::Free as u32, Relaxed);
        let at = id.0 - poster.base;
        poster.next[at as usize] = poster.back;
        poster.back = at + 1;
    }

    /// Makes notes whose grace period is over free again, and begins one for those that came back
    /// meanwhile.
    pub fn reclaim(&self, poster: &mut Poster) {
        if let Some((list, epoch)) = poster.waiting
            && self.domain.passed(epoch)
        {
            poster.waiting = None;
            let mut list = list;
            while let Some(at) = list.checked_sub(1) {
                list = poster.next[at as usize];
                poster.put(NoteId(poster.base + at));
            }
        }
        if poster.waiting.is_none() && poster.back != 0 {
            let list = std::mem::take(&mut poster.back);
            poster.waiting = Some((list, self.domain.advance()));
        }
    }
}

impl Poster {
    fn owns(&self, id: NoteId, arena: u32) -> bool {
        (self.base..self.base + arena).contains(&id.0)
    }

    /// A free note.
    fn take(&mut self, arena: u32) -> Option<NoteId> {
        let at = match self.free.checked_sub(1) {
            Some(at) => {
                self.free = self.next[at as usize];
                at
            }
            None if self.fresh < arena => {
                self.fresh += 1;
                self.fresh - 1
            }
            None => return None,
        };
        self.used += 1;
        Some(NoteId(self.base + at))
    }

    fn put(&mut self, id: NoteId) {
        let at = id.0 - self.base;
        self.next[at as usize] = self.free;
        self.free = at + 1;
        self.used -= 1;
    }

    /// Whether all its notes are free.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.used == 0
    }

    /// Notes of its arena that were ever used.
    pub fn fresh(&self) -> u32 {
        self.fresh
    }

    /// Notes of its arena.
    pub fn arena(&self) -> u32 {
        self.next.len() as u32
    }

    /// The note at `at` in its arena.
    pub fn id(&self, at: u32) -> NoteId {
        NoteId(self.base + at)
    }

    /// The place of a note of its own in its arena.
    pub fn place(&self, id: NoteId) -> u32 {
        id.0 - self.base
    }
}

#[cfg(all(test, not(shardwall_loom)))]
mod tests;

#[cfg(all(test, shardwall_loom))]
mod model;
