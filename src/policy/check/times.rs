//! Reads `time`, windows of time, and `time-zone`.
//!
//! Life-cycle and concurrency: as `check`.

use std::sync::Arc;

use jiff::civil::{Date, DateTime};
use jiff::tz::{self, TimeZone};

use super::Checker;
use crate::policy::calendar::{self, Calendar, DAY, TimeMatch, joined, seconds_of_day, unix, week};
use crate::policy::diagnostic::Place;
use crate::policy::yaml::{Kind, Node};

/// Days of the week, Monday first, the short name before the long one.
const DAYS: [(&str, u8); 14] = [
    ("mon", 0),
    ("tue", 1),
    ("wed", 2),
    ("thu", 3),
    ("fri", 4),
    ("sat", 5),
    ("sun", 6),
    ("monday", 0),
    ("tuesday", 1),
    ("wednesday", 2),
    ("thursday", 3),
    ("friday", 4),
    ("saturday", 5),
    ("sunday", 6),
];

/// Every day.
const ALL_DAYS: u8 = 0x7f;

/// The local time of a policy.
pub(super) struct Clock {
    zone: TimeZone,
    pub(super) calendar: Arc<Calendar>,
}

impl Clock {
    fn new(zone: TimeZone) -> Self {
        let calendar = Arc::new(Calendar::new(&zone));
        Self { zone, calendar }
    }
}

impl Checker<'_> {
    /// Reads `time-zone`, and returns its name if there is such a zone.
    pub(super) fn time_zone(&mut self, node: &Node) -> Option<String> {
        let name = self.scalar(node, "`time-zone`")?;
        match TimeZone::get(name) {
            Ok(zone) => self.clock = Some(Clock::new(zone)),
            Err(_) => {
                let known: Vec<_> = tz::db().available().map(|name| name.to_string()).collect();
                self.sink
                    .error(node.place, format!("unknown time zone `{name}`"))
                    .help("write a name like Europe/Berlin, or UTC")
                    .suggest(name, known.iter().map(String::as_str));
                // not to ask for the box's own
                self.clock = Some(Clock::new(TimeZone::UTC));
                return None;
            }
        }
        Some(name.to_owned())
    }

    /// The policy's time zone: that of the box, unless `time-zone` says another.
    fn local_zone(&mut self, place: Place) -> TimeZone {
        if self.clock.is_none() {
            let zone = TimeZone::try_system().unwrap_or_else(|_| {
                self.sink
                    .warn(
                        place,
                        "the time zone of this box is not known: this is in UTC",
                    )
                    .help("set TZ or /etc/localtime, or write `system: { time-zone: … }`");
                TimeZone::UTC
            });
            self.clock = Some(Clock::new(zone));
        }
        let clock = self.clock.as_ref();
        clock.map_or(TimeZone::UTC, |clock| clock.zone.clone())
    }

    /// Reads `time`: `mon-fri 08:00-18:00`, a list of those, or a mapping.
    pub(super) fn time(&mut self, node: &Node) -> Option<TimeMatch> {
        let zone = self.local_zone(node.place);
        let always = [(0, DAY)];
        match &node.kind {
            Kind::Map(_) => {
                let keys = &["days", "hours", "from", "until"];
                let fields = self.fields(node, "`time`", keys, &[])?;
                if fields.entries.is_empty() {
                    self.sink.error(node.place, "`time` says nothing");
                    return None;
                }
                let mut each = |key: &str| {
                    let node = fields.get(key)?;
                    let words = self.words(node, key)?;
                    if words.is_empty() {
                        let message = format!("`{key}` lists nothing");
                        self.sink.error(node.place, message);
                    }
                    Some(words)
                };
                let (days, hours) = (each("days"), each("hours"));
                let days = days.map(|words| self.days(&words));
                let hours = hours.map(|words| self.hours(&words));
                let mut end = |key: &str, late: bool| {
                    let node = fields.get(key)?;
                    let text = self.scalar(node, &format!("`{key}`"))?;
                    self.date(node.place, text, late, &zone)
                };
                let (from, until) = (end("from", false), end("until", true));
                if let (Some(from), Some(until), Some(node)) = (from, until, fields.get("until"))
                    && until <= from
                {
                    self.sink
                        .error(node.place, "`until` is not behind `from`, so never matches");
                    return None;
                }
                let windows = match (days, hours) {
                    (None, None) => Vec::new(),
                    (days, None) => week(days??, &always),
                    (None, hours) => week(ALL_DAYS, &hours??),
                    (days, hours) => week(days??, &hours??),
                };
                let week = joined(windows);
                Some(TimeMatch { week, from, until })
            }
            _ => {
                let items = match &node.kind {
                    Kind::List(items) => items.as_slice(),
                    _ => std::slice::from_ref(node),
                };
                if items.is_empty() {
                    self.sink.error(node.place, "`time` lists nothing");
                }
                let windows: Vec<_> = items.iter().map(|item| self.window(item)).collect();
                let windows: Option<Vec<_>> = windows.into_iter().collect();
                let week = joined(windows?.concat());
                (!week.is_empty()).then_some(TimeMatch {
                    week,
                    from: None,
                    until: None,
                })
            }
        }
    }

    /// Reads `mon-fri 08:00-12:00, 13:00-17:00`: days, hours, or both.
    fn window(&mut self, node: &Node) -> Option<Vec<(u32, u32)>> {
        let text = self.scalar(node, "`time`")?;
        let words = pieces(node.place, text);
        let hour = |(_, word): &(Place, &str)| word.starts_with(|c: char| c.is_ascii_digit());
        let first = words.iter().position(hour).unwrap_or(words.len());
        let (days, hours) = words.split_at(first);
        if let Some((place, _)) = hours.iter().find(|word| !hour(word)) {
            self.sink.error(*place, "days stand before hours").help(
                "for other hours on other days write a list: [mon 08:00-12:00, tue 13:00-17:00]",
            );
            return None;
        }
        if words.is_empty() {
            self.sink.error(node.place, "`time` says nothing");
            return None;
        }
        let days = match days {
            [] => Some(ALL_DAYS),
            days => self.days(days),
        };
        let hours = match hours {
            [] => Some(vec![(0, DAY)]),
            hours => self.hours(hours),
        };
        Some(week(days?, &hours?))
    }

    /// The words of a value or a list of values.
    fn words<'n>(&mut self, node: &'n Node, key: &str) -> Option<Vec<(Place, &'n str)>> {
        let items = match &node.kind {
            Kind::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let mut words = Vec::new();
        for item in items {
            let text = self.scalar(item, &format!("`{key}`"))?;
            words.extend(pieces(item.place, text));
        }
        Some(words)
    }

    /// Reads days and ranges of days, as bits.
    fn days(&mut self, words: &[(Place, &str)]) -> Option<u8> {
        let each: Vec<_> = words
            .iter()
            .map(|(place, word)| {
                let (first, last) = match word.split_once('-') {
                    Some((first, last)) => (self.day(*place, first), self.day(*place, last)),
                    None => {
                        let day = self.day(*place, word);
                        (day, day)
                    }
                };
                let (mut day, last) = (first?, last?);
                let mut bits = 1u8 << day;
                // `sat-mon` goes over the end of the week
                while day != last {
                    day = (day + 1) % 7;
                    bits |= 1 << day;
                }
                Some(bits)
            })
            .collect();
        each.into_iter().try_fold(0, |all, bits| Some(all | bits?))
    }

    fn day(&mut self, place: Place, word: &str) -> Option<u8> {
        let lower = word.to_ascii_lowercase();
        let found = DAYS.iter().find(|(name, _)| *name == lower);
        if word.starts_with('!') {
            self.sink
                .error(place, "`time` cannot be negated")
                .help("name the other days and hours");
        } else if found.is_none() {
            let names = DAYS.iter().map(|(name, _)| *name);
            self.sink
                .error(place, format!("unknown day `{word}`"))
                .help("write mon, tue, wed, thu, fri, sat, sun or a range of them")
                .suggest(&lower, names);
        }
        found.map(|(_, day)| *day)
    }

    /// Reads windows of a day.
    fn hours(&mut self, words: &[(Place, &str)]) -> Option<Vec<(u32, u32)>> {
        let each: Vec<_> = words
            .iter()
            .map(|(place, word)| {
                let Some((begin, end)) = word.split_once('-') else {
                    self.sink
                        .error(*place, format!("`{word}` is not a window of time"))
                        .help("write its begin and its end: 08:00-18:00");
                    return None;
                };
                let (begin, end) = (self.hour(*place, begin), self.hour(*place, end));
                let (begin, end) = (begin?, end?);
                if begin == end || begin == DAY {
                    self.sink
                        .error(*place, format!("`{word}` ends where it begins"))
                        .help("the whole day is 00:00-24:00");
                    return None;
                }
                Some((begin, end))
            })
            .collect();
        each.into_iter().collect()
    }

    /// Reads a time of day, as seconds.
    fn hour(&mut self, place: Place, word: &str) -> Option<u32> {
        let found = seconds_of_day(word);
        if found.is_none() {
            self.sink
                .error(place, format!("`{word}` is not a time of day"))
                .help("write 08:00 or 08:00:30, from 00:00 to 24:00");
        }
        found
    }

    /// Reads a date, with a time of day or without: then the begin of the day, or its end if `late`.
    fn date(&mut self, place: Place, text: &str, late: bool, zone: &TimeZone) -> Option<u64> {
        let (day, hour) = match text.split_once([' ', 'T']) {
            Some((day, hour)) => (day, Some(hour.trim())),
            None => (text, None),
        };
        let Some(day) = calendar::date(day) else {
            self.sink
                .error(place, format!("`{day}` is not a date from 1970 to 2099"))
                .help("write 2027-01-15 or \"2027-01-15 12:00\"");
            return None;
        };
        let second = match hour {
            Some(hour) => self.hour(place, hour)?,
            None if late => DAY,
            None => 0,
        };
        unix(zone, moment(day, second)?)
    }
}

/// The second `second` of `day`; the last is the first of the next day.
fn moment(day: Date, second: u32) -> Option<DateTime> {
    if second == DAY {
        return Some(day.tomorrow().ok()?.at(0, 0, 0, 0));
    }
    let part = |of: u32, most: u32| (second / of % most) as i8;
    Some(day.at(part(3600, 24), part(60, 60), part(1, 60), 0))
}

/// The words between commas and spaces of a value at `place`.
fn pieces(place: Place, text: &str) -> Vec<(Place, &str)> {
    let words = text.split(|c: char| c == ',' || c.is_whitespace());
    words
        .filter(|word| !word.is_empty())
        .map(|word| (place, word))
        .collect()
}
