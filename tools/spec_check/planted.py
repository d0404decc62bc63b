"""Violations planted into good histories: the specification must reject each of them.

Each function takes the lines of a history and returns altered ones, or None where the history offers no place for it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tools.spec_check.traces import Line

Lines = list[dict[str, Any]]


def _saved(lines: Sequence[Line]) -> list[int]:
    return [i for i, line in enumerate(lines) if line["event"] == "saved"]


def _before(lines: Sequence[Line], at: int) -> Line | None:
    """What the node of line `at` had saved before, in the same process."""
    for line in reversed(lines[:at]):
        if line["node"] == lines[at]["node"]:
            if line["event"] == "node_started":
                return None
            if line["event"] == "saved":
                return line
    return None


def _some(dice: random.Random, places: Sequence[int]) -> int | None:
    return dice.choice(places) if places else None


def _with(lines: Sequence[Line], at: int, *more: Mapping[str, Any]) -> Lines:
    """The lines, with `more` after line `at`, at its time."""
    added = [{**line, "us": lines[at]["us"]} for line in more]
    return [*map(dict, lines[: at + 1]), *added, *map(dict, lines[at + 1 :])]


def _wins(lines: Sequence[Line]) -> list[int]:
    found = []
    for i in _saved(lines):
        before = _before(lines, i)
        if before is not None and before["record"][1] != lines[i]["record"][1] == lines[i]["term"]:
            found += [i] if lines[i]["role"] == "elected" and len(lines[i]["voters"]) > 1 else []
    return found


def _changes(lines: Sequence[Line]) -> list[int]:
    found = []
    for i in _saved(lines):
        before = _before(lines, i)
        if (
            before is not None
            and lines[i]["role"] == "elected" == before["role"]
            and before["voters"] != lines[i]["voters"]
        ):
            found.append(i)
    return found


def _grants(lines: Sequence[Line]) -> list[int]:
    found = []
    for i in _saved(lines):
        line, before = lines[i], _before(lines, i)
        given = line["voted_for"] not in (0, line["node"]) and not line["acknowledges"]
        if before is not None and given and (before["term"], before["voted_for"]) != (line["term"], line["voted_for"]):
            found.append(i)
    return found


def _last_of(lines: Sequence[Line], node: int, at: int) -> Line | None:
    known = [lines[i] for i in _saved(lines) if lines[i]["node"] == node and i <= at]
    return known[-1] if known else None


def second_winner(lines: Sequence[Line], dice: random.Random) -> Lines | None:
    """A second controller in a term."""
    at = _some(dice, _wins(lines))
    if at is None:
        return None
    won = lines[at]
    others = [node for node, _ in won["voters"] if node != won["node"] and _last_of(lines, node, at) is not None]
    if not others:
        return None
    other = _last_of(lines, dice.choice(others), at)
    assert other is not None
    own = {"term": won["term"], "voted_for": other["node"], "voted_epoch": other["epoch"], "role": "elected"}
    return _with(lines, at, {**other, **own, "record": won["record"], "acknowledges": 0})


def vote_changed(lines: Sequence[Line], dice: random.Random) -> Lines | None:
    """A vote of a term, given to another."""
    at = _some(dice, _grants(lines))
    if at is None:
        return None
    line = lines[at]
    other = [(node, epoch) for node, epoch in line["voters"] if node not in (line["node"], line["voted_for"])]
    if not other:
        return None
    return _with(lines, at, {**line, "voted_for": other[0][0], "voted_epoch": other[0][1]})


def record_back(lines: Sequence[Line], dice: random.Random) -> Lines | None:
    """An older record replaces a newer one."""
    places = []
    for i in _saved(lines):
        before = _before(lines, i)
        if before is not None and before["cluster_id"] and before["record"] < lines[i]["record"]:
            places.append(i)
    at = _some(dice, places)
    if at is None:
        return None
    before = _before(lines, at)
    assert before is not None
    return _with(
        lines, at, {**lines[at], **{name: before[name] for name in ("record", "voters", "witness")}, "role": "follower"}
    )


def term_back(lines: Sequence[Line], dice: random.Random) -> Lines | None:
    """The saved term falls."""
    at = _some(dice, [i for i in _saved(lines) if lines[i]["term"] > 1])
    if at is None:
        return None
    return _with(
        lines, at, {**lines[at], "term": lines[at]["term"] - 1, "voted_for": 0, "voted_epoch": 0, "role": "follower"}
    )


def two_voters(lines: Sequence[Line], dice: random.Random) -> Lines | None:
    """Two voters change at once."""
    at = _some(dice, [i for i in _changes(lines) if len(lines[i]["voters"]) > 1])
    if at is None:
        return None
    line, before = lines[at], _before(lines, at)
    assert before is not None
    kept = {tuple(voter) for voter in before["voters"]} & {tuple(voter) for voter in line["voters"]}
    gone = [voter for voter in kept if voter[0] != line["node"]]
    if not gone:
        return None
    altered = [voter for voter in line["voters"] if tuple(voter) != gone[0]]
    return [{**one, "voters": altered} if one is line else dict(one) for one in lines]


def change_without_quorum(lines: Sequence[Line], dice: random.Random) -> Lines | None:
    """The voters change, and nobody else has the record before."""
    places = [i for i in _changes(lines) if len((_before(lines, i) or lines[i])["voters"]) > 1]
    at = _some(dice, places)
    if at is None:
        return None
    line, before = lines[at], _before(lines, at)
    assert before is not None
    won = [i for i in _wins(lines) if i < at and lines[i]["node"] == line["node"]]
    if not won or lines[won[-1]]["record"] != before["record"]:
        return None
    telling = ("saved", "acknowledged", "witness_told", "lease")
    return [
        dict(one)
        for i, one in enumerate(lines)
        if not (won[-1] < i < at and one["event"] in telling and one["us"] >= 0)
    ]


def won_without_votes(lines: Sequence[Line], dice: random.Random) -> Lines | None:
    """Somebody wins, and nobody voted for it."""
    at = _some(dice, [i for i in _wins(lines) if len(lines[i]["voters"]) > 2])
    if at is None:
        return None
    won = lines[at]
    gone = {
        i for i in _grants(lines) if i < at and (lines[i]["term"], lines[i]["voted_for"]) == (won["term"], won["node"])
    }
    return [dict(one) for i, one in enumerate(lines) if i not in gone] if gone else None


def lease_on_too_few(lines: Sequence[Line], dice: random.Random) -> Lines | None:
    """A lease that rests on the controller alone."""
    places = []
    for i, line in enumerate(lines):
        saved = (
            _last_of(lines, line["node"], i) if line["event"] == "lease" and line["lapses_us"] > line["us"] else None
        )
        if saved is not None and len(saved["voters"]) > 1:
            places.append(i)
    at = _some(dice, places)
    if at is None:
        return None
    return [{**one, "rests_on": [one["node"]]} if i == at else dict(one) for i, one in enumerate(lines)]


def two_active(lines: Sequence[Line], dice: random.Random) -> Lines | None:
    """A follower has a lease too."""
    at = _some(dice, [i for i, line in enumerate(lines) if line["event"] == "lease" and line["lapses_us"] > line["us"]])
    if at is None:
        return None
    others = [voter for voter in lines[at]["rests_on"] if voter not in (0, lines[at]["node"])]
    other = _last_of(lines, others[0], at) if others else None
    if other is None or not other["voters"]:
        return None
    return _with(lines, at, {**lines[at], "node": other["node"], "incarnation": other["incarnation"]})


def vote_of_a_lost_epoch(lines: Sequence[Line], dice: random.Random) -> Lines | None:
    """A node that lost its state votes as if nothing had happened."""
    at = _some(dice, [i for i in _grants(lines) if lines[i]["cluster_id"]])
    if at is None:
        return None
    line = lines[at]
    later = [i for i in _saved(lines) if i >= at and lines[i]["node"] == line["node"]]
    altered = [dict(one) for one in lines]
    for i in later:
        if lines[i]["epoch"] == line["epoch"]:
            altered[i]["epoch"] = line["epoch"] + 1
    return altered


def vote_lost_in_a_restart(lines: Sequence[Line], dice: random.Random) -> Lines | None:
    """A process starts with an older copy of its data: its vote of the term is gone, its epoch is not."""
    places = []
    for i in _saved(lines):
        mine = [lines[j] for j in _saved(lines) if lines[j]["node"] == lines[i]["node"]]
        later = mine[mine.index(lines[i]) + 1 :]
        acts = later and (later[0]["record"] != lines[i]["record"] or later[0]["voted_for"])
        again = mine[0] is not lines[i] and lines[i - 1]["event"] == "node_started"
        if again and acts and lines[i]["voted_for"] and later[0]["epoch"] == lines[i]["epoch"]:
            places.append(i)
    at = _some(dice, places)
    if at is None:
        return None
    return [{**one, "voted_for": 0, "voted_epoch": 0} if i == at else dict(one) for i, one in enumerate(lines)]


def vote_despite_a_promise(lines: Sequence[Line], dice: random.Random) -> Lines | None:
    """A voter on whose promise a lease rests votes for another."""
    places = []
    for i, line in enumerate(lines):
        if line["event"] == "lease" and line["lapses_us"] > line["us"]:
            saved = _last_of(lines, line["node"], i)
            bound = [v for v in line["rests_on"] if v not in (0, line["node"])]
            free = [v for v, _ in saved["voters"] if v not in line["rests_on"]] if saved else []
            if bound and free:
                places.append(i)
    at = _some(dice, places)
    if at is None:
        return None
    leader = _last_of(lines, lines[at]["node"], at)
    assert leader is not None
    free = [voter for voter, _ in leader["voters"] if voter not in lines[at]["rests_on"]]
    candidate = _last_of(lines, free[0], at)
    bound = [voter for voter in lines[at]["rests_on"] if voter not in (0, leader["node"])]
    voter = _last_of(lines, bound[0], at)
    if candidate is None or voter is None or not candidate["record"] == voter["record"] == leader["record"]:
        return None
    vote = {
        "term": leader["term"] + 1,
        "voted_for": candidate["node"],
        "voted_epoch": candidate["epoch"],
        "acknowledges": 0,
    }
    return _with(lines, at, {**candidate, **vote, "role": "candidate"}, {**voter, **vote, "role": "follower"})


def other_cluster(lines: Sequence[Line], dice: random.Random) -> Lines | None:
    """A member takes the record of another cluster."""
    at = _some(dice, [i for i in _saved(lines) if lines[i]["cluster_id"] and _before(lines, i) is not None])
    if at is None:
        return None
    record = [lines[at]["record"][0], lines[at]["record"][1], lines[at]["record"][2] + 1]
    return _with(
        lines, at, {**lines[at], "cluster_id": lines[at]["cluster_id"] + 1, "record": record, "role": "follower"}
    )


Plant = Callable[[Sequence[Line], random.Random], Lines | None]
PLANTS: dict[str, Plant] = {
    plant.__name__: plant
    for plant in (
        second_winner,
        vote_changed,
        record_back,
        term_back,
        two_voters,
        change_without_quorum,
        won_without_votes,
        lease_on_too_few,
        two_active,
        vote_of_a_lost_epoch,
        vote_lost_in_a_restart,
        vote_despite_a_promise,
        other_cluster,
    )
}
"""Every violation that is planted, by name."""
