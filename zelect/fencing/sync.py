"""Writes that an older term cannot do (S3): the fencing token, checked where the data is.

A job that was frozen may wake after its leadership ended and go on where it was. No clock of its own
can stop the write it is about to send; the resource can, if it remembers the newest term that wrote
to it. `FencedRedis` keeps that term beside the data and compares it in the same script that writes.
docs/fencing.md has the same for SQL and for files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import redis
from redis.client import Pipeline
from redis.exceptions import NoScriptError, ResponseError
from redis.lock import Lock

from zelect.core.timing import MAX_TERM
from zelect.fencing.connection_guard import ConnectionGuard, Fenced, guarded, plain

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Fence", "FencedLock", "FencedOut", "FencedPipeline", "FencedRedis", "FencedScript", "refuse"]

_MOST_WORDS = 7000
"""Lua hands no more values than that to one call."""

# KEYS[1]: the token. What stands there is never guessed at.
_FENCE = """
local function fence(key, mine)
  local newest = redis.call('GET', key)
  if newest and not string.match(newest, '^%d+$') then
    return redis.error_reply('FENCEBROKEN the token in ' .. key .. ' is no number')
  end
  if newest and tonumber(newest) > tonumber(mine) then return redis.error_reply('FENCEDOUT ' .. newest) end
  if newest ~= mine then redis.call('SET', key, mine) end
end
"""

# ARGV: term, then each command as its number of words and the words.
_COMMANDS = (
    _FENCE
    + """
local refused = fence(KEYS[1], ARGV[1])
if refused then return refused end
local results, at = {}, 2
while at <= #ARGV do
  local words = tonumber(ARGV[at])
  results[#results + 1] = redis.pcall(unpack(ARGV, at + 1, at + words))
  at = at + words + 1
end
return results
"""
)

# The caller's script sees its own KEYS and ARGV.
_SCRIPT = (
    _FENCE
    + """
local refused = fence(table.remove(KEYS, 1), table.remove(ARGV, 1))
if refused then return refused end
"""
)

_NOT_HERE = {
    "EVALSHA": "use eval, or register_script",
    "EVALSHA_RO": "use eval, or register_script",
    "FCALL": "functions can't be called from a script; use eval",
    "FCALL_RO": "functions can't be called from a script; use eval",
    "SCRIPT": "use register_script",
    "MULTI": "use pipeline: it is atomic",
    "EXEC": "use pipeline: it is atomic",
    "WATCH": "use eval: reading and writing in one script needs no WATCH",
    "SELECT": "it would reach the script alone; give a client of that database",
    "SUBSCRIBE": "use an ordinary client: it changes nothing",
    "PSUBSCRIBE": "use an ordinary client: it changes nothing",
    "MONITOR": "use an ordinary client: it changes nothing",
    "CLIENT": "a fenced client has no connection of its own to speak of; use an ordinary one",
}


class FencedOut(Exception):
    """Refused, and nothing was changed: `newest` is a later term than the writer's `term`. Its leadership
    is over; stop working."""

    def __init__(self, resource: str, term: int, newest: int) -> None:
        super().__init__(f"{resource}: term {term} is not active, term {newest} has written since")
        self.resource, self.term, self.newest = resource, term, newest


class HasTerm(Protocol):
    """Such as a `zelect.Leadership`."""

    @property
    def term(self) -> int: ...


class Fence:
    """What is sent for commands of `term` on `resource`, and what is made of the answers. `term`: as in
    `FencedRedis`. Raises ValueError for a term or a name that can't be one."""

    def __init__(self, resource: str, term: HasTerm | int) -> None:
        number = getattr(term, "term", term)
        if type(number) is not int or not 0 < number <= MAX_TERM:
            raise ValueError(f"term is {number!r}; pass a zelect.Leadership, or its term")
        if not isinstance(resource, str) or not resource or set(resource) & set("{}"):
            raise ValueError(f"resource is {resource!r}; give a name without braces")
        self.resource, self.term = resource, number
        self.token = f"zelect:fence:{{{resource}}}"

    def script(self, text: Any, count: Any, words: Sequence[Any]) -> tuple[str, tuple[Any, ...], tuple[Any, ...]]:
        """The caller's script, with `count` keys among `words`, behind the fence: text, keys, arguments."""
        keys = int(count)
        return _wrapped(plain(text)), (self.token, *words[:keys]), (self.term, *words[keys:])

    def commands(
        self, commands: Sequence[tuple[tuple[Any, ...], dict[str, Any]]]
    ) -> tuple[str, tuple[Any, ...], tuple[Any, ...]]:
        """Several commands in one script. Raises ValueError for those that can't be in one."""
        words: list[Any] = [self.term]
        for command, _ in commands:
            name, _, more = plain(command[0]).partition(" ")  # redis-py writes "CONFIG GET" in one
            parts = [name, *more.split(), *command[1:]]
            if name.upper() in _NOT_HERE:
                refuse(name.upper())
            if any(isinstance(word, str | bytes) and plain(word) == self.token for word in parts[1:]):
                raise ValueError(f"{name} names {self.token}, the fence itself; use an ordinary client, with care")
            if len(parts) > _MOST_WORDS:
                raise ValueError(f"{name} has {len(parts)} words; a fenced command has at most {_MOST_WORDS}: split it")
            words += [len(parts), *parts]
        return _COMMANDS, (self.token,), tuple(words)

    def judge(self, error: ResponseError) -> Exception:
        """What the server's `error` means."""
        said, _, newest = str(error).partition("FENCEDOUT ")
        return FencedOut(self.resource, self.term, int(newest)) if not said and newest.isdigit() else error


class OneConnection:
    """What a fenced client and its pipelines can't do, since it takes a connection for itself."""

    def pubsub(self, **options: Any) -> Any:
        """Raises ValueError: subscribing changes nothing and needs no fence."""
        refuse("SUBSCRIBE")

    def watch(self, *names: Any) -> NoReturn:
        """Raises ValueError: a script sees no changes in between."""
        refuse("WATCH")

    def monitor(self) -> Any:
        """Raises ValueError, as `pubsub` does."""
        refuse("MONITOR")

    def client(self) -> Any:
        """Raises ValueError: what goes over one connection can't be fenced."""
        refuse("CLIENT")


def options_of(pool: Any) -> dict[str, Any]:
    """The options of a pool like `pool`. RESP 2: that is what a script's results are, whatever the
    connection speaks."""
    options = {**pool.connection_kwargs, "protocol": 2}
    options.pop("maint_notifications_config", None)
    options.pop("maint_notifications_pool_handler", None)
    return options


def meant(callbacks: Any, name: Any, result: Any, options: dict[str, Any]) -> Any:
    """A raw result as redis-py gives it for that command."""
    if isinstance(result, Exception):
        return result
    options = {key: value for key, value in options.items() if key != "keys"}
    convert: Callable[..., Any] | None = callbacks.get(name)
    return result if convert is None else convert(result, **options)


def refuse(name: str, why: str = "") -> NoReturn:
    """Raises ValueError: `name` can't be fenced."""
    raise ValueError(f"{name} can't be fenced: {why or _NOT_HERE[name]}")


class FencedRedis(OneConnection, redis.Redis):
    """A client like `client` (same server, connections of its own), every command of which is refused
    with `FencedOut` when `resource` has heard of a newer term. Check and command are one script.

    `term`: a `zelect.Leadership`, or its term. The token is the key ``zelect:fence:{resource}``; in a Redis
    Cluster the keys that are written must carry the same tag, which `key` gives them. Commands that
    block return at once (a script never waits), those that belong to a connection raise ValueError.
    """

    def __init__(self, client: redis.Redis, resource: str, term: HasTerm | int) -> None:
        if not isinstance(client, redis.Redis):
            raise TypeError(f"client is a {type(client).__name__}; give a redis.Redis, or see zelect.AsyncFencedRedis")
        self._fence = Fence(resource, term)
        self.resource, self.term, self.token = resource, self._fence.term, self._fence.token
        options = options_of(client.connection_pool)
        kind = guarded(client.connection_pool.connection_class, ConnectionGuard)
        super().__init__(connection_pool=redis.ConnectionPool(connection_class=kind, **options))

    def key(self, name: str) -> str:
        """`name` with the resource's tag, so that a Redis Cluster keeps it beside the token."""
        return f"{{{self.resource}}}:{name}"

    def execute_command(self, *words: Any, **options: Any) -> Any:
        """One command, fenced. Raises `FencedOut`, and what redis-py raises."""
        if plain(words[0]).upper() in ("EVAL", "EVAL_RO"):
            return self._send(*self._fence.script(words[1], words[2], words[3:]))
        (result,) = self.run_all([(words, options)])
        if isinstance(result, Exception):
            raise result
        return result

    def run_all(self, commands: Sequence[tuple[tuple[Any, ...], dict[str, Any]]]) -> list[Any]:
        """Several commands in one script, all or none of them; failures of single ones stand in the
        list as exceptions."""
        raw = self._send(*self._fence.commands(commands))
        callbacks = self.response_callbacks
        return [
            meant(callbacks, command[0], result, options)
            for (command, options), result in zip(commands, raw, strict=True)
        ]

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> FencedPipeline:
        """Commands that are sent, and carried out, together: all of them, or none when fenced out."""
        return FencedPipeline(self)

    def register_script(self, script: str | bytes) -> FencedScript:  # type: ignore[override]
        """`script`, fenced, to be called with keys and args."""
        return FencedScript(self, to_register(script))

    def lock(
        self,
        name: Any,
        timeout: float | None = None,
        sleep: float = 0.1,
        blocking: bool = True,
        blocking_timeout: float | None = None,
        lock_class: Any = None,
        thread_local: bool = True,
        raise_on_release_error: bool = True,
    ) -> FencedLock:
        """redis-py's lock, each step of it fenced. Give it a timeout: a leadership that is over can't release
        it. `lock_class`: a kind of `FencedLock`, else ValueError."""
        kind = lock_kind(lock_class, FencedLock)
        options = (timeout, sleep, blocking, blocking_timeout, thread_local, raise_on_release_error)
        held: FencedLock = kind(self, name, *options)
        return held

    def _send(self, text: str, keys: tuple[Any, ...], words: tuple[Any, ...]) -> Any:
        digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        try:
            try:
                return super().execute_command(Fenced("EVALSHA"), digest, len(keys), *keys, *words)  # type: ignore[no-untyped-call]
            except NoScriptError:
                return super().execute_command(Fenced("EVAL"), text, len(keys), *keys, *words)  # type: ignore[no-untyped-call]
        except ResponseError as error:
            meaning = self._fence.judge(error)
            if meaning is error:
                raise
            raise meaning from None


class FencedScript:
    """A script of a `FencedRedis`, called like those of redis-py."""

    def __init__(self, client: FencedRedis, text: str) -> None:
        self._client, self._text = client, text

    def __call__(self, keys: Iterable[Any] | None = None, args: Iterable[Any] | None = None, client: Any = None) -> Any:
        """`client`: another `FencedRedis` to call it on, under its resource and term."""
        on = self._client if client is None else client
        if not isinstance(on, FencedRedis | FencedPipeline):
            refuse("a fenced script on an ordinary client", "register it there")
        names = tuple(keys or ())
        return on.eval(self._text, len(names), *names, *(args or ()))


class FencedLock(Lock):
    """What `FencedRedis.lock` returns."""

    def register_scripts(self) -> None:
        """Its own: redis-py keeps one set for all clients, whose scripts mustn't be mixed with these."""
        for name, text in lock_scripts(self):
            setattr(self, name, FencedScript(self.redis, text))


class FencedPipeline(OneConnection, Pipeline):
    """Collects commands; `execute` sends them as one script. Always atomic. It can't WATCH."""

    def __init__(self, client: FencedRedis) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, True, None)
        self._client = client

    def execute_command(self, *words: Any, **options: Any) -> Any:
        check_piped(words[0])
        return self.pipeline_execute_command(*words, **options)

    def immediate_execute_command(self, *words: Any, **options: Any) -> Any:
        """Raises ValueError: a pipeline is sent as a whole."""
        refuse("a command sent at once", "call it on the FencedRedis itself")

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> FencedPipeline:
        """Another one of the same client."""
        return self._client.pipeline()

    def lock(self, *words: Any, **options: Any) -> Any:
        """Raises ValueError: taking a lock can't wait for the pipeline."""
        refuse_lock()

    def multi(self) -> None:
        """Raises ValueError: the pipeline is atomic as it is."""
        refuse("MULTI")

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """The results in order. Raises `FencedOut`, and (`raise_on_error`) the first failure."""
        stack, self.command_stack = self.command_stack, []
        try:
            results = self._client.run_all(list(stack)) if stack else []
        finally:
            self.reset()
        if raise_on_error:
            for result in results:
                if isinstance(result, Exception):
                    raise result
        return results


def lock_scripts(lock: Any) -> list[tuple[str, str]]:
    """Where a lock of redis-py looks for its scripts, and what they are."""
    return [(name, getattr(lock, f"{name.upper()}_SCRIPT")) for name in ("lua_release", "lua_extend", "lua_reacquire")]


def to_register(script: Any) -> str:
    """A script to register, as text. Raises ValueError for those of redis-py's own locks, which would keep
    it for the locks of every other client."""
    text = plain(script)
    if any(text == known for _, known in lock_scripts(Lock)):
        refuse("redis.lock.Lock", "use lock of the fenced client")
    return text


def lock_kind(kind: Any, known: type) -> Any:
    """The class of a lock. Raises ValueError for one whose scripts aren't fenced."""
    if kind is not None and not issubclass(kind, known):
        refuse(kind.__name__, f"take {known.__name__}")
    return kind or known


def refuse_lock() -> NoReturn:
    """Raises ValueError."""
    refuse("a lock in a pipeline", "take it by lock of the fenced client")


def check_piped(word: Any) -> None:
    """Raises ValueError where the command called `word` can't be one of several in a script."""
    name = plain(word).upper()
    if name in _NOT_HERE or name in ("EVAL", "EVAL_RO"):
        raise ValueError(f"{name} can't be in a fenced pipeline: {_NOT_HERE.get(name, 'call eval by itself')}")


def _wrapped(text: str) -> str:
    """The caller's script behind the fence; a first line such as "#!lua" stays the first."""
    first, newline, rest = text.partition("\n")
    return first + newline + _SCRIPT + rest if first.startswith("#!") else _SCRIPT + text
