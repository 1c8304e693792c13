//! Sets: of interfaces, of sets, and from files.
#![allow(clippy::disallowed_methods)] // some of it is about time

use std::fmt::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::*;
use crate::base::time::Now;
use crate::conntrack::types::CtState;
use crate::policy::model::Rule;
use crate::policy::{Facts, PortId};
use crate::wire::{Addrs, L3, Parsed};

const PORTS: &str = "version: 1
ports: { lan: { device: a }, wan: { device: b }, wan2: { device: c }, eth0.7: { device: d }, 80: { device: e } }
bridge: [[lan, wan], [wan2, eth0.7]]
";

/// A policy with these lines of `sets` (the first is line 5) and these rules.
fn policy(sets: &str, rules: &str) -> String {
    let sets = sets.replace('\n', "\n  ");
    format!("{PORTS}sets:\n  {sets}\nchains: {{ forward: {{ rules: [{rules}] }} }}\n")
}

fn told(sets: &str, rules: &str) -> Vec<String> {
    let mut all = found(&policy(sets, rules));
    // port `80` is there for its name only
    all.retain(|one| !one.contains("is in no bridge"));
    all
}

fn rules(sets: &str, rules: &str) -> Vec<Rule> {
    let checked = check("x", &policy(sets, rules)).unwrap_or_else(|errors| panic!("{errors}"));
    checked.model.chains[0].rules.clone()
}

#[test]
fn sets_of_interfaces_stand_where_ports_of_the_policy_do() {
    let read = rules(
        "uplinks: [wan, wan2, eth0.7]\nboth: [$uplinks, lan]",
        "{ iif: $uplinks, oif: [lan, $both], action: drop }, { iif: \"!$uplinks\", action: drop }",
    );
    assert_eq!(read[0].matches.iif, Some(0b1110));
    assert_eq!(read[0].matches.oif, Some(0b1111));
    assert_eq!(read[1].matches.iif, Some(!0b1110));
}

#[test]
fn a_set_of_one_kind_is_no_other() {
    let sets = "up: [wan]\nweb: 80\nnet: 10.0.0.0/8";
    for (rule, expected) in [
        (
            "iif: $web",
            "`$web` holds ports, and `iif` needs interfaces",
        ),
        (
            "oif: [lan, $net]",
            "`$net` holds addresses, and `oif` needs interfaces",
        ),
        (
            "saddr: $up",
            "`$up` holds interfaces, and `saddr` needs addresses",
        ),
        (
            "proto: tcp, dport: $up",
            "`$up` holds interfaces, and `dport` needs ports",
        ),
        (
            "vlan: $net",
            "`$net` holds addresses, and `vlan` needs ports",
        ),
        ("iif: $upp", "unknown set `$upp`"),
    ] {
        let all = told(sets, &format!("{{ {rule}, action: drop }}"));
        assert_eq!(all.len(), 1, "{all:?}");
        assert!(all[0].ends_with(expected), "{all:?}");
    }
    // a number is a port, whatever the ports of the policy are called
    let read = rules(sets, "{ proto: tcp, dport: $web, action: drop }");
    assert_eq!(read[0].matches.dport.as_ref().unwrap().ranges(), [(80, 80)]);
    for (set, expected) in [
        ("[lan, 80]", "5:12 2 set `s` mixes interfaces and ports"),
        (
            "[10.0.0.1, lan]",
            "5:17 3 set `s` mixes addresses and interfaces",
        ),
        ("[lna]", "5:7 3 `lna` is no address, port or interface"),
    ] {
        assert_eq!(told(&format!("s: {set}"), ""), [expected]);
    }
}

#[test]
fn sets_refer_to_sets_in_any_order() {
    let sets = "all: [$servers, 10.9.0.0/16, $more]\nservers: [10.2.0.0/16, \"fd02::/16\"]\nmore: $servers\nalso: $all\nports: [$web, 22]\nweb: [80, 443]\nvlans: [7, 20-29]";
    let read = rules(
        sets,
        "{ saddr: $all, daddr: $also, action: drop }, { proto: tcp, dport: $ports, vlan: $vlans, action: drop }",
    );
    let all = read[0].matches.saddr.as_ref().unwrap();
    let v4 = [(0x0a02_0000, 0x0a02_ffff), (0x0a09_0000, 0x0a09_ffff)];
    assert_eq!(all.set.v4(), v4);
    assert!(all.set.contains_v6(0xfd02 << 112 | 7));
    let also = read[0].matches.daddr.as_ref().unwrap();
    assert!(
        Arc::ptr_eq(&all.set, &also.set),
        "another name for the same set"
    );
    let ports = read[1].matches.dport.as_ref().unwrap();
    assert_eq!(ports.ranges(), [(22, 22), (80, 80), (443, 443)]);
    let vlans = read[1].matches.vlan.as_ref().unwrap();
    assert_eq!(vlans.ranges(), [(7, 7), (20, 29)]);
}

#[test]
fn loops_of_sets_are_shown_as_rings() {
    let use_all = "{ saddr: $a, daddr: $b, action: drop }, { saddr: $x, action: drop }";
    assert_eq!(
        told("a: [10.0.0.1, $b]\nb: $c\nc: [$b, $a]\nx: [$c]", use_all),
        [
            "7:7 2 sets form a loop: b -> c -> b",
            "7:11 2 sets form a loop: a -> b -> c -> a",
        ]
    );
    assert_eq!(told("a: $a", ""), ["5:6 2 sets form a loop: a -> a"]);
    assert_eq!(
        told("a: [$web, 10.0.0.1]\nweb: 80\nb: [$webb]\nc: [$b]", ""),
        [
            "5:7 4 set `a` mixes addresses and ports",
            "7:7 5 unknown set `$webb`",
        ]
    );
}

#[test]
fn many_sets_and_many_references_are_bounded() {
    // a chain of references, deeper than any stack
    let mut sets = String::from("s0: [10.0.0.1]");
    for at in 1..20_000 {
        write!(sets, "\ns{at}: [$s{}]", at - 1).unwrap();
    }
    let read = rules(&sets, "{ saddr: $s19999, action: drop }");
    assert_eq!(read[0].matches.saddr.as_ref().unwrap().set.v4().len(), 1);
    // each holds all before it: half a billion ranges, if nobody counted
    let mut sets = String::from("s0: [10.0.0.1]");
    for at in 1..30_000u32 {
        let (b, c) = (at >> 7 & 255, at << 1 & 255);
        write!(sets, "\ns{at}: [$s{}, 10.{}.{b}.{c}]", at - 1, at >> 15).unwrap();
    }
    let all = told(&sets, "{ saddr: $s9, action: drop }");
    assert_eq!(all.len(), 1);
    assert!(
        all[0].ends_with("have at most 8388608 ranges together"),
        "{all:?}"
    );
    // and so do lists of rules
    let big: Vec<String> = (0..10_000)
        .map(|n| format!("10.0.{}.{}", n >> 7, 2 * (n & 127)))
        .collect();
    let sets = format!("big: [{}]", big.join(", "));
    let all = told(
        &sets,
        &"{ saddr: [$big, 10.9.9.9], action: drop }, ".repeat(1000),
    );
    assert!(
        all.iter().any(|one| one.ends_with("ranges together")),
        "{all:?}"
    );
}

/// A folder that goes away.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("shardwall-sets-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.0.join(name), content).unwrap();
    }

    /// Loads a policy with these sets and one rule.
    fn load(&self, sets: &str, rule: &str) -> Result<Checked, PolicyErrors> {
        self.write("policy.yaml", policy(sets, rule));
        load(&self.0.join("policy.yaml"))
    }

    /// Everything found, as `file:line:column length message`, the policy's own without its file.
    fn told(&self, sets: &str, rule: &str) -> Vec<String> {
        let errors = self.load(sets, rule).unwrap_err();
        let show = |d: &Diagnostic| {
            let file = d.file().map(|file| format!("{file}:")).unwrap_or_default();
            format!("{file}{}:{} {} {}", d.line, d.column, d.length, d.message)
        };
        let all = errors.iter().map(show);
        all.filter(|one| !one.contains("is in no bridge")).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn sets_come_from_files() {
    let folder = Folder::new("good");
    folder.write(
        "v4.txt",
        "\u{feff}# a list\r\n10.0.0.1\r\n\r\n  10.1.0.0/16  # a network\r\n10.0.0.2-10.0.0.4",
    );
    folder.write("v6.txt", "fd00::/16\n");
    std::fs::create_dir_all(folder.0.join("sub")).unwrap();
    folder.write("sub/ports", "80\n443\n8000-8080\n");
    let sets = "nets: { file: [v4.txt, v6.txt], entries: [10.9.9.9, $more] }\nmore: { file: v6.txt }\nweb: { file: sub/ports }";
    let rule = "{ saddr: $nets, proto: tcp, dport: $web, action: drop }";
    let checked = folder
        .load(sets, rule)
        .unwrap_or_else(|errors| panic!("{errors}"));
    let matches = &checked.model.chains[0].rules[0].matches;
    let nets = &matches.saddr.as_ref().unwrap().set;
    let v4 = [
        (0x0a00_0001, 0x0a00_0004),
        (0x0a01_0000, 0x0a01_ffff),
        (0x0a09_0909, 0x0a09_0909),
    ];
    assert_eq!(nets.v4(), v4);
    assert_eq!(nets.v6().len(), 1);
    let web = matches.dport.as_ref().unwrap();
    assert_eq!(web.ranges(), [(80, 80), (443, 443), (8000, 8080)]);

    // what stands in a file is part of the policy, and not of its rules
    let same = folder.load(sets, rule).unwrap();
    assert_eq!(checked.hash, same.hash);
    folder.write("v6.txt", "fd01::/16\n");
    let other = folder.load(sets, rule).unwrap();
    assert_ne!(checked.hash, other.hash);
    let hash = |checked: &Checked| checked.model.chains[0].rules[0].hash;
    assert_eq!(hash(&checked), hash(&other));
}

#[test]
fn what_is_wrong_in_a_file_is_told_with_its_own_places() {
    let folder = Folder::new("bad");
    folder.write(
        "a.txt",
        "10.0.0.1\nö 10.0.0.300\n\t10.0.0.1/8 # x\n80\n$other\n",
    );
    folder.write("many", "x\n".repeat(5000));
    folder.write("few", "x\n".repeat(25));
    let long = format!("10.0.0.1\n{}\n", "1".repeat(1_000_000));
    folder.write("long", &long);
    let rule = "{ saddr: $a, action: drop }";
    assert_eq!(
        folder.told("a: { file: a.txt }", rule),
        [
            "a.txt:2:1 12 `ö 10.0.0.300` is not an address, a prefix or a range",
            "a.txt:3:2 10 `10.0.0.1/8` has bits set behind its prefix length",
            "a.txt:4:1 2 `80`: the set mixes addresses and ports",
            "a.txt:5:1 6 a file can neither refer to sets nor negate",
        ]
    );
    let errors = folder.load("a: { file: a.txt }", rule).unwrap_err();
    let text = errors.to_string();
    let shown =
        "   ╭─[a.txt:3:2]\n 3 │ \t10.0.0.1/8 # x\n   ·  ──────────\n  help: write 10.0.0.0/8";
    assert!(text.contains(shown), "{text}");
    let json = errors.to_json();
    let first = json
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["file"] == "a.txt");
    assert_eq!(first.unwrap()["line"], 2);

    let told = folder.told("a: { file: many }\nb: { file: few }", rule);
    assert_eq!(told.len(), 42);
    assert_eq!(told[20], "5:14 4 and at least 980 more errors in `many`");
    assert_eq!(told[41], "6:14 3 and 5 more errors in `few`");
    let errors = folder.load("a: { file: long }", rule).unwrap_err();
    let long = errors.iter().find(|one| one.file().is_some()).unwrap();
    assert_eq!((long.line, long.length), (2, 100));
    assert_eq!(long.message, "an entry has at most 100 bytes");
    assert!(errors.to_string().len() < 10_000);
}

#[test]
fn files_of_sets_that_cannot_be_read() {
    let folder = Folder::new("none");
    let path = |name: &str| folder.0.join(name);
    let fifo = path("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    std::fs::create_dir_all(path("dir")).unwrap();
    folder.write("binary", b"10.0.0.1\n\xff\n");
    let large = std::fs::File::create(path("large")).unwrap();
    large.set_len(1 << 30).unwrap();
    let rule = "{ saddr: $a, action: drop }";
    let start = Instant::now();
    for (file, expected) in [
        (
            "none",
            "5:14 4 cannot read `none`: No such file or directory (os error 2)",
        ),
        (
            "dir",
            "5:14 3 cannot read `dir`: it is a directory, not a file",
        ),
        (
            "fifo",
            "5:14 4 cannot read `fifo`: it is a pipe, not a file",
        ),
        (
            "socket",
            "5:14 6 cannot read `socket`: it is a socket, not a file",
        ),
        (
            "/dev/zero",
            "5:14 9 cannot read `/dev/zero`: it is a device, not a file",
        ),
        ("binary", "5:14 6 `binary` is not UTF-8 text (line 2)"),
        (
            "large",
            "5:14 5 cannot read `large`: it is larger than 64 MiB",
        ),
        ("[]", "5:14 1 `file` lists nothing"),
    ] {
        assert_eq!(
            folder.told(&format!("a: {{ file: {file} }}"), rule),
            [expected]
        );
    }
    let message = load(&fifo)
        .unwrap_err()
        .iter()
        .next()
        .unwrap()
        .message
        .clone();
    assert!(message.ends_with("it is a pipe, not a file"), "{message}");
    assert!(start.elapsed() < Duration::from_secs(5), "something waited");

    let none = parse("x", &policy("a: { file: f }", rule)).unwrap_err();
    let message = &none.iter().last().unwrap().message;
    assert_eq!(
        message,
        "cannot read `f`: only a policy that is a file itself can name files"
    );
    assert_eq!(
        told("a: { entries: [10.0.0.1] }\nb: { fil: x }", ""),
        [
            "5:6 1 set `a` has no `file`",
            "6:6 1 set `b` has no `file`",
            "6:8 3 unknown key `fil` in set `b`",
        ]
    );
}

#[test]
fn an_empty_file_makes_an_empty_set() {
    let folder = Folder::new("empty");
    folder.write("empty", "# nothing today\n");
    let rules = "{ saddr: $e, action: drop }, { proto: tcp, dport: \"!$e\", action: drop }, { iif: $e, action: drop }";
    let checked = folder.load("e: { file: empty }", rules).unwrap();
    let warnings: Vec<_> = checked
        .warnings
        .iter()
        .map(|one| one.message.as_str())
        .collect();
    assert_eq!(
        warnings[1..],
        ["set `e` is empty: nothing stands in its files"]
    );
    let rules = &checked.model.chains[0].rules;
    assert!(!rules[0].matches.saddr.as_ref().unwrap().set.has_v4());
    assert_eq!(
        rules[1].matches.dport.as_ref().unwrap().ranges(),
        [(0, 65535)]
    );
    assert_eq!(rules[2].matches.iif, Some(0));
}

/// As in nftables: whatever comes is not in it. Else a list of who may pass that is emptied would let
/// everybody pass.
#[test]
fn everything_is_not_in_an_empty_set() {
    let folder = Folder::new("nobody");
    folder.write("empty", "");
    // enough rules that the classifier is asked
    let filler: String = (1..40)
        .map(|n| format!("{{ saddr: 172.16.0.{n}, daddr: \"fd00::{n}\", action: accept }}, "))
        .collect();
    for (key, drops) in [("\"!$e\"", true), ("$e", false)] {
        for side in ["saddr", "daddr"] {
            let rules =
                format!("{filler}{{ name: e, {side}: {key}, action: drop }}, {{ action: accept }}");
            let checked = folder.load("e: { file: empty }", &rules).unwrap();
            let classified = crate::policy::compile(&checked.model, 1, 1);
            let plain = crate::policy::compile(&checked.model, 1, 1).without_classifier();
            assert!(classified.classifier_bytes() > 0);
            for (l3, addrs) in [
                (L3::Ipv4, Addrs::V4 { src: 1, dst: 2 }),
                (L3::Ipv6, Addrs::V6 { src: 1, dst: 2 }),
            ] {
                let packet = Parsed {
                    l3,
                    addrs,
                    ..Parsed::NOTHING
                };
                let facts = Facts {
                    packet: &packet,
                    iif: PortId(0),
                    oif: PortId(1),
                    state: CtState::New,
                    dir: None,
                    flow: None,
                    now: Now::default(),
                };
                for policy in [&classified, &plain] {
                    let rule = policy.forward(0, &facts).rule;
                    let dropped = policy.rule_name(rule) == "forward/e";
                    assert_eq!(dropped, drops, "{side}: {key}, {l3:?}");
                }
            }
        }
    }
}

#[test]
fn a_hundred_thousand_entries_load_quickly() {
    let folder = Folder::new("long");
    let mut text = String::new();
    for n in 0..100_000u32 {
        let _ = match n % 3 {
            0 => writeln!(text, "10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255),
            1 => writeln!(text, "2001:db8:{:x}::/48", n >> 1),
            _ => writeln!(text, "172.{}.{}.0/24", 16 + (n >> 14), n >> 6 & 255),
        };
    }
    folder.write("list", text);
    let start = Instant::now();
    let checked = folder
        .load("a: { file: list }", "{ saddr: $a, action: drop }")
        .unwrap();
    let took = start.elapsed();
    assert!(checked.model.chains[0].rules[0].matches.saddr.is_some());
    assert!(took < Duration::from_secs(2), "{took:?}");
}
