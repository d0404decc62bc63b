"""Holds the packets that iptables queues, each for a time of its own, and lets them go: delay and reordering.

    python -m tools.chaos_lab.packet_queue NAMESPACE LEAST_MS MOST_MS      until it is killed

Queue 0 of the namespace, over a plain netlink socket (the kernel's nfnetlink_queue). When this
process ends, the kernel drops what it held, and lets pass what comes later (`--queue-bypass`).
"""

from __future__ import annotations

import contextlib
import heapq
import random
import select
import socket
import struct
import sys

from tools.chaos_lab.enter_namespace import enter_namespace
from zelect.system.clock import now_us

_NETLINK_NETFILTER = 12
_PACKET, _VERDICT, _CONFIG = 0x300, 0x301, 0x302
_REQUEST = 1
_BIND, _PACKET_HEADER, _COPY_META, _ACCEPT = 1, 1, 1, 1
_CFG_COMMAND, _CFG_PARAMETERS, _VERDICT_HEADER = 1, 2, 2


def _message(kind: int, attribute: int, payload: bytes) -> bytes:
    """One netlink message about queue 0 with one attribute."""
    padded = payload + bytes(-len(payload) % 4)
    body = struct.pack("=BBH", socket.AF_UNSPEC, 0, 0) + struct.pack("=HH", 4 + len(payload), attribute) + padded
    return struct.pack("=IHHII", 16 + len(body), kind, _REQUEST, 0, 0) + body


def _packet_ids(data: bytes) -> list[int]:
    """The ids of the packets that the kernel's messages tell of."""
    found = []
    while len(data) >= 16:
        size, kind = struct.unpack_from("=IH", data)
        if kind == _PACKET:
            attributes = data[20:size]
            while len(attributes) >= 4:
                length, name = struct.unpack_from("=HH", attributes)
                if name == _PACKET_HEADER:
                    found.append(int(struct.unpack_from("!I", attributes, 4)[0]))
                attributes = attributes[max(4, length + -length % 4) :]
        data = data[max(16, size + -size % 4) :]
    return found


def main(arguments: list[str]) -> None:
    enter_namespace(arguments[0])
    least_us, most_us = (float(text) * 1000 for text in arguments[1:])
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as queue:
        queue.bind((0, 0))
        queue.send(_message(_CONFIG, _CFG_COMMAND, struct.pack("!BBH", _BIND, 0, socket.AF_INET)))
        queue.send(_message(_CONFIG, _CFG_PARAMETERS, struct.pack("!IB", 0, _COPY_META)))
        queue.setblocking(False)
        print("ready", flush=True)
        held: list[tuple[float, int]] = []
        while True:
            wait_s = max(0.0, (held[0][0] - now_us()) / 1e6) if held else None
            select.select([queue], [], [], wait_s)
            with contextlib.suppress(BlockingIOError):
                for packet in _packet_ids(queue.recv(1 << 16)):
                    heapq.heappush(held, (now_us() + random.uniform(least_us, most_us), packet))
            while held and held[0][0] <= now_us():
                verdict = struct.pack("!II", _ACCEPT, heapq.heappop(held)[1])
                queue.send(_message(_VERDICT, _VERDICT_HEADER, verdict))


if __name__ == "__main__":
    main(sys.argv[1:])
