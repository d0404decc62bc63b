"""A name server for tests, in a network and mount namespace of their own: it may be silent, slow, or forget names."""

from __future__ import annotations

import socket
import struct
import subprocess
import threading
from pathlib import Path

PLACE = ("127.0.0.53", 53)


class NameServer:
    """Answers for `names`, each with an address of IPv4 or IPv6. `silent`: it drops questions; `delay_s`: how long
    an answer takes. `questions`: how many came."""

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names
        self.silent = False
        self.delay_s = 0.0
        self.questions = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(PLACE)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            question, asker = self._socket.recvfrom(512)
            self.questions += 1
            if not self.silent:
                threading.Timer(self.delay_s, self._answer, (question, asker)).start()

    def _answer(self, question: bytes, asker: tuple[str, int]) -> None:
        labels, at = [], 12
        while question[at]:
            labels.append(question[at + 1 : at + 1 + question[at]].decode())
            at += question[at] + 1
        kind = struct.unpack_from("!H", question, at + 1)[0]
        asked = question[12 : at + 5]
        address = self.names.get(".".join(labels))
        if address is None:
            self._socket.sendto(question[:2] + b"\x81\x83\0\1\0\0\0\0\0\0" + asked, asker)
            return
        record = b""
        if kind == (28 if ":" in address else 1):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            packed = socket.inet_pton(family, address)
            record = b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 1, len(packed)) + packed
        head = question[:2] + b"\x81\x80\0\1" + (b"\0\1" if record else b"\0\0") + b"\0\0\0\0"
        self._socket.sendto(head + asked + record, asker)


def use_it(directory: Path) -> None:
    """Have this mount namespace ask `PLACE`, and nothing else, for names."""
    for name, text in (
        ("hosts", "127.0.0.1 localhost\n"),
        ("resolv.conf", f"nameserver {PLACE[0]}\n"),
        ("nsswitch.conf", "hosts: files dns\n"),
    ):
        (directory / name).write_text(text)
        subprocess.run(["mount", "--bind", directory / name, f"/etc/{name}"], check=True)
