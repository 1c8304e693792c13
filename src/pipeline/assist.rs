//! What a helper hears of a packet, and what comes of it.
//!
//! Runs after policy has let a packet of a flow with a helper pass, and before it leaves, as in
//! Linux (6.12 nf_confirm): so what a packet announces is expected before anybody can answer it.
//! Where that cannot be, the packet is dropped and what was heard is forgotten; its sender tries
//! again, and it is heard again.
//!
//! Life-cycle and concurrency: a [`Talks`] belongs to one worker's pipeline.

use crate::base::slab::Slab;
use crate::base::time::Ticks;
use crate::conntrack::helper::{Heard, Refusal, Request};
use crate::conntrack::kin;
use crate::conntrack::shard::{FlowRef, HelperCounters, Listening, Shard};
use crate::conntrack::types::{Dir, proto};
use crate::helpers::{self, Talk};
use crate::wire::tcp::flags;
use crate::wire::{L4, Parsed};
use zerocopy::FromZeros;

/// What helpers keep of flows, by the flow's number ([`Listening::number`]).
#[derive(Debug)]
pub struct Talks {
    talks: Slab<Talk>,
}

impl Talks {
    /// For a shard whose tables have `capacity` entries each. The memory is taken for flows that
    /// have a helper only.
    #[allow(clippy::expect_used)] // at start, where memory that is not there ends the start
    pub fn new(capacity: u32) -> Self {
        let room = kin::room(capacity) as usize;
        Self {
            talks: Slab::new(room).expect("memory for what helpers keep"),
        }
    }

    /// Lets the helper of `flow` hear a packet that goes `dir`. Whether it may pass.
    pub fn hear(
        &mut self,
        shard: &mut Shard,
        flow: FlowRef,
        dir: Dir,
        data: &[u8],
        parsed: &Parsed,
        now: Ticks,
    ) -> bool {
        let Some(listening) = shard.listening(flow, dir) else {
            return true;
        };
        let Some(helper) = helpers::helper(listening.helper) else {
            return true;
        };
        let Some(talk) = self.talks.get_mut(listening.number as usize) else {
            return true;
        };
        if listening.fresh {
            talk.zero();
        }
        if let L4::Tcp(ref header) = parsed.l4
            && is_syn(parsed)
            && shard.is_opening(flow)
        {
            talk.restart(dir);
            if dir == Dir::Reply && header.flags & flags::ACK != 0 {
                talk.answered(header.ack);
            }
        }
        let Some((payload, place)) = payload(data, parsed) else {
            return true;
        };
        let before = talk.clone();
        let mut heard = Heard::default();
        // What is said in a stream before both sides have spoken asks for nothing. Where a stream is
        // read from its first byte on, it is the beginning all the same, or whoever cuts the stream
        // there would choose what begins a line.
        let early = place.is_some() && !shard.has_seen_reply(flow);
        if early && !helper.stream.as_ref().is_some_and(|lines| lines.eager) {
            return true;
        }
        talk.listen(helper, &listening.context, payload, place, &mut heard);
        if early {
            return true;
        }
        let mut passes = !heard.drop;
        if passes {
            passes = carry_out(shard, &listening, &mut heard, now);
        }
        if let Some(span) = heard.keep {
            shard.keep(flow, now, span);
        }
        if !passes {
            *talk = before;
        }
        count(shard.helper_counters(listening.helper), &heard);
        passes
    }
}

fn is_syn(parsed: &Parsed) -> bool {
    matches!(parsed.l4, L4::Tcp(ref header) if header.flags & flags::SYN != 0)
}

/// The packet's payload, and its place in a stream. Nothing for what is neither TCP nor UDP.
fn payload<'a>(data: &'a [u8], parsed: &Parsed) -> Option<(&'a [u8], helpers::Place)> {
    let start = usize::from(parsed.l4_offset);
    let end = data.len().min(parsed.end as usize);
    match parsed.l4 {
        // What a RST carries is no part of the stream (RFC 1122, 4.2.2.12), and not every RST is checked
        // against the window.
        L4::Tcp(ref header) if header.flags & flags::RST != 0 => None,
        L4::Tcp(ref header) => {
            let payload = data.get(start + usize::from(header.header_len)..end)?;
            // A SYN takes the sequence number before its payload.
            let syn = u32::from(is_syn(parsed));
            (!payload.is_empty()).then_some((payload, Some(header.seq.wrapping_add(syn))))
        }
        L4::Udp { .. } if parsed.proto == proto::UDP => {
            Some((data.get(start + crate::wire::udp::HEADER_LEN..end)?, None))
        }
        _ => None,
    }
}

/// Does what was asked for; `false` if it cannot be done.
fn carry_out(shard: &mut Shard, listening: &Listening, heard: &mut Heard, now: Ticks) -> bool {
    let mut confirmed = false;
    for request in std::mem::take(&mut heard.requests) {
        match request {
            Request::Expect(wanted) => match shard.expect(listening, &wanted, now) {
                Ok(()) => {}
                Err(why) => {
                    heard.refuse(why);
                    if matches!(why, Refusal::Clash | Refusal::TableFull) {
                        return false;
                    }
                }
            },
            Request::Confirm {
                class,
                proto,
                dst,
                dst_port,
                timeout,
            } => {
                let which = (class, proto, dst, dst_port);
                confirmed = confirmed || shard.confirm_expectation(listening, which, now, timeout);
            }
            Request::ForgetUnconfirmed { class } => {
                if !confirmed {
                    shard.forget_newest_expectation(listening, class);
                }
            }
            Request::Forget { classes } => shard.forget_expectations(listening, classes),
        }
    }
    true
}

fn count(counters: Option<&HelperCounters>, heard: &Heard) {
    let Some(counters) = counters else { return };
    if heard.parsed > 0 {
        counters.parsed.add(heard.parsed.into());
    }
    for (counter, refused) in counters.refused.iter().zip(heard.refused) {
        if refused > 0 {
            counter.add(refused.into());
        }
    }
}
