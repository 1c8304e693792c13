//! Against nftables: the same rules, datagrams that each start a flow, and what the rules cost each
//! of the two beyond what a flow costs without rules.
//!
//! The kernel forwards between two links of a router, which is a namespace of its own; a raw socket
//! behind one link sends, and what leaves by the other is counted there. On one core the sender's
//! system call runs the whole way, so its processor time is that of sending, forwarding, tracking and
//! classifying; the difference to the run without rules is the classifier's. Ours is the pure packet
//! path, in this process, by processor time, too. All rules accept, so that every datagram arrives;
//! between two runs the flow tables are emptied.

use crate::classify::{HEAD, busy, first};
use crate::report::{Sorted, Table};
use crate::rules::{NAMES, NFT_FORWARD, RuleSet, Style};
use crate::{Args, Outcome};
use rustix::net::{
    AddressFamily, MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, SocketFlags, SocketType,
    ipproto, sendmmsg, socket_with,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use shardwall::base::hash::HashKey;
use shardwall::base::time::Now;
use shardwall::cli::lab::{Namespace, is_root, remove_leftovers, run as call};
use shardwall::conntrack::types::proto;
use shardwall::dataplane::clock::Clock;
use shardwall::dataplane::io::BURST;
use shardwall::pipeline::{Counters, Disposition, Pipeline, Slot};
use shardwall::policy::{self, Compiled, PortId};
use std::fs::{self, File};
use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

/// How the names of the namespaces begin.
const KIND: &str = "pb";
/// Who is behind the router: nobody listens to this address, so what arrives is only counted.
const NOBODY: &str = "02:00:00:00:00:99";
/// Datagrams of a run without rules; each is the first of its flow.
const DATAGRAMS: usize = 100_000;

/// The kernel reads rule after rule, so where there are many, fewer datagrams are sent.
fn datagrams(rules: usize) -> usize {
    match rules {
        0..=100 => DATAGRAMS,
        101..=1_000 => DATAGRAMS / 2,
        _ => DATAGRAMS / 10,
    }
}

/// Datagrams as frames; those without a frame's address, or that nobody may send, are left out.
fn frames(set: &RuleSet, count: usize) -> Vec<Vec<u8>> {
    let good = |addr: u32| {
        let first = addr >> 24;
        (1..224).contains(&first) && first != 127 && addr >> 16 != 0xc612 && addr & 0xff != 0xff
    };
    (0..)
        .map(|n| (n, set.call(n, Some(proto::UDP))))
        .filter(|(_, call)| good(call.src) && good(call.dst) && call.dport != 0)
        .map(|(n, call)| first(&call, 1024 + (n % 64_000) as u16))
        .take(count)
        .collect()
}

/// The router and its two links.
struct Router {
    router: Namespace,
    ends: Namespace,
    rules: PathBuf,
}

impl Router {
    fn new() -> Outcome<Self> {
        remove_leftovers(KIND);
        let tag = format!("{KIND}{}", std::process::id());
        let router = Namespace::new(format!("{tag}-router"))?;
        let ends = Namespace::new(format!("{tag}-ends"))?;
        let (inner, outer) = (router.name(), ends.name());
        for (at, name) in NAMES.into_iter().enumerate() {
            let far = format!("{name}-far");
            call(&[
                "ip", "link", "add", &far, "netns", outer, "type", "veth", "peer", "name", name,
                "netns", inner,
            ])?;
            let leg = format!("198.18.{at}.1");
            let net = |host: u8| format!("198.18.{at}.{host}/24");
            call(&["ip", "-n", inner, "addr", "add", &net(1), "dev", name])?;
            call(&["ip", "-n", outer, "addr", "add", &net(2), "dev", &far])?;
            call(&["ip", "-n", inner, "link", "set", name, "up"])?;
            call(&["ip", "-n", outer, "link", "set", &far, "up"])?;
            if at == 0 {
                call(&["ip", "-n", outer, "route", "add", "default", "via", &leg])?;
            } else {
                let gate = format!("198.18.{at}.2");
                let words = [
                    "neigh",
                    "add",
                    &gate,
                    "lladdr",
                    NOBODY,
                    "dev",
                    name,
                    "nud",
                    "permanent",
                ];
                call(&[&["ip", "-n", inner], &words[..]].concat())?;
                call(&["ip", "-n", inner, "route", "add", "default", "via", &gate])?;
            }
        }
        let inside = ["ip", "netns", "exec", inner, "sysctl", "-qw"];
        let all = [
            "net.ipv4.ip_forward=1",
            "net.ipv4.conf.all.rp_filter=0",
            "net.ipv4.conf.lan.rp_filter=0",
            "net.ipv4.conf.wan.rp_filter=0",
        ];
        call(&[&inside[..], &all].concat())?;
        let rules = std::env::temp_dir().join(format!("{tag}.nft"));
        Ok(Self {
            router,
            ends,
            rules,
        })
    }

    /// Puts `rules` in force, with an empty flow table.
    fn load(&self, rules: &str) -> Outcome<()> {
        fs::write(&self.rules, format!("flush ruleset\n{rules}"))?;
        let path = self.rules.display().to_string();
        let inside = ["ip", "netns", "exec", self.router.name()];
        call(&[&inside[..], &["nft", "-f", &path]].concat())?;
        call(&[&inside[..], &["conntrack", "-F"]].concat())?;
        Ok(())
    }

    /// Nanoseconds of the sender's processor time a datagram; an error if one did not arrive.
    fn send(&self, frames: &[Vec<u8>]) -> Outcome<f64> {
        let place = File::open(format!("/run/netns/{}", self.ends.name()))?;
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| -> Result<f64, String> {
                let text = |error: &dyn std::fmt::Display| error.to_string();
                move_into_link_name_space(place.as_fd(), Some(LinkNameSpaceType::Network))
                    .map_err(|error| text(&error))?;
                let socket = socket_with(
                    AddressFamily::INET,
                    SocketType::RAW,
                    SocketFlags::empty(),
                    Some(ipproto::RAW),
                )
                .map_err(|error| text(&error))?;
                let to = |frame: &[u8]| {
                    let addr: [u8; 4] = frame[30..34].try_into().unwrap_or_default();
                    SocketAddrAny::from(SocketAddrV4::new(Ipv4Addr::from(addr), 0))
                };
                let targets: Vec<SocketAddrAny> = frames.iter().map(|frame| to(frame)).collect();
                let slices: Vec<[IoSlice<'_>; 1]> = frames
                    .iter()
                    .map(|frame| [IoSlice::new(&frame[14..])])
                    .collect();
                let clock = Clock::start();
                let before = arrived()?;
                let start = busy();
                for (targets, slices) in targets.chunks(BURST).zip(slices.chunks(BURST)) {
                    let mut controls: [SendAncillaryBuffer<'_, '_, '_>; BURST] =
                        std::array::from_fn(|_| SendAncillaryBuffer::default());
                    let mut messages: Vec<MMsgHdr<'_>> = targets
                        .iter()
                        .zip(slices)
                        .zip(&mut controls)
                        .map(|((to, slice), control)| MMsgHdr::new_with_addr(to, slice, control))
                        .collect();
                    let sent = sendmmsg(&socket, &mut messages, SendFlags::empty());
                    if sent.map_err(|error| text(&error))? != messages.len() {
                        return Err("the link did not take all datagrams".to_owned());
                    }
                }
                let nanos = busy() - start;
                let wanted = before + frames.len() as u64;
                let late = clock.now().nanos() + 2_000_000_000;
                while arrived()? < wanted {
                    if clock.now().nanos() > late {
                        let lost = wanted - arrived()?;
                        return Err(format!("{lost} of {} datagrams were lost", frames.len()));
                    }
                }
                Ok(nanos / frames.len() as f64)
            });
            let nanos = sender.join().map_err(|_| "the sender failed")?;
            Ok(nanos?)
        })
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.rules);
    }
}

/// Datagrams that left the router by its second link, as the calling thread's namespace counts them.
fn arrived() -> Result<u64, String> {
    let path = "/proc/thread-self/net/dev";
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let name = format!("{}-far:", NAMES[1]);
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(&name));
    let packets = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    packets.ok_or_else(|| "a link is not there".to_owned())
}

/// Nanoseconds a datagram on our packet path, with a table that is empty at first.
fn ours(policy: &Compiled, frames: &[Vec<u8>]) -> Outcome<f64> {
    let counters = Arc::new(Counters::default());
    let (limit, secret) = (2 * DATAGRAMS as u32, HashKey::from_seed(7));
    let mut pipeline = Pipeline::new(0, limit, secret, Now::from_secs(1), counters);
    pipeline.shard_mut().populate();
    let mut slots = [Slot::default(); BURST];
    let mut passed = 0;
    let (iif, mut now) = (PortId(0), Now::from_secs(1).nanos());
    let start = busy();
    for burst in frames.chunks(BURST) {
        now += 3_200;
        for (slot, frame) in slots.iter_mut().zip(burst) {
            pipeline.prepare(slot, policy, iif, frame, frame.len());
        }
        for slot in &mut slots[..burst.len()] {
            pipeline.prefetch(slot);
        }
        for (slot, frame) in slots.iter().zip(burst) {
            let outcome = pipeline.decide(policy, Now::from_nanos(now), iif, frame, slot);
            passed += usize::from(outcome.disposition == Disposition::Forward(PortId(1)));
        }
        pipeline
            .shard_mut()
            .expire(Now::from_nanos(now).ticks(), 64);
    }
    let nanos = busy() - start;
    if passed != frames.len() {
        return Err(format!("{passed} of {} datagrams passed", frames.len()).into());
    }
    Ok(nanos / frames.len() as f64)
}

/// One number of rules.
struct Contest {
    rules: usize,
    nft: String,
    policy: Compiled,
    frames: Vec<Vec<u8>>,
    /// The same datagrams without rules, and with them: the kernel's, and ours.
    nanos: [Vec<f64>; 4],
}

const PLAIN: &str = "chains:\n  forward:\n    policy: accept\n    rules:\n      \
    - { name: known, ct: [established, related], action: accept }\n      \
    - { name: broken, ct: invalid, action: drop }\n";

pub(crate) fn run(args: &Args) -> Outcome<Table> {
    if !is_root() {
        return Err("namespaces need root".into());
    }
    let parse =
        |text: &str| policy::parse("bench", text).map(|it| policy::compile(&it.model, 1, 1));
    let plain = parse(&format!("{HEAD}{PLAIN}"))?;
    let accepting = Style {
        end: "accept",
        accepts: true,
        ..Style::USUAL
    };
    let nothing = format!("table inet bench {{\n{NFT_FORWARD}  }}\n}}\n");
    let mut contests = Vec::new();
    for &rules in args.rules.iter().filter(|rules| **rules <= 10_000) {
        let set = RuleSet::new(rules, 1);
        contests.push(Contest {
            rules: set.len(),
            nft: set.nft(),
            policy: parse(&set.policy(HEAD, &accepting))?,
            frames: frames(&set, datagrams(set.wanted())),
            nanos: Default::default(),
        });
    }
    let router = Router::new()?;
    for _ in 0..args.rounds {
        for contest in &mut contests {
            let Contest {
                nft,
                policy,
                frames,
                nanos,
                ..
            } = contest;
            router.load(&nothing)?;
            nanos[0].push(router.send(frames)?);
            router.load(nft)?;
            nanos[1].push(router.send(frames)?);
            nanos[2].push(ours(&plain, frames)?);
            nanos[3].push(ours(policy, frames)?);
        }
    }
    let what = format!(
        "datagrams that each start a flow, one core, {} rounds: ns a datagram, least (median); \
         what the rules take is the difference of the least; rates in thousands a second",
        args.rounds
    );
    let columns = [
        "rules",
        "kernel without",
        "kernel with",
        "kernel rules",
        "kernel rate",
        "path without",
        "path with",
        "path rules",
        "path rate",
        "parts",
        "rates",
    ];
    let mut table = Table::new(&what, &columns);
    for contest in contests {
        let [a, b, c, d] = contest.nanos.map(Sorted::new);
        let part = |without: &Sorted, with: &Sorted| with.at(0.0) - without.at(0.0);
        let rate = |with: &Sorted| format!("{:.0}", 1e6 / with.at(0.0));
        let (theirs, ours) = (part(&a, &b), part(&c, &d));
        table.rows.push(vec![
            contest.rules.to_string(),
            a.least_and_median(0),
            b.least_and_median(0),
            format!("{theirs:.0}"),
            rate(&b),
            c.least_and_median(0),
            d.least_and_median(0),
            format!("{ours:.0}"),
            rate(&d),
            format!("{:.0}", theirs / ours.max(1.0)),
            format!("{:.1}", b.at(0.0) / d.at(0.0)),
        ]);
    }
    Ok(table)
}
