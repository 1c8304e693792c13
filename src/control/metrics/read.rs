//! What a scrape reads: the workers' counters, and what the control side knows itself.
//!
//! Concurrency: every counter has one writer and is read at some recent value; it costs the workers a
//! cache line each. The rules' counts are read under the lock that a reload takes, so this runs on a
//! helper thread.

use super::families::Families;
use super::names::Id;
use crate::base::counter::Counter;
use crate::conntrack::shard::CtCounters;
use crate::conntrack::types::TcpState;
use crate::control::appliance::Appliance;
use crate::control::snapshot::{VERSION, seconds};
use crate::dataplane::handoff::RING;
use crate::dataplane::shared::Cause;
use crate::pipeline::{Counters, DropReason};
use std::time::Duration;

/// Rules, and named counters, that have a series of their own; those beyond are summed up as [`OTHER`].
pub const SERIES: usize = 1000;
/// No rule's name, which has its chain's before it, and no counter's.
pub const OTHER: &str = "(other)";

/// How long a scrape waits for a reload. One that waits for a worker that is stuck must not keep the
/// metrics that say so.
const PATIENCE: Duration = Duration::from_secs(1);

/// Finds a counter.
type Of<T> = fn(&T) -> &Counter;

/// Everything, into `out`.
pub(super) fn all(appliance: &Appliance, out: &mut Families) {
    out.add(Id::BuildInfo, &[VERSION], 1.0);
    out.add(Id::Start, &[], appliance.born);
    tracking(appliance, out);
    helpers(appliance, out);
    packets(appliance, out);
    ports(appliance, out);
    policy(appliance, out);
    workers(appliance, out);
    reloads(appliance, out);
    log(appliance, out);
}

fn tracking(appliance: &Appliance, out: &mut Families) {
    for (at, proto) in ["tcp", "udp", "other"].into_iter().enumerate() {
        let entries = appliance.sum(|worker| &worker.path.ct.entries[at]);
        out.add(Id::Entries, &[proto], entries as f64);
    }
    for state in TcpState::ALL.into_iter().skip(1) {
        let entries = appliance.sum(|worker| &worker.path.ct.tcp_states[state as usize]);
        out.add(Id::TcpEntries, &[state.name()], entries as f64);
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
    out.add(Id::EventsLost, &["worker"], events.lost_by_workers as f64);
    out.add(Id::EventsLost, &["reader"], events.lost_by_readers as f64);
    out.add(Id::Watchers, &[], events.watchers as f64);
}

fn helpers(appliance: &Appliance, out: &mut Families) {
    out.add(Id::Expectations, &[], appliance.count_expectations() as f64);
    let limit = f64::from(appliance.expect_limit());
    out.add(Id::ExpectationsLimit, &[], limit);
    for row in appliance.helpers() {
        let helper = row.helper.as_str();
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
            out.add(Id::HelperRefused, &[helper, reason], *count as f64);
        }
    }
}

fn packets(appliance: &Appliance, out: &mut Families) {
    let counters: [(Id, Of<Counters>); 5] = [
        (Id::Received, |path| &path.received),
        (Id::Forwarded, |path| &path.forwarded),
        (Id::Punted, |path| &path.punted),
        (Id::Generated, |path| &path.generated),
        (Id::Held, |path| &path.held),
    ];
    for (id, counter) in counters {
        let value = appliance.sum(|worker| counter(&worker.path));
        out.add(id, &[], value as f64);
    }
    let results: [(&str, Of<Counters>); 2] = [
        ("ok", |path| &path.reassembled),
        ("failed", |path| &path.reassembly_failed),
    ];
    for (result, counter) in results {
        let value = appliance.sum(|worker| counter(&worker.path));
        out.add(Id::Reassembly, &[result], value as f64);
    }
    for reason in DropReason::ALL {
        let count = appliance.sum(|worker| &worker.path.drops[*reason as usize]);
        out.add(Id::Drops, &[reason.name()], count as f64);
    }
}

fn ports(appliance: &Appliance, out: &mut Families) {
    for row in appliance.ports() {
        let counters = [
            (Id::RxPackets, row.rx_packets),
            (Id::RxBytes, row.rx_bytes),
            (Id::TxPackets, row.tx_packets),
            (Id::TxBytes, row.tx_bytes),
            (Id::Missed, row.nic.missed),
            (Id::RxErrors, row.nic.rx_errors),
            (Id::NoBuffer, row.nic.no_buffer),
            (Id::TxErrors, row.nic.tx_errors),
            (Id::LinkChanges, row.link_changes),
            (Id::HashUsed, row.hash_used),
            (Id::HashWrong, row.hash_wrong),
        ];
        for (id, count) in counters {
            out.add(id, &[&row.port.name], count as f64);
        }
    }
    let links = appliance.links.lock();
    for (port, (link, _)) in appliance.ports.iter().zip(links.iter()) {
        let up = link.map_or(-1.0, |link| f64::from(u8::from(link.up)));
        out.add(Id::LinkUp, &[&port.name], up);
    }
}

/// Adds the first [`SERIES`] of `rows` with names of their own, and the sum of the rest.
fn capped<'a>(
    out: &mut Families,
    (packets, bytes): (Id, Id),
    rows: impl Iterator<Item = (&'a str, &'a str, u64, u64)>,
) -> usize {
    let (mut count, mut name) = (0, String::new());
    let mut other = None;
    for (chain, row, p, b) in rows {
        count += 1;
        if count > SERIES {
            let (packets, bytes) = other.get_or_insert((0u64, 0u64));
            *packets = packets.wrapping_add(p);
            *bytes = bytes.wrapping_add(b);
            continue;
        }
        name.clear();
        name.push_str(chain);
        if !chain.is_empty() {
            name.push('/');
        }
        name.push_str(row);
        out.add(packets, &[&name], p as f64);
        out.add(bytes, &[&name], b as f64);
    }
    if let Some((p, b)) = other {
        out.add(packets, &[OTHER], p as f64);
        out.add(bytes, &[OTHER], b as f64);
    }
    count
}

fn policy(appliance: &Appliance, out: &mut Families) {
    let now = appliance.shared().clock.now();
    let policy = &appliance.shared().policy;
    let read = policy.with_within(PATIENCE, |policy| {
        let rules = policy.rules();
        let rules = rules.map(|rule| (rule.chain, rule.name, rule.packets, rule.bytes));
        let count = capped(out, (Id::HitPackets, Id::HitBytes), rules);
        out.add(Id::Rules, &[], count as f64);
        let named = policy.counters();
        let named = named.map(|counter| ("", counter.name, counter.packets, counter.bytes));
        capped(out, (Id::CounterPackets, Id::CounterBytes), named);
        for (rule, open, room) in policy.limits(now).take(SERIES) {
            out.add(Id::LimitBuckets, &[rule], open as f64);
            out.add(Id::LimitBucketsLimit, &[rule], room as f64);
        }
    });
    if read.is_none() {
        tracing::warn!("metrics: a reload does not come to its end; a scrape goes without rules");
    }
}

fn workers(appliance: &Appliance, out: &mut Families) {
    out.add(Id::RingLimit, &[], RING as f64);
    let shared = appliance.shared();
    for (worker, counters) in shared.workers.iter().enumerate() {
        let name = worker.to_string();
        let worker = name.as_str();
        let busy = counters.busy.get();
        out.add_times(Id::Loop, &[worker], &busy);
        out.add(Id::LoopLongest, &[worker], seconds(busy.longest));
        out.add(Id::Loops, &[worker], counters.loops.get() as f64);
        out.add(Id::Cycles, &[worker, "busy"], seconds(busy.sum));
        let idle = seconds(counters.idle_nanos.get());
        out.add(Id::Cycles, &[worker, "idle"], idle);
        let ct = &counters.path.ct;
        let flows: u64 = ct.entries.iter().map(Counter::get).sum();
        let lost = &counters.path.drops[DropReason::HandoffFull as usize];
        let values = [
            (Id::WorkerFlows, flows),
            (Id::WorkerReceived, counters.path.received.get()),
            (Id::WorkerDropped, counters.path.dropped_total()),
            (Id::HandoffLost, lost.get()),
            (Id::RingWaiting, counters.ring_waiting.get()),
            (Id::RingHighest, counters.ring_highest.get()),
        ];
        for (id, value) in values {
            out.add(id, &[worker], value as f64);
        }
        let (taken, given) = (counters.handed_in.get(), counters.handed_out.get());
        out.add(Id::Handoff, &[worker, "in"], taken as f64);
        out.add(Id::Handoff, &[worker, "out"], given as f64);
        for cause in Cause::ALL {
            let count = counters.handed[*cause as usize].get();
            out.add(Id::HandoffWhy, &[worker, cause.name()], count as f64);
        }
    }
    for (worker, (owned, buckets, ..)) in appliance.owned().into_iter().enumerate() {
        let worker = worker.to_string();
        out.add(Id::Owned, &[&worker], owned as f64);
        out.add(Id::Buckets, &[&worker], buckets as f64);
    }
    for (worker, behind) in shared.policy.domain().behind().enumerate() {
        let behind = behind.map_or(-1.0, |epochs| epochs as f64);
        out.add(Id::EpochsBehind, &[&worker.to_string()], behind);
    }
}

fn reloads(appliance: &Appliance, out: &mut Families) {
    let reload = appliance.reload_state();
    let successful = f64::from(u8::from(reload.successful));
    out.add(Id::Generation, &[], f64::from(appliance.generation()));
    out.add(Id::Reloads, &["success"], reload.succeeded as f64);
    out.add(Id::Reloads, &["failure"], reload.failed as f64);
    out.add(Id::ReloadSuccessful, &[], successful);
    out.add(Id::ReloadSuccess, &[], reload.last_success);
    out.add(Id::ReloadSeconds, &[], reload.seconds);
    out.add(Id::Grace, &[], reload.grace);
}

fn log(appliance: &Appliance, out: &mut Families) {
    let log = &appliance.logged;
    let lost = appliance.sum(|worker| &worker.log_lost);
    out.add(Id::LogLines, &[], log.written.get() as f64);
    out.add(Id::LogSuppressed, &[], log.suppressed.get() as f64);
    out.add(Id::LogLost, &["worker"], lost as f64);
    out.add(Id::LogLost, &["writer"], log.lost.get() as f64);
}
