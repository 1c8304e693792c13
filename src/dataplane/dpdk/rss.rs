//! Receive-side scaling: what a port is told, and what it makes of that.
//!
//! Every port is given the same key and a table that follows the owners of the buckets
//! ([`crate::dataplane::steer`]), and both are read back. Which kinds of packet it hashes then, and
//! whether any of that can be relied on, differs from NIC to NIC:
//!
//! - The algorithm is plain Toeplitz, which every NIC has, under a key that makes it symmetric. DPDK's
//!   `SYMMETRIC_TOEPLITZ` and its `_SORT` variant are not asked for: before 23.11 only flow rules can
//!   (here it is 22.11), models disagree about what they compute, and two ports must agree.
//! - Ports of TCP and UDP are hashed where the NIC can; of whatever else, and of fragments, addresses.
//! - Keys have 40 bytes, or as many as the NIC says. Tables have any size: entry `i` is the queue of
//!   bucket `i % 128`'s owner. In a smaller table buckets share entries; they are dealt out so that they
//!   share owners too, and such a table is not changed later.
//! - What the driver of a tap makes of a key is a flow rule that it does not use by itself: the kernel
//!   spreads packets its own way.
//!
//! Nothing here decides who owns a flow: a packet on another queue than its owner's is handed over.

use crate::base::toeplitz::SymmetricKey;
use crate::dataplane::rss::Kinds;
use crate::dataplane::steer::BUCKETS;
use dpdk_sys::{SW_RSS_KEY_MAX, sw_port_caps, sw_port_rss};
use std::mem::MaybeUninit;

/// Bytes of a key where the device does not say.
const KEY_LEN: u8 = 40;
/// Drivers that say that they hash, and leave it to somebody else.
const IN_NAME_ONLY: &[&str] = &["net_tap"];

/// The bits of `RTE_ETH_RSS_*` (`shim.c` asserts them), and what each means.
const KINDS: [(u64, Kinds, &str); 4] = [
    (1 << 4, Kinds::TCP4, "ipv4-tcp"),
    (1 << 5, Kinds::UDP4, "ipv4-udp"),
    (1 << 10, Kinds::TCP6, "ipv6-tcp"),
    (1 << 11, Kinds::UDP6, "ipv6-udp"),
];

/// How a port spreads packets over its queues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rss {
    /// What it hashes with ports, by the key that owners go by; none if it goes by another, or by none.
    pub kinds: Kinds,
    /// Entries of its table, which follows the owners; 0: it has none, or would not take it.
    pub table: u16,
    /// The same for people, with why.
    pub words: String,
}

impl Rss {
    fn without(why: &str) -> Self {
        Self {
            words: format!("none: {why}"),
            ..Self::default()
        }
    }

    /// Whether its table can follow buckets that move: each has entries of its own.
    pub(super) fn can_follow(&self) -> bool {
        usize::from(self.table) >= BUCKETS
    }
}

/// The key as a device with `caps` takes it.
pub(super) fn key(caps: &sw_port_caps, key: SymmetricKey) -> ([u8; SW_RSS_KEY_MAX as usize], u8) {
    let len = match caps.hash_key_size {
        0 => KEY_LEN,
        len => len.min(SW_RSS_KEY_MAX as u8),
    };
    (key.bytes(), len)
}

/// The queue of each entry of a table of `size` entries, on a port with `queues` queues of which worker
/// `w` has those that leave `w` when divided by `workers`. A worker without a queue gets its packets by
/// hand-over.
pub(super) fn table(owners: &[u8; BUCKETS], workers: usize, queues: u16, size: u16) -> Vec<u16> {
    let queues = usize::from(queues.max(1));
    let queue = |entry: usize| {
        let owner = usize::from(owners[entry % BUCKETS]);
        if owner >= queues {
            return (owner % queues) as u16;
        }
        // Those of its queues in turn.
        let own = (queues - owner).div_ceil(workers);
        (owner + entry / workers % own * workers) as u16
    };
    (0..usize::from(size)).map(queue).collect()
}

/// Tells the started port `id` the key and the table, and finds out what came of it.
pub(super) fn settle(
    id: u16,
    driver: &str,
    caps: &sw_port_caps,
    wanted: SymmetricKey,
    queues: u16,
    table: &[u16],
) -> Rss {
    if queues < 2 {
        return Rss::without("one receive queue");
    }
    if caps.rss_hf == 0 {
        return Rss::without("the device does not hash; packets are divided by software");
    }
    if IN_NAME_ONLY.contains(&driver) {
        return Rss::without("its driver leaves the choice of queues to the kernel");
    }
    let (bytes, len) = key(caps, wanted);
    let ours = |told: &sw_port_rss| {
        let len = usize::from(told.key_len.min(SW_RSS_KEY_MAX as u8));
        told.rss_hf != 0 && len > 0 && told.key[..len] == bytes[..len]
    };
    let mut told = ask(id);
    if !told.as_ref().is_some_and(ours) {
        // It may take at run time what it did not take when it was configured.
        let tell = sw_port_rss {
            rss_hf: caps.rss_hf,
            key_len: len,
            key: bytes,
        };
        // SAFETY: the shim checks the port, and reads a structure that is whole.
        let _ = unsafe { dpdk_sys::sw_port_rss_set(id, &tell) };
        told = ask(id);
    }
    let (kinds, proof) = match &told {
        Some(told) if ours(told) => (told.rss_hf, "the key is read back"),
        Some(told) if told.key_len > 0 => {
            return Rss::without("the device keeps a key of its own");
        }
        Some(told) => (told.rss_hf, "its key cannot be read back"),
        None => (caps.rss_hf, "its key cannot be read back"),
    };
    let (kinds, names) = hashed(kinds);
    if kinds.is_empty() {
        return Rss::without("the device does not hash ports of TCP or UDP");
    }
    let (size, follows) = match point(id, table) {
        Ok(()) if table.is_empty() => (0, "it has no table that could be set".to_owned()),
        Ok(()) => (table.len() as u16, format!("table of {}", table.len())),
        Err(why) => (0, format!("its table of {} {why}", table.len())),
    };
    Rss {
        kinds,
        table: size,
        words: format!("toeplitz, key of {len} bytes ({proof}), {names}, {follows}"),
    }
}

/// What the bits of `rss_hf` say of ports, for us and for people.
fn hashed(rss_hf: u64) -> (Kinds, String) {
    let has = KINDS.iter().filter(|(bit, ..)| rss_hf & bit != 0);
    let kinds = has
        .clone()
        .fold(Kinds::default(), |all, (_, kind, _)| all.and(*kind));
    let names: Vec<_> = has.map(|(.., name)| *name).collect();
    (kinds, names.join(" "))
}

/// What the port says of its hash.
fn ask(id: u16) -> Option<sw_port_rss> {
    let mut told = MaybeUninit::<sw_port_rss>::zeroed();
    // SAFETY: the shim fills the structure, and checks the port.
    let ret = unsafe { dpdk_sys::sw_port_rss(id, told.as_mut_ptr()) };
    // SAFETY: zeroed, plain numbers.
    let told = unsafe { told.assume_init() };
    (ret == 0).then_some(told)
}

/// Points the entries of the port's table to `queues`, and looks whether they do.
pub(super) fn point(id: u16, queues: &[u16]) -> Result<(), &'static str> {
    if queues.is_empty() {
        return Ok(());
    }
    let size = queues.len() as u16;
    // SAFETY: the shim checks the port, and reads `size` numbers.
    if unsafe { dpdk_sys::sw_port_reta_set(id, queues.as_ptr(), size) } != 0 {
        return Err("cannot be set");
    }
    let mut is = vec![0; queues.len()];
    // SAFETY: the shim writes `size` numbers.
    let ret = unsafe { dpdk_sys::sw_port_reta_get(id, is.as_mut_ptr(), size) };
    match ret {
        0 if is != queues => Err("is not as it was set"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_turn(workers: usize) -> [u8; BUCKETS] {
        std::array::from_fn(|bucket| (bucket % workers) as u8)
    }

    #[test]
    fn every_entry_is_a_queue_of_its_owner() {
        for size in [64, 128, 512] {
            for (workers, queues) in [(2, 2), (3, 3), (2, 5), (4, 2), (16, 16)] {
                let owners = in_turn(workers);
                let table = table(&owners, workers, queues, size);
                assert_eq!(table.len(), usize::from(size));
                for (entry, queue) in table.iter().enumerate() {
                    let owner = u16::from(owners[entry % BUCKETS]);
                    assert!(*queue < queues);
                    if owner < queues {
                        assert_eq!(queue % workers as u16, owner, "{size} {workers} {queues}");
                    }
                }
                let used: std::collections::BTreeSet<_> = table.iter().collect();
                assert_eq!(used.len(), usize::from(queues), "{size} {workers} {queues}");
            }
        }
    }

    #[test]
    fn kinds_have_their_bits() {
        assert_eq!(hashed(0).0, Kinds::default());
        assert_eq!(hashed(u64::MAX).0, Kinds::ALL);
        assert_eq!(hashed(1 << 5 | 1 << 10).1, "ipv4-udp ipv6-tcp");
    }
}
