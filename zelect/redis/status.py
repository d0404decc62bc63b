"""A node's two sides towards Redis, and what is known of it, told when it changes: by the notice
registry, and by the witness where only it sees what is wrong."""

from __future__ import annotations

from typing import Any

import zmq

from zelect.config.loading import Config
from zelect.core.settings import Settings
from zelect.redis.credentials import Credentials
from zelect.redis.errors import safe_url
from zelect.redis.registry_worker import RegistryState, RegistryWorker
from zelect.redis.witness_worker import WitnessClient
from zelect.system.log import Log

__all__ = ["RedisStatus", "sides_of"]


def sides_of(
    context: zmq.Context[zmq.Socket[bytes]],
    config: Config,
    settings: Settings,
    credentials: Credentials,
    incarnation: int,
) -> tuple[RegistryWorker, WitnessClient]:
    """The registry and the witness of process `incarnation`, neither started yet."""
    redis = config.redis
    store = RegistryWorker(
        context,
        url=redis.url,
        ttl_ms=redis.ttl_ms,
        timeout_ms=redis.timeout_ms,
        cluster=settings.cluster,
        node=settings.node,
        address=settings.addresses[settings.node],
        incarnation=incarnation,
        members=settings.addresses,
        credentials=credentials,
    )
    witness = WitnessClient(
        context,
        url=redis.url if settings.dynamic else "",
        timeout_ms=redis.timeout_ms,
        cluster=settings.cluster,
        node=settings.node,
        incarnation=incarnation,
        credentials=credentials,
    )
    return store, witness


class RedisStatus:
    """`state`: the newest of the registry."""

    def __init__(self, log: Log, config: Config) -> None:
        self.state = RegistryState(up=False, published_term=0, published_id=0, problem="not asked yet")
        self._log = log
        self._url = config.redis.url
        self._verifies = config.redis.tls_verify
        self._witness_problem = ""

    def tell_start(self) -> None:
        if not self._verifies:
            fix = "anybody on the path can be that Redis: set redis.ca_file, and redis.tls_verify to true"
            self._log.event("warning", "redis_unverified", fix=fix)

    def hear_registry(self, state: RegistryState) -> None:
        before, self.state = self.state, state
        if (before.up, before.problem) != (state.up, state.problem):
            calm = (state.up and not state.problem) or not self._url
            level = "info" if calm else "warning"
            self._log.event(level, "store_up" if state.up else "store_down", problem=state.problem)

    def hear_witness(self, problem: str) -> None:
        """`problem`: of Redis as a witness, which counts while it is up: else the registry says why."""
        problem = problem if self.state.up else ""
        if problem != self._witness_problem:
            self._witness_problem = problem
            level, name = ("warning", "witness_troubled") if problem else ("info", "witness_recovered")
            self._log.limited(name, level, name, problem=problem)

    def report(self) -> dict[str, Any]:
        """For `zelect status`."""
        return {
            "url": safe_url(self._url),
            "state": "up" if self.state.up else "down",
            "published_term": self.state.published_term or None,
            "problem": "; ".join(dict.fromkeys(filter(None, (self.state.problem, self._witness_problem)))),
        }
