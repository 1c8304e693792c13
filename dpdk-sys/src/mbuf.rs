//! The view of an mbuf: the fields that the packet path reads and writes.

use crate::bindings::rte_mempool;
use std::ffi::c_void;

/// A packet buffer's header: the first of its two cache lines by field, the second unseen.
///
/// `shim.c` asserts every offset against the release that is compiled against.
#[allow(non_camel_case_types)]
#[repr(C, align(64))]
#[derive(Debug)]
pub struct rte_mbuf {
    /// Where the buffer starts: headroom, data, tailroom.
    pub buf_addr: *mut c_void,
    iova_or_next: u64,
    /// Where in the buffer the data starts.
    pub data_off: u16,
    /// References; the packet path only ever holds one.
    pub refcnt: u16,
    /// Buffers in the chain that this one heads.
    pub nb_segs: u16,
    /// The DPDK port that it came from.
    pub port: u16,
    /// Offload flags.
    pub ol_flags: u64,
    /// What the NIC says that it is.
    pub packet_type: u32,
    /// Bytes of the frame, all segments.
    pub pkt_len: u32,
    /// Bytes in this segment.
    pub data_len: u16,
    /// The tag that the NIC took off, if a flag says that it did.
    pub vlan_tci: u16,
    /// The NIC's hash, if a flag says that it is one.
    pub rss: u32,
    hash_hi: u32,
    /// The outer tag, likewise.
    pub vlan_tci_outer: u16,
    /// Bytes of the buffer.
    pub buf_len: u16,
    /// Where it goes back to.
    pub pool: *mut rte_mempool,
    second_line: [u8; 64],
}

#[cfg(test)]
mod tests {
    use super::rte_mbuf;
    use std::mem::{align_of, offset_of, size_of};

    #[test]
    fn the_view_lies_where_shim_c_asserts_the_fields() {
        assert_eq!(size_of::<rte_mbuf>(), 128);
        assert_eq!(align_of::<rte_mbuf>(), 64);
        let at = [
            (offset_of!(rte_mbuf, buf_addr), 0),
            (offset_of!(rte_mbuf, data_off), 16),
            (offset_of!(rte_mbuf, refcnt), 18),
            (offset_of!(rte_mbuf, nb_segs), 20),
            (offset_of!(rte_mbuf, port), 22),
            (offset_of!(rte_mbuf, ol_flags), 24),
            (offset_of!(rte_mbuf, packet_type), 32),
            (offset_of!(rte_mbuf, pkt_len), 36),
            (offset_of!(rte_mbuf, data_len), 40),
            (offset_of!(rte_mbuf, vlan_tci), 42),
            (offset_of!(rte_mbuf, rss), 44),
            (offset_of!(rte_mbuf, vlan_tci_outer), 52),
            (offset_of!(rte_mbuf, buf_len), 54),
            (offset_of!(rte_mbuf, pool), 56),
            (offset_of!(rte_mbuf, second_line), 64),
        ];
        for (found, expected) in at {
            assert_eq!(found, expected);
        }
    }
}
