"""The state of a cluster as text of at most 80 columns."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from zelect.status.cluster import ClusterStatus
from zelect.status.problems import problems
from zelect.status.report import NodeReport
from zelect.status.table import WIDTH, Column, duration, table


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One node in the table. `report` is None when it gave no answer; then `role` and `status` say what is
    known of it instead."""

    id: int
    address: str
    pid: int | None
    report: NodeReport | None
    active: bool
    role: str
    status: str

    @classmethod
    def of(cls, state: ClusterStatus, node: int, without_answer: tuple[str, str] = ("", "no answer")) -> NodeRow:
        """Node `node` of `state`."""
        report, controller, named = state.reports.get(node), state.controller, state.named
        role, status = (report.role, report.status) if report else without_answer
        if report is None and named is not None and named.id == node:
            role = role or "controller"
        active = controller is not None and controller.id == node
        return cls(node, state.addresses[node], report.pid if report else None, report, active, role, status)


def _lease(row: NodeRow) -> str:
    return f"{row.report.lease_left_us / 1000:.0f} ms" if row.report and row.active else ""


def _links(row: NodeRow) -> str:
    return f"{row.report.links}/{len(row.report.peers)}" if row.report else ""


NODE_COLUMNS = {
    column.header: column
    for column in (
        Column[NodeRow]("", lambda row: "*" if row.active else ""),
        Column[NodeRow]("id", lambda row: row.id, right=True),
        Column[NodeRow]("address", lambda row: row.address.removeprefix("tcp://")),
        Column[NodeRow]("pid", lambda row: row.pid or "", right=True),
        Column[NodeRow]("role", lambda row: row.role),
        Column[NodeRow]("status", lambda row: row.status),
        Column[NodeRow]("term", lambda row: row.report.term if row.report else "", right=True),
        Column[NodeRow]("lease", _lease, right=True),
        Column[NodeRow]("links", _links, right=True),
        Column[NodeRow]("MB", lambda row: row.report.rss_kb // 1024 if row.report else "", right=True),
    )
}
"""By header."""


def ids_text(nodes: Collection[int]) -> str:
    """Ids in a sentence."""
    return ", ".join(map(str, sorted(nodes)))


def nodes_text(nodes: Collection[int]) -> str:
    """The nodes in a sentence: "node 2", or "nodes 2, 3"."""
    return f"node{'s' if len(nodes) > 1 else ''} {ids_text(nodes)}"


def controller_text(state: ClusterStatus) -> str:
    """One sentence about who is active. What can't be known is not called "no node"."""
    if (named := state.named) is not None:
        hearsay = f", {said_by(named.followers)}" if named.source == "followers" else ""
        return f"node {named.id} is active, term {named.term}{hearsay}"
    if not state.reports:
        return "no node could be asked" if state.denials else "no node answered"
    return "no node is active" if state.is_known else "not known which node is active"


def own_text(report: NodeReport) -> str:
    """One sentence about a node, by what it says of itself."""
    if report.active:
        does = "is active"
    elif report.controller is not None:
        does = f"follows node {report.controller}"
    else:
        does = "knows of no controller"
    votes = "counts" if report.votes else "does not count now"
    return f"node {report.id} {does}, term {report.term}; its vote {votes}"


def said_by(followers: Collection[int]) -> str:
    """Who says that a node is active which could not be asked."""
    s = "s" if len(followers) > 1 else ""
    return f"as its follower{s} {ids_text(followers)} {'say' if s else 'says'}"


def unasked_text(state: ClusterStatus) -> str:
    """Which voters could not be asked, and why; "" where all of them were."""
    denied = {node: state.denials[node] for node in state.unasked if node in state.denials}
    silent = set(state.unasked) - set(denied)
    return "; ".join([f"no answer from {nodes_text(silent)}"] * bool(silent) + denial_lines(denied))


def denial_lines(denials: Mapping[int, str]) -> list[str]:
    """A line for each reason why nodes that could be reached gave no answer."""
    by_reason: dict[str, list[int]] = {}
    for node, reason in sorted(denials.items()):
        by_reason.setdefault(reason, []).append(node)
    return [f"{nodes_text(some)}: {reason}" for reason, some in by_reason.items()]


def cluster_text(
    state: ClusterStatus,
    without_answer: Mapping[int, tuple[str, str]] | None = None,
    place: str = "",
    published: str = "",
) -> str:
    """The text for `state`. `without_answer`: what to say of such a node under role and status; `place`: the
    options that name the cluster, for commands that are recommended; `published`: what Redis says of the controller."""
    rows = [NodeRow.of(state, node, (without_answer or {}).get(node, ("", "no answer"))) for node in state.addresses]
    lines = [line if len(line) <= WIDTH else line[: WIDTH - 1] + "…" for line in (_first(state), *_voters(state))]
    if state.reports and not state.is_known:
        lines += textwrap.wrap(unasked_text(state), WIDTH)
    if (shortage := state.shortage) is not None:
        seen = "" if state.is_known else f"as {nodes_text(state.reports)} can see: "
        lines += textwrap.wrap(seen + shortage.text_for(place), WIDTH, break_on_hyphens=False)
    if (active := state.controller) is not None and active.pause is not None:
        left = duration(active.pause.left_us / 1e6)
        lines += textwrap.wrap(f"planned transfers are paused for {left}: {active.pause.asked}", WIDTH)
    if state.redis is not None and state.redis.problem:
        lines += textwrap.wrap(f"Redis: {state.redis.problem}", WIDTH)
    lines += textwrap.wrap(published, WIDTH)
    lines += problem_lines(state, place)
    return "\n".join([*lines, "", *table([*NODE_COLUMNS.values()], sorted(rows, key=lambda row: row.id))])


def problem_lines(state: ClusterStatus, place: str = "") -> list[str]:
    """What is wrong with nodes that answered, nodes with the same problem together. `place`: as for `problems`."""
    by_problem: dict[str, list[int]] = {}
    for node, problem in problems(state.reports, place).items():
        by_problem.setdefault(problem, []).append(node)
    return [
        line
        for problem, nodes in by_problem.items()
        for line in textwrap.wrap(
            f"{nodes_text(nodes)}: {problem}", WIDTH, subsequent_indent="  ", break_on_hyphens=False
        )
    ]


def _first(state: ClusterStatus) -> str:
    text = f"{state.cluster}: {controller_text(state)}"
    active, redis = state.controller, state.redis
    if active is not None and active.since_ms is not None:
        text += f", for {duration(time.time() - active.since_ms / 1000)}"
    elif state.reports and state.named is None:
        text += f", term {state.term}"
    if redis is not None:
        text += "; no Redis" if redis.state == "unused" else f"; Redis {redis.state}"
        if redis.published_term is not None:
            text += f" ({'has' if redis.state == 'up' else 'had'} term {redis.published_term})"
    return text


def _voters(state: ClusterStatus) -> list[str]:
    if state.newest is None:
        return []
    voters = state.newest.voters
    if not voters.cluster_id:
        return ["no cluster is founded yet"]
    return [f"voters {voters.config_term}.{voters.version}: {ids_text(voters.members)}; witness {state.newest.witness}"]
