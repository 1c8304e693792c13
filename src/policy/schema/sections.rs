//! The sections of a policy and their keys, with what operators read about them.
//!
//! Life-cycle and concurrency: as `schema`.
#![allow(dead_code)] // described, never made

use std::collections::BTreeMap;

use schemars::JsonSchema;

use super::values::*;

/// A policy: what the box is made of, and which packets pass.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Policy {
    /// The version of the language.
    version: Version,
    /// The ports, by the names that rules use.
    ports: BTreeMap<Name, Port>,
    /// Pairs of ports: what enters one leaves by the other. A port in no bridge drops everything.
    bridge: Option<Null<Vec<Bridge>>>,
    /// Settings that are read at start; after a change the reload says that a restart is needed.
    system: Option<Null<System>>,
    /// What a reload does to flows that are in the table.
    #[schemars(extend("default" = "keep"))]
    reload: Option<Null<Reload>>,
    /// Named addresses, ports and interfaces, which rules refer to as `$name`.
    sets: Option<Null<BTreeMap<Name, Set>>>,
    /// Connection tracking: limits, timeouts, knobs, with Linux's names and defaults.
    conntrack: Option<Null<Conntrack>>,
    /// Lines that attach helpers to flows as they begin. The first that matches decides; without one a
    /// flow has no helper.
    helpers: Option<Null<Vec<HelperLine>>>,
    /// Rules before tracking. The first that matches decides; without one a packet is tracked.
    raw: Option<Null<Vec<RawRule>>>,
    /// The chains. A packet starts in `forward`.
    chains: Chains,
}

/// Something, or nothing at all.
pub(super) struct Null<T>(std::marker::PhantomData<T>);

impl<T: JsonSchema> JsonSchema for Null<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let some = generator.subschema_for::<T>();
        schemars::json_schema!({ "oneOf": [some, { "type": "null" }] })
    }
}

/// A port of the box.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Port {
    /// The NIC or virtual device behind it.
    device: Device,
    /// Receive queues, if not one for each worker.
    queues: Option<SmallNumber>,
    /// The longest IP packet, if not as the device comes up (1500 for most). Frames that are longer than a
    /// buffer come in several where the device can do that; where not, all buffers are made longer.
    mtu: Option<Mtu>,
    /// Whether the port takes frames for whatever address. A bridge must; without it what is for hosts
    /// behind the bridge does not come in.
    #[schemars(extend("default" = true))]
    promiscuous: Option<Switch>,
}

/// Two ports, or two ports with what else is said of their bridge.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Bridge {
    /// The ports.
    Pair([Name; 2]),
    /// The ports and more.
    Full(FullBridge),
}

/// A bridge with more than its ports.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct FullBridge {
    /// The ports.
    ports: [Name; 2],
    /// Which frames pass that are not IP.
    #[schemars(extend("default" = ["arp"]))]
    ethertypes: Option<EtherTypes>,
    /// The zone of its flows: equal addresses and ports in two zones are two flows.
    #[schemars(extend("default" = 0))]
    zone: Option<BridgeZone>,
}

/// Settings of the box.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct System {
    /// How many workers run, each on a core of its own. Excludes `cores`.
    #[schemars(extend("default" = 1))]
    workers: Option<SmallNumber>,
    /// On which cores workers run, one on each. Excludes `workers`.
    cores: Option<Cores>,
    /// What workers do while nothing comes.
    #[schemars(extend("default" = "auto"))]
    idle: Option<Idle>,
    /// Use of hugepages.
    #[schemars(extend("default" = "auto"))]
    hugepages: Option<Hugepages>,
    /// Where Prometheus finds metrics.
    #[schemars(extend("default" = "127.0.0.1:9477"))]
    metrics: Option<Listen>,
    /// Whether the metrics' address shows the box's state at `/`, for people: health, ports, flows, drops.
    #[schemars(extend("default" = "auto"))]
    status_page: Option<StatusPage>,
    /// The control socket.
    #[schemars(extend("default" = "/run/shardwall/control.sock"))]
    socket: Option<SocketPath>,
    /// The time zone that `time` of rules goes by, if not that of the box. Changes with a reload.
    time_zone: Option<TimeZone>,
    /// Packet buffers, if not derived from ports and queues.
    mbufs: Option<Mbufs>,
    /// Memory for DPDK.
    memory: Option<Megabytes>,
    /// Where the log goes.
    #[schemars(extend("default" = "stderr"))]
    log: Option<LogTo>,
    /// Flows that must stay possible, whatever else the policy says: the check, and so each reload,
    /// warns about a policy under which one of these could not begin, or not go on.
    management: Option<Vec<ManagementLine>>,
}

/// Flows that must stay possible. They are judged by examples: the ends of each range of addresses and
/// ports.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct ManagementLine {
    /// What warnings call it.
    name: Option<Text>,
    /// For people.
    comment: Option<Text>,
    /// Where it comes in.
    iif: Option<Interfaces>,
    /// Where it leaves.
    oif: Option<Interfaces>,
    /// Its version of IP.
    family: Option<Family>,
    /// Who manages.
    saddr: Option<Addresses>,
    /// What is managed.
    daddr: Option<Addresses>,
    /// Its protocol.
    proto: Protocols,
    /// Its source ports.
    sport: Option<Ports>,
    /// Its destination ports.
    dport: Option<Ports>,
}

/// A set: a list of its entries, or files with an entry a line.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Set {
    /// Its entries.
    List(Entries),
    /// Its files.
    Files(FileSet),
}

/// A set from files.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct FileSet {
    /// Files with an entry a line; `#` begins a comment.
    file: Files,
    /// Entries beside those of the files.
    entries: Option<Null<Entries>>,
}

/// Connection tracking.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Conntrack {
    /// Most flows of the whole box. Changes with a restart.
    #[schemars(extend("default" = 262_144))]
    max: Option<Flows>,
    /// Most expectations of all helpers at a time. Changes with a restart.
    #[schemars(extend("default" = 65_536))]
    expect_max: Option<Expectations>,
    /// How long flows live without packets.
    timeouts: Option<Null<Timeouts>>,
    /// Named sets of timeouts, which rules and zones ask for with `timeout`.
    profiles: Option<Null<BTreeMap<Name, Timeouts>>>,
    /// Zones, by number, whose flows go by timeouts of their own.
    zones: Option<Null<BTreeMap<String, ZoneTimeout>>>,
    /// What TCP is forgiven.
    tcp: Option<Null<TcpKnobs>>,
    /// A packet with a wrong transport checksum is invalid.
    #[schemars(extend("default" = true))]
    checksum: Option<Switch>,
    /// Count packets and bytes of each flow and direction.
    #[schemars(extend("default" = false))]
    accounting: Option<Switch>,
    /// Remember when each flow began.
    #[schemars(extend("default" = false))]
    timestamps: Option<Switch>,
}

/// What TCP is forgiven.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct TcpKnobs {
    /// Pick up connections in the middle.
    #[schemars(extend("default" = true))]
    loose: Option<Switch>,
    /// Of what lies outside the window only resets are invalid.
    #[schemars(extend("default" = false))]
    be_liberal: Option<Switch>,
    /// Retransmissions without an answer after which `timeouts.tcp.retrans` counts.
    #[schemars(extend("default" = 3))]
    max_retrans: Option<Byte>,
    /// A reset outside the window is let by and changes nothing.
    #[schemars(extend("default" = false))]
    ignore_invalid_rst: Option<Switch>,
}

/// A zone.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct ZoneTimeout {
    /// What its flows go by, unless a rule says otherwise.
    timeout: Option<Timeout>,
}

/// How long flows live without packets, by protocol and state.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Timeouts {
    /// Of TCP, by state.
    tcp: Option<TcpTimeouts>,
    /// Of UDP.
    #[schemars(extend("default" = {"unreplied": "30s", "replied": "120s"}))]
    udp: Option<Answered>,
    /// Of UDP-Lite; as of UDP, unless it says otherwise.
    udplite: Option<Answered>,
    /// Of ICMP queries.
    #[schemars(extend("default" = "30s"))]
    icmp: Option<Span>,
    /// Of ICMPv6 queries.
    #[schemars(extend("default" = "30s"))]
    icmpv6: Option<Span>,
    /// Of GRE.
    #[schemars(extend("default" = {"unreplied": "30s", "replied": "180s"}))]
    gre: Option<Answered>,
    /// Of SCTP, by state.
    sctp: Option<SctpTimeouts>,
    /// Of every other protocol.
    #[schemars(extend("default" = "600s"))]
    generic: Option<Span>,
}

/// Timeouts of a protocol without states.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Answered {
    /// Before the first reply.
    unreplied: Option<Span>,
    /// After it.
    replied: Option<Span>,
}

/// Timeouts of TCP.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct TcpTimeouts {
    /// After a SYN.
    #[schemars(extend("default" = "120s"))]
    syn_sent: Option<Span>,
    /// After SYN and SYN-ACK.
    #[schemars(extend("default" = "60s"))]
    syn_recv: Option<Span>,
    /// Of a connection that is open.
    #[schemars(extend("default" = "5d"))]
    established: Option<Span>,
    /// After the first FIN.
    #[schemars(extend("default" = "120s"))]
    fin_wait: Option<Span>,
    /// After the first FIN and its ACK.
    #[schemars(extend("default" = "60s"))]
    close_wait: Option<Span>,
    /// After both FINs.
    #[schemars(extend("default" = "30s"))]
    last_ack: Option<Span>,
    /// After both FINs and the last ACK.
    #[schemars(extend("default" = "120s"))]
    time_wait: Option<Span>,
    /// After a reset.
    #[schemars(extend("default" = "10s"))]
    close: Option<Span>,
    /// After SYNs of both sides.
    #[schemars(extend("default" = "120s"))]
    syn_sent2: Option<Span>,
    /// After `max_retrans` retransmissions without an answer.
    #[schemars(extend("default" = "300s"))]
    retrans: Option<Span>,
    /// While data is not acknowledged.
    #[schemars(extend("default" = "300s"))]
    unack: Option<Span>,
}

/// Timeouts of SCTP.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct SctpTimeouts {
    /// After an ABORT or at the end.
    #[schemars(extend("default" = "10s"))]
    closed: Option<Span>,
    /// After an INIT.
    #[schemars(extend("default" = "3s"))]
    cookie_wait: Option<Span>,
    /// After a COOKIE ECHO.
    #[schemars(extend("default" = "3s"))]
    cookie_echoed: Option<Span>,
    /// Of an association that is open.
    #[schemars(extend("default" = "210s"))]
    established: Option<Span>,
    /// After a SHUTDOWN of the side that began.
    #[schemars(extend("default" = "3s"))]
    shutdown_sent: Option<Span>,
    /// After a SHUTDOWN of the other side.
    #[schemars(extend("default" = "3s"))]
    shutdown_recd: Option<Span>,
    /// After a SHUTDOWN ACK.
    #[schemars(extend("default" = "3s"))]
    shutdown_ack_sent: Option<Span>,
    /// After a HEARTBEAT on another path.
    #[schemars(extend("default" = "30s"))]
    heartbeat_sent: Option<Span>,
}

/// What a flow goes by: the name of a profile, a length of time, or a set of timeouts.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Timeout {
    /// A profile, or how long flows at rest live.
    Name(TimeoutName),
    /// Of its own.
    Own(Box<Timeouts>),
}

/// A line that attaches a helper, with the matches that the first packet of a flow must pass.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct HelperLine {
    /// What lists call it; its place in the list if it has none.
    name: Option<Name>,
    /// For people.
    comment: Option<Text>,
    /// The helper.
    helper: HelperName,
    /// A payload may name addresses that are not the flow's own.
    #[schemars(extend("default" = false))]
    loose: Option<Switch>,
    /// A payload may name ports below 1024.
    #[schemars(extend("default" = false))]
    low_ports: Option<Switch>,
    #[schemars(flatten)]
    headers: Headers,
}

/// A rule before tracking.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct RawRule {
    /// What lists call it; its place in the list if it has none.
    name: Option<Name>,
    /// For people.
    comment: Option<Text>,
    /// What happens to packets that match.
    action: RawAction,
    /// Count into a named counter, beside the rule's own.
    count: Option<Count>,
    #[schemars(flatten)]
    headers: Headers,
}

/// The chains.
#[derive(JsonSchema)]
pub(super) struct Chains {
    /// Where every packet starts.
    forward: Forward,
    /// User chains. At their end a packet returns to where they were jumped from.
    #[schemars(flatten)]
    others: BTreeMap<Name, Option<Null<Chain>>>,
}

/// The chain that every packet starts in.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Forward {
    /// What happens to packets that no rule decided about.
    #[schemars(extend("default" = "drop"))]
    policy: Option<ChainPolicy>,
    /// The rules, in order.
    rules: Option<Null<Vec<Rule>>>,
}

/// A user chain.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Chain {
    /// The rules, in order.
    rules: Option<Null<Vec<Rule>>>,
}

/// A rule: all of its matches must hold. It has one of `action`, `jump` and `goto`, or at least one of
/// `log`, `mark`, `count` and `timeout`; then the next rule follows.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Rule {
    /// What lists, logs and `replay` call it; its place in the chain if it has none. Counters outlive a
    /// reload under this name.
    name: Option<Name>,
    /// For people.
    comment: Option<Text>,
    /// What happens to packets that match.
    action: Option<Action>,
    /// Go on in this chain, and come back at its end.
    jump: Option<ChainName>,
    /// Go on in this chain, and do not come back.
    goto: Option<ChainName>,
    /// Log packets that match.
    #[schemars(extend("default" = false))]
    log: Option<Log>,
    /// Set the mark of the packet's flow.
    mark: Option<Mark>,
    /// Count into a named counter, beside the rule's own.
    count: Option<Count>,
    /// What a flow goes by that the packet starts.
    timeout: Option<Timeout>,
    #[schemars(flatten)]
    headers: Headers,
    /// What the packet is to its flow.
    ct: Option<States>,
    /// Its direction in the flow.
    ct_direction: Option<Direction>,
    /// The mark of its flow.
    ct_mark: Option<Marks>,
    /// What is known of its flow.
    ct_status: Option<Statuses>,
    /// The helper that expected its flow.
    ct_helper: Option<HelperNames>,
    /// How many flows there are; tested last.
    connlimit: Option<ConnLimit>,
}

/// Matches that raw rules and helper lines have too.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub(super) struct Headers {
    /// Where the packet came in.
    iif: Option<Interfaces>,
    /// Where it will leave.
    oif: Option<Interfaces>,
    /// Its version of IP.
    family: Option<Family>,
    /// Its source address.
    saddr: Option<Addresses>,
    /// Its destination address.
    daddr: Option<Addresses>,
    /// Its transport protocol.
    proto: Option<Protocols>,
    /// Its source port; needs a `proto` that has ports (tcp, udp, sctp, udplite).
    sport: Option<Ports>,
    /// Its destination port; needs a `proto` that has ports.
    dport: Option<Ports>,
    /// Its type of ICMP or ICMPv6.
    icmp_type: Option<IcmpTypes>,
    /// Its TCP flags.
    tcp_flags: Option<TcpFlags>,
    /// Its length.
    length: Option<Lengths>,
    /// Whether it came in fragments; rules see datagrams whole.
    fragment: Option<Whether>,
    /// Its code point.
    dscp: Option<CodePoints>,
    /// Its VLAN.
    vlan: Option<Vlans>,
    /// Its zone, whether or not it has a flow.
    ct_zone: Option<Zones>,
    /// When it comes.
    time: Option<Time>,
    /// How often packets come.
    limit: Option<Rate>,
}

/// What happens to a packet.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Action {
    /// A verdict.
    Verdict(Verdict),
    /// A kind of rejection.
    Reject(Reject),
}

/// A rejection of a certain kind.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Reject {
    /// How the sender is told.
    reject: RejectKind,
}

/// Whether a rule logs, or how.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Log {
    /// Whether.
    Switch(Switch),
    /// How.
    How(LogHow),
}

/// How a rule logs.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct LogHow {
    /// Put before every line.
    prefix: Option<Prefix>,
    /// Lines that the rule may write; for all of them together.
    #[schemars(extend("default" = "100/second burst 100"))]
    limit: Option<Rate>,
}

/// When: windows of the week, or a mapping with dates.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Time {
    /// Windows of the week.
    Text(TimeText),
    /// Days, hours and dates.
    Parts(TimeParts),
}

/// When; all of it must hold.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct TimeParts {
    /// Days of the week.
    days: Option<Days>,
    /// Windows of the day.
    hours: Option<Hours>,
    /// From the begin of this day, or from this time on.
    from: Option<Date>,
    /// To the end of this day, or before this time.
    until: Option<Date>,
}
