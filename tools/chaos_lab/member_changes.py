"""What an operator does to a running cluster, while faults happen: the commands that a person would give, given again
where one is refused or not done in time.

Each change is a generator: it goes on a little at each turn, and yields while it waits. The log says what was asked
for, what each command answered, and when the change was done.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Generator, Mapping
from functools import partial

from tools.chaos_lab.fault import Misbehaved
from tools.chaos_lab.walked_cluster import WalkedCluster
from tools.common.checkout import THIS
from zelect.devcluster.layout import HOST
from zelect.status.cluster import controller_of
from zelect.status.problems import problems
from zelect.system.clock import now_us

_PATIENCE_US = 180_000_000
"""So long an operator tries, the longest freeze included."""
_AGAIN_US = 300_000
_COMMAND_S = 5
_RECENT_US = 500_000
_ENOUGH = 5
"""So many times `down_after_ms` an operator waits for a vote to be taken away: without a witness it may stay."""
Work = Generator[None, None, None]
DIFFERS = "other settings"
"""What the problem of a node says whose durations are not those of its peers."""


def add(cluster: WalkedCluster, node: int) -> Work:
    """Start a new node and add it."""
    cluster.write(node)
    cluster.admit(node)
    yield from _command(cluster, "add", str(node), cluster.addresses[node])
    cluster.members.append(node)


def remove(cluster: WalkedCluster, node: int) -> Work:
    """Remove a node, then stop it; its data are of no use any more."""
    yield from _command(cluster, "remove", str(node))
    cluster.members.remove(node)
    yield from cluster.stop(node)
    cluster.forget(node)


def replace(cluster: WalkedCluster, node: int) -> Work:
    """Another host in the place of one: stop the old process, say where the new one will be, start it there without
    data."""
    yield from cluster.stop(node)
    cluster.forget(node)
    cluster.move(node)
    yield from _command(cluster, "replace", str(node), f"tcp://{HOST}:{cluster.ports[node]}")
    cluster.write(node)
    cluster.admit(node)


def change_durations(cluster: WalkedCluster, timing: Mapping[str, int | str]) -> Work:
    """Restart one node after the other with other durations, the controller last. After each restart wait until a node
    is active, and until that node has taken away the vote of one that differs from it, as it can with a witness."""
    left = list(cluster.members)
    while left:
        head = controller_of(cluster.look(now_us() - _RECENT_US))
        node = next((one for one in left if head is None or one != head.id), left[0])
        left.remove(node)
        yield from cluster.stop(node)
        cluster.write(node, timing)
        cluster.admit(node)
        cluster.log.write("restarted", round=cluster.log.round, node=node)
        if left:
            yield from _until(partial(_is_named, cluster, node), f"node {node} is not said to differ")
            end_us = now_us() + _ENOUGH * cluster.timing.down_after_us
            while not _may_go_on(cluster, node) and now_us() < end_us:
                yield


def _may_go_on(cluster: WalkedCluster, node: int) -> bool:
    """Whether there is a controller that `node` follows, or that does without it."""
    reports = cluster.look(now_us() - _RECENT_US)
    head = controller_of(reports)
    if head is None:
        return False
    return node not in head.voters.members or (node in reports and reports[node].controller == head.id)


def _is_named(cluster: WalkedCluster, node: int) -> bool:
    """Whether the status of some node says that its settings are others than those of its peers."""
    reports = cluster.look(now_us() - 2 * _RECENT_US)
    told = [text for text in problems(reports).values() if DIFFERS in text]
    if node not in reports or not told:
        return False
    cluster.log.write("difference_named", round=cluster.log.round, node=node, text=told[0])
    return True


def _until(condition: Callable[[], bool], what: str) -> Work:
    end_us = now_us() + _PATIENCE_US
    while not condition():
        if now_us() > end_us:
            raise Misbehaved(f"{what} after {_PATIENCE_US // 1_000_000} s")
        yield


def _command(cluster: WalkedCluster, *words: str) -> Work:
    """Give a command of `zelect members` until it is done."""
    end_us = now_us() + _PATIENCE_US
    while True:
        code, said = yield from _once(cluster, *words)
        cluster.log.write("command", round=cluster.log.round, words=words, code=code, said=said)
        if code == 0:
            return
        if now_us() > end_us:
            raise Misbehaved(f"zelect members {' '.join(words)} was never done: {said}")
        again_us = now_us() + _AGAIN_US
        while now_us() < again_us:
            yield


def _once(cluster: WalkedCluster, *words: str) -> Generator[None, None, tuple[int, str]]:
    """The exit code of a command, and what it said."""
    conf, program = cluster.operators_file(), (sys.executable, "-P", "-m", "zelect", "members")
    with subprocess.Popen(
        (*program, "-c", conf, *words, "--timeout", str(_COMMAND_S)),
        env=THIS.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            while process.poll() is None:
                yield
        finally:
            process.kill()  # the run may be over
        assert process.stdout is not None
        return process.returncode, process.stdout.read().strip()
