//! Whether the workers come round: each counts its loops, and one whose count stands still for
//! some seconds is stuck.
//!
//! Concurrency: the control thread looks once a second; `/healthz` and the watchdog read.

use crate::dataplane::shared::Shared;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use parking_lot::Mutex;
use std::sync::Arc;

/// Looks without a new loop until a worker counts as stuck.
const STUCK: u32 = 5;

/// What is known about the workers' progress.
#[derive(Debug)]
pub(super) struct Health {
    /// Loops at the last look, and how many looks ago they last grew.
    workers: Mutex<Vec<(u64, u32)>>,
}

impl Health {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            workers: Mutex::new(vec![(0, 0); workers]),
        }
    }

    /// Looks once.
    pub(super) fn look(&self, shared: &Shared) {
        let mut known = self.workers.lock();
        for ((loops, since), worker) in known.iter_mut().zip(&shared.workers) {
            let now = worker.loops.get();
            *since = if now == *loops { *since + 1 } else { 0 };
            *loops = now;
        }
    }

    /// The first worker that is stuck.
    pub(super) fn stuck(&self) -> Option<usize> {
        let known = self.workers.lock();
        known.iter().position(|(_, since)| *since >= STUCK)
    }

    /// `/healthz`.
    pub(super) fn router(self: Arc<Self>) -> Router {
        Router::new().route("/healthz", get(async move || self.respond()))
    }

    pub(super) fn respond(&self) -> (StatusCode, String) {
        match self.stuck() {
            None => (StatusCode::OK, "ok\n".into()),
            Some(worker) => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("worker {worker} is stuck\n"),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testbed::Bed;

    #[test]
    fn a_worker_that_stands_still_is_stuck_until_it_goes_on() {
        let bed = Bed::without_workers(2);
        let shared = bed.appliance.shared();
        let health = Health::new(2);
        for _ in 0..STUCK {
            shared.workers[0].loops.add(1);
            assert_eq!(health.stuck(), None);
            health.look(shared);
        }
        assert_eq!(health.stuck(), Some(1));
        assert_eq!(health.respond().0, StatusCode::SERVICE_UNAVAILABLE);
        shared.workers[1].loops.add(1);
        health.look(shared);
        assert_eq!(health.respond(), (StatusCode::OK, "ok\n".into()));
    }
}
