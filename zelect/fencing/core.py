"""Writes that an older term cannot do (S3): the fencing token, checked where the data is.

A job that was frozen may wake after its leadership ended and go on where it stopped. No clock of its own
can stop the write it is about to send; the resource can, if it remembers the newest term that wrote
to it. `FencedRedis` keeps that term beside the data and compares it in the same script that writes.
`sql` and `files` do the same there.

This module has all of it that sends nothing: `sync` and `asyncio` add a `_send` each, and name the
classes of redis-py that they extend. Methods here return what `_send` returns, a result or an awaitable.
tests/unit/fencing/test_redis_py.py lists which parts of redis-py all this relies on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Protocol

from zelect.core.timing import MAX_TERM
from zelect.errors import ZelectError
from zelect.fencing.connection_guard import guarded, plain

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_WORDS = 7000
"""Lua hands no more values than that to one call."""

# KEYS[1]: the token. A value that is not a number is an error, never a guess.
_FENCE = """
local function fence(key, mine)
  local newest = redis.call('GET', key)
  if newest and not string.match(newest, '^%d+$') then
    return redis.error_reply('FENCEBROKEN the token in ' .. key .. ' is not a number')
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
    "CLIENT": "a fenced client has no connection of its own; use an ordinary one",
}


class FencedOut(ZelectError):
    """Refused, and nothing was changed: `newest` is a later term than the writer's `term`. Its leadership
    is over; stop working."""

    def __init__(self, resource: str, term: int, newest: int) -> None:
        super().__init__(f"{resource}: term {term} is not active; term {newest} has written since")
        self.resource, self.term, self.newest = resource, term, newest


class FenceBroken(ZelectError):
    """The token that newer terms are compared with is damaged, or was taken away by the work itself; the text says
    what that means for the data."""


class HasTerm(Protocol):
    """Such as a `zelect.Leadership`."""

    @property
    def term(self) -> int: ...


def term_of(term: HasTerm | int) -> int:
    """The number of `term`. Raises ValueError where it is none."""
    number = getattr(term, "term", term)
    if type(number) is not int or not 0 < number <= MAX_TERM:
        raise ValueError(f"term is {number!r}; pass a zelect.Leadership, or its term")
    return number


@dataclass(frozen=True, slots=True)
class FencedCall:
    """A script behind the fence, and its words: the number of keys, keys, arguments."""

    text: str
    words: tuple[Any, ...]

    @property
    def digest(self) -> str:
        return hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


class Fence:
    """What is sent for commands of `term` on `resource`, and what the answers mean. `term`: as in
    `FencedRedis`. Raises ValueError for a term or a name that can't be one."""

    def __init__(self, resource: str, term: HasTerm | int) -> None:
        number = term_of(term)
        if not isinstance(resource, str) or not resource or set(resource) & set("{}"):
            raise ValueError(f"resource is {resource!r}; give a name without braces")
        self.resource, self.term = resource, number
        self.token = f"zelect:fence:{{{resource}}}"

    def script(self, text: Any, count: Any, words: Sequence[Any]) -> FencedCall:
        """The caller's script, with `count` keys first among `words`, behind the fence."""
        keys = int(count)
        return FencedCall(_wrapped(plain(text)), (1 + keys, self.token, *words[:keys], self.term, *words[keys:]))

    def commands(self, commands: Sequence[tuple[tuple[Any, ...], dict[str, Any]]]) -> FencedCall:
        """Several commands in one script. Raises ValueError for those that can't be in one."""
        words: list[Any] = [1, self.token, self.term]
        for command, _ in commands:
            name, _, more = plain(command[0]).partition(" ")  # redis-py writes "CONFIG GET" in one
            parts = [name, *more.split(), *command[1:]]
            if name.upper() in _NOT_HERE:
                _refuse(name.upper())
            if any(isinstance(word, str | bytes) and plain(word) == self.token for word in parts[1:]):
                raise ValueError(f"{name} names {self.token}, the fence itself; use an ordinary client, with care")
            if len(parts) > _MOST_WORDS:
                raise ValueError(f"{name} has {len(parts)} words; a fenced command has at most {_MOST_WORDS}: split it")
            words += [len(parts), *parts]
        return FencedCall(_COMMANDS, tuple(words))

    def judge(self, error: Exception) -> Exception:
        """What the server's `error` means."""
        before, _, newest = str(error).partition("FENCEDOUT ")
        return FencedOut(self.resource, self.term, int(newest)) if not before and newest.isdigit() else error


class _NoOwnConnection:
    """What a fenced client and its pipelines can't do, since it takes a connection for itself."""

    def pubsub(self, **options: Any) -> Any:
        """Raises ValueError: subscribing changes nothing and needs no fence."""
        _refuse("SUBSCRIBE")

    def watch(self, *names: Any) -> Any:
        """Raises ValueError: a script sees no changes in between."""
        _refuse("WATCH")

    def monitor(self) -> Any:
        """Raises ValueError, as `pubsub` does."""
        _refuse("MONITOR")

    def client(self) -> Any:
        """Raises ValueError: what goes over one connection can't be fenced."""
        _refuse("CLIENT")


class FencedClient(_NoOwnConnection):
    """What a fenced client is besides one of redis-py, whose class follows this one among the bases."""

    _ordinary: ClassVar[Any]
    """The class of redis-py's client, and its name for people; the twin of this class in the other flavour."""
    _ordinary_name: ClassVar[str]
    _twin: ClassVar[str]
    _pool_type: ClassVar[Any]
    _guard_type: ClassVar[Any]
    _pipeline_type: ClassVar[Any]
    _lock_type: ClassVar[Any]
    _send: Callable[[FencedCall | None, Callable[[Any], Any]], Any]
    """Sends a call (None: nothing, its result is an empty list) and returns what the function makes of the result."""

    def __init__(self, client: Any, resource: str, term: HasTerm | int) -> None:
        if not isinstance(client, self._ordinary):
            name = type(client).__name__
            raise TypeError(f"client is a {name}; give a {self._ordinary_name}, or see zelect.{self._twin}")
        self._fence = Fence(resource, term)
        self.resource, self.term, self.token = resource, self._fence.term, self._fence.token
        # RESP 2: that is what a script's results are, whatever the connection speaks.
        options = {**client.connection_pool.connection_kwargs, "protocol": 2}
        for name in ("maint_notifications_config", "maint_notifications_pool_handler"):
            options.pop(name, None)
        kind = guarded(client.connection_pool.connection_class, self._guard_type)
        super().__init__(connection_pool=self._pool_type(connection_class=kind, **options))  # type: ignore[call-arg]

    def key(self, name: str) -> str:
        """`name` with the resource's tag, so that a Redis Cluster keeps it beside the token."""
        return f"{{{self.resource}}}:{name}"

    def execute_command(self, *words: Any, **options: Any) -> Any:
        """One command, fenced. Raises `FencedOut`, and what redis-py raises."""
        if plain(words[0]).upper() in ("EVAL", "EVAL_RO"):
            return self._send(self._fence.script(words[1], words[2], words[3:]), lambda raw: raw)
        return self._run_all([(words, options)], lambda results: _unless_failed(results)[0])

    def _run_all(
        self, commands: Sequence[tuple[tuple[Any, ...], dict[str, Any]]], then: Callable[[list[Any]], Any]
    ) -> Any:
        """Several commands in one script, all or none of them. `then` gets the results, in which failures
        of single commands are exceptions."""
        callbacks: Any = self.response_callbacks  # type: ignore[attr-defined]

        def converted(raw: Any) -> Any:
            pairs = zip(commands, raw, strict=True)
            return then([_converted(callbacks.get(words[0]), result, options) for (words, options), result in pairs])

        return self._send(self._fence.commands(commands) if commands else None, converted)

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Any:
        """Commands that are sent, and carried out, together: all of them, or none when fenced out."""
        return self._pipeline_type(self)

    def register_script(self, script: str | bytes) -> FencedScript:
        """`script`, fenced, to be called with keys and args. Raises ValueError for those of redis-py's own
        locks, which would keep it for the locks of every other client."""
        text = plain(script)
        if any(text == known for _, known in _lock_scripts(self._lock_type)):
            _refuse("redis.lock.Lock", "use lock of the fenced client")
        return FencedScript(self, text)

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
    ) -> Any:
        """redis-py's lock, each step of it fenced. Give it a timeout: a leadership that is over can't release
        it. `lock_class`: a subclass of what this returns, else ValueError."""
        if lock_class is not None and not issubclass(lock_class, self._lock_type):
            _refuse(lock_class.__name__, f"take {self._lock_type.__name__}")
        kind = lock_class or self._lock_type
        return kind(self, name, timeout, sleep, blocking, blocking_timeout, thread_local, raise_on_release_error)


class FencedScript:
    """A script of a fenced client, called like those of redis-py; awaited where the client is."""

    def __init__(self, client: FencedClient, text: str) -> None:
        self._client, self._text = client, text

    def __call__(self, keys: Iterable[Any] | None = None, args: Iterable[Any] | None = None, client: Any = None) -> Any:
        """`client`: another fenced client to call it on, under its resource and term."""
        on = self._client if client is None else client
        owner = on._client if isinstance(on, FencedCommands) else on
        if not isinstance(owner, FencedClient) or owner._ordinary is not self._client._ordinary:
            _refuse("a fenced script on another kind of client", "register it there")
        names = tuple(keys or ())
        call: Any = on
        return call.eval(self._text, len(names), *names, *(args or ()))


class FencedSteps:
    """What a fenced lock is besides one of redis-py."""

    def register_scripts(self) -> None:
        """Its own: redis-py keeps one set for all clients, whose scripts mustn't be mixed with these."""
        for name, text in _lock_scripts(self):
            setattr(self, name, FencedScript(self.redis, text))  # type: ignore[attr-defined]


class FencedCommands(_NoOwnConnection):
    """What a fenced pipeline is besides one of redis-py: it collects commands, and `execute` sends them as one
    script. Always atomic. It can't WATCH."""

    command_stack: list[Any]

    def __init__(self, client: Any) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, True, None)  # type: ignore[call-arg]
        self._client = client

    def execute_command(self, *words: Any, **options: Any) -> Any:
        """Add a command. Raises ValueError where it can't be one of several in a script."""
        name = plain(words[0]).upper()
        if name in _NOT_HERE or name in ("EVAL", "EVAL_RO"):
            raise ValueError(f"{name} can't be in a fenced pipeline: {_NOT_HERE.get(name, 'call eval by itself')}")
        return self.pipeline_execute_command(*words, **options)  # type: ignore[attr-defined]

    def immediate_execute_command(self, *words: Any, **options: Any) -> Any:
        """Raises ValueError: a pipeline is sent as a whole."""
        _refuse("a command sent at once", f"call it on the {type(self._client).__name__} itself")

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Any:
        """Another one of the same client."""
        return self._client.pipeline()

    def lock(self, *words: Any, **options: Any) -> Any:
        """Raises ValueError: taking a lock can't wait for the pipeline."""
        _refuse("a lock in a pipeline", "take it by lock of the fenced client")

    def multi(self) -> None:
        """Raises ValueError: the pipeline is atomic as it is."""
        _refuse("MULTI")

    def execute(self, raise_on_error: bool = True) -> Any:
        """The results in order. Raises `FencedOut`, and (`raise_on_error`) the first failure."""
        # redis-py's reset would give a connection back: this pipeline never has one.
        stack, self.command_stack = self.command_stack, []
        return self._client._run_all(list(stack), _unless_failed if raise_on_error else lambda results: results)


def _unless_failed(results: list[Any]) -> list[Any]:
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


def _converted(convert: Callable[..., Any] | None, result: Any, options: dict[str, Any]) -> Any:
    """A raw result as redis-py gives it for that command."""
    if isinstance(result, Exception) or convert is None:
        return result
    return convert(result, **{key: value for key, value in options.items() if key != "keys"})


def _refuse(name: str, why: str = "") -> NoReturn:
    """Raises ValueError: `name` can't be fenced."""
    raise ValueError(f"{name} can't be fenced: {why or _NOT_HERE[name]}")


def _lock_scripts(lock: Any) -> list[tuple[str, str]]:
    """Where a lock of redis-py looks for its scripts, and what they are."""
    return [(name, getattr(lock, f"{name.upper()}_SCRIPT")) for name in ("lua_release", "lua_extend", "lua_reacquire")]


def _wrapped(text: str) -> str:
    """The caller's script behind the fence; a first line such as "#!lua" stays the first."""
    first, newline, rest = text.partition("\n")
    return first + newline + _SCRIPT + rest if first.startswith("#!") else _SCRIPT + text
