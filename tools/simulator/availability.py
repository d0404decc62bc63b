"""The price table of docs/protocol.md: what happens to a cluster, and whether a node is active in the end, with
`quorum = "static"` and `"dynamic"` (L1, R11, R12).

Each row is a history that runs in the simulator under both. `search` goes through all histories of a kind and finds
those in which dynamic is worse: each of them must be one that a row tells of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

from tools.simulator.small_world import MS, World
from zelect.core.events import Leave

NOTICED_MS = 4000
"""Long enough for a death or a leave to be noticed, and for the voters to follow."""
_SETTLED_MS, _AGAIN_MS = 3000, 8000

History = Callable[[World], bool]
"""What happens to a settled cluster; whether a node is active in the end."""


@dataclass(frozen=True)
class Row:
    """A row of the table: what happens, what it costs in words, and in the simulator: whether a node is `active` in
    the end, with a static and with a dynamic quorum."""

    what: str
    static: str
    dynamic: str
    happens: History
    active: tuple[bool, bool] = (True, True)
    nodes: int = 3
    new: bool = False

    @property
    def worse(self) -> bool:
        """Whether dynamic is less available than static here."""
        return self.active == (True, False)

    def run(self, quorum: str) -> bool:
        """Whether a node is active in the end."""
        return self.happens(begin(quorum, self.nodes, new=self.new))


def begin(quorum: str, nodes: int = 3, *, new: bool = False) -> World:
    """A settled cluster; or new nodes that have not been started."""
    world = World(nodes, quorum=quorum, founded=not new)
    if not new:
        world.start()
        world.run_until(lambda: world.controller() is not None)
        world.run(_SETTLED_MS)
    return world


def _next_to_go(world: World) -> int:
    """The controller; without one any node that is up."""
    return world.controller() or min(world.processes)


def _follower(world: World) -> int:
    return max(set(world.processes) - {_next_to_go(world)})


def _one_after_the_other(world: World, end: Callable[[int], None], many: int) -> list[int]:
    gone = []
    for _ in range(many):
        gone.append(_next_to_go(world))
        end(gone[-1])
        world.run(NOTICED_MS)
    return gone


def _redis(world: World, what: str) -> None:
    if what == "flushed":
        world.redis.flush()
        world.registry = (0, 0)
    elif what == "down":
        world.registry_up = world.redis.up = False
    world.run(_SETTLED_MS)


def _active_after(world: World, run_ms: int = _AGAIN_MS) -> bool:
    world.run(run_ms)
    return world.controller() is not None


def _returns(world: World, *nodes: int) -> bool:
    world.start(*nodes)
    return _active_after(world)


# -- what happens -----------------------------------------------------------------------------------------


def _one_is_missing(world: World) -> bool:
    world.start(1, 2)
    return _active_after(world)


def _a_follower_goes(world: World) -> bool:
    world.kill(_follower(world))
    return _active_after(world)


def _the_controller_dies(world: World) -> bool:
    world.kill(_next_to_go(world))
    return _active_after(world)


def _the_controller_leaves(world: World) -> bool:
    world.leave(_next_to_go(world))
    return _active_after(world)


def _is_cut_off(world: World, one: int) -> bool:
    for node in set(world.processes) - {one}:
        world.cut(one, node)
    return _active_after(world)


def _two_die_one_after_the_other(world: World) -> bool:
    _one_after_the_other(world, world.kill, 2)
    return world.controller() is not None


def _two_at_once(world: World) -> bool:
    world.kill(1, 2)
    return not _active_after(world, NOTICED_MS) and _returns(world, 2)


def _two_lose_their_connection(world: World) -> bool:
    world.kill(_follower(world))
    world.run(NOTICED_MS)
    world.cut(*world.processes)
    return _active_after(world)


def _redis_fails(world: World) -> bool:
    _redis(world, "flushed")
    _redis(world, "down")
    return _active_after(world)


def _redis_goes_first(world: World) -> bool:
    _redis(world, "down")
    return _returns(world, _one_after_the_other(world, world.kill, 2)[0])


def _all_die(world: World) -> bool:
    return _returns(world, *_one_after_the_other(world, world.kill, 3)[:2])


def _all_are_stopped_together(world: World) -> bool:
    for node in tuple(world.processes):
        world.feed(node, Leave(True))
        world.run(50)
        world.kill(node)
        world.run(NOTICED_MS)
    _redis(world, "flushed")
    return _returns(world, 1, 2)


def _each_loses_its_data(world: World) -> bool:
    for node in tuple(world.processes):
        world.kill(node)
        world.start(node, forget=True)
        world.run(2 * NOTICED_MS)
    return world.controller() is not None


def _lose_their_data(*nodes: int) -> History:
    def happens(world: World) -> bool:
        world.kill(*nodes)
        world.start(*nodes, forget=True)
        return _active_after(world)

    return happens


def _redis_goes_before_the_first_returns(world: World) -> bool:
    first, _ = _one_after_the_other(world, world.kill, 2)
    _redis(world, "flushed")
    return _returns(world, first)


def _redis_goes_in_between(world: World) -> bool:
    first = _one_after_the_other(world, world.kill, 1)
    _redis(world, "down")
    _one_after_the_other(world, world.kill, 1)
    return _returns(world, *first)


def _redis_goes_before_two_return(world: World) -> bool:
    gone = _one_after_the_other(world, world.kill, 3)
    _redis(world, "flushed")
    return _returns(world, *gone[:2])


def _redis_goes_while_the_voters_change(world: World) -> bool:
    """The witness has just become a voter, and the one that died still is one."""
    controller, gone = _next_to_go(world), _follower(world)
    until_us = world.now_us + NOTICED_MS * MS
    world.kill(gone)
    while len(world.state(controller).voters) != 4 and world.now_us < until_us:
        world.run(0.05)
    _redis(world, "flushed")
    return _active_after(world)


def _the_controller_dies_while_it_replaces_the_witness(world: World) -> bool:
    """Redis lost its data; the two that are left have let the old witness go, and have no new one yet."""
    first = _one_after_the_other(world, world.kill, 1)
    controller, until_us = _next_to_go(world), world.now_us + NOTICED_MS * MS
    world.redis.flush()
    while world.state(controller).record.witness is not None and world.now_us < until_us:
        world.run(0.05)
    world.kill(controller)
    return _returns(world, *first)


def _five_shrink_to_the_floor(world: World) -> bool:
    return _returns(world, *_one_after_the_other(world, world.kill, 5)[:3])


SAME, NOTHING = "the same", "nothing"
_UNTIL = "no active node until"

ROWS = (
    Row(
        "new nodes start, one is missing",
        "no cluster until it is there, or `zelect bootstrap`",
        SAME,
        _one_is_missing,
        (False, False),
        new=True,
    ),
    Row(
        "a follower dies or is cut off",
        NOTHING,
        "nothing; from now on the other two and the witness vote",
        _a_follower_goes,
    ),
    Row("the controller dies", "no active node for about 10 ms", SAME, _the_controller_dies),
    Row(
        "the controller is stopped with SIGTERM",
        "no active node for about 7 ms",
        SAME,
        _the_controller_leaves,
    ),
    Row(
        "the controller freezes or is cut off",
        "no active node for about one `election_timeout_ms`",
        SAME,
        lambda world: _is_cut_off(world, _next_to_go(world)),
    ),
    Row(
        "the second node dies some time after the first",
        f"{_UNTIL} one returns",
        "the last one is active, alone",
        _two_die_one_after_the_other,
        (False, True),
    ),
    Row(
        "two die at once, or the second before the voter record was updated",
        f"{_UNTIL} one returns",
        SAME,
        _two_at_once,
    ),
    Row(
        "one died some time ago; the other two lose the connection to each other, not to Redis",
        f"{_UNTIL} it is back",
        "nothing; the controller stays, because the witness acknowledges it",
        _two_lose_their_connection,
        (False, True),
    ),
    Row(
        "two are cut off from the third",
        "the two elect one of them; the third is inactive within `lease_ms`",
        SAME,
        lambda world: _is_cut_off(world, _follower(world)),
    ),
    Row(
        "Redis fails in any way while two or three nodes are alive",
        "nothing; readers see stale data in Redis",
        SAME,
        _redis_fails,
    ),
    Row(
        "Redis is down first, then two nodes die",
        f"{_UNTIL} a second node returns",
        SAME,
        _redis_goes_first,
    ),
    Row(
        "all three die, or are stopped, one after the other; two return",
        "the two elect one of them",
        "the same: the witness hands them the last survivor's record. With keys this needs `security.secret_file`",
        _all_die,
    ),
    Row(
        "all three are stopped together (`zelect cluster down`, or SIGUSR1 before SIGTERM); two return",
        "the two elect one of them",
        "the same, also when Redis lost its data",
        _all_are_stopped_together,
    ),
    Row(
        "the nodes lose their data one after the other, and each returns before the next",
        "nothing; the controller replaces its epoch",
        SAME,
        _each_loses_its_data,
    ),
    Row(
        "two of the voters lose their data at once",
        f"{_UNTIL} an operator resets the voters",
        SAME,
        _lose_their_data(2, 3),
        (False, False),
    ),
    Row(
        "all lose their data",
        "a new cluster is founded by all three; its terms go on from the one in Redis",
        SAME,
        _lose_their_data(1, 2, 3),
    ),
    Row(
        "two died, or were stopped, one after the other; then Redis loses its data or goes away, and *the first* of "
        "the two returns",
        "the last survivor and that one elect one of them",
        f"{_UNTIL} the *second* one returns too, or Redis with its data, or an operator resets the voters",
        _redis_goes_before_the_first_returns,
        (True, False),
    ),
    Row(
        "one died, or was stopped; then Redis goes away for good, a second follows, and the first returns",
        "the two that are up elect one of them",
        f"{_UNTIL} the second returns, or Redis with its data, or an operator resets the voters",
        _redis_goes_in_between,
        (True, False),
    ),
    Row(
        "all three died, or were stopped, one after the other over more than `down_after_ms`; Redis lost its data or "
        "is away; *the first* and one of the others return",
        "the two elect one of them",
        f"{_UNTIL} the third returns too, or Redis with its data, or an operator resets the voters",
        _redis_goes_before_two_return,
        (True, False),
    ),
    Row(
        "one of three dies, or returns, and Redis loses its data or goes away in the milliseconds in which the witness "
        "becomes a voter, or stops being one",
        "the other two elect one of them",
        f"{_UNTIL} the third one is back, or Redis with its data, or an operator resets the voters",
        _redis_goes_while_the_voters_change,
        (True, False),
    ),
    Row(
        "one died, or was stopped; then Redis loses its data, and in the milliseconds in which the witness is "
        "replaced the controller dies, or another voter loses its data; the first returns",
        "the two that are up elect one of them",
        f"{_UNTIL} the second returns, or an operator resets the voters",
        _the_controller_dies_while_it_replaces_the_witness,
        (True, False),
    ),
    Row(
        "of five, four died one after the other, then the last; the first three return",
        "the three elect one of them",
        f"{_UNTIL} one of the last two returns; then that one is elected",
        _five_shrink_to_the_floor,
        (True, False),
        nodes=5,
    ),
)


def as_markdown() -> tuple[str, str]:
    """The two tables: what it costs, and where dynamic is less available than static."""
    heads = (
        ("what happens to a cluster of three", '`quorum = "static"`', '`quorum = "dynamic"` (default), Redis up'),
        ("what happens", '`"static"`', '`"dynamic"`'),
    )
    first, second = (
        "\n".join(
            [f"| {' | '.join(head)} |", "|---|---|---|"]
            + [f"| {row.what} | {row.static} | {row.dynamic} |" for row in ROWS if row.worse is worse]
        )
        for head, worse in zip(heads, (False, True), strict=True)
    )
    return first, second


# -- all histories of a kind ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Course:
    """Nodes of three end one after the other, or at once, by a kill or a leave; `redis` fails after so many of them;
    then those that ended as the `back`th return."""

    ends: str
    many: int
    redis: str
    after: int
    back: tuple[int, ...]

    def __str__(self) -> str:
        fails = f", Redis is {self.redis} after {self.after}" if self.redis else ""
        return f"{self.many} {self.ends}{fails}; back: {', '.join(map(str, self.back)) or 'nobody'}"

    def run(self, quorum: str) -> bool:
        """Whether a node is active in the end."""
        world = begin(quorum)
        end = world.leave if self.ends == "leave" else world.kill
        gone: list[int] = []
        for number in range(self.many):
            if self.redis and self.after == number:
                _redis(world, self.redis)
            gone.append(_next_to_go(world))
            end(gone[-1])
            world.run(0 if self.ends == "die at once" else NOTICED_MS)
        world.run(NOTICED_MS)
        if self.redis and self.after == self.many:
            _redis(world, self.redis)
        return _returns(world, *(gone[number - 1] for number in self.back))

    def worse(self) -> bool:
        """Whether dynamic is less available here than static."""
        return self.run("static") and not self.run("dynamic")

    @property
    def told(self) -> Row | None:
        """The row that tells why dynamic is worse here; None: no row does."""
        worse = [row for row in ROWS if row.worse]
        lost = self.after == self.many or (self.redis == "down" and self.after > 0)
        if self.ends == "die at once" or not self.redis:
            return None
        match self.many, self.back:
            case 2, (1,) if lost:
                return worse[0] if self.after == 2 else worse[1]
            case 3, (1, 2) | (1, 3) if lost or self.after == 2:
                return worse[2]
        return None


def courses() -> Iterator[Course]:
    """All of them in which at least two of three are up in the end."""
    for ends in ("die one after the other", "die at once", "leave"):
        for many in (1, 2, 3):
            failures = [("", 0), *((redis, after) for redis in ("flushed", "down") for after in range(many + 1))]
            for redis, after in failures:
                for back in range(max(0, many - 1), many + 1):
                    for numbers in combinations(range(1, many + 1), back):
                        yield Course(ends, many, redis, after, numbers)
