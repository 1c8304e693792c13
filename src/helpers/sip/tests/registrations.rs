//! Registrations over UDP, and the calls that they let in.

use super::*;

fn register(cseq: u32, more: &[&str]) -> String {
    let cseq = format!("CSeq: {cseq} REGISTER");
    let mut head = vec![
        "REGISTER sip:pbx.example.net SIP/2.0",
        "Via: SIP/2.0/UDP 10.1.0.2:5060;branch=z9hG4bK8ce7.rport",
        "From: \"Desk, 2nd floor\" <sip:201@pbx.example.net>;tag=A8C9C1F0",
        "To: <sip:201@pbx.example.net>",
        "Call-ID: 93827d22-5f8e0b0d@10.1.0.2",
        &cseq,
    ];
    head.extend(more);
    message(&head, &[])
}

fn registered(status: &str, cseq: u32, more: &[&str]) -> String {
    let status = format!("SIP/2.0 {status}");
    register(cseq, more).replacen("REGISTER sip:pbx.example.net SIP/2.0", &status, 1)
}

const CALLS: &str = "signalling 17 10.2.0.2 10.1.0.2 5062";
const FORGET_CALLS: &str = "forget unconfirmed signalling";

#[test]
fn a_registration_after_a_challenge_until_it_is_taken_back() {
    // Contacts as phones of Polycom, Cisco and Linphone write them.
    for contact in [
        "Contact: <sip:201@10.1.0.2:5062>;methods=\"INVITE, ACK, BYE\"",
        "m: <sip:201@10.1.0.2:5062;user=phone;transport=udp>;+sip.instance=\"<urn:uuid:0-1>\"",
        "Contact: \"201\"\r\n <sip:201@10.1.0.2:5062>\r\n\t;reg-id=1",
    ] {
        let mut flow = Flow::udp();
        let with = |expires| ["Max-Forwards: 70", contact, expires];
        let hour = with("Expires: 3600");
        assert_eq!(
            flow.hear(Original, &register(1, &hour)),
            [CALLS],
            "{contact}"
        );
        assert_eq!(flow.hear(Reply, &registered("100 Trying", 1, &[])), NOTHING);
        assert_eq!(
            flow.hear(Reply, &registered("401 Unauthorized", 1, &[])),
            [FORGET_CALLS]
        );
        assert_eq!(flow.hear(Original, &register(2, &hour)), [CALLS]);
        assert_eq!(
            flow.hear(Reply, &registered("200 OK", 1, &hour)),
            NOTHING,
            "late"
        );
        let confirm = "confirm signalling 17 10.1.0.2 5062 1800s";
        let half = with("Expires: 1800");
        assert_eq!(
            flow.hear(Reply, &registered("200 OK", 2, &half)),
            [confirm, FORGET_CALLS]
        );
        assert_eq!(
            flow.hear(Original, &register(3, &with("Expires: 0"))),
            NOTHING
        );
        assert_eq!(
            flow.hear(Reply, &registered("200 OK", 3, &[])),
            [FORGET_CALLS]
        );
    }
}

/// Of a request with these headers: what is asked for and what refused.
fn asks(more: &[&str]) -> (Vec<String>, Vec<Refusal>, bool) {
    let mut flow = Flow::udp();
    let asked = flow.hear(Original, &register(1, more));
    (asked, flow.refused(), flow.heard.drop)
}

#[test]
fn contacts_of_requests() {
    let good = |port: u16| {
        (
            vec![format!("signalling 17 10.2.0.2 10.1.0.2 {port}")],
            vec![],
            false,
        )
    };
    let none = (vec![], vec![], false);
    for (contacts, expected) in [
        (&["Contact: <sip:10.1.0.2>;expires=60"][..], good(5060)),
        (&["Contact: sip:x@10.1.0.2:65535;EXPIRES=60"], good(65535)),
        (
            &["Contact: <sip:x@010.001.0.2:5070;Transport=UDP>;expires=60"],
            good(5070),
        ),
        (
            &[
                "Contact: <sip:x@phone.example>;expires=60",
                "m: <sip:x@10.1.0.2:5071>;expires=9",
            ],
            good(5071),
        ),
        // The second of a list is not looked at; its parameters are its own.
        (
            &["Contact: <sip:x@10.1.0.2:5070>, <sip:x@10.1.0.2:5071>;expires=60"],
            none.clone(),
        ),
        (
            &["Contact: <sip:x@phone.example>, <sip:x@10.1.0.2:5071>;expires=60"],
            none.clone(),
        ),
        (&["Contact: <sip:x@10.1.0.2:5070>"], none.clone()),
        (
            &["Contact: <sip:x@10.1.0.2:5070>;expires=0", "Expires: 60"],
            none.clone(),
        ),
        (&["Contact: *", "Expires: 0"], none.clone()),
        (
            &["Contact: <sips:x@10.1.0.2:5070>;expires=60"],
            none.clone(),
        ),
        (
            &["Contact: <sip:x@10.1.0.2:5070;transport=tls>;expires=60"],
            none.clone(),
        ),
        (
            &["Contact: <sip:x@10.1.0.2:5070;transport=tcp>;expires=60"],
            none.clone(),
        ),
        (
            &["Contact: <sip:x@[fd01::2]:5070>;expires=60"],
            none.clone(),
        ),
        (
            &["Contact: <sip:x@10.1.0.256:5070>;expires=60"],
            none.clone(),
        ),
        (
            &["Contact: <sip:x@10.1.0.2.3:5070>;expires=60"],
            none.clone(),
        ),
        (&["Contact: <sip:x@10.1.0.2:0>;expires=60"], none.clone()),
        (
            &["Contact: <sip:x@10.1.0.2:065536>;expires=60"],
            none.clone(),
        ),
        (&["Contact: <sip:x@10.1.0.2:>;expires=60"], none),
        (
            &["Contact: <sip:x@10.1.0.2:80>;expires=60"],
            (vec![], vec![Refusal::LowPort], false),
        ),
        (
            &["Contact: <sip:x@10.1.0.3:5070>;expires=60"],
            (vec![], vec![Refusal::ForeignAddress], false),
        ),
        (
            &["Contact: <sip:x@10.1.0.2:5070>;expires=soon"],
            (vec![], vec![Refusal::Malformed], true),
        ),
    ] {
        assert_eq!(asks(contacts), expected, "{contacts:?}");
    }
}

#[test]
fn contacts_of_responses() {
    let confirm = |seconds: u32| Some(format!("confirm signalling 17 10.1.0.2 5062 {seconds}s"));
    for (contacts, expected) in [
        (
            &["Contact: <sip:x@10.1.0.2:5062>;expires=70"][..],
            confirm(70),
        ),
        (
            &["Contact: <sip:x@10.1.0.2:5062>", "Expires: 80"],
            confirm(80),
        ),
        (
            &["Contact: <sip:x@192.0.2.1:5062>;expires=5, <sip:x@10.1.0.2:5062>;expires=70"],
            confirm(70),
        ),
        (
            &["Contact: <sip:x@10.1.0.2:5063>;expires=5,\r\n <sip:x@10.1.0.2:5062>;expires=70"],
            confirm(70),
        ),
        (
            &[
                "m: <sip:x@10.1.0.2:5063>",
                "m: <sip:x@10.1.0.2:5062>",
                "Expires: 9",
            ],
            confirm(9),
        ),
        // Years are cut.
        (
            &["Contact: <sip:x@10.1.0.2:5062>;expires=4294967295"],
            confirm(24 * 86_400),
        ),
        // Behind one that is gone nothing counts.
        (
            &[
                "m: <sip:x@10.1.0.2:5063>;expires=0",
                "m: <sip:x@10.1.0.2:5062>;expires=9",
            ],
            None,
        ),
        (
            &[
                "m: <sip:x@10.1.0.2:5063>",
                "m: <sip:x@10.1.0.2:5062>;expires=9",
            ],
            None,
        ),
        (&["Contact: <sip:x@10.1.0.2:5062>"], None),
        (
            &["Contact: <sip:x@10.1.0.2:5062;transport=tcp>;expires=70"],
            None,
        ),
        (&["Contact: <sip:x@10.2.0.2:5062>;expires=70"], None),
        (&[], None),
    ] {
        let mut flow = Flow::udp();
        flow.hear(
            Original,
            &register(1, &["Contact: <sip:x@10.1.0.2:5062>;expires=60"]),
        );
        let mut expected: Vec<String> = expected.into_iter().collect();
        expected.push(FORGET_CALLS.to_owned());
        let asked = flow.hear(Reply, &registered("200 OK", 1, contacts));
        assert_eq!(asked, expected, "{contacts:?}");
    }
}

#[test]
fn an_expected_flow_does_not_register() {
    let mut flow = Flow::udp();
    flow.context.expected = true;
    let text = register(1, &["Contact: <sip:x@10.1.0.2:5062>;expires=60"]);
    assert_eq!(flow.hear(Original, &text), NOTHING);
    flow.context.expected = false;
    assert_eq!(flow.hear(Original, &text), [CALLS]);
}

#[test]
fn loose_does_not_let_others_be_registered() {
    let mut flow = Flow::udp();
    flow.context.permissions.loose = true;
    let text = register(1, &["Contact: <sip:x@10.1.0.3:5062>;expires=60"]);
    assert_eq!(flow.hear(Original, &text), NOTHING);
    assert_eq!(flow.refused(), [Refusal::ForeignAddress]);
}
