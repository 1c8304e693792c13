//! What ICMP and ICMPv6 messages mean to the tracker.
//!
//! Queries are flows (RFC 792, RFC 4443); errors are about the flow of the packet that they quote;
//! IPv6 neighbour and multicast discovery is never tracked. Types as Linux 6.12 sorts them.

use super::types::proto;
use crate::wire::icmp::{v4, v6};
use crate::wire::{Addrs, L4, Parsed};

/// The part that a message plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Asks: may create a flow.
    Request,
    /// Answers; without its request it is INVALID.
    Reply,
    /// Quotes a packet.
    Error,
    /// Neighbour, router or multicast listener discovery.
    Discovery,
    /// Nothing that is tracked: INVALID.
    Other,
}

/// The role of a message of `proto` (ICMP or ICMPv6) and type `ty`.
#[inline]
pub const fn role(proto: u8, ty: u8) -> Role {
    if proto == proto::ICMP {
        match ty {
            v4::ECHO | v4::TIMESTAMP | v4::INFO | v4::MASK => Role::Request,
            v4::ECHO_REPLY | v4::TIMESTAMP_REPLY | v4::INFO_REPLY | v4::MASK_REPLY => Role::Reply,
            _ if v4::is_error(ty) => Role::Error,
            _ => Role::Other,
        }
    } else {
        match ty {
            v6::ECHO | v6::NODE_INFO_QUERY => Role::Request,
            v6::ECHO_REPLY | v6::NODE_INFO_REPLY => Role::Reply,
            v6::MLD_QUERY..=v6::NEIGHBOUR_ADVERT
            | v6::MLDV2_REPORT
            | v6::MRD_ADVERT
            | v6::MRD_SOLICIT => Role::Discovery,
            0..128 | v6::REDIRECT => Role::Error,
            _ => Role::Other,
        }
    }
}

/// Whether an error or redirect may be believed at all. An ICMPv6 redirect comes from a router on
/// the link: from a link-local address, past no other router, and with code 0 (RFC 4861 8.1).
#[inline]
pub const fn may_quote(parsed: &Parsed) -> bool {
    match (parsed.proto, parsed.l4, parsed.addrs) {
        (
            proto::ICMPV6,
            L4::Icmp {
                ty: v6::REDIRECT,
                code,
                ..
            },
            Addrs::V6 { src, .. },
        ) => code == 0 && parsed.ttl == 255 && src >> 118 == 0xfe80 >> 6,
        _ => true,
    }
}

/// What a link needs to work at all: router and neighbour solicitations and advertisements.
pub const fn is_neighbour_discovery(ty: u8) -> bool {
    matches!(ty, v6::ROUTER_SOLICIT..=v6::NEIGHBOUR_ADVERT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conntrack::trace::{Trace, V6};
    use crate::wire::build::{Link, Segment, emit, frame, frame_len};

    const ROUTER: u128 = 0xfe80 << 112 | 1;
    const UDP: Segment<'static> = Segment::Udp {
        sport: 1000,
        dport: 53,
    };

    /// A redirect from `src` with `options`; what stands before them is all zeros.
    fn redirect(src: u128, hops: u8, code: u8, options: &[u8]) -> Vec<u8> {
        let Addrs::V6 { src: client, .. } = V6 else {
            unreachable!()
        };
        let addrs = Addrs::V6 { src, dst: client };
        let message = Segment::Icmp {
            ty: v6::REDIRECT,
            code,
            rest: 0,
        };
        let payload = [&[0; 32], options].concat();
        let link = Link::default();
        let mut bytes = vec![0; frame_len(&link, &addrs, &message, &payload)];
        emit(&mut bytes, &link, &addrs, hops, &message, &payload);
        bytes
    }

    #[test]
    fn redirects_are_related_if_the_router_is_on_the_link() {
        let query = frame(V6, UDP, b"");
        let option = |ty: u8, len: u8| [&[ty, len, 0, 0, 0, 0, 0, 0], &query[14..]].concat();
        let good = option(4, 7);
        let mut trace = Trace::new();
        assert_eq!(
            trace.frame(&redirect(ROUTER, 255, 0, &good)),
            "invalid -",
            "no flow"
        );
        assert_eq!(trace.frame(&query), "new 30");
        for (bytes, said, why) in [
            (redirect(ROUTER, 255, 0, &good), "related 30", ""),
            (
                redirect(0xfebf << 112 | 1, 255, 0, &good),
                "related 30",
                "link-local too",
            ),
            (
                redirect(0xfec0 << 112 | 1, 255, 0, &good),
                "invalid -",
                "site-local",
            ),
            (
                redirect(0xfd02 << 112 | 1, 255, 0, &good),
                "invalid -",
                "a global source",
            ),
            (
                redirect(ROUTER, 254, 0, &good),
                "invalid -",
                "from beyond a router",
            ),
            (redirect(ROUTER, 255, 1, &good), "invalid -", "a code"),
            (
                redirect(ROUTER, 255, 0, &option(4, 0)),
                "invalid -",
                "an option of no length",
            ),
            (
                redirect(ROUTER, 255, 0, &option(4, 1)),
                "related 30",
                "the length is not used",
            ),
            (
                redirect(ROUTER, 255, 0, &option(2, 7)),
                "invalid -",
                "another option first",
            ),
            (redirect(ROUTER, 255, 0, &[]), "invalid -", "no option"),
        ] {
            assert_eq!(trace.frame(&bytes), said, "{why}");
        }
        // The flow needs the quoted ports; what follows does not matter.
        for keep in 0..good.len() {
            let said = trace.frame(&redirect(ROUTER, 255, 0, &good[..keep]));
            let want = if keep < 8 + 40 + 4 {
                "invalid -"
            } else {
                "related 30"
            };
            assert_eq!(said, want, "{keep} bytes of the option");
        }
    }

    /// What Linux 6.18 said of every type, with no flow to belong to.
    #[test]
    fn every_type_has_its_role() {
        for ty in 0..=255 {
            let request = matches!(ty, 8 | 13 | 15 | 17);
            assert_eq!(role(proto::ICMP, ty) == Role::Request, request, "{ty}");
            let request = matches!(ty, 128 | 139);
            assert_eq!(role(proto::ICMPV6, ty) == Role::Request, request, "{ty}");
            let untracked = matches!(ty, 130..=136 | 143 | 151 | 152);
            assert_eq!(
                role(proto::ICMPV6, ty) == Role::Discovery,
                untracked,
                "{ty}"
            );
        }
    }
}
