"""What can happen to a node: the input of `zelect.core.machine.Machine.step`.

Each is a frozen dataclass. A node makes them from sockets, Redis and signals; the simulator makes them
from a seed. `machine.EVENTS` says which function each goes to.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from zelect.core.messages import Envelope, Refusal
from zelect.core.quorum import Record, RecordId, Witness


class Evidence(StrEnum):
    """The kinds of first-hand proof of death (R9). No probe gives REAPED, a parent's word for its child;
    the checker uses it."""

    LOCK = "lock"
    REAPED = "reaped"
    REFUSED = "refused"
    RESTARTED = "restarted"


@dataclass(frozen=True, slots=True)
class Started:
    """The node is bound to its address and its loop runs."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A deadline may have passed. `late`: this iteration of the loop came more than half a heartbeat after its time
    (R14); what had arrived was read first, for a quarter of a heartbeat at most."""

    late: bool = False


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A well-formed message arrived."""

    envelope: Envelope


@dataclass(frozen=True, slots=True)
class ControllerHint:
    """The controller that Redis names at the start; 0 and term 0 when it names none. Only a hint."""

    controller: int
    term: int


@dataclass(frozen=True, slots=True)
class LinkUp:
    """The connection to `peer` finished its handshake."""

    peer: int


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The connection to `peer` closed."""

    peer: int


@dataclass(frozen=True, slots=True)
class PeerConnected:
    """Process `incarnation` of `peer` has a connection to this node, which it made itself and has spoken over."""

    peer: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class PeerDisconnected:
    """The last connection to this node that process `incarnation` of `peer` had made and spoken over closed."""

    peer: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class DeathProven:
    """A probe found `evidence` that process `incarnation` of `peer` is dead. The actor judges what it proves."""

    peer: int
    incarnation: int
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Leave:
    """The node was asked to leave (SIGTERM, SIGINT). Nobody acts in its leadership any more.
    `cluster_stop`: all nodes are being stopped, and are expected back (R11)."""

    cluster_stop: bool = False


@dataclass(frozen=True, slots=True)
class HealthChanged:
    """Whether the job that this node does while it is active can be done here (R8)."""

    healthy: bool


@dataclass(frozen=True, slots=True)
class JobEnded:
    """The job in the leadership that this guarded node left has ended (R6)."""


@dataclass(frozen=True, slots=True)
class PriorityChanged:
    """The operator gave this node another priority in the succession (R8)."""

    priority: int


@dataclass(frozen=True, slots=True)
class NamedProcess:
    """A process that the witness names: it acknowledged it as controller of `term`, or voted for it in
    `term`, and its lease may depend on that. `promise_ms`: one election timeout of that process."""

    node: int
    incarnation: int
    term: int
    promise_ms: int = 0


@dataclass(frozen=True, slots=True)
class WitnessVoted:
    """The witness answered a `WitnessVote`. `reason` is None exactly when granted. `term` is the witness's. `named`:
    the process that it acknowledged last, and those that it voted for since, any of which may hold a lease that depends
    on it (R7b, R12); with `many` there are more than it can name. `record`: the voter record that it has saved; None
    where it sent none."""

    pre: bool
    round: int
    reason: Refusal | None
    term: int
    named: tuple[NamedProcess, ...] = ()
    many: bool = False
    record: Record | None = None


@dataclass(frozen=True, slots=True)
class WitnessAnswered:
    """The witness answered a `WitnessPing` of `of_term` that named the record `record_id`. `reason` is
    None when it acknowledged; `term` is the witness's, `record` the one that it has saved (None where it
    sent none)."""

    number: int
    of_term: int
    record_id: RecordId
    reason: Refusal | None
    term: int
    record: Record | None = None


@dataclass(frozen=True, slots=True)
class WitnessCreated:
    """A new witness was created: this is its identity."""

    identity: Witness


@dataclass(frozen=True, slots=True)
class WitnessSeen:
    """The answer to a `WitnessLook` at `identity`. `ready`: Redis answers and could be a witness.
    `same`: it still is `identity`; meaningless without one. `record`: the voter record that it has saved,
    whatever its identity; None where there is none (R12)."""

    identity: Witness | None
    ready: bool
    same: bool
    record: Record | None = None


Event = (
    Started
    | Tick
    | MessageReceived
    | ControllerHint
    | LinkUp
    | LinkDown
    | PeerConnected
    | PeerDisconnected
    | DeathProven
    | Leave
    | HealthChanged
    | JobEnded
    | PriorityChanged
    | WitnessVoted
    | WitnessAnswered
    | WitnessCreated
    | WitnessSeen
)
