"""Hooks of real nodes, and `zelect file`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.clusters import CALM, ROOT, Cluster, Fleet, zelect
from tests.support.waiting import wait_until
from zelect.config.loading import ConfigError, load

SAYS = 'echo "$1 $ZELECT_HOOK $ZELECT_NODE $ZELECT_TERM $ZELECT_ROLE ${ZELECT_CONTROLLER:--} ${ZELECT_PREVIOUS:--}"'


def hooked(cluster: Cluster, node: int, lines: str) -> Path:
    """Give `node` hooks; `say` in `lines` is a script that appends its argument and environment to
    the file returned."""
    out, script = cluster.directory / f"hooks{node}", cluster.directory / f"say{node}"
    script.write_text(
        f"#!/bin/sh\n{SAYS} >> {out}\n[ $1 = later ] && [ $(grep -c later {out}) -lt 3 ] && exit 75\nexit 0\n"
    )
    script.chmod(0o755)
    conf = cluster.conf(node)
    conf.write_text(cluster.text(node, CALM) + "\n[hooks]\n" + lines.replace("say", str(script)))
    return out


def said(out: Path) -> list[str]:
    return out.read_text().splitlines() if out.exists() else []


def test_hooks_run_in_order_and_again_when_they_ask_for_it(fleet: Fleet) -> None:
    cluster = fleet.cluster(timing=CALM)
    lines = (
        'on_elected = ["say later", ["say", "second"]]\non_deposed = ["say off"]\non_controller_changed = ["say who"]\n'
    )
    first = hooked(cluster, 1, lines + "retry_after_ms = 10\n")
    second = hooked(cluster, 2, lines)
    cluster.start()
    head = cluster.settled()
    assert head.id == 1
    wait_until(lambda: len(said(first)) == 5)
    assert said(first) == [
        "who on_controller_changed 1 1 controller 1 -",
        *["later on_elected 1 1 controller 1 -"] * 3,
        "second on_elected 1 1 controller 1 -",
    ]
    wait_until(lambda: said(second) == ["who on_controller_changed 2 1 follower 1 -"])
    cluster.term(1)
    assert cluster.exit_code(1) == 0
    assert said(first)[5] == "off on_deposed 1 1 follower - 1"
    after = cluster.settled(2, 3, term_above=head.term)
    wait_until(lambda: f"who on_controller_changed 2 {after.term} controller 2 1" in said(second))


def test_a_hook_that_hangs_or_cannot_start_is_noted_and_delays_no_election(fleet: Fleet) -> None:
    cluster = fleet.cluster((1,))
    conf = cluster.conf(1)
    hooks = '\n[hooks]\non_elected = ["sleep 1000", "no-such-program", "false"]\ntimeout_ms = 300\n'
    conf.write_text(cluster.text(1) + hooks)
    cluster.start()
    assert cluster.controller().term == 1
    wait_until(lambda: len(cluster.events(1, "hook_ended")) == 3)
    codes = [(fact["command"], fact["code"]) for fact in cluster.events(1, "hook_ended")]
    assert codes == [
        ("sleep", "killed after 300 ms"),
        ("no-such-program", "not started: No such file or directory"),
        ("false", 1),
    ]
    assert cluster.controller().term == 1


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ('"say"', "is of type text, but must be of type array"),
        ("[1]", "command 1 is 1; write"),
        ('["fine", []]', "command 2 is"),
        ('[""]', "command 1 is empty"),
        ('["say \'open"]', "command 1 can't be split into words: no closing quotation"),
    ],
)
def test_hooks_that_cannot_be_run_are_refused(fleet: Fleet, value: str, problem: str) -> None:
    conf = fleet.cluster((1,)).conf(1)
    conf.write_text(conf.read_text() + f"\n[hooks]\non_deposed = {value}\n")
    with pytest.raises(ConfigError) as caught:
        load(conf)
    assert f"hooks.on_deposed: {problem}" in str(caught.value)


@pytest.mark.long
def test_the_file_names_the_controller_while_there_is_one(fleet: Fleet, tmp_path: Path) -> None:
    cluster, path = fleet.cluster(timing=CALM), tmp_path / "controller"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "zelect", "file", str(path), "-c", str(cluster.conf(2)), "--every", "0.05"]
    with subprocess.Popen(command, env=environment) as sign:
        try:
            cluster.start()
            head = cluster.settled()
            wait_until(lambda: path.exists() and path.read_text() == f"{head.id} {head.term}\n")
            cluster.kill(*(set(cluster.ids) - {head.id}))
            wait_until(lambda: not path.exists(), what="nobody is active")
            cluster.start(*(set(cluster.ids) - {head.id}))
            again = cluster.controller(term_above=0)
            wait_until(lambda: path.exists() and int(path.read_text().split()[1]) >= again.term)
            sign.send_signal(signal.SIGTERM)
            assert sign.wait(20) == 0
            assert not path.exists()
        finally:
            sign.kill()
    assert [entry.name for entry in tmp_path.iterdir() if "controller" in entry.name] == []


def test_a_file_that_cannot_be_written_is_said(fleet: Fleet, tmp_path: Path) -> None:
    cluster = fleet.cluster((1,), timing=CALM)
    cluster.start()
    cluster.controller()
    done = zelect("file", tmp_path / "none" / "file", "-c", cluster.conf(1))
    assert done.returncode == 2
    assert "No such file or directory; name a file in a directory that is writable" in done.stderr
    assert zelect("file", tmp_path / "file", "-c", tmp_path / "none.toml").returncode == 2
