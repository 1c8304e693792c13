//! Which expectations are meant: what `expect` filters by, as it travels over the API socket. Pure.

use super::protocol::Family;
use crate::conntrack::record::{Detail, Endpoints, ExpectRecord};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Which expectations are meant: those that all of it is true of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExpectFilter {
    /// Of this family only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    /// Of flows of this protocol only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proto: Option<u8>,
    /// Of flows from these addresses. Where anybody may come, the source is the unspecified
    /// address, as it is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src: Option<Net>,
    /// Of flows to these addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst: Option<Net>,
    /// Of flows to this port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    /// Announced by flows from these addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master_src: Option<Net>,
    /// Announced by flows to these addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master_dst: Option<Net>,
    /// Made by this helper.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub helper: Option<String>,
    /// Of this zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<u16>,
}

impl ExpectFilter {
    /// Whether nothing is asked of an expectation.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether `it` is meant.
    pub fn matches(&self, it: &ExpectRecord) -> bool {
        let within = |net: Option<Net>, addr| net.is_none_or(|net| net.contains(addr));
        let v6 = it.expected.dst.is_ipv6();
        self.family.is_none_or(|it| v6 == (it == Family::Ipv6))
            && self.proto.is_none_or(|proto| it.proto == proto)
            && within(self.src, it.expected.src)
            && within(self.dst, it.expected.dst)
            && self.dport.is_none_or(|port| dport(&it.expected) == port)
            && within(self.master_src, it.master.ends.src)
            && within(self.master_dst, it.master.ends.dst)
            && self.helper.as_ref().is_none_or(|name| it.helper == **name)
            && self.zone.is_none_or(|zone| it.zone == zone)
    }
}

fn dport(ends: &Endpoints) -> u16 {
    match ends.detail {
        Detail::Ports { dport, .. } => dport,
        _ => 0,
    }
}

/// Addresses that begin alike: `10.9.0.1`, `10.9.0.0/16`, `fd00::/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Net {
    addr: IpAddr,
    /// Bits that count.
    prefix: u8,
}

impl Net {
    /// Whether `addr` is one of them.
    pub fn contains(self, addr: IpAddr) -> bool {
        let prefix = u32::from(self.prefix);
        match (self.addr, addr) {
            (IpAddr::V4(net), IpAddr::V4(addr)) => {
                let differ = net.to_bits() ^ addr.to_bits();
                differ.leading_zeros() >= prefix
            }
            (IpAddr::V6(net), IpAddr::V6(addr)) => {
                let differ = net.to_bits() ^ addr.to_bits();
                differ.leading_zeros() >= prefix
            }
            _ => false,
        }
    }
}

impl FromStr for Net {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let wrong = || format!("neither an address nor an address and a length: {word}");
        let (addr, prefix) = match word.split_once('/') {
            Some((addr, prefix)) => (addr, Some(prefix)),
            None => (word, None),
        };
        let addr: IpAddr = addr.parse().map_err(|_| wrong())?;
        let most = if addr.is_ipv6() { 128 } else { 32 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().map_err(|_| wrong())?,
            None => most,
        };
        if prefix > most {
            return Err(wrong());
        }
        Ok(Self { addr, prefix })
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

impl TryFrom<String> for Net {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        word.parse()
    }
}

impl From<Net> for String {
    fn from(net: Net) -> Self {
        net.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_their_lengths() {
        let contains = |net: &str, addr: &str| {
            let net: Net = net.parse().unwrap();
            let again: Net = net.to_string().parse().unwrap();
            assert_eq!(net, again);
            net.contains(addr.parse().unwrap())
        };
        for (net, inside, outside) in [
            ("10.9.0.1", "10.9.0.1", "10.9.0.2"),
            ("10.9.0.1/32", "10.9.0.1", "10.9.0.3"),
            ("10.9.77.1/16", "10.9.0.1", "10.8.0.1"),
            ("0.0.0.0/0", "255.1.2.3", "::1"),
            ("fd00::1", "fd00::1", "fd00::2"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::/0", "fd00::1", "1.2.3.4"),
        ] {
            assert!(contains(net, inside), "{net} {inside}");
            assert!(!contains(net, outside), "{net} {outside}");
        }
        for word in [
            "",
            "a",
            "10.9.0.1/33",
            "10.9.0.1/",
            "::/129",
            "10.9/16",
            "/8",
        ] {
            assert!(word.parse::<Net>().is_err(), "{word}");
        }
    }
}
