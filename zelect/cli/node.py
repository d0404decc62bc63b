"""`zelect node`: one node in the foreground."""

from __future__ import annotations

import click

from zelect.cli.support.options import config_option, configured, id_option


@click.command()
@config_option
@id_option
@click.option("--child", hidden=True, help="For zelect.Node(process=True): see zelect.system.channel.")
@click.pass_context
def node(context: click.Context, path: str | None, node_id: int | None, child: str | None) -> None:
    """Run one node in the foreground.

    On SIGTERM or SIGINT it hands over if it is active, leaves, and exits with 0. On SIGUSR1 it notes that all nodes
    are going to be stopped, so that no vote is taken away meanwhile. On SIGHUP it reads its files
    again, as with 'zelect reload'.
    """
    from zelect.cli.support.errors import CommandError
    from zelect.config.loading import ConfigError
    from zelect.node.foreground import run
    from zelect.system.standard_streams import fill_standard

    fill_standard()
    try:
        config = configured(path, node_id)
        if child is not None:
            from zelect.node.child_process import run_child

            context.exit(run_child(config, child))
        context.exit(run(config))
    except ConfigError as error:
        raise CommandError(str(error), 2) from error
