"""The links of a cluster that goes through the proxy, as faults see them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence

from tools.chaos_lab.proxy import Pair
from tools.common.checkout import THIS, ToolError
from zelect.devcluster.layout import HOST
from zelect.system.parent_death import prefix

REGISTRY = 0
"""Redis, as a party of the links."""


def between(some: Iterable[int], others: Iterable[int]) -> set[Pair]:
    """Both directions of every link between two groups."""
    pairs = {(a, b) for a in some for b in others if a != b}
    return pairs | {(b, a) for a, b in pairs}


class Links:
    """A proxy process for the links to `places` (node, host and port: a node may have several; without `peers` only
    those to Redis) and of every node to Redis at `registry`. `host`: where it is to be dialled. What two
    faults want is put together; each takes back its own."""

    def __init__(
        self, places: Sequence[tuple[int, str, int]], registry: tuple[str, int], host: str = HOST, peers: bool = True
    ) -> None:
        nodes = sorted({node for node, _, _ in places})
        self._routes = [(a, b, *place) for a in nodes for b, *place in places if a != b and peers]
        self._routes += [(a, REGISTRY, *registry) for a in nodes]
        self._blocked: dict[str, set[Pair]] = {}
        self._refused: dict[str, set[Pair]] = {}
        self._delays: dict[str, dict[Pair, float]] = {}
        self._process = subprocess.Popen(
            (*prefix(), sys.executable, "-P", "-m", "tools.chaos_lab.proxy"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=THIS.environment(),
            start_new_session=True,
        )
        self._ports: list[int] = json.loads(self._say({"host": host, "routes": self._routes}))

    @property
    def pid(self) -> int:
        pid: int = self._process.pid
        return pid

    def dial(self, node: int) -> dict[str, str]:
        """Where `node` finds its peers: what to dial instead of each of their addresses."""
        return {
            f"tcp://{host}:{there}": f"tcp://{HOST}:{port}"
            for (a, b, host, there), port in zip(self._routes, self._ports, strict=True)
            if a == node and b != REGISTRY
        }

    def registry_of(self, node: int) -> int:
        """The port at which `node` finds Redis."""
        return self._ports[next(at for at, route in enumerate(self._routes) if route[:2] == (node, REGISTRY))]

    def block(self, owner: str, pairs: Collection[Pair]) -> None:
        """Hold all bytes of these directions; none: let them go."""
        self._blocked[owner] = set(pairs)
        self._order()

    def delay(self, owner: str, pairs: Collection[Pair], ms: float) -> None:
        """Let all bytes of these directions take `ms` longer."""
        self._delays[owner] = dict.fromkeys(pairs, ms)
        self._order()

    def refuse(self, owner: str, pairs: Collection[Pair]) -> None:
        """Refuse all connections of these pairs, and reset those that stand."""
        self._refused[owner] = set(pairs)
        self._order()

    def reset(self, pairs: Collection[Pair]) -> None:
        """Reset the connections of these pairs."""
        self._say({"reset": sorted(pairs)})

    def point(self, host: str, port: int) -> None:
        """Let Redis be found at another place, and end the connections to where it was."""
        registry = [route[:2] for route in self._routes if route[1] == REGISTRY]
        self._say({"point": [REGISTRY, host, port], "reset": registry})

    def release(self, owner: str) -> None:
        """Take back all that `owner` wanted."""
        for wants in (self._blocked, self._refused, self._delays):
            wants.pop(owner, None)
        self._order()

    def _order(self) -> None:
        delays = {pair: ms for wanted in self._delays.values() for pair, ms in wanted.items()}
        self._say(
            {
                "blocked": sorted(set[Pair]().union(*self._blocked.values())),
                "refused": sorted(set[Pair]().union(*self._refused.values())),
                "delay_ms": [[*pair, ms] for pair, ms in sorted(delays.items())],
            }
        )

    def _say(self, table: Mapping[str, object]) -> bytes:
        """Give one order and wait for its answer. Raises ToolError when the proxy has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(table).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise ToolError(f"the proxy of the links has ended: {os.strerror(error.errno or 0)}") from error
        answer = self._process.stdout.readline()
        if not answer:
            raise ToolError("the proxy of the links has ended; see standard error")
        return answer

    def close(self) -> None:
        """End the proxy."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
