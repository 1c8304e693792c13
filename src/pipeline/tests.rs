//! Frames through the whole path: what policy asks of flows and does to them.

mod differences;
mod helpers;
mod remembered;
mod timeouts;

use super::{Counters, Disposition, Outcome, Pipeline, Slot};
use crate::base::hash::HashKey;
use crate::base::time::Now;
use crate::conntrack::event::{Kind, Queue};
use crate::conntrack::limit::Budget;
use crate::conntrack::record::FlowRecord;
use crate::conntrack::shard::Cursor;
use crate::conntrack::types::{CtState, TcpState};
use crate::policy::{Compiled, PortId, compile, parse};
use crate::wire::Addrs;
use crate::wire::build::{Link, Segment, emit, frame};
use crate::wire::tcp::flags::{ACK, FIN, RST, SYN};
use std::sync::Arc;

const LAN: PortId = PortId(0);
const WAN: PortId = PortId(1);

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
        let config = policy.conntrack();
        let budget = Arc::new(Budget::new(config.max, 1));
        let expecter = Pipeline::expecters(&budget, 1, config.expect_max).remove(0);
        let (key, counters) = (HashKey::from_seed(1), Arc::<Counters>::default());
        let pipeline = Pipeline::sharing(0, budget, expecter, key, now, counters);
        Self {
            pipeline,
            policy,
            now,
        }
    }

    fn send(&mut self, iif: PortId, frame: &[u8]) -> Outcome {
        let mut slot = Slot::default();
        self.pipeline
            .prepare(&mut slot, &self.policy, iif, frame, frame.len());
        self.pipeline.prefetch(&mut slot);
        self.pipeline
            .decide(&self.policy, self.now, iif, frame, &slot)
    }

    /// The rule that decided about `frame`.
    fn rule(&mut self, iif: PortId, frame: &[u8]) -> &str {
        let super::By::Rule(rule) = self.send(iif, frame).by else {
            panic!("no rule decided");
        };
        self.policy.rule_name(rule)
    }

    fn passes(&mut self, iif: PortId, frame: &[u8]) -> bool {
        matches!(self.send(iif, frame).disposition, Disposition::Forward(_))
    }

    /// Puts another policy in force, as a reload does.
    fn reload(&mut self, text: &str) {
        let mut new = policy(text);
        new.follow(&self.policy).unwrap();
        new.carry_from(&self.policy);
        self.policy = new;
    }

    /// Ends every flow.
    fn flush(&mut self) {
        let mut cursor = Some(Cursor::default());
        while let Some(at) = cursor {
            let (found, next) = self.pipeline.shard().scan(at, 1000);
            self.pipeline.shard_mut().remove(&found);
            cursor = next;
        }
    }

    /// The sum of all counts that hold a flow.
    fn counted(&self) -> u64 {
        self.pipeline.shard().tally().total()
    }

    fn wait(&mut self, secs: u64) {
        self.now = Now::from_nanos(self.now.nanos() + secs * 1_000_000_000);
        let ticks = self.now.ticks();
        self.pipeline.shard_mut().expire(ticks, usize::MAX);
    }

    /// Watches the events of all flows.
    fn watch(&mut self) -> Arc<Queue> {
        let queue = Arc::<Queue>::default();
        let shard = self.pipeline.shard_mut();
        shard.report_to(queue.clone());
        shard.begin(self.now, Kind::FLOWS);
        queue
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

const HEAD: &str = "version: 1
ports: { lan: { device: d0 }, wan: { device: d1 } }
bridge: [[lan, wan]]
";

/// A policy with these rules in `forward`, which drops what none of them decides.
fn rules(rules: &str) -> String {
    format!("{HEAD}chains:\n  forward:\n    rules:\n{rules}\n")
}

fn tcp(addrs: Addrs, sport: u16, dport: u16, flags: u8, seq: u32, ack: u32) -> Vec<u8> {
    let segment = Segment::Tcp {
        sport,
        dport,
        seq,
        ack,
        flags,
        window: 60_000,
        options: &[],
    };
    frame(addrs, segment, b"")
}

/// From 10.0.x.x to 10.0.1.1.
fn from(host: u16) -> Addrs {
    Addrs::V4 {
        src: 0x0a00_0000 | u32::from(host),
        dst: 0x0a00_0101,
    }
}

/// From fd00:0:0:NET::HOST to fd01::1.
fn from6(net: u16, host: u16) -> Addrs {
    Addrs::V6 {
        src: 0xfd00 << 112 | u128::from(net) << 64 | u128::from(host),
        dst: 0xfd01 << 112 | 1,
    }
}

#[test]
fn a_mark_stays_with_its_flow() {
    let text = rules(
        "      - { name: blocked, ct-mark: \"0x100/0x100\", mark: \"1/0xff\", action: drop }
      - { name: gold, iif: lan, ct: new, proto: udp, dport: 5060, mark: 0x10, action: accept }
      - { name: refused, iif: lan, proto: udp, dport: 7, mark: 0x77, action: reject }
      - { name: bad, iif: wan, ct-mark: 0x10, proto: udp, dport: 999, mark: \"0x100/0x100\", action: accept }
      - { name: gold-known, ct-mark: [3, \"0x10/0xff\"], action: accept }
      - { name: others, ct-mark: \"!0x10\", ct: [new, established], mark: 2, action: accept }",
    );
    let mut path = Path::new(&text);
    let call = udp(TALK, 999, 5060);
    assert_eq!(path.rule(LAN, &call), "forward/gold");
    assert_eq!(path.flows()[0].mark, 0x10);
    // the other direction, and an error about it, carry the flow's mark
    assert_eq!(
        path.rule(WAN, &unreachable(TALK, &call)),
        "forward/gold-known"
    );
    assert_eq!(path.rule(WAN, &udp(TALK.flip(), 5060, 999)), "forward/bad");
    assert_eq!(path.flows()[0].mark, 0x110);
    // as in the kernel, a dropped packet of a known flow leaves its mark behind
    assert_eq!(path.rule(LAN, &call), "forward/blocked");
    assert_eq!(path.flows()[0].mark, 0x101);
    // and the first packet of a flow, if it is dropped, leaves nothing
    assert_eq!(path.rule(LAN, &udp(TALK, 1, 7)), "forward/refused");
    assert_eq!(path.flows().len(), 1);
    path.flush();
    assert_eq!(
        path.rule(LAN, &tcp(from6(1, 1), 5, 5, SYN, 1, 0)),
        "forward/others"
    );
    let flow = &path.flows()[0];
    assert_eq!((flow.mark, flow.is_v6()), (2, true));
    // a new flow in the same place starts without a mark
    path.flush();
    path.reload(&rules("      - { action: accept }"));
    assert!(path.passes(LAN, &tcp(from6(1, 1), 5, 5, SYN, 1, 0)));
    assert_eq!(path.flows()[0].mark, 0);
}

/// What rules did to a flow that begins is in its first event, and in no other: not in one that the
/// next packet brings, of whatever lies in the entry by then.
#[test]
fn a_flow_that_is_marked_as_it_begins_is_told_once() {
    let mut path = Path::new(&rules("      - { mark: 5, action: accept }"));
    let queue = path.watch();
    let told = || -> Vec<(Kind, u8, u32)> {
        let events = std::iter::from_fn(|| queue.pop());
        let show = |event: crate::conntrack::event::Event| {
            (event.kind, event.changed, event.flow(0).unwrap().mark)
        };
        events.map(show).collect()
    };
    path.send(LAN, &udp(TALK, 1, 53));
    path.send(LAN, &udp(TALK, 1, 53));
    assert_eq!(told(), [(Kind::New, 0, 5)]);
    path.send(LAN, &udp(TALK, 2, 53));
    path.flush();
    path.send(LAN, &udp(TALK, 3, 53));
    let ended = (Kind::Destroy, 0, 5);
    assert_eq!(told(), [(Kind::New, 0, 5), ended, ended, (Kind::New, 0, 5)]);
}

#[test]
fn a_reset_by_a_rule_is_told() {
    let mut path = Path::new(&rules(
        "      - { iif: wan, proto: tcp, dport: 1, action: { reject: tcp-reset } }
      - { action: accept }",
    ));
    let queue = path.watch();
    let told = || -> Vec<(Kind, Option<TcpState>)> {
        let events = std::iter::from_fn(|| queue.pop());
        events
            .map(|event| (event.kind, event.flow(0).unwrap().tcp_state))
            .collect()
    };
    path.send(LAN, &tcp(TALK, 1, 80, SYN, 100, 0));
    assert_eq!(told(), [(Kind::New, Some(TcpState::SynSent))]);
    // The first reply, and the end: one event.
    let answer = tcp(TALK.flip(), 80, 1, SYN | ACK, 500, 101);
    path.send(WAN, &answer);
    assert_eq!(told(), [(Kind::Update, Some(TcpState::Close))]);
    path.send(WAN, &answer);
    assert_eq!(told(), []);
}

/// Bursts, whose packets were looked up before the first was judged, and packets alone that were not
/// looked up at all: the same is said of each, and the same flows are left, counters included.
#[test]
fn a_burst_is_judged_as_its_packets_are_alone() {
    let text = rules("      - { ct: [new, established], mark: 1, action: accept }");
    let text = format!("{text}conntrack: {{ max: 20, accounting: true }}\n");
    let (mut bursts, mut alone) = (Path::new(&text), Path::new(&text));
    let mut seed = 7u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (seed >> 33) % below
    };
    let mut slots = [Slot::default(); 32];
    for turn in 0..4000 {
        let burst: Vec<_> = (0..random(33))
            .map(|_| {
                let (port, out) = (random(5) as u16, random(2) == 0);
                let (iif, addrs, sport, dport) = match out {
                    true => (LAN, TALK, port, 80),
                    false => (WAN, TALK.flip(), 80, port),
                };
                let flags = [
                    SYN,
                    ACK,
                    ACK,
                    ACK,
                    ACK,
                    SYN | ACK,
                    SYN | ACK,
                    RST,
                    FIN | ACK,
                ];
                let (seq, ack) = (100 + random(2) as u32, 100 + random(2) as u32);
                let bits = flags[random(9) as usize];
                let mut bytes = match random(3) {
                    0 => udp(addrs, sport, dport),
                    _ => tcp(addrs, sport, dport, bits, seq, ack),
                };
                bytes.truncate(if random(30) == 0 { 40 } else { 99 });
                (iif, bytes)
            })
            .collect();
        let Path {
            pipeline,
            policy,
            now,
        } = &mut bursts;
        for ((iif, bytes), slot) in burst.iter().zip(&mut slots) {
            pipeline.prepare(slot, policy, *iif, bytes, bytes.len());
        }
        for slot in &mut slots[..burst.len()] {
            pipeline.prefetch(slot);
        }
        for ((iif, bytes), slot) in burst.iter().zip(&slots) {
            let said = pipeline.decide(policy, *now, *iif, bytes, slot);
            let mut fresh = Slot::default();
            alone
                .pipeline
                .prepare(&mut fresh, &alone.policy, *iif, bytes, bytes.len());
            let expected = alone
                .pipeline
                .decide(&alone.policy, alone.now, *iif, bytes, &fresh);
            assert_eq!(said, expected, "turn {turn}");
        }
        assert_eq!(bursts.flows(), alone.flows(), "turn {turn}");
        if random(8) == 0 {
            let secs = random(140);
            bursts.wait(secs);
            alone.wait(secs);
        }
    }
    let found = |path: &Path| path.pipeline.counters().ct.found.get();
    assert_eq!(found(&bursts), found(&alone));
}

/// Whatever packets and rules do: a flow begins once, changes while it is there, and ends once.
#[test]
fn events_tell_of_every_flow_from_its_beginning_to_its_end() {
    let text = rules(
        "      - { iif: wan, proto: tcp, dport: 1, action: { reject: tcp-reset } }
      - { iif: lan, ct: established, proto: udp, mark: 3 }
      - { ct: new, connlimit: over 9 per source, action: drop }
      - { ct: new, mark: 1, action: accept }
      - { iif: wan, ct: established, mark: 2, action: accept }
      - { ct: [established, related, new], action: accept }",
    );
    let mut path = Path::new(&format!("{text}conntrack: {{ max: 24 }}\n"));
    let queue = path.watch();
    let mut there = std::collections::BTreeMap::new();
    let mut seed = 1u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (seed >> 33) % below
    };
    let mut told = [0; 3];
    for turn in 0..60_000 {
        let addrs = from(random(4) as u16);
        let port = random(8) as u16;
        let (iif, addrs, sport, dport) = match random(2) {
            0 => (LAN, addrs, port, 80),
            _ => (WAN, addrs.flip(), 80, port),
        };
        let flags = [SYN, ACK, SYN | ACK, RST, FIN | ACK][random(5) as usize];
        let (seq, ack) = (100 + random(2) as u32, 100 + random(2) as u32);
        match random(40) {
            0 => path.wait(random(70)),
            1 => path.flush(),
            2..15 => drop(path.send(iif, &udp(addrs, sport, dport))),
            _ => drop(path.send(iif, &tcp(addrs, sport, dport, flags, seq, ack))),
        }
        path.pipeline.shard_mut().expire(path.now.ticks(), 8);
        while let Some(event) = queue.pop() {
            let flow = event.flow(0).unwrap();
            let key = format!("{} {:?}", flow.proto, flow.original);
            told[event.kind as usize / 2] += 1;
            let known = match event.kind {
                Kind::New => there.insert(key.clone(), flow).is_none(),
                Kind::Update => event.changed != 0 && there.insert(key.clone(), flow).is_some(),
                Kind::Destroy => there.remove(&key).is_some(),
                Kind::Expected | Kind::Unexpected => false,
            };
            assert!(known, "turn {turn}: {:?} of {key}", event.kind);
        }
        let flows = path.flows();
        assert_eq!(flows.len(), there.len(), "turn {turn}");
        for flow in flows {
            let last = &there[&format!("{} {:?}", flow.proto, flow.original)];
            let shown = |flow: &FlowRecord| (flow.tcp_state, flow.mark, flow.assured);
            assert_eq!(shown(last), shown(&flow), "turn {turn}");
        }
    }
    assert!(told.iter().all(|kind| *kind > 1000), "{told:?}");
    assert!(path.pipeline.counters().ct.early_drop.get() > 100);
}

#[test]
fn the_status_is_that_after_the_packet() {
    let mut path = Path::new(&rules(
        "      - { name: assured, ct-status: assured, action: accept }
      - { name: answered, ct-status: seen-reply, action: accept }
      - { name: confirmed, ct-status: confirmed, action: accept }
      - { name: first, ct-status: \"!confirmed\", action: accept }",
    ));
    assert_eq!(
        path.rule(LAN, &tcp(TALK, 5, 80, SYN, 100, 0)),
        "forward/first"
    );
    assert_eq!(
        path.rule(LAN, &tcp(TALK, 5, 80, SYN, 100, 0)),
        "forward/confirmed"
    );
    let back = tcp(TALK.flip(), 80, 5, SYN | ACK, 500, 101);
    assert_eq!(path.rule(WAN, &back), "forward/answered");
    assert_eq!(
        path.rule(LAN, &tcp(TALK, 5, 80, ACK, 101, 501)),
        "forward/assured"
    );
    // an INVALID packet has no flow
    assert_eq!(
        path.rule(LAN, &tcp(TALK, 5, 80, SYN | RST, 101, 501)),
        "forward/policy"
    );
}

#[test]
fn connlimits_hold_by_source_and_give_back() {
    let mut path = Path::new(&rules(
        "      - { name: known, ct: established, action: accept }
      - { name: few, ct: new, connlimit: 2, action: accept }",
    ));
    let open = |path: &mut Path, host, port| path.passes(LAN, &udp(from(host), port, 53));
    for host in [1, 2] {
        let passed: Vec<_> = (0..5).map(|port| open(&mut path, host, port)).collect();
        assert_eq!(passed, [true, true, false, false, false]);
    }
    assert_eq!((path.flows().len(), path.counted()), (4, 4));
    // packets of a flow that is in pass on, and count nothing
    assert!(open(&mut path, 1, 0) && open(&mut path, 1, 1) && !open(&mut path, 1, 2));
    assert!(path.passes(WAN, &udp(from(1).flip(), 53, 0)));
    assert_eq!(path.counted(), 4);
    // unanswered flows end after 30 seconds, and make room
    path.wait(20);
    assert!(open(&mut path, 1, 0));
    path.wait(11);
    assert_eq!((path.flows().len(), path.counted()), (1, 1));
    assert!(open(&mut path, 1, 7) && !open(&mut path, 1, 8));
    path.flush();
    assert_eq!(path.counted(), 0);
    // a flow that a RST kills, or that is opened anew, as well
    let syn = tcp(from(9), 1, 80, SYN, 1, 0);
    assert!(path.passes(LAN, &syn) && open(&mut path, 9, 1) && !open(&mut path, 9, 2));
    path.send(LAN, &tcp(from(9), 1, 80, RST, 2, 0));
    assert_eq!((path.flows().len(), path.counted()), (1, 1));
    assert!(open(&mut path, 9, 2));
}

#[test]
fn early_drop_gives_back() {
    let mut path = Path::new(&format!(
        "{}conntrack: {{ max: 32 }}\n",
        rules("      - { ct: new, connlimit: 1000, action: accept }")
    ));
    for port in 0..500 {
        path.send(LAN, &udp(from(port % 7), port, 53));
        assert_eq!(path.counted(), path.flows().len() as u64);
    }
    assert_eq!(path.flows().len(), 32);
    assert!(path.pipeline.counters().ct.early_drop.get() > 100);
    path.flush();
    assert_eq!(path.counted(), 0);
}

#[test]
fn connlimits_count_by_network_destination_zone_and_rule() {
    let allowed = |limit: &str, frames: &[Vec<u8>]| {
        let mut path = Path::new(&format!(
            "version: 1
ports: {{ a: {{ device: d0 }}, b: {{ device: d1 }} }}
bridge: [{{ ports: [a, b], zone: vlan }}]
chains: {{ forward: {{ rules: [{{ connlimit: {limit}, action: accept }}] }} }}
"
        ));
        let passed: Vec<_> = frames.iter().map(|frame| path.passes(LAN, frame)).collect();
        path.flush();
        assert_eq!(path.counted(), 0);
        passed
    };
    let hosts: Vec<_> = [0x0001, 0x0002, 0x00ff, 0x0201]
        .map(|host| udp(from(host), 1, 53))
        .into();
    assert_eq!(allowed("1", &hosts), [true; 4]);
    assert_eq!(
        allowed("1 per source/24", &hosts),
        [true, false, false, true]
    );
    assert_eq!(
        allowed("2 per source/0", &hosts),
        [true, true, false, false]
    );
    assert_eq!(
        allowed("1 per destination", &hosts),
        [true, false, false, false]
    );
    let hosts6: Vec<_> = [(1, 1), (1, 2), (2, 1)]
        .map(|(net, host)| udp(from6(net, host), 1, 53))
        .into();
    assert_eq!(allowed("1 per source/24", &hosts6), [true; 3]);
    assert_eq!(
        allowed("\"1 per source/24,64\"", &hosts6),
        [true, false, true]
    );
    assert_eq!(
        allowed("\"1 per source/24,63\"", &hosts6),
        [true, false, true]
    );
    assert_eq!(
        allowed("\"1 per source/24,62\"", &hosts6),
        [true, false, false]
    );
    // both families come to one rule, and to one zone
    let both: Vec<_> = hosts[..2].iter().chain(&hosts6[..2]).cloned().collect();
    for per in ["rule", "zone"] {
        assert_eq!(
            allowed(&format!("3 per {per}"), &both),
            [true, true, true, false]
        );
    }
    // equal addresses in two zones are two sources
    let zones: Vec<_> = [7, 7, 8, 8]
        .into_iter()
        .enumerate()
        .map(|(port, vlan)| tagged(vlan, TALK, port as u16, 53))
        .collect();
    for per in ["source", "destination", "zone"] {
        assert_eq!(
            allowed(&format!("1 per {per}"), &zones),
            [true, false, true, false]
        );
    }
    assert_eq!(allowed("1 per rule", &zones), [true, false, false, false]);
}

#[test]
fn the_source_is_who_started_the_flow() {
    let mut path = Path::new(&rules(
        "      - { name: many, connlimit: over 1, action: drop }
      - { action: accept }",
    ));
    // two hosts talk to one server: its answers do not make it a source
    for host in [1, 2] {
        assert!(path.passes(LAN, &udp(from(host), 1, 53)));
        assert!(path.passes(WAN, &udp(from(host).flip(), 53, 1)));
    }
    assert_eq!(path.rule(LAN, &udp(from(1), 2, 53)), "forward/many");
    assert_eq!(path.counted(), 2, "a dropped packet leaves no count");
    assert_eq!(path.rule(LAN, &udp(from(1), 1, 53)), "forward/2");
}

#[test]
fn counts_outlive_a_reload_and_do_not_mix() {
    let limit = |name: &str, count: u32, more: &str| {
        let rule =
            format!("      - {{ name: {name}, ct: new, connlimit: {count}, action: accept }}");
        rules(&format!(
            "      - {{ ct: established, action: accept }}\n{more}{rule}"
        ))
    };
    let mut path = Path::new(&limit("few", 2, ""));
    let open = |path: &mut Path, port| path.passes(LAN, &udp(from(1), port, 53));
    assert!(open(&mut path, 0) && open(&mut path, 1) && !open(&mut path, 2));
    // unchanged: what was counted counts on
    path.reload(&limit(
        "few",
        2,
        "      - { name: new, proto: tcp, action: drop }\n",
    ));
    assert!(!open(&mut path, 2));
    assert_eq!(path.counted(), 2);
    // changed: it starts at none, and what ends under it takes nothing away
    path.reload(&limit("few", 3, ""));
    assert!(open(&mut path, 3));
    path.wait(20);
    assert!(open(&mut path, 3));
    assert_eq!((path.flows().len(), path.counted()), (3, 3));
    path.wait(20);
    assert_eq!((path.flows().len(), path.counted()), (1, 1));
    assert!(open(&mut path, 4) && open(&mut path, 5) && !open(&mut path, 6));
    // a policy that counts nothing gives back all the same
    path.reload(&rules("      - { action: accept }"));
    assert!(open(&mut path, 7));
    assert_eq!((path.flows().len(), path.counted()), (4, 3));
    path.reload(&limit("few", 3, ""));
    assert!(!open(&mut path, 8), "those of before are still there");
    path.wait(40);
    assert_eq!(path.counted(), 0);
}

/// Random packets, ends of every kind and reloads: as long as one rule counts every flow there are
/// as many counts as flows, and after all ended there are none.
#[test]
fn what_is_counted_is_given_back_exactly() {
    let text = |more: &str| {
        format!(
            "{}conntrack: {{ max: 64 }}\n",
            rules(&format!(
                "      - {{ name: all, connlimit: 1000 per rule, mark: 1 }}\n{more}"
            ))
        )
    };
    let accept = "      - { action: accept }";
    let policies = [
        text(accept),
        text(&format!(
            "      - {{ proto: udp, dport: 1, action: drop }}\n{accept}"
        )),
        text(&format!(
            "      - {{ iif: wan, ct: new, action: reject }}\n{accept}"
        )),
        text(&format!(
            "      - {{ name: a, connlimit: over 3, action: drop }}\n      - {{ name: b, connlimit: 9 per destination, jump: c }}\n{accept}\n  c:\n    rules:\n      - {{ name: d, connlimit: \"2 per source/31,64\", mark: 3 }}"
        )),
        text(&format!(
            "      - {{ name: a, connlimit: over 5, action: drop }}\n{accept}"
        )),
    ];
    for (seed, choice) in [(1u64, 3), (2, 5), (3, 5)] {
        let mut path = Path::new(&policies[0]);
        let mut state = seed;
        let mut random = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below
        };
        for step in 0..6_000 {
            match random(100) {
                0 => path.reload(&policies[random(choice) as usize]),
                1 => path.wait(random(40)),
                2 if random(10) == 0 => path.flush(),
                _ => {
                    let (host, port) = (random(6) as u16, random(40) as u16);
                    let addrs = match random(2) {
                        0 => from(host),
                        _ => from6(host / 3, host),
                    };
                    let back = random(3) == 0;
                    let addrs = if back { addrs.flip() } else { addrs };
                    let (sport, dport) = if back { (80, port) } else { (port, 80) };
                    let flags = [SYN, SYN | ACK, ACK, RST, RST | ACK][random(5) as usize];
                    let frame = match random(2) {
                        0 => udp(addrs, sport, if random(9) == 0 { 1 } else { dport }),
                        _ => tcp(addrs, sport, dport, flags, 7, 8),
                    };
                    path.send(if back { WAN } else { LAN }, &frame);
                }
            }
            let (counts, flows) = (path.counted(), path.flows().len() as u64);
            if choice == 3 {
                assert_eq!(counts, flows, "seed {seed}, step {step}");
            } else {
                assert!(
                    (flows..=4 * flows).contains(&counts),
                    "seed {seed}, step {step}"
                );
            }
        }
        assert!(path.pipeline.counters().ct.early_drop.get() > 0);
        path.flush();
        assert_eq!(path.counted(), 0, "seed {seed}");
    }
}

/// Four cores at once: not one flow more than the limit, and not one less.
#[test]
fn workers_share_a_connlimit() {
    let text = rules("      - { connlimit: 50, action: accept }");
    let checked = parse("test.yaml", &text).unwrap_or_else(|errors| panic!("{errors}"));
    let policy = compile(&checked.model, 1, 4);
    let budget = Arc::new(Budget::new(4096, 4));
    let now = Now::from_secs(1000);
    for _ in 0..5 {
        let paths: Vec<_> = Pipeline::expecters(&budget, 4, 1)
            .into_iter()
            .enumerate()
            .map(|(worker, expecter)| {
                let (key, budget) = (HashKey::from_seed(1), budget.clone());
                Pipeline::sharing(worker, budget, expecter, key, now, Arc::default())
            })
            .collect();
        let passed = std::thread::scope(|scope| {
            let policy = &policy;
            let threads: Vec<_> = paths
                .into_iter()
                .enumerate()
                .map(|(worker, mut path)| {
                    scope.spawn(move || {
                        let mut passed = 0;
                        for port in 0..200 {
                            let frame = udp(TALK, worker as u16 * 1000 + port, 53);
                            let mut slot = Slot::default();
                            path.prepare(&mut slot, policy, LAN, &frame, frame.len());
                            let outcome = path.decide(policy, now, LAN, &frame, &slot);
                            passed +=
                                u32::from(matches!(outcome.disposition, Disposition::Forward(_)));
                        }
                        (passed, path)
                    })
                })
                .collect();
            let ended: Vec<_> = threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect();
            let mut sum = 0;
            for (passed, mut path) in ended {
                sum += passed;
                let later = Now::from_secs(2000).ticks();
                path.shard_mut().expire(later, usize::MAX);
                assert!(path.shard().is_empty());
            }
            sum
        });
        assert_eq!((passed, budget.tally().total()), (50, 0));
    }
}
