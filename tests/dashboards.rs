//! Dashboards and alerts show only what the binary exports, and are fit to be provisioned.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use shardwall::control::metrics::{About, METRICS};

type Result<T = (), E = Box<dyn Error>> = std::result::Result<T, E>;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

/// The names that a scrape of this build has.
fn exported_metrics() -> Vec<String> {
    shardwall::control::metrics::NAMES
        .iter()
        .map(|name| (*name).to_owned())
        .collect()
}

/// Every `shardwall_…` word of a query.
fn metric_names(query: &str) -> BTreeSet<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    query
        .split(|c| !is_word(c))
        .filter(|word| word.starts_with("shardwall_"))
        .map(whole)
        .collect()
}

/// A metric's name; what a histogram exports under its name stands for it.
fn whole(word: &str) -> String {
    let of = |part: &str| word.strip_suffix(part);
    let mut parts = ["_bucket", "_sum", "_count"].into_iter().filter_map(of);
    let histogram = parts.find(|name| {
        let is = |about: &&About| about.name == *name && about.kind == "histogram";
        METRICS.iter().any(|about| is(&about))
    });
    histogram.unwrap_or(word).to_owned()
}

/// Every string under a key of this name, however deep.
fn strings_at<'a>(key: &str, value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(text) if name == key => found.push(text),
                    _ => strings_at(key, field, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| strings_at(key, item, found)),
        _ => {}
    }
}

/// The files of a folder with this extension, by name.
fn files(folder: &Path, extension: &str) -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == extension) {
            files.push((path.display().to_string(), fs::read_to_string(&path)?));
        }
    }
    files.sort();
    Ok(files)
}

fn dashboards() -> Result<Vec<(String, Value)>> {
    let mut dashboards = Vec::new();
    for (name, text) in files(&deploy().join("grafana"), "json")? {
        let value = serde_json::from_str(&text).map_err(|error| format!("{name}: {error}"))?;
        dashboards.push((name, value));
    }
    let names: Vec<_> = dashboards
        .iter()
        .map(|(name, _): &(String, Value)| name.rsplit('/').next().unwrap_or_default())
        .collect();
    let all = ["conntrack", "helpers", "overview", "policy", "workers"];
    assert_eq!(names, all.map(|name| format!("shardwall-{name}.json")));
    Ok(dashboards)
}

/// The panels, those in collapsed rows too.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let mut all = Vec::new();
    for panel in dashboard["panels"].as_array().into_iter().flatten() {
        all.push(panel);
        all.extend(panel["panels"].as_array().into_iter().flatten());
    }
    all
}

/// The names that are used and not exported, each with where.
fn unknown(used: &BTreeSet<(String, String)>, exported: &[String]) -> Vec<String> {
    used.iter()
        .filter(|(_, metric)| !exported.contains(metric))
        .map(|(place, metric)| format!("{place}: {metric}"))
        .collect()
}

#[test]
fn dashboards_use_exported_metrics() -> Result {
    let mut used = BTreeSet::new();
    for (name, dashboard) in dashboards()? {
        let mut queries = Vec::new();
        for key in ["expr", "query", "definition"] {
            strings_at(key, &dashboard, &mut queries);
        }
        let metrics = queries.iter().flat_map(|query| metric_names(query));
        let before = used.len();
        used.extend(metrics.map(|metric| (name.clone(), metric)));
        assert!(used.len() > before, "{name} shows no metric");
    }
    assert_eq!(unknown(&used, &exported_metrics()), [""; 0]);
    Ok(())
}

#[test]
fn alerts_use_exported_metrics() -> Result {
    let mut used = BTreeSet::new();
    for (name, text) in files(&deploy().join("prometheus"), "yml")? {
        // Comments and prose have no such words, so that the whole file can be read as queries.
        // Unit tests of rules have values beside names.
        if name.ends_with("_test.yml") {
            continue;
        }
        let metrics = metric_names(&text);
        used.extend(metrics.into_iter().map(|metric| (name.clone(), metric)));
    }
    assert!(!used.is_empty(), "no alert uses a metric");
    assert_eq!(unknown(&used, &exported_metrics()), [""; 0]);
    Ok(())
}

/// What is exported and on no dashboard, nobody sees.
#[test]
fn every_metric_is_on_a_dashboard() -> Result {
    let mut shown = BTreeSet::new();
    for (_, dashboard) in dashboards()? {
        let mut queries = Vec::new();
        strings_at("expr", &dashboard, &mut queries);
        shown.extend(queries.iter().flat_map(|query| metric_names(query)));
    }
    // Those that are seen as a part of others.
    let elsewhere = ["shardwall_punted_packets_total"];
    let missing: Vec<_> = exported_metrics()
        .into_iter()
        .filter(|name| !shown.contains(name) && !elsewhere.contains(&name.as_str()))
        .collect();
    assert_eq!(missing, [""; 0]);
    Ok(())
}

/// `promtool test rules` runs the cases; here it is held that there are some for each alert.
#[test]
fn every_alert_has_a_case_that_fires_and_one_that_does_not() -> Result {
    let read = |name: &str| fs::read_to_string(deploy().join("prometheus").join(name));
    let (alerts, cases) = (read("alerts.yml")?, read("alerts_test.yml")?);
    let alerts: Vec<_> = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(alerts.len() >= 15);
    for alert in alerts {
        let fires = format!("exp_samples: [{{ labels: '{{alertname=\"{alert}\"}}', value: 1 }}]");
        assert!(cases.contains(&fires), "{alert} fires nowhere");
        let (_, case) = cases
            .split_once(&format!("- name: {alert}, not enough\n"))
            .expect(alert);
        let (case, _) = case.split_once("- name:").unwrap_or((case, ""));
        assert!(case.contains("exp_samples: []"), "{alert}");
    }
    Ok(())
}

#[test]
fn dashboards_can_be_provisioned() -> Result {
    let mut uids = BTreeSet::new();
    for (name, dashboard) in dashboards()? {
        assert_eq!(dashboard.get("id"), Some(&Value::Null), "{name}: id");
        let uid = dashboard["uid"].as_str().unwrap_or_default();
        assert!(!uid.is_empty() && uid.len() <= 40, "{name}: uid {uid:?}");
        assert!(uids.insert(uid.to_owned()), "{name}: uid {uid} twice");

        let mut ids = BTreeSet::new();
        for panel in panels(&dashboard) {
            let id = panel["id"].as_u64();
            assert!(id.is_some_and(|id| ids.insert(id)), "{name}: id {id:?}");
        }
        let variables: Vec<_> = dashboard["templating"]["list"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|variable| variable["name"].as_str().unwrap_or_default())
            .collect();
        assert_eq!(variables, ["datasource", "instance"], "{name}");
    }
    Ok(())
}

#[test]
fn panels_follow_the_variables() -> Result {
    for (name, dashboard) in dashboards()? {
        for panel in panels(&dashboard) {
            let title = panel["title"].as_str().unwrap_or_default();
            for target in panel["targets"].as_array().into_iter().flatten() {
                let uid = target["datasource"]["uid"].as_str();
                assert_eq!(uid, Some("${datasource}"), "{name}: {title}");
                let query = target["expr"].as_str().unwrap_or_default();
                let filters = query.matches(r#"instance=~"$instance""#).count();
                let metrics = query.matches("shardwall_").count();
                assert_eq!(filters, metrics, "{name}: {title}: {query}");
            }
        }
    }
    Ok(())
}

#[test]
fn names_are_found_and_missing_ones_reported() {
    let query = r#"rate(shardwall_a_total{x="shardwall"}[5m]) / on() shardwall_b > up"#;
    let names = metric_names(query);
    assert!(names.iter().eq(["shardwall_a_total", "shardwall_b"]));

    let used = names.into_iter().map(|name| ("here".to_owned(), name));
    let exported = ["shardwall_b".to_owned()];
    assert_eq!(
        unknown(&used.collect(), &exported),
        ["here: shardwall_a_total"]
    );
}
