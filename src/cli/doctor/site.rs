//! What the doctor looks at: files of the kernel and of the system below a root, the policy, and what
//! the running appliance says.
//!
//! Everything is read by its path below the root, so that a made-up tree is a box like any other. What
//! cannot be read is not there.

use crate::dataplane::device::{full_address, is_pci};
use crate::policy::{Idle, Policy, Port, Workers};
use std::fs;
use std::path::{Path, PathBuf};

/// PCI devices.
const PCI: &str = "sys/bus/pci/devices";

/// What came of asking the running appliance.
#[derive(Debug)]
pub(super) enum Appliance {
    /// Nobody is to be asked.
    Absent,
    /// Its socket is for others.
    Denied,
    /// It is there, but says nothing of use: in words, why.
    Silent(String),
    /// It answers: its ports.
    Runs(Vec<Spread>),
}

/// How a port of the running appliance spreads packets.
#[derive(Clone, Debug)]
pub(super) struct Spread {
    /// Its name.
    pub(super) port: String,
    /// How, in words.
    pub(super) rss: String,
    /// How many of its hashes were wrong.
    pub(super) hash_wrong: u64,
}

/// A box.
#[derive(Debug)]
pub(super) struct Site<'a> {
    /// Where its files are.
    pub(super) root: &'a Path,
    /// The policy that it is to run.
    pub(super) policy: Option<&'a Policy>,
    /// Hugepages that the policy takes, in MB.
    pub(super) needed_mb: Option<u64>,
    /// The appliance that runs on it.
    pub(super) appliance: Appliance,
    /// Where that listens.
    pub(super) socket: &'a Path,
}

/// A network device on the PCI bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Nic {
    /// `0000:03:00.0`.
    pub(super) address: String,
    /// The kernel driver that has it.
    pub(super) driver: Option<String>,
    /// Its interfaces.
    pub(super) interfaces: Vec<String>,
}

impl Site<'_> {
    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A file's text, without blanks around it.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        let bytes = fs::read(self.path(path)).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// A file's number.
    pub(super) fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    /// Names in a folder, in order.
    pub(super) fn list(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten();
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        names
    }

    /// Whether there is something by this name.
    pub(super) fn exists(&self, path: &str) -> bool {
        self.path(path).symlink_metadata().is_ok()
    }

    /// The last name of what a symbolic link leads to.
    pub(super) fn link(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.path(path)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }

    /// A list of CPUs in the kernel's notation, `0-3,6`.
    pub(super) fn cpus(&self, path: &str) -> Vec<usize> {
        parse_cpus(&self.text(path).unwrap_or_default())
    }

    /// The value of a line `Key: value` of a file.
    pub(super) fn field(&self, path: &str, key: &str) -> Option<String> {
        let text = self.text(path)?;
        let mut values = text
            .lines()
            .filter_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix(':'));
        values.next().map(|value| value.trim().to_owned())
    }

    /// Words of the kernel's command line that begin with `key=`, or are `key`.
    pub(super) fn boot_option(&self, key: &str) -> Option<String> {
        let line = self.text("proc/cmdline")?;
        let words = line.split_ascii_whitespace();
        let mut values = words.filter_map(|word| match word.split_once('=') {
            Some((name, value)) => (name == key).then(|| value.to_owned()),
            None => (word == key).then(String::new),
        });
        values.next_back()
    }

    /// Whether the processor says so of itself.
    pub(super) fn cpu_flag(&self, flag: &str) -> bool {
        let flags = self.field("proc/cpuinfo", "flags").unwrap_or_default();
        flags.split(' ').any(|known| known == flag)
    }

    /// Names of the running processes.
    pub(super) fn runs(&self, name: &str) -> bool {
        let processes = self.list("proc");
        let mut numbers = processes
            .iter()
            .filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()));
        numbers.any(|pid| self.text(&format!("proc/{pid}/comm")).as_deref() == Some(name))
    }

    /// What one of our scripts is called here.
    pub(super) fn script(&self, name: &str) -> String {
        let installed = format!("shardwall-{name}");
        if self.exists(&format!("usr/sbin/{installed}")) {
            return installed;
        }
        format!("deploy/{name}.sh")
    }

    /// Ports of the policy, or none.
    pub(super) fn ports(&self) -> &[Port] {
        self.policy.map_or(&[], |policy| &policy.ports)
    }

    /// Those that are NICs, with their addresses.
    pub(super) fn pci_ports(&self) -> Vec<(&str, String)> {
        let pci = self.ports().iter().filter(|port| is_pci(&port.device));
        pci.map(|port| (&*port.name, full_address(&port.device)))
            .collect()
    }

    /// Those that are not.
    pub(super) fn virtual_ports(&self) -> Vec<&Port> {
        let ports = self.ports().iter();
        ports.filter(|port| !is_pci(&port.device)).collect()
    }

    /// What the kernel knows of a PCI device, below its folder.
    pub(super) fn pci(&self, address: &str, what: &str) -> Option<String> {
        self.text(&format!("{PCI}/{address}/{what}"))
    }

    /// Whether there is such a PCI device.
    pub(super) fn has_pci(&self, address: &str) -> bool {
        self.exists(&format!("{PCI}/{address}"))
    }

    /// The kernel driver of a PCI device.
    pub(super) fn driver(&self, address: &str) -> Option<String> {
        self.link(&format!("{PCI}/{address}/driver"))
    }

    /// The IOMMU group of a PCI device.
    pub(super) fn group(&self, address: &str) -> Option<String> {
        self.link(&format!("{PCI}/{address}/iommu_group"))
    }

    /// The NUMA node of a PCI device; the kernel says -1 where there is but one.
    pub(super) fn node_of_pci(&self, address: &str) -> Option<usize> {
        self.pci(address, "numa_node")?.parse().ok()
    }

    /// Receive queues that its kernel driver has set up, if one has it.
    pub(super) fn queues(&self, address: &str) -> Option<usize> {
        let interface = self.interfaces(address).into_iter().next()?;
        let queues = self.list(&format!("sys/class/net/{interface}/queues"));
        let receive = queues.iter().filter(|name| name.starts_with("rx-"));
        Some(receive.count()).filter(|count| *count > 0)
    }

    /// Interrupt vectors of its own that a PCI device has (MSI-X), of which a NIC has one a queue: 0 for
    /// none; `None` where that cannot be read, as others than root may not.
    pub(super) fn vectors(&self, address: &str) -> Option<usize> {
        let config = fs::read(self.path(&format!("{PCI}/{address}/config"))).ok()?;
        if config.len() <= 64 {
            return None;
        }
        // PCI 3.0, 6.7: a list of capabilities, which a status bit announces; 6.8.2: MSI-X is number 17, and
        // what follows its link is the size of its table, less one, in eleven bits.
        let mut at = match config.get(6)? & 0x10 {
            0 => return Some(0),
            _ => usize::from(*config.get(0x34)? & 0xfc),
        };
        for _ in 0..48 {
            match *config.get(at..at + 4)? {
                [17, _, low, high] if at != 0 => {
                    return Some(usize::from(u16::from_le_bytes([low, high]) & 0x7ff) + 1);
                }
                [_, next, ..] if at != 0 && next >= 0x40 => at = usize::from(next & 0xfc),
                _ => break,
            }
        }
        Some(0)
    }

    /// Network devices on the PCI bus.
    pub(super) fn nics(&self) -> Vec<Nic> {
        let devices = self.list(PCI).into_iter();
        let network = devices.filter(|address| self.is_network(address));
        network
            .map(|address| Nic {
                driver: self.driver(&address),
                interfaces: self.interfaces(&address),
                address,
            })
            .collect()
    }

    /// Whether a PCI device is of the class of network controllers.
    pub(super) fn is_network(&self, address: &str) -> bool {
        let class = self.pci(address, "class");
        class.is_some_and(|class| class.starts_with("0x02"))
    }

    /// The interfaces of a PCI device; virtio has a device of its own between.
    pub(super) fn interfaces(&self, address: &str) -> Vec<String> {
        let folder = format!("{PCI}/{address}");
        let mut found = self.list(&format!("{folder}/net"));
        for name in self.list(&folder) {
            if name.starts_with("virtio") {
                found.extend(self.list(&format!("{folder}/{name}/net")));
            }
        }
        found
    }

    /// Interfaces that the default routes go by.
    pub(super) fn default_routes(&self) -> Vec<String> {
        let v4 = self.text("proc/net/route").unwrap_or_default();
        let v4 = v4.lines().skip(1).filter_map(|line| {
            let words: Vec<_> = line.split_ascii_whitespace().collect();
            let zero = |at: usize| words.get(at) == Some(&"00000000");
            (zero(1) && zero(7)).then(|| words[0].to_owned())
        });
        let v6 = self.text("proc/net/ipv6_route").unwrap_or_default();
        let v6 = v6.lines().filter_map(|line| {
            let words: Vec<_> = line.split_ascii_whitespace().collect();
            let any =
                words.first()?.bytes().all(|byte| byte == b'0') && words.get(1) == Some(&"00");
            let interface = words.last()?;
            (any && *interface != "lo").then(|| (*interface).to_owned())
        });
        let mut found: Vec<_> = v4.chain(v6).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// NUMA nodes, each with its CPUs.
    pub(super) fn nodes(&self) -> Vec<(usize, Vec<usize>)> {
        let names = self.list("sys/devices/system/node").into_iter();
        let numbers = names.filter_map(|name| name.strip_prefix("node")?.parse().ok());
        let with_cpus = numbers.map(|node: usize| {
            let path = format!("sys/devices/system/node/node{node}/cpulist");
            (node, self.cpus(&path))
        });
        let mut nodes: Vec<_> = with_cpus.collect();
        nodes.sort_unstable();
        nodes
    }

    /// The node that has this CPU.
    pub(super) fn node_of_cpu(&self, cpu: usize) -> Option<usize> {
        let nodes = self.nodes();
        let found = nodes.iter().find(|(_, cpus)| cpus.contains(&cpu));
        found.map(|(node, _)| *node)
    }

    /// CPUs that a process started here may use.
    pub(super) fn allowed(&self) -> Vec<usize> {
        let list = self.field("proc/self/status", "Cpus_allowed_list");
        parse_cpus(&list.unwrap_or_default())
    }

    /// Cores that the workers will run on: those that the policy names, or those that the appliance
    /// will choose.
    pub(super) fn cores(&self) -> Vec<usize> {
        match self.policy.map(|policy| &policy.system.workers) {
            None => Vec::new(),
            Some(Workers::Cores(cores)) => cores.iter().copied().map(usize::from).collect(),
            Some(Workers::Count(count)) => {
                let (allowed, count) = (self.allowed(), usize::from(*count));
                match allowed.len() > count {
                    true => allowed[allowed.len() - count..].to_vec(),
                    false => allowed,
                }
            }
        }
    }

    /// Whether the workers leave their cores to others while nothing comes.
    pub(super) fn shares_cores(&self) -> bool {
        let idle = self.policy.map(|policy| policy.system.idle);
        matches!(idle, Some(Idle::Sleep | Idle::Yield))
    }
}

/// `0-3,6` as numbers.
pub(super) fn parse_cpus(text: &str) -> Vec<usize> {
    let ranges = text.split(',').filter_map(|range| {
        let (first, last) = range
            .trim()
            .split_once('-')
            .unwrap_or((range.trim(), range.trim()));
        Some(first.parse().ok()?..=last.parse().ok()?)
    });
    // What no machine has is a mistake, not a list.
    ranges.flatten().take(1 << 16).collect()
}

/// Numbers as the kernel writes them: `0-3,6`.
pub(super) fn cpu_list(cpus: &[usize]) -> String {
    let mut sorted = cpus.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for cpu in sorted {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    let texts = ranges.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    texts.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus() {
        for (text, cpus) in [
            ("", vec![]),
            ("0", vec![0]),
            ("0-3,6", vec![0, 1, 2, 3, 6]),
            ("x,2", vec![2]),
        ] {
            assert_eq!(parse_cpus(text), cpus);
        }
        assert_eq!(cpu_list(&[6, 0, 1, 2, 3, 3]), "0-3,6");
        assert_eq!(cpu_list(&[]), "");
    }
}
