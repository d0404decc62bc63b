"""Clusters of real node processes for tests, ended by pid whatever happens.

A test gets a `Fleet`, which makes clusters, ends them afterwards, prints the ends of their logs
when the test failed, and looks in all logs for what must never be there: two winners of one term,
two votes of one node in one term, a broken rule, a traceback.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT
from tests.support.waiting import wait_until
from tools.common.nodes import NodeProcesses
from zelect.client.query import ask_all
from zelect.config.loading import Config, load
from zelect.core.effects import Saved
from zelect.node.storage.vote_store import newest_slot
from zelect.security.key_files import SECRET_FILE, Owner, secret_file
from zelect.security.keys import Keyring, Permission, keyring_to_ask
from zelect.status.cluster import controller_of
from zelect.status.report import NodeReport

__all__ = ["CALM", "OPERATOR", "READER", "ROOT", "Cluster", "Fleet", "fleet_of", "holds_for", "zelect"]

HOST = "127.0.0.1"
CALM: Mapping[str, int | str] = {
    "heartbeat_ms": 250,
    "lease_ms": 2500,
    "election_timeout_ms": 3000,
    "stagger_ms": 300,
    "down_after_ms": 6000,
}
"""Timings for tests in which nothing may change although the machine is busy."""
_TAIL_LINES = 40
OPERATOR = Owner(operator="steerer")
READER = Owner(operator="reader", permission=Permission.READ)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def zelect(
    *arguments: str | Path | int, prefix: Collection[str] = (), typed: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end; `prefix` is a command that executes the rest, `typed` what
    it reads before the end of its input."""
    command = [*prefix, sys.executable, "-m", "zelect", *map(str, arguments)]
    return subprocess.run(command, env=_environment(), input=typed, capture_output=True, text=True, timeout=60)


def holds_for(condition: Callable[[], object], seconds: float, what: str = "") -> int:
    """Fail when `condition` is false at any look in `seconds`; returns the number of looks."""
    end, looks = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        assert condition(), f"did not hold for {seconds} s: {what}"
        looks += 1
        time.sleep(0.01)
    return looks


class Cluster(NodeProcesses):
    """Nodes `ids` in `directory`, configured and not started yet. `timing`: what differs from the defaults."""

    def __init__(
        self,
        directory: Path,
        name: str,
        ids: Iterable[int] = (1, 2, 3),
        redis_url: str = "",
        timing: Mapping[str, int | str] | None = None,
        quorum: str = "dynamic",
        secure: bool = False,
    ) -> None:
        super().__init__(directory, name, ids, redis_url, None, quorum, (OPERATOR, READER) if secure else None)
        for node in self.ids:
            self.write(node, timing)

    # -- files ----------------------------------------------------------------------------

    def security(self, node: int) -> dict[str, str]:
        operator = {"operator_key_file": str(secret_file(self.keys, OPERATOR))}
        return super().security(node) | operator | {"secret_file": str(self.keys / SECRET_FILE)}

    @property
    def keyring(self) -> Keyring | None:
        """What an operator who may send admin commands speaks with; None: plain text."""
        return keyring_to_ask(self.config(self.ids[0]))

    def config(self, node: int) -> Config:
        return load(self.conf(node))

    def events(self, node: int, *names: str) -> list[dict[str, Any]]:
        """The log lines of `node` called `names` (none: all), oldest first."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for line in self.log_of(node).read_text(errors="replace").splitlines():
                with contextlib.suppress(ValueError):
                    fact = json.loads(line)
                    if not names or fact["event"] in names:
                        found.append(fact)
        return found

    def saved(self, node: int) -> Saved:
        """What is durable in the vote file of `node`; raises `VoteStoreError` while it is written."""
        return newest_slot((self.data_dirs[node] / "vote").read_bytes(), self.name, node).saved

    # -- processes ------------------------------------------------------------------------

    def term(self, *nodes: int) -> None:
        self.signal(signal.SIGTERM, *nodes)

    def freeze(self, *nodes: int) -> None:
        self.signal(signal.SIGSTOP, *nodes)

    def thaw(self, *nodes: int) -> None:
        self.signal(signal.SIGCONT, *nodes)

    # -- questions ------------------------------------------------------------------------

    def reports(self, within_s: float = 1.0) -> dict[int, NodeReport]:
        return ask_all(self.name, self.addresses, within_s, keyring=self.keyring)

    def active(self, within_s: float = 0.4) -> NodeReport | None:
        """Who says of itself that it is active."""

        def enough(reports: Mapping[int, NodeReport]) -> bool:
            return controller_of(reports) is not None

        some = ask_all(self.name, self.addresses, within_s, enough, self.keyring)
        return controller_of(some)

    def controller(self, term_above: int = 0, within_s: float = 40.0) -> NodeReport:
        """Wait for a node active, of a term above `term_above`."""

        def found() -> NodeReport | None:
            head = self.active()
            return head if head is not None and head.term > term_above else None

        head = wait_until(found, within_s, what=f"a controller of a term above {term_above}")
        assert head is not None
        return head

    def settled(self, *nodes: int, term_above: int = 0) -> NodeReport:
        """Wait until one of `nodes` (all without any) is active and the others follow it. Without
        `term_above` each of them has a voting right too: one that the first controller has not heard yet
        has none, and should that controller be lost before, nobody could be elected (R10). And all are
        connected, or the first in succession might not find its voters in time."""
        nodes = nodes or self.ids

        def found() -> NodeReport | None:
            head = self.active()
            if head is None or head.term <= term_above or head.id not in nodes:
                return None
            said = [self.ask(node) for node in nodes]
            agreed = all((one.get("controller"), one.get("term")) == (head.id, head.term) for one in said)
            if agreed and not term_above:
                linked = all(peer["linked"] for one in said for peer in one["peers"] if peer["id"] in nodes)
                agreed = linked and all(one["belongs"] == "voter" for one in said)
            return head if agreed else None

        head = wait_until(found, 40.0, what=f"nodes {nodes} agree, term above {term_above}")
        assert head is not None
        return head

    def found(self) -> None:
        """Found the cluster, which takes all nodes (R15), and kill them: what follows may start some of them."""
        self.start()
        self.settled()
        self.kill(*self.ids)

    def adapted(self, *nodes: int, members: Iterable[int] = ()) -> NodeReport:
        """Wait until one of `nodes` is active, and all of them have the voters that it wrote
        in its term: `members` (none named: `nodes`), with the witness where their number is even."""
        wanted = sorted(members or nodes)
        witness = "member" if len(wanted) % 2 == 0 else "ready"
        heard: list[object] = []

        def found() -> NodeReport | None:
            head = self.active()
            said = {node: self.ask(node) for node in nodes}
            heard[:] = [{node: (one.get("term"), one.get("voters")) for node, one in said.items()}]
            if head is None or head.id not in nodes or not all(said.values()):
                return None
            one = said[head.id]["voters"]
            right = (one["config_term"], one["members"], one["witness"]) == (head.term, wanted, witness)
            same = all(
                report["controller"] == head.id and report["voters"] | {"survives": 0} == one | {"survives": 0}
                for report in said.values()
            )
            return head if right and same else None

        try:
            head = wait_until(found, 40.0)
        except AssertionError as error:
            raise AssertionError(f"nodes {nodes} never had members {wanted}, witness {witness}: {heard}") from error
        assert head is not None
        return head

    def ask(self, node: int, within_s: float = 2.0) -> dict[str, Any]:
        """The whole report of `node`; empty when it gives none in time."""
        with self.dealer(node, OPERATOR) as dealer:
            dealer.send(self.question)
            return self.answer(dealer, within_s) or {}

    def counters(self, node: int) -> Counter[str]:
        return Counter(self.ask(node)["counters"])

    # -- afterwards -----------------------------------------------------------------------

    def wrongs(self) -> list[str]:
        """What the logs hold that must never be there (S1, R2)."""
        found, votes, winners = [], dict[tuple[int, int], int](), dict[int, int]()
        for node in self.ids:
            with contextlib.suppress(FileNotFoundError):
                if "Traceback" in self.log_of(node).read_text(errors="replace"):
                    found.append(f"node {node} ended with a traceback")
            for fact in self.events(node, "vote_granted", "elected"):
                term = fact["term"]
                if fact["event"] == "elected" and winners.setdefault(term, node) != node:
                    found.append(f"nodes {winners[term]} and {node} were elected in term {term}")
                vote = node if fact["event"] == "elected" else fact["candidate"]
                if not fact.get("pre") and votes.setdefault((node, term), vote) != vote:
                    found.append(f"node {node} voted for {votes[node, term]} and {vote} in term {term}")
        return found


class Fleet:
    """Makes clusters under `directory`, with names of their own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.clusters: list[Cluster] = []

    def cluster(
        self,
        ids: Iterable[int] = (1, 2, 3),
        redis_url: str = "",
        timing: Mapping[str, int | str] | None = None,
        quorum: str = "dynamic",
        secure: bool = False,
    ) -> Cluster:
        name = f"{self._directory.name}-{len(self.clusters)}"[-64:]
        made = Cluster(self._directory / f"cluster{len(self.clusters)}", name, ids, redis_url, timing, quorum, secure)
        self.clusters.append(made)
        return made


@contextlib.contextmanager
def fleet_of(request: pytest.FixtureRequest, directory: Path) -> Iterator[Fleet]:
    """The body of a fixture; ends every cluster, and fails the test when a log is wrong."""
    failed_before, fleet = request.session.testsfailed, Fleet(directory)
    try:
        yield fleet
    finally:
        for cluster in fleet.clusters:
            cluster.end()
        wrongs = [wrong for cluster in fleet.clusters for wrong in cluster.wrongs()]
        if wrongs or request.session.testsfailed > failed_before:
            print("\n".join(cluster.tails(_TAIL_LINES) for cluster in fleet.clusters))
    assert not wrongs, wrongs
