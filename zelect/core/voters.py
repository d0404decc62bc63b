"""Which voters the controller works towards (R11).

The voters follow the living members, one voter at a time, so that members may be lost one after the
other down to the last. Where the number of voting nodes is even the witness is a voter too, so that
the number of voters stays odd:

    {1,2,3}   3 goes    {1,2,3,W}  {1,2,W}      two nodes and the witness: the floor;
    {1,2,W}   3 comes   {1,2,3,W}  {1,2,3}      either of the two with the witness carries on

The witness is added before a member is removed, and removed after a member was added: no step on the
way needs more voters than are alive. A member that lost its state (R16) is removed and added again with
its new epoch: the votes of the old one no longer count, because a quorum has the record without it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from zelect.core.quorum import WITNESS, Record, Witness, has_quorum

FLOOR = 2
"""The number of voting nodes does not fall below this, except when an epoch is replaced or an operator removes a
node."""


@dataclass(frozen=True, slots=True)
class VoterHealth:
    """What the controller knows of the others. `gone`: proven dead, or not heard for `down_after`.
    `joinable`: no voters, but heard steadily, and up to date with the record or without any.
    `lost_state`: voters that are alive with another epoch than the record names. `witness_ready`: a witness
    could be added; `witness_lost`: the one in the record is unrecognized now."""

    gone: frozenset[int] = frozenset()
    joinable: frozenset[int] = frozenset()
    lost_state: frozenset[int] = frozenset()
    witness_ready: bool = False
    witness_lost: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """One change of the voters: exactly one of the fields is set."""

    add: int = 0
    remove: int = 0
    add_witness: bool = False
    remove_witness: bool = False

    def applied(self, record: Record, epochs: Mapping[int, int], witness: Witness | None = None) -> Record:
        """The record after this change. `epochs` are those of the nodes, `witness` is the identity of the one to
        be added."""
        if self.add:
            return record.with_member(self.add, epochs[self.add])
        if self.remove:
            return record.without_member(self.remove)
        return record.with_witness(witness if self.add_witness else None)


def next_change(record: Record, health: VoterHealth, dynamic: bool) -> Change | None:
    """The next change towards the voters that the living members call for; None when nothing is to change.

    With `dynamic` false all nodes of the cluster are voters; only an epoch that was lost is replaced.
    """
    members = set(record.members)
    if record.witness is not None and (health.witness_lost or not dynamic):
        return Change(remove_witness=True)
    if health.lost_state & members and len(members) > 1:
        return Change(remove=min(health.lost_state & members))
    if health.joinable - members:
        return Change(add=min(health.joinable - members))
    if not dynamic:
        return None
    if health.gone & members and len(members) > FLOOR:
        return _without_the_gone(record, health)
    return _kept_odd(record, health)


def _without_the_gone(record: Record, health: VoterHealth) -> Change | None:
    """Remove a member that is gone; from an odd number of members only after the witness was added."""
    gone = health.gone & set(record.members)
    has_witness = record.witness is not None
    usable = has_witness or health.witness_ready
    # Without a witness an even number of voters survives no more failures than the odd one below it.
    if len(record.members) % 2 == 0 or has_witness or (len(gone) > 1 and not usable):
        return Change(remove=min(gone))
    return Change(add_witness=True) if usable else None


def _kept_odd(record: Record, health: VoterHealth) -> Change | None:
    """Add the witness to an even number of voting nodes, remove it from an odd one."""
    even, has_witness = len(record.members) % 2 == 0, record.witness is not None
    if even and not has_witness and health.witness_ready:
        return Change(add_witness=True)
    return Change(remove_witness=True) if has_witness and not even else None


def failures_survived(
    record: Record, alive: Collection[int], witness_up: bool, dynamic: bool, witness_lost: bool = False
) -> int:
    """How many more members may fail, one after the other with time to adapt in between, until
    nobody can be elected; -1 when that is so already. The lowest ids fail first, which makes no difference:
    all members count the same. `witness_lost`: the witness in the record is unrecognized now, and
    has no voting right until a quorum has replaced it."""
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
    """How many more failures are survived, as `failures_survived` counts them, after `down` have failed:
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
        is_lost = lost is not None and record.witness == lost
        change = next_change(record, VoterHealth(gone=gone, witness_ready=witness_up, witness_lost=is_lost), dynamic)
        if change is None or not has_quorum(record.voters, _may_vote(record, living, witness_up, lost)):
            return record
        # Each change leaves a quorum of the living where there was one (`next_change`).
        record = change.applied(record, {}, Witness("assumed", "", ""))


def _may_vote(record: Record, living: Collection[int], witness_up: bool, lost: Witness | None) -> set[int]:
    """The voters of `record` that can answer; ids of others among the living don't count."""
    heard = record.witness is not None and witness_up and record.witness != lost
    return {*living, WITNESS} if heard else set(living)
