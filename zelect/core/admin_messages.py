"""The messages between the command line and a node, checked when constructed like the others
(core/messages.py, which has them all).

Whoever speaks so is no member and has no id (sender 0); who may say what is the shell's to judge.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from zelect.core.validation import (
    MAX_NUMBER,
    MalformedMessage,
    check_int,
    check_member,
    check_node,
    check_nodes,
    check_text,
)

__all__ = ["MAX_FOR_MS", "AdminAction", "AdminCommand", "Query", "Report", "Reset"]

MAX_FOR_MS = 7 * 24 * 3600 * 1000
"""Nobody is asked to rest or to wait for longer: what is forgotten must end by itself."""


class AdminAction(StrEnum):
    """What an operator may ask of a node."""

    TRANSFER = "transfer"
    STEPDOWN = "stepdown"
    PAUSE = "pause"
    RESUME = "resume"


@dataclass(frozen=True, slots=True)
class Query:
    """0x08. A question from the command line, which is no member and has no id (sender 0)."""

    what: str

    def __post_init__(self) -> None:
        check_text("what", self.what, 32)


@dataclass(frozen=True, slots=True)
class Report:
    """0x09. The answer to a QUERY: a JSON text."""

    text: str

    def __post_init__(self) -> None:
        check_text("text", self.text, 60_000)


@dataclass(frozen=True, slots=True)
class Reset:
    """0x0B. An operator founds a lost voters again (R11), or tells a node of the old generation
    to join the new one: from `generation` on, `members` vote."""

    generation: int
    members: tuple[int, ...]

    def __post_init__(self) -> None:
        check_int("generation", self.generation, 1, MAX_NUMBER)
        check_nodes("members", self.members)
        if not self.members or list(self.members) != sorted(set(self.members)):
            raise MalformedMessage("bad_field", "members must be distinct and in ascending order")


@dataclass(frozen=True, slots=True)
class AdminCommand:
    """0x0C. An operator admin: hand leadership to node `to` (0: the first in line), step down and rest
    for `for_ms`, hold no planned transfers for `for_ms`, or hold them again. `asker` is who asks,
    `reason` why; both are for people."""

    what: AdminAction
    to: int
    for_ms: int
    reason: str
    asker: str

    def __post_init__(self) -> None:
        check_member("what", self.what, AdminAction)
        check_node("to", self.to, 0)
        check_int("for_ms", self.for_ms, 0, MAX_FOR_MS)
        check_text("reason", self.reason, 128)
        check_text("asker", self.asker, 64)
        if not (self.reason.isprintable() and self.asker.isprintable()):
            raise MalformedMessage("bad_field", "reason and asker must be printable, in one line")
        if self.to and self.what is not AdminAction.TRANSFER:
            raise MalformedMessage("bad_field", "a transfer, and nothing else, names a node")
        if (self.for_ms > 0) != (self.what in (AdminAction.STEPDOWN, AdminAction.PAUSE)):
            raise MalformedMessage("bad_field", "stepping down and a pause, and nothing else, last for some time")

    @property
    def asked(self) -> str:
        """Who asks and why, in one line."""
        return f"{self.asker}: {self.reason}" if self.reason else self.asker
