//! The census: flows by protocol and state, and the hosts that talk most, counted by walking the whole
//! table in the background. What `top` shows beside the counters.
//!
//! Life-cycle: a census is wanted for some seconds at a time ([`Appliance::census`]). While it is, one
//! thread walks the table, publishes what it counted, and rests four times as long as the walk took (a
//! second at least), whoever and however many ask. Once nobody wants it, the walk is broken off,
//! the thread ends, and everything is forgotten. Concurrency: the table is walked like any listing, in
//! pieces between two of a worker's loops; askers read what was published last and never wait.
//!
//! Memory: what a host sent is what its flows carried since the walk before, so that the walk remembers
//! the flows, [`FLOWS`] at most: if there are more, the largest. It counts [`HOSTS`] at most, likewise.
//! That is some 50 MB where both are reached; then the census is a lower bound of what small flows and
//! hosts carried, and says so ([`Census::floor`], [`Census::cut`]).

use super::appliance::Appliance;
use super::protocol::proto_name;
use crate::base::time::Now;
use crate::conntrack::record::FlowRecord;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Flows that are remembered from one walk to the next.
pub const FLOWS: usize = 400_000;
/// Hosts that are counted in one walk.
pub const HOSTS: usize = 100_000;
/// Hosts that are told of in each order: by bytes, by packets, by flows.
pub const TALKERS: usize = 50;
/// Longest time that a census can be wanted for at once.
pub const WANTED: Duration = Duration::from_secs(150);
/// Shortest rest between two walks.
const REST: Duration = Duration::from_secs(1);
/// How much longer than a walk the rest behind it is.
const RESTS: u32 = 4;
/// How soon a rest ends that nobody needs any more.
const NAP: Duration = Duration::from_millis(100);
/// Flows between two looks whether the walk is still wanted.
const LOOK: u64 = 1024;

/// What a walk counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Census {
    /// Milliseconds since the walk ended.
    pub age_ms: u64,
    /// Milliseconds that it took.
    pub took_ms: u64,
    /// Milliseconds since the walk before, in which hosts sent what is told of them; `None` after the
    /// first, which cannot tell.
    pub window_ms: Option<u64>,
    /// Whether flows count what they carry (`conntrack.accounting`); without, hosts are told apart by
    /// their flows alone.
    pub accounting: bool,
    /// Flows that it saw.
    pub flows: u64,
    /// Flows by protocol and state, most first.
    pub states: Vec<StateRow>,
    /// The hosts with the most bytes, packets or flows, most bytes first.
    pub talkers: Vec<Talker>,
    /// Flows that had carried fewer bytes than this by the walk before count for what they have carried
    /// beyond it; 0 if all count in full.
    pub floor: u64,
    /// Whether there were more hosts than are counted, so that small ones were left out.
    pub cut: bool,
}

/// Flows of one protocol and state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateRow {
    /// The protocol's name, or its number.
    pub proto: String,
    /// Its state in conntrack(8)'s words: TCP's and SCTP's own, else what the flow's status says.
    pub state: String,
    /// How many.
    pub flows: u64,
}

/// A host and what it sent and received in [`Census::window_ms`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Talker {
    /// Its address.
    pub host: IpAddr,
    /// The zone that the address means something in.
    pub zone: u16,
    /// Its flows, as either end.
    pub flows: u64,
    /// Packets that it sent.
    pub tx_packets: u64,
    /// Bytes of these, from the IP header on.
    pub tx_bytes: u64,
    /// Packets that were sent to it.
    pub rx_packets: u64,
    /// Bytes of these.
    pub rx_bytes: u64,
}

/// The appliance's census: who wants it, and what was counted last.
#[derive(Debug, Default)]
pub(super) struct Censuses(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Until when somebody wants it.
    wanted: Now,
    /// Whether a thread walks or rests.
    running: bool,
    /// What was counted last, and when that ended.
    latest: Option<(Arc<Census>, Now)>,
}

impl Censuses {
    /// Whether somebody wants it at `now`; if not, the thread that asks has ended, and all is forgotten.
    fn is_wanted(&self, now: Now) -> bool {
        let mut state = self.0.lock();
        let wanted = now < state.wanted;
        if !wanted {
            *state = State::default();
        }
        wanted
    }
}

impl Appliance {
    /// What the flow table was last counted to hold, and has it counted for `wanted` longer; `None` if
    /// it was not counted to its end yet.
    pub fn census(self: &Arc<Self>, wanted: Duration) -> Option<Census> {
        let now = self.shared.clock.now();
        let mut state = self.censuses.0.lock();
        state.wanted = state.wanted.max(after(now, wanted.min(WANTED)));
        if !state.running {
            let appliance = Arc::downgrade(self);
            let thread = std::thread::Builder::new().name("sw-census".into());
            match thread.spawn(move || count_on(&appliance)) {
                Ok(_) => state.running = true,
                Err(error) => tracing::warn!(%error, "the flows cannot be counted"),
            }
        }
        let (census, ended) = state.latest.as_ref()?;
        Some(Census {
            age_ms: millis(*ended, now),
            ..(**census).clone()
        })
    }
}

/// Walks and rests until nobody wants it, or the appliance is gone.
fn count_on(appliance: &Weak<Appliance>) {
    let mut counting = Counting::new(FLOWS, HOSTS);
    let mut before = None;
    loop {
        let Some(appliance) = appliance.upgrade() else {
            return;
        };
        let clock = appliance.shared.clock;
        let began = clock.now();
        if !walk(&appliance, &mut counting) {
            return;
        }
        let ended = clock.now();
        let accounting = appliance.shared.policy.with(|it| it.conntrack().accounting);
        let census = Census {
            took_ms: millis(began, ended),
            window_ms: before.map(|before| millis(before, ended).max(1)),
            accounting,
            ..counting.finish()
        };
        before = Some(ended);
        appliance.censuses.0.lock().latest = Some((Arc::new(census), ended));
        let took = Duration::from_nanos(ended.nanos() - began.nanos());
        let rested = after(ended, REST.max(took * RESTS));
        while clock.now() < rested {
            if appliance.shared.stopping() || !appliance.censuses.is_wanted(clock.now()) {
                return;
            }
            std::thread::sleep(NAP);
        }
    }
}

/// Counts every flow; false if that came to no end.
fn walk(appliance: &Appliance, counting: &mut Counting) -> bool {
    let mut seen = 0u64;
    let mut wanted = true;
    let walked = appliance.list(|flow| {
        counting.add(&flow);
        seen += 1;
        if seen.is_multiple_of(LOOK) {
            wanted = appliance.censuses.is_wanted(appliance.shared.clock.now());
        }
        if wanted {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    if let Err(error) = &walked {
        tracing::debug!(%error, "the flows were not counted to the end");
        *appliance.censuses.0.lock() = State::default();
    }
    wanted && walked.is_ok()
}

fn after(now: Now, span: Duration) -> Now {
    Now::from_nanos(now.nanos().saturating_add(span.as_nanos() as u64))
}

fn millis(from: Now, to: Now) -> u64 {
    to.nanos().saturating_sub(from.nanos()) / 1_000_000
}

/// What a flow had carried when it was seen.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// By direction.
    bytes: [u64; 2],
    /// By direction; what is more than the last bit is lost, and differences stay right.
    packets: [u32; 2],
}

impl Seen {
    fn total(&self) -> u64 {
        self.bytes[0].saturating_add(self.bytes[1])
    }
}

/// What a host did since the walk before.
#[derive(Clone, Copy, Debug, Default)]
struct Traffic {
    flows: u64,
    /// Sent, and received.
    bytes: [u64; 2],
    packets: [u64; 2],
}

impl Traffic {
    fn all_bytes(&self) -> u64 {
        self.bytes[0].saturating_add(self.bytes[1])
    }

    fn all_packets(&self) -> u64 {
        self.packets[0].saturating_add(self.packets[1])
    }

    /// What it is kept by, if not all can be.
    fn weight(&self) -> (u64, u64) {
        (self.all_bytes(), self.flows)
    }
}

/// A walk under way, and what the one before left.
struct Counting {
    most_flows: usize,
    most_hosts: usize,
    hasher: RandomState,
    /// Of the walk before, by a hash of the flow; `None` before the first has ended.
    before: Option<HashMap<u64, Seen>>,
    /// Flows of fewer bytes are not in `before`.
    floor_before: u64,
    seen: HashMap<u64, Seen>,
    floor: u64,
    hosts: HashMap<(u16, IpAddr), Traffic>,
    cut: bool,
    states: HashMap<(u8, &'static str), u64>,
    flows: u64,
}

impl Counting {
    fn new(most_flows: usize, most_hosts: usize) -> Self {
        Self {
            most_flows,
            most_hosts,
            hasher: RandomState::new(),
            before: None,
            floor_before: 0,
            seen: HashMap::new(),
            floor: 0,
            hosts: HashMap::new(),
            cut: false,
            states: HashMap::new(),
            flows: 0,
        }
    }

    fn add(&mut self, flow: &FlowRecord) {
        self.flows += 1;
        *self.states.entry((flow.proto, state(flow))).or_default() += 1;
        let (bytes, packets) = self.carried(flow);
        let (src, dst) = (flow.original.src, flow.original.dst);
        // What the original direction carried, its source sent, and its destination received.
        for (host, [tx, rx]) in [(src, [0, 1]), (dst, [1, 0])] {
            let traffic = self.hosts.entry((flow.zone, host)).or_default();
            traffic.flows += 1;
            traffic.bytes[0] += bytes[tx];
            traffic.bytes[1] += bytes[rx];
            traffic.packets[0] += packets[tx];
            traffic.packets[1] += packets[rx];
        }
        if self.hosts.len() > self.most_hosts {
            self.cut_hosts();
        }
    }

    /// What `flow` carried since the walk before, bytes and packets by direction; remembers it for the
    /// next.
    fn carried(&mut self, flow: &FlowRecord) -> ([u64; 2], [u64; 2]) {
        let Some(counters) = &flow.counters else {
            return Default::default();
        };
        let both = [counters.original, counters.reply];
        let bytes = both.map(|it| it.bytes);
        let packets = both.map(|it| it.packets);
        let now = Seen {
            bytes,
            packets: packets.map(|count| count as u32),
        };
        let ends = (flow.original, flow.proto, flow.zone);
        let id = self.hasher.hash_one(ends);
        if now.total() >= self.floor {
            self.seen.insert(id, now);
            if self.seen.len() > self.most_flows {
                self.cut_flows();
            }
        }
        let Some(before) = &self.before else {
            return Default::default();
        };
        match before.get(&id) {
            // A flow of the same ends that ended and began anew has carried less.
            Some(old) if (0..2).all(|way| old.bytes[way] <= bytes[way]) => {
                let since = |way: usize| now.packets[way].wrapping_sub(old.packets[way]);
                let carried = [0, 1].map(|way| bytes[way] - old.bytes[way]);
                (carried, [0, 1].map(|way| u64::from(since(way))))
            }
            // It had carried less than the floor then; nobody knows how much less.
            None if self.floor_before > 0 => {
                let (total, floor) = (now.total(), self.floor_before);
                let new = total.saturating_sub(floor) as f64 / total.max(1) as f64;
                let share = |count| (count as f64 * new) as u64;
                (bytes.map(share), packets.map(share))
            }
            _ => (bytes, packets),
        }
    }

    /// Forgets the smaller half of the flows seen.
    fn cut_flows(&mut self) {
        let mut sizes: Vec<u64> = self.seen.values().map(Seen::total).collect();
        let middle = sizes.len() / 2;
        let (_, median, _) = sizes.select_nth_unstable(middle);
        // Above the median: if all are of one size, none of them can be told from the others.
        self.floor = *median + 1;
        self.seen.retain(|_, seen| seen.total() > *median);
    }

    /// Forgets the smaller half of the hosts.
    fn cut_hosts(&mut self) {
        let mut weights: Vec<_> = self.hosts.values().map(Traffic::weight).collect();
        let middle = weights.len() / 2;
        let (_, median, _) = weights.select_nth_unstable(middle);
        let median = *median;
        self.hosts.retain(|_, traffic| traffic.weight() > median);
        self.cut = true;
    }

    /// The census of the walk that has ended; the next may begin. Says nothing about times.
    fn finish(&mut self) -> Census {
        let states = self.states.drain().map(|((proto, state), flows)| StateRow {
            proto: proto_name(proto).map_or_else(|| proto.to_string(), str::to_owned),
            state: state.to_owned(),
            flows,
        });
        let mut states: Vec<_> = states.collect();
        states.sort_by(|a, b| {
            let order = b.flows.cmp(&a.flows);
            order.then_with(|| (&a.proto, &a.state).cmp(&(&b.proto, &b.state)))
        });
        let hosts: Vec<_> = std::mem::take(&mut self.hosts).into_iter().collect();
        let census = Census {
            flows: std::mem::take(&mut self.flows),
            states,
            talkers: talkers(hosts),
            floor: self.floor_before,
            cut: std::mem::take(&mut self.cut),
            ..Census::default()
        };
        self.before = Some(std::mem::take(&mut self.seen));
        self.floor_before = std::mem::take(&mut self.floor);
        census
    }
}

/// A flow's state in conntrack(8)'s words.
fn state(flow: &FlowRecord) -> &'static str {
    let own = flow.tcp_state.map(|state| state.name());
    own.or(flow.sctp_state.map(|state| state.name())).unwrap_or(
        match (flow.assured, flow.seen_reply) {
            (true, _) => "ASSURED",
            (false, true) => "REPLIED",
            (false, false) => "UNREPLIED",
        },
    )
}

/// The first [`TALKERS`] in each order, each once.
fn talkers(mut hosts: Vec<((u16, IpAddr), Traffic)>) -> Vec<Talker> {
    let orders: [fn(&Traffic) -> u64; 3] =
        [Traffic::all_packets, |it| it.flows, Traffic::all_bytes];
    let mut chosen: Vec<((u16, IpAddr), Traffic)> = Vec::new();
    for order in orders {
        // The address last, so that equals keep their places from one census to the next.
        let rank = |it: &((u16, IpAddr), Traffic)| (Reverse(order(&it.1)), it.0);
        if hosts.len() > TALKERS {
            hosts.select_nth_unstable_by_key(TALKERS, rank);
        }
        chosen.extend(hosts.iter().take(TALKERS));
    }
    chosen.sort_by_key(|it| (Reverse(it.1.all_bytes()), Reverse(it.1.flows), it.0));
    chosen.dedup_by_key(|it| it.0);
    let talkers = chosen.into_iter().map(|((zone, host), traffic)| Talker {
        host,
        zone,
        flows: traffic.flows,
        tx_packets: traffic.packets[0],
        tx_bytes: traffic.bytes[0],
        rx_packets: traffic.packets[1],
        rx_bytes: traffic.bytes[1],
    });
    talkers.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conntrack::record::{Carried, Counters, Detail, Endpoints};
    use crate::conntrack::types::{TcpState, proto};
    use crate::control::testbed::{Bed, wait};

    /// A flow of host `src` to host `dst`: bytes and packets sent, and received.
    fn flow(src: u8, dst: u8, sport: u16, sent: (u64, u64), received: (u64, u64)) -> FlowRecord {
        let ends = |src, dst, sport, dport| Endpoints {
            src: IpAddr::from([10, 0, 0, src]),
            dst: IpAddr::from([10, 0, 0, dst]),
            detail: Detail::Ports { sport, dport },
        };
        let carried = |(bytes, packets)| Carried { packets, bytes };
        FlowRecord {
            proto: proto::TCP,
            original: ends(src, dst, sport, 80),
            reply: ends(dst, src, 80, sport),
            timeout: 1,
            sctp_vtags: None,
            tcp_state: Some(TcpState::Established),
            sctp_state: None,
            seen_reply: true,
            assured: true,
            expected: false,
            helper: None,
            master: None,
            counters: Some(Counters {
                original: carried(sent),
                reply: carried(received),
            }),
            start_ms: None,
            stop_ms: None,
            mark: 0,
            zone: 0,
            shard: 0,
        }
    }

    fn talker(census: &Census, last: u8) -> Talker {
        let host = IpAddr::from([10, 0, 0, last]);
        let found = census.talkers.iter().find(|it| it.host == host);
        *found.unwrap_or_else(|| panic!("{host} in {census:?}"))
    }

    #[test]
    fn hosts_sent_what_their_flows_carried_since_the_walk_before() {
        let mut counting = Counting::new(100, 100);
        counting.add(&flow(1, 2, 1, (1000, 10), (500, 5)));
        counting.add(&flow(1, 3, 2, (70, 7), (0, 0)));
        let first = counting.finish();
        assert_eq!((first.flows, first.floor, first.cut), (2, 0, false));
        assert_eq!(talker(&first, 1).flows, 2);
        assert!(
            first
                .talkers
                .iter()
                .all(|it| it.tx_bytes + it.rx_bytes == 0)
        );

        counting.add(&flow(1, 2, 1, (1600, 12), (900, 9)));
        // one that ended and began anew, and one that is new
        counting.add(&flow(1, 3, 2, (30, 3), (0, 0)));
        counting.add(&flow(2, 1, 3, (5, 1), (6, 2)));
        let second = counting.finish();
        let one = talker(&second, 1);
        assert_eq!((one.flows, one.tx_bytes, one.rx_bytes), (3, 636, 405));
        assert_eq!((one.tx_packets, one.rx_packets), (2 + 3 + 2, 4 + 1));
        let two = talker(&second, 2);
        assert_eq!((two.flows, two.tx_bytes, two.rx_bytes), (2, 405, 606));
        assert_eq!(second.talkers[0], one);
    }

    #[test]
    fn states_are_counted_by_protocol() {
        let mut counting = Counting::new(100, 100);
        let tcp = flow(1, 2, 1, (0, 0), (0, 0));
        let udp = FlowRecord {
            proto: proto::UDP,
            tcp_state: None,
            ..tcp.clone()
        };
        let (assured, seen_reply) = (false, false);
        let new = FlowRecord {
            assured,
            seen_reply,
            ..udp.clone()
        };
        let replied = FlowRecord {
            assured,
            ..udp.clone()
        };
        let odd = FlowRecord {
            proto: 99,
            ..new.clone()
        };
        for flow in [&tcp, &tcp, &tcp, &udp, &new, &new, &replied, &odd] {
            counting.add(flow);
        }
        let census = counting.finish();
        let states = census.states.iter();
        let states: Vec<_> = states
            .map(|it| (it.proto.as_str(), it.state.as_str(), it.flows))
            .collect();
        assert_eq!(
            states,
            [
                ("tcp", "ESTABLISHED", 3),
                ("udp", "UNREPLIED", 2),
                ("99", "UNREPLIED", 1),
                ("udp", "ASSURED", 1),
                ("udp", "REPLIED", 1),
            ]
        );
    }

    #[test]
    fn memory_is_bounded_and_the_largest_flows_stay_exact() {
        let mut counting = Counting::new(50, 1000);
        let sizes = |more: u64| (0..200u64).map(move |n| (n, n * 100 + more));
        for (n, bytes) in sizes(0) {
            counting.add(&flow(n as u8, 255, 1, (bytes, 1), (0, 0)));
            assert!(counting.seen.len() <= 50);
        }
        counting.finish();
        assert!(counting.floor_before > 0);
        for (n, bytes) in sizes(7) {
            counting.add(&flow(n as u8, 255, 1, (bytes, 1), (0, 0)));
        }
        let census = counting.finish();
        assert!(census.floor > 0);
        assert_eq!(talker(&census, 199).tx_bytes, 7);
        // never more than it was
        assert!(talker(&census, 255).rx_bytes <= 200 * 7);

        // flows of one size cannot be told apart: none is kept, and the bound holds
        let mut counting = Counting::new(50, 1000);
        for n in 0..200 {
            counting.add(&flow(n, 255, 1, (100, 1), (0, 0)));
            assert!(counting.seen.len() <= 50);
        }

        let mut counting = Counting::new(1000, 50);
        counting.add(&flow(1, 2, 1, (0, 0), (0, 0)));
        counting.finish();
        for n in 0..200u8 {
            counting.add(&flow(n, 255, 1, (u64::from(n) * 10, 1), (0, 0)));
            assert!(counting.hosts.len() <= 51);
        }
        let census = counting.finish();
        assert!(census.cut);
        assert_eq!(talker(&census, 199).tx_bytes, 1990);
    }

    #[test]
    fn those_who_lead_in_any_order_are_told_of() {
        let mut counting = Counting::new(10_000, 10_000);
        counting.finish();
        let host = |n: u16| IpAddr::from([10, 1, (n >> 8) as u8, n as u8]);
        for n in 0..500 {
            let mut flow = flow(0, 0, n, (u64::from(n) + 1, 1), (0, 0));
            flow.original.src = host(n);
            flow.original.dst = host(600);
            counting.add(&flow);
        }
        for sport in 0..3 {
            let mut many = flow(0, 0, sport, (0, 0), (0, 0));
            many.original.src = host(700);
            many.original.dst = host(600);
            counting.add(&many);
        }
        let census = counting.finish();
        assert!((TALKERS..=3 * TALKERS).contains(&census.talkers.len()));
        assert_eq!(census.talkers[0].host, host(600));
        assert_eq!(census.talkers[1].host, host(499));
        let many = census.talkers.iter().find(|it| it.host == host(700));
        assert_eq!(many.map(|it| it.flows), Some(3));
    }

    #[test]
    fn the_table_is_counted_while_somebody_wants_that() {
        let bed = Bed::new(2);
        (0..300).for_each(|host| bed.send(host));
        let second = Duration::from_secs(1);
        let appliance = &bed.appliance;
        assert_eq!(appliance.census(second), None, "nobody waits for it");
        wait(|| appliance.census(second).is_some());
        let census = appliance.census(Duration::ZERO).unwrap();
        assert_eq!((census.flows, census.accounting), (300, false));
        assert_eq!(census.states[0].flows, 300);
        assert_eq!(census.talkers[0].flows, 300, "the server");
        let counted = || appliance.censuses.0.lock().latest.is_some();
        assert!(counted());
        wait(|| !counted());
        assert!(!appliance.censuses.0.lock().running);
        // and begins anew
        wait(|| appliance.census(second).is_some());
    }
}
