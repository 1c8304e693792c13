//! The log of a running appliance: lines on standard error, which the journal takes as they are.

use std::io::{self, IsTerminal};
use tracing_subscriber::EnvFilter;

/// Logs from here on, at the level that `RUST_LOG` names, or "info". Under systemd without times,
/// which the journal adds. Does nothing if there is a log already.
pub fn init() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    let _ = if std::env::var_os("JOURNAL_STREAM").is_some() {
        log.without_time().try_init()
    } else {
        log.try_init()
    };
}
