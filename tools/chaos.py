"""Breaks a real cluster in every way it knows, and checks from the recorded history what held.

    python tools/chaos.py                                    three nodes, 50 rounds, all faults
    python tools/chaos.py --seed 7 --rounds 200 --nodes 5 --report chaos.html
    python tools/chaos.py --faults kill,freeze,cut --duration 600 --json chaos.json
    python tools/chaos.py --namespaces --faults links        real packets, a namespace a node (root)
    python tools/chaos.py --list                             the faults, and which can't be done here
    python tools/chaos.py --conf conf/n1.toml                your own timing and quorum
    python tools/chaos.py --job ./nightly.sh                 your own command, as under zelect run
    python tools/chaos.py --timing heartbeat_ms=50,election_timeout_ms=250,lease_ms=200
    python tools/chaos.py --walk grow --times 10             members change meanwhile: grow, replace, durations
    python tools/chaos.py --walk durations --faults none     what a change costs without faults

The seed is printed first; with the same nodes and faults it gives the same rounds. Exit codes: 0 all
guarantees held, 1 one broke (the slice of history that shows it is printed), 2 it could not run. What
the faults are, and how it is checked, is in docs/chaos.md.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.chaos_lab.cluster import Scene
from tools.chaos_lab.embedded_job import INTERFACES
from tools.chaos_lab.fault import Fault
from tools.chaos_lab.fault_table import TABLE, this_host
from tools.chaos_lab.namespaces import why_not
from tools.chaos_lab.progress import print_faults, progress
from tools.chaos_lab.report import write_report
from tools.chaos_lab.run import Done, Plan, run
from tools.chaos_lab.schedule import rounds
from tools.chaos_lab.verdict import check
from tools.chaos_lab.walk_figures import as_json, table, walk_figures
from tools.chaos_lab.walk_run import walk_under_faults
from tools.chaos_lab.walks import WALKS
from tools.common.checkout import ToolError, positive
from zelect.config.loading import ConfigError, load
from zelect.core.timing import Proof, Timing
from zelect.devcluster.bundled_server import NoServer, ServerFailed
from zelect.devcluster.layout import ClusterError

_ROUNDS = 50
_WALK_FAULTS = "kill,freeze,cut"


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Break a real cluster and check the recorded history.")
    parser.add_argument("--nodes", type=positive, default=3, metavar="N", help="default: 3")
    parser.add_argument("--rounds", type=positive, metavar="N", help=f"default: {_ROUNDS}, or as --duration allows")
    parser.add_argument("--duration", type=positive, metavar="S", help="begin no round after so many seconds")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), metavar="N")
    parser.add_argument(
        "--faults",
        metavar="A,B",
        help=f"kinds, or families of --list; default: all; for a walk {_WALK_FAULTS}, or none",
    )
    parser.add_argument("--walk", choices=WALKS, help="change the members meanwhile: " + "; ".join(_walks()))
    parser.add_argument(
        "--times", type=positive, default=1, metavar="N", help="go through the walk N times; default: 1"
    )
    parser.add_argument("--conf", type=Path, metavar="FILE", help="take quorum and timing of this configuration")
    parser.add_argument("--timing", default="", metavar="K=V,…", help="keys of [timing] that differ")
    parser.add_argument(
        "--job",
        metavar="CMD",
        help='run CMD while active, as `zelect run` does ("counters": the job as a command; "threads", "asyncio": '
        "the job through that part of the Python interface)",
    )
    parser.add_argument("--namespaces", action="store_true", help="a network namespace for each node (needs root)")
    parser.add_argument(
        "--dir", type=Path, metavar="DIR", help="keep logs and history here; default: removed if all held"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the verdict")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the report (HTML)")
    parser.add_argument("--list", action="store_true", help="list the faults and end")
    return parser.parse_args(arguments)


class _Unusable(Exception):
    """What was asked for makes no sense; the text says what to write."""


def _walks() -> list[str]:
    return [f"{walk.name}: {walk.text}" for walk in WALKS.values()]


def _chosen(options: argparse.Namespace) -> list[Fault]:
    from tools.chaos_lab.fault_table import FAMILIES

    text = options.faults or (_WALK_FAULTS if options.walk else "all")
    if text == "all":
        return list(TABLE.values())
    if text == "none" and options.walk:
        return []
    chosen: list[Fault] = []
    for name in text.split(","):
        if name in FAMILIES:
            chosen.extend(FAMILIES[name])
        elif name in TABLE:
            chosen.append(TABLE[name])
        else:
            raise _Unusable(f"--faults {name}: no such fault; the families are {', '.join(FAMILIES)}, see --list")
    return list(dict.fromkeys(chosen))


def _timing(options: argparse.Namespace) -> tuple[dict[str, int | str], str]:
    """Keys of the timing that differ from the defaults, and the quorum."""
    timing: dict[str, int | str] = {}
    quorum = "dynamic"
    known = {item.name: getattr(Timing(), item.name) for item in fields(Timing)}
    if options.conf:
        config = load(options.conf)
        quorum = config.cluster.quorum
        values = {name: getattr(config.timing, name) for name in known}
        timing = {name: str(v) if name == "proof" else v for name, v in values.items() if v != known[name]}
    for item in filter(None, options.timing.split(",")):
        key, _, value = item.partition("=")
        if key not in known:
            raise _Unusable(f"--timing {key}: unknown key; the keys are {', '.join(known)}")
        if key != "proof" and not value.isdigit():
            raise _Unusable(f"--timing {key}: is {value!r}, must be an integer")
        timing[key] = value if key == "proof" else int(value)
    try:
        made = Timing(**(timing | {"proof": Proof(timing.get("proof", Proof.REFUSED))}))  # type: ignore[arg-type]
    except ValueError as error:
        raise _Unusable(f"--timing proof: {error}; set one of {', '.join(Proof)}") from error
    problems = [f"--timing {key}: {text}" for key, text in made.problems()]
    if problems:
        raise _Unusable("\n".join(problems))
    return timing, quorum


def _command(options: argparse.Namespace) -> tuple[str, ...]:
    """What runs in every leadership; nothing for the job in a process of Python."""
    if options.job in INTERFACES:
        return ()
    if options.job == "counters":
        return (sys.executable, "-P", "-m", "tools.chaos_lab.command_job")
    try:
        command = tuple(shlex.split(options.job or ""))
    except ValueError as error:
        raise _Unusable(f"--job: {error}") from error
    if command and shutil.which(command[0]) is None:
        raise _Unusable(f"--job {command[0]}: no such command, or it can't be executed")
    return command


def _plan(options: argparse.Namespace) -> Plan:
    chosen = _chosen(options)
    walk = WALKS[options.walk] if options.walk else None
    if walk is not None:
        _check_walk(options, chosen)
    nodes = options.nodes if walk is None else walk.most
    timing, quorum = _timing(options)
    command = _command(options)
    interface = options.job if options.job in INTERFACES else ""
    links = walk is not None or any(fault.links for fault in chosen)
    host = this_host(links, options.namespaces)
    if options.namespaces and (reason := why_not(host.root, host.tools)):
        raise _Unusable(f"--namespaces: {reason}")
    skipped = {fault.name: reason for fault in chosen if (reason := fault.missing(host, nodes))}
    faults = [fault for fault in chosen if fault.name not in skipped]
    if chosen and not faults:
        raise _Unusable("none of these faults can be done here:\n" + "\n".join(f"{k}: {v}" for k, v in skipped.items()))
    if options.dir and (options.dir / "history").exists():
        raise _Unusable(f"--dir {options.dir}: holds the history of a run already; name another, or remove it")
    directory = (options.dir or Path(tempfile.mkdtemp(prefix="zelect-chaos-"))).absolute()
    most = options.rounds or (None if options.duration else _ROUNDS)
    return Plan(
        scene=Scene(nodes, directory, timing, quorum, links, options.namespaces, command, interface),
        seed=options.seed,
        faults=faults,
        rounds=rounds(options.seed, nodes, faults),
        most=most if walk is None else options.times * walk.length,
        duration_s=options.duration,
        skipped=skipped,
    )


def _check_walk(options: argparse.Namespace, chosen: Sequence[Fault]) -> None:
    """Raises `_Unusable` where a walk is asked for together with what it decides itself, or can't survive."""
    for name in ("rounds", "duration", "namespaces"):
        if getattr(options, name):
            raise _Unusable(f"--{name} and --walk don't go together: a walk ends when its changes are made (--times)")
    wrong = [fault.name for fault in chosen if fault.alone or fault.forgets]
    if wrong:
        raise _Unusable(
            f"--faults {','.join(wrong)}: not with --walk, whose cluster may have one node, and no supervisor"
        )


def _stop(number: int, frame: FrameType | None) -> None:
    for other in (signal.SIGINT, signal.SIGTERM):
        signal.signal(other, signal.SIG_IGN)  # the end of the processes must not be interrupted
    raise KeyboardInterrupt


def main(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    if options.list:
        print_faults(this_host(links=True, spaces=options.namespaces), options.nodes)
        return 0
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        plan = _plan(options)
    except (_Unusable, ConfigError) as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 2
    directory = plan.scene.directory
    walks = f"{options.times} times {options.walk}, " if options.walk else ""
    nodes = plan.scene.nodes
    print(f"seed {plan.seed}, {walks}{nodes} nodes, {len(plan.faults)} kinds of faults, in {directory}", flush=True)
    try:
        with progress(plan.most, plan.duration_s) as show:
            if options.walk:
                done = walk_under_faults(WALKS[options.walk], options.times, plan, show)
            else:
                done = run(plan, show)
    except (ToolError, ClusterError, NoServer, ServerFailed) as error:
        print(f"chaos: {error}\nlogs: {directory}", file=sys.stderr)
        return 2
    return _report_verdict(options, directory, done)


def _report_verdict(options: argparse.Namespace, directory: Path, done: Done) -> int:
    """Judge the history, tell it, write what was asked for; the exit code."""
    verdict = check(directory)
    print("\n".join(verdict.summary(width=_width())))
    figures, walks = verdict.figures(), walk_figures(verdict)
    if walks:
        print("\n" + "\n".join(table(walks)))
        figures["walks"] = as_json(walks)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if options.report:
        write_report(directory, verdict, options.report)
        print(f"report: {options.report}")
    if done.interrupted:
        print(f"interrupted after {done.rounds} rounds")
    if done.broken:
        print(f"broken: {done.broken}")
    held = verdict.held and not done.broken
    if done.failed:
        print(f"chaos: {done.failed}", file=sys.stderr)
    if held and not done.failed and not options.dir:
        shutil.rmtree(directory, ignore_errors=True)
    else:
        print(f"logs and history: {directory}")
    return 1 if not held else 2 if done.failed else 0


def _width() -> int:
    return min(120, shutil.get_terminal_size().columns)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
