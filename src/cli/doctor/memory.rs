//! Memory: hugepages, by size and NUMA node, and limits on what a process may lock and open.

use super::site::{Appliance, Site};
use super::{Finding, fail, ok, warn};
use crate::policy::Hugepages;

const SIZES: &str = "sys/kernel/mm/hugepages";
/// What to reserve where no policy says how much is needed: two NICs with four queues each, with room.
const USUAL_MB: u64 = 1024;
/// Files that a worker, its ports and clients of the socket may open, with room.
const FILES: u64 = 1024;
/// CAP_IPC_LOCK, which no limit on locked memory binds.
const IPC_LOCK: u64 = 1 << 14;

/// A pool of pages of one size.
struct Pool {
    kib: u64,
    total: u64,
    free: u64,
}

/// Pools in a folder like [`SIZES`].
fn pools(site: &Site<'_>, folder: &str) -> Vec<Pool> {
    let names = site.list(folder).into_iter();
    let pools = names.filter_map(|name| {
        let kib = name.strip_prefix("hugepages-")?.strip_suffix("kB")?;
        let number = |what| site.number(&format!("{folder}/{name}/{what}"));
        let promised = number("resv_hugepages").unwrap_or(0);
        Some(Pool {
            kib: kib.parse().ok()?,
            total: number("nr_hugepages")?,
            free: number("free_hugepages")?.saturating_sub(promised),
        })
    });
    pools.collect()
}

fn free_mb(pools: &[Pool]) -> u64 {
    pools.iter().map(|pool| pool.free * pool.kib / 1024).sum()
}

fn total_mb(pools: &[Pool]) -> u64 {
    pools.iter().map(|pool| pool.total * pool.kib / 1024).sum()
}

fn size(kib: u64) -> String {
    match kib {
        1_048_576 => "1 GiB".into(),
        kib => format!("{} MiB", kib / 1024),
    }
}

/// How many pages there are, whether that is enough, and on the right nodes.
pub(super) fn hugepages(site: &Site<'_>) -> Vec<Finding> {
    let wanted = site.policy.map(|policy| policy.system.hugepages);
    if wanted == Some(Hugepages::Off) {
        return vec![match site.pci_ports().is_empty() {
            true => ok("the policy wants none (`system.hugepages: off`)"),
            false => warn(
                "the policy wants none, and it has NICs: ordinary pages are slower",
                "take `hugepages: off` out of `system` in the policy",
            ),
        }];
    }
    let all = pools(site, SIZES);
    let needed = site.needed_mb.unwrap_or(USUAL_MB);
    let reserve = |mb: u64, more: &str| {
        let script = site.script("hugepages");
        format!(
            "{script} --memory {}M --persist{more}",
            mb.next_multiple_of(2)
        )
    };
    if all.is_empty() {
        let text = "this kernel has no hugepages";
        return vec![match wanted {
            Some(Hugepages::Required) => fail(text, "take a kernel with CONFIG_HUGETLBFS"),
            _ => warn(
                text,
                "take a kernel with CONFIG_HUGETLBFS; without, ordinary pages are used",
            ),
        }];
    }
    let (total, free) = (total_mb(&all), free_mb(&all));
    let each = all.iter().filter(|pool| pool.total > 0).map(|pool| {
        let (free, total, size) = (pool.free, pool.total, size(pool.kib));
        format!("{free} of {total} pages of {size} free")
    });
    let mut text = match total {
        0 => "none is reserved".to_owned(),
        _ => each.collect::<Vec<_>>().join(", "),
    };
    text += match site.needed_mb {
        Some(mb) => format!(" ({free} MB); the policy takes {mb} MB"),
        None => format!(" ({free} MB)"),
    }
    .as_str();
    text += mount(site);
    let short = free < site.needed_mb.unwrap_or(1);
    let taken = matches!(site.appliance, Appliance::Runs(_)) && total >= needed;
    let mut findings = vec![match (short, wanted) {
        (false, _) => ok(text),
        (true, _) if taken => ok(text + "; the running appliance has its own"),
        (true, Some(Hugepages::Required)) => fail(text, reserve(needed, "")),
        (true, _) => warn(text, reserve(needed, "")),
    }];
    if !short {
        findings.extend(nodes(site, needed, &reserve));
    }
    findings
}

/// A mount is not needed: the kernel gives pages without one (`--in-memory`).
fn mount(site: &Site<'_>) -> &'static str {
    let mounts = site.text("proc/self/mounts").unwrap_or_default();
    let kinds = mounts.lines().filter_map(|line| line.split(' ').nth(2));
    match kinds.into_iter().any(|kind| kind == "hugetlbfs") {
        true => ", mounted",
        false => ", not mounted, which is not needed",
    }
}

/// Each node with a NIC needs pages of its own: buffers lie where the NIC is.
fn nodes(site: &Site<'_>, needed: u64, reserve: &dyn Fn(u64, &str) -> String) -> Vec<Finding> {
    if site.nodes().len() < 2 {
        return Vec::new();
    }
    let ports = site.pci_ports().into_iter();
    let mut wanted: Vec<_> = ports
        .filter_map(|(_, address)| site.node_of_pci(&address))
        .collect();
    wanted.sort_unstable();
    wanted.dedup();
    let short = wanted.into_iter().filter_map(|node| {
        let folder = format!("sys/devices/system/node/node{node}/hugepages");
        let free = free_mb(&pools(site, &folder));
        (free < needed).then(|| {
            warn(
                format!("NUMA node {node}, where NICs of the policy are, has {free} MB free"),
                reserve(needed, &format!(" --node {node}")),
            )
        })
    });
    short.collect()
}

/// What the kernel lets a process lock and open. The unit lifts both.
pub(super) fn limits(site: &Site<'_>) -> Vec<Finding> {
    let soft = |name: &str| -> Option<u64> {
        let text = site.text("proc/self/limits")?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        match line.split_ascii_whitespace().next()? {
            "unlimited" => Some(u64::MAX),
            number => number.parse().ok(),
        }
    };
    let capabilities = site.field("proc/self/status", "CapEff");
    let capabilities = capabilities.and_then(|hex| u64::from_str_radix(&hex, 16).ok());
    let free_to_lock = capabilities.unwrap_or(0) & IPC_LOCK != 0;
    let needed = site.needed_mb.unwrap_or(USUAL_MB) << 20;
    let (Some(lock), Some(files)) = (soft("Max locked memory"), soft("Max open files")) else {
        return vec![warn(
            "the limits of a process cannot be read",
            "mount proc: /proc/self/limits is missing",
        )];
    };
    let mut findings = Vec::new();
    if lock < needed && !free_to_lock {
        findings.push(warn(
            format!(
                "{} MB may be locked from here; {} MB are needed",
                lock >> 20,
                needed >> 20
            ),
            "ulimit -l unlimited, as root; the systemd unit has LimitMEMLOCK=infinity",
        ));
    }
    if files < FILES {
        findings.push(warn(
            format!("{files} files may be open from here"),
            format!("ulimit -n {FILES}; the systemd unit has LimitNOFILE=65536"),
        ));
    }
    if findings.is_empty() {
        let lock = match (lock, free_to_lock) {
            (u64::MAX, _) | (_, true) => "any amount of memory may be locked".to_owned(),
            _ => format!("{} MB may be locked", lock >> 20),
        };
        findings.push(ok(format!("{lock}, {files} files may be open")));
    }
    findings
}
