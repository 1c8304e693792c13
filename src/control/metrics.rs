//! Prometheus metrics, read from the workers' counters at most once a second.
//!
//! Life-cycle: a [`Metrics`] lives as long as the control thread. Concurrency: the first scrape of a
//! second reads, on a helper thread; those that come meanwhile wait for what it reads, and those that
//! come within a second have the same text. So however many scrape, a worker's counters are read once
//! a second, by one thread.

mod families;
mod names;
mod read;

pub use names::{About, METRICS, NAMES};
pub use read::{OTHER, SERIES};

use super::appliance::Appliance;
use crate::base::time::Now;
use axum::Router;
use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use families::Families;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Registry, TEXT_FORMAT, TextEncoder};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use tokio::sync::Mutex;

/// How long a text is good for, in nanoseconds.
const FRESH: u64 = 1_000_000_000;

/// Reads the appliance.
struct Reader {
    appliance: Arc<Appliance>,
    descs: Vec<Desc>,
}

impl Collector for Reader {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut out = Families::new();
        read::all(&self.appliance, &mut out);
        out.into_inner()
    }
}

/// The metrics of one appliance.
#[derive(Clone)]
pub struct Metrics {
    appliance: Arc<Appliance>,
    registry: Registry,
    /// The text of the last reading, and when that began.
    last: Arc<Mutex<Option<(Now, Bytes)>>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Those of `appliance`.
    pub fn new(appliance: Arc<Appliance>) -> prometheus::Result<Self> {
        let descs = METRICS.iter().map(|about| {
            let (name, help) = (about.name.into(), about.help.into());
            Desc::new(name, help, Vec::new(), HashMap::new())
        });
        let descs = descs.collect::<prometheus::Result<_>>()?;
        let registry = Registry::new();
        registry.register(Box::new(Reader {
            appliance: appliance.clone(),
            descs,
        }))?;
        Ok(Self {
            appliance,
            registry,
            last: Arc::default(),
        })
    }

    /// Reads now, into Prometheus' text format.
    pub fn scrape(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// `/metrics`.
    pub(super) fn router(self) -> Router {
        Router::new().route("/metrics", get(move || self.respond()))
    }

    async fn respond(self) -> Response {
        // A task of its own: whoever asked may go, and what was read is still there for the next.
        let text = tokio::spawn(async move { self.text().await });
        match text.await {
            Ok(Ok(text)) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
            Ok(Err(error)) => failure(&*error),
            Err(error) => failure(&error),
        }
    }

    /// The text, not older than [`FRESH`].
    pub(super) async fn text(&self) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
        let mut last = self.last.lock().await;
        let now = self.appliance.shared().clock.now();
        if let Some((read, text)) = &*last
            && now.nanos().saturating_sub(read.nanos()) < FRESH
        {
            return Ok(text.clone());
        }
        let metrics = self.clone();
        let text = tokio::task::spawn_blocking(move || metrics.scrape()).await??;
        let text = Bytes::from(text);
        *last = Some((now, text.clone()));
        Ok(text)
    }
}

fn failure(error: &dyn std::error::Error) -> Response {
    tracing::error!(%error, "metrics: a scrape failed");
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
}
