//! Flows, expectations and events as conntrack(8) 1.4.7 prints them, byte for byte: its lines, its options
//! (`-o save`) and its XML. The daemon writes listings with this, so that a client only copies them; a
//! client what comes to it as records.
//!
//! The golden lines in the command line's tests are what the real program printed for flows of Linux.
//! Pure, but for the time zone, which a [`Printer`] learns when it is made.

mod expectation;
mod line;
mod pen;
mod save;
mod xml;

use crate::conntrack::event::Kind;
use crate::conntrack::record::{Detail, Endpoints, ExpectRecord, FlowRecord};
use crate::control::protocol::{Change, EventRecord, Shown};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use pen::Pen;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Style {
    /// In which form.
    pub form: Form,
    /// Lines with the address family in front (`-o extended`).
    pub extended: bool,
    /// Lines with the flow's number at the end (`-o id`); XML always has it.
    pub id: bool,
    /// With the dates of start and end (`-o ktimestamp`), in lines by the local time of the printer.
    pub ktimestamp: bool,
    /// Events with their time (`-o timestamp`).
    pub timestamp: bool,
}

/// In which form flows are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// One line each.
    #[default]
    Line,
    /// As the options that would make them.
    Save,
    /// As XML elements.
    Xml,
}

/// What conntrack(8) is told of a flow, and prints, depends on why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// In a listing, at a time in seconds since 1970.
    Listed(u64),
    /// The one that was asked for, at such a time: the kernel holds it meanwhile.
    Got(u64),
    /// In a listing of those that were ended, at such a time.
    Deleted(u64),
    /// In an event about a flow that lives; with what is new of it.
    Event {
        /// The state of TCP or SCTP.
        state: bool,
        /// The mark, which is shown even if it is 0 now.
        mark: bool,
    },
    /// At its end: the timeout only if time was left.
    End,
}

impl Show {
    /// When it is listed.
    fn listed(self) -> Option<u64> {
        match self {
            Show::Listed(now) | Show::Got(now) | Show::Deleted(now) => Some(now),
            Show::Event { .. } | Show::End => None,
        }
    }

    /// How many hold the flow, where that is said.
    fn uses(self) -> Option<u8> {
        match self {
            Show::Listed(_) | Show::Deleted(_) => Some(1),
            Show::Got(_) => Some(2),
            Show::Event { .. } | Show::End => None,
        }
    }
}

/// Prints in one style.
#[derive(Clone, Debug)]
pub struct Printer {
    style: Style,
    /// Where lines have dates.
    zone: Option<TimeZone>,
}

impl Printer {
    /// Of `style`, with dates as in the zone of this process.
    pub fn new(style: Style) -> Self {
        let dated = style.ktimestamp && style.form == Form::Line;
        let zone = dated.then(TimeZone::system);
        Self { style, zone }
    }

    /// Appends `flow` and a newline.
    pub fn flow(&self, out: &mut Vec<u8>, flow: &FlowRecord, show: Show) {
        let verb = match show {
            Show::Deleted(_) => "-D",
            _ => "-A",
        };
        self.write(&mut Pen(out), flow, show, verb, ("<flow>", None));
        out.push(b'\n');
    }

    /// Appends an expectation and a newline; `now` is microseconds since 1970.
    pub fn expectation(&self, out: &mut Vec<u8>, it: &ExpectRecord, now: u64) {
        self.write_expectation(&mut Pen(out), it, now, ("", "<flow>"));
        out.push(b'\n');
    }

    /// Appends an event and a newline.
    pub fn event(&self, out: &mut Vec<u8>, event: &EventRecord) {
        let changed = |what| event.changed.contains(&what);
        let (show, word, verb, open) = match event.event {
            Kind::New | Kind::Expected => {
                let (state, mark) = (true, false);
                let show = Show::Event { state, mark };
                (show, "    [NEW] ", "-A", "<flow type=\"new\">")
            }
            Kind::Update => {
                let (state, mark) = (changed(Change::State), changed(Change::Mark));
                let show = Show::Event { state, mark };
                (show, " [UPDATE] ", "-U", "<flow type=\"update\">")
            }
            Kind::Destroy | Kind::Unexpected => {
                (Show::End, "[DESTROY] ", "-D", "<flow type=\"destroy\">")
            }
        };
        let pen = &mut Pen(out);
        match &event.subject {
            Shown::Flow(flow) => {
                if self.style.form == Form::Line {
                    if self.style.timestamp {
                        let (secs, micros) = split(event.time_us);
                        pen.word(&format!("[{secs:08}.{micros:06}]\t"));
                    }
                    pen.word(word);
                }
                let when = self.when(event.time_us);
                self.write(pen, flow, show, verb, (open, when.as_ref()));
            }
            Shown::Expectation(it) => {
                self.write_expectation(pen, it, event.time_us, (word, open));
            }
        }
        out.push(b'\n');
    }

    fn write(
        &self,
        pen: &mut Pen<'_>,
        flow: &FlowRecord,
        show: Show,
        verb: &str,
        element: (&str, Option<&Zoned>),
    ) {
        match self.style.form {
            Form::Line => line::write(pen, flow, self, show),
            Form::Save => save::write(pen, flow, verb, show),
            Form::Xml => xml::flow(pen, flow, self, show, element),
        }
    }

    /// Without the newline. There is no other form than lines and XML.
    fn write_expectation(
        &self,
        pen: &mut Pen<'_>,
        it: &ExpectRecord,
        time_us: u64,
        (word, open): (&str, &str),
    ) {
        if self.style.form == Form::Xml {
            let when = self.when(time_us);
            return xml::expectation(pen, it, (open, when.as_ref()));
        }
        if self.style.timestamp {
            // Filled up behind, as the program does here.
            let (secs, micros) = split(time_us);
            pen.word(&format!("[{secs:<8}.{micros:<6}]\t"));
        }
        pen.word(word);
        expectation::write(pen, it);
    }

    /// The local time where XML says it.
    fn when(&self, time_us: u64) -> Option<Zoned> {
        let wanted = self.style.timestamp && self.style.form == Form::Xml;
        let time = wanted.then(|| Timestamp::from_microsecond(time_us as i64).ok())??;
        Some(time.to_zoned(TimeZone::system()))
    }
}

/// A flow as one line, without the newline.
#[derive(Clone, Copy, Debug)]
pub struct FlowLine<'a> {
    /// The flow.
    pub flow: &'a FlowRecord,
    /// What for.
    pub show: Show,
}

impl fmt::Display for FlowLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = Vec::new();
        Printer::new(Style::default()).flow(&mut line, self.flow, self.show);
        f.write_str(String::from_utf8_lossy(line.trim_ascii_end()).as_ref())
    }
}

/// The flow's state, where it is told.
fn state(flow: &FlowRecord, show: Show) -> Option<&'static str> {
    let tcp = flow.tcp_state.map(|state| state.name());
    let state = tcp.or_else(|| flow.sctp_state.map(|state| state.name()));
    state.filter(|_| !matches!(show, Show::Event { state: false, .. }))
}

/// The flow's mark, where it is told.
fn mark(flow: &FlowRecord, show: Show) -> Option<u32> {
    let marked = matches!(show, Show::Event { mark: true, .. });
    (show.listed().is_some() || marked || flow.mark != 0).then_some(flow.mark)
}

/// Seconds from start to stop, or to now, counted as conntrack(8) does: each rounded down first.
fn age(flow: &FlowRecord, show: Show) -> Option<u64> {
    let stop = flow.stop_ms.map(|stop| stop / 1000).or(show.listed())?;
    flow.start_ms.map(|start| stop.saturating_sub(start / 1000))
}

/// A date as ctime(3) writes it.
fn date(zone: &TimeZone, millis: u64) -> String {
    match Timestamp::from_millisecond(millis as i64) {
        Ok(time) => {
            let time = time.to_zoned(zone.clone());
            time.strftime("%a %b %e %H:%M:%S %Y").to_string()
        }
        Err(_) => String::new(),
    }
}

/// Seconds and the microseconds behind them.
fn split(micros: u64) -> (u64, u64) {
    (micros / 1_000_000, micros % 1_000_000)
}

/// What counts of an expectation's addresses and ports.
fn masks(it: &ExpectRecord) -> Endpoints {
    Endpoints {
        src: mask_of(it.expected.src, !it.any_src),
        dst: mask_of(it.expected.dst, true),
        detail: Detail::Ports {
            sport: if it.any_sport { 0 } else { u16::MAX },
            dport: u16::MAX,
        },
    }
}

/// The mask of an address like `addr` that counts, or does not.
fn mask_of(addr: IpAddr, counts: bool) -> IpAddr {
    match (addr, counts) {
        (IpAddr::V4(_), true) => Ipv4Addr::BROADCAST.into(),
        (IpAddr::V4(_), false) => Ipv4Addr::UNSPECIFIED.into(),
        (IpAddr::V6(_), true) => Ipv6Addr::from_bits(u128::MAX).into(),
        (IpAddr::V6(_), false) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
