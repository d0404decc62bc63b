"""Assertions numbered like the rules of the election (docs/protocol.md, R1 to R14).

They stay on in production: a node that finds one of its own rules broken must not go on, because
whatever it says next could be a second controller. `RuleBroken` therefore is never caught; it ends
the process. It always means a bug in zelect, never bad input: what a peer or a file gets wrong is
refused, counted and changes nothing.
"""

from __future__ import annotations

__all__ = ["RuleBroken", "require"]


class RuleBroken(Exception):
    """One of the numbered rules does not hold: a bug in zelect; the node must end."""


def require(holds: bool, rule: str, text: str) -> None:
    """Raise `RuleBroken` naming `rule` (such as ``"R2"``) unless `holds`."""
    if not holds:
        raise RuleBroken(f"{rule}: {text}")
