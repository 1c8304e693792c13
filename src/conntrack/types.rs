//! The words of connection tracking: states, directions, status, protocol names. Values only; the
//! machinery is in the neighbouring files.

use serde::{Deserialize, Serialize};
use zerocopy::{FromZeros, Immutable, IntoBytes};

/// IANA protocol numbers, as `wire` names them.
pub use crate::wire::proto;

/// What a packet is to the tracker: nftables' `ct state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CtState {
    /// Starts a flow, or belongs to one that has seen no reply yet.
    New,
    /// Belongs to a flow that has seen both directions.
    Established,
    /// An ICMP error about a known flow, or a flow that a helper expected.
    Related,
    /// Could not be identified, or is impossible in its flow's state.
    Invalid,
    /// Exempted by `notrack`, or never tracked (IPv6 neighbour discovery).
    Untracked,
}

impl CtState {
    /// Every state, in nftables' order.
    pub const ALL: [CtState; 5] = [
        CtState::Invalid,
        CtState::Established,
        CtState::Related,
        CtState::New,
        CtState::Untracked,
    ];

    /// The word that policy and `replay` use.
    pub const fn name(self) -> &'static str {
        match self {
            CtState::New => "new",
            CtState::Established => "established",
            CtState::Related => "related",
            CtState::Invalid => "invalid",
            CtState::Untracked => "untracked",
        }
    }

    /// This state as one bit, for sets of states.
    pub const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Direction of a packet relative to its flow: `Original` is the direction of the first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Dir {
    /// As the first packet went.
    Original = 0,
    /// Against it.
    Reply = 1,
}

impl Dir {
    /// The opposite direction.
    #[inline]
    pub const fn flip(self) -> Dir {
        match self {
            Dir::Original => Dir::Reply,
            Dir::Reply => Dir::Original,
        }
    }

    /// The word that policy and `replay` use.
    pub const fn name(self) -> &'static str {
        match self {
            Dir::Original => "original",
            Dir::Reply => "reply",
        }
    }
}

/// States of a TCP flow (Linux 6.x `tcp_conntrack`; `SynSent2` is simultaneous open).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, FromZeros, IntoBytes, Immutable,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[repr(u8)]
pub enum TcpState {
    /// No packet was judged yet.
    None = 0,
    /// SYN seen.
    SynSent,
    /// SYN/ACK seen.
    SynRecv,
    /// Handshake complete, or picked up mid-stream.
    Established,
    /// FIN seen.
    FinWait,
    /// FIN acknowledged.
    CloseWait,
    /// FIN seen both ways.
    LastAck,
    /// Last ACK seen.
    TimeWait,
    /// Reset, or gone.
    Close,
    /// SYN seen both ways.
    SynSent2,
}

impl TcpState {
    /// How many states there are.
    pub const COUNT: usize = 10;

    /// Every state, in numeric order.
    pub const ALL: [TcpState; Self::COUNT] = [
        TcpState::None,
        TcpState::SynSent,
        TcpState::SynRecv,
        TcpState::Established,
        TcpState::FinWait,
        TcpState::CloseWait,
        TcpState::LastAck,
        TcpState::TimeWait,
        TcpState::Close,
        TcpState::SynSent2,
    ];

    /// The name that conntrack(8) prints.
    pub const fn name(self) -> &'static str {
        match self {
            TcpState::None => "NONE",
            TcpState::SynSent => "SYN_SENT",
            TcpState::SynRecv => "SYN_RECV",
            TcpState::Established => "ESTABLISHED",
            TcpState::FinWait => "FIN_WAIT",
            TcpState::CloseWait => "CLOSE_WAIT",
            TcpState::LastAck => "LAST_ACK",
            TcpState::TimeWait => "TIME_WAIT",
            TcpState::Close => "CLOSE",
            TcpState::SynSent2 => "SYN_SENT2",
        }
    }
}

/// States of an SCTP association (Linux 6.12 `sctp_conntrack`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[repr(u8)]
pub enum SctpState {
    /// No packet was judged yet.
    None = 0,
    /// INIT seen; or aborted, or gone.
    Closed,
    /// INIT ACK seen.
    CookieWait,
    /// COOKIE ECHO seen.
    CookieEchoed,
    /// COOKIE ACK seen.
    Established,
    /// SHUTDOWN seen from the original side.
    ShutdownSent,
    /// SHUTDOWN seen from the replying side.
    ShutdownRecd,
    /// SHUTDOWN ACK seen.
    ShutdownAckSent,
    /// HEARTBEAT seen first: another path of an association that is known elsewhere, or picked up.
    HeartbeatSent,
}

impl SctpState {
    /// How many states there are.
    pub const COUNT: usize = 9;

    /// Every state, in numeric order.
    pub const ALL: [SctpState; Self::COUNT] = [
        SctpState::None,
        SctpState::Closed,
        SctpState::CookieWait,
        SctpState::CookieEchoed,
        SctpState::Established,
        SctpState::ShutdownSent,
        SctpState::ShutdownRecd,
        SctpState::ShutdownAckSent,
        SctpState::HeartbeatSent,
    ];

    /// The name that conntrack(8) prints.
    pub const fn name(self) -> &'static str {
        match self {
            SctpState::None => "NONE",
            SctpState::Closed => "CLOSED",
            SctpState::CookieWait => "COOKIE_WAIT",
            SctpState::CookieEchoed => "COOKIE_ECHOED",
            SctpState::Established => "ESTABLISHED",
            SctpState::ShutdownSent => "SHUTDOWN_SENT",
            SctpState::ShutdownRecd => "SHUTDOWN_RECD",
            SctpState::ShutdownAckSent => "SHUTDOWN_ACK_SENT",
            SctpState::HeartbeatSent => "HEARTBEAT_SENT",
        }
    }
}
