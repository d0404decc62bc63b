"""The section [timing] of a configuration. Names, defaults and all checks are those of `zelect.core.timing.Timing`,
which knows nothing of files; here are the texts for people."""

from __future__ import annotations

from dataclasses import fields

from zelect.config.schema import Key
from zelect.config.validators import one_of
from zelect.core.timing import Proof, Timing

_TEXTS = {
    "heartbeat_ms": "The controller sends a PING this often. At most half of lease_ms: one may get lost.",
    "election_timeout_ms": "An answered PING binds its voter for this time. A lower value detects a frozen controller "
    "earlier; below about 450 ms a network that loses packets gives false alarms, as TCP waits 200 ms before it sends "
    "again.",
    "lease_ms": "A PING that a quorum answered keeps the controller active for this time. Must stay below "
    "election_timeout_ms with a margin of 5 per cent and the drift: leadership must end before the promises do.",
    "stagger_ms": "The second in the order of succession waits this time before it campaigns, the third twice as long. "
    "Longer than a round of votes, so that the first has finished by then; below election_timeout_ms.",
    "down_after_ms": "A member not heard for this time counts as gone. At least election_timeout_ms, as its promise "
    "still runs.",
    "drift_ppm": "How far a clock's rate may be off, in millionths. Crystals stay within 100; a virtual machine's "
    "clock, while it is being corrected, within 500 or so.",
    "proof": "What proves a controller dead before its lease has run out, besides its own restart, once all "
    'connections to and from it have closed. "refused": its lock is free, or its address refuses connections (only '
    'where no network does both to a living process). "process": only the free lock, where it was seen held. '
    '"none": neither.',
}

_CHECKS = {"proof": one_of(*Proof)}

TIMING_KEYS = tuple(
    Key(
        name=field.name,
        kind=str if field.name in _CHECKS else int,
        default=field.default if field.name not in _CHECKS else str(field.default),
        check=_CHECKS.get(field.name, lambda value: ""),
        text=_TEXTS[field.name],
        example="",
        is_path=False,
    )
    for field in fields(Timing)
)
