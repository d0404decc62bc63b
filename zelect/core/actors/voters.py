"""The electorate follows the living (R10, R11), and the witness in Redis (R12).

The controller in office strives for the electorate that `core.electorate.next_change` names, one
voter at a time: the next change waits until a quorum has saved the record and has the term.
"""

from __future__ import annotations

from zelect.core.actors.leadership import committed, ping_round
from zelect.core.effects import WitnessFound, WitnessLook
from zelect.core.events import WitnessAnswered, WitnessFounded, WitnessSeen
from zelect.core.invariants import require
from zelect.core.messages import CommonResp, Envelope, Found, Result, Type
from zelect.core.quorum import WITNESS, Record
from zelect.core.state import Reign, State
from zelect.core.step import Turn
from zelect.core.transitions import become_follower
from zelect.core.voters import Health, next_change

__all__ = [
    "at_rest",
    "found",
    "health_of",
    "look",
    "manage",
    "witness_answered",
    "witness_founded",
    "witness_seen",
    "witness_state",
]


MAX_FOUNDATION = 2**40
"""Foundations are seconds since 1970 at the command line; further ahead leaves no room for another."""


def manage(turn: Turn) -> None:
    """Take the next step towards the electorate that the living deserve."""
    state = turn.state
    reign = state.reign
    if reign is not None and not reign.entered_us:
        _learn_early(turn)
    if reign is None or not reign.holds(turn.now_us) or at_rest(turn) or not committed(turn, reign):
        return
    change = next_change(state.record, health_of(turn, reign), turn.settings.dynamic)
    if change is None:
        return
    if change.add_witness and reign.founded is None:
        _found_witness(turn, reign)
        return
    lives = {node: peer.life for node, peer in state.peers.items()}
    after = change.applied(state.record, lives, reign.founded)
    if change.remove and state.peers[change.remove].life and not state.peers[change.remove].gone:
        reign.taken_out.add(change.remove)  # it lives and only forgot: it need not prove itself again
    _change(turn, reign, after)
    if change.add_witness:
        # Its memory was begun by this controller in this term, and holds the record before.
        reign.founded, reign.founding = None, ""
        state.witness_same = True


def at_rest(turn: Turn) -> bool:
    """Whether there is plainly nothing to change: the whole roster votes, lives, and is odd. Says
    of nearly every round, without building anything, what `next_change` would say of it."""
    state = turn.state
    record = state.record
    if record.witness is not None or record.members != turn.settings.roster or len(record.members) % 2 == 0:
        return False
    for node, life in zip(record.members, record.lives, strict=True):
        if node != turn.me:
            peer = state.peers[node]
            if peer.gone or peer.life != life:
                return False
    return True


def _learn_early(turn: Turn) -> None:
    """Before the office: name the lives of members that answered after the vote was won. It changes
    no voter, so it need not wait for a quorum; and without it a quorum may be missing, because a
    member whose life is not named doesn't count."""
    state = turn.state
    unnamed = [node for node, life in state.record.named().items() if not life and node != turn.me]
    unknown = {node: life for node in unnamed if (life := state.peers[node].life)}
    if unknown:
        turn.save(record=state.record.with_lives(unknown))
        ping_round(turn)


def _change(turn: Turn, reign: Reign, after: Record) -> None:
    state = turn.state
    before = state.record
    require(after.differs_by_one_from(before), "R10", "one voter is added or removed at a time")
    require(committed(turn, reign) and before.config_term == state.term, "R10", "a quorum has the record and the term")
    turn.save(record=after)
    turn.note(
        "electorate_changed" if after.voters != before.voters else "lives_named",
        version=after.version,
        members=after.members,
        lives=sum(life > 0 for life in after.lives),
        witness=after.witness is not None,
    )
    ping_round(turn)


def health_of(turn: Turn, reign: Reign) -> Health:
    state, now_us = turn.state, turn.now_us
    record = state.record
    fresh_us = now_us - 3 * turn.timing.heartbeat_us
    named, joinable = record.named(), set()
    for node, peer in state.peers.items():
        if node in named or peer.gone:
            continue
        answers = reign.answered_us.get(node, 0) >= fresh_us and reign.saved_by.get(node) == record.id
        steady = now_us - reign.steady_us.get(node, now_us) >= turn.timing.promise_us
        if answers and (steady or node in reign.taken_out):
            joinable.add(node)
    here = {node for node, peer in state.peers.items() if peer.life and not peer.gone and peer.linked}
    return Health(
        gone=frozenset(node for node, peer in state.peers.items() if peer.gone),
        joinable=frozenset(joinable),
        forgetful=frozenset(n for n in here if named.get(n, 0) not in (0, state.peers[n].life)),
        unknown=frozenset(n for n in here if named.get(n) == 0),
        witness_ready=state.witness_ready,
        witness_lost=state.record.witness is not None and state.witness_ready and not state.witness_same,
    )


def _found_witness(turn: Turn, reign: Reign) -> None:
    """Ask for a new memory under a key that was never used: term and version are this
    controller's alone."""
    if turn.now_us < reign.found_again_us:
        return
    record = turn.state.record
    reign.founding = f"{turn.me}-{turn.state.saved.incarnation}-{reign.term}-{record.version}-{reign.number}"
    reign.found_again_us = turn.now_us + turn.timing.promise_us
    turn.ask_witness(WitnessFound(reign.founding, reign.term, record.id))


def witness_founded(turn: Turn, event: WitnessFounded) -> None:
    """The new memory stands ready; `manage` puts it into the record."""
    reign = turn.state.reign
    if reign is not None and event.identity.key == reign.founding:
        reign.founded = event.identity
        turn.note("witness_founded", key=event.identity.key)


def witness_answered(turn: Turn, event: WitnessAnswered) -> None:
    """The witness answered a PING: it counts like a PONG, by the PING's send time (R5)."""
    state = turn.state
    if event.reason is not None:
        turn.note("witness_refused", number=event.number, reason=event.reason.value, term=event.term)
        if event.term > state.term:
            become_follower(turn, event.term, why="higher_term")
        return
    reign = state.reign
    if reign is None or reign.term != event.of_term or WITNESS not in state.voters:
        return
    sent_us = reign.sent_us.get(event.number)
    if sent_us is None:
        turn.note("stale_echo_ignored", sender=WITNESS, number=event.number)
        return
    reign.answered_us[WITNESS] = max(reign.answered_us.get(WITNESS, 0), sent_us)
    reign.saved_by[WITNESS] = max(reign.saved_by.get(WITNESS, (0, 0, 0)), event.record_id)


def witness_seen(turn: Turn, event: WitnessSeen) -> None:
    """What a look at Redis found."""
    state = turn.state
    same = event.same and event.identity == state.record.witness
    if (state.witness_ready, state.witness_same) != (event.ready, same):
        turn.note("witness_seen", ready=event.ready, same=same)
    state.witness_ready = event.ready
    if event.identity == state.record.witness:
        state.witness_same = same


def look(turn: Turn) -> None:
    """See from time to time whether Redis could serve, or still serves, as witness."""
    state = turn.state
    state.next_look_us = turn.now_us + turn.timing.idle_ping_us
    if turn.settings.dynamic:
        turn.ask_witness(WitnessLook(state.record.witness))


def witness_state(state: State, dynamic: bool) -> str:
    """member, ready, stranger, unreachable or unused, for people."""
    if not dynamic:
        return "unused"
    if not state.witness_ready:
        return "unreachable"
    if state.record.witness is None:
        return "ready"
    return "member" if state.witness_same else "stranger"


def found(turn: Turn, envelope: Envelope, message: Found) -> None:
    """An operator founds the electorate anew, or tells this node of the old foundation to join:
    the only way in which a record is written without a quorum (R11)."""
    state = turn.state
    record = state.record
    if message.foundation > MAX_FOUNDATION or not set(message.members) <= turn.settings.addresses.keys():
        detail = f"members must be in the roster, a foundation at most {MAX_FOUNDATION}"
        turn.answer = CommonResp(int(Type.FOUND), Result.FORBIDDEN, detail)
        return
    if message.foundation < record.foundation or (
        message.foundation == record.foundation and turn.me in record.members
    ):
        turn.answer = CommonResp(int(Type.FOUND), Result.FORBIDDEN, f"this node is in foundation {record.foundation}")
        return
    if message.foundation > record.foundation:
        become_follower(turn)
        state.leader = None
        after = Record(0, record.version + 1, message.members, None, message.foundation)
        turn.save(record=after, amnesia=False)
        turn.note("electorate_founded", foundation=message.foundation, members=message.members)
    turn.answer = CommonResp(int(Type.FOUND), Result.OK, f"foundation {message.foundation}")
