"""The cluster's links in network namespaces, one a node: real packets, dropped by nft. Needs root.

Every node has a namespace with one address, joined by a bridge in the root namespace, where the
tool, Redis and the job's Redis are. A direction (a, b) is that of the packets, acknowledgements
included, so one direction alone also starves the connections of the other. Peers count as other
hosts: their deaths are proven by real refusals, not by the lock on their data_dir.

Redis is reached through the proxy as ever, so that it can move.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Collection, Mapping

from tools.chaos_lab.links import REGISTRY, Links
from tools.chaos_lab.proxy import Pair
from tools.common.checkout import THIS, ToolError
from zelect.devcluster.layout import HOST
from zelect.system.parent_death import prefix

_TOOLS = ("ip", "nft", "ss")


def why_not(root: bool, tools: Collection[str]) -> str:
    """Why there can be no namespaces here; empty when there can."""
    missing = [tool for tool in _TOOLS if tool not in tools]
    if not root:
        return "network namespaces need root"
    return f"not installed: {', '.join(missing)} (packages iproute2 and nftables)" if missing else ""


class Spaces:
    """Namespaces for the nodes of `ports` (node to port), removed by `close`. Raises ToolError."""

    def __init__(self, ports: Mapping[int, int]) -> None:
        self._ports = dict(ports)
        self._mark = f"zc{os.getpid()}"
        self._net = f"10.213.{os.getpid() % 250}"
        self.host = f"{self._net}.254"
        self._registry: Links | None = None
        self._blocked: dict[str, set[Pair]] = {}
        self._refused: dict[str, set[Pair]] = {}
        self._lost: dict[str, dict[Pair, int]] = {}
        self._queued: dict[str, dict[Pair, tuple[float, float]]] = {}
        self._queues: dict[int, subprocess.Popen[bytes]] = {}
        self._rules: dict[int, str] = {}
        self._waits: dict[int, dict[Pair, tuple[float, float]]] = {}
        try:
            self._make()
        except ToolError:
            self.close()
            raise

    def _make(self) -> None:
        commands = [
            f"link add {self._mark} type bridge",
            f"addr add {self.host}/24 dev {self._mark}",
            f"link set {self._mark} up",
        ]
        for node in self._ports:
            _ip(f"netns add {self.name(node)}")
            commands += [
                f"link add {self._mark}v{node} type veth peer name eth0 netns {self.name(node)}",
                f"link set {self._mark}v{node} master {self._mark} up",
            ]
        _ip(*commands)
        for node in self._ports:
            inside = (f"addr add {self.address(node)}/24 dev eth0", "link set eth0 up", "link set lo up")
            _ip(*inside, space=self.name(node))

    def name(self, node: int) -> str:
        """The namespace of `node`."""
        return f"{self._mark}-{node}"

    def path(self, node: int) -> str:
        return f"/run/netns/{self.name(node)}"

    def address(self, node: int) -> str:
        """The IP address of `node`."""
        return f"{self._net}.{node}"

    def endpoint(self, node: int) -> str:
        """Where `node` listens."""
        return f"tcp://{self.address(node)}:{self._ports[node]}"

    # -- as links -------------------------------------------------------------------------

    def join_registry(self, port: int) -> None:
        """Redis listens on `port` of the root namespace."""
        self._registry = Links([(node, "", 0) for node in self._ports], (self.host, port), host=self.host, peers=False)

    @property
    def registry(self) -> Links:
        assert self._registry is not None, "join_registry comes first"
        return self._registry

    def dial(self, node: int) -> dict[str, str]:
        return {f"tcp://{HOST}:{port}": self.endpoint(peer) for peer, port in self._ports.items() if peer != node}

    def registry_of(self, node: int) -> int:
        return self.registry.registry_of(node)

    def block(self, owner: str, pairs: Collection[Pair]) -> None:
        """Drop all packets of these directions; none: let them pass."""
        self.registry.block(owner, [pair for pair in pairs if REGISTRY in pair])
        self._blocked[owner] = {pair for pair in pairs if REGISTRY not in pair}
        self._apply()

    def delay(self, owner: str, pairs: Collection[Pair], ms: float) -> None:
        """Let the packets of these directions take `ms` longer."""
        self.registry.delay(owner, [pair for pair in pairs if REGISTRY in pair], ms)
        self.reorder(owner, [pair for pair in pairs if REGISTRY not in pair], ms, ms)

    def reorder(self, owner: str, pairs: Collection[Pair], least_ms: float, most_ms: float) -> None:
        """Let each packet take a time of its own longer."""
        self._queued[owner] = dict.fromkeys(pairs, (least_ms, most_ms))
        self._apply()

    def lose(self, owner: str, pairs: Collection[Pair], percent: int) -> None:
        """Drop so many of the packets of these directions, by chance."""
        self._lost[owner] = dict.fromkeys(pairs, percent)
        self._apply()

    def refuse(self, owner: str, pairs: Collection[Pair]) -> None:
        """Answer every packet of these pairs' connections with a TCP reset, as a firewall's REJECT does."""
        self._refused[owner] = set(pairs)
        self._apply()

    def reset(self, pairs: Collection[Pair]) -> None:
        """Reset the connections of these pairs (`ss -K`)."""
        for a, b in sorted(pairs):
            if REGISTRY not in (a, b):
                to = ("dst", self.address(b), "dport", "=", f":{self._ports[b]}")
                _run(("ip", "netns", "exec", self.name(a), "ss", "-K", *to))

    def point(self, host: str, port: int) -> None:
        """Let Redis be found at another place."""
        self.registry.point(self.host, port)

    def release(self, owner: str) -> None:
        """Take back all that `owner` wanted."""
        self.registry.release(owner)
        for wants in (self._blocked, self._refused, self._lost, self._queued):
            wants.pop(owner, None)
        self._apply()

    def close(self) -> None:
        """Remove everything. Harmless when repeated."""
        for node in list(self._queues):
            self._end_queue(node)
        if self._registry is not None:
            self._registry.close()
        for node in self._ports:
            with contextlib.suppress(ToolError):
                _ip(f"netns del {self.name(node)}")
        with contextlib.suppress(ToolError):
            _ip(f"link del {self._mark}")

    # -- rules ----------------------------------------------------------------------------

    def _apply(self) -> None:
        """Bring the rules of every namespace up to date, each in one transaction."""
        changed: list[int] = []
        queued = {pair: wanted for wants in self._queued.values() for pair, wanted in wants.items()}
        for node in self._ports:
            waits = {pair: wanted for pair, wanted in queued.items() if pair[1] == node}
            if waits != self._waits.get(node, {}):
                self._end_queue(node)
                if waits:
                    self._begin_queue(node, max(waits.values()))
                self._waits[node] = waits
                changed.append(node)
            rules = self._rules_of(node)
            if rules != self._rules.get(node, ""):
                table = "table inet chaos {}\ndelete table inet chaos\n"
                chain = "table inet chaos { chain in { type filter hook input priority 0; policy accept;\n%s}\n}\n"
                _run(("ip", "netns", "exec", self.name(node), "nft", "-f", "-"), table + (chain % rules))
                self._rules[node] = rules
        for node in changed:
            if self._waits[node]:
                self._await_queue(node)
            self._queue(node, self._waits[node])

    def _rules_of(self, node: int) -> str:
        """What `node` does with what comes in."""
        lines = []
        for a, b in sorted(set[Pair]().union(*self._blocked.values())):
            lines += [f"ip saddr {self.address(a)} drop"] if b == node else []
        for a, b in sorted(set[Pair]().union(*self._refused.values())):
            port = self._ports[node]
            lines += [f"ip saddr {self.address(a)} tcp dport {port} reject with tcp reset"] if b == node else []
        for (a, b), percent in sorted(pair for wants in self._lost.values() for pair in wants.items()):
            lines += [f"ip saddr {self.address(a)} numgen random mod 100 < {percent} drop"] if b == node else []
        return "".join(f"{line}\n" for line in lines)

    def _queue(self, node: int, pairs: Collection[Pair]) -> None:
        """Have what comes in at `node` from these directions wait for the queue's verdict. By iptables: nft's
        own way to a queue is not in every kernel."""
        rules = [f"-A INPUT -s {self.address(a)} -j NFQUEUE --queue-num 0 --queue-bypass" for a, _ in sorted(pairs)]
        text = "\n".join(["*filter", ":INPUT ACCEPT", *rules, "COMMIT", ""])
        _run(("ip", "netns", "exec", self.name(node), "iptables-restore"), text)

    def _begin_queue(self, node: int, wanted: tuple[float, float]) -> None:
        command = (sys.executable, "-P", "-m", "tools.chaos_lab.packet_queue", self.path(node), *map(str, wanted))
        process = subprocess.Popen((*prefix(), *command), stdout=subprocess.PIPE, env=THIS.environment())
        self._queues[node] = process

    def _await_queue(self, node: int) -> None:
        process = self._queues[node]
        assert process.stdout is not None
        if not process.stdout.readline():
            raise ToolError(f"no packets can be queued in namespace {self.name(node)}: see standard error")

    def _end_queue(self, node: int) -> None:
        process = self._queues.pop(node, None)
        if process is not None:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _ip(*commands: str, space: str = "") -> None:
    _run(("ip", *(("-n", space) if space else ()), "-batch", "-"), "\n".join(commands) + "\n")


def _run(command: tuple[str, ...], text: str = "") -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolError(f"{' '.join(command)}: {done.stderr.strip()}")
