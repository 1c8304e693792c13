//! A port that tells hashes, rightly or wrongly: owners are the same, and what comes to another is
//! counted by its cause.

use super::super::io::{Batch, Frame, Io};
use super::super::rss::Kinds;
use super::super::shared::Cause;
use super::*;
use crate::base::toeplitz::Toeplitz;
use crate::conntrack::tuple::{AnyKey, Tuple};

/// A frame with what the NIC told of it.
#[derive(Debug)]
struct Told(Vec<u8>, Option<u32>);

impl Frame for Told {
    fn data(&self) -> &[u8] {
        &self.0
    }

    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    fn frame_len(&self) -> usize {
        self.0.len()
    }

    fn rss(&self) -> Option<u32> {
        self.1
    }
}

/// Ports in memory that tell hashes, made by a key that need not be the one that they were given.
struct Nic {
    ports: MemoryIo,
    toeplitz: Toeplitz,
}

fn key_of(frame: &[u8]) -> Option<AnyKey> {
    let tuple = Tuple::of(&parse(frame, frame.len()), 0)?;
    Some(tuple.key()?.0)
}

impl Io for Nic {
    type Buf = Told;

    fn ports(&self) -> usize {
        self.ports.ports()
    }

    fn hashes(&self, _: PortId) -> Kinds {
        Kinds::ALL
    }

    fn rx(&mut self, port: PortId, out: &mut Batch<Told>) {
        let mut frames = Batch::new();
        self.ports.rx(port, &mut frames);
        let told = |frame: Vec<u8>| {
            let hash = key_of(&frame).map(|key| self.toeplitz.hash(key.folded()));
            Told(frame, hash)
        };
        out.extend(frames.into_iter().map(told));
    }

    fn tx(&mut self, port: PortId, frames: &mut Batch<Told>) {
        let mut plain = frames.drain(..).map(|frame| frame.0).collect();
        self.ports.tx(port, &mut plain);
    }

    fn alloc(&mut self, len: usize) -> Option<Told> {
        Some(Told(vec![0; len], None))
    }
}

fn rig(workers: usize, hashes_by: u16) -> Rig<Nic> {
    let toeplitz = Toeplitz::new(SymmetricKey::new(hashes_by));
    Rig::with(workers, POLICY, |ports| Nic {
        ports,
        toeplitz: toeplitz.clone(),
    })
}

fn udp(client: u32) -> Vec<u8> {
    let sport = (client * 7919) as u16;
    frame(addrs(client), Segment::Udp { sport, dport: 9 }, b"x")
}

/// Where the NIC's table brings a frame.
fn queue(rig: &Rig<Nic>, frame: &[u8]) -> usize {
    let steering = &rig.shared.steering;
    let bucket = key_of(frame).map_or(0, |key| steering.bucket_of(key.folded()));
    steering.place(bucket).owner()
}

fn causes(rig: &Rig<Nic>) -> Vec<u64> {
    let causes = Cause::ALL.iter();
    causes
        .map(|cause| rig.sum(|w| w.handed[*cause as usize].get()))
        .collect()
}

#[test]
fn a_nic_that_hashes_by_the_key_brings_packets_to_their_owners() {
    let mut rig = rig(2, 0x6d5a);
    for client in 0..400 {
        let frame = udp(client);
        let queue = queue(&rig, &frame);
        rig.arrive(LAN, queue, frame);
        if client % 50 == 0 {
            rig.settle();
        }
    }
    rig.settle();
    assert_eq!(rig.sent(WAN).len(), 400);
    assert_eq!(causes(&rig), [0; Cause::COUNT]);
    let used = rig.sum(|w| w.ports[0].hash_used.get());
    // What is proven, and the first of each burst.
    assert!((150..272).contains(&used), "{used}");
    assert_eq!(rig.sum(|w| w.ports[0].hash_wrong.get()), 0);
    let buckets = rig.sum(|w| w.buckets.iter().map(|count| count.get()).sum());
    assert_eq!(buckets, 400);
}

#[test]
fn a_nic_that_hashes_otherwise_is_found_out_and_does_no_harm() {
    let mut rig = rig(2, 0x1234);
    for client in 0..30 {
        let there = udp(client);
        rig.arrive(LAN, client as usize % 2, there);
    }
    rig.settle();
    assert_eq!(rig.sent(WAN).len(), 30);
    for client in 0..30 {
        let sport = (client * 7919) as u16;
        let segment = Segment::Udp {
            sport: 9,
            dport: sport,
        };
        rig.arrive(WAN, 0, frame(addrs(client).flip(), segment, b"x"));
    }
    rig.settle();
    assert_eq!(rig.sent(LAN).len(), 30, "each finds its flow");
    assert_eq!(
        rig.sum(|w| w.ports[0].hash_wrong.get()),
        2,
        "by each worker"
    );
    assert_eq!(rig.sum(|w| w.ports[0].hash_used.get()), 0);
    let [no_rss, other, ..] = causes(&rig)[..] else {
        panic!()
    };
    // One by each worker may have agreed by chance.
    assert!(no_rss > 10 && other < 2, "{no_rss} {other}");
}

#[test]
fn errors_find_the_flow_that_they_are_about() {
    let mut rig = rig(4, 0x6d5a);
    for client in 0..40 {
        let there = udp(client);
        let at = queue(&rig, &there);
        rig.arrive(LAN, at, there.clone());
        rig.settle();
        // From a router on the way: its own addresses and the quoted packet.
        let from = Addrs::V4 {
            src: 0x0a05_0001,
            dst: 0x0a00_0000 + client,
        };
        let segment = Segment::Icmp {
            ty: 3,
            code: 1,
            rest: 0,
        };
        let error = frame(from, segment, &there[14..]);
        rig.arrive(WAN, client as usize % 4, error);
        rig.settle();
        assert_eq!(rig.sent(LAN).len(), 1, "client {client}");
    }
    let causes = causes(&rig);
    let errors = causes[Cause::IcmpError as usize];
    assert!((20..40).contains(&errors), "{errors}");
    assert_eq!(causes.iter().sum::<u64>(), errors);
    assert_eq!(rig.sum(|w| w.path.ct.icmp_error.get()), 0);
}
