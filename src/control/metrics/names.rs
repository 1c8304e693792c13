//! Every metric, once: name, kind, labels, unit, meaning. The page `deploy/metrics.md` is made of it.

use prometheus::proto::MetricType;

/// What is known of a metric.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// Its name.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it is counted in.
    pub unit: &'static str,
    /// What it says.
    pub help: &'static str,
}

/// Declares every metric once.
macro_rules! metrics {
    ($($id:ident $kind:ident $name:literal [$($label:literal)*] $unit:literal $help:literal)*) => {
        #[derive(Clone, Copy, Debug)]
        pub(super) enum Id { $($id),* }

        /// Every metric that a scrape exports.
        pub const METRICS: &[About] = &[$(About {
            name: $name,
            kind: word(MetricType::$kind),
            labels: &[$($label),*],
            unit: $unit,
            help: $help,
        }),*];

        /// Their names.
        pub const NAMES: &[&str] = &[$($name),*];

        pub(super) const KINDS: &[MetricType] = &[$(MetricType::$kind),*];
    };
}

const fn word(kind: MetricType) -> &'static str {
    match kind {
        MetricType::COUNTER => "counter",
        MetricType::HISTOGRAM => "histogram",
        _ => "gauge",
    }
}

metrics! {
    BuildInfo GAUGE "shardwall_build_info" ["version"] "1" "Always 1; the version that runs is its label."
    Start GAUGE "shardwall_start_time_seconds" [] "seconds since 1970" "When the appliance started."

    Entries GAUGE "shardwall_conntrack_entries" ["proto"] "flows" "Flows in the table, by protocol: tcp, udp, other."
    EntriesLimit GAUGE "shardwall_conntrack_entries_limit" [] "flows" "Most flows that the table holds."
    TcpEntries GAUGE "shardwall_conntrack_tcp_entries" ["state"] "flows" "TCP flows in the table, by the state of the connection. Counted when a flow comes, goes or changes, so never stale."
    Found COUNTER "shardwall_conntrack_found_total" [] "packets" "Lookups that found a flow."
    New COUNTER "shardwall_conntrack_new_total" [] "packets" "Packets that could start a flow."
    Invalid COUNTER "shardwall_conntrack_invalid_total" [] "packets" "Packets judged INVALID."
    Insert COUNTER "shardwall_conntrack_insert_total" [] "flows" "Flows entered into the table."
    InsertFailed COUNTER "shardwall_conntrack_insert_failed_total" [] "flows" "Flows for which the index had no room."
    CtDrop COUNTER "shardwall_conntrack_drop_total" [] "packets" "Packets dropped because the table was full."
    EarlyDrop COUNTER "shardwall_conntrack_early_drop_total" [] "flows" "Flows that had to go before their time, because the table was full."
    Delete COUNTER "shardwall_conntrack_delete_total" [] "flows" "Flows that ended."
    IcmpError COUNTER "shardwall_conntrack_icmp_error_total" [] "packets" "ICMP errors that quote no known flow."
    Events COUNTER "shardwall_conntrack_events_total" [] "events" "Events of flows made for those who watch."
    EventsLost COUNTER "shardwall_conntrack_events_lost_total" ["queue"] "events" "Events lost because a queue was full: a worker's, or a reader's."
    Watchers GAUGE "shardwall_conntrack_event_watchers" [] "clients" "Clients that watch events."

    Expectations GAUGE "shardwall_expectations" [] "expectations" "Flows that helpers expect."
    ExpectationsLimit GAUGE "shardwall_expectations_limit" [] "expectations" "Most flows that helpers expect at a time."
    HelperFlows COUNTER "shardwall_helper_flows_total" ["helper"] "flows" "Flows that the helper was attached to."
    HelperParsed COUNTER "shardwall_helper_parsed_total" ["helper"] "messages" "Messages that the helper understood."
    HelperExpected COUNTER "shardwall_helper_expected_total" ["helper"] "expectations" "Expectations that the helper made."
    HelperUsed COUNTER "shardwall_helper_used_total" ["helper"] "flows" "Flows that fulfilled an expectation of the helper."
    HelperExpired COUNTER "shardwall_helper_expired_total" ["helper"] "expectations" "Expectations whose time was over before a flow came."
    HelperWithdrawn COUNTER "shardwall_helper_withdrawn_total" ["helper"] "expectations" "Expectations that ended with the flow that announced them, made room for newer ones, or were taken back."
    HelperRefused COUNTER "shardwall_helper_refused_total" ["helper" "reason"] "requests" "What payloads asked for and did not get, by reason."

    Received COUNTER "shardwall_received_packets_total" [] "packets" "Packets taken from ports."
    Forwarded COUNTER "shardwall_forwarded_packets_total" [] "packets" "Packets handed to ports."
    Punted COUNTER "shardwall_punted_packets_total" [] "packets" "Packets given to the host's own stack."
    Generated COUNTER "shardwall_generated_packets_total" [] "packets" "Packets that the firewall made itself."
    Held GAUGE "shardwall_fragments_held" [] "packets" "Fragments that wait for the rest of their datagram."
    Reassembly COUNTER "shardwall_reassembly_datagrams_total" ["result"] "datagrams" "Datagrams of which fragments came: put together (ok) or given up (failed)."
    Drops COUNTER "shardwall_drop_packets_total" ["reason"] "packets" "Dropped packets by reason."

    RxPackets COUNTER "shardwall_port_rx_packets_total" ["port"] "packets" "Packets taken from the port."
    RxBytes COUNTER "shardwall_port_rx_bytes_total" ["port"] "bytes" "Bytes taken from the port."
    TxPackets COUNTER "shardwall_port_tx_packets_total" ["port"] "packets" "Packets handed to the port."
    TxBytes COUNTER "shardwall_port_tx_bytes_total" ["port"] "bytes" "Bytes handed to the port."
    Missed COUNTER "shardwall_port_missed_packets_total" ["port"] "packets" "Packets that found the port's receive queues full."
    RxErrors COUNTER "shardwall_port_rx_errors_total" ["port"] "packets" "Packets that came to the port damaged."
    NoBuffer COUNTER "shardwall_port_no_buffer_total" ["port"] "receives" "Receives of the port that found no free buffer."
    TxErrors COUNTER "shardwall_port_tx_errors_total" ["port"] "packets" "Packets that the port could not send."
    LinkUp GAUGE "shardwall_port_link_up" ["port"] "1, 0 or -1" "Whether the port's link is up (1) or down (0); -1 where that cannot be known."
    LinkChanges COUNTER "shardwall_port_link_changes_total" ["port"] "changes" "Changes of the port's link, in state or speed."
    HashUsed COUNTER "shardwall_port_hash_used_packets_total" ["port"] "packets" "Packets whose worker was read from the hash that the port told."
    HashWrong COUNTER "shardwall_port_hash_wrong_total" ["port"] "packets" "Hashes that the port told and that were wrong."

    HitPackets COUNTER "shardwall_policy_hits_packets_total" ["rule"] "packets" "Packets that matched the rule."
    HitBytes COUNTER "shardwall_policy_hits_bytes_total" ["rule"] "bytes" "Bytes of the packets that matched the rule."
    CounterPackets COUNTER "shardwall_policy_counter_packets_total" ["counter"] "packets" "Packets that matched the rules which feed the named counter."
    CounterBytes COUNTER "shardwall_policy_counter_bytes_total" ["counter"] "bytes" "Bytes of the packets that matched the rules which feed the named counter."
    Rules GAUGE "shardwall_policy_rules" [] "rules" "Rules of the policy in force, chains' policies and helpers' lines included."
    LimitBuckets GAUGE "shardwall_limit_buckets" ["rule"] "buckets" "About how many buckets are open of a `limit` that has one for each address, network or zone; one place in 64 is looked at."
    LimitBucketsLimit GAUGE "shardwall_limit_buckets_limit" ["rule"] "buckets" "Most buckets of that limit that can be open. When they are, who has none gets none, and the rule does not match."

    Loop HISTOGRAM "shardwall_worker_loop_seconds" ["worker"] "seconds" "Time of the worker's loops that did something: moved packets, or did what a command asked for."
    LoopLongest GAUGE "shardwall_worker_loop_longest_seconds" ["worker"] "seconds" "The longest of the worker's loops that did something."
    Loops COUNTER "shardwall_worker_loops_total" ["worker"] "loops" "Loops of the worker, idle ones too. One that stands still is stuck."
    Cycles COUNTER "shardwall_worker_cycles_seconds_total" ["worker" "kind"] "seconds" "Time in loops that did something (busy) or found nothing (idle)."
    WorkerFlows GAUGE "shardwall_worker_conntrack_entries" ["worker"] "flows" "Flows that the worker owns."
    WorkerReceived COUNTER "shardwall_worker_received_packets_total" ["worker"] "packets" "Packets that the worker took from ports."
    WorkerDropped COUNTER "shardwall_worker_dropped_packets_total" ["worker"] "packets" "Packets that the worker dropped, for whatever reason."
    Owned GAUGE "shardwall_worker_owned_packets" ["worker"] "packets" "Packets of the buckets that are the worker's now, whoever received them; falls when a bucket goes."
    Buckets GAUGE "shardwall_worker_buckets" ["worker"] "buckets" "Buckets of flows that are the worker's now."
    Handoff COUNTER "shardwall_worker_handoff_packets_total" ["worker" "direction"] "packets" "Packets handed to other workers (out) or taken from them (in)."
    HandoffWhy COUNTER "shardwall_worker_handoff_cause_packets_total" ["worker" "cause"] "packets" "Packets that were to be handed to other workers, by cause."
    HandoffLost COUNTER "shardwall_worker_handoff_lost_packets_total" ["worker"] "packets" "Packets that the worker could not hand over, because the ring was full, or not put by. The drop reason handoff-full is their sum."
    RingWaiting GAUGE "shardwall_worker_ring_waiting_packets" ["worker"] "packets" "Packets that waited in the rings to the worker when it looked last."
    RingHighest GAUGE "shardwall_worker_ring_highest_packets" ["worker"] "packets" "The most that ever waited in one of these rings."
    RingLimit GAUGE "shardwall_worker_ring_limit_packets" [] "packets" "What one ring holds; what does not fit is lost."
    EpochsBehind GAUGE "shardwall_worker_epochs_behind" ["worker"] "epochs" "Changes of policy that the worker has still to see: 0 but for the moment of a reload; -1 for a worker that takes part in none."

    Generation GAUGE "shardwall_config_generation" [] "number" "Number of the policy in force."
    Reloads COUNTER "shardwall_config_reloads_total" ["result"] "reloads" "Reloads by result: success or failure. The start is none."
    ReloadSuccessful GAUGE "shardwall_config_last_reload_successful" [] "1 or 0" "Whether the last reload worked."
    ReloadSuccess GAUGE "shardwall_config_last_reload_success_timestamp_seconds" [] "seconds since 1970" "When a reload worked last; the start counts."
    ReloadSeconds GAUGE "shardwall_config_last_reload_duration_seconds" [] "seconds" "How long the last reload took, whatever came of it."
    Grace GAUGE "shardwall_config_last_grace_seconds" [] "seconds" "How long the last reload that worked waited until no worker went by the old policy."

    LogLines COUNTER "shardwall_log_lines_total" [] "lines" "Log lines of rules that were written."
    LogSuppressed COUNTER "shardwall_log_suppressed_total" [] "lines" "Log lines beyond what the rule's `log` allows."
    LogLost COUNTER "shardwall_log_lost_total" ["queue"] "lines" "Log lines lost: because the workers' queue was full (worker), or beyond what the box writes in a second (writer)."
}
