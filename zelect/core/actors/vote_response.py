"""VOT_RESP, and the course of a campaign: pre-vote, vote; won, lost or pending (R2, R3, R7b, R8, R12).

A candidate first wins a pre-vote, which changes nothing anywhere, then a vote (Raft, section 5.2; thesis,
9.6). Answers are counted by voter, never by message. After each answer the round is won, lost or
pending. A refusal that ends by itself (`TEMPORARY`) does not count as lost within the round.

The witness is a voter that is asked last: at once when the nodes that may still answer fall short
of a quorum, otherwise when the round's time is over. Elections that nodes can decide never wait
for Redis.
"""

from __future__ import annotations

from zelect.core.actors.leadership import ping_round
from zelect.core.actors.voters import take_record
from zelect.core.effects import WitnessVote
from zelect.core.events import NamedProcess, WitnessVoted
from zelect.core.messages import TEMPORARY, Envelope, Reason, Refusal, Result, Voting, VotResp
from zelect.core.quorum import WITNESS, Outcome, has_quorum, quorum_size
from zelect.core.state import Campaign, State, VoteAnswer
from zelect.core.step import Step
from zelect.core.succession import jitter_us, rank
from zelect.core.timing import LIVES_PERCENT, jumps
from zelect.core.transitions import (
    adopt_record,
    become_candidate,
    become_elected,
    become_follower,
    become_pre_candidate,
    end_round,
    lose_controller,
)


def start_campaign(step: Step) -> None:
    """Ask the voters whether they would vote for this node."""
    state = step.state
    if state.controller is not None:
        lose_controller(step, Reason.TIMEOUT)
    if state.redis_term > state.term and (state.is_new or state.term == 0):
        become_follower(step, state.redis_term)  # a term that no cluster has used yet (S3)
    become_pre_candidate(step, state.reason)
    step.note("campaign_began", term=state.term + 1, reason=state.reason.value, attempt=state.attempts)
    _ask(step)


def vot_resp(step: Step, envelope: Envelope, message: VotResp) -> None:
    """Count an answer, by voter."""
    state, voter = step.state, envelope.sender
    campaign = state.campaign
    if message.record is not None and message.record.id > state.record.id:
        adopt_record(step, message.record)
        if state.campaign is None:
            return
    if campaign is None or (campaign.pre, campaign.round) != (message.pre, message.round):
        step.note("stale_answer_ignored", voter=voter)
        return
    if not _counts(campaign, envelope, message):
        step.note("foreign_answer_ignored", voter=voter)
        return
    known = campaign.answers.get(voter)
    if known is not None and known.granted:
        return  # a vote is given once; a duplicate or a late refusal changes nothing
    # No promise and no grace period is longer than one election timeout, whatever the voter says.
    until_us = step.now_us + min(message.wait_us, step.timing.promise_us) if message.wait_us else 0
    campaign.answers[voter] = VoteAnswer(message.granted, message.reason, until_us, message.epoch)
    step.note(
        "vote_answered",
        voter=voter,
        term=campaign.term_sought,
        pre=message.pre,
        granted=message.granted,
        reason="" if message.reason is None else message.reason.value,
    )
    _judge(step, campaign)


def _counts(campaign: Campaign, envelope: Envelope, message: VotResp) -> bool:
    """Whether the sender is a voter, and a vote that it grants is one of the present term, by the storage epoch that
    the record names (R2, R16)."""
    if not message.granted:
        return envelope.sender in campaign.record.members
    present = message.pre or envelope.term == campaign.term_sought
    return present and campaign.record.counts(envelope.sender, message.epoch)


def witness_voted(step: Step, event: WitnessVoted) -> None:
    """Count the witness's answer. It has no clock: when the controller that it acknowledged last
    may still hold a lease, this node waits for its end before it becomes active (R7b)."""
    state = step.state
    if jumps(state.term, event.term):
        step.note("witness_refused", number=event.round, reason=Result.TERM_JUMP.value, term=event.term)
        return
    if event.record is not None:
        take_record(step, event.record)
    if event.term > state.term and event.reason is not None:
        become_follower(step, event.term, why="higher_term")
        return
    campaign = state.campaign
    asked = campaign is not None and campaign.witness_asked
    if campaign is None or not asked or (campaign.pre, campaign.round) != (event.pre, event.round):
        step.note("stale_answer_ignored", voter=WITNESS)
        return
    promise_us = step.timing.promise_us
    waited_us = [promise_us if event.many else 0]
    waited_us += [max(named.promise_ms * 1000, promise_us) for named in event.named if not _harmless(step, named)]
    waits = max(waited_us)
    reason = event.reason
    if reason is Refusal.PROMISED:
        # It acknowledged a controller a moment ago, and doesn't know what has happened to it since.
        reason = reason if waits else None
        waits = waits * LIVES_PERCENT // 100
    until_us = step.now_us + waits if waits else 0
    campaign.answers[WITNESS] = VoteAnswer(reason is None, reason, until_us)
    step.note(
        "witness_answered",
        term=campaign.term_sought,
        pre=event.pre,
        reason="" if reason is None else reason.value,
        named=tuple(named.node for named in event.named),
        waits=bool(waits),
    )
    _judge(step, campaign)


def _harmless(step: Step, named: NamedProcess) -> bool:
    """Whether a process that the witness names is known, first-hand, not to be active any more: it is this node
    itself, is proven dead, left, was replaced by a newer process, or handed over."""
    if named.node == step.me or named.term <= step.state.handed_over.get(named.node, 0):
        return True
    peer = step.state.peers.get(named.node)
    if peer is None:
        return False
    replaced = peer.incarnation > named.incarnation
    return replaced or (peer.incarnation == named.incarnation and (peer.dead or peer.offline))


def round_over(step: Step) -> None:
    """The round's time is over: ask the witness if nodes alone did not decide it, else try again later (R8)."""
    campaign = step.state.campaign
    assert campaign is not None
    if _witness_left(step, campaign):
        _ask_witness(step, campaign)
    else:
        _give_up(step, campaign)


def _give_up(step: Step, campaign: Campaign) -> None:
    state = step.state
    answers = {voter: "yes" if a.granted else str(a.reason) for voter, a in campaign.answers.items()}
    end_round(step, "failed")
    become_follower(step)
    witness = campaign.answers.get(WITNESS)
    if witness is None or witness.reason is not Refusal.PROMISED:  # else a controller lives, and nothing has failed
        state.attempts += 1
    rank_us = (1 + rank(step)) * step.timing.stagger_us
    retry_us = step.now_us + rank_us + jitter_us(step)
    hint_us = min(_enough_at_us(state, campaign), step.now_us + step.timing.promise_us)
    state.campaign_at_us = max(retry_us, hint_us)
    state.reason = campaign.reason
    step.note("campaign_failed", term=campaign.term_sought, pre=campaign.pre, answers=answers)


def _enough_at_us(state: State, campaign: Campaign) -> int:
    """When enough of the voters that refused will be free of their promises to make a quorum; 0: unknown."""
    granted = sum(answer.granted for answer in campaign.answers.values())
    missing = quorum_size(campaign.record.voters) - granted
    frees_us = sorted(a.until_us for a in campaign.answers.values() if a.reason in TEMPORARY)
    return frees_us[missing - 1] if 0 < missing <= len(frees_us) else 0


def _ask(step: Step) -> None:
    """Send the round's vote request to the voters, then judge: this node's vote alone may be a quorum."""
    state = step.state
    campaign = state.campaign
    assert campaign is not None
    last = state.last_controller
    question = Voting(
        pre=campaign.pre,
        round=campaign.round,
        term_sought=campaign.term_sought,
        record=campaign.record,
        reason=campaign.reason,
        controller=last.id if last else 0,
        controller_term=last.term if last else 0,
    )
    for member in campaign.record.members:
        if member != step.me:
            step.send(member, question)
    _judge(step, campaign)


def _ask_witness(step: Step, campaign: Campaign) -> None:
    record = step.state.record
    assert record.witness is not None
    campaign.witness_asked = True
    campaign.give_up_us = step.now_us + step.state.round_us(step.timing, campaign.pre)
    step.ask_witness(WitnessVote(record.witness, campaign.pre, campaign.round, campaign.term_sought, record))


def _witness_left(step: Step, campaign: Campaign) -> bool:
    """Whether there is a witness that this round has not asked yet."""
    return WITNESS in campaign.record.voters and not campaign.witness_asked


def _nodes_may_decide(step: Step, campaign: Campaign) -> bool:
    """Whether the nodes that have granted or may still answer are a quorum without the witness."""
    state = step.state
    refused = {v for v, a in campaign.answers.items() if not a.granted and a.reason not in TEMPORARY}
    granted = {v for v, a in campaign.answers.items() if a.granted}
    possible = (state.connected() | granted) - refused - {WITNESS}
    return has_quorum(campaign.record.voters, possible)


def _judge(step: Step, campaign: Campaign) -> None:
    # A voter bound by a promise may still grant within the round, when it learns of the death.
    decided = {v: a.granted for v, a in campaign.answers.items() if a.granted or a.reason not in TEMPORARY}
    outcome = campaign.outcome(decided)
    if outcome is Outcome.PENDING:
        if _witness_left(step, campaign) and not _nodes_may_decide(step, campaign):
            _ask_witness(step, campaign)
    elif outcome is Outcome.LOST:
        _give_up(step, campaign)
    elif campaign.pre:
        step.note("pre_vote_won", term=campaign.term_sought, took_ms=(step.now_us - campaign.began_us) / 1000)
        become_candidate(step, campaign)
        _ask(step)
    else:
        become_elected(step, campaign)
        ping_round(step)
