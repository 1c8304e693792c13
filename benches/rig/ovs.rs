//! Open vSwitch with its DPDK datapath on the same devices, with `ct()` or without.
//!
//! It runs with a database, sockets and logs of its own in the folder of the run, so that a switch
//! which this machine may have is left alone. Packets are counted by the polling thread
//! (`pmd-perf-show`); the counters of its pcap ports lag behind.

use crate::capture::Load;
use crate::contest::{Rate, tail};
use crate::machine::{Process, busiest, in_path, sleep};
use crate::{Outcome, Setup};
use shardwall::dataplane::clock::Clock;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Debian's build with DPDK; the one that is in the path may have none.
const SWITCH: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// Buffers of its shared pool (lib/netdev-dpdk.c), which must hold both captures.
const BUFFERS: u32 = 262_144;

/// Why it cannot take part, if it cannot.
pub(crate) fn missing(flows: u32) -> Option<String> {
    let there = Path::new(SWITCH).exists() && in_path("ovsdb-server");
    if !there {
        return Some("there is no Open vSwitch (Debian: openvswitch-switch-dpdk)".to_owned());
    }
    let most = (BUFFERS - 32_768) / 2;
    (flows > most)
        .then(|| format!("Open vSwitch has no buffers for more than {most} packets a port"))
}

/// The switch and its database; both end with this value.
struct Switch {
    // the switch goes before its database does
    switch: Process,
    _database: Process,
    folder: PathBuf,
}

impl Switch {
    fn new(setup: &Setup<'_>) -> Outcome<Self> {
        let folder = setup.scratch.file("ovs");
        std::fs::create_dir_all(&folder)?;
        let file = |name: &str| folder.join(name);
        let log = file("log");
        let _ = std::fs::remove_file(file("conf.db"));
        let spawn = |program: &str, words: &[String]| -> Outcome<Process> {
            let child = own(&folder, program)
                .args(words)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(File::options().create(true).append(true).open(&log)?)
                .spawn()
                .map_err(|error| format!("{program}: {error}"))?;
            Ok(Process(child))
        };
        let database = file("conf.db").display().to_string();
        call(&folder, &["ovsdb-tool", "create", &database, SCHEMA])?;
        let (place, remote) = (
            format!("punix:{}", file("db.sock").display()),
            format!("unix:{}", file("db.sock").display()),
        );
        let control = |name: &str| format!("--unixctl={}", file(name).display());
        let words = [database, format!("--remote={place}"), control("db.ctl")];
        let database = spawn("ovsdb-server", &words)?;
        let mask: usize = setup.polling.iter().map(|core| 1 << core).sum();
        let configure = [
            "--no-wait",
            "set",
            "Open_vSwitch",
            ".",
            "other_config:dpdk-init=true",
            "other_config:dpdk-extra=--no-pci --in-memory",
            &format!("other_config:dpdk-lcore-mask={:#x}", 1 << setup.control),
            &format!("other_config:pmd-cpu-mask={mask:#x}"),
        ];
        let vsctl = |words: &[&str]| {
            let db = format!("--db={remote}");
            call(
                &folder,
                &[&["ovs-vsctl", &db, "--timeout=30"], words].concat(),
            )
        };
        // It takes its time to listen.
        for _ in 0..100 {
            if vsctl(&["--no-wait", "init"]).is_ok() {
                break;
            }
            sleep(Duration::from_millis(50))?;
        }
        vsctl(&configure)?;
        let words = [remote.clone(), control("switch.ctl")];
        let mut switch = Self {
            switch: spawn(SWITCH, &words)?,
            _database: database,
            folder: folder.clone(),
        };
        let bridge = [
            "set",
            "bridge",
            BRIDGE,
            "datapath_type=netdev",
            "fail-mode=secure",
        ];
        let made = vsctl(&[&["add-br", BRIDGE, "--"], &bridge[..]].concat());
        for port in 0..2 {
            let name = format!("p{port}");
            made.as_ref()
                .map_err(|error| format!("{error}\n{}", tail(&log)))?;
            vsctl(&[
                "add-port",
                BRIDGE,
                &name,
                "--",
                "set",
                "Interface",
                &name,
                "type=dpdk",
                &format!("ofport_request={}", port + 1),
                &format!("options:n_rxq={}", setup.workers()),
                &format!("options:dpdk-devargs=\"{}\"", setup.device(port)),
            ])
            .map_err(|error| format!("{error}\n{}", tail(&log)))?;
        }
        if switch.switch.wait(Duration::ZERO)?.is_some() {
            return Err(format!("Open vSwitch ended early\n{}", tail(&log)).into());
        }
        Ok(switch)
    }

    /// Puts `flows` in force, in the words of ovs-ofctl.
    fn rules(&self, flows: &str) -> Outcome<()> {
        let file = self.folder.join("flows");
        std::fs::write(&file, flows)?;
        let bridge = format!(
            "unix:{}",
            self.folder.join(format!("{BRIDGE}.mgmt")).display()
        );
        let file = file.display().to_string();
        let words = ["ovs-ofctl", "-O", "OpenFlow14", "replace-flows"];
        call(&self.folder, &[&words, &[&*bridge, &file][..]].concat()).map(drop)
    }

    fn ask(&self, words: &[&str]) -> Outcome<String> {
        let target = self.folder.join("switch.ctl").display().to_string();
        call(
            &self.folder,
            &[&["ovs-appctl", "-t", &target], words].concat(),
        )
    }

    /// Packets that the polling threads received and sent so far.
    fn packets(&self) -> Outcome<(u64, u64)> {
        let text = self.ask(&["dpif-netdev/pmd-perf-show"])?;
        let sum = |key: &str| -> u64 {
            text.split(key)
                .skip(1)
                .filter_map(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
                .sum()
        };
        Ok((sum("Rx packets:"), sum("Tx packets:")))
    }

    /// Packets that matched a rule whose text has `mark`, and all that matched a rule of table 1.
    fn matched(&self, mark: &str) -> Outcome<(u64, u64)> {
        let bridge = format!(
            "unix:{}",
            self.folder.join(format!("{BRIDGE}.mgmt")).display()
        );
        let text = call(
            &self.folder,
            &[
                "ovs-ofctl",
                "-O",
                "OpenFlow14",
                "dump-flows",
                &bridge,
                "table=1",
            ],
        )?;
        let (mut marked, mut all) = (0, 0);
        for line in text.lines() {
            let count = line.split("n_packets=").nth(1);
            let count = count.and_then(|rest| rest.split(',').next()?.parse::<u64>().ok());
            all += count.unwrap_or(0);
            if line.contains(mark) {
                marked += count.unwrap_or(0);
            }
        }
        Ok((marked, all))
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        // Killed, it would leave the bridge's tap devices to the machine.
        if self.ask(&["exit", "--cleanup"]).is_ok() {
            let _ = self.switch.wait(Duration::from_secs(5));
        }
    }
}

const BRIDGE: &str = "swbench";

/// What is new is committed, what is known passes; and what comes by one port leaves by the other.
const TRACKING: &str = "\
table=0,priority=10,ip,ct_state=-trk,actions=ct(table=1)
table=1,priority=10,ip,ct_state=+trk+new,in_port=1,actions=ct(commit),output:2
table=1,priority=10,ip,ct_state=+trk+new,in_port=2,actions=ct(commit),output:1
table=1,priority=10,ip,ct_state=+trk+est,in_port=1,actions=output:2
table=1,priority=10,ip,ct_state=+trk+est,in_port=2,actions=output:1
";
const PLAIN: &str = "\
in_port=1,actions=output:2
in_port=2,actions=output:1
";

/// A command that knows the folder of the run instead of those of the system.
fn own(folder: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    for name in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
        command.env(name, folder);
    }
    command
}

fn call(folder: &Path, words: &[&str]) -> Outcome<String> {
    let output = own(folder, words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error}", words[0]))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("`{}` failed: {}", words.join(" "), said.trim()).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Forwarding, with `ct()` where `tracks`.
pub(crate) fn ovs(setup: &Setup<'_>, tracks: bool) -> Outcome<Rate> {
    let switch = Switch::new(setup)?;
    switch.rules(if tracks { TRACKING } else { PLAIN })?;
    sleep(Duration::from_secs(setup.warm_up))?;
    let clock = Clock::start();
    let (matched, begun) = (switch.matched("+new")?, clock.now().nanos());
    let (start, before) = (switch.packets()?, switch.switch.threads());
    sleep(Duration::from_secs(setup.seconds))?;
    let (end, after) = (switch.packets()?, switch.switch.threads());
    let nanos = clock.now().nanos() - begun;
    let (received, sent) = (end.0 - start.0, end.1 - start.1);
    if received == 0 || (sent as f64) < received as f64 * 0.99 {
        let log = tail(&switch.folder.join("log"));
        return Err(format!("Open vSwitch: {received} received, {sent} sent\n{log}").into());
    }
    let workers = setup.workers();
    let busy = busiest(&before, &after, workers);
    let rate = Rate::new(received as f64 / 1e6, nanos, busy, workers);
    if setup.captures.load == Load::Known || !tracks {
        return Ok(rate);
    }
    // Its rules are told what they matched only now and then.
    let (new, all) = switch.matched("+new")?;
    let share = (new - matched.0) as f64 / (all - matched.1).max(1) as f64;
    if (share - setup.captures.openings()).abs() > 0.01 {
        return Err(format!("Open vSwitch: {share:.3} of the packets began a flow").into());
    }
    Ok(rate.times(share))
}
