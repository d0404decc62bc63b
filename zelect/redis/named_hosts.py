"""A Redis that is configured by name: the name is looked up as those of nodes are.

redis-py looks it up in the thread that asks, which no time limit ends: with a silent name server that takes half a
minute. Here the answer is waited for as long as a connection may take, and the last one that is known is used
meanwhile.
"""

from __future__ import annotations

import functools
from typing import Any

from zelect.system.names import NAMES, is_numeric


class NamedHost:
    """What a connection whose host may be a name is besides one of redis-py. Certificates are checked against the
    name."""

    def _connect(self) -> Any:
        name, problem = getattr(self, "host", ""), OSError("no address")
        if not name or is_numeric(name):
            return super()._connect()  # type: ignore[misc]
        for address in NAMES.wait(name, getattr(self, "socket_connect_timeout", None) or 0.0):
            self._name, self.host = name, address
            try:
                return super()._connect()  # type: ignore[misc]
            except OSError as error:
                problem = error
            finally:
                self.host = name
        raise problem

    def _wrap_socket_with_ssl(self, connected: Any) -> Any:
        self.host = getattr(self, "_name", self.host)
        return super()._wrap_socket_with_ssl(connected)  # type: ignore[misc]


@functools.cache
def named(kind: Any) -> Any:
    """The class of connections `kind`, for a host that may be a name."""
    return type(kind.__name__, (NamedHost, kind), {})
