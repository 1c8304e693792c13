//! Every reason for which a packet is dropped. The variant is the counter's index; its name is
//! the metric's label, the word in `drops`, `replay` and traces; its text is the documentation.

/// Declares the reasons once.
macro_rules! reasons {
    ($($variant:ident $name:literal $text:literal)*) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $text] $variant,)*
        }

        impl DropReason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &[DropReason] = &[$(DropReason::$variant),*];

            /// The word for it.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name),* }
            }

            /// What it means.
            pub const fn text(self) -> &'static str {
                match self { $(DropReason::$variant => $text),* }
            }
        }
    };
}

reasons! {
    ShortFrame "short-frame" "The frame ends inside its Ethernet or VLAN header."
    EtherType "ethertype" "Neither IP nor an EtherType that the bridge lets pass."
    IpHeader "ip-header" "The IP header is truncated, of the wrong version, or longer than the frame."
    IpChecksum "ip-checksum" "The IPv4 header checksum is wrong."
    FragmentTimeout "fragment-timeout" "A fragment whose datagram did not become complete in time: 30 s for IPv4, 60 s for IPv6."
    FragmentOverlap "fragment-overlap" "A fragment of a datagram of which two fragments overlap; all of it is dropped."
    FragmentDuplicate "fragment-duplicate" "A fragment whose bytes are there already; the datagram is not harmed."
    FragmentBad "fragment-bad" "A fragment that no datagram can have: lengths that contradict each other, too long a datagram, a cut-off header."
    FragmentLimit "fragment-limit" "Too many fragments, of one datagram or of all: the oldest datagram goes."
    NoPeer "no-peer" "Arrived at a port that no bridge pairs with another."
    Policy "policy" "A rule, or the policy of the chain, said drop."
    Rejected "rejected" "A rule said reject; the sender was told."
    TableFull "table-full" "A new flow, but the flow table, or its worker's part of it, is full, and nothing worth less was found."
    IndexFull "index-full" "A new flow whose buckets in the flow index are all full."
    Helper "helper" "What a helper read in it cannot be carried out: another flow expects the same, or there is no room for another expectation. Its sender tries again."
    HandoffFull "handoff-full" "The ring to the worker that owns the flow was full, or more came of a bucket of flows that moves than its new owner puts by."
    TxFull "tx-full" "The port to send from took no more frames."
    Shutdown "shutdown" "Still under way when the appliance stopped."
}

impl DropReason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();
}

#[cfg(test)]
mod tests {
    use super::DropReason;

    #[test]
    fn numbers_and_names_are_unique() {
        for (number, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
            let same = DropReason::ALL
                .iter()
                .filter(|other| other.name() == reason.name());
            assert_eq!(same.count(), 1);
            assert!(
                reason
                    .name()
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b == b'-')
            );
            assert!(reason.text().ends_with('.'));
        }
    }
}
