//! Reloads while packets are judged: a short form of what `cargo bench --bench rig -- --reloads`
//! measures on real ports.

use super::*;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Says stop when it goes, however that comes.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Policy number 0 or 1 of two whose mixture would show: the first rule marks, everything that passes
/// is counted as the policy's own, and what carries the other's mark is counted and dropped.
fn marked(own: usize) -> String {
    let ((mine, other), mark) = ([("a", "b"), ("b", "a")][own], own + 1);
    let mut text = format!(
        "chains:
  forward:
    policy: drop
    rules:
      - {{ name: first, mark: {mark}, count: first-{mine} }}
      - {{ name: hosts, saddr: 10.0.0.0/8, jump: hosts }}
      - {{ name: no-first, ct-zone: 4000, count: first-{other} }}
      - {{ name: no-passed, ct-zone: 4000, count: passed-{other} }}
      - {{ name: canary, ct-mark: \"!{mark}\", count: canary, action: drop }}
      - {{ name: last, action: accept, count: passed-{mine} }}
  hosts:
    rules:
"
    );
    for n in 0..200 {
        let host = format!("10.0.{}.{}", n / 64, n % 64 * 4 + own);
        text += &format!(
            "      - {{ name: h{n}, saddr: {host}, proto: udp, dport: 53, action: accept, count: passed-{mine} }}\n"
        );
    }
    text
}

#[test]
fn reloads_under_load_lose_no_frame_and_mix_no_policies() {
    const RELOADS: usize = 60;
    let bed = Bed::under(2, &marked(0));
    let (stop, fed) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..32 {
                    bed.feed(sent as u32 % 1000);
                    sent += 1;
                }
                fed.store(sent, Ordering::Relaxed);
                wait(|| bed.judged() + 64 > sent);
            }
        });
        let _stop = Stop(&stop);
        for n in 1..=RELOADS {
            bed.write_policy(&marked(n % 2));
            bed.appliance.reload(None).unwrap();
            // every policy judges some
            let before = bed.judged();
            wait(|| bed.judged() > before);
        }
    });
    let fed = fed.into_inner();
    wait(|| bed.judged() == fed);
    let packets = bed.appliance.stats().packets;
    assert_eq!((packets.received, packets.forwarded), (fed, fed));
    let counters = bed.appliance.counters();
    let of = |name: &str| {
        let found = counters.iter().find(|row| row.rule == name);
        found.unwrap().packets
    };
    assert_eq!(of("canary"), 0);
    for (first, passed) in [("first-a", "passed-a"), ("first-b", "passed-b")] {
        assert!(of(first) > 0);
        assert_eq!(of(first), of(passed));
    }
    assert_eq!(of("first-a") + of("first-b"), fed);
}
