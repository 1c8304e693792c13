//! The state of `top`, and its screens, which are held against those in `screens/`
//! (`UPDATE_SCREENS=1 cargo test --lib cli::top` writes them).

use super::columns::Sort;
use super::keys::{self, Action};
use super::state::{Link, Rates, State, View};
use super::view::{Look, draw};
use crate::base::histogram::BOUNDS;
use crate::control::census::{Census, StateRow, Talker};
use crate::control::overview::Overview;
use crate::control::snapshot::RuleRow;
use crate::control::testbed::Bed;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// A box with two ports and two workers that has just begun.
fn idle() -> Overview {
    let bed = Bed::without_workers(2);
    let mut look = bed.appliance.overview(Duration::ZERO);
    look.now_ns = 5_000_000_000;
    look.stats.version = "1.2.3".into();
    look.stats.uptime = 4000;
    look.stats.conntrack.limit = 262_144;
    look
}

fn census() -> Census {
    let state = |proto: &str, state: &str, flows| StateRow {
        proto: proto.into(),
        state: state.into(),
        flows,
    };
    let talker = |host: &str, flows, tx_bytes, rx_bytes| Talker {
        host: host.parse().unwrap(),
        zone: 0,
        flows,
        tx_packets: tx_bytes / 1000,
        tx_bytes,
        rx_packets: rx_bytes / 100,
        rx_bytes,
    };
    Census {
        age_ms: 3400,
        took_ms: 700,
        window_ms: Some(4000),
        accounting: true,
        flows: 120_000,
        states: vec![
            state("tcp", "ESTABLISHED", 90_000),
            state("udp", "ASSURED", 20_000),
            state("tcp", "TIME_WAIT", 9000),
            state("udp", "UNREPLIED", 800),
            state("icmp", "REPLIED", 200),
        ],
        talkers: vec![
            talker("10.77.0.1", 3000, 400_000_000, 50_000_000),
            talker("10.77.0.2", 2000, 50_000_000, 390_000_000),
            talker("2001:db8:17:4:a:b:c:d", 7, 1_000_000, 2_000_000),
        ],
        floor: 0,
        cut: false,
    }
}

/// The same box a second later, at work.
fn busy(old: &Overview) -> Overview {
    let mut look = old.clone();
    look.now_ns += 1_000_000_000;
    look.stats.uptime += 1;
    let packets = &mut look.stats.packets;
    (packets.received, packets.forwarded) = (1_234_000, 1_200_000);
    (packets.dropped, packets.punted) = (34_000, 5);
    let ct = &mut look.stats.conntrack;
    (ct.entries, ct.insert, ct.delete) = (120_000, 4300, 4100);
    look.entries = [("tcp", 99_000), ("udp", 20_800), ("other", 200)]
        .map(|(class, count)| (class.to_owned(), count))
        .into();
    let lan = &mut look.ports[0];
    (lan.rx_packets, lan.rx_bytes) = (617_000, 617_000 * 800);
    (lan.tx_packets, lan.tx_bytes) = (600_000, 600_000 * 100);
    lan.nic.missed = 12;
    let wan = &mut look.ports[1];
    (wan.rx_packets, wan.rx_bytes) = (617_000, 617_000 * 100);
    (wan.tx_packets, wan.tx_bytes) = (600_000, 600_000 * 800);
    for (at, row) in look.workers.iter_mut().enumerate() {
        row.busy_seconds = [0.95, 0.25][at];
        row.idle_seconds = 1.0 - row.busy_seconds;
        row.received = 617_000;
        row.flows = 60_000;
        (row.handed_out, row.handed_in) = ([1500, 300][at], [300, 1500][at]);
        row.loop_longest_seconds = 0.002;
        // A thousand loops, of which two in a hundred take up to 50 us.
        look.loops[at][2] = 980;
        look.loops[at][6] = 20;
    }
    for (row, packets) in look.rules.iter_mut().zip([1_200_000, 4300, 30_000]) {
        (row.packets, row.bytes) = (packets, packets * 450);
    }
    for (reason, count) in [("policy", 30_000), ("rejected", 4000)] {
        let row = look.drops.iter_mut().find(|row| row.reason == reason);
        row.unwrap_or_else(|| panic!("{reason}")).count = count;
    }
    look.census = Some(census());
    look
}

fn at_work() -> State {
    let old = idle();
    let mut state = State::new(SECOND);
    let new = busy(&old);
    state.take(old);
    assert_eq!(state.rates, None);
    state.take(new);
    state
}

#[test]
fn rates_are_what_counters_gained_over_the_time_in_between() {
    let old = idle();
    let mut new = busy(&old);
    new.now_ns += 1_000_000_000;
    let rates = Rates::between(&old, &new).unwrap();
    assert_eq!(rates.seconds, 2.0);
    assert_eq!(
        (rates.received_per_s, rates.dropped_per_s),
        (617_000.0, 17_000.0)
    );
    let lan = &rates.ports[0];
    assert_eq!(
        (lan.port.as_str(), lan.rx_packets_per_s),
        ("lan", 308_500.0)
    );
    assert_eq!(lan.rx_bits_per_s, 308_500.0 * 8.0 * 800.0);
    assert_eq!((lan.missed_per_s, lan.drops_per_s), (6.0, 6.0));
    let worker = &rates.workers[0];
    assert!((worker.busy - 0.95).abs() < 1e-9);
    assert_eq!(worker.loop_p99_seconds, Some(50e-6));
    assert_eq!(rates.flows.new_per_s, 2150.0);
    let known = &rates.rules[0];
    assert_eq!(
        (known.rule.as_str(), known.packets_per_s),
        ("forward/known", 600_000.0)
    );
    assert_eq!(rates.drops.len(), 2, "those that were counted");
    let census = rates.census.as_ref().unwrap();
    assert_eq!(census.talkers[0].tx_bits_per_s, 8.0 * 100_000_000.0);
    assert_eq!(census.states[0].share, 0.75);

    // an idle worker, then one that nobody measured
    let later = Overview {
        now_ns: new.now_ns + 1,
        ..new.clone()
    };
    let rates = Rates::between(&new, &later).unwrap();
    assert_eq!(rates.workers[0].loop_p99_seconds, None);
    assert_eq!((rates.workers[0].busy, rates.received_per_s), (0.0, 0.0));
    assert_eq!(Rates::between(&new, &new), None);
}

#[test]
fn the_p99_is_that_of_the_interval_not_since_the_start() {
    let mut old = idle();
    // An hour of slow loops, and a second of fast ones.
    old.loops[0][BOUNDS - 1] = 1_000_000;
    let mut new = old.clone();
    new.now_ns += 1_000_000_000;
    new.loops[0][0] += 500;
    new.workers[0].loop_longest_seconds = 0.02;
    let rates = Rates::between(&old, &new).unwrap();
    assert_eq!(rates.workers[0].loop_p99_seconds, Some(781.25e-9));
}

#[test]
fn a_reload_or_a_new_start_in_between_makes_no_nonsense() {
    let old = busy(&idle());
    let mut new = old.clone();
    new.now_ns += 1_000_000_000;
    // The rule `known` is another one now, and one came in front.
    new.rules[0].packets = 7;
    let row = RuleRow {
        rule: "first".into(),
        packets: 5,
        ..new.rules[0].clone()
    };
    new.rules.insert(0, row);
    let rates = Rates::between(&old, &new).unwrap();
    let rate = |at: usize| (rates.rules[at].rule.clone(), rates.rules[at].packets_per_s);
    assert_eq!(rate(0), ("forward/first".into(), 5.0));
    assert_eq!(rate(1), ("forward/known".into(), 7.0));
    assert_eq!(rate(2), ("forward/outbound".into(), 0.0));

    // Another appliance: what it says is not compared with the one before.
    let mut state = State::new(SECOND);
    state.take(old.clone());
    state.take(idle());
    assert_eq!((&state.rates, state.history.len()), (&None, 0));
    state.take(busy(&idle()));
    assert_eq!(state.rates.as_ref().unwrap().received_per_s, 1_234_000.0);
    assert_eq!(state.history.len(), 1);
    state.lose("gone".into(), 3);
    assert!(state.rates.is_some(), "the last ones are still shown");
    state.take(busy(&busy(&idle())));
    assert_eq!(state.link, Link::Up);
    assert_eq!(state.history.len(), 1, "one look is no interval");
}

#[test]
fn keys_change_what_is_shown() {
    let mut state = at_work();
    let press = |state: &mut State, code| {
        let action = keys::action(KeyEvent::new(code, KeyModifiers::NONE)).unwrap();
        state.act(action).is_break()
    };
    press(&mut state, KeyCode::Char('4'));
    assert_eq!(state.view, View::Rules);
    press(&mut state, KeyCode::Tab);
    press(&mut state, KeyCode::Tab);
    press(&mut state, KeyCode::BackTab);
    assert_eq!(state.view, View::Drops);
    let sort = |column, reversed| Sort { column, reversed };
    assert_eq!(state.sorts[View::Drops as usize], sort(Some(1), false));
    press(&mut state, KeyCode::Char('r'));
    assert_eq!(state.sorts[View::Drops as usize], sort(Some(1), true));
    for column in [Some(2), Some(3), None, Some(0)] {
        press(&mut state, KeyCode::Char('s'));
        assert_eq!(state.sorts[View::Drops as usize], sort(column, false));
    }
    for (key, ms) in [
        ('+', 2000),
        ('+', 5000),
        ('-', 2000),
        ('-', 1000),
        ('-', 500),
    ] {
        press(&mut state, KeyCode::Char(key));
        assert_eq!(state.interval, Duration::from_millis(ms));
    }
    press(&mut state, KeyCode::Char('h'));
    assert!(state.help);
    press(&mut state, KeyCode::Esc);
    assert_eq!((state.help, state.view), (false, View::Drops));
    press(&mut state, KeyCode::Esc);
    assert_eq!(state.view, View::Overview);

    // What is paused stands still, and goes on with the rates of one interval.
    press(&mut state, KeyCode::Char(' '));
    let shown = state.rates.clone();
    let mut next = busy(&idle());
    next.now_ns += 1_000_000_000;
    state.take(next.clone());
    assert_eq!(state.rates, shown);
    press(&mut state, KeyCode::Char('p'));
    next.now_ns += 1_000_000_000;
    next.stats.packets.received += 10;
    state.take(next);
    assert_eq!(state.rates.as_ref().unwrap().received_per_s, 10.0);
    assert!(press(&mut state, KeyCode::Char('q')));
}

#[test]
fn scrolling_stays_within_the_list() {
    let mut state = at_work();
    let mut look = busy(&idle());
    let rule = look.rules[0].clone();
    look.rules = (0..100)
        .map(|n| RuleRow {
            rule: format!("rule-{n:02}"),
            ..rule.clone()
        })
        .collect();
    let mut later = look.clone();
    later.now_ns += 1;
    state.take(look);
    state.take(later);
    state.view = View::Rules;
    let first = |state: &mut State| {
        let (screen, page) = screen(state, Look::default(), 80, 24);
        state.page = page;
        let at = screen.find("rule-").unwrap();
        screen[at..at + 7].to_owned()
    };
    assert_eq!(first(&mut state), "rule-00");
    let page = state.page;
    assert!((15..20).contains(&page), "{page}");
    for (action, row) in [
        (Action::Up, 0),
        (Action::Down, 1),
        (Action::PageDown, 1 + page),
        (Action::Last, 100 - page),
        (Action::Down, 100 - page),
        (Action::PageDown, 100 - page),
        (Action::Up, 99 - page),
        (Action::First, 0),
    ] {
        assert!(state.act(action).is_continue());
        assert_eq!(first(&mut state), format!("rule-{row:02}"), "{action:?}");
    }
}

#[test]
fn the_census_is_asked_for_where_it_is_shown() {
    let mut state = at_work();
    for view in View::ALL {
        state.view = view;
        let shown = matches!(view, View::Overview | View::Talkers | View::Flows);
        assert_eq!(state.census_secs() > 0, shown, "{view:?}");
    }
    state.interval = Duration::from_secs(60);
    assert!(state.census_secs() > 60);
    state.paused = true;
    assert_eq!(state.census_secs(), 0);
}

/// The screen as text, and how many rows of its list it shows.
fn screen(state: &State, look: Look, width: u16, height: u16) -> (String, usize) {
    let (buffer, page) = drawn(state, look, width, height);
    let lines = buffer.content.chunks(usize::from(width)).map(|cells| {
        let line: String = cells.iter().map(|cell| cell.symbol()).collect();
        line.trim_end().to_owned() + "\n"
    });
    (lines.collect(), page)
}

fn drawn(state: &State, look: Look, width: u16, height: u16) -> (Buffer, usize) {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let mut page = 0;
    terminal
        .draw(|frame| page = draw(state, look, frame.area(), frame.buffer_mut()))
        .unwrap();
    (terminal.backend().buffer().clone(), page)
}

/// Holds a screen against `screens/NAME`.
fn keep(name: &str, state: &State, look: Look, width: u16, height: u16) {
    let (got, _) = screen(state, look, width, height);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/top/screens");
    let path = path.join(format!("{name}-{width}x{height}.txt"));
    if std::env::var_os("UPDATE_SCREENS").is_some() {
        std::fs::write(&path, &got).unwrap();
    }
    let want = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(got == want, "{name} is now\n{got}\nand was\n{want}");
}

#[test]
fn screens_are_as_they_were() {
    let mut state = at_work();
    let ascii = Look::default();
    let unicode = Look {
        unicode: true,
        colour: true,
    };
    keep("overview", &state, ascii, 80, 24);
    keep("overview", &state, ascii, 20, 5);
    for received in 1..100 {
        let mut point = state.history[0];
        point.received *= f64::from(received % 10) / 10.0;
        state.history.push_back(point);
    }
    keep("overview", &state, unicode, 120, 40);
    keep("overview", &state, unicode, 200, 60);
    for view in View::ALL {
        state.view = view;
        if view != View::Overview {
            keep(view.name(), &state, ascii, 80, 24);
        }
    }
    state.view = View::Ports;
    keep("ports", &state, ascii, 120, 40);
    state.help = true;
    keep("help", &state, ascii, 80, 24);
    state.help = false;

    // Nothing known yet.
    keep("first", &State::new(SECOND), ascii, 80, 24);

    // Trouble.
    state.view = View::Overview;
    state.paused = true;
    state.lose("nothing answers at /run/x".into(), 7);
    let rates = state.rates.as_mut().unwrap();
    rates.reload_successful = false;
    rates.flows.early_drop_per_s = 12.0;
    rates.workers[0].handed_lost_per_s = 3.0;
    let census = rates.census.as_mut().unwrap();
    (census.accounting, census.window_s) = (false, None);
    keep("trouble", &state, ascii, 80, 24);
    state.view = View::Talkers;
    keep("talkers-by-flows", &state, ascii, 80, 24);
}

#[test]
fn any_size_has_a_screen() {
    let mut state = at_work();
    let host = Ipv6Addr::from_bits(u128::MAX);
    let census = state.rates.as_mut().unwrap().census.as_mut().unwrap();
    census.talkers[0].host = IpAddr::V6(host);
    census.talkers[0].zone = u16::MAX;
    let look = Look {
        unicode: true,
        colour: true,
    };
    let sizes = [1, 2, 3, 5, 10, 20, 39, 40, 72, 80, 81, 119, 155, 156, 300];
    for view in View::ALL {
        state.view = view;
        for width in sizes {
            for height in (1..50).chain([100]) {
                screen(&state, look, width, height);
            }
        }
    }
}

#[test]
fn colour_says_nothing_that_is_not_written() {
    let mut state = at_work();
    state.link = Link::Slow(4);
    let looks = [false, true].map(|colour| Look {
        colour,
        unicode: true,
    });
    for view in View::ALL {
        state.view = view;
        let [plain, coloured] = looks.map(|look| drawn(&state, look, 120, 40).0);
        let text = |buffer: &Buffer| {
            let symbols = buffer.content.iter().map(|cell| cell.symbol());
            symbols.collect::<String>()
        };
        assert_eq!(text(&plain), text(&coloured));
        let colours = |buffer: &Buffer| {
            let cells = buffer.content.iter();
            cells
                .filter(|it| it.fg != Color::Reset || it.bg != Color::Reset)
                .count()
        };
        assert_eq!(colours(&plain), 0, "{view:?}");
        assert!(colours(&coloured) > 0, "{view:?}");
    }
}
