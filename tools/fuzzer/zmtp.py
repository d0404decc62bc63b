"""ZMTP 3.x in raw bytes, for saying what no library would let one say.

greeting   signature (10), version (2), mechanism (20), as-server (1), filler (31)
command    flags 4 (short) or 6 (long), size, name length, name, data; READY's data is metadata
message    flags: 1 more follows, 2 long size; then the size in one byte or eight, and the body
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

MORE = 1
_LONG, _COMMAND = 2, 4


def greeting(mechanism: bytes = b"NULL", version: tuple[int, int] = (3, 0), as_server: bool = False) -> bytes:
    """64 bytes; `mechanism` is cut or padded to 20."""
    return (
        b"\xff" + bytes(8) + b"\x7f" + bytes(version) + mechanism[:20].ljust(20, b"\0") + bytes([as_server]) + bytes(31)
    )


GREETING = greeting()


def frame(body: bytes, flags: int = 0, size: int | None = None) -> bytes:
    """A message frame, or whatever `flags` make of it. `size`: what it claims to be, if not the truth."""
    claimed = len(body) if size is None else size
    if claimed > 255:
        return bytes([flags | _LONG]) + struct.pack(">Q", claimed) + body
    return bytes([flags, claimed]) + body


def metadata(properties: Mapping[bytes, bytes]) -> bytes:
    """Properties as READY carries them."""
    return b"".join(
        bytes([len(name)]) + name + struct.pack(">I", len(value)) + value for name, value in properties.items()
    )


def command(name: bytes, data: bytes = b"") -> bytes:
    """A command frame."""
    return frame(bytes([len(name)]) + name + data, _COMMAND)


def ready(socket_type: bytes = b"DEALER", **more: bytes) -> bytes:
    """The READY command of the NULL mechanism."""
    rest = {name.encode(): value for name, value in more.items()}
    return command(b"READY", metadata({b"Socket-Type": socket_type, b"Identity": b"", **rest}))
