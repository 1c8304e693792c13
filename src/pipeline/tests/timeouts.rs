//! `timeout` of rules and zones: which one a flow goes by, and over reloads.

use super::*;

const POLICY: &str = "version: 1
ports: { lan: { device: a }, wan: { device: b } }
bridge: [{ ports: [lan, wan], zone: vlan }]
conntrack:
  profiles:
    bulk: { tcp: { syn_sent: 50, established: 1h }, udp: { replied: 10m } }
  zones: { 7: { timeout: 8m }, 8: { timeout: bulk } }
chains:
  forward:
    policy: accept
    rules:
      - { name: early, proto: udp, dport: 1-2, timeout: 3m }
      - { name: late, proto: udp, dport: 2-3, timeout: { udp: { unreplied: 70 } }, jump: more }
      - { name: usual, proto: udp, dport: 5, timeout: default, action: accept }
      - { name: web, proto: tcp, dport: 80, timeout: bulk, action: accept }
      - { name: answers, ct: [established, new], timeout: 9m, proto: udp, sport: 53 }
      - { name: no, proto: udp, dport: 9, timeout: 3m, action: drop }
  more: { rules: [{ proto: udp, sport: 77, timeout: 2h, mark: 5, action: return }] }
";

fn timeout(path: &Path) -> u32 {
    let flows = path.flows();
    assert_eq!(flows.len(), 1, "{flows:?}");
    flows[0].timeout
}

/// A datagram with the tag of a VLAN.
fn tagged(vlan: u16, sport: u16, dport: u16) -> Vec<u8> {
    let bytes = udp(TALK, sport, dport);
    let tag = [&[0x81, 0], &vlan.to_be_bytes()[..]].concat();
    [&bytes[..12], &tag, &bytes[12..]].concat()
}

/// As Linux 6.18's nftables: the last one on the way counts, from the first packet on.
#[test]
fn the_last_matching_rule_decides_then_the_zone() {
    let mut path = Path::new(POLICY);
    for (frame, expected) in [
        (udp(TALK, 1, 1), 180),
        (udp(TALK, 1, 2), 70),
        (udp(TALK, 1, 3), 70),
        (udp(TALK, 77, 3), 7200),
        (udp(TALK, 1, 4), 30),
        (tagged(6, 1, 4), 30),
        (tagged(7, 1, 4), 480),
        (tagged(8, 1, 4), 30), // what `bulk` says nothing of
        (tagged(7, 1, 1), 180),
        (tagged(7, 1, 5), 30), // back to the default
        (tcp(TALK, 1, 80, SYN, 100, 0), 50),
    ] {
        assert!(path.passes(LAN, &frame));
        assert_eq!(timeout(&path), expected);
        path.flush();
    }
    assert!(!path.passes(LAN, &udp(TALK, 1, 9)));
    assert_eq!(path.flows().len(), 0);
}

/// A flow that exists already keeps what it has, whatever rules say of its later packets.
#[test]
fn only_the_packet_that_starts_a_flow_chooses() {
    let mut path = Path::new(POLICY);
    path.send(LAN, &udp(TALK, 1, 53));
    assert_eq!(timeout(&path), 30);
    path.wait(3);
    path.send(WAN, &udp(TALK.flip(), 53, 1));
    path.send(WAN, &udp(TALK.flip(), 53, 1));
    assert_eq!(timeout(&path), 120);
    path.flush();
    path.send(LAN, &tcp(TALK, 1, 80, SYN, 100, 0));
    path.send(WAN, &tcp(TALK.flip(), 80, 1, SYN | ACK, 500, 101));
    assert_eq!(timeout(&path), 60); // SYN_RECV, of which `bulk` says nothing
    path.send(LAN, &tcp(TALK, 1, 80, ACK, 101, 501));
    assert_eq!(timeout(&path), 3600);
    // The same addresses anew: the rules are asked again.
    path.send(LAN, &tcp(TALK, 1, 80, FIN | ACK, 101, 501));
    path.send(WAN, &tcp(TALK.flip(), 80, 1, FIN | ACK, 501, 102));
    path.send(LAN, &tcp(TALK, 1, 80, ACK, 102, 502));
    assert_eq!(timeout(&path), 120);
    path.send(LAN, &tcp(TALK, 1, 80, SYN, 9000, 0));
    assert_eq!(timeout(&path), 50);
}

#[test]
fn flows_keep_their_timeouts_over_reloads_by_name_or_content() {
    let (there, back) = (udp(TALK, 1, 53), udp(TALK.flip(), 53, 1));
    let rules = "    rules:\n";
    let with = |rule: &str| POLICY.replace(rules, &format!("{rules}      - {rule}\n"));
    let first = with("{ name: first, proto: udp, dport: 53, timeout: bulk, action: accept }");
    let mut path = Path::new(&first);
    path.send(LAN, &there);
    path.wait(3);
    path.send(WAN, &back);
    path.send(LAN, &there);
    assert_eq!(timeout(&path), 600);
    // Other sets come before it, and it says something else: its name stays.
    let other =
        with("{ name: zeroth, proto: tcp, timeout: 99 }").replace("replied: 10m", "replied: 11m");
    path.reload(&other);
    path.send(LAN, &there);
    assert_eq!(timeout(&path), 660);
    // Gone: the default. The next policy has it again.
    let gone = rules_only("      - { action: accept }");
    path.reload(&gone);
    path.send(LAN, &there);
    assert_eq!(timeout(&path), 120);
    path.reload(&first);
    path.send(LAN, &there);
    assert_eq!(timeout(&path), 600);
}

fn rules_only(text: &str) -> String {
    rules(text).replace(
        "bridge: [[lan, wan]]",
        "bridge: [{ ports: [lan, wan], zone: vlan }]",
    )
}

/// An expected flow goes by what rules say of its own first packet.
#[test]
fn an_expected_flow_is_not_its_masters() {
    let text = format!(
        "{}helpers: [{{ helper: tftp, proto: udp, dport: 69 }}]\n",
        rules(
            "      - { proto: udp, dport: 69, timeout: 1h, action: accept }
      - { ct: related, timeout: 2h, action: accept }"
        )
    );
    let mut path = Path::new(&text);
    let ask = frame(
        TALK,
        Segment::Udp {
            sport: 5000,
            dport: 69,
        },
        b"\0\x01file\0octet\0",
    );
    assert!(path.passes(LAN, &ask));
    let data = frame(
        TALK.flip(),
        Segment::Udp {
            sport: 6000,
            dport: 5000,
        },
        b"\0\x03\0\x01data",
    );
    assert!(path.passes(WAN, &data));
    let mut timeouts: Vec<_> = path
        .flows()
        .iter()
        .map(|f| (f.expected, f.timeout))
        .collect();
    timeouts.sort_unstable();
    assert_eq!(timeouts, [(false, 3600), (true, 7200)]);
}
