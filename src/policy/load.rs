//! The one place of the pure layers that reads files: the policy, and those that its sets name,
//! each whole, with a bound on its size. Nothing here waits: what is no regular file is refused.
//!
//! Life-cycle: nothing is kept between two calls. Concurrency: none; the caller's thread reads.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use super::check::{Checked, parse_with};
use super::diagnostic::{Diagnostic, PolicyErrors};
use crate::helpers::INFOS;

/// Largest policy file: 100,000 rules of 300 bytes each. What needs more room is addresses, and they
/// may stand in files of their own.
pub const MAX_POLICY: u64 = 32 << 20;
/// Largest file of a set.
const MAX_SET: u64 = 64 << 20;

/// Reads the policy in the file at `path`. Files of sets are looked for in its folder.
pub fn load(path: &Path) -> Result<Checked, PolicyErrors> {
    let name = path.display().to_string();
    let refuse = |message: String| {
        let about = Diagnostic::about_file(message, None);
        PolicyErrors::new(&name, "", vec![about])
    };
    let bytes = read(path, MAX_POLICY);
    let bytes = bytes.map_err(|why| refuse(format!("cannot read {name}: {why}")))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse_with(&name, text, &INFOS, &|file| {
            read(&folder.join(file), MAX_SET)
        }),
        Err(error) => {
            let before = &bytes[..error.valid_up_to()];
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            Err(refuse(format!("{name} is not UTF-8 text (line {line})")))
        }
    }
}

/// The content of the regular file at `path`, of at most `most` bytes, or why there is none.
fn read(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let too_large = || format!("it is larger than {} MiB", most >> 20);
    let mut file = open(path)?;
    let before = file.metadata().map_err(|error| error.to_string())?;
    regular(&before)?;
    if before.len() > most {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(before.len() as usize + 1);
    let limited = (&mut file).take(most + 1);
    { limited }
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    if bytes.len() as u64 > most {
        return Err(too_large());
    }
    // half of it from before a change and half from after would be neither
    let after = file.metadata().map_err(|error| error.to_string())?;
    let state = |about: &Metadata| (about.len(), about.modified().ok());
    if state(&before) != state(&after) {
        return Err("it changed while it was read".to_owned());
    }
    Ok(bytes)
}

fn open(path: &Path) -> Result<File, String> {
    // opening a FIFO waits for who writes to it, and some devices do things when opened
    regular(&std::fs::metadata(path).map_err(|error| error.to_string())?)?;
    File::options()
        .read(true)
        .custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32)
        .open(path)
        .map_err(|error| error.to_string())
}

fn regular(about: &Metadata) -> Result<(), String> {
    let kind = about.file_type();
    let what = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a pipe",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(format!("it is {what}, not a file"))
}
