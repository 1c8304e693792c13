//! A shard: the flows that one worker owns, and the judgement on each packet.
//!
//! A packet goes through three stages, so that a burst can overlap its cache misses:
//! [`Shard::prepare`] (key, hash, prefetch of the bucket), [`Shard::prefetch`] (the entry), and
//! [`Shard::track`] (state machines, in arrival order). A packet that starts a flow leaves a
//! *pending* flow behind, which [`Shard::commit`] enters into the table if policy accepts the
//! packet; otherwise the next packet forgets it. So what policy drops leaves nothing.
//!
//! How many flows there may be, and which one goes when there are too many, is in [`super::limit`].
//!
//! The order of tests is netfilter's (`nf_conntrack_in`, Linux 6.12).
//!
//! Owned and used by one worker; counters are read by others.

use super::config::Config;
use super::entry::{Core, Entry, LastSegment, status};
use super::event::{self, Before, Kind, Reporter};
use super::gre;
use super::icmp::{self, Role};
use super::ledger::Ledger;
use super::limit::{self, Budget, Purse, Worth};
use super::record::FlowRecord;
use super::sctp;
use super::table::{InsertError, Table};
use super::tcp::{self, Outcome};
use super::tuple::{AnyKey, Key, KeyV4, KeyV6, Tuple};
use super::types::{CtState, Dir, TcpState, proto};
use super::udp;
use crate::base::counter::Counter;
use crate::base::hash::HashKey;
use crate::base::time::{Now, Span, Ticks};
use crate::wire::{self, Addrs, L4, Parsed};
use std::sync::Arc;

/// What the tracker counts (Linux: `/proc/net/stat/nf_conntrack`). One writer: the worker.
#[derive(Debug, Default)]
#[allow(missing_docs)] // the names are netfilter's; the metrics say what they mean
pub struct CtCounters {
    /// Lookups that found a flow.
    pub found: Counter,
    /// Packets that could start a flow.
    pub new: Counter,
    /// Packets judged INVALID.
    pub invalid: Counter,
    /// Flows entered into the table.
    pub insert: Counter,
    /// Flows for which the index had no room.
    pub insert_failed: Counter,
    /// Packets dropped because the table was full.
    pub drop: Counter,
    /// Flows that had to go before their time, because the table was full.
    pub early_drop: Counter,
    /// Flows that ended, for whatever reason.
    pub delete: Counter,
    /// ICMP errors that quote nothing known.
    pub icmp_error: Counter,
    /// Flows in the table, TCP, UDP and the rest (a gauge).
    pub entries: [Counter; 3],
}

/// A packet after the first stage.
#[derive(Clone, Copy, Debug)]
pub struct Prepared {
    /// Meaningful for [`Subject::Flow`] and [`Subject::Error`].
    key: AnyKey,
    hash: u64,
    /// What the second stage found.
    candidate: u32,
    subject: Subject,
    from_lo: bool,
}

/// No candidate.
const NOTHING: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    /// Belongs to the flow with the key.
    Flow,
    /// Is an error about the flow with the key.
    Error,
    /// An error that quotes nothing readable, or goes to another host than the quoted sender.
    BadError,
    /// Is never tracked.
    Untracked,
    /// Identifies nothing.
    Unknown,
}

impl Prepared {
    /// The key that decides which shard owns the packet; `None` where any may judge it.
    #[inline]
    pub fn key(&self) -> Option<&AnyKey> {
        matches!(self.subject, Subject::Flow | Subject::Error).then_some(&self.key)
    }
}

/// An entry of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowRef {
    v6: bool,
    entry: u32,
}

/// What a packet has to do with the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Nothing.
    None,
    /// It belongs to this entry.
    Known(FlowRef),
    /// It starts a flow that is not in the table yet.
    Pending,
}

/// The judgement on a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// What it is.
    pub state: CtState,
    /// Which way it goes in its flow; `None` without one.
    pub dir: Option<Dir>,
    /// The flow.
    pub flow: Flow,
}

impl Tracked {
    const fn without_flow(state: CtState) -> Self {
        Self {
            state,
            dir: None,
            flow: Flow::None,
        }
    }
}

#[derive(Debug)]
struct Pending {
    key: AnyKey,
    hash: u64,
    core: Core,
    last: LastSegment,
    mark: u32,
    /// Bytes of its first packet, if they are to be counted.
    bytes: Option<u16>,
}

/// The flows of one worker.
#[derive(Debug)]
pub struct Shard {
    id: u16,
    v4: Table<KeyV4>,
    v6: Table<KeyV6>,
    purse: Purse,
    ledger: Ledger,
    pending: Option<Pending>,
    /// Where the sweep under pressure goes on.
    swept: Option<Cursor>,
    report: Reporter,
    /// The last packet's flow as it was before, if somebody wants to know.
    before: Option<(FlowRef, Before)>,
    counters: Arc<CtCounters>,
}

/// Runs `$body` with `$table` the table of `$v6`'s family.
macro_rules! family {
    ($shard:expr, $v6:expr, $table:ident => $body:expr) => {
        if $v6 {
            let $table = &mut $shard.v6;
            $body
        } else {
            let $table = &mut $shard.v4;
            $body
        }
    };
}

impl Shard {
    /// An empty shard of a box that has no other, for at most `limit` flows of both families
    /// together.
    pub fn new(
        id: u16,
        limit: u32,
        secret: HashKey,
        now: Ticks,
        counters: Arc<CtCounters>,
    ) -> Self {
        let budget = Arc::new(Budget::new(limit, 1));
        Self::sharing(id, budget, secret, now, counters)
    }

    /// An empty shard that shares `budget` with others.
    #[allow(clippy::expect_used)] // at start, where memory that is not there ends the start
    pub fn sharing(
        id: u16,
        budget: Arc<Budget>,
        secret: HashKey,
        now: Ticks,
        counters: Arc<CtCounters>,
    ) -> Self {
        let capacity = budget.capacity();
        Self {
            id,
            v4: Table::new(capacity, secret, now).expect("memory for the IPv4 flow table"),
            v6: Table::new(capacity, secret, now).expect("memory for the IPv6 flow table"),
            purse: Purse::new(budget),
            ledger: Ledger::new(capacity).expect("memory for the ledger of counts"),
            pending: None,
            swept: None,
            report: Reporter::default(),
            before: None,
            counters,
        }
    }

    /// Takes the memory of this shard's share of the flows now, so that the packet path never waits
    /// for it.
    pub fn populate(&mut self) {
        let share = self.purse.budget().share();
        self.v4.populate(share);
        self.v6.populate(share);
    }

    /// Reports events to `queue`, once somebody wants any.
    pub fn report_to(&mut self, queue: Arc<event::Queue>) {
        self.report = Reporter::new(self.id, queue);
    }

    /// Begins a loop at `now`, by which goes what no packet brings the time for; events of the
    /// kinds `wanted` (bits of [`Kind`]) are reported in it.
    #[inline]
    pub fn begin(&mut self, now: Now, wanted: u8) {
        self.report.begin(now, wanted);
    }

    /// Publishes how many flows there are, by protocol.
    pub fn publish_entries(&self) {
        let (v4, v6) = (self.v4.lens(), self.v6.lens());
        for (gauge, (v4, v6)) in self.counters.entries.iter().zip(v4.into_iter().zip(v6)) {
            gauge.set(u64::from(v4) + u64::from(v6));
        }
    }

    /// Flows in the table.
    pub fn len(&self) -> u32 {
        self.v4.len() + self.v6.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that the tables occupy.
    pub fn bytes(&self) -> usize {
        self.v4.bytes() + self.v6.bytes()
    }

    /// First stage: what the packet is about, and where its bucket lies. `data` is the frame.
    #[inline]
    pub fn prepare(&self, data: &[u8], parsed: &Parsed, zone: u16) -> Prepared {
        let mut prepared = Prepared::NOTHING;
        self.prepare_into(&mut prepared, data, parsed, zone);
        prepared
    }

    /// [`Shard::prepare`] in place: a result of this size is not moved for nothing.
    #[inline(always)]
    pub fn prepare_into(&self, out: &mut Prepared, data: &[u8], parsed: &Parsed, zone: u16) {
        let (sport, dport) = match parsed.l4 {
            L4::Tcp(ref tcp) => (tcp.sport, tcp.dport),
            L4::Udp { sport, dport } => (sport, dport),
            _ => {
                *out = self.prepare_any(data, parsed, zone);
                return;
            }
        };
        let Addrs::V4 { src, dst } = parsed.addrs else {
            *out = self.prepare_any(data, parsed, zone);
            return;
        };
        let (key, from_lo) = KeyV4::of_ports((src, sport), (dst, dport), parsed.proto, zone);
        let hash = self.v4.hash(&key);
        self.v4.prefetch_bucket(hash);
        *out = Prepared {
            key: AnyKey::V4(key),
            hash,
            candidate: NOTHING,
            subject: Subject::Flow,
            from_lo,
        };
    }

    /// Every kind of packet.
    #[inline(never)]
    fn prepare_any(&self, data: &[u8], parsed: &Parsed, zone: u16) -> Prepared {
        let subject = match parsed.l4 {
            L4::Icmp { .. } => return self.prepare_icmp(data, parsed, zone),
            L4::None | L4::Bad => Subject::Unknown,
            _ => Subject::Flow,
        };
        match Tuple::of(parsed, zone).and_then(|tuple| tuple.key()) {
            Some(found) => self.prepared(subject, found),
            None => Prepared::about(Subject::Unknown),
        }
    }

    #[inline(never)]
    fn prepare_icmp(&self, data: &[u8], parsed: &Parsed, zone: u16) -> Prepared {
        let L4::Icmp { ty, .. } = parsed.l4 else {
            return Prepared::about(Subject::Unknown);
        };
        let (subject, tuple, otherwise) = match icmp::role(parsed.proto, ty) {
            Role::Request | Role::Reply => {
                (Subject::Flow, Tuple::of(parsed, zone), Subject::Unknown)
            }
            Role::Error => (
                Subject::Error,
                quoted(data, parsed, zone),
                Subject::BadError,
            ),
            Role::Discovery => (Subject::Untracked, None, Subject::Untracked),
            Role::Other => (Subject::Unknown, None, Subject::Unknown),
        };
        match tuple.and_then(|tuple| tuple.key()) {
            Some(found) => self.prepared(subject, found),
            None => Prepared::about(otherwise),
        }
    }

    /// What is known of a packet with a key; its bucket is asked for.
    #[inline(always)]
    fn prepared(&self, subject: Subject, (key, from_lo): (AnyKey, bool)) -> Prepared {
        let hash = match &key {
            AnyKey::V4(key) => {
                let hash = self.v4.hash(key);
                self.v4.prefetch_bucket(hash);
                hash
            }
            AnyKey::V6(key) => {
                let hash = self.v6.hash(key);
                self.v6.prefetch_bucket(hash);
                hash
            }
        };
        Prepared {
            key,
            hash,
            candidate: NOTHING,
            subject,
            from_lo,
        }
    }

    /// Second stage: looks into the bucket and asks for the entry.
    #[inline]
    pub fn prefetch(&self, prepared: &mut Prepared) {
        let candidate = match prepared.key() {
            Some(AnyKey::V4(_)) => self.v4.prefetch_entry(prepared.hash),
            Some(AnyKey::V6(_)) => self.v6.prefetch_entry(prepared.hash),
            None => None,
        };
        prepared.candidate = candidate.unwrap_or(NOTHING);
    }

    /// Third stage: the judgement. `notrack` is what the raw rules said.
    #[inline]
    pub fn track(
        &mut self,
        data: &[u8],
        parsed: &Parsed,
        prepared: &Prepared,
        notrack: bool,
        now: Ticks,
        config: &Config,
    ) -> Tracked {
        self.pending = None;
        if notrack {
            return Tracked::without_flow(CtState::Untracked);
        }
        if config.checksum && !wire::verify::is_right(data, parsed) {
            return self.invalid();
        }
        match self.usual(data, parsed, prepared, now, config) {
            Some(tracked) => tracked,
            None => self.track_any(data, parsed, prepared, now, config),
        }
    }

    /// What nearly every packet is, in few instructions: a plain acknowledgement inside the window
    /// of an established flow, or a datagram of a stream, with the flow ASSURED, so that neither
    /// its state nor its status can change. `None`, and nothing was touched, if it is anything
    /// else.
    #[inline(always)]
    fn usual(
        &mut self,
        data: &[u8],
        parsed: &Parsed,
        prepared: &Prepared,
        now: Ticks,
        config: &Config,
    ) -> Option<Tracked> {
        fn of<K: Key>(
            table: &mut Table<K>,
            key: &K,
            (data, parsed): (&[u8], &Parsed),
            prepared: &Prepared,
            now: Ticks,
            config: &Config,
        ) -> Option<Dir> {
            let entry = table.entry_if(prepared.candidate, key)?;
            let Entry { core, rest, .. } = entry;
            if !core.has(status::SEEN_REPLY | status::ASSURED) || now.reached(core.deadline) {
                return None;
            }
            let dir = core.direction(prepared.from_lo);
            let span = match parsed.l4 {
                L4::Tcp(ref header) => {
                    let segment = tcp::segment(data, parsed, header);
                    tcp::plain_ack(core, &mut rest.last, dir, &segment, config)?
                }
                L4::Udp { .. } if parsed.proto == proto::UDP => config.timeouts.udp_replied,
                _ => return None,
            };
            if config.accounting {
                rest.account[dir as usize & 1].add(u32::from(parsed.ip_len()));
            }
            table.refresh(prepared.candidate, now, span);
            Some(dir)
        }
        let packet = (data, parsed);
        let (dir, v6) = match &prepared.key {
            AnyKey::V4(key) => (of(&mut self.v4, key, packet, prepared, now, config)?, false),
            AnyKey::V6(key) => (of(&mut self.v6, key, packet, prepared, now, config)?, true),
        };
        self.counters.found.add(1);
        let entry = prepared.candidate;
        Some(Tracked {
            state: CtState::Established,
            dir: Some(dir),
            flow: Flow::Known(FlowRef { v6, entry }),
        })
    }

    /// Every kind of packet.
    #[inline(never)]
    fn track_any(
        &mut self,
        data: &[u8],
        parsed: &Parsed,
        prepared: &Prepared,
        now: Ticks,
        config: &Config,
    ) -> Tracked {
        match prepared.subject {
            Subject::Flow => {}
            Subject::Error => return self.related(prepared, now),
            Subject::Untracked => return Tracked::without_flow(CtState::Untracked),
            Subject::BadError => {
                self.counters.icmp_error.add(1);
                return self.invalid();
            }
            Subject::Unknown => return self.invalid(),
        }
        // Twice at most: a flow that is reopened is looked for again and not found.
        for _ in 0..2 {
            match self.find(prepared, now) {
                None => return self.start(data, parsed, prepared, now, config),
                Some(flow) => {
                    if let Some(tracked) = self.follow(data, parsed, prepared, flow, now, config) {
                        return tracked;
                    }
                }
            }
        }
        self.invalid()
    }

    fn invalid(&self) -> Tracked {
        self.counters.invalid.add(1);
        Tracked::without_flow(CtState::Invalid)
    }

    /// The live entry with the packet's key. One whose deadline has passed is as good as gone.
    #[inline]
    fn find(&mut self, prepared: &Prepared, now: Ticks) -> Option<FlowRef> {
        let (flow, deadline) = match &prepared.key {
            AnyKey::V4(key) => {
                let entry = self.v4.find(key, prepared.hash)?;
                let deadline = self.v4.entry(entry).core.deadline;
                (FlowRef { v6: false, entry }, deadline)
            }
            AnyKey::V6(key) => {
                let entry = self.v6.find(key, prepared.hash)?;
                let deadline = self.v6.entry(entry).core.deadline;
                (FlowRef { v6: true, entry }, deadline)
            }
        };
        if now.reached(deadline) {
            self.end(flow);
            return None;
        }
        self.counters.found.add(1);
        Some(flow)
    }

    /// An ICMP error about a flow neither refreshes nor ends it.
    #[cold]
    fn related(&mut self, prepared: &Prepared, now: Ticks) -> Tracked {
        let Some(flow) = self.find(prepared, now) else {
            self.counters.icmp_error.add(1);
            return self.invalid();
        };
        let dir = self.core(flow).direction(prepared.from_lo);
        Tracked {
            state: CtState::Related,
            dir: Some(dir),
            flow: Flow::Known(flow),
        }
    }

    /// A packet of a known flow; `None` if the flow was ended to be opened anew.
    #[inline]
    fn follow(
        &mut self,
        data: &[u8],
        parsed: &Parsed,
        prepared: &Prepared,
        flow: FlowRef,
        now: Ticks,
        config: &Config,
    ) -> Option<Tracked> {
        family!(self, flow.v6, table => {
            let entry = table.entry_mut(flow.entry);
            let before = self.report.wants(Kind::Update).then(|| Before::of(entry));
            let Entry { core, rest, .. } = entry;
            let dir = core.direction(prepared.from_lo);
            // No branch on the direction, which is as good as random.
            let answered = (dir == Dir::Reply) | core.has(status::SEEN_REPLY);
            let state = if answered { CtState::Established } else { CtState::New };
            let outcome = match parsed.l4 {
                L4::Tcp(ref header) => {
                    let segment = tcp::segment(data, parsed, header);
                    tcp::packet(core, &mut rest.last, dir, &segment, now, config)
                }
                L4::Sctp { vtag, .. } => {
                    sctp::packet(core, sctp::chunks(data, parsed), vtag, dir, &config.timeouts)
                }
                _ => Outcome::Refresh(datagram(core, parsed, rest.created, now, config)),
            };
            if config.accounting && outcome.counts() {
                rest.account[dir as usize].add(u32::from(parsed.ip_len()));
            }
            let known = Tracked { state, dir: Some(dir), flow: Flow::Known(flow) };
            match outcome {
                Outcome::Refresh(span) => table.refresh(flow.entry, now, span),
                Outcome::Keep => {}
                Outcome::Kill => {
                    self.end(flow);
                    return Some(Tracked { flow: Flow::None, ..known });
                }
                Outcome::Invalid => {
                    // What the first chunks of an SCTP packet did stays done.
                    self.before = before.map(|before| (flow, before));
                    return Some(self.invalid());
                }
                Outcome::InvalidShorten(span) => {
                    table.refresh(flow.entry, now, span);
                    return Some(self.invalid());
                }
                Outcome::Reopen => {
                    self.end(flow);
                    return None;
                }
            }
            // After the tracker ran, which goes by what was seen before.
            table.entry_mut(flow.entry).core.status |= dir as u8 * status::SEEN_REPLY;
            self.before = before.map(|before| (flow, before));
            Some(known)
        })
    }

    /// A packet that belongs to no flow: may it start one?
    #[cold]
    fn start(
        &mut self,
        data: &[u8],
        parsed: &Parsed,
        prepared: &Prepared,
        now: Ticks,
        config: &Config,
    ) -> Tracked {
        let mut core = Core::new(prepared.from_lo);
        let mut last = tcp::no_segment();
        if config.timestamps {
            last.turn = self.report.now().turn() + 1;
        }
        let span = match parsed.l4 {
            L4::Tcp(ref header) => {
                let segment = tcp::segment(data, parsed, header);
                if !tcp::open(&mut core, &segment, config) {
                    return self.invalid();
                }
                match tcp::packet(&mut core, &mut last, Dir::Original, &segment, now, config) {
                    Outcome::Refresh(span) => span,
                    _ => return self.invalid(),
                }
            }
            L4::Sctp { vtag, .. } => {
                let chunks = sctp::chunks(data, parsed);
                match sctp::open(&mut core, chunks, vtag, &config.timeouts) {
                    Outcome::Refresh(span) => span,
                    _ => return self.invalid(),
                }
            }
            L4::Icmp { ty, .. } if icmp::role(parsed.proto, ty) != Role::Request => {
                return self.invalid();
            }
            _ => datagram(&mut core, parsed, now, now, config),
        };
        core.deadline = now.plus(span);
        self.counters.new.add(1);
        self.pending = Some(Pending {
            key: prepared.key,
            hash: prepared.hash,
            core,
            last,
            mark: 0,
            bytes: config.accounting.then(|| parsed.ip_len()),
        });
        Tracked {
            state: CtState::New,
            dir: Some(Dir::Original),
            flow: Flow::Pending,
        }
    }

    /// Enters the flow that the last packet started into the table.
    ///
    /// # Errors
    /// If the box or this shard has no room, and no flow that is worth less.
    pub fn commit(&mut self, now: Ticks) -> Result<FlowRef, InsertError> {
        let Some(pending) = self.pending.take() else {
            return Err(InsertError::LongRun);
        };
        let added = match self.enter(&pending, now) {
            Err(InsertError::Full) if self.make_room(&pending) => self.enter(&pending, now),
            added => added,
        };
        match added {
            Ok(_) => self.counters.insert.add(1),
            Err(InsertError::LongRun) => self.counters.insert_failed.add(1),
            Err(InsertError::Full) => {
                self.purse.budget().raise_pressure();
                self.counters.drop.add(1);
            }
        }
        added
    }

    fn enter(&mut self, pending: &Pending, now: Ticks) -> Result<FlowRef, InsertError> {
        if !self.purse.take() {
            return Err(InsertError::Full);
        }
        let Pending {
            key,
            hash,
            core,
            last,
            mark,
            bytes,
        } = pending;
        let v6 = matches!(key, AnyKey::V6(_));
        let added = match *key {
            AnyKey::V4(key) => self.v4.insert(key, *hash, core, last, now),
            AnyKey::V6(key) => self.v6.insert(key, *hash, core, last, now),
        };
        if added.is_err() {
            self.purse.put();
        }
        let flow = FlowRef { v6, entry: added? };
        family!(self, v6, table => {
            let rest = &mut table.entry_mut(flow.entry).rest;
            rest.mark = *mark;
            if let Some(bytes) = *bytes {
                rest.account[0].add(u32::from(bytes));
            }
        });
        if self.report.wants(Kind::New) {
            family!(self, v6, table => self.report.report(Kind::New, 0, table.entry(flow.entry)));
        }
        Ok(flow)
    }

    /// Ends one flow that is worth less than a new one, if there is any near the new one's place:
    /// in its own family first.
    #[cold]
    fn make_room(&mut self, pending: &Pending) -> bool {
        let v6 = matches!(pending.key, AnyKey::V6(_));
        // The other family's room is of no use to a table that has no entry left.
        let other = family!(self, v6, table => table.has_room()).then_some(!v6);
        for v6 in [Some(v6), other].into_iter().flatten() {
            let victim = family!(self, v6, table => limit::victim(table, pending.hash));
            if let Some(entry) = victim {
                self.end(FlowRef { v6, entry });
                self.counters.early_drop.add(1);
                return true;
            }
        }
        false
    }

    /// Tells whoever watches what the last packet, and the rules that it met, changed of its flow.
    #[inline]
    pub fn tell_changes(&mut self) {
        if let Some((flow, before)) = self.before.take() {
            family!(self, flow.v6, table => self.report.updated(before, table.entry(flow.entry)));
        }
    }

    /// A RST was sent in the flow's name (`reject` with tcp-reset): it is closed. One that was
    /// closed before does not live longer for it (Linux 6.12, nf_ct_tcp_set_closing).
    pub fn close(&mut self, flow: FlowRef, now: Ticks, config: &Config) {
        let timeout = config.timeouts.tcp[TcpState::Close as usize];
        family!(self, flow.v6, table => {
            let entry = table.entry_mut(flow.entry);
            if self.before.is_none() && self.report.wants(Kind::Update) {
                self.before = Some((flow, Before::of(entry)));
            }
            let state = &mut entry.core.tcp_state;
            if std::mem::replace(state, TcpState::Close) != TcpState::Close {
                table.refresh(flow.entry, now, timeout);
            }
        });
    }

    fn end(&mut self, flow: FlowRef) {
        family!(self, flow.v6, table => {
            let entry = table.entry(flow.entry);
            let tally = self.purse.budget().tally();
            let counted = entry.rest.links.counted;
            self.ledger.end(flow.v6, flow.entry, counted, tally);
            ending(&self.report, entry);
            table.remove(flow.entry);
        });
        self.purse.put();
        self.counters.delete.add(1);
    }

    fn core(&self, flow: FlowRef) -> &Core {
        if flow.v6 {
            &self.v6.entry(flow.entry).core
        } else {
            &self.v4.entry(flow.entry).core
        }
    }

    /// Ends flows whose time is over, looking at about `budget` entries at most; and while the box
    /// is too full, flows that are worth little, looking at as many again.
    pub fn expire(&mut self, now: Ticks, budget: usize) {
        let (ledger, tally) = (&mut self.ledger, self.purse.budget().tally());
        let report = &self.report;
        let ended = self.v4.expire(now, budget, |at, entry| {
            ledger.end(false, at, entry.rest.links.counted, tally);
            ending(report, entry);
        }) + self.v6.expire(now, budget, |at, entry| {
            ledger.end(true, at, entry.rest.links.counted, tally);
            ending(report, entry);
        });
        for _ in 0..ended {
            self.purse.put();
        }
        if ended > 0 {
            self.counters.delete.add(u64::from(ended));
        }
        if self.purse.budget().under_pressure() {
            self.collect(budget as u32);
        }
    }

    /// A piece of the sweep that frees what is worth little, while the pressure lasts.
    #[cold]
    fn collect(&mut self, budget: u32) {
        // A shard where no flow ends would keep what others need; and the pressure ends here if
        // that was all that it was about.
        self.purse.give_back();
        if !self.purse.budget().under_pressure() {
            return;
        }
        let cursor = self.swept.take().unwrap_or_default();
        let (flows, next) = self.scan(cursor, budget);
        for flow in flows {
            let worth = family!(self, flow.v6, table => Worth::of(table.entry(flow.entry)));
            if worth < Worth::Kept {
                self.end(flow);
                self.counters.early_drop.add(1);
            }
        }
        self.swept = next;
    }

    /// The live flow that a packet is about, whatever was said of the packet. Changes nothing.
    pub fn peek(&self, prepared: &Prepared, now: Ticks) -> Option<FlowRef> {
        let flow = match prepared.key()? {
            AnyKey::V4(key) => FlowRef {
                v6: false,
                entry: self.v4.find(key, prepared.hash)?,
            },
            AnyKey::V6(key) => FlowRef {
                v6: true,
                entry: self.v6.find(key, prepared.hash)?,
            },
        };
        (!now.reached(self.core(flow).deadline)).then_some(flow)
    }

    /// The flow as it is shown.
    pub fn record(&self, flow: FlowRef, now: Ticks) -> FlowRecord {
        fn of<K: Key>(table: &Table<K>, entry: u32, now: Ticks, id: u16) -> FlowRecord {
            FlowRecord::new(table.entry(entry), now, id)
        }
        if flow.v6 {
            of(&self.v6, flow.entry, now, self.id)
        } else {
            of(&self.v4, flow.entry, now, self.id)
        }
    }

    /// The flows from `cursor` on, looking at most at `scan` entries; and where to go on. Flows
    /// that come and go meanwhile may or may not be among them; none is shown twice while it
    /// lives.
    pub fn scan(&self, cursor: Cursor, scan: u32) -> (Vec<FlowRef>, Option<Cursor>) {
        let collect = |used: &mut dyn Iterator<Item = u32>| {
            used.map(|entry| FlowRef {
                v6: cursor.v6,
                entry,
            })
            .collect()
        };
        let (flows, next) = if cursor.v6 {
            let (mut used, next) = self.v6.scan(cursor.entry, scan);
            (collect(&mut used), next)
        } else {
            let (mut used, next) = self.v4.scan(cursor.entry, scan);
            (collect(&mut used), next)
        };
        let next = match next {
            Some(entry) => Some(Cursor { entry, ..cursor }),
            None if !cursor.v6 => Some(Cursor { v6: true, entry: 0 }),
            None => None,
        };
        (flows, next)
    }

    /// Ends `flows`, which must come from a [`Shard::scan`] with nothing in between.
    pub fn remove(&mut self, flows: &[FlowRef]) {
        for flow in flows {
            self.end(*flow);
        }
    }
}

/// Every flow that ends passes here, before its entry goes.
#[inline]
fn ending<K: Key>(report: &Reporter, entry: &Entry<K>) {
    if report.wants(Kind::Destroy) {
        report.report(Kind::Destroy, 0, entry);
    }
}

/// A place in a listing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    v6: bool,
    entry: u32,
}

impl Prepared {
    /// What a slot holds before its first packet.
    pub const NOTHING: Self = Self::about(Subject::Unknown);

    const fn about(subject: Subject) -> Self {
        Self {
            key: AnyKey::NONE,
            hash: 0,
            candidate: NOTHING,
            subject,
            from_lo: false,
        }
    }
}

/// The tuple whose flow an ICMP error is about: what answers the quoted packet. The error must go
/// to the host that sent that packet, or anybody could claim to be RELATED.
#[cold]
fn quoted(data: &[u8], parsed: &Parsed, zone: u16) -> Option<Tuple> {
    if !icmp::may_quote(parsed) {
        return None;
    }
    let inner = wire::inner(data, parsed)?;
    let tuple = Tuple::quoted(&inner, zone).reversed()?;
    (tuple.addrs.dst() == parsed.addrs.dst()).then_some(tuple)
}

/// Every protocol without a handshake.
#[inline]
fn datagram(core: &mut Core, parsed: &Parsed, created: Ticks, now: Ticks, config: &Config) -> Span {
    match parsed.proto {
        proto::UDP => udp::packet(core, created, now, &config.timeouts),
        proto::UDPLITE => udp::lite(core, &config.timeouts),
        proto::GRE => gre::packet(core, &config.timeouts),
        proto::ICMP => config.timeouts.icmp,
        proto::ICMPV6 => config.timeouts.icmpv6,
        _ => config.timeouts.generic,
    }
}

mod asked;
#[cfg(test)]
mod tests;

pub use asked::FlowView;
