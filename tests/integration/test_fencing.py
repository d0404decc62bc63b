"""A write of an older term never comes through: Redis, SQLite and files as the documentation shows."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
import redis.asyncio.lock
import redis.lock

import zelect
from tests.support.clusters import ROOT
from tests.support.marks import long_but
from tests.support.redis_server import running_server
from tests.support.waiting import wait_until
from zelect.devcluster.bundled_server import RedisServer
from zelect.fencing import FenceBroken, fenced_postgres, fenced_sqlite, prepare_postgres, prepare_sqlite, write_file
from zelect.fencing.asyncio import AsyncFencedRedis
from zelect.fencing.core import FencedOut
from zelect.fencing.sync import FencedRedis

WRITERS = 1000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    made = redis.Redis.from_url(server.url, decode_responses=True)
    made.flushall()
    yield made
    made.close()


def test_a_client_of_the_other_flavour_is_refused(client: redis.Redis) -> None:
    with pytest.raises(TypeError, match=r"zelect\.AsyncFencedRedis"):
        FencedRedis(redis.asyncio.Redis(), "r", 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"zelect\.FencedRedis"):
        AsyncFencedRedis(client, "r", 1)  # type: ignore[arg-type]


def race(write: Callable[[int], None]) -> int:
    """A thousand writers of mixed terms, sixteen at once; returns how many were fenced out."""
    terms = random.Random(7).choices(range(1, 60), k=WRITERS)
    refused = list[int]()

    def one(term: int) -> None:
        try:
            write(term)
        except Exception as error:
            if type(error).__name__ != "FencedOut":
                raise
            refused.append(term)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(one, terms))
    return len(refused)


def grows(terms: list[int]) -> bool:
    return all(one <= other for one, other in pairwise(terms))


# -- Redis ------------------------------------------------------------------------------------------


def append(fenced: FencedRedis, value: str) -> None:
    fenced.rpush("log", value)


def append_in_a_pipeline(fenced: FencedRedis, value: str) -> None:
    with fenced.pipeline() as pipe:
        pipe.incr("count")
        pipe.rpush("log", value)
        pipe.execute()


def append_by_a_script(fenced: FencedRedis, value: str) -> None:
    fenced.eval("return redis.call('RPUSH', KEYS[1], ARGV[1])", 1, "log", value)


@pytest.mark.parametrize("how", long_but([append, append_in_a_pipeline, append_by_a_script], append_in_a_pipeline))
def test_a_thousand_racing_writers_never_let_an_older_term_through(
    client: redis.Redis, how: Callable[[FencedRedis, str], None]
) -> None:
    def write(term: int) -> None:
        with FencedRedis(client, "log", term) as fenced:
            how(fenced, str(term))

    refused = race(write)
    written = [int(term) for term in client.lrange("log", 0, -1)]
    assert len(written) + refused == WRITERS
    assert refused > 0
    assert grows(written)
    assert client.get("zelect:fence:{log}") == str(max(written))
    if how is append_in_a_pipeline:
        assert client.get("count") == str(len(written)), "all of a pipeline or nothing"


WRITES = """
import sys, redis, zelect
fenced = zelect.FencedRedis(redis.Redis.from_url(sys.argv[1]), "job", 1)
try:
    while True:
        fenced.rpush("log", 1)
except zelect.FencedOut as error:
    print(error)
"""


def test_a_frozen_and_thawed_job_cannot_write(client: redis.Redis, server: RedisServer) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WRITES, server.url]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as job:
        try:
            wait_until(lambda: client.llen("log") > 10)
            job.send_signal(signal.SIGSTOP)
            FencedRedis(client, "job", 2).rpush("log", 2)
            job.send_signal(signal.SIGCONT)
            assert job.stdout is not None
            assert job.stdout.read() == "job: term 1 is not active; term 2 has written since\n"
        finally:
            job.kill()
    assert client.lindex("log", -1) == "2"


def test_answers_are_those_of_an_ordinary_client(client: redis.Redis) -> None:
    fenced = FencedRedis(client, "data", 3)
    calls: list[Callable[[Any], Any]] = [
        lambda one: one.set("a", "1", ex=100),
        lambda one: one.get("a"),
        lambda one: one.get("nothing"),
        lambda one: one.incrby("a", 5),
        lambda one: one.incrbyfloat("f", 1.5),
        lambda one: one.hset("h", mapping={"x": "1", "y": "2"}),
        lambda one: one.hgetall("h"),
        lambda one: one.zadd("z", {"m": 1.5, "n": 2}),
        lambda one: one.zrange("z", 0, -1, withscores=True),
        lambda one: one.sadd("s", "a", "b"),
        lambda one: one.smembers("s"),
        lambda one: one.exists("a", "nothing"),
        lambda one: one.xadd("stream", {"k": "v"}, id="7-7"),
        lambda one: one.xrange("stream"),
        lambda one: one.delete("stream"),
        lambda one: one.mget("a", "nothing"),
        lambda one: one.eval("return {KEYS[1], ARGV[1], #KEYS, #ARGV}", 1, "k", "v"),
        lambda one: one.register_script("return ARGV[2]")(args=["a", "b"]),
        lambda one: one.execute_command(b"SET", "b", "1"),
        lambda one: one.eval(b"return ARGV[1]", 0, "v"),
        lambda one: one.pipeline().set("p", 1).incr("p").hgetall("h").get("nothing").execute(),
        lambda one: one.pipeline().execute(),
        lambda one: one.lpush("z", 1),
        lambda one: one.pipeline().set("q", 1).lpush("z", 1).execute(),
        lambda one: one.pipeline().lpush("z", 1).set("q", 2).execute(raise_on_error=False)[1],
    ]
    plain = [outcome(call, redis.Redis.from_pool(client.connection_pool)) for call in calls]
    client.flushall()
    assert [outcome(call, fenced) for call in calls] == plain
    assert fenced.eval("#!lua\nreturn redis.call('INCR', KEYS[1])", 1, "n") == 1
    assert fenced.key("a") == "{data}:a"


def outcome(call: Callable[[Any], Any], on: Any) -> object:
    try:
        return call(on)
    except redis.ResponseError as error:
        return str(error).split()[0].replace("Command", "WRONGTYPE")


def test_being_fenced_out_changes_nothing_and_tells_the_newer_term(client: redis.Redis) -> None:
    old, new = FencedRedis(client, "r", 3), FencedRedis(client, "r", 4)
    new.set("a", "new")
    for call in (
        lambda: old.set("a", "old"),
        lambda: old.get("a"),
        lambda: old.eval("redis.call('SET', 'a', 'old')", 0),
        lambda: old.register_script("redis.call('SET', 'a', 'old')")(),
        lambda: _set_in_a_pipeline(old),
    ):
        with pytest.raises(FencedOut, match="r: term 3 is not active; term 4 has written since") as caught:
            call()
        assert (caught.value.resource, caught.value.term, caught.value.newest) == ("r", 3, 4)
    assert client.get("a") == "new"
    FencedRedis(client, "other", 1).set("b", 1)
    large = 2**53 - 1
    FencedRedis(client, "r", large).set("a", "last")
    with pytest.raises(FencedOut):
        FencedRedis(client, "r", large - 1).set("a", "before")


def _set_in_a_pipeline(fenced: FencedRedis) -> None:
    with fenced.pipeline() as pipe:
        pipe.set("a", "old")
        pipe.execute(raise_on_error=False)


def test_what_cannot_be_fenced_is_refused_with_a_fix(client: redis.Redis) -> None:
    fenced = FencedRedis(client, "r", 3)
    for call, fix in (
        (lambda: fenced.evalsha("0" * 40, 0), "use eval, or register_script"),
        (lambda: fenced.pubsub(), "use an ordinary client"),
        (lambda: fenced.execute_command("MULTI"), "use pipeline"),
        (lambda: fenced.pipeline().watch("a"), "a script sees no changes|use eval"),
        (lambda: fenced.pipeline().multi(), "use pipeline"),
        (lambda: fenced.pipeline().eval("return 1", 0), "call eval by itself"),
        (lambda: fenced.fcall("f", 0), "use eval"),
        (lambda: fenced.rpush("l", *range(8000)), "split it"),
        (lambda: fenced.monitor(), "use an ordinary client"),
        (lambda: fenced.select(1), "give a client of that database"),
        (lambda: fenced.pipeline().execute_command("SELECT", 1).execute(), "give a client of that database"),
        (lambda: fenced.watch("x"), "use eval"),
        (lambda: fenced.delete("x", fenced.token), "the fence itself"),
        (lambda: fenced.client(), "use an ordinary one"),
        (lambda: fenced.execute_command(b"multi"), "use pipeline"),
        (lambda: fenced.pipeline().execute_command(b"EVALSHA", "0" * 40, 0), "use eval"),
        (lambda: fenced.pipeline().immediate_execute_command("SET", "a", 1), "call it on the FencedRedis itself"),
    ):
        with pytest.raises(ValueError, match=fix):
            call()
    assert client.keys() == []
    wrong: Any
    for resource, wrong in (("", 1), ("a{b}", 1), ("r", 0), ("r", True), ("r", 2**53), ("r", "7"), ("r", None), (7, 1)):
        with pytest.raises(ValueError, match=r"give a name without braces|pass a zelect\.Leadership"):
            FencedRedis(client, resource, wrong)  # type: ignore[arg-type]
    client.set("zelect:fence:{r}", "word")
    with pytest.raises(redis.ResponseError, match="FENCEBROKEN"):
        fenced.set("a", 1)
    assert zelect.FencedRedis is FencedRedis
    assert zelect.FencedOut is FencedOut


PAST = r"not active|can't be fenced: this way goes past the fence"


def around(old: FencedRedis) -> list[Callable[[], object]]:
    """Ways through redis-py that end at a connection, not at `execute_command`."""
    mine: Any = old
    raw: Any = redis.Redis
    pool: Any = old.connection_pool
    ordinary: Any = redis.Redis(connection_pool=pool)
    again: Any = FencedRedis(old, "r", 3)

    def by_a_module(name: str) -> object:
        pipe = getattr(mine, name)().pipeline()
        pipe.execute_command("SET", "x", "old")
        return pipe.execute()

    return [
        lambda: mine.pipeline().pipeline().set("x", "old").execute(),
        lambda: mine.transaction(lambda pipe: pipe.set("x", "old")),
        lambda: by_a_module("json"),
        lambda: by_a_module("ts"),
        lambda: by_a_module("ft"),
        lambda: mine._execute_command("SET", "x", "old"),
        lambda: mine._execute_command("EVAL", "return redis.call('SET', 'x', 'old')", 0),
        lambda: mine._execute_command("SELECT", 1),
        lambda: raw.execute_command(mine, b"set", "x", "old"),
        lambda: ordinary.set("x", "old"),
        lambda: ordinary.eval("return redis.call('SET', 'x', 'old')", 0),
        lambda: ordinary.pipeline(transaction=False).set("x", "old").execute(),
        lambda: ordinary.pubsub().subscribe("x"),
        lambda: pool.get_connection().send_command("SET", "x", "old"),
        lambda: pool.get_connection().send_packed_command(b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$3\r\nold\r\n"),
        lambda: mine.lock("x", timeout=5).acquire(blocking=False),
        lambda: again.pipeline().pipeline().set("x", "old").execute(),
        lambda: again._execute_command("SET", "x", "old"),
    ]


def test_no_way_through_redis_py_goes_past_the_fence(client: redis.Redis) -> None:
    FencedRedis(client, "r", 9).set("x", "new")
    old = FencedRedis(client, "r", 3)
    for way in around(old):
        with pytest.raises((FencedOut, ValueError), match=PAST):
            way()
        assert (client.get("x"), client.get("zelect:fence:{r}")) == ("new", "9")
    assert sorted(client.keys()) == ["x", "zelect:fence:{r}"]
    with pytest.raises(FencedOut):  # and its connections are as good as before
        old.get("x")
    new: Any = FencedRedis(client, "r", 9)
    for way in around(new)[2:16]:
        with contextlib.suppress(ValueError):
            way()
        assert new.get("x") == "new"
    pipe = new.pipeline().pipeline().set("x", "newer").get("x")
    assert pipe.execute() == [True, "newer"]
    assert new.transaction(lambda pipe: pipe.incr("n")) == [1]


def test_a_fenced_pipeline_takes_no_connection_for_itself(client: redis.Redis) -> None:
    pipe: Any = FencedRedis(client, "r", 3).pipeline()
    for call in (pipe.monitor, pipe.client, pipe.pubsub, lambda: pipe.lock("x")):
        with pytest.raises(ValueError, match="can't be fenced"):
            call()


def test_a_fenced_connection_greets_the_server_as_its_client_would(client: redis.Redis, server: RedisServer) -> None:
    client.acl_setuser("clerk", enabled=True, passwords=["+word"], categories=["+@all"], keys=["*"])
    port = int(client.connection_pool.connection_kwargs["port"])
    options: dict[str, Any] = {
        "port": port,
        "username": "clerk",
        "password": "word",
        "db": 3,
        "client_name": "fenced-clerk",
        "health_check_interval": 0.001,  # a PING before each command
    }
    with redis.Redis(**options) as ordinary, FencedRedis(ordinary, "r", 3) as fenced:
        assert fenced.set("a", 1)
        assert fenced.get("a") == b"1"
        fenced.connection_pool.disconnect()
        assert fenced.get("a") == b"1"
        (mine,) = [one for one in client.client_list() if one["name"] == "fenced-clerk"]
        assert (mine["user"], mine["db"]) == ("clerk", "3")
        assert mine["lib-name"]
        client.config_resetstat()
        wait_until(lambda: fenced.get("a") and "cmdstat_ping" in client.info("commandstats"))
    # Not with so short an interval: redis.asyncio itself, fenced or not, then sometimes waits for ever.
    asyncio.run(_greets({**options, "health_check_interval": 0}))


async def _greets(options: dict[str, Any]) -> None:
    async with redis.asyncio.Redis(**options) as ordinary:
        fenced: Any = AsyncFencedRedis(ordinary, "r", 3)
        assert await fenced.set("a", 2)
        await fenced.connection_pool.disconnect()
        assert await fenced.get("a") == b"2"
        await fenced.connection_pool.disconnect()


def test_a_lock_of_a_fenced_client_is_fenced(client: redis.Redis) -> None:
    holder = FencedRedis(client, "r", 3)
    for _ in range(2):
        with holder.lock("nightly", timeout=50) as held:
            assert client.get("nightly") == held.local.token.decode()
            assert held.extend(50)
            assert held.reacquire()
            assert not holder.lock("nightly").acquire(blocking=False)
            assert client.get("zelect:fence:{r}") == "3"
        assert not client.exists("nightly")
        with client.lock("nightly", timeout=5):
            assert client.exists("nightly")
        assert not client.exists("nightly")
    late = holder.lock("nightly", timeout=50)
    assert late.acquire()
    FencedRedis(client, "r", 4).set("a", "new")
    for step in (late.reacquire, late.release, holder.lock("other").acquire):
        with pytest.raises(FencedOut):
            step()
    assert (client.exists("nightly"), client.exists("other")) == (1, 0)
    with pytest.raises(ValueError, match="take FencedLock"):
        holder.lock("nightly", lock_class=redis.lock.Lock)


FIRST_LOCKS = """
import asyncio, sys, redis, redis.asyncio, redis.lock, zelect

def refused(kind, fenced):
    try:
        kind(fenced, "nightly")
    except ValueError as error:
        print(error)

ordinary = redis.Redis.from_url(sys.argv[1])
fenced = zelect.FencedRedis(ordinary, "r", 3)
refused(redis.lock.Lock, fenced)
for client in (fenced, ordinary, fenced):
    with client.lock("nightly", timeout=50):
        pass

async def main():
    ordinary = redis.asyncio.Redis.from_url(sys.argv[1])
    fenced = zelect.AsyncFencedRedis(ordinary, "r", 3)
    refused(redis.asyncio.lock.Lock, fenced)
    for client in (fenced, ordinary, fenced):
        async with client.lock("nightly", timeout=50):
            pass
        await client.connection_pool.disconnect()

asyncio.run(main())
"""


def test_locks_of_fenced_and_ordinary_clients_share_no_scripts(client: redis.Redis, server: RedisServer) -> None:
    """redis-py keeps the scripts of a process's first lock, so the process must be a new one."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", FIRST_LOCKS, server.url]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "redis.lock.Lock can't be fenced: use lock of the fenced client\n" * 2
    assert not client.exists("nightly")


def test_a_fenced_script_is_called_as_those_of_redis_py(client: redis.Redis) -> None:
    old, new = FencedRedis(client, "r", 3), FencedRedis(client, "r", 4)
    script = old.register_script("return redis.call('SET', KEYS[1], ARGV[1])")
    script(["x"], ["1"], new)
    assert client.get("x") == "1"
    script(keys=iter(["x"]), args=iter(["2"]), client=new)
    assert client.get("x") == "2"
    other = AsyncFencedRedis(redis.asyncio.Redis(), "r", 4)
    for on, error in (
        *((None, FencedOut), (old, FencedOut), (client, ValueError), (new.pipeline(), ValueError)),
        *((other, ValueError), (other.pipeline(), ValueError)),
    ):
        with pytest.raises(error):
            script(keys=["x"], args=["3"], client=on)
    assert client.get("x") == "2"


# -- the same for coroutines ------------------------------------------------------------------------


def test_coroutines_are_fenced_as_threads_are(server: RedisServer, client: redis.Redis) -> None:
    asyncio.run(_coroutines(server.url))
    assert client.get("a") == "new"
    assert zelect.AsyncFencedRedis is AsyncFencedRedis


async def _coroutines(url: str) -> None:
    async with redis.asyncio.Redis.from_url(url, decode_responses=True) as ordinary:
        old: Any = AsyncFencedRedis(ordinary, "r", 3)
        new: Any = AsyncFencedRedis(ordinary, "r", 4)
        assert await old.hset(old.key("h"), mapping={"x": "1"}) == 1
        assert await old.hgetall(old.key("h")) == {"x": "1"}
        assert await old.pipeline().set("p", 1).incr("p").get("nothing").execute() == [True, 2, None]
        await new.set("a", "new")
        calls: list[Callable[[], Any]] = [
            lambda: old.set("a", "old"),
            lambda: old.get("a"),
            lambda: old.eval("redis.call('SET', 'a', 'old')", 0),
            lambda: old.register_script("redis.call('SET', 'a', 'old')")(),
            lambda: old.pipeline().set("a", "old").execute(),
        ]
        for call in calls:
            with pytest.raises(FencedOut, match="r: term 3 is not active; term 4 has written since"):
                await call()
        assert await new.register_script("return ARGV[1]")(args=["v"]) == "v"
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            await new.pipeline().lpush("a", 1).execute()
        with pytest.raises(ValueError, match="use pipeline"):
            await new.execute_command("MULTI")
        for said in (new.pubsub, new.monitor, new.client, new.pipeline().multi):
            with pytest.raises(ValueError, match="can't be fenced"):
                said()
        with pytest.raises(ValueError, match="can't be fenced"):
            await new.pipeline().watch("a")
        for one in (old, new):
            await one.aclose()


def test_no_way_of_coroutines_goes_past_the_fence(server: RedisServer, client: redis.Redis) -> None:
    FencedRedis(client, "r", 9).set("x", "new")
    asyncio.run(_around(server.url, client))
    assert (client.get("x"), client.get("zelect:fence:{r}")) == ("new", "9")


async def _around(url: str, client: redis.Redis) -> None:
    async with redis.asyncio.Redis.from_url(url, decode_responses=True) as ordinary:
        old: Any = AsyncFencedRedis(ordinary, "r", 3)
        pool = old.connection_pool
        raw: Any = redis.asyncio.Redis
        plain: Any = redis.asyncio.Redis(connection_pool=pool)

        async def directly() -> None:
            connection = await pool.get_connection()
            try:
                await connection.send_command("SET", "x", "old")
            finally:
                await pool.release(connection)

        ways: list[Callable[[], Any]] = [
            lambda: old.pipeline().pipeline().set("x", "old").execute(),
            lambda: old.pipeline().transaction(lambda pipe: pipe.set("x", "old")),
            lambda: old.transaction(lambda pipe: pipe.set("x", "old")),
            lambda: raw.execute_command(old, "SET", "x", "old"),
            lambda: plain.set("x", "old"),
            lambda: plain.eval("return redis.call('SET', 'x', 'old')", 0),
            lambda: plain.pipeline().set("x", "old").execute(),
            lambda: plain.pipeline(transaction=False).set("x", "old").execute(),
            lambda: plain.pubsub().subscribe("x"),
            lambda: old.lock("x", timeout=5).acquire(blocking=False),
            directly,
        ]
        for way in ways:
            with pytest.raises((FencedOut, ValueError), match=PAST):
                await way()
            assert (client.get("x"), client.get("zelect:fence:{r}")) == ("new", "9")
        pipe = old.pipeline()
        for call in (pipe.monitor, pipe.client, pipe.pubsub, lambda: pipe.lock("x")):
            with pytest.raises(ValueError, match="can't be fenced"):
                call()
        with pytest.raises(FencedOut):
            await old.get("x")
        await old.connection_pool.disconnect()


def test_a_lock_of_a_fenced_client_is_fenced_for_coroutines(server: RedisServer, client: redis.Redis) -> None:
    asyncio.run(_locks(server.url, client))


async def _locks(url: str, client: redis.Redis) -> None:
    async with redis.asyncio.Redis.from_url(url, decode_responses=True) as ordinary:
        holder: Any = AsyncFencedRedis(ordinary, "r", 3)
        other: Any = AsyncFencedRedis(ordinary, "r", 4)
        for _ in range(2):
            async with holder.lock("nightly", timeout=50) as held:
                assert client.exists("nightly")
                assert await held.extend(50)
                assert await held.reacquire()
            assert not client.exists("nightly")
            async with ordinary.lock("nightly", timeout=5):
                assert client.exists("nightly")
            assert not client.exists("nightly")
        late = holder.lock("nightly", timeout=50)
        assert await late.acquire()
        script = holder.register_script("return redis.call('SET', KEYS[1], ARGV[1])")
        await script(keys=["x"], args=["1"], client=other)
        assert client.get("x") == "1"
        for on, error in ((None, FencedOut), (ordinary, ValueError), (other.pipeline(), ValueError)):
            with pytest.raises(error):
                await script(keys=["x"], args=["2"], client=on)
        with pytest.raises(FencedOut):
            await late.release()
        assert (client.exists("nightly"), client.get("x")) == (1, "1")
        with pytest.raises(ValueError, match="take AsyncFencedLock"):
            holder.lock("nightly", lock_class=redis.asyncio.lock.Lock)
        for one in (holder, other):
            await one.connection_pool.disconnect()


def test_racing_coroutines_never_let_an_older_term_through(server: RedisServer, client: redis.Redis) -> None:
    asyncio.run(_race(server.url))
    terms = [int(one) for one in client.lrange("terms", 0, -1)]
    assert terms == sorted(terms)
    assert len(terms) > 1


async def _race(url: str) -> None:
    async with redis.asyncio.Redis.from_url(url) as ordinary:

        async def one(term: int) -> None:
            fenced = AsyncFencedRedis(ordinary, "race", term)
            with contextlib.suppress(FencedOut):
                await fenced.rpush("terms", term)
            await fenced.aclose()

        await asyncio.gather(*(one(term) for term in random.Random(7).choices(range(1, 60), k=200)))


# -- the recipes of the documentation ---------------------------------------------------------------


def test_sqlite_transactions_are_fenced(tmp_path: Path) -> None:
    path, local = tmp_path / "data.db", threading.local()

    def connect() -> sqlite3.Connection:
        if not hasattr(local, "db"):
            local.db = sqlite3.connect(path, timeout=60)
        return local.db  # type: ignore[no-any-return]

    db = connect()
    prepare_sqlite(db)
    db.execute("CREATE TABLE log (number INTEGER PRIMARY KEY, term INTEGER)")

    def write(term: int) -> None:
        with fenced_sqlite(connect(), "log", term) as fenced:
            fenced.execute("INSERT INTO log (term) VALUES (?)", (term,))

    refused = race(write)
    written = [term for (term,) in db.execute("SELECT term FROM log ORDER BY number")]
    assert (len(written) + refused, grows(written), refused > 0) == (WRITERS, True, True)

    def rows() -> list[int]:
        with sqlite3.connect(path) as other:
            return [term for (term,) in other.execute("SELECT term FROM log ORDER BY number")]

    ways: tuple[Callable[[], object], ...] = (
        lambda: db.executescript("INSERT INTO log (term) VALUES (997)"),
        db.commit,
        db.rollback,
        lambda: db.execute("COMMIT"),
        lambda: db.execute("END"),
        lambda: db.execute("SAVEPOINT a"),
        lambda: db.execute("/* quietly */ ROLLBACK"),
        lambda: db.__exit__(None, None, None),
    )

    def inserts_and(way: Callable[[], object]) -> None:
        with fenced_sqlite(db, "log", 1000) as fenced:
            fenced.execute("INSERT INTO log (term) VALUES (999)")
            way()

    for way in ways:
        with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
            inserts_and(way)
        assert rows() == written
    with pytest.raises(FenceBroken, match="nothing was committed"):
        inserts_and(lambda: db.execute("DELETE FROM fence"))
    with pytest.raises(ZeroDivisionError), fenced_sqlite(db, "log", 1000):
        raise ZeroDivisionError
    assert rows() == written
    db.execute("INSERT INTO log (term) VALUES (998)")
    with pytest.raises(ValueError, match="open already"), fenced_sqlite(db, "log", 1000):
        raise AssertionError
    db.rollback()
    write(999)
    assert rows()[-1] == 999


def test_files_are_fenced(tmp_path: Path) -> None:
    path, written = tmp_path / "state", list[int]()
    lock = threading.Lock()

    def write(term: int) -> None:
        # The order in which writes come through is noted under a lock.
        with lock:
            before = path.read_bytes() if path.exists() else b"0"
            write_file(path, term, b"%d" % term)
            assert int(before) <= int(path.read_bytes())
            written.append(term)

    refused = race(write)
    assert (len(written) + refused, grows(written), refused > 0) == (WRITERS, True, True)
    assert int(path.read_bytes()) == max(written)


def test_a_writer_that_is_killed_loses_neither_token_nor_file(tmp_path: Path) -> None:
    """At any moment of a write: what is there is whole, and no token is older than it."""
    path, rng = tmp_path / "state", random.Random(5)
    newest = aim = 0

    def is_there() -> bool:
        return path.exists() and int(path.read_bytes()[:20].split()[0]) >= aim

    for _ in range(300):
        aim = newest + rng.randrange(1, 6)
        writer = os.fork()
        if writer == 0:
            try:
                for term in range(newest + 1, newest + 1000):
                    write_file(path, term, b"%d\n" % term * 2000)
            finally:
                os._exit(1)
        try:
            wait_until(is_there, every_s=0.0001)
        finally:
            os.kill(writer, signal.SIGKILL)
            os.waitpid(writer, 0)
        lines = path.read_bytes().splitlines()
        token = int((tmp_path / "state.term").read_bytes())
        assert (len(lines), len(set(lines))) == (2000, 1)
        assert int(lines[0]) <= token <= int(lines[0]) + 1
        newest = token
        with pytest.raises(FencedOut):
            write_file(path, newest - 1, b"old")
    assert sorted(one.name for one in tmp_path.iterdir() if not one.name.endswith(".new")) == [
        *("state", "state.lock", "state.term"),
    ]


def test_a_file_keeps_its_mode_and_a_damaged_token_is_not_guessed_at(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"old")
    path.chmod(0o640)
    write_file(path, 3, b"new")
    assert path.stat().st_mode & 0o777 == 0o640
    token = tmp_path / "state.term"
    for damage in (b"", b"-1", b"3x", b"9" * 40):
        token.write_bytes(damage)
        with pytest.raises(FenceBroken, match="no term"):
            write_file(path, 4, b"newer")
    token.unlink()
    token.symlink_to(path)
    with pytest.raises(OSError, match="symbolic link"):
        write_file(path, 4, b"newer")
    assert path.read_bytes() == b"new"


@pytest.fixture
def postgres() -> Iterator[Callable[[str], str]]:
    """A server of its own on a socket; call it with SQL, which psql sends in one connection."""
    if any(shutil.which(name) is None for name in ("initdb", "pg_ctl", "psql")):
        pytest.skip("no PostgreSQL server: initdb, pg_ctl and psql must be in PATH")
    root = os.geteuid() == 0  # as which PostgreSQL refuses to run
    who: dict[str, Any] = {"user": "nobody", "extra_groups": []} if root else {}
    with tempfile.TemporaryDirectory(prefix="zelect-pg-") as name:
        if root:
            shutil.chown(name, "nobody")
        data = f"{name}/data"

        def run(*command: str, sql: str = "") -> str:
            done = subprocess.run(command, input=sql, capture_output=True, text=True, cwd=name, **who)
            assert done.returncode == 0, done.stderr
            return str(done.stdout)

        run("initdb", "-D", data, "-A", "trust", "-U", "me", "--no-sync")
        subprocess.run(
            [
                "pg_ctl",
                "-D",
                data,
                "-w",
                "-o",
                f"-k {name} -c listen_addresses= -c fsync=off",
                "-l",
                f"{name}/log",
                "start",
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=name,
            **who,
        )
        try:
            yield lambda sql: run("psql", "-h", name, "-U", "me", "-d", "postgres", "-At", sql=sql)
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "stop")


@pytest.mark.long
def test_postgresql_transactions_are_fenced(postgres: Callable[[str], str]) -> None:
    psycopg = pytest.importorskip("psycopg", reason="no driver for PostgreSQL: pip install 'psycopg[binary]'")
    place = postgres("SHOW unix_socket_directories;").strip()
    local = threading.local()

    def connect() -> Any:
        if not hasattr(local, "db"):
            local.db = psycopg.connect(host=place, user="me", dbname="postgres")
        return local.db

    db = connect()
    prepare_postgres(db)
    postgres("CREATE TABLE log (number serial, term bigint);")

    def write(term: int) -> None:
        with fenced_postgres(connect(), "log", term) as cursor:
            cursor.execute("INSERT INTO log (term) VALUES (%s)", (term,))

    def rows() -> list[int]:
        return [int(term) for term in postgres("SELECT term FROM log ORDER BY number;").split()]

    refused = race(write)
    written = rows()
    assert (len(written) + refused, grows(written), refused > 0) == (WRITERS, True, True)

    def inserts_and(statement: str) -> None:
        with fenced_postgres(db, "log", 1000) as cursor:
            cursor.execute("INSERT INTO log (term) VALUES (999)")
            cursor.execute(statement)

    for ending in ("COMMIT", "select 1; END", "/* a */ rollback", "--a\nABORT", "savepoint a", "BEGIN", "start work"):
        with pytest.raises(ValueError, match="would end"):
            inserts_and(ending)
    with pytest.raises(FenceBroken, match="nothing was committed"), fenced_postgres(db, "log", 1000) as cursor:
        cursor.execute("DELETE FROM fence")
    assert rows() == written
    with pytest.raises(FenceBroken, match="may be committed"), fenced_postgres(db, "log", 1000) as cursor:
        db.commit()
    db.execute("INSERT INTO log (term) VALUES (999)")
    with pytest.raises(ValueError, match="open already"), fenced_postgres(db, "log", 1000):
        raise AssertionError
    db.rollback()
    assert rows() == written
    write(1000)
    assert rows()[-1] == 1000


@pytest.mark.long
def test_the_statement_for_postgresql(postgres: Callable[[str], str]) -> None:
    text = (ROOT / "docs" / "fencing.md").read_text()
    (block,) = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    create, insert = re.findall(r"(CREATE TABLE.*?;|INSERT INTO.*?;)", block, re.DOTALL)
    postgres(f"{create} CREATE TABLE log (number serial, term bigint);")

    def write(term: int) -> str:
        # Only a statement that changed the row lets the work through; psql says which by its tag.
        fence = insert.replace("17", str(term)).removesuffix(";")
        work = f"WITH fence AS ({fence} RETURNING term) INSERT INTO log (term) SELECT term FROM fence;"
        return postgres(f"BEGIN; {work} COMMIT;")

    terms = random.Random(7).choices(range(1, 30), k=120)
    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(write, terms))
    written = [int(term) for term in postgres("SELECT term FROM log ORDER BY number;").split()]
    assert grows(written)
    assert sum("INSERT 0 0" in one for one in said) + len(written) == len(terms)
    assert written[-1] == max(terms)
