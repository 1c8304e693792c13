//! `time`: windows of the day and the week, dates, changes of the clocks.

use super::*;
use crate::policy::calendar::unix;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// A policy for Berlin with one rule, which takes what comes in `time`.
fn windows(time: &str) -> Compiled {
    policy(&format!(
        "system: {{ time-zone: Europe/Berlin }}
chains: {{ forward: {{ rules: [ {{ name: it, time: {time}, action: accept }} ] }} }}
"
    ))
}

/// Whether a packet at `utc` is in time.
fn open(policy: &Compiled, utc: &str) -> bool {
    let utc: DateTime = utc.parse().unwrap();
    let now = Now::from_secs(unix(&TimeZone::UTC, utc).unwrap());
    let packet = udp(1, 2);
    let facts = Facts {
        now,
        ..facts(&packet)
    };
    policy.rule_name(policy.forward(0, &facts).rule) == "forward/it"
}

#[test]
fn hours_of_the_box_on_its_days() {
    let office = windows("\"mon-fri 08:00-18:00\"");
    // 2026-11-20 is a Friday; Berlin is an hour ahead.
    for (utc, expected) in [
        ("2026-11-20 06:59:59", false),
        ("2026-11-20 07:00:00", true),
        ("2026-11-20 16:59:59", true),
        ("2026-11-20 17:00:00", false),
        ("2026-11-21 09:00:00", false),
        ("2026-11-22 23:30:00", false), // Monday in Berlin, 00:30
        ("2026-11-23 07:00:00", true),
        // In summer, two hours.
        ("2027-07-02 06:00:00", true),
        ("2027-07-02 05:59:59", false),
        ("2027-07-02 16:00:00", false),
    ] {
        assert_eq!(open(&office, utc), expected, "{utc}");
    }
}

#[test]
fn a_window_over_midnight_belongs_to_the_day_that_it_begins_on() {
    let night = windows("\"fri 22:00-06:00\"");
    for (utc, expected) in [
        ("2026-11-20 03:00:00", false), // Friday's early morning is Thursday's night
        ("2026-11-20 20:59:59", false),
        ("2026-11-20 21:00:00", true),
        ("2026-11-20 23:00:00", true), // midnight
        ("2026-11-21 04:59:59", true),
        ("2026-11-21 05:00:00", false),
        ("2026-11-21 22:00:00", false),
    ] {
        assert_eq!(open(&night, utc), expected, "{utc}");
    }
    // From Sunday into Monday, which is where weeks begin.
    let night = windows("\"sun 22:00-06:00\"");
    assert!(open(&night, "2026-11-22 22:59:59") && open(&night, "2026-11-23 04:59:59"));
    assert!(!open(&night, "2026-11-22 04:00:00") && !open(&night, "2026-11-23 05:00:00"));
    // A leap day has its night as well.
    let leap = windows("{ hours: 23:00-01:00, from: 2028-02-29, until: 2028-02-29 }");
    assert!(!open(&leap, "2028-02-28 22:59:59") && open(&leap, "2028-02-28 23:00:00"));
    assert!(open(&leap, "2028-02-29 22:30:00") && !open(&leap, "2028-02-29 23:00:00"));
}

/// In spring the hour from 2 to 3 is not there, in autumn it comes twice.
#[test]
fn changes_of_the_clocks() {
    let early = windows("02:00-02:30");
    assert!(open(&early, "2027-03-27 01:15:00") && open(&early, "2027-03-29 00:15:00"));
    let day = |day: &str| {
        let open = |minute: &u32| {
            let (hour, minute) = (minute / 60, minute % 60);
            open(&early, &format!("2027-{day} {hour:02}:{minute:02}:00"))
        };
        (0..180).filter(open).collect::<Vec<_>>()
    };
    assert_eq!(day("03-28"), [0; 0]);
    let twice = [0..30, 60..90].into_iter().flatten();
    assert_eq!(day("10-31"), twice.collect::<Vec<u32>>());
    // Over the gap a window loses an hour; where it ends in the gap, it ends at the gap.
    let over = windows("01:00-04:00");
    assert!(open(&over, "2027-03-28 00:00:00") && open(&over, "2027-03-28 01:59:59"));
    assert!(!open(&over, "2027-03-28 02:00:00"));
    let into = windows("01:00-02:30");
    assert!(open(&into, "2027-03-28 00:59:59") && !open(&into, "2027-03-28 01:00:00"));
}

#[test]
fn dates_bound_what_hours_repeat() {
    let sale = windows("{ from: 2026-12-01, until: \"2027-01-15 12:00\", days: [tue, fri] }");
    for (utc, expected) in [
        ("2026-11-27 12:00:00", false),
        ("2026-11-30 22:59:59", false),
        ("2026-11-30 23:00:00", true), // Tuesday, 1 December
        ("2026-12-02 12:00:00", false),
        ("2026-12-04 12:00:00", true),
        ("2027-01-15 10:59:59", true),
        ("2027-01-15 11:00:00", false),
        ("2027-01-19 11:00:00", false),
    ] {
        assert_eq!(open(&sale, utc), expected, "{utc}");
    }
}

/// The appliance counts from its start; a step of the wall clock moves the epoch, and the policy
/// after it has the same one.
#[test]
fn the_epoch_makes_dates_of_times_and_outlives_a_reload() {
    let policy = windows("08:00-18:00");
    let packet = udp(1, 2);
    let open = |policy: &Compiled| {
        let decision = policy.forward(0, &facts(&packet)); // 1000 seconds after the epoch
        policy.rule_name(decision.rule) == "forward/it"
    };
    let at = |utc: &str| unix(&TimeZone::UTC, utc.parse().unwrap()).unwrap() - 1000;
    assert!(!open(&policy));
    policy
        .epoch()
        .set(at("2026-11-20 07:00:00") * 1_000_000_000);
    assert!(open(&policy));
    let mut next = windows("08:00-18:00");
    assert!(!open(&next));
    next.follow(&policy).unwrap();
    assert!(open(&next));
    policy
        .epoch()
        .set(at("2026-11-20 06:59:00") * 1_000_000_000);
    assert!(!open(&policy) && !open(&next));
}

#[test]
fn time_stands_with_other_matches_and_in_raw() {
    let policy = policy(
        "system: { time-zone: UTC }
raw: [{ time: 00:00-00:20, proto: udp, action: notrack }]
chains:
  forward:
    rules:
      - { name: some, proto: udp, dport: 2, time: 00:00-01:00, limit: 1/day burst 1, action: accept }
      - { name: rest, time: \"thu\", action: accept }
",
    );
    let packet = udp(1, 2);
    let rule = |secs| {
        let facts = Facts {
            now: Now::from_secs(secs),
            ..facts(&packet)
        };
        policy.rule_name(policy.forward(0, &facts).rule).to_owned()
    };
    // 1970 began on a Thursday.
    assert_eq!(rule(3600), "forward/rest");
    assert_eq!(rule(3599), "forward/some");
    assert_eq!(rule(3599), "forward/rest");
    assert_eq!(rule(86_400), "forward/policy");
    let raw = |secs| {
        let facts = Facts {
            now: Now::from_secs(secs),
            ..facts(&packet)
        };
        policy.raw(0, &facts)
    };
    assert_eq!(
        (raw(1199), raw(1200)),
        (RawVerdict::Notrack, RawVerdict::Track)
    );
}
