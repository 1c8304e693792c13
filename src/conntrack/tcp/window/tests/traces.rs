//! What hosts do, line by line, with the numbers that the check must keep. `client` and `server`
//! send; the words are those of [`Said`].

use super::model::Said::{Counted, Ignored, LetIn, Outside};
use super::model::{Offer, Told};
use super::*;
use crate::conntrack::config::Config;
use crate::conntrack::entry::Core;
use crate::conntrack::tcp::open;

/// A conversation that opened with the client's SYN.
struct Talk {
    seen: [Seen; 2],
    state: TcpState,
}

fn told(bits: u8, seq: i64, ack: i64) -> Told {
    Told {
        bits,
        seq,
        len: 0,
        ack,
        window: 1_000,
        sacks: Vec::new(),
        offer: None,
    }
}

fn syn(seq: i64, scale: Option<u8>) -> Told {
    let offer = Some(Offer { scale, sack: true });
    Told {
        offer,
        ..told(SYN, seq, 0)
    }
}

fn syn_ack(seq: i64, ack: i64, scale: Option<u8>) -> Told {
    Told {
        bits: SYN | ACK,
        ack,
        ..syn(seq, scale)
    }
}

fn ack(seq: i64, ack: i64) -> Told {
    told(ACK, seq, ack)
}

impl Told {
    fn len(self, len: i64) -> Self {
        Self { len, ..self }
    }

    fn window(self, window: u16) -> Self {
        Self { window, ..self }
    }

    fn sack(mut self, left: i64, right: i64) -> Self {
        self.sacks.push((left, right));
        self
    }
}

impl Talk {
    fn open(first: Told) -> Self {
        let mut core = Core::new(true);
        let options = first.options();
        let config = Config::default();
        assert_eq!(open(&mut core, &first.segment(&options), &config), Ok(()));
        let mut talk = Talk {
            seen: core.seen,
            state: TcpState::None,
        };
        // The tracker judges the first segment like every other.
        let said = talk.client(first);
        assert!(matches!(said, Counted | LetIn), "{said:?}");
        talk
    }

    /// A client at 1001, a server at 5001, both scaling by 3.
    fn established() -> Self {
        let mut talk = Talk::open(syn(1000, Some(3)));
        talk.state = TcpState::SynSent;
        assert_eq!(talk.server(syn_ack(5000, 1001, Some(3))), Counted);
        talk.state = TcpState::SynRecv;
        assert_eq!(talk.client(ack(1001, 5001)), Counted);
        talk.state = TcpState::Established;
        talk
    }

    fn send(&mut self, dir: Dir, told: &Told) -> Said {
        let options = told.options();
        check(
            &mut self.seen,
            self.state,
            dir,
            &told.segment(&options),
            false,
        )
        .into()
    }

    fn client(&mut self, told: Told) -> Said {
        self.send(Dir::Original, &told)
    }

    fn server(&mut self, told: Told) -> Said {
        self.send(Dir::Reply, &told)
    }

    /// What a side has sent, what it may send, and its largest window.
    fn of(&self, dir: Dir) -> (u32, u32, u32) {
        let seen = &self.seen[dir as usize];
        (seen.end, seen.max_end, seen.max_window)
    }
}

const CLIENT: Dir = Dir::Original;
const SERVER: Dir = Dir::Reply;

#[test]
fn windows_scale_if_both_sides_offer_it_and_by_14_at_most() {
    for (client, server, scales) in [
        (Some(7), Some(2), [7, 2]),
        (Some(0), Some(9), [0, 9]),
        (Some(7), None, [0, 0]),
        (None, Some(2), [0, 0]),
        (None, None, [0, 0]),
        (Some(14), Some(15), [14, 14]),
        (Some(255), Some(1), [14, 1]),
    ] {
        let mut talk = Talk::open(syn(1000, client));
        assert_eq!(talk.of(CLIENT), (1001, 1001, 1_000));
        talk.state = TcpState::SynSent;
        assert_eq!(talk.server(syn_ack(5000, 1001, server)), Counted);
        // The window of a SYN is never scaled.
        assert_eq!(
            talk.of(CLIENT),
            (1001, 2001, 1_000),
            "{client:?} {server:?}"
        );
        assert_eq!(talk.of(SERVER), (5001, 5001, 1_000));
        assert_eq!(talk.seen.map(|seen| seen.scale), scales);
        talk.state = TcpState::SynRecv;
        assert_eq!(talk.client(ack(1001, 5001).window(3_000)), Counted);
        let window = 3_000 << scales[0];
        assert_eq!(talk.of(CLIENT), (1001, 2001, window));
        assert_eq!(talk.of(SERVER), (5001, 5001 + window, 1_000));
    }
}

#[test]
fn a_selective_acknowledgement_may_be_ahead_of_the_acknowledgement() {
    let mut talk = Talk::established();
    // Two segments, of which the first is lost on the way.
    assert_eq!(talk.client(ack(1001, 5001).len(500)), Counted);
    assert_eq!(talk.client(ack(1501, 5001).len(500)), Counted);
    assert_eq!(
        talk.server(ack(5001, 1001).window(100).sack(1501, 2001)),
        Counted
    );
    // The window counts from the right edge, and what is missing is data that has room.
    assert_eq!(talk.of(CLIENT).1, 2001 + 800);
    assert_eq!(talk.of(SERVER).2, 800 + 1_000);
    assert_eq!(talk.seen[1].max_ack, 1001);
    assert_ne!(talk.seen[0].flags & seen_flags::UNACKNOWLEDGED, 0);
    // The highest of several edges; one beyond what was sent acknowledges the unsent.
    assert_eq!(
        talk.server(ack(5001, 1001).sack(1801, 2001).sack(1501, 1601)),
        Counted
    );
    assert_eq!(talk.server(ack(5001, 1001).sack(1501, 2002)), Outside);
    assert_eq!(talk.server(ack(5001, 2002).sack(1501, 1601)), Outside);
    // A SACK makes an ancient acknowledgement young.
    assert_eq!(talk.server(ack(5001, -100_000)), Ignored);
    assert_eq!(talk.server(ack(5001, -100_000).sack(1501, 2001)), Counted);
}

#[test]
fn blocks_of_a_flow_without_sack_are_not_read() {
    let mut talk = Talk::open(told(SYN, 1000, 0));
    talk.state = TcpState::SynSent;
    assert_eq!(talk.server(told(SYN | ACK, 5000, 1001)), Counted);
    talk.state = TcpState::Established;
    assert_eq!(talk.client(ack(1001, 5001)), Counted);
    assert_eq!(talk.server(ack(5001, 1001).sack(1, 900_000)), Counted);
}

#[test]
fn a_closed_window_lets_one_octet_through() {
    let mut talk = Talk::established();
    assert_eq!(talk.client(ack(1001, 5001).len(1_000)), Counted);
    assert_eq!(talk.server(ack(5001, 2001).window(1_000)), Counted);
    assert_eq!(talk.of(CLIENT).1, 2001 + 8_000);
    assert_eq!(talk.client(ack(2001, 5001).len(8_000)), Counted);
    assert_eq!(talk.server(ack(5001, 10_001).window(0)), Counted);
    assert_eq!(talk.of(CLIENT).1, 10_002, "room for a probe");
    // The probe, again and again, and the answers.
    for _ in 0..3 {
        assert_eq!(talk.client(ack(10_001, 5001).len(1)), Counted);
        assert_eq!(talk.server(ack(5001, 10_001).window(0)), Counted);
        assert_eq!(talk.of(CLIENT), (10_002, 10_002, 8_000));
    }
    // It opens.
    assert_eq!(talk.server(ack(5001, 10_002).window(1)), Counted);
    assert_eq!(talk.of(CLIENT).1, 10_002 + 8);
}

#[test]
fn a_window_never_shrinks_what_was_allowed() {
    let mut talk = Talk::established();
    assert_eq!(talk.server(ack(5001, 1001).window(1_000)), Counted);
    assert_eq!(talk.of(CLIENT).1, 9_001);
    assert_eq!(talk.server(ack(5001, 1001).window(10)), Counted);
    assert_eq!(
        talk.of(CLIENT).1,
        9_001,
        "RFC 9293 3.8.6: shrinking is discouraged, not believed"
    );
    assert_eq!(talk.of(SERVER).2, 8_000);
    assert_eq!(talk.client(ack(9_001, 5001)), Counted);
}

#[test]
fn keep_alives_are_old_by_one() {
    let mut talk = Talk::established();
    for len in [0, 1] {
        assert_eq!(talk.client(ack(1000, 5001).len(len)), Counted);
        assert_eq!(talk.of(CLIENT).0, 1001);
        assert_eq!(talk.server(ack(5001, 1001)), Counted);
        assert_eq!(talk.of(CLIENT), (1001, 9001, 8_000));
    }
    assert_eq!(talk.seen[0].flags & seen_flags::UNACKNOWLEDGED, 0);
}

#[test]
fn a_flow_that_is_picked_up_believes_the_first_segment_of_each_side() {
    let mut talk = Talk::open(ack(1000, 5000).len(100).window(200));
    assert_eq!(talk.of(CLIENT), (1100, 1300, 200), "the scale is unknown");
    assert_eq!(talk.of(SERVER), (0, 0, 0));
    talk.state = TcpState::Established;
    assert_eq!(talk.server(ack(5000, 1100).window(300)), Counted);
    assert_eq!(talk.of(SERVER), (5000, 5300, 300));
    assert_eq!(talk.of(CLIENT), (1100, 1400, 200));
    // Nothing is outside of such a flow, and nothing outside is believed.
    assert_eq!(talk.client(ack(700_000, 5000)), LetIn);
    assert_eq!(talk.server(ack(700_000, 1100)), LetIn);
    assert_eq!(talk.of(CLIENT), (1100, 1400, 200));
    assert_eq!(talk.of(SERVER), (5000, 5300, 300));
}

#[test]
fn a_flow_that_is_picked_up_by_a_keep_alive_takes_its_answer() {
    // The client's keep-alive of one octet before its number, then the server's answer.
    let mut talk = Talk::open(ack(999, 5000));
    talk.state = TcpState::Established;
    assert_eq!(talk.server(ack(5000, 1000)), Counted);
    assert_eq!(talk.of(CLIENT).0, 1000);
}

#[test]
fn syns_that_cross_start_both_sides() {
    let mut talk = Talk::open(syn(1000, Some(7)));
    talk.state = TcpState::SynSent;
    assert_eq!(talk.server(syn(5000, Some(2))), LetIn);
    assert_eq!(talk.of(SERVER), (5001, 5001, 1_000));
    talk.state = TcpState::SynSent2;
    assert_eq!(talk.client(syn_ack(1000, 5001, Some(7))), Counted);
    talk.state = TcpState::SynRecv;
    assert_eq!(talk.server(syn_ack(5000, 1001, Some(2))), Counted);
    assert_eq!(talk.client(ack(1001, 5001)), Counted);
    assert_eq!(talk.of(CLIENT), (1001, 2001, 128_000));
    assert_eq!(talk.of(SERVER), (5001, 5001 + 128_000, 1_000));
}

#[test]
fn a_handshake_starts_over_with_a_newer_syn_only() {
    let mut talk = Talk::open(syn(1000, Some(7)));
    talk.state = TcpState::SynSent;
    assert_eq!(talk.client(syn(1000, Some(7))), Counted);
    assert_eq!(talk.of(CLIENT), (1001, 1001, 1_000));
    assert_eq!(talk.client(syn(2000, Some(1)).window(9)), Counted);
    assert_eq!((talk.of(CLIENT), talk.seen[0].scale), ((2001, 2001, 9), 1));
    // The answer to the first: acknowledges what is older than anything known, and passes as such;
    // one that acknowledges what was never sent does not.
    assert_eq!(talk.server(syn_ack(5000, 2002, None)), Outside);
    assert_eq!(talk.server(syn_ack(5000, 1001, None)), Counted);
    talk.state = TcpState::Established;
    assert_eq!(talk.client(syn(2001, Some(1))), Counted, "one more octet");
    assert_eq!(talk.of(CLIENT), (2002, 2001, 1_000));
}

#[test]
fn what_overshoots_is_ignored_and_its_acknowledgement_is_not_unsent() {
    let mut talk = Talk::established();
    assert_eq!(talk.of(CLIENT), (1001, 2001, 8_000));
    assert_eq!(talk.of(SERVER).2, 1_000);
    // The server allowed 1000 octets from 1001 on; it gets some from 2101 on.
    assert_eq!(talk.client(ack(2101, 5001).len(500)), Ignored);
    assert_eq!(talk.of(CLIENT), (2601, 2001, 8_000));
    assert_ne!(talk.seen[0].flags & seen_flags::UNACKNOWLEDGED, 0);
    assert_eq!(talk.server(ack(5001, 2601)), Counted);
    assert_eq!(talk.of(CLIENT), (2601, 2601 + 8_000, 8_000));
    assert_eq!(talk.seen[0].flags & seen_flags::UNACKNOWLEDGED, 0);
    // Farther than any window that the server ever had.
    assert_eq!(talk.client(ack(10_601, 5001).len(8_001)), Counted);
    assert_eq!(
        talk.of(SERVER).2,
        16_001,
        "believed: it sends into what it was allowed"
    );
    assert_eq!(talk.client(ack(10_602, 5001).len(16_000)), Outside);
    assert_eq!(talk.client(ack(10_602, 5001).len(15_999)), Ignored);
}

#[test]
fn a_reset_without_an_acknowledgement_acknowledges_what_was_sent() {
    let mut talk = Talk::established();
    for reset in [
        told(RST, 1001, 0),
        told(RST, 1001, 700_000),
        told(RST | ACK, 1001, 0),
    ] {
        assert_eq!(talk.client(reset), Counted);
        assert_eq!(talk.seen[0].max_ack, 5001);
    }
    assert_eq!(talk.client(told(RST | ACK, 1001, 700_000)), Outside);
}

#[test]
fn a_reset_that_answers_a_syn_has_no_number() {
    let mut talk = Talk::open(syn(1_000_000, None));
    talk.state = TcpState::SynSent;
    assert_eq!(talk.server(told(RST | ACK, 0, 1_000_001)), Counted);
    // Of a side whose number is known, it stands for that number; later 0 is a number like any.
    let mut talk = Talk::open(syn(1_000_000, None));
    talk.state = TcpState::SynSent;
    assert_eq!(talk.server(syn_ack(5000, 7, None)), Ignored);
    assert_eq!(talk.client(told(RST, 1, 0)), Ignored);
    assert_eq!(talk.client(told(RST, 0, 0)), Counted);
    assert_eq!(talk.of(CLIENT).0, 1_000_001);
    talk.state = TcpState::SynRecv;
    assert_eq!(talk.client(told(RST, 0, 0)), Ignored);
}

#[test]
fn a_sender_that_is_picked_up_scales_if_its_scale_is_known() {
    let mut talk = Talk::open(syn(1000, Some(3)));
    talk.state = TcpState::SynRecv;
    talk.seen[1].scale = 2;
    assert_eq!(talk.server(ack(5000, 1001).window(100)), Counted);
    assert_eq!(talk.of(SERVER), (5000, 5400, 400));
}

#[test]
fn an_unknown_receiver_sets_no_bounds() {
    let mut talk = Talk::open(syn(1000, None));
    talk.state = TcpState::SynSent;
    assert_eq!(
        talk.client(syn(900, None)),
        Counted,
        "older than any window"
    );
    assert_eq!(talk.of(CLIENT), (1001, 1001, 1_000));
    assert_eq!(talk.client(told(RST, 1001, 0).len(9)), Counted);
    assert_eq!(talk.of(SERVER).2, 0, "nor do they grow");
}
