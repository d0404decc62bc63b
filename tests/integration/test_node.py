"""One real node whose peers are played by the test: what it says rests on what it saved (R1, R4), and
it does not trust itself after a turn of its loop that came late (R14)."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from typing import TypeVar

import pytest
import zmq

from tests.support.clusters import CALM, Cluster, Fleet
from tests.support.waiting import wait_until
from zelect.core.messages import (
    CommonResp,
    Envelope,
    Message,
    NodeOnline,
    Ping,
    Pong,
    Reason,
    Refusal,
    Result,
    Type,
    Voting,
    VotResp,
)
from zelect.core.quorum import Record
from zelect.core.timing import Timing
from zelect.node.storage.vote_store import SLOT_BYTES
from zelect.system.clock import now_us
from zelect.wire import decode, encode

T = TypeVar("T")

NODE, OTHER = 1, 3
TERM = 7


class Played:
    """The peers of node `NODE` of `cluster`: what they are told is kept, and they say what the test
    wants them to."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.heard: list[Envelope] = []
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._digest = cluster.config(NODE).settings().digest()
        self._ears: dict[int, zmq.Socket[bytes]] = {}
        self._heard_at: dict[int, list[Envelope]] = {}
        for peer in cluster.ids:
            if peer != NODE:
                self._ears[peer] = ear = self._context.socket(zmq.ROUTER)
                ear.bind(cluster.addresses[peer])
        self._mouth = self._context.socket(zmq.DEALER)
        self._mouth.connect(cluster.addresses[NODE])

    def say(self, peer: int, term: int, message: Message, cluster_id: int = 0) -> None:
        incarnation = peer  # its first and only one
        head = (self.cluster.name, peer, incarnation, self._digest, term)
        self._mouth.send(encode(Envelope(*head, message, cluster_id=cluster_id)))

    def listen(self) -> list[Envelope]:
        """Everything that was heard so far."""
        for peer, ear in self._ears.items():
            while ear.poll(0):
                envelope = decode(ear.recv_multipart()[-1])
                self.heard.append(envelope)
                self._heard_at.setdefault(peer, []).append(envelope)
        return self.heard

    def listen_at(self, peer: int) -> list[Envelope]:
        """What was heard so far at the address of `peer`."""
        self.listen()
        return self._heard_at.get(peer, [])

    def answer(self) -> VotResp:
        """The answer to a vote that was asked for."""
        wait_until(lambda: self.told(VotResp), what="an answer")
        return self.told(VotResp)[0]

    def told(self, kind: type[T]) -> list[T]:
        """The messages of one type that were heard so far."""
        return [one.message for one in self.listen() if isinstance(one.message, kind)]

    def greeted(self) -> None:
        """Wait until the node has connections to its peers."""
        wait_until(lambda: len(self.told(NodeOnline)) == len(self._ears), what="the node's greetings")

    def ask(self) -> None:
        """Ask the node, which is new, for its vote to found a cluster."""
        record = self.record(0, 0)
        self.say(OTHER, TERM, Voting(False, 1, TERM, record, Reason.TIMEOUT, 0, 0))

    def record(self, config_term: int, version: int) -> Record:
        """A record that names the node by what it told of itself."""
        epochs = {NODE: self.told(NodeOnline)[-1].epoch}
        return Record(
            config_term,
            version,
            self.cluster.ids,
            epochs=tuple(epochs.get(node, node) for node in self.cluster.ids),
            cluster_id=7,
            addresses=tuple(sorted(self.cluster.addresses.items())),
        )

    def close(self) -> None:
        self._context.destroy(linger=0)


@pytest.fixture
def played(fleet: Fleet) -> Iterator[Played]:
    made = Played(fleet.cluster(timing=CALM))
    try:
        yield made
    finally:
        made.close()


def test_r2_each_message_says_whom_it_is_for(played: Played) -> None:
    """A broadcast is encoded once, and addressed to each."""
    played.cluster.start(NODE)
    played.greeted()
    peers = sorted(set(played.cluster.ids) - {NODE})
    assert [
        [heard.to for heard in played.listen_at(peer) if isinstance(heard.message, NodeOnline)] for peer in peers
    ] == [[peer] for peer in peers]


def test_r16_a_new_node_begins_again_later_than_what_its_peers_remember(played: Played) -> None:
    """Its data was lost, and its clock is behind: else it would be refused until its clock has caught up."""
    played.cluster.start(NODE)
    played.greeted()
    first = played.listen()[0].incarnation
    for heard in (2**53 - 1, first - 1, first + 10**9):
        detail = f"seen earlier with incarnation {heard}: a clock is slow, or the id is used twice"
        played.say(OTHER, 0, CommonResp(int(Type.NODE_ONLINE), Result.OLD_INCARNATION, detail))
    wait_until(lambda: played.listen()[-1].incarnation != first, 30, what="begun again")
    assert played.listen()[-1].incarnation == first + 10**9 + 1
    (fact,) = played.cluster.events(NODE, "earlier_process_remembered")
    assert (fact["by"], fact["incarnation"]) == (OTHER, first + 10**9)


def test_r1_a_vote_is_on_disk_when_its_answer_arrives(played: Played) -> None:
    played.cluster.start(NODE)
    played.greeted()
    played.ask()
    assert played.answer().granted
    saved = played.cluster.saved(NODE)
    assert (saved.term, saved.voted_for) == (TERM, OTHER)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux to limit the files of another process")
def test_r1_a_vote_that_could_not_be_saved_is_not_sent(played: Played) -> None:
    played.cluster.start(NODE)
    played.greeted()
    limits = (SLOT_BYTES, resource.RLIM_INFINITY)  # room for the log and the slot that is written, none for another
    resource.prlimit(played.cluster.processes[NODE].pid, resource.RLIMIT_FSIZE, limits)
    played.ask()
    assert played.cluster.exit_code(NODE) == 3
    assert played.cluster.saved(NODE).voted_for == 0
    assert played.told(VotResp) == []


def test_r4_a_node_that_restarts_is_silent_and_knows_it(played: Played) -> None:
    played.cluster.start(NODE)
    played.greeted()
    played.cluster.kill(NODE)
    played.heard.clear()
    played.cluster.start(NODE)
    played.greeted()
    played.ask()
    answer = played.answer()
    assert (answer.granted, answer.reason) == (False, Refusal.GRACE_PERIOD)


def test_r14_a_follower_that_overslept_campaigns_in_the_turn_after_the_late_one(fleet: Fleet) -> None:
    """Its controller is silent, and nothing else happens that would wake it again."""
    played = Played(fleet.cluster())
    try:
        played.cluster.start(NODE)
        played.greeted()
        record = played.record(TERM, 1)
        played.say(OTHER, TERM, Ping(1, True, record, (NODE, 2)), record.cluster_id)
        wait_until(lambda: any(pong.number == 1 for pong in played.told(Pong)), what="the node follows")
        played.cluster.freeze(NODE)
        until_us = now_us() + 3 * Timing().promise_us
        wait_until(lambda: now_us() > until_us)
        played.heard.clear()
        played.cluster.thaw(NODE)
        wait_until(lambda: played.told(Voting), what="a campaign")
        assert played.cluster.counters(NODE)["loop_late"] > 0
    finally:
        played.close()
