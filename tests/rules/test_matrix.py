"""What a node in each stand does with each message of an older, the same and a newer term.

A literal table, to be read: a cell names what changed and what was answered, in the order

    x reason        refused at the gate, or for its term, and counted
    +term           the newer term was taken over
    votes           the vote of the term was given to the sender, who asked for it or whose PING was acknowledged
    record          the sender's voter record was taken over
    pre-candidate, candidate, elected, falls, enters and stops being active: the new stand
    follows (and so falls), lost   the controller;  promises, freed: the promise;  gone: the sender is offline
    probes          looks whether somebody is dead
    pong, ping, grant, no (reason), tells, complains, hands over     what was sent;  asks: a campaign
    shows           the answer to the command line

and "." stands for nothing. Each cell is a fresh cluster of three, and one message.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.support.positions import grant, pong
from tests.support.records import made_record
from tools.simulator.small_world import World, packet
from zelect.core.effects import Effects, Saved
from zelect.core.events import Leave, MessageReceived
from zelect.core.messages import (
    AdminAction,
    AdminCommand,
    Bootstrap,
    CommonResp,
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
from zelect.core.quorum import NO_RECORD
from zelect.core.state import Role, clone

SAVED = made_record(3, 4, (1, 2, 3), epochs=(1, 2, 3))
PROPOSED = made_record(0, 0, (1, 2, 3), epochs=(1, 2, 3))

MATRIX = """
following, from its controller | older             | same                     | newer
COMMON_RESP        | .                 | .                        | .
PING idle          | pong              | pong                     | +term, lost, pong
PING               | pong              | record, pong             | +term, votes, record, follows, pong
PONG               | x old_term        | .                        | +term, lost
VOTING pre         | no (old_term)     | grant                    | grant
VOTING             | no (old_term)     | grant                    | +term, votes, lost, grant
VOT_RESP yes       | .                 | .                        | +term, lost
VOT_RESP no        | .                 | .                        | +term, lost
NODE_OFFLINE self  | lost, freed, gone | lost, freed, gone        | +term, lost, freed, gone
NODE_OFFLINE third | .                 | .                        | +term, lost
NODE_ONLINE        | tells             | tells                    | +term, lost, tells
NODE_ONLINE_RESP   | .                 | record                   | +term, record, lost
QUERY              | shows             | shows                    | shows
REPORT             | complains         | complains                | complains
HANDOVER           | .                 | lost, freed              | +term, lost, freed
RESET              | shows             | shows                    | shows
ADMIN              | shows             | shows                    | shows
MEMBERS            | shows             | shows                    | shows
BOOTSTRAP          | shows             | shows                    | shows

following, from another | older             | same                     | newer
COMMON_RESP        | .                 | .                        | .
PING idle          | pong              | pong                     | +term, lost, pong
PING               | pong              | .                        | +term, votes, record, follows, pong
PONG               | x old_term        | .                        | +term, lost
VOTING pre         | no (old_term)     | no (promised)            | no (promised)
VOTING             | no (old_term)     | no (promised)            | no (promised)
VOT_RESP yes       | .                 | .                        | +term, lost
VOT_RESP no        | .                 | .                        | +term, lost
NODE_OFFLINE self  | gone              | gone                     | +term, lost, gone
NODE_OFFLINE third | probes            | probes                   | +term, lost, probes
NODE_ONLINE        | tells             | tells                    | +term, lost, tells
NODE_ONLINE_RESP   | .                 | record                   | +term, record, lost
QUERY              | shows             | shows                    | shows
REPORT             | complains         | complains                | complains
HANDOVER           | .                 | .                        | +term, lost
RESET              | shows             | shows                    | shows
ADMIN              | shows             | shows                    | shows
MEMBERS            | shows             | shows                    | shows
BOOTSTRAP          | shows             | shows                    | shows

leaderless         | older             | same                     | newer
COMMON_RESP        | .                 | .                        | .
PING idle          | pong              | pong                     | +term, pong
PING | pong | votes, record, follows, promises, pong | +term, votes, record, follows, promises, pong
PONG               | x old_term        | .                        | +term
VOTING pre         | no (old_term)     | grant                    | grant
VOTING             | no (old_term)     | votes, grant             | +term, votes, grant
VOT_RESP yes       | .                 | .                        | +term
VOT_RESP no        | .                 | .                        | +term
NODE_OFFLINE self  | gone              | gone                     | +term, gone
NODE_OFFLINE third | .                 | .                        | +term
NODE_ONLINE        | tells             | tells                    | +term, tells
NODE_ONLINE_RESP   | .                 | record                   | +term, record
QUERY              | shows             | shows                    | shows
REPORT             | complains         | complains                | complains
HANDOVER           | .                 | .                        | +term
RESET              | record, shows     | record, shows            | record, shows
ADMIN              | shows             | shows                    | shows
MEMBERS            | shows             | shows                    | shows
BOOTSTRAP          | shows             | shows                    | shows

pre-candidate      | older             | same                     | newer
COMMON_RESP        | .                 | .                        | .
PING idle          | pong              | pong                     | +term, falls, pong
PING | pong | votes, record, follows, promises, pong | +term, votes, record, follows, promises, pong
PONG               | x old_term        | .                        | +term, falls
VOTING pre         | no (old_term)     | grant                    | grant
VOTING             | no (old_term)     | votes, falls, grant      | +term, votes, falls, grant
VOT_RESP yes       | +term, candidate, asks | +term, candidate, asks   | +term, falls
VOT_RESP no        | .                 | .                        | +term, falls
NODE_OFFLINE self  | gone              | gone                     | +term, falls, gone
NODE_OFFLINE third | .                 | .                        | +term, falls
NODE_ONLINE        | tells             | tells                    | +term, falls, tells
NODE_ONLINE_RESP   | .                 | record, falls            | +term, record, falls
QUERY              | shows             | shows                    | shows
REPORT             | complains         | complains                | complains
HANDOVER           | .                 | .                        | +term, falls
RESET              | record, falls, shows | record, falls, shows     | record, falls, shows
ADMIN              | shows             | shows                    | shows
MEMBERS            | shows             | shows                    | shows
BOOTSTRAP          | shows             | shows                    | shows

candidate          | older             | same                     | newer
COMMON_RESP        | .                 | .                        | .
PING idle          | pong              | pong                     | +term, falls, pong
PING               | pong              | record, follows, promises, pong | +term, votes, record, follows, promises, pong
PONG               | x old_term        | .                        | +term, falls
VOTING pre         | no (old_term)     | grant                    | grant
VOTING             | no (old_term)     | no (voted)               | +term, votes, falls, grant
VOT_RESP yes       | .                 | elected, promises, ping  | +term, falls
VOT_RESP no        | .                 | .                        | +term, falls
NODE_OFFLINE self  | gone              | gone                     | +term, falls, gone
NODE_OFFLINE third | probes            | probes                   | +term, falls, probes
NODE_ONLINE        | tells             | tells                    | +term, falls, tells
NODE_ONLINE_RESP   | .                 | record, falls            | +term, record, falls
QUERY              | shows             | shows                    | shows
REPORT             | complains         | complains                | complains
HANDOVER           | .                 | .                        | +term, falls
RESET              | record, falls, shows | record, falls, shows     | record, falls, shows
ADMIN              | shows             | shows                    | shows
MEMBERS            | shows             | shows                    | shows
BOOTSTRAP          | shows             | shows                    | shows

elected, not active | older             | same                     | newer
COMMON_RESP        | .                 | .                        | .
PING idle          | pong              | pong                     | +term, falls, freed, hands over, pong
PING               | pong              | .                        | +term, votes, record, follows, hands over, pong
PONG               | x old_term        | enters                   | +term, falls, freed, hands over
VOTING pre         | no (old_term)     | no (promised)            | no (promised)
VOTING             | no (old_term)     | no (promised)            | no (promised)
VOT_RESP yes       | .                 | .                        | +term, falls, freed, hands over
VOT_RESP no        | .                 | .                        | +term, falls, freed, hands over
NODE_OFFLINE self  | gone              | gone                     | +term, falls, freed, gone, hands over
NODE_OFFLINE third | probes            | probes                   | +term, falls, freed, probes, hands over
NODE_ONLINE        | tells, ping       | tells, ping              | +term, falls, freed, hands over, tells
NODE_ONLINE_RESP   | .                 | .                        | +term, record, falls, freed, hands over
QUERY              | shows             | shows                    | shows
REPORT             | complains         | complains                | complains
HANDOVER           | .                 | .                        | +term, falls, freed, hands over
RESET              | record, falls, freed, shows | record, falls, freed, shows | record, falls, freed, shows
ADMIN              | shows             | shows                    | shows
MEMBERS            | shows             | shows                    | shows
BOOTSTRAP          | shows             | shows                    | shows

active             | older             | same                     | newer
COMMON_RESP        | .                 | .                        | .
PING idle          | pong              | pong                     | +term, leaves, freed, hands over, pong
PING | pong | . | +term, votes, record, leaves, follows, hands over, pong
PONG               | x old_term        | .                        | +term, leaves, freed, hands over
VOTING pre         | no (old_term)     | no (promised)            | no (promised)
VOTING             | no (old_term)     | no (promised)            | no (promised)
VOT_RESP yes       | .                 | .                        | +term, leaves, freed, hands over
VOT_RESP no        | .                 | .                        | +term, leaves, freed, hands over
NODE_OFFLINE self  | gone              | gone                     | +term, leaves, freed, gone, hands over
NODE_OFFLINE third | probes            | probes                   | +term, leaves, freed, probes, hands over
NODE_ONLINE        | tells, ping       | tells, ping              | +term, leaves, freed, hands over, tells
NODE_ONLINE_RESP   | .                 | .                        | +term, record, leaves, freed, hands over
QUERY              | shows             | shows                    | shows
REPORT             | complains         | complains                | complains
HANDOVER           | .                 | .                        | +term, leaves, freed, hands over
RESET              | shows             | shows                    | shows
ADMIN | leaves, freed, hands over, shows | leaves, freed, hands over, shows | leaves, freed, hands over, shows
MEMBERS            | ping, shows       | ping, shows              | ping, shows
BOOTSTRAP          | shows             | shows                    | shows

leaving            | older             | same                     | newer
COMMON_RESP        | .                 | .                        | .
PING idle          | pong              | pong                     | +term, pong
PING | pong | votes, record, follows, promises, pong | +term, votes, record, follows, promises, pong
PONG               | x old_term        | .                        | +term
VOTING pre         | no (old_term)     | no (leaving)             | no (leaving)
VOTING             | no (old_term)     | no (leaving)             | +term, no (leaving)
VOT_RESP yes       | .                 | .                        | +term
VOT_RESP no        | .                 | .                        | +term
NODE_OFFLINE self  | gone              | gone                     | +term, gone
NODE_OFFLINE third | .                 | .                        | +term
NODE_ONLINE        | tells             | tells                    | +term, tells
NODE_ONLINE_RESP   | .                 | record                   | +term, record
QUERY              | shows             | shows                    | shows
REPORT             | complains         | complains                | complains
HANDOVER           | .                 | .                        | +term
RESET              | record, shows     | record, shows            | record, shows
ADMIN              | shows             | shows                    | shows
MEMBERS            | shows             | shows                    | shows
BOOTSTRAP          | shows             | shows                    | shows

grace_period       | older             | same                     | newer
COMMON_RESP        | .                 | .                        | .
PING idle          | pong              | pong                     | +term, pong
PING | pong | votes, record, follows, promises, pong | +term, votes, record, follows, promises, pong
PONG               | x old_term        | .                        | +term
VOTING pre         | no (old_term)     | no (grace_period)        | no (grace_period)
VOTING             | no (old_term)     | no (grace_period)        | no (grace_period)
VOT_RESP yes       | .                 | .                        | +term
VOT_RESP no        | .                 | .                        | +term
NODE_OFFLINE self  | gone              | gone                     | +term, gone
NODE_OFFLINE third | .                 | .                        | +term
NODE_ONLINE        | tells             | tells                    | +term, tells
NODE_ONLINE_RESP   | .                 | record                   | +term, record
QUERY              | shows             | shows                    | shows
REPORT             | complains         | complains                | complains
HANDOVER           | .                 | .                        | +term
RESET              | record, shows     | record, shows            | record, shows
ADMIN              | shows             | shows                    | shows
MEMBERS            | shows             | shows                    | shows
BOOTSTRAP          | shows             | shows                    | shows

without voting right | older             | same                     | newer
COMMON_RESP        | .                 | .                        | .
PING idle          | pong              | pong                     | +term, pong
PING | pong | votes, record, follows, promises, pong | +term, votes, record, follows, promises, pong
PONG               | x old_term        | .                        | +term
VOTING pre         | no (old_term)     | no (lost_state)          | no (lost_state)
VOTING             | no (old_term)     | no (lost_state)          | +term, no (lost_state)
VOT_RESP yes       | .                 | .                        | +term
VOT_RESP no        | .                 | .                        | +term
NODE_OFFLINE self  | gone              | gone                     | +term, gone
NODE_OFFLINE third | .                 | .                        | +term
NODE_ONLINE        | tells             | tells                    | +term, tells
NODE_ONLINE_RESP   | .                 | record                   | +term, record
QUERY              | shows             | shows                    | shows
REPORT             | complains         | complains                | complains
HANDOVER           | .                 | .                        | +term
RESET              | record, shows     | record, shows            | record, shows
ADMIN              | shows             | shows                    | shows
MEMBERS            | shows             | shows                    | shows
BOOTSTRAP          | shows             | shows                    | shows

new, to found      | older             | same                     | newer
COMMON_RESP        | .                 | .                        | .
PING idle          | pong              | pong                     | +term, pong
PING               | x impossible_voters | x impossible_voters      | x impossible_voters
PONG               | x old_term        | .                        | +term
VOTING pre         | no (old_term)     | grant                    | grant
VOTING             | no (old_term)     | votes, grant             | +term, votes, grant
VOT_RESP yes       | .                 | .                        | +term
VOT_RESP no        | .                 | .                        | +term
NODE_OFFLINE self  | gone              | gone                     | +term, gone
NODE_OFFLINE third | .                 | .                        | +term
NODE_ONLINE        | tells             | tells                    | +term, tells
NODE_ONLINE_RESP   | x impossible_voters | x impossible_voters      | x impossible_voters
QUERY              | shows             | shows                    | shows
REPORT             | complains         | complains                | complains
HANDOVER           | .                 | .                        | +term
RESET              | record, shows     | record, shows            | record, shows
ADMIN              | shows             | shows                    | shows
MEMBERS            | shows             | shows                    | shows
BOOTSTRAP          | shows             | shows                    | shows

new, to join       | older             | same                     | newer
COMMON_RESP        | .                 | .                        | .
PING idle          | pong              | pong                     | +term, pong
PING | pong | votes, record, follows, promises, pong | +term, votes, record, follows, promises, pong
PONG               | x old_term        | .                        | +term
VOTING pre         | no (old_term)     | grant                    | grant
VOTING             | no (old_term)     | votes, record, grant     | +term, votes, record, grant
VOT_RESP yes       | .                 | .                        | +term
VOT_RESP no        | .                 | .                        | +term
NODE_OFFLINE self  | gone              | gone                     | +term, gone
NODE_OFFLINE third | .                 | .                        | +term
NODE_ONLINE        | tells             | tells                    | +term, tells
NODE_ONLINE_RESP   | record            | record                   | +term, record
QUERY              | shows             | shows                    | shows
REPORT             | complains         | complains                | complains
HANDOVER           | .                 | .                        | +term
RESET              | record, shows     | record, shows            | record, shows
ADMIN              | shows             | shows                    | shows
MEMBERS            | shows             | shows                    | shows
BOOTSTRAP          | shows             | shows                    | shows
"""


def _restarted(run_ms: float = 600, lost: int = 0, new: tuple[int, ...] = ()) -> World:
    """Three nodes that ran before, at term 5, connected but deaf, their grace period over. The epoch of
    node `lost` is not the one that the record names; those in `new` have no record."""
    world = World(3)
    world.disks = {n: Saved(5, 0, 0, SAVED, epoch=90 if n == lost else n) for n in world.settings}
    world.ran = set(world.settings)
    for n in new:
        world.disks[n] = replace(world.disks[n], record=NO_RECORD)
    for a in world.settings:
        for b in world.settings:
            world.cut(a, b)
    world.start()
    if run_ms:
        world.run(run_ms)
    return world


def _following() -> tuple[World, int]:
    world = _restarted()
    world.feed(2, packet(world, 1, Ping(1, True, SAVED, (2, 3))))
    return world, 2


def _campaigning(answers: int) -> tuple[World, int]:
    world = _restarted(0)
    world.run_until(lambda: world.state(1).role is Role.PRE_CANDIDATE)
    for _ in range(answers):
        world.feed(1, grant(world, 2))
    return world, 1


def _active() -> tuple[World, int]:
    world, me = _campaigning(2)
    world.feed(1, pong(world, 2))
    assert world.controller() == 1
    return world, me


def _leaving() -> tuple[World, int]:
    world = _restarted()
    world.feed(2, Leave())
    return world, 2


STANDS: dict[str, tuple[Callable[[], tuple[World, int]], int]] = {
    "following, from its controller": (_following, 1),
    "following, from another": (_following, 3),
    "leaderless": (lambda: (_restarted(), 2), 3),
    "pre-candidate": (lambda: _campaigning(0), 3),
    "candidate": (lambda: _campaigning(1), 3),
    "elected, not active": (lambda: _campaigning(2), 3),
    "active": (_active, 3),
    "leaving": (_leaving, 3),
    "grace_period": (lambda: (_restarted(100), 2), 3),
    "without voting right": (lambda: (_restarted(lost=2), 2), 3),
    "new, to found": (lambda: (_restarted(new=(1, 2, 3)), 2), 3),
    "new, to join": (lambda: (_restarted(new=(2,)), 2), 3),
}
"""How to get there, and who sends the message."""

MESSAGES = (
    "COMMON_RESP",
    "PING idle",
    "PING",
    "PONG",
    "VOTING pre",
    "VOTING",
    "VOT_RESP yes",
    "VOT_RESP no",
    "NODE_OFFLINE self",
    "NODE_OFFLINE third",
    "NODE_ONLINE",
    "NODE_ONLINE_RESP",
    "QUERY",
    "REPORT",
    "HANDOVER",
    "RESET",
    "ADMIN",
    "MEMBERS",
    "BOOTSTRAP",
)


def _message(kind: str, world: World, me: int, sender: int, term: int) -> Message:
    state = world.state(me)
    third = 6 - me - sender
    known = SAVED if term < state.term else state.record
    if state.is_new:  # what the sender would propose to it, or ask it with
        known = PROPOSED if world.state(sender).is_new else SAVED
    record = SAVED if term < state.term else replace(SAVED, config_term=term, version=9)
    campaign, leader_state = state.campaign, state.leader_state
    pre, round_ = (campaign.pre, campaign.round) if campaign else (False, 1)
    number = leader_state.number if leader_state else 7
    made: dict[str, Callable[[], Message]] = {
        "COMMON_RESP": lambda: CommonResp(1, Result.TERM_JUMP, "no"),
        "PING idle": lambda: Ping(0, False, None, ()),
        "PING": lambda: Ping(7, True, record, (1, 2, 3)),
        "PONG": lambda: Pong(number, term, state.record.id, 0, sender),
        "VOTING pre": lambda: Voting(True, 1, term + 1, known, Reason.TIMEOUT, 0, 0),
        "VOTING": lambda: Voting(False, 1, term, known, Reason.TIMEOUT, 0, 0),
        "VOT_RESP yes": lambda: VotResp(pre, round_, True, None, 0, sender, None),
        "VOT_RESP no": lambda: VotResp(pre, round_, False, Refusal.VOTED, 0, sender, None),
        "NODE_OFFLINE self": lambda: NodeOffline(sender, world.processes[sender].incarnation, "leave"),
        "NODE_OFFLINE third": lambda: NodeOffline(third, world.processes[third].incarnation, "unresponsive"),
        "NODE_ONLINE": lambda: NodeOnline(world.settings[sender].addresses[sender], 0, sender),
        "NODE_ONLINE_RESP": lambda: NodeOnlineResp(sender, term, record),
        "QUERY": lambda: Query("status"),
        "REPORT": lambda: Report("{}"),
        "HANDOVER": lambda: Handover(term, me),
        "RESET": lambda: Reset(made_record(0, 9, (1, 2), None, 1), False),
        "ADMIN": lambda: AdminCommand(AdminAction.TRANSFER, 0, 0, "", "ops"),
        "MEMBERS": lambda: MemberChange(MemberAction.ADD, 4, "tcp://127.0.0.1:7104"),
        "BOOTSTRAP": lambda: Bootstrap(tuple(world.settings[me].addresses.items())),
    }
    return made[kind]()


def _sent(effects: Effects, to: int) -> list[str]:
    words: list[str] = []
    for peer, envelope in effects.send:
        message: Any = envelope.message
        word = {
            Pong: "pong",
            Ping: "ping",
            NodeOnlineResp: "tells",
            CommonResp: "complains",
            Handover: "hands over",
            NodeOnline: "greets",
            NodeOffline: "leaves",
            Voting: "asks",
        }.get(type(message), "")
        if isinstance(message, VotResp):
            word = "grant" if message.granted else f"no ({message.reason})"
        if (peer == to or word == "asks") and word not in words:
            words.append(word)
    return words


def _change(role: str, kind: str, offset: int) -> str:
    """What one message does, in words."""
    bring, sender = STANDS[role]
    world, me = bring()
    state, term = world.state(me), world.state(me).term
    world.feed(me, packet(world, sender, Ping(0, False, None, ()), term))  # they have met
    machine = world.processes[me].machine
    before, was_active, refused = clone(state), machine.active(world.now_us), dict(state.refused)
    heard = packet(world, sender, _message(kind, world, me, sender, term + offset), term + offset)
    if kind in ("QUERY", "ADMIN", "RESET", "MEMBERS", "BOOTSTRAP"):
        heard = MessageReceived(replace(heard.envelope, sender=0, incarnation=0))
    effects = machine.step(heard, world.now_us)
    words = [f"x {reason}" for reason, count in state.refused.items() if count > refused.get(reason, 0)]
    words += ["+term"] if state.term > before.term else []
    vote, voted_before = (state.term, state.saved.voted_for), (before.term, before.saved.voted_for)
    words += ["votes"] if state.saved.voted_for == sender and vote != voted_before else []
    words += ["record"] if state.record != before.record and state.leader_state is None else []
    active = machine.active(world.now_us)
    if active is not was_active:
        words += ["leaves" if was_active else "enters"]
    elif state.role is not before.role and (state.controller is None or state.controller == before.controller):
        words += ["falls" if state.role is Role.FOLLOWER else state.role.value.replace("_", "-")]
    if state.controller != before.controller:
        words += ["follows" if state.controller is not None else "lost"]
    if (state.promise is None) is not (before.promise is None):
        words += ["freed" if state.promise is None else "promises"]
    words += ["gone"] if state.peers[sender].gone else []
    words += ["probes"] if effects.probe else []
    words += _sent(effects, sender)
    words += ["shows"] if effects.answer is not None else []
    return ", ".join(words) or "."


def _table(role: str) -> str:
    """The part of the matrix for one stand, as it is."""
    rows = [[kind, *(_change(role, kind, offset) for offset in (-1, 0, 1))] for kind in MESSAGES]
    rows.insert(0, [role, "older", "same", "newer"])
    lines = [" | ".join(f"{cell:{width}}" for cell, width in zip(row, (18, 17, 24, 0), strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def _cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]


@pytest.mark.parametrize("role", STANDS)
def test_the_matrix_says_what_each_stand_does_with_each_message(role: str) -> None:
    written = {_cells(part)[0][0]: part for part in MATRIX.strip().split("\n\n")}
    actual = _table(role)
    assert _cells(written[role]) == _cells(actual), f"it is now:\n\n{actual}\n"


def test_the_matrix_is_whole() -> None:
    parts = [_cells(part) for part in MATRIX.strip().split("\n\n")]
    assert [part[0][0] for part in parts] == list(STANDS)
    assert all([row[0] for row in part[1:]] == list(MESSAGES) for part in parts)
