//! Cuts a conversation that shows a difference down to the fewest packets that still do.

use crate::referee::{Referee, Said};
use crate::scenario::{Scenario, Step};
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

/// `scenario` without a half, a quarter, …, a packet, or without a pause.
fn candidates(scenario: &Scenario) -> Vec<Scenario> {
    let steps = &scenario.steps;
    let mut all: Vec<Vec<Step>> = Vec::new();
    let mut chunk = steps.len() / 2;
    while chunk > 0 {
        for start in (0..steps.len()).step_by(chunk) {
            let end = (start + chunk).min(steps.len());
            all.push([&steps[..start], &steps[end..]].concat());
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
