"""Host names and their addresses, looked up off every thread that matters.

libzmq resolves a name in its one I/O thread, at each attempt to connect. While a name server is silent, that thread
stands still for half a minute, and with it all connections, also those that need no name. So libzmq is given
addresses only, and names are looked up here: each in a thread of its own that nothing waits for, at most one at a
time for a name, and the last answer is remembered. A name that is asked for again and again is looked up less and
less often, so that a dead member doesn't keep the name server busy.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from zelect.system.clock import now_us

AGAIN_AFTER_US = 500_000
"""A name is looked up again no sooner; each time the wait doubles, up to `AT_MOST_US`."""
AT_MOST_US = 8_000_000
UNASKED_US = 30_000_000
"""Who has not asked for a name for so long gets the first, short wait again."""
_TRY_AGAIN_US = 5_000
_TRY_LATER_US = 100_000


def is_numeric(host: str) -> bool:
    """Whether `host` is an address already (a scope such as %eth0 included)."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def unmapped(address: str) -> str:
    """`address`, as one of IPv4 where it is one that IPv6 wraps (::ffff:192.0.2.1): so a socket for both shows it."""
    tail = address.lower().removeprefix("::ffff:")
    return tail if "." in tail and ":" not in tail else address


def endpoint_of(address: str, port: int) -> str:
    """``tcp://address:port``, in brackets where `address` is one of IPv6."""
    return f"tcp://[{address}]:{port}" if ":" in address else f"tcp://{address}:{port}"


def _look_up(host: str) -> list[str]:
    """Its addresses, each once, those of IPv4 first, otherwise in the system's order; raises OSError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return sorted(dict.fromkeys(str(place[4][0]) for place in found), key=lambda address: ":" in address)


@dataclass(slots=True)
class _Name:
    """What is known of one name. `due_us`: not looked up before; `began_us`: when it was looked up last."""

    addresses: tuple[str, ...] = ()
    failed: bool = False
    busy: bool = False
    began_us: int = 0
    wanted_us: int = 0
    due_us: int = 0
    wait_us: int = 0


@dataclass(slots=True)
class Names:
    """Looks names up and remembers the last answers. Safe from any thread; no call waits. A name is looked up again
    after `again_after_us` at the soonest, and at last after `at_most_us`."""

    look_up: Callable[[str], list[str]] = _look_up
    again_after_us: int = AGAIN_AFTER_US
    at_most_us: int = AT_MOST_US
    clock: Callable[[], int] = now_us
    _names: dict[str, _Name] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def addresses(self, host: str) -> tuple[str, ...]:
        """The addresses that `host` was last known to have, itself where it is one; () as long as none is known. Has
        the name looked up (again) when it is time."""
        if is_numeric(host):
            return (host,)
        now = self.clock()
        with self._lock:
            name = self._names.setdefault(host, _Name())
            if not name.wait_us or now - name.wanted_us > UNASKED_US:
                name.wait_us = self.again_after_us
            name.wanted_us = now
            if not name.busy and now >= name.due_us:
                self._begin(host, name, now)
            return name.addresses

    def wait(self, host: str, within_s: float) -> tuple[str, ...]:
        """The addresses of `host`, waited for as long as none is known. Raises OSError when it has none, or none is
        known in time."""
        until_us = self.clock() + int(within_s * 1_000_000)
        while not (found := self.addresses(host)):
            if self.failed(host):
                raise OSError(f"{host}: the name has no address")
            if self.clock() >= until_us:
                raise TimeoutError(f"{host}: the name was not looked up in time")
            time.sleep(_TRY_AGAIN_US / 1_000_000)
        return found

    def failed(self, host: str) -> bool:
        """Whether the last answer was that `host` has no address."""
        with self._lock:
            name = self._names.get(host)
            return name is not None and name.failed and not name.addresses

    def try_again_us(self, host: str) -> int:
        """In how many microseconds an answer is worth looking for: soon after the question, later rarely."""
        with self._lock:
            name = self._names.get(host)
            fresh = name is not None and name.busy and self.clock() - name.began_us < 20 * _TRY_AGAIN_US
            return _TRY_AGAIN_US if fresh else _TRY_LATER_US

    def _begin(self, host: str, name: _Name, now: int) -> None:
        name.busy, name.began_us = True, now
        try:
            threading.Thread(target=self._run, args=(host, name), name=f"zelect-name-{host}", daemon=True).start()
        except RuntimeError:  # no thread is to be had: ask again later
            name.busy, name.due_us = False, now + name.wait_us

    def _run(self, host: str, name: _Name) -> None:
        found: list[str] = []
        # A label that is too long, or empty, is no name at all.
        with contextlib.suppress(OSError, UnicodeError):
            found = self.look_up(host)
        with self._lock:
            changed = bool(found) and tuple(found) != name.addresses
            name.failed = not found
            name.addresses = tuple(found) or name.addresses  # what was known once is better than nothing
            name.wait_us = self.again_after_us if changed else min(2 * name.wait_us, self.at_most_us)
            name.due_us = self.clock() + name.wait_us
            name.busy = False


NAMES = Names()
"""The names of this process: all nodes and clients in it share what they know."""
