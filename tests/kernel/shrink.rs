//! Cuts a conversation that shows a difference down to the fewest packets that still do.

use crate::referee::{Referee, Said};
use crate::scenario::{Scenario, Step};
use std::ops::Range;
use std::time::Duration;

/// The shortest conversation found that still ends in a difference; the first `steps` of
/// `scenario` did.
pub(crate) fn shrink(
    referee: &mut Referee,
    scenario: &Scenario,
    steps: usize,
) -> Option<(Scenario, Vec<Said>)> {
    let mut best = Scenario {
        steps: scenario.steps[..steps].to_vec(),
        ..scenario.clone()
    };
    let mut found = None;
    loop {
        let mut fewer = candidates(&best);
        fewer.push(best.clone());
        if !referee.has_labels(fewer.len()) {
            return found;
        }
        let played = referee.play(&fewer);
        let Some(shorter) = fewer
            .into_iter()
            .zip(played)
            .filter(|(_, said)| said.last().is_some_and(Said::differs))
            .map(|(mut scenario, said)| {
                scenario.steps.truncate(said.len());
                (scenario, said)
            })
            .min_by_key(|(scenario, _)| size(scenario))
        else {
            return found;
        };
        if found.is_some() && size(&shorter.0) >= size(&best) {
            return found;
        }
        best = shorter.0.clone();
        found = Some(shorter);
    }
}

/// Packets and pauses.
fn size(scenario: &Scenario) -> (usize, Duration) {
    let waits = scenario.steps.iter().map(|step| step.wait).sum();
    (scenario.steps.len(), waits)
}

/// The steps of `scenario` but for some. Where a helper reads along nothing may be missing of what is
/// said, so the numbers of what comes behind move up; and a stream that ended has to end.
fn without(scenario: &Scenario, gone: Range<usize>) -> Vec<Step> {
    let mut next: [Option<u32>; 2] = [None; 2];
    let mut missing = [0_u32; 2];
    let speaks = |step: &Step| step.body.ends().is_none() && step.body.text().is_some();
    let talk = scenario.steps.iter().any(speaks);
    let mut left = Vec::new();
    for (at, step) in scenario.steps.iter().enumerate() {
        let mut step = step.clone();
        let fixed = talk && step.body.numbers().is_some() && step.body.is_turn();
        let gone = gone.contains(&at) && !fixed;
        let len = step.body.stream_len(scenario.v6);
        if let Some((seq, ack)) = step.body.numbers()
            && talk
        {
            let is_new = next[step.side].is_none_or(|next| next == *seq);
            if is_new {
                next[step.side] = Some(seq.wrapping_add(len));
            }
            *seq = seq.wrapping_sub(missing[step.side]);
            *ack = ack.wrapping_sub(missing[1 - step.side]);
            if is_new && gone {
                missing[step.side] = missing[step.side].wrapping_add(len);
            }
        }
        if !gone {
            left.push(step);
        }
    }
    left
}

/// `scenario` without a half, a quarter, …, a packet, or without a pause.
fn candidates(scenario: &Scenario) -> Vec<Scenario> {
    let steps = &scenario.steps;
    let mut all: Vec<Vec<Step>> = Vec::new();
    let mut chunk = steps.len() / 2;
    while chunk > 0 {
        for start in (0..steps.len()).step_by(chunk) {
            let end = (start + chunk).min(steps.len());
            all.push(without(scenario, start..end));
        }
        chunk /= 2;
    }
    for at in 0..steps.len() {
        if !steps[at].wait.is_zero() {
            let mut quicker = steps.clone();
            quicker[at].wait = Duration::ZERO;
            all.push(quicker);
        }
    }
    all.into_iter()
        .map(|steps| Scenario {
            steps,
            ..scenario.clone()
        })
        .collect()
}
