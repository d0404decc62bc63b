"""The only writers of stand, term, leader and reign.

Whoever wants to know how a node can come to lead reads this file: there is one way in
(`become_elected`, from a won vote) and every other function leads out.
"""

from __future__ import annotations

from zelect.core.effects import PublishNode, WithdrawOffice
from zelect.core.election_trace import MOST_ROUNDS, Round, Vote
from zelect.core.invariants import require
from zelect.core.lease import NEVER_US
from zelect.core.messages import Handover, Trigger
from zelect.core.quorum import Outcome, Record, tally
from zelect.core.state import Answer, Campaign, Leader, Owed, Promise, Reign, Stand, Status
from zelect.core.step import Turn
from zelect.core.succession import jitter_us, succession_of, wait_us

__all__ = [
    "adopt_record",
    "become_candidate",
    "become_elected",
    "become_follower",
    "become_pre_candidate",
    "end_round",
    "follow",
    "hand_over",
    "leave_office",
    "lose_controller",
    "publish_self",
    "schedule_campaign",
    "set_status",
]


PUBLISH_SOON_US = 50_000


def publish_self(turn: Turn) -> None:
    """Publish this node's own entry as it is now; one that said goodbye has none any more."""
    if turn.state.leaving:
        return
    role = "controller" if turn.state.in_office(turn.now_us) else "follower"
    turn.publish(PublishNode(role, turn.state.status.value, turn.state.term))


def set_status(turn: Turn, status: Status) -> None:
    """Change the status that people see; Redis hears of it a little later, when the election is
    over: its writes would compete for the processor with the votes."""
    if turn.state.status is not status:
        turn.state.status = status
        turn.note("status_changed", status=status.value)
        turn.state.next_publish_us = min(turn.state.next_publish_us, turn.now_us + PUBLISH_SOON_US)


def schedule_campaign(turn: Turn, trigger: Trigger) -> None:
    """Campaign when this node's turn in the succession comes (R8)."""
    turn.state.trigger = trigger
    turn.state.campaign_at_us = turn.now_us + wait_us(turn)


def adopt_record(turn: Turn, record: Record) -> None:
    """Take a newer electorate record. A campaign that asked about the old one is given up."""
    state = turn.state
    if record.id <= state.record.id:
        return
    if record.witness != state.record.witness:
        state.witness_same = False
        state.next_look_us = turn.now_us  # who could be asked must be known before it matters
    had_voice = not state.amnesia
    turn.save(record=record)
    if had_voice is state.amnesia and turn.me in record.members:
        turn.note("voice_lost" if had_voice else "voice_given", config_term=record.config_term, version=record.version)
    if state.campaign is not None:
        become_follower(turn)


def become_follower(turn: Turn, term: int | None = None, why: str = "") -> None:
    """Give up any campaign or office; with `term`, adopt that higher term.

    An elected node that gives way to a higher term says so with a HANDOVER that names itself: the
    others' promises to it end at once, and it may campaign again first.
    """
    state = turn.state
    if state.reign is not None:
        of_term = state.reign.term
        leave_office(turn, why or "higher_term")
        if term is not None:
            hand_over(turn, Handover(of_term, turn.me))
            state.succession = (turn.me, *(n for n in succession_of(turn) if n != turn.me))
            schedule_campaign(turn, Trigger.HANDOVER)
    state.stand = Stand.FOLLOWER
    end_round(turn, "overtaken")
    if term is None:
        return
    require(term > state.term, "R1", "only a higher term is adopted")
    turn.save(term=term, voted_for=0)
    state.leader = None
    if state.status is Status.RUNNING:
        set_status(turn, Status.VOTING)
    if state.campaign_at_us == NEVER_US and state.status in (Status.VOTING, Status.RUNNING):
        schedule_campaign(turn, Trigger.TIMEOUT)
    state.campaign_at_us = max(state.campaign_at_us, turn.now_us)


def become_pre_candidate(turn: Turn, trigger: Trigger) -> None:
    """Ask whether a vote at term + 1 would be won; changes nothing durable (R3)."""
    state = turn.state
    state.stand = Stand.PRE_CANDIDATE
    _open_round(turn, True, state.term + 1, trigger, turn.now_us)


def become_candidate(turn: Turn, asked: Campaign) -> None:
    """The pre-vote `asked` was won: raise the term and vote for oneself (R2)."""
    state = turn.state
    require(asked.pre and asked.term_sought == state.term + 1, "R3", "a vote follows the pre-vote of its own term")
    require(state.promised(turn.now_us, turn.me) == 0, "R3", "no vote for oneself while a promise to another runs")
    require(turn.now_us >= state.silent_until_us and not state.amnesia, "R4", "no vote in silence or without memory")
    turn.save(term=asked.term_sought, voted_for=turn.me)
    state.stand = Stand.CANDIDATE
    end_round(turn, "won")
    _open_round(turn, False, asked.term_sought, asked.trigger, asked.began_us)


def _open_round(turn: Turn, pre: bool, term_sought: int, trigger: Trigger, began_us: int) -> None:
    state = turn.state
    state.round += 1
    state.campaign = Campaign(
        pre=pre,
        round=state.round,
        term_sought=term_sought,
        trigger=trigger,
        began_us=began_us,
        asked_us=turn.now_us,
        give_up_us=turn.now_us + turn.timing.vote_wait_us,
        answers={turn.me: Answer(True, None, 0, state.saved.life)},
    )


def end_round(turn: Turn, outcome: str) -> None:
    """Close the round of questions, if there is one; how it ended is kept for people who ask why."""
    state = turn.state
    campaign = state.campaign
    if campaign is None:
        return
    votes = (
        Vote(voter, answer.granted, "" if answer.reason is None else answer.reason.value)
        for voter, answer in sorted(campaign.answers.items())
    )
    ended = Round(campaign.term_sought, campaign.pre, campaign.asked_us, turn.now_us, outcome, tuple(votes))
    state.rounds = (*state.rounds, ended)[-MOST_ROUNDS:]
    state.campaign = None


def become_elected(turn: Turn, won: Campaign) -> None:
    """The vote `won` was won. Elected is not in office (R7): first the electorate record is
    rewritten with the new term, and promises that the voters reported must run out."""
    state = turn.state
    granted = {voter: answer.granted for voter, answer in won.answers.items()}
    require(not won.pre and won.term_sought == state.term, "R2", "a win belongs to the current term")
    require(tally(state.voters, granted) is Outcome.WON, "R2", "a quorum of distinct voters granted the vote")
    require(state.saved.voted_for == turn.me and not state.leaving, "R2", "a winner voted for itself and stays")
    previous, heard_us = state.leader_before, state.leader_before_heard_us
    barrier_us = max((a.until_us for a in won.answers.values() if a.granted), default=0)
    # Name every life that was heard, not the voters' alone: a member without a name has no voice,
    # and may be needed should this node die before it is in office.
    lives = {peer: known.life for peer, known in state.peers.items()}
    lives |= {voter: answer.life for voter, answer in won.answers.items() if answer.life}
    turn.save(record=state.record.rewritten(state.term, lives), amnesia=False)
    state.stand = Stand.ELECTED
    end_round(turn, "won")
    state.campaign_at_us = NEVER_US
    state.leader = None
    state.reign = Reign(
        term=state.term,
        elected_us=turn.now_us,
        barrier_us=barrier_us,
        waits_until_us=barrier_us,
        trigger=won.trigger,
        previous=previous,
        previous_heard_us=heard_us,
        lost_us=state.lost_us,
        rounds=state.rounds,
        asked=state.asked,
    )
    state.rounds, state.asked = (), ""
    votes = sum(granted.values())
    turn.note("elected", term=state.term, votes=votes, took_ms=(turn.now_us - won.began_us) / 1000)


def follow(turn: Turn, leader: Leader, succession: tuple[int, ...]) -> None:
    """Accept the controller of the current term: promise it one election timeout (R3)."""
    state, now_us = turn.state, turn.now_us
    require(leader.term == state.term and leader.id != turn.me, "R3", "only the current term's controller is followed")
    if state.stand is not Stand.FOLLOWER:
        become_follower(turn)
    if state.leader != leader:
        turn.note("controller_followed", controller=leader.id, term=leader.term)
        state.rounds, state.lost_us, state.asked = (), -1, ""
    state.leader = state.leader_before = leader
    state.leader_heard_us = state.leader_before_heard_us = now_us
    state.succession = succession
    state.attempts = 0
    state.identify_until_us = NEVER_US
    until_us = now_us + turn.timing.promise_us
    state.promise = Promise(leader.id, leader.incarnation, leader.term, until_us)
    state.trigger = Trigger.TIMEOUT
    state.campaign_at_us = until_us + wait_us(turn)
    set_status(turn, Status.RUNNING)


def lose_controller(turn: Turn, trigger: Trigger) -> None:
    """The controller is gone: say so and get in line for the succession (R8)."""
    state = turn.state
    if state.leader is not None:
        heard_ms = (turn.now_us - state.leader_heard_us) / 1000
        lost = state.leader
        turn.note("controller_lost", controller=lost.id, term=lost.term, why=trigger.value, heard_ms=heard_ms)
        state.leader = None
        state.lost_us = turn.now_us
    for peer, known in state.peers.items():
        if not known.linked and not known.gone:
            turn.probe(peer)  # it may have died with the controller, and stand before this node in line
    if state.status is Status.RUNNING:
        set_status(turn, Status.VOTING)
    schedule_campaign(turn, trigger)


def hand_over(turn: Turn, message: Handover) -> None:
    """End the promises to this node's office, which it has left; while a job still acts in that
    office they go on, this node's own too, and the job is expected to end before they do (R6)."""
    state = turn.state
    if state.owed is not None and state.owed.message.of_term == message.of_term:
        state.owed = Owed(message, state.owed.until_us)
    else:
        turn.broadcast(message)


def leave_office(turn: Turn, why: str) -> None:
    """End the reign; the node does nothing in its name from here on (R6)."""
    state = turn.state
    reign = state.reign
    require(reign is not None, "R6", "only an elected node leaves office")
    assert reign is not None
    state.reign = None
    state.stand = Stand.FOLLOWER
    if turn.settings.guarded and reign.entered_us:
        state.owed = Owed(Handover(reign.term, 0), reign.lapses_us)
    elif state.promise is not None and state.promise.to == turn.me:
        state.promise = None  # a promise to oneself ends with the office it protected
    state.leader_before = Leader(turn.me, state.saved.incarnation, reign.term)
    state.leader_before_heard_us = state.lost_us = turn.now_us
    if reign.entered_us:
        over_ms = max(0, turn.now_us - reign.lapses_us) / 1000  # since when it was over by the lease
        turn.note("office_left", term=reign.term, why=why, over_ms=over_ms)
        turn.publish(WithdrawOffice(reign.term, why))
    else:
        turn.note("election_abandoned", term=reign.term, why=why)
    # The one that just failed to lead lets the others go first.
    state.attempts += 1
    state.trigger = Trigger.TIMEOUT
    state.campaign_at_us = turn.now_us + turn.timing.promise_us + jitter_us(turn)
    if state.status is Status.RUNNING:
        set_status(turn, Status.VOTING)
