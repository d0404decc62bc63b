"""What the nodes and the witness make of the messages in flight before them, each found once.

What a node does depends on its local, on the messages in flight to it, and on nothing else of a stage; so
there are few answers, and many stages that ask for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tools.modelchecker.model import Outcome
from tools.modelchecker.universe import Universe, process
from zelect.core.quorum import WITNESS, RecordId


@dataclass(frozen=True, slots=True)
class Step:
    """A node's next local, its messages in flight, and what more there is to it."""

    after: int
    sends: int
    elected: tuple[int, RecordId] | None = None
    campaigns: bool = False
    inside: tuple[tuple[int, int], ...] = ()
    slowly: int = -1


@dataclass
class Reactions:
    """`show` gets the names of the properties "sometimes" as they come up."""

    universe: Universe
    show: Callable[[str], None]

    def __post_init__(self) -> None:
        self._views: dict[tuple[int, int, int], tuple[int, tuple[Step, ...]]] = {}
        self._own: dict[tuple[int, int], tuple[Step, ...]] = {}
        self._finds: dict[tuple[int, tuple[int, ...], int], tuple[Step, ...]] = {}
        self._answers: dict[tuple[int, int], tuple[int, tuple[tuple[int, int], ...]]] = {}
        self._ticks: dict[int, tuple[int, int] | None] = {}
        self._crashed: dict[int, int] = {}
        self._processes: dict[int, int] = {}

    def view(self, number: int, bits: int, witness: int) -> tuple[int, tuple[Step, ...]]:
        """What a local makes of the messages in flight: those that it answers without a change, and its steps."""
        local = self.universe.model.locals[number]
        in_flight = bits & self.universe.model.sent_to[local.node]
        known = self._views.get((number, in_flight, witness))
        if known is None:
            heard = self.universe.hears(number, in_flight) if local.state is not None else ()
            known = self._steps(number, witness, (outcome for _, outcome in heard))
            self._views[number, in_flight, witness] = known
        return known

    def _steps(
        self, number: int, witness: int, outcomes: Iterable[Outcome | None], campaigns: bool = False
    ) -> tuple[int, tuple[Step, ...]]:
        free, special = 0, []
        plain: dict[int, int] = {}
        for outcome in outcomes:
            if outcome is None:
                continue
            self.universe.check_step(outcome)
            for name in outcome.seen:
                self.show(name)
            after, sends = self.universe.sight(outcome.after, outcome.sends, witness)
            if outcome.elected is not None or outcome.inside or campaigns or outcome.slowly >= 0:
                special.append(Step(after, sends, outcome.elected, campaigns, outcome.inside, outcome.slowly))
            elif after == number:
                free |= sends
            else:
                plain[after] = plain.get(after, 0) | sends
        return free, (*special, *(Step(after, sends) for after, sends in plain.items()))

    def alone(self, number: int, witness: int) -> tuple[Step, ...]:
        """What a node may do of its own at any time."""
        known = self._own.get((number, witness))
        if known is None:
            steps: list[Step] = []
            for name, outcome in self.universe.by_itself(number):
                free, more = self._steps(number, witness, [outcome], name == "campaigns")
                steps += [*more, *([Step(number, free)] if free else [])]
            known = self._own[number, witness] = tuple(steps)
        return known

    def found_out(self, number: int, processes: tuple[int, ...], witness: int) -> tuple[Step, ...]:
        """What a node may find out: who is dead, and that the witness is another one."""
        known = self._finds.get((number, processes, witness))
        if known is None:
            outcomes = [outcome for _, outcome in self.universe.finds(number, processes, witness)]
            known = self._finds[number, processes, witness] = self._steps(number, witness, outcomes)[1]
        return known

    def crash(self, number: int) -> int:
        """What is left when the process dies."""
        known = self._crashed.get(number)
        if known is None:
            known = self._crashed[number] = self.universe.model.crash(number)
        return known

    def process(self, number: int) -> int:
        """The process that runs, 0 for none."""
        known = self._processes.get(number)
        if known is None:
            known = self._processes[number] = process(self.universe.model.locals[number])
        return known

    def asked(self, witness: int, bits: int) -> tuple[int, tuple[tuple[int, int], ...]]:
        """What the witness answers without a change, and what it becomes by its answers."""
        asks = bits & self.universe.model.sent_to[WITNESS]
        known = self._answers.get((witness, asks))
        if known is None:
            free, rest = 0, asks
            changed: dict[int, int] = {}
            while rest:
                low = rest & -rest
                rest ^= low
                after, reply = self.universe.answer(witness, low.bit_length() - 1)
                if after == witness:
                    free |= reply
                else:
                    changed[after] = changed.get(after, 0) | reply
            known = self._answers[witness, asks] = (free, tuple(changed.items()))
        return known

    def tick(self, number: int) -> tuple[int, int] | None:
        """The local one unit later, after it has looked at the clock if it must, and its messages in flight;
        None when that is beyond the bounds."""
        if number not in self._ticks:
            self._ticks[number] = self._tick(number)
        return self._ticks[number]

    def _tick(self, number: int) -> tuple[int, int] | None:
        aged = self.universe.age(number)
        if not self.universe.model.overdue(aged):
            return aged, 0
        outcome = self.universe.tick(aged)
        if outcome is None:
            return None
        self.universe.check_step(outcome)
        for name in outcome.seen:
            self.show(name)
        return outcome.after, outcome.sends
