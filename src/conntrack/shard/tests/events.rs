//! Which packets give which events. Held against `conntrack -E` of Linux 6.18 for the same packets.

use super::*;
use crate::conntrack::event::{Event, Queue, changed};

fn watched() -> (Bench, Arc<Queue>) {
    let mut bench = Bench::new();
    let queue = Arc::<Queue>::default();
    bench.shard.report_to(queue.clone());
    bench.shard.begin(Now::of_turn(0, bench.now), Kind::FLOWS);
    (bench, queue)
}

impl Bench {
    fn tcp(&mut self, from_client: bool, flags: u8, seq: u32, ack: u32) {
        self.packet(&tcp_frame(1000, from_client, flags, seq, ack, b""));
    }
}

/// What happened: the kind, what changed, the TCP state.
fn told(queue: &Queue) -> Vec<(Kind, u8, Option<TcpState>)> {
    let events = std::iter::from_fn(|| queue.pop());
    let show = |event: Event| (event.kind, event.changed, event.flow(0).unwrap().tcp_state);
    events.map(show).collect()
}

#[test]
fn a_tcp_connection_tells_its_states() {
    let (mut bench, queue) = watched();
    let (client, server) = (true, false);
    let update = |changed, state| vec![(Kind::Update, changed, Some(state))];
    bench.tcp(client, SYN, 100, 0);
    let new = vec![(Kind::New, 0, Some(TcpState::SynSent))];
    assert_eq!(told(&queue), new);
    bench.tcp(client, SYN, 100, 0);
    assert_eq!(told(&queue), []);
    bench.tcp(server, SYN | ACK, 500, 101);
    let replied = changed::STATE | changed::SEEN_REPLY;
    assert_eq!(told(&queue), update(replied, TcpState::SynRecv));
    bench.tcp(server, SYN | ACK, 500, 101);
    assert_eq!(told(&queue), []);
    bench.tcp(client, ACK, 101, 501);
    let assured = changed::STATE | changed::ASSURED;
    assert_eq!(told(&queue), update(assured, TcpState::Established));
    bench.tcp(client, ACK, 101, 501);
    bench.tcp(client, ACK, 900_000, 501);
    assert_eq!(told(&queue), []);
    for (from, bits, seq, ack, state) in [
        (server, FIN | ACK, 501, 101, TcpState::FinWait),
        (client, FIN | ACK, 101, 502, TcpState::LastAck),
        (server, ACK, 502, 102, TcpState::TimeWait),
    ] {
        bench.tcp(from, bits, seq, ack);
        assert_eq!(told(&queue), update(changed::STATE, state));
    }
    bench.tcp(client, SYN, 5_000_000, 0);
    let mut reopened = vec![(Kind::Destroy, 0, Some(TcpState::TimeWait))];
    reopened.extend(&new);
    assert_eq!(told(&queue), reopened);
    bench.tcp(server, RST | ACK, 0, 5_000_001);
    assert_eq!(told(&queue), [(Kind::Destroy, 0, Some(TcpState::Close))]);
    // Picked up: the reply and ASSURED come without a new state.
    bench.tcp(client, ACK, 100, 5);
    bench.tcp(server, ACK, 5, 100);
    bench.tcp(client, ACK, 100, 5);
    let state = Some(TcpState::Established);
    let picked_up = [
        (Kind::New, 0, state),
        (Kind::Update, changed::SEEN_REPLY, state),
        (Kind::Update, changed::ASSURED, state),
    ];
    assert_eq!(told(&queue), picked_up);
}

#[test]
fn the_end_of_a_flow_is_told_however_it_comes() {
    let (mut bench, queue) = watched();
    let datagram = |sport| frame(V4, Segment::Udp { sport, dport: 53 }, b"");
    let kinds = || -> Vec<Kind> { told(&queue).into_iter().map(|told| told.0).collect() };
    // What policy drops was never there.
    bench.judge(&datagram(1));
    assert_eq!(kinds(), []);
    bench.packet(&datagram(1));
    bench.wait(31);
    assert_eq!(kinds(), [Kind::New, Kind::Destroy], "expired");
    bench.packet(&datagram(1));
    bench.now = bench.now.plus(Span::secs(31));
    bench.packet(&datagram(1));
    assert_eq!(kinds(), [Kind::New, Kind::Destroy, Kind::New], "found dead");
    let (flows, _) = bench.shard.scan(Cursor::default(), 100);
    bench.shard.remove(&flows);
    assert_eq!(kinds(), [Kind::Destroy], "flushed");
    for port in 1..=101 {
        bench.packet(&datagram(port));
    }
    let made_room = kinds();
    let ends = made_room.iter().filter(|kind| **kind == Kind::Destroy);
    assert_eq!((ends.count(), made_room.len()), (1, 102), "early drop");
    // Nobody wants more.
    bench
        .shard
        .begin(Now::of_turn(0, bench.now), Kind::New.bit());
    bench.wait(31);
    assert_eq!(kinds(), []);
    assert_eq!((queue.made.get(), queue.lost.get()), (108, 0));
}

#[test]
fn a_mark_and_a_state_of_sctp_are_changes() {
    let (mut bench, queue) = watched();
    let changes = |queue: &Queue| {
        let events = std::iter::from_fn(|| queue.pop());
        let show = |event: Event| (event.kind, event.changed);
        events.map(show).collect::<Vec<_>>()
    };
    bench.packet(&udp(V4, 1000, 53));
    let marked = bench.packet(&udp(V4, 1000, 53)).flow;
    assert_eq!(changes(&queue), [(Kind::New, 0)]);
    bench.shard.set_mark(marked, 7);
    bench.shard.tell_changes();
    assert_eq!(changes(&queue), [(Kind::Update, changed::MARK)]);
    bench.shard.set_mark(marked, 7);
    bench.shard.tell_changes();
    assert_eq!(changes(&queue), []);
    // What a packet and a rule change together is one event.
    let answer = udp(V4.flip(), 53, 1000);
    let parsed = parse(&answer, answer.len());
    let prepared = bench.shard.prepare(&answer, &parsed, 0);
    let said = bench
        .shard
        .track(&answer, &parsed, &prepared, false, bench.now, &bench.config);
    bench.shard.set_mark(said.flow, 8);
    bench.shard.tell_changes();
    let both = changed::SEEN_REPLY | changed::MARK;
    assert_eq!(changes(&queue), [(Kind::Update, both)]);

    let sctp = |from_client: bool, vtag, chunk: u8, body: &[u8]| {
        let (sport, dport) = if from_client { (9, 80) } else { (80, 9) };
        let packet = crate::wire::sctp::packet(
            sport,
            dport,
            vtag,
            &crate::wire::sctp::encode(chunk, 0, body),
        );
        let addrs = if from_client { V4 } else { V4.flip() };
        frame(addrs, Segment::Raw(proto::SCTP), &packet)
    };
    let init = |tag: u32| [&tag.to_be_bytes()[..], &[0; 12]].concat();
    bench.packet(&sctp(true, 0, 1, &init(5)));
    bench.packet(&sctp(false, 5, 2, &init(6)));
    let answered = changed::SEEN_REPLY | changed::STATE;
    assert_eq!(changes(&queue), [(Kind::New, 0), (Kind::Update, answered)]);
    bench.packet(&sctp(true, 6, 10, &[]));
    bench.packet(&sctp(false, 5, 11, &[]));
    let (state, assured) = (changed::STATE, changed::STATE | changed::ASSURED);
    let both = [(Kind::Update, state), (Kind::Update, assured)];
    assert_eq!(changes(&queue), both);
    // A SHUTDOWN, and behind it an ABORT with the wrong tag: what the first did stays done.
    let chunks = [[7, 0, 0, 4], [6, 1, 0, 4]].concat();
    let packet = crate::wire::sctp::packet(9, 80, 6, &chunks);
    let said = bench.packet(&frame(V4, Segment::Raw(proto::SCTP), &packet));
    assert_eq!(said.state, CtState::Invalid);
    assert_eq!(changes(&queue), [(Kind::Update, state)]);
}
