"""Which voters the controller should strive for (R11).

The voters follows the living, one voter at a time, so that members may be lost one after the
other down to the last. Where the number of members is even the witness is a voter too, so that
the number of voters stays odd:

    {1,2,3}   3 goes    {1,2,3,W}  {1,2,W}      two nodes and the witness: the floor;
    {1,2,W}   3 comes   {1,2,3,W}  {1,2,3}      either of the two with the witness carries on

The witness goes in before a member goes out, and out after a member came in: no step on the way
needs more voters than live. A member that lost its memory (R1) goes out and comes in again: what
it voted before is void, because a quorum has the record without it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from zelect.core.quorum import WITNESS, Record, Witness, has_quorum

__all__ = ["Change", "VoterHealth", "failures_survived", "next_change", "outlook"]

FLOOR = 2
"""Members are not taken out below this number."""


@dataclass(frozen=True, slots=True)
class VoterHealth:
    """What the controller knows of the others. `gone`: proven dead, left, or silent for
    `down_after`. `joinable`: not members, heard steadily, and up to date with the record.
    `stateless`: members that live, but not the life that the record names. `unknown`: members
    that live, and whose life the record doesn't name yet. `witness_ready`: a witness could be put
    in; `witness_lost`: the one in the record is unrecognized now."""

    gone: frozenset[int] = frozenset()
    joinable: frozenset[int] = frozenset()
    lost_state: frozenset[int] = frozenset()
    unknown: frozenset[int] = frozenset()
    witness_ready: bool = False
    witness_lost: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """One step: exactly one of the fields says something."""

    add: int = 0
    remove: int = 0
    learn: frozenset[int] = frozenset()
    add_witness: bool = False
    remove_witness: bool = False

    def applied(self, record: Record, epochs: Mapping[int, int], witness: Witness | None = None) -> Record:
        """The record after this change; `lives` are those of the nodes, `witness` is the identity
        of the one to be put in."""
        if self.add:
            return record.with_member(self.add, epochs.get(self.add, 0))
        if self.remove:
            return record.without_member(self.remove)
        if self.learn:
            return record.with_epochs({node: epochs[node] for node in self.learn})
        return record.with_witness(witness if self.add_witness else None)


def next_change(record: Record, health: VoterHealth, dynamic: bool) -> Change | None:
    """The next step towards the voters that the living deserve; None when it stands.

    With `dynamic` false the members votes, and only a member that lost its memory goes out and in.
    """
    members = set(record.members)
    has_witness = record.witness is not None
    if has_witness and (health.witness_lost or not dynamic):
        return Change(remove_witness=True)
    if health.unknown & members:
        return Change(learn=health.unknown & members)
    if health.lost_state & members and len(members) > 1:
        return Change(remove=min(health.lost_state & members))
    if health.joinable - members:
        return Change(add=min(health.joinable - members))
    if not dynamic:
        return None
    gone = health.gone & members
    usable = has_witness or health.witness_ready
    if gone and len(members) > FLOOR:
        # Without a witness an even voters survives no more than the odd one above it.
        if len(members) % 2 == 0 or (len(gone) > 1 and not usable):
            return Change(remove=min(gone))
        if has_witness:
            return Change(remove=min(gone))
        return Change(add_witness=True) if usable else None
    if len(members) % 2 == 0 and not has_witness:
        return Change(add_witness=True) if health.witness_ready else None
    if len(members) % 2 == 1 and has_witness:
        return Change(remove_witness=True)
    return None


def failures_survived(
    record: Record, alive: Collection[int], witness_up: bool, dynamic: bool, witness_lost: bool = False
) -> int:
    """How many more members may fail, one after the other with time to adapt in between, until
    nobody can be elected; -1 when that is so already. The lowest ids fail first, which changes
    nothing: members count alike. `witness_lost`: the witness in the record is unrecognized now, and
    has no voting right until a quorum put in another."""
    living = set(alive) & set(record.members)
    lost = record.witness if witness_lost else None
    survived = -1
    while living:
        record = _settled(record, living, witness_up, dynamic, lost)
        if not has_quorum(record.voters, _may_vote(record, living, witness_up, lost)):
            break
        survived += 1
        living.discard(min(living))
    return survived


def outlook(
    record: Record,
    alive: Collection[int],
    down: Collection[int],
    witness_up: bool,
    dynamic: bool,
    witness_lost: bool = False,
) -> tuple[int, int]:
    """How many more failures are survived, as `failures_survived` counts them, once `down` have failed:
    all at once, and one after the other in their order, with time to adapt before each."""
    lost = record.witness if witness_lost else None
    at_once = failures_survived(record, set(alive) - set(down), witness_up, dynamic, witness_lost)
    living, adapted = set(alive) & set(record.members), record
    for node in down:
        adapted = _settled(adapted, living, witness_up, dynamic, lost)
        living.discard(node)
        if not has_quorum(adapted.voters, _may_vote(adapted, living, witness_up, lost)):
            return at_once, -1
    return at_once, failures_survived(adapted, living, witness_up, dynamic, witness_lost)


def _settled(record: Record, living: Collection[int], witness_up: bool, dynamic: bool, lost: Witness | None) -> Record:
    """The record once the controller has made every change that a quorum of the living allows."""
    while True:
        gone = frozenset(set(record.members) - set(living))
        forgot = lost is not None and record.witness == lost
        change = next_change(record, VoterHealth(gone=gone, witness_ready=witness_up, witness_lost=forgot), dynamic)
        if change is None or not has_quorum(record.voters, _may_vote(record, living, witness_up, lost)):
            return record
        after = change.applied(record, {}, Witness("assumed", "", ""))
        if not has_quorum(after.voters, _may_vote(after, living, witness_up, lost)):
            return record
        record = after


def _may_vote(record: Record, living: Collection[int], witness_up: bool, lost: Witness | None) -> set[int]:
    """The voters of `record` that can answer; ids of others among the living count nothing."""
    heard = record.witness is not None and witness_up and record.witness != lost
    return {*living, WITNESS} if heard else set(living)
