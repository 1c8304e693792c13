//! `top`: what the appliance does now, live on a terminal, or interval by interval for programs.
//!
//! Life-cycle: the appliance is asked once, so that an error is said as any command says it; then the
//! terminal is taken ([`Screen`]), and given back however this ends: by a key, a signal, an error or a
//! panic. If the appliance goes away, `top` stays and tries again. Concurrency: one thread asks the
//! appliance, one reads keys, one waits for signals; each sends events, and the main thread alone has
//! the state and draws. A connection serves one look, so that an appliance started anew needs no care.

pub mod columns;
pub mod keys;
pub mod state;
pub mod view;

mod batch;
#[cfg(test)]
mod tests;

use super::args::{Format, TopArgs};
use super::output::Output;
use crate::base::time::Now;
use crate::control::overview::Overview;
use crate::control::{Client, ClientError, Request};
use crate::dataplane::clock::Clock;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event as Input};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::{Frame, Terminal};
use state::{Link, State};
use std::io::{self, IsTerminal, Stdout, stdout};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use view::Look;

/// From the first look to the second, unless the interval is shorter: nobody waits long for a screen.
const FIRST: Duration = Duration::from_millis(250);
/// How long an answer may take before the screen says so.
const SLOW: Duration = Duration::from_secs(3);
/// From one try to reach an appliance that is gone to the next.
const AGAIN: Duration = Duration::from_secs(1);

/// What the main thread waits for.
enum Event {
    /// The terminal: a key, another size.
    Input(Input),
    /// The appliance's answer.
    Answer(Result<Box<Overview>, ClientError>),
    /// The end: a signal, or a terminal that is gone.
    End,
}

/// Does what the options say.
pub(super) fn execute(args: &TopArgs, socket: &Path, format: Format) -> ExitCode {
    if args.count.is_some() || format == Format::Json || !stdout().is_terminal() {
        return Output::standard(format, |out| batch::execute(args, socket, out));
    }
    let first = match ask(socket, 0) {
        Ok(first) => first,
        Err(error) => return Output::standard(format, |_| Err(error.into())),
    };
    match live(args, socket, first) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => Output::standard(format, |out| {
            writeln!(out.err, "shardwall: cannot use the terminal: {error}")?;
            Err(super::output::Failure::Told)
        }),
    }
}

/// One look; a census of the flows is wanted for `census_secs` seconds.
fn ask(socket: &Path, census_secs: u64) -> Result<Box<Overview>, ClientError> {
    let request = Request::Overview { census_secs };
    Client::connect(socket)?.one(&request).map(Box::new)
}

/// A terminal that is drawn on, and given back at the end.
#[derive(Debug)]
pub struct Screen(Terminal<CrosstermBackend<Stdout>>);

impl Screen {
    /// Takes the terminal, until this is dropped or somebody panics: what they say comes after.
    pub fn take() -> io::Result<Self> {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
        enable_raw_mode()?;
        // From here on there is something to be given back.
        let taken = execute!(stdout(), EnterAlternateScreen)
            .and_then(|()| Terminal::new(CrosstermBackend::new(stdout())));
        taken.map(Self).inspect_err(|_| give_back())
    }

    fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.0.draw(draw).map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// As well as it can be done: where the terminal is gone, there is nothing to be told.
fn give_back() {
    let _ = execute!(stdout(), LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
}

/// What this terminal can show, as far as the environment says.
fn look() -> Look {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = set("LC_ALL")
        .or_else(|| set("LC_CTYPE"))
        .or_else(|| set("LANG"));
    let locale = locale.unwrap_or_default().to_ascii_lowercase();
    Look {
        colour: set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb"),
        unicode: locale.contains("utf-8") || locale.contains("utf8"),
    }
}

/// The live view, until it is ended.
fn live(args: &TopArgs, socket: &Path, first: Box<Overview>) -> io::Result<()> {
    let (events, happened) = unbounded();
    let asking = start_asking(socket, events.clone())?;
    start_signals(events.clone())?;
    let screen = Screen::take()?;
    std::thread::Builder::new()
        .name("top-keys".into())
        .spawn(move || {
            while let Ok(input) = event::read() {
                if events.send(Event::Input(input)).is_err() {
                    return;
                }
            }
            let _ = events.send(Event::End);
        })?;
    let mut state = State::new(args.interval);
    state.take(*first);
    let clock = Clock::start();
    Live {
        screen,
        socket,
        state,
        look: look(),
        asking,
        asked: None,
        due: after(clock.now(), FIRST.min(args.interval)),
        lost: None,
        clock,
    }
    .run(&happened)
}

/// The live view: the state, and when to ask again.
struct Live<'a> {
    screen: Screen,
    socket: &'a Path,
    state: State,
    look: Look,
    clock: Clock,
    asking: Sender<u64>,
    /// Since when an answer is awaited.
    asked: Option<Now>,
    /// When to ask next.
    due: Now,
    /// Since when the appliance cannot be asked.
    lost: Option<Now>,
}

impl Live<'_> {
    fn run(mut self, happened: &Receiver<Event>) -> io::Result<()> {
        loop {
            self.ask();
            let (state, look) = (&self.state, self.look);
            let mut page = 0;
            self.screen
                .draw(|frame| page = view::draw(state, look, frame.area(), frame.buffer_mut()))?;
            self.state.page = page;
            let event = match happened.recv_timeout(self.nap()) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            // What has come meanwhile is taken in before the next drawing.
            for event in std::iter::once(event).chain(happened.try_iter()) {
                if self.handle(event).is_break() {
                    return Ok(());
                }
            }
        }
    }

    /// Asks if it is time to, and says how long there was no answer.
    fn ask(&mut self) {
        let now = self.clock.now();
        if self.asked.is_none() && now >= self.due {
            // It has room for one, and the last one was answered.
            let _ = self.asking.try_send(self.state.census_secs());
            self.asked = Some(now);
        }
        if let Some(lost) = self.lost {
            if let Link::Lost { secs, .. } = &mut self.state.link {
                *secs = seconds(lost, now);
            }
        } else if let Some(asked) = self.asked {
            let waited = seconds(asked, now);
            if waited >= SLOW.as_secs() {
                self.state.link = Link::Slow(waited);
            }
        }
    }

    /// How long nothing needs to be done, if nothing happens.
    fn nap(&self) -> Duration {
        let second = Duration::from_secs(1);
        match self.asked {
            Some(_) => second,
            None => {
                let left = self.due.nanos().saturating_sub(self.clock.now().nanos());
                Duration::from_nanos(left).min(second)
            }
        }
    }

    fn handle(&mut self, event: Event) -> ControlFlow<()> {
        let now = self.clock.now();
        match event {
            Event::End => return ControlFlow::Break(()),
            Event::Input(Input::Key(key)) => {
                let Some(action) = keys::action(key) else {
                    return ControlFlow::Continue(());
                };
                let (census, interval) = (self.state.census_secs(), self.state.interval);
                self.state.act(action)?;
                // At once what was not asked for before.
                let wants_more = census == 0 && self.state.census_secs() > 0;
                if self.asked.is_none() && (wants_more || self.state.interval != interval) {
                    let soon = after(now, FIRST.min(self.state.interval));
                    self.due = self.due.min(soon);
                }
            }
            // The next drawing sees the size.
            Event::Input(_) => {}
            Event::Answer(Ok(overview)) => {
                // Another one asks for rates soon, as the first did.
                let interval = match self.lost.take() {
                    Some(_) => FIRST.min(self.state.interval),
                    None => self.state.interval,
                };
                // Counted from when it was asked, so that the intervals are as long as they say.
                let asked = self.asked.take().unwrap_or(now);
                self.due = after(asked, interval).max(now);
                self.state.take(*overview);
            }
            Event::Answer(Err(error)) => {
                self.asked = None;
                let lost = *self.lost.get_or_insert(now);
                self.due = after(now, AGAIN);
                let why = self.why(&error);
                self.state.lose(why, seconds(lost, now));
            }
        }
        ControlFlow::Continue(())
    }

    /// In few words.
    fn why(&self, error: &ClientError) -> String {
        let socket = self.socket.display();
        match error {
            ClientError::NotRunning(_) | ClientError::Lost { .. } => {
                format!("nothing answers at {socket}")
            }
            ClientError::Denied(_) => format!("permission denied: {socket}"),
            error => error.to_string(),
        }
    }
}

fn after(now: Now, span: Duration) -> Now {
    Now::from_nanos(now.nanos().saturating_add(span.as_nanos() as u64))
}

fn seconds(from: Now, to: Now) -> u64 {
    to.nanos().saturating_sub(from.nanos()) / 1_000_000_000
}

/// Starts the thread that asks, each time it is told for how long a census is wanted.
fn start_asking(socket: &Path, events: Sender<Event>) -> io::Result<Sender<u64>> {
    let (sender, asked) = bounded(1);
    let socket = socket.to_owned();
    let thread = std::thread::Builder::new().name("top-asks".into());
    thread.spawn(move || {
        for census_secs in asked {
            if events
                .send(Event::Answer(ask(&socket, census_secs)))
                .is_err()
            {
                return;
            }
        }
    })?;
    Ok(sender)
}

/// Starts the thread that makes of signals that would end the process an event.
fn start_signals(events: Sender<Event>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let [mut interrupt, mut terminate, mut hangup] = {
        let _inside = runtime.enter();
        [
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]
    };
    let thread = std::thread::Builder::new().name("top-signals".into());
    thread.spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        let _ = events.send(Event::End);
    })?;
    Ok(())
}
