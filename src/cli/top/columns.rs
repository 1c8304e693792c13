//! What `top` shows of a row, column by column, as text of a given width. Pure.

use super::state::{DropRate, PortRate, RuleRate, StateRate, TalkerRate, WorkerRate};
use crate::cli::table::Side::{self, Left, Right};
use std::cmp::Ordering;
use std::fmt::Write;

/// A column of rows `T`.
pub struct Column<T: 'static> {
    /// What stands above it.
    title: &'static str,
    /// Its least width. The first column, and the last if its cells are on the left, take what is left
    /// over.
    width: usize,
    side: Side,
    cell: fn(&T) -> String,
    /// What it is sorted by, most first; by its cell, if by nothing else.
    rank: Option<fn(&T) -> f64>,
}

impl<T> std::fmt::Debug for Column<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.title)
    }
}

/// What rows are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sort {
    /// Which column; none for the order that they have.
    pub column: Option<usize>,
    /// The other way round.
    pub reversed: bool,
}

/// Words.
const fn word<T>(title: &'static str, width: usize, cell: fn(&T) -> String) -> Column<T> {
    Column {
        title,
        width,
        side: Left,
        cell,
        rank: None,
    }
}

/// A number.
const fn number<T>(
    title: &'static str,
    width: usize,
    cell: fn(&T) -> String,
    rank: fn(&T) -> f64,
) -> Column<T> {
    Column {
        title,
        width,
        side: Right,
        cell,
        rank: Some(rank),
    }
}

/// A number as [`si`] writes it.
macro_rules! si {
    ($title:literal, $width:literal, $row:ty, $field:ident) => {
        number::<$row>(
            $title,
            $width,
            |row| si(row.$field as f64),
            |row| row.$field as f64,
        )
    };
}

/// Of ports.
pub const PORTS: &[Column<PortRate>] = &[
    word("PORT", 6, |row| row.port.clone()),
    si!("RX PKT/S", 8, PortRate, rx_packets_per_s),
    si!("RX BIT/S", 8, PortRate, rx_bits_per_s),
    si!("TX PKT/S", 8, PortRate, tx_packets_per_s),
    si!("TX BIT/S", 8, PortRate, tx_bits_per_s),
    si!("DROP/S", 6, PortRate, drops_per_s),
    word("LINK", 15, |row| row.link.clone()),
    si!("MISSED/S", 8, PortRate, missed_per_s),
    si!("NOBUF/S", 7, PortRate, no_buffer_per_s),
    si!("RXERR/S", 7, PortRate, rx_errors_per_s),
    si!("TXERR/S", 7, PortRate, tx_errors_per_s),
    word("DRIVER", 8, |row| row.driver.clone()),
];

/// Of workers.
pub const WORKERS: &[Column<WorkerRate>] = &[
    number(
        "WORKER",
        6,
        |row| row.worker.to_string(),
        |row| -(row.worker as f64),
    ),
    number("BUSY", 4, |row| percent(row.busy), |row| row.busy),
    word("LOAD", 10, |row| bar(row.busy, 10)),
    number(
        "LOOP P99",
        8,
        |row| row.loop_p99_seconds.map_or_else(|| "-".into(), time),
        |row| row.loop_p99_seconds.unwrap_or(0.0),
    ),
    si!("PKT/S", 6, WorkerRate, received_per_s),
    si!("FLOWS", 6, WorkerRate, flows),
    si!("OUT/S", 6, WorkerRate, handed_out_per_s),
    si!("IN/S", 6, WorkerRate, handed_in_per_s),
    si!("LOST/S", 6, WorkerRate, handed_lost_per_s),
];

/// Of rules.
pub const RULES: &[Column<RuleRate>] = &[
    word("RULE", 16, |row| row.rule.clone()),
    si!("PKT/S", 6, RuleRate, packets_per_s),
    si!("BIT/S", 6, RuleRate, bits_per_s),
    si!("PACKETS", 7, RuleRate, packets),
    word("ACTION", 12, |row| row.action.clone()),
];

/// Of reasons for drops.
pub const DROPS: &[Column<DropRate>] = &[
    word("DROP", 16, |row| row.reason.clone()),
    si!("PKT/S", 6, DropRate, packets_per_s),
    si!("PACKETS", 7, DropRate, packets),
    word("MEANING", 20, |row| row.meaning.clone()),
];

/// Of hosts, where flows count what they carry.
pub const TALKERS: &[Column<TalkerRate>] = &[
    word("TALKER", 15, host),
    number(
        "BIT/S",
        6,
        |row| si(row.tx_bits_per_s + row.rx_bits_per_s),
        |row| row.tx_bits_per_s + row.rx_bits_per_s,
    ),
    si!("PKT/S", 6, TalkerRate, packets_per_s),
    si!("FLOWS", 5, TalkerRate, flows),
    si!("SENT BIT/S", 10, TalkerRate, tx_bits_per_s),
    si!("RECV BIT/S", 10, TalkerRate, rx_bits_per_s),
];

/// Of hosts, where they do not.
pub const TALKERS_BY_FLOWS: &[Column<TalkerRate>] =
    &[word("TALKER", 15, host), si!("FLOWS", 6, TalkerRate, flows)];

/// Of flows.
pub const STATES: &[Column<StateRate>] = &[
    word("PROTO", 8, |row| row.proto.clone()),
    word("STATE", 11, |row| row.state.clone()),
    si!("FLOWS", 6, StateRate, flows),
    number("SHARE", 5, |row| percent(row.share), |row| row.share),
    word("", 20, |row| bar(row.share, 20)),
];

fn host(row: &TalkerRate) -> String {
    match row.zone {
        0 => row.host.to_string(),
        zone => format!("{} zone {zone}", row.host),
    }
}

/// The rows in order: those that are equal keep the order they have.
pub fn sorted<'a, T>(columns: &[Column<T>], rows: &'a [T], sort: Sort) -> Vec<&'a T> {
    let mut rows: Vec<&T> = rows.iter().collect();
    if let Some(column) = sort.column.and_then(|at| columns.get(at)) {
        match column.rank {
            Some(rank) => {
                rows.sort_by(|a, b| rank(b).partial_cmp(&rank(a)).unwrap_or(Ordering::Equal));
            }
            None => rows.sort_by_cached_key(|row| (column.cell)(row)),
        }
    }
    if sort.reversed {
        rows.reverse();
    }
    rows
}

/// Lines no longer than `width`: the columns' titles, then `rows`. Columns for which there is no room
/// are left out, from the right. What the rows are sorted by has a `v` in front, or a `^` if reversed;
/// `note` follows the first column's title.
pub fn lines<T>(
    columns: &[Column<T>],
    rows: &[&T],
    sort: Sort,
    note: &str,
    width: usize,
) -> Vec<String> {
    const GAP: usize = 2;
    let mut taken = 0;
    let fit = columns.iter().enumerate().take_while(|(at, column)| {
        taken += column.width + if *at == 0 { 0 } else { GAP };
        *at == 0 || taken <= width
    });
    let columns: Vec<_> = fit.map(|(_, column)| column).collect();
    let cells = rows.iter().map(|row| {
        let cells = columns.iter().map(|column| (column.cell)(row));
        cells.collect::<Vec<_>>()
    });
    let mut cells: Vec<Vec<String>> = cells.collect();
    let title = |(at, column): (usize, &&Column<T>)| {
        let mark = match sort {
            Sort { column, .. } if column != Some(at) => "",
            Sort { reversed, .. } => ["v", "^"][usize::from(reversed)],
        };
        let note = if at == 0 { note } else { "" };
        format!("{mark}{}{note}", column.title)
    };
    cells.insert(0, columns.iter().enumerate().map(title).collect());
    let mut widths: Vec<usize> = columns.iter().map(|column| column.width).collect();
    let used: usize = widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
    let mut spare = width.saturating_sub(used);
    // A sign in front of a title may need a place; then the first column takes what it needs, the last
    // one the rest.
    let longest = |at: usize| cells.iter().map(|row| row[at].chars().count()).max();
    for (at, least) in widths.iter_mut().enumerate() {
        let last = at + 1 == columns.len() && columns[at].side == Left;
        let wanted = match at {
            0 => longest(at),
            _ if last => longest(at),
            _ => Some(cells[0][at].chars().count()),
        };
        let more = wanted.unwrap_or(0).saturating_sub(*least).min(spare);
        *least += more;
        spare -= more;
    }
    let lines = cells.iter().map(|row| {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            let width = widths[at];
            let cell = fitted(cell, width);
            let gap = if at == 0 { 0 } else { GAP };
            let _ = match columns[at].side {
                Left => write!(line, "{:gap$}{cell:<width$}", ""),
                Right => write!(line, "{:gap$}{cell:>width$}", ""),
            };
        }
        fitted(line.trim_end(), width)
    });
    lines.collect()
}

/// `text` in at most `width` characters; what is cut ends in `~`.
pub fn fitted(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept = text.chars().take(width.saturating_sub(1));
    kept.chain((width > 0).then_some('~')).collect()
}

/// A number in at most five characters: `0`, `4.2`, `999`, `1.23k`, `123M`.
pub fn si(value: f64) -> String {
    const UNITS: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    let (mut value, mut unit) = (value.max(0.0), 0);
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let places = match value {
        value if value >= 99.95 => 0,
        value if value >= 9.995 => 1,
        _ => 2,
    };
    // Whole numbers have no places, and small ones one: who has a hundredth of a packet?
    let places = match unit {
        0 if value < 9.95 && (value * 10.0).round() % 10.0 != 0.0 => 1,
        0 => 0,
        _ => places,
    };
    format!("{value:.places$}{}", UNITS[unit])
}

/// A share as a percentage; only what is all is 100%, and only what is nothing is 0%.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 0.5 {
        return "<1%".into();
    }
    if (99.5..100.0).contains(&percent) {
        return ">99%".into();
    }
    format!("{percent:.0}%")
}

/// Seconds with their unit: `780ns`, `12.5us`, `1.2ms`.
pub fn time(seconds: f64) -> String {
    let units = [(1e-6, 1e9, "ns"), (1e-3, 1e6, "us"), (1.0, 1e3, "ms")];
    let unit = units.into_iter().find(|(below, ..)| seconds < *below);
    let (_, scale, name) = unit.unwrap_or((0.0, 1.0, "s"));
    let value = seconds * scale;
    let places = usize::from(value < 100.0 && name != "ns");
    format!("{value:.places$}{name}")
}

/// A share as a bar of `width` characters.
pub fn bar(share: f64, width: usize) -> String {
    let full = (share.clamp(0.0, 1.0) * width as f64).round() as usize;
    "#".repeat(full) + &".".repeat(width - full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_five_characters_at_most() {
        for (value, text) in [
            (0.0, "0"),
            (0.04, "0"),
            (0.06, "0.1"),
            (4.0, "4"),
            (4.24, "4.2"),
            (9.96, "10"),
            (999.4, "999"),
            (999.6, "1.00k"),
            (1234.0, "1.23k"),
            (12_340.0, "12.3k"),
            (99_960.0, "100k"),
            (999_600.0, "1.00M"),
            (14_880_952.0, "14.9M"),
            (1e11, "100G"),
            (1.8e19, "18.0E"),
        ] {
            assert_eq!(si(value), text, "{value}");
        }
        let mut value = 0.01;
        while value < 1e19 {
            assert!(si(value).len() <= 5, "{}", si(value));
            value *= 1.01;
        }
    }

    #[test]
    fn shares_and_times_in_words() {
        let shares = [
            (0.0, "0%"),
            (0.001, "<1%"),
            (0.5, "50%"),
            (0.999, ">99%"),
            (1.0, "100%"),
        ];
        for (share, text) in shares {
            assert_eq!(percent(share), text);
        }
        let times = [
            (7.8e-7, "780ns"),
            (1.25e-5, "12.5us"),
            (0.0012, "1.2ms"),
            (2.5, "2.5s"),
        ];
        for (seconds, text) in times {
            assert_eq!(time(seconds), text);
        }
        assert_eq!(bar(0.5, 4), "##..");
        assert_eq!((bar(-1.0, 2), bar(7.0, 2)), ("..".into(), "##".into()));
    }

    fn drops() -> Vec<DropRate> {
        let row = |reason: &str, packets_per_s, packets| DropRate {
            reason: reason.into(),
            packets_per_s,
            packets,
            meaning: "a meaning of some words".into(),
        };
        vec![row("b", 1.0, 30), row("a", 20.0, 20), row("c", 3.0, 10)]
    }

    #[test]
    fn rows_are_sorted_by_any_column_both_ways() {
        let rows = drops();
        let order = |column, reversed| {
            let rows = sorted(DROPS, &rows, Sort { column, reversed });
            rows.iter().map(|row| &*row.reason).collect::<String>()
        };
        assert_eq!(order(None, false), "bac");
        assert_eq!(order(None, true), "cab");
        assert_eq!(order(Some(0), false), "abc");
        assert_eq!(order(Some(1), false), "acb");
        assert_eq!(order(Some(1), true), "bca");
        assert_eq!(order(Some(2), false), "bac");
        assert_eq!(order(Some(99), false), "bac");
    }

    #[test]
    fn columns_go_from_the_right_where_there_is_no_room() {
        let rows = drops();
        let rows: Vec<_> = rows.iter().collect();
        let sort = Sort {
            column: Some(1),
            reversed: false,
        };
        let first = |width| lines(DROPS, &rows[..1], sort, "", width).join("\n");
        assert_eq!(
            first(80),
            "DROP              vPKT/S  PACKETS  MEANING\n\
             b                      1       30  a meaning of some words"
        );
        assert_eq!(
            first(40),
            "DROP              vPKT/S  PACKETS\n\
             b                      1       30"
        );
        assert_eq!(first(20), "DROP\nb");
        assert_eq!(first(3), "DR~\nb");
        assert_eq!(first(0), "\n");
        for width in 0..100 {
            let lines = lines(DROPS, &rows, sort, " of many words that are long", width);
            assert!(lines.iter().all(|line| line.chars().count() <= width));
        }
    }
}
