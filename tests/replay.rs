//! `replay` against what the kernel said of the same packets (`tests/samples`), and against bad
//! input. Runs the real binary; needs neither root nor DPDK.

use serde_json::Value;
use shardwall::wire::Addrs;
use shardwall::wire::build::{Segment, frame};
use shardwall::wire::fragment::{cut, part};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(name)
}

fn replay(policy: &Path, trace: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_shardwall"))
        .args(["--format", "json", "replay", "-c"])
        .arg(policy)
        .args(more)
        .arg(trace)
        .output()
        .expect("the binary starts")
}

fn objects(bytes: &[u8]) -> Vec<Value> {
    std::str::from_utf8(bytes)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn agrees_with_the_kernel() {
    let out = replay(
        &file("policies/kernel-samples.yaml"),
        &file("samples/kernel.pcapng"),
        &[],
    );
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let ours = objects(&out.stdout);
    let kernel = objects(&std::fs::read(file("samples/kernel.jsonl")).unwrap());
    assert_eq!((ours.len(), kernel.len()), (62, 62));
    let mut differences = Vec::new();
    for (ours, kernel) in ours.iter().zip(&kernel) {
        let n = ours["n"].as_u64().unwrap();
        assert_eq!(kernel["n"], ours["n"]);
        let mut differs = ours["state"] != kernel["state"] || ours["dir"] != kernel["dir"];
        // What the kernel's answer leaves open (several flows of one protocol) stays open.
        for key in ["assured", "tcp_state"] {
            differs |= !kernel[key].is_null() && kernel[key] != ours["ct"][key];
        }
        // The kernel's table was read a moment after the packet: where the packet did not renew
        // the timeout (it was INVALID), a jiffy had passed and the seconds were rounded down.
        if let Some(theirs) = kernel["timeout"].as_u64() {
            let ours_left = ours["ct"]["timeout"].as_u64().unwrap_or(u64::MAX);
            let slack = u64::from(kernel["state"] == "invalid");
            differs |= !(theirs..=theirs + slack).contains(&ours_left);
        }
        if differs {
            differences.push(format!("packet {n}: kernel {kernel}, ours {ours}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn what_helpers_do_is_in_the_record() {
    let out = replay(
        &file("policies/kernel-samples.yaml"),
        &file("samples/kernel.pcapng"),
        &[],
    );
    let lines = objects(&out.stdout);
    // Control flows of FTP and TFTP, and the first and the last packet of what they announced.
    for (n, helper, expected) in [
        (36, Some("ftp"), false),
        (38, None, true),
        (40, None, true),
        (57, Some("tftp"), false),
        (58, None, true),
        (62, None, false),
    ] {
        let ct = &lines[n - 1]["ct"];
        assert_eq!(ct["helper"].as_str(), helper, "packet {n}: {ct}");
        assert_eq!(ct["expected"], expected, "packet {n}: {ct}");
    }
    let text = Command::new(env!("CARGO_BIN_EXE_shardwall"))
        .args(["replay", "-c"])
        .args(["policies/kernel-samples.yaml", "samples/kernel.pcapng"].map(file))
        .output()
        .unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    for (n, end) in [
        (36, "tcp 300 ESTABLISHED [ASSURED] helper=ftp"),
        (38, "tcp 120 SYN_SENT [UNREPLIED] [EXPECTED]"),
        (57, "udp 30 [UNREPLIED] helper=tftp"),
    ] {
        assert!(lines[n - 1].ends_with(end), "{}", lines[n - 1]);
    }
}

/// The last three packets of a conversation are one datagram: two are on hold, the third speaks
/// for all.
#[test]
fn fragments_are_held_and_the_last_one_speaks_for_the_datagram() {
    let out = replay(
        &file("policies/kernel-samples.yaml"),
        &file("samples/kernel.pcapng"),
        &[],
    );
    let lines = objects(&out.stdout);
    for line in &lines[58..60] {
        assert_eq!(line["verdict"], "hold", "{line}");
        for key in ["state", "dir", "rule", "reason", "ct"] {
            assert!(line[key].is_null(), "{key} of {line}");
        }
    }
    let (whole, answer) = (&lines[60], &lines[61]);
    assert_eq!(
        (&whole["verdict"], &whole["rule"]),
        (&"accept".into(), &"forward/policy".into())
    );
    assert_eq!(
        (&whole["ct"]["proto"], &whole["ct"]["timeout"]),
        (&"udp".into(), &30.into())
    );
    assert_eq!(
        (&answer["state"], &answer["dir"]),
        (&"established".into(), &"reply".into())
    );
}

/// The capture's own time decides, be it long ago.
#[test]
fn time_windows_go_by_the_captures_time() {
    let dir = std::env::temp_dir().join(format!("shardwall-time-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let udp = Segment::Udp { sport: 1, dport: 2 };
    let addrs = Addrs::V4 {
        src: 0x0a00_0001,
        dst: 0x0a00_0002,
    };
    let whole = frame(addrs, udp, b"data");
    let trace = dir.join("time.pcap");
    let packets: Vec<_> = [9, 10, 19, 20].map(|secs| (secs, whole.clone())).into();
    std::fs::write(&trace, classic_at(&packets)).unwrap();
    let policy = dir.join("policy.yaml");
    let text = "version: 1
ports: { lan: { device: a }, wan: { device: b } }
bridge: [[lan, wan]]
system: { time-zone: Asia/Kolkata }
chains: { forward: { rules: [{ name: it, time: \"thu 05:30:10-05:30:20\", action: accept }] } }
";
    std::fs::write(&policy, text).unwrap();
    let out = replay(&policy, &trace, &["--port", "lan"]);
    let lines = objects(&out.stdout);
    let said: Vec<_> = lines.iter().map(|line| line["verdict"].as_str()).collect();
    let expected = ["drop", "accept", "accept", "drop"].map(Some);
    assert_eq!(said, expected, "{}", String::from_utf8_lossy(&out.stderr));
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn fragments_that_are_never_whole_are_in_the_summary() {
    let dir = std::env::temp_dir().join(format!("shardwall-fragments-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let udp = Segment::Udp { sport: 1, dport: 2 };
    let addrs = Addrs::V4 {
        src: 0x0a00_0001,
        dst: 0x0a00_0002,
    };
    let whole = frame(addrs, udp, &[0; 100]);
    let parts: Vec<_> = (1..=4).flat_map(|id| cut(&whole, id, 40)).collect();
    assert_eq!(parts.len(), 12);
    // 1: only two fragments, which time out; 2: one twice; 3: overlapping, the rest is held;
    // 4: all, and a policy that drops it.
    let packets = [
        (1, parts[0].clone()),
        (1, parts[1].clone()),
        (40, parts[3].clone()),
        (40, parts[3].clone()),
        (40, parts[4].clone()),
        (40, parts[5].clone()),
        (41, parts[6].clone()),
        (41, part(&whole, 3, 32..72, true)),
        (41, parts[8].clone()),
        (41, parts[9].clone()),
        (41, parts[10].clone()),
        (41, parts[11].clone()),
    ];
    let trace = dir.join("fragments.pcap");
    std::fs::write(&trace, classic_at(&packets)).unwrap();
    let policy = dir.join("policy.yaml");
    let shipped = std::fs::read_to_string(file("policies/kernel-samples.yaml")).unwrap();
    std::fs::write(&policy, shipped.replace("policy: accept", "policy: drop")).unwrap();
    let out = replay(&policy, &trace, &["--port", "lan"]);
    let said: Vec<_> = objects(&out.stdout)
        .iter()
        .map(|line| match &line["reason"] {
            Value::Null => line["verdict"].as_str().unwrap().to_owned(),
            reason => reason.as_str().unwrap().to_owned(),
        })
        .collect();
    let want = "hold hold hold fragment-duplicate hold policy hold fragment-overlap hold hold hold \
                policy";
    assert_eq!(said, want.split(' ').collect::<Vec<_>>());
    let summary = String::from_utf8(out.stderr).unwrap();
    let want = "12 packets: 0 accepted, 11 dropped (fragment-timeout 2, fragment-overlap 2, \
                fragment-duplicate 1, policy 6), 1 held; 0 flows at the end\n";
    assert_eq!(summary, want);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn the_balance_closes() {
    let out = replay(
        &file("policies/kernel-samples.yaml"),
        &file("samples/kernel.pcapng"),
        &[],
    );
    let lines = objects(&out.stdout);
    let count = |verdict: &str| {
        let with = lines.iter().filter(|line| line["verdict"] == verdict);
        with.count()
    };
    // Two were held, and passed when the third came.
    assert_eq!(count("hold"), 2);
    let accepted = count("accept") + count("hold");
    let reasons = lines
        .iter()
        .filter(|line| line["reason"].is_string())
        .count();
    assert_eq!(accepted + reasons, lines.len());
    let summary = String::from_utf8(out.stderr).unwrap();
    assert!(
        summary.starts_with(&format!("62 packets: {accepted} accepted")),
        "{summary}"
    );
}

#[test]
fn unreadable_input_is_named() {
    let policy = file("policies/kernel-samples.yaml");
    let samples = file("samples/kernel.pcapng");
    let dir = std::env::temp_dir().join(format!("shardwall-replay-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let capture = std::fs::read(&samples).unwrap();
    let cut = write("cut.pcapng", &capture[..1000]);
    let noise = write("noise.pcapng", b"not a capture at all");
    let empty = write("empty.pcap", b"");
    let broken = write("broken.yaml", b"version: 1\nports: [\n");
    let pcap = write("classic.pcap", &classic(&[0; 60]));
    let cases: [(&Path, &Path, &[&str], &str); 7] = [
        (&policy, &cut, &[], "the file ends inside a packet"),
        (&policy, &noise, &[], "neither a pcapng nor a pcap"),
        (&policy, &empty, &[], "neither a pcapng nor a pcap"),
        (&policy, Path::new("/nowhere"), &[], "cannot open /nowhere"),
        (&broken, &samples, &[], "broken.yaml"),
        (&policy, &pcap, &[], "--port"),
        (&policy, &pcap, &["--port", "dmz"], "its ports are lan, wan"),
    ];
    for (policy, trace, more, says) in cases {
        let out = replay(policy, trace, more);
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{said}");
        assert!(said.contains(says), "{says:?} expected in {said}");
    }
    let out = replay(&policy, &pcap, &["--port", "wan"]);
    assert_eq!(objects(&out.stdout)[0]["port"], "wan");
    // Everything before the damage is still there.
    assert!(objects(&replay(&policy, &cut, &[]).stdout).len() > 3);
    std::fs::remove_dir_all(&dir).unwrap();
}

/// A classic pcap with one frame.
fn classic(frame: &[u8]) -> Vec<u8> {
    classic_at(&[(1, frame.to_vec())])
}

/// A classic pcap of frames, each with its second.
fn classic_at(packets: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4_u32, 4 << 16 | 2, 0, 0, 65_535, 1] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    for (second, frame) in packets {
        for word in [*second, 2, frame.len() as u32, frame.len() as u32] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(frame);
    }
    bytes
}
