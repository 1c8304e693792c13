//! What is compared: the judgement on a packet and its flow after it, whoever says so.

use shardwall::conntrack::types::TcpState;
use std::fmt;

/// One side's opinion of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// `accept`, `drop` or `reject`, if a rule had a say; `-` if the packet ended before, or if a
    /// helper stopped it.
    pub(crate) verdict: String,
    /// What it is; `-` if that was never said.
    pub(crate) state: String,
    /// Its direction in its flow, or `-`.
    pub(crate) dir: String,
    /// Its flow right after it.
    pub(crate) flow: Option<FlowView>,
}

/// A flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowView {
    /// TCP state; NONE for other protocols.
    pub(crate) tcp: TcpState,
    /// Seconds left.
    pub(crate) timeout: u32,
    /// Whether it was answered.
    pub(crate) seen_reply: bool,
    /// Whether it is worth keeping.
    pub(crate) assured: bool,
    /// Whether a helper announced it.
    pub(crate) expected: bool,
}

impl View {
    /// Nothing said: the packet is held, or was dropped before any rule.
    pub(crate) fn silent(&self) -> bool {
        self.verdict == "-" && self.state == "-"
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.state, self.dir, self.verdict)?;
        let Some(flow) = self.flow else {
            return write!(f, ", no flow");
        };
        write!(f, ", {} {}", flow.tcp.name(), flow.timeout)?;
        if !flow.seen_reply {
            write!(f, " [UNREPLIED]")?;
        }
        if flow.assured {
            write!(f, " [ASSURED]")?;
        }
        if flow.expected {
            write!(f, " [EXPECTED]")?;
        }
        Ok(())
    }
}
