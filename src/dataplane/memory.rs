//! Ports made of queues in memory: for tests and benches of the worker, without DPDK.

use super::io::{Batch, Frame, Io};
use crate::policy::PortId;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;

impl Frame for Vec<u8> {
    fn data(&self) -> &[u8] {
        self
    }

    fn data_mut(&mut self) -> &mut [u8] {
        self
    }

    fn frame_len(&self) -> usize {
        self.len()
    }
}

/// The outer end of one port.
#[derive(Debug, Default)]
pub struct Wire {
    /// What will arrive, for each queue.
    pub arriving: Vec<VecDeque<Vec<u8>>>,
    /// What was sent.
    pub sent: Vec<Vec<u8>>,
    /// Frames that it takes before it is full.
    pub room: usize,
}

/// Ports that several workers share, each polling the queue with its own number.
#[derive(Debug, Clone)]
pub struct MemoryIo {
    ports: Vec<Arc<Mutex<Wire>>>,
    queue: usize,
}

impl MemoryIo {
    /// `ports` ports, and one view of them for each of `workers`.
    pub fn new(ports: usize, workers: usize) -> Vec<MemoryIo> {
        let wire = || Wire {
            arriving: vec![VecDeque::new(); workers],
            sent: Vec::new(),
            room: usize::MAX,
        };
        let ports: Vec<_> = (0..ports).map(|_| Arc::new(Mutex::new(wire()))).collect();
        (0..workers)
            .map(|queue| MemoryIo {
                ports: ports.clone(),
                queue,
            })
            .collect()
    }

    /// The outer end of `port`.
    pub fn wire(&self, port: PortId) -> &Mutex<Wire> {
        &self.ports[usize::from(port.0)]
    }
}

impl Io for MemoryIo {
    type Buf = Vec<u8>;

    fn ports(&self) -> usize {
        self.ports.len()
    }

    fn rx(&mut self, port: PortId, out: &mut Batch<Vec<u8>>) {
        let mut wire = self.ports[usize::from(port.0)].lock();
        while !out.is_full() {
            match wire.arriving[self.queue].pop_front() {
                Some(frame) => out.push(frame),
                None => break,
            }
        }
    }

    fn tx(&mut self, port: PortId, frames: &mut Batch<Vec<u8>>) {
        let mut wire = self.ports[usize::from(port.0)].lock();
        let take = wire.room.min(frames.len());
        wire.room -= take;
        wire.sent.extend(frames.drain(..take));
    }

    fn alloc(&mut self, len: usize) -> Option<Vec<u8>> {
        Some(vec![0; len])
    }
}
