//! What imported policies say of packets, against tables made by hand from the rule sets.

use super::*;
use crate::base::time::Now;
use crate::conntrack::types::{CtState, Dir, proto};
use crate::policy::{Compiled, Facts, PortId, RawVerdict, RejectWith, Verdict, compile};
use crate::wire::NO_VLAN;
use crate::wire::parsed::{Addrs, Checksum, Fragment, L3, L4, Parsed, TcpHeader};
use CtState::{Established, Invalid, New, Related, Untracked};
use Verdict::{Accept, Drop, Reject};

const SYN: u8 = 2;
const ACK: u8 = 16;

fn addr(text: &str) -> u32 {
    text.parse::<std::net::Ipv4Addr>().unwrap().to_bits()
}

fn ip(number: u8, l4: L4, src: &str, dst: &str) -> Parsed {
    Parsed {
        l3: L3::Ipv4,
        addrs: Addrs::V4 {
            src: addr(src),
            dst: addr(dst),
        },
        l4,
        ethertype: 0x0800,
        vlan: NO_VLAN,
        l3_offset: 14,
        l4_offset: 34,
        end: 74,
        proto: number,
        ttl: 64,
        dscp: 0,
        fragment: Fragment::Whole,
        l4_sum: Checksum::Unknown,
        frame_len: 74,
    }
}

fn tcp(flags: u8, src: &str, dst: &str, dport: u16) -> Parsed {
    let header = TcpHeader {
        sport: 40000,
        dport,
        seq: 1,
        ack: 0,
        window: 1000,
        flags,
        header_len: 20,
    };
    ip(proto::TCP, L4::Tcp(header), src, dst)
}

fn udp(src: &str, sport: u16, dst: &str, dport: u16) -> Parsed {
    ip(proto::UDP, L4::Udp { sport, dport }, src, dst)
}

fn icmp(ty: u8, code: u8) -> Parsed {
    ip(
        proto::ICMP,
        L4::Icmp { ty, code, id: 0 },
        "192.0.2.1",
        "10.2.0.1",
    )
}

fn v6(packet: Parsed) -> Parsed {
    let net = 0xfd02 << 112;
    let addrs = Addrs::V6 {
        src: net | 1,
        dst: net | 2,
    };
    Parsed {
        l3: L3::Ipv6,
        addrs,
        ethertype: 0x86dd,
        ..packet
    }
}

fn compiled(name: &str, hook: Hook) -> Compiled {
    let imported = imported(name, &sample(name), hook);
    let checked =
        crate::policy::parse(name, &imported.policy).unwrap_or_else(|errors| panic!("{errors}"));
    compile(&checked.model, 1, 1)
}

/// Asserts what the policy says of packets by where they come in, and their state.
fn judged(policy: &Compiled, cases: &[(&str, CtState, Parsed, Verdict)]) {
    let named = |name: &str| policy.port_names().iter().position(|port| port == name);
    for (at, (iif, state, packet, want)) in cases.iter().enumerate() {
        let iif = named(iif).unwrap() as u8;
        let facts = Facts {
            packet,
            iif: PortId(iif),
            oif: PortId(1 - iif),
            state: *state,
            dir: Some(Dir::Original),
            flow: None,
            now: Now::from_secs(1000),
        };
        let decision = policy.forward(0, &facts);
        let rule = policy.rule_name(decision.rule);
        assert_eq!(decision.verdict, *want, "case {at}, by {rule}: {packet:?}");
    }
}

#[test]
fn the_tutorial() {
    let policy = compiled("tutorial.iptables", Hook::Forward);
    let (a, b, dns) = ("192.0.2.1", "10.2.0.1", "192.0.2.53");
    judged(
        &policy,
        &[
            ("eth1", New, tcp(SYN, b, a, 9999), Accept),
            // new, and no SYN: from inside too
            ("eth1", New, tcp(ACK, b, a, 9999), Drop),
            (
                "eth1",
                New,
                tcp(SYN | ACK, b, a, 9999),
                Reject(RejectWith::TcpReset),
            ),
            (
                "eth0",
                New,
                tcp(SYN | ACK, a, b, 9999),
                Reject(RejectWith::TcpReset),
            ),
            ("eth0", Established, tcp(SYN | ACK, a, b, 9999), Accept),
            ("eth0", Related, icmp(3, 1), Accept),
            ("eth0", Untracked, tcp(SYN, a, b, 80), Accept),
            ("eth0", New, tcp(SYN, a, b, 22), Accept),
            ("eth0", New, tcp(SYN, a, b, 81), Accept),
            ("eth0", New, tcp(SYN, a, b, 82), Drop),
            ("eth0", New, tcp(SYN, a, b, 8080), Accept),
            ("eth0", Invalid, tcp(ACK, a, b, 22), Drop),
            ("eth0", New, udp(dns, 53, b, 5000), Accept),
            ("eth0", New, udp(a, 53, b, 5000), Drop),
            ("eth0", New, udp(a, 5, b, 123), Accept),
            ("eth0", New, udp(a, 5, "255.255.255.255", 67), Drop),
            ("eth0", New, udp(a, 5, b, 137), Drop),
            ("eth0", New, icmp(11, 0), Accept),
            ("eth0", New, icmp(3, 4), Accept),
            ("eth0", New, icmp(3, 1), Accept),
            ("eth0", New, icmp(3, 2), Drop),
            ("eth0", New, icmp(13, 0), Drop),
            // five at once, then one a second
            ("eth0", New, icmp(8, 0), Accept),
            ("eth0", New, icmp(8, 0), Accept),
            ("eth0", New, icmp(8, 0), Accept),
            ("eth0", New, icmp(8, 0), Accept),
            ("eth0", New, icmp(8, 0), Accept),
            ("eth0", New, icmp(8, 0), Drop),
            ("eth0", New, tcp(SYN, a, "224.0.0.5", 23), Drop),
            // it said nothing about IPv6
            ("eth1", New, v6(tcp(SYN, b, a, 9999)), Drop),
            ("eth0", Established, v6(tcp(ACK, a, b, 22)), Drop),
        ],
    );
    let raw = |packet: &Parsed| {
        let (iif, oif) = (PortId(0), PortId(1));
        policy.raw(
            0,
            &Facts {
                packet,
                iif,
                oif,
                state: New,
                dir: None,
                flow: None,
                now: Now::from_secs(1),
            },
        )
    };
    assert_eq!(raw(&tcp(SYN, a, "10.2.0.80", 80)), RawVerdict::Notrack);
    assert_eq!(raw(&tcp(SYN, a, "10.2.0.81", 80)), RawVerdict::Track);
}

#[test]
fn the_office() {
    let policy = compiled("office.nft", Hook::Forward);
    let (a, b) = ("192.0.2.1", "10.2.0.1");
    let (lan, wan) = ("enp1s0", "enp2s0");
    judged(
        &policy,
        &[
            // dropped before tracking: whatever the state
            (wan, Established, tcp(ACK, "10.9.9.9", b, 80), Drop),
            (lan, Established, tcp(ACK, "10.9.9.9", a, 80), Accept),
            (wan, Invalid, tcp(ACK, a, b, 80), Drop),
            (wan, Untracked, udp(a, 33333, b, 33333), Accept),
            (lan, New, tcp(ACK, b, a, 80), Drop),
            (lan, New, tcp(SYN, b, a, 9999), Accept),
            (lan, New, v6(tcp(SYN, b, a, 9999)), Accept),
            (wan, New, tcp(SYN, a, b, 80), Accept),
            (wan, New, tcp(SYN, a, "10.3.0.6", 8001), Accept),
            (
                wan,
                New,
                tcp(SYN, a, "10.3.0.4", 80),
                Reject(RejectWith::IcmpPortUnreachable),
            ),
            (wan, New, v6(tcp(SYN, a, b, 443)), Accept),
            (wan, New, tcp(SYN, a, b, 25), Drop),
            (wan, New, tcp(SYN, a, b, 465), Drop),
            (wan, New, tcp(SYN, a, b, 22), Accept),
            (wan, New, udp(a, 5, "10.2.0.53", 53), Accept),
            (
                wan,
                New,
                udp(a, 5, b, 53),
                Reject(RejectWith::IcmpPortUnreachable),
            ),
            (wan, New, udp(a, 5, b, 1024), Accept),
            (
                wan,
                New,
                udp("203.0.113.7", 5, b, 1024),
                Reject(RejectWith::IcmpPortUnreachable),
            ),
            (
                wan,
                New,
                udp("198.51.100.9", 5, b, 1024),
                Reject(RejectWith::IcmpPortUnreachable),
            ),
            (wan, New, icmp(3, 4), Accept),
            (
                wan,
                New,
                icmp(3, 1),
                Reject(RejectWith::IcmpPortUnreachable),
            ),
            (wan, New, icmp(0, 0), Accept),
        ],
    );
    let echo = |want| (wan, New, icmp(8, 0), want);
    judged(&policy, &[echo(Accept); 20]);
    judged(&policy, &[echo(Drop); 3]);
}

#[test]
fn chains_at_one_hook_and_families_of_their_own() {
    let policy = compiled("families.nft", Hook::Forward);
    let lan = "lan";
    let to = |src: &str, dport| tcp(SYN, src, "10.0.0.1", dport);
    judged(
        &policy,
        &[
            (lan, New, to("192.0.2.66", 22), Drop),
            (lan, New, to("192.0.2.5", 22), Accept),
            (lan, New, to("192.0.2.5", 23), Drop),
            (lan, New, to("192.0.2.5", 24), Accept),
            (lan, New, to("192.0.2.5", 25), Drop),
            // accepted by the first chain, judged by the second
            (lan, New, to("192.0.2.1", 23), Accept),
            (lan, New, to("192.0.2.1", 25), Drop),
            // returns to the first chain, which goes on
            (lan, New, to("192.0.2.2", 23), Drop),
            (lan, New, to("192.0.2.3", 24), Drop),
            // a goto comes back to where the chain was jumped from
            (lan, New, to("192.0.2.3", 23), Drop),
            (lan, New, to("192.0.2.3", 22), Accept),
            (lan, New, udp("192.0.2.5", 5, "10.0.0.1", 53), Accept),
            (lan, New, udp("192.0.2.1", 5, "10.0.0.1", 53), Accept),
            (lan, New, udp("192.0.2.9", 5, "10.0.0.1", 53), Drop),
            (lan, New, v6(to("192.0.2.66", 22)), Accept),
            (
                lan,
                New,
                v6(to("192.0.2.66", 23)),
                Reject(RejectWith::AdminProhibited),
            ),
        ],
    );
}

#[test]
fn the_host() {
    let policy = compiled("host.iptables", Hook::Input);
    let (out, inside) = ("203.0.113.9", "192.0.2.15");
    let eth = "eth0";
    let prohibited = Reject(RejectWith::AdminProhibited);
    judged(
        &policy,
        &[
            (
                eth,
                Established,
                tcp(ACK, "127.0.0.1", "10.0.0.1", 22),
                Drop,
            ),
            (eth, Established, tcp(ACK, out, "10.0.0.1", 22), Accept),
            (eth, Invalid, tcp(ACK, out, "10.0.0.1", 22), Drop),
            (eth, New, tcp(SYN, out, "10.0.0.1", 25), Drop),
            (eth, New, tcp(SYN, out, "10.0.0.1", 443), prohibited),
            (eth, New, tcp(SYN, inside, "10.0.0.1", 25), prohibited),
            (
                eth,
                New,
                tcp(SYN, "203.0.113.5", "10.0.0.1", 22),
                Reject(RejectWith::IcmpPortUnreachable),
            ),
            (eth, New, udp(out, 53, "10.0.0.1", 9), Accept),
            (eth, New, udp(out, 9, "10.0.0.1", 123), Accept),
            (eth, New, udp(out, 9, "10.0.0.1", 9), prohibited),
            (eth, New, icmp(8, 0), Accept),
            (eth, New, ip(47, L4::Other, out, "10.0.0.1"), prohibited),
            ("peer", New, ip(47, L4::Other, out, "10.0.0.1"), Drop),
        ],
    );
}

/// Whether a policy of one rule drops a packet from `src`, so many seconds after 1970.
fn dropped(rule: &str, packets: &[(&str, u64)]) -> Vec<bool> {
    let text = format!("*filter\n:FORWARD ACCEPT\n-A FORWARD {rule} -j DROP\nCOMMIT\n");
    let imported = imported("t.iptables", &text, Hook::Forward);
    assert_eq!(imported.left, []);
    let model = crate::policy::parse("t", &imported.policy).unwrap().model;
    let policy = compile(&model, 1, 1);
    let judge = |(src, secs): &(&str, u64)| {
        let packet = tcp(SYN, src, "10.0.0.1", 22);
        let facts = Facts {
            packet: &packet,
            iif: PortId(0),
            oif: PortId(1),
            state: New,
            dir: Some(Dir::Original),
            flow: None,
            now: Now::from_secs(*secs),
        };
        policy.forward(0, &facts).verdict == Drop
    };
    packets.iter().map(judge).collect()
}

/// With Linux' rules for windows over midnight (xt_time): each day for itself, or by the day that
/// the night begins on.
#[test]
fn nights() {
    const DAY: u64 = 86_400;
    // 1970-01-02 was a Friday
    let friday = DAY;
    let night = "-m time --timestart 22:00 --timestop 06:00 --weekdays Fri";
    let (six, ten) = (6 * 3600, 22 * 3600);
    for (at, each, contiguous) in [
        (friday, true, false),
        (friday + six, true, false),
        (friday + six + 1, false, false),
        (friday + ten - 1, false, false),
        (friday + ten, true, true),
        (friday + DAY - 1, true, true),
        (friday + DAY, false, true),
        (friday + DAY + six, false, true),
        (friday + DAY + six + 1, false, false),
        (friday + DAY + ten, false, false),
    ] {
        let packet = [("192.0.2.1", at)];
        assert_eq!(dropped(night, &packet), [each], "{at}");
        let contiguous_night = format!("{night} --contiguous");
        assert_eq!(dropped(&contiguous_night, &packet), [contiguous], "{at}");
    }
}

#[test]
fn who_is_above_a_rate() {
    let rule = "-m hashlimit --hashlimit-above 1/min --hashlimit-burst 2 --hashlimit-mode srcip --hashlimit-srcmask 24 --hashlimit-name s";
    let packets = [
        ("192.0.2.1", 1000),
        ("192.0.2.2", 1000),
        ("192.0.2.3", 1000),
        ("192.0.3.1", 1000),
        ("192.0.2.1", 1059),
        ("192.0.2.1", 1060),
        ("192.0.2.1", 1060),
    ];
    let expected = [false, false, true, false, true, false, true];
    assert_eq!(dropped(rule, &packets), expected);
}
