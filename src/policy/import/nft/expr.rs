//! Reads parts of nftables' expressions: lists, elements of sets, flags, verdicts.
//!
//! Life-cycle and concurrency: as [`super`].

use super::file::Word;
use crate::policy::import::rules::Why;
use crate::policy::import::words;
use crate::policy::names::parse_number;

pub(super) type Read<T = ()> = Result<T, Why>;

/// The words of one rule, one after the other.
#[derive(Clone, Debug)]
pub(super) struct Words<'a> {
    words: &'a [Word],
    at: usize,
}

impl<'a> Words<'a> {
    pub(super) fn new(words: &'a [Word]) -> Self {
        Self { words, at: 0 }
    }

    pub(super) fn next(&mut self) -> Option<&'a Word> {
        let word = self.words.get(self.at)?;
        self.at += 1;
        Some(word)
    }

    pub(super) fn need(&mut self) -> Read<&'a Word> {
        self.next()
            .ok_or_else(|| "the rule ends where it goes on".into())
    }

    pub(super) fn peek(&self, text: &str) -> bool {
        self.words.get(self.at).is_some_and(|word| word.is(text))
    }

    pub(super) fn take(&mut self, text: &str) -> bool {
        let found = self.peek(text);
        self.at += usize::from(found);
        found
    }

    pub(super) fn take_any(&mut self, texts: &[&str]) -> bool {
        texts.iter().any(|text| self.take(text))
    }

    /// The next word as it is, and what follows a comma behind it.
    pub(super) fn list(&mut self, separators: &[&str]) -> Read<Vec<String>> {
        let bracket = self.take("(");
        let mut list = vec![self.need()?.text.clone()];
        while self.take_any(separators) {
            list.push(self.need()?.text.clone());
        }
        if bracket && !self.take(")") {
            return Err("a bracket is not closed".into());
        }
        Ok(list)
    }

    /// The words of a block, with its braces.
    pub(super) fn block(&mut self) -> Read<&'a [Word]> {
        let start = self.at;
        let mut depth = 0usize;
        while let Some(word) = self.next() {
            if word.is("{") {
                depth += 1;
            } else if word.is("}") {
                depth = depth.saturating_sub(1);
            }
            if depth == 0 {
                return Ok(&self.words[start..self.at]);
            }
        }
        Err("a brace is not closed".into())
    }
}

/// The elements of `{ a, b comment "x", { c } }`, each one word.
pub(super) fn elements(block: &[Word]) -> Read<Vec<String>> {
    let brace = |word: &Word| word.is("{") || word.is("}");
    let mut out = Vec::new();
    for part in block.split(|word| brace(word) || word.is(",")) {
        if !part.is_empty() {
            out.push(element(part)?);
        }
    }
    if out.is_empty() {
        return Err("the list is empty".into());
    }
    Ok(out)
}

fn element(words: &[Word]) -> Read<String> {
    let (value, rest) = match words {
        [low, dash, high, rest @ ..] if dash.is("-") => {
            (format!("{}-{}", low.text, high.text), rest)
        }
        [value, rest @ ..] => (value.text.clone(), rest),
        [] => return Err("an element is empty".into()),
    };
    match rest {
        [] => Ok(value),
        [word, ..] if word.is("comment") || word.is("counter") => Ok(value),
        [word, ..] if word.is(".") => Err("elements of several parts".into()),
        _ => Err("an element that is not understood".into()),
    }
}

/// The entries of a map of verdicts: the key, and the words of its verdict.
pub(super) fn verdicts(block: &[Word]) -> Read<Vec<(String, Vec<String>)>> {
    let inner = block
        .get(1..block.len().saturating_sub(1))
        .unwrap_or_default();
    let mut out = Vec::new();
    for part in inner
        .split(|word| word.is(","))
        .filter(|part| !part.is_empty())
    {
        let at = part.iter().position(|word| word.is(":"));
        let (key, verdict) = match (at, part) {
            (Some(at), part) => (
                element(&part[..at])?,
                part[at + 1..]
                    .iter()
                    .map(|word| word.text.clone())
                    .collect(),
            ),
            // `established:accept`, which an IPv6 address cannot be told from
            (None, [first, rest @ ..]) => match first.text.split_once(':') {
                Some((key, verdict)) if !verdict.contains(':') && !verdict.is_empty() => {
                    let rest = rest.iter().map(|word| word.text.clone());
                    (
                        key.to_owned(),
                        std::iter::once(verdict.to_owned()).chain(rest).collect(),
                    )
                }
                _ => return Err("an entry of the map is not understood".into()),
            },
            (None, []) => continue,
        };
        if key == "*" {
            return Err("a map with an entry for all others".into());
        }
        out.push((key, verdict));
    }
    if out.is_empty() {
        return Err("the map is empty".into());
    }
    Ok(out)
}

/// Reads what follows `tcp flags`: whether the match is negated, and values of `tcp-flags`, any of
/// which matches.
pub(super) fn flags(words: &mut Words<'_>) -> Read<(bool, Vec<String>)> {
    if words.peek("vmap") {
        return Err("a map of combinations of TCP flags".into());
    }
    let one = |negated, mask, value| Ok((negated, vec![words::flag_match(mask, value)?]));
    if words.take("!") {
        return one(false, bits(words)?, 0);
    }
    let masked = words.take_any(&["&", "and"]);
    let mask = if masked { bits(words)? } else { 0xff };
    let negated = words.take("!=");
    let compared = negated || words.take("==");
    if words.peek("{") {
        return Ok((negated, combinations(mask, words.block()?)?));
    }
    if masked && !compared {
        return Err("flags of TCP are masked, and not compared".into());
    }
    let value = bits(words)?;
    if !masked && words.take("/") {
        return one(negated, bits(words)?, value);
    }
    if compared {
        return one(negated, mask, value);
    }
    // any of them
    match value.count_ones() {
        1 => one(false, value, value),
        _ => one(true, value, 0),
    }
}

/// Reads TCP flags that are set together.
fn bits(words: &mut Words<'_>) -> Read<u8> {
    let list = words.list(&[",", "|"])?;
    let bits = |word: &String| match parse_number(word) {
        Some(number) => u8::try_from(number).map_err(|_| "not flags of TCP".into()),
        None => words::flags(word, ','),
    };
    list.iter().try_fold(0, |all, word| Ok(all | bits(word)?))
}

/// The elements of a set of combinations of the flags of `mask`, as values of `tcp-flags`.
fn combinations(mask: u8, block: &[Word]) -> Read<Vec<String>> {
    let inner = block.get(1..block.len().saturating_sub(1));
    let parts = inner.unwrap_or_default().split(|word| word.is(","));
    let mut never = "the list is empty".into();
    let mut out = Vec::new();
    for part in parts.filter(|part| !part.is_empty()) {
        let mut words = Words::new(part);
        let value = bits(&mut words)?;
        if words.next().is_some() {
            return Err("an element that is not understood".into());
        }
        match words::flag_match(mask, value) {
            Ok(text) => out.push(text),
            // others may match
            Err(why) => never = why,
        }
    }
    if out.is_empty() { Err(never) } else { Ok(out) }
}

/// Ranges of numbers up to 65535 that a comparison means.
pub(super) fn compared(sign: &str, number: &str) -> Read<String> {
    let number: u32 = number
        .parse()
        .map_err(|_| format!("`{number}` is not a number"))?;
    let number = number.min(0x1_0000);
    let (low, high) = match sign {
        "<" => (0, number.checked_sub(1)),
        "<=" => (0, Some(number)),
        ">" => (number + 1, Some(0xffff)),
        _ => (number, Some(0xffff)),
    };
    match high.map(|high| high.min(0xffff)) {
        Some(high) if low <= high => Ok(format!("{low}-{high}")),
        _ => Err(Why::Never(
            "it never matches: there is no such number".into(),
        )),
    }
}
