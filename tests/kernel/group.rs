//! What conversations are played under: settings and rules, in the kernel's words and in ours.

use crate::oracle::NAMES as LEGS;
use crate::random::Random;
use crate::scenario::Scenario;
use crate::settings::Settings;
use crate::walk::plays;
use shardwall::conntrack::config::Config;
use std::fmt;
use std::fmt::Write;

/// A rule in both languages.
#[derive(Debug)]
struct Rule {
    /// The matches of a rule of a policy.
    ours: &'static str,
    /// The same for nft.
    kernel: &'static str,
    action: Action,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Accept,
    Drop,
    /// In our words and in nft's.
    Reject(&'static str, &'static str),
}

/// Rules of the chain before tracking: all of them `notrack`.
const NOTRACK: [(&str, &str); 8] = [
    ("proto: tcp, dport: 81", "tcp dport 81"),
    ("proto: tcp, sport: 81", "tcp sport 81"),
    ("proto: udp, dport: 81", "udp dport 81"),
    ("proto: udp, sport: 81", "udp sport 81"),
    // A port that a helper listens to.
    ("proto: tcp, dport: 2121", "tcp dport 2121"),
    ("proto: tcp, sport: 2121", "tcp sport 2121"),
    // Of this one only the way there is left out.
    ("proto: tcp, dport: 82", "tcp dport 82"),
    ("proto: udp, dport: 82", "udp dport 82"),
];

const DROPS: [Rule; 7] = [
    drop(
        "ct: invalid, proto: tcp, dport: 81",
        "ct state invalid tcp dport 81",
    ),
    drop(
        "ct: new, proto: tcp, dport: 82",
        "ct state new tcp dport 82",
    ),
    drop(
        "ct: new, proto: udp, dport: 82",
        "ct state new udp dport 82",
    ),
    drop(
        "ct: established, ct-direction: reply, proto: tcp, sport: 83",
        "ct state established ct direction reply tcp sport 83",
    ),
    drop("ct: related", "ct state related"),
    drop(
        "proto: tcp, dport: 84, tcp-flags: \"psh/psh\"",
        "tcp dport 84 tcp flags & psh == psh",
    ),
    drop(
        "proto: udp, length: 40-50",
        "meta l4proto udp meta length 40-50",
    ),
];

const REJECTS: [Rule; 4] = [
    Rule {
        ours: "ct: new, proto: tcp, dport: 82",
        kernel: "ct state new tcp dport 82",
        action: Action::Reject("tcp-reset", "tcp reset"),
    },
    Rule {
        ours: "ct: [new, established], proto: tcp, tcp-flags: \"psh/psh\"",
        kernel: "ct state { new, established } tcp flags & psh == psh",
        action: Action::Reject("tcp-reset", "tcp reset"),
    },
    Rule {
        ours: "proto: tcp, sport: 83, tcp-flags: \"fin/fin\"",
        kernel: "tcp sport 83 tcp flags & fin == fin",
        action: Action::Reject("icmp-port-unreachable", "icmpx port-unreachable"),
    },
    Rule {
        ours: "proto: udp, length: 40-50",
        kernel: "meta l4proto udp meta length 40-50",
        action: Action::Reject("admin-prohibited", "icmpx admin-prohibited"),
    },
];

/// Timeouts of their own for flows that begin: matches and sets, in our words and in nft's. A set of
/// the kernel's is for one protocol, and what it does not name is as the default when it is made.
/// In either the last that matches decides.
const TIMEOUTS: [(&str, &str, &str, &str); 6] = [
    (
        "proto: tcp, dport: 81",
        "tcp: { syn_sent: 71, established: 1h, time_wait: 9, unack: 200 }",
        "tcp dport 81",
        "protocol tcp; policy = { syn_sent: 71, established: 3600, time_wait: 9, unack: 200 };",
    ),
    (
        "proto: tcp, dport: 82",
        "tcp: { syn_sent: 72, syn_recv: 21, fin_wait: 22, close_wait: 23, last_ack: 24, close: 25, retrans: 26 }",
        "tcp dport 82",
        "protocol tcp; policy = { syn_sent: 72, syn_recv: 21, fin_wait: 22, close_wait: 23, last_ack: 24, close: 25, retrans: 26 };",
    ),
    // Some of those before again.
    (
        "proto: tcp, dport: 81-82, sport: 20000-40000",
        "tcp: { established: 777 }",
        "tcp dport 81-82 tcp sport 20000-40000",
        "protocol tcp; policy = { established: 777 };",
    ),
    // A later packet of a flow that has the default, which changes nothing.
    (
        "ct: established, proto: tcp, dport: 80",
        "tcp: { established: 66 }",
        "ct state established tcp dport 80",
        "protocol tcp; policy = { established: 66 };",
    ),
    (
        "proto: udp, dport: 81",
        "udp: { unreplied: 41, replied: 42 }",
        "udp dport 81",
        "protocol udp; policy = { unreplied: 41, replied: 42 };",
    ),
    (
        "proto: udp, dport: 82",
        "udp: { replied: 43 }",
        "udp dport 82",
        "protocol udp; policy = { replied: 43 };",
    ),
];

/// What a default-drop policy lets pass: everything that this machine's own side starts.
const STRICT: [Rule; 4] = [
    accept("ct: established", "ct state established"),
    accept("ct: related", "ct state related"),
    drop(
        "proto: tcp, tcp-flags: \"!syn\", ct: new",
        "tcp flags & (fin | syn | rst | ack) != syn ct state new",
    ),
    accept("iif: lan, ct: new", "iifname lan ct state new"),
];

const fn drop(ours: &'static str, kernel: &'static str) -> Rule {
    let action = Action::Drop;
    Rule {
        ours,
        kernel,
        action,
    }
}

const fn accept(ours: &'static str, kernel: &'static str) -> Rule {
    let action = Action::Accept;
    Rule {
        ours,
        kernel,
        action,
    }
}

/// Helpers, and the server's port of the flows that they listen to, in every group.
pub(crate) const HELPERS: [(&str, &str, u16); 7] = [
    ("ftp", "tcp", 21),
    ("ftp", "tcp", 2121),
    ("irc", "tcp", 6667),
    ("tftp", "udp", 69),
    ("amanda", "udp", 10080),
    ("sip", "udp", 5060),
    ("sip", "tcp", 5060),
];

/// Flows that the table of the group `full` has room for.
pub(crate) const ROOM: u32 = 8;

/// Settings and rules.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// Its name.
    pub(crate) name: &'static str,
    settings: Settings,
    notrack: bool,
    /// Whether [`TIMEOUTS`] are given.
    timeouts: bool,
    rules: &'static [Rule],
    /// Whether what no rule accepts is dropped.
    strict: bool,
    /// Server ports that conversations choose from.
    pub(crate) ports: &'static [u16],
    /// Whether conversations wait for about as long as flows live.
    pub(crate) hasty: bool,
    /// Whether transport checksums are verified.
    pub(crate) checksums: bool,
    /// Whether the table has only [`ROOM`], and random conversations stay away.
    pub(crate) full: bool,
}

impl Group {
    /// All of them; chance has a say in the settings of some.
    pub(crate) fn all(random: &mut Random) -> Vec<Self> {
        let of = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            Settings(config)
        };
        let plain = |name, settings| Self {
            name,
            settings,
            notrack: false,
            timeouts: false,
            rules: &[],
            strict: false,
            ports: &[80],
            hasty: false,
            checksums: true,
            full: false,
        };
        let hasty = random.chance(50);
        vec![
            plain("default", Settings::default()),
            plain("loose=0", of(|config| config.tcp_loose = false)),
            plain("be_liberal=1", of(|config| config.tcp_be_liberal = true)),
            plain("max_retrans=1", of(|config| config.tcp_max_retrans = 1)),
            plain(
                "ignore_invalid_rst=1",
                of(|config| config.tcp_ignore_invalid_rst = true),
            ),
            Self {
                hasty,
                ..plain("chance", Settings::random(random, hasty))
            },
            Self {
                hasty: true,
                ..plain("short", Settings::hasty(random))
            },
            Self {
                notrack: true,
                ports: &[80, 81, 82],
                ..plain("notrack", Settings::default())
            },
            Self {
                timeouts: true,
                ports: &[80, 81, 82],
                ..plain("timeouts", Settings::default())
            },
            Self {
                rules: &DROPS,
                ports: &[80, 81, 82, 83, 84],
                ..plain("drop", Settings::default())
            },
            Self {
                rules: &STRICT,
                strict: true,
                ..plain("strict", Settings::default())
            },
            Self {
                rules: &REJECTS,
                ports: &[80, 82, 83],
                ..plain("reject", Settings::default())
            },
            Self {
                full: true,
                ..plain("full", Settings::default())
            },
            Self {
                checksums: false,
                ..plain("checksum=0", Settings::default())
            },
        ]
    }

    /// Whether it plays what was written for the group `default` as well: a group with nothing but
    /// settings does.
    pub(crate) fn takes_all(&self, scenario: &Scenario) -> bool {
        let plain = !self.has_rules() && !self.full && !self.hasty;
        plain && scenario.group == "default"
    }

    /// Whether any rule looks at packets.
    pub(crate) fn has_rules(&self) -> bool {
        self.notrack || self.timeouts || !self.rules.is_empty()
    }

    /// Whether any rule answers.
    pub(crate) fn rejects(&self) -> bool {
        let mut rules = self.rules.iter();
        rules.any(|rule| matches!(rule.action, Action::Reject(..)))
    }

    /// The kernel's sysctls.
    pub(crate) fn sysctls(&self) -> Vec<String> {
        let mut all = self.settings.sysctls();
        let checksum = u8::from(self.checksums);
        all.push(format!("net.netfilter.nf_conntrack_checksum={checksum}"));
        all
    }

    /// The kernel's rules: reports from behind the tracker, from the rules, and from where it is sent on,
    /// which is behind the helpers.
    pub(crate) fn ruleset(&self) -> String {
        let mut text = String::from("table inet oracle {\n");
        for (name, proto, port) in HELPERS {
            let _ = writeln!(
                text,
                "    ct helper {name}-{proto}-{port} {{ type \"{name}\" protocol {proto}; }}"
            );
        }
        let timeouts = || (0..).zip(TIMEOUTS).filter(|_| self.timeouts);
        for (at, (.., set)) in timeouts() {
            // An object is for one version of IP.
            for version in ["ip", "ip6"] {
                let _ = writeln!(
                    text,
                    "    ct timeout {version}-{at} {{ l3proto {version}; {set} }}"
                );
            }
        }
        text += "    chain raw {
        type filter hook prerouting priority raw;
        ip daddr 198.18.0.1 log group 5 prefix \"fence\" drop
";
        for (_, kernel) in NOTRACK.iter().filter(|_| self.notrack) {
            let _ = writeln!(text, "        {kernel} notrack");
        }
        text += "    }
    chain look {
        type filter hook prerouting priority -150;
        iifname != { \"lan\", \"wan\" } accept
";
        for (name, proto, port) in HELPERS {
            let _ = writeln!(
                text,
                "        {proto} dport {port} ct helper set \"{name}-{proto}-{port}\""
            );
        }
        for (at, (_, _, kernel, _)) in timeouts() {
            for (version, nfproto) in [("ip", "ipv4"), ("ip6", "ipv6")] {
                let _ = writeln!(
                    text,
                    "        meta nfproto {nfproto} {kernel} ct timeout set \"{version}-{at}\""
                );
            }
        }
        text += "        ct state untracked log group 5 prefix \"s untracked -\" accept
        ct state invalid log group 5 prefix \"s invalid -\" accept
";
        for state in ["new", "established", "related"] {
            for dir in ["original", "reply"] {
                let _ = writeln!(
                    text,
                    "        ct state {state} ct direction {dir} log group 5 prefix \"s {state} {dir}\" accept"
                );
            }
        }
        text += "    }
    chain forward {
        type filter hook forward priority filter;
        meta mark set 1
";
        let end = if self.strict {
            "log group 5 prefix \"v drop\" drop"
        } else {
            "accept"
        };
        for rule in self.rules {
            let action = match rule.action {
                Action::Accept => "accept".into(),
                Action::Drop => "log group 5 prefix \"v drop\" drop".into(),
                Action::Reject(_, with) => {
                    format!("log group 5 prefix \"v reject\" reject with {with}")
                }
            };
            let _ = writeln!(text, "        {} {action}", rule.kernel);
        }
        let _ = write!(text, "        {end}\n    }}\n}}\ntable netdev oracle {{\n");
        for leg in LEGS {
            let _ = writeln!(
                text,
                "    chain {leg} {{
        type filter hook egress device {leg} priority filter;
        meta mark 1 log group 5 prefix \"v accept\"
    }}"
            );
        }
        text += "}\n";
        text
    }

    /// Our policy.
    pub(crate) fn policy(&self) -> String {
        let max = if self.full { ROOM } else { 1 << 17 };
        let mut text = format!(
            "version: 1
ports:
  lan: {{ device: net_null0 }}
  wan: {{ device: net_null1 }}
bridge: [[lan, wan]]
{}",
            self.settings.yaml(max)
        );
        if !self.checksums && plays("checksums") {
            text += "  checksum: false\n";
        }
        text += "helpers:\n";
        for (name, proto, port) in HELPERS {
            // Low ports are for the others to find out; SIP's helper in the kernel knows of them.
            let more = if name == "sip" {
                ""
            } else {
                ", low-ports: true"
            };
            let _ = writeln!(
                text,
                "  - {{ helper: {name}, proto: {proto}, dport: {port}{more} }}"
            );
        }
        if self.notrack {
            text += "raw:\n";
            for (ours, _) in NOTRACK {
                let _ = writeln!(text, "  - {{ {ours}, action: notrack }}");
            }
        }
        let end = if self.strict { "drop" } else { "accept" };
        let _ = write!(text, "chains:\n  forward:\n    policy: {end}\n");
        if !self.rules.is_empty() || self.timeouts {
            text += "    rules:\n";
        }
        for (ours, set, ..) in TIMEOUTS.iter().filter(|_| self.timeouts) {
            let _ = writeln!(text, "      - {{ {ours}, timeout: {{ {set} }} }}");
        }
        for rule in self.rules {
            let action = match rule.action {
                Action::Accept => "action: accept".into(),
                Action::Drop => "action: drop".into(),
                Action::Reject(with, _) => format!("action: {{ reject: {with} }}"),
            };
            let _ = writeln!(text, "      - {{ {}, {action} }}", rule.ours);
        }
        text
    }
}

/// The name, and the sysctls that are not as usual.
impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {}\n{}", self.name, self.settings)
    }
}
