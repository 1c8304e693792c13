//! Says what of a new policy a reload cannot change: ports are opened and workers are started once.
//!
//! A pure comparison of two models.

use std::net::SocketAddr;

use super::model::{Hugepages, Idle, LogTo, Policy, System, Workers};

/// What of `new` takes effect only after a restart, in words; empty if a reload does all.
pub fn restart_needed(old: &Policy, new: &Policy) -> Vec<String> {
    let mut needed = Vec::new();
    let names = |policy: &Policy| {
        policy
            .ports
            .iter()
            .map(|port| port.name.clone())
            .collect::<Vec<_>>()
            .join(", ")
    };
    if names(old) != names(new) {
        needed.push(format!("ports: {} became {}", names(old), names(new)));
    } else {
        for (before, after) in old.ports.iter().zip(&new.ports) {
            let name = &before.name;
            if before.device != after.device {
                let (before, after) = (&before.device, &after.device);
                needed.push(format!("ports.{name}.device: {before} became {after}"));
            }
            if before.queues != after.queues {
                let show = |queues: Option<u16>| queues.map_or("auto".into(), |n| n.to_string());
                let (before, after) = (show(before.queues), show(after.queues));
                needed.push(format!("ports.{name}.queues: {before} became {after}"));
            }
            if before.mtu != after.mtu {
                let show = |mtu: Option<u16>| mtu.map_or("auto".into(), |n| n.to_string());
                let (before, after) = (show(before.mtu), show(after.mtu));
                needed.push(format!("ports.{name}.mtu: {before} became {after}"));
            }
            if before.promiscuous != after.promiscuous {
                let (before, after) = (before.promiscuous, after.promiscuous);
                needed.push(format!("ports.{name}.promiscuous: {before} became {after}"));
            }
        }
    }
    let mut differs = |key: &str, before: String, after: String| {
        if before != after {
            needed.push(format!("system.{key}: {before} became {after}"));
        }
    };
    let workers = |system: &System| match &system.workers {
        Workers::Count(count) => format!("{count} workers"),
        Workers::Cores(cores) => {
            let cores: Vec<_> = cores.iter().map(u16::to_string).collect();
            format!("cores {}", cores.join(", "))
        }
    };
    let number = |value: Option<u32>| value.map_or("auto".into(), |n| n.to_string());
    let hugepages = |value: Hugepages| format!("{value:?}").to_lowercase();
    let metrics = |value: Option<SocketAddr>| value.map_or("off".into(), |addr| addr.to_string());
    let (before, after) = (&old.conntrack, &new.conntrack);
    let (old, new) = (&old.system, &new.system);
    differs("workers", workers(old), workers(new));
    let idle = |value: Idle| format!("{value:?}").to_lowercase();
    differs("idle", idle(old.idle), idle(new.idle));
    differs(
        "hugepages",
        hugepages(old.hugepages),
        hugepages(new.hugepages),
    );
    differs("metrics", metrics(old.metrics), metrics(new.metrics));
    let page = |system: &System| format!("{:?}", system.status_page).to_lowercase();
    differs("status-page", page(old), page(new));
    differs(
        "socket",
        old.socket.display().to_string(),
        new.socket.display().to_string(),
    );
    let log = |system: &System| match &system.log {
        LogTo::Stderr => "stderr".to_owned(),
        LogTo::Journal => "journal".to_owned(),
        LogTo::File(path) => path.display().to_string(),
    };
    differs("log", log(old), log(new));
    differs("mbufs", number(old.mbufs), number(new.mbufs));
    differs("memory", number(old.memory), number(new.memory));
    if before.expect_max != after.expect_max {
        let (before, after) = (before.expect_max, after.expect_max);
        needed.push(format!("conntrack.expect_max: {before} became {after}"));
    }
    needed
}
