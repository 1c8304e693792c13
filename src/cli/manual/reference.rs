//! The policy language as tables, from its schema: what `deploy/policy.md` and shardwall-policy(5) are
//! made of.

use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write;

/// How values are written.
pub(super) const WRITING: &str = "A value with `!`, `*`, `&`, `#` or a colon in front or inside stands in quotes, \
    and between `{ }` or `[ ]` one with a comma. Numbers are decimal, or hexadecimal after `0x`.";

/// The language as tables.
#[derive(Debug)]
pub struct Reference<'s> {
    schema: &'s Value,
    /// Mappings, each with where it stands, in the order of reading.
    mappings: Vec<(String, &'s str)>,
}

/// A mapping of the language.
#[derive(Debug)]
pub(super) struct Mapping<'s> {
    /// Where it stands: `ports.NAME`; empty for the policy itself.
    pub(super) path: &'s str,
    /// Its name in the schema.
    name: &'s str,
    /// What it is.
    pub(super) meaning: &'s str,
    /// Its keys.
    pub(super) keys: Vec<Key<'s>>,
}

/// A key of a mapping.
#[derive(Debug)]
pub(super) struct Key<'s> {
    pub(super) name: &'s str,
    /// What it takes, in words, with links.
    pub(super) takes: String,
    /// What counts without it, or that it is required.
    pub(super) default: String,
    pub(super) meaning: &'s str,
}

/// A kind of value.
#[derive(Debug)]
pub(super) struct Kind<'s> {
    name: &'s str,
    /// How it is written.
    pub(super) examples: String,
    pub(super) meaning: String,
}

impl Kind<'_> {
    /// What it is called.
    pub(super) fn title(&self) -> String {
        spaced(self.name)
    }
}

impl<'s> Reference<'s> {
    /// Of the schema that [`crate::policy::schema`] gives.
    pub fn new(schema: &'s Value) -> Self {
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

    /// The mappings, in the order of reading.
    pub(super) fn mappings(&self) -> impl Iterator<Item = Mapping<'_>> {
        self.mappings.iter().map(|(path, name)| {
            let about = self.definition(name);
            let required: BTreeSet<_> = strings(&about["required"]).collect();
            let properties = about["properties"].as_object().into_iter();
            let keys = properties.flat_map(in_order).map(|(key, schema)| Key {
                name: key,
                takes: self.form(schema),
                default: match &schema["default"] {
                    Value::Null if required.contains(key.as_str()) => "required".to_owned(),
                    Value::Null => String::new(),
                    Value::String(text) => format!("`{text}`"),
                    other => format!("`{}`", flow(other)),
                },
                meaning: schema["description"].as_str().unwrap_or_default(),
            });
            Mapping {
                path,
                name,
                meaning: about["description"].as_str().unwrap_or_default(),
                keys: keys.collect(),
            }
        })
    }

    /// The kinds of values, by name.
    pub(super) fn kinds(&self) -> impl Iterator<Item = Kind<'s>> {
        let definitions = self.schema["$defs"].as_object().into_iter().flatten();
        definitions.filter_map(|(name, about)| {
            let examples = about["examples"].as_array()?.iter();
            let examples: Vec<_> = examples.map(|one| format!("`{}`", flow(one))).collect();
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
            Some(Kind {
                name,
                examples: examples.join(", "),
                meaning,
            })
        })
    }

    /// As `deploy/policy.md` has it.
    pub fn markdown(&self) -> String {
        let mut out = String::from(
            "<!-- generated from the schema: `UPDATE_DOCS=1 cargo test --test docs` -->\n\
             # The policy language\n\n\
             Every key, what it takes, and what it means. The [README](../README.md#policy-by-example) shows \
             whole policies, `shardwall check` tells all that is wrong with one, and editors that know \
             [`policy.schema.json`](policy.schema.json) (`shardwall schema`) complete as one types.\n",
        );
        for mapping in self.mappings() {
            let title = match mapping.path {
                "" => "The policy".to_owned(),
                path => format!("`{path}`"),
            };
            let (id, meaning) = (anchor(mapping.name), mapping.meaning);
            let _ = writeln!(out, "\n<a id=\"{id}\"></a>\n## {title}\n\n{meaning}\n");
            out += "| key | takes | default | meaning |\n|---|---|---|---|\n";
            for Key {
                name,
                takes,
                default,
                meaning,
            } in mapping.keys
            {
                let _ = writeln!(out, "| `{name}` | {takes} | {default} | {meaning} |");
            }
        }
        let _ = write!(
            out,
            "\n## Values\n\n{WRITING}\n\n| value | is written | meaning |\n|---|---|---|\n"
        );
        for kind in self.kinds() {
            let (id, title) = (anchor(kind.name), kind.title());
            let (examples, meaning) = (kind.examples, kind.meaning.replace('|', "\\|"));
            let _ = writeln!(
                out,
                "| <a id=\"{id}\"></a>{title} | {examples} | {meaning} |"
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
