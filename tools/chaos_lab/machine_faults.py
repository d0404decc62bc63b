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

from tools.chaos_lab.fault import Fault, Host, Strike
from tools.chaos_lab.target import World
from zelect.system.parent_death import prefix


class CpuStarved(Fault):
    name = "cpu"
    text = "two busy processes a core; every other time the controller is killed meanwhile"

    def __init__(self) -> None:
        self._busy: list[subprocess.Popen[bytes]] = []

    def plan(self, rng: random.Random, nodes: int) -> Strike:
        return self.strike(rng, (0,), rng.randint(500, 3000), kill=rng.randrange(2))

    def begin(self, world: World, strike: Strike) -> None:
        nodes = self.nodes(world, strike) if strike.detail["kill"] else []
        loop = "while True: pass"
        for _ in range(2 * (os.cpu_count() or 1)):
            self._busy.append(subprocess.Popen((*prefix(), sys.executable, "-I", "-S", "-c", loop)))
        world.wait(300)
        self.tell(world, nodes, hold_ms=strike.hold_ms, kill=bool(nodes))
        for node in nodes:
            world.signal(node, signal.SIGKILL)

    def end(self, world: World, strike: Strike) -> None:
        while self._busy:
            process = self._busy.pop()
            process.kill()
            process.wait()


class _Strace(Fault):
    """System calls of one node are tampered with."""

    inject = ""

    def __init__(self) -> None:
        self._tracers: list[subprocess.Popen[bytes]] = []

    def missing(self, host: Host, nodes: int) -> str:
        return "" if "strace" in host.tools else "strace is not installed"

    def plan(self, rng: random.Random, nodes: int) -> Strike:
        first = rng.randrange(nodes)
        second = rng.choice([rank for rank in range(nodes) if rank != first] or [first])
        return self.strike(rng, (first, second), rng.randint(800, 2000), ms=rng.choice((20, 100, 400)))

    def begin(self, world: World, strike: Strike) -> None:
        """The second node's leave makes the first one save something."""
        node, *others = self.nodes(world, strike)
        inject = self.inject.format(us=strike.detail["ms"] * 1000)
        command = ("strace", "-f", "-qq", "-o", os.devnull, "-p", str(world.pids[node]))
        self.tell(world, [node, *others], inject=inject)
        if world.handles.runs(node):
            self._tracers.append(
                subprocess.Popen((*prefix(), *command, "-e", "trace=fdatasync", "-e", f"inject=fdatasync:{inject}"))
            )
        world.wait(300)
        for other in others:
            world.signal(other, signal.SIGTERM)

    def end(self, world: World, strike: Strike) -> None:
        while self._tracers:
            tracer = self._tracers.pop()
            tracer.send_signal(signal.SIGINT)  # it lets go of the process; killed, it would leave it stopped
            with contextlib.suppress(subprocess.TimeoutExpired):
                tracer.wait(5)
            tracer.kill()
            tracer.wait()


class SyncSlow(_Strace):
    name = "sync_slow"
    text = "every fdatasync of one node takes 20 to 400 ms longer, while another leaves (strace)"
    inject = "delay_enter={us}"


class SyncFails(_Strace):
    name = "sync_fails"
    text = "every fdatasync of one node fails with EIO, while another leaves: it must end (strace)"
    inject = "error=EIO"

    def end(self, world: World, strike: Strike) -> None:
        super().end(world, strike)
        for state in world.processes().nodes:
            if state.state == "ended" and state.exit_code == 3:
                world.notes.write("ended_by_itself", node=state.id, exit_code=3)


class DiskFull(Fault):
    name = "disk_full"
    text = "the disk under one data_dir is full to the last byte while the node restarts (a tiny tmpfs)"

    def missing(self, host: Host, nodes: int) -> str:
        if not host.root:
            return "mounting a tmpfs needs root"
        return "" if {"mount", "umount"} <= host.tools else "mount is not installed"

    def begin(self, world: World, strike: Strike) -> None:
        (node,) = self.nodes(world, strike)
        self.tell(world, [node])
        world.signal(node, signal.SIGKILL)
        world.await_end(node)
        data, kept = world.data_of(node), self._kept(world, node)
        data.rename(kept)
        data.mkdir(mode=0o700)
        subprocess.run(("mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "chaos", str(data)), check=True)
        shutil.copytree(kept, data, dirs_exist_ok=True)
        with contextlib.suppress(OSError), (data / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(512))
        world.start(node)

    def end(self, world: World, strike: Strike) -> None:
        for node in world.ids:
            data, kept = world.data_of(node), self._kept(world, node)
            if not kept.exists():
                continue
            world.signal(node, signal.SIGKILL)
            world.await_end(node)
            # What it saved meanwhile must not be forgotten.
            (data / "filler").unlink(missing_ok=True)
            shutil.copytree(data, kept, dirs_exist_ok=True)
            subprocess.run(("umount", str(data)), check=True)
            data.rmdir()
            kept.rename(data)

    @staticmethod
    def _kept(world: World, node: int) -> Path:
        return world.data_of(node).with_name(f"n{node}.kept")


class DescriptorsGone(Fault):
    name = "descriptors"
    text = "one node may open no further descriptor (RLIMIT_NOFILE), while another restarts"

    def __init__(self) -> None:
        self._limited: dict[int, tuple[int, tuple[int, int]]] = {}  # node to pid and limits

    def missing(self, host: Host, nodes: int) -> str:
        return "" if host.linux else "prlimit is Linux's alone"

    def plan(self, rng: random.Random, nodes: int) -> Strike:
        first = rng.randrange(nodes)
        second = rng.choice([rank for rank in range(nodes) if rank != first] or [first])
        return self.strike(rng, (first, second), rng.randint(500, 2000))

    def begin(self, world: World, strike: Strike) -> None:
        node, *others = self.nodes(world, strike)
        self.tell(world, [node, *others], hold_ms=strike.hold_ms)
        pid = world.pids[node]
        with contextlib.suppress(OSError):
            used = len(os.listdir(f"/proc/{pid}/fd"))
            limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            if world.handles.runs(node):
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, limits[1]))
                self._limited[node] = pid, limits
        for other in others:
            world.signal(other, signal.SIGKILL)
            world.await_end(other)
            world.start(other)

    def end(self, world: World, strike: Strike) -> None:
        while self._limited:
            node, (pid, limits) = self._limited.popitem()
            if world.pids.get(node) == pid and world.handles.runs(node):
                with contextlib.suppress(ProcessLookupError):
                    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


FAULTS: tuple[Fault, ...] = (CpuStarved(), SyncSlow(), SyncFails(), DiskFull(), DescriptorsGone())
