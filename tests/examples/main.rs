//! The policies of `deploy/examples`, each against a capture: what becomes of every packet was
//! thought through beforehand (`tables`), and `shardwall replay` must say the same. The captures are
//! made from the tables; `UPDATE_DOCS=1 cargo test --test examples` writes them, and without it a
//! stale one fails. Needs neither root nor DPDK.

mod tables;
mod talk;

use pcap_file::DataLink;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use serde_json::Value;
use shardwall::policy::{self, Checked};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use talk::Sent;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn example(name: &str) -> PathBuf {
    root().join(format!("deploy/examples/{name}.yaml"))
}

/// The example, which must be without fault.
fn checked(name: &str) -> Checked {
    let checked = policy::load(&example(name)).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(checked.warnings.is_empty(), "{}", checked.render_warnings());
    checked
}

/// A capture of the packets, which come in by the ports of the policy.
fn capture(sent: &[Sent], ports: &[&str]) -> Vec<u8> {
    let mut writer = PcapNgWriter::new(Vec::new()).unwrap();
    for port in ports {
        let options = vec![
            InterfaceDescriptionOption::IfName((*port).into()),
            InterfaceDescriptionOption::IfTsResol(9), // nanoseconds
        ];
        let interface = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: 0,
            options,
        };
        writer.write_pcapng_block(interface).unwrap();
    }
    for packet in sent {
        let port = ports.iter().position(|port| *port == packet.port);
        let block = EnhancedPacketBlock {
            interface_id: port.expect(&packet.line) as u32,
            timestamp: packet.time,
            original_len: packet.frame.len() as u32,
            data: packet.frame.as_slice().into(),
            options: Vec::new(),
        };
        writer.write_pcapng_block(block).unwrap();
    }
    writer.into_inner()
}

/// What `replay` says of a capture, and its summary.
fn replay(policy: &Path, trace: &Path) -> (Vec<Value>, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_shardwall"))
        .args(["--format", "json", "replay", "-c"])
        .args([policy, trace])
        .output()
        .expect("the binary starts");
    let summary = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.success(), "{summary}");
    let lines = String::from_utf8(out.stdout).unwrap();
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    (lines.collect(), summary)
}

/// What is different from what was expected of a packet.
fn differences(packet: &Sent, said: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let mut said_of = vec![
        text(&said["state"]),
        text(&said["verdict"]),
        text(&said["rule"]),
    ];
    let ct = &said["ct"];
    for word in packet.expected.iter().skip(3) {
        said_of.push(match word.split_once('=') {
            None if word == "no-flow" && ct.is_null() => word.clone(),
            None if word == "expected" && ct["expected"] == true => word.clone(),
            Some(("helper", _)) => format!("helper={}", text(&ct["helper"])),
            Some(("timeout", _)) => format!("timeout={}", ct["timeout"]),
            Some(("tcp", _)) => format!("tcp={}", text(&ct["tcp_state"])),
            _ => format!("not {word}"),
        });
    }
    if said_of == packet.expected {
        return Vec::new();
    }
    vec![format!("{}\n    is {}", packet.line, said_of.join(" "))]
}

/// Holds an example to its table; rules of which it is said decide about nothing. Returns what
/// `replay` said.
fn hold(name: &str, table: &str, silent: &[&str]) -> (Vec<Value>, String) {
    let model = checked(name).model;
    let sent = talk::read(table);
    let ports: Vec<_> = model.ports.iter().map(|port| port.name.as_str()).collect();
    let bytes = capture(&sent, &ports);
    let trace = root().join(format!("tests/samples/examples/{name}.pcapng"));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&trace, &bytes).unwrap();
    }
    assert!(
        std::fs::read(&trace).is_ok_and(|known| known == bytes),
        "{} is stale: run UPDATE_DOCS=1 cargo test --test examples",
        trace.display()
    );
    let (said, summary) = replay(&example(name), &trace);
    assert_eq!(said.len(), sent.len());
    let different: Vec<_> = sent
        .iter()
        .zip(&said)
        .flat_map(|(p, s)| differences(p, s))
        .collect();
    assert!(different.is_empty(), "{}", different.join("\n"));
    // Nothing that decides is left untried.
    let decided: BTreeSet<_> = said
        .iter()
        .filter_map(|line| line["rule"].as_str())
        .collect();
    let mut untried = Vec::new();
    for chain in &model.chains {
        for rule in &chain.rules {
            let action = rule.action.to_string();
            let decides = ["accept", "drop", "reject"]
                .iter()
                .any(|word| action.starts_with(word));
            let rule = format!("{}/{}", chain.name, rule.name);
            if decides && !decided.contains(rule.as_str()) {
                untried.push(rule);
            }
        }
    }
    assert_eq!(untried, silent, "rules that no packet tries");
    (said, summary)
}

#[test]
fn the_edge_of_a_small_network() {
    hold("edge", tables::EDGE, &[]);
}

#[test]
fn a_web_farm() {
    hold("web-farm", tables::WEB_FARM, &[]);
}

#[test]
fn a_web_server_that_is_not_tracked() {
    let (said, summary) = hold("notrack-web", tables::NOTRACK_WEB, &[]);
    let untracked = said.iter().filter(|line| line["state"] == "untracked");
    assert!(untracked.clone().count() > 40);
    for line in untracked {
        assert!(line["ct"].is_null() && line["dir"].is_null(), "{line}");
    }
    // Only what is tracked: SSH, a ping, a name and the time.
    assert!(summary.ends_with("; 4 flows at the end\n"), "{summary}");
}

/// The tracker refuses what `not-syn` would; without its help the rule does.
#[test]
fn strict_rules_about_what_may_begin() {
    let (said, _) = hold("strict", tables::STRICT, &["forward/not-syn"]);
    let policy = std::fs::read_to_string(example("strict")).unwrap();
    assert_eq!(policy.matches("    loose: false").count(), 1);
    let loose = policy.replace("    loose: false", "    loose: true");
    let dir = std::env::temp_dir().join(format!("shardwall-strict-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("loose.yaml");
    std::fs::write(&file, loose).unwrap();
    let trace = root().join("tests/samples/examples/strict.pcapng");
    let (again, _) = replay(&file, &trace);
    std::fs::remove_dir_all(&dir).unwrap();
    let changed: Vec<_> = said
        .iter()
        .zip(&again)
        .filter(|(strict, loose)| strict["rule"] != loose["rule"])
        .map(|(strict, loose)| [&strict["rule"], &loose["rule"], &loose["verdict"]])
        .collect();
    assert_eq!(changed, [["forward/broken", "forward/not-syn", "drop"]]);
}

#[test]
fn a_data_centre() {
    hold("datacentre", tables::DATACENTRE, &[]);
}

#[test]
fn every_example_is_tried_and_named_in_the_readme() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root().join("deploy/examples")).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            names.push(path.file_stem().unwrap().to_str().unwrap().to_owned());
        }
    }
    names.sort_unstable();
    assert_eq!(
        names,
        ["datacentre", "edge", "notrack-web", "strict", "web-farm"]
    );
    for name in names {
        let link = format!("(deploy/examples/{name}.yaml)");
        assert!(readme.contains(&link), "{name}");
        let out = Command::new(env!("CARGO_BIN_EXE_shardwall"))
            .arg("check")
            .arg(example(&name))
            .output()
            .unwrap();
        let said = String::from_utf8(out.stdout).unwrap();
        assert!(
            out.status.success() && said.ends_with(", 0 warnings\n"),
            "{said}"
        );
    }
}
