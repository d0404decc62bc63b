"""VOT_RESP, and the course of a campaign: pre-vote, vote, won, lost, pending (R2, R3, R8, R12).

The witness is a voter that is asked last: when the nodes that an answer may still come from fall
short of a quorum, at once; otherwise when the round's time is over. Elections that nodes can
decide never wait for Redis.
"""

from __future__ import annotations

from zelect.core.actors.leadership import begin_reign
from zelect.core.effects import WitnessVote
from zelect.core.events import WitnessVoted
from zelect.core.lease import NEVER_US
from zelect.core.messages import FOR_NOW, Envelope, Trigger, Voting, VotResp
from zelect.core.quorum import WITNESS, Outcome, has_quorum, quorum_size, tally
from zelect.core.state import Answer, Campaign, Stand, State
from zelect.core.step import Turn
from zelect.core.succession import jitter_us, rank
from zelect.core.timing import MAX_TERM
from zelect.core.transitions import (
    adopt_record,
    become_candidate,
    become_elected,
    become_follower,
    become_pre_candidate,
    end_round,
    lose_controller,
)

__all__ = ["campaign_due_us", "round_over", "start_campaign", "vot_resp", "witness_voted"]


def campaign_due_us(node: int, state: State) -> int:
    """When `node` may campaign: its turn has come, its silence and promises are over, and
    connections to a quorum are up; NEVER_US while something else stands against it."""
    if (
        state.stand is not Stand.FOLLOWER
        or state.leaving
        or state.amnesia
        or node not in state.record.members
        or state.campaign_at_us == NEVER_US
        or state.term >= MAX_TERM
        or not state.links_quorum(node)
    ):
        return NEVER_US
    promise_us = 0 if state.promise is None or state.promise.to == node else state.promise.until_us
    return max(state.campaign_at_us, state.silent_until_us, promise_us)


def start_campaign(turn: Turn) -> None:
    """Ask the electorate whether it would vote for this node."""
    state = turn.state
    if state.leader is not None:
        lose_controller(turn, Trigger.TIMEOUT)
    become_pre_candidate(turn, state.trigger)
    turn.note("campaign_began", term=state.term + 1, trigger=state.trigger.value, attempt=state.attempts)
    _ask(turn)


def vot_resp(turn: Turn, envelope: Envelope, message: VotResp) -> None:
    """Count an answer, by voter."""
    state, voter = turn.state, envelope.sender
    campaign = state.campaign
    if message.record is not None and message.record.id > state.record.id:
        adopt_record(turn, message.record)
        return
    if campaign is None or (campaign.pre, campaign.round) != (message.pre, message.round):
        turn.note("stale_answer_ignored", voter=voter)
        return
    if voter not in state.voters or (message.granted and not message.pre and envelope.term != campaign.term_sought):
        turn.note("foreign_answer_ignored", voter=voter)
        return
    known = campaign.answers.get(voter)
    if known is not None and known.granted:
        return  # a vote is given once; a duplicate or a late refusal changes nothing
    # No promise and no silence is longer than one election timeout, whatever the voter says.
    until_us = turn.now_us + min(message.wait_us, turn.timing.promise_us) if message.wait_us else 0
    campaign.answers[voter] = Answer(message.granted, message.reason, until_us, message.life)
    turn.note(
        "vote_answered",
        voter=voter,
        term=campaign.term_sought,
        pre=message.pre,
        granted=message.granted,
        reason="" if message.reason is None else message.reason.value,
    )
    _judge(turn, campaign)


def witness_voted(turn: Turn, event: WitnessVoted) -> None:
    """Count the witness's answer. It has no clock: when the controller that it acknowledged last
    may still hold a lease, this node waits that out itself before it takes office (R7b)."""
    state = turn.state
    if event.term > state.term and event.reason is not None:
        become_follower(turn, event.term, why="higher_term")
        return
    campaign = state.campaign
    if campaign is None or (campaign.pre, campaign.round) != (event.pre, event.round) or WITNESS not in state.voters:
        turn.note("stale_answer_ignored", voter=WITNESS)
        return
    waits = event.acked and not _harmless(turn, event)
    until_us = turn.now_us + turn.timing.promise_us if waits else 0
    campaign.answers[WITNESS] = Answer(event.reason is None, event.reason, until_us)
    turn.note(
        "witness_answered",
        term=campaign.term_sought,
        pre=event.pre,
        reason="" if event.reason is None else event.reason.value,
        acked=event.acked,
        waits=bool(waits),
    )
    _judge(turn, campaign)


def _harmless(turn: Turn, event: WitnessVoted) -> bool:
    """Whether the controller that the witness acknowledged is known, first-hand, to hold no office
    any more: this node itself, proven dead, said goodbye, replaced, or handed over."""
    if event.acked == turn.me or event.acked_term <= turn.state.handed.get(event.acked, 0):
        return True
    peer = turn.state.peers.get(event.acked)
    if peer is None:
        return False
    replaced = peer.incarnation > event.acked_incarnation
    return replaced or (peer.incarnation == event.acked_incarnation and (peer.dead or peer.offline))


def round_over(turn: Turn) -> None:
    """The round's time is over: ask the witness if nodes alone did not do, else fall back (R8)."""
    campaign = turn.state.campaign
    assert campaign is not None
    if WITNESS in turn.state.voters and not campaign.witness_asked:
        _ask_witness(turn, campaign)
    else:
        _give_up(turn, campaign)


def _give_up(turn: Turn, campaign: Campaign) -> None:
    state = turn.state
    answers = {voter: "yes" if a.granted else str(a.reason) for voter, a in campaign.answers.items()}
    end_round(turn, "failed")
    become_follower(turn)
    state.attempts += 1
    rank_us = (1 + rank(turn)) * turn.timing.stagger_us
    retry_us = turn.now_us + rank_us + jitter_us(turn)
    hint_us = min(_enough_at_us(state, campaign), turn.now_us + turn.timing.promise_us)
    state.campaign_at_us = max(retry_us, hint_us)
    state.trigger = campaign.trigger
    turn.note("campaign_failed", term=campaign.term_sought, pre=campaign.pre, answers=answers)


def _enough_at_us(state: State, campaign: Campaign) -> int:
    """When enough refused voters will be free of their promises to make a quorum; 0: unknown."""
    granted = sum(answer.granted for answer in campaign.answers.values())
    missing = quorum_size(state.voters) - granted
    frees_us = sorted(a.until_us for a in campaign.answers.values() if a.reason in FOR_NOW)
    return frees_us[missing - 1] if 0 < missing <= len(frees_us) else 0


def _ask(turn: Turn) -> None:
    """Send the round's question to the electorate, then judge: one vote may be a quorum."""
    state = turn.state
    campaign = state.campaign
    assert campaign is not None
    last = state.leader_before
    question = Voting(
        pre=campaign.pre,
        round=campaign.round,
        term_sought=campaign.term_sought,
        record=state.record,
        trigger=campaign.trigger,
        controller=last.id if last else 0,
        controller_term=last.term if last else 0,
    )
    for member in state.members:
        if member != turn.me:
            turn.send(member, question)
    _judge(turn, campaign)


def _ask_witness(turn: Turn, campaign: Campaign) -> None:
    record = turn.state.record
    assert record.witness is not None
    campaign.witness_asked = True
    campaign.give_up_us = turn.now_us + turn.timing.vote_wait_us
    turn.ask_witness(WitnessVote(record.witness, campaign.pre, campaign.round, campaign.term_sought, record.id))


def _nodes_may_do(turn: Turn, campaign: Campaign) -> bool:
    """Whether the nodes that have granted or may still answer are a quorum without the witness."""
    state = turn.state
    refused = {v for v, a in campaign.answers.items() if not a.granted and a.reason not in FOR_NOW}
    granted = {v for v, a in campaign.answers.items() if a.granted}
    possible = (state.connected(turn.me) | granted) - refused - {WITNESS}
    return has_quorum(state.voters, possible)


def _judge(turn: Turn, campaign: Campaign) -> None:
    # A voter bound only for now may still grant within the round, when it learns of the death.
    decided = {v: a.granted for v, a in campaign.answers.items() if a.granted or a.reason not in FOR_NOW}
    outcome = tally(turn.state.voters, decided)
    undecided = outcome is Outcome.PENDING and WITNESS in turn.state.voters and not campaign.witness_asked
    if undecided and not _nodes_may_do(turn, campaign):
        _ask_witness(turn, campaign)
    elif outcome is Outcome.LOST:
        _give_up(turn, campaign)
    elif outcome is Outcome.WON and campaign.pre:
        became_us = (turn.now_us - campaign.began_us) / 1000
        turn.note("pre_vote_won", term=campaign.term_sought, took_ms=became_us)
        become_candidate(turn, campaign)
        _ask(turn)
    elif outcome is Outcome.WON:
        become_elected(turn, campaign)
        begin_reign(turn)
