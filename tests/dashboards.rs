//! Dashboards and alerts show only what the binary exports, and are fit to be provisioned.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

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
        .map(str::to_owned)
        .collect()
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
    assert!(!dashboards.is_empty(), "deploy/grafana has no dashboard");
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
        let metrics = metric_names(&text);
        used.extend(metrics.into_iter().map(|metric| (name.clone(), metric)));
    }
    assert!(!used.is_empty(), "no alert uses a metric");
    assert_eq!(unknown(&used, &exported_metrics()), [""; 0]);
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
