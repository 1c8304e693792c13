//! The language as a JSON Schema (draft 2020-12), by which editors complete and underline, and from
//! which its reference (`deploy/policy.md`) is made.
//!
//! The checker reads policies by hand, to tell all that is wrong in one run, so it needs no types.
//! Those here mirror what it reads, and only describe: none is ever made. What they say of keys and
//! names is held to the checker's own tables by tests. The schema takes every policy that checks;
//! what it takes need not check, for it knows nothing of names that a policy gives, nor of what
//! excludes what.
//!
//! Life-cycle: made when it is asked for. Concurrency: none.

mod sections;
#[cfg(test)]
mod tests;
mod values;

use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema};
use serde_json::Value;

/// What editors call the schema.
const TITLE: &str = "shardwall policy";

/// The JSON Schema of the policy language.
pub fn schema() -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = sections::Policy::json_schema(&mut generator);
    let names = generator.take_definitions(false);
    schema.insert(
        "$schema".into(),
        "https://json-schema.org/draft/2020-12/schema".into(),
    );
    schema.insert("title".into(), TITLE.into());
    schema.insert("$defs".into(), Value::Object(names));
    Plain.transform(&mut schema);
    schema.to_value()
}

/// What may be left out is left out, not `null`; descriptions have no line ends of the source.
struct Plain;

impl Transform for Plain {
    fn transform(&mut self, schema: &mut Schema) {
        if let Some(Value::String(text)) = schema.get_mut("description") {
            *text = text.replace('\n', " ");
        }
        if let Some(Value::Array(types)) = schema.get_mut("type") {
            types.retain(|name| name != "null");
            if let [only] = &types[..] {
                let only = only.clone();
                schema.insert("type".into(), only);
            }
        }
        if let Some(Value::Array(forms)) = schema.get_mut("anyOf") {
            let null = serde_json::json!({ "type": "null" });
            forms.retain(|form| *form != null);
            if let [Value::Object(only)] = &forms[..] {
                let only = only.clone();
                schema.remove("anyOf");
                for (key, value) in only {
                    if schema.get(&key).is_none() {
                        schema.insert(key, value);
                    }
                }
            }
        }
        transform_subschemas(self, schema);
    }
}
