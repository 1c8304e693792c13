//! Reads the match `time` of iptables.
//!
//! Its times are in UTC, and its windows hold their last second. One that begins later than it ends
//! is what lies before its end and behind its begin on each of its days, or with `--contiguous` the
//! night that begins on such a day (Linux, xt_time).
//!
//! Life-cycle and concurrency: as [`super`].

use super::rule::{Read, Reader};
use crate::policy::calendar::DAY;
use crate::policy::import::rules::Why;
use crate::policy::import::times::{Times, day, other_days, second};
use crate::policy::names::parse_number;

const LAST: u32 = DAY - 1;

/// What a rule says about time, until all of it is read.
#[derive(Debug, Default)]
pub(super) struct Time {
    times: Times,
    start: Option<u32>,
    stop: Option<u32>,
    contiguous: bool,
}

impl Time {
    /// The value of `time`; `None` for always.
    pub(super) fn value(&mut self) -> Read<Option<String>> {
        let (start, stop) = (self.start.unwrap_or(0), self.stop.unwrap_or(LAST));
        if start == stop && self.contiguous {
            return Err("a window that ends where it begins".into());
        }
        if start > stop && !self.contiguous {
            self.times.hours(&[(0, stop), (start, LAST)])?;
        } else if start != stop && (start, stop) != (0, LAST) {
            self.times.hours(&[(start, stop)])?;
        }
        Ok(self.times.value())
    }
}

impl Reader<'_> {
    pub(super) fn time(&mut self, option: &str, negated: bool) -> Read<bool> {
        match option {
            "--timestart" if !negated => self.time.start = Some(second(self.value(option)?)?),
            "--timestop" if !negated => self.time.stop = Some(second(self.value(option)?)?),
            "--datestart" if !negated => {
                let text = self.value(option)?;
                self.time.times.from(text)?;
            }
            "--datestop" if !negated => {
                let text = self.value(option)?;
                self.time.times.until(text)?;
            }
            "--weekdays" => {
                let (negated, text) = self.negatable(option, negated)?;
                let each = text.split(',').map(weekday);
                let days = each.collect::<Read<Vec<u8>>>()?;
                let days = days.into_iter().fold(0, |all, day| all | day);
                let days = if negated { other_days(days) } else { days };
                self.time.times.days(days)?;
            }
            "--contiguous" if !negated => self.time.contiguous = true,
            "--utc" if !negated => {}
            "--kerneltz" | "--localtz" => {
                let why = "`--kerneltz` goes by an offset that does not follow daylight saving";
                return Err(why.into());
            }
            "--monthdays" => return Err("there are no days of the month here".into()),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// The bit of a day by its name or its number, 1 for Monday.
fn weekday(text: &str) -> Read<u8> {
    match parse_number(text) {
        Some(number @ 1..=7) => Ok(1 << (number - 1)),
        Some(_) => Err(Why::from(format!("`{text}` is not a day"))),
        None => day(text),
    }
}
