"""What a node checks in Redis besides its own records: permissions that its user lacks, an eviction
policy that could take its keys, and traces of another cluster of the same name.

Nothing here decides anything. The server is asked for the permissions of all commands and keys at once, so
that a missing permission to withdraw is reported at the start and not when it is needed. Servers before
Redis 7 can't be asked, and refuse when the command is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zelect.redis.registry_scripts import Keys, parse_node
from zelect.redis.scripts import GarbledReply, Script, texts_of
from zelect.redis.worker import Known, RedisSettings

MOST_ENTRIES = 1000
"""More entries in `nodes` are not looked at one by one."""

# ARGV: the keys controller, nodes, elections, witness, identity; channel, most entries. The keys are not given
# as KEYS: a user without permissions for one of them could not even ask.
_TEXT = """
local KEYS = {ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]}
local NAMES = {'controller', 'nodes', 'elections', 'witness', 'identity'}
local permissions = {}
local function may(...)
  if not redis.acl_check_cmd then return true end
  local known, allowed = pcall(redis.acl_check_cmd, ...)
  return not known or allowed
end
local function ask(command, keys, ...)
  for _, at in ipairs(keys) do
    local allowed = may(command, KEYS[at], ...) and 'yes' or 'no'
    permissions[#permissions + 1] = command .. ' ' .. NAMES[at] .. ' ' .. allowed
  end
end
ask('type', {1, 2, 3, 4})
ask('hmget', {1, 4}, 'f')
ask('hset', {1, 2, 4}, 'f', 'v')
ask('pexpire', {1}, '1')
ask('unlink', {1, 2, 4})
ask('hget', {2}, 'f')
ask('hdel', {2}, 'f')
ask('hlen', {2})
ask('hgetall', {2})
ask('xrevrange', {3}, '+', '-')
ask('xadd', {3}, '*', 'f', 'v')
ask('persist', {4})
-- Of the controller's key too, which has no need of it: a command that is missing is then told from a closed key.
ask('get', {1, 5})
ask('set', {1, 5}, 'v')
permissions[#permissions + 1] = 'publish changes ' .. (may('publish', ARGV[6], 'm') and 'yes' or 'no')
permissions[#permissions + 1] = 'info - ' .. (may('info', 'memory') and 'yes' or 'no')

local function try(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then return nil end
  return answer
end
local info = try('INFO', 'memory') or ''
local controller = try('HMGET', KEYS[1], 'id', 'address', 'incarnation') or {}
local many = try('HLEN', KEYS[2]) or 0
local entries = many <= tonumber(ARGV[7]) and try('HGETALL', KEYS[2]) or {}
local out = {table.concat(permissions, ','), string.match(info, '\\nmaxmemory:(%d+)') or '0',
             string.match(info, 'maxmemory_policy:([%w-]+)') or '', tostring(many),
             controller[1] or '', controller[2] or '', controller[3] or '', try('GET', KEYS[5]) or ''}
for i = 1, #entries do out[#out + 1] = entries[i] end
return out
"""

AUDIT = Script.of(_TEXT)


def audit_words(cluster: str) -> list[str]:
    """The arguments of `AUDIT` for the keys of `cluster`."""
    keys = Keys.of(cluster)
    words = [keys.controller, keys.nodes, keys.elections, keys.witness, keys.identity, keys.changes]
    return [*words, str(MOST_ENTRIES)]


_HEAD = 8
_LEFT_AFTER_MS = 60_000
"""An entry that its node has not refreshed for so long, on top of the record's life, is left from a node that ended:
the hosts' clocks don't differ by that."""
_WRITES = {"hset", "pexpire", "unlink", "hdel", "xadd", "persist", "set"}


@dataclass(frozen=True, slots=True)
class Own:
    """The process that checks: its cluster with its id (hexadecimal, empty in a new node), its own id, incarnation,
    Redis user, and the ids and addresses of the nodes that belong to its cluster, as far as it knows. `wrote`: this
    process has written its entry, which is still there unless another process replaced it. `left_before_ms`: an
    entry that was written before this Unix time is left from a node that ended."""

    cluster: str
    cluster_id: str
    node: int
    incarnation: int
    user: str
    members: Mapping[int, str]
    wrote: bool
    left_before_ms: int

    @classmethod
    def of(cls, settings: RedisSettings, user: str, known: Known, wrote: bool, now_ms: int) -> Own:
        """The process with these settings, which `known` says more of; `now_ms`: Unix time."""
        return cls(
            cluster=settings.cluster,
            cluster_id=f"{known.cluster_id:x}" if known.cluster_id else "",
            node=settings.node,
            incarnation=settings.incarnation,
            user=user,
            members=known.members,
            wrote=wrote,
            left_before_ms=now_ms - settings.ttl_ms - _LEFT_AFTER_MS,
        )


@dataclass(frozen=True, slots=True)
class Findings:
    """`permissions`: each command, the key that it is for, and whether it may be run there. `controller`: id,
    address and incarnation; `cluster_id`: that of the cluster whose controller wrote this. `entries`: the text of
    each node's entry by its id."""

    permissions: tuple[tuple[str, str, bool], ...]
    max_memory: int
    policy: str
    many: int
    controller: tuple[str, str, str]
    cluster_id: str
    entries: Mapping[str, str]

    def problems(self, own: Own, place: str) -> str:
        """What is wrong, for people, with the fixes; empty when nothing is wrong."""
        return "; ".join(filter(None, (self.other_cluster(own), self.missing(own), self._evicts(place))))

    def _evicts(self, place: str) -> str:
        if not self.max_memory or self.policy in ("", "noeviction"):
            return ""
        return (
            f"maxmemory-policy {self.policy} of {place} may evict this cluster's keys, and a lost record looks like "
            "a withdrawn controller: set it to noeviction"
        )

    def missing(self, own: Own) -> str:
        """The commands denied wherever they are needed, and the keys closed to commands that are
        allowed elsewhere; as little as explains all that is denied."""
        allowed = {command for command, _, may in self.permissions if may}
        denied = [(command, part) for command, part, may in self.permissions if not may]
        if not denied:
            return ""
        closed = {part for command, part in denied if command in allowed}
        open_parts = {part for _, part, may in self.permissions if may} - {"changes", "-"}
        if not open_parts or {command for command, part in denied if part not in ("changes", "-")} == _WRITES:
            closed = {"*"}
        commands = dict.fromkeys(c for c, part in denied if c not in allowed and not closed & {part, "*"})
        prefix = f"zelect:{{{own.cluster}}}:"
        fix = [f"+{command}" for command in commands] + [f"~{prefix}{part}" for part in sorted(closed)]
        if ("publish", "changes") in denied:
            fix += ["+publish", f"&{prefix}changes"] if "publish" not in commands else [f"&{prefix}changes"]
        return (
            f"the Redis user {own.user} lacks permissions that a node needs (docs/security.md): "
            f"ACL SETUSER {own.user} {' '.join(dict.fromkeys(fix))}"
        )

    def other_cluster(self, own: Own) -> str:
        """Traces of a process that is not a member of this cluster."""
        key = f"zelect:{{{own.cluster}}}:nodes"
        if self.many > MOST_ENTRIES:
            return (
                f"{key} has {self.many} entries: something else writes there; give each user of this Redis its own keys"
            )
        who, left = self._among_records(own), ""
        if not who:
            who, name = self._among_nodes(own)
            left = f", or remove what is left of it: HDEL {key} {name}" if name else ""
        if not who:
            return ""
        if not own.cluster_id:  # this node may be about to join that cluster
            return (
                f"there is a cluster named {own.cluster} in this Redis already: {who[:200]}, which is not in the "
                f"[[peers]] of this node: list its members to join it, or give each its own cluster.name{left}"
            )
        return (
            f"another cluster named {own.cluster} uses this Redis: {who[:200]}, which is not a member of this one; "
            f"give each its own cluster.name{left}"
        )

    def _among_records(self, own: Own) -> str:
        node, address, incarnation = self.controller
        if node and not _is_member(own, node, address, self.cluster_id):
            return f"the record names node {node} at {address}"
        # Incarnations grow: a later one can't be this node's own past.
        if node == str(own.node) and incarnation.isdecimal() and int(incarnation) > own.incarnation:
            return f"the record names another process that claims to be node {node}"
        return ""

    def _among_nodes(self, own: Own) -> tuple[str, str]:
        """The first that is not a member, and the entry that is left from earlier (empty: its node lives)."""
        for name, text in sorted(self.entries.items()):
            entry = parse_node(text)
            if entry is None or entry["status"] == "offline":
                continue
            address = str(entry.get("address"))
            if not _is_member(own, name, address, entry.get("cluster_id")):
                return f"there is a node {name} at {address}", "" if _lives(entry, own) else name
            if name == str(own.node) and own.wrote and entry.get("incarnation") != own.incarnation:
                return f"another process writes as node {name}", ""
        return "", ""


def parse_findings(value: object) -> Findings:
    """Check the script's raw answer. Raises `GarbledReply`."""
    texts = texts_of(value, _HEAD, more=True)
    permissions = [tuple(each.split(" ")) for each in texts[0].split(",")]
    if not all(len(each) == 3 for each in permissions) or not (texts[1].isdecimal() and texts[3].isdecimal()):
        raise GarbledReply("a script gave an answer of another form")
    rest = texts[_HEAD:]
    return Findings(
        permissions=tuple((command, part, may == "yes") for command, part, may in permissions),
        max_memory=int(texts[1]),
        policy=texts[2],
        many=int(texts[3]),
        controller=(texts[4], texts[5], texts[6]),
        cluster_id=texts[7],
        entries=dict(zip(rest[::2], rest[1::2], strict=False)),
    )


def _is_member(own: Own, node: str, address: str, cluster_id: object) -> bool:
    """Whether what `node` wrote is of this process's cluster: its id says so, even where this process has not heard yet
    who belongs to its cluster, or where; else the members that it knows."""
    if not own.members or (own.cluster_id and cluster_id == own.cluster_id):
        return True
    return node.isdecimal() and own.members.get(int(node)) == address


def _lives(entry: Mapping[str, Any], own: Own) -> bool:
    seen_ms = entry.get("seen_ms")
    return type(seen_ms) is int and seen_ms >= own.left_before_ms
