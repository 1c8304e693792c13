//! The status page: the box's state at one address, for people who look and change nothing.
//!
//! `/` is a page without a script that loads itself anew every five seconds, `/status.json` the same
//! for programs. Both show what was read last, at most a second ago: a request reads no counter.
//!
//! Life-cycle: as long as the control thread. Concurrency: one task reads once a second, on a helper
//! thread; those who ask take what there is.

mod page;

use super::appliance::Appliance;
use super::drops::DropRow;
use super::health::Health;
use super::snapshot::{PortRow, Stats, WorkerRow};
use axum::Router;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// Time between two readings.
const PACE: Duration = Duration::from_secs(1);
/// Readings that are kept: five minutes.
const KEPT: usize = 300;
/// Nothing is loaded but the page's own style sheet, and nobody may frame it.
const CSP: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; \
                   frame-ancestors 'none'";
const STYLE: &str = include_str!("status/page.css");

/// What the page shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// `ok`, or what is wrong.
    pub health: String,
    /// The same as `shardwall stats --format json`.
    pub stats: Stats,
    /// The same as `shardwall ports --format json`.
    pub ports: Vec<PortRow>,
    /// The same as `shardwall drops --format json`.
    pub drops: Vec<DropRow>,
    /// The same as `shardwall workers --format json`.
    pub workers: Vec<WorkerRow>,
    /// The readings before, oldest first, this one last.
    pub history: VecDeque<Moment>,
}

/// What is kept of a reading.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Flows in the table.
    pub entries: u64,
    /// Frames forwarded so far.
    pub forwarded: u64,
    /// Frames dropped so far.
    pub dropped: u64,
    /// Flows entered so far.
    pub insert: u64,
    /// Bytes taken from and given to each port so far, in their order.
    pub ports: Vec<[u64; 2]>,
    /// Frames dropped so far for each reason, in their order.
    pub drops: Vec<u64>,
    /// Seconds that each worker was busy, and idle, so far.
    pub workers: Vec<[f64; 2]>,
}

/// The page of one appliance.
#[derive(Clone, Debug)]
pub(super) struct StatusPage {
    appliance: Arc<Appliance>,
    health: Arc<Health>,
    last: Arc<Mutex<Arc<Status>>>,
}

impl StatusPage {
    pub(super) fn new(appliance: Arc<Appliance>, health: Arc<Health>) -> Self {
        let first = read(&appliance, &health);
        Self {
            appliance,
            health,
            last: Arc::new(Mutex::new(Arc::new(first))),
        }
    }

    /// Reads once a second until the task is dropped.
    pub(super) async fn watch(self) {
        let mut tick = interval(PACE);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let page = self.clone();
            // Drivers may take their time to tell what they count.
            if tokio::task::spawn_blocking(move || page.look())
                .await
                .is_err()
            {
                tracing::error!("the status page cannot be read");
            }
        }
    }

    /// Reads once.
    pub(super) fn look(&self) {
        let mut status = read(&self.appliance, &self.health);
        let mut last = self.last.lock();
        let mut history = match Arc::get_mut(&mut last) {
            Some(before) => std::mem::take(&mut before.history),
            // Somebody writes an answer of it.
            None => last.history.clone(),
        };
        if history.len() >= KEPT {
            history.pop_front();
        }
        history.append(&mut status.history);
        status.history = history;
        *last = Arc::new(status);
    }

    /// `/`, its style sheet, and `/status.json`.
    pub(super) fn router(self) -> Router {
        let json = self.clone();
        Router::new()
            .route("/", get(async move || self.html()))
            .route("/status.css", get(async || secured("text/css", STYLE)))
            .route("/status.json", get(async move || json.json()))
    }

    fn html(&self) -> Response {
        let status = self.last.lock().clone();
        let html = page::render(&status, PACE);
        secured("text/html; charset=utf-8", html)
    }

    fn json(&self) -> Response {
        let status = self.last.lock().clone();
        match serde_json::to_vec(&*status) {
            Ok(text) => secured("application/json", text),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    }
}

fn secured(kind: &'static str, body: impl IntoResponse) -> Response {
    let headers: [(HeaderName, &str); 5] = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, CSP),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (StatusCode::OK, headers, body).into_response()
}

/// What there is now, as its own history.
fn read(appliance: &Appliance, health: &Health) -> Status {
    let stats = appliance.stats();
    let (ports, drops, workers) = (appliance.ports(), appliance.drops(), appliance.workers());
    let moment = Moment {
        entries: stats.conntrack.entries,
        forwarded: stats.packets.forwarded,
        dropped: stats.packets.dropped,
        insert: stats.conntrack.insert,
        ports: ports
            .iter()
            .map(|row| [row.rx_bytes, row.tx_bytes])
            .collect(),
        drops: drops.iter().map(|row| row.count).collect(),
        workers: workers
            .iter()
            .map(|row| [row.busy_seconds, row.idle_seconds])
            .collect(),
    };
    let health = match health.stuck() {
        None => "ok".to_owned(),
        Some(worker) => format!("worker {worker} is stuck"),
    };
    Status {
        health,
        stats,
        ports,
        drops,
        workers,
        history: VecDeque::from([moment]),
    }
}

#[cfg(test)]
mod tests;
