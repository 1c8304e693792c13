//! Reads the section `conntrack`: limits, timeouts, TCP knobs.
//!
//! Life-cycle and concurrency: as `check`.

use super::{Checker, Fields};
use crate::base::time::Span;
use crate::conntrack::config::{Config, Timeouts};
use crate::conntrack::types::{SctpState, TcpState};
use crate::policy::names::parse_number;
use crate::policy::yaml::Node;

/// Keys of a `timeouts: tcp:` mapping that are states.
const TCP_TIMEOUTS: [(&str, TcpState); 9] = [
    ("syn_sent", TcpState::SynSent),
    ("syn_recv", TcpState::SynRecv),
    ("established", TcpState::Established),
    ("fin_wait", TcpState::FinWait),
    ("close_wait", TcpState::CloseWait),
    ("last_ack", TcpState::LastAck),
    ("time_wait", TcpState::TimeWait),
    ("close", TcpState::Close),
    ("syn_sent2", TcpState::SynSent2),
];

/// Keys of a `timeouts: sctp:` mapping.
const SCTP_TIMEOUTS: [(&str, SctpState); 8] = [
    ("closed", SctpState::Closed),
    ("cookie_wait", SctpState::CookieWait),
    ("cookie_echoed", SctpState::CookieEchoed),
    ("established", SctpState::Established),
    ("shutdown_sent", SctpState::ShutdownSent),
    ("shutdown_recd", SctpState::ShutdownRecd),
    ("shutdown_ack_sent", SctpState::ShutdownAckSent),
    ("heartbeat_sent", SctpState::HeartbeatSent),
];

impl Checker<'_> {
    pub(super) fn conntrack(&mut self, node: &Node) -> Config {
        let mut config = Config::default();
        let keys = &[
            "max",
            "expect_max",
            "timeouts",
            "profiles",
            "zones",
            "tcp",
            "checksum",
            "accounting",
            "timestamps",
        ];
        let Some(fields) = self.fields(node, "`conntrack`", keys, &keys[2..6]) else {
            return config;
        };
        if let Some(max) = fields
            .get("max")
            .and_then(|node| self.number(node, "max", 1, 1 << 28))
        {
            config.max = max as u32;
        }
        if let Some(max) = fields
            .get("expect_max")
            .and_then(|node| self.number(node, "expect_max", 1, 1 << 24))
        {
            config.expect_max = max as u32;
        }
        if let Some(node) = fields.get("timeouts") {
            self.timeouts(node, &mut config.timeouts, true);
        }
        if let Some(node) = fields.get("profiles") {
            self.read_profiles(node);
        }
        if let Some(node) = fields.get("zones") {
            self.zones(node);
        }
        self.switch(&fields, "checksum", &mut config.checksum);
        self.switch(&fields, "accounting", &mut config.accounting);
        self.switch(&fields, "timestamps", &mut config.timestamps);
        let keys = &["loose", "be_liberal", "max_retrans", "ignore_invalid_rst"];
        if let Some(fields) = fields
            .get("tcp")
            .and_then(|node| self.fields(node, "`tcp`", keys, &[]))
        {
            self.switch(&fields, "loose", &mut config.tcp_loose);
            self.switch(&fields, "be_liberal", &mut config.tcp_be_liberal);
            let ignore = &mut config.tcp_ignore_invalid_rst;
            self.switch(&fields, "ignore_invalid_rst", ignore);
            let retrans = fields
                .get("max_retrans")
                .and_then(|n| self.number(n, "max_retrans", 0, 255));
            config.tcp_max_retrans = retrans.map_or(config.tcp_max_retrans, |n| n as u8);
        }
        config
    }

    fn switch(&mut self, fields: &Fields<'_>, key: &str, knob: &mut bool) {
        if let Some(value) = fields.get(key).and_then(|node| self.boolean(node, key)) {
            *knob = value;
        }
    }

    /// Reads what a set of timeouts says; `lite` if its UDP-Lite goes by its UDP unless it says
    /// otherwise.
    pub(super) fn timeouts(&mut self, node: &Node, timeouts: &mut Timeouts, lite: bool) {
        let keys = &[
            "tcp", "udp", "udplite", "icmp", "icmpv6", "gre", "sctp", "generic",
        ];
        let Some(fields) = self.fields(node, "`timeouts`", keys, &[]) else {
            return;
        };
        if let Some(node) = fields.get("tcp") {
            let mut keys: Vec<_> = TCP_TIMEOUTS.iter().map(|(name, _)| *name).collect();
            keys.extend(["retrans", "unack"]);
            if let Some(tcp) = self.fields(node, "`tcp` timeouts", &keys, &[]) {
                for (name, state) in TCP_TIMEOUTS {
                    self.timeout(&tcp, name, &mut timeouts.tcp[state as usize]);
                }
                self.timeout(&tcp, "retrans", &mut timeouts.tcp_retrans);
                self.timeout(&tcp, "unack", &mut timeouts.tcp_unack);
            }
        }
        self.answered(
            &fields,
            "udp",
            &mut timeouts.udp_unreplied,
            &mut timeouts.udp_replied,
        );
        // Linux has no sysctls for UDP-Lite: it goes by those of UDP.
        if lite {
            timeouts.udplite_unreplied = timeouts.udp_unreplied;
            timeouts.udplite_replied = timeouts.udp_replied;
        }
        let (unreplied, replied) = (
            &mut timeouts.udplite_unreplied,
            &mut timeouts.udplite_replied,
        );
        self.answered(&fields, "udplite", unreplied, replied);
        self.answered(
            &fields,
            "gre",
            &mut timeouts.gre_unreplied,
            &mut timeouts.gre_replied,
        );
        if let Some(node) = fields.get("sctp") {
            let keys = SCTP_TIMEOUTS.map(|(name, _)| name);
            if let Some(sctp) = self.fields(node, "`sctp` timeouts", &keys, &[]) {
                for (name, state) in SCTP_TIMEOUTS {
                    self.timeout(&sctp, name, &mut timeouts.sctp[state as usize]);
                }
            }
        }
        self.timeout(&fields, "icmp", &mut timeouts.icmp);
        self.timeout(&fields, "icmpv6", &mut timeouts.icmpv6);
        self.timeout(&fields, "generic", &mut timeouts.generic);
    }

    /// The two timeouts of a protocol without states.
    fn answered(
        &mut self,
        fields: &Fields<'_>,
        proto: &str,
        unreplied: &mut Span,
        replied: &mut Span,
    ) {
        let title = format!("`{proto}` timeouts");
        if let Some(node) = fields.get(proto)
            && let Some(both) = self.fields(node, &title, &["unreplied", "replied"], &[])
        {
            self.timeout(&both, "unreplied", unreplied);
            self.timeout(&both, "replied", replied);
        }
    }

    fn timeout(&mut self, fields: &Fields<'_>, key: &str, timeout: &mut Span) {
        let Some(node) = fields.get(key) else { return };
        let Some(text) = self.scalar(node, &format!("`{key}`")) else {
            return;
        };
        if let Some(span) = self.span(node, text) {
            *timeout = span;
        }
    }

    /// Reads the length of a timeout.
    pub(super) fn span(&mut self, node: &Node, text: &str) -> Option<Span> {
        match seconds(text) {
            Some(secs @ 1..) if secs <= u64::from(Span::MAX.as_secs()) => {
                return Some(Span::secs(secs as u32));
            }
            Some(_) => {
                self.sink
                    .error(node.place, "a timeout is more than 0 and at most 24 days");
            }
            None => {
                self.sink
                    .error(node.place, format!("`{text}` is not a length of time"))
                    .help("write 30, 30s, 10m, 2h, 5d or 1h30m");
            }
        }
        None
    }
}

/// Reads `30`, `10m` or `1h30m` as seconds.
pub(super) fn seconds(text: &str) -> Option<u64> {
    if let Some(plain) = parse_number(text) {
        return Some(plain);
    }
    let mut total = 0u64;
    let mut last_unit = u64::MAX;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let unit = match rest.as_bytes().get(digits)? {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 86_400,
            _ => return None,
        };
        if unit >= last_unit {
            return None;
        }
        last_unit = unit;
        let count: u64 = rest.get(..digits)?.parse().ok()?;
        total = total.saturating_add(count.saturating_mul(unit));
        rest = rest.get(digits + 1..)?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn lengths_of_time_are_read() {
        for (text, expected) in [
            ("30", Some(30)),
            ("30s", Some(30)),
            ("10m", Some(600)),
            ("2h", Some(7200)),
            ("5d", Some(432_000)),
            ("1h30m", Some(5400)),
            ("1d2h3m4s", Some(93_784)),
            ("30m1h", None),
            ("1m1m", None),
            ("5", Some(5)),
            ("5x", None),
            ("s", None),
            ("1h30", None),
            ("-5s", None),
            ("1.5h", None),
            ("99999999999999999d", Some(u64::MAX)),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}
