"""What was decided about one training step, and totals over a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from fxcheck.records.certificate import Certificate
from fxcheck.records.history import History

CERTIFIED, UNCERTIFIED = "certified", "uncertified"


@dataclass(frozen=True)
class LayerStep:
    """One checked layer in one step, all forwards and ranks together."""

    name: str
    group: int
    entries: int
    """Observed pre-activation entries and max outputs."""
    max_outputs: int
    touched: int
    """Entries on a kink (for a layer that is not differentiable at one point: forwards at that point)."""
    ties: int
    """Max outputs j with abs(S_j) >= 2; those whose tied entries all have slope 0 are left out."""
    nontrivial_outputs: int
    """Max outputs with an entry of S_j that is not known to be in T_j."""
    nontrivial: int
    """Such entries: abs(S_j minus T_j) summed over j; an upper bound unless ``exact_ties`` was asked for."""
    constraints: int
    """Rows of its P_l."""
    verdict: str
    """``certified``, ``infeasible`` or ``undecided``."""
    theorem: str | None
    """What certified it: T5, T8 or joint; None when nothing did."""

    @property
    def is_touched(self) -> bool:
        """Whether anything happened in it that a theorem has to answer for."""
        return bool(self.touched or self.nontrivial)

    def to_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)


@dataclass
class StepResult:
    """The verdict on one optimizer step: on the gradient summed over all its forwards (theory 4.12)."""

    verdict: str | None = None
    """``certified`` or ``uncertified``; None until the step has ended, and for a step that an exception broke."""
    theorem: str | None = None
    subdifferential: str | None = None
    reason: str | None = None
    """None, ``infeasible``, ``undecided``, ``uncovered`` or ``other ranks``."""
    text: str = ""
    """The reason in a sentence."""
    layers: tuple[LayerStep, ...] = ()
    assumptions: tuple[str, ...] = ()
    forwards: int = 0
    samples: int = 0
    refuted: bool = False
    """Uncertified, and rightly: the gradient that AD returned was shown to be no Clarke subgradient (docs/theory.md 5.11)."""
    up_to_rounding: bool | None = None
    """True: it rests on gradients that cancel, or are zero, as computed. None: near touches were not looked for
    (theory 4.13)."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of the check by stage: observation, classes, rows, T_j, lp, verification, replay,
    decomposition, other."""
    make_certificate: Callable[[], Certificate] | None = field(default=None, repr=False)

    @cached_property
    def certificate(self) -> Certificate | None:
        """Witnesses for every row of the step; None before the step has ended."""
        return self.make_certificate() if self.make_certificate is not None else None

    @property
    def check_seconds(self) -> float:
        return sum(self.seconds.values())

    def scalars(self, prefix: str = "fxcheck/") -> dict[str, float]:
        """A flat dict for any logger."""
        return {
            f"{prefix}certified": float(self.verdict == CERTIFIED),
            f"{prefix}touched": float(sum(layer.touched for layer in self.layers)),
            f"{prefix}ties": float(sum(layer.ties for layer in self.layers)),
            f"{prefix}nontrivial": float(sum(layer.nontrivial for layer in self.layers)),
            f"{prefix}constraints": float(sum(layer.constraints for layer in self.layers)),
            f"{prefix}seconds": self.check_seconds,
        }


@dataclass
class LayerTotals:
    """One layer over a run: the columns of the paper's Table 2, and touches."""

    name: str
    steps: int = 0
    max_outputs: int = 0
    ties: int = 0
    touched: int = 0
    touched_steps: int = 0
    nontrivial_steps: int = 0
    nontrivial_outputs: int = 0
    nontrivial: int = 0
    uncertified_steps: int = 0
    constraints: int = 0

    def add(self, layer: LayerStep, steps: int = 1) -> None:
        """Count so many steps that were alike."""
        self.steps += steps
        self.max_outputs += steps * layer.max_outputs
        self.uncertified_steps += steps * (layer.verdict != CERTIFIED)
        self.ties += steps * layer.ties
        self.touched += steps * layer.touched
        self.touched_steps += steps * (layer.touched > 0)
        self.nontrivial_steps += steps * (layer.nontrivial > 0)
        self.nontrivial_outputs += steps * layer.nontrivial_outputs
        self.nontrivial += steps * layer.nontrivial
        self.constraints += steps * layer.constraints

    @property
    def tied_share(self) -> float | None:
        """Share of max outputs with abs(S_j) >= 2; None for a layer without maxima."""
        return self.ties / self.max_outputs if self.max_outputs else None

    @property
    def mean_nontrivial(self) -> float | None:
        """Mean of abs(S_j minus T_j) over the max outputs where it is not empty."""
        return self.nontrivial / self.nontrivial_outputs if self.nontrivial_outputs else None

    def to_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "tied_share": self.tied_share, "mean_nontrivial": self.mean_nontrivial}


@dataclass
class Summary:
    """A run: every step that ended."""

    steps: int = 0
    certified: int = 0
    theorem: str | None = None
    exact_ties: bool = False
    reasons: dict[str, int] = field(default_factory=dict)
    certified_by: dict[str, int] = field(default_factory=dict)
    """Steps by theorem and subdifferential, as ``T8 (bouligand)``."""
    refuted: int = 0
    """Uncertified steps whose gradient was shown to be no Clarke subgradient."""
    seconds: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    history: History = field(default_factory=History, repr=False)
    _totals: dict[str, LayerTotals] = field(default_factory=dict, init=False, repr=False)
    _last: tuple[LayerStep, ...] = field(default=(), init=False, repr=False)
    """Layers of the last steps, which had the very same; most steps have, since nothing happens in them."""
    _touched: list[tuple[str, int, int]] = field(default_factory=list, init=False, repr=False)
    """Of the last steps' layers, (name, touches, non-trivial ties) of those at which something happened."""
    _alike: int = field(default=0, init=False, repr=False)
    """Of those, the steps that ``_totals`` do not have yet."""

    @property
    def layers(self) -> dict[str, LayerTotals]:
        """By name."""
        self._settle()
        return self._totals

    def _settle(self) -> None:
        alike, self._alike = self._alike, 0
        for layer in self._last if alike else ():
            self._totals.setdefault(layer.name, LayerTotals(layer.name)).add(layer, alike)

    def add(self, step: StepResult) -> None:
        """Count one step."""
        if step.layers is not self._last:
            self._settle()
            self._last = step.layers
            self._touched = [(x.name, x.touched, x.nontrivial) for x in step.layers if x.is_touched]
        self._alike += 1
        self.history.add(step.verdict == CERTIFIED, self._touched)
        self.steps += 1
        self.certified += step.verdict == CERTIFIED
        if step.verdict == CERTIFIED:
            proof = f"{step.theorem} ({step.subdifferential})"
            self.certified_by[proof] = self.certified_by.get(proof, 0) + 1
        else:
            self.reasons[step.reason or ""] = self.reasons.get(step.reason or "", 0) + 1
            self.refuted += step.refuted
        for stage, spent in step.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": "fxcheck/run/1", "steps": self.steps, "certified": self.certified,
            "certified_by": self.certified_by, "reasons": self.reasons, "refuted": self.refuted,
            "theorem": self.theorem, "exact_ties": self.exact_ties, "notes": list(self.notes),
            "seconds": self.seconds, "layers": [t.to_dict() for t in self.layers.values()],
            "history": self.history.to_dict(),
        }  # fmt: skip

    @property
    def refuted_text(self) -> str:
        """In how many steps AD was shown to be wrong, as a parenthesis behind the reasons; empty for none."""
        return f" (in {self.refuted} of them AD's gradient is no subgradient)" if self.refuted else ""

    def scalars(self, prefix: str = "fxcheck/run/") -> dict[str, float]:
        """A flat dict for any logger."""
        found = {f"{prefix}steps": float(self.steps), f"{prefix}certified": float(self.certified),
                 f"{prefix}seconds": sum(self.seconds.values())}  # fmt: skip
        for name, t in self.layers.items():
            found[f"{prefix}{name}/touched"] = float(t.touched)
            found[f"{prefix}{name}/ties"] = float(t.ties)
            found[f"{prefix}{name}/nontrivial"] = float(t.nontrivial)
        return found

    def __str__(self) -> str:
        lines = [f"{self.certified} of {self.steps} steps certified" + "".join(
            f"; {n} {reason}" for reason, n in sorted(self.reasons.items()))
            + self.refuted_text]  # fmt: skip
        for t in self.layers.values():
            share = "" if t.tied_share is None else f", {100 * t.tied_share:.3g}% of max outputs tied"
            lines.append(f"  {t.name}: {t.touched} touches in {t.touched_steps} steps{share}, "
                         f"{t.nontrivial_steps} steps with a non-trivial tie")  # fmt: skip
        return "\n".join(lines)
