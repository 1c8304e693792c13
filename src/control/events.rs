//! Log lines of rules: workers put events into a bounded channel, the control thread writes them
//! through `tracing`, of each rule so many as its `log` allows and of all together at most so many a
//! second, and says how many were suppressed or lost.
//!
//! Concurrency: a [`Writer`] belongs to the control thread. Workers never wait for it: a full
//! channel loses the event, and the loss is counted.

use super::appliance::Appliance;
use crate::base::counter::Counter;
use crate::base::time::Now;
use crate::dataplane::worker::LogEvent;
use crate::policy::{Bucket, Compiled, Limit, Log, PortId};
use crossbeam::channel::Receiver;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Lines in a second.
const RATE: u32 = 1000;
/// Rules of which one second tells how many lines were suppressed.
const TOLD: usize = 100;
/// Events that one call takes from the channel, so that the thread serves the rest too.
const DRAIN: usize = 65_536;

/// What the rules and ports of one policy are called.
#[derive(Debug, Default)]
pub struct Names {
    pub(super) generation: u32,
    rules: BTreeMap<u32, (String, Log)>,
    ports: Vec<String>,
    peers: Vec<Option<PortId>>,
}

impl Names {
    /// Those of `policy`.
    pub fn of(policy: &Compiled) -> Self {
        let rules = policy.rules().filter_map(|rule| {
            let name = policy.rule_name(rule.id).to_owned();
            Some((rule.id.0, (name, policy.log(rule.id)?.clone())))
        });
        let ports = policy.port_names();
        Self {
            generation: policy.generation(),
            rules: rules.collect(),
            ports: ports.to_vec(),
            peers: (0..ports.len())
                .map(|port| policy.peer(PortId(port as u8)))
                .collect(),
        }
    }

    fn port(&self, port: Option<PortId>) -> &str {
        port.and_then(|port| self.ports.get(usize::from(port.0)))
            .map_or("", String::as_str)
    }
}

/// What became of log lines. One writer: the control thread.
#[derive(Debug, Default)]
pub struct LogCounts {
    /// Written.
    pub written: Counter,
    /// Beyond what the rule's `log` allows.
    pub suppressed: Counter,
    /// Beyond what the box writes in a second.
    pub lost: Counter,
}

/// Writes log lines.
#[derive(Debug)]
pub struct Writer {
    events: Receiver<LogEvent>,
    second: u64,
    written: u32,
    lost: u64,
    /// What the workers had lost when it was last told.
    lost_before: u64,
    /// Of rules that wrote lately, by name: a reload that leaves the rest of a rule leaves its level.
    levels: BTreeMap<String, Level>,
}

/// How much one rule may still write.
#[derive(Debug)]
struct Level {
    limit: Limit,
    bucket: Bucket,
    suppressed: u64,
}

impl Level {
    fn new(limit: Limit) -> Self {
        Self {
            limit,
            bucket: Bucket::new(&limit),
            suppressed: 0,
        }
    }
}

impl Writer {
    /// Writes what comes out of `events`.
    pub fn new(events: Receiver<LogEvent>) -> Self {
        Self {
            events,
            second: 0,
            written: 0,
            lost: 0,
            lost_before: 0,
            levels: BTreeMap::new(),
        }
    }

    /// Writes what has arrived.
    pub fn drain(&mut self, appliance: &Appliance, now: Now) {
        let second = now.nanos() / 1_000_000_000;
        if second != self.second {
            self.second = second;
            self.written = 0;
            self.tell_suppressed();
            self.tell_lost(appliance);
            let busy = |level: &Level| level.suppressed > 0 || !level.bucket.is_full(now);
            self.levels.retain(|_, level| busy(level));
        }
        let mut names = None;
        for event in self.events.clone().try_iter().take(DRAIN) {
            let known: &mut Arc<Names> = match &mut names {
                Some((generation, names)) if *generation == event.generation => names,
                stale => {
                    let names = appliance.names(event.generation).unwrap_or_default();
                    &mut stale.insert((event.generation, names)).1
                }
            };
            let counts = &appliance.logged;
            if !self.within_limit(&event, known, now) {
                counts.suppressed.add(1);
                continue;
            }
            if self.written >= RATE {
                self.lost += 1;
                counts.lost.add(1);
                continue;
            }
            self.written += 1;
            counts.written.add(1);
            write(&event, known);
        }
    }

    /// Writes what has arrived, and what there is to tell, for the last time.
    pub fn finish(&mut self, appliance: &Appliance, now: Now) {
        self.drain(appliance, now);
        self.tell_suppressed();
        self.tell_lost(appliance);
    }

    /// Whether the rule may write another line; counts it as suppressed if not.
    fn within_limit(&mut self, event: &LogEvent, names: &Names, now: Now) -> bool {
        let Some((rule, log)) = names.rules.get(&event.rule.0) else {
            return true;
        };
        if !self.levels.contains_key(rule) {
            self.levels.insert(rule.clone(), Level::new(log.limit));
        }
        let Some(level) = self.levels.get_mut(rule) else {
            return true;
        };
        if level.limit != log.limit {
            level.limit = log.limit;
            level.bucket = Bucket::new(&log.limit);
        }
        let fits = level.bucket.take(now);
        level.suppressed += u64::from(!fits);
        fits
    }

    fn tell_suppressed(&mut self) {
        let levels = self.levels.iter_mut();
        let silent = levels.filter(|(_, level)| level.suppressed > 0);
        for (rule, level) in silent.take(TOLD) {
            let lines = std::mem::take(&mut level.suppressed);
            tracing::warn!(
                target: "shardwall::rule",
                rule,
                suppressed = lines,
                "{lines} lines of rule {rule} suppressed"
            );
        }
    }

    fn tell_lost(&mut self, appliance: &Appliance) {
        let by_workers = appliance.sum(|worker| &worker.log_lost);
        let lost = self.lost + by_workers.saturating_sub(self.lost_before);
        self.lost_before = by_workers;
        self.lost = 0;
        if lost > 0 {
            tracing::warn!(
                target: "shardwall::rule",
                lost,
                "log lines lost: more than {RATE} in a second"
            );
        }
    }
}

/// A protocol's name, or its number.
struct Proto(u8);

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match crate::control::protocol::proto_name(self.0) {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

fn write(event: &LogEvent, names: &Names) {
    let (rule, prefix) = names
        .rules
        .get(&event.rule.0)
        .map_or(("", ""), |(rule, log)| {
            (rule, log.prefix.as_deref().unwrap_or_default())
        });
    let peer = names.peers.get(usize::from(event.iif.0)).copied().flatten();
    let packet = &event.packet;
    tracing::info!(
        target: "shardwall::rule",
        prefix,
        rule,
        verdict = event.disposition.verdict(),
        iif = names.port(Some(event.iif)),
        oif = names.port(peer),
        proto = %Proto(packet.proto),
        src = %packet.addrs.src(),
        dst = %packet.addrs.dst(),
        sport = packet.sport(),
        dport = packet.dport(),
        state = event.state.name(),
        len = packet.ip_len(),
    );
}
