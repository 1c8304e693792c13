//! Dashboards drawn from Prometheus' answers, for those who have no Grafana at hand: plain SVG, a box
//! for each panel at its place.

use super::filled;
use super::server::Prometheus;
use serde_json::Value;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Pixels of a column and a row of Grafana's grid.
const CELL: (f64, f64) = (50.0, 30.0);
/// Seconds that are drawn.
const SECONDS: u64 = 30;
const COLOURS: [&str; 10] = [
    "#2b6cb0", "#c05621", "#2f855a", "#9b2c2c", "#6b46c1", "#975a16", "#0987a0", "#97266d",
    "#4a5568", "#718096",
];
/// Lines of a legend, at most.
const LEGEND: usize = 4;

/// One line of a panel.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

/// Draws `dashboard` into `folder`, by its uid.
pub(crate) fn draw(dashboard: &Value, prometheus: &Prometheus, folder: &Path) {
    let panels = dashboard["panels"].as_array().unwrap();
    let bottom = |panel: &Value| {
        panel["gridPos"]["y"].as_f64().unwrap() + panel["gridPos"]["h"].as_f64().unwrap()
    };
    let rows = panels.iter().map(bottom).fold(0.0, f64::max);
    let (width, height) = (24.0 * CELL.0, rows * CELL.1 + 40.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"8\" y=\"26\" font-size=\"18\">{}</text>\n",
        text(dashboard["title"].as_str().unwrap())
    );
    for panel in panels {
        let at = |key: &str| panel["gridPos"][key].as_f64().unwrap();
        let (x, y) = (at("x") * CELL.0, at("y") * CELL.1 + 40.0);
        let (w, h) = (at("w") * CELL.0 - 6.0, at("h") * CELL.1 - 6.0);
        let _ = writeln!(out, "<g transform=\"translate({x} {y})\">");
        let title = text(panel["title"].as_str().unwrap());
        let _ = writeln!(
            out,
            "<text x=\"8\" y=\"17\" font-weight=\"bold\">{title}</text>"
        );
        if panel["type"] != "row" {
            let _ = writeln!(
                out,
                "<rect width=\"{w}\" height=\"{h}\" fill=\"none\" stroke=\"#ccc\"/>"
            );
            let lines = lines(panel, prometheus);
            match panel["type"].as_str() {
                Some("stat") => figure(panel, &lines, &mut out),
                Some("heatmap") => heat(&lines, (w, h), &mut out),
                _ => chart(panel, &lines, (w, h), &mut out),
            }
        }
        out += "</g>\n";
    }
    out += "</svg>\n";
    let name = format!("{}.svg", dashboard["uid"].as_str().unwrap());
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join(name), out).unwrap();
}

fn lines(panel: &Value, prometheus: &Prometheus) -> Vec<Line> {
    let mut lines = Vec::new();
    for target in panel["targets"].as_array().unwrap() {
        let query = filled(target["expr"].as_str().unwrap());
        let legend = target["legendFormat"].as_str().unwrap();
        for series in prometheus.range(&query, SECONDS).unwrap() {
            let mut name = legend.to_owned();
            for (label, value) in series["metric"].as_object().into_iter().flatten() {
                // There is one box, and its name is of no interest.
                let value = if label == "instance" {
                    ""
                } else {
                    value.as_str().unwrap()
                };
                name = name.replace(&format!("{{{{{label}}}}}"), value);
            }
            let points = series["values"].as_array().unwrap().iter();
            let points = points.map(|point| {
                let value = point[1].as_str().unwrap().parse().unwrap_or(f64::NAN);
                (point[0].as_f64().unwrap(), value)
            });
            lines.push(Line {
                name: name.trim().to_owned(),
                points: points.filter(|(_, value)| value.is_finite()).collect(),
            });
        }
    }
    lines
}

fn last(line: &Line) -> f64 {
    line.points.last().map_or(0.0, |(_, value)| *value)
}

fn unit(panel: &Value) -> &str {
    panel["fieldConfig"]["defaults"]["unit"]
        .as_str()
        .unwrap_or("none")
}

/// A value for people, in Grafana's unit.
fn shown(value: f64, unit: &str) -> String {
    let scaled = |value: f64, unit: &str| match value.abs() {
        n if n >= 1e9 => format!("{:.1} G{unit}", value / 1e9),
        n if n >= 1e6 => format!("{:.1} M{unit}", value / 1e6),
        n if n >= 1e3 => format!("{:.1} k{unit}", value / 1e3),
        n if n >= 10.0 || n == value.abs().round() => format!("{value:.0} {unit}"),
        _ => format!("{value:.2} {unit}"),
    };
    match unit {
        "percentunit" => format!("{:.1} %", value * 100.0),
        "bps" => scaled(value, "bit/s"),
        "Bps" => scaled(value, "B/s"),
        "pps" => scaled(value, "packets/s"),
        "cps" | "ops" => scaled(value, "/s"),
        "s" if value.abs() < 1e-3 => format!("{:.1} µs", value * 1e6),
        "s" if value.abs() < 1.0 => format!("{:.1} ms", value * 1e3),
        "s" => format!("{value:.0} s"),
        _ => scaled(value, ""),
    }
}

fn figure(panel: &Value, lines: &[Line], out: &mut String) {
    let options = &panel["fieldConfig"]["defaults"]["mappings"][0]["options"];
    for (at, line) in lines.iter().take(2).enumerate() {
        let value = last(line);
        let mapped = options[format!("{value}")]["text"].as_str();
        let said = match panel["options"]["textMode"].as_str() {
            Some("name") => line.name.clone(),
            _ => mapped.map_or_else(|| shown(value, unit(panel)), str::to_owned),
        };
        let name = if lines.len() > 1 {
            format!("{}: ", line.name)
        } else {
            String::new()
        };
        let (y, size) = if lines.len() > 1 {
            (48 + at * 26, 18)
        } else {
            (66, 24)
        };
        let _ = writeln!(
            out,
            "<text x=\"12\" y=\"{y}\" font-size=\"{size}\" fill=\"#2f855a\">{}</text>",
            text(&(name + &said))
        );
    }
}

/// Where the drawing is in a panel of this size: left, top, width, height.
fn frame((w, h): (f64, f64)) -> (f64, f64, f64, f64) {
    (
        70.0,
        30.0,
        w - 84.0,
        h - 30.0 - 16.0 * (LEGEND as f64 / 2.0 + 0.6),
    )
}

fn chart(panel: &Value, lines: &[Line], size: (f64, f64), out: &mut String) {
    let (left, top, width, height) = frame(size);
    let highest = lines
        .iter()
        .flat_map(|line| &line.points)
        .fold(0.0, |most: f64, (_, value)| most.max(*value));
    let highest = if highest > 0.0 { highest } else { 1.0 };
    let end = lines
        .iter()
        .filter_map(|line| line.points.last())
        .fold(0.0, |most: f64, (at, _)| most.max(*at));
    for share in [0.0, 0.5, 1.0] {
        let y = top + height * (1.0 - share);
        let _ = writeln!(
            out,
            "<path d=\"M{left} {y:.1}h{width}\" stroke=\"#eee\"/><text x=\"{}\" y=\"{:.1}\" \
             text-anchor=\"end\" font-size=\"10\" fill=\"#666\">{}</text>",
            left - 4.0,
            y + 3.0,
            text(&shown(highest * share, unit(panel)))
        );
    }
    // Those with most are told first, as not all names have room.
    let mut order: Vec<&Line> = lines.iter().collect();
    order.sort_by(|a, b| last(b).total_cmp(&last(a)));
    for (at, line) in order.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let mut points = String::new();
        for (time, value) in &line.points {
            let x = left + width * (1.0 - (end - time) / SECONDS as f64);
            let y = top + height * (1.0 - value / highest);
            let _ = write!(points, "{x:.1},{y:.1} ");
        }
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>",
            points.trim_end()
        );
        if at < LEGEND {
            let (x, y) = (
                left + (at % 2) as f64 * width / 2.0,
                top + height + 18.0 + (at / 2) as f64 * 16.0,
            );
            let _ = writeln!(
                out,
                "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"11\" fill=\"{colour}\">{} {}</text>",
                text(&line.name),
                text(&shown(last(line), unit(panel)))
            );
        }
    }
    if order.len() > LEGEND {
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"17\" text-anchor=\"end\" font-size=\"10\" fill=\"#666\">{} more</text>",
            left + width,
            order.len() - LEGEND
        );
    }
}

fn heat(lines: &[Line], size: (f64, f64), out: &mut String) {
    let (left, top, width, height) = frame(size);
    let mut buckets: Vec<&Line> = lines.iter().collect();
    let bound = |line: &Line| line.name.parse().unwrap_or(f64::INFINITY);
    buckets.sort_by(|a, b| bound(a).total_cmp(&bound(b)));
    let row = height / buckets.len().max(1) as f64;
    for (at, line) in buckets.iter().enumerate() {
        let y = top + height - row * (at + 1) as f64;
        if at % 4 == 3 {
            let _ = writeln!(
                out,
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" font-size=\"10\" fill=\"#666\">{}</text>",
                left - 4.0,
                y + 4.0,
                text(&shown(bound(line), "s"))
            );
        }
        let end = line.points.last().map_or(0.0, |(time, _)| *time);
        for (nth, (time, value)) in line.points.iter().enumerate() {
            // Prometheus' buckets hold what is in the shorter ones too.
            let below = at.checked_sub(1).and_then(|at| buckets[at].points.get(nth));
            let own = value - below.map_or(0.0, |(_, value)| *value);
            if own > 0.0 {
                let x =
                    left + (width - width / SECONDS as f64) * (1.0 - (end - time) / SECONDS as f64);
                let shade = (own.log10() / 6.0).clamp(0.08, 1.0);
                let _ = writeln!(
                    out,
                    "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{row:.1}\" fill=\"#c05621\" \
                     fill-opacity=\"{shade:.2}\"/>",
                    width / SECONDS as f64
                );
            }
        }
    }
}

fn text(raw: &str) -> String {
    raw.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
