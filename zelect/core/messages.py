"""The messages, one frozen dataclass per type, checked when constructed.

A value of one of these classes is well-formed by construction: whoever holds one need not look
at its types or ranges again. What does not fit raises `MalformedMessage`, which always means that
the peer misbehaved, never a bug here.

The codes 0x00 to 0x07 are fixed by the protocol's first version (docs/protocol.md, table of
messages). `Envelope` holds what all messages share; `incarnation` and `settings` stand in it, and
not in single messages, so that answers of a process that has died since, and nodes that were
configured otherwise, are refused once, at the gate.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from zelect.core.admin_messages import MAX_FOR_MS, AdminAction, AdminCommand, Query, Report, Reset
from zelect.core.quorum import Record
from zelect.core.timing import MAX_TERM
from zelect.core.validation import (
    MAX_NUMBER,
    MalformedMessage,
    check_bool,
    check_int,
    check_member,
    check_node,
    check_nodes,
    check_record,
    check_record_id,
    check_text,
)

__all__ = [
    "COOLING_DOWN",
    "MAX_FOR_MS",
    "MESSAGES",
    "PROTOCOL_VERSION",
    "TEMPORARY",
    "UNHEALTHY",
    "AdminAction",
    "AdminCommand",
    "CommonResp",
    "Envelope",
    "Handover",
    "MalformedMessage",
    "Message",
    "NodeOffline",
    "NodeOnline",
    "NodeOnlineResp",
    "Ping",
    "Pong",
    "Query",
    "Reason",
    "Refusal",
    "Report",
    "Reset",
    "Result",
    "Type",
    "VotResp",
    "Voting",
    "type_of",
]

PROTOCOL_VERSION = 1
COOLING_DOWN = -1
"""The priority that a member tells while it was asked to stay not active: it goes last (R8)."""
UNHEALTHY = -2
"""The priority that a member tells while its job can't be done there: it goes after the last."""


class Type(IntEnum):
    """Type codes on the wire."""

    COMMON_RESP = 0x00
    PING = 0x01
    PONG = 0x02
    VOTING = 0x03
    VOT_RESP = 0x04
    NODE_OFFLINE = 0x05
    NODE_ONLINE = 0x06
    NODE_ONLINE_RESP = 0x07
    QUERY = 0x08
    REPORT = 0x09
    HANDOVER = 0x0A
    RESET = 0x0B
    ADMIN = 0x0C


class Refusal(StrEnum):
    """Why a vote was refused; every refusal on the wire carries one."""

    OLD_TERM = "old_term"
    VOTED = "voted"
    PROMISED = "promised"
    GRACE_PERIOD = "grace_period"
    LOST_STATE = "lost_state"
    LEAVING = "leaving"
    NOT_MEMBER = "not_member"
    UNRECOGNIZED = "unrecognized"
    UNREACHABLE = "unreachable"
    STALE_VOTERS = "stale_voters"


TEMPORARY = frozenset({Refusal.PROMISED, Refusal.GRACE_PERIOD})
"""Refusals that time alone takes back."""


class Reason(StrEnum):
    """Why a candidate campaigns."""

    START = "start"
    TIMEOUT = "timeout"
    DEATH = "death"
    LEAVE = "leave"
    HANDOVER = "handover"


class Result(StrEnum):
    """Outcome in a COMMON_RESP: success or a typed error."""

    OK = "ok"
    UNHANDLED = "unhandled"
    ID_IN_USE = "id_in_use"
    ADDRESS_MISMATCH = "address_mismatch"
    SETTINGS_MISMATCH = "settings_mismatch"
    TERM_JUMP = "term_jump"
    OTHER_GENERATION = "other_generation"
    OLD_INCARNATION = "old_incarnation"
    FORBIDDEN = "forbidden"
    NOT_CONTROLLER = "not_controller"
    PAUSED = "paused"
    INELIGIBLE = "ineligible"


@dataclass(frozen=True, slots=True)
class CommonResp:
    """0x00. A plain answer to a message of type code `about`: success or a typed error."""

    about: int
    result: Result
    detail: str

    def __post_init__(self) -> None:
        check_int("about", self.about, 0, 255)
        check_member("result", self.result, Result)
        check_text("detail", self.detail)


@dataclass(frozen=True, slots=True)
class Ping:
    """0x01. Heartbeat. Numbered from 1 by a controller, which sends its voters and the order
    of succession along; number 0, with neither, among idle peers."""

    number: int
    active: bool
    record: Record | None
    succession: tuple[int, ...]

    def __post_init__(self) -> None:
        check_int("number", self.number, 0, MAX_NUMBER)
        check_bool("active", self.active)
        check_record("record", self.record, optional=True)
        check_nodes("succession", self.succession)
        if (self.number > 0) != (self.record is not None):
            raise MalformedMessage("bad_field", "a numbered PING, and no other, carries a record")


@dataclass(frozen=True, slots=True)
class Pong:
    """0x02. Answer to PING `number` of term `of_term`, which may be older than the sender's; names
    the voter record that the sender has saved, its priority in the succession, and its life."""

    number: int
    of_term: int
    record_id: tuple[int, int, int]
    priority: int
    epoch: int

    def __post_init__(self) -> None:
        check_int("number", self.number, 0, MAX_NUMBER)
        check_int("of_term", self.of_term, 0, MAX_TERM)
        check_record_id("record_id", self.record_id)
        check_int("priority", self.priority, UNHEALTHY, 1000)
        check_int("epoch", self.epoch, 0, MAX_NUMBER)


@dataclass(frozen=True, slots=True)
class Voting:
    """0x03. Request of a vote for `term_sought`, or (`pre`) the question whether one would be
    given. `round` ties the answers to the question; `controller` and `controller_term` are the
    last controller that the candidate knew (0: none). The voter judges by the newer of the two
    voter records (R10)."""

    pre: bool
    round: int
    term_sought: int
    record: Record
    reason: Reason
    controller: int
    controller_term: int

    def __post_init__(self) -> None:
        check_bool("pre", self.pre)
        check_int("round", self.round, 0, MAX_NUMBER)
        check_int("term_sought", self.term_sought, 1, MAX_TERM)
        check_record("record", self.record)
        check_member("reason", self.reason, Reason)
        check_node("controller", self.controller, 0)
        check_int("controller_term", self.controller_term, 0, MAX_TERM)


@dataclass(frozen=True, slots=True)
class VotResp:
    """0x04. The answer to a VOTING, always explicit. `reason` is None exactly when granted.

    `wait_us`: how long the voter's promise to an earlier controller (or its silence) still runs.
    With a grant it tells the winner how long to keep not active (R7b); with a refusal it tells
    the candidate when asking again makes sense. `life` is the voter's. `record`: the voter's
    voter record, when the candidate's is older (R10).
    """

    pre: bool
    round: int
    granted: bool
    reason: Refusal | None
    wait_us: int
    epoch: int
    record: Record | None

    def __post_init__(self) -> None:
        check_bool("pre", self.pre)
        check_int("round", self.round, 0, MAX_NUMBER)
        check_bool("granted", self.granted)
        if self.reason is not None:
            check_member("reason", self.reason, Refusal)
        if self.granted == (self.reason is not None):
            raise MalformedMessage("bad_field", "a refusal, and no grant, carries a reason")
        check_int("wait_us", self.wait_us, 0, MAX_NUMBER)
        check_int("epoch", self.epoch, 0, MAX_NUMBER)
        check_record("record", self.record, optional=True)


@dataclass(frozen=True, slots=True)
class NodeOffline:
    """0x05. Node `node` (in its `incarnation`) is offline: a graceful leave when the sender says it of
    itself, otherwise news from the controller, which proves nothing (R9)."""

    node: int
    incarnation: int
    reason: str

    def __post_init__(self) -> None:
        check_node("node", self.node)
        check_int("incarnation", self.incarnation, 0, MAX_NUMBER)
        check_text("reason", self.reason, 64)


@dataclass(frozen=True, slots=True)
class NodeOnline:
    """0x06. I am here, reachable at `address`, and remember since `life`."""

    address: str
    priority: int
    epoch: int

    def __post_init__(self) -> None:
        check_text("address", self.address, 256)
        check_int("priority", self.priority, UNHEALTHY, 1000)
        check_int("epoch", self.epoch, 0, MAX_NUMBER)


@dataclass(frozen=True, slots=True)
class NodeOnlineResp:
    """0x07. Who is controller as far as the sender knows (0: nobody), of which term, and the
    voters. A hint: only the controller's own PING makes anybody follow it."""

    controller: int
    controller_term: int
    record: Record

    def __post_init__(self) -> None:
        check_node("controller", self.controller, 0)
        check_int("controller_term", self.controller_term, 0, MAX_TERM)
        check_record("record", self.record)


@dataclass(frozen=True, slots=True)
class Handover:
    """0x0A. The sender, elected in `term`, has stopped being active of its own will and will not act in
    that term again: promises to it end. `successor` (0: none) campaigns first. `asked`: who asked for
    it and why, empty where nobody did."""

    of_term: int
    successor: int
    asked: str = ""

    def __post_init__(self) -> None:
        check_int("of_term", self.of_term, 1, MAX_TERM)
        check_node("successor", self.successor, 0)
        check_text("asked", self.asked, 256)


Message = (
    CommonResp
    | Ping
    | Pong
    | Voting
    | VotResp
    | NodeOffline
    | NodeOnline
    | NodeOnlineResp
    | Query
    | Report
    | Handover
    | Reset
    | AdminCommand
)

MESSAGES: dict[Type, type[Message]] = {
    Type.COMMON_RESP: CommonResp,
    Type.PING: Ping,
    Type.PONG: Pong,
    Type.VOTING: Voting,
    Type.VOT_RESP: VotResp,
    Type.NODE_OFFLINE: NodeOffline,
    Type.NODE_ONLINE: NodeOnline,
    Type.NODE_ONLINE_RESP: NodeOnlineResp,
    Type.QUERY: Query,
    Type.REPORT: Report,
    Type.HANDOVER: Handover,
    Type.RESET: Reset,
    Type.ADMIN: AdminCommand,
}


_CODES = {kind: code for code, kind in MESSAGES.items()}


def type_of(message: Message) -> Type:
    """The type code of `message`."""
    return _CODES[type(message)]


@dataclass(frozen=True, slots=True)
class Envelope:
    """What every message carries: the cluster's name, who sent it (id and incarnation; 0 and 0
    from the command line), the digest of the settings that all members must share, the sender's
    generation and its term."""

    cluster: str
    sender: int
    incarnation: int
    settings: int
    term: int
    message: Message
    generation: int = 0

    def __post_init__(self) -> None:
        check_text("cluster", self.cluster, 64)
        check_node("sender", self.sender, 0)
        check_int("incarnation", self.incarnation, 0, MAX_NUMBER)
        check_int("settings", self.settings, 0, 2**32 - 1)
        check_int("generation", self.generation, 0, MAX_NUMBER)
        check_int("term", self.term, 0, MAX_TERM)
