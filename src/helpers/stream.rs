//! One direction of a control stream, cut into lines.

use super::{Lines, Memory};
use crate::conntrack::helper::{Context, Heard};
use zerocopy::FromZeros;

/// One direction of a stream.
#[derive(Clone, Debug, FromZeros)]
#[repr(C)]
pub struct Stream {
    next: u32,
}

impl Stream {
    /// Takes the segment `payload` that begins at `seq`.
    pub fn feed(
        &mut self,
        lines: &Lines,
        context: &Context,
        memory: &mut Memory,
        seq: u32,
        payload: &[u8],
        heard: &mut Heard,
    ) {
        let _ = (lines, context, memory, seq, payload, heard, self.next);
    }
}
