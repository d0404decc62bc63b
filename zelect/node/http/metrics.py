"""A node's metrics in the text format of Prometheus. docs/http.md says what each one means.

Each has the labels `cluster` and `node`, so that one Prometheus may scrape several clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from zelect.core.lease import Lease
from zelect.core.messages import Reason, Refusal
from zelect.node.http.snapshot import Histogram, StatusPublisher, StatusSnapshot
from zelect.node.leadership.handle import NodeHandle
from zelect.status.report import NodeReport
from zelect.system.clock import now_us

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_WITNESS = ("member", "ready", "unrecognized", "unreachable", "unused")
_WRITES = ("written", "failed", "superseded", "void", "coalesced")
_NOT_TAKEN = {"link_too_big": "too_big", "link_wrong_shape": "wrong_shape", "link_too_fast": "too_fast"}
_NOT_SENT = {"link_dropped": "not_sent", "link_too_big_to_send": "too_big_to_send", "link_reply_failed": "not_replied"}
Held = Callable[[], tuple[Lease | None, int]]


class _Labelled(Collector):
    """The metrics of `inner` with `labels` on every sample."""

    def __init__(self, inner: Collector, labels: Mapping[str, str]) -> None:
        self._inner, self._labels = inner, labels

    def collect(self) -> Iterator[Metric]:
        for metric in self._inner.collect():
            metric.samples = [sample._replace(labels={**self._labels, **sample.labels}) for sample in metric.samples]
            yield metric


class Metrics(Collector):
    """`held`: the lease of this node while it is active and how many milliseconds it runs, asked for each
    answer; `closed`: connections over HTTP that were closed, by reason."""

    def __init__(
        self,
        publisher: StatusPublisher,
        held: Held,
        handle: NodeHandle,
        cluster: str,
        node: int,
        closed: Mapping[str, int],
    ) -> None:
        self._publisher, self._held, self._handle, self._node = publisher, held, handle, node
        self._closed = closed
        self._registry = CollectorRegistry()
        labels = {"cluster": cluster, "node": str(node)}
        for part in (self, ProcessCollector(registry=None)):
            self._registry.register(_Labelled(part, labels))

    def text(self) -> bytes | None:
        """None before the loop has published its first snapshot."""
        return None if self._publisher.snapshot is None else generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        snapshot = self._publisher.snapshot
        if snapshot is None:
            return
        report = snapshot.report
        yield from self._at_this_moment()
        yield from _voters(report)
        yield from _elections(snapshot)
        yield from _loop_and_frames(report.counters)
        yield from _redis(report)
        text = "HTTP connections that this node closed."
        yield _by_label(CounterMetricFamily, "zelect_http_connections_closed_total", text, "reason", self._closed)
        build = {report.version: 1}
        yield _by_label(GaugeMetricFamily, "zelect_build_info", "The release that runs.", "version", build)

    def _at_this_moment(self) -> Iterator[Metric]:
        lease, left_ms = self._held()
        controller = self._handle.controller.id
        active = self._node if lease is not None else controller if controller != self._node else 0
        yield _gauge("zelect_active", "1 while this node is active, judged by its lease.", lease is not None)
        yield _gauge("zelect_lease_remaining_seconds", "How long the lease runs unless renewed.", left_ms / 1000)
        yield _gauge("zelect_controller_id", "The controller as far as this node knows; 0: none.", active)
        yield _gauge("zelect_votes", "1 while this node's vote counts.", self._handle.votes)
        idle_s = (now_us() - self._publisher.turned_us) / 1e6
        yield _gauge("zelect_loop_idle_seconds", "Time since the node's loop last turned.", idle_s)


def _voters(report: NodeReport) -> Iterator[Metric]:
    voters = report.voters
    yield _gauge("zelect_term", "The newest term that this node has saved.", report.term)
    yield _gauge("zelect_quorate", "1 while this node sees a quorum.", report.quorate)
    yield _gauge("zelect_voters", "Members that are voters, without the witness.", len(voters.members))
    text = "How many more members may fail one by one; -1: no quorum."
    yield _gauge("zelect_failures_survived", text, voters.survives)
    states = {state: int(state == report.witness) for state in _WITNESS}
    yield _by_label(GaugeMetricFamily, "zelect_witness", "1 for what the witness is now.", "state", states)
    peers = {str(peer.id): int(peer.linked) for peer in report.peers}
    yield _by_label(GaugeMetricFamily, "zelect_peer_connected", "1 while the peer is connected.", "peer", peers)


def _elections(snapshot: StatusSnapshot) -> Iterator[Metric]:
    won = {**dict.fromkeys(map(str, Reason), 0), **snapshot.elections}
    text = "How often this node became active."
    yield _by_label(CounterMetricFamily, "zelect_elections_won_total", text, "reason", won)
    refused = {**dict.fromkeys(map(str, Refusal), 0), **snapshot.refusals}
    text = "Votes and pre-votes that this node refused."
    yield _by_label(CounterMetricFamily, "zelect_votes_refused_total", text, "reason", refused)
    text = "From the last message of the previous controller until this node became active."
    yield _histogram("zelect_election_gap_seconds", text, snapshot.gaps)
    text = "From this node's PING until an answer was read."
    yield _histogram("zelect_heartbeat_round_trip_seconds", text, snapshot.round_trips)


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
    yield _by_label(CounterMetricFamily, "zelect_frames_dropped_total", "Frames not used.", "reason", dropped)
    yield _counter("zelect_log_lines_dropped_total", "Lines that the log did not take.", counters["log_dropped"])


def _redis(report: NodeReport) -> Iterator[Metric]:
    redis = report.redis
    if not redis.url:
        return
    yield _gauge("zelect_redis_up", "1 while Redis answers.", redis.state == "up")
    text = "Term of the controller published in Redis; 0: none."
    yield _gauge("zelect_redis_published_term", text, redis.published_term or 0)
    writes = {result: report.counters[f"registry_{result}"] for result in _WRITES}
    yield _by_label(CounterMetricFamily, "zelect_redis_writes_total", "Writes to Redis.", "result", writes)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=float(value))


def _by_label(
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


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    buckets, total = list[tuple[str, float]](), 0
    bounds = [*(f"{us / 1e6:g}" for us in histogram.bounds_us), "+Inf"]
    for bound, count in zip(bounds, histogram.counts, strict=True):
        total += count
        buckets.append((bound, total))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=histogram.sum_us / 1e6)
