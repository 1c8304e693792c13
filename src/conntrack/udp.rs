//! The UDP tracker: an answered flow is a stream once it is two seconds old, and only then worth
//! keeping. A DNS query and its answer stay short-lived (Linux 6.12 `nf_conntrack_udp_packet`).

use super::config::Timeouts;
use super::entry::{Core, status};
use crate::base::time::{Span, Ticks};

/// Age from which an answered flow is a stream.
const STREAM_AGE: Span = Span::secs(2);

/// Moves the flow by a packet at `now`; returns how long it lives from now.
#[inline]
pub fn packet(core: &mut Core, created: Ticks, now: Ticks, timeouts: &Timeouts) -> Span {
    if !core.has(status::SEEN_REPLY) {
        return timeouts.udp_unreplied;
    }
    // Once a stream always a stream, also when `created` is too long ago to compare.
    let stream = core.has(status::ASSURED) || created.plus(STREAM_AGE).until(now) > Span(0);
    if stream {
        core.status |= status::ASSURED;
        timeouts.udp_replied
    } else {
        timeouts.udp_unreplied
    }
}
