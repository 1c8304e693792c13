"""The laboratory of `make test-image`: a box in QEMU, without hardware and without KVM, and two hosts.

A `Box` boots the image with an emulated IOMMU, two NICs for the firewall and one for its management. The
firewall's NICs are taps, whose other ends lie in the network namespaces `lan` and `wan`: the hosts. The box is
managed as one far away is: by ssh, over a connection that QEMU's user network forwards.

Life-cycle: `enter` gives this process network, mount and process namespaces of its own, so that all that a run
makes ends with it, also when it is killed: QEMU, taps, hosts, their servers. The image is not changed: QEMU
writes to an unnamed file that is gone with it.
"""

import base64
import os
import pathlib
import shutil
import subprocess
import sys
import time

FIRMWARE = pathlib.Path("/usr/share/ovmf/OVMF.fd")
PROGRAMS = ["qemu-system-x86_64", "ssh", "ssh-keygen", "ip", "unshare", "ping", "curl", "setpriv"]
# Emulation is slow, and other work may run beside it: this is for what must happen at all.
PATIENCE = 600
# Slots of the firewall's NICs on the emulated bus, and their taps. Each is an IOMMU group of its own there.
NICS = {"lan": "0000:00:10.0", "wan": "0000:00:11.0"}
MANAGEMENT = "0000:00:08.0"
ADDRESSES = {"lan": ("10.77.0.1", "fd77::1"), "wan": ("10.77.0.2", "fd77::2")}
FORWARDED = 2222


class Failed(Exception):
    """Something was not as it must be."""


def need():
    """Ends with what to do, where something is missing."""
    if os.geteuid() != 0:
        sys.exit("test-image: this needs root: it makes network namespaces and taps")
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if not FIRMWARE.exists():
        missing.append(f"{FIRMWARE} (package ovmf)")
    if missing:
        sys.exit(f"test-image: missing: {', '.join(missing)}: deploy/setup.sh image installs it")
    if not os.path.exists("/dev/net/tun"):
        sys.exit("test-image: /dev/net/tun is not there (modprobe tun)")


def enter():
    """Starts this program anew in namespaces that end with it."""
    if os.environ.get("SHARDWALL_LAB") != "inside":
        os.environ["SHARDWALL_LAB"] = "inside"
        apart = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        os.execvp("unshare", [*apart, sys.executable, "-B", *sys.argv])
    # Names of namespaces that nobody else sees.
    os.makedirs("/run/netns", exist_ok=True)
    sh("mount -t tmpfs none /run/netns")
    sh("ip link set lo up")
    for host in NICS:
        sh(f"ip netns add {host}")
        sh(f"ip -n {host} link set lo up")


def sh(command, check=True, timeout=PATIENCE):
    """Runs a command here; what it says."""
    done = subprocess.run(command, shell=isinstance(command, str), text=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout)
    if check and done.returncode != 0:
        raise Failed(f"{command}: {done.stdout.strip()}")
    return done.stdout


def until(what, probe, patience=PATIENCE, pause=0.2):
    """Waits until `probe` returns something true, and returns it."""
    end = time.monotonic() + patience
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > end:
            raise Failed(f"waited {patience} s: {what}")
        time.sleep(pause)


class Box:
    """A box that boots the image. `nic` is QEMU's device for each of the two NICs; `queues` is what their taps
    have."""

    def __init__(self, image, work, nic="e1000", queues=1, iommu=True):
        self.work = pathlib.Path(work)
        self.console = self.work / "console.log"
        self.key = self.work / "key"
        self.queues = queues
        if not self.key.exists():
            sh(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)])
        public = base64.b64encode(self.key.with_suffix(".pub").read_bytes()).decode()
        command = [
            "qemu-system-x86_64", "-nodefaults", "-display", "none",
            "-M", "q35", "-accel", "tcg,thread=multi,tb-size=128", "-cpu", "max,la57=off",
            "-smp", "2", "-m", "768", "-bios", str(FIRMWARE), "-serial", f"file:{self.console}",
            "-drive", f"file={image},format=raw,if=none,id=disk,snapshot=on,cache=unsafe",
            "-device", "virtio-blk-pci,drive=disk,bootindex=0", "-device", "virtio-rng-pci",
            "-netdev", f"user,id=management,hostfwd=tcp:127.0.0.1:{FORWARDED}-:22",
            "-device", f"virtio-net-pci,netdev=management,romfile=,addr={slot(MANAGEMENT)}",
            # Who may log in is the hypervisor's to say; the image itself lets nobody.
            "-smbios", f"type=11,value=io.systemd.credential.binary:ssh.authorized_keys.root={public}",
        ]
        if iommu:
            command += ["-device", "intel-iommu,intremap=on"]
        several = f",queues={queues}" if queues > 1 else ""
        for port, address in NICS.items():
            command += ["-netdev", f"tap,id={port},ifname=tap-{port},script=no,downscript=no{several}",
                        "-device", f"{nic},netdev={port},addr={slot(address)},romfile="]
        self.started = time.monotonic()
        with open(self.work / "qemu.log", "wb") as log:
            self.qemu = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                         env={**os.environ, "TMPDIR": str(self.work)})
        for port in NICS:
            self._plug_in(port)

    def _plug_in(self, port):
        """Moves the tap's end to its host, with addresses."""
        tap = f"tap-{port}"
        until(f"QEMU opens {tap}", lambda: self._alive() and " state " in sh(f"ip link show {tap}", check=False))
        sh(f"ip link set {tap} netns {port}")
        four, six = ADDRESSES[port]
        sh(f"ip -n {port} addr add {four}/24 dev {tap}")
        sh(f"ip -n {port} addr add {six}/64 dev {tap} nodad")
        sh(f"ip -n {port} link set {tap} up")

    def _alive(self):
        if self.qemu.poll() is not None:
            raise Failed(f"QEMU ended: {(self.work / 'qemu.log').read_text().strip()}")
        return True

    def _ssh(self):
        return ["ssh", "-F", "none", "-i", str(self.key), "-p", str(FORWARDED), "-o", "BatchMode=yes",
                "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
                "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=12",
                # One login for all commands: emulated, each costs a second.
                "-o", "ControlMaster=auto", "-o", f"ControlPath={self.work}/ssh-%C", "-o", "ControlPersist=60",
                "root@127.0.0.1"]

    def run(self, command, check=True, stdin=None, timeout=PATIENCE):
        """Runs a shell command in the box; what it says. `check` holds it to exit status 0."""
        try:
            done = subprocess.run([*self._ssh(), command], text=True, input=stdin or "", stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, timeout=timeout)
        except subprocess.TimeoutExpired:
            if check:
                raise Failed(f"in the box: {command}: no answer in {timeout} s") from None
            return ""
        if check and done.returncode != 0:
            raise Failed(f"in the box: {command}: exit status {done.returncode}: {done.stdout.strip()}")
        return done.stdout.strip()

    def status(self, command):
        """The command's exit status, and what it said."""
        *said, status = self.run(f"{command}; echo $?", check=False).splitlines() or ["255"]
        return int(status), "\n".join(said)

    def write(self, path, text):
        """Writes a file in the box."""
        self.run(f"mkdir -p $(dirname {path}) && cat >{path}", stdin=text)

    def wait_for_login(self):
        """Waits until the box answers; seconds since QEMU was started."""
        def answers():
            self._alive()
            return self.run("echo here", check=False, timeout=60) == "here"
        until("the box lets us log in", answers, pause=0.5)
        return time.monotonic() - self.started

    def reboot(self):
        """Reboots the box, as an operator does; returns when it went down."""
        before = self.run("cat /proc/sys/kernel/random/boot_id")
        self.run("systemctl reboot", check=False)
        self.forget_login()
        return before

    def forget_login(self):
        """Ends the ssh connection that commands share."""
        subprocess.run([*self._ssh()[:-1], "-O", "exit", "root@127.0.0.1"], stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)

    def off(self):
        """Turns the box off by its own systemd; whether it went by itself."""
        self.run("systemctl poweroff", check=False)
        self.forget_login()
        try:
            self.qemu.wait(timeout=PATIENCE)
            return True
        except subprocess.TimeoutExpired:
            self.kill()
            return False

    def kill(self):
        """Pulls the plug."""
        self.qemu.kill()
        self.qemu.wait()
        self.forget_login()


def slot(address):
    """The slot of a PCI address as QEMU takes it."""
    return "0x" + address.split(":")[2].split(".")[0]


def on(host, command):
    """A command line that runs on a host."""
    return ["ip", "netns", "exec", host, *command]


class Server:
    """A program that runs on a host while the block lasts."""

    def __init__(self, host, *command, cwd=None):
        self.process = subprocess.Popen(on(host, command), cwd=cwd, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
