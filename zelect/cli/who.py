"""`zelect who`, `zelect wait`, `zelect watch`: which node is active, for people and scripts.

All three ask the nodes themselves, so Redis may be down; a node says that it is active only while its lease
runs. Where that node can't be asked, its followers say whom they follow.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from zelect.cli.support.errors import print_error
from zelect.cli.support.options import Target, cluster_options, timeout_option

if TYPE_CHECKING:
    from zelect.status.cluster import ClusterStatus

_EVERY_MS = 50
_NO_ANSWER_S = 1.0
"""After so long without enough answers, it is said that it is not known which node is active."""


@click.command()
@cluster_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON: id, term, address, since_ms (Unix), source.")
@timeout_option(1.0, "How long to wait for answers.")
@click.pass_context
def who(context: click.Context, /, as_json: bool, timeout_s: float, **where: Any) -> None:
    """Print the id of the active node.

    Where the active node can't be asked, its followers name it; standard error says so.

    Exit code 0: a node is active; 1: none is; 5: too few nodes could be asked to know.
    """
    from zelect.status.cluster import controller_of
    from zelect.status.cluster_text import controller_text
    from zelect.status.codec import plain

    target = Target.of(**where)
    state = target.ask(timeout_s, lambda reports: controller_of(reports) is not None)
    named = state.named
    if as_json:
        click.echo(json.dumps(plain(named)))
    elif named is not None:
        click.echo(named.id)
    if named is None:
        print_error(_none(target, state))
    elif named.source == "followers":
        print_error("\n".join([controller_text(state), *target.denial_lines()]))
    context.exit(state.exit_code)


def _none(target: Target, state: ClusterStatus) -> str:
    if not state.is_known:
        return target.not_known(state)
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

    Exit code 0: reached; 1: not reached after --timeout seconds; 5: too few nodes could be asked to know.
    """
    import time

    from zelect.status.cluster_text import controller_text

    target = Target.of(**where)
    end = time.monotonic() + timeout_s
    last: ClusterStatus | None = None
    while (left_s := end - time.monotonic()) > 0:
        state = target.ask(min(1.0, left_s), lambda reports: _reached(reports, wanted))
        last = state if state.reports or last is None else last
        if _is_enough(state, wanted):
            more = f"; {_survives(state)} more may fail" if wanted == "quorum" else ""
            click.echo(f"{controller_text(state)}{more}")
            context.exit(0)
        time.sleep(min(_EVERY_MS / 1000, max(0.0, end - time.monotonic())))
    assert last is not None
    print_error(f"not reached after {timeout_s:g} s: {_missing(target, last)}")
    context.exit(1 if last.is_known else 5)


def _reached(reports: Any, wanted: str) -> bool:
    """Whether a node is active, by its own word, and what is `wanted` holds."""
    from zelect.status.cluster import controller_of

    active = controller_of(reports)
    return active is not None and (wanted == "controller" or active.voters.survives >= 1)


def _is_enough(state: ClusterStatus, wanted: str) -> bool:
    return state.named is not None and (wanted == "controller" or _survives(state) >= 1)


def _survives(state: ClusterStatus) -> int:
    """How many more members may fail, by the node to believe about the voters."""
    return state.best.voters.survives if state.best is not None else -1


def _missing(target: Target, state: ClusterStatus) -> str:
    """Why what was waited for is not so."""
    from zelect.status.cluster_text import controller_text

    if state.named is None:
        return _none(target, state)
    return f"{controller_text(state)}, but no member may fail now; see 'zelect members{target.place}'"


@click.command()
@cluster_options
@click.pass_context
def watch(context: click.Context, /, **where: Any) -> None:
    """Print a line of JSON whenever the controller changes.

    Runs until Ctrl-C. The first line is the state at the start. {"id": null, ...} while no node is active;
    with "known": false while too few nodes can be asked to know. "source" is "followers" where the active node
    can't be asked, and they name it; "previous" is the previous controller; "answered" says how many nodes answered.
    """
    import time

    import zmq

    from zelect.system.standard_streams import output_is_gone

    target = Target.of(**where)
    zmq_context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    asker = target.asker(zmq_context)
    poller = zmq.Poller()
    asker.register(poller)
    printed: tuple[int, int, bool] | None = None
    previous, known_s = 0, time.monotonic()
    began_s = known_s
    try:
        while True:
            asker.ask()
            poller.poll(_EVERY_MS)
            asker.collect()
            asker.follow(4 * _EVERY_MS)
            state = asker.status_within(4 * _EVERY_MS)
            named = state.named
            if state.is_known:
                known_s = time.monotonic()
            elif time.monotonic() - known_s < _NO_ANSWER_S:
                continue  # on a busy machine some may be late once; that says nothing about who is active
            starting = printed is None and state.controller is None and len(state.reports) < len(state.addresses)
            if starting and time.monotonic() - began_s < _NO_ANSWER_S:
                continue  # the active node may be the one that has not answered yet
            now = (named.id, named.term, True) if named is not None else (0, 0, state.is_known)
            if now != printed:
                _print_change(state, previous)
                printed, previous = now, named.id if named is not None else previous
            if output_is_gone():
                break  # it would be noticed at the next change only
            time.sleep(_EVERY_MS / 1000)
    except (KeyboardInterrupt, BrokenPipeError):
        context.exit(0)
    finally:
        asker.close()
        zmq_context.destroy(linger=0)


def _print_change(state: ClusterStatus, previous: int) -> None:
    import sys

    from zelect.system.clock import unix_ms

    named = state.named
    line = {
        "at_ms": unix_ms(),
        "known": state.is_known,
        "id": named.id if named else None,
        "term": named.term if named else None,
        "address": named.address if named else None,
        "source": named.source if named else None,
        "previous": previous or None,
        "answered": len(state.reports),
    }
    click.echo(json.dumps(line))
    sys.stdout.flush()
