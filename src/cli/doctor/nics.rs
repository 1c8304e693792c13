//! NICs: their drivers, and the IOMMU that keeps what DPDK's drivers write inside its own memory.

use super::site::{Nic, Site};
use super::{Finding, counted, fail, ok, warn};

/// Drivers that give a device to user space.
const UIO: [&str; 2] = ["uio_pci_generic", "igb_uio"];
/// PCI vendors whose DPDK drivers work through the kernel's: NVIDIA (Mellanox), Microsoft.
const BIFURCATED: [&str; 2] = ["0x15b3", "0x1414"];
const NOIOMMU: &str = "sys/module/vfio/parameters/enable_unsafe_noiommu_mode";

/// Whether the NIC stays with its kernel driver.
fn is_bifurcated(site: &Site<'_>, address: &str) -> bool {
    let vendor = site.pci(address, "vendor");
    vendor.is_some_and(|vendor| BIFURCATED.contains(&vendor.as_str()))
}

/// Whether the policy, or the lack of one, makes VFIO matter.
enum Need {
    /// The policy's ports are no NICs, or such as stay with the kernel.
    None,
    /// All its NICs have UIO drivers.
    Uio,
    /// It has others.
    Vfio,
    /// Nobody says.
    Unknown,
}

fn need(site: &Site<'_>) -> Need {
    if site.policy.is_none() {
        return Need::Unknown;
    }
    let ports = site.pci_ports().into_iter();
    let mut addresses: Vec<_> = ports.map(|(_, address)| address).collect();
    addresses.retain(|address| !is_bifurcated(site, address));
    let uio = |address: &String| {
        let driver = site.driver(address);
        driver.is_some_and(|driver| UIO.contains(&driver.as_str()))
    };
    match () {
        () if addresses.is_empty() => Need::None,
        () if addresses.iter().all(uio) => Need::Uio,
        () => Need::Vfio,
    }
}

/// Whether unsafe VFIO is on.
fn noiommu(site: &Site<'_>) -> bool {
    matches!(site.text(NOIOMMU).as_deref(), Some("Y" | "1"))
}

/// Whether there is an IOMMU, and in which mode.
pub(super) fn iommu(site: &Site<'_>) -> Vec<Finding> {
    let groups = site.list("sys/kernel/iommu_groups");
    let units = site.list("sys/class/iommu");
    if !groups.is_empty() {
        let through = groups.iter().any(|group| {
            let kind = site.text(&format!("sys/kernel/iommu_groups/{group}/type"));
            kind.as_deref() == Some("identity")
        });
        let count = groups.len();
        let text = format!("{}, by {}", counted(count, "group"), units.join(" "));
        return vec![
            match through || site.boot_option("iommu").as_deref() == Some("pt") {
                true => ok(text),
                false => ok(
                    text + "; `iommu=pt` on the kernel's command line spares the kernel's own devices"
                ),
            },
        ];
    }
    let vendor = site.field("proc/cpuinfo", "vendor_id").unwrap_or_default();
    let words = match vendor.as_str() {
        "AuthenticAMD" => "iommu=pt",
        _ => "intel_iommu=on iommu=pt",
    };
    let how = format!(
        "turn on VT-d (AMD-Vi) in the firmware, add `{words}` to GRUB_CMDLINE_LINUX in \
         /etc/default/grub, update-grub, reboot"
    );
    let text = "no IOMMU is in use";
    vec![match need(site) {
        Need::None => ok(format!("{text}; none of the policy's ports needs one")),
        Need::Uio => warn(
            format!("{text}: the policy's NICs can write to all memory"),
            how,
        ),
        Need::Vfio if noiommu(site) => warn(
            format!("{text}: the policy's NICs can write to all memory"),
            how,
        ),
        Need::Vfio => fail(
            format!("{text}, and vfio-pci needs one"),
            format!(
                "{how}; where there is none: {} --driver uio_pci_generic ...",
                site.script("nic-bind")
            ),
        ),
        Need::Unknown => warn(format!("{text}, and vfio-pci needs one"), how),
    }]
}

/// Whether VFIO is there.
pub(super) fn vfio(site: &Site<'_>) -> Vec<Finding> {
    let need = need(site);
    if matches!(need, Need::None | Need::Uio) {
        return vec![ok("none of the policy's ports needs it")];
    }
    let loaded = site.exists("sys/bus/pci/drivers/vfio-pci");
    let node = site.exists("dev/vfio/vfio");
    let text = "vfio-pci is not loaded";
    vec![match (loaded, need) {
        (true, _) if noiommu(site) => warn(
            "vfio-pci is there, without an IOMMU (no-IOMMU mode): NICs can write to all memory",
            format!("turn the IOMMU on and then: echo N > /{NOIOMMU}"),
        ),
        (true, Need::Vfio) if !node => fail(
            "vfio-pci is there, but /dev/vfio/vfio is not",
            "in a container, hand /dev/vfio in; else: modprobe vfio",
        ),
        (true, _) => ok("vfio-pci is there"),
        // Binding a NIC loads it.
        (false, Need::Vfio) => fail(text, "modprobe vfio-pci"),
        (false, _) => ok(format!("{text}; binding a NIC loads it")),
    }]
}

/// Each NIC of the policy, or each that could be used.
pub(super) fn nics(site: &Site<'_>) -> Vec<Finding> {
    if site.policy.is_none() {
        return available(site);
    }
    let ports = site.pci_ports();
    if ports.is_empty() {
        return vec![ok("the policy has none")];
    }
    let each = ports.iter().flat_map(|(name, address)| {
        let mut findings = vec![port(site, name, address)];
        findings.extend(slot(site, name, address));
        findings
    });
    each.collect()
}

/// Why an interface should stay with the kernel.
fn keeps(site: &Site<'_>, interfaces: &[String]) -> Option<String> {
    let routes = site.default_routes();
    let carrier = interfaces.iter().find(|interface| {
        let above = |upper: &String| {
            // A bond, a bridge or a VLAN on top of it.
            site.exists(&format!("sys/class/net/{upper}/lower_{interface}"))
        };
        routes.contains(interface) || routes.iter().any(above)
    });
    carrier.map(|interface| format!("{interface} carries the default route"))
}

fn available(site: &Site<'_>) -> Vec<Finding> {
    let nics = site.nics();
    if nics.is_empty() {
        return vec![warn(
            "there is no NIC on the PCI bus",
            "put one in; a virtual device (`shardwall demo`) is for trying out",
        )];
    }
    let each = nics.into_iter().map(|nic| {
        let Nic {
            address,
            driver,
            interfaces,
        } = nic;
        let names = match interfaces.is_empty() {
            true => String::new(),
            false => format!(" ({})", interfaces.join(", ")),
        };
        let driver = driver.as_deref().unwrap_or("no driver");
        let text = format!("{address}{names}: {driver}");
        let script = site.script("nic-bind");
        ok(match keeps(site, &interfaces) {
            Some(why) => format!("{text}; {why}: leave it"),
            None if is_bifurcated(site, &address) => format!("{text}; usable as it is"),
            None if driver == "vfio-pci" || UIO.contains(&driver) => {
                format!("{text}; ready for a port of a policy")
            }
            None => format!("{text}; `{script} {address}` makes it usable"),
        })
    });
    each.collect()
}

/// A NIC that the policy names.
fn port(site: &Site<'_>, name: &str, address: &str) -> Finding {
    let text = format!("port `{name}`, {address}");
    let bind = format!("{} {address}", site.script("nic-bind"));
    if !site.has_pci(address) {
        return fail(
            format!("{text}: there is no such PCI device"),
            "`lspci -D -d ::02xx` lists the network devices; name one in the policy",
        );
    }
    if !site.is_network(address) {
        return fail(
            format!("{text}: it is no network device"),
            "`lspci -D -d ::02xx` lists the network devices; name one in the policy",
        );
    }
    let driver = site.driver(address);
    let driver = driver.as_deref().unwrap_or("no driver");
    let text = format!("{text}: {driver}");
    if is_bifurcated(site, address) {
        return match driver {
            "vfio-pci" | "no driver" => fail(
                format!("{text}; its PMD works through its kernel driver"),
                format!("{} --undo {address}", site.script("nic-bind")),
            ),
            _ => ok(text + ", with which it stays"),
        };
    }
    if driver != "vfio-pci" && !UIO.contains(&driver) {
        return match keeps(site, &site.interfaces(address)) {
            Some(why) => fail(format!("{text}; {why}"), "name another NIC in the policy"),
            None => fail(format!("{text} has it, not DPDK"), bind),
        };
    }
    if driver == "vfio-pci"
        && let Some(other) = other_of_group(site, address)
    {
        return fail(
            format!("{text}; {other}"),
            "bind both, or put the NIC into another slot",
        );
    }
    if driver == "vfio-pci"
        && let Some(group) = site.group(address)
        && !site.exists(&format!("dev/vfio/{group}"))
        && !site.exists(&format!("dev/vfio/noiommu-{group}"))
    {
        return fail(
            format!("{text}, but there is no /dev/vfio/{group}"),
            "in a container, hand /dev/vfio in",
        );
    }
    if !site.exists(&format!("etc/driverctl.d/pci-{address}")) {
        return warn(
            format!("{text} until the next boot"),
            format!("apt-get install driverctl && {bind}"),
        );
    }
    ok(text)
}

/// A device of the same IOMMU group that the kernel still has: they go to user space together.
fn other_of_group(site: &Site<'_>, address: &str) -> Option<String> {
    let folder = format!("sys/bus/pci/devices/{address}/iommu_group/devices");
    let others = site.list(&folder).into_iter();
    let mut others = others.filter(|other| other != address);
    others.find_map(|other| {
        // Bridges have no memory of their own to write to.
        let bridge = site.pci(&other, "class")?.starts_with("0x06");
        let driver = site.driver(&other)?;
        let user = matches!(driver.as_str(), "vfio-pci" | "pci-stub");
        (!bridge && !user).then(|| format!("{other} of the same IOMMU group is {driver}'s"))
    })
}

/// Whether the slot gives what the NIC could use.
fn slot(site: &Site<'_>, name: &str, address: &str) -> Option<Finding> {
    let width = |what| -> Option<u32> { site.pci(address, what)?.parse().ok() };
    let (is, most) = (width("current_link_width")?, width("max_link_width")?);
    // Virtual devices say 0 of 0.
    (is > 0 && is < most).then(|| {
        warn(
            format!("port `{name}`, {address}: x{is} of the x{most} lanes that it could use"),
            "put it into a wider slot",
        )
    })
}
