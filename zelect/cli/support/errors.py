"""How a command fails: one message, which says how to fix it, and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import click


class CommandError(click.ClickException):
    """Ends the command with `exit_code` and a message on standard error."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # declared for the class; click reads the instance's

    def show(self, file: IO[Any] | None = None) -> None:
        print_error(f"Error: {self.format_message()}")


def print_error(text: str) -> None:
    """Print `text` on standard error; on a terminal without breaking words at its edge."""
    import shutil
    import textwrap

    if sys.stderr.isatty():
        width = min(80, shutil.get_terminal_size().columns)
        lines = [
            textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) or [""]
            for line in text.splitlines()
        ]
        text = "\n".join("\n".join(some) for some in lines)
    click.echo(text, err=True)


@contextmanager
def explained() -> Iterator[None]:
    """Turn the errors that are meant for a person into a CommandError."""
    from zelect.config.loading import ConfigError
    from zelect.devcluster.layout import ClusterError

    try:
        yield
    except ClusterError as error:
        raise CommandError(str(error), error.exit_code) from error
    except ConfigError as error:
        raise CommandError(str(error), 2) from error
    except OSError as error:
        raise CommandError(
            f"{error.filename}: {error.strerror}; choose another --dir or fix its permissions", 2
        ) from error
