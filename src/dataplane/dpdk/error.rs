//! What goes wrong with DPDK, in words that say what to do.
//!
//! DPDK explains itself only in its log: an error carries the log's lines of the call that failed.

use std::ffi::CStr;

/// Why DPDK or a port could not be had.
#[derive(Debug, thiserror::Error)]
pub enum DpdkError {
    /// `Eal::init` was called before.
    #[error("DPDK was already started in this process; it starts once")]
    AlreadyStarted,
    /// Hugepages are required and there are too few.
    #[error(
        "hugepages are required: {needed_mb} MB are needed and {free_mb} MB are free. Reserve them \
         (sysctl -w vm.nr_hugepages={pages}), or set `system.hugepages: auto`"
    )]
    NoHugepages {
        /// What is needed.
        needed_mb: u64,
        /// What is free.
        free_mb: u64,
        /// Pages of 2 MB that would do.
        pages: u64,
    },
    /// An option has a zero byte in it.
    #[error("`{0}` cannot be passed to DPDK: it contains a zero byte")]
    BadText(String),
    /// `rte_eal_init` refused.
    #[error("DPDK did not start: {reason}. Arguments: {args}. {hint}{log}")]
    Start {
        /// DPDK's error.
        reason: String,
        /// What it was started with.
        args: String,
        /// What to do.
        hint: &'static str,
        /// DPDK's own words.
        log: Log,
    },
    /// A thread could not be registered.
    #[error(
        "DPDK would not register this thread: {reason}. At most {most} threads can be registered: \
         lower `system.workers`"
    )]
    Thread {
        /// DPDK's error.
        reason: String,
        /// DPDK's limit.
        most: u32,
    },
    /// The affinity of the starting thread could not be read or set.
    #[error("the CPU affinity of the starting thread cannot be {what}: {why}")]
    Affinity {
        /// Read or set.
        what: &'static str,
        /// The kernel's error.
        why: std::io::Error,
    },
    /// No worker was asked for.
    #[error("`system.workers` must be at least 1")]
    NoWorkers,
    /// More ports than DPDK or we can have.
    #[error("{wanted} ports are configured and at most {most} are possible")]
    TooManyPorts {
        /// Configured.
        wanted: usize,
        /// Possible.
        most: usize,
    },
    /// Two ports are one device.
    #[error("port `{port}`: its device `{device}` is already port `{other}`")]
    SameDevice {
        /// The second port.
        port: String,
        /// The first port.
        other: String,
        /// Their device.
        device: String,
    },
    /// A device could not be had.
    #[error("port `{port}`: device `{device}`: {reason}. {hint}{log}")]
    Probe {
        /// The port.
        port: String,
        /// Its device, as configured.
        device: String,
        /// What happened.
        reason: String,
        /// What to do.
        hint: String,
        /// DPDK's own words.
        log: Log,
    },
    /// A device has too few transmit queues for the workers.
    #[error(
        "port `{port}`: device `{device}` has {most} transmit queues and {workers} workers need \
         one each: lower `system.workers` to {most}{hint}"
    )]
    TxQueues {
        /// The port.
        port: String,
        /// Its device, as configured.
        device: String,
        /// What the device has.
        most: u16,
        /// What is needed.
        workers: u16,
        /// What else would do.
        hint: &'static str,
    },
    /// An MTU that the device cannot have.
    #[error("port `{port}`: mtu {mtu} is not possible: the device takes {least} to {most}")]
    Mtu {
        /// The port.
        port: String,
        /// The wanted one.
        mtu: u16,
        /// The device's least.
        least: u16,
        /// The device's most.
        most: u16,
    },
    /// A step of setting a port up failed.
    #[error("port `{port}`: device `{device}` {step}: {reason}{log}")]
    Setup {
        /// The port.
        port: String,
        /// Its device, as configured.
        device: String,
        /// What was being done.
        step: String,
        /// DPDK's error.
        reason: String,
        /// DPDK's own words.
        log: Log,
    },
    /// There is no memory for the buffers.
    #[error(
        "no memory for {mbufs} buffers of {room} bytes ({mb} MB): {reason}. Give DPDK more \
         ({advice}), or lower `system.mbufs`{log}"
    )]
    Pool {
        /// Buffers wanted.
        mbufs: u32,
        /// Bytes in each.
        room: u16,
        /// All of it.
        mb: u32,
        /// DPDK's error.
        reason: String,
        /// Where the memory comes from.
        advice: &'static str,
        /// DPDK's own words.
        log: Log,
    },
}

/// The lines that DPDK logged during the call that failed; prints as nothing when there are none.
#[derive(Debug, Default)]
pub struct Log(Box<str>);

impl Log {
    /// Forgets what was logged so far: before a call.
    pub(super) fn begin() {
        // SAFETY: takes no argument, and locks what it touches.
        unsafe { dpdk_sys::sw_log_clear() }
    }

    /// What was logged since [`Log::begin`]: after the call.
    pub(super) fn take() -> Self {
        let mut text = [0_u8; 2048];
        // SAFETY: the shim writes at most `len` bytes to a buffer of `len` bytes.
        let len = unsafe { dpdk_sys::sw_log_tail(text.as_mut_ptr().cast(), text.len()) };
        let text = String::from_utf8_lossy(&text[..len.min(text.len())]);
        let lines: Vec<_> = text
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty())
            .collect();
        Self(lines.join("; ").into())
    }

    /// Whether DPDK said this.
    pub(super) fn says(&self, what: &str) -> bool {
        self.0.contains(what)
    }
}

impl std::fmt::Display for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            Ok(())
        } else {
            write!(f, " (DPDK says: {})", self.0)
        }
    }
}

/// DPDK's words for an errno, of either sign.
pub(super) fn reason(errno: i32) -> String {
    if errno.abs() == 1 {
        // Drivers return -1 for whatever goes wrong; it is no errno then.
        return "its driver refuses".to_owned();
    }
    // SAFETY: any number is allowed; the text lives in a buffer of this thread.
    let text = unsafe { dpdk_sys::rte_strerror(errno.abs()) };
    if text.is_null() {
        return format!("error {errno}");
    }
    // SAFETY: not null, ends in a zero, and is copied before this thread's next call.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

/// This thread's `rte_errno`.
pub(super) fn errno() -> i32 {
    // SAFETY: reads a thread-local.
    unsafe { dpdk_sys::sw_errno() }
}
