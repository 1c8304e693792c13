//! Reloads under load: two policies of thousands of rules in turn, at full rate.
//!
//! A packet that one policy began to judge and the other went on with would show. The first rule of
//! each policy marks the flow with the policy's own number and counts (`first-a`, `first-b`); every
//! verdict counts (`passed-a`, `passed-b`); and at the end a canary drops what carries another mark.
//! So no canary may count, and of each policy, when the other one is in force and nothing moves any
//! more, `first` and `passed` must be equal. Whether any frame was lost says the appliance's last
//! line, when all is at rest: received = forwarded + dropped + punted + held, and nothing dropped.
//!
//! Seconds with reloads, one after the other, take turns with seconds without.

use crate::contest::{head, start, stop};
use crate::machine::{busiest, interrupted, sleep};
use crate::rules::{RuleSet, Style};
use crate::{Outcome, Setup};
use shardwall::control::snapshot::{DropRow, RuleRow, Stats};
use shardwall::control::{Client, ReloadReport, Request};
use shardwall::dataplane::clock::Clock;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// One of the two policies.
fn policy(setup: &Setup<'_>, socket: &Path, rules: usize, own: usize) -> String {
    let (mine, mark) = (["a", "b"][own], own + 1);
    let other = ["a", "b"][1 - own];
    let first = format!("{{ name: first, mark: {mark}, count: first-{mine} }}");
    // both policies know all counters, or these would not outlive a reload
    let never = ["first", "passed"]
        .map(|what| format!("{{ name: no-{what}, ct-zone: 4000, count: {what}-{other} }}"));
    let canary = format!("{{ name: canary, ct-mark: \"!{mark}\", count: canary, action: drop }}");
    let last = format!("{{ name: last, action: accept, count: passed-{mine} }}");
    let style = Style {
        first: &[&first],
        last: &[&never[0], &never[1], &canary, &last],
        end: "drop",
        accepts: true,
        count: &format!(", count: passed-{mine}"),
    };
    let text = RuleSet::new(rules, 1 + own as u64).policy(&head(setup, socket), &style);
    // the ports of the rig have names of their own
    text.replace("iif: lan", "iif: a")
        .replace("iif: wan", "iif: b")
}

/// What a stretch of time came to.
#[derive(Debug, Clone, Copy, Default)]
struct Stretch {
    packets: u64,
    seconds: f64,
    /// Processor time of the thread that polls.
    busy: f64,
}

impl Stretch {
    /// Millions of packets a second: by the clock, and of processor time.
    fn rates(self) -> (f64, f64) {
        let mpps = |time: f64| self.packets as f64 / 1e6 / time.max(1e-9);
        (mpps(self.seconds), mpps(self.busy))
    }
}

fn middle(mut all: Vec<f64>, share: f64) -> f64 {
    all.sort_by(f64::total_cmp);
    let last = all.len().saturating_sub(1);
    all.get((last as f64 * share) as usize)
        .copied()
        .unwrap_or(0.0)
}

/// `count` reloads between two policies of `rules` rules, and what they did.
pub(crate) fn run(setup: &Setup<'_>, rules: usize, count: usize) -> Outcome<String> {
    let socket = setup.scratch.file("control.sock");
    let files = ["a.yaml", "b.yaml"].map(|name| setup.scratch.file(name));
    for (own, file) in files.iter().enumerate() {
        let text = policy(setup, &socket, rules, own);
        shardwall::policy::parse("policy.yaml", &text)?;
        fs::write(file, text)?;
    }
    let mut process = start(setup, &files[0], &socket)?;
    sleep(Duration::from_secs(setup.warm_up))?;
    let mut client = Client::connect(&socket)?;
    let drops = |client: &mut Client| -> Outcome<BTreeMap<String, u64>> {
        let rows: Vec<DropRow> = client.all(&Request::Drops {})?;
        Ok(rows
            .into_iter()
            .map(|row| (row.reason, row.count))
            .collect())
    };
    let drops_before = drops(&mut client)?;
    let clock = Clock::start();
    let seconds = |from: u64| (clock.now().nanos() - from) as f64 / 1e9;
    let (mut took, mut stretches) = (Vec::new(), Vec::new());
    let mut done = 0;
    while done < count {
        let mut pair = [Stretch::default(); 2];
        for (reloads, stretch) in pair.iter_mut().enumerate() {
            let (before, threads) = (received(&mut client)?, process.threads());
            let from = clock.now().nanos();
            while seconds(from) < setup.seconds as f64 {
                if reloads == 0 || done == count {
                    sleep(Duration::from_millis(20))?;
                    continue;
                }
                let begin = clock.now().nanos();
                done += 1;
                let request = Request::Reload {
                    path: Some(files[done % 2].clone()),
                    mode: None,
                };
                let report: ReloadReport = client.one(&request)?;
                if report.generation as usize != done + 1 {
                    return Err("a reload is missing".into());
                }
                took.push(seconds(begin) * 1e3);
                if interrupted() {
                    return Err("interrupted".into());
                }
            }
            stretch.seconds = seconds(from);
            stretch.busy = busiest(&threads, &process.threads());
            stretch.packets = received(&mut client)? - before;
        }
        stretches.push(pair);
    }
    // of each policy when the other is in force: then its counters are at rest
    let mut counted = BTreeMap::new();
    for turn in [1, 2] {
        let mine = ["a", "b"][(done + turn + 1) % 2];
        let request = Request::Reload {
            path: Some(files[(done + turn) % 2].clone()),
            mode: None,
        };
        let _: ReloadReport = client.one(&request)?;
        for row in client.all::<RuleRow>(&Request::Rules {})? {
            if row.chain == "counters" && (row.rule.ends_with(mine) || row.rule == "canary") {
                counted.insert(row.rule, row.packets);
            }
        }
    }
    let drops_after = drops(&mut client)?;
    drop(client);
    stop(&mut process)?;
    let log = fs::read_to_string(setup.scratch.file("shardwall.log"))?;
    let last = log.lines().rfind(|line| line.contains("stopped"));
    let last = last.ok_or("no last line")?.to_owned();

    let rate = |at: usize, by: fn((f64, f64)) -> f64| {
        middle(
            stretches.iter().map(|pair| by(pair[at].rates())).collect(),
            0.5,
        )
    };
    let dip = |by: fn((f64, f64)) -> f64| {
        let of = |pair: &[Stretch; 2]| (1.0 - by(pair[1].rates()) / by(pair[0].rates())) * 100.0;
        let all: Vec<f64> = stretches.iter().map(of).collect();
        let part = |share| middle(all.clone(), share);
        format!(
            "{:.1} % ({:.1} to {:.1})",
            part(0.5),
            part(0.25),
            part(0.75)
        )
    };
    let [clock, cpu]: [fn((f64, f64)) -> f64; 2] = [|it| it.0, |it| it.1];
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{done} reloads of {rules} rules each, {} flows\n\
         a reload: {:.0} ms (p50), {:.0} ms (p99), {:.0} ms (most)\n\
         mpps without and with reloads, median: {:.2} and {:.2}; by cpu time {:.2} and {:.2}\n\
         dip, median of pairs (quartiles): {}; by cpu time {}\n{last}",
        setup.captures.flows,
        middle(took.clone(), 0.5),
        middle(took.clone(), 0.99),
        middle(took, 1.0),
        rate(0, clock),
        rate(1, clock),
        rate(0, cpu),
        rate(1, cpu),
        dip(clock),
        dip(cpu),
    );
    for (name, packets) in &counted {
        let _ = writeln!(out, "{name}: {packets}");
    }
    let of = |name: &str| counted.get(name).copied();
    if of("canary") != Some(0) || of("first-a") != of("passed-a") || of("first-b") != of("passed-b")
    {
        return Err(format!("{out}two policies were mixed").into());
    }
    if drops_before != drops_after || log.contains("does not close") {
        return Err(format!("{out}frames were lost: {drops_after:?}").into());
    }
    let _ = writeln!(out, "no frame lost, no drop counted, no policies mixed");
    Ok(out)
}

fn received(client: &mut Client) -> Outcome<u64> {
    let stats: Stats = client.one(&Request::Stats {})?;
    Ok(stats.packets.received)
}
