"""What must hold after every event of a simulated run, each looked at in two ways where that can be.

    S1   one winner a term: by the `elected` facts; and every winner by the votes on disk
    S2   one active at any true instant: asked of the machines; by the deadlines noted before; and
         a lease must rest on a quorum that is bound for as long
    S3   leaderships are entered, and the registry is written, in the order of their terms
    R1   the saved term never falls, no record is replaced by an older one
    R15  a cluster is founded by the votes of all its first members, and no second one while a disk holds the first
    R16  a storage epoch grows and begins without a record; votes are counted by (node, epoch)
    R2   a vote never changes within a term, of a node's memory or of the witness's
    R7   who becomes active has its record on the disks of a quorum
    R10  a record differs by one voter from its parent, and descends from every committed one before it

The observer sees all disks and clocks, so it never asks a node what another one has.
"""

from __future__ import annotations

from typing import Any

from tools.common.violation import Violation
from tools.common.witness import Memory
from tools.simulator.small_world import SimulatedProcess, World
from zelect.core.effects import Saved, WitnessIntent
from zelect.core.lease import NEVER_US
from zelect.core.quorum import WITNESS, Record, RecordId, has_quorum
from zelect.core.state import State

Voter = tuple[int, int]
"""A node, or the witness, and its storage epoch."""

_MOST_CHECKED = 16
"""In larger clusters the check of what a lease rests on is left out: it looks at all nodes."""


class Forbidden(Exception):
    """Something happened after which nothing is promised, and the run ends: an older copy of a disk, which nobody
    noticed to be one, voted or saved a record (R16), or all nodes of an old list lost their data while nobody else was
    there (R15)."""


class Properties:
    """The observer of one world. `clocks_agree` False: rates are outside the bound, and S2 is not due."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clocks_agree = True
        self.leading: set[int] = set()
        self.sometimes: dict[str, int] = {}
        self.newest_committed: RecordId = (0, 0, 0)
        self._copies: set[Voter] = set()
        self._cluster_id = 0
        self._disks: dict[int, Saved] = {}
        self._until_us: dict[int, int] = {}
        self._bindings: dict[int, tuple[int, int, bool]] = {}
        self._winners: dict[tuple[int, int, int], tuple[int, int]] = {}
        self._votes: dict[int, dict[Voter, Voter]] = {}
        self._records: dict[RecordId, tuple[Record | None, RecordId | None]] = {}
        self._acked: dict[RecordId, set[int]] = {}
        self._committed: set[RecordId] = set()
        self._leadership_term = 0
        self._registry: tuple[int, int] = (0, 0)
        self._memory: Memory | None = None
        self._asking = (0, 0)
        self._witness_acked_us: dict[int, int] = {}

    def count(self, name: str) -> None:
        self.sometimes[name] = self.sometimes.get(name, 0) + 1

    # -- processes and disks ----------------------------------------------------------------------

    def born(self, n: int) -> None:
        """A process of `n` starts with what is on its disk."""
        saved = self.world.disks[n]
        self._disks[n] = saved
        if saved.record.cluster_id:
            if saved.record.cluster_id != self._cluster_id and (n, saved.epoch) in self._copies:
                self.count("copy of a disk not noticed")
                raise Forbidden  # of a cluster that was lost since, and another one founded
            self._cluster_id = saved.record.cluster_id
            self._records.setdefault(saved.record.id, (saved.record, None))

    def copied(self, n: int, saved: Saved) -> None:
        """The disk of `n` becomes an older copy of the same epoch, and its file doesn't tell."""
        if saved != self._disks[n]:
            self._copies.add((n, saved.epoch))

    def ended(self, n: int) -> None:
        self._until_us.pop(n, None)
        self.leading.discard(n)

    def saving(self, n: int, saved: Saved) -> None:
        """`saved` goes to the disk of `n`."""
        before = self._disks[n]
        if saved.epoch == before.epoch:
            self._same_epoch(n, before, saved)
        else:
            self._new_epoch(n, before, saved)
        self._disks[n] = saved
        if saved.voted_for:
            self._vote(saved.term, (n, saved.epoch), (saved.voted_for, saved.voted_epoch))
        if saved.record != before.record and saved.record.cluster_id:
            self._learn(n, saved, before.record)
        if saved.term == saved.record.config_term and saved.record.counts(n, saved.epoch):
            self._ack(n, saved.record)

    def _same_epoch(self, n: int, before: Saved, saved: Saved) -> None:
        voted = saved.voted_for and (saved.term, saved.voted_for) != (before.term, before.voted_for)
        if (n, saved.epoch) in self._copies and (voted or saved.record != before.record):
            self.count("copy of a disk not noticed")
            raise Forbidden
        if saved.term < before.term or saved.record.id < before.record.id:
            raise Violation("R1", f"n{n} saved {saved} after {before}")
        if saved.term == before.term and before.voted_for not in (0, saved.voted_for):
            votes = f"from {before.voted_for} to {saved.voted_for}"
            raise Violation("R2", f"n{n} changed its vote of term {saved.term} {votes}")
        if saved.record.cluster_id != before.record.cluster_id and before.record.cluster_id:
            raise Violation("R15", f"n{n} went from {before.record} to another cluster: {saved.record}")

    def _new_epoch(self, n: int, before: Saved, saved: Saved) -> None:
        if saved.epoch < before.epoch or saved.record.cluster_id:
            raise Violation("R16", f"n{n} began a new storage epoch with {saved} after {before}")
        if (n, before.epoch) in self._copies:
            self.count("copy of a disk noticed")
            self._copies.discard((n, before.epoch))
        self.count("storage epoch raised")

    def _vote(self, term: int, voter: Voter, candidate: Voter) -> None:
        given = self._votes.setdefault(term, {}).setdefault(voter, candidate)
        if given != candidate:
            raise Violation("R2", f"voter {voter} voted for {given} and for {candidate} in term {term}")

    def _founded(self, n: int, saved: Saved) -> None:
        """`n` founds a cluster. All members must have voted for it, and no disk may hold another one."""
        record = saved.record
        others = {m: disk.record.cluster_id for m, disk in self._disks.items() if m != n and disk.record.cluster_id}
        if others and not any(m in record.nodes or m in self.world.processes for m in others):
            self.count("second cluster by an old list")
            raise Forbidden  # all on that list lost their data, and nobody else was there (docs/protocol.md, R15)
        if others:
            raise Violation("R15", f"n{n} founds {record}, but there is a cluster already, on the disks of {others}")
        votes = self._votes.get(saved.term, {})
        missing = {m for m, epoch in record.named().items() if votes.get((m, epoch)) != (n, saved.epoch)}
        if missing:
            raise Violation("R15", f"n{n} founds {record} without the votes of {sorted(missing)}")
        self.count("founded")
        self._cluster_id = record.cluster_id
        self._records, self._acked, self._committed = {record.id: (record, None)}, {}, set()
        self.newest_committed, self._leadership_term = (0, 0, 0), 0
        if self.world.registry[1] >= saved.term:  # Redis could not be asked: another cluster under the old name
            self.world.registry = self._registry = (0, 0)

    def _learn(self, n: int, saved: Saved, before: Record) -> None:
        record = saved.record
        known = self._records.get(record.id)
        if record.cluster_id != self._cluster_id or not self._cluster_id:
            self._founded(n, saved)
            return
        if known is not None and known[0] is not None:
            if known[0] != record:
                raise Violation("R10", f"two records are called {record.id}: {known[0]} and {record}")
            return
        if not before.cluster_id:
            raise Violation("R15", f"n{n} joins with a record that nobody wrote: {record}")
        parent = before.id if known is None else known[1]
        for version in range(before.version + 1, record.version) if n in self.world.processes else ():
            between = (record.generation, record.config_term, version)
            if record.version - before.version <= 2 and known is None and self.world.state(n).leader_state is not None:
                # Written and written again in one step: others may hear of the first, no disk ever does.
                self._records.setdefault(between, (None, parent))
                parent = between
        self._records[record.id] = (record, parent)
        changed = set(record.voters) ^ set(before.voters)
        other_epoch = any(before.epoch_of(m) not in (-1, 0, record.epoch_of(m)) for m in record.members)
        if len(changed) > 1 or other_epoch or (changed and before.id not in self._committed):
            raise Violation("R10", f"n{n} wrote {record} on top of {before}, changed {changed}")
        if record.witness is not None and before.witness not in (None, record.witness):
            raise Violation("R12", f"n{n} replaced a witness by another: {before} by {record}")
        if record.id > self.newest_committed and not self._descends(record.id, self.newest_committed):
            raise Violation("R10", f"n{n} wrote {record}, which does not descend from {self.newest_committed}")
        if record.id < self.newest_committed:
            self.count("late branch")
        members, had = len(record.members), len(before.members)
        if members != had:
            self.count("grown" if members > had else "shrunk")
        if members == 2 and record.witness is not None:
            self.count("at the floor")

    def _descends(self, child: RecordId, ancestor: RecordId) -> bool:
        at: RecordId | None = child
        while at is not None and at > ancestor:
            at = self._records[at][1]
        return at == ancestor or ancestor == (0, 0, 0)

    def _ack(self, voter: int, record: Record) -> None:
        if record.id in self._committed:
            return
        acked = self._acked.setdefault(record.id, set())
        acked.add(voter)
        if not has_quorum(record.voters, acked):
            return
        self._committed.add(record.id)
        for other in self._records:
            if other > record.id and not self._descends(other, record.id):
                text = f"{record} was committed, but {self._records[other][0]} is newer and not its child"
                raise Violation("R10", text)
        self.newest_committed = max(self.newest_committed, record.id)

    # -- the witness --------------------------------------------------------------------------------

    def witness_asked(self, n: int, incarnation: int, intent: WitnessIntent) -> None:
        self._asking = (n, incarnation)

    def witness_changed(self) -> None:
        """After a script ran: what it wrote must obey the rules of a voter."""
        memory, before = self.world.redis.server.remembered(), self._memory
        if memory is not None and memory.acked[:2] == self._asking:
            self._witness_acked_us[memory.acked[0]] = self.world.now_us
        if memory is before or memory is None:
            return
        self._memory = memory
        if before is not None and before.identity == memory.identity:
            if memory.term < before.term or memory.record_id < before.record_id:
                raise Violation("R1", f"the witness went from {before} back to {memory}")
            if memory.term == before.term and memory.voted_for != before.voted_for:
                raise Violation("R2", f"the witness changed its vote: {before} to {memory}")
        if memory.record_id in self._records and memory.record_id[1] == memory.term:
            record = self._records[memory.record_id][0]
            if record is not None and record.witness == memory.identity:
                self._ack(WITNESS, record)

    # -- facts --------------------------------------------------------------------------------------

    def noted(self, n: int, name: str, details: dict[str, Any]) -> None:
        if name == "elected":
            self._elected(n, details["term"])
        elif name == "became_active":
            self._entered(n, details["term"])
        elif name == "voting_right_granted":
            self.count("admitted again")
        elif name in ("cluster_joined", "member_added", "member_removed", "member_replaced"):
            self.count(name.replace("_", " "))
        elif name == "leadership_handed_over":
            self.count("handed over")
        elif name == "witness_created":
            self.count("witness created")

    def _elected(self, n: int, term: int) -> None:
        saved = self._disks[n]
        key, who = (saved.record.cluster_id, saved.record.generation, term), (n, saved.incarnation)
        if self._winners.setdefault(key, who) != who:
            raise Violation("S1", f"{self._winners[key]} and {who} were both elected in term {term}")
        votes, me = self._votes.get(term, {}), (n, saved.epoch)
        voters = {v for v, epoch in saved.record.named().items() if votes.get((v, epoch)) == me}
        memory = self.world.redis.memory
        if (
            memory is not None
            and saved.record.witness == memory.identity
            and has_quorum(saved.record.voters, {WITNESS, *voters})
            and not has_quorum(saved.record.voters, voters)
        ):
            self.count("elected with the witness")
            voters.add(WITNESS)
        # A memory of the witness that voted may be gone by now, in which case nobody can tell.
        known = saved.record.witness is None or self.world.redis.server.same(saved.record.witness)
        if known and not has_quorum(saved.record.voters, voters):
            raise Violation("S1", f"n{n} was elected in term {term} of {saved.record} by the votes of {voters}")
        self.count("elected")

    def _entered(self, n: int, term: int) -> None:
        if not self.world.processes[n].machine.active(self.world.local_us(n)):
            self.count("over before it was noted")  # it stood still between the step and this note
            return
        self.count("leadership entered")
        if not self.clocks_agree:
            return
        if term <= self._leadership_term:
            raise Violation("S3", f"n{n} became active in term {term} after term {self._leadership_term}")
        self._leadership_term = term
        record = self._disks[n].record
        parent = self._records[record.id][1]  # who becomes active may change the voters in the same step
        if record.id not in self._committed and parent not in self._committed:
            raise Violation("R7", f"n{n} is active, but only {self._acked.get(record.id)} have {record}")

    def published(self, n: int, term: int) -> None:
        """Somebody wrote to the registry; `world.registry` is what stands there."""
        registry, before = self.world.registry, self._registry
        self._registry = registry
        if registry[1] < before[1]:
            raise Violation("S3", f"the registry went from {before} back to {registry}")
        if term == registry[1] and registry[0] not in (0, n):
            raise Violation("S1", f"n{n} published itself for term {term}, which is {registry[0]}'s")

    def registry_flushed(self) -> None:
        self._registry = (0, 0)

    # -- leaderships --------------------------------------------------------------------------------------

    def stepped(self, n: int, process: SimulatedProcess) -> None:
        """After a step of `n` and its effects."""
        state = process.machine.state
        if state.saved != self._disks[n]:
            raise Violation("R1", f"n{n} knows what it has not saved")
        if state.leader_state is None:
            self.leading.discard(n)
            self._until_us.pop(n, None)
        else:
            self.leading.add(n)
            if state.leader_state.holds(self.world.local_us(n)):
                self._until_us[n] = self.world.true_us(n, state.leader_state.lease_lapses_us)
            else:
                self._until_us.pop(n, None)
        if not self.clocks_agree or not self._until_us:
            return
        if n in self._until_us:
            self._alone(n)
        promise = state.promise
        binding = (promise.to if promise is not None else 0, state.term, state.leader_state is None)
        if n in self._until_us or self._bindings.get(n) != binding:
            self._bindings[n] = binding
            if len(self.world.settings) <= _MOST_CHECKED:
                for holder, until_us in self._until_us.items():
                    if until_us > self.world.now_us:
                        self._rests(holder, self._disks[holder].record, until_us)

    def _alone(self, n: int) -> None:
        world = self.world
        holding = [r for r in self.leading if world.processes[r].machine.active(world.local_us(r))]
        if len(holding) > 1:
            raise Violation("S2", f"active at once: {sorted(holding)}")
        for other, theirs_us in self._until_us.items():
            if other != n and theirs_us > world.now_us:
                left_us = theirs_us - world.now_us
                raise Violation("S2", f"n{n} is active, and n{other} by its deadline for {left_us} us")

    def _rests(self, n: int, record: Record, until_us: int) -> None:
        """The lease of `n` must rest on a quorum, of the record or of the one before, that can't vote
        for anybody else while it runs."""
        bound = {v for v in record.voters if v != WITNESS and self._bound(v, n, until_us)}
        # The witness has no clock: whoever wins by its vote waits as long as a promise runs (R12). What is
        # forgotten votes for nobody.
        promise_us = self.world.settings[n].timing.promise_us
        if self._witness_acked_us.get(n, 0) + promise_us >= until_us or not self.world.redis.server.same(
            record.witness
        ):
            bound.add(WITNESS)
        if has_quorum(record.voters, bound):
            return
        parent = self._records[record.id][1]
        before = self._records[parent][0] if parent is not None else None
        if before is not None:
            bound |= {v for v in before.members if self._bound(v, n, until_us)}
        if before is None or not has_quorum(before.voters, bound):
            raise Violation("S2", f"the lease of n{n} rests on {sorted(bound)} of {record} only")

    def _bound(self, voter: int, controller: int, until_us: int) -> bool:
        process = self.world.processes.get(voter)
        if voter == controller or process is None:
            return True
        state = process.machine.state
        if not self._disks[controller].record.counts(voter, state.saved.epoch) or state.leaving:
            return True  # the epoch that is named never votes again
        ends_us, leader_state = state.grace_until_us, state.leader_state
        if ends_us == 0 and state.next_idle_us == NEVER_US:
            return True  # it has not begun yet
        if state.promise is not None and state.promise.to == controller:
            ends_us = max(ends_us, state.promise.until_us)
        if leader_state is not None and not leader_state.active_since_us:
            ends_us = max(ends_us, leader_state.promises_end_us)  # it keeps not active itself
        return ends_us > 0 and self.world.true_us(voter, ends_us) >= until_us

    # -- liveness -----------------------------------------------------------------------------------

    def unavailable(self) -> str:
        """Why those that run can never elect anybody, which is a row of the price tables in docs/protocol.md; "" when
        they can. Raises `Violation` when no row says so."""
        states = {n: process.machine.state for n, process in self.world.processes.items()}
        record = max((s.record for s in states.values()), key=lambda r: r.id)
        if not record.cluster_id:
            missing = set().union(*(s.addresses for s in states.values())) - states.keys()
            return "new nodes, one is missing" if missing else ""
        redis = self.world.redis
        kept = redis.server.handed_out if redis.up else None
        if kept is not None and kept.cluster_id == record.cluster_id and kept.id > record.id:
            record = kept  # whoever has it no more gets it from the witness (R12)
            self.count("record known to the witness alone")
        able = {n for n, s in states.items() if s.may_vote(record)}
        recognized = redis.up and redis.server.same(record.witness)
        if able and has_quorum(record.voters, {WITNESS, *able} if recognized else able):
            return ""
        return self._row(record, states, recognized)

    def _row(self, record: Record, states: dict[int, State], recognized: bool) -> str:
        """Which row of the tables it is that nobody can be elected under `record`, the newest one."""
        with_data = {n for n, s in states.items() if not s.is_new and record.epoch_of(n) in (-1, s.saved.epoch)}
        if not has_quorum(record.nodes, states):
            return "too few nodes"
        if not has_quorum(record.nodes, with_data):
            return "too many lost their data"
        left_out = set(record.nodes) - set(record.members)
        if left_out and record.witness is not None and not recognized:
            return "the last survivor is missing, and so is Redis' data"
        if record.witness is not None and not recognized and len(record.voters) % 2 == 0:
            return "the voters were changing, and Redis' data is missing"
        if left_out and record.witness is None:  # once all are up and Redis is, all must be voters again (tools/sim.py)
            if any(self.world.settings[n].dynamic for n in states):
                return "a voter died or lost its data while there was no witness"
            return "a member that was added, or lost its data, was no voter yet"
        if left_out and len(record.nodes) > 3:
            return "the last survivors of more than three are missing"
        raise Violation("L1", f"n{sorted(with_data)} of {record} are back with their data, and can't elect anybody")
