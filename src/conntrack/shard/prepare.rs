//! The first two stages: what a packet is about, and its bucket and entry on their way into the cache.

use super::Shard;
use crate::conntrack::icmp::{self, Role};
use crate::conntrack::tuple::{AnyKey, KeyV4, Tuple};
use crate::wire::{self, Addrs, L4, Parsed};

/// A packet after the first stage.
#[derive(Clone, Copy, Debug)]
pub struct Prepared {
    /// Meaningful for [`Subject::Flow`] and [`Subject::Error`].
    pub(super) key: AnyKey,
    pub(super) hash: u64,
    /// What the second stage found.
    pub(super) candidate: u32,
    pub(super) subject: Subject,
    pub(super) from_lo: bool,
}

/// No candidate.
const NOTHING: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// Belongs to the flow with the key.
    Flow,
    /// Is an error about the flow with the key.
    Error,
    /// An error that quotes nothing readable, or goes to another host than the quoted sender.
    BadError,
    /// Is never tracked.
    Untracked,
    /// Identifies nothing.
    Unknown,
}

impl Prepared {
    /// The key that decides which shard owns the packet; `None` where any may judge it.
    #[inline]
    pub fn key(&self) -> Option<&AnyKey> {
        matches!(self.subject, Subject::Flow | Subject::Error).then_some(&self.key)
    }

    /// Whether the packet is an error about the flow with the key: its own addresses are others.
    #[inline]
    pub fn is_error(&self) -> bool {
        self.subject == Subject::Error
    }
}

impl Shard {
    /// First stage: what the packet is about, and where its bucket lies. `data` is the frame.
    #[inline]
    pub fn prepare(&self, data: &[u8], parsed: &Parsed, zone: u16) -> Prepared {
        let mut prepared = Prepared::NOTHING;
        self.prepare_into(&mut prepared, data, parsed, zone);
        prepared
    }

    /// [`Shard::prepare`] in place: a result of this size is not moved for nothing.
    #[inline(always)]
    pub fn prepare_into(&self, out: &mut Prepared, data: &[u8], parsed: &Parsed, zone: u16) {
        let (sport, dport) = match parsed.l4 {
            L4::Tcp(ref tcp) => (tcp.sport, tcp.dport),
            L4::Udp { sport, dport } => (sport, dport),
            _ => {
                *out = self.prepare_any(data, parsed, zone);
                return;
            }
        };
        let Addrs::V4 { src, dst } = parsed.addrs else {
            *out = self.prepare_any(data, parsed, zone);
            return;
        };
        let (key, from_lo) = KeyV4::of_ports((src, sport), (dst, dport), parsed.proto, zone);
        let hash = self.v4.hash(&key);
        self.v4.prefetch_bucket(hash);
        *out = Prepared {
            key: AnyKey::V4(key),
            hash,
            candidate: NOTHING,
            subject: Subject::Flow,
            from_lo,
        };
    }

    /// Every kind of packet.
    #[inline(never)]
    fn prepare_any(&self, data: &[u8], parsed: &Parsed, zone: u16) -> Prepared {
        let subject = match parsed.l4 {
            L4::Icmp { .. } => return self.prepare_icmp(data, parsed, zone),
            L4::None | L4::Bad => Subject::Unknown,
            _ => Subject::Flow,
        };
        match Tuple::of(parsed, zone).and_then(|tuple| tuple.key()) {
            Some(found) => self.prepared(subject, found),
            None => Prepared::about(Subject::Unknown),
        }
    }

    #[inline(never)]
    fn prepare_icmp(&self, data: &[u8], parsed: &Parsed, zone: u16) -> Prepared {
        let L4::Icmp { ty, .. } = parsed.l4 else {
            return Prepared::about(Subject::Unknown);
        };
        let (subject, tuple, otherwise) = match icmp::role(parsed.proto, ty) {
            Role::Request | Role::Reply => {
                (Subject::Flow, Tuple::of(parsed, zone), Subject::Unknown)
            }
            Role::Error => (
                Subject::Error,
                quoted(data, parsed, zone),
                Subject::BadError,
            ),
            Role::Discovery => (Subject::Untracked, None, Subject::Untracked),
            Role::Other => (Subject::Unknown, None, Subject::Unknown),
        };
        match tuple.and_then(|tuple| tuple.key()) {
            Some(found) => self.prepared(subject, found),
            None => Prepared::about(otherwise),
        }
    }

    /// What is known of a packet with a key; its bucket is asked for.
    #[inline(always)]
    fn prepared(&self, subject: Subject, (key, from_lo): (AnyKey, bool)) -> Prepared {
        let hash = match &key {
            AnyKey::V4(key) => {
                let hash = self.v4.hash(key);
                self.v4.prefetch_bucket(hash);
                hash
            }
            AnyKey::V6(key) => {
                let hash = self.v6.hash(key);
                self.v6.prefetch_bucket(hash);
                hash
            }
        };
        Prepared {
            key,
            hash,
            candidate: NOTHING,
            subject,
            from_lo,
        }
    }

    /// Second stage: looks into the bucket and asks for the entry.
    #[inline]
    pub fn prefetch(&self, prepared: &mut Prepared) {
        let candidate = match prepared.key() {
            Some(AnyKey::V4(_)) => self.v4.prefetch_entry(prepared.hash),
            Some(AnyKey::V6(_)) => self.v6.prefetch_entry(prepared.hash),
            None => None,
        };
        prepared.candidate = candidate.unwrap_or(NOTHING);
    }
}

impl Prepared {
    /// What a slot holds before its first packet.
    pub const NOTHING: Self = Self::about(Subject::Unknown);

    const fn about(subject: Subject) -> Self {
        Self {
            key: AnyKey::NONE,
            hash: 0,
            candidate: NOTHING,
            subject,
            from_lo: false,
        }
    }
}

/// The tuple whose flow an ICMP error is about: what answers the quoted packet. The error must go
/// to the host that sent that packet, or anybody could claim to be RELATED.
#[cold]
fn quoted(data: &[u8], parsed: &Parsed, zone: u16) -> Option<Tuple> {
    if !icmp::may_quote(parsed) {
        return None;
    }
    let inner = wire::inner(data, parsed)?;
    let tuple = Tuple::quoted(&inner, zone).reversed()?;
    (tuple.addrs.dst() == parsed.addrs.dst()).then_some(tuple)
}
