//! `schema`: the policy language as a JSON Schema, for editors.

use super::output::{Output, Result};
use crate::policy;

/// Prints the schema, whatever the format: it is JSON.
pub(super) fn execute(out: &mut Output<'_>) -> Result {
    let schema = serde_json::to_string_pretty(&policy::schema()).unwrap_or_default();
    writeln!(out.out, "{schema}")?;
    Ok(())
}
