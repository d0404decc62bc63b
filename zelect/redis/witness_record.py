"""The voter record as the witness keeps it in Redis (R12): JSON, with a MAC where the cluster has a secret.

    MAC ":" JSON          9f2c…e1:[117,0,4,9,[2,3],["k","run","repl"],[21,31],[[1,"tcp://…"],[2,"tcp://…"],[3,"tcp://…"]]]

Redis keeps the text and hands it to any node. It can't read the MAC's key, the cluster's secret
(`security.secret_file`), so with a secret it can lose a record or hand out an older one, which nobody takes, but can't
make one. A cluster with keys and without a secret takes none; one in plain text trusts Redis like a member.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass, field

from zelect.core.messages import MalformedMessage, check_record
from zelect.core.quorum import Record
from zelect.system.foreign import read_json
from zelect.wire import MAX_MESSAGE_BYTES, record_fields, record_of

MOST_CHARACTERS = 2 * MAX_MESSAGE_BYTES
"""A record that fits into a message is shorter than this in JSON."""


class RefusedRecord(Exception):
    """What Redis handed out as a voter record is none, or not one of this cluster's nodes; the text says why."""


@dataclass(frozen=True, slots=True)
class RecordTexts:
    """Writes and reads them for one cluster. `secret`: what its nodes share (empty: nothing); `trusting`: without a
    secret, whether a record is taken all the same."""

    cluster: str
    secret: bytes = field(default=b"", repr=False)
    trusting: bool = True

    def write(self, record: Record) -> str:
        body = json.dumps(record_fields(record), separators=(",", ":"))
        return f"{self._mac(body) if self.secret else ''}:{body}"

    def read(self, text: str) -> Record | None:
        """The record in `text`; None where there is none, or where none is taken. Raises `RefusedRecord`."""
        if not text or not (self.secret or self.trusting):
            return None
        if len(text) > MOST_CHARACTERS:
            raise RefusedRecord("is too long")
        mac, _, body = text.partition(":")
        if self.secret and not hmac.compare_digest(mac.encode(), self._mac(body).encode()):
            raise RefusedRecord("was not written with this node's security.secret_file")
        try:
            record = record_of(read_json(body))
            check_record(record)
        except (MalformedMessage, ValueError):
            raise RefusedRecord("is garbage") from None
        return record

    def _mac(self, body: str) -> str:
        said = f"zelect voter record\n{self.cluster}\n{body}"
        return hmac.new(self.secret, said.encode(), hashlib.sha256).hexdigest()
