//! Puts the workers together and on their cores.
//!
//! [`launch`] makes everything that workers share, starts one thread for each view of the ports
//! that it is given, and returns the control side's ends. [`Running::stop`] ends the threads and
//! gives the ports back.

use super::clock::Clock;
use super::command::{self, Command};
use super::handoff::Rings;
use super::idle::Idle;
use super::io::Io;
use super::shared::Shared;
use super::steer::Steering;
use super::worker::{LogEvent, Parts, Worker};
use crate::base::hash::HashKey;
use crate::base::rcu::{Domain, Rcu};
use crate::conntrack::limit::Budget;
use crate::pipeline::Pipeline;
use crate::pipeline::defrag::{Defrag, Limits};
use crate::policy::Compiled;
use core_affinity::CoreId;
use crossbeam::channel::{Receiver, Sender, bounded};
use std::any::Any;
use std::sync::Arc;
use std::thread::JoinHandle;

/// Log events that may wait for the control thread.
const LOG_QUEUE: usize = 4096;

/// Where the workers run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// One core for each worker; empty leaves it to the scheduler.
    pub cores: Vec<usize>,
    /// What idle workers do.
    pub idle: Idle,
}

impl Placement {
    /// `workers` workers on the cores that this process may use. The first core is left to the
    /// control thread if there is one to spare; if there is not, idle workers yield.
    pub fn choose(workers: usize) -> Self {
        let all: Vec<usize> = core_affinity::get_core_ids()
            .unwrap_or_default()
            .iter()
            .map(|core| core.id)
            .collect();
        if all.len() > workers {
            return Self {
                cores: all[all.len() - workers..].to_vec(),
                idle: Idle::Spin,
            };
        }
        let cores = all.iter().copied().cycle().take(workers).collect();
        Self {
            cores,
            idle: Idle::Yield,
        }
    }
}

/// Why the workers could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A core that is not there, or not allowed.
    #[error("worker {worker} cannot run on core {core}; this process may use cores {allowed:?}")]
    Core {
        /// The worker.
        worker: usize,
        /// The core.
        core: usize,
        /// What there is.
        allowed: Vec<usize>,
    },
    /// No thread.
    #[error("cannot start a worker's thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// The running workers, from the control side.
#[derive(Debug)]
pub struct Running<I> {
    /// What all share.
    pub shared: Arc<Shared>,
    /// Each worker's mailbox.
    pub commands: Vec<Sender<Command>>,
    /// What rules want logged.
    pub log: Receiver<LogEvent>,
    threads: Vec<JoinHandle<I>>,
}

impl<I> Running<I> {
    /// Stops the workers and gives their ports back. A worker that panicked gives nothing back.
    pub fn stop(self) -> Vec<I> {
        self.shared.stop();
        self.threads
            .into_iter()
            .filter_map(|thread| thread.join().ok())
            .collect()
    }
}

/// Starts one worker for each of `ios`, among whom `steering` divides the flows. `enter` runs first
/// on each worker's thread, and what it returns lives as long as the worker.
pub fn launch<I>(
    policy: Compiled,
    ios: Vec<I>,
    placement: &Placement,
    steering: Arc<Steering>,
    enter: impl Fn() -> Box<dyn Any> + Send + Sync + 'static,
) -> Result<Running<I>, LaunchError>
where
    I: Io + Send + 'static,
    I::Buf: 'static,
{
    let workers = ios.len();
    let allowed: Vec<usize> = core_affinity::get_core_ids()
        .unwrap_or_default()
        .iter()
        .map(|core| core.id)
        .collect();
    for (worker, core) in placement.cores.iter().copied().enumerate() {
        if !allowed.contains(&core) {
            return Err(LaunchError::Core {
                worker,
                core,
                allowed,
            });
        }
    }
    let budget = Arc::new(Budget::new(policy.conntrack().max, workers as u32));
    let expecters = Pipeline::expecters(&budget, workers, policy.conntrack().expect_max);
    let clock = Clock::start();
    let (domain, readers) = Domain::new(workers);
    let shared = Arc::new(Shared::new(Rcu::new(domain, policy), steering, clock));
    let (log, log_events) = bounded(LOG_QUEUE);
    let secret = HashKey::random();
    let enter = Arc::new(enter);
    let mut commands = Vec::new();
    let mut threads = Vec::new();
    let parts = ios
        .into_iter()
        .zip(Rings::mesh(workers))
        .zip(readers)
        .zip(expecters)
        .enumerate();
    for (id, (((io, rings), reader), expecter)) in parts {
        let (mailbox, requests) = command::mailbox();
        commands.push(mailbox);
        let core = placement.cores.get(id).copied();
        let (all, log, enter) = (shared.clone(), log.clone(), enter.clone());
        let budget = budget.clone();
        let (idle, now) = (placement.idle, clock.now());
        let thread = std::thread::Builder::new()
            .name(format!("worker-{id}"))
            .spawn(move || {
                if let Some(id) = core {
                    core_affinity::set_for_current(CoreId { id });
                }
                let _registered = enter();
                // On its own core, so that its memory is near.
                let counters = all.workers[id].path.clone();
                let defrag = Defrag::new(Limits::DEFAULT, HashKey::random(), counters.clone());
                let mut pipeline = Pipeline::sharing(id, budget, expecter, secret, now, counters);
                pipeline.shard_mut().populate();
                let events = all.workers[id].events.clone();
                pipeline.shard_mut().report_to(events);
                Worker::new(Parts {
                    id,
                    io,
                    pipeline,
                    defrag,
                    rings,
                    commands: requests,
                    log,
                    reader,
                    shared: all,
                    idle,
                })
                .run()
            });
        match thread {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                // The others wait for every worker before they finish.
                (id..workers).for_each(|_| shared.park());
                let started = Running {
                    shared,
                    commands,
                    log: log_events,
                    threads,
                };
                drop(started.stop());
                return Err(error.into());
            }
        }
    }
    Ok(Running {
        shared,
        commands,
        log: log_events,
        threads,
    })
}
