//! Every check, on made-up boxes: one on which all is well, and what is changed of it for each outcome.

mod cases;

use super::site::{Appliance, Site, Spread};
use super::{CHECKS, Finding, Verdict, examine, execute};
use crate::cli::args::{DoctorArgs, Format};
use crate::cli::output::Output;
use crate::policy::{self, Policy};
use cases::{BOX, CASES, LINKS};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A box's files; removed with its value.
struct Tree(PathBuf);

impl Tree {
    /// The box on which all is well.
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("shardwall-doctor-{}-{number}", std::process::id());
        let tree = Self(std::env::temp_dir().join(name));
        for (path, text) in BOX {
            tree.write(path, text);
        }
        for (path, target) in LINKS {
            tree.link(path, target);
        }
        tree
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&path);
        std::os::unix::fs::symlink(target, path).unwrap();
    }

    fn remove(&self, path: &str) {
        let path = self.0.join(path);
        let gone = match path.symlink_metadata().unwrap().is_dir() {
            true => fs::remove_dir_all(&path),
            false => fs::remove_file(&path),
        };
        gone.unwrap();
    }

    /// Each change: `path=text` writes, `path>target` links, `-path` removes.
    fn change(&self, changes: &[&str]) {
        for change in changes {
            if let Some(path) = change.strip_prefix('-') {
                self.remove(path);
            } else if let Some((path, text)) = change.split_once('=') {
                self.write(path, text);
            } else if let Some((path, target)) = change.split_once('>') {
                self.link(path, target);
            }
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a check says.
struct Case {
    /// The check.
    check: &'static str,
    /// The policy's ports and system, if there is a policy.
    policy: Option<(&'static str, &'static str)>,
    /// What is otherwise than on the box where all is well.
    changes: &'static [&'static str],
    /// The running appliance, by the RSS of its first port.
    appliance: Who,
    /// The first finding that is not ok, or the first.
    verdict: Verdict,
    /// Words in what was found.
    found: &'static str,
    /// Words in what mends it.
    mend: &'static str,
}

/// Whom the socket brings.
#[derive(Clone, Copy, Debug)]
enum Who {
    Nobody,
    Denied,
    Silent,
    Rss(&'static str),
    WrongHash,
}

fn policy(ports: &str, system: &str) -> Policy {
    let text = format!(
        "version: 1\nports: {{ {ports} }}\nbridge: [[a, b]]\nsystem: {{ {system} }}\n\
         chains: {{ forward: {{ policy: drop }} }}\n"
    );
    match policy::parse("policy.yaml", &text) {
        Ok(checked) => checked.model,
        Err(errors) => panic!("{errors}"),
    }
}

fn appliance(who: Who) -> Appliance {
    let row = |rss: &str, hash_wrong| {
        let (port, rss) = ("a".to_owned(), rss.to_owned());
        Appliance::Runs(vec![Spread {
            port,
            rss,
            hash_wrong,
        }])
    };
    match who {
        Who::Nobody => Appliance::Absent,
        Who::Denied => Appliance::Denied,
        Who::Silent => Appliance::Silent("timed out".into()),
        Who::Rss(rss) => row(rss, 0),
        Who::WrongHash => row("toeplitz", 7),
    }
}

fn findings(case: &Case) -> Vec<Finding> {
    let tree = Tree::new();
    tree.change(case.changes);
    let policy = case.policy.map(|(ports, system)| policy(ports, system));
    let site = Site {
        root: &tree.0,
        needed_mb: policy.is_some().then_some(200),
        policy: policy.as_ref(),
        appliance: appliance(case.appliance),
        socket: Path::new("/run/shardwall/control.sock"),
    };
    let mut all = examine(&site);
    all.retain(|finding| finding.check == case.check);
    all
}

#[test]
fn every_check_says_what_is_there_and_what_mends_it() {
    let mut wrong = String::new();
    for case in CASES {
        let all = findings(case);
        // The worst, and among equals the one that is meant.
        let rank = |finding: &&Finding| (finding.verdict, finding.found.contains(case.found));
        let right = all.iter().max_by_key(rank).is_some_and(|worst| {
            let mend = worst.mend.as_deref().unwrap_or_default();
            worst.verdict == case.verdict
                && worst.found.contains(case.found)
                && mend.contains(case.mend)
                && worst.mend.is_some() == (case.verdict != Verdict::Ok)
        });
        if !right {
            let (found, mend) = (case.found, case.mend);
            let (verdict, changes) = (case.verdict.name(), case.changes);
            wrong += &format!("{verdict} {found:?} {mend:?} {changes:?}: {all:#?}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// So that no check, and no outcome of one, is without its case.
#[test]
fn every_outcome_has_a_case() {
    let of = |name: &str| -> BTreeSet<&str> {
        let cases = CASES.iter().filter(|case| case.check == name);
        cases.map(|case| case.verdict.name()).collect()
    };
    for check in CHECKS {
        let found = of(check.name);
        // What a build without DPDK says of every box.
        let dpdk = check.name == "dpdk" && !cfg!(feature = "dpdk");
        assert!(found.contains("ok") || dpdk, "{} is never well", check.name);
        assert!(found.len() > 1 || dpdk, "{} is always well", check.name);
    }
}

#[test]
fn a_box_where_all_is_well_has_no_warnings() {
    let case = Case {
        check: "",
        policy: Some((cases::NICS, cases::SYSTEM)),
        changes: &[],
        appliance: Who::Nobody,
        verdict: Verdict::Ok,
        found: "",
        mend: "",
    };
    for check in CHECKS
        .iter()
        .filter(|check| check.name != "dpdk" || cfg!(feature = "dpdk"))
    {
        let case = Case {
            check: check.name,
            ..case
        };
        for finding in findings(&case) {
            assert_eq!(finding.verdict, Verdict::Ok, "{finding:#?}");
        }
    }
}

fn run(args: &DoctorArgs, format: Format) -> (bool, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut output = Output {
        format,
        out: &mut out,
        err: &mut err,
    };
    let socket = PathBuf::from(crate::cli::args::SOCKET);
    let code = execute(args, &socket, &mut output);
    // There is no other way to look into one.
    let failed = format!("{code:?}") == format!("{:?}", std::process::ExitCode::FAILURE);
    (failed, String::from_utf8(out).unwrap())
}

#[test]
fn it_fails_if_something_failed_and_prints_text_or_json() {
    let tree = Tree::new();
    let file = tree.0.join("policy.yaml");
    let write = |text: &str| fs::write(&file, text).unwrap();
    let good = "version: 1\nports: { a: { device: net_null0 }, b: { device: net_null1 } }\n\
                bridge: [[a, b]]\nchains: { forward: { policy: drop } }\n";
    write(good);
    tree.remove("etc/systemd/system");
    let args = DoctorArgs {
        config: Some(file.clone()),
        json: false,
        root: tree.0.clone(),
    };
    let (failed, text) = run(&args, Format::Text);
    assert_eq!(failed, !cfg!(feature = "dpdk"), "{text}");
    assert!(text.starts_with("ok    policy      "), "{text}");
    assert!(text.contains("is valid: 2 ports, 1 worker"), "{text}");
    assert!(text.contains("\nwarn  "), "{text}");
    assert!(text.contains("\n                  → "), "{text}");
    assert!(
        text.trim_end().ends_with("failures") || text.trim_end().ends_with("failure"),
        "{text}"
    );

    write(&good.replace("policy: drop", "policy: dorp"));
    let (failed, text) = run(&args, Format::Text);
    assert!(failed, "{text}");
    assert!(text.contains("fail  policy"), "{text}");
    assert!(text.contains("→ `shardwall check "), "{text}");

    let json = DoctorArgs { json: true, ..args };
    let (failed, text) = run(&json, Format::Text);
    assert!(failed);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["verdict"], "fail");
    assert_eq!(value["findings"][0]["check"], "policy");
    let count = |verdict: &str| {
        let findings = value["findings"].as_array().unwrap().iter();
        findings.filter(|it| it["verdict"] == verdict).count()
    };
    for verdict in ["ok", "warn", "fail"] {
        assert_eq!(value[verdict], count(verdict), "{text}");
    }
    assert_eq!(run(&json, Format::Json).1, text);
}
