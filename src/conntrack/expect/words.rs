//! An expectation as the words of a note: all of it, so that whoever takes the note needs nothing
//! else. Pure.

use super::Expectation;
use crate::base::board::Note;
use crate::base::hash::HashKey;
use crate::base::time::Ticks;
use crate::conntrack::helper::{HelperId, Permissions};
use crate::conntrack::tuple::{Destination, Tuple};
use crate::wire::Addrs;
use crate::wire::inner::Ports;

/// Words of a note.
pub(super) const WORDS: usize = 12;
/// The word that changes while a note is posted: the deadline and the mark.
pub(super) const LIFE: usize = 6;

const V6: u64 = 1;
const ANY_SRC: u64 = 2;
const ANY_SPORT: u64 = 4;
const PERMANENT: u64 = 8;
const INHERIT: u64 = 16;
const MASTER_V6: u64 = 32;
const LOOSE: u64 = 64;
const LOW_PORTS: u64 = 128;

/// Where an expectation is looked for: by its destination, which every expectation has in full.
#[inline]
pub(super) fn hash(secret: &HashKey, to: &Destination) -> u64 {
    let Destination {
        addr: [high, low],
        port,
        proto,
        zone,
    } = *to;
    let rest = u64::from(port) << 32 | u64::from(zone) << 16 | u64::from(proto) << 8;
    secret.hash5([high, low, rest, 0, 0])
}

/// Where an expected flow goes.
pub(super) fn destination(it: &Expectation) -> Destination {
    let [_, _, high, low] = halves(it.addrs);
    Destination {
        addr: [high, low],
        port: it.dport,
        proto: it.proto,
        zone: it.zone,
    }
}

/// The word at [`LIFE`].
pub(super) fn life(deadline: Ticks, mark: u32) -> u64 {
    u64::from(deadline.0) << 32 | u64::from(mark)
}

/// Source and destination in two words each.
fn halves(addrs: Addrs) -> [u64; 4] {
    let (src, dst) = match addrs {
        Addrs::V4 { src, dst } => (src.into(), dst.into()),
        Addrs::V6 { src, dst } => (src, dst),
    };
    [
        (src >> 64) as u64,
        src as u64,
        (dst >> 64) as u64,
        dst as u64,
    ]
}

fn whole([src_high, src_low, dst_high, dst_low]: [u64; 4], v6: bool) -> Addrs {
    if !v6 {
        return Addrs::V4 {
            src: src_low as u32,
            dst: dst_low as u32,
        };
    }
    let join = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
    Addrs::V6 {
        src: join(src_high, src_low),
        dst: join(dst_high, dst_low),
    }
}

/// The words of `expectation`; whether it is inactive is not in them.
pub(super) fn write(expectation: &Expectation) -> [u64; WORDS] {
    let it = expectation;
    let flag = |is: bool, bit: u64| if is { bit } else { 0 };
    let is_v6 = |addrs: Addrs| matches!(addrs, Addrs::V6 { .. });
    let flags = flag(is_v6(it.addrs), V6)
        | flag(it.any_src, ANY_SRC)
        | flag(it.sport.is_none(), ANY_SPORT)
        | flag(it.permanent, PERMANENT)
        | flag(it.inherit, INHERIT)
        | flag(is_v6(it.master.addrs), MASTER_V6)
        | flag(it.permissions.loose, LOOSE)
        | flag(it.permissions.low_ports, LOW_PORTS);
    let [a, b, c, d] = halves(it.addrs);
    let [e, f, g, h] = halves(it.master.addrs);
    let ports = |sport: u16, dport: u16| u64::from(sport) << 48 | u64::from(dport) << 32;
    let (sport, dport) = match it.master.ports {
        Ports::Ports { sport, dport } => (sport, dport),
        _ => (0, 0),
    };
    [
        a,
        b,
        c,
        d,
        ports(it.sport.unwrap_or(0), it.dport)
            | u64::from(it.zone) << 16
            | u64::from(it.proto) << 8
            | flags,
        ports(sport, dport)
            | u64::from(it.shard) << 16
            | u64::from(it.helper.number()) << 8
            | u64::from(it.class & 7) << 5,
        life(it.deadline, it.mark),
        e,
        f,
        g,
        h,
        u64::from(it.master.proto),
    ]
}

/// What is on a note; `None` if it was never written.
#[inline]
pub(super) fn read(note: &Note<WORDS>) -> Option<Expectation> {
    decode(note.words())
}

/// What [`write()`] made words of.
#[inline]
pub(super) fn decode(words: [u64; WORDS]) -> Option<Expectation> {
    let [a, b, c, d, what, who, life, e, f, g, h, proto] = words;
    let has = |bit| what & bit != 0;
    let zone = (what >> 16) as u16;
    Some(Expectation {
        addrs: whole([a, b, c, d], has(V6)),
        any_src: has(ANY_SRC),
        sport: (!has(ANY_SPORT)).then_some((what >> 48) as u16),
        dport: (what >> 32) as u16,
        proto: (what >> 8) as u8,
        zone,
        helper: HelperId::of_number((who >> 8) as u8)?,
        class: (who >> 5) as u8 & 7,
        permanent: has(PERMANENT),
        inactive: false,
        inherit: has(INHERIT),
        permissions: Permissions {
            loose: has(LOOSE),
            low_ports: has(LOW_PORTS),
        },
        mark: life as u32,
        deadline: Ticks((life >> 32) as u32),
        master: Tuple {
            addrs: whole([e, f, g, h], has(MASTER_V6)),
            proto: proto as u8,
            ports: Ports::Ports {
                sport: (who >> 48) as u16,
                dport: (who >> 32) as u16,
            },
            zone,
        },
        shard: (who >> 16) as u16,
    })
}
