//! The SCTP tracker: a transition table of chunks, and the rules of verification tags
//! (RFC 9260 8.5).
//!
//! [`open`] judges the first packet of a flow, [`packet`] every later one. Both walk a packet's
//! chunks twice: to see what is bundled with what, then to move the flow, chunk by chunk. A chunk
//! that is refused makes the packet INVALID, but what the chunks before it did stays done. The
//! order of the tests is that of Linux 6.12 `nf_conntrack_sctp_packet`.
//!
//! A flow keeps one [`Peer`] a direction, in the bytes where a TCP flow keeps its windows.

use super::config::Timeouts;
use super::entry::{Core, status};
use super::tcp::Outcome;
use super::types::{Dir, SctpState};
use super::why::Why;
use crate::wire::Parsed;
use crate::wire::sctp::{Chunk, Chunks, HEADER_LEN, chunk};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// What is remembered of one direction of an association; lies where a TCP flow has its
/// [`super::entry::Seen`], and leaves that one's room for a remembered verdict alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Peer {
    /// The tag that packets of this direction must carry; 0 while unknown.
    pub vtag: u32,
    unused: [u32; 3],
    /// Number of the association's state; only the original direction's counts.
    state: u8,
    /// Bits of [`peer_flags`].
    pub flags: u8,
    reserved: u16,
}

/// Bits of [`Peer::flags`].
pub mod peer_flags {
    /// An INIT went this way, and none the other way since both had sent one.
    pub const INIT: u8 = 1;
    /// The last HEARTBEAT that went this way had a tag that nobody knows, and no answer yet.
    pub const HEARTBEAT_IN_DOUBT: u8 = 2;
}

/// What a chunk does to an association, by direction, class of chunk and state. RFC 9260 4 seen
/// from the middle; Linux 6.12 `sctp_conntracks`. `IV`: impossible.
const TRANSITIONS: [[[u8; SctpState::COUNT]; CLASSES]; 2] = {
    const CL: u8 = SctpState::Closed as u8;
    const CW: u8 = SctpState::CookieWait as u8;
    const CE: u8 = SctpState::CookieEchoed as u8;
    const ES: u8 = SctpState::Established as u8;
    const SS: u8 = SctpState::ShutdownSent as u8;
    const SR: u8 = SctpState::ShutdownRecd as u8;
    const SA: u8 = SctpState::ShutdownAckSent as u8;
    const HS: u8 = SctpState::HeartbeatSent as u8;
    const IV: u8 = INVALID;
    [
        // original: NONE, CLOSED, COOKIE_WAIT, COOKIE_ECHOED, ESTABLISHED, SHUTDOWN_SENT, _RECD,
        // _ACK_SENT, HEARTBEAT_SENT
        [
            [CL, CL, CW, CE, ES, CL, CL, SA, CW], // INIT
            [CL, CL, CW, CE, ES, SS, SR, SA, CL], // INIT ACK
            [CL, CL, CL, CL, CL, CL, CL, CL, CL], // ABORT
            [CL, CL, CW, CE, SS, SS, SR, SA, CL], // SHUTDOWN
            [SA, CL, CW, CE, ES, SA, SA, SA, SA], // SHUTDOWN ACK
            [CL, CL, CW, CE, ES, SS, SR, SA, CL], // ERROR
            [CL, CL, CE, CE, ES, SS, SR, SA, CL], // COOKIE ECHO
            [CL, CL, CW, ES, ES, SS, SR, SA, CL], // COOKIE ACK
            [CL, CL, CW, CE, ES, SS, SR, CL, CL], // SHUTDOWN COMPLETE
            [HS, CL, CW, CE, ES, SS, SR, SA, HS], // HEARTBEAT
            [CL, CL, CW, CE, ES, SS, SR, SA, HS], // HEARTBEAT ACK
        ],
        // reply
        [
            [IV, CL, CW, CE, ES, SS, SR, SA, IV], // INIT
            [IV, CW, CW, CE, ES, SS, SR, SA, IV], // INIT ACK
            [IV, CL, CL, CL, CL, CL, CL, CL, IV], // ABORT
            [IV, CL, CW, CE, SR, SS, SR, SA, IV], // SHUTDOWN
            [IV, CL, CW, CE, ES, SA, SA, SA, IV], // SHUTDOWN ACK
            [IV, CL, CW, CL, ES, SS, SR, SA, IV], // ERROR
            [IV, CL, CE, CE, ES, SS, SR, SA, IV], // COOKIE ECHO
            [IV, CL, CW, ES, ES, SS, SR, SA, IV], // COOKIE ACK
            [IV, CL, CW, CE, ES, SS, SR, CL, IV], // SHUTDOWN COMPLETE
            [IV, CL, CW, CE, ES, SS, SR, SA, HS], // HEARTBEAT
            [IV, CL, CW, CE, ES, SS, SR, SA, ES], // HEARTBEAT ACK
        ],
    ]
};

/// In [`TRANSITIONS`]: cannot happen.
const INVALID: u8 = u8::MAX;
/// Rows of [`TRANSITIONS`].
const CLASSES: usize = 11;

/// The row of a chunk type; `None` for those that move nothing, DATA and SACK among them.
const fn class(ty: u8) -> Option<usize> {
    Some(match ty {
        chunk::INIT => 0,
        chunk::INIT_ACK => 1,
        chunk::ABORT => 2,
        chunk::SHUTDOWN => 3,
        chunk::SHUTDOWN_ACK => 4,
        chunk::ERROR => 5,
        chunk::COOKIE_ECHO => 6,
        chunk::COOKIE_ACK => 7,
        chunk::SHUTDOWN_COMPLETE => 8,
        chunk::HEARTBEAT => 9,
        chunk::HEARTBEAT_ACK => 10,
        _ => return None,
    })
}

/// The state after a chunk; `None` if there can be no such chunk.
const fn next(dir: Dir, ty: u8, state: SctpState) -> Option<SctpState> {
    let Some(class) = class(ty) else {
        return Some(state);
    };
    match TRANSITIONS[dir as usize][class][state as usize] {
        INVALID => None,
        number => Some(SctpState::ALL[number as usize]),
    }
}

/// Chunk types below 16, as a set.
#[derive(Clone, Copy, Debug, Default)]
struct Types(u16);

impl Types {
    fn insert(&mut self, ty: u8) {
        if ty < 16 {
            self.0 |= 1 << ty;
        }
    }

    fn any_of(self, types: &[u8]) -> bool {
        types.iter().any(|ty| self.0 >> ty & 1 == 1)
    }
}

/// The chunks of an SCTP packet.
#[inline]
pub fn chunks<'a>(data: &'a [u8], parsed: &Parsed) -> Chunks<'a> {
    let start = usize::from(parsed.l4_offset) + HEADER_LEN;
    let end = (parsed.end as usize).min(data.len());
    Chunks(data.get(start..end).unwrap_or(&[]))
}

/// The association's state.
pub fn state(core: &Core) -> SctpState {
    let [original, _] = peers(core);
    SctpState::ALL[usize::from(original.state) % SctpState::COUNT]
}

/// The tags that packets of each direction must carry; 0 while unknown.
pub fn vtags(core: &Core) -> [u32; 2] {
    peers(core).map(|peer| peer.vtag)
}

fn peers(core: &Core) -> [Peer; 2] {
    zerocopy::transmute!(core.seen)
}

/// What is bundled: `None` if RFC 9260 6.10 forbids it, a chunk says that it has no length, or
/// there is none.
fn bundle(chunks: Chunks<'_>) -> Option<Types> {
    let mut types = None::<Types>;
    let mut alone = false;
    for Chunk { header, .. } in chunks {
        let first = matches!(header.ty, chunk::COOKIE_ACK | chunk::COOKIE_ECHO);
        alone |= matches!(
            header.ty,
            chunk::INIT | chunk::INIT_ACK | chunk::SHUTDOWN_COMPLETE
        );
        if types.is_some() && (first || alone) || header.len.get() == 0 {
            return None;
        }
        types.get_or_insert_default().insert(header.ty);
    }
    types
}

/// Judges the packet that might start a flow, and prepares `core` for it.
#[inline(never)] // like `packet`: the path of TCP and UDP stays short
pub fn open(core: &mut Core, chunks: Chunks<'_>, vtag: u32, timeouts: &Timeouts) -> Outcome {
    // Out of the blue (RFC 9260 8.4).
    const NEVER_FIRST: &[u8] = &[chunk::ABORT, chunk::SHUTDOWN_COMPLETE, chunk::COOKIE_ACK];
    let Some(types) = bundle(chunks) else {
        return Outcome::Invalid(Why::SctpBundle);
    };
    if types.any_of(NEVER_FIRST) {
        return Outcome::Invalid(Why::SctpNotFirst);
    }
    let mut peers = [Peer::default(); 2];
    let [original, reply] = &mut peers;
    for chunk in chunks {
        // What moves nothing starts nothing.
        if matches!(
            next(Dir::Original, chunk.header.ty, SctpState::None),
            None | Some(SctpState::None)
        ) {
            return Outcome::Invalid(Why::SctpNotFirst);
        }
        match chunk.header.ty {
            chunk::INIT => match chunk.init() {
                Some(init) if vtag == 0 => {
                    reply.vtag = init.tag.get();
                    original.flags |= peer_flags::INIT;
                }
                _ => return Outcome::Invalid(Why::SctpTag),
            },
            chunk::HEARTBEAT => original.vtag = vtag,
            // The answer to one out of the blue reflects its tag (RFC 9260 8.4 5).
            chunk::SHUTDOWN_ACK => reply.vtag = vtag,
            _ => {}
        }
    }
    core.seen = zerocopy::transmute!(peers);
    judge(core, chunks, types, vtag, Dir::Original, timeouts)
}

/// Judges a packet of a known flow and moves the flow.
#[inline(never)]
pub fn packet(
    core: &mut Core,
    chunks: Chunks<'_>,
    vtag: u32,
    dir: Dir,
    timeouts: &Timeouts,
) -> Outcome {
    match bundle(chunks) {
        Some(types) => judge(core, chunks, types, vtag, dir, timeouts),
        None => Outcome::Invalid(Why::SctpBundle),
    }
}

fn judge(
    core: &mut Core,
    chunks: Chunks<'_>,
    types: Types,
    vtag: u32,
    dir: Dir,
    timeouts: &Timeouts,
) -> Outcome {
    /// Chunks with rules of their own about tags (RFC 9260 8.5.1).
    const SPECIAL: &[u8] = &[
        chunk::INIT,
        chunk::SHUTDOWN_COMPLETE,
        chunk::COOKIE_ECHO,
        chunk::ABORT,
        chunk::SHUTDOWN_ACK,
        chunk::HEARTBEAT,
        chunk::HEARTBEAT_ACK,
    ];
    let mut peers = peers(core);
    if !types.any_of(SPECIAL) && vtag != peers[dir as usize].vtag {
        return Outcome::Invalid(Why::SctpTag);
    }
    let walked = walk(&mut peers, &mut core.status, chunks, types, vtag, dir);
    core.seen = zerocopy::transmute!(peers);
    match walked {
        Walked::Refused(why) => Outcome::Invalid(why),
        Walked::Unmoved => Outcome::Keep,
        Walked::Moved(new) => Outcome::Refresh(timeouts.sctp[new as usize]),
    }
}

/// What the chunks of a packet did.
enum Walked {
    /// One of them cannot be.
    Refused(Why),
    /// They may pass, but prove nothing: the deadline stays.
    Unmoved,
    /// The association is in this state now.
    Moved(SctpState),
}

fn walk(
    peers: &mut [Peer; 2],
    bits: &mut u8,
    chunks: Chunks<'_>,
    types: Types,
    vtag: u32,
    dir: Dir,
) -> Walked {
    let (own, other) = (dir as usize, dir.flip() as usize);
    let mut unmoved = false;
    let mut new = SctpState::None;
    for chunk in chunks {
        let ty = chunk.header.ty;
        let right = match ty {
            chunk::INIT => vtag == 0,
            chunk::ABORT | chunk::SHUTDOWN_COMPLETE => {
                let reflected = chunk.header.flags & chunk::FLAG_T != 0;
                vtag == peers[if reflected { other } else { own }].vtag
            }
            chunk::COOKIE_ECHO => vtag == peers[own].vtag,
            chunk::HEARTBEAT | chunk::HEARTBEAT_ACK => {
                let bundled = types.any_of(&[chunk::DATA]) || unmoved;
                match heartbeat(peers, ty, bundled, vtag, dir) {
                    Heartbeat::Right => true,
                    Heartbeat::Wrong => false,
                    Heartbeat::InDoubt => {
                        unmoved = true;
                        continue;
                    }
                }
            }
            _ => true,
        };
        let old = SctpState::ALL[usize::from(peers[0].state) % SctpState::COUNT];
        new = match next(dir, ty, old) {
            _ if !right => return Walked::Refused(Why::SctpTag),
            Some(new) => new,
            None => return Walked::Refused(Why::SctpState),
        };
        if matches!(ty, chunk::INIT | chunk::INIT_ACK) {
            let Some(init) = chunk.init() else {
                return Walked::Refused(Why::SctpBundle);
            };
            let tag = init.tag.get();
            if ty == chunk::INIT {
                // One with the tag that is known already is stale, or a repetition.
                if peers[other].vtag != tag {
                    if peers[own].flags & peers[other].flags & peer_flags::INIT != 0 {
                        peers[other].flags &= !peer_flags::INIT;
                    }
                    peers[own].flags |= peer_flags::INIT;
                }
                // A sender that only ever repeats its INIT does not keep the flow alive.
                unmoved |= (old, new) == (SctpState::Closed, SctpState::Closed);
            } else {
                // An INIT ACK may change the tag that answers an INIT of the other side; where both
                // sides had sent one, the tags are agreed on (RFC 9260 5.2).
                let asked = peers[other].flags & peer_flags::INIT != 0;
                let both = asked && peers[own].flags & peer_flags::INIT != 0;
                let known = peers[other].vtag;
                if known != tag && (both || !asked && known != 0) {
                    return Walked::Refused(Why::SctpTag);
                }
            }
            peers[other].vtag = tag;
        }
        if ty == chunk::COOKIE_ACK {
            // The tags are agreed on: an INIT ACK that comes now is late.
            for peer in &mut *peers {
                peer.flags &= !peer_flags::INIT;
            }
        }
        peers[0].state = new as u8;
        if old != new && new == SctpState::Established {
            *bits |= status::ASSURED;
        }
    }
    if unmoved {
        Walked::Unmoved
    } else {
        Walked::Moved(new)
    }
}

/// What the tag of a HEARTBEAT or its answer is worth.
enum Heartbeat {
    Right,
    Wrong,
    /// Perhaps of a new association on the same path: its answer would prove it.
    InDoubt,
}

/// Learns tags from HEARTBEATs, where the handshake went another way (multi-homing), or the hosts
/// have begun anew unseen.
fn heartbeat(peers: &mut [Peer; 2], ty: u8, bundled: bool, vtag: u32, dir: Dir) -> Heartbeat {
    let (own, other) = (dir as usize, dir.flip() as usize);
    let doubted = peers[other].flags & peer_flags::HEARTBEAT_IN_DOUBT != 0;
    if peers[own].vtag == 0 {
        peers[own].vtag = vtag;
        return Heartbeat::Right;
    }
    if peers[own].vtag != vtag {
        if bundled || ty == chunk::HEARTBEAT_ACK && !doubted {
            return Heartbeat::Wrong;
        }
        if ty == chunk::HEARTBEAT {
            peers[own].flags |= peer_flags::HEARTBEAT_IN_DOUBT;
            peers[other].flags &= !peer_flags::HEARTBEAT_IN_DOUBT;
            return Heartbeat::InDoubt;
        }
        peers[own].vtag = vtag;
        peers[other].vtag = 0;
    }
    for peer in peers {
        peer.flags &= !peer_flags::HEARTBEAT_IN_DOUBT;
    }
    Heartbeat::Right
}

#[cfg(test)]
mod tests;
