//! What comes out.

use crate::CASES;
use crate::cases::Sample;
use serde_json::{Value, json};
use std::fmt::Write;

/// One case at one number of flows.
#[derive(Debug)]
pub(crate) struct Row {
    flows: u32,
    case: String,
    /// Bytes of memory that came with the case, the generator's table included.
    resident: usize,
    /// Bytes that the flow tables have reserved.
    pub(crate) reserved: usize,
    samples: Vec<Sample>,
}

impl Row {
    pub(crate) fn new(flows: u32, case: &str, resident: usize) -> Self {
        Self {
            flows,
            case: case.to_owned(),
            resident,
            reserved: 0,
            samples: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, sample: Sample) {
        self.samples.push(sample);
    }

    /// Sorted nanoseconds a packet: everything, or the generator alone.
    fn sorted(&self, part: impl Fn(&Sample) -> u64) -> Vec<f64> {
        let one = |sample: &Sample| part(sample) as f64 / sample.packets as f64;
        let mut all: Vec<f64> = self.samples.iter().map(one).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    /// Smallest and median nanoseconds a packet, and the generator's smallest, which is taken off.
    fn nanos(&self) -> (f64, f64, f64) {
        let whole = self.sorted(|sample| sample.whole);
        let generator = self.sorted(|sample| sample.generator)[0];
        let net = |nanos: f64| (nanos - generator).max(0.0);
        (net(whole[0]), net(whole[whole.len() / 2]), generator)
    }

    /// Bytes a flow that lie in memory; `None` where the rest of the process drowns them.
    fn bytes_a_flow(&self) -> Option<f64> {
        let generators = 2 * size_of::<crate::frames::Flow>() * self.flows as usize;
        let bytes = self.resident.saturating_sub(generators);
        (self.flows >= 100_000 && self.case == "tcp").then(|| bytes as f64 / f64::from(self.flows))
    }
}

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Report {
    rounds: usize,
    pub(crate) rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(rounds: usize) -> Self {
        Self {
            rounds,
            rows: Vec::new(),
        }
    }

    /// The flow counts, in the order in which they ran.
    fn flows(&self) -> Vec<u32> {
        let mut flows: Vec<u32> = self.rows.iter().map(|row| row.flows).collect();
        flows.dedup();
        flows
    }

    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        let machine = Machine::read();
        let _ = writeln!(
            out,
            "{}, {} cores, huge pages {}; {} rounds\n\
             nanoseconds a packet, generator taken off: minimum (median)\n",
            machine.cpu, machine.cores, machine.huge_pages, self.rounds
        );
        let shown: Vec<&str> = CASES
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| self.rows.iter().any(|row| row.case == *name))
            .collect();
        let _ = write!(out, "{:>9}", "flows");
        for name in &shown {
            let _ = write!(out, "{name:>16}");
        }
        let _ = writeln!(out, "{:>14}", "bytes a flow");
        for flows in self.flows() {
            let _ = write!(out, "{flows:>9}");
            for name in &shown {
                let found = self.row(flows, name);
                let cell = found.map_or(String::new(), |row| {
                    let (min, median, _) = row.nanos();
                    format!("{min:.1} ({median:.1})")
                });
                let _ = write!(out, "{cell:>16}");
            }
            let bytes = self.row(flows, "tcp").and_then(Row::bytes_a_flow);
            let cell = bytes.map_or("-".to_owned(), |bytes| format!("{bytes:.0}"));
            let _ = writeln!(out, "{cell:>14}");
        }
        out.push('\n');
        for (name, what) in CASES.iter().filter(|(name, _)| shown.contains(name)) {
            let _ = writeln!(out, "{name:>9}  {what}");
        }
        out
    }

    fn row(&self, flows: u32, case: &str) -> Option<&Row> {
        self.rows
            .iter()
            .find(|row| row.flows == flows && row.case == case)
    }

    pub(crate) fn json(&self) -> Value {
        let machine = Machine::read();
        let rows = self.rows.iter().map(|row| {
            let (min, median, generator) = row.nanos();
            json!({
                "flows": row.flows,
                "case": row.case,
                "ns": min,
                "ns_median": median,
                "generator_ns": generator,
                "packets": row.samples[0].packets,
                "bytes_a_flow": row.bytes_a_flow(),
                "reserved_bytes": row.reserved,
            })
        });
        json!({
            "cpu": machine.cpu,
            "cores": machine.cores,
            "huge_pages": machine.huge_pages,
            "rounds": self.rounds,
            "results": rows.collect::<Vec<_>>(),
        })
    }
}

/// Where it ran.
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    huge_pages: String,
}

impl Machine {
    pub(crate) fn read() -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find(|line| line.starts_with("model name"));
        let cpu = model.and_then(|line| line.split(": ").nth(1));
        let path = "/sys/kernel/mm/transparent_hugepage/enabled";
        let modes = std::fs::read_to_string(path).unwrap_or_default();
        let mode = modes.split(['[', ']']).nth(1).unwrap_or("unknown");
        Self {
            cpu: cpu.unwrap_or("unknown processor").to_owned(),
            cores: info
                .lines()
                .filter(|line| line.starts_with("processor"))
                .count(),
            huge_pages: mode.to_owned(),
        }
    }
}

/// Bytes of this process that lie in memory.
pub(crate) fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.map_or(0, |pages: usize| pages * 4096)
}
