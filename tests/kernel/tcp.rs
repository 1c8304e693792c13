//! Two hosts that talk TCP, more or less: a random walk that mostly keeps to the protocol.

use crate::random::Random;
use crate::scenario::Body;
use shardwall::wire::tcp::flags;

/// Two hosts that talk TCP, more or less.
#[derive(Debug)]
pub(crate) struct Talk {
    hosts: [Host; 2],
    /// How far the conversation got.
    phase: u8,
    /// Percentage of segments that no host would send.
    oddity: usize,
    sent: Vec<(usize, Body)>,
    /// Every number that was mentioned.
    numbers: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Host {
    /// The next sequence number.
    next: u32,
    /// What it has received.
    received: u32,
    window: u16,
    scale: Option<u8>,
    sack: bool,
    finished: bool,
}

impl Talk {
    pub(crate) fn new(random: &mut Random) -> Self {
        let hosts = [0, 1].map(|_| Host {
            next: match random.below(4) {
                0 => u32::MAX - random.below(3000) as u32,
                1 => (1 << 31) - random.below(3000) as u32,
                _ => random.next() as u32,
            },
            received: 0,
            window: random.pick(&[0, 1, 500, 5_000, 64_000, 64_000, 65_535]),
            scale: random.pick(&[None, None, Some(0), Some(2), Some(7), Some(14), Some(15)]),
            sack: random.chance(60),
            finished: false,
        });
        Self {
            hosts,
            phase: random.pick(&[0, 0, 0, 0, 0, 0, 3, 3]),
            oddity: random.pick(&[0, 5, 15, 15, 30, 60]),
            sent: Vec::new(),
            numbers: vec![0],
        }
    }

    /// The next segment, and who sends it.
    pub(crate) fn segment(&mut self, random: &mut Random) -> (usize, Body) {
        let repeat = random.chance(8).then(|| random.below(self.sent.len() + 1));
        if let Some(again) = repeat.and_then(|at| self.sent.get(at)) {
            return again.clone();
        }
        if random.chance(6)
            && let Some(last) = self.sent.last()
        {
            return last.clone();
        }
        let (side, body) = if random.chance(self.oddity) {
            self.odd(random)
        } else {
            self.sensible(random)
        };
        self.sent.push((side, body.clone()));
        (side, body)
    }

    /// What comes next in an honest conversation.
    fn sensible(&mut self, random: &mut Random) -> (usize, Body) {
        use flags::{ACK, FIN, PSH, RST, SYN};
        let (side, bits, len) = match self.phase {
            0 => (0, SYN, 0),
            1 if random.chance(8) => (1, SYN, 0),
            1 => (1, SYN | ACK, 0),
            2 => (0, ACK, 0),
            _ => {
                let side = random.below(2);
                let done = self.hosts.map(|host| host.finished);
                match random.below(100) {
                    0..12 if !done[side] => (side, FIN | ACK, 0),
                    0..4 if done == [true; 2] => {
                        // The same ports once more.
                        self.phase = 0;
                        self.hosts[0].finished = false;
                        self.hosts[1].finished = false;
                        self.hosts[0].next = self.hosts[0].next.wrapping_add(100_000);
                        (0, SYN, 0)
                    }
                    12..15 => (side, RST, 0),
                    15..17 => (side, RST | ACK, 0),
                    17..60 if !done[side] => (side, ACK | PSH, random.pick(&[1, 10, 100, 1400])),
                    _ => (side, ACK, 0),
                }
            }
        };
        if self.phase < 3 {
            self.phase += 1;
        }
        let Host { next, received, .. } = self.hosts[side];
        let ack = if bits & ACK != 0 { received } else { 0 };
        let lost = random.chance(5);
        self.send(random, side, bits, next, ack, len, !lost)
    }

    /// Anything.
    fn odd(&mut self, random: &mut Random) -> (usize, Body) {
        use flags::{ACK, FIN, PSH, RST, SYN, URG};
        let side = random.below(2);
        let bits = match random.below(10) {
            0..8 => random.pick(&[
                SYN,
                SYN,
                SYN | ACK,
                SYN | ACK,
                ACK,
                ACK,
                ACK | PSH,
                ACK | URG,
                FIN | ACK,
                RST,
                RST,
                RST | ACK,
                SYN | URG,
            ]),
            8 => random.next() as u8,
            _ => ACK,
        };
        let window = u32::from(self.hosts[1 - side].window);
        let deltas = [
            1,
            2,
            100,
            1400,
            window,
            window.wrapping_add(1),
            65_535,
            66_000,
            66_001,
            100_000,
            1 << 20,
            1 << 31,
        ];
        let host = self.hosts[side];
        let numbers = &self.numbers;
        let mut shift = |base: u32| match random.below(14) {
            0..5 => base,
            5..7 => base.wrapping_add(random.pick(&deltas)),
            7 => base.wrapping_sub(random.pick(&deltas)),
            8..12 => random.pick(numbers),
            12 => random.pick(numbers).wrapping_add(1),
            _ => random.next() as u32,
        };
        let (seq, ack) = (shift(host.next), shift(host.received));
        let len = random.pick(&[0, 0, 1, 100, 1400]);
        let heard = random.chance(50);
        self.send(random, side, bits, seq, ack, len, heard)
    }

    #[allow(clippy::too_many_arguments)]
    fn send(
        &mut self,
        random: &mut Random,
        side: usize,
        flags: u8,
        seq: u32,
        ack: u32,
        len: u16,
        heard: bool,
    ) -> (usize, Body) {
        let host = &mut self.hosts[side];
        if random.chance(5) {
            host.window = random.pick(&[0, 0, 1, 500, 5_000, 64_000]);
        }
        let mut options = Vec::new();
        if flags & flags::SYN != 0 {
            if host.sack {
                options.extend([4, 2, 1, 1]);
            }
            if let Some(scale) = host.scale {
                options.extend([1, 3, 3, scale]);
            }
        } else if host.sack && random.chance(10) {
            let left = ack.wrapping_add(random.pick(&[0, 10, 1400, 70_000]));
            let right = left.wrapping_add(random.pick(&[0, 1, 100, 70_000]));
            options.extend([1, 1, 5, 10]);
            options.extend(left.to_be_bytes());
            options.extend(right.to_be_bytes());
        }
        if random.chance(4) {
            options.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
        }
        let phantom = u32::from(flags & (flags::SYN | flags::FIN) != 0);
        let end = seq.wrapping_add(u32::from(len)).wrapping_add(phantom);
        if flags & flags::RST == 0 {
            host.next = end;
            host.finished |= flags & flags::FIN != 0;
        }
        let window = host.window;
        self.numbers.extend([seq, ack, end]);
        if heard && flags & flags::RST == 0 {
            self.hosts[1 - side].received = end;
        }
        let body = Body::Tcp {
            flags,
            seq,
            ack,
            window,
            len,
            options,
        };
        (side, body)
    }
}
