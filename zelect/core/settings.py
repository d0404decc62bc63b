"""What the configuration tells the pure core."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from zelect.core.timing import Timing


@dataclass(frozen=True)
class Settings:
    """One node's configuration of the cluster. `addresses` maps the id of every configured member, its own
    included, to the address at which others reach it. `priority`: a higher one leads first (R8).
    `quorum` is "static" (all configured members are voters) or "dynamic" (R11). `guarded`: a job acts in
    this node's leadership, and the node reports `JobEnded` when it has ended."""

    cluster: str
    node: int
    addresses: Mapping[int, str]
    priority: int = 0
    quorum: str = "dynamic"
    guarded: bool = False
    timing: Timing = field(default_factory=Timing)

    @property
    def dynamic(self) -> bool:
        """Whether the voters follow the living members (R11)."""
        return self.quorum == "dynamic"

    @cached_property
    def members(self) -> tuple[int, ...]:
        """The configured members, ascending. Which of them are voters now, the voter record says (`Record.members`)."""
        return tuple(sorted(self.addresses))

    @cached_property
    def peers(self) -> tuple[int, ...]:
        """The configured members except this node, ascending."""
        return tuple(sorted(set(self.addresses) - {self.node}))

    def digest(self) -> int:
        """A 32-bit digest of what must be the same on all members for the election to be safe: the
        members with their addresses, the kind of quorum, and the durations that the lease and the
        promises rest on. Priorities and the rest may differ."""
        timing = self.timing
        shared = [
            self.cluster,
            self.quorum,
            str(timing.election_timeout_ms),
            str(timing.lease_ms),
            str(timing.drift_ppm),
            *(f"{node}={self.addresses[node]}" for node in self.members),
        ]
        return zlib.crc32("\n".join(shared).encode())
