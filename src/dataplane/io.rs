//! The fence between the packet path and whatever moves frames: DPDK ports, memory, captures.
//!
//! An [`Io`] belongs to one worker and is its view of all ports: the receive queues assigned to
//! it and a transmit queue of its own on every port. Nothing here is called more than once a
//! burst, except through the frame itself.

use super::rss::Kinds;
use crate::policy::PortId;
use crate::wire::Checksum;
use arrayvec::ArrayVec;

/// Frames in one burst.
pub const BURST: usize = 32;

/// Up to a burst of frames, in order.
pub type Batch<B> = ArrayVec<B, BURST>;

/// A frame in a buffer that its holder owns. Dropping it gives the buffer back.
pub trait Frame: Send + std::fmt::Debug {
    /// The first segment: all headers that are looked at lie in it.
    fn data(&self) -> &[u8];
    /// The same, to write.
    fn data_mut(&mut self) -> &mut [u8];
    /// Bytes of the whole frame, all segments.
    fn frame_len(&self) -> usize;
    /// What the port found out about the transport checksum.
    #[inline]
    fn l4_sum(&self) -> Checksum {
        Checksum::Unknown
    }
    /// The hash by which the port chose the queue, if it tells.
    #[inline]
    fn rss(&self) -> Option<u32> {
        None
    }
}

/// One worker's ports.
pub trait Io {
    /// The buffers that it deals in.
    type Buf: Frame;

    /// How many ports there are; `PortId`s run from zero.
    fn ports(&self) -> usize;

    /// What `port` hashes by the key that owners go by; nothing, if it spreads packets otherwise.
    fn hashes(&self, _port: PortId) -> Kinds {
        Kinds::default()
    }

    /// Appends what has arrived on this worker's queues of `port` to `out`, up to its capacity.
    fn rx(&mut self, port: PortId, out: &mut Batch<Self::Buf>);

    /// Sends from the front of `frames`; what the port would not take stays in it, in order.
    fn tx(&mut self, port: PortId, frames: &mut Batch<Self::Buf>);

    /// Gives the buffers back in one go.
    fn discard(&mut self, frames: &mut Batch<Self::Buf>) {
        frames.clear();
    }

    /// A fresh frame of `len` bytes, contents unspecified; `None` when no buffer is free.
    fn alloc(&mut self, len: usize) -> Option<Self::Buf>;
}
