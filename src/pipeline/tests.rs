//! Frames through the whole path: what policy asks of flows and does to them.

use super::{Counters, Disposition, Outcome, Pipeline};
use crate::base::hash::HashKey;
use crate::base::time::Now;
use crate::conntrack::record::FlowRecord;
use crate::conntrack::shard::Cursor;
use crate::conntrack::types::CtState;
use crate::policy::{Compiled, PortId, compile, parse};
use crate::wire::Addrs;
use crate::wire::build::{Link, Segment, emit, frame};
use std::sync::Arc;

/// One worker's path under a policy, and a clock.
struct Path {
    pipeline: Pipeline,
    policy: Compiled,
    now: Now,
}

fn policy(text: &str) -> Compiled {
    let checked = parse("test.yaml", text).unwrap_or_else(|errors| panic!("{errors}"));
    compile(&checked.model, 1, 1)
}

impl Path {
    fn new(text: &str) -> Self {
        let policy = policy(text);
        let now = Now::from_secs(1000);
        let limit = policy.conntrack().max;
        let counters = Arc::<Counters>::default();
        let pipeline = Pipeline::new(0, limit, HashKey::from_seed(1), now, counters);
        Self {
            pipeline,
            policy,
            now,
        }
    }

    fn send(&mut self, iif: PortId, frame: &[u8]) -> Outcome {
        let mut slot = self.pipeline.prepare(&self.policy, iif, frame, frame.len());
        self.pipeline.prefetch(&mut slot);
        self.pipeline
            .decide(&self.policy, self.now, iif, frame, &slot)
    }

    fn passes(&mut self, iif: PortId, frame: &[u8]) -> bool {
        matches!(self.send(iif, frame).disposition, Disposition::Forward(_))
    }

    fn flows(&self) -> Vec<FlowRecord> {
        let (shard, mut flows) = (self.pipeline.shard(), Vec::new());
        let mut cursor = Some(Cursor::default());
        while let Some(at) = cursor {
            let (found, next) = shard.scan(at, 1000);
            let ticks = self.now.ticks();
            flows.extend(found.into_iter().map(|flow| shard.record(flow, ticks)));
            cursor = next;
        }
        flows
    }
}

/// 10.0.0.1 to 10.0.1.1.
const TALK: Addrs = Addrs::V4 {
    src: 0x0a00_0001,
    dst: 0x0a00_0101,
};

fn udp(addrs: Addrs, sport: u16, dport: u16) -> Vec<u8> {
    frame(addrs, Segment::Udp { sport, dport }, b"hello")
}

/// The same with a VLAN tag.
fn tagged(vlan: u16, addrs: Addrs, sport: u16, dport: u16) -> Vec<u8> {
    let link = Link {
        dst: [2, 0, 0, 0, 0, 2],
        src: [2, 0, 0, 0, 0, 1],
        vlan: Some(vlan),
    };
    let mut out = vec![0; 128];
    let len = emit(
        &mut out,
        &link,
        &addrs,
        64,
        &Segment::Udp { sport, dport },
        b"hello",
    );
    out.truncate(len);
    out
}

/// An ICMP port unreachable about `quoted`, a frame without a tag that went as `addrs` says.
fn unreachable(addrs: Addrs, quoted: &[u8]) -> Vec<u8> {
    let error = Segment::Icmp {
        ty: 3,
        code: 3,
        rest: 0,
    };
    frame(addrs.flip(), error, &quoted[14..])
}

#[test]
fn equal_tuples_in_two_zones_are_two_flows() {
    let mut path = Path::new(
        "version: 1
ports: { a: { device: d0 }, b: { device: d1 }, c: { device: d2 }, d: { device: d3 }, e: { device: d4 }, f: { device: d5 } }
bridge: [[a, b], { ports: [c, d], zone: 7 }, { ports: [e, f], zone: vlan }]
chains: { forward: { rules: [{ ct: [established, related], action: accept }, { iif: [a, c, e], ct: new, action: accept }] } }
",
    );
    let there = udp(TALK, 1000, 53);
    let back = udp(TALK.flip(), 53, 1000);
    let state = |path: &mut Path, port, frame: &[u8]| {
        path.send(PortId(port), frame).tracked.map(|t| t.state)
    };
    assert!(path.passes(PortId(0), &there));
    // in zone 7 nothing is known of it
    assert_eq!(state(&mut path, 3, &back), Some(CtState::New));
    assert_eq!(state(&mut path, 1, &back), Some(CtState::Established));
    // an ICMP error belongs to its flow's zone
    let error = unreachable(TALK, &there);
    assert_eq!(state(&mut path, 3, &error), Some(CtState::Invalid));
    assert_eq!(state(&mut path, 1, &error), Some(CtState::Related));
    assert!(path.passes(PortId(2), &there));
    assert_eq!(state(&mut path, 3, &error), Some(CtState::Related));
    assert_eq!(state(&mut path, 3, &back), Some(CtState::Established));
    // with `vlan`, the tag is the zone
    assert!(path.passes(PortId(4), &tagged(42, TALK, 1000, 53)));
    assert!(path.passes(PortId(4), &tagged(3 << 13 | 43, TALK, 1000, 53)));
    let back = tagged(42, TALK.flip(), 53, 1000);
    assert_eq!(state(&mut path, 5, &back), Some(CtState::Established));
    assert_eq!(
        state(&mut path, 5, &tagged(44, TALK.flip(), 53, 1000)),
        Some(CtState::New)
    );
    let mut zones: Vec<_> = path
        .flows()
        .iter()
        .map(|f| (f.zone, f.seen_reply))
        .collect();
    zones.sort_unstable();
    assert_eq!(zones, [(0, true), (7, true), (42, true), (43, false)]);
    // untagged frames of that bridge are in zone 0, with those of the first one
    assert_eq!(state(&mut path, 4, &there), Some(CtState::Established));
    assert_eq!(path.flows().len(), 4);
}
