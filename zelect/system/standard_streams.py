"""The three standard descriptors of a process that was started without some of them."""

from __future__ import annotations

import os
import sys


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
