//! Workers over ports in memory, turned by hand: what goes where, what is counted, and that the
//! balance closes in every case.

use super::clock::Clock;
use super::command::{self, Command};
use super::handoff::{RING, Rings};
use super::idle::Idle;
use super::io::Io;
use super::memory::MemoryIo;
use super::shared::Shared;
use super::steer::{BUCKETS, Steer, Steering};
use super::walk::{self, Work};
use super::worker::{Parts, Worker};
use crate::base::hash::HashKey;
use crate::base::rcu::{Domain, Rcu};
use crate::base::time::Now;
use crate::base::toeplitz::SymmetricKey;
use crate::conntrack::record::Snapshot;
use crate::pipeline::defrag::{Defrag, Limits};
use crate::pipeline::{DropReason, Pipeline};
use crate::policy::{self, PortId};
use crate::wire::build::{Segment, frame};
use crate::wire::fragment::cut;
use crate::wire::tcp::flags;
use crate::wire::{Addrs, L4, parse};
use crossbeam::channel::{Receiver, Sender, bounded};
use std::sync::Arc;
use std::time::Duration;

mod fragments;
mod loops;
mod moves;
mod order;
mod rss;
mod trace;

const LAN: PortId = PortId(0);
const WAN: PortId = PortId(1);

/// Replies and what the inside starts pass; one port is rejected, one untracked, and one takes no
/// long datagrams in fragments; the rest is dropped.
const POLICY: &str = "
version: 1
ports: { lan: { device: net_null0 }, wan: { device: net_null1 }, spare: { device: net_null2 } }
bridge: [[lan, wan]]
conntrack: { max: 64 }
raw:
  - { name: bare, proto: udp, dport: 7001, action: notrack }
chains:
  forward:
    policy: drop
    rules:
      - { name: untracked, ct: untracked, action: accept }
      - { name: long, proto: udp, dport: 7000, fragment: true, length: 3000-9000, action: drop }
      - { name: known, ct: [established, related], action: accept }
      - { name: no-ssh, proto: tcp, dport: 22, action: reject }
      - { name: logged, proto: udp, dport: 514, log: { prefix: syslog }, action: drop }
      - { name: outbound, iif: lan, ct: new, action: accept }
";

/// How flows are divided in all of these tests.
fn steering(workers: usize) -> Arc<Steering> {
    let key = SymmetricKey::new(0x6d5a);
    Steering::new(key, HashKey::from_seed(2), workers, BUCKETS)
}

/// Some workers and the outer ends of their ports.
struct Rig<I: Io = MemoryIo> {
    workers: Vec<Worker<I>>,
    wires: MemoryIo,
    shared: Arc<Shared>,
    commands: Vec<Sender<Command>>,
    log: Receiver<super::worker::LogEvent>,
    now: u64,
}

impl Rig {
    fn new(workers: usize) -> Self {
        Self::under(workers, POLICY)
    }

    fn under(workers: usize, policy: &str) -> Self {
        Self::with(workers, policy, |ports| ports)
    }
}

impl<I: Io> Rig<I> {
    /// With ports that `make` makes of those in memory.
    fn with(workers: usize, policy: &str, make: impl Fn(MemoryIo) -> I) -> Self {
        let checked = policy::parse("test", policy).unwrap_or_else(|e| panic!("{e}"));
        let compiled = policy::compile(&checked.model, 1, workers);
        let limit = compiled.conntrack().max / workers as u32;
        let (domain, readers) = Domain::new(workers);
        let clock = Clock::start();
        let shared = Arc::new(Shared::new(
            Rcu::new(domain, compiled),
            steering(workers),
            clock,
        ));
        let (log, log_events) = bounded(8);
        let ios = MemoryIo::new(3, workers);
        let wires = ios[0].clone();
        let mut commands = Vec::new();
        let workers = ios
            .into_iter()
            .zip(Rings::mesh(workers))
            .zip(readers)
            .enumerate()
            .map(|(id, ((io, rings), reader))| {
                let (mailbox, requests) = command::mailbox();
                commands.push(mailbox);
                let counters = shared.workers[id].path.clone();
                let key = HashKey::from_seed(1);
                Worker::new(Parts {
                    id,
                    io: make(io),
                    defrag: Defrag::new(Limits::DEFAULT, key, counters.clone()),
                    pipeline: Pipeline::new(id, limit, key, Now::from_secs(1), counters),
                    rings,
                    commands: requests,
                    log: log.clone(),
                    reader,
                    shared: shared.clone(),
                    // Only threads idle: there are more of them than cores.
                    idle: Idle::Yield,
                })
            })
            .collect();
        Self {
            workers,
            wires,
            shared,
            commands,
            log: log_events,
            now: 1_000_000_000,
        }
    }

    fn arrive(&self, port: PortId, queue: usize, frame: Vec<u8>) {
        self.wires.wire(port).lock().arriving[queue].push_back(frame);
    }

    /// Turns every worker until nothing moves.
    fn settle(&mut self) {
        loop {
            let now = Now::from_nanos(self.now);
            let moved: usize = self.workers.iter_mut().map(|worker| worker.turn(now)).sum();
            if moved == 0 {
                break;
            }
        }
    }

    fn sent(&self, port: PortId) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.wires.wire(port).lock().sent)
    }

    fn sum(&self, of: impl Fn(&super::shared::WorkerCounters) -> u64) -> u64 {
        self.shared.workers.iter().map(of).sum()
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.sum(|worker| worker.path.drops[reason as usize].get())
    }

    fn balance(&self) -> (u64, u64) {
        let out = self.sum(|w| w.path.forwarded.get() + w.path.punted.get())
            + self.sum(|w| w.path.dropped_total() + w.path.held.get());
        (self.sum(|worker| worker.path.received.get()), out)
    }
}

impl<I: Io> Drop for Rig<I> {
    fn drop(&mut self) {
        let mut left = 0;
        for worker in self.workers.drain(..) {
            drop(worker.finish());
            left += 1;
        }
        let (received, accounted) = self.balance();
        assert!(
            std::thread::panicking() || received == accounted,
            "{left} workers stopped"
        );
    }
}

fn addrs(client: u32) -> Addrs {
    Addrs::V4 {
        src: 0x0a00_0000 + client,
        dst: 0x0a01_0001,
    }
}

fn tcp(client: u32, dport: u16, bits: u8, seq: u32, ack: u32) -> Vec<u8> {
    let sport = 40_000;
    let window = 60_000;
    let segment = Segment::Tcp {
        sport,
        dport,
        seq,
        ack,
        flags: bits,
        window,
        options: &[],
    };
    frame(addrs(client), segment, b"")
}

fn tcp_back(client: u32, sport: u16, bits: u8, seq: u32, ack: u32) -> Vec<u8> {
    let (dport, window) = (40_000, 60_000);
    let segment = Segment::Tcp {
        sport,
        dport,
        seq,
        ack,
        flags: bits,
        window,
        options: &[],
    };
    frame(addrs(client).flip(), segment, b"")
}

#[test]
fn a_handshake_passes_and_the_outside_cannot_start_one() {
    for workers in [1, 2] {
        let mut rig = Rig::new(workers);
        rig.arrive(LAN, 0, tcp(1, 80, flags::SYN, 100, 0));
        rig.settle();
        rig.arrive(
            WAN,
            workers - 1,
            tcp_back(1, 80, flags::SYN | flags::ACK, 500, 101),
        );
        rig.settle();
        rig.arrive(LAN, 0, tcp(1, 80, flags::ACK, 101, 501));
        rig.arrive(WAN, 0, tcp_back(2, 80, flags::SYN, 1, 0));
        rig.settle();
        assert_eq!(rig.sent(WAN).len(), 2);
        assert_eq!(rig.sent(LAN).len(), 1);
        assert_eq!(rig.drops(DropReason::Policy), 1);
        assert_eq!(rig.sum(|w| w.path.ct.insert.get()), 1);
        assert_eq!(rig.sum(|w| w.path.ct.entries[0].get()), 1);
        assert_eq!(rig.balance(), (4, 4));
    }
}

#[test]
fn both_directions_come_to_one_worker_in_order() {
    let mut rig = Rig::new(2);
    for client in 1..=20 {
        rig.arrive(
            LAN,
            client as usize % 2,
            tcp(client, 80, flags::SYN, 100, 0),
        );
    }
    rig.settle();
    let mut sent = rig.sent(WAN);
    assert_eq!(sent.len(), 20);
    // Replies arrive on the other queue; a numbered train behind each.
    for client in 1..=20u32 {
        let queue = (client as usize + 1) % 2;
        rig.arrive(
            WAN,
            queue,
            tcp_back(client, 80, flags::SYN | flags::ACK, 500, 101),
        );
        for number in 0..10 {
            let seq = 501 + number;
            rig.arrive(WAN, queue, tcp_back(client, 80, flags::ACK, seq, 101));
        }
    }
    rig.settle();
    sent = rig.sent(LAN);
    assert_eq!(sent.len(), 20 * 11);
    let mut last = std::collections::BTreeMap::new();
    for frame in &sent {
        let parsed = parse(frame, frame.len());
        let L4::Tcp(header) = parsed.l4 else { panic!() };
        let before = last.insert(parsed.addrs.dst(), header.seq);
        assert!(before.is_none_or(|before| before < header.seq), "reordered");
    }
    let (out, taken) = (
        rig.sum(|w| w.handed_out.get()),
        rig.sum(|w| w.handed_in.get()),
    );
    assert_eq!(out, taken);
    assert!(out > 0, "some packets arrived at the wrong worker");
    let filled = (
        rig.sum(|w| w.ring_waiting.get()),
        rig.sum(|w| w.ring_highest.get()),
    );
    assert!(filled.0 == 0 && filled.1 > 0, "{filled:?}");
    let inserts: Vec<u64> = rig
        .shared
        .workers
        .iter()
        .map(|w| w.path.ct.insert.get())
        .collect();
    assert_eq!(inserts.iter().sum::<u64>(), 20);
    assert!(
        inserts.iter().all(|count| *count > 0),
        "both own flows: {inserts:?}"
    );
    assert_eq!(rig.sum(|w| w.path.ct.invalid.get()), 0);
}

#[test]
fn every_drop_has_its_reason() {
    let mut rig = Rig::new(1);
    let udp = Segment::Udp { sport: 9, dport: 9 };
    let good = frame(addrs(1), udp, b"");
    let mut checksum = good.clone();
    checksum[24] ^= 1;
    let mut header = good.clone();
    header[14] = 0x35;
    let mut unknown = vec![0; 60];
    unknown[12..14].copy_from_slice(&0x88cc_u16.to_be_bytes());
    let long = frame(addrs(1), udp, &[0; 64]);
    let mut empty = cut(&long, 7, 32)[0].clone();
    empty[16..18].copy_from_slice(&20_u16.to_be_bytes());
    empty[24..26].fill(0);
    let sum = crate::wire::checksum::checksum(&empty[14..34]);
    empty[24..26].copy_from_slice(&sum.to_be_bytes());
    let cases = [
        (WAN, good.clone(), DropReason::Policy),
        (WAN, good[..13].to_vec(), DropReason::ShortFrame),
        (WAN, checksum, DropReason::IpChecksum),
        (WAN, header, DropReason::IpHeader),
        (WAN, unknown, DropReason::EtherType),
        (WAN, empty, DropReason::FragmentBad),
        (PortId(2), good, DropReason::NoPeer),
    ];
    for (port, bytes, reason) in cases {
        let before = rig.drops(reason);
        rig.arrive(port, 0, bytes);
        rig.settle();
        assert_eq!(rig.drops(reason), before + 1, "{reason:?}");
    }
    assert_eq!(rig.balance(), (7, 7));
}

#[test]
fn reject_answers_and_is_not_part_of_the_balance() {
    let mut rig = Rig::new(1);
    rig.arrive(LAN, 0, tcp(1, 22, flags::SYN, 100, 0));
    rig.settle();
    let answers = rig.sent(LAN);
    assert_eq!(answers.len(), 1);
    let L4::Tcp(header) = parse(&answers[0], answers[0].len()).l4 else {
        panic!()
    };
    assert_eq!((header.flags, header.ack), (flags::RST | flags::ACK, 101));
    assert_eq!(rig.drops(DropReason::Rejected), 1);
    assert_eq!(rig.sum(|w| w.path.generated.get()), 1);
    assert_eq!(
        rig.sum(|w| w.path.ct.insert.get()),
        0,
        "what is rejected leaves nothing"
    );
    assert!(rig.sent(WAN).is_empty());
}

#[test]
fn a_full_table_drops_new_flows_only() {
    let mut rig = Rig::new(1);
    let (syn_ack, ack) = (flags::SYN | flags::ACK, flags::ACK);
    for client in 0..64 {
        rig.arrive(LAN, 0, tcp(client, 80, flags::SYN, 100, 0));
        rig.settle();
        rig.arrive(WAN, 0, tcp_back(client, 80, syn_ack, 500, 101));
        rig.settle();
        rig.arrive(LAN, 0, tcp(client, 80, ack, 101, 501));
        rig.settle();
    }
    rig.sent(WAN);
    rig.sent(LAN);
    // Every flow is ASSURED: none goes for a new one.
    for client in 64..70 {
        rig.arrive(LAN, 0, tcp(client, 80, flags::SYN, 100, 0));
    }
    rig.settle();
    assert_eq!(rig.drops(DropReason::TableFull), 6);
    assert_eq!(rig.sum(|w| w.path.ct.drop.get()), 6);
    assert_eq!(rig.sum(|w| w.path.ct.early_drop.get()), 0);
    rig.arrive(WAN, 0, tcp_back(3, 80, ack, 501, 101));
    rig.settle();
    assert_eq!(rig.sent(LAN).len(), 1, "known flows go on");
    // One closes, and is gone after 10 s: there is room again.
    rig.arrive(WAN, 0, tcp_back(3, 80, flags::RST | ack, 501, 101));
    rig.settle();
    rig.now += 11_000_000_000;
    for _ in 0..4 {
        rig.settle();
    }
    rig.arrive(LAN, 0, tcp(99, 80, flags::SYN, 100, 0));
    rig.settle();
    assert_eq!(rig.drops(DropReason::TableFull), 6);
    assert_eq!(rig.balance().0, rig.balance().1);
}

#[test]
fn a_port_that_takes_nothing_costs_frames_with_a_name() {
    let mut rig = Rig::new(1);
    rig.wires.wire(WAN).lock().room = 10;
    let udp = Segment::Udp { sport: 9, dport: 9 };
    for _ in 0..100 {
        rig.arrive(LAN, 0, frame(addrs(1), udp, b"x"));
    }
    rig.settle();
    assert_eq!(rig.sent(WAN).len(), 10);
    assert_eq!(rig.sum(|w| w.path.forwarded.get()), 10);
    // A burst still waits; the rest had no room.
    assert_eq!(rig.drops(DropReason::TxFull), 100 - 10 - 32);
    rig.wires.wire(WAN).lock().room = usize::MAX;
    rig.settle();
    assert_eq!(rig.sum(|w| w.path.forwarded.get()), 42);
}

#[test]
fn a_full_ring_is_a_counted_drop() {
    let mut rig = Rig::new(2);
    // Packets of one flow, all on the queue of the worker that does not own it.
    rig.arrive(LAN, 0, tcp(1, 80, flags::SYN, 100, 0));
    rig.settle();
    let owner = rig
        .shared
        .workers
        .iter()
        .position(|w| w.path.ct.insert.get() == 1)
        .unwrap();
    let other = 1 - owner;
    for _ in 0..RING + 50 {
        rig.arrive(LAN, other, tcp(1, 80, flags::SYN, 100, 0));
    }
    let now = Now::from_nanos(rig.now);
    while rig.workers[other].turn(now) > 0 {}
    assert_eq!(rig.drops(DropReason::HandoffFull), 50);
    rig.settle();
    assert_eq!(rig.sent(WAN).len(), 1 + RING);
}

#[test]
fn log_events_are_bounded_and_losses_counted() {
    let mut rig = Rig::new(1);
    let syslog = Segment::Udp {
        sport: 9,
        dport: 514,
    };
    for _ in 0..20 {
        rig.arrive(WAN, 0, frame(addrs(1), syslog, b"x"));
    }
    rig.settle();
    let events: Vec<_> = rig.log.try_iter().collect();
    assert_eq!(events.len(), 8);
    assert!(
        events
            .iter()
            .all(|event| event.disposition.verdict() == "drop" && event.iif == WAN)
    );
    assert_eq!(rig.sum(|w| w.log_lost.get()), 12);
}

#[test]
fn listing_and_flushing_walk_over_all_flows() {
    let mut rig = Rig::new(1);
    for client in 0..40 {
        rig.arrive(LAN, 0, tcp(client, 80, flags::SYN, 100, 0));
    }
    rig.settle();
    let mut ask = |work: Work| {
        let (walk, pieces) = walk::walk(work);
        rig.commands[0].send(Command::Walk(walk)).unwrap();
        // IPv4, and IPv6
        for _ in 0..2 {
            rig.settle();
        }
        let piece = pieces.next(Duration::ZERO).unwrap();
        assert!(piece.last);
        let flows: Vec<_> = piece.rows.iter().map(Snapshot::record).collect();
        (flows, piece.count)
    };
    let (flows, count) = ask(Work::List);
    assert_eq!((flows.len(), count), (40, 40));
    assert!(
        flows
            .iter()
            .all(|flow| flow.timeout == 120 && !flow.seen_reply)
    );
    assert_eq!(ask(Work::Flush).1, 40);
    assert_eq!(ask(Work::List).1, 0);
}
