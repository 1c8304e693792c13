//! Session descriptions (RFC 8866), read a line at a time.
//!
//! `c=` says where media go, once for the session or once for a medium; `m=` begins a medium and
//! says which and to which port. A medium is complete where the next begins or the body ends.

use super::uri::{address, after, number};
use super::{AUDIO, IMAGE, VIDEO};
use crate::conntrack::helper::{Context, Expect, Heard, Refusal};
use crate::wire::{Addrs, proto};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The media that are known, and their classes.
const MEDIA: [(&[u8], u8); 3] = [(b"audio", AUDIO), (b"video", VIDEO), (b"image", IMAGE)];

/// How many media of a message are looked at.
const MOST: u8 = MEDIA.len() as u8;

/// A description in progress.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct Sdp {
    session: Connection,
    medium: Connection,
    /// The medium's port.
    port: u16,
    /// The medium's class; 0 if none is open.
    class: u8,
    /// How many media there were.
    count: u8,
    phase: Phase,
    spare: u8,
}

/// Where in a description the reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(transparent)]
struct Phase(u8);

impl Phase {
    /// Nobody wants to know, or there is nothing more to know.
    const DEAF: Self = Self(0);
    /// Before the line `v=`.
    const BEFORE: Self = Self(1);
    /// Before the first line `m=`.
    const SESSION: Self = Self(2);
    /// Behind it.
    const MEDIA: Self = Self(3);
    /// A medium has no address at all, or a port that is none.
    const FAILED: Self = Self(4);
}

/// What a line `c=` says.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Connection {
    addr: [u8; 16],
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(transparent)]
struct Kind(u8);

impl Kind {
    /// There is none.
    const NONE: Self = Self(0);
    /// An address of the control flow's family.
    const ADDRESS: Self = Self(1);
    /// One of the other family.
    const FAMILY: Self = Self(2);
    /// A name, or nothing that means anything.
    const NAME: Self = Self(3);
}

impl Connection {
    const NONE: Self = Self {
        addr: [0; 16],
        kind: Kind::NONE,
    };

    fn read(context: &Context, text: &[u8]) -> Self {
        let v6 = matches!(context.original.addrs, Addrs::V6 { .. });
        let own: &[u8] = if v6 { b"IN IP6 " } else { b"IN IP4 " };
        let place = text.windows(own.len()).position(|window| window == own);
        let addr = place.and_then(|at| address(context, &text[at + own.len()..]));
        let kind = match (place, addr) {
            (None, _) if after(text, b"IN IP").is_some() => Kind::FAMILY,
            (_, None) => Kind::NAME,
            _ => Kind::ADDRESS,
        };
        let addr = match addr {
            Some((IpAddr::V4(addr), _)) => u128::from(addr.to_bits()),
            Some((IpAddr::V6(addr), _)) => addr.to_bits(),
            None => 0,
        };
        Self {
            addr: addr.to_ne_bytes(),
            kind,
        }
    }

    fn addr(&self, context: &Context) -> IpAddr {
        let bits = u128::from_ne_bytes(self.addr);
        match context.original.addrs {
            Addrs::V4 { .. } => Ipv4Addr::from_bits(bits as u32).into(),
            Addrs::V6 { .. } => Ipv6Addr::from_bits(bits).into(),
        }
    }
}

impl Sdp {
    /// From here on it is read.
    pub(super) fn begin(&mut self) {
        self.phase = Phase::BEFORE;
    }

    /// Whether it made no sense.
    pub(super) fn failed(&self) -> bool {
        self.phase == Phase::FAILED
    }

    /// Reads one line of the body.
    pub(super) fn read(&mut self, context: &Context, text: &[u8], heard: &mut Heard) {
        match self.phase {
            Phase::BEFORE => {
                if let Some(version) = after(text, b"v=") {
                    self.phase = match number(version) {
                        Some(_) => Phase::SESSION,
                        None => Phase::DEAF,
                    };
                }
            }
            Phase::SESSION | Phase::MEDIA => {
                if let Some(medium) = after(text, b"m=") {
                    self.end(context, heard);
                    if !self.failed() {
                        self.phase = Phase::MEDIA;
                        self.begin_medium(context, medium, heard);
                    }
                } else if let Some(text) = after(text, b"c=") {
                    let place = match self.phase {
                        Phase::SESSION => &mut self.session,
                        _ => &mut self.medium,
                    };
                    if place.kind == Kind::NONE {
                        *place = Connection::read(context, text);
                    }
                }
            }
            _ => {}
        }
    }

    fn begin_medium(&mut self, context: &Context, text: &[u8], heard: &mut Heard) {
        self.medium = Connection::NONE;
        let word = text.iter().take_while(|byte| byte.is_ascii_alphabetic());
        let (name, rest) = text.split_at(word.count());
        let Some(rest) = rest.strip_prefix(b" ").filter(|_| self.count < MOST) else {
            self.phase = Phase::DEAF;
            return;
        };
        let Some(&(_, class)) = MEDIA.iter().find(|(medium, _)| *medium == name) else {
            return;
        };
        let (port, _) = number(rest).unwrap_or((0, rest));
        if port == 0 {
            return; // It is offered no more, or refused.
        }
        let port = u16::try_from(port).unwrap_or(0);
        match context.may_name(port) {
            Ok(()) => (self.class, self.port) = (class, port),
            Err(why) => {
                heard.refuse(why);
                if why == Refusal::Malformed {
                    self.phase = Phase::FAILED;
                }
            }
        }
    }

    /// The medium that is open, if any, is complete.
    pub(super) fn end(&mut self, context: &Context, heard: &mut Heard) {
        let class = std::mem::take(&mut self.class);
        if class == 0 {
            return;
        }
        let place = match (self.medium.kind, self.session.kind) {
            (Kind::ADDRESS, _) => &self.medium,
            (_, Kind::ADDRESS) => &self.session,
            (Kind::NONE, Kind::NONE) => {
                heard.refuse(Refusal::Malformed);
                self.phase = Phase::FAILED;
                return;
            }
            (Kind::FAMILY, _) | (Kind::NONE, Kind::FAMILY) => {
                return heard.refuse(Refusal::WrongFamily);
            }
            _ => return heard.refuse(Refusal::Malformed),
        };
        self.count += 1;
        let dst = place.addr(context);
        if dst.is_unspecified() {
            return; // On hold, as it was before RFC 3264.
        }
        let loose = context.permissions.loose;
        if dst != context.sender().0 && !loose {
            return heard.refuse(Refusal::ForeignAddress);
        }
        let src = (!loose).then_some(context.receiver().0);
        // RTP is at an even port, RTCP at the next (RFC 3550, 11).
        let even = self.port & !1;
        for dst_port in [even, even + 1].into_iter().filter(|&port| port != 0) {
            heard.expect(Expect {
                class,
                shared: true,
                ..Expect::once(proto::UDP, src, dst, dst_port)
            });
        }
    }
}
