//! Takes a rule set of nftables apart: words, definitions, tables, chains, sets. Rules stay lists of
//! words.
//!
//! Life-cycle and concurrency: as [`super`].

use crate::policy::import::Left;
use crate::policy::import::rules::{Effect, left};
use std::collections::{BTreeMap, BTreeSet};

/// A word, a string in quotes, or a sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) quoted: bool,
    pub(super) line: u32,
}

impl Word {
    pub(super) fn is(&self, text: &str) -> bool {
        !self.quoted && self.text == text
    }
}

/// Ends a statement; a newline is one too.
pub(super) const END: &str = ";";

/// Most words that definitions may grow to, so that they cannot explode.
const MAX_WORDS: usize = 1 << 20;

const FAMILIES: [&str; 6] = ["ip", "ip6", "inet", "arp", "bridge", "netdev"];

#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) family: String,
    pub(super) name: String,
    pub(super) dormant: bool,
    pub(super) chains: Vec<Chain>,
    /// Sets and maps.
    pub(super) sets: Vec<Set>,
    /// Type and protocol of `ct helper` objects.
    pub(super) helpers: BTreeMap<String, (String, String)>,
    /// Names of counters.
    pub(super) counters: BTreeSet<String>,
}

#[derive(Debug, Default)]
pub(super) struct Chain {
    pub(super) name: String,
    pub(super) line: u32,
    /// Type, hook and priority of a base chain.
    pub(super) base: Option<(String, String, i64)>,
    pub(super) drops: bool,
    pub(super) rules: Vec<Vec<Word>>,
}

#[derive(Debug, Default)]
pub(super) struct Set {
    pub(super) name: String,
    pub(super) kind: String,
    /// Filled while packets come by.
    pub(super) dynamic: bool,
    pub(super) elements: Vec<Word>,
}

/// The words of a file, without comments.
fn lex(text: &str) -> Vec<Word> {
    let mut words = Vec::new();
    for (at, text) in text.lines().enumerate() {
        let line = at as u32 + 1;
        let mut rest = text.trim_start();
        let mut goes_on = false;
        while let Some(c) = rest.chars().next() {
            let len = match c {
                '#' => break,
                '"' | '\'' => {
                    let body = &rest[1..];
                    let end = body.find(c).unwrap_or(body.len());
                    words.push(Word {
                        text: body[..end].into(),
                        quoted: true,
                        line,
                    });
                    rest = body.get(end + 1..).unwrap_or_default().trim_start();
                    continue;
                }
                '\\' if rest.trim_end().len() == 1 => {
                    goes_on = true;
                    break;
                }
                _ if ["!=", "==", "<=", ">="]
                    .iter()
                    .any(|sign| rest.starts_with(sign)) =>
                {
                    2
                }
                _ if is_sign(c) => 1,
                _ => rest
                    .find(|c: char| c.is_whitespace() || is_sign(c) || c == '"' || c == '#')
                    .unwrap_or(rest.len())
                    .max(c.len_utf8()),
            };
            words.push(Word {
                text: rest[..len].into(),
                quoted: false,
                line,
            });
            rest = rest[len..].trim_start();
        }
        if !goes_on {
            words.push(Word {
                text: END.into(),
                quoted: false,
                line,
            });
        }
    }
    words
}

fn is_sign(c: char) -> bool {
    "{};,=!<>&|^()".contains(c)
}

/// Reads the tables of a file.
pub(super) fn read(text: &str, left: &mut Vec<Left>) -> Vec<Table> {
    let mut parser = Parser {
        words: lex(text),
        at: 0,
        defines: BTreeMap::new(),
        grown: 0,
        tables: Vec::new(),
        lines: text.lines().collect(),
        left,
    };
    while parser.at < parser.words.len() {
        parser.top();
    }
    parser.tables
}

struct Parser<'a> {
    words: Vec<Word>,
    at: usize,
    defines: BTreeMap<String, Vec<Word>>,
    grown: usize,
    tables: Vec<Table>,
    lines: Vec<&'a str>,
    left: &'a mut Vec<Left>,
}

impl Parser<'_> {
    fn peek(&self, text: &str) -> bool {
        self.words.get(self.at).is_some_and(|word| word.is(text))
    }

    fn take(&mut self, text: &str) -> bool {
        let found = self.peek(text);
        self.at += usize::from(found);
        found
    }

    fn next(&mut self) -> Option<Word> {
        let word = self.words.get(self.at).cloned();
        self.at += 1;
        word
    }

    /// The next word, unless the statement ends or a block begins.
    fn name(&mut self) -> String {
        let ends = |word: &Word| [END, "{", "}"].iter().any(|sign| word.is(sign));
        match self.words.get(self.at) {
            Some(word) if !ends(word) => {
                self.at += 1;
                self.words[self.at - 1].text.clone()
            }
            _ => String::new(),
        }
    }

    /// The rest of a statement: up to its end, or to the end of the block that it is in. Definitions
    /// are put in.
    fn statement(&mut self) -> Vec<Word> {
        let (mut out, mut depth) = (Vec::new(), 0usize);
        while let Some(word) = self.words.get(self.at) {
            match word.text.as_str() {
                _ if word.quoted => {}
                END if depth == 0 => break,
                END => {
                    self.at += 1;
                    continue;
                }
                "{" => depth += 1,
                "}" if depth == 0 => break,
                "}" => depth -= 1,
                _ => {}
            }
            let defined = word
                .text
                .strip_prefix('$')
                .filter(|_| !word.quoted)
                .and_then(|name| self.defines.get(name));
            match defined {
                Some(words) if self.grown + words.len() <= MAX_WORDS => {
                    self.grown += words.len();
                    let line = word.line;
                    out.extend(words.iter().map(|word| Word {
                        line,
                        ..word.clone()
                    }));
                }
                _ => out.push(word.clone()),
            }
            self.at += 1;
        }
        self.take(END);
        out
    }

    fn refuse(&mut self, line: u32, why: &str, effect: Effect) {
        let text = self
            .lines
            .get(line.saturating_sub(1) as usize)
            .copied()
            .unwrap_or_default();
        self.left.push(left(line, text, why, effect));
    }

    fn top(&mut self) {
        let Some(word) = self.next() else { return };
        match word.text.as_str() {
            END | "}" => {}
            "table" => {
                let table = self.table_name();
                self.table(table);
            }
            "add" | "create" => self.command(word.line),
            "define" | "redefine" => {
                let name = self.name();
                self.take("=");
                let value = self.statement();
                self.defines.insert(name, value);
            }
            "flush" | "delete" | "destroy" | "undefine" => {
                self.statement();
            }
            "include" => {
                self.refuse(
                    word.line,
                    "what is included is not read: import it too",
                    Effect::Unclear,
                );
                self.statement();
            }
            _ => {
                self.refuse(word.line, "this line is not understood", Effect::Unclear);
                self.statement();
            }
        }
    }

    /// Reads `inet filter`, and finds or makes that table.
    fn table_name(&mut self) -> usize {
        let first = self.name();
        let (family, name) = match FAMILIES.contains(&first.as_str()) {
            true => (first, self.name()),
            false => ("ip".to_owned(), first),
        };
        let known = self
            .tables
            .iter()
            .position(|table| table.family == family && table.name == name);
        known.unwrap_or_else(|| {
            self.tables.push(Table {
                family,
                name,
                ..Table::default()
            });
            self.tables.len() - 1
        })
    }

    /// Reads a command of a script: `add rule inet filter forward ...`.
    fn command(&mut self, line: u32) {
        let object = self.name();
        match object.as_str() {
            "table" => {
                let table = self.table_name();
                self.table(table);
            }
            "chain" => {
                let table = self.table_name();
                self.chain(table);
            }
            "set" | "map" => {
                let table = self.table_name();
                self.set(table);
            }
            "rule" => {
                let table = self.table_name();
                let name = self.name();
                let rule = self.statement();
                let chain = self.chain_of(table, &name, line);
                self.tables[table].chains[chain].rules.push(rule);
            }
            "counter" => {
                let table = self.table_name();
                self.counter(table);
            }
            "element" => {
                let table = self.table_name();
                let name = self.name();
                let elements = self.statement();
                match self.tables[table]
                    .sets
                    .iter_mut()
                    .find(|set| set.name == name)
                {
                    Some(set) => set.elements.extend(elements),
                    None => self.refuse(line, "its set is not known", Effect::Unclear),
                }
            }
            _ => {
                self.refuse(line, "this command is not understood", Effect::Unclear);
                self.statement();
            }
        }
    }

    fn table(&mut self, table: usize) {
        if !self.take("{") {
            self.statement();
            return;
        }
        while !self.take("}") {
            let Some(word) = self.next() else { return };
            match word.text.as_str() {
                END => {}
                "chain" => self.chain(table),
                "set" | "map" => self.set(table),
                "flags" => {
                    let flags = self.statement();
                    self.tables[table].dormant |= flags.iter().any(|flag| flag.is("dormant"));
                }
                "ct" if self.peek("helper") => self.helper(table),
                "counter" => self.counter(table),
                // an object, with a block of its own
                _ => {
                    self.statement();
                }
            }
        }
    }

    fn counter(&mut self, table: usize) {
        let name = self.name();
        self.statement();
        self.tables[table].counters.insert(name);
    }

    fn helper(&mut self, table: usize) {
        self.name();
        let name = self.name();
        let body = self.statement();
        let after = |key: &str| {
            let at = body.iter().position(|word| word.is(key))?;
            Some(body.get(at + 1)?.text.clone())
        };
        if let (Some(kind), Some(proto)) = (after("type"), after("protocol")) {
            self.tables[table].helpers.insert(name, (kind, proto));
        }
    }

    fn chain_of(&mut self, table: usize, name: &str, line: u32) -> usize {
        let chains = &mut self.tables[table].chains;
        let known = chains.iter().position(|chain| chain.name == name);
        known.unwrap_or_else(|| {
            chains.push(Chain {
                name: name.to_owned(),
                line,
                ..Chain::default()
            });
            chains.len() - 1
        })
    }

    fn chain(&mut self, table: usize) {
        let line = self.words.get(self.at).map_or(0, |word| word.line);
        let name = self.name();
        let at = self.chain_of(table, &name, line);
        if !self.take("{") {
            self.statement();
            return;
        }
        while !self.take("}") {
            if self.at >= self.words.len() {
                return;
            }
            let words = self.statement();
            let chain = &mut self.tables[table].chains[at];
            let Some(first) = words.first() else { continue };
            match first.text.as_str() {
                "type" => chain.base = base(&words),
                "policy" => chain.drops = words.get(1).is_some_and(|word| word.is("drop")),
                "comment" | "flags" => {}
                _ => chain.rules.push(words),
            }
        }
    }

    fn set(&mut self, table: usize) {
        let mut set = Set {
            name: self.name(),
            ..Set::default()
        };
        if self.take("{") {
            while !self.take("}") {
                if self.at >= self.words.len() {
                    break;
                }
                let words = self.statement();
                let Some(first) = words.first() else { continue };
                let rest = words[1..].iter().map(|word| word.text.as_str());
                match first.text.as_str() {
                    "type" | "typeof" => set.kind = rest.collect::<Vec<_>>().join(" "),
                    "flags" => {
                        set.dynamic |= rest
                            .into_iter()
                            .any(|flag| ["dynamic", "timeout"].contains(&flag))
                    }
                    "elements" => set
                        .elements
                        .extend(words.into_iter().skip_while(|word| !word.is("{"))),
                    _ => {}
                }
            }
        }
        self.tables[table].sets.push(set);
    }
}

/// Names of priorities (nft(8), "CHAINS").
const PRIORITIES: [(&str, i64); 6] = [
    ("raw", -300),
    ("mangle", -150),
    ("dstnat", -100),
    ("filter", 0),
    ("security", 50),
    ("srcnat", 100),
];

/// Reads `type filter hook forward priority filter + 10`.
fn base(words: &[Word]) -> Option<(String, String, i64)> {
    let after = |key: &str| words.iter().position(|word| word.is(key)).map(|at| at + 1);
    let word = |at: usize| words.get(at).map(|word| word.text.clone());
    let (kind, hook) = (word(after("type")?)?, word(after("hook")?)?);
    let mut priority = 0i64;
    let mut sign = 1;
    for word in words.get(after("priority")?..)? {
        let named = PRIORITIES.iter().find(|(name, _)| *name == word.text);
        match (word.text.as_str(), named) {
            (_, Some((_, value))) => priority += value,
            ("-", _) => sign = -1,
            ("+", _) => sign = 1,
            (text, _) => priority += sign * text.parse::<i32>().map_or(0, i64::from),
        }
    }
    Some((kind, hook, priority))
}
