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
    """From Redis; where it does not answer, the one that the active node remembers."""
    from zelect.cli.support.errors import CommandError
    from zelect.client.elections import recorded_elections

    found = recorded_elections(target.config, most, wanted)
    if found.garbage:
        stream = f"zelect:{{{target.cluster}}}:elections"
        click.echo(f"{found.garbage} entries of {stream} are not elections; skipped", err=True)
    if not found.problem:
        return found.elections
    state = target.ask()
    if not state.reports:
        raise CommandError(f"Redis: {found.problem}\n{target.no_answer()}", 5)
    click.echo(f"Redis: {found.problem}; this is what the nodes remember", err=True)
    own = [report.election for report in state.reports.values() if report.election is not None]
    return [election for election in own if wanted(election)]
