"""STEER: what an operator asks for (R6, R8).

The term, the votes and the lease are none of its business. A transfer is an office left and handed
over like that of a node that goes, and with a guarded office only once its job has ended; the
successor has to win its vote. Who may steer is judged before a message comes here.
"""

from __future__ import annotations

from collections.abc import Callable

from zelect.core.eligibility import unfit
from zelect.core.messages import CommonResp, Envelope, Handover, Result, Steer, Steering, Type
from zelect.core.state import Pause, Reign
from zelect.core.step import Turn
from zelect.core.succession import ranked
from zelect.core.transitions import hand_over, leave_office

__all__ = ["steer"]

_Answer = tuple[Result, str]


def steer(turn: Turn, envelope: Envelope, message: Steer) -> None:
    """Do what is asked, or say why not."""
    result, detail = _ACTS[message.what](turn, message)
    turn.note("steered", what=message.what.value, result=result.value, detail=detail, asked=message.asked)
    turn.answer = CommonResp(int(Type.STEER), result, detail)


def _transfer(turn: Turn, message: Steer) -> _Answer:
    if message.to == turn.me and turn.state.in_office(turn.now_us):
        return Result.OK, f"node {turn.me} is in office already"
    return _hand(turn, message, "transferred")


def _stepdown(turn: Turn, message: Steer) -> _Answer:
    answer = _hand(turn, message, "stepped_down")
    if answer[0] is Result.OK:
        turn.state.rest_until_us = turn.now_us + message.for_ms * 1000
    return answer


def _hand(turn: Turn, message: Steer, why: str) -> _Answer:
    """Leave office in favour of the node that `message` names, or of the first that is fit to lead."""
    state = turn.state
    reign = state.reign
    if reign is None or not reign.holds(turn.now_us):
        return Result.NOT_CONTROLLER, _leads(turn)
    if state.pause is not None and state.paused(turn.now_us):
        left_s = -((turn.now_us - state.pause.until_us) // 1_000_000)
        return Result.PAUSED, f"paused for {left_s} s more by {state.pause.asked}; 'zelect resume' ends it"
    successor, problem = _successor(turn, message.to)
    if problem:
        return Result.UNFIT, problem
    _leave(turn, reign, successor, why, message.asked)
    return Result.OK, f"handed over to node {successor}"


def _leave(turn: Turn, reign: Reign, successor: int, why: str, asked: str) -> None:
    leave_office(turn, why)
    hand_over(turn, Handover(reign.term, successor, asked))


def _leads(turn: Turn) -> str:
    leader = turn.state.leader
    known = f"node {leader.id} is" if leader is not None else "and it knows of nobody who is"
    return f"node {turn.me} is not in office, {known}"


def _successor(turn: Turn, wanted: int) -> tuple[int, str]:
    """Who shall lead next; or 0, and why nobody can."""
    state = turn.state
    if wanted:
        if wanted not in state.peers:
            return 0, f"node {wanted} is not in the configuration"
        why = unfit(state, turn.timing, turn.now_us, wanted)
        return (wanted, "") if why is None else (0, f"node {wanted} {why.words}")
    fit = tuple(node for node in state.peers if unfit(state, turn.timing, turn.now_us, node) is None)
    order = ranked(turn, fit)
    return (order[0], "") if order else (0, "no other member is fit to lead now: 'zelect transfer --dry-run' says why")


def _pause(turn: Turn, message: Steer) -> _Answer:
    turn.state.pause = Pause(turn.now_us + message.for_ms * 1000, message.asked)
    return Result.OK, f"no elections of choice for {message.for_ms / 1000:g} s"


def _resume(turn: Turn, message: Steer) -> _Answer:
    was = turn.state.paused(turn.now_us)
    turn.state.pause = None
    return Result.OK, "elections of choice are held again" if was else "was not paused"


_ACTS: dict[Steering, Callable[[Turn, Steer], _Answer]] = {
    Steering.TRANSFER: _transfer,
    Steering.STEPDOWN: _stepdown,
    Steering.PAUSE: _pause,
    Steering.RESUME: _resume,
}
