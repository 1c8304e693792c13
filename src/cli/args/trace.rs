//! Options of `trace` and `capture`.

use crate::control::trace::Ask;
use std::path::PathBuf;

/// Options of `trace`.
///
/// For each packet that is meant: the packet, its flow before and after it, why it is INVALID if it is,
/// every rule that it came by with the match that failed, and the verdict.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct TraceArgs {
    /// Which packets.
    #[command(flatten)]
    pub which: WhichArgs,
}

/// Options of `capture`.
///
/// Each packet as it came in, once, with its verdict, drop reason and rule as a comment. What the
/// appliance sends itself (the answers of `reject`) is not in it.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct CaptureArgs {
    /// Write pcapng to this file, for Wireshark or `shardwall replay`; `-` for standard output. Without
    /// it, a line is printed for each packet.
    #[arg(short, long, value_name = "FILE")]
    pub write: Option<PathBuf>,
    /// Packets that came in by this port only; the same as iif=PORT.
    #[arg(long, value_name = "PORT")]
    pub port: Option<String>,
    /// Packets that were dropped for this reason only (see `shardwall drops`); the same as
    /// reason=REASON.
    #[arg(long, value_name = "REASON")]
    pub reason: Option<String>,
    /// Packets that were dropped or rejected only; the same as verdict=drop,reject.
    #[arg(long)]
    pub dropped: bool,
    /// Keep so many bytes of each frame, at most: up to 2048, which is the default. More than a frame's
    /// first buffer is never kept.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=2048))]
    pub snaplen: Option<u32>,
    /// Which packets.
    #[command(flatten)]
    pub which: WhichArgs,
}

/// Which packets, and how many.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct WhichArgs {
    /// End after so many packets.
    #[arg(short = 'c', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// End after so many seconds.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..))]
    pub seconds: Option<u32>,
    /// Take one of so many of the packets that are meant, on each worker.
    #[arg(long, value_name = "1/N", value_parser = sample)]
    pub sample: Option<u32>,
    /// Take so many packets a second and worker, at most (1000, for `capture` 10000): what comes faster
    /// is left out, counted and told.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: Option<u32>,
    /// Which packets, all of which must hold, for example: iif=wan daddr=10.2.0.0/16 tcp dport=80,443
    /// dropped. Words are a protocol, TCP flags (that are set), a state, a verdict, `reply`, `dropped`, and
    /// iif= oif= saddr= daddr= addr= proto= sport= dport= port= type= flags= ct= dir= vlan= length= dscp=
    /// mark= helper= verdict= reason= rule=. Values are as in `explain`; several with commas between them
    /// mean any of them; addresses may be prefixes or ranges, numbers ranges; addr= and port= mean either
    /// end, mark= and helper= those of the flow; a rule is CHAIN/NAME, or CHAIN/* for all of a chain.
    /// Without words all packets are meant.
    #[arg(value_name = "FILTER")]
    pub words: Vec<String>,
}

impl WhichArgs {
    fn ask(&self) -> Ask {
        Ask {
            words: self.words.clone(),
            sample: self.sample.unwrap_or(1),
            rate: self.rate.unwrap_or(0),
            count: self.count.unwrap_or(0),
            seconds: self.seconds.unwrap_or(0),
            frames: false,
            snaplen: 0,
        }
    }
}

impl TraceArgs {
    /// What is asked of the appliance.
    pub fn ask(&self) -> Ask {
        Ask {
            // For the answer of a `reject`, which quotes the packet.
            snaplen: 256,
            ..self.which.ask()
        }
    }
}

/// Packets of a capture, a second and worker, if nothing else is said.
const RATE: u32 = 10_000;

impl CaptureArgs {
    /// What is asked of the appliance.
    pub fn ask(&self) -> Ask {
        let mut ask = self.which.ask();
        let port = self.port.iter().map(|port| format!("iif={port}"));
        let reason = self.reason.iter().map(|reason| format!("reason={reason}"));
        ask.words.extend(port.chain(reason));
        if self.dropped {
            ask.words.push("dropped".into());
        }
        Ask {
            rate: self.which.rate.unwrap_or(RATE),
            frames: true,
            snaplen: self.snaplen.unwrap_or(0),
            ..ask
        }
    }
}

/// `1/N`, or `N`.
fn sample(word: &str) -> Result<u32, String> {
    let of = word.strip_prefix("1/").unwrap_or(word);
    match of.parse() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err("write 1/N: one packet of N".into()),
    }
}
