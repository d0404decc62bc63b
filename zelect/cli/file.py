"""`zelect file`: a file that names the active node while there is one."""

from __future__ import annotations

import click

from zelect.cli.support.options import config_option

_EVERY_S = 0.2


@click.command()
@click.argument("target", metavar="PATH")
@config_option
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(0.02, 60),
    default=_EVERY_S,
    show_default=True,
    metavar="S",
    help="How often to check.",
)
def file(target: str, path: str | None, every_s: float) -> None:
    """Keep a file that names the active node.

    PATH contains "ID TERM" while node ID is active, and does not exist otherwise, nor while too few nodes can be asked
    to know (standard error says so). It is always replaced as a whole, and its mtime is updated at each check: a PATH
    that is older than a few checks was left behind by a `zelect file` that was killed. Asks the nodes themselves; where
    the active node can't be asked, its followers name it. On TERM or INT it removes PATH and ends.
    """
    from pathlib import Path

    from zelect.cli.support.errors import CommandError, print_error
    from zelect.client.observer import Observer
    from zelect.config.loading import ConfigError, chosen, load
    from zelect.jobs.controller_file import ControllerFile

    try:
        observer = Observer(load(chosen(path), member=False), believe_redis=False)
        ControllerFile(Path(target), observer, every_s, print_error).keep()
    except ConfigError as error:
        raise CommandError(str(error), 2) from error
    except OSError as error:
        raise CommandError(f"{target}: {error.strerror}; name a file in a directory that is writable", 2) from error
