"""Results of ``analyze`` and of a gate in one shape: models and their findings, each with a place and a level."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path

from fxcheck.records.finding import Diagnostic, Verdict, split_location
from fxcheck.records.gate import GatedModel, GateFinding, GateResult, Standing
from fxcheck.records.report import FailedTarget, LayerReport, Report

NOTHING_REQUIRED = "never"


class Level(StrEnum):
    """How loud a finding is."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


def models(results: Sequence[Report | FailedTarget]) -> tuple[GatedModel, ...]:
    """Reports and failed targets as models of which nothing is required."""
    return tuple(
        GatedModel(r.target, r.target, NOTHING_REQUIRED, None, r)
        if isinstance(r, FailedTarget)
        else GatedModel(r.target, r.target, NOTHING_REQUIRED, r, None, tuple(findings(r)))
        for r in results
    )


def statistics(results: Sequence[Report | FailedTarget]) -> dict[str, dict[str, int]]:
    """How many targets have each verdict, and how many findings each code."""
    return GateResult(models(results)).statistics()


def findings(report: Report) -> Iterator[GateFinding]:
    """Each diagnostic of the model and its layers, and each layer that is not certified for no reason given."""
    for d in report.diagnostics:
        yield _finding(report, None, d)
    for layer in report.layers:
        silent = layer.verdict.rank > Verdict.CERTIFIED.rank and not layer.diagnostics
        for d in layer.diagnostics or ([_unexplained(layer)] if silent else []):
            yield _finding(report, layer, d)


def level(model: GatedModel, finding: GateFinding) -> Level:
    """Errors are what a gate fails on; where nothing is required, what no theorem covers is a warning."""
    if model.require != NOTHING_REQUIRED and finding.standing is Standing.NEW:
        return Level.ERROR
    uncovered = finding.verdict == Verdict.UNCOVERED and finding.standing is Standing.NEW
    return Level.WARNING if uncovered else Level.NOTE


def place(model: GatedModel, finding: GateFinding) -> tuple[str, int] | None:
    """A file below the working directory and a line (from 1) to show a finding at.

    Code in an installed package cannot be annotated: such a finding is shown at the first line of the model's file.
    """
    own, target = _below_here(finding.path), _below_here(split_location(model.target)[0])
    if own:
        return own, max(finding.line, 1)
    return (target, 1) if target else None


def sentence(finding: GateFinding) -> str:
    """Where, what, and what to do."""
    where = f"{finding.layer}: " if finding.layer else ""
    at = f" (at {finding.path}:{finding.line})" if finding.path and not _below_here(finding.path) else ""
    hint = f" Try: {finding.hint}" if finding.hint else ""
    return f"{where}{finding.message.rstrip('.')}{at}.{hint}"


def _finding(report: Report, layer: LayerReport | None, d: Diagnostic) -> GateFinding:
    path, line = split_location(d.location or (layer.location if layer else ""))
    verdict, source = (layer.verdict, layer.source) if layer else (report.verdict, d.source)
    return GateFinding(
        report.target, d.code, layer.name if layer else d.module, operation(layer) if layer else d.op, str(verdict),
        d.message, d.hint, path, line, source if layer is None or d.location in ("", layer.location) else "",
    )  # fmt: skip


def operation(layer: LayerReport) -> str:
    """Activation and max of a layer."""
    return " + ".join(n for n in (layer.activation, layer.maxpool) if n)


def _unexplained(layer: LayerReport) -> Diagnostic:
    return Diagnostic(str(layer.verdict), f"{operation(layer)} is {layer.verdict}", "", layer.location)


def _below_here(path: str) -> str:
    """The path of a file relative to the working directory, with forward slashes; empty if it lies elsewhere."""
    if not path or not Path(path).is_file():
        return ""
    relative = os.path.relpath(path).replace(os.sep, "/")
    return "" if relative.startswith("..") else relative
