//! What is made of the results: a page of tables, and pictures.

use crate::chart::{Bar, Chart, Group, shown};
use crate::figures::{count, found, kinds, number, rows, spread};
use serde_json::Value;
use std::fmt::Write;

/// A table with a row for each of `down` and a column for each of `across`.
fn grid(
    corner: &str,
    down: &[String],
    across: &[String],
    cell: impl Fn(usize, usize) -> String,
) -> String {
    let mut out = format!("| {corner} |");
    for name in across {
        let _ = write!(out, " {name} |");
    }
    let _ = write!(out, "\n|---|{}\n", "---|".repeat(across.len()));
    for (row, name) in down.iter().enumerate() {
        let _ = write!(out, "| {name} |");
        for column in 0..across.len() {
            let _ = write!(out, " {} |", cell(row, column));
        }
        out.push('\n');
    }
    out
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn of<'a>(
    rows: &'a [Value],
    key: &str,
    value: &Value,
    other: &str,
    name: &Value,
) -> Option<&'a Value> {
    rows.iter()
        .find(|row| row[key] == *value && row[other] == *name)
}

/// Rows by flows, columns by `key`.
fn by_flows(rows: &[Value], key: &str, cell: impl Fn(&Value) -> Option<String>) -> String {
    let (flows, names) = (kinds(rows, "flows"), kinds(rows, key));
    let down: Vec<String> = flows.iter().map(count).collect();
    let across: Vec<String> = names.iter().map(text).collect();
    grid("flows", &down, &across, |row, column| {
        of(rows, "flows", &flows[row], key, &names[column])
            .and_then(&cell)
            .unwrap_or_default()
    })
}

/// Least and median.
fn nanos(row: &Value) -> Option<String> {
    let (least, median) = (row["ns"].as_f64()?, row["ns_median"].as_f64()?);
    Some(format!("{least:.1} ({median:.1})"))
}

/// Median and spread by processor time, and the ratio to testpmd.
fn rate(row: &Value) -> Option<String> {
    let (median, low, high) = spread(&row["mpps_cpu"])?;
    let ratio = row["ratio"].as_f64().map(|ratio| format!("; {ratio:.2}"));
    let (median, low, high) = (shown(median), shown(low), shown(high));
    let lost = spread(&row["lost_percent"]).map_or(0.0, |lost| lost.0);
    let lost = (lost >= 0.1).then(|| format!("; {lost:.1} % lost"));
    Some(format!(
        "{median} ({low} to {high}{}{})",
        ratio.unwrap_or_default(),
        lost.unwrap_or_default()
    ))
}

fn section(out: &mut String, title: &str, what: &str, body: &str) {
    if !body.is_empty() {
        let _ = write!(out, "\n## {title}\n\n{what}\n\n{body}");
    }
}

fn machine(results: &Value) -> String {
    let machine = &results["machine"];
    let said = |key: &str| text(&machine[key]);
    let mut out = format!(
        "{} cores of {} at {} MHz{}, {}; {}, Linux {}, DPDK {}, {}, {}, {}; revision {}. \
         Transparent huge pages: {}. Load average before {}, after {}.",
        machine["cores"],
        said("processor"),
        said("mhz"),
        if machine["hypervisor"] == true {
            ", virtual"
        } else {
            ""
        },
        said("memory"),
        said("system"),
        said("kernel"),
        said("dpdk"),
        said("open_vswitch"),
        said("nftables"),
        said("compiler"),
        said("revision"),
        said("transparent_huge_pages"),
        text(&results["load"]["before"]),
        text(&results["load"]["after"]),
    );
    if results["quick"] == true {
        out.push_str(" A quick run: for a look, not for figures.");
    }
    out
}

fn rig(results: &Value, step: &str) -> String {
    let rows = rows(results, step);
    if rows.is_empty() {
        return String::new();
    }
    let mut out = by_flows(rows, "name", rate);
    for line in found(results, step)["skipped"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let first = text(line).lines().next().unwrap_or_default().to_owned();
        let _ = write!(out, "\nLeft out: {first}.\n");
    }
    out
}

fn stretch(results: &Value, step: &str) -> String {
    let mut out = String::new();
    for it in found(results, step)["stretches"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let list = |key: &str| spread(&it[key]).map_or(String::new(), |it| shown(it.0));
        let figure =
            |value: &Value| number(value).map_or(String::new(), |value| format!("{value:.1}"));
        let _ = writeln!(
            out,
            "- {}, {} flows: each took {} ms (p50), {} ms (most); Mpps by processor time {} without, {} \
             with: a dip of {} % (by the clock {} %), median of pairs",
            text(&it["what"]),
            count(&it["flows"]),
            figure(&it["took_ms"]["p50"]),
            figure(&it["took_ms"]["most"]),
            list("mpps_cpu_without"),
            list("mpps_cpu_with"),
            figure(&it["dip_percent_cpu"]),
            figure(&it["dip_percent"]),
        );
        if let Some(longest) = it["loop_us"]["longest"].as_f64() {
            let (before, p99) = (&it["loop_us"]["longest_before"], &it["loop_us"]["p99"]);
            let (before, p99) = (figure(before), figure(p99));
            let _ = writeln!(
                out,
                "  - longest loop of a worker before that: {before} µs, with it: {longest:.1} µs; p99: {p99} µs"
            );
            if let [without, with] = it["slow_loops_a_second"]
                .as_array()
                .map_or(&[][..], Vec::as_slice)
            {
                let (without, with) = (figure(without), figure(with));
                let _ = writeln!(
                    out,
                    "  - loops of over 100 µs a second: {without} without, {with} with"
                );
            }
        }
        for note in it["notes"].as_array().into_iter().flatten() {
            let _ = writeln!(out, "  - {}", text(note));
        }
    }
    out
}

/// The columns of a table that a bench made.
fn columns(results: &Value, step: &str, wanted: &[(&str, &str)]) -> String {
    let rows = rows(results, step);
    if rows.is_empty() {
        return String::new();
    }
    let down: Vec<String> = rows.iter().map(|row| count(&row["rules"])).collect();
    let across: Vec<String> = wanted.iter().map(|(_, name)| (*name).to_owned()).collect();
    grid("rules", &down, &across, |row, column| {
        text(&rows[row][wanted[column].0])
    })
}

/// The page.
pub(crate) fn page(results: &Value) -> String {
    let mut out = format!("# Measured\n\n{}\n", machine(results));
    let mut known = rows(results, "conntrack").to_vec();
    known.extend_from_slice(rows(results, "large"));
    let table = if known.is_empty() {
        String::new()
    } else {
        by_flows(&known, "case", nanos)
    };
    section(
        &mut out,
        "Conntrack and the pure path",
        "Nanoseconds a packet on one core: least (median). `insert`: a new flow, created, confirmed and \
         expired; `path-` with a policy.",
        &table,
    );
    let scale = rows(results, "scale");
    let times = |row: &Value| {
        let (alone, together) = (row["alone_ns"].as_f64()?, row["together_ns"].as_f64()?);
        let times = row["times_one"].as_f64()?;
        Some(format!("{alone:.1}, {together:.1}: {times:.2}"))
    };
    let table = if scale.is_empty() {
        String::new()
    } else {
        by_flows(scale, "case", times)
    };
    section(
        &mut out,
        "Two workers against one",
        "Nanoseconds a packet of one worker alone, of each of two at once (least, the generator included), \
         and how many times the one alone the two are (median of the rounds).",
        &table,
    );
    let two = |row: &Value, key: &str| row[key].as_f64().map_or_else(String::new, shown);
    let mut table = String::new();
    for row in rows(results, "handoff") {
        if table.is_empty() {
            table = "| flows | own | handed over | ratio |\n|---|---|---|---|\n".to_owned();
        }
        let cells = ["own_mpps", "handed_mpps", "ratio"].map(|key| two(row, key));
        let flows = count(&row["flows"]);
        let _ = writeln!(table, "| {flows} | {} |", cells.join(" | "));
    }
    section(
        &mut out,
        "Every packet handed over",
        "Two workers, millions of packets a second of both by processor time: all packets of flows of the \
         worker that gets them, and all of the other's.",
        &table,
    );
    let mpps = "Millions a second by processor time of who polls: median (smallest to largest; of 5tswap).";
    for (step, title) in [
        ("rig", "End to end, TCP"),
        ("rig-udp", "End to end, UDP"),
        ("rig-two", "End to end, TCP, two workers"),
        (
            "begin-end",
            "New flows end to end: a SYN, and later its RST",
        ),
        ("begin-full", "New flows end to end, in a full table"),
    ] {
        let what = if step.starts_with("begin") {
            mpps.replace("Millions", "Millions of new flows")
        } else {
            mpps.replace("Millions", "Millions of packets")
        };
        section(&mut out, title, &what, &rig(results, step));
    }
    section(
        &mut out,
        "Reloads under load",
        "",
        &stretch(results, "reload"),
    );
    section(
        &mut out,
        "Listings under load",
        "",
        &stretch(results, "dump"),
    );
    section(
        &mut out,
        "Classifier",
        "A packet that starts a flow, in nanoseconds.",
        &columns(
            results,
            "classifier",
            &[
                ("entries", "entries of sets"),
                ("read ms", "read, ms"),
                ("compile ms", "compile, ms"),
                ("classifier MB", "classifier, MB"),
                ("p50", "p50"),
                ("p99", "p99"),
                ("linear p50", "rule by rule, p50"),
            ],
        ),
    );
    section(
        &mut out,
        "Against nftables",
        "Datagrams that each start a flow, one core: nanoseconds that the rules add, and thousands a second.",
        &columns(
            results,
            "peer",
            &[
                ("kernel rules", "kernel: rules"),
                ("kernel rate", "kernel: thousand/s"),
                ("path rules", "shardwall: rules"),
                ("path rate", "shardwall: thousand/s"),
                ("parts", "ratio of rules"),
                ("rates", "ratio of rates"),
            ],
        ),
    );
    let latency = rows(results, "latency");
    if !latency.is_empty() {
        let down: Vec<String> = latency.iter().map(|row| text(&row["name"])).collect();
        let parts = ["p50", "p99", "p99.9", "most"].map(str::to_owned);
        let table = grid("", &down, &parts, |row, column| {
            let cell = spread(&latency[row][&parts[column]]);
            cell.map_or(String::new(), |(middle, low, high)| {
                format!("{middle:.1} ({low:.1} to {high:.1})")
            })
        });
        let what = "Microseconds one way, one packet at a time: median of the rounds (smallest to largest).";
        section(&mut out, "Latency at low load", what, &table);
    }
    out.push_str("\n## Commands\n\n");
    for (name, step) in results["steps"].as_object().into_iter().flatten() {
        let _ = write!(
            out,
            "- {name}, {} s: `{}`",
            step["seconds"],
            text(&step["command"])
        );
        if let Some(why) = step["missing"].as_str() {
            let _ = write!(out, " (nothing: {why})");
        }
        out.push('\n');
    }
    out
}

/// Groups by flows, bars by `key`.
fn groups(
    rows: &[Value],
    key: &str,
    bar: impl Fn(&Value) -> Option<(f64, Option<(f64, f64)>)>,
) -> Vec<Group> {
    let group = |flows: &Value| Group {
        name: format!("{} flows", count(flows)),
        bars: rows
            .iter()
            .filter(|row| row["flows"] == *flows)
            .filter_map(|row| {
                let (value, spread) = bar(row)?;
                let name = text(&row[key]);
                Some(Bar {
                    name,
                    value,
                    spread,
                })
            })
            .collect(),
    };
    kinds(rows, "flows").iter().map(group).collect()
}

fn mpps(row: &Value) -> Option<(f64, Option<(f64, f64)>)> {
    let (median, low, high) = spread(&row["mpps_cpu"])?;
    Some((median, Some((low, high))))
}

/// New flows, millions a second, wherever they were measured.
fn fresh(results: &Value) -> Vec<Group> {
    let mut all = Vec::new();
    for (case, what) in [
        ("insert", "tracker alone"),
        ("path-insert", "with a policy"),
    ] {
        let bars = rows(results, "conntrack")
            .iter()
            .filter(|row| row["case"] == case);
        all.push(Group {
            name: format!("In the core bench, {what}: created, confirmed, expired"),
            bars: bars
                .filter_map(|row| {
                    Some(Bar {
                        name: format!("beside {}", count(&row["flows"])),
                        value: 1e3 / row["ns"].as_f64()?,
                        spread: None,
                    })
                })
                .collect(),
        });
    }
    for (step, name) in [
        (
            "begin-end",
            "End to end, 100 rules: a SYN, and later its RST",
        ),
        ("begin-full", "End to end, 100 rules, in a full table"),
    ] {
        let bars = groups(rows(results, step), "name", mpps);
        all.extend(bars.into_iter().map(|group| Group {
            name: name.to_owned(),
            ..group
        }));
    }
    if let Some(row) = rows(results, "peer").first() {
        let bar = |name: &str, key: &str| {
            let value = number(&row[key])? / 1e3;
            Some(Bar {
                name: name.to_owned(),
                value,
                spread: None,
            })
        };
        let bars = [
            bar("kernel, nftables", "kernel rate"),
            bar("shardwall, pure path", "path rate"),
        ];
        all.push(Group {
            name: format!("Datagrams through {} rules, one core", text(&row["rules"])),
            bars: bars.into_iter().flatten().collect(),
        });
    }
    all
}

/// The pictures, with their names.
pub(crate) fn pictures(results: &Value) -> Vec<(&'static str, String)> {
    let least = |row: &Value| Some((row["ns"].as_f64()?, None));
    let mut known = rows(results, "conntrack").to_vec();
    known.extend_from_slice(rows(results, "large"));
    let name_memory = |mut groups: Vec<Group>| {
        for bar in groups.iter_mut().flat_map(|group| &mut group.bars) {
            if bar.name == "chase" {
                bar.name = "memory, random read".to_owned();
            }
        }
        groups
    };
    let mut two = Vec::new();
    for row in rows(results, "scale") {
        let bar = |name: &str, times: f64| {
            let value = 1e3 / row["alone_ns"].as_f64()? * times;
            Some(Bar {
                name: name.to_owned(),
                value,
                spread: None,
            })
        };
        let times = row["times_one"].as_f64().unwrap_or(0.0);
        two.push(Group {
            name: format!(
                "{}, {} flows each: {times:.2} times",
                text(&row["case"]),
                count(&row["flows"])
            ),
            bars: [bar("one worker", 1.0), bar("two workers", times)]
                .into_iter()
                .flatten()
                .collect(),
        });
    }
    let classifier = |row: &Value| {
        let bar = |name: &str, value: Option<f64>| {
            value.map(|value| Bar {
                name: name.to_owned(),
                value,
                spread: None,
            })
        };
        let peer = rows(results, "peer")
            .iter()
            .find(|other| other["rules"] == row["rules"]);
        let bars = [
            bar("shardwall", number(&row["p50"])),
            bar("the same, rule by rule", number(&row["linear p50"])),
            bar(
                "nftables",
                peer.and_then(|row| number(&row["kernel rules"])),
            ),
        ];
        Group {
            name: format!("{} rules", count(&row["rules"])),
            bars: bars.into_iter().flatten().collect(),
        }
    };
    let latency = rows(results, "latency").iter().map(|row| Group {
        name: text(&row["name"]),
        bars: ["p50", "p99", "p99.9", "most"]
            .into_iter()
            .filter_map(|part| {
                let (value, low, high) = spread(&row[part])?;
                Some(Bar {
                    name: part.to_owned(),
                    value,
                    spread: Some((low, high)),
                })
            })
            .collect(),
    });
    let rig = |step| groups(rows(results, step), "name", mpps);
    let charts = [
        (
            "conntrack",
            "Conntrack alone, one core",
            "nanoseconds a packet, less is better",
            false,
            name_memory(groups(&known, "case", least)),
        ),
        (
            "rig",
            "End to end, TCP, 100 rules, one polling core",
            "millions of packets a second of its processor time, more is better",
            false,
            rig("rig"),
        ),
        (
            "rig-two",
            "End to end, TCP, 100 rules, two polling cores",
            "millions of packets a second of their processor time, more is better",
            false,
            rig("rig-two"),
        ),
        (
            "workers",
            "Two workers against one",
            "millions of packets a second, more is better",
            false,
            two,
        ),
        (
            "new-flows",
            "New flows",
            "millions a second, more is better",
            false,
            fresh(results),
        ),
        (
            "classifier",
            "A packet that starts a flow",
            "nanoseconds that the rules take, less is better; each line is ten times the one before",
            true,
            rows(results, "classifier").iter().map(classifier).collect(),
        ),
        (
            "latency",
            "Latency at low load",
            "microseconds one way, less is better; each line is ten times the one before",
            true,
            latency.collect(),
        ),
    ];
    let drawn = charts
        .into_iter()
        .filter_map(|(name, title, unit, log, mut groups)| {
            groups.retain(|group: &Group| !group.bars.is_empty());
            let chart = Chart {
                title: title.to_owned(),
                unit: unit.to_owned(),
                log,
                groups,
            };
            (!chart.groups.is_empty()).then(|| (name, chart.svg()))
        });
    drawn.collect()
}
