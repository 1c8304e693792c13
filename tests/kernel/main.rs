//! The tracker against Linux: the same packets, at the same times, through nf_conntrack and through
//! ours, and the same words expected of both, packet by packet.
//!
//! Scripted conversations, and random ones of `KERNEL_PACKETS` packets together (3000 unless said)
//! from the seed `KERNEL_SEED` (a fresh one unless said, and printed). A difference is cut down to
//! the fewest packets that still show it and printed in the notation of `scenario.rs`, to be added
//! to `scripted.txt`. `KERNEL_SCENARIO` plays only what it says, in the notation of that file, and
//! prints the transcript. Needs root, or is re-run inside user namespaces where the system allows
//! that.
//!
//! Left out until the tracker knows them: fragments, helpers, SCTP, GRE, DCCP and UDP-Lite, wrong
//! transport checksums, ICMPv6 redirects. And one known difference: an IPv6 extension header that is
//! cut short, with a protocol behind it of which the kernel reads nothing, is INVALID to us.

#![allow(clippy::disallowed_methods)] // the kernel's clock is the real one

mod oracle;
mod ours;
mod scenario;
mod settings;
mod view;

use oracle::{KIND, Oracle};
use ours::Ours;
use scenario::{Random, Scenario, Step, frame};
use settings::Settings;
use shardwall::cli::lab::{as_root_of_a_namespace, is_root, remove_leftovers};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write;
use std::time::{Duration, Instant, SystemTime};
use view::View;

/// Packets of a random conversation.
const WALK: usize = 30;
/// Conversations that go on at once, of each round.
const AT_ONCE: usize = 1_000;
/// Rounds, at the same time, each with its own router: the first has the settings that everybody
/// has, and the scripted conversations; chance picks the settings of the others.
const ROUNDS: usize = 5;
/// Differences of a round that are cut down; more of them mostly repeat the first.
const SHRUNK: u64 = 8;

/// What was said of one packet of a conversation.
#[derive(Clone, Debug)]
struct Said {
    kernel: View,
    ours: View,
    agree: bool,
}

/// The kernel, and labels that no conversation had before.
struct Referee {
    oracle: Oracle,
    settings: Settings,
    label: u32,
    packets: u64,
}

impl Referee {
    /// Plays all `scenarios` at once, each at its own pace, as far as both sides agree.
    fn play(&mut self, scenarios: &[Scenario]) -> Vec<Vec<Said>> {
        let first = self.label;
        self.label += scenarios.len() as u32;
        assert!(self.label < 1 << 16, "out of addresses");
        let start = Instant::now();
        let mut ours: Vec<Option<Ours>> = scenarios.iter().map(|_| None).collect();
        let mut said: Vec<Vec<Said>> = vec![Vec::new(); scenarios.len()];
        let mut due: BinaryHeap<Reverse<(Duration, usize)>> = scenarios
            .iter()
            .enumerate()
            .filter(|(_, scenario)| !scenario.steps.is_empty())
            .map(|(at, _)| Reverse((Duration::ZERO, at)))
            .collect();
        while let Some(Reverse((when, at))) = due.pop() {
            std::thread::sleep(when.saturating_sub(start.elapsed()));
            let patience = ours[at].as_ref().map_or(Duration::ZERO, Ours::patience);
            if !patience.is_zero() {
                due.push(Reverse((start.elapsed() + patience, at)));
                continue;
            }
            let (scenario, label) = (&scenarios[at], first + at as u32);
            let step = &scenario.steps[said[at].len()];
            let frame = frame(label, scenario.v6, step.side, &step.body);
            let answer = self.oracle.ask(label, step.side, &frame);
            self.packets += 1;
            let judge = ours[at].get_or_insert_with(|| Ours::new(answer.sent, &self.settings));
            let agreed = judge.judge(&frame, &answer);
            let agree = agreed.agree;
            said[at].push(agreed);
            if let (true, Some(next)) = (agree, scenario.steps.get(said[at].len())) {
                due.push(Reverse((start.elapsed() + next.wait, at)));
            }
        }
        said
    }

    /// The shortest conversation found that still ends in a difference.
    fn shrink(&mut self, scenario: &Scenario, steps: usize) -> Option<(Scenario, Vec<Said>)> {
        let mut best = Scenario {
            steps: scenario.steps[..steps].to_vec(),
            ..scenario.clone()
        };
        let mut found = None;
        loop {
            let mut fewer = candidates(&best);
            fewer.push(best.clone());
            let played = self.play(&fewer);
            let shorter = fewer
                .into_iter()
                .zip(played)
                .filter(|(_, said)| said.last().is_some_and(|last| !last.agree))
                .map(|(mut scenario, said)| {
                    scenario.steps.truncate(said.len());
                    (scenario, said)
                })
                .min_by_key(|(scenario, _)| size(scenario))?;
            if found.is_some() && size(&shorter.0) >= size(&best) {
                return found;
            }
            best = shorter.0.clone();
            found = Some(shorter);
        }
    }
}

/// What came of the conversations under one set of settings.
struct Round {
    packets: u64,
    conversations: u64,
    differences: u64,
    report: String,
}

impl Round {
    /// Plays them; prints them if `talkative`.
    #[allow(clippy::print_stderr)] // transcripts that were asked for
    fn play(at: usize, settings: &Settings, scenarios: &[Scenario], talkative: bool) -> Self {
        let mut referee = Referee {
            oracle: Oracle::new(at, settings).unwrap(),
            settings: settings.clone(),
            label: 256,
            packets: 0,
        };
        let (mut differences, mut report) = (0, String::new());
        for batch in scenarios.chunks(AT_ONCE) {
            for (scenario, said) in batch.iter().zip(referee.play(batch)) {
                if talkative {
                    eprintln!("{}", transcript(scenario, &said));
                }
                if said.last().is_none_or(|last| last.agree) {
                    continue;
                }
                differences += 1;
                if differences > SHRUNK {
                    continue;
                }
                let _ = write!(report, "{settings}");
                match referee.shrink(scenario, said.len()) {
                    Some((scenario, said)) => report += &transcript(&scenario, &said),
                    None => {
                        let _ = write!(report, "not seen again: {}", transcript(scenario, &said));
                    }
                }
                report += "\n";
            }
        }
        Self {
            packets: referee.packets,
            conversations: scenarios.len() as u64,
            differences,
            report,
        }
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

fn transcript(scenario: &Scenario, said: &[Said]) -> String {
    let family = if scenario.v6 { "v6" } else { "v4" };
    let mut text = format!("# {} ({family})\n", scenario.name);
    for (step, said) in scenario.steps.iter().zip(said) {
        let _ = writeln!(text, "{step}");
        if said.agree {
            let _ = writeln!(text, "        both:   {}", said.kernel);
        } else {
            let _ = writeln!(text, "        kernel: {}", said.kernel);
            let _ = writeln!(text, "        ours:   {}", said.ours);
        }
    }
    text
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}")),
    )
}

#[test]
#[allow(clippy::print_stderr)] // the seed
fn the_kernel_agrees() {
    if !is_root() {
        let binary = std::env::current_exe().unwrap();
        let binary = binary.to_string_lossy();
        let status =
            as_root_of_a_namespace(&[&binary, "the_kernel_agrees", "--nocapture"]).unwrap();
        assert!(
            status.success(),
            "this test needs network namespaces; it failed inside `unshare -Urnm`, so run it as root"
        );
        return;
    }
    let fresh = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let seed = number("KERNEL_SEED").unwrap_or_else(fresh);
    let wanted = number("KERNEL_PACKETS").unwrap_or(3_000) as usize;
    eprintln!("KERNEL_SEED={seed} KERNEL_PACKETS={wanted}");
    let mut random = Random(seed);
    let asked = std::env::var("KERNEL_SCENARIO").ok();
    let mut rounds = vec![(Settings::default(), Vec::new())];
    match &asked {
        Some(text) => rounds[0].1 = scenario::chapters(text),
        None => {
            rounds[0].1 = scenario::scripted();
            for _ in 1..ROUNDS {
                rounds.push((Settings::random(&mut random), Vec::new()));
            }
            for number in 0..wanted.div_ceil(WALK) {
                let walk = scenario::walk(&mut random, number, WALK);
                rounds[number % ROUNDS].1.push(walk);
            }
        }
    }
    let start = Instant::now();
    remove_leftovers(KIND);
    let rounds: Vec<Round> = std::thread::scope(|threads| {
        let started: Vec<_> = rounds
            .iter()
            .enumerate()
            .map(|(at, (settings, scenarios))| {
                let talkative = asked.is_some();
                threads.spawn(move || Round::play(at, settings, scenarios, talkative))
            })
            .collect();
        let ended = started.into_iter().map(|round| round.join().unwrap());
        ended.collect()
    });
    let total = |of: fn(&Round) -> u64| rounds.iter().map(of).sum::<u64>();
    let report: String = rounds.iter().map(|round| round.report.as_str()).collect();
    eprintln!(
        "{} packets in {} conversations, {} of which differ; {:.1} s",
        total(|round| round.packets),
        total(|round| round.conversations),
        total(|round| round.differences),
        start.elapsed().as_secs_f64(),
    );
    assert!(report.is_empty(), "KERNEL_SEED={seed}\n{report}");
}
