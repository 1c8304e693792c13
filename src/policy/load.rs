//! The one place of the pure layers that reads a file: the policy, whole, with a bound on its size.

use super::check::{Checked, parse};
use super::diagnostic::{Diagnostic, PolicyErrors};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Largest policy file.
pub const MAX_FILE: u64 = 16 << 20;

/// Reads the policy in the file at `path`.
pub fn load(path: &Path) -> Result<Checked, PolicyErrors> {
    let name = path.display().to_string();
    let refuse = |message: String, help: Option<&str>| {
        let about = Diagnostic::about_file(message, help.map(str::to_owned));
        PolicyErrors::new(&name, "", vec![about])
    };
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        return Err(refuse(format!("cannot read {name}: {error}"), None));
    }
    if bytes.len() as u64 > MAX_FILE {
        let help = "a policy is at most 16 MiB";
        return Err(refuse(format!("{name} is too large"), Some(help)));
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse(&name, text),
        Err(error) => {
            let line = bytes[..error.valid_up_to()]
                .iter()
                .filter(|b| **b == b'\n')
                .count()
                + 1;
            Err(refuse(
                format!("{name} is not UTF-8 text (line {line})"),
                None,
            ))
        }
    }
}
