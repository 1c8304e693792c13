//! Prometheus metrics: every name once, read from the workers' counters at each scrape.
//!
//! Life-cycle: a [`Metrics`] lives as long as the control thread. Concurrency: a scrape reads
//! counters that have one writer each; it costs the workers nothing. The rules' counts are read
//! under the lock that a reload takes, so a scrape runs on a helper thread.

use super::appliance::Appliance;
use super::health::Health;
use super::snapshot::{VERSION, seconds};
use crate::base::counter::Counter;
use crate::base::histogram::{BOUNDS, Histogram, Times};
use crate::conntrack::shard::CtCounters;
use crate::dataplane::shared::Cause;
use crate::pipeline::{Counters, DropReason};
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, LabelPair, MetricFamily, MetricType};
use prometheus::{Registry, TEXT_FORMAT, TextEncoder};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Declares every metric once.
macro_rules! metrics {
    ($($id:ident $kind:ident $name:literal $help:literal)*) => {
        #[derive(Clone, Copy)]
        enum Id { $($id),* }

        /// Every metric that a scrape exports.
        pub const NAMES: &[&str] = &[$($name),*];

        const HELP: &[&str] = &[$($help),*];

        const KINDS: &[MetricType] = &[$(MetricType::$kind),*];
    };
}

metrics! {
    BuildInfo GAUGE "shardwall_build_info" "Always 1; the version that runs is its label."
    Entries GAUGE "shardwall_conntrack_entries" "Flows in the table."
    EntriesLimit GAUGE "shardwall_conntrack_entries_limit" "Most flows that the table holds."
    Found COUNTER "shardwall_conntrack_found_total" "Lookups that found a flow."
    New COUNTER "shardwall_conntrack_new_total" "Packets that could start a flow."
    Invalid COUNTER "shardwall_conntrack_invalid_total" "Packets judged INVALID."
    Insert COUNTER "shardwall_conntrack_insert_total" "Flows entered into the table."
    InsertFailed COUNTER "shardwall_conntrack_insert_failed_total" "Flows for which the index had no room."
    CtDrop COUNTER "shardwall_conntrack_drop_total" "Packets dropped because the table was full."
    EarlyDrop COUNTER "shardwall_conntrack_early_drop_total" "Flows that had to go before their time, because the table was full."
    Events COUNTER "shardwall_conntrack_events_total" "Events of flows made for those who watch."
    EventsLost COUNTER "shardwall_conntrack_events_lost_total" "Events lost because a queue was full: a worker's, or a reader's."
    Delete COUNTER "shardwall_conntrack_delete_total" "Flows that ended."
    IcmpError COUNTER "shardwall_conntrack_icmp_error_total" "ICMP errors that quote no known flow."
    Expectations GAUGE "shardwall_expectations" "Flows that helpers expect."
    ExpectationsLimit GAUGE "shardwall_expectations_limit" "Most flows that helpers expect at a time."
    HelperFlows COUNTER "shardwall_helper_flows_total" "Flows that the helper was attached to."
    HelperParsed COUNTER "shardwall_helper_parsed_total" "Messages that the helper understood."
    HelperExpected COUNTER "shardwall_helper_expected_total" "Expectations that the helper made."
    HelperUsed COUNTER "shardwall_helper_used_total" "Flows that fulfilled an expectation of the helper."
    HelperExpired COUNTER "shardwall_helper_expired_total" "Expectations whose time was over before a flow came."
    HelperWithdrawn COUNTER "shardwall_helper_withdrawn_total" "Expectations that ended with the flow that announced them, made room for newer ones, or were taken back."
    HelperRefused COUNTER "shardwall_helper_refused_total" "What payloads asked for and did not get, by reason."
    Received COUNTER "shardwall_received_packets_total" "Packets taken from ports."
    Forwarded COUNTER "shardwall_forwarded_packets_total" "Packets handed to ports."
    Punted COUNTER "shardwall_punted_packets_total" "Packets given to the host's own stack."
    Generated COUNTER "shardwall_generated_packets_total" "Packets that the firewall made itself."
    Held GAUGE "shardwall_fragments_held" "Fragments that wait for the rest of their datagram."
    Reassembly COUNTER "shardwall_reassembly_datagrams_total" "Datagrams of which fragments came: put together (ok) or given up (failed)."
    Drops COUNTER "shardwall_drop_packets_total" "Dropped packets by reason."
    RxPackets COUNTER "shardwall_port_rx_packets_total" "Packets taken from the port."
    RxBytes COUNTER "shardwall_port_rx_bytes_total" "Bytes taken from the port."
    TxPackets COUNTER "shardwall_port_tx_packets_total" "Packets handed to the port."
    TxBytes COUNTER "shardwall_port_tx_bytes_total" "Bytes handed to the port."
    Missed COUNTER "shardwall_port_missed_packets_total" "Packets that found the port's receive queues full."
    RxErrors COUNTER "shardwall_port_rx_errors_total" "Packets that came to the port damaged."
    NoBuffer COUNTER "shardwall_port_no_buffer_total" "Receives of the port that found no free buffer."
    TxErrors COUNTER "shardwall_port_tx_errors_total" "Packets that the port could not send."
    LinkUp GAUGE "shardwall_port_link_up" "Whether the port's link is up (1) or down (0); -1 where that cannot be known."
    LinkChanges COUNTER "shardwall_port_link_changes_total" "Changes of the port's link, in state or speed."
    HashUsed COUNTER "shardwall_port_hash_used_packets_total" "Packets whose worker was read from the hash that the port told."
    HashWrong COUNTER "shardwall_port_hash_wrong_total" "Hashes that the port told and that were wrong."
    HitPackets COUNTER "shardwall_policy_hits_packets_total" "Packets that matched the rule."
    HitBytes COUNTER "shardwall_policy_hits_bytes_total" "Bytes of the packets that matched the rule."
    CounterPackets COUNTER "shardwall_policy_counter_packets_total" "Packets that matched the rules which feed the named counter."
    CounterBytes COUNTER "shardwall_policy_counter_bytes_total" "Bytes of the packets that matched the rules which feed the named counter."
    Loop HISTOGRAM "shardwall_worker_loop_seconds" "Time of the worker's loops that did something: moved packets, or did what a command asked for."
    LoopLongest GAUGE "shardwall_worker_loop_longest_seconds" "The longest of the worker's loops that did something."
    Cycles COUNTER "shardwall_worker_cycles_seconds_total" "Time in loops that did something (busy) or found nothing (idle)."
    Handoff COUNTER "shardwall_worker_handoff_packets_total" "Packets handed to other workers (out) or taken from them (in)."
    HandoffWhy COUNTER "shardwall_worker_handoff_cause_packets_total" "Packets that were to be handed to other workers, by cause."
    Owned GAUGE "shardwall_worker_owned_packets" "Packets of the buckets that are the worker's now, whoever received them; falls when a bucket goes."
    Generation GAUGE "shardwall_config_generation" "Number of the policy in force."
    ReloadSuccessful GAUGE "shardwall_config_last_reload_successful" "Whether the last reload worked."
    ReloadSuccess GAUGE "shardwall_config_last_reload_success_timestamp_seconds" "When a reload worked last; the start counts."
}

/// Finds a counter.
type Of<T> = fn(&T) -> &Counter;

/// What a value is labelled with.
type Labels<'a> = &'a [(&'static str, &'a str)];

/// The families of one scrape.
struct Families(Vec<MetricFamily>);

impl Families {
    fn new() -> Self {
        let all = NAMES.iter().zip(HELP).zip(KINDS);
        let all = all.map(|((name, help), kind)| {
            let mut family = MetricFamily::default();
            family.set_name((*name).to_owned());
            family.set_help((*help).to_owned());
            family.set_field_type(*kind);
            family
        });
        Self(all.collect())
    }

    fn metric(labels: Labels<'_>) -> proto::Metric {
        let labels = labels.iter().map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        proto::Metric::from_label(labels.collect())
    }

    fn add_times(&mut self, id: Id, labels: Labels<'_>, times: &Times) {
        let mut seen = 0;
        let buckets = (0..BOUNDS).map(|at| {
            seen += times.counts[at];
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(Histogram::bound(at) / 1e9);
            bucket.set_cumulative_count(seen);
            bucket
        });
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(times.count());
        histogram.set_sample_sum(times.sum as f64 / 1e9);
        let mut metric = Self::metric(labels);
        metric.set_histogram(histogram);
        self.0[id as usize].mut_metric().push(metric);
    }

    fn add(&mut self, id: Id, labels: Labels<'_>, value: f64) {
        let mut metric = Self::metric(labels);
        match KINDS[id as usize] {
            MetricType::COUNTER => {
                let mut counter = proto::Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            _ => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        }
        self.0[id as usize].mut_metric().push(metric);
    }
}

/// Reads the appliance at each scrape.
struct Reader {
    appliance: Arc<Appliance>,
    descs: Vec<Desc>,
}

impl Collector for Reader {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut out = Families::new();
        let appliance = &self.appliance;
        out.add(Id::BuildInfo, &[("version", VERSION)], 1.0);
        tracking(appliance, &mut out);
        helpers(appliance, &mut out);
        packets(appliance, &mut out);
        ports(appliance, &mut out);
        for rule in appliance.rules() {
            let name = format!("{}/{}", rule.chain, rule.rule);
            let labels: Labels<'_> = &[("rule", &name)];
            out.add(Id::HitPackets, labels, rule.packets as f64);
            out.add(Id::HitBytes, labels, rule.bytes as f64);
        }
        for counter in appliance.counters() {
            let labels: Labels<'_> = &[("counter", &counter.rule)];
            out.add(Id::CounterPackets, labels, counter.packets as f64);
            out.add(Id::CounterBytes, labels, counter.bytes as f64);
        }
        workers(appliance, &mut out);
        let reload = appliance.reload_state();
        let successful = f64::from(u8::from(reload.successful));
        out.add(Id::Generation, &[], f64::from(appliance.generation()));
        out.add(Id::ReloadSuccessful, &[], successful);
        out.add(Id::ReloadSuccess, &[], reload.last_success);
        out.0
    }
}

fn tracking(appliance: &Appliance, out: &mut Families) {
    for (at, proto) in ["tcp", "udp", "other"].into_iter().enumerate() {
        let entries = appliance.sum(|worker| &worker.path.ct.entries[at]);
        out.add(Id::Entries, &[("proto", proto)], entries as f64);
    }
    out.add(Id::EntriesLimit, &[], f64::from(appliance.limit()));
    let counters: [(Id, Of<CtCounters>); 9] = [
        (Id::Found, |ct| &ct.found),
        (Id::New, |ct| &ct.new),
        (Id::Invalid, |ct| &ct.invalid),
        (Id::Insert, |ct| &ct.insert),
        (Id::InsertFailed, |ct| &ct.insert_failed),
        (Id::CtDrop, |ct| &ct.drop),
        (Id::EarlyDrop, |ct| &ct.early_drop),
        (Id::Delete, |ct| &ct.delete),
        (Id::IcmpError, |ct| &ct.icmp_error),
    ];
    for (id, counter) in counters {
        let value = appliance.sum(|worker| counter(&worker.path.ct));
        out.add(id, &[], value as f64);
    }
    let events = appliance.events();
    out.add(Id::Events, &[], events.made as f64);
    let lost = [
        ("worker", events.lost_by_workers),
        ("reader", events.lost_by_readers),
    ];
    for (queue, lost) in lost {
        out.add(Id::EventsLost, &[("queue", queue)], lost as f64);
    }
}

fn helpers(appliance: &Appliance, out: &mut Families) {
    out.add(Id::Expectations, &[], appliance.count_expectations() as f64);
    let limit = f64::from(appliance.expect_limit());
    out.add(Id::ExpectationsLimit, &[], limit);
    for row in appliance.helpers() {
        let helper = ("helper", row.helper.as_str());
        let counters = [
            (Id::HelperFlows, row.flows),
            (Id::HelperParsed, row.parsed),
            (Id::HelperExpected, row.expected),
            (Id::HelperUsed, row.used),
            (Id::HelperExpired, row.expired),
            (Id::HelperWithdrawn, row.withdrawn),
        ];
        for (id, count) in counters {
            out.add(id, &[helper], count as f64);
        }
        for (reason, count) in &row.refused {
            let labels = [helper, ("reason", reason)];
            out.add(Id::HelperRefused, &labels, *count as f64);
        }
    }
}

fn packets(appliance: &Appliance, out: &mut Families) {
    let counters: [(Id, Of<Counters>); 4] = [
        (Id::Received, |path| &path.received),
        (Id::Forwarded, |path| &path.forwarded),
        (Id::Punted, |path| &path.punted),
        (Id::Generated, |path| &path.generated),
    ];
    for (id, counter) in counters {
        let value = appliance.sum(|worker| counter(&worker.path));
        out.add(id, &[], value as f64);
    }
    let held = appliance.sum(|worker| &worker.path.held);
    out.add(Id::Held, &[], held as f64);
    let results: [(&str, Of<Counters>); 2] = [
        ("ok", |path| &path.reassembled),
        ("failed", |path| &path.reassembly_failed),
    ];
    for (result, counter) in results {
        let value = appliance.sum(|worker| counter(&worker.path));
        out.add(Id::Reassembly, &[("result", result)], value as f64);
    }
    for reason in DropReason::ALL {
        let count = appliance.sum(|worker| &worker.path.drops[*reason as usize]);
        out.add(Id::Drops, &[("reason", reason.name())], count as f64);
    }
}

fn ports(appliance: &Appliance, out: &mut Families) {
    for row in appliance.ports() {
        let labels: Labels<'_> = &[("port", &row.port.name)];
        out.add(Id::RxPackets, labels, row.rx_packets as f64);
        out.add(Id::RxBytes, labels, row.rx_bytes as f64);
        out.add(Id::TxPackets, labels, row.tx_packets as f64);
        out.add(Id::TxBytes, labels, row.tx_bytes as f64);
        out.add(Id::Missed, labels, row.nic.missed as f64);
        out.add(Id::RxErrors, labels, row.nic.rx_errors as f64);
        out.add(Id::NoBuffer, labels, row.nic.no_buffer as f64);
        out.add(Id::TxErrors, labels, row.nic.tx_errors as f64);
        out.add(Id::LinkChanges, labels, row.link_changes as f64);
        out.add(Id::HashUsed, labels, row.hash_used as f64);
        out.add(Id::HashWrong, labels, row.hash_wrong as f64);
    }
    let links = appliance.links.lock();
    for (port, (link, _)) in appliance.ports.iter().zip(links.iter()) {
        let up = link.map_or(-1.0, |link| f64::from(u8::from(link.up)));
        out.add(Id::LinkUp, &[("port", &port.name)], up);
    }
}

fn workers(appliance: &Appliance, out: &mut Families) {
    for (worker, counters) in appliance.shared.workers.iter().enumerate() {
        let worker = worker.to_string();
        let kind = |kind| [("worker", worker.as_str()), ("kind", kind)];
        let direction = |way| [("worker", worker.as_str()), ("direction", way)];
        let busy = counters.busy.get();
        let alone = [("worker", worker.as_str())];
        out.add_times(Id::Loop, &alone, &busy);
        out.add(Id::LoopLongest, &alone, seconds(busy.longest));
        out.add(Id::Cycles, &kind("busy"), seconds(busy.sum));
        let idle = seconds(counters.idle_nanos.get());
        out.add(Id::Cycles, &kind("idle"), idle);
        let (taken, given) = (counters.handed_in.get(), counters.handed_out.get());
        out.add(Id::Handoff, &direction("in"), taken as f64);
        out.add(Id::Handoff, &direction("out"), given as f64);
        for cause in Cause::ALL {
            let count = counters.handed[*cause as usize].get();
            let labels = [("worker", worker.as_str()), ("cause", cause.name())];
            out.add(Id::HandoffWhy, &labels, count as f64);
        }
    }
    for (worker, (owned, ..)) in appliance.owned().into_iter().enumerate() {
        let worker = worker.to_string();
        out.add(Id::Owned, &[("worker", &worker)], owned as f64);
    }
}

/// The metrics of one appliance.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    limit: Arc<Scrapes>,
}

/// Scrapes at once: more would only pile up behind one another.
const SCRAPES: usize = 4;

#[derive(Debug, Default)]
struct Scrapes(AtomicUsize);

impl Metrics {
    /// Those of `appliance`.
    pub fn new(appliance: Arc<Appliance>) -> prometheus::Result<Self> {
        let descs = NAMES.iter().zip(HELP).map(|(name, help)| {
            Desc::new((*name).into(), (*help).into(), Vec::new(), HashMap::new())
        });
        let descs = descs.collect::<prometheus::Result<_>>()?;
        let registry = Registry::new();
        registry.register(Box::new(Reader { appliance, descs }))?;
        Ok(Self {
            registry,
            limit: Arc::default(),
        })
    }

    /// One scrape, in Prometheus' text format.
    pub fn scrape(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// `/metrics` and `/healthz`.
    pub(super) fn router(self, health: Arc<Health>) -> Router {
        Router::new()
            .route("/metrics", get(move || self.respond()))
            .route("/healthz", get(async move || health.respond()))
    }

    async fn respond(self) -> Response {
        if self.limit.0.fetch_add(1, Ordering::Relaxed) >= SCRAPES {
            self.limit.0.fetch_sub(1, Ordering::Relaxed);
            return (StatusCode::SERVICE_UNAVAILABLE, "too many scrapes\n").into_response();
        }
        let limit = self.limit.clone();
        let scraped = tokio::task::spawn_blocking(move || {
            let scraped = self.scrape();
            limit.0.fetch_sub(1, Ordering::Relaxed);
            scraped
        });
        match scraped.await {
            Ok(Ok(text)) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
            Ok(Err(error)) => failure(&error),
            Err(error) => failure(&error),
        }
    }
}

fn failure(error: &dyn std::error::Error) -> Response {
    tracing::error!(%error, "metrics: a scrape failed");
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
}
