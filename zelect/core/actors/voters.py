"""The voters follow the living members (R10, R11), and the witness in Redis (R12).

The active controller changes the voter record towards what `core.voters.next_change` names, one
voter at a time. Each change waits until a quorum of the voters of the current record has saved it, in
the controller's own term: then any two quorums of records that follow each other share a voter, and no
older record can elect anybody any more (logless reconfiguration, OPODIS 2021). A storage epoch, or
the identity of a witness, is replaced in two changes: the old one is removed, then the new one is added (R16).

What an operator changes is in `core.actors.members`.
"""

from __future__ import annotations

from zelect.core.actors.leadership import ping_round
from zelect.core.effects import WitnessCreate, WitnessLook
from zelect.core.events import WitnessAnswered, WitnessCreated, WitnessSeen
from zelect.core.invariants import require
from zelect.core.messages import MAX_VERSION_HEARD, MAX_VERSION_JUMP, Result
from zelect.core.quorum import NO_RECORD, WITNESS, Record
from zelect.core.state import LeaderState, State
from zelect.core.step import Step
from zelect.core.timing import jumps
from zelect.core.transitions import adopt_record, become_follower
from zelect.core.voters import Change, VoterHealth, next_change


def manage(step: Step) -> None:
    """Take the next step towards the voters that the living members call for."""
    state = step.state
    leader_state = state.leader_state
    assert leader_state is not None
    if not leader_state.holds(step.now_us):
        return
    _part_from_the_removed(step, leader_state)
    moved = _moved(step)
    if (nothing_to_change(step) and moved is None) or not leader_state.committed(state.record):
        return
    if moved is not None:
        _record_address(step, *moved)
        return
    health = health_of(step, leader_state)
    change = next_change(state.record, health, step.settings.dynamic)
    if change is None:
        return
    if change.add_witness and leader_state.created_witness is None:
        _create_witness(step, leader_state)
        return
    _change(step, leader_state, change, health)


def _moved(step: Step) -> tuple[int, str] | None:
    """A node that reports an address other than the record's, and no other node's, and that address."""
    state = step.state
    for node, recorded in state.record.addresses:
        said = step.settings.address if node == step.me else state.peers[node].address
        if said and said != recorded and not state.at_address(said, node):
            return node, said
    return None


def _record_address(step: Step, node: int, address: str) -> None:
    """Write the address where a node is now into the record; no voter changes by that."""
    step.save(record=step.state.record.with_address(node, address))
    step.note("member_replaced", peer=node, address=address)
    ping_round(step)


def _part_from_the_removed(step: Step, leader_state: LeaderState) -> None:
    """Close the connections to nodes that were removed, once they have saved the record that says so, or can't."""
    state = step.state
    record = state.record
    if len(state.addresses) == len(record.addresses):
        return
    removed = state.peers.keys() - set(record.nodes)
    reached = [node for node in removed if state.peers[node].linked and not state.peers[node].gone]
    if all(leader_state.saved_by.get(node) == record.id for node in reached):
        step.meet({node: state.addresses[node] for node in record.nodes})


def nothing_to_change(step: Step) -> bool:
    """Whether all nodes of the cluster are voters and alive, and their number is odd. In nearly every round this shows
    cheaply that `next_change` would change nothing."""
    state = step.state
    record = state.record
    if record.witness is not None or len(record.members) != len(record.addresses) or len(record.members) % 2 == 0:
        return False
    for node, epoch in zip(record.members, record.epochs, strict=True):
        if node != step.me:
            peer = state.peers[node]
            if peer.gone or peer.epoch != epoch:
                return False
    return True


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
        "voters_changed",
        version=after.version,
        members=after.members,
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
        gone=frozenset(node for node, peer in state.peers.items() if peer.lost),
        joinable=frozenset(node for node in state.record.nodes if _may_join(step, leader_state, node)),
        lost_state=frozenset(node for node, epoch in present.items() if named.get(node, epoch) != epoch)
        | frozenset(node for node, peer in state.peers.items() if peer.foreign and peer.lost),
        witness_ready=state.witness_ready,
        witness_lost=state.record.witness is not None and state.witness_ready and not state.witness_same,
    )


def _epochs_present(state: State) -> dict[int, int]:
    """The storage epochs of the peers that are here now, where they are known."""
    return {node: peer.epoch for node, peer in state.peers.items() if peer.epoch and peer.linked and not peer.gone}


def _may_join(step: Step, leader_state: LeaderState, node: int) -> bool:
    """Whether a node that is not a voter answers, has saved the record (or none, because it is new and the record
    doesn't name it), and has been steady for one election timeout, or was a voter until it lost its state."""
    if node in step.state.members or node == step.me:
        return False
    now_us, peer = step.now_us, step.peer(node)
    saved = leader_state.saved_by.get(node)
    if peer.gone or not peer.epoch or saved not in (step.state.record.id, NO_RECORD.id):
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
    step.ask_witness(WitnessCreate(leader_state.pending_witness_key, leader_state.term, record))


def witness_created(step: Step, event: WitnessCreated) -> None:
    """The new witness is ready; `manage` adds it to the record."""
    leader_state = step.state.leader_state
    if leader_state is not None and event.identity.key == leader_state.pending_witness_key:
        leader_state.created_witness = event.identity
        step.note("witness_created", key=event.identity.key)


def witness_answered(step: Step, event: WitnessAnswered) -> None:
    """The witness answered a PING: it counts like a PONG, by the PING's send time (R5)."""
    state = step.state
    if jumps(state.term, event.term):
        step.note("witness_refused", number=event.number, reason=Result.TERM_JUMP.value, term=event.term)
        return
    if event.record is not None:
        take_record(step, event.record)
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
    if event.record is not None:
        take_record(step, event.record)
    if event.identity == state.record.witness:
        state.witness_same = same


def take_record(step: Step, record: Record) -> None:
    """Redis returns the newest voter record that the witness saved: a node that has an older one of this cluster and
    generation adopts it (R12). What is too far ahead to be true is refused, whatever its source (R14)."""
    state = step.state
    mine = state.record
    known = state.is_new or (record.cluster_id, record.generation) == (mine.cluster_id, mine.generation)
    known = known and record.cluster_id != 0 and bool(record.members) and not record.proposed
    sane = not jumps(state.term, record.config_term) and record.version <= MAX_VERSION_HEARD
    if known and sane and not (0 < mine.version < record.version - MAX_VERSION_JUMP):
        adopt_record(step, record)


def look(step: Step) -> None:
    """See from time to time whether Redis could serve, or still serves, as witness."""
    state = step.state
    state.next_witness_look_us = step.now_us + step.timing.idle_ping_us
    if step.settings.dynamic:
        step.ask_witness(WitnessLook(state.record.witness))


def witness_state(state: State, dynamic: bool) -> str:
    """One word for people: member, ready, unrecognized, unreachable or unused."""
    if not dynamic:
        return "unused"
    if not state.witness_ready:
        return "unreachable"
    if state.record.witness is None:
        return "ready"
    return "member" if state.witness_same else "unrecognized"
