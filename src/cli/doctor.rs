//! `doctor`: is this box ready for the appliance, and what mends what is not.
//!
//! Each check looks at a [`Site`] and says what it found; the table [`CHECKS`] is the order
//! in which they are told. Checks only look: nothing is changed, and what the running appliance knows is
//! asked of it.

mod cores;
mod host;
mod memory;
mod nics;
mod ports;
mod site;
#[cfg(test)]
mod tests;

use super::args::{DoctorArgs, Format};
use super::check::counted;
use super::output::Output;
use super::run;
use crate::control::snapshot::PortRow;
use crate::control::{Client, ClientError, Request};
use crate::policy::{self, Policy};
use serde::Serialize;
use serde_json::json;
use site::{Appliance, Site, Spread};
use std::io;
use std::path::Path;
use std::process::ExitCode;

/// How well something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// As it should be, or of no concern here.
    Ok,
    /// The appliance runs; it could run better, or more safely.
    Warn,
    /// The appliance does not start, or does not forward.
    Fail,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    /// Which check.
    check: &'static str,
    /// How well it is.
    verdict: Verdict,
    /// What is there.
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

fn ok(found: impl Into<String>) -> Finding {
    Finding {
        check: "",
        verdict: Verdict::Ok,
        found: found.into(),
        mend: None,
    }
}

fn warn(found: impl Into<String>, mend: impl Into<String>) -> Finding {
    Finding {
        verdict: Verdict::Warn,
        mend: Some(mend.into()),
        ..ok(found)
    }
}

fn fail(found: impl Into<String>, mend: impl Into<String>) -> Finding {
    Finding {
        verdict: Verdict::Fail,
        ..warn(found, mend)
    }
}

/// A check.
struct Check {
    name: &'static str,
    look: fn(&Site<'_>) -> Vec<Finding>,
}

/// The checks, in the order in which they are told.
const CHECKS: &[Check] = &[
    check("machine", host::machine),
    check("dpdk", host::dpdk),
    check("hugepages", memory::hugepages),
    check("limits", memory::limits),
    check("iommu", nics::iommu),
    check("vfio", nics::vfio),
    check("nics", nics::nics),
    check("ports", ports::ports),
    check("rss", ports::rss),
    check("firewall", ports::firewall),
    check("managers", ports::managers),
    check("cores", cores::cores),
    check("isolation", cores::isolation),
    check("interrupts", cores::interrupts),
    check("numa", cores::numa),
    check("smt", cores::smt),
    check("governor", cores::governor),
    check("clock", cores::clock),
    check("service", host::service),
    check("socket", host::socket),
];

const fn check(name: &'static str, look: fn(&Site<'_>) -> Vec<Finding>) -> Check {
    Check { name, look }
}

/// All findings about a site.
fn examine(site: &Site<'_>) -> Vec<Finding> {
    let named = |check: &Check| {
        let name = check.name;
        let findings = (check.look)(site).into_iter();
        findings.map(move |finding| Finding {
            check: name,
            ..finding
        })
    };
    CHECKS.iter().flat_map(named).collect()
}

/// Looks, prints what was found, and fails if something did.
pub(super) fn execute(args: &DoctorArgs, socket: &Path, out: &mut Output<'_>) -> ExitCode {
    if args.json {
        out.format = Format::Json;
    }
    let mut findings = Vec::new();
    let policy = args.config.as_deref().and_then(|path| {
        let (policy, finding) = read(path);
        findings.push(finding);
        policy
    });
    let socket = policy.as_ref().map_or(socket, |policy| {
        // Where the appliance of this policy listens, unless the command line says another.
        match socket == Path::new(super::args::SOCKET) {
            true => &policy.system.socket,
            false => socket,
        }
    });
    let site = Site {
        root: &args.root,
        policy: policy.as_ref(),
        needed_mb: policy.as_ref().and_then(run::hugepages_mb),
        // A copy of a box has nobody to ask.
        appliance: match args.root == Path::new("/") {
            true => ask(socket),
            false => Appliance::Absent,
        },
        socket,
    };
    findings.extend(examine(&site));
    let worst = findings.iter().map(|finding| finding.verdict).max();
    let told = out.finish(|out| Ok(print(&findings, out)?));
    match worst {
        Some(Verdict::Fail) => ExitCode::FAILURE,
        _ => told,
    }
}

/// The policy in a file, and what is to be said of it.
fn read(path: &Path) -> (Option<Policy>, Finding) {
    let name = path.display();
    let (policy, finding) = match policy::load(path) {
        Ok(checked) => {
            let (ports, workers) = (
                checked.model.ports.len(),
                checked.model.system.workers.count(),
            );
            let (ports, workers) = (counted(ports, "port"), counted(workers, "worker"));
            let text = format!("{name} is valid: {ports}, {workers}");
            (Some(checked.model), ok(text))
        }
        Err(errors) => {
            let text = format!("{name} is not valid: {}", counted(errors.errors(), "error"));
            let mend = format!("`shardwall check {name}` says what is wrong");
            (None, fail(text, mend))
        }
    };
    let check = "policy";
    (policy, Finding { check, ..finding })
}

/// Asks the appliance at `socket`.
fn ask(socket: &Path) -> Appliance {
    let ports: Result<Vec<PortRow>, ClientError> = Client::connect(socket)
        .and_then(|mut client| client.all(&Request::Ports { xstats: false }));
    match ports {
        Ok(ports) => {
            let spread = |row: PortRow| Spread {
                port: row.port.name,
                rss: row.port.rss,
                hash_wrong: row.hash_wrong,
            };
            Appliance::Runs(ports.into_iter().map(spread).collect())
        }
        Err(ClientError::NotRunning(_)) => Appliance::Absent,
        Err(ClientError::Denied(_)) => Appliance::Denied,
        Err(error) => Appliance::Silent(error.to_string()),
    }
}

fn print(findings: &[Finding], out: &mut Output<'_>) -> io::Result<()> {
    let count = |verdict| findings.iter().filter(|it| it.verdict == verdict).count();
    let (fine, warnings, failures) = (
        count(Verdict::Ok),
        count(Verdict::Warn),
        count(Verdict::Fail),
    );
    if out.is_json() {
        let worst = findings.iter().map(|finding| finding.verdict).max();
        let all = json!({
            "verdict": worst.unwrap_or(Verdict::Ok),
            "ok": fine,
            "warn": warnings,
            "fail": failures,
            "findings": findings,
        });
        return writeln!(out.out, "{all:#}");
    }
    for finding in findings {
        let Finding {
            check,
            verdict,
            found,
            mend,
        } = finding;
        writeln!(out.out, "{:<4}  {check:<10}  {found}", verdict.name())?;
        if let Some(mend) = mend {
            writeln!(out.out, "{:18}→ {mend}", "")?;
        }
    }
    let s = |count| if count == 1 { "" } else { "s" };
    writeln!(
        out.out,
        "\n{fine} ok, {warnings} warning{}, {failures} failure{}",
        s(warnings),
        s(failures)
    )
}
