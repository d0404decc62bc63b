"""A node's own history on disk, for judging it afterwards; off unless `ZELECT_HISTORY` names a directory.

One JSON object a line in DIRECTORY/node<ID>.jsonl, each written at once and appended whole, so that
what was written stays whole whatever kills the process. Every line has `us` (the election's clock),
`node`, `incarnation`, `term` and `event`; where a fact has a field of such a name for something
else, the field is called `about_...`. Events: `node_started` and `node_ended`, every fact of the
machine under its own name, `saved` after a save of the vote file, `lease` when leadership reaches
further than before, `lease_ended` when it is over. An end is written before the step's effects
are carried out, everything else after them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from zelect.core.effects import Effects, Saved
from zelect.core.lease import Lease
from zelect.system.clock import now_us

HISTORY = "ZELECT_HISTORY"
"""Name of the environment variable."""

_OWN = ("us", "node", "incarnation", "event")


def open_history(directory: Path, name: str) -> int:
    """A descriptor to append whole lines to DIRECTORY/NAME.jsonl by. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    return os.open(directory / f"{name}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


class HistoryRecorder:
    """Writes the history of one node process. A write that fails ends the node with OSError: a
    history with holes would be judged wrongly."""

    def __init__(self, directory: Path, node: int, saved: Saved) -> None:
        self._node = node
        self._incarnation = saved.incarnation
        self._lease: Lease | None = None
        self._term = saved.term
        self._descriptor = open_history(directory, f"node{node}")
        self.write("node_started", pid=os.getpid())
        self._write_saved(saved)

    @classmethod
    def from_environment(cls, node: int, saved: Saved) -> HistoryRecorder | None:
        """The recorder that the environment asks for, if it does."""
        directory = os.environ.get(HISTORY, "")
        return cls(Path(directory), node, saved) if directory else None

    def before(self, lease: Lease | None, term: int) -> None:
        """A step was made and nothing of it is carried out yet. `lease`, `term`: the machine's after it."""
        self._term = term
        if lease is None and self._lease is not None:
            self._lease = None
            self.write("lease_ended")

    def after(self, lease: Lease | None, effects: Effects) -> None:
        """The step's effects are carried out."""
        if effects.save is not None:
            self._write_saved(effects.save)
        if lease != self._lease and lease is not None:
            self.write("lease", term=lease.term, lapses_us=lease.lapses_us, active_since_us=lease.active_since_us)
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
        os.write(self._descriptor, json.dumps(line, default=str).encode() + b"\n")

    def close(self) -> None:
        """The node ends, not active."""
        self.before(None, self._term)
        self.write("node_ended")
        os.close(self._descriptor)

    def _write_saved(self, saved: Saved) -> None:
        record = saved.record
        name = [record.generation, record.config_term, record.version]
        self.write("saved", term=saved.term, voted_for=saved.voted_for, record=name, epoch=saved.epoch)
