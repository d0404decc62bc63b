"""ADMIN: what an operator asks for (R6, R8).

No command touches the term, a vote or the lease. In a transfer the controller gives up its leadership and
hands it over as it does when it leaves, with a guarded job only once that has ended; the successor then
has to win its vote like everybody else. Who may send admin commands is decided before a message comes here.
"""

from __future__ import annotations

from collections.abc import Callable

from zelect.core.eligibility import ineligible
from zelect.core.messages import AdminAction, AdminCommand, CommonResp, Envelope, Handover, Result, Type
from zelect.core.state import LeaderState, Pause
from zelect.core.step import Step
from zelect.core.succession import ranked
from zelect.core.transitions import hand_over, step_down

_Answer = tuple[Result, str]


def admin(step: Step, envelope: Envelope, message: AdminCommand) -> None:
    """Carry out the command, or answer why it is refused."""
    result, detail = _ACTS[message.what](step, message)
    step.note(
        "admin_command_received", what=message.what.value, result=result.value, detail=detail, asked=message.asked
    )
    step.answer = CommonResp(int(Type.ADMIN), result, detail)


def _transfer(step: Step, message: AdminCommand) -> _Answer:
    if message.to == step.me and step.state.active(step.now_us):
        return Result.OK, f"node {step.me} is already active"
    return _hand(step, message, "transferred")


def _stepdown(step: Step, message: AdminCommand) -> _Answer:
    answer = _hand(step, message, "stepped_down")
    if answer[0] is Result.OK:
        step.state.cooling_until_us = step.now_us + message.for_ms * 1000
    return answer


def _hand(step: Step, message: AdminCommand, why: str) -> _Answer:
    """Give up the leadership in favour of the node that `message` names, or of the first eligible one."""
    state = step.state
    leader_state = state.leader_state
    if leader_state is None or not leader_state.holds(step.now_us):
        return Result.NOT_CONTROLLER, _leads(step)
    if state.pause is not None and state.paused(step.now_us):
        left_s = -((step.now_us - state.pause.until_us) // 1_000_000)
        return Result.PAUSED, f"paused for {left_s} s more by {state.pause.asked}"
    successor, problem = _successor(step, message.to)
    if problem:
        return Result.INELIGIBLE, problem
    _leave(step, leader_state, successor, why, message.asked)
    return Result.OK, f"handed over to node {successor}"


def _leave(step: Step, leader_state: LeaderState, successor: int, why: str, asked: str) -> None:
    step_down(step, why)
    hand_over(step, Handover(leader_state.term, successor, asked))


def _leads(step: Step) -> str:
    leader = step.state.controller
    known = f"; node {leader.id} is" if leader is not None else " and knows of no controller"
    return f"node {step.me} is not active{known}"


def _successor(step: Step, wanted: int) -> tuple[int, str]:
    """Which node is to take over; or 0, and why none can."""
    state = step.state
    if wanted:
        if wanted not in state.peers:
            return 0, f"node {wanted} does not belong to the cluster"
        why = ineligible(state, step.timing, step.now_us, wanted)
        return (wanted, "") if why is None else (0, f"node {wanted} {why.words}")
    eligible = tuple(node for node in state.peers if ineligible(state, step.timing, step.now_us, node) is None)
    order = ranked(step, eligible)
    return (order[0], "") if order else (0, "no other member is eligible now")


def _pause(step: Step, message: AdminCommand) -> _Answer:
    step.state.pause = Pause(step.now_us + message.for_ms * 1000, message.asked)
    return Result.OK, f"no planned transfers for {message.for_ms / 1000:g} s"


def _resume(step: Step, message: AdminCommand) -> _Answer:
    was = step.state.paused(step.now_us)
    step.state.pause = None
    return Result.OK, "planned transfers are possible again" if was else "was not paused"


_ACTS: dict[AdminAction, Callable[[Step, AdminCommand], _Answer]] = {
    AdminAction.TRANSFER: _transfer,
    AdminAction.STEPDOWN: _stepdown,
    AdminAction.PAUSE: _pause,
    AdminAction.RESUME: _resume,
}
