//! Those who forward between two namespaces, or two links: real sockets on both sides.

use crate::{Lane, Outcome, Round, await_it, measure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use shardwall::cli::lab::{INSIDE, Lab, Namespace, OUTSIDE, pause, remove_leftovers, run as call};
use shardwall::dataplane::clock::Clock;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How the names of the namespaces begin.
const KIND: &str = "lt";
const PORT: u16 = 7777;

const RULES: &str = "
chains:
  forward:
    policy: drop
    rules:
      - { name: known, ct: [established, related], action: accept }
      - { name: broken, ct: invalid, action: drop }
      - { name: outbound, iif: lan, ct: new, action: accept }
";

const NFT: &str = "table inet bench {
  chain forward {
    type filter hook forward priority 0; policy drop;
    ct state established,related accept
    ct state invalid drop
    iifname \"lan\" ct state new accept
  }
}
";

/// The appliance; `None` where it was built without DPDK.
pub(crate) fn binary() -> Option<&'static Path> {
    cfg!(feature = "dpdk").then(|| Path::new(env!("CARGO_BIN_EXE_shardwall")))
}

/// A socket on either side.
struct Sockets([UdpSocket; 2]);

impl Sockets {
    /// Sockets with addresses `ends` in the two namespaces.
    fn new(names: [&str; 2], ends: [&str; 2]) -> Outcome<Self> {
        let one = |side: usize| -> Outcome<UdpSocket> {
            let place = File::open(format!("/run/netns/{}", names[side]))?;
            // A thread keeps the namespace that it entered, so this one goes on in a short-lived one.
            let made = std::thread::scope(|scope| {
                let inside = scope.spawn(|| -> std::io::Result<UdpSocket> {
                    move_into_link_name_space(place.as_fd(), Some(LinkNameSpaceType::Network))?;
                    let socket = UdpSocket::bind((ends[side], PORT))?;
                    socket.connect((ends[1 - side], PORT))?;
                    Ok(socket)
                });
                inside.join()
            });
            Ok(made.map_err(|_| "a thread failed")??)
        };
        let sockets = Self([one(0)?, one(1)?]);
        // The first ones find out where the other side is.
        for _ in 0..100 {
            sockets.0[0].set_read_timeout(Some(Duration::from_millis(100)))?;
            sockets.0[1].set_read_timeout(Some(Duration::from_millis(100)))?;
            let mut bytes = [0; 64];
            let mut there = |from: usize| {
                let _ = sockets.0[from].send(b"first");
                sockets.0[1 - from].recv(&mut bytes).is_ok()
            };
            if there(0) && there(1) {
                let mut bytes = [0; 64];
                for socket in &sockets.0 {
                    socket.set_nonblocking(true)?;
                    while socket.recv(&mut bytes).is_ok() {}
                }
                return Ok(sockets);
            }
        }
        Err("nothing comes through".into())
    }
}

impl Lane for Sockets {
    fn pass(&mut self, n: usize, clock: &Clock) -> Outcome<Option<u64>> {
        let (from, to) = (&self.0[n % 2], &self.0[1 - n % 2]);
        let (number, mut bytes) = ((n as u64).to_be_bytes(), [0; 64]);
        let start = clock.now().nanos();
        from.send(&number)?;
        let end = await_it(clock, || match to.recv(&mut bytes) {
            // Not one that was given up.
            Ok(len) => Ok(bytes[..len] == number),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        })?;
        Ok(end.map(|end| end - start))
    }
}

pub(crate) fn shardwall(packets: usize) -> Outcome<Round> {
    let binary = binary().ok_or("it was built without DPDK")?;
    let mut lab = Lab::new(KIND, binary)?;
    let policy = lab.head(1, "off", "") + RULES;
    lab.write_policy(&policy)?;
    lab.start()?;
    let names = [lab.lan.name(), lab.wan.name()];
    let mut sockets = Sockets::new(names, [INSIDE.0, OUTSIDE.0])?;
    measure(&mut sockets, packets)
}

/// A process that does not outlive its owner.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        if let Some(stdin) = &mut self.0.stdin {
            let _ = writeln!(stdin, "stop\nquit");
        }
        for _ in 0..100 {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            pause(50);
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two namespaces with nothing between them yet.
fn ends() -> Outcome<(String, [Namespace; 2])> {
    remove_leftovers(KIND);
    let tag = format!("{KIND}{}", std::process::id());
    let lan = Namespace::new(format!("{tag}-lan"))?;
    let wan = Namespace::new(format!("{tag}-wan"))?;
    Ok((tag, [lan, wan]))
}

pub(crate) fn testpmd(packets: usize) -> Outcome<Round> {
    let (tag, ends) = ends()?;
    let taps = ["l", "w"].map(|side| format!("sw{tag}{side}"));
    let last = core_affinity::get_core_ids().unwrap_or_default();
    let last = last.last().map_or(0, |core| core.id);
    let mut child = Command::new("dpdk-testpmd")
        .args(["--lcores", &format!("0@0,1@{last}"), "--main-lcore", "0"])
        .args(["--no-pci", "--no-huge", "-m", "512", "--log-level=1"])
        .args(["--vdev", &format!("net_tap0,iface={}", taps[0])])
        .args(["--vdev", &format!("net_tap1,iface={}", taps[1]), "--"])
        .args(["--interactive", "--nb-cores=1", "--forward-mode=io"])
        .arg("--total-num-mbufs=16384")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let stdin = child.stdin.as_mut().ok_or("no pipe to testpmd")?;
    writeln!(stdin, "start")?;
    let mut process = Owned(child);
    for _ in 0..200 {
        let up = |tap: &String| Path::new("/sys/class/net").join(tap).exists();
        if process.0.try_wait()?.is_some() {
            return Err("testpmd ended early".into());
        }
        if taps.iter().all(up) {
            break;
        }
        pause(50);
    }
    // It sets them up once they are there, and must find them here.
    pause(1000);
    for ((tap, end), addr) in taps.iter().zip(&ends).zip([INSIDE.0, OUTSIDE.0]) {
        let (name, addr) = (end.name(), format!("{addr}/24"));
        call(&["ip", "link", "set", tap, "netns", name])?;
        call(&["ip", "-n", name, "link", "set", tap, "up"])?;
        call(&["ip", "-n", name, "addr", "add", &addr, "dev", tap])?;
    }
    let mut sockets = Sockets::new([ends[0].name(), ends[1].name()], [INSIDE.0, OUTSIDE.0])?;
    let result = measure(&mut sockets, packets);
    drop(process);
    result
}

pub(crate) fn kernel(packets: usize) -> Outcome<Round> {
    let (tag, ends) = ends()?;
    let router = Namespace::new(format!("{tag}-router"))?;
    let inner = router.name();
    for (at, (name, end)) in ["lan", "wan"].into_iter().zip(&ends).enumerate() {
        let outer = end.name();
        call(&[
            "ip", "link", "add", "far", "netns", outer, "type", "veth", "peer", "name", name,
            "netns", inner,
        ])?;
        let (leg, gate) = (format!("10.78.{at}.254/24"), format!("10.78.{at}.254"));
        let addr = format!("10.78.{at}.1/24");
        call(&["ip", "-n", inner, "addr", "add", &leg, "dev", name])?;
        call(&["ip", "-n", outer, "addr", "add", &addr, "dev", "far"])?;
        call(&["ip", "-n", inner, "link", "set", name, "up"])?;
        call(&["ip", "-n", outer, "link", "set", "far", "up"])?;
        call(&["ip", "-n", outer, "route", "add", "default", "via", &gate])?;
    }
    let inside = ["ip", "netns", "exec", inner];
    call(&[&inside[..], &["sysctl", "-qw", "net.ipv4.ip_forward=1"]].concat())?;
    let rules = std::env::temp_dir().join(format!("{tag}.nft"));
    std::fs::write(&rules, NFT)?;
    let loaded = call(&[&inside[..], &["nft", "-f", &rules.display().to_string()]].concat());
    let _ = std::fs::remove_file(&rules);
    loaded?;
    let names = [ends[0].name(), ends[1].name()];
    let mut sockets = Sockets::new(names, ["10.78.0.1", "10.78.1.1"])?;
    measure(&mut sockets, packets)
}
