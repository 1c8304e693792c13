//! The control thread: the API socket, metrics, signals, log lines and the service manager, all
//! on one single-threaded runtime.
//!
//! Life-cycle: [`Control::start`] once the workers run; the thread ends when the appliance stops,
//! be it by SIGTERM or SIGINT or because somebody called [`crate::dataplane::shared::Shared::stop`].
//! Concurrency: helper threads do what takes long; their number is bounded.

use super::appliance::Appliance;
use super::events::Writer;
use super::health::Health;
use super::listeners::Listeners;
use super::metrics::Metrics;
use super::movers::Movers;
use super::pressure::Pressure;
use super::status::StatusPage;
use super::{api, systemd, web};
use crate::dataplane::worker::LogEvent;
use crossbeam::channel::Receiver;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// How often log events are written and the stop flag is looked at.
const TICK: Duration = Duration::from_millis(50);
/// How often the workers' progress is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Looks between two status texts.
const STATUS: u32 = 10;
/// How long helpers may take to notice the end, and watchers to read it.
const FAREWELL: Duration = Duration::from_secs(1);

/// A running control thread.
#[derive(Debug)]
pub struct Control {
    thread: JoinHandle<()>,
}

impl Control {
    /// Starts it, and tells the service manager that the appliance is ready: call it when the
    /// workers run. `events` is where the workers' log events come out.
    pub fn start(
        appliance: Arc<Appliance>,
        listeners: Listeners,
        events: Receiver<LogEvent>,
    ) -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .thread_name("sw-helper")
            .max_blocking_threads(api::CONNECTIONS + 8)
            .build()?;
        let parts = {
            // Signals must be taken before anybody is told that the appliance is ready.
            let _inside = runtime.enter();
            Signals::take()?
        };
        let metrics = Metrics::new(appliance.clone()).map_err(io::Error::other)?;
        let thread = std::thread::Builder::new()
            .name("sw-control".into())
            .spawn(move || run(runtime, appliance, listeners, events, parts, metrics))?;
        Ok(Self { thread })
    }

    /// Waits until the appliance stops.
    pub fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("the control thread panicked");
        }
    }
}

/// The signals that mean something.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn take() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

fn run(
    runtime: Runtime,
    appliance: Arc<Appliance>,
    listeners: Listeners,
    events: Receiver<LogEvent>,
    signals: Signals,
    metrics: Metrics,
) {
    let mut log = Writer::new(events);
    let served = runtime.block_on(serve(&appliance, &listeners, &mut log, signals, metrics));
    if let Err(error) = served {
        tracing::error!(%error, "the control thread ends");
    }
    systemd::stopping();
    appliance.shared().stop();
    appliance.hub().close();
    // Connections are served on this thread, and so only from here.
    let farewell = async { timeout(FAREWELL, appliance.hub().farewell()).await };
    if runtime.block_on(farewell).is_err() {
        tracing::debug!("a watcher does not read its last events");
    }
    runtime.shutdown_timeout(FAREWELL);
    log.finish(&appliance, appliance.shared().clock.now());
}

async fn serve(
    appliance: &Arc<Appliance>,
    listeners: &Listeners,
    log: &mut Writer,
    mut signals: Signals,
    metrics: Metrics,
) -> io::Result<()> {
    let shared = appliance.shared().clone();
    let health = Arc::new(Health::new(shared.workers.len()));
    if let Some(listener) = &listeners.metrics {
        let listener = tokio::net::TcpListener::from_std(listener.try_clone()?)?;
        let mut router = metrics.router().merge(health.clone().router());
        if appliance.serves_status() {
            let status = StatusPage::new(appliance.clone(), health.clone());
            tokio::spawn(status.clone().watch());
            router = router.merge(status.router());
        }
        tokio::spawn(web::serve(listener, router));
    }
    let mut requests = std::pin::pin!(api::serve(&listeners.api, appliance.clone()));
    let hub = appliance.hub().clone();
    tokio::spawn(async move { hub.run().await });
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = 0;
    let mut pressure = Pressure::default();
    let mut movers = Movers::default();
    systemd::ready(appliance);
    loop {
        tokio::select! {
            ended = &mut requests => return ended,
            _ = tick.tick() => {
                log.drain(appliance, shared.clock.now());
                if shared.stopping() {
                    return Ok(());
                }
            }
            _ = look.tick() => {
                // After a step of the wall clock, `time` is right within a second.
                shared.epoch.set(shared.clock.epoch_nanos());
                health.look(&shared);
                pressure.look(appliance, shared.clock.now());
                appliance.look_at_drops(shared.clock.now());
                appliance.look_at_links();
                movers.look(appliance);
                if health.stuck().is_none() && sd_notify::watchdog_enabled().is_some() {
                    systemd::alive();
                }
                looks += 1;
                if looks % STATUS == 0 {
                    systemd::status(appliance);
                }
            }
            _ = signals.hangup.recv() => {
                let appliance = appliance.clone();
                tokio::task::spawn_blocking(move || systemd::reload(&appliance, None, None));
            }
            _ = signals.terminate.recv() => {
                tracing::info!("SIGTERM: stopping");
                return Ok(());
            }
            _ = signals.interrupt.recv() => {
                tracing::info!("SIGINT: stopping");
                return Ok(());
            }
        }
    }
}
