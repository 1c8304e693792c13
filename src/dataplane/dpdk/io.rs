//! One worker's view of all ports.
//!
//! # Life-cycle
//! [`Ports::open`](super::Ports::open) makes one a worker. It keeps the ports open: the last one
//! to go, of these and of the handle, closes them.
//!
//! # Concurrency
//! It moves to its worker and stays there. The receive queues that it lists are in no other list,
//! and its transmit queue is its own on every port: that is what DPDK's queues, which have no
//! lock, ask for. Each call is one call into DPDK (reception: one a queue), never one a frame.

use super::Shared;
use super::info::PortInfo;
use super::mempool::Mbuf;
use crate::dataplane::io::{Batch, Io};
use crate::dataplane::rss::Kinds;
use crate::policy::PortId;
use dpdk_sys::rte_mbuf;
use std::sync::Arc;

/// One port, as one worker sees it.
#[derive(Debug)]
struct Queues {
    port: u16,
    hashes: Kinds,
    rx: Box<[u16]>,
    /// Where in `rx` the next poll starts.
    first: usize,
}

/// A worker's queues on every port.
#[derive(Debug)]
pub struct DpdkIo {
    worker: u16,
    queues: Box<[Queues]>,
    /// Which pool fresh frames come from.
    pool: usize,
    shared: Arc<Shared>,
}

impl DpdkIo {
    pub(super) fn new(worker: u16, workers: u16, ports: &[PortInfo], shared: &Arc<Shared>) -> Self {
        let queues = ports
            .iter()
            .zip(&shared.ports)
            .map(|(info, port)| Queues {
                port: port.id(),
                hashes: info.rss.kinds,
                rx: (0..info.rx_queues)
                    .filter(|q| q % workers == worker)
                    .collect(),
                first: 0,
            })
            .collect();
        let pool = usize::from(worker) % shared.pools.len().max(1);
        Self {
            worker,
            queues,
            pool,
            shared: Arc::clone(shared),
        }
    }

    /// Which worker this is for; also its transmit queue on every port.
    #[must_use]
    pub fn worker(&self) -> u16 {
        self.worker
    }

    /// The receive queues of a port that this worker polls.
    #[must_use]
    pub fn rx_queues(&self, port: PortId) -> &[u16] {
        self.queues.get(usize::from(port.0)).map_or(&[], |q| &q.rx)
    }
}

/// The buffers' pointers, as DPDK's calls take them: `Mbuf` is nothing else.
#[inline]
fn pointers(batch: &mut Batch<Mbuf>) -> *mut *mut rte_mbuf {
    batch.as_mut_ptr().cast()
}

impl Io for DpdkIo {
    type Buf = Mbuf;

    fn ports(&self) -> usize {
        self.queues.len()
    }

    fn hashes(&self, port: PortId) -> Kinds {
        let queues = self.queues.get(usize::from(port.0));
        queues.map(|queues| queues.hashes).unwrap_or_default()
    }

    #[inline]
    fn rx(&mut self, port: PortId, out: &mut Batch<Mbuf>) {
        let Some(queues) = self.queues.get_mut(usize::from(port.0)) else {
            return;
        };
        let count = queues.rx.len();
        for turn in 0..count {
            let room = out.remaining_capacity();
            if room == 0 {
                break;
            }
            let at = queues.first + turn;
            let queue = queues.rx[if at >= count { at - count } else { at }];
            // SAFETY: within the array: its length is at most its capacity.
            let free = unsafe { pointers(out).add(out.len()) };
            // SAFETY: the port is started (`shared` keeps it), the queue is this worker's alone,
            // and `free` has room for `room` pointers.
            let got = unsafe { dpdk_sys::sw_rx_burst(queues.port, queue, free, room as u16) };
            let len = out.len() + usize::from(got).min(room);
            // SAFETY: DPDK wrote `got` pointers to buffers that are now ours.
            unsafe { out.set_len(len) };
        }
        if count > 1 {
            queues.first = if queues.first + 1 == count {
                0
            } else {
                queues.first + 1
            };
        }
    }

    #[inline]
    fn tx(&mut self, port: PortId, frames: &mut Batch<Mbuf>) {
        let Some(queues) = self.queues.get(usize::from(port.0)) else {
            return;
        };
        let len = frames.len();
        if len == 0 {
            return;
        }
        let raw = pointers(frames);
        // SAFETY: zero is within the capacity; what is not sent is put back below.
        unsafe { frames.set_len(0) };
        // SAFETY: the port is started (`shared` keeps it), the queue is this worker's alone, and
        // `len` buffers that it owns lie at `raw`; DPDK takes the first of them over.
        let sent = unsafe { dpdk_sys::sw_tx_burst(queues.port, self.worker, raw, len as u16) };
        let sent = usize::from(sent).min(len);
        if sent < len {
            // SAFETY: at most `len` steps into the array.
            let left = unsafe { raw.add(sent) };
            // SAFETY: both ends lie in the array; the buffers move, and are not copied, because
            // the length is what says which of them are owned.
            unsafe { std::ptr::copy(left, raw, len - sent) };
            // SAFETY: that many are at the front now.
            unsafe { frames.set_len(len - sent) };
        }
    }

    #[inline]
    fn discard(&mut self, frames: &mut Batch<Mbuf>) {
        let len = frames.len();
        let raw = pointers(frames);
        // SAFETY: zero is within the capacity.
        unsafe { frames.set_len(0) };
        // SAFETY: `len` buffers at `raw` were owned by the batch, and no longer are.
        unsafe { dpdk_sys::sw_pktmbuf_free_bulk(raw, len as u32) };
    }

    #[inline]
    fn alloc(&mut self, len: usize) -> Option<Mbuf> {
        self.shared.pools.get(self.pool)?.alloc(len)
    }
}
