//! The figures in what the benches printed.

use serde_json::Value;

/// What a step found.
pub(crate) fn found<'a>(results: &'a Value, step: &str) -> &'a Value {
    &results["steps"][step]["found"]
}

/// The rows of a step; none where it did not run.
pub(crate) fn rows<'a>(results: &'a Value, step: &str) -> &'a [Value] {
    found(results, step)["results"]
        .as_array()
        .map_or(&[], Vec::as_slice)
}

/// A number; some benches print theirs as text, perhaps with the median behind it in brackets.
pub(crate) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.split(' ').next()?.parse().ok(),
        _ => None,
    }
}

/// Median, smallest and largest of a list of numbers.
pub(crate) fn spread(value: &Value) -> Option<(f64, f64, f64)> {
    let mut all: Vec<f64> = value.as_array()?.iter().filter_map(Value::as_f64).collect();
    all.sort_by(f64::total_cmp);
    let (low, high) = (*all.first()?, *all.last()?);
    Some((all[all.len() / 2], low, high))
}

/// The different values of `key`, in order of appearance.
pub(crate) fn kinds(rows: &[Value], key: &str) -> Vec<Value> {
    let mut kinds: Vec<Value> = Vec::new();
    for row in rows {
        if !kinds.contains(&row[key]) {
            kinds.push(row[key].clone());
        }
    }
    kinds
}

/// With commas between thousands.
pub(crate) fn count(value: &Value) -> String {
    let digits = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
