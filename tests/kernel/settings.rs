//! Settings that both sides have: the kernel as sysctls, ours as a configuration.

use crate::scenario::Random;
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
    /// Any of them. One time in three, flows expire during conversations.
    pub(crate) fn random(random: &mut Random) -> Self {
        let mut config = Config {
            tcp_loose: random.chance(70),
            tcp_be_liberal: random.chance(40),
            tcp_ignore_invalid_rst: random.chance(50),
            tcp_max_retrans: random.pick(&[0, 1, 2, 3, 5]),
            ..Config::default()
        };
        let hasty = random.chance(33);
        let mut timeout = || {
            Span::secs(match hasty {
                true => 2 + random.below(4) as u32,
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
        Self(config)
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
