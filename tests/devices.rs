//! Every kind of virtual device as a port of the real binary, by its name in the policy: what a laptop
//! has instead of NICs. (Taps are what all other end-to-end tests run on.) Needs root, or is re-run inside
//! user namespaces where the system allows that.
#![cfg(feature = "dpdk")]

mod common;

use common::{json, stop};
use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;
use shardwall::cli::lab::{Lab, LabError, OUTSIDE, as_root_of_a_namespace, is_root, pause, run};
use shardwall::wire::Addrs;
use shardwall::wire::build::{Segment, frame};
use std::fs;
use std::path::{Path, PathBuf};

const BINARY: &str = env!("CARGO_BIN_EXE_shardwall");

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
        "it failed inside `unshare -Urnm`: run it as root"
    );
    None
}

const RULES: &str = "
chains:
  forward:
    policy: drop
    rules:
      - { name: known, ct: [established, related], action: accept }
      - { name: ping, proto: [icmp, icmpv6], ct: new, action: accept }
      - { name: web, iif: lan, proto: tcp, dport: 80, ct: new, action: accept }
      - { name: bulk, iif: lan, proto: udp, dport: 9000, ct: new, action: accept }
";

/// The policy of `lab` with other devices; `device` makes them of the interfaces of a pair of cables,
/// whose other ends go into the namespaces.
fn on_cables(lab: &Lab, workers: u16, device: impl Fn(usize, &str) -> String) {
    let mut head = lab.head(workers, "off", "");
    for (number, side) in ["l", "w"].into_iter().enumerate() {
        let tap = format!("net_tap{number},iface=");
        let (_, rest) = head.split_once(&tap).unwrap();
        let end = rest.split('"').next().unwrap().to_owned();
        // The laboratory moves `end` into the namespace; the port is the other one.
        let port = format!("{}{}", &end[..end.len() - 1], side.to_uppercase());
        let _ = run(&["ip", "link", "del", &port]);
        run(&[
            "ip", "link", "add", &port, "type", "veth", "peer", "name", &end,
        ])
        .unwrap();
        for interface in [&port, &end] {
            // What a veth leaves to hardware that is not there reaches nobody's tracker.
            let off = [
                "tx", "off", "rx", "off", "tso", "off", "gso", "off", "gro", "off",
            ];
            run(&[&["ethtool", "-K", interface][..], &off].concat()).unwrap();
            run(&[
                "sysctl",
                "-qw",
                &format!("net.ipv6.conf.{interface}.disable_ipv6=1"),
            ])
            .unwrap();
        }
        let there = [
            "sysctl",
            "-qw",
            &format!("net.ipv6.conf.{end}.disable_ipv6=0"),
        ];
        run(&there).unwrap();
        run(&["ip", "link", "set", &port, "up"]).unwrap();
        let tap = format!("{tap}{end}");
        head = head.replace(&tap, &device(number, &port));
    }
    lab.write_policy(&(head + RULES)).unwrap();
}

/// Pings, a download, and what the appliance says of it.
fn use_it(lab: &Lab, driver: &str) {
    for host in [OUTSIDE.0, OUTSIDE.1] {
        let words = ["ping", "-c", "3", "-i", "0.2", "-W", "2", host];
        let ping = lab.lan.output(&words).unwrap();
        let said = String::from_utf8_lossy(&ping.stdout);
        assert!(said.contains("3 received"), "{said}");
    }
    let bytes: Vec<u8> = (0..3_000_000u32)
        .map(|i| (i >> 3) as u8 ^ i as u8)
        .collect();
    fs::write(lab.dir.join("file"), &bytes).unwrap();
    let web = ["python3", "-m", "http.server", "80", "--bind", "::"];
    let log = lab.dir.join("web.log");
    let _server = lab.wan.spawn(&web, &lab.dir, &log).unwrap();
    lab.await_port(&lab.wan, 80).unwrap();
    let url = format!("http://{}/file", OUTSIDE.0);
    let got = lab.lan.output(&["curl", "-sS", "-m", "60", &url]).unwrap();
    assert!(
        got.stdout == bytes,
        "{}",
        String::from_utf8_lossy(&got.stderr)
    );
    let ports = json(lab, &["ports"]);
    for port in ports.as_array().unwrap() {
        assert_eq!(port["driver"], driver, "{ports}");
        assert!(port["rx_packets"].as_u64() > Some(100), "{ports}");
    }
    let stats = json(lab, &["stats"]);
    assert_eq!(stats["conntrack"]["invalid"], 0, "{stats}");
}

#[test]
fn packet_sockets() {
    let Some(_turn) = enter("packet_sockets") else {
        return;
    };
    let mut lab = Lab::new("va", Path::new(BINARY)).unwrap();
    on_cables(&lab, 2, |number, port| {
        format!("net_af_packet{number},iface={port},qpairs=2")
    });
    lab.start().unwrap();
    use_it(&lab, "net_af_packet");
    let workers = json(&lab, &["workers"]);
    let sum = |key: &str| sum(&workers, key);
    assert_eq!(sum("handed_out"), sum("handed_in"), "{workers}");
    stop(lab);
}

fn sum(rows: &Value, key: &str) -> u64 {
    let rows = rows.as_array().unwrap().iter();
    rows.map(|row| row[key].as_u64().unwrap()).sum()
}

/// A tap's end that goes down takes the link down, which is told. (The drivers of packet sockets and of
/// captures call theirs up for good.)
#[test]
fn taps_and_their_links() {
    let Some(_turn) = enter("taps_and_their_links") else {
        return;
    };
    let lab = Lab::new("ve", Path::new(BINARY)).unwrap();
    let head = lab.head(1, "off", "");
    let (_, rest) = head.split_once("net_tap0,iface=").unwrap();
    let end = rest.split('"').next().unwrap().to_owned();
    lab.write_policy(&(head + RULES)).unwrap();
    let mut appliance = start(&lab);
    let port = |key: &str| json(&lab, &["ports"])[0][key].clone();
    let wait = |wanted: &str| {
        for _ in 0..200 {
            if port("link").as_str().unwrap().starts_with(wanted) {
                return;
            }
            pause(50);
        }
        panic!("the link is not {wanted}: {}", port("link"));
    };
    wait("up");
    for (way, is) in [("down", "down"), ("up", "up")] {
        run(&["ip", "link", "set", &end, way]).unwrap();
        wait(is);
    }
    assert_eq!(port("link_changes"), 2);
    let rss = port("rss");
    assert_eq!(rss, "none: one receive queue");
    let log = fs::read_to_string(lab.log()).unwrap();
    assert!(log.contains("the link is down; it was up"), "{log}");
    appliance.signal(shardwall::cli::lab::Signal::TERM);
    assert!(appliance.wait(20).unwrap().success());
}

#[test]
#[allow(clippy::print_stdout)] // that something was not tried should be seen
fn xdp_sockets() {
    let Some(_turn) = enter("xdp_sockets") else {
        return;
    };
    let mut lab = Lab::new("vb", Path::new(BINARY)).unwrap();
    on_cables(&lab, 1, |number, port| {
        format!("net_af_xdp{number},iface={port}")
    });
    match lab.start() {
        Ok(()) => {
            use_it(&lab, "net_af_xdp");
            stop(lab);
        }
        // A kernel without them, or rights that a user namespace does not give: said, with the port.
        Err(LabError::Appliance(said)) => {
            assert!(
                said.contains("port `lan`") && said.contains("net_af_xdp0"),
                "{said}"
            );
            println!("not here: {said}");
        }
        Err(other) => panic!("{other}"),
    }
}

/// Classic pcap, microseconds, Ethernet.
fn write_pcap(path: &Path, frames: &[Vec<u8>]) {
    let mut file = Vec::new();
    file.extend(0xa1b2_c3d4_u32.to_le_bytes());
    file.extend([2, 0, 4, 0]);
    file.extend([0; 8]);
    file.extend(65_535_u32.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    for (n, frame) in frames.iter().enumerate() {
        file.extend((n as u32).to_le_bytes());
        file.extend([0; 4]);
        file.extend((frame.len() as u32).to_le_bytes());
        file.extend((frame.len() as u32).to_le_bytes());
        file.extend(frame);
    }
    fs::write(path, file).unwrap();
}

fn read_pcap(path: &Path) -> Vec<Vec<u8>> {
    let file = fs::read(path).unwrap();
    let mut rest = &file[24..];
    let mut frames = Vec::new();
    while rest.len() >= 16 {
        let len = u32::from_le_bytes([rest[8], rest[9], rest[10], rest[11]]) as usize;
        frames.push(rest[16..16 + len].to_vec());
        rest = &rest[16 + len..];
    }
    frames
}

/// The policy of `lab` on the two devices.
fn on_devices(lab: &Lab, workers: u16, devices: [&str; 2], more: &str) {
    let head = lab.head(workers, "off", "");
    let (before, rest) = head.split_once("  lan:").unwrap();
    let (_, behind) = rest.split_once("bridge:").unwrap();
    let [lan, wan] = devices;
    let ports = format!(
        "  lan: {{ device: \"{lan}\"{more} }}\n  wan: {{ device: \"{wan}\"{more} }}\nbridge:"
    );
    lab.write_policy(&format!("{before}{ports}{behind}{RULES}"))
        .unwrap();
}

/// Starts the appliance without wiring anything to it.
fn start(lab: &Lab) -> shardwall::cli::lab::Process {
    let policy = lab.policy().display().to_string();
    let words = [BINARY, "run", "-c", &policy];
    let mut appliance = shardwall::cli::lab::start(&words, &lab.dir, &lab.log()).unwrap();
    for _ in 0..1000 {
        if lab
            .shardwall(&["stats"])
            .is_ok_and(|out| out.status.success())
        {
            return appliance;
        }
        let log = || fs::read_to_string(lab.log()).unwrap();
        assert!(appliance.ended().is_none(), "{}", log());
        pause(20);
    }
    panic!("the appliance does not answer");
}

#[test]
fn captures_with_frames_longer_than_a_buffer() {
    let Some(_turn) = enter("captures_with_frames_longer_than_a_buffer") else {
        return;
    };
    let lab = Lab::new("vc", Path::new(BINARY)).unwrap();
    let (from, to): (PathBuf, PathBuf) = (lab.dir.join("in.pcap"), lab.dir.join("out.pcap"));
    // Of all lengths up to 9000 bytes, each of a flow of its own; one of three is dropped.
    let sent: Vec<Vec<u8>> = (0..300u32)
        .map(|n| {
            let payload: Vec<u8> = (0..n * 30).map(|i| (i * 7 + n) as u8).collect();
            let dport = if n % 3 == 0 { 9 } else { 9000 };
            let addrs = Addrs::V4 {
                src: 0x0a00_0001 + n,
                dst: 0x0a4d_0002,
            };
            frame(addrs, Segment::Udp { sport: 999, dport }, &payload)
        })
        .collect();
    write_pcap(&from, &sent);
    let lan = format!("net_pcap0,rx_pcap={}", from.display());
    let wan = format!("net_pcap1,tx_pcap={}", to.display());
    on_devices(&lab, 1, [&lan, &wan], ", mtu: 9000");
    let mut appliance = start(&lab);
    for _ in 0..200 {
        if json(&lab, &["stats"])["packets"]["received"] == 300 {
            break;
        }
        pause(20);
    }
    let stats = json(&lab, &["stats"]);
    assert_eq!(stats["packets"]["forwarded"], 200, "{stats}");
    assert_eq!(stats["conntrack"]["invalid"], 0, "{stats}");
    appliance.signal(shardwall::cli::lab::Signal::TERM);
    assert!(appliance.wait(20).unwrap().success());
    let passed = sent.iter().enumerate().filter(|(n, _)| n % 3 != 0);
    let passed: Vec<_> = passed.map(|(_, frame)| frame.clone()).collect();
    assert!(read_pcap(&to) == passed, "each as it came, in its order");
}

#[test]
fn null_devices_take_a_key_and_a_table() {
    let Some(_turn) = enter("null_devices_take_a_key_and_a_table") else {
        return;
    };
    let lab = Lab::new("vd", Path::new(BINARY)).unwrap();
    on_devices(&lab, 2, ["net_null0", "net_null1"], ", promiscuous: false");
    let mut appliance = start(&lab);
    for _ in 0..200 {
        if json(&lab, &["stats"])["packets"]["received"].as_u64() > Some(0) {
            break;
        }
        pause(20);
    }
    let ports = json(&lab, &["ports", "--xstats"]);
    for port in ports.as_array().unwrap() {
        let rss = port["rss"].as_str().unwrap();
        assert!(
            rss.contains("key of 40 bytes (the key is read back)"),
            "{rss}"
        );
        assert!(rss.contains("ipv4-tcp ipv4-udp ipv6-tcp ipv6-udp"), "{rss}");
        assert!(rss.contains("table of 128"), "{rss}");
        assert!(
            port["xstats"]["rx_good_packets"].as_u64() > Some(0),
            "{port}"
        );
    }
    let text = |words: &[&str]| {
        let out = lab.shardwall(words).unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8(out.stdout).unwrap()
    };
    assert!(text(&["ports", "--xstats"]).contains("rx_good_packets"));
    assert!(text(&["ports"]).contains("toeplitz"));
    // Its frames are zeros, and belong to no flow.
    let said = text(&["ports", "rebalance", "--dry-run"]);
    assert!(
        said.contains("no packet came") && said.contains("nothing to move"),
        "{said}"
    );
    assert!(text(&["workers"]).contains("HANDED-BECAUSE"));
    let log = fs::read_to_string(lab.log()).unwrap();
    assert!(log.contains("toeplitz, key of 40 bytes"), "{log}");
    appliance.signal(shardwall::cli::lab::Signal::TERM);
    assert!(appliance.wait(20).unwrap().success());
}
