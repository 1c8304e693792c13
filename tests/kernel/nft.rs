//! The rules against nftables: random policies, in our words and in nft's, and the same packets
//! through the kernel and through `shardwall replay`; the same state, direction, verdict and
//! deciding rule expected of both, packet by packet, and at the end the same count of every rule.
//!
//! Policies are mostly larger than what is read rule after rule, and packets come back to few flows
//! in both directions and every state, so that the classifier and what flows remember decide about
//! many of them. Each policy is played from an empty table, in one router for all.
//!
//! - `NFT_POLICIES` (100 unless said) are made from the seed `NFT_SEED` and those behind it (a fresh
//!   one unless said, and printed), with `NFT_PACKETS` packets each (200 unless said);
//! - `NFT_SECONDS=3600` goes on for that long, or until a difference.
//!
//! A difference is cut down to the fewest rules and packets that still show it.
//!
//! How a packet is rejected is compared in this process, through the same pipeline as `replay`'s,
//! which does not say it; so are the counts of rules.
//!
//! Left out: `limit` and `connlimit`, which hang on the clock, or on what was before; `time`; VLANs,
//! which a router ends; zones other than 0; helpers and timeouts (`group.rs` has these); fragments,
//! which our rules can tell and the kernel's cannot. And where the product is meant to differ:
//! `ct-zone` of packets without a flow, which have none to the kernel; a reset that a rule sends for
//! these; `ct-mark` and `ct-status` of the RST that ends an unanswered flow, which is overlooked
//! here.

mod make;
mod policy;
mod traffic;
mod words;

use crate::oracle::{KIND, Oracle};
use crate::random::Random;
use crate::replay::{Packet, Replay};
use crate::settings::Settings;
use policy::Policy;
use shardwall::base::hash::HashKey;
use shardwall::base::time::Now;
use shardwall::cli::lab::{LabError, remove_leftovers};
use shardwall::conntrack::shard::Flow;
use shardwall::pipeline::{By, Counters, Disposition, Outcome, Pipeline, Slot};
use shardwall::policy::{Compiled, PortId, RuleInfo, compile, parse};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};
use traffic::Sent;

/// Policies of a run, unless said: about 15 seconds.
pub(crate) const POLICIES: u64 = 100;
/// Packets of a policy, unless said.
pub(crate) const PACKETS: u64 = 200;
/// Operations that are read one after the other: a policy of more has a classifier.
const SMALL: usize = 24;
/// After two seconds of answers UDP is ASSURED: a case that took nearly as long is played again.
const SLOW: u64 = 1_500_000_000;
/// How often a case is played to find a smaller one.
const TRIALS: usize = 400;

/// A policy, and packets for it.
#[derive(Clone)]
struct Case {
    policy: Policy,
    packets: Vec<Sent>,
}

/// What was said of a case: of each packet by the kernel, by this process, and by `replay`; and
/// how often each rule matched.
struct Played {
    said: Vec<[String; 3]>,
    counts: [BTreeMap<String, u64>; 2],
    /// Packets whose flow was gone before rules were asked.
    gone: Vec<bool>,
}

/// Where the two differ.
struct Difference {
    /// The packet; all of them, if it is a count.
    packets: usize,
    what: String,
}

/// The kernel and our replay.
struct Court {
    oracle: Oracle,
    replay: Replay,
}

/// What a run has seen.
#[derive(Default)]
struct Tally {
    policies: u64,
    large: u64,
    packets: u64,
    overlooked: u64,
    /// Policies whose rules' counts were compared.
    counted: u64,
    /// Packets of the kind that their flow had before, in policies with a classifier.
    again: u64,
    states: BTreeMap<String, u64>,
    verdicts: BTreeMap<String, u64>,
}

impl Court {
    fn new() -> Result<Self, LabError> {
        let sysctls = Settings::default().sysctls();
        let ruleset = "table inet oracle {
            chain look {
                type filter hook prerouting priority -150
                ct state invalid accept
            }
        }";
        Ok(Self {
            oracle: Oracle::with(0, ruleset, &sysctls)?,
            replay: Replay::new(0, ""),
        })
    }

    fn play(&mut self, case: &Case) -> Played {
        for _ in 0..3 {
            let (played, took) = self.try_to_play(case);
            if took < SLOW {
                return played;
            }
        }
        panic!(
            "too slow: {} packets take longer than a flow's youth",
            case.packets.len()
        );
    }

    /// Also how long it took, in nanoseconds.
    fn try_to_play(&mut self, case: &Case) -> (Played, u64) {
        let ours = case.policy.ours();
        let ruleset = case.policy.kernel();
        self.oracle.nft(&[&ruleset]).expect("rules that nft takes");
        self.oracle.flush();
        let (mut packets, mut kernel) = (Vec::new(), Vec::new());
        for Sent { side, frame, .. } in &case.packets {
            let answer = self.oracle.ask(*side, frame, None);
            let view = answer.view;
            kernel.push(format!("{} {} {}", view.state, view.dir, view.verdict));
            packets.push(Packet {
                at: answer.sent,
                side: *side,
                frame: frame.clone(),
            });
        }
        let took = match (packets.first(), packets.last()) {
            (Some(first), Some(last)) => last.at - first.at,
            _ => 0,
        };
        self.replay.load(&ours);
        let lines = self.replay.lines(&packets);
        let word = |line: &serde_json::Value, key| line[key].as_str().unwrap_or("-").to_owned();
        let replayed = lines.iter().map(|line| {
            let [state, dir, verdict, rule] =
                ["state", "dir", "verdict", "rule"].map(|key| word(line, key));
            match rule.as_str() {
                "-" => "- - -".to_owned(),
                _ => format!("{state} {dir} {verdict}:{rule}"),
            }
        });
        let (judged, gone, counted) = judge(&ours, &packets);
        let said = kernel.into_iter().zip(judged).zip(replayed);
        let said = said.map(|((kernel, judged), replayed)| [kernel, judged, replayed]);
        let played = Played {
            said: said.collect(),
            counts: [self.counts(), counted],
            gone,
        };
        (played, took)
    }

    /// How often each rule of the kernel's matched, of those that did, by what its comment calls it.
    fn counts(&self) -> BTreeMap<String, u64> {
        let text = self.oracle.nft(&["-j", "list", "table", "inet", "oracle"]);
        let json: serde_json::Value =
            serde_json::from_str(&text.expect("its rules")).expect("JSON");
        let mut counts = BTreeMap::new();
        for object in json["nftables"].as_array().expect("a list") {
            let rule = &object["rule"];
            let Some(name) = rule["comment"].as_str() else {
                continue;
            };
            let parts = rule["expr"].as_array().expect("a list");
            let packets = parts
                .iter()
                .find_map(|part| part["counter"]["packets"].as_u64());
            *counts.entry(name.to_owned()).or_default() += packets.expect("a counter");
        }
        counts.retain(|_, count| *count > 0);
        counts
    }

    /// What the two differ in first, if they do.
    fn difference(&mut self, case: &Case, tally: &mut Tally) -> Option<Difference> {
        let played = self.play(case);
        tally.count(case, &played);
        let asks = case.policy.asks_of_flows();
        let mut overlooked = false;
        for (at, [kernel, judged, replayed]) in played.said.iter().enumerate() {
            let difference = |what: String| {
                Some(Difference {
                    packets: at + 1,
                    what,
                })
            };
            if plain(judged) != *replayed {
                let what = format!("in process: {judged}\n  replay:     {replayed}");
                return difference(what);
            }
            if asks && played.gone[at] && case.packets[at].resets {
                tally.overlooked += 1;
                overlooked = true;
                continue;
            }
            if kernel == judged {
                continue;
            }
            return difference(format!("kernel: {kernel}\n  ours:   {judged}"));
        }
        let [kernel, ours] = &played.counts;
        tally.counted += u64::from(!overlooked);
        if kernel == ours || overlooked {
            return None;
        }
        let names: BTreeSet<&String> = kernel.keys().chain(ours.keys()).collect();
        let mut what = String::from("counts of rules, the kernel's and ours:");
        for name in names {
            let (one, other) = (kernel.get(name), ours.get(name));
            if one != other {
                let _ = write!(what, "\n  {name}: {one:?} {other:?}");
            }
        }
        Some(Difference {
            packets: case.packets.len(),
            what,
        })
    }

    /// A smaller case that differs, too.
    fn smaller(&mut self, mut case: Case, mut found: Difference) -> (Case, Difference) {
        let mut trials = 0;
        let mut chunk = case.packets.len();
        while trials < TRIALS {
            case.packets.truncate(found.packets);
            chunk = chunk.min(case.packets.len());
            let starts = (0..case.packets.len()).step_by(chunk.max(1));
            let packets = starts.map(|start| {
                let mut less = case.clone();
                let end = (start + chunk).min(less.packets.len());
                less.packets.drain(start..end);
                less
            });
            let rules = case.policy.without_each().into_iter().map(|policy| Case {
                policy,
                packets: case.packets.clone(),
            });
            let candidates: Vec<Case> = match chunk {
                1 => packets.chain(rules).collect(),
                _ => packets.collect(),
            };
            let next = candidates.into_iter().find_map(|less| {
                trials += 1;
                let difference = self.difference(&less, &mut Tally::default())?;
                (trials < TRIALS).then_some((less, difference))
            });
            match next {
                Some(next) => (case, found) = next,
                None if chunk <= 1 => break,
                None => chunk = chunk.div_ceil(2),
            }
        }
        (case, found)
    }
}

impl Case {
    fn random(seed: u64, packets: usize) -> Self {
        let random = &mut Random(seed);
        // What comes in astray leaves a router where it came from, and a bridge by the other port.
        let astray = random.chance(30);
        Self {
            policy: make::policy(random, !astray),
            packets: traffic::packets(random, packets, astray),
        }
    }
}

impl Tally {
    fn count(&mut self, case: &Case, played: &Played) {
        let large = case.policy.size() > SMALL;
        self.policies += 1;
        self.large += u64::from(large);
        self.packets += case.packets.len() as u64;
        let mut kinds = BTreeSet::new();
        for (sent, [kernel, ..]) in case.packets.iter().zip(&played.said) {
            let mut words = kernel.splitn(3, ' ');
            let mut word = || words.next().unwrap_or("-").to_owned();
            let (state, dir, verdict) = (word(), word(), word());
            let verdict = verdict.split(['/', ':']).next().unwrap_or("-").to_owned();
            let flow = sent
                .text
                .split(" dscp")
                .next()
                .unwrap_or_default()
                .to_owned();
            let known = matches!(state.as_str(), "new" | "established");
            let again = !kinds.insert((flow, state.clone(), dir));
            self.again += u64::from(known && again && large);
            *self.states.entry(state).or_default() += 1;
            *self.verdicts.entry(verdict).or_default() += 1;
        }
    }
}

/// What was said, without how a packet was rejected.
fn plain(said: &str) -> String {
    match said.split_once(" reject/") {
        Some((before, with)) => {
            let rule = with.split_once(':').map_or("", |(_, rule)| rule);
            format!("{before} reject:{rule}")
        }
        None => said.to_owned(),
    }
}

/// What our pipeline says of each of `packets`, whether its flow was gone by then, and how often
/// each rule matched.
fn judge(policy: &str, packets: &[Packet]) -> (Vec<String>, Vec<bool>, BTreeMap<String, u64>) {
    let checked = parse("policy.yaml", policy);
    let checked = checked.unwrap_or_else(|errors| panic!("{errors}\n{policy}"));
    let policy = compile(&checked.model, 1, 1);
    let start = Now::from_nanos(packets.first().map_or(0, |first| first.at));
    let counters = Arc::new(Counters::default());
    let mut pipeline = Pipeline::new(0, 1 << 12, HashKey::from_seed(1), start, counters);
    let (mut said, mut gone) = (Vec::new(), Vec::new());
    for Packet { at, side, frame } in packets {
        let (now, iif) = (Now::from_nanos(*at), PortId(*side as u8));
        let shard = pipeline.shard_mut();
        shard.begin(now, 0);
        shard.expire(now.ticks(), usize::MAX);
        let mut slot = Slot::default();
        pipeline.prepare(&mut slot, &policy, iif, frame, frame.len());
        pipeline.prefetch(&mut slot);
        let outcome = pipeline.decide(&policy, now, iif, frame, &slot);
        said.push(word(&policy, &outcome));
        let tracked = outcome.tracked;
        gone.push(tracked.is_some_and(|one| one.dir.is_some() && one.flow == Flow::None));
    }
    let matched = policy.rules().filter(|rule| rule.packets > 0);
    let count = |rule: RuleInfo<'_>| (format!("{}/{}", rule.chain, rule.name), rule.packets);
    let counts = matched.map(count).collect();
    (said, gone, counts)
}

fn word(policy: &Compiled, outcome: &Outcome) -> String {
    let (By::Rule(rule), Some(tracked)) = (outcome.by, outcome.tracked) else {
        return "- - -".into();
    };
    let (state, dir) = (
        tracked.state.name(),
        tracked.dir.map_or("-", |dir| dir.name()),
    );
    let verdict = match outcome.disposition {
        Disposition::Reject(with) => format!("reject/{}", with.name()),
        other => other.verdict().into(),
    };
    format!("{state} {dir} {verdict}:{}", policy.rule_name(rule))
}

/// The case, as both sides got it, and what they said.
fn report(court: &mut Court, case: &Case, difference: &Difference) -> String {
    let mut text = format!("{}\n{}\n", case.policy.ours(), case.policy.kernel());
    let played = court.play(case);
    for (sent, [kernel, judged, _]) in case.packets.iter().zip(&played.said) {
        let _ = writeln!(text, "{}", sent.text);
        if kernel == judged {
            let _ = writeln!(text, "        both: {kernel}");
        } else {
            let _ = writeln!(text, "        kernel: {kernel}\n        ours:   {judged}");
        }
    }
    text + "differs after that: " + &difference.what + "\n"
}

/// Plays `policies` policies from `seed` on, for at least `time`.
#[allow(clippy::print_stderr)] // what was played
pub(crate) fn play(seed: u64, policies: u64, packets: u64, time: Duration) {
    remove_leftovers(KIND);
    let start = Instant::now();
    let mut court = Court::new().unwrap();
    let mut tally = Tally::default();
    eprintln!("NFT_SEED={seed} NFT_POLICIES={policies} NFT_PACKETS={packets}");
    while tally.policies < policies || start.elapsed() < time {
        let seed = seed.wrapping_add(tally.policies);
        let case = Case::random(seed, packets as usize);
        let Some(found) = court.difference(&case, &mut tally) else {
            continue;
        };
        let (case, found) = court.smaller(case, found);
        let text = report(&mut court, &case, &found);
        panic!("NFT_SEED={seed} NFT_POLICIES=1 NFT_PACKETS={packets}\n{text}");
    }
    let Tally {
        policies,
        large,
        packets,
        overlooked,
        counted,
        again,
        states,
        verdicts,
    } = &tally;
    eprintln!(
        "{policies} policies, {large} of them with a classifier, {packets} packets; {again} of \
         these of a kind that the flow had before, {overlooked} overlooked; counts of {counted} policies; states {states:?}, \
         verdicts {verdicts:?}; {:.1} s",
        start.elapsed().as_secs_f64()
    );
    // Else it has shown nothing.
    if *policies >= POLICIES {
        assert!(large * 2 >= *policies, "few large policies");
        assert!(again * 5 >= *packets, "packets seldom come back to a flow");
        assert!(overlooked * 100 <= *packets, "much is overlooked");
        for state in ["new", "established", "related", "invalid", "untracked"] {
            assert!(states.contains_key(state), "no packet is {state}");
        }
        for verdict in ["accept", "drop", "reject"] {
            assert!(verdicts.contains_key(verdict), "no {verdict}");
        }
    }
}
