//! Policies of a size that only programs write: each step must be linear, or nearly.

use std::fmt::Write;

use rustix::time::{ClockId, clock_gettime};

use super::*;

/// Far more than a linear check takes here, and far less than a quadratic one.
const PATIENCE: i64 = 60;

fn quickly<T>(what: &str, work: impl FnOnce() -> T) -> T {
    // of processor time: what else the machine does is not the policy's fault
    let clock = || clock_gettime(ClockId::ThreadCPUTime).tv_sec;
    let start = clock();
    let result = work();
    let took = clock() - start;
    assert!(took < PATIENCE, "{what}: {took} s");
    result
}

#[test]
fn a_hundred_thousand_rules() {
    let mut text = format!("{HEAD}chains:\n  forward:\n    rules:\n");
    for n in 0..100_000u32 {
        let (a, b, c) = (n >> 16 & 255, n >> 8 & 255, n & 255);
        writeln!(
            text,
            "      - {{ name: r{n}, iif: lan, proto: tcp, saddr: 10.{a}.{b}.{c}, daddr: [\"fd00::{a:x}:{b:x}{c:02x}\", 10.9.0.0/16], dport: {}, ct: new, action: accept }}",
            n % 60_000
        )
        .unwrap();
    }
    assert!(text.len() > 10_000_000);
    let checked = quickly("100,000 rules", || check("x", &text));
    let checked = checked.unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(checked.model.chains[0].rules.len(), 100_000);
    let compiled = quickly("compile", || crate::policy::compile(&checked.model, 1, 2));
    assert_eq!(compiled.rules().count(), 100_001);
}

#[test]
fn twenty_thousand_chains() {
    let mut text = format!("{HEAD}chains:\n  forward:\n    rules:\n");
    for n in 0..20_000 {
        writeln!(text, "      - {{ dscp: {}, jump: c{n} }}", n % 64).unwrap();
    }
    for n in 0..20_000 {
        writeln!(
            text,
            "  c{n}: {{ rules: [{{ dscp: 1, goto: c{} }}] }}",
            n + 1
        )
        .unwrap();
    }
    let end = "  c20000: { rules: [{ action: drop }] }\n";
    assert_eq!(
        quickly("chains", || found(&format!("{text}{end}"))),
        [""; 0]
    );
    let ring = "  c20000: { rules: [{ dscp: 2, goto: c0 }] }\n";
    let told = quickly("a ring of chains", || found(&format!("{text}{ring}")));
    assert_eq!(told.len(), 1);
    assert!(told[0].contains("jumps form a loop: c0 -> c1 -> c2"));
    assert!(told[0].ends_with("c19999 -> c20000 -> c0"));
}

#[test]
fn many_mistakes() {
    // all in one line, each with a name of its own that is near to many
    let mut rules = String::new();
    for n in 0..20_000 {
        write!(rules, "{{ saddr: $servrs{n}, dscp: 99, action: drop }}, ").unwrap();
    }
    let text = format!("{HEAD}chains: {{ forward: {{ rules: [{rules}] }} }}\n");
    let errors = quickly("40,000 mistakes", || check("x", &text)).unwrap_err();
    assert_eq!(errors.errors(), 40_000);
    let columns: Vec<_> = errors.iter().take(2).map(|d| d.column).collect();
    assert_eq!(columns, [39, 55]);
    let rendered = quickly("their text", || errors.to_string());
    assert!(rendered.ends_with("and 39900 more\n"), "{}", rendered.len());

    // in a large file, lines are shown without their neighbours
    let text = format!("{HEAD}{}bad: 1\n", "# filled\n".repeat(200_000));
    let rendered = check("x.yaml", &text).unwrap_err().to_string();
    let shown = "╭─[x.yaml:200005:1]\n 200005 │ bad: 1\n        · ───\n";
    assert!(rendered.contains(shown), "{rendered}");
}

/// What would take long to read, or much memory, and says little.
#[test]
fn more_of_anything_than_a_policy_needs_is_refused() {
    let told = |what: &str, text: String| {
        let errors = quickly(what, || check("x", &text)).unwrap_err();
        let mut told = errors.iter().map(|d| d.message.clone());
        let last = told.rfind(|message| message.starts_with("more than"));
        (errors.errors(), last.unwrap_or_default())
    };
    let ports = "version: 1\nports: { a: { device: x } }\n";
    let sets = |entries: String| format!("{ports}sets: {{ s: [{entries}] }}\n");
    let rules = |rules: String| format!("{HEAD}chains:\n  forward:\n    rules:\n{rules}");
    let one = |message: &str| (1, message.to_owned());
    let nodes = one("more than 2500000 keys and values in one policy");
    for small in ["1,", "[],", "{a: b},"] {
        assert_eq!(told("nodes", sets(small.repeat(2_600_000))), nodes);
    }
    let many = one("more than 250000 rules and chains in one policy");
    assert_eq!(told("rules", rules("    - {}\n".repeat(250_000))), many);
    let chains: String = (0..250_000).map(|n| format!("  c{n}:\n")).collect();
    let (count, last) = told("chains", rules(chains));
    assert_eq!((count, last), many);
    let errors = (
        50_001,
        "more than 50000 errors, the rest is not told".into(),
    );
    assert_eq!(told("entries", sets("x y,".repeat(1_000_000))), errors);
    let keys: String = (0..500_000).map(|n| format!("k{n}: 1\n")).collect();
    assert_eq!(told("keys", format!("{HEAD}{keys}")), errors);
    let list = format!("      - {{ saddr: [{}] }}\n", "x,".repeat(1_000_000));
    assert_eq!(told("a list", rules(list)), errors);
    let mistakes = "      - { dscp: 99, a: b }\n".repeat(200_000);
    assert_eq!(told("mistakes", rules(mistakes)), errors);
}

#[test]
fn aliases_multiply_only_so_far() {
    // a rule that is written once and repeated is as good as written often
    let rule = "{ proto: udp, saddr: 10.0.0.1, dport: 53, action: accept }";
    let again = "      - *r\n".repeat(5000);
    let text = format!("{HEAD}chains:\n  forward:\n    rules:\n      - &r {rule}\n{again}");
    let checked = check("x", &text).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(checked.model.chains[0].rules.len(), 5001);
    let again = "      - *r\n".repeat(90_000);
    let text = format!("{HEAD}chains:\n  forward:\n    rules:\n      - &r {rule}\n{again}");
    let told = quickly("aliases", || found(&text));
    assert_eq!(told.len(), 1);
    assert!(told[0].contains("not valid YAML"), "{told:?}");
}

#[test]
fn shadowed_rules_among_many() {
    // alike in all that rules are kept apart by: comparing them ends some time
    let mut text = format!("{HEAD}chains:\n  forward:\n    rules:\n");
    for n in 0..50_000 {
        writeln!(text, "      - {{ proto: tcp, sport: {n}, action: drop }}").unwrap();
    }
    assert_eq!(quickly("alike", || found(&text)), [""; 0]);
    // each behind one that takes it
    let mut text = format!("{HEAD}chains:\n  forward:\n    rules:\n");
    for n in 0..50_000u32 {
        let (b, c, len) = (n >> 9, n >> 1 & 255, if n & 1 == 0 { "0/24" } else { "7" });
        let port = if n & 1 == 0 { "0-65535" } else { "22" };
        writeln!(
            text,
            "      - {{ saddr: 10.{b}.{c}.{len}, proto: tcp, dport: {port}, action: drop }}"
        )
        .unwrap();
    }
    let told = quickly("shadowed", || found(&text));
    assert_eq!(told.len(), 25_000);
    assert!(
        told[0].contains("redundant: rule `1` in line 8"),
        "{}",
        told[0]
    );
}
