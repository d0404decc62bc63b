"""AdminAction (R6, R8): what an operator asks for, who may be handed leadership, and who asked for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.support.positions import sent_by, step
from tools.simulator.small_world import World, packet
from zelect.core.eligibility import Ineligible, ineligible
from zelect.core.events import HealthChanged, JobEnded, Leave, LinkDown, MessageReceived, PriorityChanged
from zelect.core.messages import (
    COOLING_DOWN,
    MAX_FOR_MS,
    UNHEALTHY,
    AdminAction,
    AdminCommand,
    CommonResp,
    Handover,
    MalformedMessage,
    Pong,
    Query,
    Reason,
    Result,
    Type,
)
from zelect.core.status import NodeStatus, PauseStatus
from zelect.core.timing import Timing

PROMISE_MS = Timing().election_timeout_ms
ASKED = "ops@host1: a new kernel"


def settled(nodes: int = 3, **options: Any) -> World:
    """Node 1 is active, and has been for longer than an election timeout."""
    world = World(nodes, **options)
    world.start()
    world.run_until(lambda: world.controller() == 1)
    world.run(1000)
    return world


def order(what: AdminAction, to: int = 0, for_ms: int = 0) -> AdminCommand:
    return AdminCommand(what, to, for_ms, "a new kernel", "ops@host1")


def heard(world: World, message: AdminCommand | Query) -> MessageReceived:
    """`message` as the command line says it: from nobody, of no term."""
    envelope = packet(world, next(iter(world.processes)), message, 0).envelope
    return MessageReceived(replace(envelope, sender=0, incarnation=0, settings=0, generation=0))


def ask(world: World, node: int, message: AdminCommand) -> CommonResp:
    """What `node` answers; what it wants done is done."""
    process = world.processes[node]
    effects = process.machine.step(heard(world, message), world.now_us)
    world._carry_out(node, effects)
    world._arm(node, process)
    assert isinstance(effects.answer, CommonResp)
    assert effects.answer.about == Type.ADMIN
    assert effects.save is None, "neither term nor vote nor voters are an operator's to choose"
    return effects.answer


def view(world: World, node: int) -> NodeStatus:
    answer = step(world, node, heard(world, Query("status"))).answer
    assert isinstance(answer, NodeStatus)
    return answer


def transfer(to: int = 0) -> AdminCommand:
    return order(AdminAction.TRANSFER, to)


STEPDOWN = order(AdminAction.STEPDOWN, for_ms=5000)
PAUSE = order(AdminAction.PAUSE, for_ms=5000)
RESUME = order(AdminAction.RESUME)
EVERY = [transfer(3), transfer(9), STEPDOWN, PAUSE, RESUME]


# -- transfer -----------------------------------------------------------------------------------


def test_r8_leadership_goes_to_the_node_that_is_named() -> None:
    world = settled()
    answer = ask(world, 1, transfer(3))
    assert (answer.result, answer.detail) == (Result.OK, "handed over to node 3")
    took_ms = world.run_until(lambda: world.controller() is not None)
    assert world.controller() == 3
    assert took_ms < 20, "no promise to wait for"
    world.run(3000)
    assert world.controller() == 3


def test_r8_without_a_name_it_goes_to_the_first_in_line() -> None:
    assert ask(settled(), 1, transfer()).detail == "handed over to node 2"


def test_r8_a_priority_changed_while_running_counts() -> None:
    world = settled(4)
    world.feed(3, PriorityChanged(7))
    world.run(300)  # a heartbeat asks, the answer tells
    assert ask(world, 1, transfer()).detail == "handed over to node 3"


def test_a_transfer_to_the_node_active_changes_nothing() -> None:
    world = settled()
    answer = ask(world, 1, transfer(1))
    assert (answer.result, answer.detail) == (Result.OK, "node 1 is already active")
    assert world.controller() == 1


@pytest.mark.parametrize("message", [transfer(3), transfer(2), STEPDOWN], ids=lambda m: f"{m.what}-{m.to}")
def test_who_is_not_active_names_who_is(message: AdminCommand) -> None:
    world = settled()
    answer = ask(world, 2, message)
    assert (answer.result, answer.detail) == (Result.NOT_CONTROLLER, "node 2 is not active; node 1 is")
    assert view(world, 2).cooling_left_us == 0
    world.kill(1, 3)
    world.run(2000)
    assert ask(world, 2, message).detail == "node 2 is not active and knows of no controller"


def test_r5_who_is_active_no_more_hands_over_nothing() -> None:
    world = settled()
    late_us = world.state(1).leader_state.lease_lapses_us - world.now_us
    effects = step(world, 1, heard(world, transfer(3)), late_us)
    assert isinstance(effects.answer, CommonResp)
    assert effects.answer.result is Result.NOT_CONTROLLER
    assert not sent_by(effects, Handover)


def test_unrecognized_is_handed_nothing() -> None:
    world = settled()
    answer = ask(world, 1, transfer(9))
    assert (answer.result, answer.detail) == (Result.INELIGIBLE, "node 9 does not belong to the cluster")
    assert world.controller() == 1


# -- who is fit to lead -------------------------------------------------------------------------


def _dead(world: World) -> None:
    world.kill(3)
    world.run(5)


def _offline(world: World) -> None:
    world.leave(3)
    world.run(2)


def _unresponsive(world: World) -> None:
    world.cut(1, 3)
    world.run(Timing().down_after_ms + 300)


def _not_member(world: World) -> None:
    world.kill(3)
    world.run(2000)
    world.start(3, forget=True)
    world.run(5)


def _not_connected(world: World) -> None:
    world.processes[1].linked.discard(3)
    world.cut(1, 3)
    world.feed(1, LinkDown(3))


def _not_heard(world: World) -> None:
    world.cut(1, 3)
    world.run(PROMISE_MS + 10)


def test_r8_who_forgot_what_it_voted_could_not_win() -> None:
    world = settled()
    state = world.state(1)
    state.peers[3] = replace(state.peers[3], epoch=state.peers[3].epoch + 1)
    assert ineligible(state, Timing(), world.now_us, 3) is Ineligible.LOST_STATE


def _behind(world: World) -> None:
    world.state(1).leader_state.saved_by[3] = (0, 0, 0)


def _unhealthy(world: World) -> None:
    world.feed(3, HealthChanged(False))
    world.run(300)


def _cooling_down(world: World) -> None:
    ask(world, 1, transfer(3))
    world.run_until(lambda: world.controller() == 3)
    world.run(1000)
    ask(world, 3, order(AdminAction.STEPDOWN, for_ms=60_000))
    world.run_until(lambda: world.controller() == 1)
    world.run(300)


@pytest.mark.parametrize("why", [why for why in Ineligible if why is not Ineligible.LOST_STATE])
def test_r8_who_could_not_lead_at_once_is_refused_with_the_reason(why: Ineligible) -> None:
    world = settled(quorum="static" if why is not Ineligible.NOT_MEMBER else "dynamic")
    globals()[f"_{why}"](world)
    peers = {peer.id: peer.ineligible for peer in view(world, 1).peers}
    assert peers == {2: "", 3: why.value}, "as a dry run shows"
    answer = ask(world, 1, transfer(3))
    assert (answer.result, answer.detail) == (Result.INELIGIBLE, f"node 3 {why.words}")
    assert world.controller() == 1
    assert ask(world, 1, transfer()).detail == "handed over to node 2", "the other one is fit"


def test_only_who_is_active_judges_who_is_fit() -> None:
    world = settled()
    world.kill(3)
    world.run(100)
    assert {peer.ineligible for peer in view(world, 2).peers} == {""}


@pytest.mark.parametrize("message", [transfer(), STEPDOWN], ids=lambda m: m.what)
def test_l1_leadership_that_nobody_could_take_is_kept(message: AdminCommand) -> None:
    world = settled()
    for node in (2, 3):
        world.feed(node, HealthChanged(False))
    world.run(300)
    answer = ask(world, 1, message)
    assert answer.result is Result.INELIGIBLE
    assert "no other member is eligible now" in answer.detail
    world.run(3000)
    assert world.controller() == 1
    assert view(world, 1).cooling_left_us == 0


# -- a guarded leadership (R6) ----------------------------------------------------------------------


def test_r6_a_guarded_leadership_is_transferred_once_its_job_has_ended() -> None:
    world = settled(guarded=True)
    term = world.state(1).term
    effects = step(world, 1, heard(world, transfer(3)))
    assert not sent_by(effects, Handover), "the job still acts"
    assert not world.processes[1].machine.active(world.now_us)
    assert sent_by(step(world, 1, JobEnded()), Handover) == [Handover(term, 3, ASKED)] * 2


# -- stepping down ------------------------------------------------------------------------------


def test_r8_who_steps_down_rests_and_comes_back_by_itself() -> None:
    world = settled(priorities={1: 10})
    assert ask(world, 1, STEPDOWN).detail == "handed over to node 2"
    world.run_until(lambda: world.controller() == 2)
    world.run(300)
    assert 0 < view(world, 1).cooling_left_us < 5_000_000
    assert world.state(2).peers[1].priority == COOLING_DOWN
    world.kill(2)
    world.run_until(lambda: world.controller() == 3)
    world.start(2)
    world.run(6000)
    assert view(world, 1).cooling_left_us == 0
    assert world.state(3).peers[1].priority == 10
    assert world.controller() == 3, "nobody who comes back preempts"
    world.kill(3)
    world.run_until(lambda: world.controller() is not None)
    assert world.controller() == 1


def test_l1_who_rests_leads_where_nobody_else_was_elected_within_an_election_timeout() -> None:
    """Nodes 3, 4 and 5 stand before node 1 in line, and see nobody but node 1."""
    world = settled(5, quorum="static")
    ask(world, 1, order(AdminAction.STEPDOWN, for_ms=60_000))
    world.run_until(lambda: world.controller() == 2)
    world.run(300)
    for a, b in ((3, 4), (3, 5), (4, 5)):
        world.cut(a, b)
    world.kill(2)
    took_ms = world.run_until(lambda: world.controller() == 1)
    assert took_ms >= PROMISE_MS


def test_r8_who_rests_hands_over_to_whoever_could_lead() -> None:
    world = settled(quorum="static")
    ask(world, 1, order(AdminAction.STEPDOWN, for_ms=60_000))
    world.run_until(lambda: world.controller() == 2)
    world.feed(3, HealthChanged(False))
    world.run(300)
    world.kill(2)
    took_ms = world.run_until(lambda: world.controller() == 1)
    assert took_ms < PROMISE_MS, "first in line there is nobody to wait for"
    world.run(1000)
    assert world.controller() == 1, "one that rests is better off than one that is unhealthy"
    world.feed(3, HealthChanged(True))
    world.run_until(lambda: world.controller() == 3)
    assert world.happened("stopped_being_active", 1)[-1].details["why"] == "cooling_down"


def test_l1_where_all_rest_the_controller_stays() -> None:
    world = settled(quorum="static")
    for node in (1, 2):
        ask(world, node, order(AdminAction.STEPDOWN, for_ms=60_000))
        world.run_until(lambda old=node: world.controller() not in (old, None))  # type: ignore[misc]
        world.run(1000)
    assert world.controller() == 3
    world.kill(3)
    world.run_until(lambda: world.controller() is not None)
    term = max(world.state(node).term for node in (1, 2))
    world.run(3000)
    assert world.controller() is not None
    assert max(world.state(node).term for node in (1, 2)) == term


def test_r8_who_is_unhealthy_hands_over_to_who_rests() -> None:
    world = settled(quorum="static")
    ask(world, 1, order(AdminAction.STEPDOWN, for_ms=60_000))
    world.run_until(lambda: world.controller() == 2)
    world.feed(3, HealthChanged(False))
    world.run(1000)
    world.feed(2, HealthChanged(False))
    world.run_until(lambda: world.controller() == 1)


def test_r8_who_is_unhealthy_goes_after_who_rests() -> None:
    assert UNHEALTHY < COOLING_DOWN < 0


# -- a pause ------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", [transfer(), transfer(3), STEPDOWN], ids=lambda m: f"{m.what}-{m.to}")
def test_no_leadership_is_handed_over_while_elections_are_paused(message: AdminCommand) -> None:
    world = settled()
    assert ask(world, 1, PAUSE).result is Result.OK
    world.run(2000)
    answer = ask(world, 1, message)
    assert answer.result is Result.PAUSED
    assert answer.detail == f"paused for 3 s more by {ASKED}"
    assert view(world, 1).pause == PauseStatus(3_000_000, ASKED)
    assert world.controller() == 1


def test_a_pause_ends_by_itself() -> None:
    world = settled()
    ask(world, 1, PAUSE)
    world.run(5000)
    assert view(world, 1).pause is None
    assert ask(world, 1, transfer(3)).result is Result.OK


def test_a_pause_is_ended_by_hand() -> None:
    world = settled()
    ask(world, 1, PAUSE)
    assert ask(world, 1, RESUME).detail == "planned transfers are possible again"
    assert ask(world, 1, RESUME).detail == "was not paused"
    assert ask(world, 1, transfer(3)).result is Result.OK


def test_r8_an_unhealthy_controller_stays_while_elections_are_paused() -> None:
    world = settled()
    ask(world, 1, PAUSE)
    world.feed(1, HealthChanged(False))
    world.run(4900)
    assert world.controller() == 1
    world.run_until(lambda: world.controller() == 2, 500)


def test_l1_failovers_happen_while_elections_are_paused() -> None:
    world = settled()
    for node in (1, 2, 3):
        ask(world, node, PAUSE)
    world.kill(1)
    world.run_until(lambda: world.controller() == 2)
    world.start(1)
    world.run(1000)
    world.feed(2, Leave())
    world.run_until(lambda: world.controller() not in (2, None))  # a node that leaves still hands over
    assert world.controller() in (1, 3)


# -- who asked, and why -------------------------------------------------------------------------


@pytest.mark.parametrize("message", [transfer(3), STEPDOWN], ids=lambda m: m.what)
def test_the_trace_of_the_next_leadership_says_who_asked_and_why(message: AdminCommand) -> None:
    world = settled(priorities={3: 5})
    ask(world, 1, message)
    world.run_until(lambda: world.controller() == 3)
    trace = view(world, 3).trace
    assert trace is not None
    assert trace.asked == ASKED
    assert world.state(3).leader_state.reason is Reason.HANDOVER
    (entered,) = world.happened("became_active", 3)
    assert entered.details["asked"] == ASKED
    world.run(300)
    world.kill(3)
    world.run_until(lambda: world.controller() is not None)
    head = world.controller()
    assert head is not None
    trace = view(world, head).trace
    assert trace is not None
    assert trace.asked == "", "nobody asked for this one"


def test_a_wish_that_was_overtaken_by_a_death_is_not_told_of() -> None:
    """Nodes 2 and 3 hear the handover, but another kind of election follows before it is won."""
    world = settled()
    world.feed(2, packet(world, 1, Handover(world.state(1).term, 3, ASKED)))
    assert world.state(2).asked == ASKED
    world.feed(1, heard(world, RESUME))  # the handover was a forgery of this test: node 1 leads on
    world.run(1000)
    assert world.state(2).asked == "", "node 2 follows again"
    assert world.controller() == 1


def test_who_was_asked_for_once_is_not_asked_for_in_its_next_leadership() -> None:
    """Node 3 hears of a higher term and campaigns again at once, in line by its own handover."""
    world = settled()
    ask(world, 1, transfer(3))
    world.run_until(lambda: world.controller() == 3)
    world.run(300)
    term = world.state(3).term
    world.feed(3, packet(world, 2, Pong(0, 0, (0, 0, 0), 0, 2), term + 1))
    world.run_until(lambda: world.controller() == 3 and world.state(3).term > term)
    assert world.state(3).leader_state.reason is Reason.HANDOVER
    trace = view(world, 3).trace
    assert trace is not None
    assert trace.asked == ""


@pytest.mark.parametrize("message", EVERY, ids=lambda m: f"{m.what}-{m.to}")
def test_every_wish_is_noted_with_who_asked(message: AdminCommand) -> None:
    world = settled()
    answer = ask(world, 1, message)
    (noted,) = world.happened("admin_command_received", 1)
    assert noted.details == {
        "what": message.what.value,
        "result": answer.result.value,
        "detail": answer.detail,
        "asked": ASKED,
    }


def test_without_a_reason_only_who_asked_is_told() -> None:
    assert AdminCommand(AdminAction.RESUME, 0, 0, "", "ops@host1").asked == "ops@host1"


# -- what may be said ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        (AdminAction.STEPDOWN, 2, 1000, "", ""),
        (AdminAction.PAUSE, 2, 1000, "", ""),
        (AdminAction.RESUME, 2, 0, "", ""),
        (AdminAction.TRANSFER, 2, 1000, "", ""),
        (AdminAction.RESUME, 0, 1000, "", ""),
        (AdminAction.STEPDOWN, 0, 0, "", ""),
        (AdminAction.PAUSE, 0, 0, "", ""),
        (AdminAction.PAUSE, 0, MAX_FOR_MS + 1, "", ""),
        (AdminAction.TRANSFER, 2, 0, "x" * 129, ""),
        (AdminAction.TRANSFER, 2, 0, "", "x" * 65),
        (AdminAction.TRANSFER, 2, 0, "two\nlines", ""),
        (AdminAction.TRANSFER, 2, 0, "", "\x1b[2J"),
    ],
)
def test_no_order_says_what_it_could_not_mean(fields: tuple[Any, ...]) -> None:
    with pytest.raises(MalformedMessage):
        AdminCommand(*fields)


def test_a_member_that_sends_an_admin_command_does_not_raise_the_term() -> None:
    """An order is judged by where it came from, not by its term: a stray one raises nobody's."""
    world = settled()
    before = world.state(1).term
    step(world, 1, MessageReceived(replace(packet(world, 2, RESUME).envelope, term=before + 5)))
    assert world.state(1).term == before
    assert sent_by(step(world, 1, heard(world, RESUME)), Pong) == []
