//! `trace`, `capture` and `drops` of the real binary, with real programs on both sides. Needs root, or
//! is re-run inside user namespaces where the system allows that.
#![cfg(feature = "dpdk")]

mod common;

use common::{json, stop};
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use serde_json::Value;
use shardwall::cli::lab::{
    Lab, OUTSIDE, Process, Signal, as_root_of_a_namespace, is_root, pause, start,
};
use std::fs;
use std::path::{Path, PathBuf};

const BINARY: &str = env!("CARGO_BIN_EXE_shardwall");

const RULES: &str = "
chains:
  forward:
    policy: drop
    rules:
      - { name: known, ct: [established, related], action: accept }
      - { name: broken, ct: invalid, action: drop }
      - { name: ping, proto: [icmp, icmpv6], ct: new, action: accept }
      - { name: web, iif: lan, proto: tcp, dport: 80, ct: new, jump: inside }
      - { name: no-mail, iif: lan, proto: tcp, dport: 25, action: reject }
  inside:
    rules:
      - { name: in, action: accept }
";

/// Sends a segment that belongs to nothing.
const ASTRAY: &str = "
import socket, struct
def total(data):
    data += b'\\0' * (len(data) % 2)
    sum = 0
    for (word,) in struct.iter_unpack('!H', data):
        sum += word
    while sum >> 16:
        sum = (sum & 0xffff) + (sum >> 16)
    return ~sum & 0xffff
def segment(sum):
    return struct.pack('!HHIIBBHHH', 4444, 80, 1, 2, 5 << 4, 0x12, 100, sum, 0)
ends = socket.inet_aton('10.77.0.1') + socket.inet_aton('10.77.0.2')
bare = segment(0)
sum = total(ends + struct.pack('!BBH', 0, 6, len(bare)) + bare)
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
raw.sendto(segment(sum), ('10.77.0.2', 0))
";

/// A command of the binary beside the appliance, and what it prints.
struct Beside {
    process: Process,
    log: PathBuf,
}

impl Beside {
    /// Starts it, and waits until the workers look.
    fn start(lab: &Lab, name: &str, words: &[&str]) -> Self {
        let log = lab.dir.join(name);
        let socket = lab.socket().display().to_string();
        let words = [&[BINARY, "--socket", &socket], words].concat();
        let process = start(&words, &lab.dir, &log).unwrap();
        let beside = Self { process, log };
        for _ in 0..500 {
            if beside.text().contains("^C ends it") {
                return beside;
            }
            pause(20);
        }
        panic!("{name} does not begin: {}", beside.text());
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits for its own end.
    fn end(mut self) -> String {
        let ended = self.process.wait(20);
        assert!(
            ended.is_some_and(|status| status.success()),
            "{}",
            self.text()
        );
        self.text()
    }
}

#[test]
fn why_packets_are_dropped_is_told() {
    if !is_root() {
        let binary = std::env::current_exe().unwrap();
        let test = "why_packets_are_dropped_is_told";
        let words = [&*binary.to_string_lossy(), test, "--exact", "--nocapture"];
        assert!(as_root_of_a_namespace(&words).unwrap().success());
        return;
    }
    let mut lab = Lab::new("et", Path::new(BINARY)).unwrap();
    let head = lab.head(2, "127.0.0.1:0", "");
    lab.write_policy(&(head + RULES)).unwrap();
    lab.start().unwrap();
    let web = ["python3", "-m", "http.server", "80", "--bind", "::"];
    let log = lab.dir.join("web.log");
    let _server = lab.wan.spawn(&web, &lab.dir, &log).unwrap();
    lab.await_port(&lab.wan, 80).unwrap();
    let curl = |port: u16| {
        let url = format!("http://{}:{port}/", OUTSIDE.0);
        let got = lab.lan.output(&["curl", "-sS", "-m", "2", &url]).unwrap();
        got.status.code()
    };

    // What a dropped connection meets.
    let trace = Beside::start(
        &lab,
        "trace.log",
        &["trace", "-c", "1", "tcp", "syn", "dport=81"],
    );
    assert_eq!(curl(81), Some(28));
    let told = trace.end();
    for part in [
        "packet   tcp 10.77.0.1:",
        " > 10.77.0.2:81 syn, 60 bytes, lan → wan\n",
        "state    new, original\n",
        "✗ web      line ",
        "dport: 80 — dport is 81\n",
        "verdict  drop by forward/policy (policy: ",
    ] {
        assert!(told.contains(part), "{part}\n{told}");
    }

    // What belongs to nothing, with the tracker's reason.
    let words = ["trace", "--format", "json", "-c", "1", "invalid"];
    let log = lab.dir.join("invalid.log");
    let socket = lab.socket().display().to_string();
    let words = [&[BINARY, "--socket", &socket][..], &words].concat();
    let mut process = start(&words, &lab.dir, &log).unwrap();
    let mut line = String::new();
    for _ in 0..50 {
        let sent = lab.lan.output(&["python3", "-c", ASTRAY]).unwrap();
        assert!(
            sent.status.success(),
            "{}",
            String::from_utf8_lossy(&sent.stderr)
        );
        pause(100);
        line = fs::read_to_string(&log).unwrap();
        if !line.is_empty() {
            break;
        }
    }
    assert!(process.wait(10).is_some_and(|status| status.success()));
    let told: Value = serde_json::from_str(line.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&told["invalid"], &told["rule"]),
        (&"tcp-not-first".into(), &"forward/broken".into())
    );

    // Everything of a conversation, and what is refused, as a capture.
    let file = lab.dir.join("capture.pcapng");
    let path = file.display().to_string();
    let capture = Beside::start(&lab, "capture.log", &["capture", "-w", &path, "tcp"]);
    assert_eq!(curl(80), Some(0));
    assert_eq!(curl(25), Some(7));
    pause(500);
    capture.process.signal(Signal::INT);
    let said = capture.end();
    let bytes = fs::read(&file).unwrap();
    let mut reader = PcapNgReader::new(&bytes[..]).unwrap();
    let mut comments = Vec::new();
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block.unwrap() {
            let comment = packet.options.iter().find_map(|option| match option {
                EnhancedPacketOption::Comment(text) => Some(text.to_string()),
                _ => None,
            });
            comments.push(comment.unwrap());
        }
    }
    assert!(
        said.contains(&format!("shardwall: {} packets", comments.len())),
        "{said}"
    );
    assert_eq!(comments[0], "accept: rule inside/in, ct new");
    let known = comments
        .iter()
        .filter(|text| text.starts_with("accept: rule forward/known"));
    assert!(known.count() >= 6, "{comments:?}");
    assert_eq!(
        comments.last().unwrap(),
        "reject: rejected, tcp-reset, rule forward/no-mail, ct new"
    );
    // What the appliance said, replay says of the file.
    let policy = lab.policy().display().to_string();
    let words = ["replay", "--format", "json", "-c", &policy, &path];
    let replayed = lab.shardwall(&words).unwrap();
    let replayed = String::from_utf8(replayed.stdout).unwrap();
    assert_eq!(replayed.lines().count(), comments.len());
    for (line, comment) in replayed.lines().zip(&comments) {
        let line: Value = serde_json::from_str(line).unwrap();
        let verdict = line["verdict"].as_str().unwrap();
        let rule = format!("rule {}", line["rule"].as_str().unwrap());
        assert!(
            comment.starts_with(verdict) && comment.contains(&rule),
            "{comment}\n{line}"
        );
    }

    let drops = json(&lab, &["drops"]);
    let row = |reason: &str| {
        let rows = drops.as_array().unwrap();
        rows.iter()
            .find(|row| row["reason"] == reason)
            .unwrap()
            .clone()
    };
    let (policy, rejected) = (row("policy"), row("rejected"));
    assert!(policy["count"].as_u64() >= Some(2), "{policy}");
    assert_eq!(rejected["last"]["rule"], "forward/no-mail");
    assert_eq!(rejected["last"]["port"], "lan");
    stop(lab);
}
