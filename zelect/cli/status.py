"""`zelect status`: asks the nodes themselves, so it works with Redis down."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from zelect.cli.support.options import Target, cluster_options, id_option, timeout_option

if TYPE_CHECKING:
    from zelect.status.cluster import ClusterStatus

_WATCH_EVERY_S = 1.0


@click.command()
@cluster_options
@id_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --watch one line per second.")
@click.option("--watch", is_flag=True, help="Ask again every second until Ctrl-C.")
@click.option("--self", "alone", is_flag=True, help="Ask only the node of the configuration: does its loop run?")
@timeout_option(1.0, "How long to wait for answers.", most_s=60)
@click.pass_context
def status(context: click.Context, /, as_json: bool, watch: bool, alone: bool, timeout_s: float, **where: Any) -> None:
    """Ask every node for its status.

    Shows which node is active, and the voters: "voters 3.6: 1, 2" is the 6th voter record that the
    controller of term 3 wrote.

    Where the active node can't be asked, its followers name it.

    Exit code 0: a controller is active; 1: none is; 5: too few nodes could be asked to know. With --self 0: this node
    answers, active or not; 5: it does not. That is a health check.
    """
    import time

    from zelect.cli.support.errors import print_error

    target = Target.of(**where)
    if alone:
        context.exit(_own(target, timeout_s, as_json))
    try:
        while True:
            state = target.ask(timeout_s)
            _show(state, as_json, watch, target)
            for line in target.denial_lines() if state.reports or as_json else ():
                print_error(line)
            if not watch:
                if not state.reports and not as_json:
                    print_error(target.not_known(state))
                break
            time.sleep(_WATCH_EVERY_S)
    except KeyboardInterrupt:
        context.exit(0)
    context.exit(state.exit_code)


def _own(target: Target, timeout_s: float, as_json: bool) -> int:
    """Print what the node of the configuration says of itself; returns the exit code."""
    from zelect.cli.support.errors import print_error
    from zelect.client.query import ask_cluster
    from zelect.status.cluster_text import own_text
    from zelect.status.codec import plain

    node = target.own_node
    state = ask_cluster(target.cluster, {node: target.addresses[node]}, timeout_s, bool, target.keyring)
    report = state.reports.get(node)
    if as_json:
        click.echo(json.dumps(plain(report), indent=2))
    elif report is not None:
        click.echo(own_text(report))
    else:
        print_error(f"node {node}: {state.denials.get(node, 'no answer')}")
    return 5 if report is None else 0


def _show(state: ClusterStatus, as_json: bool, watch: bool, target: Target) -> None:
    from zelect.status.cluster_text import cluster_text

    if as_json:
        click.echo(json.dumps(state.as_json(), indent=None if watch else 2))
        return
    hearsay = state.named is not None and state.controller is None
    published = target.published() if hearsay or (state.reports and not state.is_known) else ""
    if state.redis is not None and state.redis.problem:
        published = ""  # the node says the same
    if watch:
        click.clear()
    # Where nothing can be cleared, as in a pipe, an empty line parts one status from the next.
    click.echo(
        cluster_text(state, place=target.place, published=published)
        + ("\n" if watch and not sys.stdout.isatty() else "")
    )
