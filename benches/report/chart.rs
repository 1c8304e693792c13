//! Pictures: groups of horizontal bars, as SVG that reads well on light and on dark pages.

use std::fmt::Write;

/// One bar.
#[derive(Debug, Clone)]
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) value: f64,
    /// Smallest and largest, where it was measured more than once.
    pub(crate) spread: Option<(f64, f64)>,
}

/// Bars that belong together.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) bars: Vec<Bar>,
}

/// A picture.
#[derive(Debug)]
pub(crate) struct Chart {
    pub(crate) title: String,
    /// What the numbers are, and which way is better.
    pub(crate) unit: String,
    /// Each line of the grid is ten times the one before.
    pub(crate) log: bool,
    pub(crate) groups: Vec<Group>,
}

const WIDTH: f64 = 760.0;
const LEFT: f64 = 190.0;
const RIGHT: f64 = 90.0;
const BAR: f64 = 15.0;
const STEP: f64 = 20.0;
const HEAD: f64 = 64.0;

/// Text and lines, and colours that differ in brightness too; `s` is what all is about.
const STYLE: &str = "\
text{font:12px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#1f2933}\
.t{font-size:15px;font-weight:600}.u,.x{fill:#52606d}.g{font-weight:600}\
.back{fill:#fff;stroke:#d9dee3}.grid{stroke:#e4e7eb}.err{stroke:#1f2933;stroke-width:1.2}\
.s{fill:#1d6fd0}.p{fill:#9fb3c8}.q{fill:#62798f}.o{fill:#d9822b}.k{fill:#3f9142}\
@media(prefers-color-scheme:dark){\
text{fill:#e6edf3}.u,.x{fill:#9aa7b4}.back{fill:#0d1117;stroke:#30363d}.grid{stroke:#262c34}\
.err{stroke:#e6edf3}.s{fill:#4c9aff}.p{fill:#52606d}.q{fill:#8b9cb0}.o{fill:#e8a04c}.k{fill:#57ab5a}}";

/// The same colour for the same contestant everywhere.
fn class(name: &str) -> &'static str {
    match name {
        name if name.starts_with("OVS") => "o",
        name if name.starts_with("kernel") || name.starts_with("nftables") => "k",
        name if name.starts_with("testpmd io") => "p",
        name if name.starts_with("testpmd") || name.contains("rule by rule") || name == "p99.9" => {
            "q"
        }
        name if name.contains("memory") || name == "most" => "p",
        _ => "s",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// As many digits as tell something.
pub(crate) fn shown(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

impl Chart {
    /// Where the grid's lines are, from the first to the last.
    fn ticks(&self) -> Vec<f64> {
        let bars = || self.groups.iter().flat_map(|group| &group.bars);
        let high = |bar: &Bar| {
            bar.spread
                .map_or(bar.value, |(_, high)| high.max(bar.value))
        };
        let most = bars().map(high).fold(0.0, f64::max).max(1e-9);
        if self.log {
            let least = bars().map(|bar| bar.value).filter(|value| *value > 0.0);
            let least = least.fold(most, f64::min);
            let (first, last) = (least.log10().floor(), most.log10().ceil());
            return (first as i32..=(last as i32).max(first as i32 + 1))
                .map(|power| 10f64.powi(power))
                .collect();
        }
        let rough = most / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|step| step * power);
        let step = steps
            .into_iter()
            .find(|step| *step >= rough)
            .unwrap_or(rough);
        (0..=(most / step).ceil() as u32)
            .map(|n| f64::from(n) * step)
            .collect()
    }

    pub(crate) fn svg(&self) -> String {
        let rows: usize = self.groups.iter().map(|group| group.bars.len()).sum();
        let height = HEAD + rows as f64 * STEP + self.groups.len() as f64 * 28.0 + 30.0;
        let ticks = self.ticks();
        let (first, last) = (ticks[0], ticks[ticks.len() - 1]);
        let place = |value: f64| {
            let share = if self.log {
                (value.max(first) / first).ln() / (last / first).ln()
            } else {
                value / last
            };
            LEFT + share * (WIDTH - LEFT - RIGHT)
        };
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
             width=\"{WIDTH}\" height=\"{height:.0}\" role=\"img\">\n<title>{}</title>\n\
             <style>{STYLE}</style>\n\
             <rect class=\"back\" x=\".5\" y=\".5\" width=\"{}\" height=\"{:.0}\" rx=\"6\"/>\n\
             <text class=\"t\" x=\"16\" y=\"26\">{}</text>\n<text class=\"u\" x=\"16\" y=\"46\">{}</text>\n",
            escaped(&self.title),
            WIDTH - 1.0,
            height - 1.0,
            escaped(&self.title),
            escaped(&self.unit)
        );
        let bottom = height - 26.0;
        for tick in &ticks {
            let x = place(*tick);
            let label = if *tick >= 1.0 || *tick == 0.0 {
                format!("{tick}")
            } else {
                shown(*tick)
            };
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{HEAD}\" y2=\"{bottom:.1}\"/>\
                 <text class=\"x\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
                bottom + 15.0
            );
        }
        let mut y = HEAD;
        for group in &self.groups {
            y += 20.0;
            let _ = writeln!(
                out,
                "<text class=\"g\" x=\"16\" y=\"{:.1}\">{}</text>",
                y,
                escaped(&group.name)
            );
            y += 8.0;
            for bar in &group.bars {
                let (x, middle) = (place(bar.value), y + BAR / 2.0);
                let mut end = x;
                let _ = write!(
                    out,
                    "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
                     <rect class=\"{}\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\"/>",
                    LEFT - 8.0,
                    middle + 4.0,
                    escaped(&bar.name),
                    class(&bar.name),
                    (x - LEFT).max(1.0)
                );
                if let Some((low, high)) = bar.spread
                    && high > low
                {
                    let (low, high) = (place(low), place(high));
                    end = end.max(high);
                    let _ = write!(
                        out,
                        "<line class=\"err\" x1=\"{low:.1}\" x2=\"{high:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\"/>"
                    );
                }
                let _ = writeln!(
                    out,
                    "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                    end + 6.0,
                    middle + 4.0,
                    shown(bar.value)
                );
                y += STEP;
            }
        }
        out.push_str("</svg>\n");
        out
    }
}
