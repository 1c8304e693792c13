"""The kernel's side of the differential test; tests/kernel/oracle.rs starts it in the router.

Reads requests from its standard input. A frame is sent into one of the router's legs, and a line
says what the kernel made of it: the time, state and direction at prerouting and the verdict (from
NFLOG prefixes), and the flow after the packet (from ctnetlink). Other requests are answered with
the whole table, or fill or empty it.
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
FILLER = b"\xc9\0\0\1"  # an address that nobody else has
FENCE = bytes.fromhex(
    "4500001400004000401174c600000000c6120001"  # to 198.18.0.1, where a rule waits for it
)


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
    """The prefixes of the next reports."""
    for kind, body in messages(log.recv(65536)):
        if kind == 4 << 8:
            for kind, value in attributes(body[4:]):
                if kind == 10:
                    yield value.rstrip(b"\0").decode()


def spoken(log, end, frame):
    """State and verdict of the frame that was just sent.

    Sending mostly runs through the router before it returns. Where a packet goes no further
    than to the tracker nothing says so; but a second one, behind it in the same queue, does.
    """
    state, verdict, fenced = "- -", "-", False
    while True:
        if not fenced and not select.select([log], [], [], 0)[0]:
            fenced = True
            end.send(frame[:12] + b"\x08\x00" + FENCE)
        if fenced and not select.select([log], [], [], 10)[0]:
            sys.exit("the router is silent")
        for said in heard(log):
            if said == "fence":
                return state, verdict
            if said[0] == "s":
                state = said[2:]
            else:
                verdict = said[2:]
        if verdict != "-" and not fenced:
            return state, verdict


def details(body):
    """Status, timeout and TCP state of a flow, and its original tuple as numbers."""
    status = timeout = state = 0
    name = ""
    for kind, value in attributes(body):
        if kind == 1:
            name = tuple_of(value)
        elif kind == 3:
            status = struct.unpack(">I", value)[0]
        elif kind == 7:
            timeout = struct.unpack(">I", value)[0]
        elif kind == 4:
            for kind, inner in attributes(value):
                if kind == 1:
                    for kind, number in attributes(inner):
                        if kind == 1:
                            state = number[0]
    return f"{status} {timeout} {state}", name


def tuple_of(value):
    """Protocol, addresses, and what stands for ports."""
    src = dst = "-"
    proto = first = second = 0
    for kind, part in attributes(value):
        for kind2, inner in attributes(part):
            if kind == 1:
                family = socket.AF_INET if len(inner) == 4 else socket.AF_INET6
                if kind2 in (1, 3):
                    src = socket.inet_ntop(family, inner)
                else:
                    dst = socket.inet_ntop(family, inner)
            elif kind2 == 1:
                proto = inner[0]
            elif kind2 in (2, 4, 7):
                first = struct.unpack(">H", inner)[0]
            elif kind2 == 3:
                second = struct.unpack(">H", inner)[0]
            elif kind2 in (5, 8):
                second |= inner[0] << 8
            elif kind2 in (6, 9):
                second |= inner[0]
    return f"{proto} {src} {dst} {first} {second}"


def flow(table, family, request):
    """The flow with a tuple, or that there is none."""
    if not request:
        return "-"
    table.send(message(1 << 8 | 1, 1, family, 0, request))
    for kind, body in messages(table.recv(65536)):
        if kind == 1 << 8:
            return details(body[4:])[0]
    return "-"


def dump(table):
    """The original tuple of every flow but for those that fill the table."""
    names = []
    table.send(message(1 << 8 | 1, 0x301, 0, 0, b""))
    while True:
        for kind, body in messages(table.recv(1 << 20)):
            if kind == 3:
                return names
            if kind == 1 << 8 and FILLER not in body:
                names.append(details(body[4:])[1])


def fill(table, count):
    """Adds `count` flows that the kernel may not throw out; how many there are then."""

    def tuple_(kind, src, dst, sport, dport):
        addresses = attribute(1, src) + attribute(2, dst)
        names = attribute(1, b"\x11") + attribute(2, sport) + attribute(3, dport)
        return attribute(kind, attribute(0x8001, addresses) + attribute(0x8002, names))

    somebody = b"\xc8\xff\xff\xff"
    flows = []
    for port in range(1, 1001):
        one, two = struct.pack(">H", port), b"\0\x50"
        body = tuple_(0x8001, somebody, FILLER, one, two)
        body += tuple_(0x8002, FILLER, somebody, two, one)
        body += attribute(3, struct.pack(">I", 2 | 4 | 8))  # replied, assured, confirmed
        body += attribute(7, struct.pack(">I", 3600))
        flows.append(message(1 << 8, 0x401, 2, 0, body))
    thousand = b"".join(flows)
    for at in range(0, count, 1000):
        batch = thousand if count - at >= 1000 else b"".join(flows[: count - at])
        table.send(batch.replace(somebody, struct.pack(">I", 0xC8000000 + at // 1000)))
    table.send(message(1 << 8 | 5, 1, 0, 0, b""))
    for _, body in messages(table.recv(65536)):
        for kind, value in attributes(body[4:]):
            if kind == 1:
                return struct.unpack(">I", value)[0]
    return "no"


def main():
    namespace, cpu, *legs = sys.argv[1:]
    # One processor, one queue: packets arrive in the order of their sending.
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, [cpus[int(cpu) % len(cpus)]])
    log, table = listen(), netlink()
    for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        table.setsockopt(socket.SOL_SOCKET, buffer, 1 << 22)
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{namespace}", "rb") as file:
        if libc.setns(file.fileno(), 0x40000000):
            sys.exit("cannot enter " + namespace)
    ends = []
    for leg in legs:
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        end.bind((leg, 0))
        ends.append(end)
    requests, answers = sys.stdin.buffer, sys.stdout
    print("ready", file=answers, flush=True)
    while header := requests.read(8):
        leg, family, length, asked = struct.unpack("=HHHH", header)
        frame, name = requests.read(length), requests.read(asked)
        if leg == 2:
            names = dump(table)
            print(len(names), *names, sep="\n", file=answers, flush=True)
            continue
        if leg == 3:
            print(fill(table, struct.unpack("=I", frame)[0]), file=answers, flush=True)
            continue
        if leg == 4:
            ask(table, message(1 << 8 | 2, 5, 0, 0, b""))
            print("flushed", file=answers, flush=True)
            continue
        # All reports of earlier packets were heard; what the router says to itself is nothing.
        while select.select([log], [], [], 0)[0]:
            log.recv(65536)
        sent = time.monotonic_ns()
        ends[leg].send(frame)
        state, verdict = spoken(log, ends[leg], frame)
        # Nobody said anything: whatever there is, this packet has nothing to do with it.
        about = "-" if (state, verdict) == ("- -", "-") else flow(table, family, name)
        print(sent, time.monotonic_ns() - sent, state, verdict, about, file=answers, flush=True)


main()
