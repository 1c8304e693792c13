//! The ports on DPDK: safe wrappers around `dpdk-sys`.
//!
//! | file | holds |
//! |---|---|
//! | [`eal`] | DPDK's own start and end, threads that it knows |
//! | [`hugepages`] | hugepages or none |
//! | [`mempool`] | buffers: where they come from and go back to |
//! | [`info`] | what is asked of a port, and what it turned out to be |
//! | `probe` | getting a device, and why it could not be had |
//! | `port` | one port: planning, setting up, closing |
//! | [`rss`] | how a port spreads packets over its queues |
//! | [`io`] | one worker's view of all ports, the [`Io`](crate::dataplane::io::Io) of the packet path |
//! | [`error`] | what goes wrong and what to do about it |
//!
//! # Life-cycle
//! [`Eal::init`] once, then [`Ports::open`], which gives a handle for the control thread and one
//! [`DpdkIo`] a worker. Every worker registers its thread ([`Eal::register_thread`]) after it is
//! pinned. The ports stop and close when the handle and every [`DpdkIo`] are gone, whichever goes
//! last: a worker never polls a closed port. Then the pools go, then DPDK itself. A buffer that
//! somebody still holds keeps its pool's memory mapped for the rest of the process.
//!
//! # Concurrency
//! A queue belongs to exactly one [`DpdkIo`], which cannot be cloned. The handle reads statistics
//! and link states behind a lock that the packet path never takes.
#![allow(unsafe_code)]

pub mod eal;
pub mod error;
pub mod hugepages;
pub mod info;
pub mod io;
pub mod mempool;
mod port;
mod probe;
pub mod rss;

pub use eal::{Eal, EalOptions, EalThread};
pub use error::DpdkError;
pub use hugepages::Hugepages;
pub use info::{KernelEnd, Link, PortInfo, PortSpec, PortStats};
pub use io::DpdkIo;
pub use mempool::{Mbuf, Mempool};
pub use probe::pci_devices;
pub use rss::Rss;

use crate::base::hash::HashKey;
use crate::base::toeplitz::SymmetricKey;
use crate::dataplane::io::BURST;
use crate::dataplane::steer::{BUCKETS, Steering};
use crate::pipeline::defrag::Limits;
use crate::policy::{MAX_PORTS, PortId};
use parking_lot::Mutex;
use port::{Plan, Port};
use std::sync::Arc;

/// What the handle and the workers share; the order of the fields is the order of their end.
#[derive(Debug)]
struct Shared {
    ports: Vec<Port>,
    pools: Vec<Mempool>,
    control: Mutex<()>,
}

/// All ports, for the control thread.
#[derive(Debug)]
pub struct Ports {
    info: Vec<PortInfo>,
    steering: Arc<Steering>,
    shared: Arc<Shared>,
}

impl Ports {
    /// Probes, configures and starts every port, in the order of `specs`, which is that of
    /// [`PortId`]. Receive queue `q` of a port goes to worker `q % workers`; every worker has a
    /// transmit queue of its own on every port. `mbufs` is the size of the pool of each NUMA node
    /// with a port; it is raised to what the queues hold at the least.
    ///
    /// # Errors
    /// The first port that cannot be had, by name, with what to do; nothing stays open then.
    pub fn open(
        eal: &Eal,
        specs: &[PortSpec],
        workers: u16,
        mbufs: u32,
    ) -> Result<(Self, Vec<DpdkIo>), DpdkError> {
        if workers == 0 {
            return Err(DpdkError::NoWorkers);
        }
        let most = MAX_PORTS.min(dpdk_sys::RTE_MAX_ETHPORTS as usize);
        if specs.len() > most {
            return Err(DpdkError::TooManyPorts {
                wanted: specs.len(),
                most,
            });
        }
        let mut shared = Shared {
            ports: Vec::new(),
            pools: Vec::new(),
            control: Mutex::new(()),
        };
        for spec in specs {
            shared.ports.push(probe::probe(eal, spec)?);
        }
        let plans = specs
            .iter()
            .zip(&shared.ports)
            .map(|(spec, port)| port.plan(spec, workers))
            .collect::<Result<Vec<_>, _>>()?;
        // Buckets that share an entry of the smallest table have one owner.
        let entries = plans.iter().filter_map(Plan::table).min();
        let entries = entries.map_or(BUCKETS, usize::from);
        let key = SymmetricKey::random();
        let steering = Steering::new(key, HashKey::random(), workers.into(), entries);
        let pool_of = make_pools(eal, &plans, workers, mbufs, &mut shared.pools)?;

        let mut info = Vec::with_capacity(specs.len());
        for (i, spec) in specs.iter().enumerate() {
            let pool = &shared.pools[pool_of[i]];
            info.push(shared.ports[i].start(spec, &plans[i], pool, &steering)?);
        }
        let shared = Arc::new(shared);
        let io = (0..workers)
            .map(|w| DpdkIo::new(w, workers, &info, &shared))
            .collect();
        let ports = Self {
            info,
            steering,
            shared,
        };
        Ok((ports, io))
    }

    /// Whose flows are whose: what the ports spread packets by.
    #[must_use]
    pub fn steering(&self) -> &Arc<Steering> {
        &self.steering
    }

    /// Has every port whose table can bring the packets of each bucket to the worker that `owners` says.
    pub fn spread(&self, owners: &[u8; BUCKETS]) {
        let _one_at_a_time = self.shared.control.lock();
        for (info, port) in self.info.iter().zip(&self.shared.ports) {
            if !info.rss.can_follow() {
                continue;
            }
            let workers = self.steering.workers();
            let table = rss::table(owners, workers, info.rx_queues, info.rss.table);
            if let Err(why) = port.point(&table) {
                let port = &info.name;
                tracing::warn!(
                    port,
                    "its table {why}: packets of buckets that move are handed over"
                );
            }
        }
    }

    /// What the driver of a port counts, by its names.
    #[must_use]
    pub fn xstats(&self, port: PortId) -> Vec<(String, u64)> {
        let _one_at_a_time = self.shared.control.lock();
        let port = self.shared.ports.get(usize::from(port.0));
        port.map(Port::xstats).unwrap_or_default()
    }

    /// Buffers that these ports can hold at the most: a size for the pool that always does.
    #[must_use]
    pub fn most_mbufs(specs: &[PortSpec], workers: u16) -> u32 {
        let queued = |s: &PortSpec| {
            let (rx, tx) = (s.rx_queues.unwrap_or(workers).max(1), workers);
            2 * u32::from(rx.max(tx)) * u32::from(s.descriptors)
        };
        specs
            .iter()
            .map(queued)
            .fold(held(workers), u32::saturating_add)
    }

    /// What each port turned out to be, by [`PortId`].
    #[must_use]
    pub fn info(&self) -> &[PortInfo] {
        &self.info
    }

    /// The pools, one a NUMA node with a port.
    #[must_use]
    pub fn pools(&self) -> &[Mempool] {
        &self.shared.pools
    }

    /// The device's counters; `None` for a port that does not exist or will not say.
    #[must_use]
    pub fn stats(&self, port: PortId) -> Option<PortStats> {
        let _one_at_a_time = self.shared.control.lock();
        self.shared.ports.get(usize::from(port.0))?.stats()
    }

    /// The link as it is now, without waiting; `None` as with [`Ports::stats`], and for a tap whose
    /// interface went to another namespace: its driver would call that down. One whose interface is gone
    /// is down, whatever its driver says.
    #[must_use]
    pub fn link(&self, port: PortId) -> Option<Link> {
        let at = usize::from(port.0);
        let kernel = self.info.get(at)?.kernel.as_ref();
        if kernel.is_some_and(|end| !end.is_here()) {
            let down = Link {
                up: false,
                mbps: None,
                full_duplex: false,
            };
            return self.gone(port).is_some().then_some(down);
        }
        let _one_at_a_time = self.shared.control.lock();
        self.shared.ports.get(at)?.link()
    }

    /// The interface of the kernel's that a port stood on, if that was removed. A packet socket loses
    /// it to another namespace too.
    #[must_use]
    pub fn gone(&self, port: PortId) -> Option<&str> {
        let info = self.info.get(usize::from(port.0))?;
        let end = info.kernel.as_ref()?;
        (!end.is_here() && !end.is_held()).then_some(&*end.name)
    }
}

/// Buffers that workers have in their hands and caches, and hold for reassembly.
fn held(workers: u16) -> u32 {
    let fragments = Limits::DEFAULT.fragments;
    u32::from(workers) * (mempool::CACHE + mempool::CACHE / 2 + 4 * BURST as u32 + fragments)
}

/// One pool for each NUMA node; says which one each port has.
fn make_pools(
    eal: &Eal,
    plans: &[Plan],
    workers: u16,
    mbufs: u32,
    pools: &mut Vec<Mempool>,
) -> Result<Vec<usize>, DpdkError> {
    let room = plans.iter().map(Plan::data_room).max();
    let room = room.unwrap_or(mempool::DATA_ROOM);
    // Without hugepages all memory counts as node 0's, wherever the device is.
    let node = |plan: &Plan| if eal.hugepages() { plan.socket } else { None };
    let mut nodes: Vec<Option<u32>> = plans.iter().map(node).collect();
    let of: Vec<_> = nodes.clone();
    nodes.sort_unstable();
    nodes.dedup();
    if nodes.len() > 1 && nodes[0].is_none() {
        // A virtual device takes from whatever node there is.
        nodes.remove(0);
    }
    for &node in &nodes {
        // Any worker can hold buffers of any pool in its cache and its transmit queues.
        let queued: u32 = plans.iter().map(Plan::descriptors).sum();
        let size = mbufs.max(queued + held(workers));
        if size > mbufs {
            tracing::info!(
                wanted = mbufs,
                size,
                "buffer pool raised to what the queues hold"
            );
        }
        pools.push(Mempool::new(eal, size, room, node)?);
    }
    Ok(of
        .iter()
        .map(|n| nodes.iter().position(|m| m == n).unwrap_or(0))
        .collect())
}
