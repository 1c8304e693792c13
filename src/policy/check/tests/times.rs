//! `time` and `time-zone`: what is read, and every mistake with its place.

use super::*;
use crate::policy::TimeMatch;
use crate::policy::calendar::{DAY, WEEK};

fn read(time: &str) -> TimeMatch {
    let text = format!(
        "{HEAD}system: {{ time-zone: Europe/Berlin }}\nchains:\n  forward:\n    rules:\n      - {{ time: \
         {time}, action: accept }}\n"
    );
    let model = check("x", &text)
        .unwrap_or_else(|errors| panic!("{errors}"))
        .model;
    assert_eq!(model.system.time_zone.as_deref(), Some("Europe/Berlin"));
    model.chains[0].rules[0].matches.time.clone().unwrap()
}

/// As `mon 08:00-18:00`, for those that are in order.
fn weeks(windows: &[(u32, u32, u32)]) -> Vec<(u32, u32)> {
    let window = |(day, begin, end)| (day * DAY + begin * 3600, day * DAY + end * 3600);
    windows.iter().copied().map(window).collect()
}

#[test]
fn windows_are_read_in_short_and_at_length() {
    for (time, expected) in [
        (
            "08:00-18:00",
            weeks(&[0, 1, 2, 3, 4, 5, 6].map(|d| (d, 8, 18))),
        ),
        (
            "\"mon-fri 08:00-18:00\"",
            weeks(&[0, 1, 2, 3, 4].map(|d| (d, 8, 18))),
        ),
        (
            "{ days: [Mon, tue-wed], hours: [08:00-12:00, 13:00-17:00] }",
            weeks(&[
                (0, 8, 12),
                (0, 13, 17),
                (1, 8, 12),
                (1, 13, 17),
                (2, 8, 12),
                (2, 13, 17),
            ]),
        ),
        (
            "[\"mon 08:00-12:00, 13:00-14:00\", saturday]",
            weeks(&[(0, 8, 12), (0, 13, 14), (5, 0, 24)]),
        ),
        ("sat-mon", weeks(&[(0, 0, 24), (5, 0, 48)])),
        (
            "{ hours: 22:00-06:00, days: sun }",
            weeks(&[(0, 0, 6), (6, 22, 24)]),
        ),
        ("{ days: fri, hours: 22:00-06:00 }", weeks(&[(4, 22, 30)])),
        ("\"mon,wed\"", weeks(&[(0, 0, 24), (2, 0, 24)])),
        ("fri-thu", vec![(0, WEEK)]),
        ("{ days: sun, hours: 18:00-24:00 }", weeks(&[(6, 18, 24)])),
    ] {
        let time = read(time);
        assert_eq!((time.from, time.until), (None, None));
        assert_eq!(time.week, expected, "{time:?}");
    }
}

/// Winter is an hour ahead of UTC, summer two.
#[test]
fn dates_are_local_and_an_end_includes_its_day() {
    let at = |days: u64, secs: u64| Some(days * 86_400 + secs);
    let december = 20_788; // 2026-12-01
    for (time, from, until) in [
        (
            "{ from: 2026-12-01 }",
            at(december, 0).map(|t| t - 3600),
            None,
        ),
        (
            "{ until: 2026-12-01 }",
            None,
            at(december + 1, 0).map(|t| t - 3600),
        ),
        (
            "{ from: \"2026-12-01 24:00\", until: \"2027-07-01 12:00:30\" }",
            at(december + 1, 0).map(|t| t - 3600),
            at(december + 212, 10 * 3600 + 30),
        ),
        (
            "{ from: 2026-12-01T08:30 }",
            at(december, 7 * 3600 + 1800),
            None,
        ),
    ] {
        let read = read(time);
        assert_eq!((read.from, read.until), (from, until), "{time}");
        assert_eq!(read.week, []);
    }
}

#[test]
fn mistakes_about_time() {
    for (time, expected) in [
        ("\"mon-fir 08:00-18:00\"", "9:17 21 unknown day `fir`"),
        ("\"08:00-25:00\"", "9:17 13 `25:00` is not a time of day"),
        ("\"08:00-18:60\"", "9:17 13 `18:60` is not a time of day"),
        ("08:00", "9:17 5 `08:00` is not a window of time"),
        ("\"08:00-18\"", "9:17 10 `18` is not a time of day"),
        ("08:00-08:00", "9:17 11 `08:00-08:00` ends where it begins"),
        ("24:00-06:00", "9:17 11 `24:00-06:00` ends where it begins"),
        ("\"!mon\"", "9:17 6 `time` cannot be negated"),
        (
            "\"mon 08:00-09:00, tue\"",
            "9:17 22 days stand before hours",
        ),
        ("\"\"", "9:17 2 `time` says nothing"),
        ("[]", "9:17 1 `time` lists nothing"),
        ("{}", "9:17 1 `time` says nothing"),
        ("{ days: [] }", "9:25 1 `days` lists nothing"),
        ("{ hours: [mon] }", "9:27 3 `mon` is not a window of time"),
        (
            "{ from: 2026-02-30 }",
            "9:25 10 `2026-02-30` is not a date from 1970 to 2099",
        ),
        (
            "{ from: 01.12.2026 }",
            "9:25 10 `01.12.2026` is not a date from 1970 to 2099",
        ),
        (
            "{ until: 2126-01-01 }",
            "9:26 10 `2126-01-01` is not a date from 1970 to 2099",
        ),
        (
            "{ until: \"2026-01-01 25:00\" }",
            "9:26 18 `25:00` is not a time of day",
        ),
        (
            "{ from: 2026-12-02, until: 2026-12-01 }",
            "9:44 10 `until` is not behind `from`, so never matches",
        ),
        (
            "{ date: 2026-12-02 }",
            "9:19 4 unknown key `date` in `time`",
        ),
    ] {
        let text = format!(
            "{HEAD}system: {{ time-zone: UTC }}\nchains:\n  forward:\n    rules:\n      - {{ time: {time}, action: drop }}\n"
        );

        assert_eq!(found(&text), [expected], "{time}");
    }
    let said = |zone: &str, time: &str| {
        let text = format!(
            "{HEAD}system: {{ time-zone: {zone} }}\nchains: {{ forward: {{ rules: [{{ time: \"{time}\", \
             action: drop }}] }} }}\n"
        );
        check("x", &text).unwrap_err().to_string()
    };
    assert!(said("UTC", "mno 08:00-18:00").contains("did you mean `mon`?"));
    assert!(said("UTC", "wedensday").contains("did you mean `wednesday`?"));
    assert!(said("UTC", "25:00-26:00").contains("from 00:00 to 24:00"));
    let zone = said("Europe/Berln", "mon");
    assert!(zone.contains("did you mean `Europe/Berlin`?"), "{zone}");
    assert_eq!(zone.matches("unknown time zone").count(), 1);
}
