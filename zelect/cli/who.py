"""`zelect who`, `zelect wait`, `zelect watch`: which node is active, for people and scripts.

All three ask the nodes themselves, so Redis may be down; a node says that it is active only while its lease
runs.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from zelect.cli.support.errors import print_error
from zelect.cli.support.options import Target, cluster_options, timeout_option

if TYPE_CHECKING:
    from zelect.status.cluster import ClusterStatus
    from zelect.status.report import NodeReport

_EVERY_MS = 50
_NO_ANSWER_S = 1.0
"""After so long without any answer, no node is said to be active."""


@click.command()
@cluster_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON: id, term, address, since_ms (Unix).")
@timeout_option(1.0, "How long to wait for answers.")
@click.pass_context
def who(context: click.Context, /, as_json: bool, timeout_s: float, **where: Any) -> None:
    """Print the id of the active node.

    Exit code 0: a node is active; 1: nodes answered, but none is active; 5: no node answered.
    """
    from zelect.status.cluster import controller_json, controller_of

    target = Target.of(**where)
    state = target.ask(timeout_s, lambda reports: controller_of(reports) is not None)
    active = state.controller
    if as_json:
        click.echo(json.dumps(controller_json(active)))
    elif active is not None:
        click.echo(active.id)
    if active is None:
        print_error(_none(target, state))
    context.exit(state.exit_code)


def _none(target: Target, state: ClusterStatus | None) -> str:
    if state is None or not state.reports:
        return target.no_answer()
    answered = f"{len(state.reports)} of {len(target.addresses)} nodes answered"
    return f"no node is active ({answered}); see 'zelect why{target.place}'"


@click.command()
@cluster_options
@click.option(
    "--controller", "wanted", flag_value="controller", default=True, help="Until a node is active.  [default]"
)
@click.option("--quorum", "wanted", flag_value="quorum", help="Until the cluster survives one more failure.")
@timeout_option(30.0, "Give up after this time.")
@click.pass_context
def wait(context: click.Context, /, wanted: str, timeout_s: float, **where: Any) -> None:
    """Wait until a node is active.

    With --quorum: until the cluster can also survive one more failure.

    Exit code 0: reached; 1: not reached after --timeout seconds; 5: no node answered in that time.
    """
    import time

    target = Target.of(**where)
    end = time.monotonic() + timeout_s
    last: ClusterStatus | None = None
    while (left_s := end - time.monotonic()) > 0:
        state = target.ask(min(1.0, left_s), lambda reports: _reached(reports, wanted) is not None)
        last = state if state.reports else last
        active = _reached(state.reports, wanted)
        if active is not None:
            more = f"; {active.voters.survives} more may fail" if wanted == "quorum" else ""
            click.echo(f"node {active.id} is active, term {active.term}{more}")
            context.exit(0)
        time.sleep(min(_EVERY_MS / 1000, max(0.0, end - time.monotonic())))
    print_error(f"not reached after {timeout_s:g} s: " + _none(target, last))
    context.exit(1 if last else 5)


def _reached(reports: Any, wanted: str) -> NodeReport | None:
    """The active node, where that is what is `wanted`."""
    from zelect.status.cluster import controller_of

    active = controller_of(reports)
    return active if active is not None and (wanted == "controller" or active.voters.survives >= 1) else None


@click.command()
@cluster_options
@click.pass_context
def watch(context: click.Context, /, **where: Any) -> None:
    """Print a line of JSON whenever the controller changes.

    Runs until Ctrl-C. The first line is the state at the start. {"id": null, ...} while no node is active;
    "previous" is the previous controller; "answered" says how many nodes answered.
    """
    import time

    import zmq

    from zelect.status.cluster import controller_of

    target = Target.of(**where)
    zmq_context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    asker = target.asker(zmq_context)
    poller = zmq.Poller()
    asker.register(poller)
    printed: tuple[int, int] | None = None
    previous, answered_s = 0, time.monotonic()
    began_s = answered_s
    try:
        while True:
            asker.ask()
            poller.poll(_EVERY_MS)
            asker.collect()
            reports = asker.fresh(4 * _EVERY_MS)
            active = controller_of(reports)
            if reports:
                answered_s = time.monotonic()
            elif time.monotonic() - answered_s < _NO_ANSWER_S:
                continue  # on a busy machine all may be late once; that says nothing about who is active
            starting = printed is None and active is None and len(reports) < len(target.addresses)
            if starting and time.monotonic() - began_s < _NO_ANSWER_S:
                continue  # the active node may be the one that has not answered yet
            now = (active.id, active.term) if active is not None else (0, 0)
            if now != printed:
                _print_change(active, previous, len(reports))
                printed, previous = now, active.id if active is not None else previous
            time.sleep(_EVERY_MS / 1000)
    except (KeyboardInterrupt, BrokenPipeError):
        context.exit(0)
    finally:
        asker.close()
        zmq_context.destroy(linger=0)


def _print_change(active: NodeReport | None, previous: int, answered: int) -> None:
    import sys

    from zelect.system.clock import unix_ms

    line = {
        "at_ms": unix_ms(),
        "id": active.id if active else None,
        "term": active.term if active else None,
        "address": active.address if active else None,
        "previous": previous or None,
        "answered": answered,
    }
    click.echo(json.dumps(line))
    sys.stdout.flush()
