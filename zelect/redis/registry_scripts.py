"""The registry in Redis (R13): its keys, the scripts that write it, and what their answers mean.

Each write is one Lua script, so it is atomic, and each is idempotent for (node, incarnation, term),
because a script whose answer got lost may have run. A newer term overwrites an older one and never
the reverse; the last entry of the elections stream is the floor where the record has expired.

All scripts take the same three keys (and the one that publishes a fourth, for the cluster's id), which share a slot of
a Redis Cluster by their tag, and give the same answer: outcome, the controller's record after the script (id, term),
the last election (id, term), and what is wrong with each key. What does not have the form of a record counts as
absent. Terms travel as text: Redis truncates Lua's numbers, which are doubles and exact below 2^53 only.

A cluster does not overwrite the record of another one of its name while that lives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from zelect.core.timing import MAX_NODE_ID, MAX_TERM
from zelect.redis.scripts import Script, number_in, texts_of
from zelect.system.foreign import BadJson, read_object

_PRELUDE = """
local controller, nodes, elections = KEYS[1], KEYS[2], KEYS[3]
local wrong = {controller = '', nodes = '', elections = ''}
local MAX = 9007199254740991
local function kind(key) return redis.call('TYPE', key).ok end

local function number(text, least, most)
  if type(text) ~= 'string' or #text > 16 or not string.match(text, '^%d+$') then return nil end
  local value = tonumber(text)
  if value < least or value > most then return nil end
  return value
end

local function standing()
  local is = kind(controller)
  if is == 'none' then return nil end
  if is ~= 'hash' then wrong.controller = 'is a ' .. is return nil end
  local f = redis.call('HMGET', controller, 'id', 'term', 'incarnation', 'since_ms', 'address')
  local id, term, incarnation = number(f[1], 1, 65535), number(f[2], 1, MAX), number(f[3], 0, MAX)
  if not (id and term and incarnation and number(f[4], 0, MAX) and f[5] and #f[5] <= 256) then
    wrong.controller = 'holds garbage'
    return nil
  end
  return {id = id, term = term, incarnation = incarnation}
end

local function last_election()
  local is = kind(elections)
  if is == 'none' then return nil end
  if is ~= 'stream' then wrong.elections = 'is a ' .. is return nil end
  local entry = redis.call('XREVRANGE', elections, '+', '-', 'COUNT', 1)[1]
  if not entry then return nil end
  local f = {}
  for i = 1, #entry[2], 2 do f[entry[2][i]] = entry[2][i + 1] end
  local id, term = number(f.id, 1, 65535), number(f.term, 1, MAX)
  if not (id and term) then wrong.elections = 'ends in garbage' return nil end
  return {id = id, term = term}
end

local function text(value) return string.format('%.0f', value) end
local function report(outcome, now, last, more)
  local none = {id = 0, term = 0}
  now, last = now or none, last or none
  return {outcome, text(now.id), text(now.term), text(last.id), text(last.term),
          wrong.controller, wrong.nodes, wrong.elections, more or ''}
end

local is = kind(nodes)
if is ~= 'none' and is ~= 'hash' then wrong.nodes = 'is a ' .. is end
local now, last = standing(), last_election()
"""

_READ_CONTROLLER = "return report('done', now, last)"

# ARGV: channel, id, term, incarnation, address, since_ms, ttl_ms, message, previous, reason, gap_ms, votes,
# trace, cluster id in hexadecimal
_PUBLISH_CONTROLLER = """
local me = {id = tonumber(ARGV[2]), term = tonumber(ARGV[3]), incarnation = tonumber(ARGV[4])}
-- A user that lacks these two permissions publishes all the same, and is told of them elsewhere.
local identity, cluster_id = KEYS[4], ARGV[14]
local other = redis.pcall('GET', identity)
if type(other) ~= 'string' or #other > 16 or not string.match(other, '^%x+$') then other = '' end
local mine = now and now.id == me.id and now.incarnation == me.incarnation
if now and not mine and other ~= '' and other ~= cluster_id then
  return report('other_cluster', now, last, other)
end
if now and (now.term > me.term or
            now.term == me.term and (now.id ~= me.id or now.incarnation ~= me.incarnation)) then
  return report('superseded', now, last)
end
if last and (last.term > me.term or last.term == me.term and last.id ~= me.id) then
  return report('superseded', now, last)
end
local stands = now and now.term == me.term
local known = last and last.term == me.term
if not stands then redis.call('UNLINK', controller) end
if other ~= cluster_id then redis.pcall('SET', identity, cluster_id) end
redis.call('HSET', controller, 'id', ARGV[2], 'term', ARGV[3], 'address', ARGV[5],
           'since_ms', ARGV[6], 'incarnation', ARGV[4])
redis.call('PEXPIRE', controller, ARGV[7])
local more = ''
if not known and (wrong.elections == '' or wrong.elections == 'ends in garbage') then
  local added = redis.pcall('XADD', elections, 'MAXLEN', '~', 1000, '*', 'id', ARGV[2], 'term', ARGV[3],
                            'previous', ARGV[9], 'reason', ARGV[10], 'gap_ms', ARGV[11], 'votes', ARGV[12],
                            'trace', ARGV[13], 'since_ms', ARGV[6])
  if type(added) == 'table' and added.err then more = added.err else last = me end
end
if not (stands and known) then
  local heard = redis.pcall('PUBLISH', ARGV[1], ARGV[8])
  if type(heard) == 'table' and heard.err then more = heard.err end
end
return report('done', me, last, more)
"""

# A node that stopped being active in a term is not active in any earlier term either.
# ARGV: channel, id, term, incarnation, message
_WITHDRAW_CONTROLLER = """
if now and now.id == tonumber(ARGV[2]) and now.incarnation == tonumber(ARGV[4])
   and now.term <= tonumber(ARGV[3]) then
  redis.call('UNLINK', controller)
  redis.pcall('PUBLISH', ARGV[1], ARGV[5])
  now = nil
end
return report('done', now, last)
"""

# ARGV: id, entry
_PUBLISH_NODE = """
if wrong.nodes == '' then redis.call('HSET', nodes, ARGV[1], ARGV[2]) end
return report('done', now, last)
"""

# Reads an entry, or changes it when it is still what was read. The new text comes from outside,
# because cjson writes numbers with 14 digits and would change a large term.
# ARGV: id, what was read ('' only reads), what to write
_REPLACE_NODE = """
if wrong.nodes ~= '' then return report('read', now, last) end
local entry = redis.call('HGET', nodes, ARGV[1]) or ''
if ARGV[2] ~= '' and entry == ARGV[2] then
  redis.call('HSET', nodes, ARGV[1], ARGV[3])
  return report('done', now, last)
end
return report('read', now, last, entry)
"""

# ARGV: channel, id, incarnation, last ('1' or '0')
_REMOVE_NODE = """
local id, incarnation = tonumber(ARGV[2]), tonumber(ARGV[3])
local function withdraw()
  local term = now and text(now.term) or 'null'
  redis.call('UNLINK', controller)
  redis.pcall('PUBLISH', ARGV[1], '{"id":null,"term":' .. term .. ',"reason":"leave"}')
  now = nil
end
local function living(entry)
  local good, value = pcall(cjson.decode, entry)
  return good and type(value) == 'table' and type(value.status) == 'string' and value.status ~= 'offline'
end
-- An unreadable list of nodes does not prove that all are gone.
local others, owner_lives = wrong.nodes ~= '', now and now.id == id and now.incarnation > incarnation
if wrong.nodes == '' then
  redis.call('HDEL', nodes, ARGV[2])
  local all = redis.call('HGETALL', nodes)
  for i = 1, #all, 2 do
    local node = number(all[i], 1, 65535)
    if node and living(all[i + 1]) then
      others = true
      if now and node == now.id then owner_lives = true end
    end
  end
end
if now and now.id == id and now.incarnation == incarnation then withdraw() end
if ARGV[4] == '1' or not others then
  if now and not owner_lives then withdraw() end
  if wrong.controller ~= '' then redis.call('UNLINK', controller) end
  if wrong.nodes == '' then redis.call('UNLINK', nodes) end
end
return report('done', now, last)
"""


READ_CONTROLLER = Script.of(_PRELUDE + _READ_CONTROLLER)
PUBLISH_CONTROLLER = Script.of(_PRELUDE + _PUBLISH_CONTROLLER)
WITHDRAW_CONTROLLER = Script.of(_PRELUDE + _WITHDRAW_CONTROLLER)
PUBLISH_NODE = Script.of(_PRELUDE + _PUBLISH_NODE)
REPLACE_NODE = Script.of(_PRELUDE + _REPLACE_NODE)
REMOVE_NODE = Script.of(_PRELUDE + _REMOVE_NODE)

_PARTS = ("controller", "nodes", "elections", "changes", "witness", "identity")


@dataclass(frozen=True, slots=True)
class Keys:
    """The names in Redis of one cluster's registry."""

    controller: str
    nodes: str
    elections: str
    changes: str
    witness: str
    identity: str

    @classmethod
    def of(cls, cluster: str) -> Keys:
        return cls(*(f"zelect:{{{cluster}}}:{part}" for part in _PARTS))


@dataclass(frozen=True, slots=True)
class RegistryReply:
    """A script's answer. `id`, `term`: the controller's record after the script (0, 0: none). `last_id`,
    `last_term`: the last election. `garbage`: what is wrong with each key, for people. `more`: depends on
    the script."""

    outcome: str
    id: int
    term: int
    last_id: int
    last_term: int
    garbage: tuple[str, ...]
    more: str


def parse_reply(value: object) -> RegistryReply:
    """Check a script's raw answer. Raises `GarbledReply`."""
    texts = texts_of(value, 9)
    node, term = number_in(texts[1], MAX_NODE_ID), number_in(texts[2], MAX_TERM)
    last_node, last_term = number_in(texts[3], MAX_NODE_ID), number_in(texts[4], MAX_TERM)
    garbage = tuple(
        f"{key} {wrong}" for key, wrong in zip(("controller", "nodes", "elections"), texts[5:8], strict=True) if wrong
    )
    return RegistryReply(texts[0], node, term, last_node, last_term, garbage, texts[8])


def parse_node(text: str) -> dict[str, Any] | None:
    """A node's entry, or None where it is garbage."""
    try:
        value = read_object(text)
    except BadJson:
        return None
    if not isinstance(value.get("status"), str):
        return None
    term = value.get("term")
    return value if type(term) is int and 0 <= term <= MAX_TERM else None
