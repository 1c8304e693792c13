//! Sets of addresses and of 16-bit numbers (ports, lengths, VLAN ids) as sorted, merged ranges,
//! searched by bisection. A set of one range costs one comparison, a set of 100,000 prefixes
//! seventeen.
//!
//! Life-cycle: built once while a policy is checked, then only read. Concurrency: immutable.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An inclusive range of addresses of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpRange {
    /// IPv4, in host byte order.
    V4(u32, u32),
    /// IPv6.
    V6(u128, u128),
}

/// A set of IPv4 and IPv6 addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddrSet {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl AddrSet {
    /// The union of `ranges`.
    pub fn new(ranges: impl IntoIterator<Item = IpRange>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for range in ranges {
            match range {
                IpRange::V4(low, high) => v4.push((low, high)),
                IpRange::V6(low, high) => v6.push((low, high)),
            }
        }
        Self::of(v4, v6)
    }

    /// The union of inclusive ranges of both families.
    pub fn of(v4: Vec<(u32, u32)>, v6: Vec<(u128, u128)>) -> Self {
        Self {
            v4: merge(v4, |high| high.checked_add(1)),
            v6: merge(v6, |high| high.checked_add(1)),
        }
    }

    /// Its ranges of IPv4, ascending.
    pub fn v4(&self) -> &[(u32, u32)] {
        &self.v4
    }

    /// Its ranges of IPv6, ascending.
    pub fn v6(&self) -> &[(u128, u128)] {
        &self.v6
    }

    /// Its ranges, IPv4 first, ascending, none touching another.
    pub fn ranges(&self) -> impl Iterator<Item = IpRange> + '_ {
        let v4 = self.v4.iter().map(|(low, high)| IpRange::V4(*low, *high));
        v4.chain(self.v6.iter().map(|(low, high)| IpRange::V6(*low, *high)))
    }

    /// Whether it holds an IPv4 address.
    #[inline]
    pub fn contains_v4(&self, addr: u32) -> bool {
        contains(&self.v4, addr)
    }

    /// Whether it holds an IPv6 address.
    #[inline]
    pub fn contains_v6(&self, addr: u128) -> bool {
        contains(&self.v6, addr)
    }

    /// Whether it holds any IPv4 address at all.
    #[inline]
    pub fn has_v4(&self) -> bool {
        !self.v4.is_empty()
    }

    /// Whether it holds any IPv6 address at all.
    #[inline]
    pub fn has_v6(&self) -> bool {
        !self.v6.is_empty()
    }

    /// The range that it consists of, if it is one of IPv4.
    pub fn single_v4(&self) -> Option<(u32, u32)> {
        match (&*self.v4, &*self.v6) {
            ([one], []) => Some(*one),
            _ => None,
        }
    }
}

/// A set of 16-bit numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct U16Set(Box<[(u16, u16)]>);

impl U16Set {
    /// The union of inclusive `ranges`.
    pub fn new(ranges: impl IntoIterator<Item = (u16, u16)>) -> Self {
        Self(merge(ranges.into_iter().collect(), |high| {
            high.checked_add(1)
        }))
    }

    /// Every number that is not in this set.
    pub fn complement(&self) -> Self {
        let mut gaps = Vec::new();
        let mut next = Some(0u16);
        for &(low, high) in &self.0 {
            if let Some(start) = next.filter(|start| *start < low) {
                gaps.push((start, low - 1));
            }
            next = high.checked_add(1);
        }
        gaps.extend(next.map(|start| (start, u16::MAX)));
        Self::new(gaps)
    }

    /// Its ranges, ascending, none touching another.
    pub fn ranges(&self) -> &[(u16, u16)] {
        &self.0
    }

    /// Whether it holds `value`.
    #[inline]
    pub fn contains(&self, value: u16) -> bool {
        contains(&self.0, value)
    }
}

#[inline]
fn contains<T: Copy + Ord>(ranges: &[(T, T)], value: T) -> bool {
    let after = ranges.partition_point(|(low, _)| *low <= value);
    after
        .checked_sub(1)
        .and_then(|at| ranges.get(at))
        .is_some_and(|(_, high)| value <= *high)
}

/// Sorts, and joins what overlaps or touches.
fn merge<T: Copy + Ord>(mut ranges: Vec<(T, T)>, next: impl Fn(T) -> Option<T>) -> Box<[(T, T)]> {
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (low, high) in ranges {
        match merged.last_mut() {
            Some(last) if next(last.1).is_none_or(|start| low <= start) => {
                last.1 = last.1.max(high)
            }
            _ => merged.push((low, high)),
        }
    }
    merged.into_boxed_slice()
}

/// Why a text is no address range, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRange {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl IpRange {
    /// Reads an address, a prefix, or a range `low-high`.
    pub fn parse(text: &str) -> Result<Self, BadRange> {
        let bad = |message: String, help: Option<String>| Err(BadRange { message, help });
        if let Some((low, high)) = text.split_once('-')
            && let (Ok(low), Ok(high)) = (low.trim().parse(), high.trim().parse())
        {
            return match (low, high) {
                (IpAddr::V4(low), IpAddr::V4(high)) if low <= high => {
                    Ok(IpRange::V4(low.to_bits(), high.to_bits()))
                }
                (IpAddr::V6(low), IpAddr::V6(high)) if low <= high => {
                    Ok(IpRange::V6(low.to_bits(), high.to_bits()))
                }
                (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                    bad(format!("`{text}` mixes IPv4 and IPv6"), None)
                }
                _ => bad(
                    format!("range `{text}` ends before it begins"),
                    Some(format!("write {high}-{low}")),
                ),
            };
        }
        let (addr, len) = match text.split_once('/') {
            Some((addr, len)) => (addr, Some(len)),
            None => (text, None),
        };
        let Ok(addr) = addr.parse::<IpAddr>() else {
            return bad(
                format!("`{text}` is not an address, a prefix or a range"),
                Some("write 10.0.0.1, 10.0.0.0/8, fd00::/8 or 10.0.0.1-10.0.0.9".into()),
            );
        };
        let bits = if addr.is_ipv4() { 32u8 } else { 128 };
        let len = match len.map(|len| (len.bytes().all(|b| b.is_ascii_digit()), len.parse::<u8>()))
        {
            None => bits,
            Some((true, Ok(len))) if len <= bits => len,
            Some(_) => {
                return bad(
                    format!("prefix length of `{text}` is not a number from 0 to {bits}"),
                    None,
                );
            }
        };
        let (range, network) = match addr {
            IpAddr::V4(addr) => {
                let host = u32::MAX.checked_shr(len.into()).unwrap_or(0);
                let low = addr.to_bits() & !host;
                (
                    IpRange::V4(low, low | host),
                    IpAddr::V4(Ipv4Addr::from_bits(low)),
                )
            }
            IpAddr::V6(addr) => {
                let host = u128::MAX.checked_shr(len.into()).unwrap_or(0);
                let low = addr.to_bits() & !host;
                (
                    IpRange::V6(low, low | host),
                    IpAddr::V6(Ipv6Addr::from_bits(low)),
                )
            }
        };
        if network != addr {
            return bad(
                format!("`{text}` has bits set behind its prefix length"),
                Some(format!(
                    "write {network}/{len} for the network, or {addr} for the host"
                )),
            );
        }
        Ok(range)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_prefixes_and_ranges_are_read() {
        for (text, expected) in [
            ("10.0.0.1", IpRange::V4(0x0a00_0001, 0x0a00_0001)),
            ("10.0.0.0/8", IpRange::V4(0x0a00_0000, 0x0aff_ffff)),
            ("0.0.0.0/0", IpRange::V4(0, u32::MAX)),
            ("10.0.0.1-10.0.0.9", IpRange::V4(0x0a00_0001, 0x0a00_0009)),
            ("::/0", IpRange::V6(0, u128::MAX)),
            ("::1", IpRange::V6(1, 1)),
            ("::1-::f", IpRange::V6(1, 15)),
            (
                "fd00::/120",
                IpRange::V6(0xfd00 << 112, (0xfd00 << 112) | 0xff),
            ),
        ] {
            assert_eq!(IpRange::parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_range_says_why() {
        for (text, message) in [
            (
                "10.0.0.1/8",
                "`10.0.0.1/8` has bits set behind its prefix length",
            ),
            (
                "10.0.0.9-10.0.0.1",
                "range `10.0.0.9-10.0.0.1` ends before it begins",
            ),
            ("10.0.0.9-::1", "`10.0.0.9-::1` mixes IPv4 and IPv6"),
            (
                "10.0.0.0/33",
                "prefix length of `10.0.0.0/33` is not a number from 0 to 32",
            ),
            (
                "10.0.0.0/+8",
                "prefix length of `10.0.0.0/+8` is not a number from 0 to 32",
            ),
            ("10.0.0", "`10.0.0` is not an address, a prefix or a range"),
            (
                "example.org",
                "`example.org` is not an address, a prefix or a range",
            ),
        ] {
            assert_eq!(IpRange::parse(text).unwrap_err().message, message);
        }
        let help = IpRange::parse("10.1.2.3/8").unwrap_err().help.unwrap();
        assert_eq!(
            help,
            "write 10.0.0.0/8 for the network, or 10.1.2.3 for the host"
        );
    }

    #[test]
    fn touching_ranges_become_one() {
        let set = U16Set::new([(10, 20), (21, 30), (5, 5), (25, 40), (65535, 65535)]);
        assert_eq!(set.ranges(), [(5, 5), (10, 40), (65535, 65535)]);
        assert_eq!(set.complement().ranges(), [(0, 4), (6, 9), (41, 65534)]);
        assert_eq!(U16Set::new([(0, u16::MAX)]).complement().ranges(), []);
        assert_eq!(U16Set::default().complement().ranges(), [(0, u16::MAX)]);
    }

    fn range4() -> impl Strategy<Value = (u32, u32)> {
        // a few addresses near each other and near the ends, so that ranges touch and overlap
        let addr = prop_oneof![0u32..40, (u32::MAX - 40)..=u32::MAX, any::<u32>()];
        (addr, 0u32..20).prop_map(|(low, len)| (low, low.saturating_add(len)))
    }

    fn range6() -> impl Strategy<Value = (u128, u128)> {
        let addr = prop_oneof![0u128..40, (u128::MAX - 40)..=u128::MAX, any::<u128>()];
        (addr, 0u128..20).prop_map(|(low, len)| (low, low.saturating_add(len)))
    }

    proptest! {
        #[test]
        fn a_set_holds_what_any_of_its_ranges_holds(
            four in prop::collection::vec(range4(), 0..12),
            six in prop::collection::vec(range6(), 0..12),
            probes4 in prop::collection::vec(range4(), 20),
            probes6 in prop::collection::vec(range6(), 20),
        ) {
            let ranges4 = four.iter().map(|(low, high)| IpRange::V4(*low, *high));
            let ranges6 = six.iter().map(|(low, high)| IpRange::V6(*low, *high));
            let set = AddrSet::new(ranges4.chain(ranges6));
            let edges = four.iter().flat_map(|(l, h)| [l.wrapping_sub(1), *l, *h, h.wrapping_add(1)]);
            for probe in probes4.iter().map(|p| p.0).chain(edges) {
                let naive = four.iter().any(|(low, high)| (*low..=*high).contains(&probe));
                prop_assert_eq!(set.contains_v4(probe), naive, "{}", probe);
            }
            let edges = six.iter().flat_map(|(l, h)| [l.wrapping_sub(1), *l, *h, h.wrapping_add(1)]);
            for probe in probes6.iter().map(|p| p.0).chain(edges) {
                let naive = six.iter().any(|(low, high)| (*low..=*high).contains(&probe));
                prop_assert_eq!(set.contains_v6(probe), naive, "{}", probe);
            }
            prop_assert_eq!(AddrSet::new(set.ranges()), set);
        }

        #[test]
        fn a_complement_holds_exactly_the_rest(
            ranges in prop::collection::vec((any::<u16>(), 0u16..500), 0..10),
            probes in prop::collection::vec(any::<u16>(), 50),
        ) {
            let set = U16Set::new(ranges.iter().map(|(low, len)| (*low, low.saturating_add(*len))));
            let rest = set.complement();
            let edges = ranges.iter().flat_map(|(low, len)| [*low, low.saturating_add(*len)]);
            for probe in probes.into_iter().chain(edges) {
                prop_assert_ne!(set.contains(probe), rest.contains(probe));
            }
        }
    }
}
