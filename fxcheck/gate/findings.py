"""From a report to findings: each reason why a model is weaker than what is required of it."""

from __future__ import annotations

from fxcheck.records.finding import Diagnostic, Verdict, split_location
from fxcheck.records.gate import GateFinding
from fxcheck.records.gate_config import Require
from fxcheck.records.report import LayerReport, Report

_INFORMS = frozenset({"FX204"})
"""About how the analysis was done, not about the model."""


def findings_of(model: str, report: Report) -> tuple[GateFinding, ...]:
    """Everything that keeps a model from being smooth, whatever is required of it.

    Args:
        model: its name in the gate.
        report: what was found.

    Returns:
        Findings of the whole model, then of its layers in execution order. A layer has one for each of its
        diagnostics; one that has none, one with its verdict as the code.
    """
    whole = [_of_model(model, d) for d in report.diagnostics if d.code not in _INFORMS]
    return (*whole, *(f for layer in report.layers for f in _of_layer(model, layer)))


def falls_short(finding: GateFinding, require: Require) -> bool:
    """Whether a finding is weaker than what is required."""
    return not require.accepts(Verdict(finding.verdict))


def _of_layer(model: str, layer: LayerReport) -> list[GateFinding]:
    name, op = layer.name, layer.activation or layer.maxpool or ""
    if not layer.diagnostics:
        message = f"{op} at {name} is {layer.verdict}" + (f" by {layer.theorem}" if layer.theorem else "")
        path, line = place(layer.location)
        return [GateFinding(model, str(layer.verdict), name, op, str(layer.verdict), message, "", path, line, layer.source)]
    return [_of_diagnostic(model, layer, op, d) for d in layer.diagnostics]


def _of_diagnostic(model: str, layer: LayerReport, op: str, d: Diagnostic) -> GateFinding:
    is_here = d.location in ("", layer.location)
    path, line = place(d.location or layer.location)
    source = layer.source if is_here else ""
    return GateFinding(model, d.code, layer.name, op, str(layer.verdict), d.message, d.hint, path, line, source)


def _of_model(model: str, d: Diagnostic) -> GateFinding:
    path, line = place(d.location)
    uncovered = str(Verdict.UNCOVERED)
    return GateFinding(model, d.code, d.module, d.op, uncovered, d.message, d.hint, path, line, d.source)


def place(location: str) -> tuple[str, int]:
    """Path with forward slashes and line of ``file.py:12``; line 0 where there is none."""
    path, line = split_location(location)
    return path.replace("\\", "/"), line
