"""A node's two clients of Redis, and what is known of it, logged when it changes: as the registry sees it,
and as the witness does where only that sees what is wrong."""

from __future__ import annotations

from dataclasses import replace

import zmq

from zelect.config.loading import Config
from zelect.core.events import ControllerHint
from zelect.core.settings import Settings
from zelect.redis.credentials import Credentials
from zelect.redis.errors import safe_url
from zelect.redis.registry import RegistryClient, RegistryHint, RegistryStatus
from zelect.redis.witness import WitnessClient, WitnessEvent
from zelect.redis.worker import RedisSettings
from zelect.status.report import RedisReport
from zelect.system.log import Log


class RedisClients:
    """The `registry` and the `witness` of process `incarnation`, and what is known of Redis. `secret`: what the
    nodes share (empty: nothing). Use from the node's
    thread; `start` first, at the end `close`."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        config: Config,
        settings: Settings,
        credentials: Credentials,
        incarnation: int,
        log: Log,
        secret: bytes = b"",
    ) -> None:
        redis = RedisSettings(
            url=config.redis.url,
            timeout_ms=config.redis.timeout_ms,
            ttl_ms=config.redis.ttl_ms,
            cluster=settings.cluster,
            node=settings.node,
            address=settings.addresses[settings.node],
            incarnation=incarnation,
            members=settings.addresses,
            credentials=credentials,
            promise_ms=settings.timing.election_timeout_ms,
            secret=secret,
            trusting=not config.security.key_file,
        )
        self.registry = RegistryClient(context, redis)
        self.witness = WitnessClient(context, redis if settings.dynamic else replace(redis, url=""))
        self._status = RegistryStatus(up=False, published_term=0, published_id=0, problem="not asked yet")
        self._witness_problem = ""
        self._log = log
        self._url = config.redis.url
        self._verifies = config.redis.tls_verify

    def start(self) -> None:
        """Start the threads, and log what is unusual about the configuration."""
        self.registry.start()
        self.witness.start()
        if not self._verifies:
            fix = "anybody on the path can pose as that Redis: set redis.ca_file, and redis.tls_verify to true"
            self._log.event("warning", "redis_not_verified", fix=fix)

    def close(self) -> None:
        """Write what is still to be written, but not for long, and end the threads."""
        self.witness.close(within_s=0.1)
        self.registry.close(within_s=0.5)

    def receive_registry(self) -> list[ControllerHint]:
        """Who Redis says is controller, when that was asked. Changes of Redis' state are logged."""
        hints = []
        for event in self.registry.receive():
            if isinstance(event, RegistryHint):
                hints.append(ControllerHint(event.controller, event.term))
            else:
                self._log_change(event)
        return hints

    def receive_witness(self) -> list[WitnessEvent]:
        """What the witness answered. Its problems count while the registry has none: else that says why."""
        events = self.witness.receive()
        problem = self.witness.problem if self._status.up else ""
        if problem != self._witness_problem:
            self._witness_problem = problem
            level, name = ("warning", "witness_failed") if problem else ("info", "witness_recovered")
            self._log.limited(name, level, name, problem=problem)
        return events

    def _log_change(self, status: RegistryStatus) -> None:
        before, self._status = self._status, status
        if (before.up, before.problem) != (status.up, status.problem):
            fine = (status.up and not status.problem) or not self._url
            level = "info" if fine else "warning"
            self._log.event(level, "redis_connected" if status.up else "redis_failed", problem=status.problem)

    def report(self) -> RedisReport:
        """For `zelect status`."""
        problems = (self._status.problem, self._witness_problem) if self._url else ()
        return RedisReport(
            url=safe_url(self._url),
            state="up" if self._status.up else "down" if self._url else "unused",
            published_term=self._status.published_term or None,
            problem="; ".join(dict.fromkeys(filter(None, problems))),
        )
