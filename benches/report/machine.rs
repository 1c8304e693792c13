//! Where it ran.

use serde_json::{Value, json};
use std::fs;
use std::process::Command;

fn read(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// The first line that a program prints; nothing where there is no such program.
fn says(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    text.lines().next().unwrap_or_default().trim().to_owned()
}

/// What stands behind `key` in a file of lines with keys.
fn field(path: &str, key: &str) -> String {
    let text = read(path);
    let line = text.lines().find(|line| line.starts_with(key));
    let value = line.and_then(|line| line.split_once([':', '=']));
    value.map_or(String::new(), |(_, value)| {
        value.trim().trim_matches('"').to_owned()
    })
}

/// The processor, the memory, and the versions of everything that takes part.
pub(crate) fn describe() -> Value {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let thp = read("/sys/kernel/mm/transparent_hugepage/enabled");
    json!({
        "processor": field("/proc/cpuinfo", "model name"),
        "mhz": field("/proc/cpuinfo", "cpu MHz"),
        "cores": cores,
        "hypervisor": field("/proc/cpuinfo", "flags").split(' ').any(|flag| flag == "hypervisor"),
        "memory": field("/proc/meminfo", "MemTotal"),
        "transparent_huge_pages": thp.split(['[', ']']).nth(1).unwrap_or("unknown"),
        "governor": read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "isolated": read("/sys/devices/system/cpu/isolated"),
        "kernel": read("/proc/sys/kernel/osrelease"),
        "system": field("/etc/os-release", "PRETTY_NAME"),
        "dpdk": says(&["pkg-config", "--modversion", "libdpdk"]),
        "open_vswitch": says(&["ovsdb-server", "--version"]),
        "nftables": says(&["nft", "--version"]),
        "compiler": says(&["rustc", "--version"]),
        "revision": says(&["git", "describe", "--always", "--dirty"]),
    })
}

/// How many programs want a processor: of the last 1, 5 and 15 minutes.
pub(crate) fn load() -> String {
    let text = read("/proc/loadavg");
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}
