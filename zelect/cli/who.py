"""`zelect who`, `zelect wait`, `zelect watch`: who is active, for people and scripts.

All three ask the nodes themselves, so Redis may be down; only a node active with a running lease
says that it leads.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from zelect.cli.errors import say
from zelect.cli.targets import Members, members_option, timeout_option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zelect.client.query import NodeReport

__all__ = ["wait", "watch", "who"]

_EVERY_MS = 50
_NO_ANSWER_S = 1.0
"""After so long without any answer nobody is said to lead."""


@click.command()
@members_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON: id, term, address, since_ms (Unix).")
@timeout_option(1.0, "How long to wait for answers.")
@click.pass_context
def who(
    context: click.Context,
    path: str | None,
    directory: str | None,
    key_file: str | None,
    as_json: bool,
    timeout_s: float,
) -> None:
    """Print the id of the node active.

    Exit code 0: somebody is; 1: nodes answered, but nobody is; 5: nobody answered.
    """
    from zelect.client.query import controller_of

    members = Members.of(path, directory, key_file)
    reports = members.ask(timeout_s, lambda reports: controller_of(reports) is not None)
    head = controller_of(reports)
    if as_json:
        click.echo(json.dumps(_office(head)))
    elif head is not None:
        click.echo(head.id)
    if head is None:
        say(_nobody(members, reports))
    context.exit(members.exit_code(reports))


def _office(head: NodeReport | None) -> dict[str, Any] | None:
    if head is None:
        return None
    return {"id": head.id, "term": head.term, "address": head.address, "since_ms": head.since_ms}


def _nobody(members: Members, reports: Mapping[int, NodeReport]) -> str:
    if not reports:
        return members.explain_no_answer()
    answered = f"{len(reports)} of {len(members.addresses)} nodes answered"
    return f"nobody is active ({answered}); see 'zelect why{members.place}'"


@click.command()
@members_option
@click.option(
    "--controller", "wanted", flag_value="controller", default=True, help="Until somebody is active.  [default]"
)
@click.option("--quorum", "wanted", flag_value="quorum", help="Until one more member may fail.")
@timeout_option(30.0, "Give up after so long.")
@click.pass_context
def wait(
    context: click.Context,
    path: str | None,
    directory: str | None,
    key_file: str | None,
    wanted: str,
    timeout_s: float,
) -> None:
    """Wait for a controller, or until a member more may fail.

    Exit code 0: it is so; 1: it isn't after --timeout seconds; 5: nobody answered all that time.
    """
    import time

    from zelect.client.query import controller_of

    members = Members.of(path, directory, key_file)
    end = time.monotonic() + timeout_s
    last: Mapping[int, NodeReport] = {}
    while (left_s := end - time.monotonic()) > 0:
        reports = members.ask(min(1.0, left_s), lambda reports: _is_so(reports, wanted))
        last = reports or last
        if _is_so(reports, wanted):
            head = controller_of(reports)
            assert head is not None
            click.echo(f"node {head.id} is active, term {head.term}" + _survives(head.survives, wanted))
            context.exit(0)
        time.sleep(min(_EVERY_MS / 1000, max(0.0, end - time.monotonic())))
    say(f"not so after {timeout_s:g} s: " + _nobody(members, last))
    context.exit(1 if last else 5)


def _is_so(reports: Mapping[int, NodeReport], wanted: str) -> bool:
    from zelect.client.query import controller_of

    head = controller_of(reports)
    return head is not None and (wanted == "controller" or head.survives >= 1)


def _survives(survives: int, wanted: str) -> str:
    return f"; {survives} more may fail" if wanted == "quorum" else ""


@click.command()
@members_option
@click.pass_context
def watch(context: click.Context, path: str | None, directory: str | None, key_file: str | None) -> None:
    """Print a line of JSON at each change of controller.

    Until Ctrl-C. The first line is the state at the start. {"id": null, ...} while nobody is active; "previous" is
    who was before; "answered" says how many nodes answered.
    """
    import time

    import zmq

    from zelect.client.query import controller_of

    members = Members.of(path, directory, key_file)
    zmq_context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    asker = members.asker(zmq_context)
    poller = zmq.Poller()
    asker.register(poller)
    said: tuple[int, int] | None = None
    last, answered_s = 0, time.monotonic()
    begun_s = answered_s
    try:
        while True:
            asker.ask()
            poller.poll(_EVERY_MS)
            asker.collect()
            reports = asker.fresh(4 * _EVERY_MS)
            head = controller_of(reports)
            if reports:
                answered_s = time.monotonic()
            elif time.monotonic() - answered_s < _NO_ANSWER_S:
                continue  # on a busy machine all may be late once; that says nothing of leadership
            starting = said is None and head is None and len(reports) < len(members.addresses)
            if starting and time.monotonic() - begun_s < _NO_ANSWER_S:
                continue  # who leads may be the one that has not answered yet
            now = (head.id, head.term) if head is not None else (0, 0)
            if now != said:
                _say(head, last, len(reports))
                said, last = now, head.id if head is not None else last
            time.sleep(_EVERY_MS / 1000)
    except (KeyboardInterrupt, BrokenPipeError):
        context.exit(0)
    finally:
        asker.close()
        zmq_context.destroy(linger=0)


def _say(head: NodeReport | None, previous: int, answered: int) -> None:
    import sys

    from zelect.system.clock import unix_ms

    line = {
        "at_ms": unix_ms(),
        "id": head.id if head else None,
        "term": head.term if head else None,
        "address": head.address if head else None,
        "previous": previous or None,
        "answered": answered,
    }
    click.echo(json.dumps(line))
    sys.stdout.flush()
