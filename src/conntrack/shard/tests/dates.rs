//! When a flow began.

use super::*;

/// A bench whose wall clock is in its third turn of the ticks.
fn dated() -> (Bench, Now) {
    let mut bench = Bench::with(Config {
        timestamps: true,
        ..Config::default()
    });
    let now = Now::of_turn(2, bench.now);
    bench.shard.begin(now, 0);
    (bench, now)
}

fn send(bench: &mut Bench, from_client: bool, flags: u8, seq: u32, ack: u32) -> Tracked {
    let addrs = if from_client { V4 } else { V4.flip() };
    let (sport, dport) = if from_client { (1000, 80) } else { (80, 1000) };
    let segment = Segment::Tcp {
        sport,
        dport,
        seq,
        ack,
        flags,
        window: 64_000,
        options: &[4, 2, 1, 1], // SACK permitted
    };
    bench.packet(&frame(addrs, segment, b""))
}

#[test]
fn the_tcp_tracker_leaves_the_date_alone() {
    let (mut bench, start) = dated();
    let mut check = |from_client, flags, seq, ack, state| {
        send(&mut bench, from_client, flags, seq, ack);
        bench.wait(1);
        bench.shard.begin(Now::of_turn(3, bench.now), 0);
        let flow = bench.flow().unwrap();
        assert_eq!(flow.start_ms, Some(start.nanos() / 1_000_000));
        assert_eq!(flow.tcp_state, Some(state));
    };
    let (client, server) = (true, false);
    check(client, SYN, 100, 0, TcpState::SynSent);
    check(server, ACK, 9, 77, TcpState::SynSent);
    check(server, SYN | ACK, 500, 101, TcpState::SynRecv);
    check(client, ACK, 101, 501, TcpState::Established);
    for _ in 0..5 {
        check(client, ACK, 101, 501, TcpState::Established);
    }
    // Ignored, and then believed after all.
    check(client, SYN, 7000, 0, TcpState::Established);
    check(server, SYN | ACK, 900, 7001, TcpState::SynRecv);
    check(client, ACK, 7001, 901, TcpState::Established);
    check(server, RST, 1, 0, TcpState::Established);
    check(server, FIN | ACK, 901, 7001, TcpState::FinWait);
    check(client, FIN | ACK, 7001, 902, TcpState::LastAck);
    check(client, SYN, 1, 0, TcpState::LastAck);
    check(server, ACK, 902, 7002, TcpState::LastAck);
    check(server, ACK, 902, 7002, TcpState::TimeWait);
    // Opened anew, it is another flow.
    send(&mut bench, client, SYN, 50_000, 0);
    let begun = bench.flow().unwrap().start_ms;
    assert_eq!(begun, Some(Now::of_turn(3, bench.now).nanos() / 1_000_000));
}

#[test]
fn dates_are_kept_only_where_they_are_asked_for() {
    let mut bench = Bench::new();
    send(&mut bench, true, SYN, 100, 0);
    assert_eq!(bench.flow().unwrap().start_ms, None);
    // Switched on later, it does not date what was there before.
    bench.config.timestamps = true;
    send(&mut bench, true, SYN, 100, 0);
    assert_eq!(bench.flow().unwrap().start_ms, None);
}
