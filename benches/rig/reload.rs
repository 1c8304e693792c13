//! Reloads under load: two policies of thousands of rules in turn, at full rate.
//!
//! A packet that one policy began to judge and the other went on with would show. The first rule of
//! each policy marks the flow with the policy's own number and counts (`first-a`, `first-b`); every
//! verdict counts (`passed-a`, `passed-b`); and at the end a canary drops what carries another mark.
//! So no canary may count, and of each policy, when the other one is in force and nothing moves any
//! more, `first` and `passed` must be equal. Whether any frame was lost says the appliance's last
//! line, when all is at rest: received = forwarded + dropped + punted + held, and nothing dropped.
//!
//! Seconds with reloads, one after the other, take turns with seconds without ([`alternate`]).

use crate::contest::{head, own_ports, start, stop};
use crate::machine::sleep;
use crate::rules::{RuleSet, Style};
use crate::stretch::{Figures, alternate};
use crate::{Outcome, Setup};
use shardwall::control::drops::DropRow;
use shardwall::control::snapshot::RuleRow;
use shardwall::control::{Client, ReloadReport, Request};
use std::collections::BTreeMap;
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
    own_ports(&text)
}

/// `count` reloads between two policies of `rules` rules, and what they did.
pub(crate) fn run(setup: &Setup<'_>, rules: usize, count: usize) -> Outcome<Figures> {
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
    drop(client);
    let mut done = 0;
    let mut reload = || -> Outcome<bool> {
        if done == count {
            return Ok(false);
        }
        done += 1;
        let request = Request::Reload {
            path: Some(files[done % 2].clone()),
            mode: None,
        };
        let report: ReloadReport = Client::connect(&socket)?.one(&request)?;
        if report.generation as usize != done + 1 {
            return Err("a reload is missing".into());
        }
        Ok(true)
    };
    let mut figures = alternate(setup, &process, &socket, &mut reload)?;
    let mut client = Client::connect(&socket)?;
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
    figures.what = format!("{done} reloads of {rules} rules each");
    figures.note(last.ok_or("no last line")?);
    for (name, packets) in &counted {
        figures.note(&format!("{name}: {packets}"));
    }
    let of = |name: &str| counted.get(name).copied();
    let text = figures.text();
    if of("canary") != Some(0) || of("first-a") != of("passed-a") || of("first-b") != of("passed-b")
    {
        return Err(format!("{text}two policies were mixed").into());
    }
    if drops_before != drops_after || log.contains("does not close") {
        return Err(format!("{text}frames were lost: {drops_after:?}").into());
    }
    figures.note("no frame lost, no drop counted, no policies mixed");
    Ok(figures)
}
