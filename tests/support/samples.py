"""Well-formed messages of every type, drawn at random, and one plain example of each."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from tests.support.records import made_record
from tools.common.founded import CLUSTER_ID
from zelect.core.messages import (
    MAX_FOR_MS,
    MAX_NUMBER,
    AdminAction,
    AdminCommand,
    Bootstrap,
    CommonResp,
    Envelope,
    Handover,
    MemberAction,
    MemberChange,
    Message,
    NodeOffline,
    NodeOnline,
    NodeOnlineResp,
    Ping,
    Pong,
    Query,
    Reason,
    Refusal,
    Report,
    Reset,
    Result,
    Voting,
    VotResp,
)
from zelect.core.quorum import Record, Witness
from zelect.core.timing import MAX_NODE_ID, MAX_TERM

WITNESS = Witness("1-1-1-1-1", "run1", "repl")
RECORD = made_record(3, 7, (1, 2, 3), WITNESS, 1, (11, 12, 0))

EXAMPLES: tuple[Message, ...] = (
    CommonResp(1, Result.TERM_JUMP, "this node's term is 4"),
    Ping(12, True, RECORD, (2, 3)),
    Ping(0, False, None, ()),
    Pong(12, 3, (1, 3, 7), 10, 11),
    Voting(True, 4, 5, RECORD, Reason.DEATH, 1, 3),
    VotResp(True, 4, True, None, 0, 11, None),
    VotResp(False, 4, False, Refusal.STALE_VOTERS, 250_000, 11, RECORD),
    NodeOffline(3, 9, "leave"),
    NodeOnline("tcp://127.0.0.1:7101", 10, 11),
    NodeOnlineResp(1, 3, RECORD),
    Query("status"),
    Report('{"id": 1}'),
    Handover(3, 2, "ops@host1: a new kernel"),
    Reset(made_record(0, 8, (1, 2), None, 2), False),
    Reset(made_record(0, 8, (1, 2), None, 2), True),
    MemberChange(MemberAction.ADD, 4, "tcp://127.0.0.1:7104"),
    MemberChange(MemberAction.REMOVE, 3, ""),
    Bootstrap(((1, "tcp://127.0.0.1:7101"), (2, "tcp://127.0.0.1:7102"))),
    AdminCommand(AdminAction.TRANSFER, 2, 0, "a new kernel", "ops@host1"),
)

numbers = st.integers(0, MAX_NUMBER)
terms = st.integers(0, MAX_TERM)
nodes = st.integers(1, MAX_NODE_ID)
node_or_nobody = st.integers(0, MAX_NODE_ID)
priorities = st.integers(0, 1000)


def texts(most: int) -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=min(most, 40))


witnesses = st.none() | st.builds(Witness, texts(128), texts(128), texts(128))
voters = st.dictionaries(nodes, numbers, max_size=7).map(lambda epochs: tuple(sorted(epochs.items())))


@st.composite
def _records(draw: st.DrawFn) -> Record:
    pairs = draw(voters)
    members, epochs = tuple(node for node, _ in pairs), tuple(epoch for _, epoch in pairs)
    belong = draw(st.dictionaries(nodes, texts(64).filter(str.isprintable), max_size=3))
    addresses = tuple(sorted({**dict.fromkeys(members, "tcp://host:1"), **belong}.items()))
    order = draw(terms), draw(numbers)
    return Record(*order, members, draw(witnesses), draw(numbers), epochs, draw(numbers), addresses)


@st.composite
def _resets(draw: st.DrawFn) -> Reset:
    least_one = st.integers(1, MAX_NUMBER)
    record = replace(draw(records.filter(lambda one: bool(one.members))), witness=None)
    record = replace(record, generation=draw(least_one), version=draw(least_one), cluster_id=draw(least_one))
    join = draw(st.booleans())
    return Reset(record if join else replace(record, config_term=0), join)


@st.composite
def _member_changes(draw: st.DrawFn) -> MemberChange:
    what = draw(st.sampled_from(MemberAction))
    address = (
        "" if what is MemberAction.REMOVE else draw(texts(256).filter(lambda one: bool(one) and one.isprintable()))
    )
    return MemberChange(what, draw(nodes), address)


records = _records()
orders = st.lists(nodes, max_size=7).map(tuple)


@st.composite
def _pings(draw: st.DrawFn) -> Ping:
    number = draw(st.just(0) | numbers)
    return Ping(number, draw(st.booleans()), draw(records) if number else None, draw(orders))


@st.composite
def _vote_responses(draw: st.DrawFn) -> VotResp:
    reason = draw(st.none() | st.sampled_from(Refusal))
    rest = draw(st.tuples(numbers, numbers, st.none() | records))
    return VotResp(draw(st.booleans()), draw(numbers), reason is None, reason, *rest)


@st.composite
def _admin_commands(draw: st.DrawFn) -> AdminCommand:
    what = draw(st.sampled_from(AdminAction))
    to = draw(node_or_nobody) if what is AdminAction.TRANSFER else 0
    for_ms = draw(st.integers(1, MAX_FOR_MS)) if what in (AdminAction.STEPDOWN, AdminAction.PAUSE) else 0
    words = st.text(st.characters(categories=["L", "N", "P"]), max_size=40)
    return AdminCommand(what, to, for_ms, draw(words), draw(words))


messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(CommonResp, st.integers(0, 255), st.sampled_from(Result), texts(512)),
    _pings(),
    st.builds(Pong, numbers, terms, st.tuples(numbers, terms, numbers), priorities, numbers, numbers),
    st.builds(
        Voting,
        st.booleans(),
        numbers,
        st.integers(1, MAX_TERM),
        records,
        st.sampled_from(Reason),
        node_or_nobody,
        terms,
    ),
    _vote_responses(),
    st.builds(NodeOffline, nodes, numbers, texts(64)),
    st.builds(NodeOnline, texts(256).filter(str.isprintable), priorities, numbers, numbers),
    st.builds(NodeOnlineResp, node_or_nobody, terms, st.none() | records, numbers, numbers),
    st.builds(Query, texts(32)),
    st.builds(Report, texts(60_000)),
    st.builds(Handover, st.integers(1, MAX_TERM), node_or_nobody, texts(256)),
    _admin_commands(),
    _resets(),
    _member_changes(),
    st.dictionaries(nodes, texts(64).filter(str.isprintable), min_size=1, max_size=7).map(
        lambda some: Bootstrap(tuple(sorted(some.items())))
    ),
)

envelopes: st.SearchStrategy[Envelope] = st.builds(
    Envelope,
    texts(64),
    node_or_nobody,
    numbers,
    st.integers(0, 2**32 - 1),
    terms,
    messages,
    numbers,
    numbers,
    node_or_nobody,
)


def envelope(message: Message) -> Envelope:
    """`message` in an ordinary envelope."""
    return Envelope("demo", 2, 7, 0xCAFE, 5, message, 1, CLUSTER_ID)
