"""Memory that a crowd took up, given back to the system."""

from __future__ import annotations

import contextlib

__all__ = ["give_back"]


def give_back() -> None:
    """Have the C library return what it keeps free. It would keep all of it: what a crowd's connections
    took lies between things that stay. Does nothing where the library can't (it is glibc's)."""
    import ctypes  # here only: an idle node never needs it

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
