//! One slip of each kind, and the word that was meant; all of them in one run.

use super::*;

const POLICY: &str = "version: 1
ports: { lan: { device: a }, wan: { device: b, quees: 2 } }
bridge: [{ ports: [lna, wan], ethertypes: [arp, llpd] }]
system: { hugepages: atuo, cors: [1], log: jurnal, time-zone: Europe/Berlni }
reload: rematsh
sets: { servers: [10.0.0.1], others: [$servres], inside: [lam] }
conntrak: {}
conntrack:
  timeouts: { tcp: { establised: 5d } }
  tcp: { losse: true }
  profiles: { patient: { udp: { replied: 1h } } }
  zones: { 3: { timeuot: 1h } }
helpers:
  - { helper: fpt, dport: 21 }
raw:
  - { proto: udp, action: notrak }
chains:
  forward:
    polcy: drop
    rules:
      - { name: a, ct: establised, action: accept }
      - { name: b, saddr: $servrs, action: drop }
      - { name: c, jump: inbuond }
      - { name: d, ct-helper: tfpt, action: drop }
      - { name: e, iif: wam, action: drop }
      - { name: f, icmp-type: echo-requst, action: drop }
      - { name: g, dscp: af12x, action: drop }
      - { name: h, time: wedn, action: drop }
      - { name: i, proto: tpc, action: drop }
      - { name: j, tcp-flags: syn/sny, action: drop }
      - { name: k, action: acept }
      - { name: l, action: { reject: admin-prohibted } }
      - { name: m, family: ipv5, action: drop }
      - { name: n, ct-direction: orignal, action: drop }
      - { name: o, ct-status: asured, action: drop }
      - { name: p, limit: 5/secnd, action: drop }
      - { name: q, limit: 5/second per sorce, action: drop }
      - { name: r, timeout: patent, action: accept }
      - { name: s, dprot: 22, action: drop }
      - { name: t, connlimit: 5 per destinaton, action: drop }
      - { name: u, log: { prefx: x } }
      - { name: v, time: { day: mon }, action: drop }
  inbound: { rules: [] }
";

#[test]
fn each_slip_is_told_with_what_was_meant() {
    let errors = check("x", POLICY).unwrap_err();
    let told: Vec<_> = errors
        .iter()
        .filter(|d| d.severity == Severity::Error)
        .map(|d| {
            let help = d.help.as_deref().unwrap_or_default();
            let meant = help
                .strip_prefix("did you mean `")
                .and_then(|h| h.strip_suffix("`?"));
            (d.line, meant.unwrap_or_default())
        })
        .collect();
    let expected = [
        (2, "queues"),
        (3, "lan"),
        (3, "lldp"),
        (4, "auto"),
        (4, "cores"),
        (4, "journal"),
        (4, "Europe/Berlin"),
        (5, "rematch"),
        (6, "$servers"),
        (6, "lan"),
        (7, "conntrack"),
        (9, "established"),
        (10, "loose"),
        (12, "timeout"),
        (14, "ftp"),
        (16, "notrack"),
        (19, "policy"),
        (21, "established"),
        (22, "$servers"),
        (23, "inbound"),
        (24, "tftp"),
        (25, "wan"),
        (26, "echo-request"),
        (27, "af12"),
        (28, "wed"),
        (29, "tcp"),
        (30, "syn"),
        (31, "accept"),
        (32, "admin-prohibited"),
        (33, "ipv4"),
        (34, "original"),
        (35, "assured"),
        (36, "second"),
        (37, "source"),
        (38, "patient"),
        (39, "dport"),
        (40, "destination"),
        (41, "prefix"),
        (42, "days"),
    ];
    assert_eq!(told, expected);
}
