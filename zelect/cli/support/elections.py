"""The elections that `zelect history` and `zelect why` show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zelect.cli.support.options import Target
    from zelect.status.election import Election


def elections_of(
    target: Target, most: int, wanted: Callable[[Election], bool] = lambda election: True
) -> Sequence[Election]:
    """From Redis, and the one that the active node remembers where Redis doesn't have it: it was away, or lost its
    data. What is missing is said on standard error."""
    from zelect.cli.support.errors import CommandError
    from zelect.client.elections import recorded_elections
    from zelect.status.cluster import controller_of
    from zelect.status.cluster_text import controller_text

    found = recorded_elections(target.config, most, wanted)
    if found.garbage:
        stream = f"zelect:{{{target.cluster}}}:elections"
        click.echo(f"{found.garbage} entries of {stream} are not elections; skipped", err=True)
    state = target.ask(enough=lambda reports: controller_of(reports) is not None)
    if not state.reports:
        if not found.elections:
            why = found.problem or "has no elections; it may have lost its data"
            raise CommandError(f"Redis: {why}\n{target.no_answer()}", 5)
        return found.elections
    if found.problem:
        click.echo(f"Redis: {found.problem}; this is what the nodes remember", err=True)
    elif not found.any and state.term:
        lost = f"Redis has no elections of {target.cluster}, whose term is {state.term}: it lost its data"
        click.echo(f"{lost}; this is what the nodes remember", err=True)
    known = {election.term for election in found.elections}
    own = [report.election for report in state.reports.values() if report.election is not None]
    more = [election for election in own if election.term not in known and wanted(election)]
    newest = max(known, default=0)
    if found.problem or not found.any:
        if not more and state.controller is None and (state.named is not None or not state.is_known):
            lines = [f"{controller_text(state)}; it could not be asked", *target.denial_lines()]
            raise CommandError("\n".join(lines) if state.named is not None else target.not_known(state), 5)
        return more[:most]
    return [*(one for one in more if one.term > newest), *found.elections][:most]
