"""`zelect init`: the files of a new cluster on several hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from zelect.deployment.hosts import Plan


@click.command()
@click.argument("directory", metavar="DIR")
@click.option(
    "--hosts",
    required=True,
    metavar="A,B,C",
    help="Names or addresses of the hosts, each with a port or not (7101); nodes 1, 2, 3 in this order.",
)
@click.option("--name", default="zelect", show_default=True, metavar="NAME", help="The cluster's name.")
@click.option("--redis", "redis_url", default="", metavar="URL", help="Redis, as all hosts reach it.  [default: none]")
@click.option(
    "--secure/--plain",
    default=None,
    help="Make keys, or speak plain text, which everybody in the network can read and forge.  "
    "[default: keys, unless all hosts are loopback addresses]",
)
@click.option("--systemd", is_flag=True, help="Write units for systemd, too.")
@click.option("--dry-run", is_flag=True, help="Print what would be written.")
def init(
    directory: str,
    hosts: str,
    name: str,
    redis_url: str,
    secure: bool | None,
    systemd: bool,
    dry_run: bool,
) -> None:
    """Write one configuration for several hosts, and their keys.

    DIR gets zelect.toml, the same for every host; with keys DIR/keys; with --systemd the units zelect@.service and
    zelect-run@.service. Run it again with one host more at the end: keys that exist are kept.
    """
    from pathlib import Path

    from zelect.cli.support.errors import CommandError, explained
    from zelect.deployment.hosts import Hosts, HostsError, Plan

    try:
        found = Hosts.of(hosts)
    except HostsError as error:
        raise CommandError(f"--hosts: {error}", 2) from error
    plan = Plan(name, found, redis_url, not found.local if secure is None else secure)
    data_dir = "/var/lib/zelect/n{id}" if systemd else "data/n{id}"
    place = Path(directory)
    with explained():
        before = _before(plan, place / "zelect.toml", data_dir)
        files = _files(plan, place, data_dir, systemd)
        if dry_run:
            click.echo("\n".join(f"--- {path}\n{text}" for path, text in files.items()))
        else:
            _write(plan, place, files)
    click.echo("\n".join(_explained(plan, place, systemd, dry_run, before)))


def _before(plan: Plan, file: Path, data_dir: str) -> int:
    """For how many hosts `file` was written earlier; 0: it is not there. Raises CommandError when somebody else wrote
    it."""
    from zelect.cli.support.errors import CommandError

    if not file.exists():
        return 0
    before = plan.first_hosts_in(file.read_text(encoding="utf-8", errors="replace"), data_dir)
    if not before:
        raise CommandError(
            f"{file}: is there already, and is not what 'zelect init' writes for the first of these hosts with these "
            "options; choose another DIR, or change the file by hand",
            2,
        )
    return before


def _files(plan: Plan, place: Path, data_dir: str, systemd: bool) -> dict[Path, str]:
    """What is to be written besides keys. Raises `ConfigError`."""
    import shutil

    from zelect.deployment.hosts import check
    from zelect.deployment.systemd import units

    text = plan.configuration(data_dir)
    check(text)
    more = units(shutil.which("zelect") or "/usr/local/bin/zelect") if systemd else {}
    return {place / "zelect.toml": text, **{place / name: unit for name, unit in more.items()}}


def _write(plan: Plan, place: Path, files: dict[Path, str]) -> None:
    from zelect.security.key_files import Owner, make_missing_keys
    from zelect.system.secure_files import make_directory

    make_directory(place)
    if plan.secure:
        make_missing_keys(place / "keys", [*(Owner(node=node) for node in plan.ids), Owner(operator="admin")])
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")


def _explained(plan: Plan, place: Path, systemd: bool, dry_run: bool, before: int) -> Iterator[str]:
    """What to copy where, and what to start."""
    hosts = ", ".join(address.removeprefix("tcp://") for address in plan.hosts.addresses)
    yield f"{place}{' would be' if dry_run else ''} for {len(plan.ids)} nodes: {hosts}"
    to = "/etc/zelect/" if systemd or not plan.hosts.local else "the directory where nodes start"
    yield f"1. to {to} on every host: zelect.toml{', keys/public.toml, keys/cluster.secret' if plan.secure else ''}"
    if plan.secure:
        owner = ", all owned by the user zelect" if systemd else ""
        yield f"   and on host N keys/nN.key{owner}; keys/operator-admin.key is for operators"
    if systemd:
        yield "2. to /etc/systemd/system/: zelect@.service, or zelect-run@.service with your command"
    yield f"{3 if systemd else 2}. on host N: {'systemctl enable --now zelect@N' if systemd else 'zelect node --id N'}"
    if not before:
        yield f"{4 if systemd else 3}. in {place}: zelect status"
    for node in range(before + 1, len(plan.ids) + 1) if before else ():
        yield (
            f"then: zelect{' reload on the other hosts, and zelect' if plan.secure else ''} members add {node} "
            + (plan.hosts.addresses[node - 1])
        )
