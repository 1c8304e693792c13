//! Reads the sections that say what the box is: ports, bridge, system.
//!
//! Life-cycle and concurrency: as `check`.

use std::path::PathBuf;

use super::Checker;
use crate::policy::model::{
    Bridge, Hugepages, Idle, LogTo, Port, StatusPage, System, Workers, Zone,
};
use crate::policy::names::{ETHERTYPE_ARP, ETHERTYPES, names, number, parse_number};
use crate::policy::yaml::{Kind, Node};
use crate::policy::{MAX_PORTS, PortId};

/// Most workers of one box.
const MAX_WORKERS: u64 = 128;
/// Shortest and longest MTU: of IPv4 (RFC 791), and of what NICs have.
const MIN_MTU: u64 = 68;
const MAX_MTU: u64 = 16_000;

impl Checker<'_> {
    pub(super) fn read_ports(&mut self, node: &Node) {
        let Some(entries) = self.entries(node, "`ports`") else {
            return;
        };
        if entries.is_empty() {
            self.sink.error(node.place, "`ports` is empty");
        }
        for (at, (key, value)) in entries.iter().enumerate() {
            self.name(key.place, "port", &key.text);
            if at == MAX_PORTS {
                self.sink
                    .error(key.place, format!("more than {MAX_PORTS} ports"));
                break;
            }
            let mut port = Port {
                name: key.text.clone(),
                device: String::new(),
                queues: None,
                mtu: None,
                promiscuous: true,
            };
            const KEYS: &[&str] = &["device", "queues", "mtu", "promiscuous"];
            if let Some(fields) = self.fields(value, "a port", KEYS, &[]) {
                match fields.get("device") {
                    Some(device) => {
                        let text = self.scalar(device, "`device`").unwrap_or_default();
                        if let Some(other) = self.ports.iter().find(|p| p.device == text)
                            && !text.is_empty()
                        {
                            let message = format!("device `{text}` is port `{}` too", other.name);
                            self.sink.error(device.place, message);
                        }
                        port.device = text.to_owned();
                    }
                    None if fields.key("device").is_none() => {
                        self.sink
                            .error(key.place, format!("port `{}` has no `device`", key.text))
                            .help("a PCI address, or a DPDK virtual device like `net_tap0`");
                    }
                    None => {}
                }
                port.queues = fields
                    .get("queues")
                    .and_then(|node| self.number(node, "queues", 1, MAX_WORKERS))
                    .map(|n| n as u16);
                port.mtu = fields
                    .get("mtu")
                    .and_then(|node| self.number(node, "mtu", MIN_MTU, MAX_MTU))
                    .map(|n| n as u16);
                port.promiscuous = fields
                    .get("promiscuous")
                    .and_then(|node| self.boolean(node, "promiscuous"))
                    .unwrap_or(true);
            }
            self.ports.push(port);
        }
    }

    /// The port called `name`; reports it if there is none.
    pub(super) fn port(&mut self, node: &Node, name: &str) -> Option<PortId> {
        let found = self.ports.iter().position(|port| port.name == name);
        if found.is_none() {
            let known: Vec<_> = self.ports.iter().map(|port| port.name.clone()).collect();
            self.unknown(node.place, "port", name, known.iter().map(String::as_str));
        }
        found.map(|at| PortId(at as u8))
    }

    pub(super) fn bridges(&mut self, node: &Node) -> Vec<Bridge> {
        let mut bridges: Vec<Bridge> = Vec::new();
        for item in self.list(node, "`bridge`").unwrap_or_default() {
            let mut ethertypes = vec![ETHERTYPE_ARP];
            let mut zone = Zone::Fixed(0);
            let pair = match &item.kind {
                Kind::List(_) => Some(item),
                Kind::Map(_) => {
                    let keys = &["ports", "ethertypes", "zone"];
                    let Some(fields) = self.fields(item, "a bridge", keys, &[]) else {
                        continue;
                    };
                    if let Some(node) = fields.get("ethertypes") {
                        ethertypes = self.ethertypes(node);
                    }
                    if let Some(node) = fields.get("zone") {
                        zone = self.zone(node).unwrap_or(zone);
                    }
                    if fields.key("ports").is_none() {
                        self.sink.error(fields.place, "bridge has no `ports`");
                    }
                    fields.get("ports")
                }
                _ => self.mismatch(item, "a bridge", "a pair of ports"),
            };
            let Some(pair) = pair else { continue };
            let Some(items) = self.list(pair, "`ports` of a bridge") else {
                continue;
            };
            let [a, b] = items else {
                let message = format!("a bridge joins two ports, not {}", items.len());
                self.sink.error(pair.place, message);
                continue;
            };
            let mut end = |node: &Node| {
                let name = self.scalar(node, "a port of a bridge")?;
                let id = self.port(node, name)?;
                if bridges
                    .iter()
                    .any(|bridge| bridge.a == id || bridge.b == id)
                {
                    self.sink
                        .error(node.place, format!("port `{name}` is in two bridges"));
                }
                Some(id)
            };
            let (Some(first), Some(second)) = (end(a), end(b)) else {
                continue;
            };
            if first == second {
                self.sink
                    .error(b.place, "a bridge joins two different ports");
            }
            bridges.push(Bridge {
                a: first,
                b: second,
                ethertypes,
                zone,
            });
        }
        for (at, port) in self.ports.iter().enumerate() {
            let id = PortId(at as u8);
            if !bridges
                .iter()
                .any(|bridge| bridge.a == id || bridge.b == id)
            {
                let message = format!("port `{}` is in no bridge: it drops everything", port.name);
                self.sink.warn(node.place, message);
            }
        }
        bridges
    }

    fn zone(&mut self, node: &Node) -> Option<Zone> {
        let text = self.scalar(node, "`zone`")?;
        if text == "vlan" {
            return Some(Zone::Vlan);
        }
        let number = parse_number(text).and_then(|number| u16::try_from(number).ok());
        if number.is_none() {
            let message = format!("`zone` must be a number from 0 to 65535 or vlan, not `{text}`");
            self.sink.error(node.place, message).suggest(text, ["vlan"]);
        }
        number.map(Zone::Fixed)
    }

    fn ethertypes(&mut self, node: &Node) -> Vec<u16> {
        let mut all = Vec::new();
        for item in self.list(node, "`ethertypes`").unwrap_or_default() {
            let Some(text) = self.scalar(item, "an EtherType") else {
                continue;
            };
            if let Some(named) = number(ETHERTYPES, text) {
                all.extend_from_slice(named);
                continue;
            }
            match parse_number(text) {
                Some(0x0800 | 0x86dd) => {
                    let message = "IPv4 and IPv6 always go through the chains";
                    self.sink.error(item.place, message);
                }
                Some(0x8100 | 0x88a8) => {
                    let message = "VLAN tags are looked through; list what is behind them";
                    self.sink.error(item.place, message);
                }
                Some(value @ 0x0600..=0xffff) => all.push(value as u16),
                Some(_) => {
                    let message = format!("EtherType `{text}` is not from 0x0600 to 0xffff");
                    self.sink.error(item.place, message);
                }
                None => self.unknown(item.place, "EtherType", text, names(ETHERTYPES)),
            }
        }
        if !all.contains(&ETHERTYPE_ARP) {
            self.sink
                .warn(
                    node.place,
                    "`ethertypes` lacks arp: IPv4 hosts will not find each other",
                )
                .help("the list replaces the default, [arp]");
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    pub(super) fn system(&mut self, node: &Node) -> System {
        let mut system = System::default();
        let keys = &[
            "workers",
            "cores",
            "idle",
            "hugepages",
            "metrics",
            "status-page",
            "socket",
            "time-zone",
            "mbufs",
            "memory",
            "log",
            "management",
        ];
        let Some(fields) = self.fields(node, "`system`", keys, &[]) else {
            return system;
        };
        if let (Some(_), Some(place)) = (fields.get("workers"), fields.key("cores")) {
            self.sink
                .error(place, "`workers` and `cores` exclude each other");
        }
        if let Some(count) = fields
            .get("workers")
            .and_then(|node| self.number(node, "workers", 1, MAX_WORKERS))
        {
            system.workers = Workers::Count(count as u16);
        }
        if let Some(node) = fields.get("cores") {
            system.workers = Workers::Cores(self.cores(node));
        }
        let words = [
            ("auto", Idle::Auto),
            ("spin", Idle::Spin),
            ("yield", Idle::Yield),
            ("sleep", Idle::Sleep),
        ];
        if let Some(value) = fields
            .get("idle")
            .and_then(|node| self.choice(node, "idle", &words))
        {
            system.idle = value;
        }
        let words = [
            ("auto", Hugepages::Auto),
            ("required", Hugepages::Required),
            ("off", Hugepages::Off),
        ];
        if let Some(value) = fields
            .get("hugepages")
            .and_then(|node| self.choice(node, "hugepages", &words))
        {
            system.hugepages = value;
        }
        if let Some(node) = fields.get("metrics")
            && let Some(text) = self.scalar(node, "`metrics`")
        {
            match text.parse() {
                Ok(addr) => system.metrics = Some(addr),
                Err(_) if text == "off" => system.metrics = None,
                Err(_) => {
                    let message = format!("`metrics` must be an address and a port, not `{text}`");
                    self.sink
                        .error(node.place, message)
                        .help("like 127.0.0.1:9477, or off");
                }
            }
        }
        let words = [
            ("auto", StatusPage::Auto),
            ("on", StatusPage::On),
            ("off", StatusPage::Off),
        ];
        if let Some(value) = fields
            .get("status-page")
            .and_then(|node| self.choice(node, "status-page", &words))
        {
            system.status_page = value;
        }
        if let Some(node) = fields.get("socket")
            && let Some(text) = self.scalar(node, "`socket`")
        {
            // sun_path of unix(7) has 108 bytes, the last of them zero
            if !text.starts_with('/') || text.len() > 107 {
                let message = "`socket` must be an absolute path of at most 107 bytes";
                self.sink.error(node.place, message);
            }
            system.socket = PathBuf::from(text);
        }
        if let Some(node) = fields.get("log")
            && let Some(text) = self.scalar(node, "`log`")
        {
            system.log = match text {
                "stderr" => LogTo::Stderr,
                "journal" => LogTo::Journal,
                _ => {
                    if !text.starts_with('/') {
                        let message = format!(
                            "`log` must be stderr, journal or an absolute path, not `{text}`"
                        );
                        let known = ["stderr", "journal"];
                        self.sink.error(node.place, message).suggest(text, known);
                    }
                    LogTo::File(PathBuf::from(text))
                }
            };
        }
        if let Some(node) = fields.get("time-zone") {
            system.time_zone = self.time_zone(node);
        }
        if let Some(node) = fields.get("management") {
            self.management(node);
        }
        let mut amount = |key: &str, min: u64, max: u64| {
            let number = fields
                .get(key)
                .and_then(|node| self.number(node, key, min, max));
            number.map(|n| n as u32)
        };
        system.mbufs = amount("mbufs", 1024, 1 << 28);
        system.memory = amount("memory", 32, 1 << 20);
        system
    }

    fn cores(&mut self, node: &Node) -> Vec<u16> {
        let mut cores = Vec::new();
        let items = self.list(node, "`cores`").unwrap_or_default();
        for item in items {
            let Some(core) = self.number(item, "cores", 0, 1023) else {
                continue;
            };
            if cores.contains(&(core as u16)) {
                self.sink
                    .error(item.place, format!("core {core} is listed twice"));
            }
            cores.push(core as u16);
        }
        if items.is_empty() && matches!(node.kind, Kind::List(_)) {
            self.sink.error(node.place, "`cores` is empty");
        }
        if items.len() as u64 > MAX_WORKERS {
            self.sink
                .error(node.place, format!("more than {MAX_WORKERS} cores"));
        }
        cores
    }
}
