//! What is asked of a port, and what it turned out to be: plain values, copied freely.

use super::mempool::DATA_ROOM;
use super::rss::Rss;

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
}

impl KernelEnd {
    /// Whether the interface is (still) in the namespace whose sysfs we see.
    pub(super) fn is_here(&self) -> bool {
        let index = std::fs::read_to_string(format!("/sys/class/net/{}/ifindex", self.name));
        index.is_ok_and(|i| i.trim() == self.index.to_string())
    }
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
