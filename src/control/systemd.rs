//! What the service manager is told. Without one (no NOTIFY_SOCKET) all of this does nothing.
//!
//! Concurrency: each notification is one datagram; any thread may send.

use super::appliance::{Appliance, ReloadError, ReloadReport};
use crate::policy::ReloadMode;
use sd_notify::NotifyState;
use std::path::Path;

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "cannot notify the service manager");
    }
}

/// The appliance works.
pub(super) fn ready(appliance: &Appliance) {
    notify(&[NotifyState::Ready, NotifyState::Status(&text(appliance))]);
}

/// It ends.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// What `systemctl status` shows.
pub(super) fn status(appliance: &Appliance) {
    notify(&[NotifyState::Status(&text(appliance))]);
}

/// Every worker comes round.
pub(super) fn alive() {
    notify(&[NotifyState::Watchdog]);
}

fn text(appliance: &Appliance) -> String {
    let workers = appliance.shared().workers.len();
    let flows = appliance.count();
    let limit = appliance.limit();
    let generation = appliance.generation();
    let s = if workers == 1 { "" } else { "s" };
    format!("{workers} worker{s}, {flows} of {limit} flows, policy generation {generation}")
}

/// Reloads, tells the service manager, and logs what came of it.
pub(super) fn reload(
    appliance: &Appliance,
    path: Option<&Path>,
    mode: Option<ReloadMode>,
) -> Result<ReloadReport, ReloadError> {
    // Both in one datagram, or systemd takes them for a reload without an end.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "cannot read the monotonic clock"),
    }
    appliance.reopen_log();
    let result = appliance.reload_with(path, mode);
    let file = path.unwrap_or(appliance.file()).display();
    match &result {
        Ok(report) => {
            let (generation, rules) = (report.generation, report.rules);
            let (flows, ended) = (report.mode.name(), report.flows_ended);
            tracing::info!(%file, generation, rules, flows, ended, "policy reloaded");
            for difference in &report.restart_needed {
                tracing::warn!("takes effect only after a restart: {difference}");
            }
        }
        Err(error) => tracing::error!(%file, "{error}"),
    }
    ready(appliance);
    result
}
