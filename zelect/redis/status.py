"""A node's two clients of Redis, and what is known of it, logged when it changes: as the registry sees it,
and as the witness does where only that sees what is wrong."""

from __future__ import annotations

from dataclasses import replace

import zmq

from zelect.config.loading import Config
from zelect.core.settings import Settings
from zelect.redis.credentials import Credentials
from zelect.redis.errors import safe_url
from zelect.redis.registry import RegistryClient, RegistryStatus
from zelect.redis.witness import WitnessClient
from zelect.redis.worker import RedisSettings
from zelect.status.report import RedisReport
from zelect.system.log import Log

__all__ = ["RedisStatus", "redis_clients"]


def redis_clients(
    context: zmq.Context[zmq.Socket[bytes]],
    config: Config,
    settings: Settings,
    credentials: Credentials,
    incarnation: int,
) -> tuple[RegistryClient, WitnessClient]:
    """The registry and the witness of process `incarnation`, neither started yet."""
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
    )
    return RegistryClient(context, redis), WitnessClient(context, redis if settings.dynamic else replace(redis, url=""))


class RedisStatus:
    """`registry`: its newest status."""

    def __init__(self, log: Log, config: Config) -> None:
        self.registry = RegistryStatus(up=False, published_term=0, published_id=0, problem="not asked yet")
        self._log = log
        self._url = config.redis.url
        self._verifies = config.redis.tls_verify
        self._witness_problem = ""

    def log_start(self) -> None:
        if not self._verifies:
            fix = "anybody on the path can pose as that Redis: set redis.ca_file, and redis.tls_verify to true"
            self._log.event("warning", "redis_not_verified", fix=fix)

    def hear_registry(self, status: RegistryStatus) -> None:
        before, self.registry = self.registry, status
        if (before.up, before.problem) != (status.up, status.problem):
            fine = (status.up and not status.problem) or not self._url
            level = "info" if fine else "warning"
            self._log.event(level, "redis_connected" if status.up else "redis_failed", problem=status.problem)

    def hear_witness(self, problem: str) -> None:
        """`problem`: of Redis as a witness, which counts while it is up: else the registry says why."""
        problem = problem if self.registry.up else ""
        if problem != self._witness_problem:
            self._witness_problem = problem
            level, name = ("warning", "witness_failed") if problem else ("info", "witness_recovered")
            self._log.limited(name, level, name, problem=problem)

    def report(self) -> RedisReport:
        """For `zelect status`."""
        return RedisReport(
            url=safe_url(self._url),
            state="up" if self.registry.up else "down",
            published_term=self.registry.published_term or None,
            problem="; ".join(dict.fromkeys(filter(None, (self.registry.problem, self._witness_problem)))),
        )
