"""The command line.

Importing it imports click and nothing else of weight, so that `zelect --help` appears at once: each
command imports what it needs when it runs.

Exit codes: 0 fine; 1 the answer is no; 2 bad usage or configuration; 3 durable state unusable;
4 cannot listen, or the authenticator failed; 5 too few nodes could be asked.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import Any

import click

from zelect.cli.bootstrap import bootstrap
from zelect.cli.check import check
from zelect.cli.cluster import cluster
from zelect.cli.config import config
from zelect.cli.doctor import doctor
from zelect.cli.file import file
from zelect.cli.history import history
from zelect.cli.init import init
from zelect.cli.keygen import keygen
from zelect.cli.members import members
from zelect.cli.node import node
from zelect.cli.pause import pause, resume
from zelect.cli.reload import reload
from zelect.cli.run import run
from zelect.cli.status import status
from zelect.cli.transfer import stepdown, transfer
from zelect.cli.who import wait, watch, who
from zelect.cli.why import why
from zelect.system.standard_streams import show_in_any_encoding
from zelect.version import __version__


class _Main(click.Group):
    """Ends with a message when its output can't be written, as on a full disk; shows what a terminal has no letters
    for in others."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        show_in_any_encoding()
        try:
            try:
                return super().main(*arguments, **options)
            finally:
                if sys.stdout is not None:
                    sys.stdout.flush()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is not written yet is lost
            with contextlib.suppress(OSError):
                click.echo(f"Error: the output could not be written: {error.strerror}", err=True)
            sys.exit(2)


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="zelect")
def main() -> None:
    """Elects one controller among a set of processes.

    New here? `zelect cluster up 3` runs a local cluster to try things out.
    """


for _command in (
    *(node, run, file, cluster, members, status, who, wait, watch, history, why, check, doctor),
    *(transfer, stepdown, pause, resume, reload, bootstrap, init, keygen, config),
):
    main.add_command(_command)
