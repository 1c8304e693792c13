//! Reads the files of sets: an entry a line, `#` begins a comment.
//!
//! What is wrong in a file is told with its own lines and columns; what is wrong with a file as a
//! whole is told where the policy names it.
//!
//! Life-cycle and concurrency: as `check`. Getting the bytes is the caller's (`Files`).

use super::sets::{Draft, Entry};
use super::{Checker, fnv1a_on};
use crate::policy::diagnostic::Elsewhere;
use crate::policy::ranges::BadRange;
use crate::policy::yaml::{Kind, Node};

/// Most bytes that all files of one policy have together.
pub(super) const MAX_BYTES: usize = 256 << 20;
/// Errors of one file that are told.
const TOLD: usize = 20;
/// Errors of one file that are counted.
const COUNTED: usize = 1000;
/// Longest entry: two IPv6 addresses are shorter.
const LONGEST: usize = 100;

impl Checker<'_> {
    /// Adds what stands in the files that `node` names to `draft`.
    pub(super) fn read_files(&mut self, node: &Node, draft: &mut Draft<'_>) {
        let names = match &node.kind {
            Kind::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        if names.is_empty() {
            self.sink.error(node.place, "`file` lists nothing");
            draft.broken = true;
        }
        for item in names {
            let good = self.read_file(item, draft).is_some();
            draft.broken |= !good;
        }
    }

    /// `None` if anything was wrong, which was reported.
    fn read_file(&mut self, node: &Node, draft: &mut Draft<'_>) -> Option<()> {
        let name = self.scalar(node, "`file`")?;
        let bytes = match (self.files)(name) {
            Ok(bytes) => bytes,
            Err(why) => {
                let message = format!("cannot read `{name}`: {why}");
                self.sink.error(node.place, message);
                return None;
            }
        };
        match self.file_room.checked_sub(bytes.len()) {
            Some(room) => self.file_room = room,
            None => {
                let most = MAX_BYTES >> 20;
                let message = format!("the files of a policy have at most {most} MiB together");
                self.sink.error(node.place, message);
                return None;
            }
        }
        self.hash = fnv1a_on(fnv1a_on(self.hash, name.as_bytes()), &bytes);
        let text = match std::str::from_utf8(&bytes) {
            Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
            Err(error) => {
                let before = &bytes[..error.valid_up_to()];
                let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
                let message = format!("`{name}` is not UTF-8 text (line {line})");
                self.sink.error(node.place, message);
                return None;
            }
        };
        let mut errors = 0;
        for (number, line) in (1..).zip(text.lines()) {
            let entry = line.split('#').next().unwrap_or_default();
            let text = entry.trim();
            if text.is_empty() {
                continue;
            }
            let Err(bad) = self.file_entry(text, draft) else {
                continue;
            };
            errors += 1;
            if errors <= TOLD {
                let start = entry.len() - entry.trim_start().len();
                let length = text.chars().take(LONGEST).count();
                let at = Elsewhere {
                    file: name.to_owned(),
                    line: number,
                    column: line[..start].chars().count() as u32 + 1,
                    length: length as u32,
                    source: line.chars().take(5 * LONGEST).collect(),
                };
                let diagnostic = self.sink.error_elsewhere(node.place, at, bad.message);
                diagnostic.help = bad.help;
            }
            if errors == COUNTED {
                break;
            }
        }
        if let Some(more) = errors.checked_sub(TOLD).filter(|more| *more > 0) {
            let least = if errors == COUNTED { "at least " } else { "" };
            let message = format!("and {least}{more} more errors in `{name}`");
            self.sink.error(node.place, message);
        }
        (errors == 0).then_some(())
    }

    fn file_entry(&mut self, text: &str, draft: &mut Draft<'_>) -> Result<(), BadRange> {
        let bad = |message: String, help: Option<&str>| BadRange {
            message,
            help: help.map(str::to_owned),
        };
        if text.len() > LONGEST {
            let message = format!("an entry has at most {LONGEST} bytes");
            return Err(bad(message, Some("one entry a line")));
        }
        if text.starts_with(['$', '!']) {
            let message = "a file can neither refer to sets nor negate".to_owned();
            return Err(bad(
                message,
                Some("write `entries: [$other]` beside `file`"),
            ));
        }
        let entry = Entry::parse(text, &self.ports)?;
        draft.add(entry).map_err(|[known, other]| {
            bad(format!("`{text}`: the set mixes {known} and {other}"), None)
        })
    }
}
