"""The kernel's side of the differential test; tests/kernel/oracle.rs starts it in the router.

Reads frames from its standard input, sends each into one of the router's legs, and writes a line
with what the kernel said: the time, state and direction at prerouting (from NFLOG prefixes), and
the flow after the packet (from ctnetlink).
"""

import ctypes
import os
import select
import socket
import struct
import sys
import time

GROUP = 5
NETFILTER = 12  # NETLINK_NETFILTER


def attributes(data):
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            return
        yield kind & 0x3FFF, data[at + 4 : at + length]
        at += (length + 3) & ~3


def attribute(kind, body):
    return struct.pack("=HH", 4 + len(body), kind) + body + bytes(-len(body) % 4)


def message(kind, flags, family, resource, body):
    general = struct.pack("=BBH", family, 0, socket.htons(resource))
    return struct.pack("=IHHII", 20 + len(body), kind, flags, 1, 0) + general + body


def messages(data):
    at = 0
    while at + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, at)
        yield kind, data[at + 16 : at + length]
        at += (length + 3) & ~3


def ask(sock, request):
    """Sends a request that is acknowledged; fails if the kernel refuses."""
    sock.send(request)
    for kind, body in messages(sock.recv(65536)):
        if kind == 2:
            error = -struct.unpack_from("=i", body)[0]
            if error:
                sys.exit(f"netlink: {os.strerror(error)}")


def netlink():
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER)


def listen():
    sock = netlink()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    config = 4 << 8 | 1
    for body in [
        attribute(1, b"\x01"),  # bind
        attribute(2, struct.pack(">IBB", 0, 1, 0)),  # metadata only
        attribute(5, struct.pack(">I", 1)),  # every packet at once
    ]:
        ask(sock, message(config, 5, 0, GROUP, body))
    return sock


def heard(log):
    """The next report: state and direction."""
    for kind, body in messages(log.recv(65536)):
        if kind == 4 << 8:
            for kind, value in attributes(body[4:]):
                if kind == 10:
                    return value.rstrip(b"\0").decode()
    return None


def tuple_of(frame):
    """What names the flow that the frame starts, as ctnetlink wants it."""
    if frame[12:14] == b"\x08\x00":
        family, protocol = socket.AF_INET, frame[23]
        l4 = frame[14 + (frame[14] & 15) * 4 :]
        addresses = attribute(1, frame[26:30]) + attribute(2, frame[30:34])
    else:
        family, protocol, l4 = socket.AF_INET6, frame[20], frame[54:]
        while protocol in (0, 43, 51, 60):
            length = (l4[1] + 2) * 4 if protocol == 51 else (l4[1] + 1) * 8
            protocol, l4 = l4[0], l4[length:]
        addresses = attribute(3, frame[22:38]) + attribute(4, frame[38:54])
    names = attribute(1, bytes([protocol]))
    if protocol in (6, 17):
        names += attribute(2, l4[0:2]) + attribute(3, l4[2:4])
    elif protocol in (1, 58):
        first = 4 if protocol == 1 else 7
        names += attribute(first, l4[4:6])
        names += attribute(first + 1, l4[0:1]) + attribute(first + 2, l4[1:2])
    nested = attribute(0x8001, addresses) + attribute(0x8002, names)
    return family, attribute(0x8001, nested)


def flow(table, tuple_):
    """Status, timeout and TCP state of the flow, or that there is none."""
    if tuple_ is None:
        return "-"
    family, original = tuple_
    table.send(message(1 << 8 | 1, 1, family, 0, original))
    for kind, body in messages(table.recv(65536)):
        if kind == 2:
            return "-"
        status = timeout = state = 0
        for kind, value in attributes(body[4:]):
            if kind == 3:
                status = struct.unpack(">I", value)[0]
            elif kind == 7:
                timeout = struct.unpack(">I", value)[0]
            elif kind == 4:
                for kind, inner in attributes(value):
                    if kind == 1:
                        for kind, number in attributes(inner):
                            if kind == 1:
                                state = number[0]
        return f"{status} {timeout} {state}"
    return "-"


def main():
    namespace, *legs = sys.argv[1:]
    log, table = listen(), netlink()
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{namespace}", "rb") as file:
        if libc.setns(file.fileno(), 0x40000000):
            sys.exit("cannot enter " + namespace)
    ends = []
    for leg in legs:
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        end.bind((leg, 0))
        ends.append(end)
    tuples = {}
    requests, answers = sys.stdin.buffer, sys.stdout
    print("ready", file=answers, flush=True)
    while header := requests.read(8):
        label, leg, length = struct.unpack("=IHH", header)
        frame = requests.read(length)
        while select.select([log], [], [], 0)[0]:
            log.recv(65536)
        sent = time.monotonic_ns()
        ends[leg].send(frame)
        said = None
        # Sending runs through the router before it returns, nearly always.
        while said is None and select.select([log], [], [], 0.05)[0]:
            said = heard(log)
        said = said or "- -"
        if said == "new original":
            tuples[label] = tuple_of(frame)
        answer = flow(table, tuples.get(label))
        print(sent, time.monotonic_ns() - sent, said, answer, file=answers, flush=True)


main()
