//! Ports that are interfaces of the kernel's too, who else has hands on them, and how all ports spread
//! packets over the workers.

use super::site::{Appliance, Site};
use super::{Finding, counted, fail, ok, warn};
use crate::dataplane::device::{argument, driver_of};

/// The longest name of an interface.
const IFNAME: usize = 15;

/// Interfaces of the kernel that ports take packets from: packet sockets and XDP, by port.
fn shared(site: &Site<'_>) -> Vec<(String, String)> {
    let ports = site.virtual_ports().into_iter();
    let named = ports.filter_map(|port| {
        let packet = matches!(driver_of(&port.device), "net_af_packet" | "net_af_xdp");
        let interface = argument(&port.device, "iface")?;
        packet.then(|| (port.name.clone(), interface.to_owned()))
    });
    named.collect()
}

/// Whether what virtual devices stand on is there.
pub(super) fn ports(site: &Site<'_>) -> Vec<Finding> {
    let runs = matches!(site.appliance, Appliance::Runs(_));
    let mut findings = Vec::new();
    for port in site.virtual_ports() {
        let (name, device) = (&port.name, &port.device);
        let text = format!("port `{name}`, {device}");
        let interface = argument(device, "iface").unwrap_or_default();
        let folder = format!("sys/class/net/{interface}");
        match driver_of(device) {
            "net_tap" if !site.exists("dev/net/tun") => {
                let mend = "modprobe tun; in a container, hand /dev/net/tun in";
                findings.push(fail(format!("{text}: there is no /dev/net/tun"), mend));
            }
            "net_tap" | "net_af_packet" | "net_af_xdp" if interface.len() > IFNAME => {
                let mend = format!("choose a name of at most {IFNAME} characters");
                findings.push(fail(
                    format!("{text}: the interface's name is too long"),
                    mend,
                ));
            }
            "net_af_packet" | "net_af_xdp" if !site.exists(&folder) => {
                let mend = "`ip -br link` lists the interfaces; name one in the policy";
                findings.push(fail(
                    format!("{text}: there is no interface {interface}"),
                    mend,
                ));
            }
            "net_tap"
                if !runs && site.text(&format!("{folder}/carrier")).as_deref() == Some("1") =>
            {
                let mend = "end it, or choose another iface= in the policy";
                let what = format!("{text}: another process has the other end of {interface}");
                findings.push(fail(what, mend));
            }
            _ => findings.push(ok(text)),
        }
    }
    for (name, interface) in shared(site) {
        findings.extend(also_the_kernels(site, &name, &interface));
    }
    if findings.is_empty() {
        findings.push(ok(match site.policy {
            Some(_) => "all are NICs",
            None => "no policy was given (-c POLICY), so no port is known",
        }));
    }
    findings
}

/// A packet socket takes copies: what else the kernel does with the packets, it does too.
fn also_the_kernels(site: &Site<'_>, name: &str, interface: &str) -> Vec<Finding> {
    let text = format!("port `{name}`: {interface}");
    let mut findings = Vec::new();
    if let Some(master) = site.link(&format!("sys/class/net/{interface}/master")) {
        findings.push(fail(
            format!("{text} is a part of {master}: the kernel forwards what the appliance drops"),
            format!("ip link set {interface} nomaster"),
        ));
    }
    let routes = site.text("proc/net/route").unwrap_or_default();
    let routed = routes
        .lines()
        .any(|line| line.split_ascii_whitespace().next() == Some(interface));
    if routed {
        findings.push(warn(
            format!("{text} has an address or a route of this host's"),
            format!("ip address flush dev {interface}"),
        ));
    }
    let forwards = ["ipv4", "ipv6"].iter().find(|family| {
        let switch = format!("proc/sys/net/{family}/conf/all/forwarding");
        site.number(&switch) == Some(1)
    });
    if let Some(family) = forwards
        && routed
    {
        findings.push(fail(
            format!("{text}: the kernel routes {family} too, past the appliance"),
            format!("sysctl -w net.{family}.conf.all.forwarding=0"),
        ));
    }
    findings
}

/// What the running appliance says of how its ports spread packets, or what can be seen of its NICs
/// before.
pub(super) fn rss(site: &Site<'_>) -> Vec<Finding> {
    let workers = site.policy.map(|policy| policy.system.workers.count());
    let rows = match &site.appliance {
        Appliance::Runs(rows) => rows,
        _ if workers == Some(1) => return vec![ok("one worker: there is nothing to spread")],
        _ => return before(site),
    };
    let each = rows.iter().map(|row| {
        let text = format!("port `{}`: {}", row.port, row.rss);
        match () {
            () if row.hash_wrong > 0 => warn(
                format!("{text}; its hashes are wrong"),
                "packets are handed over instead: `shardwall workers` shows how many",
            ),
            () if row.rss.starts_with("none") && workers.unwrap_or(1) > 1 => warn(
                text,
                "packets are handed over by one worker: `queues` in the policy, or a device with RSS",
            ),
            () => ok(text),
        }
    });
    each.collect()
}

/// How many queues the policy's NICs may have, as long as no driver of DPDK's has asked them.
fn before(site: &Site<'_>) -> Vec<Finding> {
    let each = site.pci_ports().into_iter().filter_map(|(name, address)| {
        let text = format!("port `{name}`, {address}");
        let vectors = site.vectors(&address);
        Some(match (site.queues(&address), vectors) {
            (_, Some(0)) => warn(
                format!("{text}: it has no MSI-X, so one queue at most, and no RSS"),
                "one worker (`system: { workers: 1 }`), or another NIC: others get packets handed over",
            ),
            (Some(queues), _) => {
                let queues = counted(queues, "receive queue");
                ok(format!("{text}: {queues} with its kernel driver"))
            }
            (None, Some(vectors)) => ok(format!(
                "{text}: {}, so a few queues or more",
                counted(vectors, "interrupt vector")
            )),
            (None, None) => return None,
        })
    });
    let mut findings: Vec<_> = each.collect();
    if findings.is_empty() {
        let text =
            "what a port can do is known once the appliance runs: `shardwall ports` shows it";
        findings.push(ok(text));
    }
    findings
}

/// A firewall of the kernel's in the way.
pub(super) fn firewall(site: &Site<'_>) -> Vec<Finding> {
    let enabled = site.text("etc/ufw/ufw.conf").is_some_and(|text| {
        text.lines()
            .any(|line| line.trim().eq_ignore_ascii_case("enabled=yes"))
    });
    let unit = |name: &str| {
        ["sysinit", "multi-user"].iter().any(|target| {
            site.exists(&format!(
                "etc/systemd/system/{target}.target.wants/{name}.service"
            ))
        })
    };
    let legacy = ["ip", "ip6"].iter().any(|family| {
        let names = site.text(&format!("proc/net/{family}_tables_names"));
        names.is_some_and(|names| !names.is_empty())
    });
    // Whoever set the rules up: the kernel tracks where a rule asks it to.
    let tracked = site.number("proc/sys/net/netfilter/nf_conntrack_count");
    let mut found = Vec::new();
    for (there, name) in [
        (site.runs("firewalld"), "firewalld"),
        (enabled, "ufw"),
        (unit("nftables"), "nftables.service"),
        (unit("netfilter-persistent"), "netfilter-persistent"),
        (legacy, "iptables (legacy)"),
        (tracked > Some(0), "the kernel's connection tracking"),
    ] {
        if there {
            found.push(name);
        }
    }
    let shared = shared(site);
    let bridged = site.number("proc/sys/net/bridge/bridge-nf-call-iptables") == Some(1);
    vec![match (found.is_empty(), shared.first()) {
        (true, _) => ok("none of the kernel's is set up"),
        (false, None) => {
            let found = found.join(", ");
            ok(format!(
                "{found}: for this host only; it sees nothing of what DPDK's ports take"
            ))
        }
        (false, Some((port, interface))) => {
            let bridged = if bridged { ", bridged packets too" } else { "" };
            warn(
                format!(
                    "{} sees what comes by {interface} (port `{port}`){bridged}: its answers and its \
                     connection tracking come beside the appliance's",
                    found.join(", ")
                ),
                format!(
                    "leave {interface} out there, or drop in its `prerouting` all that comes by it"
                ),
            )
        }
    }]
}

/// NetworkManager and systemd-networkd, which set up what they find.
pub(super) fn managers(site: &Site<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let taps = site.virtual_ports().into_iter();
    let taps = taps.filter_map(|port| {
        let interface = argument(&port.device, "iface")?.to_owned();
        (driver_of(&port.device) == "net_tap").then(|| (port.name.clone(), interface))
    });
    for (port, interface) in shared(site).into_iter().chain(taps) {
        let Some(index) = site.number(&format!("sys/class/net/{interface}/ifindex")) else {
            continue;
        };
        let network_manager = site.text(&format!("run/NetworkManager/devices/{index}"));
        if network_manager.is_some_and(|text| !text.contains("managed=false")) {
            findings.push(warn(
                format!("NetworkManager manages {interface} (port `{port}`)"),
                format!(
                    "nmcli device set {interface} managed no, and `unmanaged-devices` to keep it so"
                ),
            ));
        }
        let networkd = site.text(&format!("run/systemd/netif/links/{index}"));
        if networkd.is_some_and(|text| text.contains("ADMIN_STATE=configur")) {
            findings.push(warn(
                format!("systemd-networkd sets up {interface} (port `{port}`)"),
                format!(
                    "a .network file with `Name={interface}` and `Unmanaged=yes` in /etc/systemd/network"
                ),
            ));
        }
    }
    if findings.is_empty() {
        findings.push(ok(match site.policy {
            Some(_) => "nobody else manages the ports",
            None => "a NIC that DPDK has is nobody else's",
        }));
    }
    findings
}
