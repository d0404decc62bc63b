"""`zelect file`: a file that names the controller while there is one."""

from __future__ import annotations

import click

__all__ = ["file"]

_EVERY_S = 0.2


@click.command()
@click.argument("target", metavar="PATH")
@click.option(
    "-c", "--config", "path", required=True, metavar="FILE", help="Configuration of any node: it names all members."
)
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(0.02, 60),
    default=_EVERY_S,
    show_default=True,
    metavar="S",
    help="How often to look.",
)
def file(target: str, path: str, every_s: float) -> None:
    """Keep a file that names the controller.

    PATH holds "ID TERM" while node ID is active, and is not there otherwise. Replaced as a whole,
    never half written; touched at each look, so that a PATH that is older than a few looks was left
    by a `zelect file` that was killed. Asks the nodes themselves. Ends, and takes PATH away, at TERM
    or INT.
    """
    from pathlib import Path

    from zelect.cli.errors import CommandError
    from zelect.client.observer import Observer
    from zelect.config.loading import ConfigError, load
    from zelect.jobs.controller_file import ControllerFile

    try:
        observer = Observer(load(Path(path)), believe_redis=False)
        ControllerFile(Path(target), observer, every_s).keep()
    except ConfigError as error:
        raise CommandError(str(error), 2) from error
    except OSError as error:
        raise CommandError(
            f"{target}: {error.strerror}; name a file in a directory that you may write to", 2
        ) from error
