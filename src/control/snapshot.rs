//! What commands show: plain values taken from the counters at one moment, in the form that
//! travels over the API socket and that `--format json` prints.
//!
//! Concurrency: every counter is read at some recent value; sums over workers are not one instant.

use super::appliance::{Appliance, NicStats, PortView, ReloadState};
use crate::base::counter::Counter;
use crate::conntrack::helper::Refusal;
use crate::conntrack::shard::{CtCounters, HelperCounters};
use crate::dataplane::shared::{Cause, WorkerCounters};
use crate::helpers;
use crate::pipeline::{Counters, DropReason};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The appliance as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Version of the running binary.
    pub version: String,
    /// Seconds since start.
    pub uptime: u64,
    /// How many workers run.
    pub workers: usize,
    /// Number of the policy in force.
    pub generation: u32,
    /// How the last reload went.
    pub reload: ReloadState,
    /// Frames.
    pub packets: PacketStats,
    /// Tracking.
    pub conntrack: ConntrackStats,
    /// What helpers did, a row for each that this build has.
    pub helpers: Vec<HelperRow>,
}

/// Where frames went: `received = forwarded + dropped + punted + held` at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketStats {
    /// Taken from ports.
    pub received: u64,
    /// Given to ports.
    pub forwarded: u64,
    /// Dropped, for whatever reason.
    pub dropped: u64,
    /// Given to the host.
    pub punted: u64,
    /// Fragments that wait for the rest of their datagram.
    pub held: u64,
    /// Made by the firewall itself, beside the balance.
    pub generated: u64,
    /// Datagrams that were put together from fragments.
    pub reassembled: u64,
    /// Datagrams of which fragments came and never all.
    pub reassembly_failed: u64,
}

/// The tracker's counts, in netfilter's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // the names are netfilter's; see CtCounters
pub struct ConntrackStats {
    pub entries: u64,
    pub limit: u32,
    pub found: u64,
    pub new: u64,
    pub invalid: u64,
    pub insert: u64,
    pub insert_failed: u64,
    pub drop: u64,
    pub early_drop: u64,
    pub delete: u64,
    pub icmp_error: u64,
    pub expectations: u64,
    pub expect_limit: u32,
    pub expect_new: u64,
    pub expect_create: u64,
    pub expect_delete: u64,
    pub events: EventStats,
}

/// Events of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventStats {
    /// Clients that watch.
    pub watchers: usize,
    /// Events that workers made.
    pub made: u64,
    /// Events that a worker's queue had no room for.
    pub lost_by_workers: u64,
    /// Events that a client did not read in time.
    pub lost_by_readers: u64,
}

/// One worker's tracking: a line of `conntrack -S`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // the names are netfilter's; see CtCounters
pub struct ConntrackRow {
    pub worker: usize,
    pub found: u64,
    pub invalid: u64,
    pub insert: u64,
    pub insert_failed: u64,
    pub drop: u64,
    pub early_drop: u64,
    pub error: u64,
    pub expect_new: u64,
    pub expect_create: u64,
    pub expect_delete: u64,
}

/// A helper, and what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelperRow {
    /// Its name.
    pub helper: String,
    /// Flows that it was attached to.
    pub flows: u64,
    /// Messages that it understood.
    pub parsed: u64,
    /// Expectations that it made.
    pub expected: u64,
    /// Flows that fulfilled one.
    pub used: u64,
    /// Expectations whose time was over.
    pub expired: u64,
    /// Expectations that ended otherwise.
    pub withdrawn: u64,
    /// What was refused, by the reason's name.
    pub refused: BTreeMap<String, u64>,
}

/// A rule and what it counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleRow {
    /// Its chain; `raw` before tracking, `counters` for a named counter.
    pub chain: String,
    /// Its name; `policy` for what the chain does at its end.
    pub rule: String,
    /// Packets that matched.
    pub packets: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// What it does.
    pub action: String,
}

/// A port and its traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRow {
    /// What it is.
    #[serde(flatten)]
    pub port: PortView,
    /// Frames taken from it.
    pub rx_packets: u64,
    /// Bytes of these.
    pub rx_bytes: u64,
    /// Frames given to it.
    pub tx_packets: u64,
    /// Bytes of these.
    pub tx_bytes: u64,
    /// What it counts itself.
    #[serde(flatten)]
    pub nic: NicStats,
    /// How often its link has changed.
    pub link_changes: u64,
    /// Packets whose worker was read from the hash that the port told.
    pub hash_used: u64,
    /// Hashes that the port told and that were wrong: no worker believes it after its first.
    pub hash_wrong: u64,
    /// What its driver counts, by the driver's names, if that was asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub xstats: BTreeMap<String, u64>,
}

/// A worker and its load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerRow {
    /// Its number.
    pub worker: usize,
    /// Flows that it owns.
    pub flows: u64,
    /// Frames that it took from ports.
    pub received: u64,
    /// Frames that it handed to other workers.
    pub handed_out: u64,
    /// Frames that other workers handed to it.
    pub handed_in: u64,
    /// Frames that it could not hand over, because a ring was full, or that it could not put by.
    pub handed_lost: u64,
    /// Why frames were to be handed over, by the cause's name.
    pub handed_why: BTreeMap<String, u64>,
    /// Buckets of flows that are its own.
    pub buckets: usize,
    /// Packets of these, whoever received them; not counted if there is one worker.
    pub owned: u64,
    /// The busiest of these buckets.
    pub busiest: u8,
    /// That bucket's packets.
    pub busiest_packets: u64,
    /// Seconds in loops that did something.
    pub busy_seconds: f64,
    /// Seconds in loops that found nothing.
    pub idle_seconds: f64,
    /// Loops.
    pub loops: u64,
    /// Loops that did something.
    pub busy_loops: u64,
    /// What 99 % of these did not exceed: the bound of a bucket of the histogram.
    pub loop_p99_seconds: f64,
    /// The longest of these.
    pub loop_longest_seconds: f64,
    /// How many of these took longer than 100 us.
    pub slow_loops: u64,
    /// Log lines lost because the control thread fell behind.
    pub log_lost: u64,
}

impl Appliance {
    /// The sum of a counter over the workers.
    pub(super) fn sum(&self, counter: impl Fn(&WorkerCounters) -> &Counter) -> u64 {
        let workers = self.shared.workers.iter();
        workers.map(|worker| counter(worker).get()).sum()
    }

    /// The appliance as a whole.
    pub fn stats(&self) -> Stats {
        let path = |counter: fn(&Counters) -> &Counter| self.sum(|worker| counter(&worker.path));
        let ct = |counter: fn(&CtCounters) -> &Counter| self.sum(|w| counter(&w.path.ct));
        Stats {
            version: VERSION.into(),
            // The clock's first reading is one second.
            uptime: (self.shared.clock.now().nanos() / 1_000_000_000).saturating_sub(1),
            workers: self.shared.workers.len(),
            generation: self.generation(),
            reload: self.reload_state(),
            packets: PacketStats {
                received: path(|c| &c.received),
                forwarded: path(|c| &c.forwarded),
                dropped: self
                    .shared
                    .workers
                    .iter()
                    .map(|w| w.path.dropped_total())
                    .sum(),
                punted: path(|c| &c.punted),
                held: path(|c| &c.held),
                generated: path(|c| &c.generated),
                reassembled: path(|c| &c.reassembled),
                reassembly_failed: path(|c| &c.reassembly_failed),
            },
            conntrack: ConntrackStats {
                entries: self.count(),
                limit: self.limit(),
                found: ct(|c| &c.found),
                new: ct(|c| &c.new),
                invalid: ct(|c| &c.invalid),
                insert: ct(|c| &c.insert),
                insert_failed: ct(|c| &c.insert_failed),
                drop: ct(|c| &c.drop),
                early_drop: ct(|c| &c.early_drop),
                delete: ct(|c| &c.delete),
                icmp_error: ct(|c| &c.icmp_error),
                expectations: self.count_expectations(),
                expect_limit: self.expect_limit(),
                expect_new: self.sum_helpers(|helper| helper.used.get()),
                expect_create: self.sum_helpers(|helper| helper.expected.get()),
                expect_delete: self.sum_helpers(HelperCounters::ended),
                events: self.events(),
            },
            helpers: self.helpers(),
        }
    }

    /// Who watches, and what became of the events.
    pub fn events(&self) -> EventStats {
        let (made, lost_by_workers, lost_by_readers) = self.hub().counts();
        EventStats {
            watchers: self.hub().watchers(),
            made,
            lost_by_workers,
            lost_by_readers,
        }
    }

    /// Tracking, by worker.
    pub fn conntrack(&self) -> Vec<ConntrackRow> {
        let workers = self.shared.workers.iter().enumerate();
        workers
            .map(|(worker, counters)| {
                let ct = &counters.path.ct;
                let helpers = |of: fn(&HelperCounters) -> u64| ct.helpers.iter().map(of).sum();
                ConntrackRow {
                    worker,
                    found: ct.found.get(),
                    invalid: ct.invalid.get(),
                    insert: ct.insert.get(),
                    insert_failed: ct.insert_failed.get(),
                    drop: ct.drop.get(),
                    early_drop: ct.early_drop.get(),
                    error: ct.icmp_error.get(),
                    expect_new: helpers(|helper| helper.used.get()),
                    expect_create: helpers(|helper| helper.expected.get()),
                    expect_delete: helpers(HelperCounters::ended),
                }
            })
            .collect()
    }

    /// The sum over workers and helpers.
    pub(super) fn sum_helpers(&self, of: fn(&HelperCounters) -> u64) -> u64 {
        let workers = self.shared.workers.iter();
        let helpers = workers.flat_map(|worker| &worker.path.ct.helpers);
        helpers.map(of).sum()
    }

    /// What each helper did.
    pub fn helpers(&self) -> Vec<HelperRow> {
        let infos = helpers::INFOS.iter().enumerate();
        infos
            .map(|(at, info)| {
                let sum = |of: fn(&HelperCounters) -> &Counter| {
                    self.sum(|worker| of(&worker.path.ct.helpers[at]))
                };
                let refused = Refusal::ALL.iter().map(|why| {
                    let count = |worker: &WorkerCounters| {
                        worker.path.ct.helpers[at].refused[*why as usize].get()
                    };
                    let count = self.shared.workers.iter().map(count).sum();
                    (why.name().to_owned(), count)
                });
                HelperRow {
                    helper: info.name.into(),
                    flows: sum(|helper| &helper.attached),
                    parsed: sum(|helper| &helper.parsed),
                    expected: sum(|helper| &helper.expected),
                    used: sum(|helper| &helper.used),
                    expired: sum(|helper| &helper.expired),
                    withdrawn: sum(|helper| &helper.withdrawn),
                    refused: refused.collect(),
                }
            })
            .collect()
    }

    /// The rules in force, `forward` first, then the other chains, then `raw`.
    pub fn rules(&self) -> Vec<RuleRow> {
        self.shared.policy.with(|policy| {
            let rules = policy.rules();
            rules
                .map(|rule| RuleRow {
                    chain: rule.chain.into(),
                    rule: rule.name.into(),
                    packets: rule.packets,
                    bytes: rule.bytes,
                    action: rule.action.into(),
                })
                .collect()
        })
    }

    /// The named counters, by name, as rows of the chain `counters`.
    pub fn counters(&self) -> Vec<RuleRow> {
        self.shared.policy.with(|policy| {
            let counters = policy.counters();
            counters
                .map(|counter| RuleRow {
                    chain: "counters".into(),
                    rule: counter.name.into(),
                    packets: counter.packets,
                    bytes: counter.bytes,
                    action: "count".into(),
                })
                .collect()
        })
    }

    /// The ports, in the policy's order.
    pub fn ports(&self) -> Vec<PortRow> {
        let links = self.links.lock().clone();
        let ports = self.ports.iter().zip(links).enumerate();
        ports
            .map(|(at, (port, (link, link_changes)))| PortRow {
                port: PortView {
                    link: link.map_or_else(|| port.link.clone(), |link| link.to_string()),
                    ..port.clone()
                },
                link_changes,
                hash_used: self.sum(|worker| &worker.ports[at].hash_used),
                hash_wrong: self.sum(|worker| &worker.ports[at].hash_wrong),
                xstats: BTreeMap::new(),
                rx_packets: self.sum(|worker| &worker.ports[at].rx.packets),
                rx_bytes: self.sum(|worker| &worker.ports[at].rx.bytes),
                tx_packets: self.sum(|worker| &worker.ports[at].tx.packets),
                tx_bytes: self.sum(|worker| &worker.ports[at].tx.bytes),
                nic: self.nics.stats(at),
            })
            .collect()
    }

    /// The same with what the drivers count.
    pub fn ports_with_xstats(&self) -> Vec<PortRow> {
        let mut rows = self.ports();
        for (at, row) in rows.iter_mut().enumerate() {
            row.xstats = self.nics.xstats(at).into_iter().collect();
        }
        rows
    }

    /// The workers.
    pub fn workers(&self) -> Vec<WorkerRow> {
        let workers = self.shared.workers.iter().zip(self.owned()).enumerate();
        workers
            .map(
                |(worker, (counters, (owned, buckets, busiest, busiest_packets)))| {
                    let ct = &counters.path.ct;
                    let ended = ct.delete.get();
                    let busy = counters.busy.get();
                    let causes = Cause::ALL.iter();
                    let handed_why = causes.map(|cause| {
                        let count = counters.handed[*cause as usize].get();
                        (cause.name().to_owned(), count)
                    });
                    WorkerRow {
                        worker,
                        flows: ct.insert.get().saturating_sub(ended),
                        received: counters.path.received.get(),
                        handed_out: counters.handed_out.get(),
                        handed_in: counters.handed_in.get(),
                        handed_lost: counters.path.drops[DropReason::HandoffFull as usize].get(),
                        handed_why: handed_why.collect(),
                        buckets,
                        owned,
                        busiest,
                        busiest_packets,
                        busy_seconds: seconds(busy.sum),
                        idle_seconds: seconds(counters.idle_nanos.get()),
                        loops: counters.loops.get(),
                        busy_loops: busy.count(),
                        loop_p99_seconds: busy.quantile(0.99) / 1e9,
                        loop_longest_seconds: seconds(busy.longest),
                        slow_loops: busy.slow(),
                        log_lost: counters.log_lost.get(),
                    }
                },
            )
            .collect()
    }
}

/// Nanoseconds as seconds.
pub(super) fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}
