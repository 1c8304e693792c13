//! Our side: the packets as a capture, and what the built `shardwall replay` says of each.

use crate::oracle::KIND;
use crate::view::{FlowView, View};
use serde_json::Value;
use shardwall::conntrack::types::TcpState;
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

/// A frame, when and where it came.
#[derive(Debug)]
pub(crate) struct Packet {
    /// Nanoseconds.
    pub(crate) at: u64,
    /// Number of the port.
    pub(crate) side: usize,
    /// The bytes.
    pub(crate) frame: Vec<u8>,
}

/// A folder for policies and captures, gone with its value. What a killed run leaves is removed as
/// its namespaces are.
#[derive(Debug)]
pub(crate) struct Replay {
    dir: PathBuf,
    binary: PathBuf,
}

impl Replay {
    /// For router number `at`, and a policy.
    pub(crate) fn new(at: usize, policy: &str) -> Self {
        let name = format!("shardwall-{KIND}{}", std::process::id());
        let dir = env::temp_dir().join(name).join(at.to_string());
        fs::create_dir_all(&dir).expect("a folder for captures");
        let built = env!("CARGO_BIN_EXE_shardwall");
        let binary = env::var_os("KERNEL_BINARY").map_or(built.into(), PathBuf::from);
        let this = Self { dir, binary };
        this.load(policy);
        this
    }

    /// Another policy from now on.
    pub(crate) fn load(&self, policy: &str) {
        fs::write(self.dir.join("policy.yaml"), policy).expect("a policy");
    }

    /// What is said of each of `packets`, which are in the order of their time.
    pub(crate) fn play(&self, packets: &[Packet]) -> Vec<View> {
        self.lines(packets).iter().map(read).collect()
    }

    /// That in all its words.
    pub(crate) fn lines(&self, packets: &[Packet]) -> Vec<Value> {
        let (policy, trace) = (self.dir.join("policy.yaml"), self.dir.join("trace.pcapng"));
        fs::write(&trace, capture(packets)).expect("a capture");
        let mut command = Command::new(&self.binary);
        command.args(["--format", "json", "replay", "-c"]);
        let output = command
            .arg(policy)
            .arg(trace)
            .output()
            .expect("the binary starts");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "replay: {complaint}");
        let text = String::from_utf8(output.stdout).expect("text");
        let json = |line| serde_json::from_str(line).expect("JSON");
        let lines: Vec<Value> = text.lines().map(json).collect();
        assert_eq!(lines.len(), packets.len(), "replay: {complaint}");
        lines
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
        // The last one succeeds.
        let _ = self.dir.parent().map(fs::remove_dir);
    }
}

/// One line of the answer. A packet that never came to a rule has nothing but that to it: the
/// kernel says no more.
fn read(line: &Value) -> View {
    let text = |key: &str| line[key].as_str().unwrap_or("-").to_owned();
    let mut verdict = text("verdict");
    let reason = text("reason");
    let by_rule = matches!(reason.as_str(), "-" | "policy" | "rejected" | "helper");
    if reason == "helper" {
        verdict = "-".into();
    }
    if verdict == "hold" || !by_rule {
        return View {
            verdict: "-".into(),
            state: "-".into(),
            dir: "-".into(),
            flow: None,
        };
    }
    let ct = &line["ct"];
    let flow = ct.is_object().then(|| FlowView {
        tcp: ct["tcp_state"].as_str().map_or(TcpState::None, |name| {
            let mut all = TcpState::ALL.into_iter();
            all.find(|state| state.name() == name).expect("a state")
        }),
        timeout: ct["timeout"].as_u64().expect("seconds") as u32,
        seen_reply: ct["seen_reply"].as_bool().expect("yes or no"),
        assured: ct["assured"].as_bool().expect("yes or no"),
        expected: ct["expected"].as_bool().expect("yes or no"),
    });
    View {
        verdict,
        state: text("state"),
        dir: text("dir"),
        flow,
    }
}

/// A pcapng with an interface for each side, and nanoseconds.
fn capture(packets: &[Packet]) -> Vec<u8> {
    let mut out = Vec::new();
    // Section: byte order, version 1.0, length unknown.
    let section = [0x1a2b_3c4d_u32, 1, u32::MAX, u32::MAX]
        .map(u32::to_le_bytes)
        .concat();
    block(&mut out, 0x0a0d_0d0a, &section);
    for name in ["lan", "wan"] {
        // Ethernet; name; a resolution of 10^-9 s; end.
        let mut body = [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 3, 0].to_vec();
        body.extend(name.as_bytes());
        body.extend([0, 9, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
        block(&mut out, 1, &body);
    }
    for Packet { at, side, frame } in packets {
        let len = frame.len() as u32;
        let words = [*side as u32, (at >> 32) as u32, *at as u32, len, len];
        let mut body = words.map(u32::to_le_bytes).concat();
        body.extend(frame);
        block(&mut out, 6, &body);
    }
    out
}

fn block(out: &mut Vec<u8>, kind: u32, body: &[u8]) {
    let padded = body.len().next_multiple_of(4);
    let len = (padded as u32 + 12).to_le_bytes();
    out.extend(kind.to_le_bytes());
    out.extend(len);
    out.extend(body);
    out.extend(vec![0; padded - body.len()]);
    out.extend(len);
}
