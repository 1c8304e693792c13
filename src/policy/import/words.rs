//! Names that rule sets use for numbers, as the policy writes them.
//!
//! Sources: IANA's registries "Service Name and Transport Protocol Port Number" and "Protocol
//! Numbers", RFC 792 and RFC 4443 (types and codes), iptables-extensions(8) for what iptables calls
//! them, nft(8) for kinds of `reject`. Constant tables and functions of them.

use super::rules::Why;
use crate::policy::names::{self, parse_number};
use crate::policy::ranges::IpRange;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Services that rule sets commonly name.
const SERVICES: &[(&str, u16)] = &[
    ("ftp-data", 20),
    ("ftp", 21),
    ("ssh", 22),
    ("telnet", 23),
    ("smtp", 25),
    ("time", 37),
    ("whois", 43),
    ("tacacs", 49),
    ("domain", 53),
    ("bootps", 67),
    ("bootpc", 68),
    ("tftp", 69),
    ("gopher", 70),
    ("finger", 79),
    ("http", 80),
    ("www", 80),
    ("kerberos", 88),
    ("pop3", 110),
    ("sunrpc", 111),
    ("portmapper", 111),
    ("auth", 113),
    ("ident", 113),
    ("nntp", 119),
    ("ntp", 123),
    ("netbios-ns", 137),
    ("netbios-dgm", 138),
    ("netbios-ssn", 139),
    ("imap", 143),
    ("imap2", 143),
    ("snmp", 161),
    ("snmp-trap", 162),
    ("snmptrap", 162),
    ("bgp", 179),
    ("irc", 194),
    ("ldap", 389),
    ("https", 443),
    ("microsoft-ds", 445),
    ("submissions", 465),
    ("isakmp", 500),
    ("syslog", 514),
    ("printer", 515),
    ("dhcpv6-client", 546),
    ("dhcpv6-server", 547),
    ("rtsp", 554),
    ("nntps", 563),
    ("submission", 587),
    ("ipp", 631),
    ("ldaps", 636),
    ("rsync", 873),
    ("ftps", 990),
    ("imaps", 993),
    ("pop3s", 995),
    ("socks", 1080),
    ("openvpn", 1194),
    ("ms-sql-s", 1433),
    ("radius", 1812),
    ("radius-acct", 1813),
    ("nfs", 2049),
    ("mysql", 3306),
    ("rdp", 3389),
    ("ipsec-nat-t", 4500),
    ("sip", 5060),
    ("sip-tls", 5061),
    ("xmpp-client", 5222),
    ("mdns", 5353),
    ("postgresql", 5432),
    ("x11", 6000),
    ("ircd", 6667),
    ("http-alt", 8080),
    ("amanda", 10080),
];

/// What iptables calls types, and types with a code, of ICMP.
const ICMP: &[(&str, u8, Option<u8>)] = &[
    ("pong", 0, None),
    ("network-unreachable", 3, Some(0)),
    ("host-unreachable", 3, Some(1)),
    ("protocol-unreachable", 3, Some(2)),
    ("port-unreachable", 3, Some(3)),
    ("fragmentation-needed", 3, Some(4)),
    ("source-route-failed", 3, Some(5)),
    ("network-unknown", 3, Some(6)),
    ("host-unknown", 3, Some(7)),
    ("network-prohibited", 3, Some(9)),
    ("host-prohibited", 3, Some(10)),
    ("TOS-network-unreachable", 3, Some(11)),
    ("TOS-host-unreachable", 3, Some(12)),
    ("communication-prohibited", 3, Some(13)),
    ("host-precedence-violation", 3, Some(14)),
    ("precedence-cutoff", 3, Some(15)),
    ("network-redirect", 5, Some(0)),
    ("host-redirect", 5, Some(1)),
    ("TOS-network-redirect", 5, Some(2)),
    ("TOS-host-redirect", 5, Some(3)),
    ("ping", 8, None),
    ("ttl-exceeded", 11, None),
    ("ttl-zero-during-transit", 11, Some(0)),
    ("ttl-zero-during-reassembly", 11, Some(1)),
    ("ip-header-bad", 12, Some(0)),
    ("required-option-missing", 12, Some(1)),
];

/// The same of ICMPv6.
const ICMPV6: &[(&str, u8, Option<u8>)] = &[
    ("no-route", 1, Some(0)),
    ("communication-prohibited", 1, Some(1)),
    ("beyond-scope", 1, Some(2)),
    ("address-unreachable", 1, Some(3)),
    ("port-unreachable", 1, Some(4)),
    ("failed-policy", 1, Some(5)),
    ("reject-route", 1, Some(6)),
    ("ttl-exceeded", 3, None),
    ("ttl-zero-during-transit", 3, Some(0)),
    ("ttl-zero-during-reassembly", 3, Some(1)),
    ("bad-header", 4, Some(0)),
    ("unknown-header-type", 4, Some(1)),
    ("unknown-option", 4, Some(2)),
    ("ping", 128, None),
    ("pong", 129, None),
    ("router-solicitation", 133, None),
    ("router-advertisement", 134, None),
    ("neighbor-solicitation", 135, None),
    ("neighbour-solicitation", 135, None),
    ("neighbor-advertisement", 136, None),
    ("neighbour-advertisement", 136, None),
    ("redirect", 137, None),
];

/// Other names of protocols, as /etc/protocols of Debian has them.
const PROTOCOLS: &[(&str, &str)] = &[
    ("ipv6-icmp", "icmpv6"),
    ("icmp6", "icmpv6"),
    ("ipencap", "ipip"),
    ("ospfigp", "ospf"),
    ("ipcomp", "comp"),
    ("ipv6-auth", "ah"),
    ("ipv6-crypt", "esp"),
];

/// Kinds of `reject`: of iptables and of nftables, what the policy calls them, and whether its
/// answer is the same.
const REJECTS: &[(&str, &str, bool)] = &[
    ("tcp-reset", "tcp-reset", true),
    ("tcp-rst", "tcp-reset", true),
    ("port-unreachable", "icmp-port-unreachable", true),
    ("net-unreachable", "net-unreachable", true),
    ("no-route", "net-unreachable", true),
    ("host-unreachable", "host-unreachable", true),
    ("addr-unreachable", "host-unreachable", true),
    ("admin-prohibited", "admin-prohibited", true),
    ("adm-prohibited", "admin-prohibited", true),
    ("host-prohibited", "admin-prohibited", false),
    ("net-prohibited", "admin-prohibited", false),
    ("policy-fail", "admin-prohibited", false),
    ("reject-route", "net-unreachable", false),
    ("proto-unreachable", "icmp-port-unreachable", false),
    ("prot-unreachable", "icmp-port-unreachable", false),
];

/// An address, a network or a range, in the policy's spelling.
pub(super) fn addr(word: &str) -> Result<String, Why> {
    let bad = || Why::from(format!("`{word}` is not an address"));
    if word.contains('-') {
        return IpRange::parse(word)
            .map(|_| word.to_owned())
            .map_err(|_| bad());
    }
    let (addr, len) = word
        .split_once('/')
        .map_or((word, None), |(addr, len)| (addr, Some(len)));
    let addr: IpAddr = addr.parse().map_err(|_| bad())?;
    let bits = if addr.is_ipv4() { 32 } else { 128 };
    let len = match len {
        None => bits,
        Some(len) => match (len.parse::<u32>(), len.parse::<Ipv4Addr>()) {
            (Ok(len), _) if len <= bits => len,
            (_, Ok(mask))
                if addr.is_ipv4()
                    && mask.to_bits().leading_ones() + mask.to_bits().trailing_zeros() >= 32 =>
            {
                mask.to_bits().leading_ones()
            }
            _ => return Err(format!("`{word}`: the mask is not a prefix length").into()),
        },
    };
    let network = match addr {
        IpAddr::V4(addr) => {
            let host = u32::MAX.checked_shr(len).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(addr.to_bits() & !host))
        }
        IpAddr::V6(addr) => {
            let host = u128::MAX.checked_shr(len).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(addr.to_bits() & !host))
        }
    };
    Ok(if len == bits {
        network.to_string()
    } else {
        format!("{network}/{len}")
    })
}

/// A protocol, in the policy's spelling.
pub(super) fn proto(word: &str) -> Result<String, Why> {
    let word = word.to_ascii_lowercase();
    let other = names::number(PROTOCOLS, &word).unwrap_or(word.as_str());
    let number = match parse_number(other) {
        Some(number) => u8::try_from(number).ok(),
        None => names::number(names::PROTOCOLS, other),
    };
    let number = number.ok_or_else(|| format!("protocol `{word}` is not known"))?;
    Ok(names::protocol_name(number).map_or_else(|| number.to_string(), str::to_owned))
}

/// A port or a range with `between`, either end of which may be missing.
pub(super) fn ports(word: &str, between: char) -> Result<String, Why> {
    let one = |word: &str| -> Result<u16, Why> {
        let named = names::number(SERVICES, &word.to_ascii_lowercase());
        let number = parse_number(word).and_then(|number| u16::try_from(number).ok());
        named
            .or(number)
            .ok_or_else(|| format!("port `{word}` is not known").into())
    };
    // names of services have dashes
    if let Ok(port) = one(word) {
        return Ok(port.to_string());
    }
    let Some((low, high)) = word.split_once(between) else {
        return Ok(one(word)?.to_string());
    };
    let low = if low.is_empty() { 0 } else { one(low)? };
    let high = if high.is_empty() {
        u16::MAX
    } else {
        one(high)?
    };
    if low > high {
        return Err(format!("range `{word}` ends before it begins").into());
    }
    Ok(format!("{low}-{high}"))
}

/// A number from 0 to 65535 or a range, in the policy's spelling.
pub(super) fn numbers(word: &str, between: char) -> Result<String, Why> {
    let one = |word: &str| parse_number(word).map(|number| number.min(65535));
    let (low, high) = word.split_once(between).unwrap_or((word, word));
    let low = if low.is_empty() { Some(0) } else { one(low) };
    let high = if high.is_empty() {
        Some(65535)
    } else {
        one(high)
    };
    match (low, high) {
        (Some(low), Some(high)) if low == high => Ok(low.to_string()),
        (Some(low), Some(high)) if low < high => Ok(format!("{low}-{high}")),
        _ => Err(format!("`{word}` is not a number or a range").into()),
    }
}

/// A type of ICMP or ICMPv6, by name or number, with or without a code.
pub(super) fn icmp(word: &str, v6: bool) -> Result<String, Why> {
    let (name, code) = word
        .split_once('/')
        .map_or((word, None), |(name, code)| (name, Some(code)));
    let small = |text: &str| parse_number(text).and_then(|number| u8::try_from(number).ok());
    let (own, others) = if v6 {
        (names::ICMPV6_TYPES, ICMPV6)
    } else {
        (names::ICMP_TYPES, ICMP)
    };
    let other = others.iter().find(|(other, ..)| *other == name);
    let bad = || Why::from(format!("ICMP type `{word}` is not known"));
    let (number, of_name) = match (small(name), names::number(own, name), other) {
        (Some(number), ..) | (None, Some(number), _) => (number, None),
        (None, None, Some((_, number, code))) => (*number, *code),
        _ => return Err(bad()),
    };
    let code = match code {
        Some(code) => Some(small(code).ok_or_else(bad)?),
        None => of_name,
    };
    let known = own.iter().find(|(_, known)| *known == number);
    let name = known.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned());
    Ok(match code {
        Some(code) => format!("{name}/{code}"),
        None => name,
    })
}

/// A code of `destination-unreachable` as nftables names it, or any code by number.
pub(super) fn icmp_code(word: &str, v6: bool) -> Result<String, Why> {
    const V4: [(&str, u8); 8] = [
        ("net-unreachable", 0),
        ("host-unreachable", 1),
        ("prot-unreachable", 2),
        ("port-unreachable", 3),
        ("frag-needed", 4),
        ("net-prohibited", 9),
        ("host-prohibited", 10),
        ("admin-prohibited", 13),
    ];
    const V6: [(&str, u8); 6] = [
        ("no-route", 0),
        ("admin-prohibited", 1),
        ("addr-unreachable", 3),
        ("port-unreachable", 4),
        ("policy-fail", 5),
        ("reject-route", 6),
    ];
    let named = names::number(if v6 { &V6[..] } else { &V4[..] }, word);
    let number = parse_number(word).and_then(|number| u8::try_from(number).ok());
    let code = named.or(number).map(|code| code.to_string());
    code.ok_or_else(|| format!("ICMP code `{word}` is not known").into())
}

/// A code point, by name or number.
pub(super) fn dscp(word: &str) -> Result<String, Why> {
    let word = word.to_ascii_lowercase();
    let number = parse_number(&word)
        .filter(|number| *number < 64)
        .map(|number| number as u8);
    let point = names::number(names::DSCP, &word).or(number);
    let point = point.ok_or_else(|| format!("code point `{word}` is not known"))?;
    let known = names::DSCP.iter().find(|(_, known)| *known == point);
    Ok(known.map_or_else(|| point.to_string(), |(name, _)| (*name).to_owned()))
}

/// What the policy calls a kind of `reject`, and what is different about it.
pub(super) fn reject(word: &str) -> Result<(&'static str, Option<String>), Why> {
    let kind = ["icmp6-", "icmp-"]
        .iter()
        .find_map(|front| word.strip_prefix(front))
        .unwrap_or(word);
    let found = REJECTS.iter().find(|(known, ..)| *known == kind);
    let (_, ours, same) = found.ok_or_else(|| format!("reject with `{word}` is not known"))?;
    let note = format!("senders are told `{ours}` in place of `{word}`");
    Ok((ours, (!same).then_some(note)))
}

/// TCP flags separated by `by`, in the policy's spelling and a bit each.
pub(super) fn flags(text: &str, by: char) -> Result<u8, Why> {
    let each = text
        .split(by)
        .map(|word| match word.trim().to_ascii_lowercase().as_str() {
            "all" => Ok(0x3f),
            "none" => Ok(0),
            word => names::number(names::TCP_FLAGS, word)
                .ok_or_else(|| format!("TCP flag `{word}` is not known")),
        });
    each.map(|flag| flag.map_err(Why::from))
        .try_fold(0, |all, flag| Ok(all | flag?))
}

/// A value of `tcp-flags`: those of `mask` are as in `value`.
pub(super) fn flag_match(mask: u8, value: u8) -> Result<String, Why> {
    if value & !mask != 0 || mask == 0 {
        return Err(Why::Never(
            "it never matches: it asks for TCP flags that are not in its mask".into(),
        ));
    }
    let words = |bits: u8| {
        let set = names::TCP_FLAGS.iter().filter(|(_, bit)| bits & bit != 0);
        let set: Vec<_> = set.map(|(name, _)| *name).collect();
        if set.is_empty() {
            "none".to_owned()
        } else {
            set.join(",")
        }
    };
    Ok(match (mask, value) {
        (0x17, 2) => "syn".into(),
        _ => format!("{}/{}", words(mask), words(value)),
    })
}

/// States that none of `states` is.
pub(super) fn other_states(states: &[String]) -> Vec<String> {
    let all = ["new", "established", "related", "invalid", "untracked"].iter();
    all.filter(|state| !states.iter().any(|s| s == *state))
        .map(|state| (*state).to_owned())
        .collect()
}
