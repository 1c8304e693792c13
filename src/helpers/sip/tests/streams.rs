//! Messages over TCP: framing, pieces, and what is not SIP.

use super::*;
use crate::helpers::Talk;

const BODY: [&str; 7] = [
    "v=0",
    "o=- 1 1 IN IP4 10.1.0.2",
    "s=-",
    "c=IN IP4 10.1.0.2",
    "t=0 0",
    "m=audio 6000 RTP/AVP 8",
    "m=video 6002 RTP/AVP 96",
];

fn invite(cseq: u32) -> String {
    let cseq = format!("CSeq: {cseq} INVITE");
    message(
        &[
            "INVITE sip:201@10.2.0.2 SIP/2.0",
            &cseq,
            "Via: SIP/2.0/TCP 10.1.0.2",
        ],
        &BODY,
    )
}

fn bye(cseq: u32) -> String {
    message(
        &["BYE sip:201@10.2.0.2 SIP/2.0", &format!("CSeq: {cseq} BYE")],
        &[],
    )
}

fn offer() -> Vec<String> {
    let mut all = vec![FORGET.to_owned()];
    all.extend([to_phone("audio", 6000), to_phone("video", 6002)].concat());
    all
}

#[test]
fn messages_follow_each_other() {
    let mut flow = Flow::tcp();
    let text = format!("\r\n\r\n{}{}\r\n{}", invite(1), bye(2), invite(3));
    let expected = [offer(), vec![FORGET.to_owned()], offer()].concat();
    assert_eq!(flow.hear_lines(Original, &text), expected);
    assert_eq!((flow.heard.parsed, flow.heard.drop), (3, false));
    assert_eq!(flow.heard.keep, Some(Span::secs(3600)));
}

#[test]
fn both_directions_are_read_apart() {
    let mut flow = Flow::tcp();
    let text = invite(1);
    let (head, tail) = text.split_at(text.find("c=IN").unwrap());
    assert_eq!(flow.hear_lines(Original, head), [FORGET]);
    let ok = message(&["SIP/2.0 200 OK", "CSeq: 9 BYE"], &[]);
    assert_eq!(flow.hear_lines(Reply, &ok), NOTHING);
    assert_eq!(flow.heard.parsed, 1);
    assert_eq!(flow.hear_lines(Original, tail), offer()[1..]);
}

#[test]
fn a_registration() {
    let mut flow = Flow::tcp();
    let contact = "Contact: <sip:201@10.1.0.2:5062;transport=TCP>;expires=60";
    let text = message(
        &["REGISTER sip:x SIP/2.0", "CSeq: 1 REGISTER", contact],
        &[],
    );
    assert_eq!(
        flow.hear_lines(Original, &text),
        ["signalling 6 10.2.0.2 10.1.0.2 5062"]
    );
    let text = message(&["SIP/2.0 200 OK", "CSeq: 1 REGISTER", contact], &[]);
    let expected = [
        "confirm signalling 6 10.1.0.2 5062 60s",
        "forget unconfirmed signalling",
    ];
    assert_eq!(flow.hear_lines(Reply, &text), expected);
}

#[test]
fn the_length_ends_a_message() {
    let length = |text: &str, length: &str| {
        let (head, tail) = text.split_once("Content-Length: ").unwrap();
        let (_, body) = tail.split_once("\r\n").unwrap();
        format!("{head}{length}\r\n{body}")
    };
    let all = invite(1);
    let cut = BODY[..6].iter().map(|line| line.len() + 2).sum::<usize>();
    for (lying, expected) in [
        // None, or none that is one: where the message ends is not known.
        ("X: 1".to_owned(), &[][..]),
        ("Content-Length: many".to_owned(), &[]),
        ("l: 4294967296".to_owned(), &[]),
        // The end of the body is not seen.
        (format!("l: {cut}"), &offer()[..3]),
        (format!("Content-Length: {}", cut - 3), &offer()[..3]),
        ("Content-Length: 0".to_owned(), &offer()[..1]),
    ] {
        let mut flow = Flow::tcp();
        assert_eq!(
            flow.hear_lines(Original, &length(&all, &lying)),
            expected,
            "{lying}"
        );
        assert!(!flow.heard.drop);
        // What follows is found again.
        assert_eq!(flow.hear_lines(Original, &bye(2)), [FORGET], "{lying}");
    }
    // Too long: what follows is taken for the body, as the receiver takes it.
    let mut flow = Flow::tcp();
    assert_eq!(
        flow.hear_lines(Original, &length(&all, "l: 1000")),
        offer()[..3]
    );
    assert_eq!(flow.hear_lines(Original, &bye(2)), NOTHING);
}

#[test]
fn a_stream_that_does_not_begin_as_sip_is_not_read() {
    for first in [
        "POST / HTTP/1.1\r\n",
        "POST sip: HTTP/1.1\r\nSIP/2.0\r\n",
        "\u{16}\u{3}\u{1}...INVITE sip:201@10.2.0.2 SIP/2.0\r\n",
        "Via: SIP/2.0/TCP 10.1.0.2\r\n",
    ] {
        let mut flow = Flow::tcp();
        assert_eq!(flow.hear_lines(Original, first), NOTHING);
        assert_eq!(flow.hear_lines(Original, &invite(1)), NOTHING, "{first}");
        // The other direction is another stream.
        assert_eq!(flow.hear_lines(Reply, &bye(1)), [FORGET]);
    }
}

#[test]
fn malformed_messages_are_passed_over() {
    let mut flow = Flow::tcp();
    let text = invite(1).replace("CSeq", "X-Seq") + &bye(2);
    assert_eq!(flow.hear_lines(Original, &text), [FORGET]);
    assert_eq!(
        (flow.refused(), flow.heard.drop),
        (vec![Refusal::Malformed], false)
    );
}

#[test]
fn long_headers_do_not_matter() {
    let mut flow = Flow::tcp();
    let long = format!("X-Long: {}", "x".repeat(10_000));
    let many = (0..500).map(|at| format!("X-{at}: a header that nobody reads\r\n"));
    let text = invite(1).replace("Via", &(many.collect::<String>() + &long + "\r\nVia"));
    assert_eq!(flow.hear_lines(Original, &text), offer());
    assert_eq!(Flow::udp().hear(Original, &text), offer());
}

#[test]
fn of_a_line_that_is_cut_only_a_request_counts() {
    let mut flow = Flow::tcp();
    let mut read = |text: &str, cut| {
        let line = Line {
            text: text.as_bytes(),
            len: if cut { 5000 } else { text.len() + 2 },
            cut,
            gap: false,
        };
        super::line(&flow.context, &mut flow.memory, &line, &mut flow.heard)
    };
    assert_eq!(read("REGISTER sip:a-long-one", true), Next::Line);
    read("CSeq: 1 REGISTER", false);
    read("Contact: <sip:x@10.1.0.2:5062>;expires=6", true);
    read("Content-Length: 70", false);
    assert_eq!(read("", false), Next::Body(70));
    assert_eq!(read("m=audio 70", true), Next::Line);
    assert_eq!(asked(&flow.heard), NOTHING);
    assert_eq!(flow.heard.parsed, 1);
}

#[test]
fn behind_a_gap_the_next_message_is_read() {
    let mut flow = Flow::tcp();
    let text = invite(1);
    let (head, _) = text.split_at(text.find("c=IN").unwrap());
    assert_eq!(flow.hear_lines(Original, head), [FORGET]);
    // The rest is lost; the packet at hand begins in the middle of another message.
    flow.heard = Heard::default();
    let rest = format!("c=IN IP4 10.1.0.2\r\nm=audio 9000 x\r\n{}", bye(2));
    for (at, text) in rest.lines().enumerate() {
        let line = Line {
            text: text.as_bytes(),
            len: text.len() + 2,
            cut: false,
            gap: at == 0,
        };
        super::line(&flow.context, &mut flow.memory, &line, &mut flow.heard);
    }
    assert_eq!(asked(&flow.heard), [FORGET]);
}

#[test]
fn a_gap_whose_line_ends_packets_later_is_a_gap() {
    let context = Flow::tcp().context;
    let mut talk = Talk::new_zeroed();
    let mut say = |seq: u32, text: &str| {
        let mut heard = Heard::default();
        talk.listen(&SIP, &context, text.as_bytes(), Some(seq), &mut heard);
        asked(&heard)
    };
    let head =
        "INVITE sip:201@10.2.0.2 SIP/2.0\r\nCSeq: 1 INVITE\r\nContent-Length: 9000\r\n\r\nv=0\r\n";
    assert_eq!(say(0, head), [FORGET]);
    // One segment is lost, and there is no line's end in the next.
    let long = "x".repeat(1400);
    let seq = head.len() as u32 + 1400;
    assert_eq!(say(seq, &long), NOTHING);
    let seq = seq + 1400;
    assert_eq!(say(seq, "\r\n"), NOTHING);
    assert_eq!(say(seq + 2, &invite(2)), offer());
}

/// Says `text` on a connection in segments of these lengths, the last one the rest.
fn segments(text: &str, lens: &[usize]) -> (Vec<String>, u16) {
    let context = Flow::tcp().context;
    let mut talk = Talk::new_zeroed();
    let (mut asked_all, mut parsed, mut rest) = (Vec::new(), 0, text.as_bytes());
    let mut seq = 0xffff_ff00_u32;
    for len in lens.iter().copied().chain([usize::MAX]) {
        let (segment, more) = rest.split_at(len.min(rest.len()));
        let mut heard = Heard::default();
        talk.listen(&SIP, &context, segment, Some(seq), &mut heard);
        // Again, as if it were sent twice.
        talk.listen(&SIP, &context, segment, Some(seq), &mut heard);
        asked_all.extend(asked(&heard));
        parsed += heard.parsed;
        seq = seq.wrapping_add(segment.len() as u32);
        rest = more;
    }
    (asked_all, parsed)
}

#[test]
fn a_message_may_be_cut_anywhere() {
    let contact = "Contact: \"B\",\r\n <sip:201@10.1.0.2:5062>;expires=60";
    let register = message(
        &["REGISTER sip:x SIP/2.0", "CSeq: 1 REGISTER", contact],
        &[],
    );
    let text = format!("{}{register}{}", invite(1), bye(2));
    let calls = "signalling 6 10.2.0.2 10.1.0.2 5062".to_owned();
    let expected = [offer(), vec![calls, FORGET.to_owned()]].concat();
    for at in 0..text.len() {
        assert_eq!(segments(&text, &[at]), (expected.clone(), 3), "{at}");
        assert_eq!(segments(&text, &[at, 1]), (expected.clone(), 3), "{at}");
    }
    assert_eq!(segments(&text, &vec![1; text.len()]), (expected, 3));
}

#[test]
fn a_lost_segment_costs_one_message() {
    let context = Flow::tcp().context;
    let mut talk = Talk::new_zeroed();
    let mut hear = |seq: usize, text: &str| {
        let mut heard = Heard::default();
        talk.listen(
            &SIP,
            &context,
            text.as_bytes(),
            Some(seq as u32),
            &mut heard,
        );
        (asked(&heard), heard.refusals(Refusal::Gap))
    };
    let text = invite(1);
    assert_eq!(hear(0, &text[..300.min(text.len() - 90)]).0, [FORGET]);
    // The rest of it and the beginning of what follows never came.
    let late = "Subject: the rest of another\r\nCSeq: 9 BYE\r\n\r\n".to_owned();
    let late = late + &"X: more than is kept\r\n".repeat(20) + &bye(2);
    assert_eq!(hear(5_000, &late), (vec![FORGET.to_owned()], 1));
}
