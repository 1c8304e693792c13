//! What is asked of a port, and what it turned out to be: plain values, copied freely.

use super::mempool::DATA_ROOM;
use super::rss::Rss;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// A port as the policy wants it.
#[derive(Clone, Debug)]
pub struct PortSpec {
    /// Its name in the policy.
    pub name: String,
    /// A PCI address, or the text of a virtual device.
    pub device: String,
    /// Receive queues wanted; `None`: one a worker. A device that has fewer gives what it has.
    pub rx_queues: Option<u16>,
    /// The MTU; `None`: as the device comes up.
    pub mtu: Option<u16>,
    /// Receive and transmit descriptors of a queue wanted; the device rounds.
    pub descriptors: u16,
    /// Bytes in a buffer, headroom included; the largest of all ports counts.
    pub data_room: u16,
    /// Whether it takes frames for whatever address, as a bridge must.
    pub promiscuous: bool,
}

impl PortSpec {
    /// A port with everything else as it comes.
    pub fn new(name: impl Into<String>, device: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            device: device.into(),
            rx_queues: None,
            mtu: None,
            descriptors: 1024,
            data_room: DATA_ROOM,
            promiscuous: true,
        }
    }
}

/// A port as it turned out.
#[derive(Clone, Debug)]
pub struct PortInfo {
    /// Its name in the policy.
    pub name: String,
    /// Its device, as configured.
    pub device: String,
    /// DPDK's driver.
    pub driver: String,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// The NUMA node of the device, if it belongs to one.
    pub socket: Option<u32>,
    /// Receive queues; fewer than wanted where the device has fewer.
    pub rx_queues: u16,
    /// Receive queues that were wanted.
    pub rx_queues_wanted: u16,
    /// Transmit queues, one a worker at the least.
    pub tx_queues: u16,
    /// Descriptors of a receive queue.
    pub rx_descriptors: u16,
    /// Descriptors of a transmit queue.
    pub tx_descriptors: u16,
    /// The MTU.
    pub mtu: u16,
    /// Whether it takes frames for whatever address.
    pub promiscuous: bool,
    /// How it spreads packets over its queues.
    pub rss: Rss,
    /// The kernel's interface at its other end, of a tap or a packet socket.
    pub kernel: Option<KernelEnd>,
}

/// An interface of the kernel that a virtual device ends in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelEnd {
    /// Its index in the namespace of the process.
    pub index: u32,
    /// Its name when the port opened.
    pub name: String,
    /// This process's descriptors of /dev/net/tun that it was behind then, if it is a tap.
    taps: Vec<OsString>,
}

/// What the kernel says of each descriptor.
const DESCRIPTORS: &str = "/proc/self/fdinfo";

impl KernelEnd {
    /// The interface of this index and name.
    pub(super) fn new(index: u32, name: String) -> Self {
        let taps = std::fs::read_dir(DESCRIPTORS).into_iter().flatten();
        let taps = taps.filter_map(|entry| Some(entry.ok()?.file_name()));
        let taps = taps.filter(|tap| behind(tap).as_deref() == Some(&*name));
        Self {
            index,
            taps: taps.collect(),
            name,
        }
    }

    /// Whether the interface is (still) in the namespace whose sysfs we see, by whatever name.
    pub(super) fn is_here(&self) -> bool {
        let index = self.index.to_string();
        let is = |folder: PathBuf| {
            std::fs::read_to_string(folder.join("ifindex")).is_ok_and(|it| it.trim() == index)
        };
        let net = Path::new("/sys/class/net");
        let mut others = std::fs::read_dir(net).into_iter().flatten().flatten();
        is(net.join(&self.name)) || others.any(|other| is(other.path()))
    }

    /// Whether a tap of this process's still has it, in whatever namespace, by whatever name.
    pub(super) fn is_held(&self) -> bool {
        let has = |tap: &OsString| behind(tap).is_some_and(|name| !name.is_empty());
        self.taps.iter().any(has)
    }
}

/// The interface behind a descriptor of /dev/net/tun; empty when that was removed.
fn behind(descriptor: &OsStr) -> Option<String> {
    let text = std::fs::read_to_string(Path::new(DESCRIPTORS).join(descriptor)).ok()?;
    let mut names = text.lines().filter_map(|line| line.strip_prefix("iff:"));
    names.next().map(|name| name.trim().to_owned())
}

/// The device's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Frames received.
    pub ipackets: u64,
    /// Frames sent.
    pub opackets: u64,
    /// Bytes received.
    pub ibytes: u64,
    /// Bytes sent.
    pub obytes: u64,
    /// Frames that came faster than the workers took them.
    pub imissed: u64,
    /// Frames that came broken.
    pub ierrors: u64,
    /// Frames that could not be sent.
    pub oerrors: u64,
    /// Frames for which there was no buffer.
    pub rx_nombuf: u64,
}

/// A port's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Whether it is up.
    pub up: bool,
    /// Its speed, if the device knows.
    pub mbps: Option<u32>,
    /// Whether both directions go at once.
    pub full_duplex: bool,
}
