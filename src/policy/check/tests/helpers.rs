//! Helper lines, and what rules ask about helpers and zones.

use super::*;
use crate::conntrack::helper::{HelperId, Permissions};
use crate::policy::compile;
use crate::policy::model::{Family, Helper, HelperMatch, Rule};

/// Everything found with one helper line; it begins in column 4 of line 6.
fn line(body: &str) -> Vec<String> {
    found(&format!(
        "{HEAD}helpers:\n - {body}\nchains: {{ forward: {{}} }}\n"
    ))
}

fn helps(text: &str) -> Vec<String> {
    let all = |found: &mut dyn Iterator<Item = &Diagnostic>| {
        let found = found.filter(|d| !is_of_head(d));
        found.filter_map(|d| d.help.clone()).collect::<Vec<_>>()
    };
    match check("test.yaml", text) {
        Ok(checked) => all(&mut checked.warnings.iter()),
        Err(errors) => all(&mut errors.iter()),
    }
}

#[test]
fn lines_that_are_wrong() {
    for (body, expected) in [
        (
            "{ helper: ftpd, proto: tcp, dport: 21 }",
            "6:14 4 unknown helper `ftpd`",
        ),
        (
            "{ helper: [ftp, irc], proto: tcp, dport: 21 }",
            "6:14 1 `helper` must be a single value, not a list",
        ),
        ("{ helper: , dport: 21 }", "6:6 6 `helper` has no value"),
        ("{ dport: 21 }", "6:4 1 helper line has no `helper`"),
        (
            "ftp",
            "6:4 3 a helper line must be a mapping, not a single value",
        ),
        (
            "{ helper: ftp, proto: udp, dport: 21 }",
            "6:26 3 `ftp` listens to tcp only",
        ),
        (
            "{ helper: tftp, proto: [udp, tcp], dport: 69 }",
            "6:27 1 `tftp` listens to udp only",
        ),
        (
            "{ helper: sip, proto: [udp, tcp, sctp], dport: 5060 }",
            "6:26 1 `sip` listens to udp and tcp only",
        ),
        (
            "{ helper: tftp, proto: \"!tcp\", daddr: $servers }",
            "6:27 6 `tftp` listens to udp only",
        ),
        (
            "{ helper: ftp, proto: tpc, dport: 21 }",
            "6:26 3 unknown protocol `tpc`",
        ),
        (
            "{ helper: irc, family: ipv6, dport: 6667 }",
            "6:27 4 `irc` listens to IPv4 only",
        ),
        (
            "{ helper: irc, daddr: [\"fd00::1\", \"fd00::2\"] }",
            "6:26 1 `irc` listens to IPv4 only",
        ),
        (
            "{ helper: irc, saddr: \"!fd00::/8\", dport: 6667 }",
            "6:26 11 `irc` listens to IPv4 only",
        ),
        (
            "{ helper: ftp, dport: 65536 }",
            "6:26 5 port `65536` is not from 0 to 65535",
        ),
        (
            "{ helper: ftp, dport: 21, loose: 2 }",
            "6:37 1 `loose` must be true or false, not `2`",
        ),
        (
            "{ helper: ftp, dport: 21, low-ports: [on] }",
            "6:41 1 `low-ports` must be a single value, not a list",
        ),
        (
            "{ helper: ftp, dport: 21, lose: true }",
            "6:30 4 unknown key `lose` in a helper line",
        ),
        (
            "{ helper: ftp, dport: 21, action: accept }",
            "6:30 6 unknown key `action` in a helper line",
        ),
        (
            "{ helper: ftp, dport: 21, mark: 1 }",
            "6:30 4 unknown key `mark` in a helper line",
        ),
        (
            "{ helper: ftp, dport: 21, quota: 1 }",
            "6:30 5 `quota` is not supported in this version",
        ),
        (
            "{ helper: ftp, dport: 21, ct: new }",
            "6:30 2 `ct` is not possible in a helper line",
        ),
        (
            "{ helper: ftp, dport: 21, ct-direction: original }",
            "6:30 12 `ct-direction` is not possible in a helper line",
        ),
        (
            "{ helper: ftp, dport: 21, ct-mark: 1 }",
            "6:30 7 `ct-mark` is not possible in a helper line",
        ),
        (
            "{ helper: ftp, dport: 21, ct-status: confirmed }",
            "6:30 9 `ct-status` is not possible in a helper line",
        ),
        (
            "{ helper: ftp, dport: 21, ct-helper: ftp }",
            "6:30 9 `ct-helper` is not possible in a helper line",
        ),
        (
            "{ helper: ftp, dport: 21, connlimit: 3 }",
            "6:30 9 `connlimit` is not possible in a helper line",
        ),
        (
            "{ helper: ftp, name: \"a b\", dport: 21 }",
            "6:25 5 `a b` cannot be the name of a rule",
        ),
        (
            "{ helper: ftp, name: x, dport: 21 }\n - { helper: ftp, name: x, dport: 2121 }",
            "7:25 1 a second rule called `x` in `helpers`; the first is in line 6",
        ),
        (
            "{ helper: ftp }",
            "6:14 3 warning: `ftp` listens to every flow of tcp",
        ),
        (
            "{ helper: sip, iif: lan }",
            "6:14 3 warning: `sip` listens to every flow of udp and tcp",
        ),
        (
            "{ helper: ftp, dport: 21, tcp-flags: syn, icmp-type: redirect }",
            "6:46 9 warning: this rule never matches: `icmp-type` is for ICMP, and `proto` excludes it",
        ),
    ] {
        assert_eq!(line(body), [expected], "{body}");
    }
    for (body, help) in [
        ("{ helper: ftpp, dport: 21 }", "did you mean `ftp`?"),
        (
            "{ helper: xyz, dport: 21 }",
            "known are: ftp, tftp, irc, sip",
        ),
        (
            "{ helper: ftp, dport: 21, ct: new }",
            "a line is asked about the packet that starts a flow",
        ),
        ("{ helper: ftp }", "say which with a port or an address"),
        (
            "{ helper: ftp, dport: 21, lose: true }",
            "did you mean `loose`?",
        ),
    ] {
        let text = format!("{HEAD}helpers: [{body}]\nchains: {{ forward: {{}} }}\n");
        assert_eq!(helps(&text), [help], "{body}");
    }
    assert_eq!(
        found(&format!(
            "{HEAD}helpers: {{}}\nchains: {{ forward: {{}} }}\n"
        )),
        ["5:10 1 `helpers` must be a list, not a mapping"]
    );
    let chain =
        format!("{HEAD}chains:\n  forward: {{ rules: [{{ jump: helpers }}] }}\n  helpers: {{}}\n");
    assert_eq!(found(&chain), ["7:3 7 a chain cannot be called `helpers`"]);
    assert_eq!(
        helps(&chain),
        ["lines that attach helpers stand in the section `helpers`"]
    );
}

fn read(body: &str) -> Vec<Rule> {
    let text = format!("{HEAD}helpers: [{body}]\nchains: {{ forward: {{}} }}\n");
    let checked = check("x", &text).unwrap_or_else(|errors| panic!("{errors}"));
    let rendered = checked.render_warnings();
    assert!(checked.warnings.iter().all(is_of_head), "{rendered}");
    checked.model.helpers
}

#[test]
fn lines_reach_the_model() {
    let lines = read(
        "{ helper: ftp, dport: [21, 2121], comment: c }, \
         { name: phones, helper: sip, dport: 5060, loose: yes, low-ports: on }, \
         { helper: irc, proto: tcp, dport: 6667, saddr: [10.0.0.1, \"fd00::1\"], loose: false }, \
         { helper: tftp, family: ipv6, dport: 69, iif: lan, vlan: 4, ct-zone: 0-4, limit: 9/second }",
    );
    let names: Vec<_> = lines.iter().map(|line| line.name.as_str()).collect();
    assert_eq!(names, ["1", "phones", "3", "4"]);
    assert_eq!(lines[0].comment.as_deref(), Some("c"));
    let actions: Vec<_> = lines.iter().map(|line| line.action.to_string()).collect();
    assert_eq!(
        actions,
        [
            "helper ftp",
            "helper sip, loose, low-ports",
            "helper irc",
            "helper tftp"
        ]
    );
    assert_eq!(
        lines[1].action,
        Action::Helper(Helper {
            id: HelperId::new(3).unwrap(),
            name: "sip",
            permissions: Permissions {
                loose: true,
                low_ports: true
            },
        })
    );
    // what its helper cannot listen to, a line does not match
    let protos = |at: usize| lines[at].matches.proto.unwrap().iter().collect::<Vec<_>>();
    assert_eq!([protos(0), protos(2), protos(3)], [[6], [6], [17]]);
    assert_eq!(protos(1), [6, 17]);
    let families: Vec<_> = lines.iter().map(|line| line.matches.family).collect();
    assert_eq!(
        families,
        [None, None, Some(Family::Ipv4), Some(Family::Ipv6)]
    );
    // a rule's text is what its counters hang on
    let hash = |body| read(body)[0].hash;
    assert_eq!(
        hash("{ helper: ftp, dport: 21 }"),
        hash("{ dport: 21, helper: ftp, comment: y }")
    );
    assert_ne!(
        hash("{ helper: ftp, dport: 21 }"),
        hash("{ helper: ftp, dport: 21, loose: true }")
    );
}

#[test]
fn a_policy_has_helpers_or_not() {
    let has = |body: &str| {
        let text = format!("{HEAD}{body}\nchains: {{ forward: {{}} }}\n");
        compile(&check("x", &text).unwrap().model, 1, 1).has_helpers()
    };
    assert!(has("helpers: [{ helper: ftp, dport: 21 }]"));
    assert!(!has("helpers: []"));
    assert!(!has(""));
}

#[test]
fn questions_about_helpers_and_zones() {
    for (body, expected) in [
        (
            "{ ct-helper: fpt, action: drop }",
            "8:22 3 unknown helper `fpt`",
        ),
        (
            "{ ct-helper: [ftp, pptp], action: drop }",
            "8:28 4 unknown helper `pptp`",
        ),
        (
            "{ ct-helper: [ftp, \"!irc\"], action: drop }",
            "8:28 6 an element of a list cannot be negated",
        ),
        (
            "{ ct-helper: { ftp: 1 }, action: drop }",
            "8:22 1 `ct-helper` must be a value or a list, not a mapping",
        ),
        (
            "{ ct: invalid, ct-helper: ftp, action: drop }",
            "8:24 9 warning: this rule never matches: such a packet belongs to no flow",
        ),
        (
            "{ ct-zone: 65536, action: drop }",
            "8:20 5 zone `65536` is not from 0 to 65535",
        ),
        (
            "{ ct-zone: vlan, action: drop }",
            "8:20 4 `vlan` is not a zone or a range of them",
        ),
        (
            "{ ct-zone: 9-3, action: drop }",
            "8:20 3 range `9-3` ends before it begins",
        ),
        (
            "{ ct-zne: 9, action: drop }",
            "8:11 6 unknown key `ct-zne` in a rule",
        ),
    ] {
        assert_eq!(rule(body), expected, "{body}");
    }
    assert_eq!(
        found(&format!(
            "{HEAD}raw: [{{ ct-zone: 0, ct-helper: ftp, action: notrack }}]\n\
             chains: {{ forward: {{ rules: [{{ ct: invalid, ct-zone: 0, ct-status: expected, \
             action: accept }}] }} }}\n"
        )),
        [
            "5:21 9 `ct-helper` cannot be known in `raw`, before tracking",
            "6:57 9 warning: this rule never matches: such a packet belongs to no flow",
        ]
    );
    let matches = |body: &str| {
        let text = format!("{HEAD}chains: {{ forward: {{ rules: [{{ {body}, log: true }}] }} }}\n");
        let checked = check("x", &text).unwrap_or_else(|errors| panic!("{errors}"));
        checked.model.chains[0].rules[0].matches.clone()
    };
    let helper = |body: &str| matches(body).helper;
    let mask = |mask, negated| Some(HelperMatch { mask, negated });
    assert_eq!(helper("ct-helper: ftp"), mask(1, false));
    assert_eq!(helper("ct-helper: [tftp, sip]"), mask(0b1010, false));
    assert_eq!(helper("ct-helper: \"!irc\""), mask(0b100, true));
    let zone = |body: &str| matches(body).zone.unwrap().ranges().to_vec();
    assert_eq!(zone("ct-zone: 0"), [(0, 0)]);
    assert_eq!(zone("ct-zone: [7, 0x10-20]"), [(7, 7), (16, 20)]);
    assert_eq!(zone("ct-zone: \"!7\""), [(0, 6), (8, 65535)]);
}
