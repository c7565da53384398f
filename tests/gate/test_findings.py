"""Which findings a report has, and which of them fall short of what is required."""

from __future__ import annotations

import pytest

from fxcheck.gate.findings import falls_short, findings_of, place
from fxcheck.records.finding import Diagnostic, Verdict
from fxcheck.records.gate_config import Require
from tests.gate.made import diagnostic, layer, report


def test_each_diagnostic_of_a_layer_is_a_finding() -> None:
    found = findings_of("m", report(layer("a", "runtime", "FX101", "FX201", line=7, source="x = relu(x)")))
    assert [(f.model, f.layer, f.op, f.code, f.verdict) for f in found] == [
        ("m", "a", "relu", "FX101", "runtime"), ("m", "a", "relu", "FX201", "runtime")
    ]  # fmt: skip
    assert (found[0].path, found[0].line, found[0].source) == ("net.py", 7, "x = relu(x)")


def test_a_layer_without_a_diagnostic_has_its_verdict_as_code() -> None:
    (found,) = findings_of("m", report(layer("a", "certified")))
    assert (found.code, found.message) == ("certified", "relu at a is certified")


def test_a_diagnostic_that_points_elsewhere_does_not_borrow_the_layers_line() -> None:
    one = layer("a", "runtime", line=7, source="x = relu(x)")
    found = findings_of("m", report(one.__class__(**{**vars(one), "diagnostics": (diagnostic("FX203", "net.py:9"),)})))
    assert (found[0].path, found[0].line, found[0].source) == ("net.py", 9, "")


def test_findings_of_the_whole_model_come_first_and_keep_module_and_operator() -> None:
    why = Diagnostic("FX401", "round", "", "net.py:3", "head", "round", "y = x.round()")
    first, _ = findings_of("m", report(layer("a"), diagnostics=(why,)))
    assert (first.layer, first.op, first.verdict, first.source) == ("head", "round", "uncovered", "y = x.round()")


def test_a_remark_on_the_analysis_is_no_finding() -> None:
    assert findings_of("m", report(diagnostics=(diagnostic("FX204"),))) == ()


@pytest.mark.parametrize("verdict", ["certified", "runtime", "uncovered"])
@pytest.mark.parametrize("require", list(Require))
def test_a_model_falls_short_exactly_when_one_of_its_findings_does(verdict: str, require: Require) -> None:
    made = report(layer("a", "certified"), layer("b", verdict))
    short = any(falls_short(f, require) for f in findings_of("m", made))
    order = ["smooth", "certified", "runtime", "uncovered"]
    assert short == (require != "never" and order.index(verdict) > order.index(str(require)))
    assert made.verdict is Verdict(verdict)


@pytest.mark.parametrize(
    ("location", "wanted"),
    [("a/b.py:12", ("a/b.py", 12)), ("a\\b.py:12", ("a/b.py", 12)), ("", ("", 0)), ("b.py", ("b.py", 0))],
)
def test_a_location_is_a_path_and_a_line(location: str, wanted: tuple[str, int]) -> None:
    assert place(location) == wanted
