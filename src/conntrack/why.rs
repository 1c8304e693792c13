//! Why a packet is INVALID, said by the test that failed. The shard remembers the reason of the last
//! such packet ([`Shard::why`](super::shard::Shard::why)): a store off the usual path, and nothing else.

/// Declares the reasons once.
macro_rules! reasons {
    ($($variant:ident $name:literal $text:literal)*) => {
        /// Why a packet is INVALID.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Why {
            $(#[doc = $text] $variant,)*
        }

        impl Why {
            /// Every reason.
            pub const ALL: &[Why] = &[$(Why::$variant),*];

            /// The word for it.
            pub const fn name(self) -> &'static str {
                match self { $(Why::$variant => $name),* }
            }

            /// What it means: the rest of a sentence about the packet.
            pub const fn text(self) -> &'static str {
                match self { $(Why::$variant => $text),* }
            }
        }
    };
}

reasons! {
    Header "bad-header" "its transport header is truncated or malformed"
    NoHeader "no-header" "it has no transport header"
    Checksum "bad-checksum" "its transport checksum is wrong (conntrack.checksum)"
    IcmpUnknown "icmp-unknown" "its ICMP type is neither a request, nor an answer, nor an error"
    IcmpNoRequest "icmp-no-request" "no flow is known, and it is neither a request nor about a known flow"
    IcmpQuote "icmp-quote" "it is an ICMP error that quotes no packet of its addressee"
    IcmpNoFlow "icmp-no-flow" "it is an ICMP error about a packet of no known flow"
    TcpFlags "tcp-flags" "no TCP segment has such flags"
    TcpNotFirst "tcp-not-first" "no flow is known, and a segment with such flags starts none"
    TcpNotLoose "tcp-not-loose" "no flow is known, and a segment with such flags starts none (conntrack.tcp.loose is off)"
    TcpState "tcp-state" "its flags are impossible in the state of its flow"
    TcpOldReset "tcp-old-reset" "it is a RST with a sequence number that was acknowledged before (conntrack.tcp.ignore_invalid_rst)"
    TcpBeyond "tcp-beyond-window" "its sequence number lies beyond the window that its receiver has offered"
    TcpUnsent "tcp-acks-unsent" "it acknowledges what the other side has not sent"
    SctpBundle "sctp-bundle" "its SCTP chunks may not be in one packet, or one has no length"
    SctpNotFirst "sctp-not-first" "no flow is known, and its SCTP chunks start none"
    SctpTag "sctp-tag" "its SCTP verification tag is not that of its flow"
    SctpState "sctp-state" "its SCTP chunks are impossible in the state of its flow"
}

#[cfg(test)]
mod tests {
    use super::Why;

    #[test]
    fn names_are_unique() {
        for why in Why::ALL {
            let same = Why::ALL.iter().filter(|other| other.name() == why.name());
            assert_eq!(same.count(), 1, "{why:?}");
            assert!(!why.text().ends_with('.'));
        }
    }
}
