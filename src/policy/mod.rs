//! The policy: model, checking, compiling, evaluating.
//!
//! Text becomes a tree with places (`yaml`), the tree a [`Policy`] or a list of everything that is
//! wrong (`check`), the policy a [`Compiled`] that all workers read (`compile`, `eval`). Pure but
//! for [`load()`], which reads the policy file; time is an argument.
mod calendar;
mod check;
mod classify;
mod compile;
mod compiled;
mod diagnostic;
mod difference;
mod eval;
mod explain;
mod flow;
pub mod import;
mod limit;
mod load;
mod model;
mod names;
mod prospect;
mod quick;
#[cfg(test)]
pub(crate) mod random;
mod ranges;
mod restart;
mod schema;
mod timeouts;
mod yaml;

pub use calendar::{Calendar, TimeMatch};
pub use check::{Checked, parse};
pub use compile::{Compiled, RuleId, compile};
pub use compiled::{CounterInfo, RuleInfo};
pub use diagnostic::{Diagnostic, PolicyErrors, Severity};
pub use difference::{Became, Change, Written, difference};
pub use eval::{Decision, Facts, RawVerdict, Steps, Trail, Verdict};
pub use explain::{Given, Narrator, PacketInWords, Step, tcp_flag_names, vocabulary};
pub use flow::{Counted, FlowFacts};
pub use limit::Bucket;
pub use load::{MAX_POLICY, load};
pub use model::{
    Action, AddrMatch, Bridge, ByteSet, Chain, ChainPolicy, ConnLimit, FORWARD, Family, FlagSet,
    Helper, HelperMatch, Hugepages, IcmpMatch, IcmpType, Idle, Limit, Log, LogTo, MAX_JUMPS,
    MarkMatch, MarkValue, Matches, Per, Policy, Port, ProtoSet, RejectWith, ReloadMode, Rule,
    StatusMatch, StatusPage, System, Workers, Zone, flow_status,
};
pub use names::protocol_name;
pub use prospect::{Fate, Prospect};
pub use ranges::{AddrSet, BadRange, IpRange, U16Set};
pub use restart::restart_needed;
pub use schema::schema;
pub use timeouts::{NoNumber, Profile, ProfileId};

/// A port of the policy, by its place in `ports:`; index into every per-port array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortId(pub u8);

/// Most rules with a `connlimit` in one policy: so many counts may hold a flow.
pub const MAX_CONNLIMITS: usize = crate::conntrack::ledger::MAX_COUNTS;

/// Most rules with a `limit` by source, destination or zone in one policy.
pub const MAX_KEYED_LIMITS: usize = 64;

/// Most ports that one box can have.
pub const MAX_PORTS: usize = 64;
