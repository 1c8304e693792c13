//! Expectations: flows that helpers announced, on one board for all workers.
//!
//! The data flow that a helper expects may arrive on any core, so every worker reads the same
//! [`Board`]: without a lock, in the first packet of a new flow only, and not at all while nothing is
//! expected. The worker that owns the control flow (the *master*) owns its expectations: it makes
//! them, ends them when their time or their master's is over, and is told nothing when another
//! worker's flow uses one up; it finds the note gone.
//!
//! An [`Expectation`] carries all that the expected flow needs. Its link to the master is a name,
//! nothing more, and dies with it.
//!
//! What is the same, what clashes and which one has to go follow Linux 6.12
//! (`nf_conntrack_expect.c`).
//!
//! Life-cycle: [`Expectations::new`] makes the board and each worker's [`Expecter`]; they live as
//! long as the workers. Concurrency: as [`crate::base::board`] says; an [`Expecter`] belongs to one
//! worker, and its [`Expecter::begin`] is where that worker holds nothing any more.

use super::helper::{HelperId, Info, Permissions};
use super::tuple::Tuple;
use crate::base::board::Board;
use crate::base::hash::HashKey;
use crate::base::rcu::Domain;
use crate::base::time::{Span, Ticks};
use crate::wire::Addrs;
use std::io;
use std::sync::Arc;

mod expecter;
#[cfg(test)]
mod tests;
mod words;

pub use crate::base::board::NoteId;
pub use expecter::{End, Expecter};

use words::WORDS;

/// A flow that is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// Who will open it, and where to; a source that may be anybody is zero here.
    pub addrs: Addrs,
    /// Anybody may open it.
    pub any_src: bool,
    /// From which port; `None` for any.
    pub sport: Option<u16>,
    /// To which port.
    pub dport: u16,
    /// Transport protocol.
    pub proto: u8,
    /// Zone, the master's.
    pub zone: u16,
    /// The helper that made it.
    pub helper: HelperId,
    /// Its class there.
    pub class: u8,
    /// It lasts until its time is over.
    pub permanent: bool,
    /// It does not count yet.
    pub inactive: bool,
    /// The flow gets the same helper.
    pub inherit: bool,
    /// What that may do there: the master's.
    pub permissions: Permissions,
    /// The flow's mark, the master's.
    pub mark: u32,
    /// When it ends.
    pub deadline: Ticks,
    /// The flow that announced it, in its original direction.
    pub master: Tuple,
    /// The shard that owns it.
    pub shard: u16,
}

impl Expectation {
    /// Whether `tuple` is what is expected.
    fn awaits(&self, tuple: &Tuple, sport: u16, dport: u16) -> bool {
        self.dport == dport
            && self.proto == tuple.proto
            && self.zone == tuple.zone
            && self.addrs.dst() == tuple.addrs.dst()
            && (self.any_src || self.addrs.src() == tuple.addrs.src())
            && self.sport.is_none_or(|only| only == sport)
    }

    /// Whether both expect the same, by the same words.
    fn equals(&self, other: &Self) -> bool {
        self.goes_where(other)
            && (self.any_src, self.sport) == (other.any_src, other.sport)
            && (self.any_src || self.addrs.src() == other.addrs.src())
    }

    /// Whether a flow could be what both expect.
    fn overlaps(&self, other: &Self) -> bool {
        let same_src = self.any_src || other.any_src || self.addrs.src() == other.addrs.src();
        let same_sport = match (self.sport, other.sport) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        self.goes_where(other) && same_src && same_sport
    }

    fn goes_where(&self, other: &Self) -> bool {
        (self.dport, self.proto, self.zone) == (other.dport, other.proto, other.zone)
            && self.addrs.dst() == other.addrs.dst()
    }

    /// How long it waits from `now` on.
    pub fn left(&self, now: Ticks) -> Span {
        now.until(self.deadline)
    }
}

/// The flow that asks, as the expectation needs it.
#[derive(Clone, Copy, Debug)]
pub struct Master {
    /// Its original direction.
    pub tuple: Tuple,
    /// Its helper.
    pub helper: HelperId,
    /// What that may do.
    pub permissions: Permissions,
    /// Its mark.
    pub mark: u32,
}

/// What all workers share.
#[derive(Debug)]
pub struct Expectations {
    board: Board<WORDS>,
    secret: HashKey,
    infos: &'static [&'static Info],
}

impl Expectations {
    /// The table of a box whose `workers` workers expect at most `max` flows together, and each
    /// worker's end of it, with a list for each of `lists` masters. `infos` describes the helpers.
    ///
    /// # Errors
    /// If the memory is not to be had.
    #[allow(clippy::new_ret_no_self)] // it lives in its ends
    pub fn new(
        workers: usize,
        max: u32,
        lists: u32,
        infos: &'static [&'static Info],
        secret: HashKey,
    ) -> io::Result<Vec<Expecter>> {
        let (domain, readers) = Domain::new(workers);
        let (board, posters) = Board::new(domain, workers, max)?;
        let shared = Arc::new(Self {
            board,
            secret,
            infos,
        });
        let ends = readers.into_iter().zip(posters).enumerate();
        ends.map(|(shard, (reader, poster))| {
            Expecter::new(shared.clone(), shard as u16, reader, poster, lists)
        })
        .collect()
    }

    /// How many there are, those of all workers.
    pub fn len(&self) -> u32 {
        self.board.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.board.is_empty()
    }
}
