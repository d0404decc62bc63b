"""Faults of the node processes and of their supervisor."""

from __future__ import annotations

import random
import signal
import time
from functools import partial

from tools.chaos_lab.cluster import ChaosCluster
from tools.chaos_lab.fault import Fault, Misbehaved, PlannedFault, log_uniform, repeatedly
from zelect.node.storage.vote_store import VOTE_FILE_BYTES


class Kill(Fault):
    name = "kill"
    text = "SIGKILL to one node"


class KillTwo(Kill):
    name = "kill_two"
    text = "SIGKILL to two nodes at once"
    needs = 3
    hold = (150, 900)

    def ranks(self, rng: random.Random, nodes: int) -> tuple[int, ...]:
        return tuple(rng.sample(range(nodes), 2))


class KillAll(Kill):
    name = "kill_all"
    text = "SIGKILL to all nodes at once"
    hold = (0, 300)

    def ranks(self, rng: random.Random, nodes: int) -> tuple[int, ...]:
        return tuple(range(nodes))


class Leave(Fault):
    name = "leave"
    text = "SIGTERM: a node leaves and hands over"
    sends = signal.SIGTERM


class RestartAll(KillAll):
    name = "restart_all"
    text = "all nodes leave at once and are started again at once"
    sends = signal.SIGTERM


class Freeze(Fault):
    name = "freeze"
    text = "SIGSTOP for 10 ms to 60 s (mostly below 3 s), then SIGCONT"
    sends = signal.SIGSTOP

    def hold_ms(self, rng: random.Random) -> int:
        return log_uniform(rng, *((10, 3000) if rng.random() < 0.95 else (3000, 60_000)))

    def end(self, cluster: ChaosCluster, planned: PlannedFault) -> None:
        cluster.thaw_all()


class _Repeated(Fault):
    """Something is done to one node several times in a row; `times`: how often, from and to."""

    hold = (0, 0)
    times = (3, 6)

    def ranks(self, rng: random.Random, nodes: int) -> tuple[int, ...]:
        return (rng.randrange(nodes),)

    def details(self, rng: random.Random, nodes: int) -> dict[str, int]:
        return repeatedly(rng, *self.times)

    def strike(self, cluster: ChaosCluster, planned: PlannedFault, nodes: list[int]) -> None:
        rng = random.Random(planned.detail["seed"])
        for _ in range(planned.detail["times"]):
            self.once(cluster, nodes[0], rng)

    def once(self, cluster: ChaosCluster, node: int, rng: random.Random) -> None:
        raise NotImplementedError


class Stutter(_Repeated):
    name = "stutter"
    text = "SIGSTOP for 5 to 100 ms, again and again"
    times = (3, 12)

    def once(self, cluster: ChaosCluster, node: int, rng: random.Random) -> None:
        for number in (signal.SIGSTOP, signal.SIGCONT):
            cluster.signal(node, number)
            cluster.wait(rng.uniform(5, 100))

    def end(self, cluster: ChaosCluster, planned: PlannedFault) -> None:
        cluster.thaw_all()


class RestartStorm(_Repeated):
    name = "restart_storm"
    text = "one node is killed and started again three to six times, at any moment of its start"

    def once(self, cluster: ChaosCluster, node: int, rng: random.Random) -> None:
        cluster.end_node(node)
        cluster.start(node)
        cluster.wait(rng.uniform(20, 700))


class GilHog(Fault):
    name = "gil_hog"
    text = "a thread holds the interpreter lock for 50 ms to 3 s"

    def hold_ms(self, rng: random.Random) -> int:
        return log_uniform(rng, 50, 3000)

    def strike(self, cluster: ChaosCluster, planned: PlannedFault, nodes: list[int]) -> None:
        for node in nodes:
            part = cluster.hog_file(node).with_suffix(".part")
            part.write_text(str(planned.hold_ms))
            part.replace(cluster.hog_file(node))

    def end(self, cluster: ChaosCluster, planned: PlannedFault) -> None:
        for node in cluster.ids:
            cluster.hog_file(node).unlink(missing_ok=True)  # of a node that died first


class RollingRestart(Fault):
    name = "rolling_restart"
    text = "one node after the other leaves and is started again, as for an update"
    hold = (0, 0)

    def ranks(self, rng: random.Random, nodes: int) -> tuple[int, ...]:
        return tuple(rng.sample(range(nodes), nodes))

    def strike(self, cluster: ChaosCluster, planned: PlannedFault, nodes: list[int]) -> None:
        for node in nodes:
            cluster.end_node(node, signal.SIGTERM)
            cluster.start(node)
            cluster.wait(3000, partial(_answers, cluster, node))


def _answers(cluster: ChaosCluster, node: int) -> bool:
    return node in cluster.look(cluster.started_us)


class SupervisorKilled(Fault):
    name = "supervisor_killed"
    text = "SIGKILL to the supervisor; the kernel kills its nodes with it"
    alone = True
    hold = (0, 300)

    def nodes(self, cluster: ChaosCluster, planned: PlannedFault) -> list[int]:
        return list(cluster.ids)

    def strike(self, cluster: ChaosCluster, planned: PlannedFault, nodes: list[int]) -> None:
        assert cluster.supervisor is not None
        cluster.supervisor.kill()
        cluster.supervisor.wait()
        end = time.monotonic() + 10
        while living := [node for node in nodes if cluster.handles.runs(node)]:
            if time.monotonic() > end:
                raise Misbehaved(f"nodes outlived their supervisor: {living}")
            time.sleep(0.01)

    def end(self, cluster: ChaosCluster, planned: PlannedFault) -> None:
        cluster.start_supervisor()


class DataLost(Fault):
    name = "data_lost"
    text = "a node is killed and its data_dir is lost"
    forgets = True

    def strike(self, cluster: ChaosCluster, planned: PlannedFault, nodes: list[int]) -> None:
        for node in nodes:
            cluster.end_node(node)
            cluster.forget(node)


class VoteFileDamaged(Fault):
    name = "vote_file_damaged"
    text = "a node is killed and a byte of its vote file goes bad; it must refuse to start until that is moved away"
    forgets = True
    hold = (0, 300)

    def ranks(self, rng: random.Random, nodes: int) -> tuple[int, ...]:
        return (rng.randrange(nodes),)

    def details(self, rng: random.Random, nodes: int) -> dict[str, int]:
        return {"byte": rng.randrange(VOTE_FILE_BYTES)}

    def strike(self, cluster: ChaosCluster, planned: PlannedFault, nodes: list[int]) -> None:
        (node,) = nodes
        cluster.end_node(node)
        path = cluster.data_of(node) / "vote"
        data = bytearray(path.read_bytes())
        data[planned.detail["byte"] % len(data)] ^= 0x10
        path.write_bytes(data)
        cluster.start(node)
        code = cluster.await_end(node)
        cluster.log.write("refused_to_start", node=node, exit_code=code)
        if code != 3:
            raise Misbehaved(f"node {node} started on a damaged vote file (exit code {code}, must be 3)")

    def end(self, cluster: ChaosCluster, planned: PlannedFault) -> None:
        for node in cluster.ids:
            path = cluster.data_of(node) / "vote"
            if cluster.processes().node(node).exit_code == 3:
                path.rename(path.with_name("vote_store.damaged"))


class SignalStorm(Fault):
    name = "signal_storm"
    text = "a signal every millisecond, to a node that has a handler for it"

    def strike(self, cluster: ChaosCluster, planned: PlannedFault, nodes: list[int]) -> None:
        end = time.monotonic() + planned.hold_ms / 1000
        while time.monotonic() < end:
            for node in nodes:
                cluster.signal(node, signal.SIGUSR1)
            cluster.wait(1)


FAULTS: tuple[Fault, ...] = (
    *(Kill(), KillTwo(), KillAll(), Leave(), Freeze(), Stutter(), GilHog(), SignalStorm()),
    *(RestartStorm(), RollingRestart(), RestartAll(), SupervisorKilled(), DataLost(), VoteFileDamaged()),
)
