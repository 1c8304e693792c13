//! Which flows ([`flows`]) and expectations are meant: what `conntrack` and `expect` filter by, as it
//! travels over the API socket. Pure.

use super::protocol::Family;
use crate::conntrack::record::{Detail, Endpoints, ExpectRecord};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

pub mod flows;

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

/// Addresses that are alike where a mask has ones: `10.9.0.1`, `10.9.0.0/16`, `fd00::/8`,
/// `10.9.0.1/255.255.0.255`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Net {
    addr: IpAddr,
    /// Bits that count, of an IPv4 address the low 32.
    mask: u128,
}

impl Net {
    /// `addr` and no other.
    pub fn host(addr: IpAddr) -> Self {
        Self {
            addr,
            mask: ones(addr),
        }
    }

    /// Those that are like `addr` where `mask` has ones; both are of one family.
    pub fn masked(addr: IpAddr, mask: IpAddr) -> Option<Self> {
        (addr.is_ipv6() == mask.is_ipv6()).then(|| Self {
            addr,
            mask: bits(mask),
        })
    }

    /// Whether `addr` is one of them.
    #[inline]
    pub fn contains(self, addr: IpAddr) -> bool {
        let alike = (bits(self.addr) ^ bits(addr)) & self.mask == 0;
        alike && self.is_v6() == addr.is_ipv6()
    }

    /// Whether they are IPv6 addresses.
    pub fn is_v6(self) -> bool {
        self.addr.is_ipv6()
    }

    /// The address, if it is one only.
    pub fn only(self) -> Option<IpAddr> {
        (self.mask == ones(self.addr)).then_some(self.addr)
    }

    /// The address that it was made of.
    pub fn addr(self) -> IpAddr {
        self.addr
    }

    /// How many leading bits count, if no others do.
    fn prefix(self) -> Option<u32> {
        let all = ones(self.addr);
        let prefix = self.mask.count_ones();
        let unset = all.count_ones() - prefix;
        let low = 1u128.checked_shl(unset).map_or(u128::MAX, |bit| bit - 1);
        (self.mask == all & !low).then_some(prefix)
    }
}

fn bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => addr.to_bits().into(),
        IpAddr::V6(addr) => addr.to_bits(),
    }
}

/// All bits that an address like `addr` has.
fn ones(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(_) => u32::MAX.into(),
        IpAddr::V6(_) => u128::MAX,
    }
}

impl FromStr for Net {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let wrong = || format!("neither an address nor an address and a length: {word}");
        let (addr, rest) = match word.split_once('/') {
            Some((addr, rest)) => (addr, Some(rest)),
            None => (word, None),
        };
        let addr: IpAddr = addr.parse().map_err(|_| wrong())?;
        let Some(rest) = rest else {
            return Ok(Self::host(addr));
        };
        if let Ok(mask) = rest.parse() {
            return Self::masked(addr, mask).ok_or_else(wrong);
        }
        let prefix: u32 = rest.parse().map_err(|_| wrong())?;
        let most = ones(addr).count_ones();
        let unset = most.checked_sub(prefix).ok_or_else(wrong)?;
        let mask = u128::MAX.checked_shl(unset).unwrap_or(0) & ones(addr);
        Ok(Self { addr, mask })
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mask: IpAddr = match self.addr {
            IpAddr::V4(_) => Ipv4Addr::from_bits(self.mask as u32).into(),
            IpAddr::V6(_) => Ipv6Addr::from_bits(self.mask).into(),
        };
        match self.prefix() {
            Some(prefix) => write!(f, "{}/{prefix}", self.addr),
            None => write!(f, "{}/{mask}", self.addr),
        }
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
            ("10.0.0.9/255.0.0.255", "10.7.7.9", "10.0.0.8"),
            ("10.0.0.0/255.0.0.0", "10.7.7.9", "11.0.0.0"),
            ("fd00::9/ffff::ffff", "fd00:1::9", "fd00::8"),
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
            "10.0.0.1/ffff::",
        ] {
            assert!(word.parse::<Net>().is_err(), "{word}");
        }
    }
}
