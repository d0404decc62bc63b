"""The hosts of a new cluster, and the configuration that is the same on all of them."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from zelect.config.loading import ConfigError, load
from zelect.config.rendering import render_all
from zelect.config.validators import ADDRESS, MAX_PORT, is_loopback, quoted

PORT = 7101
_PORT = re.compile(r"(?P<host>.+):(?P<port>[0-9]{1,5})")


class HostsError(Exception):
    """The hosts can't be those of a cluster; the text names one and the fix."""


@dataclass(frozen=True, slots=True)
class Hosts:
    """`addresses`: of the nodes 1, 2, ... in this order, such as ``tcp://db1:7101``."""

    addresses: tuple[str, ...]

    @classmethod
    def of(cls, listed: str) -> Hosts:
        """From names or addresses with commas between them, each with a port or not. Raises `HostsError`."""
        addresses = tuple(_address(item.strip()) for item in listed.split(",") if item.strip())
        if not addresses:
            raise HostsError("no hosts: name them with commas between, as in a,b,c")
        if twice := next((one for one in addresses if addresses.count(one) > 1), ""):
            raise HostsError(f"{twice.removeprefix('tcp://')} is named twice; every node needs its own address")
        return cls(addresses)

    @property
    def local(self) -> bool:
        """Whether only this host can reach them."""
        return all(is_loopback(match["host"]) for match in map(ADDRESS.fullmatch, self.addresses) if match)

    @property
    def listen(self) -> str:
        """Where a node listens so that its address reaches it, whatever the host calls itself; "" for the address."""
        ports = {address.rpartition(":")[2] for address in self.addresses}
        return "" if self.local or len(ports) > 1 else f"tcp://*:{ports.pop()}"


def _address(item: str) -> str:
    """The address of one host."""
    bare = item if item.startswith("[") or item.count(":") < 2 else f"[{item}]"  # an address of IPv6
    match = _PORT.fullmatch(bare)
    host, port = (match["host"], int(match["port"])) if match else (bare, PORT)
    found = f"tcp://{host}:{port}"
    if not ADDRESS.fullmatch(found) or host == "*":
        raise HostsError(f"{quoted(item)} is no host; write a name or an address, with a port or not, as in db1:7101")
    if not 1 <= port <= MAX_PORT:
        raise HostsError(f"{item}: a node's port lies between 1 and {MAX_PORT}; higher ones are ephemeral")
    return found


@dataclass(frozen=True, slots=True)
class Plan:
    """What `zelect init` is to write. `redis_url` may be empty: no Redis."""

    cluster: str
    hosts: Hosts
    redis_url: str
    secure: bool

    @property
    def ids(self) -> Sequence[int]:
        return range(1, len(self.hosts.addresses) + 1)

    def configuration(self, data_dir: str) -> str:
        """The text of zelect.toml."""
        security: dict[str, object] = {"allow_plaintext": True}
        if self.secure:
            security = {
                "key_file": "keys/n{id}.key",
                "directory_file": "keys/public.toml",
                "operator_key_file": "keys/operator-admin.key",
                "secret_file": "keys/cluster.secret",
            }
        listen = {"listen": self.hosts.listen} if self.hosts.listen else {}
        peers = enumerate(self.hosts.addresses, 1)
        sections: list[tuple[str, Mapping[str, object]]] = [
            ("[cluster]", {"name": self.cluster}),
            ("[node]", {**listen, "data_dir": data_dir}),
            *(("[[peers]]", {"id": node, "address": address}) for node, address in peers),
            ("[redis]", {"url": self.redis_url}),
            ("[security]", security if self.secure or not self.hosts.local else {}),
        ]
        return _HEAD + render_all(sections)

    def first_hosts_in(self, text: str, data_dir: str) -> int:
        """For how many of these hosts, the first ones, `text` was written; 0: it was not."""
        shorter = {count: replace(self, hosts=Hosts(self.hosts.addresses[:count])) for count in self.ids}
        return next((count for count, plan in shorter.items() if text == plan.configuration(data_dir)), 0)


_HEAD = """\
# Written by 'zelect init'; the same on every host. A node's id comes from --id or ZELECT_NODE_ID, {id} in a path is
# that id. 'zelect config show' prints every key that counts; conf/reference.toml explains them.

"""


def check(text: str) -> None:
    """Raises `ConfigError` when no node could start with `text`."""
    with tempfile.TemporaryDirectory(prefix="zelect-") as place:
        path = Path(place) / "zelect.toml"
        path.write_text(text, encoding="utf-8")
        try:
            load(path, node_id=1, environ={})
        except ConfigError as error:
            raise ConfigError(str(error).replace(f"{path}: ", "")) from error
