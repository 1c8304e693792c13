//! Amanda's datagrams (the `bsd` and `bsdudp` security drivers): the backup server asks a client on
//! port 10080, and the client answers with the ports on which it waits for connections.
//!
//! ```text
//! Amanda 2.6 REP HANDLE 000-00000001 SEQ 1287654321
//! CONNECT DATA 50015 MESG 50016 INDEX 50017
//! OPTIONS features=9ffffeff9f00;
//! ```
//!
//! Each port expects one TCP flow from whoever asked. As in Linux 6.12 (`nf_conntrack_amanda`), only
//! answers are read, each keeps the control flow for five minutes (an estimate takes its time), and
//! of the first line with `CONNECT ` in it the first of each word counts, wherever it stands. Unlike
//! there, a number that is no port is refused: Linux takes its first five digits, modulo 65536; and
//! so are ports below 1024, where policy does not allow them.
//!
//! A pure function; nothing is remembered.

use super::{Helper, Memory};
use crate::base::time::Span;
use crate::conntrack::helper::{Class, Context, Expect, Heard, Info, Refusal};
use crate::conntrack::types::{Dir, proto};

/// The helper.
pub static AMANDA: Helper = Helper {
    info: Info {
        name: "amanda",
        protos: &[proto::UDP],
        ipv6: true,
        classes: &[Class {
            name: "amanda",
            max: 4,
            timeout: Span::secs(180),
        }],
    },
    datagram: Some(read),
    stream: None,
};

/// How long an answer keeps the control flow (Linux: the module's `master_timeout`).
const KEEP: Span = Span::secs(300);

const CONNECT: &[u8] = b"CONNECT ";

/// What is connected, in the order in which it is looked for.
const CHANNELS: [&[u8]; 4] = [b"DATA ", b"MESG ", b"INDEX ", b"STATE "];

/// Most digits of a port.
const DIGITS: usize = 5;

fn read(context: &Context, _: &mut Memory, payload: &[u8], heard: &mut Heard) {
    if context.dir == Dir::Original {
        return;
    }
    heard.keep = Some(KEEP);
    let Some(line) = behind(payload, CONNECT) else {
        return;
    };
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
        return;
    };
    let line = &line[..end];
    heard.parsed();
    let (server, _) = context.client();
    let (client, _) = context.server();
    for channel in CHANNELS {
        let Some(number) = behind(line, channel) else {
            continue;
        };
        match port(number) {
            // No such connection, and Linux then looks for no other.
            Some(0) => break,
            Some(port) => match context.may_name(port) {
                Ok(()) => heard.expect(Expect::once(proto::TCP, Some(server), client, port)),
                Err(why) => heard.refuse(why),
            },
            None => heard.refuse(Refusal::Malformed),
        }
    }
}

/// What follows the first `word` in `text`.
fn behind<'a>(text: &'a [u8], word: &[u8]) -> Option<&'a [u8]> {
    let at = text.windows(word.len()).position(|some| some == word)?;
    text.get(at + word.len()..)
}

/// The number that `text` begins with, 0 without one; `None` if it is no port.
fn port(text: &[u8]) -> Option<u16> {
    let mut digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    let first = digits.by_ref().take(DIGITS);
    let number = first.fold(0u32, |number, digit| number * 10 + u32::from(digit - b'0'));
    match digits.next() {
        Some(_) => None,
        None => u16::try_from(number).ok(),
    }
}

#[cfg(test)]
mod tests;
