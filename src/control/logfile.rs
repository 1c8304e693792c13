//! The log as a file, opened anew when it was moved away.
//!
//! Life-cycle: opened at start, and again with each reload, so that whoever rotates logs sends
//! SIGHUP as ever. What cannot be written, on a full disk, is lost and counted; standard error is told
//! once, and again when lines are written. Concurrency: any thread writes, a line at a time, under a lock
//! that workers never take.

use parking_lot::Mutex;
use rustix::fs::OFlags;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A log file.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Lines in a row that could not be written.
    lost: u64,
}

impl LogFile {
    /// Opens the file at `path`, or makes it, to write at its end.
    ///
    /// # Errors
    /// If that cannot be, or if it is no regular file.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            open: Mutex::new(Open {
                file: open(path)?,
                lost: 0,
            }),
        })
    }

    /// Opens it anew, wherever the one from before is now.
    ///
    /// # Errors
    /// As [`LogFile::open`]; then the file from before stays in use.
    pub fn reopen(&self) -> io::Result<()> {
        let file = open(&self.path)?;
        self.open.lock().file = file;
        Ok(())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn open(path: &Path) -> io::Result<File> {
    let file = File::options()
        .append(true)
        .create(true)
        .mode(0o640)
        // to be refused, a FIFO must not wait for a reader first
        .custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    Ok(file)
}

impl LogFile {
    /// Writes a line whole or not at all: what follows half of one could not be read.
    #[allow(clippy::print_stderr)] // where else could it be said?
    fn line(&self, line: &[u8]) {
        let mut open = self.open.lock();
        let before = open.file.metadata().map(|about| about.len());
        let written = open.file.write_all(line);
        let path = self.path.display();
        match (written, open.lost) {
            (Ok(()), 0) => {}
            (Ok(()), lost) => {
                eprintln!("shardwall: the log {path} goes on; {lost} lines of it are lost");
                open.lost = 0;
            }
            (Err(error), lost) => {
                if let Ok(len) = before {
                    let _ = open.file.set_len(len);
                }
                if lost == 0 {
                    eprintln!(
                        "shardwall: cannot write the log {path}: {error}; its lines are lost until \
                         they can be written"
                    );
                }
                open.lost += 1;
            }
        }
    }
}

impl Write for &LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.line(line);
        Ok(line.len())
    }

    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        self.line(line);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_that_was_moved_is_opened_anew() {
        let dir = std::env::temp_dir().join(format!("shardwall-log-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (path, moved) = (dir.join("log"), dir.join("log.1"));
        fs::write(&path, "before\n").unwrap();
        let log = LogFile::open(&path).unwrap();
        (&log).write_all(b"one\n").unwrap();
        fs::rename(&path, &moved).unwrap();
        (&log).write_all(b"two\n").unwrap();
        log.reopen().unwrap();
        (&log).write_all(b"three\n").unwrap();
        assert_eq!(fs::read_to_string(&moved).unwrap(), "before\none\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
        // without a place for a new one, the one from before goes on
        fs::remove_dir_all(&dir).unwrap();
        assert!(log.reopen().is_err());
        (&log).write_all(b"four\n").unwrap();
        assert!(LogFile::open(Path::new("/dev/null")).is_err());
    }
}
