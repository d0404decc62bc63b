"""The sections [cluster], [node] and [[peers]] of a configuration: who the members are, and which one this is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zelect.config.schema import key
from zelect.config.validators import address, between, cluster_name, one_of, path
from zelect.core.timing import MAX_NODE_ID


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    name: str = key(check=cluster_name, example='"demo"')("""
        Required. 1 to 64 of A-Z a-z 0-9 _ . - and equal on all members; messages of another cluster are
        refused.""")
    quorum: str = key("dynamic", one_of("dynamic", "static"))("""
        Who votes. "dynamic": the members that are alive, and the witness in Redis where it makes their
        number odd, so that members may fail one after the other down to the last. "static": always all
        nodes that belong to the cluster. The same on all members.""")


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """This node. `data_dir` is absolute."""

    id: int = key(check=between(1, MAX_NODE_ID), example="1")("""
        Required. 1 to 65535, one of the ids below. --id and ZELECT_NODE_ID win over it. "from-hostname": the
        number at the end of the host's name; "from-hostname+1": one more, where hosts are counted from 0.""")
    listen: str = key(None, address(wildcard=True), example='"tcp://127.0.0.1:7101"')("""
        Where this node listens. Default: the address of its own entry below, which is where the others
        connect to. The host may be * or [::] (every interface, IPv4 and IPv6) or 0.0.0.0 (IPv4) here, and only
        here.""")
    data_dir: Path = key(None, path, example='"data/n1"', is_path=True)("""
        Durable state and the lock, its own directory; relative to this file. Default: what its
        own entry below says, else "data/n" and the id. Local disk: each vote waits for its sync.""")
    priority: int = key(0, between(0, 1000))("""
        0 to 1000. Among the members that answer, the one with the highest priority succeeds first, then the
        one with the lowest id. A node that returns never takes over from a working controller.""")


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """A member, this node included. `data_dir`: absolute, for a member on this host only."""

    id: int = key(check=between(1, MAX_NODE_ID), example="1")("Required. 1 to 65535.")
    address: str = key(check=address(wildcard=False), example='"tcp://127.0.0.1:7101"')("""
        Required. "tcp://host:port", an IPv6 address in brackets, port 1 to 32767: higher ports are
        ephemeral, and a peer that retries a dead one can connect to itself and then block it.""")
    data_dir: Path | None = key(None, path, example='"data/n1"', is_path=True)("""
        Only for a member on this host. The kernel frees the lock in it when the process dies, which proves
        the death at once.""")


def check_members(problems: list[str], node: dict[str, Any], peers: list[dict[str, Any]], base: Path) -> None:
    """Compare the members with each other, and fill in what this node's own entry decides. `base`: the directory
    that paths are relative to."""
    own = [peer for peer in peers if peer["id"] == node["id"]]
    if node["id"] and not own:
        problems.append(f"node.id: {node['id']} has no [[peers]] entry; list every member there, this node included")
    elif node["id"] and len(own) > 1:
        problems.append(f"node.id: {node['id']}, this node's own, has {len(own)} [[peers]] entries; keep one")
    elif node["id"]:
        given, listed = node["data_dir"], own[0]["data_dir"]
        if given and listed and given != listed:
            problems.append(f"node.data_dir: is {given}, but this node's [[peers]] entry says {listed}; keep one")
        node["listen"] = node["listen"] or own[0]["address"]
        node["data_dir"] = own[0]["data_dir"] = given or listed or str(base / "data" / f"n{node['id']}")
    for name in ("id", "address", "data_dir"):
        values = [str(peer[name] or "").lower() if name != "data_dir" else str(peer[name] or "") for peer in peers]
        for value in sorted(set(values) - {"", str(node["id"]) if name == "id" else ""}):
            places = [f"peers[{at}]" for at, other in enumerate(values, 1) if other == value]
            if len(places) > 1:
                problems.append(f"peers.{name}: {value} is in {', '.join(places)}; every member needs its own")
