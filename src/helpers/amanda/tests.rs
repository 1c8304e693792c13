//! Answers as amandad gives them, and what is odd in others: asked of Linux 6.18.

use super::*;
use crate::conntrack::helper::{Permissions, Request};
use crate::conntrack::tuple::Tuple;
use crate::helpers::Talk;
use crate::wire::Addrs;
use crate::wire::inner::Ports;
use proptest::prelude::*;
use zerocopy::FromZeros;

/// A packet of a flow from 192.0.2.1, the backup server, to 198.51.100.2 or the same in IPv6.
fn context(v6: bool, dir: Dir, low_ports: bool) -> Context {
    let addrs = match v6 {
        false => Addrs::V4 {
            src: 0xc000_0201,
            dst: 0xc633_6402,
        },
        true => Addrs::V6 {
            src: 0x2001_0db8 << 96 | 1,
            dst: 0x2001_0db8 << 96 | 2,
        },
    };
    Context {
        original: Tuple {
            addrs,
            proto: proto::UDP,
            ports: Ports::Ports {
                sport: 850,
                dport: 10080,
            },
            zone: 0,
        },
        dir,
        expected: false,
        permissions: Permissions {
            loose: false,
            low_ports,
        },
    }
}

fn hear(context: &Context, payload: &[u8]) -> Heard {
    let (mut talk, mut heard) = (Talk::new_zeroed(), Heard::default());
    talk.listen(&AMANDA, context, payload, None, &mut heard);
    heard
}

/// The ports that an answer makes expected, from the backup server to its client; and how much was
/// understood and refused.
fn ports(context: &Context, payload: &[u8]) -> (Vec<u16>, [u16; 3]) {
    let heard = hear(context, payload);
    assert_eq!(heard.keep, Some(Span::secs(300)));
    assert!(!heard.drop);
    let (server, _) = context.client();
    let (client, _) = context.server();
    let expected = heard.requests.iter().map(|request| match *request {
        Request::Expect(expect) => {
            let port = expect.dst_port;
            assert_eq!(expect, Expect::once(proto::TCP, Some(server), client, port));
            port
        }
        _ => panic!("{request:?}"),
    });
    let counts = [
        heard.parsed,
        heard.refusals(Refusal::Malformed),
        heard.refusals(Refusal::LowPort),
    ];
    let all: u16 = heard.refused.iter().sum();
    assert_eq!(all, counts[1] + counts[2]);
    (expected.collect(), counts)
}

/// A backup over the `bsd` driver, packet by packet, and the ports that each makes expected.
const BACKUP: &[(Dir, &[u8], &[u16])] = &[
    (
        Dir::Original,
        b"Amanda 3.5 REQ HANDLE 000-00000000 SEQ 1763658000\n\
          SECURITY USER backup\nSERVICE sendbackup\n\
          OPTIONS features=ffffffff9fefffffffffff1f;hostname=client.example;\n\
          DUMP tar /home 0 1970:1:1:0:0:0 OPTIONS |;auth=bsd;compress-fast;index;\n",
        &[],
    ),
    (
        Dir::Reply,
        b"Amanda 3.5 ACK HANDLE 000-00000000 SEQ 1763658000\n",
        &[],
    ),
    (
        Dir::Reply,
        b"Amanda 3.5 REP HANDLE 000-00000000 SEQ 1763658000\n\
          CONNECT DATA 11234 MESG 11235 INDEX 11236\n\
          OPTIONS features=ffffffff9fefffffffffff1f;\n",
        &[11234, 11235, 11236],
    ),
    (
        Dir::Original,
        b"Amanda 3.5 ACK HANDLE 000-00000000 SEQ 1763658000\n",
        &[],
    ),
];

#[test]
fn a_backup() {
    for v6 in [false, true] {
        for (dir, payload, expected) in BACKUP {
            let context = context(v6, *dir, false);
            let text = String::from_utf8_lossy(payload);
            if *dir == Dir::Original {
                let heard = hear(&context, payload);
                assert!(heard.requests.is_empty() && heard.keep.is_none(), "{text}");
            } else {
                let (found, counts) = ports(&context, payload);
                assert_eq!(found, *expected, "{text}");
                assert_eq!(counts, [u16::from(!expected.is_empty()), 0, 0], "{text}");
            }
        }
    }
}

#[test]
fn who_asks_announces_nothing() {
    let heard = hear(
        &context(false, Dir::Original, true),
        b"CONNECT DATA 11234 MESG 11235 INDEX 11236\n",
    );
    assert!(heard.requests.is_empty() && heard.keep.is_none());
    assert_eq!(heard.parsed, 0);
}

#[test]
fn answers() {
    let reply = context(false, Dir::Reply, true);
    for (payload, expected, counts) in [
        (&b""[..], &[][..], [0, 0, 0]),
        (b"Amanda 2.6 NAK\nERROR no\n", &[], [0, 0, 0]),
        // as versions from 3.0 on also say
        (
            b"CONNECT DATA 1111 MESG 2222 INDEX 3333 STATE 4444\n",
            &[1111, 2222, 3333, 4444],
            [1, 0, 0],
        ),
        // no index, in either way of saying it
        (
            b"CONNECT DATA 1111 MESG 2222 INDEX 0\n",
            &[1111, 2222],
            [1, 0, 0],
        ),
        (
            b"CONNECT DATA 1111 MESG 2222 INDEX -1\n",
            &[1111, 2222],
            [1, 0, 0],
        ),
        (b"CONNECT DATA 1111 MESG 2222\r\n", &[1111, 2222], [1, 0, 0]),
        // in the order of the words looked for, and the first of each
        (
            b"CONNECT STATE 4444 DATA 5555 STATE 6666\n",
            &[5555, 4444],
            [1, 0, 0],
        ),
        (
            b"CONNECT MESG 2222 NODATA 3333 \n",
            &[3333, 2222],
            [1, 0, 0],
        ),
        (b"CONNECT DATA 7777 MESG 7777\n", &[7777, 7777], [1, 0, 0]),
        (b"CONNECT DATA 00123\n", &[123], [1, 0, 0]),
        (b"CONNECT DATA 9\0\n", &[9], [1, 0, 0]),
        (b"CONNECT DATA 65535\n", &[65535], [1, 0, 0]),
        // only the first line with `CONNECT `, and that to its end
        (b"xCONNECT DATA 1\nCONNECT DATA 2\n", &[1], [1, 0, 0]),
        (b"CONNECT CONNECT DATA 1234\n", &[1234], [1, 0, 0]),
        (b"CONNECT DATA 1111", &[], [0, 0, 0]),
        (b"CONNECT ", &[], [0, 0, 0]),
        (b"CONNECT DATA", &[], [0, 0, 0]),
        (b"CONNECT \nDATA 1111\n", &[], [1, 0, 0]),
        (b"CONNECT DATA \nMESG 3\n", &[], [1, 0, 0]),
        (b"CONNECT\tDATA 1111\n", &[], [0, 0, 0]),
        (b"connect DATA 1111\n", &[], [0, 0, 0]),
        // what is no number ends it
        (b"CONNECT DATA 0 MESG 2222\n", &[], [1, 0, 0]),
        (b"CONNECT DATA 00000 MESG 2222\n", &[], [1, 0, 0]),
        (b"CONNECT DATA x MESG 2222\n", &[], [1, 0, 0]),
        (b"CONNECT DATA  1111 MESG 2222\n", &[], [1, 0, 0]),
        (b"CONNECT DATA +1111 MESG 2222\n", &[], [1, 0, 0]),
        (b"CONNECT DATA 0x1111 MESG 2222\n", &[], [1, 0, 0]),
        (b"CONNECT DATA DATA 1111\n", &[], [1, 0, 0]),
    ] {
        let text = String::from_utf8_lossy(payload);
        assert_eq!(
            ports(&reply, payload),
            (expected.to_vec(), counts),
            "{text}"
        );
    }
}

#[test]
fn what_is_refused_unlike_in_the_kernel() {
    let (closed, open) = (
        context(false, Dir::Reply, false),
        context(false, Dir::Reply, true),
    );
    for (payload, refused, allowed) in [
        (
            &b"CONNECT DATA 1023 MESG 1024 INDEX 22\n"[..],
            (vec![1024], [1, 0, 2]),
            (vec![1023, 1024, 22], [1, 0, 0]),
        ),
        // the kernel takes the first five digits, modulo 65536
        (
            b"CONNECT DATA 70000 MESG 2222\n",
            (vec![2222], [1, 1, 0]),
            (vec![2222], [1, 1, 0]),
        ),
        (
            b"CONNECT DATA 65537 MESG 65536 INDEX 3333\n",
            (vec![3333], [1, 2, 0]),
            (vec![3333], [1, 2, 0]),
        ),
        (
            b"CONNECT DATA 123456 MESG 2222\n",
            (vec![2222], [1, 1, 0]),
            (vec![2222], [1, 1, 0]),
        ),
        (
            b"CONNECT DATA 99999999999999999999999999999999\n",
            (vec![], [1, 1, 0]),
            (vec![], [1, 1, 0]),
        ),
    ] {
        let text = String::from_utf8_lossy(payload);
        assert_eq!(ports(&closed, payload), refused, "{text}");
        assert_eq!(ports(&open, payload), allowed, "{text}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_name_no_port_of_their_own_accord(
        payload: Vec<u8>, reply: bool, low: bool, v6: bool,
    ) {
        let dir = if reply { Dir::Reply } else { Dir::Original };
        let heard = hear(&context(v6, dir, low), &payload);
        prop_assert_eq!(heard.keep.is_some(), reply);
        prop_assert!(heard.requests.is_empty());
    }

    /// Pieces of answers in any order: the words that are there, at most once each, and no low port.
    #[test]
    fn pieces_of_answers(
        pieces in proptest::collection::vec(
            prop_oneof![
                Just("CONNECT ".to_owned()), Just("DATA ".to_owned()), Just("MESG ".to_owned()),
                Just("INDEX ".to_owned()), Just("STATE ".to_owned()), Just("\n".to_owned()),
                "[0-9]{1,7} ?", "[ -~]{0,3}",
            ],
            0..20,
        ),
    ) {
        let mut payload = pieces.concat().into_bytes();
        payload.push(b'\n');
        let (found, counts) = ports(&context(false, Dir::Reply, false), &payload);
        prop_assert!(found.len() + usize::from(counts[1] + counts[2]) <= CHANNELS.len());
        prop_assert!(found.iter().all(|port| *port >= 1024));
        let connects = pieces.concat().contains("CONNECT ");
        prop_assert_eq!(counts[0], u16::from(connects));
    }
}
