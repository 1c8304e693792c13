//! What the path does on purpose otherwise than the kernel, one test for each row of the
//! table in `docs/netfilter.md` that is about it.

use super::*;
use crate::conntrack::event::{Kind, Queue, changed};
use crate::conntrack::types::{TcpState, proto};
use crate::pipeline::DropReason;
use crate::policy::RejectWith;

/// Opens a TCP connection from `client` to 10.0.1.1, which is ASSURED then.
fn connect(path: &mut Path, client: Addrs, sport: u16) {
    for (iif, frame) in [
        (LAN, tcp(client, sport, 80, SYN, 100, 0)),
        (WAN, tcp(client.flip(), 80, sport, SYN | ACK, 500, 101)),
        (LAN, tcp(client, sport, 80, ACK, 101, 501)),
    ] {
        assert!(path.passes(iif, &frame));
    }
}

fn icmp(addrs: Addrs, ty: u8) -> Vec<u8> {
    let segment = Segment::Icmp {
        ty,
        code: 0,
        rest: 9 << 16 | 1,
    };
    frame(addrs, segment, b"ping")
}

#[test]
fn a_full_table_leaves_invalid_what_is_invalid() {
    let mut path = Path::new(&format!(
        "{}conntrack: {{ max: 32 }}\n",
        rules("      - { name: odd, ct: invalid, action: accept }\n      - { action: accept }")
    ));
    for port in 0..32 {
        connect(&mut path, TALK, port);
    }
    let known = path.flows();
    assert!(known.len() == 32 && known.iter().all(|flow| flow.assured));
    let v6 = from6(1, 1);
    for (what, iif, frame) in [
        ("SYN/ACK", WAN, tcp(TALK.flip(), 80, 99, SYN | ACK, 1, 2)),
        ("SYN/ACK", WAN, tcp(v6.flip(), 80, 99, SYN | ACK, 1, 2)),
        ("RST", LAN, tcp(TALK, 99, 80, RST, 1, 0)),
        ("echo reply", WAN, icmp(TALK.flip(), 0)),
        ("echo reply", WAN, icmp(v6.flip(), 129)),
    ] {
        let state = path.send(iif, &frame).tracked.map(|said| said.state);
        assert_eq!(state, Some(CtState::Invalid), "{what}");
        assert_eq!(path.rule(iif, &frame), "forward/odd", "{what}");
        assert!(path.passes(iif, &frame), "{what}");
    }
    let full = |path: &Path| path.pipeline.counters().drops[DropReason::TableFull as usize].get();
    assert_eq!(full(&path), 0);
    // what may start a flow finds no room
    for frame in [
        tcp(TALK, 99, 80, SYN, 1, 0),
        tcp(v6, 99, 80, SYN, 1, 0),
        udp(TALK, 99, 53),
        icmp(TALK, 8),
        icmp(v6, 128),
    ] {
        let want = Disposition::Drop(DropReason::TableFull);
        assert_eq!(path.send(LAN, &frame).disposition, want);
    }
    assert_eq!((full(&path), path.flows()), (5, known));
}

#[test]
fn a_reset_that_answers_an_invalid_packet_changes_nothing() {
    for client in [TALK, from6(1, 1)] {
        let mut path = Path::new(&rules(
            "      - { name: refused, ct: invalid, proto: tcp, action: reject }
      - { action: accept }",
        ));
        connect(&mut path, client, 5);
        path.wait(10);
        let before = path.flows();
        let (state, timeout) = (before[0].tcp_state, before[0].timeout);
        assert_eq!((state, timeout), (Some(TcpState::Established), 431_990));
        let server = client.flip();
        let mut broken = tcp(server, 80, 5, ACK, 501, 101);
        *broken.last_mut().unwrap() ^= 1;
        for (what, iif, frame) in [
            ("far ahead", WAN, tcp(server, 80, 5, ACK, 1 << 30, 101)),
            ("far ahead", LAN, tcp(client, 5, 80, ACK, 1 << 30, 501)),
            ("no such flags", LAN, tcp(client, 5, 80, 0, 101, 501)),
            ("checksum", WAN, broken),
        ] {
            assert_eq!(path.rule(iif, &frame), "forward/refused", "{what}");
            let outcome = path.send(iif, &frame);
            let reset = Disposition::Reject(RejectWith::TcpReset);
            assert_eq!(outcome.disposition, reset, "{what}");
            let state = outcome.tracked.map(|said| said.state);
            assert_eq!(state, Some(CtState::Invalid), "{what}");
            assert_eq!(path.flows(), before, "{what}");
        }
        // the answer to a packet of the flow closes it
        path.reload(&rules("      - { proto: tcp, action: reject }"));
        path.send(LAN, &tcp(client, 5, 80, ACK, 101, 501));
        assert_eq!(path.flows()[0].tcp_state, Some(TcpState::Close));
    }
}

#[test]
fn packets_without_a_flow_have_a_zone() {
    let mut path = Path::new(&format!(
        "{}raw:\n  - {{ proto: udp, dport: 9, action: notrack }}\n",
        rules(
            "      - { name: here, ct: [invalid, untracked], ct-zone: 0, action: drop }
      - { name: elsewhere, ct: [invalid, untracked], action: drop }
      - { action: accept }",
        )
    ));
    for client in [TALK, from6(1, 1)] {
        for frame in [tcp(client, 5, 80, RST, 1, 0), udp(client, 5, 9)] {
            assert_eq!(path.rule(LAN, &frame), "forward/here");
        }
        assert_eq!(path.rule(LAN, &udp(client, 5, 8)), "forward/3");
    }
}

/// The IPv6 frame `bytes` with an authentication header (RFC 4302) in front of its transport's.
fn authenticated(bytes: &[u8]) -> Vec<u8> {
    const IP: usize = 14;
    const LEN: u8 = 24; // twelve bytes and a check value as long
    let (head, rest) = bytes.split_at(IP + 40);
    let mut out = head.to_vec();
    let next = std::mem::replace(&mut out[IP + 6], 51);
    let len = rest.len() as u16 + u16::from(LEN);
    out[IP + 4..IP + 6].copy_from_slice(&len.to_be_bytes());
    out.extend([next, LEN / 4 - 2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]);
    out.extend([0xa5; LEN as usize - 12]);
    out.extend(rest);
    out
}

#[test]
fn ports_are_seen_behind_an_ipv6_authentication_header() {
    let mut path = Path::new(&rules(
        "      - { name: dport, proto: udp, dport: 53, action: accept }
      - { name: sports, proto: [tcp, udp], sport: [1000, 2000-2001], action: accept }
      - { name: others, action: accept }",
    ));
    let addrs = from6(1, 1);
    let syn = |sport| tcp(addrs, sport, 80, SYN, 1, 0);
    for (frame, rule) in [
        (udp(addrs, 7, 53), "forward/dport"),
        (udp(addrs, 7, 54), "forward/others"),
        (udp(addrs, 1000, 54), "forward/sports"),
        (syn(2001), "forward/sports"),
        (syn(53), "forward/others"),
    ] {
        // as without one
        assert_eq!(path.rule(LAN, &frame), rule);
        let behind = authenticated(&frame);
        assert_eq!(path.rule(LAN, &behind), rule);
        let flow = path.send(LAN, &behind).tracked.map(|said| said.state);
        assert_eq!(flow, Some(CtState::New));
    }
    assert_eq!(path.flows().len(), 5);
    // nor can a packet hide behind one from a raw rule
    path.reload(&format!(
        "{}raw: [{{ proto: udp, dport: 53, action: notrack }}]\n",
        rules("      - { action: accept }")
    ));
    let said = path.send(LAN, &authenticated(&udp(addrs, 7, 53))).tracked;
    assert_eq!(said.map(|said| said.state), Some(CtState::Untracked));
}

#[test]
fn ports_in_a_header_that_is_cut_off_do_not_match() {
    let mut path = Path::new(&rules(
        "      - { name: dport, proto: [6, 17, 132, 136], dport: 80, action: accept }
      - { name: sport, proto: [6, 17, 132, 136], sport: 1000, action: accept }
      - { name: cut, proto: [6, 17, 132, 136], action: accept }",
    ));
    let header = |dport: u8, rest: &[u8]| [&[0x03, 0xe8, 0, dport], rest].concat();
    let mut plain = [0; 16];
    plain[8..10].copy_from_slice(&[5 << 4, ACK]);
    let mut options = [1; 20];
    options[8..10].copy_from_slice(&[6 << 4, ACK]);
    for (number, rest) in [
        (proto::TCP, &plain[..]),
        (proto::TCP, &options),
        (proto::UDP, &[0, 8, 0, 1]),
        (proto::UDPLITE, &[0, 8, 0, 1]),
        (proto::SCTP, &[0; 8]),
    ] {
        for (dport, rule) in [(80, "forward/dport"), (81, "forward/sport")] {
            let whole = header(dport, rest);
            for (addrs, len) in [TALK, from6(1, 1)]
                .into_iter()
                .flat_map(|addrs| (4..=whole.len()).map(move |len| (addrs, len)))
            {
                let frame = frame(addrs, Segment::Raw(number), &whole[..len]);
                let want = match len == whole.len() {
                    true => rule,
                    false => "forward/cut",
                };
                let what = format!("protocol {number}, {len} bytes, {addrs:?}");
                assert_eq!(path.rule(LAN, &frame), want, "{what}");
            }
        }
    }
}

#[test]
fn the_reset_that_ends_an_unanswered_flow_has_no_flow() {
    let mut path = Path::new(&rules(
        "      - { name: first, ct-status: \"!confirmed\", mark: 0x10, action: accept }
      - { name: marked, ct-mark: 0x10, action: accept }
      - { name: otherwise, ct-mark: \"!0x10\", action: accept }
      - { name: known, ct-status: confirmed, action: accept }
      - { name: unanswered, ct-status: \"!seen-reply\", action: accept }
      - { name: no-flow, action: accept }",
    ));
    for client in [TALK, from6(1, 1)] {
        let syn = tcp(client, 5, 80, SYN, 100, 0);
        let reset = tcp(client, 5, 80, RST, 101, 0);
        let refusal = tcp(client.flip(), 80, 5, RST | ACK, 0, 101);
        for (iif, end) in [(LAN, &reset), (WAN, &refusal)] {
            assert_eq!(path.rule(LAN, &syn), "forward/first");
            assert_eq!(path.rule(LAN, &syn), "forward/marked");
            assert_eq!(path.rule(iif, end), "forward/no-flow");
            assert!(path.flows().is_empty());
        }
        // one that was answered outlives its reset
        assert_eq!(path.rule(LAN, &syn), "forward/first");
        let answer = tcp(client.flip(), 80, 5, SYN | ACK, 500, 101);
        assert_eq!(path.rule(WAN, &answer), "forward/marked");
        assert_eq!(path.rule(LAN, &reset), "forward/marked");
        assert_eq!(path.flows().len(), 1);
        path.flush();
    }
}

#[test]
fn what_a_dropped_packet_changed_is_told_at_once() {
    for refuse in ["drop", "reject"] {
        let mut path = Path::new(&rules(&format!(
            "      - {{ iif: lan, action: accept }}
      - {{ name: refused, mark: 7, action: {refuse} }}"
        )));
        let queue = Arc::<Queue>::default();
        let shard = path.pipeline.shard_mut();
        shard.report_to(queue.clone());
        shard.begin(path.now, Kind::FLOWS);
        let told = || -> Vec<_> {
            let events = std::iter::from_fn(|| queue.pop());
            events.map(|event| (event.kind, event.changed)).collect()
        };
        let replied = changed::SEEN_REPLY | changed::MARK;
        for (there, back, changes) in [
            (udp(TALK, 9, 53), udp(TALK.flip(), 53, 9), replied),
            (
                tcp(TALK, 9, 80, SYN, 100, 0),
                tcp(TALK.flip(), 80, 9, SYN | ACK, 500, 101),
                replied | changed::STATE,
            ),
        ] {
            // of a flow that never began there is nothing to tell
            assert!(!path.passes(WAN, &back));
            assert_eq!(told(), []);
            assert!(path.passes(LAN, &there));
            assert_eq!(told(), [(Kind::New, 0)]);
            assert_eq!(path.rule(WAN, &back), "forward/refused");
            assert_eq!(told(), [(Kind::Update, changes)], "{refuse}");
        }
    }
}

#[test]
fn a_connlimit_does_not_count_what_was_there_before() {
    for (per, over) in [("source", ""), ("rule", ""), ("source", "over ")] {
        let mut path = Path::new(&rules("      - { action: accept }"));
        let there = |port| udp(from(1), port, 53);
        let back = |port| udp(from(1).flip(), 53, port);
        for port in 0..5 {
            assert!(path.passes(LAN, &there(port)));
        }
        let limit = format!("\"{over}2 per {per}\"");
        path.reload(&rules(&match over {
            "" => format!("      - {{ connlimit: {limit}, action: accept }}"),
            _ => format!(
                "      - {{ connlimit: {limit}, action: drop }}\n      - {{ action: accept }}"
            ),
        }));
        // they come by the rule, both ways, and are not counted
        for port in 0..5 {
            assert!(path.passes(LAN, &there(port)) && path.passes(WAN, &back(port)));
            assert_eq!(path.counted(), 0, "{limit}");
        }
        // so there is room for as many as the limit says
        let passed: Vec<_> = (5..8).map(|port| path.passes(LAN, &there(port))).collect();
        assert_eq!(passed, [true, true, false], "{limit}");
        assert_eq!((path.flows().len(), path.counted()), (7, 2), "{limit}");
        for port in 0..5 {
            assert!(path.passes(LAN, &there(port)));
        }
        assert_eq!(path.counted(), 2, "{limit}");
        // and their ends give nothing back
        path.flush();
        assert_eq!(path.counted(), 0, "{limit}");
    }
}
