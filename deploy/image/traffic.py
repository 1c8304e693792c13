"""The traffic between the two hosts that the box stands between, by programs that people use: ping and curl."""

import hashlib
import os
import re
import subprocess
import sys
import time

from machine import ADDRESSES, Failed, Server, on, sh, until


def other(side):
    """The host behind the other NIC."""
    return "wan" if side == "lan" else "lan"


def pings(side, count=20, interval=0.1, version=4, size=56):
    """Pings from a host to the other one; how many were lost."""
    address = ADDRESSES[other(side)][0 if version == 4 else 1]
    said = sh(on(side, ["ping", "-nq", "-c", str(count), "-i", str(interval), "-W", "5", "-s", str(size), address]),
              check=False)
    sent, received = map(int, re.search(r"(\d+) packets transmitted, (\d+) received", said).groups())
    return sent - received


def forwards(side="lan"):
    """Whether one ping is answered."""
    return pings(side, count=1) == 0


class Outage:
    """Pings every 50 ms while the block lasts; the longest time that nothing came back is `seconds`, what was
    lost of `sent` is `lost`."""

    def __enter__(self):
        self.process = subprocess.Popen(on("lan", ["ping", "-n", "-D", "-i", "0.05", "-W", "1", ADDRESSES["wan"][0]]),
                                        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return self

    def __exit__(self, *_):
        time.sleep(0.5)
        self.process.send_signal(2)
        said, _ = self.process.communicate(timeout=30)
        replies = [float(at) for at in re.findall(r"^\[([\d.]+)\].*icmp_seq", said, re.M)]
        self.seconds = max((b - a for a, b in zip(replies, replies[1:])), default=0)
        self.sent, received = map(int, re.search(r"(\d+) packets transmitted, (\d+) received", said).groups())
        self.lost = self.sent - received


def download(work, client, megabytes=16):
    """Has curl on a host load a file from the other one's HTTP server; its connection's port, and seconds."""
    server = other(client)
    folder = work / "www"
    folder.mkdir(exist_ok=True)
    content = os.urandom(megabytes << 20)
    (folder / "file").write_bytes(content)
    address = ADDRESSES[server][0]
    with Server(server, sys.executable, "-m", "http.server", "80", "--bind", address, cwd=folder):
        until("the HTTP server listens", lambda: "LISTEN" in sh(on(server, ["ss", "-Hltn", "sport = :80"])))
        began = time.monotonic()
        port = sh(on(client, ["curl", "-sS", "--max-time", "120", "-o", str(work / "got"), "-w", "%{local_port}",
                              f"http://{address}/file"]))
        seconds = time.monotonic() - began
    got = hashlib.sha256((work / "got").read_bytes()).hexdigest()
    if got != hashlib.sha256(content).hexdigest():
        raise Failed(f"{client}: what came is not what was sent")
    return int(port), seconds
