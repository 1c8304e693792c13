//! `check`: is this policy valid, and what looks wrong in it.

use super::args::CheckArgs;
use super::output::{Failure, Output, Result};
use crate::control::appliance::rules;
use crate::dataplane::clock::unix_time;
use crate::policy;
use serde_json::json;

/// Prints the verdict on standard output, diagnostics on standard error; as JSON, all of it on
/// standard output.
pub(super) fn check(args: &CheckArgs, out: &mut Output<'_>) -> Result {
    match policy::load(&args.policy) {
        Ok(mut checked) => {
            checked.warn_of_time(unix_time() as u64);
            let (rules, warnings) = (rules(&checked.model), checked.warnings.len());
            if out.is_json() {
                return out.json(&json!({
                    "valid": true,
                    "rules": rules,
                    "errors": 0,
                    "warnings": warnings,
                    "diagnostics": checked.warnings_json(),
                }));
            }
            let text = checked.render_warnings();
            if !text.is_empty() {
                writeln!(out.err, "{}", text.trim_end())?;
            }
            let (rules, warnings) = (counted(rules, "rule"), counted(warnings, "warning"));
            writeln!(out.out, "policy is valid: {rules}, {warnings}")?;
            Ok(())
        }
        Err(errors) => {
            if out.is_json() {
                out.json(&json!({
                    "valid": false,
                    "errors": errors.errors(),
                    "warnings": errors.iter().count() - errors.errors(),
                    "diagnostics": errors.to_json(),
                }))?;
            } else {
                let count = counted(errors.errors(), "error");
                let text = errors.to_string();
                writeln!(out.err, "{}\npolicy is not valid: {count}", text.trim_end())?;
            }
            Err(Failure::Told)
        }
    }
}

/// "1 rule", "2 rules".
pub(super) fn counted(count: usize, noun: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{s}")
}
