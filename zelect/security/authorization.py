"""Who may say what: the one place where it is decided.

With keys, a connection's key says who speaks (the door wrote it on every message, see door.py):
members speak as themselves and nobody else, operators ask and steer as far as the directory lets
them. Without keys nobody is known, so whoever sits on the node's own host may ask and steer, and
others may not.

`right_of` is for whoever adds a way to ask or steer; a message type that is no member's has a line
in `NEEDS`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from zelect.core.messages import Envelope, Found, Message, Query, Steer
from zelect.security.keys import Caller, Directory, Right

__all__ = ["NEEDS", "Denied", "Origin", "Right", "caller_of", "denied", "right_of", "signed"]

NEEDS: dict[type[Message], Right] = {Query: Right.READ, Found: Right.STEER, Steer: Right.STEER}
"""What it takes to say something that no member says. All other messages are members' own."""

_WORDS = {Right.READ: "asking", Right.STEER: "steering"}


class Origin(Protocol):
    """Where a message came from: `Received`, or whatever else brings one."""

    @property
    def key(self) -> bytes:
        """The public key (Z85) that the connection has proved to own; empty in plain text."""

    @property
    def is_local(self) -> bool:
        """Whether it came from this host."""


@dataclass(frozen=True, slots=True)
class Denied:
    """Why a message goes no further. `detail`: what the sender is told, empty for no answer."""

    reason: str
    detail: str = ""


def caller_of(origin: Origin, directory: Directory | None) -> Caller | None:
    """Whose key `origin` has; None where there is no directory, or the key has been taken out of it."""
    return None if directory is None else directory.owners.get(origin.key)


def right_of(origin: Origin, directory: Directory | None) -> Right:
    """What whoever speaks may do besides speaking as a member. `directory`: None in plain text."""
    if directory is None:
        return Right.STEER if origin.is_local else Right.NONE
    caller = caller_of(origin, directory)
    return Right.NONE if caller is None else caller.right


def signed(origin: Origin, envelope: Envelope, directory: Directory | None) -> Envelope:
    """`envelope`; with keys, an order in it says whose key gave it, whatever it says of itself."""
    order, caller = envelope.message, caller_of(origin, directory)
    if caller is None or not isinstance(order, Steer):
        return envelope
    return replace(envelope, message=replace(order, asker=f"{caller.name} ({order.asker})"[:64]))


def denied(origin: Origin, envelope: Envelope, directory: Directory | None) -> Denied | None:
    """Why `envelope` must not reach the machine; None when it may."""
    needed = NEEDS.get(type(envelope.message))
    if needed is not None:
        if right_of(origin, directory) >= needed:
            return None
        if directory is None:
            return Denied("forbidden", f"{_WORDS[needed]} is allowed from the node's own host only")
        return Denied("forbidden", f"{_WORDS[needed]} takes the right to {needed.name.lower()}, which this key lacks")
    if directory is None:
        return None
    caller = caller_of(origin, directory)
    if caller is None or not caller.node:
        return Denied("not_a_member")
    return None if caller.node == envelope.sender else Denied("not_the_keys_owner")
