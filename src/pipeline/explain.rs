//! Why a packet meets its verdict: the stages of [`Pipeline::decide`] for one packet, told.
//!
//! The tracker is the real one, and judges the packet as it would on its way, so that a shard that
//! was asked is to be thrown away; or what it says is given. Rules are told by a [`Narrator`].
//!
//! Life-cycle: one explanation for one question. Concurrency: plain values; not the packet path.

use super::reject::{self, MAX_ANSWER};
use super::run::is_neighbour_discovery;
use super::{DropReason, Pipeline, Slot};
use crate::base::hash::HashKey;
use crate::base::tally::Tally;
use crate::base::time::Now;
use crate::conntrack::entry::status;
use crate::conntrack::record::FlowRecord;
use crate::conntrack::shard::{Flow, FlowView};
use crate::conntrack::types::{CtState, Dir};
use crate::conntrack::why::Why;
use crate::helpers::INFOS;
use crate::policy::{
    Compiled, Decision, Facts, FlowFacts, Given, Narrator, PortId, RawVerdict, RejectWith, Step,
    Verdict, protocol_name,
};
use crate::wire::{self, Fragment, L3, L4, Parsed};
use serde::{Deserialize, Serialize};

/// What happens to a packet, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The packet, in a few words.
    pub packet: String,
    /// Where it comes in.
    pub iif: String,
    /// Where it would leave.
    pub oif: Option<String>,
    /// What was chosen for want of a word.
    pub assumed: Vec<String>,
    /// Its state; `None` for what never reaches the tracker.
    pub state: Option<String>,
    /// Its direction in its flow.
    pub dir: Option<String>,
    /// Its flow, if that is in the table, before the packet.
    pub flow: Option<FlowRecord>,
    /// What else there is to say.
    pub notes: Vec<String>,
    /// The raw rules that it comes by.
    pub raw: Vec<Step>,
    /// The rules that it comes by.
    pub rules: Vec<Step>,
    /// The helper lines that it comes by, if it starts a flow.
    pub helpers: Vec<Step>,
    /// The helper that its flow gets.
    pub helper: Option<String>,
    /// accept, drop, reject or hold.
    pub verdict: String,
    /// The rule that decides.
    pub rule: Option<String>,
    /// Why it is dropped, if no rule says so.
    pub reason: Option<String>,
    /// What is sent back.
    pub answer: Option<String>,
}

impl Explanation {
    /// Explains `data`, which comes in by `iif`. What it is to its flow is `given`, or for the tracker
    /// of `pipeline` to say; that is changed by the question.
    pub fn of(
        narrator: &Narrator<'_>,
        policy: &Compiled,
        pipeline: &mut Pipeline,
        (data, iif, now): (&[u8], PortId, Now),
        given: Option<Given>,
    ) -> Self {
        let mut slot = Slot::default();
        pipeline.prepare(&mut slot, policy, iif, data, data.len());
        Self::of_slot(narrator, policy, pipeline, (data, iif, now), &slot, given)
    }

    /// The same of a packet that went through the first stage.
    pub fn of_slot(
        narrator: &Narrator<'_>,
        policy: &Compiled,
        pipeline: &mut Pipeline,
        (data, iif, now): (&[u8], PortId, Now),
        slot: &Slot,
        given: Option<Given>,
    ) -> Self {
        let parsed = &slot.parsed;
        let port = |id: PortId| {
            let name = policy.port_names().get(usize::from(id.0));
            name.map_or_else(String::new, Clone::clone)
        };
        let mut told = Self {
            packet: describe(parsed),
            iif: port(iif),
            ..Self::default()
        };
        let Some(oif) = policy.peer(iif) else {
            return told.dropped(DropReason::NoPeer);
        };
        told.oif = Some(port(oif));
        match parsed.l3 {
            L3::Ipv4 | L3::Ipv6 => {}
            L3::Other if policy.ethertype_allowed(iif, parsed.ethertype) => {
                return told.accepted("bridge/ethertypes");
            }
            L3::Other => return told.dropped(DropReason::EtherType),
            L3::BadFrame => return told.dropped(DropReason::ShortFrame),
            L3::BadHeader => return told.dropped(DropReason::IpHeader),
            L3::BadChecksum => return told.dropped(DropReason::IpChecksum),
        }
        if parsed.fragment.is_part() {
            told.verdict = "hold".into();
            told.notes
                .push("a fragment waits until its datagram is whole, and that is judged".into());
            return told;
        }
        let mut facts = Facts {
            packet: parsed,
            iif,
            oif,
            state: CtState::Untracked,
            dir: None,
            flow: None,
            now,
        };
        let (raw, verdict) = narrator.raw(&facts);
        told.raw = raw;
        let notrack = verdict == RawVerdict::Notrack;
        let starts;
        let decision = match given.filter(|_| !notrack) {
            Some(given) => {
                facts.state = given.state;
                let has_flow = !matches!(given.state, CtState::Invalid | CtState::Untracked);
                facts.dir = has_flow.then_some(given.dir);
                starts = has_flow && given.state != CtState::Established && !given.known;
                let zone = policy.zone(iif, parsed.vlan);
                told.given(narrator, &facts, given, has_flow.then_some(zone))
            }
            None => {
                let shard = pipeline.shard_mut();
                shard.begin(now, 0);
                let ticks = now.ticks();
                let known = shard.peek(&slot.prepared, ticks);
                told.flow = known.map(|flow| shard.record(flow, ticks));
                let config = policy.conntrack();
                let tracked = shard.track(data, parsed, &slot.prepared, notrack, ticks, config);
                facts.state = tracked.state;
                facts.dir = tracked.dir;
                starts = tracked.flow == Flow::Pending;
                if tracked.state == CtState::Invalid {
                    let why = shard.why();
                    told.notes
                        .push(why_invalid(why, parsed, told.flow.as_ref()));
                }
                let flow = shard.view(tracked.flow).map(FlowFacts::new);
                let facts = Facts {
                    flow: flow.as_ref(),
                    ..facts
                };
                told.judged(narrator, &facts)
            }
        };
        told.state = Some(facts.state.name().into());
        told.dir = facts.dir.map(|dir| dir.name().into());
        if notrack {
            told.notes
                .push("a raw rule keeps it from being tracked".into());
        }
        told.rule = Some(policy.rule_name(decision.rule).into());
        match decision.verdict {
            Verdict::Accept => told.verdict = "accept".into(),
            Verdict::Drop
                if decision.rule == policy.forward_policy() && is_neighbour_discovery(parsed) =>
            {
                return told.accepted("bridge/neighbour-discovery");
            }
            Verdict::Drop => told.verdict = "drop".into(),
            Verdict::Reject(with) => {
                told.verdict = "reject".into();
                told.answers(with, data, parsed);
            }
        }
        if starts && told.verdict == "accept" && policy.has_helpers() {
            let (lines, helper) = narrator.helpers(&facts);
            told.helpers = lines;
            let name = helper.and_then(|(id, _)| INFOS.get(id.index()));
            told.helper = name.map(|info| info.name.into());
        }
        told
    }

    /// What the chains decide about a packet that the tracker was not asked about.
    fn given(
        &mut self,
        narrator: &Narrator<'_>,
        facts: &Facts<'_>,
        given: Given,
        zone: Option<u16>,
    ) -> Decision {
        let Some((zone, tally)) = zone.zip(Tally::new(1, HashKey::from_seed(1)).ok()) else {
            return self.judged(narrator, facts);
        };
        let replied = facts.state == CtState::Established || given.dir == Dir::Reply;
        let mut bits = 0;
        if replied {
            bits |= status::SEEN_REPLY | given.assured_bit();
        }
        if given.helper.is_some() {
            bits |= status::EXPECTED;
        }
        let addrs = facts.packet.addrs;
        let flow = FlowFacts::new(FlowView {
            status: bits,
            confirmed: given.known || replied,
            mark: given.mark,
            helper: given.helper,
            original: match given.dir {
                Dir::Original => addrs,
                Dir::Reply => addrs.flip(),
            },
            zone,
            tally: &tally,
        });
        let facts = Facts {
            flow: Some(&flow),
            ..*facts
        };
        self.judged(narrator, &facts)
    }

    pub(super) fn judged(&mut self, narrator: &Narrator<'_>, facts: &Facts<'_>) -> Decision {
        let (rules, decision) = narrator.forward(facts);
        self.rules = rules;
        if let Some(mark) = facts.flow.and_then(|flow| flow.new_mark()) {
            self.notes.push(format!("its flow is marked {mark:#x}"));
        }
        decision
    }

    /// Says what the sender of a packet that is rejected is told.
    pub(super) fn answers(&mut self, with: RejectWith, data: &[u8], parsed: &Parsed) {
        let mut out = [0; MAX_ANSWER];
        let len = reject::answer(with, data, parsed, &mut out);
        self.answer = Some(match len {
            Some(len) => {
                let sent = wire::parse(&out[..len], len);
                format!("{} by {}", describe(&sent), self.iif)
            }
            None => "nothing: such a packet must not be answered".into(),
        });
    }

    pub(super) fn dropped(mut self, reason: DropReason) -> Self {
        self.verdict = "drop".into();
        self.reason = Some(format!("{}: {}", reason.name(), reason.text()));
        self
    }

    fn accepted(mut self, by: &str) -> Self {
        self.verdict = "accept".into();
        self.rule = Some(by.into());
        self
    }
}

/// A packet in a few words.
pub fn describe(parsed: &Parsed) -> String {
    if !matches!(parsed.l3, L3::Ipv4 | L3::Ipv6) {
        return match parsed.l3 {
            L3::Other => format!(
                "EtherType {:#06x}, {} bytes",
                parsed.ethertype, parsed.frame_len
            ),
            _ => format!("a broken frame of {} bytes", parsed.frame_len),
        };
    }
    let name = protocol_name(parsed.proto);
    let name = name.map_or_else(|| format!("protocol {}", parsed.proto), str::to_owned);
    let (src, dst) = (parsed.addrs.src(), parsed.addrs.dst());
    let ends = match (parsed.sport(), parsed.dport()) {
        (Some(sport), Some(dport)) => {
            use std::net::SocketAddr;
            let (from, to) = (SocketAddr::new(src, sport), SocketAddr::new(dst, dport));
            format!("{from} > {to}")
        }
        _ => format!("{src} > {dst}"),
    };
    let detail = match parsed.l4 {
        L4::Tcp(header) => format!(" {}", crate::policy::tcp_flag_names(header.flags)),
        L4::Icmp { ty, code, .. } => format!(" type {ty} code {code}"),
        L4::Bad => " (broken header)".into(),
        _ => String::new(),
    };
    let tag = match parsed.vlan {
        wire::NO_VLAN => String::new(),
        vlan => format!(", vlan {vlan}"),
    };
    let parts = match parsed.fragment {
        Fragment::Whole => "",
        Fragment::Reassembled => ", put together from fragments",
        Fragment::First | Fragment::Later => ", a fragment",
    };
    format!(
        "{name} {ends}{detail}, {} bytes{tag}{parts}",
        parsed.ip_len()
    )
}

/// Why the tracker found the packet `parsed` INVALID; `flow` is its flow, as it was before.
pub(super) fn why_invalid(why: Option<Why>, parsed: &Parsed, flow: Option<&FlowRecord>) -> String {
    let tcp = flow
        .and_then(|flow| flow.tcp_state)
        .map(|state| state.name());
    let sctp = flow
        .and_then(|flow| flow.sctp_state)
        .map(|state| state.name());
    let state = tcp.or(sctp).map(|state| format!("; its flow is {state}"));
    let why = why.map_or("the tracker does not say why", Why::text);
    let why = match parsed.tcp_flags() {
        Some(flags) => why.replace("such flags", &crate::policy::tcp_flag_names(flags)),
        None => why.to_owned(),
    };
    format!("INVALID: {why}{}", state.unwrap_or_default())
}
