//! What comes out.

use crate::capture::Load;
use crate::stretch::Figures;
use crate::{Args, Rate};
use serde_json::{Value, json};
use std::fmt::Write;

/// Who the ratio is against.
const LIMIT: &str = "testpmd 5tswap";

/// One contestant at one number of flows.
#[derive(Debug)]
struct Row {
    flows: u32,
    name: String,
    rates: Vec<Rate>,
}

/// Median, and the smallest and largest.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let middle = values[values.len() / 2];
    (middle, values[0], values[values.len() - 1])
}

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Report {
    head: String,
    proto: &'static str,
    load: Load,
    workers: usize,
    rows: Vec<Row>,
    /// What was measured in stretches with some work and without.
    pub(crate) stretches: Vec<Figures>,
    notes: Vec<String>,
}

impl Report {
    pub(crate) fn new(args: &Args) -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find(|line| line.starts_with("model name"));
        let cpu = model.and_then(|line| line.split(": ").nth(1));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            head: format!("{}, {cores} cores", cpu.unwrap_or("unknown processor")),
            proto: args.proto.name(),
            load: args.load,
            workers: args.workers,
            rows: Vec::new(),
            stretches: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, flows: u32, name: &str, rate: Rate) {
        let is = |row: &&mut Row| row.flows == flows && row.name == name;
        match self.rows.iter_mut().find(is) {
            Some(row) => row.rates.push(rate),
            None => self.rows.push(Row {
                flows,
                name: name.to_owned(),
                rates: vec![rate],
            }),
        }
    }

    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Ratios to the limit, round by round, by processor time.
    fn ratio(&self, row: &Row) -> Option<(f64, f64, f64)> {
        let limit = self
            .rows
            .iter()
            .find(|other| other.flows == row.flows && other.name == LIMIT)?;
        let pairs = row.rates.iter().zip(&limit.rates);
        let ratios: Vec<f64> = pairs.map(|(one, limit)| one.cpu / limit.cpu).collect();
        (!ratios.is_empty()).then(|| spread(ratios))
    }

    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        for figures in &self.stretches {
            let _ = writeln!(out, "{}\n{}", self.head, figures.text());
        }
        if self.rows.is_empty() {
            self.notes_to(&mut out);
            return out;
        }
        let what = match self.load {
            Load::Known => "packets a second, of flows in both directions",
            Load::Reset => "new flows a second, each ended by a RST",
            Load::Full => "new flows a second in a full table",
        };
        let _ = writeln!(
            out,
            "{}; {}, {} polling; millions of {what}: median (smallest to largest)\n",
            self.head, self.proto, self.workers
        );
        let _ = writeln!(
            out,
            "{:>9}  {:<16}{:>20}{:>22}{:>24}{:>8}",
            "flows", "", "by the clock", "by cpu time", "of 5tswap, by cpu time", "lost %"
        );
        for row in &self.rows {
            let cell =
                |(middle, low, high): (f64, f64, f64)| format!("{middle:.2} ({low:.2}-{high:.2})");
            let of = |part: fn(&Rate) -> f64| spread(row.rates.iter().map(part).collect());
            let ratio = self.ratio(row).map_or("-".to_owned(), cell);
            let _ = writeln!(
                out,
                "{:>9}  {:<16}{:>20}{:>22}{ratio:>24}{:>8.1}",
                row.flows,
                row.name,
                cell(of(|rate| rate.mpps)),
                cell(of(|rate| rate.cpu)),
                of(|rate| rate.lost).0,
            );
        }
        self.notes_to(&mut out);
        out
    }

    fn notes_to(&self, out: &mut String) {
        for note in &self.notes {
            let _ = writeln!(out, "\nskipped: {note}");
        }
    }

    pub(crate) fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let of = |part: fn(&Rate) -> f64| row.rates.iter().map(part).collect::<Vec<_>>();
            json!({
                "flows": row.flows,
                "name": row.name,
                "mpps": of(|rate| rate.mpps),
                "mpps_cpu": of(|rate| rate.cpu),
                "lost_percent": of(|rate| rate.lost),
                "ratio": self.ratio(row).map(|(middle, _, _)| middle),
            })
        });
        json!({
            "machine": self.head,
            "proto": self.proto,
            "load": format!("{:?}", self.load).to_lowercase(),
            "workers": self.workers,
            "results": rows.collect::<Vec<_>>(),
            "stretches": self.stretches.iter().map(Figures::json).collect::<Vec<_>>(),
            "skipped": self.notes,
        })
    }
}
