"""The table at the end of a checked run."""

from __future__ import annotations

import io

from rich.console import Console

from fxcheck.records.step import LayerStep, StepResult, Summary
from fxcheck.render.run import print_run


def _layer(**changes: object) -> LayerStep:
    values = dict(name="pool", group=0, entries=64, max_outputs=64, touched=0, ties=16, nontrivial_outputs=2, nontrivial=3,
                  constraints=3, verdict="certified", theorem="T8")  # fmt: skip
    return LayerStep(**{**values, **changes})  # type: ignore[arg-type]


def _printed(summary: Summary) -> str:
    out = io.StringIO()
    print_run(summary, Console(file=out, width=140))
    return out.getvalue()


def test_a_run_shows_table_2_per_layer_and_the_time_of_each_stage() -> None:
    summary = Summary(notes=("compared within a spread",))
    summary.add(StepResult("certified", "T8", "bouligand", layers=(_layer(),), seconds={"observation": 0.002}))
    summary.add(StepResult("uncertified", reason="infeasible", layers=(_layer(ties=0, nontrivial=0, nontrivial_outputs=0,
                                                                              verdict="infeasible"),)))  # fmt: skip
    text = _printed(summary)
    assert "1 of 2 steps certified (1 by T8 (bouligand)); uncertified: 1 infeasible" in text
    assert "compared within a spread" in text
    assert text.splitlines()[2].split() == ["pool", "0", "0", "12.5", "1", "1.50", "6", "1"]
    assert "observation 1.00" in text


def test_layers_without_maxima_have_dashes_and_an_empty_run_prints() -> None:
    summary = Summary()
    assert "0 of 0 steps certified" in _printed(summary)
    summary.add(StepResult("certified", layers=(_layer(name="relu6", max_outputs=0, ties=0, nontrivial=0, touched=2,
                                                       nontrivial_outputs=0),)))  # fmt: skip
    assert _printed(summary).splitlines()[2].split() == ["relu6", "2", "1", "-", "-", "-", "3", "0"]
