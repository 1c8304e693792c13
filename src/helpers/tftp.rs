//! TFTP (RFC 1350): a request goes to port 69, and the answer comes from another port.
//!
//! A read or write request expects one flow from the server, from any of its ports, to the very port
//! that the request came from. Options (RFC 2347) stand behind the file's name and change nothing of
//! that. As Linux 6.12 (`nf_conntrack_tftp`) does, only the opcode is read, in either direction.
//!
//! A pure function; nothing is remembered.

use super::{Helper, Memory};
use crate::base::time::Span;
use crate::conntrack::helper::{Class, Context, Expect, Heard, Info};
use crate::conntrack::types::proto;

/// The helper.
pub static TFTP: Helper = Helper {
    info: Info {
        name: "tftp",
        protos: &[proto::UDP],
        ipv6: true,
        classes: &[Class {
            name: "tftp",
            max: 1,
            timeout: Span::secs(300),
        }],
    },
    datagram: Some(read),
    stream: None,
};

/// Opcodes (RFC 1350, 5).
const READ: [u8; 2] = [0, 1];
const WRITE: [u8; 2] = [0, 2];

fn read(context: &Context, _: &mut Memory, payload: &[u8], heard: &mut Heard) {
    let Some(&opcode) = payload.first_chunk() else {
        return;
    };
    if opcode != READ && opcode != WRITE {
        return;
    }
    heard.parsed();
    // The payload names no port: this is the client's own, and may be a low one.
    let (client, port) = context.client();
    let (server, _) = context.server();
    heard.expect(Expect::once(proto::UDP, Some(server), client, port));
}

#[cfg(test)]
mod tests;
