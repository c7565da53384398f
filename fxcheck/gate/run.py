"""The gate as straight-line code: configuration -> a report and findings per model -> GateResult."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fxcheck.gate.attempt import attempt, attempt_under, failed
from fxcheck.gate.baseline import Baseline
from fxcheck.gate.findings import falls_short, findings_of, place
from fxcheck.gate.ignores import Ignores
from fxcheck.gate.proxy_changes import changes_between
from fxcheck.records.gate import GatedModel, GateFinding, GateResult, ModelChange
from fxcheck.records.gate_config import GateConfig, GateEntry
from fxcheck.records.report import FailedTarget, Report

if TYPE_CHECKING:
    from fxcheck.records.proxy_table import ProxyTable


@dataclass(frozen=True)
class Watch:
    """How a run tells the command line what happens."""

    around: Callable[[], AbstractContextManager[None]] = nullcontext
    """Entered around each analysis: user code and torch write to the streams there."""
    begin: Callable[[str], None] = lambda name: None
    """Called with a model's name when its turn comes."""
    fail: Callable[[str, Exception], None] = lambda name, error: None
    """Called when a model could not be analysed."""


def run(
    config: GateConfig, baseline: Baseline | None = None, *, old_proxies: ProxyTable | None = None,
    watch: Watch | None = None,
) -> tuple[GateResult, Baseline]:  # fmt: skip
    """Analyse model after model; one that fails does not hide the others, and none is kept in memory.

    Args:
        config: what to analyse, with at least one entry.
        baseline: what is known; None for nothing.
        old_proxies: proxies of another torch; what changed since is then part of the result.
        watch: callbacks.

    Returns:
        The result, and the baseline in which all its findings would be known.
    """
    baseline, ignores = baseline or Baseline(), Ignores(config.ignores)
    models: list[GatedModel] = []
    found: list[GateFinding] = []
    changes: list[ModelChange] = []
    for entry in config.entries:
        report, change = _analysed(entry, old_proxies, watch or Watch())
        judged = _judged(entry, report, ignores)
        found += judged
        counting = baseline.standing(f for f in judged if falls_short(f, entry.require))
        models.append(_gated(entry, report, counting))
        changes += [change] if change else []
        gc.collect()
    ran = {m.name for m in models}
    broken = {m.name for m in models if m.error is not None}

    def left_alone(model: str) -> bool:
        return model in broken or (model not in ran and not config.whole)

    result = GateResult(
        tuple(models), ignores.unused() if config.whole and not broken else (), baseline.stale(found, left_alone),
        old_proxies.torch if old_proxies else "", tuple(changes),
    )  # fmt: skip
    return result, baseline.updated(result.findings, left_alone)


def _analysed(
    entry: GateEntry, old: ProxyTable | None, watch: Watch
) -> tuple[Report | FailedTarget, ModelChange | None]:
    """The report, or the error without its traceback, whose frames would keep the model alive."""
    watch.begin(entry.name)
    try:
        with watch.around():
            if old is None:
                return attempt(entry.spec), None
            before, after = attempt_under(entry.spec, old)
            return after, changes_between(entry.name, before, after)
    except Exception as error:
        watch.fail(entry.name, error)
        return failed(entry.spec.target, error), None


def _judged(entry: GateEntry, report: Report | FailedTarget, ignores: Ignores) -> list[GateFinding]:
    """All findings of a model, whatever is required of it, with those that are ignored marked."""
    if isinstance(report, FailedTarget):
        return []
    lines = {layer.name: (*place(layer.location), layer.source) for layer in report.layers}
    findings = findings_of(entry.name, report)
    for path, line, source in (*lines.values(), *((f.path, f.line, f.source) for f in findings)):
        ignores.look_at(path, line, source)
    return ignores.apply((f if f.source else replace(f, source=ignores.text_at(f.path, f.line)) for f in findings), lines)


def _gated(entry: GateEntry, report: Report | FailedTarget, findings: tuple[GateFinding, ...]) -> GatedModel:
    error = report if isinstance(report, FailedTarget) else None
    return GatedModel(
        entry.name, entry.spec.target, str(entry.require), None if isinstance(report, FailedTarget) else report, error,
        findings,
    )  # fmt: skip
