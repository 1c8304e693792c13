//! The HTTP server of the metrics' address: what answers is a router, who may ask is anybody, so
//! everything is bounded.
//!
//! A connection is for one request, and gone after [`TIME`] whatever it does; there are [`CONNECTIONS`]
//! at most, and a new one ends the oldest, so that who holds many and reads nothing keeps nobody out.
//! Heads are read up to [`HEAD`] bytes; no route reads a body.
//!
//! Life-cycle: runs on the control thread until the appliance stops.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

/// Connections at a time.
pub(super) const CONNECTIONS: usize = 64;
/// From accepting a connection to the last byte of its answer.
pub(super) const TIME: Duration = Duration::from_secs(10);
/// Bytes of a request's head, at most.
const HEAD: usize = 16 * 1024;

/// Answers requests until the task is dropped.
pub(super) async fn serve(listener: TcpListener, router: Router) {
    let mut open = VecDeque::<AbortHandle>::with_capacity(CONNECTIONS);
    let mut http = http1::Builder::new();
    http.keep_alive(false)
        .max_buf_size(HEAD)
        .timer(TokioTimer::new())
        .header_read_timeout(TIME);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, or a client that was gone again.
                tracing::debug!(%error, "metrics: cannot accept");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        open.retain(|task| !task.is_finished());
        if open.len() >= CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let service = TowerToHyperService::new(router.clone());
        let answering = http.serve_connection(TokioIo::new(stream), service);
        let task = tokio::spawn(async move {
            // However it ends, nobody is there to be told.
            let _ = timeout(TIME, answering).await;
        });
        open.push_back(task.abort_handle());
    }
}
