//! Rates and examples.

use super::{DropRow, rate};
use crate::base::time::Now;
use crate::control::testbed::{Bed, wait};

fn row(bed: &Bed, reason: &str) -> DropRow {
    let rows = bed.appliance.drops();
    rows.into_iter().find(|row| row.reason == reason).unwrap()
}

#[test]
fn a_rate_is_of_some_time() {
    assert_eq!(rate(5, 1_000_000), 0.0);
    assert_eq!(rate(5, 2_000_000_000), 2.5);
    assert_eq!(rate(1, 3_000_000_000), 0.3);
}

#[test]
fn drops_are_shown_with_their_rate_and_the_last_packet() {
    let bed = Bed::new(2);
    let before = row(&bed, "policy");
    assert_eq!(
        (before.count, before.per_second, before.last),
        (0, 0.0, None)
    );
    let now = bed.appliance.shared().clock.now().nanos();
    let ago = Now::from_nanos(now.saturating_sub(1_000_000_000).max(1));
    bed.appliance.look_at_drops(ago);
    for host in 1..=20 {
        bed.answer(host, 53, 0);
    }
    wait(|| row(&bed, "policy").last.is_some());
    let after = row(&bed, "policy");
    assert_eq!(after.count, 20);
    let seconds = (bed.appliance.shared().clock.now().nanos() - ago.nanos()) as f64 / 1e9;
    assert!(after.per_second >= 20.0 / seconds - 0.1, "{after:?}");
    let last = after.last.unwrap();
    assert_eq!(last.rule.as_deref(), Some("forward/policy"));
    assert_eq!(
        (last.port.as_str(), last.state.as_deref()),
        ("wan", Some("new"))
    );
    assert!(!last.leaving && last.invalid.is_none());
    let tuple = "udp 10.9.0.1:53 > 10.0.0.";
    assert!(last.packet.starts_with(tuple), "{}", last.packet);
    let age = crate::dataplane::clock::unix_time() - last.time_ns as f64 / 1e9;
    assert!((0.0..60.0).contains(&age), "{age}");
    // Looks that are six seconds old are forgotten.
    for _ in 0..10 {
        bed.appliance
            .look_at_drops(bed.appliance.shared().clock.now());
    }
    assert_eq!(row(&bed, "policy").per_second, 0.0);
    assert!(row(&bed, "policy").last.is_some(), "the last one stays");
}
