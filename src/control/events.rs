//! Log lines of rules: workers put events into a bounded channel, the control thread writes them
//! through `tracing`, at most so many a second, and says how many were lost.
//!
//! Concurrency: a [`Writer`] belongs to the control thread. Workers never wait for it: a full
//! channel loses the event, and the loss is counted.

use super::appliance::Appliance;
use crate::base::time::Now;
use crate::dataplane::worker::LogEvent;
use crate::policy::{Compiled, PortId};
use crossbeam::channel::Receiver;
use std::collections::BTreeMap;
use std::fmt;

/// Lines in a second.
const RATE: u32 = 1000;
/// Events that one call takes from the channel, so that the thread serves the rest too.
const DRAIN: usize = 65_536;

/// What the rules and ports of one policy are called.
#[derive(Debug, Default)]
pub struct Names {
    pub(super) generation: u32,
    rules: BTreeMap<u32, (String, String)>,
    ports: Vec<String>,
    peers: Vec<Option<PortId>>,
}

impl Names {
    /// Those of `policy`.
    pub fn of(policy: &Compiled) -> Self {
        let rules = policy.rules().map(|rule| {
            let prefix = policy.log_prefix(rule.id).unwrap_or_default();
            let name = policy.rule_name(rule.id);
            (rule.id.0, (name.to_owned(), prefix.to_owned()))
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

/// Writes log lines.
#[derive(Debug)]
pub struct Writer {
    events: Receiver<LogEvent>,
    second: u64,
    written: u32,
    lost: u64,
    /// What the workers had lost when it was last told.
    lost_before: u64,
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
        }
    }

    /// Writes what has arrived.
    pub fn drain(&mut self, appliance: &Appliance, now: Now) {
        let second = now.nanos() / 1_000_000_000;
        if second != self.second {
            self.second = second;
            self.written = 0;
            self.tell_lost(appliance);
        }
        for event in self.events.try_iter().take(DRAIN) {
            if self.written >= RATE {
                self.lost += 1;
                continue;
            }
            self.written += 1;
            match appliance.names(event.generation) {
                Some(names) => write(&event, &names),
                None => write(&event, &Names::default()),
            }
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
        .map_or(("", ""), |(rule, prefix)| (rule, prefix));
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
