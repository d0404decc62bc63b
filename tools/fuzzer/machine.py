"""Mutated messages through wire and machine: each is refused as malformed, or is one clean step.

What is looked at after each: nothing was raised but `MalformedMessage`; the saved term, vote and record only
move as the rules allow; role, campaign and leadership belong together; no deadline lies so far ahead
that the node would sleep through its life; nothing that peers can say makes memory or traffic grow.
"""

from __future__ import annotations

import random
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache

from tools.fuzzer.mutation import Mutator
from tools.fuzzer.positions import POSITIONS, Target, target_of
from zelect import wire
from zelect.core.effects import Effects, Saved
from zelect.core.events import DeathProven, Event, Evidence, LinkDown, LinkUp, MessageReceived, Tick
from zelect.core.lease import NEVER_US
from zelect.core.machine import Machine
from zelect.core.messages import MalformedMessage
from zelect.core.quorum import NO_RECORD
from zelect.core.state import LeaderState, Role, State, clone

BLOCK = 2000
"""Messages in a block: the unit that a seed and a number name."""
_EPISODE = 40
_LONGEST_SLEEP_US = 3_000_000
_REASONS = 12


@dataclass(frozen=True)
class Finding:
    """What a block broke, and the frames since the target was last set up."""

    block: int
    position: str
    text: str
    frames: tuple[str, ...]


@dataclass
class Block:
    """What became of the messages of one block, by outcome."""

    position: str
    messages: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    finding: Finding | None = None


class _Wrong(AssertionError):
    pass


_target = cache(target_of)


def run_block(seed: int, number: int, kind: type[Machine] = Machine) -> Block:
    """Block `number` of `seed`: a function of the two. Stops at the first thing that is wrong.
    `kind`: which machine is thrown at."""
    name = list(POSITIONS)[number % len(POSITIONS)]
    block, dice = Block(name), random.Random(f"{seed}/{number}")
    run = _Episodes(_target(name), kind, dice, block.outcomes)
    try:
        for _ in range(BLOCK):
            run.throw()
            block.messages += 1
    except Exception as error:  # whatever it is: nothing may be raised
        last = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error} ({last.filename.rsplit('/', 1)[-1]}, line {last.lineno})"
        block.finding = Finding(number, name, text, tuple(run.frames))
    return block


def blocks(seed: int, numbers: range, jobs: int = 1) -> Iterator[Block]:
    """The blocks of `numbers`, in order."""
    if jobs <= 1:
        yield from (run_block(seed, number) for number in numbers)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(run_block, [seed] * len(numbers), numbers, chunksize=4)


class _Episodes:
    """Throws at one target, which is set up again every so often: deep enough to follow one lie with
    the next, short enough to come back from where no lie changes anything any more."""

    def __init__(self, target: Target, kind: type[Machine], dice: random.Random, outcomes: Counter[str]) -> None:
        self._target, self._dice, self._outcomes = target, dice, outcomes
        self._mutator = Mutator(dice, target.corpus, target.may_vote)
        self._machine = kind(target.settings, target.state.saved, ran_before=True)
        self._left, self._now_us = 0, 0
        self.frames: list[str] = []

    def throw(self) -> None:
        dice, machine = self._dice, self._machine
        if self._left == 0:
            machine.state = clone(self._target.state)
            self._left, self._now_us = dice.randrange(1, 2 * _EPISODE), self._target.now_us
            self.frames = []
        self._left -= 1
        self._now_us += dice.choice((1, 50, 200, 200, 1000, 20_000))
        if dice.random() < 0.1:
            self._meanwhile()
        payload = self._mutator.frame(_near(machine.state))
        self.frames.append(payload.hex())
        try:
            envelope = wire.decode(payload)
        except MalformedMessage as error:
            self._outcomes[f"malformed_{error.reason}"] += 1
            return
        if dice.random() < 0.05 and wire.decode(wire.encode(envelope)) != envelope:
            raise _Wrong("what was read is written otherwise")
        effects = self._step(MessageReceived(envelope))
        refused = [fact for fact in effects.facts if fact.name == "message_refused"]
        if refused and effects.save is not None and len(effects.facts) == 1:  # nothing else was due meanwhile
            raise _Wrong("a refused message changed what is saved")
        self._outcomes[str(dict(refused[0].fields)["reason"]) if refused else type(envelope.message).__name__] += 1

    def _meanwhile(self) -> None:
        """Time and the network go on between messages."""
        dice, state = self._dice, self._machine.state
        peer, incarnation = dice.choice(self._target.may_vote)
        event: Event = dice.choice((Tick(), Tick(), Tick(late=True), LinkDown(peer), LinkUp(peer)))
        if dice.random() < 0.1:
            known = state.peers.get(peer)
            event = DeathProven(peer, (known and known.incarnation) or incarnation, Evidence.REFUSED)
        if isinstance(event, Tick):
            due_us = self._machine.deadline_us()
            self._now_us = max(self._now_us, min(due_us, self._now_us + 3_000_000))
        self.frames.append(f"{event} at {self._now_us}")
        self._step(event)

    def _step(self, event: Event) -> Effects:
        machine, before, known = self._machine, self._machine.state.saved, set(self._machine.state.peers)
        effects = machine.step(event, self._now_us)
        _check_saved(before, machine.state.saved, effects)
        _check_state(machine, self._now_us)
        _check_sent(machine, effects, known | machine.state.peers.keys(), self._dice)  # a removed one is told so
        return effects


def _near(state: State) -> tuple[int, ...]:
    """Numbers that mean something to `state`."""
    leader_state, campaign, record = state.leader_state, state.campaign, state.record
    return (
        state.term,
        state.term,
        record.version,
        record.config_term,
        campaign.round if campaign is not None else state.round,
        leader_state.number if leader_state is not None else 1,
        state.saved.incarnation,
        state.saved.voted_for,
    )


def _check_saved(before: Saved, saved: Saved, effects: Effects) -> None:
    if saved is before:
        return
    if saved.term < before.term:
        raise _Wrong(f"the saved term fell from {before.term} to {saved.term}")
    if saved.term == before.term and before.voted_for not in (0, saved.voted_for):
        raise _Wrong(f"the vote of term {saved.term} changed from {before.voted_for} to {saved.voted_for}")
    forgot = saved.epoch > before.epoch and saved.record == NO_RECORD  # a peer remembers a newer disk (R16)
    if saved.record.id < before.record.id and not forgot:
        raise _Wrong(f"record {before.record.id} was replaced by {saved.record.id}")
    if saved.incarnation != before.incarnation or (saved.epoch != before.epoch and not forgot):
        raise _Wrong("the node became another process or storage epoch")
    if before.record.cluster_id not in (0, saved.record.cluster_id) and not forgot:
        raise _Wrong("the node went to another cluster")
    if effects.save != saved and saved != before:
        raise _Wrong("the effects don't save what changed")


def _check_state(machine: Machine, now_us: int) -> None:
    state, timing = machine.state, machine.settings.timing
    promise = state.promise
    if (state.role is Role.ELECTED) is not (state.leader_state is not None):
        raise _Wrong(f"{state.role} with leadership {state.leader_state}")
    if (state.role in (Role.PRE_CANDIDATE, Role.CANDIDATE)) is not (state.campaign is not None):
        raise _Wrong(f"{state.role} with campaign {state.campaign}")
    if state.leader_state is not None:
        _check_leadership(machine, state.leader_state, now_us)
    if promise is not None and promise.until_us > now_us + timing.promise_us:
        raise _Wrong(f"promised for too long: {promise} at {now_us}")
    if state.peers.keys() != state.addresses.keys() - {machine.settings.node}:
        raise _Wrong("it knows other nodes than those that belong to the cluster")
    if max(len(state.waiting_requests), len(state.handed_over)) > len(state.peers) or len(state.refused) > _REASONS:
        raise _Wrong("requests or reasons pile up")
    if state.leaving:
        return
    if machine.deadline_us() > now_us + _LONGEST_SLEEP_US:
        raise _Wrong(f"sleeps for {machine.deadline_us() - now_us} us")
    far_us = now_us + 4 * timing.promise_us + 40 * timing.stagger_us
    if far_us < state.campaign_at_us < NEVER_US:
        raise _Wrong(f"campaigns in {state.campaign_at_us - now_us} us")


def _check_leadership(machine: Machine, leader_state: LeaderState, now_us: int) -> None:
    state, timing = machine.state, machine.settings.timing
    if leader_state.term != state.term or state.saved.voted_for != machine.settings.node:
        raise _Wrong(
            f"a leadership of term {leader_state.term} at term {state.term}, with the vote {state.saved.voted_for}"
        )
    if leader_state.lease_lapses_us > now_us + timing.lease_us:
        raise _Wrong(f"a lease of {leader_state.lease_lapses_us - now_us} us")
    if leader_state.promises_end_us > now_us + timing.promise_us:
        raise _Wrong(f"waits {leader_state.promises_end_us - now_us} us for a promise to end")
    voters = len(state.peers) + 2
    if max(len(leader_state.answered_us), len(leader_state.saved_by), len(leader_state.steady_us)) > voters:
        raise _Wrong("answers pile up")


def _check_sent(machine: Machine, effects: Effects, peers: set[int], dice: random.Random) -> None:
    if len(effects.send) > 6 * len(peers) or len(effects.probe) > 4 * len(peers) or len(effects.facts) > 40:
        raise _Wrong(f"{len(effects.send)} messages, {len(effects.probe)} probes, {len(effects.facts)} facts for one")
    for to, envelope in effects.send:
        if to not in peers:
            raise _Wrong(f"speaks to {to}")
        if dice.random() < 0.05 and wire.decode(wire.encode(envelope)) != envelope:
            raise _Wrong(f"cannot be read: {envelope}")
