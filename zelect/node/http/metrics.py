"""A node's figures in the text format of Prometheus. docs/http.md tells what each one means."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from zelect.core.lease import Lease
from zelect.core.messages import Reason, Refusal
from zelect.node.http.snapshot import Histogram, StatusPublisher, StatusSnapshot
from zelect.node.leadership.handle import NodeHandle
from zelect.system.clock import now_us

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_WITNESS = ("member", "ready", "unrecognized", "unreachable", "unused")
_WRITES = ("written", "failed", "superseded", "void", "coalesced")
_NOT_TAKEN = {"link_too_big": "too_big", "link_wrong_shape": "wrong_shape", "link_too_fast": "too_fast"}
_NOT_SENT = {"link_dropped": "not_sent", "link_too_big_to_send": "too_big_to_send", "link_reply_failed": "not_replied"}
Held = Callable[[], tuple[Lease | None, int]]


class Metrics(Collector):
    """`held`: leadership of this node and how many milliseconds it lasts, asked for each answer;
    `closed`: connections over HTTP that were closed, by why."""

    def __init__(
        self, window: StatusPublisher, held: Held, handle: NodeHandle, node: int, closed: Mapping[str, int]
    ) -> None:
        self._window, self._held, self._handle, self._node = window, held, handle, node
        self._closed = closed
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes | None:
        """None before the loop has painted its first picture."""
        return None if self._window.picture is None else generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        picture = self._window.picture
        if picture is None:
            return
        report = json.loads(picture.report)
        yield from self._at_this_moment()
        yield from _voters(report)
        yield from _elections(picture)
        yield from _loop_and_frames(report["counters"])
        yield from _store(report["redis"], report["counters"])
        text = "Connections over HTTP closed by this node."
        yield _labelled(CounterMetricFamily, "zelect_http_closed_total", text, "reason", self._closed)
        build = GaugeMetricFamily("zelect_build_info", "The release that runs.", labels=("version",))
        build.add_metric((report["version"],), 1)
        yield build

    def _at_this_moment(self) -> Iterator[Metric]:
        lease, left_ms = self._held()
        head = self._handle.controller
        leads = self._node if lease is not None else head.id if head.id != self._node else 0
        yield _gauge("zelect_active", "1 while this node is active, judged by its lease.", lease is not None)
        yield _gauge("zelect_lease_remaining_seconds", "How long leadership lasts unless renewed.", left_ms / 1000)
        yield _gauge("zelect_controller_id", "Who leads as far as this node knows; 0: nobody.", leads)
        idle_s = (now_us() - self._window.turned_us) / 1e6
        yield _gauge("zelect_loop_idle_seconds", "Since the node's loop turned last.", idle_s)


def _voters(report: Mapping[str, Any]) -> Iterator[Metric]:
    voters = report["voters"]
    yield _gauge("zelect_term", "The newest term that this node has saved.", report["term"])
    yield _gauge("zelect_quorate", "1 while this node sees a quorum.", report["quorate"])
    members, survives = len(voters["members"]), voters["survives"]
    yield _gauge("zelect_voters_members", "Nodes that vote, the witness not counted.", members)
    yield _gauge("zelect_failures_survived", "How many more may fail, one by one; -1: no quorum.", survives)
    states = {state: int(state == voters["witness"]) for state in _WITNESS}
    yield _labelled(GaugeMetricFamily, "zelect_witness", "1 for what the witness is now.", "state", states)
    peers = {str(peer["id"]): int(peer["linked"]) for peer in report["peers"]}
    yield _labelled(GaugeMetricFamily, "zelect_peer_connected", "1 while there is a connection.", "peer", peers)


def _elections(picture: StatusSnapshot) -> Iterator[Metric]:
    won = {**dict.fromkeys(map(str, Reason), 0), **picture.elections}
    yield _labelled(CounterMetricFamily, "zelect_elections_total", "Leaderships that this node took.", "reason", won)
    refused = {**dict.fromkeys(map(str, Refusal), 0), **picture.refusals}
    text = "Votes and pre-votes that this node refused."
    yield _labelled(CounterMetricFamily, "zelect_votes_refused_total", text, "reason", refused)
    text = "From the last word of the controller before to this node's leadership."
    yield _histogram("zelect_election_gap_seconds", text, picture.gaps)
    yield _histogram("zelect_heartbeat_rtt_seconds", "From this node's PING to an answer read.", picture.round_trips)


def _loop_and_frames(counters: Mapping[str, int]) -> Iterator[Metric]:
    yield _counter("zelect_loop_late_total", "Turns of the loop that came late.", counters.get("loop_late", 0))
    yield _counter("zelect_frames_received_total", "Frames read and understood.", counters.get("received", 0))
    yield _counter("zelect_frames_sent_total", "Frames handed to a connection.", counters.get("sent", 0))
    dropped: dict[str, int] = {}
    for name, count in counters.items():
        kind, _, reason = name.partition("_")
        if kind not in ("malformed", "refused"):
            reason = (_NOT_TAKEN | _NOT_SENT).get(name, "")
        if reason:
            dropped[reason] = dropped.get(reason, 0) + count
    yield _labelled(CounterMetricFamily, "zelect_frames_dropped_total", "Frames not used.", "reason", dropped)
    yield _counter("zelect_log_lines_dropped_total", "Lines that the log did not take.", counters["log_dropped"])


def _store(store: Mapping[str, Any], counters: Mapping[str, int]) -> Iterator[Metric]:
    if not store["url"]:
        return
    yield _gauge("zelect_store_up", "1 while Redis answers.", store["state"] == "up")
    yield _gauge("zelect_store_published_term", "Term of the record in Redis; 0: none.", store["published_term"] or 0)
    writes = {result: counters[f"store_{result}"] for result in _WRITES}
    yield _labelled(CounterMetricFamily, "zelect_store_writes_total", "Writes to Redis.", "result", writes)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=float(value))


def _labelled(
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily],
    name: str,
    text: str,
    label: str,
    values: Mapping[str, int],
) -> Metric:
    family = kind(name, text, labels=(label,))
    for value, number in values.items():
        family.add_metric((str(value),), number)
    return family


def _histogram(name: str, text: str, spread: Histogram) -> Metric:
    buckets, total = list[tuple[str, float]](), 0
    for bound, count in zip([*(f"{us / 1e6:g}" for us in spread.bounds_us), "+Inf"], spread.counts, strict=True):
        total += count
        buckets.append((bound, total))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=spread.sum_us / 1e6)
