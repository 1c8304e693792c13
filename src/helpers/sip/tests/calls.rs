//! Calls over UDP: offers, answers, holds and ends.

use super::*;

/// An INVITE as SIPp's client sends it.
fn invite(cseq: &str, media: &[&str]) -> String {
    let mut body = vec![
        "v=0",
        "o=user1 53655765 2353687637 IN IP4 10.1.0.2",
        "s=-",
        "c=IN IP4 10.1.0.2",
        "t=0 0",
    ];
    body.extend(media);
    message(
        &[
            "INVITE sip:service@10.2.0.2:5060 SIP/2.0",
            "Via: SIP/2.0/UDP 10.1.0.2:5060;branch=z9hG4bK-7-1-0",
            "From: sipp <sip:sipp@10.1.0.2:5060>;tag=7SIPpTag001",
            "To: service <sip:service@10.2.0.2:5060>",
            "Call-ID: 1-7@10.1.0.2",
            cseq,
            "Contact: sip:sipp@10.1.0.2:5060",
            "Max-Forwards: 70",
            "Content-Type: application/sdp",
        ],
        &body,
    )
}

/// A response, with a description as an Asterisk writes it if there are media.
fn answer(status: &str, cseq: &str, media: &[&str]) -> String {
    let head = [
        status,
        "Via: SIP/2.0/UDP 10.1.0.2:5060;branch=z9hG4bK-7-1-0;received=10.1.0.2",
        "From: sipp <sip:sipp@10.1.0.2:5060>;tag=7SIPpTag001",
        "To: service <sip:service@10.2.0.2:5060>;tag=as2f6c1f0e",
        "Call-ID: 1-7@10.1.0.2",
        cseq,
        "Server: Asterisk PBX",
        "Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, UPDATE",
        "Contact: <sip:service@10.2.0.2:5060>",
        "Content-Type: application/sdp",
    ];
    let mut body = vec![
        "v=0",
        "o=root 1821 1821 IN IP4 10.2.0.2",
        "s=Asterisk PBX",
        "c=IN IP4 10.2.0.2",
        "t=0 0",
    ];
    body.extend(media);
    message(&head, if media.is_empty() { &[] } else { &body })
}

fn request(method: &str, cseq: &str) -> String {
    let line = format!("{method} sip:service@10.2.0.2:5060 SIP/2.0");
    message(&[&line, "Call-ID: 1-7@10.1.0.2", cseq], &[])
}

const AUDIO_8: &str = "m=audio 6000 RTP/AVP 8 101";
const AUDIO_PBX: &str = "m=audio 17012 RTP/AVP 8 101";

fn forget_and(more: &[[String; 2]]) -> Vec<String> {
    let mut all = vec![FORGET.to_owned()];
    all.extend(more.concat());
    all
}

#[test]
fn a_call_with_early_media_hold_and_end() {
    let mut flow = Flow::udp();
    let offer = forget_and(&[to_phone("audio", 6000)]);
    let answered = to_proxy("audio", 17012);
    let one = "CSeq: 1 INVITE";
    assert_eq!(flow.hear(Original, &invite(one, &[AUDIO_8])), offer);
    assert_eq!(
        flow.hear(Reply, &answer("SIP/2.0 100 Trying", one, &[])),
        NOTHING
    );
    let early = answer("SIP/2.0 183 Session Progress", one, &[AUDIO_PBX]);
    assert_eq!(flow.hear(Reply, &early), answered);
    assert_eq!(
        flow.hear(Reply, &answer("SIP/2.0 200 OK", one, &[AUDIO_PBX])),
        answered
    );
    assert_eq!(flow.hear(Original, &request("ACK", "CSeq: 1 ACK")), NOTHING);
    // Put on hold, by direction and by port.
    let hold = invite("CSeq: 2 INVITE", &[AUDIO_8, "a=sendonly"]);
    assert_eq!(flow.hear(Original, &hold), offer);
    let off = invite("CSeq: 3 INVITE", &["m=audio 0 RTP/AVP 8"]);
    assert_eq!(flow.hear(Original, &off), [FORGET]);
    assert_eq!(flow.heard.refused, [0; Refusal::COUNT]);
    // As before RFC 3264.
    let old = invite("CSeq: 4 INVITE", &[AUDIO_8]).replace("c=IN IP4 10.1.0.2", "c=IN IP4 0.0.0.0");
    assert_eq!(flow.hear(Original, &old), [FORGET]);
    assert_eq!(flow.refused(), []);
    assert_eq!(
        flow.hear(Original, &request("BYE", "CSeq: 5 BYE")),
        [FORGET]
    );
    assert_eq!(
        flow.hear(Reply, &answer("SIP/2.0 200 OK", "CSeq: 5 BYE", &[])),
        NOTHING
    );
    assert_eq!((flow.heard.parsed, flow.heard.drop), (1, false));
}

#[test]
fn a_refused_call_leaves_nothing() {
    let mut flow = Flow::udp();
    flow.hear(Original, &invite("CSeq: 7 INVITE", &[AUDIO_8]));
    let busy = |cseq| answer("SIP/2.0 486 Busy Here", cseq, &[]);
    assert_eq!(
        flow.hear(Reply, &busy("CSeq: 6 INVITE")),
        NOTHING,
        "another one"
    );
    assert_eq!(flow.hear(Reply, &busy("CSeq: 7 INVITE")), [FORGET]);
    assert_eq!(
        flow.hear(Reply, &busy("CSeq: 7 UPDATE")),
        [FORGET],
        "as Linux has it"
    );
    assert_eq!(flow.hear(Reply, &busy("CSeq: 7 BYE")), NOTHING);
}

#[test]
fn the_other_side_calls_too() {
    let mut flow = Flow::udp();
    let call =
        invite("CSeq: 102 INVITE", &[AUDIO_PBX]).replace("c=IN IP4 10.1.0.2", "c=IN IP4 10.2.0.2");
    assert_eq!(
        flow.hear(Reply, &call),
        forget_and(&[to_proxy("audio", 17012)])
    );
    let taken = answer("SIP/2.0 200 OK", "CSeq: 102 INVITE", &[AUDIO_8])
        .replace("c=IN IP4 10.2.0.2", "c=IN IP4 10.1.0.2");
    assert_eq!(flow.hear(Original, &taken), to_phone("audio", 6000));
}

#[test]
fn update_prack_and_ack_describe_media_too() {
    for method in ["UPDATE", "PRACK", "ACK"] {
        let mut flow = Flow::udp();
        let text = invite(&format!("CSeq: 9 {method}"), &[AUDIO_8]).replacen("INVITE", method, 1);
        assert_eq!(
            flow.hear(Original, &text),
            to_phone("audio", 6000),
            "{method}"
        );
        let text = answer("SIP/2.0 200 OK", &format!("CSeq: 9 {method}"), &[AUDIO_PBX]);
        let expected = if method == "ACK" {
            vec![]
        } else {
            to_proxy("audio", 17012).to_vec()
        };
        assert_eq!(flow.hear(Reply, &text), expected, "{method}");
    }
}

#[test]
fn several_media() {
    let lines = [
        AUDIO_8,
        "a=rtpmap:8 PCMA/8000",
        "m=video 6002 RTP/AVP 96",
        "m=image 6005 udptl t38",
    ];
    let pairs = [
        to_phone("audio", 6000),
        to_phone("video", 6002),
        to_phone("image", 6004),
    ];
    let mut flow = Flow::udp();
    assert_eq!(
        flow.hear(Original, &invite("CSeq: 1 INVITE", &lines)),
        forget_and(&pairs)
    );
    // Of four, three are looked at; what is not known does not count.
    let lines = [
        "m=text 9 x",
        AUDIO_8,
        AUDIO_8,
        "m=video 0 x",
        AUDIO_8,
        "m=video 6002 RTP/AVP 96",
    ];
    let asked = flow.hear(Original, &invite("CSeq: 1 INVITE", &lines));
    assert_eq!(
        asked,
        forget_and(&[
            to_phone("audio", 6000),
            to_phone("audio", 6000),
            to_phone("audio", 6000)
        ])
    );
}

/// Of media with these lines, without a `c=` of the session: what is asked for and what refused.
fn without_session(lines: &[&str]) -> (Vec<String>, Vec<Refusal>, bool) {
    let text = invite("CSeq: 1 INVITE", lines).replacen("c=IN IP4 10.1.0.2\r\n", "", 1);
    let mut flow = Flow::udp();
    let asked = flow.hear(Original, &text)[1..].to_vec();
    (asked, flow.refused(), flow.heard.drop)
}

#[test]
fn each_medium_may_have_its_own_address() {
    let (own, other) = ("c=IN IP4 10.1.0.2", "c=IN IP4 192.0.2.7");
    let audio = to_phone("audio", 6000).to_vec();
    let foreign = vec![Refusal::ForeignAddress];
    let video = "m=video 6002 RTP/AVP 96";
    for (lines, expected) in [
        (
            &[AUDIO_8, own, video, other][..],
            (audio.clone(), foreign.clone(), false),
        ),
        (
            &[video, other, AUDIO_8, own],
            (audio.clone(), foreign, false),
        ),
        // Only the first counts.
        (&[AUDIO_8, own, other], (audio, vec![], false)),
        (
            &[AUDIO_8, "c=IN IP6 fd01::2", own],
            (vec![], vec![Refusal::WrongFamily], false),
        ),
        (
            &[AUDIO_8, "c=IN IP4 media.example.net"],
            (vec![], vec![Refusal::Malformed], false),
        ),
        // Nobody can have meant it: Linux drops it, too.
        (&[AUDIO_8], (vec![], vec![Refusal::Malformed], true)),
        (
            &["m=audio 65536 RTP/AVP 8", own],
            (vec![], vec![Refusal::Malformed], true),
        ),
        (
            &["m=audio 1023 RTP/AVP 8", own],
            (vec![], vec![Refusal::LowPort], false),
        ),
    ] {
        assert_eq!(without_session(lines), expected, "{lines:?}");
    }
}

#[test]
fn permissions() {
    let mut flow = Flow::udp();
    let text = invite("CSeq: 1 INVITE", &["m=audio 80 x"]).replace("IP4 10.1.0.2", "IP4 192.0.2.7");
    assert_eq!(flow.hear(Original, &text), [FORGET]);
    flow.context.permissions.low_ports = true;
    assert_eq!(flow.hear(Original, &text), [FORGET]);
    assert_eq!(flow.refused(), [Refusal::ForeignAddress]);
    flow.context.permissions.loose = true;
    let expected = [
        FORGET,
        "audio 17 any 192.0.2.7 80",
        "audio 17 any 192.0.2.7 81",
    ];
    assert_eq!(flow.hear(Original, &text), expected);
    assert_eq!(flow.refused(), []);
}

#[test]
fn ipv6_with_compact_headers() {
    let text = [
        "INVITE sip:bob@[fd02::2] SIP/2.0",
        "v: SIP/2.0/UDP [fd01::2]:5060;branch=z9hG4bK87asdks7",
        "f: <sip:alice@[fd01::2]>;tag=1",
        "t: <sip:bob@[fd02::2]>",
        "i: 42@[fd01::2]",
        "cseq :  314 INVITE",
        "m : <sip:alice@[fd01::2]>",
        "c: application/sdp",
        "l: 0",
        "",
        "v=0",
        "o=- 1 1 IN IP6 fd01::2",
        "s= ",
        "c=IN IP6 fd01::2",
        "t=0 0",
        "m=audio 7078 RTP/AVP 96 0",
    ];
    let mut flow = Flow::new(proto::UDP, V6);
    let expected = [
        FORGET,
        "audio 17 fd02::2 fd01::2 7078",
        "audio 17 fd02::2 fd01::2 7079",
    ];
    // Over UDP the length does not matter.
    assert_eq!(flow.hear(Original, &text.join("\r\n")), expected);
    // A single byte that ends the empty line hides the line behind it.
    assert_eq!(flow.hear(Original, &text.join("\n")), [FORGET]);
    assert_eq!(
        flow.hear(Original, &text.join("\r\n").replace("s= ", "")),
        expected
    );
}

#[test]
fn what_nobody_can_have_meant_is_dropped() {
    let good = invite("CSeq: 1 INVITE", &[AUDIO_8]);
    let mut flow = Flow::udp();
    for (bad, drop) in [
        (good.replace("CSeq: 1", "X-Seq: 1"), true),
        (good.replace("CSeq: 1", "CSeq: one"), true),
        (good.replace("CSeq: 1", "CSeq: 4294967296"), true),
        (
            good.replacen("INVITE", "OPTIONS", 1).replace("CSeq", "X"),
            false,
        ),
        (answer("SIP/2.0 x", "CSeq: 1 INVITE", &[]), true),
        (answer("SIP/2.0 200 OK", "X: 1 INVITE", &[]), true),
    ] {
        assert_eq!(flow.hear(Original, &bad), NOTHING, "{bad}");
        assert_eq!((flow.heard.drop, flow.heard.parsed), (drop, 0), "{bad}");
        assert_eq!(
            flow.heard.refusals(Refusal::Malformed),
            u16::from(drop),
            "{bad}"
        );
    }
    assert_eq!(
        flow.hear(Original, &good.replace("CSeq: 1", "CSeq: 0"))
            .len(),
        3,
        "a number"
    );
    for other in [
        "INVITEX sip:x",
        "INVITE  sip:x",
        "INVITE\tsip:x",
        "INVITE 1:x",
    ] {
        let text = good.replacen("INVITE sip:service", other, 1);
        assert_eq!(flow.hear(Original, &text), NOTHING, "{other}");
    }
}

#[test]
fn descriptions_inside_other_bodies() {
    let text = invite("CSeq: 1 INVITE", &[AUDIO_8]);
    let wrapped =
        text.replace("v=0", "--b\r\nContent-Type: application/sdp\r\n\r\nv=0") + "--b--\r\n";
    let offer = forget_and(&[to_phone("audio", 6000)]);
    assert_eq!(Flow::udp().hear(Original, &wrapped), offer);
    assert_eq!(
        Flow::udp().hear(Original, &text.replace("v=0", "v=x")),
        [FORGET]
    );
}
