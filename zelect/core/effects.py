"""What a step asks the node to do: one value whose fields are in the order of execution.

The order is the contract (R1): `save` is durable before anything of `send` leaves, and nothing is published or reported
to the user before it was sent to the peers. A node that carries out the fields from top to bottom keeps it; etcd's
`Ready` has the same shape.

`FACTS` declares what a step may report to the log, the history and the metrics: each fact with its
fields and their types.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from zelect.core.election_trace import ElectionTrace
from zelect.core.messages import CommonResp, Envelope, Reason
from zelect.core.quorum import Addresses, Record, Witness
from zelect.core.status import NodeStatus


@dataclass(frozen=True, slots=True)
class Saved:
    """The durable state (R1): what a node must never forget while it may vote.

    `incarnation` is new at every start and grows. `voted_for` and `voted_epoch` are the vote given in
    `term`: a node with its storage epoch (0: none). `record` says who belongs and who votes; `NO_RECORD` in
    a new node. `epoch` is the storage epoch: the incarnation in which the node first saved anything. Data
    that is lost takes its epoch with it, and only the epoch that the record names may vote (R16).
    `founding` lists the members, with their epochs, of the newest founding that this node voted on (R15).
    `promise_ms` is the longest that a promise of this node may still last after a restart (R4).
    """

    term: int
    voted_for: int
    incarnation: int
    record: Record
    epoch: int = 0
    voted_epoch: int = 0
    founding: tuple[tuple[int, int], ...] = ()
    promise_ms: int = 0


@dataclass(frozen=True, slots=True)
class AskController:
    """Ask Redis which node is controller; the answer comes back as a `ControllerHint`."""


@dataclass(frozen=True, slots=True)
class PublishController:
    """Publish, or refresh, this node as controller; not to be carried out after `valid_until_us`.

    `active_since_us`: when it became active. `previous`: the previous controller (0: unknown), `gap_us`:
    time since that controller was last heard (-1: unknown). `trace`: how the election went. `cluster_id`: that of
    its voter record.
    """

    term: int
    active_since_us: int
    valid_until_us: int
    previous: int
    reason: Reason
    gap_us: int
    trace: ElectionTrace
    cluster_id: int = 0


@dataclass(frozen=True, slots=True)
class WithdrawController:
    """This node stopped being active in `term`: remove its published record if it is still there."""

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
    """A graceful leave. `last`: this node knows of no other living member."""

    last: bool


Intent = AskController | PublishController | WithdrawController | PublishNode | MarkOffline | Depart
"""What the registry in Redis is asked to do (R13)."""


@dataclass(frozen=True, slots=True)
class WitnessVote:
    """Ask the witness `identity` for its vote, or (`pre`) whether it would give it (R12)."""

    identity: Witness
    pre: bool
    round: int
    term_sought: int
    record: Record


@dataclass(frozen=True, slots=True)
class WitnessPing:
    """Ask the witness `identity` to acknowledge this controller of `term`; the answer counts like
    a PONG to PING `number`, and as having saved `record`."""

    identity: Witness
    term: int
    number: int
    record: Record


@dataclass(frozen=True, slots=True)
class WitnessCreate:
    """Create a new witness under `key` for the controller of `term`. It has voted for nobody."""

    key: str
    term: int
    record: Record


@dataclass(frozen=True, slots=True)
class WitnessLook:
    """Find out whether Redis could serve as witness, and whether it still is `identity`."""

    identity: Witness | None


WitnessIntent = WitnessVote | WitnessPing | WitnessCreate | WitnessLook
"""What the witness is asked; each answer comes back as an event."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Find out whether process `incarnation` of `peer` is dead (R9)."""

    peer: int
    incarnation: int


_OR_NONE = type(None)
_VOTE = {"candidate": int, "term": int, "pre": bool, "reason": str, "election_reason": str, "again": bool}

FACTS: dict[str, Mapping[str, type | tuple[type, ...]]] = {
    # this node
    "machine_started": {"term": int, "incarnation": int, "may_vote": bool},
    "status_changed": {"status": str},
    "health_changed": {"healthy": bool},
    "priority_changed": {"priority": int},
    "admin_command_received": {"what": str, "result": str, "detail": str, "asked": str},
    "leave_announced": {},
    # peers
    "link_opened": {"peer": int},
    "link_closed": {"peer": int},
    "peer_online": {"peer": int, "incarnation": int},
    "peer_left": {"peer": int, "reason": str},
    "peer_died": {"peer": int, "evidence": str},
    "death_contradicted": {"peer": int, "evidence": str},
    "peer_unresponsive": {"peer": int},
    "peer_lost_state": {"sender": int, "epoch": int},
    "address_learned": {"peer": int, "said": str, "before": str},
    "address_refused": {"peer": int, "said": str, "other": int},
    # messages that changed nothing
    "message_refused": {"sender": int, "reason": str},
    "error_received": {"sender": int, "result": str, "detail": str, "generation": (int, _OR_NONE)},
    "stale_pong_ignored": {"sender": int, "number": int},
    "stale_answer_ignored": {"voter": int},
    "foreign_answer_ignored": {"voter": int},
    # elections
    "campaign_began": {"term": int, "reason": str, "attempt": int},
    "pre_vote_won": {"term": int, "took_ms": float},
    "campaign_failed": {"term": int, "pre": bool, "answers": dict},
    "vote_granted": _VOTE,
    "vote_refused": _VOTE,
    "vote_answered": {"voter": int, "term": int, "pre": bool, "granted": bool, "reason": str},
    "witness_answered": {"term": int, "pre": bool, "reason": str, "named": tuple, "waits": bool},
    "elected": {"term": int, "votes": int, "took_ms": float},
    "election_abandoned": {"term": int, "why": str},
    # leadership
    "became_active": {
        "term": int,
        "reason": str,
        "previous": int,
        "gap_ms": (float, _OR_NONE),
        "elected_to_active_ms": float,
        "asked": (str, _OR_NONE),
    },
    "leadership_suspended": {"term": int},
    "leadership_resumed": {"term": int},
    "stopped_being_active": {"term": int, "why": str, "lease_ended_ms_ago": float},
    "leadership_vacated": {"term": int},
    "leadership_handed_over": {"controller": int, "term": int, "successor": int},
    "controller_followed": {"controller": int, "term": int},
    "controller_lost": {"controller": int, "term": int, "why": str, "heard_ms": float},
    "conflicting_controller_seen": {"sender": int, "term": int},
    "waiting_controller_seen": {"sender": int, "term": int},
    # voters and witness
    "voting_right_granted": {"config_term": int, "version": int},
    "voting_right_lost": {"config_term": int, "version": int},
    "voters_changed": {"version": int, "members": tuple, "witness": bool},
    "cluster_founded": {"cluster_id": str, "members": tuple},
    "cluster_joined": {"cluster_id": str, "config_term": int, "version": int},
    "member_added": {"peer": int, "address": str},
    "member_removed": {"peer": int},
    "member_replaced": {"peer": int, "address": str},
    "cluster_heard": {"sender": int, "cluster_id": str},
    "epoch_raised": {"epoch": int, "heard": int},
    "older_copy_found": {"saves": int, "heard": int},
    "bootstrap_accepted": {"members": tuple},
    "voters_reset": {"generation": int, "members": tuple},
    "witness_created": {"key": str},
    "witness_refused": {"number": int, "reason": str, "term": int},
    "witness_seen": {"ready": bool, "same": bool},
}
"""Every fact by name, with its fields; `Step.note` checks each. A field whose type admits None may be left out."""


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happened, named in the past tense, for the log and the history."""

    name: str
    fields: tuple[tuple[str, object], ...]


@dataclass(frozen=True, slots=True)
class Effects:
    """Carry out from top to bottom. `connect`: the peers to hold connections to from now on, with their
    addresses; None: as before."""

    save: Saved | None = None
    connect: Addresses | None = None
    send: tuple[tuple[int, Envelope], ...] = ()
    witness: tuple[WitnessIntent, ...] = ()
    publish: tuple[Intent, ...] = ()
    probe: tuple[Probe, ...] = ()
    answer: NodeStatus | CommonResp | None = None
    facts: tuple[Fact, ...] = ()
    leave: bool = False
