//! What the tracker knows of helpers: how one is described, and what it may ask for.
//!
//! A helper reads the payload of a control flow and *expects* the flows that it announces. The
//! helpers themselves are a layer above; here are only the words that both sides use, and they are
//! plain values. A helper never touches the tracker: what it heard is in a [`Heard`], and the
//! packet path carries it out.

use super::tuple::Tuple;
use super::types::Dir;
use crate::base::time::Span;
use crate::wire::inner::Ports;
use arrayvec::ArrayVec;
use std::net::IpAddr;
use std::num::NonZeroU8;

/// Most helpers that there can be.
pub const MAX_HELPERS: usize = 16;
/// Most classes of expectations that one helper can have.
pub const MAX_CLASSES: usize = 4;
/// Most requests that one packet can make.
pub const MAX_REQUESTS: usize = 16;
/// The lowest port that a payload may name without permission.
pub const FIRST_OPEN_PORT: u16 = 1024;

/// A helper, by its place in the list of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HelperId(NonZeroU8);

impl HelperId {
    /// The helper at `at` in the list.
    pub const fn new(at: usize) -> Option<Self> {
        if at >= MAX_HELPERS {
            return None;
        }
        match NonZeroU8::new(at as u8 + 1) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// Its place in the list.
    pub const fn index(self) -> usize {
        self.0.get() as usize - 1
    }

    /// Its number in a byte of which 0 is no helper.
    pub const fn number(self) -> u8 {
        self.0.get()
    }

    /// The helper with such a number.
    pub const fn of_number(number: u8) -> Option<Self> {
        match NonZeroU8::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }
}

/// What is known of a helper beside how it reads.
#[derive(Debug)]
pub struct Info {
    /// Its name, as nftables and conntrack(8) have it.
    pub name: &'static str,
    /// Transport protocols of the control flows that it can listen to.
    pub protos: &'static [u8],
    /// Whether it reads IPv6 flows too.
    pub ipv6: bool,
    /// What it expects; the index is [`Expect::class`].
    pub classes: &'static [Class],
}

/// A class of expectations.
#[derive(Debug)]
pub struct Class {
    /// Its name.
    pub name: &'static str,
    /// Most expectations of it that one control flow has; one more, and the oldest goes.
    pub max: u8,
    /// How long one waits.
    pub timeout: Span,
}

/// What policy allows a helper on one flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// A payload may name addresses that are not the flow's own.
    pub loose: bool,
    /// A payload may name ports below [`FIRST_OPEN_PORT`].
    pub low_ports: bool,
}

/// A packet of a control flow, as a helper sees it.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// The flow's original direction.
    pub original: Tuple,
    /// Which way this packet goes.
    pub dir: Dir,
    /// The flow was itself expected.
    pub expected: bool,
    /// What policy allows.
    pub permissions: Permissions,
}

impl Context {
    /// Who opened the flow: address and port.
    pub fn client(&self) -> (IpAddr, u16) {
        (self.original.addrs.src(), self.ports().0)
    }

    /// Whom the flow was opened to.
    pub fn server(&self) -> (IpAddr, u16) {
        (self.original.addrs.dst(), self.ports().1)
    }

    /// Who sent this packet.
    pub fn sender(&self) -> (IpAddr, u16) {
        match self.dir {
            Dir::Original => self.client(),
            Dir::Reply => self.server(),
        }
    }

    /// Whom it is for.
    pub fn receiver(&self) -> (IpAddr, u16) {
        match self.dir {
            Dir::Original => self.server(),
            Dir::Reply => self.client(),
        }
    }

    /// Whether a payload may name `port`; else why not.
    pub fn may_name(&self, port: u16) -> Result<(), Refusal> {
        match port {
            0 => Err(Refusal::Malformed),
            ..FIRST_OPEN_PORT if !self.permissions.low_ports => Err(Refusal::LowPort),
            _ => Ok(()),
        }
    }

    fn ports(&self) -> (u16, u16) {
        match self.original.ports {
            Ports::Ports { sport, dport } => (sport, dport),
            _ => (0, 0),
        }
    }
}

/// A flow that a helper expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expect {
    /// Index into [`Info::classes`].
    pub class: u8,
    /// Transport protocol.
    pub proto: u8,
    /// Who will open it; `None` for anybody.
    pub src: Option<IpAddr>,
    /// From which port; `None` for any.
    pub src_port: Option<u16>,
    /// Where to: of the same family as the control flow.
    pub dst: IpAddr,
    /// To which port.
    pub dst_port: u16,
    /// It lasts until its time is over, instead of being used up by the first flow.
    pub permanent: bool,
    /// It counts from a [`Request::Confirm`] on only.
    pub inactive: bool,
    /// The flow gets the same helper.
    pub inherit: bool,
    /// It is good enough that another control flow expects the same.
    pub shared: bool,
    /// How long it waits, if not as long as its class says.
    pub timeout: Option<Span>,
}

impl Expect {
    /// One flow of class 0 from any port of `src` to `dst`, used up by the first one.
    pub const fn once(proto: u8, src: Option<IpAddr>, dst: IpAddr, dst_port: u16) -> Self {
        Self {
            class: 0,
            proto,
            src,
            src_port: None,
            dst,
            dst_port,
            permanent: false,
            inactive: false,
            inherit: false,
            shared: false,
            timeout: None,
        }
    }
}

/// What a helper asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Expect a flow.
    Expect(Expect),
    /// The control flow's expectation of this class and destination counts from now on, for
    /// `timeout`. Of several in one packet the first that names an expectation is carried out.
    Confirm {
        /// Its class.
        class: u8,
        /// Its protocol.
        proto: u8,
        /// Its destination.
        dst: IpAddr,
        /// Its destination port.
        dst_port: u16,
        /// How long it waits from now on.
        timeout: Span,
    },
    /// Forget the newest expectation of this class, unless a [`Request::Confirm`] of the same packet
    /// named one.
    ForgetUnconfirmed {
        /// The class.
        class: u8,
    },
    /// Forget all expectations of these classes: bits of `1 << class`.
    Forget {
        /// The classes.
        classes: u8,
    },
}

/// Declares the reasons once.
macro_rules! refusals {
    ($($variant:ident $name:literal $text:literal)*) => {
        /// Why a helper, or the table of expectations, did not do what a payload asked for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Refusal {
            $(#[doc = $text] $variant,)*
        }

        impl Refusal {
            /// Every reason, in the order of their numbers.
            pub const ALL: &[Refusal] = &[$(Refusal::$variant),*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The word for it: the metric's label.
            pub const fn name(self) -> &'static str {
                match self { $(Refusal::$variant => $name),* }
            }

            /// What it means.
            pub const fn text(self) -> &'static str {
                match self { $(Refusal::$variant => $text),* }
            }
        }
    };
}

refusals! {
    Malformed "malformed" "A command that is known, with arguments that mean nothing; nothing is expected."
    ForeignAddress "foreign-address" "The payload names an address that is not the flow's own, and the helper line does not say `loose`; nothing is expected."
    LowPort "low-port" "The payload names a port below 1024, and the helper line does not say `low-ports`; nothing is expected."
    WrongFamily "wrong-family" "The payload names an address of the other family than the flow's; nothing is expected."
    TooLong "too-long" "A line that is longer than what is kept of a line that comes in pieces; it is skipped."
    Gap "gap" "Bytes of the control stream are missing or came too far out of order; reading goes on behind them."
    TooMany "too-many" "One packet asks for more than 16 things; the rest is left out."
    Clash "clash" "Another flow expects the same already; the packet is dropped, so that its sender tries again."
    TableFull "table-full" "There is no room for another expectation; the packet is dropped, so that its sender tries again."
}

/// What a helper heard in one packet.
#[derive(Debug, Default)]
pub struct Heard {
    /// What it asks for, in order.
    pub requests: ArrayVec<Request, MAX_REQUESTS>,
    /// What it refused, by [`Refusal`].
    pub refused: [u16; Refusal::COUNT],
    /// Messages that it understood, whatever came of them.
    pub parsed: u16,
    /// The control flow lives this long from now on (Linux: `nf_ct_refresh`).
    pub keep: Option<Span>,
    /// The packet must not pass.
    pub drop: bool,
}

impl Heard {
    /// Adds a request.
    pub fn ask(&mut self, request: Request) {
        if self.requests.try_push(request).is_err() {
            self.refuse(Refusal::TooMany);
        }
    }

    /// Asks for `expect`.
    pub fn expect(&mut self, expect: Expect) {
        self.ask(Request::Expect(expect));
    }

    /// Notes a refusal.
    pub fn refuse(&mut self, why: Refusal) {
        let count = &mut self.refused[why as usize];
        *count = count.saturating_add(1);
    }

    /// Notes a message that was understood.
    pub fn parsed(&mut self) {
        self.parsed = self.parsed.saturating_add(1);
    }

    /// How often something was refused for `why`.
    pub fn refusals(&self, why: Refusal) -> u16 {
        self.refused[why as usize]
    }
}
