"""A node's two sides towards Redis, and what is known of it, told when it changes: by the notice
board, and by the witness where only it sees what is wrong."""

from __future__ import annotations

from typing import Any

import zmq

from zelect.config.loading import Config
from zelect.core.settings import Settings
from zelect.redis.credentials import Access
from zelect.redis.errors import safe_url
from zelect.redis.registry_worker import Store, StoreState
from zelect.redis.witness_worker import WitnessClient
from zelect.system.log import Log

__all__ = ["RedisNews", "sides_of"]


def sides_of(
    context: zmq.Context[zmq.Socket[bytes]], config: Config, settings: Settings, access: Access, incarnation: int
) -> tuple[Store, WitnessClient]:
    """The notice board and the witness of process `incarnation`, neither started yet."""
    redis = config.redis
    store = Store(
        context,
        url=redis.url,
        ttl_ms=redis.ttl_ms,
        timeout_ms=redis.timeout_ms,
        cluster=settings.cluster,
        node=settings.node,
        address=settings.addresses[settings.node],
        incarnation=incarnation,
        roster=settings.addresses,
        access=access,
    )
    witness = WitnessClient(
        context,
        url=redis.url if settings.dynamic else "",
        timeout_ms=redis.timeout_ms,
        cluster=settings.cluster,
        node=settings.node,
        incarnation=incarnation,
        access=access,
    )
    return store, witness


class RedisNews:
    """`state`: the newest of the board."""

    def __init__(self, log: Log, config: Config) -> None:
        self.state = StoreState(up=False, published_term=0, published_id=0, problem="not asked yet")
        self._log = log
        self._url = config.redis.url
        self._verifies = config.redis.tls_verify
        self._witness_problem = ""

    def tell_start(self) -> None:
        if not self._verifies:
            mend = "anybody on the path can be that Redis: set redis.ca_file, and redis.tls_verify to true"
            self._log.event("warning", "redis_unverified", mend=mend)

    def hear_board(self, state: StoreState) -> None:
        before, self.state = self.state, state
        if (before.up, before.problem) != (state.up, state.problem):
            calm = (state.up and not state.problem) or not self._url
            level = "info" if calm else "warning"
            self._log.event(level, "store_up" if state.up else "store_down", problem=state.problem)

    def hear_witness(self, problem: str) -> None:
        """`problem`: of Redis as a witness, which counts while it is up: else the board says why."""
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
