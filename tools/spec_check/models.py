"""The models of spec/: instances small enough for TLC to search whole, each with the result that is expected.

A model's name begins with what it is about. `m-`: a rule is switched off, and something must break. `x-`: a known limit
of the design, where something breaks by what was presupposed. `reach-`: shows that the model can do what it
should, by "violating" that it never does. `lease-`: with promises and leases.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

S = ("S1", "OneCluster", "OneContent")
L1_STATIC = ("L1Static", "S1", "OneContent")
L1_SINGLE = ("L1Single", "S1", "OneContent")
LEASES = ("S1", "S2")
HOLDS = ""
"""The expectation that every invariant holds."""


@dataclass(frozen=True)
class Model:
    """An instance of the specification. `lists`: who may found with which members (a definition of Instances.tla).
    `founded`: so many nodes are members of a cluster from the beginning. `versions`: highest version of
    a record. `losses`, `flushes`, `resets`, `lies`: so many faults of that kind. `off`: rules switched off.
    `expect`: the invariant that breaks, `HOLDS` when none does."""

    name: str
    nodes: int
    lists: str
    founded: int
    terms: int
    versions: int
    invariants: tuple[str, ...] = S
    expect: str = HOLDS
    symmetry: str = "SymmAll"
    losses: int = 0
    flushes: int = 0
    resets: int = 0
    lies: int = 0
    witness: bool = False
    late: bool = False
    off: tuple[str, ...] = ()
    policy: bool = False
    deaths: str = "any"
    leases: bool = False

    def configuration(self) -> str:
        """The text of TLC's configuration file."""
        nodes = [f"n{i}" for i in range(1, 8)]
        values = {
            **{node: node for node in nodes},
            "Node": _set(nodes[: self.nodes]),
            "Founded": _set(nodes[: self.founded]),
            "WithWitness": _bool(self.witness),
            "MaxTerm": self.terms,
            "MaxVersion": self.versions,
            "MaxLoss": self.losses,
            "MaxFlush": self.flushes,
            "MaxReset": self.resets,
            "MaxLies": self.lies,
            "Late": _bool(self.late),
            "Off": _set([f'"{rule}"' for rule in self.off]),
            "Policy": _bool(self.policy),
            "Deaths": f'"{self.deaths}"',
        }
        lines = [f"SPECIFICATION {'LeaseSpec' if self.leases else 'Plain'}", "CONSTANTS"]
        lines += [f"  {name} = {value}" for name, value in values.items()]
        lines += [f"  Lists <- {self.lists}", *(f"INVARIANT {name}" for name in self.invariants)]
        lines += [f"SYMMETRY {self.symmetry}"] if self.symmetry else []
        return "\n".join(lines) + "\n"


def _set(values: list[str]) -> str:
    return "{" + ", ".join(values) + "}"


def _bool(value: bool) -> str:
    return str(value).upper()


_WITNESS: dict[str, Any] = {"witness": True, "symmetry": "SymmAll"}
_CALM = ("adopt",)
"""Nobody adopts a term without a vote, a record or an acknowledgement: left out where it only multiplies the states.
base3 and late3 have it."""


def _plain() -> list[Model]:
    """What must hold."""
    some: dict[str, Any] = {"off": _CALM}
    return [
        Model("base3", 3, "Nowhere", 3, 2, 4),
        Model("base3-V5", 3, "Nowhere", 3, 2, 5),
        Model("base3-T3", 3, "Nowhere", 3, 3, 4, **some),
        Model("base3-V6", 3, "Nowhere", 3, 2, 6, **some),
        Model("late3", 3, "Nowhere", 3, 2, 3, late=True),
        Model("late3-V4", 3, "Nowhere", 3, 2, 4, late=True),
        Model("late3-loss", 3, "Nowhere", 3, 2, 4, late=True, losses=1, **some),
        Model("late-witness2", 2, "Nowhere", 2, 3, 4, late=True, **_WITNESS, **some),
        Model("loss3", 3, "Nowhere", 3, 2, 5, losses=1, **some),
        Model("witness3-flush", 3, "Nowhere", 3, 2, 5, flushes=1, **some),
        Model("witness2-loss", 2, "Nowhere", 2, 3, 6, losses=1, **_WITNESS, **some),
        Model("witness2-flush", 2, "Nowhere", 2, 3, 6, flushes=1, **_WITNESS, **some),
        Model("found3", 3, "Everybody", 0, 2, 3, **some),
        Model("found3-loss", 3, "Everybody", 0, 2, 2, losses=1, **some),
        Model("found3-loss-T3", 3, "Everybody", 0, 3, 3, losses=1, **some),
        Model("found3-late-loss", 3, "Everybody", 0, 2, 2, losses=1, late=True, **some),
        Model("found4-overlap-loss", 4, "Overlapping", 0, 2, 1, losses=1, symmetry="Symm23", **some),
        Model("grow1to3", 3, "Grow1to3", 0, 2, 4, symmetry="Symm23", **some),
        Model("bootstrap12-loss", 3, "Bootstrap12", 0, 2, 2, losses=1, symmetry="Symm12", **some),
        Model("grow3to5-loss", 5, "Grow3to5", 0, 2, 1, losses=1, symmetry="Symm12_45", **some),
        Model("grow3to7-loss", 7, "Grow3to7", 0, 2, 1, losses=1, symmetry="Symm12_4567", **some),
        Model("reset3", 3, "Nowhere", 3, 2, 4, resets=1, **some),
        Model("reset3-twice", 3, "Nowhere", 3, 2, 4, resets=2, **some),
        Model("L1-static3", 3, "Nowhere", 3, 2, 6, L1_STATIC, policy=True, **some),
        Model("L1-single3", 3, "Nowhere", 3, 3, 7, L1_SINGLE, policy=True, deaths="settled", **some),
        Model("L1-single3-loss", 3, "Nowhere", 3, 2, 7, L1_SINGLE, losses=1, policy=True, deaths="settled", **some),
        Model("L1-static5", 5, "Nowhere", 5, 2, 6, L1_STATIC, policy=True, **some),
        Model("L1-single5", 5, "Nowhere", 5, 3, 9, L1_SINGLE, policy=True, deaths="settled", **some),
    ]


def _mutants() -> list[Model]:
    """Rules switched off."""
    found = [
        Model("m-epoch", 3, "Nowhere", 3, 2, 4, expect="S1", losses=1, off=("epoch",)),
        Model("m-epoch-founding", 3, "Everybody", 0, 2, 3, ("S1",), "S1", losses=1, off=("epoch",)),
        Model("m-copyVote", 3, "Nowhere", 3, 2, 4, expect="S1", losses=1, off=("copyVote",)),
        Model("m-copyOld", 3, "Nowhere", 3, 2, 5, expect="S1", losses=1, off=("copyOld",)),
        Model("m-identity", 3, "Nowhere", 3, 2, 5, expect="S1", flushes=1, off=("identity",)),
        Model("m-voteRecord", 3, "Nowhere", 3, 3, 6, expect="S1", off=("voteRecord",)),
        Model("m-witnessRecord", 3, "Nowhere", 3, 3, 6, expect="S1", off=("witnessRecord",)),
        Model("m-commit", 3, "Nowhere", 3, 2, 4, expect="S1", off=("commit",)),
        Model("m-rewrite", 3, "Nowhere", 3, 3, 3, expect="OneContent", off=("rewrite",)),
        Model("m-ackTerm", 3, "Nowhere", 3, 3, 5, expect="S1", off=("ackTerm",)),
        Model("m-recordTerm+ackVote", 3, "Nowhere", 3, 2, 6, expect="S1", off=("recordTerm", "ackVote")),
        Model("m-recordTerm", 3, "Nowhere", 3, 2, 6, off=("recordTerm",)),
        Model("m-ackVote", 3, "Nowhere", 3, 2, 6, off=("ackVote",)),
        Model("m-oneVoter", 3, "Nowhere", 3, 2, 4, expect="S1", off=("oneVoter",)),
        Model("m-swap", 3, "Nowhere", 3, 2, 4, expect="S1", losses=1, off=("swap",)),
        Model("m-swap2", 2, "Nowhere", 2, 3, 5, expect="S1", losses=1, off=("swap",), **_WITNESS),
        Model("m-swapWitness", 3, "Nowhere", 3, 2, 5, expect="S1", flushes=1, off=("swapWitness",)),
        Model("m-unanimous1to3", 3, "Grow1to3", 0, 2, 3, ("S1",), "S1", off=("unanimous",), symmetry="Symm23"),
        Model("m-unanimous3", 3, "Everybody", 0, 2, 3, ("S1",), "S1", losses=1, off=("unanimous",)),
        Model(
            "m-unanimous3to5", 5, "Grow3to5", 0, 2, 1, S, "OneCluster", "Symm12_45", losses=1, off=("unanimous",)
        ),
        Model("m-newOnly", 3, "Grow1to3", 0, 2, 3, expect="OneCluster", off=("newOnly",), symmetry="Symm23"),
        Model("m-foundEpoch", 3, "Everybody", 0, 2, 3, expect="OneCluster", losses=1, off=("foundEpoch",)),
        Model("m-bound", 3, "Bootstrap12", 0, 2, 3, expect="OneCluster", off=("bound",), symmetry="Symm12"),
        Model(
            "m-joinNamed3to5", 5, "Grow3to5", 0, 2, 1, S, "OneCluster", "Symm12_45", losses=1, off=("joinNamed",)
        ),
        Model("m-sameList3to5", 5, "Grow3to5", 0, 2, 1, symmetry="Symm12_45", losses=1, off=("sameList",)),
        Model("m-freshGeneration", 3, "Nowhere", 3, 2, 4, expect="S1", resets=2, off=("freshGeneration",)),
        Model("m-handout-static", 3, "Nowhere", 3, 3, 7, L1_STATIC, "L1Static", policy=True, off=("handout",)),
        Model(
            "m-handout-single", 3, "Nowhere", 3, 4, 8, L1_SINGLE, "L1Single", policy=True, deaths="settled",
            off=("handout",),
        ),
        Model(
            "m-witnessFirst", 3, "Nowhere", 3, 2, 7, L1_SINGLE, losses=1, policy=True, deaths="settled",
            off=("witnessFirst",),
        ),
    ]  # fmt: skip
    return [replace(model, off=(*model.off, *_CALM)) for model in found]


def _limits() -> list[Model]:
    """What the design does not promise, and what it does nevertheless reach."""
    found = [
        Model("x-anyloss3", 3, "Nowhere", 3, 2, 5, losses=2, off=("mostKeep",)),
        Model("x-anyloss2", 2, "Nowhere", 2, 3, 5, losses=1, flushes=1, off=("mostKeep",), **_WITNESS),
        Model("x-anyloss-founding", 3, "Everybody", 0, 3, 3, ("S1",), "S1", losses=2, off=("mostKeep",)),
        Model("x-loss-and-shrunk-list", 3, "Grow1to3", 0, 2, 3, expect="S1", symmetry="Symm23", losses=1),
        Model("x-lie2", 2, "Nowhere", 2, 2, 3, ("S1",), "S1", lies=1, **_WITNESS),
        Model("x-lie3", 3, "Nowhere", 3, 3, 6, ("S1",), "S1", lies=1),
        Model("reach-alone", 3, "Nowhere", 3, 3, 7, ("NeverAlone",), "NeverAlone", policy=True),
        Model("reach-readmitted", 3, "Nowhere", 3, 2, 5, ("NeverReadmitted",), "NeverReadmitted", losses=1),
        Model("reach-reset", 3, "Nowhere", 3, 2, 4, ("NeverReset",), "NeverReset", resets=1),
    ]
    return [replace(model, off=(*model.off, *_CALM)) for model in found]


def _leases() -> list[Model]:
    """With promises and leases; "fast": the votes of a win begin the lease (R7)."""
    w2: dict[str, Any] = {"nodes": 2, "founded": 2, "witness": True}
    three: dict[str, Any] = {"nodes": 3, "founded": 3}
    w2of3: dict[str, Any] = {"nodes": 3, "founded": 2, "witness": True, "symmetry": "Symm12"}

    def model(name: str, terms: int, versions: int, off: str, where: dict[str, Any], **more: Any) -> Model:
        fields: dict[str, Any] = {"invariants": LEASES, "leases": True, "lists": "Nowhere", **where, **more}
        rules = (*off.split(), *_CALM)
        return Model(name=f"lease-{name}", terms=terms, versions=versions, off=rules, **fields)

    s2: dict[str, Any] = {"expect": "S2"}
    return [
        model("slow-witness2", 3, 1, "", w2),
        model("slow3", 2, 2, "", three),
        model("fast-witness2", 3, 1, "slow", w2),
        model("fast-witness2-loss", 2, 5, "slow", w2, losses=1),
        model("fast3", 2, 2, "slow", three),
        model("fast-witness2of3", 2, 3, "slow", w2of3),
        model("fast-witness2-late", 2, 3, "slow", w2, late=True),
        model("fast3-loss", 2, 4, "slow", three, losses=1),
        model("slow3-loss", 2, 4, "", three, losses=1),
        model("code3-loss", 2, 4, "carried", three, losses=1),
        model("code-witness2-loss", 2, 5, "carried", w2, losses=1),
        model("m-barrier-slow", 3, 1, "barrier", w2, **s2),
        model("m-barrier-fast", 3, 1, "slow barrier", w2, **s2),
        model("m-voteNamed-slow", 3, 1, "voteNamed", w2),
        model("m-voteNamed-fast", 3, 1, "slow voteNamed", w2, **s2),
        model("m-keepNamed-fast", 3, 1, "slow keepNamed", w2, **s2),
        model("m-votePromise-fast", 2, 1, "slow votePromise", three, **s2),
        model("m-promise-fast", 2, 1, "slow promise", three, **s2),
        model("m-grace-fast", 2, 1, "slow grace", three, **s2),
        model("x-lie-witness2", 3, 1, "", w2, lies=1, invariants=("S2",), **s2),
        model("reach-by-votes", 2, 1, "slow", three, invariants=("NeverByVotes",), expect="NeverByVotes"),
        model("reach-by-witness", 3, 1, "slow", w2, invariants=("NeverByWitness",), expect="NeverByWitness"),
    ]


MODELS = {model.name: model for model in (*_plain(), *_mutants(), *_limits(), *_leases())}
"""Every model by name."""

QUICK = (
    *("base3", "late3", "witness2-flush", "found3", "found3-loss", "grow1to3"),
    *("lease-slow-witness2", "lease-fast-witness2"),
    *("m-epoch", "m-copyVote", "m-copyOld", "m-commit", "m-rewrite", "m-oneVoter"),
    *("m-unanimous1to3", "m-newOnly", "m-foundEpoch", "m-bound"),
    *("lease-m-barrier-slow", "lease-m-votePromise-fast", "lease-m-promise-fast", "lease-m-grace-fast"),
)
"""Those that a step of CI searches, in about three minutes on two cores; the rest by hand."""
