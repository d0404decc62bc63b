"""Faults of the node processes and of their supervisor."""

from __future__ import annotations

import random
import signal
import time
from functools import partial

from tools.chaos_lab.fault import Broken, Fault, Strike
from tools.chaos_lab.target import World
from zelect.node.storage.vote_store import BALLOT_BYTES


class Kill(Fault):
    name = "kill"
    text = "SIGKILL to one node"

    def begin(self, world: World, strike: Strike) -> None:
        nodes = self.nodes(world, strike)
        self.tell(world, nodes)
        for node in nodes:
            world.signal(node, signal.SIGKILL)


class KillTwo(Kill):
    name = "kill_two"
    text = "SIGKILL to two nodes at once"

    def missing(self, host: object, nodes: int) -> str:
        return "" if nodes > 2 else "needs three nodes"

    def plan(self, rng: random.Random, nodes: int) -> Strike:
        return self.strike(rng, tuple(rng.sample(range(nodes), 2)), rng.randint(150, 900))


class KillAll(Kill):
    name = "kill_all"
    text = "SIGKILL to all nodes at once"

    def plan(self, rng: random.Random, nodes: int) -> Strike:
        return self.strike(rng, tuple(range(nodes)), rng.randint(0, 300))


class Leave(Kill):
    name = "leave"
    text = "SIGTERM: a node leaves and hands over"

    def begin(self, world: World, strike: Strike) -> None:
        nodes = self.nodes(world, strike)
        self.tell(world, nodes)
        for node in nodes:
            world.signal(node, signal.SIGTERM)


class Freeze(Fault):
    name = "freeze"
    text = "SIGSTOP for 10 ms to 60 s (mostly below 3 s), then SIGCONT"

    def plan(self, rng: random.Random, nodes: int) -> Strike:
        least, most = (10, 3000) if rng.random() < 0.95 else (3000, 60_000)
        hold_ms = int(least * (most / least) ** rng.random())
        return self.strike(rng, (rng.choice((0, *range(nodes))),), hold_ms)

    def begin(self, world: World, strike: Strike) -> None:
        nodes = self.nodes(world, strike)
        self.tell(world, nodes, hold_ms=strike.hold_ms)
        for node in nodes:
            world.signal(node, signal.SIGSTOP)

    def end(self, world: World, strike: Strike) -> None:
        world.thaw_all()


class FreezeShort(Freeze):
    name = "stutter"
    text = "SIGSTOP for 5 to 100 ms, again and again"

    def plan(self, rng: random.Random, nodes: int) -> Strike:
        return self.strike(rng, (rng.randrange(nodes),), 0, times=rng.randint(3, 12), seed=rng.getrandbits(32))

    def begin(self, world: World, strike: Strike) -> None:
        rng = random.Random(strike.detail["seed"])
        (node,) = self.nodes(world, strike)
        self.tell(world, [node], times=strike.detail["times"])
        for _ in range(strike.detail["times"]):
            world.signal(node, signal.SIGSTOP)
            world.wait(rng.uniform(5, 100))
            world.signal(node, signal.SIGCONT)
            world.wait(rng.uniform(5, 100))


class GilHog(Fault):
    name = "gil_hog"
    text = "a thread holds the interpreter lock for 50 ms to 3 s"

    def plan(self, rng: random.Random, nodes: int) -> Strike:
        hold_ms = int(50 * 60 ** rng.random())
        return self.strike(rng, (rng.choice((0, *range(nodes))),), hold_ms)

    def begin(self, world: World, strike: Strike) -> None:
        nodes = self.nodes(world, strike)
        self.tell(world, nodes, hold_ms=strike.hold_ms)
        for node in nodes:
            part = world.hog_file(node).with_suffix(".part")
            part.write_text(str(strike.hold_ms))
            part.replace(world.hog_file(node))

    def end(self, world: World, strike: Strike) -> None:
        for node in world.ids:
            world.hog_file(node).unlink(missing_ok=True)  # of a node that died first


class RestartStorm(Fault):
    name = "restart_storm"
    text = "one node is killed and started again three to six times, at any moment of its start"

    def plan(self, rng: random.Random, nodes: int) -> Strike:
        rank = rng.randrange(nodes)
        return self.strike(rng, (rank,), 0, times=rng.randint(3, 6), seed=rng.getrandbits(32))

    def begin(self, world: World, strike: Strike) -> None:
        rng = random.Random(strike.detail["seed"])
        (node,) = self.nodes(world, strike)
        self.tell(world, [node], times=strike.detail["times"])
        for _ in range(strike.detail["times"]):
            world.signal(node, signal.SIGKILL)
            world.await_end(node)
            world.start(node)
            world.wait(rng.uniform(20, 700))


class RollingRestart(Fault):
    name = "rolling_restart"
    text = "one node after the other leaves and is started again, as for an update"

    def plan(self, rng: random.Random, nodes: int) -> Strike:
        order = list(range(nodes))
        rng.shuffle(order)
        return self.strike(rng, tuple(order), 0)

    def begin(self, world: World, strike: Strike) -> None:
        nodes = self.nodes(world, strike)
        self.tell(world, nodes)
        for node in nodes:
            world.signal(node, signal.SIGTERM)
            world.await_end(node)
            world.start(node)
            world.wait(3000, partial(_answers, world, node))


def _answers(world: World, node: int) -> bool:
    return node in world.look(world.started_us)


class RestartAll(Fault):
    name = "restart_all"
    text = "all nodes leave at once and are started again at once"

    def plan(self, rng: random.Random, nodes: int) -> Strike:
        return self.strike(rng, tuple(range(nodes)), rng.randint(0, 300))

    def begin(self, world: World, strike: Strike) -> None:
        nodes = self.nodes(world, strike)
        self.tell(world, nodes)
        for node in nodes:
            world.signal(node, signal.SIGTERM)


class SupervisorKilled(Fault):
    name = "supervisor_killed"
    text = "SIGKILL to the supervisor; the kernel ends its nodes with it"
    alone = True

    def plan(self, rng: random.Random, nodes: int) -> Strike:
        return self.strike(rng, tuple(range(nodes)), rng.randint(0, 300))

    def begin(self, world: World, strike: Strike) -> None:
        assert world.supervisor is not None
        self.tell(world, list(world.ids))
        world.supervisor.kill()
        world.supervisor.wait()
        end = time.monotonic() + 10
        while living := [node for node in world.ids if world.handles.runs(node)]:
            if time.monotonic() > end:
                raise Broken(f"nodes outlived their supervisor: {living}")
            time.sleep(0.01)

    def end(self, world: World, strike: Strike) -> None:
        world.raise_supervisor()


class DataLost(Fault):
    name = "data_lost"
    text = "a node is killed and its data_dir is lost"
    forgets = True

    def begin(self, world: World, strike: Strike) -> None:
        nodes = self.nodes(world, strike)
        self.tell(world, nodes)
        for node in nodes:
            world.signal(node, signal.SIGKILL)
            world.await_end(node)
            world.forget(node)


class BallotDamaged(Fault):
    name = "vote_file_damaged"
    text = "a node is killed and a byte of its vote file goes bad; it must refuse to start until that is moved away"
    forgets = True

    def plan(self, rng: random.Random, nodes: int) -> Strike:
        return self.strike(rng, (rng.randrange(nodes),), rng.randint(0, 300), byte=rng.randrange(BALLOT_BYTES))

    def begin(self, world: World, strike: Strike) -> None:
        (node,) = self.nodes(world, strike)
        self.tell(world, [node], byte=strike.detail["byte"])
        world.signal(node, signal.SIGKILL)
        world.await_end(node)
        vote_store = world.data_of(node) / "vote"
        data = bytearray(vote_store.read_bytes())
        data[strike.detail["byte"] % len(data)] ^= 0x10
        vote_store.write_bytes(data)
        world.start(node)
        code = world.await_end(node)
        world.notes.write("refused_to_start", node=node, exit_code=code)
        if code != 3:
            raise Broken(f"node {node} started on a damaged vote file (exit code {code}, must be 3)")

    def end(self, world: World, strike: Strike) -> None:
        for node in world.ids:
            vote_store = world.data_of(node) / "vote"
            if world.processes().node(node).exit_code == 3:
                vote_store.rename(vote_store.with_name("vote_store.damaged"))


class SignalStorm(Fault):
    name = "signal_storm"
    text = "a signal every millisecond, to a node that has a handler for it"

    def begin(self, world: World, strike: Strike) -> None:
        nodes = self.nodes(world, strike)
        self.tell(world, nodes)
        end = time.monotonic() + strike.hold_ms / 1000
        while time.monotonic() < end:
            for node in nodes:
                world.signal(node, signal.SIGUSR1)
            world.wait(1)


FAULTS: tuple[Fault, ...] = (
    Kill(),
    KillTwo(),
    KillAll(),
    Leave(),
    Freeze(),
    FreezeShort(),
    GilHog(),
    SignalStorm(),
    RestartStorm(),
    RollingRestart(),
    RestartAll(),
    SupervisorKilled(),
    DataLost(),
    BallotDamaged(),
)
