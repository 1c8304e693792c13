//! The names that policy may use for numbers: protocols, ICMP types, DSCP, EtherTypes, TCP flags.
//!
//! Sources: IANA's registries "Protocol Numbers", "ICMP Parameters", "ICMPv6 Parameters",
//! "Differentiated Services Field Codepoints" and "IEEE 802 Numbers"; where nftables spells a name
//! differently, nftables' spelling is used, because that is what operators know. Constant tables;
//! nothing here has state.

use crate::conntrack::types::proto;

/// Protocol names, the preferred name of a number first.
pub(super) const PROTOCOLS: &[(&str, u8)] = &[
    ("icmp", proto::ICMP),
    ("igmp", proto::IGMP),
    ("ggp", 3),
    ("ipip", 4),
    ("st", 5),
    ("tcp", proto::TCP),
    ("egp", proto::EGP),
    ("igp", 9),
    ("pup", 12),
    ("udp", proto::UDP),
    ("mux", proto::MUX),
    ("hmp", 20),
    ("xns-idp", 22),
    ("rdp", 27),
    ("netblt", proto::NETBLT),
    ("dccp", proto::DCCP),
    ("xtp", 36),
    ("ddp", 37),
    ("ipv6", 41),
    ("rsvp", 46),
    ("gre", proto::GRE),
    ("esp", proto::ESP),
    ("ah", proto::AH),
    ("icmpv6", proto::ICMPV6),
    ("ipv6-icmp", proto::ICMPV6),
    ("eigrp", 88),
    ("ospf", proto::OSPF),
    ("etherip", 97),
    ("encap", 98),
    ("pim", 103),
    ("comp", 108),
    ("vrrp", 112),
    ("l2tp", 115),
    ("isis", 124),
    ("sctp", proto::SCTP),
    ("udplite", proto::UDPLITE),
    ("manet", 138),
    ("hip", 139),
    ("shim6", 140),
    ("wesp", 141),
    ("rohc", 142),
];

/// ICMP types.
pub(super) const ICMP_TYPES: &[(&str, u8)] = &[
    ("echo-reply", 0),
    ("destination-unreachable", 3),
    ("source-quench", 4),
    ("redirect", 5),
    ("echo-request", 8),
    ("router-advertisement", 9),
    ("router-solicitation", 10),
    ("time-exceeded", 11),
    ("parameter-problem", 12),
    ("timestamp-request", 13),
    ("timestamp-reply", 14),
    ("info-request", 15),
    ("info-reply", 16),
    ("address-mask-request", 17),
    ("address-mask-reply", 18),
];

/// ICMPv6 types.
pub(super) const ICMPV6_TYPES: &[(&str, u8)] = &[
    ("destination-unreachable", 1),
    ("packet-too-big", 2),
    ("time-exceeded", 3),
    ("parameter-problem", 4),
    ("echo-request", 128),
    ("echo-reply", 129),
    ("mld-listener-query", 130),
    ("mld-listener-report", 131),
    ("mld-listener-done", 132),
    ("mld-listener-reduction", 132),
    ("nd-router-solicit", 133),
    ("nd-router-advert", 134),
    ("nd-neighbor-solicit", 135),
    ("nd-neighbor-advert", 136),
    ("nd-redirect", 137),
    ("router-renumbering", 138),
    ("ind-neighbor-solicit", 141),
    ("ind-neighbor-advert", 142),
    ("mld2-listener-report", 143),
];

/// Differentiated services code points.
pub(super) const DSCP: &[(&str, u8)] = &[
    ("cs0", 0),
    ("be", 0),
    ("le", 1),
    ("cs1", 8),
    ("af11", 10),
    ("af12", 12),
    ("af13", 14),
    ("cs2", 16),
    ("af21", 18),
    ("af22", 20),
    ("af23", 22),
    ("cs3", 24),
    ("af31", 26),
    ("af32", 28),
    ("af33", 30),
    ("cs4", 32),
    ("af41", 34),
    ("af42", 36),
    ("af43", 38),
    ("cs5", 40),
    ("va", 44),
    ("ef", 46),
    ("cs6", 48),
    ("cs7", 56),
];

/// Stands in a bridge's list for every frame with an 802.3 length in place of an EtherType.
pub(super) const ETHERTYPE_LLC: u16 = 0;

/// EtherType of ARP.
pub(super) const ETHERTYPE_ARP: u16 = 0x0806;

/// EtherTypes. `pppoe` is two of them. Spanning tree has none: it is an LLC frame.
pub(super) const ETHERTYPES: &[(&str, &[u16])] = &[
    ("arp", &[ETHERTYPE_ARP]),
    ("rarp", &[0x8035]),
    ("wol", &[0x0842]),
    ("llc", &[ETHERTYPE_LLC]),
    ("stp", &[ETHERTYPE_LLC]),
    ("slow", &[0x8809]),
    ("lacp", &[0x8809]),
    ("mpls", &[0x8847, 0x8848]),
    ("pppoe", &[0x8863, 0x8864]),
    ("eapol", &[0x888e]),
    ("profinet", &[0x8892]),
    ("lldp", &[0x88cc]),
    ("macsec", &[0x88e5]),
    ("ptp", &[0x88f7]),
    ("cfm", &[0x8902]),
];

/// TCP flags by bit.
pub(super) const TCP_FLAGS: &[(&str, u8)] = &[
    ("fin", 1),
    ("syn", 2),
    ("rst", 4),
    ("psh", 8),
    ("ack", 16),
    ("urg", 32),
    ("ecn", 64),
    ("cwr", 128),
];

/// The number behind `name`.
pub(super) fn number<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, value)| *value)
}

/// What policy and `replay` call a protocol.
pub fn protocol_name(number: u8) -> Option<&'static str> {
    let found = PROTOCOLS.iter().find(|(_, known)| *known == number);
    found.map(|(name, _)| *name)
}

/// The names of a table.
pub(super) fn names<T>(table: &[(&'static str, T)]) -> impl Iterator<Item = &'static str> {
    table.iter().map(|(name, _)| *name)
}

/// A number in decimal, or in hexadecimal after `0x`.
pub(super) fn parse_number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(hex) => (hex, 16),
        None => (text, 10),
    };
    let plain = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    plain
        .then(|| u64::from_str_radix(digits, radix).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal_or_hexadecimal_and_nothing_else() {
        for (text, expected) in [
            ("0", Some(0)),
            ("42", Some(42)),
            ("0x88cc", Some(0x88cc)),
            ("0x", None),
            ("", None),
            ("+1", None),
            ("-1", None),
            ("1_000", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(parse_number(text), expected, "{text}");
        }
    }

    #[test]
    fn protocols_are_called_as_conntrack_calls_them_where_it_has_a_name() {
        for (name, number) in [("icmp", 1), ("icmpv6", 58), ("sctp", 132), ("udplite", 136)] {
            assert_eq!(protocol_name(number), Some(name));
        }
        for (name, number) in [("egp", 8), ("mux", 18), ("netblt", 30), ("ospf", 89)] {
            assert_eq!(protocol_name(number), Some(name));
        }
        assert_eq!(protocol_name(253), None);
    }

    #[test]
    fn no_name_stands_twice_in_a_table() {
        for table in [PROTOCOLS, ICMP_TYPES, ICMPV6_TYPES, DSCP, TCP_FLAGS] {
            let mut all: Vec<_> = names(table).collect();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), table.len());
        }
    }
}
