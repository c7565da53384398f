"""What a gate is asked to do: models with their inputs, what is required of each, and what to ignore."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from fxcheck.records.finding import Verdict
from fxcheck.records.target_spec import TargetSpec


class Require(StrEnum):
    """The weakest verdict that a gate accepts of a model."""

    SMOOTH = "smooth"
    CERTIFIED = "certified"
    RUNTIME = "runtime"
    NEVER = "never"
    """Nothing is required: findings are neither listed nor counted."""

    def accepts(self, verdict: Verdict) -> bool:
        return self is Require.NEVER or verdict.rank <= Verdict(str(self)).rank


@dataclass(frozen=True)
class Ignore:
    """An entry ``{layer, code, reason}`` of the configuration."""

    layer: str
    """Module path with wildcards, as ``layer1.*``; ``*`` includes findings of the whole model."""
    code: str
    """``FX101``; a verdict's name for layers that have no diagnostic; ``*`` for any."""
    reason: str
    model: str = ""
    """Name of the only model it applies to; empty for all."""

    def __str__(self) -> str:
        return f"ignore of {self.code} at {self.layer}" + (f" in {self.model}" if self.model else "")


@dataclass(frozen=True)
class GateEntry:
    """One model of the gate."""

    name: str
    spec: TargetSpec
    require: Require = Require.RUNTIME


@dataclass(frozen=True)
class GateConfig:
    """One configuration, or what the command line asks for without one."""

    entries: tuple[GateEntry, ...] = ()
    ignores: tuple[Ignore, ...] = ()
    baseline: str | None = None
    """Path of the baseline file."""
    source: str = ""
    """The file it was read from, for messages; empty when there is none."""
    defaults: GateEntry = field(default_factory=lambda: GateEntry("", TargetSpec("")))
    """What the configuration says about models that it does not name."""
    whole: bool = True
    """All configured models are run, not a selection."""
