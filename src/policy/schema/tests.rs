//! What holds the schema and the checker together: the same keys in each place, the same defaults,
//! and whatever checks is valid.

mod validator;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use self::validator::Validator;
use super::schema;
use crate::conntrack::config::Config;
use crate::policy::check::{MATCHES, keys};
use crate::policy::random::{self, Dice};
use crate::policy::{load, parse};

/// A definition of the schema; the whole of it for the policy.
fn definition<'s>(schema: &'s Value, name: &str) -> &'s Value {
    match name {
        "Policy" => schema,
        name => &schema["$defs"][name],
    }
}

fn properties(schema: &Value, name: &str) -> BTreeSet<String> {
    let found = definition(schema, name).get("properties");
    let found = found.and_then(Value::as_object);
    found
        .into_iter()
        .flatten()
        .map(|(key, _)| key.clone())
        .collect()
}

const HEAD: &str = "version: 1
ports: { lan: { device: a }, wan: { device: b } }
bridge: [[lan, wan]]
";
const CHAINS: &str = "chains: { forward: {} }\n";

/// The keys that the checker knows where a mapping with an unknown one stands.
fn known(text: &str) -> BTreeSet<String> {
    let errors = parse("x", text).unwrap_err();
    let told = errors
        .iter()
        .find(|d| d.message.starts_with("unknown key `qqqqqqqq`"));
    let told = told.unwrap_or_else(|| panic!("{text}: {errors}"));
    let help = told.help.as_deref().unwrap_or_default();
    let list = help
        .strip_prefix("known are: ")
        .unwrap_or_else(|| panic!("{text}: {help}"));
    list.split(", ").map(str::to_owned).collect()
}

#[test]
fn each_mapping_has_the_keys_that_the_checker_knows() {
    let schema = schema();
    let odd = "qqqqqqqq: 1";
    let all = |bodies: &[&str]| format!("{HEAD}{}\n{CHAINS}", bodies.concat());
    let of = |body: &str| known(&all(&[body]));
    let rule = |body: &str| {
        known(&format!(
            "{HEAD}chains: {{ forward: {{ rules: [{{ {body} }}] }} }}\n"
        ))
    };
    let list = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
    let mut places: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    places.insert("Policy", known(&format!("{HEAD}{odd}\n{CHAINS}")));
    places.insert(
        "Port",
        known(&format!(
            "version: 1\nports: {{ lan: {{ device: a, {odd} }} }}\n{CHAINS}"
        )),
    );
    places.insert("FullBridge", known(&format!(
        "version: 1\nports: {{ a: {{ device: a }}, b: {{ device: b }} }}\nbridge: [{{ ports: [a, b], {odd} }}]\n{CHAINS}"
    )));
    places.insert("System", of(&format!("system: {{ {odd} }}")));
    places.insert(
        "ManagementLine",
        of(&format!(
            "system: {{ management: [{{ proto: tcp, {odd} }}] }}"
        )),
    );
    places.insert(
        "FileSet",
        of(&format!("sets: {{ s: {{ file: f, {odd} }} }}")),
    );
    places.insert("Conntrack", of(&format!("conntrack: {{ {odd} }}")));
    places.insert(
        "TcpKnobs",
        of(&format!("conntrack: {{ tcp: {{ {odd} }} }}")),
    );
    places.insert(
        "ZoneTimeout",
        of(&format!("conntrack: {{ zones: {{ 1: {{ {odd} }} }} }}")),
    );
    let timeouts = |body: &str| of(&format!("conntrack: {{ timeouts: {{ {body} }} }}"));
    places.insert("Timeouts", timeouts(odd));
    places.insert("TcpTimeouts", timeouts(&format!("tcp: {{ {odd} }}")));
    places.insert("Answered", timeouts(&format!("gre: {{ {odd} }}")));
    places.insert("SctpTimeouts", timeouts(&format!("sctp: {{ {odd} }}")));
    places.insert(
        "Reject",
        rule(&format!("action: {{ reject: no-route, {odd} }}")),
    );
    places.insert("LogHow", rule(&format!("log: {{ {odd} }}")));
    places.insert(
        "TimeParts",
        rule(&format!("time: {{ days: mon, {odd} }}, action: drop")),
    );
    let forward = known(&format!("{HEAD}chains: {{ forward: {{ {odd} }} }}\n"));
    places.insert("Forward", forward.clone());
    // only `forward` has a policy
    places.insert(
        "Chain",
        forward.into_iter().filter(|key| key != "policy").collect(),
    );
    places.insert("Chains", list(&["forward"]));
    let rules = [&keys::RULE[..], &MATCHES].concat();
    let lines = [&keys::HELPER_LINE[..], &MATCHES].concat();
    let of_flows = [&keys::OF_FLOWS[..], &["ct"]].concat();
    let after_tracking = [&of_flows[..], &["log", "mark", "timeout", "jump", "goto"]].concat();
    let but = |keys: &[&str], not: &[&str]| {
        let left = keys.iter().filter(|key| !not.contains(key));
        left.map(|key| (*key).to_owned()).collect()
    };
    places.insert("Rule", list(&rules));
    places.insert("RawRule", but(&rules, &after_tracking));
    places.insert("HelperLine", but(&lines, &of_flows));
    for (name, keys) in &places {
        assert_eq!(properties(&schema, name), *keys, "{name}");
    }
    // and there is no other mapping in the schema
    let definitions = schema["$defs"].as_object().unwrap().keys();
    let others: Vec<_> = definitions
        .filter(|name| !properties(&schema, name).is_empty() && !places.contains_key(name.as_str()))
        .collect();
    assert_eq!(others, [""; 0]);
}

#[test]
fn every_key_and_value_is_described() {
    let schema = schema();
    let definitions = schema["$defs"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str);
    for name in definitions.chain(["Policy"]) {
        let about = definition(&schema, name);
        assert!(about["description"].is_string(), "{name}");
        for (key, about) in about["properties"].as_object().into_iter().flatten() {
            let text = about["description"].as_str().unwrap_or_default();
            assert!(text.ends_with('.'), "{name}.{key}: {text}");
        }
    }
}

/// What the schema says of defaults is what the checker does without the keys.
#[test]
fn defaults_are_those_of_the_code() {
    let schema = schema();
    let mut conntrack = Map::new();
    let mut timeouts = Map::new();
    let defaults = |name: &str| -> Map<String, Value> {
        let all = definition(&schema, name)["properties"]
            .as_object()
            .unwrap()
            .iter();
        all.filter_map(|(key, about)| Some((key.clone(), about.get("default")?.clone())))
            .collect()
    };
    conntrack.extend(defaults("Conntrack"));
    timeouts.extend(defaults("Timeouts"));
    timeouts.insert("tcp".into(), defaults("TcpTimeouts").into());
    timeouts.insert("sctp".into(), defaults("SctpTimeouts").into());
    for (name, count) in [
        ("TcpTimeouts", 11),
        ("SctpTimeouts", 8),
        ("TcpKnobs", 4),
        ("Conntrack", 5),
    ] {
        assert_eq!(defaults(name).len(), count, "{name}");
    }
    conntrack.insert("timeouts".into(), timeouts.into());
    conntrack.insert("tcp".into(), defaults("TcpKnobs").into());
    let system = Value::Object(defaults("System"));
    let reload = &schema["properties"]["reload"]["default"];
    let policy = &definition(&schema, "Forward")["properties"]["policy"]["default"];
    let with = |rule: &str| {
        format!(
            "{{\"version\": 1, \"ports\": {{\"a\": {{\"device\": \"a\"}}, \"b\": {{\"device\": \"b\"}}}}, \
             \"bridge\": [{{\"ports\": [\"a\", \"b\"]{rule}"
        )
    };
    let bridge = defaults("FullBridge");
    let (types, zone) = (&bridge["ethertypes"], &bridge["zone"]);
    let told = format!(
        "{}, \"ethertypes\": {types}, \"zone\": {zone}}}], \"conntrack\": {}, \"system\": {system}, \
         \"reload\": {reload}, \"chains\": {{\"forward\": {{\"policy\": {policy}}}}}}}",
        with(""),
        Value::Object(conntrack),
    );
    let told = parse("told", &told)
        .unwrap_or_else(|errors| panic!("{errors}"))
        .model;
    let silent = with("}], \"chains\": {\"forward\": {}}}");
    let silent = parse("silent", &silent)
        .unwrap_or_else(|errors| panic!("{errors}"))
        .model;
    assert_eq!(told.conntrack, Config::default());
    assert_eq!(told.system, silent.system);
    assert_eq!(told.reload, silent.reload);
    assert_eq!(told.bridges, silent.bridges);
    assert_eq!(told.chains[0].policy, silent.chains[0].policy);
}

fn json(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Every file of the repository that could be a policy, and the examples of the README and the pages.
fn policies() -> Vec<(String, String, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders: Vec<_> = ["deploy", "tests", "benches"]
        .map(|name| root.join(name))
        .into();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            let yaml = path
                .extension()
                .is_some_and(|end| end == "yaml" || end == "yml");
            if path.is_dir() {
                folders.push(path);
            } else if yaml {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path.display().to_string(), text, path));
            }
        }
    }
    let mut pages = vec![root.join("README.md")];
    let docs = std::fs::read_dir(root.join("docs")).unwrap();
    pages.extend(docs.map(|entry| entry.unwrap().path()));
    for page in pages {
        let all = std::fs::read_to_string(&page).unwrap();
        for part in all.split("```yaml\n").skip(1) {
            let (text, _) = part.split_once("```").unwrap();
            found.push((page.display().to_string(), text.into(), PathBuf::new()));
        }
    }
    found
}

/// Mappings whose keys are names that the policy gives.
const NAMES: [&str; 5] = ["ports", "sets", "chains", "profiles", "zones"];

/// `value` with one key misspelt, in every way.
fn misspelt(value: &Value, parent: &str) -> Vec<Value> {
    let mut all = Vec::new();
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                if !NAMES.contains(&parent) {
                    let mut other = map.clone();
                    let inner = other.remove(key).unwrap();
                    other.insert(format!("{key}q"), inner);
                    all.push(Value::Object(other));
                }
                for inner in misspelt(inner, key) {
                    let mut other = map.clone();
                    other.insert(key.clone(), inner);
                    all.push(Value::Object(other));
                }
            }
        }
        Value::Array(items) => {
            for (at, inner) in items.iter().enumerate() {
                for inner in misspelt(inner, "") {
                    let mut other = items.clone();
                    other[at] = inner;
                    all.push(Value::Array(other));
                }
            }
        }
        _ => {}
    }
    all
}

#[test]
fn what_checks_is_valid_and_what_has_a_slip_is_not() {
    let validator = Validator::new(schema());
    let (mut valid, mut slips) = (0, 0);
    for (name, text, path) in policies() {
        let checked = match path.as_os_str().is_empty() {
            true => parse(&name, &text).is_ok(),
            false => load(&path).is_ok(),
        };
        if !checked {
            continue;
        }
        let value = json(&text);
        assert!(validator.holds(&value), "{name}:\n{text}");
        valid += 1;
        for slip in misspelt(&value, "") {
            assert!(!validator.holds(&slip), "{name}: {slip}");
            slips += 1;
        }
    }
    assert!(valid >= 8 && slips > 300, "{valid} policies, {slips} slips");
}

#[test]
fn random_policies_are_valid() {
    let validator = Validator::new(schema());
    for seed in 0..1000 {
        let text = random::policy(&mut Dice::new(seed), true);
        assert!(validator.holds(&json(&text)), "{seed}:\n{text}");
    }
}

/// Values in every form that the checker takes.
#[test]
fn odd_forms_are_valid() {
    let validator = Validator::new(schema());
    for body in [
        "system: { cores: [2, 0x4], idle: yield, hugepages: off, metrics: off, status-page: off, socket: /tmp/s, mbufs: 4096 }",
        "system: { workers: \"2\", log: journal, time-zone: Europe/Berlin }",
        "system: { management: [{ iif: lan, saddr: 10.0.0.0/24, proto: [tcp, udp], dport: 22 }] }",
        "bridge: [{ ports: [lan, wan], ethertypes: [arp, 0x88cc, \"0x88cd\"], zone: vlan }]",
        "conntrack:\n  max: 0x1000\n  checksum: no\n  tcp: { loose: on, max_retrans: 7 }",
        "conntrack: { timeouts: { tcp: { established: 1d2h3m4s, close: 8 }, icmp: \"14\" } }",
        "conntrack: { profiles: { slow: { generic: 1h } }, zones: { 7: { timeout: slow }, 0x8: { timeout: 5m } } }",
        "sets: { a: 10.0.0.1, b: [22, 80-90, $c], c: [443] }",
        "reload: flush-affected\nconntrack:\nhelpers:\nraw: []",
        "helpers: [{ helper: sip, proto: [udp, tcp], dport: 5060, loose: yes, low-ports: true }]",
        "raw: [{ saddr: 10.0.0.1-10.0.0.9, count: dns, limit: \"5/second\", action: notrack }]",
    ] {
        let bridge = if body.starts_with("bridge") {
            ""
        } else {
            "bridge: [[lan, wan]]\n"
        };
        let text = format!(
            "version: 1\nports: {{ lan: {{ device: a }}, wan: {{ device: b, queues: 2 }} }}\n{bridge}{body}\n{CHAINS}"
        );
        parse("x", &text).unwrap_or_else(|errors| panic!("{errors}"));
        assert!(validator.holds(&json(&text)), "{text}");
    }
    for body in [
        "time: mon-fri 08:00-18:00, action: drop",
        "time: [mon 08:00-12:00, \"tue, wed 13:00-17:00\"], action: drop",
        "time: { days: [mon, wed-fri], hours: 22:00-06:00, from: 2030-01-15, until: \"2031-01-15 12:00\" }, action: drop",
        "limit: \"5/second burst 10 packets per source/24,64\", action: drop",
        "connlimit: 20, ct: new, action: drop",
        "connlimit: over 5000 per rule, ct: new, action: drop",
        "ct: \"! established\", action: drop",
        "proto: [tcp, 17], dport: \"! 80-90\", action: drop",
        "proto: icmp, icmp-type: [8/0, echo-reply], action: { reject: prot-unreachable }",
        "tcp-flags: \"! syn , ack / syn\", action: drop",
        "dscp: [ef, 0x2e, 12], vlan: \"!5\", ct-zone: [0, 7-9], action: drop",
        "ct-mark: [0x10/0xf0, 5], mark: 0x10 / 0xff, log: { prefix: a b, limit: 5/minute }",
        "ct-status: \"!assured\", ct-helper: [ftp, sip], timeout: 1h, count: true",
        "name: 22, comment: 1.5, timeout: { tcp: { established: 1h } }, action: return",
        "iif: [lan, wan], oif: \"! lan\", family: \"!ipv4\", ct-direction: reply, log: yes",
        "length: [0x40-100, \"1500\"], fragment: off, action: reject",
        "tcp-flags: [syn, \"syn , ack / syn\", rst/none], fragment: \"! yes\", action: drop",
        "tcp-flags: \"!syn\", fragment: [true, on], action: drop",
    ] {
        let text = format!(
            "{HEAD}chains: {{ forward: {{ rules: [{{ {body} }}] }}, c: {{ rules: }}, d: {{}} }}\n"
        );
        parse("x", &text).unwrap_or_else(|errors| panic!("{errors}"));
        assert!(validator.holds(&json(&text)), "{text}");
    }
}

/// What editors should underline.
#[test]
fn wrong_values_are_not_valid() {
    let validator = Validator::new(schema());
    for body in [
        "action: acept",
        "ct: establised, action: drop",
        "proto: tpc, action: drop",
        "icmp-type: echo-requst, action: drop",
        "dscp: af99, action: drop",
        "ct-helper: fpt, action: drop",
        "ct-status: asured, action: drop",
        "tcp-flags: sny, action: drop",
        "tcp-flags: [syn, \"!syn\"], action: drop",
        "fragment: [maybe], action: drop",
        "action: { reject: no-rout }",
        "proto: tcp, dport: 70000, action: drop",
        "limit: 5/secnd, action: drop",
        "saddr: example.org, action: drop",
    ] {
        let text = format!("{HEAD}chains: {{ forward: {{ rules: [{{ {body} }}] }} }}\n");
        assert!(parse("x", &text).is_err(), "{text}");
        assert!(!validator.holds(&json(&text)), "{text}");
    }
}
