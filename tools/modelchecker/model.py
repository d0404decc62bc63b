"""What a world is made of: messages in flight, locals, bounds, and the seams where a mutant breaks a rule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from tools.modelchecker.canonical import frozen
from zelect.core.effects import Effects, Saved, WitnessIntent
from zelect.core.events import Event
from zelect.core.messages import Envelope
from zelect.core.quorum import RecordId
from zelect.core.settings import Settings
from zelect.core.state import State


@dataclass(frozen=True, slots=True)
class Mail:
    """A message on its way to a node, or lost, or on its way again."""

    to: int
    envelope: Envelope


@dataclass(frozen=True, slots=True)
class Ask:
    """A question to the witness by process `incarnation` of `node`; `turn` orders its foundings."""

    node: int
    incarnation: int
    intent: WitnessIntent
    turn: int


@dataclass(frozen=True, slots=True)
class Reply:
    """The witness's answer to one process."""

    to: int
    incarnation: int
    event: Event


InFlight = Mail | Ask | Reply


@dataclass(frozen=True, slots=True)
class Saving:
    """A save under way: `saved` will be on the disk then, and the messages in flight `sends` leave. `shown`: whether
    the node shows meanwhile that it is active."""

    saved: Saved
    sends: int
    shown: bool


class Copy(IntEnum):
    """Whether the disk of a process is an older copy, and whether a peer that knows it has told so (R16)."""

    NONE = 0
    UNNOTICED = 1
    TOLD = 2


@dataclass(frozen=True, slots=True)
class Local:
    """`state` is None while no process runs. `starts`: processes so far; `links[m]`: which process
    of node m this one is connected to (0: none); `creations`: witness memories it has asked for; `saving`: its save
    takes a while; `saves`: how often its disk was saved, where that is counted; `copy`: of what its disk is one."""

    node: int
    disk: Saved
    starts: int
    state: State | None = None
    links: tuple[int, ...] = ()
    creations: int = 0
    saving: Saving | None = None
    saves: int = 0
    copy: Copy = Copy.NONE

    @property
    def key(self) -> Any:
        more = (self.creations, self.saving, self.saves, self.copy)
        return (self.node, self.disk, self.starts, frozen(self.state), self.links, more)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one thing that happens leads to. `after`: the local; `sends`: messages in flight as a set of bits;
    `elected`: the term won, and the record that the winner held before; `facts`: in the words of
    the protocol; `seen`: names for the properties "sometimes"; `broken`: what must never be;
    `inside`: (local, messages in flight) where a crash between two effects leaves something else behind; `slowly`:
    the local while what it has to save is not saved yet (-1: there is nothing to save)."""

    after: int
    sends: int
    elected: tuple[int, RecordId] | None
    facts: str
    seen: frozenset[str]
    broken: str
    inside: tuple[tuple[int, int], ...]
    slowly: int = -1


@dataclass(frozen=True)
class Bounds:
    """How far the search goes; see `tools/modelcheck.py --help`."""

    terms: int = 2
    versions: int = 4
    creations: int = 1
    crashes: int = 1
    witness_losses: int = 1
    restarts: int = 1
    losses: int = 0
    leaves: int = 0
    skew: int = 0
    fronts: int = 0
    changes: int = 0
    slow: int = 0
    copies: int = 0
    hello: bool = False
    inside: bool = True
    late: bool = False
    unresponsive: bool = False
    recreate: bool = False
    beats: bool = True
    clock: bool = True
    candidates: tuple[int, ...] = ()
    victims: tuple[int, ...] = ()

    @property
    def nameless(self) -> bool:
        """Whether nothing that may happen depends on ids: of two members that are gone, forgot or
        come back at once, the lower goes first, but here there are no two."""
        several = self.losses or self.leaves or self.unresponsive or self.changes or self.slow or self.copies
        one_at_most = self.crashes <= 1 and not several
        return one_at_most and not self.candidates and not self.victims


class Seams:
    """What stands between the machine and the world. A mutant overrides one method."""

    def before(self, state: State, event: Event, settings: Settings) -> Event:
        """Called with the clone that is about to be stepped; may change both."""
        return event

    def after(self, state: State, effects: Effects) -> None:
        """Called with the state after a step."""

    def saved(self, disk: Saved, effects: Effects) -> Saved:
        """What the disk holds after a step that began with `disk`."""
        return disk if effects.save is None else effects.save

    def prefixes(self, effects: Effects) -> Iterable[tuple[bool, bool]]:
        """(saved, sent) where a crash in the middle of the effects is neither a crash before nor one
        after all of them. A part of the messages in flight sent is all of them sent and some lost."""
        return [(True, False)] if effects.save is not None and (effects.send or effects.witness) else []

    def bound(self) -> bool:
        """Whether the witness's scripts check its identity."""
        return True

    def waits(self) -> bool:
        """Whether a node does nothing else while it saves."""
        return True


class Budget(NamedTuple):
    """What may still happen: crashes, restarts, forgotten witnesses, lost disks, leave,
    units that one clock may fall behind, times that something refuses for a process that lives, changes of the members,
    saves that take a while, and restarts with an older copy of the disk."""

    crashes: int
    restarts: int
    witness_losses: int
    losses: int
    leaves: int
    skew: int
    fronts: int = 0
    changes: int = 0
    slow: int = 0
    copies: int = 0


class World(NamedTuple):
    """See the top of `universe`; `committed` is the newest record known to be committed."""

    at: tuple[int, ...]
    witness: int
    in_flight: int
    budget: Budget
    elected: tuple[int, ...]
    committed: RecordId


class Move(NamedTuple):
    """One thing that happens. `who`: the node (0: the witness, -1: everybody); `heard`: the message
    that arrives, by its number (-1: none)."""

    who: int
    words: str
    outcome: Outcome | None = None
    heard: int = -1
