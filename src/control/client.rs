//! The client's end of the API socket: what every command that talks to a running appliance uses.
//!
//! Life-cycle: one connection for one command. Concurrency: blocking, single-threaded.

use super::protocol::{Done, Line, Request, Watch, Watched};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use std::io::{self, BufRead, BufReader, Write};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long an answer may take to begin, or to go on: a reload waits for its turn.
const PATIENCE: Duration = Duration::from_secs(120);

/// Bytes that are read at once.
const PIECE: usize = 64 * 1024;

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
                stream: BufReader::with_capacity(PIECE, stream),
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
            let answer = match (self.read::<T>(&mut line)?, &written) {
                (Some(answer), _) => answer,
                (None, Err(error)) => {
                    return Err(self.lost(io::Error::new(error.kind(), error.to_string())));
                }
                (None, Ok(())) => return Err(self.lost(io::ErrorKind::UnexpectedEof.into())),
            };
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

    /// Asks for text, and gives each piece of it to `each` until it says break, as [`Client::rows`] does.
    pub fn text(
        &mut self,
        request: &Request,
        mut each: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Option<Done>, ClientError> {
        let mut line = serde_json::to_vec(request).map_err(|error| self.unreadable(error))?;
        line.push(b'\n');
        // As in `rows`.
        let written = self.stream.get_mut().write_all(&line);
        loop {
            let Some(answer) = self.read::<IgnoredAny>(&mut line)? else {
                let gone = io::ErrorKind::UnexpectedEof.into();
                return Err(self.lost(written.err().unwrap_or(gone)));
            };
            let mut left = answer.text;
            while left > 0 {
                let read = self.stream.fill_buf();
                let (taken, wanted) = match read {
                    Err(error) => return Err(self.lost(error)),
                    Ok([]) => return Err(self.lost(io::ErrorKind::UnexpectedEof.into())),
                    Ok(piece) => {
                        let taken = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                        (taken, each(&piece[..taken]))
                    }
                };
                if wanted.is_break() {
                    return Ok(None);
                }
                self.stream.consume(taken);
                left -= taken as u64;
            }
            if answer.done {
                return Ok(Some(Done {
                    done: true,
                    count: answer.count,
                }));
            }
        }
    }

    /// Watches: gives each thing told to `each`, with whether more has arrived already, until it
    /// says break or the connection ends.
    pub fn watch(
        &mut self,
        watch: Watch,
        each: impl FnMut(Watched, bool) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        self.follow(&Request::ConntrackWatch(watch), each)
    }

    /// Does so with any request whose answer comes as things happen.
    pub fn follow<T: DeserializeOwned>(
        &mut self,
        request: &Request,
        mut each: impl FnMut(T, bool) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        let mut line = serde_json::to_vec(request).map_err(|error| self.unreadable(error))?;
        line.push(b'\n');
        let stream = self.stream.get_mut();
        let asked = stream
            .set_read_timeout(None)
            .and_then(|()| stream.write_all(&line));
        asked.map_err(|error| self.lost(error))?;
        while let Some(answer) = self.read(&mut line)? {
            let more = !self.stream.buffer().is_empty();
            let broken = answer.row.is_some_and(|row| each(row, more).is_break());
            if broken || answer.done {
                break;
            }
        }
        Ok(())
    }

    /// A handle that ends the connection when it is shut down.
    pub fn interrupter(&self) -> io::Result<UnixStream> {
        self.stream.get_ref().try_clone()
    }

    /// The next line of an answer; `None` at the end of the connection.
    fn read<T: DeserializeOwned>(
        &mut self,
        line: &mut Vec<u8>,
    ) -> Result<Option<Line<T>>, ClientError> {
        line.clear();
        let read = self.stream.read_until(b'\n', line);
        if read.map_err(|error| self.lost(error))? == 0 {
            return Ok(None);
        }
        let answer: Line<T> =
            serde_json::from_slice(line).map_err(|error| self.unreadable(error))?;
        match answer.error {
            None => Ok(Some(answer)),
            Some(message) => Err(ClientError::Refused {
                message,
                diagnostics: answer.diagnostics,
            }),
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
