//! What matches and actions may say, in our words and in nft's: few values each, so that rules
//! overlap and packets match them.

/// What becomes of the flow's mark, in our words and in nft's; whether that reads the mark.
pub(super) type Mark = (&'static str, &'static str, bool);

/// A text of ours, and what nft calls the same.
pub(super) type Pair = (&'static str, &'static str);

pub(super) const MARKS: [Pair; 6] = [
    ("0", "0"),
    ("1", "1"),
    ("\"!0\"", "!= 0"),
    ("\"0x10/0xf0\"", "& 0xf0 == 0x10"),
    ("[1, 0x12]", "{ 1, 0x12 }"),
    ("\"!1/0xf\"", "& 0xf != 1"),
];
pub(super) const SET_MARKS: [Mark; 5] = [
    ("0", "0", false),
    ("1", "1", false),
    ("2", "2", false),
    ("\"0x10/0xf0\"", "ct mark & 0xffffff0f | 0x10", true),
    ("\"2/0xf\"", "ct mark & 0xfffffff0 | 2", true),
];
pub(super) const STATES: [Pair; 11] = [
    ("new", "new"),
    ("established", "established"),
    ("related", "related"),
    ("[new, established]", "new,established"),
    ("[established, related]", "established,related"),
    ("[new, established, related]", "new,established,related"),
    ("invalid", "invalid"),
    ("untracked", "untracked"),
    ("\"!invalid\"", "!= invalid"),
    ("\"!new\"", "!= new"),
    ("[new, untracked]", "{ new, untracked }"),
];
/// So many of them, the first, are of packets that have a flow.
pub(super) const OF_FLOWS: usize = 6;
pub(super) const STATUS: [Pair; 6] = [
    ("seen-reply", "seen-reply"),
    ("assured", "assured"),
    ("confirmed", "confirmed"),
    ("[expected, seen-reply]", "expected,seen-reply"),
    ("\"!seen-reply\"", "& seen-reply == 0"),
    ("\"!confirmed\"", "& confirmed == 0"),
];
/// Of flows only: without one, a packet has no zone to the kernel.
pub(super) const ZONES: [Pair; 4] = [
    ("0", "0"),
    ("\"!0\"", "!= 0"),
    ("[0, 3]", "{ 0, 3 }"),
    ("3", "3"),
];
pub(super) const SIDES: [Pair; 4] = [
    ("lan", "\"lan\""),
    ("wan", "\"wan\""),
    ("\"!lan\"", "!= \"lan\""),
    ("[lan, wan]", "{ \"lan\", \"wan\" }"),
];
pub(super) const DSCPS: [Pair; 5] = [
    ("cs0", "cs0"),
    ("ef", "ef"),
    ("[ef, cs1]", "{ ef, cs1 }"),
    ("\"!cs0\"", "!= cs0"),
    ("[cs0, af11]", "{ cs0, af11 }"),
];
pub(super) const LENGTHS: [Pair; 6] = [
    ("40", "40"),
    ("40-60", "40-60"),
    ("0-59", "0-59"),
    ("\"!40\"", "!= 40"),
    ("[40, 60, 100-1500]", "{ 40, 60, 100-1500 }"),
    ("\"!40-70\"", "!= 40-70"),
];
pub(super) const FLAGS: [Pair; 11] = [
    ("syn", "& (fin | syn | rst | ack) == syn"),
    ("\"!syn\"", "& (fin | syn | rst | ack) != syn"),
    ("\"syn,ack/syn,ack\"", "& (syn | ack) == syn | ack"),
    ("\"psh/psh\"", "& psh == psh"),
    ("\"fin,rst/none\"", "& (fin | rst) == 0x0"),
    ("\"!ack/ack\"", "& ack != ack"),
    ("\"rst,fin/fin\"", "& (rst | fin) == fin"),
    (
        "[syn, \"fin,syn,rst,ack/syn,ack\"]",
        "& (fin | syn | rst | ack) == { syn, syn | ack }",
    ),
    (
        "[\"psh,ack/ack\", \"psh,ack/none\", \"psh,ack/psh\"]",
        "& (psh | ack) == { ack, 0x0, psh }",
    ),
    ("[\"fin/fin\", \"rst/rst\"]", "& (fin | rst) != 0x0"),
    ("[\"syn/none\", \"ack/ack\"]", "& (syn | ack) != syn"),
];
pub(super) const PROTOS: [Pair; 8] = [
    ("tcp", "tcp"),
    ("tcp", "tcp"),
    ("udp", "udp"),
    ("sctp", "sctp"),
    ("[icmp, icmpv6]", "{ icmp, ipv6-icmp }"),
    ("[udp, gre, 89]", "{ udp, gre, 89 }"),
    ("\"!tcp\"", "!= tcp"),
    ("\"!udp\"", "!= udp"),
];
pub(super) const WITH_PORTS: [Pair; 5] = [
    ("tcp", "tcp"),
    ("tcp", "tcp"),
    ("udp", "udp"),
    ("[tcp, udp]", "{ tcp, udp }"),
    ("[tcp, sctp]", "{ tcp, sctp }"),
];
pub(super) const PORTS: [Pair; 10] = [
    ("80", "80"),
    ("22", "22"),
    ("[22, 53]", "{ 22, 53 }"),
    ("[22, 1000-1100, 8000-8080]", "{ 22, 1000-1100, 8000-8080 }"),
    ("1-1023", "1-1023"),
    ("\"!80\"", "!= 80"),
    ("$web", "@web"),
    ("\"!$web\"", "!= @web"),
    ("\"!$web\"", "!= @web"),
    ("40000-65535", "40000-65535"),
];
/// ICMP types of ours, and of nft for either version.
pub(super) const ICMP: [(&str, [&str; 2]); 6] = [
    ("echo-request", ["type 8", "type 128"]),
    (
        "[echo-request, echo-reply]",
        ["type { 8, 0 }", "type { 128, 129 }"],
    ),
    ("\"!echo-request\"", ["type != 8", "type != 128"]),
    ("destination-unreachable", ["type 3", "type 1"]),
    (
        "destination-unreachable/1",
        ["type 3 icmp code 1", "type 1 icmpv6 code 1"],
    ),
    ("time-exceeded", ["type 11", "type 3"]),
];
/// How to reject, in our words and in nft's.
pub(super) const REJECTS: [(&str, &str); 4] = [
    ("icmp-port-unreachable", "icmpx port-unreachable"),
    ("admin-prohibited", "icmpx admin-prohibited"),
    ("host-unreachable", "icmpx host-unreachable"),
    ("net-unreachable", "icmpx no-route"),
];
/// A reset, which is for TCP.
pub(super) const RESET: (&str, &str) = ("tcp-reset", "tcp reset");
