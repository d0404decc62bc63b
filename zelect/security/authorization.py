"""Who may say what: the one place where it is decided.

With keys, a connection's key says who speaks (the authenticator wrote it on every message, see door.py):
members speak as themselves and nobody else, operators ask and admin as far as the directory lets
them. Without keys nobody is known, so whoever sits on the node's own host may ask and admin, and
others may not.

`permission_of` is for whoever adds a way to ask or admin; a message type that is no member's has a line
in `NEEDS`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from zelect.core.messages import AdminCommand, Envelope, Message, Query, Reset
from zelect.security.keys import Caller, Directory, Permission

__all__ = ["NEEDS", "Denied", "Origin", "Permission", "caller_of", "denied", "permission_of", "signed"]

NEEDS: dict[type[Message], Permission] = {
    Query: Permission.READ,
    Reset: Permission.ADMIN,
    AdminCommand: Permission.ADMIN,
}
"""What it takes to say something that no member says. All other messages are members' own."""

_WORDS = {Permission.READ: "asking", Permission.ADMIN: "admin commands"}


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


def permission_of(origin: Origin, directory: Directory | None) -> Permission:
    """What whoever speaks may do besides speaking as a member. `directory`: None in plain text."""
    if directory is None:
        return Permission.ADMIN if origin.is_local else Permission.NONE
    caller = caller_of(origin, directory)
    return Permission.NONE if caller is None else caller.permission


def signed(origin: Origin, envelope: Envelope, directory: Directory | None) -> Envelope:
    """`envelope`; with keys, an order in it says whose key gave it, whatever it says of itself."""
    order, caller = envelope.message, caller_of(origin, directory)
    if caller is None or not isinstance(order, AdminCommand):
        return envelope
    return replace(envelope, message=replace(order, asker=f"{caller.name} ({order.asker})"[:64]))


def denied(origin: Origin, envelope: Envelope, directory: Directory | None) -> Denied | None:
    """Why `envelope` must not reach the machine; None when it may."""
    needed = NEEDS.get(type(envelope.message))
    if needed is not None:
        if permission_of(origin, directory) >= needed:
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
