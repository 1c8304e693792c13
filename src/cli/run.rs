//! `shardwall run`: the appliance.
//!
//! Order of the start: policy, DPDK, ports, listeners, workers, control thread; each step that
//! fails says why, and what was there before it is given back. Order of the end: the control
//! thread says stop, the workers park and drain, the ports close, DPDK goes.

#[cfg(feature = "dpdk")]
pub(super) use appliance::{execute, hugepages_mb};

/// Without ports no memory is taken for them.
#[cfg(not(feature = "dpdk"))]
pub(super) fn hugepages_mb(_policy: &crate::policy::Policy) -> Option<u64> {
    None
}

/// Without the `dpdk` feature there are no ports to run on.
#[cfg(not(feature = "dpdk"))]
#[allow(clippy::print_stderr)] // the command's answer
pub(super) fn execute(_policy: &std::path::Path) -> std::process::ExitCode {
    eprintln!(
        "shardwall run: this binary was built without DPDK (--no-default-features); build it with \
         the default features, or use `shardwall replay`, which needs none"
    );
    std::process::ExitCode::FAILURE
}

#[cfg(feature = "dpdk")]
mod appliance {
    use crate::cli::logging;
    use crate::control::appliance::{Appliance, LinkView, NicStats, Nics, Parts, PortView};
    use crate::control::listeners::Listeners;
    use crate::control::logfile::LogFile;
    use crate::control::thread::Control;
    use crate::dataplane::clock::unix_time;
    use crate::dataplane::dpdk::{
        DpdkError, Eal, EalOptions, Hugepages, Link, PortInfo, PortSpec, Ports, mempool,
        pci_devices,
    };
    use crate::dataplane::idle::Idle;
    use crate::dataplane::launch::{Placement, launch};
    use crate::dataplane::shared::Shared;
    use crate::dataplane::steer::BUCKETS;
    use crate::policy::{self, MAX_PORTS, Policy, PortId, Workers};
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    use std::path::Path;
    use std::process::ExitCode;
    use std::sync::Arc;
    use tracing::{error, info, warn};

    /// Exit code for a policy that is not valid: starting again would not help.
    const WRONG_POLICY: u8 = 2;

    /// Runs the appliance under the policy in the file at `policy` until it is told to stop.
    #[allow(clippy::print_stderr)] // diagnostics underline the policy's text: for people
    pub(in crate::cli) fn execute(policy: &Path) -> ExitCode {
        let mut checked = match policy::load(policy) {
            Ok(checked) => checked,
            Err(errors) => {
                eprintln!("{errors}");
                return ExitCode::from(WRONG_POLICY);
            }
        };
        checked.warn_of_time(unix_time() as u64);
        eprint!("{}", checked.render_warnings());
        let log = logging::init(&checked.model.system.log);
        match run(policy, checked.model, log) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                error!("{error}");
                ExitCode::FAILURE
            }
        }
    }

    type Failed = Box<dyn std::error::Error>;

    fn run(file: &Path, policy: Policy, log: Option<Arc<LogFile>>) -> Result<(), Failed> {
        // First, so that a second appliance ends before it touches a port.
        let listeners = Listeners::bind(&policy.system)?;
        let workers = policy.system.workers.count();
        let mut placement = match &policy.system.workers {
            Workers::Count(_) => Placement::choose(workers),
            Workers::Cores(cores) => {
                let cores: Vec<_> = cores.iter().copied().map(usize::from).collect();
                widen(&cores);
                Placement {
                    cores,
                    idle: Idle::Spin,
                }
            }
        };
        placement.idle = match policy.system.idle {
            policy::Idle::Auto => placement.idle,
            policy::Idle::Spin => Idle::Spin,
            policy::Idle::Yield => Idle::Yield,
            policy::Idle::Sleep => Idle::Sleep,
        };
        let (eal, ports, ios) = open(&policy, workers as u16, &placement)?;
        for port in ports.info() {
            info!(
                port = port.name,
                device = port.device,
                driver = port.driver,
                rx_queues = port.rx_queues,
                tx_queues = port.tx_queues,
                mtu = port.mtu,
                promiscuous = port.promiscuous,
                rss = port.rss.words,
                "port is open"
            );
        }
        let pages = if eal.hugepages() {
            "hugepages"
        } else {
            "ordinary pages"
        };
        info!(workers, cores = ?placement.cores, memory = pages, dpdk = Eal::version(), "starting");
        if placement.idle == Idle::Yield && policy.system.idle == policy::Idle::Auto {
            warn!("there is no core to spare: idle workers yield, and latency suffers");
        }
        let compiled = policy::compile(&policy, 1, workers);
        let registrar = eal.clone();
        let steering = ports.steering().clone();
        let running = launch(compiled, ios, &placement, steering, move || {
            Box::new(
                registrar
                    .register_thread()
                    .inspect_err(|error| error!("{error}")),
            )
        })?;
        keep_off(&placement.cores);
        let ports = Arc::new(ports);
        let appliance = Appliance::new(Parts {
            shared: running.shared.clone(),
            commands: running.commands.clone(),
            file: file.into(),
            policy,
            ports: ports
                .info()
                .iter()
                .enumerate()
                .map(|(i, p)| view(&ports, i, p))
                .collect(),
        })
        .with_log_file(log)
        .with_nics(Devices(ports.clone()));
        let control = Control::start(Arc::new(appliance), listeners, running.log.clone());
        match control {
            Ok(control) => control.join(),
            Err(error) => {
                drop(running.stop());
                return Err(error.into());
            }
        }
        let shared = running.shared.clone();
        drop(running.stop());
        drop(ports);
        drop(eal);
        farewell(&shared);
        Ok(())
    }

    /// DPDK, and the ports of `policy` with one view for each worker.
    fn open(
        policy: &Policy,
        workers: u16,
        placement: &Placement,
    ) -> Result<(Eal, Ports, Vec<crate::dataplane::dpdk::DpdkIo>), DpdkError> {
        let specs = specs(policy);
        debug_assert!(specs.len() <= MAX_PORTS);
        let system = &policy.system;
        let mbufs = mbufs(policy, &specs, workers);
        let mut options = EalOptions {
            worker_cores: placement.cores.clone(),
            hugepages: match system.hugepages {
                policy::Hugepages::Auto => Hugepages::Auto,
                policy::Hugepages::Required => Hugepages::Required,
                policy::Hugepages::Off => Hugepages::Off,
            },
            pci: pci_devices(&specs),
            file_prefix: format!("shardwall-{}", std::process::id()),
            ..EalOptions::default()
        }
        .with_buffers(mbufs, mempool::DATA_ROOM, 1);
        if let Some(memory) = system.memory {
            options.memory_mb = memory;
            options.ordinary_mb = memory;
        }
        let eal = Eal::init(&options)?;
        let (ports, ios) = Ports::open(&eal, &specs, workers, mbufs)?;
        Ok((eal, ports, ios))
    }

    /// The ports of `policy` as they are asked for.
    fn specs(policy: &Policy) -> Vec<PortSpec> {
        let ports = policy.ports.iter().map(|port| PortSpec {
            rx_queues: port.queues,
            mtu: port.mtu,
            promiscuous: port.promiscuous,
            ..PortSpec::new(&port.name, &port.device)
        });
        ports.collect()
    }

    /// Buffers in each pool.
    fn mbufs(policy: &Policy, specs: &[PortSpec], workers: u16) -> u32 {
        let wanted = policy.system.mbufs.unwrap_or(0);
        wanted.max(Ports::most_mbufs(specs, workers))
    }

    /// Hugepages that the appliance takes under `policy`, in MB.
    pub(in crate::cli) fn hugepages_mb(policy: &Policy) -> Option<u64> {
        let workers = policy.system.workers.count() as u16;
        let mbufs = mbufs(policy, &specs(policy), workers);
        let derived = mempool::memory_mb(mbufs, mempool::DATA_ROOM, 1, true);
        Some(policy.system.memory.unwrap_or(derived).into())
    }

    /// Lets this process use these cores too: `isolcpus` takes cores from everybody who does not ask
    /// for them. What is not to be had is told when the workers start.
    fn widen(cores: &[usize]) {
        let Ok(mut set) = sched_getaffinity(None) else {
            return;
        };
        let known = cores.iter().filter(|core| **core < CpuSet::MAX_CPU);
        known.for_each(|core| set.set(*core));
        let _ = sched_setaffinity(None, &set);
    }

    /// Moves this thread, and what it starts from now on, off the workers' cores if there are
    /// others.
    fn keep_off(cores: &[usize]) {
        let Ok(mut set) = sched_getaffinity(None) else {
            return;
        };
        for core in cores {
            set.unset(*core);
        }
        if set.count() > 0 {
            let set: CpuSet = set;
            if let Err(error) = sched_setaffinity(None, &set) {
                warn!("the control thread stays on the workers' cores: {error}");
            }
        }
    }

    fn view(ports: &Ports, at: usize, info: &PortInfo) -> PortView {
        let mac: Vec<String> = info.mac.iter().map(|byte| format!("{byte:02x}")).collect();
        let link = ports.link(PortId(at as u8)).map(link);
        PortView {
            name: info.name.clone(),
            device: info.device.clone(),
            driver: info.driver.clone(),
            mac: mac.join(":"),
            rx_queues: info.rx_queues,
            tx_queues: info.tx_queues,
            link: link.map_or_else(|| "unknown".into(), |link| link.to_string()),
            mtu: info.mtu,
            promiscuous: info.promiscuous,
            rss: info.rss.words.clone(),
        }
    }

    fn link(link: Link) -> LinkView {
        let Link { up, mbps, .. } = link;
        LinkView { up, mbps }
    }

    /// The ports, as the control side asks and tells them.
    struct Devices(Arc<Ports>);

    impl Nics for Devices {
        fn stats(&self, port: usize) -> NicStats {
            let stats = self.0.stats(PortId(port as u8)).unwrap_or_default();
            NicStats {
                missed: stats.imissed,
                rx_errors: stats.ierrors,
                no_buffer: stats.rx_nombuf,
                tx_errors: stats.oerrors,
            }
        }

        fn xstats(&self, port: usize) -> Vec<(String, u64)> {
            self.0.xstats(PortId(port as u8))
        }

        fn link(&self, port: usize) -> Option<LinkView> {
            self.0.link(PortId(port as u8)).map(link)
        }

        fn gone(&self, port: usize) -> Option<String> {
            self.0.gone(PortId(port as u8)).map(str::to_owned)
        }

        fn spread(&self, owners: &[u8; BUCKETS]) {
            self.0.spread(owners);
        }
    }

    /// The balance, at rest: what came in went out, or was dropped for a reason that has a name.
    fn farewell(shared: &Shared) {
        let sum = |of: fn(&crate::pipeline::Counters) -> u64| -> u64 {
            shared.workers.iter().map(|worker| of(&worker.path)).sum()
        };
        let received = sum(|path| path.received.get());
        let forwarded = sum(|path| path.forwarded.get());
        let punted = sum(|path| path.punted.get());
        let dropped = sum(|path| path.dropped_total());
        let held = sum(|path| path.held.get());
        info!(received, forwarded, dropped, punted, held, "stopped");
        if received != forwarded + dropped + punted + held {
            error!("the balance does not close: this is a bug");
        }
    }
}
