"""`zelect reload`: a running node reads its configuration and keys again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from zelect.cli.support.options import DIRECTORY, config_option, configuration, directory_option, id_option, key_option

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from zelect.config.loading import Config
    from zelect.security.keys import Keyring
    from zelect.status.report import NodeReport

_WITHIN_S = 5.0


@click.command()
@click.argument("nodes", nargs=-1, type=click.IntRange(min=1), metavar="[NODE]...")
@config_option
@id_option
@directory_option
@key_option
def reload(
    nodes: tuple[int, ...], path: str | None, node_id: int | None, directory: str | None, key_file: str | None
) -> None:
    """Make running nodes reread keys, members, priority and log level.

    Sends SIGHUP to nodes on this host. With -c FILE: the node of that file. Without -c: all nodes of the cluster
    in DIR, or only the given ones. Other changes, and files with errors, are refused: then the node goes on as before.
    """
    from pathlib import Path

    from zelect.cli.support.errors import CommandError, explained
    from zelect.config.loading import load
    from zelect.status.cluster_text import nodes_text

    if path is not None and (directory is not None or nodes):
        raise click.UsageError("-c FILE names the node; leave out --dir and NODE")
    with explained():
        file = Path(path) if path is not None else None if nodes else configuration(directory)
        files = [file] if file is not None else _files(Path(directory or DIRECTORY), nodes)
        configs = [load(one, node_id=node_id or 0, environ=None if file else {}) for one in files]
        failed = [node for config in configs if not _reload(config, key_file or "") for node in (config.node.id,)]
    if failed:
        raise CommandError(f"{nodes_text(failed)}: no sign that it reloaded", 1)


def _files(directory: Path, nodes: tuple[int, ...]) -> list[Path]:
    from zelect.devcluster.layout import ClusterError, Layout

    layout = Layout(directory)
    ids = layout.read_plan().ids
    unknown = sorted(set(nodes) - set(ids))
    if unknown:
        raise ClusterError(f"no node {unknown[0]} in this cluster: it has {', '.join(map(str, ids))}")
    return [layout.conf_of(node) for node in nodes or ids]


def _reload(config: Config, key_file: str) -> bool:
    """Have the node of `config` reload, wait for the outcome and print it; returns whether it reloaded."""
    import os
    import signal
    import time

    from zelect.node.storage.data_dir import holder
    from zelect.security.keys import keyring_to_ask

    node = config.node.id
    pid = holder(config.node.data_dir, config.cluster.name, node)
    if not pid:
        click.echo(f"node {node}: is not running on this host; it will read the files when it starts")
        return True
    keyring = keyring_to_ask(config, key_file)
    if not _catches(pid, signal.SIGHUP):
        click.echo(f"node {node}: {_no_handler(pid)}", err=True)
        return False
    before = _ask(config, keyring)
    os.kill(pid, signal.SIGHUP)
    end = time.monotonic() + _WITHIN_S
    while time.monotonic() < end:
        after = _ask(config, keyring)
        if after is None or before is None:
            time.sleep(0.1)
            before = before or after
            continue
        if _count(after, "reload_refused") > _count(before, "reload_refused"):
            click.echo(f"node {node}: {after.reload_problem}", err=True)
            return False
        if _count(after, "reloaded") > _count(before, "reloaded"):
            click.echo(f"node {node}: reloaded")
            return True
        time.sleep(0.05)
    click.echo(
        f"node {node}: was sent SIGHUP (pid {pid}) but has not answered; see its log. "
        "If it is frozen, it will read its files when it is thawed",
        err=True,
    )
    return False


def _catches(pid: int, number: int) -> bool:
    """Whether process `pid` has a handler for a signal that would end it otherwise; True where the
    system doesn't tell."""
    from pathlib import Path

    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:"))
    except (OSError, StopIteration):
        return True
    return bool(caught >> (number - 1) & 1)


def _no_handler(pid: int) -> str:
    return (
        f"SIGHUP would end its process {pid}, which has no handler for it, so it was not sent. If it is just starting, "
        "try again; if it is a program that embeds the node, have it call reload() of its zelect.Node, for example "
        "by signal.signal(signal.SIGHUP, lambda *_: node.reload())"
    )


def _count(report: NodeReport, name: str) -> int:
    return report.counters.get(name, 0)


def _ask(config: Config, keyring: Keyring | None) -> NodeReport | None:
    from zelect.client.query import ask_all

    node = config.node.id
    addresses: Mapping[int, str] = {node: config.settings().addresses[node]}
    return ask_all(config.cluster.name, addresses, 1.0, bool, keyring).get(node)
