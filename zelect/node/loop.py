"""One node: a poller loop around the machine.

A turn of the loop waits until something is ready, and then reads, in this order: links that opened or
closed, messages, what death probes found out, Redis' answers, the clock. Each of these is an event.
The machine makes a step for it, and what the step asks for is carried out in the order of `Effects`:

    event → machine → effects → save ▸ send ▸ publish

Nothing is sent before what it rests on is saved (R1). A turn that comes late reads everything that
waits before it judges any deadline (R14).
"""

from __future__ import annotations

import gc
import re
import signal
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import zmq

from zelect import wire
from zelect.config.loading import Config
from zelect.core.effects import Effects, Probe
from zelect.core.events import (
    DeathProven,
    Event,
    HealthChanged,
    JobEnded,
    Leave,
    LinkDown,
    LinkUp,
    MessageReceived,
    PeerConnected,
    PeerDisconnected,
    Started,
    Tick,
)
from zelect.core.lease import NEVER_US
from zelect.core.machine import Machine
from zelect.core.messages import CommonResp, Envelope, MalformedMessage, Message, Report, Result, type_of
from zelect.core.status import NodeStatus
from zelect.core.step import NOTHING
from zelect.core.timing import Proof
from zelect.node.failpoints import Failpoint
from zelect.node.history_recorder import HistoryRecorder
from zelect.node.leadership.handle import NodeHandle, controller_now
from zelect.node.reload import RunningConfig
from zelect.node.startup import bind, log_old_peers, log_start, open_state, publisher_of, transport_of
from zelect.node.storage.data_dir import StartAgain
from zelect.node.storage.peer_locks import PeerLocks
from zelect.node.transport.router import Received
from zelect.node.transport.transport import Change, LinkChange
from zelect.redis.clients import RedisClients
from zelect.redis.credentials import credentials_of
from zelect.security.authorization import NEEDS, Denied, caller_of, denied, signed
from zelect.security.keys import cluster_secret_of, read_keyring
from zelect.status.problems import answers_as
from zelect.status.report import NodeReport, encode, report_of
from zelect.system.clock import now_us
from zelect.system.log import DeferredLog, Log
from zelect.system.poller import Poller
from zelect.system.service_manager import Service, ServiceManager
from zelect.system.signals import SignalPipe, WakeupPipe

if TYPE_CHECKING:
    from zelect.node.http.snapshot import StatusPublisher

BREATH_US = 5_000
_BATCH = 64
_MOST_HEARD = 2**52  # room for as many later processes
_LINGER_US = 200_000
_LINGER_LEAST_US = 20_000
_GATHER_US = 2_999  # whole milliseconds are what a poll can wait


class LoopTiming:
    """How long the loop waits and reads, and whether a turn comes late (R14): what would then be taken for the
    silence of others may be this node's own.

    A late turn judges no campaign, so what was due stays due. The next turn must not be late for that alone, else
    a node that was frozen would spin and never campaign. It gets `BREATH_US`: after a freeze the messages have yet
    to come in from the kernel.
    """

    __slots__ = ("_late", "drain_us", "gather_until_us", "gather_us", "glance_us", "late_us")

    def __init__(self, heartbeat_us: int) -> None:
        self.late_us = heartbeat_us // 2
        """A turn that begins so much later than it was due is late."""
        self.drain_us = heartbeat_us // 4
        """How long a late turn reads: by then every peer was read, flood or not."""
        self.glance_us = heartbeat_us // 20
        """How long a usual turn reads on: few peers have much waiting, and a campaign should not wait for a flood."""
        self.gather_us = min(_GATHER_US, heartbeat_us // 20)
        """The answers to a round of heartbeats come within a millisecond, each at a moment of its own. An active
        controller loses nothing by reading them together: they count by the time of their PING."""
        self.gather_until_us = 0
        self._late = False

    def due_us(self, due_us: int, now_us: int) -> int:
        """When a turn that begins now is due, if something is due at `due_us`."""
        return max(due_us, now_us + BREATH_US) if self._late else due_us

    def judge(self, due_us: int, now_us: int) -> bool:
        """Whether the turn that was due at `due_us` is late."""
        self._late = now_us > due_us + self.late_us
        return self._late


class NodeLoop:
    """The world around one machine. `connect_to`: where to connect to instead of an address, as through a
    proxy. `handle`: what the process that runs jobs holds of this node. Raises
    `VoteStoreError`, `DataDirError`, `CannotBind`, `ConfigError`. Belongs to one thread, but for `handle`."""

    def __init__(
        self,
        config: Config,
        log: Log,
        connect_to: Mapping[str, str] | None = None,
        *,
        handle: NodeHandle | None = None,
    ) -> None:
        self.log = log
        self.handle = handle or NodeHandle()
        self.settings = settings = replace(config.settings(), guarded=handle is not None)
        keyring = read_keyring(config)
        self.running = RunningConfig(config, keyring)
        credentials, secret = credentials_of(config), cluster_secret_of(config)
        self.context = zmq.Context()
        self.poller = Poller()
        self.transport = transport_of(self.context, self.poller, config, keyring, log)
        self.connect_to = connect_to or {}
        self.publisher: StatusPublisher | None = None
        self.manager: ServiceManager | None = None
        """Is told how this node is doing, where the process is nothing but this node."""
        try:
            bind(self.transport.router, config)  # before anything on disk is touched: a taken port changes nothing
            if config.http.listen:
                self.publisher = publisher_of(config)
            self.data_dir, self.vote_store = open_state(config.node.data_dir, settings)
        except BaseException:
            if self.publisher is not None:
                self.publisher.close()
            self.transport.close()
            self.context.term()
            raise
        saved = self.vote_store.saved
        self.machine = Machine(settings, saved, ran_before=not self.vote_store.fresh, saves=self.vote_store.saves)
        self.redis = RedisClients(self.context, config, settings, credentials, saved.incarnation, log, secret)
        self.peer_locks = PeerLocks(settings.cluster)
        self.began_us = now_us()
        self.counters: Counter[str] = Counter()
        self.timing = LoopTiming(settings.timing.heartbeat_us)
        self.deferred_log = DeferredLog(log, settings.node)
        # For tests, off unless the environment asks for them.
        self.failpoint = Failpoint.from_environment()
        self.recorder = HistoryRecorder.from_environment(settings.node, saved)
        self.cluster_stops = False
        """SIGUSR1 came: all nodes are going to be stopped, and keep their votes meanwhile (R11)."""
        self._tick_due_us: int | None = None
        self._end_us = NEVER_US

    def run(self, wake: WakeupPipe | None = None) -> int:
        """Connect, run until asked to leave, leave gracefully. Closes `wake`: a `SignalPipe` by default,
        another pipe where the process does more than run this node."""
        wake = wake or SignalPipe()
        self.handle.wake_loop = wake.ring
        wake.ring()  # the process may have asked for something already
        try:
            self._open(wake)
            self.step(Started())
            while not self._may_end():
                self._turn(wake)
        finally:
            self.handle.close()
            if self.recorder is not None:
                self.recorder.close()
            self.deferred_log.write()
            self.handle.wait_for_jobs(wake.fd)
            wake.close()
            self.close()
        self.log.event("info", "node_ended")
        return 0

    def _open(self, wake: WakeupPipe) -> None:
        encrypted, lost = self.running.directory is not None, self.vote_store.lost
        log_start(self.log, self.running.config, self.data_dir, encrypted=encrypted, lost=lost)
        log_old_peers(self.log, self.settings.addresses, dict(self.vote_store.saved.record.addresses))
        self.redis.start()
        self._connect(self.machine.state.addresses)
        self.poller.register(self.redis.registry.pipe, zmq.POLLIN)
        self.poller.register(self.redis.witness.pipe, zmq.POLLIN)
        self.poller.register(wake.fd, zmq.POLLIN)
        if isinstance(wake, SignalPipe):
            gc.collect()
            gc.freeze()  # what lives now lives for ever: later collections need not look at it
        if self.publisher is not None:
            self.publisher.open(self.settings.cluster, self.settings.node, self.handle, self.log)

    def _connect(self, addresses: Mapping[int, str]) -> None:
        """Hold connections to these nodes, this one left out."""
        peers = {node: self.connect_to.get(at, at) for node, at in addresses.items() if node != self.settings.node}
        configured = {node: self.connect_to.get(at, at) for node, at in self.settings.addresses.items()}
        self.transport.connect(peers, configured)

    def _reload(self) -> None:
        manager, before = self.manager, self.running.config.peers
        if manager is not None:
            manager.reloading()
        changed = self.running.reload(self.transport, self.log, self.counters, new=self.machine.state.is_new)
        if changed is not None:
            self.step(changed)
        if self.running.config.peers != before:
            self._list_members(self.running.config.settings().addresses)
        if manager is not None:
            manager.reloaded()

    def _list_members(self, addresses: Mapping[int, str]) -> None:
        """The configuration lists these members now. Who belongs, the record says (R10)."""
        self.settings = replace(self.settings, addresses=addresses)
        self.machine.list_members(addresses)
        self._connect(self.machine.state.addresses)
        log_old_peers(self.log, addresses, dict(self.machine.state.record.addresses))

    def close(self) -> None:
        """Give everything back; for a node that never ran, or whose run is over."""
        if self.manager is not None:
            self.manager.close()
        if self.publisher is not None:
            self.publisher.close()
        self.redis.close()
        self.transport.close()
        self.context.term()
        self.vote_store.close()
        self.data_dir.close()

    def _may_end(self) -> bool:
        """Whether a node that has left may end: it stays until it hears a successor, but not long."""
        if self._end_us == NEVER_US:
            return False
        state, now = self.machine.state, now_us()
        if now >= self._end_us:
            return True
        left_for_us = now - (self._end_us - _LINGER_US)
        settled = state.controller is not None or not any(peer.linked for peer in state.peers.values())
        return settled and left_for_us >= _LINGER_LEAST_US

    # -- a turn: wait, then read ----------------------------------------------------------------------

    def _turn(self, wake: WakeupPipe) -> None:
        timing = self.timing
        due_us = timing.due_us(self._due_us(), now_us())
        ready = self._wait(due_us)
        began_us = now_us()
        late = timing.judge(due_us, began_us)
        if late:
            self.counters["loop_late"] += 1
        if wake.fd in ready:
            self._take_signals(wake)
            self._carry_out_requests()
        self._read(ready, timing.drain_us if late else 0, everywhere=late)
        if now_us() >= self._machine_due_us():
            # What waits may renew what is about to be judged; after an idle poll nothing does.
            if (late or ready) and self.transport.router.backlog():
                self._read(ready, timing.drain_us if late else timing.glance_us, everywhere=True)
            if now_us() >= self._machine_due_us():
                if not late and timing.judge(began_us, now_us()):  # the process stood still in the middle of this turn
                    late = True
                    self.counters["loop_late"] += 1
                self.step(Tick(late))
                if self.machine.active(now_us()):
                    timing.gather_until_us = now_us() + timing.gather_us

    def _due_us(self) -> int:
        due_us = min(self._machine_due_us(), self.transport.deadline_us(), self._end_us)
        if self.publisher is not None:
            if self.publisher.is_due():
                self.publisher.publish(self._report(self.machine.status(now_us())))
            due_us = min(due_us, self.publisher.due_us)
        if self.manager is not None:
            self.manager.tell(self._service())
            due_us = min(due_us, self.manager.due_us)
        return due_us

    def _service(self) -> Service:
        """A new node is ready at once: others that are to found the cluster with it may be started after it."""
        state, now = self.machine.state, now_us()
        active, leaving = self.machine.active(now), state.leaving or self.handle.asked_to_leave
        controller = 0 if state.controller is None else state.controller.id
        return Service(state.is_new or state.votes(now), leaving, active, controller, state.term)

    def _machine_due_us(self) -> int:
        """The machine's deadline, worked out once after its newest step."""
        if self._tick_due_us is None:
            self._tick_due_us = self.machine.deadline_us()
        return self._tick_due_us

    def _wait(self, due_us: int) -> Mapping[object, int]:
        """What is ready, at `due_us` at the latest. The log is written while there is nothing better to do."""
        # Round up: waking a fraction of a millisecond early would only spin.
        now = now_us()
        wait_ms = max(0, min(60_000, -((now - due_us) // 1000)))
        if self.deferred_log.facts:
            if wait_ms and not self.deferred_log.is_full:
                ready = self.poller.poll(0)
                if ready:
                    return ready
            if wait_ms or self.deferred_log.is_full:
                self.deferred_log.write()
        gather_ms = min(wait_ms, (self.timing.gather_until_us - now) // 1000)
        if gather_ms > 0:
            ready = self.poller.poll(gather_ms, eager=False)
            if ready:
                return ready
            wait_ms -= gather_ms
        return self.poller.poll(wait_ms)

    def _take_signals(self, wake: WakeupPipe) -> None:
        signals = set(wake.take())
        self.cluster_stops = self.cluster_stops or signal.SIGUSR1 in signals
        if {signal.SIGTERM, signal.SIGINT} & signals:
            self.handle.ask_to_leave()
        if signal.SIGHUP in signals:
            self.handle.reload()

    def _carry_out_requests(self) -> None:
        """What the process asked for by the handle: the files are to be read again, its health has changed, its job
        has ended, or the node is to leave (R6, R8)."""
        handle, machine = self.handle, self.machine
        if handle.reload_requests != self.running.requests:
            self.running.requests = handle.reload_requests
            self._reload()
        if handle.healthy is not machine.state.healthy:
            self.step(HealthChanged(handle.healthy))
        if machine.pending_handover_term and not handle.has_jobs_in(machine.pending_handover_term):
            self.step(JobEnded())
        if handle.asked_to_leave and not handle.has_jobs:
            self.step(Leave(self.cluster_stops))

    def _read(self, ready: Mapping[object, int], within_us: int, everywhere: bool) -> None:
        """Read everything that came in: links first, they show which peers died; then messages, one batch, or as
        many as `within_us` allows. `ready` is the poller's answer; look `everywhere` when that is
        older than what may have come."""
        transport, router = self.transport, self.transport.router
        for change in transport.service(ready):
            self.step(_event_of(change))
        for peer, payload in transport.take_answers() if transport.answers else ():
            self._take_answer(peer, payload)
        end_us = now_us() + within_us
        while everywhere or router.has_messages(ready):
            batch = router.receive(_BATCH)
            for received in batch:
                self._receive(received)
            if len(batch) < _BATCH or now_us() >= end_us:
                break
        for verdict in transport.take_verdicts() if transport.verdicts else ():
            self.log.event("info", "probe_ended", peer=verdict.peer, evidence=verdict.evidence, detail=verdict.detail)
            if verdict.evidence is not None:
                self.step(DeathProven(verdict.peer, verdict.incarnation, verdict.evidence))
        redis = self.redis
        for event in redis.receive_registry() if everywhere or redis.registry.pipe in ready else ():
            self.step(event)
        for answer in redis.receive_witness() if everywhere or redis.witness.pipe in ready else ():
            self.step(answer)

    def _receive(self, received: Received) -> None:
        """One message: decoded, judged by whose it is, and given to the machine."""
        directory = self.running.directory
        if directory is not None and caller_of(received, directory) is None:
            self.counters["refused_key_removed"] += 1
            self.transport.router.disconnect(received, "key_removed")
            return
        try:
            envelope = wire.decode(received.payload, self.running.config.limits.max_message_bytes)
        except MalformedMessage as error:
            self.counters[f"malformed_{error.reason}"] += 1
            details = {"reason": error.reason, "origin": received.origin, "bytes": len(received.payload)}
            self.log.limited(error.reason, "warning", "frame_refused", **details)
            return
        self.counters["received"] += 1
        if directory is not None or type(envelope.message) in NEEDS:  # in plain text members may say all of theirs
            denial = denied(received, envelope, directory)
            if denial is not None:
                self._deny(received, envelope, denial)
                return
            envelope = signed(received, envelope, directory)
        if isinstance(envelope.message, CommonResp):
            self._heed(envelope)
        if self.publisher is not None:
            self.publisher.measure_round_trip(self.machine.state.leader_state, envelope)
        if received.unproven and envelope.cluster == self.settings.cluster:
            self.transport.router.mark_valid(received)
        if received.process == (envelope.sender, envelope.incarnation):
            self.step(MessageReceived(envelope), received.route)
        else:
            self._receive_first(received, envelope)

    def _receive_first(self, received: Received, envelope: Envelope) -> None:
        """A message of another process than the newest one over this connection, or the first one. What closed
        before it came happens before it. Afterwards the connection counts as one that this process made (R9), if it
        is that of a peer; with the first one its lock is looked at, while it lives."""
        router, sender, incarnation = self.transport.router, envelope.sender, envelope.incarnation
        for change in router.take_changes(look=True):
            self.step(_event_of(change))
        self.step(MessageReceived(envelope), received.route)
        known = self.machine.state.peers.get(sender)
        if known is None or known.incarnation != incarnation or envelope.cluster != self.settings.cluster:
            return
        router.mark_process(received, (sender, incarnation))
        for change in router.take_changes():
            self.step(_event_of(change))
            path = self._data_dir_of(change.peer)
            if change.up and path is not None and self.settings.timing.proof is not Proof.NONE:
                self.peer_locks.look(path, change.peer, change.incarnation)

    def _heed(self, envelope: Envelope) -> None:
        """Raise `StartAgain` where a peer remembers a later process of this node, which has no data. One that has its
        data began later than all its earlier ones: then another process has its id, and must not be outdone."""
        state, saved, heard = self.machine.state, self.vote_store.saved, _incarnation_heard(envelope.message)
        known = envelope.cluster == self.settings.cluster and envelope.sender in state.peers
        if known and state.is_new and saved.incarnation < heard <= _MOST_HEARD:
            self.vote_store.save(replace(saved, incarnation=heard))
            self.log.event("warning", "earlier_process_remembered", by=envelope.sender, incarnation=heard)
            raise StartAgain(self.settings.node, saved.incarnation, heard)

    def _take_answer(self, peer: int, payload: bytes) -> None:
        """What came back over the link to `peer`: a complaint of its node, or nothing that is worth looking at."""
        try:
            envelope = wire.decode(payload, self.running.config.limits.max_message_bytes)
        except MalformedMessage:
            self.counters["malformed_answers"] += 1
            return
        if not isinstance(envelope.message, CommonResp):
            return
        wrong = answers_as(self.settings.cluster, peer, envelope)
        if wrong:
            self.transport.reject(peer, wrong)
            self.log.limited(f"{peer} {wrong}", "error", "wrong_node_answered", peer=peer, problem=wrong)
        if (envelope.cluster, envelope.sender) == (self.settings.cluster, peer):
            self.step(MessageReceived(envelope))

    # -- a step: save, send, publish ------------------------------------------------------------------

    def step(self, event: Event, route: bytes = b"") -> None:
        """Let `event` happen, and what follows from it at once. The effects of each step of the machine are carried
        out from top to bottom (R1). `route`: to the client that is to be answered, where the event is its query."""
        handle, failpoint, recorder = self.handle, self.failpoint, self.recorder
        while True:
            self._tick_due_us = None
            at_us = now_us()
            effects = self.machine.step(event, at_us)
            # The end of a leadership is shown at once, its beginning only after what it rests on is saved and
            # sent (R1, R7).
            lease = self.machine.lease
            if lease is None and handle.lease is not None:
                handle.withdraw()
            if recorder is not None:
                recorder.before(event, self.machine.state)
            if effects.save is not None:
                if failpoint is not None:
                    failpoint("before_save", effects)
                self.vote_store.save(effects.save)
                self.machine.saved_in(now_us() - at_us)
                if failpoint is not None:
                    failpoint("after_save", effects)
            if effects.connect is not None:
                self._connect(dict(effects.connect))
            if recorder is not None:
                recorder.saved(effects, self.machine.state)
            if effects is not NOTHING:
                self._send(effects, route)
            handle.votes = self.machine.state.votes(at_us)
            handle.update(lease, controller_now(self.machine, handle.controller))
            if effects is not NOTHING:
                self._publish(effects, at_us)
            if recorder is not None:
                recorder.after(effects, self.machine.state)
            if effects.leave:
                self._end_us = now_us() + _LINGER_US
            term = self.machine.pending_handover_term
            if not term or handle.has_jobs_in(term):
                return
            event, route = JobEnded(), b""  # no job ever began in it

    def _send(self, effects: Effects, route: bytes) -> None:
        encoded: dict[int, bytes] = {}  # a broadcast is one envelope, encoded once
        for to, envelope in effects.send:
            payload = encoded.get(id(envelope))
            if payload is None:
                payload = encoded[id(envelope)] = wire.encode(envelope)
            link = self.transport.links.get(to)  # none to a node that was removed in this very step
            if link is not None and link.send(wire.addressed(payload, to)):
                self.counters["sent"] += 1
        if effects.answer is not None:
            self._answer(route, effects.answer)

    def _publish(self, effects: Effects, at_us: int) -> None:
        """What no peer waits for."""
        failpoint = self.failpoint
        if failpoint is not None:
            failpoint("after_send", effects)
            if failpoint.breaks_authenticator(effects):
                self.transport.router.break_authenticator()
        if effects.witness:
            self.redis.witness.submit(effects.witness)
        if effects.publish:
            state = self.machine.state
            self.redis.registry.know(state.addresses, state.record.cluster_id)
            self.redis.registry.submit(effects.publish)
            if failpoint is not None:
                failpoint("after_publish", effects)
        for probe in effects.probe:
            self._probe(probe)
        if effects.facts:
            self.deferred_log.add(effects.facts, at_us)
            if self.publisher is not None:
                self.publisher.count(effects.facts)

    def _probe(self, probe: Probe) -> None:
        """Ask the peer's kernel, and its lock where its data directory is known here."""
        peer, incarnation, path = probe.peer, probe.incarnation, self._data_dir_of(probe.peer)
        if path is None:
            self.transport.probe(peer, incarnation)
            return
        self.transport.probe(peer, incarnation, lambda: self.peer_locks.is_free(path, peer, incarnation))

    def _data_dir_of(self, node: int) -> Path | None:
        """The data directory of a peer on this host."""
        return next((peer.data_dir for peer in self.running.config.peers if peer.id == node), None)

    # -- answers to clients -----------------------------------------------------------------------------

    def _answer(self, route: bytes, answer: NodeStatus | CommonResp) -> None:
        """Answer over the connection that the question came on; peers are never answered so. Dropped, and counted,
        when its sender is gone."""
        message = Report(encode(self._report(answer))) if isinstance(answer, NodeStatus) else answer
        saved = self.machine.state.saved
        envelope = Envelope(
            cluster=self.settings.cluster,
            sender=self.settings.node,
            incarnation=saved.incarnation,
            settings=self.settings.digest(),
            generation=saved.record.generation,
            cluster_id=saved.record.cluster_id,
            term=saved.term,
            message=message,
        )
        self.transport.router.reply(route, wire.encode(envelope))

    def _report(self, status: NodeStatus) -> NodeReport:
        """What this node says of itself: what the machine knows, and what only the process does."""
        problem_of = self.transport.problem_of
        peers = tuple(replace(peer, problem=problem_of(peer.id) or peer.problem) for peer in status.peers)
        status = replace(status, peers=peers)
        parts: dict[str, Mapping[str, int]] = {
            "refused_": status.refused_by_gate,
            "link_": self.transport.counters,
            "registry_": self.redis.registry.counters,
            "witness_": self.redis.witness.counters,
        }
        counters = dict(self.counters)
        counters |= {prefix + name: count for prefix, part in parts.items() for name, count in part.items()}
        counters["log_dropped"] = self.log.dropped
        return report_of(
            status,
            cluster=self.settings.cluster,
            address=self.settings.address,
            redis=self.redis.report(),
            counters=counters,
            reload_problem=self.running.problem,
            began_us=self.began_us,
        )

    def _deny(self, received: Received, envelope: Envelope, denial: Denied) -> None:
        """Count and log that `envelope` goes no further; answer where there is something to explain."""
        self.counters[f"refused_{denial.reason}"] += 1
        caller = caller_of(received, self.running.directory)
        about = type_of(envelope.message)
        details = {"type": about.name, "sender": envelope.sender, "reason": denial.reason, "origin": received.origin}
        key_of = caller.name if caller else ""
        self.log.limited(denial.reason, "warning", "message_denied", **details, key_of=key_of)
        if denial.detail:
            self._answer(received.route, CommonResp(int(about), Result.FORBIDDEN, denial.detail))


def _incarnation_heard(message: Message) -> int:
    """Which process a peer remembers that refuses this one as an earlier one; 0: it is no such refusal."""
    if not isinstance(message, CommonResp) or message.result is not Result.OLD_INCARNATION:
        return 0
    found = re.match(r"seen earlier with incarnation (\d{1,16}):", message.detail)
    return int(found[1]) if found else 0


def _event_of(change: Change) -> Event:
    """What a change of a connection is to the machine."""
    if isinstance(change, LinkChange):
        return LinkUp(change.peer) if change.up else LinkDown(change.peer)
    kind = PeerConnected if change.up else PeerDisconnected
    return kind(change.peer, change.incarnation)
