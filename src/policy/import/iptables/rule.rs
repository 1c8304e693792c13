//! Reads one rule of iptables: matches, their options, the target.
//!
//! Life-cycle and concurrency: as [`super`].

use super::Line;
use super::rates::Rates;
use super::time::Time;
use crate::policy::import::rules::{self, Act, Effect, Item, Rule, UserChain, Why};
use crate::policy::import::words;
use crate::policy::model::Family;
use crate::policy::names::parse_number;

/// Matches whose options are read below.
const MODULES: [&str; 26] = [
    "tcp",
    "udp",
    "udplite",
    "sctp",
    "icmp",
    "icmp6",
    "multiport",
    "iprange",
    "state",
    "conntrack",
    "connmark",
    "limit",
    "hashlimit",
    "connlimit",
    "time",
    "length",
    "dscp",
    "tos",
    "comment",
    "physdev",
    "standard",
    "helper",
    "dccp",
    "esp",
    "ah",
    "all",
];

/// Options of targets that change nothing about the verdict, with a value.
const LOG_VALUES: [&str; 8] = [
    "--log-level",
    "--nflog-group",
    "--nflog-range",
    "--nflog-size",
    "--nflog-threshold",
    "--ulog-nlgroup",
    "--ulog-cprange",
    "--ulog-qthreshold",
];

/// Longest prefix of a log line.
const MAX_PREFIX: usize = 64;

/// What leaving a rule out does, by its target alone.
pub(super) fn effect(words: &[String], nat: bool) -> Effect {
    let mut pairs = words.iter().zip(words.iter().skip(1));
    let target =
        pairs.find(|(option, _)| ["-j", "-g", "--jump", "--goto"].contains(&option.as_str()));
    match target.map(|(_, target)| target.as_str()) {
        None | Some("LOG" | "NFLOG" | "ULOG") => Effect::None,
        // what these change is not seen by the rules that are taken
        Some(
            "DNAT" | "SNAT" | "MASQUERADE" | "REDIRECT" | "NETMAP" | "TCPMSS" | "TOS" | "DSCP"
            | "TTL" | "CLASSIFY" | "CHECKSUM",
        ) if nat || target.is_some() => Effect::None,
        Some("ACCEPT") if nat => Effect::None,
        Some("ACCEPT") => Effect::Stricter,
        Some("DROP" | "REJECT" | "TARPIT") => Effect::Looser,
        Some(_) => Effect::Unclear,
    }
}

/// What the rule of a line becomes, and a chain that it needs, whose key would be `over`; `chain` finds
/// the key of a user chain.
pub(super) fn items(
    line: &Line,
    family: Family,
    chain: &dyn Fn(&str) -> Option<String>,
    over: Option<&str>,
) -> (Vec<Item>, Option<UserChain>) {
    let mut reader = Reader {
        words: &line.words,
        at: 0,
        family,
        chain,
        rule: Rule::new(line.line, &line.text, Act::Continue),
        target: None,
        states: None,
        either: Vec::new(),
        rates: Rates::new(line.shares),
        time: Time::default(),
        asks_flow: false,
    };
    reader.rule.family = Some(family);
    match reader.read(over) {
        Ok((rules, made)) => {
            let rules = rules.into_iter().map(|rule| Item::Rule(Box::new(rule)));
            (rules.collect(), made)
        }
        Err(why) => {
            let effect = effect(&line.words, false);
            let left = Item::without(line.line, &line.text, why, effect);
            (vec![left], None)
        }
    }
}

pub(super) struct Reader<'a> {
    words: &'a [String],
    at: usize,
    pub(super) family: Family,
    chain: &'a dyn Fn(&str) -> Option<String>,
    pub(super) rule: Rule,
    /// The target, until its options are read.
    target: Option<&'a str>,
    states: Option<(bool, Vec<String>)>,
    /// Ports of `--ports`: of either side.
    either: Vec<String>,
    /// How often it matches.
    pub(super) rates: Rates,
    /// And when.
    pub(super) time: Time,
    /// It asks something of the flow beside its state.
    asks_flow: bool,
}

pub(super) type Read<T = ()> = Result<T, Why>;

impl<'a> Reader<'a> {
    pub(super) fn value(&mut self, option: &str) -> Read<&'a str> {
        let value = self
            .words
            .get(self.at)
            .ok_or_else(|| format!("`{option}` has no value"))?;
        self.at += 1;
        Ok(value)
    }

    /// The value of an option, and whether it is negated before or, as once was usual, behind it.
    pub(super) fn negatable(&mut self, option: &str, mut negated: bool) -> Read<(bool, &'a str)> {
        if self.words.get(self.at).is_some_and(|word| word == "!") {
            self.at += 1;
            negated = !negated;
        }
        Ok((negated, self.value(option)?))
    }

    fn read(&mut self, over: Option<&str>) -> Read<(Vec<Rule>, Option<UserChain>)> {
        while let Some(word) = self.words.get(self.at) {
            self.at += 1;
            let negated = word == "!";
            let option = if negated { self.value("!")? } else { word };
            let known = self.core(option, negated)? || {
                let limited = self.rates.is_limited() && self.target.is_none();
                let known = self.header(option, negated)? || self.tracking(option, negated)?;
                if limited && known {
                    let note = "`limit` counts only packets that all of the rule matches";
                    self.rule.notes.push(note.into());
                }
                known
                    || self.rates(option, negated)?
                    || self.hashed(option, negated)?
                    || self.time(option, negated)?
                    || (!negated && self.target_option(option)?)
            };
            if !known {
                return Err(format!("`{option}` is not known here").into());
            }
        }
        self.finish(over)
    }

    fn core(&mut self, option: &str, negated: bool) -> Read<bool> {
        match option {
            "-s" | "--source" | "--src" => self.addrs("saddr", option, negated)?,
            "-d" | "--destination" | "--dst" => self.addrs("daddr", option, negated)?,
            "-i" | "--in-interface" => self.interface("iif", option, negated)?,
            "-o" | "--out-interface" => self.interface("oif", option, negated)?,
            "-p" | "--protocol" | "--proto" => {
                let (negated, word) = self.negatable(option, negated)?;
                if !["all", "0"].contains(&word) {
                    self.rule
                        .matches
                        .add("proto", negated, vec![words::proto(word)?])?;
                } else if negated {
                    return Err(Why::Never(
                        "it never matches: every protocol is excluded".into(),
                    ));
                }
            }
            "-f" | "--fragment" => self.fragment(negated)?,
            "-4" | "--ipv4" | "-6" | "--ipv6" => {}
            "-c" | "--set-counters" => {
                self.value(option)?;
                self.value(option)?;
            }
            "-m" | "--match" => {
                let module = self.value(option)?;
                if !MODULES.contains(&module) {
                    return Err(format!("there is no match like `{module}` here").into());
                }
            }
            "-j" | "--jump" | "-g" | "--goto" => {
                let target = self.value(option)?;
                self.target = Some(target);
                self.rule.act = self.target(target, option.ends_with('g') || option == "--goto")?;
            }
            "--comment" => {
                let comment = self.value(option)?;
                self.rule.comment = Some(comment.to_owned()).filter(|text| !text.is_empty());
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn addrs(&mut self, key: &'static str, option: &str, negated: bool) -> Read {
        let (negated, text) = self.negatable(option, negated)?;
        let addrs: Vec<String> = text.split(',').map(words::addr).collect::<Result<_, _>>()?;
        let v6 = self.family == Family::Ipv6;
        if addrs.iter().any(|addr| addr.contains(':') != v6) {
            return Err("the address is of the other family".into());
        }
        if addrs.iter().any(|addr| addr.ends_with("/0")) {
            return match negated {
                false => Ok(()),
                true => Err(Why::Never(
                    "it never matches: every address is excluded".into(),
                )),
            };
        }
        self.rule.matches.add(key, negated, addrs)
    }

    fn interface(&mut self, key: &'static str, option: &str, negated: bool) -> Read {
        let (negated, name) = self.negatable(option, negated)?;
        let name = match name.strip_suffix('+') {
            Some(start) => format!("{start}*"),
            None => name.to_owned(),
        };
        self.rule.matches.add(key, negated, vec![name])
    }

    /// Linux reassembles before it comes to these rules wherever it tracks, so that none matches.
    fn fragment(&mut self, negated: bool) -> Read {
        let target = effect(self.words, false);
        match (negated, target) {
            (false, Effect::Looser | Effect::None) | (true, Effect::Stricter) => {
                let note = "Linux sees no fragments where it tracks; here, it is whether the datagram came in fragments";
                self.rule.notes.push(note.into());
                self.rule
                    .matches
                    .one("fragment", if negated { "false" } else { "true" })
            }
            _ => Err(
                "rules see datagrams here, not fragments: it would match more than it did".into(),
            ),
        }
    }

    fn header(&mut self, option: &str, negated: bool) -> Read<bool> {
        let m =
            |reader: &mut Self, key, negated, values| reader.rule.matches.add(key, negated, values);
        match option {
            "--sport" | "--source-port" | "--sports" | "--source-ports" => {
                self.ports("sport", option, negated)?
            }
            "--dport" | "--destination-port" | "--dports" | "--destination-ports" => {
                self.ports("dport", option, negated)?
            }
            "--ports" => {
                let (negated, text) = self.negatable(option, negated)?;
                if negated {
                    return Err("`! --ports` needs two matches".into());
                }
                self.either = text
                    .split(',')
                    .map(|port| words::ports(port, ':'))
                    .collect::<Result<_, _>>()?;
            }
            "--src-range" | "--dst-range" => {
                let (negated, text) = self.negatable(option, negated)?;
                let key = if option == "--src-range" {
                    "saddr"
                } else {
                    "daddr"
                };
                m(self, key, negated, vec![words::addr(text)?])?;
            }
            "--syn" => m(self, "tcp-flags", negated, vec!["syn".into()])?,
            "--tcp-flags" => {
                let (negated, mask) = self.negatable(option, negated)?;
                let value = self.value(option)?;
                let flags = words::flag_match(words::flags(mask, ',')?, words::flags(value, ',')?)?;
                m(self, "tcp-flags", negated, vec![flags])?;
            }
            "--icmp-type" | "--icmpv6-type" => {
                let (negated, text) = self.negatable(option, negated)?;
                let v6 = self.family == Family::Ipv6;
                let any = text == "any" || text == "255" && !v6;
                if !any {
                    m(self, "icmp-type", negated, vec![words::icmp(text, v6)?])?;
                }
                self.rule
                    .matches
                    .one("proto", if v6 { "icmpv6" } else { "icmp" })?;
            }
            "--length" => {
                let (negated, text) = self.negatable(option, negated)?;
                m(self, "length", negated, vec![words::numbers(text, ':')?])?;
            }
            "--dscp" | "--dscp-class" => {
                let (negated, text) = self.negatable(option, negated)?;
                m(self, "dscp", negated, vec![words::dscp(text)?])?;
            }
            "--tos" => {
                let (negated, text) = self.negatable(option, negated)?;
                let (value, mask) = text.split_once('/').unwrap_or((text, "0xff"));
                let (Some(value), Some(0xfc)) = (parse_number(value), parse_number(mask)) else {
                    return Err(
                        "of the TOS field only the code point is matched (mask 0xfc)".into(),
                    );
                };
                m(
                    self,
                    "dscp",
                    negated,
                    vec![words::dscp(&(value >> 2).to_string())?],
                )?;
            }
            "--physdev-in" => self.interface("iif", option, negated)?,
            "--physdev-out" => self.interface("oif", option, negated)?,
            "--physdev-is-bridged" if !negated => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn ports(&mut self, key: &'static str, option: &str, negated: bool) -> Read {
        let (negated, text) = self.negatable(option, negated)?;
        let ports = text.split(',').map(|port| words::ports(port, ':'));
        self.rule
            .matches
            .add(key, negated, ports.collect::<Result<_, _>>()?)
    }

    fn tracking(&mut self, option: &str, negated: bool) -> Read<bool> {
        match option {
            "--state" | "--ctstate" => {
                let (negated, text) = self.negatable(option, negated)?;
                let states = text.split(',').map(str::to_ascii_lowercase);
                // nothing is translated here
                let states: Vec<_> = states
                    .filter(|state| !["snat", "dnat"].contains(&state.as_str()))
                    .collect();
                self.states = Some((negated, states));
            }
            "--ctdir" => {
                let (negated, text) = self.negatable(option, negated)?;
                let original = match text.to_ascii_lowercase().as_str() {
                    "original" => true,
                    "reply" => false,
                    _ => return Err(format!("direction `{text}` is not known").into()),
                };
                let word = if original != negated {
                    "original"
                } else {
                    "reply"
                };
                self.asks_flow = true;
                self.rule.matches.one("ct-direction", word)?;
            }
            "--ctstatus" => {
                let (negated, text) = self.negatable(option, negated)?;
                let known = |word: &str| match word.to_ascii_lowercase().as_str() {
                    "expected" => Ok("expected".to_owned()),
                    "seen_reply" => Ok("seen-reply".to_owned()),
                    "assured" => Ok("assured".to_owned()),
                    "confirmed" => Ok("confirmed".to_owned()),
                    _ => Err(Why::from(format!("status `{word}` is not known here"))),
                };
                let bits = text.split(',').map(known).collect::<Result<_, _>>()?;
                self.asks_flow = true;
                self.rule.matches.add("ct-status", negated, bits)?;
            }
            "--mark" => {
                if !self.words.iter().any(|word| word == "connmark") {
                    return Err("packets have no mark here; flows have (`connmark`)".into());
                }
                let (negated, text) = self.negatable(option, negated)?;
                self.rule
                    .matches
                    .add("ct-mark", negated, vec![text.to_owned()])?;
            }
            "--helper" if self.target.is_none() => {
                let (negated, text) = self.negatable(option, negated)?;
                self.rule
                    .matches
                    .add("ct-helper", negated, vec![text.to_owned()])?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn target(&mut self, target: &str, goto: bool) -> Read<Act> {
        if let Some(key) = (self.chain)(target) {
            return Ok(if goto { Act::Goto(key) } else { Act::Jump(key) });
        }
        Ok(match target {
            "ACCEPT" => Act::Accept,
            "DROP" => Act::Drop,
            "RETURN" => Act::Return,
            "REJECT" => Act::Reject("icmp-port-unreachable"),
            "NOTRACK" => Act::Notrack,
            "LOG" | "NFLOG" | "ULOG" => {
                self.rule.log = Some(None);
                Act::Continue
            }
            "CT" | "CONNMARK" => Act::Continue,
            "MARK" => return Err("packets have no mark here; flows have (`CONNMARK`)".into()),
            _ => return Err(format!("there is no target like `{target}` here").into()),
        })
    }

    fn target_option(&mut self, option: &str) -> Read<bool> {
        match (self.target.unwrap_or_default(), option) {
            ("LOG" | "NFLOG" | "ULOG", "--log-prefix" | "--nflog-prefix" | "--ulog-prefix") => {
                let prefix = self.value(option)?.trim_end();
                self.rule.log = Some(log_prefix(prefix));
            }
            ("LOG" | "NFLOG" | "ULOG", option) if LOG_VALUES.contains(&option) => {
                self.value(option)?;
            }
            (
                "LOG",
                "--log-tcp-sequence" | "--log-tcp-options" | "--log-ip-options" | "--log-uid"
                | "--log-macdecode",
            ) => {}
            ("REJECT", "--reject-with") => {
                let (kind, note) = words::reject(self.value(option)?)?;
                self.rule.act = Act::Reject(kind);
                self.rule.notes.extend(note);
            }
            ("CT", "--notrack") => self.rule.act = Act::Notrack,
            ("CT", "--helper") => self.rule.act = Act::Helper(self.value(option)?.to_owned()),
            ("CONNMARK", "--set-mark" | "--set-xmark") => {
                let text = self.value(option)?;
                let (value, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));
                let (Some(value), Some(mask)) = (parse_number(value), parse_number(mask)) else {
                    return Err(format!("`{text}` is not a mark").into());
                };
                // --set-mark clears the bits of the value too; --set-xmark inverts those outside
                let mask = if option == "--set-mark" {
                    mask | value
                } else {
                    mask
                };
                if value & !mask != 0 {
                    return Err("it inverts bits of the mark".into());
                }
                self.rule.mark = Some(match mask {
                    0xffff_ffff => format!("{value:#x}"),
                    mask => format!("{value:#x}/{mask:#x}"),
                });
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn finish(&mut self, over: Option<&str>) -> Read<(Vec<Rule>, Option<UserChain>)> {
        if let Some((negated, states)) = self.states.take() {
            let bare = states
                .iter()
                .any(|state| ["invalid", "untracked"].contains(&state.as_str()));
            if self.asks_flow && (bare || negated) {
                return Err(
                    "of packets without a flow, iptables looks at nothing but the state".into(),
                );
            }
            let states = if negated {
                words::other_states(&states)
            } else {
                states
            };
            if states.is_empty() {
                return Err(Why::Never(
                    "it never matches: no packet is in such a state".into(),
                ));
            }
            self.rule.matches.add("ct", false, states)?;
        }
        if let Some(time) = self.time.value()? {
            self.rule.matches.one("time", time)?;
        }
        let beyond = self.limits()?;
        let idle = self.rule.is_idle();
        match self.target {
            None => {
                return Err(Why::Never(
                    "it has no target: nothing but its count is lost".into(),
                ));
            }
            Some(target) if idle => {
                return Err(
                    format!("`{target}` with these options has nothing like it here").into(),
                );
            }
            Some(_) => {}
        }
        if self.rule.act == Act::Reject("tcp-reset") && self.rule.matches.proto() != Some("tcp") {
            return Err("`tcp-reset` needs `-p tcp`".into());
        }
        let rule = self.rule.clone();
        if let Some(limit) = beyond {
            let key = over.ok_or("a limit that is exceeded, before tracking")?;
            if !self.either.is_empty() {
                return Err("`--ports` with a limit that is exceeded".into());
            }
            let (jump, chain) = rules::over(&rule, limit, key.to_owned())?;
            return Ok((vec![jump], Some(chain)));
        }
        if self.either.is_empty() {
            return Ok((vec![rule], None));
        }
        let verdict = matches!(
            rule.act,
            Act::Accept | Act::Drop | Act::Reject(_) | Act::Notrack
        );
        if !verdict
            || ["limit", "connlimit"]
                .iter()
                .any(|key| rule.matches.get(key).is_some())
        {
            return Err("`--ports` needs two rules, and both might match one packet".into());
        }
        let split = |key| {
            let mut rule = rule.clone();
            rule.matches
                .add(key, false, self.either.clone())
                .map(|()| rule)
        };
        Ok((vec![split("sport")?, split("dport")?], None))
    }
}

/// A prefix as the policy allows it; `None` if nothing is left.
pub(in crate::policy::import) fn log_prefix(text: &str) -> Option<String> {
    let mut text: String = text.chars().filter(|c| !c.is_control()).collect();
    while text.len() > MAX_PREFIX {
        text.pop();
    }
    (!text.is_empty()).then_some(text)
}
