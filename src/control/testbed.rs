//! A whole appliance in memory, for tests: two ports, real worker threads, the control side's
//! handle, a folder of its own for policy and socket.

use super::appliance::{Appliance, Parts, PortView};
use super::listeners::Listeners;
use super::thread::Control;
use crate::base::hash::HashKey;
use crate::base::rcu::{Domain, Rcu};
use crate::base::toeplitz::SymmetricKey;
use crate::conntrack::limit::Budget;
use crate::dataplane::clock::Clock;
use crate::dataplane::command::mailbox;
use crate::dataplane::handoff::Rings;
use crate::dataplane::idle::Idle;
use crate::dataplane::memory::MemoryIo;
use crate::dataplane::shared::Shared;
use crate::dataplane::steer::{BUCKETS, Steering};
use crate::dataplane::worker::{self, LogEvent, Worker};
use crate::pipeline::Pipeline;
use crate::pipeline::defrag::{Defrag, Limits};
use crate::policy::{self, PortId};
use crate::wire::Addrs;
use crate::wire::build::{Segment, frame};
use crossbeam::channel::{Receiver, bounded};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// What [`Bed`] starts with.
pub(crate) const RULES: &str = "chains:
  forward:
    policy: drop
    rules:
      - { name: known, ct: [established, related], action: accept }
      - { name: outbound, iif: lan, ct: new, action: accept, log: { prefix: out } }
";

/// [`RULES`], and a helper that listens to TFTP.
pub(crate) const HELPED: &str = "helpers:
  - { name: boot, helper: tftp, dport: 69 }
chains:
  forward:
    policy: drop
    rules:
      - { name: known, ct: [established, related], action: accept }
      - { name: outbound, iif: lan, ct: new, action: accept }
";

/// A request that has the server answer from another port.
pub(crate) const READ: &[u8] = b"\0\x01file\0octet\0";

/// Where hosts behind `lan` send to: 10.9.0.1.
const SERVER: u32 = 0x0a09_0001;

/// A folder that goes with its owner.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("sw-test-{}-{next}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An appliance with two ports in memory.
pub(crate) struct Bed {
    pub(crate) appliance: Arc<Appliance>,
    pub(crate) folder: Folder,
    io: MemoryIo,
    workers: usize,
    events: Option<Receiver<LogEvent>>,
    threads: Vec<JoinHandle<()>>,
    control: Option<Control>,
}

impl Bed {
    /// With its workers running.
    pub(crate) fn new(workers: usize) -> Self {
        Self::under(workers, RULES)
    }

    /// With its workers running, under `rules`.
    pub(crate) fn under(workers: usize, rules: &str) -> Self {
        let (mut bed, made) = Self::build(workers, rules);
        bed.threads = made
            .into_iter()
            .map(|mut worker| {
                let shared = bed.appliance.shared().clone();
                // Sleeps when there is nothing to do, so that many tests fit one machine.
                std::thread::spawn(move || {
                    while !shared.stopping() {
                        if worker.turn(shared.clock.now()) == 0 {
                            std::thread::sleep(Duration::from_micros(100));
                        }
                    }
                    worker.run();
                })
            })
            .collect();
        bed
    }

    /// With workers that never run.
    pub(crate) fn without_workers(workers: usize) -> Self {
        Self::build(workers, RULES).0
    }

    fn build(workers: usize, rules: &str) -> (Self, Vec<Worker<MemoryIo>>) {
        let folder = Folder::new();
        let file = folder.join("policy.yaml");
        fs::write(&file, text(&folder, workers, rules)).unwrap();
        let checked = policy::load(&file).unwrap();
        let clock = Clock::start();
        let (domain, readers) = Domain::new(workers);
        let compiled = policy::compile(&checked.model, 1, workers);
        let key = SymmetricKey::new(0x6d5a);
        let steering = Steering::new(key, HashKey::from_seed(2), workers, BUCKETS);
        let policy = Rcu::new(domain, compiled);
        let shared = Arc::new(Shared::new(policy, steering, clock));
        let io = MemoryIo::new(2, workers);
        let outer = io[0].clone();
        let (log, events) = bounded(1024);
        let mut commands = Vec::new();
        let budget = Arc::new(Budget::new(4096, workers as u32));
        let expecters = Pipeline::expecters(&budget, workers, 64);
        let made = io
            .into_iter()
            .zip(Rings::mesh(workers))
            .zip(readers)
            .zip(expecters)
            .enumerate()
            .map(|(id, (((io, rings), reader), expecter))| {
                let (sender, receiver) = mailbox();
                commands.push(sender);
                let path = shared.workers[id].path.clone();
                let secret = HashKey::from_seed(1);
                let defrag = Defrag::new(Limits::DEFAULT, HashKey::from_seed(3), path.clone());
                let (budget, now) = (budget.clone(), clock.now());
                let mut pipeline = Pipeline::sharing(id, budget, expecter, secret, now, path);
                let events = shared.workers[id].events.clone();
                pipeline.shard_mut().report_to(events);
                Worker::new(worker::Parts {
                    id,
                    io,
                    defrag,
                    pipeline,
                    rings,
                    commands: receiver,
                    log: log.clone(),
                    reader,
                    shared: shared.clone(),
                    idle: Idle::Yield,
                })
            })
            .collect();
        let ports = checked.model.ports.iter().map(|port| PortView {
            name: port.name.clone(),
            device: port.device.clone(),
            driver: "memory".into(),
            rx_queues: workers as u16,
            tx_queues: workers as u16,
            link: "up".into(),
            ..PortView::default()
        });
        let appliance = Appliance::new(Parts {
            shared,
            commands,
            file,
            ports: ports.collect(),
            policy: checked.model,
        });
        let bed = Self {
            appliance: Arc::new(appliance),
            folder,
            io: outer,
            workers,
            events: Some(events),
            threads: Vec::new(),
            control: None,
        };
        (bed, made)
    }

    /// Replaces the policy file's rules (everything from `chains:` on, or other sections too).
    pub(crate) fn write_policy(&self, rules: &str) {
        let text = text(&self.folder, self.workers, rules);
        fs::write(self.appliance.file(), text).unwrap();
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("control.sock")
    }

    /// Starts the control thread; returns where metrics are.
    pub(crate) fn start_control(&mut self) -> std::net::SocketAddr {
        let listeners = Listeners::bind(&self.appliance.policy().system).unwrap();
        let metrics = listeners.metrics().unwrap();
        let events = self.events.take().unwrap();
        let control = Control::start(self.appliance.clone(), listeners, events).unwrap();
        self.control = Some(control);
        metrics
    }

    pub(crate) fn events(&mut self) -> Receiver<LogEvent> {
        self.events.take().unwrap()
    }

    /// Sends a UDP datagram from host `host` behind `lan`, and waits until it was judged.
    pub(crate) fn send(&self, host: u32) {
        self.ask(host, 53, b"query");
    }

    /// Lets a datagram of host `host` behind `lan` arrive, and does not wait.
    pub(crate) fn feed(&self, host: u32) {
        let addrs = Addrs::V4 {
            src: 0x0a00_0000 + host,
            dst: SERVER,
        };
        let (sport, dport) = (4000, 53);
        let frame = frame(addrs, Segment::Udp { sport, dport }, b"query");
        let queue = host as usize % self.workers;
        self.io.wire(PortId(0)).lock().arriving[queue].push_back(frame);
    }

    /// The bucket of the flow that [`Bed::feed`] and [`Bed::send`] send a packet of.
    pub(crate) fn bucket(&self, host: u32) -> u8 {
        let src = 0x0a00_0000 + host;
        let words = src ^ SERVER;
        let folded = (words ^ words >> 16) as u16 ^ 4000 ^ 53;
        self.appliance.shared().steering.bucket_of(folded)
    }

    /// Sends `payload` from port 4000 of host `host` behind `lan` to port `dport` of the server.
    pub(crate) fn ask(&self, host: u32, dport: u16, payload: &[u8]) {
        let addrs = Addrs::V4 {
            src: 0x0a00_0000 + host,
            dst: SERVER,
        };
        let queue = host as usize % self.workers;
        self.deliver(PortId(0), queue, addrs, (4000, dport), payload);
    }

    /// Sends a datagram from port `sport` of the server behind `wan` to port 4000 of host `host`; it
    /// comes in by `queue`.
    pub(crate) fn answer(&self, host: u32, sport: u16, queue: usize) {
        let addrs = Addrs::V4 {
            src: SERVER,
            dst: 0x0a00_0000 + host,
        };
        self.deliver(PortId(1), queue, addrs, (sport, 4000), b"answer");
    }

    fn deliver(
        &self,
        port: PortId,
        queue: usize,
        addrs: Addrs,
        (sport, dport): (u16, u16),
        payload: &[u8],
    ) {
        let before = self.judged();
        let frame = frame(addrs, Segment::Udp { sport, dport }, payload);
        self.io.wire(port).lock().arriving[queue].push_back(frame);
        wait(|| self.judged() > before);
    }

    /// Frames that were forwarded or dropped.
    pub(crate) fn judged(&self) -> u64 {
        let packets = self.appliance.stats().packets;
        packets.forwarded + packets.dropped
    }

    /// Frames that left by `wan`.
    pub(crate) fn sent(&self) -> usize {
        self.io.wire(PortId(1)).lock().sent.len()
    }

    /// Lets `frame` arrive at `port`, and waits until it was judged.
    pub(crate) fn pass(&self, port: PortId, frame: &[u8]) {
        let before = self.judged();
        self.io.wire(port).lock().arriving[0].push_back(frame.to_vec());
        wait(|| self.judged() > before);
    }

    /// Ends all threads, and waits for them.
    pub(crate) fn stop(&mut self) {
        self.appliance.shared().stop();
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
        if let Some(control) = self.control.take() {
            control.join();
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
        self.appliance.shared().stop();
    }
}

fn text(folder: &Folder, workers: usize, rules: &str) -> String {
    let socket = folder.join("control.sock");
    let bridge = match rules.contains("bridge:") {
        true => "",
        false => "bridge:\n  - [lan, wan]\n",
    };
    format!(
        "version: 1\nports:\n  lan: {{ device: net_null0 }}\n  wan: {{ device: net_null1 }}\n\
         {bridge}system:\n  workers: {workers}\n  metrics: 127.0.0.1:0\n  \
         socket: {}\n{rules}",
        socket.display()
    )
}

/// Waits for something that must come true soon.
pub(crate) fn wait(mut done: impl FnMut() -> bool) {
    for _ in 0..20_000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    panic!("waited for 10 seconds");
}

/// The permission bits of a file.
pub(crate) fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}
