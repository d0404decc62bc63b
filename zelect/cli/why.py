"""`zelect why`: why an election was held, and how it went."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from zelect.cli.support.options import Target, cluster_options, json_option

if TYPE_CHECKING:
    from zelect.status.cluster import ClusterStatus


@click.command()
@cluster_options
@click.argument("term", type=click.IntRange(min=1), required=False)
@json_option
@click.pass_context
def why(context: click.Context, /, term: int | None, as_json: bool, **where: Any) -> None:
    """Explain an election: its reason, votes and phases.

    Explains the election of TERM (default: the last): the reason, every vote with its reason, failed rounds, and
    how long each phase took.

    While no node is active, as far as is known: the vote requests of each node, and who refused.

    Exit code 0: explained; 1: nothing is known of that term; 5: neither Redis nor a node answered.
    """
    from zelect.cli.support.elections import elections_of
    from zelect.status.cluster import controller_of
    from zelect.status.codec import plain
    from zelect.status.election_text import explain_election

    target = Target.of(**where)
    if term is None:
        state = target.ask(enough=lambda reports: controller_of(reports) is not None)
        if state.reports and state.named is None:
            _print_failing(target, state, as_json)
            if as_json:
                context.exit(0)
            click.echo("\nThe last election:\n")
    elections = elections_of(target, 1, lambda one: term in (None, one.term))
    if not elections:
        of = f"an election of term {term}; 'zelect history{target.place}' lists the known ones" if term else "elections"
        click.echo(f"nothing is known of {of}", err=True)
        context.exit(1)
    (election,) = elections[:1]
    click.echo(json.dumps(plain(election), indent=2) if as_json else "\n".join(explain_election(election)))


def _print_failing(target: Target, state: ClusterStatus, as_json: bool) -> None:
    """What each node that answers has asked in vain since the last controller was lost."""
    import textwrap

    from zelect.status.cluster_text import nodes_text, problem_lines
    from zelect.status.codec import plain
    from zelect.status.election_text import explain_rounds
    from zelect.status.problems import problems
    from zelect.status.table import WIDTH

    rounds = {node: report.rounds for node, report in sorted(state.reports.items())}
    if as_json:
        failing = {node: plain(some) for node, some in rounds.items()}
        told = {"problems": problems(state.reports, target.place), "needs": plain(state.shortage)}
        click.echo(json.dumps({"controller": None, "failing": failing, **told}, indent=2))
        return
    if wrong := problem_lines(state, target.place):
        click.echo("\n".join([*wrong, ""]))
    if not state.is_known:
        for line in [*target.not_known(state).splitlines(), ""]:
            click.echo(textwrap.fill(line, WIDTH, break_long_words=False, break_on_hyphens=False))
    elif not state.founded and not any(rounds.values()):
        click.echo("No node is active: no cluster is founded yet.")
        return
    intro = "No node is active. " if state.is_known else ""
    click.echo(f"{intro}Vote requests since the last controller was lost:")
    for node, some in rounds.items():
        if some:
            last = "the last 3 of " if len(some) > 3 else ""
            click.echo(f"\nnode {node}: {last}{len(some)} round{'s' if len(some) > 1 else ''}")
            click.echo("\n".join(explain_rounds(some[-3:])))
        else:
            lost = state.shortage is not None and state.shortage.witness_lost
            why = "too few voters have a vote" if lost else "it is waiting, or too few voters are connected"
            click.echo(f"\nnode {node} has not requested votes: {why}")
    if state.shortage is not None:
        click.echo("\n" + textwrap.fill(state.shortage.text_for(target.place), WIDTH, break_on_hyphens=False))
    if unresponsive := set(target.addresses) - set(rounds):
        names = nodes_text(unresponsive)
        click.echo(f"\nno answer from {names}; for the voters see 'zelect members{target.place}'")
