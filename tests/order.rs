//! Order through the real binary: two workers read numbered packets from captures, one each, own
//! about half of the flows that they read, and write what they send to captures of their own. No
//! NIC, no root.
#![cfg(feature = "dpdk")]

use shardwall::cli::lab::{Signal, pause, start};
use shardwall::control::snapshot::{Stats, WorkerRow};
use shardwall::control::{Client, Request};
use shardwall::wire::build::{Segment, frame};
use shardwall::wire::{Addrs, parse};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const FLOWS: u32 = 64;
const NUMBERS: u32 = 500;

/// Packet `number` of `flow`.
fn numbered(flow: u32, number: u32) -> Vec<u8> {
    let addrs = Addrs::V4 {
        src: 0x0a00_0000 + flow,
        dst: 0x0a01_0001,
    };
    let (sport, dport) = (4000, 53);
    let payload = [flow.to_be_bytes(), number.to_be_bytes(), [0; 4], [0; 4]].concat();
    frame(addrs, Segment::Udp { sport, dport }, &payload)
}

/// Classic pcap, microseconds, Ethernet.
fn write_pcap(path: &Path, frames: impl Iterator<Item = Vec<u8>>) {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1_u32] {
        file.extend(word.to_le_bytes());
    }
    for frame in frames {
        let len = frame.len() as u32;
        for word in [0, 0, len, len] {
            file.extend(word.to_le_bytes());
        }
        file.extend(frame);
    }
    fs::write(path, file).unwrap();
}

fn read_pcap(path: &Path) -> Vec<Vec<u8>> {
    let file = fs::read(path).unwrap();
    let mut rest = &file[24..];
    let mut frames = Vec::new();
    while let Some((head, behind)) = rest.split_at_checked(16) {
        let len = u32::from_le_bytes(head[8..12].try_into().unwrap()) as usize;
        let (frame, behind) = behind.split_at(len);
        frames.push(frame.to_vec());
        rest = behind;
    }
    frames
}

#[test]
fn packets_leave_in_the_order_in_which_they_came() {
    let dir = std::env::temp_dir().join(format!("shardwall-order-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let file = |name: &str| dir.join(name).display().to_string();
    for queue in 0..2 {
        let flows = move || (0..FLOWS).filter(move |flow| flow % 2 == queue);
        let packets =
            (0..NUMBERS).flat_map(|number| flows().map(move |flow| numbered(flow, number)));
        write_pcap(&dir.join(format!("in{queue}")), packets);
        write_pcap(&dir.join(format!("none{queue}")), std::iter::empty());
    }
    let device = |name: &str, rx: &str, tx: &str| {
        let each = |kind: &str, what: &str| {
            let each = |queue| format!(",{kind}_pcap={}", file(&format!("{what}{queue}")));
            each(0) + &each(1)
        };
        format!("{name}{}{}", each("rx", rx), each("tx", tx))
    };
    let policy = format!(
        "version: 1\nports:\n  lan: {{ device: \"{}\" }}\n  wan: {{ device: \"{}\" }}\nbridge: [[lan, wan]]\n\
         system: {{ workers: 2, idle: yield, hugepages: off, metrics: off, socket: {} }}\n\
         chains: {{ forward: {{ policy: accept }} }}\n",
        device("net_pcap0", "in", "back"),
        device("net_pcap1", "none", "out"),
        file("socket"),
    );
    fs::write(dir.join("policy.yaml"), policy).unwrap();
    let words = [
        env!("CARGO_BIN_EXE_shardwall"),
        "run",
        "-c",
        &file("policy.yaml"),
    ];
    let mut appliance = start(&words, &dir, &dir.join("log")).unwrap();
    let all = u64::from(FLOWS * NUMBERS);
    let mut ended = None;
    for _ in 0..1000 {
        pause(20);
        let Ok(mut client) = Client::connect(&dir.join("socket")) else {
            continue;
        };
        let stats: Stats = client.one(&Request::Stats {}).unwrap();
        if stats.packets.forwarded + stats.packets.dropped == all {
            let workers: Vec<WorkerRow> = client.all(&Request::Workers {}).unwrap();
            ended = Some((stats.packets, workers));
            break;
        }
    }
    appliance.signal(Signal::TERM);
    assert!(appliance.wait(20).is_some_and(|status| status.success()));
    let log = fs::read_to_string(dir.join("log")).unwrap();
    let (packets, workers) = ended.unwrap_or_else(|| panic!("{log}"));
    assert_eq!(packets.received, all);
    assert!(
        workers.iter().all(|row| row.handed_in > 0 && row.flows > 0),
        "{workers:?}"
    );
    let mut left = BTreeMap::<u32, Vec<u32>>::new();
    for queue in 0..2 {
        for frame in read_pcap(&dir.join(format!("out{queue}"))) {
            let parsed = parse(&frame, frame.len());
            let payload = &frame[usize::from(parsed.l4_offset) + 8..];
            let word = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
            left.entry(word(0)).or_default().push(word(4));
        }
    }
    let arrived: usize = left.values().map(Vec::len).sum();
    assert_eq!(
        arrived as u64, packets.forwarded,
        "what is missing was counted"
    );
    assert_eq!(left.len(), FLOWS as usize);
    for (flow, numbers) in left {
        assert!(
            numbers.is_sorted_by(|a, b| a < b),
            "flow {flow}: {numbers:?}"
        );
    }
    fs::remove_dir_all(dir).unwrap();
}
