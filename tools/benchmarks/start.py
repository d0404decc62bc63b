"""`start`: how long until there is a controller, compared with the start of the interpreter alone."""

from __future__ import annotations

import argparse

from tools.benchmarks.cluster import Cluster, directory
from tools.benchmarks.faults import await_successor
from tools.benchmarks.figures import columns, header, row
from tools.benchmarks.floors import interpreter
from tools.common.checkout import THIS, JsonDict, progress, run_python, took
from tools.common.statistics import spread
from zelect.devcluster.layout import find_port, port_is_free
from zelect.system.clock import now_us

_ROWS = {
    "up": "cluster up --detach",
    "leadership": "nodes spawned to active",
    "bare": "python alone",
    "imports": "python -c 'import zmq, msgpack'",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


def measure(options: argparse.Namespace) -> JsonDict:
    samples: dict[str, list[float]] = {name: [] for name in _ROWS}
    server = ""
    THIS.check()
    for number in range(1, options.trials + 1):
        progress(number, options.trials, samples["up"][-1] if samples["up"] else None)
        bare, imports = interpreter()
        samples["bare"].append(bare)
        samples["imports"].append(imports)
        samples["up"].append(_up(options.nodes))
        with directory() as path, Cluster(path, options.nodes) as cluster:
            began_us = now_us()
            cluster.start()
            _, at_us, _ = await_successor(cluster, 0, False, [])
            samples["leadership"].append((at_us - began_us) / 1000)
            server = cluster.server_version()
    spreads = {name: spread(taken) for name, taken in samples.items()}
    return {**header(options, server), "ms": spreads, "samples_ms": samples}


def _up(nodes: int) -> float:
    with directory() as path:
        base = find_port()
        while not all(port_is_free(base + offset) for offset in range(nodes)) or base + nodes > 32_767:
            base = find_port()
        where = ("--dir", path / "cluster")
        up = ("-m", "zelect", "cluster", "up", nodes, "--detach", *where, "--base-port", base)
        try:
            return took(lambda: run_python(*up))
        finally:
            run_python("-m", "zelect", "cluster", "down", *where)


def show(result: JsonDict) -> None:
    print(columns("ms"))
    for name, label in _ROWS.items():
        print(row(label, result["ms"][name]))
