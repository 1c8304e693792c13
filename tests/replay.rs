//! `replay` against what the kernel said of the same packets (`tests/samples`), and against bad
//! input. Runs the real binary; needs neither root nor DPDK.

use serde_json::Value;
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

/// Packets whose answer needs what this version does not have.
///
/// FTP data connections (38 to 40, 54 to 56) and the TFTP transfer (58) are `related` only with a
/// helper; 59 to 61 are fragments, and 62 answers the datagram that they make.
const NOT_YET: &[u64] = &[38, 39, 40, 54, 55, 56, 58, 59, 60, 61, 62];

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
        if differs && !NOT_YET.contains(&n) {
            differences.push(format!("packet {n}: kernel {kernel}, ours {ours}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn the_balance_closes() {
    let out = replay(
        &file("policies/kernel-samples.yaml"),
        &file("samples/kernel.pcapng"),
        &[],
    );
    let lines = objects(&out.stdout);
    let accepted = lines
        .iter()
        .filter(|line| line["verdict"] == "accept")
        .count();
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
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4_u32, 4 << 16 | 2, 0, 0, 65_535, 1] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    for word in [1, 2, frame.len() as u32, frame.len() as u32] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(frame);
    bytes
}
