"""The result of a gate as the ``fxcheck/gate/1`` document."""

from __future__ import annotations

from typing import Any

from fxcheck.records.gate import SCHEMA, GatedModel, GateResult
from fxcheck.render.json import dump


def render_gate(result: GateResult) -> str:
    """One object, strict JSON (no NaN), ends with a newline."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "status": result.status,
        "models": [_model(model) for model in result.models],
        "unused_ignores": list(result.unused_ignores),
        "stale": [dict(zip(("model", "layer", "op", "code"), key, strict=True)) for key in result.stale],
        "statistics": result.statistics(),
    }
    if result.old_torch:
        document["torch_proxies"] = {"torch": result.old_torch, "models": [c.to_dict() for c in result.changes]}
    return dump(document)


def _model(model: GatedModel) -> dict[str, Any]:
    head = {"name": model.name, "target": model.target, "require": model.require}
    if model.error is not None:
        return {**head, "falls_short": None, "error": model.error.to_dict()["error"]}
    assert model.report is not None
    return {
        **head, "verdict": str(model.report.verdict), "falls_short": model.falls_short,
        "findings": [f.to_dict() for f in model.findings], "report": model.report.to_dict(),
    }  # fmt: skip
