//! Times of the day, days of the week and dates, as both front ends read them, in the policy's words.
//!
//! Both kernels' windows hold their last second, and a policy's do not: `08:00-18:00` becomes
//! `08:00-18:00:01`.
//!
//! Life-cycle and concurrency: as [`super`].

use super::rules::Why;
use crate::policy::calendar::{DAY, date, seconds_of_day};

/// Days, Monday first.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// A bit for each day.
const ALL_DAYS: u8 = 0x7f;

/// When a rule matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Times {
    /// A bit each, Monday first; every day if `None`.
    days: Option<u8>,
    /// From a second of the day to before another, which is earlier for a window that begins on one
    /// day and ends on the next; at any time if `None`.
    hours: Option<Vec<(u32, u32)>>,
    /// From this moment on.
    from: Option<String>,
    /// Before this one.
    until: Option<String>,
}

impl Times {
    /// Adds days that match.
    pub(super) fn days(&mut self, days: u8) -> Result<(), Why> {
        let days = self.days.unwrap_or(ALL_DAYS) & days;
        if days == 0 {
            return Err(Why::Never("it never matches: there is no such day".into()));
        }
        self.days = Some(days);
        Ok(())
    }

    /// Adds windows of the day, `first` to `last` with both ends; `first` behind `last` is a window
    /// over midnight.
    pub(super) fn hours(&mut self, windows: &[(u32, u32)]) -> Result<(), Why> {
        if self.hours.is_some() {
            return Err("two different matches on the time of the day".into());
        }
        self.hours = Some(windows.iter().map(|(a, b)| (*a, b + 1)).collect());
        Ok(())
    }

    pub(super) fn from(&mut self, text: &str) -> Result<(), Why> {
        self.from = Some(moment(text)?.0);
        Ok(())
    }

    pub(super) fn until(&mut self, text: &str) -> Result<(), Why> {
        self.until = Some(moment(text)?.1);
        Ok(())
    }

    /// The value of `time`; `None` for always.
    pub(super) fn value(&self) -> Option<String> {
        let days = self.days.filter(|days| *days != ALL_DAYS).map(day_words);
        let hours: Option<Vec<_>> = self.hours.as_ref().map(|hours| {
            let hours = hours
                .iter()
                .map(|(a, b)| format!("{}-{}", hour(*a), hour(*b)));
            hours.collect()
        });
        if self.from.is_none() && self.until.is_none() {
            let hours = hours.map(|hours| hours.join(", "));
            return match (days, hours) {
                (Some(days), Some(hours)) => Some(format!("{days} {hours}")),
                (days, hours) => days.or(hours),
            };
        }
        let list = |key: &str, words: &str| format!("{key}: [{words}]");
        let days = days.map(|days| list("days", &days.replace(',', ", ")));
        let hours = hours.map(|hours| list("hours", &format!("\"{}\"", hours.join("\", \""))));
        let moment = |key: &str, text: &Option<String>| {
            text.as_ref().map(|text| format!("{key}: \"{text}\""))
        };
        let ends = [moment("from", &self.from), moment("until", &self.until)];
        let parts: Vec<_> = [days, hours].into_iter().chain(ends).flatten().collect();
        Some(format!("{{ {} }}", parts.join(", ")))
    }
}

/// Names of days between commas, with ranges of three and more.
fn day_words(days: u8) -> String {
    let mut words = Vec::new();
    let mut day = 0;
    while day < 7 {
        let run = (day..7).take_while(|day| days >> day & 1 == 1).count();
        match run {
            0 => {}
            1 | 2 => words.extend(DAYS[day..day + run].iter().map(|day| (*day).to_owned())),
            _ => words.push(format!("{}-{}", DAYS[day], DAYS[day + run - 1])),
        }
        day += run.max(1);
    }
    words.join(",")
}

fn hour(second: u32) -> String {
    let (hours, minutes, seconds) = (second / 3600, second / 60 % 60, second % 60);
    match seconds {
        0 => format!("{hours:02}:{minutes:02}"),
        _ => format!("{hours:02}:{minutes:02}:{seconds:02}"),
    }
}

/// Reads a time of the day, whose last second is 23:59:59.
pub(super) fn second(text: &str) -> Result<u32, Why> {
    let found = seconds_of_day(text).filter(|second| *second < DAY);
    found.ok_or_else(|| format!("`{text}` is not a time of the day").into())
}

/// The bit of a day by its name, or by the beginning of it; Monday first.
pub(super) fn day(text: &str) -> Result<u8, Why> {
    let lower = text.to_ascii_lowercase();
    let found = DAYS
        .iter()
        .position(|day| lower.starts_with(day) && lower.chars().all(|c| c.is_ascii_alphabetic()));
    let found = found.ok_or_else(|| Why::from(format!("`{text}` is not a day")))?;
    Ok(1 << found)
}

/// The complement of days.
pub(super) fn other_days(days: u8) -> u8 {
    ALL_DAYS & !days
}

/// Reads `2026-12-01T00:00:00`, of which what follows the year may be missing: the moment, and that
/// of the second behind it.
fn moment(text: &str) -> Result<(String, String), Why> {
    let wrong = || Why::from(format!("`{text}` is not a date from 1970 to 2099"));
    let (day, time) = text.split_once('T').unwrap_or((text, "00:00"));
    let day = match day.matches('-').count() {
        0 => format!("{day}-01-01"),
        1 => format!("{day}-01"),
        _ => day.to_owned(),
    };
    // an hour alone is possible, too
    let time = if time.contains(':') {
        time.to_owned()
    } else {
        format!("{time}:00")
    };
    let day = date(&day).ok_or_else(wrong)?;
    let second = second(&time).map_err(|_| wrong())?;
    let next = match second + 1 {
        DAY => (day.tomorrow().map_err(|_| wrong())?, 0),
        next => (day, next),
    };
    let said = |(day, second)| format!("{day} {}", hour(second));
    Ok((said((day, second)), said(next)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_written_as_people_would() {
        let mut times = Times::default();
        assert_eq!(times.value(), None);
        times.days(0b001_1111).unwrap();
        assert_eq!(times.value().unwrap(), "mon-fri");
        times
            .hours(&[(8 * 3600, 18 * 3600), (20 * 3600, DAY - 1)])
            .unwrap();
        assert_eq!(
            times.value().unwrap(),
            "mon-fri 08:00-18:00:01, 20:00-24:00"
        );
        times.days(0b100_0011).unwrap();
        assert!(times.hours(&[(0, 1)]).is_err());
        times.from("2026-12").unwrap();
        times.until("2026-12-31T23:59:59").unwrap();
        assert_eq!(
            times.value().unwrap(),
            "{ days: [mon, tue], hours: [\"08:00-18:00:01\", \"20:00-24:00\"], \
             from: \"2026-12-01 00:00\", until: \"2027-01-01 00:00\" }"
        );
        assert!(times.days(0b100_0000).is_err());
        assert_eq!(day_words(0b110_1110), "tue-thu,sat,sun");
        assert_eq!(day("Wednesday").unwrap(), 4);
        assert!(day("we").is_err() && day("").is_err() && day("1").is_err());
        assert!(moment("2026-02-30").is_err() && moment("2026-12-01T24:00").is_err());
        assert_eq!(moment("2026-12-01T08").unwrap().1, "2026-12-01 08:00:01");
    }
}
