//! The product against Linux: the same packets, at the same times, through nf_conntrack and through
//! `shardwall replay`, and the same words expected of both, packet by packet: verdict, state,
//! direction, ASSURED, TCP state and timeout; and at the end the same flows in the table.
//!
//! Each group of settings and rules (`group.rs`) has a router of its own: a network namespace with
//! nf_conntrack, and a policy that says the same. They play scripted conversations, and random ones
//! of `KERNEL_PACKETS` packets together (10,000 unless said) from the seed `KERNEL_SEED` (a fresh
//! one unless said, and printed). A difference is cut down to the fewest packets that still show it
//! and printed in the notation of `notation.rs`, to be added to a script.
//!
//! - `KERNEL_SECONDS=3600` plays one match after the other, each of `KERNEL_PACKETS` packets and
//!   from the seed after the last, for that long or until a difference;
//! - `KERNEL_SCENARIO` plays only what it says, in the notation of the scripts, and prints the
//!   transcript;
//! - `KERNEL_ALONE=1` asks nobody but the kernel, to see what it does;
//! - `KERNEL_KINDS` adds kinds of packets that are switched off (`walk.rs`);
//! - `KERNEL_BINARY` judges another build of `shardwall`.
//!
//! `KERNEL_SECONDS=3600 cargo test --test kernel -- --nocapture` shows how it goes. Needs root, or
//! is re-run inside user namespaces where the system allows that. What a run that was killed left
//! behind is removed by the next.
//!
//! `nft.rs` has another test, of rules against nftables: `cargo test --test kernel nftables_agrees`.
//!
//! Helpers are attached in every group (`group.rs`), and of each flow it is compared whether they
//! announced it. How many flows are expected is not: our `replay` does not say so.
//!
//! Left out: where a router and a bridge must differ (the TTL, packets from link-local
//! addresses); UDP-Lite where checksums are verified (Linux 6.18 verifies another sum than RFC
//! 3828's); IPv6 fragments the first of which lacks headers; which flows a full table gives up that
//! are not ASSURED (the kernel's choice is its hash's). And
//! four known differences: a full table makes the kernel drop even what would be INVALID, and us
//! only what would be NEW; a reset that a rule sends for an INVALID packet is tracked by the kernel
//! as if it came from the network; rules of nftables take an IPv6 authentication header for the
//! transport, ours look behind it; and they read the ports of a transport header that is cut short,
//! of which ours say nothing.
//!
//! Of helpers are left out, because the product is meant to differ or the kernel's answer is
//! chance:
//!
//! - all of them: what is announced by a flow whose time is over (the kernel counts it until it
//!   happens to collect the flow, so random dialogues stay away from flows that live for seconds);
//!   a data packet that is damaged, which uses an expectation up in the kernel only;
//! - on streams: lines in several segments, several in one, and segments that are missing or come
//!   again after what they announced was used (`dialogue.rs`); a stream that begins anew in the
//!   same entry, after a reset from the other end. That the kernel holds back what it cannot read,
//!   and we do not, is overlooked;
//! - FTP: lines behind one that the kernel's helper cannot read, or that names another host: it
//!   forgets where that ends, so one that says nothing follows. Numbers above 255 or 65535, or
//!   without digits; replies of several lines that announce something before their end;
//! - IRC and Amanda: numbers above 65535, which the kernel cuts to 16 bits;
//! - SIP: media at ports below 1024 or at addresses that cannot be read, and on a stream what has
//!   no proper first line, length, number or empty line (the kernel drops those, or does not read
//!   them, we only do not follow them);
//!   errors that go the way of the flow's first packet (to the kernel a message, which prolongs the
//!   flow); segments that come again (the same); two classes at one port (the kernel drops what
//!   asks for the second); letters of Latin-1, which are letters to the kernel.

#![allow(clippy::disallowed_methods)] // the kernel's clock is the real one

mod dialogue;
mod frame;
mod group;
mod nft;
mod notation;
mod oracle;
mod random;
mod referee;
mod replay;
mod scenario;
mod sctp;
mod settings;
mod shrink;
mod speech;
mod tcp;
mod text;
mod timing;
mod tuple;
mod view;
mod walk;

use group::Group;
use oracle::{KIND, Oracle};
use parking_lot::Mutex;
use random::Random;
use referee::{Referee, Said};
use scenario::Scenario;
use shardwall::cli::lab::{as_root_of_a_namespace, is_root, remove_leftovers};
use std::fmt::Write;
use std::time::{Duration, Instant, SystemTime};

/// Packets of a random conversation.
const WALK: usize = 30;
/// Conversations that go on at once, of each group.
const AT_ONCE: usize = 1_000;
/// Random packets of a match, unless said: with the scripts, a good minute.
const PACKETS: u64 = 10_000;
/// Differences of a group that are cut down; more of them mostly repeat the first.
const SHRUNK: u64 = 4;

/// What came of the conversations of one group.
#[derive(Default)]
struct Outcome {
    packets: u64,
    compared: u64,
    expected: u64,
    conversations: u64,
    doubtful: u64,
    differences: u64,
    report: String,
}

impl Outcome {
    /// Plays `scenarios` under `group`, in router number `at`; prints them if `talkative`.
    #[allow(clippy::print_stderr)] // transcripts that were asked for
    fn of(at: usize, group: &Group, scenarios: &[Scenario], talkative: bool) -> Self {
        let mut this = Self {
            conversations: scenarios.len() as u64,
            ..Self::default()
        };
        if scenarios.is_empty() {
            return this;
        }
        let mut referee = Referee::new(at, group).unwrap();
        for batch in scenarios.chunks(AT_ONCE) {
            let played = referee.play(batch);
            // What shrinking plays does not count.
            (this.packets, this.compared) = (referee.packets, referee.compared);
            (this.expected, this.doubtful) = (referee.expected, referee.doubtful);
            let table = referee.table(&played);
            for difference in referee.always_less() {
                this.differences += 1;
                let _ = writeln!(this.report, "{group}{difference}\n");
            }
            for (at, difference) in &table {
                this.differences += 1;
                let script = transcript(&batch[*at], &played[*at]);
                let _ = writeln!(this.report, "{group}{script}{difference}\n");
            }
            for (scenario, said) in batch.iter().zip(&played) {
                if talkative {
                    eprintln!("{}", transcript(scenario, said));
                }
                if said.last().is_some_and(Said::differs) {
                    this.differences += 1;
                    if this.differences <= SHRUNK {
                        this.report += &cut_down(&mut referee, group, scenario, said);
                    }
                }
            }
        }
        this
    }
}

/// A difference, with as few packets as possible.
fn cut_down(referee: &mut Referee, group: &Group, scenario: &Scenario, said: &[Said]) -> String {
    // The conversations of a full table depend on each other.
    let found = match group.full {
        true => None,
        false => shrink::shrink(referee, scenario, said.len()),
    };
    match found {
        Some((scenario, said)) => format!("{group}{}\n", transcript(&scenario, &said)),
        None => format!("{group}(not cut down)\n{}\n", transcript(scenario, said)),
    }
}

fn transcript(scenario: &Scenario, said: &[Said]) -> String {
    let mut text = scenario.title() + "\n";
    for (step, said) in scenario.steps.iter().zip(said) {
        let _ = writeln!(text, "{step}");
        if said.agree {
            let _ = writeln!(text, "        both:   {}", said.kernel);
        } else {
            let _ = writeln!(text, "        kernel: {}", said.kernel);
            let _ = writeln!(text, "        ours:   {}", said.ours);
        }
        if said.doubtful {
            let _ = writeln!(text, "        at a moment that nobody can know");
        }
    }
    text
}

/// Plays a match: every script, and `packets` random packets from `seed`.
#[allow(clippy::print_stderr)] // what was played
fn play(seed: u64, packets: u64) {
    eprintln!("KERNEL_SEED={seed} KERNEL_PACKETS={packets}");
    let mut random = Random(seed);
    let asked = std::env::var("KERNEL_SCENARIO").ok();
    let groups = Group::all(&mut random);
    let scripts = match &asked {
        Some(text) => scenario::chapters(text),
        None => scenario::scripted(),
    };
    let mut walks = vec![Vec::new(); groups.len()];
    if asked.is_none() {
        let open: Vec<usize> = (0..groups.len()).filter(|at| !groups[*at].full).collect();
        let (mut made, mut number) = (0, 0);
        while made < packets {
            let at = open[number % open.len()];
            let walk = walk::walk(&mut random, &groups[at], number, WALK);
            (made, number) = (made + walk.steps.len() as u64, number + 1);
            walks[at].push(walk);
        }
    }
    for (group, walks) in groups.iter().zip(&mut walks) {
        let of = |scenario: &&Scenario| {
            scenario.group == group.name || asked.is_none() && group.takes_all(scenario)
        };
        let scripts = scripts.iter().filter(of);
        if group.full && !Oracle::can_fill() {
            eprintln!(
                "the kernel's table is too big to fill: group {} is left out",
                group.name
            );
            continue;
        }
        walks.splice(0..0, scripts.cloned());
    }
    for script in &scripts {
        let known = groups.iter().any(|group| group.name == script.group);
        assert!(known, "{} is in no group that exists", script.name);
    }
    let start = Instant::now();
    remove_leftovers(KIND);
    let outcomes: Vec<Outcome> = std::thread::scope(|threads| {
        let started: Vec<_> = groups
            .iter()
            .zip(&walks)
            .enumerate()
            .map(|(at, (group, scenarios))| {
                let talkative = asked.is_some();
                threads.spawn(move || Outcome::of(at, group, scenarios, talkative))
            })
            .collect();
        let ended = started.into_iter().map(|thread| thread.join().unwrap());
        ended.collect()
    });
    for (group, outcome) in groups.iter().zip(&outcomes) {
        let Outcome {
            packets,
            compared,
            expected,
            conversations,
            doubtful,
            differences,
            ..
        } = outcome;
        eprintln!(
            "{:<20} {packets:>7} packets in {conversations:>5} conversations, {compared:>7} \
             compared ({expected:>5} expected), {differences} differences, {doubtful} in doubt",
            group.name
        );
    }
    let total = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    let (played, compared) = (total(|one| one.packets), total(|one| one.compared));
    eprintln!(
        "{played} packets, {compared} compared, {} differences; {:.1} s",
        total(|one| one.differences),
        start.elapsed().as_secs_f64(),
    );
    let report: String = outcomes.iter().map(|one| one.report.as_str()).collect();
    assert!(
        total(|one| one.differences) == 0,
        "KERNEL_SEED={seed} KERNEL_PACKETS={packets}\n{report}"
    );
    assert!(
        asked.is_some() || total(|one| one.expected) > 0,
        "no helper has announced anything"
    );
    // A machine that is so slow that nothing can be said has not shown anything.
    assert!(
        compared * 10 >= played * 9,
        "too slow: only {compared} of {played} packets could be compared"
    );
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}")),
    )
}

/// Plays that are timed do not share the machine.
static ALONE: Mutex<()> = Mutex::new(());

/// Whether this process may make namespaces; else it runs `test` in another that may.
fn may_play(test: &str) -> bool {
    if is_root() {
        return true;
    }
    let binary = std::env::current_exe().unwrap();
    let binary = binary.to_string_lossy();
    let status = as_root_of_a_namespace(&[&binary, test, "--nocapture"]).unwrap();
    assert!(
        status.success(),
        "this test needs network namespaces; it failed inside `unshare -Urnm`, so run it as root"
    );
    false
}

fn fresh_seed() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64
}

#[test]
fn nftables_agrees() {
    let _alone = ALONE.lock();
    if may_play("nftables_agrees") {
        let seed = number("NFT_SEED").unwrap_or_else(fresh_seed);
        let policies = number("NFT_POLICIES").unwrap_or(nft::POLICIES);
        let packets = number("NFT_PACKETS").unwrap_or(nft::PACKETS);
        let time = Duration::from_secs(number("NFT_SECONDS").unwrap_or(0));
        nft::play(seed, policies, packets, time);
    }
}

#[test]
fn the_kernel_agrees() {
    let _alone = ALONE.lock();
    if !may_play("the_kernel_agrees") {
        return;
    }
    let mut seed = number("KERNEL_SEED").unwrap_or_else(fresh_seed);
    let packets = number("KERNEL_PACKETS").unwrap_or(PACKETS);
    let time = number("KERNEL_SECONDS").map(Duration::from_secs);
    let start = Instant::now();
    loop {
        play(seed, packets);
        if time.is_none_or(|time| start.elapsed() >= time) {
            break;
        }
        seed = seed.wrapping_add(1);
    }
}
