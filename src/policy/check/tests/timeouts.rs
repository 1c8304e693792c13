//! `profiles`, `zones` and `timeout`: what is read, and every mistake with its place.

use super::*;
use crate::conntrack::types::SctpState;
use crate::policy::ProfileId;

fn model(conntrack: &str, rules: &str) -> crate::policy::Policy {
    let text = format!(
        "{HEAD}conntrack: {{ {conntrack} }}\nchains: {{ forward: {{ rules: [ {rules} ] }} }}\n"
    );
    check("x", &text)
        .unwrap_or_else(|errors| panic!("{errors}"))
        .model
}

#[test]
fn rules_and_zones_share_what_is_the_same() {
    let model = model(
        "profiles: { bulk: { tcp: { established: 1h } }, spare: { icmp: 5 } },
         zones: { 0x10: { timeout: 2h }, 7: { timeout: bulk } }",
        "{ timeout: bulk },
         { timeout: { tcp: { established: 3600 } } },
         { timeout: 7200 },
         { timeout: 1h },
         { timeout: { tcp: { established: 1h } }, action: accept },
         { timeout: default, action: drop },
         { timeout: {} , action: drop}",
    );
    let given: Vec<_> = model.chains[0].rules.iter().map(|r| r.timeouts).collect();
    let expected = [2, 3, 1, 4, 3, 0, 0].map(|id| Some(ProfileId(id)));
    assert_eq!(given, expected);
    assert_eq!(model.zone_timeouts, [(16, ProfileId(1)), (7, ProfileId(2))]);
    let names: Vec<_> = model.profiles.iter().map(|p| p.name.as_deref()).collect();
    assert_eq!(names, [None, Some("bulk"), None, None]);
}

#[test]
fn a_length_of_time_is_for_flows_at_rest() {
    let model = model("", "{ timeout: 1h, action: accept }");
    let own = &model.profiles[0].own;
    let hour = Span::secs(3600);
    for (state, span) in own.tcp.iter().enumerate() {
        let rest = state == TcpState::Established as usize;
        assert_eq!(*span, if rest { hour } else { Span(0) }, "{state}");
    }
    for (state, span) in own.sctp.iter().enumerate() {
        let rest = state == SctpState::Established as usize;
        assert_eq!(*span, if rest { hour } else { Span(0) }, "{state}");
    }
    assert_eq!((own.tcp_unack, own.tcp_retrans), (Span(0), Span(0)));
    let both = [
        own.udp_unreplied,
        own.udp_replied,
        own.udplite_unreplied,
        own.udplite_replied,
        own.gre_unreplied,
        own.gre_replied,
        own.icmp,
        own.icmpv6,
        own.generic,
    ];
    assert_eq!(both, [hour; 9]);
}

/// In a profile UDP-Lite stays as it is in `timeouts`, and only there goes by UDP.
#[test]
fn what_a_profile_does_not_name_it_does_not_say() {
    let model = model(
        "timeouts: { udp: { replied: 50 } }, profiles: { p: { udp: { replied: 10m } } }",
        "{ timeout: p, action: accept }",
    );
    let own = &model.profiles[0].own;
    assert_eq!(own.udp_replied, Span::secs(600));
    assert_eq!(own.udplite_replied, Span(0));
    assert_eq!(model.conntrack.timeouts.udplite_replied, Span::secs(50));
}

#[test]
fn mistakes_about_timeouts() {
    for (body, expected) in [
        (
            "{ timeout: 5w, action: drop }",
            "8:20 2 `5w` is not a length of time",
        ),
        (
            "{ timeout: 0, action: drop }",
            "8:20 1 a timeout is more than 0 and at most 24 days",
        ),
        (
            "{ timeout: bulk, action: drop }",
            "8:20 4 unknown profile `bulk`",
        ),
        (
            "{ timeout: [1h], action: drop }",
            "8:20 1 `timeout` must be the name of a profile, a length of time or a mapping, not a \
             list",
        ),
        (
            "{ timeout: { tcp: { estblished: 1h } }, action: drop }",
            "8:29 10 unknown key `estblished` in `tcp` timeouts",
        ),
        (
            "{ ct: established, timeout: 1h, action: accept }",
            "8:28 7 warning: `timeout` does nothing here: such a packet starts no flow",
        ),
    ] {
        assert_eq!(rule(body), expected, "{body}");
    }
    for (section, expected) in [
        (
            "raw: [{ timeout: 1h, action: accept }]",
            "5:9 7 `timeout` is not possible in `raw`",
        ),
        (
            "conntrack: { profiles: { 1h: {} } }",
            "5:26 2 a profile cannot be called `1h`: it reads as a length of time",
        ),
        (
            "conntrack: { profiles: { default: { icmp: 1 } } }",
            "5:26 7 a profile cannot be called `default`: that is what `timeouts` are called",
        ),
        (
            "conntrack: { profiles: { p: { udp: { replied: 0 } } } }",
            "5:47 1 a timeout is more than 0 and at most 24 days",
        ),
        (
            "conntrack: { zones: { 65536: { timeout: 1h } } }",
            "5:23 5 zone `65536` is not from 0 to 65535",
        ),
        (
            "conntrack: { zones: { 7: { timeout: 1h }, 07: { timeout: 2h } } }",
            "5:43 2 zone 7 is listed twice",
        ),
        (
            "conntrack: { profiles: { bulk: { icmp: 1 } }, zones: { 7: { timeout: blk } } }",
            "5:70 3 unknown profile `blk`",
        ),
    ] {
        let text = format!("{HEAD}{section}\nchains: {{ forward: {{}} }}\n");
        assert_eq!(found(&text), [expected], "{section}");
    }
    let errors = check(
        "x",
        &format!(
            "{HEAD}conntrack: {{ profiles: {{ bulk: {{ icmp: 1 }} }}, zones: {{ 7: {{ timeout: blk }} }} \
             }}\nchains: {{ forward: {{}} }}\n"
        ),
    )
    .unwrap_err();
    assert!(
        errors.to_string().contains("did you mean `bulk`?"),
        "{errors}"
    );
}

#[test]
fn a_policy_has_seven_sets_beside_the_default() {
    let rules = |count: usize| {
        let rule = |at| format!("{{ dport: {at}, proto: tcp, timeout: {at}h, action: accept }}, ");
        let rules: String = (1..=count).map(rule).collect();
        format!("{HEAD}chains: {{ forward: {{ rules: [ {rules} {{ timeout: 7h }} ] }} }}\n")
    };
    assert_eq!(found(&rules(7)), [""; 0]);
    for count in [8, 300] {
        let found = found(&rules(count));
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].ends_with("more than 7 different sets of timeouts in use"));
    }
}
