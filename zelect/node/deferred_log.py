"""What happened, kept until there is time to log it."""

from __future__ import annotations

from collections.abc import Sequence

from zelect.core.effects import Fact
from zelect.system.clock import now_us, unix_ms
from zelect.system.log import Log

__all__ = ["DeferredLog"]

_MOST = 500
_QUIET = frozenset({"vote_answered", "stale_answer_ignored", "stale_pong_ignored", "foreign_answer_ignored"})
_LOUD = frozenset({"conflicting_controller_seen", "error_received", "address_mismatched", "peer_lost_state"})


class DeferredLog:
    """Keeps facts in their order: in the middle of an election a line costs more than a vote."""

    def __init__(self, log: Log, node: int) -> None:
        self._log, self._node = log, node
        self._untold: list[tuple[int, Fact]] = []

    def keep(self, facts: Sequence[Fact], at_us: int) -> None:
        """Have `facts`, of the step at `at_us` (`now_us`), logged at the next `tell`. What came of that step,
        here and elsewhere, must not seem to be older than the step."""
        if facts:
            at_ms = unix_ms() - (now_us() - at_us) // 1000
            self._untold.extend((at_ms, fact) for fact in facts)

    @property
    def waits(self) -> bool:
        """Whether something is untold."""
        return bool(self._untold)

    @property
    def is_full(self) -> bool:
        """Whether so much is untold that it must be told now."""
        return len(self._untold) >= _MOST

    def tell(self) -> None:
        """Log all that is untold."""
        untold, self._untold = self._untold, []
        for at_ms, fact in untold:
            self._tell(at_ms, fact)

    def _tell(self, at_ms: int, fact: Fact) -> None:
        fields = dict(fact.fields)
        if fact.name in ("message_refused", "witness_refused"):
            self._log.limited(f"{fact.name} {fields['reason']}", "warning", fact.name, **fields)
        elif fact.name in _LOUD:
            if "generation" in fields:  # a peer of the new generation refuses this node
                fields["hint"] = f"run 'zelect members reset --join {fields['generation']} {self._node}'"
            self._log.limited(fact.name, "error", fact.name, **fields)
        else:
            self._log.event_at(at_ms, "debug" if fact.name in _QUIET else "info", fact.name, fields)
