"""What is wrong with a node, in words: how it belongs to the cluster, and what its peers refuse of its messages.

A node's own report says which of its messages a peer last refused, so a problem is what its peers see, told by
the node itself. Two nodes with other settings refuse each other; each names the difference. What answers at the
address of a node in its place is told by those that were led there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from zelect.core.messages import CommonResp, Envelope, Result
from zelect.core.status import Belongs
from zelect.status.report import NodeReport

BOOTSTRAP = "zelect bootstrap"
MEMBERS = "zelect members"


def problems(reports: Mapping[int, NodeReport], place: str = "") -> dict[int, str]:
    """What is wrong with each node, by id, as those that answered say; nothing for those that are well. `place`: the
    options that name the cluster, for commands that are recommended."""
    addresses = address_problems(reports)
    found = {node: _problem(node, reports, place) if node in reports else "" for node in {*reports, *addresses}}
    both = {node: "; ".join(filter(None, (text, addresses.get(node, "")))) for node, text in sorted(found.items())}
    return {node: text for node, text in both.items() if text}


def answers_as(cluster: str, node: int, envelope: Envelope) -> str:
    """Who answered at the address of `node` of `cluster`, such as "wrong_node: answers as node 2"; "" where it was that
    node."""
    if envelope.cluster != cluster:
        return f"{Result.WRONG_CLUSTER.value}: answers as node {envelope.sender} of cluster {envelope.cluster!r}"
    if envelope.sender != node:
        return f"{Result.WRONG_NODE.value}: answers as node {envelope.sender}"
    message = envelope.message
    if isinstance(message, CommonResp) and message.result is Result.OTHER_CLUSTER:
        return f"{message.result.value}: {message.detail}"
    return ""


def address_problems(reports: Mapping[int, NodeReport]) -> dict[int, str]:
    """What answers at the address of a node in its place, and who says so."""
    seen: dict[int, dict[str, list[int]]] = {}
    for node, report in sorted(reports.items()):
        for peer in report.peers:
            kind, _, words = peer.problem.partition(": ")
            if kind in _AT_THE_ADDRESS:
                seen.setdefault(peer.id, {}).setdefault(words, []).append(node)
    return {
        node: "; ".join(f"its address {words} (seen by {_nodes(by)})" for words, by in told.items())
        for node, told in seen.items()
    }


def _problem(node: int, reports: Mapping[int, NodeReport], place: str) -> str:
    parts = [_other_cluster(reports[node], reports), _belonging(reports[node], reports, place)]
    parts += _refusals(node, reports)
    return "; ".join(part for part in dict.fromkeys(parts) if part)


def _other_cluster(report: NodeReport, reports: Mapping[int, NodeReport]) -> str:
    """Whether this node belongs to another cluster than the majority of those that answered; where no cluster has one,
    each is told."""
    ids = Counter(other.voters.cluster_id for other in reports.values() if other.voters.cluster_id)
    own = report.voters.cluster_id
    return f"belongs to another cluster, {own:x}" if own and 2 * ids[own] <= ids.total() else ""


def _belonging(report: NodeReport, reports: Mapping[int, NodeReport], place: str) -> str:
    add = f"{MEMBERS}{place} add {report.id} {report.address}"
    match report.belongs:
        case Belongs.NEW if any(other.belongs_to_cluster for other in reports.values()):
            return "new; there is a cluster, but none of its nodes has answered this node yet"
        case Belongs.NEW if report.missing:
            others = {peer.id for peer in report.peers} - set(report.missing)
            there, them = {report.id} | others, "it" if len(report.missing) == 1 else "them"
            command = f"{BOOTSTRAP}{place} --members {','.join(map(str, sorted(there)))}"
            return f"new; waiting for {_nodes(report.missing)} before founding the cluster; without {them}: {command}"
        case Belongs.NEW:
            return "new; the cluster is not founded yet"
        case Belongs.JOINING if any(_result(peer.problem) == "not_member" for peer in report.peers):
            return f"not a member: {add}"
        case Belongs.JOINING if not any(peer.id in _members(reports) for peer in report.peers):
            return f"new; there is a cluster, but [[peers]] lists none of its members: list them, or {add}"
        case Belongs.JOINING:
            return "new; the controller has not sent it the voter record yet"
        case Belongs.REMOVED:
            return f"was removed from the cluster: stop it, or {add}"
        case Belongs.NO_VOTE if report.id in report.voters.members:
            return "lost its state; has no vote until the controller has replaced its storage epoch"
    return ""


def _members(reports: Mapping[int, NodeReport]) -> set[int]:
    return {node for report in reports.values() if report.voters.cluster_id for node in report.voters.members}


def _refusals(node: int, reports: Mapping[int, NodeReport]) -> list[str]:
    """What peers refuse of the messages of `node`, each reason once."""
    by_reason: dict[tuple[str, str], list[int]] = {}
    for peer in reports[node].peers:
        result, detail = _result(peer.problem), peer.problem.partition(": ")[2]
        if result == "not_member" or result in _AT_THE_ADDRESS:
            continue  # how the node belongs says it better; the other is a problem of the peer
        if result:
            by_reason.setdefault((result, detail), []).append(peer.id)
    return [
        _WORDS.get(result, "its messages are refused by {nodes}: ").format(nodes=_nodes(peers)) + detail
        for (result, detail), peers in by_reason.items()
    ]


_AT_THE_ADDRESS = frozenset({"wrong_node", "wrong_cluster", "no_handshake"})
_WORDS = {
    "settings_mismatch": "other settings on {nodes}: ",
    "other_cluster": "another cluster on {nodes}: ",
    "address_in_use": "another node has its address, by {nodes}: ",
    "removed": "not waiting for {nodes}: ",
    "other_generation": "a newer generation on {nodes}: ",
    "id_in_use": "another running process has its id, by {nodes}: ",
    "old_incarnation": "a newer process has its id, by {nodes}: ",
}


def _result(problem: str) -> str:
    return problem.partition(":")[0]


def _nodes(nodes: tuple[int, ...] | list[int]) -> str:
    return f"node{'s' if len(nodes) > 1 else ''} {', '.join(map(str, sorted(nodes)))}"
