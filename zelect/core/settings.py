"""What the configuration tells the pure core."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from zelect.core.timing import Timing

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """One node's view of the cluster. `addresses` maps every member's id, its own included, to
    the address that others reach it at. `priority`: higher leads first (R8). `quorum` is
    "static" (the members votes) or "dynamic". `guarded`: a job acts in this node's leadership, and the
    shell says `JobEnded` when it has ended."""

    cluster: str
    node: int
    addresses: Mapping[int, str]
    priority: int = 0
    quorum: str = "dynamic"
    guarded: bool = False
    timing: Timing = field(default_factory=Timing)

    @property
    def dynamic(self) -> bool:
        """Whether the voters follows the living (R11)."""
        return self.quorum == "dynamic"

    @cached_property
    def members(self) -> tuple[int, ...]:
        """All members in the configuration, ascending."""
        return tuple(sorted(self.addresses))

    @cached_property
    def peers(self) -> tuple[int, ...]:
        """All members but this node, ascending."""
        return tuple(sorted(set(self.addresses) - {self.node}))

    def digest(self) -> int:
        """A 32-bit digest of what must be equal on all members for the election to be safe: the
        members with its addresses, the kind of quorum, and the durations that the lease and the
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
