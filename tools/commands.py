"""Writes docs/commands.md: every command with its help, as the command line tells it.

python tools/commands.py            print the page
python tools/commands.py --write    write it
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from zelect.cli import main as zelect  # the tree that this script stands in

PAGE = Path(__file__).resolve().parent.parent / "docs" / "commands.md"
_HEAD = """# Every command

What `zelect COMMAND --help` says, all on one page. Made by `python tools/commands.py --write`; a test compares.

Exit codes: 0 fine; 1 the answer is no; 2 bad usage or configuration; 3 durable state unusable;
4 cannot listen, or the authenticator failed; 5 no node answered.
"""


def _walk(command: click.Command, name: str) -> Iterator[tuple[str, str]]:
    """Each command's name and help, itself first."""
    context = click.Context(command, info_name=name, max_content_width=100, terminal_width=100)
    context.help_option_names = ["-h", "--help"]
    yield name, command.get_help(context)
    if isinstance(command, click.Group):
        for child in sorted(command.commands):
            yield from _walk(command.commands[child], f"{name} {child}")


def page() -> str:
    """The text of the page."""
    parts = [_HEAD]
    for name, text in _walk(zelect, "zelect"):
        lines = "\n".join(f"    {line}".rstrip() for line in text.splitlines())
        parts.append(f"\n## {name}\n\n{lines}\n")
    return "".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/commands.md")
    if parser.parse_args().write:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(page(), end="")


if __name__ == "__main__":
    main()
