//! What is compared: the judgement on a packet and the flow after it, whoever says so.

use shardwall::conntrack::types::{CtState, Dir, TcpState};
use std::fmt;

/// One side's opinion of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// What it is; `None` if it never came to the tracker.
    pub(crate) state: Option<CtState>,
    /// Its direction in its flow.
    pub(crate) dir: Option<Dir>,
    /// The conversation's flow right after it.
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
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.map_or("-", CtState::name);
        let dir = self.dir.map_or("-", Dir::name);
        write!(f, "{state} {dir}")?;
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
        Ok(())
    }
}
