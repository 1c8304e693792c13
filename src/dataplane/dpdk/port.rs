//! One port: what its device can do, and setting it up.
//!
//! # Life-cycle
//! Probed (`probe.rs`), planned (how many queues and descriptors it gets), started, and at the end
//! stopped, closed and its device detached. Probing and planning all ports comes before starting
//! any, because the pools depend on all of them.
//!
//! # Concurrency
//! Setting up is one thread's. Afterwards [`Ports`](super::Ports) calls in here under its lock,
//! beside workers that poll the queues.

use super::error::{DpdkError, Log, reason};
use super::info::{KernelEnd, Link, PortInfo, PortSpec, PortStats};
use super::mempool::{HEADROOM, Mempool};
use super::rss;
use crate::dataplane::steer::Steering;
use dpdk_sys::{SW_NAME_LEN, sw_port_caps, sw_port_conf, sw_port_link, sw_port_stats, sw_xstat};
use parking_lot::Mutex;
use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;

/// An Ethernet header, two VLAN tags and the check sequence.
const AROUND_MTU: u16 = 14 + 8 + 4;
const ENOTSUP: i32 = -95;

/// What a port will get.
#[derive(Debug)]
pub(super) struct Plan {
    caps: sw_port_caps,
    pub(super) socket: Option<u32>,
    rx_wanted: u16,
    rx: u16,
    tx: u16,
    rx_desc: u16,
    tx_desc: u16,
    room: u16,
}

impl Plan {
    /// Entries of its indirection table, if there is something to spread.
    pub(super) fn table(&self) -> Option<u16> {
        let spreads = self.rx > 1 && self.caps.rss_hf != 0 && self.caps.reta_size > 0;
        spreads.then_some(self.caps.reta_size)
    }

    /// Bytes that a buffer must have, headroom included, if frames cannot come in several.
    pub(super) fn data_room(&self) -> u16 {
        self.room
    }

    /// Buffers that the port's rings can hold.
    pub(super) fn descriptors(&self) -> u32 {
        u32::from(self.rx) * u32::from(self.rx_desc) + u32::from(self.tx) * u32::from(self.tx_desc)
    }
}

/// The ports that have an owner, and its name for them.
static TAKEN: Mutex<Vec<(u16, String)>> = Mutex::new(Vec::new());

/// A DPDK port that this process has; dropping it stops, closes and detaches it.
#[derive(Debug)]
pub(super) struct Port {
    id: u16,
    name: String,
    device: String,
    _eal: super::Eal,
}

impl Port {
    /// Takes over a port that was probed.
    ///
    /// # Errors
    /// Somebody of this process has it: one owner closes a port, and deals out its queues.
    pub(super) fn claim(eal: &super::Eal, id: u16, spec: &PortSpec) -> Result<Self, DpdkError> {
        let mut taken = TAKEN.lock();
        if let Some((_, other)) = taken.iter().find(|(t, _)| *t == id) {
            return Err(DpdkError::SameDevice {
                port: spec.name.clone(),
                other: other.clone(),
                device: spec.device.clone(),
            });
        }
        taken.push((id, spec.name.clone()));
        Ok(Self {
            id,
            name: spec.name.clone(),
            device: spec.device.clone(),
            _eal: eal.clone(),
        })
    }

    pub(super) fn id(&self) -> u16 {
        self.id
    }

    /// Runs a step; its failure names the port, and says what DPDK said.
    fn step(&self, what: &str, call: impl FnOnce() -> i32) -> Result<i32, DpdkError> {
        Log::begin();
        let ret = call();
        if ret >= 0 {
            return Ok(ret);
        }
        Err(DpdkError::Setup {
            port: self.name.clone(),
            device: self.device.clone(),
            step: what.to_owned(),
            reason: reason(ret),
            log: Log::take(),
        })
    }

    fn caps(&self) -> Result<sw_port_caps, DpdkError> {
        let mut caps = MaybeUninit::<sw_port_caps>::zeroed();
        self.step("cannot say what it can do", || {
            // SAFETY: the shim fills the structure, and checks the port.
            unsafe { dpdk_sys::sw_port_caps(self.id, caps.as_mut_ptr()) }
        })?;
        // SAFETY: zeroed and then filled; plain numbers and texts.
        Ok(unsafe { caps.assume_init() })
    }

    /// How many queues the port gets.
    pub(super) fn plan(&self, spec: &PortSpec, workers: u16) -> Result<Plan, DpdkError> {
        let caps = self.caps()?;
        let driver = text(&caps.driver);
        if caps.max_tx_queues < workers {
            return Err(DpdkError::TxQueues {
                port: spec.name.clone(),
                device: spec.device.clone(),
                most: caps.max_tx_queues,
                workers,
                hint: match driver.as_str() {
                    "net_pcap" => ", or repeat tx_pcap= (or tx_iface=) once a worker",
                    "net_af_packet" => ", or add qpairs= to the device",
                    _ => "",
                },
            });
        }
        if let Some(mtu) = spec.mtu
            && (mtu < caps.min_mtu || mtu > caps.max_mtu)
        {
            let (least, most) = (caps.min_mtu, caps.max_mtu);
            return Err(DpdkError::Mtu {
                port: spec.name.clone(),
                mtu,
                least,
                most,
            });
        }
        let rx_wanted = spec.rx_queues.unwrap_or(workers).max(1);
        let mut rx = rx_wanted.min(caps.max_rx_queues).max(1);
        let mut tx = workers;
        if driver == "net_tap" {
            // A tap's queues come in pairs.
            rx = rx.max(workers);
            tx = rx;
        }
        let socket = u32::try_from(caps.socket).ok();
        let (rx_desc, tx_desc) = (spec.descriptors, spec.descriptors);
        // A capture's driver chains buffers without being asked.
        let room = match spec.mtu {
            Some(mtu) if caps.scatter == 0 && driver != "net_pcap" => {
                mtu.saturating_add(AROUND_MTU + HEADROOM)
            }
            _ => 0,
        };
        Ok(Plan {
            caps,
            socket,
            rx_wanted,
            rx,
            tx,
            rx_desc,
            tx_desc,
            room: room.max(spec.data_room),
        })
    }

    /// Configures and starts the port.
    pub(super) fn start(
        &self,
        spec: &PortSpec,
        plan: &Plan,
        pool: &Mempool,
        steering: &Steering,
    ) -> Result<PortInfo, DpdkError> {
        let conf = configuration(spec, plan, pool, steering);
        self.step(
            &format!("cannot be given {} + {} queues", plan.rx, plan.tx),
            || {
                // SAFETY: the shim checks the port, and reads a structure that is whole.
                unsafe { dpdk_sys::sw_port_configure(self.id, &conf) }
            },
        )?;
        let (mut rx_desc, mut tx_desc) = (plan.rx_desc, plan.tx_desc);
        self.step("cannot say how long its queues may be", || {
            // SAFETY: two numbers to read and write.
            unsafe {
                dpdk_sys::rte_eth_dev_adjust_nb_rx_tx_desc(self.id, &mut rx_desc, &mut tx_desc)
            }
        })?;
        let node = plan.socket.map_or(u32::MAX, |s| s);
        for q in 0..plan.rx {
            self.step(&format!("cannot set up receive queue {q}"), || {
                let default = std::ptr::null();
                // SAFETY: the port is configured and stopped; the pool outlives the port.
                unsafe {
                    dpdk_sys::rte_eth_rx_queue_setup(
                        self.id,
                        q,
                        rx_desc,
                        node,
                        default,
                        pool.as_ptr(),
                    )
                }
            })?;
        }
        for q in 0..plan.tx {
            self.step(&format!("cannot set up transmit queue {q}"), || {
                // SAFETY: the port is configured and stopped.
                unsafe {
                    dpdk_sys::rte_eth_tx_queue_setup(self.id, q, tx_desc, node, std::ptr::null())
                }
            })?;
        }
        if let Some(mtu) = spec.mtu {
            // SAFETY: the port is configured.
            let set = || unsafe { dpdk_sys::rte_eth_dev_set_mtu(self.id, mtu) };
            self.step(&format!("cannot take mtu {mtu}"), || {
                unsupported_is_fine(set())
            })?;
        }
        // SAFETY: the port is configured, and all its queues are set up.
        self.step("does not start", || unsafe {
            dpdk_sys::rte_eth_dev_start(self.id)
        })?;
        let promiscuous = self.set_promiscuous(spec.promiscuous)?;
        let mut mtu = 0;
        // SAFETY: a number to write.
        self.step("has no mtu", || unsafe {
            dpdk_sys::rte_eth_dev_get_mtu(self.id, &mut mtu)
        })?;
        // A tap has its interface only now.
        let caps = self.caps()?;
        let driver = text(&caps.driver);
        let (owners, workers) = (steering.owners(), steering.workers());
        let table = rss::table(&owners, workers, plan.rx, caps.reta_size);
        let rss = rss::settle(self.id, &driver, &caps, steering.key(), plan.rx, &table);
        Ok(PortInfo {
            name: spec.name.clone(),
            device: spec.device.clone(),
            driver,
            mac: caps.mac,
            socket: plan.socket,
            rx_queues: plan.rx,
            rx_queues_wanted: plan.rx_wanted,
            tx_queues: plan.tx,
            rx_descriptors: rx_desc,
            tx_descriptors: tx_desc,
            mtu,
            promiscuous,
            rss,
            kernel: (caps.if_index != 0)
                .then(|| KernelEnd::new(caps.if_index, text(&caps.if_name))),
        })
    }

    /// Lets the port take frames for whatever address, as a bridge must, or for its own only. Whether
    /// it takes them; a device that cannot be told takes all.
    fn set_promiscuous(&self, on: bool) -> Result<bool, DpdkError> {
        let tell = || match on {
            // SAFETY: the port is started.
            true => unsafe { dpdk_sys::rte_eth_promiscuous_enable(self.id) },
            // SAFETY: the port is started.
            false => unsafe { dpdk_sys::rte_eth_promiscuous_disable(self.id) },
        };
        let what = match on {
            true => "cannot be made promiscuous",
            false => "cannot be kept from being promiscuous",
        };
        let mut cannot = false;
        self.step(what, || {
            let ret = tell();
            cannot = ret == ENOTSUP;
            unsupported_is_fine(ret)
        })?;
        Ok(on || cannot)
    }

    /// Spreads packets over the port's queues anew.
    pub(super) fn point(&self, queues: &[u16]) -> Result<(), &'static str> {
        rss::point(self.id, queues)
    }

    /// What the driver counts, by its names.
    pub(super) fn xstats(&self) -> Vec<(String, u64)> {
        let zero = sw_xstat {
            name: [0; SW_NAME_LEN as usize],
            value: 0,
        };
        let mut stats = Vec::new();
        // Twice: how many, and then what.
        for _ in 0..2 {
            let room = stats.len() as u32;
            // SAFETY: the shim writes at most `room` structures.
            let count = unsafe { dpdk_sys::sw_port_xstats(self.id, stats.as_mut_ptr(), room) };
            stats.resize(usize::try_from(count).unwrap_or(0), zero);
        }
        let rows = stats.iter().map(|stat| (text(&stat.name), stat.value));
        rows.filter(|(name, _)| !name.is_empty()).collect()
    }

    /// The device's counters.
    pub(super) fn stats(&self) -> Option<PortStats> {
        let mut s = MaybeUninit::<sw_port_stats>::zeroed();
        // SAFETY: the shim fills the structure.
        let ret = unsafe { dpdk_sys::sw_port_stats(self.id, s.as_mut_ptr()) };
        // SAFETY: zeroed, plain numbers.
        let s = unsafe { s.assume_init() };
        (ret == 0).then_some(PortStats {
            ipackets: s.ipackets,
            opackets: s.opackets,
            ibytes: s.ibytes,
            obytes: s.obytes,
            imissed: s.imissed,
            ierrors: s.ierrors,
            oerrors: s.oerrors,
            rx_nombuf: s.rx_nombuf,
        })
    }

    /// The link as it is now.
    pub(super) fn link(&self) -> Option<Link> {
        let mut l = MaybeUninit::<sw_port_link>::zeroed();
        // SAFETY: the shim fills the structure.
        let ret = unsafe { dpdk_sys::sw_port_link(self.id, l.as_mut_ptr()) };
        // SAFETY: zeroed, plain numbers.
        let l = unsafe { l.assume_init() };
        (ret == 0).then_some(Link {
            up: l.up != 0,
            mbps: (l.speed_mbps != 0 && l.speed_mbps != u32::MAX).then_some(l.speed_mbps),
            full_duplex: l.full_duplex != 0,
        })
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // SAFETY: nobody polls the port any more: every `DpdkIo` keeps it alive.
        let ret = unsafe { dpdk_sys::sw_port_remove(self.id) };
        if ret != 0 && ret != ENOTSUP {
            tracing::warn!(port = %self.name, reason = %reason(ret), "port did not close cleanly");
        }
        TAKEN.lock().retain(|(id, _)| *id != self.id);
    }
}

/// What the device is configured with.
///
/// Not among it is the stripping of VLAN tags. A bridge sends a frame as it came, so that each tag
/// would have to be put back, by the device where that can and on this core where it cannot, and every
/// frame that is sent would be asked for one; what it would save is the parse's look at four bytes of
/// frames that have one. Nor is the packet type that devices tell: lengths and checksums of the headers
/// are checked whatever it says, and what would be left to save is one comparison.
fn configuration(
    spec: &PortSpec,
    plan: &Plan,
    pool: &Mempool,
    steering: &Steering,
) -> sw_port_conf {
    let mtu = spec.mtu.unwrap_or(0);
    let spread = plan.rx > 1 && plan.caps.rss_hf != 0;
    let (key, len) = rss::key(&plan.caps, steering.key());
    sw_port_conf {
        rx_queues: plan.rx,
        tx_queues: plan.tx,
        mtu,
        scatter: u8::from(mtu > pool.data_room() - HEADROOM - AROUND_MTU),
        rss_hf: if spread { plan.caps.rss_hf } else { 0 },
        // A device that does not say how long its key is takes none here.
        rss_key_len: if spread && plan.caps.hash_key_size > 0 {
            len
        } else {
            0
        },
        rss_key: key,
    }
}

/// What a virtual device has no notion of it need not do.
fn unsupported_is_fine(ret: i32) -> i32 {
    if ret == ENOTSUP { 0 } else { ret }
}

/// A text that the shim ended in a zero.
fn text(chars: &[c_char]) -> String {
    let bytes: Vec<u8> = chars.iter().map(|&c| c.cast_unsigned()).collect();
    CStr::from_bytes_until_nul(&bytes)
        .map_or_else(|_| String::new(), |t| t.to_string_lossy().into_owned())
}
