//! A table of figures.

use serde_json::{Value, json};
use std::fmt::Write;

/// Columns with their names, and rows of cells.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) head: String,
    pub(crate) columns: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(what: &str, columns: &[&'static str]) -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find(|line| line.starts_with("model name"));
        let cpu = model.and_then(|line| line.split(": ").nth(1));
        Self {
            head: format!("{}\n{what}", cpu.unwrap_or("unknown processor")),
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn text(&self) -> String {
        let mut out = format!("{}\n\n", self.head);
        let width = |at: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(at));
            let widest = cells.map(String::len).max().unwrap_or(0);
            widest.max(self.columns[at].len()) + 2
        };
        for (at, name) in self.columns.iter().enumerate() {
            let _ = write!(out, "{name:>0$}", width(at));
        }
        out.push('\n');
        for row in &self.rows {
            for (at, cell) in row.iter().enumerate() {
                let _ = write!(out, "{cell:>0$}", width(at));
            }
            out.push('\n');
        }
        out
    }

    pub(crate) fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let cells = self.columns.iter().zip(row);
            cells
                .map(|(name, cell)| ((*name).to_owned(), Value::from(cell.as_str())))
                .collect::<Value>()
        });
        json!({ "head": self.head, "results": rows.collect::<Vec<_>>() })
    }
}

/// Figures in ascending order.
#[derive(Debug, Default)]
pub(crate) struct Sorted(Vec<f64>);

impl Sorted {
    pub(crate) fn new(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        Self(all)
    }

    /// The figure that `share` of all are not above; 0 is the least.
    pub(crate) fn at(&self, share: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        self.0
            .get((last as f64 * share) as usize)
            .copied()
            .unwrap_or(0.0)
    }

    pub(crate) fn median(&self) -> f64 {
        self.at(0.5)
    }

    /// The least, and the median.
    pub(crate) fn least_and_median(&self, digits: usize) -> String {
        format!("{:.digits$} ({:.digits$})", self.at(0.0), self.median())
    }
}
