"""The witness in Redis (R12): its one script, and what the answers mean.

The witness's memory is the hash `zelect:{NAME}:witness`. It has no expiry, holds nothing but text, and is
bound to the run of the server in which it was created: `key`, `run_id` and `replid` are its identity. The
script compares all three with what the server reports in the same run. So a server that was restarted,
flushed, restored or failed over, or that evicted the hash, is unrecognized. So is a server that got its
first replica, or has had none for an hour: it begins another history of replication. That is safe, and
the controller repairs it by creating a new memory as long as the nodes are a quorum.

No identity can show that an old copy of the hash was put back by hand in the same run of the server, or
that a machine was put back to a snapshot of its memory.

    vote    like a node's vote (R2, R10): one in each term, to one process; not to a candidate with an older record
    pre     whether `vote` would grant; changes nothing (R3). Refused as `promised` while the controller that was
            acknowledged last lives: it was so less than three quarters of its election timeout ago, by Redis' clock.
            Nothing is safer for it, but a candidate that is cut off from that controller alone would depose it.
            A candidate that knows all who are named to be harmless takes this refusal for a yes.
    ping    acknowledges the controller of a term, and its voter record (R5, R10)
    create  begins a new memory for an active controller, which has the vote of its term
    look    whether this server can be a witness, and whether it is the expected one

Each of `vote`, `ping` and `create` saves the asker's voter record, as a text that the script does not read
(`zelect.redis.witness_record`). It hands out what it has with a look, and with the refusals `stale_voters` and
`unrecognized`, whichever identity the asker expects: a record may be taken from anybody, only votes and
acknowledgements are bound to the identity.

A vote comes with the names of those whose lease may rest on this witness: whom it acknowledged last, and
everybody it voted for since, each with incarnation, term and election timeout. It can name two besides the asker, and
says "many" where there are more. An acknowledgement, which a winner asks for only after its own wait, leaves one.

A refusal changes nothing. A repetition of what was done changes nothing either and gets the same answer,
because a script whose answer was lost may have run. A script that runs late, when a frozen server thaws,
finds a newer term and is refused. One script serves all five, so that the looks, which are frequent,
keep it loaded for the vote, which is urgent.
"""

from __future__ import annotations

from dataclasses import dataclass

from zelect.core.events import NamedProcess
from zelect.core.messages import Refusal
from zelect.core.quorum import RecordId, Witness
from zelect.core.timing import LIVES_PERCENT, MAX_NODE_ID, MAX_TERM
from zelect.redis.scripts import GarbledReply, Script, number_in, texts_of

DONE = "done"
MOST_NAMES = 3
"""So many processes the memory can hold; the asker is left out, and of the others two are few."""
MAX_PROMISE_MS = 600_000
"""No election timeout is longer (`zelect.core.timing`)."""

# ARGV: 1 op, 2 key, 3 run_id, 4 replid; except for a look: 5 node, 6 incarnation, 7 term,
# 8 generation, 9 config_term, 10 version, 11 asked_us, 12 promise_ms, 13 record, 14 cluster_id
_TEXT = """
local memory, op, key = KEYS[1], ARGV[1], ARGV[2]
local MAX = 9007199254740991
local info = redis.call('INFO', 'server') .. '\\n' .. redis.call('INFO', 'replication')
-- Found as plain text first: a pattern alone would be tried at each of some thousand characters.
local function reported(name)
  local at = string.find(info, '\\n' .. name .. ':', 1, true)
  return at and string.match(info, '^:([%w_-]+)', at + 1 + #name) or ''
end
local run_id, replid = reported('run_id'), reported('master_replid')
local primary = reported('role') == 'master'
local clustered = reported('redis_mode') == 'cluster' or reported('server_mode') == 'cluster'
local named = run_id ~= '' and #run_id <= 128 and replid ~= '' and #replid <= 128
local fit = primary and named and not clustered

local function number(text)
  if type(text) ~= 'string' or #text > 16 or not string.match(text, '^%d+$') then return nil end
  local value = tonumber(text)
  if value > MAX then return nil end
  return value
end
local function text(value) return string.format('%.0f', value) end
local clock_us = number(reported('server_time_usec')) or 0  -- 0: an old server, which doesn't tell

local NUMBERS = {'term', 'voted_for', 'voted_incarnation', 'acked', 'acked_incarnation', 'acked_term',
                 'generation', 'config_term', 'version', 'created_term', 'created_us', 'many', 'cluster_id'}
local function node_id(value) return value >= 1 and value <= 65535 end
-- Processes, the oldest first: "node incarnation term promise_ms", joined by commas.
local MOST_NAMES = 3
local function names_in(list)
  if type(list) ~= 'string' or #list > 256 then return nil end
  local names = {}
  for each in string.gmatch(list, '[^,]+') do
    local a, b, c, d = string.match(each, '^(%d+) (%d+) (%d+) (%d+)$')
    local name = {node = number(a), incarnation = number(b), term = number(c), promise_ms = number(d)}
    if not (name.node and node_id(name.node) and name.incarnation and name.term and name.promise_ms) then return nil end
    names[#names + 1] = name
  end
  return #names >= 1 and #names <= MOST_NAMES and names or nil
end
local function listed(names)
  local parts = {}
  for i, name in ipairs(names) do
    local numbers = {text(name.node), text(name.incarnation), text(name.term), text(name.promise_ms)}
    parts[i] = table.concat(numbers, ' ')
  end
  return table.concat(parts, ',')
end
local is = redis.call('TYPE', memory).ok
local raw_key
-- What is remembered; nil unless each part of it can be what this script wrote in this run of the server.
local function remembered()
  if is ~= 'hash' then return nil end
  local f = redis.call('HMGET', memory, 'key', 'run_id', 'replid', 'names', unpack(NUMBERS))
  raw_key = f[1]
  if not fit or not f[1] or f[2] ~= run_id or f[3] ~= replid then return nil end
  local w = {key = f[1], names = names_in(f[4]), acked_us = number(redis.call('HMGET', memory, 'acked_us')[1]) or 0}
  for i, name in ipairs(NUMBERS) do
    w[name] = number(f[i + 4])
    if not w[name] then return nil end
  end
  if not w.names or w.many > 1 or w.term < 1 or not node_id(w.voted_for) or not node_id(w.acked)
     or w.acked_term > w.term or w.config_term > w.term or w.created_term > w.acked_term then return nil end
  return w
end
local w = remembered()
local same = w ~= nil and w.key == key and run_id == ARGV[3] and replid == ARGV[4]

local node, incarnation, term = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local generation, config_term, version = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local promise_ms = tonumber(ARGV[12])
local function asker(name) return name.node == node and name.incarnation == incarnation end

local HANDS_OUT = {unrecognized = true, stale_voters = true}
local function record()
  local kept = is == 'hash' and redis.call('HMGET', memory, 'record')[1]
  return kept and #kept <= 131072 and kept or ''
end
local function report(outcome, note)
  local now = outcome ~= 'unrecognized' and w or {term = 0, names = {}, many = 0}
  local others = {}
  for _, name in ipairs(now.names) do
    if not asker(name) then others[#others + 1] = name end
  end
  local many = (now.many == 1 or #others > 2) and '1' or '0'
  return {outcome, text(now.term), listed(others), many, run_id, replid, same and '1' or '0', note or '',
          (op == 'look' or HANDS_OUT[outcome]) and record() or ''}
end

if op == 'look' then
  if clustered then return report('ineligible', 'CLUSTER') end
  if not primary then return report('ineligible', 'READONLY') end
  if not named then return report('ineligible', 'NAMELESS') end
  if redis.acl_check_cmd and not redis.acl_check_cmd('HSET', memory, 'key', key) then
    return report('ineligible', 'NOPERM')
  end
  -- Changes nothing where there is no expiry, but is refused where writes are.
  local tried = redis.pcall('PERSIST', memory)
  if type(tried) == 'table' and tried.err then return report('ineligible', tried.err) end
  info = redis.call('INFO', 'memory')
  local most = tonumber(reported('maxmemory')) or 0
  local used = (tonumber(reported('used_memory')) or 0) - (tonumber(reported('mem_not_counted_for_evict')) or 0)
  local policy = reported('maxmemory_policy')
  if most > 0 and policy == 'noeviction' and used > most then return report('ineligible', 'OOM') end
  -- The other policies only take keys with an expiry.
  local evicts = most > 0 and string.match(policy, '^allkeys')
  return report('done', evicts and 'EVICTS ' .. policy or '')
end

local me = {node = node, incarnation = incarnation, term = term, promise_ms = promise_ms}
if op == 'create' then
  if not fit or (not w and raw_key == key) then return report('unrecognized') end
  if w and w.key == key then return report('done') end
  -- A delayed, older `create` must not replace what is in use. What another run of the server left
  -- behind is not in use; after a new generation of the same cluster the terms may be lower.
  local ahead = w and w.cluster_id == tonumber(ARGV[14]) and w.generation - generation or 0
  if w and (ahead > 0 or ahead == 0 and
            (w.term > term or w.created_term == term and w.created_us > tonumber(ARGV[11]))) then
    return report('old_term')
  end
  if is ~= 'hash' and is ~= 'none' then redis.call('UNLINK', memory) end
  redis.call('HSET', memory, 'key', key, 'run_id', run_id, 'replid', replid, 'term', ARGV[7],
             'voted_for', ARGV[5], 'voted_incarnation', ARGV[6],
             'acked', ARGV[5], 'acked_incarnation', ARGV[6], 'acked_term', ARGV[7],
             'generation', ARGV[8], 'config_term', ARGV[9], 'version', ARGV[10], 'record', ARGV[13],
             'names', listed({me}), 'many', '0', 'created_term', ARGV[7], 'created_us', ARGV[11],
             'cluster_id', ARGV[14], 'acked_us', '0')
  redis.call('PERSIST', memory)
  w = {term = term, names = {me}, many = 0}
  return report('done')
end

if not same then return report('unrecognized') end
if term < w.term or op == 'pre' and term == w.term then return report('old_term') end
local behind = generation - w.generation
if behind == 0 then behind = config_term - w.config_term end
if behind == 0 then behind = version - w.version end
if behind < 0 then return report('stale_voters') end

if op == 'ping' then
  local again = w.acked == node and w.acked_incarnation == incarnation
  if w.acked_term == term and not again then return report('voted') end  -- two in a term: S1 is broken
  if w.acked_term < term or behind > 0 then
    redis.call('HSET', memory, 'term', ARGV[7], 'acked', ARGV[5], 'acked_incarnation', ARGV[6], 'acked_term', ARGV[7],
               'generation', ARGV[8], 'config_term', ARGV[9], 'version', ARGV[10], 'record', ARGV[13],
               'names', listed({me}), 'many', '0',
               -- A vote once given in this term stays; without one, nobody else may have it now.
               'voted_for', w.term < term and ARGV[5] or text(w.voted_for),
               'voted_incarnation', w.term < term and ARGV[6] or text(w.voted_incarnation))
  end
  -- The one thing that every acknowledgement writes, and does without where writes are refused.
  if clock_us > 0 then redis.pcall('HSET', memory, 'acked_us', text(clock_us)) end
  w.term = term
  return report('done')
end

if term == w.term and (w.voted_for ~= node or w.voted_incarnation ~= incarnation) then return report('voted') end
if op == 'pre' and w.acked_us > 0 and (w.acked ~= node or w.acked_incarnation ~= incarnation) then
  local since_us, lives_us = clock_us - w.acked_us, w.names[1].promise_ms * 10 * LIVES_PERCENT
  if since_us >= 0 and since_us < lives_us then return report('promised') end
end
if op == 'vote' and (w.term < term or behind > 0) then
  local known
  for _, name in ipairs(w.names) do
    if asker(name) then known = name end
  end
  if known then
    known.term, known.promise_ms = term, promise_ms
  elseif #w.names < MOST_NAMES then
    w.names[#w.names + 1] = me
  else
    w.many = 1
  end
  w.term = term
  redis.call('HSET', memory, 'term', ARGV[7], 'voted_for', ARGV[5], 'voted_incarnation', ARGV[6],
             'generation', ARGV[8], 'config_term', ARGV[9], 'version', ARGV[10], 'record', ARGV[13],
             'names', listed(w.names), 'many', text(w.many))
end
return report('done')
"""

WITNESS_SCRIPT = Script.of(_TEXT.replace("LIVES_PERCENT", str(LIVES_PERCENT)))


def witness_key(cluster: str) -> str:
    """The memory's name in Redis."""
    return f"zelect:{{{cluster}}}:witness"


def words(
    op: str,
    identity: Witness | None,
    node: int = 0,
    incarnation: int = 0,
    term: int = 0,
    record_id: RecordId = (0, 0, 0),
    asked_us: int = 0,
    promise_ms: int = 0,
    record: str = "",
    cluster_id: int = 0,
) -> tuple[str | int, ...]:
    """The script's arguments. `asked_us`: orders what one controller creates, on its clock. `promise_ms`: the
    asker's election timeout; `record`: the text to keep."""
    who = identity if identity is not None else Witness("", "", "")
    asker = (node, incarnation, term, *record_id, asked_us, promise_ms, record, cluster_id)
    return (op, who.key, who.run_id, who.replid, *asker)


@dataclass(frozen=True, slots=True)
class WitnessReply:
    """The script's answer. `refusal` is None when it was done; `ineligible` for a look that found a
    server which can't be a witness. `term`, `named` and `many` are the memory's (nothing where it is unrecognized).
    `run_id`, `replid` and `same` are the server's; `note`: what a look found wrong. `record`: the text of a voter
    record that is handed out, not judged yet."""

    refusal: Refusal | None
    ineligible: bool
    term: int
    named: tuple[NamedProcess, ...]
    many: bool
    run_id: str
    replid: str
    same: bool
    note: str
    record: str


def parse_witness_reply(value: object) -> WitnessReply:
    """Check the script's raw answer. Raises `GarbledReply`."""
    texts = texts_of(value, 9)
    outcome = texts[0]
    if outcome not in (DONE, "ineligible") and outcome not in set(Refusal):
        raise GarbledReply("the script gave an unknown outcome")
    return WitnessReply(
        refusal=None if outcome in (DONE, "ineligible") else Refusal(outcome),
        ineligible=outcome == "ineligible",
        term=number_in(texts[1], MAX_TERM),
        named=tuple(_process_in(each) for each in texts[2].split(",", MOST_NAMES)) if texts[2] else (),
        many=texts[3] == "1",
        run_id=texts[4],
        replid=texts[5],
        same=texts[6] == "1",
        note=texts[7],
        record=texts[8],
    )


def _process_in(text: str) -> NamedProcess:
    parts = text.split(" ", 4)
    if len(parts) != 4:
        raise GarbledReply("the script named no process")
    node, incarnation, term, promise_ms = map(number_in, parts, (MAX_NODE_ID, MAX_TERM, MAX_TERM, MAX_PROMISE_MS))
    return NamedProcess(node, incarnation, term, promise_ms)
