"""A node's own history on disk, for judging it afterwards; off unless `ZELECT_HISTORY` names a directory.

One JSON object a line in DIRECTORY/node<ID>.jsonl, each written at once and appended whole, so that
what was written stays whole whatever kills the process. Every line has `us` (the election's clock),
`node`, `incarnation`, `term` and `event`; where a fact has a field of such a name for something
else, the field is called `about_...`. In the order in which they are written within a step:

    witness_told      before anything of the step: Redis answered what `witness_asked` asked, and granted it
    lease_ended       leadership is over
    saved             after a save of the vote file, before anything is sent: all that the specification knows of
                      a node; `acknowledges`: the controller whose PING it answers in the same step (0: none)
    acknowledged      before it is sent: the answer to a PING, unless the one before said the same
    witness_asked     before it is asked: for its vote (VOTING) or its acknowledgement (PING)
    lease             after all of the step: leadership reaches further than before; `rests_on`: by whose answers

Further events: `node_started` and `node_ended`, and every fact of the machine under its own name, after its step.
What is written before it is sent stands before whatever another node writes because of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from zelect.core.effects import Effects, Saved, WitnessPing, WitnessVote
from zelect.core.events import Event, WitnessAnswered, WitnessCreated, WitnessVoted
from zelect.core.lease import Lease
from zelect.core.messages import Pong
from zelect.core.quorum import RecordId, Witness
from zelect.core.state import State
from zelect.system.clock import now_us

HISTORY = "ZELECT_HISTORY"
"""Name of the environment variable."""

_OWN = ("us", "node", "incarnation", "event")


def open_history(directory: Path, name: str) -> int:
    """A descriptor to append whole lines to DIRECTORY/NAME.jsonl by. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    return os.open(directory / f"{name}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


class HistoryRecorder:
    """Writes the history of one node process, a line at a time, with `append`. A write that fails ends the node with
    OSError: a history with holes would be judged wrongly. `descriptor` is closed in the end, if there is one."""

    def __init__(self, append: Callable[[bytes], object], node: int, saved: Saved, descriptor: int = -1) -> None:
        self._append = append
        self._descriptor = descriptor
        self._node = node
        self._incarnation = saved.incarnation
        self._lease: Lease | None = None
        self._term = saved.term
        self._acknowledged: tuple[int, int, RecordId] = (0, 0, (0, 0, 0))
        self.write("node_started", pid=os.getpid())
        self._write_saved(saved, "follower", 0)

    @classmethod
    def from_environment(cls, node: int, saved: Saved) -> HistoryRecorder | None:
        """The recorder that the environment asks for, if it does."""
        directory = os.environ.get(HISTORY, "")
        if not directory:
            return None
        descriptor = open_history(Path(directory), f"node{node}")
        return cls(lambda line: os.write(descriptor, line), node, saved, descriptor)

    def before(self, event: Event, state: State) -> None:
        """A step was made because of `event`, and nothing of it is carried out yet. `state`: after it."""
        self._term = state.term
        if isinstance(event, WitnessVoted) and event.reason is None and not event.pre:
            self.write("witness_told", what="VOTING", number=event.round)
        elif isinstance(event, WitnessAnswered) and event.reason is None:
            self.write("witness_told", what="PING", number=event.number, of_term=event.of_term)
        elif isinstance(event, WitnessCreated):
            self.write("witness_told", what="CREATE", identity=_name(event.identity))
        if self._lease is not None and _lease_of(state) is None:
            self._end_lease()

    def saved(self, effects: Effects, state: State) -> None:
        """What there was to save is saved, and nothing is sent yet."""
        acknowledges = 0
        for to, envelope in effects.send:
            message = envelope.message
            if isinstance(message, Pong) and message.number and message.of_term == envelope.term:
                told = (to, message.of_term, message.record_id)
                if told != self._acknowledged or effects.save is not None:
                    self._acknowledged, acknowledges = told, to
        if effects.save is not None:
            self._write_saved(effects.save, state.role.value, acknowledges)
        elif acknowledges:
            self.write("acknowledged", acknowledges=acknowledges)
        for intent in effects.witness:
            if isinstance(intent, WitnessVote) and not intent.pre:
                self.write("witness_asked", what="VOTING", number=intent.round, identity=_name(intent.identity))
            elif isinstance(intent, WitnessPing):
                self.write("witness_asked", what="PING", number=intent.number, identity=_name(intent.identity))

    def after(self, effects: Effects, state: State) -> None:
        """The step's effects are carried out."""
        lease, leads = _lease_of(state), state.leader_state
        if lease != self._lease and lease is not None and leads is not None:
            rests_on = sorted(voter for voter, sent_us in leads.answered_us.items() if sent_us >= leads.renewed_us)
            self.write(
                "lease",
                term=lease.term,
                lapses_us=lease.lapses_us,
                active_since_us=lease.active_since_us,
                rests_on=rests_on,
            )
        self._lease = lease
        for fact in effects.facts:
            self.write(fact.name, **dict(fact.fields))

    def write(self, event: str, **fields: object) -> None:
        """Append one line."""
        line: dict[str, object] = {
            "us": now_us(),
            "node": self._node,
            "incarnation": self._incarnation,
            "term": self._term,
            "event": event,
        }
        line |= {f"about_{key}" if key in _OWN else key: value for key, value in fields.items()}
        self._append(json.dumps(line, default=str).encode() + b"\n")

    def close(self) -> None:
        """The node ends, not active."""
        if self._lease is not None:
            self._end_lease()
        self.write("node_ended")
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def _end_lease(self) -> None:
        self._lease = None
        self.write("lease_ended")

    def _write_saved(self, saved: Saved, role: str, acknowledges: int) -> None:
        record = saved.record
        self.write(
            "saved",
            term=saved.term,
            voted_for=saved.voted_for,
            voted_epoch=saved.voted_epoch,
            record=list(record.id),
            cluster_id=record.cluster_id,
            voters=list(record.named().items()),
            witness=_name(record.witness),
            epoch=saved.epoch,
            founding=saved.founding,
            role=role,
            acknowledges=acknowledges,
        )


def _lease_of(state: State) -> Lease | None:
    return None if state.leader_state is None else state.leader_state.lease


def _name(witness: Witness | None) -> str:
    return "" if witness is None else f"{witness.key} {witness.run_id} {witness.replid}"
