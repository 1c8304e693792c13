//! Frames of any shape through the packet path: parse, reassembly, raw rules, tracking, policy,
//! reject.
//!
//! The input is a sequence of frames, each behind two bytes: the port and how much time passes,
//! and the length. A flow table of 16 entries makes it fill, expire and be reused. Whatever comes,
//! the balance closes and the answer to a reject parses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shardwall::base::hash::HashKey;
use shardwall::base::time::Now;
use shardwall::pipeline::defrag::{Added, Defrag, FragmentKey, Group, Limits};
use shardwall::pipeline::{Counters, Disposition, DropReason, Pipeline, Slot, reject};
use shardwall::policy::{self, Compiled, PortId};
use shardwall::wire::fragment::{MAX_JOINED, Piece};
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
    let mut defrag = Defrag::<Vec<u8>>::new(Limits::DEFAULT, key, counters.clone());
    let mut joined = vec![0; MAX_JOINED];
    let mut answer = [0; reject::MAX_ANSWER];
    let mut rest = input;
    while let [head, len, tail @ ..] = rest {
        let (frame, next) = tail.split_at(usize::from(*len).min(tail.len()));
        rest = next;
        nanos += u64::from(head >> 1) * 1_000_000_000;
        let (now, port) = (Now::from_nanos(nanos), PortId(head & 1));
        path.shard_mut().expire(now.ticks(), 8);
        defrag.expire(now.ticks(), 8);
        counters.received.add(1);
        let (mut data, mut slot) = (frame, Slot::default());
        path.prepare(&mut slot, &COMPILED, port, frame, frame.len());
        path.prefetch(&mut slot);
        let mut outcome = path.decide(&COMPILED, now, port, data, &slot);
        let mut frames = 1;
        if outcome.disposition == Disposition::Hold {
            let Some(piece) = Piece::of(data, &slot.parsed) else {
                counters.dropped(DropReason::FragmentBad);
                continue;
            };
            let key = FragmentKey::of(&slot.parsed, &piece, port);
            let mut group = Group::new();
            let (ticks, len) = (now.ticks(), data.len());
            if defrag.add(ticks, key, &piece, len, data.to_vec(), &mut group) != Added::Whole {
                continue;
            }
            frames = group.len();
            let parts = group.iter().map(Vec::as_slice);
            let Some(len) = path.join(&mut slot, &COMPILED, port, &mut joined, parts) else {
                counters.drops[DropReason::FragmentBad as usize].add(frames as u64);
                continue;
            };
            data = &joined[..len];
            outcome = path.decide_whole(&COMPILED, now, port, data, &slot, frames);
        }
        match outcome.disposition {
            Disposition::Forward(_) => counters.forwarded.add(frames as u64),
            Disposition::Drop(_) => {}
            Disposition::Hold => panic!("a datagram is whole or dropped"),
            Disposition::Reject(with) => {
                if let Some(len) = reject::answer(with, data, &slot.parsed, &mut answer) {
                    let parsed = parse(&answer[..len], len);
                    assert!(matches!(parsed.l3, L3::Ipv4 | L3::Ipv6));
                }
            }
        }
        assert!(path.shard().len() <= 16);
    }
    let out = counters.forwarded.get() + counters.dropped_total() + counters.held.get();
    assert_eq!(counters.received.get(), out);
});
