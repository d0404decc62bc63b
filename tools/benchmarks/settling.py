"""Waiting for quiet: a trial begins when the cluster is as it is on a quiet day."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from tools.benchmarks.cluster import Cluster
from tools.common.checkout import TIMING, JsonDict, ToolError
from zelect.system.clock import now_us

_WITHIN_S = 60.0
_STOPPED_S = 5.0
# A restarted node votes for nobody during one election timeout (R4); a trial waits until it may.
_NO_ANSWER_US = (TIMING.election_timeout_ms + 100) * 1000


def settle(cluster: Cluster, among: Collection[int] | None = None, *, whole: bool = False) -> int:
    """Wait until the nodes `among` (None: all) agree on a controller, which is published, and any of
    them may vote; returns the controller. With `whole` also until they are the voters, with the
    witness where their number is even, and all of them reach Redis. Raises ToolError."""
    among = cluster.ids if among is None else among
    last = time.monotonic()
    end = last + _WITHIN_S
    while True:
        reports = cluster.reports(among)
        for report in reports.values():
            cluster.heard_us.setdefault(report["pid"], now_us())
        lack = _lack(reports, among) or (whole and _lack_of_whole(reports, among, cluster.quorum)) or ""
        if any(now_us() - cluster.heard_us[report["pid"]] < _NO_ANSWER_US for report in reports.values()):
            lack = lack or "a node has just started"
        if not lack:
            return next(node for node, report in reports.items() if report["active"])
        codes = {node: cluster.processes[node].poll() for node in among}
        ended = [f"node {node} ended with {code}" for node, code in codes.items() if code is not None]
        now = time.monotonic()
        if now - last > _STOPPED_S:  # all was stopped meanwhile, this process too: that time does not count
            end += now - last
        last = now
        if ended or now > end:
            raise ToolError(f"the cluster does not settle: {', '.join(ended) or lack}\n{cluster.tails()}")
        time.sleep(0.02)


def _lack(reports: Mapping[int, JsonDict], among: Collection[int]) -> str:
    """What is missing for the nodes to agree; empty: nothing."""
    if len(reports) < len(among):
        return f"no answer of {sorted(set(among) - reports.keys())}"
    heads = [report for report in reports.values() if report["active"]]
    if len(heads) != 1:
        return f"active are {[head['id'] for head in heads]}"
    head = heads[0]
    for node, report in reports.items():
        if (report["controller"], report["term"], report["status"]) != (head["id"], head["term"], "running"):
            return f"node {node} is {report['status']}, with controller {report['controller']}, term {report['term']}"
        if not all(peer["linked"] for peer in report["peers"] if peer["id"] in among):
            return f"node {node} is not connected to all"
        if report is not head and len(report["succession"]) != len(among) - 1:
            return f"node {node} knows the succession {report['succession']}"
    published = head["redis"]["published_term"]
    return "" if published == head["term"] else f"term {head['term']} is not published, but {published}"


def _lack_of_whole(reports: Mapping[int, JsonDict], among: Collection[int], quorum: str) -> str:
    """What is missing in the voters, or with some node's Redis; empty: nothing."""
    witness = "unused" if quorum == "static" else "member" if len(among) % 2 == 0 else "ready"
    for node, report in reports.items():
        voters, redis = report["voters"], report["redis"]
        if voters["members"] != sorted(among) or voters["witness"] != witness:
            return f"node {node}: members {voters['members']}, witness {voters['witness']}"
        if redis["state"] != "up":
            return f"node {node}: Redis is {redis['state']}, {redis['problem']}"
    return ""
