//! The machine, the programs on it, and the appliance's own service.

use super::site::{Appliance, Site};
use super::{Finding, counted, fail, ok, warn};
use crate::dataplane::device::driver_of;
use std::collections::BTreeSet;

/// Where Debian's DPDK has its plugins: a folder for each ABI.
const PLUGINS: &str = "usr/lib/x86_64-linux-gnu/dpdk";
/// The same elsewhere.
const PLUGINS_ARM: &str = "usr/lib/aarch64-linux-gnu/dpdk";

/// PCI vendors, and the PMDs for what they make, of which one is needed.
const VENDORS: &[(&str, &[&str])] = &[
    (
        "0x8086",
        &[
            "i40e", "ice", "ixgbe", "e1000", "igc", "iavf", "fm10k", "idpf",
        ],
    ),
    ("0x15b3", &["mlx5", "mlx4"]),
    ("0x1af4", &["virtio"]),
    ("0x15ad", &["vmxnet3"]),
    ("0x1d0f", &["ena"]),
    ("0x14e4", &["bnxt", "bnx2x"]),
    ("0x1077", &["qede"]),
    ("0x1425", &["cxgbe"]),
    ("0x1924", &["sfc"]),
    ("0x1dd8", &["ionic"]),
    ("0x19e5", &["hinic", "hns3"]),
    ("0x177d", &["cnxk", "octeontx", "thunderx"]),
    ("0x1137", &["enic"]),
    ("0x19ee", &["nfp"]),
    ("0x1d6a", &["atlantic"]),
    ("0x8088", &["txgbe", "ngbe"]),
    ("0x1022", &["axgbe"]),
];

/// What kind of machine this is.
pub(super) fn machine(site: &Site<'_>) -> Vec<Finding> {
    let kernel = site.text("proc/sys/kernel/osrelease").unwrap_or_default();
    let cpu = site.field("proc/cpuinfo", "model name").unwrap_or_default();
    let text = format!("Linux {kernel}, {cpu}");
    let container = site.exists(".dockerenv")
        || site.exists("run/.containerenv")
        || site.exists("run/systemd/container");
    if container {
        return vec![warn(
            format!("{text}, in a container"),
            "hand in /dev/vfio, /dev/net/tun, the hugepages, and a cpuset with the workers' cores",
        )];
    }
    if site.cpu_flag("hypervisor") {
        let by = site.text("sys/class/dmi/id/sys_vendor").unwrap_or_default();
        let by = if by.is_empty() {
            by
        } else {
            format!(" ({by})")
        };
        return vec![ok(format!(
            "{text}, a virtual machine{by}: pin its processors and back its memory by hugepages outside"
        ))];
    }
    vec![ok(text)]
}

/// Whether DPDK's drivers for these ports are there. They are loaded at run time, so nothing else says
/// that one is missing.
pub(super) fn dpdk(site: &Site<'_>) -> Vec<Finding> {
    if !cfg!(feature = "dpdk") {
        return vec![fail(
            "this binary was built without DPDK: it runs no ports",
            "build it with the default features",
        )];
    }
    if cfg!(feature = "static") {
        return vec![ok("linked into the binary, drivers and all")];
    }
    let plugins = [PLUGINS, PLUGINS_ARM].iter().flat_map(|folder| {
        let abis = site.list(folder).into_iter();
        let abis = abis.filter(|name| name.starts_with("pmds-"));
        abis.flat_map(move |abi| site.list(&format!("{folder}/{abi}")))
    });
    // `librte_net_tap.so.23`; without the number where the headers are installed too.
    let plugins: BTreeSet<_> = plugins
        .filter_map(|file| {
            let (name, _) = file.strip_prefix("librte_")?.split_once(".so")?;
            Some(name.to_owned())
        })
        .collect();
    let has = |name: &str| plugins.contains(name);
    if plugins.is_empty() {
        return vec![fail(
            "DPDK's drivers are not installed",
            "apt-get install librte-meta-bus librte-meta-mempool librte-meta-net",
        )];
    }
    let mut missing = Vec::new();
    let mut need = |there: bool, what: &str, package: String| {
        if !there {
            let mend = format!("apt-get install '{package}'");
            missing.push(fail(format!("DPDK's {what} is not installed"), mend));
        }
    };
    need(
        has("mempool_ring"),
        "mempool_ring",
        "librte-mempool-ring*".into(),
    );
    let (pci, virtual_ports) = (site.pci_ports(), site.virtual_ports());
    need(
        pci.is_empty() || has("bus_pci"),
        "bus_pci",
        "librte-bus-pci*".into(),
    );
    need(
        virtual_ports.is_empty() || has("bus_vdev"),
        "bus_vdev",
        "librte-bus-vdev*".into(),
    );
    for port in virtual_ports {
        let driver = driver_of(&port.device);
        let package = format!("librte-{}*", driver.replace('_', "-"));
        let what = format!("{driver}, for port `{}`,", port.name);
        need(has(driver), &what, package);
    }
    for (name, address) in pci {
        let vendor = site.pci(&address, "vendor").unwrap_or_default();
        let Some((_, drivers)) = VENDORS.iter().find(|(known, _)| *known == vendor) else {
            continue;
        };
        let there = drivers.iter().any(|driver| has(&format!("net_{driver}")));
        let what = format!(
            "driver for port `{name}` ({address}, one of {})",
            drivers.join(", ")
        );
        need(there, &what, "librte-meta-net".into());
    }
    if missing.is_empty() {
        let net = plugins.iter().filter(|name| name.starts_with("net_"));
        let (net, version) = (net.count(), version());
        missing.push(ok(format!("{version}, {net} drivers for ports")));
    }
    missing
}

#[cfg(feature = "dpdk")]
fn version() -> String {
    crate::dataplane::dpdk::Eal::version()
}

#[cfg(not(feature = "dpdk"))]
fn version() -> String {
    String::new()
}

/// Whether the appliance comes up by itself.
pub(super) fn service(site: &Site<'_>) -> Vec<Finding> {
    let places = ["etc", "lib", "usr/lib"];
    let unit = places
        .iter()
        .any(|place| site.exists(&format!("{place}/systemd/system/shardwall.service")));
    let enabled = "etc/systemd/system/multi-user.target.wants/shardwall.service";
    vec![match (unit, site.exists(enabled)) {
        (false, _) => ok("no unit is installed; the Debian package brings one"),
        (true, true) => ok("shardwall.service starts at boot"),
        (true, false) => warn(
            "shardwall.service does not start at boot",
            "systemctl enable --now shardwall",
        ),
    }]
}

/// Whether an appliance answers.
pub(super) fn socket(site: &Site<'_>) -> Vec<Finding> {
    let path = site.socket.display();
    let file = site.exists(&site.socket.to_string_lossy());
    vec![match &site.appliance {
        Appliance::Runs(ports) => ok(format!(
            "an appliance with {} answers at {path}",
            counted(ports.len(), "port")
        )),
        Appliance::Denied => warn(
            format!("{path} is for another user"),
            "run this as root, or as the user that the appliance runs as",
        ),
        Appliance::Silent(why) => warn(
            format!("the appliance at {path} does not answer: {why}"),
            "systemctl restart shardwall, and look into its log (journalctl -u shardwall)",
        ),
        Appliance::Absent if file => warn(
            format!("nobody listens at {path}: an appliance ended without cleaning up"),
            "systemctl start shardwall; it removes what was left behind",
        ),
        Appliance::Absent => ok(format!("no appliance runs (nobody listens at {path})")),
    }]
}
