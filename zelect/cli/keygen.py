"""`zelect keygen`: keys of nodes and operators, and their change without a pause."""

from __future__ import annotations

import re

import click

__all__ = ["keygen"]


@click.command()
@click.argument("nodes", nargs=-1, type=click.IntRange(1, 65_535), metavar="[NODE]...")
@click.option("--dir", "directory", default="keys", show_default=True, metavar="DIR", help="Where the keys lie.")
@click.option("--operator", "operators", multiple=True, metavar="NAME", help="For an operator. May be repeated.")
@click.option("--read-only", is_flag=True, help="The operators may ask, but not admin.")
@click.option("--next", "step", flag_value="next", help="Make a second key, to be accepted beside the first.")
@click.option("--promote", "step", flag_value="promote", help="Put the second key in the place of the first.")
@click.option("--retire", "step", flag_value="retire", help="Accept the first key no more.")
@click.option("--force", is_flag=True, help="Make new keys where there are some already.")
def keygen(
    nodes: tuple[int, ...],
    directory: str,
    operators: tuple[str, ...],
    read_only: bool,
    step: str | None,
    force: bool,
) -> None:
    """Make keys for nodes and operators, or change them.

    A key pair for each NODE, entered into the directory of public keys. DIR/public.toml goes to every host.
    A secret file, DIR/n1.key and so on, goes to its own host only;
    its owner alone may read it.

    A change of keys without a pause: --next, copy public.toml to every host, `zelect reload`
    everywhere; --promote, copy the secret file, reload that node, one after the other; --retire, copy
    public.toml again, reload everywhere.
    """
    from pathlib import Path

    from zelect.cli.errors import explained
    from zelect.security import key_files
    from zelect.security.keys import Permission

    if not nodes and not operators:
        raise click.UsageError("name nodes by their ids, as in 'zelect keygen 1 2 3', or --operator NAME")
    if read_only and not operators:
        raise click.UsageError("--read-only is for operators: --operator NAME; nodes need all their permissions")
    if step is not None and force:
        raise click.UsageError("--force makes keys again, and changes nothing step by step; leave it out")
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
        click.echo(path)
    if step != "promote" and place / key_files.DIRECTORY_FILE not in written:
        click.echo(f"{place / key_files.DIRECTORY_FILE} (for every host)")
