"""The base of the exceptions that a program with a node can meet."""

from __future__ import annotations


class ZelectError(Exception):
    """What zelect itself raises; the text says what is wrong, and where there is a fix, the fix. Mistakes in a call are
    ValueError, TypeError and RuntimeError, as everywhere."""
