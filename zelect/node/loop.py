"""One node: the poller loop around the machine.

Each turn of the loop goes one way: connections' changes, messages, the store's answers, proofs of
death, then the clock. What the machine wants done is carried out from top to bottom of its
`Effects`: save, send, publish (R1). A turn that comes late drains everything that waits before
any deadline is judged (R14).
"""

from __future__ import annotations

import gc
import os
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
    ControllerHint,
    DeathProven,
    Event,
    HealthChanged,
    JobEnded,
    Leave,
    LinkDown,
    LinkUp,
    MessageReceived,
    Started,
    Tick,
)
from zelect.core.lease import NEVER_US
from zelect.core.machine import Machine
from zelect.core.messages import MalformedMessage, Report
from zelect.core.status import NodeStatus
from zelect.core.step import NOTHING
from zelect.node.deferred_log import DeferredLog
from zelect.node.failpoints import Failpoint
from zelect.node.history_recorder import HistoryRecorder
from zelect.node.leadership.handle import NodeHandle, controller_now
from zelect.node.loop_delay import LoopDelay
from zelect.node.reload import reload
from zelect.node.replies import deny, reply
from zelect.node.startup import open_state, tell_start, transport_of
from zelect.node.storage.data_dir import holder, lock_evidence
from zelect.node.transport.router import Received
from zelect.redis.credentials import credentials_of
from zelect.redis.registry import RegistryHint
from zelect.redis.status import RedisStatus, redis_clients
from zelect.security.authorization import caller_of, denied, signed
from zelect.security.keys import read_keyring
from zelect.status.report import NodeReport, encode, report_of
from zelect.system.clock import now_us
from zelect.system.log import Log
from zelect.system.poller import Poller
from zelect.system.signals import SignalPipe, WakeupPipe
from zelect.system.sockets import CannotBind

if TYPE_CHECKING:
    from zelect.node.http.snapshot import StatusPublisher

__all__ = ["NodeLoop"]

_BATCH = 64
_LINGER_US = 200_000
_LINGER_LEAST_US = 20_000
_GATHER_US = 2_999  # whole milliseconds are what a poll can wait


class NodeLoop:
    """The world around one machine. `connect_to`: where to connect to a peer when not at its address, as
    through a proxy. `handle`: what the process that runs jobs holds of this node. Raises
    `VoteStoreError`, `DataDirError`, `CannotBind`, `ConfigError`. Belongs to one thread, but for `handle`."""

    def __init__(
        self,
        config: Config,
        log: Log,
        connect_to: Mapping[int, str] | None = None,
        *,
        handle: NodeHandle | None = None,
    ) -> None:
        self.config = config
        self.log = log
        self.settings = settings = replace(config.settings(), guarded=handle is not None)
        keyring = read_keyring(config)
        self.directory = None if keyring is None else keyring.directory
        credentials = credentials_of(config)
        self.context = zmq.Context()
        self.poller = Poller()
        self.transport = transport_of(self.context, self.poller, config, keyring, connect_to or {}, log)
        self.window: StatusPublisher | None = None
        try:
            self._bind()  # before anything on disk is touched: a taken port changes nothing
            if config.http.listen:
                from zelect.node.http.snapshot import StatusPublisher  # a node without [http] does without

                self.window = StatusPublisher(config)
            self.data_dir, self.vote_store = open_state(config.node.data_dir, settings)
        except BaseException:
            if self.window is not None:
                self.window.close()
            self.transport.close()
            self.context.term()
            raise
        saved = self.vote_store.saved
        self.machine = Machine(settings, saved, ran_before=not self.vote_store.fresh)
        self.began_us = now_us()
        self.failpoint = Failpoint(os.environ.get("ZELECT_FAILPOINT", ""))
        self.counters: Counter[str] = Counter()
        self.reload_problem = ""
        self.reloads = 0  # how many requests of the handle were carried out
        self.deferred_log = DeferredLog(log, settings.node)
        self.recorder = HistoryRecorder.wanted(settings.node, saved)
        self.handle = handle or NodeHandle()
        self.done_us = NEVER_US
        # The answers to a round of heartbeats come within a millisecond, each in a moment of its
        # own; active nothing is lost by reading them together. They count by their PING's time.
        self.gather_us = min(_GATHER_US, settings.timing.heartbeat_us // 20)
        self.gather_until_us = 0
        # How long to read before judging (R14): every peer has had its turn by then, flood or not.
        self.drain_us = settings.timing.heartbeat_us // 4
        # After a usual turn nobody has much waiting, and a campaign should not wait for a flood.
        self.glance_us = settings.timing.heartbeat_us // 20
        self.due_us: int | None = None
        self.redis_status = RedisStatus(log, config)
        self.data_dirs: dict[int, Path] = {p.id: p.data_dir for p in config.peers if p.data_dir is not None}
        self.registry, self.witness = redis_clients(self.context, config, settings, credentials, saved.incarnation)

    # -- life ---------------------------------------------------------------------------------------

    def _bind(self) -> None:
        """Open the authenticator. Where it is held by this very node, started before, that is said."""
        try:
            self.transport.bind()
        except CannotBind as error:
            me = self.config.node
            pid = holder(me.data_dir, self.config.cluster.name, me.id)
            if not pid:
                raise
            runs = f"node {me.id} runs already, as process {pid} with data_dir {me.data_dir}; stop that one first"
            raise CannotBind(error.address, error.code, runs) from error

    def run(self, wake: WakeupPipe | None = None) -> int:
        """Connect, loop until told to go, leave in good order. Closes `wake`, which is a `WakeupPipe` where
        the process is not this node's own."""
        wake = wake or SignalPipe()
        self.handle.wake_loop = wake.ring
        wake.ring()  # the process may have asked for something already
        try:
            self.registry.start()
            self.witness.start()
            self.transport.connect()
            self.poller.register(self.registry.pipe, zmq.POLLIN)
            self.poller.register(self.witness.pipe, zmq.POLLIN)
            self.poller.register(wake.fileno(), zmq.POLLIN)
            tell_start(self)
            if isinstance(wake, SignalPipe):
                gc.collect()
                gc.freeze()  # what lives now lives for ever: later collections need not look at it
            if self.window is not None:
                self.window.open(self.settings.cluster, self.settings.node, self.handle, self.log)
            self.step(Started())
            self._loop(wake)
        finally:
            self.handle.close()
            if self.recorder is not None:
                self.recorder.close()
            self.deferred_log.tell()
            self.handle.wait_for_jobs(wake.fileno())
            wake.close()
            self.close()
        self.log.event("info", "node_ended")
        return 0

    def close(self) -> None:
        """Give everything back; for a node that never ran, or whose run is over."""
        if self.window is not None:
            self.window.close()
        self.witness.close(within_s=0.1)
        self.registry.close(within_s=0.5)
        self.transport.close()
        self.context.term()
        self.vote_store.close()
        self.data_dir.close()

    def _loop(self, wake: WakeupPipe) -> None:
        loop_delay, wakeup = LoopDelay(self.settings.timing.heartbeat_us // 2), wake.fileno()
        while True:
            due_us = min(self._machine_due_us(), self.transport.deadline_us(), self.done_us)
            if self.window is not None:
                if self.window.is_due():
                    self.window.publish(self._report(self.machine.status(now_us())))
                due_us = min(due_us, self.window.due_us)
            due_us = loop_delay.due_us(due_us, now_us())
            ready = self._wait(due_us)
            late = loop_delay.judge(due_us, now_us())
            if late:
                self.counters["loop_late"] += 1
            if wakeup in ready:
                signals = set(wake.take())
                if {signal.SIGTERM, signal.SIGINT} & signals:
                    self.handle.ask_to_leave()
                if signal.SIGHUP in signals:
                    self.handle.reload()
                self._carry_out_requests()
            self._take_in(ready, self.drain_us if late else 0, everywhere=late)
            if now_us() >= self._machine_due_us():
                # What waits may renew what is about to be judged; after an idle poll nothing does.
                if (late or ready) and self.transport.backlog():
                    self._take_in(ready, self.drain_us if late else self.glance_us, everywhere=True)
                if now_us() >= self._machine_due_us():
                    self.step(Tick(late))
                    if self.machine.active(now_us()):
                        self.gather_until_us = now_us() + self.gather_us
            if self._may_end():
                return

    def _carry_out_requests(self) -> None:
        """What the process asked for by the handle: its job has ended, the files are to be read again, its health
        has changed, or the node is to leave (R6, R8)."""
        handle, machine = self.handle, self.machine
        if handle.reload_requests != self.reloads:
            self.reloads = handle.reload_requests
            reload(self)
        if handle.healthy is not machine.state.healthy:
            self.step(HealthChanged(handle.healthy))
        if machine.pending_handover_term and not handle.has_jobs_in(machine.pending_handover_term):
            self.step(JobEnded())
        if handle.asked_to_leave and not handle.has_jobs:
            self.step(Leave())

    def _machine_due_us(self) -> int:
        """The machine's deadline, worked out once after its newest step."""
        if self.due_us is None:
            self.due_us = self.machine.deadline_us()
        return self.due_us

    def _wait(self, due_us: int) -> Mapping[object, int]:
        """What is ready, at `due_us` at the latest. What has to be logged is written while there
        is nothing better to do: in the middle of an election a line costs more than a vote."""
        # Round up: waking a fraction of a millisecond early would only spin.
        now = now_us()
        wait_ms = max(0, min(60_000, -((now - due_us) // 1000)))
        if self.deferred_log.waits:
            if wait_ms and not self.deferred_log.is_full:
                ready = self.poller.poll(0)
                if ready:
                    return ready
            if wait_ms or self.deferred_log.is_full:
                self.deferred_log.tell()
        gather_ms = min(wait_ms, (self.gather_until_us - now) // 1000)
        if gather_ms > 0:
            ready = self.poller.poll(gather_ms, eager=False)
            if ready:
                return ready
            wait_ms -= gather_ms
        return self.poller.poll(wait_ms)

    def _take_in(self, ready: Mapping[object, int], within_us: int, everywhere: bool) -> None:
        """Everything that came in: monitors first, they tell who died; then messages, one batch, or as
        many as `within_us` allows. `ready` is the poller's answer; look `everywhere` when that is
        older than what may have come."""
        for change in self.transport.service(ready):
            self.step(LinkUp(change.peer) if change.up else LinkDown(change.peer))
        end_us = now_us() + within_us
        while everywhere or self.transport.has_mail(ready):
            batch = self.transport.receive(_BATCH)
            for received in batch:
                self._hear(received)
            if len(batch) < _BATCH or now_us() >= end_us:
                break
        for verdict in self.transport.verdicts():
            self.log.event("info", "probe_ended", peer=verdict.peer, evidence=verdict.evidence, detail=verdict.detail)
            if verdict.evidence is not None:
                self.step(DeathProven(verdict.peer, verdict.incarnation, verdict.evidence))
        if everywhere or self.registry.pipe in ready:
            self._hear_registry()
        if everywhere or self.witness.pipe in ready:
            for event in self.witness.receive():
                self.step(event)
            self.redis_status.hear_witness(self.witness.problem)

    def _may_end(self) -> bool:
        """After the leave: stay until a successor is heard, but not long."""
        if self.done_us == NEVER_US:
            return False
        state, now = self.machine.state, now_us()
        if now >= self.done_us:
            return True
        said_for_us = now - (self.done_us - _LINGER_US)
        settled = state.controller is not None or not any(peer.linked for peer in state.peers.values())
        return settled and said_for_us >= _LINGER_LEAST_US

    # -- in -----------------------------------------------------------------------------------------

    def _hear(self, received: Received) -> None:
        if self.directory is not None and caller_of(received, self.directory) is None:
            self.counters["refused_key_gone"] += 1
            self.transport.throw_out(received, "key_gone")
            return
        try:
            envelope = wire.decode(received.payload, self.config.limits.max_message_bytes)
        except MalformedMessage as error:
            self.counters[f"malformed_{error.reason}"] += 1
            details = {"reason": error.reason, "origin": received.origin, "bytes": len(received.payload)}
            self.log.limited(error.reason, "warning", "frame_refused", **details)
            return
        self.counters["received"] += 1
        no = denied(received, envelope, self.directory)
        if no is not None:
            deny(self, received, envelope, no)
            return
        if self.window is not None:
            self.window.measure_round_trip(self.machine.state.leader_state, envelope)
        if envelope.cluster == self.settings.cluster:
            self.transport.know(received)
        effects = self.step(MessageReceived(signed(received, envelope, self.directory)))
        if isinstance(effects.answer, NodeStatus):
            reply(self, received.route, Report(encode(self._report(effects.answer))))
        elif effects.answer is not None:
            reply(self, received.route, effects.answer)

    def _hear_registry(self) -> None:
        for event in self.registry.receive():
            if isinstance(event, RegistryHint):
                self.step(ControllerHint(event.controller, event.term))
            else:
                self.redis_status.hear_registry(event)

    def _report(self, status: NodeStatus) -> NodeReport:
        """What this node says of itself: what the machine knows, and what only the process does."""
        parts: dict[str, Mapping[str, int]] = {
            "refused_": status.refused_by_gate,
            "link_": self.transport.counters,
            "registry_": self.registry.counters,
            "witness_": self.witness.counters,
        }
        counters = dict(self.counters)
        counters |= {prefix + name: count for prefix, part in parts.items() for name, count in part.items()}
        counters["log_dropped"] = self.log.dropped
        return report_of(
            status,
            cluster=self.settings.cluster,
            address=self.settings.addresses[self.settings.node],
            redis=self.redis_status.report(),
            counters=counters,
            reload_problem=self.reload_problem,
            began_us=self.began_us,
        )

    # -- out ----------------------------------------------------------------------------------------

    def step(self, event: Event) -> Effects:
        """One step of the machine, carried out in the order of its fields (R1)."""
        self.due_us = None
        at_us = now_us()
        effects = self.machine.step(event, at_us)
        # An end is known at once, a beginning only after what it rests on is saved and said (R1, R7).
        lease = self.machine.lease
        if lease is None:
            self.handle.withdraw()
        if self.recorder is not None:
            self.recorder.before(lease, self.machine.state.term)
        if effects is not NOTHING:
            self._carry_out(effects)
        self.handle.update(lease, controller_now(self.machine, self.handle.controller))
        if effects is not NOTHING:
            self._pass_on(effects, at_us)
        if self.recorder is not None:
            self.recorder.after(lease, effects)
        if effects.leave:
            self.done_us = now_us() + _LINGER_US
        if self.machine.pending_handover_term and not self.handle.has_jobs_in(self.machine.pending_handover_term):
            self.step(JobEnded())  # no job ever began in it
        return effects

    def _carry_out(self, effects: Effects) -> None:
        """What must be done before anybody may know of it (R1)."""
        if effects.save is not None:
            self.failpoint("before_save", effects)
            self.vote_store.save(effects.save)
            self.failpoint("after_save", effects)
        self._send(effects)

    def _pass_on(self, effects: Effects, at_us: int) -> None:
        """The rest, for which nobody waits."""
        self.failpoint("after_send", effects)
        if self.failpoint.breaks_authenticator(effects):
            self.transport.break_authenticator()
        if effects.witness:
            self.witness.submit(effects.witness)
        if effects.publish:
            self.registry.submit(effects.publish)
            self.failpoint("after_publish", effects)
        for probe in effects.probe:
            self._probe(probe)
        self.deferred_log.keep(effects.facts, at_us)
        if self.window is not None:
            self.window.count(effects.facts)

    def _send(self, effects: Effects) -> None:
        encoded: dict[int, bytes] = {}  # a broadcast is one envelope, encoded once
        for to, envelope in effects.send:
            payload = encoded.get(id(envelope))
            if payload is None:
                payload = encoded[id(envelope)] = wire.encode(envelope)
            if self.transport.send(to, payload):
                self.counters["sent"] += 1

    def _probe(self, probe: Probe) -> None:
        path, settings = self.data_dirs.get(probe.peer), self.settings
        if path is None:
            self.transport.probe(probe.peer, probe.incarnation, None)
            return
        self.transport.probe(
            probe.peer, probe.incarnation, lambda: lock_evidence(path, settings.cluster, probe.peer, probe.incarnation)
        )
