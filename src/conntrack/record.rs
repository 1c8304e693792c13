//! A flow as it is shown: what listings, events and `replay` print. Made from an entry on
//! request; the packet path never does.

use super::entry::{Account, Entry, status};
use super::expect::Expectation;
use super::helper::Info;
use super::kin::About;
use super::sctp;
use super::tuple::{AnyKey, Key, Tuple};
use super::types::{SctpState, TcpState, proto};
use crate::base::time::{Now, Span, Ticks};
use crate::wire::Addrs;
use crate::wire::inner::Ports;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::net::IpAddr;

/// One flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRecord {
    /// Transport protocol number.
    pub proto: u8,
    /// The original direction.
    pub original: Endpoints,
    /// The reply direction.
    pub reply: Endpoints,
    /// Seconds until the flow ends, rounded down.
    pub timeout: u32,
    /// State of a TCP flow.
    pub tcp_state: Option<TcpState>,
    /// State of an SCTP flow.
    pub sctp_state: Option<SctpState>,
    /// The tags of an SCTP flow that packets of each direction must carry; 0 while unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sctp_vtags: Option<[u32; 2]>,
    /// Both directions were seen.
    pub seen_reply: bool,
    /// Kept under pressure.
    pub assured: bool,
    /// A helper expected it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expected: bool,
    /// The helper that listens to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub helper: Option<Cow<'static, str>>,
    /// The flow that announced it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<MasterRecord>,
    /// What each direction carried, if anything was counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<Counters>,
    /// When it began, in milliseconds since 1970, if that was remembered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ms: Option<u64>,
    /// When it ended, in an event that says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_ms: Option<u64>,
    /// Mark.
    pub mark: u32,
    /// Zone.
    pub zone: u16,
    /// The shard that owns it.
    pub shard: u16,
}

/// The flow that announced another, in its original direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterRecord {
    /// Transport protocol number.
    pub proto: u8,
    /// Its ends.
    #[serde(flatten)]
    pub ends: Endpoints,
}

impl From<Tuple> for MasterRecord {
    fn from(tuple: Tuple) -> Self {
        Self {
            proto: tuple.proto,
            ends: tuple.into(),
        }
    }
}

/// Milliseconds since the epoch of the clock.
fn millis(now: Now) -> u64 {
    now.nanos() / 1_000_000
}

/// What a flow carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// In the original direction.
    pub original: Carried,
    /// In the reply direction.
    pub reply: Carried,
}

/// What one direction carried, from the IP header on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Counters {
    /// `None` where nothing was counted: accounting was off while the flow lived.
    fn of(accounts: &[Account; 2]) -> Option<Self> {
        let [original, reply] = accounts.each_ref().map(|account| Carried {
            packets: account.packets(),
            bytes: account.bytes(),
        });
        (original.packets + reply.packets > 0).then_some(Self { original, reply })
    }
}

/// One direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Endpoints {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// What distinguishes flows between the two.
    #[serde(flatten)]
    pub detail: Detail,
}

/// Ports, or what stands for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Detail {
    /// Ports.
    Ports {
        /// Source port.
        sport: u16,
        /// Destination port.
        dport: u16,
    },
    /// ICMP type, code and identifier.
    Icmp {
        /// Type.
        #[serde(rename = "type")]
        ty: u8,
        /// Code.
        code: u8,
        /// Identifier.
        id: u16,
    },
    /// GRE: the ends of a PPTP call, or zeros.
    Gre {
        /// The sender's number for the call.
        srckey: u16,
        /// The receiver's.
        dstkey: u16,
    },
    /// A protocol with neither.
    None {},
}

impl From<Tuple> for Endpoints {
    fn from(tuple: Tuple) -> Self {
        let detail = match tuple.ports {
            Ports::Ports { sport, dport } => Detail::Ports { sport, dport },
            Ports::Icmp { ty, code, id } => Detail::Icmp { ty, code, id },
            Ports::Gre { srckey, dstkey } => Detail::Gre { srckey, dstkey },
            Ports::None => Detail::None {},
        };
        let addrs: Addrs = tuple.addrs;
        Self {
            src: addrs.src(),
            dst: addrs.dst(),
            detail,
        }
    }
}

/// An expectation as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectRecord {
    /// Transport protocol number.
    pub proto: u8,
    /// Who is expected, and where; what may be anything is zero, or the unspecified address.
    pub expected: Endpoints,
    /// From any address.
    pub any_src: bool,
    /// From any port.
    pub any_sport: bool,
    /// The flow that announced it.
    pub master: MasterRecord,
    /// Seconds until it ends, rounded down.
    pub timeout: u32,
    /// The helper that made it.
    pub helper: Cow<'static, str>,
    /// Its class: the number, and the name that the helper has for it.
    pub class: u8,
    /// The name of its class.
    pub class_name: Cow<'static, str>,
    /// It lasts until its time is over.
    pub permanent: bool,
    /// It does not count yet.
    pub inactive: bool,
    /// The mark that the flow will have.
    pub mark: u32,
    /// Zone.
    pub zone: u16,
    /// The shard that owns the flow that announced it.
    pub shard: u16,
}

impl ExpectRecord {
    /// Of `it` at `now`; `info` describes its helper.
    pub fn new(it: &Expectation, info: Option<&'static Info>, now: Ticks) -> Self {
        let class = info.and_then(|info| info.classes.get(usize::from(it.class)));
        let expected = Tuple {
            addrs: it.addrs,
            proto: it.proto,
            ports: Ports::Ports {
                sport: it.sport.unwrap_or(0),
                dport: it.dport,
            },
            zone: it.zone,
        };
        Self {
            proto: it.proto,
            expected: expected.into(),
            any_src: it.any_src,
            any_sport: it.sport.is_none(),
            master: it.master.into(),
            timeout: it.left(now).as_secs(),
            helper: info.map_or("", |info| info.name).into(),
            class: it.class,
            class_name: class.map_or("", |class| class.name).into(),
            permanent: it.permanent,
            inactive: it.inactive,
            mark: it.mark,
            zone: it.zone,
            shard: it.shard,
        }
    }
}

/// What is shown of an entry, copied at one moment: of a fixed size, so that a worker can hand it
/// over.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    key: AnyKey,
    account: [Account; 2],
    date: Option<Now>,
    left: Span,
    mark: u32,
    tcp_state: TcpState,
    sctp: Option<(SctpState, [u32; 2])>,
    status: u8,
    shard: u16,
    about: About,
}

impl Snapshot {
    /// Of `entry` at `now`; `about` is what it has beside it.
    pub fn of<K: Key>(entry: &Entry<K>, now: Ticks, shard: u16, about: About) -> Self {
        let Entry { key, core, rest } = entry;
        Self {
            key: (*key).into(),
            account: rest.account,
            date: rest.date(),
            left: now.until(core.deadline),
            mark: rest.mark,
            tcp_state: core.tcp_state,
            sctp: (key.proto() == proto::SCTP).then(|| (sctp::state(core), sctp::vtags(core))),
            status: core.status,
            shard,
            about,
        }
    }

    /// The transport protocol.
    pub fn proto(&self) -> u8 {
        match &self.key {
            AnyKey::V4(key) => key.proto(),
            AnyKey::V6(key) => key.proto(),
        }
    }

    /// Its mark.
    pub fn mark(&self) -> u32 {
        self.mark
    }

    /// The name of the helper that listens to it.
    pub fn helper(&self) -> Option<&'static str> {
        self.about.helper
    }

    /// Whether it is an IPv6 flow.
    pub fn is_v6(&self) -> bool {
        matches!(self.key, AnyKey::V6(_))
    }

    /// The record. Its dates count from the epoch of the shard's clock, until
    /// [`FlowRecord::dated`].
    pub fn record(&self) -> FlowRecord {
        let from_lo = match &self.key {
            AnyKey::V4(key) => key.lo_tuple(),
            AnyKey::V6(key) => key.lo_tuple(),
        };
        let from_hi = from_lo.reversed().unwrap_or(from_lo);
        let has = |bit| self.status & bit != 0;
        let (original, reply) = if has(status::ORIGINAL_IS_LO) {
            (from_lo, from_hi)
        } else {
            (from_hi, from_lo)
        };
        FlowRecord {
            proto: from_lo.proto,
            original: original.into(),
            reply: reply.into(),
            timeout: self.left.as_secs(),
            tcp_state: (from_lo.proto == proto::TCP).then_some(self.tcp_state),
            sctp_state: self.sctp.map(|(state, _)| state),
            sctp_vtags: self.sctp.map(|(_, vtags)| vtags),
            seen_reply: has(status::SEEN_REPLY),
            assured: has(status::ASSURED),
            expected: has(status::EXPECTED),
            helper: self.about.helper.map(Cow::Borrowed),
            master: self.about.master.map(MasterRecord::from),
            counters: Counters::of(&self.account),
            start_ms: self.date.map(millis),
            stop_ms: None,
            mark: self.mark,
            zone: from_lo.zone,
            shard: self.shard,
        }
    }
}

impl FlowRecord {
    /// Dates it by the wall clock: the shard's clock began `epoch_ms` milliseconds after 1970.
    pub fn dated(mut self, epoch_ms: u64) -> Self {
        for date in [&mut self.start_ms, &mut self.stop_ms] {
            *date = date.map(|date| date + epoch_ms);
        }
        self
    }

    /// Whether it is an IPv6 flow.
    pub fn is_v6(&self) -> bool {
        self.original.src.is_ipv6()
    }

    /// A number that stands for the flow while it lives: a hash (FNV-1a) of its original direction and
    /// zone, so that of many flows two may have the same. One that begins anew in the same words has
    /// the number that it had.
    pub fn id(&self) -> u32 {
        let ends = &self.original;
        let addr = |addr: IpAddr| match addr {
            IpAddr::V4(addr) => u128::from(addr.to_bits()),
            IpAddr::V6(addr) => addr.to_bits(),
        };
        let (first, second) = match ends.detail {
            Detail::Ports { sport, dport } => (sport, dport),
            Detail::Icmp { ty, code, id } => (id, u16::from_be_bytes([ty, code])),
            Detail::Gre { srckey, dstkey } => (srckey, dstkey),
            Detail::None {} => (0, 0),
        };
        let (src, dst) = (addr(ends.src), addr(ends.dst));
        let rest = u64::from(first) << 48
            | u64::from(second) << 32
            | u64::from(self.zone) << 16
            | u64::from(self.proto);
        let words = [
            (src >> 64) as u64,
            src as u64,
            (dst >> 64) as u64,
            dst as u64,
            rest,
        ];
        let bytes = words.into_iter().flat_map(u64::to_be_bytes);
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        (hash >> 32) as u32 ^ hash as u32
    }
}
