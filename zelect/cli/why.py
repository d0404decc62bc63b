"""`zelect history` and `zelect why`: what happened, and why."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from zelect.cli.targets import Members, members_option

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from zelect.status.history import Election, StoredRound

__all__ = ["history", "why"]

_ASK_S = 1.0


@click.command()
@members_option
@click.option("-n", "most", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many, newest first.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object an election.")
@click.pass_context
def history(
    context: click.Context, path: str | None, directory: str | None, key_file: str | None, most: int, as_json: bool
) -> None:
    """List the last elections, newest first, from Redis.

    With Redis away: the one that the node active remembers. Exit code 0; 1: there was none;
    5: neither Redis nor a node answered.
    """
    from zelect.cli.election_text import history_table

    members = Members.of(path, directory, key_file)
    elections = _elections(members, most)
    if as_json:
        click.echo(json.dumps([asdict(one) for one in elections], indent=2))
    elif elections:
        click.echo("\n".join(history_table(elections)))
    else:
        click.echo(f"nobody was ever elected in {members.cluster}", err=True)
    context.exit(0 if elections else 1)


@click.command()
@members_option
@click.argument("term", type=click.IntRange(min=1), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def why(
    context: click.Context,
    path: str | None,
    directory: str | None,
    key_file: str | None,
    term: int | None,
    as_json: bool,
) -> None:
    """Explain an election: its cause, votes and phases.

    That of TERM, by default the last: what caused it, every vote with its reason, rounds that failed, and
    what took how long.

    While nobody is active: what each node asked, and who refused. Exit code 0; 1: nothing is known
    of that term; 5: neither Redis nor a node answered.
    """
    from zelect.cli.election_text import explain_election

    members = Members.of(path, directory, key_file)
    failing = None if term is not None else _failing(members)
    if failing is not None:
        _tell_failing(members, failing, as_json)
        if as_json:
            context.exit(0)
        click.echo("\nThe last election:\n")
    elections = _elections(members, 1, (lambda one: one.term == term) if term is not None else lambda one: True)
    if not elections:
        what = (
            f"of an election of term {term}; 'zelect history{members.place}' lists those that are"
            if term
            else "of any election"
        )
        click.echo(f"nothing is known {what}", err=True)
        context.exit(1)
    click.echo(json.dumps(asdict(elections[0]), indent=2) if as_json else "\n".join(explain_election(elections[0])))


def _elections(
    members: Members, most: int, wanted: Callable[[Election], bool] = lambda one: True
) -> Sequence[Election]:
    """From Redis; where it does not answer, what the node active says of its own election."""
    from zelect.cli.errors import CommandError

    found, problem = _from_redis(members, most, wanted)
    if found or not problem:
        return found
    reports = members.ask(_ASK_S)
    if not reports:
        raise CommandError(f"Redis: {problem}\n{members.explain_no_answer()}", 5)
    click.echo(f"Redis: {problem}; this is what the nodes remember", err=True)
    own = [report.election for report in reports.values() if report.election is not None]
    return [one for one in own if wanted(one)]


def _from_redis(members: Members, most: int, wanted: Callable[[Election], bool]) -> tuple[Sequence[Election], str]:
    """What the stream has, and what is wrong with Redis ("": nothing)."""
    from zelect.redis.connection import connect
    from zelect.redis.credentials import credentials_of
    from zelect.redis.errors import explain
    from zelect.status.history import read_elections

    config = members.config.redis
    if not config.url:
        return [], "not configured (redis.url is empty)"
    try:
        client = connect(config.url, max(0.5, config.timeout_ms / 1000), credentials_of(members.config))
        found, garbage = read_elections(client, members.cluster, most, wanted)
    except Exception as error:  # whatever Redis or its URL does: it is told, and the nodes are asked
        return [], explain(error, config.url, config.timeout_ms).problem
    if garbage:
        click.echo(f"{garbage} entries of zelect:{{{members.cluster}}}:elections are no elections; left out", err=True)
    return found, ""


def _failing(members: Members) -> dict[int, tuple[StoredRound, ...]] | None:
    """What each node that answers has asked in vain, while nobody is active; None when somebody
    is, or nobody answers."""
    from zelect.client.query import controller_of

    reports = members.ask(_ASK_S, lambda reports: controller_of(reports) is not None)
    if not reports or controller_of(reports) is not None:
        return None
    return {node: report.rounds for node, report in sorted(reports.items())}


def _tell_failing(members: Members, failing: Mapping[int, Sequence[StoredRound]], as_json: bool) -> None:
    from zelect.cli.election_text import explain_rounds

    if as_json:
        table = {node: [asdict(one) for one in rounds] for node, rounds in failing.items()}
        click.echo(json.dumps({"controller": None, "failing": table}, indent=2))
        return
    click.echo("Nobody is active. What was asked since the last controller was lost:")
    for node, rounds in failing.items():
        if rounds:
            click.echo(f"\nnode {node} asked ({len(rounds)} rounds, the last 3 here)")
            click.echo("\n".join(explain_rounds(rounds[-3:])))
        else:
            click.echo(f"\nnode {node} has asked nobody: too few of the voters are connected, or it waits")
    unresponsive = sorted(set(members.addresses) - set(failing))
    if unresponsive:
        click.echo(
            f"\nno answer from node {', '.join(map(str, unresponsive))}; who votes: 'zelect members{members.place}'"
        )
