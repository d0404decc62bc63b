"""Which cluster a command means, and asking its members."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click

from zelect.cli.status import DIRECTORY, denial_lines, key_option, place_of, silence

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zelect.client.query import Asker, NodeReport
    from zelect.config.loading import Config
    from zelect.security.keys import Keyring

__all__ = ["Members", "members_option", "timeout_option"]

Command = TypeVar("Command", bound=Callable[..., Any])


def members_option(command: Command) -> Command:
    """-c, --dir and --key; the command gets them as `path`, `directory`, `key_file`."""
    command = key_option(command)
    command = click.option(
        "--dir", "directory", metavar="DIR", help=f"Directory of a local cluster.  [default: {DIRECTORY}]"
    )(command)
    return click.option(
        "-c", "--config", "path", metavar="FILE", help="Configuration of any node: it names all members."
    )(command)


def timeout_option(default_s: float, help: str) -> Callable[[Command], Command]:
    """--timeout S; the command gets it as `timeout_s`."""
    return click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(0.05, 86_400),
        default=default_s,
        show_default=True,
        metavar="S",
        help=help,
    )


@dataclass(slots=True)
class Members:
    """The cluster that the options name. `place`: how they name it, to be put behind a command that is
    recommended; `denials`: why nodes that could be reached gave no answer."""

    cluster: str
    addresses: Mapping[int, str]
    keyring: Keyring | None
    config: Config
    place: str = ""
    denials: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, path: str | None, directory: str | None, key_file: str | None) -> Members:
        """Raises Failure and UsageError."""
        from zelect.cli.errors import explained
        from zelect.cli.status import config_of
        from zelect.security.keys import keyring_to_ask

        if path is not None and directory is not None:
            raise click.UsageError("give -c or --dir, not both")
        with explained():
            config = config_of(path, directory or DIRECTORY)
            keyring = keyring_to_ask(config, key_file or "")
        return cls(config.cluster.name, config.settings().addresses, keyring, config, place_of(path, directory))

    def ask(
        self, within_s: float, enough: Callable[[Mapping[int, NodeReport]], bool] = lambda reports: False
    ) -> dict[int, NodeReport]:
        """What the nodes say of themselves; see `zelect.client.query.ask_all`."""
        from zelect.client.query import ask_all

        self.denials.clear()
        return ask_all(self.cluster, self.addresses, within_s, enough, self.keyring, self.denials)

    def asker(self, context: Any) -> Asker:
        """Somebody who asks again and again."""
        from zelect.client.query import Asker

        return Asker(self.cluster, self.addresses, context, self.keyring)

    def exit_code(self, reports: Mapping[int, NodeReport]) -> int:
        """0: somebody is active; 1: nobody is; 5: nobody answered."""
        from zelect.cli.status import exit_code_of

        return exit_code_of(reports)

    def explain_no_answer(self) -> str:
        """What to do when nobody answered."""
        if self.denials:
            return "\n".join(denial_lines(self.denials))
        return silence(self.cluster, self.addresses)
