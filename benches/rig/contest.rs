//! Those who forward, and how their packets are counted.

use crate::machine::{Process, busiest, sleep};
use crate::{Outcome, Setup, mbufs};
use serde_json::Value;
use shardwall::dataplane::clock::Clock;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What one run came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    /// Millions of packets a second, both ports together.
    pub(crate) mpps: f64,
    /// The same for a second of processor time of the polling thread.
    pub(crate) cpu: f64,
}

impl Setup<'_> {
    fn device(&self, port: usize) -> String {
        let capture = [&self.captures.forward, &self.captures.reply][port];
        format!("net_pcap{port},rx_pcap={},infinite_rx=1", capture.display())
    }
}

/// The last lines of `path`, for messages.
fn tail(path: &Path) -> String {
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
    command
        .args(["-l", &format!("{},{}", setup.control, setup.polling)])
        .args(["--main-lcore", &setup.control.to_string()])
        .args(["--no-pci", "--in-memory", "--log-level=1"])
        .args(["--vdev", &setup.device(0), "--vdev", &setup.device(1), "--"])
        .args(["--interactive", "--nb-cores=1"])
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
        polls = busiest(&polling(before), &polling(after)) > 0.05;
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
    let mpps = (x + y) as f64 / 1e6;
    Ok(rate(mpps, end - start, busiest(&before, &after)))
}

/// Every number behind `key`, in order.
fn shown(text: &str, key: &str) -> Vec<u64> {
    text.split(key)
        .skip(1)
        .filter_map(|rest| rest.split_whitespace().next()?.parse().ok())
        .collect()
}

fn rate(mpps: f64, nanos: u64, cpu_seconds: f64) -> Rate {
    let share = cpu_seconds / (nanos as f64 / 1e9);
    Rate {
        mpps,
        cpu: mpps / share.clamp(0.01, 1.0),
    }
}

/// What a policy of the rig begins with.
pub(crate) fn head(setup: &Setup<'_>, socket: &Path) -> String {
    let flows = setup.captures.flows;
    format!(
        "version: 1\n\
         ports:\n  a: {{ device: \"{}\" }}\n  b: {{ device: \"{}\" }}\n\
         bridge: [[a, b]]\n\
         system:\n  cores: [{}]\n  mbufs: {}\n  metrics: off\n  socket: {}\n\
         conntrack: {{ max: {} }}\n",
        setup.device(0),
        setup.device(1),
        setup.polling,
        mbufs(flows),
        socket.display(),
        flows + flows / 4 + 1024,
    )
}

/// The policy of the run.
fn policy(setup: &Setup<'_>, socket: &Path) -> String {
    let head = head(setup, socket);
    format!(
        "{head}chains:\n  forward:\n    policy: drop\n    rules:\n      \
         - {{ name: known, ct: [established, related], action: accept }}\n      \
         - {{ name: fresh, ct: new, action: accept }}\n"
    )
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
        if stats(setup, socket).is_ok_and(|(received, _)| received > 0) {
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

/// The appliance with a policy of two rules, asked for its counters before and after.
pub(crate) fn shardwall(setup: &Setup<'_>) -> Outcome<Rate> {
    let socket = setup.scratch.file("control.sock");
    let path = setup.scratch.file("policy.yaml");
    let text = policy(setup, &socket);
    shardwall::policy::parse("policy.yaml", &text)?;
    fs::write(&path, text)?;
    let mut process = start(setup, &path, &socket)?;
    sleep(Duration::from_secs(setup.warm_up))?;
    let clock = Clock::start();
    let (start, cpu) = (clock.now().nanos(), process.threads());
    let before = stats(setup, &socket)?;
    sleep(Duration::from_secs(setup.seconds))?;
    let (end, cpu_after) = (clock.now().nanos(), process.threads());
    let after = stats(setup, &socket)?;
    let (received, forwarded) = (after.0 - before.0, after.1 - before.1);
    if (forwarded as f64) < received as f64 * 0.999 {
        return Err(format!("it lost packets: {received} received, {forwarded} sent").into());
    }
    stop(&mut process)?;
    let mpps = forwarded as f64 / 1e6 / ((end - start) as f64 / 1e9);
    Ok(rate(mpps, end - start, busiest(&cpu, &cpu_after)))
}

/// Frames received and forwarded so far, over all workers.
fn stats(setup: &Setup<'_>, socket: &Path) -> Outcome<(u64, u64)> {
    let output = Command::new(&setup.binary)
        .args(["stats", "--format", "json", "--socket"])
        .arg(socket)
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let stats: Value = serde_json::from_slice(&output.stdout)?;
    let number = |key: &str| {
        let found = stats["packets"].get(key).and_then(Value::as_u64);
        found.ok_or_else(|| format!("`stats` does not say {key}"))
    };
    Ok((number("received")?, number("forwarded")?))
}
