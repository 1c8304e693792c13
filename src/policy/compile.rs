//! From a [`Policy`] to the form that workers evaluate: every chain laid out in one array of
//! operations, whose matches are small predicates in another array. First come those that are the
//! same for every packet of a flow that goes one way in one state, cheapest first; then those that
//! read the packet, so that it is known whether a verdict hung on them.
//!
//! Life-cycle: [`compile`] builds a [`Compiled`], the control thread publishes it, all workers
//! read it until the next one is published; then [`Compiled::carry_from`] moves the counts on.
//! Concurrency: immutable but for the counters, of which each worker writes only its own, the
//! buckets of limits, and the carried counts, which only the control thread touches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::calendar::{Calendar, TimeMatch};
use super::check::fnv1a;
use super::classify::Classifier;
use super::flow::Scope;
use super::limit::Limiter;
use super::model::{
    Action, AddrMatch, Chain, ChainPolicy, FORWARD, Family, FlagSet, HelperMatch, IcmpMatch, Log,
    MarkMatch, MarkValue, Matches, Policy, ProtoSet, RejectWith, Rule, StatusMatch, Zone,
};
use super::quick::Quick;
use super::ranges::{AddrSet, U16Set};
use super::timeouts::{Choice, ProfileId};
use super::{MAX_PORTS, PortId};
use crate::base::counter::Traffic;
use crate::base::time::Epoch;
use crate::conntrack::config::Config;
use crate::conntrack::helper::{HelperId, Permissions};
use crate::conntrack::types::Dir;

/// A rule, or a chain's policy, of one [`Compiled`]; says nothing about another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub u32);

/// A policy that workers evaluate.
#[derive(Debug)]
pub struct Compiled {
    pub(super) generation: u32,
    /// Another one for every policy of this process.
    pub(super) serial: u64,
    pub(super) conntrack: Config,
    pub(super) timeouts: Choice,
    pub(super) calendar: Arc<Calendar>,
    pub(super) epoch: Arc<Epoch>,
    pub(super) port_names: Vec<String>,
    pub(super) peers: [Option<PortId>; MAX_PORTS],
    /// Shared by both ports of a bridge.
    pub(super) ethertypes: [Option<Arc<[u16]>>; MAX_PORTS],
    pub(super) zones: [Zone; MAX_PORTS],
    pub(super) ops: Box<[Op]>,
    pub(super) preds: Box<[Pred]>,
    pub(super) tables: Tables,
    /// Finds the next operation to test; a policy of few rules has none.
    pub(super) classifier: Option<Classifier>,
    /// Flows that a policy with a lower serial number let begin are to be judged anew.
    pub(super) rematched: u64,
    /// Some rule asks for VLANs.
    pub(super) reads_vlans: bool,
    /// Some rule asks something of flows beside their state, or changes them.
    pub(super) asks_of_flows: bool,
    pub(super) forward: u32,
    pub(super) forward_policy: u32,
    pub(super) raw: u32,
    pub(super) helpers: u32,
    pub(super) has_helpers: bool,
    /// Index is that of `ops`; `None` for the end of a user chain.
    pub(super) rules: Vec<Option<Meta>>,
    pub(super) counters: Vec<Box<[Block]>>,
    /// What the rules had counted under earlier policies.
    pub(super) carried: Mutex<Vec<(u64, u64)>>,
    /// Ascending by name.
    pub(super) named: Vec<Named>,
}

/// What is only read to be shown.
#[derive(Debug)]
pub(super) struct Meta {
    pub(super) full_name: String,
    /// Where the rule's own name begins in `full_name`.
    pub(super) own: usize,
    pub(super) action: String,
    pub(super) log: Option<Log>,
    pub(super) hash: u64,
}

/// A named counter: what its rules count under this policy, and what it had before.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) name: String,
    /// Indices of those that feed it.
    pub(super) rules: Vec<u32>,
    pub(super) carried: Mutex<(u64, u64)>,
}

/// Counters of eight rules. The alignment keeps two workers' counters out of each other's cache
/// lines, and of the pair of lines that the prefetcher takes.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Block(pub(super) [Traffic; 8]);

/// One rule, ready to evaluate: a cache line, in which most of what it asks for stands too.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Op {
    /// Its usual matches.
    pub(super) quick: Quick,
    /// First of its predicates.
    pub(super) preds: u32,
    /// How many they are.
    pub(super) count: u8,
    /// How many of them, the first, are the same for all packets of a flow that go one way in one
    /// state.
    pub(super) fixed: u8,
    /// How many of these, the first, are in `quick`.
    pub(super) usual: u8,
    /// Whether it asks for the state, and for nothing else.
    pub(super) by_state: bool,
    /// Whether there are other predicates, or limits.
    pub(super) varies: bool,
    pub(super) logs: bool,
    pub(super) act: Act,
    /// Index of its [`Extra`], or [`NO_EXTRA`].
    pub(super) extra: u32,
}

/// [`Op::extra`] of a rule without.
pub(super) const NO_EXTRA: u32 = u32::MAX;

/// What few rules have.
#[derive(Debug)]
pub(super) struct Extra {
    pub(super) limit: Option<Limiter>,
    pub(super) connlimit: Option<Scope>,
    pub(super) mark: Option<MarkValue>,
    pub(super) timeouts: Option<ProfileId>,
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Accept,
    Drop,
    Reject(RejectWith),
    /// Reset for TCP, port unreachable for the rest.
    RejectAuto,
    Return,
    Jump(u32),
    Goto(u32),
    Continue,
    Notrack,
    /// A helper line's.
    Helper(HelperId, Permissions),
    /// The end of a user chain, of the raw rules, or of the helper lines: returns, and is not a rule.
    End,
}

/// One match. Larger values are indices into [`Tables`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Pred {
    State(u8),
    Iif(u64),
    Oif(u64),
    Dir(Dir),
    Family(Family),
    Status(StatusMatch),
    Helper(HelperMatch),
    Mark(u32),
    Proto(u8),
    Protos(u32),
    Flags(u32),
    Fragment(bool),
    Dscp(u64),
    Dport(u16, u16),
    Sport(u16, u16),
    Dports(u32),
    Sports(u32),
    Length(u32),
    Vlan(u32),
    Zone(u32),
    Icmp(u32),
    Time(u32),
    /// One range of IPv4, as most matches are.
    Src4(u32, u32),
    Dst4(u32, u32),
    Src {
        set: u32,
        negated: bool,
    },
    Dst {
        set: u32,
        negated: bool,
    },
}

const _: () = assert!(size_of::<Op>() == 64);

/// What predicates refer to.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) addrs: Vec<Arc<AddrSet>>,
    pub(super) numbers: Vec<U16Set>,
    pub(super) protos: Vec<ProtoSet>,
    /// Each once.
    pub(super) flags: Vec<FlagSet>,
    pub(super) icmp: Vec<IcmpMatch>,
    pub(super) marks: Vec<MarkMatch>,
    pub(super) times: Vec<TimeMatch>,
    pub(super) extras: Vec<Extra>,
}

/// Operations that are read one after the other sooner than classified.
const SMALL: usize = 24;

/// The serial number of the next policy; 0 is none's.
static SERIAL: AtomicU64 = AtomicU64::new(1);

/// Lays out `policy` for `workers` workers.
pub fn compile(policy: &Policy, generation: u32, workers: usize) -> Compiled {
    let timeouts = Choice::new(policy);
    let mut layout = Layout::new(policy);
    for chain in &policy.chains {
        for rule in &chain.rules {
            layout.rule(&chain.name, rule);
        }
        layout.end(chain);
    }
    let raw = layout.ops.len() as u32;
    for rule in &policy.raw {
        layout.rule("raw", rule);
    }
    layout.op(Act::End, None);
    let helpers = layout.ops.len() as u32;
    for line in &policy.helpers {
        layout.rule("helpers", line);
    }
    layout.op(Act::End, None);

    let forward = layout.start(FORWARD);
    let rules = policy
        .chains
        .iter()
        .find(|chain| chain.name == FORWARD)
        .map(|c| c.rules.len());
    let mut peers = [None; MAX_PORTS];
    let mut ethertypes = [const { None }; MAX_PORTS];
    let mut zones = [Zone::Fixed(0); MAX_PORTS];
    for bridge in &policy.bridges {
        let allowed: Arc<[u16]> = bridge.ethertypes.as_slice().into();
        for (port, peer) in [(bridge.a, bridge.b), (bridge.b, bridge.a)] {
            let at = usize::from(port.0);
            if at < MAX_PORTS {
                peers[at] = Some(peer);
                ethertypes[at] = Some(Arc::clone(&allowed));
                zones[at] = bridge.zone;
            }
        }
    }
    let mut rules_of_chains = policy.chains.iter().flat_map(|chain| &chain.rules);
    let asks_of_flows =
        rules_of_chains.any(|rule| rule.mark.is_some() || rule.matches.ask_of_flows());
    let blocks = layout.ops.len().div_ceil(8);
    let peer = |port: PortId| peers.get(usize::from(port.0)).copied().flatten();
    let classifier = (layout.ops.len() > SMALL)
        .then(|| Classifier::new(&layout.ops, &layout.preds, &layout.tables, &peer));
    let reads_vlans = layout
        .preds
        .iter()
        .any(|pred| matches!(pred, Pred::Vlan(_)));
    let named = layout.named.into_iter().map(|(name, rules)| Named {
        name,
        rules,
        carried: Mutex::default(),
    });
    Compiled {
        generation,
        serial: SERIAL.fetch_add(1, Ordering::Relaxed),
        conntrack: timeouts.config(&policy.conntrack),
        timeouts,
        calendar: policy.calendar.clone().unwrap_or_default(),
        epoch: Arc::default(),
        port_names: policy.ports.iter().map(|port| port.name.clone()).collect(),
        peers,
        ethertypes,
        zones,
        forward,
        forward_policy: forward + rules.unwrap_or(0) as u32,
        raw,
        helpers,
        has_helpers: !policy.helpers.is_empty(),
        counters: (0..workers)
            .map(|_| (0..blocks).map(|_| Block::default()).collect())
            .collect(),
        carried: Mutex::new(vec![(0, 0); layout.ops.len()]),
        ops: layout.ops.into_boxed_slice(),
        preds: layout.preds.into_boxed_slice(),
        tables: layout.tables,
        classifier,
        rematched: 0,
        reads_vlans,
        asks_of_flows,
        named: named.collect(),
        rules: layout.rules,
    }
}

/// A [`Compiled`] in the making.
struct Layout {
    starts: BTreeMap<String, u32>,
    /// How sets of timeouts are shown.
    profiles: Vec<String>,
    ops: Vec<Op>,
    preds: Vec<Pred>,
    tables: Tables,
    rules: Vec<Option<Meta>>,
    named: BTreeMap<String, Vec<u32>>,
    /// Where in `tables` the sets are.
    shared: BTreeMap<*const AddrSet, u32>,
    flags: BTreeMap<FlagSet, u32>,
}

impl Layout {
    fn new(policy: &Policy) -> Self {
        // every chain is its rules and one operation for its end
        let mut next = 0;
        let starts = policy.chains.iter().map(|chain| {
            let start = next;
            next += chain.rules.len() as u32 + 1;
            (chain.name.clone(), start)
        });
        Self {
            starts: starts.collect(),
            profiles: policy.profiles.iter().map(|one| one.text.clone()).collect(),
            ops: Vec::new(),
            preds: Vec::new(),
            tables: Tables::default(),
            rules: Vec::new(),
            named: BTreeMap::new(),
            shared: BTreeMap::new(),
            flags: BTreeMap::new(),
        }
    }

    fn start(&self, chain: &str) -> u32 {
        // a name that is no chain cannot pass the check; an index behind everything drops
        self.starts.get(chain).copied().unwrap_or(u32::MAX)
    }

    fn op(&mut self, act: Act, meta: Option<Meta>) {
        let preds = self.preds.len() as u32;
        self.ops.push(Op {
            quick: Quick::ANYTHING,
            preds,
            count: 0,
            fixed: 0,
            usual: 0,
            by_state: false,
            varies: false,
            logs: false,
            act,
            extra: NO_EXTRA,
        });
        self.rules.push(meta);
    }

    fn end(&mut self, chain: &Chain) {
        let (act, word) = match chain.policy {
            Some(ChainPolicy::Accept) => (Act::Accept, "accept"),
            Some(ChainPolicy::Drop) => (Act::Drop, "drop"),
            None => return self.op(Act::End, None),
        };
        let hash = u64::from(act == Act::Accept);
        self.op(
            act,
            Some(Meta::new(&chain.name, "policy", word, None, hash)),
        );
    }

    fn rule(&mut self, chain: &str, rule: &Rule) {
        let preds = self.preds.len() as u32;
        self.fixed(&rule.matches);
        let fixed = self.preds.len() as u32 - preds;
        // the usual ones to the front, the others in their order behind them
        let mut quick = Quick::ANYTHING;
        let all = self.preds.split_off(preds as usize);
        let (usual, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|it| quick.add(it));
        let by_state = matches!(*usual, [Pred::State(_)]) && fixed == 1;
        let usual_len = usual.len() as u8;
        self.preds.extend(usual.into_iter().chain(others));
        self.varying(&rule.matches);
        let count = self.preds.len() as u32 - preds;
        let rated = rule.matches.limit.is_some() || rule.matches.connlimit.is_some();
        let act = match &rule.action {
            Action::Accept => Act::Accept,
            Action::Drop => Act::Drop,
            Action::Reject(None) => Act::RejectAuto,
            Action::Reject(Some(with)) => Act::Reject(*with),
            Action::Return => Act::Return,
            Action::Jump(chain) => Act::Jump(self.start(chain)),
            Action::Goto(chain) => Act::Goto(self.start(chain)),
            Action::Continue => Act::Continue,
            Action::Notrack => Act::Notrack,
            Action::Helper(helper) => Act::Helper(helper.id, helper.permissions),
        };
        let extra = self.extra(chain, rule);
        self.ops.push(Op {
            preds,
            count: count as u8,
            quick,
            fixed: fixed as u8,
            usual: usual_len,
            by_state,
            varies: count > fixed || rated,
            logs: rule.log.is_some(),
            act,
            extra,
        });
        let log = rule.log.clone();
        let mut does = Vec::new();
        does.extend(rule.mark.map(|mark| format!("mark {mark}")));
        let timeouts = rule.timeouts;
        does.extend(timeouts.map(|id| format!("timeout {}", self.timeouts_name(id))));
        if let Some(counter) = &rule.counter {
            does.push(format!("count {counter}"));
            let at = self.rules.len() as u32;
            self.named.entry(counter.clone()).or_default().push(at);
        }
        match rule.action {
            Action::Continue if rule.log.is_none() && !does.is_empty() => {}
            Action::Continue if rule.log.is_none() => does.push("count".to_owned()),
            _ => does.push(rule.action.to_string()),
        }
        let action = does.join(", ");
        self.rules
            .push(Some(Meta::new(chain, &rule.name, &action, log, rule.hash)));
    }

    fn timeouts_name(&self, id: ProfileId) -> &str {
        let at = usize::from(id.0).checked_sub(1);
        let name = at.and_then(|at| self.profiles.get(at));
        name.map_or("default", String::as_str)
    }

    fn extra(&mut self, chain: &str, rule: &Rule) -> u32 {
        let extra = Extra {
            limit: rule.matches.limit.as_ref().map(Limiter::new),
            connlimit: rule.matches.connlimit.map(|limit| {
                let identity = format!("{chain}/{} {:x}", rule.name, rule.hash);
                let id = fnv1a(identity.as_bytes());
                Scope { id, limit }
            }),
            mark: rule.mark,
            timeouts: rule.timeouts,
        };
        match extra {
            Extra {
                limit: None,
                connlimit: None,
                mark: None,
                timeouts: None,
            } => NO_EXTRA,
            extra => index(&mut self.tables.extras, extra),
        }
    }

    /// What is the same for all packets of a flow that go one way in one state: cheapest first, and
    /// what most often fails before the rest.
    fn fixed(&mut self, m: &Matches) {
        let flat = [
            m.ct.map(Pred::State),
            m.iif.map(Pred::Iif),
            m.oif.map(Pred::Oif),
            m.dir.map(Pred::Dir),
            m.family.map(Pred::Family),
            m.helper.map(Pred::Helper),
        ];
        self.preds.extend(flat.into_iter().flatten());
        if let Some(mark) = &m.mark {
            let mark = index(&mut self.tables.marks, mark.clone());
            self.preds.push(Pred::Mark(mark));
        }
        if let Some(protos) = m.proto {
            let mut all = protos.iter();
            let pred = match (all.next(), all.next()) {
                (Some(only), None) => Pred::Proto(only),
                _ => Pred::Protos(index(&mut self.tables.protos, protos)),
            };
            self.preds.push(pred);
        }
        let numbers = &mut self.tables.numbers;
        let mut ports =
            |set: &U16Set, one: fn(u16, u16) -> Pred, many: fn(u32) -> Pred| match set.ranges() {
                [(low, high)] => one(*low, *high),
                _ => many(index(numbers, set.clone())),
            };
        let dport = m.dport.as_ref();
        let dport = dport.map(|set| ports(set, Pred::Dport, Pred::Dports));
        let sport = m.sport.as_ref();
        let sport = sport.map(|set| ports(set, Pred::Sport, Pred::Sports));
        let mut number = |set: &Option<U16Set>, pred: fn(u32) -> Pred| {
            let set = set.as_ref()?;
            Some(pred(index(numbers, set.clone())))
        };
        let (vlan, zone) = (number(&m.vlan, Pred::Vlan), number(&m.zone, Pred::Zone));
        let flat = [dport, sport, vlan, zone];
        self.preds.extend(flat.into_iter().flatten());
        if let Some(addr) = &m.daddr {
            let pred = self.addr(addr, Pred::Dst4, |set, negated| Pred::Dst { set, negated });
            self.preds.push(pred);
        }
        if let Some(addr) = &m.saddr {
            let pred = self.addr(addr, Pred::Src4, |set, negated| Pred::Src { set, negated });
            self.preds.push(pred);
        }
    }

    /// What reads the packet itself, or what changes while the flow stays in its state.
    fn varying(&mut self, m: &Matches) {
        let flags = m.tcp_flags.map(|set| {
            // of most policies they all fit a cache line or two
            let sets = &mut self.tables.flags;
            *self.flags.entry(set).or_insert_with(|| index(sets, set))
        });
        let length = m.length.as_ref();
        let length = length.map(|set| index(&mut self.tables.numbers, set.clone()));
        let icmp = m.icmp.as_ref();
        let icmp = icmp.map(|icmp| index(&mut self.tables.icmp, icmp.clone()));
        let time = m.time.as_ref();
        let time = time.map(|time| index(&mut self.tables.times, time.clone()));
        let flat = [
            m.status.map(Pred::Status),
            flags.map(Pred::Flags),
            m.fragment.map(Pred::Fragment),
            m.dscp.map(Pred::Dscp),
            length.map(Pred::Length),
            icmp.map(Pred::Icmp),
            time.map(Pred::Time),
        ];
        self.preds.extend(flat.into_iter().flatten());
    }

    fn addr(
        &mut self,
        addr: &AddrMatch,
        one: fn(u32, u32) -> Pred,
        many: fn(u32, bool) -> Pred,
    ) -> Pred {
        if let Some((low, high)) = addr.set.single_v4()
            && !addr.negated
        {
            return one(low, high);
        }
        // rules that name the same set share it
        let sets = &mut self.tables.addrs;
        let known = self.shared.entry(Arc::as_ptr(&addr.set));
        let set = known.or_insert_with(|| index(sets, Arc::clone(&addr.set)));
        many(*set, addr.negated)
    }
}

fn index<T>(table: &mut Vec<T>, value: T) -> u32 {
    table.push(value);
    table.len() as u32 - 1
}

impl Meta {
    fn new(chain: &str, name: &str, action: &str, log: Option<Log>, hash: u64) -> Self {
        let action = action.to_owned();
        Self {
            full_name: format!("{chain}/{name}"),
            own: chain.len() + 1,
            action,
            log,
            hash,
        }
    }
}
