#!/usr/bin/env -S python3 -B
"""Boots the image in emulated boxes, sets them up with the scripts that the package has, and sends traffic of
real programs through them: the appliance as it ships, on a box that exists in software only.

  vfio     two e1000 behind an emulated IOMMU, bound to vfio-pci: everything that an operator does, a reboot, a
           stuck appliance, one that is killed, and all of it undone
  uio      the same NICs on a box without IOMMU, bound to uio_pci_generic
  queues   two virtio NICs with two queues each and RSS: flows are spread over two workers, and both directions
           of each come to one

Emulation shows function, not speed. Prints a line for everything that it saw, and exits with 1 if something was
not as it must be; target/image/SCENARIO has the console and the journal of a box that failed.
"""

import argparse
import fcntl
import json
import pathlib
import re
import shutil
import subprocess
import sys
import time

from machine import ADDRESSES, MANAGEMENT, NICS, Box, Failed, Server, enter, need, on, sh, until
from traffic import Outage, download, forwards, other, pings

ROOT = pathlib.Path(__file__).resolve().parents[2]
POLICY = """\
version: 1
ports:
  lan: {{ device: "{lan}", queues: {queues} }}
  wan: {{ device: "{wan}", queues: {queues} }}
bridge: [[lan, wan]]
system: {{ workers: {queues} }}
conntrack: {{ max: 65536, accounting: true }}
chains:
  forward:
    policy: drop
    rules:
      - {{ name: known, ct: [established, related], action: accept }}
      - {{ name: broken, ct: invalid, action: drop }}
      - {{ name: outbound, iif: lan, ct: new, action: accept }}
      - {{ name: ping, proto: [icmp, icmpv6], ct: new, action: accept }}
      - {{ name: web-in, iif: wan, proto: tcp, dport: 80, ct: new, action: accept }}
"""
HUGEPAGES_MIB = 256

start = time.monotonic()


def say(text):
    print(f"{time.monotonic() - start:6.1f}  {text}", flush=True)


def check(what, holds, said=""):
    """Tells that something holds, or ends the scenario."""
    if not holds:
        raise Failed(f"{what}\n{said[-4000:]}" if said else what)
    say(f"ok    {what}")


# --- traffic ---------------------------------------------------------------------------------------------------

def traffic(box, work):
    """What passes and what does not, and what the appliance says of it."""
    for side in NICS:
        lost = pings(side, count=100, interval=0.05)
        check(f"{side} pings {other(side)}: {lost} of 100 lost", lost == 0)
    check("IPv6 pings pass: 0 of 20 lost", pings("lan", version=6) == 0)
    check("pings in fragments pass: 0 of 20 lost", pings("lan", size=4000) == 0)
    for side in NICS:
        port, seconds = download(work, side)
        line = box.run(f"shardwall conntrack -L -p tcp --sport {port} --dport 80 2>/dev/null")
        source, target = ADDRESSES[side][0], ADDRESSES[other(side)][0]
        seen = re.search(rf"^tcp .* src={source} dst={target} sport={port} dport=80 .*"
                         rf"src={target} dst={source} sport=80 dport={port} .*\[ASSURED\]", line, re.M)
        check(f"{side} loads 16 MiB by HTTP in {seconds:.1f} s; conntrack -L says: {line}", seen, line)
    refused(box)


def refused(box):
    """A connection that no rule lets begin, as `drops` tells of it."""
    def by_policy():
        rows = json.loads(box.run("shardwall drops --format json"))
        return next(row for row in rows if row["reason"] == "policy")

    source, target = ADDRESSES["wan"][0], ADDRESSES["lan"][0]
    before = by_policy()["count"]
    code = subprocess.call(on("wan", ["curl", "-s", "--max-time", "3", f"http://{target}:8080/"]))
    check("wan may not open port 8080 of lan", code == 28, f"curl: {code}")
    row = by_policy()
    last = row["last"]
    words = f"{last['packet']}, by {last['rule']}"
    check(f"drops: {row['count'] - before} by `policy`; the last: {words}",
          row["count"] > before and re.match(rf"tcp {source}:\d+ > {target}:8080 syn", last["packet"]), str(row))


# --- the box ---------------------------------------------------------------------------------------------------

def first_boot(box):
    seconds = box.wait_for_login()
    check(f"a new box lets us log in {seconds:.0f} s after it was turned on", True)
    box.run("systemctl is-system-running --wait", check=False)
    failed = box.run("systemctl list-units --failed --plain --no-legend")
    check("no unit failed", failed == "", failed)
    check("the firewall is off", box.run("systemctl is-enabled shardwall", check=False) == "disabled")


def set_up(box, driver, queues=1):
    """What an operator does with a new box."""
    box.write("/etc/shardwall/policy.yaml", POLICY.format(queues=queues, **NICS))
    status, said = box.status("shardwall doctor -c /etc/shardwall/policy.yaml")
    check("doctor finds what is to be done", status == 1 and "shardwall-hugepages" in said and "nic-bind" in said, said)
    said = box.run(f"shardwall-hugepages --memory {HUGEPAGES_MIB}M --persist")
    check(said.splitlines()[-1], "pages of 2M reserved" in said, said)
    nics = " ".join(NICS.values())
    status, said = box.status(f"shardwall-nic-bind --driver {driver} {MANAGEMENT} {nics}")
    check("nic-bind leaves the management's NIC alone", status == 1 and "would cut this box off" in said, said)
    said = box.run(f"shardwall-nic-bind --driver {driver} {nics}")
    check(f"nic-bind: {driver}, kept over reboots", said.count(f"bound to {driver}, kept over reboots") == 2, said)
    status, said = box.status("shardwall doctor -c /etc/shardwall/policy.yaml")
    check("doctor finds no failure any more", status == 0, said)


def bound_to(box):
    """The drivers of the firewall's NICs."""
    return [box.run(f"basename $(realpath /sys/bus/pci/devices/{address}/driver)") for address in NICS.values()]


def begin(box):
    """Enables and starts the unit."""
    began = time.monotonic()
    status, said = box.status("systemctl enable --now shardwall")
    check(f"systemctl enable --now shardwall: {time.monotonic() - began:.1f} s", status == 0, said)
    until("the firewall forwards", forwards)
    check(f"it forwards {time.monotonic() - began:.1f} s after it was asked to", True)
    used = box.run("cat /proc/meminfo | awk '/^HugePages_(Total|Free)/ { print $2 }' | paste -sd' '")
    total, free = map(int, used.split())
    check(f"{total - free} of {total} hugepages are in use", total > free, used)


def main_pid(box):
    return box.run("systemctl show -P MainPID shardwall")


def reboots(box, driver):
    """The box reboots, and forwards again with nobody's help."""
    before = box.reboot()
    asked = time.monotonic()
    until("the box goes down", lambda: not forwards())
    until("the box forwards after the reboot", forwards)
    seconds = time.monotonic() - asked
    box.wait_for_login()
    check(f"it forwards {seconds:.0f} s after `systemctl reboot`",
          box.run("cat /proc/sys/kernel/random/boot_id") != before)
    check(f"the NICs are with {driver}", bound_to(box) == [driver] * 2, str(bound_to(box)))
    pages = int(box.run("cat /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"))
    check(f"{pages} hugepages are reserved", pages == HUGEPAGES_MIB // 2)
    check("the unit came up by itself, once", box.run("systemctl show -P NRestarts shardwall") == "0",
          box.run("journalctl -b -u shardwall --no-pager"))


def survives(box, what, signal):
    """Signals the appliance, and waits for systemd to have started another."""
    old = main_pid(box)
    with Outage() as outage:
        box.run(f"systemctl kill -s {signal} --kill-whom=main shardwall")
        until("systemd starts it anew", lambda: main_pid(box) not in (old, "0"))
        until("it forwards again", forwards)
    check(f"{what}: started anew; nothing passed for {outage.seconds:.1f} s", main_pid(box) != old)


def undone(box):
    """The scripts give back what they took."""
    box.run("systemctl disable --now shardwall")
    check("it ended by itself", box.run("systemctl show -P Result shardwall") == "success")
    box.run(f"shardwall-nic-bind --undo {' '.join(NICS.values())}")
    check(f"nic-bind --undo: the kernel has the NICs again ({bound_to(box)[0]})",
          not set(bound_to(box)) & {"vfio-pci", "uio_pci_generic"})
    box.run("shardwall-hugepages --undo")
    check("hugepages --undo", box.run("cat /proc/sys/vm/nr_hugepages") == "0")
    left = box.run("ls /etc/driverctl.d /etc/tmpfiles.d /etc/systemd/system/driverctl@.service.d 2>/dev/null",
                   check=False)
    check("nothing of them is left in /etc", "shardwall" not in left and "pci-" not in left, left)


# --- the scenarios ---------------------------------------------------------------------------------------------

def scenario_vfio(image, work):
    box = Box(image, work)
    yield box
    first_boot(box)
    set_up(box, "vfio-pci")
    begin(box)
    check("it runs as its own user", box.run(f"stat -c %U /proc/{main_pid(box)}") == "shardwall")
    traffic(box, work)
    reboots(box, "vfio-pci")
    traffic(box, work)
    survives(box, "stuck (SIGSTOP), ended by the watchdog", "STOP")
    check("the journal says why", "Watchdog timeout" in box.run("journalctl -b -u shardwall --no-pager"))
    survives(box, "killed (SIGKILL)", "KILL")
    traffic(box, work)
    undone(box)


def scenario_uio(image, work):
    box = Box(image, work, iommu=False)
    yield box
    first_boot(box)
    status, said = box.status(f"shardwall-nic-bind {NICS['lan']}")
    check("nic-bind: without IOMMU no vfio-pci, and says what instead",
          status == 1 and "--driver uio_pci_generic" in said, said)
    set_up(box, "uio_pci_generic")
    # The drop-in that a comment of the unit says is needed for it, word by word.
    dropin = box.run("sed -n 's/^#     //p' /lib/systemd/system/shardwall.service")
    box.write("/etc/systemd/system/shardwall.service.d/root.conf", dropin)
    box.run("systemctl daemon-reload")
    begin(box)
    traffic(box, work)
    reboots(box, "uio_pci_generic")
    traffic(box, work)


def scenario_queues(image, work):
    box = Box(image, work, queues=2, nic="virtio-net-pci,mq=on,rss=on,vectors=8,disable-legacy=on,iommu_platform=on")
    yield box
    first_boot(box)
    set_up(box, "vfio-pci", queues=2)
    begin(box)
    traffic(box, work)
    spread(box)
    reboots(box, "vfio-pci")
    traffic(box, work)


def spread(box, each=100):
    """Opens connections of TCP and conversations of UDP, and looks at whose they are: a flow whose directions came
    to two workers would have packets handed from one to the other."""
    before = json.loads(box.run("shardwall workers --format json"))
    program = str(pathlib.Path(__file__).with_name("flows.py"))
    with Server("wan", sys.executable, program, "serve"):
        until("the server listens", lambda: "LISTEN" in sh(on("wan", ["ss", "-Hltn", "sport = :7000"])))
        client = subprocess.Popen(on("lan", [sys.executable, program, "talk", ADDRESSES["wan"][0], str(each)]),
                                  text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said = client.stdout.readline().strip()
        workers = json.loads(box.run("shardwall workers --format json"))
        flows = box.run("for proto in tcp udp; do shardwall conntrack -L -p $proto --dport 7000 2>/dev/null; done")
        client.communicate(timeout=60)
    check(f"{each} connections of TCP and {each} of UDP, ten questions and answers each", said == "done 0", said)
    both = len(re.findall(r"^(?:tcp|udp) .*packets=[1-9].*packets=[1-9]", flows, re.M))
    check(f"conntrack -L: {both} of them, with packets in both directions", both == 2 * each, flows)
    new = [now["flows"] - then["flows"] for then, now in zip(before, workers)]
    check(f"flows by worker: {new}", min(new) > each / 2, str(workers))
    received = [now["received"] - then["received"] for then, now in zip(before, workers)]
    handed = [now["handed_out"] - then["handed_out"] for then, now in zip(before, workers)]
    check(f"received by worker: {received}; handed to the other: {handed}", sum(handed) == 0 and min(received) > 0,
          box.run("shardwall workers; shardwall ports"))


SCENARIOS = {"vfio": scenario_vfio, "uio": scenario_uio, "queues": scenario_queues}


def run(name, image):
    """Runs a scenario; whether all held."""
    work = ROOT / "target/image" / name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    say(f"--    {name}")
    box, failure = None, None
    steps = SCENARIOS[name](image, work)
    try:
        box = next(steps)
        for _ in steps:
            pass
        check("the box turns itself off", box.off())
    except (Failed, subprocess.SubprocessError, ValueError, LookupError) as error:
        failure = error
        say(f"FAIL  {error!r}" if not isinstance(error, Failed) else f"FAIL  {error}")
        if box and box.qemu.poll() is None:
            journal = box.run("journalctl --no-pager -o short-monotonic", check=False, timeout=60)
            (work / "journal.log").write_text(journal)
            print(box.run("systemctl --no-pager --full status shardwall; shardwall-nic-bind --status; shardwall ports; "
                          "shardwall workers; shardwall drops", check=False))
            print(f"      {work} has the console and the journal")
    finally:
        if box and box.qemu.poll() is None:
            box.kill()
    return failure is None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], epilog="Scenarios: " + ", ".join(SCENARIOS))
    parser.add_argument("--image", type=pathlib.Path, default=ROOT / "target/image/shardwall.img")
    parser.add_argument("scenario", nargs="*", choices=[*SCENARIOS, []], help="what to run (default: all)")
    args = parser.parse_args()
    need()
    if not args.image.exists():
        sys.exit(f"test-image: there is no {args.image}: deploy/image/build.sh")
    enter()
    lock = open(args.image.with_name("lock"), "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit("test-image: another run has not ended")
    passed = [run(name, args.image.resolve()) for name in args.scenario or SCENARIOS]
    say(f"{sum(passed)} of {len(passed)} scenarios passed")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
