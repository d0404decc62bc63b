"""`zelect check`: would the cluster survive the loss of some nodes, and which node would be active then."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from zelect.cli.support.options import Target, cluster_options, json_option

if TYPE_CHECKING:
    from zelect.status.forecast import Forecast


class _Ids(click.ParamType[tuple[int, ...]]):
    """Node ids such as 2,4."""

    name = "nodes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            ids = tuple(int(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} names no nodes; write them like 2,4")
        if len(set(ids)) < len(ids):
            self.fail(f"{value!r} names a node twice")
        return ids


@click.command()
@click.option("--down", type=_Ids(), default=(), metavar="N,N...", help="The nodes to lose, in this order.")
@cluster_options
@json_option
@click.pass_context
def check(context: click.Context, /, down: tuple[int, ...], as_json: bool, **where: Any) -> None:
    """Check whether the cluster would survive the loss of nodes.

    Prints which node would then be active. Asks the nodes for their status and changes nothing. Without
    --down: how many failures it survives now.

    Exit code 0: it survives the loss of all of them at once; 1: it does not; 5: too few nodes could be asked.
    """
    from zelect.cli.support.errors import CommandError
    from zelect.status.codec import plain
    from zelect.status.forecast import forecast

    target = Target.of(**where)
    target.known(down)
    state = target.answered()
    if not state.is_known:
        raise CommandError(target.not_known(state), 5)
    found = forecast(state, down)
    click.echo(json.dumps(plain(found), indent=2) if as_json else _text(found, target.place))
    context.exit(0 if found.survives else 1)


def _text(found: Forecast, place: str = "") -> str:
    import textwrap

    from zelect.status.table import WIDTH

    lines = [
        textwrap.wrap(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False) for line in _lines(found, place)
    ]
    return "\n".join(line for some in lines for line in some)


def _lines(found: Forecast, place: str = "") -> list[str]:
    from zelect.status.cluster_text import ids_text, nodes_text

    down = found.down
    if not found.members:
        return [f"{found.cluster}: no cluster is founded yet; 'zelect status{place}' shows what it waits for"]
    active = f"node {found.controller} is active" if found.controller else "no node is active now"
    lines = [f"{found.cluster}: {active}; members {ids_text(found.members)}; witness {found.witness}"]
    needs = [f"  needs     {found.needs.text_for(place)}"] if found.needs is not None else []
    if not down:
        return [*lines, f"  now       {_more(found.more)}", *needs]
    names = nodes_text(down)
    lines.append(f"If {names} went down{' at once' if len(down) > 1 else ''}:")
    if not found.survives:
        left = "no node could be elected: too few votes are left" if found.left else "no member would be left"
        lines += [f"  {left}", *needs]
    else:
        lead = found.would_lead
        lines.append(f"  active    node {lead} {'stays active' if lead == found.controller else 'would be elected'}")
        lines.append(f"  then      {_more(found.more)}")
    if len(down) > 1:
        lines.append(f"One after the other ({', then '.join(map(str, down))}), some seconds apart:")
        lines.append(f"  then      {_more(found.one_after_the_other.more)}")
    return lines


def _more(more: int) -> str:
    if more < 0:
        return "no quorum: no node can be elected"
    if more == 0:
        return "survives, but not another failure"
    return f"survives {more} more failure" + ("s, one after the other" if more > 1 else "")
