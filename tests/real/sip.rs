//! SIP: SIPp on both sides, over UDP and TCP. One side plays RTP and RTCP out of a capture, and the
//! other echoes the RTP; what arrives is counted in front of each.

use crate::site::{Site, ask, noise};
use etherparse::PacketBuilder;
use pcap_file::pcap::{PcapPacket, PcapWriter};
use serde_json::Value;
use shardwall::cli::lab::{INSIDE, Namespace, OUTSIDE};
use std::fs::{self, File};
use std::time::Duration;

const CONTROL: &str = "proto: [tcp, udp], dport: 5060";
const HELPERS: [&str; 2] = [
    "{ helper: sip, proto: udp, dport: 5060 }",
    "{ helper: sip, proto: tcp, dport: 5060 }",
];

const CALLER: &str = include_str!("sip/caller.xml");
const CALLEE: &str = include_str!("sip/callee.xml");
/// Stands in both where the one who plays does so.
const MEDIA: &str = "<!-- media -->";

/// Who plays; the other echoes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Plays {
    Caller,
    Callee,
}

/// Ports for RTP: the caller's and the callee's. RTCP has the next ones.
const RTP: [u16; 2] = [30_000, 40_000];
/// How much is played: RTP packets, and RTCP packets among them.
const PLAYED: [u64; 2] = [25, 2];

/// A capture of RTP and RTCP. SIPp sends what it has in it from and to its own ports, the lower one
/// of the capture being RTP's.
fn write_media(path: &str) {
    let mut pcap = PcapWriter::new(File::create(path).unwrap()).unwrap();
    let mut at = Duration::from_secs(1);
    let mut write = |port: u16, payload: &[u8]| {
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64)
            .udp(port, port);
        let mut frame = Vec::new();
        builder.write(&mut frame, payload).unwrap();
        let packet = PcapPacket::new(at, frame.len() as u32, &frame);
        pcap.write_packet(&packet).unwrap();
        at += Duration::from_millis(4);
    };
    let voice = noise(80);
    for n in 0..PLAYED[0] as u8 {
        // RFC 3550, 5.1: version 2, PCMA (RFC 3551), sequence number, timestamp, source.
        let head = [0x80, 8, 0, n, 0, 0, n, 0, 0, 0, 0, 7];
        write(4000, &[&head[..], &voice].concat());
    }
    for _ in 0..PLAYED[1] {
        // RFC 3550, 6.4.2: a receiver report without blocks.
        write(4001, &[0x80, 201, 0, 1, 0, 0, 0, 7]);
    }
}

/// Counts what arrives in a namespace at the ports for RTP and RTCP.
fn count(namespace: &Namespace, rtp: u16) {
    let rules = format!(
        "table inet media {{
           counter rtp {{ }}; counter rtcp {{ }};
           chain input {{ type filter hook input priority 0;
             udp dport {rtp} counter name rtp; udp dport {} counter name rtcp; }}; }}",
        rtp + 1
    );
    let said = ask(namespace, &["nft", &rules]);
    assert_eq!(said.code, Some(0), "{said:?}");
}

/// What was counted since the last time: RTP and RTCP.
fn counted(namespace: &Namespace) -> [u64; 2] {
    let said = ask(
        namespace,
        &["nft", "-j", "reset", "counters", "table", "inet", "media"],
    );
    let all: Value = serde_json::from_str(&said.text).unwrap();
    let all = all["nftables"].as_array().unwrap();
    ["rtp", "rtcp"].map(|name| {
        let mut counters = all.iter().map(|object| &object["counter"]);
        let counter = counters.find(|counter| counter["name"] == name).unwrap();
        counter["packets"].as_u64().unwrap()
    })
}

/// A call from inside to outside; how many packets arrived at the caller and the callee.
fn call(site: &Site, transport: &str, family: usize, plays: Plays) -> [[u64; 2]; 2] {
    let [inner, outer] = [INSIDE, OUTSIDE].map(|addresses| match family {
        4 => addresses.0.to_owned(),
        _ => format!("[{}]", addresses.1),
    });
    let media = format!(
        "<nop><action><exec play_pcap_audio=\"{}\"/></action></nop>",
        site.path("media.pcap")
    );
    let scenario = |name: &str, text: &str, plays: bool| {
        let path = site.path(name);
        let media = if plays { media.as_str() } else { "" };
        fs::write(&path, text.replace(MEDIA, media)).unwrap();
        path
    };
    let caller = scenario("caller.xml", CALLER, plays == Plays::Caller);
    let callee = scenario("callee.xml", CALLEE, plays == Plays::Callee);
    let ports = RTP.map(|port| port.to_string());
    let (errors, to) = (site.path("errors"), format!("{outer}:5060"));
    let words = |scenario, address, media, plays: bool| {
        let mut words = vec!["sipp", "-sf", scenario, "-i", address, "-mi", address];
        words.extend([
            "-p", "5060", "-mp", media, "-t", transport, "-m", "1", "-nostdin",
        ]);
        words.extend(["-timeout", "10", "-timeout_error"]);
        words.extend(["-trace_err", "-error_file", errors.as_str()]);
        words.extend((!plays).then_some("-rtp_echo"));
        words
    };
    // The media of each call is a flow of its own, though all have the same ports.
    site.flush();
    let _ = [&site.lab.lan, &site.lab.wan].map(counted);
    let mut server = site.serve(&words(&callee, &outer, &ports[1], plays == Plays::Callee));
    if transport == "t1" {
        site.await_tcp(5060);
    } else {
        site.await_udp(5060);
    }
    let mut client = words(&caller, &inner, &ports[0], plays == Plays::Caller);
    client.push(&to);
    let said = ask(&site.lab.lan, &client);
    // The call itself passes, with the helper and without.
    let errors = fs::read_to_string(&errors).unwrap_or_default();
    assert_eq!(
        said.code,
        Some(0),
        "{transport} {family} {plays:?}: {said:?} {errors}"
    );
    let ended = server
        .wait(10)
        .unwrap_or_else(|| panic!("{}", site.server_log()));
    assert!(ended.success(), "{} {errors}", site.server_log());
    [&site.lab.lan, &site.lab.wan].map(counted)
}

#[test]
fn sip_calls_are_heard_on_both_sides() {
    let Some(site) = Site::new("rs", CONTROL) else {
        return;
    };
    write_media(&site.path("media.pcap"));
    count(&site.lab.lan, RTP[0]);
    count(&site.lab.wan, RTP[1]);

    for (transport, plays) in [("u1", Plays::Caller), ("t1", Plays::Callee)] {
        let heard = call(&site, transport, 4, plays);
        assert_eq!(
            heard, [[0; 2]; 2],
            "without the helper, {transport} {plays:?}"
        );
    }

    site.attach(&HELPERS);
    for transport in ["u1", "t1"] {
        for family in [4, 6] {
            for plays in [Plays::Caller, Plays::Callee] {
                let heard = call(&site, transport, family, plays);
                let echoed = [PLAYED[0], 0];
                let want = match plays {
                    Plays::Caller => [echoed, PLAYED],
                    Plays::Callee => [PLAYED, echoed],
                };
                assert_eq!(heard, want, "{transport} {family} {plays:?}");
                let (control, data) = site.families("sip", 5060);
                assert_eq!((control.len(), data.len()), (1, 2), "{control:?} {data:?}");
            }
        }
    }
    site.close();
}
