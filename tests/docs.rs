//! Tables in the README that repeat the code are made from it. `UPDATE_DOCS=1 cargo test --test
//! docs` writes them; without it a stale one fails.

use serde_json::Value;
use shardwall::conntrack::helper::{Class, Refusal};
use shardwall::control::metrics::{METRICS, OTHER, SERIES};
use shardwall::control::protocol::proto_name;
use shardwall::helpers::INFOS;
use shardwall::pipeline::DropReason;
use shardwall::policy::MAX_PORTS;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

/// A table, between two markers with its name.
fn table(readme: &str, name: &str, table: &str) -> String {
    let begin = format!("<!-- {name}: generated, `UPDATE_DOCS=1 cargo test --test docs` -->\n");
    let end = format!("<!-- end of {name} -->");
    let (head, rest) = readme
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
fn the_readme_has_every_drop_reason_helper_and_refusal() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let want = table(&readme, "drop reasons", &drop_reasons());
    let want = table(&want, "refusals", &refusals());
    let want = table(&want, "helpers", &helpers());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, want).unwrap();
    } else {
        assert!(
            readme == want,
            "README.md is stale: run UPDATE_DOCS=1 cargo test --test docs"
        );
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
    keep("deploy/policy.md", &Reference::new(&schema).text());
}

/// The language as tables, from its schema.
struct Reference<'s> {
    schema: &'s Value,
    /// Mappings, each with where it stands, in the order of reading.
    mappings: Vec<(String, &'s str)>,
}

impl<'s> Reference<'s> {
    fn new(schema: &'s Value) -> Self {
        let mut reference = Self {
            schema,
            mappings: Vec::new(),
        };
        reference.visit("", "Policy");
        reference
    }

    fn definition(&self, name: &str) -> &'s Value {
        match name {
            "Policy" => self.schema,
            name => &self.schema["$defs"][name],
        }
    }

    /// Definitions that a schema refers to, and where they stand below it.
    fn refers(schema: &'s Value, below: &str, found: &mut Vec<(String, &'s str)>) {
        if let Some(name) = schema["$ref"].as_str() {
            found.push((below.to_owned(), name.trim_start_matches("#/$defs/")));
        }
        for forms in ["anyOf", "oneOf"] {
            for form in schema[forms].as_array().into_iter().flatten() {
                Self::refers(form, below, found);
            }
        }
        for (key, more) in [("items", "[]"), ("additionalProperties", ".NAME")] {
            if schema[key].is_object() {
                Self::refers(&schema[key], &format!("{below}{more}"), found);
            }
        }
        for (pattern, schema) in schema["patternProperties"]
            .as_object()
            .into_iter()
            .flatten()
        {
            let more = if pattern.contains("A-Z") || pattern == ".*" {
                ".NAME"
            } else {
                ".NUMBER"
            };
            Self::refers(schema, &format!("{below}{more}"), found);
        }
    }

    fn visit(&mut self, path: &str, name: &'s str) {
        if self.mappings.iter().any(|(_, known)| *known == name) {
            return;
        }
        let about = self.definition(name);
        let mut found = Vec::new();
        Self::refers(about, path, &mut found);
        if let Some(properties) = about["properties"].as_object() {
            self.mappings.push((path.to_owned(), name));
            for (key, schema) in in_order(properties) {
                let dot = if path.is_empty() { "" } else { "." };
                Self::refers(schema, &format!("{path}{dot}{key}"), &mut found);
            }
        }
        for (path, name) in found {
            self.visit(&path, name);
        }
    }

    fn text(&self) -> String {
        let mut out = String::from(
            "<!-- generated from the schema: `UPDATE_DOCS=1 cargo test --test docs` -->\n\
             # The policy language\n\n\
             Every key, what it takes, and what it means. The [README](../README.md#policy-by-example) shows \
             whole policies, `shardwall check` tells all that is wrong with one, and editors that know \
             [`policy.schema.json`](policy.schema.json) (`shardwall schema`) complete as one types.\n",
        );
        for (path, name) in &self.mappings {
            let about = self.definition(name);
            let title = if path.is_empty() {
                "The policy".to_owned()
            } else {
                format!("`{path}`")
            };
            let meaning = about["description"].as_str().unwrap_or_default();
            let _ = writeln!(
                out,
                "\n<a id=\"{}\"></a>\n## {title}\n\n{meaning}\n",
                anchor(name)
            );
            out += "| key | takes | default | meaning |\n|---|---|---|---|\n";
            let required: BTreeSet<_> = strings(&about["required"]).collect();
            let properties = about["properties"].as_object().into_iter();
            for (key, schema) in properties.flat_map(in_order) {
                let default = match &schema["default"] {
                    Value::Null if required.contains(key.as_str()) => "required".to_owned(),
                    Value::Null => String::new(),
                    Value::String(text) => format!("`{text}`"),
                    other => format!("`{}`", flow(other)),
                };
                let text = schema["description"].as_str().unwrap_or_default();
                let _ = writeln!(
                    out,
                    "| `{key}` | {} | {default} | {text} |",
                    self.form(schema)
                );
            }
        }
        out += "\n## Values\n\nA value with `!`, `*`, `&`, `#` or a colon in front or inside stands in quotes, and between \
                `{ }` or `[ ]` one with a comma. Numbers are decimal, or hexadecimal after `0x`.\n\n| value | is written | meaning |\n|---|---|---|\n";
        for (name, about) in self.schema["$defs"].as_object().into_iter().flatten() {
            let Some(examples) = about["examples"].as_array() else {
                continue;
            };
            let examples: Vec<_> = examples
                .iter()
                .map(|one| format!("`{}`", flow(one)))
                .collect();
            let mut meaning = about["description"].as_str().unwrap_or_default().to_owned();
            let mut names = Vec::new();
            words(about, &mut names);
            let told = |name: &&str| {
                ["`", "\"`"]
                    .iter()
                    .any(|end| meaning.contains(&format!("{name}{end}")))
            };
            let told = names.iter().all(told);
            if !names.is_empty() && !told && name != "Version" && name != "Switch" {
                let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
                let _ = write!(meaning, " Names: {}.", names.join(", "));
            }
            let (id, title) = (anchor(name), spaced(name));
            let meaning = meaning.replace('|', "\\|");
            let _ = writeln!(
                out,
                "| <a id=\"{id}\"></a>{title} | {} | {meaning} |",
                examples.join(", ")
            );
        }
        out
    }

    /// What a key takes, in words.
    fn form(&self, schema: &Value) -> String {
        if let Some(name) = schema["$ref"].as_str() {
            let name = name.trim_start_matches("#/$defs/");
            let about = self.definition(name);
            let link = |text: &str| format!("[{text}](#{})", anchor(name));
            return match () {
                () if about["properties"].is_object() => link("mapping"),
                () if about["examples"].is_array() => link(&spaced(name)),
                () => self.form(about),
            };
        }
        for forms in ["anyOf", "oneOf"] {
            if let Some(forms) = schema[forms].as_array() {
                let forms = forms.iter().filter(|form| form["type"] != "null");
                let forms: Vec<_> = forms.map(|form| self.form(form)).collect();
                return forms.join(" or ");
            }
        }
        match schema["type"].as_str() {
            Some("array") if schema["maxItems"] == 2 => "pair of ports".to_owned(),
            Some("array") => format!("list of {}", self.form(&schema["items"])),
            Some("object") => {
                let each = schema["patternProperties"].as_object();
                let each = each.and_then(|each| each.values().next());
                let each = each.unwrap_or(&schema["additionalProperties"]);
                format!("names, each with {}", self.form(each))
            }
            _ => "value".to_owned(),
        }
    }
}

/// Keys that stand before others, in the order of reading.
const ORDER: &str = "version ports bridge system reload sets conntrack helpers raw chains \
    max expect_max timeouts profiles zones forward policy rules workers cores idle hugepages device \
    name comment helper loose low-ports action jump goto log mark count timeout \
    iif oif family saddr daddr proto sport dport icmp-type tcp-flags ct ct-direction ct-status ct-mark";

fn in_order(properties: &serde_json::Map<String, Value>) -> Vec<(&String, &Value)> {
    let place = |key: &str| ORDER.split(' ').position(|known| known == key);
    let mut all: Vec<_> = properties.iter().collect();
    all.sort_by_key(|(key, _)| place(key).unwrap_or(usize::MAX));
    all
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// Names that a value may be, once each.
fn words<'v>(schema: &'v Value, found: &mut Vec<&'v str>) {
    for name in strings(&schema["enum"]) {
        if !found.contains(&name) {
            found.push(name);
        }
    }
    for form in schema["anyOf"].as_array().into_iter().flatten() {
        words(form, found);
    }
    if schema["items"].is_object() {
        words(&schema["items"], found);
    }
}

/// A value as YAML writes it on one line.
fn flow(value: &Value) -> String {
    match value {
        Value::String(text) if text.starts_with('!') || text.contains(',') => {
            format!("\"{text}\"")
        }
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(flow).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(map) => {
            let map: Vec<_> = map
                .iter()
                .map(|(k, v)| format!("{k}: {}", flow(v)))
                .collect();
            format!("{{ {} }}", map.join(", "))
        }
        other => other.to_string(),
    }
}

/// `IcmpTypes` as `icmp types`.
fn spaced(name: &str) -> String {
    let mut out = String::new();
    for (at, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && at > 0 {
            out.push(' ');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

fn anchor(name: &str) -> String {
    spaced(name).replace(' ', "-")
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
