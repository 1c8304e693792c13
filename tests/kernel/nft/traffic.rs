//! Packets of few flows, that come back to them in every state and in both directions.

use crate::frame::{FIRST_LABEL, Place};
use crate::oracle::{self, LEGS};
use crate::random::Random;
use crate::scenario::{Body, Ends, Scenario, Step};
use crate::sctp::Association;
use crate::tcp::Talk;
use shardwall::wire::checksum::checksum;
use std::net::IpAddr;
use std::time::Duration;

/// Hosts of either side that rules name; they talk, and one more.
pub(crate) const HOSTS: usize = 4;

/// Offset of the IP header in a frame.
const IP: usize = 14;

/// A packet.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) side: usize,
    pub(crate) frame: Vec<u8>,
    /// It, in words.
    pub(crate) text: String,
    /// Whether it is a TCP segment with RST.
    pub(crate) resets: bool,
}

/// Address number `at` of `side`.
pub(crate) fn host(at: usize, side: usize, v6: bool) -> IpAddr {
    Place::anywhere(v6)
        .host(FIRST_LABEL + (at / 2) as u32, side, at % 2 == 1)
        .src()
}

impl Sent {
    /// Comes in by the other side.
    fn go_astray(&mut self) {
        self.side = 1 - self.side;
        self.frame[..6].copy_from_slice(&LEGS[self.side]);
        self.frame[6..12].copy_from_slice(&oracle::HOSTS[self.side]);
        self.text += ", astray";
    }
}

/// Two hosts, and what they are at.
struct Conversation {
    place: Place,
    v6: bool,
    talker: Talker,
    sent: Vec<(usize, Body)>,
    last: Option<Body>,
}

enum Talker {
    Tcp(Talk),
    Sctp(Association),
    Udp,
    Icmp,
    Gre,
    Generic,
}

/// So many packets, of some conversations at once; with `astray`, some come in where they should not.
pub(crate) fn packets(random: &mut Random, count: usize, astray: bool) -> Vec<Sent> {
    let talks = 2 + random.below(6);
    let mut all: Vec<_> = (0..talks).map(|_| Conversation::new(random)).collect();
    let mut packets = Vec::new();
    let mut at = 0;
    while packets.len() < count {
        if random.chance(60) {
            at = random.below(all.len());
        }
        let mut packet = all[at].packet(random);
        if astray && random.chance(8) {
            packet.go_astray();
        }
        packets.push(packet);
    }
    packets
}

impl Conversation {
    fn new(random: &mut Random) -> Self {
        let v6 = random.chance(40);
        let scenario = Scenario {
            name: String::new(),
            group: String::new(),
            v6,
            port: 0,
            steps: Vec::new(),
        };
        let ports = [
            random.pick(&[40_000, 40_001, 1_023, 22]),
            random.pick(&[80, 80, 22, 53, 443, 1_050, 8_080]),
        ];
        let other = [random.chance(50), random.chance(50)];
        let label = FIRST_LABEL + random.below(HOSTS.div_ceil(2)) as u32;
        let place = Place::new(label, &scenario).on(Some(Ends { ports, other }));
        let talker = match random.below(100) {
            0..60 => Talker::Tcp(Talk::new(random)),
            60..65 => Talker::Sctp(Association::new(random)),
            65..85 => Talker::Udp,
            85..92 => Talker::Icmp,
            92..96 => Talker::Gre,
            _ => Talker::Generic,
        };
        let sent = Vec::new();
        Self {
            place,
            v6,
            talker,
            sent,
            last: None,
        }
    }

    fn packet(&mut self, random: &mut Random) -> Sent {
        if matches!(self.talker, Talker::Tcp(_)) && random.chance(2) {
            // The same ports once more.
            self.talker = Talker::Tcp(Talk::new(random));
        }
        let (side, body) = self.next(random);
        self.last = Some(body.clone());
        let body = match random.below(100) {
            0..3 => Body::BadSum(Box::new(body)),
            3..6 => {
                let kinds: &[u8] = if self.v6 { &[43, 60] } else { &[1] };
                let headers = vec![random.pick(kinds)];
                Body::Via {
                    headers,
                    body: Box::new(body),
                }
            }
            _ => body,
        };
        let code = if random.chance(70) {
            0
        } else {
            random.pick(&[46, 8, 10])
        };
        let mut frame = self.place.frame(side, &body);
        let mut by = String::new();
        if let Body::Error { .. } = body
            && !self.v6
            && random.chance(50)
        {
            // A host says so, no router.
            let host = host(random.below(HOSTS), side, false);
            if let IpAddr::V4(addr) = host {
                frame[IP + 12..IP + 16].copy_from_slice(&addr.octets());
            }
            by = format!(" by {host}");
        }
        color(&mut frame, self.v6, code);
        let addrs = self.place.addrs(side);
        let [from, to] = self.place.ports(side);
        let step = Step {
            wait: Duration::ZERO,
            side,
            body,
        };
        let text = format!(
            "{} {from} {} {to} dscp {code}: {step}{by}",
            addrs.src(),
            addrs.dst()
        );
        let resets = matches!(step.body.core(), Body::Tcp { flags, .. } if flags & 4 != 0);
        Sent {
            side,
            frame,
            text,
            resets,
        }
    }

    fn next(&mut self, random: &mut Random) -> (usize, Body) {
        let some = !self.sent.is_empty();
        let more = matches!(self.last, Some(Body::Error { .. })) && random.chance(40);
        if some && (more || random.chance(6)) {
            let (of, about) = random.pick(&self.sent);
            return self.error(random, of, about);
        }
        if some && random.chance(5) {
            return random.pick(&self.sent);
        }
        let side = random.below(2);
        let len = random.pick(&[0, 4, 12, 40, 100]);
        let sent = match &mut self.talker {
            Talker::Tcp(talk) => talk.segment(random),
            Talker::Sctp(association) => association.packet(random),
            Talker::Udp => (if random.chance(60) { 0 } else { side }, Body::Udp { len }),
            Talker::Icmp => (side, query(random, self.v6, side)),
            Talker::Gre => (
                side,
                Body::Gre {
                    version: 0,
                    key: 0,
                    len,
                },
            ),
            Talker::Generic => (side, Body::Raw { proto: 89, len: 8 }),
        };
        self.sent.push(sent.clone());
        sent
    }

    /// An ICMP error about a packet that `of` sent, or that nobody did.
    fn error(&self, random: &mut Random, of: usize, about: Body) -> (usize, Body) {
        let ty = match self.v6 {
            false => random.pick(&[3, 3, 11, 12]),
            true => random.pick(&[1, 1, 2, 3]),
        };
        let about = match random.below(12) {
            0 => Body::Raw { proto: 253, len: 8 },
            _ => about,
        };
        let side = if random.chance(80) { 1 - of } else { of };
        let body = Body::Error {
            ty,
            code: random.below(3) as u8,
            rest: 0,
            astray: random.chance(15),
            of,
            about: Box::new(about),
        };
        (side, body)
    }
}

/// A question, an answer, or neither.
fn query(random: &mut Random, v6: bool, side: usize) -> Body {
    let ty = match (v6, random.below(10), side) {
        (false, 0, _) => random.pick(&[13, 14, 9, 40]),
        (true, 0, _) => random.pick(&[128, 129, 144]),
        (false, _, 0) => 8,
        (false, _, _) => 0,
        (true, _, 0) => 128,
        (true, _, _) => 129,
    };
    Body::Icmp { ty, code: 0 }
}

/// Gives a frame this code point.
fn color(frame: &mut [u8], v6: bool, code: u8) {
    if v6 {
        frame[IP] = frame[IP] & 0xf0 | code >> 2;
        frame[IP + 1] = frame[IP + 1] & 0x3f | code << 6;
    } else {
        frame[IP + 1] = code << 2;
        frame[IP + 10..IP + 12].fill(0);
        let end = IP + usize::from(frame[IP] & 0xf) * 4;
        let sum = checksum(&frame[IP..end]).to_be_bytes();
        frame[IP + 10..IP + 12].copy_from_slice(&sum);
    }
}
