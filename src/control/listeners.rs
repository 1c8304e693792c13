//! The sockets that the appliance listens on, bound before its workers start, so that one that
//! cannot be had stops the start with a plain message.
//!
//! The API socket is bound in a directory that only its owner can enter, given mode 0600, and
//! then renamed into place: it is never there with other permissions, and never half ready. A
//! lock file beside it, which says whose it is, tells a running appliance from what a crashed one left.
//!
//! Life-cycle: bound once; the socket file goes when the [`ApiListener`] is dropped, the lock
//! with it. Concurrency: two appliances that start at once find one lock.

use crate::policy::System;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::net::{self, TcpListener};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Why the appliance cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The metrics address is taken.
    #[error(
        "metrics: {0} is already in use by another program; set system.metrics in the policy to \
         another address, or to off"
    )]
    MetricsInUse(net::SocketAddr),
    /// The metrics address cannot be used.
    #[error("metrics: cannot listen on {address} (system.metrics in the policy): {error}")]
    Metrics {
        /// The address.
        address: net::SocketAddr,
        /// What went wrong.
        error: io::Error,
    },
    /// Another appliance runs.
    #[error(
        "another shardwall is running{}: it holds {}; stop it, or set system.socket in the policy \
         to another path", process(*pid), path.display()
    )]
    Running {
        /// Its socket.
        path: PathBuf,
        /// Its process, if it says.
        pid: Option<u32>,
    },
    /// Something that is no socket is in the way.
    #[error(
        "{} exists and is not a socket; remove it, or set system.socket in the policy to another \
         path", .0.display()
    )]
    NotASocket(PathBuf),
    /// The API socket cannot be made.
    #[error(
        "control socket: cannot {step} {} (system.socket in the policy): {error}", path.display()
    )]
    Socket {
        /// What was tried.
        step: &'static str,
        /// On which path.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
}

fn process(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

/// Everything that the control thread listens on.
#[derive(Debug)]
pub struct Listeners {
    pub(super) api: ApiListener,
    pub(super) metrics: Option<TcpListener>,
}

impl Listeners {
    /// Binds what the policy's `system` names.
    pub fn bind(system: &System) -> Result<Self, StartError> {
        let api = ApiListener::bind(&system.socket)?;
        let metrics = system.metrics.map(bind_metrics).transpose()?;
        Ok(Self { api, metrics })
    }

    /// Where metrics are served; the port is the real one if the policy's is 0.
    pub fn metrics(&self) -> Option<net::SocketAddr> {
        self.metrics.as_ref()?.local_addr().ok()
    }
}

fn bind_metrics(address: net::SocketAddr) -> Result<TcpListener, StartError> {
    let listener = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => StartError::MetricsInUse(address),
        _ => StartError::Metrics { address, error },
    })
}

/// The API socket.
#[derive(Debug)]
pub struct ApiListener {
    pub(super) listener: UnixListener,
    path: PathBuf,
    _lock: File,
}

impl ApiListener {
    /// Listens at `path`.
    pub fn bind(path: &Path) -> Result<Self, StartError> {
        let failed = |step, path: &Path| {
            let path = path.to_owned();
            move |error| StartError::Socket { step, path, error }
        };
        // Bound under a shorter name, it would come into being where nobody can connect to it.
        SocketAddr::from_pathname(path).map_err(failed("use", path))?;
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o750).create(folder);
        made.map_err(failed("make the directory", folder))?;
        let lock = lock(path)?;
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(StartError::NotASocket(path.into()));
            }
            // Not one of ours, which would hold the lock, but alive.
            Ok(_) if UnixStream::connect(path).is_ok() => {
                let path = path.into();
                return Err(StartError::Running { path, pid: None });
            }
            Ok(_) => tracing::info!(
                path = %path.display(),
                "removing the control socket of a run that ended without cleaning up"
            ),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("look at", path)(error)),
        }
        let listener = bind_private(folder, path).map_err(failed("bind", path))?;
        Ok(Self {
            listener,
            path: path.into(),
            _lock: lock,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ApiListener {
    fn drop(&mut self) {
        // The lock is still held, so it is this socket and no other.
        let _ = fs::remove_file(&self.path);
    }
}

fn lock(path: &Path) -> Result<File, StartError> {
    let mut name = OsString::from(path);
    name.push(".lock");
    let name = PathBuf::from(name);
    let opened = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .open(&name);
    let lock = opened.map_err(|error| StartError::Socket {
        step: "open the lock file",
        path: name.clone(),
        error,
    })?;
    match lock.try_lock() {
        Ok(()) => {
            // For whoever comes later; that it is there is enough, whatever it says.
            let _ = lock.set_len(0);
            let _ = writeln!(&lock, "{}", std::process::id());
            Ok(lock)
        }
        Err(TryLockError::WouldBlock) => Err(StartError::Running {
            path: path.into(),
            pid: fs::read_to_string(&name)
                .ok()
                .and_then(|text| text.trim().parse().ok()),
        }),
        Err(TryLockError::Error(error)) => Err(StartError::Socket {
            step: "lock",
            path: name,
            error,
        }),
    }
}

fn bind_private(folder: &Path, path: &Path) -> io::Result<UnixListener> {
    // Short names: a socket's path has 107 bytes at most.
    let private = folder.join(format!(".{}", std::process::id()));
    let socket = private.join("s");
    let clean = || {
        let _ = fs::remove_file(&socket);
        let _ = fs::remove_dir(&private);
    };
    clean();
    DirBuilder::new().mode(0o700).create(&private)?;
    let bound = UnixListener::bind(&socket).and_then(|listener| {
        fs::set_permissions(&socket, Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        fs::rename(&socket, path)?;
        Ok(listener)
    });
    clean();
    bound
}
