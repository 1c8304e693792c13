//! Buffers: the pool that they come from, and the buffer as a value that one holder owns.
//!
//! # Life-cycle
//! A pool is made for a NUMA node when the ports open. An [`Mbuf`] comes out of it (by reception
//! or [`Mempool::alloc`]), moves with its holder, and goes back when it is dropped, discarded or
//! sent. A pool that ends while buffers are out is left in place, and DPDK with it, so that an
//! [`Mbuf`] is valid however long somebody holds it.
//!
//! # Concurrency
//! A pool is safe to use from every thread; one that is registered has a cache in front of it.
//! An [`Mbuf`] is not shared: it is no `Clone`, and its reference count is one.

use super::eal::Eal;
use super::error::{DpdkError, Log, errno, reason};
use crate::dataplane::io::Frame;
use crate::wire::Checksum;
use dpdk_sys::{rte_mbuf, rte_mempool};
use std::ffi::CString;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes in front of the data.
pub const HEADROOM: u16 = dpdk_sys::RTE_PKTMBUF_HEADROOM as u16;
/// Bytes in a buffer: a frame of the usual MTU with room to spare, and the headroom.
pub const DATA_ROOM: u16 = 2048 + HEADROOM;
/// Buffers in a thread's cache.
pub(super) const CACHE: u32 = 256;

/// Bytes that a buffer costs beyond its data: its header, the pool's, and its place in the ring.
const OVERHEAD: u64 = 128 + 64 + 16;
/// An ordinary page.
const PAGE: u64 = 4096;
/// What the devices' rings and DPDK itself take.
const MARGIN_MB: u32 = 48;

/// Memory for a pool of this many buffers, in MB. Without hugepages no buffer crosses a page, so
/// that the usual one takes a whole page.
#[must_use]
pub fn pool_mb(mbufs: u32, data_room: u16, hugepages: bool) -> u32 {
    let one = u64::from(data_room) + OVERHEAD;
    let one = if hugepages {
        one
    } else {
        one.next_multiple_of(PAGE)
    };
    let mb = (u64::from(mbufs) * one).div_ceil(1 << 20);
    u32::try_from(mb).unwrap_or(u32::MAX)
}

/// Memory for so many pools of so many buffers and for the rest of DPDK, in MB.
#[must_use]
pub fn memory_mb(mbufs: u32, data_room: u16, pools: u32, hugepages: bool) -> u32 {
    let each = pool_mb(mbufs, data_room, hugepages);
    each.saturating_mul(pools.max(1)).saturating_add(MARGIN_MB)
}

/// A pool of buffers on one NUMA node.
#[derive(Debug)]
pub struct Mempool {
    raw: NonNull<rte_mempool>,
    size: u32,
    data_room: u16,
    socket: Option<u32>,
    eal: Eal,
}

// SAFETY: DPDK's pools may be used from any thread.
unsafe impl Send for Mempool {}
// SAFETY: the ring behind the pool is multi-producer and multi-consumer, and a cache is one
// thread's own.
unsafe impl Sync for Mempool {}

impl Mempool {
    /// Makes a pool of `mbufs` buffers of `data_room` bytes (headroom included) on a node, or
    /// where there is memory.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn new(
        eal: &Eal,
        mbufs: u32,
        data_room: u16,
        socket: Option<u32>,
    ) -> Result<Self, DpdkError> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // Room for the headers that are looked at, whatever was asked for.
        let data_room = data_room.max(HEADROOM + 512);
        let name = format!("sw-mbufs-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let name = CString::new(name).map_err(|e| DpdkError::BadText(e.to_string()))?;
        // DPDK wants one and a half caches in the pool.
        let cache = CACHE
            .min(mbufs / 2)
            .min(dpdk_sys::RTE_MEMPOOL_CACHE_MAX_SIZE);
        let node = socket.map_or(-1, u32::cast_signed);
        Log::begin();
        // SAFETY: DPDK runs; the name is copied; every number is checked by DPDK.
        let raw = unsafe {
            dpdk_sys::rte_pktmbuf_pool_create(name.as_ptr(), mbufs, cache, 0, data_room, node)
        };
        let Some(raw) = NonNull::new(raw) else {
            return Err(DpdkError::Pool {
                mbufs,
                room: data_room,
                mb: pool_mb(mbufs, data_room, eal.hugepages()),
                reason: reason(errno()),
                advice: if eal.hugepages() {
                    "reserve more hugepages on the NIC's NUMA node: vm.nr_hugepages"
                } else {
                    "raise `system.memory`"
                },
                log: Log::take(),
            });
        };
        Ok(Self {
            raw,
            size: mbufs,
            data_room,
            socket,
            eal: eal.clone(),
        })
    }

    /// A buffer with a frame of `len` bytes, contents unspecified; `None` when the pool is empty
    /// or a buffer is too small.
    #[inline]
    #[must_use]
    pub fn alloc(&self, len: usize) -> Option<Mbuf> {
        let len = u16::try_from(len)
            .ok()
            .filter(|&l| l <= self.data_room - HEADROOM)?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the pool lives, and there is room for the one pointer.
        let ret = unsafe { dpdk_sys::sw_pktmbuf_alloc_bulk(self.raw.as_ptr(), &mut raw, 1) };
        if ret != 0 {
            return None;
        }
        let mut mbuf = Mbuf(NonNull::new(raw)?);
        let header = mbuf.header_mut();
        header.data_len = len;
        header.pkt_len = u32::from(len);
        Some(mbuf)
    }

    /// How many buffers there are.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Bytes in each, headroom included.
    #[must_use]
    pub fn data_room(&self) -> u16 {
        self.data_room
    }

    /// The NUMA node, if one was asked for.
    #[must_use]
    pub fn socket(&self) -> Option<u32> {
        self.socket
    }

    /// Buffers that are out: held by somebody, or in a device's rings. Walks all caches: for
    /// metrics, not for the packet path.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        // SAFETY: the pool lives.
        unsafe { dpdk_sys::rte_mempool_in_use_count(self.raw.as_ptr()) }
    }

    pub(super) fn as_ptr(&self) -> *mut rte_mempool {
        self.raw.as_ptr()
    }
}

impl Drop for Mempool {
    fn drop(&mut self) {
        let out = self.in_use();
        if out > 0 {
            tracing::warn!(
                buffers = out,
                "buffers are still in use: their pool is left in place"
            );
            self.eal.leak();
            return;
        }
        // SAFETY: every buffer is back, and nobody else has the pool.
        unsafe { dpdk_sys::rte_mempool_free(self.raw.as_ptr()) }
    }
}

/// The receive flag of a hash that was told (`RTE_MBUF_F_RX_RSS_HASH`; `shim.c` asserts it).
const HASHED: u64 = 1 << 1;
/// Receive flags of the transport checksum (`RTE_MBUF_F_RX_L4_CKSUM_*`; `shim.c` asserts them).
const SUM_BAD: u64 = 1 << 3;
const SUM_GOOD: u64 = 1 << 8;
const SUM_MASK: u64 = SUM_BAD | SUM_GOOD;

/// What receive flags say of the transport checksum. Both: right where it came from, but not in the frame,
/// and so not where it goes to.
#[inline(always)]
const fn sum(flags: u64) -> Checksum {
    match flags & SUM_MASK {
        SUM_GOOD => Checksum::Good,
        SUM_BAD => Checksum::Bad,
        _ => Checksum::Unknown,
    }
}

/// A buffer with a frame in it. Dropping it gives it back to its pool.
///
/// It is the pointer alone: an array of these is what DPDK's bursts take and fill.
#[derive(Debug)]
#[repr(transparent)]
pub struct Mbuf(NonNull<rte_mbuf>);

// SAFETY: a buffer has one holder, and pools take buffers back from any thread.
unsafe impl Send for Mbuf {}
// SAFETY: through a shared reference it is only read.
unsafe impl Sync for Mbuf {}

impl Mbuf {
    #[inline]
    fn header(&self) -> &rte_mbuf {
        // SAFETY: the holder owns the buffer, and its pool stays mapped while it is out.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    fn header_mut(&mut self) -> &mut rte_mbuf {
        // SAFETY: as above, and `self` is borrowed alone.
        unsafe { self.0.as_mut() }
    }

    #[inline]
    fn start(&self) -> *mut u8 {
        let header = self.header();
        // SAFETY: DPDK and `alloc` keep the data inside the buffer.
        unsafe {
            header
                .buf_addr
                .cast::<u8>()
                .add(usize::from(header.data_off))
        }
    }

    /// Buffers in the frame's chain.
    #[inline]
    #[must_use]
    pub fn segments(&self) -> u16 {
        self.header().nb_segs
    }
}

impl Frame for Mbuf {
    #[inline]
    fn data(&self) -> &[u8] {
        // SAFETY: `data_len` bytes from the start lie in the buffer, which `self` owns; the pool's
        // memory was mapped by the kernel and holds some value everywhere.
        unsafe { slice::from_raw_parts(self.start(), usize::from(self.header().data_len)) }
    }

    #[inline]
    fn data_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed alone.
        unsafe { slice::from_raw_parts_mut(self.start(), usize::from(self.header().data_len)) }
    }

    #[inline]
    fn frame_len(&self) -> usize {
        self.header().pkt_len as usize
    }

    #[inline]
    fn l4_sum(&self) -> Checksum {
        sum(self.header().ol_flags)
    }

    #[inline]
    fn rss(&self) -> Option<u32> {
        let header = self.header();
        (header.ol_flags & HASHED != 0).then_some(header.rss)
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        let mut raw = self.0.as_ptr();
        // SAFETY: one pointer, to a buffer that `self` owned and that nobody sees again.
        unsafe { dpdk_sys::sw_pktmbuf_free_bulk(&mut raw, 1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_of_buffers_is_an_array_of_pointers() {
        assert_eq!(size_of::<Mbuf>(), size_of::<*mut rte_mbuf>());
        assert_eq!(size_of::<Option<Mbuf>>(), size_of::<*mut rte_mbuf>());
    }

    #[test]
    fn only_a_checksum_that_is_in_the_frame_is_good() {
        assert_eq!(sum(0), Checksum::Unknown);
        assert_eq!(sum(SUM_GOOD | HASHED), Checksum::Good);
        assert_eq!(sum(SUM_BAD), Checksum::Bad);
        assert_eq!(sum(SUM_GOOD | SUM_BAD), Checksum::Unknown);
    }

    #[test]
    fn memory_is_that_of_the_buffers_and_a_margin() {
        assert_eq!(pool_mb(65_536, DATA_ROOM, true), 149);
        assert_eq!(pool_mb(65_536, DATA_ROOM, false), 256);
        assert_eq!(memory_mb(65_536, DATA_ROOM, 2, true), 2 * 149 + MARGIN_MB);
        assert_eq!(memory_mb(u32::MAX, u16::MAX, 999, true), u32::MAX);
    }
}
