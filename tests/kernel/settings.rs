//! Settings that both sides have: the kernel as sysctls, ours as the policy's `conntrack`.

use crate::random::Random;
use shardwall::base::time::Span;
use shardwall::conntrack::config::Config;
use shardwall::conntrack::types::TcpState;
use std::fmt;

/// A configuration of the tracker, as far as the kernel has the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings(pub(crate) Config);

/// The states whose timeout is a sysctl; SYN_SENT2 has none.
const STATES: [(&str, TcpState); 8] = [
    ("syn_sent", TcpState::SynSent),
    ("syn_recv", TcpState::SynRecv),
    ("established", TcpState::Established),
    ("fin_wait", TcpState::FinWait),
    ("close_wait", TcpState::CloseWait),
    ("last_ack", TcpState::LastAck),
    ("time_wait", TcpState::TimeWait),
    ("close", TcpState::Close),
];

impl Settings {
    /// Any of them, with timeouts that no conversation outlives, or (`hasty`) mostly does.
    pub(crate) fn random(random: &mut Random, hasty: bool) -> Self {
        let mut config = Config {
            tcp_loose: random.chance(70),
            tcp_be_liberal: random.chance(40),
            tcp_ignore_invalid_rst: random.chance(50),
            tcp_max_retrans: random.pick(&[0, 1, 2, 3, 5]),
            ..Config::default()
        };
        Self::timeouts(&mut config, random, hasty);
        Self(config)
    }

    /// The defaults but for timeouts of 1 to 3 seconds.
    pub(crate) fn hasty(random: &mut Random) -> Self {
        let mut config = Config::default();
        Self::timeouts(&mut config, random, true);
        Self(config)
    }

    fn timeouts(config: &mut Config, random: &mut Random, hasty: bool) {
        let mut timeout = || {
            Span::secs(match hasty {
                true => 1 + random.below(3) as u32,
                false => 60 + random.below(1_000) as u32,
            })
        };
        let t = &mut config.timeouts;
        let tcp = STATES.map(|(_, state)| state as usize);
        let others = [
            &mut t.tcp_retrans,
            &mut t.tcp_unack,
            &mut t.udp_unreplied,
            &mut t.udp_replied,
            &mut t.icmp,
            &mut t.icmpv6,
            &mut t.generic,
        ];
        for other in others {
            *other = timeout();
        }
        for state in tcp {
            t.tcp[state] = timeout();
        }
    }

    /// The kernel's names and values.
    pub(crate) fn sysctls(&self) -> Vec<String> {
        let Config {
            timeouts: t,
            tcp_loose,
            tcp_be_liberal,
            tcp_max_retrans,
            tcp_ignore_invalid_rst,
            ..
        } = &self.0;
        let switches = [
            ("tcp_loose", u32::from(*tcp_loose)),
            ("tcp_be_liberal", u32::from(*tcp_be_liberal)),
            ("tcp_max_retrans", u32::from(*tcp_max_retrans)),
            ("tcp_ignore_invalid_rst", u32::from(*tcp_ignore_invalid_rst)),
        ]
        .map(|(name, value)| (name.to_owned(), value));
        let states = STATES.map(|(name, state)| {
            let timeout = t.tcp[state as usize].as_secs();
            (format!("tcp_timeout_{name}"), timeout)
        });
        let others = [
            ("tcp_timeout_max_retrans", t.tcp_retrans),
            ("tcp_timeout_unacknowledged", t.tcp_unack),
            ("udp_timeout", t.udp_unreplied),
            ("udp_timeout_stream", t.udp_replied),
            ("icmp_timeout", t.icmp),
            ("icmpv6_timeout", t.icmpv6),
            ("generic_timeout", t.generic),
        ]
        .map(|(name, timeout)| (name.to_owned(), timeout.as_secs()));
        [&switches[..], &states, &others]
            .concat()
            .into_iter()
            .map(|(name, value)| format!("net.netfilter.nf_conntrack_{name}={value}"))
            .collect()
    }

    /// The section of our policy.
    pub(crate) fn yaml(&self, max: u32) -> String {
        let Config {
            timeouts: t,
            tcp_loose,
            tcp_be_liberal,
            tcp_max_retrans,
            tcp_ignore_invalid_rst,
            ..
        } = &self.0;
        let states =
            STATES.map(|(name, state)| format!("{name}: {}", t.tcp[state as usize].as_secs()));
        format!(
            "conntrack:
  max: {max}
  timeouts:
    tcp: {{ {}, retrans: {}, unack: {} }}
    udp: {{ unreplied: {}, replied: {} }}
    icmp: {}
    icmpv6: {}
    generic: {}
  tcp: {{ loose: {tcp_loose}, be_liberal: {tcp_be_liberal}, max_retrans: {tcp_max_retrans}, \
             ignore_invalid_rst: {tcp_ignore_invalid_rst} }}
",
            states.join(", "),
            t.tcp_retrans.as_secs(),
            t.tcp_unack.as_secs(),
            t.udp_unreplied.as_secs(),
            t.udp_replied.as_secs(),
            t.icmp.as_secs(),
            t.icmpv6.as_secs(),
            t.generic.as_secs(),
        )
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
