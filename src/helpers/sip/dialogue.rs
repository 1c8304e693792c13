//! What messages mean: which media and which incoming calls are expected from now on.

use super::message::Message;
use super::uri::{Wanted, after};
use super::{AUDIO, IMAGE, SIGNALLING, VIDEO};
use crate::base::time::Span;
use crate::conntrack::helper::{Context, Expect, Heard, Refusal, Request};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The media's classes.
const MEDIA: u8 = 1 << AUDIO | 1 << VIDEO | 1 << IMAGE;

/// What is remembered from message to message.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct Dialogue {
    /// CSeq of the last INVITE.
    pub(super) invite: u32,
    /// CSeq of the last REGISTER.
    register: u32,
    /// The port that the last expected call comes in at.
    port: u16,
    spare: u16,
}

/// A method, by its place among [`METHODS`]; 0 is any other.
pub(super) type Method = u8;

/// The method INVITE.
pub(super) const INVITE: Method = 1;

/// What a message of a method asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Nothing; it is not looked at.
    Nothing,
    /// The media that it describes.
    Describe,
    /// Those instead of all before.
    Offer,
    /// If it is no refusal, the media that it describes; else, if it answers the INVITE, no media.
    Answer,
    /// No media any more.
    Hang,
    /// Calls to the one contact.
    Register,
    /// Calls to it from now on, or none.
    Registered,
}

/// Each method: what requests and responses of it ask for.
const METHODS: [(&[u8], Act, Act); 6] = [
    (b"INVITE", Act::Offer, Act::Answer),
    (b"UPDATE", Act::Describe, Act::Answer),
    (b"ACK", Act::Describe, Act::Nothing),
    (b"PRACK", Act::Describe, Act::Answer),
    (b"BYE", Act::Hang, Act::Nothing),
    (b"REGISTER", Act::Register, Act::Registered),
];

/// The method that `text` begins with, in any case, whatever follows.
pub(super) fn method(text: &[u8]) -> Method {
    place(|name| after(text, name).is_some())
}

/// The method of a request's first line: a blank and a URI follow.
pub(super) fn request(text: &[u8]) -> Method {
    place(
        |name| matches!(after(text, name), Some([b' ', first, ..]) if first.is_ascii_alphabetic()),
    )
}

fn place(fits: impl Fn(&[u8]) -> bool) -> Method {
    let place = METHODS.iter().position(|(name, _, _)| fits(name));
    place.map_or(0, |at| at as u8 + 1)
}

/// What a message of `method` asks for.
pub(super) fn act(method: Method, response: bool) -> Act {
    match METHODS.get(usize::from(method).wrapping_sub(1)) {
        Some(&(_, request, _)) if !response => request,
        Some(&(_, _, answer)) => answer,
        None => Act::Nothing,
    }
}

impl Dialogue {
    /// Which contact of a message matters.
    pub(super) fn wanted(&self, response: bool) -> Wanted {
        match response {
            true => Wanted::Port(self.port),
            false => Wanted::First,
        }
    }

    /// The headers of `message` are complete. Whether its body is wanted; an error if nobody could
    /// have meant it.
    pub(super) fn hear(
        &mut self,
        context: &Context,
        message: &Message,
        heard: &mut Heard,
    ) -> Result<bool, ()> {
        match (message.act(), message.code) {
            (Act::Nothing, _) => {}
            (Act::Describe, _) | (Act::Answer, 100..=299) => return Ok(true),
            (Act::Offer, _) => {
                heard.ask(Request::Forget { classes: MEDIA });
                return Ok(true);
            }
            (Act::Answer, _) if message.cseq != self.invite => {}
            (Act::Answer | Act::Hang, _) => heard.ask(Request::Forget { classes: MEDIA }),
            (Act::Register, _) => return self.register(context, message, heard).map(|()| false),
            (Act::Registered, _) => {
                return self.registered(context, message, heard).map(|()| false);
            }
        }
        Ok(false)
    }

    fn register(
        &mut self,
        context: &Context,
        message: &Message,
        heard: &mut Heard,
    ) -> Result<(), ()> {
        if context.expected {
            return Ok(());
        }
        let Some(contact) = message.contacts.first() else {
            if message.contacts.low() {
                heard.refuse(Refusal::LowPort);
            }
            return Ok(());
        };
        if !contact.own() {
            heard.refuse(Refusal::ForeignAddress);
            return Ok(());
        }
        if contact.elsewhere() {
            return Ok(());
        }
        if contact.spoiled() {
            return Err(());
        }
        self.register = message.cseq;
        // Zero takes the registration back; what was expected goes when that is confirmed.
        if contact.expires().unwrap_or(message.expires) != 0 {
            self.port = contact.port;
            let (own, registrar) = (context.sender().0, context.receiver().0);
            let proto = context.original.proto;
            heard.expect(Expect {
                class: SIGNALLING,
                permanent: true,
                inactive: true,
                inherit: true,
                ..Expect::once(proto, Some(registrar), own, contact.port)
            });
        }
        Ok(())
    }

    fn registered(
        &mut self,
        context: &Context,
        message: &Message,
        heard: &mut Heard,
    ) -> Result<(), ()> {
        let contacts = &message.contacts;
        match message.code {
            _ if message.cseq != self.register => return Ok(()),
            100..=199 => return Ok(()),
            200..=299 if contacts.first().is_some_and(|one| one.spoiled()) => return Err(()),
            200..=299 => {
                if let Some(seconds) = contacts.confirmed(self.port, message.expires) {
                    heard.ask(Request::Confirm {
                        class: SIGNALLING,
                        proto: context.original.proto,
                        dst: context.receiver().0,
                        dst_port: self.port,
                        timeout: Span::secs(seconds.min(Span::MAX.as_secs())),
                    });
                }
            }
            _ => {}
        }
        heard.ask(Request::ForgetUnconfirmed { class: SIGNALLING });
        Ok(())
    }
}
