"""Recorded scenarios: a reviewer reads tests/scenarios/*.txt as prose, the test replays them exactly.

A file holds comments (``# ...``), one line of options (``nodes 5``, ``priority 3 = 10``), and commands
(``> kill 1``), each followed by what was recorded: the notable facts, indented by two, with the
milliseconds since the command. ``pytest --rewrite-scenarios`` writes them again; read the difference
before you believe it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tools.simulator.small_world import MS, Entry, World

SCENARIOS = Path(__file__).parent

NOTABLE = {
    "campaign_began": ("term", "reason"),
    "campaign_failed": ("term",),
    "controller_followed": ("controller",),
    "controller_lost": ("controller", "why"),
    "elected": ("term", "votes"),
    "election_abandoned": ("term", "why"),
    "voters_changed": ("members", "witness"),
    "peer_lost_state": ("sender",),
    "leave_announced": (),
    "became_active": ("term",),
    "leadership_handed_over": ("successor",),
    "stopped_being_active": ("term", "why"),
    "leadership_resumed": (),
    "leadership_suspended": (),
    "peer_died": ("peer", "evidence"),
    "peer_unresponsive": ("peer",),
    "vote_refused": ("candidate", "reason"),
    "voting_right_granted": (),
    "voting_right_lost": (),
    "witness_answered": ("reason", "waits"),
    "witness_refused": ("reason",),
}
"""The facts worth reading, and which of their details."""


@dataclass
class Scenario:
    """A file, taken apart: the options, and lines in order; recorded facts are left out."""

    nodes: int = 3
    priorities: dict[int, int] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)


def read(text: str) -> Scenario:
    """The scenario in `text`."""
    scenario = Scenario()
    for line in text.splitlines():
        if line.startswith("  "):
            continue
        scenario.lines.append(line)
        words = line.split()
        if words[:1] == ["nodes"]:
            scenario.nodes = int(words[1])
        elif words[:1] == ["priority"]:
            scenario.priorities[int(words[1])] = int(words[3])
        elif words and not line.startswith(("#", "> ")):
            raise ValueError(f"neither a comment, an option nor a command: {line!r}")
    return scenario


def replayed(text: str) -> str:
    """`text` with the facts as they are now."""
    scenario = read(text)
    world = World(scenario.nodes, priorities=scenario.priorities)
    out: list[str] = []
    for line in scenario.lines:
        out.append(line)
        if line.startswith("> "):
            seen, began_us = len(world.history), world.now_us
            carry_out(world, line[2:].split())
            out.extend(told(world.history[seen:], began_us))
            if world.now_us > began_us:
                out.append(f"  {_elapsed(world.now_us - began_us)}  {_verdict(world)}")
    return "\n".join(out) + "\n"


def carry_out(world: World, command: list[str]) -> None:
    """Do one command; a command that needs no time takes none."""
    name, *words = command
    numbers = [int(word) for word in words if word.isdigit()]
    match name:
        case "start":
            world.start(*numbers, forget="stateless" in words)
        case "wipe":
            del world.disks[numbers[0]]
        case "kill":
            world.kill(*numbers)
        case "leave":
            world.leave(numbers[0])
        case "freeze":
            world.freeze(numbers[0])
        case "thaw":
            world.thaw(numbers[0])
        case "cut":
            world.cut(numbers[0], numbers[1], one_way="one-way" in words)
        case "heal":
            world.heal()
        case "run":
            world.run(numbers[0])
        case "redis":
            _redis(world, words[0], numbers)
        case _:
            raise ValueError(f"no such command: {name!r}")


def _redis(world: World, what: str, numbers: list[int]) -> None:
    match what:
        case "restart":
            world.redis.restart()
            world.registry = (0, 0)
        case "flush":
            world.redis.flush()
            world.registry = (0, 0)
        case "up" | "down":
            world.registry_up = world.redis.up = what == "up"
        case "says":
            world.registry = (numbers[0], numbers[1])
        case _:
            raise ValueError(f"Redis can't {what!r}")


def told(entries: list[Entry], began_us: int) -> list[str]:
    """The notable facts, one a line; a refusal that is repeated is told once, and how often."""
    lines: list[tuple[int, str]] = []
    repeated: dict[str, int] = {}
    for entry in entries:
        if entry.name not in NOTABLE:
            continue
        details = " ".join(f"{name}={entry.details[name]}" for name in NOTABLE[entry.name])
        text = f"n{entry.node} {entry.name} {details}".rstrip()
        repeated[text] = repeated.get(text, 0) + 1
        if repeated[text] == 1:
            lines.append((entry.at_us - began_us, text))
    return [f"  {_elapsed(at)}  {text}{f'  (x{repeated[text]})' * (repeated[text] > 1)}" for at, text in lines]


def _elapsed(us: int) -> str:
    return f"{us / MS:9.3f} ms"


def _verdict(world: World) -> str:
    """Who is active, and who votes, as the controller has it."""
    head = world.controller()
    if head is None:
        return "-- nobody is active"
    record = world.state(head).record
    voters = " ".join([*map(str, record.members), *(["W"] if record.witness else [])])
    return f"-- node {head} is active of {{{voters}}}, term {world.state(head).term}"


def paths() -> list[Path]:
    return sorted(SCENARIOS.glob("*.txt"))


@pytest.mark.parametrize("path", paths(), ids=lambda path: path.stem)
def test_the_scenario_happens_as_it_was_recorded(path: Path, request: pytest.FixtureRequest) -> None:
    text = path.read_text()
    now = replayed(text)
    if request.config.getoption("--rewrite-scenarios"):
        path.write_text(now)
    else:
        assert now.splitlines() == text.splitlines()


def test_there_are_scenarios() -> None:
    assert len(paths()) >= 16


@pytest.mark.parametrize("path", paths(), ids=lambda path: path.stem)
def test_a_scenario_opens_with_what_it_shows(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert first.startswith("# ")
    assert first.endswith(".")


@pytest.mark.parametrize("line", ["kill 1", "> explode 1", "> redis explode", ">kill 1"])
def test_a_line_that_means_nothing_is_an_error(line: str) -> None:
    with pytest.raises(ValueError, match=r"command|Redis can't"):
        replayed(f"# Nonsense.\n{line}\n")
