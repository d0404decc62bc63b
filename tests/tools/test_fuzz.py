"""A seeded share of the fuzzing: hostile messages against every position of the machine."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from tools.fuzzer.machine import BLOCK, run_block
from tools.fuzzer.mutation import Mutator
from tools.fuzzer.positions import POSITIONS, target_of
from zelect.core.effects import Effects
from zelect.core.events import Event, MessageReceived
from zelect.core.machine import Machine
from zelect.core.messages import MESSAGES, Handover, NodeOffline, Ping, Pong, Voting

SEED = 7


@pytest.mark.parametrize(
    "number", range(2 * len(POSITIONS)), ids=lambda n: f"{list(POSITIONS)[n % len(POSITIONS)]} {n}"
)
def test_mutated_messages_are_refused_or_handled(number: int) -> None:
    block = run_block(SEED, number)
    assert block.finding is None
    assert block.messages == block.outcomes.total() == BLOCK
    handled = sum(block.outcomes[kind.__name__] for kind in MESSAGES.values())
    assert handled > BLOCK / 6, f"most never got as far as an actor: {block.outcomes}"


def test_every_type_is_handled_and_every_reason_is_met() -> None:
    met = Counter[str]()
    for number in range(len(POSITIONS)):
        met.update(run_block(SEED, number).outcomes)
    assert {kind.__name__ for kind in MESSAGES.values()} <= met.keys()
    gate = {
        "wrong_cluster",
        "own_id",
        "unknown_sender",
        "settings_mismatch",
        "other_generation",
        "term_jump",
        "other_cluster",
    }
    assert gate | {"impossible_voters", "old_incarnation", "id_in_use"} <= met.keys()
    wire = {"not_msgpack", "bad_envelope", "other_version", "unknown_type", "bad_field"}
    assert {f"malformed_{reason}" for reason in wire} <= met.keys()


def test_the_same_seed_throws_the_same() -> None:
    assert run_block(3, 5) == run_block(3, 5)


def test_no_frame_depends_on_those_of_another_seed() -> None:
    target = target_of("follower")

    def frames(seed: int, count: int) -> list[bytes]:
        mutator = Mutator(random.Random(seed), target.corpus, target.may_vote)
        return [mutator.frame((1, 2, 3)) for _ in range(count)]

    first = frames(5, 5000)
    frames(6, 20_000)
    assert frames(5, 5000) == first


# -- machines with a fault: each must be found ----------------------------------------------------


class _Crashes(Machine):
    def step(self, event: Event, now_us: int) -> Effects:
        if isinstance(event, MessageReceived) and isinstance(event.envelope.message, NodeOffline):
            raise KeyError(event.envelope.message.node)
        return super().step(event, now_us)


class _Careless(Machine):
    """Spoils something after a message of one type that changed nothing durable."""

    on: type = Ping

    def step(self, event: Event, now_us: int) -> Effects:
        effects = super().step(event, now_us)
        if effects.save is None and isinstance(event, MessageReceived) and isinstance(event.envelope.message, self.on):
            self.spoil(now_us)
        return effects

    def spoil(self, now_us: int) -> None:
        raise NotImplementedError


class _ForgetsTheTerm(_Careless):
    def spoil(self, now_us: int) -> None:
        saved = self.state.saved
        self.state.saved = replace(saved, term=max(0, saved.term - 1))


class _VotesAgain(_Careless):
    on = Voting

    def spoil(self, now_us: int) -> None:
        saved = self.state.saved
        if saved.voted_for:
            self.state.saved = replace(saved, voted_for=saved.voted_for % 3 + 1)


class _SleepsIn(_Careless):
    on = Handover

    def spoil(self, now_us: int) -> None:
        self.state.next_idle_us = self.state.next_witness_look_us = self.state.next_publish_us = now_us + 10**10


class _Promises(_Careless):
    on = Pong

    def spoil(self, now_us: int) -> None:
        if self.state.promise is not None:
            self.state.promise = replace(self.state.promise, until_us=now_us + 10**9)


@pytest.mark.parametrize(
    ("kind", "position", "words"),
    [
        (_Crashes, "follower", "KeyError"),
        (_ForgetsTheTerm, "follower", "the saved term fell"),
        (_VotesAgain, "active", "the vote of term"),
        (_SleepsIn, "follower", "sleeps for"),
        (_Promises, "follower", "promised for too long"),
    ],
)
def test_a_faulty_machine_is_found_out(kind: type[Machine], position: str, words: str) -> None:
    finding = run_block(SEED, list(POSITIONS).index(position), kind).finding
    assert finding is not None
    assert words in finding.text
    assert finding.frames
