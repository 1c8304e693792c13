//! The time of day, the day of the week and the date, for `time`: whole seconds, compared as
//! integers. The time zone is laid out beforehand, as the list of its changes of offset from 1970 to
//! 2100; nothing here knows the database.
//!
//! Life-cycle: a [`Calendar`] is made when a policy with `time` is read, and shared by the compiled
//! one. Concurrency: plain values.

use jiff::Timestamp;
use jiff::civil::DateTime;
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
        let unix = unix as i64;
        let at = self.offsets.partition_point(|(from, _)| *from <= unix);
        let offset = at.checked_sub(1).and_then(|at| self.offsets.get(at));
        let offset = offset.map_or(0, |(_, offset)| i64::from(*offset));
        let local = unix.wrapping_add(offset + FIRST_DAY * i64::from(DAY));
        local.rem_euclid(WEEK.into()) as u32
    }
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
}
