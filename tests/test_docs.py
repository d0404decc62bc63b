"""The documents agree with the program: commands, options, keys, paths, tests and names that they mention exist."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from tests.support.paths import ROOT
from tools.commands import PAGE, page
from tools.dev import COMMANDS
from zelect.cli import main
from zelect.core.eligibility import Ineligible
from zelect.core.messages import Refusal, Type

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
WRITTEN = [document for document in DOCUMENTS if document != PAGE]

ELSEWHERE = {
    "guarded_refused",  # put together by the job of tools/chaos.py
    "idle_in_transaction_session_timeout",  # of PostgreSQL
}
"""Names that are no names of the program's text. Prometheus' own begin with "process_"."""

NOT_A_COMMAND = {"demo"}
"""What follows "zelect" in the head of the live view: the name of a cluster."""


def text_of(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def quoted(document: Path) -> list[str]:
    """What stands between backticks, outside blocks of code."""
    prose = re.sub(r"^```.*?^```|^    .*?$", "", text_of(document), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", prose)


def code_lines(document: Path) -> list[str]:
    """The lines of indented and fenced blocks."""
    text = text_of(document)
    fenced = [
        line
        for block in re.findall(r"^```.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for line in block.split("\n")
    ]
    return [*re.findall(r"^    (\S.*)$", text, re.MULTILINE), *fenced]


@cache
def sources() -> str:
    """All text of the program, its tools, its tests and its configurations."""
    paths = [p for name in ("zelect", "tools", "tests") for p in sorted((ROOT / name).rglob("*.py"))]
    return "\n".join(text_of(path) for path in (*paths, *sorted((ROOT / "conf").glob("*.toml"))))


@cache
def words() -> frozenset[str]:
    """Every word of them."""
    return frozenset(re.findall(r"\w+", sources()))


@cache
def every_test() -> frozenset[str]:
    """The names of all test functions."""
    return frozenset(re.findall(r"^\s*(?:async )?def (test_\w+)", sources(), re.MULTILINE))


def reference() -> dict[str, set[str]]:
    """The sections of a configuration with their keys."""
    table = tomllib.loads(text_of(ROOT / "conf" / "reference.toml"))
    sections = {name: set(value[0] if isinstance(value, list) else value) for name, value in table.items()}
    sections["peers"].add("data_dir")  # has no default, so it stands there in a comment
    return sections


# -- commands -------------------------------------------------------------------------------------


def commands(document: Path) -> Iterator[list[str]]:
    """The words after each "zelect" that a document quotes, without comments and what else stands in the line."""
    for text in (*code_lines(document), *quoted(document)):
        for found in re.findall(r"(?:^|\$\(|&& |\| )(?:\.venv/bin/)?zelect +([a-z-][^|&;)#'\"`]*)", text):
            words = re.split(r" {2,}| -- ", found)[0]
            yield re.sub(r"[\[\]]", "", words).split()


def unknown(words: list[str]) -> str:
    """What is wrong with a command line; "" when nothing."""
    command: click.Command = main
    options = {name for option in main.params for name in option.opts}
    for word in words:
        if word.startswith("-"):
            if word.split("=")[0] not in options | {"--help", "-h"}:
                return f"{command.name} has no option {word}"
        elif isinstance(command, click.Group):
            inner = command.get_command(click.Context(command), word)
            if inner is None:
                if command is main:
                    return f"no command {word}"
                continue  # the argument of an option
            command = inner
            options |= {name for option in inner.params for name in (*option.opts, *option.secondary_opts)}
    return ""


@pytest.mark.parametrize("document", WRITTEN, ids=lambda path: path.name)
def test_commands_and_their_options_exist(document: Path) -> None:
    wrong = [
        f"zelect {' '.join(words)}: {problem}"
        for words in commands(document)
        if words[0] not in NOT_A_COMMAND and (problem := unknown(words))
    ]
    assert not wrong


def test_a_command_that_does_not_exist_is_noticed() -> None:
    assert unknown(["members", "-c", "FILE", "reset", "2"]) == ""
    assert unknown(["cluster", "up", "3", "--detach"]) == ""
    assert unknown(["elections"]) == "no command elections"
    assert unknown(["status", "--colour"]) == "status has no option --colour"


@pytest.mark.parametrize("document", WRITTEN, ids=lambda path: path.name)
def test_tools_and_their_options_exist(document: Path) -> None:
    tools = "\n".join(text_of(path) for path in sorted((ROOT / "tools").rglob("*.py")))
    wrong = []
    for text in (*code_lines(document), *quoted(document)):
        for tool, rest in re.findall(r"python (tools/\w+\.py)((?: [^ |`]+)*)", text):
            wrong += [] if (ROOT / tool).exists() else [tool]
            options = re.findall(r"--([a-z-]+)", rest)
            wrong += [f"{tool} --{option}" for option in options if not re.search(f'"(--)?{option}"', tools)]
    assert not wrong


def test_every_command_and_option_is_on_its_page() -> None:
    assert text_of(PAGE) == page(), "run python tools/commands.py --write"


# -- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", WRITTEN, ids=lambda path: path.name)
def test_keys_of_the_configuration_exist(document: Path) -> None:
    known = reference()
    keys = {key for section in known.values() for key in section} | {"may", "keys"}  # of a directory of public keys
    wrong = []
    for text in quoted(document):
        dotted = re.fullmatch(r"([a-z]+)\.([a-z_]+)(?: = .*)?", text)
        if dotted and dotted[1] in known and dotted[2] not in known[dotted[1]] | {"py", "md", "asyncio"}:
            wrong.append(text)
        assigned = re.fullmatch(r"([a-z_]+) = .*", text)
        if assigned and assigned[1] not in keys:
            wrong.append(text)
        section = re.fullmatch(r"\[+([a-z]+)\]+", text)
        if section and section[1] not in known:
            wrong.append(text)
    assert not wrong


@pytest.mark.parametrize("document", WRITTEN, ids=lambda path: path.name)
def test_examples_of_configurations_have_keys_that_exist(document: Path) -> None:
    known, section, wrong = reference(), "", []
    for line in code_lines(document):
        if opened := re.match(r"\[+([a-z]+)\]+", line):
            section = opened[1]
            wrong += [] if section in known else [section]
        elif section and (key := re.match(r"([a-z_]+) = ", line)):
            wrong += [] if key[1] in known.get(section, ()) else [f"{section}.{key[1]}"]
        else:
            section = ""
    assert not wrong


@pytest.mark.parametrize("document", WRITTEN, ids=lambda path: path.name)
def test_targets_of_make_exist(document: Path) -> None:
    texts = (*code_lines(document), *quoted(document))
    named = {target for text in texts for target in re.findall(r"^(?:make|python -m tools\.dev) (\w+)", text)}
    assert named - set(COMMANDS) == set()


@pytest.mark.parametrize("document", WRITTEN, ids=lambda path: path.name)
def test_paths_exist(document: Path) -> None:
    missing = []
    for text in (*quoted(document), *code_lines(document)):
        for path in re.findall(r"(?<![\w./])(?:zelect|tests|tools|docs|conf|examples|spec)/[\w./*-]+", text):
            if not list(ROOT.glob(path.rstrip("./"))):
                missing.append(path)
    assert not missing


@pytest.mark.parametrize("document", WRITTEN, ids=lambda path: path.name)
def test_tests_that_are_named_exist(document: Path) -> None:
    named = [name for text in quoted(document) for name in re.findall(r"(?:^|::)(test_\w+)(?:$|\[)", text)]
    assert [name for name in named if name not in every_test()] == []
    files = [text.split("::") for text in quoted(document) if "::" in text]
    missing = [
        f"{file}::{name}"
        for file, name in files
        if not (path := ROOT / "tests" / file.removeprefix("tests/")).exists()
        or f"def {name.partition('[')[0]}(" not in text_of(path)
    ]
    assert not missing


@pytest.mark.parametrize("document", WRITTEN, ids=lambda path: path.name)
def test_names_of_logs_metrics_counters_and_fields_exist(document: Path) -> None:
    names = {text for text in quoted(document) if re.fullmatch(r"[a-z]+(_[a-z0-9]+)+|ZELECT(_[A-Z]+)+", text)}
    assert {name for name in names - ELSEWHERE if not name.startswith("process_")} - words() == set()


def test_new_names_in_the_changelog_exist() -> None:
    rows = re.findall(r"^\| [^|]+ \| `[^|]+ \| (.+) \|$", text_of(ROOT / "CHANGELOG.md"), re.MULTILINE)
    new = [
        name for row in rows for quote in re.findall(r"`([^`]+)`", row) for name in re.findall(r"[A-Za-z_]{3,}", quote)
    ]
    assert new
    assert set(new) - words() - {"zelect", "members"} == set()


# -- the documents --------------------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    missing = []
    for target, heading in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", text_of(document)):
        path = document.parent / target if target else document
        if "://" not in target and not path.exists():
            missing.append(target)
        elif heading and heading not in headings(path):
            missing.append(f"{target}#{heading}")
    assert not missing


def headings(document: Path) -> set[str]:
    """The headings of a document, as a link names them."""
    titles = re.findall(r"^#+ (.+)$", text_of(document), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_is_short_and_knows_every_document() -> None:
    text = text_of(ROOT / "README.md")
    assert len(text.splitlines()) <= 150
    assert [str(path.relative_to(ROOT)) for path in DOCUMENTS[1:] if str(path.relative_to(ROOT)) not in text] == []


def rows(document: str, head: str) -> dict[str, str]:
    """The table of `document` that begins with `head`: first column to second, without backticks."""
    text = text_of(ROOT / "docs" / document).partition(head)[2].partition("\n\n")[0]
    cells = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|") and "---" not in line]
    return {first.strip().replace("`", ""): second.strip().replace("`", "") for first, second, *_ in cells}


def test_the_tables_of_messages_and_reasons_are_those_of_the_program() -> None:
    messages = rows("protocol.md", "| code | type | from → to | fields |")
    assert messages == {f"0x{code:02X}": code.name for code in Type}
    assert set(rows("protocol.md", "### Why a vote is refused\n\n| reason | meaning |")) == set(Refusal)
    refused = rows("admin.md", "| reason | meaning | what to do |")
    assert {name for cell in refused for name in cell.split(", ")} == set(Ineligible)


def sections_of_rules() -> list[tuple[str, str]]:
    """Each rule of docs/protocol.md with its section."""
    return re.findall(r"^### (R\d+) (.*?)(?=^##)", text_of(ROOT / "docs" / "protocol.md"), re.MULTILINE | re.DOTALL)


def test_each_rule_names_the_files_that_keep_it_and_the_tests_that_show_it() -> None:
    assert [rule for rule, _ in sections_of_rules()] == [f"R{number}" for number in range(1, 17)]
    for rule, section in sections_of_rules():
        kept, shown = re.findall(r"`(zelect/[\w/]+\.py)`", section), re.findall(r"`(tests/[\w/]+\.py)`", section)
        assert kept, rule
        assert shown, rule
        silent = [path for path in kept if not re.search(rf"\b{rule}\b", text_of(ROOT / path))]
        assert not silent, f"{rule} is not mentioned in {silent}"
        assert any(f"def test_{rule.lower()}_" in text_of(ROOT / path) for path in shown), rule


def test_each_rule_is_asserted_where_its_section_says() -> None:
    functions = re.findall(r"^def (r\d+_\w+)", text_of(ROOT / "zelect" / "core" / "invariants.py"), re.MULTILINE)
    for rule, section in sections_of_rules():
        line = re.search(r"^- Asserted: (.*(?:\n  .*)*)", section, re.MULTILINE)
        assert line, rule
        named = re.findall(r"`(\w+)`", line[1])
        assert named == [name for name in functions if name.startswith(f"{rule.lower()}_")]
        decided = re.findall(r"`(zelect/[\w/]+\.py)`", line[1])
        assert named or decided, rule
        assert [path for path in decided if f'"{rule}"' not in text_of(ROOT / path)] == []
