"""What the commands that change something have in common: who asked, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from zelect.core.messages import AdminAction, AdminCommand

reason_option = click.option("--reason", default="", metavar="TEXT", help="Why; logged together with who asked.")


def admin_command(what: AdminAction, reason: str, to: int = 0, for_ms: int = 0) -> AdminCommand:
    """An admin command in the name of this user. Raises UsageError."""
    import getpass
    import socket

    from zelect.core.messages import AdminCommand, MalformedMessage

    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user without a name
        user = "unknown"
    asker = "".join(letter for letter in f"{user}@{socket.gethostname()}" if letter.isprintable())[:64]
    try:
        return AdminCommand(what, to, for_ms, reason, asker)
    except MalformedMessage as error:
        raise click.UsageError(f"--reason: {str(error).removeprefix('bad_field: ')}") from error
