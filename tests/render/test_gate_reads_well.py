"""What a gate's result looks like: golden files for text, Markdown and JSON.

After a change that is meant, write them anew with ``FXCHECK_WRITE_GOLDEN=1 pytest tests/render/test_gate_reads_well.py``.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from fxcheck.gate.findings import findings_of
from fxcheck.records.finding import Diagnostic
from fxcheck.records.gate import GatedModel, GateResult, LayerChange, ModelChange, Standing
from fxcheck.records.report import FailedTarget, Report
from fxcheck.render import gate_json, gate_markdown, gate_text
from tests.gate.made import layer, report

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "gate"


def model(name: str, require: str, made: Report, *standings: Standing) -> GatedModel:
    found = findings_of(name, made)
    judged = tuple(
        replace(f, standing=s, reason="frozen on purpose" if s is Standing.IGNORED else "")
        for f, s in zip(found, standings, strict=True)
    )
    return GatedModel(name, f"nets:{name}", require, made, None, judged)


def everything() -> GateResult:
    """A result in which everything occurs."""
    new, known, ignored = Standing.NEW, Standing.BASELINE, Standing.IGNORED
    layers = [layer(f"block{i}.relu", "runtime", "FX101", line=i, source="x = self.relu(x)") for i in range(5)]
    rounding = Diagnostic("FX401", "round is not continuous", "Use a continuous function", "net.py:3", "head", "round")
    return GateResult(
        (
            replace(model("fine", "certified", report(layer("relu", "certified")), known), findings=()),
            model("short", "certified", replace(report(*layers), assumptions=("smooth criterion",)), *[new] * 5),
            model("old", "certified", report(*layers[:2]), known, ignored),
            model("rounds", "runtime", report(diagnostics=(rounding,)), new),
            GatedModel("raises", "nets:raises", "runtime", None, FailedTarget("nets:raises", "FX601", "it raised")),
        ),
        ("net.py:9: fxcheck: ignore[FX301] matches nothing; remove it",),
        (("old", "block9.relu", "relu", "FX101"), ("old", "", "", "FX505")),
        "2.13.0",
        (
            ModelChange("fine", "certified", "certified"),
            ModelChange("short", "certified", "runtime", (
                LayerChange("clamp", "clamp", "net.py:4", ("gradient at 6: 1 -> 0",), "certified", "runtime"),
            ), "the saved proxies do not settle aten.gelu"),
        ),
    )  # fmt: skip


RENDERED = {
    "gate.txt": lambda: gate_text.render_gate(everything(), width=100),
    "gate.md": lambda: gate_markdown.render_gate(everything()),
    "gate.json": lambda: gate_json.render_gate(everything()),
}


@pytest.mark.parametrize("name", RENDERED)
def test_the_rendering_is_the_golden_one(name: str) -> None:
    text = RENDERED[name]()
    if os.environ.get("FXCHECK_WRITE_GOLDEN"):
        GOLDEN.mkdir(exist_ok=True)
        (GOLDEN / name).write_text(text, encoding="utf-8")
    assert text == (GOLDEN / name).read_text(encoding="utf-8")


def test_json_has_no_fields_of_what_was_not_asked_for() -> None:
    assert "torch_proxies" not in json.loads(gate_json.render_gate(replace(everything(), old_torch="", changes=())))


def test_colours_are_used_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[" in gate_text.render_gate(everything(), color=True)
    assert "\x1b[" not in gate_text.render_gate(everything())
