//! Flows that are judged again, because the policy is not the one that let them begin: one by one at
//! their next packets, or many at once. A flow ends if the policy, whatever is not known of the
//! flow's first packet, would not let it begin; what is in doubt stays.

use super::*;
use crate::conntrack::shard::Cursor;
use crate::policy::{Fate, Prospect};

/// Tests of rules after which a piece of work ends, whatever flows are left of it.
const TESTS: u32 = 1 << 16;

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
        let (Fate::Ends(rule), _) = fate(&self.shard, policy, flow) else {
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

    /// Judges the flows from `cursor` on by `policy`, looking at `scan` entries at most, or fewer if
    /// that takes long. Ends none.
    pub fn judge_flows(&self, policy: &Compiled, cursor: Cursor, scan: u32) -> Judged {
        let mut judged = Judged {
            next: Some(cursor),
            ..Judged::default()
        };
        let mut spent = 0;
        for _ in 0..scan {
            let Some(at) = judged.next.filter(|_| spent < TESTS) else {
                break;
            };
            let (flows, next) = self.shard.scan(at, 1);
            judged.next = next;
            for flow in flows {
                let (fate, tests) = fate(&self.shard, policy, flow);
                spent += tests;
                match fate {
                    Fate::Ends(_) => judged.ending.push(flow),
                    Fate::Unsure(_) => judged.unsure += 1,
                    Fate::Stays(_) => {}
                }
            }
        }
        judged
    }
}

/// What becomes of `flow`, and how many rules were tested to know it.
fn fate(shard: &Shard, policy: &Compiled, flow: FlowRef) -> (Fate, u32) {
    let unsure = (Fate::Unsure(policy.forward_policy()), 0);
    let Some(standing) = shard.standing(flow) else {
        return unsure;
    };
    // A flow begins without a mark, or with that of the flow that announced it: what that was is not
    // known any more, whatever mark rules have given the flow since.
    if standing.expected_by.is_some() && policy.reads_marks() {
        return unsure;
    }
    policy.fate_and_cost(&Prospect {
        tuple: standing.original,
        iif: Some(PortId(standing.port)),
        expected_by: standing.expected_by,
        mark: 0,
    })
}
