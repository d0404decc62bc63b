"""The registry in Redis: the connection, and each intent as scripts.

Whoever uses it may hang in it; `zelect.redis.registry_worker` does so in a thread of its own.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any
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
from zelect.redis.credentials import Credentials
from zelect.redis.diagnostics import AUDIT, MOST_ENTRIES, Own, parse_findings
from zelect.redis.errors import safe_url
from zelect.redis.outbox import Job
from zelect.redis.registry_scripts import Keys, Reply, Script
from zelect.status.trace import plain_trace
from zelect.system.clock import now_us

if TYPE_CHECKING:
    import redis

__all__ = ["LeaseOver", "Publisher", "Registry", "connect"]

_OFFLINE = "offline"


@dataclass(frozen=True, slots=True)
class Publisher:
    """Who publishes, where, and how long things may take."""

    url: str
    ttl_ms: int
    timeout_ms: int
    cluster: str
    node: int
    address: str
    incarnation: int
    members: Mapping[int, str] = field(default_factory=dict)
    credentials: Credentials = field(default_factory=Credentials)


class LeaseOver(Exception):
    """Leadership to be published is over, as far as this node's clock tells."""


class Registry:
    """Carries out intents by scripts. Used by the worker only."""

    def __init__(self, who: Publisher) -> None:
        self._who = who
        self._keys = Keys.of(who.cluster)
        self._client = connect(who.url, who.timeout_ms / 1000, who.credentials)
        self._office = (0, 0)
        self._leadership_words: tuple[str | int, ...] = ()

    def close(self) -> None:
        """Drop the connection; the next call makes a new one."""
        self._client.connection_pool.disconnect()

    def carry_out(self, job: Job) -> Reply:
        """Raises what redis-py raises, `GarbledReply`, and `LeaseOver`."""
        who, intent, node = self._who, job.intent, str(self._who.node)
        match intent:
            case AskController():
                return self._run(registry_scripts.LOOK)
            case PublishController():
                return self._publish(intent, job.unix_ms)
            case WithdrawController(term, reason):
                message = json.dumps({"id": None, "term": term, "reason": reason})
                return self._run(registry_scripts.WITHDRAW, self._keys.changes, node, term, who.incarnation, message)
            case PublishNode():
                mine = {"address": who.address, "incarnation": who.incarnation, "seen_ms": job.unix_ms}
                entry = json.dumps(mine | asdict(intent))
                return self._run(registry_scripts.SELF, node, entry)
            case MarkOffline():
                return self._mark(intent)
            case Depart(last):
                return self._run(registry_scripts.DEPART, self._keys.changes, node, who.incarnation, int(last))

    def audit(self, wrote: bool) -> str:
        """What else is wrong, for people (see `zelect.redis.diagnostics`). Raises as `carry_out` does."""
        who, keys = self._who, self._keys
        names = (keys.controller, keys.nodes, keys.elections, keys.witness)
        value = self._evaluate(AUDIT, 0, *names, keys.changes, str(MOST_ENTRIES))
        user = who.credentials.username or urlsplit(who.url).username or "default"
        own = Own(who.cluster, who.node, who.incarnation, user, who.members, wrote)
        return parse_findings(value).problems(own, safe_url(who.url))

    def _publish(self, leadership: PublishController, since_ms: int) -> Reply:
        who, term = self._who, leadership.term
        # Connected first: what is void is judged after all the waiting that can be foreseen.
        pool = self._client.connection_pool
        pool.release(pool.get_connection())
        return self._run(
            registry_scripts.OFFICE,
            *(self._keys.changes, who.node, term, who.incarnation, who.address, since_ms, who.ttl_ms),
            *self._words(leadership),
            valid_until_us=leadership.valid_until_us,
        )

    def _words(self, leadership: PublishController) -> tuple[str | int, ...]:
        """The news of a leadership and the entry of its election; the same as long as it lasts."""
        if self._office != (leadership.term, leadership.active_since_us):
            gap_us, reason, trace = leadership.gap_us, leadership.reason.value, leadership.trace
            votes = trace.rounds[-1].votes if trace.rounds else ()
            self._office = (leadership.term, leadership.active_since_us)
            self._leadership_words = (
                json.dumps({"id": self._who.node, "term": leadership.term, "reason": reason}),
                *(leadership.previous, reason),
                f"{gap_us // 1000}.{gap_us % 1000:03d}" if gap_us >= 0 else "",
                json.dumps([asdict(vote) for vote in votes]),
                json.dumps(plain_trace(trace)),
            )
        return self._leadership_words

    def _mark(self, intent: MarkOffline) -> Reply:
        reply = self._run(registry_scripts.ENTRY, intent.node, "", "")
        for _ in range(3):  # the node itself may write its entry in between
            entry = registry_scripts.parse_entry(reply.more)
            if entry is None:
                return replace(reply, more=reply.more and f"garbage in Redis: the entry of node {intent.node}")
            if entry["term"] > intent.term:
                break
            changed = json.dumps({**entry, "status": _OFFLINE})
            reply = self._run(registry_scripts.ENTRY, intent.node, reply.more, changed)
            if reply.outcome == "done":
                break
        return replace(reply, more="")

    def _run(self, script: Script, *args: str | int, valid_until_us: int | None = None) -> Reply:
        keys = (self._keys.controller, self._keys.nodes, self._keys.elections)
        if valid_until_us is not None and now_us() >= valid_until_us:
            raise LeaseOver
        words = [*keys, *map(str, args)]
        return registry_scripts.parse_reply(self._evaluate(script, len(keys), *words, valid_until_us=valid_until_us))

    def _evaluate(self, script: Script, keys: int, *words: str, valid_until_us: int | None = None) -> object:
        from redis.exceptions import NoScriptError

        with contextlib.suppress(NoScriptError):
            return self._client.evalsha(script.sha, keys, *words)
        # EVAL also loads the script, and needs no permission for SCRIPT LOAD.
        if valid_until_us is not None and now_us() >= valid_until_us:
            raise LeaseOver
        return self._client.eval(script.text, keys, *words)


def connect(url: str, timeout_s: float, credentials: Credentials) -> redis.Redis:
    """A client with one connection at a time, made when it is first needed. Raises what redis-py
    raises for a URL that it can't use."""
    import redis
    from redis.backoff import NoBackoff
    from redis.connection import parse_url
    from redis.retry import Retry

    # Not Redis.from_url: there the URL's query overrides the arguments, time-outs and retries too.
    options: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
    for name in ("retry_on_error", "timeout", "max_connections"):
        options.pop(name, None)
    options |= credentials.options(tls=url.startswith("rediss://")) | {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_timeout": False,
        "health_check_interval": 0,
        # RESP 2 and no driver name: no greetings, each of which would cost a round trip.
        "protocol": 2,
        "driver_info": None,
        "decode_responses": False,
    }
    pool = redis.ConnectionPool(**options)
    pool.connection_class(**pool.connection_kwargs)  # refuses unknown options here and now
    return redis.Redis(connection_pool=pool)
