//! Dialogues as servers and clients have them, a segment a row.

use super::super::dialogue::{Dialogue, V4, V6, words};
use super::*;
use crate::conntrack::helper::Permissions;
use crate::wire::Addrs;

/// A session behind its first lines.
fn session(addrs: Addrs) -> Dialogue {
    let mut dialogue = Dialogue::new(&FTP, addrs);
    dialogue.play(&[
        ('S', "220 (vsFTPd 3.0.5)\r\n", ""),
        ('C', "USER anonymous\r\n", ""),
        ('S', "331 Please specify the password.\r\n", ""),
        ('C', "PASS me@\r\n", ""),
        ('S', "230 Login successful.\r\n", ""),
    ]);
    dialogue
}

const LOOSE: Permissions = Permissions {
    loose: true,
    low_ports: false,
};
const LOW: Permissions = Permissions {
    loose: false,
    low_ports: true,
};

#[test]
fn passive_replies() {
    let told = "10.1.0.1 > 10.2.0.1 51350";
    for reply in [
        // vsftpd, ProFTPD, Pure-FTPd, IIS, without brackets, and as RFC 1123 warns.
        "227 Entering Passive Mode (10,2,0,1,200,150).\r\n",
        "227 Entering Passive Mode (10,2,0,1,200,150)\r\n",
        "227 Entering Passive Mode (10,2,0,1,200,150)\n",
        "227 Entering Passive Mode. 10,2,0,1,200,150\r\n",
        "227 10,2,0,1,200,150\r\n",
        "227 =10,2,0,1,200,150\r\n",
        "227 (010,02,0,1,200,150)\r\n",
    ] {
        session(V4).play(&[('C', "PASV\r\n", ""), ('S', reply, told)]);
    }
}

#[test]
fn extended_passive_replies() {
    for (addrs, told) in [
        (V4, "10.1.0.1 > 10.2.0.1 51350"),
        (V6, "fd01::1 > fd02::1 51350"),
    ] {
        for reply in [
            "229 Entering Extended Passive Mode (|||51350|)\r\n",
            "229 Entering Extended Passive Mode (|||51350|).\r\n",
            "229 Extended Passive mode OK (|||51350|)\r\n",
            "229 (!!!51350!)\r\n",
            "229 ok (|||51350|\r\n",
        ] {
            session(addrs).play(&[('C', "EPSV\r\n", ""), ('S', reply, told)]);
        }
    }
}

#[test]
fn active_commands() {
    session(V4).play(&[
        (
            'C',
            "PORT 10,1,0,1,200,150\r\n",
            "10.2.0.1 > 10.1.0.1 51350",
        ),
        ('S', "200 PORT command successful.\r\n", ""),
        ('C', "port 10,1,0,1,4,0\r\n", "10.2.0.1 > 10.1.0.1 1024"),
        (
            'C',
            "eprt |1|10.1.0.1|6446|\r\n",
            "10.2.0.1 > 10.1.0.1 6446",
        ),
        (
            'C',
            "EPRT !1!10.1.0.1!65535!\r\n",
            "10.2.0.1 > 10.1.0.1 65535",
        ),
    ]);
    session(V6).play(&[
        ('C', "EPRT |2|fd01::1|6446|\r\n", "fd02::1 > fd01::1 6446"),
        (
            'C',
            "EPRT |2|fd01:0:0::0:0:1|6447|\r\n",
            "fd02::1 > fd01::1 6447",
        ),
    ]);
}

#[test]
fn what_announces_nothing() {
    session(V4).play(&[
        ('C', "PASV\r\nEPSV\r\nEPSV ALL\r\n", ""),
        ('C', "\r\nP\r\nXPORT 10,1,0,1,4,1\r\n", ""),
        ('C', "227 (10,1,0,1,4,1)\r\n229 (|||1025|)\r\n", ""),
        ('S', "PORT 10,2,0,1,4,1\r\n", ""),
        ('S', "500 227 (10,2,0,1,4,1)\r\n2270 (10,2,0,1,4,1)\r\n", ""),
        ('S', " 227 (10,2,0,1,4,1)\r\n\r\n22\r\n227\r\n", ""),
        ('S', "\u{ff}\u{1}\u{2}\r\n", ""),
    ]);
}

#[test]
fn replies_of_several_lines() {
    session(V4).play(&[
        // Only the last line of a 227 counts.
        (
            'S',
            "227-Take (10,2,0,1,4,1)\r\n 227 (10,2,0,1,4,2)\r\n",
            "",
        ),
        (
            'S',
            "227 Now (10,2,0,1,4,3)\r\n",
            "10.1.0.1 > 10.2.0.1 1027",
        ),
        // Within another reply nothing does.
        ('S', "230-Welcome\r\n227 (10,2,0,1,4,4)\r\n", ""),
        ('S', "227-\r\n227 (10,2,0,1,4,5)\r\n230-more\r\n", ""),
        (
            'S',
            "230 In\r\n227 (10,2,0,1,4,6)\r\n",
            "10.1.0.1 > 10.2.0.1 1030",
        ),
        ('S', "211-Features\r\n EPSV\r\n211\r\n", ""),
        ('S', "227 (10,2,0,1,4,7)\r\n", "10.1.0.1 > 10.2.0.1 1031"),
        // The end was missed: what follows the next request is an answer.
        ('S', "211-Features\r\n", ""),
        ('C', "pasv\r\n", ""),
        ('S', "227 (10,2,0,1,4,8)\r\n", "10.1.0.1 > 10.2.0.1 1032"),
    ]);
}

#[test]
fn several_lines_in_one_segment() {
    session(V4).play(&[
        (
            'C',
            "TYPE I\r\nPORT 10,1,0,1,4,1\r\nPORT 10,1,0,1,4,2\r\nLIST\r\n",
            "10.2.0.1 > 10.1.0.1 1025, 10.2.0.1 > 10.1.0.1 1026",
        ),
        (
            'S',
            "200 ok\r\n227 (10,2,0,1,4,3)\r\n",
            "10.1.0.1 > 10.2.0.1 1027",
        ),
    ]);
}

#[test]
fn malformed() {
    for line in [
        "PORT\r\n",
        "PORTS\r\n",
        "PORT \r\n",
        "PORT  10,1,0,1,4,1\r\n",
        "PORT 10,1,0,1,4\r\n",
        "PORT 10,1,0,1,4,\r\n",
        "PORT 10,1,0,1,4,1,\r\n",
        "PORT 10,1,0,1,4,1,1\r\n",
        "PORT 10,1,0,1,4,1 \r\n",
        "PORT 10,1,0,1,4,1\n",
        "PORT 10,,0,1,4,1\r\n",
        "PORT 10,1,0,1,,1\r\n",
        "PORT 10,1,0,256,4,1\r\n",
        "PORT 10,1,0,1,256,1\r\n",
        "PORT 10,1,0,1,0,0\r\n",
        "PORT 10,1,0,1,4,99999999999\r\n",
        "PORT 10,1,0,1,4,-1\r\n",
        "PORT 10.1.0.1,4,1\r\n",
        "EPRT\r\n",
        "EPRT \r\n",
        "EPRT |\r\n",
        "EPRT |1|\r\n",
        "EPRT |1|10.1.0.1|\r\n",
        "EPRT |1|10.1.0.1|2000\r\n",
        "EPRT |1|10.1.0.1||\r\n",
        "EPRT |1|10.1.0.1|0|\r\n",
        "EPRT |1|10.1.0.1|65536|\r\n",
        "EPRT |1|10.1.0|2000|\r\n",
        "EPRT |1|10.1.0.1.1|2000|\r\n",
        "EPRT |1|10.1.0.1 |2000|\r\n",
        "EPRT |1|fd01::1|2000|\r\n",
        "EPRT |3|10.1.0.1|2000|\r\n",
        "EPRT |1!10.1.0.1|2000|\r\n",
        "EPRT 11110.1.0.1120001\r\n",
        "EPRT  |1|10.1.0.1|2000|\r\n",
        "EPRT |2|fd01::g|2000|\r\n",
        "EPRT |2|fd01|2000|\r\n",
    ] {
        session(V4).play(&[('C', line, "malformed")]);
    }
    for line in [
        "227 \r\n",
        "227 Entering Passive Mode\r\n",
        "227 Server2 (10,2,0,1,4,1)\r\n",
        "227 (10,2,0,1,4)\r\n",
        "227 (10,2,0,1,4,1,1)\r\n",
        "227 (10,2,0,1,4,256)\r\n",
        "227 (10,2,0,1,0,0)\r\n",
        "229 \r\n",
        "229 |||2000|\r\n",
        "229 (\r\n",
        "229 (||2000|)\r\n",
        "229 (|||2000)\r\n",
        "229 (||||)\r\n",
        "229 (|||0|)\r\n",
        "229 (|||65536|)\r\n",
        "229 (||!2000|)\r\n",
        "229 (11120001)\r\n",
        "229 (   2000 )\r\n",
    ] {
        session(V4).play(&[('S', line, "malformed")]);
    }
}

#[test]
fn foreign_addresses() {
    let rows = [
        ('C', "PORT 10,1,0,2,4,1\r\n", "10.2.0.1 > 10.1.0.2 1025"),
        (
            'C',
            "EPRT |1|192.0.2.1|2000|\r\n",
            "10.2.0.1 > 192.0.2.1 2000",
        ),
        ('S', "227 (10,2,0,9,4,1)\r\n", "10.1.0.1 > 10.2.0.9 1025"),
    ];
    session(V4).play(&rows.map(|(who, what, _)| (who, what, "foreign-address")));
    session(V4).allowed(LOOSE).play(&rows);
    let rows = [('C', "EPRT |2|fd01::2|2000|\r\n", "fd02::1 > fd01::2 2000")];
    session(V6).play(&rows.map(|(who, what, _)| (who, what, "foreign-address")));
    session(V6).allowed(LOOSE).play(&rows);
}

#[test]
fn low_ports() {
    let rows = [
        ('C', "PORT 10,1,0,1,0,22\r\n", "10.2.0.1 > 10.1.0.1 22"),
        (
            'C',
            "EPRT |1|10.1.0.1|1023|\r\n",
            "10.2.0.1 > 10.1.0.1 1023",
        ),
        ('S', "227 (10,2,0,1,3,255)\r\n", "10.1.0.1 > 10.2.0.1 1023"),
        ('S', "229 (|||1|)\r\n", "10.1.0.1 > 10.2.0.1 1"),
    ];
    session(V4).play(&rows.map(|(who, what, _)| (who, what, "low-port")));
    session(V4).allowed(LOW).play(&rows);
}

#[test]
fn the_other_family() {
    let v6 = [
        ('C', "PORT 10,1,0,1,4,1\r\n", "wrong-family"),
        ('C', "EPRT |1|10.1.0.1|2000|\r\n", "wrong-family"),
        ('S', "227 (10,2,0,1,4,1)\r\n", "wrong-family"),
    ];
    session(V6).play(&v6);
    session(V6).allowed(LOOSE).play(&v6);
    session(V4).play(&[('C', "EPRT |2|fd01::1|2000|\r\n", "wrong-family")]);
}

#[test]
fn a_cut_line() {
    let mut dialogue = session(V4);
    let long = format!("PORT 10,1,0,1,4,1\r{}", "x".repeat(300));
    assert_eq!(
        words(&dialogue.say(Dir::Original, long.as_bytes())),
        "too-long"
    );
    assert_eq!(words(&dialogue.say(Dir::Original, b"\r\n")), "malformed");
    // In one segment it is what it says, as for Linux.
    let heard = dialogue.say(Dir::Original, format!("{long}\r\n").as_bytes());
    assert_eq!(words(&heard), "10.2.0.1 > 10.1.0.1 1025");
}

const SAID: &[u8] = b"NOOP\r\nPORT 10,1,0,1,4,1\r\nLIST\r\n";
const TOLD: &str = "10.2.0.1 > 10.1.0.1 1025";

#[test]
fn split_anywhere_and_sent_twice() {
    for at in 0..=SAID.len() {
        let (first, second) = SAID.split_at(at);
        let told = |heard: [String; 2]| heard.concat();
        // In order; and again.
        let mut dialogue = session(V4);
        let begin = dialogue.place(Dir::Original);
        let next = begin.wrapping_add(at as u32);
        let heard = [first, second].map(|part| words(&dialogue.say(Dir::Original, part)));
        assert_eq!(told(heard), TOLD, "in order, split at {at}");
        for (seq, part) in [(begin, first), (next, second), (begin, SAID)] {
            assert_eq!(words(&dialogue.segment(Dir::Original, seq, part)), "");
        }
        // The second part first.
        let mut dialogue = session(V4);
        let parts = [(next, second), (begin, first)];
        let heard = parts.map(|(seq, part)| words(&dialogue.segment(Dir::Original, seq, part)));
        assert_eq!(told(heard), TOLD, "out of order, split at {at}");
        assert_eq!(words(&dialogue.segment(Dir::Original, begin, SAID)), "");
    }
}

#[test]
fn a_dropped_segment_is_heard_again() {
    let mut dialogue = session(V4);
    let (seq, before) = (dialogue.place(Dir::Original), dialogue.talk.clone());
    assert_eq!(words(&dialogue.segment(Dir::Original, seq, SAID)), TOLD);
    dialogue.talk = before;
    assert_eq!(words(&dialogue.segment(Dir::Original, seq, SAID)), TOLD);
}

/// Linux looks only behind a line's end that it saw.
#[test]
fn the_first_line_is_not_read() {
    Dialogue::new(&FTP, V4).play(&[
        ('C', "PORT 10,1,0,1,4,1\r\n", ""),
        ('C', "PORT 10,1,0,1,4,1\r\n", TOLD),
        ('S', "227 (10,2,0,1,4,1)\r\n", ""),
        ('S', "227 (10,2,0,1,4,1)\r\n", "10.1.0.1 > 10.2.0.1 1025"),
    ]);
}
