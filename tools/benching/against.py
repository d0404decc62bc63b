"""Two checkouts of zelect in one run: `--against DIR`."""

from __future__ import annotations

import argparse
from pathlib import Path

from tools.benching.common import THIS, JsonDict, Tree

__all__ = ["SIDES", "add_against", "tell_against", "trees"]

SIDES = ("this", "other")
"""What the two are called in tables."""


def add_against(parser: argparse.ArgumentParser) -> None:
    """Add the option."""
    parser.add_argument(
        "--against",
        type=_checkout,
        metavar="DIR",
        help="measure the checkout of zelect in DIR too, in the same run, and compare",
    )


def trees(options: argparse.Namespace) -> list[Tree]:
    """This checkout, and the other where there is one."""
    return [THIS] if options.against is None else [THIS, Tree(options.against)]


def tell_against(result: JsonDict) -> None:
    """Print which is which."""
    print(f"this:  {THIS.root}, zelect {result['versions']['zelect']}")
    print(f"other: {result['against']['dir']}, zelect {result['against']['version']}\n")


def _checkout(text: str) -> Path:
    path = Path(text).resolve()
    if not (path / "zelect" / "__init__.py").is_file():
        raise argparse.ArgumentTypeError(f"{path} has no zelect/__init__.py; name a checkout of zelect")
    return path
