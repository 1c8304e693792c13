//! The control side's handle on a running appliance.
//!
//! Life-cycle: made when the workers' parts are made, shared by the control thread and its
//! helpers until the appliance stops. Concurrency: everything takes `&self`. One reload runs at a
//! time; readers of [`Appliance::reload_state`] never wait for it. Workers wait for none of this.

use super::census::Censuses;
use super::drops::Drops;
use super::events::{LogCounts, Names};
use super::logfile::LogFile;
use super::snapshot::seconds;
use super::watch::Hub;
use crate::base::rcu::Rcu;
use crate::base::time::Now;
use crate::dataplane::clock::unix_time;
use crate::dataplane::command::Command;
use crate::dataplane::shared::Shared;
use crate::dataplane::steer::BUCKETS;
use crate::policy::{self, Compiled, NoNumber, Policy, PolicyErrors, ReloadMode, restart_needed};
use crossbeam::channel::Sender;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

/// How long a reload waits for another one.
const TURN: Duration = Duration::from_secs(30);

/// What is known about a port since start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortView {
    /// Name in the policy.
    pub name: String,
    /// Device in the policy.
    pub device: String,
    /// Driver that moves its frames.
    pub driver: String,
    /// Its address; empty where it has none.
    pub mac: String,
    /// Receive queues.
    pub rx_queues: u16,
    /// Transmit queues.
    pub tx_queues: u16,
    /// State and speed of the link, in words, as it was seen last.
    pub link: String,
    /// Longest IP packet; 0 where nobody knows.
    pub mtu: u16,
    /// Whether it takes frames for whatever address.
    pub promiscuous: bool,
    /// How it spreads packets over its queues, in words.
    pub rss: String,
}

/// A port's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkView {
    /// Whether it is up.
    pub up: bool,
    /// Its speed, if the device knows.
    pub mbps: Option<u32>,
}

impl fmt::Display for LinkView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.up, self.mbps) {
            (false, _) => f.write_str("down"),
            (true, None) => f.write_str("up"),
            (true, Some(mbps)) => write!(f, "up, {mbps} Mb/s"),
        }
    }
}

/// What a port itself counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicStats {
    /// Frames that found the receive queue full.
    pub missed: u64,
    /// Frames that arrived damaged.
    pub rx_errors: u64,
    /// Receives that found no free buffer.
    pub no_buffer: u64,
    /// Frames that could not be sent.
    pub tx_errors: u64,
}

/// The ports' devices, by their places in the policy. Asked and told from several threads; these know
/// nothing.
pub trait Nics: Send + Sync {
    /// What a port counts itself.
    fn stats(&self, _port: usize) -> NicStats {
        NicStats::default()
    }

    /// What it counts beside that, by its driver's names.
    fn xstats(&self, _port: usize) -> Vec<(String, u64)> {
        Vec::new()
    }

    /// Its link; `None` where that is not to be known.
    fn link(&self, _port: usize) -> Option<LinkView> {
        None
    }

    /// The interface of the kernel's that the port stood on, if that was removed.
    fn gone(&self, _port: usize) -> Option<String> {
        None
    }

    /// Spreads packets anew: those of each bucket go to the worker that `owners` says.
    fn spread(&self, _owners: &[u8; BUCKETS]) {}
}

/// Ports without a device.
#[derive(Debug)]
struct NoNics;

impl Nics for NoNics {}

/// What an [`Appliance`] is made of.
#[derive(Debug)]
pub struct Parts {
    /// What all threads share.
    pub shared: Arc<Shared>,
    /// The workers' mailboxes, by worker.
    pub commands: Vec<Sender<Command>>,
    /// The policy file, which a reload reads again.
    pub file: PathBuf,
    /// The policy that the appliance starts with.
    pub policy: Policy,
    /// Its ports, in the policy's order.
    pub ports: Vec<PortView>,
}

/// A running appliance, seen from the control side.
pub struct Appliance {
    pub(super) shared: Arc<Shared>,
    pub(super) commands: Vec<Sender<Command>>,
    pub(super) ports: Vec<PortView>,
    pub(super) nics: Box<dyn Nics>,
    /// The links as they were seen last, and how often each has changed.
    pub(super) links: Mutex<Vec<(Option<LinkView>, u64)>>,
    /// What is known of drops beside their counts.
    pub(super) drops: Drops,
    /// How many traces run.
    pub(super) traces: AtomicUsize,
    /// Held by who moves buckets of flows.
    pub(super) moves: Mutex<()>,
    file: PathBuf,
    /// What was read at start and holds until a restart, whatever reloads bring.
    started: Policy,
    current: Mutex<Policy>,
    reloading: Mutex<()>,
    state: Mutex<ReloadState>,
    /// Of this policy and the one before, whose log lines may still be under way.
    names: Mutex<Vec<Arc<Names>>>,
    hub: Arc<Hub>,
    pub(super) censuses: Censuses,
    log_file: Option<Arc<LogFile>>,
    pub(super) logged: LogCounts,
    /// When it started, in seconds since 1970.
    pub(super) born: f64,
}

/// How the last reload went.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReloadState {
    /// Whether it worked.
    pub successful: bool,
    /// When one worked last (the start counts), in seconds since 1970.
    pub last_success: f64,
    /// How many worked since the start, which is none.
    #[serde(default)]
    pub succeeded: u64,
    /// How many changed nothing.
    #[serde(default)]
    pub failed: u64,
    /// Seconds that the last one took, whatever came of it.
    #[serde(default)]
    pub seconds: f64,
    /// Seconds of the last one that worked, from when the new policy was there until no worker went by
    /// the old one.
    #[serde(default)]
    pub grace: f64,
}

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// Number of the policy now in force.
    pub generation: u32,
    /// How many rules it has.
    pub rules: usize,
    /// How flows were treated.
    pub mode: ReloadMode,
    /// How many ended at once, because the policy would not let them begin.
    pub flows_ended: u64,
    /// What differs and takes effect only after a restart.
    pub restart_needed: Vec<String>,
    /// What is legal but looks wrong.
    pub warnings: Value,
    /// The same, for people.
    pub warnings_text: String,
}

/// Why a reload changed nothing.
#[derive(Debug)]
pub enum ReloadError {
    /// The policy is not valid.
    Policy(PolicyErrors),
    /// It has other ports than the appliance started with.
    Ports(Vec<String>),
    /// Flows could not keep their timeouts.
    Timeouts(NoNumber),
    /// Another reload does not come to its end.
    Busy,
}

impl fmt::Display for ReloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const STAYS: &str = "the policy from before stays in force";
        match self {
            Self::Policy(errors) => {
                let count = errors.errors();
                let noun = if count == 1 { "error" } else { "errors" };
                write!(f, "{errors}\npolicy not reloaded: {count} {noun}; {STAYS}")
            }
            Self::Ports(differences) => write!(
                f,
                "policy not reloaded: ports can only change with a restart ({}); {STAYS}",
                differences.join("; ")
            ),
            Self::Timeouts(why) => write!(f, "policy not reloaded: {why}; {STAYS}"),
            Self::Busy => write!(f, "policy not reloaded: another reload is still running"),
        }
    }
}

impl std::error::Error for ReloadError {}

impl ReloadError {
    /// The diagnostics, as `check --format json` has them; `null` if the policy itself is valid.
    pub fn diagnostics(&self) -> Value {
        match self {
            Self::Policy(errors) => errors.to_json(),
            _ => Value::Null,
        }
    }
}

impl fmt::Debug for Appliance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Appliance")
            .field("file", &self.file)
            .field("workers", &self.shared.workers.len())
            .field("ports", &self.ports)
            .finish_non_exhaustive()
    }
}

impl Appliance {
    /// A handle on the appliance of `parts`, whose ports have no device.
    pub fn new(parts: Parts) -> Self {
        let names = parts.shared.policy.with(Names::of);
        let ports = parts.ports.len();
        Self {
            hub: Arc::new(Hub::new(parts.shared.clone())),
            shared: parts.shared,
            commands: parts.commands,
            nics: Box::new(NoNics),
            links: Mutex::new(vec![(None, 0); ports]),
            drops: Drops::default(),
            traces: AtomicUsize::new(0),
            moves: Mutex::new(()),
            ports: parts.ports,
            file: parts.file,
            started: parts.policy.clone(),
            current: Mutex::new(parts.policy),
            reloading: Mutex::new(()),
            state: Mutex::new(ReloadState {
                successful: true,
                last_success: unix_time(),
                succeeded: 0,
                failed: 0,
                seconds: 0.0,
                grace: 0.0,
            }),
            logged: LogCounts::default(),
            born: unix_time(),
            names: Mutex::new(vec![Arc::new(names)]),
            censuses: Censuses::default(),
            log_file: None,
        }
    }

    /// With `nics` behind its ports.
    pub fn with_nics(mut self, nics: impl Nics + 'static) -> Self {
        self.nics = Box::new(nics);
        self
    }

    /// Opens `file`, the log, anew with every reload.
    pub fn with_log_file(mut self, file: Option<Arc<LogFile>>) -> Self {
        self.log_file = file;
        self
    }

    /// Opens the log anew, if it is a file; what was moved away is let go.
    pub(super) fn reopen_log(&self) {
        let Some(file) = &self.log_file else { return };
        if let Err(error) = file.reopen() {
            let path = file.path().display();
            tracing::warn!("cannot open {path}: {error}; the log goes on in the file from before");
        }
    }

    /// What all threads share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Who watches its flows.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// The policy file that the appliance started with.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The policy in force.
    pub fn policy(&self) -> Policy {
        self.current.lock().clone()
    }

    /// Number of the policy in force.
    pub fn generation(&self) -> u32 {
        self.names.lock().last().map_or(0, |names| names.generation)
    }

    /// Most flows that the appliance keeps: set at start.
    pub fn limit(&self) -> u32 {
        self.started.conntrack.max
    }

    /// Whether there is a status page: set at start.
    pub(super) fn serves_status(&self) -> bool {
        self.started.system.serves_status()
    }

    /// Most flows that helpers expect at a time: set at start.
    pub fn expect_limit(&self) -> u32 {
        self.started.conntrack.expect_max
    }

    /// How the last reload went.
    pub fn reload_state(&self) -> ReloadState {
        *self.state.lock()
    }

    /// What the rules of policy number `generation` are called, if it was in force lately.
    pub(super) fn names(&self, generation: u32) -> Option<Arc<Names>> {
        let names = self.names.lock();
        names
            .iter()
            .find(|names| names.generation == generation)
            .cloned()
    }

    /// Puts the policy in the file at `path` in force, or the file of the start, read again. All
    /// of it or nothing; flows live on, and rules that did not change keep their counts.
    ///
    /// Waits until every worker has left the old policy, so it must not run on a worker's thread.
    pub fn reload(&self, path: Option<&Path>) -> Result<ReloadReport, ReloadError> {
        self.reload_with(path, None)
    }

    /// The same, with flows treated by `mode` instead of what the new policy says.
    pub fn reload_with(
        &self,
        path: Option<&Path>,
        mode: Option<ReloadMode>,
    ) -> Result<ReloadReport, ReloadError> {
        let _turn = self.reloading.try_lock_for(TURN).ok_or(ReloadError::Busy)?;
        let clock = &self.shared.clock;
        let start = clock.now();
        let result = self.replace(path.unwrap_or(&self.file), mode);
        let mut state = self.state.lock();
        state.seconds = seconds_between(start, clock.now());
        state.successful = result.is_ok();
        match result {
            Ok(_) => {
                state.succeeded += 1;
                state.last_success = unix_time();
            }
            Err(_) => state.failed += 1,
        }
        result
    }

    fn replace(&self, path: &Path, mode: Option<ReloadMode>) -> Result<ReloadReport, ReloadError> {
        let mut checked = policy::load(path).map_err(ReloadError::Policy)?;
        checked.warn_of_time(unix_time() as u64);
        let differences = self.restart_needed(&checked.model)?;
        let generation = self.generation() + 1;
        let workers = self.shared.workers.len();
        let mode = mode.unwrap_or(checked.model.reload);
        let mut compiled = policy::compile(&checked.model, generation, workers);
        let followed = self.shared.policy.with(|old| compiled.follow(old));
        followed.map_err(ReloadError::Timeouts)?;
        if mode == ReloadMode::Rematch {
            compiled = compiled.rematching();
        }
        // Known before the first packet is judged by it, so that its log lines find their names.
        self.remember(Names::of(&compiled));
        let clock = &self.shared.clock;
        let start = clock.now();
        publish(&self.shared.policy, compiled);
        self.state.lock().grace = seconds_between(start, clock.now());
        let flows_ended = match mode {
            ReloadMode::FlushAffected => self.end_affected(),
            ReloadMode::Keep | ReloadMode::Rematch => 0,
        };
        let report = ReloadReport {
            generation,
            rules: rules(&checked.model),
            mode,
            flows_ended,
            restart_needed: differences,
            warnings: checked.warnings_json(),
            warnings_text: checked.render_warnings(),
        };
        *self.current.lock() = checked.model;
        Ok(report)
    }

    /// What of `new` would take effect only after a restart.
    ///
    /// # Errors
    /// If its ports are others: then it cannot be put in force.
    pub(super) fn restart_needed(&self, new: &Policy) -> Result<Vec<String>, ReloadError> {
        let mut differences = restart_needed(&self.started, new);
        let ports: Vec<String> = differences
            .extract_if(.., |what| what.starts_with("ports"))
            .collect();
        if !ports.is_empty() {
            return Err(ReloadError::Ports(ports));
        }
        let (before, after) = (self.limit(), new.conntrack.max);
        if before != after {
            differences.push(format!("conntrack.max: {before} became {after}"));
        }
        Ok(differences)
    }

    /// Ends the flows that the policy in force would not let begin. The policy is in force whatever
    /// comes of that, and a worker that does not answer has nothing to end.
    fn end_affected(&self) -> u64 {
        let judged = self.judge(None, true, |_| ControlFlow::Continue(()));
        judged.map_or_else(
            |error| {
                tracing::error!(%error, "not all flows were judged by the new policy");
                0
            },
            |judged| judged.ending,
        )
    }

    /// The policy in force, as it was read and as it is compiled. No reload happens meanwhile.
    pub(super) fn with_policy<R>(
        &self,
        look: impl FnOnce(&Policy, &Compiled) -> R,
    ) -> Result<R, ReloadError> {
        let _turn = self.reloading.try_lock_for(TURN).ok_or(ReloadError::Busy)?;
        let policy = self.policy();
        Ok(self.shared.policy.with(|compiled| look(&policy, compiled)))
    }

    fn remember(&self, names: Names) {
        let mut known = self.names.lock();
        if known.len() > 1 {
            known.remove(0);
        }
        known.push(Arc::new(names));
    }
}

fn seconds_between(start: Now, end: Now) -> f64 {
    seconds(end.nanos().saturating_sub(start.nanos()))
}

fn publish(policy: &Rcu<Compiled>, new: Compiled) {
    policy.replace(new, |old, new| new.carry_from(old));
}

/// How many rules a policy has; chains' policies are none.
pub fn rules(policy: &Policy) -> usize {
    let chains = policy.chains.iter().map(|chain| chain.rules.len());
    policy.raw.len() + chains.sum::<usize>()
}
