"""Recorded histories as modules of TLA+, which TLC accepts or rejects (spec/Trace.tla).

A history is what all nodes of a cluster wrote (`zelect.node.history_recorder`), in the order of their times. Storage
epochs, cluster ids, generations and identities of the witness become small numbers in the same order; everything
else stays as it was recorded. The end of a lease is a step of its own, at the time that the lease itself names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Line = Mapping[str, Any]
"""One line of a history, as it was read."""

WITNESS = 0
_NEVER = 1 << 62
_MOST = 1 << 30
"""TLC counts with 32 bits."""
_ROLES = {"pre_candidate": "follower"}
_NEW = "[epoch |-> 0, term |-> 0, vote |-> Nobody, record |-> NoRecord, founding |-> {}]"


class NoTrace(Exception):
    """The lines are no history that could be checked: the message says why."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a trace: its text in TLA+, and the line that it comes from."""

    text: str
    line: Line


@dataclass
class Trace:
    """One history. `first`: what each node had saved in the beginning."""

    first: Mapping[int, str]
    steps: Sequence[Step]
    lines: int = 0


def _quoted(node: int) -> str:
    return f'"n{node}"'


def _process(node: int, epoch: int) -> str:
    return f"<<{_quoted(node)}, {epoch}>>"


def _set(values: Iterable[str]) -> str:
    return "{" + ", ".join(values) + "}"


@dataclass
class _Names:
    """Small numbers for large ones, in the same order."""

    epochs: dict[int, dict[int, int]] = field(default_factory=dict)
    clusters: dict[int, int] = field(default_factory=dict)
    generations: dict[int, int] = field(default_factory=dict)
    witnesses: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, lines: Sequence[Line]) -> _Names:
        epochs: dict[int, set[int]] = {}
        clusters, generations, witnesses = list[int](), {0}, list[str]()
        for line in lines:
            if line["event"] == "saved":
                named = [(line["node"], line["epoch"]), (line["voted_for"], line["voted_epoch"])]
                for node, epoch in (*named, *line["voters"], *line["founding"]):
                    epochs.setdefault(node, set()).add(epoch)
                clusters.append(line["cluster_id"])
                generations.add(line["record"][0])
                witnesses.append(line["witness"])
            witnesses.append(line.get("identity", ""))
        names = cls(
            epochs={node: {epoch: i for i, epoch in enumerate(sorted(known), 1)} for node, known in epochs.items()},
            generations={generation: i for i, generation in enumerate(sorted(generations))},
        )
        for cluster in clusters:
            names.clusters.setdefault(cluster, len(names.clusters) + 1)
        for witness in filter(None, witnesses):
            names.witnesses.setdefault(witness, len(names.witnesses) + 1)
        return names

    def voter(self, node: int, epoch: int) -> str:
        return _process(node, self.epochs[node][epoch])

    def voters(self, pairs: Iterable[tuple[int, int]]) -> str:
        return _set(self.voter(node, epoch) for node, epoch in pairs)

    def witness(self, identity: str) -> str:
        return f'<<"witness", {self.witnesses[identity]}>>'


class _Writer:
    """Makes the steps of one history."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.names = _Names.of(lines)
        self.first: dict[int, str] = {}
        self.steps: list[Step] = []
        self._shown: dict[int, tuple[str, str]] = {}  # by node: epoch, and what else is durable
        self._records: dict[int, Line] = {}  # by node: the line that shows its record
        self._starting: set[int] = set()
        self._lapses_us: dict[int, int] = {}
        self._leases: dict[int, str] = {}
        self._asked: dict[tuple[object, ...], int] = {}
        self._last = _last_lines(lines)
        self._newest = {(line["node"], line["incarnation"]): line for line in lines}
        for line in _renewed_first(lines):
            self._end_leases(line)
            self._line(line)
            if self._last.get((line["node"], line["incarnation"])) is line and line["node"] in self._leases:
                self._end(line["node"], line)  # its process is dead

    def _end_leases(self, line: Line) -> None:
        for node, us in sorted(self._lapses_us.items(), key=lambda item: item[1]):
            if us <= line["us"]:
                self._end(node, line)

    def _end(self, node: int, line: Line) -> None:
        self._lapses_us.pop(node, None)
        if self._leases.pop(node, ""):
            self._step(f'do |-> "end", node |-> {_quoted(node)}', line)

    def _step(self, text: str, line: Line) -> None:
        self.steps.append(Step(f"[{text}]", line))

    def _line(self, line: Line) -> None:
        handle = getattr(self, f"_on_{line['event']}", None)
        if handle is not None:
            handle(line)

    def _on_node_started(self, line: Line) -> None:
        self._end(line["node"], line)
        self._starting.add(line["node"])

    def _on_node_ended(self, line: Line) -> None:
        self._end(line["node"], line)

    _on_lease_ended = _on_node_ended

    def _on_saved(self, line: Line) -> None:
        node, starts = line["node"], line["node"] in self._starting
        epoch, durable = self._durable(line)
        shown = self._shown.get(node)
        self._shown[node] = (epoch, durable)
        before, self._records[node] = self._records.get(node, line), line
        self._starting.discard(node)
        # Where the vote is not saved with it, the answer to a PING is a step of its own.
        at_once = line["acknowledges"] and line["cluster_id"] and line["voted_for"]
        acknowledges = _quoted(line["acknowledges"]) if at_once else '""'
        told = line["acknowledges"] and not (at_once and durable != (shown or ("", ""))[1])
        text = f"node |-> {_quoted(node)}, epoch |-> {epoch}, {durable}, ack |-> {acknowledges}"
        if shown is None:
            self.first[node] = f"[epoch |-> {epoch}, {durable}]"
        elif starts:
            self._step(f'do |-> "start", {text}, parts |-> TRUE', line)
        elif epoch != shown[0]:
            self._step(f'do |-> "lost", {text}', line)
        elif durable != shown[1]:
            changes = before["role"] == line["role"] == "elected" and before["record"] != line["record"]
            if changes and self._newest[node, line["incarnation"]] is line:
                # It was killed before it noted that it had become active, which it must be to change the record.
                self._step(_became_active(node), line)
            role = _ROLES.get(line["role"], line["role"])
            parts = before["term"] != line["term"] and before["record"] != line["record"]
            self._step(f'do |-> "save", {text}, role |-> "{role}", parts |-> {str(parts).upper()}', line)
        if told and not starts and shown is not None:
            self._on_acknowledged(line)

    def _on_acknowledged(self, line: Line) -> None:
        what = (
            "ack" if self._records[line["node"]]["cluster_id"] else "promise"
        )  # a new node takes no record that does not name it
        node, to = _quoted(line["node"]), _quoted(line["acknowledges"])
        self._step(f'do |-> "{what}", node |-> {node}, ack |-> {to}, term |-> {_small(line["term"])}', line)

    def _on_lease(self, line: Line) -> None:
        node, record = line["node"], self._records[line["node"]]
        if line["lapses_us"] <= line["us"]:
            # Over before it was written, because the disk is slow. It had become active all the same.
            if not self.steps or self.steps[-1].text != f"[{_became_active(node)}]":
                self._step(_became_active(node), line)
            return
        epochs, witness = dict(record["voters"]), record["witness"]
        on = [self.names.voter(voter, epochs[voter]) for voter in line["rests_on"] if voter in epochs]
        on += [self.names.witness(witness)] if WITNESS in line["rests_on"] and witness else []
        self._lapses_us[node], self._leases[node] = line["lapses_us"], _set(on)
        text = f'do |-> "lease", node |-> {_quoted(node)}, on |-> {_set(on)}'
        if not self.steps or self.steps[-1].text != f"[{text}]":
            self._step(text, line)

    def _on_witness_asked(self, line: Line) -> None:
        process = (line["node"], line["incarnation"], line["what"], line["number"], line["term"])
        self._asked[process] = len(self._asked) + 1
        node, identity = _quoted(line["node"]), self.names.witnesses[line["identity"]]
        self._step(f'do |-> "ask", node |-> {node}, kind |-> "{line["what"]}", identity |-> {identity}', line)

    def _on_witness_told(self, line: Line) -> None:
        node = line["node"]
        if line["what"] == "CREATE":
            identity, record = self.names.witnesses[line["identity"]], self._record(self._records[node])
            term = _small(line["term"])
            self._step(f'do |-> "created", identity |-> {identity}, term |-> {term}, record |-> {record}', line)
            return
        numbers = [
            number
            for (asker, incarnation, what, asked, term), number in self._asked.items()
            if (asker, incarnation, what, asked) == (node, line["incarnation"], line["what"], line["number"])
            and line.get("of_term", term) == term
        ]
        if not numbers:
            raise NoTrace(f"node {node} was told by Redis what it had not asked: {line}")
        self._step(f'do |-> "told", number |-> {numbers[-1]}', line)

    def _durable(self, line: Line) -> tuple[str, str]:
        names, vote = self.names, "Nobody"
        if line["voted_for"]:
            vote = names.voter(line["voted_for"], line["voted_epoch"])
        epoch = str(names.epochs[line["node"]][line["epoch"]])
        founding = names.voters(line["founding"])
        term = _small(line["term"])
        return epoch, f"term |-> {term}, vote |-> {vote}, record |-> {self._record(line)}, founding |-> {founding}"

    def _record(self, line: Line) -> str:
        if not line["cluster_id"]:
            return "NoRecord"
        generation, config_term, version = line["record"]
        return (
            f'[cluster_id |-> <<"cluster", {self.names.clusters[line["cluster_id"]]}>>, '
            f"generation |-> {self.names.generations[generation]}, config_term |-> {_small(config_term)}, "
            f"version |-> {_small(version)}, voters |-> {self._voters(line)}]"
        )

    def _voters(self, line: Line) -> str:
        voters = [self.names.voter(node, epoch) for node, epoch in line["voters"]]
        voters += [self.names.witness(line["witness"])] if line["witness"] else []
        return _set(voters)


def _became_active(node: int) -> str:
    return f'do |-> "active", node |-> {_quoted(node)}'


def _small(number: int) -> int:
    if number >= _MOST:
        raise NoTrace(f"{number} is more than TLC can count")
    return number


def _renewed_first(lines: Sequence[Line]) -> list[Line]:
    """The lines, with a lease before the change of the record that was made in the same step: only who is active may
    change it, so that answers to the record before had renewed the lease. The node wrote it last."""
    places, shown, changes = list[float](range(len(lines))), dict[int, Line](), dict[int, tuple[int, Line]]()
    for at, line in enumerate(lines):
        node, event = line["node"], line["event"]
        if event == "lease" and node in changes and _is_quorum(line["rests_on"], changes[node][1]):
            places[at] = changes[node][0] - 0.5
        if event not in ("witness_asked", "acknowledged"):
            changes.pop(node, None)
        if event == "saved":
            before, shown[node] = shown.get(node, line), line
            if before["role"] == line["role"] == "elected" and before["record"] != line["record"]:
                changes[node] = at, before
    return [lines[at] for at in sorted(range(len(lines)), key=places.__getitem__)]


def _is_quorum(nodes: Sequence[int], shown: Line) -> bool:
    voters = {node for node, _ in shown["voters"]} | ({WITNESS} if shown["witness"] else set())
    return 2 * len(voters & set(nodes)) > len(voters)


def _last_lines(lines: Sequence[Line]) -> dict[tuple[int, int], Line]:
    """The last line of each process that is known to be dead: by a later start of its node, or because another found
    proof of its death and it wrote nothing afterwards."""
    last = {(line["node"], line["incarnation"]): line for line in lines}
    newest: dict[int, int] = {}
    dead: dict[tuple[int, int], Line] = {}
    ended = set[int]()
    for line in lines:
        if line["event"] == "node_started":
            known = (line["node"], newest.get(line["node"], 0))
            if known in last:
                dead[known] = last[known]
            newest[line["node"]] = line["incarnation"]
        elif line["event"] == "peer_died":
            known = (line["peer"], newest.get(line["peer"], 0))
            if known in last and id(last[known]) in ended:
                dead[known] = last[known]
        ended.add(id(line))
    return dead


def trace_of(lines: Iterable[Line]) -> Trace:
    """The trace of one cluster's history, `lines` in any order. Raises `NoTrace`."""
    ordered = sorted((line for line in lines if line["node"]), key=lambda line: int(line["us"]))
    if not any(line["event"] == "saved" for line in ordered):
        raise NoTrace("no node has saved anything")
    writer = _Writer(ordered)
    return Trace(writer.first, writer.steps, len(ordered))


def module_of(traces: Sequence[Trace]) -> str:
    """The module Histories, with all of `traces`."""
    nodes = nodes_of(traces)
    records: dict[str, str] = {}
    parts = list[str]()
    for number, trace in enumerate(traces, 1):
        first = ", ".join(f"n{node} |-> {trace.first.get(node, _NEW)}" for node in nodes)
        steps = ",\n  ".join(step.text for step in trace.steps)
        parts.append(f"History{number} == [first |-> [{first}],\n  steps |-> <<\n  {steps}>>]\n")
    text = "".join(parts)
    named = "".join(f"{name} == {record}\n" for record, name in records.items())
    everything = ", ".join(f"History{number}" for number in range(1, len(traces) + 1))
    return f"---- MODULE Histories ----\nEXTENDS Trace\n{named}{text}Everything == <<{everything}>>\n====\n"


def nodes_of(traces: Sequence[Trace]) -> list[int]:
    """All nodes of `traces`."""
    return sorted({node for trace in traces for node in trace.first})


def configuration(traces: Sequence[Trace]) -> str:
    """The text of TLC's configuration file."""
    nodes = _set(_quoted(node) for node in nodes_of(traces))
    return f"""SPECIFICATION TraceSpec
CONSTANTS
  Traces <- Everything
  Node = {nodes}
  Lists = "any"
  Founded = {{}}
  WithWitness = FALSE
  MaxTerm = {_MOST}
  MaxVersion = {_MOST}
  MaxLoss = 0
  MaxFlush = 0
  MaxReset = 0
  MaxLies = 0
  Late = TRUE
  Off = {{"sameList"}}
  Policy = FALSE
  Deaths = "any"
CONSTRAINT Followed
"""
