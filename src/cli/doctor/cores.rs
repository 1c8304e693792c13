//! Cores: that those of the workers are there, their own, near their NICs and at full speed; and the
//! clock that every burst reads.

use super::site::{Site, cpu_list, parse_cpus};
use super::{Finding, counted, fail, ok, warn};

const CPU: &str = "sys/devices/system/cpu";
const CLOCK: &str = "sys/devices/system/clocksource/clocksource0";

/// Whether the workers' cores are there, and enough.
pub(super) fn cores(site: &Site<'_>) -> Vec<Finding> {
    let (online, allowed) = (site.cpus(&format!("{CPU}/online")), site.allowed());
    let count = online.len();
    let Some(policy) = site.policy else {
        let text = format!("{count} are there");
        return vec![match count {
            0 | 1 => warn(
                text + ": workers would share it with everything else",
                "give the box two cores or more",
            ),
            _ => ok(text),
        }];
    };
    let (workers, cores) = (policy.system.workers.count(), site.cores());
    let list = cpu_list(&cores);
    let missing: Vec<_> = cores
        .iter()
        .copied()
        .filter(|core| !online.contains(core))
        .collect();
    let text = format!(
        "{} on {list} of {}",
        counted(workers, "worker"),
        cpu_list(&online)
    );
    let mut seen = cores.clone();
    seen.sort_unstable();
    seen.dedup();
    let cpusets = "a container's cpuset, or the unit's AllowedCPUs=, keeps the others from it";
    vec![match () {
        () if !missing.is_empty() => fail(
            format!("{text}: there is no core {}", cpu_list(&missing)),
            "name cores that are there in `system: { cores: [...] }` of the policy",
        ),
        () if seen.len() < workers => fail_or_share(site, text),
        () if seen.len() >= count => warn(
            text + ": none is left for the control thread, the kernel and you",
            "fewer `workers` in `system` of the policy, or `idle: yield`",
        ),
        () if allowed.len() < count && allowed.len() <= workers => warn(
            format!("{text}; from here only {} may be used", cpu_list(&allowed)),
            cpusets,
        ),
        () => ok(text),
    }]
}

fn fail_or_share(site: &Site<'_>, text: String) -> Finding {
    let text = text + ": workers share cores";
    match site.shares_cores() {
        true => ok(text + ", and yield or sleep"),
        false => warn(text, "fewer `workers` in `system` of the policy"),
    }
}

/// Whether the scheduler, its tick and RCU leave the workers' cores alone.
pub(super) fn isolation(site: &Site<'_>) -> Vec<Finding> {
    let isolated = site.cpus(&format!("{CPU}/isolated"));
    let no_tick = site.cpus(&format!("{CPU}/nohz_full"));
    let rcu = site.boot_option("rcu_nocbs");
    let cores = site.cores();
    if site.policy.is_none() {
        return vec![match isolated.is_empty() {
            true => ok("no core is isolated; -c POLICY says which ones would be worth it"),
            false => ok(format!("cores {} are isolated", cpu_list(&isolated))),
        }];
    }
    if site.shares_cores() {
        return vec![ok("workers leave their cores to others (`system.idle`)")];
    }
    let list = cpu_list(&cores);
    let set = |what: &str| {
        format!(
            "{what} to GRUB_CMDLINE_LINUX in /etc/default/grub, update-grub, reboot; and name them in the \
             policy: `system: {{ cores: [{}] }}`",
            cores
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", ")
        )
    };
    let all = format!("add `isolcpus={list} nohz_full={list} rcu_nocbs={list}`");
    let lacks = |have: &[usize]| cores.iter().any(|core| !have.contains(core));
    vec![match () {
        () if lacks(&isolated) => warn(
            format!("cores {list} of the workers also run what the scheduler gives them"),
            set(&all),
        ),
        // With nohz_full, RCU's callbacks are moved away as well.
        () if lacks(&no_tick) => warn(
            format!("cores {list} of the workers are isolated, but take timer ticks"),
            set(&format!("add `nohz_full={list} rcu_nocbs={list}`")),
        ),
        () => ok(format!(
            "cores {list} are isolated, without ticks{}",
            if rcu.is_some() {
                " and RCU callbacks"
            } else {
                ""
            }
        )),
    }]
}

/// irqbalance deals interrupts out to cores, the workers' among them.
pub(super) fn interrupts(site: &Site<'_>) -> Vec<Finding> {
    if !site.runs("irqbalance") {
        return vec![ok("irqbalance does not run")];
    }
    let cores = site.cores();
    let isolated = site.cpus(&format!("{CPU}/isolated"));
    let settings = site.text("etc/default/irqbalance").unwrap_or_default();
    let banned = settings
        .lines()
        .find_map(|line| line.trim().strip_prefix("IRQBALANCE_BANNED_CPULIST="));
    let banned = banned
        .map(|list| parse_cpus(list.trim_matches('"')))
        .unwrap_or_default();
    let free = |core: &usize| isolated.contains(core) || banned.contains(core);
    vec![match () {
        () if cores.is_empty() => ok("irqbalance runs; it leaves isolated cores alone"),
        () if cores.iter().all(free) => ok("irqbalance runs, and leaves the workers' cores alone"),
        () => warn(
            format!(
                "irqbalance gives interrupts to the workers' cores {}",
                cpu_list(&cores)
            ),
            format!(
                "IRQBALANCE_BANNED_CPULIST={} in /etc/default/irqbalance, systemctl restart irqbalance",
                cpu_list(&cores)
            ),
        ),
    }]
}

/// Whether ports and cores are on one NUMA node.
pub(super) fn numa(site: &Site<'_>) -> Vec<Finding> {
    let nodes = site.nodes();
    if nodes.len() < 2 {
        return vec![ok("one node")];
    }
    let cores = site.cores();
    let mut of_cores: Vec<_> = cores
        .iter()
        .filter_map(|core| site.node_of_cpu(*core))
        .collect();
    of_cores.sort_unstable();
    of_cores.dedup();
    let far = site.pci_ports().into_iter().filter_map(|(name, address)| {
        let node = site.node_of_pci(&address)?;
        if of_cores.is_empty() || of_cores == [node] {
            return None;
        }
        let (_, near) = nodes.iter().find(|(number, _)| *number == node)?;
        let others: Vec<_> = cores
            .iter()
            .copied()
            .filter(|core| !near.contains(core))
            .collect();
        Some(warn(
            format!(
                "port `{name}` is on node {node}, and the workers' cores {} are not",
                cpu_list(&others)
            ),
            format!(
                "`system: {{ cores: [...] }}` in the policy, with cores of {}",
                cpu_list(near)
            ),
        ))
    });
    let mut findings: Vec<_> = far.collect();
    if findings.is_empty() {
        let list = |nodes: &[usize]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>();
        findings.push(ok(match of_cores.is_empty() {
            true => format!("{} nodes", nodes.len()),
            false => format!(
                "{} nodes; workers are on {}, and so are their NICs",
                nodes.len(),
                list(&of_cores).join(" and ")
            ),
        }));
    }
    findings
}

/// Whether a worker shares its core's units with somebody.
pub(super) fn smt(site: &Site<'_>) -> Vec<Finding> {
    if site.text(&format!("{CPU}/smt/active")).as_deref() != Some("1") {
        return vec![ok("no core has two threads")];
    }
    let cores = site.cores();
    let isolated = site.cpus(&format!("{CPU}/isolated"));
    let siblings = |core: usize| {
        let mut all = site.cpus(&format!("{CPU}/cpu{core}/topology/thread_siblings_list"));
        all.retain(|other| *other != core);
        all
    };
    let both: Vec<_> = cores
        .iter()
        .copied()
        .filter(|core| siblings(*core).iter().any(|other| cores.contains(other)))
        .collect();
    let others: Vec<_> = cores.iter().flat_map(|core| siblings(*core)).collect();
    let busy: Vec<_> = others
        .iter()
        .copied()
        .filter(|other| !isolated.contains(other))
        .collect();
    vec![match () {
        () if cores.is_empty() => ok("cores have two threads; give workers one of each"),
        () if !both.is_empty() => warn(
            format!("workers on {} share a core, two by two", cpu_list(&both)),
            "`system: { cores: [...] }` in the policy, with one thread of each core \
             (lscpu -e shows which are which)",
        ),
        () if !busy.is_empty() => warn(
            format!("what runs on {} shares the workers' cores", cpu_list(&busy)),
            format!(
                "isolate {} too, or: echo off > /{CPU}/smt/control",
                cpu_list(&busy)
            ),
        ),
        () => ok("the second threads of the workers' cores are idle"),
    }]
}

/// Whether the workers' cores run at full speed.
pub(super) fn governor(site: &Site<'_>) -> Vec<Finding> {
    let mut cores = site.cores();
    if cores.is_empty() {
        cores = site.cpus(&format!("{CPU}/online"));
    }
    let of = |core: &usize| site.text(&format!("{CPU}/cpu{core}/cpufreq/scaling_governor"));
    let slow = cores
        .iter()
        .find_map(|core| Some((*core, of(core).filter(|name| name != "performance")?)));
    vec![match slow {
        Some((core, name)) => warn(
            format!("core {core} is under `{name}`: it may be slow when packets come"),
            "cpupower frequency-set -g performance (package linux-cpupower)",
        ),
        None if cores.iter().any(|core| of(core).is_some()) => ok("performance"),
        None => ok("the kernel does not set the frequency here"),
    }]
}

/// Whether reading the clock is cheap: it is read once a burst.
pub(super) fn clock(site: &Site<'_>) -> Vec<Finding> {
    let Some(current) = site.text(&format!("{CLOCK}/current_clocksource")) else {
        return vec![warn(
            "the kernel does not say by what it tells the time",
            "mount sysfs: /sys/devices/system/clocksource is missing",
        )];
    };
    let others = site.text(&format!("{CLOCK}/available_clocksource"));
    let has_tsc = others.is_some_and(|all| all.split(' ').any(|name| name == "tsc"));
    vec![match current.as_str() {
        "tsc" | "arch_sys_counter" => ok(current),
        // Read without the kernel's help too.
        "kvm-clock" | "hyperv_clocksource_tsc_page" => ok(format!("{current}, the hypervisor's")),
        _ if has_tsc && site.cpu_flag("nonstop_tsc") => warn(
            format!("{current}: every reading asks the kernel"),
            format!("echo tsc > /{CLOCK}/current_clocksource"),
        ),
        _ => warn(
            format!("{current}: every reading asks the kernel"),
            "`tsc=reliable` on the kernel's command line, if the processor's counter never stops",
        ),
    }]
}
