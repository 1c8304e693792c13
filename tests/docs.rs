//! Tables in the documents that repeat the code are made from it. `UPDATE_DOCS=1 cargo test --test
//! docs` writes them; without it a stale one fails. `docs/links.rs` follows their links, and
//! `docs/examples.rs` checks their policies.

use shardwall::cli::manual::Reference;
use shardwall::conntrack::helper::{Class, Refusal};
use shardwall::control::metrics::{METRICS, OTHER, SERIES};
use shardwall::control::protocol::proto_name;
use shardwall::helpers::INFOS;
use shardwall::pipeline::DropReason;
use shardwall::policy::MAX_PORTS;
use std::fmt::Write;
use std::path::Path;

#[path = "docs/examples.rs"]
mod examples;
#[path = "docs/links.rs"]
mod links;

/// A table, between two markers with its name.
fn table(page: &str, name: &str, table: &str) -> String {
    let begin = format!("<!-- {name}: generated, `UPDATE_DOCS=1 cargo test --test docs` -->\n");
    let end = format!("<!-- end of {name} -->");
    let (head, rest) = page
        .split_once(&begin)
        .unwrap_or_else(|| panic!("the marker before the {name}"));
    let (_, tail) = rest
        .split_once(&end)
        .unwrap_or_else(|| panic!("the marker behind the {name}"));
    format!("{head}{begin}{table}{end}{tail}")
}

fn drop_reasons() -> String {
    let rows = DropReason::ALL.iter();
    let rows = rows.map(|reason| format!("| `{}` | {} |\n", reason.name(), reason.text()));
    "| reason | meaning |\n|---|---|\n".to_owned() + &rows.collect::<String>()
}

fn refusals() -> String {
    let rows = Refusal::ALL.iter();
    let rows = rows.map(|reason| format!("| `{}` | {} |\n", reason.name(), reason.text()));
    "| refused | because |\n|---|---|\n".to_owned() + &rows.collect::<String>()
}

fn helpers() -> String {
    let rows = INFOS.iter().map(|info| {
        let protos = info.protos.iter();
        let protos: Vec<_> = protos
            .map(|number| proto_name(*number).unwrap_or("unknown"))
            .collect();
        let families = if info.ipv6 { "IPv4, IPv6" } else { "IPv4" };
        let classes: Vec<_> = info.classes.iter().map(class).collect();
        let (protos, classes) = (protos.join(", "), classes.join("; "));
        format!("| `{}` | {protos} | {families} | {classes} |\n", info.name)
    });
    "| helper | listens to | of | expects, of one flow at a time |\n|---|---|---|---|\n".to_owned()
        + &rows.collect::<String>()
}

fn class(class: &Class) -> String {
    let (name, max, seconds) = (class.name, class.max, class.timeout.as_secs());
    format!("{name}: {max}, for {seconds} s")
}

#[test]
fn the_pages_have_every_drop_reason_helper_and_refusal() {
    for (path, name, of) in [
        (
            "docs/troubleshooting.md",
            "drop reasons",
            drop_reasons as fn() -> String,
        ),
        ("docs/policy.md", "refusals", refusals),
        ("docs/policy.md", "helpers", helpers),
    ] {
        let full = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        let page = std::fs::read_to_string(full).unwrap();
        keep(path, &table(&page, name, &of()));
    }
}

/// The page about metrics.
fn metrics() -> String {
    let mut page = format!(
        "# Metrics\n\nMade from the code by `UPDATE_DOCS=1 cargo test --test docs`.\n\nPrometheus finds them at \
         `/metrics` of `system.metrics` (127.0.0.1:9477). The workers' counters are read at most once a second: \
         scrapes within a second of the last reading have its text. Counts are since the start; those of rules \
         survive a reload that leaves the rule unchanged.\n\nHow many series there are is bounded: labels are ports \
         (at most {MAX_PORTS}), workers (128), helpers, reasons, states, and the first {SERIES} rules and {SERIES} named \
         counters of the policy; those beyond are summed up as `{OTHER}`. A rule is called by its chain and its \
         name, `forward/web`; `forward/policy` is what the chain does at its end. No address is ever a label.\n\n\
         | name | type | labels | unit | meaning |\n|---|---|---|---|---|\n"
    );
    for about in METRICS {
        let labels: Vec<_> = about
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let (labels, unit) = (labels.join(", "), about.unit);
        let _ = writeln!(
            page,
            "| `{}` | {} | {labels} | {unit} | {} |",
            about.name, about.kind, about.help
        );
    }
    page
}

#[test]
fn the_page_about_metrics_has_every_metric() {
    keep("deploy/metrics.md", &metrics());
}

/// Writes `want` to the file at `path`, or fails if it is not what stands there.
fn keep(path: &str, want: &str) {
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&full, want).unwrap();
    } else {
        let is = std::fs::read_to_string(&full).unwrap_or_default();
        assert!(
            is == want,
            "{path} is stale: run UPDATE_DOCS=1 cargo test --test docs"
        );
    }
}

#[test]
fn the_schema_and_the_reference_are_those_of_the_language() {
    let schema = shardwall::policy::schema();
    let text = serde_json::to_string_pretty(&schema).unwrap();
    keep("deploy/policy.schema.json", &format!("{text}\n"));
    keep("deploy/policy.md", &Reference::new(&schema).markdown());
}

#[test]
fn the_policies_that_we_ship_are_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let checked = shardwall::policy::load(&root.join("deploy/policy.example.yaml"))
        .unwrap_or_else(|errors| panic!("{errors}"));
    assert!(checked.warnings.is_empty(), "{}", checked.render_warnings());
    // The README's own example.
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let (_, rest) = readme.split_once("```yaml\n").expect("an example");
    let (example, _) = rest.split_once("```").expect("its end");
    let checked =
        shardwall::policy::parse("README.md", example).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(checked.warnings.is_empty(), "{}", checked.render_warnings());
}
