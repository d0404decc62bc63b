"""`zelect doctor`: do this host, its network and Redis suit the configured timings, and which would they suit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from zelect.cli.support.options import Target, cluster_options, id_option, json_option

if TYPE_CHECKING:
    from zelect.config.loading import Config
    from zelect.doctor.advice import Advised, Finding


@click.command()
@cluster_options
@id_option
@json_option
@click.pass_context
def doctor(context: click.Context, /, as_json: bool, **where: Any) -> None:
    """Check whether disk, clock, network and Redis suit the timings.

    Where nodes run: also whether one is active, which one or what must return, and which settings differ. Where Redis
    is configured: also whether its user may do there what a node does. Names the shortest timings that suit what was
    measured. Takes about three seconds and changes nothing; no node needs to run. Run it on each host, as the user that
    runs the node.

    Exit code 0: nothing is bad; 1: something is bad.
    """
    from zelect.doctor.advice import examine
    from zelect.status.codec import plain

    target = Target.of(**where)
    config, node = target.config, target.own_node
    findings, timings = examine(config, target.keyring, target.place)
    bad = any(finding.verdict == "bad" for finding in findings)
    if as_json:
        table = {
            "cluster": config.cluster.name,
            "node": node,
            "ok": not bad,
            "findings": [plain(finding) | {"advice": finding.advice} for finding in findings],
            "timings": [plain(one) | {"enough": one.enough} for one in timings],
        }
        click.echo(json.dumps(table, indent=2))
    else:
        click.echo(_text(config, findings, timings))
    context.exit(1 if bad else 0)


def _text(config: Config, findings: list[Finding], timings: list[Advised]) -> str:
    import textwrap

    from zelect.doctor.advice import FINDING_COLUMNS, TIMING_COLUMNS
    from zelect.status.table import WIDTH, table

    lines = [f"{config.cluster.name}, node {config.node.id}", "", *table(FINDING_COLUMNS, findings)]
    about: dict[tuple[str, str], list[str]] = {}
    for one in findings:
        about.setdefault((one.verdict, one.advice), []).append(one.what)
    notes = [f"{verdict}: {'; '.join(whats)}: {advice}" for (verdict, advice), whats in about.items() if advice]
    lines += ["", *(line for note in notes for line in textwrap.wrap(note, WIDTH))] if notes else []
    lines += ["", *table(TIMING_COLUMNS, timings), ""]
    short = [f"{one.key} to {one.least}" for one in timings if not one.enough]
    if short:
        lines += textwrap.wrap(f"raise {', '.join(short)}, on all nodes", WIDTH)
    else:
        lines.append("the configured timings are enough; shorter ones detect a failure sooner")
    return "\n".join(lines)
