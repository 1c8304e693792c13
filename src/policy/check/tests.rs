//! Policies that must load, and policies that must not: each with the exact place and words.

mod helpers;
mod large;
mod sets;
mod slips;
mod timeouts;
mod times;
mod warnings;

use std::path::Path;

use super::*;
use crate::base::time::Span;
use crate::conntrack::config::Config;
use crate::conntrack::types::{Dir, TcpState, proto};
use crate::policy::load::{MAX_POLICY, load};
use crate::policy::model::{
    Action, Family, Hugepages, Idle, LogTo, MarkMatch, MarkValue, Per, RejectWith, StatusPage,
    Workers,
};

const SAMPLE: &str = include_str!("../../../tests/policies/sample.yaml");

/// Helpers that the policies here may name.
pub(in crate::policy) static KNOWN: [&Info; 4] = {
    const fn info(name: &'static str, protos: &'static [u8], ipv6: bool) -> Info {
        Info {
            name,
            protos,
            ipv6,
            classes: &[],
        }
    }
    static FTP: Info = info("ftp", &[proto::TCP], true);
    static TFTP: Info = info("tftp", &[proto::UDP], true);
    static IRC: Info = info("irc", &[proto::TCP], false);
    static SIP: Info = info("sip", &[proto::UDP, proto::TCP], true);
    [&FTP, &TFTP, &IRC, &SIP]
};

fn check(name: &str, text: &str) -> Result<Checked, PolicyErrors> {
    parse_with(name, text, &KNOWN, &|_| Err("no files here".into()))
}

const HEAD: &str = "version: 1
ports: { lan: { device: a }, wan: { device: b } }
bridge: [[lan, wan]]
sets: { servers: [10.0.0.0/8], web: [80, 443] }
";

/// Whether it is that what [`HEAD`] names is never used.
fn is_of_head(diagnostic: &Diagnostic) -> bool {
    let unused = ["servers", "web"].map(|set| format!("set `{set}` is never used"));
    unused.contains(&diagnostic.message)
}

/// Everything found in `text`, as `line:column length message`, but that what [`HEAD`] names is
/// never used.
fn found(text: &str) -> Vec<String> {
    let show = |d: &Diagnostic| {
        let mark = if d.severity == Severity::Warning {
            "warning: "
        } else {
            ""
        };
        format!("{}:{} {} {mark}{}", d.line, d.column, d.length, d.message)
    };
    match check("test.yaml", text) {
        Ok(checked) => {
            let warnings = checked.warnings.iter();
            warnings.filter(|d| !is_of_head(d)).map(show).collect()
        }
        Err(errors) => errors.iter().map(show).collect(),
    }
}

/// The only thing found with one rule in `forward`; the rule begins in column 9 of line 8.
fn rule(body: &str) -> String {
    let text = format!("{HEAD}chains:\n  forward:\n    rules:\n      - {body}\n");
    let found = found(&text);
    assert_eq!(found.len(), 1, "{body}: {found:#?}");
    found[0].clone()
}

#[test]
fn the_sample_loads() {
    let checked = check("sample.yaml", SAMPLE).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(found(SAMPLE), [""; 0]);
    let model = &checked.model;
    let names: Vec<_> = model.ports.iter().map(|port| port.name.as_str()).collect();
    assert_eq!(names, ["lan", "wan"]);
    assert_eq!(model.ports[0].device, "net_tap0,iface=sw-lan");
    assert_eq!(model.ports[1].queues, Some(4));
    assert_eq!(model.system.workers, Workers::Count(2));
    assert_eq!(model.conntrack, Config::default());
    assert_eq!(model.bridges[0].ethertypes, [0x0806]);
    assert_eq!(model.chains.len(), 2);
    assert_eq!(model.raw.len(), 2);
    assert_eq!(model.chains[0].rules[2].line, 41);
    assert_ne!(
        checked.hash,
        check("x", &SAMPLE.replace("drop", "accept")).unwrap().hash
    );
    assert_eq!(model.helpers.len(), 2);
    let bare = SAMPLE.replace("proto: tcp, dport: 21 }", "}");
    let checked = check("sample.yaml", &bare).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(checked.render_warnings().contains("sample.yaml:28:15"));
    assert_eq!(checked.warnings_json().as_array().unwrap().len(), 1);
}

#[test]
fn the_minimal_policy_has_no_warnings() {
    assert_eq!(
        found(include_str!("../../../tests/policies/minimal.yaml")),
        [""; 0]
    );
}

#[test]
fn settings_reach_the_model() {
    let text = format!(
        "{HEAD}system:
  cores: [2, 0x4]
  idle: sleep
  hugepages: off
  metrics: off
  status-page: on
  socket: /tmp/s
  mbufs: 4096
  memory: 512
  log: /var/log/shardwall
conntrack:
  max: 1000
  expect_max: 0x200
  timeouts:
    tcp: {{ syn_sent: 1, syn_recv: 2s, established: 24d, fin_wait: 1m, close_wait: 1h, last_ack: 6,
           time_wait: 7, close: 8, syn_sent2: 9, retrans: 10, unack: 11 }}
    udp: {{ unreplied: 12, replied: 13 }}
    icmp: 14
    icmpv6: 15
    generic: 16
    gre: {{ unreplied: 17, replied: 18 }}
    udplite: {{ replied: 19 }}
    sctp: {{ closed: 20, cookie_wait: 21, cookie_echoed: 22, established: 23, shutdown_sent: 24,
            shutdown_recd: 25, shutdown_ack_sent: 26, heartbeat_sent: 27 }}
  tcp: {{ loose: false, be_liberal: true, max_retrans: 7, ignore_invalid_rst: on }}
  checksum: false
  accounting: yes
  timestamps: true
chains: {{ forward: {{ policy: accept }} }}
"
    );
    let model = check("x", &text)
        .unwrap_or_else(|errors| panic!("{errors}"))
        .model;
    assert_eq!(model.system.workers, Workers::Cores(vec![2, 4]));
    assert_eq!(model.system.idle, Idle::Sleep);
    assert_eq!(model.system.hugepages, Hugepages::Off);
    assert_eq!(model.system.metrics, None);
    assert_eq!(model.system.status_page, StatusPage::On);
    assert_eq!(model.system.socket, Path::new("/tmp/s"));
    assert_eq!(model.system.log, LogTo::File("/var/log/shardwall".into()));
    assert_eq!(
        (model.system.mbufs, model.system.memory),
        (Some(4096), Some(512))
    );
    let config = &model.conntrack;
    assert_eq!((config.max, config.tcp_max_retrans), (1000, 7));
    assert_eq!(config.expect_max, 512);
    assert!(!config.checksum);
    assert!(!config.tcp_loose && config.tcp_be_liberal && config.tcp_ignore_invalid_rst);
    assert!(config.accounting && config.timestamps);
    let t = &config.timeouts;
    let tcp: Vec<_> = TcpState::ALL[1..]
        .iter()
        .map(|s| t.tcp[*s as usize].as_secs())
        .collect();
    assert_eq!(tcp, [1, 2, 24 * 86_400, 60, 3600, 6, 7, 8, 9]);
    let rest = [
        t.tcp_retrans,
        t.tcp_unack,
        t.udp_unreplied,
        t.udp_replied,
        t.icmp,
        t.icmpv6,
        t.generic,
        t.gre_unreplied,
        t.gre_replied,
        t.udplite_unreplied, // as UDP's, where nothing else is said
        t.udplite_replied,
    ];
    assert_eq!(
        rest.map(Span::as_secs),
        [10, 11, 12, 13, 14, 15, 16, 17, 18, 12, 19]
    );
    let sctp = t.sctp.map(Span::as_secs);
    assert_eq!(sctp[1..], [20, 21, 22, 23, 24, 25, 26, 27]);
}

#[test]
fn bad_rules() {
    for (body, expected) in [
        (
            "{ ct: establised, action: accept }",
            "8:15 10 unknown state `establised`",
        ),
        (
            "{ ct: [new, relatd], action: accept }",
            "8:21 6 unknown state `relatd`",
        ),
        (
            "{ actoin: accept, log: true }",
            "8:11 6 unknown key `actoin` in a rule",
        ),
        ("{ action: acept }", "8:19 5 unknown action `acept`"),
        ("{ iif: lna, action: drop }", "8:16 3 unknown port `lna`"),
        (
            "{ saddr: $server, action: drop }",
            "8:18 7 unknown set `$server`",
        ),
        (
            "{ saddr: $web, action: drop }",
            "8:18 4 `$web` holds ports, and `saddr` needs addresses",
        ),
        (
            "{ proto: tcp, dport: $servers, action: drop }",
            "8:30 8 `$servers` holds addresses, and `dport` needs ports",
        ),
        (
            "{ daddr: 10.1.0.0/8, action: drop }",
            "8:18 10 `10.1.0.0/8` has bits set behind its prefix length",
        ),
        (
            "{ daddr: [1.1.1.1, 1.1.1], action: drop }",
            "8:28 5 `1.1.1` is not an address, a prefix or a range",
        ),
        (
            "{ daddr: [], action: drop }",
            "8:18 1 `daddr` lists nothing",
        ),
        (
            "{ daddr: [1.1.1.1, \"!1.1.1.2\"], action: drop }",
            "8:28 10 an element of a list cannot be negated",
        ),
        (
            "{ daddr: { a: 1 }, action: drop }",
            "8:18 1 `daddr` must be a value or a list, not a mapping",
        ),
        ("{ daddr: , action: drop }", "8:11 5 `daddr` has no value"),
        (
            "{ dport: 80, action: drop }",
            "8:11 5 `dport` needs a protocol that has ports",
        ),
        (
            "{ proto: icmp, sport: 80, action: drop }",
            "8:24 5 `sport` needs a protocol that has ports",
        ),
        (
            "{ proto: [tcp, gre], dport: 1, action: drop }",
            "8:30 5 `dport` needs a protocol that has ports",
        ),
        (
            "{ proto: tpc, dport: 80, action: drop }",
            "8:18 3 unknown protocol `tpc`",
        ),
        (
            "{ proto: 256, action: drop }",
            "8:18 3 unknown protocol `256`",
        ),
        (
            "{ proto: tcp, dport: 65536, action: drop }",
            "8:30 5 port `65536` is not from 0 to 65535",
        ),
        (
            "{ proto: tcp, dport: 90-80, action: drop }",
            "8:30 5 range `90-80` ends before it begins",
        ),
        (
            "{ proto: tcp, dport: http, action: drop }",
            "8:30 4 `http` is not a port or a range of them",
        ),
        (
            "{ tcp-flags: sny, action: drop }",
            "8:22 3 `tcp-flags` must be syn, \"!syn\" or mask/value, not `sny`",
        ),
        (
            "{ tcp-flags: \"syn/snc\", action: drop }",
            "8:22 9 unknown TCP flag `snc`",
        ),
        (
            "{ tcp-flags: \"syn/ack\", action: drop }",
            "8:22 9 `tcp-flags` asks for a flag that is not in its mask, so never matches",
        ),
        (
            "{ icmp-type: echo-requst, action: drop }",
            "8:22 11 unknown ICMP type `echo-requst`",
        ),
        (
            "{ icmp-type: 8, action: drop }",
            "8:22 1 an ICMP type by number needs its protocol",
        ),
        (
            "{ icmp-type: echo-reply/256, action: drop }",
            "8:22 14 ICMP code `256` is not from 0 to 255",
        ),
        (
            "{ family: ipv5, action: drop }",
            "8:19 4 unknown family `ipv5`",
        ),
        (
            "{ family: [ipv4, ipv6], action: drop }",
            "8:19 1 `family` lists all that there is",
        ),
        (
            "{ ct-direction: replay, action: drop }",
            "8:25 6 unknown ct-direction `replay`",
        ),
        (
            "{ length: 1-65536, action: drop }",
            "8:19 7 length `1-65536` is not from 0 to 65535",
        ),
        (
            "{ fragment: maybe, action: drop }",
            "8:21 5 unknown fragment `maybe`",
        ),
        (
            "{ fragment: [yes, false], action: drop }",
            "8:21 1 `fragment` lists all that there is",
        ),
        (
            "{ tcp-flags: [syn, \"!rst/rst\"], action: drop }",
            "8:28 10 an element of a list cannot be negated",
        ),
        (
            "{ tcp-flags: [syn,ack/ack,rst], action: drop }",
            "8:35 3 `tcp-flags` must be syn, \"!syn\" or mask/value, not `rst`",
        ),
        (
            "{ dscp: 64, action: drop }",
            "8:17 2 unknown code point `64`",
        ),
        (
            "{ vlan: 4095, action: drop }",
            "8:17 4 VLAN id `4095` is not from 0 to 4094",
        ),
        ("{ limit: 5, action: drop }", "8:18 1 `5` is not a limit"),
        (
            "{ limit: 5/secnd, action: drop }",
            "8:18 7 unknown unit of time `secnd`",
        ),
        (
            "{ limit: 0/second, action: drop }",
            "8:18 8 `0/second` is not a limit",
        ),
        (
            "{ quota: 1, action: drop }",
            "8:11 5 `quota` is not supported in this version",
        ),
        (
            "{ name: \"a b\", action: drop }",
            "8:17 5 `a b` cannot be the name of a rule",
        ),
        (
            "{ name: policy, action: drop }",
            "8:17 6 a rule of `forward` cannot be called `policy`",
        ),
        ("{ iif: lan }", "8:11 3 this rule does nothing"),
        (
            "{ action: drop, jump: x }",
            "8:25 4 `action` and `jump` exclude each other",
        ),
        ("{ jump: nowhere }", "8:17 7 unknown chain `nowhere`"),
        ("{ goto: forward }", "8:17 7 `forward` cannot be jumped to"),
        (
            "{ action: notrack }",
            "8:19 7 `notrack` is only possible in `raw`",
        ),
        (
            "{ action: { reject: tcp-rest } }",
            "8:29 8 unknown kind of reject `tcp-rest`",
        ),
        (
            "{ action: { reject: tcp-reset } }",
            "8:11 6 `tcp-reset` needs `proto: tcp`",
        ),
        (
            "{ action: { drop: now } }",
            "8:21 4 unknown key `drop` in an action",
        ),
        (
            "{ log: 3, action: drop }",
            "8:16 1 `log` must be true or false, not `3`",
        ),
        (
            "{ log: { prefx: x }, action: drop }",
            "8:18 5 unknown key `prefx` in `log`",
        ),
        ("drop", "8:9 4 a rule must be a mapping, not a single value"),
    ] {
        assert_eq!(rule(body), expected, "{body}");
    }
}

#[test]
fn bad_questions_about_flows() {
    for (body, expected) in [
        (
            "{ ct-mak: 1, action: drop }",
            "8:11 6 unknown key `ct-mak` in a rule",
        ),
        (
            "{ ct-mark: 0x1g, action: drop }",
            "8:20 4 `0x1g` is not a mark",
        ),
        (
            "{ ct-mark: [1, 0x1g], action: drop }",
            "8:24 4 `0x1g` is not a mark",
        ),
        (
            "{ ct-mark: 4294967296, action: drop }",
            "8:20 10 mark `4294967296` is not from 0 to 0xffffffff",
        ),
        (
            "{ ct-mark: \"0x10/0x0f\", action: drop }",
            "8:20 11 `ct-mark` asks for a bit that is not in its mask, so never matches",
        ),
        (
            "{ ct-mark: \"1/0\", action: drop }",
            "8:20 5 a mask of 0 leaves nothing to look at",
        ),
        ("{ mark: x }", "8:17 1 `x` is not a mark"),
        ("{ mark: \"1/x\" }", "8:17 5 `x` is not a mark"),
        (
            "{ mark: [1] }",
            "8:17 1 `mark` must be a single value, not a list",
        ),
        (
            "{ mark: \"0x100/0xff\" }",
            "8:17 12 warning: `mark` sets a bit that is not in its mask",
        ),
        (
            "{ ct: [invalid, untracked], mark: 1 }",
            "8:37 4 warning: `mark` does nothing here: such a packet belongs to no flow",
        ),
        (
            "{ ct: invalid, ct-mark: 1, action: drop }",
            "8:24 7 warning: this rule never matches: such a packet belongs to no flow",
        ),
        (
            "{ ct-status: asured, action: drop }",
            "8:22 6 unknown status `asured`",
        ),
        (
            "{ ct-status: snat, action: drop }",
            "8:22 4 status `snat` is not supported in this version",
        ),
        (
            "{ count: \"my counter\", action: drop }",
            "8:18 12 `my counter` cannot be the name of a counter",
        ),
        ("{ count: false, dscp: 1 }", "8:11 5 this rule does nothing"),
        (
            "{ count: [a], action: drop }",
            "8:18 1 `count` must be a single value, not a list",
        ),
        (
            "{ log: { limit: 5/second per source }, action: drop }",
            "8:18 5 the `limit` of a `log` is for all lines of its rule",
        ),
        (
            "{ limit: 5/second per sorce, action: drop }",
            "8:18 18 unknown unit of `limit` `sorce`",
        ),
        (
            "{ limit: 5/second per source/33, action: drop }",
            "8:18 22 `/33` is not a prefix length",
        ),
        (
            "{ limit: burst 5 per source, action: drop }",
            "8:18 18 `burst 5 per source` is not a limit",
        ),
        (
            "{ connlimit: many, action: drop }",
            "8:22 4 `many` is not a connlimit",
        ),
        (
            "{ connlimit: below 20, action: drop }",
            "8:22 8 `below 20` is not a connlimit",
        ),
        (
            "{ connlimit: 20 per sorce, action: drop }",
            "8:22 12 unknown unit of `connlimit` `sorce`",
        ),
        (
            "{ connlimit: 0, action: drop }",
            "8:22 1 a `connlimit` is from 1 to 10000000 flows, not 0",
        ),
        (
            "{ connlimit: 20 per source/33, action: drop }",
            "8:22 16 `/33` is not a prefix length",
        ),
        (
            "{ connlimit: \"20 per source/24,129\", action: drop }",
            "8:22 22 `/24,129` is not a prefix length",
        ),
        (
            "{ connlimit: 9 per zone/8, action: drop }",
            "8:22 12 `zone` has no prefix length",
        ),
    ] {
        assert_eq!(rule(body), expected, "{body}");
    }
    for (body, help) in [
        ("{ ct-mak: 1, action: drop }", "did you mean `ct-mark`?"),
        ("{ conlimit: 1, action: drop }", "did you mean `connlimit`?"),
        (
            "{ ct-status: asured, action: drop }",
            "did you mean `assured`?",
        ),
        (
            "{ connlimit: 2 per sorce, action: drop }",
            "did you mean `source`?",
        ),
    ] {
        let text = format!("{HEAD}chains:\n  forward:\n    rules:\n      - {body}\n");
        let errors = check("test.yaml", &text).unwrap_err();
        let helps: Vec<_> = errors.iter().filter_map(|d| d.help.as_deref()).collect();
        assert_eq!(helps, [help], "{body}");
    }
    let rules = |count: usize| {
        let rules = "{ connlimit: 1, action: drop }, ".repeat(count);
        found(&format!(
            "{HEAD}chains: {{ forward: {{ rules: [{rules}] }} }}\n"
        ))
    };
    assert_eq!(rules(8), [""; 0]);
    assert_eq!(rules(10), ["5:299 1 more than 8 rules with `connlimit`"]);
    let rules = |count: usize| {
        let rules = "{ limit: 1/day per zone, action: drop }, ".repeat(count);
        found(&format!(
            "{HEAD}chains: {{ forward: {{ rules: [{rules}] }} }}\n"
        ))
    };
    assert_eq!(rules(64), [""; 0]);
    let told = rules(66);
    assert_eq!(told.len(), 1);
    assert!(told[0].ends_with("more than 64 rules with a `limit` by address or zone"));
}

#[test]
fn questions_about_flows_reach_the_model() {
    let rules = |body: &str| {
        let text = format!("{HEAD}chains: {{ forward: {{ rules: [{body}] }} }}\n");
        let checked = check("x", &text).unwrap_or_else(|errors| panic!("{errors}"));
        checked.model.chains[0].rules.clone()
    };
    let mark = |value, mask| MarkValue { value, mask };
    let all = u32::MAX;
    let read = rules(
        "{ ct-mark: [5, 0x10, \"1/0xff\"], mark: \"0x10/0xf0\" }, { ct-mark: \"!0xffffffff\", mark: 7, action: drop }",
    );
    let any = vec![mark(5, all), mark(16, all), mark(1, 255)];
    let negated = false;
    assert_eq!(read[0].matches.mark, Some(MarkMatch { any, negated }));
    assert_eq!(read[0].mark, Some(mark(0x10, 0xf0)));
    assert_eq!(read[0].action, Action::Continue);
    let any = vec![mark(all, all)];
    let negated = true;
    assert_eq!(read[1].matches.mark, Some(MarkMatch { any, negated }));
    assert_eq!(
        (read[1].mark, &read[1].action),
        (Some(mark(7, all)), &Action::Drop)
    );

    let read = rules(
        "{ family: \"!ipv4\", ct-direction: \"!original\", action: drop }, { family: [ipv4], action: { reject: no-route } }",
    );
    let (v4, v6) = (Some(Family::Ipv4), Some(Family::Ipv6));
    assert_eq!((read[0].matches.family, read[1].matches.family), (v6, v4));
    assert_eq!(read[0].matches.dir, Some(Dir::Reply));
    let no_route = Action::Reject(Some(RejectWith::NetUnreachable));
    assert_eq!(read[1].action, no_route);

    let limits = |text: &str| {
        let limit = rules(&format!("{{ connlimit: {text}, action: drop }}"))[0]
            .matches
            .connlimit;
        limit
            .map(|limit| (limit.count, limit.over, limit.per))
            .unwrap()
    };
    let (source, destination) = (
        |v4, v6| Per::Source { v4, v6 },
        |v4, v6| Per::Destination { v4, v6 },
    );
    for (text, expected) in [
        ("20", (20, false, source(32, 128))),
        ("over 20", (20, true, source(32, 128))),
        ("20 per source/24", (20, false, source(24, 128))),
        ("\"over 1 per source/24,64\"", (1, true, source(24, 64))),
        ("\"3 per destination/0,0\"", (3, false, destination(0, 0))),
        ("0x10 per destination", (16, false, destination(32, 128))),
        ("1000 per zone", (1000, false, Per::Zone)),
        ("over 10000000 per rule", (10_000_000, true, Per::Rule)),
    ] {
        assert_eq!(limits(text), expected, "{text}");
    }
}

#[test]
fn rules_that_look_wrong() {
    for (body, expected) in [
        (
            "{ proto: udp, tcp-flags: syn, action: drop }",
            "8:23 9 warning: this rule never matches: `tcp-flags` is for TCP, and `proto` excludes it",
        ),
        (
            "{ saddr: 10.0.0.1, daddr: \"fd00::1\", action: drop }",
            "8:28 5 warning: this rule never matches: its addresses are of different families",
        ),
        (
            "{ family: ipv6, saddr: $servers, action: drop }",
            "8:25 5 warning: this rule never matches: its addresses are of different families",
        ),
        (
            "{ name: a, action: drop }\n      - { name: b, action: drop }",
            "9:17 1 warning: never reached: rule `a` in line 8 matches every packet",
        ),
        (
            "{ name: a, action: drop }\n  lost: { rules: [{ action: drop }] }",
            "9:3 4 warning: chain `lost` is never jumped to",
        ),
    ] {
        assert_eq!(rule(body), expected, "{body}");
    }
    let text = format!(
        "{HEAD}chains: {{ forward: {{ rules: [{{ proto: udp, icmp-type: redirect, log: true }}] }} }}\n"
    );
    assert_eq!(
        found(&text),
        [
            "5:44 9 warning: this rule never matches: `icmp-type` is for ICMP, and `proto` excludes it"
        ]
    );
}

/// A policy of `body` after version and ports, and a chain; `body` begins in line 3.
fn section(body: &str) -> Vec<String> {
    let ports =
        if body.contains("ports: {") || body.contains("ports: [l") || body.starts_with("ports") {
            ""
        } else {
            "ports: { lan: { device: a }, wan: { device: b } }\n"
        };
    let bridge = if body.contains("bridge") || ports.is_empty() {
        ""
    } else {
        "bridge: [[lan, wan]]\n"
    };
    found(&format!(
        "version: 1\n{ports}{bridge}{body}\nchains: {{ forward: {{}} }}\n"
    ))
}

#[test]
fn bad_sections() {
    for (body, expected) in [
        (
            "bridge: [[lan, wann]]",
            vec![
                "3:16 4 unknown port `wann`",
                "3:9 1 warning: port `lan` is in no bridge: it drops everything",
                "3:9 1 warning: port `wan` is in no bridge: it drops everything",
            ],
        ),
        (
            "bridge: [[lan, wan], [wan, lan]]",
            vec![
                "3:23 3 port `wan` is in two bridges",
                "3:28 3 port `lan` is in two bridges",
            ],
        ),
        (
            "bridge: [[lan]]",
            vec!["3:10 1 a bridge joins two ports, not 1"],
        ),
        (
            "bridge: [[lan, lan]]",
            vec!["3:16 3 a bridge joins two different ports"],
        ),
        (
            "bridge: [{ ports: [wan, lan], zone: vlna }]",
            vec!["3:37 4 `zone` must be a number from 0 to 65535 or vlan, not `vlna`"],
        ),
        (
            "bridge: [{ ports: [wan, lan], zone: 65536 }]",
            vec!["3:37 5 `zone` must be a number from 0 to 65535 or vlan, not `65536`"],
        ),
        (
            "bridge: [{ ports: [wan, lan], zone: [1] }]",
            vec!["3:37 1 `zone` must be a single value, not a list"],
        ),
        (
            "bridge: [{ ports: [wan, lan], zon: 1 }]",
            vec!["3:31 3 unknown key `zon` in a bridge"],
        ),
        (
            "system: { workers: 0 }",
            vec!["4:20 1 `workers` must be a number from 1 to 128, not `0`"],
        ),
        (
            "system: { workers: 2, cores: [1] }",
            vec!["4:23 5 `workers` and `cores` exclude each other"],
        ),
        (
            "system: { cores: [1, 1] }",
            vec!["4:22 1 core 1 is listed twice"],
        ),
        ("system: { idle: slep }", vec!["4:17 4 unknown idle `slep`"]),
        (
            "system: { hugepages: of }",
            vec!["4:22 2 unknown hugepages `of`"],
        ),
        (
            "system: { metrics: 9477 }",
            vec!["4:20 4 `metrics` must be an address and a port, not `9477`"],
        ),
        (
            "system: { log: journald }",
            vec!["4:16 8 `log` must be stderr, journal or an absolute path, not `journald`"],
        ),
        (
            "system: { socket: sock }",
            vec!["4:19 4 `socket` must be an absolute path of at most 107 bytes"],
        ),
        ("sets: { s: [] }", vec!["4:12 1 set `s` is empty"]),
        (
            "sets: { s: [1.1.1.1, 80] }",
            vec!["4:22 2 set `s` mixes addresses and ports"],
        ),
        ("sets: { s: [$t] }", vec!["4:13 2 unknown set `$t`"]),
        (
            "sets: { s: [10.0.0.0/8, 10.0.0.256] }",
            vec!["4:25 10 `10.0.0.256` is not an address, a prefix or a range"],
        ),
        (
            "conntrack: { max: 0 }",
            vec!["4:19 1 `max` must be a number from 1 to 268435456, not `0`"],
        ),
        (
            "conntrack: { expect_max: 0 }",
            vec!["4:26 1 `expect_max` must be a number from 1 to 16777216, not `0`"],
        ),
        (
            "conntrack: { expect_max: 16777217 }",
            vec!["4:26 8 `expect_max` must be a number from 1 to 16777216, not `16777217`"],
        ),
        (
            "conntrack: { timeouts: { tcp: { establised: 5d } } }",
            vec!["4:33 10 unknown key `establised` in `tcp` timeouts"],
        ),
        (
            "conntrack: { timeouts: { sctp: { cookie_wiat: 5 } } }",
            vec!["4:34 11 unknown key `cookie_wiat` in `sctp` timeouts"],
        ),
        (
            "conntrack: { timeouts: { gre: { stream: 5 } } }",
            vec!["4:33 6 unknown key `stream` in `gre` timeouts"],
        ),
        (
            "conntrack: { timeouts: { udplite: { replied: never } } }",
            vec!["4:46 5 `never` is not a length of time"],
        ),
        (
            "conntrack: { timeouts: { dccp: { partopen: 5 } } }",
            vec!["4:26 4 unknown key `dccp` in `timeouts`"],
        ),
        (
            "conntrack: { timeouts: { icmp: 0 } }",
            vec!["4:32 1 a timeout is more than 0 and at most 24 days"],
        ),
        (
            "conntrack: { timeouts: { icmp: 91d } }",
            vec!["4:32 3 a timeout is more than 0 and at most 24 days"],
        ),
        (
            "conntrack: { timeouts: { icmp: 5w } }",
            vec!["4:32 2 `5w` is not a length of time"],
        ),
        (
            "conntrack: { tcp: { loose: 2 } }",
            vec!["4:28 1 `loose` must be true or false, not `2`"],
        ),
        (
            "raw: [{ ct: new, action: notrack }]",
            vec!["4:9 2 `ct` cannot be known in `raw`, before tracking"],
        ),
        (
            "raw: [{ action: drop }]",
            vec!["4:17 4 `drop` is not possible in `raw`"],
        ),
        (
            "raw: [{ jump: x }]",
            vec!["4:9 4 `jump` is not possible in `raw`"],
        ),
        (
            "raw: [{ log: true, action: notrack }]",
            vec!["4:9 3 `log` is not supported in `raw`"],
        ),
        (
            "raw: [{ ct-mark: 1, action: notrack }]",
            vec!["4:9 7 `ct-mark` cannot be known in `raw`, before tracking"],
        ),
        (
            "raw: [{ ct-status: assured, action: notrack }]",
            vec!["4:9 9 `ct-status` cannot be known in `raw`, before tracking"],
        ),
        (
            "raw: [{ connlimit: 1, action: accept }]",
            vec!["4:9 9 `connlimit` cannot be known in `raw`, before tracking"],
        ),
        (
            "raw: [{ mark: 1, action: accept }]",
            vec!["4:9 4 `mark` is not possible in `raw`"],
        ),
        ("chain: {}", vec!["4:1 5 unknown key `chain` in a policy"]),
    ] {
        let mut found = section(body);
        if body.starts_with("bridge") {
            // only what is asked about
            found
                .retain(|line| expected.contains(&line.as_str()) || !line.contains("in no bridge"));
            let mut expected: Vec<_> = expected.iter().map(|line| line.to_string()).collect();
            expected.sort();
            found.sort();
            assert_eq!(found, expected, "{body}");
        } else {
            assert_eq!(found, expected, "{body}");
        }
    }
}

#[test]
fn bad_ports_and_bridges() {
    for (text, expected) in [
        ("ports: {}", "2:8 1 `ports` is empty"),
        (
            "ports: { a: { queues: 1 } }",
            "2:10 1 port `a` has no `device`",
        ),
        (
            "ports: { a: { device: x }, b: { device: x } }",
            "2:41 1 device `x` is port `a` too",
        ),
        (
            "ports: { a: { device: x, queues: 0 } }",
            "2:34 1 `queues` must be a number from 1 to 128, not `0`",
        ),
        (
            "ports: { a: { device: x, device: y } }",
            "2:26 6 duplicate key `device`",
        ),
        (
            "ports: { a: { device: x }, a: { device: y } }",
            "2:28 1 duplicate key `a`",
        ),
        (
            "ports: { a/b: { device: x } }",
            "2:10 3 `a/b` cannot be the name of a port",
        ),
    ] {
        let found = found(&format!(
            "version: 1\n{text}\nchains: {{ forward: {{}} }}\n"
        ));
        let errors: Vec<_> = found
            .iter()
            .filter(|line| !line.contains("warning"))
            .collect();
        assert_eq!(errors, [expected], "{text}");
    }
    let with = |list: &str| {
        found(&format!(
            "version: 1\nports: {{ a: {{ device: x }}, b: {{ device: y }} }}\nbridge:\n  - {{ ports: [a, b], ethertypes: {list} }}\nchains: {{ forward: {{}} }}\n"
        ))
    };
    assert_eq!(with("[arp, 0x88cc, pppoe]"), [""; 0]);
    assert_eq!(
        with("[lldp]"),
        ["4:34 1 warning: `ethertypes` lacks arp: IPv4 hosts will not find each other"]
    );
    assert_eq!(with("[arp, lldpp]"), ["4:40 5 unknown EtherType `lldpp`"]);
    assert_eq!(
        with("[arp, 0x0800]"),
        ["4:40 6 IPv4 and IPv6 always go through the chains"]
    );
    assert_eq!(
        with("[arp, 17]"),
        ["4:40 2 EtherType `17` is not from 0x0600 to 0xffff"]
    );
}

#[test]
fn chains_must_hang_together() {
    let chains = |body: &str| found(&format!("{HEAD}chains:\n{body}"));
    assert_eq!(
        chains(
            "  forward: { rules: [{ jump: a }] }
  a: { rules: [{ iif: lan, jump: b }] }
  b: { rules: [{ goto: c }] }
  c: { rules: [{ jump: a }] }
"
        ),
        ["9:24 1 jumps form a loop: a -> b -> c -> a"]
    );
    assert_eq!(
        chains("  forward: { rules: [{ jump: a }] }\n  a: { rules: [{ jump: a }] }\n"),
        ["7:24 1 jumps form a loop: a -> a"]
    );
    let mut deep = String::from("  forward: { rules: [{ jump: c1 }] }\n");
    for at in 1..17 {
        deep.push_str(&format!(
            "  c{at}: {{ rules: [{{ jump: c{} }}] }}\n",
            at + 1
        ));
    }
    deep.push_str("  c17: { rules: [{ action: drop }] }\n");
    assert_eq!(chains(&deep), ["22:26 3 jumps nest deeper than 16"]);
    assert_eq!(
        chains(&deep.replace("c16: { rules: [{ jump", "c16: { rules: [{ goto")),
        [""; 0]
    );
    assert_eq!(
        chains(
            "  forward: { rules: [{ name: x, log: true }, { name: x, log: true }, { name: 4, log: true }, { log: true }] }\n"
        ),
        [
            "6:54 1 a second rule called `x` in `forward`; the first is in line 6",
            "6:96 3 a second rule called `4` in `forward`; the first is in line 6",
        ]
    );
    assert_eq!(
        chains(
            "  forward: { rules: [{ jump: u }] }\n  u: { policy: drop, rules: [] }\n  raw: {}\n"
        ),
        [
            "7:8 6 only the chain `forward` has a policy",
            "8:3 3 a chain cannot be called `raw`",
            "8:3 3 warning: chain `raw` is never jumped to",
        ]
    );
    assert_eq!(
        chains("  forwrd: { rules: [] }\n")[0],
        "6:3 1 the chain `forward` is missing"
    );
}

#[test]
fn what_is_missing_is_said() {
    assert_eq!(
        found("sets: { a: [1] }\n"),
        [
            "1:1 1 `version` is missing",
            "1:1 1 `ports` is missing",
            "1:1 1 `chains` is missing"
        ]
    );
    assert_eq!(
        found("version: 2\nports: { a: { device: x } }\nbridge: []\nchains: { forward: {} }\n")[0],
        "1:10 1 `version` must be 1, not `2`"
    );
    assert_eq!(
        found("[1, 2]"),
        ["1:1 1 a policy must be a mapping, not a list"]
    );
}

#[test]
fn what_is_no_yaml_is_said() {
    for (text, place) in [
        ("", "1:1 1 a policy must be a mapping, not nothing"),
        (
            "version: 1\nports: [\n",
            "2:8 1 not valid YAML: unclosed bracket '['",
        ),
        (
            "version: 1\n\tports: 2\n",
            "1:10 1 not valid YAML: while scanning a plain scalar, found a tab",
        ),
        (
            "a: *nowhere\n",
            "1:4 1 not valid YAML: alias references unknown anchor",
        ),
        (
            "a: 1\n---\nb: 2\n",
            "3:1 1 not valid YAML: multiple YAML documents",
        ),
    ] {
        let found = found(text);
        assert!(found[0].starts_with(place), "{text:?}: {found:?}");
    }
    let errors = check(
        "x",
        &format!("{HEAD}chains: {{ forward: {{ rules: [{{ iif: !lan, action: drop }}] }} }}\n"),
    )
    .unwrap_err();
    let first = errors.iter().next().unwrap();
    assert_eq!(
        (first.line, first.column, first.length),
        (5, 37, 4),
        "{errors}"
    );
    assert_eq!(
        first.help.as_deref(),
        Some("a value that begins with `!` must be quoted: \"!...\"")
    );
}

#[test]
fn everything_wrong_is_said_in_one_run() {
    let text = "version: 1
ports: { lan: { device: a }, wan: { device: b } }
bridge: [[lan, wan]]
bridge: []
system: { worker: 2 }
sets: { s: [10.0.0.1/8] }
chains:
  forward:
    polcy: drop
    rules:
      - { ct: [establised, nwe], saddr: $s, iif: lna, action: acept }
      - { name: two, jump: inbund }
  inbound: { rules: [{ action: drop }] }
";
    assert_eq!(
        found(text),
        [
            "4:1 6 duplicate key `bridge`",
            "5:11 6 unknown key `worker` in `system`",
            "6:13 10 `10.0.0.1/8` has bits set behind its prefix length",
            "9:5 5 unknown key `polcy` in a chain",
            "11:16 10 unknown state `establised`",
            "11:28 3 unknown state `nwe`",
            "11:50 3 unknown port `lna`",
            "11:63 5 unknown action `acept`",
            "12:28 6 unknown chain `inbund`",
            "13:3 7 warning: chain `inbound` is never jumped to",
        ]
    );
    let errors = check("box.yaml", text).unwrap_err();
    assert_eq!(errors.errors(), 9);
    let helps: Vec<_> = errors.iter().filter_map(|d| d.help.as_deref()).collect();
    assert_eq!(
        helps,
        [
            "did you mean `workers`?",
            "write 10.0.0.0/8 for the network, or 10.0.0.1 for the host",
            "did you mean `policy`?",
            "did you mean `established`?",
            "did you mean `new`?",
            "did you mean `lan`?",
            "did you mean `accept`?",
            "did you mean `inbound`?",
        ]
    );
    let json = errors.to_json();
    assert_eq!(json[4]["file"], "box.yaml");
    assert_eq!(json[4]["severity"], "error");
    assert_eq!(json[4]["line"], 11);
    assert_eq!(json[4]["column"], 16);
    assert_eq!(json[4]["length"], 10);
    assert_eq!(json[4]["help"], "did you mean `established`?");
    assert_eq!(json[9]["severity"], "warning");
}

#[test]
fn errors_are_rendered_with_the_text_underlined() {
    let text = format!(
        "{HEAD}chains:\n  forward:\n    rules:\n      - {{ ct: establised, action: drop }}\n"
    );
    let rendered = check("box.yaml", &text).unwrap_err().to_string();
    let lines: Vec<_> = rendered.lines().map(str::trim_end).collect();
    assert_eq!(
        lines[..6],
        [
            "  × unknown state `establised`",
            "   ╭─[box.yaml:8:15]",
            " 7 │     rules:",
            " 8 │       - { ct: establised, action: drop }",
            "   ·               ──────────",
            "   ╰────",
        ],
        "{rendered}"
    );
    assert_eq!(lines[6], "  help: did you mean `established`?");
    assert!(!rendered.contains('\u{1b}'));
}

#[test]
fn aliases_and_merges_are_understood() {
    let text = format!(
        "{HEAD}chains:
  forward:
    rules:
      - &base {{ name: a, proto: tcp, dport: 22, action: accept }}
      - {{ <<: *base, name: b, dport: 2x }}
"
    );
    assert_eq!(
        found(&text),
        ["9:38 2 `2x` is not a port or a range of them"]
    );
    assert_eq!(found(&text.replace("2x", "23")), [""; 0]);
}

#[test]
fn files_that_cannot_be_read() {
    let message = |path: &Path| {
        load(path)
            .unwrap_err()
            .iter()
            .next()
            .unwrap()
            .message
            .clone()
    };
    let dir = std::env::temp_dir().join(format!("shardwall-policy-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (large, binary, good) = (dir.join("large"), dir.join("binary"), dir.join("good"));
    // a thousand times the limit, and a file without a block on the disk
    let sparse = std::fs::File::create(&large).unwrap();
    sparse.set_len(MAX_POLICY * 1000).unwrap();
    std::fs::write(&binary, b"a: 1\nb: \xff\n").unwrap();
    std::fs::write(
        &good,
        format!("\u{feff}{HEAD}chains: {{ forward: {{}} }}\n"),
    )
    .unwrap();
    assert!(message(&dir.join("none")).contains("No such file"));
    assert!(message(&dir).ends_with("it is a directory, not a file"));
    assert!(message(&large).ends_with("it is larger than 32 MiB"));
    assert!(message(Path::new("/dev/null")).ends_with("it is a device, not a file"));
    assert!(message(&binary).ends_with("is not UTF-8 text (line 2)"));
    assert_eq!(load(&good).unwrap().model.ports.len(), 2);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn long_lines_are_rendered_in_part() {
    // a label beyond column 65535 is more than the renderer can take
    let set = "10.0.0.1, ".repeat(10_000);
    let text = format!(
        "version: 1\nports: {{ a: {{ device: x }} }}\nsets: {{ s: [{set}10.0.0.1/8, 1.1.1.1] }}\nchains: {{ forward: {{}} }}\n"
    );
    let rendered = check("box.yaml", &text).unwrap_err().to_string();
    let lines: Vec<_> = rendered.lines().collect();
    let start = lines
        .iter()
        .position(|line| line.contains("box.yaml:3:100013"))
        .unwrap();
    assert_eq!(
        lines[start - 1..start + 4],
        [
            "  × `10.0.0.1/8` has bits set behind its prefix length",
            "   ╭─[box.yaml:3:100013]",
            " 3 │ 0.1, 10.0.0.1, 10.0.0.1, 10.0.0.1, 10.0.0.1/8, 1.1.1.1] }",
            "   ·                                    ──────────",
            "  help: write 10.0.0.0/8 for the network, or 10.0.0.1 for the host",
        ],
        "{rendered}"
    );
    assert!(rendered.len() < 4000, "{}", rendered.len());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(400))]
    /// A sample with random damage: never a panic, always a place inside the file.
    #[test]
    fn damage_is_survived(
        cuts in proptest::collection::vec(
            (
                proptest::prelude::any::<proptest::sample::Index>(),
                0usize..6,
                "[ -~öß→\\t\\r\\n\\[\\]{}:,!&*\"'$%|>-]{0,4}",
            ),
            1..4,
        ),
    ) {
        let mut chars: Vec<char> = SAMPLE.chars().collect();
        for (at, len, put) in cuts {
            let at = at.index(chars.len());
            let end = (at + len).min(chars.len());
            chars.splice(at..end, put.chars());
        }
        let text: String = chars.iter().collect();
        let lines = text.split('\n').count() as u32;
        match check("x", &text) {
            Ok(checked) => drop(checked.render_warnings()),
            Err(errors) => {
                let rendered = errors.to_string();
                proptest::prop_assert!(!rendered.contains("Failed"), "{}", rendered);
                for d in &errors {
                    proptest::prop_assert!((1..=lines).contains(&d.line) && d.column > 0);
                }
            }
        }
    }
}

#[test]
fn places_at_the_end_of_the_file_are_rendered() {
    for text in [
        "",
        "\n",
        "a:\n",
        "version: 1\nports: [",
        "ö: ö",
        "version: 1\nbridge: # ö",
    ] {
        let rendered = check("x", text).unwrap_err().to_string();
        assert!(
            rendered.contains("x:1:") || rendered.contains("x:2:"),
            "{text:?}: {rendered}"
        );
        assert!(!rendered.contains("Failed"), "{text:?}: {rendered}");
    }
}

#[test]
fn a_rule_with_a_mistake_is_not_said_to_match_everything() {
    let text = format!(
        "{HEAD}chains:\n  forward:\n    rules:\n      - {{ ct: invalit, action: drop }}\n      \
         - {{ iif: lan, action: accept }}\n"
    );
    assert_eq!(found(&text), ["8:15 7 unknown state `invalit`"]);
}
