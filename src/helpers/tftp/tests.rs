//! Requests as real clients send them, and everything else.

use super::*;
use crate::conntrack::helper::{Permissions, Request};
use crate::conntrack::tuple::Tuple;
use crate::conntrack::types::Dir;
use crate::helpers::Talk;
use crate::wire::Addrs;
use crate::wire::inner::Ports;
use proptest::prelude::*;
use std::net::IpAddr;
use zerocopy::FromZeros;

const V4: (&str, &str) = ("192.0.2.1", "198.51.100.2");
const V6: (&str, &str) = ("2001:db8::1", "2001:db8:f::2");

/// A packet of a flow from `client`:`port` to `server`:69.
fn context((client, server): (&str, &str), port: u16, dir: Dir) -> Context {
    let addrs = match (client.parse().unwrap(), server.parse().unwrap()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => Addrs::V4 {
            src: src.to_bits(),
            dst: dst.to_bits(),
        },
        (IpAddr::V6(src), IpAddr::V6(dst)) => Addrs::V6 {
            src: src.to_bits(),
            dst: dst.to_bits(),
        },
        _ => unreachable!("two addresses of one family"),
    };
    Context {
        original: Tuple {
            addrs,
            proto: proto::UDP,
            ports: Ports::Ports {
                sport: port,
                dport: 69,
            },
            zone: 0,
        },
        dir,
        expected: false,
        permissions: Permissions::default(),
    }
}

fn hear(context: &Context, payload: &[u8]) -> Heard {
    let (mut talk, mut heard) = (Talk::new_zeroed(), Heard::default());
    talk.listen(&TFTP, context, payload, None, &mut heard);
    heard
}

/// One flow from any port of the server to the client's.
fn answer((client, server): (&str, &str), port: u16) -> Vec<Request> {
    let (client, server) = (client.parse().unwrap(), server.parse().unwrap());
    vec![Request::Expect(Expect::once(
        proto::UDP,
        Some(server),
        client,
        port,
    ))]
}

#[test]
fn requests_of_real_clients() {
    for (payload, who) in [
        (&b"\0\x01hello.txt\0octet\0"[..], "tftp-hpa, get"),
        (b"\0\x02hello.txt\0netascii\0", "tftp-hpa, put"),
        (
            b"\0\x01big\0octet\0tsize\x000\0blksize\x001428\0",
            "tftp-hpa, options",
        ),
        (
            b"\0\x01big\0octet\0tsize\x000\0blksize\x00512\0timeout\x005\0multicast\0\0",
            "atftp",
        ),
        (
            b"\0\x01pxelinux.0\0octet\0tsize\x000\0",
            "PXE ROM, size only",
        ),
        (b"\0\x01pxelinux.0\0octet\0blksize\x001456\0", "PXE ROM"),
        (
            b"\0\x01bootx64.efi\0octet\0tsize\x000\0blksize\x001468\0windowsize\x004\0",
            "UEFI",
        ),
        (b"\0\x02startup-config\0octet\0", "router"),
        // as the kernel, which does not read on
        (b"\0\x01", "opcode alone"),
        (b"\0\x02no end", "nothing ends"),
    ] {
        for hosts in [V4, V6] {
            let heard = hear(&context(hosts, 50123, Dir::Original), payload);
            assert_eq!(heard.requests[..], answer(hosts, 50123), "{who}");
            assert_eq!((heard.parsed, heard.drop, heard.keep), (1, false, None));
            assert!(heard.refused.iter().all(|count| *count == 0), "{who}");
        }
    }
}

#[test]
fn what_is_no_request_expects_nothing() {
    for payload in [
        &b""[..],
        b"\0",
        b"\x01",
        b"\0\0file\0octet\0",
        b"\0\x03\0\x01data",
        b"\0\x04\0\x01",
        b"\0\x05\0\x01File not found\0",
        b"\0\x06blksize\x001428\0",
        b"\x01\0file\0octet\0",
        b"\x01\x01file\0octet\0",
        b"\xff\x01",
    ] {
        let heard = hear(&context(V4, 50123, Dir::Original), payload);
        assert!(heard.requests.is_empty(), "{payload:?}");
        assert_eq!(heard.parsed, 0, "{payload:?}");
    }
}

#[test]
fn a_request_counts_in_either_direction_and_leads_to_the_client() {
    let heard = hear(&context(V4, 50123, Dir::Reply), b"\0\x01f\0octet\0");
    assert_eq!(heard.requests[..], answer(V4, 50123));
}

#[test]
fn the_clients_own_port_may_be_a_low_one() {
    // old boot ROMs send from 69 or thereabouts
    let heard = hear(&context(V4, 69, Dir::Original), b"\0\x01f\0octet\0");
    assert_eq!(heard.requests[..], answer(V4, 69));
}

proptest! {
    #[test]
    fn only_the_opcode_counts(payload: Vec<u8>, reply: bool, port: u16) {
        let dir = if reply { Dir::Reply } else { Dir::Original };
        let heard = hear(&context(V4, port, dir), &payload);
        let request = matches!(payload[..], [0, 1 | 2, ..]);
        prop_assert_eq!(heard.requests.len(), usize::from(request));
        prop_assert_eq!(heard.parsed, u16::from(request));
    }
}
