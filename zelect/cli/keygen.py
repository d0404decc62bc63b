"""`zelect keygen`: keys of nodes and operators, and how they are changed without downtime."""

from __future__ import annotations

import re

import click


@click.command()
@click.argument("nodes", nargs=-1, type=click.IntRange(1, 65_535), metavar="[NODE]...")
@click.option("--dir", "directory", default="keys", show_default=True, metavar="DIR", help="Where the keys are.")
@click.option(
    "--operator", "operators", multiple=True, metavar="NAME", help="Make a key for this operator. May be repeated."
)
@click.option("--read-only", is_flag=True, help="The operators get the permission to read, not admin.")
@click.option("--next", "step", flag_value="next", help="Make a second key, accepted alongside the first.")
@click.option("--promote", "step", flag_value="promote", help="Replace the first key with the second.")
@click.option("--retire", "step", flag_value="retire", help="Stop accepting the first key.")
@click.option("--force", is_flag=True, help="Replace existing keys.")
def keygen(
    nodes: tuple[int, ...],
    directory: str,
    operators: tuple[str, ...],
    read_only: bool,
    step: str | None,
    force: bool,
) -> None:
    """Make keys for nodes and operators, or rotate them.

    Makes a key pair for each NODE. The public keys are in DIR/public.toml, which goes to every host. Each secret
    key is in its own file, DIR/n1.key and so on, which goes only to its own host and is private to its owner.
    DIR/cluster.secret, made once with the first node's key, goes to the host of every node (security.secret_file).

    To rotate keys without downtime: run --next, copy public.toml to every host, and `zelect reload` everywhere;
    then, node by node, run --promote, copy its secret file and reload it; then run --retire, copy public.toml
    again and reload everywhere.
    """
    from pathlib import Path

    from zelect.cli.support.errors import explained
    from zelect.security import key_files
    from zelect.security.keys import Permission

    if not nodes and not operators:
        raise click.UsageError("name nodes by their ids, as in 'zelect keygen 1 2 3', or --operator NAME")
    if read_only and not operators:
        raise click.UsageError("--read-only is for operators: give --operator NAME; nodes need all permissions")
    if step is not None and force:
        raise click.UsageError("--force replaces keys at once; leave it out with --next, --promote and --retire")
    wrong = [name for name in operators if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name)]
    if wrong:
        raise click.UsageError(f"--operator {wrong[0]!r}: use 1 to 64 of the characters A-Z a-z 0-9 _ -")
    permission = Permission.READ if read_only else Permission.ADMIN
    owners = [key_files.Owner(node=node) for node in dict.fromkeys(nodes)]
    owners += [key_files.Owner(operator=name, permission=permission) for name in dict.fromkeys(operators)]
    place = Path(directory)
    with explained():
        if step == "next":
            written = key_files.add_next(place, owners)
        elif step == "promote":
            written = key_files.promote(place, owners)
        elif step == "retire":
            written = key_files.retire(place, owners)
        else:
            written = key_files.make_keys(place, owners, force)
    for path in written:
        click.echo(f"{path} (for every node's host)" if path.name == key_files.SECRET_FILE else path)
    if step != "promote" and place / key_files.DIRECTORY_FILE not in written:
        click.echo(f"{place / key_files.DIRECTORY_FILE} (for every host)")
