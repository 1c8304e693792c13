//! The status page as HTML: plain tables, and sparklines as inline SVG. No script, and nothing from
//! elsewhere.

use super::{Moment, Status};
use std::collections::VecDeque;
use std::fmt::{self, Display, Write};
use std::time::Duration;

/// A sparkline's size in pixels.
const WIDTH: usize = 120;
const HEIGHT: usize = 24;

/// The page for `status`, whose readings are `pace` apart.
pub(super) fn render(status: &Status, pace: Duration) -> String {
    let mut out = String::with_capacity(16 * 1024);
    // Writing to a string cannot fail.
    let _ = write(status, pace.as_secs_f64(), &mut out);
    out
}

fn write(status: &Status, pace: f64, out: &mut String) -> fmt::Result {
    let stats = &status.stats;
    let history = Series {
        history: &status.history,
        pace,
    };
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"refresh\" content=\"5\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>shardwall</title>\n<link rel=\"stylesheet\" href=\"/status.css\">\n</head>\n<body>\n"
    )?;
    let class = if status.health == "ok" { "ok" } else { "bad" };
    let plural = if stats.workers == 1 { "" } else { "s" };
    writeln!(
        out,
        "<h1>shardwall {} <span id=\"health\" class=\"{class}\">{}</span></h1>",
        Text(&stats.version),
        Text(&status.health)
    )?;
    let (good, said) = match stats.reload.successful {
        true => ("ok", "in force"),
        false => ("bad", "in force; the last reload failed"),
    };
    writeln!(
        out,
        "<p>up {}, {} worker{plural}, policy generation <span id=\"generation\">{}</span> \
         <span id=\"reload\" class=\"{good}\">{said}</span></p>",
        Span(stats.uptime),
        stats.workers,
        stats.generation
    )?;
    figures(status, &history, out)?;
    ports(status, &history, out)?;
    drops(status, &history, out)?;
    workers(status, &history, out)?;
    let seconds = (status.history.len().saturating_sub(1)) as f64 * pace;
    writeln!(
        out,
        "<footer>Lines show the last {seconds} seconds. The same for programs: \
         <a href=\"/status.json\">status.json</a>, <a href=\"/metrics\">metrics</a>.</footer>\n\
         </body>\n</html>"
    )
}

fn figures(status: &Status, history: &Series<'_>, out: &mut String) -> fmt::Result {
    let (packets, ct) = (&status.stats.packets, &status.stats.conntrack);
    let share = 100.0 * ct.entries as f64 / f64::from(ct.limit.max(1));
    let of_limit = format!("flows, {share:.1} % of {}", ct.limit);
    let per_second = |label: &str, rates: &[f64]| {
        let now = rates.last().copied().unwrap_or_default();
        format!("{label}, {} a second", Figure(now))
    };
    out.push_str("<div class=\"figures\">\n");
    let entries: Vec<_> = status.history.iter().map(|at| at.entries as f64).collect();
    let insert = history.rates(|at| at.insert as f64);
    let forwarded = history.rates(|at| at.forwarded as f64);
    let dropped = history.rates(|at| at.dropped as f64);
    let rows = [
        ("entries", ct.entries, of_limit, &entries),
        (
            "insert",
            ct.insert,
            per_second("flows begun", &insert),
            &insert,
        ),
        (
            "forwarded",
            packets.forwarded,
            per_second("packets forwarded", &forwarded),
            &forwarded,
        ),
        (
            "dropped",
            packets.dropped,
            per_second("packets dropped", &dropped),
            &dropped,
        ),
    ];
    for (id, count, label, line) in rows {
        write!(
            out,
            "<div class=\"figure\"><b id=\"{id}\">{count}</b><span>{label}</span>"
        )?;
        spark(line, out)?;
        out.push_str("</div>\n");
    }
    out.push_str("</div>\n");
    Ok(())
}

fn ports(status: &Status, history: &Series<'_>, out: &mut String) -> fmt::Result {
    out.push_str(
        "<h2>Ports</h2>\n<table id=\"ports\">\n<tr><th>port</th><th>link</th><th class=\"number\">\
         packets in</th><th class=\"number\">packets out</th><th class=\"number\">missed</th>\
         <th>bytes in</th><th>bytes out</th></tr>\n",
    );
    for (at, row) in status.ports.iter().enumerate() {
        let down = row.port.link.starts_with("down");
        write!(
            out,
            "<tr><td>{}</td><td class=\"{}\">{}</td><td class=\"number\">{}</td>\
             <td class=\"number\">{}</td><td class=\"number\">{}</td>",
            Text(&row.port.name),
            if down { "bad" } else { "ok" },
            Text(&row.port.link),
            row.rx_packets,
            row.tx_packets,
            row.nic.missed
        )?;
        for way in 0..2 {
            out.push_str("<td>");
            let bytes = |moment: &Moment| moment.ports.get(at).map_or(0.0, |port| port[way] as f64);
            spark(&history.rates(bytes), out)?;
            out.push_str("</td>");
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table>\n");
    Ok(())
}

fn drops(status: &Status, history: &Series<'_>, out: &mut String) -> fmt::Result {
    let mut rows: Vec<_> = status.drops.iter().enumerate().collect();
    rows.retain(|(_, row)| row.count > 0);
    rows.sort_by_key(|(_, row)| std::cmp::Reverse(row.count));
    out.push_str("<h2>Dropped packets</h2>\n");
    if rows.is_empty() {
        out.push_str("<p id=\"drops\">None so far.</p>\n");
        return Ok(());
    }
    out.push_str(
        "<table id=\"drops\">\n<tr><th>reason</th><th class=\"number\">packets</th><th>rate</th>\
         <th>meaning</th></tr>\n",
    );
    for (at, row) in rows {
        write!(
            out,
            "<tr><td>{}</td><td class=\"number\">{}</td><td>",
            Text(&row.reason),
            row.count
        )?;
        let count = |moment: &Moment| moment.drops.get(at).map_or(0.0, |count| *count as f64);
        spark(&history.rates(count), out)?;
        writeln!(out, "</td><td>{}</td></tr>", Text(&row.meaning))?;
    }
    out.push_str("</table>\n");
    Ok(())
}

fn workers(status: &Status, history: &Series<'_>, out: &mut String) -> fmt::Result {
    out.push_str(
        "<h2>Workers</h2>\n<table id=\"workers\">\n<tr><th>worker</th><th class=\"number\">flows\
         </th><th class=\"number\">received</th><th class=\"number\">handed over</th>\
         <th class=\"number\">lost</th><th class=\"number\">busy</th><th></th></tr>\n",
    );
    for (at, row) in status.workers.iter().enumerate() {
        let time = |moment: &Moment| moment.workers.get(at).copied().unwrap_or_default();
        let busy = history.pairs(|before, after| {
            let (before, after) = (time(before), time(after));
            let (busy, idle) = (after[0] - before[0], after[1] - before[1]);
            if busy + idle > 0.0 {
                100.0 * busy / (busy + idle)
            } else {
                0.0
            }
        });
        write!(
            out,
            "<tr><td>{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td>\
             <td class=\"number\">{}</td><td class=\"number\">{}</td>\
             <td class=\"number\">{:.0} %</td><td>",
            row.worker,
            row.flows,
            row.received,
            row.handed_out,
            row.handed_lost,
            busy.last().copied().unwrap_or_default()
        )?;
        spark(&busy, out)?;
        out.push_str("</td></tr>\n");
    }
    out.push_str("</table>\n");
    Ok(())
}

/// The readings.
struct Series<'a> {
    history: &'a VecDeque<Moment>,
    pace: f64,
}

impl Series<'_> {
    /// Something of each two readings that follow each other.
    fn pairs(&self, of: impl Fn(&Moment, &Moment) -> f64) -> Vec<f64> {
        let later = self.history.iter().skip(1);
        let pairs = self.history.iter().zip(later);
        pairs.map(|(before, after)| of(before, after)).collect()
    }

    /// What a count grew by in a second.
    fn rates(&self, count: impl Fn(&Moment) -> f64) -> Vec<f64> {
        self.pairs(|before, after| (count(after) - count(before)).max(0.0) / self.pace)
    }
}

/// A line of `values`, from 0 to the highest.
fn spark(values: &[f64], out: &mut String) -> fmt::Result {
    let highest = values.iter().copied().fold(0.0, f64::max);
    write!(
        out,
        "<svg width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\
         <title>at most {}</title><polyline points=\"",
        Figure(highest)
    )?;
    let step = WIDTH as f64 / (values.len().max(2) - 1) as f64;
    for (at, value) in values.iter().enumerate() {
        let share = if highest > 0.0 { value / highest } else { 0.0 };
        // Not on the edge, where half of the line would be cut off.
        let y = HEIGHT as f64 - 1.0 - share * (HEIGHT - 2) as f64;
        write!(out, "{:.1},{y:.1} ", at as f64 * step)?;
    }
    out.push_str("\"/></svg>");
    Ok(())
}

/// A rate for people.
struct Figure(f64);

impl Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n >= 1e9 => write!(f, "{:.1} G", n / 1e9),
            n if n >= 1e6 => write!(f, "{:.1} M", n / 1e6),
            n if n >= 1e4 => write!(f, "{:.1} k", n / 1e3),
            n => write!(f, "{n:.0}"),
        }
    }
}

/// Seconds for people.
struct Span(u64);

impl Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, hours) = (self.0 / 86_400, self.0 / 3600 % 24);
        let (minutes, seconds) = (self.0 / 60 % 60, self.0 % 60);
        match (days, hours) {
            (0, 0) => write!(f, "{minutes} min {seconds} s"),
            (0, _) => write!(f, "{hours} h {minutes} min"),
            _ => write!(f, "{days} d {hours} h"),
        }
    }
}

/// Text that HTML does not take for its own.
struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                _ => f.write_char(letter)?,
            }
        }
        Ok(())
    }
}
