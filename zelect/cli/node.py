"""`zelect node`: one node in the foreground."""

from __future__ import annotations

import click

__all__ = ["node"]


@click.command()
@click.option("-c", "--config", "path", required=True, metavar="FILE", help="The node's configuration (TOML).")
@click.option("--child", hidden=True, help="For zelect.Node(process=True): see zelect.system.channel.")
@click.pass_context
def node(context: click.Context, path: str, child: str | None) -> None:
    """Run one node in the foreground.

    SIGTERM or SIGINT: it leaves, hands its leadership over, and ends with 0.
    """
    from pathlib import Path

    from zelect.cli.errors import CommandError
    from zelect.cli.standard_streams import fill_standard
    from zelect.config.loading import ConfigError, load
    from zelect.node.foreground import run

    fill_standard()
    try:
        config = load(Path(path))
        if child is not None:
            from zelect.node.child_process import run_child

            context.exit(run_child(config, child))
        context.exit(run(config))
    except ConfigError as error:
        raise CommandError(str(error), 2) from error
