"""Each rule of the election has an assertion that is on in production, and each assertion can fail."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.support.paths import ROOT
from tests.support.positions import elected_of, founder_of, pong, pre_candidate_of
from tests.support.records import made_record
from tools.simulator.small_world import World
from zelect.core.effects import PublishController, Saved
from zelect.core.election_trace import ElectionTrace
from zelect.core.invariants import RuleBroken, check, require
from zelect.core.messages import Reason
from zelect.core.quorum import NO_RECORD, WITNESS
from zelect.core.state import KnownController, LeaderState, Promise, Role, VoteAnswer
from zelect.core.step import Step
from zelect.core.timing import MAX_TERM


def rules_named() -> set[str]:
    """The rules that the core asserts: in a `require`, or in a `RuleBroken` that is raised."""
    found = set()
    for path in (ROOT / "zelect" / "core").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                if node.func.id == "require":
                    assert isinstance(node.args[1], ast.Constant), f"{path}:{node.lineno} names its rule"
                    found.add(str(node.args[1].value))
                elif node.func.id == "RuleBroken" and isinstance(node.args[0], ast.Constant):
                    found.add(str(node.args[0].value).split(":")[0])
    return found


def test_each_rule_is_asserted_in_production() -> None:
    assert rules_named() == {f"R{number}" for number in range(1, 17)}


def test_an_invariant_is_named_after_its_rule_says_why_and_is_called() -> None:
    source = (ROOT / "zelect" / "core" / "invariants.py").read_text()
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    named = [node for node in functions if node.name not in ("require", "check")]
    assert len(named) > 10
    for node in named:
        assert node.name[0] == "r", node.name
        assert node.name[1:].split("_")[0].isdigit(), node.name
        assert ast.get_docstring(node), f"{node.name} has no reason"
        assert source.count(node.name) == 2, f"{node.name} is called once"


def test_require_names_the_rule() -> None:
    require(True, "R2", "fine")
    with pytest.raises(RuleBroken, match=r"^R2: two votes$"):
        require(False, "R2", "two votes")


def step_of(world: World) -> Step:
    """A step of node 1 that has not begun."""
    machine = world.processes[1].machine
    return Step(machine.settings, machine.state, world.now_us, 0)


def active() -> Step:
    world = elected_of(3)
    world.feed(1, pong(world, 2))
    assert world.state(1).active(world.now_us)
    return step_of(world)


def candidate() -> Step:
    return step_of(pre_candidate_of(3))


def founder() -> Step:
    """Node 1 of three new nodes that have met, which asks the others."""
    return step_of(founder_of(3))


def follower() -> Step:
    """Node 1, promised to node 2."""
    step = candidate()
    state = step.state
    state.campaign, state.role = None, Role.FOLLOWER
    state.peers[2] = replace(state.peers[2], incarnation=1)
    state.controller = KnownController(2, 1, 1)
    state.promise = Promise(2, 1, 1, step.now_us + 1000)
    return Step(step.settings, state, step.now_us, 0)


def leading(step: Step) -> LeaderState:
    assert step.state.leader_state is not None
    return step.state.leader_state


def save(step: Step, **changes: object) -> None:
    """Change what is saved past what `Step.save` offers."""
    saved: Saved = replace(step.state.saved, **changes)  # type: ignore[arg-type]
    step.state.saved = saved


def answered_by_the_witness(step: Step) -> None:
    assert step.state.campaign is not None
    step.state.campaign.answers[WITNESS] = VoteAnswer(True, None, 0)


def seeks_another_term(step: Step) -> None:
    assert step.state.campaign is not None
    step.state.campaign.term_sought += 1


def asks_without_its_own_vote(step: Step) -> None:
    assert step.state.campaign is not None
    step.state.campaign.pre = False


def votes_in_the_grace_period(step: Step) -> None:
    step.state.grace_until_us = step.now_us + 1
    save(step, voted_for=3)


def has_the_record_of_another_term(step: Step) -> None:
    """As if it had never rewritten it."""
    save(step, record=replace(step.state.record, config_term=0))
    step.saved_before = step.state.saved


def asks_to_found_another_cluster(step: Step) -> None:
    assert step.state.campaign is not None
    step.state.campaign.record = made_record(0, 0, (1, 2, 3))


def published(step: Step) -> None:
    trace = ElectionTrace(-1, -1, 0, 0, ())
    step.publish(PublishController(step.state.term, 0, 0, 0, Reason.START, -1, trace))


BROKEN: list[tuple[str, Callable[[], Step], Callable[[Step], None]]] = [
    ("R1", active, lambda step: save(step, term=0)),
    ("R1", active, lambda step: save(step, incarnation=99)),
    ("R2", active, lambda step: save(step, voted_for=2)),
    ("R2", candidate, asks_without_its_own_vote),
    ("R3", candidate, seeks_another_term),
    ("R3", follower, lambda step: setattr(step.state, "promise", None)),
    ("R3", follower, lambda step: setattr(step.state, "promise", Promise(3, 1, 1, step.now_us + 1000))),
    ("R4", follower, votes_in_the_grace_period),
    ("R5", active, lambda step: setattr(leading(step), "lease_lapses_us", step.now_us + step.timing.lease_us + 1)),
    ("R6", active, lambda step: setattr(step.state, "role", Role.FOLLOWER)),
    ("R6", active, lambda step: save(step, term=step.state.term + 1)),
    ("R6", active, lambda step: setattr(step.state, "leaving", True)),
    ("R7", active, lambda step: setattr(leading(step), "promises_end_us", step.now_us + 1)),
    ("R7", active, has_the_record_of_another_term),
    ("R8", candidate, lambda step: setattr(step.state, "controller", KnownController(2, 1, 1))),
    ("R8", candidate, lambda step: setattr(step.state, "leaving", True)),
    ("R8", candidate, lambda step: save(step, epoch=99, record=NO_RECORD)),
    ("R10", active, lambda step: save(step, record=replace(step.state.record, version=0))),
    ("R10", active, lambda step: save(step, record=replace(step.state.record, config_term=9))),
    ("R10", active, lambda step: save(step, record=NO_RECORD)),
    ("R12", candidate, answered_by_the_witness),
    ("R13", candidate, published),
    ("R14", candidate, lambda step: save(step, term=MAX_TERM + 1)),
    ("R15", active, lambda step: save(step, record=replace(step.state.record, version=99, cluster_id=99))),
    ("R15", founder, lambda step: save(step, record=made_record(0, 1, (2, 3)))),
    ("R15", founder, lambda step: save(step, record=made_record(0, 1, (1, 2, 3), epochs=(99, 2, 3)))),
    ("R15", founder, lambda step: save(step, record=made_record(0, 1, (1, 2, 3)))),
    ("R15", candidate, asks_to_found_another_cluster),
    ("R16", founder, lambda step: save(step, epoch=step.state.saved.epoch - 1)),
    ("R16", follower, lambda step: save(step, epoch=99)),
    ("R16", follower, lambda step: save(step, epoch=99, record=NO_RECORD, founding=((1, 1), (2, 2)))),
]


@pytest.mark.parametrize(
    ("rule", "position", "breaks"), BROKEN, ids=[f"{rule}-{number}" for number, (rule, _, _) in enumerate(BROKEN)]
)
def test_a_step_that_breaks_a_rule_ends_the_node(
    rule: str, position: Callable[[], Step], breaks: Callable[[Step], None]
) -> None:
    step = position()
    check(step)
    breaks(step)
    with pytest.raises(RuleBroken, match=rf"^{rule}: "):
        check(step)


@pytest.mark.parametrize("how", ["died", "left", "restarted", "handed over", "ran out", "renewed", "newer"])
def test_a_promise_may_end_by_proof_time_or_a_newer_controller(how: str) -> None:
    step = follower()
    state = step.state
    promise, peer = state.promise, state.peers[2]
    assert promise is not None
    dead, offline, incarnation = how == "died", how == "left", 1 + (how == "restarted")
    state.peers[2] = replace(peer, dead=dead, linked=not dead, offline=offline, incarnation=incarnation)
    state.handed_over = {2: promise.term} if how == "handed over" else {}
    step.now_us = promise.until_us if how == "ran out" else step.now_us
    again = {"renewed": replace(promise, until_us=promise.until_us + 1), "newer": replace(promise, to=3, term=2)}
    state.promise = again.get(how)
    check(step)


def test_an_acknowledgement_in_the_grace_period_is_the_vote_that_the_controller_has_already() -> None:
    """It elects nobody (R10), unlike a vote for anybody else (R4)."""
    step = follower()
    step.state.grace_until_us = step.now_us + 1
    save(step, term=1, voted_for=2, voted_epoch=2)
    check(step)
    step.state.controller = None
    with pytest.raises(RuleBroken, match=r"^R4"):
        check(step)


def test_after_a_routine_heartbeat_only_the_lease_is_judged() -> None:
    step = active()
    step.routine = True
    step.state.role = Role.FOLLOWER
    check(step)
    leading(step).lease_lapses_us += step.timing.lease_us + 1
    with pytest.raises(RuleBroken, match=r"^R5"):
        check(step)
