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

from zelect.core.quorum import Record, Witness
from zelect.core.timing import MAX_NODE_ID, MAX_TERM

__all__ = [
    "MESSAGES",
    "PROTOCOL_VERSION",
    "CommonResp",
    "Envelope",
    "Found",
    "Handover",
    "MalformedMessage",
    "Message",
    "NodeOffline",
    "NodeOnline",
    "NodeOnlineResp",
    "Ping",
    "Pong",
    "Query",
    "Refusal",
    "Report",
    "Result",
    "Trigger",
    "Type",
    "VotResp",
    "Voting",
]

PROTOCOL_VERSION = 1
MAX_NUMBER = 2**53 - 1
MAX_TEXT = 512


class MalformedMessage(ValueError):
    """The peer sent something that is not a message of this protocol; `reason` is for counting."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


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
    FOUND = 0x0B


class Refusal(StrEnum):
    """Why a vote was refused; every refusal on the wire carries one."""

    OLD_TERM = "old_term"
    VOTED = "voted"
    PROMISED = "promised"
    SILENT = "silent"
    AMNESIA = "amnesia"
    LEAVING = "leaving"
    NOT_MEMBER = "not_member"
    STRANGER = "stranger"
    UNREACHABLE = "unreachable"
    STALE_ELECTORATE = "stale_electorate"


class Trigger(StrEnum):
    """Why a candidate campaigns."""

    START = "start"
    TIMEOUT = "timeout"
    DEATH = "death"
    GOODBYE = "goodbye"
    HANDOVER = "handover"


class Result(StrEnum):
    """Outcome in a COMMON_RESP: success or a typed error."""

    OK = "ok"
    UNHANDLED = "unhandled"
    ID_IN_USE = "id_in_use"
    ADDRESS_MISMATCH = "address_mismatch"
    SETTINGS_MISMATCH = "settings_mismatch"
    TERM_JUMP = "term_jump"
    OTHER_FOUNDATION = "other_foundation"
    FORBIDDEN = "forbidden"


def _int(name: str, value: object, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:  # bool is an int; it is refused
        raise MalformedMessage("bad_field", f"{name} must be an integer from {least} to {most}")


def _node(name: str, value: object, least: int = 1) -> None:
    _int(name, value, least, MAX_NODE_ID)


def _bool(name: str, value: object) -> None:
    if type(value) is not bool:
        raise MalformedMessage("bad_field", f"{name} must be true or false")


def _text(name: str, value: object, most: int = MAX_TEXT) -> None:
    if not isinstance(value, str) or len(value) > most:
        raise MalformedMessage("bad_field", f"{name} must be a text of at most {most} characters")


def _nodes(name: str, value: object) -> None:
    if type(value) is not tuple:
        raise MalformedMessage("bad_field", f"{name} must be a list of node ids")
    for item in value:
        _node(name, item)


def _member(name: str, value: object, kind: type[StrEnum]) -> None:
    if type(value) is not kind:
        raise MalformedMessage("bad_field", f"{name} must be one of {', '.join(kind)}")


def _record(name: str, value: object, optional: bool = False) -> None:
    if value is None and optional:
        return
    if type(value) is not Record:
        raise MalformedMessage("bad_field", f"{name} must be an electorate record")
    _int(f"{name}.config_term", value.config_term, 0, MAX_TERM)
    _int(f"{name}.version", value.version, 0, MAX_NUMBER)
    _int(f"{name}.foundation", value.foundation, 0, MAX_NUMBER)
    _nodes(f"{name}.members", value.members)
    for life in value.lives:
        _int(f"{name}.lives", life, 0, MAX_NUMBER)
    if value.witness is not None:
        if type(value.witness) is not Witness:
            raise MalformedMessage("bad_field", f"{name}.witness must be the identity of a witness")
        for part in ("key", "run_id", "replid"):
            _text(f"{name}.witness.{part}", getattr(value.witness, part), 128)


def _record_id(name: str, value: object) -> None:
    if type(value) is not tuple or len(value) != 3:
        raise MalformedMessage("bad_field", f"{name} must be (foundation, config_term, version)")
    _int(f"{name}.foundation", value[0], 0, MAX_NUMBER)
    _int(f"{name}.config_term", value[1], 0, MAX_TERM)
    _int(f"{name}.version", value[2], 0, MAX_NUMBER)


@dataclass(frozen=True, slots=True)
class CommonResp:
    """0x00. A plain answer to a message of type code `about`: success or a typed error."""

    about: int
    result: Result
    detail: str

    def __post_init__(self) -> None:
        _int("about", self.about, 0, 255)
        _member("result", self.result, Result)
        _text("detail", self.detail)


@dataclass(frozen=True, slots=True)
class Ping:
    """0x01. Heartbeat. Numbered from 1 by a controller, which sends its electorate and the order
    of succession along; number 0, with neither, among idle peers."""

    number: int
    in_office: bool
    record: Record | None
    succession: tuple[int, ...]

    def __post_init__(self) -> None:
        _int("number", self.number, 0, MAX_NUMBER)
        _bool("in_office", self.in_office)
        _record("record", self.record, optional=True)
        _nodes("succession", self.succession)
        if (self.number > 0) != (self.record is not None):
            raise MalformedMessage("bad_field", "a numbered PING, and no other, carries a record")


@dataclass(frozen=True, slots=True)
class Pong:
    """0x02. Answer to PING `number` of term `of_term`, which may be older than the sender's; names
    the electorate record that the sender has saved, its priority in the succession, and its life."""

    number: int
    of_term: int
    record_id: tuple[int, int, int]
    priority: int
    life: int

    def __post_init__(self) -> None:
        _int("number", self.number, 0, MAX_NUMBER)
        _int("of_term", self.of_term, 0, MAX_TERM)
        _record_id("record_id", self.record_id)
        _int("priority", self.priority, 0, 1000)
        _int("life", self.life, 0, MAX_NUMBER)


@dataclass(frozen=True, slots=True)
class Voting:
    """0x03. Request of a vote for `term_sought`, or (`pre`) the question whether one would be
    given. `round` ties the answers to the question; `controller` and `controller_term` are the
    last controller that the candidate knew (0: none). The voter judges by the newer of the two
    electorate records (R10)."""

    pre: bool
    round: int
    term_sought: int
    record: Record
    trigger: Trigger
    controller: int
    controller_term: int

    def __post_init__(self) -> None:
        _bool("pre", self.pre)
        _int("round", self.round, 0, MAX_NUMBER)
        _int("term_sought", self.term_sought, 1, MAX_TERM)
        _record("record", self.record)
        _member("trigger", self.trigger, Trigger)
        _node("controller", self.controller, 0)
        _int("controller_term", self.controller_term, 0, MAX_TERM)


@dataclass(frozen=True, slots=True)
class VotResp:
    """0x04. The answer to a VOTING, always explicit. `reason` is None exactly when granted.

    `wait_us`: how long the voter's promise to an earlier controller (or its silence) still runs.
    With a grant it tells the winner how long to keep out of office (R7b); with a refusal it tells
    the candidate when asking again makes sense. `life` is the voter's. `record`: the voter's
    electorate record, when the candidate's is older (R10).
    """

    pre: bool
    round: int
    granted: bool
    reason: Refusal | None
    wait_us: int
    life: int
    record: Record | None

    def __post_init__(self) -> None:
        _bool("pre", self.pre)
        _int("round", self.round, 0, MAX_NUMBER)
        _bool("granted", self.granted)
        if self.reason is not None:
            _member("reason", self.reason, Refusal)
        if self.granted == (self.reason is not None):
            raise MalformedMessage("bad_field", "a refusal, and no grant, carries a reason")
        _int("wait_us", self.wait_us, 0, MAX_NUMBER)
        _int("life", self.life, 0, MAX_NUMBER)
        _record("record", self.record, optional=True)


@dataclass(frozen=True, slots=True)
class NodeOffline:
    """0x05. Node `node` (in its `incarnation`) is offline: a goodbye when the sender says it of
    itself, otherwise news from the controller, which proves nothing (R9)."""

    node: int
    incarnation: int
    reason: str

    def __post_init__(self) -> None:
        _node("node", self.node)
        _int("incarnation", self.incarnation, 0, MAX_NUMBER)
        _text("reason", self.reason, 64)


@dataclass(frozen=True, slots=True)
class NodeOnline:
    """0x06. I am here, reachable at `address`, and remember since `life`."""

    address: str
    priority: int
    life: int

    def __post_init__(self) -> None:
        _text("address", self.address, 256)
        _int("priority", self.priority, 0, 1000)
        _int("life", self.life, 0, MAX_NUMBER)


@dataclass(frozen=True, slots=True)
class NodeOnlineResp:
    """0x07. Who is controller as far as the sender knows (0: nobody), of which term, and the
    electorate. A hint: only the controller's own PING makes anybody follow it."""

    controller: int
    controller_term: int
    record: Record

    def __post_init__(self) -> None:
        _node("controller", self.controller, 0)
        _int("controller_term", self.controller_term, 0, MAX_TERM)
        _record("record", self.record)


@dataclass(frozen=True, slots=True)
class Query:
    """0x08. A question from the command line, which is no member and has no id (sender 0)."""

    what: str

    def __post_init__(self) -> None:
        _text("what", self.what, 32)


@dataclass(frozen=True, slots=True)
class Report:
    """0x09. The answer to a QUERY: a JSON text."""

    text: str

    def __post_init__(self) -> None:
        _text("text", self.text, 60_000)


@dataclass(frozen=True, slots=True)
class Handover:
    """0x0A. The sender, elected in `term`, has left office of its own will and will not act in
    that term again: promises to it end. `successor` (0: none) campaigns first."""

    of_term: int
    successor: int

    def __post_init__(self) -> None:
        _int("of_term", self.of_term, 1, MAX_TERM)
        _node("successor", self.successor, 0)


@dataclass(frozen=True, slots=True)
class Found:
    """0x0B. An operator founds a lost electorate anew (R11), or tells a node of the old foundation
    to join the new one: from `foundation` on, `members` vote."""

    foundation: int
    members: tuple[int, ...]

    def __post_init__(self) -> None:
        _int("foundation", self.foundation, 1, MAX_NUMBER)
        _nodes("members", self.members)
        if not self.members or list(self.members) != sorted(set(self.members)):
            raise MalformedMessage("bad_field", "members must be distinct and in ascending order")


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
    | Found
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
    Type.FOUND: Found,
}


@dataclass(frozen=True, slots=True)
class Envelope:
    """What every message carries: the cluster's name, who sent it (id and incarnation; 0 and 0
    from the command line), the digest of the settings that all members must share, the sender's
    foundation and its term."""

    cluster: str
    sender: int
    incarnation: int
    settings: int
    term: int
    message: Message
    foundation: int = 0

    def __post_init__(self) -> None:
        _text("cluster", self.cluster, 64)
        _node("sender", self.sender, 0)
        _int("incarnation", self.incarnation, 0, MAX_NUMBER)
        _int("settings", self.settings, 0, 2**32 - 1)
        _int("foundation", self.foundation, 0, MAX_NUMBER)
        _int("term", self.term, 0, MAX_TERM)
