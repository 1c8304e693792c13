//! The layers hold: imports run downward, the core stays pure, `unsafe` stays in its places.
//!
//! Reads the sources as tokens (comments, strings and characters are skipped) and resolves the
//! paths that begin with `crate`, `self`, `super`, `std`, `core` or the crate's name. What macros
//! put together is not seen.

use std::error::Error;
use std::fs;
use std::path::Path;

/// Each layer and what it may know besides itself, from the lowest up.
const LAYERS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("wire", &["base"]),
    ("conntrack", &["base", "wire"]),
    ("helpers", &["base", "wire", "conntrack"]),
    ("policy", &["base", "wire", "conntrack", "helpers"]),
    (
        "pipeline",
        &["base", "wire", "conntrack", "helpers", "policy"],
    ),
    (
        "dataplane",
        &["base", "wire", "conntrack", "helpers", "policy", "pipeline"],
    ),
    (
        "control",
        &[
            "base",
            "wire",
            "conntrack",
            "helpers",
            "policy",
            "pipeline",
            "dataplane",
        ],
    ),
    (
        "cli",
        &[
            "base",
            "wire",
            "conntrack",
            "helpers",
            "policy",
            "pipeline",
            "dataplane",
            "control",
        ],
    ),
];

/// The layers without clock, sockets and files.
const PURE: &[&str] = &["base", "wire", "conntrack", "helpers", "policy", "pipeline"];

/// The one file of the pure layers that reads files.
const LOADER: &str = "policy/load.rs";

/// What is impure, as the beginning of a path.
const IMPURE: &[&[&str]] = &[
    &["std", "time", "Instant"],
    &["std", "time", "SystemTime"],
    &["std", "time", "UNIX_EPOCH"],
    &["std", "net", "TcpListener"],
    &["std", "net", "TcpStream"],
    &["std", "net", "UdpSocket"],
    &["std", "os", "unix", "net"],
    &["std", "process"],
    &["std", "thread", "sleep"],
];
const FILES: &[&str] = &["std", "fs"];

/// Modules that would bring the above in under another name.
const TOO_WIDE: &[&[&str]] = &[
    &["std"],
    &["std", "time"],
    &["std", "net"],
    &["std", "os", "unix"],
];

/// Where `unsafe` may be: `dataplane/dpdk/` and these.
const UNSAFE_FOLDER: &str = "dataplane/dpdk/";
const UNSAFE_FILES: &[&str] = &["base/cpu.rs", "base/rcu.rs", "base/slab.rs"];

/// A piece of source with its line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    text: String,
    line: usize,
}

/// Splits source into words, `::` and single characters; skips what is no code.
fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let (mut i, mut line) = (0, 1);
    while i < chars.len() {
        let start = i;
        let c = at(i);
        if c == '/' && at(i + 1) == '/' {
            while i < chars.len() && at(i) != '\n' {
                i += 1;
            }
        } else if c == '/' && at(i + 1) == '*' {
            let mut depth = 1;
            i += 2;
            while i < chars.len() && depth > 0 {
                match (at(i), at(i + 1)) {
                    ('/', '*') => (depth, i) = (depth + 1, i + 2),
                    ('*', '/') => (depth, i) = (depth - 1, i + 2),
                    _ => i += 1,
                }
            }
        } else if let Some(end) = raw_string_end(&chars, i) {
            i = end;
        } else if c == '"' {
            i += 1;
            while i < chars.len() && at(i) != '"' {
                i += if at(i) == '\\' { 2 } else { 1 };
            }
            i += 1;
        } else if c == '\'' && at(i + 1) == '\\' {
            i += 3;
            while i < chars.len() && at(i) != '\'' {
                i += 1;
            }
            i += 1;
        } else if c == '\'' && at(i + 2) == '\'' {
            i += 3;
        } else {
            // A lifetime's quote falls through as a character of its own.
            while is_word(at(i)) {
                i += 1;
            }
            if i == start {
                i += if c == ':' && at(i + 1) == ':' { 2 } else { 1 };
            }
            if !c.is_whitespace() {
                let text = chars[start..i].iter().collect();
                found.push(Token { text, line });
            }
        }
        i = i.min(chars.len());
        line += chars[start..i].iter().filter(|c| **c == '\n').count();
    }
    found
}

/// Where the raw string that begins here (`r"`, `br#"`, `cr##"`) ends, if one does.
fn raw_string_end(chars: &[char], start: usize) -> Option<usize> {
    if start > 0 && (chars[start - 1].is_alphanumeric() || chars[start - 1] == '_') {
        return None;
    }
    let mut i = start;
    if matches!(chars.get(i), Some('b' | 'c')) {
        i += 1;
    }
    if chars.get(i) != Some(&'r') {
        return None;
    }
    i += 1;
    let hashes = chars[i..].iter().take_while(|c| **c == '#').count();
    i += hashes;
    if chars.get(i) != Some(&'"') {
        return None;
    }
    i += 1;
    while i < chars.len() {
        let tail = &chars[i + 1..];
        if chars[i] == '"' && tail.iter().take_while(|c| **c == '#').count() >= hashes {
            return Some(i + 1 + hashes);
        }
        i += 1;
    }
    Some(chars.len())
}

/// A path that the source names, from its root.
#[derive(Debug)]
struct Named {
    path: Vec<String>,
    line: usize,
    /// Inside of a `#[cfg(test)]` module.
    in_test: bool,
    /// A macro that is called (`crate::name!`).
    is_macro: bool,
}

/// The module that a file is: `conntrack/tcp.rs` is `[conntrack, tcp]`.
fn module_of(file: &str) -> Vec<String> {
    let stem = file.strip_suffix(".rs").unwrap_or(file);
    let mut module: Vec<String> = stem.split('/').map(str::to_owned).collect();
    let is_root = module.len() == 1 && matches!(stem, "lib" | "main");
    if is_root || module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    module
}

/// Finds the paths of one file.
struct Reader<'a> {
    tokens: &'a [Token],
    file_module: Vec<String>,
    /// Modules written in the file that are open here: name, brace depth, whether a test.
    open: Vec<(String, usize, bool)>,
    named: Vec<Named>,
}

impl Reader<'_> {
    fn text(&self, i: usize) -> &str {
        self.tokens.get(i).map_or("", |token| token.text.as_str())
    }

    fn module(&self) -> Vec<String> {
        let inner = self.open.iter().map(|(name, ..)| name.clone());
        self.file_module.iter().cloned().chain(inner).collect()
    }

    fn read(mut self) -> Vec<Named> {
        let (mut i, mut depth) = (0, 0);
        while i < self.tokens.len() {
            match self.text(i) {
                "{" => depth += 1,
                "}" => {
                    depth -= 1.min(depth);
                    self.open.retain(|(_, opened, _)| *opened < depth + 1);
                }
                "mod" if self.text(i + 2) == "{" => {
                    let name = self.text(i + 1).to_owned();
                    let before: Vec<_> = (i.saturating_sub(16)..i).map(|k| self.text(k)).collect();
                    let is_test = before
                        .concat()
                        .rsplit([';', '}'])
                        .next()
                        .is_some_and(|item| {
                            item.contains("cfg(test)") || item.contains("cfg(all(test")
                        });
                    self.open.push((name, depth + 1, is_test));
                    depth += 1;
                    i += 2;
                }
                "crate" | "self" | "super" | "std" | "core" | "shardwall"
                    if self.text(i + 1) == "::" && !self.continues_a_path(i) =>
                {
                    i = self.tree(i, &[]);
                    continue;
                }
                "use" if self.text(i + 1) == "{" => {
                    i = self.tree(i + 1, &[]);
                    continue;
                }
                // `use std as other`, or `use std;`.
                "use" if matches!(self.text(i + 1), "std" | "crate") => {
                    i = self.tree(i + 1, &[]);
                    continue;
                }
                _ => {}
            }
            i += 1;
        }
        self.named
    }

    /// Whether the word here goes on from a `::` that a word stands before.
    fn continues_a_path(&self, i: usize) -> bool {
        let before = self.text(i.saturating_sub(2));
        let is_name = before.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        let is_keyword = matches!(
            before,
            "use" | "return" | "as" | "in" | "dyn" | "impl" | "mut"
        );
        i >= 2 && self.text(i - 1) == "::" && is_name && !is_keyword
    }

    /// Reads a path or a use-tree that begins at `i` below `prefix`; returns what comes after.
    fn tree(&mut self, mut i: usize, prefix: &[String]) -> usize {
        let mut path = prefix.to_vec();
        let line = self.tokens.get(i).map_or(0, |token| token.line);
        loop {
            match self.text(i) {
                "{" => {
                    i += 1;
                    while !matches!(self.text(i), "}" | "") {
                        let before = i;
                        i = self.tree(i, &path);
                        while !matches!(self.text(i), "," | "}" | "") {
                            i += 1;
                        }
                        if self.text(i) == "," {
                            i += 1;
                        }
                        debug_assert!(i > before);
                    }
                    return i + 1;
                }
                "::" if path.is_empty() => i += 1,
                word if word.starts_with(|c: char| c.is_alphanumeric() || c == '_')
                    || word == "*" =>
                {
                    path.push(word.to_owned());
                    i += 1;
                    if self.text(i) != "::" {
                        break;
                    }
                    i += 1;
                }
                _ => break,
            }
        }
        let is_macro = self.text(i) == "!" && self.text(i + 1) != "=";
        self.push(path, line, is_macro);
        i.max(1)
    }

    fn push(&mut self, path: Vec<String>, line: usize, is_macro: bool) {
        let mut words = path.into_iter().peekable();
        let mut full = match words.peek().map(String::as_str) {
            Some("crate" | "shardwall") => {
                words.next();
                vec!["crate".to_owned()]
            }
            Some("self" | "super") => {
                let mut module = vec!["crate".to_owned()];
                module.extend(self.module());
                module
            }
            Some("core") => {
                words.next();
                vec!["std".to_owned()]
            }
            _ => Vec::new(),
        };
        for word in words {
            match word.as_str() {
                "self" => {}
                "super" if full.len() > 1 => drop(full.pop()),
                _ => full.push(word),
            }
        }
        let in_test = self.open.iter().any(|(.., test)| *test);
        self.named.push(Named {
            path: full,
            line,
            in_test,
            is_macro,
        });
    }
}

fn is_below(path: &[String], start: &[&str]) -> bool {
    path.len() >= start.len() && path.iter().zip(start).all(|(a, b)| a == b)
}

/// Everything in one file (by its path below `src/`) that the layers forbid.
fn violations(file: &str, source: &str) -> Vec<String> {
    let tokens = tokens(source);
    let file_module = module_of(file);
    let layer = file_module.first().cloned();
    let mut found = Vec::new();
    let mut report = |line: usize, what: String| found.push(format!("src/{file}:{line}: {what}"));

    let may_be_unsafe = file.starts_with(UNSAFE_FOLDER) || UNSAFE_FILES.contains(&file);
    for token in &tokens {
        match token.text.as_str() {
            "unsafe" if !may_be_unsafe => {
                report(token.line, "`unsafe` outside of its places".to_owned());
            }
            "serde_yaml" if layer.as_deref() != Some("policy") => {
                report(token.line, "`serde_yaml` outside of policy".to_owned());
            }
            _ => {}
        }
    }
    // The roots, lib.rs and main.rs, know every layer.
    let Some(layer) = layer else { return found };
    let Some((_, known)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
        report(1, format!("`{layer}` is not a layer"));
        return found;
    };

    let is_test_file = file.ends_with("/tests.rs") || file.contains("/tests/");
    let reader = Reader {
        tokens: &tokens,
        file_module,
        open: Vec::new(),
        named: Vec::new(),
    };
    for Named {
        path,
        line,
        in_test,
        is_macro,
    } in reader.read()
    {
        let shown = path.join("::");
        if path.first().is_some_and(|root| root == "crate") {
            match path.get(1) {
                Some(target) if *target == layer || known.contains(&target.as_str()) => {}
                Some(_) if is_macro && path.len() == 2 => {}
                Some(target) if LAYERS.iter().any(|(name, _)| name == target) => {
                    report(line, format!("{layer} may not know {target}: `{shown}`"));
                }
                _ => report(line, format!("`{shown}` goes around the layers")),
            }
        }
        if PURE.contains(&layer.as_str()) && !in_test && !is_test_file {
            let is_impure = IMPURE.iter().any(|start| is_below(&path, start))
                || (is_below(&path, FILES) && file != LOADER)
                || path.last().is_some_and(|last| last == "*")
                    && TOO_WIDE
                        .iter()
                        .any(|wide| path.len() == wide.len() + 1 && is_below(&path, wide))
                || TOO_WIDE.iter().any(|wide| path.iter().eq(wide.iter()));
            if is_impure {
                report(line, format!("{layer} has no clock and no I/O: `{shown}`"));
            }
        }
    }
    found
}

/// The `.rs` files below a folder, by their path from `root`.
fn sources(
    root: &Path,
    folder: &Path,
    found: &mut Vec<(String, String)>,
) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sources(root, &path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path
                .strip_prefix(root)?
                .to_string_lossy()
                .replace('\\', "/");
            found.push((name, fs::read_to_string(&path)?));
        }
    }
    Ok(())
}

#[test]
fn the_layers_hold() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &root, &mut files)?;
    files.sort();
    assert!(files.iter().any(|(name, _)| name == "lib.rs"));
    let found: Vec<_> = files
        .iter()
        .flat_map(|(name, source)| violations(name, source))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}

#[test]
fn layers_know_only_lower_ones() {
    for (i, (name, known)) in LAYERS.iter().enumerate() {
        for other in *known {
            let below = LAYERS[..i].iter().any(|(lower, _)| lower == other);
            assert!(below, "{name} knows {other}");
        }
    }
}

/// Violations, on that line only and with that text.
#[track_caller]
fn reports(file: &str, source: &str, line: usize, text: &str) {
    let found = violations(file, source);
    let place = format!("src/{file}:{line}: ");
    let is_it = |one: &String| one.starts_with(&place) && one.contains(text);
    assert!(!found.is_empty() && found.iter().all(is_it), "{found:?}");
}

#[track_caller]
fn accepts(file: &str, source: &str) {
    assert_eq!(violations(file, source), [""; 0]);
}

#[test]
fn upward_imports_are_reported() {
    let upward = "wire may not know policy";
    reports("wire/tcp.rs", "use crate::policy::Rule;", 1, upward);
    reports(
        "wire/tcp.rs",
        "\nfn f(r: &crate::policy::Rule) {}",
        2,
        upward,
    );
    reports(
        "wire/tcp.rs",
        "pub(crate) use crate::{\n base::time, policy::Rule};",
        2,
        "policy",
    );
    reports("wire/tcp.rs", "use super::super::policy;", 1, upward);
    reports(
        "wire/mod.rs",
        "use super::policy::{self, Rule as R};\nuse super::base;",
        1,
        upward,
    );
    reports(
        "wire/tcp.rs",
        "mod a { mod b { use super::super::super::super::policy::X; } }",
        1,
        upward,
    );
    reports(
        "wire/tcp.rs",
        "use {std::mem, crate::policy::X};",
        1,
        upward,
    );
    reports(
        "wire/tcp.rs",
        "fn f() { let x: Vec<crate::policy::X> = a; }",
        1,
        upward,
    );
    reports(
        "wire/tcp.rs",
        "macro_rules! m { () => { $crate::policy::X } }",
        1,
        upward,
    );
    reports("wire/tcp.rs", "use ::shardwall::policy::X;", 1, upward);
    reports(
        "policy/mod.rs",
        "use crate::pipeline::run;",
        1,
        "policy may not know pipeline",
    );
    reports(
        "base/time.rs",
        "use crate::wire;",
        1,
        "base may not know wire",
    );
    reports(
        "control/api.rs",
        "#[cfg(test)] mod t { use crate::cli::x; }",
        1,
        "control may not know cli",
    );
    reports("wire/tcp.rs", "use crate::Reexported;", 1, "goes around");
    reports("wire/mod.rs", "use super::*;", 1, "goes around");
    reports("wire/mod.rs", "use crate as all;", 1, "goes around");
    reports("extra/mod.rs", "", 1, "not a layer");
    reports("extra.rs", "", 1, "not a layer");
}

#[test]
fn downward_imports_are_accepted() {
    accepts(
        "wire/tcp.rs",
        "use crate::base::{time::Now, hash};\nuse crate::wire::x;",
    );
    accepts(
        "wire/tcp.rs",
        "mod tests { use super::*; use super::super::udp; }",
    );
    accepts(
        "wire.rs",
        "use self::tcp::X; pub(in crate::wire) fn f() {} pub(crate) fn g() {}",
    );
    accepts(
        "wire/tcp.rs",
        "// use crate::policy;\n/* /* */ crate::policy::X */ /// crate::cli::X\n",
    );
    accepts(
        "wire/tcp.rs",
        r##"const X: &str = r#"" crate::cli::X "#; const Y: &str = "\" crate::cli::X";"##,
    );
    accepts(
        "wire/tcp.rs",
        "fn f<'a>(x: &'a u8) -> char { '\\'' } const Q: char = '\"'; // \" crate::cli::X",
    );
    accepts("wire/tcp.rs", "fn f() { crate::my_macro!(1); }");
    accepts(
        "cli/mod.rs",
        "use crate::control::api; use crate::base::time; use std::fs;",
    );
    accepts("lib.rs", "pub mod cli; pub use crate::cli::main;");
    accepts("main.rs", "fn main() { shardwall::cli::main() }");
}

#[test]
fn impurity_below_the_dataplane_is_reported() {
    let impure = "no clock and no I/O";
    reports(
        "conntrack/shard.rs",
        "let t = std::time::Instant::now();",
        1,
        impure,
    );
    reports(
        "conntrack/shard.rs",
        "use std::{mem, time::{Duration, SystemTime}};",
        1,
        impure,
    );
    reports("conntrack/shard.rs", "use std::time;", 1, impure);
    reports(
        "conntrack/shard.rs",
        "use std::time::{self, Duration};",
        1,
        impure,
    );
    reports("conntrack/shard.rs", "use std::time::*;", 1, impure);
    reports("conntrack/shard.rs", "use std as s;", 1, impure);
    reports("pipeline/mod.rs", "use std::net::UdpSocket;", 1, impure);
    reports("policy/mod.rs", "let x = std::fs::read(p);", 1, impure);
    reports(
        "helpers/ftp.rs",
        "fn f() -> ::std::time::Instant {}",
        1,
        impure,
    );
    accepts(
        "policy/load.rs",
        "use std::fs; use std::net::IpAddr; use std::time::Duration;",
    );
    accepts("policy/mod.rs", "#[cfg(test)]\nmod tests { use std::fs; }");
    accepts("policy/tests.rs", "use std::fs;");
    accepts("dataplane/clock.rs", "use std::time::Instant;");
    reports(
        "policy/mod.rs",
        "#[cfg(test)]\nmod tests {}\nmod more {\nuse std::fs; }",
        4,
        impure,
    );
}

#[test]
fn unsafe_and_yaml_stay_in_their_places() {
    reports("wire/tcp.rs", "fn f() {\n unsafe { g() } }", 2, "`unsafe`");
    reports("main.rs", "unsafe extern \"C\" {}", 1, "`unsafe`");
    accepts(
        "base/rcu.rs",
        "#![allow(unsafe_code)] fn f() { unsafe { g() } }",
    );
    accepts("dataplane/dpdk/port.rs", "unsafe fn f() {}");
    accepts(
        "wire/tcp.rs",
        "#![forbid(unsafe_code)] // unsafe\nconst X: &str = \"unsafe\";",
    );
    reports(
        "control/reload.rs",
        "use serde_yaml::from_str;",
        1,
        "`serde_yaml`",
    );
    accepts("policy/yaml.rs", "use serde_yaml::from_str;");
}
