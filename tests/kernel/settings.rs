//! Settings that both sides have: the kernel as sysctls, ours as a configuration.

use crate::scenario::Random;
use shardwall::conntrack::config::Config;
use std::fmt;

/// The knobs of TCP tracking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    loose: bool,
    liberal: bool,
    ignore_invalid_rst: bool,
    max_retrans: u8,
}

impl Default for Settings {
    fn default() -> Self {
        let config = Config::default();
        Self {
            loose: config.tcp_loose,
            liberal: config.tcp_be_liberal,
            ignore_invalid_rst: config.tcp_ignore_invalid_rst,
            max_retrans: config.tcp_max_retrans,
        }
    }
}

impl Settings {
    /// Any of them.
    pub(crate) fn random(random: &mut Random) -> Self {
        Self {
            loose: random.chance(70),
            liberal: random.chance(40),
            ignore_invalid_rst: random.chance(50),
            max_retrans: random.pick(&[0, 1, 2, 3, 5]),
        }
    }

    /// Ours.
    pub(crate) fn config(&self) -> Config {
        Config {
            tcp_loose: self.loose,
            tcp_be_liberal: self.liberal,
            tcp_ignore_invalid_rst: self.ignore_invalid_rst,
            tcp_max_retrans: self.max_retrans,
            ..Config::default()
        }
    }

    /// The kernel's.
    pub(crate) fn sysctls(&self) -> [String; 4] {
        [
            ("loose", u8::from(self.loose)),
            ("be_liberal", u8::from(self.liberal)),
            ("ignore_invalid_rst", u8::from(self.ignore_invalid_rst)),
            ("max_retrans", self.max_retrans),
        ]
        .map(|(name, value)| format!("net.netfilter.nf_conntrack_tcp_{name}={value}"))
    }
}

/// What is not as usual, a line each.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = Self::default().sysctls();
        let unusual = self.sysctls().into_iter();
        unusual
            .filter(|one| !usual.contains(one))
            .try_for_each(|one| writeln!(f, "{one}"))
    }
}
