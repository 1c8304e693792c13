//! The GRE tracker: a tunnel that was answered lives longer, and is worth keeping (Linux 6.12
//! `nf_conntrack_gre_packet`).
//!
//! Plain GRE is one flow between two hosts. A PPTP call is one flow a direction, because its
//! packets name the receiver's end of the call only, and which two ends make a call is said in the
//! control connection.

use super::config::Timeouts;
use super::entry::{Core, status};
use crate::base::time::Span;

/// Moves the flow by a packet; returns how long it lives from now.
#[inline]
pub fn packet(core: &mut Core, timeouts: &Timeouts) -> Span {
    answered(core, timeouts.gre_unreplied, timeouts.gre_replied)
}

/// The rule of protocols that have nothing but replies to go by: the packet after the first reply
/// makes the flow ASSURED.
#[inline]
pub(super) fn answered(core: &mut Core, unreplied: Span, replied: Span) -> Span {
    if !core.has(status::SEEN_REPLY) {
        return unreplied;
    }
    core.status |= status::ASSURED;
    replied
}

#[cfg(test)]
mod tests {
    use crate::conntrack::trace::{Trace, V4, V6, towards};
    use crate::wire::build::{Segment, frame};
    use crate::wire::proto;

    /// A header of version 0, around IPv4.
    const PLAIN: &[u8] = &[0, 0, 8, 0, 0x45, 0, 0, 0, 0, 0];

    /// A header of version 1 with sequence number, around PPP.
    fn call(id: u8) -> Vec<u8> {
        vec![0x30, 1, 0x88, 0x0b, 0, 4, 0, id, 0, 0, 0, 1, 1, 2, 3, 4]
    }

    fn play(lines: &[(char, &[u8], &str)]) -> [Trace; 2] {
        [V4, V6].map(|addrs| {
            let mut trace = Trace::new();
            for (at, (way, bytes, said)) in lines.iter().enumerate() {
                let got = trace.raw(towards(addrs, *way), proto::GRE, bytes);
                assert_eq!(got, *said, "packet {} of {addrs:?}", at + 1);
            }
            trace
        })
    }

    #[test]
    fn a_tunnel_is_one_flow() {
        play(&[
            ('>', PLAIN, "new 30"),
            ('>', PLAIN, "new 30"),
            ('<', PLAIN, "established 30"),
            ('>', PLAIN, "established 180 ASSURED"),
            ('<', PLAIN, "established 180 ASSURED"),
            // Version 2, and headers that are cut short, count as plain.
            (
                '<',
                &[0x30, 2, 0x88, 0x0b, 0, 4, 0, 7],
                "established 180 ASSURED",
            ),
            (
                '<',
                &[0x30, 1, 0x88, 0x0b, 0, 4, 0],
                "established 180 ASSURED",
            ),
            ('<', &[], "established 180 ASSURED"),
            ('<', &call(0), "established 180 ASSURED"),
        ]);
    }

    #[test]
    fn a_call_is_a_flow_each_way() {
        play(&[
            ('>', &call(7), "new 30"),
            ('<', &call(7), "new 30"),
            ('<', &call(9), "new 30"),
            ('>', &call(7), "new 30"),
            ('>', &[0x30, 1, 8, 0, 0, 4, 0, 7], "invalid -"), // not PPP
        ]);
    }

    #[test]
    fn errors_about_calls_need_their_number() {
        let [mut trace, _] = play(&[('>', &call(7), "new 30")]);
        let about = |quoted: &[u8]| {
            let inner = frame(V4, Segment::Raw(proto::GRE), quoted);
            let unreachable = Segment::Icmp {
                ty: 3,
                code: 1,
                rest: 0,
            };
            frame(V4.flip(), unreachable, &inner[14..])
        };
        assert_eq!(trace.frame(&about(&call(7)[..8])), "related 30");
        for stranger in [&call(8)[..], &call(7)[..7], PLAIN] {
            assert_eq!(trace.frame(&about(stranger)), "invalid -");
        }
    }
}
