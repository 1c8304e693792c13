#!/usr/bin/env python3
"""Many small conversations, of TCP and UDP.

  flows.py serve              sends back what comes to port 7000, until it is killed
  flows.py talk ADDRESS N     opens N connections of TCP and N of UDP to it, each from a port of its own, and has
                              each say something ten times and wait for the answer; says "done", and keeps them
                              open until its input ends
"""

import selectors
import socket
import sys

PORT = 7000
ROUNDS = 10
# A datagram is said again after a while; what TCP loses, TCP repeats.
PATIENCE = 2


def serve():
    poll = selectors.DefaultSelector()
    tcp = socket.create_server(("", PORT), backlog=512)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("", PORT))
    poll.register(tcp, selectors.EVENT_READ)
    poll.register(udp, selectors.EVENT_READ)
    while True:
        for key, _ in poll.select():
            if key.fileobj is tcp:
                poll.register(tcp.accept()[0], selectors.EVENT_READ)
            elif key.fileobj is udp:
                udp.sendto(*udp.recvfrom(2048))
            elif said := key.fileobj.recv(2048):
                key.fileobj.sendall(said)
            else:
                poll.unregister(key.fileobj)
                key.fileobj.close()


def talk(address, count):
    again = 0
    every = []
    for kind in [socket.SOCK_STREAM] * count + [socket.SOCK_DGRAM] * count:
        one = socket.socket(socket.AF_INET, kind)
        one.settimeout(PATIENCE if kind == socket.SOCK_DGRAM else 60)
        one.connect((address, PORT))
        every.append(one)
    for turn in range(ROUNDS):
        word = b"%04d" % turn
        for one in every:
            one.send(word)
        for one in every:
            for _ in range(10):
                try:
                    if one.recv(2048) == word:
                        break
                except TimeoutError:
                    again += 1
                    one.send(word)
            else:
                sys.exit("nothing came back")
    print(f"done {again}", flush=True)
    sys.stdin.read()


if sys.argv[1:] == ["serve"]:
    serve()
else:
    talk(sys.argv[2], int(sys.argv[3]))
