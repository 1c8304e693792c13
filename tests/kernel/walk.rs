//! Random conversations: a protocol each, with errors, mistakes, options and fragments thrown in.

use crate::dialogue::Dialogue;
use crate::frame::Place;
use crate::group::Group;
use crate::random::Random;
use crate::scenario::{Body, Scenario, Step};
use crate::sctp::Association;
use crate::speech::{SPEECHES, Speech};
use crate::tcp::Talk;
use std::time::Duration;

/// What is played: name, how often a conversation is of this kind (or a packet of one, in percent),
/// and whether this tracker is there to be compared. `KERNEL_KINDS` (names, with commas between, or
/// `all`) switches more of them on; with `only` among the names nothing else is played.
const KINDS: [(&str, usize, bool); 16] = [
    ("tcp", 62, true),
    ("udp", 7, true),
    ("icmp", 7, true),
    ("generic", 5, true),
    ("sctp", 12, true),
    ("gre", 5, true),
    ("udplite", 4, true),
    ("ftp", 8, true),
    ("irc", 4, true),
    ("tftp", 4, true),
    ("amanda", 4, true),
    ("sip", 8, true),
    ("redirect", 0, true),
    ("fragments", 0, true),
    ("checksums", 0, true),
    // Without a tracker since Linux 6.17, and then quoted by errors without ports.
    ("dccp", 0, true),
];

/// Whether `kind` is played.
pub(crate) fn plays(kind: &str) -> bool {
    let wanted = std::env::var("KERNEL_KINDS").unwrap_or_default();
    let says = |kind: &str| wanted.split(',').any(|name| name == kind);
    if says("only") {
        return says(kind);
    }
    let wanted = says("all") || says(kind);
    let mut kinds = KINDS.iter();
    let (_, _, on) = kinds.find(|(name, ..)| *name == kind).expect("a kind");
    *on || wanted
}

/// Who is talking.
#[derive(Debug)]
enum Talker {
    Tcp(Talk),
    Udp,
    Icmp,
    Generic(u8),
    Sctp(Association),
    Gre(u8),
    UdpLite,
    Helped(Dialogue),
}

/// A random conversation of about `len` packets for `group`.
pub(crate) fn walk(random: &mut Random, group: &Group, number: usize, len: usize) -> Scenario {
    // Linux sums a wrong protocol number into UDP-Lite's checksum, and calls what is right INVALID.
    let fits = |name: &str| match name {
        "udplite" => plays(name) && !group.checksums,
        // Until the kernel collects a flow that expired, what that announced counts.
        // Errors are messages to the kernel's SIP helper, also those that a rule sends.
        "sip" if group.rejects() => false,
        _ if SPEECHES.iter().any(|(speech, _)| *speech == name) => plays(name) && !group.hasty,
        _ => plays(name),
    };
    let kinds: Vec<_> = KINDS.iter().filter(|(name, ..)| fits(name)).collect();
    let total = kinds.iter().map(|(_, weight, _)| weight).sum();
    let mut at = random.below(usize::max(total, 1));
    let kind = kinds.into_iter().find_map(|(name, weight, _)| {
        let found = at < *weight;
        at = at.saturating_sub(*weight);
        found.then_some(*name)
    });
    let kind = kind.unwrap_or("tcp"); // where nothing that is played fits
    // The kernel's helper for IRC knows IPv4 only.
    let v6 = random.chance(if kind == "irc" { 5 } else { 40 });
    let helped = Speech::new(random, kind);
    let speech = SPEECHES.iter().find(|(name, _)| *name == kind);
    let ports = speech.map_or(group.ports, |(_, ports)| ports);
    let mut talker = match kind {
        _ if let Some(speech) = helped => Talker::Helped(Dialogue::new(random, speech, v6)),
        "udp" => Talker::Udp,
        "icmp" => Talker::Icmp,
        "generic" => match random.pick(&[33, 50, 89, 103, 253]) {
            33 if !plays("dccp") => Talker::Generic(254),
            proto => Talker::Generic(proto),
        },
        "sctp" => Talker::Sctp(Association::new(random)),
        "gre" => Talker::Gre(random.pick(&[0, 0, 1, 1, 1, 3])),
        "udplite" => Talker::UdpLite,
        _ => Talker::Tcp(Talk::new(random)),
    };
    let mut scenario = Scenario {
        name: format!("walk {number}: {kind}"),
        group: group.name.into(),
        v6,
        port: random.pick(ports),
        steps: Vec::new(),
    };
    let len = len / 2 + random.below(len);
    let mut patience = Duration::from_secs(6);
    // The packets that were whole: fragments of them quote nothing.
    let mut whole: Vec<(usize, Body)> = Vec::new();
    while scenario.steps.len() < len {
        let (side, body) = talker.packet(random, v6);
        let vital = matches!(&talker, Talker::Helped(dialogue) if dialogue.is_vital(&body));
        let helped = matches!(talker, Talker::Helped(_));
        let bends = !group.has_rules() && !helped && !matches!(talker, Talker::Generic(_));
        // It is one if it goes the way of the first packet; so does what a redirect is answered with.
        let fits = |(side, error): &(usize, Body)| {
            kind != "sip" || *side != 0 && !matches!(error, Body::Redirect { .. })
        };
        let (side, body) = match random.below(100) {
            0..8 if vital => {
                // Beside it, not in its place.
                let error = error(random, &scenario, &whole, side).filter(fits);
                let wait = Duration::ZERO;
                let step = |(side, body)| Step { wait, side, body };
                scenario.steps.extend(error.map(step));
                (side, body)
            }
            0..2 if bends => (side, random_bend(random, &scenario, body)),
            2..8 => {
                let error = error(random, &scenario, &whole, side).filter(fits);
                error.unwrap_or((side, body))
            }
            8..10 if plays("checksums") && !helped => (side, spoilt(random, body)),
            _ => (side, body),
        };
        let body = if random.chance(5) {
            via(random, group.has_rules() || helped, body)
        } else {
            body
        };
        whole.push((side, body.clone()));
        let wait = wait(random, group.hasty, &talker).min(patience);
        patience -= wait;
        let bodies = if plays("fragments") && !vital && random.chance(4) {
            pieces(random, &scenario, body)
        } else {
            vec![body]
        };
        for (at, body) in bodies.into_iter().enumerate() {
            let wait = if at == 0 { wait } else { Duration::ZERO };
            scenario.steps.push(Step { wait, side, body });
        }
    }
    scenario
}

impl Talker {
    fn packet(&mut self, random: &mut Random, v6: bool) -> (usize, Body) {
        let side = random.below(2);
        let len = random.below(40) as u16;
        let mostly_client = if random.chance(60) { 0 } else { side };
        match self {
            Talker::Tcp(talk) => talk.segment(random),
            Talker::Sctp(association) => association.packet(random),
            Talker::Helped(dialogue) => dialogue.packet(random),
            Talker::Udp => (mostly_client, Body::Udp { len }),
            Talker::UdpLite => {
                let coverage = random.pick(&[0, 0, 8, 9, 20, 48, 7, 1_000]);
                (mostly_client, Body::UdpLite { coverage, len })
            }
            Talker::Icmp => (side, query(random, v6)),
            Talker::Generic(proto) => {
                let proto = *proto;
                (side, Body::Raw { proto, len: 8 })
            }
            Talker::Gre(version) => {
                let version = if random.chance(95) {
                    *version
                } else {
                    random.below(8) as u8
                };
                let key = random.pick(&[7, 7, 9]);
                (side, Body::Gre { version, key, len })
            }
        }
    }
}

/// How long it takes to the next packet. Where flows live for 1 to 3 seconds, about as long.
fn wait(random: &mut Random, hasty: bool, talker: &Talker) -> Duration {
    let percent = match talker {
        Talker::Udp | Talker::UdpLite | Talker::Icmp | Talker::Sctp(_) => 30,
        _ if hasty => 25,
        _ => 9,
    };
    if !random.chance(percent) {
        return Duration::ZERO;
    }
    Duration::from_millis(match hasty {
        true => random.pick(&[450, 900, 1_100, 1_900, 2_100, 2_900, 3_100]),
        false => random.pick(&[450, 1_200, 1_200, 2_600]),
    })
}

fn query(random: &mut Random, v6: bool) -> Body {
    let ty = match (v6, random.chance(85)) {
        (false, true) => random.pick(&[8, 8, 8, 0, 0, 0, 13, 14, 15, 16, 17, 18]),
        (true, true) => random.pick(&[128, 128, 129, 129, 139, 140]),
        // Not errors, which have something to say (`error`).
        (false, false) => random.pick(&[1, 2, 6, 7, 9, 10, 19, 40, 255]),
        (true, false) => random.pick(&[
            0, 5, 100, 127, 130, 131, 132, 133, 134, 135, 136, 138, 141, 143, 144, 151, 152, 153,
            200, 255,
        ]),
    };
    let code = if random.chance(90) { 0 } else { 1 };
    Body::Icmp { ty, code }
}

/// An ICMP error about one of the packets.
fn error(
    random: &mut Random,
    scenario: &Scenario,
    whole: &[(usize, Body)],
    side: usize,
) -> Option<(usize, Body)> {
    if whole.is_empty() {
        return None;
    }
    let v6 = scenario.v6;
    let (sent_by, about) = &whole[random.below(whole.len())];
    if matches!(about.core(), Body::Error { .. } | Body::Redirect { .. }) {
        return None;
    }
    let ty = match v6 {
        false => random.pick(&[3, 3, 4, 5, 11, 12]),
        true => random.pick(&[1, 1, 2, 3, 4]),
    };
    let side = if random.chance(80) { 1 - sent_by } else { side };
    let of = if random.chance(85) {
        *sent_by
    } else {
        1 - sent_by
    };
    let about = Box::new(match random.below(20) {
        0..2 => random_bend(random, scenario, about.clone()),
        2 => Body::Udp { len: 9 },
        3 => random.pick(&OTHERS),
        _ => about.clone(),
    });
    if v6 && plays("redirect") && random.chance(15) {
        return Some((side, Body::Redirect { of, about }));
    }
    let body = Body::Error {
        ty,
        code: random.below(4) as u8,
        rest: 0,
        astray: random.chance(15),
        of,
        about,
    };
    Some((side, body))
}

/// What errors may quote although nobody sent it.
const OTHERS: [Body; 7] = [
    Body::Icmp { ty: 8, code: 0 },
    Body::Icmp { ty: 128, code: 0 },
    Body::Raw { proto: 89, len: 9 },
    Body::Raw {
        proto: 132,
        len: 12,
    },
    Body::Raw { proto: 136, len: 8 },
    Body::Gre {
        version: 0,
        key: 0,
        len: 9,
    },
    Body::Gre {
        version: 1,
        key: 7,
        len: 9,
    },
];

/// A packet behind extension headers. Rules of nftables do not look behind an authentication
/// header, ours do.
fn via(random: &mut Random, rules: bool, body: Body) -> Body {
    let mut headers = Vec::new();
    if random.chance(30) {
        headers.push(0); // only ever the first
    }
    for _ in 0..random.below(3) {
        let known: &[u8] = if rules { &[43, 60] } else { &[43, 51, 60] };
        headers.push(random.pick(known));
    }
    let body = Box::new(body);
    Body::Via { headers, body }
}

/// How many bytes `body` has behind its IP header.
fn len(scenario: &Scenario, body: &Body) -> usize {
    let behind = if scenario.v6 { 54 } else { 34 };
    Place::new(0, scenario).frame(0, body).len() - behind
}

/// A packet cut short somewhere in its transport header.
fn random_bend(random: &mut Random, scenario: &Scenario, body: Body) -> Body {
    let len = len(scenario, &body);
    let left = random.below(20).min(len);
    if left == len {
        return body;
    }
    Body::Bent {
        cut: (len - left) as u16,
        poke: None,
        body: Box::new(body),
    }
}

/// A packet with a wrong checksum, or, of UDP, sometimes without one.
fn spoilt(random: &mut Random, body: Body) -> Body {
    if matches!(body, Body::Udp { .. }) && random.chance(50) {
        let without = |at: u16, body: Body| Body::Bent {
            cut: 0,
            poke: Some((at, 0)),
            body: Box::new(body),
        };
        return without(6, without(7, body));
    }
    Body::BadSum(Box::new(body))
}

/// How many bytes the headers of `body` have behind the IPv6 header: the first fragment must have them
/// all (RFC 8200 4.5), and what becomes of one that has not is no matter of agreement.
fn headers(body: &Body) -> u16 {
    match body {
        Body::Via {
            headers,
            body: inner,
        } => {
            let len = |kind: &u8| if *kind == 51 { 12 } else { 8 };
            headers.iter().map(len).sum::<u16>() + self::headers(inner)
        }
        Body::Bent { body, .. }
        | Body::On { body, .. }
        | Body::Says { body, .. }
        | Body::BadSum(body) => headers(body),
        Body::Tcp { options, .. } => 20 + options.len().next_multiple_of(4) as u16,
        Body::Sctp { .. } => 12,
        _ => 8,
    }
}

/// A packet in fragments, that may come in any order, twice, or overlapping.
fn pieces(random: &mut Random, scenario: &Scenario, body: Body) -> Vec<Body> {
    let len = len(scenario, &body) as u16;
    // Behind the headers that every fragment has.
    let len = match (&body, scenario.v6) {
        (Body::Via { headers, .. }, false) => len - 4 * headers.len() as u16,
        _ => len,
    };
    let eighths = len.div_ceil(8);
    let first = if scenario.v6 {
        headers(&body).div_ceil(8)
    } else {
        1
    };
    if eighths <= first {
        return vec![body];
    }
    let mut cuts: Vec<u16> = (0..1 + random.below(3))
        .map(|_| 8 * (first + random.below(usize::from(eighths - first)) as u16))
        .collect();
    cuts.sort_unstable();
    cuts.dedup();
    let id = 1 + random.below(60_000) as u16;
    let starts = [&[0], &cuts[..]].concat();
    let ends = cuts.iter().map(|cut| Some(*cut)).chain([None]);
    let piece = |from: u16, to: Option<u16>| Body::Fragment {
        id,
        from,
        to,
        body: Box::new(body.clone()),
    };
    let spans: Vec<_> = starts.into_iter().zip(ends).collect();
    let mut pieces: Vec<Body> = spans.iter().map(|(from, to)| piece(*from, *to)).collect();
    if random.chance(15) {
        pieces.push(random.pick(&pieces));
    }
    if random.chance(10) {
        let (from, to) = random.pick(&spans);
        let from = from.saturating_sub(8);
        // One that is all of the datagram is none to us (RFC 6946), and an overlap to Linux.
        if from > 0 || to.is_some() {
            pieces.push(piece(from, to));
        }
    }
    if random.chance(5) {
        pieces.remove(random.below(pieces.len()));
    }
    if random.chance(50) {
        for at in 0..pieces.len() {
            let other = random.below(pieces.len());
            pieces.swap(at, other);
        }
    }
    pieces
}
