"""The page of a run, and the bounded history behind it."""

from __future__ import annotations

from pathlib import Path

import fxcheck
from fxcheck.records.history import BINS, History
from fxcheck.records.step import LayerStep, StepResult, Summary
from fxcheck.render import run_html
from tests.render.made import HOSTILE


def _step(number: int, **changes: object) -> StepResult:
    values = dict(name="pool", group=0, entries=64, max_outputs=64, touched=number % 2, ties=16, nontrivial_outputs=2,
                  nontrivial=3, constraints=3, verdict="certified", theorem="T8")  # fmt: skip
    layers = (LayerStep(**{**values, **changes}), LayerStep(**{**values, "name": "calm", "touched": 0, "nontrivial": 0}))  # type: ignore[arg-type]
    return StepResult("uncertified" if number == 5 else "certified", layers=layers, seconds={"lp": 0.001})


def _summary(steps: int, **changes: object) -> Summary:
    summary = Summary(theorem="T8", notes=("a note",))
    for number in range(steps):
        summary.add(_step(number, **changes))
    return summary


def test_a_history_keeps_its_totals_and_its_size() -> None:
    history = History()
    for number in range(10 * BINS + 7):
        history.add(number % 3 > 0, [("a", number, 1)] + ([("late", 2, 0)] if number > 500 else []))
    assert len(history.uncertified) <= BINS and history.width == 16
    assert sum(history.uncertified) == len(range(0, 10 * BINS + 7, 3))
    assert sum(history.layers["a"].touched) == sum(range(10 * BINS + 7))
    assert sum(history.layers["late"].touched) == 2 * (10 * BINS + 7 - 501)
    assert sum(history.steps_in(i) for i in range(len(history.uncertified))) == 10 * BINS + 7


def test_a_summary_records_what_happened_when() -> None:
    history = _summary(8).to_dict()["history"]
    assert history["width"] == 1 and history["uncertified"] == [0, 0, 0, 0, 0, 1, 0, 0]
    assert history["layers"]["pool"]["touched"] == [0, 1] * 4


def test_the_page_shows_steps_layers_and_totals(tmp_path: Path) -> None:
    fxcheck.save_run(_summary(8), str(tmp_path / "run.html"), title="vgg")
    page = (tmp_path / "run.html").read_text(encoding="utf-8")
    assert "7 of 8 steps certified" in page and "a note" in page and "<h2 class=\"target\">vgg</h2>" in page
    assert "touches of pool" in page and "non-trivial ties of pool" in page
    assert "Neither touched nor tied: calm" in page
    assert page.count('class="bar uncertified"') == 1 and page.count('class="bar touches"') == 4


def test_an_empty_run_and_hostile_names_are_shown() -> None:
    assert "0 of 0 steps certified" in run_html.render(Summary())
    page = run_html.render(_summary(3, name=HOSTILE), title=HOSTILE)
    assert HOSTILE not in page and page.count("<script>") == 1
