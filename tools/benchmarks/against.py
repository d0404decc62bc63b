"""Two checkouts of zelect in one run: `--against DIR`."""

from __future__ import annotations

import argparse
from pathlib import Path

from tools.common.checkout import THIS, JsonDict, Tree, positive

SIDES = ("this", "other")
"""What the two are called in tables."""


def add_against(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--secure", action="store_true", help="encrypt all links, and compare with plain text in one run"
    )
    group.add_argument(
        "--http",
        type=positive,
        default=0,
        metavar="N",
        help="the nodes answer N requests a second meanwhile; compare with nodes without HTTP in one run",
    )
    group.add_argument(
        "--against",
        type=checkout,
        metavar="DIR",
        help="measure the checkout of zelect in DIR too, in the same run, and compare",
    )


def trees(options: argparse.Namespace) -> list[Tree]:
    """This checkout, and the other where there is one; with --secure the other is this one in plain
    text, with --http without HTTP."""
    if options.secure:
        return [Tree(THIS.root, secure=True), THIS]
    if options.http:
        return [Tree(THIS.root, requests=options.http), THIS]
    return [THIS] if options.against is None else [THIS, Tree(options.against)]


def show_against(result: JsonDict) -> None:
    """Print which is which."""
    other = result["against"]
    links = (", links encrypted", ", plain text") if other["secure"] is False and result["secure"] else ("", "")
    if result["http"]:
        links = (f", {result['http']} requests a second asked", ", without HTTP")
    print(f"this:  {THIS.root}, zelect {result['versions']['zelect']}{links[0]}")
    print(f"other: {other['dir']}, zelect {other['version']}{links[1]}\n")


def checkout(text: str) -> Path:
    """An option's directory. Raises argparse.ArgumentTypeError when it holds no zelect."""
    path = Path(text).resolve()
    if not (path / "zelect" / "__init__.py").is_file():
        raise argparse.ArgumentTypeError(f"{path} has no zelect/__init__.py; name a checkout of zelect")
    return path
