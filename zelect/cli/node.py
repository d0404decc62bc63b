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
    from zelect.system.init import be_init
    from zelect.system.standard_streams import fill_standard

    fill_standard()
    be_init()
    try:
        if child is not None:
            context.exit(_run_child(path, node_id, child))
        from zelect.node.foreground import run

        context.exit(run(configured(path, node_id)))
    except ConfigError as error:
        raise CommandError(str(error), 2) from error


def _run_child(path: str | None, node_id: int | None, argument: str) -> int:
    """Run the node for the program that started it, which is told why that fails, whatever it is."""
    from zelect.errors import ZelectError
    from zelect.system.channel import Channel

    channel, settings = Channel.of_child(argument)
    try:
        from zelect.node.child_process import run_child

        return run_child(configured(path, node_id), channel, settings)
    except ZelectError as error:
        channel.send({"failed": str(error)})
        return 1
    except BaseException as error:
        channel.send({"failed": f"{type(error).__name__}: {error}"})
        raise
