"""What stands in Redis about a cluster, and threads that watch it and the vote file all along."""

from __future__ import annotations

import contextlib
import json
import threading
from typing import Any

import redis

from tests.support.clusters import Cluster
from tests.support.waiting import wait_until
from zelect.node.storage.vote_store import VoteStoreError
from zelect.status.report import NodeReport

__all__ = ["Registry", "TermWatch", "VoteWatch"]


class Registry:
    """What stands in Redis about cluster `name`."""

    def __init__(self, url: str, name: str) -> None:
        self.client: Any = redis.Redis.from_url(url, decode_responses=True, socket_timeout=5)
        self.client_bytes: Any = redis.Redis.from_url(url, socket_timeout=5)
        self._prefix = f"zelect:{{{name}}}:"
        self.changes = self._prefix + "changes"

    def key(self, part: str) -> str:
        return self._prefix + part

    def record(self) -> dict[str, str]:
        return dict(self.client.hgetall(self.key("controller")))

    def nodes(self) -> dict[int, dict[str, Any]]:
        entries: dict[str, str] = self.client.hgetall(self.key("nodes"))
        return {int(node): json.loads(entry) for node, entry in entries.items()}

    def elections(self) -> list[dict[str, str]]:
        entries = self.client.xrange(self.key("elections"))
        return [fields for _, fields in entries]

    def names(self, head: NodeReport) -> bool:
        """Whether the record is that of `head`."""
        record = self.record()
        return (record.get("id"), record.get("term")) == (str(head.id), str(head.term))

    def published(self, head: NodeReport) -> dict[str, str]:
        """Wait for the record of `head`."""
        wait_until(lambda: self.names(head), 20, what=f"the record of node {head.id}, term {head.term}")
        return self.record()


class _Watch:
    """A thread that looks again and again; what it saw is judged by `stop`."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(0.003):
            self.look()

    def look(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        self._over.set()
        self._thread.join(30)


class TermWatch(_Watch):
    """Reads the controller's record all the time; `seen` holds each change as (term, id), `absent` the
    number of looks at which there was none although there had been one."""

    def __init__(self, registry: Registry) -> None:
        self._key = registry.key("controller")
        options = registry.client.connection_pool.connection_kwargs
        self._client = redis.Redis(host=options["host"], port=options["port"], socket_timeout=0.3)
        self.seen: list[tuple[int, int]] = []
        self.looks = self.absent = 0
        super().__init__()

    def look(self) -> None:
        with contextlib.suppress(redis.RedisError):
            raw: Any = self._client.hmget(self._key, "term", "id")
            self.looks += 1
            if raw[0] is None:
                self.absent += bool(self.seen)
            elif not self.seen or self.seen[-1] != (int(raw[0]), int(raw[1])):
                self.seen.append((int(raw[0]), int(raw[1])))

    def stop(self) -> None:
        """Fails unless every record was of a newer term than the one before (S3)."""
        super().stop()
        terms = [term for term, _ in self.seen]
        assert self.looks
        assert terms == sorted(set(terms)), f"the record went back, or changed hands within a term: {self.seen}"


class VoteWatch(_Watch):
    """Reads the vote files of `cluster` all the time; `votes` maps (node, term) to the votes."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.votes: dict[tuple[int, int], set[int]] = {}
        self.terms: dict[int, list[int]] = {node: [] for node in cluster.ids}
        super().__init__()

    def look(self) -> None:
        for node in self._cluster.ids:
            with contextlib.suppress(VoteStoreError, OSError):  # not there yet, or being written
                saved = self._cluster.saved(node)
                self.terms[node].append(saved.term)
                if saved.voted_for:
                    self.votes.setdefault((node, saved.term), set()).add(saved.voted_for)

    def stop(self) -> None:
        """Fails when a node voted twice in a term, or its term fell (R1, R2)."""
        super().stop()
        twice = {key: votes for key, votes in self.votes.items() if len(votes) > 1}
        assert not twice, f"(node, term) to votes: {twice}"
        assert self.votes
        for node, terms in self.terms.items():
            assert terms == sorted(terms), f"the saved term of node {node} fell"
