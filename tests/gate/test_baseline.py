"""A baseline remembers findings by model, module path, op and code; what is worse than it remembers is new."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from fxcheck.errors import UsageError
from fxcheck.gate.baseline import Baseline, read_baseline
from fxcheck.gate.findings import findings_of
from fxcheck.records.gate import GateFinding, Standing
from tests.gate.made import layer, report


def never(model: str) -> bool:
    return False


def findings(*layers: str, code: str = "FX101", verdict: str = "runtime", model: str = "m") -> tuple[GateFinding, ...]:
    return findings_of(model, report(*(layer(name, verdict, code) for name in layers)))


def standings(baseline: Baseline, *found: GateFinding) -> list[str]:
    return [str(f.standing) for f in baseline.standing(found)]


def test_what_was_known_is_known_again_on_another_line() -> None:
    known = Baseline().updated(findings("a"), never)
    moved = [replace(f, line=99, source="moved", message="in other words") for f in findings("a")]
    assert standings(known, *moved) == ["baseline"]


@pytest.mark.parametrize(
    "found",
    [findings("b"), findings("a", code="FX102"), findings("a", model="n"), findings("a", verdict="uncovered"),
     findings("a", "a")],
    ids=["layer", "code", "model", "weaker verdict", "one more of the kind"],
)  # fmt: skip
def test_what_is_other_or_worse_is_new(found: tuple[GateFinding, ...]) -> None:
    known = Baseline().updated(findings("a"), never)
    assert set(standings(known, *found)) == {"new"}


def test_fewer_or_stronger_ones_are_known() -> None:
    known = Baseline().updated(findings("a", "a", verdict="uncovered"), never)
    assert standings(known, *findings("a")) == ["baseline"]


def test_an_ignored_finding_stays_ignored_and_is_not_written() -> None:
    ignored = tuple(replace(f, standing=Standing.IGNORED) for f in findings("a"))
    assert Baseline().updated(ignored, never).known == {}
    assert standings(Baseline().updated(findings("a"), never), *ignored) == ["ignored"]


def test_entries_of_models_that_were_not_judged_stay() -> None:
    known = Baseline().updated((*findings("a"), *findings("a", model="broken")), never)
    again = known.updated((), lambda model: model == "broken")
    assert [key[0] for key in again.known] == ["broken"]
    assert known.stale((), lambda model: model == "broken") == (("m", "a", "relu", "FX101"),)


def test_the_file_does_not_depend_on_the_order_of_findings(tmp_path: Path) -> None:
    found = [*findings("a", "b", "c"), *findings("a", code="FX301"), *findings("ä", model="n")]
    texts = set()
    for seed in range(5):
        random.Random(seed).shuffle(found)
        texts.add(Baseline().updated(found, never).to_json())
    (text,) = texts
    file = tmp_path / "known.json"
    file.write_text(text, encoding="utf-8")
    assert read_baseline(str(file)).to_json() == text
    assert '{"model": "m", "layer": "a", "op": "relu", "code": "FX101", "verdict": "runtime", "count": 1}' in text
    assert "line" not in json.loads(text)["findings"][0]


def test_an_empty_baseline_is_a_document_too(tmp_path: Path) -> None:
    (tmp_path / "known.json").write_text(Baseline().to_json())
    assert read_baseline(str(tmp_path / "known.json")) == Baseline()


ENTRY = {"model": "m", "layer": "a", "op": "relu", "code": "FX101", "verdict": "runtime", "count": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "has schema 'list'"),
        ('{"schema": "fxcheck/baseline/9"}', "has schema 'fxcheck/baseline/9'; wanted 'fxcheck/baseline/1'"),
        ('{"schema": "fxcheck/baseline/1"}', "has no list 'findings'"),
        (json.dumps({"schema": "fxcheck/baseline/1", "findings": [3]}), "finding 0 is 3"),
        *(
            (json.dumps({"schema": "fxcheck/baseline/1", "findings": [ENTRY, {**ENTRY, name: wrong}]}), f"finding 1: .*{word}")
            for name, wrong, word in [
                ("model", None, "model"), ("code", 3, "code"), ("verdict", "fine", "fine"), ("count", 0, "count"),
                ("count", True, "count"),
            ]
        ),
    ],
)  # fmt: skip
def test_a_broken_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "known.json").write_text(text)
    with pytest.raises(UsageError, match=message) as raised:
        read_baseline(str(tmp_path / "known.json"))
    assert "--update-baseline" in str(raised.value)


def test_a_missing_file_is_refused() -> None:
    with pytest.raises(UsageError, match="there is no baseline file"):
        read_baseline("/nowhere/known.json")
