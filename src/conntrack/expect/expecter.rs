//! One worker's end of the table: it reads what all expect, and owns what its own flows do.

use super::words;
use super::{Expectation, Expectations, Master};
use crate::base::board::{Look, NoteId, Poster, State};
use crate::base::rcu::Reader;
use crate::base::slab::Slab;
use crate::base::time::{Span, Ticks};
use crate::conntrack::helper::{Expect, HelperId, Info, Refusal};
use crate::conntrack::tuple::{AnyKey, Tuple};
use crate::wire::Addrs;
use crate::wire::inner::Ports;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use zerocopy::FromZeros;

/// Where an expectation hangs among those of its master.
#[derive(Clone, Copy, Debug, Default, FromZeros)]
#[repr(C)]
struct Link {
    /// The next older one, as its place + 1; 0 ends the list.
    next: u32,
    /// The list, as its number + 1; 0 for none.
    list: u32,
}

/// How an expectation of this worker's ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its time was over.
    Expired,
    /// It was withdrawn: its master ended, a newer one took its place, or the helper or the operator
    /// said so.
    Withdrawn,
}

/// One worker's end: it reads what all expect, and owns what its own flows do. Each of its masters
/// has a list, by a number that the caller gives out.
#[derive(Debug)]
pub struct Expecter {
    shared: Arc<Expectations>,
    reader: Reader,
    poster: Poster,
    /// Parallel to the notes of the arena.
    links: Slab<Link>,
    /// The newest of each list, as its place + 1.
    heads: Slab<u32>,
    shard: u16,
    /// Where the sweep goes on.
    swept: u32,
}

impl Expecter {
    pub(super) fn new(
        shared: Arc<Expectations>,
        shard: u16,
        mut reader: Reader,
        poster: Poster,
        lists: u32,
    ) -> io::Result<Self> {
        reader.quiescent();
        Ok(Self {
            shared,
            reader,
            links: Slab::new(poster.arena() as usize)?,
            heads: Slab::new(lists as usize)?,
            poster,
            shard,
            swept: 0,
        })
    }

    /// Begins a loop: nothing that was found on the board is held any more.
    #[inline]
    pub fn begin(&mut self) {
        self.reader.quiescent();
    }

    /// What all workers share.
    pub fn shared(&self) -> &Arc<Expectations> {
        &self.shared
    }

    /// What is known of the helper called `id`.
    pub fn info(&self, id: HelperId) -> Option<&'static Info> {
        self.shared.infos.get(id.index()).copied()
    }

    /// What is known of helpers.
    pub fn infos(&self) -> &'static [&'static Info] {
        self.shared.infos
    }

    /// Whether nothing is expected, by no worker.
    #[inline]
    pub fn nothing_is_expected(&self) -> bool {
        self.shared.board.is_empty()
    }

    fn hash(&self, it: &Expectation) -> u64 {
        words::hash(&self.shared.secret, &words::destination(it))
    }

    /// The expectation that a packet fulfils which starts the flow with `key` and comes from the
    /// `lo` side of it, or not. It is used up, unless it is permanent.
    #[inline]
    pub fn claim(&self, key: &AnyKey, from_lo: bool, now: Ticks) -> Option<Expectation> {
        let hash = words::hash(&self.shared.secret, &key.destination(from_lo));
        if self.shared.board.may_have(hash) {
            return self.claim_under(hash, &key.tuple(from_lo)?, now);
        }
        None
    }

    #[cold]
    fn claim_under(&self, hash: u64, tuple: &Tuple, now: Ticks) -> Option<Expectation> {
        let Ports::Ports { sport, dport } = tuple.ports else {
            return None;
        };
        let mut found = None;
        self.shared.board.find(&self.reader, hash, |note| {
            let Some(expectation) = words::read(note) else {
                return Look::Pass;
            };
            if note.state() != State::Live
                || !expectation.awaits(tuple, sport, dport)
                || now.reached(expectation.deadline)
            {
                return Look::Pass;
            }
            found = Some(expectation);
            match expectation.permanent {
                true => Look::Keep,
                false => Look::Take,
            }
        })?;
        found
    }

    /// Expects what `wanted` says of `master`, whose list is `list`. `ended` is told of every
    /// expectation that has to go for it. `None` if another flow expects it, and that is enough.
    ///
    /// # Errors
    /// If another flow expects it, or there is no room.
    pub fn expect(
        &mut self,
        (master, list): (&Master, u32),
        wanted: &Expect,
        now: Ticks,
        mut ended: impl FnMut(&Expectation, End),
    ) -> Result<Option<Expectation>, Refusal> {
        let info = self.info(master.helper).ok_or(Refusal::TableFull)?;
        let class = info.classes.get(usize::from(wanted.class));
        let class = class.ok_or(Refusal::TableFull)?;
        let timeout = wanted.timeout.unwrap_or(class.timeout);
        let expectation = self.about(master, wanted, now.plus(timeout))?;
        self.tidy(list, now, &mut ended);
        match self.conflict(&expectation, wanted.shared, now) {
            Conflict::None => {}
            Conflict::Same(id) => self.withdraw(id, End::Withdrawn, &mut ended),
            Conflict::Enough => return Ok(None),
            Conflict::Clash => return Err(Refusal::Clash),
        }
        let of_class = |it: &Expectation| it.class == wanted.class;
        let (mut count, mut oldest) = (0, None);
        let mut next = self.first(list);
        while let Some((id, older)) = self.at(next) {
            if self.read(id).as_ref().is_some_and(of_class) {
                (count, oldest) = (count + 1, Some(id));
            }
            next = older;
        }
        if count >= class.max
            && let Some(oldest) = oldest
        {
            self.withdraw(oldest, End::Withdrawn, &mut ended);
        }
        self.post(&expectation, list)?;
        Ok(Some(expectation))
    }

    fn about(
        &self,
        master: &Master,
        wanted: &Expect,
        deadline: Ticks,
    ) -> Result<Expectation, Refusal> {
        let addrs = match (wanted.src.unwrap_or(none_of(wanted.dst)), wanted.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => Addrs::V4 {
                src: src.to_bits(),
                dst: dst.to_bits(),
            },
            (IpAddr::V6(src), IpAddr::V6(dst)) => Addrs::V6 {
                src: src.to_bits(),
                dst: dst.to_bits(),
            },
            _ => return Err(Refusal::WrongFamily),
        };
        Ok(Expectation {
            addrs,
            any_src: wanted.src.is_none(),
            sport: wanted.src_port,
            dport: wanted.dst_port,
            proto: wanted.proto,
            zone: master.tuple.zone,
            helper: master.helper,
            class: wanted.class,
            permanent: wanted.permanent,
            inactive: wanted.inactive,
            inherit: wanted.inherit,
            permissions: master.permissions,
            mark: master.mark,
            deadline,
            master: master.tuple,
            shard: self.shard,
        })
    }

    /// What on the board stands against `expectation`.
    fn conflict(&self, expectation: &Expectation, shared: bool, now: Ticks) -> Conflict {
        let hash = self.hash(expectation);
        let mut verdict = (false, false);
        let found = self.shared.board.find(&self.reader, hash, |note| {
            let Some(other) = words::read(note) else {
                return Look::Pass;
            };
            let posted = matches!(note.state(), State::Live | State::Asleep);
            if !posted || now.reached(other.deadline) || !other.overlaps(expectation) {
                return Look::Pass;
            }
            let own = (other.master, other.shard) == (expectation.master, self.shard);
            let same = other.equals(expectation) && (own || shared);
            verdict = (same, own && other.class == expectation.class);
            Look::Keep
        });
        match (found, verdict) {
            (None, _) => Conflict::None,
            (Some((id, _)), (true, true)) => Conflict::Same(id),
            // Linux: EALREADY, which only those take well who said so.
            (Some(_), (true, false)) if shared => Conflict::Enough,
            (Some(_), _) => Conflict::Clash,
        }
    }

    fn post(&mut self, expectation: &Expectation, list: u32) -> Result<(), Refusal> {
        let (hash, words) = (self.hash(expectation), words::write(expectation));
        let (board, inactive) = (&self.shared.board, expectation.inactive);
        let Some(id) = board.post(&mut self.poster, hash, &words, inactive) else {
            return Err(Refusal::TableFull);
        };
        let place = self.poster.place(id);
        self.links[place as usize] = Link {
            next: self.first(list),
            list: list + 1,
        };
        self.heads[list as usize] = place + 1;
        Ok(())
    }

    /// Begins a list: it is empty.
    pub fn open(&mut self, list: u32) {
        self.heads[list as usize] = 0;
    }

    /// The newest of a list, as its place + 1.
    fn first(&self, list: u32) -> u32 {
        self.heads[list as usize]
    }

    /// The expectation that a list has at `next`, and the next older one.
    fn at(&self, next: u32) -> Option<(NoteId, u32)> {
        let place = next.checked_sub(1)?;
        let link = self.links.get(place as usize)?;
        Some((self.poster.id(place), link.next))
    }

    /// An expectation of this worker's, if it is posted still.
    fn read(&self, id: NoteId) -> Option<Expectation> {
        let note = self.shared.board.note(id);
        let inactive = match note.state() {
            State::Live => false,
            State::Asleep => true,
            State::Free | State::Taken | State::Gone => return None,
        };
        let expectation = words::read(note)?;
        Some(Expectation {
            inactive,
            ..expectation
        })
    }

    /// Takes out of a list what was used up, or whose time is over.
    fn tidy(&mut self, list: u32, now: Ticks, ended: &mut impl FnMut(&Expectation, End)) {
        let mut next = self.first(list);
        while let Some((id, older)) = self.at(next) {
            next = older;
            match self.read(id) {
                Some(expectation) if !now.reached(expectation.deadline) => {}
                Some(_) => self.withdraw(id, End::Expired, ended),
                None => self.detach(id),
            }
        }
    }

    /// Ends one of this worker's expectations, if nobody has used it up yet; it is in no list then.
    fn withdraw(&mut self, id: NoteId, end: End, ended: &mut impl FnMut(&Expectation, End)) {
        let expectation = self.read(id);
        let withdrawn = self.shared.board.withdraw(&self.poster, id);
        self.detach(id);
        if withdrawn {
            self.shared.board.give_back(&mut self.poster, id);
            if let Some(expectation) = expectation {
                ended(&expectation, end);
            }
        }
    }

    /// Takes an expectation out of its list.
    fn detach(&mut self, id: NoteId) {
        let own = self.poster.place(id) + 1;
        let Link { next: after, list } = std::mem::take(&mut self.links[own as usize - 1]);
        let Some(list) = list.checked_sub(1) else {
            return;
        };
        let mut next = self.first(list);
        if next == own {
            self.heads[list as usize] = after;
            return;
        }
        while let Some((_, older)) = self.at(next) {
            if older == own {
                self.links[next as usize - 1].next = after;
                return;
            }
            next = older;
        }
    }

    /// Ends the expectations of a list that are of `classes` (bits).
    pub fn forget(&mut self, list: u32, classes: u8, mut ended: impl FnMut(&Expectation, End)) {
        let mut next = self.first(list);
        while let Some((id, older)) = self.at(next) {
            next = older;
            if let Some(expectation) = self.read(id)
                && classes & 1 << (expectation.class & 7) != 0
            {
                self.withdraw(id, End::Withdrawn, &mut ended);
            }
        }
    }

    /// Ends the newest expectation of a list that is of `class`.
    pub fn forget_newest(
        &mut self,
        list: u32,
        class: u8,
        mut ended: impl FnMut(&Expectation, End),
    ) {
        let mut next = self.first(list);
        while let Some((id, older)) = self.at(next) {
            if self.read(id).is_some_and(|it| it.class == class) {
                return self.withdraw(id, End::Withdrawn, &mut ended);
            }
            next = older;
        }
    }

    /// Ends a list: its master is no more.
    pub fn close(&mut self, list: u32, mut ended: impl FnMut(&Expectation, End)) {
        while let Some((id, _)) = self.at(self.first(list)) {
            self.withdraw(id, End::Withdrawn, &mut ended);
        }
    }

    /// Lets the expectation of this class and destination count from `now` on, for `timeout`;
    /// `false` if the list has none.
    pub fn confirm(
        &mut self,
        list: u32,
        (class, proto, dst, dport): (u8, u8, IpAddr, u16),
        now: Ticks,
        timeout: Span,
    ) -> bool {
        let wanted = |it: &Expectation| {
            (it.class, it.proto, it.addrs.dst(), it.dport) == (class, proto, dst, dport)
        };
        let mut next = self.first(list);
        while let Some((id, older)) = self.at(next) {
            if let Some(expectation) = self.read(id).filter(wanted) {
                self.rewrite(id, now.plus(timeout), expectation.mark);
                self.shared.board.wake(&self.poster, id);
                return true;
            }
            next = older;
        }
        false
    }

    /// Gives all expectations of a list another mark.
    pub fn mark(&mut self, list: u32, mark: u32) {
        let mut next = self.first(list);
        while let Some((id, older)) = self.at(next) {
            if let Some(expectation) = self.read(id) {
                self.rewrite(id, expectation.deadline, mark);
            }
            next = older;
        }
    }

    fn rewrite(&self, id: NoteId, deadline: Ticks, mark: u32) {
        let life = words::life(deadline, mark);
        let board = &self.shared.board;
        board.set_word(&self.poster, id, words::LIFE, life);
    }

    /// Ends those of this worker's expectations whose time is over, and takes back the memory of
    /// those that others used up, looking at `budget` at most.
    #[inline]
    pub fn sweep(&mut self, now: Ticks, budget: usize, ended: impl FnMut(&Expectation, End)) {
        if !self.poster.is_idle() {
            self.sweep_some(now, budget, ended);
        }
    }

    #[cold]
    fn sweep_some(&mut self, now: Ticks, budget: usize, mut ended: impl FnMut(&Expectation, End)) {
        let fresh = self.poster.fresh();
        for _ in 0..budget.min(fresh as usize) {
            self.swept = if self.swept + 1 < fresh {
                self.swept + 1
            } else {
                0
            };
            let id = self.poster.id(self.swept);
            match self.shared.board.note(id).state() {
                State::Free | State::Taken => {}
                State::Gone => {
                    self.detach(id);
                    self.shared.board.give_back(&mut self.poster, id);
                }
                State::Live | State::Asleep => {
                    if self.read(id).is_some_and(|it| now.reached(it.deadline)) {
                        self.withdraw(id, End::Expired, &mut ended);
                    }
                }
            }
        }
        self.shared.board.reclaim(&mut self.poster);
    }

    /// This worker's expectations from `start` on, at most `scan` looked at; and where to go on.
    pub fn scan(
        &self,
        start: u32,
        scan: u32,
        now: Ticks,
    ) -> (impl Iterator<Item = (NoteId, Expectation)>, Option<u32>) {
        let fresh = self.poster.fresh();
        let end = fresh.min(start.saturating_add(scan));
        let posted = (start..end).filter_map(move |place| {
            let id = self.poster.id(place);
            let expectation = self.read(id)?;
            (!now.reached(expectation.deadline)).then_some((id, expectation))
        });
        (posted, (end < fresh).then_some(end))
    }

    /// Ends one that [`Expecter::scan`] found; `false` if it was gone meanwhile.
    pub fn remove(&mut self, id: NoteId, mut ended: impl FnMut(&Expectation, End)) -> bool {
        let mut removed = false;
        self.withdraw(id, End::Withdrawn, &mut |expectation, end| {
            removed = true;
            ended(expectation, end);
        });
        removed
    }
}

/// What stands against an expectation.
enum Conflict {
    None,
    /// The same, of the same master: it is replaced.
    Same(NoteId),
    /// The same, and that is enough.
    Enough,
    /// Another, and one packet could be what both expect.
    Clash,
}

/// No address, of the family of `addr`.
fn none_of(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}
