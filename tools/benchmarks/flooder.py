"""Hostile connections in a process of their own: `python -m tools.benchmarks.flooder MECHANISM RATE PORT...`.

It connects to the ports on loopback, RATE times a second, at the lowest priority: clients from elsewhere
would not take the nodes' processor either. In plain text every connection goes through the
handshake, sends a hundred frames that are no messages, and makes room for the next; with CURVE none
gets that far, and it sends commands of an invalid handshake. The process prints "on" once it is
connected, stops when its standard input ends, and then prints what it did, as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys
import time

from tools.fuzzer.zmtp import GREETING, command, frame, greeting, ready

OPEN = 64
"""Connections to each port at a time."""
_FRAMES = 100  # of one connection, then another one takes its place
_LONGEST_S = 0.1
"""It does not make up for more than this much time, when it was stopped."""


class Flooder:
    """Connections to `ports`, at most `rate` begun in a second; `curve`: they speak CURVE."""

    def __init__(self, ports: list[int], curve: bool, rate: int) -> None:
        self.made = self.frames = self.refused = 0
        self._curve = curve
        body = command(b"INITIATE", b"\xc1" * 40) if curve else frame(b"\xc1" * 40)
        self._opening = greeting(b"CURVE") if curve else GREETING + ready()
        self._rate, self._may, self._turn_s = rate, 0.0, time.monotonic()
        self._piece = body * _FRAMES
        self._poll = select.epoll()
        self._open: dict[int, tuple[socket.socket, int, bytes, bool]] = {}  # port, unsent, whether it may talk
        self._heard: dict[int, bytes] = {}
        self._missing = [port for port in ports for _ in range(OPEN)]

    def turn(self) -> None:
        """Open what is missing, send what can be sent."""
        now_s = time.monotonic()
        self._may += self._rate * min(now_s - self._turn_s, _LONGEST_S)
        self._may, self._turn_s = min(self._may, self._rate * _LONGEST_S), now_s
        for _ in range(min(int(self._may), len(self._missing))):
            self._may -= 1
            self._begin(self._missing.pop(0))
        for number, _ in self._poll.poll(0.002, 64):
            self._go_on(number)

    def close(self) -> None:
        for number in list(self._open):
            self._end(number)
        self._poll.close()

    def _begin(self, port: int) -> None:
        one = socket.socket()
        one.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            try:
                one.connect(("127.0.0.1", port))
            except ConnectionError:  # a node that was killed
                one.close()
                self.refused += 1
                self._missing.append(port)
                return
        self._open[one.fileno()] = (one, port, self._opening, False)
        self._poll.register(one.fileno(), select.EPOLLOUT)

    def _go_on(self, number: int) -> None:
        one, port, text, talks = self._open[number]
        try:
            if not text:  # greeted, and waiting to be greeted back
                self._listen(number)
                return
            sent = one.send(text)
        except BlockingIOError:
            return
        except OSError as error:
            self.refused += isinstance(error, ConnectionRefusedError)
            self._end(number)
            return
        self.made += text is self._opening
        text = text[sent:]
        if not text:
            if talks:
                self.frames += _FRAMES
                self._end(number)
                return
            self._poll.modify(number, select.EPOLLIN)
        self._open[number] = (one, port, text, talks)

    def _listen(self, number: int) -> None:
        one, port, _, _ = self._open[number]
        # All of it: what is left unread would make a reset of the end, and take our frames along.
        heard = one.recv(4096)
        self._heard[number] = self._heard.get(number, b"") + heard
        if not heard:
            self._end(number)
        elif (b"READY" in self._heard[number]) if not self._curve else len(self._heard[number]) >= len(GREETING):
            self._open[number] = (one, port, self._piece, True)
            self._poll.modify(number, select.EPOLLOUT)

    def _end(self, number: int) -> None:
        one, port, _, _ = self._open.pop(number)
        self._poll.unregister(number)
        self._heard.pop(number, None)
        one.close()
        self._missing.append(port)


def main(arguments: list[str]) -> int:
    """Flood until the standard input ends."""
    mechanism, rate, *ports = arguments
    os.nice(19)
    flooder = Flooder([int(port) for port in ports], mechanism == "curve", int(rate))
    end = select.poll()
    end.register(sys.stdin, select.POLLIN | select.POLLHUP)
    said = False
    while not end.poll(0):
        flooder.turn()
        if not said and flooder.made >= OPEN:
            said = True
            print("on", flush=True)
    flooder.close()
    print(json.dumps({"connections": flooder.made, "frames": flooder.frames, "refused": flooder.refused}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
