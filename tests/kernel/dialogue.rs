//! Two hosts that talk a protocol with a helper, and open the flows that they announced; more or less.
//!
//! What they say is in `speech.rs`. Here is the control flow around it, mistakes in what is said, and
//! the flows beside it: from where they were announced and from elsewhere, while the hosts go on
//! talking. What a helper is known to take differently is kept away from: see [`Dialogue::follow`]
//! and [`Dialogue::repeat`].

use crate::random::Random;
use crate::scenario::{Body, Ends};
use crate::speech::{Line, Speech};
use crate::text;
use shardwall::wire::tcp::flags::{ACK, FIN, PSH, RST, SYN};
use std::collections::VecDeque;

type Packet = (usize, Body);

/// A flow that was announced.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Announced {
    /// Its transport protocol.
    pub(crate) proto: u8,
    /// Who waits for it.
    pub(crate) side: usize,
    /// At which port.
    pub(crate) port: u16,
}

/// A control flow, and those that it announced.
#[derive(Debug)]
pub(crate) struct Dialogue {
    speech: Speech,
    v6: bool,
    /// The next sequence number of each side.
    next: [u32; 2],
    /// What comes next in the control flow.
    control: VecDeque<Packet>,
    /// The same of each of the others.
    flows: Vec<VecDeque<Packet>>,
    announced: Vec<Announced>,
    /// A port that no flow came from.
    fresh: u16,
    /// Percentage of messages with a mistake in them.
    oddity: usize,
    /// What was said last, if nothing came of it since.
    last: Option<Packet>,
    /// The control flow has ended.
    over: bool,
    /// And it does not begin again.
    dead: bool,
}

/// What mistakes are made with. Letters of Latin-1 are letters to the kernel, and not to us.
const STRAY: &[u8] = b"0012345678999,,..||()!:;= \r\t-[]<>@/aAzZ\"\x00\x01\x7f\x80";

impl Dialogue {
    /// One that nobody has begun.
    pub(crate) fn new(random: &mut Random, speech: Speech, v6: bool) -> Self {
        let mut this = Self {
            speech,
            v6,
            next: [0, 1].map(|_| random.pick(&[1_000, 1 << 31, u32::MAX - 500])),
            control: VecDeque::new(),
            flows: Vec::new(),
            announced: Vec::new(),
            fresh: 50_000,
            oddity: random.pick(&[0, 0, 20, 50, 80]),
            last: None,
            over: false,
            dead: false,
        };
        this.open(random);
        this
    }

    /// Whether `body` is part of the control flow's stream, so that nothing may be missing of it.
    pub(crate) fn is_vital(&self, body: &Body) -> bool {
        self.speech.proto() == 6 && body.ends().is_none()
    }

    /// The next packet, and who sends it.
    pub(crate) fn packet(&mut self, random: &mut Random) -> Packet {
        loop {
            if let Some(next) = self.control.pop_front() {
                return next;
            }
            if !self.flows.is_empty() && random.chance(60) {
                let at = random.below(self.flows.len());
                if let Some(next) = self.flows[at].pop_front() {
                    self.last = None;
                    return next;
                }
                self.flows.swap_remove(at);
                continue;
            }
            self.act(random);
        }
    }

    fn act(&mut self, random: &mut Random) {
        match random.below(100) {
            0..35 if !self.announced.is_empty() => self.attempt(random),
            35..40 => self.repeat(),
            40..45 => self.end(random),
            45..52 => self.noise(random),
            _ if self.dead => self.noise(random),
            _ if self.over => self.open(random),
            52..62 => {
                let side = random.below(2);
                self.neutral(random, side);
            }
            _ => self.announce(random),
        }
    }

    /// How a control flow begins, or begins again.
    fn open(&mut self, random: &mut Random) {
        self.over = false;
        if self.speech.proto() == 6 {
            self.next = self.next.map(|next| next.wrapping_add(100_000));
            for (side, flags) in [(0, SYN), (1, SYN | ACK), (0, ACK)] {
                self.segment(side, flags);
            }
        }
        for (side, text) in self.speech.greeting(random) {
            self.say(side, text);
        }
    }

    /// How it ends: no more than flags, and the hosts need not care.
    fn end(&mut self, random: &mut Random) {
        if self.speech.proto() != 6 || self.over || self.dead || random.chance(50) {
            return self.noise(random);
        }
        let side = random.below(2);
        if random.chance(50) {
            self.over = true;
            self.segment(side, FIN | ACK);
            self.segment(1 - side, FIN | ACK);
            return self.segment(side, ACK);
        }
        self.segment(side, RST);
        // A flow that the same ports begin is the same entry, unless who reset the old one begins
        // it at once; and where it is the same, helpers may be deaf in it.
        if side == 0 && random.chance(50) {
            return self.open(random);
        }
        self.dead = true;
    }

    /// Something without meaning.
    fn noise(&mut self, random: &mut Random) {
        let side = random.below(2);
        if self.speech.proto() == 6 {
            return self.segment(side, ACK);
        }
        let len = random.pick(&[0, 1, 4, 30]);
        self.control.push_back((side, Body::Udp { len }));
    }

    /// A segment without payload at the numbers that come next.
    fn segment(&mut self, side: usize, flags: u8) {
        let acks = flags & ACK != 0;
        let body = Body::Tcp {
            flags,
            seq: self.next[side],
            ack: if acks { self.next[1 - side] } else { 0 },
            window: 64_000,
            len: 0,
            options: Vec::new(),
        };
        let phantom = u32::from(flags & (SYN | FIN) != 0);
        self.next[side] = self.next[side].wrapping_add(phantom);
        self.control.push_back((side, body));
    }

    /// Says `text`, all in one packet.
    fn say(&mut self, side: usize, text: Vec<u8>) {
        let body = Box::new(match self.speech.proto() {
            17 => Body::Udp { len: 0 },
            _ => Body::Tcp {
                flags: PSH | ACK,
                seq: self.next[side],
                ack: self.next[1 - side],
                window: 64_000,
                len: 0,
                options: Vec::new(),
            },
        });
        self.next[side] = self.next[side].wrapping_add(text::len(&text, self.v6));
        self.last = None;
        self.control.push_back((side, Body::Says { text, body }));
    }

    /// Something that announces nothing.
    fn neutral(&mut self, random: &mut Random, side: usize) {
        let text = self.speech.neutral(random, side);
        self.say(side, text);
    }

    /// Announces flows, mostly.
    fn announce(&mut self, random: &mut Random) {
        let Line {
            side,
            mut text,
            flows,
            foreign,
        } = self.speech.line(random, self.v6);
        let odd = random.chance(self.oddity);
        if odd {
            text = self.edited(random, text);
        }
        self.say(side, text);
        self.last = self.control.back().cloned();
        self.announced.extend(flows);
        self.follow(random, side, odd || foreign);
    }

    /// Of a line that announces nothing although it looks like that, the kernel's FTP helper forgets
    /// where it ends, so that it does not read the next one: that may not announce anything.
    fn follow(&mut self, random: &mut Random, side: usize, strange: bool) {
        if strange && self.speech.proto() == 6 {
            self.neutral(random, side);
        }
    }

    /// What was said last once more, unless that alone prolongs the flow to the kernel. When what it announced has been used already, the kernel
    /// expects it again, and we do not.
    fn repeat(&mut self) {
        if !self.speech.counts_packets() {
            self.control.extend(self.last.clone());
        }
    }

    /// `text` with a mistake or some; none that the two are known to take differently.
    fn edited(&self, random: &mut Random, text: Vec<u8>) -> Vec<u8> {
        let edit = |random: &mut Random| {
            let mut pieces: Vec<Vec<u8>> = text::pieces(&text).map(<[u8]>::to_vec).collect();
            for _ in 0..random.pick(&[1, 1, 1, 2, 3]) {
                let at = random.below(pieces.len());
                // One message a packet, and a packet a message: no line ends elsewhere.
                if pieces[at] == b"\n" {
                    continue;
                }
                match random.below(8) {
                    0..2 => drop(pieces.remove(at)),
                    2..5 => pieces[at] = vec![random.pick(STRAY)],
                    5 => pieces.insert(at, vec![random.pick(STRAY)]),
                    6 if pieces[at][0].is_ascii_alphabetic() => pieces[at][0] ^= 0x20,
                    _ => pieces.insert(at, pieces[at].clone()),
                }
            }
            pieces.concat()
        };
        for _ in 0..10 {
            let edited = edit(random);
            if self.speech.agreed(&text, &edited, self.v6) {
                return edited;
            }
        }
        text
    }

    /// A flow to where one was announced, or nearby.
    fn attempt(&mut self, random: &mut Random) {
        let back = random.pick(&[1, 1, 1, 2, 3, 8]).min(self.announced.len());
        let Announced { proto, side, port } = self.announced[self.announced.len() - back];
        let port = match random.below(20) {
            0..16 => port,
            16 => port ^ 1,
            17 => port.wrapping_sub(1),
            18 => port.wrapping_add(1),
            _ => random.next() as u16,
        };
        self.fresh += 1;
        let from = random.pick(&[20, self.fresh, self.fresh, self.fresh, 40_000]);
        let mut ends = Ends {
            ports: [from; 2],
            other: [random.chance(5), random.chance(5)],
        };
        ends.ports[side] = port;
        let opener = if random.chance(92) { 1 - side } else { side };
        let proto = if random.chance(97) { proto } else { 23 - proto };
        let bodies = match proto {
            6 => connection(random, opener),
            _ => datagrams(random, opener),
        };
        let on = |(side, body)| {
            let body = Box::new(body);
            (side, Body::On { ends, body })
        };
        self.flows.push(bodies.into_iter().map(on).collect());
    }
}

/// The beginning of a connection, or something like one.
fn connection(random: &mut Random, opener: usize) -> Vec<Packet> {
    let tcp = |flags, seq, ack, len| Body::Tcp {
        flags,
        seq,
        ack,
        window: 64_000,
        len,
        options: Vec::new(),
    };
    let mut all = vec![
        (opener, tcp(SYN, 9_000, 0, 0)),
        (1 - opener, tcp(SYN | ACK, 7_000, 9_001, 0)),
        (opener, tcp(ACK, 9_001, 7_001, 0)),
        (opener, tcp(PSH | ACK, 9_001, 7_001, 10)),
        (1 - opener, tcp(FIN | ACK, 7_001, 9_011, 0)),
        (opener, tcp(FIN | ACK, 9_011, 7_002, 0)),
    ];
    all.truncate(random.pick(&[1, 1, 2, 3, 4, 6]));
    match random.below(20) {
        0 => all.insert(0, (opener, tcp(RST, 9_000, 0, 0))),
        1 => drop(all.remove(0)),
        2 => all.insert(0, all[0].clone()),
        3 => all.insert(1, (1 - opener, tcp(RST | ACK, 0, 9_001, 0))),
        _ => {}
    }
    all
}

/// A few datagrams one way and the other.
fn datagrams(random: &mut Random, opener: usize) -> Vec<Packet> {
    let count = 1 + random.below(4);
    let side = |at: usize| {
        if at == 0 { opener } else { (opener + at) % 2 }
    };
    let len = |random: &mut Random| random.pick(&[0, 4, 20, 100]);
    (0..count)
        .map(|at| (side(at), Body::Udp { len: len(random) }))
        .collect()
}
