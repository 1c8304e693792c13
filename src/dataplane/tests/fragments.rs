//! Fragments through workers: they pass together and in order, or not at all; a fragmented datagram
//! and its answer are one flow in one shard; and every fragment is accounted for, always.

use super::*;
use crate::conntrack::tuple::Tuple;
use crate::pipeline::defrag::FragmentKey;
use crate::wire::fragment::{Piece, part};
use std::slice;

const V6: Addrs = Addrs::V6 {
    src: 0xfd << 120 | 1,
    dst: 0xfd << 120 | 2,
};

fn udp(addrs: Addrs, dport: u16, len: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
    frame(addrs, Segment::Udp { sport: 9, dport }, &payload)
}

fn back(addrs: Addrs, sport: u16) -> Vec<u8> {
    let segment = Segment::Udp { sport, dport: 9 };
    frame(addrs.flip(), segment, b"answer")
}

/// Who collects the fragments `parts` that come in by LAN, and who owns the flow of `whole`.
fn workers_of(whole: &[u8], parts: &[Vec<u8>], workers: usize) -> (usize, usize) {
    let steer = Steer::new(steering(workers));
    let parsed = parse(&parts[0], parts[0].len());
    let piece = Piece::of(&parts[0], &parsed).unwrap();
    let collector = steer.collector(&FragmentKey::of(&parsed, &piece, LAN));
    let tuple = Tuple::of(&parse(whole, whole.len()), 0).unwrap();
    let (key, _) = tuple.key().unwrap();
    (collector, steer.place(steer.bucket(&key)).owner())
}

/// The first fragmented datagram from LAN whose collector does not own its flow.
fn handed_over(dport: u16, len: usize, most: usize) -> (Addrs, Vec<Vec<u8>>, usize, usize) {
    (1..)
        .find_map(|client| {
            let whole = udp(addrs(client), dport, len);
            let parts = cut(&whole, 5, most);
            let (collector, owner) = workers_of(&whole, &parts, 2);
            (collector != owner).then(|| (addrs(client), parts, collector, owner))
        })
        .unwrap()
}

#[test]
fn a_datagram_passes_as_it_came_but_in_order() {
    for addrs in [addrs(1), V6] {
        let mut rig = Rig::new(1);
        let parts = cut(&udp(addrs, 53, 3000), 5, 1000);
        assert_eq!(parts.len(), 4);
        for at in [3, 1, 0] {
            rig.arrive(LAN, 0, parts[at].clone());
        }
        rig.settle();
        assert!(rig.sent(WAN).is_empty());
        assert_eq!(rig.sum(|w| w.path.held.get()), 3);
        assert_eq!(rig.balance(), (3, 3));
        rig.arrive(LAN, 0, parts[2].clone());
        rig.arrive(WAN, 0, back(addrs, 53));
        rig.settle();
        assert_eq!(rig.sent(WAN), parts);
        assert_eq!(rig.sent(LAN).len(), 1, "the answer is of a known flow");
        assert_eq!(rig.sum(|w| w.path.forwarded.get()), 5);
        assert_eq!(rig.sum(|w| w.path.reassembled.get()), 1);
        assert_eq!(rig.sum(|w| w.path.ct.insert.get()), 1);
        assert_eq!(rig.sum(|w| w.path.ct.new.get()), 1);
        assert_eq!(rig.balance(), (5, 5));
    }
}

#[test]
fn its_verdict_is_that_of_all_its_fragments() {
    let mut rig = Rig::new(1);
    // The policy drops it: nothing of it passes, nothing is left of it.
    for fragment in cut(&udp(addrs(1).flip(), 53, 2000), 5, 1000) {
        rig.arrive(WAN, 0, fragment);
    }
    rig.settle();
    assert_eq!(rig.drops(DropReason::Policy), 3);
    // A reject answers once, about the whole datagram.
    let syn = Segment::Tcp {
        sport: 40_000,
        dport: 22,
        seq: 100,
        ack: 0,
        flags: flags::SYN,
        window: 60_000,
        options: &[],
    };
    let mut parts = cut(&frame(addrs(1), syn, &[7; 80]), 6, 8);
    parts.reverse();
    for fragment in &parts {
        rig.arrive(LAN, 0, fragment.clone());
    }
    rig.settle();
    assert_eq!(parts.len(), 13);
    assert_eq!(rig.drops(DropReason::Rejected), 13);
    let answers = rig.sent(LAN);
    assert_eq!(answers.len(), 1);
    let L4::Tcp(header) = parse(&answers[0], answers[0].len()).l4 else {
        panic!()
    };
    assert_eq!(header.ack, 100 + 80 + 1);
    // A log line comes once, too.
    for fragment in cut(&udp(addrs(2), 514, 2000), 5, 1000) {
        rig.arrive(WAN, 0, fragment);
    }
    rig.settle();
    assert_eq!(rig.log.try_iter().count(), 1);
    assert_eq!(rig.sum(|w| w.path.ct.insert.get()), 0);
    assert_eq!(rig.balance(), (19, 19));
}

#[test]
fn rules_see_the_datagram() {
    let mut rig = Rig::new(1);
    // Untracked by its port, which only the first fragment has.
    for fragment in cut(&udp(addrs(1), 7001, 2000), 5, 1000).into_iter().rev() {
        rig.arrive(LAN, 0, fragment);
    }
    rig.settle();
    assert_eq!(rig.sent(WAN).len(), 3);
    assert_eq!(rig.sum(|w| w.path.ct.new.get()), 0);
    // `fragment` and `length` of the datagram: as long but whole, or cut but shorter, it passes.
    rig.arrive(LAN, 0, udp(addrs(1), 7000, 3000));
    for fragment in cut(&udp(addrs(1), 7000, 2000), 6, 1000) {
        rig.arrive(LAN, 0, fragment);
    }
    rig.settle();
    assert_eq!(rig.sent(WAN).len(), 4);
    for fragment in cut(&udp(addrs(2), 7000, 3000), 7, 1000) {
        rig.arrive(LAN, 0, fragment);
    }
    rig.settle();
    assert!(rig.sent(WAN).is_empty());
    assert_eq!(rig.drops(DropReason::Policy), 4);
}

#[test]
fn a_fragmented_flow_and_its_answers_are_one_flow_in_one_shard() {
    for workers in [2, 3] {
        let mut rig = Rig::new(workers);
        let clients = 30;
        let mut want = std::collections::BTreeMap::new();
        for client in 1..=clients {
            let parts = cut(&udp(addrs(client), 53, 2000), client, 600);
            assert_eq!(parts.len(), 4);
            // Each on another queue, the later ones first.
            for (at, fragment) in parts.iter().enumerate().rev() {
                let queue = (client as usize + at) % workers;
                rig.arrive(LAN, queue, fragment.clone());
            }
            want.insert(addrs(client).src(), parts);
        }
        rig.settle();
        let mut got = std::collections::BTreeMap::new();
        for fragment in rig.sent(WAN) {
            let src = parse(&fragment, fragment.len()).addrs.src();
            got.entry(src).or_insert(Vec::new()).push(fragment);
        }
        assert!(got == want, "each datagram in order, byte for byte");
        for client in 1..=clients {
            rig.arrive(WAN, client as usize % workers, back(addrs(client), 53));
        }
        rig.settle();
        assert_eq!(rig.sent(LAN).len(), clients as usize);
        // Once more, now that the flows are known, the answers in fragments.
        for client in 1..=clients {
            let answer = udp(addrs(client), 53, 2000);
            let answer = {
                let parsed = parse(&answer, answer.len());
                let body = &answer[usize::from(parsed.l4_offset) + 8..];
                let segment = Segment::Udp {
                    sport: 53,
                    dport: 9,
                };
                frame(addrs(client).flip(), segment, body)
            };
            for (at, fragment) in cut(&answer, client, 1480).into_iter().enumerate() {
                rig.arrive(WAN, (client as usize + at) % workers, fragment);
            }
        }
        rig.settle();
        assert_eq!(rig.sent(LAN).len(), 2 * clients as usize);
        let each = |of: fn(&super::super::shared::WorkerCounters) -> u64| {
            rig.shared.workers.iter().map(of).collect::<Vec<u64>>()
        };
        assert_eq!(rig.sum(|w| w.path.ct.insert.get()), u64::from(clients));
        assert_eq!(rig.sum(|w| w.path.ct.new.get()), u64::from(clients));
        assert_eq!(rig.sum(|w| w.path.ct.invalid.get()), 0);
        assert!(each(|w| w.path.ct.insert.get()).iter().all(|n| *n > 0));
        assert!(each(|w| w.path.reassembled.get()).iter().all(|n| *n > 0));
        let handed = [
            rig.sum(|w| w.handed_out.get()),
            rig.sum(|w| w.handed_in.get()),
        ];
        assert_eq!(handed[0], handed[1]);
        assert_eq!(rig.sum(|w| w.path.held.get()), 0);
        assert_eq!(rig.sum(|w| w.path.dropped_total()), 0);
        let frames = u64::from(clients) * (4 + 1 + 2);
        assert_eq!(rig.balance(), (frames, frames));
    }
}

#[test]
fn a_group_longer_than_a_burst_stays_together() {
    let (client, parts, collector, owner) = handed_over(53, 60 * 800 - 8, 800);
    assert_eq!(parts.len(), 60);
    for stop_between in [false, true] {
        let mut rig = Rig::new(2);
        let now = Now::from_nanos(rig.now);
        // So much of the flow before it that a loop takes that and half of the group.
        let before: Vec<_> = (0..RING / 2 - 30)
            .map(|n| udp(client, 53, n % 100))
            .collect();
        let ahead = before.len() as u64;
        for frame in before.iter().chain(&parts) {
            rig.arrive(LAN, collector, frame.clone());
        }
        while rig.workers[collector].turn(now) > 0 {}
        // An answer behind it, which is of a known flow only if the datagram was decided first.
        rig.arrive(WAN, collector, back(client, 53));
        while rig.workers[collector].turn(now) > 0 {}
        assert_eq!(rig.sum(|w| w.handed_out.get()), ahead + 61);
        rig.workers[owner].turn(now);
        assert!(rig.sent(WAN) == before, "half of it is there");
        if stop_between {
            for worker in rig.workers.drain(..) {
                worker.finish();
            }
            assert_eq!(rig.drops(DropReason::Shutdown), 61);
            assert_eq!(rig.balance(), (ahead + 61, ahead + 61));
            continue;
        }
        rig.settle();
        assert_eq!(rig.sent(WAN), parts);
        assert_eq!(rig.sent(LAN).len(), 1);
        assert_eq!(rig.balance(), (ahead + 61, ahead + 61));
    }
}

#[test]
fn a_datagram_keeps_its_place_among_others_of_its_flow() {
    let (client, parts, collector, owner) = handed_over(53, 2000, 1000);
    for workers in [1, 2] {
        let mut rig = Rig::new(workers);
        let queue = if workers == 1 { 0 } else { collector };
        let (before, behind) = (udp(client, 53, 10), udp(client, 53, 20));
        rig.arrive(LAN, queue, before.clone());
        for fragment in &parts {
            rig.arrive(LAN, queue, fragment.clone());
        }
        rig.arrive(LAN, queue, behind.clone());
        rig.settle();
        let want = [&[before][..], &parts, &[behind]].concat();
        assert!(rig.sent(WAN) == want, "{workers} workers, owner {owner}");
    }
}

#[test]
fn a_ring_without_room_for_all_takes_none() {
    let (_, parts, collector, owner) = handed_over(53, 2000, 1000);
    let mut rig = Rig::new(2);
    let now = Now::from_nanos(rig.now);
    // Frames of a flow that the other worker owns, until there is room for two.
    let other = (1..)
        .map(|client| udp(addrs(1000 + client), 53, 10))
        .find(|frame| {
            let tuple = Tuple::of(&parse(frame, frame.len()), 0).unwrap();
            let (key, _) = tuple.key().unwrap();
            let steer = Steer::new(steering(2));
            steer.place(steer.bucket(&key)).is_of(owner)
        })
        .unwrap();
    for _ in 0..RING - 2 {
        rig.arrive(LAN, collector, other.clone());
    }
    while rig.workers[collector].turn(now) > 0 {}
    for fragment in &parts {
        rig.arrive(LAN, collector, fragment.clone());
    }
    while rig.workers[collector].turn(now) > 0 {}
    assert_eq!(rig.drops(DropReason::HandoffFull), 3);
    rig.arrive(LAN, collector, other.clone());
    rig.settle();
    assert_eq!(rig.drops(DropReason::HandoffFull), 3);
    assert_eq!(rig.sent(WAN).len(), RING - 1);
    // Once there is room, it passes.
    for fragment in &parts {
        rig.arrive(LAN, collector, fragment.clone());
    }
    rig.settle();
    assert_eq!(rig.sent(WAN), parts);
}

#[test]
fn what_never_becomes_whole_ends_with_a_name() {
    let mut rig = Rig::new(2);
    for client in 0..50 {
        for fragment in &cut(&udp(addrs(client), 53, 2000), client, 600)[1..] {
            rig.arrive(LAN, client as usize % 2, fragment.clone());
        }
    }
    rig.settle();
    assert_eq!(rig.sum(|w| w.path.held.get()), 150);
    assert_eq!(rig.balance(), (150, 150));
    rig.now += 29_000_000_000;
    rig.settle();
    assert_eq!(rig.drops(DropReason::FragmentTimeout), 0);
    rig.now += 1_000_000_000;
    for _ in 0..8 {
        rig.settle();
    }
    assert_eq!(rig.drops(DropReason::FragmentTimeout), 150);
    assert_eq!(rig.sum(|w| w.path.reassembly_failed.get()), 50);
    // What is held when the appliance stops.
    for fragment in &cut(&udp(addrs(1), 53, 2000), 1, 600)[1..] {
        rig.arrive(LAN, 0, fragment.clone());
    }
    rig.settle();
    for worker in rig.workers.drain(..) {
        worker.finish();
    }
    assert_eq!(rig.drops(DropReason::Shutdown), 3);
    assert_eq!(rig.sum(|w| w.path.held.get()), 0);
    assert_eq!(rig.balance(), (153, 153));
}

#[test]
fn somebody_on_another_port_cannot_add_to_a_datagram() {
    let mut rig = Rig::new(1);
    let whole = udp(addrs(1), 53, 2000);
    let parts = cut(&whole, 5, 1000);
    rig.arrive(LAN, 0, parts[0].clone());
    rig.arrive(LAN, 0, parts[2].clone());
    rig.arrive(WAN, 0, parts[1].clone());
    rig.settle();
    assert_eq!(rig.sum(|w| w.path.held.get()), 3);
    // Nor does an overlap from there end it.
    rig.arrive(WAN, 0, part(&whole, 5, 504..1504, true));
    rig.settle();
    assert_eq!(rig.drops(DropReason::FragmentOverlap), 2);
    rig.arrive(LAN, 0, parts[1].clone());
    rig.settle();
    assert_eq!(rig.sent(WAN), parts);
}

/// As the kernel says: an error about a flow may quote any of its packets' first bytes, and a later
/// fragment has none of a transport header.
#[test]
fn an_error_may_quote_a_first_fragment_but_no_later_one() {
    for (addrs, (ty, code)) in [(addrs(1), (3, 3)), (V6, (1, 4))] {
        let mut rig = Rig::new(1);
        let parts = cut(&udp(addrs, 53, 2000), 5, 1000);
        for fragment in &parts {
            rig.arrive(LAN, 0, fragment.clone());
        }
        rig.settle();
        let error = Segment::Icmp { ty, code, rest: 0 };
        for fragment in &parts {
            rig.arrive(
                WAN,
                0,
                frame(addrs.flip(), error, &fragment[14..214.min(fragment.len())]),
            );
        }
        rig.settle();
        assert_eq!(rig.sent(LAN).len(), 1);
        assert_eq!(rig.sum(|w| w.path.ct.invalid.get()), 2);
        assert_eq!(rig.drops(DropReason::Policy), 2);
    }
}

#[test]
fn an_atomic_fragment_is_whole_beside_held_ones_of_its_identification() {
    let parts = cut(&udp(V6, 53, 2000), 5, 1000);
    let other = udp(V6, 53, 100);
    let len = other.len() - 14 - 40;
    let atomic = part(&other, 5, 0..len, false);
    for at in 0..parts.len() {
        let mut rig = Rig::new(1);
        let (before, behind) = parts.split_at(at);
        for fragment in before {
            rig.arrive(LAN, 0, fragment.clone());
        }
        rig.arrive(LAN, 0, atomic.clone());
        rig.settle();
        assert_eq!(
            rig.sent(WAN),
            slice::from_ref(&atomic),
            "behind {at} fragments"
        );
        assert_eq!(rig.sum(|w| w.path.held.get()), at as u64);
        for fragment in behind {
            rig.arrive(LAN, 0, fragment.clone());
        }
        rig.settle();
        assert_eq!(rig.sent(WAN), parts, "behind {at} fragments");
        assert_eq!(rig.sum(|w| w.path.reassembled.get()), 1);
        assert_eq!(rig.sum(|w| w.path.dropped_total()), 0);
    }
}
