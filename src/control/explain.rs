//! Explains a packet in words by the policy in force and the flows that there are.
//!
//! The workers are asked for the packet's flow, which they only look at; everything else happens
//! here, on a copy. Nothing is counted, no token is taken, no flow begins or changes.
//! Concurrency: any number of threads may ask; a reload waits until an answer is there.

use super::appliance::{Appliance, ReloadError};
use super::flows::WorkerError;
use crate::base::hash::HashKey;
use crate::conntrack::tuple::Tuple;
use crate::conntrack::types::{CtState, Dir};
use crate::dataplane::command::Found;
use crate::pipeline::{Counters, Explanation, Pipeline};
use crate::policy::{Compiled, Given, Narrator, PacketInWords, Policy};
use crate::wire;
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
    #[error("{0}")]
    Reload(#[from] ReloadError),
}

impl Appliance {
    /// What happens to the packet that `words` describe, and why.
    pub fn explain(&self, words: &[String]) -> Result<Explanation, ExplainError> {
        self.with_policy(|policy, compiled| self.explain_by(policy, compiled, words))?
    }

    fn explain_by(
        &self,
        policy: &Policy,
        compiled: &Compiled,
        words: &[String],
    ) -> Result<Explanation, ExplainError> {
        let mut packet = PacketInWords::read(words, policy).map_err(ExplainError::Words)?;
        let now = self.shared.clock.now();
        let present = compiled.epoch().unix_nanos(now) / 1_000_000_000;
        let at = packet.when(policy, present);
        let data = &packet.frame;
        let parsed = wire::parse(data, data.len());
        let zone = compiled.zone(packet.iif, parsed.vlan);
        let found = match (packet.given, Tuple::of(&parsed, zone)) {
            (None, Some(tuple)) => self.find(tuple)?,
            _ => None,
        };
        let given = packet.given.or(found.as_ref().map(given));
        let counters = Arc::new(Counters::default());
        // for the tracker's word about a packet without a flow
        let mut pipeline = Pipeline::new(0, 16, HashKey::from_seed(1), now, counters);
        let narrator = Narrator::new(compiled, policy).at(at);
        let asked = (data.as_slice(), packet.iif, now);
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
        Ok(told)
    }
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
