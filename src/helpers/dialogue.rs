//! For tests: a control connection between two hosts, and what a helper hears of it, in words.

use super::{Helper, Talk};
use crate::conntrack::helper::{Context, Expect, Heard, Permissions, Refusal, Request};
use crate::conntrack::tuple::Tuple;
use crate::conntrack::types::{Dir, proto};
use crate::wire::Addrs;
use crate::wire::inner::Ports;
use zerocopy::FromZeros;

/// From 10.1.0.1 to 10.2.0.1.
pub(super) const V4: Addrs = Addrs::V4 {
    src: 0x0a01_0001,
    dst: 0x0a02_0001,
};
/// From fd01::1 to fd02::1.
pub(super) const V6: Addrs = Addrs::V6 {
    src: 0xfd01 << 112 | 1,
    dst: 0xfd02 << 112 | 1,
};

/// A control connection.
pub(super) struct Dialogue {
    helper: &'static Helper,
    pub(super) context: Context,
    pub(super) talk: Talk,
    next: [u32; 2],
}

impl Dialogue {
    pub(super) fn new(helper: &'static Helper, addrs: Addrs) -> Self {
        Self {
            helper,
            context: Context {
                original: Tuple {
                    addrs,
                    proto: proto::TCP,
                    ports: Ports::Ports {
                        sport: 40_000,
                        dport: 21,
                    },
                    zone: 0,
                },
                dir: Dir::Original,
                expected: false,
                permissions: Permissions::default(),
            },
            talk: Talk::new_zeroed(),
            // They wrap soon.
            next: [u32::MAX - 60, u32::MAX - 90],
        }
    }

    pub(super) fn allowed(mut self, permissions: Permissions) -> Self {
        self.context.permissions = permissions;
        self
    }

    /// Where the next segment of `dir` begins.
    pub(super) fn place(&self, dir: Dir) -> u32 {
        self.next[dir as usize]
    }

    /// The next segment.
    pub(super) fn say(&mut self, dir: Dir, payload: &[u8]) -> Heard {
        let seq = self.place(dir);
        self.next[dir as usize] = seq.wrapping_add(payload.len() as u32);
        self.segment(dir, seq, payload)
    }

    /// A segment anywhere.
    pub(super) fn segment(&mut self, dir: Dir, seq: u32, payload: &[u8]) -> Heard {
        let (mut heard, context) = (
            Heard::default(),
            Context {
                dir,
                ..self.context
            },
        );
        self.talk
            .listen(self.helper, &context, payload, Some(seq), &mut heard);
        heard
    }

    /// Plays `(who, what, heard)`, a segment a row; `C` is the client.
    pub(super) fn play(&mut self, rows: &[(char, &str, &str)]) {
        for (number, (who, what, expected)) in rows.iter().enumerate() {
            let dir = match who {
                'C' => Dir::Original,
                _ => Dir::Reply,
            };
            let heard = words(&self.say(dir, what.as_bytes()));
            assert_eq!(heard, *expected, "row {number}: {who} {what:?}");
        }
    }
}

/// What was heard: each expected flow, then each refusal; `-` for what was understood and asks for
/// nothing.
pub(super) fn words(heard: &Heard) -> String {
    let mut words: Vec<String> = heard.requests.iter().map(request).collect();
    for why in Refusal::ALL {
        words.extend((0..heard.refusals(*why)).map(|_| why.name().to_owned()));
    }
    if words.is_empty() && heard.parsed > 0 {
        words.push("-".to_owned());
    }
    assert!(usize::from(heard.parsed) >= heard.requests.len() && !heard.drop);
    words.join(", ")
}

fn request(request: &Request) -> String {
    let Request::Expect(expect) = request else {
        return format!("{request:?}");
    };
    let (src, dst, port) = (expect.src, expect.dst, expect.dst_port);
    assert_eq!(*expect, Expect::once(proto::TCP, src, dst, port));
    let src = src.map_or("*".to_owned(), |src| src.to_string());
    format!("{src} > {dst} {port}")
}
