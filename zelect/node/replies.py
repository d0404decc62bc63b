"""What a node says to the command line, over the connection that it was asked on; peers are never
answered so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zelect import wire
from zelect.core.messages import CommonResp, Envelope, Report, Result, type_of
from zelect.node.transport.router import Received
from zelect.security.authorization import Denied, caller_of

if TYPE_CHECKING:
    from zelect.node.loop import NodeLoop

__all__ = ["deny", "reply"]


def reply(node: NodeLoop, route: bytes, message: Report | CommonResp) -> None:
    """Answer with `message`; dropped, and counted, when nobody is there any more."""
    saved = node.machine.state.saved
    envelope = Envelope(
        cluster=node.settings.cluster,
        sender=node.settings.node,
        incarnation=saved.incarnation,
        settings=node.settings.digest(),
        generation=saved.record.generation,
        term=saved.term,
        message=message,
    )
    node.transport.reply(route, wire.encode(envelope))


def deny(node: NodeLoop, received: Received, envelope: Envelope, no: Denied) -> None:
    """Count and log that `envelope` goes no further; say so where there is something to say."""
    node.counters[f"refused_{no.reason}"] += 1
    caller = caller_of(received, node.directory)
    about = type_of(envelope.message)
    details = {"type": about.name, "sender": envelope.sender, "reason": no.reason, "origin": received.origin}
    node.log.limited(no.reason, "warning", "message_denied", **details, key_of=caller.name if caller else "nobody")
    if no.detail:
        reply(node, received.route, CommonResp(int(about), Result.FORBIDDEN, no.detail))
