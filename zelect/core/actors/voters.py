"""The voters follow the living members (R10, R11), and the witness in Redis (R12).

The active controller changes the voter record towards what `core.voters.next_change` names, one
voter at a time. Each change waits until a quorum of the voters of the current record has saved it, in
the controller's own term: then any two quorums of records that follow each other share a voter, and no
older record can elect anybody any more (logless reconfiguration, OPODIS 2021). A storage epoch, or
the identity of a witness, is replaced in two changes: the old one out, then the new one in.
"""

from __future__ import annotations

from zelect.core.actors.leadership import ping_round
from zelect.core.effects import WitnessCreate, WitnessLook
from zelect.core.events import WitnessAnswered, WitnessCreated, WitnessSeen
from zelect.core.invariants import require
from zelect.core.messages import CommonResp, Envelope, Reset, Result, Type
from zelect.core.quorum import WITNESS, Record
from zelect.core.state import LeaderState, State
from zelect.core.step import Step
from zelect.core.transitions import accept_reset, become_follower
from zelect.core.voters import Change, VoterHealth, next_change

MAX_GENERATION = 2**40
"""The command line takes seconds since 1970 as generation; a much higher one leaves no room for another reset."""


def manage(step: Step) -> None:
    """Take the next step towards the voters that the living members call for."""
    state = step.state
    leader_state = state.leader_state
    assert leader_state is not None
    if not leader_state.active_since_us:
        _name_epochs_early(step)
    if not leader_state.holds(step.now_us):
        return
    if nothing_to_change(step) or not leader_state.committed(state.record):
        return
    health = health_of(step, leader_state)
    change = next_change(state.record, health, step.settings.dynamic)
    if change is None:
        return
    if change.add_witness and leader_state.created_witness is None:
        _create_witness(step, leader_state)
        return
    _change(step, leader_state, change, health)


def nothing_to_change(step: Step) -> bool:
    """Whether all configured members are voters and alive, and their number is odd. For nearly every round
    this says, without building anything, that `next_change` would change nothing."""
    state = step.state
    record = state.record
    if record.witness is not None or record.members != step.settings.members or len(record.members) % 2 == 0:
        return False
    for node, epoch in zip(record.members, record.epochs, strict=True):
        if node != step.me:
            peer = state.peers[node]
            if peer.gone or peer.epoch != epoch:
                return False
    return True


def _name_epochs_early(step: Step) -> None:
    """Before this node is active: name the epochs of members that answered after the vote was won. That
    changes no voter, so it need not wait for a quorum; and without it a quorum may be missing, because
    a member whose epoch is not named doesn't count."""
    state = step.state
    unnamed = [node for node, epoch in state.record.named().items() if not epoch and node != step.me]
    unknown = {node: epoch for node in unnamed if (epoch := state.peers[node].epoch)}
    if unknown:
        step.save(record=state.record.with_epochs(unknown))
        ping_round(step)


def _change(step: Step, leader_state: LeaderState, change: Change, health: VoterHealth) -> None:
    """Make one change of the record, and send it to everybody."""
    state = step.state
    before = state.record
    epochs = {node: peer.epoch for node, peer in state.peers.items()}
    after = change.applied(before, epochs, leader_state.created_witness)
    if change.remove:
        require(
            change.remove in health.gone | health.lost_state,
            "R11",
            "only a voter that is gone or lost its state is removed",
        )
    require(after.differs_by_one_from(before), "R10", "one voter is added or removed at a time")
    committed = leader_state.committed(before) and before.config_term == state.term
    require(committed, "R10", "a quorum has the record and the term")
    if change.remove in health.lost_state:
        leader_state.removed_for_lost_state.add(change.remove)  # it is alive: it need not prove itself steady again
    step.save(record=after)
    step.note(
        "voters_changed" if after.voters != before.voters else "epochs_named",
        version=after.version,
        members=after.members,
        epochs=sum(epoch > 0 for epoch in after.epochs),
        witness=after.witness is not None,
    )
    ping_round(step)
    if change.add_witness:
        # It was created by this controller in this term, and holds the previous record.
        leader_state.created_witness, leader_state.pending_witness_key = None, ""
        state.witness_same = True


def health_of(step: Step, leader_state: LeaderState) -> VoterHealth:
    """What this controller knows of the others, as far as it matters for the voters."""
    state = step.state
    named = state.record.named()
    present = _epochs_present(state)
    return VoterHealth(
        gone=frozenset(node for node, peer in state.peers.items() if peer.gone),
        joinable=frozenset(node for node in state.peers.keys() - named if _may_join(step, leader_state, node)),
        lost_state=frozenset(node for node, epoch in present.items() if named.get(node, 0) not in (0, epoch)),
        unknown=frozenset(node for node in present if named.get(node) == 0),
        witness_ready=state.witness_ready,
        witness_lost=state.record.witness is not None and state.witness_ready and not state.witness_same,
    )


def _epochs_present(state: State) -> dict[int, int]:
    """The storage epochs of the peers that are here now, where they are known."""
    return {node: peer.epoch for node, peer in state.peers.items() if peer.epoch and peer.linked and not peer.gone}


def _may_join(step: Step, leader_state: LeaderState, node: int) -> bool:
    """Whether a node that is not a voter answers, has saved the record, and has been steady for one election
    timeout, or was a voter until it lost its state."""
    now_us = step.now_us
    if step.peer(node).gone or leader_state.saved_by.get(node) != step.state.record.id:
        return False
    if leader_state.answered_us.get(node, 0) < now_us - 3 * step.timing.heartbeat_us:
        return False
    steady = now_us - leader_state.steady_us.get(node, now_us) >= step.timing.promise_us
    return steady or node in leader_state.removed_for_lost_state


def _create_witness(step: Step, leader_state: LeaderState) -> None:
    """Ask for a new witness under a key that was never used: nobody else has this term and version."""
    if step.now_us < leader_state.create_witness_again_us:
        return
    record = step.state.record
    leader_state.pending_witness_key = (
        f"{step.me}-{step.state.saved.incarnation}-{leader_state.term}-{record.version}-{leader_state.number}"
    )
    leader_state.create_witness_again_us = step.now_us + step.timing.promise_us
    step.ask_witness(WitnessCreate(leader_state.pending_witness_key, leader_state.term, record.id))


def witness_created(step: Step, event: WitnessCreated) -> None:
    """The new witness is ready; `manage` adds it to the record."""
    leader_state = step.state.leader_state
    if leader_state is not None and event.identity.key == leader_state.pending_witness_key:
        leader_state.created_witness = event.identity
        step.note("witness_created", key=event.identity.key)


def witness_answered(step: Step, event: WitnessAnswered) -> None:
    """The witness answered a PING: it counts like a PONG, by the PING's send time (R5)."""
    state = step.state
    if event.reason is not None:
        step.note("witness_refused", number=event.number, reason=event.reason.value, term=event.term)
        if event.term > state.term:
            become_follower(step, event.term, why="higher_term")
        return
    leader_state = state.leader_state
    if leader_state is None or leader_state.term != event.of_term or WITNESS not in state.voters:
        return
    sent_us = leader_state.sent_us.get(event.number)
    if sent_us is None:
        step.note("stale_pong_ignored", sender=WITNESS, number=event.number)
        return
    leader_state.answered_us[WITNESS] = max(leader_state.answered_us.get(WITNESS, 0), sent_us)
    leader_state.saved_by[WITNESS] = max(leader_state.saved_by.get(WITNESS, (0, 0, 0)), event.record_id)


def witness_seen(step: Step, event: WitnessSeen) -> None:
    """What a look at Redis found."""
    state = step.state
    same = event.same and event.identity == state.record.witness
    if (state.witness_ready, state.witness_same) != (event.ready, same):
        step.note("witness_seen", ready=event.ready, same=same)
    state.witness_ready = event.ready
    if event.identity == state.record.witness:
        state.witness_same = same


def look(step: Step) -> None:
    """See from time to time whether Redis could serve, or still serves, as witness."""
    state = step.state
    state.next_witness_look_us = step.now_us + step.timing.idle_ping_us
    if step.settings.dynamic:
        step.ask_witness(WitnessLook(state.record.witness))


def witness_state(state: State, dynamic: bool) -> str:
    """In a word for people: member, ready, unrecognized, unreachable or unused."""
    if not dynamic:
        return "unused"
    if not state.witness_ready:
        return "unreachable"
    if state.record.witness is None:
        return "ready"
    return "member" if state.witness_same else "unrecognized"


def reset(step: Step, envelope: Envelope, message: Reset) -> None:
    """An operator forces new voters on a cluster that lost its quorum, or tells this node of the old
    generation to join: the only way in which a record is written without a quorum (R11)."""
    state = step.state
    record = state.record
    if message.generation > MAX_GENERATION or not set(message.members) <= step.settings.addresses.keys():
        detail = f"members must be in the configuration, and a generation at most {MAX_GENERATION}"
        step.answer = CommonResp(int(Type.RESET), Result.FORBIDDEN, detail)
        return
    if message.generation < record.generation or (
        message.generation == record.generation and step.me in record.members
    ):
        step.answer = CommonResp(int(Type.RESET), Result.FORBIDDEN, f"this node is in generation {record.generation}")
        return
    if message.generation > record.generation:
        accept_reset(step, Record(0, record.version + 1, message.members, None, message.generation))
        step.note("voters_reset", generation=message.generation, members=message.members)
    step.answer = CommonResp(int(Type.RESET), Result.OK, f"generation {message.generation}")
