//! Reads `meta hour` and `meta day`.
//!
//! nft writes them in the local time of the box that it runs on, and the kernel compares them in
//! UTC; a window that goes over midnight it writes as all but the rest of the day (seen of nftables
//! 1.0.6, `--debug=netlink`).
//!
//! Life-cycle and concurrency: as [`super`].

use super::expr::Read;
use super::rule::Reader;
use crate::policy::calendar::DAY;
use crate::policy::import::rules::Why;
use crate::policy::import::times::{day, other_days, second};
use crate::policy::names::parse_number;

const LAST: u32 = DAY - 1;

impl Reader<'_, '_> {
    pub(super) fn hours(&mut self) -> Read {
        let (negated, texts) = self.points("hour")?;
        let mut windows = Vec::new();
        for text in &texts {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            windows.push((second(first)?, second(last)?));
        }
        windows.sort_unstable();
        if let [(first, last)] = windows[..]
            && first > last
        {
            if negated {
                return Err("all but a window over midnight".into());
            }
            // all but what lies between: the ends are not part of it
            return self.times.hours(&others(&[(last, first)]));
        }
        if windows.iter().any(|(first, last)| first > last) {
            return Err("a list with a window over midnight".into());
        }
        if negated {
            windows = others(&windows);
        }
        if windows.is_empty() {
            return Err(Why::Never("it never matches: there is no such time".into()));
        }
        self.times.hours(&windows)
    }

    pub(super) fn days(&mut self) -> Read {
        let (negated, texts) = self.points("day")?;
        let mut days = 0;
        for text in &texts {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(format!("`{text}` is not a range of days").into());
            }
            // the kernel's week begins with Sunday
            days |= (first..=last).fold(0, |days, day| days | 1 << ((day + 6) % 7));
        }
        self.times
            .days(if negated { other_days(days) } else { days })
    }

    /// Values and ranges, and whether they are excluded.
    fn points(&mut self, key: &str) -> Read<(bool, Vec<String>)> {
        if self.words.peek("vmap") {
            return Err(format!("a map by `meta {key}`").into());
        }
        if ["<", "<=", ">", ">="]
            .iter()
            .any(|sign| self.words.peek(sign))
        {
            return Err(format!("`meta {key}` is compared as a number, in UTC").into());
        }
        let negated = self.words.take("!=");
        self.words.take("==");
        Ok((negated, self.plain()?))
    }
}

/// The number of a day, Sunday first.
fn number(text: &str) -> Read<u8> {
    if let Some(number) = parse_number(text) {
        let number = u8::try_from(number).ok().filter(|day| *day < 7);
        return number.ok_or_else(|| format!("`{text}` is not a day").into());
    }
    let monday_first = day(text)?.trailing_zeros() as u8;
    Ok((monday_first + 1) % 7)
}

/// The rest of the day, of windows with both ends in order.
fn others(windows: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let (mut next, mut rest) = (0, Vec::new());
    for (first, last) in windows {
        if *first > next {
            rest.push((next, first - 1));
        }
        next = next.max(last + 1);
    }
    if next <= LAST {
        rest.push((next, LAST));
    }
    rest
}
