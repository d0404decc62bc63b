"""Faults of the machine: its processor, its disk, its descriptors."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tools.chaos_lab.cluster import ChaosCluster
from tools.chaos_lab.fault import Fault, Host, PlannedFault


class CpuStarved(Fault):
    name = "cpu"
    text = "two busy processes per core; every other time the controller is killed meanwhile"
    hold = (500, 3000)

    def ranks(self, rng: random.Random, nodes: int) -> tuple[int, ...]:
        return (0,)

    def details(self, rng: random.Random, nodes: int) -> dict[str, int]:
        return {"kill": rng.randrange(2)}

    def begin(self, cluster: ChaosCluster, planned: PlannedFault) -> None:
        loop = "while True: pass"
        for _ in range(2 * (os.cpu_count() or 1)):
            self.help(sys.executable, "-I", "-S", "-c", loop)
        cluster.wait(300)
        super().begin(cluster, planned)


class _OfTwo(Fault):
    """Something happens to one node, while another leaves or restarts."""

    def ranks(self, rng: random.Random, nodes: int) -> tuple[int, ...]:
        first = rng.randrange(nodes)
        return first, rng.choice([rank for rank in range(nodes) if rank != first] or [first])


class _Strace(_OfTwo):
    """System calls of one node are tampered with."""

    inject = ""
    hold = (800, 2000)

    def missing(self, host: Host, nodes: int) -> str:
        return "" if "strace" in host.tools else "strace is not installed"

    def details(self, rng: random.Random, nodes: int) -> dict[str, int]:
        return {"ms": rng.choice((20, 100, 400))}

    def strike(self, cluster: ChaosCluster, planned: PlannedFault, nodes: list[int]) -> None:
        """The second node's leave makes the first one save something."""
        node, *others = nodes
        inject = self.inject.format(us=planned.detail["ms"] * 1000)
        command = ("strace", "-f", "-qq", "-o", os.devnull, "-p", str(cluster.pids[node]))
        if cluster.handles.runs(node):
            self.help(*command, "-e", "trace=fdatasync", "-e", f"inject=fdatasync:{inject}")
        cluster.wait(300)
        for other in others:
            cluster.signal(other, signal.SIGTERM)

    def end(self, cluster: ChaosCluster, planned: PlannedFault) -> None:
        for tracer in self._helpers:
            tracer.send_signal(signal.SIGINT)  # it lets go of the process; killed, it would leave it stopped
            with contextlib.suppress(subprocess.TimeoutExpired):
                tracer.wait(5)
        super().end(cluster, planned)


class SyncSlow(_Strace):
    name = "sync_slow"
    text = "every fdatasync of one node takes 20 to 400 ms longer, while another leaves (strace)"
    inject = "delay_enter={us}"


class SyncFails(_Strace):
    name = "sync_fails"
    text = "every fdatasync of one node fails with EIO, while another leaves: it must exit (strace)"
    inject = "error=EIO"

    def end(self, cluster: ChaosCluster, planned: PlannedFault) -> None:
        super().end(cluster, planned)
        for state in cluster.processes().nodes:
            if state.state == "ended" and state.exit_code == 3:
                cluster.log.write("ended_by_itself", node=state.id, exit_code=3)


class DiskFull(Fault):
    name = "disk_full"
    text = "the disk under one data_dir is full to the last byte while the node restarts (a tiny tmpfs)"

    def missing(self, host: Host, nodes: int) -> str:
        if not host.root:
            return "mounting a tmpfs needs root"
        return "" if {"mount", "umount"} <= host.tools else "mount is not installed"

    def strike(self, cluster: ChaosCluster, planned: PlannedFault, nodes: list[int]) -> None:
        (node,) = nodes
        cluster.end_node(node)
        data, kept = cluster.data_of(node), self._kept(cluster, node)
        data.rename(kept)
        data.mkdir(mode=0o700)
        subprocess.run(("mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "chaos", str(data)), check=True)
        shutil.copytree(kept, data, dirs_exist_ok=True)
        with contextlib.suppress(OSError), (data / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(512))
        cluster.start(node)

    def end(self, cluster: ChaosCluster, planned: PlannedFault) -> None:
        for node in cluster.ids:
            data, kept = cluster.data_of(node), self._kept(cluster, node)
            if not kept.exists():
                continue
            cluster.end_node(node)
            # What it saved meanwhile must not be forgotten.
            (data / "filler").unlink(missing_ok=True)
            shutil.copytree(data, kept, dirs_exist_ok=True)
            subprocess.run(("umount", str(data)), check=True)
            data.rmdir()
            kept.rename(data)

    @staticmethod
    def _kept(cluster: ChaosCluster, node: int) -> Path:
        return cluster.data_of(node).with_name(f"n{node}.kept")


class DescriptorsGone(_OfTwo):
    name = "descriptors"
    text = "one node may open no further descriptor (RLIMIT_NOFILE), while another restarts"
    hold = (500, 2000)

    def __init__(self) -> None:
        super().__init__()
        self._limited: dict[int, tuple[int, tuple[int, int]]] = {}  # node to pid and limits

    def missing(self, host: Host, nodes: int) -> str:
        return "" if host.linux else "prlimit is Linux's alone"

    def strike(self, cluster: ChaosCluster, planned: PlannedFault, nodes: list[int]) -> None:
        node, *others = nodes
        pid = cluster.pids[node]
        with contextlib.suppress(OSError):
            used = len(os.listdir(f"/proc/{pid}/fd"))
            limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            if cluster.handles.runs(node):
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, limits[1]))
                self._limited[node] = pid, limits
        for other in others:
            cluster.end_node(other)
            cluster.start(other)

    def end(self, cluster: ChaosCluster, planned: PlannedFault) -> None:
        while self._limited:
            node, (pid, limits) = self._limited.popitem()
            if cluster.pids.get(node) == pid and cluster.handles.runs(node):
                with contextlib.suppress(ProcessLookupError):
                    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


FAULTS: tuple[Fault, ...] = (CpuStarved(), SyncSlow(), SyncFails(), DiskFull(), DescriptorsGone())
