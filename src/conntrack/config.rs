//! The tracker's settings: limits, timeouts and the TCP knobs, with Linux's defaults
//! (`net.netfilter.nf_conntrack_*`, Linux 6.12).

use super::entry::status;
use super::types::{SctpState, TcpState, proto};
use crate::base::time::Span;

/// Timeouts of every protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// One for each TCP state, indexed by `TcpState as usize`.
    pub tcp: [Span; TcpState::COUNT],
    /// After `max_retrans` identical segments, or a zero window.
    pub tcp_retrans: Span,
    /// While data is unacknowledged, or a flow was picked up and has no reply.
    pub tcp_unack: Span,
    /// UDP before a reply.
    pub udp_unreplied: Span,
    /// UDP streams.
    pub udp_replied: Span,
    /// UDP-Lite before a reply.
    pub udplite_unreplied: Span,
    /// UDP-Lite in both directions.
    pub udplite_replied: Span,
    /// ICMP queries.
    pub icmp: Span,
    /// ICMPv6 queries.
    pub icmpv6: Span,
    /// GRE before a reply.
    pub gre_unreplied: Span,
    /// GRE in both directions.
    pub gre_replied: Span,
    /// One for each SCTP state, indexed by `SctpState as usize`.
    pub sctp: [Span; SctpState::COUNT],
    /// Every protocol without a tracker of its own.
    pub generic: Span,
}

impl Default for Timeouts {
    fn default() -> Self {
        let mut tcp = [Span::secs(120); TcpState::COUNT];
        for (state, secs) in [
            (TcpState::SynSent, 120),
            (TcpState::SynRecv, 60),
            (TcpState::Established, 432_000),
            (TcpState::FinWait, 120),
            (TcpState::CloseWait, 60),
            (TcpState::LastAck, 30),
            (TcpState::TimeWait, 120),
            (TcpState::Close, 10),
            (TcpState::SynSent2, 120),
        ] {
            tcp[state as usize] = Span::secs(secs);
        }
        let mut sctp = [Span::secs(3); SctpState::COUNT];
        for (state, secs) in [
            (SctpState::Closed, 10),
            (SctpState::Established, 210),
            (SctpState::HeartbeatSent, 30),
        ] {
            sctp[state as usize] = Span::secs(secs);
        }
        Self {
            tcp,
            tcp_retrans: Span::secs(300),
            tcp_unack: Span::secs(300),
            udp_unreplied: Span::secs(30),
            udp_replied: Span::secs(120),
            udplite_unreplied: Span::secs(30),
            udplite_replied: Span::secs(120),
            icmp: Span::secs(30),
            icmpv6: Span::secs(30),
            gre_unreplied: Span::secs(30),
            gre_replied: Span::secs(180),
            sctp,
            generic: Span::secs(600),
        }
    }
}

impl Timeouts {
    /// How long a flow of `proto` lives that policy gives these timeouts with its first packet.
    /// That is the first state's, whatever the packet made of the flow, be it picked up in the
    /// middle (Linux 6.12 `nft_ct_timeout_obj_eval`).
    pub fn first(&self, proto: u8) -> Span {
        match proto {
            proto::TCP => self.tcp[TcpState::SynSent as usize],
            proto::UDP => self.udp_unreplied,
            proto::UDPLITE => self.udplite_unreplied,
            proto::GRE => self.gre_unreplied,
            proto::SCTP => self.sctp[SctpState::Closed as usize],
            proto::ICMP => self.icmp,
            proto::ICMPV6 => self.icmpv6,
            _ => self.generic,
        }
    }
}

/// Most sets of timeouts beside the default.
pub const MAX_PROFILES: usize = (status::ALL_TIMEOUTS / status::TIMEOUTS) as usize;

/// Everything about tracking that policy sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Most flows that the box keeps, over all shards and both families.
    pub max: u32,
    /// Most flows that helpers of the box expect at a time (`nf_conntrack_expect_max`).
    pub expect_max: u32,
    /// Timeouts of flows that policy gives no others.
    pub timeouts: Timeouts,
    /// Those of the flows whose status has the number of one, from 1 on (nftables: `ct timeout`
    /// objects). One that is in no use is the default.
    pub profiles: [Timeouts; MAX_PROFILES],
    /// `nf_conntrack_checksum`: a wrong transport checksum makes a packet INVALID.
    pub checksum: bool,
    /// `nf_conntrack_tcp_loose`: pick up flows mid-stream.
    pub tcp_loose: bool,
    /// `nf_conntrack_tcp_be_liberal`: out-of-window segments are not INVALID.
    pub tcp_be_liberal: bool,
    /// `nf_conntrack_tcp_max_retrans`: identical segments until the retrans timeout.
    pub tcp_max_retrans: u8,
    /// `nf_conntrack_tcp_ignore_invalid_rst`: an RST below the acknowledged range is accepted.
    pub tcp_ignore_invalid_rst: bool,
    /// `nf_conntrack_acct`: count what each flow carries.
    pub accounting: bool,
    /// `nf_conntrack_timestamp`: show when flows began.
    pub timestamps: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max: 262_144,
            expect_max: 65_536,
            timeouts: Timeouts::default(),
            profiles: std::array::from_fn(|_| Timeouts::default()),
            checksum: true,
            tcp_loose: true,
            tcp_be_liberal: false,
            tcp_max_retrans: 3,
            tcp_ignore_invalid_rst: false,
            accounting: false,
            timestamps: false,
        }
    }
}

impl Config {
    /// The timeouts of a flow with these bits of [`status`].
    #[inline(always)]
    pub fn timeouts_of(&self, status: u8) -> &Timeouts {
        let number = usize::from(status / status::TIMEOUTS);
        let profile = number.checked_sub(1).and_then(|at| self.profiles.get(at));
        profile.unwrap_or(&self.timeouts)
    }
}
