//! What `top` shows: rates out of two looks at the appliance, and what the user has chosen. Pure: looks
//! and keys come in, nothing goes out.

use super::columns::Sort;
use super::columns::{DROPS, PORTS, RULES, STATES, TALKERS, TALKERS_BY_FLOWS, WORKERS};
use super::keys::Action;
use crate::base::histogram::Times;
use crate::control::drops::DropRow;
use crate::control::overview::Overview;
use crate::control::snapshot::{PortRow, RuleRow, WorkerRow};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::time::Duration;

/// Intervals that are remembered for the curves.
pub const HISTORY: usize = 240;

/// What happened between two looks.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Rates {
    /// Seconds between the two.
    pub seconds: f64,
    /// Version of the running binary.
    pub version: String,
    /// Seconds since its start.
    pub uptime: u64,
    /// Number of the policy in force.
    pub generation: u32,
    /// Whether the last reload worked.
    pub reload_successful: bool,
    /// Packets taken from ports.
    pub received_per_s: f64,
    /// Packets given to ports.
    pub forwarded_per_s: f64,
    /// Packets dropped.
    pub dropped_per_s: f64,
    /// Packets given to the host.
    pub punted_per_s: f64,
    /// The flow table.
    pub flows: FlowRates,
    /// The ports, in the policy's order.
    pub ports: Vec<PortRate>,
    /// The workers.
    pub workers: Vec<WorkerRate>,
    /// The rules in force, in their order.
    pub rules: Vec<RuleRate>,
    /// The reasons for which packets were dropped since start.
    pub drops: Vec<DropRate>,
    /// The flows as they were counted last.
    pub census: Option<CensusRates>,
}

/// The flow table.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FlowRates {
    /// Flows now.
    pub entries: u64,
    /// Most that there may be.
    pub limit: u32,
    /// Flows now, by class of protocol.
    pub by_class: BTreeMap<String, u64>,
    /// Flows that began.
    pub new_per_s: f64,
    /// Flows that ended.
    pub ended_per_s: f64,
    /// Flows that ended early, to make room.
    pub early_drop_per_s: f64,
    /// Packets for whose flow there was no room.
    pub refused_per_s: f64,
    /// Packets judged INVALID.
    pub invalid_per_s: f64,
}

/// A port. Bits are those of frames, from the Ethernet header on.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)] // named after PortRow
pub struct PortRate {
    pub port: String,
    pub link: String,
    pub driver: String,
    pub rx_packets_per_s: f64,
    pub rx_bits_per_s: f64,
    pub tx_packets_per_s: f64,
    pub tx_bits_per_s: f64,
    /// Frames that the port itself lost: the sum of the four below.
    pub drops_per_s: f64,
    pub missed_per_s: f64,
    pub no_buffer_per_s: f64,
    pub rx_errors_per_s: f64,
    pub tx_errors_per_s: f64,
}

/// A worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct WorkerRate {
    /// Its number.
    pub worker: usize,
    /// Share of the time, 0 to 1, in loops that did something.
    pub busy: f64,
    /// Seconds that 99 % of these did not exceed; `None` if there was none.
    pub loop_p99_seconds: Option<f64>,
    /// Packets that it took from ports.
    pub received_per_s: f64,
    /// Flows that it owns.
    pub flows: u64,
    /// Packets that it handed to other workers.
    pub handed_out_per_s: f64,
    /// Packets that other workers handed to it.
    pub handed_in_per_s: f64,
    /// Packets that it could not hand over.
    pub handed_lost_per_s: f64,
}

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RuleRate {
    /// Its chain and name.
    pub rule: String,
    /// Packets that matched.
    pub packets_per_s: f64,
    /// Bits of these.
    pub bits_per_s: f64,
    /// Packets that have matched so far.
    pub packets: u64,
    /// What it does.
    pub action: String,
}

/// A reason for which packets are dropped.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DropRate {
    /// Its name.
    pub reason: String,
    /// Packets dropped.
    pub packets_per_s: f64,
    /// Packets dropped since start.
    pub packets: u64,
    /// What the reason means.
    pub meaning: String,
}

/// The flows as they were counted last: [`Census`](crate::control::census::Census).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CensusRates {
    /// Seconds since then.
    pub age_s: f64,
    /// Seconds from the count before, which is what hosts' rates are about; `None` if there was none.
    pub window_s: Option<f64>,
    /// Whether flows count what they carry.
    pub accounting: bool,
    /// Flows counted.
    pub flows: u64,
    /// Whether small flows or hosts are not all counted.
    pub lower_bound: bool,
    /// Flows by protocol and state.
    pub states: Vec<StateRate>,
    /// Hosts.
    pub talkers: Vec<TalkerRate>,
}

impl CensusRates {
    /// Whether it is known what hosts send: flows count it, and were counted twice.
    pub fn has_rates(&self) -> bool {
        self.accounting && self.window_s.is_some()
    }
}

/// Flows of one protocol and state.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StateRate {
    /// The protocol.
    pub proto: String,
    /// The state.
    pub state: String,
    /// How many.
    pub flows: u64,
    /// Of all, 0 to 1.
    pub share: f64,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TalkerRate {
    /// Its address.
    pub host: IpAddr,
    /// Its zone.
    pub zone: u16,
    /// Its flows, as either end.
    pub flows: u64,
    /// Bits that it sent, from the IP header on.
    pub tx_bits_per_s: f64,
    /// Bits that were sent to it.
    pub rx_bits_per_s: f64,
    /// Packets, both ways.
    pub packets_per_s: f64,
}

/// What a counter gained; one that was set back has gained what it has.
fn gained(old: u64, new: u64) -> u64 {
    new.checked_sub(old).unwrap_or(new)
}

impl Rates {
    /// What happened from `old` to `new`; `None` if the appliance was started anew in between.
    pub fn between(old: &Overview, new: &Overview) -> Option<Self> {
        let nanos = new.now_ns.checked_sub(old.now_ns).filter(|it| *it > 0)?;
        let seconds = nanos as f64 / 1e9;
        let rate = |old: u64, new: u64| gained(old, new) as f64 / seconds;
        let (packets, before) = (&new.stats.packets, &old.stats.packets);
        let (ct, ct_before) = (&new.stats.conntrack, &old.stats.conntrack);
        Some(Self {
            seconds,
            version: new.stats.version.clone(),
            uptime: new.stats.uptime,
            generation: new.stats.generation,
            reload_successful: new.stats.reload.successful,
            received_per_s: rate(before.received, packets.received),
            forwarded_per_s: rate(before.forwarded, packets.forwarded),
            dropped_per_s: rate(before.dropped, packets.dropped),
            punted_per_s: rate(before.punted, packets.punted),
            flows: FlowRates {
                entries: ct.entries,
                limit: ct.limit,
                by_class: new.entries.clone(),
                new_per_s: rate(ct_before.insert, ct.insert),
                ended_per_s: rate(ct_before.delete, ct.delete),
                early_drop_per_s: rate(ct_before.early_drop, ct.early_drop),
                refused_per_s: rate(
                    ct_before.drop + ct_before.insert_failed,
                    ct.drop + ct.insert_failed,
                ),
                invalid_per_s: rate(ct_before.invalid, ct.invalid),
            },
            ports: ports(&old.ports, &new.ports, &rate),
            workers: workers(old, new, &rate),
            rules: rules(&old.rules, &new.rules, &rate),
            drops: drops(&old.drops, &new.drops, &rate),
            census: census(new),
        })
    }
}

type Rate<'a> = &'a dyn Fn(u64, u64) -> f64;

fn ports(old: &[PortRow], new: &[PortRow], rate: Rate<'_>) -> Vec<PortRate> {
    let pairs = old.iter().zip(new);
    let pairs = pairs.map(|(old, new)| {
        let missed = rate(old.nic.missed, new.nic.missed);
        let no_buffer = rate(old.nic.no_buffer, new.nic.no_buffer);
        let rx_errors = rate(old.nic.rx_errors, new.nic.rx_errors);
        let tx_errors = rate(old.nic.tx_errors, new.nic.tx_errors);
        PortRate {
            port: new.port.name.clone(),
            link: new.port.link.clone(),
            driver: new.port.driver.clone(),
            rx_packets_per_s: rate(old.rx_packets, new.rx_packets),
            rx_bits_per_s: 8.0 * rate(old.rx_bytes, new.rx_bytes),
            tx_packets_per_s: rate(old.tx_packets, new.tx_packets),
            tx_bits_per_s: 8.0 * rate(old.tx_bytes, new.tx_bytes),
            drops_per_s: missed + no_buffer + rx_errors + tx_errors,
            missed_per_s: missed,
            no_buffer_per_s: no_buffer,
            rx_errors_per_s: rx_errors,
            tx_errors_per_s: tx_errors,
        }
    });
    pairs.collect()
}

fn workers(old: &Overview, new: &Overview, rate: Rate<'_>) -> Vec<WorkerRate> {
    let one = |(at, (old_row, row)): (usize, (&WorkerRow, &WorkerRow))| {
        let busy = (row.busy_seconds - old_row.busy_seconds).max(0.0);
        let idle = (row.idle_seconds - old_row.idle_seconds).max(0.0);
        let all = busy + idle;
        let mut times = Times {
            longest: (row.loop_longest_seconds * 1e9) as u64,
            ..Times::default()
        };
        if let (Some(old), Some(new)) = (old.loops.get(at), new.loops.get(at)) {
            let both = old.iter().zip(new);
            for (count, (old, new)) in times.counts.iter_mut().zip(both) {
                *count = gained(*old, *new);
            }
        }
        WorkerRate {
            worker: row.worker,
            busy: if all > 0.0 { busy / all } else { 0.0 },
            loop_p99_seconds: (times.count() > 0).then(|| times.quantile(0.99) / 1e9),
            received_per_s: rate(old_row.received, row.received),
            flows: row.flows,
            handed_out_per_s: rate(old_row.handed_out, row.handed_out),
            handed_in_per_s: rate(old_row.handed_in, row.handed_in),
            handed_lost_per_s: rate(old_row.handed_lost, row.handed_lost),
        }
    };
    let pairs = old.workers.iter().zip(&new.workers);
    pairs.enumerate().map(one).collect()
}

/// Rules by name, for a reload in between may have moved them.
fn rules(old: &[RuleRow], new: &[RuleRow], rate: Rate<'_>) -> Vec<RuleRate> {
    let known = old.iter().map(|row| ((&row.chain, &row.rule), row));
    let known: HashMap<_, _> = known.collect();
    let rules = new.iter().map(|row| {
        let old = known.get(&(&row.chain, &row.rule));
        let (packets, bytes) = old.map_or((0, 0), |old| (old.packets, old.bytes));
        RuleRate {
            rule: format!("{}/{}", row.chain, row.rule),
            packets_per_s: rate(packets, row.packets),
            bits_per_s: 8.0 * rate(bytes, row.bytes),
            packets: row.packets,
            action: row.action.clone(),
        }
    });
    rules.collect()
}

fn drops(old: &[DropRow], new: &[DropRow], rate: Rate<'_>) -> Vec<DropRate> {
    let pairs = old.iter().zip(new).filter(|(_, new)| new.count > 0);
    let drops = pairs.map(|(old, new)| DropRate {
        reason: new.reason.clone(),
        packets_per_s: rate(old.count, new.count),
        packets: new.count,
        meaning: new.meaning.clone(),
    });
    drops.collect()
}

fn census(new: &Overview) -> Option<CensusRates> {
    let census = new.census.as_ref()?;
    let window = census.window_ms.map(|ms| ms.max(1) as f64 / 1e3);
    let rate = |count: u64| window.map_or(0.0, |window| count as f64 / window);
    let states = census.states.iter().map(|row| StateRate {
        proto: row.proto.clone(),
        state: row.state.clone(),
        flows: row.flows,
        share: row.flows as f64 / census.flows.max(1) as f64,
    });
    let talkers = census.talkers.iter().map(|row| TalkerRate {
        host: row.host,
        zone: row.zone,
        flows: row.flows,
        tx_bits_per_s: 8.0 * rate(row.tx_bytes),
        rx_bits_per_s: 8.0 * rate(row.rx_bytes),
        packets_per_s: rate(row.tx_packets + row.rx_packets),
    });
    Some(CensusRates {
        age_s: census.age_ms as f64 / 1e3,
        window_s: window,
        accounting: census.accounting,
        flows: census.flows,
        lower_bound: census.floor > 0 || census.cut,
        states: states.collect(),
        talkers: talkers.collect(),
    })
}

/// What is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// Something of everything.
    #[default]
    Overview,
    /// All ports.
    Ports,
    /// All workers.
    Workers,
    /// All rules.
    Rules,
    /// Drops by reason.
    Drops,
    /// Hosts.
    Talkers,
    /// Flows by protocol and state.
    Flows,
}

impl View {
    /// All of them, by their keys: 1 and so on.
    pub const ALL: [Self; 7] = [
        Self::Overview,
        Self::Ports,
        Self::Workers,
        Self::Rules,
        Self::Drops,
        Self::Talkers,
        Self::Flows,
    ];

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Overview => "overview",
            Self::Ports => "ports",
            Self::Workers => "workers",
            Self::Rules => "rules",
            Self::Drops => "drops",
            Self::Talkers => "talkers",
            Self::Flows => "flows",
        }
    }
}

/// How the appliance answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// It does.
    #[default]
    Up,
    /// It was asked so many seconds ago, longer than it should take.
    Slow(u64),
    /// It cannot be asked.
    Lost {
        /// Why.
        why: String,
        /// For how many seconds.
        secs: u64,
    },
}

/// What an interval brought, for the curves.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// Packets a second taken from ports.
    pub received: f64,
    /// Packets a second dropped.
    pub dropped: f64,
}

/// Everything that the screen is made from.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// What is looked at.
    pub view: View,
    /// Whether the keys are shown instead.
    pub help: bool,
    /// Whether the screen stands still.
    pub paused: bool,
    /// From one look to the next.
    pub interval: Duration,
    /// How each view is sorted.
    pub sorts: [Sort; View::ALL.len()],
    /// First row that is shown, in views that are one list.
    pub scroll: usize,
    /// Rows that were shown last; the screen says.
    pub page: usize,
    /// How the appliance answers.
    pub link: Link,
    /// What happened in the last interval; `None` before the first is over.
    pub rates: Option<Rates>,
    /// What happened in those before, the last at the end.
    pub history: VecDeque<Point>,
    last: Option<Overview>,
}

impl State {
    /// Before the first look.
    pub fn new(interval: Duration) -> Self {
        let mut sorts = [Sort::default(); View::ALL.len()];
        // By rate where there may be many rows; ports and workers have an order of their own.
        for view in [View::Rules, View::Drops, View::Talkers] {
            sorts[view as usize].column = Some(1);
        }
        sorts[View::Flows as usize].column = Some(2);
        Self {
            interval,
            sorts,
            ..Self::default()
        }
    }

    /// Takes in what the appliance said.
    pub fn take(&mut self, new: Overview) {
        self.link = Link::Up;
        let rates = self.last.as_ref().map(|old| Rates::between(old, &new));
        match rates {
            Some(Some(rates)) if !self.paused => {
                if self.history.len() == HISTORY {
                    self.history.pop_front();
                }
                self.history.push_back(Point {
                    received: rates.received_per_s,
                    dropped: rates.dropped_per_s,
                });
                self.rates = Some(rates);
            }
            // Another appliance than before.
            Some(None) => self.history.clear(),
            _ => {}
        }
        self.last = Some(new);
    }

    /// Forgets the last look: the appliance is gone, and what comes next is not to be compared.
    pub fn lose(&mut self, why: String, secs: u64) {
        self.link = Link::Lost { why, secs };
        self.last = None;
    }

    /// Whether the census would be looked at.
    pub fn wants_census(&self) -> bool {
        let shown = matches!(self.view, View::Overview | View::Talkers | View::Flows);
        shown && !self.paused && !self.help
    }

    /// Seconds until what is asked for now is asked for again, and some.
    pub fn census_secs(&self) -> u64 {
        match self.wants_census() {
            true => 2 * self.interval.as_secs() + 3,
            false => 0,
        }
    }

    /// How many columns the view can be sorted by.
    fn columns(&self) -> usize {
        match self.view {
            View::Overview => 0,
            View::Ports => PORTS.len(),
            View::Workers => WORKERS.len(),
            View::Rules => RULES.len(),
            View::Drops => DROPS.len(),
            View::Talkers if self.talkers_have_rates() => TALKERS.len(),
            View::Talkers => TALKERS_BY_FLOWS.len(),
            View::Flows => STATES.len(),
        }
    }

    fn talkers_have_rates(&self) -> bool {
        let census = self.rates.as_ref().and_then(|it| it.census.as_ref());
        census.is_none_or(CensusRates::has_rates)
    }

    /// How many rows the view has.
    pub fn rows(&self) -> usize {
        let Some(rates) = &self.rates else { return 0 };
        let census = rates.census.as_ref();
        match self.view {
            View::Overview => 0,
            View::Ports => rates.ports.len(),
            View::Workers => rates.workers.len(),
            View::Rules => rates.rules.len(),
            View::Drops => rates.drops.len(),
            View::Talkers => census.map_or(0, |it| it.talkers.len()),
            View::Flows => census.map_or(0, |it| it.states.len()),
        }
    }

    /// Does what a key means; breaks at the end.
    pub fn act(&mut self, action: Action) -> ControlFlow<()> {
        let (page, last) = (self.page.max(1), self.rows().saturating_sub(self.page));
        match action {
            Action::Quit => return ControlFlow::Break(()),
            Action::Back if self.help => self.help = false,
            Action::Back => self.show(View::Overview),
            Action::Help => self.help = !self.help,
            Action::Pause => self.paused = !self.paused,
            Action::Show(view) => self.show(view),
            Action::Next => self.show(self.neighbour(1)),
            Action::Previous => self.show(self.neighbour(View::ALL.len() - 1)),
            Action::Sort => {
                let columns = self.columns();
                let sort = &mut self.sorts[self.view as usize];
                sort.column = match sort.column {
                    None if columns > 0 => Some(0),
                    Some(at) if at + 1 < columns => Some(at + 1),
                    _ => None,
                };
                sort.reversed = false;
            }
            Action::Reverse => {
                let sort = &mut self.sorts[self.view as usize];
                sort.reversed = !sort.reversed;
            }
            Action::Slower => {
                let slower = STEPS.iter().find(|step| **step > self.interval);
                self.interval = *slower.unwrap_or(&self.interval);
            }
            Action::Faster => {
                let faster = STEPS.iter().rfind(|step| **step < self.interval);
                self.interval = *faster.unwrap_or(&self.interval);
            }
            Action::Up => self.scroll = self.scroll.saturating_sub(1),
            Action::Down => self.scroll = (self.scroll + 1).min(last),
            Action::PageUp => self.scroll = self.scroll.saturating_sub(page),
            Action::PageDown => self.scroll = (self.scroll + page).min(last),
            Action::First => self.scroll = 0,
            Action::Last => self.scroll = last,
        }
        ControlFlow::Continue(())
    }

    fn show(&mut self, view: View) {
        self.help = false;
        if view != self.view {
            self.scroll = 0;
        }
        self.view = view;
    }

    fn neighbour(&self, by: usize) -> View {
        View::ALL[(self.view as usize + by) % View::ALL.len()]
    }
}

/// Intervals that keys choose among.
const STEPS: &[Duration] = &[
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
];
