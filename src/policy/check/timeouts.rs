//! Reads sets of timeouts: `profiles` and `zones` of `conntrack`, and `timeout` of rules.
//!
//! Life-cycle and concurrency: as `check`.

use std::collections::BTreeMap;

use super::Checker;
use super::conntrack::seconds;
use crate::conntrack::config::{MAX_PROFILES, Timeouts};
use crate::policy::names::parse_number;
use crate::policy::timeouts::{NOTHING, Profile, ProfileId, at_rest};
use crate::policy::yaml::{Kind, Node};

/// What the default is called.
const DEFAULT: &str = "default";

/// The sets of a policy, as they are read.
#[derive(Default)]
pub(super) struct Profiles {
    /// Those of `profiles`.
    named: BTreeMap<String, Timeouts>,
    /// Those that a rule or zone asks for, named or not.
    pub(super) used: Vec<Profile>,
    /// Zones with timeouts of their own.
    pub(super) zones: Vec<(u16, ProfileId)>,
}

impl Checker<'_> {
    pub(super) fn read_profiles(&mut self, node: &Node) {
        for (key, value) in self.entries(node, "`profiles`").unwrap_or_default() {
            let name = key.text.as_str();
            self.name(key.place, "profile", name);
            let why = match name {
                DEFAULT => Some("that is what `timeouts` are called"),
                _ if seconds(name).is_some() => Some("it reads as a length of time"),
                _ => None,
            };
            if let Some(why) = why {
                let message = format!("a profile cannot be called `{name}`: {why}");
                self.sink.error(key.place, message);
            }
            let mut own = NOTHING;
            self.timeouts(value, &mut own, false);
            self.profiles.named.insert(name.to_owned(), own);
        }
    }

    /// Reads `zones`.
    pub(super) fn zones(&mut self, node: &Node) {
        for (key, value) in self.entries(node, "`zones`").unwrap_or_default() {
            let zone = parse_number(&key.text).and_then(|zone| u16::try_from(zone).ok());
            if zone.is_none() {
                let message = format!("zone `{}` is not from 0 to 65535", key.text);
                self.sink.error(key.place, message);
            }
            let Some(fields) = self.fields(value, "a zone", &["timeout"], &[]) else {
                continue;
            };
            let id = fields.get("timeout").and_then(|node| self.timeout_of(node));
            let (Some(zone), Some(id)) = (zone, id) else {
                continue;
            };
            if self.profiles.zones.iter().any(|(known, _)| *known == zone) {
                let message = format!("zone {zone} is listed twice");
                self.sink.error(key.place, message);
            }
            self.profiles.zones.push((zone, id));
        }
    }

    /// Reads the `timeout` of a rule or zone: the name of a profile, a length of time, or a set of
    /// its own.
    pub(super) fn timeout_of(&mut self, node: &Node) -> Option<ProfileId> {
        let profile = match &node.kind {
            Kind::Scalar(text) if text == DEFAULT => return Some(ProfileId(0)),
            Kind::Scalar(text) => match self.profiles.named.get(text) {
                Some(own) => Profile {
                    name: Some(text.clone()),
                    text: text.clone(),
                    own: own.clone(),
                },
                None if text.starts_with(|first: char| first.is_ascii_alphabetic()) => {
                    let named = &self.profiles.named;
                    let known = named.keys().map(String::as_str).chain([DEFAULT]);
                    self.sink
                        .error(node.place, format!("unknown profile `{text}`"))
                        .help(
                            "write a name under `conntrack: { profiles: … }`, or a length of time \
                             like 1h",
                        )
                        .suggest(text, known);
                    return None;
                }
                None => Profile {
                    name: None,
                    text: text.clone(),
                    own: at_rest(self.span(node, text)?),
                },
            },
            Kind::Map(_) => {
                let mut own = NOTHING;
                self.timeouts(node, &mut own, false);
                let text = "of its own".into();
                let name = None;
                Profile { name, text, own }
            }
            _ => {
                let expected = "the name of a profile, a length of time or a mapping";
                return self.mismatch(node, "`timeout`", expected);
            }
        };
        if profile.name.is_none() && profile.own == NOTHING {
            return Some(ProfileId(0));
        }
        let used = &mut self.profiles.used;
        let known = used.iter().position(|one| match profile.name {
            Some(_) => one.name == profile.name,
            None => one.name.is_none() && one.own == profile.own,
        });
        let at = known.unwrap_or(used.len());
        if known.is_none() && at <= MAX_PROFILES {
            used.push(profile);
        }
        if at == MAX_PROFILES && known.is_none() {
            let message = format!("more than {MAX_PROFILES} different sets of timeouts in use");
            self.sink
                .error(node.place, message)
                .help("a flow remembers which of them is its own, and has room for so many");
        }
        (at < MAX_PROFILES).then(|| ProfileId(at as u8 + 1))
    }
}
