//! What travels over the API socket: one JSON object a line.
//!
//! A client sends a [`Request`]; the answer is any number of lines `{"row": …}`, then one line
//! `{"done":true,"count":N}` or `{"error":"…"}`. A connection serves one request after another.
//! Where text is asked for, lines `{"text":N}` come instead of rows, each followed by N bytes of it.

use super::filter::ExpectFilter;
pub use super::filter::flows::Filter;
use super::render::Style;
use crate::conntrack::event::Kind;
use crate::conntrack::record::{ExpectRecord, FlowRecord};
use crate::conntrack::types::proto;
use crate::policy::ReloadMode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::PathBuf;

/// Longest request, its newline not counted.
pub const MAX_REQUEST: usize = 64 * 1024;

/// What a client may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Are you there? No rows.
    Ping {},
    /// Put a policy in force; one row, a [`super::ReloadReport`].
    Reload {
        /// The policy file; that of the start, if none is given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<PathBuf>,
        /// How flows are treated; as the policy says, if nothing is given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<ReloadMode>,
    },
    /// The flows; a row for each, a [`FlowRecord`], or text.
    ConntrackList(Listing),
    /// The flow that has the original direction of a filter, all of which must be named, as its original
    /// direction or its reply, if the rest of the filter is true of it too; one row, a [`FlowRecord`], or
    /// text.
    ConntrackGet(Listing),
    /// End flows; a row for each, a [`FlowRecord`], or text.
    ConntrackDelete(Listing),
    /// How many flows there are; no rows.
    ConntrackCount {},
    /// Follow what happens to flows, or to expectations; a row for each event, a [`Watched`], until the
    /// client hangs up (or sends another line) or the appliance stops.
    ConntrackWatch(Watch),
    /// A row for each worker, a [`super::snapshot::ConntrackRow`].
    ConntrackStats {},
    /// End all flows; no rows, `count` says how many.
    ConntrackFlush {},
    /// The expectations; a row for each, an [`ExpectRecord`].
    ExpectList(ExpectFilter),
    /// How many expectations there are; no rows.
    ExpectCount {},
    /// End the expectations that a filter, which must not be empty, means; a row for each that was
    /// ended, an [`ExpectRecord`].
    ExpectDelete(ExpectFilter),
    /// End all expectations; no rows, `count` says how many.
    ExpectFlush {},
    /// What putting a policy in force would change; one row, a [`super::DiffReport`].
    Diff {
        /// The policy file.
        path: PathBuf,
    },
    /// What the policy in force does with a packet, and why; one row, an
    /// [`Explanation`](crate::pipeline::Explanation).
    Explain {
        /// The packet, in the words of `shardwall explain`.
        words: Vec<String>,
    },
    /// What packets meet as they come; a row for each thing told, a [`super::trace::Told`], until enough
    /// was told, the client hangs up (or sends another line) or the appliance stops. `count` says how
    /// many packets were told.
    Trace(super::trace::Ask),
    /// One row, a [`super::snapshot::Stats`].
    Stats {},
    /// A row for each reason, a [`super::drops::DropRow`].
    Drops {},
    /// A row for each rule, a [`super::snapshot::RuleRow`].
    Rules {},
    /// A row for each port, a [`super::snapshot::PortRow`].
    Ports {
        /// With what the drivers count.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        xstats: bool,
    },
    /// Deal the buckets of flows out anew, or say how; one row, a
    /// [`super::rebalance::RebalanceReport`].
    Rebalance {
        /// Only say.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        dry_run: bool,
    },
    /// A row for each worker, a [`super::snapshot::WorkerRow`].
    Workers {},
    /// All that `top` shows; one row, a [`super::overview::Overview`].
    Overview {
        /// For how many seconds a census of the flows is wanted; 0 if none is.
        #[serde(default)]
        census_secs: u64,
    },
}

/// Flows that are asked for, and how they are to come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listing {
    /// Which flows.
    pub filter: Filter,
    /// As text in this style, in pieces instead of rows. `count` says how many there were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub print: Option<Style>,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// Which events to follow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// Of these kinds; of all that are about flows, if none is named.
    #[serde(default)]
    pub kinds: Vec<Kind>,
    /// About these flows, or about expectations of such flows.
    #[serde(default)]
    pub filter: Filter,
}

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Watched {
    /// Something happened.
    Event(Box<EventRecord>),
    /// That many events were lost: of any kind where a worker had no room for them.
    Lost(u64),
}

/// Something that happened to a flow, or to an expectation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// What.
    pub event: Kind,
    /// When, in microseconds since 1970.
    pub time_us: u64,
    /// What an update changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<Change>,
    /// What it happened to, as it was then.
    #[serde(flatten)]
    pub subject: Shown,
}

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shown {
    /// A flow.
    Flow(FlowRecord),
    /// An expectation.
    Expectation(ExpectRecord),
}

/// What an update changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// The state, of TCP or SCTP.
    State,
    /// The first reply came.
    SeenReply,
    /// It is ASSURED now.
    Assured,
    /// Its mark.
    Mark,
}

/// A line of an answer with something in it.
#[derive(Debug, Serialize)]
pub(super) struct Row<'a, T> {
    pub(super) row: &'a T,
}

/// A line that so many bytes of text follow, which end with a whole line.
#[derive(Debug, Serialize)]
pub(super) struct Text {
    pub(super) text: usize,
}

/// The end of an answer that worked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Always true.
    pub done: bool,
    /// How many there were: rows, flows counted, flows ended.
    pub count: u64,
}

/// The end of an answer that did not.
#[derive(Debug, Serialize)]
pub(super) struct Failed {
    pub(super) error: String,
    #[serde(skip_serializing_if = "Value::is_null")]
    pub(super) diagnostics: Value,
}

/// Any line of an answer, as a client reads it.
#[derive(Debug, Deserialize)]
#[serde(bound = "T: Deserialize<'de>")]
pub(super) struct Line<T> {
    #[serde(default)]
    pub(super) row: Option<T>,
    #[serde(default)]
    pub(super) text: u64,
    #[serde(default)]
    pub(super) done: bool,
    #[serde(default)]
    pub(super) count: u64,
    #[serde(default)]
    pub(super) error: Option<String>,
    #[serde(default)]
    pub(super) diagnostics: Value,
}

/// What conntrack(8) calls a protocol; `None` for those that it calls unknown.
pub fn proto_name(number: u8) -> Option<&'static str> {
    Some(match number {
        proto::ICMP => "icmp",
        proto::TCP => "tcp",
        proto::UDP => "udp",
        proto::DCCP => "dccp",
        proto::GRE => "gre",
        proto::ICMPV6 => "icmpv6",
        proto::SCTP => "sctp",
        proto::UDPLITE => "udplite",
        _ => return None,
    })
}

/// The protocol that conntrack(8)'s `-p` means: one of its names, in any case, or a number.
pub fn proto_number(word: &str) -> Option<u8> {
    (0..=255)
        .find(|number| proto_name(*number).is_some_and(|name| name.eq_ignore_ascii_case(word)))
        .or_else(|| word.parse().ok())
}
