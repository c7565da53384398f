"""Reports and gate results built by hand."""

from __future__ import annotations

from dataclasses import replace

from fxcheck.records.finding import Diagnostic, Verdict, weakest
from fxcheck.records.gate import GatedModel, GateFinding, GateResult, Standing
from fxcheck.records.proxy import Proxy
from fxcheck.records.report import Bias, Conditions, FailedTarget, LayerReport, Report, Structure

HOSTILE = "<script>alert('x')</script>&\"'"
RELU = (Proxy(0.0, 0.0, 0.0, 1.0, 1.0),)
RELU6 = (*RELU, Proxy(6.0, 1.0, 0.0, 0.0, 0.0))
FAILED = FailedTarget("gone.py", "FX601", "no such file\n  try: another, 100% of the time: yes")


def layer(index: int, verdict: Verdict = Verdict.CERTIFIED, **changes: object) -> LayerReport:
    theorem = {Verdict.CERTIFIED: "T6", Verdict.RUNTIME: "T8"}.get(verdict)
    made = LayerReport(
        index, index, f"blocks.{index}.relu", f"net.py:{2 + index}", ("conv2d", "batch_norm"), "relu", None, (), False,
        RELU, Bias("shared", (f"blocks.{index}.bias",), (1,)), verdict, theorem, source=f"x = relu{index}(x)",
        inputs=(index - 1,) if index else (),
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def flawed(index: int, verdict: Verdict = Verdict.UNCOVERED, code: str = "FX101") -> LayerReport:
    why = (Diagnostic(code, "no bias, and: no hope", "Add a bias.", f"net.py:{2 + index}"),)
    return layer(index, verdict, diagnostics=why, bias=Bias("none"))


def report(*layers: LayerReport, verdict: Verdict | None = None, **changes: object) -> Report:
    verdict = verdict or weakest([x.verdict for x in layers])
    theorem = {Verdict.CERTIFIED: "T6", Verdict.RUNTIME: "T8"}.get(verdict)
    made = Report(
        "net.py:model", "2.14.1", "train", None, ("smooth criterion",), verdict, theorem, "bouligand",
        Conditions(False, True, None, True, False, True),
        Structure(1000, 900, len(layers), len(layers), 1, 0, 0, True, ("batch_norm",)), layers, (),
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def finding(standing: Standing = Standing.NEW, line: int = 3, **changes: object) -> GateFinding:
    made = GateFinding(
        "net", "FX101", "blocks.1.relu", "relu", "uncovered", "no bias, and: no hope", "Add a bias.", "net.py", line,
        "x = relu1(x)", standing, "" if standing is Standing.NEW else "agreed on Monday",
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def gated(*findings: GateFinding, name: str = "net", require: str = "certified", **changes: object) -> GatedModel:
    one = report(layer(0), flawed(1))
    return replace(GatedModel(name, "net.py:model", require, one, None, findings), **changes)  # type: ignore[arg-type]


def gate(*models: GatedModel, **changes: object) -> GateResult:
    return replace(GateResult(models), **changes)  # type: ignore[arg-type]


def every_standing() -> GateResult:
    """One finding of each standing, and a model that could not be analysed."""
    findings = [finding(s, line, layer=f"blocks.{line}.relu") for line, s in enumerate(Standing, 1)]
    broken = gated(name="gone", report=None, error=FAILED)
    return gate(gated(*findings), broken, unused_ignores=("ignore of FX999 in net matches nothing",),
                stale=(("net", "old.relu", "relu", "FX101"),))  # fmt: skip
