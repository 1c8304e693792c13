//! Flows that are judged again, because the policy is not the one that let them begin: one by one at
//! their next packets, or many at once. A flow ends if the policy, whatever is not known of the
//! flow's first packet, would not let it begin; what is in doubt stays.

use super::*;
use crate::conntrack::shard::Cursor;
use crate::policy::{Fate, Prospect};

/// What was found of some flows.
#[derive(Debug, Default)]
pub struct Judged {
    /// Those that the policy would not let begin.
    pub ending: Vec<FlowRef>,
    /// Of how many one cannot tell.
    pub unsure: u32,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}

impl Pipeline {
    /// Judges `flow`, which has a packet, for the first time under this policy. If it must end, it
    /// does, and so does its packet.
    #[cold]
    pub(super) fn judge_again(
        &mut self,
        policy: &Compiled,
        flow: FlowRef,
        packet: &Parsed,
    ) -> Option<Outcome> {
        let Fate::Ends(rule) = fate(&self.shard, policy, flow) else {
            self.shard.judged(flow, self.memory.epoch());
            return None;
        };
        self.shard.revoke(flow);
        policy.count_again(self.worker, &[rule], packet.frame_len.into());
        let unchanged = Outcome::dropped(DropReason::Policy);
        Some(Outcome {
            by: By::Rule(rule),
            ..unchanged
        })
    }

    /// Judges the flows from `cursor` on by `policy`, looking at `scan` entries at most. Ends none.
    pub fn judge_flows(&self, policy: &Compiled, cursor: Cursor, scan: u32) -> Judged {
        let (flows, next) = self.shard.scan(cursor, scan);
        let mut judged = Judged {
            next,
            ..Judged::default()
        };
        for flow in flows {
            match fate(&self.shard, policy, flow) {
                Fate::Ends(_) => judged.ending.push(flow),
                Fate::Unsure(_) => judged.unsure += 1,
                Fate::Stays(_) => {}
            }
        }
        judged
    }
}

fn fate(shard: &Shard, policy: &Compiled, flow: FlowRef) -> Fate {
    let Some(standing) = shard.standing(flow) else {
        return Fate::Unsure(policy.forward_policy());
    };
    // A flow begins without a mark, or with that of the flow that announced it: what that was is not
    // known any more, whatever mark rules have given the flow since.
    if standing.expected_by.is_some() && policy.reads_marks() {
        return Fate::Unsure(policy.forward_policy());
    }
    policy.fate(&Prospect {
        tuple: standing.original,
        iif: Some(PortId(standing.port)),
        expected_by: standing.expected_by,
        mark: 0,
    })
}
