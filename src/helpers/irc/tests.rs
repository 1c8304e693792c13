//! Dialogues as clients have them, a segment a row. 10.1.0.1 is 167837697.

use super::super::dialogue::{Dialogue, V4, V6, words};
use super::*;
use crate::conntrack::helper::Permissions;

fn session() -> Dialogue {
    let mut dialogue = Dialogue::new(&IRC, V4);
    dialogue.play(&[
        ('C', "NICK alice\r\nUSER alice 0 * :Alice\r\n", ""),
        ('S', ":irc.example 001 alice :Welcome\r\n", ""),
    ]);
    dialogue
}

#[test]
fn offers() {
    session().play(&[
        // mIRC, irssi, HexChat.
        (
            'C',
            "PRIVMSG bob :\x01DCC SEND notes.txt 167837697 5000 1024\x01\r\n",
            "* > 10.1.0.1 5000",
        ),
        (
            'C',
            "PRIVMSG bob :\x01DCC CHAT chat 167837697 5001\x01\r\n",
            "* > 10.1.0.1 5001",
        ),
        (
            'C',
            "PRIVMSG bob :\x01DCC CHAT CHAT 167837697 5002\x01\r\n",
            "* > 10.1.0.1 5002",
        ),
        (
            'C',
            "PRIVMSG bob :\x01DCC SEND my_notes.txt 167837697 5003 1024 7\x01\n",
            "* > 10.1.0.1 5003",
        ),
        (
            'C',
            "privmsg bob :\x01DCC TSEND notes.txt 167837697 5004 1024\x01\r\n",
            "* > 10.1.0.1 5004",
        ),
        (
            'C',
            " \r PrivMsg bob :\x01DCC SCHAT chat 167837697  65535\x01\r\n",
            "* > 10.1.0.1 65535",
        ),
        (
            'C',
            "PRIVMSG bob,carol :\x01DCC MOVE chat 167837697 1024\r\n",
            "* > 10.1.0.1 1024",
        ),
        // Two in one segment.
        (
            'C',
            "PRIVMSG b :\x01DCC CHAT c 167837697 2000\x01\r\nPRIVMSG c :\x01DCC CHAT c 167837697 2001\x01\r\n",
            "* > 10.1.0.1 2000, * > 10.1.0.1 2001",
        ),
    ]);
}

#[test]
fn names_with_blanks() {
    session().play(&[
        (
            'C',
            "PRIVMSG bob :\x01DCC SEND \"my notes.txt\" 167837697 5000 1024\x01\r\n",
            "* > 10.1.0.1 5000",
        ),
        (
            'C',
            "PRIVMSG bob :\x01DCC SEND \"a 167837697 22 b\" 167837697 5000 1\x01\r\n",
            "* > 10.1.0.1 5000",
        ),
        // A name of one word, whatever it is made of.
        (
            'C',
            "PRIVMSG bob :\x01DCC SEND \" 167837697 5000 1024\x01\r\n",
            "* > 10.1.0.1 5000",
        ),
        (
            'C',
            "PRIVMSG bob :\x01DCC SEND \"notes.txt\" 167837697 5000 1024\x01\r\n",
            "* > 10.1.0.1 5000",
        ),
    ]);
}

#[test]
fn what_offers_nothing() {
    session().play(&[
        ('C', "PRIVMSG bob :hello\r\nPRIVMSG bob\r\n\r\nPING\r\n", ""),
        ('C', "PRIVMSG bob :\x01VERSION\x01\r\n", ""),
        // Quoted in a message, in a notice, in a topic, behind a prefix.
        (
            'C',
            "PRIVMSG bob :see \x01DCC CHAT c 167837697 5000\x01\r\n",
            "",
        ),
        ('C', "NOTICE bob :\x01DCC CHAT c 167837697 5000\x01\r\n", ""),
        ('C', "TOPIC #x :\x01DCC CHAT c 167837697 5000\x01\r\n", ""),
        (
            'C',
            ":alice PRIVMSG bob :\x01DCC CHAT c 167837697 5000\x01\r\n",
            "",
        ),
        // Words that are none; those of DCC are in capitals.
        ('C', "PRIVMSG bob :\x01DCC RESUME n 5000 10\x01\r\n", ""),
        ('C', "PRIVMSG bob :\x01DCC ACCEPT n 5000 10\x01\r\n", ""),
        (
            'C',
            "PRIVMSG bob :\x01dcc chat c 167837697 5000\x01\r\n",
            "",
        ),
        (
            'C',
            "PRIVMSG bob :\x01DCC chat c 167837697 5000\x01\r\n",
            "",
        ),
        (
            'C',
            "PRIVMSG bob :\x01DCC CHATS c 167837697 5000\x01\r\n",
            "",
        ),
        // What the server brings.
        (
            'S',
            ":bob PRIVMSG alice :\x01DCC SEND n 167903233 5000 1\x01\r\n",
            "",
        ),
        (
            'S',
            "PRIVMSG alice :\x01DCC SEND n 167837697 5000 1\x01\r\n",
            "",
        ),
    ]);
}

/// The port 0 asks the other one to listen.
#[test]
fn passive_offers() {
    session().play(&[
        (
            'C',
            "PRIVMSG bob :\x01DCC SEND n 167837697 0 1024 77\x01\r\n",
            "-",
        ),
        (
            'C',
            "PRIVMSG bob :\x01DCC SEND n 199 0 1024 77\x01\r\n",
            "-",
        ),
    ]);
}

#[test]
fn malformed() {
    for arguments in [
        "",
        "n",
        "n ",
        "n 167837697",
        "n 167837697 ",
        "n 167837697 x",
        "n  167837697 5000",
        "n 10.1.0.1 5000",
        "n fd01::1 5000",
        "n 4462804993 5000",
        "n 167837697 70536",
        "n 167837697,5000",
        "n 167837697 -5000",
        "my notes.txt 167837697 5000",
        "\"my notes.txt 167837697 5000",
    ] {
        let line = format!("PRIVMSG bob :\x01DCC SEND {arguments}\x01\r\n");
        session().play(&[('C', &line, "malformed")]);
    }
}

#[test]
fn refusals() {
    let foreign = [(
        'C',
        "PRIVMSG bob :\x01DCC CHAT c 167837698 5000\x01\r\n",
        "* > 10.1.0.2 5000",
    )];
    session().play(&foreign.map(|(who, what, _)| (who, what, "foreign-address")));
    session()
        .allowed(Permissions {
            loose: true,
            low_ports: false,
        })
        .play(&foreign);
    let low = [(
        'C',
        "PRIVMSG bob :\x01DCC CHAT c 167837697 1023\x01\r\n",
        "* > 10.1.0.1 1023",
    )];
    session().play(&low.map(|(who, what, _)| (who, what, "low-port")));
    session()
        .allowed(Permissions {
            loose: false,
            low_ports: true,
        })
        .play(&low);
    Dialogue::new(&IRC, V6).play(&[(
        'C',
        "PRIVMSG bob :\x01DCC CHAT c 167837697 5000\x01\r\n",
        "wrong-family",
    )]);
}

/// Seventeen in one packet are one too many.
#[test]
fn too_many() {
    let line = "PRIVMSG bob :\x01DCC CHAT c 167837697 5000\x01\r\n";
    let heard = session().say(Dir::Original, line.repeat(17).as_bytes());
    assert_eq!((heard.requests.len(), heard.parsed), (16, 17));
    assert_eq!(heard.refusals(Refusal::TooMany), 1);
}

#[test]
fn a_cut_line() {
    let mut dialogue = session();
    let name = "x".repeat(300);
    let line = format!("PRIVMSG bob :\x01DCC SEND {name} 167837697 5000 1024\x01\r\n");
    let (first, second) = line.as_bytes().split_at(290);
    assert_eq!(words(&dialogue.say(Dir::Original, first)), "too-long");
    assert_eq!(words(&dialogue.say(Dir::Original, second)), "malformed");
    let heard = dialogue.say(Dir::Original, line.as_bytes());
    assert_eq!(words(&heard), "* > 10.1.0.1 5000");
}

#[test]
fn split_anywhere_and_sent_twice() {
    let said = b"PING x\r\nPRIVMSG bob :\x01DCC CHAT c 167837697 5000\x01\r\nPING y\r\n";
    let told = "* > 10.1.0.1 5000";
    for at in 0..=said.len() {
        let (first, second) = said.split_at(at);
        let mut dialogue = session();
        let begin = dialogue.place(Dir::Original);
        let heard = [first, second].map(|part| words(&dialogue.say(Dir::Original, part)));
        assert_eq!(heard.concat(), told, "in order, split at {at}");
        assert_eq!(words(&dialogue.segment(Dir::Original, begin, said)), "");
        let mut dialogue = session();
        let parts = [(begin.wrapping_add(at as u32), second), (begin, first)];
        let heard = parts.map(|(seq, part)| words(&dialogue.segment(Dir::Original, seq, part)));
        assert_eq!(heard.concat(), told, "out of order, split at {at}");
        assert_eq!(words(&dialogue.segment(Dir::Original, begin, said)), "");
    }
}
