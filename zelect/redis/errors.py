"""What went wrong between a node and Redis, in words for people: with the fix, without secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from zelect.redis.bounded_replies import ReplyTooLong
from zelect.redis.credentials import CredentialsError
from zelect.redis.scripts import GarbledReply
from zelect.system.foreign import shown


def safe_url(url: str) -> str:
    """`url` without its secrets, for logs and people. Everything before the last "@" goes,
    because a password with an unescaped "/" or "#" would otherwise look like a path."""
    scheme, mark, rest = url.rpartition("://")
    if "@" in rest:
        rest = "***@" + rest.rpartition("@")[2]
    return scheme + mark + re.sub(r"([?&](?!db=)[^=&]*=)[^&]*", r"\1***", rest)


class UnusableUrl(Exception):
    """redis-py can't use `redis.url`; the text says so without its secrets."""


@dataclass(frozen=True, slots=True)
class RedisFailure:
    """Why nothing was written. `lost`: the next write would fail too."""

    problem: str
    lost: bool


_LACKS = "the user lacks permissions"
_CODES = {
    "WRONGPASS": "wrong password: correct redis.username and redis.password_file, or redis.url",
    "NOAUTH": "a password is needed: set redis.password_file, or redis.password_env",
    "NOPERM": f"{_LACKS}: grant those listed for a node in docs/security.md",
    "READONLY": "the server is a read-only replica: point redis.url at the primary",
    "LOADING": "the server is loading its data: wait until it has finished",
    "OOM": "the server's memory is full: raise maxmemory or remove data",
    "MISCONF": "the server refuses writes as it cannot save to disk: fix its disk, or its save settings",
    "NOREPLICAS": "the server refuses writes without enough replicas: start replicas, or change min-replicas-to-write",
    "BUSY": "the server is busy with a script: SCRIPT KILL ends it",
    "CLUSTERDOWN": "the Redis Cluster is down: look at CLUSTER INFO",
    "MOVED": "another node of the Redis Cluster holds the keys: point redis.url at that node",
    "ASK": "the keys are moving within the Redis Cluster: wait until that has finished",
    "TRYAGAIN": "the keys are moving within the Redis Cluster: wait until that has finished",
    "NOSCRIPT": "the server lost a script that was just loaded: it is flushed repeatedly, or a proxy "
    "distributes the commands",
}
_PATTERNS = (
    # What a server says instead of its code: redis-py cuts some codes off, old servers lack them.
    (re.compile(r"invalid (username-)?password|AUTH <password> called|AUTH, but no password", re.I), "WRONGPASS"),
    (re.compile(r"Authentication required|unauthenticated", re.I), "NOAUTH"),
    (re.compile(r"ACL failure|can't run this command|has no permissions", re.I), "NOPERM"),
    *((re.compile(rf"(?<![\w']){code}\b"), code) for code in _CODES),
)


def explain(error: Exception, url: str, timeout_ms: int) -> RedisFailure:
    """What `error` of redis-py means, with its fix and without secrets."""
    import redis.exceptions as kinds  # here only: it pulls in asyncio

    place = safe_url(url)
    if isinstance(error, CredentialsError | UnusableUrl):
        return RedisFailure(str(error), True)
    code = getattr(error, "status_code", None)
    if code not in _CODES:
        code = next((code for pattern, code in _PATTERNS if pattern.search(str(error))), None)
    if code is not None:
        text = _CODES[code].replace(_LACKS, _LACKS + _lacking(str(error)))
        lost = code not in ("NOPERM", "OOM", "READONLY", "MISCONF")
        return RedisFailure(f"{code}: {text} ({place})", lost)
    if isinstance(error, kinds.TimeoutError):
        what = "hung, overloaded or without TLS" if place.startswith("rediss://") else "hung or overloaded"
        return RedisFailure(f"timeout: {place} gave no answer within {timeout_ms} ms; is it {what}?", True)
    if isinstance(error.__context__, ConnectionRefusedError):
        return RedisFailure(
            f"connection refused: nothing listens at {place}; start the server or correct redis.url", True
        )
    tls = _tls(error, place)
    if tls:
        return RedisFailure(tls, True)
    text = _scrub(str(error), url)
    if isinstance(error, kinds.ConnectionError):
        return RedisFailure(f"no connection to {place}: {text}", True)
    if isinstance(error, ReplyTooLong):
        return RedisFailure(f"garbage: {place} gives answers without an end; correct redis.url", True)
    if isinstance(error, kinds.InvalidResponse | GarbledReply):
        return RedisFailure(f"garbage: {place} does not answer like Redis; correct redis.url", True)
    return RedisFailure(f"{type(error).__name__} from {place}: {text}", not isinstance(error, kinds.ResponseError))


def _lacking(text: str) -> str:
    """What the server says is not allowed, such as " to run the 'xadd' command"."""
    found = re.search(r"no permissions to (run the '[\w|]{1,40}' command|access (?:a|one of the) \w+)", text, re.I)
    return f" to {found[1]}" if found else ""


def _tls(error: BaseException, place: str) -> str:
    """What a failed TLS handshake means; empty when `error` is none."""
    failed: BaseException | None = error
    while failed is not None and not type(failed).__name__.startswith("SSL"):
        failed = failed.__cause__ or failed.__context__
    if failed is None:
        return ""
    untrusted, reason = getattr(failed, "verify_message", ""), str(getattr(failed, "reason", "") or "")
    if "ostname mismatch" in untrusted or "IP address mismatch" in untrusted:
        name = urlsplit(place).hostname
        return f"TLS: the certificate at {place} is not for {name}: name the host in redis.url as its certificate does"
    if untrusted:
        return (
            f"TLS: the certificate at {place} is not trusted ({untrusted}): "
            "set redis.ca_file to the authority that issued it"
        )
    if reason == "WRONG_VERSION_NUMBER":
        return f"TLS: {place} does not speak TLS: point redis.url at the TLS port, or write redis://"
    what = reason.lower().replace("_", " ") or "the connection ended"
    return (
        f"TLS: {place} refused the handshake ({what}): "
        "does it require a client certificate? Set redis.cert_file and redis.key_file"
    )


def _scrub(text: str, url: str) -> str:
    # Old servers repeat the arguments of a command that they don't know, such as AUTH.
    text = text.partition(", with args")[0]
    before = url.rpartition("://")[2].rpartition("@")[0]
    for secret in {before, *re.findall(r"[?&](?!db=)[^=&]*=([^&]*)", url), *before.split(":", 1)}:
        for form in {secret, unquote(secret)} - {""}:
            text = text.replace(form, "***")
    return shown(text, 200)
