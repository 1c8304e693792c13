//! The policy after checking: plain values with every name resolved. What `check` yields, what
//! `compile` reads, and what two policies are compared by.
//!
//! Life-cycle: built by [`super::parse`], never changed. Concurrency: plain values.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::PortId;
use super::calendar::{Calendar, TimeMatch};
use super::ranges::{AddrSet, U16Set};
use super::timeouts::{Profile, ProfileId};
use crate::conntrack::config::Config;
use crate::conntrack::helper::{HelperId, Permissions};
use crate::conntrack::types::Dir;

/// Name of the chain that a packet starts in.
pub const FORWARD: &str = "forward";

/// A whole policy. Its chains form no loop and nest at most [`MAX_JUMPS`] deep; every jump leads
/// to a chain of it.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Ports, in the order of the file: the index is the [`PortId`].
    pub ports: Vec<Port>,
    /// Pairs of ports that frames pass between.
    pub bridges: Vec<Bridge>,
    /// Settings read at start.
    pub system: System,
    /// What becomes of flows when this policy replaces another.
    pub reload: ReloadMode,
    /// Connection tracking.
    pub conntrack: Config,
    /// Sets of timeouts beside the default that rules and zones ask for, at most
    /// [`MAX_PROFILES`](crate::conntrack::config::MAX_PROFILES).
    pub profiles: Vec<Profile>,
    /// Zones whose flows go by one of them.
    pub zone_timeouts: Vec<(u16, ProfileId)>,
    /// The local time that rules go by; `None` if none asks for it.
    pub calendar: Option<Arc<Calendar>>,
    /// Lines that attach a helper to a flow that begins; each is an [`Action::Helper`].
    pub helpers: Vec<Rule>,
    /// Rules before tracking.
    pub raw: Vec<Rule>,
    /// Chains; `forward` is first.
    pub chains: Vec<Chain>,
    /// The text that it was read from, to tell rules as they are written.
    pub source: Arc<str>,
}

/// What a reload does to flows that are in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReloadMode {
    /// They live on; what their packets may is for the rules to say.
    #[default]
    Keep,
    /// Each is judged again at its next packet, as if it began then.
    Rematch,
    /// Those that would not be let begin any more end at once.
    FlushAffected,
}

impl ReloadMode {
    /// Every mode.
    pub const ALL: [ReloadMode; 3] = [Self::Keep, Self::Rematch, Self::FlushAffected];

    /// The word that policy uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Rematch => "rematch",
            Self::FlushAffected => "flush-affected",
        }
    }
}

/// Deepest nesting of jumps.
pub const MAX_JUMPS: usize = 16;

/// One port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Name that rules use.
    pub name: String,
    /// PCI address, or a DPDK virtual device with its arguments.
    pub device: String,
    /// Receive queues, if not one for each worker.
    pub queues: Option<u16>,
    /// The longest IP packet, if not as the device comes up.
    pub mtu: Option<u16>,
    /// Whether it takes frames for whatever address.
    pub promiscuous: bool,
}

/// A pair of bridged ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// One port.
    pub a: PortId,
    /// The other.
    pub b: PortId,
    /// EtherTypes that pass beside IP, ascending; 0 stands for 802.3 LLC frames.
    pub ethertypes: Vec<u16>,
    /// The zone of its flows.
    pub zone: Zone,
}

/// Where flows are told apart: equal tuples in two zones are two flows (nftables: `ct zone`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// This one.
    Fixed(u16),
    /// The id of the outermost VLAN tag; 0 for untagged frames.
    Vlan,
}

/// Settings that are read at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// How many workers, and where.
    pub workers: Workers,
    /// What workers do while nothing comes.
    pub idle: Idle,
    /// Use of hugepages.
    pub hugepages: Hugepages,
    /// Where metrics are served; `None` for nowhere.
    pub metrics: Option<SocketAddr>,
    /// Whether there is a status page beside the metrics.
    pub status_page: StatusPage,
    /// The control socket.
    pub socket: PathBuf,
    /// Name of the time zone that rules go by, if not the box's.
    pub time_zone: Option<String>,
    /// Packet buffers, if not derived from ports and queues.
    pub mbufs: Option<u32>,
    /// Memory for DPDK in MB, if not its default.
    pub memory: Option<u32>,
    /// Where the log goes.
    pub log: LogTo,
}

impl Default for System {
    fn default() -> Self {
        Self {
            workers: Workers::Count(1),
            idle: Idle::Auto,
            hugepages: Hugepages::Auto,
            metrics: Some(SocketAddr::from(([127, 0, 0, 1], 9477))),
            status_page: StatusPage::Auto,
            socket: PathBuf::from("/run/shardwall/control.sock"),
            time_zone: None,
            mbufs: None,
            memory: None,
            log: LogTo::Stderr,
        }
    }
}

impl System {
    /// Whether the status page is to be served.
    pub fn serves_status(&self) -> bool {
        match self.status_page {
            StatusPage::Auto => self.metrics.is_some_and(|at| at.ip().is_loopback()),
            StatusPage::On => self.metrics.is_some(),
            StatusPage::Off => false,
        }
    }
}

/// Whether there is a status page beside the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusPage {
    /// If metrics are served on a loopback address.
    Auto,
    /// Wherever metrics are served.
    On,
    /// Never.
    Off,
}

/// Where the log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTo {
    /// Lines on standard error.
    Stderr,
    /// Fields in systemd's journal.
    Journal,
    /// JSON lines in this file.
    File(PathBuf),
}

/// How many workers run, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Workers {
    /// So many, on cores of the appliance's choice.
    Count(u16),
    /// One on each of these cores.
    Cores(Vec<u16>),
}

impl Workers {
    /// How many workers run.
    pub fn count(&self) -> usize {
        match self {
            Workers::Count(count) => usize::from(*count),
            Workers::Cores(cores) => cores.len(),
        }
    }
}

/// What workers do while nothing comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Poll on, or yield if there are no more cores than workers.
    Auto,
    /// Poll on.
    Spin,
    /// Poll on, but let others have the core first.
    Yield,
    /// Sleep, up to 100 us at a time.
    Sleep,
}

/// Use of hugepages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hugepages {
    /// If there are any.
    Auto,
    /// Refuse to start without.
    Required,
    /// Never.
    Off,
}

/// What a helper line attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Helper {
    /// The helper.
    pub id: HelperId,
    /// Its name.
    pub name: &'static str,
    /// What payloads may ask of it.
    pub permissions: Permissions,
}

/// A chain of rules.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Name.
    pub name: String,
    /// What happens at its end; `None` returns to where it was jumped from.
    pub policy: Option<ChainPolicy>,
    /// Rules, in order.
    pub rules: Vec<Rule>,
}

/// What happens to a packet that no rule of `forward` decided about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainPolicy {
    /// It passes.
    Accept,
    /// It does not.
    Drop,
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Name, given or made from its place.
    pub name: String,
    /// For people.
    pub comment: Option<String>,
    /// All of these must hold.
    pub matches: Matches,
    /// What happens then.
    pub action: Action,
    /// Whether and how that is logged.
    pub log: Option<Log>,
    /// What becomes of the mark of the packet's flow.
    pub mark: Option<MarkValue>,
    /// The named counter that it feeds beside its own.
    pub counter: Option<String>,
    /// Which timeouts the flow goes by that the packet starts.
    pub timeouts: Option<ProfileId>,
    /// Line in the file.
    pub line: u32,
    /// Hash of the rule as it is written, without its comment: a rule whose hash did not change
    /// keeps its counters over a reload.
    pub hash: u64,
}

/// Logging of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Put before every line.
    pub prefix: Option<String>,
    /// Lines.
    pub limit: Limit,
}

impl Log {
    /// Of a rule that does not say: a tenth of what all rules may write.
    pub const LIMIT: Limit = Limit {
        rate: 100,
        period_nanos: 1_000_000_000,
        burst: 100,
        per: Per::Rule,
    };
}

impl Default for Log {
    fn default() -> Self {
        Self {
            prefix: None,
            limit: Self::LIMIT,
        }
    }
}

/// What a rule does with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Let it pass.
    Accept,
    /// Throw it away.
    Drop,
    /// Throw it away and tell the sender; `None` chooses by protocol.
    Reject(Option<RejectWith>),
    /// Go back to the chain that jumped here.
    Return,
    /// Go on in this chain, and come back.
    Jump(String),
    /// Go on in this chain, and do not come back.
    Goto(String),
    /// Go on with the next rule.
    Continue,
    /// Do not track it (`raw` only).
    Notrack,
    /// Let a helper listen to its flow (helper lines only).
    Helper(Helper),
}

/// How a sender is told of a rejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectWith {
    /// A TCP RST.
    TcpReset,
    /// ICMP or ICMPv6 port unreachable.
    IcmpPortUnreachable,
    /// ICMP or ICMPv6 communication administratively prohibited.
    AdminProhibited,
    /// ICMP host unreachable, ICMPv6 address unreachable.
    HostUnreachable,
    /// ICMP net unreachable, ICMPv6 no route.
    NetUnreachable,
    /// ICMP protocol unreachable, ICMPv6 port unreachable.
    ProtoUnreachable,
    /// ICMP net prohibited, ICMPv6 communication administratively prohibited.
    NetProhibited,
    /// ICMP host prohibited, ICMPv6 communication administratively prohibited.
    HostProhibited,
    /// ICMP communication administratively prohibited, ICMPv6 failed ingress or egress policy.
    PolicyFail,
    /// ICMP net unreachable, ICMPv6 reject route.
    RejectRoute,
}

impl RejectWith {
    /// Every kind.
    pub const ALL: [RejectWith; 10] = [
        RejectWith::TcpReset,
        RejectWith::IcmpPortUnreachable,
        RejectWith::AdminProhibited,
        RejectWith::HostUnreachable,
        RejectWith::NetUnreachable,
        RejectWith::ProtoUnreachable,
        RejectWith::NetProhibited,
        RejectWith::HostProhibited,
        RejectWith::PolicyFail,
        RejectWith::RejectRoute,
    ];

    /// The word that policy uses.
    pub const fn name(self) -> &'static str {
        match self {
            RejectWith::TcpReset => "tcp-reset",
            RejectWith::IcmpPortUnreachable => "icmp-port-unreachable",
            RejectWith::AdminProhibited => "admin-prohibited",
            RejectWith::HostUnreachable => "host-unreachable",
            RejectWith::NetUnreachable => "net-unreachable",
            RejectWith::ProtoUnreachable => "proto-unreachable",
            RejectWith::NetProhibited => "net-prohibited",
            RejectWith::HostProhibited => "host-prohibited",
            RejectWith::PolicyFail => "policy-fail",
            RejectWith::RejectRoute => "reject-route",
        }
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Action::Accept => f.write_str("accept"),
            Action::Drop => f.write_str("drop"),
            Action::Reject(None) => f.write_str("reject"),
            Action::Reject(Some(with)) => write!(f, "reject {}", with.name()),
            Action::Return => f.write_str("return"),
            Action::Jump(chain) => write!(f, "jump {chain}"),
            Action::Goto(chain) => write!(f, "goto {chain}"),
            Action::Continue => f.write_str("log"),
            Action::Notrack => f.write_str("notrack"),
            Action::Helper(helper) => {
                let Permissions { loose, low_ports } = helper.permissions;
                let word = |is, word| if is { word } else { "" };
                let (loose, low) = (word(loose, ", loose"), word(low_ports, ", low-ports"));
                write!(f, "helper {}{loose}{low}", helper.name)
            }
        }
    }
}

/// The matches of a rule: all that are `Some` must hold. Negations are resolved where the values
/// are finite; addresses keep theirs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matches {
    /// Ports that a packet may have come in by, one bit each.
    pub iif: Option<u64>,
    /// Ports that it may leave by.
    pub oif: Option<u64>,
    /// IP version.
    pub family: Option<Family>,
    /// Source address.
    pub saddr: Option<AddrMatch>,
    /// Destination address.
    pub daddr: Option<AddrMatch>,
    /// Transport protocols.
    pub proto: Option<ProtoSet>,
    /// Source ports.
    pub sport: Option<U16Set>,
    /// Destination ports.
    pub dport: Option<U16Set>,
    /// ICMP and ICMPv6 types.
    pub icmp: Option<IcmpMatch>,
    /// Combinations of TCP flags.
    pub tcp_flags: Option<FlagSet>,
    /// Tracking states, one [`crate::conntrack::types::CtState::bit`] each.
    pub ct: Option<u8>,
    /// Direction in the flow.
    pub dir: Option<Dir>,
    /// Length of the IP datagram.
    pub length: Option<U16Set>,
    /// Whether the datagram came in fragments. Rules see it whole, as in Linux, where this match
    /// finds nothing once tracking has reassembled.
    pub fragment: Option<bool>,
    /// Code points, one bit each.
    pub dscp: Option<u64>,
    /// VLAN ids of the outermost tag; an untagged frame never matches.
    pub vlan: Option<U16Set>,
    /// Zones.
    pub zone: Option<U16Set>,
    /// Mark of the flow.
    pub mark: Option<MarkMatch>,
    /// Status of the flow.
    pub status: Option<StatusMatch>,
    /// Helper of the flow.
    pub helper: Option<HelperMatch>,
    /// Time of day, day of the week, date.
    pub time: Option<TimeMatch>,
    /// Rate.
    pub limit: Option<Limit>,
    /// Number of flows.
    pub connlimit: Option<ConnLimit>,
}

impl Matches {
    /// Whether every packet matches.
    pub fn is_empty(&self) -> bool {
        self.is_constant_true()
            && self.time.is_none()
            && self.limit.is_none()
            && self.connlimit.is_none()
    }

    fn is_constant_true(&self) -> bool {
        self.iif.is_none()
            && self.oif.is_none()
            && self.family.is_none()
            && self.saddr.is_none()
            && self.daddr.is_none()
            && self.proto.is_none()
            && self.sport.is_none()
            && self.dport.is_none()
            && self.icmp.is_none()
            && self.tcp_flags.is_none()
            && self.ct.is_none()
            && self.dir.is_none()
            && self.length.is_none()
            && self.fragment.is_none()
            && self.dscp.is_none()
            && self.vlan.is_none()
            && self.zone.is_none()
            && self.mark.is_none()
            && self.status.is_none()
            && self.helper.is_none()
    }

    /// Whether they ask something of the packet's flow beside its state.
    pub fn ask_of_flows(&self) -> bool {
        self.mark.is_some()
            || self.status.is_some()
            || self.helper.is_some()
            || self.connlimit.is_some()
    }
}

/// IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// A match on an address. As in nftables, an address implies its family: a set without IPv6
/// addresses does not match an IPv6 packet, negated or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddrMatch {
    /// The addresses.
    pub set: Arc<AddrSet>,
    /// Match those that are not in the set.
    pub negated: bool,
}

/// A set of protocol numbers.
pub type ProtoSet = ByteSet;

/// A set of combinations of TCP flags, each as it stands in the header: whatever a match says of
/// masks and values, it is true of so many of the 256 combinations.
pub type FlagSet = ByteSet;

/// A set of numbers from 0 to 255.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSet([u64; 4]);

impl ByteSet {
    /// Adds a number.
    pub fn insert(&mut self, number: u8) {
        self.0[usize::from(number >> 6)] |= 1 << (number & 63);
    }

    /// Whether it holds a number.
    #[inline]
    pub fn contains(&self, number: u8) -> bool {
        self.0[usize::from(number >> 6)] >> (number & 63) & 1 == 1
    }

    /// Whether `other` holds all of them.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.0
            .iter()
            .zip(other.0)
            .all(|(own, other)| own & !other == 0)
    }

    /// The smallest number that it holds.
    pub fn first(&self) -> Option<u8> {
        let words = self.0.iter().enumerate();
        let mut held = words.filter(|(_, word)| **word != 0);
        held.next()
            .map(|(at, word)| at as u8 * 64 + word.trailing_zeros() as u8)
    }

    /// Those that `other` holds too.
    pub fn intersection(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] & other.0[at]))
    }

    /// Every other number.
    pub fn complement(self) -> Self {
        Self(self.0.map(|word| !word))
    }

    /// Its numbers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u8> + '_ {
        (0..=255).filter(|number| self.contains(*number))
    }
}

/// ICMP types, any of which matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IcmpMatch {
    /// The types.
    pub types: Vec<IcmpType>,
    /// Match ICMP packets of every other type.
    pub negated: bool,
}

/// A type of ICMP or ICMPv6, with or without a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpType {
    /// ICMPv6.
    pub v6: bool,
    /// Type.
    pub ty: u8,
    /// Code; any, if `None`.
    pub code: Option<u8>,
}

/// A rate: `rate` packets in `period_nanos`, and `burst` at once. Counted over the whole box, for
/// all packets together or by their addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Packets.
    pub rate: u32,
    /// In so many nanoseconds.
    pub period_nanos: u64,
    /// At once.
    pub burst: u32,
    /// What has a bucket of its own, always by rule and, but for `Rule`, by zone.
    pub per: Per,
}

/// A mark under a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkValue {
    /// Bits.
    pub value: u32,
    /// Which bits count.
    pub mask: u32,
}

impl MarkValue {
    /// Whether `mark` has this value under the mask.
    #[inline]
    pub fn is(self, mark: u32) -> bool {
        mark & self.mask == self.value
    }

    /// `mark` with the bits of the mask cleared and those of the value set.
    #[inline]
    pub fn apply(self, mark: u32) -> u32 {
        mark & !self.mask | self.value
    }
}

impl std::fmt::Display for MarkValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.mask {
            u32::MAX => write!(f, "{:#x}", self.value),
            mask => write!(f, "{:#x}/{mask:#x}", self.value),
        }
    }
}

/// Marks, any of which matches. A packet without a flow has none, and never matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkMatch {
    /// The marks.
    pub any: Vec<MarkValue>,
    /// Match flows of every other mark.
    pub negated: bool,
}

/// Bits of a flow's status, as policy asks for them (nftables: `ct status`).
pub mod flow_status {
    /// A packet went the other way.
    pub const SEEN_REPLY: u8 = 1;
    /// Worth keeping when the table is full.
    pub const ASSURED: u8 = 2;
    /// In the table; not yet while its first packet is judged.
    pub const CONFIRMED: u8 = 4;
    /// A helper expected it.
    pub const EXPECTED: u8 = 8;
}

/// Status bits, any of which matches. A packet without a flow never matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusMatch {
    /// Bits of [`flow_status`].
    pub mask: u8,
    /// Match flows that have none of them.
    pub negated: bool,
}

/// Helpers, any of which matches. A packet without a flow never matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HelperMatch {
    /// The helpers, a bit of `1 << index` each.
    pub mask: u16,
    /// Match flows that have none of them.
    pub negated: bool,
}

impl HelperMatch {
    /// Whether a flow with this helper matches.
    #[inline]
    pub fn is(self, helper: Option<HelperId>) -> bool {
        let any = helper.is_some_and(|id| self.mask >> id.index() & 1 == 1);
        any != self.negated
    }
}

/// A number of flows. Counted over the whole box; a packet without a flow never matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnLimit {
    /// Flows, the packet's own included.
    pub count: u32,
    /// Match when there are more, not when there are at most so many.
    pub over: bool,
    /// What is counted together.
    pub per: Per,
}

/// What a [`ConnLimit`] or a [`Limit`] counts together, always for its own rule and, but for `Rule`, by zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// Flows that were started, or packets that are sent, by one network.
    Source {
        /// Prefix length of IPv4 addresses.
        v4: u8,
        /// Prefix length of IPv6 addresses.
        v6: u8,
    },
    /// Flows that were started, or packets that are sent, to one network.
    Destination {
        /// Prefix length of IPv4 addresses.
        v4: u8,
        /// Prefix length of IPv6 addresses.
        v6: u8,
    },
    /// Flows, or packets, of one zone.
    Zone,
    /// All that came to the rule.
    Rule,
}
