//! The control side: reload, the API socket, metrics, signals, log lines.
//!
//! One thread ([`thread`]) serves all of it. It reads what workers count, publishes policies to
//! them, and asks them for flows through their mailboxes; it holds nothing that a worker ever
//! waits for. What takes long (a listing, a flush, a reload) runs on helper threads, so that
//! metrics and the socket answer meanwhile.

pub mod api;
pub mod appliance;
pub mod census;
pub mod client;
mod diff;
pub mod drops;
pub mod events;
mod explain;
pub mod filter;
pub mod flows;
pub mod listeners;
pub mod logfile;
pub mod metrics;
pub mod overview;
pub mod protocol;
pub mod rebalance;
pub mod render;
pub mod snapshot;
pub mod status;
pub mod thread;
pub mod trace;
pub mod watch;

mod health;
mod links;
mod movers;
mod pressure;
mod removal;
mod systemd;
mod web;

#[cfg(test)]
pub(crate) mod testbed;
#[cfg(test)]
mod tests;

pub use appliance::{
    Appliance, LinkView, NicStats, Nics, Parts, PortView, ReloadError, ReloadReport,
};
pub use client::{Client, ClientError};
pub use diff::{DiffError, DiffReport};
pub use listeners::{Listeners, StartError};
pub use protocol::Request;
pub use thread::Control;
