"""VOTING: somebody asks for a vote, or whether one would be given (R2, R3, R4, R10).

The questions in the order in which they are asked; the first that applies refuses, with its name:

    old_term           the term sought is not ahead of (pre) or is behind (real) this node's
    stale_voters   the candidate's voter record is older; the newer one is sent (R10)
    not_member         the candidate or this node has no vote, by the newer of the two records
    lost state            the record names another life of this node, which may have voted already (R1)
    leaving            this node left
    silent             it restarted, and may have promised what it forgot (R4)
    promised           it answered a controller's PING less than one election timeout ago (R3)
    voted              the vote of that term went to somebody else (R2)

A pre-vote changes nothing. A real request at a higher term is not allowed to raise this node's
term while it keeps a promise or silence: it would cut the voter off from its controller, which is
what the promise exists to prevent (Ongaro's thesis, section 4.2.3).
"""

from __future__ import annotations

from zelect.core.invariants import require
from zelect.core.messages import TEMPORARY, Envelope, Reason, Refusal, Voting, VotResp
from zelect.core.step import Step
from zelect.core.transitions import adopt_record, become_follower

__all__ = ["answer_waiting", "voting"]


def voting(step: Step, envelope: Envelope, message: Voting) -> None:
    """Answer a request; the answer is never absent."""
    _answer(step, envelope, message, again=False)


def answer_waiting(step: Step) -> None:
    """Answer again the requests that only a promise stood against, once it ended early.

    A candidate often hears of a death some hundred microseconds before its voters do; without
    this it would have to ask twice.
    """
    state = step.state
    if not state.waiting_requests or (state.promise is not None and state.promise.until_us > step.now_us):
        return
    waiting, state.waiting_requests = state.waiting_requests, {}
    for until_us, envelope in waiting.values():
        if until_us > step.now_us and isinstance(envelope.message, Voting):
            _answer(step, envelope, envelope.message, again=True)


def _answer(step: Step, envelope: Envelope, message: Voting, again: bool) -> None:
    state, candidate = step.state, envelope.sender
    reason, wait_us = _judge(step, candidate, message)
    if not message.pre and reason not in TEMPORARY and message.term_sought > state.term:
        become_follower(step, message.term_sought, why="higher_term")
    granted = reason is None
    if granted and not message.pre:
        _give_vote(step, candidate, message)
    if reason is Refusal.PROMISED:
        state.waiting_requests[candidate] = (step.now_us + step.timing.vote_wait_us, envelope)
        if message.reason is Reason.DEATH and state.promise is not None and message.controller == state.promise.to:
            step.probe(message.controller)  # hearsay proves nothing, but is worth a look (R9)
    step.note(
        "vote_granted" if granted else "vote_refused",
        candidate=candidate,
        term=message.term_sought,
        pre=message.pre,
        reason="" if reason is None else reason.value,
        election_reason=message.reason.value,
        again=again,
    )
    record = state.saved.record if reason is Refusal.STALE_VOTERS else None
    step.send(candidate, VotResp(message.pre, message.round, granted, reason, wait_us, state.saved.epoch, record))


def _give_vote(step: Step, candidate: int, message: Voting) -> None:
    state = step.state
    require(state.term == message.term_sought, "R2", "a vote is given in the current term")
    require(state.promised(step.now_us, candidate) == 0, "R3", "no vote while a promise to another runs")
    require(step.now_us >= state.grace_until_us, "R4", "no vote in the silence after a restart")
    adopt_record(step, message.record)
    step.save(voted_for=candidate)
    if state.campaign is not None:
        become_follower(step)
    # Give the winner time to be heard before campaigning against it.
    state.campaign_at_us = max(state.campaign_at_us, step.now_us + step.timing.vote_wait_us)


def _judge(step: Step, candidate: int, message: Voting) -> tuple[Refusal | None, int]:
    """Why to refuse (None: grant), and how long what stands against it still runs."""
    state, now_us = step.state, step.now_us
    sought = message.term_sought
    promised_us = state.promised(now_us, candidate)
    if sought < state.term or (message.pre and sought == state.term):
        return Refusal.OLD_TERM, 0
    if message.record.id < state.record.id:
        return Refusal.STALE_VOTERS, 0
    if candidate not in message.record.members or step.me not in message.record.members:
        return Refusal.NOT_MEMBER, 0
    if not state.may_vote(message.record):
        return Refusal.LOST_STATE, 0
    if state.leaving:
        return Refusal.LEAVING, 0
    if now_us < state.grace_until_us:
        return Refusal.GRACE_PERIOD, state.grace_until_us - now_us
    if promised_us:
        return Refusal.PROMISED, promised_us
    if sought == state.term and state.saved.voted_for not in (0, candidate):
        return Refusal.VOTED, 0
    return None, 0
