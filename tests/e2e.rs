//! The real binary on tap ports between two namespaces, with real programs. Needs root, or is
//! re-run inside user namespaces where the system allows that.
#![cfg(feature = "dpdk")]

mod common;

use common::{json, stop};
use parking_lot::{Mutex, MutexGuard};
use shardwall::cli::lab::{
    INSIDE, Lab, LabError, OUTSIDE, Signal, as_root_of_a_namespace, free_port, is_root, output,
    pause, run, start,
};
use std::fs;
use std::path::Path;

const BINARY: &str = env!("CARGO_BIN_EXE_shardwall");

/// One laboratory at a time: two polling workers are enough for two cores.
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
    assert!(
        status.success(),
        "this test needs network namespaces; it failed inside `unshare -Urnm`, so run it as root"
    );
    None
}

const RULES: &str = "
chains:
  forward:
    policy: drop
    rules:
      - { name: known, ct: [established, related], action: accept }
      - { name: broken, ct: invalid, action: drop }
      - { name: ping, proto: [icmp, icmpv6], ct: new, action: accept }
      - { name: web, iif: lan, proto: tcp, dport: 80, ct: new, action: accept }
      - { name: bulk, iif: lan, proto: udp, dport: 9000, ct: new, action: accept }
      - { name: no-mail, iif: lan, proto: tcp, dport: 25, action: reject }
";

fn lab(kind: &str, workers: u16) -> Lab {
    let mut lab = Lab::new(kind, Path::new(BINARY)).unwrap();
    let head = lab.head(workers, "127.0.0.1:0", "");
    lab.write_policy(&(head + RULES)).unwrap();
    lab.start().unwrap();
    lab
}

#[test]
fn files_of_100_mb_pass_two_workers_byte_for_byte() {
    let Some(_turn) = enter("files_of_100_mb_pass_two_workers_byte_for_byte") else {
        return;
    };
    let lab = lab("ea", 2);
    let file = lab.dir.join("file");
    let mut state = 1u64;
    let noise: Vec<u8> = (0..100 << 17)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect();
    assert_eq!(noise.len(), 100 << 20);
    fs::write(&file, &noise).unwrap();
    fs::write(lab.dir.join("small"), "small").unwrap();
    let web = ["python3", "-m", "http.server", "80", "--bind", "::"];
    let _server = lab
        .wan
        .spawn(&web, &lab.dir, &lab.dir.join("web.log"))
        .unwrap();
    lab.await_port(&lab.wan, 80).unwrap();
    let copy = lab.dir.join("copy");
    for host in [OUTSIDE.0.to_owned(), format!("[{}]", OUTSIDE.1)] {
        let url = format!("http://{host}/file");
        let to = copy.to_string_lossy();
        let got = lab
            .lan
            .output(&["curl", "-sS", "-m", "120", "-o", &to, &url])
            .unwrap();
        assert!(
            got.status.success(),
            "{}",
            String::from_utf8_lossy(&got.stderr)
        );
        assert!(
            fs::read(&copy).unwrap() == noise,
            "the file from {host} differs"
        );
    }
    // Enough flows that both workers own some.
    for _ in 0..20 {
        let url = format!("http://{}/small", OUTSIDE.0);
        let got = lab.lan.output(&["curl", "-sS", "-m", "5", &url]).unwrap();
        assert_eq!(got.stdout, b"small");
    }
    let flows = json(&lab, &["conntrack", "-L", "-p", "tcp"]);
    let flows = flows.as_array().unwrap();
    assert_eq!(flows.len(), 22);
    // One entry a flow, which saw both directions and the whole handshake: had the directions
    // come to different shards, each would hold half a flow.
    let mut shards = std::collections::BTreeSet::new();
    for flow in flows {
        assert_eq!(
            (&flow["seen_reply"], &flow["assured"]),
            (&true.into(), &true.into()),
            "{flow}"
        );
        shards.insert(flow["shard"].as_u64().unwrap());
    }
    assert_eq!(shards.len(), 2, "both workers own flows");
    // What was handed over was taken.
    let workers = json(&lab, &["workers"]);
    let sum = |key: &str| -> u64 {
        workers
            .as_array()
            .unwrap()
            .iter()
            .map(|worker| worker[key].as_u64().unwrap())
            .sum()
    };
    assert_eq!(sum("handed_out"), sum("handed_in"), "{workers}");
    let stats = json(&lab, &["stats"]);
    assert_eq!(stats["conntrack"]["invalid"], 0, "{stats}");
    stop(lab);
}

#[test]
fn policy_decides_and_reload_swaps_it() {
    let Some(_turn) = enter("policy_decides_and_reload_swaps_it") else {
        return;
    };
    let mut lab = lab("eb", 2);
    let curl = |lab: &Lab, port: u16, secs: &str| {
        let url = format!("http://{}:{port}/", OUTSIDE.0);
        lab.lan
            .output(&["curl", "-sS", "-m", secs, &url])
            .unwrap()
            .status
            .code()
    };
    for address in [OUTSIDE.0, OUTSIDE.1] {
        let ping = lab
            .lan
            .output(&["ping", "-c", "2", "-i", "0.1", "-W", "2", address])
            .unwrap();
        assert!(
            ping.status.success(),
            "{}",
            String::from_utf8_lossy(&ping.stdout)
        );
    }
    assert_eq!(curl(&lab, 25, "5"), Some(7), "rejected: refused at once");
    assert_eq!(curl(&lab, 81, "1"), Some(28), "dropped: no answer");
    assert_eq!(
        curl(&lab, 80, "5"),
        Some(7),
        "accepted: the server's own refusal"
    );
    let back = format!("http://{}/", INSIDE.0);
    let back = lab.wan.output(&["curl", "-sS", "-m", "1", &back]).unwrap();
    assert_eq!(back.status.code(), Some(28), "nobody comes in");

    // The new policy rejects what the old one dropped.
    let text = fs::read_to_string(lab.policy()).unwrap();
    lab.write_policy(&text.replace("dport: 25", "dport: [25, 81]"))
        .unwrap();
    assert!(lab.shardwall(&["reload"]).unwrap().status.success());
    assert_eq!(curl(&lab, 81, "5"), Some(7));
    // A broken one is refused, and says where; the running one stays.
    lab.write_policy(&text.replace("ct: invalid", "ct: invalit"))
        .unwrap();
    let refused = lab.shardwall(&["reload"]).unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success());
    assert!(
        said.contains("did you mean `invalid`") && said.contains("policy.yaml:"),
        "{said}"
    );
    assert_eq!(curl(&lab, 81, "5"), Some(7));
    // SIGHUP does the same as the command.
    lab.write_policy(&text).unwrap();
    lab.appliance().unwrap().signal(Signal::HUP);
    let mut generation = 0;
    for _ in 0..100 {
        generation = json(&lab, &["stats"])["generation"].as_u64().unwrap();
        if generation == 3 {
            break;
        }
        pause(20);
    }
    assert_eq!(generation, 3);
    assert_eq!(curl(&lab, 81, "1"), Some(28));
    stop(lab);
}

/// Answers every datagram with its bytes in reverse.
const MIRROR: &str = "
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.bind(('::', 9000))
while True:
    data, peer = s.recvfrom(70000)
    s.sendto(data[::-1], peer)
";

/// Sends datagrams of each size to each host from one socket, and says what came back wrong.
const ASK: &str = "
import os, socket, sys
for host in sys.argv[1:]:
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.settimeout(2)
    for size in (100, 1473, 9000, 30000, 65000):
        data = os.urandom(size)
        for attempt in range(5):
            s.sendto(data, (host, 9000))
            try:
                got = s.recv(70000)
            except OSError as error:
                got = error
            if got == data[::-1]:
                break
        else:
            print(host, size, got if isinstance(got, OSError) else 'differs')
";

#[test]
fn datagrams_in_fragments_pass_two_workers() {
    let Some(_turn) = enter("datagrams_in_fragments_pass_two_workers") else {
        return;
    };
    let lab = lab("ei", 2);
    for (host, size) in [
        (OUTSIDE.0, "8000"),
        (OUTSIDE.1, "8000"),
        (OUTSIDE.0, "65507"),
        (OUTSIDE.1, "65487"),
    ] {
        let words = ["ping", "-c", "3", "-i", "0.2", "-W", "2", "-s", size, host];
        let ping = lab.lan.output(&words).unwrap();
        let said = String::from_utf8_lossy(&ping.stdout);
        assert!(said.contains("3 received"), "{said}");
    }
    let log = lab.dir.join("mirror.log");
    let _server = lab
        .wan
        .spawn(&["python3", "-c", MIRROR], &lab.dir, &log)
        .unwrap();
    for _ in 0..100 {
        let listening = lab.wan.output(&["ss", "-Hlun", "sport = :9000"]).unwrap();
        if !listening.stdout.is_empty() {
            break;
        }
        pause(20);
    }
    let hosts = [OUTSIDE.0, OUTSIDE.1];
    let asked = lab
        .lan
        .output(&[&["python3", "-c", ASK][..], &hosts].concat())
        .unwrap();
    let said = String::from_utf8_lossy(&asked.stdout);
    assert!(asked.status.success() && said.is_empty(), "{said}");
    // One flow a family: the small datagram, the fragmented ones and their answers.
    let flows = json(&lab, &["conntrack", "-L", "-p", "udp"]);
    let flows = flows.as_array().unwrap();
    assert_eq!(flows.len(), 2, "{flows:?}");
    for flow in flows {
        assert_eq!(flow["seen_reply"], true, "{flow}");
    }
    let stats = json(&lab, &["stats"]);
    let packets = &stats["packets"];
    // Every ping and its answer, and all but the smallest datagrams.
    assert!(
        packets["reassembled"].as_u64() >= Some(2 * 12 + 2 * 8),
        "{stats}"
    );
    assert_eq!(
        (&packets["held"], &stats["conntrack"]["invalid"]),
        (&0.into(), &0.into())
    );
    stop(lab);
}

#[test]
fn the_table_is_listed_counted_and_flushed() {
    let Some(_turn) = enter("the_table_is_listed_counted_and_flushed") else {
        return;
    };
    let lab = lab("ec", 1);
    let ping = lab.lan.output(&["ping", "-c", "1", OUTSIDE.0]).unwrap();
    assert!(ping.status.success());
    let text = |words: &[&str]| {
        let out = lab.shardwall(words).unwrap();
        assert!(out.status.success());
        (
            String::from_utf8(out.stdout).unwrap(),
            String::from_utf8(out.stderr).unwrap(),
        )
    };
    let (list, footer) = text(&["conntrack", "-L", "-p", "icmp"]);
    assert!(list.starts_with("icmp     1 "), "{list}");
    assert!(
        list.contains("src=10.77.0.1 dst=10.77.0.2 type=8 code=0 id="),
        "{list}"
    );
    assert!(
        list.contains("src=10.77.0.2 dst=10.77.0.1 type=0 code=0 id="),
        "{list}"
    );
    assert!(
        footer.contains("1 flow entries have been shown."),
        "{footer}"
    );
    assert_eq!(text(&["conntrack", "-C"]).0, "1\n");
    text(&["conntrack", "-F"]);
    assert_eq!(text(&["conntrack", "-C"]).0, "0\n");
    stop(lab);
}

/// A web server that closes a while after its answer, so that its FIN meets no packet on the way:
/// two trackers in two places would see these in two orders.
const PATIENT: &str = "
import http.server, socket, time
class Patient(http.server.SimpleHTTPRequestHandler):
    def finish(self):
        self.wfile.flush()
        time.sleep(0.2)
        super().finish()
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
Server(('::', 80), Patient).serve_forever()
";

/// The namespace behind `wan` tracks the same packets with the kernel's own tracker.
#[test]
fn events_come_as_the_kernel_tells_them() {
    let Some(_turn) = enter("events_come_as_the_kernel_tells_them") else {
        return;
    };
    let lab = lab("ei", 2);
    fs::write(lab.dir.join("small"), "small").unwrap();
    let spawn = |words: &[&str], log: &str| {
        let log = lab.dir.join(log);
        lab.wan.spawn(words, &lab.dir, &log).unwrap()
    };
    lab.wan
        .output(&[
            "nft",
            "table inet t { chain c { type filter hook input priority 0; ct state new; }; }",
        ])
        .unwrap();
    let _server = spawn(&["python3", "-c", PATIENT], "web.log");
    lab.await_port(&lab.wan, 80).unwrap();
    let mut kernel = spawn(&["conntrack", "-E", "-p", "tcp"], "kernel.log");
    let socket = lab.socket().display().to_string();
    let ours = [BINARY, "--socket", &socket, "conntrack", "-E", "-p", "tcp"];
    let log = lab.dir.join("ours.log");
    let mut ours = start(&ours, &lab.dir, &log).unwrap();
    let watchers = || json(&lab, &["stats"])["conntrack"]["events"]["watchers"].clone();
    for _ in 0..500 {
        if watchers() == 1 {
            break;
        }
        pause(20);
    }
    assert_eq!(watchers(), 1);
    pause(500);
    let url = format!("http://{}/small", OUTSIDE.0);
    let got = lab.lan.output(&["curl", "-sS", "-m", "5", &url]).unwrap();
    assert_eq!(got.stdout, b"small");
    pause(300);
    assert!(
        lab.shardwall(&["conntrack", "-F"])
            .unwrap()
            .status
            .success()
    );
    lab.wan.output(&["conntrack", "-F"]).unwrap();
    pause(300);
    for process in [&mut kernel, &mut ours] {
        process.signal(Signal::INT);
        process.wait(10).unwrap();
    }
    let events = |log: &str| -> Vec<String> {
        let text = fs::read_to_string(lab.dir.join(log)).unwrap();
        let lines = text.lines().filter(|line| line.contains("dport=80"));
        // Who asked for the end, and how much time was left, is between the two.
        lines
            .map(|line| match line.split_once("TIME_WAIT") {
                Some((head, tail)) if head.starts_with("[DESTROY]") => {
                    let tail = tail.split(" [USERSPACE]").next().unwrap_or(tail);
                    format!("[DESTROY] TIME_WAIT{tail}")
                }
                _ => line.to_owned(),
            })
            .collect()
    };
    let (theirs, ours) = (events("kernel.log"), events("ours.log"));
    assert_eq!(ours, theirs);
    assert!(ours.len() >= 6, "{ours:?}");
    assert!(
        ours[0].starts_with("    [NEW] tcp      6 120 SYN_SENT src=10.77.0.1"),
        "{ours:?}"
    );
    assert!(
        ours[ours.len() - 1].starts_with("[DESTROY] TIME_WAIT"),
        "{ours:?}"
    );
    let text = fs::read_to_string(&log).unwrap();
    let footer = format!(": {} flow events have been shown.\n", ours.len());
    assert!(text.ends_with(&footer), "{text}");
    stop(lab);
}

#[test]
fn a_second_appliance_and_bad_input_are_told_what_to_do() {
    let Some(_turn) = enter("a_second_appliance_and_bad_input_are_told_what_to_do") else {
        return;
    };
    let lab = lab("ed", 1);
    let good = fs::read_to_string(lab.policy()).unwrap();
    let socket = lab.socket().display().to_string();
    let own = good.replace(&socket, &lab.dir.join("other.sock").display().to_string());
    let taken = free_tcp();
    let metrics = taken.local_addr().unwrap().to_string();
    let cases = [
        ("second", good.clone(), "another shardwall is running"),
        ("yaml", "version: 1\nports: [".into(), "case.yaml:"),
        (
            "unknown",
            own.replace("iif: lan, proto: tcp, dport: 80", "iif: dmz"),
            "dmz",
        ),
        (
            "device",
            own.replace("net_tap0,iface=", "net_nothing0,iface="),
            "net_nothing0",
        ),
        (
            "pci",
            own.replace("net_tap0,iface=", "0000:ff:1f.7,x="),
            "0000:ff:1f.7",
        ),
        (
            "metrics",
            own.replace("127.0.0.1:0", &metrics),
            "already in use",
        ),
        ("core", own.replace("workers: 1", "cores: [4000]"), "4000"),
    ];
    for (name, policy, says) in cases {
        let said = refused(&lab, &policy);
        assert!(said.contains(says), "{name}: {says:?} expected in {said}");
        assert!(
            !lab.dir.join("other.sock").exists(),
            "{name}: the socket is left behind"
        );
    }
    let missing = output(&[BINARY, "run", "-c", "/nowhere/policy.yaml"]).unwrap();
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/nowhere/policy.yaml"));
    assert!(!missing.status.success());
    // Whatever was tried beside it, it forwards.
    let words = ["ping", "-c", "1", "-W", "5", OUTSIDE.0];
    assert!(lab.lan.output(&words).unwrap().status.success());
    stop(lab);
    let interfaces = run(&["ip", "-o", "link"]).unwrap();
    let interfaces = String::from_utf8_lossy(&interfaces.stdout).into_owned();
    assert!(
        !interfaces.contains("swed"),
        "an interface is left behind: {interfaces}"
    );
}

/// Runs the appliance under a policy that it must refuse; what it said.
fn refused(lab: &Lab, policy: &str) -> String {
    let path = lab.dir.join("case.yaml");
    fs::write(&path, policy).unwrap();
    let out = output(&[
        "timeout",
        "20",
        BINARY,
        "run",
        "-c",
        &path.to_string_lossy(),
    ])
    .unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    // 2 says that the policy is wrong, 1 that the box does not have what it asks for.
    assert!(matches!(out.status.code(), Some(1 | 2)), "{said}");
    said
}

fn free_tcp() -> std::net::TcpListener {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap()
}

#[test]
fn a_device_that_another_appliance_holds_is_refused() {
    let Some(_turn) = enter("a_device_that_another_appliance_holds_is_refused") else {
        return;
    };
    let lab = Lab::new("eh", Path::new(BINARY)).unwrap();
    let policy = lab.head(1, "off", "") + RULES;
    lab.write_policy(&policy).unwrap();
    let file = lab.policy().display().to_string();
    // Its interfaces stay here, where the second one looks for them.
    let mut first = start(&[BINARY, "run", "-c", &file], &lab.dir, &lab.log()).unwrap();
    for _ in 0..500 {
        if lab
            .shardwall(&["stats"])
            .is_ok_and(|out| out.status.success())
        {
            break;
        }
        pause(20);
    }
    let own_socket = lab.dir.join("other.sock").display().to_string();
    let said = refused(
        &lab,
        &policy.replace(&lab.socket().display().to_string(), &own_socket),
    );
    assert!(said.contains("port `lan`"), "{said}");
    assert!(said.contains("another process has the other end"), "{said}");
    first.signal(Signal::TERM);
    assert!(first.wait(10).unwrap().success());
}

#[test]
fn hugepages_and_permissions_that_are_missing_are_named() {
    let Some(_turn) = enter("hugepages_and_permissions_that_are_missing_are_named") else {
        return;
    };
    let lab = Lab::new("ee", Path::new(BINARY)).unwrap();
    let more = ", hugepages: required, memory: 900000";
    let said = refused(&lab, &(lab.head(1, "off", more) + RULES));
    assert!(said.contains("hugepages"), "{said}");
    // In a user namespace there is only one user to be.
    if fs::read_to_string("/proc/self/uid_map")
        .unwrap()
        .split_whitespace()
        .nth(2)
        == Some("1")
    {
        return;
    }
    // Somebody else's rights: neither tap devices nor the socket's folder.
    let path = lab.dir.join("case.yaml");
    fs::write(&path, lab.head(1, "off", "") + RULES).unwrap();
    let policy = path.to_string_lossy();
    let nobody = ["setpriv", "--reuid", "65534", "--clear-groups", "--"];
    let words = [
        &nobody[..],
        &["timeout", "20", BINARY, "run", "-c", &policy],
    ]
    .concat();
    let out = output(&words).unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success());
    assert!(said.to_lowercase().contains("permission"), "{said}");
}

#[test]
fn metrics_are_served_and_the_dashboards_names_are_among_them() {
    let Some(_turn) = enter("metrics_are_served_and_the_dashboards_names_are_among_them") else {
        return;
    };
    let mut lab = Lab::new("ef", Path::new(BINARY)).unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let head = lab.head(1, &address, "");
    let counted = RULES
        .replace("{ name: ping,", "{ name: ping, count: pings,")
        .replace("dport: 9000,", "dport: 9000, limit: 9/second per source,");
    lab.write_policy(&(head + &counted)).unwrap();
    lab.start().unwrap();
    lab.lan.output(&["ping", "-c", "1", OUTSIDE.0]).unwrap();
    let scrape = run(&[
        "curl",
        "-sS",
        "-m",
        "5",
        &format!("http://{address}/metrics"),
    ])
    .unwrap();
    let scrape = String::from_utf8(scrape.stdout).unwrap();
    for name in shardwall::control::metrics::NAMES {
        let served = scrape.lines().any(|line| {
            // a histogram's name is its buckets'
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']) || rest.starts_with("_bucket{"))
        });
        assert!(served, "{name} is not in the scrape");
    }
    assert!(
        scrape.contains("shardwall_conntrack_entries{proto=\"other\"} 1"),
        "{scrape}"
    );
    let pings = "shardwall_policy_counter_packets_total{counter=\"pings\"} 1";
    assert!(scrape.contains(pings), "{scrape}");
    stop(lab);
}

#[test]
fn a_killed_run_leaves_nothing_that_stops_the_next() {
    let Some(_turn) = enter("a_killed_run_leaves_nothing_that_stops_the_next") else {
        return;
    };
    let mut first = lab("eg", 1);
    first.appliance().unwrap().signal(Signal::KILL);
    first.appliance().unwrap().wait(5).unwrap();
    assert!(first.socket().exists(), "kill -9 leaves the socket");
    let policy = first.policy().display().to_string();
    let log = first.dir.join("second.log");
    let mut second = start(&[BINARY, "run", "-c", &policy], &first.dir, &log).unwrap();
    for _ in 0..500 {
        if first
            .shardwall(&["stats"])
            .is_ok_and(|out| out.status.success())
        {
            break;
        }
        pause(20);
    }
    assert!(first.shardwall(&["stats"]).unwrap().status.success());
    second.signal(Signal::TERM);
    assert!(second.wait(10).unwrap().success());
}

#[test]
fn the_demo_works_twice() {
    let Some(_turn) = enter("the_demo_works_twice") else {
        return;
    };
    for _ in 0..2 {
        let out = output(&["timeout", "100", BINARY, "demo"]).unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{text}\n{said}");
        assert!(text.contains("Everything is cleaned up."));
    }
    let left = run(&["ip", "netns"]).unwrap();
    assert!(!String::from_utf8_lossy(&left.stdout).contains("demo"));
}

#[test]
fn the_laboratory_says_when_a_program_is_missing() {
    let missing = run(&["no-such-program"]);
    assert!(matches!(missing, Err(LabError::Program { .. })));
}
