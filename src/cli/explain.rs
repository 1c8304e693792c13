//! `explain`: which rule decides about a packet, and why.
//!
//! The packet is described in words, or comes from a capture; the policy is a file's, or that of the
//! running appliance, which then answers itself.

use super::args::ExplainArgs;
use super::output::{Failure, Output, Result};
use super::replay;
use crate::base::hash::HashKey;
use crate::base::time::Now;
use crate::conntrack::record::FlowRecord;
use crate::control::render::{FlowLine, Show};
use crate::control::{Client, Request};
use crate::dataplane::clock::unix_time;
use crate::pipeline::{Counters, Explanation, Pipeline};
use crate::policy::{self, Compiled, Narrator, PacketInWords, Policy, Step};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

/// Prints why the packet meets its verdict.
pub(super) fn execute(args: &ExplainArgs, socket: &Path, out: &mut Output<'_>) -> Result {
    let told = match &args.config {
        Some(config) => explain(args, config, out)?,
        None => {
            let words = args.words.clone();
            Client::connect(socket)?.one(&Request::Explain { words })?
        }
    };
    if out.is_json() {
        return out.json(&told);
    }
    Ok(print(out.out, &told, None)?)
}

/// Explains by the policy in the file at `config`.
fn explain(args: &ExplainArgs, config: &Path, out: &mut Output<'_>) -> Result<Explanation> {
    let checked = match policy::load(config) {
        Ok(checked) => checked,
        Err(errors) => return fail(out, &errors.to_string()),
    };
    let model = &checked.model;
    let compiled = policy::compile(model, 1, 1);
    match (&args.trace, args.frame) {
        (Some(trace), Some(frame)) => {
            let narrator = Narrator::new(&compiled, model);
            let port = args.port.as_deref();
            match replay::explain(&narrator, &compiled, port, trace, frame) {
                Ok(told) => Ok(told),
                Err(error) => fail(out, &format!("shardwall explain: {error}")),
            }
        }
        _ => match in_words(&args.words, model, &compiled) {
            Ok(told) => Ok(told),
            Err(errors) => fail(out, &format!("shardwall explain: {}", errors.join("\n"))),
        },
    }
}

/// Explains the packet that `words` describe; no flow is known.
fn in_words(
    words: &[String],
    model: &Policy,
    compiled: &Compiled,
) -> Result<Explanation, Vec<String>> {
    let mut packet = PacketInWords::read(words, model)?;
    let now = Now::from_nanos((unix_time() * 1e9) as u64);
    let at = packet.when(model, unix_time() as u64);
    let counters = Arc::new(Counters::default());
    let mut pipeline = Pipeline::new(0, 16, HashKey::from_seed(1), now, counters);
    let narrator = Narrator::new(compiled, model).at(at);
    let asked = (packet.frame.as_slice(), packet.iif, now);
    let mut told = Explanation::of(&narrator, compiled, &mut pipeline, asked, packet.given);
    told.assumed = packet.assumed;
    Ok(told)
}

fn fail<T>(out: &mut Output<'_>, why: &str) -> Result<T> {
    writeln!(out.err, "{}", why.trim_end())?;
    Err(Failure::Told)
}

/// For people: the packet, the rules by chain, the verdict. `after` is its flow after it, if that is known.
pub(super) fn print(
    out: &mut dyn Write,
    told: &Explanation,
    after: Option<&FlowRecord>,
) -> io::Result<()> {
    let to = told.oif.as_deref().unwrap_or("nowhere");
    let from = if told.iif.is_empty() {
        "judged"
    } else {
        &told.iif
    };
    writeln!(out, "packet   {}, {from} → {to}", told.packet)?;
    if !told.assumed.is_empty() {
        writeln!(out, "assumed  {}", told.assumed.join(", "))?;
    }
    if let Some(state) = &told.state {
        let dir = told.dir.as_deref().map(|dir| format!(", {dir}"));
        writeln!(out, "state    {state}{}", dir.unwrap_or_default())?;
    }
    for (word, flow) in [("flow", told.flow.as_ref()), ("after", after)] {
        let Some(flow) = flow else { continue };
        let show = Show::Listed(unix_time() as u64);
        let line = FlowLine { flow, show };
        writeln!(out, "{word:<8} {line}")?;
    }
    for note in &told.notes {
        writeln!(out, "note     {note}")?;
    }
    for steps in [&told.raw, &told.rules, &told.helpers] {
        print_steps(out, steps)?;
    }
    writeln!(out)?;
    write!(out, "verdict  {}", told.verdict)?;
    if let Some(rule) = &told.rule {
        write!(out, " by {rule}")?;
    }
    if let Some(reason) = &told.reason {
        write!(out, " ({reason})")?;
    }
    writeln!(out)?;
    if let Some(helper) = &told.helper {
        writeln!(out, "helper   {helper}")?;
    }
    if let Some(answer) = &told.answer {
        writeln!(out, "answer   {answer}")?;
    }
    Ok(())
}

/// One line a rule, under its chain.
fn print_steps(out: &mut dyn Write, steps: &[Step]) -> io::Result<()> {
    let width = |step: &Step| step.rule.chars().count() + 2 * step.depth;
    let width = steps.iter().map(width).max().unwrap_or(0);
    let mut chain = None;
    for step in steps {
        let indent = "  ".repeat(step.depth);
        if chain != Some(&step.chain) {
            let lead = if chain.is_none() { "\n" } else { "" };
            writeln!(out, "{lead}{indent}{}", step.chain)?;
            chain = Some(&step.chain);
        }
        let (mark, what) = match (&step.then, &step.wanted, &step.found) {
            (Some(then), ..) => ('✓', then.clone()),
            (_, Some(wanted), Some(found)) => ('✗', format!("{wanted} — {found}")),
            _ => ('✗', String::new()),
        };
        let line = match step.line {
            0 => String::new(),
            line => format!("line {line}"),
        };
        let name = if step.rule.is_empty() {
            "(end)"
        } else {
            &step.rule
        };
        let room = width.saturating_sub(indent.len()).max(5);
        writeln!(out, "{indent}  {mark} {name:<room$}  {line:<10}  {what}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
