//! What `explain` prints: of words, of a capture beside `replay`, of an appliance in memory.

use crate::cli::args::{Args, Command, Format};
use crate::cli::output::Output;
use crate::cli::replay;
use crate::control::testbed::{Bed, Folder};
use clap::Parser;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const POLICY: &str = "version: 1
ports: { lan: { device: a }, wan: { device: b } }
bridge: [[lan, wan]]
sets: { servers: [10.2.0.0/16], web: [80, 443] }
helpers:
  - { name: files, helper: ftp, dport: 21 }
chains:
  forward:
    rules:
      - { name: known, ct: [established, related], action: accept }
      - { name: broken, ct: invalid, action: drop }
      - { name: web-in, iif: wan, daddr: $servers, proto: tcp, dport: $web, ct: new, jump: inbound }
      - { name: outbound, iif: lan, ct: new, action: accept }
      - { name: ssh, proto: tcp, dport: 22, limit: 1/hour burst 1, action: reject }
  inbound:
    rules:
      - { name: banned, saddr: 1.2.3.0/24, action: return }
      - { name: web, action: accept }
";

fn run(line: &str, socket: PathBuf) -> (ExitCode, String, String) {
    let words = ["shardwall"].into_iter().chain(line.split_whitespace());
    run_words(words, socket)
}

fn run_words<T>(words: impl Iterator<Item = T>, socket: PathBuf) -> (ExitCode, String, String)
where
    T: Into<std::ffi::OsString> + Clone,
{
    let args = Args::try_parse_from(words).unwrap();
    let Command::Explain(explain) = args.command else {
        panic!("{:?}", args.command);
    };
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut output = Output {
        format: args.format,
        out: &mut stdout,
        err: &mut stderr,
    };
    let code = output.finish(|out| super::execute(&explain, &socket, out));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (code, text(stdout), text(stderr))
}

fn with_policy(line: &str) -> (ExitCode, String, String) {
    let folder = Folder::new();
    let file = folder.join("p.yaml");
    std::fs::write(&file, POLICY).unwrap();
    let line = format!("explain -c {} {line}", file.display());
    run(&line, folder.join("none"))
}

#[test]
fn a_packet_in_words_is_told_rule_by_rule() {
    let line = "iif=wan saddr=1.2.3.4 daddr=10.2.0.7 tcp dport=80 syn";
    let (code, out, err) = with_policy(line);
    assert_eq!((code, err.as_str()), (ExitCode::SUCCESS, ""));
    let expected = "\
packet   tcp 1.2.3.4:49152 > 10.2.0.7:80 syn, 40 bytes, wan → lan
assumed  sport 49152
state    new, original

forward
  ✗ known     line 10     ct: [established, related] — ct is new
  ✗ broken    line 11     ct: invalid — ct is new
  ✓ web-in    line 12     jump inbound
  inbound
    ✓ banned  line 17     return to forward
forward
  ✗ outbound  line 13     iif: lan — iif is wan
  ✗ ssh       line 14     dport: 22 — dport is 80
  ✓ policy                drop

verdict  drop by forward/policy
";
    assert_eq!(out, expected);
}

#[test]
fn assumptions_answers_helpers_and_errors_are_told() {
    let (_, out, _) = with_policy("iif=wan dport=22");
    assert!(
        out.contains(
            "assumed  saddr 192.0.2.1, daddr 198.51.100.1, proto tcp, sport 49152, flags syn\n"
        ),
        "{out}"
    );
    assert!(
        out.contains("✓ ssh       line 14     reject (tcp-reset)\n"),
        "{out}"
    );
    let answer = "answer   tcp 198.51.100.1:22 > 192.0.2.1:49152 rst,ack, 40 bytes by wan\n";
    assert!(out.ends_with(answer), "{out}");
    let (_, out, _) = with_policy("dport=21");
    assert!(out.contains("  ✓ files  line 6      helper ftp\n"), "{out}");
    assert!(
        out.ends_with("verdict  accept by forward/outbound\nhelper   ftp\n"),
        "{out}"
    );
    let (_, out, _) = with_policy("iif=wan tcp syn ack");
    assert!(
        out.contains(
            "note     INVALID: no flow is known, and a segment with syn,ack starts none\n"
        ),
        "{out}"
    );
    assert!(out.ends_with("verdict  drop by forward/broken\n"), "{out}");
    let (_, out, _) = with_policy("iif=wan tcp reply");
    assert!(out.contains("state    established, reply\n"), "{out}");
    assert!(out.ends_with("verdict  accept by forward/known\n"), "{out}");
    let (code, out, err) = with_policy("iif=wna tpc");
    assert_eq!((code, out.as_str()), (ExitCode::FAILURE, ""));
    assert_eq!(
        err,
        "shardwall explain: `iif=wna`: unknown port `wna`; did you mean `wan`?; ports are lan, \
         wan\nunknown word `tpc`; did you mean `tcp`?\n"
    );
    let (_, out, _) = with_policy("--format json iif=wan dport=22");
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(told["verdict"], "reject");
    assert_eq!(told["rule"], "forward/ssh");
    assert_eq!(told["rules"][2]["wanted"], "daddr: $servers");
    assert_eq!(told["rules"][2]["found"], "daddr is 198.51.100.1");
}

/// The time is the present one unless words say another; in the policy's time zone.
#[test]
fn the_time_is_told_in_words() {
    let folder = Folder::new();
    let file = folder.join("p.yaml");
    let policy = "version: 1
ports: { lan: { device: a }, wan: { device: b } }
bridge: [[lan, wan]]
system: { time-zone: Asia/Kolkata }
chains: { forward: { rules: [{ name: work, time: \"mon-fri 08:00-18:00\", action: accept }] } }
";
    std::fs::write(&file, policy).unwrap();
    let ask = |at: &[&str]| {
        let file = file.to_str().unwrap();
        let words = ["shardwall", "explain", "-c", file, "saddr=10.0.0.1"];
        run_words(words.iter().chain(at), folder.join("none"))
    };
    for (at, found) in [
        ("at=2026-11-20 08:00", None),
        ("at=2026-11-20T17:59:59", None),
        ("at=2026-11-20 18:00", Some("time is fri 18:00")),
        ("at=2026-11-20", Some("time is fri 00:00")),
        ("at=2026-11-21 08:00", Some("time is sat 08:00")),
    ] {
        let (code, out, err) = ask(&[at]);
        assert_eq!((code, err.as_str()), (ExitCode::SUCCESS, ""), "{at}");
        let verdict = match found {
            None => "accept by forward/work",
            Some(_) => "drop by forward/policy",
        };
        assert!(out.contains(verdict), "{at}: {out}");
        let wanted = "time: mon-fri 08:00-18:00 — ";
        let told = out
            .split_once(wanted)
            .map(|(_, rest)| rest.lines().next().unwrap());
        assert_eq!(told, found, "{at}: {out}");
        assert!(!out.contains(", at "), "{out}");
    }
    // Today, whatever day that is: at four in the morning nobody works.
    let (_, out, _) = ask(&["at=04:00"]);
    assert!(out.contains(" 04:00\n") && out.contains("drop by"), "{out}");
    let (_, out, _) = ask(&[]);
    assert!(out.contains(", at 20"), "{out}");
    let (_, _, err) = ask(&["at=noon"]);
    let expected = "`at=noon`: not a time; write at=08:00 or at=\"2026-11-20 08:00\"\n";
    assert!(err.ends_with(expected), "{err}");
}

/// Every packet of the sample capture is explained as `replay` judges it.
#[test]
fn packets_of_a_capture_are_explained_as_replay_judges_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let config = root.join("policies/kernel-samples.yaml");
    let trace = root.join("samples/kernel.pcapng");
    let mut lines = Vec::new();
    replay::replay(&config, None, &trace, Format::Json, &mut lines).unwrap();
    let lines = String::from_utf8(lines).unwrap();
    assert_eq!(lines.lines().count(), 62);
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let asked = format!(
            "explain --format json -c {} --trace {} --frame {}",
            config.display(),
            trace.display(),
            line["n"]
        );
        let (code, out, err) = run(&asked, PathBuf::new());
        assert_eq!((code, err.as_str()), (ExitCode::SUCCESS, ""));
        let told: Value = serde_json::from_str(&out).unwrap();
        for key in ["state", "dir", "verdict", "rule"] {
            assert_eq!(told[key], line[key], "{key} of {line}\n{out}");
        }
        let invalid = line["state"] == "invalid";
        let note = told["notes"][0].as_str();
        assert_eq!(
            note.is_some_and(|note| note.starts_with("INVALID")),
            invalid
        );
    }
    let beyond = format!(
        "explain -c {} --trace {} --frame 63",
        config.display(),
        trace.display()
    );
    let (code, _, err) = run(&beyond, PathBuf::new());
    assert_eq!(code, ExitCode::FAILURE);
    assert_eq!(err, "shardwall explain: the capture ends with packet 62\n");
}

#[test]
fn the_appliance_explains_by_its_flows_and_changes_nothing() {
    let mut bed = Bed::new(2);
    bed.start_control();
    bed.send(1);
    let before: Vec<_> = bed.appliance.rules();
    let ask = |words: &str| {
        let (code, out, err) = run(&format!("explain --live {words}"), bed.socket());
        assert_eq!((code, err.as_str()), (ExitCode::SUCCESS, ""), "{out}");
        out
    };
    let back = ask("iif=wan saddr=10.9.0.1 sport=53 udp daddr=10.0.0.1 dport=4000");
    assert!(back.contains("state    established, reply\n"), "{back}");
    assert!(back.contains("flow     udp      17 "), "{back}");
    assert!(
        back.ends_with("verdict  accept by forward/known\n"),
        "{back}"
    );
    let again = ask("iif=lan saddr=10.0.0.1 sport=4000 udp daddr=10.9.0.1 dport=53");
    assert!(again.contains("state    new, original\n"), "{again}");
    let stranger = ask("iif=wan saddr=10.9.0.1 sport=53 udp daddr=10.0.0.1 dport=4001");
    assert!(
        stranger.contains("no flow is known to the appliance"),
        "{stranger}"
    );
    assert!(
        stranger.ends_with("verdict  drop by forward/policy\n"),
        "{stranger}"
    );
    assert!(stranger.contains("✗ outbound"), "{stranger}");
    assert_eq!(bed.appliance.rules(), before);
    assert_eq!(bed.appliance.count(), 1);
    let (code, _, err) = run("explain --live iif=wam", bed.socket());
    assert_eq!(code, ExitCode::FAILURE);
    assert!(err.contains("did you mean `wan`?"), "{err}");
}

#[test]
fn a_policy_or_the_appliance_and_words_or_a_frame() {
    for line in [
        "explain iif=wan",
        "explain -c p --live",
        "explain -c p --trace t",
        "explain -c p --frame 1",
        "explain -c p --trace t --frame 0",
        "explain -c p --trace t --frame 1 tcp",
        "explain --live --trace t --frame 1",
    ] {
        let words = ["shardwall"].into_iter().chain(line.split_whitespace());
        let error = Args::try_parse_from(words).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}
