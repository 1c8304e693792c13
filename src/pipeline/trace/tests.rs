//! What packets are said to have met: every step, in order.

use super::{Filter, SNAPLEN, Traced};
use crate::base::hash::HashKey;
use crate::base::time::Now;
use crate::conntrack::limit::Budget;
use crate::conntrack::types::CtState;
use crate::pipeline::{Counters, Explanation, Outcome, Pipeline, Slot};
use crate::policy::{Compiled, Narrator, Policy, PortId, compile, parse};
use crate::wire::Addrs;
use crate::wire::build::{Segment, frame};
use crate::wire::tcp::flags::{ACK, PSH, RST, SYN};
use std::sync::Arc;

const LAN: PortId = PortId(0);
const WAN: PortId = PortId(1);

const HEAD: &str = "version: 1
ports: { lan: { device: d0 }, wan: { device: d1 } }
bridge: [[lan, wan]]
";

const RULES: &str = "raw:
  - { name: bare, proto: udp, dport: 7001, action: notrack }
helpers:
  - { name: boot, helper: tftp, dport: 69 }
chains:
  forward:
    policy: drop
    rules:
      - { name: known, ct: [established, related], action: accept }
      - { name: broken, ct: invalid, action: drop }
      - { name: web, iif: lan, proto: tcp, dport: 80, jump: inside }
      - { name: few, proto: udp, dport: 514, limit: 1/minute burst 1, action: accept }
      - { name: marked, proto: udp, dport: 99, mark: 7 }
      - { name: by-mark, ct-mark: 7, action: accept }
      - { name: no-ssh, proto: tcp, dport: 22, action: reject }
      - { name: boot, proto: udp, dport: 69, action: accept }
  inside:
    rules:
      - { name: syn-only, proto: tcp, tcp-flags: \"!syn\", action: drop }
      - { name: in, action: accept }
";

/// One worker's path, with what its packets met.
struct Path {
    pipeline: Pipeline,
    model: Policy,
    compiled: Compiled,
    now: Now,
}

/// 10.0.0.1 to 10.0.1.1.
const TALK: Addrs = Addrs::V4 {
    src: 0x0a00_0001,
    dst: 0x0a00_0101,
};

fn udp(addrs: Addrs, sport: u16, dport: u16) -> Vec<u8> {
    frame(addrs, Segment::Udp { sport, dport }, b"hello")
}

fn tcp(addrs: Addrs, (sport, dport): (u16, u16), flags: u8, seq: u32, ack: u32) -> Vec<u8> {
    let segment = Segment::Tcp {
        sport,
        dport,
        seq,
        ack,
        flags,
        window: 1000,
        options: &[],
    };
    frame(addrs, segment, b"")
}

impl Path {
    fn new(rules: &str) -> Self {
        let checked = parse("test.yaml", &format!("{HEAD}{rules}"));
        let model = checked.unwrap_or_else(|errors| panic!("{errors}")).model;
        let compiled = compile(&model, 1, 1);
        let now = Now::from_secs(1000);
        let config = compiled.conntrack();
        let budget = Arc::new(Budget::new(64, 1));
        let expecter = Pipeline::expecters(&budget, 1, config.expect_max).remove(0);
        let (key, counters) = (HashKey::from_seed(1), Arc::<Counters>::default());
        let pipeline = Pipeline::sharing(0, budget, expecter, key, now, counters);
        Self {
            pipeline,
            model,
            compiled,
            now,
        }
    }

    fn trace(&mut self, iif: PortId, data: &[u8]) -> Traced {
        let (policy, mut slot) = (&self.compiled, Slot::default());
        let len = data.len();
        self.pipeline.prepare(&mut slot, policy, iif, data, len);
        self.pipeline.prefetch(&mut slot);
        let met = self.pipeline.trace(policy, self.now, iif, data, &slot, 1);
        let way = (iif, false);
        Traced::new(self.now, 1, 0, way, 1, &slot.parsed, met, data, SNAPLEN)
    }

    fn told(&mut self, iif: PortId, data: &[u8]) -> Explanation {
        let traced = self.trace(iif, data);
        self.tell(&traced)
    }

    fn tell(&self, traced: &Traced) -> Explanation {
        let narrator = Narrator::new(&self.compiled, &self.model);
        Explanation::of_traced(Some(&narrator), &self.compiled, traced)
    }

    /// Everything that a packet met, a line each.
    fn steps(&mut self, iif: PortId, data: &[u8]) -> Vec<String> {
        let traced = self.trace(iif, data);
        let told = self.tell(&traced);
        let mut lines = vec![format!("{}, {}", told.packet, told.iif)];
        lines.extend(told.state.iter().map(|state| {
            let dir = told.dir.as_deref().map(|dir| format!(", {dir}"));
            format!("{state}{}", dir.unwrap_or_default())
        }));
        let flow = |word: &str, flow: &crate::conntrack::record::FlowRecord| {
            let tcp = flow.tcp_state.map_or("-", |state| state.name());
            let reply = if flow.seen_reply { " replied" } else { "" };
            let mark = flow.mark;
            format!("{word}: {tcp} {}s mark {mark}{reply}", flow.timeout)
        };
        lines.extend(told.flow.iter().map(|it| flow("before", it)));
        lines.extend(
            traced
                .seen
                .after
                .iter()
                .map(|it| flow("after", &it.record())),
        );
        lines.extend(told.notes.iter().map(|note| format!("note: {note}")));
        for step in told.raw.iter().chain(&told.rules).chain(&told.helpers) {
            let what = match (&step.then, &step.wanted, &step.found) {
                (Some(then), ..) => format!("yes: {then}"),
                (_, Some(wanted), Some(found)) => format!("no: {wanted} ({found})"),
                _ => "no".into(),
            };
            lines.push(format!("{}/{} {what}", step.chain, step.rule));
        }
        lines.extend(told.helper.iter().map(|helper| format!("helper {helper}")));
        let rule = told.rule.unwrap_or_else(|| "nobody".into());
        let reason = told.reason.map(|reason| format!(", {reason}"));
        let answer = told.answer.map(|answer| format!(", answered by {answer}"));
        let (reason, answer) = (reason.unwrap_or_default(), answer.unwrap_or_default());
        lines.push(format!("{} by {rule}{reason}{answer}", told.verdict));
        lines
    }
}

#[test]
fn a_handshake_is_told_step_by_step() {
    let mut path = Path::new(RULES);
    let syn = tcp(TALK, (1000, 80), SYN, 100, 0);
    let raw = "raw/bare no: proto: udp (proto is tcp)";
    assert_eq!(
        path.steps(LAN, &syn),
        [
            "tcp 10.0.0.1:1000 > 10.0.1.1:80 syn, 40 bytes, lan",
            "new, original",
            "after: SYN_SENT 120s mark 0",
            raw,
            "forward/known no: ct: [established, related] (ct is new)",
            "forward/broken no: ct: invalid (ct is new)",
            "forward/web yes: jump inside",
            "inside/syn-only no: tcp-flags: !syn (tcp-flags are syn)",
            "inside/in yes: accept",
            "helpers/boot no: dport: 69 (dport is 80)",
            "accept by inside/in",
        ]
    );
    let answer = tcp(TALK.flip(), (80, 1000), SYN | ACK, 500, 101);
    assert_eq!(
        path.steps(WAN, &answer),
        [
            "tcp 10.0.1.1:80 > 10.0.0.1:1000 syn,ack, 40 bytes, wan",
            "established, reply",
            "before: SYN_SENT 120s mark 0",
            "after: SYN_RECV 60s mark 0 replied",
            raw,
            "forward/known yes: accept",
            "accept by forward/known",
        ]
    );
}

#[test]
fn what_is_invalid_is_told_with_the_reason_of_the_tracker() {
    let mut path = Path::new(RULES);
    let port = (1000, 80);
    let mut why = |iif, frame: &[u8]| {
        let traced = path.trace(iif, frame);
        let told = path.tell(&traced);
        let note = told.notes.first().cloned().unwrap_or_default();
        (traced.seen.why.map(|why| why.name()), note, told.rule)
    };
    let broken = Some("forward/broken".to_owned());
    let reset = tcp(TALK, port, RST, 100, 0);
    assert_eq!(
        why(LAN, &reset),
        (
            Some("tcp-not-first"),
            "INVALID: no flow is known, and a segment with rst starts none".into(),
            broken.clone()
        )
    );
    let bare = tcp(TALK, port, 0, 100, 0);
    assert_eq!(why(LAN, &bare).0, Some("tcp-flags"));
    let mut sum = udp(TALK, 1, 2);
    *sum.last_mut().unwrap() ^= 1;
    assert_eq!(why(LAN, &sum).0, Some("bad-checksum"));
    let mut short = udp(TALK, 1, 2);
    short[38..40].copy_from_slice(&[0, 4]);
    assert_eq!(why(LAN, &short).0, Some("bad-header"));
    let icmp = |ty, code| Segment::Icmp { ty, code, rest: 1 };
    let reply = frame(TALK, icmp(0, 0), b"");
    assert_eq!(why(LAN, &reply).0, Some("icmp-no-request"));
    let unknown = frame(TALK, icmp(99, 0), b"");
    assert_eq!(why(LAN, &unknown).0, Some("icmp-unknown"));
    let about = frame(TALK, icmp(3, 3), &udp(TALK.flip(), 5, 6)[14..]);
    assert_eq!(why(LAN, &about).0, Some("icmp-no-flow"));
    let quote = frame(TALK, icmp(3, 3), b"?");
    assert_eq!(why(LAN, &quote).0, Some("icmp-quote"));

    // An established flow, and what is impossible in it.
    assert_eq!(why(LAN, &tcp(TALK, port, SYN, 100, 0)).0, None);
    let answer = tcp(TALK.flip(), (80, 1000), SYN | ACK, 500, 101);
    assert_eq!(why(WAN, &answer).0, None);
    assert_eq!(why(LAN, &tcp(TALK, port, ACK, 101, 501)).0, None);
    let unsent = tcp(TALK, port, ACK | PSH, 101, 90_000);
    assert_eq!(
        why(LAN, &unsent),
        (
            Some("tcp-acks-unsent"),
            "INVALID: it acknowledges what the other side has not sent; its flow is ESTABLISHED"
                .into(),
            broken
        )
    );
    let beyond = tcp(TALK, port, ACK, 200_000, 501);
    assert_eq!(why(LAN, &beyond).0, Some("tcp-beyond-window"));
    let guessed = tcp(TALK, port, RST, 90, 0);
    assert_eq!(why(LAN, &guessed).0, Some("tcp-old-reset"));
    let again = tcp(TALK.flip(), (80, 1000), SYN, 500, 0);
    assert_eq!(why(WAN, &again).0, Some("tcp-state"));
}

#[test]
fn limits_marks_and_what_is_not_tracked_are_told_as_they_were() {
    let mut path = Path::new(RULES);
    let log = |sport| udp(TALK, sport, 514);
    let first = path.steps(LAN, &log(1));
    assert!(
        first.contains(&"forward/few yes: accept".to_owned()),
        "{first:?}"
    );
    let second = path.steps(LAN, &log(2));
    assert!(
        second.contains(&"forward/few no: limit: 1/minute burst 1 (it was used up)".to_owned()),
        "{second:?}"
    );
    assert_eq!(
        second.last().unwrap(),
        "drop by forward/policy, policy: A rule, or the policy of the chain, said drop."
    );
    // Told after the fact, when the limit says something else.
    let third = path.trace(LAN, &log(3));
    path.now = Now::from_secs(2000);
    let told = path.tell(&third);
    let step = told.rules.iter().find(|step| step.rule == "few").unwrap();
    assert_eq!(step.found.as_deref(), Some("it was used up"));

    let marked = path.steps(LAN, &udp(TALK, 1, 99));
    assert!(
        marked.contains(&"after: - 30s mark 7".to_owned()),
        "{marked:?}"
    );
    assert!(
        marked.contains(&"note: its flow is marked 0x7".to_owned()),
        "{marked:?}"
    );
    assert!(
        marked.contains(&"forward/by-mark yes: accept".to_owned()),
        "{marked:?}"
    );

    let bare = path.steps(LAN, &udp(TALK, 1, 7001));
    assert_eq!(bare[1], "untracked");
    assert!(
        bare.contains(&"raw/bare yes: notrack".to_owned()),
        "{bare:?}"
    );

    let refused = path.steps(LAN, &tcp(TALK, (5, 22), SYN, 1, 0));
    assert_eq!(
        refused.last().unwrap(),
        "reject by forward/no-ssh, answered by tcp 10.0.1.1:22 > 10.0.0.1:5 rst,ack, 40 bytes by lan"
    );

    let boot = path.steps(LAN, &udp(TALK, 1, 69));
    assert!(boot.contains(&"helper tftp".to_owned()), "{boot:?}");
    assert!(
        boot.iter().any(|line| line.starts_with("helpers/boot yes")),
        "{boot:?}"
    );
}

#[test]
fn what_never_comes_to_the_tracker_says_why() {
    let mut path = Path::new(RULES);
    let mut lldp = vec![0; 60];
    lldp[12..14].copy_from_slice(&0x88cc_u16.to_be_bytes());
    assert_eq!(
        path.steps(LAN, &lldp),
        [
            "EtherType 0x88cc, 60 bytes, lan",
            "drop by nobody, ethertype: Neither IP nor an EtherType that the bridge lets pass.",
        ]
    );
    let mut cut = udp(TALK, 1, 2);
    cut.truncate(20);
    let told = path.told(LAN, &cut);
    assert!(told.reason.unwrap().starts_with("ip-header"));
    let traced = path.trace(LAN, &cut);
    assert_eq!(traced.comment(Some(&path.compiled)), "drop: ip-header");
    assert_eq!(traced.data(), cut);
}

/// Rules enough for the classifier, behind which verdicts are remembered.
#[test]
fn a_remembered_verdict_is_told_with_its_rules() {
    let mut rules = String::from("chains:\n  forward:\n    policy: drop\n    rules:\n");
    for port in 1..=40 {
        rules +=
            &format!("      - {{ name: r{port}, proto: udp, dport: {port}, action: accept }}\n");
    }
    let mut path = Path::new(&rules);
    let there = udp(TALK, 1000, 30);
    let mut notes = Vec::new();
    for _ in 0..4 {
        let told = path.told(LAN, &there);
        assert_eq!(told.rule.as_deref(), Some("forward/r30"));
        assert_eq!(told.rules.len(), 30);
        notes.push(told.notes.iter().any(|note| note.contains("remembered")));
    }
    assert!(!notes[0] && notes[3], "{notes:?}");
}

#[test]
fn of_very_many_rules_the_last_are_told() {
    let mut rules = String::from("chains:\n  forward:\n    policy: drop\n    rules:\n");
    rules += "      - { name: counted, proto: udp, count: seen }\n";
    for port in 1..=500 {
        rules +=
            &format!("      - {{ name: r{port}, proto: tcp, dport: {port}, action: accept }}\n");
    }
    let told = Path::new(&rules).told(LAN, &udp(TALK, 1000, 30));
    let names: Vec<_> = told.rules.iter().map(|step| step.rule.as_str()).collect();
    assert_eq!(names.len(), 201);
    assert_eq!(
        (names[0], names[1], names[200]),
        ("counted", "r302", "policy")
    );
    let note = "301 rules before that did not match are left out";
    assert!(
        told.notes.iter().any(|text| text == note),
        "{:?}",
        told.notes
    );
}

/// A traced packet meets what it would meet without.
#[test]
fn to_be_traced_changes_nothing() {
    let (mut plain, mut traced) = (Path::new(RULES), Path::new(RULES));
    let frames: Vec<_> = (0..200u16)
        .map(|n| match n % 5 {
            0 => udp(TALK, n, 99),
            1 => udp(TALK, 7, 514),
            2 => tcp(TALK, (n, 80), SYN, 1, 0),
            3 => tcp(TALK, (n, 22), SYN, 1, 0),
            _ => tcp(TALK, (n - 2, 80), ACK, 2, 1),
        })
        .collect();
    for data in &frames {
        let mut slot = Slot::default();
        let (policy, now) = (&plain.compiled, plain.now);
        let pipeline = &mut plain.pipeline;
        pipeline.prepare(&mut slot, policy, LAN, data, data.len());
        let outcome: Outcome = pipeline.decide(policy, now, LAN, data, &slot);
        let seen = traced.trace(LAN, data);
        assert_eq!(seen.outcome.disposition, outcome.disposition);
        assert_eq!(seen.outcome.by, outcome.by);
        let state = |it: &Outcome| it.tracked.map(|tracked| tracked.state);
        assert_eq!(state(&seen.outcome), state(&outcome));
    }
    let counts = |path: &Path| {
        let rules: Vec<_> = path
            .compiled
            .rules()
            .map(|rule| (rule.packets, rule.bytes))
            .collect();
        let counters = path.pipeline.counters();
        (rules, counters.dropped_total(), path.pipeline.shard().len())
    };
    assert_eq!(counts(&plain), counts(&traced));
}

fn filter(words: &str) -> Result<Filter, Vec<String>> {
    let path = Path::new(RULES);
    let words: Vec<_> = words.split_whitespace().map(str::to_owned).collect();
    Filter::read(&words, &path.model, &path.compiled)
}

#[test]
fn each_word_means_what_it_says() {
    let mut path = Path::new(RULES);
    let web = path.trace(LAN, &tcp(TALK, (1000, 80), SYN, 100, 0));
    let bad = path.trace(LAN, &tcp(TALK, (1001, 80), RST, 100, 0));
    let log = path.trace(LAN, &udp(TALK, 1, 514));
    let out = path.trace(WAN, &udp(TALK.flip(), 9, 514));
    let ssh = path.trace(LAN, &tcp(TALK, (5, 22), SYN, 1, 0));
    let ping = frame(
        TALK,
        Segment::Icmp {
            ty: 8,
            code: 0,
            rest: 1,
        },
        b"",
    );
    let ping = path.trace(LAN, &ping);
    let boot = path.trace(LAN, &udp(TALK, 1, 69));
    let mark = path.trace(LAN, &udp(TALK, 1, 99));
    let all = [
        ("web", &web),
        ("bad", &bad),
        ("log", &log),
        ("out", &out),
        ("ssh", &ssh),
        ("ping", &ping),
        ("boot", &boot),
        ("mark", &mark),
    ];
    let every = "web bad log out ssh ping boot mark";
    for (words, meant) in [
        ("", every),
        ("iif=wan", "out"),
        ("oif=wan,lan", every),
        ("oif=lan", "out"),
        ("saddr=10.0.0.0/24", "web bad log ssh ping boot mark"),
        ("saddr=10.0.0.2-10.0.1.255", "out"),
        ("daddr=10.0.0.1", "out"),
        ("addr=10.0.0.1", every),
        ("addr=fd00::/8", ""),
        ("tcp", "web bad ssh"),
        ("proto=tcp,icmp", "web bad ssh ping"),
        ("proto=17 dport=1-99", "boot mark"),
        ("sport=1000,5", "web ssh"),
        ("port=9", "out"),
        ("type=echo-request", "ping"),
        ("type=8/0", "ping"),
        ("type=8/1", ""),
        ("syn", "web ssh"),
        ("flags=syn,ack", ""),
        ("rst", "bad"),
        ("ct=invalid", "bad"),
        ("invalid", "bad"),
        ("ct=new,invalid tcp", "web bad ssh"),
        ("dir=original", "web log out ssh ping boot mark"),
        ("reply", ""),
        ("vlan=1", ""),
        ("length=33 udp", "log out boot mark"),
        ("dscp=cs0", every),
        ("mark=7", "mark"),
        ("helper=tftp", "boot"),
        ("verdict=accept", "web log boot mark"),
        ("drop", "bad out ping"),
        ("dropped", "bad out ssh ping"),
        ("reason=policy", "bad out ping"),
        ("reason=rejected", "ssh"),
        ("reason=tx-full", ""),
        ("rule=forward/broken", "bad"),
        ("rule=inside/*", "web"),
        ("rule=forward/policy,forward/no-ssh", "out ssh ping"),
        ("iif=lan tcp dport=80 invalid drop", "bad"),
    ] {
        let filter = filter(words).unwrap_or_else(|errors| panic!("{words}: {errors:?}"));
        let found: Vec<_> = all
            .iter()
            .filter(|(_, it)| {
                filter.may_mean(&path.compiled, it.port, &it.parsed)
                    && filter.means(&path.compiled, &it.outcome, &it.seen)
            })
            .map(|(name, _)| *name)
            .collect();
        assert_eq!(found.join(" "), meant, "{words}");
    }
    assert_eq!(bad.seen.tracked.unwrap().state, CtState::Invalid);
    assert_eq!(
        bad.comment(Some(&path.compiled)),
        "drop: policy, rule forward/broken, ct invalid, tcp-not-first"
    );
    assert_eq!(
        ssh.comment(Some(&path.compiled)),
        "reject: rejected, tcp-reset, rule forward/no-ssh, ct new"
    );
    assert_eq!(
        web.comment(None),
        "accept: by a policy that is gone, ct new"
    );
}

#[test]
fn words_that_cannot_be_are_told_all_at_once() {
    for (words, wrong) in [
        (
            "iif=wna sadr=10.0.0.1 synn",
            &[
                "`iif=wna`: unknown port `wna`; did you mean `wan`?; ports are lan, wan",
                "unknown word `sadr=10.0.0.1`; did you mean `saddr=10.0.0.1`?",
                "unknown word `synn`; did you mean `syn`?",
            ][..],
        ),
        (
            "reason=polcy verdict=dropp",
            &[
                "`reason=polcy`: unknown reason `polcy`; did you mean `policy`?",
                "`verdict=dropp`: unknown verdict `dropp`; did you mean `drop`?",
            ],
        ),
        (
            "rule=forward/brokn",
            &["`rule=forward/brokn`: unknown rule `forward/brokn`; did you mean `forward/broken`?"],
        ),
        ("dport=90-80", &["`dport=90-80`: 90 is more than 80"]),
        ("dport=", &["`dport=`: a value is missing"]),
        (
            "dport=70000",
            &["`dport=70000`: not a number from 0 to 65535"],
        ),
        (
            "ct=establised",
            &["`ct=establised`: unknown state `establised`; did you mean `established`?"],
        ),
    ] {
        assert_eq!(filter(words).unwrap_err(), wrong, "{words}");
    }
    let many = "tcp ".repeat(65);
    assert_eq!(filter(&many).unwrap_err(), ["more than 64 words"]);
}
