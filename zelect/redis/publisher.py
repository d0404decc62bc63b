"""What each intent writes to the registry: the scripts' arguments, and the checks around them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from urllib.parse import urlsplit

from zelect.core.effects import (
    AskController,
    Depart,
    MarkOffline,
    PublishController,
    PublishNode,
    WithdrawController,
)
from zelect.redis import registry_scripts
from zelect.redis.connection import RedisConnection
from zelect.redis.diagnostics import AUDIT, Own, audit_words, parse_findings
from zelect.redis.errors import safe_url
from zelect.redis.outbox import Job
from zelect.redis.registry_scripts import Keys, RegistryReply, parse_node, parse_reply
from zelect.redis.scripts import Script
from zelect.redis.worker import Known, RedisSettings
from zelect.status.election import stream_fields
from zelect.system.clock import now_us, unix_ms

_OFFLINE = "offline"


class LeaseOver(Exception):
    """The lease of the leadership to be published is over, by this node's clock."""


class Publisher:
    """Used by the worker only, except `known`, which may be replaced at any time."""

    def __init__(self, connection: RedisConnection, settings: RedisSettings) -> None:
        self._connection, self._settings = connection, settings
        self._keys = Keys.of(settings.cluster)
        self.known = Known(settings.members, 0)
        self._leadership = (0, 0)
        self._leadership_words: tuple[str | int, ...] = ()

    def carry_out(self, job: Job) -> RegistryReply:
        """Raises what redis-py raises, `UnusableUrl`, `GarbledReply`, and `LeaseOver`."""
        intent, node, incarnation = job.intent, self._settings.node, self._settings.incarnation
        match intent:
            case AskController():
                return self._run(registry_scripts.READ_CONTROLLER)
            case PublishController():
                return self._publish(intent, job.unix_ms)
            case WithdrawController(term, reason):
                message = json.dumps({"id": None, "term": term, "reason": reason})
                words = (self._keys.changes, node, term, incarnation, message)
                return self._run(registry_scripts.WITHDRAW_CONTROLLER, *words)
            case PublishNode():
                own = {"address": self._settings.address, "incarnation": incarnation, "seen_ms": job.unix_ms}
                if self.known.cluster_id:
                    own["cluster_id"] = f"{self.known.cluster_id:x}"
                return self._run(registry_scripts.PUBLISH_NODE, node, json.dumps(own | asdict(intent)))
            case MarkOffline():
                return self._mark_offline(intent)
            case Depart(last):
                return self._run(registry_scripts.REMOVE_NODE, self._keys.changes, node, incarnation, int(last))

    def audit(self, known: Known, wrote: bool) -> str:
        """What else is wrong, for people (see `zelect.redis.diagnostics`), by what is `known` of the cluster. `wrote`:
        this process has written its entry. Raises as `carry_out` does."""
        settings = self._settings
        value = self._connection.run(AUDIT, 0, audit_words(settings.cluster))
        user = settings.credentials.username or urlsplit(settings.url).username or "default"
        own = Own.of(settings, user, known, wrote, unix_ms())
        return parse_findings(value).problems(own, safe_url(settings.url))

    def _publish(self, leadership: PublishController, since_ms: int) -> RegistryReply:
        def still_valid() -> None:
            if now_us() >= leadership.valid_until_us:
                raise LeaseOver

        self._connection.open()  # first, so that the lease is judged after all waits that can be foreseen
        return self._run(
            registry_scripts.PUBLISH_CONTROLLER,
            *(self._keys.changes, self._settings.node, leadership.term, self._settings.incarnation),
            *(self._settings.address, since_ms, self._settings.ttl_ms),
            *self._words(leadership),
            f"{leadership.cluster_id:x}",
            before=still_valid,
            more_keys=(self._keys.identity,),
        )

    def _words(self, leadership: PublishController) -> tuple[str | int, ...]:
        """The message about a leadership and the entry of its election; the same as long as it lasts."""
        if self._leadership != (leadership.term, leadership.active_since_us):
            gap_us, reason, trace = leadership.gap_us, leadership.reason.value, leadership.trace
            self._leadership = (leadership.term, leadership.active_since_us)
            self._leadership_words = (
                json.dumps({"id": self._settings.node, "term": leadership.term, "reason": reason}),
                *(leadership.previous, reason),
                f"{gap_us // 1000}.{gap_us % 1000:03d}" if gap_us >= 0 else "",
                *stream_fields(trace),
            )
        return self._leadership_words

    def _mark_offline(self, intent: MarkOffline) -> RegistryReply:
        reply = self._run(registry_scripts.REPLACE_NODE, intent.node, "", "")
        for _ in range(3):  # the node itself may write its entry in between
            entry = parse_node(reply.more)
            if entry is None:
                return replace(reply, more=reply.more and f"garbage in Redis: the entry of node {intent.node}")
            if entry["term"] > intent.term:
                break
            changed = json.dumps({**entry, "status": _OFFLINE})
            reply = self._run(registry_scripts.REPLACE_NODE, intent.node, reply.more, changed)
            if reply.outcome == "done":
                break
        return replace(reply, more="")

    def _run(
        self,
        script: Script,
        *words: str | int,
        before: Callable[[], None] = lambda: None,
        more_keys: tuple[str, ...] = (),
    ) -> RegistryReply:
        keys = [self._keys.controller, self._keys.nodes, self._keys.elections, *more_keys]
        return parse_reply(self._connection.run(script, len(keys), [*keys, *map(str, words)], before))
