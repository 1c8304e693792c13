//! Scrapes: what they hold, how often they read, and who can hold them up.

use super::*;
use crate::base::time::Now;
use crate::control::metrics::{METRICS, OTHER, SERIES};
use std::time::Duration;

#[test]
fn every_series_has_the_labels_that_are_declared() {
    let bed = Bed::new(2);
    let text = Metrics::new(bed.appliance.clone())
        .unwrap()
        .scrape()
        .unwrap();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let end = line.find(['{', ' ']).unwrap();
        let name = &line[..end];
        let is = |name: &str| METRICS.iter().find(|about| about.name == name);
        let parts = ["_bucket", "_sum", "_count"].into_iter();
        let mut whole = parts.filter_map(|part| is(name.strip_suffix(part)?));
        let about = is(name).or_else(|| whole.next()).expect(name);
        let labels = line[end..].split(&['{', ','][..]);
        let labels: Vec<_> = labels
            .filter_map(|label| Some(label.split_once("=\"")?.0))
            .filter(|label| *label != "le")
            .collect();
        assert_eq!(labels, about.labels, "{line}");
        assert_eq!(about.kind == "counter", name.ends_with("_total"), "{name}");
    }
}

#[test]
fn rules_beyond_the_cap_share_a_series() {
    let rule = |n: usize| {
        format!("      - {{ name: r{n}, iif: lan, proto: udp, dport: {n}, action: accept }}\n")
    };
    let rules: String = (1..=SERIES + 60).map(rule).collect();
    let rules = format!("chains:\n  forward:\n    policy: drop\n    rules:\n{rules}");
    let bed = Bed::under(1, &rules);
    for port in [2, SERIES as u16 + 3, SERIES as u16 + 9] {
        bed.ask(1, port, b"x");
    }
    let text = Metrics::new(bed.appliance.clone())
        .unwrap()
        .scrape()
        .unwrap();
    let hits = "shardwall_policy_hits_packets_total{rule=";
    let series: Vec<_> = text.lines().filter(|line| line.starts_with(hits)).collect();
    assert_eq!(series.len(), SERIES + 1);
    for line in [
        format!("{hits}\"forward/r2\"}} 1"),
        format!("{hits}\"{OTHER}\"}} 2"),
        format!("shardwall_policy_rules {}", SERIES + 61),
    ] {
        assert!(text.lines().any(|found| found == line), "{line}");
    }
}

#[test]
fn who_waits_for_a_reload_waits_a_second() {
    // A worker that never comes round: the reload waits for it for ever.
    let bed = Bed::without_workers(1);
    let metrics = Metrics::new(bed.appliance.clone()).unwrap();
    let before = exported(&metrics.scrape().unwrap()).len();
    let policy = &bed.appliance.shared().policy;
    let (text, rules) = policy.with(|_| {
        let text = std::thread::scope(|scope| scope.spawn(|| metrics.scrape()).join());
        let text = text.unwrap().unwrap();
        let rules = text.contains("shardwall_policy_");
        (text, rules)
    });
    assert!(!rules);
    let text = exported(&text);
    assert!(text.contains("shardwall_worker_loops_total"));
    assert_eq!(text.len(), before - 3, "all but the rules");
}

#[test]
fn scrapes_share_a_reading_for_a_second() {
    let mut bed = Bed::new(1);
    let metrics = bed.start_control();
    let received = |text: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with("shardwall_received_packets_total "));
        line.unwrap().to_owned()
    };
    // Before the first reading, and looked at behind the others.
    let begun = since(&bed);
    let first = received(&http(metrics, "/metrics"));
    let mut others = Vec::new();
    for host in 0..20 {
        bed.send(host);
        let text = received(&http(metrics, "/metrics"));
        others.push((begun(), text));
    }
    for (at, other) in others {
        assert!(
            other == first || at >= Duration::from_secs(1),
            "{first} {other} {at:?}"
        );
    }
    std::thread::sleep(Duration::from_secs(1));
    let last = received(&http(metrics, "/metrics"));
    assert_eq!(last, "shardwall_received_packets_total 20");
}

#[test]
fn who_reads_nothing_keeps_nobody_from_the_metrics() {
    let mut bed = Bed::new(1);
    let metrics = bed.start_control();
    let connect = || TcpStream::connect(metrics).unwrap();
    let asking = |head: &str| {
        let mut stream = connect();
        // One that was ended for a newer one is gone.
        let _ = stream.write_all(head.as_bytes());
        stream
    };
    let mut all = Vec::new();
    for _ in 0..100 {
        all.push(connect());
        all.push(asking("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"));
        all.push(asking("GET / HTTP/1.1\r\nX-Slow: "));
    }
    let begun = since(&bed);
    assert!(http(metrics, "/metrics").starts_with("HTTP/1.1 200"));
    assert!(http(metrics, "/healthz").starts_with("HTTP/1.1 200"));
    bed.send(1);
    let mut client = Client::connect(&bed.socket()).unwrap();
    assert_eq!(client.count(&Request::ConntrackCount {}).unwrap(), 1);
    // Headers without an end are cut off, by their size.
    let mut endless = connect();
    let mut sent = 0;
    let _ = endless.write_all(b"GET / HTTP/1.1\r\n");
    while sent < 64 << 20 && endless.write_all(&[b'x'; 4096]).is_ok() {
        sent += 4096;
    }
    assert!(sent < 64 << 20, "refused after {sent} bytes");
    assert!(http(metrics, "/metrics").starts_with("HTTP/1.1 200"));
    assert!(begun() < Duration::from_secs(5), "{:?}", begun());
    drop(all);
}

#[test]
fn the_status_page_is_for_this_host_unless_the_policy_says_otherwise() {
    let served = |metrics: &str, page: &str| {
        let mut system = Bed::without_workers(1).appliance.policy().system;
        system.metrics = metrics.parse().ok();
        system.status_page = match page {
            "auto" => crate::policy::StatusPage::Auto,
            "on" => crate::policy::StatusPage::On,
            _ => crate::policy::StatusPage::Off,
        };
        system.serves_status()
    };
    for (metrics, page, expected) in [
        ("127.0.0.1:9477", "auto", true),
        ("127.8.0.1:9477", "auto", true),
        ("[::1]:9477", "auto", true),
        ("0.0.0.0:9477", "auto", false),
        ("[::]:9477", "auto", false),
        ("10.0.0.1:9477", "auto", false),
        ("10.0.0.1:9477", "on", true),
        ("127.0.0.1:9477", "off", false),
        ("off", "on", false),
    ] {
        assert_eq!(served(metrics, page), expected, "{metrics} {page}");
    }
}

/// The time that has passed since this was called.
fn since(bed: &Bed) -> impl Fn() -> Duration {
    let clock = bed.appliance.shared().clock;
    let start: Now = clock.now();
    move || Duration::from_nanos(clock.now().nanos() - start.nanos())
}
