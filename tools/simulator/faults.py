"""The faults of a simulated run: a plan made from a seed, and what each fault does to the world.

A plan is a list, so that a failing run can be shrunk by leaving faults out. A fault comes at a time,
or (`when`) at the next event of that name, and then strikes the very node that it happened to: most
trouble lies in the microseconds after a vote, a win or a change.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial

from tools.simulator.simulated_world import SimWorld
from tools.simulator.small_world import MS
from zelect.core.events import DeathProven, Evidence, HealthChanged, MessageReceived
from zelect.core.messages import AdminAction, AdminCommand, Envelope, MemberAction, MemberChange
from zelect.core.timing import Proof

_WHEN = (
    "vote_granted",
    "elected",
    "became_active",
    "voters_changed",
    "controller_followed",
    "stopped_being_active",
    "campaign_began",
    "peer_died",
    "witness_created",
    "witness_answered",
    "voting_right_granted",
    "voting_right_lost",
    "leadership_handed_over",
)


@dataclass(frozen=True, slots=True)
class Fault:
    """`pick` chooses the node, `size` how hard it is; each kind of fault reads them in its own way."""

    at_us: int
    name: str
    pick: int
    size: float
    when: str = ""

    def __str__(self) -> str:
        where = f" at the next {self.when}" if self.when else ""
        return f"{self.at_us / MS:9.3f} ms {self.name}{where} (pick {self.pick % 1000}, size {self.size:.3f})"


def _span_us(fault: Fault, least_ms: float, most_ms: float) -> int:
    """From short to long, the short ones as often as the long ones."""
    return int(MS * least_ms * (most_ms / least_ms) ** fault.size)


def _target(world: SimWorld, fault: Fault, struck: int) -> int:
    """A living process: the one that the event happened to, the controller, or any."""
    if struck in world.processes:
        return struck
    controller = world.controller()
    if fault.pick % 3 == 0 and controller is not None:
        return controller
    alive = sorted(world.processes)
    return alive[fault.pick // 3 % len(alive)] if alive else 0


def _kill(world: SimWorld, fault: Fault, n: int) -> None:
    world.kill(n)
    if fault.pick % 2:
        world.later(_span_us(fault, 1, 3000), partial(_start, world, n, False))


def _start(world: SimWorld, n: int, forget: bool) -> None:
    if n not in world.processes:
        world.start(n, forget=forget)


def _start_one(world: SimWorld, fault: Fault, n: int) -> None:
    down = [m for m in world.settings if m not in world.processes]
    for m in down if fault.pick % 4 == 0 else down[: 1 + fault.pick % 2]:
        world.start(m)


def _forget(world: SimWorld, fault: Fault, n: int) -> None:
    world.kill(n)
    world.later(_span_us(fault, 1, 1500), partial(_start, world, n, True))


def _restore(world: SimWorld, fault: Fault, n: int) -> None:
    """An older copy of the disk comes back. Every other time the file's inode tells."""
    copy = (world.disks[n], world.saves[n])

    def back() -> None:
        if n in world.processes:
            world.kill(n)
        world.later(_span_us(fault, 1, 100), lambda: world.restore(n, copy, noticed=bool(fault.pick % 2)))

    world.later(_span_us(fault, 50, 4000), back)


def _disk(world: SimWorld, fault: Fault, n: int) -> None:
    """The disk becomes slow for a while, up to a second a save."""
    before = world.save_us.get(n, 0)
    world.save_us[n] = _span_us(fault, 1, 1000)
    world.later(_span_us(replace(fault, size=1 - fault.size), 50, 4000), partial(world.save_us.update, {n: before}))


def _member(world: SimWorld, fault: Fault, n: int) -> None:
    """An operator adds a node, removes one, or moves one to another host, where it has no data."""
    controller = world.controller()
    if controller is None:
        return
    node = fault.pick // 5 % len(world.settings) + 1
    known = world.state(controller).addresses
    if node not in known:
        tell_member(world, controller, MemberChange(MemberAction.ADD, node, world.addresses[node]))
    elif len(known) > 2 and fault.pick % 3:
        tell_member(world, controller, MemberChange(MemberAction.REMOVE, node, ""))
    elif node != controller:
        world.move(node)
        replaced = MemberChange(MemberAction.REPLACE, node, world.addresses[node])
        tell_member(world, controller, replaced)  # refused while the old process seems to live
        world.later(_span_us(fault, 1, 2000), partial(_tell_controller, world, replaced))


def _tell_controller(world: SimWorld, change: MemberChange) -> None:
    controller = world.controller()
    if controller is not None:
        tell_member(world, controller, change)


def tell_member(world: SimWorld, n: int, change: MemberChange) -> None:
    """An operator asks `n` to change the members."""
    world.feed(n, MessageReceived(Envelope("demo", 0, 0, 0, 0, change)))


def _crash(world: SimWorld, fault: Fault, n: int) -> None:
    world.doomed[n] = fault.pick // 7
    if fault.pick % 4:
        world.later(_span_us(fault, 5, 2000), partial(_start, world, n, False))


def _storm(world: SimWorld, fault: Fault, n: int) -> None:
    for m in sorted(world.processes):
        world.kill(m)
        world.later(int(fault.size * 300 * MS * (m % 3)) + MS, partial(_start, world, m, False))


def _leave(world: SimWorld, fault: Fault, n: int) -> None:
    if world.processes[n].frozen is None:
        world.leave(n, _span_us(fault, 1, 200))
        if fault.pick % 2:
            world.later(_span_us(fault, 300, 3000), partial(_start, world, n, False))


def _unhealthy(world: SimWorld, fault: Fault, n: int) -> None:
    process = world.processes[n]
    world.feed(n, HealthChanged(False))
    healthy = HealthChanged(True)
    if fault.pick % 3:
        world.later(
            _span_us(fault, 50, 4000), lambda: world.feed(n, healthy) if world.processes.get(n) is process else None
        )


def _admin(world: SimWorld, fault: Fault, n: int) -> None:
    """An operator asks for something, of the right node or another."""
    what = list(AdminAction)[fault.pick % 4]
    to = _other(world, fault, n) if what is AdminAction.TRANSFER and fault.pick // 4 % 2 else 0
    for_ms = _span_us(fault, 50, 2000) // MS if what in (AdminAction.STEPDOWN, AdminAction.PAUSE) else 0
    _tell(world, n, AdminCommand(what, to, for_ms, "", "fault"))


def _tell(world: SimWorld, n: int, order: AdminCommand) -> None:
    world.feed(n, MessageReceived(Envelope("demo", 0, 0, 0, 0, order)))


def _freeze(world: SimWorld, fault: Fault, n: int) -> None:
    process = world.processes[n]
    if process.frozen is None:
        world.remark(n, "process_frozen")
        process.frozen = []
        world.later(_span_us(fault, 1, 4000), lambda: world.thaw(n) if world.processes.get(n) is process else None)


def _cut(world: SimWorld, pairs: Collection[tuple[int, int]], fault: Fault) -> None:
    new = set(pairs) - world.cuts
    world.cuts |= new
    if fault.pick % 3:
        world.later(_span_us(fault, 20, 3000), partial(world.cuts.difference_update, new))


def _both(a: int, b: int) -> set[tuple[int, int]]:
    return {(a, b), (b, a)}


def _other(world: SimWorld, fault: Fault, n: int) -> int:
    others = [m for m in world.settings if m != n]
    return others[fault.pick // 11 % len(others)]


def _cut_pair(world: SimWorld, fault: Fault, n: int) -> None:
    _cut(world, _both(n, _other(world, fault, n)), fault)


def _one_way(world: SimWorld, fault: Fault, n: int) -> None:
    other = _other(world, fault, n)
    _cut(world, {(n, other) if fault.pick % 2 else (other, n)}, fault)


def _isolate(world: SimWorld, fault: Fault, n: int) -> None:
    others = [m for m in world.settings if m != n]
    way = fault.pick % 5
    _cut(world, {p for m in others for p in ([(n, m)] if way == 0 else [(m, n)] if way == 1 else _both(n, m))}, fault)


def _split(world: SimWorld, fault: Fault, n: int) -> None:
    left = {m for m in world.settings if (fault.pick >> (m % 20)) & 1}
    _cut(world, {p for a in left for b in set(world.settings) - left for p in _both(a, b)}, fault)


def _bridge(world: SimWorld, fault: Fault, n: int) -> None:
    """Two halves that only `n` can talk to both of."""
    rest = [m for m in world.settings if m != n]
    half = rest[: len(rest) // 2]
    _cut(world, {p for a in half for b in rest if b not in half for p in _both(a, b)}, fault)


def _ring(world: SimWorld, fault: Fault, n: int) -> None:
    """Everybody sees a majority, and no two see the same one."""
    order = list(world.settings)
    reach = max(1, len(order) // 4)
    far = {
        (a, b)
        for i, a in enumerate(order)
        for j, b in enumerate(order)
        if min((i - j) % len(order), (j - i) % len(order)) > reach
    }
    _cut(world, far, fault)


def _flap(world: SimWorld, fault: Fault, n: int) -> None:
    pair = _both(n, _other(world, fault, n))
    period_us = _span_us(fault, 5, 400)
    for turn in range(6):
        world.later(2 * turn * period_us, partial(world.cuts.update, pair))
        world.later((2 * turn + 1) * period_us, partial(world.cuts.difference_update, pair))


def _heal(world: SimWorld, fault: Fault, n: int) -> None:
    world.cuts.clear()
    world.link_delay_us.clear()


def _unlink(world: SimWorld, fault: Fault, n: int) -> None:
    if fault.pick % 3:
        world.unlink(n, _other(world, fault, n))
    else:
        for m in sorted(world.processes):
            if m != n:
                world.unlink(n, m)


def _noise(world: SimWorld, fault: Fault, n: int) -> None:
    world.loss = (0.0, 0.02, 0.1, 0.3)[fault.pick % 4]
    world.duplicates = (0.0, 0.1, 0.5)[fault.pick // 4 % 3]
    world.reordered = (0.0, 0.05, 0.3)[fault.pick // 12 % 3]
    world.late_us = _span_us(fault, 1, 3000)


def _delay(world: SimWorld, fault: Fault, n: int) -> None:
    """A slow way: one link, or all links of one node, in one direction or both."""
    peers = [m for m in world.settings if m != n] if fault.pick % 2 else [_other(world, fault, n)]
    for m in peers:
        world.link_delay_us[n, m] = _span_us(fault, 1, 400)
        if fault.pick % 3:
            world.link_delay_us[m, n] = _span_us(fault, 1, 400)


def _replay(world: SimWorld, fault: Fault, n: int) -> None:
    for k in range(1 + fault.pick % 40):
        world.later(int(fault.size * k * MS), partial(world.replay, fault.pick // 41 + 7 * k))


def _lie(world: SimWorld, fault: Fault, n: int) -> None:
    """The network refuses a connection to a living node, or its lock looks free."""
    _deny(world, n, _other(world, fault, n), Evidence.LOCK if fault.pick // 5 % 2 else Evidence.REFUSED)


def _deny(world: SimWorld, x: int, y: int, evidence: Evidence) -> None:
    """Evidence that `y` is dead reaches `x` though it lives. It is no proof while a connection stands, nor
    at all where refusals are not believed; a world where it is one is beyond what the rules promise."""
    process, other = world.processes.get(x), world.processes.get(y)
    if process is None or other is None:
        return
    unbelieved = evidence is Evidence.REFUSED and world.settings[x].timing.proof is not Proof.REFUSED
    known = process.machine.state.peers.get(y)
    if known is None or known.linked or known.inbound or unbelieved:
        world.feed(x, DeathProven(y, other.incarnation, evidence))


def _front(world: SimWorld, fault: Fault, n: int) -> None:
    """A proxy, or another host with the address of `n`, refuses connections for it, and its lock looks free."""
    span_us = _span_us(fault, 1, 1500)
    for m in [_other(world, fault, n)] if fault.pick % 3 == 0 else [m for m in world.settings if m != n]:
        world.front(m, n)
        for part in range(5):
            evidence = Evidence.LOCK if (fault.pick // 5 + part) % 2 else Evidence.REFUSED
            world.later(span_us * part // 5 + MS, partial(_deny, world, m, n, evidence))
        world.later(span_us, partial(world.fronts.discard, (m, n)))


def _witness(world: SimWorld, fault: Fault, n: int) -> None:
    redis = world.redis
    way = fault.pick % 9
    if way == 0:
        redis.up = not redis.up
    elif way == 1:
        world.witness_slow_us = _span_us(fault, 1, 600) if world.witness_slow_us == 0 else 0
    elif way == 2:
        world.witness_hung = True
        world.later(_span_us(fault, 50, 3000), world.unhang_witness)
    elif way == 3:
        redis.restart()
    elif way == 4:
        redis.flush()
    elif way == 5:
        redis.restart(redis.memory)
    elif way == 6:
        redis.fail_over(redis.memory)
    elif way == 7:
        redis.re_replicate()
    else:
        old = redis.memory
        world.later(_span_us(fault, 50, 2000), lambda: redis.fail_over(old))  # writes were lost on the way
    world.remark(0, "witness_struck", way=way)


def _redis_cut(world: SimWorld, fault: Fault, n: int) -> None:
    """One node does not reach Redis, which the others do."""
    world.redis_cuts.add(n)
    world.later(_span_us(fault, 50, 3000), partial(world.redis_cuts.discard, n))


def _alone(world: SimWorld, fault: Fault, n: int) -> None:
    """Cut off from everybody and from Redis: the lease runs on."""
    _redis_cut(world, fault, n)
    _cut(world, {p for m in world.settings if m != n for p in _both(n, m)}, fault)


def _registry(world: SimWorld, fault: Fault, n: int) -> None:
    if fault.pick % 3 == 0:
        world.registry = (0, 0)
        world.properties.registry_flushed()
    elif fault.pick % 3 == 1:
        world.registry_up = not world.registry_up
    else:
        world.registry_slow_us = _span_us(fault, 1, 500) if world.registry_slow_us == 0 else 0


FAULTS: dict[str, tuple[int, Callable[[SimWorld, Fault, int], None]]] = {
    "kill": (5, _kill),
    "start": (6, _start_one),
    "forget": (2, _forget),
    "restore": (1, _restore),
    "disk": (2, _disk),
    "member": (2, _member),
    "crash": (5, _crash),
    "storm": (1, _storm),
    "leave": (2, _leave),
    "freeze": (5, _freeze),
    "unhealthy": (2, _unhealthy),
    "admin": (3, _admin),
    "cut": (3, _cut_pair),
    "oneway": (4, _one_way),
    "isolate": (3, _isolate),
    "split": (2, _split),
    "bridge": (2, _bridge),
    "ring": (1, _ring),
    "flap": (2, _flap),
    "heal": (5, _heal),
    "unlink": (3, _unlink),
    "noise": (4, _noise),
    "delay": (3, _delay),
    "replay": (4, _replay),
    "lie": (2, _lie),
    "front": (3, _front),
    "witness": (5, _witness),
    "rediscut": (2, _redis_cut),
    "alone": (2, _alone),
    "registry": (2, _registry),
}
"""Each fault by name: how often it comes, and what it does."""


def make_plan(dice: random.Random, steps: int, names: Collection[str]) -> list[Fault]:
    """`steps` faults, one after another in irregular steps of time."""
    known = [name for name in FAULTS if name in names]
    weights = [FAULTS[name][0] for name in known]
    at_us, plan = 0, []
    for _ in range(steps):
        at_us += int(dice.choice((1, 5, 50, 300, 800)) * dice.random() * MS)
        name = dice.choices(known, weights)[0]
        when = dice.choice(_WHEN) if dice.random() < 0.35 else ""
        plan.append(Fault(at_us, name, dice.randrange(1 << 24), dice.random(), when))
    return plan


def apply(world: SimWorld, fault: Fault, struck: int = 0) -> None:
    """Let it happen; `struck` is the node whose event it waited for (0: none)."""
    if fault.when and not struck:
        world.armed.setdefault(fault.when, []).append(partial(apply, world, fault))
        return
    if struck and fault.pick & 1 << 20:  # not in the same microsecond, but a little later
        later = replace(fault, pick=fault.pick ^ 1 << 20)
        world.later(_span_us(fault, 0.1, 130), partial(apply, world, later, struck))
        return
    n = _target(world, fault, struck)
    if n == 0 and fault.name != "start":
        return
    world.remark(n, "FAULT", kind=fault.name, pick=fault.pick % 1000)
    FAULTS[fault.name][1](world, fault, n)


def heal_some(world: SimWorld, alive: Collection[int]) -> None:
    """No fault any more among the nodes `alive`, and for Redis; the others are gone, and do not come back yet."""
    for n in sorted(world.processes.keys() - set(alive)):
        world.kill(n)
    heal_all(world, alive)


def heal_all(world: SimWorld, alive: Collection[int] = ()) -> None:
    """No fault any more: links, Redis and processes (all, or those `alive`) as they should be."""
    world.remark(0, "HEALED")
    world.save_us = dict(world.usual_save_us)
    world.healed = True
    world.armed.clear()
    world.doomed.clear()
    world.cuts.clear()
    world.fronts.clear()
    world.link_delay_us.clear()
    world.redis_cuts.clear()
    world.loss = world.duplicates = world.reordered = 0.0
    world.witness_slow_us = world.registry_slow_us = 0
    world.redis.up = world.registry_up = True
    world.unhang_witness()
    for n in sorted(world.processes):
        world.thaw(n)
        world.feed(n, HealthChanged(True))
        _tell(world, n, AdminCommand(AdminAction.RESUME, 0, 0, "", "fault"))
    for n in sorted(alive) or world.settings:
        if n not in world.processes:
            world.start(n)
