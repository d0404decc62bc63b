"""Who may say what (rights.py): every kind of caller with every kind of message."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from tests.support.records import made_record
from tests.support.samples import EXAMPLES
from zelect.core.messages import MESSAGES, AdminAction, AdminCommand, Envelope, Message, Query, Reset
from zelect.security.authorization import NEEDS, denied, permission_of, signed
from zelect.security.keys import Caller, Directory, Permission

ONE, TWO, READER, STEERER = (name * 40 for name in (b"1", b"2", b"r", b"s"))
DIRECTORY = Directory(
    {1: (ONE,), 2: (TWO,)},
    {
        ONE: Caller("node 1", 1, Permission.READ),
        TWO: Caller("node 2", 2, Permission.READ),
        READER: Caller("operator r", 0, Permission.READ),
        STEERER: Caller("operator s", 0, Permission.ADMIN),
    },
)


@dataclass(frozen=True)
class Origin:
    key: bytes = b""
    is_local: bool = False


def said(message: Message, sender: int) -> Envelope:
    return Envelope("demo", sender, 7, 1, 3, message)


RESET = Reset(made_record(0, 8, (1,), None, 3), False)
MEMBERS = [message for message in EXAMPLES if type(message) not in NEEDS]
"""One of each type that only members say."""


def test_an_admin_command_names_the_owner_of_its_key() -> None:
    order = AdminCommand(AdminAction.RESUME, 0, 0, "", "root@host9")
    for key, directory, asker in (
        (STEERER, DIRECTORY, "operator s (root@host9)"),
        (b"", None, "root@host9"),
    ):
        assert signed(Origin(key), said(order, 0), directory).message == replace(order, asker=asker)
    assert signed(Origin(STEERER), said(Query("status"), 0), DIRECTORY) == said(Query("status"), 0)
    long = replace(order, asker="x" * 64)
    assert len(signed(Origin(STEERER), said(long, 0), DIRECTORY).message.asker) == 64  # type: ignore[union-attr]


def test_there_is_a_sample_of_every_type() -> None:
    assert {type(message) for message in EXAMPLES} == set(MESSAGES.values())


@pytest.mark.parametrize("message", MEMBERS, ids=lambda message: type(message).__name__)
def test_a_member_sends_as_itself_only(message: Message) -> None:
    for key, node in ((ONE, 1), (TWO, 2)):
        for sender in (0, 1, 2, 3):
            no = denied(Origin(key, is_local=True), said(message, sender), DIRECTORY)
            assert (no is None) is (sender == node)
            assert no is None or (no.reason, no.detail) == ("not_the_keys_owner", "")


@pytest.mark.parametrize("message", MEMBERS, ids=lambda message: type(message).__name__)
@pytest.mark.parametrize("key", [READER, STEERER, b"u" * 40, b""])
def test_only_members_send_as_members(message: Message, key: bytes) -> None:
    for sender in (0, 1, 2, 3):
        no = denied(Origin(key, is_local=True), said(message, sender), DIRECTORY)
        assert no is not None
        assert (no.reason, no.detail) == ("not_a_member", "")


@pytest.mark.parametrize(
    ("key", "permission"),
    [
        (ONE, Permission.READ),
        (READER, Permission.READ),
        (STEERER, Permission.ADMIN),
        (b"u" * 40, Permission.NONE),
        (b"", Permission.NONE),
    ],
)
@pytest.mark.parametrize("local", [True, False])
def test_permissions_follow_the_key_wherever_it_is_used(key: bytes, permission: Permission, local: bool) -> None:
    origin = Origin(key, local)
    assert permission_of(origin, DIRECTORY) is permission
    asked = denied(origin, said(Query("status"), 0), DIRECTORY)
    commanded = denied(origin, said(AdminCommand(AdminAction.PAUSE, 0, 1000, "", "x"), 0), DIRECTORY)
    reset = denied(origin, said(RESET, 0), DIRECTORY)
    assert (asked is None) is (permission >= Permission.READ)
    assert (commanded is None) is (reset is None) is (permission >= Permission.ADMIN)
    for no, name in ((asked, "read"), (commanded, "admin"), (reset, "admin")):
        assert no is None or (no.reason == "forbidden" and f"the permission {name}" in no.detail)


def test_in_plain_text_only_this_host_reads_and_gives_admin_commands() -> None:
    for message in (Query("status"), RESET):
        assert denied(Origin(is_local=True), said(message, 0), None) is None
        no = denied(Origin(is_local=False), said(message, 0), None)
        assert no is not None
        assert no.reason == "forbidden"
        assert "from the node's own host only" in no.detail
    for member in MEMBERS:
        assert denied(Origin(is_local=False), said(member, 2), None) is None


def test_a_refusal_names_the_missing_permission_only() -> None:
    details = {
        no.detail
        for key in (READER, ONE)
        if (no := denied(Origin(key), said(Reset(made_record(0, 8, (1,), None, 77), True), 0), DIRECTORY)) is not None
    }
    assert details == {"sending admin commands needs the permission admin, which this key lacks"}
