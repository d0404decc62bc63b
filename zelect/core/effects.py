"""What a step asks the world to do: one value whose fields stand in the order of execution.

The order is the contract (R1): `save` is durable before anything of `send` leaves, and nothing is
published or told to the user that was not said to the peers first. A shell that carries out the
fields from top to bottom cannot break it; etcd's `Ready` has the same shape.
"""

from __future__ import annotations

from dataclasses import dataclass

from zelect.core.election_trace import ElectionTrace
from zelect.core.messages import CommonResp, Envelope, Reason
from zelect.core.quorum import Record, RecordId, Witness
from zelect.core.status import NodeStatus

__all__ = [
    "AskController",
    "Depart",
    "Effects",
    "Fact",
    "Intent",
    "MarkOffline",
    "Probe",
    "PublishController",
    "PublishNode",
    "Saved",
    "WithdrawController",
    "WitnessCreate",
    "WitnessIntent",
    "WitnessLook",
    "WitnessPing",
    "WitnessVote",
]


@dataclass(frozen=True, slots=True)
class Saved:
    """The durable state (R1): what a node may never forget while it votes.

    `incarnation` is new at every start and grows; `voted_for` is the vote given in `term`
    (0: none); `record` is the voters. `lost state`: the node knows that it lost what
    it saved before. `life` begins with a memory and ends with it: the incarnation in which the node
    first saved anything. Only the life that the record names votes.
    """

    term: int
    voted_for: int
    incarnation: int
    record: Record
    lost_state: bool = False
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class AskController:
    """Ask Redis who is controller; the answer comes back as a `ControllerHint`."""


@dataclass(frozen=True, slots=True)
class PublishController:
    """Publish, or refresh, this node as controller. LeaseOver once `valid_until_us` has passed.

    `active_since_us`: when it became active. `previous`: the controller before (0: unknown), `gap_us`:
    time since that controller was last heard (-1: unknown). `story`: how the election went.
    """

    term: int
    active_since_us: int
    valid_until_us: int
    previous: int
    reason: Reason
    gap_us: int
    trace: ElectionTrace


@dataclass(frozen=True, slots=True)
class WithdrawController:
    """This node stopped being active of `term`; take its record away if it still stands."""

    term: int
    reason: str


@dataclass(frozen=True, slots=True)
class PublishNode:
    """Publish, or refresh, this node's own entry."""

    role: str
    status: str
    term: int


@dataclass(frozen=True, slots=True)
class MarkOffline:
    """The controller of `term` knows that `node` is offline."""

    node: int
    term: int


@dataclass(frozen=True, slots=True)
class Depart:
    """This node leaves in good order. `last`: it knows of no other living member."""

    last: bool


Intent = AskController | PublishController | WithdrawController | PublishNode | MarkOffline | Depart
"""What the store is asked to do."""


@dataclass(frozen=True, slots=True)
class WitnessVote:
    """Ask the witness `identity` for its vote, or (`pre`) whether it would give it (R12)."""

    identity: Witness
    pre: bool
    round: int
    term_sought: int
    record_id: RecordId


@dataclass(frozen=True, slots=True)
class WitnessPing:
    """Ask the witness `identity` to acknowledge this controller of `term`; the answer counts like
    a PONG to PING `number`, and as having saved the record `record_id`."""

    identity: Witness
    term: int
    number: int
    record_id: RecordId


@dataclass(frozen=True, slots=True)
class WitnessCreate:
    """Begin a new memory under `key` for the controller of `term`: nobody's vote is in it."""

    key: str
    term: int
    record_id: RecordId


@dataclass(frozen=True, slots=True)
class WitnessLook:
    """See whether Redis could serve as witness, and whether it still is `identity`."""

    identity: Witness | None


WitnessIntent = WitnessVote | WitnessPing | WitnessCreate | WitnessLook
"""What the witness is asked; each answer comes back as an event."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Find out whether process `incarnation` of `peer` is dead (R9)."""

    peer: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happened, named in the past tense, for the log and the history."""

    name: str
    fields: tuple[tuple[str, object], ...]


@dataclass(frozen=True, slots=True)
class Effects:
    """Carry out from top to bottom."""

    save: Saved | None = None
    send: tuple[tuple[int, Envelope], ...] = ()
    witness: tuple[WitnessIntent, ...] = ()
    publish: tuple[Intent, ...] = ()
    probe: tuple[Probe, ...] = ()
    answer: NodeStatus | CommonResp | None = None
    facts: tuple[Fact, ...] = ()
    leave: bool = False
