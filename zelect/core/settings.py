"""What the configuration tells the pure core."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from zelect.core.timing import Timing


@dataclass(frozen=True)
class Settings:
    """One node's configuration of the cluster. `addresses` maps the id of every configured member, its own
    included, to the address at which others reach it; it counts as long as the node is new, then its voter
    record does (R10, R15). `priority`: nodes with a higher one come first in the succession (R8).
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

    @property
    def address(self) -> str:
        """Where others reach this node, by its own configuration."""
        return self.addresses[self.node]

    def shared(self) -> dict[str, str]:
        """What must be the same on all members for the election to be safe, by its key: the kind of quorum and the
        durations that the lease and the promises rest on."""
        timing = self.timing
        return {
            "quorum": self.quorum,
            "election_timeout_ms": str(timing.election_timeout_ms),
            "lease_ms": str(timing.lease_ms),
            "drift_ppm": str(timing.drift_ppm),
        }

    def digest(self) -> int:
        """A 32-bit digest of `shared` and the cluster's name."""
        return zlib.crc32("\n".join([self.cluster, *self.shared().values()]).encode())
