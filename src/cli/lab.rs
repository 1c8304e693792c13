//! A laboratory: two network namespaces with an appliance between them, for `shardwall demo` and
//! for the end-to-end tests.
//!
//! The appliance runs where the caller is, on two `net_tap` devices; the kernel's ends of these
//! move into the namespaces `…-lan` and `…-wan`, which share one subnet, since the box is
//! transparent. Everything is named after this process. What a crashed run left behind is removed
//! at the next start; what this run made is removed when the [`Lab`] is dropped, and the processes
//! end with it even if it is killed (a parent-death signal sees to that).

use rustix::process::{Pid, kill_process};
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::UdpSocket;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

pub use rustix::process::Signal;

/// Address of the inside, IPv4 and IPv6.
pub const INSIDE: (&str, &str) = ("10.77.0.1", "fd77::1");
/// Address of the outside.
pub const OUTSIDE: (&str, &str) = ("10.77.0.2", "fd77::2");

/// What went wrong, with the command or file.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Namespaces need root.
    #[error(
        "network namespaces need root; run as root, or inside \
         `unshare --user --map-root-user --net --mount`"
    )]
    NotRoot,
    /// A program that is not there.
    #[error("cannot start {program}: {source} (deploy/setup.sh installs what is missing)")]
    Program {
        /// Its name.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program that failed.
    #[error("`{command}` failed: {said}")]
    Failed {
        /// What was run.
        command: String,
        /// What it said.
        said: String,
    },
    /// The appliance ended, or never answered.
    #[error("the appliance did not start: {0}")]
    Appliance(String),
    /// A file.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A process that ends with its owner.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal. One that has ended already gets none.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end, `secs` seconds at most.
    pub fn wait(&mut self, secs: u32) -> Option<ExitStatus> {
        for _ in 0..secs * 50 {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            pause(20);
        }
        None
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.signal(Signal::TERM);
            if self.wait(5).is_none() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
    }
}

/// Sleeps for `millis` milliseconds.
pub fn pause(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null());
    command
}

/// Runs a program to its end; an error if it fails.
pub fn run(words: &[&str]) -> Result<Output, LabError> {
    let output = output(words)?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(LabError::Failed {
        command: words.join(" "),
        said,
    })
}

/// Runs a program to its end, whatever its exit code.
pub fn output(words: &[&str]) -> Result<Output, LabError> {
    command(words).output().map_err(|source| LabError::Program {
        program: words[0].into(),
        source,
    })
}

/// Whether this process may make network namespaces.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs a program as root of a user namespace of its own, with network and mounts of its own,
/// which is all that a [`Lab`] needs; how it ended.
pub fn as_root_of_a_namespace(words: &[&str]) -> Result<ExitStatus, LabError> {
    // ip(8) keeps its namespaces in /run, which belongs to the real root.
    let inside = "mount -t tmpfs tmpfs /run && exec \"$0\" \"$@\"";
    let unshare = [
        "unshare",
        "--user",
        "--map-root-user",
        "--net",
        "--mount",
        "sh",
        "-c",
        inside,
    ];
    let mut command = command(&[&unshare, words].concat());
    let status = command.status();
    status.map_err(|source| LabError::Program {
        program: "unshare".into(),
        source,
    })
}

/// A network namespace; removed with its value.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one. A name that begins with a kind and a process id can be cleaned up after
    /// ([`remove_leftovers`]).
    pub fn new(name: String) -> Result<Self, LabError> {
        run(&["ip", "netns", "add", &name])?;
        let made = Self { name };
        run(&["ip", "-n", &made.name, "link", "set", "lo", "up"])?;
        Ok(made)
    }

    /// Its name, for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a program in it to its end.
    pub fn output(&self, words: &[&str]) -> Result<Output, LabError> {
        output(&[&["ip", "netns", "exec", &self.name], words].concat())
    }

    /// Starts a program in it; its output goes to `log`.
    pub fn spawn(&self, words: &[&str], dir: &Path, log: &Path) -> Result<Process, LabError> {
        let inside = ["ip", "netns", "exec", &self.name];
        start(&[&inside, words].concat(), dir, log)
    }

    /// Ends every process in it.
    pub fn end_all(&self) {
        end_all(&self.name);
    }

    /// Takes an interface in, gives it both addresses, and brings it up.
    fn adopt(&self, interface: &str, (v4, v6): (&str, &str)) -> Result<(), LabError> {
        let name = self.name.as_str();
        run(&["ip", "link", "set", interface, "netns", name])?;
        run(&["ip", "-n", name, "link", "set", interface, "up"])?;
        run(&[
            "ip",
            "-n",
            name,
            "addr",
            "add",
            &format!("{v4}/24"),
            "dev",
            interface,
        ])?;
        let v6 = format!("{v6}/64");
        run(&[
            "ip", "-n", name, "addr", "add", &v6, "dev", interface, "nodad",
        ])
        .map(drop)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove_namespace(&self.name);
    }
}

/// Ends what runs in a namespace of ours, so that nobody outlives it: a server that changed its
/// user has lost the parent-death signal, and what it started never had one.
fn end_all(name: &str) {
    let pids = run(&["ip", "netns", "pids", name]).map(|out| out.stdout);
    let pids = String::from_utf8(pids.unwrap_or_default()).unwrap_or_default();
    for pid in pids
        .lines()
        .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
    {
        let _ = kill_process(pid, Signal::KILL);
    }
}

fn remove_namespace(name: &str) {
    end_all(name);
    let _ = run(&["ip", "netns", "del", name]);
}

/// Starts a program that ends with this process; its output goes to `log`.
pub fn start(words: &[&str], dir: &Path, log: &Path) -> Result<Process, LabError> {
    let failed = |source| LabError::File {
        path: log.into(),
        source,
    };
    let out = File::options()
        .create(true)
        .append(true)
        .open(log)
        .map_err(failed)?;
    let err = out.try_clone().map_err(failed)?;
    let child = command(&[&["setpriv", "--pdeathsig", "TERM", "--"], words].concat())
        .current_dir(dir)
        // ^C at the terminal is for us, who then stop the others in order.
        .process_group(0)
        .stdout(out)
        .stderr(err)
        .spawn()
        .map_err(|source| LabError::Program {
            program: words[0].into(),
            source,
        })?;
    Ok(Process { child })
}

/// Two namespaces and the appliance between them.
#[derive(Debug)]
pub struct Lab {
    /// First: the appliance goes before its ports do.
    appliance: Option<Process>,
    /// Behind the port `lan`.
    pub lan: Namespace,
    /// Behind the port `wan`.
    pub wan: Namespace,
    /// Files of this run.
    pub dir: PathBuf,
    binary: PathBuf,
    tag: String,
}

impl Lab {
    /// Removes what crashed runs left, and makes the namespaces. `kind` names the laboratory;
    /// `binary` is the shardwall to use.
    pub fn new(kind: &str, binary: &Path) -> Result<Self, LabError> {
        if !is_root() {
            return Err(LabError::NotRoot);
        }
        remove_leftovers(kind);
        let tag = format!("{kind}{}", std::process::id());
        let dir = std::env::temp_dir().join(format!("shardwall-{tag}"));
        fs::create_dir_all(&dir).map_err(|source| LabError::File {
            path: dir.clone(),
            source,
        })?;
        // For those who are in a namespace of their own already.
        let _ = run(&["ip", "link", "set", "lo", "up"]);
        Ok(Self {
            appliance: None,
            lan: Namespace::new(format!("{tag}-lan"))?,
            wan: Namespace::new(format!("{tag}-wan"))?,
            dir,
            binary: binary.into(),
            tag,
        })
    }

    /// The head of every policy of this laboratory: ports, bridge, and a `system` that disturbs
    /// no other appliance. `more` goes into `system`.
    pub fn head(&self, workers: u16, metrics: &str, more: &str) -> String {
        let (lan, wan) = (self.interface("l"), self.interface("w"));
        let socket = self.socket();
        format!(
            "version: 1\n\
             ports:\n  lan: {{ device: \"net_tap0,iface={lan}\" }}\n  \
             wan: {{ device: \"net_tap1,iface={wan}\" }}\n\
             bridge:\n  - [lan, wan]\n\
             system: {{ workers: {workers}, metrics: {metrics}, socket: {}{more} }}\n",
            socket.display(),
        )
    }

    fn interface(&self, side: &str) -> String {
        format!("sw{}{side}", self.tag)
    }

    /// The appliance's control socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("control.sock")
    }

    /// The policy file.
    pub fn policy(&self) -> PathBuf {
        self.dir.join("policy.yaml")
    }

    /// What the appliance wrote.
    pub fn log(&self) -> PathBuf {
        self.dir.join("appliance.log")
    }

    /// Writes the policy file.
    pub fn write_policy(&self, text: &str) -> Result<(), LabError> {
        let path = self.policy();
        fs::write(&path, text).map_err(|source| LabError::File { path, source })
    }

    /// Starts the appliance under the policy file and wires the namespaces to it.
    pub fn start(&mut self) -> Result<(), LabError> {
        let (binary, policy) = (self.binary.clone(), self.policy());
        let words = [
            &*binary.to_string_lossy(),
            "run",
            "-c",
            &*policy.to_string_lossy(),
        ];
        let mut appliance = start(&words, &self.dir, &self.log())?;
        self.await_ready(&mut appliance)?;
        self.appliance = Some(appliance);
        self.lan.adopt(&self.interface("l"), INSIDE)?;
        self.wan.adopt(&self.interface("w"), OUTSIDE)
    }

    fn await_ready(&self, appliance: &mut Process) -> Result<(), LabError> {
        for _ in 0..1000 {
            if appliance.ended().is_some() {
                break;
            }
            if self
                .shardwall(&["stats"])
                .is_ok_and(|out| out.status.success())
            {
                return Ok(());
            }
            pause(20);
        }
        let mut said = String::new();
        let _ = File::open(self.log()).and_then(|mut log| log.read_to_string(&mut said));
        Err(LabError::Appliance(said.trim().to_owned()))
    }

    /// The appliance's process.
    pub fn appliance(&mut self) -> Option<&mut Process> {
        self.appliance.as_mut()
    }

    /// Stops the appliance and says how it ended.
    pub fn stop(&mut self) -> Option<ExitStatus> {
        let mut appliance = self.appliance.take()?;
        appliance.signal(Signal::TERM);
        appliance.wait(20)
    }

    /// Runs a shardwall command against this appliance.
    pub fn shardwall(&self, words: &[&str]) -> Result<Output, LabError> {
        let (binary, socket) = (self.binary.to_string_lossy(), self.socket());
        output(&[&[&*binary, "--socket", &*socket.to_string_lossy()], words].concat())
    }

    /// Waits until something in `namespace` answers on a TCP port (of IPv4, locally).
    pub fn await_port(&self, namespace: &Namespace, port: u16) -> Result<(), LabError> {
        let probe = format!("exec 3<>/dev/tcp/127.0.0.1/{port}");
        for _ in 0..250 {
            if namespace.output(&["bash", "-c", &probe])?.status.success() {
                return Ok(());
            }
            pause(20);
        }
        Err(LabError::Failed {
            command: format!("wait for port {port}"),
            said: "nobody".into(),
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(self.appliance.take());
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A TCP port that nobody uses at this moment.
pub fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .map_or(0, |a| a.port())
}

/// Removes namespaces and folders of laboratories of this kind whose process is gone.
pub fn remove_leftovers(kind: &str) {
    let dead = |pid: &str| {
        !pid.is_empty()
            && pid.bytes().all(|byte| byte.is_ascii_digit())
            && !Path::new("/proc").join(pid).exists()
    };
    let names = |dir: &Path| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    };
    for name in names(Path::new("/run/netns")) {
        let pid = name
            .strip_prefix(kind)
            .and_then(|rest| rest.split('-').next());
        if pid.is_some_and(dead) {
            remove_namespace(&name);
        }
    }
    let temporary = std::env::temp_dir();
    for name in names(&temporary) {
        if name
            .strip_prefix("shardwall-")
            .and_then(|rest| rest.strip_prefix(kind))
            .is_some_and(dead)
        {
            let _ = fs::remove_dir_all(temporary.join(name));
        }
    }
}
