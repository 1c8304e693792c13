//! Reads matches of iptables that bound how often a rule matches: `limit`, `hashlimit`, `connlimit`.
//!
//! Life-cycle and concurrency: as [`super`].

use super::rule::{Read, Reader};
use crate::policy::model::Family;
use crate::policy::names::parse_number;

/// Units of rates, and their milliseconds.
const UNITS: [(&str, u64); 4] = [
    ("second", 1_000),
    ("minute", 60_000),
    ("hour", 3_600_000),
    ("day", 86_400_000),
];

/// What a rule says about rates, until all of it is read.
#[derive(Debug, Default)]
pub(super) struct Rates {
    limit: Option<String>,
    burst: Option<String>,
    hashed: Option<Hashed>,
    /// Another rule has the same buckets.
    shares: bool,
    /// Whether more than that matches, and how many.
    connlimit: Option<(bool, String)>,
    connmask: Option<String>,
    conndst: bool,
}

/// Options of `hashlimit`.
#[derive(Debug, Default)]
struct Hashed {
    /// Whether it matches above this rate, and not up to it.
    rate: Option<(bool, String)>,
    burst: Option<String>,
    mode: String,
    source: Option<String>,
    destination: Option<String>,
    /// Milliseconds after which an address is forgotten.
    expire: Option<u64>,
}

impl Rates {
    /// Of a rule that shares the buckets of another one, or does not.
    pub(super) fn new(shares: bool) -> Self {
        Self {
            shares,
            ..Self::default()
        }
    }

    /// Whether something that takes a token was read.
    pub(super) fn is_limited(&self) -> bool {
        self.limit.is_some() || self.hashed.is_some()
    }
}

impl Reader<'_> {
    pub(super) fn rates(&mut self, option: &str, negated: bool) -> Read<bool> {
        match option {
            "--limit" if !negated => self.rates.limit = Some(self.value(option)?.to_owned()),
            "--limit-burst" if !negated => self.rates.burst = Some(self.value(option)?.to_owned()),
            "--connlimit-above" | "--connlimit-upto" => {
                let (negated, count) = self.negatable(option, negated)?;
                let over = (option == "--connlimit-above") != negated;
                self.rates.connlimit = Some((over, count.to_owned()));
            }
            "--connlimit-mask" if !negated => {
                self.rates.connmask = Some(self.value(option)?.to_owned());
            }
            "--connlimit-saddr" if !negated => self.rates.conndst = false,
            "--connlimit-daddr" if !negated => self.rates.conndst = true,
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn hashed(&mut self, option: &str, negated: bool) -> Read<bool> {
        if !option.starts_with("--hashlimit") {
            return Ok(false);
        }
        let (negated, value) = self.negatable(option, negated)?;
        let hashed = self.rates.hashed.get_or_insert_default();
        let text = Some(value.to_owned());
        match option {
            "--hashlimit" | "--hashlimit-upto" | "--hashlimit-above" => {
                let over = (option == "--hashlimit-above") != negated;
                hashed.rate = Some((over, value.to_owned()));
            }
            _ if negated => return Ok(false),
            "--hashlimit-burst" => hashed.burst = text,
            "--hashlimit-mode" => hashed.mode = value.to_owned(),
            "--hashlimit-srcmask" => hashed.source = text,
            "--hashlimit-dstmask" => hashed.destination = text,
            "--hashlimit-htable-expire" => hashed.expire = parse_number(value),
            // how the kernel's table is laid out
            "--hashlimit-name"
            | "--hashlimit-htable-size"
            | "--hashlimit-htable-max"
            | "--hashlimit-htable-gcinterval" => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Puts limits among the matches; returns one above which the rule matches.
    pub(super) fn limits(&mut self) -> Read<Option<String>> {
        let mut beyond = None;
        let rates = std::mem::take(&mut self.rates);
        if let Some(hashed) = rates.hashed {
            if rates.shares {
                let why = "another rule has a `hashlimit` of this name, and so shares its buckets";
                return Err(why.into());
            }
            let (over, limit) = self.bucket(hashed)?;
            if over {
                beyond = Some(limit);
            } else {
                self.rule.matches.one("limit", limit)?;
            }
        }
        if let Some(limit) = rates.limit {
            let (limit, _) = rate(&limit, rates.burst.as_deref())?;
            self.rule.matches.one("limit", limit)?;
        }
        if let Some((over, count)) = rates.connlimit {
            let over = if over { "over " } else { "" };
            let per = if rates.conndst {
                "destination"
            } else {
                "source"
            };
            let mask = self.mask(rates.connmask);
            let value = format!("{over}{count} per {per}{mask}");
            self.rule.matches.one("connlimit", value)?;
        }
        Ok(beyond)
    }

    /// Whether a `hashlimit` is to be exceeded, and its value of `limit`.
    fn bucket(&mut self, hashed: Hashed) -> Read<(bool, String)> {
        let (over, rate) = hashed.rate.ok_or("`hashlimit` without a rate")?;
        let (mut limit, refill) = self::rate(&rate, hashed.burst.as_deref())?;
        let (per, mask) = match hashed.mode.as_str() {
            "" => (None, None),
            "srcip" => (Some("source"), hashed.source),
            "dstip" => (Some("destination"), hashed.destination),
            mode => {
                let why = format!("a rate by `{mode}`; here it is by source or by destination");
                return Err(why.into());
            }
        };
        if let Some(per) = per {
            limit += &format!(" per {per}{}", self.mask(mask));
        }
        // an entry lives so long behind its last packet (Linux, xt_hashlimit), by default for the unit
        // of its rate (iptables, libxt_hashlimit)
        let unit = UNITS
            .iter()
            .find(|(name, _)| limit.contains(&format!("/{name}")));
        let expire = hashed.expire.or(unit.map(|(_, length)| *length));
        if let Some(expire) = expire.filter(|expire| *expire < refill) {
            let note = format!(
                "who was silent for {} s had a full burst again; here a burst of that size takes {} s",
                expire / 1000,
                refill / 1000
            );
            self.rule.notes.push(note);
        }
        Ok((over, limit))
    }

    /// A prefix length as the policy has it behind `source`.
    fn mask(&self, mask: Option<String>) -> String {
        match (mask, self.family) {
            (None, _) => String::new(),
            (Some(mask), Family::Ipv4) => format!("/{mask}"),
            (Some(mask), Family::Ipv6) => format!("/32,{mask}"),
        }
    }
}

/// A value of `limit`, of `3/min`; and in how many milliseconds an empty bucket is full.
fn rate(limit: &str, burst: Option<&str>) -> Read<(String, u64)> {
    let (count, unit) = limit.split_once('/').unwrap_or((limit, "second"));
    let unit = UNITS.iter().find(|(name, _)| {
        !unit.is_empty() && name.starts_with(unit) || *name == unit.trim_end_matches('s')
    });
    let burst = burst.unwrap_or("5");
    match (parse_number(count), unit) {
        (Some(count), Some((unit, length))) => {
            let full = parse_number(burst).unwrap_or(0).saturating_mul(*length);
            let refill = full / count.max(1);
            Ok((format!("{count}/{unit} burst {burst}"), refill))
        }
        _ => Err(format!("`{limit}` is not a rate of packets").into()),
    }
}
