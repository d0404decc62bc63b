"""`zelect status`: asks the nodes themselves, so it works with Redis down."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from zelect.client.query import NodeReport
    from zelect.config.loading import Config
    from zelect.security.keys import Keyring

__all__ = [
    "DIRECTORY",
    "config_of",
    "denial_lines",
    "exit_code_of",
    "key_option",
    "members_of",
    "place_of",
    "print_denials",
    "silence",
    "status",
]

DIRECTORY = ".zelect"
_WATCH_EVERY_S = 1.0

key_option = click.option(
    "--key",
    "key_file",
    envvar="ZELECT_KEY",
    metavar="FILE",
    help="Secret key to speak with, where links are encrypted.  [env: ZELECT_KEY; default: as configured]",
)


@click.command()
@click.option("-c", "--config", "path", metavar="FILE", help="Configuration of any node: it names all members.")
@click.option("--dir", "directory", metavar="DIR", help=f"Directory of a local cluster.  [default: {DIRECTORY}]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --watch one line a second.")
@click.option("--watch", is_flag=True, help="Ask again every second until Ctrl-C.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0.05, 60),
    default=1.0,
    show_default=True,
    metavar="S",
    help="How long to wait for answers.",
)
@key_option
@click.pass_context
def status(
    context: click.Context,
    path: str | None,
    directory: str | None,
    as_json: bool,
    watch: bool,
    timeout_s: float,
    key_file: str | None,
) -> None:
    """Ask every node how it is, and show who is active.

    "voters 3.6: 1, 2" says who votes, by the 6th record of the controller of term 3.

    Exit code 0: a controller is active; 1: nodes answered, but none is; 5: nobody answered.
    """
    import time

    from zelect.cli.errors import explained, say
    from zelect.client.query import ask_all

    if path is not None and directory is not None:
        raise click.UsageError("give -c or --dir, not both")
    with explained():
        cluster, addresses, keyring = members_of(path, directory or DIRECTORY, key_file)
    try:
        while True:
            denials: dict[int, str] = {}
            reports = ask_all(cluster, addresses, timeout_s, keyring=keyring, denials=denials)
            _show(cluster, addresses, reports, as_json, watch)
            print_denials(denials)
            if not watch:
                if not reports and not denials and not as_json:
                    say(silence(cluster, addresses))
                break
            time.sleep(_WATCH_EVERY_S)
    except KeyboardInterrupt:
        context.exit(0)
    context.exit(exit_code_of(reports))


def members_of(
    path: str | None, directory: str, key_file: str | None = None
) -> tuple[str, Mapping[int, str], Keyring | None]:
    """The cluster's name, its members' addresses, and what to speak to them with (None: plain
    text). `key_file`: see `key_option`. Raises ConfigError or ClusterError."""
    from zelect.security.keys import keyring_to_ask

    config = config_of(path, directory)
    return config.cluster.name, config.settings().addresses, keyring_to_ask(config, key_file or "")


def place_of(path: str | None, directory: str | None) -> str:
    """The options that name this cluster again, behind a command; "" where none is needed."""
    if path is not None:
        return f" -c {path}"
    return "" if directory in (None, DIRECTORY) else f" --dir {directory}"


def config_of(path: str | None, directory: str) -> Config:
    """The configuration in `path`, or one of the local cluster in `directory`: any node's names all
    members. Raises ConfigError or ClusterError."""
    from pathlib import Path

    from zelect.config.loading import load

    return load(Path(path) if path is not None else _any_conf(Path(directory)))


def print_denials(denials: Mapping[int, str]) -> None:
    """Say on standard error why nodes that could be reached gave no answer."""
    from zelect.cli.errors import say

    for line in denial_lines(denials):
        say(line)


def silence(cluster: str, addresses: Mapping[int, str]) -> str:
    """What to do when nobody answered."""
    places = ", ".join(address.removeprefix("tcp://") for address in addresses.values())
    return f"no node of {cluster} answered ({places}): start one, or name another cluster with -c or --dir"


def denial_lines(denials: Mapping[int, str]) -> list[str]:
    """A line for each reason, with the nodes that gave it."""
    by_reason: dict[str, list[int]] = {}
    for node, why in sorted(denials.items()):
        by_reason.setdefault(why, []).append(node)
    return [
        f"node{'s' if len(nodes) > 1 else ''} {', '.join(map(str, nodes))}: {why}" for why, nodes in by_reason.items()
    ]


def _any_conf(directory: Path) -> Path:
    from zelect.devcluster.layout import ClusterError, Layout

    found = sorted(Layout(directory).conf.glob("n*.toml"))
    if not found:
        raise ClusterError(
            f"no configurations in {directory}/conf: name a node's file with -c FILE or the cluster's --dir DIR, "
            "or start one with 'zelect cluster up 3'"
        )
    return found[0]


def _show(
    cluster: str, addresses: Mapping[int, str], reports: Mapping[int, NodeReport], as_json: bool, watch: bool
) -> None:
    from zelect.cli.table import draw
    from zelect.client.query import summary

    state = summary(cluster, addresses, reports)
    if as_json:
        click.echo(json.dumps(state, indent=None if watch else 2))
        return
    if watch:
        click.clear()
    # Where nothing can be cleared, as in a pipe, an empty line parts one picture from the next.
    click.echo(draw(state, reports) + ("\n" if watch and not sys.stdout.isatty() else ""))


def exit_code_of(reports: Mapping[int, NodeReport]) -> int:
    """0: somebody is active; 1: nobody is; 5: nobody answered."""
    from zelect.client.query import controller_of

    if not reports:
        return 5
    return 0 if controller_of(reports) is not None else 1
