//! The table of expectations as its users see it: what fulfils one, what clashes, which one has to
//! go, and how they end.

use super::*;
use crate::conntrack::helper::{Class, Expect, Refusal};
use crate::conntrack::types::proto;
use crate::wire::inner::Ports;
use proptest::prelude::*;
use std::net::IpAddr;

static INFO: Info = Info {
    name: "test",
    protos: &[proto::TCP],
    ipv6: true,
    classes: &[
        Class {
            name: "one",
            max: 1,
            timeout: Span::secs(300),
        },
        Class {
            name: "four",
            max: 4,
            timeout: Span::secs(180),
        },
    ],
};
static INFOS: [&Info; 1] = [&INFO];

const NOW: Ticks = Ticks(u32::MAX - 1000);

fn ends(workers: usize, max: u32) -> Vec<Expecter> {
    Expectations::new(workers, max, 16, &INFOS, HashKey::from_seed(1)).unwrap()
}

fn end() -> Expecter {
    ends(1, 100).remove(0)
}

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What a packet with `tuple` fulfils, which starts a flow.
fn claim(end: &Expecter, tuple: &Tuple, now: Ticks) -> Option<Expectation> {
    let (key, from_lo) = tuple.key().unwrap();
    end.claim(&key, from_lo, now)
}

/// A tuple of TCP, of either family.
fn tuple(src: &str, sport: u16, dst: &str, dport: u16) -> Tuple {
    let addrs = match (addr(src), addr(dst)) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => Addrs::V4 {
            src: src.to_bits(),
            dst: dst.to_bits(),
        },
        (IpAddr::V6(src), IpAddr::V6(dst)) => Addrs::V6 {
            src: src.to_bits(),
            dst: dst.to_bits(),
        },
        _ => panic!("two families"),
    };
    Tuple {
        addrs,
        proto: proto::TCP,
        ports: Ports::Ports { sport, dport },
        zone: 0,
    }
}

fn master(client_port: u16) -> Master {
    Master {
        tuple: tuple("10.0.0.1", client_port, "10.0.0.2", 21),
        helper: HelperId::new(0).unwrap(),
        permissions: Permissions::default(),
        mark: 5,
    }
}

/// The server opens a flow to the client.
fn active(dport: u16) -> Expect {
    let (server, client) = (addr("10.0.0.2"), addr("10.0.0.1"));
    Expect::once(proto::TCP, Some(server), client, dport)
}

fn of_class(class: u8, dport: u16) -> Expect {
    Expect {
        class,
        ..active(dport)
    }
}

type Ended = Vec<(u16, End)>;

fn expect(
    end: &mut Expecter,
    client_port: u16,
    wanted: &Expect,
    now: Ticks,
) -> Result<Ended, Refusal> {
    let list = u32::from(client_port % 16);
    let mut ended = Vec::new();
    end.expect((&master(client_port), list), wanted, now, |it, how| {
        ended.push((it.dport, how));
    })?;
    Ok(ended)
}

#[test]
fn a_flow_that_fits_uses_an_expectation_up() {
    let mut end = end();
    assert!(end.nothing_is_expected());
    expect(&mut end, 1, &active(4000), NOW).unwrap();
    assert_eq!((end.shared().len(), end.shared().is_empty()), (1, false));
    let misses = [
        ("another port", tuple("10.0.0.2", 20, "10.0.0.1", 4001)),
        ("another server", tuple("10.0.0.3", 20, "10.0.0.1", 4000)),
        ("another client", tuple("10.0.0.2", 20, "10.0.0.9", 4000)),
        ("the other way", tuple("10.0.0.1", 4000, "10.0.0.2", 20)),
        (
            "another protocol",
            Tuple {
                proto: proto::UDP,
                ..tuple("10.0.0.2", 20, "10.0.0.1", 4000)
            },
        ),
        (
            "another zone",
            Tuple {
                zone: 1,
                ..tuple("10.0.0.2", 20, "10.0.0.1", 4000)
            },
        ),
        (
            "no ports",
            Tuple {
                ports: Ports::None,
                ..tuple("10.0.0.2", 20, "10.0.0.1", 4000)
            },
        ),
    ];
    for (why, tuple) in misses {
        assert_eq!(claim(&end, &tuple, NOW), None, "{why}");
    }
    let data = tuple("10.0.0.2", 20, "10.0.0.1", 4000);
    let found = claim(&end, &data, NOW).unwrap();
    assert_eq!(
        (found.mark, found.master, found.class, found.inherit),
        (5, master(1).tuple, 0, false)
    );
    assert_eq!(claim(&end, &data, NOW), None, "once");
    assert!(end.nothing_is_expected());
}

#[test]
fn what_may_be_anything_is_anything() {
    let mut end = end();
    let wanted = Expect {
        src: None,
        src_port: Some(7),
        permanent: true,
        inherit: true,
        ..active(4000)
    };
    expect(&mut end, 1, &wanted, NOW).unwrap();
    for src in ["1.2.3.4", "255.255.255.255"] {
        let found = claim(&end, &tuple(src, 7, "10.0.0.1", 4000), NOW).unwrap();
        assert!(found.permanent && found.inherit && found.any_src);
        assert_eq!(claim(&end, &tuple(src, 8, "10.0.0.1", 4000), NOW), None);
    }
    assert_eq!(end.shared().len(), 1, "it lasts");
}

#[test]
fn both_families_are_told_apart() {
    let mut end = end();
    let of = |src: &str, dst: &str| Expect::once(proto::TCP, Some(addr(src)), addr(dst), 9);
    expect(&mut end, 1, &of("fd00::2", "fd00::1"), NOW).unwrap();
    let v4_mapped = tuple("0.0.0.2", 1, "0.0.0.1", 9);
    assert_eq!(claim(&end, &v4_mapped, NOW), None);
    let mixed = Expect::once(proto::TCP, Some(addr("10.0.0.2")), addr("fd00::1"), 9);
    assert_eq!(expect(&mut end, 2, &mixed, NOW), Err(Refusal::WrongFamily));
    assert!(claim(&end, &tuple("fd00::2", 1, "fd00::1", 9), NOW).is_some());
    expect(&mut end, 3, &of("::2", "::1"), NOW).unwrap();
    assert_eq!(
        claim(&end, &v4_mapped, NOW),
        None,
        "an IPv6 address of few bits is no IPv4 address"
    );
}

#[test]
fn time_ends_them() {
    let mut end = end();
    expect(&mut end, 1, &active(4000), NOW).unwrap();
    let wanted = Expect {
        timeout: Some(Span::secs(7)),
        ..active(5000)
    };
    expect(&mut end, 2, &wanted, NOW).unwrap();
    let data = |dport| tuple("10.0.0.2", 20, "10.0.0.1", dport);
    let after = |secs| NOW.plus(Span::secs(secs));
    assert_eq!(claim(&end, &data(5000), after(7)), None, "not swept yet");
    let mut ended = Vec::new();
    end.sweep(after(6), 100, |it, how| ended.push((it.dport, how)));
    assert_eq!(ended, []);
    end.sweep(after(7), 100, |it, how| ended.push((it.dport, how)));
    assert_eq!(ended, [(5000, End::Expired)]);
    assert_eq!(end.shared().len(), 1);
    assert!(claim(&end, &data(4000), after(299)).is_some());
}

#[test]
fn the_oldest_of_a_class_makes_room() {
    let mut end = end();
    assert_eq!(expect(&mut end, 1, &of_class(0, 1000), NOW), Ok(vec![]));
    for dport in 2000..2004 {
        assert_eq!(expect(&mut end, 1, &of_class(1, dport), NOW), Ok(vec![]));
    }
    let gone = |dport| Ok(vec![(dport, End::Withdrawn)]);
    assert_eq!(expect(&mut end, 1, &of_class(1, 2004), NOW), gone(2000));
    assert_eq!(expect(&mut end, 1, &of_class(0, 1001), NOW), gone(1000));
    assert_eq!(
        expect(&mut end, 2, &of_class(0, 1002), NOW),
        Ok(vec![]),
        "another master has room of its own"
    );
    // One that was used up makes room by itself, and one whose time is over is no longer the
    // oldest.
    assert!(claim(&end, &tuple("10.0.0.2", 1, "10.0.0.1", 2003), NOW).is_some());
    assert_eq!(expect(&mut end, 1, &of_class(1, 2005), NOW), Ok(vec![]));
    let later = NOW.plus(Span::secs(200));
    let expired = |dport| (dport, End::Expired);
    assert_eq!(
        expect(&mut end, 1, &of_class(1, 2006), later),
        Ok(vec![
            expired(2005),
            expired(2004),
            expired(2002),
            expired(2001)
        ])
    );
}

#[test]
fn the_same_replaces_itself_and_another_flows_clashes() {
    let mut end = end();
    expect(&mut end, 1, &active(4000), NOW).unwrap();
    let later = NOW.plus(Span::secs(299));
    assert_eq!(
        expect(&mut end, 1, &active(4000), later),
        Ok(vec![(4000, End::Withdrawn)])
    );
    let data = tuple("10.0.0.2", 20, "10.0.0.1", 4000);
    assert_eq!(
        expect(&mut end, 2, &active(4000), later),
        Err(Refusal::Clash)
    );
    let anybody = Expect {
        src: None,
        ..active(4000)
    };
    assert_eq!(expect(&mut end, 2, &anybody, later), Err(Refusal::Clash));
    let shared = Expect {
        shared: true,
        ..active(4000)
    };
    assert_eq!(
        expect(&mut end, 2, &shared, later),
        Ok(vec![]),
        "good enough"
    );
    assert_eq!(end.shared().len(), 1);
    assert_eq!(
        expect(&mut end, 1, &of_class(1, 4000), later),
        Err(Refusal::Clash),
        "its own, of another class"
    );
    let other_server = Expect {
        src: Some(addr("10.0.0.3")),
        ..active(4000)
    };
    assert_eq!(
        expect(&mut end, 2, &other_server, later),
        Ok(vec![]),
        "no packet could be both"
    );
    assert_eq!(claim(&end, &data, later).unwrap().master, master(1).tuple);
    assert_eq!(
        expect(&mut end, 3, &active(4000), later),
        Ok(vec![]),
        "it is free again"
    );
    let expired = later.plus(Span::secs(300));
    assert_eq!(
        expect(&mut end, 4, &active(4000), expired),
        Ok(vec![]),
        "one whose time is over stands against nothing"
    );
}

#[test]
fn a_master_takes_its_expectations_along() {
    let mut end = end();
    for dport in 2000..2004 {
        expect(&mut end, 1, &of_class(1, dport), NOW).unwrap();
    }
    expect(&mut end, 2, &active(9), NOW).unwrap();
    assert!(claim(&end, &tuple("10.0.0.2", 1, "10.0.0.1", 2001), NOW).is_some());
    let mut ended = Vec::new();
    end.close(1, |it, how| ended.push((it.dport, how)));
    let gone = |dport| (dport, End::Withdrawn);
    assert_eq!(ended, [gone(2003), gone(2002), gone(2000)]);
    assert_eq!(end.shared().len(), 1, "only its own");
}

#[test]
fn some_can_be_forgotten_confirmed_and_marked() {
    let mut end = end();
    let inactive = Expect {
        inactive: true,
        permanent: true,
        ..of_class(0, 5060)
    };
    expect(&mut end, 1, &inactive, NOW).unwrap();
    for dport in [4000, 4001] {
        expect(&mut end, 1, &of_class(1, dport), NOW).unwrap();
    }
    let call = tuple("10.0.0.2", 5060, "10.0.0.1", 5060);
    assert_eq!(claim(&end, &call, NOW), None, "it does not count yet");
    let which = |dport| (0, proto::TCP, addr("10.0.0.1"), dport);
    let day = Span::secs(86_400);
    assert!(!end.confirm(1, which(5061), NOW, day));
    assert!(!end.confirm(2, which(5060), NOW, day), "another's");
    assert!(end.confirm(1, which(5060), NOW, day));
    end.mark(1, 77);
    let almost = NOW.plus(Span::secs(86_399));
    assert_eq!(claim(&end, &call, almost).unwrap().mark, 77);
    let mut ended = Vec::new();
    end.forget_newest(1, 1, |it, _| ended.push(it.dport));
    assert_eq!(ended, [4001]);
    end.forget(1, 1 << 1, |it, _| ended.push(it.dport));
    assert_eq!(ended, [4001, 4000]);
    assert_eq!(end.shared().len(), 1);
}

#[test]
fn the_table_is_full_at_its_end_and_memory_is_used_again() {
    let mut end = ends(1, 3).remove(0);
    for round in 0..50u16 {
        end.begin();
        for master in 0..3 {
            expect(&mut end, master, &active(round * 10 + master), NOW).unwrap();
        }
        let full = expect(&mut end, 5, &active(9), NOW);
        assert_eq!(full, Err(Refusal::TableFull), "round {round}");
        for master in 0..3 {
            let data = tuple("10.0.0.2", 20, "10.0.0.1", round * 10 + master);
            assert!(claim(&end, &data, NOW).is_some());
        }
        end.sweep(NOW, 100, |_, _| panic!("nothing expires"));
    }
    assert!(end.nothing_is_expected());
}

/// One worker expects, another's flow arrives.
#[test]
fn any_worker_may_have_the_flow() {
    let mut ends = ends(2, 100);
    let mut other = ends.remove(1);
    let mut own = ends.remove(0);
    for round in 0..200 {
        own.begin();
        other.begin();
        expect(&mut own, 1, &active(4000), NOW).unwrap();
        let (listed, _) = own.scan(0, 1000, NOW);
        assert_eq!(listed.count(), 1);
        let (listed, _) = other.scan(0, 1000, NOW);
        assert_eq!(listed.count(), 0, "each lists its own");
        let data = tuple("10.0.0.2", 20, "10.0.0.1", 4000);
        let found = claim(&other, &data, NOW).unwrap();
        assert_eq!((found.shard, found.master), (0, master(1).tuple));
        assert_eq!(claim(&own, &data, NOW), None);
        own.sweep(NOW, 1000, |_, _| panic!("round {round}"));
    }
    let (mut listed, _) = own.scan(0, 1000, NOW);
    assert!(listed.next().is_none());
}

#[test]
fn one_that_was_listed_can_be_removed() {
    let mut end = end();
    expect(&mut end, 1, &active(4000), NOW).unwrap();
    expect(&mut end, 2, &active(4001), NOW).unwrap();
    let ids: Vec<_> = end.scan(0, 1000, NOW).0.map(|(id, _)| id).collect();
    assert!(claim(&end, &tuple("10.0.0.2", 1, "10.0.0.1", 4000), NOW).is_some());
    let mut ended = Vec::new();
    let removed: Vec<_> = ids
        .iter()
        .map(|id| end.remove(*id, |it, how| ended.push((it.dport, how))))
        .collect();
    assert_eq!(removed, [false, true]);
    assert_eq!(ended, [(4001, End::Withdrawn)]);
}

proptest! {
    #[test]
    fn words_are_the_expectation(
        v6: bool,
        addrs in any::<[u128; 4]>(),
        any_src: bool,
        ports in any::<[u16; 4]>(),
        sport: bool,
        bits in any::<[bool; 4]>(),
        numbers in any::<(u8, u16, u32, u32, u16)>(),
        class in 0u8..8,
        helper in 0usize..16,
    ) {
        let pair = |src: u128, dst: u128| match v6 {
            true => Addrs::V6 { src, dst },
            false => Addrs::V4 { src: src as u32, dst: dst as u32 },
        };
        let (proto, zone, mark, deadline, shard) = numbers;
        let expectation = Expectation {
            addrs: pair(addrs[0], addrs[1]),
            any_src,
            sport: sport.then_some(ports[0]),
            dport: ports[1],
            proto,
            zone,
            helper: HelperId::new(helper).unwrap(),
            class,
            permanent: bits[0],
            inactive: false,
            inherit: bits[1],
            permissions: Permissions { loose: bits[2], low_ports: bits[3] },
            mark,
            deadline: Ticks(deadline),
            master: Tuple {
                addrs: pair(addrs[2], addrs[3]),
                proto: proto::TCP,
                ports: Ports::Ports { sport: ports[2], dport: ports[3] },
                zone,
            },
            shard,
        };
        prop_assert_eq!(words::decode(words::write(&expectation)), Some(expectation));
    }
}
