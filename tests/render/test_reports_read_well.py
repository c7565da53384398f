"""Rendering of reports built by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fxcheck.records.finding import Diagnostic, Verdict
from fxcheck.records.proxy import Proxy
from fxcheck.records.report import Bias, FailedTarget, LayerReport
from fxcheck.render import json as as_json
from fxcheck.render import markdown, text
from tests.render.made import report

HINT = "Check it while training (T8), or use average pooling."


def layer(index: int, verdict: Verdict = Verdict.CERTIFIED, **changes: object) -> LayerReport:
    kink = (Proxy(0.0, 0.0, 0.0, 1.0, 1.0),)
    made = LayerReport(
        index, index, f"layer{index}.relu", f"net.py:{10 + index}", ("conv2d", "batch_norm"), "relu", None, (), False,
        kink, Bias("shared", (f"bn{index}.bias",), (1,)), verdict, "T6" if verdict is Verdict.CERTIFIED else "T8",
        source="x = self.relu(x)",
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def pooled(index: int) -> LayerReport:
    why = (Diagnostic("FX301", f"pool {index} takes a max", HINT, f"net.py:{10 + index}"),)
    return layer(index, Verdict.RUNTIME, maxpool="max_pool2d", diagnostics=why)


@pytest.mark.parametrize("verdict", list(Verdict))
def test_every_rendering_prints_the_verdict_and_explains_the_assumption(verdict: Verdict) -> None:
    one = report(layer(0, verdict), verdict=verdict)
    for shown in (text.render([one], width=200), markdown.render([one])):
        assert verdict in shown
        assert "smooth criterion: the loss is an analytic function of the outputs" in shown
    assert json.loads(as_json.render([one]))["assumptions"] == ["smooth criterion"]


def test_alike_layers_share_a_row_with_count_and_range() -> None:
    shown = text.render([report(*[layer(i) for i in range(5)])], width=160)
    assert "layer0.relu ... layer4.relu" in shown
    assert "layer2.relu" not in shown


def test_layers_with_another_verdict_do_not_share_a_row() -> None:
    shown = text.render([report(layer(0), pooled(1), verdict=Verdict.RUNTIME)], width=160)
    assert "..." not in shown


def test_all_layers_are_shown_when_asked_for() -> None:
    one = report(*[layer(i) for i in range(5)])
    assert all(f"layer{i}.relu" in text.render([one], all_layers=True, width=160) for i in range(5))
    assert all(f"layer{i}.relu" in markdown.render([one], all_layers=True) for i in range(5))


def test_diagnostics_with_one_hint_are_counted_once_with_their_first_places() -> None:
    shown = text.render([report(*[pooled(i) for i in range(5)], verdict=Verdict.RUNTIME)], width=160)
    assert shown.count(HINT) == 1
    assert "FX301 (x5) pool 0 takes a max" in shown
    assert "at net.py:12   x = self.relu(x)" in shown
    assert "net.py:13" not in shown
    assert "and 2 more places" in shown


def test_text_fits_eighty_columns() -> None:
    shown = text.render([report(*[pooled(i) for i in range(3)], verdict=Verdict.RUNTIME)], width=80)
    assert max(len(line) for line in shown.splitlines()) <= 80
    table = shown[shown.index("pre-") : shown.index("FX301 (x3)")]
    assert "codes" in table and "FX301" in table and "runtime" in table


def test_no_escape_codes_without_colour() -> None:
    assert "\x1b" not in text.render([report(layer(0))], width=80)
    assert "\x1b" in text.render([report(layer(0))], width=80, color=True)


def test_square_brackets_in_names_are_text_and_not_markup() -> None:
    assert "blocks[red][0].relu" in text.render([report(layer(0, name="blocks[red][0].relu"))], width=160)


def test_a_runtime_report_says_how_many_layers_are_settled() -> None:
    shown = text.render([report(layer(0), layer(1), pooled(2), verdict=Verdict.RUNTIME)], width=400)
    assert "2 of 3 layers can never make it wrong" in shown


def test_t1_is_said_to_hold_for_one_sample_only() -> None:
    assert "for every step on one sample" in text.render([report(layer(0), theorem="T1")], width=400)


def test_several_results_are_an_array_and_one_is_an_object() -> None:
    failed = FailedTarget("gone.py", None, "no such file")
    both = json.loads(as_json.render([report(layer(0)), failed]))
    assert both[1] == {"target": "gone.py", "error": {"code": None, "message": "no such file"}}
    assert json.loads(as_json.render([report(layer(0))]))["schema"] == "fxcheck/report/1"


def test_a_failed_target_is_named_in_every_rendering() -> None:
    failed = FailedTarget("gone.py", None, "no such file")
    assert "gone.py: not analysed" in text.render([failed], width=80)
    assert "Not analysed: no such file" in markdown.render([failed])


def test_markdown_cells_keep_pipes_from_ending_a_column() -> None:
    assert "a\\|b" in markdown.render([report(layer(0, name="a|b"))])
