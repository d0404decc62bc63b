"""`zelect pause`, `zelect resume`: planned transfers are paused for some time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from zelect.cli.support.admin import admin_command, reason_option
from zelect.cli.support.options import Duration, Target, cluster_options, json_option

if TYPE_CHECKING:
    from zelect.core.messages import AdminCommand


@click.command()
@click.option("--for", "for_ms", type=Duration(), default="30m", show_default=True, metavar="TIME", help="How long.")
@click.option("--reason", required=True, metavar="TEXT", help="Why; `zelect status` shows it together with who asked.")
@cluster_options
@json_option
@click.pass_context
def pause(context: click.Context, /, for_ms: int, reason: str, as_json: bool, **where: Any) -> None:
    """Pause planned transfers for some time.

    No transfer, no stepdown, no handover because of an unhealthy job. Failovers still happen, and a node that
    is stopped still hands over. The pause ends on its own. It is sent to all nodes that answer; a node that
    starts later does not know of it.

    Exit code 0: all nodes that answered agreed; 1: one refused; 5: no node answered.
    """
    from zelect.core.messages import AdminAction

    context.exit(_tell_all(Target.of(**where), admin_command(AdminAction.PAUSE, reason, for_ms=for_ms), as_json))


@click.command()
@reason_option
@cluster_options
@json_option
@click.pass_context
def resume(context: click.Context, /, reason: str, as_json: bool, **where: Any) -> None:
    """End a pause.

    Exit code 0: all nodes that answered agreed; 1: one refused; 5: no node answered.
    """
    from zelect.core.messages import AdminAction

    context.exit(_tell_all(Target.of(**where), admin_command(AdminAction.RESUME, reason), as_json))


def _tell_all(target: Target, command: AdminCommand, as_json: bool) -> int:
    """Send `command` to all nodes and print their answers; returns the exit code."""
    from zelect.cli.support.errors import CommandError
    from zelect.core.messages import Result
    from zelect.status.cluster_text import nodes_text

    answers = target.tell(target.answered().reports, command)
    if not answers:
        raise CommandError(target.no_answer(), 5)
    refused = {node for node, answer in answers.items() if answer.result is not Result.OK}
    if as_json:
        rows: list[dict[str, Any]] = []
        for node in sorted(target.addresses):
            answer = answers.get(node)
            rows.append({"id": node, "result": answer and answer.result, "detail": answer and answer.detail})
        table = {"cluster": target.cluster, "what": command.what, "asked": command.asked, "nodes": rows}
        click.echo(json.dumps(table, indent=2))
    else:
        for node, answer in sorted(answers.items()):
            click.echo(f"node {node}: {'refused: ' if node in refused else ''}{answer.detail}")
    if unresponsive := set(target.addresses) - set(answers):
        names = nodes_text(unresponsive)
        click.echo(f"{names} did not answer; only the others have done this", err=True)
    return 1 if refused else 0
