//! Frames of any shape through the packet path: parse, raw rules, tracking, policy, reject.
//!
//! The input is a sequence of frames, each behind two bytes: the port and how much time passes,
//! and the length. A flow table of 16 entries makes it fill, expire and be reused. Whatever comes,
//! the balance closes and the answer to a reject parses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shardwall::base::hash::HashKey;
use shardwall::base::time::Now;
use shardwall::pipeline::{Counters, Disposition, Pipeline, Slot, reject};
use shardwall::policy::{self, Compiled, PortId};
use shardwall::wire::{L3, parse};
use std::sync::{Arc, LazyLock};

const POLICY: &str = "
version: 1
ports: { lan: { device: a }, wan: { device: b } }
bridge: [{ ports: [lan, wan], ethertypes: [arp, lldp] }]
conntrack: { max: 16 }
raw:
  - { name: dns, proto: udp, dport: 53, action: notrack }
chains:
  forward:
    policy: drop
    rules:
      - { name: known, ct: [established, related], action: accept }
      - { name: syn, proto: tcp, tcp-flags: \"!syn\", ct: new, action: reject }
      - { name: long, length: 1000-65535, action: reject }
      - { name: some, limit: 10/second burst 5, jump: more }
      - { name: rest, iif: lan, action: accept }
  more:
    rules:
      - { name: ping, proto: [icmp, icmpv6], action: accept }
      - { name: odd, dscp: [cs1, af11, ef, 33], action: { reject: admin-prohibited } }
";

static COMPILED: LazyLock<Compiled> = LazyLock::new(|| {
    let checked = policy::parse("fuzz", POLICY).unwrap_or_else(|errors| panic!("{errors}"));
    policy::compile(&checked.model, 1, 1)
});

fuzz_target!(|input: &[u8]| {
    let counters = Arc::new(Counters::default());
    let key = HashKey::from_seed(1);
    let mut nanos = 1_000_000_000;
    let mut path = Pipeline::new(0, 16, key, Now::from_nanos(nanos), counters.clone());
    let mut answer = [0; reject::MAX_ANSWER];
    let mut rest = input;
    while let [head, len, tail @ ..] = rest {
        let (frame, next) = tail.split_at(usize::from(*len).min(tail.len()));
        rest = next;
        nanos += u64::from(head >> 1) * 1_000_000_000;
        let now = Now::from_nanos(nanos);
        path.shard_mut().expire(now.ticks(), 8);
        counters.received.add(1);
        let iif = PortId(head & 1);
        let mut slot = Slot::default();
        path.prepare(&mut slot, &COMPILED, iif, frame, frame.len());
        path.prefetch(&mut slot);
        let outcome = path.decide(&COMPILED, now, iif, frame, &slot);
        match outcome.disposition {
            Disposition::Forward(_) => counters.forwarded.add(1),
            Disposition::Drop(_) => {}
            Disposition::Reject(with) => {
                if let Some(len) = reject::answer(with, frame, &slot.parsed, &mut answer) {
                    let parsed = parse(&answer[..len], len);
                    assert!(matches!(parsed.l3, L3::Ipv4 | L3::Ipv6));
                }
            }
        }
        assert!(path.shard().len() <= 16);
    }
    let out = counters.forwarded.get() + counters.dropped_total();
    assert_eq!(counters.received.get(), out);
});
