"""`zelect history`: the last elections."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from zelect.cli.support.options import Target, cluster_options

if TYPE_CHECKING:
    from zelect.status.election import Election


@click.command()
@cluster_options
@click.option("-n", "most", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many, newest first.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object per election.")
@click.pass_context
def history(context: click.Context, /, most: int, as_json: bool, **where: Any) -> None:
    """List the last elections, newest first, from Redis.

    While Redis is down, and where it lost its data: only the last one, from the active node.

    Exit code 0: there are elections; 1: there are none; 5: neither Redis nor a node answered.
    """
    from zelect.cli.support.elections import elections_of
    from zelect.status.election_text import history_table

    target = Target.of(**where)
    elections = elections_of(target, most)
    if as_json:
        click.echo(json.dumps([_as_json(one) for one in elections], indent=2))
    elif elections:
        click.echo("\n".join(history_table(elections)))
    else:
        click.echo(f"no election of {target.cluster} is known", err=True)
    context.exit(0 if elections else 1)


def _as_json(one: Election) -> dict[str, Any]:
    """`inactive_ms`: for how long no node was active; `detection_ms`: from when the previous controller was last heard
    until its loss was noticed; `gap_ms`: from when it was last heard until this one was active."""
    from zelect.status.codec import plain

    times = {"inactive_ms": one.inactive_us, "detection_ms": one.detection_us}
    return {**plain(one), **{name: None if us is None else us / 1000 for name, us in times.items()}}
