"""How a step collects what is to be done, and puts it in order."""

from __future__ import annotations

from dataclasses import fields

import pytest

from tests.support.positions import deaf
from zelect.core.effects import FACTS, Effects
from zelect.core.messages import Handover, Ping
from zelect.core.step import NOTHING, Step

IDLE = Ping(0, False, None, ())


def fresh() -> Step:
    machine = deaf(3).processes[1].machine
    return Step(machine.settings, machine.state, 0, 7)


def test_the_effects_stand_in_the_order_in_which_they_are_carried_out() -> None:
    order = ["save", "connect", "send", "witness", "publish", "probe", "answer", "facts", "leave"]
    assert [item.name for item in fields(Effects)] == order


def test_a_step_that_asks_for_nothing_is_always_the_same_value() -> None:
    assert fresh().finish() is NOTHING


def test_messages_carry_the_term_after_the_step() -> None:
    step = fresh()
    step.send(2, IDLE)
    step.save(term=9)
    effects = step.finish()
    assert effects.save is not None
    assert [(to, e.sender, e.term, e.settings) for to, e in effects.send] == [(2, 1, 9, 7)]


def test_a_broadcast_is_one_envelope() -> None:
    step = fresh()
    step.broadcast(Handover(1, 2))
    (two, first), (three, second) = step.finish().send
    assert (two, three) == (2, 3)
    assert first is second


def test_a_change_that_changes_nothing_is_not_saved() -> None:
    step = fresh()
    step.save(term=step.state.term)
    step.note("leave_announced")
    assert step.finish().save is None


def test_only_a_process_that_was_heard_and_lives_is_probed() -> None:
    step = fresh()
    for peer in (1, 9):
        step.probe(peer)
    step.know(2, incarnation=5)
    step.know(3, incarnation=5, dead=True)
    step.probe(2)
    step.probe(3)
    assert [(probe.peer, probe.incarnation) for probe in step.finish().probe] == [(2, 5)]


@pytest.mark.parametrize("fields", [{"peer": 1, "term": 1}, {"peer": "1"}, {}])
def test_a_fact_is_noted_with_its_declared_fields_or_not_at_all(fields: dict[str, object]) -> None:
    with pytest.raises(TypeError, match="link_opened"):
        fresh().note("link_opened", **fields)


def test_a_fact_that_is_not_declared_is_a_bug() -> None:
    assert "link_open" not in FACTS
    with pytest.raises(KeyError):
        fresh().note("link_open", peer=1)
