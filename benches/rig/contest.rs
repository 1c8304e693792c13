//! Those who forward, and how their packets are counted.

use crate::machine::{Process, busiest, sleep};
use crate::rules::{RuleSet, Style};
use crate::{Outcome, Setup, mbufs};
use shardwall::control::snapshot::Stats;
use shardwall::control::{Client, Request};
use shardwall::dataplane::clock::Clock;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What one run came to: packets, or flows where these are counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    /// Millions a second, both ports together.
    pub(crate) mpps: f64,
    /// The same for seconds in which the polling threads had a processor.
    pub(crate) cpu: f64,
    /// What was received and not sent, of a hundred.
    pub(crate) lost: f64,
}

impl Rate {
    /// `count` millions in `nanos`, while `workers` threads polled for `cpu` seconds together.
    pub(crate) fn new(millions: f64, nanos: u64, cpu: f64, workers: usize) -> Self {
        let seconds = nanos as f64 / 1e9;
        let share = cpu / workers as f64 / seconds;
        let mpps = millions / seconds;
        Self {
            mpps,
            cpu: mpps / share.clamp(0.01, 1.0),
            lost: 0.0,
        }
    }

    /// So many flows a packet.
    pub(crate) fn times(self, share: f64) -> Self {
        Self {
            mpps: self.mpps * share,
            cpu: self.cpu * share,
            ..self
        }
    }
}

impl Setup<'_> {
    /// The device of a port, in DPDK's words.
    pub(crate) fn device(&self, port: usize) -> String {
        let mut device = format!("net_pcap{port}");
        for file in &self.captures.files[port] {
            device.push_str(&format!(",rx_pcap={}", file.display()));
        }
        device + ",infinite_rx=1"
    }

    /// How many threads poll.
    pub(crate) fn workers(&self) -> usize {
        self.polling.len()
    }
}

/// The last lines of `path`, for messages.
pub(crate) fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(6)..].join("\n")
}

/// testpmd forwarding in `mode`, asked for its counters before and after.
pub(crate) fn testpmd(setup: &Setup<'_>, mode: &str) -> Outcome<Rate> {
    let flows = setup.captures.flows;
    let log = setup.scratch.file("testpmd.log");
    let mut command = Command::new("dpdk-testpmd");
    // The main thread is lcore 0, those that poll are numbered from 1, wherever they run.
    let mut lcores = format!("0@{}", setup.control);
    for (at, core) in setup.polling.iter().enumerate() {
        lcores.push_str(&format!(",{}@{core}", at + 1));
    }
    let workers = setup.workers();
    command
        .args(["--lcores", &lcores, "--main-lcore", "0"])
        .args(["--no-pci", "--in-memory", "--log-level=1"])
        .args(["--vdev", &setup.device(0), "--vdev", &setup.device(1), "--"])
        .args(["--interactive", &format!("--nb-cores={workers}")])
        .arg(format!("--rxq={workers}"))
        .arg(format!("--txq={workers}"))
        .arg(format!("--forward-mode={mode}"))
        .arg(format!("--total-num-mbufs={}", mbufs(flows)));
    let child = command
        .stdin(Stdio::piped())
        .stdout(File::create(&log)?)
        .stderr(File::options().append(true).open(&log)?)
        .spawn()?;
    let mut process = Process(child);
    let mut stdin = process.0.stdin.take().ok_or("no pipe to testpmd")?;
    let fail = |what: &str| format!("testpmd {what}:\n{}", tail(&log));
    writeln!(stdin, "start")?;
    // It reads its commands once the ports are up; its polling thread then runs without a pause.
    let mut polls = false;
    for _ in 0..100 {
        let before = process.threads();
        if process.wait(Duration::from_millis(200))?.is_some() {
            return Err(fail("ended early").into());
        }
        let after = process.threads();
        // The main thread is busy too, while it fills the pools.
        let id = process.0.id().to_string();
        let polling = |list: Vec<(String, u64)>| -> Vec<(String, u64)> {
            list.into_iter()
                .filter(|(thread, _)| *thread != id)
                .collect()
        };
        polls = busiest(&polling(before), &polling(after), 1) > 0.05;
        if polls {
            break;
        }
    }
    if !polls {
        return Err(fail("does not forward").into());
    }
    sleep(Duration::from_secs(setup.warm_up))?;
    let clock = Clock::start();
    let (start, before) = (clock.now().nanos(), process.threads());
    writeln!(stdin, "show port stats all")?;
    sleep(Duration::from_secs(setup.seconds))?;
    let (end, after) = (clock.now().nanos(), process.threads());
    writeln!(stdin, "show port stats all")?;
    writeln!(stdin, "stop\nquit")?;
    if process.wait(Duration::from_secs(20))?.is_none() {
        return Err(fail("does not end").into());
    }
    let text = fs::read_to_string(&log)?;
    // `stop` shows counters of its own.
    let text = text.split("Telling cores to").next().unwrap_or_default();
    let received = shown(text, "RX-packets:");
    let sent = shown(text, "TX-packets:");
    let (&[a0, b0, a1, b1], &[c0, d0, c1, d1]) = (&received[..], &sent[..]) else {
        return Err(fail("did not show its counters twice").into());
    };
    let (moved, left) = (a1 + b1 - a0 - b0, c1 + d1 - c0 - d0);
    // What is received between the two counters of one port, or waits to be sent, is no loss.
    if (left as f64) < moved as f64 * 0.999 {
        return Err(format!("testpmd {mode} lost packets: {moved} received, {left} sent").into());
    }
    // The rates that it shows itself are of its own clock, from the first request to the second.
    let rates = shown(text, "Rx-pps:");
    let [.., x, y] = rates[..] else {
        return Err(fail("did not show its rates").into());
    };
    let nanos = end - start;
    let millions = (x + y) as f64 / 1e6 * (nanos as f64 / 1e9);
    Ok(Rate::new(
        millions,
        nanos,
        busiest(&before, &after, workers),
        workers,
    ))
}

/// Every number behind `key`, in order.
fn shown(text: &str, key: &str) -> Vec<u64> {
    text.split(key)
        .skip(1)
        .filter_map(|rest| rest.split_whitespace().next()?.parse().ok())
        .collect()
}

/// What a policy of the rig begins with.
pub(crate) fn head(setup: &Setup<'_>, socket: &Path) -> String {
    let cores: Vec<String> = setup.polling.iter().map(usize::to_string).collect();
    format!(
        "version: 1\n\
         ports:\n  a: {{ device: \"{}\" }}\n  b: {{ device: \"{}\" }}\n\
         bridge: [[a, b]]\n\
         system:\n  cores: [{}]\n  mbufs: {}\n  metrics: off\n  socket: {}\n\
         conntrack: {{ max: {} }}\n",
        setup.device(0),
        setup.device(1),
        cores.join(", "),
        mbufs(setup.captures.flows),
        socket.display(),
        setup.captures.limit(),
    )
}

/// The policy of the run: `rules` rules, all of which accept, as does what comes behind them.
fn policy(setup: &Setup<'_>, socket: &Path) -> String {
    let style = Style {
        end: "accept",
        accepts: true,
        ..Style::USUAL
    };
    let text = RuleSet::new(setup.rules, 1).policy(&head(setup, socket), &style);
    own_ports(&text)
}

/// Writes it to the file at `path`.
pub(crate) fn plain(setup: &Setup<'_>, path: &Path, socket: &Path) -> Outcome<()> {
    let text = policy(setup, socket);
    shardwall::policy::parse("policy.yaml", &text)?;
    Ok(fs::write(path, text)?)
}

/// With the names that the ports of the rig have.
pub(crate) fn own_ports(policy: &str) -> String {
    policy
        .replace("iif: lan", "iif: a")
        .replace("iif: wan", "iif: b")
}

/// Starts the appliance with the policy in the file at `path`, and waits until it forwards.
pub(crate) fn start(setup: &Setup<'_>, path: &Path, socket: &Path) -> Outcome<Process> {
    let log = setup.scratch.file("shardwall.log");
    let child = Command::new(&setup.binary)
        .args(["run", "-c"])
        .arg(path)
        .stdin(Stdio::null())
        .stdout(File::create(&log)?)
        .stderr(File::options().append(true).open(&log)?)
        .spawn()
        .map_err(|error| format!("{}: {error}", setup.binary.display()))?;
    let mut process = Process(child);
    for _ in 0..100 {
        if let Some(status) = process.wait(Duration::from_millis(200))? {
            return Err(format!("`run` ended early ({status})\n{}", tail(&log)).into());
        }
        let answer = Client::connect(socket).and_then(|mut client| client.one(&Request::Stats {}));
        if answer.is_ok_and(|stats: Stats| stats.packets.received > 0) {
            return Ok(process);
        }
    }
    Err(format!("it does not forward\n{}", tail(&log)).into())
}

/// Ends the appliance as an operator does.
pub(crate) fn stop(process: &mut Process) -> Outcome<()> {
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&process.0),
        rustix::process::Signal::TERM,
    )?;
    match process.wait(Duration::from_secs(10))? {
        Some(_) => Ok(()),
        None => Err("it does not end on SIGTERM".into()),
    }
}

/// The appliance, asked for its counters before and after.
pub(crate) fn shardwall(setup: &Setup<'_>) -> Outcome<Rate> {
    let socket = setup.scratch.file("control.sock");
    let path = setup.scratch.file("policy.yaml");
    plain(setup, &path, &socket)?;
    let mut process = start(setup, &path, &socket)?;
    sleep(Duration::from_secs(setup.warm_up))?;
    let mut client = Client::connect(&socket)?;
    let clock = Clock::start();
    let (start, cpu) = (clock.now().nanos(), process.threads());
    let before: Stats = client.one(&Request::Stats {})?;
    sleep(Duration::from_secs(setup.seconds))?;
    let (end, cpu_after) = (clock.now().nanos(), process.threads());
    let after: Stats = client.one(&Request::Stats {})?;
    drop(client);
    stop(&mut process)?;
    let moved = |of: fn(&Stats) -> u64| of(&after) - of(&before);
    let received = moved(|stats| stats.packets.received);
    let forwarded = moved(|stats| stats.packets.forwarded);
    let begun = moved(|stats| stats.conntrack.insert);
    let lost = 1.0 - forwarded as f64 / received.max(1) as f64;
    // Of several workers, one that has no processor cannot take what others hand to it, and who replays
    // a capture does not wait.
    if lost > 0.001 && setup.workers() == 1 {
        return Err(format!("it lost packets: {received} received, {forwarded} sent").into());
    }
    // What the capture promises must be what the flow table saw.
    let share = begun as f64 / received.max(1) as f64;
    if (share - setup.captures.openings()).abs() > 0.005 {
        return Err(format!("{begun} of {received} packets began a flow").into());
    }
    let counted = if begun > 0 && setup.captures.openings() > 0.0 {
        begun
    } else {
        forwarded
    };
    let workers = setup.workers();
    let busy = busiest(&cpu, &cpu_after, workers);
    Ok(Rate {
        lost: lost.max(0.0) * 100.0,
        ..Rate::new(counted as f64 / 1e6, end - start, busy, workers)
    })
}
