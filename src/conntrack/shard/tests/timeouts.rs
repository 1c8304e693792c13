//! Flows that policy gives timeouts of their own.

use super::*;
use crate::conntrack::config::{MAX_PROFILES, Timeouts};

/// Every timeout of set `number` is told from every other by its seconds.
fn told_apart(number: u32) -> Timeouts {
    let secs = |n: u32| Span::secs(1000 * number + n);
    Timeouts {
        tcp: std::array::from_fn(|state| secs(state as u32)),
        tcp_retrans: secs(500),
        tcp_unack: secs(501),
        udp_unreplied: secs(100),
        udp_replied: secs(101),
        udplite_unreplied: secs(102),
        udplite_replied: secs(103),
        icmp: secs(104),
        icmpv6: secs(105),
        gre_unreplied: secs(106),
        gre_replied: secs(107),
        sctp: std::array::from_fn(|state| secs(200 + state as u32)),
        generic: secs(108),
    }
}

fn bench() -> Bench {
    Bench::with(Config {
        timeouts: told_apart(0),
        profiles: std::array::from_fn(|at| told_apart(at as u32 + 1)),
        ..Config::default()
    })
}

impl Bench {
    /// A packet whose flow goes by timeouts `number` if it starts one; how long the flow lives then.
    fn timed(&mut self, bytes: &[u8], number: u8) -> u32 {
        let tracked = self.judge(bytes);
        if tracked.flow == Flow::Pending {
            self.shard.set_timeouts(number, self.now, &self.config);
            self.shard.commit(self.now).unwrap();
        }
        self.flow().map_or(0, |flow| flow.timeout)
    }
}

#[test]
fn every_set_is_reached_by_its_number() {
    for number in 0..=MAX_PROFILES as u8 {
        let base = 1000 * u32::from(number);
        let mut bench = bench();
        let (there, back) = (udp(V6, 5000, 53), udp(V6.flip(), 53, 5000));
        assert_eq!(bench.timed(&there, number), base + 100);
        // The set is chosen once: what a later packet is told has no effect.
        assert_eq!(bench.timed(&back, 3), base + 100);
        bench.wait(3);
        assert_eq!(bench.timed(&there, 3), base + 101);
        // By the short way, as an ASSURED flow.
        assert_eq!(bench.timed(&back, 3), base + 101);
        let flow = bench.flow().unwrap();
        assert!(flow.seen_reply && flow.assured && !flow.expected);
    }
}

#[test]
fn tcp_goes_through_its_states_by_its_own_set() {
    for number in [0, 1, 7] {
        let of = |state: TcpState| 1000 * u32::from(number) + state as u32;
        let mut bench = bench();
        let mut at = |client, flags, seq, ack, payload: &[u8]| {
            bench.timed(&tcp_frame(1000, client, flags, seq, ack, payload), number)
        };
        assert_eq!(at(true, SYN, 10, 0, b""), of(TcpState::SynSent));
        assert_eq!(at(false, SYN | ACK, 50, 11, b""), of(TcpState::SynRecv));
        assert_eq!(at(true, ACK, 11, 51, b""), of(TcpState::Established));
        assert_eq!(at(true, ACK, 11, 51, b"data"), of(TcpState::Established));
        assert_eq!(at(false, ACK, 51, 15, b""), of(TcpState::Established));
        assert_eq!(at(true, FIN | ACK, 15, 51, b""), of(TcpState::FinWait));
        assert_eq!(at(false, ACK, 51, 16, b""), of(TcpState::CloseWait));
        assert_eq!(at(false, FIN | ACK, 51, 16, b""), of(TcpState::LastAck));
        assert_eq!(at(true, ACK, 16, 52, b""), of(TcpState::TimeWait));
    }
}

/// What Linux 6.18 does: the set's first timeout, where the default has that of unacknowledged
/// data; from the next packet on the usual one.
#[test]
fn a_flow_that_is_picked_up_begins_with_the_first_timeout() {
    let pick_up = tcp_frame(1000, true, ACK, 10, 50, b"");
    let goes_on = tcp_frame(1000, false, ACK, 50, 10, b"");
    let established = TcpState::Established as u32;
    for (number, first) in [(0, established), (2, 2000 + TcpState::SynSent as u32)] {
        let mut bench = bench();
        assert_eq!(bench.timed(&pick_up, number), first);
        let then = 1000 * u32::from(number) + established;
        assert_eq!(bench.timed(&goes_on, number), then);
    }
}

#[test]
fn a_reset_that_a_rule_sends_closes_by_the_flows_own_set() {
    let mut bench = bench();
    let syn = tcp_frame(1000, true, SYN, 10, 0, b"");
    bench.timed(&syn, 4);
    let parsed = parse(&syn, syn.len());
    let prepared = bench.shard.prepare(&syn, &parsed, 0);
    let flow = bench.shard.peek(&prepared, bench.now).unwrap();
    bench.shard.close(flow, bench.now, &bench.config);
    let timeout = bench.flow().unwrap().timeout;
    assert_eq!(timeout, 4000 + TcpState::Close as u32);
}

#[test]
fn a_set_that_is_gone_leaves_the_default() {
    let mut bench = bench();
    let there = udp(V4, 5000, 53);
    assert_eq!(bench.timed(&there, 5), 5100);
    bench.config.profiles[4] = bench.config.timeouts.clone();
    assert_eq!(bench.timed(&there, 0), 100);
}
