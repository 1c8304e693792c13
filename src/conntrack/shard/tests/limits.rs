//! What happens when there are as many flows as there may be.

use super::*;
use crate::conntrack::record::Detail;

/// A UDP flow that is a stream, and so ASSURED; takes three seconds.
fn streams(bench: &mut Bench, flows: impl Iterator<Item = (Addrs, u16)> + Clone) {
    for (addrs, port) in flows.clone() {
        bench.packet(&udp(addrs, port, 53));
    }
    bench.wait(3);
    for (addrs, port) in flows {
        bench.packet(&udp(addrs.flip(), 53, port));
        bench.packet(&udp(addrs, port, 53));
    }
}

fn family(port: u16) -> Addrs {
    if port.is_multiple_of(2) { V4 } else { V6 }
}

#[test]
fn the_limit_holds_over_both_families() {
    let mut bench = Bench::new();
    streams(&mut bench, (0..100).map(|port| (family(port), port)));
    for addrs in [V4, V6] {
        assert_eq!(bench.judge(&udp(addrs, 1000, 53)).flow, Flow::Pending);
        assert_eq!(bench.shard.commit(bench.now), Err(InsertError::Full));
    }
    assert_eq!((bench.shard.len(), bench.counters.drop.get()), (100, 2));
    assert_eq!(bench.counters.early_drop.get(), 0);
    bench.wait(121);
    bench.packet(&udp(V4, 1000, 53));
    assert_eq!(bench.shard.len(), 1);
}

#[test]
fn a_new_flow_takes_the_place_of_one_that_nobody_answered() {
    let mut bench = Bench::new();
    streams(&mut bench, (0..60).map(|port| (V4, port)));
    // Twenty that were answered, twenty that were not.
    for port in 100..140 {
        bench.packet(&udp(V4, port, 53));
        if port < 120 {
            bench.packet(&udp(V4.flip(), 53, port));
        }
    }
    let left = |bench: &Bench, ports: std::ops::Range<u16>| {
        let is_there = |port: &u16| {
            let bytes = udp(V4, *port, 53);
            let parsed = parse(&bytes, bytes.len());
            let prepared = bench.shard.prepare(&bytes, &parsed, 0);
            bench.shard.peek(&prepared, bench.now).is_some()
        };
        ports.filter(is_there).count()
    };
    assert_eq!(bench.shard.len(), 100);
    // Of 8 buckets each: with 100 flows the index has 20, so some new ones find no victim.
    let mut entered = 0;
    for port in 1000..1200 {
        bench.judge(&udp(V4, port, 53));
        entered += u64::from(bench.shard.commit(bench.now).is_ok());
        assert_eq!(
            left(&bench, 0..60),
            60,
            "no ASSURED flow goes for a new one"
        );
        assert_eq!(bench.shard.len(), 100);
    }
    assert!(entered > 150, "{entered}");
    assert_eq!(bench.counters.early_drop.get(), entered);
    assert_eq!(bench.counters.drop.get(), 200 - entered);
    assert!(
        left(&bench, 120..140) < left(&bench, 100..120),
        "answered ones go last"
    );
}

#[test]
fn an_ipv6_flow_makes_room_for_an_ipv4_one() {
    let mut bench = Bench::new();
    for port in 0..100 {
        bench.packet(&udp(V6, port, 53));
    }
    let entered = (0..10).filter(|port| {
        bench.judge(&udp(V4, *port, 53));
        bench.shard.commit(bench.now).is_ok()
    });
    assert!(entered.count() > 0);
    assert_eq!(bench.shard.len(), 100);
}

#[test]
fn pressure_frees_what_closes_but_never_what_is_established() {
    let mut bench = Bench::new();
    streams(&mut bench, (0..80).map(|port| (V4, port)));
    // Twenty TCP flows, ASSURED and in TIME_WAIT or the like: too good for a new flow to replace.
    for port in 0..20 {
        let side = |from_client, bits, seq, ack| tcp_frame(port, from_client, bits, seq, ack, b"");
        bench.packet(&side(true, SYN, 100, 0));
        bench.packet(&side(false, SYN | ACK, 500, 101));
        bench.packet(&side(true, ACK, 101, 501));
        bench.packet(&side(true, FIN | ACK, 101, 501));
    }
    assert_eq!(bench.shard.len(), 100);
    bench.judge(&udp(V4, 1000, 53));
    assert_eq!(bench.shard.commit(bench.now), Err(InsertError::Full));
    // The refusal raised the pressure; each loop sweeps a bounded piece.
    let before = bench.counters.early_drop.get();
    bench.shard.expire(bench.now, 10);
    assert!(bench.counters.early_drop.get() - before <= 10);
    for _ in 0..20 {
        bench.shard.expire(bench.now, 10);
    }
    let left = bench.shard.len();
    assert!((80..95).contains(&left), "down to 95 %: {left}");
    let freed = bench.counters.early_drop.get();
    for _ in 0..20 {
        bench.shard.expire(bench.now, 10);
    }
    assert_eq!(bench.counters.early_drop.get(), freed, "and no further");
    bench.packet(&udp(V4, 1000, 53));
}

#[test]
fn a_table_of_what_stays_is_swept_once_a_call() {
    let mut bench = Bench::new();
    streams(&mut bench, (0..100).map(|port| (V4, port)));
    bench.judge(&udp(V4, 1000, 53));
    assert_eq!(bench.shard.commit(bench.now), Err(InsertError::Full));
    // The pressure stays, and four thousand million steps would be noticed.
    bench.shard.expire(bench.now, usize::MAX);
    assert_eq!(bench.shard.len(), 100);
}

/// A shard of a box with others.
fn sharing(budget: &Arc<Budget>) -> Bench {
    let (counters, now) = (Arc::<CtCounters>::default(), Ticks(5));
    let key = HashKey::from_seed(1);
    let expecter = Shard::expecters(budget, 1, 1, &[]).unwrap().remove(0);
    Bench {
        shard: Shard::sharing(0, budget.clone(), expecter, key, now, counters.clone()),
        config: Config::default(),
        now,
        counters,
    }
}

/// What lies unused in the purse of a shard that has nothing to do is for those who need it, as soon
/// as one of them was refused.
#[test]
fn an_idle_shard_keeps_no_room_under_pressure() {
    let budget = Arc::new(Budget::new(1000, 2));
    let (mut idle, mut busy) = (sharing(&budget), sharing(&budget));
    idle.packet(&udp(V4, 1, 53));
    idle.wait(31);
    assert!(idle.shard.is_empty());
    let there = (0..1000).find(|port| refuses(&mut busy, *port));
    let there = there.unwrap_or(1000);
    assert!((960..1000).contains(&there), "{there}");
    idle.shard.expire(idle.now, 64);
    for port in there..1000 {
        assert!(!refuses(&mut busy, port), "{port}");
    }
    assert!(refuses(&mut busy, 1000));
}

/// Begins an ASSURED flow, unless there is no room for it.
fn refuses(bench: &mut Bench, port: u16) -> bool {
    let side = |from_client, bits, seq, ack| tcp_frame(port, from_client, bits, seq, ack, b"");
    bench.judge(&side(true, SYN, 100, 0));
    if bench.shard.commit(bench.now).is_err() {
        return true;
    }
    bench.packet(&side(false, SYN | ACK, 500, 101));
    bench.packet(&side(true, ACK, 101, 501));
    false
}

/// A shard whose IPv4 table is full can enter no IPv4 flow, whatever IPv6 flow goes for it.
#[test]
fn no_flow_goes_in_vain() {
    let budget = Arc::new(Budget::new(400, 8));
    let mut bench = sharing(&budget);
    for port in 0..100 {
        bench.packet(&udp(V6, port, 53));
        assert!(!refuses(&mut bench, port));
    }
    for port in 100..200 {
        assert!(refuses(&mut bench, port));
    }
    assert_eq!(bench.shard.len(), 200);
    assert_eq!(bench.counters.early_drop.get(), 0);
}

/// A box for 100,000 flows with 50,000 ASSURED ones that talk, and ten million SYNs of a flood: not
/// one packet of an ASSURED flow is lost, and memory stays.
#[test]
fn a_syn_flood_takes_nothing_from_those_who_talk() {
    const LIMIT: u32 = 100_000;
    const TALKERS: u32 = LIMIT / 2;
    const FLOOD: u32 = 10_000_000;
    let counters = Arc::<CtCounters>::default();
    let mut now = Ticks(5);
    let config = Config::default();
    let mut shard = Shard::new(0, LIMIT, HashKey::from_seed(9), now, counters.clone());
    let bytes = shard.bytes();
    let tcp = |src: u32, sport: u16, bits, seq, ack, from_client: bool| {
        let addrs = Addrs::V4 {
            src,
            dst: 0x0a02_0001,
        };
        let (sport, dport) = if from_client {
            (sport, 80)
        } else {
            (80, sport)
        };
        let segment = Segment::Tcp {
            sport,
            dport,
            seq,
            ack,
            flags: bits,
            window: 64_000,
            options: &[],
        };
        let addrs = if from_client { addrs } else { addrs.flip() };
        frame(addrs, segment, b"")
    };
    let send = |shard: &mut Shard, now, bytes: &[u8]| {
        let parsed = parse(bytes, bytes.len());
        let mut prepared = shard.prepare(bytes, &parsed, 0);
        shard.prefetch(&mut prepared);
        let said = shard.track(bytes, &parsed, &prepared, false, now, &config);
        match said.flow {
            Flow::Pending => (said.state, shard.commit(now).is_ok()),
            _ => (said.state, true),
        }
    };
    let talker = |number: u32| (0x0a00_0000 + number, 1024 + (number % 40_000) as u16);
    for number in 0..TALKERS {
        let (src, port) = talker(number);
        for (bits, seq, ack, from_client) in [
            (SYN, 100, 0, true),
            (SYN | ACK, 500, 101, false),
            (ACK, 101, 501, true),
        ] {
            let bytes = tcp(src, port, bits, seq, ack, from_client);
            assert!(send(&mut shard, now, &bytes).1);
        }
    }
    let mut refused = 0;
    for flood in 0..FLOOD {
        let (src, port) = (0xc000_0000 + flood / 60_000, (flood % 60_000) as u16);
        let (_, entered) = send(&mut shard, now, &tcp(src, port, SYN, flood, 0, true));
        refused += u32::from(!entered);
        // Between them, those who talk; everybody has a turn every 50,000 SYNs.
        let (src, port) = talker(flood % TALKERS);
        let from_client = (flood / TALKERS).is_multiple_of(2);
        let (seq, ack) = if from_client { (101, 501) } else { (501, 101) };
        let said = send(&mut shard, now, &tcp(src, port, ACK, seq, ack, from_client));
        assert_eq!(said, (CtState::Established, true), "SYN {flood}");
        if flood.is_multiple_of(1000) {
            now = now.plus(Span(1)); // a million SYNs a second
            shard.expire(now, 64);
        }
        assert!(shard.len() <= LIMIT);
    }
    assert_eq!(shard.bytes(), bytes, "memory stays as it was");
    assert!(counters.early_drop.get() > u64::from(FLOOD - LIMIT) * 9 / 10);
    assert!(refused < FLOOD / 1000, "{refused} SYNs found no room");
}

#[test]
fn a_flow_with_its_index_takes_141_bytes_or_205() {
    use crate::conntrack::table::Table;
    for capacity in [1_000, 100_000, 1_000_003] {
        let secret = HashKey::from_seed(1);
        let v4 = Table::<KeyV4>::new(capacity, secret, Ticks(0))
            .unwrap()
            .bytes();
        let v6 = Table::<KeyV6>::new(capacity, secret, Ticks(0))
            .unwrap()
            .bytes();
        let per_flow = |bytes: usize| bytes.div_ceil(capacity as usize);
        assert!(per_flow(v4) <= 141, "IPv4: {}", per_flow(v4));
        assert!(per_flow(v6) <= 205, "IPv6: {}", per_flow(v6));
    }
}

/// Five flows are one bucket of the index, so that each new one chooses among all of them.
#[test]
fn among_equals_the_one_nearest_to_its_end_goes() {
    let ping = |addrs: Addrs, id: u16, request: bool| {
        let (ty, addrs) = match (addrs, request) {
            (Addrs::V4 { .. }, true) => (8, addrs),
            (Addrs::V4 { .. }, false) => (0, addrs.flip()),
            (Addrs::V6 { .. }, true) => (128, addrs),
            (Addrs::V6 { .. }, false) => (129, addrs.flip()),
        };
        let rest = u32::from(id) << 16;
        frame(addrs, Segment::Icmp { ty, code: 0, rest }, b"ping")
    };
    let ids = |bench: &Bench| -> Vec<u16> {
        let (v4, next) = bench.shard.scan(Cursor::default(), 100);
        let (v6, _) = bench.shard.scan(next.unwrap(), 100);
        let record = |flow: &FlowRef| bench.shard.record(*flow, bench.now).original.detail;
        let id = |flow: &FlowRef| match record(flow) {
            Detail::Icmp { id, .. } => id,
            other => panic!("{other:?}"),
        };
        v4.iter().chain(&v6).map(id).collect()
    };
    for (addrs, answered) in [(V4, false), (V4, true), (V6, false), (V6, true)] {
        for order in [
            [0, 1, 2, 3, 4],
            [4, 3, 2, 1, 0],
            [2, 0, 4, 1, 3],
            [3, 4, 0, 2, 1],
        ] {
            let mut bench = Bench::new();
            bench.shard = Shard::new(0, 5, HashKey::from_seed(1), bench.now, Arc::default());
            bench.wait(17); // their ends lie on both sides of where the clock wraps
            let packets = |bench: &mut Bench, id| {
                bench.packet(&ping(addrs, id, true));
                if answered {
                    bench.packet(&ping(addrs, id, false));
                }
            };
            for id in 0..5 {
                packets(&mut bench, id);
            }
            // The last packet of each decides, not who came first.
            for id in order {
                bench.wait(1);
                packets(&mut bench, id);
            }
            let mut gone = Vec::new();
            for new in 0..5 {
                bench.wait(1);
                let before = ids(&bench);
                packets(&mut bench, 100 + new);
                let after = ids(&bench);
                assert_eq!(after.len(), 5);
                gone.extend(before.into_iter().filter(|id| !after.contains(id)));
            }
            assert_eq!(gone, order, "{addrs:?}, answered: {answered}");
        }
    }
}
