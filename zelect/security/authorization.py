"""Which messages a sender may send: the one place where that is decided.

With keys, a connection's key says who the sender is (the authenticator put it on every message): a
member may send as itself only, an operator may read or give admin commands as far as the directory permits.
Without keys senders are not known: clients on the node's own host may read and give admin commands,
others may not.

`permission_of` is for whatever adds another way to read or to give admin commands; a message type that
clients send has a line in `NEEDS`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from zelect.core.messages import AdminCommand, Bootstrap, Envelope, MemberChange, Message, Query, Reset
from zelect.security.keys import Caller, Directory, Permission

NEEDS: dict[type[Message], Permission] = {
    Query: Permission.READ,
    Reset: Permission.ADMIN,
    AdminCommand: Permission.ADMIN,
    MemberChange: Permission.ADMIN,
    Bootstrap: Permission.ADMIN,
}
"""The permission that a client's message needs. All other messages are members' own."""

OWN_HOST_ONLY = "is allowed from the node's own host only"
"""Why a node in plain text does not answer commands from other hosts: so it should be."""
_WORDS = {Permission.READ: "reading", Permission.ADMIN: "sending admin commands"}


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
    """Whose key `origin` has; None where there is no directory, or the key has been removed from it."""
    return None if directory is None else directory.owners.get(origin.key)


def permission_of(origin: Origin, directory: Directory | None) -> Permission:
    """What the sender may do besides sending as a member. `directory`: None in plain text."""
    if directory is None:
        return Permission.ADMIN if origin.is_local else Permission.NONE
    caller = caller_of(origin, directory)
    return Permission.NONE if caller is None else caller.permission


def signed(origin: Origin, envelope: Envelope, directory: Directory | None) -> Envelope:
    """`envelope`; with keys, an admin command in it names the owner of the key that it came with."""
    command, caller = envelope.message, caller_of(origin, directory)
    if caller is None or not isinstance(command, AdminCommand):
        return envelope
    return replace(envelope, message=replace(command, asker=f"{caller.name} ({command.asker})"[:64]))


def denied(origin: Origin, envelope: Envelope, directory: Directory | None) -> Denied | None:
    """Why `envelope` must not reach the machine; None when it may."""
    needed = NEEDS.get(type(envelope.message))
    if needed is not None:
        if permission_of(origin, directory) >= needed:
            return None
        if directory is None:
            return Denied("forbidden", f"{_WORDS[needed]} {OWN_HOST_ONLY}")
        return Denied("forbidden", f"{_WORDS[needed]} needs the permission {needed.name.lower()}, which this key lacks")
    if directory is None:
        return None
    caller = caller_of(origin, directory)
    if caller is None or not caller.node:
        return Denied("not_a_member")
    return None if caller.node == envelope.sender else Denied("not_the_keys_owner")
