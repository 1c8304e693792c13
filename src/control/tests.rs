//! The control side as a whole: an appliance in memory with real worker threads.

use super::drops::DropRow;
use super::filter::ExpectFilter;
use super::listeners::ApiListener;
use super::metrics::{Metrics, NAMES};
use super::protocol::{Family, Filter, Listing, MAX_REQUEST, Shown, Watch, Watched};
use super::snapshot::{PortRow, RuleRow, Stats, WorkerRow};
use super::testbed::{Bed, Folder, HELPED, READ, RULES, mode, wait};
use super::watch::BACKLOG;
use super::{Client, ClientError, ReloadError, ReloadReport, Request, StartError};
use crate::base::hash::HashKey;
use crate::base::time::{Now, Ticks};
use crate::conntrack::config::Config;
use crate::conntrack::event::{Kind, QUEUE};
use crate::conntrack::record::{ExpectRecord, FlowRecord};
use crate::conntrack::shard::Shard;
use crate::dataplane::command::mailbox;
use crate::policy::{Became, ReloadMode};
use crate::wire::build::{Segment, frame};
use crate::wire::{Addrs, parse};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

mod metrics;
mod reload;

fn flows(bed: &Bed) -> Vec<FlowRecord> {
    let mut all = Vec::new();
    bed.appliance
        .list(|flow| {
            all.push(flow);
            ControlFlow::Continue(())
        })
        .unwrap();
    all
}

fn hits(bed: &Bed, rule: &str) -> (u64, u64) {
    let rules = bed.appliance.rules();
    let row = rules.iter().find(|row| row.rule == rule).unwrap();
    (row.packets, row.bytes)
}

#[test]
fn flows_of_all_workers_are_listed_counted_and_flushed() {
    let bed = Bed::new(2);
    (0..700).for_each(|host| bed.send(host));
    let sources: BTreeSet<_> = flows(&bed).iter().map(|flow| flow.original.src).collect();
    assert_eq!(sources.len(), 700);
    assert_eq!(bed.appliance.count(), 700);
    let shares: Vec<u64> = bed
        .appliance
        .workers()
        .iter()
        .map(|row| row.flows)
        .collect();
    assert!(shares.iter().all(|share| *share > 250), "{shares:?}");

    let mut seen = 0;
    let broken_off = bed.appliance.list(|_| {
        seen += 1;
        ControlFlow::Break(())
    });
    assert_eq!((broken_off, seen), (Ok(()), 1));

    assert_eq!(bed.appliance.flush(), Ok(700));
    assert_eq!((bed.appliance.count(), flows(&bed).len()), (0, 0));
    assert_eq!(bed.appliance.flush(), Ok(0));
}

#[test]
fn a_worker_that_has_stopped_is_named() {
    let mut bed = Bed::new(2);
    bed.stop();
    let error = bed.appliance.flush().unwrap_err();
    assert_eq!(error.to_string(), "worker 0 has stopped");
}

#[test]
fn a_reload_takes_effect_under_traffic_and_unchanged_rules_keep_their_counts() {
    let bed = Bed::new(2);
    (0..20).for_each(|host| bed.send(host));
    assert_eq!(hits(&bed, "outbound").0, 20);
    let kept = hits(&bed, "outbound");

    let blocked = RULES.replace(
        "- { name: known",
        "- { name: no-dns, proto: udp, dport: 53, action: drop }\n      - { name: known",
    );
    bed.write_policy(&blocked);
    let report = bed.appliance.reload(None).unwrap();
    assert_eq!((report.generation, report.rules), (2, 3));
    assert_eq!(report.restart_needed, Vec::<String>::new());
    (100..110).for_each(|host| bed.send(host));
    assert_eq!(hits(&bed, "no-dns").0, 10);
    assert_eq!(hits(&bed, "outbound"), kept);
    assert_eq!((bed.sent(), bed.appliance.count()), (20, 20));
    let stats = bed.appliance.stats();
    assert_eq!((stats.generation, stats.packets.dropped), (2, 10));
}

#[test]
fn a_reload_may_end_the_flows_that_it_affects() {
    let bed = Bed::new(2);
    (0..500).for_each(|host| bed.send(host));
    assert_eq!(bed.appliance.count(), 500);
    let dns =
        "- { name: no-dns, proto: udp, dport: 53, saddr: 10.0.0.0/25, action: drop }\n      - ";
    let without = RULES.replacen("- { name: outbound", &format!("{dns}{{ name: outbound"), 1);
    bed.write_policy(&without);
    let report = bed.appliance.reload(None).unwrap();
    assert_eq!((report.mode, report.flows_ended), (ReloadMode::Keep, 0));
    assert_eq!(bed.appliance.count(), 500);

    let expected = flows(&bed)
        .iter()
        .filter(|flow| flow.original.src < IpAddr::from([10, 0, 0, 128]))
        .count();
    let mode = Some(ReloadMode::FlushAffected);
    let report = bed.appliance.reload_with(None, mode).unwrap();
    assert_eq!(
        (report.mode, report.flows_ended),
        (ReloadMode::FlushAffected, expected as u64)
    );
    assert_eq!(bed.appliance.count(), 500 - expected as u64);
    assert!((1..500).contains(&expected));

    // what the policy itself says
    bed.write_policy(&format!(
        "reload: flush-affected\n{}",
        RULES.replace("iif: lan", "iif: wan")
    ));
    let report = bed.appliance.reload(None).unwrap();
    assert_eq!(report.flows_ended, 500 - expected as u64);
    assert_eq!(bed.appliance.count(), 0);
}

#[test]
fn what_flows_expect_ends_with_them() {
    let bed = Bed::under(1, HELPED);
    bed.ask(1, 69, READ);
    assert_eq!(bed.appliance.count_expectations(), 1);
    bed.write_policy(&HELPED.replace("iif: lan", "iif: wan"));
    let mode = Some(ReloadMode::FlushAffected);
    assert_eq!(
        bed.appliance.reload_with(None, mode).unwrap().flows_ended,
        1
    );
    let left = (bed.appliance.count(), bed.appliance.count_expectations());
    assert_eq!(left, (0, 0));
}

/// Reloads of every mode under traffic, with questions in between: every packet is in the counts of
/// the rule that stays, and in those of the counter that it feeds.
#[test]
fn reloads_under_traffic_lose_no_count() {
    let rules = |more: &str| {
        RULES.replace(
            "- { name: outbound, iif: lan, ct: new,",
            &format!("{more}- {{ name: outbound, iif: lan, ct: new, count: all,"),
        )
    };
    let more = "- { name: more, proto: tcp, action: drop }\n      ";
    let bed = Bed::under(2, &rules(""));
    let other = bed.folder.join("other.yaml");
    let text = fs::read_to_string(bed.appliance.file()).unwrap();
    fs::write(&other, text.replace("chains:", "reload: rematch\nchains:")).unwrap();
    let words = ["iif=lan", "udp", "dport=53"].map(str::to_owned);
    let done = AtomicBool::new(false);
    let going = || !done.load(Ordering::Relaxed);
    let sent = std::thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let mut sent = 0;
            while going() {
                bed.send(sent % 300);
                sent += 1;
            }
            sent
        });
        scope.spawn(|| {
            while going() {
                bed.appliance.diff(&other).unwrap();
                let told = bed.appliance.explain(&words).unwrap();
                assert_eq!(told.rule.as_deref(), Some("forward/outbound"));
            }
        });
        for n in 0..40 {
            bed.write_policy(&rules(if n % 2 == 0 { more } else { "" }));
            let mode = ReloadMode::ALL[n % 3];
            let report = bed.appliance.reload_with(None, Some(mode)).unwrap();
            assert_eq!(report.flows_ended, 0);
        }
        done.store(true, Ordering::Relaxed);
        traffic.join().unwrap()
    });
    // Enough that some came between reloads, and few enough for a machine with other work.
    assert!(sent > 10, "{sent}");
    assert_eq!(hits(&bed, "outbound").0, u64::from(sent));
    assert_eq!(bed.appliance.counters()[0].packets, u64::from(sent));
    assert_eq!(bed.sent() as u64, u64::from(sent));
}

/// A reload that comes while a worker is asked for the packet's flow does not wait for the answer,
/// and the packet is then explained by the new policy.
#[test]
fn a_question_under_way_holds_up_no_reload() {
    let mut bed = Bed::new(1);
    let (sender, asked) = mailbox();
    let appliance = Arc::get_mut(&mut bed.appliance).unwrap();
    let worker = std::mem::replace(&mut appliance.commands[0], sender);
    let words = ["iif=lan", "udp", "dport=53"].map(str::to_owned);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| bed.appliance.explain(&words));
        let first = asked.recv().unwrap();
        bed.write_policy(&RULES.replace("outbound", "outward"));
        assert_eq!(bed.appliance.reload(None).unwrap().generation, 2);
        worker.send(first).unwrap();
        let told = asking.join().unwrap().unwrap();
        assert_eq!(told.rule.as_deref(), Some("forward/outward"));
    });
}

#[test]
fn a_diff_says_what_would_change_and_changes_nothing() {
    let bed = Bed::new(2);
    (0..500).for_each(|host| bed.send(host));
    let other = bed.folder.join("other.yaml");
    let text = fs::read_to_string(bed.appliance.file()).unwrap();
    let outbound = "- { name: outbound, iif: lan,";
    let narrow = format!("{outbound} saddr: 10.0.0.0/24,");
    fs::write(&other, text.replace(outbound, &narrow)).unwrap();
    let report = bed.appliance.diff(&other).unwrap();
    let changes: Vec<_> = report
        .changes
        .iter()
        .map(|it| (it.became, it.rule.as_str()))
        .collect();
    assert_eq!(changes, [(Became::Changed, "forward/outbound")]);
    let beyond = |flow: &FlowRecord| flow.original.src > IpAddr::from([10, 0, 0, 255]);
    let expected = flows(&bed).iter().filter(|flow| beyond(flow)).count() as u64;
    assert_eq!((report.flows_ending, report.flows_unsure), (expected, 0));
    assert!(report.flows.len() == 100 && report.flows.iter().all(beyond));
    assert_eq!(
        (bed.appliance.count(), bed.appliance.generation()),
        (500, 1)
    );

    let same = bed.appliance.diff(bed.appliance.file()).unwrap();
    assert_eq!((same.changes.len(), same.flows_ending), (0, 0));
    let error = bed
        .appliance
        .diff(&bed.folder.join("nowhere.yaml"))
        .unwrap_err();
    assert!(error.to_string().contains("cannot read"), "{error}");
}

#[test]
fn a_reload_with_an_error_changes_nothing_and_says_why() {
    let bed = Bed::new(1);
    bed.write_policy(&RULES.replace("action: accept }", "action: acept }"));
    let error = bed.appliance.reload(None).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("acept") && text.contains("policy.yaml:"),
        "{text}"
    );
    assert!(
        text.ends_with("policy not reloaded: 1 error; the policy from before stays in force"),
        "{text}"
    );
    assert_eq!(error.diagnostics()[0]["severity"], "error");
    assert!(!bed.appliance.reload_state().successful);
    assert_eq!(bed.appliance.generation(), 1);
    bed.send(1);
    assert_eq!((bed.sent(), hits(&bed, "outbound").0), (1, 1));

    // Another file, given by name, is not what the next reload reads.
    let other = bed.folder.join("other.yaml");
    let text = fs::read_to_string(bed.appliance.file()).unwrap();
    fs::write(&other, text.replace("acept", "accept")).unwrap();
    assert_eq!(bed.appliance.reload(Some(&other)).unwrap().generation, 2);
    assert!(bed.appliance.reload_state().successful);
    assert!(matches!(
        bed.appliance.reload(None),
        Err(ReloadError::Policy(_))
    ));
    let missing = bed.folder.join("nowhere.yaml");
    let error = bed.appliance.reload(Some(&missing)).unwrap_err();
    assert!(error.to_string().contains("cannot read"), "{error}");
}

/// What cannot be a policy is refused at once, and everything goes on.
#[test]
#[allow(clippy::disallowed_methods)] // it is about time
fn files_that_are_no_policy_hold_up_nobody() {
    let bed = Bed::new(1);
    let path = |name: &str| bed.folder.join(name);
    fs::create_dir(path("folder")).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(path("pipe"))
        .status();
    assert!(made.unwrap().success());
    let large = fs::File::create(path("large")).unwrap();
    large.set_len(1 << 30).unwrap();
    let head = fs::read_to_string(bed.appliance.file()).unwrap();
    // each alias ten of the one before: ten thousand millions in all
    let bombs: String = (1..10)
        .map(|n| format!("b{n}: &b{n} [{}]\n", format!("*b{}, ", n - 1).repeat(10)))
        .collect();
    fs::write(path("bomb"), format!("b0: &b0 x\n{bombs}{head}")).unwrap();
    fs::write(path("deep"), "[".repeat(1 << 20)).unwrap();
    fs::write(path("small"), format!("[{}]", "a,".repeat(15 << 20))).unwrap();
    fs::write(path("list"), "10.0.0.1\n").unwrap();
    let listed = head.replace("chains:", "sets: { l: { file: list } }\nchains:");
    fs::write(path("listed"), &listed).unwrap();
    assert!(bed.appliance.reload(Some(&path("listed"))).is_ok());
    fs::remove_file(path("list")).unwrap();
    bed.send(1);
    for (name, why) in [
        ("folder", "it is a directory, not a file"),
        ("pipe", "it is a pipe, not a file"),
        ("large", "it is larger than 32 MiB"),
        ("bomb", "not valid YAML"),
        ("deep", "not valid YAML"),
        ("small", "more than 2500000 keys and values in one policy"),
        ("listed", "cannot read `list`"),
        ("gone", "No such file"),
    ] {
        let start = std::time::Instant::now();
        let error = bed.appliance.reload(Some(&path(name))).unwrap_err();
        let took = start.elapsed();
        let text = error.to_string();
        assert!(text.contains(why), "{name}: {text}");
        assert!(
            text.ends_with("the policy from before stays in force"),
            "{text}"
        );
        assert!(text.len() < 10_000, "{name}: {}", text.len());
        // alone it takes less than a second; other tests run beside this one
        assert!(
            took < std::time::Duration::from_secs(20),
            "{name}: {took:?}"
        );
        assert_eq!(
            bed.appliance.diff(&path(name)).unwrap_err().to_string(),
            text
        );
        assert_eq!(bed.appliance.generation(), 2);
    }
    bed.send(2);
    assert_eq!((bed.appliance.count(), hits(&bed, "outbound").0), (2, 2));
}

#[test]
fn a_reload_that_would_leave_flows_with_wrong_timeouts_is_refused() {
    let bed = Bed::new(1);
    let rules = |from: u32, to: u32| {
        let rule = |hours| format!("      - {{ name: r{hours}, timeout: {hours}h }}\n");
        let rules: String = (from..to).map(rule).collect();
        format!("{RULES}{rules}")
    };
    bed.write_policy(&rules(1, 6));
    bed.appliance.reload(None).unwrap();
    bed.write_policy(&rules(6, 11));
    let error = bed.appliance.reload(None).unwrap_err();
    assert!(matches!(error, ReloadError::Timeouts(_)));
    let text = error.to_string();
    assert!(text.contains("3 more sets of timeouts than"), "{text}");
    assert!(text.contains("and then this one, or restart"), "{text}");
    assert_eq!(bed.appliance.generation(), 2);
    let error = bed.appliance.diff(bed.appliance.file()).unwrap_err();
    assert_eq!(error.to_string(), text, "what a reload would say");
    // By way of a policy without them.
    bed.write_policy(RULES);
    bed.appliance.reload(None).unwrap();
    bed.write_policy(&rules(6, 11));
    assert_eq!(bed.appliance.reload(None).unwrap().generation, 4);
}

/// Packets' times are since the start of the appliance.
#[test]
fn time_windows_go_by_the_wall_clock() {
    let bed = Bed::new(1);
    let mut sent = 0;
    for (window, passes) in [
        ("from: 2020-01-01", 1),
        ("until: 2020-01-01", 0),
        ("from: 2020-01-01, until: 2099-12-31", 1),
    ] {
        let time = format!("ct: new, time: {{ {window} }}, action");
        bed.write_policy(&RULES.replace("ct: new, action", &time));
        bed.appliance.reload(None).unwrap();
        bed.send(1);
        sent += passes;
        assert_eq!(bed.sent(), sent, "{window}");
        let policy = &bed.appliance.shared().policy;
        let epoch = policy.with(|policy| policy.epoch().unix_nanos(Now::default()));
        assert!(epoch / 1_000_000_000 > 1_577_836_800, "{epoch}");
    }
}

#[test]
fn a_reload_says_what_needs_a_restart() {
    let bed = Bed::new(1);
    let text = fs::read_to_string(bed.appliance.file()).unwrap();
    let changed = text
        .replace("workers: 1", "workers: 2")
        .replace("chains:", "conntrack: { max: 1000 }\nchains:");
    fs::write(bed.appliance.file(), &changed).unwrap();
    // Until the restart, every reload says so.
    for generation in [2, 3] {
        let report = bed.appliance.reload(None).unwrap();
        assert_eq!(report.generation, generation);
        assert_eq!(
            report.restart_needed,
            [
                "system.workers: 1 workers became 2 workers",
                "conntrack.max: 262144 became 1000"
            ]
        );
    }
    assert_eq!(bed.appliance.limit(), 262_144, "what is in force");

    fs::write(bed.appliance.file(), text.replace("net_null1", "net_null2")).unwrap();
    let error = bed.appliance.reload(None).unwrap_err().to_string();
    assert!(
        error.contains("ports can only change with a restart"),
        "{error}"
    );
    assert!(
        error.contains("ports.wan.device: net_null1 became net_null2"),
        "{error}"
    );
    assert_eq!(bed.appliance.generation(), 3);
}

/// The metrics in a scrape's text, without labels.
fn exported(text: &str) -> BTreeSet<&str> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let histogram = |name: &&str| text.contains(&format!("# TYPE {name} histogram"));
    lines
        .map(|line| {
            let name = line.split(['{', ' ']).next().unwrap();
            // what a histogram exports under its name
            let parts = ["_bucket", "_sum", "_count"];
            let whole = parts.iter().find_map(|part| name.strip_suffix(part));
            whole.filter(histogram).unwrap_or(name)
        })
        .collect()
}

#[test]
fn a_scrape_exports_exactly_the_declared_names() {
    let counted = "ct: new, action: accept, count: web }
      - { name: tries, iif: wan, limit: 5/second per source, action: drop }";
    let bed = Bed::under(2, &HELPED.replace("ct: new, action: accept }", counted));
    bed.send(1);
    bed.ask(1, 69, READ);
    bed.ask(2, 69, READ);
    bed.answer(1, 5000, 0);
    let counters = bed.appliance.counters();
    let shown = |row: &RuleRow| (row.chain.clone(), row.rule.clone(), row.packets);
    let shown: Vec<_> = counters.iter().map(shown).collect();
    assert_eq!(shown, [("counters".to_owned(), "web".to_owned(), 3)]);
    let metrics = Metrics::new(bed.appliance.clone()).unwrap();
    let text = metrics.scrape().unwrap();
    assert_eq!(exported(&text), NAMES.iter().copied().collect());
    for line in [
        "shardwall_received_packets_total 4",
        "shardwall_conntrack_insert_total 4",
        "shardwall_conntrack_entries_limit 262144",
        "shardwall_drop_packets_total{reason=\"handoff-full\"} 0",
        "shardwall_port_rx_packets_total{port=\"lan\"} 3",
        "shardwall_port_missed_packets_total{port=\"wan\"} 0",
        "shardwall_policy_hits_packets_total{rule=\"forward/outbound\"} 3",
        "shardwall_policy_hits_packets_total{rule=\"helpers/boot\"} 2",
        "shardwall_policy_counter_packets_total{counter=\"web\"} 3",
        "shardwall_expectations 1",
        "shardwall_expectations_limit 65536",
        "shardwall_helper_flows_total{helper=\"tftp\"} 2",
        "shardwall_helper_parsed_total{helper=\"tftp\"} 2",
        "shardwall_helper_expected_total{helper=\"tftp\"} 2",
        "shardwall_helper_used_total{helper=\"tftp\"} 1",
        "shardwall_helper_expired_total{helper=\"tftp\"} 0",
        "shardwall_helper_withdrawn_total{helper=\"tftp\"} 0",
        "shardwall_helper_refused_total{helper=\"tftp\",reason=\"table-full\"} 0",
        "# TYPE shardwall_expectations gauge",
        "shardwall_policy_rules 5",
        "shardwall_limit_buckets{rule=\"forward/tries\"} 0",
        "shardwall_limit_buckets_limit{rule=\"forward/tries\"} 262144",
        "shardwall_conntrack_tcp_entries{state=\"ESTABLISHED\"} 0",
        "shardwall_worker_handoff_lost_packets_total{worker=\"1\"} 0",
        "shardwall_worker_ring_limit_packets 1024",
        "shardwall_config_reloads_total{result=\"failure\"} 0",
        "shardwall_log_lost_total{queue=\"writer\"} 0",
        "shardwall_policy_hits_packets_total{rule=\"forward/policy\"} 0",
        "shardwall_config_generation 1",
        "shardwall_config_last_reload_successful 1",
        "# TYPE shardwall_conntrack_entries gauge",
        "# TYPE shardwall_worker_cycles_seconds_total counter",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    for start in [
        "shardwall_build_info{version=\"",
        "shardwall_conntrack_entries{proto=\"udp\"} ",
        "shardwall_worker_cycles_seconds_total{worker=\"1\",kind=\"busy\"} ",
        "shardwall_worker_handoff_packets_total{worker=\"0\",direction=\"in\"} ",
    ] {
        let found = text.lines().any(|line| line.starts_with(start));
        assert!(found, "{start}\n{text}");
    }
}

fn http(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn every_request_is_answered_over_the_socket() {
    let mut bed = Bed::new(2);
    let metrics = bed.start_control();
    (0..3).for_each(|host| bed.send(host));
    let mut client = Client::connect(&bed.socket()).unwrap();
    assert_eq!(client.count(&Request::Ping {}).unwrap(), 0);
    assert_eq!(client.count(&Request::ConntrackCount {}).unwrap(), 3);
    let list = |filter| {
        let print = None;
        Request::ConntrackList(Listing { filter, print })
    };
    let all: Vec<FlowRecord> = client.all(&list(Filter::default())).unwrap();
    let sorted = |mut flows: Vec<FlowRecord>| {
        flows.sort_by_key(|flow| flow.original.src);
        flows
            .iter()
            .map(|flow| (flow.original, flow.reply, flow.proto))
            .collect::<Vec<_>>()
    };
    assert_eq!(sorted(all), sorted(flows(&bed)));
    for (family, proto, expected) in [
        (Some(Family::Ipv4), Some(17), 3),
        (Some(Family::Ipv6), None, 0),
        (None, Some(6), 0),
    ] {
        let filter = Filter {
            family,
            proto,
            ..Filter::default()
        };
        assert_eq!(client.count(&list(filter)).unwrap(), expected);
    }
    let stats: Stats = client.one(&Request::Stats {}).unwrap();
    assert_eq!((stats.packets.received, stats.conntrack.entries), (3, 3));
    let drops: Vec<DropRow> = client.all(&Request::Drops {}).unwrap();
    assert_eq!(drops, bed.appliance.drops());
    let rules: Vec<RuleRow> = client.all(&Request::Rules {}).unwrap();
    assert_eq!(rules, bed.appliance.rules());
    let ports: Vec<PortRow> = client.all(&Request::Ports { xstats: false }).unwrap();
    assert_eq!(ports, bed.appliance.ports());
    assert_eq!((ports[0].rx_packets, ports[1].tx_packets), (3, 3));
    let workers: Vec<WorkerRow> = client.all(&Request::Workers {}).unwrap();
    assert_eq!(workers.len(), 2);
    assert_eq!(client.count(&Request::ConntrackFlush {}).unwrap(), 3);
    let report: ReloadReport = client
        .one(&Request::Reload {
            path: None,
            mode: None,
        })
        .unwrap();
    assert_eq!(report.generation, 2);
    bed.write_policy(&RULES.replace("lan", "lam"));
    match client.one::<ReloadReport>(&Request::Reload {
        path: None,
        mode: None,
    }) {
        Err(ClientError::Refused {
            message,
            diagnostics,
        }) => {
            assert!(message.contains("lam"), "{message}");
            assert_eq!(diagnostics.as_array().map(Vec::len), Some(1));
        }
        other => panic!("{other:?}"),
    }

    let scrape = http(metrics, "/metrics");
    assert!(scrape.contains("text/plain; version=0.0.4"), "{scrape}");
    assert!(
        scrape.contains("\nshardwall_config_last_reload_successful 0"),
        "{scrape}"
    );
    assert!(http(metrics, "/healthz").ends_with("\r\n\r\nok\n"));
    let page = http(metrics, "/");
    assert!(
        page.contains("content-security-policy: default-src 'none'; style"),
        "{page}"
    );
    assert!(page.contains("<h1>shardwall "), "{page}");
    assert!(http(metrics, "/status.css").contains("content-type: text/css"));
    let json = http(metrics, "/status.json");
    let (_, json) = json.split_once("\r\n\r\n").unwrap();
    let status: super::status::Status = serde_json::from_str(json).unwrap();
    assert_eq!(status.health, "ok");
    assert!(http(metrics, "/other").starts_with("HTTP/1.1 404"));
    let mut posted = TcpStream::connect(metrics).unwrap();
    posted
        .write_all(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut refused = String::new();
    posted.read_to_string(&mut refused).unwrap();
    assert!(refused.starts_with("HTTP/1.1 405"), "{refused}");

    bed.stop();
    assert!(!bed.socket().exists(), "cleaned up");
    match Client::connect(&bed.socket()) {
        Err(error @ ClientError::NotRunning(_)) => {
            assert!(error.to_string().contains("systemctl start"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn expectations_are_listed_counted_used_and_ended() {
    let mut bed = Bed::under(2, HELPED);
    bed.start_control();
    let mut client = Client::connect(&bed.socket()).unwrap();
    let mut watcher = Client::connect(&bed.socket()).unwrap();
    let watching = std::thread::spawn(move || {
        let mut events = Vec::new();
        let watch = Watch {
            kinds: vec![Kind::Expected, Kind::Unexpected],
            filter: Filter::default(),
        };
        let watched = watcher.watch(watch, |told, _| {
            events.push(told);
            ControlFlow::Continue(())
        });
        watched.map(|()| events).unwrap()
    });
    let hub = bed.appliance.hub().clone();
    wait(|| hub.watchers() == 1);
    let hosts = 1..=6u32;
    hosts.clone().for_each(|host| bed.ask(host, 69, READ));
    bed.ask(7, 70, READ);

    let list = |client: &mut Client, filter: ExpectFilter| -> Vec<ExpectRecord> {
        let mut all: Vec<ExpectRecord> = client.all(&Request::ExpectList(filter)).unwrap();
        all.sort_by_key(|it| it.expected.dst);
        all
    };
    let count = |client: &mut Client| client.count(&Request::ExpectCount {}).unwrap();
    let all = list(&mut client, ExpectFilter::default());
    assert_eq!((all.len(), count(&mut client)), (6, 6));
    let shards: BTreeSet<_> = all.iter().map(|it| it.shard).collect();
    assert_eq!(shards.len(), 2, "of both workers");
    let first = &all[0];
    assert_eq!(first.expected.dst.to_string(), "10.0.0.1");
    assert_eq!(first.expected.src, first.master.ends.dst);
    assert_eq!(
        (first.proto, first.any_src, first.any_sport),
        (17, false, true)
    );
    assert_eq!((&*first.helper, first.timeout / 10), ("tftp", 29));
    let master = flows(&bed)
        .into_iter()
        .find(|flow| flow.original == first.master.ends);
    assert_eq!(master.unwrap().helper.as_deref(), Some("tftp"));

    // The answer may come in by any worker's queue, and fulfils it once.
    bed.answer(1, 5000, 1);
    bed.answer(1, 5001, 1);
    assert_eq!(bed.sent(), 7, "not the second one");
    assert_eq!(count(&mut client), 5);
    let all = flows(&bed);
    let child = all.iter().find(|flow| flow.expected).unwrap();
    assert_eq!(child.master, Some(first.master));
    assert_eq!(child.original.src, first.expected.src);

    let filter = |filter: &str| -> ExpectFilter { serde_json::from_str(filter).unwrap() };
    for (text, found) in [
        (r#"{"dst":"10.0.0.2"}"#, 1),
        (r#"{"dst":"10.0.0.4/31"}"#, 2),
        (r#"{"src":"10.9.0.0/16","proto":17,"dport":4000}"#, 5),
        (r#"{"src":"10.9.0.0/16","proto":6}"#, 0),
        (r#"{"master_src":"10.0.0.3","helper":"tftp"}"#, 1),
        (r#"{"master_src":"10.0.0.3","helper":"ftp"}"#, 0),
        (r#"{"master_dst":"10.9.0.1","zone":0,"family":"ipv4"}"#, 5),
        (r#"{"family":"ipv6"}"#, 0),
        (r#"{"zone":1}"#, 0),
        (r#"{"dport":4001}"#, 0),
    ] {
        assert_eq!(list(&mut client, filter(text)).len(), found, "{text}");
    }

    match client.count(&Request::ExpectDelete(ExpectFilter::default())) {
        Err(ClientError::Refused { message, .. }) => {
            assert!(message.starts_with("a filter is needed"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    let two = filter(r#"{"dst":"10.0.0.2/31"}"#);
    let ended: Vec<ExpectRecord> = client.all(&Request::ExpectDelete(two.clone())).unwrap();
    assert_eq!((ended.len(), count(&mut client)), (2, 3));
    assert_eq!(client.count(&Request::ExpectDelete(two)).unwrap(), 0);
    bed.answer(2, 5000, 0);
    assert_eq!(bed.sent(), 7, "nobody expects it any more");
    assert_eq!(client.count(&Request::ExpectFlush {}).unwrap(), 3);
    assert_eq!(count(&mut client), 0);
    assert_eq!(list(&mut client, ExpectFilter::default()), []);

    bed.stop();
    let mut ends = 0;
    for told in watching.join().unwrap() {
        let Watched::Event(event) = told else {
            panic!("{told:?}")
        };
        let Shown::Expectation(it) = event.subject else {
            panic!("{event:?}")
        };
        assert_eq!((&*it.helper, it.timeout >= 290), ("tftp", true));
        ends += u32::from(event.event == Kind::Unexpected);
    }
    assert_eq!(ends, 6, "each ended once");
}

#[test]
fn a_watch_ends_with_the_appliance_and_is_told_so() {
    let mut bed = Bed::new(1);
    bed.start_control();
    let mut stream = UnixStream::connect(bed.socket()).unwrap();
    let request = b"{\"cmd\":\"conntrack-watch\"}\n";
    stream.write_all(request).unwrap();
    let hub = bed.appliance.hub().clone();
    wait(|| hub.watchers() == 1);
    bed.send(1);
    bed.stop();
    let mut told = String::new();
    stream.read_to_string(&mut told).unwrap();
    assert!(told.ends_with("{\"done\":true,\"count\":1}\n"), "{told}");
}

#[test]
fn events_reach_every_reader_or_are_counted() {
    let mut bed = Bed::new(2);
    let metrics = bed.start_control();
    let watch = |kinds: &[Kind]| {
        let mut client = Client::connect(&bed.socket()).unwrap();
        let kinds = kinds.to_vec();
        std::thread::spawn(move || {
            let (mut events, mut lost) = (Vec::new(), 0);
            let filter = Filter::default();
            client
                .watch(Watch { kinds, filter }, |told, _| {
                    match told {
                        Watched::Event(event) => events.push(event),
                        Watched::Lost(count) => lost += count,
                    }
                    ControlFlow::Continue(())
                })
                .unwrap();
            (events, lost)
        })
    };
    let (all, ends) = (watch(&[]), watch(&[Kind::Destroy]));
    // One that asks and never reads.
    let mut slow = UnixStream::connect(bed.socket()).unwrap();
    slow.write_all(b"{\"cmd\":\"conntrack-watch\"}\n").unwrap();
    let hub = bed.appliance.hub().clone();
    wait(|| hub.watchers() == 3);
    (0..600).for_each(|host| bed.send(host));
    assert_eq!(bed.appliance.flush(), Ok(600));
    let scrape = http(metrics, "/metrics");
    assert!(
        scrape.contains("\nshardwall_conntrack_events_total 1200\n"),
        "{scrape}"
    );
    drop(slow);
    wait(|| hub.watchers() == 2);
    bed.stop();
    let (events, lost) = all.join().unwrap();
    assert_eq!((events.len(), lost), (1200, 0));
    let count = |kind| events.iter().filter(|event| event.event == kind).count();
    assert_eq!((count(Kind::New), count(Kind::Destroy)), (600, 600));
    for pair in events.windows(2) {
        assert!(pair[0].time_us <= pair[1].time_us, "in order");
    }
    let (events, lost) = ends.join().unwrap();
    assert_eq!((events.len(), lost), (600, 0));
    assert!(events.iter().all(|event| event.event == Kind::Destroy));
    assert_eq!(bed.appliance.shared().watched(), 0);
}

#[test]
fn what_is_made_is_delivered_or_lost() {
    // Events that the workers' queues have no room for are lost to all; those that a reader leaves
    // lie are lost to it alone.
    let bed = Bed::without_workers(1);
    let hub = bed.appliance.hub().clone();
    let quick = hub.subscribe(Watch::default());
    let slow = hub.subscribe(Watch::default());
    let mut shard = Shard::new(0, 10, HashKey::from_seed(1), Ticks(0), Arc::default());
    shard.report_to(bed.appliance.shared().workers[0].events.clone());
    let now = Now::from_secs(1);
    shard.begin(now, bed.appliance.shared().watched());
    let addrs = Addrs::V4 { src: 1, dst: 2 };
    let bytes = frame(addrs, Segment::Udp { sport: 1, dport: 2 }, b"");
    let (parsed, config) = (parse(&bytes, bytes.len()), Config::default());
    let mut begin_and_end = |times| {
        for _ in 0..times {
            let prepared = shard.prepare(&bytes, &parsed, 0);
            shard.track(&bytes, &parsed, &prepared, false, now.ticks(), &config);
            let flow = shard.commit(now.ticks()).unwrap();
            shard.remove(&[flow]);
        }
    };
    let (mut read, mut lost) = (0, 0);
    for round in 0..6 {
        // Twice what the queue holds, every other time.
        begin_and_end(QUEUE / 2 * (1 + round % 2));
        hub.drain();
        read += quick.events.try_iter().count();
        lost += quick.take_lost() as usize;
    }
    let made = 9 * QUEUE;
    assert_eq!((read, lost), (6 * QUEUE, 3 * QUEUE));
    assert_eq!(
        hub.counts(),
        (made as u64, lost as u64, (made - lost - BACKLOG) as u64)
    );
    assert_eq!(slow.take_lost() as usize + slow.events.len(), made);
    drop((quick, slow));
    assert_eq!(
        bed.appliance.shared().watched(),
        0,
        "nobody watches any more"
    );
}

#[test]
fn bad_requests_are_answered_and_bounded() {
    let mut bed = Bed::new(1);
    bed.start_control();
    let connect = || BufReader::new(UnixStream::connect(bed.socket()).unwrap());
    let ask = |stream: &mut BufReader<UnixStream>, request: &[u8]| -> Value {
        // A server that has seen enough may close before all is written.
        let _ = stream.get_mut().write_all(request);
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    };
    let mut stream = connect();
    for garbage in [
        &b"\n"[..],
        b"hello\n",
        b"\xff\xfe\0\n",
        b"{}\n",
        b"{\"cmd\":\"reboot\"}\n",
        b"{\"cmd\":\"ping\",\"extra\":1}\n",
        b"{\"cmd\":\"conntrack-list\",\"proto\":300}\n",
        b"[[[[[[[[[[[[\n",
    ] {
        let answer = ask(&mut stream, garbage);
        let error = answer["error"].as_str().unwrap();
        assert!(error.starts_with("not a request"), "{error}");
    }
    assert_eq!(
        ask(&mut stream, b"{\"cmd\":\"ping\"}\n")["done"],
        true,
        "still usable"
    );

    let longest = format!("{{\"cmd\":\"ping\"}}{}\n", " ".repeat(MAX_REQUEST - 14));
    assert_eq!(longest.len(), MAX_REQUEST + 1);
    assert_eq!(ask(&mut stream, longest.as_bytes())["done"], true);
    let answer = ask(&mut stream, &vec![b' '; 4 * MAX_REQUEST]);
    let error = answer["error"].as_str().unwrap();
    assert!(error.contains("longer than 65536 bytes"), "{error}");
    let mut rest = Vec::new();
    assert_eq!(stream.read_to_end(&mut rest).unwrap_or(0), 0, "closed");

    let held: Vec<_> = (0..super::api::CONNECTIONS)
        .map(|_| {
            let mut stream = connect();
            ask(&mut stream, b"{\"cmd\":\"ping\"}\n");
            stream
        })
        .collect();
    let mut one_more = connect();
    let answer = ask(&mut one_more, b"");
    assert_eq!(answer["error"], "too many connections; try again");
    drop(held);
    wait(|| Client::connect(&bed.socket()).is_ok_and(|mut c| c.count(&Request::Ping {}).is_ok()));
}

#[test]
fn the_socket_is_private_and_replaces_only_a_dead_one() {
    let folder = Folder::new();
    let path = folder.join("control.sock");
    // What a crash leaves: a socket that nobody listens on.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let first = ApiListener::bind(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
    let left: Vec<_> = fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 2, "the socket and its lock: {left:?}");
    match ApiListener::bind(&path) {
        Err(error @ StartError::Running { .. }) => {
            assert!(
                error
                    .to_string()
                    .starts_with("another shardwall is running"),
                "{error}"
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(
        UnixStream::connect(&path).is_ok(),
        "the first one is unharmed"
    );
    drop(first);
    assert!(!path.exists());

    let long = folder.join(&"x".repeat(100));
    let error = ApiListener::bind(&long).unwrap_err().to_string();
    assert!(error.contains("control socket: cannot use /"), "{error}");

    let alien = UnixListener::bind(&path).unwrap();
    assert!(matches!(
        ApiListener::bind(&path),
        Err(StartError::Running { .. })
    ));
    drop(alien);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    assert!(matches!(
        ApiListener::bind(&path),
        Err(StartError::NotASocket(_))
    ));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn a_taken_metrics_address_is_named_with_its_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bed = Bed::without_workers(1);
    let mut system = bed.appliance.policy().system;
    let address = taken.local_addr().unwrap();
    system.metrics = Some(address);
    let error = super::Listeners::bind(&system).unwrap_err().to_string();
    assert!(error.contains(&address.to_string()), "{error}");
    assert!(
        error.contains("system.metrics") && error.contains("in use"),
        "{error}"
    );
    system.metrics = None;
    let listeners = super::Listeners::bind(&system).unwrap();
    assert!(listeners.metrics().is_none());
}

#[test]
fn clients_that_do_not_read_hold_up_nobody() {
    let mut bed = Bed::new(1);
    let metrics = bed.start_control();
    (0..600).for_each(|host| bed.send(host));
    let stall = || {
        let mut stream = UnixStream::connect(bed.socket()).unwrap();
        let requests = "{\"cmd\":\"conntrack-list\"}\n".repeat(50);
        // Refused at once where all places are taken.
        let _ = stream.write_all(requests.as_bytes());
        stream
    };
    let stalled: Vec<_> = (0..8).map(|_| stall()).collect();
    let mut client = Client::connect(&bed.socket()).unwrap();
    let list = Request::ConntrackList(Listing::default());
    assert_eq!(client.count(&list).unwrap(), 600);
    assert!(http(metrics, "/metrics").starts_with("HTTP/1.1 200"));
    drop(stalled);
    // Those that hang up give their places back.
    (0..5 * super::api::CONNECTIONS).for_each(|_| drop(stall()));
    wait(|| Client::connect(&bed.socket()).is_ok_and(|mut c| c.count(&Request::Ping {}).is_ok()));
    assert_eq!(client.count(&Request::ConntrackFlush {}).unwrap(), 600);
}

mod signals {
    use super::{Bed, wait};
    use rustix::process::{Pid, Signal, kill_process};
    use std::os::unix::net::UnixDatagram;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    /// Set in the process that is the target.
    const TARGET: &str = "SHARDWALL_TEST_TARGET";

    /// The appliance that the test below sends signals to: signals go to whole processes, so it
    /// needs one of its own.
    #[test]
    fn target() {
        if std::env::var_os(TARGET).is_none() {
            return;
        }
        let mut bed = Bed::new(1);
        bed.start_control();
        let appliance = bed.appliance.clone();
        wait(|| appliance.shared().stopping());
        bed.stop();
        assert!(!bed.socket().exists());
    }

    #[test]
    fn signals_reload_and_stop_and_systemd_is_told() {
        let folder = super::Folder::new();
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "control::tests::signals::target"])
            .env(TARGET, "1")
            .env("NOTIFY_SOCKET", &path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let told = || {
            let mut buffer = [0; 1024];
            let len = socket.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..len].to_vec()).unwrap()
        };
        let send = |signal| kill_process(Pid::from_child(&child), signal).unwrap();
        let ready = |generation| {
            format!("READY=1\nSTATUS=1 worker, 0 of 262144 flows, policy generation {generation}\n")
        };
        assert_eq!(told(), ready(1));
        send(Signal::HUP);
        let reloading = told();
        assert!(
            reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
            "{reloading}"
        );
        assert_eq!(told(), ready(2));
        send(Signal::TERM);
        assert_eq!(told(), "STOPPING=1\n");
        assert!(child.wait().unwrap().success());
    }
}

mod log {
    use super::super::events::Writer;
    use super::{Bed, RULES};
    use crate::base::time::Now;
    use parking_lot::Mutex;
    use std::io::{self, Write};
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn captured(run: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, run);
        let bytes = lines.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn logged_packets_are_written_with_their_names() {
        let mut bed = Bed::new(1);
        let mut writer = Writer::new(bed.events());
        bed.send(7);
        // Its line comes after the next policy is in force, and still finds its names.
        bed.write_policy(
            &RULES
                .replace("outbound", "renamed")
                .replace("prefix: out", "prefix: q"),
        );
        bed.appliance.reload(None).unwrap();
        bed.send(8);
        let text = captured(|| writer.drain(&bed.appliance, Now::from_secs(5)));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        for field in [
            "prefix=\"out\" rule=\"forward/outbound\" verdict=\"accept\" iif=\"lan\" oif=\"wan\"",
            "proto=udp src=10.0.0.7 dst=10.9.0.1 sport=4000 dport=53 state=\"new\" len=33",
        ] {
            assert!(lines[0].contains(field), "{field}\n{text}");
        }
        assert!(
            lines[1].contains("prefix=\"q\" rule=\"forward/renamed\""),
            "{text}"
        );
    }

    #[test]
    fn lines_are_limited_and_the_lost_are_told() {
        let mut bed = Bed::new(1);
        let mut writer = Writer::new(bed.events());
        bed.write_policy(
            &RULES.replace("prefix: out", "prefix: out, limit: 9000/second burst 9000"),
        );
        bed.appliance.reload(None).unwrap();
        (0..1010).for_each(|host| bed.send(host));
        let text = captured(|| {
            writer.drain(&bed.appliance, Now::from_secs(5));
            bed.send(2000);
            writer.drain(&bed.appliance, Now::from_secs(6));
            writer.drain(&bed.appliance, Now::from_secs(7));
        });
        let count = |word: &str| text.lines().filter(|line| line.contains(word)).count();
        assert_eq!(
            (count("forward/outbound"), count("log lines lost")),
            (1001, 1)
        );
        assert_eq!(count("lost=10"), 1);
    }

    #[test]
    fn a_rule_has_a_limit_of_its_own_and_what_it_suppresses_is_told() {
        let mut bed = Bed::new(1);
        let mut writer = Writer::new(bed.events());
        let send =
            |bed: &mut Bed, hosts: std::ops::Range<u32>| hosts.for_each(|host| bed.send(host));
        let count =
            |text: &str, word: &str| text.lines().filter(|line| line.contains(word)).count();
        send(&mut bed, 0..130);
        let text = captured(|| {
            writer.drain(&bed.appliance, Now::from_secs(5));
            // the same second, and nothing is said yet
            writer.drain(&bed.appliance, Now::from_secs(5));
        });
        assert_eq!(count(&text, "prefix=\"out\""), 100, "{text}");
        assert_eq!(count(&text, "suppressed"), 0, "{text}");
        let text = captured(|| {
            writer.drain(&bed.appliance, Now::from_secs(6));
            writer.drain(&bed.appliance, Now::from_secs(7));
        });
        assert_eq!(
            count(&text, "30 lines of rule forward/outbound suppressed"),
            1
        );
        assert_eq!(text.lines().count(), 1, "{text}");
        // a rule that was given another limit has a bucket of that
        let limit = "prefix: out, limit: 1/hour burst 3";
        bed.write_policy(&RULES.replace("prefix: out", limit));
        bed.appliance.reload(None).unwrap();
        send(&mut bed, 200..210);
        let text = captured(|| writer.finish(&bed.appliance, Now::from_secs(8)));
        assert_eq!(count(&text, "prefix=\"out\""), 3, "{text}");
        assert_eq!(
            count(&text, "7 lines of rule forward/outbound suppressed"),
            1,
            "{text}"
        );
    }
}
