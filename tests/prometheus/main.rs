//! Debian's Prometheus against a running appliance with real traffic: every query of every panel and
//! rule returns data, and alerts fire when what they are for is the case. Needs root, or is re-run
//! inside user namespaces where the system allows that.
//!
//! `PICTURES=FOLDER cargo test --test prometheus every_query` draws the dashboards from its answers.
#![cfg(feature = "dpdk")]

#[path = "../common/mod.rs"]
mod common;
mod pictures;
mod server;

use common::{json, stop};
use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;
use server::{Prometheus, WINDOW, shipped};
use shardwall::cli::lab::{Lab, Process, as_root_of_a_namespace, free_port, is_root, pause, run};
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;

const BINARY: &str = env!("CARGO_BIN_EXE_shardwall");

/// One laboratory at a time.
static TURN: Mutex<()> = Mutex::new(());

/// The right to make a laboratory; `None` if the test has been run, as root of a user namespace.
fn enter(test: &str) -> Option<MutexGuard<'static, ()>> {
    let turn = TURN.lock();
    if is_root() {
        return Some(turn);
    }
    let binary = std::env::current_exe().unwrap();
    let binary = binary.to_string_lossy();
    let status = as_root_of_a_namespace(&[&binary, test, "--exact", "--nocapture"]).unwrap();
    assert!(status.success(), "run this test as root");
    None
}

/// A little of everything that a dashboard shows.
const RULES: &str = "
helpers:
  - { name: boot, helper: tftp, dport: 69 }
chains:
  forward:
    policy: drop
    rules:
      - { name: known, ct: [established, related], action: accept }
      - { name: broken, ct: invalid, action: drop }
      - { name: ping, proto: [icmp, icmpv6], ct: new, action: accept }
      - { name: web, iif: lan, proto: tcp, dport: 80, ct: new, action: accept, count: web }
      - { name: boot, iif: lan, proto: udp, dport: 69, ct: new, action: accept }
      - { name: bulk, iif: lan, proto: udp, dport: 20000-29999, limit: \"500/second per source\", action: accept }
      - { name: mail, iif: lan, proto: tcp, dport: 25, log: { prefix: mail }, action: reject }
";

/// Traffic for all of it, until it is ended.
const TRAFFIC: &str = "
while :; do
    curl -s -m 2 -o /dev/null http://10.77.0.2/ &
    curl -s -m 2 -o /dev/null http://10.77.0.2:25/ &
    ping -q -c 2 -i 0.2 -s 2000 10.77.0.2 >/dev/null &
    for port in 20001 20002 20003 9; do echo x >/dev/udp/10.77.0.2/$port; done
    printf '\\0\\1file\\0octet\\0' >/dev/udp/10.77.0.2/69
    sleep 0.3
    wait
done
";

fn lab(kind: &str, workers: u16, metrics: &str, rules: &str) -> Lab {
    let mut lab = Lab::new(kind, Path::new(BINARY)).unwrap();
    let policy = lab.head(workers, metrics, "") + rules;
    lab.write_policy(&policy).unwrap();
    lab.start().unwrap();
    lab
}

fn web(lab: &Lab) -> Process {
    fs::write(lab.dir.join("index.html"), vec![b'x'; 20_000]).unwrap();
    let words = ["python3", "-m", "http.server", "80", "--bind", "::"];
    let server = lab.wan.spawn(&words, &lab.dir, &lab.dir.join("web.log"));
    lab.await_port(&lab.wan, 80).unwrap();
    server.unwrap()
}

/// A dashboard's variables, filled in.
fn filled(query: &str) -> String {
    query
        .replace("$__rate_interval", WINDOW)
        .replace("$__interval", WINDOW)
        .replace("$instance", ".+")
}

/// The dashboards, by name.
fn dashboards() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/grafana");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == "json"))
        .collect();
    files.sort();
    let read = |path: &std::path::PathBuf| fs::read_to_string(path).unwrap();
    files
        .iter()
        .map(|path| serde_json::from_str(&read(path)).unwrap())
        .collect()
}

/// The queries of a dashboard, each with the title of its panel.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for panel in dashboard["panels"].as_array().into_iter().flatten() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            all.push((text(&panel["title"]), text(&target["expr"])));
        }
    }
    for annotation in dashboard["annotations"]["list"]
        .as_array()
        .into_iter()
        .flatten()
    {
        if let Some(query) = annotation["expr"].as_str() {
            all.push(("annotation".into(), compared(query).to_owned()));
        }
    }
    all
}

/// What a condition compares: all before its last comparison.
fn compared(query: &str) -> &str {
    let signs = [" > ", " == ", " < ", " >= ", " <= ", " != "];
    let last = signs.iter().filter_map(|sign| query.rfind(sign)).max();
    &query[..last.unwrap_or(query.len())]
}

#[test]
fn every_query_has_data() {
    let Some(_turn) = enter("every_query_has_data") else {
        return;
    };
    let metrics = format!("127.0.0.1:{}", free_port());
    let lab = lab("pq", 2, &metrics, RULES);
    let _web = web(&lab);
    let log = lab.dir.join("traffic.log");
    let traffic = lab
        .lan
        .spawn(&["bash", "-c", TRAFFIC], &lab.dir, &log)
        .unwrap();
    let prometheus = Prometheus::start(&lab, &metrics, true);
    pause(12_000);
    // So that there is something to see of it.
    assert!(lab.shardwall(&["reload"]).unwrap().status.success());
    pause(4_000);

    let mut asked = 0;
    let mut empty = Vec::new();
    let mut check = |place: &str, query: &str| {
        asked += 1;
        match prometheus.query(&filled(query)) {
            Ok(samples) if samples.is_empty() => empty.push(format!("{place}: no data: {query}")),
            Ok(_) => {}
            Err(error) => empty.push(format!("{place}: {error}: {query}")),
        }
    };
    for dashboard in dashboards() {
        let title = dashboard["title"].as_str().unwrap();
        for (panel, query) in queries(&dashboard) {
            check(&format!("{title}: {panel}"), &query);
        }
    }
    let rules = prometheus.ask("/api/v1/rules").unwrap();
    let groups = rules["groups"].as_array().unwrap();
    let rules: Vec<_> = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap())
        .collect();
    for rule in &rules {
        let name = rule["name"].as_str().unwrap();
        assert_eq!(rule["health"], "ok", "{rule}");
        match rule["type"].as_str().unwrap() {
            "recording" => check(name, name),
            _ => check(name, compared(rule["query"].as_str().unwrap())),
        }
    }
    assert!(asked > 100, "{asked}");
    assert!(
        empty.is_empty(),
        "{} of {asked}:\n{}",
        empty.len(),
        empty.join("\n")
    );
    let written = ["recording.yml", "alerts.yml"].map(shipped).concat();
    let count = |word: &str| written.matches(word).count();
    assert_eq!(rules.len(), count("- alert: ") + count("- record: "));
    let instances = prometheus.ask("/api/v1/label/instance/values").unwrap();
    assert_eq!(instances, Value::from(vec![metrics]));
    if let Some(folder) = std::env::var_os("PICTURES") {
        pause(20_000);
        for dashboard in dashboards() {
            pictures::draw(&dashboard, &prometheus, Path::new(&folder));
        }
    }
    drop(traffic);
    drop(prometheus);
    stop(lab);
}

/// Many flows to a table that holds few, each with a log line and two events.
const FLOOD: &str = "
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
n = 0
while True:
    for _ in range(150):
        s.sendto(b'x', ('10.77.0.2', 20000 + n % 40000))
        n += 1
    time.sleep(0.02)
";

/// Flows that announce others.
const BOOT: &str = "
import socket, time
while True:
    for n in range(8):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.bind(('10.77.0.1', 3000 + n))
        s.sendto(b'\\0\\1file\\0octet\\0', ('10.77.0.2', 69))
        s.close()
    time.sleep(1)
";

/// Connections that stay.
const HOLD: &str = "
import socket, time
held = []
while True:
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    s.setblocking(False)
    s.connect_ex(('10.77.0.2', 80))
    held.append(s)
    time.sleep(0.02)
";

const SMALL: &str = "
conntrack: { max: 64, expect_max: 8 }
helpers:
  - { name: boot, helper: tftp, dport: 69 }
chains:
  forward:
    policy: drop
    rules:
      - { name: known, ct: [established, related], action: accept }
      - { name: boot, iif: lan, proto: udp, dport: 69, ct: new, action: accept }
      - { name: web, iif: lan, proto: tcp, dport: 80, ct: new, action: accept }
      - { name: flood, iif: lan, proto: udp, ct: new, action: accept, log: { prefix: flood, limit: \"100000/second burst 10000\" } }
";

#[test]
fn alerts_fire_on_a_running_appliance() {
    let Some(_turn) = enter("alerts_fire_on_a_running_appliance") else {
        return;
    };
    let metrics = format!("127.0.0.1:{}", free_port());
    let mut lab = lab("pa", 1, &metrics, SMALL);
    let _web = web(&lab);
    let prometheus = Prometheus::start(&lab, &metrics, true);
    let log = lab.dir.join("traffic.log");
    let python = |lab: &Lab, script: &str| {
        let words = ["python3", "-c", script];
        lab.lan.spawn(&words, &lab.dir, &log).unwrap()
    };
    pause(3_000);
    // What a box that other work shares may have at any time.
    let usual = ["ShardwallSlowLoops", "ShardwallWorkerSaturated"];
    let mut quiet = prometheus.firing();
    quiet.retain(|alert| !usual.contains(&alert.as_str()));
    assert_eq!(quiet, [""; 0], "nothing is wrong yet");
    let fires = |alert: &str| {
        let alert = format!("Shardwall{alert}");
        for _ in 0..200 {
            if prometheus.firing().contains(&alert) {
                return;
            }
            pause(200);
        }
        panic!(
            "{alert} does not fire; others do: {:?}",
            prometheus.firing()
        );
    };

    let policy = fs::read_to_string(lab.policy()).unwrap();
    lab.write_policy(&policy.replace("ct: new", "ct: knew"))
        .unwrap();
    assert!(!lab.shardwall(&["reload"]).unwrap().status.success());
    assert_eq!(json(&lab, &["stats"])["reload"]["failed"], 1);
    fires("ReloadFailed");

    let boot = python(&lab, BOOT);
    fires("ExpectationsNearLimit");
    drop(boot);

    // One that asks for events, and never reads.
    let mut watcher = UnixStream::connect(lab.socket()).unwrap();
    watcher
        .write_all(b"{\"cmd\":\"conntrack-watch\"}\n")
        .unwrap();
    let flood = python(&lab, FLOOD);
    for alert in ["TableFilling", "EarlyDrops", "LogLost", "EventsLost"] {
        fires(alert);
    }
    drop((flood, watcher));

    let hold = python(&lab, HOLD);
    fires("InsertFailures");
    drop(hold);

    let ports = run(&["ip", "-n", lab.lan.name(), "-o", "link"])
        .unwrap()
        .stdout;
    let ports = String::from_utf8(ports).unwrap();
    let port = ports.lines().find_map(|line| {
        line.split(": ")
            .nth(1)
            .filter(|name| name.starts_with("sw"))
    });
    let port = port.expect("the port's end");
    // Back beside the appliance, whose driver asks for the link there; it is down when it comes.
    let own = std::process::id().to_string();
    let home = [
        "ip",
        "-n",
        lab.lan.name(),
        "link",
        "set",
        port,
        "netns",
        &own,
    ];
    run(&home).unwrap();
    fires("PortDown");

    assert!(lab.stop().expect("it ends").success());
    fires("Down");
}
