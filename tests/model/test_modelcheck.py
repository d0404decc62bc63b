"""The exhaustive checker, within bounds that suit a test run; wider ones: `tools/modelcheck.py`."""

from __future__ import annotations

import random
from dataclasses import fields, replace
from typing import Any

import pytest
import redis

from tests.support.marks import long_but
from tests.support.records import made_record
from tests.support.redis_server import redis_server  # noqa: F401
from tools.common.witness import WitnessServer
from tools.modelcheck import check
from tools.modelchecker.model import Bounds, Seams, World
from tools.modelchecker.mutants import MUTANTS
from tools.modelchecker.scenarios import SCENARIOS
from tools.modelchecker.search import search
from tools.modelchecker.stages import Stages
from zelect.core.effects import WitnessCreate, WitnessPing, WitnessVote
from zelect.core.events import WitnessAnswered, WitnessCreated, WitnessVoted
from zelect.core.quorum import Witness
from zelect.core.state import Campaign, LeaderState, Pause, Peer, PendingHandover, Promise, State
from zelect.devcluster.bundled_server import RedisServer
from zelect.redis.witness_record import RecordTexts
from zelect.redis.witness_scripts import WITNESS_SCRIPT, parse_witness_reply, witness_key, words

WHOLE = ["static3", "votes3", "shrink", "floor", "lone", "grow", "add3", "remove3"]
SMALL = [
    ("grow", {}),
    ("votes3", {"restarts": 0, "inside": False}),
    ("floor", {"versions": 1, "crashes": 0, "witness_losses": 0, "candidates": (2,), "victims": (3,), "creations": 0}),
]
NO_LIMIT: dict[str, Any] = {"most": 10**9, "depth": 10**9, "seconds": 1e9}
LONG = {
    "hears-while-saving",
    "members-uncommitted",
    "votes-by-message",
    "two-at-once",
    "nothing-saved",
    "forgot-and-votes",
    "any-witness",
    "older-records",
}
"""Caught as well, but their shortest ways take a while: `tools/modelcheck.py --mutant all`."""


@pytest.mark.parametrize("name", long_but(WHOLE, "votes3", "grow"))
def test_every_order_of_events_keeps_the_promises(name: str) -> None:
    found = check(name)
    assert found.violation == "", "\n".join([found.violation, *found.trace])
    assert found.complete
    assert SCENARIOS[name].must <= found.seen


@pytest.mark.long
def test_five_voters_elect_one_in_the_first_stages() -> None:
    found = check("votes5", {"candidates": ()}, most=100_000)
    assert found.violation == "", "\n".join([found.violation, *found.trace])


@pytest.mark.long
def test_no_leadership_is_entered_while_a_job_acts_in_the_first_stages() -> None:
    found = check("guarded3", most=30_000)
    assert found.violation == "", "\n".join([found.violation, *found.trace])


@pytest.mark.parametrize(
    "name", long_but(sorted(MUTANTS.keys() - LONG), *MUTANTS.keys() - {"sent-first", "job-unprotected", "copy-kept"})
)
def test_a_broken_rule_is_found(name: str) -> None:
    mutant = MUTANTS[name]
    found = check(mutant.scenario, mutant.bounds, mutant, most=100_000)
    assert found.violation
    assert found.trace


@pytest.mark.parametrize(("name", "bounds"), SMALL, ids=[name for name, _ in SMALL])
@pytest.mark.long
def test_stages_hold_every_world(name: str, bounds: dict[str, Any]) -> None:
    """What is left out by taking worlds as one is nothing: each is on a stage, with all its messages in flight."""
    universe, start = SCENARIOS[name].begin(replace(SCENARIOS[name].bounds, **bounds), Seams())
    stages = Stages(universe, len(universe.model.nodes))
    assert stages.search(start, **NO_LIMIT).complete
    held: dict[int, list[int]] = {}
    for key, bits in zip(stages.keys, stages.bit_sets, strict=True):
        held.setdefault(stages.without_grants(key), []).append(bits)
    worlds: list[World] = []
    assert search(universe, start, on_move=worlds.append, **NO_LIMIT).complete
    assert len(worlds) > len(stages.keys)
    for world in worlds:
        in_flight = world.in_flight & ~stages.dead_in(world)
        key = stages.key(world, len(universe.model.nodes))
        assert any(not in_flight & ~bits for bits in held[key])


@pytest.mark.long
def test_names_may_be_given_in_the_order_of_campaigns() -> None:
    """With and without it, the same comes about, but for the names."""
    bounds = Bounds(terms=1, crashes=1, restarts=0, witness_losses=0, beats=False, clock=False)
    assert bounds.nameless
    shapes: list[set[object]] = []
    for alike in (0, 3):
        universe, start = SCENARIOS["votes3"].begin(bounds, Seams())
        stages = Stages(universe, alike)
        assert stages.search(start, **NO_LIMIT).complete
        shapes.append({stages.shape(key) for key in stages.keys})
    assert shapes[0] == shapes[1]


def test_every_time_in_a_state_is_known_to_the_checker() -> None:
    """A new deadline must be brought into its relative form (tools/modelchecker/canonical.py), else worlds
    that differ in nothing but the date count as different, or a deadline never moves."""
    times = {
        item.name
        for kind in (State, PendingHandover, LeaderState, Campaign, Peer, Promise, Pause)
        for item in fields(kind)
    }
    assert {name for name in times if name.endswith("_us")} == {
        *("grace_until_us", "identify_until_us", "controller_heard_us", "last_controller_heard_us", "campaign_at_us"),
        *("next_idle_us", "next_witness_look_us", "next_publish_us", "began_us", "give_up_us", "heard_us", "linked_us"),
        *(
            "round_began_us",
            "lost_us",
            "cooling_until_us",
            "cluster_told_us",
            "redis_told_until_us",
            "save_us",
            "disks_us",
        ),  # the last two: durations
        *(
            "until_us",
            "elected_us",
            "promises_end_us",
            "previous_heard_us",
            "next_ping_us",
            "quorum_lost_us",
        ),
        *(
            "renewed_us",
            "lease_lapses_us",
            "active_since_us",
            "create_witness_again_us",
            "sent_us",
            "steady_us",
            "answered_us",
        ),
    }


class Twins:
    """The script in a real server, and the checker's twin of it, asked the same."""

    def __init__(self, server: RedisServer) -> None:
        self.redis: Any = redis.Redis.from_url(server.url)
        told = self.redis.info()
        self.run_id, self.replid = told["run_id"], told["master_replid"]
        self.model = WitnessServer()
        self.turn = 0
        self.most_named = 0

    def identity(self, key: str, known: bool) -> Witness:
        return Witness(key, self.run_id if known else "another", self.replid)

    def ask(
        self,
        op: str,
        who: tuple[int, int],
        term: int,
        record_id: tuple[int, int, int],
        key: str,
        known: bool,
        cluster_id: int,
    ) -> None:
        self.turn += 1
        named = Witness(key, f"run{self.model.run}" if known else "another", "repl")
        record = made_record(record_id[1], record_id[2], (1, 2), generation=record_id[0], cluster_id=cluster_id)
        promise_ms = 600_000 - who[0] if who[1] == 1 else 0  # whom it acknowledged lives on, or was never safe
        intent: WitnessCreate | WitnessPing | WitnessVote
        if op == "create":
            intent = WitnessCreate(key, term, record)
        elif op == "ping":
            intent = WitnessPing(named, term, 1, record)
        else:
            intent = WitnessVote(named, op == "pre", 1, term, record)
        self.model, event = self.model.answer(who, intent, self.turn, promise_ms, clock_us=1)
        texts = RecordTexts("demo")
        asked = (self.turn, promise_ms, texts.write(record), cluster_id)
        script = words(op, self.identity(key, known), who[0], who[1], term, record_id, *asked)
        raw = self.redis.eval(WITNESS_SCRIPT.text, 1, witness_key("demo"), *map(str, script))
        reply = parse_witness_reply(raw)
        if isinstance(event, WitnessCreated) or event is None:
            assert (event is not None) == (reply.refusal is None)
            return
        assert isinstance(event, WitnessVoted | WitnessAnswered)
        assert (event.reason, event.term, event.record) == (reply.refusal, reply.term, texts.read(reply.record))
        if isinstance(event, WitnessVoted):
            assert (event.named, event.many) == (reply.named, reply.many)
            self.most_named = max(self.most_named, len(event.named) + event.many)

    def look(self) -> None:
        """Whatever the identity, both hand out the same record."""
        raw = self.redis.eval(WITNESS_SCRIPT.text, 1, witness_key("demo"), *map(str, words("look", None)))
        assert RecordTexts("demo").read(parse_witness_reply(raw).record) == self.model.handed_out

    def misfortune(self, kind: str) -> None:
        if kind == "flushed":
            self.redis.flushall()
            self.model = self.model.flushed()
        elif self.model.memory is not None:  # to the script a hash of another run is one from before a restart
            self.redis.hset(witness_key("demo"), "run_id", "before")
            self.model = self.model.restarted(self.model.memory)


def test_the_checkers_witness_answers_as_the_script_does(redis_server: RedisServer) -> None:  # noqa: F811
    chance = random.Random(12)
    twins = Twins(redis_server)
    for _ in range(3_000):
        if chance.random() < 0.02:
            twins.misfortune(chance.choice(["flushed", "restarted"]))
            continue
        if chance.random() < 0.05:
            twins.look()
        newest = twins.model.memory
        term = max(1, (0 if newest is None else newest.term) + chance.randint(-1, 2))
        op = chance.choice(["create", "vote", "pre", "ping", "ping", "vote"])
        # Who creates one may be of another cluster, or of another generation than the one before.
        cluster_id, generation = chance.randint(7, 8), chance.randint(0, 1)
        if op != "create" and newest is not None:
            cluster_id = newest.record.cluster_id
        record_id = (generation, chance.randint(max(1, term - 4), term), chance.randint(1, 3))  # no newer than its term
        twins.ask(
            op,
            (chance.randint(1, 3), chance.randint(1, 2)),
            term,
            record_id,
            chance.choice(["a", "b"]),
            chance.random() < 0.9,
            cluster_id,
        )
    assert twins.most_named > 3, "no vote came with more names than can be told apart"
