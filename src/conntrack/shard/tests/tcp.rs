//! TCP traces: what goes by, and what the tracker says of it. Written like a conversation, one line
//! a packet; `>` is the client's side, `<` the server's.

use super::*;

const SACK_PERMITTED: &[u8] = &[4, 2, 1, 1];

/// One TCP segment and what is to be said of it.
struct Step {
    from_client: bool,
    bits: u8,
    seq: u32,
    ack: u32,
    len: usize,
    window: u16,
    state: CtState,
    flow: Option<(TcpState, u32, bool)>,
}

/// `>` or `<`, flags, seq, ack, payload; the state, and the flow's state, timeout and ASSURED.
macro_rules! step {
    (@dir >) => { true };
    (@dir <) => { false };
    (@assured) => { false };
    (@assured ASSURED) => { true };
    ($dir:tt $bits:expr, $seq:expr, $ack:expr, $len:expr => $state:ident $(, $tcp:ident $timeout:literal $($assured:ident)?)?) => {
        step!($dir $bits, $seq, $ack, $len, 64_000 => $state $(, $tcp $timeout $($assured)?)?)
    };
    ($dir:tt $bits:expr, $seq:expr, $ack:expr, $len:expr, $window:expr => $state:ident $(, $tcp:ident $timeout:literal $($assured:ident)?)?) => {{
        #[allow(unused_mut, unused_assignments)]
        let mut flow = None;
        $( flow = Some((TcpState::$tcp, $timeout, step!(@assured $($assured)?))); )?
        Step {
            from_client: step!(@dir $dir),
            bits: $bits, seq: $seq, ack: $ack, len: $len, window: $window, state: $state, flow,
        }
    }};
}

fn segment(addrs: Addrs, step: &Step) -> Vec<u8> {
    let options = if step.bits & SYN != 0 {
        SACK_PERMITTED
    } else {
        &[]
    };
    let (addrs, sport, dport) = if step.from_client {
        (addrs, 40_000, 80)
    } else {
        (addrs.flip(), 80, 40_000)
    };
    let Step {
        seq,
        ack,
        bits: flags,
        window,
        ..
    } = *step;
    let segment = Segment::Tcp {
        sport,
        dport,
        seq,
        ack,
        flags,
        window,
        options,
    };
    frame(addrs, segment, &vec![0; step.len])
}

impl Bench {
    fn trace(&mut self, addrs: Addrs, steps: &[Step]) {
        for (at, step) in steps.iter().enumerate() {
            let tracked = self.packet(&segment(addrs, step));
            assert_eq!(tracked.state, step.state, "state of line {at}");
            let flow = self
                .flow()
                .map(|flow| (flow.tcp_state.unwrap(), flow.timeout, flow.assured));
            assert_eq!(flow, step.flow, "flow after line {at}");
        }
    }
}

/// A client at 1000, a server at 5000.
fn handshake() -> Vec<Step> {
    vec![
        step!(> SYN, 1000, 0, 0 => NEW, SynSent 120),
        step!(< SYN | ACK, 5000, 1001, 0 => EST, SynRecv 60),
        step!(> ACK, 1001, 5001, 0 => EST, Established 432_000 ASSURED),
    ]
}

#[test]
fn a_conversation_from_syn_to_time_wait() {
    for addrs in [V4, V6] {
        let mut bench = Bench::new();
        bench.trace(addrs, &handshake());
        bench.trace(
            addrs,
            &[
                step!(> ACK | PSH, 1001, 5001, 100 => EST, Established 300 ASSURED),
                step!(< ACK, 5001, 1101, 0 => EST, Established 432_000 ASSURED),
                step!(< ACK | PSH, 5001, 1101, 500 => EST, Established 300 ASSURED),
                step!(> ACK, 1101, 5501, 0 => EST, Established 432_000 ASSURED),
                step!(< FIN | ACK, 5501, 1101, 0 => EST, FinWait 120 ASSURED),
                step!(> FIN | ACK, 1101, 5502, 0 => EST, LastAck 30 ASSURED),
                step!(< ACK, 5502, 1102, 0 => EST, TimeWait 120 ASSURED),
            ],
        );
        bench.wait(121);
        assert_eq!(bench.flow(), None);
        assert_eq!(
            (bench.counters.insert.get(), bench.counters.delete.get()),
            (1, 1)
        );
        assert_eq!(bench.counters.invalid.get(), 0);
    }
}

#[test]
fn repeated_syns_do_not_keep_a_flow_alive() {
    let mut bench = Bench::new();
    bench.trace(V4, &[step!(> SYN, 1000, 0, 0 => NEW, SynSent 120)]);
    bench.wait(100);
    bench.trace(V4, &[step!(> SYN, 1000, 0, 0 => NEW, SynSent 20)]);
    bench.wait(21);
    assert_eq!(bench.flow(), None);
}

#[test]
fn a_reset_before_any_reply_ends_the_flow() {
    let mut bench = Bench::new();
    bench.trace(
        V4,
        &[
            step!(> SYN, 1000, 0, 0 => NEW, SynSent 120),
            step!(< RST | ACK, 0, 1001, 0 => EST),
        ],
    );
}

/// The behaviour of Linux's `conntrack_rst_invalid` self-test.
#[test]
fn only_the_exact_reset_closes() {
    let mut bench = Bench::new();
    bench.trace(V4, &handshake());
    bench.trace(
        V4,
        &[
            step!(> ACK | PSH, 1001, 5001, 100 => EST, Established 300 ASSURED),
            step!(< ACK, 5001, 1101, 0 => EST, Established 432_000 ASSURED),
            step!(> RST, 0, 0, 0 => INV, Established 432_000 ASSURED),
            step!(> RST, 1_000_000, 0, 0 => INV, Established 432_000 ASSURED),
            step!(> RST, 42, 0, 0 => INV, Established 432_000 ASSURED),
            step!(> RST | ACK, 1100, 5001, 0 => INV, Established 432_000 ASSURED),
            step!(> RST, 1101, 0, 0 => EST, Close 10 ASSURED),
        ],
    );
    assert_eq!(bench.counters.invalid.get(), 4);
}

#[test]
fn an_inexact_reset_leaves_little_time() {
    let mut bench = Bench::new();
    bench.trace(V4, &handshake());
    bench.trace(
        V4,
        &[
            step!(> ACK | PSH, 1001, 5001, 100 => EST, Established 300 ASSURED),
            step!(> RST, 1111, 0, 0 => EST, Established 10 ASSURED),
            step!(< ACK, 5001, 1101, 0 => EST, Established 300 ASSURED),
        ],
    );
}

#[test]
fn a_reset_answers_no_syn_of_its_own_side() {
    let mut bench = Bench::new();
    bench.trace(V4, &handshake());
    bench.trace(
        V4,
        &[
            step!(> SYN, 2000, 0, 0 => EST, Established 432_000 ASSURED),
            step!(> RST, 900_000, 2001, 0 => INV, Established 432_000 ASSURED),
            // Both sides tried to end it: the tracker may be out of step.
            step!(< RST, 900_000, 2001, 0 => INV, Established 300 ASSURED),
        ],
    );
}

#[test]
fn a_resynchronised_answerer_stays_liberal() {
    let mut bench = Bench::new();
    bench.trace(
        V4,
        &[
            step!(> ACK, 1000, 5000, 0 => NEW, Established 300),
            step!(< ACK, 5000, 1000, 0 => EST, Established 300),
            step!(> SYN, 2000, 0, 0 => EST, Established 300),
            step!(< SYN | ACK, 9000, 2001, 0 => EST, SynRecv 60),
            step!(> ACK, 2001, 9001, 0 => EST, Established 432_000 ASSURED),
            step!(< ACK, 9001, 7777, 0 => EST, Established 432_000 ASSURED),
            step!(> ACK, 2001, 9999, 0 => INV, Established 432_000 ASSURED),
        ],
    );
}

/// `conntrack_inexact_rst`: while a flow closes, late and inexact resets pass.
#[test]
fn resets_of_a_closing_flow_pass() {
    let mut bench = Bench::new();
    bench.trace(V4, &handshake());
    bench.trace(
        V4,
        &[
            step!(> ACK | PSH, 1001, 5001, 1000 => EST, Established 300 ASSURED),
            step!(> FIN | ACK, 2001, 5001, 0 => EST, FinWait 120 ASSURED),
            step!(< ACK, 5001, 2002, 0 => EST, CloseWait 60 ASSURED),
            step!(< RST, 5001, 0, 0 => EST, Close 10 ASSURED),
            step!(> RST, 1500, 0, 0 => EST, Close 10 ASSURED),
        ],
    );
    assert_eq!(bench.counters.invalid.get(), 0);
}

/// `conntrack_syn_challenge_ack`: the peer has an old incarnation of the connection.
#[test]
fn a_challenge_ack_passes_and_the_handshake_goes_on() {
    let mut bench = Bench::new();
    bench.trace(
        V4,
        &[
            step!(> SYN, 1000, 0, 0 => NEW, SynSent 120),
            step!(< ACK, 777, 333, 0 => EST, SynSent 120),
        ],
    );
    bench.trace(
        V4,
        &[
            step!(> RST, 333, 0, 0 => EST, Close 10),
            step!(> SYN, 1000, 0, 0 => NEW, SynSent 120),
            step!(< SYN | ACK, 5000, 1001, 0 => EST, SynRecv 60),
            step!(> ACK, 1001, 5001, 0 => EST, Established 432_000 ASSURED),
        ],
    );
    assert_eq!(bench.counters.invalid.get(), 0);
}

/// `conntrack_ack_loss_stall`: the acknowledgement of data was lost behind the tracker, and the
/// sender repeats what lies before any window; it must reach the receiver, which acknowledges again.
#[test]
fn data_that_was_acknowledged_already_passes() {
    let mut bench = Bench::new();
    bench.trace(
        V4,
        &[
            step!(> SYN, 1000, 0, 0 => NEW, SynSent 120),
            step!(< SYN | ACK, 5000, 1001, 0, 500 => EST, SynRecv 60),
            step!(> ACK, 1001, 5001, 0 => EST, Established 432_000 ASSURED),
            step!(> ACK | PSH, 1001, 5001, 500 => EST, Established 300 ASSURED),
            step!(< ACK, 5001, 1501, 0, 500 => EST, Established 432_000 ASSURED),
            step!(> ACK | PSH, 1501, 5001, 500 => EST, Established 300 ASSURED),
            step!(< ACK, 5001, 2001, 0, 500 => EST, Established 432_000 ASSURED),
            step!(> ACK | PSH, 2001, 5001, 500 => EST, Established 300 ASSURED),
            // The first segment, in part and whole: below the second bound.
            step!(> ACK | PSH, 1001, 5001, 200 => EST, Established 300 ASSURED),
            step!(> ACK | PSH, 1001, 5001, 500 => EST, Established 300 ASSURED),
            step!(< ACK, 5001, 2501, 0, 500 => EST, Established 432_000 ASSURED),
        ],
    );
    assert_eq!(bench.counters.invalid.get(), 0);
}

/// `conntrack_synack_old`: the answer to a SYN that is not this one's. The client repeats its SYN
/// and gets the right answer.
#[test]
fn an_answer_to_another_syn_is_invalid() {
    for old in [4000, 5000u32.wrapping_sub(1 << 30)] {
        let mut bench = Bench::new();
        bench.trace(
            V4,
            &[
                step!(> SYN, 1000, 0, 0 => NEW, SynSent 120),
                step!(< SYN | ACK, old, 900_000_000, 0 => INV, SynSent 120),
                step!(> SYN, 1000, 0, 0 => NEW, SynSent 120),
                step!(< SYN | ACK, 5000, 1001, 0 => EST, SynRecv 60),
                step!(> ACK, 1001, 5001, 0 => EST, Established 432_000 ASSURED),
                step!(< ACK, 5001, 1001, 0 => EST, Established 432_000 ASSURED),
            ],
        );
        assert_eq!(bench.counters.invalid.get(), 1);
        assert_eq!(bench.counters.insert.get(), 1);
    }
}

/// Linux takes the number of such an answer for the server's all the same; where the right one's is
/// lower, that one looks old, and the handshake must start over.
#[test]
fn an_answer_to_another_syn_with_a_higher_number_stalls_the_handshake() {
    let mut bench = Bench::new();
    bench.trace(
        V4,
        &[
            step!(> SYN, 1000, 0, 0 => NEW, SynSent 120),
            step!(< SYN | ACK, 3_000_000, 900_000_000, 0 => INV, SynSent 120),
            step!(> SYN, 1000, 0, 0 => NEW, SynSent 120),
            step!(< SYN | ACK, 5000, 1001, 0 => EST, SynSent 120),
            step!(> ACK, 1001, 5001, 0 => INV, SynSent 120),
        ],
    );
    assert_eq!(bench.counters.invalid.get(), 2);
}

/// `conntrack_synack_reuse`: the client forgot the connection and opens it anew; the server's
/// challenge ACK passes, the client's RST ends the flow, and its next SYN starts another.
#[test]
fn a_client_that_forgot_its_connection_gets_another() {
    let mut bench = Bench::new();
    bench.trace(V4, &handshake());
    bench.trace(
        V4,
        &[
            step!(> ACK | PSH, 1001, 5001, 1000 => EST, Established 300 ASSURED),
            step!(< ACK, 5001, 2001, 0 => EST, Established 432_000 ASSURED),
            step!(> SYN, 8000, 0, 0 => EST, Established 432_000 ASSURED),
            step!(< ACK, 5001, 2001, 0 => EST, Established 432_000 ASSURED),
            step!(> RST, 2001, 0, 0 => EST, Close 10 ASSURED),
            step!(> SYN, 8000, 0, 0 => NEW, SynSent 120),
            step!(< SYN | ACK, 9000, 8001, 0 => EST, SynRecv 60),
            step!(> ACK, 8001, 9001, 0 => EST, Established 432_000 ASSURED),
        ],
    );
    assert_eq!(bench.counters.invalid.get(), 0);
    assert_eq!(
        (bench.counters.insert.get(), bench.counters.delete.get()),
        (2, 1)
    );
}

/// What overshoots the window is let through, and what it ends at is what was sent: a shorter
/// overshoot takes that back, as in Linux.
#[test]
fn the_last_overshoot_counts() {
    let mut bench = Bench::new();
    bench.trace(
        V4,
        &[
            step!(> SYN, 1000, 0, 0 => NEW, SynSent 120),
            step!(< SYN | ACK, 5000, 1001, 0, 1000 => EST, SynRecv 60),
            step!(> ACK, 1001, 5001, 0 => EST, Established 432_000 ASSURED),
            step!(> ACK | PSH, 2001, 5001, 1000 => EST, Established 300 ASSURED),
            step!(> ACK | PSH, 2100, 5001, 100 => EST, Established 300 ASSURED),
            step!(< ACK, 5001, 2500, 0 => INV, Established 300 ASSURED),
            step!(< ACK, 5001, 2200, 0 => EST, Established 432_000 ASSURED),
        ],
    );
}

#[test]
fn a_reset_answers_a_challenge_ack_wherever_that_points() {
    let mut bench = Bench::new();
    bench.trace(
        V4,
        &[
            step!(> SYN, 1000, 0, 0 => NEW, SynSent 120),
            step!(< ACK, 777, 500_000, 0 => EST, SynSent 120),
            step!(> RST, 500_000, 0, 0 => EST, Close 10),
        ],
    );
    let mut bench = Bench::new();
    bench.trace(
        V4,
        &[
            step!(> SYN, 1000, 0, 0 => NEW, SynSent 120),
            step!(< ACK, 777, 5000, 0 => EST, SynSent 120),
            step!(< RST, 5000, 0, 0 => EST, Close 10),
            // The RST told nothing of the server's numbers.
            step!(< ACK, 900_000, 1001, 0 => EST, Close 10),
        ],
    );
}

#[test]
fn a_syn_reopens_what_is_over() {
    let mut bench = Bench::new();
    bench.trace(V4, &handshake());
    bench.trace(
        V4,
        &[
            step!(> FIN | ACK, 1001, 5001, 0 => EST, FinWait 120 ASSURED),
            step!(< FIN | ACK, 5001, 1002, 0 => EST, LastAck 30 ASSURED),
            step!(> ACK, 1002, 5002, 0 => EST, TimeWait 120 ASSURED),
            step!(> SYN, 90_000, 0, 0 => NEW, SynSent 120),
        ],
    );
    assert_eq!(bench.counters.insert.get(), 2);
}

#[test]
fn picked_up_mid_stream() {
    let mut bench = Bench::new();
    bench.trace(
        V4,
        &[
            step!(> ACK | PSH, 1001, 5001, 100 => NEW, Established 300),
            step!(< ACK, 5001, 1101, 0 => EST, Established 300),
            step!(> ACK, 1101, 5001, 0 => EST, Established 432_000 ASSURED),
        ],
    );
    let mut strict = Bench::with(Config {
        tcp_loose: false,
        ..Config::default()
    });
    strict.trace(V4, &[step!(> ACK | PSH, 1001, 5001, 100 => INV)]);
}

#[test]
fn simultaneous_open() {
    let mut bench = Bench::new();
    bench.trace(
        V4,
        &[
            step!(> SYN, 1000, 0, 0 => NEW, SynSent 120),
            step!(< SYN, 5000, 0, 0 => EST, SynSent2 120),
            step!(> SYN | ACK, 1000, 5001, 0 => EST, SynRecv 60),
            step!(< SYN | ACK, 5000, 1001, 0 => EST, SynRecv 60),
            step!(> ACK, 1001, 5001, 0 => EST, Established 432_000 ASSURED),
        ],
    );
}

#[test]
fn out_of_window_is_invalid_unless_liberal() {
    let far = [step!(< ACK | PSH, 50_000_000, 1001, 100 => INV, Established 432_000 ASSURED)];
    let mut bench = Bench::new();
    bench.trace(V4, &handshake());
    bench.trace(V4, &far);
    bench.trace(
        V4,
        &[step!(< ACK, 5001, 90_000, 0 => INV, Established 432_000 ASSURED)],
    );
    let mut liberal = Bench::with(Config {
        tcp_be_liberal: true,
        ..Config::default()
    });
    liberal.trace(V4, &handshake());
    let mut far = far;
    far[0].state = EST;
    liberal.trace(V4, &far);
}

#[test]
fn illegal_flags_are_invalid_and_create_nothing() {
    let mut bench = Bench::new();
    for bits in [
        0,
        SYN | FIN,
        FIN,
        SYN | RST,
        FIN | URG | PSH,
        RST | URG | ACK,
    ] {
        bench.trace(V4, &[step!(> bits, 1000, 0, 0 => INV)]);
    }
    bench.trace(
        V4,
        &[
            step!(> RST, 1000, 0, 0 => INV),
            step!(> SYN | ACK, 1, 1, 0 => INV),
        ],
    );
}

#[test]
fn a_closed_flow_reads_closed() {
    let mut bench = Bench::new();
    bench.trace(V4, &handshake());
    let flow = bench.shard.scan(Cursor::default(), 10).0[0];
    bench.shard.close(flow, bench.now, &bench.config);
    assert_eq!(bench.flow().unwrap().tcp_state, Some(TcpState::Close));
    bench.wait(11);
    assert_eq!(bench.flow(), None);
}
