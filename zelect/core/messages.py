"""The messages, one frozen dataclass per type, checked when constructed.

A value of one of these classes is well-formed by construction: its types and ranges need
no other check. What does not fit raises `MalformedMessage`, which always means that the
sender misbehaved, never a bug here.

The codes 0x00 to 0x07 are fixed by the protocol's first version (docs/protocol.md, table of
messages). `Envelope` holds what all messages share. `incarnation` and `settings` are in it, and not
in single messages, so that answers of a process that has died since, and nodes that are configured
differently, are refused once, at the gate.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from zelect.core.quorum import Record, Witness
from zelect.core.timing import MAX_NODE_ID, MAX_TERM

PROTOCOL_VERSION = 1
COOLING_DOWN = -1
"""The priority that a member reports after it was asked to step down for a while: it goes last (R8)."""
UNHEALTHY = -2
"""The priority that a member reports while its job can't be done there: it goes after everybody else."""


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
    MEMBERS = 0x0D
    BOOTSTRAP = 0x0E


class Refusal(StrEnum):
    """Why a vote was refused; every refusal on the wire carries one."""

    OLD_TERM = "old_term"
    VOTED = "voted"
    PROMISED = "promised"
    GRACE_PERIOD = "grace_period"
    LOST_STATE = "lost_state"
    OTHER_FOUNDING = "other_founding"
    LEAVING = "leaving"
    NOT_MEMBER = "not_member"
    UNRECOGNIZED = "unrecognized"
    UNREACHABLE = "unreachable"
    STALE_VOTERS = "stale_voters"


TEMPORARY = frozenset({Refusal.PROMISED, Refusal.GRACE_PERIOD})
"""Refusals that end by themselves with time: the same voter may grant later."""


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
    WRONG_NODE = "wrong_node"
    WRONG_CLUSTER = "wrong_cluster"
    ID_IN_USE = "id_in_use"
    SETTINGS_MISMATCH = "settings_mismatch"
    OTHER_CLUSTER = "other_cluster"
    NOT_MEMBER = "not_member"
    REMOVED = "removed"
    ADDRESS_IN_USE = "address_in_use"
    TERM_JUMP = "term_jump"
    OTHER_GENERATION = "other_generation"
    OLD_INCARNATION = "old_incarnation"
    FORBIDDEN = "forbidden"
    NOT_CONTROLLER = "not_controller"
    PAUSED = "paused"
    INELIGIBLE = "ineligible"
    BUSY = "busy"
    CONTROLLER_LIVES = "controller_lives"


class AdminAction(StrEnum):
    """What an operator may ask of a node."""

    TRANSFER = "transfer"
    STEPDOWN = "stepdown"
    PAUSE = "pause"
    RESUME = "resume"


class MemberAction(StrEnum):
    """How an operator changes who belongs to the cluster."""

    ADD = "add"
    REMOVE = "remove"
    REPLACE = "replace"


# -- checks of fields: exact types, ranges, sizes. `type(x) is int` and not `isinstance`: True is an int, and a
# decoder that was fed True must not make a node id of it.

MAX_NUMBER = 2**53 - 1
MAX_VERSION_JUMP = 2**24
"""A record of a version further ahead than this can't be genuine: no node has missed so many changes."""
MAX_VERSION_HEARD = MAX_NUMBER - MAX_VERSION_JUMP
"""A record of a higher version is refused, whatever its source: there would be no room left for changes."""
MAX_EPOCH_HEARD = MAX_NUMBER // 2
"""A storage epoch is a time of birth in ms. What a peer remembers beyond this can't be one, and leaves no room for a
higher one."""
MAX_TEXT = 512


class MalformedMessage(ValueError):
    """The peer sent something that is not a message of this protocol; `reason` is for counting."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


def _check_int(name: str, value: object, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:  # bool is an int; it is refused
        raise MalformedMessage("bad_field", f"{name} must be an integer from {least} to {most}")


def _check_ints(name: str, values: tuple[object, ...], least: int, most: int) -> None:
    # All at once first: a record of a thousand members comes with every PING.
    kinds = set(map(type, values))
    if kinds == {int} and least <= min(values) and max(values) <= most:  # type: ignore[type-var, operator]
        return
    for value in values:
        _check_int(name, value, least, most)


def _check_node(name: str, value: object, least: int = 1) -> None:
    _check_int(name, value, least, MAX_NODE_ID)


def _check_bool(name: str, value: object) -> None:
    if type(value) is not bool:
        raise MalformedMessage("bad_field", f"{name} must be true or false")


def _check_text(name: str, value: object, most: int = MAX_TEXT) -> None:
    if not isinstance(value, str) or len(value) > most:
        raise MalformedMessage("bad_field", f"{name} must be a text of at most {most} characters")


def _check_nodes(name: str, value: object) -> None:
    if type(value) is not tuple:
        raise MalformedMessage("bad_field", f"{name} must be a list of node ids")
    _check_ints(name, value, 1, MAX_NODE_ID)


def _check_founding(name: str, value: object) -> None:
    if type(value) is not tuple or len(value) > MAX_NODE_ID:
        raise MalformedMessage("bad_field", f"{name} must be a list of nodes with addresses")
    for entry in value:
        if type(entry) is not tuple or len(entry) != 2:
            raise MalformedMessage("bad_field", f"{name} must be a list of nodes with addresses")
        _check_node(f"{name}.node", entry[0])
        _check_address(f"{name}.address", entry[1])


def _check_address(name: str, value: object) -> None:
    _check_text(name, value, 256)
    if not (isinstance(value, str) and value.isprintable()):
        raise MalformedMessage("bad_field", f"{name} must be printable")


def _check_enum(name: str, value: object, kind: type[StrEnum]) -> None:
    if type(value) is not kind:
        raise MalformedMessage("bad_field", f"{name} must be one of {', '.join(kind)}")


def _check_record(name: str, value: object, optional: bool = False) -> None:
    if value is None and optional:
        return
    if type(value) is not Record:
        raise MalformedMessage("bad_field", f"{name} must be a voter record")
    _check_int(f"{name}.config_term", value.config_term, 0, MAX_TERM)
    _check_int(f"{name}.version", value.version, 0, MAX_NUMBER)
    _check_int(f"{name}.generation", value.generation, 0, MAX_NUMBER)
    _check_nodes(f"{name}.members", value.members)
    _check_ints(f"{name}.epochs", value.epochs, 0, MAX_NUMBER)
    _check_int(f"{name}.cluster_id", value.cluster_id, 0, MAX_NUMBER)
    for node, address in value.addresses:
        _check_node(f"{name}.addresses", node)
        _check_address(f"{name}.addresses", address)
    if value.witness is not None:
        if type(value.witness) is not Witness:
            raise MalformedMessage("bad_field", f"{name}.witness must be the identity of a witness")
        for part in ("key", "run_id", "replid"):
            _check_text(f"{name}.witness.{part}", getattr(value.witness, part), 128)


def check_record(record: Record) -> None:
    """Judge a voter record that came by another way than a message. Raises `MalformedMessage`."""
    _check_record("record", record)


def _check_record_id(name: str, value: object) -> None:
    if type(value) is not tuple or len(value) != 3:
        raise MalformedMessage("bad_field", f"{name} must be (generation, config_term, version)")
    _check_int(f"{name}.generation", value[0], 0, MAX_NUMBER)
    _check_int(f"{name}.config_term", value[1], 0, MAX_TERM)
    _check_int(f"{name}.version", value[2], 0, MAX_NUMBER)


# -- messages among nodes


@dataclass(frozen=True, slots=True)
class CommonResp:
    """0x00. A plain answer to a message of type code `about`: success or a typed error."""

    about: int
    result: Result
    detail: str

    def __post_init__(self) -> None:
        _check_int("about", self.about, 0, 255)
        _check_enum("result", self.result, Result)
        _check_text("detail", self.detail)


@dataclass(frozen=True, slots=True)
class Ping:
    """0x01. Heartbeat. A controller numbers it from 1 and adds the voter record and the order of
    succession; among idle peers it has number 0 and neither."""

    number: int
    active: bool
    record: Record | None
    succession: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_int("number", self.number, 0, MAX_NUMBER)
        _check_bool("active", self.active)
        _check_record("record", self.record, optional=True)
        _check_nodes("succession", self.succession)
        if (self.number > 0) != (self.record is not None):
            raise MalformedMessage("bad_field", "a numbered PING, and no other, carries a record")


@dataclass(frozen=True, slots=True)
class Pong:
    """0x02. Answer to PING `number` of term `of_term`, which may be older than the sender's; names
    the voter record that the sender has saved, its priority in the succession, its storage epoch, and how
    often it has saved in that epoch (R16)."""

    number: int
    of_term: int
    record_id: tuple[int, int, int]
    priority: int
    epoch: int
    saves: int = 0

    def __post_init__(self) -> None:
        _check_int("number", self.number, 0, MAX_NUMBER)
        _check_int("of_term", self.of_term, 0, MAX_TERM)
        _check_record_id("record_id", self.record_id)
        _check_int("priority", self.priority, UNHEALTHY, 1000)
        _check_int("epoch", self.epoch, 0, MAX_NUMBER)
        _check_int("saves", self.saves, 0, MAX_NUMBER)


@dataclass(frozen=True, slots=True)
class Voting:
    """0x03. Request of a vote for `term_sought`, or (`pre`) the question whether one would be
    given. `round` ties the answers to the request; `controller` and `controller_term` are the
    last controller that the candidate knew (0: none). The voter refuses when its own voter record
    is newer (R10). Where `record` is only proposed, new nodes found a cluster: it names all members, each with
    its storage epoch (R15)."""

    pre: bool
    round: int
    term_sought: int
    record: Record
    reason: Reason
    controller: int
    controller_term: int

    def __post_init__(self) -> None:
        _check_bool("pre", self.pre)
        _check_int("round", self.round, 0, MAX_NUMBER)
        _check_int("term_sought", self.term_sought, 1, MAX_TERM)
        _check_record("record", self.record)
        _check_enum("reason", self.reason, Reason)
        _check_node("controller", self.controller, 0)
        _check_int("controller_term", self.controller_term, 0, MAX_TERM)


@dataclass(frozen=True, slots=True)
class VotResp:
    """0x04. The answer to a VOTING, always explicit. `reason` is None exactly when granted.

    `wait_us`: how long the voter's promise to an earlier controller, or its grace period, still runs. With a refusal it
    tells the candidate when to ask again. No node grants a vote while it is bound, so with a grant it is 0; the winner
    would wait that long before it becomes active (R7b). `epoch` is the voter's storage epoch. `record`: the voter
    record of the voter, when the candidate's is older (R10).
    """

    pre: bool
    round: int
    granted: bool
    reason: Refusal | None
    wait_us: int
    epoch: int
    record: Record | None

    def __post_init__(self) -> None:
        _check_bool("pre", self.pre)
        _check_int("round", self.round, 0, MAX_NUMBER)
        _check_bool("granted", self.granted)
        if self.reason is not None:
            _check_enum("reason", self.reason, Refusal)
        if self.granted == (self.reason is not None):
            raise MalformedMessage("bad_field", "a refusal, and no grant, carries a reason")
        _check_int("wait_us", self.wait_us, 0, MAX_NUMBER)
        _check_int("epoch", self.epoch, 0, MAX_NUMBER)
        _check_record("record", self.record, optional=True)


@dataclass(frozen=True, slots=True)
class NodeOffline:
    """0x05. Node `node` (in its `incarnation`) is offline: a graceful leave when it is the sender itself,
    otherwise news from the controller, which proves nothing (R9)."""

    node: int
    incarnation: int
    reason: str

    def __post_init__(self) -> None:
        _check_node("node", self.node)
        _check_int("incarnation", self.incarnation, 0, MAX_NUMBER)
        _check_text("reason", self.reason, 64)


@dataclass(frozen=True, slots=True)
class NodeOnline:
    """0x06. The sender is online: reachable at `address`, with the data of storage epoch `epoch`, which it has
    saved `saves` times."""

    address: str
    priority: int
    epoch: int
    saves: int = 0

    def __post_init__(self) -> None:
        _check_address("address", self.address)
        _check_int("priority", self.priority, UNHEALTHY, 1000)
        _check_int("epoch", self.epoch, 0, MAX_NUMBER)
        _check_int("saves", self.saves, 0, MAX_NUMBER)


@dataclass(frozen=True, slots=True)
class NodeOnlineResp:
    """0x07. Who is controller as far as the sender knows (0: nobody), of which term, and the voter
    record (None: it has none, it is new). A hint: a node follows a controller only after that controller's own
    PING. `heard_epoch` and `heard_saves` are the newest storage epoch of the recipient that the sender has
    heard of, and how often earlier processes had saved it (R16)."""

    controller: int
    controller_term: int
    record: Record | None
    heard_epoch: int = 0
    heard_saves: int = 0

    def __post_init__(self) -> None:
        _check_node("controller", self.controller, 0)
        _check_int("controller_term", self.controller_term, 0, MAX_TERM)
        _check_record("record", self.record, optional=True)
        _check_int("heard_epoch", self.heard_epoch, 0, MAX_NUMBER)
        _check_int("heard_saves", self.heard_saves, 0, MAX_NUMBER)


@dataclass(frozen=True, slots=True)
class Handover:
    """0x0A. The sender, elected in `of_term`, has given up that leadership and will not act in it again:
    promises to it end. `successor` (0: none) campaigns first. `asked`: who asked for the transfer and
    why; empty where nobody did."""

    of_term: int
    successor: int
    asked: str = ""

    def __post_init__(self) -> None:
        _check_int("of_term", self.of_term, 1, MAX_TERM)
        _check_node("successor", self.successor, 0)
        _check_text("asked", self.asked, 256)


# -- messages between the command line and a node; its sender is not a member and has no id (0)

MAX_FOR_MS = 7 * 24 * 3600 * 1000
"""The longest pause or cooling-down, 7 days: one that is forgotten ends by itself."""


@dataclass(frozen=True, slots=True)
class Query:
    """0x08. A question from the command line."""

    what: str

    def __post_init__(self) -> None:
        _check_text("what", self.what, 32)


@dataclass(frozen=True, slots=True)
class Report:
    """0x09. The answer to a QUERY: a JSON text."""

    text: str

    def __post_init__(self) -> None:
        _check_text("text", self.text, 60_000)


@dataclass(frozen=True, slots=True)
class Reset:
    """0x0B. An operator forces a new voter record on a cluster that lost its quorum (R11), or tells a node of the old
    generation to `join` the one that has this record: it becomes a new node, and gets its vote from the controller
    there."""

    record: Record
    join: bool

    def __post_init__(self) -> None:
        _check_record("record", self.record)
        _check_bool("join", self.join)
        if not self.record.members or self.record.witness is not None:
            raise MalformedMessage("bad_field", "a reset names members, and no witness")
        if not (self.record.generation and self.record.version and self.record.cluster_id):
            raise MalformedMessage("bad_field", "a reset begins a new generation of a cluster that exists")
        if self.record.config_term and not self.join:
            raise MalformedMessage("bad_field", "a reset is written in no term")


@dataclass(frozen=True, slots=True)
class MemberChange:
    """0x0D. An operator adds `node` at `address` to the cluster, removes it (`address` is empty then), or says
    that it is at another `address` from now on (R10)."""

    what: MemberAction
    node: int
    address: str

    def __post_init__(self) -> None:
        _check_enum("what", self.what, MemberAction)
        _check_node("node", self.node)
        _check_address("address", self.address)
        if bool(self.address) == (self.what is MemberAction.REMOVE):
            raise MalformedMessage("bad_field", "who is removed has no address, everybody else has one")


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """0x0E. An operator names the members that are to found the cluster, instead of the configured ones (R15)."""

    members: tuple[tuple[int, str], ...]

    def __post_init__(self) -> None:
        _check_founding("members", self.members)
        nodes = [node for node, _ in self.members]
        if not nodes or nodes != sorted(set(nodes)):
            raise MalformedMessage("bad_field", "members must be distinct and in ascending order")


@dataclass(frozen=True, slots=True)
class AdminCommand:
    """0x0C. An operator's command: transfer leadership to node `to` (0: the first in line), step down and
    not become active for `for_ms`, pause planned transfers for `for_ms`, or resume them. `asker` is who
    asks, `reason` why; both are for people."""

    what: AdminAction
    to: int
    for_ms: int
    reason: str
    asker: str

    def __post_init__(self) -> None:
        _check_enum("what", self.what, AdminAction)
        _check_node("to", self.to, 0)
        _check_int("for_ms", self.for_ms, 0, MAX_FOR_MS)
        _check_text("reason", self.reason, 128)
        _check_text("asker", self.asker, 64)
        if not (self.reason.isprintable() and self.asker.isprintable()):
            raise MalformedMessage("bad_field", "reason and asker must be printable, in one line")
        if self.to and self.what is not AdminAction.TRANSFER:
            raise MalformedMessage("bad_field", "a transfer, and nothing else, names a node")
        if (self.for_ms > 0) != (self.what in (AdminAction.STEPDOWN, AdminAction.PAUSE)):
            raise MalformedMessage("bad_field", "stepping down and a pause, and nothing else, last for some time")

    @property
    def asked(self) -> str:
        """Who asks and why, in one line."""
        return f"{self.asker}: {self.reason}" if self.reason else self.asker


# -- all of them

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
    | MemberChange
    | Bootstrap
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
    Type.MEMBERS: MemberChange,
    Type.BOOTSTRAP: Bootstrap,
}


_CODES = {kind: code for code, kind in MESSAGES.items()}


def type_of(message: Message) -> Type:
    """The type code of `message`."""
    return _CODES[type(message)]


@dataclass(frozen=True, slots=True)
class Envelope:
    """What every message carries: the cluster's name, its sender (id and incarnation; 0 and 0 from the
    command line), the digest of the settings that all members must share, the id of the cluster that the
    sender belongs to (0: to none yet) with its generation, and the sender's term. `to`: the node that it is meant
    for, because an address may lead to another one (0: whoever has it, as answers to a client)."""

    cluster: str
    sender: int
    incarnation: int
    settings: int
    term: int
    message: Message
    generation: int = 0
    cluster_id: int = 0
    to: int = 0

    def __post_init__(self) -> None:
        _check_text("cluster", self.cluster, 64)
        _check_node("sender", self.sender, 0)
        _check_int("incarnation", self.incarnation, 0, MAX_NUMBER)
        _check_int("settings", self.settings, 0, 2**32 - 1)
        _check_int("generation", self.generation, 0, MAX_NUMBER)
        _check_int("cluster_id", self.cluster_id, 0, MAX_NUMBER)
        _check_int("term", self.term, 0, MAX_TERM)
        _check_node("to", self.to, 0)
