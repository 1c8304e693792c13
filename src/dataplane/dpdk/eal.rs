//! DPDK's environment: its start, its end, and the threads that it knows.
//!
//! # Memory
//! With hugepages `--in-memory`, which needs pages but no mount; without, `--no-huge -m N`. The two
//! exclude each other, and a start that failed cannot be repeated in the same process: the choice
//! is made before, from the pages that are really free. Addresses are virtual (`--iova-mode=va`)
//! unless a NIC sits on a driver that cannot.
//!
//! # Life-cycle
//! [`Eal::init`] works once a process. The handle is counted: ports and pools hold one, and DPDK
//! is cleaned up with the last. If a buffer is still out somewhere by then, it is left running.
//!
//! # Concurrency
//! Starting DPDK pins the thread that does it to one core, and threads started later would inherit
//! that: the affinity is put back. DPDK's own helper threads are kept off the workers' cores.
//! A worker registers its thread, which gives it a number for the buffer caches.

use super::error::{DpdkError, Log, errno, reason};
use super::hugepages::{Hugepages, choose, free_hugepages_mb};
use super::mempool::memory_mb;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::ffi::CString;
use std::fs;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How DPDK is started.
#[derive(Clone, Debug)]
pub struct EalOptions {
    /// The core that DPDK calls main; `None`: the lowest that this process may use and no worker has.
    pub main_core: Option<usize>,
    /// The workers' cores, which DPDK's helper threads keep off.
    pub worker_cores: Vec<usize>,
    /// Where the memory comes from.
    pub hugepages: Hugepages,
    /// MB of hugepages needed; see [`mempool::memory_mb`](super::mempool::memory_mb).
    pub memory_mb: u32,
    /// MB of ordinary memory needed where hugepages are not taken: more, see there.
    pub ordinary_mb: u32,
    /// PCI addresses that DPDK may touch; none: it leaves PCI alone.
    pub pci: Vec<String>,
    /// Tells apart several DPDK processes of one box.
    pub file_prefix: String,
}

impl EalOptions {
    /// Memory for this many buffers of `data_room` bytes on each of `pools` NUMA nodes.
    #[must_use]
    pub fn with_buffers(mut self, mbufs: u32, data_room: u16, pools: u32) -> Self {
        self.memory_mb = memory_mb(mbufs, data_room, pools, true);
        // Ordinary memory counts as one node's.
        self.ordinary_mb = memory_mb(mbufs, data_room, 1, false);
        self
    }
}

impl Default for EalOptions {
    fn default() -> Self {
        Self {
            main_core: None,
            worker_cores: Vec::new(),
            hugepages: Hugepages::Auto,
            memory_mb: 256,
            ordinary_mb: 512,
            pci: Vec::new(),
            file_prefix: "shardwall".to_owned(),
        }
    }
}

#[derive(Debug)]
struct Running {
    hugepages: bool,
    /// A pool had to be left: DPDK's memory must stay mapped.
    leaked: AtomicBool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.leaked.load(Ordering::Acquire) {
            return;
        }
        // SAFETY: DPDK was started, and this was the last handle: no port, pool or buffer is left.
        unsafe { dpdk_sys::rte_eal_cleanup() };
    }
}

/// DPDK is running; clones are the same one.
#[derive(Clone, Debug)]
pub struct Eal(Arc<Running>);

static STARTED: AtomicBool = AtomicBool::new(false);

impl Eal {
    /// Starts DPDK: once a process, whether it succeeds or not.
    ///
    /// # Errors
    /// Too few hugepages where they are required, or DPDK's refusal.
    pub fn init(options: &EalOptions) -> Result<Self, DpdkError> {
        let hugepages = choose(
            options.hugepages,
            free_hugepages_mb(),
            options.memory_mb.into(),
        )?;
        let before = sched_getaffinity(None).map_err(|e| DpdkError::Affinity {
            what: "read",
            why: e.into(),
        })?;
        let (main, control) = split_cores(&before, options);
        let physical = options.pci.iter().any(|address| needs_physical(address));
        let args = arguments(options, hugepages, physical, main);
        let texts = args
            .iter()
            .map(|a| CString::new(a.as_str()).map_err(|_| DpdkError::BadText(a.clone())))
            .collect::<Result<Vec<_>, _>>()?;
        if STARTED.swap(true, Ordering::AcqRel) {
            return Err(DpdkError::AlreadyStarted);
        }
        // DPDK reorders the array and keeps pointers into the texts: they are its own from here.
        let mut argv: Vec<_> = texts.into_iter().map(CString::into_raw).collect();
        let argc = i32::try_from(argv.len()).unwrap_or(i32::MAX);
        argv.push(std::ptr::null_mut());

        // DPDK's helper threads may run where this thread may.
        let _ = sched_setaffinity(None, &control);
        // SAFETY: takes no argument; before DPDK's start nobody else writes to its log.
        let _ = unsafe { dpdk_sys::sw_log_open() };
        Log::begin();
        // SAFETY: `argc` texts and a null after them, all of which live as long as the process.
        let ret = unsafe { dpdk_sys::rte_eal_init(argc, argv.as_mut_ptr()) };
        let why = errno();
        let restored = sched_setaffinity(None, &before);
        if ret < 0 {
            let log = Log::take();
            return Err(DpdkError::Start {
                reason: reason(why),
                args: args[1..].join(" "),
                hint: hint(hugepages, &log),
                log,
            });
        }
        let eal = Self(Arc::new(Running {
            hugepages,
            leaked: AtomicBool::new(false),
        }));
        restored.map_err(|e| DpdkError::Affinity {
            what: "set",
            why: e.into(),
        })?;
        Ok(eal)
    }

    /// Whether the memory is hugepages.
    #[must_use]
    pub fn hugepages(&self) -> bool {
        self.0.hugepages
    }

    /// DPDK's name and release.
    #[must_use]
    pub fn version() -> String {
        // SAFETY: returns a constant text that ends in a zero.
        let text = unsafe { dpdk_sys::rte_version() };
        // SAFETY: see above.
        unsafe { std::ffi::CStr::from_ptr(text) }
            .to_string_lossy()
            .into_owned()
    }

    /// Makes this thread one that DPDK knows, which gives it buffer caches of its own. Pin it
    /// first: DPDK reads the NUMA node from its affinity. The thread that started DPDK, or one
    /// that is registered, stays what it is.
    ///
    /// # Errors
    /// DPDK has no number left.
    pub fn register_thread(&self) -> Result<EalThread, DpdkError> {
        // SAFETY: reads a thread-local.
        let known = unsafe { dpdk_sys::sw_lcore_id() } != u32::MAX;
        if !known {
            // SAFETY: DPDK runs, and it does not know this thread.
            let ret = unsafe { dpdk_sys::rte_thread_register() };
            if ret < 0 {
                let most = dpdk_sys::RTE_MAX_LCORE - 1;
                return Err(DpdkError::Thread {
                    reason: reason(errno()),
                    most,
                });
            }
        }
        Ok(EalThread {
            ours: !known,
            _eal: self.clone(),
            _stays: PhantomData,
        })
    }

    /// From here on DPDK's memory stays mapped until the process ends.
    pub(super) fn leak(&self) {
        self.0.leaked.store(true, Ordering::Release);
    }
}

/// This thread is known to DPDK until this is dropped.
#[derive(Debug)]
pub struct EalThread {
    ours: bool,
    _eal: Eal,
    /// It is about the thread that made it.
    _stays: PhantomData<*const ()>,
}

impl Drop for EalThread {
    fn drop(&mut self) {
        if self.ours {
            // SAFETY: this thread registered itself; DPDK still runs, since `_eal` goes after.
            unsafe { dpdk_sys::rte_thread_unregister() }
        }
    }
}

/// The main core, and the cores for whatever is no worker.
fn split_cores(allowed: &CpuSet, options: &EalOptions) -> (usize, CpuSet) {
    let mut control = *allowed;
    for &core in &options.worker_cores {
        if core < CpuSet::MAX_CPU {
            control.unset(core);
        }
    }
    if control.count() == 0 {
        control = *allowed;
    }
    let lowest = (0..CpuSet::MAX_CPU)
        .find(|&core| control.is_set(core))
        .unwrap_or(0);
    (options.main_core.unwrap_or(lowest), control)
}

fn arguments(options: &EalOptions, hugepages: bool, physical: bool, main: usize) -> Vec<String> {
    let mut args = vec![
        "shardwall".to_owned(),
        format!("--lcores=0@{main}"),
        format!("--file-prefix={}", options.file_prefix),
        "--no-telemetry".to_owned(),
        "--log-level=warning".to_owned(),
    ];
    if hugepages {
        args.push("--in-memory".to_owned());
    } else {
        args.push("--no-huge".to_owned());
        // No files under /var/run either; --in-memory says the same.
        args.push("--no-shconf".to_owned());
        args.push("-m".to_owned());
        args.push(options.ordinary_mb.to_string());
    }
    if !physical {
        args.push("--iova-mode=va".to_owned());
    }
    if options.pci.is_empty() {
        args.push("--no-pci".to_owned());
    }
    for address in &options.pci {
        args.push("-a".to_owned());
        args.push(address.clone());
    }
    args
}

fn hint(hugepages: bool, log: &Log) -> &'static str {
    if log.says("Permission denied") || log.says("Operation not permitted") {
        "Run as root, or with CAP_SYS_ADMIN, CAP_IPC_LOCK and CAP_NET_ADMIN"
    } else if hugepages {
        "If the hugepages cannot be used (a container's limit, another process), set \
         `system.hugepages: off`"
    } else {
        "Check that the memory is free and that the limit on locked memory allows it (ulimit -l)"
    }
}

/// Whether the NIC's driver takes physical addresses only: UIO, or VFIO without an IOMMU.
fn needs_physical(address: &str) -> bool {
    match super::probe::kernel_driver(address).as_deref() {
        Some("uio_pci_generic" | "igb_uio") => true,
        Some("vfio-pci") => {
            fs::read_dir("/sys/class/iommu").map_or(true, |mut d| d.next().is_none())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_follow_the_memory_and_the_nics() {
        let mut options = EalOptions {
            ordinary_mb: 64,
            ..EalOptions::default()
        };
        let args = arguments(&options, false, false, 3).join(" ");
        assert!(args.contains("--lcores=0@3"), "{args}");
        assert!(
            args.contains("--no-huge --no-shconf -m 64 --iova-mode=va --no-pci"),
            "{args}"
        );
        options.pci.push("0000:03:00.1".to_owned());
        let args = arguments(&options, true, true, 0).join(" ");
        assert!(args.contains("--in-memory -a 0000:03:00.1"), "{args}");
        assert!(
            !args.contains("--no-pci") && !args.contains("iova"),
            "{args}"
        );
    }

    #[test]
    fn helper_threads_keep_off_the_workers() {
        let mut all = CpuSet::new();
        (0..4).for_each(|core| all.set(core));
        let options = EalOptions {
            worker_cores: vec![0, 2],
            ..EalOptions::default()
        };
        let (main, control) = split_cores(&all, &options);
        assert_eq!((main, control.count()), (1, 2));
        let options = EalOptions {
            worker_cores: vec![0, 1, 2, 3],
            ..EalOptions::default()
        };
        let (main, control) = split_cores(&all, &options);
        assert_eq!((main, control.count()), (0, 4));
    }
}
