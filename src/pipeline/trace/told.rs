//! What a packet met, in words: the stages that it went through, told as [`Explanation::of`] tells those
//! that it would go through.

use super::Traced;
use crate::base::hash::HashKey;
use crate::base::tally::Tally;
use crate::conntrack::shard::{Flow, FlowView};
use crate::conntrack::types::CtState;
use crate::helpers::INFOS;
use crate::pipeline::explain::{describe, why_invalid};
use crate::pipeline::{By, Disposition, DropReason, Explanation};
use crate::policy::{Compiled, Facts, FlowFacts, Narrator, PortId, Step};

/// Rules of one list that are told without a match, at most: the last ones.
const PASSED: usize = 200;

impl Explanation {
    /// What `it` met; `narrator` is for `policy`, and both are of the policy that judged it. If that is
    /// gone, its rules cannot be told: `narrator` is `None`, and `policy` serves for the ports' names.
    pub fn of_traced(narrator: Option<&Narrator<'_>>, policy: &Compiled, it: &Traced) -> Self {
        let (parsed, outcome, seen) = (&it.parsed, &it.outcome, &it.seen);
        let port = |id: PortId| {
            let name = policy.port_names().get(usize::from(id.0));
            name.map_or_else(String::new, Clone::clone)
        };
        let oif = policy.peer(it.port);
        let mut told = Self {
            packet: describe(parsed),
            iif: port(it.port),
            oif: oif.map(port),
            verdict: outcome.disposition.verdict().into(),
            rule: narrator
                .and_then(|_| outcome.by.name(policy))
                .map(str::to_owned),
            flow: seen.before.map(|flow| flow.record()),
            ..Self::default()
        };
        if it.leaving {
            // Judged before, by a worker that did not ask about it then.
            (told.iif, told.oif) = (String::new(), Some(port(it.port)));
        }
        if let Disposition::Drop(reason) = outcome.disposition {
            told.reason = Some(format!("{}: {}", reason.name(), reason.text()));
        }
        if let Disposition::Reject(with) = outcome.disposition {
            told.answers(with, it.data(), parsed);
        }
        if it.frames > 1 {
            let frames = it.frames;
            told.notes.push(format!("it came in {frames} fragments"));
        }
        if outcome.disposition == Disposition::Hold {
            told.notes
                .push("a fragment waits until its datagram is whole, and that is judged".into());
        }
        let (Some(notrack), Some(tracked)) = (seen.notrack, seen.tracked) else {
            return told;
        };
        told.state = Some(tracked.state.name().into());
        told.dir = tracked.dir.map(|dir| dir.name().into());
        if tracked.state == CtState::Invalid {
            told.notes
                .push(why_invalid(seen.why, parsed, told.flow.as_ref()));
        }
        if notrack {
            told.notes
                .push("a raw rule keeps it from being tracked".into());
        }
        let (Some(narrator), Some(oif)) = (narrator, oif) else {
            let note = "the policy that judged it is gone: its rules are not told";
            told.notes.push(note.into());
            return told;
        };
        let tally = Tally::new(1, HashKey::from_seed(1)).ok();
        let flow = seen.flow.as_ref().zip(tally.as_ref());
        let flow = flow.map(|(flow, tally)| {
            FlowFacts::new(FlowView {
                status: flow.status,
                confirmed: flow.confirmed,
                mark: flow.mark,
                original: flow.original,
                zone: flow.zone,
                helper: flow.helper,
                tally,
            })
        });
        let facts = Facts {
            packet: parsed,
            iif: it.port,
            oif,
            state: tracked.state,
            dir: tracked.dir,
            flow: flow.as_ref(),
            now: it.at,
        };
        told.raw = narrator
            .raw(&Facts {
                state: CtState::Untracked,
                dir: None,
                flow: None,
                ..facts
            })
            .0;
        match &seen.steps {
            Some(steps) => {
                let decision = told.judged(&narrator.along(steps), &facts);
                let left_out = shorten(&mut told.raw) + shorten(&mut told.rules);
                if left_out > 0 {
                    let note = format!("{left_out} rules before that did not match are left out");
                    told.notes.push(note);
                }
                if seen.remembered {
                    let note =
                        "its flow remembered where these rules lead; they were not read for it";
                    told.notes.push(note.into());
                }
                // A policy with more steps than are kept, one of them with a limit.
                if let By::Rule(rule) = outcome.by
                    && rule != decision.rule
                {
                    let note =
                        "a limit on its way says something else now: the verdict is what it met";
                    told.notes.push(note.into());
                }
            }
            None => told.notes.push(
                "the policy is newer than its flow, and would not let it begin: it ends".into(),
            ),
        }
        let begins = tracked.flow == Flow::Pending
            && !matches!(
                outcome.disposition,
                Disposition::Reject(_) | Disposition::Drop(DropReason::Policy)
            );
        if begins && policy.has_helpers() {
            let (lines, helper) = narrator.helpers(&facts);
            told.helpers = lines;
            let name = helper.and_then(|(id, _)| INFOS.get(id.index()));
            told.helper = name.map(|info| info.name.into());
        } else if let Some(name) = seen.before.and_then(|flow| flow.helper()) {
            told.helper = Some(name.into());
        }
        told
    }
}

/// Leaves out the first of many rules that did not match; returns how many.
fn shorten(steps: &mut Vec<Step>) -> usize {
    let before = steps.len();
    let first = before.saturating_sub(PASSED);
    let mut at = 0;
    steps.retain(|step| {
        at += 1;
        step.matched || at > first
    });
    before - steps.len()
}
