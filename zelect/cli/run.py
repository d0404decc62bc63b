"""`zelect run`: a command that runs on the active node."""

from __future__ import annotations

import click

from zelect.cli.support.options import config_option, configured, id_option


@click.command(context_settings={"allow_interspersed_args": False})
@config_option
@id_option
@click.option(
    "--restart",
    type=click.Choice(["on-failure", "always", "never"]),
    default="on-failure",
    show_default=True,
    help="Whether CMD is restarted when it exits on its own while the node is active.",
)
@click.option(
    "--grace",
    "grace_s",
    type=click.FloatRange(0, 3600),
    default=10.0,
    show_default=True,
    metavar="S",
    help="How long CMD may take to end after TERM, but never past the lease.",
)
@click.option("--forward-hup", is_flag=True, help="Pass HUP on to CMD as well; CMD dies if it does not handle HUP.")
@click.option(
    "--child-exit-code", "pass_code", is_flag=True, help="Exit with the exit code of a CMD that exits on its own."
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD [ARGUMENT]...")
@click.pass_context
def run(
    context: click.Context,
    path: str | None,
    node_id: int | None,
    restart: str,
    grace_s: float,
    forward_hup: bool,
    pass_code: bool,
    command: tuple[str, ...],
) -> None:
    """Run a node, and CMD while the node is active.

    CMD and all processes that it started are ended before the lease ends, with TERM, then KILL. CMD is started again
    when the node becomes active again. On TERM or INT, CMD ends and the node leaves and hands over. On HUP, the node
    reads its files again, as with 'zelect reload'. QUIT, USR1, USR2, CONT and WINCH are passed on to CMD.

    CMD gets ZELECT_NODE, ZELECT_TERM (the fencing token), ZELECT_ROLE, ZELECT_CONTROLLER,
    ZELECT_PREVIOUS, ZELECT_REASON and ZELECT_LEASE_MS in its environment.
    """
    import shutil

    from zelect.api.node import NodeFailed
    from zelect.cli.support.errors import CommandError
    from zelect.config.loading import ConfigError
    from zelect.jobs.runner import Runner, RunPlan
    from zelect.jobs.watchdog_client import WatchdogFailed
    from zelect.node.storage.data_dir import DataDirError
    from zelect.node.storage.vote_store import VoteStoreError
    from zelect.system.init import be_init
    from zelect.system.sockets import CannotBind
    from zelect.system.standard_streams import fill_standard

    fill_standard()
    be_init()
    if shutil.which(command[0]) is None:
        raise click.UsageError(f"{command[0]}: no such command, or it can't be executed; give the command after --")
    try:
        config = configured(path, node_id)
        plan = RunPlan(command, restart, int(grace_s * 1000), pass_code, forward_hup)
        context.exit(Runner(config, plan).run())
    except ConfigError as error:
        raise CommandError(str(error), 2) from error
    except (VoteStoreError, DataDirError) as error:
        raise CommandError(str(error), 3) from error
    except CannotBind as error:
        raise CommandError(str(error), 4) from error
    except (WatchdogFailed, NodeFailed) as error:
        code = 3 if isinstance(error.__cause__, VoteStoreError | DataDirError) else 1
        raise CommandError(str(error), code) from error
