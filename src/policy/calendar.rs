//! The time of day, the day of the week and the date, for `time`: whole seconds, compared as
//! integers. The time zone is laid out beforehand, as the list of its changes of offset from 1970 to
//! 2100; nothing here knows the database.
//!
//! Life-cycle: a [`Calendar`] is made when a policy with `time` is read, and shared by the compiled
//! one. Concurrency: plain values.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

/// Seconds of a day.
pub(super) const DAY: u32 = 86_400;
/// Seconds of a week.
pub(super) const WEEK: u32 = 7 * DAY;
/// 1970-01-01 was a Thursday, and weeks begin with Monday.
const FIRST_DAY: i64 = 3;
/// 2100-01-01. Behind it the last offset stays.
const END: i64 = 4_102_444_800;

/// The offsets of a time zone from UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    /// Seconds since 1970 from which an offset, in seconds east, holds; ascending, the first since
    /// always.
    offsets: Box<[(i64, i32)]>,
}

impl Default for Calendar {
    /// UTC.
    fn default() -> Self {
        let offsets = [(i64::MIN, 0)].into();
        Self { offsets }
    }
}

impl Calendar {
    pub(super) fn new(zone: &TimeZone) -> Self {
        let start = Timestamp::UNIX_EPOCH;
        let mut offsets = vec![(i64::MIN, zone.to_offset(start).seconds())];
        let changes = zone
            .following(start)
            .map(|change| (change.timestamp().as_second(), change.offset().seconds()))
            .take_while(|(at, _)| *at < END);
        for (at, offset) in changes {
            if offsets.last().is_some_and(|(_, last)| *last != offset) {
                offsets.push((at, offset));
            }
        }
        let offsets = offsets.into_boxed_slice();
        Self { offsets }
    }

    /// The second of the week, in local time, `unix` seconds after 1970.
    #[inline]
    pub(super) fn second_of_week(&self, unix: u64) -> u32 {
        let local = self.local(unix).wrapping_add(FIRST_DAY * i64::from(DAY));
        local.rem_euclid(WEEK.into()) as u32
    }

    /// Seconds since 1970-01-01 00:00 of local time, `unix` seconds after 1970.
    #[inline]
    fn local(&self, unix: u64) -> i64 {
        let unix = unix as i64;
        let at = self.offsets.partition_point(|(from, _)| *from <= unix);
        let offset = at.checked_sub(1).and_then(|at| self.offsets.get(at));
        unix.wrapping_add(offset.map_or(0, |(_, offset)| i64::from(*offset)))
    }

    /// The reverse; of times that clocks skip, or show twice, as [`unix`].
    fn unix(&self, local: i64) -> i64 {
        let mut before = 0;
        for (at, (from, offset)) in self.offsets.iter().enumerate() {
            let unix = local - i64::from(*offset);
            let next = self.offsets.get(at + 1);
            if next.is_none_or(|(next, _)| unix < *next) {
                return if unix < *from { local - before } else { unix };
            }
            before = i64::from(*offset);
        }
        local
    }
}

/// A moment on the clock on the wall: a day and a time of day, or only one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LocalTime {
    day: Option<Date>,
    second: u32,
}

impl LocalTime {
    /// Reads `2026-11-20 08:00`, `2026-11-20` (its begin) or `08:00` (today).
    pub(super) fn read(text: &str) -> Option<Self> {
        if let Some(second) = seconds_of_day(text) {
            return Some(Self { day: None, second });
        }
        let (day, hour) = match text.split_once([' ', 'T']) {
            Some((day, hour)) => (day, hour.trim()),
            None => (text, "00:00"),
        };
        let (day, second) = (Some(date(day)?), seconds_of_day(hour)?);
        Some(Self { day, second })
    }

    /// What the clock shows `unix` seconds after 1970.
    pub(super) fn of(unix: u64, calendar: &Calendar) -> Self {
        let local = calendar.local(unix);
        let moment = Timestamp::from_second(local).ok();
        Self {
            day: moment.map(|moment| TimeZone::UTC.to_datetime(moment).date()),
            second: local.rem_euclid(DAY.into()) as u32,
        }
    }

    /// Its seconds since 1970; a time without a day is on that of `present`.
    pub(super) fn unix(self, calendar: &Calendar, present: u64) -> u64 {
        let midnight = match self.day {
            Some(day) => TimeZone::UTC
                .to_timestamp(day.at(0, 0, 0, 0))
                .map_or(0, Timestamp::as_second),
            None => calendar.local(present).div_euclid(DAY.into()) * i64::from(DAY),
        };
        let unix = calendar.unix(midnight + i64::from(self.second));
        unix.try_into().unwrap_or(0)
    }
}

impl std::fmt::Display for LocalTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(day) = self.day {
            write!(f, "{day} ")?;
        }
        let (hour, minute) = (self.second / 3600, self.second / 60 % 60);
        write!(f, "{hour:02}:{minute:02}:{:02}", self.second % 60)
    }
}

/// Reads a date that a policy may name.
pub(super) fn date(text: &str) -> Option<Date> {
    let date = (text.len() == 10).then(|| text.parse::<Date>().ok());
    date.flatten()
        .filter(|day| (1970..2100).contains(&day.year()))
}

/// Reads `08:00` or `08:00:30`.
pub(super) fn seconds_of_day(word: &str) -> Option<u32> {
    let mut parts = word.split(':');
    let mut part = |most: u32| {
        let text = parts.next()?;
        let digits = matches!(text.len(), 1 | 2) && text.bytes().all(|b| b.is_ascii_digit());
        let number = digits.then(|| text.parse().ok()).flatten()?;
        (number <= most).then_some(number)
    };
    let (hour, minute): (u32, u32) = (part(24)?, part(59)?);
    let second = if word.matches(':').count() > 1 {
        part(59)?
    } else {
        0
    };
    let all = hour * 3600 + minute * 60 + second;
    (parts.next().is_none() && all <= DAY).then_some(all)
}

/// Seconds since 1970 of a date and time of day in `zone`. One that clocks skip is as much later as
/// they skip; of two the earlier is meant.
pub(super) fn unix(zone: &TimeZone, local: DateTime) -> Option<u64> {
    let timestamp = zone.to_timestamp(local).ok()?;
    timestamp.as_second().try_into().ok()
}

/// When a packet may come. All of it must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimeMatch {
    /// Windows of the week in local time, each from its first second to before its last; ascending,
    /// apart from each other. None for always.
    pub week: Vec<(u32, u32)>,
    /// From this second since 1970 on.
    pub from: Option<u64>,
    /// Before this one.
    pub until: Option<u64>,
}

impl TimeMatch {
    /// Whether `unix` seconds after 1970 is such a time in `calendar`.
    #[inline]
    pub(super) fn holds(&self, unix: u64, calendar: &Calendar) -> bool {
        self.from.is_none_or(|from| from <= unix)
            && self.until.is_none_or(|until| unix < until)
            && (self.week.is_empty() || self.is_in_week(calendar.second_of_week(unix)))
    }

    fn is_in_week(&self, second: u32) -> bool {
        let at = self.week.partition_point(|(begin, _)| *begin <= second);
        let window = at.checked_sub(1).and_then(|at| self.week.get(at));
        window.is_some_and(|(_, end)| second < *end)
    }
}

/// The windows `hours` (seconds of a day, the end before the begin where one goes over midnight) of
/// each day of `days` (a bit each, Monday first). A window belongs to the day that it begins on.
pub(super) fn week(days: u8, hours: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let mut all = Vec::new();
    for day in (0..7).filter(|day| days >> day & 1 == 1) {
        for (begin, end) in hours {
            let over = if end > begin { 0 } else { DAY };
            let (begin, end) = (day * DAY + begin, day * DAY + end + over);
            all.push((begin, end.min(WEEK)));
            if end > WEEK {
                all.push((0, end - WEEK));
            }
        }
    }
    all
}

/// The same windows, in order and joined where they meet.
pub(super) fn joined(mut windows: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    windows.sort_unstable();
    windows.dedup_by(|next, last| {
        let meet = next.0 <= last.1;
        if meet {
            last.1 = last.1.max(next.1);
        }
        meet
    });
    windows
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn times_of_day_are_read() {
        for (text, expected) in [
            ("00:00", Some(0)),
            ("8:05", Some(8 * 3600 + 300)),
            ("08:00:30", Some(8 * 3600 + 30)),
            ("24:00", Some(DAY)),
            ("24:01", None),
            ("25:00", None),
            ("08:60", None),
            ("08", None),
            ("08:", None),
            ("008:00", None),
            ("08:00:00:00", None),
            ("+8:00", None),
            ("", None),
        ] {
            assert_eq!(seconds_of_day(text), expected, "{text}");
        }
    }

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    /// Against the library itself, at every change of many zones and around it.
    #[test]
    fn local_time_is_that_of_the_database() {
        for name in [
            "UTC",
            "Europe/Berlin",
            "America/New_York",
            "America/St_Johns",
            "Australia/Lord_Howe",
            "Africa/Casablanca",
            "Asia/Kathmandu",
            "Pacific/Apia",
        ] {
            let zone = zone(name);
            let calendar = Calendar::new(&zone);
            let random = (0..2000).scan(7u64, |seed, _| {
                *seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                Some((*seed >> 33) as i64 * 2 % END)
            });
            let changes = calendar.offsets[1..].iter();
            let changes = changes.flat_map(|(at, _)| [at - 3601, at - 1, *at, at + 1, at + 3601]);
            for unix in changes.chain(random).filter(|unix| *unix >= 0) {
                let local = Timestamp::from_second(unix).unwrap().to_zoned(zone.clone());
                let day = local.weekday().to_monday_zero_offset() as u32;
                let time = local.time();
                let (hour, minute) = (time.hour() as u32, time.minute() as u32);
                let expected = day * DAY + hour * 3600 + minute * 60 + time.second() as u32;
                assert_eq!(
                    calendar.second_of_week(unix as u64),
                    expected,
                    "{name} {unix}"
                );
            }
        }
    }

    #[test]
    fn berlin_changes_twice_a_year_until_2100() {
        let calendar = Calendar::new(&zone("Europe/Berlin"));
        let last = calendar.offsets.last().unwrap();
        let autumn = unix(&TimeZone::UTC, date(2099, 10, 25).at(1, 0, 0, 0)).unwrap();
        assert_eq!(*last, (autumn as i64, 3600));
        assert!(calendar.offsets.len() < 300, "{}", calendar.offsets.len());
        assert_eq!(
            calendar.second_of_week(u64::MAX),
            calendar.second_of_week(WEEK as u64 - 1)
        );
        assert_eq!(Calendar::new(&TimeZone::UTC), Calendar::default());
    }

    #[test]
    fn a_window_belongs_to_the_day_that_it_begins_on() {
        const HOUR: u32 = 3600;
        let night = [(22 * HOUR, 6 * HOUR)];
        let saturday = 5 * DAY;
        // Friday's reaches into Saturday; Sunday's into Monday.
        let (from, to) = (saturday - 2 * HOUR, saturday + 6 * HOUR);
        assert_eq!(week(1 << 4, &night), [(from, to)]);
        let late = WEEK - 2 * HOUR;
        assert_eq!(joined(week(1 << 6, &night)), [(0, 6 * HOUR), (late, WEEK)]);
        let noon = [(0, 12 * HOUR), (12 * HOUR, DAY)];
        assert_eq!(joined(week(0x7f, &noon)), [(0, WEEK)]);
        let apart = [(9 * HOUR, 10 * HOUR), (8 * HOUR, 9 * HOUR - 1)];
        assert_eq!(joined(week(1, &apart)).len(), 2);
        let inside = [(8 * HOUR, 18 * HOUR), (9 * HOUR, 10 * HOUR)];
        assert_eq!(joined(week(1, &inside)), [(8 * HOUR, 18 * HOUR)]);
    }

    #[test]
    fn times_that_clocks_skip_or_show_twice() {
        let berlin = zone("Europe/Berlin");
        let utc = |hour, minute| {
            move |day: jiff::civil::Date| unix(&TimeZone::UTC, day.at(hour, minute, 0, 0))
        };
        let (spring, autumn) = (date(2027, 3, 28), date(2027, 10, 31));
        assert_eq!(unix(&berlin, spring.at(2, 30, 0, 0)), utc(1, 30)(spring));
        assert_eq!(unix(&berlin, spring.at(3, 30, 0, 0)), utc(1, 30)(spring));
        assert_eq!(unix(&berlin, autumn.at(2, 30, 0, 0)), utc(0, 30)(autumn));
        assert_eq!(unix(&berlin, autumn.at(3, 0, 0, 0)), utc(2, 0)(autumn));
    }

    /// The list of offsets gives what the database does, around every change too.
    #[test]
    fn a_moment_in_words_is_that_of_the_database() {
        for name in [
            "UTC",
            "Europe/Berlin",
            "Australia/Lord_Howe",
            "Pacific/Apia",
        ] {
            let zone = zone(name);
            let calendar = Calendar::new(&zone);
            let changes = calendar.offsets[1..].iter().map(|(at, _)| *at);
            let around = changes.flat_map(|at| (-8..8).map(move |half| at + half * 1800));
            for near in around.chain([1_800_000_000]).filter(|at| *at > WEEK as i64) {
                // a clock of the wall, whether or not it ever shows this
                let local = Timestamp::from_second(near).unwrap();
                let local = TimeZone::UTC.to_datetime(local);
                let text = local.to_string().replace('T', " ");
                let read = LocalTime::read(&text).unwrap_or_else(|| panic!("{text}"));
                let expected = unix(&zone, local).unwrap();
                assert_eq!(read.unix(&calendar, 0), expected, "{name} {text}");
                let shown = LocalTime::of(expected, &calendar);
                let again = LocalTime::read(&shown.to_string()).unwrap();
                assert_eq!(again.day, shown.day, "{name} {text}");
            }
        }
        let berlin = Calendar::new(&zone("Europe/Berlin"));
        let noon = LocalTime::read("2026-11-20 12:00").unwrap();
        let noon = noon.unix(&berlin, 0);
        assert_eq!(noon, 1_795_172_400);
        let today = |text| LocalTime::read(text).unwrap().unix(&berlin, noon);
        assert_eq!(today("08:00"), noon - 4 * 3600);
        assert_eq!(today("24:00"), noon + 12 * 3600);
        assert_eq!(today("2026-11-20"), noon - 12 * 3600);
        for text in [
            "",
            "8",
            "2026-11-20 25:00",
            "2026-13-20",
            "1969-01-01",
            "tomorrow",
        ] {
            assert_eq!(LocalTime::read(text), None, "{text}");
        }
        assert_eq!(
            LocalTime::of(noon, &berlin).to_string(),
            "2026-11-20 12:00:00"
        );
    }
}
