//! Packets through a shard, and what it says of them. TCP has a file of its own.

mod account;
mod dates;
mod events;
mod expiry;
mod limits;
mod states;
mod tcp;
mod timeouts;

use super::*;
use crate::conntrack::record::FlowRecord;
use crate::wire::Addrs;
use crate::wire::build::{Segment, frame};
use crate::wire::parse;
use crate::wire::tcp::flags::*;

const V4: Addrs = Addrs::V4 {
    src: 0x0a01_0001,
    dst: 0x0a02_0001,
};
const V6: Addrs = Addrs::V6 {
    src: 0xfd01 << 112 | 1,
    dst: 0xfd02 << 112 | 1,
};

/// A shard and a clock.
struct Bench {
    shard: Shard,
    config: Config,
    now: Ticks,
    counters: Arc<CtCounters>,
}

impl Bench {
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        let counters = Arc::<CtCounters>::default();
        let now = Ticks(u32::MAX - 50_000); // the clock wraps during most traces
        let shard = Shard::new(0, 100, HashKey::from_seed(1), now, counters.clone());
        Self {
            shard,
            config,
            now,
            counters,
        }
    }

    fn wait(&mut self, secs: u32) {
        self.now = self.now.plus(Span::secs(secs));
        self.shard.expire(self.now, usize::MAX);
    }

    /// A frame through the tracker, accepted by policy.
    fn packet(&mut self, bytes: &[u8]) -> Tracked {
        let tracked = self.judge(bytes);
        if tracked.flow == Flow::Pending {
            self.shard.commit(self.now).unwrap();
        }
        tracked
    }

    /// A frame through the tracker, dropped by policy.
    fn judge(&mut self, bytes: &[u8]) -> Tracked {
        let parsed = parse(bytes, bytes.len());
        let mut prepared = self.shard.prepare(bytes, &parsed, 0);
        self.shard.prefetch(&mut prepared);
        let tracked = self
            .shard
            .track(bytes, &parsed, &prepared, false, self.now, &self.config);
        self.shard.tell_changes();
        tracked
    }

    /// The only flow.
    fn flow(&self) -> Option<FlowRecord> {
        let mut flows = Vec::new();
        let mut cursor = Some(Cursor::default());
        while let Some(at) = cursor {
            let (found, next) = self.shard.scan(at, 1000);
            flows.extend(
                found
                    .into_iter()
                    .map(|flow| self.shard.record(flow, self.now)),
            );
            cursor = next;
        }
        assert!(flows.len() < 2, "{flows:?}");
        flows.pop()
    }
}

const NEW: CtState = CtState::New;
const EST: CtState = CtState::Established;
const INV: CtState = CtState::Invalid;

/// A segment between a client at `port` and a server at 80.
fn tcp_frame(
    port: u16,
    from_client: bool,
    flags: u8,
    seq: u32,
    ack: u32,
    payload: &[u8],
) -> Vec<u8> {
    let (addrs, sport, dport) = if from_client {
        (V4, port, 80)
    } else {
        (V4.flip(), 80, port)
    };
    let segment = Segment::Tcp {
        sport,
        dport,
        seq,
        ack,
        flags,
        window: 64_000,
        options: &[],
    };
    frame(addrs, segment, payload)
}

fn udp(addrs: Addrs, sport: u16, dport: u16) -> Vec<u8> {
    frame(addrs, Segment::Udp { sport, dport }, b"data")
}

#[test]
fn udp_is_a_stream_after_two_seconds() {
    for addrs in [V4, V6] {
        let mut bench = Bench::new();
        let (there, back) = (udp(addrs, 5000, 53), udp(addrs.flip(), 53, 5000));
        let look = |bench: &Bench| {
            let flow = bench.flow().unwrap();
            (flow.timeout, flow.seen_reply, flow.assured)
        };
        assert_eq!(bench.packet(&there).state, NEW);
        assert_eq!(bench.packet(&there).state, NEW, "no reply yet");
        assert_eq!(bench.packet(&back).state, EST);
        assert_eq!(look(&bench), (30, true, false));
        bench.wait(1);
        assert_eq!(bench.packet(&there).state, EST);
        assert_eq!(
            look(&bench),
            (30, true, false),
            "a query and its answer are no stream"
        );
        bench.wait(2);
        bench.packet(&back);
        assert_eq!(look(&bench), (120, true, true));
        bench.wait(121);
        assert_eq!(bench.flow(), None);
        assert_eq!(
            bench.packet(&back).dir,
            Some(Dir::Original),
            "whoever starts is original"
        );
    }
}

#[test]
fn ping_pairs_by_identifier() {
    let ping = |addrs, ty, id: u32| {
        frame(
            addrs,
            Segment::Icmp {
                ty,
                code: 0,
                rest: id << 16 | 1,
            },
            b"payload",
        )
    };
    for (addrs, request, reply) in [(V4, 8, 0), (V6, 128, 129), (V4, 13, 14), (V6, 139, 140)] {
        let mut bench = Bench::new();
        assert_eq!(
            bench.packet(&ping(addrs.flip(), reply, 7)).state,
            INV,
            "nobody asked"
        );
        assert_eq!(bench.packet(&ping(addrs, request, 7)).state, NEW);
        let answer = bench.packet(&ping(addrs.flip(), reply, 7));
        assert_eq!((answer.state, answer.dir), (EST, Some(Dir::Reply)));
        assert_eq!(
            bench.packet(&ping(addrs.flip(), reply, 7)).state,
            EST,
            "once more"
        );
        assert_eq!(bench.packet(&ping(addrs.flip(), reply, 8)).state, INV);
        assert_eq!(bench.flow().unwrap().timeout, 30);
    }
}

#[test]
fn icmp_errors_are_related_to_what_they_quote() {
    for (addrs, ty, router) in [
        (
            V4,
            3,
            Addrs::V4 {
                src: 0x0a02_00fe,
                dst: 0x0a01_0001,
            },
        ),
        (
            V6,
            1,
            Addrs::V6 {
                src: 0xfd02 << 112 | 0xfe,
                dst: 0xfd01 << 112 | 1,
            },
        ),
    ] {
        let mut bench = Bench::new();
        let sent = udp(addrs, 5000, 53);
        bench.packet(&sent);
        let error = |quote: &[u8], outer| {
            frame(
                outer,
                Segment::Icmp {
                    ty,
                    code: 3,
                    rest: 0,
                },
                &quote[14..],
            )
        };
        let said = bench.packet(&error(&sent, router));
        assert_eq!((said.state, said.dir), (CtState::Related, Some(Dir::Reply)));
        // Neither refreshed nor ended nor answered by it.
        bench.wait(10);
        bench.packet(&error(&sent, router));
        let flow = bench.flow().unwrap();
        assert_eq!((flow.timeout, flow.seen_reply), (20, false));
        // About an unknown packet, or sent to somebody else.
        assert_eq!(
            bench.packet(&error(&udp(addrs, 5000, 54), router)).state,
            INV
        );
        let elsewhere = match router {
            Addrs::V4 { src, dst } => Addrs::V4 { src, dst: dst + 1 },
            Addrs::V6 { src, dst } => Addrs::V6 { src, dst: dst + 1 },
        };
        assert_eq!(bench.packet(&error(&sent, elsewhere)).state, INV);
        assert_eq!(
            bench.packet(&error(&sent[..14 + 20], router)).state,
            INV,
            "cut short"
        );
    }
}

#[test]
fn neighbour_discovery_is_untracked() {
    for ty in [133, 134, 135, 136, 130, 143] {
        let mut bench = Bench::new();
        let bytes = frame(
            V6,
            Segment::Icmp {
                ty,
                code: 0,
                rest: 0,
            },
            &[0; 16],
        );
        assert_eq!(
            bench.packet(&bytes),
            Tracked::without_flow(CtState::Untracked)
        );
        assert_eq!(bench.flow(), None);
    }
}

#[test]
fn any_other_protocol_is_generic_and_never_assured() {
    for addrs in [V4, V6] {
        let mut bench = Bench::new();
        let there = frame(addrs, Segment::Raw(253), b"anything");
        let back = frame(addrs.flip(), Segment::Raw(253), b"anything");
        assert_eq!(bench.packet(&there).state, NEW);
        assert_eq!(bench.packet(&back).state, EST);
        bench.wait(300);
        bench.packet(&there);
        let flow = bench.flow().unwrap();
        assert_eq!(
            (flow.timeout, flow.assured, flow.seen_reply),
            (600, false, true)
        );
    }
}

#[test]
fn what_policy_drops_leaves_nothing() {
    let mut bench = Bench::new();
    assert_eq!(bench.judge(&udp(V4, 1, 2)).state, NEW);
    assert_eq!(bench.flow(), None);
    assert_eq!(bench.judge(&udp(V4.flip(), 2, 1)).dir, Some(Dir::Original));
    assert_eq!(bench.counters.insert.get(), 0);
}

#[test]
fn notrack_makes_untracked() {
    let mut bench = Bench::new();
    let bytes = udp(V4, 1, 2);
    let parsed = parse(&bytes, bytes.len());
    let prepared = bench.shard.prepare(&bytes, &parsed, 0);
    let said = bench
        .shard
        .track(&bytes, &parsed, &prepared, true, bench.now, &bench.config);
    assert_eq!(said, Tracked::without_flow(CtState::Untracked));
}
