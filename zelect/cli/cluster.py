"""`zelect cluster`: a local cluster to try things on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from zelect.cli.status import DIRECTORY, exit_code_of, place_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from zelect.client.query import NodeReport
    from zelect.devcluster.control import Processes
    from zelect.devcluster.layout import Layout
    from zelect.devcluster.supervisor import ClusterOptions

__all__ = ["cluster"]

_UP_WITHIN_S = 30.0
_DOWN_WITHIN_S = 20.0
_ENDED_WITHIN_S = 10.0
_SETTLED_WITHIN_S = 3.0

_directory = click.option(
    "--dir", "directory", default=DIRECTORY, show_default=True, metavar="DIR", help="Directory of the cluster."
)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_node = click.argument("node", type=click.IntRange(min=1))


@click.group()
def cluster() -> None:
    """Run a local cluster and play with it: kill, freeze, watch."""


@cluster.command()
@click.argument("nodes", type=click.IntRange(1, 99), metavar="N")
@_directory
@click.option("--detach", is_flag=True, help="Run in the background; return once a controller is active.")
@click.option(
    "--base-port",
    type=click.IntRange(1024, 32_767),
    metavar="P",
    help="Port of node 1; the others follow.  [default: as before, or 7101]",
)
@click.option(
    "--redis",
    "redis_url",
    metavar="URL",
    envvar="ZELECT_REDIS_URL",
    show_envvar=True,
    help='Use this Redis ("": run a bundled one); a URL with a password only by the variable.  '
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
    """Start Redis and N nodes, and watch them; Ctrl-C stops all.

    What the nodes saved is kept in DIR: the next start goes on with the terms.
    """
    from zelect.cli.errors import CommandError, explained
    from zelect.devcluster.supervisor import ClusterOptions, supervise
    from zelect.redis.errors import safe_url

    by_hand = context.get_parameter_source("redis_url") is click.core.ParameterSource.COMMANDLINE
    if by_hand and redis_url is not None and safe_url(redis_url) != redis_url:
        raise CommandError(
            "--redis: everybody on this host can read a password on a command line, and may have now: change it, then "
            "set ZELECT_REDIS_URL to the URL and leave --redis out",
            2,
        )
    wish = ClusterOptions(nodes, base_port, redis_url, name, secure=secure)
    with explained():
        context.exit(_up_detached(directory, wish) if detach else supervise(directory, wish, live=True))


def _up_detached(directory: str, wish: ClusterOptions) -> int:
    """Start the supervisor and wait until somebody is active; returns the exit code."""
    import time

    from zelect.cli.table import who_leads
    from zelect.client.query import controller_of
    from zelect.devcluster.control import request
    from zelect.devcluster.layout import Layout
    from zelect.devcluster.supervisor import detach

    layout = Layout(directory)
    process, said = detach(layout, wish)
    place = place_of(None, directory)
    started = False
    begin = time.monotonic()
    while time.monotonic() < begin + _UP_WITHIN_S:
        said = _relay(layout, said)
        if process.poll() is not None:
            return process.returncode or 1
        # What a killed predecessor left says how to reach that one.
        if layout.supervisor_pid() == process.pid and (layout.read_control() or {}).get("pid") == process.pid:
            if not started:
                started = True
                click.echo(f"supervisor started (pid {process.pid}), directory {layout.directory}")
            reports = _ask(layout, lambda reports: controller_of(reports) is not None)
            if controller_of(reports) is not None:
                _relay(layout, said)
                click.echo(f"up: {who_leads(reports)}. Try 'zelect status{place}', 'zelect cluster kill 1{place}'.")
                return 0
            nodes = request(layout, "status").nodes
            if not any(process.state == "up" for process in nodes):
                break
        time.sleep(0.05)
    _relay(layout, said)
    click.echo(
        f"nobody is active after {time.monotonic() - begin:.0f} s. Look at {layout.logs}; "
        f"'zelect status{place}' asks the nodes, 'zelect cluster down{place}' stops everything.",
        err=True,
    )
    return 1


def _relay(layout: Layout, said: int) -> int:
    """Print what the supervisor's log says from byte `said` on; returns where to go on."""
    with open(layout.supervisor_log, "rb") as log:
        log.seek(said)
        text = log.read()
    if text:
        click.echo(text.decode(errors="replace"), nl=False, err=True)
    return said + len(text)


def _ask(layout: Layout, enough: Callable[[Mapping[int, NodeReport]], bool]) -> dict[int, NodeReport]:
    from zelect.client.query import ask_all

    plan = layout.read_plan()
    return ask_all(plan.name, plan.addresses, 1.0, enough, layout.keyring())


@cluster.command()
@_directory
@_as_json
@click.pass_context
def status(context: click.Context, directory: str, as_json: bool) -> None:
    """Show processes and nodes. Exit codes as of `zelect status`."""
    from zelect.cli.errors import explained
    from zelect.cli.table import draw
    from zelect.client.query import summary
    from zelect.devcluster.control import request
    from zelect.devcluster.layout import Layout

    layout = Layout(directory)
    with explained():
        processes = request(layout, "status")
        plan = layout.read_plan()
        unresponsive = {process.id for process in processes.nodes if process.state != "up"}
        reports = _ask(layout, lambda reports: len(reports) + len(unresponsive) >= plan.nodes)
    state = summary(plan.name, plan.addresses, reports)
    if as_json:
        listed = {"directory": str(layout.directory), "processes": processes.as_json(), "status": state}
        click.echo(json.dumps(listed, indent=2))
    else:
        short = {process.id: process.short for process in processes.nodes if process.state != "up"}
        ours = f"pid {processes.redis_pid}" if processes.redis_pid else "has ended, is started again"
        redis = "not run from here" if plan.redis_url else ours
        click.echo(draw(state, reports, short) + "\n")
        for process in processes.nodes:
            if process.note:
                click.echo(process.note)
        click.echo(f"supervisor pid {processes.supervisor}; Redis {processes.redis_url}, {redis}")
    context.exit(exit_code_of(reports))


@cluster.command()
@_directory
def down(directory: str) -> None:
    """Stop all nodes in good order, then Redis, then the supervisor."""
    from zelect.cli.errors import explained
    from zelect.devcluster.control import bring_down
    from zelect.devcluster.layout import Layout

    with explained():
        ran = bring_down(Layout(directory), _DOWN_WITHIN_S)
    click.echo("the cluster is down" if ran else "the cluster was not running")


def _change(command: str, directory: str, node: int) -> None:
    """Do `command` to `node`, wait for its effect, and say what happened and who is active."""
    from zelect.cli.errors import CommandError, explained
    from zelect.devcluster.control import request
    from zelect.devcluster.layout import Layout

    layout = Layout(directory)
    with explained():
        already = {"thaw": "up", "freeze": "frozen"}.get(command)
        if already and request(layout, "status").node(node).state == already:
            how = "not frozen" if command == "thaw" else "frozen already"
            click.echo(f"node {node} is {how}; nothing was changed")
            return
        processes = request(layout, command, node)
        if command in ("stop", "kill"):
            processes = _await_end(layout, node)
        leadership = _settled(layout, processes, node if command == "start" else None)
        process = request(layout, "status").node(node)
    if command in ("stop", "kill") and process.state != "ended":
        raise CommandError(f"node {node} (pid {process.pid}) still runs {_ENDED_WITHIN_S:.0f} s after {command}", 1)
    if command == "start" and process.state == "ended":
        raise CommandError(f"node {node} {process.description}; see {layout.log_of(node)}", 1)
    done = {"start": "started", "stop": "stopped", "kill": "killed", "freeze": "frozen", "thaw": "thawed"}[command]
    click.echo(f"node {node} {done} (pid {process.pid}); {leadership}")


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
    """Who is active once that is settled: somebody where a quorum lives, else nobody. Gives up
    after some seconds and says how it is then. `started`: a node that should answer first."""
    import time

    from zelect.cli.table import who_leads
    from zelect.client.query import controller_of

    running = {process.id for process in processes.nodes if process.state == "up"}

    def settled(reports: Mapping[int, NodeReport]) -> bool:
        head = controller_of(reports)
        if started is not None and started not in reports:
            return False
        if head is not None:
            return head.survives >= 0  # else its lease is about to end
        return running <= set(reports) and all(report.survives < 0 for report in reports.values())

    end = time.monotonic() + _SETTLED_WITHIN_S
    while True:
        reports = _ask(layout, lambda reports: settled(reports) or running <= set(reports))
        if settled(reports) or time.monotonic() > end:
            break
        time.sleep(0.02)
    words = who_leads(reports)
    if running and controller_of(reports) is None and all(report.survives < 0 for report in reports.values()):
        place = place_of(None, str(layout.directory))
        few = "no quorum of the voters lives" if started is None else "no election yet, or no quorum"
        words += f" ({len(running)} of {len(processes.nodes)} run: {few}, see 'zelect members{place}')"
    return words


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
    """Stop node N in good order: it leaves (SIGTERM)."""
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
    """Freeze node N (SIGSTOP): it lives, but does nothing."""
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
@click.option("-f", "--follow", is_flag=True, help="Show the last lines and go on until Ctrl-C.")
def logs(node: int | None, directory: str, follow: bool) -> None:
    """Print the log of node N, or of all nodes."""
    from contextlib import suppress

    from zelect.cli.errors import explained
    from zelect.cli.tail import tail
    from zelect.devcluster.layout import ClusterError, Layout

    layout = Layout(directory)
    with explained():
        ids = layout.read_plan().ids
        if node is not None and node not in ids:
            raise ClusterError(f"no node {node} in this cluster: it has {', '.join(map(str, ids))}")
    with suppress(KeyboardInterrupt):
        tail({f"n{one}": layout.log_of(one) for one in ids if node in (None, one)}, follow)
