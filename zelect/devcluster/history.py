"""The last elections of a local cluster, for the live view."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from zelect.devcluster.layout import ClusterPlan
from zelect.redis.connection import connect
from zelect.redis.credentials import Credentials
from zelect.status.election import Election, read_elections
from zelect.status.report import NodeReport

if TYPE_CHECKING:
    from redis import Redis

_ENTRY_WITHIN_S = 1.0
_READ = 5
_REDIS_WITHIN_S = 0.1


class History:
    """The elections: from Redis, which has them all with reasons and gaps; without Redis, what was seen from
    here. Redis is asked only after a change; when it hangs that takes 0.1 s, once in two seconds."""

    def __init__(self) -> None:
        self._elections: dict[int, Election] = {}
        self._due: dict[int, float] = {}
        self._not_before = 0.0
        self._client: Redis | None = None
        self._last_id = 0

    def update(self, plan: ClusterPlan, active: NodeReport | None) -> None:
        """Node `active` of the cluster of `plan` is active: learn of its election."""
        if active is None or active.term in self._elections:
            return
        now = time.monotonic()
        due = self._due.setdefault(active.term, now + _ENTRY_WITHIN_S)
        if now >= self._not_before:
            self._read(plan)
        if active.term not in self._elections and now > due:
            self._add(Election(active.term, active.id, self._last_id, "seen", None, active.since_ms or 0, None))

    def _read(self, plan: ClusterPlan) -> None:
        try:
            if self._client is None:
                self._client = connect(plan.url, _REDIS_WITHIN_S, Credentials())
            newest, _ = read_elections(self._client, plan.name, _READ)
        except Exception:  # whatever that Redis does or answers must not end the cluster
            self._not_before = time.monotonic() + 2
            return
        for election in reversed(newest):
            self._add(election)

    def _add(self, election: Election) -> None:
        self._elections[election.term] = election
        self._last_id = election.id

    def of_term(self, term: int) -> Election | None:
        """The election of `term`, once it is known."""
        return self._elections.get(term)

    def last(self, count: int) -> list[Election]:
        """The newest `count` elections, newest first."""
        return [self._elections[term] for term in sorted(self._elections, reverse=True)[:count]]
