//! What checking a policy has to say: errors and warnings, each with the place in the file that it
//! is about, rendered for people (underlined, in colourless Unicode) or as JSON.
//!
//! Life-cycle: a [`Sink`] collects while one policy is read; it ends as a list that is sorted by
//! place and no longer changes. Concurrency: plain values, nothing shared.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// How bad a [`Diagnostic`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The policy cannot be used.
    Error,
    /// Legal, but probably not what was meant.
    Warning,
}

/// One thing that is wrong, or looks wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong, in one line.
    pub message: String,
    /// Line, counted from 1; 0 where the file itself is the trouble (missing, unreadable).
    pub line: u32,
    /// Column in characters, counted from 1; 0 with line 0.
    pub column: u32,
    /// How many characters the underlined text has.
    pub length: u32,
    /// What to do about it.
    pub help: Option<String>,
    /// In the policy; of a diagnostic about another file, where the policy names that file.
    #[serde(skip)]
    place: Place,
    #[serde(skip)]
    elsewhere: Option<Box<Elsewhere>>,
    /// Whether to look for what may have been meant.
    #[serde(skip)]
    guesses: bool,
}

/// A line of another file than the policy's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Elsewhere {
    /// What to call the file.
    pub(super) file: String,
    /// Its line, counted from 1.
    pub(super) line: u32,
    /// Column in characters, counted from 1.
    pub(super) column: u32,
    /// How many characters are underlined.
    pub(super) length: u32,
    /// The line, or as much of it as is worth showing.
    pub(super) source: String,
}

/// A stretch of the source text, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// First byte.
    pub(super) offset: usize,
    /// Length in bytes.
    pub(super) len: usize,
}

/// Collects diagnostics while a policy is read.
#[derive(Debug)]
pub(super) struct Sink<'a> {
    text: &'a str,
    line_starts: Vec<usize>,
    list: Vec<Diagnostic>,
    /// How many errors and warnings there were.
    found: [usize; 2],
    /// What is found beyond [`MOST`].
    beyond: Diagnostic,
    /// Offset and column of the last place: many may be in one long line.
    last: (usize, u32),
}

/// Most errors that are told, and most warnings.
const MOST: usize = 50_000;

/// So many of them, the first, say what may have been meant: a word is compared with many names.
const GUESSED: usize = 1000;

impl<'a> Sink<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let line_starts = std::iter::once(0)
            .chain(
                text.bytes()
                    .enumerate()
                    .filter(|(_, b)| *b == b'\n')
                    .map(|(at, _)| at + 1),
            )
            .collect();
        Self {
            text,
            line_starts,
            list: Vec::new(),
            found: [0; 2],
            beyond: Diagnostic::about_file(String::new(), None),
            last: (0, 1),
        }
    }

    /// Reports an error; the caller may add help to what is returned.
    pub(super) fn error(&mut self, place: Place, message: impl Into<String>) -> &mut Diagnostic {
        self.add(Severity::Error, place, message.into())
    }

    /// Reports an error in another file, which the policy names at `place`.
    pub(super) fn error_elsewhere(
        &mut self,
        place: Place,
        at: Elsewhere,
        message: String,
    ) -> &mut Diagnostic {
        let diagnostic = self.add(Severity::Error, place, message);
        (diagnostic.line, diagnostic.column) = (at.line, at.column);
        diagnostic.length = at.length;
        diagnostic.elsewhere = Some(Box::new(at));
        diagnostic
    }

    /// Reports a warning; the caller may add help to what is returned.
    pub(super) fn warn(&mut self, place: Place, message: impl Into<String>) -> &mut Diagnostic {
        self.add(Severity::Warning, place, message.into())
    }

    /// Whether anything is wrong so far.
    pub(super) fn has_errors(&self) -> bool {
        self.found[Severity::Error as usize] > 0
    }

    /// Whether there are so many errors that none is told any more: no need to look for others.
    pub(super) fn is_full(&self) -> bool {
        self.found[Severity::Error as usize] > MOST
    }

    /// The line, counted from 1, that `place` begins in.
    pub(super) fn line(&self, place: Place) -> u32 {
        self.line_starts
            .partition_point(|start| *start <= place.offset) as u32
    }

    /// The source text at `place`; empty where it lies outside.
    pub(super) fn text(&self, place: Place) -> &'a str {
        self.text
            .get(place.offset..place.offset + place.len)
            .unwrap_or_default()
    }

    fn add(&mut self, severity: Severity, place: Place, message: String) -> &mut Diagnostic {
        let found = &mut self.found[severity as usize];
        *found += 1;
        if *found > MOST + 1 {
            return &mut self.beyond;
        }
        let guesses = *found <= GUESSED;
        let message = match (*found > MOST, severity) {
            (false, _) => message,
            (true, Severity::Error) => format!("more than {MOST} errors, the rest is not told"),
            (true, Severity::Warning) => format!("more than {MOST} warnings, the rest is not told"),
        };
        let line = self.line(place);
        let start = self.line_starts[line as usize - 1];
        // on from the last place where that is nearer
        let (from, column) = match self.last {
            (offset, column) if (start..=place.offset).contains(&offset) => (offset, column),
            _ => (start, 1),
        };
        let before = self.text.get(from..place.offset).unwrap_or_default();
        let column = column + before.chars().count() as u32;
        self.last = (place.offset, column);
        self.list.push(Diagnostic {
            severity,
            message,
            line,
            column,
            length: self.text(place).chars().count().max(1) as u32,
            help: None,
            place,
            elsewhere: None,
            guesses,
        });
        let last = self.list.len() - 1;
        &mut self.list[last]
    }

    /// Everything reported, in the order of the file.
    pub(super) fn finish(mut self) -> Vec<Diagnostic> {
        self.list.sort_by_key(|d| d.place);
        self.list
    }
}

impl Diagnostic {
    /// A diagnostic about the file as a whole.
    pub(super) fn about_file(message: String, help: Option<String>) -> Self {
        Self {
            severity: Severity::Error,
            message,
            line: 0,
            column: 0,
            length: 0,
            help,
            place: Place::default(),
            elsewhere: None,
            guesses: false,
        }
    }

    /// Where it stands in the policy.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// The file that it is about, if that is not the policy itself but one that the policy names.
    pub fn file(&self) -> Option<&str> {
        self.elsewhere.as_ref().map(|at| at.file.as_str())
    }

    /// Adds "did you mean" if one of `candidates` is near to `word`.
    pub(super) fn suggest<'c>(
        &mut self,
        word: &str,
        candidates: impl IntoIterator<Item = &'c str>,
    ) -> &mut Self {
        if let Some(near) = self.guesses.then(|| nearest(word, candidates)).flatten() {
            self.help = Some(format!("did you mean `{near}`?"));
        }
        self
    }

    /// Sets the help text.
    pub(super) fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Diagnostic {}

impl miette::Diagnostic for Diagnostic {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help
            .as_ref()
            .map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = miette::LabeledSpan> + '_>> {
        let span = (self.place.offset, self.place.len.max(1));
        (self.line > 0).then(|| {
            Box::new(std::iter::once(miette::LabeledSpan::new_with_span(
                None, span,
            ))) as Box<dyn Iterator<Item = _>>
        })
    }
}

/// Why a policy was refused: every error found in one run, and the warnings beside them, in the
/// order of the file. `Display` is the underlined text for people.
#[derive(Clone, Debug)]
pub struct PolicyErrors {
    file: String,
    text: Arc<str>,
    diagnostics: Vec<Diagnostic>,
}

impl PolicyErrors {
    pub(super) fn new(file: &str, text: &str, diagnostics: Vec<Diagnostic>) -> Self {
        Self {
            file: file.into(),
            text: text.into(),
            diagnostics,
        }
    }

    /// The diagnostics, in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.diagnostics.iter()
    }

    /// How many diagnostics are errors.
    pub fn errors(&self) -> usize {
        self.iter()
            .filter(|d| d.severity == Severity::Error)
            .count()
    }

    /// The diagnostics as a JSON array; every element has `file` (the policy, or a file that it names), `severity`, `message`, `line`,
    /// `column`, `length` and `help`.
    pub fn to_json(&self) -> serde_json::Value {
        to_json(&self.file, &self.diagnostics)
    }
}

impl<'a> IntoIterator for &'a PolicyErrors {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&render(&self.file, &self.text, &self.diagnostics))
    }
}

impl std::error::Error for PolicyErrors {}

/// Diagnostics as a JSON array.
pub(super) fn to_json(file: &str, diagnostics: &[Diagnostic]) -> serde_json::Value {
    #[derive(Serialize)]
    struct Line<'a> {
        file: &'a str,
        #[serde(flatten)]
        diagnostic: &'a Diagnostic,
    }
    diagnostics
        .iter()
        .map(|diagnostic| {
            let file = diagnostic.file().unwrap_or(file);
            serde_json::to_value(Line { file, diagnostic }).unwrap_or_default()
        })
        .collect()
}

/// Most diagnostics that are rendered in full: each needs a walk over the source.
const RENDERED: usize = 100;
/// Longest source that the renderer walks over: it is slow.
const LARGE: usize = 1 << 20;

/// Diagnostics as text, each with its file, line, column and the text underlined.
pub(super) fn render(file: &str, text: &str, diagnostics: &[Diagnostic]) -> String {
    #[derive(Debug)]
    struct WithSource<'a>(&'a Diagnostic, miette::NamedSource<Arc<str>>);

    impl fmt::Display for WithSource<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.fmt(f)
        }
    }
    impl std::error::Error for WithSource<'_> {}
    impl miette::Diagnostic for WithSource<'_> {
        fn severity(&self) -> Option<miette::Severity> {
            self.0.severity()
        }
        fn help<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
            miette::Diagnostic::help(self.0)
        }
        fn labels(&self) -> Option<Box<dyn Iterator<Item = miette::LabeledSpan> + '_>> {
            self.0.labels()
        }
        fn source_code(&self) -> Option<&dyn miette::SourceCode> {
            Some(&self.1)
        }
    }
    let source: Arc<str> = text.into();
    let handler =
        miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor())
            .with_width(100)
            .with_links(false);
    let mut out = String::new();
    let large = text.len() > LARGE;
    for diagnostic in diagnostics.iter().take(RENDERED) {
        let named = miette::NamedSource::new(file, Arc::clone(&source));
        if let Some(at) = &diagnostic.elsewhere {
            out.push_str(&render_part(&at.file, &at.source, diagnostic));
        } else if diagnostic.line > 0 && (large || has_long_line(text, diagnostic)) {
            let line = text.split('\n').nth(diagnostic.line as usize - 1);
            out.push_str(&render_part(file, line.unwrap_or_default(), diagnostic));
        } else if handler
            .render_report(&mut out, &WithSource(diagnostic, named))
            .is_err()
        {
            out.push_str(&diagnostic.message);
        }
        out.push('\n');
    }
    if let Some(more) = diagnostics.len().checked_sub(RENDERED).filter(|n| *n > 0) {
        out.push_str(&format!("and {more} more\n"));
    }
    out
}

/// Longest line that is shown whole; the renderer cannot point beyond column 65535.
const LONG: usize = 500;

/// Whether the line of `diagnostic`, or one shown beside it, is too long to be shown whole.
fn has_long_line(text: &str, diagnostic: &Diagnostic) -> bool {
    let skip = (diagnostic.line as usize).saturating_sub(2);
    let mut shown = text.split('\n').skip(skip).take(3);
    diagnostic.line > 0 && shown.any(|line| line.len() > LONG)
}

/// As the renderer does it, but with only a part of the line, which is `source`.
fn render_part(file: &str, source: &str, diagnostic: &Diagnostic) -> String {
    const AROUND: usize = 35;
    let (line, column) = (diagnostic.line, diagnostic.column);
    let start = (column as usize - 1).saturating_sub(AROUND);
    let marked = (diagnostic.length as usize).min(AROUND);
    let part: String = source
        .chars()
        .skip(start)
        .take(2 * AROUND + marked)
        .collect();
    let margin = " ".repeat(line.to_string().len() + 1);
    let sign = if diagnostic.severity == Severity::Error {
        '×'
    } else {
        '⚠'
    };
    let before = " ".repeat(column as usize - 1 - start);
    let mut out = format!("  {sign} {}\n", diagnostic.message);
    out += &format!(" {margin}╭─[{file}:{line}:{column}]\n {line} │ {part}\n");
    out += &format!(" {margin}· {before}{}\n", "─".repeat(marked));
    if let Some(help) = &diagnostic.help {
        out += &format!("  help: {help}\n");
    }
    out
}

/// Most names that a slip is compared with: a policy may have many slips and many names.
const CANDIDATES: usize = 1000;

/// The candidate that `word` is most likely a slip of: edit distance with transpositions, at most
/// a third of the word.
pub(super) fn nearest<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    let word: Vec<char> = word.chars().take(64).flat_map(char::to_lowercase).collect();
    candidates
        .into_iter()
        .take(CANDIDATES)
        .map(|candidate| (distance(&word, candidate), candidate))
        .filter(|(d, _)| *d <= (word.len() / 3).max(1) && *d < word.len())
        .min_by_key(|(d, _)| *d)
        .map(|(_, candidate)| candidate)
}

/// Optimal string alignment distance.
fn distance(a: &[char], b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let words = ["established", "related", "new", "invalid"];
        for (word, expected) in [
            ("establised", Some("established")),
            ("estabilshed", Some("established")),
            ("Related", Some("related")),
            ("nwe", Some("new")),
            ("ne", Some("new")),
            ("x", None),
            ("untracked", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, words), expected, "{word}");
        }
    }

    #[test]
    fn lines_and_columns_count_characters() {
        let text = "a: ö b\nsecond line\n";
        let mut sink = Sink::new(text);
        sink.error(
            Place {
                offset: text.find('b').unwrap(),
                len: 1,
            },
            "b",
        );
        sink.error(
            Place {
                offset: text.find("line").unwrap(),
                len: 4,
            },
            "line",
        );
        sink.warn(
            Place {
                offset: text.len(),
                len: 0,
            },
            "end",
        );
        let list = sink.finish();
        let places: Vec<_> = list.iter().map(|d| (d.line, d.column, d.length)).collect();
        assert_eq!(places, [(1, 6, 1), (2, 8, 4), (3, 1, 1)]);
    }
}
