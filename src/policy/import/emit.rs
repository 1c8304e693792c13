//! Writes a policy as YAML for people: a rule a line, what was left out as a comment in its place.
//!
//! Life-cycle and concurrency: as [`super`].

use super::Left;
use super::assemble::{Chain, Layout};
use super::rules::{Act, Cond, Item, Rule, plain};
use crate::policy::check::MATCHES;
use crate::policy::names::parse_number;
use std::fmt::Write;

/// Where something of a [`Layout`] stands in the text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Its first line, counted from 1.
    pub(super) line: u32,
    pub(super) part: Part,
}

/// Something of a [`Layout`], by index.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Set(usize),
    Raw(usize),
    Helper(usize),
    Rule(usize, usize),
    Other,
}

/// Elements of a set in one line.
const PER_LINE: usize = 8;

struct Writer {
    text: String,
    lines: u32,
    places: Vec<Place>,
}

impl Writer {
    fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
        self.lines += 1;
    }

    fn part(&mut self, part: Part, text: &str) {
        let line = self.lines + 1;
        self.places.push(Place { line, part });
        self.line(text);
    }

    fn head(&mut self, text: &str) {
        self.part(Part::Other, text);
    }

    fn items(&mut self, indent: &str, items: &[Item], part: impl Fn(usize) -> Part) {
        for (at, item) in items.iter().enumerate() {
            match item {
                Item::Rule(rule) => {
                    for note in &rule.notes {
                        self.head(&format!("{indent}# note: {}", plain(note)));
                    }
                    let text = format!("{indent}- {}", self::rule(rule));
                    self.part(part(at), &text);
                }
                Item::Left(left) => self.comment(indent, "NOT TAKEN", left),
                Item::Note(left) => self.comment(indent, "not needed", left),
            }
        }
    }

    fn comment(&mut self, indent: &str, what: &str, left: &Left) {
        self.head(&format!(
            "{indent}# {what}, line {}: {}",
            left.line, left.text
        ));
        let wider = if left.widens() {
            "; WITHOUT IT MORE MAY PASS"
        } else {
            ""
        };
        self.head(&format!("{indent}#   {}{wider}", left.why));
    }
}

/// The policy's text, and what stands where.
pub(super) fn emit(name: &str, layout: &Layout) -> (String, Vec<Place>) {
    let mut out = Writer {
        text: String::new(),
        lines: 0,
        places: Vec::new(),
    };
    out.head(&format!(
        "# Imported from {} by `shardwall import`.",
        plain(name)
    ));
    out.head("version: 1");
    out.head("");
    ports(&mut out, layout);
    let timed =
        |item: &Item| matches!(item, Item::Rule(rule) if rule.matches.get("time").is_some());
    if layout.utc && layout.items().any(timed) {
        out.head("# Times of the day were in UTC; local ones follow daylight saving.");
        out.head("system: { time-zone: UTC }");
    }
    if layout.sets.iter().any(|(_, values)| !values.is_empty()) {
        out.head("");
        out.head("sets:");
        sets(&mut out, &layout.sets);
    }
    for (key, items) in [("helpers", &layout.helpers), ("raw", &layout.raw)] {
        if items.is_empty() {
            continue;
        }
        out.head("");
        let rules = items.iter().any(|item| matches!(item, Item::Rule(_)));
        out.head(&if rules {
            format!("{key}:")
        } else {
            format!("# {key}:")
        });
        let raw = key == "raw";
        out.items("  ", items, |at| {
            if raw { Part::Raw(at) } else { Part::Helper(at) }
        });
    }
    out.head("");
    out.head("chains:");
    for (at, chain) in layout.chains.iter().enumerate() {
        out.head(&format!("  {}:", scalar(&chain.name)));
        self::chain(&mut out, at, chain);
    }
    (out.text, out.places)
}

fn chain(out: &mut Writer, at: usize, chain: &Chain) {
    if let Some(accepts) = chain.accepts {
        out.head(&format!(
            "    policy: {}",
            if accepts { "accept" } else { "drop" }
        ));
    }
    if chain.items.iter().any(|item| matches!(item, Item::Rule(_))) {
        out.head("    rules:");
    } else {
        out.head("    rules: []");
    }
    out.items("      ", &chain.items, |rule| Part::Rule(at, rule));
}

fn ports(out: &mut Writer, layout: &Layout) {
    out.head("# Put the PCI addresses of your NICs, or other DPDK devices, in place of these.");
    out.head("ports:");
    for (at, port) in layout.ports.iter().enumerate() {
        let interface = port.interface.as_deref().unwrap_or(&port.name);
        let device = format!("net_af_packet{at},iface={interface}");
        let text = format!(
            "  {}: {{ device: {} }}",
            scalar(&port.name),
            quoted(&device)
        );
        out.head(&text);
    }
    match &layout.ports[..] {
        [a, b] => {
            out.head("bridge:");
            out.head(&format!("  - [{}, {}]", scalar(&a.name), scalar(&b.name)));
        }
        _ => {
            out.head(
                "# Say which pairs of ports are bridged: what enters one leaves by the other.",
            );
            out.head("bridge: []");
        }
    }
}

fn sets(out: &mut Writer, sets: &[(String, Vec<String>)]) {
    for (at, (name, values)) in sets
        .iter()
        .enumerate()
        .filter(|(_, (_, values))| !values.is_empty())
    {
        let name = scalar(name);
        let values: Vec<_> = values.iter().map(|value| scalar(value)).collect();
        if values.len() <= PER_LINE {
            out.part(Part::Set(at), &format!("  {name}: [{}]", values.join(", ")));
            continue;
        }
        out.part(Part::Set(at), &format!("  {name}: ["));
        for row in values.chunks(PER_LINE) {
            out.line(&format!("    {},", row.join(", ")));
        }
        out.line("  ]");
    }
}

fn rule(rule: &Rule) -> String {
    let mut fields: Vec<(&str, String)> = Vec::new();
    fields.extend(rule.name.map(|name| ("name", name.to_owned())));
    if let Act::Helper(helper) = &rule.act {
        fields.push(("helper", scalar(helper)));
    }
    for key in MATCHES {
        fields.extend(rule.matches.get(key).map(|cond| (key, values(key, cond))));
    }
    if let Some(prefix) = &rule.log {
        let prefix = prefix
            .as_ref()
            .map(|prefix| format!("{{ prefix: {} }}", quoted(prefix)));
        fields.push(("log", prefix.unwrap_or_else(|| "true".to_owned())));
    }
    fields.extend(rule.mark.as_ref().map(|mark| ("mark", scalar(mark))));
    fields.extend(rule.count.as_ref().map(|name| ("count", scalar(name))));
    match &rule.act {
        Act::Accept => fields.push(("action", "accept".into())),
        Act::Drop => fields.push(("action", "drop".into())),
        Act::Reject(kind) => fields.push(("action", format!("{{ reject: {kind} }}"))),
        Act::Return => fields.push(("action", "return".into())),
        Act::Notrack => fields.push(("action", "notrack".into())),
        Act::Jump(to) => fields.push(("jump", scalar(to))),
        Act::Goto(to) => fields.push(("goto", scalar(to))),
        Act::Continue | Act::Helper(_) => {}
    }
    fields.extend(
        rule.comment
            .as_ref()
            .map(|text| ("comment", quoted(&plain(text)))),
    );
    let mut out = String::from("{");
    for (at, (key, value)) in fields.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(out, "{comma} {key}: {value}");
    }
    out + " }"
}

fn values(key: &str, cond: &Cond) -> String {
    match &cond.values[..] {
        [one] if key == "fragment" => one.clone(),
        // a mapping
        [one] if key == "time" && one.starts_with('{') => one.clone(),
        [one] if cond.negated => quoted(&format!("!{one}")),
        [one] => scalar(one),
        many => {
            let many: Vec<_> = many.iter().map(|value| scalar(value)).collect();
            format!("[{}]", many.join(", "))
        }
    }
}

/// A scalar, in quotes unless it is plainly a word or a number.
fn scalar(text: &str) -> String {
    let word = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    let body = text.strip_prefix('$').unwrap_or(text);
    let begins = body.starts_with(|c: char| c.is_ascii_alphanumeric());
    let special = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    let odd = special.contains(&body.to_ascii_lowercase().as_str());
    let plain = begins && body.chars().all(word) && !odd;
    // a number that YAML would read otherwise keeps its text, but people need not know that
    let number = parse_number(body).is_some() || !body.starts_with('0');
    if plain && (number || body.contains(['.', '-'])) {
        text.to_owned()
    } else {
        quoted(text)
    }
}

/// A scalar in double quotes. What JSON escapes, YAML reads in the same way.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
