//! Fragments of any shape through reassembly: the store, the joining, and the packet path behind.
//!
//! The input is a sequence of eight bytes a fragment: family and identification, time, place and
//! length, what it says about more, and one byte of its headers to spoil. A store of a few slots
//! makes it fill, expire and be reused. Whatever comes, every fragment is held, dropped for a
//! reason or given back, and what is joined is the fragments' own bytes, one after the other.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shardwall::base::hash::HashKey;
use shardwall::base::time::Now;
use shardwall::pipeline::defrag::{Added, Defrag, FragmentKey, Group, Limits, MAX_FRAGMENTS};
use shardwall::pipeline::{Counters, Pipeline, Slot};
use shardwall::policy::{self, Compiled, PortId};
use shardwall::wire::build::{Segment, frame};
use shardwall::wire::fragment::{MAX_JOINED, Piece, part};
use shardwall::wire::{Addrs, Fragment, parse};
use std::sync::{Arc, LazyLock};

const LIMITS: Limits = Limits {
    datagrams: 3,
    fragments: 40,
    bytes: 60_000,
};

static COMPILED: LazyLock<Compiled> = LazyLock::new(|| {
    let text = "version: 1\nports: { a: { device: net_null0 } }\nchains: { forward: { policy: drop } }\n";
    let checked = policy::parse("fuzz", text).unwrap_or_else(|errors| panic!("{errors}"));
    policy::compile(&checked.model, 1, 1)
});

/// A datagram of each family that all fragments are cut from.
static WHOLE: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    let v4 = Addrs::V4 { src: 0x0a00_0001, dst: 0x0a00_0002 };
    let v6 = Addrs::V6 { src: 0xfd << 120 | 1, dst: 0xfd << 120 | 2 };
    let udp = Segment::Udp { sport: 1, dport: 2 };
    let payload: Vec<u8> = (0..60_000u32).map(|i| (i * 7 + i / 256) as u8).collect();
    [v4, v6].map(|addrs| frame(addrs, udp, &payload))
});

/// The bytes of a fragment's payload.
fn body(data: &[u8]) -> (Piece, &[u8]) {
    let parsed = parse(data, data.len());
    let piece = Piece::of(data, &parsed).expect("it was taken in");
    (piece, &data[piece.body..parsed.end as usize])
}

fuzz_target!(|input: &[u8]| {
    let counters = Arc::new(Counters::default());
    let key = HashKey::from_seed(1);
    let mut nanos = 1_000_000_000;
    let path = Pipeline::new(0, 16, key, Now::from_nanos(nanos), counters.clone());
    let mut defrag = Defrag::<Vec<u8>>::new(LIMITS, key, counters.clone());
    let mut joined = vec![0; MAX_JOINED];
    let (mut added, mut given_back) = (0, 0);
    for op in input.as_chunks::<8>().0 {
        let [kind, wait, start_hi, start, len_hi, len, at, value] = *op;
        let whole = &WHOLE[usize::from(kind & 1)];
        let id = u32::from(kind >> 1 & 3);
        let more = kind & 8 != 0;
        let unit = if kind & 16 == 0 { 8 } else { 1024 };
        nanos += u64::from(wait & 63) * 1_000_000_000;
        let now = Now::from_nanos(nanos).ticks();
        if wait & 64 != 0 {
            defrag.expire(now, 2);
        }
        let start = usize::from(u16::from_be_bytes([start_hi & 1, start])) * unit % 58_000 & !7;
        let len = match kind & 32 {
            0 => usize::from(len) * unit,
            _ => usize::from(u16::from_be_bytes([len_hi & 7, len])),
        };
        let end = (start + len).min(60_000);
        let mut frame = part(whole, id, start..end, more);
        if kind & 64 != 0 {
            let at = usize::from(at).min(frame.len() - 1);
            frame[at] ^= value;
        }
        let parsed = parse(&frame, frame.len());
        if !parsed.fragment.is_part() {
            continue;
        }
        let Some(piece) = Piece::of(&frame, &parsed) else { continue };
        let key = FragmentKey::of(&parsed, &piece, PortId(kind >> 7));
        let mut group = Group::new();
        let len = frame.len();
        let result = defrag.add(now, key, &piece, len, frame, &mut group);
        added += 1;
        given_back += group.len() as u64;
        assert_eq!(result == Added::Whole, !group.is_empty());
        assert!(group.len() <= MAX_FRAGMENTS && defrag.held() <= LIMITS.fragments);
        let balance = given_back + counters.dropped_total() + u64::from(defrag.held());
        assert_eq!(added, balance);
        if group.is_empty() {
            continue;
        }
        let parts = || group.iter().map(Vec::as_slice);
        let mut slot = Slot::default();
        let whole = path.join(&mut slot, &COMPILED, PortId(0), &mut joined, parts());
        if let Some(len) = whole {
            assert_eq!(slot.parsed.fragment, Fragment::Reassembled);
            let mut want = Vec::new();
            for (piece, bytes) in parts().map(body) {
                assert_eq!(piece.start as usize, want.len());
                want.extend_from_slice(bytes);
            }
            assert!(joined[..len].ends_with(&want));
            assert_eq!(slot.parsed.end as usize, len);
        }
    }
});
