//! The tracker by itself: packets of a few flows in any order, with time passing, policy dropping
//! some, listings, removals and resets in between. Whatever comes, the table and its index agree,
//! its counters balance, and nothing that lives is lost or outlives its time.
//!
//! The input is a sequence of steps of five bytes: what to do, with which flow, and three numbers.
//! A shard of fewer entries than there are flows makes it fill.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shardwall::base::hash::HashKey;
use shardwall::base::time::{Span, Ticks};
use shardwall::conntrack::config::Config;
use shardwall::conntrack::shard::{CtCounters, Cursor, Flow, FlowRef, Prepared, Shard};
use shardwall::conntrack::table::InsertError;
use shardwall::conntrack::types::{CtState, proto};
use shardwall::conntrack::wheel::RESOLUTION;
use shardwall::wire::build::{Segment, frame};
use shardwall::wire::tcp::flags::{ACK, FIN, RST, SYN};
use shardwall::wire::{Addrs, parse};
use std::sync::Arc;

/// Four kinds of four flows in two families.
const FLOWS: u8 = 32;
const LIMIT: u32 = 20;
/// Seconds that pass at once.
const PAUSES: [u32; 8] = [0, 1, 9, 30, 121, 300, 3_600, 432_000];

struct Bench {
    shard: Shard,
    counters: Arc<CtCounters>,
    config: Config,
    now: Ticks,
    /// The highest sequence number that each flow's sides used.
    sent: [[u32; 2]; FLOWS as usize],
}

/// Options of a TCP segment: none, those of a handshake, a SACK block.
const OPTIONS: [&[u8]; 4] = [
    &[],
    &[4, 2, 1, 3, 3, 7],
    &[5, 10, 0, 0, 0, 1, 0, 0, 4, 0],
    &[3, 3, 200, 5, 3, 0],
];

fn addrs(flow: u8, from_server: bool) -> Addrs {
    let host = u32::from(flow % 4);
    let there = if flow & 16 == 0 {
        let (src, dst) = (0x0a01_0000 | host, 0x0a02_0001);
        Addrs::V4 { src, dst }
    } else {
        let (src, dst) = (0xfd01 << 112 | u128::from(host), 0xfd02 << 112 | 1);
        Addrs::V6 { src, dst }
    };
    if from_server { there.flip() } else { there }
}

impl Bench {
    fn new(seed: u8) -> Self {
        let counters = Arc::new(CtCounters::default());
        let now = Ticks(u32::from(seed) << 24 | 0xff_0000);
        let key = HashKey::from_seed(u64::from(seed));
        Self {
            shard: Shard::new(0, LIMIT, key, now, counters.clone()),
            counters,
            config: Config {
                tcp_loose: seed & 1 == 0,
                tcp_be_liberal: seed & 2 != 0,
                tcp_ignore_invalid_rst: seed & 4 != 0,
                ..Config::default()
            },
            now,
            sent: [[u32::MAX - 500, 5_000]; FLOWS as usize],
        }
    }

    /// A frame of `flow`, whose shape the three numbers choose.
    fn frame(&mut self, flow: u8, [a, b, c]: [u8; 3]) -> Vec<u8> {
        let side = usize::from(a & 1);
        let addrs = addrs(flow, side == 1);
        let (client, server) = (1_024 + u16::from(flow), 80);
        let (sport, dport) = if side == 0 {
            (client, server)
        } else {
            (server, client)
        };
        let payload = [0; 300];
        let len = usize::from(b & 3) * 100;
        let segment = match flow / 4 % 4 {
            0 => {
                // Most numbers near those that the hosts would use; some anywhere.
                let near = |base: u32, by: u8| match by >> 4 {
                    0..=9 => base,
                    10..=12 => base.wrapping_add_signed(i32::from(by as i8)),
                    13 => base.wrapping_add(u32::from(by & 15) << 13),
                    14 => base.wrapping_sub(u32::from(by & 15) << 13),
                    _ => u32::from(by & 15) << 28,
                };
                let [own, other] = [
                    self.sent[usize::from(flow)][side],
                    self.sent[usize::from(flow)][1 - side],
                ];
                let flags = match a >> 1 & 15 {
                    0 => SYN,
                    1 => SYN | ACK,
                    2..=7 => ACK,
                    8 => FIN | ACK,
                    9 => RST,
                    10 => RST | ACK,
                    _ => b & 0x3f,
                };
                let seq = near(own, b);
                let phantom = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
                if b >> 4 < 10 {
                    self.sent[usize::from(flow)][side] = seq.wrapping_add(len as u32 + phantom);
                }
                let window = [0, 1, 1_000, 65_535][usize::from(a >> 6)];
                let options = OPTIONS[usize::from(c >> 2 & 3)];
                Segment::Tcp {
                    sport,
                    dport,
                    seq,
                    ack: near(other, c),
                    flags,
                    window,
                    options,
                }
            }
            1 => Segment::Udp { sport, dport },
            2 => {
                let v6 = flow & 16 != 0;
                let ty = match (v6, side) {
                    (false, 0) => 8,
                    (false, _) => 0,
                    (true, 0) => 128,
                    (true, _) => 129,
                };
                Segment::Icmp {
                    ty,
                    code: 0,
                    rest: u32::from(flow) << 16 | 1,
                }
            }
            _ => Segment::Raw(253),
        };
        frame(addrs, segment, &payload[..len])
    }

    /// A frame that belongs to `flow` and says nothing special.
    fn probe(&mut self, flow: u8) -> Vec<u8> {
        let sent = self.sent;
        let probe = self.frame(flow, [2 << 1, 0, 0]);
        self.sent = sent;
        probe
    }

    fn prepare(&self, bytes: &[u8]) -> Prepared {
        self.shard.prepare(bytes, &parse(bytes, bytes.len()), 0)
    }

    /// One packet; `accepted` by policy or not.
    fn packet(&mut self, bytes: &[u8], notrack: bool, accepted: bool) {
        let parsed = parse(bytes, bytes.len());
        let mut prepared = self.shard.prepare(bytes, &parsed, 0);
        self.shard.prefetch(&mut prepared);
        let (before, len) = (self.shard.peek(&prepared, self.now), self.shard.len());
        let said = self
            .shard
            .track(bytes, &parsed, &prepared, notrack, self.now, &self.config);
        let after = self.shard.peek(&prepared, self.now);
        assert!(!notrack || said.state == CtState::Untracked && after == before);
        match said.flow {
            Flow::Known(flow) => {
                // What was found lives, and is what was there before.
                assert_eq!((before, after), (Some(flow), Some(flow)));
                assert!(said.state != CtState::Untracked && said.state != CtState::Invalid);
            }
            Flow::Pending => {
                assert_eq!((said.state, after), (CtState::New, None));
                if !accepted {
                    return;
                }
                let len = self.shard.len();
                match self.shard.commit(self.now) {
                    Ok(flow) => {
                        assert_eq!(self.shard.peek(&prepared, self.now), Some(flow));
                        assert_eq!(self.shard.len(), len + 1);
                    }
                    Err(error) => assert_eq!((error, len), (InsertError::Full, LIMIT)),
                }
                // It was taken: there is nothing to commit twice.
                assert!(self.shard.commit(self.now).is_err());
            }
            Flow::None => {
                // Only a flow that this packet ended has a direction without an entry.
                assert!(said.dir.is_none() || before.is_some() && after.is_none());
                assert!(after.is_none() || after == before);
                assert!(self.shard.len() <= len);
            }
        }
    }

    /// Every entry, in slices of `slice`.
    fn scan(&self, slice: u32) -> Vec<FlowRef> {
        let (mut all, mut cursor) = (Vec::new(), Some(Cursor::default()));
        while let Some(at) = cursor {
            let (flows, next) = self.shard.scan(at, slice);
            all.extend(flows);
            cursor = next;
        }
        all
    }

    fn step(&mut self, [what, flow, numbers @ ..]: [u8; 5]) {
        let flow = flow % FLOWS;
        match what % 16 {
            0..=9 => {
                let bytes = self.frame(flow, numbers);
                self.packet(&bytes, what & 0xe0 == 0xe0, what & 0x10 == 0);
            }
            10 => {
                // An error of a router about what the client sent.
                let about = self.probe(flow);
                let (outer, ty) = match addrs(flow, true) {
                    Addrs::V4 { dst, .. } => (
                        Addrs::V4 {
                            src: 0x0a02_00fe,
                            dst,
                        },
                        3,
                    ),
                    Addrs::V6 { dst, .. } => (
                        Addrs::V6 {
                            src: 0xfd02 << 112 | 0xfe,
                            dst,
                        },
                        1,
                    ),
                };
                let segment = Segment::Icmp {
                    ty,
                    code: numbers[0] & 7,
                    rest: 0,
                };
                self.packet(&frame(outer, segment, &about[14..]), false, true);
            }
            11 | 12 => {
                let pause =
                    Span(PAUSES[usize::from(numbers[0] % 8)] * 1_000 + u32::from(numbers[1]));
                self.now = self.now.plus(pause);
                self.shard.expire(self.now, usize::from(numbers[2] & 7));
                self.shard.expire(self.now, usize::MAX);
                self.check_late();
            }
            13 => self.shard.expire(self.now, usize::from(numbers[0])),
            14 => {
                let mut flows = self.scan(1 + u32::from(numbers[0]));
                let mut pick = numbers[1];
                flows.retain(|_| {
                    pick = pick.rotate_left(1);
                    pick & 1 != 0
                });
                let len = self.shard.len();
                self.shard.remove(&flows);
                assert_eq!(self.shard.len(), len - flows.len() as u32);
            }
            _ => {
                let bytes = self.probe(flow);
                if let Some(flow) = self.shard.peek(&self.prepare(&bytes), self.now) {
                    self.shard.close(flow, self.now, &self.config);
                }
            }
        }
    }

    /// No entry outlived its time by the wheel's resolution.
    fn check_late(&self) {
        // Records round down: whoever lives a tick after `due` had a second left, a second before.
        let due = self.now.0.wrapping_sub(RESOLUTION.0);
        let before = Ticks(due.wrapping_sub(999));
        for flow in self.scan(7) {
            assert!(
                self.shard.record(flow, before).timeout > 0,
                "an entry outlived its time"
            );
        }
    }

    fn check(&mut self) {
        let all = self.scan(5);
        assert_eq!(all.len(), self.shard.len() as usize);
        let (inserted, deleted) = (self.counters.insert.get(), self.counters.delete.get());
        assert_eq!(inserted - deleted, all.len() as u64);
        assert_eq!(self.counters.insert_failed.get(), 0);
        // Each entry is listed once, and the gauges agree with the listing.
        self.shard.publish_entries();
        let mut gauges = [0; 3];
        for (at, flow) in all.iter().enumerate() {
            assert!(!all[..at].contains(flow));
            match self.shard.record(*flow, self.now).proto {
                proto::TCP => gauges[0] += 1,
                proto::UDP => gauges[1] += 1,
                _ => gauges[2] += 1,
            }
        }
        assert_eq!(
            self.counters.entries.each_ref().map(|gauge| gauge.get()),
            gauges
        );
        // Each that lives is found by a packet of its flow, and nothing else is.
        let mut found = Vec::new();
        for flow in 0..FLOWS {
            let bytes = self.probe(flow);
            found.extend(self.shard.peek(&self.prepare(&bytes), self.now));
        }
        assert!(found.iter().all(|flow| all.contains(flow)));
        for flow in all {
            let left = self.shard.record(flow, self.now).timeout;
            assert!(
                left == 0 || found.contains(&flow),
                "an entry that nothing finds"
            );
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((seed, steps)) = input.split_first() else {
        return;
    };
    let mut bench = Bench::new(*seed);
    for step in steps.as_chunks::<5>().0 {
        bench.step(*step);
        bench.check();
    }
});
