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
use super::expect::{Expectation, Expectations, Expecter};
use super::gre;
use super::helper::{Info, MAX_HELPERS, Refusal};
use super::icmp::{self, Role};
use super::kin::{self, Kins, Seed};
use super::ledger::Ledger;
use super::limit::{Budget, Purse};
use super::sctp;
use super::table::{InsertError, Table};
use super::tcp::{self, Outcome};
use super::tuple::{AnyKey, Key, KeyV4, KeyV6, Tuple};
use super::types::{CtState, Dir, TcpState, proto};
use super::udp;
use super::why::Why;
use crate::base::counter::Counter;
use crate::base::hash::HashKey;
use crate::base::time::{Now, Span, Ticks};
use crate::wire::{self, L4, Parsed};
use std::io;
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
    /// Flows in the table by [`TcpState`] (gauges); those that are not of TCP are under `None`.
    pub tcp_states: [Counter; TcpState::COUNT],
    /// What each helper did; the index is that of its [`HelperId`](super::helper::HelperId).
    pub helpers: [HelperCounters; MAX_HELPERS],
}

impl CtCounters {
    /// A flow in the table changed its state, if it did.
    #[inline]
    fn changed(&self, old: TcpState, new: TcpState) {
        if old != new {
            self.tcp_states[old as usize].sub(1);
            self.tcp_states[new as usize].add(1);
        }
    }
}

/// What is counted of one helper. One writer: the worker.
#[derive(Debug, Default)]
pub struct HelperCounters {
    /// Flows that it was attached to.
    pub attached: Counter,
    /// Messages that it understood.
    pub parsed: Counter,
    /// Expectations that it made.
    pub expected: Counter,
    /// Flows that fulfilled an expectation. Counted by the worker that owns the flow.
    pub used: Counter,
    /// Expectations that this ended: all but permanent ones.
    pub used_up: Counter,
    /// Expectations whose time was over.
    pub expired: Counter,
    /// Expectations that ended otherwise: with their master, replaced, or forgotten.
    pub withdrawn: Counter,
    /// What was refused, by [`Refusal`].
    pub refused: [Counter; Refusal::COUNT],
}

impl HelperCounters {
    /// Expectations that ended, however they did.
    pub fn ended(&self) -> u64 {
        self.used_up.get() + self.expired.get() + self.withdrawn.get()
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

impl Flow {
    /// The entry, if it is in the table.
    #[inline]
    pub const fn known(self) -> Option<FlowRef> {
        match self {
            Flow::Known(flow) => Some(flow),
            Flow::None | Flow::Pending => None,
        }
    }
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
    /// The port that its first packet came in by.
    port: u8,
    /// Its helper and its master, if its status says that it has any.
    seed: Seed,
}

/// The flows of one worker.
#[derive(Debug)]
pub struct Shard {
    id: u16,
    v4: Table<KeyV4>,
    v6: Table<KeyV6>,
    purse: Purse,
    ledger: Ledger,
    kins: Kins,
    expecter: Expecter,
    /// Flows that helpers listen to.
    helped: u32,
    /// What flows that begin are judged by.
    epoch: u16,
    /// The last packet that went by the whole tracker passes without belonging to its flow.
    ignored: bool,
    pending: Option<Pending>,
    /// Where the sweep under pressure goes on.
    swept: Cursor,
    report: Reporter,
    /// The last packet's flow as it was before, if somebody wants to know.
    before: Option<(FlowRef, Before)>,
    /// Of the last packet that was INVALID.
    why: Option<Why>,
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
    /// together, without helpers.
    #[allow(clippy::expect_used)] // at start, where memory that is not there ends the start
    pub fn new(
        id: u16,
        limit: u32,
        secret: HashKey,
        now: Ticks,
        counters: Arc<CtCounters>,
    ) -> Self {
        let budget = Arc::new(Budget::new(limit, 1));
        let ends = Self::expecters(&budget, 1, 1, &[]).expect("memory for expectations");
        let expecter = ends.into_iter().next().expect("one end for one shard");
        Self::sharing(id, budget, expecter, secret, now, counters)
    }

    /// The table of expectations of a box whose `shards` shards share `budget`, and each shard's end
    /// of it: at most `max` expectations by the helpers that `infos` describes.
    ///
    /// # Errors
    /// If the memory is not to be had.
    pub fn expecters(
        budget: &Budget,
        shards: usize,
        max: u32,
        infos: &'static [&'static Info],
    ) -> io::Result<Vec<Expecter>> {
        let lists = kin::room(budget.capacity());
        Expectations::new(shards, max, lists, infos, HashKey::random())
    }

    /// An empty shard that shares `budget`, and what `expecter` is an end of, with others.
    #[allow(clippy::expect_used)] // at start, where memory that is not there ends the start
    pub fn sharing(
        id: u16,
        budget: Arc<Budget>,
        expecter: Expecter,
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
            kins: Kins::new(capacity, expecter.infos()).expect("memory for kin of flows"),
            expecter,
            helped: 0,
            epoch: 0,
            ignored: false,
            pending: None,
            swept: Cursor::default(),
            report: Reporter::default(),
            before: None,
            why: None,
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
        self.expecter.begin();
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
            return self.invalid(Why::Checksum);
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
            const USUAL: u8 = status::SEEN_REPLY | status::ASSURED;
            if core.status & (USUAL | status::HELPED) != USUAL || now.reached(core.deadline) {
                return None;
            }
            let dir = core.direction(prepared.from_lo);
            let span = match parsed.l4 {
                L4::Tcp(ref header) => {
                    let segment = tcp::segment(data, parsed, header);
                    tcp::plain_ack(core, &mut rest.last, dir, &segment, config)?
                }
                L4::Udp { .. } if parsed.proto == proto::UDP => {
                    config.timeouts_of(core.status).udp_replied
                }
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
        self.ignored = false;
        match prepared.subject {
            Subject::Flow => {}
            Subject::Error => return self.related(prepared, now),
            Subject::Untracked => return Tracked::without_flow(CtState::Untracked),
            Subject::BadError => {
                self.counters.icmp_error.add(1);
                return self.invalid(Why::IcmpQuote);
            }
            Subject::Unknown => return self.invalid(unknown(parsed)),
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
        self.invalid(Why::TcpState)
    }

    fn invalid(&mut self, why: Why) -> Tracked {
        self.counters.invalid.add(1);
        self.why = Some(why);
        Tracked::without_flow(CtState::Invalid)
    }

    /// Why the last packet that was INVALID was that.
    pub fn why(&self) -> Option<Why> {
        self.why
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
            return self.invalid(Why::IcmpNoFlow);
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
            let state = if answered { CtState::Established } else { unanswered(core.status) };
            let outcome = match parsed.l4 {
                L4::Tcp(ref header) => {
                    let segment = tcp::segment(data, parsed, header);
                    let old = core.tcp_state;
                    let outcome = tcp::packet(core, &mut rest.last, dir, &segment, now, config);
                    self.counters.changed(old, core.tcp_state);
                    outcome
                }
                L4::Sctp { vtag, .. } => {
                    let timeouts = config.timeouts_of(core.status);
                    sctp::packet(core, sctp::chunks(data, parsed), vtag, dir, timeouts)
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
                // Anybody can send such a packet: no helper hears it.
                Outcome::Ignore => self.ignored = true,
                Outcome::Kill => {
                    self.end(flow);
                    return Some(Tracked { flow: Flow::None, ..known });
                }
                Outcome::Invalid(why) => {
                    // What the first chunks of an SCTP packet did stays done.
                    self.before = before.map(|before| (flow, before));
                    return Some(self.invalid(why));
                }
                Outcome::InvalidShorten(why, span) => {
                    table.refresh(flow.entry, now, span);
                    return Some(self.invalid(why));
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
        // Before anything else is asked of the packet, as Linux (6.12 init_conntrack): one that is
        // INVALID uses an expectation up too.
        let awaited = if self.expecter.nothing_is_expected() {
            None
        } else {
            self.awaited(prepared, now)
        };
        let mut core = Core::new(prepared.from_lo);
        let mut last = tcp::no_segment();
        if config.timestamps {
            last.turn = self.report.now().turn() + 1;
        }
        let span = match parsed.l4 {
            L4::Tcp(ref header) => {
                let segment = tcp::segment(data, parsed, header);
                if let Err(why) = tcp::open(&mut core, &segment, config) {
                    return self.invalid(why);
                }
                match tcp::packet(&mut core, &mut last, Dir::Original, &segment, now, config) {
                    Outcome::Refresh(span) => span,
                    Outcome::Invalid(why) => return self.invalid(why),
                    _ => return self.invalid(Why::TcpNotFirst),
                }
            }
            L4::Sctp { vtag, .. } => {
                let chunks = sctp::chunks(data, parsed);
                match sctp::open(&mut core, chunks, vtag, &config.timeouts) {
                    Outcome::Refresh(span) => span,
                    Outcome::Invalid(why) => return self.invalid(why),
                    _ => return self.invalid(Why::SctpNotFirst),
                }
            }
            L4::Icmp { ty, .. } if icmp::role(parsed.proto, ty) != Role::Request => {
                return self.invalid(Why::IcmpNoRequest);
            }
            _ => datagram(&mut core, parsed, now, now, config),
        };
        core.deadline = now.plus(span);
        let mut mark = 0;
        let mut seed = Seed::default();
        if let Some(awaited) = awaited {
            mark = awaited.mark;
            seed = seed_of(&awaited);
            core.status |= seed.status();
        }
        self.counters.new.add(1);
        self.pending = Some(Pending {
            key: prepared.key,
            hash: prepared.hash,
            core,
            last,
            mark,
            bytes: config.accounting.then(|| parsed.ip_len()),
            port: 0,
            seed,
        });
        Tracked {
            state: unanswered(core.status),
            dir: Some(Dir::Original),
            flow: Flow::Pending,
        }
    }

    /// Tells whoever watches what the last packet, and the rules that it met, changed of its flow.
    #[inline]
    pub fn tell_changes(&mut self) {
        if let Some((flow, before)) = self.before.take() {
            family!(self, flow.v6, table => {
                let entry = table.entry(flow.entry);
                let about = || self.kins.about(flow.v6, flow.entry, entry.core.status);
                self.report.updated(before, entry, about);
            });
        }
    }

    /// A RST was sent in the flow's name (`reject` with tcp-reset): it is closed. One that was
    /// closed before does not live longer for it (Linux 6.12, nf_ct_tcp_set_closing).
    pub fn close(&mut self, flow: FlowRef, now: Ticks, config: &Config) {
        family!(self, flow.v6, table => {
            let entry = table.entry_mut(flow.entry);
            let timeouts = config.timeouts_of(entry.core.status);
            if self.before.is_none() && self.report.wants(Kind::Update) {
                self.before = Some((flow, Before::of(entry)));
            }
            let state = &mut entry.core.tcp_state;
            let old = std::mem::replace(state, TcpState::Close);
            if old != TcpState::Close {
                self.counters.changed(old, TcpState::Close);
                table.refresh(flow.entry, now, timeouts.tcp[TcpState::Close as usize]);
            }
        });
    }

    fn core(&self, flow: FlowRef) -> &Core {
        if flow.v6 {
            &self.v6.entry(flow.entry).core
        } else {
            &self.v4.entry(flow.entry).core
        }
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
}

/// What a packet of a flow is that no reply was seen of.
#[inline]
fn unanswered(status: u8) -> CtState {
    if status & status::EXPECTED != 0 {
        CtState::Related
    } else {
        CtState::New
    }
}

/// Why a packet that identifies no flow is INVALID.
fn unknown(parsed: &Parsed) -> Why {
    match parsed.l4 {
        L4::Bad => Why::Header,
        L4::Icmp { .. } => Why::IcmpUnknown,
        _ => Why::NoHeader,
    }
}

/// Every protocol without a handshake.
#[inline]
fn datagram(core: &mut Core, parsed: &Parsed, created: Ticks, now: Ticks, config: &Config) -> Span {
    let timeouts = config.timeouts_of(core.status);
    match parsed.proto {
        proto::UDP => udp::packet(core, created, now, timeouts),
        proto::UDPLITE => udp::lite(core, timeouts),
        proto::GRE => gre::packet(core, timeouts),
        proto::ICMP => timeouts.icmp,
        proto::ICMPV6 => timeouts.icmpv6,
        _ => timeouts.generic,
    }
}

mod asked;
mod helped;
mod life;
mod listing;
mod locate;
mod prepare;
mod remembered;
#[cfg(test)]
mod tests;

pub use asked::FlowView;
pub use helped::Listening;
use helped::seed_of;
pub use listing::Cursor;
pub use prepare::Prepared;
use prepare::Subject;
pub use remembered::Standing;
