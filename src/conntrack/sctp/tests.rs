//! Associations as packet traces: `>` is the client's side, `<` the server's; then the verification
//! tag, the chunks, and what is said of the packet and of its flow. The client asks to be addressed
//! with `A`, the server with `B`.

use super::*;
use crate::conntrack::trace::{Trace, V4, towards};
use crate::wire::proto;
use crate::wire::sctp::{encode, packet as sctp_packet};
use chunk::*;

const A: u32 = 0xaaaa_0001;
const B: u32 = 0xbbbb_0002;
const C: u32 = 0xcccc_0003;

/// Direction, tag, chunks, and what is said: the packet's state, then the flow's state, timeout
/// and ASSURED; `-` without a flow.
type Line<'a> = (char, u32, &'a [Vec<u8>], &'a str);

fn init(tag: u32) -> Vec<u8> {
    encode(INIT, 0, &[&tag.to_be_bytes()[..], &[0; 12]].concat())
}

fn init_ack(tag: u32) -> Vec<u8> {
    encode(
        INIT_ACK,
        0,
        &[&tag.to_be_bytes()[..], &[0; 12], b"state cookie"].concat(),
    )
}

fn plain(ty: u8) -> Vec<u8> {
    encode(ty, 0, b"")
}

fn reflecting(ty: u8) -> Vec<u8> {
    encode(ty, FLAG_T, b"")
}

fn data() -> Vec<u8> {
    encode(DATA, 3, b"0123456789abcdef")
}

struct Association(Trace);

impl Association {
    fn new() -> Self {
        Self(Trace::new())
    }

    fn send(&mut self, from: char, vtag: u32, chunks: &[Vec<u8>]) -> String {
        let ports = if from == '>' {
            [40_000, 80]
        } else {
            [80, 40_000]
        };
        let bytes = sctp_packet(ports[0], ports[1], vtag, &chunks.concat());
        self.0.raw(towards(V4, from), proto::SCTP, &bytes)
    }

    fn play(&mut self, lines: &[Line<'_>]) {
        for (at, (from, vtag, chunks, said)) in lines.iter().enumerate() {
            assert_eq!(self.send(*from, *vtag, chunks), *said, "packet {}", at + 1);
        }
    }
}

fn play(lines: &[Line<'_>]) -> Association {
    let mut association = Association::new();
    association.play(lines);
    association
}

/// Four packets until both sides agree.
fn established() -> Association {
    play(&[
        ('>', 0, &[init(A)], "new CLOSED 10"),
        ('<', A, &[init_ack(B)], "established COOKIE_WAIT 3"),
        ('>', B, &[plain(COOKIE_ECHO)], "established COOKIE_ECHOED 3"),
        (
            '<',
            A,
            &[plain(COOKIE_ACK)],
            "established ESTABLISHED 210 ASSURED",
        ),
    ])
}

#[test]
fn an_association_begins_and_ends() {
    established().play(&[
        ('>', B, &[data()], "established ESTABLISHED 210 ASSURED"),
        (
            '<',
            A,
            &[plain(SACK), data()],
            "established ESTABLISHED 210 ASSURED",
        ),
        (
            '>',
            B,
            &[plain(SHUTDOWN)],
            "established SHUTDOWN_SENT 3 ASSURED",
        ),
        (
            '<',
            A,
            &[plain(SHUTDOWN_ACK)],
            "established SHUTDOWN_ACK_SENT 3 ASSURED",
        ),
        (
            '>',
            B,
            &[plain(SHUTDOWN_COMPLETE)],
            "established CLOSED 10 ASSURED",
        ),
    ]);
    established().play(&[
        (
            '<',
            A,
            &[plain(SHUTDOWN)],
            "established SHUTDOWN_RECD 3 ASSURED",
        ),
        (
            '>',
            B,
            &[plain(SHUTDOWN_ACK)],
            "established SHUTDOWN_ACK_SENT 3 ASSURED",
        ),
        (
            '<',
            B,
            &[reflecting(SHUTDOWN_COMPLETE)],
            "established CLOSED 10 ASSURED",
        ),
    ]);
}

#[test]
fn tags_must_be_right() {
    established().play(&[
        ('>', A, &[data()], "invalid ESTABLISHED 210 ASSURED"),
        ('>', 0, &[data()], "invalid ESTABLISHED 210 ASSURED"),
        ('<', B, &[data()], "invalid ESTABLISHED 210 ASSURED"),
        ('>', A, &[plain(ABORT)], "invalid ESTABLISHED 210 ASSURED"),
        (
            '>',
            B,
            &[reflecting(ABORT)],
            "invalid ESTABLISHED 210 ASSURED",
        ),
        (
            '>',
            C,
            &[plain(SHUTDOWN_COMPLETE)],
            "invalid ESTABLISHED 210 ASSURED",
        ),
        (
            '>',
            C,
            &[plain(COOKIE_ECHO)],
            "invalid ESTABLISHED 210 ASSURED",
        ),
        (
            '>',
            B,
            &[plain(SHUTDOWN)],
            "established SHUTDOWN_SENT 3 ASSURED",
        ),
        (
            '>',
            A,
            &[reflecting(ABORT)],
            "established CLOSED 10 ASSURED",
        ),
    ]);
    established().play(&[('<', A, &[plain(ABORT)], "established CLOSED 10 ASSURED")]);
    play(&[
        ('>', A, &[init(A)], "invalid -"), // an INIT has no tag (8.5.1 A)
        ('>', 0, &[init(A)], "new CLOSED 10"),
        ('>', A, &[init(A)], "invalid CLOSED 10"),
    ]);
}

#[test]
fn what_starts_nothing() {
    for chunks in [
        &[data()][..],
        &[plain(SACK)],
        &[plain(ABORT)],
        &[plain(COOKIE_ACK)],
        &[plain(SHUTDOWN_COMPLETE)],
        &[plain(HEARTBEAT), data()],
        &[encode(ERROR, 0, b""), encode(INIT, 0, &[0; 16])],
        &[encode(INIT, 0, &[0; 12])],
        &[],
    ] {
        play(&[('>', 0, chunks, "invalid -")]);
    }
    // A COOKIE ECHO must carry a known tag, and an answer to a HEARTBEAT does not make it one.
    play(&[(
        '>',
        B,
        &[plain(COOKIE_ECHO), plain(HEARTBEAT_ACK)],
        "invalid -",
    )]);
    // A SHUTDOWN ACK out of the blue is answered by one packet with its tag (RFC 9260 8.4 5).
    play(&[
        ('>', A, &[plain(SHUTDOWN_ACK)], "new SHUTDOWN_ACK_SENT 3"),
        (
            '<',
            A,
            &[reflecting(SHUTDOWN_COMPLETE)],
            "invalid SHUTDOWN_ACK_SENT 3",
        ),
        ('<', A, &[plain(SHUTDOWN_COMPLETE)], "established CLOSED 10"),
    ]);
}

#[test]
fn what_may_not_be_bundled() {
    established().play(&[
        (
            '>',
            B,
            &[data(), plain(COOKIE_ECHO)],
            "invalid ESTABLISHED 210 ASSURED",
        ),
        (
            '<',
            A,
            &[data(), plain(COOKIE_ACK)],
            "invalid ESTABLISHED 210 ASSURED",
        ),
        (
            '<',
            A,
            &[init_ack(C), data()],
            "invalid ESTABLISHED 210 ASSURED",
        ),
        (
            '>',
            B,
            &[data(), plain(SHUTDOWN_COMPLETE)],
            "invalid ESTABLISHED 210 ASSURED",
        ),
        (
            '>',
            B,
            &[data(), vec![0, 3, 0, 0]],
            "invalid ESTABLISHED 210 ASSURED",
        ),
        (
            '>',
            B,
            &[plain(COOKIE_ECHO), data()],
            "established ESTABLISHED 210 ASSURED",
        ),
    ]);
}

#[test]
fn what_is_bundled_behind_the_cookie_ack_counts() {
    play(&[
        ('>', 0, &[init(A)], "new CLOSED 10"),
        ('<', A, &[init_ack(B)], "established COOKIE_WAIT 3"),
        (
            '>',
            B,
            &[plain(COOKIE_ECHO), data()],
            "established COOKIE_ECHOED 3",
        ),
        (
            '<',
            A,
            &[plain(COOKIE_ACK), plain(SACK)],
            "established ESTABLISHED 210 ASSURED",
        ),
    ]);
    play(&[
        ('>', 0, &[init(A)], "new CLOSED 10"),
        ('<', A, &[init_ack(B)], "established COOKIE_WAIT 3"),
        ('>', B, &[plain(COOKIE_ECHO)], "established COOKIE_ECHOED 3"),
        (
            '<',
            A,
            &[plain(COOKIE_ACK), plain(SHUTDOWN)],
            "established SHUTDOWN_RECD 3 ASSURED",
        ),
    ]);
}

#[test]
fn a_repeated_init_does_not_keep_a_flow_alive() {
    let mut association = play(&[('>', 0, &[init(A)], "new CLOSED 10")]);
    association.0.wait(4);
    association.play(&[('>', 0, &[init(C)], "new CLOSED 6")]);
    association.play(&[('<', C, &[init_ack(B)], "established COOKIE_WAIT 3")]);
}

/// Both sides send an INIT (RFC 9260 5.2.1).
#[test]
fn inits_collide() {
    // The server's INIT comes by first, then the client's, and each answers the other's.
    play(&[
        ('>', 0, &[init(A)], "new CLOSED 10"),
        ('<', 0, &[init(B)], "established CLOSED 10"),
        ('<', A, &[init_ack(B)], "established COOKIE_WAIT 3"),
        ('>', B, &[init_ack(A)], "established COOKIE_WAIT 3"),
        ('>', B, &[plain(COOKIE_ECHO)], "established COOKIE_ECHOED 3"),
        (
            '<',
            A,
            &[plain(COOKIE_ACK)],
            "established ESTABLISHED 210 ASSURED",
        ),
        ('<', A, &[data()], "established ESTABLISHED 210 ASSURED"),
        ('>', B, &[data()], "established ESTABLISHED 210 ASSURED"),
    ]);
    // An INIT ACK with another tag than the INIT before it does not replace what is agreed.
    play(&[
        ('>', 0, &[init(A)], "new CLOSED 10"),
        ('<', 0, &[init(B)], "established CLOSED 10"),
        ('<', A, &[init_ack(C)], "invalid CLOSED 10"),
    ]);
    // A stale INIT, with the tag that the side has already, is not one of a collision: the next
    // INIT ACK may change the tag.
    play(&[
        ('>', 0, &[init(A)], "new CLOSED 10"),
        ('<', A, &[init_ack(B)], "established COOKIE_WAIT 3"),
        ('>', B, &[plain(COOKIE_ECHO)], "established COOKIE_ECHOED 3"),
        ('<', 0, &[init(B)], "established COOKIE_ECHOED 3"),
        ('<', A, &[init_ack(C)], "established COOKIE_ECHOED 3"),
        ('>', B, &[data()], "invalid COOKIE_ECHOED 3"),
        ('>', C, &[data()], "established COOKIE_ECHOED 3"),
    ]);
    // Once the tags are agreed on, an INIT ACK with another one is late.
    established().play(&[
        ('<', A, &[init_ack(C)], "invalid ESTABLISHED 210 ASSURED"),
        (
            '<',
            A,
            &[init_ack(B)],
            "established ESTABLISHED 210 ASSURED",
        ),
        ('>', B, &[data()], "established ESTABLISHED 210 ASSURED"),
    ]);
    // A late answer to an old INIT of an association that stands.
    established().play(&[
        ('<', 0, &[init(C)], "established ESTABLISHED 210 ASSURED"),
        (
            '>',
            C,
            &[init_ack(A)],
            "established ESTABLISHED 210 ASSURED",
        ),
        ('>', C, &[data()], "established ESTABLISHED 210 ASSURED"),
    ]);
}

/// Another path of an association that began elsewhere.
#[test]
fn heartbeats_open_a_path() {
    play(&[
        ('>', B, &[plain(HEARTBEAT)], "new HEARTBEAT_SENT 30"),
        ('>', B, &[plain(HEARTBEAT)], "new HEARTBEAT_SENT 30"),
        ('<', A, &[data()], "invalid HEARTBEAT_SENT 30"),
        ('<', A, &[plain(INIT_ACK)], "invalid HEARTBEAT_SENT 30"),
        (
            '<',
            A,
            &[plain(HEARTBEAT_ACK)],
            "established ESTABLISHED 210 ASSURED",
        ),
        ('>', B, &[data()], "established ESTABLISHED 210 ASSURED"),
        ('>', C, &[data()], "invalid ESTABLISHED 210 ASSURED"),
    ]);
    // Of a COOKIE ECHO out of the blue nothing is learnt but what the HEARTBEAT behind it says.
    play(&[
        (
            '>',
            0,
            &[plain(COOKIE_ECHO), plain(HEARTBEAT)],
            "new CLOSED 10",
        ),
        ('<', A, &[plain(HEARTBEAT)], "established CLOSED 10"),
        ('<', A, &[plain(ERROR)], "established CLOSED 10"),
    ]);
    // The answer alone proves nothing about the other side's tag.
    play(&[
        ('>', B, &[plain(HEARTBEAT_ACK)], "new CLOSED 10"),
        ('<', B, &[data()], "invalid CLOSED 10"),
        ('>', B, &[data()], "new CLOSED 10"),
    ]);
}

/// The hosts began anew unseen: a HEARTBEAT with an unknown tag passes, and its answer proves it.
#[test]
fn heartbeats_teach_new_tags() {
    let mut association = established();
    association.0.wait(10);
    association.play(&[
        (
            '<',
            C,
            &[plain(HEARTBEAT_ACK)],
            "invalid ESTABLISHED 200 ASSURED",
        ),
        (
            '>',
            C,
            &[plain(HEARTBEAT), data()],
            "invalid ESTABLISHED 200 ASSURED",
        ),
        (
            '>',
            C,
            &[plain(HEARTBEAT)],
            "established ESTABLISHED 200 ASSURED",
        ),
        (
            '>',
            C,
            &[plain(HEARTBEAT_ACK)],
            "invalid ESTABLISHED 200 ASSURED",
        ),
        (
            '<',
            9,
            &[plain(HEARTBEAT_ACK)],
            "established ESTABLISHED 210 ASSURED",
        ),
        (
            '>',
            C,
            &[plain(HEARTBEAT)],
            "established ESTABLISHED 210 ASSURED",
        ),
        ('>', C, &[data()], "established ESTABLISHED 210 ASSURED"),
        ('<', 9, &[data()], "established ESTABLISHED 210 ASSURED"),
    ]);
}

#[test]
fn the_bytes_of_a_window_hold_two_peers() {
    assert_eq!(size_of::<[Peer; 2]>(), size_of_val(&Core::new(true).seen));
}

#[test]
fn every_cut_of_an_init_is_invalid_and_none_panics() {
    let whole = sctp_packet(40_000, 80, 0, &init(A));
    for keep in 0..whole.len() {
        let said = Trace::new().raw(V4, proto::SCTP, &whole[..keep]);
        assert_eq!(said, "invalid -", "{keep} bytes");
    }
}

#[test]
fn an_association_that_shuts_down_may_go_under_pressure() {
    use crate::conntrack::entry::{Entry, status};
    use crate::conntrack::limit::Worth;
    use crate::conntrack::tuple::KeyV4;
    use zerocopy::FromZeros;
    for (state, worth) in [
        (SctpState::Established, Worth::Kept),
        (SctpState::CookieEchoed, Worth::Kept),
        (SctpState::ShutdownSent, Worth::Closing),
        (SctpState::ShutdownRecd, Worth::Closing),
        (SctpState::ShutdownAckSent, Worth::Closing),
    ] {
        let mut entry = Entry::<KeyV4>::new_zeroed();
        (entry.key, _) = KeyV4::of_ports((1, 2), (3, 4), crate::wire::proto::SCTP, 0);
        entry.core.status = status::SEEN_REPLY | status::ASSURED;
        let mut peers = [Peer::default(); 2];
        peers[0].state = state as u8;
        entry.core.seen = zerocopy::transmute!(peers);
        assert_eq!(Worth::of(&entry), worth, "{state:?}");
    }
}

#[test]
fn what_is_refused_says_why() {
    let why = |mut it: Association, from: char, vtag: u32, chunks: &[Vec<u8>]| {
        let said = it.send(from, vtag, chunks);
        assert!(said.starts_with("invalid"), "{said}");
        it.0.why()
    };
    let fresh = Association::new;
    for (said, wanted) in [
        (why(fresh(), '>', 1, &[init(A)]), "sctp-tag"),
        (why(fresh(), '>', 0, &[plain(ABORT)]), "sctp-not-first"),
        (why(fresh(), '>', 0, &[init(A), data()]), "sctp-bundle"),
        (why(established(), '>', B + 1, &[data()]), "sctp-tag"),
    ] {
        assert_eq!(said, Some(wanted));
    }
}
