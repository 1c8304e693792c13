//! Explains a packet in words by the policy in force and the flows that there are.
//!
//! The workers are asked for the packet's flow, which they only look at; everything else happens
//! here, on a copy. Nothing is counted, no token is taken, no flow begins or changes.
//! Concurrency: any number of threads may ask. Nothing is held while workers are asked: if a reload
//! comes in between, the packet is explained by the new policy.

use super::appliance::{Appliance, ReloadError};
use super::flows::WorkerError;
use crate::base::hash::HashKey;
use crate::conntrack::tuple::Tuple;
use crate::conntrack::types::{CtState, Dir};
use crate::dataplane::command::Found;
use crate::pipeline::{Counters, Explanation, Pipeline};
use crate::policy::{Compiled, Given, Narrator, PacketInWords, Policy};
use crate::wire;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Why there is no explanation.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The words make no packet.
    #[error("{}", .0.join("\n"))]
    Words(Vec<String>),
    /// The flow could not be asked for.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// A reload does not come to its end.
    #[error("a reload does not come to its end")]
    Reload(#[from] ReloadError),
    /// Each time that the workers had answered, the packet was in another zone by a new policy.
    #[error("the policy changes too often to explain by")]
    Changing,
}

/// How often a question is put.
const TRIES: usize = 10;

impl Appliance {
    /// What happens to the packet that `words` describe, and why.
    pub fn explain(&self, words: &[String]) -> Result<Explanation, ExplainError> {
        let mut known: Option<(Tuple, Option<Found>)> = None;
        for _ in 0..TRIES {
            let told = self.with_policy(|policy, compiled| -> Result<_, Vec<String>> {
                let packet = PacketInWords::read(words, policy)?;
                let found = match (asked_for(&packet, compiled), known.take()) {
                    (None, _) => None,
                    (Some(tuple), Some((of, found))) if of == tuple => found,
                    (Some(tuple), _) => return Ok(ControlFlow::Continue(tuple)),
                };
                let told = self.explain_by(policy, compiled, packet, found);
                Ok(ControlFlow::Break(told))
            })?;
            match told.map_err(ExplainError::Words)? {
                ControlFlow::Break(told) => return Ok(told),
                ControlFlow::Continue(tuple) => known = Some((tuple, self.find(tuple)?)),
            }
        }
        Err(ExplainError::Changing)
    }

    fn explain_by(
        &self,
        policy: &Policy,
        compiled: &Compiled,
        mut packet: PacketInWords,
        found: Option<Found>,
    ) -> Explanation {
        let now = self.shared.clock.now();
        let present = compiled.epoch().unix_nanos(now) / 1_000_000_000;
        let at = packet.when(policy, present);
        let given = packet.given.or(found.as_ref().map(given));
        let counters = Arc::new(Counters::default());
        // for the tracker's word about a packet without a flow
        let mut pipeline = Pipeline::new(0, 16, HashKey::from_seed(1), now, counters);
        let narrator = Narrator::new(compiled, policy).at(at);
        let asked = (packet.frame.as_slice(), packet.iif, now);
        let mut told = Explanation::of(&narrator, compiled, &mut pipeline, asked, given);
        told.assumed = packet.assumed;
        if let Some(found) = found {
            let epoch = self.shared.clock.epoch_ms();
            told.flow = Some(found.record.dated(epoch));
            told.notes
                .push("taken to fit its flow: flags and sequence numbers are not judged".into());
        } else if packet.given.is_none() {
            told.notes
                .push("no flow is known to the appliance; expectations are not looked at".into());
        }
        told
    }
}

/// The flow that the packet may be of, unless the words say what it is to it.
fn asked_for(packet: &PacketInWords, compiled: &Compiled) -> Option<Tuple> {
    let parsed = wire::parse(&packet.frame, packet.frame.len());
    let zone = compiled.zone(packet.iif, parsed.vlan);
    Tuple::of(&parsed, zone).filter(|_| packet.given.is_none())
}

/// What a packet that fits is to its flow.
fn given(found: &Found) -> Given {
    let record = &found.record;
    Given {
        state: match (found.dir, record.seen_reply, record.expected) {
            (Dir::Reply, ..) | (_, true, _) => CtState::Established,
            (_, _, true) => CtState::Related,
            _ => CtState::New,
        },
        dir: found.dir,
        mark: record.mark,
        helper: found.expected_by,
        known: true,
        assured: record.assured,
    }
}
