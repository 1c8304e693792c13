//! What is legal and looks wrong: rules that others leave nothing for, rules that never match,
//! helpers that hear nothing, sets that nobody uses, management that is cut off.

use super::*;
use crate::base::hash::HashKey;
use crate::base::tally::Tally;
use crate::policy::random::{self, Dice, Scene};
use crate::policy::{FORWARD, compile};

/// Everything found with these rules in `forward`; the first is in line 8, its name in column 17.
fn rules(bodies: &[&str]) -> Vec<String> {
    let rules: String = bodies
        .iter()
        .map(|body| format!("      - {body}\n"))
        .collect();
    found(&format!("{HEAD}chains:\n  forward:\n    rules:\n{rules}"))
}

#[test]
fn shadowed_rules_are_told_with_what_shadows_them() {
    let first = |what: &str, action: &str| {
        format!(
            "9:17 1 warning: {what}: rule `a` in line 8 ({action}) matches all of its packets first"
        )
    };
    let redundant = |action| first("redundant", action);
    let dead = |action| first("never takes effect", action);
    for (a, b, expected) in [
        (
            "saddr: 10.0.0.0/8, action: drop",
            "saddr: 10.1.2.3, action: drop",
            redundant("drop"),
        ),
        (
            "saddr: 10.0.0.0/8, action: drop",
            "saddr: 10.1.2.3, action: accept",
            dead("drop"),
        ),
        (
            "saddr: 10.0.0.0/8, action: drop",
            "saddr: 10.1.2.3, action: reject",
            dead("drop"),
        ),
        // the same, but for what it does beside
        (
            "ct: new, iif: lan, action: drop",
            "iif: lan, ct: new, log: true, action: drop",
            dead("drop"),
        ),
        (
            "ct: new, iif: lan, action: drop",
            "iif: lan, ct: new, count: x",
            dead("drop"),
        ),
        // out of the other port is in by this one
        (
            "iif: lan, proto: udp, action: return",
            "oif: wan, proto: udp, action: return",
            redundant("return"),
        ),
        (
            "proto: tcp, dport: 1-1023, action: accept",
            "proto: tcp, dport: [22, 80], action: accept",
            redundant("accept"),
        ),
        (
            "proto: [tcp, udp], dport: $web, action: accept",
            "proto: tcp, dport: 443, action: drop",
            dead("accept"),
        ),
        (
            "tcp-flags: \"syn/syn\", action: drop",
            "proto: tcp, tcp-flags: syn, action: drop",
            redundant("drop"),
        ),
        (
            "tcp-flags: [syn, \"rst/rst\", \"fin/fin\"], action: drop",
            "proto: tcp, tcp-flags: [\"rst,ack/rst\", \"syn,fin/fin\"], action: drop",
            redundant("drop"),
        ),
        (
            "family: ipv4, action: drop",
            "saddr: 10.1.2.3, action: drop",
            redundant("drop"),
        ),
        (
            "saddr: 0.0.0.0/0, action: drop",
            "family: ipv4, action: drop",
            redundant("drop"),
        ),
        (
            "saddr: \"!10.0.0.1\", action: drop",
            "saddr: 10.0.0.2-10.0.0.9, action: accept",
            dead("drop"),
        ),
        (
            "icmp-type: \"!echo-request\", action: drop",
            "icmp-type: redirect, proto: icmp, action: drop",
            redundant("drop"),
        ),
        (
            "ct-mark: \"1/1\", action: drop",
            "ct-mark: [3, 5], action: drop",
            redundant("drop"),
        ),
        (
            "ct-helper: \"!ftp\", action: drop",
            "ct-helper: tftp, action: drop",
            redundant("drop"),
        ),
        (
            "ct-status: [assured, seen-reply], action: drop",
            "ct-status: assured, action: drop",
            redundant("drop"),
        ),
        (
            "dscp: [ef, cs1], action: drop",
            "dscp: ef, length: 100, action: drop",
            redundant("drop"),
        ),
        (
            "vlan: 0-100, action: drop",
            "vlan: 7, limit: 5/second, action: drop",
            redundant("drop"),
        ),
        (
            "fragment: true, action: drop",
            "fragment: yes, ct: new, action: drop",
            redundant("drop"),
        ),
        (
            "fragment: \"!false\", action: drop",
            "fragment: [true], ct: new, action: drop",
            redundant("drop"),
        ),
    ] {
        let told = rules(&[
            &format!("{{ name: a, {a} }}"),
            &format!("{{ name: b, {b} }}"),
        ]);
        assert_eq!(told, [expected], "{a} / {b}");
    }
}

#[test]
fn what_gets_past_an_earlier_rule_is_not_shadowed() {
    for (a, b) in [
        (
            "saddr: 10.1.2.3, action: drop",
            "saddr: 10.0.0.0/8, action: drop",
        ),
        // nothing ends, or not always
        (
            "saddr: 10.0.0.0/8, log: true",
            "saddr: 10.1.2.3, action: drop",
        ),
        (
            "saddr: 10.0.0.0/8, limit: 5/second, action: drop",
            "saddr: 10.1.2.3, action: drop",
        ),
        (
            "saddr: 10.0.0.0/8, ct: new, connlimit: 3, action: drop",
            "saddr: 10.1.2.3, ct: new, action: drop",
        ),
        (
            "saddr: 10.0.0.0/8, time: mon, action: drop",
            "saddr: 10.1.2.3, time: mon, action: drop",
        ),
        // a set of IPv4 addresses says nothing of IPv6, negated or not
        (
            "saddr: \"!10.0.0.1\", action: drop",
            "iif: lan, action: drop",
        ),
        ("saddr: 0.0.0.0/0, action: drop", "ct: new, action: drop"),
        (
            "proto: tcp, dport: 0-65535, action: drop",
            "proto: tcp, action: accept",
        ),
        (
            "icmp-type: echo-request/0, proto: icmp, action: drop",
            "icmp-type: echo-request, proto: icmp, action: drop",
        ),
        (
            "tcp-flags: syn, action: drop",
            "tcp-flags: \"syn/syn\", action: drop",
        ),
        (
            "tcp-flags: [\"syn,ack/syn\", \"syn,ack/ack\"], action: drop",
            "tcp-flags: [\"syn,fin/syn\", \"syn,ack/ack\"], action: drop",
        ),
        (
            "ct-helper: \"!ftp\", action: drop",
            "ct-helper: [ftp, tftp], action: drop",
        ),
        (
            "ct-mark: \"!1\", action: drop",
            "ct-mark: [1, 2], action: drop",
        ),
        (
            "iif: lan, proto: udp, action: drop",
            "iif: wan, proto: udp, action: drop",
        ),
    ] {
        let told = rules(&[
            &format!("{{ name: a, {a} }}"),
            &format!("{{ name: b, {b} }}"),
        ]);
        assert_eq!(told, [""; 0], "{a} / {b}");
    }
    // a mark may be another by then
    let marks = [
        "{ name: a, ct-mark: 1, action: drop }",
        "{ name: m, mark: 1 }",
        "{ name: b, ct-mark: 1, action: drop }",
    ];
    assert_eq!(rules(&marks), [""; 0]);
}

#[test]
fn rules_take_packets_together() {
    let told = rules(&[
        "{ name: a, ct: [established, related], action: accept }",
        "{ name: b, iif: lan, ct: [new, untracked], action: accept }",
        "{ name: c, ct: invalid, action: drop }",
        "{ name: d, iif: lan, proto: tcp, dport: 25, action: reject }",
        "{ name: e, iif: wan, proto: tcp, dport: 25, action: reject }",
    ]);
    assert_eq!(
        told,
        [
            "11:17 1 warning: never takes effect: rules `a` in line 8 (accept), `b` in line 9 (accept) \
          and `c` in line 10 (drop) match all of its packets first"
        ]
    );
}

#[test]
fn lists_before_tracking_are_looked_at_too() {
    let text = format!(
        "{HEAD}raw:\n  - {{ name: a, proto: udp, action: notrack }}\n  - {{ name: b, proto: udp, dport: 53, \
         action: accept }}\n  - {{ name: c, action: accept }}\n  - {{ name: d, family: ipv4, action: notrack }}\n\
         helpers:\n  - {{ name: a, helper: ftp, dport: 21 }}\n  - {{ name: b, helper: ftp, dport: 21, \
         saddr: 10.0.0.1, loose: true }}\nchains: {{ forward: {{}} }}\n"
    );
    assert_eq!(
        found(&text),
        [
            "7:13 1 warning: never takes effect: rule `a` in line 6 (notrack) matches all of its packets first",
            "9:13 1 warning: never reached: rule `c` in line 8 matches every packet",
            "12:13 1 warning: never takes effect: rule `a` in line 11 (helper ftp) matches all of its packets first",
        ]
    );
}

#[test]
fn accepting_everything_new_is_told_once() {
    let known = "{ name: known, ct: [established, related], action: accept }";
    let late = "{ name: late, proto: tcp, dport: 25, action: drop }";
    let told = rules(&[known, "{ name: all, ct: new, action: accept }", late]);
    assert_eq!(
        told,
        [
            "9:17 3 warning: accepts everything new that comes this far: rule `late` in line 10 and the \
          policy `drop` behind it decide about nothing new"
        ]
    );
    // of one direction only: the policy still has the other
    let told = rules(&[
        known,
        "{ name: out, iif: lan, ct: new, action: accept }",
        "{ name: smtp, iif: lan, proto: tcp, dport: 25, action: drop }",
        late,
    ]);
    assert_eq!(
        told,
        [
            "9:17 3 warning: accepts everything new that comes this far: rule `smtp` in line 10 behind it \
          decides about nothing new"
        ]
    );
    let told = rules(&["{ name: all, ct: \"!invalid\", action: accept }"]);
    assert_eq!(
        told,
        [
            "8:17 3 warning: accepts everything new that comes this far: the policy `drop` behind it \
          decides about nothing new"
        ]
    );
    let fine = [
        known,
        "{ name: out, iif: lan, ct: new, action: accept }",
        late,
    ];
    assert_eq!(rules(&fine), [""; 0]);
}

#[test]
fn rules_that_never_match_say_why() {
    for (body, expected) in [
        (
            "{ proto: tcp, dport: \"!0-65535\", action: drop }",
            "8:23 5 warning: this rule never matches: `dport` excludes everything",
        ),
        (
            "{ vlan: \"!0-4094\", action: drop }",
            "8:11 4 warning: this rule never matches: `vlan` excludes everything",
        ),
        (
            "{ saddr: \"!0.0.0.0/0\", action: drop }",
            "8:11 5 warning: this rule never matches: `saddr` excludes everything",
        ),
        (
            "{ iif: lan, oif: lan, action: drop }",
            "8:21 3 warning: this rule never matches: no bridge leads from its `iif` to its `oif`",
        ),
        (
            "{ proto: icmp, family: ipv6, icmp-type: echo-request, action: drop }",
            "8:38 9 warning: this rule never matches: its ICMP types are of another family or protocol",
        ),
        (
            "{ saddr: \"fd00::1\", icmp-type: source-quench, action: drop }",
            "8:29 9 warning: this rule never matches: its ICMP types are of another family or protocol",
        ),
        (
            "{ icmp-type: echo-request, tcp-flags: syn, action: drop }",
            "8:11 9 warning: this rule never matches: `tcp-flags` is for TCP",
        ),
        (
            "{ family: ipv6, length: 0-39, action: drop }",
            "8:25 6 warning: this rule never matches: a datagram has at least 40 bytes",
        ),
        (
            "{ ct: new, ct-direction: reply, action: drop }",
            "8:20 12 warning: this rule never matches: what goes the other way is never new",
        ),
        (
            "{ ct: new, ct-status: assured, action: drop }",
            "8:20 9 warning: this rule never matches: a flow that is new has seen no reply",
        ),
        (
            "{ ct: established, ct-status: \"!seen-reply\", action: drop }",
            "8:28 9 warning: this rule never matches: a flow that is established has seen a reply",
        ),
        (
            "{ ct-zone: 7, action: drop }",
            "8:11 7 warning: this rule never matches: no bridge that it is for is in such a zone",
        ),
    ] {
        assert_eq!(rule(body), expected, "{body}");
    }
    let apart = "version: 1\nports: { a: { device: a }, b: { device: b }, c: { device: c }, d: { device: d } }\n\
                 bridge: [[a, b], [c, d]]\nchains: { forward: { rules: [{ iif: a, oif: [c, d], log: true }] } }\n";
    assert_eq!(
        found(apart),
        ["4:40 3 warning: this rule never matches: no bridge leads from its `iif` to its `oif`"]
    );
}

#[test]
fn times_that_never_come_and_those_that_are_over() {
    let text = format!(
        "{HEAD}system: {{ time-zone: UTC }}\nchains:\n  forward:\n    rules:\n      - {{ time: {{ days: mon, \
         from: 2027-01-16, until: 2027-01-17 }}, action: drop }}\n      - {{ time: {{ days: mon, \
         from: 2027-01-16, until: 2027-01-18 }}, action: drop }}\n"
    );
    let mut checked = check("x", &text).unwrap_or_else(|errors| panic!("{errors}"));
    let told = |checked: &Checked| -> Vec<_> {
        let told = checked.warnings.iter().filter(|d| !is_of_head(d));
        told.map(|d| (d.line, d.message.clone())).collect()
    };
    let empty =
        "this rule never matches: between `from` and `until` there are no such days and hours";
    assert_eq!(told(&checked), [(9, empty.to_owned())]);
    // the end of 2027-01-17 is the begin of the 18th
    let over = "this rule never matches again: its time is over";
    checked.warn_of_time(1_800_230_400);
    assert_eq!(
        told(&checked),
        [(9, empty.to_owned()), (9, over.to_owned())]
    );
}

#[test]
fn helpers_that_hear_nothing() {
    let told = |helper: &str, raw: &[&str]| {
        let raw: String = raw.iter().map(|rule| format!("  - {rule}\n")).collect();
        found(&format!(
            "{HEAD}raw:\n{raw}helpers:\n  - {{ name: h, {helper} }}\nchains: {{ forward: {{}} }}\n"
        ))
    };
    let ftp = "helper: ftp, dport: 21";
    let kept = |line: u32, what: &str| {
        format!(
            "{line}:13 1 warning: {what} of this line are kept from tracking by raw rule `n` in line 6"
        )
    };
    let notrack = "{ name: n, proto: tcp, action: notrack }";
    assert_eq!(told(ftp, &[notrack]), [kept(8, "all flows")]);
    let servers = "{ name: n, proto: tcp, daddr: $servers, action: notrack }";
    assert_eq!(told(ftp, &[servers]), [kept(8, "some flows")]);
    let back = "{ name: n, proto: tcp, sport: 21, action: notrack }";
    assert_eq!(told(ftp, &[back]), [kept(8, "the replies to all flows")]);
    let limited = "{ name: n, proto: tcp, limit: 5/second, action: notrack }";
    assert_eq!(told(ftp, &[limited]), [kept(8, "some flows")]);
    // flows from one known port to another are no flows of clients
    let dns = "{ name: n, proto: udp, sport: 53, action: notrack }";
    assert_eq!(told("helper: tftp, dport: 69", &[dns]), [""; 0]);
    let spared = "{ name: s, proto: tcp, dport: 21, action: accept }";
    assert_eq!(told(ftp, &[spared, servers]), [""; 0]);
    assert_eq!(
        told(
            ftp,
            &["{ name: n, proto: tcp, dport: 80, action: notrack }"]
        ),
        [""; 0]
    );
}

#[test]
fn sets_that_nobody_uses() {
    let text = "version: 1\nports: { lan: { device: a }, wan: { device: b } }\nbridge: [[lan, wan]]\n\
                sets: { a: [10.0.0.1], b: [$a], c: [22], d: [lan] }\n\
                chains: { forward: { rules: [{ iif: $d, proto: tcp, dport: 22, action: accept }] } }\n";
    let checked = check("x", text).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(
        checked.render_warnings(),
        "  ⚠ set `b` is never used
   ╭─[x:4:24]
 3 │ bridge: [[lan, wan]]
 4 │ sets: { a: [10.0.0.1], b: [$a], c: [22], d: [lan] }
   ·                        ─
 5 │ chains: { forward: { rules: [{ iif: $d, proto: tcp, dport: 22, action: accept }] } }
   ╰────
  help: rules refer to it as $b

  ⚠ set `c` is never used
   ╭─[x:4:33]
 3 │ bridge: [[lan, wan]]
 4 │ sets: { a: [10.0.0.1], b: [$a], c: [22], d: [lan] }
   ·                                 ─
 5 │ chains: { forward: { rules: [{ iif: $d, proto: tcp, dport: 22, action: accept }] } }
   ╰────
  help: rules refer to it as $c

"
    );
}

#[test]
fn a_shadowed_rule_is_shown_with_what_to_do() {
    let text = "version: 1
ports: { lan: { device: a }, wan: { device: b } }
bridge: [[lan, wan]]
chains:
  forward:
    rules:
      - { name: inside, saddr: 10.0.0.0/8, action: accept }
      - { name: guest, saddr: 10.9.0.0/16, action: drop }
";
    let checked = check("x.yaml", text).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(
        checked.render_warnings(),
        "  ⚠ never takes effect: rule `inside` in line 7 (accept) matches all of its packets first
   ╭─[x.yaml:8:17]
 7 │       - { name: inside, saddr: 10.0.0.0/8, action: accept }
 8 │       - { name: guest, saddr: 10.9.0.0/16, action: drop }
   ·                 ─────
   ╰────
  help: move it before rule `inside`, or let that match less

"
    );
}

/// A policy whose management line is `line`, over `rules`; what is told of it.
fn managed(line: &str, raw: &str, rules: &[&str]) -> Vec<String> {
    let rules: String = rules
        .iter()
        .map(|body| format!("      - {body}\n"))
        .collect();
    found(&format!(
        "{HEAD}system: {{ management: [{line}] }}\nraw: [{raw}]\nchains:\n  forward:\n    rules:\n{rules}"
    ))
}

#[test]
fn management_that_would_be_cut_off_is_told() {
    let line =
        "{ name: ssh, iif: lan, saddr: 10.0.0.0/24, daddr: 10.2.0.5, proto: tcp, dport: 22 }";
    let known = "{ name: known, ct: established, action: accept }";
    let ssh = "{ name: ssh, iif: lan, ct: new, proto: tcp, dport: 22, action: accept }";
    assert_eq!(managed(line, "", &[known, ssh]), [""; 0]);
    let cut = |by: &str| format!("5:32 3 warning: this policy cuts off management `ssh`: {by}");
    let policy = "the policy of `forward`";
    let begin = "does not let it begin";
    assert_eq!(
        managed(line, "", &[known]),
        [cut(&format!("{policy} {begin}"))]
    );
    // the last address of the range only
    let some = "{ name: some, saddr: 10.0.0.0/25, proto: tcp, dport: 22, action: accept }";
    assert_eq!(
        managed(line, "", &[known, some]),
        [cut(&format!("{policy} {begin}"))]
    );
    let deny = "{ name: deny, saddr: 10.0.0.255, action: reject }";
    assert_eq!(
        managed(line, "", &[known, deny, ssh]),
        [cut(&format!("rule `forward/deny` in line 11 {begin}"))]
    );
    // it could begin, and get no answer
    assert_eq!(
        managed(line, "", &[ssh]),
        [cut(&format!("{policy} drops its replies"))]
    );
    let replies = "{ name: known, ct: established, ct-direction: reply, action: accept }";
    assert_eq!(
        managed(line, "", &[replies, ssh]),
        [cut(&format!(
            "{policy} drops what follows its first packet"
        ))]
    );
    // by the mark that its first packet left
    let marking =
        "{ name: ssh, iif: lan, ct: new, proto: tcp, dport: 22, mark: 7, action: accept }";
    let marked = "{ name: marked, ct-mark: 7, action: accept }";
    assert_eq!(managed(line, "", &[marked, marking]), [""; 0]);
    // whatever is not known is no reason to warn
    let limited = "{ name: ssh, proto: tcp, dport: 22, limit: 5/second, action: accept }";
    assert_eq!(managed(line, "", &[known, limited]), [""; 0]);
    // untracked both ways
    let raw =
        "{ proto: tcp, dport: 22, action: notrack }, { proto: tcp, sport: 22, action: notrack }";
    assert_eq!(
        managed(line, raw, &["{ ct: untracked, action: accept }"]),
        [""; 0]
    );
    assert_eq!(
        managed(line, raw, &["{ ct: untracked, iif: lan, action: accept }"]),
        [cut(&format!("{policy} drops its replies"))]
    );
    let ping = "{ name: ssh, daddr: [10.2.0.5, \"fd00::5\"], proto: [icmp, icmpv6] }";
    assert_eq!(
        managed(
            ping,
            "",
            &[known, "{ proto: [icmp, icmpv6], action: accept }"]
        ),
        [""; 0]
    );
    assert_eq!(
        managed(ping, "", &[known, "{ proto: icmp, action: accept }"]),
        [cut(&format!("{policy} {begin}"))]
    );
}

#[test]
fn management_lines_are_checked_like_rules() {
    assert_eq!(
        managed(
            "{ dport: 22, ifi: lan }",
            "",
            &["{ ct: new, action: accept }"]
        ),
        [
            "5:26 5 `dport` needs a protocol that has ports",
            "5:26 5 a management line needs a `proto`",
            "5:37 3 unknown key `ifi` in a management line",
        ]
    );
    let checked = check(
        "x",
        &format!(
            "{HEAD}system: {{ management: [{{ proto: udp, dport: 161 }}] }}\nchains: {{ forward: {{}} }}\n"
        ),
    );
    let warnings = checked.unwrap().warnings;
    let told = warnings
        .iter()
        .find(|d| d.message.contains("management"))
        .unwrap();
    assert_eq!(
        told.help.as_deref(),
        Some("for example udp 198.51.100.1:50000 > 203.0.113.1:161 that comes in by `lan`")
    );
}

/// No false alarm: a rule that is told to be left nothing counts no packet, of random policies and
/// random packets. And there are such rules.
#[test]
fn shadowed_rules_count_nothing() {
    let (mut told, mut shadowing) = (0, 0);
    for seed in 0..4000 {
        let mut dice = Dice::new(seed);
        let text = random::policy(&mut dice, seed % 2 == 0);
        let checked = parse("random.yaml", &text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let shadowed: Vec<_> = checked
            .warnings
            .iter()
            .filter(|d| {
                let starts = ["redundant: ", "never takes effect: ", "never reached: "];
                starts.iter().any(|start| d.message.starts_with(start))
            })
            .map(|d| d.line)
            .collect();
        if shadowed.is_empty() {
            continue;
        }
        told += shadowed.len();
        let compiled = compile(&checked.model, 1, 1);
        let tally = Tally::new(1000, HashKey::from_seed(seed)).unwrap();
        for _ in 0..400 {
            let scene = Scene::any(&mut dice, &compiled);
            compiled.raw(0, &scene.facts(None));
            let flow = scene.flow_facts(&tally);
            compiled.forward(0, &scene.facts(flow.as_ref()));
            compiled.helper(0, &scene.facts(None));
        }
        let model = &checked.model;
        let chains = model.chains.iter().flat_map(|chain| &chain.rules);
        let lines = chains
            .chain(&model.raw)
            .chain(&model.helpers)
            .map(|rule| rule.line);
        let counted = compiled
            .rules()
            .filter(|rule| (rule.chain, rule.name) != (FORWARD, "policy"));
        for (rule, line) in counted.zip(lines) {
            if shadowed.contains(&line) {
                assert_eq!(rule.packets, 0, "seed {seed}, line {line}:\n{text}");
            } else {
                shadowing += rule.packets;
            }
        }
    }
    assert!(told > 500, "{told}");
    assert!(shadowing > 100_000, "{shadowing}");
}
