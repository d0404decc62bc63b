"""Which voters the controller strives for: the next step as a table, and where the steps lead."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.records import made_record
from zelect.core.quorum import Record, Witness, has_quorum
from zelect.core.voters import FLOOR, Change, VoterHealth, failures_survived, next_change, outlook

W = Witness("key", "run", "repl")
LIVES = {node: 10 * node for node in range(1, 10)}


def record(voters: str) -> Record:
    """ "1 2 3 W" as a record."""
    names = voters.split()
    members = tuple(int(name) for name in names if name != "W")
    return made_record(1, 1, members, W if "W" in names else None, epochs=tuple(LIVES[m] for m in members))


def ids(names: str) -> frozenset[int]:
    return frozenset(int(name) for name in names.split())


def said(change: Change | None) -> str:
    if change is None:
        return "-"
    if change.add or change.remove:
        return f"+{change.add}" if change.add else f"-{change.remove}"
    return "+W" if change.add_witness else "-W"


# voters         gone      joinable  witness     next
TABLE = """
  1 2 3        | -       | -       | ready     | -
  1 2 3        | 3       | -       | ready     | +W
  1 2 3 W      | 3       | -       | member    | -3
  1 2 W        | 3       | -       | member    | -
  1 2 W        | 2 3     | -       | member    | -
  1 2 W        | 2       | -       | member    | -
  1 2 W        | -       | 3       | member    | +3
  1 2 3 W      | -       | -       | member    | -W
  1 2 3        | 3       | -       | absent    | -
  1 2 3        | 2 3     | -       | absent    | -2
  1 2 3        | 2 3     | -       | ready     | +W
  1 2          | 2       | -       | absent    | -
  1 2          | -       | -       | absent    | -
  1 2          | -       | -       | ready     | +W
  1 2          | 2       | -       | ready     | +W
  1 2 W        | -       | -       | lost      | -W
  1 2 3 W      | 3       | -       | lost      | -W
  1            | -       | -       | ready     | -
  1            | -       | 2       | ready     | +2
  1 2 3 4 5    | 5       | -       | ready     | +W
  1 2 3 4 5 W  | 5       | -       | member    | -5
  1 2 3 4 W    | -       | -       | member    | -
  1 2 3 4 W    | 4       | -       | member    | -4
  1 2 3 W      | 4       | -       | member    | -W
  1 2 3 4 5    | 4 5     | -       | absent    | -4
  1 2 3 5      | 4 5     | -       | absent    | -5
  1 2 3 4      | 4       | -       | absent    | -4
  1 2 3 4      | -       | -       | ready     | +W
  1 2 3 4 5    | 5       | -       | absent    | -
  1 2 3        | -       | 4 5     | ready     | +4
  1 2 3        | 3       | 4       | ready     | +4
  1 2 W        | -       | -       | away      | -
  1 2 W        | -       | 3       | away      | +3
  1 2 3 W      | -       | -       | away      | -W
  1 2 3 W      | 3       | -       | away      | -3
"""

WITNESSES = {
    "ready": (True, False),  # could be put in
    "member": (True, False),
    "absent": (False, False),
    "away": (False, False),  # a member that can't be reached
    "lost": (True, True),  # a member that is an unknown client now
}

ROWS = [tuple(cell.strip() for cell in line.split("|")) for line in TABLE.strip().splitlines()]


@pytest.mark.parametrize(("voters", "gone", "joinable", "witness", "expected"), ROWS, ids=["; ".join(r) for r in ROWS])
def test_the_next_change(voters: str, gone: str, joinable: str, witness: str, expected: str) -> None:
    ready, lost = WITNESSES[witness]
    health = VoterHealth(
        gone=ids(gone.replace("-", "")),
        joinable=ids(joinable.replace("-", "")),
        witness_ready=ready,
        witness_lost=lost,
    )
    assert said(next_change(record(voters), health, dynamic=True)) == expected


@pytest.mark.parametrize(
    ("voters", "health", "expected"),
    [
        ("1 2 3", VoterHealth(gone=ids("3"), witness_ready=True), "-"),
        ("1 2 3", VoterHealth(gone=ids("2 3")), "-"),
        ("1 2", VoterHealth(witness_ready=True), "-"),
        ("1 2 W", VoterHealth(witness_ready=True), "-W"),
        ("1 2", VoterHealth(joinable=ids("3")), "+3"),
        ("1 2 3", VoterHealth(lost_state=ids("3")), "-3"),
    ],
)
def test_static_voters_change_only_for_a_lost_epoch(voters: str, health: VoterHealth, expected: str) -> None:
    assert said(next_change(record(voters), health, dynamic=False)) == expected


@pytest.mark.parametrize(
    ("voters", "health", "expected"),
    [
        ("1 2 3", VoterHealth(lost_state=ids("3")), "-3"),
        ("1 2 3", VoterHealth(lost_state=ids("2 3"), gone=ids("1")), "-2"),
        ("1 2 W", VoterHealth(lost_state=ids("2"), witness_ready=True), "-2"),
        ("1", VoterHealth(lost_state=ids("1")), "-"),
        ("1 2 3", VoterHealth(lost_state=ids("4")), "-"),
        ("1 2", VoterHealth(joinable=ids("3"), lost_state=ids("2")), "-2"),
    ],
)
def test_a_lost_epoch_is_removed_before_anybody_is_added(voters: str, health: VoterHealth, expected: str) -> None:
    assert said(next_change(record(voters), health, dynamic=True)) == expected


# -- where the steps lead ------------------------------------------------------------------------------------

Situation = tuple[Record, tuple[int, ...], frozenset[int], bool]
"""A record among configured members, which of them are alive, and whether Redis could be a witness."""


def subsets(nodes: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [group for size in range(1, len(nodes) + 1) for group in combinations(nodes, size)]


def _situations(most: int) -> Iterator[Situation]:
    for count in range(1, most + 1):
        configured = tuple(range(1, count + 1))
        for members, alive, witness, ready in product(
            subsets(configured), subsets(configured), (None, W), (True, False)
        ):
            if set(members) & set(alive):
                epochs = tuple(LIVES[m] for m in members)
                now = made_record(1, 1, members, witness, epochs=epochs, belong=configured)
                yield now, configured, frozenset(alive), ready


SITUATIONS = list(_situations(5))
"""All there are with up to five nodes and a living member."""


def health_of(now: Record, members: tuple[int, ...], alive: frozenset[int], ready: bool) -> VoterHealth:
    dead = frozenset(members) - alive
    return VoterHealth(gone=dead, joinable=alive - set(now.members), witness_ready=ready)


def walk(now: Record, members: tuple[int, ...], alive: frozenset[int], ready: bool) -> list[Record]:
    """All records on the way; fails when the way has no end."""
    way = [now]
    while (change := next_change(way[-1], health_of(way[-1], members, alive, ready), dynamic=True)) is not None:
        way.append(change.applied(way[-1], LIVES, W))
        assert len(way) < 40, "no end"
    return way


def test_each_step_changes_one_voter_and_the_changes_come_to_an_end() -> None:
    for situation in SITUATIONS:
        for before, after in pairwise(walk(*situation)):
            assert after.differs_by_one_from(before)
            assert len(set(before.voters) ^ set(after.voters)) == 1
            assert after.id > before.id
            assert after.members, "somebody is left"


def test_when_all_are_alive_all_members_vote_and_the_witness_if_they_are_even() -> None:
    for now, members, _, _ in SITUATIONS:
        last = walk(now, members, frozenset(members), True)[-1]
        assert last.members == members
        assert (last.witness is not None) is (len(members) % 2 == 0)


def test_with_a_witness_the_remaining_voters_are_odd_and_the_dead_are_removed() -> None:
    for now, members, alive, _ in SITUATIONS:
        last = walk(now, members, alive, True)[-1]
        assert len(last.voters) % 2 == 1
        assert alive <= set(last.members)
        assert set(last.members) <= alive or len(last.members) <= FLOOR


def test_no_step_needs_more_voters_than_are_alive() -> None:
    """A quorum that is alive before the first step is alive at each later one."""
    for now, members, alive, ready in SITUATIONS:
        voters = {*alive, 0} if ready else set(alive)
        if has_quorum(now.voters, voters):
            for after in walk(now, members, alive, ready):
                assert has_quorum(after.voters, voters), f"stuck at {after.voters} on the way from {now.voters}"


def test_static_voters_never_shrink_because_of_the_dead() -> None:
    for now, members, alive, ready in SITUATIONS:
        change = next_change(now, health_of(now, members, alive, ready), dynamic=False)
        assert change is None or not (change.remove or change.add_witness)


@given(st.permutations(range(1, 8)), st.integers(1, 7), st.booleans())
def test_seven_that_go_and_come_in_any_order_all_become_voters_again(order: list[int], stay: int, ready: bool) -> None:
    members = tuple(range(1, 8))
    now = made_record(1, 1, members, epochs=tuple(LIVES[m] for m in members))
    alive = set(members)
    for gone in order[stay:]:
        alive.discard(gone)
        now = walk(now, members, frozenset(alive), ready)[-1]
    for back in reversed(order[stay:]):
        alive.add(back)
        now = walk(now, members, frozenset(alive), ready)[-1]
    assert now.voters == members


# -- how many may fail -----------------------------------------------------------------------------------------

# voters      alive       witness  dynamic | survives
SURVIVED = """
  1           | 1         | up   | dynamic | 0
  1 2 W       | 1 2       | up   | dynamic | 1
  1 2 W       | 1         | up   | dynamic | 0
  1 2 W       | 1         | down | dynamic | -1
  1 2 W       | 1 2       | down | dynamic | 0
  1 2 3       | 1 2 3     | up   | dynamic | 2
  1 2 3       | 1 2 3     | down | dynamic | 1
  1 2 3       | 1 2       | up   | dynamic | 1
  1 2 3       | 1         | up   | dynamic | -1
  1 2 3       | 1         | down | dynamic | -1
  1 2 3 4 5   | 1 2 3 4 5 | up   | dynamic | 4
  1 2 3 4 5   | 1 2 3 4 5 | down | dynamic | 3
  1 2 3 4 5   | 1 2       | up   | dynamic | -1
  1 2 3       | 1 2 3     | up   | static  | 1
  1 2 3       | 1 2       | up   | static  | 0
  1 2 3 4 5   | 1 2 3 4 5 | up   | static  | 2
  1 2         | 1 2       | up   | static  | 0
  1 2         | 1 2       | up   | dynamic | 1
  1 2         | 1 2       | down | dynamic | 0
"""
SURVIVED_ROWS = [tuple(cell.strip() for cell in line.split("|")) for line in SURVIVED.strip().splitlines()]


@pytest.mark.parametrize(
    ("voters", "alive", "witness", "quorum", "survives"), SURVIVED_ROWS, ids=["; ".join(r) for r in SURVIVED_ROWS]
)
def test_failures_survived(voters: str, alive: str, witness: str, quorum: str, survives: str) -> None:
    now = record(voters)
    assert failures_survived(now, ids(alive), witness == "up", quorum == "dynamic") == int(survives)


def test_a_witness_that_is_up_never_does_harm() -> None:
    for now, _, alive, _ in SITUATIONS:
        survived = [failures_survived(now, alive, witness_up, True) for witness_up in (True, False)]
        assert survived[0] >= survived[1]


def test_dynamic_voters_never_survive_less_than_static_ones() -> None:
    for now, _, alive, ready in SITUATIONS:
        if now.witness is None:
            assert failures_survived(now, alive, ready, True) >= failures_survived(now, alive, ready, False)


def test_another_epoch_of_a_member_comes_in_after_the_old_one_went_out() -> None:
    before = made_record(1, 1, (1, 2, 3), epochs=(1, 2, 3))
    out = Change(remove=2).applied(before, {2: 22})
    after = Change(add=2).applied(out, {2: 22})
    assert (out.members, out.epochs, out.nodes) == ((1, 3), (1, 3), (1, 2, 3))
    assert (after.epochs, after.voters, after.version) == ((1, 22, 3), before.voters, 3)


@pytest.mark.parametrize(
    ("members", "down", "at_once", "in_turn"),
    [
        ((1, 2, 3), (3,), 1, 1),
        ((1, 2, 3), (2, 3), -1, 0),
        ((1, 2, 3), (1, 2, 3), -1, -1),
    ],
)
def test_the_outlook_tells_failures_at_once_from_failures_in_turn(
    members: tuple[int, ...], down: tuple[int, ...], at_once: int, in_turn: int
) -> None:
    assert outlook(made_record(1, 1, members), members, down, True, True) == (at_once, in_turn)
