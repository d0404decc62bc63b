"""VOTING: a vote request, or the question whether a vote would be given (R2, R3, R4, R10, R15).

The reasons to refuse, in the order in which they are checked; the first that applies is the answer:

    old_term           the term sought is not ahead of (pre-vote) or is behind (vote) this node's
    stale_voters       the candidate's voter record is older, or it would found a cluster although this node
                       belongs to one; the newer record is sent back (R10, R15)
    not_member         the candidate or this node is not a voter in the candidate's record
    lost_state         the record names another storage epoch of this node, which may have voted (R16)
    other_founding     this new node voted on a list of founders that the candidate's does not follow, or it hears of
                       a cluster that exists (R15)
    leaving            this node leaves
    grace_period       it restarted, and may have made a promise before (R4)
    promised           it answered a controller's PING less than one election timeout ago (R3)
    voted              its vote in that term went to another candidate (R2)

A pre-vote request changes nothing (Ongaro's thesis, section 9.6). A vote request at a higher term does not
raise this node's term while it keeps a promise or its grace period lasts: that would cut the voter off
from its controller, which the promise exists to prevent (thesis, section 4.2.3).
"""

from __future__ import annotations

from zelect.core.invariants import require
from zelect.core.messages import TEMPORARY, Envelope, Reason, Refusal, Voting, VotResp
from zelect.core.quorum import follows
from zelect.core.state import State
from zelect.core.step import Step
from zelect.core.transitions import adopt_record, become_follower


def voting(step: Step, envelope: Envelope, message: Voting) -> None:
    """Answer a request, always."""
    _answer(step, envelope, message, again=False)


def answer_waiting(step: Step) -> None:
    """Answer those requests again that were refused only because of a promise, once it ended early.

    A candidate often learns of a death some hundred microseconds before its voters do; without
    this it would have to ask twice.
    """
    state = step.state
    if state.promise is not None and state.promise.until_us > step.now_us:
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
    if reason is None and not message.pre:
        _give_vote(step, candidate, message)
    elif reason is None:
        _expect_the_vote_request(state, step.now_us)
    if reason is Refusal.PROMISED:
        _wait_for_the_promise(step, envelope, message)
    step.note(
        "vote_granted" if reason is None else "vote_refused",
        candidate=candidate,
        term=message.term_sought,
        pre=message.pre,
        reason="" if reason is None else reason.value,
        election_reason=message.reason.value,
        again=again,
    )
    record = state.saved.record if reason is Refusal.STALE_VOTERS else None
    answer = VotResp(message.pre, message.round, reason is None, reason, wait_us, state.saved.epoch, record)
    step.send(candidate, answer)


def _expect_the_vote_request(state: State, now_us: int) -> None:
    """A candidate that wins its pre-vote sends nothing while it saves its own vote (R8): leave it that time, as far as
    this node's own disk tells how long that is, before campaigning against it."""
    if state.save_us:
        state.campaign_at_us = max(state.campaign_at_us, now_us + 2 * state.save_us)


def _wait_for_the_promise(step: Step, envelope: Envelope, message: Voting) -> None:
    """Keep the request for one round, in case the promise ends early."""
    state = step.state
    state.waiting_requests[envelope.sender] = (step.now_us + state.round_us(step.timing, message.pre), envelope)
    if message.reason is Reason.DEATH and state.promise is not None and message.controller == state.promise.to:
        step.probe(message.controller)  # another node's report proves nothing, but it is a reason to probe (R9)


def _give_vote(step: Step, candidate: int, message: Voting) -> None:
    state = step.state
    require(state.term == message.term_sought, "R2", "a vote is given in the current term")
    require(state.promise_left_us(step.now_us, candidate) == 0, "R3", "no vote while a promise to another runs")
    require(step.now_us >= state.grace_until_us, "R4", "no vote in the grace period after a restart")
    record = message.record
    if record.proposed:
        require(state.is_new, "R15", "who belongs to a cluster founds none")
        step.save(founding=tuple(record.named().items()))
    else:
        adopt_record(step, record)
    step.save(voted_for=candidate, voted_epoch=record.epoch_of(candidate))
    if state.campaign is not None:
        become_follower(step)
    # Give the winner time to be heard before campaigning against it.
    state.campaign_at_us = max(state.campaign_at_us, step.now_us + state.round_us(step.timing, pre=False))


def _judge(step: Step, candidate: int, message: Voting) -> tuple[Refusal | None, int]:
    """The reason to refuse (None: grant), and how long that reason still lasts."""
    state, now_us = step.state, step.now_us
    if message.term_sought < state.term or (message.pre and message.term_sought == state.term):
        return Refusal.OLD_TERM, 0
    reason = _judge_records(step, candidate, message)
    if reason is not None:
        return reason, 0
    if state.leaving:
        return Refusal.LEAVING, 0
    if now_us < state.grace_until_us:
        return Refusal.GRACE_PERIOD, state.grace_until_us - now_us
    promised_us = state.promise_left_us(now_us, candidate)
    if promised_us:
        return Refusal.PROMISED, promised_us
    vote = (state.saved.voted_for, state.saved.voted_epoch)
    if message.term_sought == state.term and vote not in ((0, 0), (candidate, message.record.epoch_of(candidate))):
        return Refusal.VOTED, 0
    return None, 0


def _judge_records(step: Step, candidate: int, message: Voting) -> Refusal | None:
    """Refuse unless the candidate's record names both as voters and is not older than this node's (R10, R15, R16)."""
    state, record = step.state, message.record
    if record.id < state.record.id or (record.proposed and not state.is_new):
        return Refusal.STALE_VOTERS
    if candidate not in record.members or step.me not in record.members:
        return Refusal.NOT_MEMBER
    if not state.may_vote(record):
        return Refusal.LOST_STATE
    if record.proposed and (state.hears_of_cluster() or not follows(state.saved.founding, record.named())):
        return Refusal.OTHER_FOUNDING
    return None
