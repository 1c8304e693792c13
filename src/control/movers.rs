//! Sees to it that buckets of flows which move come to their end ([`super::rebalance`]): now and then,
//! on a helper thread, the more seldom the longer a look at the tables takes.

use super::appliance::Appliance;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Of so many seconds one is spent with looking, at most.
const SHARE: u64 = 20;
/// No look may begin: one is under way.
const BUSY: u64 = u64::MAX;

/// When to look next.
#[derive(Debug, Default)]
pub(super) struct Movers {
    /// In nanoseconds of the workers' clock.
    next: Arc<AtomicU64>,
}

impl Movers {
    /// Called once a second, inside the runtime.
    pub(super) fn look(&mut self, appliance: &Arc<Appliance>) {
        let clock = appliance.shared().clock;
        let begun = clock.now().nanos();
        if begun < self.next.load(Relaxed) || !appliance.anything_moves() {
            return;
        }
        self.next.store(BUSY, Relaxed);
        let (appliance, next) = (appliance.clone(), self.next.clone());
        tokio::task::spawn_blocking(move || {
            let done = appliance.finish_moves();
            let now = clock.now().nanos();
            let pause = match done {
                Ok(_) => (now - begun) * SHARE,
                Err(error) => {
                    // Its heir may put packets by, and cannot for long.
                    tracing::warn!(%error, "buckets of flows stay on their way");
                    0
                }
            };
            next.store(now + pause, Relaxed);
        });
    }
}
