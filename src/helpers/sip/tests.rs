//! Dialogues, message by message, and what is asked for after each.

mod calls;
mod registrations;
mod streams;

use super::*;
use crate::conntrack::helper::{Expect, Permissions, Refusal, Request};
use crate::conntrack::tuple::Tuple;
use crate::conntrack::types::Dir;
use crate::conntrack::types::Dir::{Original, Reply};
use crate::wire::Addrs;
use crate::wire::inner::Ports;

/// A control flow from a phone (10.1.0.2 or fd01::2) to a proxy (10.2.0.2 or fd02::2).
struct Flow {
    context: Context,
    memory: Memory,
    heard: Heard,
}

impl Flow {
    fn new(proto: u8, addrs: Addrs) -> Self {
        let ports = Ports::Ports {
            sport: 5060,
            dport: 5060,
        };
        let original = Tuple {
            addrs,
            proto,
            ports,
            zone: 0,
        };
        Self {
            context: Context {
                original,
                dir: Original,
                expected: false,
                permissions: Permissions::default(),
            },
            memory: Memory::new_zeroed(),
            heard: Heard::default(),
        }
    }

    fn udp() -> Self {
        Self::new(proto::UDP, V4)
    }

    fn tcp() -> Self {
        Self::new(proto::TCP, V4)
    }

    /// Hears one datagram; what it asks for.
    fn hear(&mut self, dir: Dir, text: &str) -> Vec<String> {
        self.context.dir = dir;
        self.heard = Heard::default();
        datagram(
            &self.context,
            &mut self.memory,
            text.as_bytes(),
            &mut self.heard,
        );
        asked(&self.heard)
    }

    /// Hears a segment that is cut where lines and bodies end, as `stream` cuts it.
    fn hear_lines(&mut self, dir: Dir, text: &str) -> Vec<String> {
        self.context.dir = dir;
        self.heard = Heard::default();
        let (mut rest, mut body) = (text.as_bytes(), 0);
        while !rest.is_empty() {
            let limit = if body > 0 {
                body.min(rest.len())
            } else {
                rest.len()
            };
            let end = rest[..limit].iter().position(|byte| *byte == b'\n');
            let len = end.map_or(limit, |at| at + 1);
            let text = rest[..len].strip_suffix(b"\n").unwrap_or(&rest[..len]);
            let one = Line {
                text: text.strip_suffix(b"\r").unwrap_or(text),
                len,
                cut: false,
                gap: false,
            };
            let next = line(&self.context, &mut self.memory, &one, &mut self.heard);
            rest = &rest[len..];
            body = match next {
                Next::Line => 0,
                Next::Body(len) => len as usize,
            };
        }
        asked(&self.heard)
    }

    fn refused(&self) -> Vec<Refusal> {
        let counted = |why: &&Refusal| self.heard.refusals(**why) > 0;
        Refusal::ALL.iter().filter(counted).copied().collect()
    }
}

const V4: Addrs = Addrs::V4 {
    src: 0x0a01_0002,
    dst: 0x0a02_0002,
};
const V6: Addrs = Addrs::V6 {
    src: 0xfd01 << 112 | 2,
    dst: 0xfd02 << 112 | 2,
};

/// Requests in words.
fn asked(heard: &Heard) -> Vec<String> {
    heard.requests.iter().map(words).collect()
}

fn words(request: &Request) -> String {
    let class = |class: u8| SIP.info.classes[usize::from(class)].name;
    match *request {
        Request::Expect(expect) => {
            let Expect {
                src, dst, dst_port, ..
            } = expect;
            let src = src.map_or("any".to_owned(), |src| src.to_string());
            let signalling = expect.class == SIGNALLING;
            assert_eq!(
                [
                    expect.permanent,
                    expect.inactive,
                    expect.inherit,
                    !expect.shared
                ],
                [signalling; 4]
            );
            assert_eq!((expect.src_port, expect.timeout), (None, None));
            let name = class(expect.class);
            format!("{name} {} {src} {dst} {dst_port}", expect.proto)
        }
        Request::Confirm {
            class: of,
            proto,
            dst,
            dst_port,
            timeout,
        } => {
            let seconds = timeout.as_secs();
            format!("confirm {} {proto} {dst} {dst_port} {seconds}s", class(of))
        }
        Request::ForgetUnconfirmed { class: of } => format!("forget unconfirmed {}", class(of)),
        Request::Forget { classes } => {
            assert_eq!(classes, 0b1110);
            "forget media".to_owned()
        }
    }
}

/// A message of these headers and body, with its length.
fn message(head: &[&str], body: &[&str]) -> String {
    let body: String = body.iter().map(|line| format!("{line}\r\n")).collect();
    let head: String = head.iter().map(|line| format!("{line}\r\n")).collect();
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// A pair of expectations from the proxy to the phone.
fn to_phone(class: &str, port: u16) -> [String; 2] {
    [0, 1].map(|plus| format!("{class} 17 10.2.0.2 10.1.0.2 {}", port + plus))
}

/// A pair from the phone to the proxy.
fn to_proxy(class: &str, port: u16) -> [String; 2] {
    [0, 1].map(|plus| format!("{class} 17 10.1.0.2 10.2.0.2 {}", port + plus))
}

const NOTHING: [&str; 0] = [];
const FORGET: &str = "forget media";

#[test]
fn a_datagram_keeps_the_flow_alive_if_it_has_anything() {
    let mut flow = Flow::udp();
    assert_eq!(flow.hear(Original, ""), NOTHING);
    assert_eq!(flow.heard.keep, None);
    assert_eq!(flow.hear(Original, "\r\n\r\n"), NOTHING);
    assert_eq!(flow.heard.keep, Some(Span::secs(3600)));
    assert_eq!((flow.heard.parsed, flow.heard.drop), (0, false));
}

#[test]
fn what_is_remembered_fits() {
    assert!(size_of::<Sip>() <= Memory::BYTES);
}
