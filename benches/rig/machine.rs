//! What is borrowed from the machine, and given back however the run ends.

use crate::Outcome;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Lets SIGINT and SIGTERM end the run in order, with everything given back.
pub(crate) fn watch_signals() {
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (Ok(mut interrupt), Ok(mut terminate)) = (
                signal(SignalKind::interrupt()),
                signal(SignalKind::terminate()),
            ) else {
                return;
            };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            INTERRUPTED.store(true, Relaxed);
        });
    });
}

/// Whether a signal said to stop.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Relaxed)
}

/// Sleeps, unless interrupted.
pub(crate) fn sleep(time: Duration) -> Outcome<()> {
    let step = Duration::from_millis(50);
    let mut left = time;
    while !left.is_zero() {
        if interrupted() {
            return Err("interrupted".into());
        }
        std::thread::sleep(left.min(step));
        left = left.saturating_sub(step);
    }
    Ok(())
}

/// What the rig needs and does not find.
pub(crate) fn missing() -> Option<String> {
    if !in_path("dpdk-testpmd") {
        return Some("there is no dpdk-testpmd (Debian: package dpdk-dev)".to_owned());
    }
    if !rustix::process::geteuid().is_root() {
        return Some("it needs root, for huge pages".to_owned());
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores < 2).then(|| "it needs two cores, one of which polls".to_owned())
}

/// A folder for captures and the policy.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Outcome<Self> {
        let path = std::env::temp_dir().join(format!("shardwall-rig-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const PAGES: &str = "/proc/sys/vm/nr_hugepages";

/// Huge pages of 2 MB, of which there are enough for the run; afterwards as many as before.
#[derive(Debug)]
pub(crate) struct HugePages {
    before: Option<u64>,
}

impl HugePages {
    pub(crate) fn reserve(wanted: u64) -> Outcome<Self> {
        let read = || -> Outcome<u64> { Ok(fs::read_to_string(PAGES)?.trim().parse()?) };
        let before = read()?;
        let free = meminfo("HugePages_Free:");
        if free >= wanted {
            return Ok(Self { before: None });
        }
        let pages = Self {
            before: Some(before),
        };
        fs::write(PAGES, (before + wanted - free).to_string())?;
        let free = meminfo("HugePages_Free:");
        if free < wanted {
            return Err(format!("{wanted} huge pages are needed, {free} could be had").into());
        }
        Ok(pages)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            let _ = fs::write(PAGES, before.to_string());
        }
    }
}

fn meminfo(key: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// A process that does not outlive its owner.
#[derive(Debug)]
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// Nanoseconds of processor time of each thread, with its id.
    pub(crate) fn threads(&self) -> Vec<(String, u64)> {
        let folder = format!("/proc/{}/task", self.0.id());
        let Ok(tasks) = fs::read_dir(folder) else {
            return Vec::new();
        };
        let one = |task: &Path| {
            let text = fs::read_to_string(task.join("schedstat")).ok()?;
            let nanos = text.split(' ').next()?.parse().ok()?;
            Some((task.file_name()?.to_string_lossy().into_owned(), nanos))
        };
        tasks
            .flatten()
            .filter_map(|task| one(&task.path()))
            .collect()
    }

    /// Waits at most `time` for the end.
    pub(crate) fn wait(&mut self, time: Duration) -> Outcome<Option<ExitStatus>> {
        let mut left = time;
        let step = Duration::from_millis(50);
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(Some(status));
            }
            if left.is_zero() {
                return Ok(None);
            }
            sleep(step)?;
            left = left.saturating_sub(step);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Processor seconds of the `count` threads that used most between two readings of
/// [`Process::threads`].
pub(crate) fn busiest(before: &[(String, u64)], after: &[(String, u64)], count: usize) -> f64 {
    let spent = |(id, nanos): &(String, u64)| {
        let old = before.iter().find(|(other, _)| other == id);
        nanos - old.map_or(0, |(_, nanos)| *nanos).min(*nanos)
    };
    let mut all: Vec<u64> = after.iter().map(spent).collect();
    all.sort_unstable_by(|one, other| other.cmp(one));
    all.iter().take(count).sum::<u64>() as f64 / 1e9
}

/// Whether `name` is a program that can be run.
pub(crate) fn in_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).exists())
}
