//! Two hosts with an SCTP association, more or less (RFC 9260).

use crate::random::Random;
use crate::scenario::{Body, CHUNKS, Chunk};

/// An association, by what each end chose and believes.
#[derive(Debug)]
pub(crate) struct Association {
    /// The tags that each side wants in packets to it.
    tags: [u32; 2],
    /// How far the handshake, and the shutdown, got.
    phase: usize,
    /// Percentage of packets that no host would send.
    oddity: usize,
    sent: Vec<(usize, Body)>,
}

/// The packets of a life in order: who sends, and which chunks.
const LIFE: [(usize, &[&str]); 10] = [
    (0, &["init"]),
    (1, &["init-ack"]),
    (0, &["cookie-echo", "data"]),
    (1, &["cookie-ack", "sack"]),
    (0, &["data"]),
    (1, &["sack"]),
    (0, &["heartbeat"]),
    (0, &["shutdown"]),
    (1, &["shutdown-ack"]),
    (0, &["shutdown-complete"]),
];

impl Association {
    /// One that begins with an INIT, or in the middle.
    pub(crate) fn new(random: &mut Random) -> Self {
        Self {
            tags: [0, 1].map(|_| 1 + random.next() as u32 / 2),
            phase: random.pick(&[0, 0, 0, 0, 4, 6]),
            oddity: random.pick(&[0, 10, 25, 50]),
            sent: Vec::new(),
        }
    }

    /// The next packet, and who sends it.
    pub(crate) fn packet(&mut self, random: &mut Random) -> (usize, Body) {
        if random.chance(8) && !self.sent.is_empty() {
            return random.pick(&self.sent);
        }
        let (side, body) = if random.chance(self.oddity) {
            self.odd(random)
        } else {
            self.sensible(random)
        };
        self.sent.push((side, body.clone()));
        (side, body)
    }

    fn sensible(&mut self, random: &mut Random) -> (usize, Body) {
        let at = self.phase.min(LIFE.len() - 1);
        let (side, names) = LIFE[at];
        if (4..7).contains(&at) {
            // Talk goes both ways, and goes on for a while.
            let side = random.below(2);
            if random.chance(15) {
                self.phase = 7;
            }
            let names: &[&str] = random.pick(&[
                &["data"][..],
                &["sack"],
                &["sack", "data"],
                &["heartbeat"],
                &["heartbeat-ack"],
                &["data", "data"],
            ]);
            return (side, self.of(side, names));
        }
        self.phase += 1;
        if self.phase > LIFE.len() || random.chance(3) {
            // Another association between the same ports, sometimes with the same tags.
            self.phase = 0;
            if random.chance(70) {
                self.tags = [0, 1].map(|_| 1 + random.next() as u32 / 2);
            }
        }
        (side, self.of(side, names))
    }

    fn of(&self, side: usize, names: &[&str]) -> Body {
        let chunks: Vec<Chunk> = names.iter().map(|name| self.chunk(side, name)).collect();
        let vtag = if names.contains(&"init") {
            0
        } else {
            self.tags[1 - side]
        };
        Body::Sctp { vtag, chunks }
    }

    fn chunk(&self, side: usize, name: &str) -> Chunk {
        let known = CHUNKS.iter().find(|(known, _)| *known == name);
        let (_, ty) = *known.expect("a chunk");
        let value = match name {
            "init" | "init-ack" => self.tags[side],
            "data" => 16,
            "sack" => 12,
            "shutdown" => 4,
            _ => 0,
        };
        let flags = if name == "data" { 3 } else { 0 };
        Chunk { ty, flags, value }
    }

    fn odd(&mut self, random: &mut Random) -> (usize, Body) {
        let side = random.below(2);
        let mut chunks = Vec::new();
        for _ in 0..random.pick(&[1, 1, 1, 1, 1, 2, 3, 0]) {
            let (name, _) = random.pick(&CHUNKS);
            let mut chunk = self.chunk(side, name);
            if random.chance(15) {
                chunk.flags = 1; // ABORT, SHUTDOWN COMPLETE: T
            }
            if random.chance(10) && (1..3).contains(&chunk.ty) {
                chunk.value = random.pick(&[0, 1, chunk.value.wrapping_add(1)]);
            }
            if random.chance(3) {
                chunk.ty = random.pick(&[13, 15, 63, 130, 192, 193, 255]);
                chunk.value = 8;
            }
            chunks.push(chunk);
        }
        let vtag = match random.below(10) {
            0 => 0,
            1 => self.tags[side],
            2 => random.next() as u32,
            _ if chunks.iter().any(|chunk| chunk.ty == 1) => 0,
            _ => self.tags[1 - side],
        };
        (side, Body::Sctp { vtag, chunks })
    }
}
