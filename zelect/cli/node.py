"""`zelect node`: one node in the foreground."""

from __future__ import annotations

import click

__all__ = ["node"]


@click.command()
@click.option("-c", "--config", "path", required=True, metavar="FILE", help="The node's configuration (TOML).")
@click.option("--tie", hidden=True, help="For zelect.Node(process=True): descriptors of the socket and the page.")
@click.pass_context
def node(context: click.Context, path: str, tie: str | None) -> None:
    """Run one node in the foreground.

    SIGTERM or SIGINT: it says goodbye, hands its office over, and ends with 0.
    """
    from pathlib import Path

    from zelect.cli.errors import Failure
    from zelect.cli.standard_streams import fill_standard
    from zelect.config.loading import ConfigError, load
    from zelect.node.foreground import run

    fill_standard()
    try:
        config = load(Path(path))
        if tie is not None:
            from zelect.node.leadership.child_node import run_tied

            context.exit(run_tied(config, *map(int, tie.split(","))))
        context.exit(run(config))
    except ConfigError as error:
        raise Failure(str(error), 2) from error
