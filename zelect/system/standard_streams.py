"""The three standard descriptors of a process: started without some of them, on a terminal with few letters, or on a
pipe that nobody reads."""

from __future__ import annotations

import codecs
import contextlib
import os
import select
import sys

_PLAIN = {"\u2026": "...", "\u2588": "#", "\u2591": "."}
_HANDLER = "zelect.plain"


def fill_standard() -> None:
    """Open /dev/null where standard input, output or error is closed. Otherwise the next socket would get that
    number, and output for people would go into it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
            os.set_inheritable(number, True)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def show_in_any_encoding() -> None:
    """Let standard output and error take any text, also in ASCII: what their encoding has no letter for is written
    with others, or as its escape. Names and reasons are others' words."""
    codecs.register_error(_HANDLER, _in_plain)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=_HANDLER)


def _in_plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_PLAIN.get(one) or one.encode("ascii", "backslashreplace").decode() for one in text), error.end


def output_is_gone() -> bool:
    """Whether nobody can read standard output any more: a pipe's reader has ended, or the terminal is closed."""
    with contextlib.suppress(OSError, ValueError):
        poll = select.poll()
        poll.register(1, 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    return False
