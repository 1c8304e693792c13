//! What the targets of the helpers share: a control flow on which anything is said, in any order.
//!
//! The input is a byte of settings and a sequence of steps: three bytes (how it comes, a number,
//! its length) and a payload, in which bytes above 127 stand for the target's words, unless the
//! step says that they are themselves. Whatever comes, a helper asks for nothing that it may not,
//! says the same when it is asked twice, and one that only listens to streams does not care how
//! they are cut.

use shardwall::conntrack::helper::{Context, Expect, Heard, Permissions, Refusal, Request};
use shardwall::conntrack::tuple::Tuple;
use shardwall::conntrack::types::{Dir, proto};
use shardwall::helpers::{ALL, Helper, Talk};
use shardwall::wire::Addrs;
use shardwall::wire::inner::Ports;
use zerocopy::FromZeros;

/// Ports of the control flow: the only low one that may be named.
const PORTS: (u16, u16) = (40_000, 21);

struct Bench {
    helper: &'static Helper,
    context: Context,
    talk: Talk,
    /// Something was understood.
    understood: bool,
    /// Where each direction's next segment begins.
    next: [u32; 2],
    /// Each direction's segments as they would come in order.
    said: [Vec<Vec<u8>>; 2],
}

/// Lets the helper called `name` hear `input`.
pub fn run(name: &str, words: &[&str], input: &[u8]) {
    let helper = ALL.iter().find(|helper| helper.info.name == name);
    let helper = helper.expect("there is such a helper");
    let Some((settings, mut rest)) = input.split_first() else {
        return;
    };
    let mut bench = Bench::new(helper, *settings);
    while let [how, number, len, tail @ ..] = rest {
        let (payload, next) = tail.split_at(usize::from(*len).min(tail.len()));
        rest = next;
        let payload = if how & 0x80 == 0 {
            spell(payload, words)
        } else {
            payload.to_vec()
        };
        bench.step(*how, *number, payload);
    }
    if helper.datagram.is_none() {
        bench.cuts_do_not_matter(Dir::Original);
        bench.cuts_do_not_matter(Dir::Reply);
    }
}

/// Bytes above 127 are words.
fn spell(payload: &[u8], words: &[&str]) -> Vec<u8> {
    let mut text = Vec::new();
    for byte in payload {
        match byte.checked_sub(0x80) {
            Some(word) => text.extend_from_slice(words[usize::from(word) % words.len()].as_bytes()),
            None => text.push(*byte),
        }
    }
    text
}

impl Bench {
    fn new(helper: &'static Helper, settings: u8) -> Self {
        let addrs = if settings & 1 != 0 && helper.info.ipv6 {
            Addrs::V6 {
                src: 0xfd01 << 112 | 1,
                dst: 0xfd02 << 112 | 1,
            }
        } else {
            Addrs::V4 {
                src: 0x0a01_0001,
                dst: 0x0a02_0001,
            }
        };
        let proto = match &helper.stream {
            Some(_) => proto::TCP,
            None => proto::UDP,
        };
        let ports = Ports::Ports {
            sport: PORTS.0,
            dport: PORTS.1,
        };
        Self {
            helper,
            context: Context {
                original: Tuple {
                    addrs,
                    proto,
                    ports,
                    zone: 0,
                },
                dir: Dir::Original,
                expected: settings & 8 != 0,
                permissions: Permissions {
                    loose: settings & 2 != 0,
                    low_ports: settings & 4 != 0,
                },
            },
            talk: Talk::new_zeroed(),
            understood: false,
            next: [u32::MAX - 500, 5_000],
            said: Default::default(),
        }
    }

    fn step(&mut self, how: u8, number: u8, payload: Vec<u8>) {
        let dir = match how & 1 {
            0 => Dir::Original,
            _ => Dir::Reply,
        };
        let context = Context {
            dir,
            ..self.context
        };
        let streams = self.helper.stream.is_some();
        let place = if streams && (self.helper.datagram.is_none() || how & 0x40 == 0) {
            let next = &mut self.next[dir as usize];
            let number = u32::from(number);
            Some(match how >> 1 & 7 {
                // Before, behind, and far from what comes next.
                5 => next.wrapping_sub(number),
                6 => next.wrapping_add(number),
                7 => next.wrapping_add(number << 24),
                _ => {
                    let seq = *next;
                    *next = seq.wrapping_add(payload.len() as u32);
                    self.said[dir as usize].push(payload.clone());
                    seq
                }
            })
        } else {
            None
        };
        let mut again = self.talk.clone();
        let heard = listen(&mut self.talk, self.helper, &context, &payload, place);
        self.understood |= heard.parsed > 0;
        assert!(self.understood || heard.requests.is_empty());
        check(self.helper, &context, &heard);
        // A dropped packet is heard again as it was the first time.
        let twice = listen(&mut again, self.helper, &context, &payload, place);
        assert_eq!(heard.requests, twice.requests);
        assert_eq!(
            (heard.refused, heard.parsed, heard.keep, heard.drop),
            (twice.refused, twice.parsed, twice.keep, twice.drop)
        );
    }

    /// A direction's stream in its segments, and at once.
    fn cuts_do_not_matter(&self, dir: Dir) {
        let (mut cut, mut whole) = (Talk::new_zeroed(), Talk::new_zeroed());
        let context = Context {
            dir,
            ..self.context
        };
        let segments = &self.said[dir as usize];
        let (mut seq, mut asked, mut left_out) = (0_u32, Vec::new(), 0);
        for segment in segments {
            let heard = listen(&mut cut, self.helper, &context, segment, Some(seq));
            seq = seq.wrapping_add(segment.len() as u32);
            asked.extend(heard.requests.iter().copied());
            left_out += heard.refusals(Refusal::TooMany);
            assert_eq!(heard.refusals(Refusal::Gap), 0);
            if heard.refusals(Refusal::TooLong) > 0 {
                return;
            }
        }
        let all = segments.concat();
        let heard = listen(&mut whole, self.helper, &context, &all, Some(0));
        let first = asked.len().min(heard.requests.len());
        assert!(left_out > 0 || asked[..first] == heard.requests[..first]);
        assert_eq!(
            asked.len() + usize::from(left_out),
            heard.requests.len() + usize::from(heard.refusals(Refusal::TooMany))
        );
    }
}

fn listen(
    talk: &mut Talk,
    helper: &Helper,
    context: &Context,
    payload: &[u8],
    place: Option<u32>,
) -> Heard {
    let mut heard = Heard::default();
    talk.listen(helper, context, payload, place, &mut heard);
    heard
}

/// What may be asked for on this flow.
fn check(helper: &Helper, context: &Context, heard: &Heard) {
    for request in &heard.requests {
        match request {
            Request::Expect(expect) => {
                check_expect(helper, context, expect);
            }
            Request::Confirm { class, .. } | Request::ForgetUnconfirmed { class } => {
                assert!(usize::from(*class) < helper.info.classes.len());
            }
            Request::Forget { classes } => {
                assert_eq!(u32::from(*classes) >> helper.info.classes.len(), 0);
            }
        }
    }
}

fn check_expect(helper: &Helper, context: &Context, expect: &Expect) {
    let own = [context.client().0, context.server().0];
    assert!(usize::from(expect.class) < helper.info.classes.len());
    assert_eq!(expect.dst.is_ipv4(), own[0].is_ipv4());
    assert!(expect.src.is_none_or(|src| own.contains(&src)));
    assert!(context.permissions.loose || own.contains(&expect.dst));
    let low = expect.dst_port < 1_024 && ![PORTS.0, PORTS.1].contains(&expect.dst_port);
    assert!(expect.dst_port != 0 && (context.permissions.low_ports || !low));
}
