//! The text of a port's device, as the policy has it: a PCI address, or a virtual device of DPDK's
//! with its arguments (`net_tap0,iface=lan`).

/// The device without its arguments.
#[must_use]
pub fn base(device: &str) -> &str {
    device.split(',').next().unwrap_or(device)
}

/// The value of an argument: `lan` for `iface` of `net_tap0,iface=lan`.
#[must_use]
pub fn argument<'d>(device: &'d str, name: &str) -> Option<&'d str> {
    let arguments = device.split(',').skip(1);
    let mut pairs = arguments.filter_map(|argument| argument.split_once('='));
    pairs.find_map(|(key, value)| (key == name).then_some(value))
}

/// Whether this is `[domain:]bus:device.function`.
#[must_use]
pub fn is_pci(device: &str) -> bool {
    let parts: Vec<&str> = base(device).split([':', '.']).collect();
    let hex = |s: &&str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_hexdigit());
    (parts.len() == 3 || parts.len() == 4) && base(device).contains('.') && parts.iter().all(hex)
}

/// The address with its domain, as the kernel and DPDK name the device.
#[must_use]
pub fn full_address(device: &str) -> String {
    let address = base(device).to_ascii_lowercase();
    if address.matches(':').count() == 1 {
        format!("0000:{address}")
    } else {
        address
    }
}

/// The driver of a virtual device: `net_tap` of `net_tap0,iface=lan`.
#[must_use]
pub fn driver_of(device: &str) -> &str {
    base(device).trim_end_matches(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pci_addresses_are_told_from_virtual_devices() {
        for yes in [
            "0000:03:00.1",
            "03:00.1",
            "0000:af:1f.7,arg=1",
            "10000:01:00.0",
        ] {
            assert!(is_pci(yes), "{yes}");
        }
        for no in [
            "net_tap0,iface=sw-lan",
            "net_pcap0,rx_pcap=a.pcap",
            "net_null0",
            "",
            "1.2",
            "eth0:1",
        ] {
            assert!(!is_pci(no), "{no}");
        }
        assert_eq!(full_address("AF:00.1,x=y"), "0000:af:00.1");
        assert_eq!(driver_of("net_af_packet12,iface=a1"), "net_af_packet");
        assert_eq!(argument("net_tap0,iface=a,mac=b", "mac"), Some("b"));
        assert_eq!(argument("net_tap0,iface=a", "ifac"), None);
    }
}
