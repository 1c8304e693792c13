//! Traces of workers: what is told, what is left out, and that nothing else changes.

use super::*;
use crate::dataplane::trace::{Counts, QUEUE, SESSIONS, Session, Wanted};
use crate::pipeline::trace::{Filter, Traced};

fn udp(client: u32) -> Vec<u8> {
    frame(addrs(client), Segment::Udp { sport: 9, dport: 9 }, b"")
}

impl Rig {
    /// Has every worker serve a session, which asks for what `words` mean.
    fn tap(&mut self, words: &str, sample: u32, rate: u32) -> Arc<Session> {
        let model = policy::parse("test", POLICY).unwrap().model;
        let compiled = policy::compile(&model, 1, 1);
        let words: Vec<_> = words.split_whitespace().map(str::to_owned).collect();
        let wanted = Wanted {
            filter: Filter::read(&words, &model, &compiled).unwrap(),
            sample,
            rate,
            snaplen: 64,
        };
        let session = Session::new(self.workers.len(), wanted);
        for mailbox in &self.commands {
            mailbox.send(Command::Trace(session.clone())).unwrap();
        }
        self.settle();
        self.settle();
        session
    }
}

fn taken(session: &Session) -> Vec<Traced> {
    let mut taken = Vec::new();
    session.take(&mut taken);
    taken
}

#[test]
fn workers_tell_what_is_meant_and_let_go_at_the_end() {
    for workers in [1, 2] {
        let mut rig = Rig::new(workers);
        let session = rig.tap("iif=wan dropped", 1, 1000);
        assert!(session.has_begun());
        assert_eq!(Arc::strong_count(&session), 1 + workers);
        for client in 1..=10 {
            rig.arrive(LAN, 0, udp(client));
            rig.arrive(WAN, 0, tcp_back(client + 100, 80, flags::SYN, 1, 0));
        }
        rig.settle();
        let seen = taken(&session);
        assert_eq!(seen.len(), 10);
        for it in &seen {
            assert_eq!(
                (it.port, it.outcome.disposition.reason()),
                (WAN, Some(DropReason::Policy))
            );
            assert_eq!(it.data().len(), 54);
            assert!(it.seen.tracked.is_some() && it.seen.after.is_none());
        }
        let counts = Counts {
            meant: 10,
            ..Counts::default()
        };
        assert_eq!(session.counts(), counts);
        assert_eq!(rig.sent(WAN).len(), 10);
        session.end();
        rig.settle();
        assert_eq!(Arc::strong_count(&session), 1);
        rig.arrive(WAN, 0, tcp_back(300, 80, flags::SYN, 1, 0));
        rig.settle();
        assert!(taken(&session).is_empty());
    }
}

#[test]
fn what_is_left_out_is_counted() {
    let mut rig = Rig::new(1);
    let session = rig.tap("", 4, 1000);
    for client in 1..=40 {
        rig.arrive(LAN, 0, udp(client));
    }
    rig.settle();
    assert_eq!(taken(&session).len(), 10);
    assert_eq!(session.counts().not_sampled, 30);

    let slow = rig.tap("", 1, 7);
    for second in 2..=3u64 {
        rig.now = second * 1_000_000_000;
        for client in 1..=10 {
            rig.arrive(LAN, 0, udp(client));
        }
        rig.settle();
    }
    assert_eq!(taken(&slow).len(), 14);
    assert_eq!(slow.counts().over_rate, 6);

    let full = rig.tap("", 1, u32::MAX);
    for _ in 0..QUEUE + 5 {
        rig.arrive(LAN, 0, udp(1));
    }
    rig.settle();
    let counts = Counts {
        meant: QUEUE as u64 + 5,
        queue_full: 5,
        ..Counts::default()
    };
    assert_eq!(full.counts(), counts);
    assert_eq!(taken(&full).len(), QUEUE);
    assert_eq!(rig.drops(DropReason::TxFull), 0);
}

#[test]
fn a_worker_serves_so_many_sessions_and_no_more() {
    let mut rig = Rig::new(1);
    let all: Vec<_> = (0..=SESSIONS).map(|_| rig.tap("", 1, 10)).collect();
    rig.arrive(LAN, 0, udp(1));
    rig.settle();
    for (at, session) in all.iter().enumerate() {
        let served = at < SESSIONS;
        assert_eq!(session.has_begun(), served);
        assert_eq!(session.missing(), (!served).then_some(0));
        assert_eq!(taken(session).len(), usize::from(served));
    }
}

/// The same packets with and without somebody who asks: the same frames leave, the same is counted.
#[test]
fn to_be_asked_changes_nothing() {
    let run = |tapped: bool| {
        let mut rig = Rig::new(2);
        let session = tapped.then(|| rig.tap("", 1, 1_000_000));
        for client in 1..=60u32 {
            let queue = client as usize % 2;
            rig.arrive(LAN, queue, tcp(client, 80, flags::SYN, 100, 0));
            rig.arrive(LAN, queue, tcp(client, 22, flags::SYN, 100, 0));
            rig.arrive(LAN, queue, udp(client));
            rig.arrive(
                WAN,
                queue,
                tcp_back(client, 80, flags::SYN | flags::ACK, 500, 101),
            );
            let long = frame(
                addrs(client),
                Segment::Udp { sport: 9, dport: 5 },
                &[7; 3000],
            );
            for part in cut(&long, 1, 1400) {
                rig.arrive(LAN, queue, part);
            }
            rig.settle();
        }
        let mut counts: Vec<u64> = DropReason::ALL.iter().map(|why| rig.drops(*why)).collect();
        counts.push(rig.sum(|w| w.path.ct.insert.get()));
        counts.push(rig.sum(|w| w.path.forwarded.get()));
        let told = session.map(|session| taken(&session));
        (rig.sent(WAN), rig.sent(LAN), counts, told)
    };
    let (plain, tapped) = (run(false), run(true));
    assert_eq!((plain.0, plain.1, plain.2), (tapped.0, tapped.1, tapped.2));
    let told = tapped.3.unwrap();
    let whole = told.iter().filter(|it| it.frames > 1).count();
    let held = told
        .iter()
        .filter(|it| it.outcome.disposition == crate::pipeline::Disposition::Hold);
    assert_eq!(whole, 60, "datagrams, each once");
    assert_eq!(held.count(), 60 * 3, "and their fragments");
}

#[test]
fn what_is_lost_is_told_and_shown() {
    let mut rig = Rig::new(1);
    let session = rig.tap("dropped", 1, 1000);
    rig.wires.wire(WAN).lock().room = 0;
    for client in 1..=200 {
        rig.arrive(LAN, 0, udp(client));
    }
    rig.settle();
    let lost = rig.drops(DropReason::TxFull);
    let reasons: Vec<_> = taken(&session)
        .iter()
        .filter(|it| it.leaving)
        .map(|it| (it.port, it.outcome.disposition.reason(), it.parsed.dport()))
        .collect();
    let told = (WAN, Some(DropReason::TxFull), Some(9));
    assert!(!reasons.is_empty() && reasons.iter().all(|it| *it == told));
    assert!(reasons.len() as u64 <= lost, "{lost}");
    let example = rig.shared.workers[0].examples.take(DropReason::TxFull);
    let example = example.unwrap();
    assert!(example.leaving && example.port == WAN);
    assert_eq!(example.packet.dport(), Some(9));
    // A fragment of which nothing but its key is left.
    let long = frame(addrs(1), Segment::Udp { sport: 9, dport: 9 }, &[0; 3000]);
    rig.arrive(LAN, 0, cut(&long, 7, 1400)[0].clone());
    rig.settle();
    rig.now += 31_000_000_000;
    rig.settle();
    let seen = taken(&session);
    let timeout = seen.last().unwrap();
    assert_eq!(
        timeout.outcome.disposition.reason(),
        Some(DropReason::FragmentTimeout)
    );
    assert_eq!(timeout.parsed.addrs, addrs(1));
    let example = rig.shared.workers[0]
        .examples
        .take(DropReason::FragmentTimeout);
    assert_eq!(example.unwrap().packet.addrs, addrs(1));
}

#[test]
fn a_drop_is_shown_with_its_rule_once_a_second() {
    let mut rig = Rig::new(1);
    let example = |rig: &Rig| rig.shared.workers[0].examples.take(DropReason::Policy);
    rig.now = 5_000_000_000;
    for client in 1..=3 {
        rig.arrive(WAN, 0, tcp_back(client, 80, flags::SYN, 1, 0));
    }
    rig.settle();
    let first = example(&rig).unwrap();
    assert_eq!(first.packet.addrs, addrs(1).flip());
    assert_eq!((first.generation, first.port), (1, WAN));
    let name = rig
        .shared
        .policy
        .with(|policy| first.by.name(policy).map(str::to_owned));
    assert_eq!(name.as_deref(), Some("forward/policy"));
    rig.now += 999_000_000;
    rig.arrive(WAN, 0, tcp_back(4, 80, flags::SYN, 1, 0));
    rig.settle();
    assert!(example(&rig).is_none());
    rig.now += 1_000_000;
    rig.arrive(WAN, 0, tcp_back(5, 80, flags::RST, 1, 0));
    rig.settle();
    let last = example(&rig).unwrap();
    assert_eq!(last.why.map(|why| why.name()), Some("tcp-not-first"));
}
