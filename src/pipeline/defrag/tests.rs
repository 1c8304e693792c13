//! The store: what is held, refused, completed and ended, and that every fragment is accounted for.

use super::*;
use crate::base::time::Now;
use crate::pipeline::{Pipeline, Slot};
use crate::policy::{self, Compiled};
use crate::wire::build::{Link, Segment, emit, frame_len};
use crate::wire::fragment::{MAX_JOINED, cut, part};
use crate::wire::{Fragment, NO_VLAN, parse};
use proptest::prelude::*;

const V4: Addrs = Addrs::V4 {
    src: 0x0a00_0001,
    dst: 0x0a00_0002,
};
const V6: Addrs = Addrs::V6 {
    src: 0xfd << 120 | 1,
    dst: 0xfd << 120 | 2,
};

/// A store of numbers, and the balance of what went in.
struct Rig {
    defrag: Defrag<u32>,
    counters: Arc<Counters>,
    now: Ticks,
    added: u64,
    completed: u64,
}

impl Rig {
    fn new(limits: Limits) -> Self {
        let counters = Arc::<Counters>::default();
        Self {
            defrag: Defrag::new(limits, HashKey::from_seed(1), counters.clone()),
            counters,
            now: Ticks(u32::MAX - 20_000), // the clock wraps during the tests
            added: 0,
            completed: 0,
        }
    }

    /// Adds fragment number `number`; the numbers of its datagram, if that is whole.
    fn add(&mut self, key: FragmentKey, piece: Piece, number: u32) -> (Added, Vec<u32>) {
        let mut group = Group::new();
        let len = 34 + piece.len as usize;
        let added = self
            .defrag
            .add(self.now, key, &piece, len, number, &mut group);
        self.added += 1;
        self.completed += group.len() as u64;
        let out = self.completed + self.counters.dropped_total();
        assert_eq!(self.added, out + u64::from(self.defrag.held()));
        assert_eq!(self.counters.held.get(), u64::from(self.defrag.held()));
        assert_eq!(group.is_empty(), added != Added::Whole);
        (added, group.into_iter().collect())
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.counters.drops[reason as usize].get()
    }
}

fn key(addrs: Addrs, id: u32) -> FragmentKey {
    FragmentKey {
        addrs,
        id,
        vlan: NO_VLAN,
        port: PortId(0),
        proto: if addrs == V4 { 17 } else { 0 },
    }
}

fn piece(start: u32, end: u32, more: bool) -> Piece {
    Piece {
        id: 0,
        start,
        len: end - start,
        more,
        body: 0,
        before: 20,
        ecn: 0,
    }
}

/// Plays `fragments` of one datagram, `start-end` with `+` for more to follow and what must
/// become of it; the order of the frames if the datagram becomes whole.
fn play(addrs: Addrs, fragments: &str) -> Option<Vec<u32>> {
    let mut rig = Rig::new(Limits::DEFAULT);
    let mut whole = None;
    for (number, step) in fragments.split(", ").enumerate() {
        let (range, want) = step.split_once(' ').unwrap();
        let more = range.ends_with('+');
        let (start, end) = range.trim_end_matches('+').split_once('-').unwrap();
        let (start, end) = (start.parse().unwrap(), end.parse().unwrap());
        let (added, order) = rig.add(key(addrs, 7), piece(start, end, more), number as u32);
        let word = match added {
            Added::Held => "held",
            Added::Whole => "whole",
            Added::Refused(reason) => reason.name().strip_prefix("fragment-").unwrap(),
        };
        assert_eq!(word, want, "{step} of {fragments:?}, {addrs:?}");
        if added == Added::Whole {
            whole = Some(order);
            assert_eq!(rig.defrag.held(), 0);
        }
    }
    whole
}

#[test]
fn what_the_kernel_does_with_both_families() {
    let cases: [(&str, Option<&[u32]>); 14] = [
        ("0-8+ held, 8-16+ held, 16-20 whole", Some(&[0, 1, 2])),
        ("16-20 held, 8-16+ held, 0-8+ whole", Some(&[2, 1, 0])),
        ("8-16+ held, 16-20 held, 0-8+ whole", Some(&[2, 0, 1])),
        // holes
        ("0-8+ held, 16-20 held", None),
        ("0-8+ held, 8-16+ held", None),
        ("8-16+ held, 16-20 held", None),
        // duplicates: exact, inside, over two that came in order
        (
            "0-8+ held, 0-8+ duplicate, 8-20 whole, 8-20 held",
            Some(&[0, 2]),
        ),
        ("0-64+ held, 8-32+ duplicate, 64-70 whole", Some(&[0, 2])),
        (
            "0-8+ held, 8-16+ held, 0-16+ duplicate, 16-20 whole",
            Some(&[0, 1, 3]),
        ),
        ("16-20 held, 16-20 duplicate, 0-16+ whole", Some(&[2, 0])),
        // overlaps: behind, before, over all, over two that came out of order; then all again
        (
            "0-16+ held, 8-24+ overlap, 24-30 held, 0-16+ held, 16-24+ whole",
            Some(&[3, 4, 2]),
        ),
        ("16-32+ held, 8-24+ overlap", None),
        ("8-16+ held, 0-32+ overlap", None),
        ("8-16+ held, 0-8+ held, 0-16+ overlap", None),
    ];
    for (fragments, whole) in cases {
        for addrs in [V4, V6] {
            assert_eq!(play(addrs, fragments).as_deref(), whole, "{fragments}");
        }
    }
}

#[test]
fn lengths_that_contradict_end_an_ipv4_datagram_and_a_fragment_of_ipv6() {
    // What comes, what must become of it in IPv4 and in IPv6, and what the rest does then.
    let cases = [
        // a last one that ends before what is held, or where another last one did not
        ("0-16+ held, 16-32+ held, 8-24", "32-40"),
        ("32-40 held, 32-36", "0-32+"),
        ("32-40 held, 32-44", "0-32+"),
        // something behind the last
        ("32-40 held, 40-48+", "0-32+"),
        // nothing
        ("0-32+ held, 32-32+", "32-40"),
        ("0-32+ held, 32-32", "32-40"),
        ("0-32+ held, 8-8+", "32-40"),
        // the "ping of death": the end lies beyond what a datagram can have
        ("0-32+ held, 65528-65600", "32-40"),
        ("0-32+ held, 65528-65592+", "32-40"),
    ];
    for (bad, rest) in cases {
        assert_eq!(play(V4, &format!("{bad} bad, {rest} held")), None);
        assert!(play(V6, &format!("{bad} bad, {rest} whole")).is_some());
    }
    for addrs in [V4, V6] {
        assert_eq!(play(addrs, "0-12+ bad, 8-16+ held, 16-20 held"), None);
        assert_eq!(
            play(addrs, "8-16+ held, 0-7+ bad, 0-8+ held, 16-20 held"),
            None
        );
        // one whole datagram of the greatest length
        assert!(play(addrs, "0-65512+ held, 65512-65515 whole").is_some());
        assert!(play(addrs, "0-65512+ held, 65512-65516 bad").is_none());
    }
}

#[test]
fn congestion_marks_must_fit_each_other() {
    for (marks, fits) in [
        ([0, 0], true),
        ([2, 3], true),
        ([1, 3], true),
        ([0, 3], false),
        ([0, 2], false),
        ([1, 0], false),
    ] {
        let mut rig = Rig::new(Limits::DEFAULT);
        let [first, second] = marks.map(|ecn| Piece {
            ecn,
            ..piece(0, 8, true)
        });
        assert_eq!(rig.add(key(V4, 1), first, 0).0, Added::Held);
        let second = Piece {
            start: 8,
            more: false,
            ..second
        };
        let want = match fits {
            true => Added::Whole,
            false => Added::Refused(DropReason::FragmentBad),
        };
        assert_eq!(rig.add(key(V4, 1), second, 1).0, want, "{marks:?}");
        assert_eq!(rig.defrag.held(), 0);
    }
}

#[test]
fn datagrams_are_told_apart() {
    let base = key(V4, 1);
    let others = [
        FragmentKey { id: 2, ..base },
        FragmentKey { proto: 6, ..base },
        FragmentKey { vlan: 5, ..base },
        FragmentKey {
            port: PortId(1),
            ..base
        },
        FragmentKey {
            addrs: V4.flip(),
            ..base
        },
        key(V6, 1),
    ];
    let mut rig = Rig::new(Limits::DEFAULT);
    assert_eq!(rig.add(base, piece(0, 8, true), 0).0, Added::Held);
    for (number, other) in others.into_iter().enumerate() {
        let added = rig.add(other, piece(8, 16, false), number as u32 + 1).0;
        assert_eq!(added, Added::Held, "{other:?}");
        assert_ne!(
            base.hash(&HashKey::from_seed(4)),
            other.hash(&HashKey::from_seed(4))
        );
    }
    assert_eq!(rig.add(base, piece(8, 16, false), 99).1, [0, 99]);
    assert_eq!(rig.add(others[3], piece(0, 8, true), 9).1, [9, 4]);
}

#[test]
fn time_ends_datagrams_from_their_first_fragment_on() {
    for (addrs, secs) in [(V4, 30), (V6, 60)] {
        let mut rig = Rig::new(Limits::DEFAULT);
        let begin = rig.now;
        rig.add(key(addrs, 1), piece(0, 8, true), 0);
        rig.now = begin.plus(Span::secs(secs - 1));
        rig.add(key(addrs, 1), piece(8, 16, true), 1);
        rig.add(key(addrs, 2), piece(0, 8, true), 2);
        rig.now = begin.plus(Span(secs * 1000 - 1));
        rig.defrag.expire(rig.now, 10);
        assert_eq!(rig.defrag.held(), 3);
        // A second datagram with the same identification, before anybody cleared the first away.
        rig.now = begin.plus(Span::secs(secs));
        assert_eq!(
            rig.add(key(addrs, 1), piece(16, 20, false), 3).0,
            Added::Held
        );
        assert_eq!(rig.drops(DropReason::FragmentTimeout), 2);
        rig.add(key(addrs, 1), piece(0, 8, true), 4);
        assert_eq!(rig.add(key(addrs, 1), piece(8, 16, true), 5).1, [4, 5, 3]);
        rig.now = begin.plus(Span::secs(2 * secs - 1));
        rig.defrag.expire(rig.now, 0);
        assert_eq!(rig.defrag.held(), 1);
        rig.defrag.expire(rig.now, 1);
        assert_eq!(rig.defrag.held(), 0);
        assert_eq!(rig.drops(DropReason::FragmentTimeout), 3);
        assert_eq!(rig.counters.reassembly_failed.get(), 2);
        assert_eq!(rig.counters.reassembled.get(), 1);
    }
}

#[test]
fn expiry_is_bounded_and_reaches_both_families() {
    let mut rig = Rig::new(Limits::DEFAULT);
    for id in 0..10 {
        let addrs = if id % 2 == 0 { V4 } else { V6 };
        rig.add(key(addrs, id), piece(0, 8, true), id);
    }
    rig.now = rig.now.plus(Span::secs(45));
    rig.defrag.expire(rig.now, 3);
    assert_eq!(rig.defrag.held(), 7);
    rig.defrag.expire(rig.now, 100);
    assert_eq!(rig.defrag.held(), 5, "IPv6 waits for longer");
    rig.now = rig.now.plus(Span::secs(15));
    rig.defrag.expire(rig.now, 100);
    assert_eq!(rig.defrag.held(), 0);
}

#[test]
fn a_datagram_has_so_many_fragments_and_no_more() {
    let mut rig = Rig::new(Limits::DEFAULT);
    let most = MAX_FRAGMENTS as u32;
    for at in 0..most - 1 {
        rig.add(key(V4, 1), piece(at * 8, at * 8 + 8, true), at);
    }
    let last = piece(8 * most - 8, 8 * most, false);
    let (added, order) = rig.add(key(V4, 1), last, most - 1);
    assert_eq!(added, Added::Whole);
    assert!(order.into_iter().eq(0..most));
    for at in 0..=most {
        let (added, _) = rig.add(key(V4, 2), piece(at * 8, at * 8 + 8, true), at);
        let want = match at == most {
            true => Added::Refused(DropReason::FragmentLimit),
            false => Added::Held,
        };
        assert_eq!(added, want);
    }
    assert_eq!(rig.defrag.held(), 0);
    assert_eq!(rig.drops(DropReason::FragmentLimit), u64::from(most) + 1);
}

#[test]
fn when_it_is_full_the_oldest_datagram_goes() {
    let limits = Limits {
        datagrams: 4,
        fragments: 6,
        bytes: 1000,
    };
    // datagrams
    let mut rig = Rig::new(limits);
    for id in 1..=5 {
        rig.now = rig.now.plus(Span(1));
        let addrs = if id % 2 == 0 { V6 } else { V4 };
        rig.add(key(addrs, id), piece(0, 8, true), id);
    }
    assert_eq!(rig.drops(DropReason::FragmentLimit), 1);
    assert_eq!(rig.add(key(V4, 1), piece(8, 16, false), 6).0, Added::Held);
    assert_eq!(rig.drops(DropReason::FragmentLimit), 2, "2 went for it");
    assert_eq!(rig.add(key(V4, 3), piece(8, 16, false), 7).1, [3, 7]);
    // fragments: the oldest, also if it is the one that grows
    let mut rig = Rig::new(limits);
    for at in 0..5 {
        rig.add(key(V4, 1), piece(at * 8, at * 8 + 8, true), at);
    }
    rig.now = rig.now.plus(Span(1));
    rig.add(key(V4, 2), piece(0, 8, true), 5);
    assert_eq!(
        rig.add(key(V4, 1), piece(40, 48, true), 6).0,
        Added::Refused(DropReason::FragmentLimit)
    );
    assert_eq!(
        (rig.defrag.held(), rig.drops(DropReason::FragmentLimit)),
        (1, 6)
    );
    assert_eq!(rig.add(key(V4, 2), piece(8, 16, false), 7).1, [5, 7]);
    // bytes
    let mut rig = Rig::new(limits);
    rig.add(key(V4, 1), piece(0, 400, true), 0);
    rig.now = rig.now.plus(Span(1));
    rig.add(key(V4, 2), piece(0, 400, true), 1);
    assert_eq!(rig.add(key(V4, 2), piece(400, 800, true), 2).0, Added::Held);
    assert_eq!(
        (rig.defrag.held(), rig.drops(DropReason::FragmentLimit)),
        (2, 1)
    );
    let (added, _) = rig.add(key(V4, 3), piece(0, 1000, true), 3);
    assert_eq!(added, Added::Refused(DropReason::FragmentLimit));
}

#[test]
fn a_flood_takes_no_more_than_the_limits_and_pushes_out_nobody_quick() {
    let mut rig = Rig::new(Limits::DEFAULT);
    let memory = rig.defrag.store.memory();
    let victim = |id| key(V6, 1_000_000_000 + id);
    let mut most = 0;
    for n in 0..1_000_000u32 {
        rig.now = rig.now.plus(Span(n % 2));
        let mut flood = key(if n % 3 == 0 { V6 } else { V4 }, n);
        flood.vlan = (n >> 16) as u16;
        let start = n % 5 * 8;
        rig.add(flood, piece(start, start + 1400, true), n);
        // Somebody's datagram in three parts, 100 fragments of the flood apart.
        if n % 100 == 0 {
            let part = n / 100 % 3;
            let last = part == 2;
            let (added, _) = rig.add(victim(n / 300), piece(part * 8, part * 8 + 8, !last), n);
            assert_eq!(added, if last { Added::Whole } else { Added::Held });
        }
        most = most.max(rig.defrag.held());
    }
    assert!((1000..=Limits::DEFAULT.fragments).contains(&most), "{most}");
    assert!(rig.defrag.store.bytes() <= Limits::DEFAULT.bytes);
    assert_eq!(rig.defrag.store.memory(), memory);
    assert_eq!(rig.counters.reassembled.get(), 3333);
    rig.defrag.clear(DropReason::Shutdown);
    assert_eq!((rig.defrag.held(), rig.defrag.store.bytes()), (0, 0));
    assert_eq!(rig.added, rig.completed + rig.counters.dropped_total());
    // Everything is usable again.
    for id in 0..Limits::DEFAULT.datagrams {
        assert_eq!(rig.add(key(V4, id), piece(0, 8, true), id).0, Added::Held);
    }
    assert_eq!(rig.defrag.held(), Limits::DEFAULT.datagrams);
}

/// A UDP datagram of `len` bytes of payload as a frame.
fn datagram(addrs: Addrs, vlan: Option<u16>, len: usize) -> Vec<u8> {
    let link = Link {
        dst: [2, 0, 0, 0, 0, 2],
        src: [2, 0, 0, 0, 0, 1],
        vlan,
    };
    let payload: Vec<u8> = (0..len).map(|i| (i * 31 + i / 256) as u8).collect();
    let segment = Segment::Udp {
        sport: 4000,
        dport: 53,
    };
    let mut out = vec![0; frame_len(&link, &addrs, &segment, &payload)];
    emit(&mut out, &link, &addrs, 64, &segment, &payload);
    out
}

fn policy() -> Compiled {
    let text = "version: 1\nports: { a: { device: net_null0 } }\n\
        chains: { forward: { policy: drop } }\n";
    policy::compile(&policy::parse("test", text).unwrap().model, 1, 1)
}

/// What `frames` make, put through the store: the joined frame, and the store afterwards.
fn reassemble(frames: &[Vec<u8>]) -> (Vec<Vec<u8>>, Defrag<Vec<u8>>) {
    let counters = Arc::<Counters>::default();
    let now = Now::from_secs(1);
    let pipeline = Pipeline::new(0, 16, HashKey::from_seed(1), now, counters.clone());
    let mut defrag = Defrag::new(Limits::DEFAULT, HashKey::from_seed(1), counters);
    let mut joined = vec![0; MAX_JOINED];
    let policy = policy();
    let mut whole = Vec::new();
    for frame in frames {
        let parsed = parse(frame, frame.len());
        let piece = Piece::of(frame, &parsed).unwrap();
        let key = FragmentKey::of(&parsed, &piece, PortId(0));
        let mut group = Group::new();
        defrag.add(
            now.ticks(),
            key,
            &piece,
            frame.len(),
            frame.clone(),
            &mut group,
        );
        if !group.is_empty() {
            let parts = group.iter().map(Vec::as_slice);
            let mut slot = Slot::default();
            let len = pipeline
                .join(&mut slot, &policy, PortId(0), &mut joined, parts)
                .unwrap();
            assert_eq!(slot.parsed.fragment, Fragment::Reassembled);
            assert_eq!(slot.parsed.frame_len as usize, len);
            whole.push(joined[..len].to_vec());
        }
    }
    (whole, defrag)
}

#[test]
fn an_overlap_cannot_rewrite_what_was_seen() {
    // RFC 3128: a first fragment with harmless flags, then one at offset 8 that replaces them.
    for addrs in [V4, V6] {
        let tcp = |flags| Segment::Tcp {
            sport: 4000,
            dport: 80,
            seq: 1,
            ack: 0,
            flags,
            window: 9,
            options: &[],
        };
        let make = |flags| crate::wire::build::frame(addrs, tcp(flags), &[0; 60]);
        let (harmless, evil) = (make(0x10), make(0x02));
        let frames = [
            part(&harmless, 1, 0..40, true),
            part(&evil, 1, 8..40, true),
            part(&evil, 1, 40..80, false),
        ];
        // It lies inside what is held: a duplicate, and the first one's bytes count.
        let (whole, _) = reassemble(&frames);
        assert_eq!(parse(&whole[0], whole[0].len()).tcp_flags(), Some(0x10));
        // It reaches beyond: nothing is left of the datagram but the rest, which waits in vain.
        let frames = [
            part(&harmless, 1, 0..40, true),
            part(&evil, 1, 8..48, true),
            part(&evil, 1, 48..80, false),
        ];
        let (whole, defrag) = reassemble(&frames);
        assert_eq!((whole.len(), defrag.held()), (0, 1));
    }
    // RFC 1858's tiny fragment: the flags are in the second one, and seen all the same.
    let syn = Segment::Tcp {
        sport: 4000,
        dport: 23,
        seq: 1,
        ack: 0,
        flags: 2,
        window: 9,
        options: &[],
    };
    let (whole, _) = reassemble(&cut(&crate::wire::build::frame(V4, syn, &[]), 1, 8));
    let parsed = parse(&whole[0], whole[0].len());
    assert_eq!((parsed.tcp_flags(), parsed.dport()), (Some(2), Some(23)));
}

#[test]
fn a_fragment_of_a_fragment_is_no_datagram() {
    // Whole, the datagram begins with another fragment header.
    let inner = part(&datagram(V6, None, 80), 5, 0..40, true);
    let frames = cut(&inner, 6, 24);
    let counters = Arc::<Counters>::default();
    let now = Now::from_secs(1);
    let pipeline = Pipeline::new(0, 16, HashKey::from_seed(1), now, counters);
    let mut joined = vec![0; MAX_JOINED];
    let parts = frames.iter().map(Vec::as_slice);
    assert_eq!(
        crate::wire::fragment::join(&mut joined, parts.clone()),
        Some(inner.len())
    );
    let mut slot = Slot::default();
    let len = pipeline.join(&mut slot, &policy(), PortId(0), &mut joined, parts);
    assert_eq!(len, None);
}

proptest! {
    /// However a datagram is cut, shuffled and repeated: what comes out is what went in.
    #[test]
    fn any_order_with_any_repetition_makes_the_same_datagram(
        v6: bool,
        vlan in prop::option::of(0u16..4095),
        len in 64usize..9000,
        cuts in prop::collection::btree_set(1usize..1100, 1..40),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..120),
        id: u32,
    ) {
        let whole = datagram(if v6 { V6 } else { V4 }, vlan, len);
        // The transport header stays in the first fragment, as IPv6 wants it.
        let total = len + 8;
        let mut bounds = vec![0];
        bounds.extend(cuts.into_iter().map(|cut| cut * 8).filter(|cut| *cut < total));
        bounds.push(total);
        prop_assume!(bounds.len() > 2);
        let parts: Vec<Vec<u8>> = bounds
            .windows(2)
            .map(|pair| part(&whole, id, pair[0]..pair[1], pair[1] < total))
            .collect();
        // Some in any order, with repetitions; then all of them.
        let mut frames: Vec<Vec<u8>> = order.iter().map(|at| at.get(&parts).clone()).collect();
        frames.extend(parts.iter().rev().cloned());
        let (made, defrag) = reassemble(&frames);
        prop_assert!(!made.is_empty());
        // Behind the one that was completed, repetitions may have begun the next.
        prop_assert!(defrag.held() < parts.len() as u32);
        for one in made {
            let at = if vlan.is_some() { 18 } else { 14 };
            let head = if v6 { at + 40 } else { at + 20 };
            prop_assert_eq!(one.len(), whole.len());
            prop_assert_eq!(&one[head..], &whole[head..]);
            prop_assert_eq!(&one[..at + 4], &whole[..at + 4]);
            if v6 {
                prop_assert_eq!(&one[..head], &whole[..head]);
            } else {
                let parsed = parse(&one, one.len());
                prop_assert_eq!(parsed.l3, crate::wire::L3::Ipv4);
                prop_assert_eq!(&one[at + 8..at + 10], &whole[at + 8..at + 10]);
                prop_assert_eq!(&one[at + 12..head], &whole[at + 12..head]);
            }
        }
    }
}
