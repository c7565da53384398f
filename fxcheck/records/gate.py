"""What a gate found: models, their findings, and which of these count."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fxcheck.records.report import FailedTarget, Report

SCHEMA = "fxcheck/gate/1"


class Standing(StrEnum):
    """Whether a finding counts against a model."""

    NEW = "new"
    BASELINE = "baseline"
    """Known when the baseline was written."""
    IGNORED = "ignored"
    """By the configuration or by a comment on the user's line, with a reason."""


@dataclass(frozen=True)
class GateFinding:
    """One diagnostic of one layer (or of the whole model) that keeps the model below what is required of it."""

    model: str
    """Name in the configuration, or the target."""
    code: str
    """``FX101``, ...; the verdict's name where a layer has no diagnostic of its own."""
    layer: str
    """Module path, as in the report; empty for a finding of the whole model."""
    op: str
    """Activation or max of the layer, or the operator that the finding is about; may be empty."""
    verdict: str
    message: str
    hint: str
    path: str
    """Of the source file, relative to the working directory where it lies below it, with forward slashes; may be empty."""
    line: int
    """From 1; 0 where it is not known."""
    source: str
    """The user's line; may be empty."""
    standing: Standing = Standing.NEW
    reason: str = ""
    """Why it is ignored."""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What a baseline remembers: model, module path, op and code, never a line number."""
        return (self.model, self.layer, self.op, self.code)

    def to_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "standing": str(self.standing)}


@dataclass(frozen=True)
class GatedModel:
    """One model of the gate: a report or an error, and its findings."""

    name: str
    target: str
    require: str
    """``smooth``, ``certified``, ``runtime`` or ``never``."""
    report: Report | None
    error: FailedTarget | None
    findings: tuple[GateFinding, ...] = ()

    @property
    def falls_short(self) -> bool:
        """Whether a finding counts against it."""
        return any(f.standing is Standing.NEW for f in self.findings)


@dataclass(frozen=True)
class LayerChange:
    """One layer whose gradient at a kink or tie, or whose verdict, is another one under another torch."""

    layer: str
    op: str
    location: str
    what: tuple[str, ...]
    """Sentences: ``at 6: 1 -> 0``."""
    before: str
    """Verdict under the other torch; ``absent`` if it has no such layer."""
    after: str
    """Verdict under the installed torch."""

    def to_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "what": list(self.what)}


@dataclass(frozen=True)
class ModelChange:
    """One model under the proxies of another torch and under those of the installed one."""

    model: str
    before: str
    after: str
    layers: tuple[LayerChange, ...] = ()
    note: str = ""
    """What the saved proxies did not hold, so that it could not be compared."""

    def to_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "layers": [layer.to_dict() for layer in self.layers]}


@dataclass(frozen=True)
class GateResult:
    """All models of one run."""

    models: tuple[GatedModel, ...]
    unused_ignores: tuple[str, ...] = ()
    """Sentences: ignores that match nothing."""
    stale: tuple[tuple[str, str, str, str], ...] = ()
    """Entries of the baseline that were not found again, as ``GateFinding.key``."""
    old_torch: str = ""
    """Whose saved proxies were compared with (``--torch-proxies``); empty when none were."""
    changes: tuple[ModelChange, ...] = ()
    """For each model that was compared."""

    @property
    def findings(self) -> tuple[GateFinding, ...]:
        return tuple(f for m in self.models for f in m.findings)

    def count(self, standing: Standing) -> int:
        return sum(f.standing is standing for f in self.findings)

    def statistics(self) -> dict[str, dict[str, int]]:
        """How many models have each verdict (``error`` where there is none), and how many findings each code."""
        verdicts = Counter("error" if m.report is None else str(m.report.verdict) for m in self.models)
        codes = Counter(f.code for f in self.findings)
        return {"verdicts": dict(sorted(verdicts.items())), "codes": dict(sorted(codes.items()))}

    @property
    def status(self) -> int:
        """Exit status: 2 if a model could not be analysed, else 1 if one falls short, else 0."""
        if any(m.error is not None for m in self.models):
            return 2
        return int(any(m.falls_short for m in self.models))
