//! Control flows that helpers listen to, and the flows that they announce, through the whole path.

use super::*;
use crate::conntrack::helper::{HelperId, Refusal};
use crate::conntrack::shard::HelperCounters;
use crate::helpers::ALL;
use crate::pipeline::DropReason;

/// FTP and TFTP are listened to; what is not a control flow must be known or expected.
const RULES: &str = "version: 1
ports: { lan: { device: d0 }, wan: { device: d1 } }
bridge: [[lan, wan]]
helpers:
  - { helper: ftp, proto: tcp, dport: [21, 2121] }
  - { helper: tftp, proto: udp, dport: 69 }
chains:
  forward:
    rules:
      - { name: known, ct: [established, related], action: accept }
      - { name: control, iif: lan, proto: [tcp, udp], dport: [21, 69, 2121], ct: new, action: accept }
";

/// A control connection from 10.0.0.1.
struct Control {
    sport: u16,
    dport: u16,
    next: [u32; 2],
}

const CLIENT: usize = 0;
const SERVER: usize = 1;

impl Control {
    /// Opens it, and lets both say something that means nothing.
    fn open(path: &mut Path, sport: u16) -> Self {
        let mut control = Self {
            sport,
            dport: 21,
            next: [1000, 5000],
        };
        control.handshake(path);
        assert!(control.say(path, SERVER, "220 ready\r\n"));
        assert!(control.say(path, CLIENT, "USER anonymous\r\n"));
        control
    }

    fn handshake(&mut self, path: &mut Path) {
        assert!(self.segment(path, CLIENT, SYN, 1000, ""));
        assert!(self.segment(path, SERVER, SYN | ACK, 5000, ""));
        self.next = [1001, 5001];
        assert!(self.segment(path, CLIENT, ACK, 1001, ""));
    }

    /// Whether the next words of `who` pass.
    fn say(&mut self, path: &mut Path, who: usize, what: &str) -> bool {
        let seq = self.next[who];
        self.next[who] += what.len() as u32;
        self.segment(path, who, ACK, seq, what)
    }

    fn segment(&self, path: &mut Path, who: usize, flags: u8, seq: u32, what: &str) -> bool {
        let (addrs, sport, dport, iif) = match who {
            CLIENT => (TALK, self.sport, self.dport, LAN),
            _ => (TALK.flip(), self.dport, self.sport, WAN),
        };
        let ack = match flags {
            SYN => 0,
            _ if flags == SYN | ACK => self.next[CLIENT].max(1001),
            _ => self.next[1 - who],
        };
        let segment = Segment::Tcp {
            sport,
            dport,
            seq,
            ack,
            flags,
            window: 60_000,
            options: &[],
        };
        path.passes(iif, &frame(addrs, segment, what.as_bytes()))
    }

    /// Ends it.
    fn reset(&self, path: &mut Path) {
        assert!(self.segment(path, CLIENT, RST, self.next[CLIENT], ""));
        path.wait(11);
    }
}

/// A PORT command for 10.0.0.1 and `port`.
fn port(port: u16) -> String {
    let [high, low] = port.to_be_bytes();
    format!("PORT 10,0,0,1,{high},{low}\r\n")
}

/// What the server's first segment to the client's `port` is.
fn data(path: &mut Path, port: u16) -> Option<CtState> {
    let syn = tcp(TALK.flip(), 20, port, SYN, 1, 0);
    path.send(WAN, &syn).tracked.map(|tracked| tracked.state)
}

const NEW: Option<CtState> = Some(CtState::New);
const RELATED: Option<CtState> = Some(CtState::Related);

fn of<'a>(path: &'a Path, name: &str) -> &'a HelperCounters {
    let at = ALL.iter().position(|helper| helper.info.name == name);
    let id = HelperId::new(at.unwrap()).unwrap();
    &path.pipeline.counters().ct.helpers[id.index()]
}

fn refused(path: &Path, name: &str, why: Refusal) -> u64 {
    of(path, name).refused[why as usize].get()
}

#[test]
fn data_is_related_from_its_first_packet_on() {
    let mut path = Path::new(RULES);
    let mut control = Control::open(&mut path, 3000);
    assert_eq!(data(&mut path, 4000), NEW);
    assert!(control.say(&mut path, CLIENT, &port(4000)));
    assert_eq!(path.pipeline.shard().expected(), 1);
    assert_eq!(data(&mut path, 4001), NEW);
    assert_eq!(data(&mut path, 4000), RELATED);
    assert_eq!(path.pipeline.shard().expected(), 0);
    // Until a reply comes every packet of it is RELATED, and then none is.
    assert_eq!(data(&mut path, 4000), RELATED);
    let back = tcp(TALK, 4000, 20, SYN | ACK, 100, 2);
    let state = |path: &mut Path, port, frame: &[u8]| path.send(port, frame).tracked.unwrap().state;
    assert_eq!(state(&mut path, LAN, &back), CtState::Established);
    let third = tcp(TALK.flip(), 20, 4000, ACK, 2, 101);
    assert_eq!(state(&mut path, WAN, &third), CtState::Established);
    let flows = path.flows();
    let shown: Vec<_> = flows
        .iter()
        .map(|flow| (flow.helper.as_deref(), flow.expected, flow.master.is_some()))
        .collect();
    assert_eq!(shown, [(Some("ftp"), false, false), (None, true, true)]);
    assert_eq!(flows[1].master.unwrap().ends, flows[0].original);
    let counters = of(&path, "ftp");
    let counts = [
        &counters.attached,
        &counters.parsed,
        &counters.expected,
        &counters.used,
        &counters.withdrawn,
    ];
    assert_eq!(counts.map(|counter| counter.get()), [1, 1, 1, 1, 0]);
}

#[test]
fn a_second_flow_is_not_expected() {
    let mut path = Path::new(RULES);
    let mut control = Control::open(&mut path, 3000);
    control.say(&mut path, CLIENT, &port(4000));
    assert_eq!(data(&mut path, 4000), RELATED);
    let again = tcp(TALK.flip(), 21_000, 4000, SYN, 1, 0);
    assert_eq!(path.send(WAN, &again).tracked.unwrap().state, CtState::New);
}

#[test]
fn nothing_is_expected_without_a_line_that_says_so() {
    for (why, text) in [
        ("no lines", RULES.replace("helper: ftp", "helper: irc")),
        ("another port", RULES.replace("dport: [21, 2121] }", "dport: 22 }")),
        (
            "an untracked control flow",
            RULES.replace("helpers:", "raw: [{ proto: tcp, dport: 21, action: notrack }, { proto: tcp, sport: 21, action: notrack }]\nhelpers:")
                .replace("established, related", "established, related, untracked"),
        ),
    ] {
        let mut path = Path::new(&text);
        let mut control = Control::open(&mut path, 3000);
        control.say(&mut path, CLIENT, &port(4000));
        assert_eq!(data(&mut path, 4000), NEW, "{why}");
        assert_eq!(of(&path, "ftp").attached.get(), 0, "{why}");
    }
}

#[test]
fn what_policy_drops_is_not_heard() {
    let text = RULES.replace(
        "- { name: known,",
        "- { length: 62-70, proto: tcp, dport: 21, action: drop }\n      - { name: known,",
    );
    let mut path = Path::new(&text);
    let mut control = Control::open(&mut path, 3000);
    let seq = control.next[CLIENT];
    assert!(!control.say(&mut path, CLIENT, &port(4000)));
    assert_eq!(data(&mut path, 4000), NEW);
    // Its sender tries again, and policy has changed its mind.
    path.reload(RULES);
    assert!(control.segment(&mut path, CLIENT, ACK, seq, &port(4000)));
    assert_eq!(data(&mut path, 4000), RELATED);
}

#[test]
fn a_stream_is_heard_once_both_sides_have_spoken() {
    let mut path = Path::new(RULES);
    let control = Control {
        sport: 3000,
        dport: 21,
        next: [1000, 0],
    };
    // Lines in a SYN, and before the SYN/ACK: nobody has agreed to anything.
    let lines = format!("NOOP\r\n{}", port(4000));
    assert!(control.segment(&mut path, CLIENT, SYN, 1000, &lines));
    assert_eq!(data(&mut path, 4000), NEW);
    assert_eq!(of(&path, "ftp").parsed.get(), 0);
}

/// The same ports again, with other sequence numbers, in the flow's entry: nothing is left of the
/// streams before.
#[test]
fn streams_begin_anew_with_their_handshake() {
    for isn in [500_000, 4_000_000_000] {
        let mut path = Path::new(RULES);
        let mut control = Control::open(&mut path, 3000);
        // An unfinished line, and the client gives up.
        assert!(control.say(&mut path, CLIENT, "PORT 10,0"));
        let seq = control.next[CLIENT];
        assert!(control.segment(&mut path, CLIENT, RST, seq, ""));
        control.next = [isn, 0];
        assert!(control.segment(&mut path, CLIENT, SYN, isn, ""));
        control.next = [isn + 1, isn + 100];
        assert!(control.segment(&mut path, SERVER, SYN | ACK, isn + 100, ""));
        control.next = [isn + 1, isn + 101];
        assert!(control.segment(&mut path, CLIENT, ACK, isn + 1, ""));
        assert!(control.say(&mut path, SERVER, "220 ready\r\n"));
        assert!(control.say(&mut path, CLIENT, "USER anonymous\r\n"));
        assert!(control.say(&mut path, CLIENT, &port(4000)));
        assert_eq!(data(&mut path, 4000), RELATED, "{isn}");
    }
}

/// A number that an earlier flow had, and a first payload that nobody hears.
#[test]
fn nothing_is_left_of_an_earlier_flow() {
    let mut path = Path::new(RULES);
    let mut control = Control::open(&mut path, 3000);
    control.say(&mut path, CLIENT, "PORT 10,0,0,1,");
    control.reset(&mut path);
    // It begins where the other one's line ended.
    let begin = control.next[CLIENT];
    let mut next = Control {
        sport: 3001,
        dport: 21,
        next: [begin, 0],
    };
    assert!(next.segment(&mut path, CLIENT, SYN, begin - 1, "x"));
    next.next = [begin, 5001];
    assert!(next.segment(&mut path, SERVER, SYN | ACK, 5000, ""));
    assert!(next.segment(&mut path, CLIENT, ACK, begin, ""));
    assert!(next.say(&mut path, CLIENT, "15,160\r\n"));
    assert_eq!(data(&mut path, 4000), NEW);
}

#[test]
fn a_control_flow_takes_its_expectations_along() {
    let mut path = Path::new(RULES);
    let mut control = Control::open(&mut path, 3000);
    control.say(&mut path, CLIENT, &port(4000));
    control.reset(&mut path);
    assert_eq!(path.pipeline.shard().expected(), 0);
    assert_eq!(data(&mut path, 4000), NEW);
    assert_eq!(of(&path, "ftp").withdrawn.get(), 1);
    // And so does a flush.
    let mut control = Control::open(&mut path, 3001);
    control.say(&mut path, CLIENT, &port(4001));
    path.flush();
    assert_eq!(data(&mut path, 4001), NEW);
}

#[test]
fn a_damaged_packet_uses_nothing_up() {
    let mut path = Path::new(RULES);
    let mut control = Control::open(&mut path, 3000);
    control.say(&mut path, CLIENT, &port(4000));
    let syn = tcp(TALK.flip(), 20, 4000, SYN, 1, 0);
    let mut bent = syn.clone();
    bent[14 + 20 + 4] ^= 1;
    let short = &syn[..syn.len() - 1];
    for damaged in [&bent[..], short] {
        assert!(!path.passes(WAN, damaged));
    }
    // One that is only impossible does, as in Linux.
    assert_eq!(data(&mut path, 4000), RELATED);
    control.say(&mut path, CLIENT, &port(4001));
    let answer = tcp(TALK.flip(), 20, 4001, SYN | ACK, 1, 1);
    assert_eq!(
        path.send(WAN, &answer).tracked.unwrap().state,
        CtState::Invalid
    );
    assert_eq!(data(&mut path, 4001), NEW);
}

#[test]
fn an_expectation_ends_in_time() {
    let mut path = Path::new(RULES);
    let mut control = Control::open(&mut path, 3000);
    control.say(&mut path, CLIENT, &port(4000));
    path.wait(299);
    assert_eq!(path.pipeline.shard().expected(), 1);
    path.wait(1);
    assert_eq!(path.pipeline.shard().expected(), 0);
    assert_eq!(data(&mut path, 4000), NEW);
    assert_eq!(of(&path, "ftp").expired.get(), 1);
}

#[test]
fn a_clash_drops_the_packet_until_it_is_over() {
    let mut path = Path::new(RULES);
    let mut one = Control::open(&mut path, 3000);
    let mut other = Control::open(&mut path, 3001);
    assert!(one.say(&mut path, CLIENT, &port(4000)));
    let seq = other.next[CLIENT];
    assert!(!other.say(&mut path, CLIENT, &port(4000)));
    let drops = &path.pipeline.counters().drops[DropReason::Helper as usize];
    assert_eq!(drops.get(), 1);
    assert_eq!(refused(&path, "ftp", Refusal::Clash), 1);
    assert_eq!(data(&mut path, 4000), RELATED);
    // The same words again are heard again.
    assert!(other.segment(&mut path, CLIENT, ACK, seq, &port(4000)));
    let again = tcp(TALK.flip(), 21_000, 4000, SYN, 1, 0);
    let tracked = path.send(WAN, &again).tracked.unwrap();
    assert_eq!(tracked.state, CtState::Related);
    assert_eq!(
        path.flows().last().unwrap().master.unwrap().ends.detail,
        crate::conntrack::record::Detail::Ports {
            sport: 3001,
            dport: 21
        }
    );
}

#[test]
fn a_repetition_expects_nothing_twice_and_a_split_command_is_whole() {
    let mut path = Path::new(RULES);
    let mut control = Control::open(&mut path, 3000);
    let seq = control.next[CLIENT];
    let line = port(4000);
    for (at, byte) in line.char_indices() {
        assert_eq!(path.pipeline.shard().expected(), 0, "after {at} bytes");
        assert!(control.say(&mut path, CLIENT, &byte.to_string()));
    }
    assert_eq!(data(&mut path, 4000), RELATED);
    assert!(control.segment(&mut path, CLIENT, ACK, seq, &line));
    assert_eq!(path.pipeline.shard().expected(), 0);
}

#[test]
fn a_foreign_address_and_a_low_port_need_permission() {
    for (permission, wanted) in [("", NEW), (", loose: true, low-ports: true", RELATED)] {
        let line = "helper: ftp, proto: tcp, dport: [21, 2121]";
        let mut path = Path::new(&RULES.replace(line, &format!("{line}{permission}")));
        let mut control = Control::open(&mut path, 3000);
        assert!(control.say(&mut path, CLIENT, "PORT 10,0,0,9,16,0\r\n"));
        let elsewhere = Addrs::V4 {
            src: 0x0a00_0101,
            dst: 0x0a00_0009,
        };
        let syn = tcp(elsewhere, 20, 4096, SYN, 1, 0);
        let state = path.send(WAN, &syn).tracked.map(|tracked| tracked.state);
        assert_eq!(state, wanted);
        assert!(control.say(&mut path, CLIENT, &port(1023)));
        assert_eq!(data(&mut path, 1023), wanted);
        let refusals = u64::from(permission.is_empty());
        assert_eq!(refused(&path, "ftp", Refusal::ForeignAddress), refusals);
        assert_eq!(refused(&path, "ftp", Refusal::LowPort), refusals);
    }
}

#[test]
fn the_first_datagram_is_heard_if_it_passes() {
    let rrq = |sport| {
        let segment = Segment::Udp { sport, dport: 69 };
        frame(TALK, segment, b"\0\x01pxelinux.0\0octet\0")
    };
    let answer = udp(TALK.flip(), 50_000, 2070);
    let mut path = Path::new(RULES);
    assert!(!path.passes(WAN, &answer));
    assert!(path.passes(LAN, &rrq(2070)));
    assert!(path.passes(WAN, &answer));
    let flows = path.flows();
    assert_eq!((flows.len(), flows[1].expected), (2, true));
    // The master's table would hold a flow that nobody let in.
    let mut closed = Path::new(&RULES.replace("[21, 69, 2121]", "[21, 2121]"));
    assert!(!closed.passes(LAN, &rrq(2070)));
    assert!(!closed.passes(WAN, &answer));
    assert!(closed.flows().is_empty());
    // Whose request clashes leaves nothing behind.
    let text = RULES
        .replace("conntrack:", "")
        .replace("helpers:", "conntrack: { expect_max: 1 }\nhelpers:");
    let mut tight = Path::new(&text);
    assert!(tight.passes(LAN, &rrq(2070)));
    assert!(!tight.passes(LAN, &rrq(2071)));
    assert_eq!(refused(&tight, "tftp", Refusal::TableFull), 1);
    assert_eq!(tight.flows().len(), 1);
}

#[test]
fn rules_may_ask_for_helpers_and_what_they_expect() {
    let text = "version: 1
ports: { lan: { device: d0 }, wan: { device: d1 } }
bridge: [[lan, wan]]
helpers: [{ helper: ftp, proto: tcp, dport: 21 }]
chains:
  forward:
    rules:
      - { name: data, ct: related, ct-helper: ftp, ct-status: expected, ct-mark: 9, action: accept }
      - { name: later, ct-helper: [irc, ftp], action: accept }
      - { name: never, ct-helper: irc, action: accept }
      - { name: control, proto: tcp, dport: 21, mark: 9, action: accept }
      - { name: back, proto: tcp, sport: 21, action: accept }
";
    let mut path = Path::new(text);
    let syn = tcp(TALK, 3000, 21, SYN, 1000, 0);
    // As in nftables: of the flow that it expected, not of the one that it listens to.
    assert_eq!(path.rule(LAN, &syn), "forward/control");
    let mut path = Path::new(text);
    let mut control = Control::open(&mut path, 3000);
    assert!(control.say(&mut path, CLIENT, &port(4000)));
    let syn = tcp(TALK.flip(), 20, 4000, SYN, 1, 0);
    assert_eq!(path.rule(WAN, &syn), "forward/data");
    let back = tcp(TALK, 4000, 20, SYN | ACK, 1, 2);
    assert_eq!(path.rule(LAN, &back), "forward/later");
    let other = tcp(TALK.flip(), 20, 4001, SYN, 1, 0);
    assert_eq!(path.rule(WAN, &other), "forward/policy");
}

#[test]
fn a_new_mark_is_the_mark_of_what_is_expected() {
    let text = RULES.replace(
        "- { name: known,",
        "- { length: 46, proto: tcp, dport: 21, mark: 7, action: accept }\n      - { name: known,",
    );
    let mut path = Path::new(&text);
    let mut control = Control::open(&mut path, 3000);
    assert!(control.say(&mut path, CLIENT, &port(4000)));
    // 40 bytes of headers and "NOOP\r\n".
    assert!(control.say(&mut path, CLIENT, "NOOP\r\n"));
    assert_eq!(data(&mut path, 4000), RELATED);
    let marks: Vec<_> = path.flows().iter().map(|flow| flow.mark).collect();
    assert_eq!(marks, [7, 7]);
}

/// One worker has the control flow, another the data.
#[test]
fn the_data_may_arrive_on_another_worker() {
    let policy = policy(RULES);
    let budget = Arc::new(Budget::new(1000, 2));
    let now = Now::from_secs(1000);
    let mut paths: Vec<Path> = Pipeline::expecters(&budget, 2, 100)
        .into_iter()
        .enumerate()
        .map(|(worker, expecter)| {
            let (key, budget) = (HashKey::from_seed(1), budget.clone());
            let pipeline = Pipeline::sharing(worker, budget, expecter, key, now, Arc::default());
            let policy = super::policy(RULES);
            Path {
                pipeline,
                policy,
                now,
            }
        })
        .collect();
    drop(policy);
    let mut other = paths.remove(1);
    let mut own = paths.remove(0);
    let mut control = Control::open(&mut own, 3000);
    for round in 0..100 {
        own.pipeline.shard_mut().begin(now, 0);
        other.pipeline.shard_mut().begin(now, 0);
        let at = 4000 + round;
        assert!(control.say(&mut own, CLIENT, &port(at)));
        assert_eq!(data(&mut other, at + 1), NEW);
        assert_eq!(data(&mut other, at), RELATED);
        assert_eq!(data(&mut own, at), NEW, "it was used up");
        own.pipeline.shard_mut().expire(now.ticks(), 64);
    }
    assert_eq!(own.pipeline.shard().expected(), 0);
    assert_eq!(
        (of(&own, "ftp").used.get(), of(&other, "ftp").used.get()),
        (0, 100)
    );
    assert_eq!(
        other.flows()[0].master.unwrap().ends,
        own.flows()[0].original
    );
    control.say(&mut own, CLIENT, &port(9000));
    control.reset(&mut own);
    assert_eq!(data(&mut other, 9000), NEW, "its master is gone");
}

#[test]
fn who_watches_is_told_of_expectations() {
    let mut path = Path::new(RULES);
    let queue = Arc::<Queue>::default();
    let shard = path.pipeline.shard_mut();
    shard.report_to(queue.clone());
    shard.begin(path.now, Kind::EXPECTATIONS);
    let mut control = Control::open(&mut path, 3000);
    control.say(&mut path, CLIENT, &port(4000));
    control.say(&mut path, CLIENT, &port(4001));
    assert_eq!(data(&mut path, 4001), RELATED);
    let told: Vec<_> = std::iter::from_fn(|| queue.pop())
        .map(|event| match event.subject {
            crate::conntrack::event::Subject::Expectation(it) => (event.kind, it.dport),
            other => panic!("{other:?}"),
        })
        .collect();
    let all = [
        (Kind::Expected, 4000),
        (Kind::Unexpected, 4000),
        (Kind::Expected, 4001),
        (Kind::Unexpected, 4001),
    ];
    assert_eq!(told, all);
}

/// A segment between `client` at 10.0.0.1 and port 21 of the server, as it is; whether it passes.
fn raw(
    path: &mut Path,
    who: usize,
    client: u16,
    flags: u8,
    seq: u32,
    ack: u32,
    what: &str,
) -> bool {
    let (addrs, sport, dport, iif) = match who {
        CLIENT => (TALK, client, 21, LAN),
        _ => (TALK.flip(), 21, client, WAN),
    };
    let segment = Segment::Tcp {
        sport,
        dport,
        seq,
        ack,
        flags,
        window: 60_000,
        options: &[],
    };
    path.passes(iif, &frame(addrs, segment, what.as_bytes()))
}

#[test]
fn half_a_line_of_one_flow_is_not_completed_by_the_next() {
    let mut path = Path::new(RULES);
    assert!(raw(&mut path, CLIENT, 3000, SYN, 1000, 0, ""));
    assert!(raw(&mut path, SERVER, 3000, SYN | ACK, 5000, 1001, ""));
    let half = "USER x\r\nPORT 10,0,0,1,16,";
    assert!(raw(&mut path, CLIENT, 3000, ACK, 1001, 5001, half));
    let next = 1001 + half.len() as u32;
    assert!(raw(&mut path, CLIENT, 3000, RST, next, 0, ""));
    path.wait(11);
    assert!(path.flows().is_empty());
    // The next flow's client says something before the server does, and goes on at the same place.
    assert!(raw(&mut path, CLIENT, 3001, SYN, next - 2, 0, "x"));
    assert!(raw(&mut path, SERVER, 3001, SYN | ACK, 5000, next, ""));
    assert!(raw(&mut path, CLIENT, 3001, ACK, next, 5001, "1\r\n"));
    assert_eq!(path.pipeline.shard().expected(), 0);
    assert_eq!(data(&mut path, 4097), NEW);
}

#[test]
fn what_is_said_before_the_reply_begins_the_stream() {
    // A request of another protocol, cut so that an offer begins behind what the SYN carries.
    let mut path = Path::new(&RULES.replace("helper: ftp", "helper: irc"));
    let offer = "PRIVMSG bob :\x01DCC CHAT chat 167772161 4000\x01\r\n";
    let begin = "POST /x HTTP/1.1 ";
    let next = 1001 + begin.len() as u32;
    assert!(raw(&mut path, CLIENT, 3000, SYN, 1000, 0, begin));
    assert!(raw(&mut path, SERVER, 3000, SYN | ACK, 5000, next, ""));
    assert!(raw(&mut path, CLIENT, 3000, ACK, next, 5001, offer));
    assert_eq!(path.pipeline.shard().expected(), 0);
    // A line of its own is one.
    let next = next + offer.len() as u32;
    assert!(raw(&mut path, CLIENT, 3000, ACK, next, 5001, offer));
    assert_eq!(path.pipeline.shard().expected(), 1);
}

#[test]
fn a_call_that_was_expected_has_the_permissions_of_its_line() {
    let text = RULES
        .replace(
            "helper: tftp, proto: udp, dport: 69",
            "helper: sip, proto: udp, dport: 5060, loose: true",
        )
        .replace("[21, 69, 2121]", "5060");
    let mut path = Path::new(&text);
    let say = |path: &mut Path, addrs, sport, dport, lines: &[&str]| {
        let iif = if addrs == TALK { LAN } else { WAN };
        let text = lines.join("\r\n") + "\r\n";
        path.passes(
            iif,
            &frame(addrs, Segment::Udp { sport, dport }, text.as_bytes()),
        )
    };
    let register = [
        "REGISTER sip:x SIP/2.0",
        "CSeq: 1 REGISTER",
        "Contact: <sip:me@10.0.0.1:5062>",
        "Expires: 60",
        "",
    ];
    assert!(say(&mut path, TALK, 5061, 5060, &register));
    let ok = [
        "SIP/2.0 200 OK",
        "CSeq: 1 REGISTER",
        "Contact: <sip:me@10.0.0.1:5062>;expires=60",
        "",
    ];
    assert!(say(&mut path, TALK.flip(), 5060, 5061, &ok));
    // The media come from, and go to, another host than the registrar.
    let invite = [
        "INVITE sip:me@10.0.0.1:5062 SIP/2.0",
        "CSeq: 1 INVITE",
        "",
        "v=0",
        "c=IN IP4 10.0.1.9",
        "m=audio 8000 RTP/AVP 0",
    ];
    assert!(say(&mut path, TALK.flip(), 7000, 5062, &invite));
    assert_eq!(refused(&path, "sip", Refusal::ForeignAddress), 0);
    let media = Addrs::V4 {
        src: 0x0a00_0001,
        dst: 0x0a00_0109,
    };
    assert!(path.passes(LAN, &udp(media, 9000, 8000)));
}

#[test]
fn a_segment_that_the_tracker_ignores_is_not_heard() {
    let mut path = Path::new(RULES);
    let mut control = Control::open(&mut path, 3000);
    let next = control.next[CLIENT];
    // Anybody can send such a SYN: it passes, to be answered or not, wherever its number is.
    for seq in [next + 100_000, next, next - 20] {
        let lines = format!("NOOP\r\n{}", port(4000));
        assert!(control.segment(&mut path, CLIENT, SYN, seq, &lines));
        assert_eq!(path.pipeline.shard().expected(), 0);
    }
    assert_eq!(refused(&path, "ftp", Refusal::Gap), 0);
    assert!(control.say(&mut path, CLIENT, &port(4001)));
    assert_eq!(data(&mut path, 4001), RELATED);
    // What a RST says is for people.
    assert!(control.segment(
        &mut path,
        CLIENT,
        RST | ACK,
        control.next[CLIENT],
        &port(4002)
    ));
    assert_eq!(path.pipeline.shard().expected(), 0);
}

#[test]
fn hosts_that_both_begin_anew_are_heard_anew() {
    for isn in [1_000_000_u32.wrapping_neg(), 1_000_000, 1 << 31] {
        let mut path = Path::new(RULES);
        Control::open(&mut path, 3000);
        // The tracker ignores the SYN until it is answered: then it is a new connection.
        let next = isn.wrapping_add(1);
        assert!(raw(&mut path, CLIENT, 3000, SYN, isn, 0, ""));
        assert!(raw(&mut path, SERVER, 3000, SYN | ACK, 77, next, ""));
        assert!(raw(&mut path, CLIENT, 3000, ACK, next, 78, "NOOP\r\n"));
        let line = port(4000);
        assert!(raw(
            &mut path,
            CLIENT,
            3000,
            ACK,
            next.wrapping_add(6),
            78,
            &line
        ));
        assert_eq!(path.flows().len(), 1);
        assert_eq!(data(&mut path, 4000), RELATED, "from {isn} on");
    }
}

#[test]
fn a_flow_keeps_its_helper_and_gives_back_what_counts_it() {
    // The line is taken away: the flow keeps what it has, and others get none.
    let mut path = Path::new(RULES);
    let mut control = Control::open(&mut path, 3000);
    path.reload(&RULES.replace(
        "helpers:\n  - { helper: ftp, proto: tcp, dport: [21, 2121] }\n  - { helper: tftp, proto: udp, dport: 69 }\n",
        "",
    ));
    assert!(!path.policy.has_helpers());
    assert!(control.say(&mut path, CLIENT, &port(4000)));
    assert_eq!(data(&mut path, 4000), RELATED);
    let mut other = Control::open(&mut path, 3001);
    assert!(other.say(&mut path, CLIENT, &port(4001)));
    assert_eq!(data(&mut path, 4001), NEW);
    // A first packet that must not pass counts for no limit.
    let text = RULES
        .replace("helpers:", "conntrack: { expect_max: 1 }\nhelpers:")
        .replace("ct: new, action", "ct: new, connlimit: 1000, action");
    let mut tight = Path::new(&text);
    let events = tight.watch();
    let rrq = |sport| frame(TALK, Segment::Udp { sport, dport: 69 }, b"\0\x01a\0octet\0");
    assert!(tight.passes(LAN, &rrq(2070)));
    assert_eq!(tight.counted(), 1);
    assert!(!tight.passes(LAN, &rrq(2071)));
    assert_eq!((tight.counted(), tight.flows().len()), (1, 1));
    let kinds: Vec<_> = std::iter::from_fn(|| events.pop())
        .map(|event| event.kind)
        .collect();
    assert_eq!(kinds, [Kind::New, Kind::New, Kind::Destroy]);
    // Every expectation that was made is there still, or was ended, once.
    path.flush();
    let counters = of(&path, "ftp");
    assert_eq!(counters.expected.get(), counters.ended());
}

/// Resident memory of this process, in KiB.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4
}

/// Runs a test again in a process of its own, where no other takes memory; `true` there.
fn alone(test: &str) -> bool {
    const ALONE: &str = "SHARDWALL_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let this = std::env::current_exe().unwrap();
    let mut again = std::process::Command::new(this);
    let name = format!("pipeline::tests::helpers::{test}");
    again.args([&name, "--exact"]).env(ALONE, "1");
    let out = again.output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.contains("1 passed"), "{text}");
    false
}

/// A million commands that mean nothing, or ask for ever other ports.
#[test]
fn a_flood_of_commands_takes_nothing_from_anybody() {
    if !alone("a_flood_of_commands_takes_nothing_from_anybody") {
        return;
    }
    let mut path = Path::new(RULES);
    let mut quiet = Control::open(&mut path, 2999);
    assert!(quiet.say(&mut path, CLIENT, &port(3999)));
    let mut control = Control::open(&mut path, 3000);
    let mut flood = |path: &mut Path, count: u32| {
        for round in 0..count {
            let line = match round % 4 {
                0 => port(1024 + (round % 60_000) as u16),
                1 => "PORT 10,0,0,9,16,0\r\n".to_owned(),
                2 => format!("PORT {round},,,,\r\n"),
                _ => format!("PORT 10,0,0,1,{round}"),
            };
            // Another flow may expect the port; that is dropped and the next one goes on there.
            let seq = control.next[CLIENT];
            if !control.say(path, CLIENT, &line) {
                control.next[CLIENT] = seq;
            }
            if round % 256 == 0 {
                path.pipeline.shard_mut().begin(path.now, 0);
                path.pipeline.shard_mut().expire(path.now.ticks(), 64);
                // The server acknowledges, so that the window moves on.
                assert!(control.say(path, SERVER, ""));
            }
        }
    };
    flood(&mut path, 10_000);
    let before = resident();
    flood(&mut path, 1_000_000);
    let grown = resident().saturating_sub(before);
    assert!(grown < 4096, "{grown} KiB more");
    assert_eq!(path.pipeline.shard().expected(), 2);
    assert_eq!(path.flows().len(), 2);
    let malformed = refused(&path, "ftp", Refusal::Malformed);
    assert!(malformed > 250_000, "{malformed}");
    assert_eq!(data(&mut path, 3999), RELATED, "the other's is there still");
}
