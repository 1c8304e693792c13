//! YAML into a tree whose every node knows its place in the file. The only file that knows which
//! YAML library is used.
//!
//! The tree is read by hand afterwards (`check`), not by derived `Deserialize` types: a derived
//! type stops at its first error, and a policy must be told all of them in one run. Scalars keep
//! the text that stands in the file, whatever type YAML would guess for it; the reader knows what
//! it expects there. Maps keep the order of the file, which numbers the ports.
//!
//! Life-cycle: built and dropped within one check. Concurrency: plain values.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::budget::BudgetBreach;
use serde_yaml::options::DuplicateKeyPolicy;
use serde_yaml::{Error, Location, Spanned};

use super::diagnostic::{Place, Sink};

/// A YAML value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) kind: Kind,
}

/// What a [`Node`] is.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// Nothing, `null` or `~`.
    Null,
    /// Anything that is not a collection, as text.
    Scalar(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file.
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) place: Place,
    pub(super) text: String,
}

impl Node {
    /// What to call this value in a message.
    pub(super) fn describe(&self) -> &'static str {
        match self.kind {
            Kind::Null => "nothing",
            Kind::Scalar(_) => "a single value",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
        }
    }
}

/// Deepest nesting; no policy needs a quarter of it.
const MAX_DEPTH: usize = 64;

/// Most values and keys: 100,000 rules of twelve keys each have as many. More would take time and
/// memory that a box has better use for.
const MAX_NODES: usize = 2_500_000;

/// Longest text that is read once more for what stands beside a duplicate key.
const READ_TWICE: usize = 1 << 20;

/// Most values that aliases may stand for, however often they are repeated.
const MAX_ALIASED: usize = 100_000;

/// Reads `text`; what is wrong with it as YAML goes to `sink`. After a duplicate key the rest of
/// a text that is not long can still be read (with its first value), after any other error nothing
/// can.
pub(super) fn read(text: &str, sink: &mut Sink<'_>) -> Option<Node> {
    match parse(text, DuplicateKeyPolicy::Error) {
        Ok(root) => Some(node(root, text)),
        Err(error) => {
            report(&error, text, sink);
            let duplicate = matches!(error.without_snippet(), Error::DuplicateMappingKey { .. });
            (duplicate && text.len() <= READ_TWICE)
                .then(|| parse(text, DuplicateKeyPolicy::FirstWins).ok())
                .flatten()
                .map(|root| node(root, text))
        }
    }
}

fn parse(text: &str, duplicate_keys: DuplicateKeyPolicy) -> Result<Raw, Error> {
    let options = serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 2 * MAX_NODES,
            // one rule may well be repeated often; what that makes is bounded below
            enforce_alias_anchor_ratio: false,
            max_aliases: MAX_ALIASED,
        },
        alias_limits: serde_yaml::alias_limits! { max_total_replayed_events: MAX_ALIASED },
        duplicate_keys: duplicate_keys,
        strict_booleans: true,
        // a forgotten quote in `saddr: !10.0.0.0/8` makes a tag of it; never ignore that
        reject_unsupported_tags: true,
        with_snippet: false
    };
    serde_yaml::from_str_with_options(text, options)
}

fn report(error: &Error, text: &str, sink: &mut Sink<'_>) {
    let at = error
        .location()
        .map_or(Place::default(), |location| error_place(location, text));
    let rest = text.get(at.offset..).unwrap_or_default();
    let line = rest.lines().next().unwrap_or_default();
    match error.without_snippet() {
        Error::DuplicateMappingKey { key, .. } => {
            sink.error(
                at,
                format!("duplicate key `{}`", key.as_deref().unwrap_or("?")),
            );
        }
        Error::Budget {
            breach: BudgetBreach::Nodes { .. },
            ..
        } => {
            sink.error(
                at,
                format!("more than {MAX_NODES} keys and values in one policy"),
            )
            .help("long lists of addresses or ports can stand in files: `sets: { name: { file: list } }`");
        }
        error => {
            let message = error.to_string();
            let message = message.lines().next().unwrap_or_default();
            let message = message
                .rfind(" at line ")
                .map_or(message, |end| &message[..end]);
            // what follows a semicolon is advice to programmers
            let message = message.split(';').next().unwrap_or_default();
            let tag = message
                .strip_prefix("unsupported tag `")
                .and_then(|m| m.strip_suffix('`'));
            // the parser points behind the tag
            let before = text.get(..at.offset).unwrap_or_default();
            let at = match tag.and_then(|tag| Some((before.rfind(tag)?, tag.len()))) {
                Some((offset, len)) => Place { offset, len },
                None => at,
            };
            let diagnostic = sink.error(at, format!("not valid YAML: {message}"));
            if tag.is_some() {
                diagnostic.help("a value that begins with `!` must be quoted: \"!...\"");
            } else if message.contains("tab") || line.starts_with('\t') {
                diagnostic.help("indent with spaces; YAML does not allow tabs");
            }
        }
    }
}

fn place(location: Location) -> Place {
    let span = location.span();
    Place {
        offset: span.byte_offset().unwrap_or(0) as usize,
        len: span.byte_len().unwrap_or(0) as usize,
    }
}

/// Where an error is; the parser's own errors may know lines and columns only.
fn error_place(location: Location, text: &str) -> Place {
    if location.span().byte_offset().is_some() {
        return place(location);
    }
    let line = location.line().saturating_sub(1) as usize;
    let start: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let column = location.column().saturating_sub(1) as usize;
    let rest = text.get(start..).unwrap_or_default();
    let before: usize = rest.chars().take(column).map(char::len_utf8).sum();
    Place {
        offset: start + before,
        len: 0,
    }
}

fn node(raw: Raw, text: &str) -> Node {
    let at = raw.place;
    let source = || text.get(at.offset..at.offset + at.len).unwrap_or_default();
    let kind = match raw.value {
        Value::Null => Kind::Null,
        Value::Plain(value) => Kind::Scalar(match source() {
            "" => value,
            written => written.trim().to_owned(),
        }),
        Value::Text(value) => Kind::Scalar(value),
        Value::List(items) => Kind::List(items.into_iter().map(|item| node(item, text)).collect()),
        Value::Map(entries) => {
            let entries = entries.into_iter();
            Kind::Map(
                entries
                    .map(|(key, value)| (key, node(value, text)))
                    .collect(),
            )
        }
    };
    let len = match kind {
        Kind::Null => 0,
        Kind::List(_) | Kind::Map(_) => at.len.min(1),
        Kind::Scalar(_) => at.len,
    };
    Node {
        place: Place { len, ..at },
        kind,
    }
}

/// The tree as the deserialiser sees it. Of places it keeps no more than a [`Node`] does: there may
/// be millions.
struct Raw {
    place: Place,
    value: Value,
}

enum Value {
    Null,
    /// YAML took it for a number or a boolean; the text in the file counts.
    Plain(String),
    Text(String),
    List(Vec<Raw>),
    Map(Vec<(Key, Raw)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self {
            // a value behind an alias is shown where it is written
            place: place(spanned.defined),
            value: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<String>::deserialize(deserializer)?;
        Ok(Self {
            place: place(spanned.defined),
            text: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Plain(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Plain(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Plain(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Plain(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        items.shrink_to_fit();
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        entries.shrink_to_fit();
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> String {
        let mut sink = Sink::new(text);
        let root = read(text, &mut sink);
        let found = sink.finish();
        assert!(found.is_empty(), "{found:?}");
        show(&root.unwrap(), text)
    }

    fn show(node: &Node, text: &str) -> String {
        match &node.kind {
            Kind::Null => "null".into(),
            Kind::Scalar(value) => {
                let at = node.place;
                format!("{value}<{}>", &text[at.offset..at.offset + at.len])
            }
            Kind::List(items) => {
                let items: Vec<_> = items.iter().map(|item| show(item, text)).collect();
                format!("[{}]", items.join(" "))
            }
            Kind::Map(entries) => {
                let entries: Vec<_> = entries
                    .iter()
                    .map(|(key, value)| {
                        let at = key.place;
                        assert_eq!(&text[at.offset..at.offset + key.text.len()], key.text);
                        format!("{}={}", key.text, show(value, text))
                    })
                    .collect();
                format!("{{{}}}", entries.join(" "))
            }
        }
    }

    #[test]
    fn scalars_keep_the_text_of_the_file() {
        assert_eq!(
            tree(
                "ö: [22, 0x88cc, 10.20, 1e3, true, off, ~, 010, +5, -7]\nz: {a: \"q r\", b: 5d}\n"
            ),
            "{ö=[22<22> 0x88cc<0x88cc> 10.20<10.20> 1e3<1e3> true<true> off<off> null 010<010> \
             +5<+5> -7<-7>] z={a=q r<\"q r\"> b=5d<5d>}}"
        );
    }

    #[test]
    fn maps_keep_the_order_of_the_file() {
        assert_eq!(
            tree("wan: 1\nlan: 2\ndmz: 3\n"),
            "{wan=1<1> lan=2<2> dmz=3<3>}"
        );
    }

    #[test]
    fn aliases_show_where_they_are_written() {
        assert_eq!(
            tree("a: &x [1, 2]\nb: *x\n"),
            "{a=[1<1> 2<2>] b=[1<1> 2<2>]}"
        );
        assert_eq!(tree("a: &x 17\nb: *x\n"), "{a=17<17> b=17<17>}");
    }

    #[test]
    fn nesting_is_bounded() {
        let text = "[".repeat(100_000);
        let mut sink = Sink::new(&text);
        assert!(read(&text, &mut sink).is_none());
        assert_eq!(sink.finish().len(), 1);
    }

    #[test]
    fn alias_bombs_are_refused() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..10 {
            let item = format!("*a{}, ", i - 1).repeat(10);
            text.push_str(&format!("a{i}: &a{i} [{item}]\n"));
        }
        let mut sink = Sink::new(&text);
        assert!(read(&text, &mut sink).is_none());
        let found = sink.finish();
        assert!(found[0].message.starts_with("not valid YAML"), "{found:?}");
    }
}
