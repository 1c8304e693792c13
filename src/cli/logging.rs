//! The log of a running appliance: lines on standard error, which the journal takes as they are;
//! fields in the journal; or JSON lines in a file.

use crate::control::logfile::LogFile;
use crate::policy::LogTo;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::Arc;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

/// What takes the lines.
type Lines = Box<dyn Layer<Registry> + Send + Sync>;

/// Logs to `to` from here on, or to standard error if that cannot be, at the level that `RUST_LOG`
/// names, or "info". Does nothing if there is a log already. Returns the file, if it is one.
pub fn init(to: &LogTo) -> Option<Arc<LogFile>> {
    let (lines, file, trouble) = match to {
        LogTo::Stderr => (stderr(), None, None),
        LogTo::Journal => match journal() {
            Ok(journal) => (journal, None, None),
            Err(error) => (stderr(), None, Some(format!("no journal here: {error}"))),
        },
        LogTo::File(path) => match LogFile::open(path) {
            Ok(file) => {
                let file = Arc::new(file);
                (json(file.clone()), Some(file), None)
            }
            Err(error) => (stderr(), None, Some(cannot_open(path, &error))),
        },
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let _ = tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .try_init();
    if let Some(trouble) = trouble {
        tracing::warn!("{trouble}; logging to standard error");
    }
    file
}

fn cannot_open(path: &Path, error: &io::Error) -> String {
    format!("cannot open {}: {error}", path.display())
}

/// Under systemd without times, which the journal adds.
fn stderr() -> Lines {
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        lines.without_time().boxed()
    } else {
        lines.boxed()
    }
}

/// The fields of an event as the journal's, named like `SHARDWALL_RULE`.
fn journal() -> io::Result<Lines> {
    let journal = tracing_journald::layer()?;
    Ok(journal.with_field_prefix(Some("SHARDWALL".into())).boxed())
}

/// An object a line, the fields of the event beside time and level.
fn json(file: Arc<LogFile>) -> Lines {
    tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_writer(file)
        .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a mount namespace with a tmpfs on `/run`, where no journal is disturbed.
    #[test]
    #[ignore = "takes the journal's place at /run/systemd/journal/socket"]
    fn the_journal_gets_fields() {
        let socket = Path::new("/run/systemd/journal/socket");
        assert!(!socket.exists(), "there is a journal here");
        assert!(journal().is_err());
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let place = std::os::unix::net::UnixDatagram::bind(socket).unwrap();
        let subscriber = tracing_subscriber::registry().with(journal().unwrap());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "shardwall::rule", rule = "forward/ssh", sport = 7, "seen");
        });
        let mut datagram = [0; 4096];
        let text = loop {
            let len = place.recv(&mut datagram).unwrap();
            let text = String::from_utf8_lossy(&datagram[..len]).into_owned();
            // the first is empty, to see whether anybody listens
            if !text.is_empty() {
                break text;
            }
        };
        for field in [
            "SHARDWALL_RULE",
            "forward/ssh",
            "SHARDWALL_SPORT",
            "MESSAGE",
            "seen",
        ] {
            assert!(text.contains(field), "{field}: {text}");
        }
        std::fs::remove_file(socket).unwrap();
    }

    #[test]
    fn a_file_gets_an_object_a_line() {
        let path = std::env::temp_dir().join(format!("shardwall-json-{}", std::process::id()));
        let file = Arc::new(LogFile::open(&path).unwrap());
        let subscriber = tracing_subscriber::registry().with(json(file));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "shardwall::rule", rule = "forward/\"x\"\n", sport = Some(7));
            tracing::warn!("two");
        });
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["rule"], "forward/\"x\"\n");
        assert_eq!(lines[0]["sport"], 7);
        assert_eq!(lines[0]["level"], "INFO");
        assert_eq!(lines[1]["message"], "two");
        assert!(lines[1]["timestamp"].is_string());
    }
}
