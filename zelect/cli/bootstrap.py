"""`zelect bootstrap`: found a cluster although a configured member is missing (R15)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from zelect.cli.support.options import Target, cluster_options, timeout_option

if TYPE_CHECKING:
    from zelect.status.cluster import ClusterStatus


@click.command()
@click.option("--members", "listed", required=True, metavar="N,N...", help="Who founds the cluster: ids of nodes.")
@timeout_option(10.0, help="How long to wait for a controller.")
@cluster_options
@click.pass_context
def bootstrap(context: click.Context, /, listed: str, timeout_s: float, **where: Any) -> None:
    """Found the cluster with some of its members.

    New nodes found their cluster by themselves as soon as all configured members have been started: then no others can
    have founded another one. If a machine is missing, this command tells the nodes that are running to go on without
    it. The others get their vote when they are started.

    Make sure that no member left out has been started with the same configuration anywhere else.

    Exit code 0: a controller is active; 1: refused, or none is active in time; 5: a node could not be asked.
    """
    from zelect.cli.support.errors import CommandError
    from zelect.core.messages import Bootstrap, Result
    from zelect.status.cluster_text import ids_text, nodes_text

    target = Target.of(**where)
    nodes = _ids(listed)
    target.known(nodes)
    state = target.ask()
    belonging = sorted(node for node, report in state.reports.items() if report.belongs_to_cluster)
    if belonging:
        raise CommandError(
            f"node {belonging[0]} belongs to a cluster already, and the others join it; see "
            f"'zelect members{target.place}'",
            1,
        )
    if absent := sorted(set(nodes) - set(state.reports)):
        why = target.denials.get(absent[0], "does not answer: start it first, because its vote is needed")
        raise CommandError(f"node {absent[0]}: {why}", 5)
    message = Bootstrap(tuple((node, target.addresses[node]) for node in nodes))
    answers = target.tell(nodes, message)
    for node in nodes:
        answer = answers.get(node)
        if answer is None:
            raise CommandError(f"node {node} did not answer; run the same command again", 5)
        if answer.result is not Result.OK:
            raise CommandError(f"node {node} refused: {answer.detail}", 1)
    click.echo(f"{nodes_text(nodes)}: founding the cluster", err=True)
    active = _founded(target, timeout_s).controller
    if active is None:
        raise CommandError(f"no node became active within {timeout_s:g} s; see 'zelect status{target.place}'", 1)
    click.echo(f"founded: node {active.id} is active, term {active.term}; voters {ids_text(active.voters.members)}")


def _ids(listed: str) -> list[int]:
    words = listed.replace(",", " ").split()
    if not words or not all(word.isdecimal() and 1 <= int(word) <= 65_535 for word in words):
        raise click.UsageError(
            f"--members: {listed!r} is no list of node ids; name each one, like 1,2,3 (ids are 1 to 65535)"
        )
    return sorted({int(word) for word in words})


def _founded(target: Target, within_s: float) -> ClusterStatus:
    """The cluster once a node is active in it, or when the time is over."""
    import time

    from zelect.status.cluster import controller_of

    end = time.monotonic() + within_s
    while True:
        state = target.ask(min(1.0, within_s), lambda reports: controller_of(reports) is not None)
        if state.controller is not None or time.monotonic() >= end:
            return state
        time.sleep(0.05)
