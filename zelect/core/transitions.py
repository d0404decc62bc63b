"""The only writers of role, term, controller and leader state, and of when a node became active.

To see how a node can become active, read this file. There is one way in: a won pre-vote
(`become_candidate`), a won vote (`become_elected`), then a committed record and no earlier promise left
(`become_active`, R7). Every other function leads out. `tests/test_layers.py` fails when another file
of the core assigns one of these.
"""

from __future__ import annotations

from collections.abc import Mapping

from zelect.core.effects import Depart, PublishNode, WithdrawController
from zelect.core.election_trace import MOST_ROUNDS, Round, Vote
from zelect.core.invariants import require
from zelect.core.lease import NEVER_US
from zelect.core.messages import MAX_NUMBER, Handover, Reason
from zelect.core.quorum import NO_RECORD, Outcome, Record, follows
from zelect.core.state import Campaign, KnownController, LeaderState, PendingHandover, Promise, Role, Status, VoteAnswer
from zelect.core.step import Step
from zelect.core.succession import jitter_us, mixed, succession_of, wait_us

PUBLISH_SOON_US = 50_000


def publish_self(step: Step) -> None:
    """Publish this node's own entry as it is now. Only a node that belongs to a cluster and has not left has one."""
    if step.state.leaving or step.me not in step.state.record.nodes:
        return
    role = "controller" if step.state.active(step.now_us) else "follower"
    step.publish(PublishNode(role, step.state.status.value, step.state.term))


def set_status(step: Step, status: Status) -> None:
    """Change the status that people see. It is published a little later, when the election is over: writing
    to Redis would compete with the votes for the processor."""
    if step.state.status is not status:
        step.state.status = status
        step.note("status_changed", status=status.value)
        step.state.next_publish_us = min(step.state.next_publish_us, step.now_us + PUBLISH_SOON_US)


def schedule_campaign(step: Step, reason: Reason) -> None:
    """Campaign when this node's turn in the succession comes (R8)."""
    step.state.reason = reason
    step.state.campaign_at_us = step.now_us + wait_us(step)


def adopt_record(step: Step, record: Record) -> None:
    """Save `record` if it is newer than this node's and of its cluster (R10). A new node joins the cluster of a
    record that names it with its present epoch, and saves nothing of any other (R15).

    A node that has a record has at least its term: in an older term it could still vote for a second controller of
    the term in which the record was written. Both are in one save. A campaign that asked about the
    old record ends.
    """
    state = step.state
    before = state.record
    mine = state.may_vote(record) if state.is_new else record.cluster_id == before.cluster_id
    if state.is_new and not mine:
        meet_members(step, record)
    if record.id <= before.id or not mine:
        return
    if record.config_term > state.term:
        become_follower(step, record.config_term, why="higher_term")
    if record.witness != before.witness:
        state.witness_same = False
        state.next_witness_look_us = step.now_us  # whether the witness answers must be known before its vote is needed
    could_vote, may_vote = state.may_vote(before), state.may_vote(record)
    step.save(record=record, founding=())
    step.meet(_addresses_after(state.addresses, before, record))
    config_term, version = record.config_term, record.version
    if step.me in before.nodes and step.me not in record.nodes:
        step.publish(Depart(last=False))  # it was removed, and has no entry any more
    if not before.cluster_id:
        step.note("cluster_joined", cluster_id=f"{record.cluster_id:x}", config_term=config_term, version=version)
    elif could_vote is not may_vote:
        step.note("voting_right_granted" if may_vote else "voting_right_lost", config_term=config_term, version=version)
    if state.campaign is not None:
        become_follower(step)


def meet_members(step: Step, record: Record) -> None:
    """This new node belongs to the cluster of `record`, but has no vote by it yet: connect to its nodes. The
    controller, which gives it one, may be none that it lists (R15)."""
    if step.me in record.nodes:
        step.meet({**dict(record.addresses), **step.state.addresses})


def _addresses_after(known: Mapping[int, str], before: Record, record: Record) -> dict[int, str]:
    """Where the nodes of `record` are: where they were known to be, unless this record says something new."""
    earlier = dict(before.addresses)
    return {node: known.get(node, at) if earlier.get(node) == at else at for node, at in record.addresses}


def become_follower(step: Step, term: int | None = None, why: str = "") -> None:
    """End any campaign or leadership; with `term`, adopt that higher term (R6).

    An elected node that steps down for a higher term sends a HANDOVER that names itself as successor: the
    others' promises to it end at once, and it may campaign again first.
    """
    state = step.state
    if state.leader_state is not None:
        of_term = state.leader_state.term
        step_down(step, why or "higher_term")
        if term is not None:
            hand_over(step, Handover(of_term, step.me))
            state.succession = (step.me, *(n for n in succession_of(step) if n != step.me))
            schedule_campaign(step, Reason.HANDOVER)
    state.role = Role.FOLLOWER
    end_round(step, "overtaken")
    if term is None:
        return
    require(term > state.term, "R1", "only a higher term is adopted")
    step.save(term=term, voted_for=0, voted_epoch=0)
    state.controller = None
    if state.status is Status.RUNNING:
        set_status(step, Status.VOTING)
    if state.campaign_at_us == NEVER_US and state.status in (Status.VOTING, Status.RUNNING):
        schedule_campaign(step, Reason.TIMEOUT)
    state.campaign_at_us = max(state.campaign_at_us, step.now_us)


def become_pre_candidate(step: Step, reason: Reason) -> None:
    """Ask whether a vote in the next term would be won; this changes nothing durable (R3)."""
    state = step.state
    state.role = Role.PRE_CANDIDATE
    record = _proposal(step) if state.is_new else state.record
    _open_round(step, True, state.term + 1, reason, step.now_us, record)


def _proposal(step: Step) -> Record:
    """What this new node proposes to the others: all founding members, each with its epoch, under a fresh cluster
    id, which no other founder, storage epoch or term gives (R15)."""
    state = step.state
    epochs = state.founders()
    belong = epochs.keys() | step.settings.addresses.keys()  # not who else was met, by an older record
    return Record(
        config_term=0,
        version=0,
        members=tuple(sorted(epochs)),
        epochs=tuple(epoch for _, epoch in sorted(epochs.items())),
        cluster_id=mixed(step.me, state.saved.epoch, state.saved.incarnation, state.term + 1) % MAX_NUMBER or 1,
        addresses=tuple((node, at) for node, at in sorted(state.addresses.items()) if node in belong),
    )


def become_candidate(step: Step, asked: Campaign) -> None:
    """The pre-vote `asked` was won: raise the term and vote for oneself (R2)."""
    state = step.state
    require(asked.pre and asked.term_sought == state.term + 1, "R3", "a vote follows the pre-vote of its own term")
    require(
        state.promise_left_us(step.now_us, step.me) == 0, "R3", "no vote for oneself while a promise to another runs"
    )
    require(step.now_us >= state.grace_until_us, "R4", "no vote for oneself in the grace period")
    require(state.may_vote(asked.record), "R16", "no vote without a voting right")
    founding = tuple(asked.record.named().items()) if asked.record.proposed else ()
    require(follows(state.saved.founding, dict(founding)) or not founding, "R15", "a founding vote binds to its list")
    step.save(term=asked.term_sought, voted_for=step.me, voted_epoch=state.saved.epoch, founding=founding)
    state.role = Role.CANDIDATE
    end_round(step, "won")
    _open_round(step, False, asked.term_sought, asked.reason, asked.began_us, asked.record)


def _open_round(step: Step, pre: bool, term_sought: int, reason: Reason, began_us: int, record: Record) -> None:
    state = step.state
    state.round += 1
    state.campaign = Campaign(
        pre=pre,
        round=state.round,
        term_sought=term_sought,
        reason=reason,
        began_us=began_us,
        round_began_us=step.now_us,
        give_up_us=step.now_us + state.round_us(step.timing, pre),
        record=record,
        answers={step.me: VoteAnswer(True, None, 0, state.saved.epoch)},
    )


def end_round(step: Step, outcome: str) -> None:
    """Close the open round of vote requests, if there is one. How it ended is kept for people who ask why."""
    state = step.state
    campaign = state.campaign
    if campaign is None:
        return
    votes = (
        Vote(voter, answer.granted, "" if answer.reason is None else answer.reason.value)
        for voter, answer in sorted(campaign.answers.items())
    )
    ended = Round(campaign.term_sought, campaign.pre, campaign.round_began_us, step.now_us, outcome, tuple(votes))
    state.rounds = (*state.rounds, ended)[-MOST_ROUNDS:]
    state.campaign = None


def become_elected(step: Step, won: Campaign) -> None:
    """The vote `won` was won. Elected is not active (R7): first a quorum must save the record, rewritten with the new
    term, and the promises that the answers reported must run out."""
    state = step.state
    granted = {voter: answer.granted for voter, answer in won.answers.items()}
    require(not won.pre and won.term_sought == state.term, "R2", "a win belongs to the current term")
    require(won.outcome(granted) is Outcome.WON, "R2", "a quorum of distinct voters granted the vote")
    require(won.record.proposed or won.record == state.record, "R10", "the votes are those of this node's record")
    require(state.saved.voted_for == step.me and not state.leaving, "R2", "a winner voted for itself and stays")
    previous, heard_us = state.last_controller, state.last_controller_heard_us
    promises_end_us = max((a.until_us for a in won.answers.values() if a.granted), default=0)
    _write_record(step, won.record)
    state.role = Role.ELECTED
    end_round(step, "won")
    state.campaign_at_us = NEVER_US
    state.controller = None
    state.leader_state = LeaderState(
        term=state.term,
        elected_us=step.now_us,
        promises_end_us=promises_end_us,
        waiting=promises_end_us > 0,
        reason=won.reason,
        previous=previous,
        previous_heard_us=heard_us,
        lost_us=state.lost_us,
        rounds=state.rounds,
        disks_us=state.round_us(step.timing, pre=False) - step.timing.vote_wait_us,
        asked=state.asked,
    )
    state.rounds, state.asked = (), ""
    votes = sum(granted.values())
    step.note("elected", term=state.term, votes=votes, took_ms=(step.now_us - won.began_us) / 1000)


def _write_record(step: Step, voted_on: Record) -> None:
    """The winner's record: that of its cluster, rewritten in the new term (R10), or the first one of the cluster
    that it founds, which names the epochs that voted (R15)."""
    state = step.state
    founds = voted_on.proposed
    require(founds == state.is_new, "R15", "only a new node founds a cluster")
    step.save(record=voted_on.rewritten(state.term), founding=())
    if founds:
        step.note("cluster_founded", cluster_id=f"{voted_on.cluster_id:x}", members=voted_on.members)


def become_active(step: Step, leader_state: LeaderState) -> None:
    """From elected to active: this node may act as controller from now on (R7)."""
    state, now_us = step.state, step.now_us
    require(state.record.config_term == leader_state.term == state.term, "R7", "the record was rewritten in this term")
    require(now_us >= leader_state.promises_end_us, "R7", "promises to earlier controllers have run out")
    require(leader_state.committed(state.record), "R7", "a quorum has saved the record")
    require(not state.leaving and state.may_vote(state.record), "R7", "no node without a voting right becomes active")
    leader_state.active_since_us = now_us
    require(leader_state.holds(now_us), "R5", "a node is active only while its lease runs")
    state.attempts = 0


def follow(step: Step, controller: KnownController, succession: tuple[int, ...]) -> None:
    """Accept the controller of the current term: promise it one election timeout (R3)."""
    state, now_us = step.state, step.now_us
    present = controller.term == state.term and controller.id != step.me
    require(present, "R3", "only the controller of the current term is followed")
    if state.role is not Role.FOLLOWER:
        become_follower(step)
    if state.controller != controller:
        step.note("controller_followed", controller=controller.id, term=controller.term)
        state.rounds, state.lost_us, state.asked = (), -1, ""
    state.controller = state.last_controller = controller
    state.controller_heard_us = state.last_controller_heard_us = now_us
    state.succession = succession
    state.attempts = 0
    state.identify_until_us = NEVER_US
    until_us = now_us + step.timing.promise_us
    state.promise = Promise(controller.id, controller.incarnation, controller.term, until_us)
    state.reason = Reason.TIMEOUT
    state.campaign_at_us = until_us + wait_us(step)
    set_status(step, Status.RUNNING)


def lose_controller(step: Step, reason: Reason) -> None:
    """The controller is gone: campaign when this node's turn in the succession comes (R8)."""
    state = step.state
    if state.controller is not None:
        heard_ms = (step.now_us - state.controller_heard_us) / 1000
        lost = state.controller
        step.note("controller_lost", controller=lost.id, term=lost.term, why=reason.value, heard_ms=heard_ms)
        state.controller = None
        state.lost_us = step.now_us
    for peer, known in state.peers.items():
        if not known.connected and not known.gone:
            step.probe(peer)  # it may have died with the controller, and be before this node in line
    if state.status is Status.RUNNING:
        set_status(step, Status.VOTING)
    schedule_campaign(step, reason)


def hand_over(step: Step, message: Handover) -> None:
    """End the promises to this node's former leadership. While a job still acts in it they go on, this
    node's own too, and the job is expected to end before they do (R6)."""
    state = step.state
    if state.pending_handover is not None and state.pending_handover.message.of_term == message.of_term:
        state.pending_handover = PendingHandover(message, state.pending_handover.until_us)
    else:
        step.broadcast(message)


def step_down(step: Step, why: str) -> None:
    """End the leadership; from here on the node does nothing in its name (R6)."""
    state = step.state
    leader_state = state.leader_state
    require(leader_state is not None, "R6", "only an elected node stops being active")
    assert leader_state is not None
    state.leader_state = None
    state.role = Role.FOLLOWER
    if step.settings.guarded and leader_state.active_since_us:
        state.pending_handover = PendingHandover(Handover(leader_state.term, 0), leader_state.lease_lapses_us)
    elif state.promise is not None and state.promise.to == step.me:
        state.promise = None  # the node's promise to itself ends with its leadership
    state.last_controller = KnownController(step.me, state.saved.incarnation, leader_state.term)
    state.last_controller_heard_us = state.lost_us = step.now_us
    if leader_state.active_since_us:
        ago_ms = max(0, step.now_us - leader_state.lease_lapses_us) / 1000
        step.note("stopped_being_active", term=leader_state.term, why=why, lease_ended_ms_ago=ago_ms)
        step.publish(WithdrawController(leader_state.term, why))
    else:
        step.note("election_abandoned", term=leader_state.term, why=why)
    # The one that just failed to lead lets the others go first.
    state.attempts += 1
    state.reason = Reason.TIMEOUT
    state.campaign_at_us = step.now_us + step.timing.promise_us + jitter_us(step)
    if state.status is Status.RUNNING:
        set_status(step, Status.VOTING)


def leave_election(step: Step) -> None:
    """Stop taking part in elections: this node leaves, and its leadership is already over."""
    state = step.state
    state.leaving = True
    state.campaign = None
    state.role = Role.FOLLOWER


def acknowledge(step: Step, controller: KnownController) -> None:
    """This node has saved the controller's record: its vote of that term is the controller's from now on, if it
    had given none (R10). It could otherwise elect a second one in the same term."""
    state = step.state
    if state.saved.voted_for == 0 and controller.term == state.term:
        step.save(voted_for=controller.id, voted_epoch=state.record.epoch_of(controller.id))


def accept_reset(step: Step, record: Record) -> None:
    """Save the voters that an operator forces: the only record written without a quorum (R11)."""
    become_follower(step)
    step.state.controller = None
    step.save(record=record, founding=())
    step.meet(dict(record.addresses))


def forget(step: Step, epoch: int) -> None:
    """This node's data turned out to be an older copy, or older than the node's state was in an earlier process: it is
    a new node from now on, with a storage epoch that no node has heard of (R16). Its term and its vote stay."""
    require(epoch > step.state.saved.epoch, "R16", "a storage epoch grows")
    become_follower(step)
    state = step.state
    state.controller, state.saves, state.saves_at_start = None, 0, 0
    step.save(record=NO_RECORD, epoch=epoch, founding=())
