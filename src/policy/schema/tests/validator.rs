//! As much of JSON Schema (draft 2020-12) as ours uses: a keyword that it does not know is a panic,
//! not a pass.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;
use serde_json::{Map, Value};

pub(super) struct Validator {
    root: Value,
    patterns: RefCell<BTreeMap<String, Regex>>,
}

/// Keywords that say nothing about values.
const NOTES: [&str; 6] = [
    "$schema",
    "$defs",
    "title",
    "description",
    "examples",
    "default",
];

impl Validator {
    pub(super) fn new(root: Value) -> Self {
        Self {
            root,
            patterns: RefCell::default(),
        }
    }

    pub(super) fn holds(&self, value: &Value) -> bool {
        self.check(&self.root, value).is_some()
    }

    /// What `value` is valid by: the properties that are evaluated; `None` if it is not.
    fn check(&self, schema: &Value, value: &Value) -> Option<BTreeSet<String>> {
        let schema = match schema {
            Value::Bool(holds) => return holds.then(BTreeSet::new),
            Value::Object(schema) => schema,
            _ => panic!("no schema: {schema}"),
        };
        let mut seen = BTreeSet::new();
        // `unevaluatedProperties` reads what the others have seen
        for (keyword, want) in schema.iter().filter(|(k, _)| *k != "unevaluatedProperties") {
            seen.extend(self.keyword(schema, keyword, want, value)?);
        }
        if let (Some(rest), Value::Object(map)) = (schema.get("unevaluatedProperties"), value) {
            for (key, value) in map.iter().filter(|(key, _)| !seen.contains(*key)) {
                self.check(rest, value)?;
                let _ = key;
            }
            seen.extend(map.keys().cloned());
        }
        Some(seen)
    }

    fn keyword(
        &self,
        schema: &Map<String, Value>,
        keyword: &str,
        want: &Value,
        value: &Value,
    ) -> Option<BTreeSet<String>> {
        let mut seen = BTreeSet::new();
        let all = || want.as_array().expect("an array").iter();
        let holds = match keyword {
            "$ref" => {
                let path = want.as_str()?.strip_prefix('#').expect("a local reference");
                let target = self.root.pointer(path).expect("what is referred to");
                seen = self.check(target, value)?;
                true
            }
            "type" => match want {
                Value::Array(types) => types.iter().any(|one| is(one, value)),
                one => is(one, value),
            },
            "enum" => all().any(|one| one == value),
            "const" => want == value,
            "anyOf" => {
                let found: Vec<_> = all().filter_map(|one| self.check(one, value)).collect();
                let some = !found.is_empty();
                seen.extend(found.into_iter().flatten());
                some
            }
            "oneOf" => {
                let mut found: Vec<_> = all().filter_map(|one| self.check(one, value)).collect();
                seen = if found.len() == 1 {
                    found.remove(0)
                } else {
                    return None;
                };
                true
            }
            "pattern" => match value {
                Value::String(text) => self.matches(want.as_str()?, text),
                _ => true,
            },
            "minLength" => value
                .as_str()
                .is_none_or(|t| t.chars().count() as u64 >= want.as_u64().unwrap()),
            "maxLength" => value
                .as_str()
                .is_none_or(|t| t.chars().count() as u64 <= want.as_u64().unwrap()),
            "minimum" => value.as_f64().is_none_or(|n| n >= want.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|n| n <= want.as_f64().unwrap()),
            "minItems" => value
                .as_array()
                .is_none_or(|a| a.len() as u64 >= want.as_u64().unwrap()),
            "maxItems" => value
                .as_array()
                .is_none_or(|a| a.len() as u64 <= want.as_u64().unwrap()),
            "items" => value
                .as_array()
                .is_none_or(|items| items.iter().all(|item| self.check(want, item).is_some())),
            "required" => value
                .as_object()
                .is_none_or(|map| all().all(|key| map.contains_key(key.as_str().unwrap()))),
            "properties" => {
                for (key, want) in want.as_object().expect("properties") {
                    if let Some(value) = value.get(key) {
                        self.check(want, value)?;
                        seen.insert(key.clone());
                    }
                }
                true
            }
            "patternProperties" => {
                for (pattern, want) in want.as_object().expect("patterns") {
                    for (key, value) in value.as_object().into_iter().flatten() {
                        if self.matches(pattern, key) {
                            self.check(want, value)?;
                            seen.insert(key.clone());
                        }
                    }
                }
                true
            }
            "additionalProperties" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    let named = schema
                        .get("properties")
                        .is_some_and(|p| p.get(key).is_some());
                    let patterns = schema.get("patternProperties").and_then(Value::as_object);
                    let mut patterns = patterns.into_iter().flatten();
                    if !named && !patterns.any(|(pattern, _)| self.matches(pattern, key)) {
                        self.check(want, value)?;
                        seen.insert(key.clone());
                    }
                }
                true
            }
            "propertyNames" => {
                let names = value.as_object().into_iter().flatten();
                let mut names = names.map(|(key, _)| Value::String(key.clone()));
                names.all(|name| self.check(want, &name).is_some())
            }
            _ if NOTES.contains(&keyword) => true,
            _ => panic!("the keyword `{keyword}` is not known here"),
        };
        holds.then_some(seen)
    }

    fn matches(&self, pattern: &str, text: &str) -> bool {
        let mut patterns = self.patterns.borrow_mut();
        let known = patterns.entry(pattern.to_owned());
        known
            .or_insert_with(|| Regex::new(pattern).unwrap())
            .is_match(text)
    }
}

fn is(name: &Value, value: &Value) -> bool {
    match name.as_str().expect("the name of a type") {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the type `{other}` is not known here"),
    }
}
