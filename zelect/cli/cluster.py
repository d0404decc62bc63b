"""`zelect cluster`: a local cluster for trying things out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from zelect.cli.support.options import DIRECTORY, json_option, place_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from zelect.devcluster.control import Processes
    from zelect.devcluster.layout import Layout
    from zelect.devcluster.supervisor import ClusterOptions
    from zelect.status.cluster import ClusterStatus
    from zelect.status.report import NodeReport

_UP_WITHIN_S = 30.0
_DOWN_WITHIN_S = 20.0
_ENDED_WITHIN_S = 10.0
_SETTLED_WITHIN_S = 3.0

_directory = click.option(
    "--dir", "directory", default=DIRECTORY, show_default=True, metavar="DIR", help="Directory of the cluster."
)
_node = click.argument("node", type=click.IntRange(min=1))


@click.group()
def cluster() -> None:
    """Run a local cluster and try things out."""


@cluster.command()
@click.argument("nodes", type=click.IntRange(1, 99), metavar="N")
@_directory
@click.option("--detach", is_flag=True, help="Run in the background; return when a controller is active.")
@click.option(
    "--base-port",
    type=click.IntRange(1024, 32_767),
    metavar="P",
    help="Port of node 1; the others get the following ports.  [default: as before, or 7101]",
)
@click.option(
    "--redis",
    "redis_url",
    metavar="URL",
    envvar="ZELECT_REDIS_URL",
    show_envvar=True,
    help='Use this Redis ("": run a bundled one). Pass a URL that contains a password only through the variable.  '
    "[default: as before, or run a bundled one]",
)
@click.option("--name", metavar="NAME", help="The cluster's name.  [default: as before, or demo]")
@click.option("--secure/--plain", default=None, help="Make keys and encrypt all links.  [default: as before, or plain]")
@click.pass_context
def up(
    context: click.Context,
    nodes: int,
    directory: str,
    detach: bool,
    base_port: int | None,
    redis_url: str | None,
    name: str | None,
    secure: bool | None,
) -> None:
    """Start Redis and N nodes, and show them; Ctrl-C stops all.

    The nodes' state stays in DIR, so terms continue at the next start.
    """
    from zelect.cli.support.errors import CommandError, explained
    from zelect.devcluster.supervisor import ClusterOptions, supervise
    from zelect.redis.errors import safe_url

    by_hand = context.get_parameter_source("redis_url") is click.core.ParameterSource.COMMANDLINE
    if by_hand and redis_url is not None and safe_url(redis_url) != redis_url:
        raise CommandError(
            "--redis: everybody on this host can read a password on a command line. Change that password, then set "
            "ZELECT_REDIS_URL to the URL and leave --redis out",
            2,
        )
    options = ClusterOptions(nodes, base_port, redis_url, name, secure=secure)
    with explained():
        context.exit(_up_detached(directory, options) if detach else supervise(directory, options, live=True))


def _up_detached(directory: str, options: ClusterOptions) -> int:
    """Start the supervisor and wait until a node is active; returns the exit code."""
    import time

    from zelect.devcluster.control import request
    from zelect.devcluster.layout import Layout
    from zelect.devcluster.supervisor import detach
    from zelect.status.cluster import controller_of
    from zelect.status.cluster_text import controller_text

    layout = Layout(directory)
    process, printed = detach(layout, options)
    place = place_of(None, directory)
    started = False
    begin = time.monotonic()
    while time.monotonic() < begin + _UP_WITHIN_S:
        printed = _relay(layout, printed)
        if process.poll() is not None:
            return process.returncode or 1
        # The control file of a killed predecessor may still be there.
        control = layout.read_control()
        if layout.supervisor_pid() == process.pid and control is not None and control.pid == process.pid:
            if not started:
                started = True
                click.echo(f"supervisor started (pid {process.pid}), directory {layout.directory}")
            state = _ask(layout, lambda reports: controller_of(reports) is not None)
            if state.controller is not None:
                _relay(layout, printed)
                click.echo(f"up: {controller_text(state)}. Try 'zelect status{place}', 'zelect cluster kill 1{place}'.")
                return 0
            nodes = request(layout, "status").nodes
            if not any(process.state == "up" for process in nodes):
                break
        time.sleep(0.05)
    _relay(layout, printed)
    click.echo(
        f"no node is active after {time.monotonic() - begin:.0f} s. See {layout.logs}; "
        f"'zelect status{place}' asks the nodes, 'zelect cluster down{place}' stops everything.",
        err=True,
    )
    return 1


def _relay(layout: Layout, printed: int) -> int:
    """Print the supervisor's log from byte `printed` on; returns where to go on."""
    from zelect.system.foreign import shown_lines

    with open(layout.supervisor_log, "rb") as log:
        log.seek(printed)
        text = log.read()
    if text:
        click.echo(shown_lines(text.decode(errors="replace")), nl=False, err=True)
    return printed + len(text)


def _ask(layout: Layout, enough: Callable[[Mapping[int, NodeReport]], bool]) -> ClusterStatus:
    from zelect.client.query import ask_cluster

    plan = layout.read_plan()
    return ask_cluster(plan.name, plan.addresses, 1.0, enough, layout.keyring())


@cluster.command()
@_directory
@json_option
@click.pass_context
def status(context: click.Context, directory: str, as_json: bool) -> None:
    """Show processes and nodes. Exit codes as for `zelect status`."""
    from zelect.cli.support.errors import explained
    from zelect.devcluster.control import request
    from zelect.devcluster.layout import Layout
    from zelect.status.cluster_text import cluster_text

    layout = Layout(directory)
    with explained():
        processes = request(layout, "status")
        plan = layout.read_plan()
        unresponsive = {process.id for process in processes.nodes if process.state != "up"}
        state = _ask(layout, lambda reports: len(reports) + len(unresponsive) >= plan.nodes)
    if as_json:
        listed = {"directory": str(layout.directory), "processes": processes.as_json(), "status": state.as_json()}
        click.echo(json.dumps(listed, indent=2))
    else:
        short = {process.id: process.short for process in processes.nodes if process.state != "up"}
        ours = f"pid {processes.redis_pid}" if processes.redis_pid else "has ended and is being restarted"
        redis = "not started by the supervisor" if plan.redis_url else ours
        click.echo(cluster_text(state, short) + "\n")
        for process in processes.nodes:
            if process.note:
                click.echo(process.note)
        click.echo(f"supervisor pid {processes.supervisor}; Redis {processes.redis_url}, {redis}")
    context.exit(state.exit_code)


@cluster.command()
@_directory
def down(directory: str) -> None:
    """Stop all nodes gracefully, then Redis, then the supervisor."""
    from zelect.cli.support.errors import explained
    from zelect.devcluster.control import bring_down
    from zelect.devcluster.layout import Layout

    with explained():
        ran = bring_down(Layout(directory), _DOWN_WITHIN_S)
    click.echo("the cluster is down" if ran else "the cluster was not running")


def _change(command: str, directory: str, node: int) -> None:
    """Do `command` to `node`, wait for its effect, and print what happened and which node is active."""
    from zelect.cli.support.errors import CommandError, explained
    from zelect.devcluster.control import request
    from zelect.devcluster.layout import Layout

    layout = Layout(directory)
    with explained():
        already = {"thaw": "up", "freeze": "frozen"}.get(command)
        if already and request(layout, "status").node(node).state == already:
            how = "not frozen" if command == "thaw" else "already frozen"
            click.echo(f"node {node} is {how}; nothing was changed")
            return
        processes = request(layout, command, node)
        if command in ("stop", "kill"):
            processes = _await_end(layout, node)
        active = _settled(layout, processes, node if command == "start" else None)
        process = request(layout, "status").node(node)
    if command in ("stop", "kill") and process.state != "ended":
        raise CommandError(
            f"node {node} (pid {process.pid}) is still running {_ENDED_WITHIN_S:.0f} s after {command}", 1
        )
    if command == "start" and process.state == "ended":
        raise CommandError(f"node {node} {process.description}; see {layout.log_of(node)}", 1)
    done = {"start": "started", "stop": "stopped", "kill": "killed", "freeze": "frozen", "thaw": "thawed"}[command]
    click.echo(f"node {node} {done} (pid {process.pid}); {active}")


def _await_end(layout: Layout, node: int) -> Processes:
    import time

    from zelect.devcluster.control import request

    end = time.monotonic() + _ENDED_WITHIN_S
    while True:
        processes = request(layout, "status")
        if processes.node(node).state == "ended" or time.monotonic() > end:
            return processes
        time.sleep(0.01)


def _settled(layout: Layout, processes: Processes, started: int | None) -> str:
    """Says which node is active once that is settled: one where a quorum lives, else none. Gives up after some
    seconds and says how it is then. `started`: a node that should answer first."""
    import time

    from zelect.status.cluster import controller_of
    from zelect.status.cluster_text import controller_text

    running = {process.id for process in processes.nodes if process.state == "up"}

    def settled(reports: Mapping[int, NodeReport]) -> bool:
        active = controller_of(reports)
        if started is not None and started not in reports:
            return False
        if active is not None:
            return active.voters.survives >= 0  # else its lease is about to end
        return running <= set(reports) and all(report.voters.survives < 0 for report in reports.values())

    end = time.monotonic() + _SETTLED_WITHIN_S
    while True:
        state = _ask(layout, lambda reports: settled(reports) or running <= set(reports))
        if settled(state.reports) or time.monotonic() > end:
            break
        time.sleep(0.02)
    text = controller_text(state)
    if running and state.controller is None and all(one.voters.survives < 0 for one in state.reports.values()):
        place = place_of(None, str(layout.directory))
        few = "no quorum of the voters is left" if started is None else "no election yet, or no quorum"
        text += f" ({len(running)} of {len(processes.nodes)} run: {few}, see 'zelect members{place}')"
    return text


@cluster.command()
@_node
@_directory
def start(node: int, directory: str) -> None:
    """Start node N again."""
    _change("start", directory, node)


@cluster.command()
@_node
@_directory
def stop(node: int, directory: str) -> None:
    """Stop node N gracefully: it leaves (SIGTERM)."""
    _change("stop", directory, node)


@cluster.command()
@_node
@_directory
def kill(node: int, directory: str) -> None:
    """Kill node N (SIGKILL)."""
    _change("kill", directory, node)


@cluster.command()
@_node
@_directory
def freeze(node: int, directory: str) -> None:
    """Freeze node N (SIGSTOP): it is alive but does nothing."""
    _change("freeze", directory, node)


@cluster.command()
@_node
@_directory
def thaw(node: int, directory: str) -> None:
    """Thaw node N (SIGCONT)."""
    _change("thaw", directory, node)


@cluster.command()
@click.argument("node", type=click.IntRange(min=1), required=False)
@_directory
@click.option("-f", "--follow", is_flag=True, help="Print the last lines, then new ones until Ctrl-C.")
def logs(node: int | None, directory: str, follow: bool) -> None:
    """Print the log of node N, or of all nodes."""
    from contextlib import suppress

    from zelect.cli.support.errors import explained
    from zelect.cli.support.tail import tail
    from zelect.devcluster.layout import ClusterError, Layout

    layout = Layout(directory)
    with explained():
        ids = layout.read_plan().ids
        if node is not None and node not in ids:
            raise ClusterError(f"no node {node} in this cluster: it has {', '.join(map(str, ids))}")
    with suppress(KeyboardInterrupt):
        tail({f"n{one}": layout.log_of(one) for one in ids if node in (None, one)}, follow)
