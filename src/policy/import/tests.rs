//! Rule sets as people have them, through the import: the text that comes out, and what the policy
//! says of packets.

mod packets;

use super::*;
use proptest::prelude::*;
use std::path::{Path, PathBuf};

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples/import")
}

fn sample(name: &str) -> String {
    std::fs::read_to_string(samples().join(name)).unwrap()
}

fn language(name: &str) -> Language {
    if name.ends_with(".nft") {
        Language::Nft
    } else {
        Language::IptablesSave
    }
}

/// Imports, and holds the import to what it promises.
fn imported(name: &str, text: &str, hook: Hook) -> Imported {
    let imported = import(name, text, language(name), hook);
    if let Err(errors) = crate::policy::parse(name, &imported.policy) {
        panic!("{errors}\n{}", imported.policy);
    }
    imported
}

/// The policy, and what was not taken, as a file.
fn report(imported: &Imported) -> String {
    let lines = |kind: &str, list: &[Left]| -> String {
        let line = |one: &Left| {
            format!(
                "# {kind} {}: {}\n#   {} ({})\n",
                one.line, one.text, one.why, one.effect
            )
        };
        list.iter().map(line).collect()
    };
    let Imported {
        policy,
        left,
        notes,
        ..
    } = imported;
    format!("{policy}\n{}{}", lines("note", notes), lines("left", left))
}

fn golden(name: &str, hook: Hook) -> Imported {
    let imported = imported(name, &sample(name), hook);
    let path = samples().join(format!("{name}.{}.yaml", hook.name()));
    let report = report(&imported);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, report).unwrap();
    } else {
        let want = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            report == want,
            "{} is stale: run UPDATE_DOCS=1 cargo test --lib import\n{report}",
            path.display()
        );
    }
    imported
}

#[test]
fn tutorials_import_completely() {
    for name in ["tutorial.iptables", "office.nft", "families.nft"] {
        let imported = golden(name, Hook::Forward);
        let left: Vec<_> = imported
            .left
            .iter()
            .filter(|left| !left.why.contains("--hook"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn what_is_not_taken_is_said_by_line() {
    golden("host.iptables", Hook::Forward);
    let host = golden("host.iptables", Hook::Input);
    let lines: Vec<_> = host
        .left
        .iter()
        .filter(|left| left.effect == "looser")
        .map(|left| left.line)
        .collect();
    // recent and ipset: rules that dropped
    let text = sample("host.iptables");
    let at = |what: &str| text.lines().position(|line| line.contains(what)).unwrap() as u32 + 1;
    assert_eq!(lines, [at("-m recent"), at("--match-set")]);
}

fn nft(rules: &str) -> Imported {
    let text = format!(
        "table inet t {{\n chain c {{\n type filter hook forward priority 0; policy drop;\n{rules}\n}}\n}}\n"
    );
    imported("t.nft", &text, Hook::Forward)
}

fn iptables(rules: &str) -> Imported {
    let text = format!("*filter\n:FORWARD ACCEPT [0:0]\n:user - [0:0]\n{rules}\nCOMMIT\n");
    imported("t.iptables", &text, Hook::Forward)
}

/// The rules of `forward` but for that about the other family, without their braces.
fn rules(imported: &Imported) -> Vec<&str> {
    let lines = imported.policy.lines().map(str::trim);
    let rules = lines.filter_map(|line| line.strip_prefix("- { ")?.strip_suffix(" }"));
    rules
        .filter(|rule| !rule.starts_with("name: no-ipv"))
        .collect()
}

#[test]
fn every_nft_match_becomes_ours() {
    for (rule, ours) in [
        (
            "ct state established,related accept",
            "ct: [established, related], action: accept",
        ),
        (
            "ct state established | related accept",
            "ct: [established, related], action: accept",
        ),
        (
            "ct state != { established, related } drop",
            "ct: [new, invalid, untracked], action: drop",
        ),
        ("ct state != established,related drop", "action: drop"),
        (
            "ct state ! invalid accept",
            "ct: [new, established, related, untracked], action: accept",
        ),
        (
            "tcp flags syn accept",
            "proto: tcp, tcp-flags: syn/syn, action: accept",
        ),
        (
            "tcp flags syn,ack accept",
            "proto: tcp, tcp-flags: \"!syn,ack/none\", action: accept",
        ),
        (
            "tcp flags != syn accept",
            "proto: tcp, tcp-flags: \"!fin,syn,rst,psh,ack,urg,ecn,cwr/syn\", action: accept",
        ),
        (
            "tcp flags ! syn,ack accept",
            "proto: tcp, tcp-flags: \"syn,ack/none\", action: accept",
        ),
        (
            "tcp flags syn / fin,syn,rst,ack accept",
            "proto: tcp, tcp-flags: syn, action: accept",
        ),
        (
            "tcp flags & (fin|syn|rst|ack) != syn drop",
            "proto: tcp, tcp-flags: \"!syn\", action: drop",
        ),
        (
            "tcp flags & (syn|fin) == (syn|fin) drop",
            "proto: tcp, tcp-flags: \"fin,syn/fin,syn\", action: drop",
        ),
        (
            "tcp flags { syn, syn | ack } accept",
            "proto: tcp, tcp-flags: [\"fin,syn,rst,psh,ack,urg,ecn,cwr/syn\", \
             \"fin,syn,rst,psh,ack,urg,ecn,cwr/syn,ack\"], action: accept",
        ),
        (
            "tcp flags & (syn | rst) == { syn, fin, rst } drop",
            "proto: tcp, tcp-flags: [\"syn,rst/syn\", \"syn,rst/rst\"], action: drop",
        ),
        (
            "tcp flags & (syn | ack) { ack } accept",
            "proto: tcp, tcp-flags: \"syn,ack/ack\", action: accept",
        ),
        (
            "tcp flags & (syn | ack) != { ack } accept",
            "proto: tcp, tcp-flags: \"!syn,ack/ack\", action: accept",
        ),
        (
            "tcp dport >= 1024 accept",
            "proto: tcp, dport: 1024-65535, action: accept",
        ),
        (
            "udp dport { domain, 123-124 } accept",
            "proto: udp, dport: [53, 123-124], action: accept",
        ),
        (
            "meta l4proto { tcp, udp } th dport 53 accept",
            "proto: [tcp, udp], dport: 53, action: accept",
        ),
        (
            "ip protocol gre accept",
            "family: ipv4, proto: gre, action: accept",
        ),
        ("meta nfproto ipv6 drop", "family: ipv6, action: drop"),
        (
            "ip saddr != 10.0.0.0/8 drop",
            "saddr: \"!10.0.0.0/8\", action: drop",
        ),
        (
            "ip6 daddr fd00::1 accept",
            "daddr: \"fd00::1\", action: accept",
        ),
        (
            "icmp type destination-unreachable icmp code { frag-needed, 1 } accept",
            "family: ipv4, proto: icmp, icmp-type: [destination-unreachable/4, destination-unreachable/1], action: accept",
        ),
        (
            "vlan id 5 ip dscp { ef, 0x05 } accept",
            "family: ipv4, dscp: [ef, 5], vlan: 5, action: accept",
        ),
        (
            "ct mark & 0xff != 0x1 accept",
            "ct-mark: \"!0x1/0xff\", action: accept",
        ),
        (
            "ct mark set ct mark & 0xffffff01 | 0x00000001",
            "mark: \"0x1/0xff\"",
        ),
        (
            "ct count over 10 drop",
            "connlimit: \"over 10 per rule\", action: drop",
        ),
        (
            "ct status seen-reply,assured accept",
            "ct-status: [seen-reply, assured], action: accept",
        ),
        (
            "ct direction reply ct zone 7 accept",
            "ct-direction: reply, ct-zone: 7, action: accept",
        ),
        (
            "tcp dport 22 reject",
            "proto: tcp, dport: 22, action: { reject: icmp-port-unreachable }",
        ),
        (
            "reject with tcp reset",
            "proto: tcp, action: { reject: tcp-reset }",
        ),
        (
            "reject with icmpv6 type addr-unreachable",
            "family: ipv6, action: { reject: host-unreachable }",
        ),
        (
            "limit rate 3/minute log prefix \"x: \" flags all",
            "limit: \"3/minute burst 5\", log: { prefix: \"x:\" }",
        ),
        (
            "meta hour \"08:00\"-\"18:00\" accept",
            "time: \"08:00-18:00:01\", action: accept",
        ),
        (
            "meta day { \"Monday\", \"Saturday\", 0 } meta hour != { \"00:00\"-\"06:00\", \"12:00\"-\"23:59:59\" } drop",
            "time: \"mon,sat,sun 06:00:01-12:00\", action: drop",
        ),
        // as nft writes it, and as it lists it then
        (
            "meta day 1-5 meta hour \"22:00\"-\"06:00\" accept",
            "time: \"mon-fri 00:00-06:00, 22:00:01-24:00\", action: accept",
        ),
        (
            "meta hour != \"06:00\"-\"22:00\" accept",
            "time: \"00:00-06:00, 22:00:01-24:00\", action: accept",
        ),
        ("meta day != \"Sunday\" drop", "time: mon-sat, action: drop"),
        (
            "counter packets 3 bytes 4 drop comment \"a \u{7}b: c\"",
            "action: drop, comment: \"a  b: c\"",
        ),
    ] {
        let imported = nft(rule);
        assert_eq!(rules(&imported), [ours], "{rule}\n{}", report(&imported));
        assert!(imported.left.is_empty(), "{rule}: {:?}", imported.left);
    }
}

#[test]
fn every_iptables_match_becomes_ours() {
    for (rule, ours) in [
        (
            "-s 10.0.0.0/255.255.0.0 ! -d 10.0.0.1/32 -j DROP",
            "saddr: 10.0.0.0/16, daddr: \"!10.0.0.1\", action: drop",
        ),
        (
            "-s ! 10.0.0.0/8 -j DROP",
            "saddr: \"!10.0.0.0/8\", action: drop",
        ),
        (
            "-p tcp --dport ! 22 -j DROP",
            "proto: tcp, dport: \"!22\", action: drop",
        ),
        ("! -p 47 -j DROP", "proto: \"!gre\", action: drop"),
        (
            "-p tcp -m multiport --sports 1:5,http -j ACCEPT",
            "proto: tcp, sport: [1-5, 80], action: accept",
        ),
        (
            "-p tcp --tcp-flags ALL NONE -j DROP",
            "proto: tcp, tcp-flags: \"fin,syn,rst,psh,ack,urg/none\", action: drop",
        ),
        (
            "-p tcp ! --syn -m state --state NEW -j DROP",
            "proto: tcp, tcp-flags: \"!syn\", ct: new, action: drop",
        ),
        (
            "-m state ! --state INVALID,NEW -j ACCEPT",
            "ct: [established, related, untracked], action: accept",
        ),
        (
            "-m conntrack ! --ctdir REPLY -j ACCEPT",
            "ct-direction: original, action: accept",
        ),
        (
            "-m conntrack --ctstatus ASSURED,EXPECTED -j ACCEPT",
            "ct-status: [assured, expected], action: accept",
        ),
        (
            "-p icmp --icmp-type port-unreachable -j ACCEPT",
            "proto: icmp, icmp-type: destination-unreachable/3, action: accept",
        ),
        (
            "-p icmp -m icmp --icmp-type any -j ACCEPT",
            "proto: icmp, action: accept",
        ),
        (
            "-m limit --limit 3/min -j LOG --log-prefix \"a b \"",
            "limit: \"3/minute burst 5\", log: { prefix: \"a b\" }",
        ),
        (
            "-m connmark --mark 1/0xf -j RETURN",
            "ct-mark: 1/0xf, action: return",
        ),
        ("-j CONNMARK --set-mark 0x4", "mark: 0x4"),
        (
            "-p tcp -m connlimit --connlimit-above 3 --connlimit-mask 24 -j DROP",
            "proto: tcp, connlimit: \"over 3 per source/24\", action: drop",
        ),
        (
            "-p tcp -m hashlimit --hashlimit-upto 10/sec --hashlimit-mode srcip --hashlimit-srcmask 24 --hashlimit-name a -j ACCEPT",
            "proto: tcp, limit: \"10/second burst 5 per source/24\", action: accept",
        ),
        (
            "-m hashlimit --hashlimit 3/min --hashlimit-burst 9 --hashlimit-mode dstip --hashlimit-name a -j ACCEPT",
            "limit: \"3/minute burst 9 per destination\", action: accept",
        ),
        (
            "-m hashlimit ! --hashlimit-above 7/hour --hashlimit-name a -j RETURN",
            "limit: \"7/hour burst 5\", action: return",
        ),
        (
            "-m time --timestart 08:00 --timestop 17:00 --weekdays Mon,Tue,Wed,Thu,Fri -j ACCEPT",
            "time: \"mon-fri 08:00-17:00:01\", action: accept",
        ),
        (
            "-m time --timestart 22:00:30 ! --weekdays 6,7 -j ACCEPT",
            "time: \"mon-fri 22:00:30-24:00\", action: accept",
        ),
        (
            "-m time --timestart 22:00 --timestop 06:00 --weekdays Fri -j DROP",
            "time: \"fri 00:00-06:00:01, 22:00-24:00\", action: drop",
        ),
        (
            "-m time --timestart 22:00 --timestop 06:00 --contiguous --weekdays Fri -j DROP",
            "time: \"fri 22:00-06:00:01\", action: drop",
        ),
        (
            "-m time --weekdays Sat --datestart 2026-12-01T00:00:00 --datestop 2027-01-15T12:00:00 -j DROP",
            "time: { days: [sat], from: \"2026-12-01 00:00\", until: \"2027-01-15 12:00:01\" }, action: drop",
        ),
        (
            "-m time --timestart 00:00 --timestop 23:59:59 -j DROP",
            "action: drop",
        ),
        (
            "-m tos --tos 0xb8/0xfc -j ACCEPT",
            "dscp: ef, action: accept",
        ),
        (
            "-m physdev --physdev-in eth3 --physdev-is-bridged -j ACCEPT",
            "iif: eth3, action: accept",
        ),
        (
            "-p udp -j REJECT",
            "proto: udp, action: { reject: icmp-port-unreachable }",
        ),
        (
            "-m comment --comment \"it's \\\"so\\\"\" -j ACCEPT",
            "action: accept, comment: \"it's \\\"so\\\"\"",
        ),
    ] {
        let imported = iptables(&format!("-A FORWARD {rule}"));
        assert_eq!(rules(&imported), [ours], "{rule}\n{}", report(&imported));
        assert!(imported.left.is_empty(), "{rule}: {:?}", imported.left);
    }
}

#[test]
fn what_is_not_understood_leaves_its_whole_rule_out() {
    for (rule, effect) in [
        ("-m u32 --u32 0 -j ACCEPT", "stricter"),
        ("-p tcp -m owner --uid-owner 0 --dport 22 -j DROP", "looser"),
        ("-s example.org -j REJECT", "looser"),
        ("-m mark --mark 1 -j user", "unclear"),
        ("-f -j ACCEPT", "stricter"),
        ("-j NFQUEUE --queue-num 0", "unclear"),
        ("-m statistic --mode random -j LOG", "none"),
        (
            "-d 10.0.0.1 -m iprange --dst-range 10.0.0.0-10.0.0.9 -j DROP",
            "looser",
        ),
        (
            "-m hashlimit --hashlimit-upto 1/s --hashlimit-mode srcip,dstport --hashlimit-name a -j ACCEPT",
            "stricter",
        ),
        (
            "-m hashlimit --hashlimit-above 512kb/s --hashlimit-mode srcip --hashlimit-name a -j DROP",
            "looser",
        ),
        (
            "-p tcp -m multiport --ports 1,2 -m hashlimit --hashlimit-above 1/s --hashlimit-name a -j DROP",
            "looser",
        ),
        (
            "-m hashlimit --hashlimit-above 1/s --hashlimit-name a -j RETURN",
            "unclear",
        ),
        (
            "-m conntrack --ctstate INVALID --ctdir REPLY -j DROP",
            "looser",
        ),
        ("-m time --timestart 08:00 --kerneltz -j ACCEPT", "stricter"),
        ("-m time --monthdays 1,15 -j DROP", "looser"),
        ("-m time --timestart 24:00 -j ACCEPT", "stricter"),
    ] {
        let imported = iptables(&format!("-A FORWARD {rule}"));
        assert!(rules(&imported).is_empty(), "{rule}: {}", imported.policy);
        let effects: Vec<_> = imported
            .left
            .iter()
            .map(|left| (left.line, left.effect))
            .collect();
        assert_eq!(effects, [(4, effect)], "{rule}: {:?}", imported.left);
        assert!(
            imported.policy.contains("# NOT TAKEN, line 4: -A FORWARD"),
            "{}",
            imported.policy
        );
        assert_eq!(
            imported.policy.contains("WITHOUT IT MORE MAY PASS"),
            imported.left[0].widens()
        );
    }
    for (rule, effect) in [
        ("meta mark 1 accept", "stricter"),
        ("ip saddr . tcp dport { 10.0.0.1 . 22 } drop", "looser"),
        ("ip saddr @nowhere drop", "looser"),
        ("tcp dport $ports accept", "stricter"),
        ("log prefix \"all\" tcp dport 22 drop", "looser"),
        ("limit rate 10 mbytes/second accept", "stricter"),
        ("queue num 0", "unclear"),
        ("add @seen { ip saddr } drop", "looser"),
        ("jump nowhere", "unclear"),
        ("accept drop", "looser"),
        ("ct status != assured accept", "stricter"),
        ("tcp dport vmap { 22 : queue } ", "unclear"),
        ("meta hour >= \"08:00\" accept", "stricter"),
        ("meta hour != \"22:00\"-\"06:00\" drop", "looser"),
        ("meta day 7 accept", "stricter"),
        ("meta day \"Friday\"-\"Sunday\" drop", "looser"),
        ("meta time >= \"2026-12-01\" accept", "stricter"),
        ("counter name nowhere drop", "looser"),
    ] {
        let imported = nft(rule);
        assert!(rules(&imported).is_empty(), "{rule}: {}", imported.policy);
        let effects: Vec<_> = imported
            .left
            .iter()
            .map(|left| (left.line, left.effect))
            .collect();
        assert_eq!(effects, [(4, effect)], "{rule}: {:?}", imported.left);
    }
}

#[test]
fn what_exceeds_a_hashlimit_is_in_a_chain_of_its_own() {
    let rule = "-p tcp --dport 22 -m hashlimit --hashlimit-above 5/min --hashlimit-mode srcip --hashlimit-name a -j LOG --log-prefix fast";
    let imported = iptables(&format!("-A FORWARD {rule}"));
    assert_eq!(
        rules(&imported),
        [
            "proto: tcp, dport: 22, jump: over-4",
            "limit: \"5/minute burst 5 per source\", action: return",
            "log: { prefix: \"fast\" }",
        ]
    );
    // buckets that two rules share cannot be; of the other family they are others
    let two = iptables(&format!(
        "-A FORWARD {rule}\n-A FORWARD -j user\n-A user {rule}"
    ));
    let left: Vec<_> = two.left.iter().map(|left| left.line).collect();
    assert_eq!(left, [4, 6]);
    let why = "another rule has a `hashlimit` of this name, and so shares its buckets";
    assert!(two.left.iter().all(|left| left.why == why), "{two:?}");
    let text = |family: &str| {
        format!("# Generated by {family}-save\n*filter\n-A FORWARD {rule}\nCOMMIT\n")
    };
    let both = text("iptables") + &text("ip6tables");
    assert_eq!(imported_of(&both).left, []);
}

fn imported_of(text: &str) -> Imported {
    imported("t.iptables", text, Hook::Forward)
}

/// A burst that takes longer to come back than the kernel remembers an address.
#[test]
fn what_the_kernel_forgets_is_noted() {
    for (rate, noted) in [
        ("5/min --hashlimit-burst 5", None),
        ("5/min --hashlimit-burst 6", Some((60, 72))),
        (
            "5/min --hashlimit-burst 6 --hashlimit-htable-expire 72000",
            None,
        ),
        (
            "5/min --hashlimit-burst 5 --hashlimit-htable-expire 10000",
            Some((10, 60)),
        ),
    ] {
        let rule = format!(
            "-m hashlimit --hashlimit-upto {rate} --hashlimit-mode srcip --hashlimit-name a -j ACCEPT"
        );
        let imported = iptables(&format!("-A FORWARD {rule}"));
        let notes = imported.notes.iter().map(|note| note.why.as_str());
        let notes: Vec<_> = notes.filter(|why| why.contains("silent")).collect();
        let want = noted.map(|(expire, refill)| {
            format!("who was silent for {expire} s had a full burst again; here a burst of that size takes {refill} s")
        });
        assert_eq!(notes, Vec::from_iter(want.as_deref()), "{rate}");
    }
}

#[test]
fn only_iptables_times_are_in_utc() {
    let utc = "system: { time-zone: UTC }";
    assert!(
        iptables("-A FORWARD -m time --weekdays Mon -j DROP")
            .policy
            .contains(utc)
    );
    assert!(!iptables("-A FORWARD -j DROP").policy.contains(utc));
    assert!(!nft("meta day Monday drop").policy.contains(utc));
}

#[test]
fn named_counters_are_fed() {
    let text = "table inet t {
 counter refused { packets 3 bytes 4; }
 counter yes { }
 chain c {
 type filter hook forward priority 0;
 tcp dport 22 counter name \"refused\" drop
 counter name refused
 counter name \"yes\" log prefix \"x\"
 counter name \"refused\" tcp dport 23 drop
 tcp dport 24 counter name \"refused\" limit rate 1/second drop
 tcp dport 25 limit rate over 1/second counter name \"refused\" drop
 }
}
add counter ip u refused
add rule ip u d counter name refused accept
add chain ip u d { type filter hook forward priority 1; }
";
    let imported = imported("t.nft", text, Hook::Forward);
    assert_eq!(imported.left, []);
    let rules = rules(&imported);
    for rule in [
        "proto: tcp, dport: 22, count: refused, action: drop",
        "count: refused",
        "log: { prefix: \"x\" }, count: yes-2",
        "proto: tcp, dport: 23, action: drop",
        "proto: tcp, dport: 24, limit: \"1/second burst 5\", action: drop",
        "proto: tcp, dport: 25, jump: over-11",
        "count: refused, action: drop",
        "count: refused-2, action: accept",
    ] {
        let found = rules
            .iter()
            .any(|found| *found == rule || found.ends_with(&format!(", {rule}")));
        assert!(found, "{rule}\n{}", imported.policy);
    }
    let why = "counter refused stood before a match, and is not fed by this rule";
    let noted: Vec<_> = imported
        .notes
        .iter()
        .filter(|note| note.why == why)
        .collect();
    let lines: Vec<_> = noted.iter().map(|note| note.line).collect();
    assert_eq!(lines, [9, 10]);
}

#[test]
fn the_checker_has_the_last_word() {
    // a loop, more counts than a policy may have, and more interfaces than a box has ports
    let looped = imported(
        "t.iptables",
        "*filter\n:FORWARD DROP\n:a -\n:b -\n-A FORWARD -j a\n-A a -j b\n-A b -j a\nCOMMIT\n",
        Hook::Forward,
    );
    assert_eq!(looped.left.len(), 1);
    assert!(looped.left[0].why.contains("loop"), "{:?}", looped.left);
    let counts: String = (0..12)
        .map(|n| {
            format!("-A FORWARD -p tcp --dport {n} -m connlimit --connlimit-above 3 -j DROP\n")
        })
        .collect();
    let counted = iptables(&counts);
    assert_eq!((counted.rules, counted.left.len()), (9, 4));
    let many: String = (0..80)
        .map(|n| format!("-A FORWARD -i e{n} -j DROP\n"))
        .collect();
    let many = iptables(&many);
    assert_eq!((many.rules, many.left.len()), (65, 16));
    assert!(many.left.iter().all(Left::widens));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn any_words_make_a_policy_that_is_valid(
        words in prop::collection::vec(prop::sample::select(WORDS.to_vec()), 0..60),
        odd in ".{0,8}",
    ) {
        let text = format!("{} {odd}\n", words.join(" "));
        for (name, before) in [("a.iptables", "*filter\n"), ("b.iptables", "*raw\n"), ("c.nft", ""), ("d.nft", "table inet t { chain c { type filter hook forward priority 0;")] {
            imported(name, &format!("{before}{text}"), Hook::Forward);
        }
    }
}

/// Words of both languages.
const WORDS: &[&str] = &[
    "\n",
    "\n",
    "\n-A FORWARD",
    "\n-A FORWARD",
    "-A a",
    ":a -",
    ":FORWARD DROP",
    "COMMIT",
    "*filter",
    "*raw",
    "!",
    "-s",
    "-p tcp",
    "-p",
    "-j ACCEPT",
    "-j DROP",
    "-j a",
    "-g a",
    "-j REJECT",
    "-j LOG",
    "--log-prefix",
    "\"",
    "--dport",
    "22",
    "--dports 1,2",
    "--ports 1,2",
    "-i",
    "-i e+",
    "lo",
    "-m state --state NEW",
    "--ctstate",
    "--limit 1/s",
    "--tcp-flags",
    "SYN",
    "ALL NONE",
    "-j NOTRACK",
    "-A PREROUTING",
    "-A OUTPUT",
    "10.0.0.0/8",
    "fd00::/8",
    "0.0.0.0/0",
    "-",
    "/",
    "table inet t {",
    "chain c {",
    "chain d {",
    "}",
    "{",
    ";",
    "type filter hook forward priority",
    "type filter hook prerouting priority raw;",
    "policy drop;",
    "policy accept;",
    "jump d",
    "goto d",
    "jump c",
    "accept",
    "drop",
    "reject",
    "return",
    "tcp dport",
    "ip saddr",
    "ct state",
    "vmap",
    ":",
    ",",
    "established",
    "new",
    "@s",
    "set s {",
    "type ipv4_addr;",
    "elements = {",
    "define x =",
    "$x",
    "!=",
    "tcp flags",
    "syn",
    "&",
    "|",
    "==",
    "limit rate over 1/second",
    "-m time --timestart 08:00",
    "--weekdays",
    "Mon,Tue",
    "--timestop",
    "06:00",
    "--datestop 2026-12",
    "-m hashlimit --hashlimit-upto 1/s",
    "--hashlimit-above 2/min",
    "--hashlimit-mode srcip",
    "--hashlimit-srcmask",
    "--hashlimit-name n",
    "meta hour",
    "\"08:00\"-\"18:00\"",
    "meta day",
    "Monday",
    "counter x { }",
    "counter name x",
    "log prefix",
    "counter",
    "iifname",
    "\"eth*\"",
    "icmp type",
    "echo-request",
    "notrack",
    "table ip6 u {",
    "table ip v {",
    "ct mark set 1",
    "meta l4proto",
    "th sport",
    "tcp",
    "\\",
];
