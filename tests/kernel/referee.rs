//! Plays conversations on both sides and compares, packet by packet.

use crate::frame::{FIRST_LABEL, LABELS, Place};
use crate::group::{Group, HELPERS};
use crate::oracle::{Answer, Oracle};
use crate::replay::{Packet, Replay};
use crate::scenario::{Body, Scenario, Step};
use crate::timing::{JIFFY, Moments};
use crate::tuple::Tuple;
use crate::view::{FlowView, View};
use shardwall::cli::lab::LabError;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::time::Duration;

/// What was said of one packet of a conversation.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) kernel: View,
    pub(crate) ours: View,
    pub(crate) agree: bool,
    /// The sides differ about a moment that nobody can know; the comparison ends here.
    pub(crate) doubtful: bool,
}

impl Said {
    pub(crate) fn differs(&self) -> bool {
        !self.agree && !self.doubtful
    }
}

/// A packet that was played.
struct Played {
    scenario: usize,
    flow: Option<Tuple>,
    answer: Answer,
}

/// The kernel and our replay, and labels that no conversation had before.
pub(crate) struct Referee {
    oracle: Oracle,
    replay: Replay,
    /// Nobody but the kernel is asked.
    alone: bool,
    label: u32,
    /// What became of the flows that were compared.
    flows: Vec<Moments>,
    /// Which conversations were not compared to their end, because a segment was lost in a helper.
    stopped: Vec<bool>,
    /// The label of the first conversation of those.
    first: u32,
    /// The longest that the kernel may have been off, in milliseconds.
    slack: u64,
    /// How often the kernel told the very seconds that we did, and one less, by what we told.
    seconds: BTreeMap<(u32, &'static str), [u64; 2]>,
    /// Packets of which both sides were asked.
    pub(crate) packets: u64,
    /// Packets that were compared.
    pub(crate) compared: u64,
    /// Packets that were compared, of flows that a helper announced.
    pub(crate) expected: u64,
    /// Conversations that could not be compared to their end.
    pub(crate) doubtful: u64,
}

/// Whether nobody but the kernel is asked.
pub(crate) fn alone() -> bool {
    std::env::var_os("KERNEL_ALONE").is_some()
}

/// How often is always.
const ALWAYS: u64 = 10;

/// Milliseconds of the clock that the oracle reads.
fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000 + now.tv_nsec as u64 / 1_000_000
}

impl Referee {
    /// Router number `at`, which plays `group`.
    pub(crate) fn new(at: usize, group: &Group) -> Result<Self, LabError> {
        Ok(Self {
            oracle: Oracle::new(at, group)?,
            replay: Replay::new(at, &group.policy()),
            alone: alone(),
            label: FIRST_LABEL,
            flows: Vec::new(),
            stopped: Vec::new(),
            first: FIRST_LABEL,
            slack: 0,
            seconds: BTreeMap::new(),
            packets: 0,
            compared: 0,
            expected: 0,
            doubtful: 0,
        })
    }

    /// Whether `count` more conversations can be told apart.
    pub(crate) fn has_labels(&self, count: usize) -> bool {
        self.label as usize + count < LABELS as usize
    }

    /// Plays all `scenarios` at once, each at its own pace; what was said up to the first
    /// difference of each.
    pub(crate) fn play(&mut self, scenarios: &[Scenario]) -> Vec<Vec<Said>> {
        assert!(self.has_labels(scenarios.len()), "out of addresses");
        self.first = self.label;
        self.label += scenarios.len() as u32;
        let places: Vec<Place> = (self.first..)
            .zip(scenarios)
            .map(|(label, scenario)| Place::new(label, scenario))
            .collect();
        let (packets, played) = self.ask(scenarios, &places);
        self.packets += packets.len() as u64;
        let views = match self.alone {
            true => played.iter().map(|one| one.answer.view.clone()).collect(),
            false => self.replay.play(&packets),
        };
        let mut said: Vec<Vec<Said>> = vec![Vec::new(); scenarios.len()];
        self.stopped = vec![false; scenarios.len()];
        let mut kernels = vec![Moments::default(); scenarios.len()];
        self.flows = vec![Moments::default(); scenarios.len()];
        self.slack = 0;
        for (played, ours) in played.iter().zip(views) {
            let at = played.scenario;
            if self.stopped[at] || said[at].last().is_some_and(|last| !last.agree) {
                continue;
            }
            let body = &scenarios[at].steps[said[at].len()].body;
            self.slack = self.slack.max(played.answer.slack());
            let mut judge = Judge {
                kernel: &mut kernels[at],
                ours: &mut self.flows[at],
                slack: self.slack,
            };
            let verdict = judge.compare(body, played, ours);
            self.compared += 1;
            let announced = verdict.kernel.flow.is_some_and(|flow| flow.expected);
            self.expected += u64::from(announced);
            if let (true, Some(kernel), Some(ours)) =
                (verdict.agree, verdict.kernel.flow, verdict.ours.flow)
            {
                let counts = self
                    .seconds
                    .entry((ours.timeout, ours.tcp.name()))
                    .or_default();
                counts[usize::from(kernel.timeout < ours.timeout)] += 1;
            }
            self.doubtful += u64::from(verdict.doubtful);
            let stalled = verdict.agree
                && verdict.kernel.verdict == "-"
                && flow_stalls(&scenarios[at], said[at].len());
            self.stopped[at] |= stalled;
            said[at].push(verdict);
        }
        said
    }

    /// Sends everything to the kernel, each conversation at its own pace.
    fn ask(&mut self, scenarios: &[Scenario], places: &[Place]) -> (Vec<Packet>, Vec<Played>) {
        let start = now();
        let millis = |wait: Duration| wait.as_millis() as u64;
        let mut next = vec![0; scenarios.len()];
        let mut moments = vec![Moments::default(); scenarios.len()];
        let mut due: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
        for (at, scenario) in scenarios.iter().enumerate() {
            if let Some(step) = scenario.steps.first() {
                due.push(Reverse((start + millis(step.wait), at)));
            }
        }
        let (mut packets, mut all) = (Vec::new(), Vec::new());
        while let Some(Reverse((when, at))) = due.pop() {
            std::thread::sleep(Duration::from_millis(when.saturating_sub(now())));
            let (scenario, place) = (&scenarios[at], &places[at]);
            let step = &scenario.steps[next[at]];
            let flow = Tuple::of(place, step.side, &step.body);
            let patience = moments[at].patience(flow.map(Tuple::flow), now());
            if patience > 0 {
                due.push(Reverse((now() + patience, at)));
                continue;
            }
            let frame = place.frame(step.side, &step.body);
            let answer = self.oracle.ask(step.side, &frame, flow);
            let flow = flow.map(Tuple::flow);
            let sent = answer.sent / 1_000_000;
            if let Some(flow) = flow
                && !answer.view.silent()
            {
                moments[at].heard(flow, sent, &answer.view, answer.slack());
            }
            next[at] += 1;
            if let Some(step) = scenario.steps.get(next[at]) {
                due.push(Reverse((sent + millis(step.wait), at)));
            }
            packets.push(Packet {
                at: answer.sent,
                side: step.side,
                frame,
            });
            all.push(Played {
                scenario: at,
                flow,
                answer,
            });
        }
        (packets, all)
    }

    /// Timeouts of which the kernel always told a second less: once is chance (a jiffy went by before
    /// it was asked), always is another timeout.
    pub(crate) fn always_less(&self) -> Vec<String> {
        let always = |(_, counts): &(_, &[u64; 2])| counts[0] == 0 && counts[1] >= ALWAYS;
        let found = self.seconds.iter().filter(always);
        let told = |((ours, tcp), counts): (&(u32, &str), &[u64; 2])| {
            let times = counts[1];
            format!("{times} times {tcp} {ours} to us, a second less to the kernel")
        };
        found.map(told).collect()
    }

    /// Compares the kernel's whole table with what came of the conversations that were played last,
    /// `said` of which was compared: what differs, by conversation.
    pub(crate) fn table(&mut self, said: &[Vec<Said>]) -> Vec<(usize, String)> {
        let before = now();
        let listed: HashSet<Tuple> = self.oracle.table().into_iter().map(Tuple::flow).collect();
        let slack = self.slack + (now() - before);
        let mut differences = Vec::new();
        let mut known = HashSet::new();
        for (at, flows) in self.flows.iter().enumerate() {
            if self.stopped[at] || said[at].last().is_some_and(|last| !last.agree) {
                continue;
            }
            for (flow, alive) in flows.alive(before, slack) {
                known.insert(flow);
                if alive != listed.contains(&flow) {
                    let who = if alive { "ours" } else { "the kernel's table" };
                    differences.push((at, format!("only in {who}: {flow}")));
                }
            }
        }
        // What nobody knows of: a flow that no compared packet belongs to.
        for flow in listed {
            let at = flow.label().and_then(|label| label.checked_sub(self.first));
            let at = at.map_or(usize::MAX, |at| at as usize);
            let strange = !known.contains(&flow)
                && self.flows.get(at).is_some_and(|flows| !flows.knows(flow))
                && !self.stopped[at]
                && said[at].last().is_none_or(|last| last.agree);
            if strange {
                differences.push((at, format!("only in the kernel's table: {flow}")));
            }
        }
        differences
    }
}

/// Compares the packets of one conversation.
struct Judge<'a> {
    kernel: &'a mut Moments,
    ours: &'a mut Moments,
    slack: u64,
}

impl Judge<'_> {
    fn compare(&mut self, body: &Body, played: &Played, mut ours: View) -> Said {
        let Played { flow, answer, .. } = played;
        let mut kernel = answer.view.clone();
        if matches!(body.core(), Body::Redirect { .. }) {
            // A router does not pass on what comes from a link's own address; a bridge does.
            kernel.verdict = ours.verdict.clone();
        }
        if ours.verdict == "accept"
            && !matches!(kernel.state.as_str(), "-" | "invalid")
            && kernel.verdict == "-"
            && is_stream(*flow)
        {
            // The kernel holds back what it cannot read, so that it comes again in one piece. We wait
            // for the rest.
            kernel.verdict = ours.verdict.clone();
        }
        // Of the flow that a packet names without belonging to it, replay says nothing; and which
        // flow a packet names that lacks bytes is not for us to say.
        let stranger = kernel.state == "invalid" && body.may_be_broken();
        let named =
            kernel.state == "untracked" || body.is_bent() || stranger && ours.flow.is_none();
        if body.is_bent() && matches!(kernel.state.as_str(), "new" | "established") {
            // It began a flow that it does not name in full, or moved the deadline of this one.
            self.ours.moved(*flow);
        }
        if named {
            kernel.flow = None;
            ours.flow = None;
        }
        let now = answer.sent / 1_000_000;
        let (from, to) = (now.saturating_sub(self.slack), now + self.slack);
        let doubtful = self.kernel.within(*flow, from, to).is_some()
            || self.ours.within(*flow, from, to).is_some();
        let moved = self.ours.has_moved(*flow);
        if let Some(flow) = *flow
            && !named
            && !kernel.silent()
        {
            self.kernel.heard(flow, now, &kernel, answer.slack());
            self.ours.heard(flow, now, &ours, 0);
        }
        let in_time = match (*flow, kernel.flow) {
            (Some(flow), Some(FlowView { timeout, .. })) if !moved => {
                self.ours.allow(flow, timeout, from, to)
            }
            _ => true,
        };
        let agree = timeless(&kernel) == timeless(&ours) && in_time;
        Said {
            kernel,
            ours,
            agree,
            doubtful: doubtful && !agree,
        }
    }
}

/// Whether a segment that a helper stopped does not come again, as it would from any sender: the
/// kernel reads the next one, and we wait for this one.
fn flow_stalls(scenario: &Scenario, at: usize) -> bool {
    let step = &scenario.steps[at];
    let ends = step.body.ends();
    let same = |next: &&Step| next.side == step.side && next.body.ends() == ends;
    let mut later = scenario.steps[at + 1..].iter().filter(same);
    let is_tcp = matches!(step.body.core(), Body::Tcp { .. });
    is_tcp
        && later
            .find(|next| next.body.text().is_some())
            .is_some_and(|next| next.body != step.body)
}

/// Whether `flow` is a stream that a helper listens to.
fn is_stream(flow: Option<Tuple>) -> bool {
    let listens = |flow: Tuple, port| flow.proto == 6 && [flow.from, flow.to].contains(&port);
    let mut ports = HELPERS.iter().filter(|(_, proto, _)| *proto == "tcp");
    flow.is_some_and(|flow| ports.any(|(.., port)| listens(flow, *port)))
}

fn timeless(view: &View) -> View {
    let flow = view.flow.map(|flow| FlowView { timeout: 0, ..flow });
    View {
        flow,
        ..view.clone()
    }
}

/// The uncertainty of a jiffy is part of every answer's.
const _: () = assert!(
    JIFFY < 60,
    "packets keep further away from doubtful moments"
);
