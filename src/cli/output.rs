//! Where a command's output goes, and what its failure becomes.
//!
//! Life-cycle: one for one command. A reader that has gone away (`| head`) is no failure.

use super::args::Format;
use crate::control::ClientError;
use serde::Serialize;
use serde_json::{Value, json};
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

/// What a command is given to print to.
pub(super) struct Output<'a> {
    pub(super) format: Format,
    pub(super) out: &'a mut dyn Write,
    pub(super) err: &'a mut dyn Write,
}

pub(super) type Result<T = (), E = Failure> = std::result::Result<T, E>;

/// Why a command failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// It has said why.
    Told,
    /// What it was asked for cannot be had: the exit code, and why.
    Refused(u8, String),
    /// The appliance could not be asked, or says no.
    Client(ClientError),
    /// Its output cannot be written.
    Output(io::Error),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Output(error.into())
    }
}

impl Output<'_> {
    /// Runs a command on standard output and standard error.
    pub(super) fn standard(
        format: Format,
        run: impl FnOnce(&mut Output<'_>) -> Result,
    ) -> ExitCode {
        Self::standard_code(format, |output| output.finish(run))
    }

    /// Runs a command that has exit codes of its own.
    pub(super) fn standard_code(
        format: Format,
        run: impl FnOnce(&mut Output<'_>) -> ExitCode,
    ) -> ExitCode {
        let mut stdout = BufWriter::new(io::stdout().lock());
        let mut stderr = io::stderr().lock();
        run(&mut Output {
            format,
            out: &mut stdout,
            err: &mut stderr,
        })
    }

    /// Runs a command, and says why it failed if it did.
    pub(super) fn finish(&mut self, run: impl FnOnce(&mut Output<'_>) -> Result) -> ExitCode {
        let result = run(self).and_then(|()| Ok(self.out.flush()?));
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => self.explain(failure),
        }
    }

    fn explain(&mut self, failure: Failure) -> ExitCode {
        let mut code = ExitCode::FAILURE;
        let told = match failure {
            Failure::Told => Ok(()),
            Failure::Refused(number, why) => {
                code = ExitCode::from(number);
                writeln!(self.err, "shardwall: {why}")
            }
            Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return ExitCode::SUCCESS;
            }
            Failure::Output(error) => writeln!(self.err, "shardwall: cannot write: {error}"),
            Failure::Client(ClientError::Refused {
                message,
                diagnostics,
            }) if self.format == Format::Json && !diagnostics.is_null() => {
                self.json_line(&json!({ "error": message, "diagnostics": diagnostics }))
            }
            // A policy's diagnostics have a layout of their own.
            Failure::Client(ClientError::Refused {
                message,
                diagnostics: Value::Array(_),
            }) => writeln!(self.err, "{}", message.trim_end()),
            Failure::Client(error) => writeln!(self.err, "shardwall: {error}"),
        };
        // Where else could it be said?
        let _ = told.and_then(|()| self.out.flush());
        code
    }

    fn json_line(&mut self, value: &Value) -> io::Result<()> {
        writeln!(self.out, "{value:#}")
    }

    /// Prints `value` as JSON.
    pub(super) fn json(&mut self, value: &impl Serialize) -> Result {
        serde_json::to_writer_pretty(&mut *self.out, value)?;
        writeln!(self.out)?;
        Ok(())
    }

    /// Whether JSON is wanted.
    pub(super) fn is_json(&self) -> bool {
        self.format == Format::Json
    }
}
