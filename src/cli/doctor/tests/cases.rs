//! The box where all is well, and what each check says of others.

use super::Verdict::{Fail, Ok, Warn};
use super::{Case, Who};

pub(super) const NICS: &str = "a: { device: \"0000:03:00.0\" }, b: { device: \"0000:03:00.1\" }";
const TAPS: &str = "a: { device: \"net_tap0,iface=sw0\" }, b: { device: \"net_tap1,iface=sw1\" }";
const PACKET: &str = "a: { device: \"net_af_packet0,iface=eth7\" }, b: { device: \"net_null0\" }";
pub(super) const SYSTEM: &str = "cores: [2, 3]";

/// Four cores on two nodes, two NICs on the second one, which two isolated cores serve.
pub(super) const BOX: &[(&str, &str)] = &[
    ("proc/sys/kernel/osrelease", "6.1.0-30-amd64\n"),
    (
        "proc/cpuinfo",
        "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Xeon\nflags\t\t: fpu tsc nonstop_tsc\n",
    ),
    (
        "proc/cmdline",
        "root=/dev/sda1 intel_iommu=on iommu=pt isolcpus=2,3 nohz_full=2,3 rcu_nocbs=2,3\n",
    ),
    (
        "proc/self/status",
        "Uid:\t0\nCapEff:\t0000000000000000\nCpus_allowed_list:\t0-3\n",
    ),
    (
        "proc/self/limits",
        "Limit                     Soft Limit           Hard Limit           Units     \n\
         Max open files            65536                65536                files     \n\
         Max locked memory         unlimited            unlimited            bytes     \n",
    ),
    (
        "proc/self/mounts",
        "hugetlbfs /dev/hugepages hugetlbfs rw 0 0\n",
    ),
    (
        "proc/net/route",
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
         eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
         eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n",
    ),
    ("proc/1/comm", "systemd\n"),
    (
        "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
        "1024\n",
    ),
    (
        "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages",
        "512\n",
    ),
    (
        "sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages",
        "0\n",
    ),
    (
        "sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages",
        "0\n",
    ),
    (
        "sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages",
        "0\n",
    ),
    ("sys/devices/system/node/node0/cpulist", "0-1\n"),
    ("sys/devices/system/node/node1/cpulist", "2-3\n"),
    (
        "sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages",
        "512\n",
    ),
    (
        "sys/devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages",
        "512\n",
    ),
    ("sys/kernel/iommu_groups/7/type", "DMA\n"),
    ("sys/class/iommu/dmar0/name", ""),
    ("sys/bus/pci/drivers/vfio-pci/bind", ""),
    ("dev/vfio/vfio", ""),
    ("dev/vfio/7", ""),
    ("dev/net/tun", ""),
    ("sys/bus/pci/devices/0000:00:1f.6/class", "0x020000\n"),
    ("sys/bus/pci/devices/0000:00:1f.6/vendor", "0x8086\n"),
    ("sys/bus/pci/devices/0000:00:1f.6/net/eth0/mtu", "1500\n"),
    ("sys/bus/pci/devices/0000:03:00.0/class", "0x020000\n"),
    ("sys/bus/pci/devices/0000:03:00.0/vendor", "0x8086\n"),
    ("sys/bus/pci/devices/0000:03:00.0/numa_node", "1\n"),
    ("sys/bus/pci/devices/0000:03:00.0/current_link_width", "8\n"),
    ("sys/bus/pci/devices/0000:03:00.0/max_link_width", "8\n"),
    ("sys/bus/pci/devices/0000:03:00.1/class", "0x020000\n"),
    ("sys/bus/pci/devices/0000:03:00.1/vendor", "0x8086\n"),
    ("sys/bus/pci/devices/0000:03:00.1/numa_node", "1\n"),
    ("sys/bus/pci/devices/0000:00:00.0/class", "0x060000\n"),
    ("sys/kernel/iommu_groups/7/devices/.keep", ""),
    ("etc/driverctl.d/pci-0000:03:00.0", "vfio-pci\n"),
    ("etc/driverctl.d/pci-0000:03:00.1", "vfio-pci\n"),
    ("sys/devices/system/cpu/online", "0-3\n"),
    ("sys/devices/system/cpu/isolated", "2-3\n"),
    ("sys/devices/system/cpu/nohz_full", "2-3\n"),
    ("sys/devices/system/cpu/smt/active", "0\n"),
    (
        "sys/devices/system/cpu/cpu2/cpufreq/scaling_governor",
        "performance\n",
    ),
    (
        "sys/devices/system/cpu/cpu3/cpufreq/scaling_governor",
        "performance\n",
    ),
    (
        "sys/devices/system/clocksource/clocksource0/current_clocksource",
        "tsc\n",
    ),
    (
        "sys/devices/system/clocksource/clocksource0/available_clocksource",
        "tsc hpet acpi_pm \n",
    ),
    (
        "usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0/librte_bus_pci.so.23",
        "",
    ),
    (
        "usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0/librte_bus_vdev.so.23",
        "",
    ),
    (
        "usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0/librte_mempool_ring.so.23",
        "",
    ),
    (
        "usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0/librte_net_ice.so.23",
        "",
    ),
    (
        "usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0/librte_net_tap.so.23",
        "",
    ),
    (
        "usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0/librte_net_null.so.23",
        "",
    ),
    ("lib/systemd/system/shardwall.service", ""),
    (
        "etc/systemd/system/multi-user.target.wants/shardwall.service",
        "",
    ),
    ("sys/class/net/eth7/ifindex", "7\n"),
];

/// Its symbolic links.
pub(super) const LINKS: &[(&str, &str)] = &[
    (
        "sys/bus/pci/devices/0000:00:1f.6/driver",
        "../../../../bus/pci/drivers/e1000e",
    ),
    (
        "sys/bus/pci/devices/0000:03:00.0/driver",
        "../../../../bus/pci/drivers/vfio-pci",
    ),
    (
        "sys/bus/pci/devices/0000:03:00.1/driver",
        "../../../../bus/pci/drivers/vfio-pci",
    ),
    (
        "sys/bus/pci/devices/0000:00:00.0/driver",
        "../../../../bus/pci/drivers/pcieport",
    ),
    (
        "sys/bus/pci/devices/0000:03:00.0/iommu_group",
        "../../../../kernel/iommu_groups/7",
    ),
    (
        "sys/bus/pci/devices/0000:03:00.1/iommu_group",
        "../../../../kernel/iommu_groups/7",
    ),
    ("sys/kernel/iommu_groups/7/devices/0000:03:00.0", "x"),
    ("sys/kernel/iommu_groups/7/devices/0000:03:00.1", "x"),
];

const UIO: &[&str] = &[
    "-sys/kernel/iommu_groups",
    "-sys/class/iommu",
    "sys/bus/pci/devices/0000:03:00.0/driver>../uio_pci_generic",
    "sys/bus/pci/devices/0000:03:00.1/driver>../uio_pci_generic",
];

const fn case(
    check: &'static str,
    verdict: super::Verdict,
    found: &'static str,
    mend: &'static str,
) -> Case {
    Case {
        check,
        policy: Some((NICS, SYSTEM)),
        changes: &[],
        appliance: Who::Nobody,
        verdict,
        found,
        mend,
    }
}

impl Case {
    const fn on(self, changes: &'static [&'static str]) -> Self {
        Self { changes, ..self }
    }

    const fn under(self, ports: &'static str, system: &'static str) -> Self {
        let policy = Some((ports, system));
        Self { policy, ..self }
    }

    const fn without(self) -> Self {
        Self {
            policy: None,
            ..self
        }
    }

    const fn asking(self, appliance: Who) -> Self {
        Self { appliance, ..self }
    }
}

/// A PCI device's configuration: power management at 0x40, and behind it the given capability, the last.
macro_rules! concat_config {
    ($path:literal, $capability:literal) => {
        concat!(
            $path,
            "\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\0\0", // the status says: there is a list
            "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            "\0\0\0\0\x40\0\0\0\0\0\0\0\0\0\0\0", // which begins at 0x40
            "\x01\x48\0\0\0\0\0\0",
            $capability,
            "\0\0\0\0",
        )
    };
}

/// One for each thing that a check can say.
pub(super) const CASES: &[Case] = &[
    // machine
    case("machine", Ok, "Linux 6.1.0-30-amd64, Xeon", ""),
    case("machine", Ok, "a virtual machine (QEMU)", "").on(&[
        "proc/cpuinfo=model name : Xeon\nflags : fpu hypervisor\n",
        "sys/class/dmi/id/sys_vendor=QEMU\n",
    ]),
    case("machine", Warn, "in a container", "/dev/vfio").on(&[".dockerenv="]),
    case("machine", Warn, "in a container", "cpuset").on(&["run/systemd/container=lxc"]),
    // dpdk
    #[cfg(feature = "dpdk")]
    case("dpdk", Ok, "3 drivers for ports", ""),
    #[cfg(feature = "dpdk")]
    case("dpdk", Ok, "3 drivers for ports", "")
        .on(&["usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0/librte_net_tap.so="]),
    #[cfg(feature = "dpdk")]
    case("dpdk", Ok, "DPDK", "").without(),
    #[cfg(feature = "dpdk")]
    case("dpdk", Fail, "are not installed", "apt-get install librte-meta-bus")
        .on(&["-usr/lib/x86_64-linux-gnu/dpdk"]),
    #[cfg(feature = "dpdk")]
    case("dpdk", Fail, "mempool_ring", "librte-mempool-ring")
        .on(&["-usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0/librte_mempool_ring.so.23"]),
    #[cfg(feature = "dpdk")]
    case("dpdk", Fail, "bus_pci", "librte-bus-pci")
        .on(&["-usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0/librte_bus_pci.so.23"]),
    #[cfg(feature = "dpdk")]
    case("dpdk", Fail, "bus_vdev", "librte-bus-vdev")
        .on(&["-usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0/librte_bus_vdev.so.23"])
        .under(TAPS, SYSTEM),
    #[cfg(feature = "dpdk")]
    case("dpdk", Fail, "net_tap, for port `a`", "librte-net-tap*")
        .on(&["-usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0/librte_net_tap.so.23"])
        .under(TAPS, SYSTEM),
    #[cfg(feature = "dpdk")]
    case("dpdk", Fail, "(0000:03:00.0, one of i40e, ice", "librte-meta-net")
        .on(&["-usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0/librte_net_ice.so.23"]),
    #[cfg(not(feature = "dpdk"))]
    case("dpdk", Fail, "without DPDK", "default features"),
    // hugepages
    case("hugepages", Ok, "512 of 1024 pages of 2 MiB free (1024 MB); the policy takes 200 MB, mounted", ""),
    case("hugepages", Ok, "not mounted, which is not needed", "").on(&["proc/self/mounts="]),
    case("hugepages", Ok, "the policy wants none", "").under(TAPS, "hugepages: off"),
    case("hugepages", Warn, "ordinary pages are slower", "hugepages: off").under(NICS, "hugepages: off"),
    case("hugepages", Warn, "no hugepages", "CONFIG_HUGETLBFS").on(&["-sys/kernel/mm"]),
    case("hugepages", Fail, "no hugepages", "CONFIG_HUGETLBFS")
        .on(&["-sys/kernel/mm"])
        .under(NICS, "hugepages: required"),
    case("hugepages", Warn, "0 of 1024 pages", "deploy/hugepages.sh --memory 200M --persist")
        .on(&["sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages=0\n"]),
    case("hugepages", Warn, "(2 MB)", "shardwall-hugepages --memory 200M")
        .on(&["sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages=511\n", "usr/sbin/shardwall-hugepages="]),
    case("hugepages", Fail, "none is reserved", "--memory 200M")
        .on(&[
            "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages=0\n",
            "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages=0\n",
        ])
        .under(NICS, "hugepages: required"),
    case("hugepages", Ok, "the running appliance has its own", "")
        .on(&["sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages=0\n"])
        .asking(Who::Rss("toeplitz")),
    case("hugepages", Warn, "NUMA node 1, where NICs of the policy are, has 8 MB free", "--node 1")
        .on(&["sys/devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages=4\n"]),
    case("hugepages", Ok, "512 of 1024", "").without(),
    case("hugepages", Warn, "0 of 1024", "--memory 1024M")
        .on(&["sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages=0\n"])
        .without(),
    // limits
    case("limits", Ok, "any amount of memory may be locked, 65536 files", ""),
    case("limits", Warn, "8 MB may be locked", "ulimit -l")
        .on(&["proc/self/limits=Max open files  65536 65536 files\nMax locked memory  8388608 8388608 bytes\n"]),
    case("limits", Ok, "any amount", "").on(&[
        "proc/self/limits=Max open files  65536 65536 files\nMax locked memory  8388608 8388608 bytes\n",
        "proc/self/status=CapEff:\t0000000000004000\n",
    ]),
    case("limits", Ok, "1024 MB may be locked", "").on(&[
        "proc/self/limits=Max open files  65536 65536 files\nMax locked memory  1073741824 1073741824 bytes\n",
    ]),
    case("limits", Warn, "256 files", "ulimit -n")
        .on(&["proc/self/limits=Max open files  256 65536 files\nMax locked memory  unlimited unlimited bytes\n"]),
    case("limits", Warn, "cannot be read", "proc").on(&["-proc/self/limits"]),
    // iommu
    case("iommu", Ok, "1 group, by dmar0", ""),
    case("iommu", Ok, "`iommu=pt`", "").on(&["proc/cmdline=quiet\n"]),
    case("iommu", Fail, "vfio-pci needs one", "intel_iommu=on iommu=pt")
        .on(&["-sys/kernel/iommu_groups", "-sys/class/iommu"]),
    case("iommu", Fail, "vfio-pci needs one", "add `iommu=pt`")
        .on(&["-sys/kernel/iommu_groups", "-sys/class/iommu", "proc/cpuinfo=vendor_id : AuthenticAMD\n"]),
    case("iommu", Warn, "can write to all memory", "VT-d").on(UIO),
    case("iommu", Warn, "can write to all memory", "VT-d").on(&[
        "-sys/kernel/iommu_groups",
        "sys/module/vfio/parameters/enable_unsafe_noiommu_mode=Y\n",
    ]),
    case("iommu", Ok, "none of the policy's ports", "")
        .on(&["-sys/kernel/iommu_groups"])
        .under(TAPS, SYSTEM),
    case("iommu", Warn, "no IOMMU", "VT-d").on(&["-sys/kernel/iommu_groups"]).without(),
    // vfio
    case("vfio", Ok, "is there", ""),
    case("vfio", Ok, "none of the policy's ports", "").under(TAPS, SYSTEM),
    case("vfio", Ok, "none of the policy's ports", "").on(UIO),
    case("vfio", Fail, "not loaded", "modprobe vfio-pci").on(&["-sys/bus/pci/drivers"]),
    case("vfio", Fail, "/dev/vfio/vfio is not", "container").on(&["-dev/vfio/vfio"]),
    case("vfio", Warn, "no-IOMMU mode", "echo N")
        .on(&["sys/module/vfio/parameters/enable_unsafe_noiommu_mode=1\n"]),
    case("vfio", Ok, "binding a NIC loads it", "").on(&["-sys/bus/pci/drivers"]).without(),
    // nics
    case("nics", Ok, "port `a`, 0000:03:00.0: vfio-pci", ""),
    case("nics", Ok, "the policy has none", "").under(TAPS, SYSTEM),
    case("nics", Fail, "there is no such PCI device", "lspci").under(
        "a: { device: \"0000:99:00.0\" }, b: { device: \"03:00.1\" }",
        SYSTEM,
    ),
    case("nics", Fail, "it is no network device", "lspci").under(
        "a: { device: \"0000:00:00.0\" }, b: { device: \"03:00.1\" }",
        SYSTEM,
    ),
    case("nics", Fail, "ice has it, not DPDK", "deploy/nic-bind.sh 0000:03:00.0")
        .on(&["sys/bus/pci/devices/0000:03:00.0/driver>../ice"]),
    case("nics", Fail, "no driver has it", "shardwall-nic-bind 0000:03:00.0")
        .on(&["-sys/bus/pci/devices/0000:03:00.0/driver", "usr/sbin/shardwall-nic-bind="]),
    case("nics", Fail, "eth0 carries the default route", "another NIC").under(
        "a: { device: \"0000:00:1f.6\" }, b: { device: \"03:00.1\" }",
        SYSTEM,
    ),
    case("nics", Fail, "eth0 carries the default route", "another NIC")
        .on(&[
            "proc/net/route=Iface\nbond0 00000000 0100A8C0 0003 0 0 0 00000000\n",
            "sys/class/net/bond0/lower_eth0/mtu=1500",
        ])
        .under("a: { device: \"0000:00:1f.6\" }, b: { device: \"03:00.1\" }", SYSTEM),
    case("nics", Fail, "eth0 carries the default route", "another NIC")
        .on(&[
            "-proc/net/route",
            "proc/net/ipv6_route=00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
             fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0\n",
        ])
        .under("a: { device: \"0000:00:1f.6\" }, b: { device: \"03:00.1\" }", SYSTEM),
    case("nics", Fail, "0000:04:00.0 of the same IOMMU group is snd's", "bind both").on(&[
        "sys/kernel/iommu_groups/7/devices/0000:04:00.0>x",
        "sys/bus/pci/devices/0000:04:00.0/class=0x040300\n",
        "sys/bus/pci/devices/0000:04:00.0/driver>../snd",
    ]),
    case("nics", Ok, "vfio-pci", "").on(&["sys/kernel/iommu_groups/7/devices/0000:00:00.0>x"]),
    case("nics", Fail, "there is no /dev/vfio/7", "container").on(&["-dev/vfio/7"]),
    case("nics", Warn, "until the next boot", "apt-get install driverctl")
        .on(&["-etc/driverctl.d/pci-0000:03:00.0"]),
    case("nics", Ok, "mlx5_core, with which it stays", "").on(&[
        "sys/bus/pci/devices/0000:03:00.0/vendor=0x15b3\n",
        "sys/bus/pci/devices/0000:03:00.0/driver>../mlx5_core",
        "sys/bus/pci/devices/0000:03:00.1/vendor=0x15b3\n",
        "sys/bus/pci/devices/0000:03:00.1/driver>../mlx5_core",
    ]),
    case("nics", Fail, "works through its kernel driver", "--undo")
        .on(&["sys/bus/pci/devices/0000:03:00.0/vendor=0x15b3\n"]),
    case("nics", Warn, "x4 of the x8 lanes", "wider slot")
        .on(&["sys/bus/pci/devices/0000:03:00.0/current_link_width=4\n"]),
    case("nics", Ok, "0000:00:1f.6 (eth0): e1000e; eth0 carries the default route: leave it", "").without(),
    case("nics", Ok, "0000:03:00.0: vfio-pci; ready for a port", "").without(),
    case("nics", Ok, "0000:03:00.0 (eth5): ice; `deploy/nic-bind.sh 0000:03:00.0` makes it usable", "")
        .on(&[
            "sys/bus/pci/devices/0000:03:00.0/driver>../ice",
            "sys/bus/pci/devices/0000:03:00.0/net/eth5/mtu=1500",
        ])
        .without(),
    case("nics", Ok, "(eth6)", "")
        .on(&["sys/bus/pci/devices/0000:03:00.0/virtio3/net/eth6/mtu=1500"])
        .without(),
    case("nics", Warn, "no NIC", "put one in").on(&["-sys/bus/pci/devices"]).without(),
    // ports
    case("ports", Ok, "all are NICs", ""),
    case("ports", Ok, "no policy", "").without(),
    case("ports", Ok, "port `a`, net_tap0,iface=sw0", "").under(TAPS, SYSTEM),
    case("ports", Fail, "no /dev/net/tun", "modprobe tun").on(&["-dev/net/tun"]).under(TAPS, SYSTEM),
    case("ports", Fail, "another process has the other end of sw0", "iface=")
        .on(&["sys/class/net/sw0/carrier=1\n"])
        .under(TAPS, SYSTEM),
    case("ports", Ok, "net_tap0", "")
        .on(&["sys/class/net/sw0/carrier=1\n"])
        .under(TAPS, SYSTEM)
        .asking(Who::Rss("none")),
    case("ports", Fail, "name is too long", "15 characters")
        .under("a: { device: \"net_tap0,iface=a123456789012345\" }, b: { device: net_null0 }", SYSTEM),
    case("ports", Ok, "net_af_packet0", "").under(PACKET, SYSTEM),
    case("ports", Fail, "no interface eth7", "ip -br link").on(&["-sys/class/net/eth7"]).under(PACKET, SYSTEM),
    case("ports", Fail, "eth7 is a part of br0", "nomaster")
        .on(&["sys/class/net/eth7/master>../br0"])
        .under(PACKET, SYSTEM),
    case("ports", Warn, "eth7 has an address", "flush dev eth7")
        .on(&["proc/net/route=Iface\neth7 0000A8C0 00000000 0001 0 0 0 00FFFFFF\n"])
        .under(PACKET, SYSTEM),
    case("ports", Fail, "the kernel routes ipv4 too", "sysctl -w net.ipv4.conf.all.forwarding=0")
        .on(&[
            "proc/net/route=Iface\neth7 0000A8C0 00000000 0001 0 0 0 00FFFFFF\n",
            "proc/sys/net/ipv4/conf/all/forwarding=1\n",
        ])
        .under(PACKET, SYSTEM),
    // rss
    case("rss", Ok, "`shardwall ports` shows it", ""),
    case("rss", Ok, "port `a`, 0000:03:00.0: 2 receive queues with its kernel driver", "").on(&[
        "sys/bus/pci/devices/0000:03:00.0/net/eth5/mtu=1500",
        "sys/class/net/eth5/queues/rx-0/rps_cpus=0",
        "sys/class/net/eth5/queues/rx-1/rps_cpus=0",
        "sys/class/net/eth5/queues/tx-0/xps_cpus=0",
    ]),
    case("rss", Ok, "port `b`, 0000:03:00.1: 5 interrupt vectors", "")
        .on(&[concat_config!("sys/bus/pci/devices/0000:03:00.1/config=", "\x11\0\x04\0")]),
    case("rss", Warn, "port `b`, 0000:03:00.1: it has no MSI-X", "workers: 1")
        .on(&[concat_config!("sys/bus/pci/devices/0000:03:00.1/config=", "\x05\0\x04\0")]),
    case("rss", Ok, "one worker", "").under(NICS, "workers: 1"),
    case("rss", Ok, "port `a`: toeplitz, table of 128", "").asking(Who::Rss("toeplitz, table of 128")),
    case("rss", Warn, "port `a`: none: one receive queue", "queues")
        .asking(Who::Rss("none: one receive queue")),
    case("rss", Warn, "its hashes are wrong", "shardwall workers").asking(Who::WrongHash),
    // firewall
    case("firewall", Ok, "none of the kernel's", ""),
    case("firewall", Ok, "firewalld: for this host only", "").on(&["proc/77/comm=firewalld\n"]),
    case("firewall", Warn, "ufw, nftables.service sees what comes by eth7 (port `a`), bridged packets too", "prerouting")
        .on(&[
            "etc/ufw/ufw.conf=ENABLED=yes\n",
            "etc/systemd/system/sysinit.target.wants/nftables.service=",
            "proc/sys/net/bridge/bridge-nf-call-iptables=1\n",
        ])
        .under(PACKET, SYSTEM),
    case("firewall", Warn, "netfilter-persistent, iptables (legacy) sees", "leave eth7 out")
        .on(&[
            "etc/systemd/system/multi-user.target.wants/netfilter-persistent.service=",
            "proc/net/ip_tables_names=filter\n",
        ])
        .under(PACKET, SYSTEM),
    case("firewall", Ok, "the kernel's connection tracking: for this host only", "")
        .on(&["proc/sys/net/netfilter/nf_conntrack_count=3\n"]),
    case("firewall", Ok, "none of the kernel's", "")
        .on(&["proc/sys/net/netfilter/nf_conntrack_count=0\n"]),
    // managers
    case("managers", Ok, "nobody else", ""),
    case("managers", Ok, "nobody else's", "").without(),
    case("managers", Warn, "NetworkManager manages eth7 (port `a`)", "nmcli device set eth7 managed no")
        .on(&["run/NetworkManager/devices/7=[device]\nmanaged=true\n"])
        .under(PACKET, SYSTEM),
    case("managers", Ok, "nobody", "")
        .on(&["run/NetworkManager/devices/7=[device]\nmanaged=false\n"])
        .under(PACKET, SYSTEM),
    case("managers", Warn, "systemd-networkd sets up sw0", "Unmanaged=yes")
        .on(&["sys/class/net/sw0/ifindex=9\n", "run/systemd/netif/links/9=ADMIN_STATE=configured\n"])
        .under(TAPS, SYSTEM),
    // cores
    case("cores", Ok, "2 workers on 2-3 of 0-3", ""),
    case("cores", Ok, "1 worker on 3 of 0-3", "").under(NICS, "workers: 1"),
    case("cores", Fail, "no core 9", "cores").under(NICS, "cores: [2, 9]"),
    case("cores", Warn, "workers share cores", "fewer `workers`").under(NICS, "workers: 9"),
    case("cores", Ok, "yield or sleep", "").under(NICS, "workers: 9, idle: sleep"),
    case("cores", Warn, "none is left", "fewer `workers`").under(NICS, "cores: [0, 1, 2, 3]"),
    case("cores", Warn, "only 0-1 may be used", "AllowedCPUs")
        .on(&["proc/self/status=Cpus_allowed_list:\t0-1\n"]),
    case("cores", Ok, "4 are there", "").without(),
    case("cores", Warn, "1 are there", "two cores").on(&["sys/devices/system/cpu/online=0\n"]).without(),
    // isolation
    case("isolation", Ok, "cores 2-3 are isolated, without ticks and RCU callbacks", ""),
    case("isolation", Warn, "cores 1,3 of the workers", "isolcpus=1,3 nohz_full=1,3 rcu_nocbs=1,3")
        .under(NICS, "cores: [3, 1]"),
    case("isolation", Warn, "take timer ticks", "nohz_full=2-3")
        .on(&["sys/devices/system/cpu/nohz_full=(null)\n"]),
    case("isolation", Ok, "leave their cores", "").under(NICS, "idle: sleep"),
    case("isolation", Ok, "cores 2-3 are isolated", "").without(),
    case("isolation", Ok, "no core is isolated", "")
        .on(&["sys/devices/system/cpu/isolated=\n"])
        .without(),
    // interrupts
    case("interrupts", Ok, "does not run", ""),
    case("interrupts", Ok, "leaves the workers' cores alone", "").on(&["proc/88/comm=irqbalance\n"]),
    case("interrupts", Warn, "the workers' cores 2-3", "IRQBALANCE_BANNED_CPULIST=2-3")
        .on(&["proc/88/comm=irqbalance\n", "sys/devices/system/cpu/isolated=\n"]),
    case("interrupts", Ok, "leaves the workers' cores alone", "").on(&[
        "proc/88/comm=irqbalance\n",
        "sys/devices/system/cpu/isolated=\n",
        "etc/default/irqbalance=IRQBALANCE_BANNED_CPULIST=\"2-3\"\n",
    ]),
    case("interrupts", Ok, "isolated cores", "").on(&["proc/88/comm=irqbalance\n"]).without(),
    // numa
    case("numa", Ok, "2 nodes; workers are on 1", ""),
    case("numa", Ok, "one node", "").on(&["-sys/devices/system/node/node1"]),
    case("numa", Ok, "2 nodes", "").without(),
    case("numa", Warn, "port `a` is on node 1, and the workers' cores 1 are not", "cores of 2-3")
        .under(NICS, "cores: [1, 2]"),
    // smt
    case("smt", Ok, "no core has two threads", ""),
    case("smt", Ok, "idle", "").on(&[
        "sys/devices/system/cpu/smt/active=1\n",
        "sys/devices/system/cpu/cpu2/topology/thread_siblings_list=2,3\n",
        "sys/devices/system/cpu/cpu3/topology/thread_siblings_list=2,3\n",
    ])
    .under(NICS, "cores: [2]"),
    case("smt", Warn, "workers on 2-3 share a core", "lscpu -e").on(&[
        "sys/devices/system/cpu/smt/active=1\n",
        "sys/devices/system/cpu/cpu2/topology/thread_siblings_list=2,3\n",
        "sys/devices/system/cpu/cpu3/topology/thread_siblings_list=2,3\n",
    ]),
    case("smt", Warn, "what runs on 0-1 shares", "smt/control").on(&[
        "sys/devices/system/cpu/smt/active=1\n",
        "sys/devices/system/cpu/cpu2/topology/thread_siblings_list=0,2\n",
        "sys/devices/system/cpu/cpu3/topology/thread_siblings_list=1,3\n",
    ]),
    case("smt", Ok, "give workers one of each", "").on(&["sys/devices/system/cpu/smt/active=1\n"]).without(),
    // governor
    case("governor", Ok, "performance", ""),
    case("governor", Warn, "core 3 is under `schedutil`", "cpupower")
        .on(&["sys/devices/system/cpu/cpu3/cpufreq/scaling_governor=schedutil\n"]),
    case("governor", Ok, "does not set the frequency", "").under(NICS, "cores: [0, 1]"),
    // clock
    case("clock", Ok, "tsc", ""),
    case("clock", Ok, "kvm-clock, the hypervisor's", "")
        .on(&["sys/devices/system/clocksource/clocksource0/current_clocksource=kvm-clock\n"]),
    case("clock", Warn, "hpet: every reading asks the kernel", "echo tsc >")
        .on(&["sys/devices/system/clocksource/clocksource0/current_clocksource=hpet\n"]),
    case("clock", Warn, "acpi_pm: every", "tsc=reliable").on(&[
        "sys/devices/system/clocksource/clocksource0/current_clocksource=acpi_pm\n",
        "sys/devices/system/clocksource/clocksource0/available_clocksource=acpi_pm\n",
    ]),
    case("clock", Warn, "does not say", "sysfs").on(&["-sys/devices/system/clocksource"]),
    // service
    case("service", Ok, "starts at boot", ""),
    case("service", Ok, "no unit", "").on(&["-lib/systemd"]),
    case("service", Warn, "does not start", "systemctl enable --now")
        .on(&["-etc/systemd/system/multi-user.target.wants"]),
    // socket
    case("socket", Ok, "no appliance runs", ""),
    case("socket", Ok, "1 port answers at /run/shardwall", "").asking(Who::Rss("none")),
    case("socket", Warn, "for another user", "as root").asking(Who::Denied),
    case("socket", Warn, "does not answer: timed out", "restart").asking(Who::Silent),
    case("socket", Warn, "ended without cleaning up", "systemctl start")
        .on(&["run/shardwall/control.sock="]),
];
