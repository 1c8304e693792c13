//! The API: a UNIX socket that answers JSON lines ([`super::protocol`]).
//!
//! Life-cycle: `serve` runs on the control thread until the appliance stops; each connection is
//! a task that reads one request, streams its answer, and reads the next. Concurrency: requests
//! are answered on helper threads, which hand finished lines over through a short channel; a
//! client that reads slowly holds up its own helper and nobody else. Connections are bounded. Clients are
//! told from strangers by the user that the kernel says they are.

use super::appliance::Appliance;
use super::flows::WorkerError;
use super::listeners::ApiListener;
use super::protocol::{
    Done, EventRecord, Failed, Listing, MAX_REQUEST, Request, Row, Text, Watch, Watched,
};
use super::render::{Printer, Show};
use super::systemd;
use crate::conntrack::record::{ExpectRecord, FlowRecord};
use crate::dataplane::clock::unix_time;
use crossbeam::channel::RecvTimeoutError;
use serde::Serialize;
use serde_json::Value;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinError;
use tokio::time::{sleep, timeout};

#[cfg(test)]
mod tests;

/// Connections served at once.
pub(super) const CONNECTIONS: usize = 32;
/// How long a client may take for a request.
const IDLE: Duration = Duration::from_secs(30);
/// How long a client may leave an answer unread: `conntrack -L | less` does.
const UNREAD: Duration = Duration::from_secs(600);
/// How soon a watch without events, or a listing without flows, notices that its client is gone.
const WATCH: Duration = Duration::from_millis(200);
/// Events that are collected before they are sent.
const BATCH: usize = 1024;
/// What a client is told that is another user.
const STRANGER: &str = "this socket is for root and the user that the appliance runs as";
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
        if !welcome(&stream) {
            let _ = stream.try_write(&failed_line(STRANGER, Value::Null));
            continue;
        }
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

/// Whether a client is the user that the appliance runs as, or root: whatever the permissions of the
/// socket have become.
fn welcome(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    let peer = stream.peer_cred();
    let known = peer.is_ok_and(|peer| peer.uid() == own || peer.uid() == 0);
    if !known {
        tracing::warn!("control socket: another user's request is refused");
    }
    known
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
        let appliance = appliance.clone();
        let answer = move |answer: &mut Answer| respond(&request, &appliance, answer);
        match send(answer, &mut reader, &mut writer, watching).await? {
            Sent::All => {}
            Sent::Gone => return Ok(()),
            Sent::Failed(error) => {
                tracing::error!(%error, "control socket: a request failed");
                let answer = failed_line("internal error; see the log", Value::Null);
                writer.write_all(&answer).await?;
            }
        }
    }
}

/// How an answer ended.
enum Sent {
    /// It was sent.
    All,
    /// Nobody reads any more.
    Gone,
    /// It broke off.
    Failed(JoinError),
}

/// Has `answer` made on a helper thread, and sends it. A client that is `watching` ends that by saying
/// anything.
async fn send(
    answer: impl FnOnce(&mut Answer) + Send + 'static,
    reader: &mut BufReader<ReadHalf<'_>>,
    writer: &mut WriteHalf<'_>,
    watching: bool,
) -> io::Result<Sent> {
    let (chunks, mut ready) = mpsc::channel(4);
    let helper = tokio::task::spawn_blocking(move || {
        let mut made = Answer {
            chunks,
            buffer: Vec::new(),
            text: Vec::new(),
            rows: 0,
        };
        answer(&mut made);
        let _ = made.send();
    });
    loop {
        let chunk = tokio::select! {
            biased;
            chunk = ready.recv() => chunk,
            // The helper notices that nobody takes its lines.
            _ = reader.fill_buf(), if watching => return Ok(Sent::Gone),
            () = sleep(WATCH), if !watching => match is_gone(writer).await {
                true => return Ok(Sent::Gone),
                false => continue,
            },
        };
        let Some(chunk) = chunk else { break };
        timeout(UNREAD, writer.write_all(&chunk)).await??;
    }
    match helper.await {
        Ok(()) => Ok(Sent::All),
        Err(error) => Ok(Sent::Failed(error)),
    }
}

/// Whether nobody is left to read. A client that only stopped to write still reads.
async fn is_gone(writer: &WriteHalf<'_>) -> bool {
    // Ready at once: an answer waits for its helper here, not for room.
    let ready = timeout(Duration::ZERO, writer.ready(Interest::WRITABLE)).await;
    matches!(ready, Ok(Ok(ready)) if ready.is_write_closed())
}

/// An answer in the making, on a helper thread.
struct Answer {
    chunks: mpsc::Sender<Vec<u8>>,
    buffer: Vec<u8>,
    /// Whole lines that go out as one piece.
    text: Vec<u8>,
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

    /// A flow, as a row or as text.
    fn flow(&mut self, flow: &FlowRecord, print: Option<(&Printer, Show)>) -> ControlFlow<()> {
        let Some((printer, show)) = print else {
            return self.row(flow);
        };
        self.rows += 1;
        printer.flow(&mut self.text, flow, show);
        if self.text.len() >= CHUNK {
            return self.flush_text();
        }
        ControlFlow::Continue(())
    }

    /// Puts the text that there is behind a line that says how long it is.
    fn flush_text(&mut self) -> ControlFlow<()> {
        if self.text.is_empty() {
            return ControlFlow::Continue(());
        }
        let text = self.text.len();
        self.buffer.reserve(CHUNK + CHUNK / 4);
        let line = self.line(&Text { text });
        self.buffer.append(&mut self.text);
        if line.is_break() { line } else { self.send() }
    }

    fn rows<T: Serialize>(&mut self, rows: &[T]) {
        if rows.iter().try_for_each(|row| self.row(row)).is_continue() {
            self.done(self.rows);
        }
    }

    fn done(&mut self, count: u64) {
        let _ = self.flush_text();
        let _ = self.line(&Done { done: true, count });
    }

    fn failed(&mut self, error: &impl ToString, diagnostics: Value) {
        let _ = self.flush_text();
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
        Request::ConntrackList(listing) => list(listing, answer, |sink| appliance.list(sink)),
        Request::ConntrackGet(listing) => get(listing, appliance, answer),
        Request::ConntrackDelete(listing) => delete(listing, appliance, answer),
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

/// Sends the flows that are asked for, of those that `give` gives to its sink.
fn list<E: ToString>(
    listing: &Listing,
    answer: &mut Answer,
    give: impl FnOnce(&mut dyn FnMut(FlowRecord) -> ControlFlow<()>) -> Result<(), E>,
) {
    let Listing { filter, print } = listing;
    let printer = print.map(Printer::new);
    let show = Show::Listed(unix_time() as u64);
    let print = printer.as_ref().map(|printer| (printer, show));
    let all = filter.is_any();
    let mut wanted = true;
    let listed = give(&mut |flow| {
        let sent = match all || filter.matches(&flow) {
            true => answer.flow(&flow, print),
            // Of a client that gets nothing nobody else notices that it is gone.
            false if answer.chunks.is_closed() => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        wanted = sent.is_continue();
        sent
    });
    match listed {
        Ok(()) if wanted => answer.done(answer.rows),
        Ok(()) => {}
        Err(error) => answer.failed(&error, Value::Null),
    }
}

/// Sends one flow.
fn get(listing: &Listing, appliance: &Appliance, answer: &mut Answer) {
    let Some(tuple) = listing.filter.tuple() else {
        let text = "name all of the original direction: protocol, both addresses, and both ports or what \
                    the protocol has instead";
        return answer.failed(&text, Value::Null);
    };
    let found = match appliance.find(tuple) {
        Ok(Some(found)) => found.record.dated(appliance.shared().clock.epoch_ms()),
        Ok(None) => return answer.failed(&"there is no such flow", Value::Null),
        Err(error) => return answer.failed(&error, Value::Null),
    };
    if listing.filter.matches(&found) {
        let printer = listing.print.map(Printer::new);
        let show = Show::Got(unix_time() as u64);
        let _ = answer.flow(&found, printer.as_ref().map(|printer| (printer, show)));
    }
    answer.done(answer.rows);
}

/// Ends flows, and sends what they were.
fn delete(listing: &Listing, appliance: &Appliance, answer: &mut Answer) {
    let Listing { filter, print } = listing;
    let printer = print.map(Printer::new);
    let show = Show::Deleted(unix_time() as u64);
    let print = printer.as_ref().map(|printer| (printer, show));
    let ended = appliance.end(filter, |flow| {
        // All of them, whether or not the client still listens.
        let _ = answer.flow(&flow, print);
        ControlFlow::Continue(())
    });
    tracing::info!(ended = answer.rows, ?filter, "flows ended");
    match ended {
        Ok(()) => answer.done(answer.rows),
        Err(error) => answer.failed(&error, Value::Null),
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
