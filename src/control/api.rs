//! The API: a UNIX socket that answers JSON lines ([`super::protocol`]).
//!
//! Life-cycle: `serve` runs on the control thread until the appliance stops; each connection is
//! a task that reads one request, streams its answer, and reads the next. Concurrency: requests
//! are answered on helper threads, which hand finished lines over through a short channel; a
//! client that reads slowly holds up its own helper and nobody else. Connections are bounded.

use super::appliance::Appliance;
use super::flows::WorkerError;
use super::listeners::ApiListener;
use super::protocol::{Done, EventRecord, Failed, MAX_REQUEST, Request, Row, Watch, Watched};
use super::systemd;
use crate::conntrack::record::ExpectRecord;
use crossbeam::channel::RecvTimeoutError;
use serde::Serialize;
use serde_json::Value;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

/// Connections served at once.
pub(super) const CONNECTIONS: usize = 32;
/// How long a client may take for a request.
const IDLE: Duration = Duration::from_secs(30);
/// How long a client may leave an answer unread: `conntrack -L | less` does.
const UNREAD: Duration = Duration::from_secs(600);
/// How soon a watch without events notices that its client is gone.
const WATCH: Duration = Duration::from_millis(200);
/// Events that are collected before they are sent.
const BATCH: usize = 1024;
/// Bytes that are collected before they are sent.
const CHUNK: usize = 32 * 1024;

/// Answers requests until the task is dropped.
pub(super) async fn serve(listener: &ApiListener, appliance: Arc<Appliance>) -> io::Result<()> {
    let listener = tokio::net::UnixListener::from_std(listener.listener.try_clone()?)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let mut stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, or a client that was gone again.
                tracing::warn!(%error, "control socket: cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            let line = failed_line("too many connections; try again", Value::Null);
            let _ = stream.try_write(&line);
            continue;
        };
        let appliance = appliance.clone();
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = converse(&mut stream, &appliance).await {
                tracing::debug!(%error, "control socket: connection ended");
            }
        });
    }
}

/// Serves one connection to its end.
async fn converse(stream: &mut UnixStream, appliance: &Arc<Appliance>) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut reader).take(MAX_REQUEST as u64 + 1);
        let read = timeout(IDLE, bounded.read_until(b'\n', &mut line)).await;
        match read {
            Err(_) | Ok(Ok(0)) => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Ok(Ok(_)) => {}
        }
        if line.len() > MAX_REQUEST && line.last() != Some(&b'\n') {
            let message = format!("the request is longer than {MAX_REQUEST} bytes");
            let answer = failed_line(&message, Value::Null);
            // What follows cannot be told from the next request.
            return writer.write_all(&answer).await;
        }
        let request = match serde_json::from_slice::<Request>(&line) {
            Ok(request) => request,
            Err(error) => {
                let message = format!("not a request: {error}");
                writer
                    .write_all(&failed_line(&message, Value::Null))
                    .await?;
                continue;
            }
        };
        let watching = matches!(request, Request::ConntrackWatch(_) | Request::Trace(_));
        let _answering = watching.then(|| appliance.hub().answering());
        let (chunks, mut ready) = mpsc::channel(4);
        let appliance = appliance.clone();
        let helper = tokio::task::spawn_blocking(move || {
            let mut answer = Answer {
                chunks,
                buffer: Vec::new(),
                rows: 0,
            };
            respond(&request, &appliance, &mut answer);
            let _ = answer.send();
        });
        loop {
            let chunk = tokio::select! {
                biased;
                chunk = ready.recv() => chunk,
                // The helper notices that nobody takes its lines.
                _ = reader.fill_buf(), if watching => return Ok(()),
            };
            let Some(chunk) = chunk else { break };
            timeout(UNREAD, writer.write_all(&chunk)).await??;
        }
        if let Err(error) = helper.await {
            tracing::error!(%error, "control socket: a request failed");
            let answer = failed_line("internal error; see the log", Value::Null);
            writer.write_all(&answer).await?;
        }
    }
}

/// An answer in the making, on a helper thread.
struct Answer {
    chunks: mpsc::Sender<Vec<u8>>,
    buffer: Vec<u8>,
    rows: u64,
}

impl Answer {
    /// Appends a line; breaks when the client is gone.
    fn line(&mut self, line: &impl Serialize) -> ControlFlow<()> {
        if let Err(error) = serde_json::to_writer(&mut self.buffer, line) {
            tracing::error!(%error, "control socket: an answer cannot be written");
            return ControlFlow::Break(());
        }
        self.buffer.push(b'\n');
        if self.buffer.len() >= CHUNK {
            return self.send();
        }
        ControlFlow::Continue(())
    }

    fn send(&mut self) -> ControlFlow<()> {
        let chunk = std::mem::take(&mut self.buffer);
        match chunk.is_empty() || self.chunks.blocking_send(chunk).is_ok() {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    }

    fn row(&mut self, row: &impl Serialize) -> ControlFlow<()> {
        self.rows += 1;
        self.line(&Row { row })
    }

    fn rows<T: Serialize>(&mut self, rows: &[T]) {
        if rows.iter().try_for_each(|row| self.row(row)).is_continue() {
            self.done(self.rows);
        }
    }

    fn done(&mut self, count: u64) {
        let _ = self.line(&Done { done: true, count });
    }

    fn failed(&mut self, error: &impl ToString, diagnostics: Value) {
        let error = error.to_string();
        let _ = self.line(&Failed { error, diagnostics });
    }
}

/// Answers one request; blocks for as long as that takes.
fn respond(request: &Request, appliance: &Arc<Appliance>, answer: &mut Answer) {
    match request {
        Request::Ping {} => answer.done(0),
        Request::Reload { path, mode } => {
            match systemd::reload(appliance, path.as_deref(), *mode) {
                Ok(report) => answer.rows(&[report]),
                Err(error) => answer.failed(&error, error.diagnostics()),
            }
        }
        Request::ConntrackList(filter) => {
            let mut wanted = true;
            let listed = appliance.list(|flow| {
                if !filter.matches(&flow) {
                    return ControlFlow::Continue(());
                }
                let sent = answer.row(&flow);
                wanted = sent.is_continue();
                sent
            });
            match listed {
                Ok(()) if wanted => answer.done(answer.rows),
                Ok(()) => {}
                Err(error) => answer.failed(&error, Value::Null),
            }
        }
        Request::ExpectList(filter) => {
            let filter = filter.clone();
            expectations(answer, |answer| {
                appliance.expectations(move |it| filter.matches(it), |it| answer.row(&it))
            });
        }
        Request::ExpectCount {} => answer.done(appliance.count_expectations()),
        Request::ExpectDelete(filter) if filter.is_empty() => {
            let text = "a filter is needed to end some expectations; to end all, flush them";
            answer.failed(&text, Value::Null);
        }
        Request::ExpectDelete(filter) => {
            let wanted = filter.clone();
            expectations(answer, |answer| {
                let wanted = move |it: &ExpectRecord| wanted.matches(it);
                // All of them, whether or not the client still listens.
                appliance.end_expectations(wanted, |it| {
                    let _ = answer.row(&it);
                    ControlFlow::Continue(())
                })
            });
            tracing::info!(ended = answer.rows, ?filter, "expectations ended");
        }
        Request::ExpectFlush {} => {
            let mut ended = 0;
            let flushed = appliance.end_expectations(
                |_| true,
                |_| {
                    ended += 1;
                    ControlFlow::Continue(())
                },
            );
            match flushed {
                Ok(()) => {
                    tracing::info!(ended, "expectation table flushed");
                    answer.done(ended);
                }
                Err(error) => answer.failed(&error, Value::Null),
            }
        }
        Request::ConntrackWatch(wanted) => watch(wanted, appliance, answer),
        Request::ConntrackStats {} => answer.rows(&appliance.conntrack()),
        Request::ConntrackCount {} => answer.done(appliance.count()),
        Request::ConntrackFlush {} => match appliance.flush() {
            Ok(ended) => {
                tracing::info!(ended, "flow table flushed");
                answer.done(ended);
            }
            Err(error) => answer.failed(&error, Value::Null),
        },
        Request::Diff { path } => match appliance.diff(path) {
            Ok(report) => answer.rows(&[report]),
            Err(error) => answer.failed(&error, error.diagnostics()),
        },
        Request::Explain { words } => match appliance.explain(words) {
            Ok(explanation) => answer.rows(&[explanation]),
            Err(error) => answer.failed(&error, Value::Null),
        },
        Request::Trace(ask) => {
            let traced = appliance.trace(ask, |told| match told {
                Some(told) => answer.line(&Row { row: &told }),
                None if answer.chunks.is_closed() => ControlFlow::Break(()),
                None => answer.send(),
            });
            match traced {
                Ok(count) => answer.done(count),
                Err(error) => answer.failed(&error, Value::Null),
            }
        }
        Request::Stats {} => answer.rows(&[appliance.stats()]),
        Request::Drops {} => answer.rows(&appliance.drops()),
        Request::Rules {} => answer.rows(&[appliance.rules(), appliance.counters()].concat()),
        Request::Ports { xstats: false } => answer.rows(&appliance.ports()),
        Request::Ports { xstats: true } => answer.rows(&appliance.ports_with_xstats()),
        Request::Rebalance { dry_run } => match appliance.rebalance(*dry_run) {
            Ok(report) => answer.rows(&[report]),
            Err(error) => answer.failed(&error, Value::Null),
        },
        Request::Workers {} => answer.rows(&appliance.workers()),
        Request::Overview { census_secs } => {
            let wanted = Duration::from_secs(*census_secs);
            answer.rows(&[appliance.overview(wanted)]);
        }
    }
}

/// Sends what `give` gives, row by row.
fn expectations(answer: &mut Answer, give: impl FnOnce(&mut Answer) -> Result<(), WorkerError>) {
    match give(answer) {
        Ok(()) => answer.done(answer.rows),
        Err(error) => answer.failed(&error, Value::Null),
    }
}

/// Sends events as they come, until the client is gone or the appliance stops.
fn watch(wanted: &Watch, appliance: &Appliance, answer: &mut Answer) {
    let subscription = appliance.hub().subscribe(wanted.clone());
    // Once, so that the times of two events differ by what lay between them.
    let epoch = appliance.shared().clock.epoch_ms();
    let mut count = 0;
    loop {
        let first = subscription.events.recv_timeout(WATCH);
        let stopped = matches!(first, Err(RecvTimeoutError::Disconnected));
        let more = subscription.events.try_iter().take(BATCH);
        let mut events = first.into_iter().chain(more);
        let sent = events.try_for_each(|event| {
            count += 1;
            answer.line(&Row {
                row: &Watched::Event(Box::new(EventRecord::new(&event, epoch))),
            })
        });
        let lost = subscription.take_lost();
        if lost > 0 {
            let _ = answer.row(&Watched::Lost(lost));
        }
        if stopped {
            return answer.done(count);
        }
        if sent.is_break() || answer.send().is_break() || answer.chunks.is_closed() {
            return;
        }
    }
}

fn failed_line(error: &str, diagnostics: Value) -> Vec<u8> {
    let error = error.to_owned();
    let mut line = serde_json::to_vec(&Failed { error, diagnostics }).unwrap_or_default();
    line.push(b'\n');
    line
}
