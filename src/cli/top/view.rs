//! The screen of `top`: a pure function of the state. It uses what room there is, from a line or two up;
//! nothing is told by colour alone, and apart from the curves all of it is ASCII.

use super::columns::{Column, DROPS, PORTS, RULES, STATES, TALKERS, TALKERS_BY_FLOWS, WORKERS};
use super::columns::{Sort, fitted, lines, percent, si, sorted};
use super::keys;
use super::state::{CensusRates, Link, Point, Rates, State, View};
use crate::cli::remote::span;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::widgets::{Sparkline, Widget};

/// What the terminal can show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Colours.
    pub colour: bool,
    /// More than ASCII.
    pub unicode: bool,
}

impl Look {
    fn coloured(self, colour: Color) -> Style {
        match self.colour {
            true => Style::new().fg(colour),
            false => Style::new(),
        }
    }
}

const PLAIN: Style = Style::new();
const TITLE: Style = Style::new().add_modifier(Modifier::BOLD);
const BAR: Style = Style::new().add_modifier(Modifier::REVERSED);

/// Least height of a screen with curves, and that of the curves with their titles.
const CURVES_FROM: u16 = 32;
const CURVES: u16 = 5;

/// Lines of a part of the screen, written from its top.
struct Page<'a> {
    buf: &'a mut Buffer,
    area: Rect,
    look: Look,
}

impl Page<'_> {
    /// Writes a line, and goes on below it.
    fn line(&mut self, text: &str, style: Style) {
        if self.area.height == 0 {
            return;
        }
        let Rect { x, y, width, .. } = self.area;
        let text = fitted(text, usize::from(width));
        self.buf.set_stringn(x, y, text, usize::from(width), style);
        if style.add_modifier.contains(Modifier::REVERSED) {
            self.buf.set_style(
                Rect {
                    height: 1,
                    ..self.area
                },
                style,
            );
        }
        self.skip(1);
    }

    fn skip(&mut self, lines: u16) {
        let lines = lines.min(self.area.height);
        self.area.y += lines;
        self.area.height -= lines;
    }

    /// A part that begins here, `height` lines high.
    fn part(&mut self, height: u16) -> Page<'_> {
        let area = Rect {
            height: height.min(self.area.height),
            ..self.area
        };
        let part = Page {
            area,
            look: self.look,
            buf: self.buf,
        };
        // What is behind it belongs to who asked.
        let lines = area.height;
        self.area.y += lines;
        self.area.height -= lines;
        part
    }

    /// A table: as many of `rows` as there is room for, from number `first` on. Says how many that is.
    fn table<T>(&mut self, table: &Table<'_, T>, first: usize) -> usize {
        let room = usize::from(self.area.height.saturating_sub(1));
        let rows = sorted(table.columns, table.rows, table.sort);
        let first = first.min(rows.len().saturating_sub(room));
        let shown = &rows[first..rows.len().min(first + room)];
        let (last, all) = (first + shown.len(), rows.len());
        let more = match table.counted && shown.len() < all {
            true => format!("{} ({}-{last} of {all})", table.note, first + 1),
            false => table.note.clone(),
        };
        let width = usize::from(self.area.width);
        let lines = lines(table.columns, shown, table.sort, &more, width);
        for (at, line) in lines.iter().enumerate() {
            let hot = at > 0 && (table.hot)(shown[at - 1]);
            let style = match at {
                0 => TITLE,
                _ if hot => self.look.coloured(Color::Yellow),
                _ => PLAIN,
            };
            self.line(line, style);
        }
        shown.len()
    }
}

/// A table.
struct Table<'a, T: 'static> {
    columns: &'static [Column<T>],
    rows: &'a [T],
    sort: Sort,
    /// Behind the first title.
    note: String,
    /// Whether the title says which rows are shown, if not all are.
    counted: bool,
    /// Rows that deserve a look.
    hot: fn(&T) -> bool,
}

/// Draws the screen into `area`; says how many rows of its list are shown.
pub fn draw(state: &State, look: Look, area: Rect, buf: &mut Buffer) -> usize {
    let mut page = Page { buf, area, look };
    title(state, &mut page);
    let footer = area.height >= 4;
    let height = page.area.height - u16::from(footer);
    let shown = body(state, &mut page.part(height));
    if footer {
        let views = View::ALL.iter().zip(1..);
        let views = views.map(|(view, digit)| format!("{digit} {}", view.name()));
        let views: Vec<_> = views.collect();
        page.line(&format!("{}  h help  q end", views.join(" ")), BAR);
    }
    shown
}

fn title(state: &State, page: &mut Page<'_>) {
    let about = state.rates.as_ref().map_or_else(String::new, |rates| {
        let (version, up) = (&rates.version, span(rates.uptime));
        format!("{version}, up {up}, policy {}", rates.generation)
    });
    let every = state.interval.as_secs_f64();
    let paused = if state.paused { " PAUSED" } else { "" };
    let right = format!("{}, every {every}s{paused}", state.view.name());
    let left = format!("shardwall {about}");
    let width = usize::from(page.area.width);
    let room = width.saturating_sub(right.len() + 2);
    let text = match left.len() <= room || room >= 24 {
        true => format!("{:<room$}  {right}", fitted(&left, room)),
        false => right,
    };
    page.line(&text, BAR);
}

fn body(state: &State, page: &mut Page<'_>) -> usize {
    if state.help {
        keys::help().for_each(|line| page.line(&line, PLAIN));
        return 0;
    }
    let alert = page.look.coloured(Color::Red).add_modifier(Modifier::BOLD);
    for notice in notices(state) {
        page.line(&format!("! {notice}"), alert);
    }
    let Some(rates) = &state.rates else {
        page.line("counting...", PLAIN);
        return 0;
    };
    for line in totals(rates) {
        page.line(&line, PLAIN);
    }
    if page.area.height > 6 {
        page.skip(1);
    }
    if state.view == View::Overview {
        overview(state, rates, page);
        return 0;
    }
    if let (View::Talkers | View::Flows, Some(census)) = (state.view, &rates.census) {
        page.line(&worth(state.view, census), PLAIN);
    }
    list(state, state.view, rates, page, state.scroll)
}

/// What needs attention.
fn notices(state: &State) -> Vec<String> {
    let mut notices = Vec::new();
    match &state.link {
        Link::Up => {}
        Link::Slow(secs) => notices.push(format!("no answer for {secs} s; what is shown is old")),
        Link::Lost { why, secs } => notices.push(format!(
            "no answer for {secs} s, trying again; what is shown is old: {why}"
        )),
    }
    let Some(rates) = &state.rates else {
        return notices;
    };
    if !rates.reload_successful {
        notices.push("the last reload failed; the policy from before is in force".into());
    }
    let flows = &rates.flows;
    if flows.refused_per_s > 0.0 {
        let refused = si(flows.refused_per_s);
        notices.push(format!(
            "no room for new flows: {refused} packets/s refused"
        ));
    } else if flows.early_drop_per_s > 0.0 {
        let early = si(flows.early_drop_per_s);
        notices.push(format!("the flow table is full: {early} flows/s end early"));
    }
    let lost: f64 = rates.workers.iter().map(|it| it.handed_lost_per_s).sum();
    if lost > 0.0 {
        notices.push(format!(
            "workers cannot keep up: {} packets/s lost between them",
            si(lost)
        ));
    }
    notices
}

/// Packets and flows, a line each.
pub(super) fn totals(rates: &Rates) -> [String; 2] {
    let flows = &rates.flows;
    let share = percent(flows.entries as f64 / f64::from(flows.limit.max(1)));
    let packets = format!(
        "packets/s: {} in, {} out, {} dropped, {} to the host",
        si(rates.received_per_s),
        si(rates.forwarded_per_s),
        si(rates.dropped_per_s),
        si(rates.punted_per_s)
    );
    let classes = ["tcp", "udp", "other"].into_iter();
    let classes = classes.filter_map(|class| {
        let count = flows.by_class.get(class)?;
        Some(format!("{} {class}", si(*count as f64)))
    });
    let classes: Vec<_> = classes.collect();
    let table = format!(
        "flows: {} of {} ({share}), {} new/s, {} ended/s; {}",
        si(flows.entries as f64),
        si(f64::from(flows.limit)),
        si(flows.new_per_s),
        si(flows.ended_per_s),
        classes.join(", ")
    );
    [packets, table]
}

/// How old the census is, and what its numbers are worth.
pub(super) fn worth(view: View, census: &CensusRates) -> String {
    let age = census.age_s;
    match (view, census.window_s) {
        (View::Flows, _) => format!("counted {age:.0} s ago: {} flows", census.flows),
        _ if !census.accounting => {
            format!("counted {age:.0} s ago; by flows, for `accounting` (under `conntrack`) is off")
        }
        (_, None) => {
            format!("counted {age:.0} s ago; what hosts send is known after the next count")
        }
        (_, Some(window)) => {
            let bound = if census.lower_bound { ", at least" } else { "" };
            format!("counted {age:.0} s ago, over {window:.1} s{bound}; bits from the IP header on")
        }
    }
}

/// Something of everything.
fn overview(state: &State, rates: &Rates, page: &mut Page<'_>) {
    let height = page.area.height;
    let cap = usize::from(height / 5).max(1);
    for (view, rows) in [
        (View::Ports, rates.ports.len()),
        (View::Workers, rates.workers.len()),
    ] {
        let lines = 1 + rows.min(cap) as u16;
        if page.area.height < 2 {
            return;
        }
        list(state, view, rates, &mut page.part(lines), 0);
        if height > 8 {
            page.skip(1);
        }
    }
    if page.look.unicode && height >= CURVES_FROM - 4 {
        curves(state, page.part(CURVES));
        page.skip(1);
    }
    let columns: u16 = match page.area.width {
        156.. => 4,
        72.. => 2,
        _ => 1,
    };
    const PANELS: [View; 4] = [View::Rules, View::Drops, View::Talkers, View::Flows];
    // Each a title and a row at least, and a blank line between two.
    let bands = (PANELS.len() as u16 / columns).min((page.area.height + 1) / 3);
    if bands == 0 {
        return;
    }
    let lines = (page.area.height + 1) / bands - 1;
    for band in PANELS.chunks(usize::from(columns)).take(usize::from(bands)) {
        let part = page.part(lines);
        let (area, look) = (part.area, part.look);
        let width = (area.width + 2) / columns - 2;
        for (x, view) in (area.x..).step_by(usize::from(width) + 2).zip(band) {
            let area = Rect { x, width, ..area };
            let buf = &mut *part.buf;
            list(state, *view, rates, &mut Page { buf, area, look }, 0);
        }
        page.skip(1);
    }
}

/// Packets received and dropped in the last intervals.
fn curves(state: &State, page: Page<'_>) {
    type Of = fn(&Point) -> f64;
    let width = ((page.area.width + 2) / 2).saturating_sub(2);
    let curves: [(&str, Of); 2] = [
        ("PACKETS/S IN", |point| point.received),
        ("PACKETS/S DROPPED", |point| point.dropped),
    ];
    let left = Rect { width, ..page.area };
    let right = Rect {
        x: left.x + width + 2,
        ..left
    };
    for (area, (name, of)) in [left, right].into_iter().zip(curves) {
        let last = state.history.iter().rev().take(usize::from(width)).rev();
        let values: Vec<u64> = last.map(|point| of(point) as u64).collect();
        let most = values.iter().max().copied().unwrap_or(0);
        let (buf, look) = (&mut *page.buf, page.look);
        let mut part = Page { buf, area, look };
        part.line(&format!("{name} (up to {})", si(most as f64)), TITLE);
        let area = part.area;
        Sparkline::default().data(values).render(area, part.buf);
    }
}

/// The rows of `view`, from number `first` on.
fn list(state: &State, view: View, rates: &Rates, page: &mut Page<'_>, first: usize) -> usize {
    let sort = state.sorts[view as usize];
    // Of the lists that are sorted, the overview shows the first, and means no more.
    let counted = state.view == view || matches!(view, View::Ports | View::Workers);
    let census = rates.census.as_ref();
    let (talkers, states) = census.map_or((&[][..], &[][..]), |it| (&it.talkers, &it.states));
    // The views themselves say it in a line of their own.
    let ago = match census {
        _ if state.view != View::Overview => String::new(),
        None => ", being counted".into(),
        Some(census) => format!(" {:.0}s ago", census.age_s),
    };
    match view {
        View::Overview => 0,
        View::Ports => page.table(
            &Table {
                columns: PORTS,
                rows: &rates.ports,
                sort,
                note: String::new(),
                counted,
                hot: |row| row.drops_per_s > 0.0,
            },
            first,
        ),
        View::Workers => page.table(
            &Table {
                columns: WORKERS,
                rows: &rates.workers,
                sort,
                note: String::new(),
                counted,
                hot: |row| row.busy > 0.9 || row.handed_lost_per_s > 0.0,
            },
            first,
        ),
        View::Rules => page.table(
            &Table {
                columns: RULES,
                rows: &rates.rules,
                sort,
                note: String::new(),
                counted,
                hot: |_| false,
            },
            first,
        ),
        View::Drops => page.table(
            &Table {
                columns: DROPS,
                rows: &rates.drops,
                sort,
                note: String::new(),
                counted,
                hot: |row| row.packets_per_s > 0.0,
            },
            first,
        ),
        View::Talkers => {
            let (columns, why) = match census {
                Some(census) if !census.accounting => (TALKERS_BY_FLOWS, ", no accounting"),
                Some(CensusRates { window_s: None, .. }) => (TALKERS_BY_FLOWS, ", rates follow"),
                _ => (TALKERS, ""),
            };
            let why = if state.view == View::Overview {
                why
            } else {
                ""
            };
            page.table(
                &Table {
                    columns,
                    rows: talkers,
                    sort,
                    note: format!("{ago}{why}"),
                    counted,
                    hot: |_| false,
                },
                first,
            )
        }
        View::Flows => page.table(
            &Table {
                columns: STATES,
                rows: states,
                sort,
                note: String::new(),
                counted,
                hot: |_| false,
            },
            first,
        ),
    }
}
