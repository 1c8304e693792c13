//! The client's end of the API socket: what every command that talks to a running appliance uses.
//!
//! Life-cycle: one connection for one command. Concurrency: blocking, single-threaded.

use super::protocol::{Done, Line, Request};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use std::io::{self, BufRead, BufReader, Write};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long an answer may take to begin, or to go on: a reload waits for its turn.
const PATIENCE: Duration = Duration::from_secs(120);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "shardwall is not running: nothing answers at {}. Start it with `systemctl start \
         shardwall` or `shardwall run -c POLICY`; if its policy sets another system.socket, name \
         that with --socket", .0.display()
    )]
    NotRunning(PathBuf),
    /// Its socket is not for this user.
    #[error(
        "permission denied: {} belongs to the user that runs shardwall; try again as that user \
         (usually root, with sudo)", .0.display()
    )]
    Denied(PathBuf),
    /// The connection broke.
    #[error("lost the connection to {}: {error}", path.display())]
    Lost {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
    /// It answers something else than this client asked for.
    #[error(
        "cannot read the answer of {} ({error}); is it another version of shardwall?",
        path.display()
    )]
    Unreadable {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        error: serde_json::Error,
    },
    /// The appliance says no.
    #[error("{message}")]
    Refused {
        /// Why, for people.
        message: String,
        /// Diagnostics of a policy, or `null`.
        diagnostics: Value,
    },
}

/// A connection to a running appliance.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

impl Client {
    /// Connects to the appliance whose socket is at `path`.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let connected = UnixStream::connect(path).and_then(|stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(stream)
        });
        let path = path.to_owned();
        match connected {
            Ok(stream) => Ok(Self {
                stream: BufReader::new(stream),
                path,
            }),
            Err(error) => Err(match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    ClientError::NotRunning(path)
                }
                io::ErrorKind::PermissionDenied => ClientError::Denied(path),
                _ => ClientError::Lost { path, error },
            }),
        }
    }

    /// Asks, and gives each row of the answer to `each` until it says break; after that the
    /// connection is of no more use. `None` if it was broken off.
    pub fn rows<T: DeserializeOwned>(
        &mut self,
        request: &Request,
        mut each: impl FnMut(T) -> ControlFlow<()>,
    ) -> Result<Option<Done>, ClientError> {
        let mut line = serde_json::to_vec(request).map_err(|error| self.unreadable(error))?;
        line.push(b'\n');
        // A server that refuses to read on may still have said why.
        let written = self.stream.get_mut().write_all(&line);
        loop {
            line.clear();
            let read = self.stream.read_until(b'\n', &mut line);
            let read = read.and_then(|read| match (read, &written) {
                (0, Err(error)) => Err(io::Error::new(error.kind(), error.to_string())),
                (0, Ok(())) => Err(io::ErrorKind::UnexpectedEof.into()),
                _ => Ok(()),
            });
            read.map_err(|error| self.lost(error))?;
            let answer: Line<T> =
                serde_json::from_slice(&line).map_err(|error| self.unreadable(error))?;
            if let Some(message) = answer.error {
                return Err(ClientError::Refused {
                    message,
                    diagnostics: answer.diagnostics,
                });
            }
            if let Some(row) = answer.row
                && each(row).is_break()
            {
                return Ok(None);
            }
            if answer.done {
                return Ok(Some(Done {
                    done: true,
                    count: answer.count,
                }));
            }
        }
    }

    /// Asks for something whose answer is a number.
    pub fn count(&mut self, request: &Request) -> Result<u64, ClientError> {
        let done = self.rows(request, |_: IgnoredAny| ControlFlow::Continue(()))?;
        Ok(done.map_or(0, |done| done.count))
    }

    /// Asks for all rows.
    pub fn all<T: DeserializeOwned>(&mut self, request: &Request) -> Result<Vec<T>, ClientError> {
        let mut rows = Vec::new();
        self.rows(request, |row| {
            rows.push(row);
            ControlFlow::Continue(())
        })?;
        Ok(rows)
    }

    /// Asks for something whose answer is one row.
    pub fn one<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, ClientError> {
        let row = self.all(request)?.pop();
        row.ok_or_else(|| self.lost(io::ErrorKind::UnexpectedEof.into()))
    }

    fn lost(&self, error: io::Error) -> ClientError {
        let path = self.path.clone();
        ClientError::Lost { path, error }
    }

    fn unreadable(&self, error: serde_json::Error) -> ClientError {
        let path = self.path.clone();
        ClientError::Unreadable { path, error }
    }
}
