//! Commands against an appliance in memory, and conntrack(8)'s lines.

use super::args::{Args, Command, Format};
use super::output::{Failure, Output};
use super::{capture, check, conntrack, drops, expect, ports, remote, trace};
use crate::conntrack::event::Kind;
use crate::conntrack::record::{
    Carried, Counters, Detail, Endpoints, ExpectRecord, FlowRecord, MasterRecord,
};
use crate::conntrack::types::{SctpState, TcpState};
use crate::control::protocol::{Change, EventRecord, Shown};
use crate::control::render::{FlowLine, Form, Printer, Show, Style};
use crate::control::testbed::{Bed, Folder, HELPED, READ, RULES, wait};
use clap::{CommandFactory, Parser};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

mod frames;
mod golden;
mod questions;
mod refusals;
#[path = "tests/trace.rs"]
mod traces;

/// A flow of UDP, unreplied, between the addresses and ports given.
fn flow(proto: u8, timeout: u32, src: &str, dst: &str, detail: Detail, back: Detail) -> FlowRecord {
    let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
    FlowRecord {
        proto,
        original: Endpoints { src, dst, detail },
        reply: Endpoints {
            src: dst,
            dst: src,
            detail: back,
        },
        timeout,
        tcp_state: None,
        sctp_state: None,
        sctp_vtags: None,
        seen_reply: false,
        assured: false,
        expected: false,
        helper: None,
        master: None,
        counters: None,
        start_ms: None,
        stop_ms: None,
        mark: 0,
        zone: 0,
        shard: 0,
    }
}

fn ports(sport: u16, dport: u16) -> (Detail, Detail) {
    let detail = |sport, dport| Detail::Ports { sport, dport };
    (detail(sport, dport), detail(dport, sport))
}

fn echo(request: u8, reply: u8, id: u16) -> (Detail, Detail) {
    let detail = |ty| Detail::Icmp { ty, code: 0, id };
    (detail(request), detail(reply))
}

/// Flows of Linux 6.x, and the lines that conntrack 1.4.7 printed for them.
fn golden() -> Vec<(FlowRecord, &'static str)> {
    let plain = || (Detail::None {}, Detail::None {});
    let call = |srckey, dstkey| Detail::Gre { srckey, dstkey };
    let make = |proto, timeout, src, dst, (there, back): (Detail, Detail)| {
        flow(proto, timeout, src, dst, there, back)
    };
    let tcp = |flow: FlowRecord, tcp_state| FlowRecord {
        tcp_state: Some(tcp_state),
        ..flow
    };
    let replied = |flow| FlowRecord {
        seen_reply: true,
        ..flow
    };
    let assured = |flow| FlowRecord {
        assured: true,
        ..replied(flow)
    };
    let counted = |flow, original: (u64, u64), reply: (u64, u64)| {
        let carried = |(packets, bytes)| Carried { packets, bytes };
        let (original, reply) = (carried(original), carried(reply));
        FlowRecord {
            counters: Some(Counters { original, reply }),
            ..flow
        }
    };
    let (a, b, a6, b6) = ("10.9.0.1", "10.9.0.2", "fd00::1", "fd00::2");
    let (l4, l6) = ("127.0.0.1", "::1");
    let (c6, d6) = ("2001:db8:0:0:1:0:0:1", "2001:db8:0:0:1:0:0:2");
    vec![
        (
            assured(tcp(
                make(6, 431997, l4, l4, ports(58538, 8080)),
                TcpState::Established,
            )),
            "tcp      6 431997 ESTABLISHED src=127.0.0.1 dst=127.0.0.1 sport=58538 dport=8080 src=127.0.0.1 dst=127.0.0.1 sport=8080 dport=58538 [ASSURED] mark=0 use=1",
        ),
        (
            tcp(make(6, 117, a, b, ports(58908, 80)), TcpState::SynSent),
            "tcp      6 117 SYN_SENT src=10.9.0.1 dst=10.9.0.2 sport=58908 dport=80 [UNREPLIED] src=10.9.0.2 dst=10.9.0.1 sport=80 dport=58908 mark=0 use=1",
        ),
        (
            assured(tcp(
                make(6, 431997, l6, l6, ports(59106, 8080)),
                TcpState::Established,
            )),
            "tcp      6 431997 ESTABLISHED src=::1 dst=::1 sport=59106 dport=8080 src=::1 dst=::1 sport=8080 dport=59106 [ASSURED] mark=0 use=1",
        ),
        (
            make(17, 27, a, b, ports(40201, 53)),
            "udp      17 27 src=10.9.0.1 dst=10.9.0.2 sport=40201 dport=53 [UNREPLIED] src=10.9.0.2 dst=10.9.0.1 sport=53 dport=40201 mark=0 use=1",
        ),
        (
            make(17, 27, a6, b6, ports(42164, 53)),
            "udp      17 27 src=fd00::1 dst=fd00::2 sport=42164 dport=53 [UNREPLIED] src=fd00::2 dst=fd00::1 sport=53 dport=42164 mark=0 use=1",
        ),
        (
            make(136, 27, a, b, ports(34091, 53)),
            "udplite  136 27 src=10.9.0.1 dst=10.9.0.2 sport=34091 dport=53 [UNREPLIED] src=10.9.0.2 dst=10.9.0.1 sport=53 dport=34091 mark=0 use=1",
        ),
        (
            make(33, 597, a, b, plain()),
            "dccp     33 597 src=10.9.0.1 dst=10.9.0.2 sport=0 dport=0 [UNREPLIED] src=10.9.0.2 dst=10.9.0.1 sport=0 dport=0 mark=0 use=1",
        ),
        (
            replied(make(1, 27, l4, l4, echo(8, 0, 12926))),
            "icmp     1 27 src=127.0.0.1 dst=127.0.0.1 type=8 code=0 id=12926 src=127.0.0.1 dst=127.0.0.1 type=0 code=0 id=12926 mark=0 use=1",
        ),
        (
            make(1, 27, a, b, echo(8, 0, 12927)),
            "icmp     1 27 src=10.9.0.1 dst=10.9.0.2 type=8 code=0 id=12927 [UNREPLIED] src=10.9.0.2 dst=10.9.0.1 type=0 code=0 id=12927 mark=0 use=1",
        ),
        (
            make(58, 28, a6, b6, echo(128, 129, 12951)),
            "icmpv6   58 28 src=fd00::1 dst=fd00::2 type=128 code=0 id=12951 [UNREPLIED] src=fd00::2 dst=fd00::1 type=129 code=0 id=12951 mark=0 use=1",
        ),
        (
            make(47, 27, a, b, (call(0, 7), call(7, 0))),
            "gre      47 27 src=10.9.0.1 dst=10.9.0.2 srckey=0x0 dstkey=0x7 [UNREPLIED] src=10.9.0.2 dst=10.9.0.1 srckey=0x7 dstkey=0x0 mark=0 use=1",
        ),
        (
            FlowRecord {
                sctp_state: Some(SctpState::HeartbeatSent),
                ..make(132, 29, a, b, ports(40000, 80))
            },
            "sctp     132 29 HEARTBEAT_SENT src=10.9.0.1 dst=10.9.0.2 sport=40000 dport=80 [UNREPLIED] src=10.9.0.2 dst=10.9.0.1 sport=80 dport=40000 mark=0 use=1",
        ),
        (
            make(47, 27, a, b, (call(0, 0), call(0, 0))),
            "gre      47 27 src=10.9.0.1 dst=10.9.0.2 srckey=0x0 dstkey=0x0 [UNREPLIED] src=10.9.0.2 dst=10.9.0.1 srckey=0x0 dstkey=0x0 mark=0 use=1",
        ),
        (
            make(253, 597, a6, b6, plain()),
            "unknown  253 597 src=fd00::1 dst=fd00::2 [UNREPLIED] src=fd00::2 dst=fd00::1 mark=0 use=1",
        ),
        (
            make(89, 597, a, b, plain()),
            "unknown  89 597 src=10.9.0.1 dst=10.9.0.2 [UNREPLIED] src=10.9.0.2 dst=10.9.0.1 mark=0 use=1",
        ),
        (
            make(2, 597, a, b, plain()),
            "unknown  2 597 src=10.9.0.1 dst=10.9.0.2 [UNREPLIED] src=10.9.0.2 dst=10.9.0.1 mark=0 use=1",
        ),
        (
            FlowRecord {
                mark: 23,
                zone: 5,
                ..make(17, 29, a, b, ports(33074, 53))
            },
            "udp      17 29 src=10.9.0.1 dst=10.9.0.2 sport=33074 dport=53 [UNREPLIED] src=10.9.0.2 dst=10.9.0.1 sport=53 dport=33074 mark=23 zone=5 use=1",
        ),
        (
            FlowRecord {
                mark: 23,
                ..make(17, 29, "::a09:1", "::a09:2", ports(50786, 53))
            },
            "udp      17 29 src=::10.9.0.1 dst=::10.9.0.2 sport=50786 dport=53 [UNREPLIED] src=::10.9.0.2 dst=::10.9.0.1 sport=53 dport=50786 mark=23 use=1",
        ),
        (
            FlowRecord {
                mark: 23,
                ..make(17, 29, c6, d6, ports(50786, 53))
            },
            "udp      17 29 src=2001:db8::1:0:0:1 dst=2001:db8::1:0:0:2 sport=50786 dport=53 [UNREPLIED] src=2001:db8::1:0:0:2 dst=2001:db8::1:0:0:1 sport=53 dport=50786 mark=23 use=1",
        ),
        (
            counted(
                make(17, 29, "10.1.0.7", "10.2.0.7", ports(2000, 53)),
                (1, 38),
                (0, 0),
            ),
            "udp      17 29 src=10.1.0.7 dst=10.2.0.7 sport=2000 dport=53 packets=1 bytes=38 [UNREPLIED] src=10.2.0.7 dst=10.1.0.7 sport=53 dport=2000 packets=0 bytes=0 mark=0 use=1",
        ),
        (
            FlowRecord {
                mark: 9,
                zone: 5,
                start_ms: Some(1_795_183_323_999),
                ..make(17, 29, "10.1.0.7", "10.2.0.7", ports(3000, 60))
            },
            "udp      17 29 src=10.1.0.7 dst=10.2.0.7 sport=3000 dport=60 [UNREPLIED] src=10.2.0.7 dst=10.1.0.7 sport=60 dport=3000 mark=9 zone=5 delta-time=1 use=1",
        ),
        (
            counted(
                replied(make(1, 29, "10.1.0.7", "10.2.0.7", echo(8, 0, 77))),
                (1, 38),
                (2, 76),
            ),
            "icmp     1 29 src=10.1.0.7 dst=10.2.0.7 type=8 code=0 id=77 packets=1 bytes=38 src=10.2.0.7 dst=10.1.0.7 type=0 code=0 id=77 packets=2 bytes=76 mark=0 use=1",
        ),
        (
            FlowRecord {
                mark: 9,
                zone: 5,
                start_ms: Some(1_795_183_322_000),
                helper: Some("ftp".into()),
                ..assured(tcp(
                    make(6, 431998, "fd00::1", "fd00::2", ports(40001, 21)),
                    TcpState::Established,
                ))
            },
            "tcp      6 431998 ESTABLISHED src=fd00::1 dst=fd00::2 sport=40001 dport=21 src=fd00::2 dst=fd00::1 sport=21 dport=40001 [ASSURED] mark=9 zone=5 delta-time=2 helper=ftp use=1",
        ),
        (
            FlowRecord {
                helper: Some("tftp".into()),
                ..make(17, 29, "10.9.0.1", "10.9.0.2", ports(40002, 69))
            },
            "udp      17 29 src=10.9.0.1 dst=10.9.0.2 sport=40002 dport=69 [UNREPLIED] src=10.9.0.2 dst=10.9.0.1 sport=69 dport=40002 mark=0 helper=tftp use=1",
        ),
    ]
}

/// What a printer of `style` prints, without the newline.
fn printed(style: Style, print: impl Fn(&Printer, &mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    print(&Printer::new(style), &mut out);
    assert_eq!(out.pop(), Some(b'\n'));
    String::from_utf8(out).unwrap()
}

#[test]
fn lines_are_conntracks_byte_for_byte() {
    for (flow, line) in golden() {
        let print = |extended| {
            let style = Style {
                extended,
                ..Style::default()
            };
            let show = Show::Listed(1_795_183_324);
            printed(style, |by, out| by.flow(out, &flow, show))
        };
        assert_eq!(print(false), line);
        let family = if flow.is_v6() {
            "ipv6     10 "
        } else {
            "ipv4     2 "
        };
        assert_eq!(print(true), format!("{family}{line}"));
    }
}

/// Expectations of Linux 6.18, and what conntrack 1.4.7 printed for them.
#[test]
fn expectations_are_conntracks_byte_for_byte() {
    let ends = |src: &str, dst: &str, (detail, _): (Detail, Detail)| Endpoints {
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
        detail,
    };
    let make =
        |timeout, (proto, master): (u8, u8), expected: Endpoints, ends, helper: &'static str| {
            ExpectRecord {
                proto,
                expected,
                any_src: expected.src.is_unspecified(),
                any_sport: true,
                master: MasterRecord {
                    proto: master,
                    ends,
                },
                timeout,
                helper: helper.into(),
                class: 0,
                class_name: "".into(),
                permanent: false,
                inactive: false,
                mark: 0,
                zone: 0,
                shard: 0,
            }
        };
    let (a, b, a6, b6) = ("10.9.0.1", "10.9.0.2", "fd00::1", "fd00::2");
    let sip = |timeout, expected| {
        make(
            timeout,
            (17, 17),
            expected,
            ends(a, b, ports(5060, 5060)),
            "sip",
        )
    };
    let register = |permanent, inactive, timeout| ExpectRecord {
        permanent,
        inactive,
        ..sip(timeout, ends(b, a, ports(0, 5060)))
    };
    let cases = [
        (
            make(
                299,
                (6, 6),
                ends(a, b, ports(0, 45000)),
                ends(a, b, ports(40001, 21)),
                "ftp",
            ),
            "299 proto=6 src=10.9.0.1 dst=10.9.0.2 sport=0 dport=45000 mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535 master-src=10.9.0.1 master-dst=10.9.0.2 sport=40001 dport=21 class=0 helper=ftp",
        ),
        (
            make(
                299,
                (17, 17),
                ends(b, a, ports(0, 40002)),
                ends(a, b, ports(40002, 69)),
                "tftp",
            ),
            "299 proto=17 src=10.9.0.2 dst=10.9.0.1 sport=0 dport=40002 mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535 master-src=10.9.0.1 master-dst=10.9.0.2 sport=40002 dport=69 class=0 helper=tftp",
        ),
        // From anybody.
        (
            make(
                299,
                (6, 6),
                ends("0.0.0.0", a, ports(0, 50010)),
                ends(a, b, ports(40003, 6667)),
                "irc",
            ),
            "299 proto=6 src=0.0.0.0 dst=10.9.0.1 sport=0 dport=50010 mask-src=0.0.0.0 mask-dst=255.255.255.255 sport=0 dport=65535 master-src=10.9.0.1 master-dst=10.9.0.2 sport=40003 dport=6667 class=0 helper=irc",
        ),
        // Announced by a datagram.
        (
            make(
                179,
                (6, 17),
                ends(a, b, ports(0, 50001)),
                ends(a, b, ports(699, 10080)),
                "amanda",
            ),
            "179 proto=6 src=10.9.0.1 dst=10.9.0.2 sport=0 dport=50001 mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535 master-src=10.9.0.1 master-dst=10.9.0.2 sport=699 dport=10080 class=0 helper=amanda",
        ),
        (
            ExpectRecord {
                class: 2,
                ..sip(179, ends(b, a, ports(0, 30003)))
            },
            "179 proto=17 src=10.9.0.2 dst=10.9.0.1 sport=0 dport=30003 mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535 master-src=10.9.0.1 master-dst=10.9.0.2 sport=5060 dport=5060 class=2 helper=sip",
        ),
        (
            register(true, true, 179),
            "179 proto=17 src=10.9.0.2 dst=10.9.0.1 sport=0 dport=5060 mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535 master-src=10.9.0.1 master-dst=10.9.0.2 sport=5060 dport=5060 PERMANENT,INACTIVE class=0 helper=sip",
        ),
        (
            register(true, false, 599),
            "599 proto=17 src=10.9.0.2 dst=10.9.0.1 sport=0 dport=5060 mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535 master-src=10.9.0.1 master-dst=10.9.0.2 sport=5060 dport=5060 PERMANENT class=0 helper=sip",
        ),
        (
            make(
                300,
                (6, 6),
                ends(b6, a6, ports(0, 51210)),
                ends(a6, b6, ports(40001, 21)),
                "ftp",
            ),
            "300 proto=6 src=fd00::2 dst=fd00::1 sport=0 dport=51210 mask-src=ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff mask-dst=ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff sport=0 dport=65535 master-src=fd00::1 master-dst=fd00::2 sport=40001 dport=21 class=0 helper=ftp",
        ),
    ];
    for (expectation, line) in cases {
        let plain = printed(Style::default(), |by, out| {
            by.expectation(out, &expectation, 0)
        });
        assert_eq!(plain, line);
        for (event, word) in [
            (Kind::Expected, "    [NEW] "),
            (Kind::Unexpected, "[DESTROY] "),
        ] {
            let event = EventRecord {
                event,
                time_us: 1_795_195_381_192_247,
                changed: Vec::new(),
                subject: Shown::Expectation(expectation.clone()),
            };
            let print = |timestamp| {
                let style = Style {
                    // Which changes nothing there.
                    extended: timestamp,
                    timestamp,
                    ..Style::default()
                };
                printed(style, |by, out| by.event(out, &event))
            };
            assert_eq!(print(false), format!("{word}{line}"));
            assert_eq!(print(true), format!("[1795195381.192247]\t{word}{line}"));
            let text = serde_json::to_string(&event).unwrap();
            let back: EventRecord = serde_json::from_str(&text).unwrap();
            assert_eq!(back, event, "over the socket");
        }
    }
}

#[test]
fn flows_that_were_expected_say_so_and_by_whom() {
    let (there, back) = ports(20, 51210);
    let master = |src: &str, dst: &str| MasterRecord {
        proto: 6,
        ends: Endpoints {
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            detail: ports(40001, 21).0,
        },
    };
    let flow = FlowRecord {
        tcp_state: Some(TcpState::Established),
        seen_reply: true,
        assured: true,
        expected: true,
        master: Some(master("10.9.0.1", "10.9.0.2")),
        ..flow(6, 431_999, "10.9.0.2", "10.9.0.1", there, back)
    };
    let line = FlowLine {
        flow: &flow,
        show: Show::Listed(0),
    };
    assert_eq!(
        line.to_string(),
        "tcp      6 431999 ESTABLISHED src=10.9.0.2 dst=10.9.0.1 sport=20 dport=51210 src=10.9.0.1 dst=10.9.0.2 sport=51210 dport=20 [ASSURED] [EXPECTED] mark=0 master-src=10.9.0.1 master-dst=10.9.0.2 master-sport=40001 master-dport=21 use=1"
    );
    let text = serde_json::to_string(&flow).unwrap();
    assert!(text.contains(r#""expected":true"#) && text.contains(r#""master":{"proto":6,"#));
    assert_eq!(serde_json::from_str::<FlowRecord>(&text).unwrap(), flow);
}

/// Events of Linux 6.18, and what conntrack 1.4.7 printed for them.
#[test]
fn events_are_conntracks_byte_for_byte() {
    let tcp = |port, timeout, state, seen_reply, assured| FlowRecord {
        tcp_state: Some(state),
        seen_reply,
        assured,
        ..flow(
            6,
            timeout,
            "10.1.0.7",
            "10.2.0.7",
            ports(port, 80).0,
            ports(port, 80).1,
        )
    };
    let udp = |port, to, timeout, seen_reply, assured| FlowRecord {
        seen_reply,
        assured,
        ..flow(
            17,
            timeout,
            "10.1.0.7",
            "10.2.0.7",
            ports(port, to).0,
            ports(port, to).1,
        )
    };
    let ended = |flow, original: (u64, u64), reply: (u64, u64), start_ms, stop_ms| {
        let carried = |(packets, bytes)| Carried { packets, bytes };
        let (original, reply) = (carried(original), carried(reply));
        FlowRecord {
            counters: Some(Counters { original, reply }),
            start_ms: Some(start_ms),
            stop_ms: Some(stop_ms),
            ..flow
        }
    };
    use TcpState::{Close, Established, FinWait, SynRecv, SynSent, TimeWait};
    const STATE: Change = Change::State;
    const REPLY: Change = Change::SeenReply;
    let cases: Vec<(Kind, &[Change], FlowRecord, &str)> = vec![
        (
            Kind::New,
            &[],
            tcp(1000, 120, SynSent, false, false),
            "    [NEW] tcp      6 120 SYN_SENT src=10.1.0.7 dst=10.2.0.7 sport=1000 dport=80 [UNREPLIED] src=10.2.0.7 dst=10.1.0.7 sport=80 dport=1000",
        ),
        (
            Kind::Update,
            &[STATE, REPLY],
            tcp(1000, 60, SynRecv, true, false),
            " [UPDATE] tcp      6 60 SYN_RECV src=10.1.0.7 dst=10.2.0.7 sport=1000 dport=80 src=10.2.0.7 dst=10.1.0.7 sport=80 dport=1000",
        ),
        (
            Kind::Update,
            &[STATE, Change::Assured],
            tcp(1000, 432_000, Established, true, true),
            " [UPDATE] tcp      6 432000 ESTABLISHED src=10.1.0.7 dst=10.2.0.7 sport=1000 dport=80 src=10.2.0.7 dst=10.1.0.7 sport=80 dport=1000 [ASSURED]",
        ),
        (
            Kind::Update,
            &[STATE],
            tcp(1000, 120, FinWait, true, true),
            " [UPDATE] tcp      6 120 FIN_WAIT src=10.1.0.7 dst=10.2.0.7 sport=1000 dport=80 src=10.2.0.7 dst=10.1.0.7 sport=80 dport=1000 [ASSURED]",
        ),
        // Without its state where that did not change.
        (
            Kind::Update,
            &[REPLY],
            tcp(1002, 300, Established, true, false),
            " [UPDATE] tcp      6 300 src=10.1.0.7 dst=10.2.0.7 sport=1002 dport=80 src=10.2.0.7 dst=10.1.0.7 sport=80 dport=1002",
        ),
        (
            Kind::Destroy,
            &[],
            ended(
                tcp(1000, 119, TimeWait, true, true),
                (4, 170),
                (3, 120),
                1000,
                3900,
            ),
            "[DESTROY] tcp      6 119 TIME_WAIT src=10.1.0.7 dst=10.2.0.7 sport=1000 dport=80 packets=4 bytes=170 src=10.2.0.7 dst=10.1.0.7 sport=80 dport=1000 packets=3 bytes=120 [ASSURED] delta-time=2",
        ),
        // Expired: no time is left.
        (
            Kind::Destroy,
            &[],
            ended(
                tcp(1000, 0, Close, true, false),
                (1, 40),
                (2, 80),
                1999,
                11_000,
            ),
            "[DESTROY] tcp      6 CLOSE src=10.1.0.7 dst=10.2.0.7 sport=1000 dport=80 packets=1 bytes=40 src=10.2.0.7 dst=10.1.0.7 sport=80 dport=1000 packets=2 bytes=80 delta-time=10",
        ),
        (
            Kind::Destroy,
            &[],
            ended(udp(2000, 53, 0, true, true), (2, 76), (4, 162), 1000, 7000),
            "[DESTROY] udp      17 src=10.1.0.7 dst=10.2.0.7 sport=2000 dport=53 packets=2 bytes=76 src=10.2.0.7 dst=10.1.0.7 sport=53 dport=2000 packets=4 bytes=162 [ASSURED] delta-time=6",
        ),
        (
            Kind::New,
            &[],
            FlowRecord {
                mark: 9,
                zone: 5,
                ..udp(3000, 60, 30, false, false)
            },
            "    [NEW] udp      17 30 src=10.1.0.7 dst=10.2.0.7 sport=3000 dport=60 [UNREPLIED] src=10.2.0.7 dst=10.1.0.7 sport=60 dport=3000 mark=9 zone=5",
        ),
        (
            Kind::Update,
            &[REPLY],
            FlowRecord {
                mark: 23,
                ..udp(3000, 61, 30, true, false)
            },
            " [UPDATE] udp      17 30 src=10.1.0.7 dst=10.2.0.7 sport=3000 dport=61 src=10.2.0.7 dst=10.1.0.7 sport=61 dport=3000 mark=23",
        ),
        (
            Kind::Destroy,
            &[],
            udp(3000, 53, 29, false, false),
            "[DESTROY] udp      17 29 src=10.1.0.7 dst=10.2.0.7 sport=3000 dport=53 [UNREPLIED] src=10.2.0.7 dst=10.1.0.7 sport=53 dport=3000",
        ),
    ];
    for (kind, changed, flow, line) in cases {
        let event = EventRecord {
            event: kind,
            time_us: 1_795_183_323_069_805,
            changed: changed.to_vec(),
            subject: Shown::Flow(flow),
        };
        let print = |extended, timestamp| {
            let style = Style {
                extended,
                timestamp,
                ..Style::default()
            };
            printed(style, |by, out| by.event(out, &event))
        };
        assert_eq!(print(false, false), line);
        assert_eq!(print(false, true), format!("[1795183323.069805]\t{line}"));
        let (word, rest) = line.split_at(10);
        assert_eq!(print(true, false), format!("{word}ipv4     2 {rest}"));
        let text = serde_json::to_string(&event).unwrap();
        let back: EventRecord = serde_json::from_str(&text).unwrap();
        assert_eq!(back, event, "over the socket");
    }
}

/// An event of Linux 6.18, and what conntrack 1.4.7 printed for it in its other forms.
#[test]
fn events_are_conntracks_in_xml_and_as_options() {
    let (there, back) = ports(1000, 80);
    let none = Carried {
        packets: 0,
        bytes: 0,
    };
    let flow = FlowRecord {
        tcp_state: Some(TcpState::SynSent),
        counters: Some(Counters {
            original: none,
            reply: none,
        }),
        start_ms: Some(1_795_235_306_030),
        stop_ms: Some(1_795_235_306_037),
        ..flow(6, 999, "10.0.0.1", "10.0.0.2", there, back)
    };
    let id = flow.id();
    let event = EventRecord {
        event: Kind::Destroy,
        time_us: 1_795_235_306_040_000,
        changed: Vec::new(),
        subject: Shown::Flow(flow),
    };
    let print = |form, ktimestamp| {
        let style = Style {
            form,
            ktimestamp,
            ..Style::default()
        };
        printed(style, |by, out| by.event(out, &event))
    };
    assert_eq!(
        print(Form::Save, false),
        "-D -t 999 -u UNSET -s 10.0.0.1 -d 10.0.0.2 -r 10.0.0.2 -q 10.0.0.1 -p tcp --sport 1000 --dport 80 --reply-port-src 80 --reply-port-dst 1000 --state SYN_SENT"
    );
    let xml = |times| {
        format!(
            "<flow type=\"destroy\"><meta direction=\"original\"><layer3 protonum=\"2\" protoname=\"ipv4\"><src>10.0.0.1</src><dst>10.0.0.2</dst></layer3><layer4 protonum=\"6\" protoname=\"tcp\"><sport>1000</sport><dport>80</dport></layer4><counters><packets>0</packets><bytes>0</bytes></counters></meta><meta direction=\"reply\"><layer3 protonum=\"2\" protoname=\"ipv4\"><src>10.0.0.2</src><dst>10.0.0.1</dst></layer3><layer4 protonum=\"6\" protoname=\"tcp\"><sport>80</sport><dport>1000</dport></layer4><counters><packets>0</packets><bytes>0</bytes></counters></meta><meta direction=\"independent\"><state>SYN_SENT</state><timeout>999</timeout><id>{id}</id><unreplied/>{times}<deltatime>0</deltatime></meta></flow>"
        )
    };
    assert_eq!(print(Form::Xml, false), xml(""));
    let dates =
        "<timestamp><start>1795235306030000000</start><stop>1795235306037000000</stop></timestamp>";
    assert_eq!(print(Form::Xml, true), xml(dates));
    let line = print(Form::Line, true);
    let (_, dates) = line.split_once(" delta-time=0 [start=").unwrap();
    assert!(
        dates.contains(" 2026] [stop=") && dates.ends_with(" 2026]"),
        "{line}"
    );
}

#[test]
fn events_are_printed_until_the_appliance_stops() {
    let mut bed = Bed::new(1);
    bed.start_control();
    bed.send(1);
    let socket = bed.socket();
    let watch = |line| {
        let socket = socket.clone();
        std::thread::spawn(move || run(line, socket))
    };
    let text = watch("conntrack -E -e NEW,DESTROY -p udp");
    let lines = watch("conntrack -E --format json");
    let none = watch("conntrack -E -p tcp");
    wait(|| bed.appliance.hub().watchers() == 3);
    bed.send(2);
    assert_eq!(json("conntrack -F", &bed)["flushed"], 2);
    let row = json("conntrack -S", &bed);
    assert_eq!(
        (&row[0]["insert"], &row[0]["early_drop"]),
        (&2.into(), &0.into())
    );
    let (_, stats, _) = run("conntrack -S", bed.socket());
    assert_eq!(
        stats,
        "cpu=0   \tfound=0 invalid=0 insert=2 insert_failed=0 drop=0 early_drop=0 error=0 search_restart=0 clash_resolve=0 chaintoolong=0 \n"
    );
    bed.stop();
    let (code, out, err) = text.join().unwrap();
    assert_eq!(code, ExitCode::SUCCESS);
    let found: Vec<&str> = out.lines().map(|line| &line[..10]).collect();
    assert_eq!(found, ["    [NEW] ", "[DESTROY] ", "[DESTROY] "], "{out}");
    assert!(
        out.starts_with("    [NEW] udp      17 30 src=10.0.0.2 "),
        "{out}"
    );
    // of those that an operator ended nothing more is said: who asked is not kept
    for line in out.lines().filter(|line| line.starts_with("[DESTROY]")) {
        let marks: Vec<&str> = line.split(' ').filter(|w| w.starts_with('[')).collect();
        assert_eq!(marks, ["[DESTROY]", "[UNREPLIED]"], "{line}");
    }
    assert!(err.ends_with(": 3 flow events have been shown.\n"), "{err}");
    let (_, out, err) = lines.join().unwrap();
    let events: Vec<EventRecord> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!((events.len(), err.as_str()), (3, ""));
    assert!(events[0].time_us / 1_000_000 > 1_700_000_000);
    let (_, out, err) = none.join().unwrap();
    assert_eq!(out, "");
    assert!(err.ends_with(": 0 flow events have been shown.\n"), "{err}");
}

#[test]
fn flows_survive_the_way_over_the_socket() {
    for (flow, line) in golden() {
        let text = serde_json::to_string(&flow).unwrap();
        let back: FlowRecord = serde_json::from_str(&text).unwrap();
        assert_eq!(back, flow, "{line}");
    }
}

#[test]
fn the_grammar_is_sound() {
    Args::command().debug_assert();
}

#[test]
fn flows_are_chosen_got_and_deleted() {
    let mut bed = Bed::new(2);
    bed.start_control();
    (1..=4).for_each(|host| bed.send(host));
    let said = |line: &str| run(&format!("conntrack {line}"), bed.socket());
    let shown = |line: &str| {
        let (code, out, err) = said(line);
        let (_, rest) = err.split_once("(shardwall): ").unwrap_or_default();
        (
            code == ExitCode::SUCCESS,
            out.lines().count(),
            rest.trim_end().to_owned(),
        )
    };
    let word = |count, done| format!("{count} flow entries have been {done}.");
    for (line, count) in [
        ("-L", 4),
        ("-L -s 10.0.0.2", 1),
        ("-L -s 10.0.0.0/30 -p udp --dport 53", 3),
        ("-L -q 10.0.0.1 -u UNREPLIED", 1),
        ("-L -u SEEN_REPLY", 0),
        ("-L -f ipv6", 0),
        ("-L -j", 0),
        ("-L -o ktimestamp", 4),
        ("-L dying", 0),
    ] {
        assert_eq!(shown(line), (true, count, word(count, "shown")), "{line}");
    }
    let one = "-s 10.0.0.3 -d 10.9.0.1 -p udp --sport 4000 --dport 53";
    let (_, got, _) = said(&format!("-G {one}"));
    assert!(
        got.starts_with("udp      17 ") && got.ends_with(" mark=0 use=2\n"),
        "{got}"
    );
    let xml = said(&format!("-L {one} -o xml")).1;
    let (head, rest) = xml.split_once("<flow>").unwrap();
    assert_eq!(
        head,
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<conntrack>\n"
    );
    assert!(rest.ends_with("</flow>\n</conntrack>\n"), "{xml}");
    let (code, _, err) = said(
        &one.replace("--sport 4000", "--sport 4001")
            .replacen("-s", "-G -s", 1),
    );
    assert_eq!(code, ExitCode::FAILURE);
    assert!(err.contains("no such flow"), "{err}");
    let gone = |line: &str| shown(&format!("-D {line}"));
    assert_eq!(gone("-s 10.0.0.3"), (true, 1, word(1, "deleted")));
    assert_eq!(gone("-s 10.0.0.3"), (false, 0, word(0, "deleted")));
    assert_eq!(gone("-u ASSURED"), (false, 0, word(0, "deleted")));
    let (_, save, _) = said("-D -s 10.0.0.1 -o save");
    assert!(
        save.starts_with("-D -t ") && save.contains(" -u UNSET -s 10.0.0.1 "),
        "{save}"
    );
    assert!(said("-F -f ipv6").2.ends_with("table has been emptied.\n"));
    assert_eq!(said("-C").1, "2\n");
    assert_eq!(json("conntrack -D", &bed).as_array().map(Vec::len), Some(2));
    assert_eq!(said("-C").1, "0\n");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    /// `| head`, which has seen enough.
    struct Closed;
    impl std::io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut bed = Bed::new(1);
    bed.start_control();
    (0..8).for_each(|host| bed.send(host));
    for line in [
        "conntrack -L",
        "conntrack -L -o json",
        "conntrack -L -o ktimestamp",
    ] {
        let Ok(Command::Conntrack(args)) = parse(line).map(|args| args.command) else {
            panic!("{line}");
        };
        let mut err = Vec::new();
        let mut output = Output {
            format: Format::Text,
            out: &mut Closed,
            err: &mut err,
        };
        let code = output.finish(|out| conntrack::execute(&args, &bed.socket(), out));
        assert_eq!(
            (code, err.as_slice()),
            (ExitCode::SUCCESS, &b""[..]),
            "{line}"
        );
    }
}

/// Parses a command line; an error is its exit code.
fn parse(line: &str) -> Result<Args, i32> {
    let words = std::iter::once("shardwall").chain(line.split_whitespace());
    Args::try_parse_from(words).map_err(|error| error.exit_code())
}

#[test]
fn what_is_no_command_is_refused() {
    for line in ["reboot", "run", "replay -c p.yaml", "--format xml stats"] {
        assert_eq!(parse(line).err(), Some(2), "{line}");
    }
}

#[test]
fn expects_flags_are_conntracks_and_a_deletion_needs_a_filter() {
    for line in [
        "expect -L",
        "expect --dump -f ipv6 -p tcp -o extended",
        "expect -L --src 10.0.0.0/8 --dst fd00::1 --helper ftp -w 7",
        "expect -E -o timestamp,json -p 17",
        "expect -D --tuple-src 10.0.0.1 --tuple-dst 10.0.0.2/31 --tuple-port-dst 20",
        "expect -D -w 0",
        "expect -F",
        "expect -C --format json",
        "expect -S",
        "expect -L -o xml",
        "expect -G --tuple-dst 10.0.0.2 -p tcp --tuple-port-dst 20",
    ] {
        let command = parse(line).map(|args| args.command);
        assert!(matches!(command, Ok(Command::Expect(_))), "{line}");
    }
    for line in [
        "expect",
        "expect -D",
        "expect -D -o json",
        "expect -L -D -p tcp",
        "expect -F -p tcp",
        "expect -C -w 1",
        "expect -L -s 10.0.0.0/33",
        "expect -L -w 70000",
        "expect -S -p tcp",
        "expect -G -p tcp",
    ] {
        assert_eq!(parse(line).err(), Some(2), "{line}");
    }
}

#[test]
fn the_other_commands_are_there() {
    match parse("replay -c p.yaml --port lan t.pcap").unwrap().command {
        Command::Replay(args) => {
            assert_eq!(args.port.as_deref(), Some("lan"));
            assert_eq!(
                (args.config, args.trace),
                ("p.yaml".into(), "t.pcap".into())
            );
        }
        other => panic!("{other:?}"),
    }
    for line in [
        "run -c p",
        "run --config p",
        "demo",
        "demo --keep",
        "reload",
        "reload p",
        "check p",
        "ports --xstats",
        "ports rebalance",
        "ports rebalance --dry-run",
    ] {
        assert!(parse(line).is_ok(), "{line}");
    }
    assert_eq!(parse("ports --xstats rebalance").err(), Some(2));
    for line in ["stats", "drops", "rules", "ports", "workers"] {
        let args = parse(&format!("{line} --format json")).unwrap();
        assert_eq!(args.format, Format::Json);
    }
}

/// Runs a command; its exit code, standard output, standard error.
fn run(line: &str, socket: PathBuf) -> (ExitCode, String, String) {
    let Args {
        format, command, ..
    } = parse(line).unwrap();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut output = Output {
        format,
        out: &mut stdout,
        err: &mut stderr,
    };
    let code = output.finish(|out| match command {
        Command::Check(args) => check::check(&args, out),
        Command::Reload(args) => remote::reload(&args, &socket, out),
        Command::Conntrack(args) => conntrack::execute(&args, &socket, out),
        Command::Expect(args) => expect::execute(&args, &socket, out),
        Command::Stats => remote::stats(&socket, out),
        Command::Drops => drops::execute(&socket, out),
        Command::Trace(args) => trace::execute(&args, &socket, out),
        Command::Capture(args) => capture::execute(&args, &socket, out),
        Command::Rules => remote::rules(&socket, out),
        Command::Ports(args) => ports::execute(&args, &socket, out),
        Command::Workers => ports::workers(&socket, out),
        _ => Err(Failure::Told),
    });
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (code, text(stdout), text(stderr))
}

fn json(line: &str, bed: &Bed) -> Value {
    let (code, out, err) = run(&format!("{line} --format json"), bed.socket());
    assert_eq!((code, err.as_str()), (ExitCode::SUCCESS, ""), "{line}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn conntrack_lists_counts_and_flushes_like_conntrack() {
    let mut bed = Bed::new(2);
    bed.start_control();
    (1..=3).for_each(|host| bed.send(host));
    let (code, out, err) = run("conntrack -L", bed.socket());
    assert_eq!(code, ExitCode::SUCCESS);
    let version = env!("CARGO_PKG_VERSION");
    let footer = format!("shardwall v{version} (shardwall): 3 flow entries have been shown.\n");
    assert_eq!(err, footer);
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].starts_with("udp      17 "), "{out}");
    let rest = " src=10.0.0.1 dst=10.9.0.1 sport=4000 dport=53 [UNREPLIED] src=10.9.0.1 dst=10.0.0.1 sport=53 dport=4000 mark=0 use=1";
    assert!(out.lines().any(|line| line.ends_with(rest)), "{out}");
    let (_, out, _) = run("conntrack -L -o extended -p udp -f ipv4", bed.socket());
    assert!(
        out.lines().count() == 3 && out.starts_with("ipv4     2 udp "),
        "{out}"
    );
    let (_, out, err) = run("conntrack -L -p tcp", bed.socket());
    assert_eq!(out, "");
    assert!(err.ends_with("0 flow entries have been shown.\n"));

    let flows = json("conntrack -L", &bed);
    assert_eq!(flows.as_array().map(Vec::len), Some(3));
    assert_eq!(flows[0]["original"]["dport"], 53);
    assert_eq!(json("conntrack -L -p tcp", &bed), Value::Array(Vec::new()));
    assert_eq!(json("conntrack -C", &bed)["count"], 3);

    let said = |line| {
        let (code, out, err) = run(line, bed.socket());
        assert_eq!(code, ExitCode::SUCCESS);
        (out, err)
    };
    assert_eq!(said("conntrack -C"), ("3\n".into(), String::new()));
    let emptied =
        format!("shardwall v{version} (shardwall): connection tracking table has been emptied.\n");
    assert_eq!(said("conntrack -F"), (String::new(), emptied));
    assert_eq!(said("conntrack -C"), ("0\n".into(), String::new()));
}

#[test]
fn expect_lists_counts_and_ends_like_conntrack() {
    let mut bed = Bed::under(1, HELPED);
    bed.start_control();
    let socket = bed.socket();
    let watch = |line| {
        let socket = socket.clone();
        std::thread::spawn(move || run(line, socket))
    };
    let text = watch("expect -E");
    let some = watch("expect -E --tuple-dst 10.0.0.2 --format json");
    let flows = watch("conntrack -E");
    wait(|| bed.appliance.hub().watchers() == 3);
    (1..=4).for_each(|host| bed.ask(host, 69, READ));

    let name = format!("shardwall v{} (shardwall)", env!("CARGO_PKG_VERSION"));
    let said = |line: &str| {
        let (code, out, err) = run(line, bed.socket());
        assert_eq!(code, ExitCode::SUCCESS, "{line}");
        (out, err)
    };
    let (out, err) = said("expect -L");
    assert_eq!(err, format!("{name}: 4 expectations have been shown.\n"));
    let rest = " proto=17 src=10.9.0.1 dst=10.0.0.1 sport=0 dport=4000 mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535 master-src=10.0.0.1 master-dst=10.9.0.1 sport=4000 dport=69 class=0 helper=tftp";
    assert!(out.lines().any(|line| line.ends_with(rest)), "{out}");
    assert_eq!(said("expect -L -s 10.0.0.0/30 -p udp").0.lines().count(), 3);
    assert_eq!(json("expect -L", &bed).as_array().map(Vec::len), Some(4));
    assert_eq!(
        json("expect -L -o json -f ipv6", &bed),
        Value::Array(Vec::new())
    );
    assert_eq!(said("expect -C"), ("4\n".into(), String::new()));
    assert_eq!(json("expect -C", &bed)["count"], 4);
    let (out, err) = said("expect -D --tuple-dst 10.0.0.1 --tuple-port-dst 4000");
    assert!(out.ends_with(&format!("{rest}\n")), "{out}");
    assert_eq!(err, format!("{name}: 1 expectations have been deleted.\n"));
    assert_eq!(
        json("expect -D --helper tftp -d 10.9.0.1 -s 10.0.0.4", &bed)[0]["helper"],
        "tftp"
    );
    assert_eq!(
        said("expect -F"),
        (
            String::new(),
            format!("{name}: expectation table has been emptied.\n")
        )
    );
    assert_eq!(json("expect -F", &bed)["flushed"], 0);
    assert!(
        said("conntrack -L")
            .0
            .contains(" mark=0 helper=tftp use=1\n")
    );
    assert!(
        said("conntrack -S expect")
            .0
            .ends_with("expect_new=0 expect_create=4 expect_delete=4 \n")
    );
    let stats = said("stats").0;
    let rows = "\n\nHELPER  FLOWS  PARSED  EXPECTED  USED  EXPIRED  WITHDRAWN  REFUSED\n\
                tftp        4       4         4     0        0          4  -\n";
    assert!(stats.ends_with(rows), "{stats}");

    bed.stop();
    let (_, out, err) = text.join().unwrap();
    let words: Vec<&str> = out.lines().map(|line| &line[..10]).collect();
    let (new, gone) = ("    [NEW] ", "[DESTROY] ");
    assert_eq!(words, [new, new, new, new, gone, gone, gone, gone], "{out}");
    assert!(out.starts_with(&format!("{new}300{rest}\n")), "{out}");
    assert_eq!(
        err,
        format!("{name}: 8 expectation events have been shown.\n")
    );
    let (_, out, _) = some.join().unwrap();
    let events = out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let kinds: Vec<Value> = events.map(|event| event["event"].clone()).collect();
    assert_eq!(kinds, ["expect-new", "expect-destroy"]);
    let (_, out, _) = flows.join().unwrap();
    assert_eq!(out.lines().count(), 4, "flows only: {out}");
    assert!(
        out.lines().all(|line| line.ends_with(" helper=tftp")),
        "{out}"
    );
}

#[test]
fn counters_are_tables_for_people_and_json_for_programs() {
    let mut bed = Bed::new(1);
    bed.start_control();
    bed.send(1);
    let text = |line| {
        let (code, out, err) = run(line, bed.socket());
        assert_eq!((code, err.as_str()), (ExitCode::SUCCESS, ""));
        out
    };
    assert_eq!(
        text("rules"),
        "CHAIN    RULE      PACKETS  BYTES  ACTION\n\
         forward  known           0      0  accept\n\
         forward  outbound        1     47  accept\n\
         forward  policy          0      0  drop\n"
    );
    assert!(text("drops").contains(
        "tx-full                 0         0.0  The port to send from took no more frames.\n"
    ));
    let stats = text("stats");
    for part in [
        "shardwall ",
        "policy generation 1, in force for ",
        "1 of 262144 flows (0.0%)",
        "received               1  packets taken",
    ] {
        assert!(stats.contains(part), "{part}\n{stats}");
    }
    assert!(
        text("ports")
            .lines()
            .nth(1)
            .unwrap()
            .starts_with("lan   net_null0  memory  -    up       1/1           1        47"),
        "{}",
        text("ports")
    );
    assert_eq!(text("workers").lines().count(), 2);
    assert_eq!(json("rules", &bed)[1]["packets"], 1);
    assert_eq!(json("drops", &bed)[0]["reason"], "short-frame");
    assert_eq!(json("stats", &bed)["packets"]["forwarded"], 1);
    assert_eq!(json("ports", &bed)[0]["rx_bytes"], 47);
    assert_eq!(json("workers", &bed)[0]["flows"], 1);
}

#[test]
fn load_is_shown_and_evened_out() {
    let bed = {
        let mut bed = Bed::new(2);
        bed.start_control();
        bed
    };
    let steering = bed.appliance.shared().steering.clone();
    let hosts = (1..).filter(|host| steering.place(bed.bucket(*host)).is_of(1));
    let hosts: Vec<u32> = hosts.take(8).collect();
    let rebalance = |line: &str| {
        std::thread::scope(|scope| {
            let feeding = scope.spawn(|| {
                for _ in 0..150 {
                    hosts.iter().for_each(|host| bed.feed(*host));
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
            });
            let (code, out, err) = run(line, bed.socket());
            assert_eq!((code, err.as_str()), (ExitCode::SUCCESS, ""));
            feeding.join().unwrap();
            out
        })
    };
    let out = rebalance("ports rebalance --dry-run");
    assert!(out.contains(" would move; 0 there already:"), "{out}");
    assert!(out.contains("     1       64  100.0%"), "{out}");
    let out = rebalance("ports rebalance");
    assert!(out.contains(" begun to move; 0 there already:"), "{out}");
    let (_, out, _) = run("ports rebalance --dry-run", bed.socket());
    assert!(
        out.contains("no packet came that belongs to a flow"),
        "{out}"
    );
    assert!(out.contains("on their way since earlier"), "{out}");
    let rows = json("workers", &bed);
    let why = &rows[0]["handed_why"];
    assert!(why["no-rss"].as_u64() > Some(0), "{rows}");
    assert_eq!(
        (&rows[0]["owned"], &rows[1]["buckets"]),
        (&0.into(), &64.into())
    );
    let (_, out, _) = run("workers", bed.socket());
    assert!(out.contains("  no-rss ") && out.contains("100.0%"), "{out}");
    // Once its flows have ended, the control thread lets the buckets go.
    assert!(run("conntrack -F", bed.socket()).0 == ExitCode::SUCCESS);
    wait(|| json("workers", &bed)[1]["buckets"].as_u64() < Some(64));
}

#[test]
fn reload_says_what_it_did_or_why_not() {
    let mut bed = Bed::new(1);
    bed.start_control();
    let (code, out, err) = run("reload", bed.socket());
    assert_eq!((code, err.as_str()), (ExitCode::SUCCESS, ""));
    assert_eq!(out, "policy reloaded: 2 rules, generation 2\n");
    assert_eq!(json("reload", &bed)["generation"], 3);
    bed.write_policy(&RULES.replace("iif: lan", "iif: lam"));
    let (code, out, err) = run("reload", bed.socket());
    assert_eq!((code, out.as_str()), (ExitCode::FAILURE, ""));
    assert!(
        err.contains("did you mean `lan`?") && err.contains("policy not reloaded: 1 error"),
        "{err}"
    );
    let (code, out, err) = run("reload --format json", bed.socket());
    assert_eq!((code, err.as_str()), (ExitCode::FAILURE, ""));
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(answer["diagnostics"][0]["severity"], "error");
}

#[test]
fn without_an_appliance_it_says_how_to_start_one() {
    let folder = Folder::new();
    let (code, out, err) = run("stats", folder.join("none.sock"));
    assert_eq!((code, out.as_str()), (ExitCode::FAILURE, ""));
    assert!(
        err.starts_with("shardwall: shardwall is not running: nothing answers at /"),
        "{err}"
    );
}

#[test]
fn check_tells_valid_policies_from_others() {
    let bed = Bed::without_workers(1);
    let file = bed.appliance.file().display().to_string();
    let (code, out, err) = run(&format!("check {file}"), bed.socket());
    assert_eq!((code, err.as_str()), (ExitCode::SUCCESS, ""));
    assert_eq!(out, "policy is valid: 2 rules, 0 warnings\n");

    let never = "- { name: all, action: drop }\n      - { name: known";
    bed.write_policy(&RULES.replace("- { name: known", never));
    let (code, out, err) = run(&format!("check {file}"), bed.socket());
    assert_eq!(
        (code, out.as_str()),
        (ExitCode::SUCCESS, "policy is valid: 3 rules, 1 warning\n")
    );
    assert!(err.contains("policy.yaml:"), "{err}");
    let report = json(&format!("check {file}"), &bed);
    assert_eq!(
        (&report["valid"], &report["warnings"]),
        (&true.into(), &1.into())
    );

    fs::write(&file, "version: 1\nbogus: 2\n").unwrap();
    let (code, out, err) = run(&format!("check {file}"), bed.socket());
    assert_eq!((code, out.as_str()), (ExitCode::FAILURE, ""));
    assert!(
        err.contains("bogus") && err.contains("policy is not valid: "),
        "{err}"
    );
    let (code, out, err) = run(&format!("check --format json {file}"), bed.socket());
    assert_eq!((code, err.as_str()), (ExitCode::FAILURE, ""));
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["valid"], false);
    assert!(
        report["diagnostics"]
            .as_array()
            .is_some_and(|list| !list.is_empty())
    );
}
