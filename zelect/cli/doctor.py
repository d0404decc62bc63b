"""`zelect doctor`: does this place suit the configured timings, and which ones would."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from zelect.cli.admin import order_options
from zelect.cli.targets import Members

if TYPE_CHECKING:
    from zelect.cli.doctor_advice import Advised, Finding
    from zelect.config.loading import Config

__all__ = ["doctor"]


@click.command()
@order_options
@click.pass_context
def doctor(
    context: click.Context, /, path: str | None, directory: str | None, key_file: str | None, as_json: bool
) -> None:
    """Do disk, clock, network and Redis suit the timings?

    Names the least timings for what it measures. Takes some three seconds, changes nothing, and works
    without a running node too. Run it on each host, as the user that runs the node.

    Exit code 0: nothing is bad; 1: something is.
    """
    members = Members.of(path, directory, key_file)
    config = members.config
    findings, timings = _examine(config, members.keyring)
    bad = [finding for finding in findings if finding.verdict == "bad"]
    if as_json:
        from dataclasses import asdict

        told = {
            "cluster": config.cluster.name,
            "node": config.node.id,
            "well": not bad,
            "findings": [asdict(finding) for finding in findings],
            "timings": [asdict(one) | {"kept": one.kept} for one in timings],
        }
        click.echo(json.dumps(told, indent=2))
    else:
        click.echo(_text(config, findings, timings))
    context.exit(1 if bad else 0)


def _examine(config: Config, keyring: Any) -> tuple[list[Finding], list[Advised]]:
    from zelect.cli.doctor_advice import advised, judge
    from zelect.cli.doctor_measurements import clock_of, lag_of, redis_of, round_trips_of, sync_of

    settings = config.settings()
    timing = settings.timing
    round_trips, late, _ = round_trips_of(config.cluster.name, settings.addresses, keyring)
    lag, sync, clock = lag_of(), sync_of(config.node.data_dir), clock_of()
    findings = judge(timing, round_trips, late, lag, sync, clock, redis_of(config))
    worst_ms = max((spread.p99_ms for spread in round_trips.values() if spread is not None), default=0.0)
    remote = len({address.rsplit(":", 1)[0] for address in settings.addresses.values()}) > 1
    return findings, advised(timing, worst_ms, lag.p99_ms, sync.p99_ms if sync is not None else 0.0, remote)


def _text(config: Config, findings: list[Finding], timings: list[Advised]) -> str:
    import textwrap

    from zelect.cli.table import WIDTH, columns

    rows = [(one.verdict if one.verdict != "ok" else "", one.what, one.figure) for one in findings]
    lines = [f"{config.cluster.name}, node {config.node.id}", ""]
    lines += columns(("", "what", "figure"), rows, set())
    about: dict[tuple[str, str], list[str]] = {}
    for one in findings:
        about.setdefault((one.verdict, one.advice), []).append(one.what)
    notes = [f"{verdict}: {'; '.join(whats)}: {advice}" for (verdict, advice), whats in about.items() if advice]
    lines += ["", *(line for note in notes for line in textwrap.wrap(note, WIDTH))] if notes else []
    short = [one for one in timings if not one.kept]
    chosen = [(one.key, str(one.configured), str(one.least), one.because) for one in timings]
    lines += ["", *columns(("timing", "configured", "least", "because"), chosen, {"configured", "least"}), ""]
    if short:
        lines.append("raise " + ", ".join(f"{one.key} to {one.least}" for one in short) + ", on all nodes")
    else:
        lines.append("the configured timings are enough; shorter ones find a silent controller sooner")
    return "\n".join(lines)
