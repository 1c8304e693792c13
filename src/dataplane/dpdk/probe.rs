//! Getting a device: one `rte_dev_probe` each, so that each failure has a name and a cure.
//!
//! DPDK's start does not fail over a device that does, and its codes say little: when a probe
//! fails, what the kernel knows of the device decides what the operator is told.

use super::eal::Eal;
use super::error::{DpdkError, Log, reason};
use super::info::PortSpec;
use super::port::Port;
use crate::dataplane::device::{argument, base, driver_of, full_address, is_pci};
use std::ffi::CString;
use std::fs;
use std::path::PathBuf;

const EACCES: i32 = -13;
const EBUSY: i32 = -16;
const EEXIST: i32 = -17;

/// The PCI devices among these, for [`EalOptions::pci`](super::EalOptions::pci).
#[must_use]
pub fn pci_devices(specs: &[PortSpec]) -> Vec<String> {
    specs
        .iter()
        .map(|s| s.device.clone())
        .filter(|d| is_pci(d))
        .collect()
}

fn sysfs(device: &str) -> PathBuf {
    PathBuf::from("/sys/bus/pci/devices").join(full_address(device))
}

/// The kernel driver that a PCI device is bound to.
pub(super) fn kernel_driver(device: &str) -> Option<String> {
    let link = fs::read_link(sysfs(device).join("driver")).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}

/// Gets the device of a port.
pub(super) fn probe(eal: &Eal, spec: &PortSpec) -> Result<Port, DpdkError> {
    let fail = |reason: String, hint: String, log| DpdkError::Probe {
        port: spec.name.clone(),
        device: spec.device.clone(),
        reason,
        hint,
        log,
    };
    let bad = || DpdkError::BadText(spec.device.clone());
    let name = if is_pci(&spec.device) {
        full_address(&spec.device)
    } else {
        base(&spec.device).into()
    };
    let args = CString::new(spec.device.as_str()).map_err(|_| bad())?;
    let name = CString::new(name).map_err(|_| bad())?;
    if let Some(id) = find(&name) {
        // Probed by DPDK's start, from the list of PCI devices, or by another port of ours.
        return Port::claim(eal, id, spec);
    }
    if let Some(interface) = busy_tap(&spec.device) {
        let what = format!("another process has the other end of {interface}");
        let hint = "End that process, or choose another iface=".to_owned();
        return Err(fail(what, hint, Log::default()));
    }
    Log::begin();
    // SAFETY: DPDK runs, and copies the text.
    let ret = unsafe { dpdk_sys::rte_dev_probe(args.as_ptr()) };
    if let Some(id) = find(&name) {
        return Port::claim(eal, id, spec);
    }
    let log = Log::take();
    let (what, hint) = if is_pci(&spec.device) {
        explain_pci(&spec.device, ret)
    } else {
        explain_virtual(&spec.device, ret, &log)
    };
    Err(fail(what, hint, log))
}

/// The first port of a device.
fn find(name: &CString) -> Option<u16> {
    let mut id = 0;
    // SAFETY: a text that ends in a zero, and a number to write.
    let ret = unsafe { dpdk_sys::sw_port_find(name.as_ptr(), 0, &mut id) };
    (ret == 0).then_some(id)
}

/// The interface of a tap that somebody else holds. A second holder would not be refused: it would
/// get queues of its own, and silently a share of the frames.
fn busy_tap(device: &str) -> Option<&str> {
    if driver_of(device) != "net_tap" {
        return None;
    }
    let interface = argument(device, "iface")?;
    let carrier = PathBuf::from("/sys/class/net")
        .join(interface)
        .join("carrier");
    // A tap has a carrier while somebody holds it; one that is down does not tell.
    (fs::read_to_string(carrier).ok()?.trim() == "1").then_some(interface)
}

fn explain_pci(device: &str, ret: i32) -> (String, String) {
    let address = full_address(device);
    if !sysfs(device).exists() {
        let what = "there is no PCI device of this address".to_owned();
        return (
            what,
            "`lspci -D -d ::02xx` lists the network devices".to_owned(),
        );
    }
    let bind = format!("driverctl set-override {address} vfio-pci");
    match kernel_driver(device).as_deref() {
        None => (
            "no kernel driver is bound to it".to_owned(),
            format!("Bind it: {bind}"),
        ),
        Some("vfio-pci" | "uio_pci_generic" | "igb_uio") => {
            let group = fs::read_link(sysfs(device).join("iommu_group")).ok();
            let group = group.and_then(|g| g.file_name().map(|n| n.to_string_lossy().into_owned()));
            let node = group.map_or_else(|| "/dev/vfio".into(), |g| format!("/dev/vfio/{g}"));
            let what = match ret {
                0 => "DPDK has no driver for it".to_owned(),
                _ => format!("DPDK cannot take it: {}", reason(ret)),
            };
            let hint = format!(
                "Check that its PMD is installed (Debian: the librte-net-* packages), that {node} \
                 can be opened, and that every device of its IOMMU group is bound to vfio-pci"
            );
            (what, hint)
        }
        Some("mlx4_core" | "mlx5_core") => (
            format!("DPDK cannot take it: {}", reason(ret)),
            "It stays with its kernel driver; install its PMD (Debian: librte-net-mlx5-*) and \
             rdma-core"
                .to_owned(),
        ),
        Some(other) => (
            format!("it belongs to the kernel driver {other}"),
            format!("Give it to DPDK (its kernel interface goes away): {bind}"),
        ),
    }
}

fn explain_virtual(device: &str, ret: i32, log: &Log) -> (String, String) {
    let driver = driver_of(device);
    if log.says("failed to parse device") || log.says("no driver supports") {
        let package = driver.replace('_', "-").replacen("net-", "librte-net-", 1);
        let known = driver.starts_with("net_") || driver.starts_with("eth_");
        let hint = if known {
            format!("Check the name, or install its PMD (Debian: package {package}*)")
        } else {
            "A device is a PCI address (0000:03:00.1) or a virtual device (net_tap0,iface=lan)"
                .to_owned()
        };
        return (format!("DPDK has no driver `{driver}`"), hint);
    }
    let hint =
        if ret == EACCES || log.says("Operation not permitted") || log.says("Permission denied") {
            "Run as root, or with CAP_NET_ADMIN and CAP_NET_RAW".to_owned()
        } else if matches!(ret, EBUSY | EEXIST) || log.says("busy") {
            "Its interface or name is in use: end the other process, or choose another iface="
                .to_owned()
        } else if driver == "net_tap" && !std::path::Path::new("/dev/net/tun").exists() {
            "There is no /dev/net/tun: modprobe tun".to_owned()
        } else {
            "Check its arguments, and that the files and interfaces they name exist".to_owned()
        };
    let what = if ret == 0 {
        "it came up without a port".to_owned()
    } else {
        format!("it cannot be created: {}", reason(ret))
    };
    (what, hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_nic_is_said_to_be_missing() {
        let (what, hint) = explain_pci("fffe:ff:1f.7", -19);
        assert!(
            what.contains("no PCI device") && hint.contains("lspci"),
            "{what} {hint}"
        );
    }
}
