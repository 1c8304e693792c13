//! The UDP tracker: an answered flow is a stream once it is two seconds old, and only then worth
//! keeping. A DNS query and its answer stay short-lived (Linux 6.12 `nf_conntrack_udp_packet`).
//! A UDP-Lite flow is one as soon as it was answered (`nf_conntrack_udplite_packet`).

use super::config::Timeouts;
use super::entry::{Core, status};
use super::gre;
use crate::base::time::{Span, Ticks};

/// Age from which an answered flow is a stream.
const STREAM_AGE: Span = Span::secs(2);

/// Moves the flow by a packet at `now`; returns how long it lives from now.
#[inline]
pub fn packet(core: &mut Core, created: Ticks, now: Ticks, timeouts: &Timeouts) -> Span {
    if !core.has(status::SEEN_REPLY) {
        return timeouts.udp_unreplied;
    }
    // As an age: compared as points in time, half of all ticks would seem to lie ahead. Once a
    // stream always a stream, also where the age begins anew (after 49.7 days).
    let age = Span(now.0.wrapping_sub(created.0));
    let stream = core.has(status::ASSURED) || age > STREAM_AGE;
    if stream {
        core.status |= status::ASSURED;
        timeouts.udp_replied
    } else {
        timeouts.udp_unreplied
    }
}

/// The same for UDP-Lite.
#[inline]
pub fn lite(core: &mut Core, timeouts: &Timeouts) -> Span {
    gre::answered(core, timeouts.udplite_unreplied, timeouts.udplite_replied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conntrack::config::Config;
    use crate::conntrack::trace::{Trace, V4, V6, towards};
    use crate::wire::checksum::Sum;
    use crate::wire::proto;

    /// A packet with `coverage` in its header, and a checksum over so many bytes.
    fn lite(addrs: crate::wire::Addrs, way: char, coverage: u16) -> Vec<u8> {
        let ports = if way == '>' {
            [1000_u16, 53]
        } else {
            [53, 1000]
        };
        let mut bytes = [ports[0].to_be_bytes(), ports[1].to_be_bytes()].concat();
        bytes.extend(coverage.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(b"12345");
        let covered = match usize::from(coverage) {
            0 => bytes.len(),
            some => some.min(bytes.len()),
        };
        let sum = Sum::default()
            .pseudo(&addrs, proto::UDPLITE, bytes.len() as u32)
            .bytes(&bytes[..covered]);
        bytes[6..8].copy_from_slice(&sum.finish().to_be_bytes());
        bytes
    }

    /// A log server that gets messages for weeks, and then answers: ticks that old cannot be compared.
    #[test]
    fn a_flow_of_any_age_is_a_stream_once_it_was_answered() {
        let timeouts = Config::default().timeouts;
        let at_age = |millis: u64| {
            let mut core = Core::new(true);
            core.status |= status::SEEN_REPLY;
            let created = Ticks(u32::MAX - 7);
            let now = created.plus(Span(millis as u32));
            packet(&mut core, created, now, &timeouts) == timeouts.udp_replied
        };
        for (millis, stream) in [(0, false), (2000, false), (2001, true)] {
            assert_eq!(at_age(millis), stream, "{millis} ms");
        }
        for days in 1..49 {
            assert!(at_age(days * 86_400_000), "{days} days");
        }
    }

    #[test]
    fn udp_lite_is_a_stream_once_it_was_answered() {
        for addrs in [V4, V6] {
            let mut trace = Trace::new();
            for (way, coverage, said) in [
                ('>', 0, "new 30"),
                ('>', 8, "new 30"),
                ('<', 13, "established 30"),
                ('>', 9, "established 120 ASSURED"),
                ('>', 7, "invalid -"),  // not even the header
                ('>', 14, "invalid -"), // more than there is
            ] {
                let addrs = towards(addrs, way);
                let bytes = lite(addrs, way, coverage);
                assert_eq!(
                    trace.raw(addrs, proto::UDPLITE, &bytes),
                    said,
                    "{way} {coverage}"
                );
            }
            let mut bytes = lite(addrs, '>', 0);
            bytes[6..8].fill(0);
            assert_eq!(
                trace.raw(addrs, proto::UDPLITE, &bytes),
                "invalid -",
                "no checksum"
            );
            for short in 0..8 {
                let said = trace.raw(addrs, proto::UDPLITE, &bytes[..short]);
                assert_eq!(said, "invalid -", "{short} bytes");
            }
        }
    }
}
